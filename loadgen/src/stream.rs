//! A non-blocking byte stream to the target: TCP, or TLS over it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType, ipproto, socket, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::tls;

/// How to get a stream to the target.
#[derive(Clone, Debug)]
pub struct Door {
    /// Resolved address.
    pub address: SocketAddr,
    /// For https: the configuration, with what ALPN is to offer, and the name in the certificate.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// See the module.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with Nagle's algorithm off.
    Plain(TcpStream),
    /// TLS over it.
    Tls(Box<Tls>),
}

/// A TLS session and its socket.
#[derive(Debug)]
pub struct Tls {
    socket: TcpStream,
    session: ClientConnection,
}

impl Door {
    /// Begins to connect; the socket becomes writable when that has ended, and [`Stream::connected`] says how.
    pub fn open(&self) -> io::Result<Stream> {
        let family = if self.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, Some(ipproto::TCP))?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = TcpStream::from(socket);
        let Some((config, name)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let session = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(Tls { socket, session })))
    }
}

impl Stream {
    /// For the poller.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// Whether it is connected, and for TLS the handshake done; goes on with that. False: wait until the socket is ready.
    pub fn connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket().take_error()? {
            return Err(error);
        }
        let peer = match self.socket().peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            peer => peer?,
        };
        // Who knocks often enough at a dead port of this machine is given it as his own, meets himself there, and keeps its owner out.
        if self.socket().local_addr()? == peer {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.shake_hands(),
        }
    }

    /// What the other side chose of the protocols offered by ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.session.alpn_protocol(),
        }
    }

    /// Whether a read that did not fill its buffer means that nothing is left to read. Not so in TLS, where a read ends with its record.
    pub fn short_read_drains(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Tls {
    fn shake_hands(&mut self) -> io::Result<bool> {
        while self.session.is_handshaking() {
            let moved = match self.session.wants_write() {
                true => self.session.write_tls(&mut self.socket),
                false => self.receive(),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                moved => moved?,
            };
        }
        self.flush()?;
        Ok(true)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let received = self.session.read_tls(&mut self.socket)?;
        if let Err(error) = self.session.process_new_packets() {
            // The target is told why, if it still listens.
            let _ = self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, tls::with_remedy(error.to_string())));
        }
        Ok(received)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.receive()? == 0 {
                return Ok(0);
            }
        }
    }

    /// Takes all of it; what the socket does not take now goes with [`Tls::flush`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let written = self.session.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(written),
            flushed => flushed.map(|()| written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}
