//! One HTTP/1.1 connection to the target, one request at a time, with the two instants that matter stamped where they happen: at the
//! first write of a request and at the last read of its answer.
//!
//! hyper's connection API without a pool: a pool may open connections behind the caller's back and put their set-up into a response
//! time. Head and body leave in one write; Nagle is off.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock::Clock;

/// An answer's body is read up to this many bytes; more is an error, so that an endless body cannot fill the memory.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection that is free for a request. Belongs to the sending thread.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    stamps: Rc<Stamps>,
    /// When the last answer was read (or the connection opened): from then on this connection could have taken a request.
    pub free_since_ns: u64,
    /// How long opening it took.
    pub connect_ns: u64,
}

/// What came of one request.
#[derive(Debug)]
pub struct Exchange {
    /// Just before the first byte was handed to the kernel; `None` when none was.
    pub sent_ns: Option<u64>,
    /// Just after the last byte of the answer came from the kernel, or when it was given up.
    pub done_ns: u64,
    /// The answer, whole.
    pub answer: Result<Answer, ExchangeError>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Body, at most [`ANSWER_BYTES_MAX`].
    pub body: Bytes,
}

/// Why there is no whole answer. After any of these the connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Nothing, or not all, within the request timeout.
    #[error("no whole answer within the request timeout")]
    TimedOut,
    /// The target closed or reset the connection.
    #[error("connection closed before the whole answer")]
    Closed,
    /// What came is not HTTP/1.1.
    #[error("answer is not HTTP/1.1")]
    NotHttp,
    /// The body goes on past [`ANSWER_BYTES_MAX`].
    #[error("answer's body is longer than 64 KiB")]
    BodyTooLong,
}

impl Connection {
    /// Connects; must be called on the sending thread's `LocalSet`, where the connection's I/O is then driven.
    pub async fn open(address: SocketAddr, clock: Clock, patience: Duration) -> io::Result<Self> {
        let begin_ns = clock.now_ns();
        let stream = timeout(patience, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        let stamps = Rc::new(Stamps::default());
        let io = StampedIo { stream: TokioIo::new(stream), stamps: Rc::clone(&stamps), clock };
        let (sender, driver) = http1::handshake(io).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Its error is the error of the request in flight, and is counted there.
            let _ = driver.await;
        });
        let now_ns = clock.now_ns();
        Ok(Self { sender, stamps, free_since_ns: now_ns, connect_ns: now_ns - begin_ns })
    }

    /// Whether the target has closed it since the last answer.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until hyper takes the next request; false when the connection is over (`Connection: close`, or closed).
    pub async fn is_reusable(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and reads the whole answer.
    pub async fn exchange(&mut self, request: Request<Full<Bytes>>, clock: Clock, patience: Duration) -> Exchange {
        self.stamps.arm();
        let answer = match timeout(patience, self.send_and_read(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(ExchangeError::TimedOut),
        };
        let done_ns = if answer.is_ok() { self.stamps.read_ns.get() } else { clock.now_ns() };
        self.free_since_ns = done_ns;
        Exchange { sent_ns: self.stamps.sent_ns.get(), done_ns, answer }
    }

    async fn send_and_read(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ExchangeError> {
        let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| match error
                .downcast::<hyper::Error>(
            ) {
                Ok(error) => broken(&error),
                Err(error) if error.is::<LengthLimitError>() => ExchangeError::BodyTooLong,
                Err(_) => ExchangeError::Closed,
            })?;
        Ok(Answer { status, body: body.to_bytes() })
    }
}

fn broken(error: &hyper::Error) -> ExchangeError {
    if error.is_parse() { ExchangeError::NotHttp } else { ExchangeError::Closed }
}

/// Instants of the request in flight.
#[derive(Debug, Default)]
struct Stamps {
    sent_ns: Cell<Option<u64>>,
    read_ns: Cell<u64>,
}

impl Stamps {
    fn arm(&self) {
        self.sent_ns.set(None);
        self.read_ns.set(0);
    }
}

/// The socket, with a clock at its write and read calls.
#[derive(Debug)]
struct StampedIo {
    stream: TokioIo<TcpStream>,
    stamps: Rc<Stamps>,
    clock: Clock,
}

impl StampedIo {
    fn stamp_write(&self) {
        if self.stamps.sent_ns.get().is_none() {
            self.stamps.sent_ns.set(Some(self.clock.now_ns()));
        }
    }
}

impl Read for StampedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.stamps.read_ns.set(self.clock.now_ns());
        }
        read
    }
}

impl Write for StampedIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stamp_write();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stamp_write();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
