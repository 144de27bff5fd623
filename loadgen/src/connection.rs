//! One connection to the target, with the two instants that matter stamped where they happen: just before the first write of a request
//! and just after the last read of its answer.
//!
//! HTTP/1.1 carries one request at a time, HTTP/2 as many as asked for. Head and body leave in one write; Nagle is off. No pool: a pool
//! may open connections behind the caller's back and put their set-up into a response time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::exchange::{Answer, ExchangeError, Request};
use crate::http1::{self, Body, Reader};
use crate::http2::{self, Http2, Origin};
use crate::poller::{Poller, Ready};
use crate::stream::{Door, Stream};

/// Where requests go and how.
#[derive(Clone, Debug)]
pub struct Destination {
    /// How to get there.
    pub door: Door,
    /// What it is called there.
    pub origin: Origin,
    /// HTTP/2 in place of HTTP/1.1.
    pub http2: bool,
    /// Requests at a time on one connection; 1 for HTTP/1.1.
    pub streams: usize,
    /// Path of the target's URL, without a slash at the end.
    pub base_path: String,
    /// Paths, bodies and what answers mean.
    pub dialect: Arc<Dialect>,
    /// Header lines of each organisation's requests; see [`Request::headers`].
    pub headers: Vec<Vec<u8>>,
}

/// Bytes read with one call.
const READ_BYTES: usize = 64 * 1024;

/// Memory for what is read, shared by all connections of a thread: an answer is nearly always whole within one read.
#[derive(Debug)]
pub struct Scratch(Box<[u8]>);

impl Default for Scratch {
    fn default() -> Self {
        Self(vec![0; READ_BYTES].into_boxed_slice())
    }
}

/// Sends one request over a connection of its own and waits for the answer, at most `patience`: when it was sent, when its answer was
/// read, its status and its body. Blocks the thread.
pub fn exchange(
    destination: &Destination,
    request: &Request<'_>,
    clock: Clock,
    patience: Duration,
) -> io::Result<(u64, u64, u16, Vec<u8>)> {
    let mut poller = Poller::new()?;
    let mut connection = Connection::open(destination, clock, |socket| poller.add(socket, 0))?;
    let (mut scratch, mut events, mut answered) = (Scratch::default(), Vec::new(), None);
    let deadline_ns = clock.now_ns() + patience.as_nanos() as u64;
    loop {
        let left = Duration::from_nanos(deadline_ns.saturating_sub(clock.now_ns()));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        poller.wait(Some(left), &mut events)?;
        for &ready in &events {
            let standing = connection.ready(ready, &mut scratch, &mut |done: Done<'_, ()>| {
                let answer =
                    done.answer.map(|answer| (done.sent_ns, done.done_ns, answer.status, answer.body.to_vec()));
                answered = Some(answer);
            })?;
            if let Some(answer) = answered.take() {
                return answer.map_err(io::Error::other);
            }
            match standing {
                Standing::Opened => {
                    connection.send(request, &destination.origin, 0, ()).map_err(|(_, e)| io::Error::other(e))?
                }
                Standing::Over => return Err(io::ErrorKind::UnexpectedEof.into()),
                Standing::Opening | Standing::Open => {}
            }
        }
    }
}

/// A request that came to its end.
#[derive(Debug)]
pub struct Done<'a, F> {
    /// What was given with the request.
    pub flight: F,
    /// Just before its first byte was handed to the kernel.
    pub sent_ns: u64,
    /// Just after the last byte of its answer came from the kernel, or when it was given up.
    pub done_ns: u64,
    /// The answer, whole.
    pub answer: Result<Answer<'a>, ExchangeError>,
}

/// What a connection is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not open yet.
    Opening,
    /// Open since just now.
    Opened,
    /// Open.
    Open,
    /// Of no more use.
    Over,
}

/// A request on its way.
struct Flight<F> {
    serial: u64,
    sent_ns: u64,
    flight: F,
}

/// See the module. `F` is what the caller wants back with each answer.
pub struct Connection<F> {
    carrier: Carrier<F>,
    http2: bool,
    clock: Clock,
}

enum Carrier<F> {
    Connecting(Stream),
    Http1(Http1<F>),
    Http2Opening(http2::Opening),
    Http2(Box<Http2<Flight<F>>>),
    Over,
}

struct Http1<F> {
    stream: Stream,
    reader: Reader,
    /// What of an answer came before, when it did not come at once.
    received: Vec<u8>,
    to_write: Vec<u8>,
    written: usize,
    flight: Option<Flight<F>>,
}

impl<F> Connection<F> {
    /// Begins to open one. `watch` is given the socket once.
    pub fn open(
        destination: &Destination,
        clock: Clock,
        watch: impl FnOnce(&TcpStream) -> io::Result<()>,
    ) -> io::Result<Self> {
        let stream = destination.door.open()?;
        watch(stream.socket())?;
        Ok(Self { carrier: Carrier::Connecting(stream), http2: destination.http2, clock })
    }

    /// Sends a request, which the connection must have room for. Given back with the reason when it could not be sent; an HTTP/1.1
    /// connection is then over.
    pub fn send(
        &mut self,
        request: &Request<'_>,
        origin: &Origin,
        serial: u64,
        flight: F,
    ) -> Result<(), (F, ExchangeError)> {
        match &mut self.carrier {
            Carrier::Http1(http1) => {
                http1::write(request, &mut http1.to_write);
                let sent_ns = self.clock.now_ns();
                http1.flight = Some(Flight { serial, sent_ns, flight });
                match http1.flush() {
                    Ok(()) => Ok(()),
                    Err(_) => {
                        let flight = http1.flight.take().expect("just put there").flight;
                        self.carrier = Carrier::Over;
                        Err((flight, ExchangeError::Closed))
                    }
                }
            }
            Carrier::Http2(http2) => {
                let sent_ns = self.clock.now_ns();
                let sent = http2.send(request, origin, Flight { serial, sent_ns, flight });
                sent.map_err(|(flight, error)| (flight.flight, error))
            }
            _ => Err((flight, ExchangeError::Closed)),
        }
    }

    /// Does what can be done now that the socket is ready; tells of each request that came to its end.
    pub fn ready(
        &mut self,
        ready: Ready,
        scratch: &mut Scratch,
        done: &mut impl FnMut(Done<'_, F>),
    ) -> Result<Standing, io::Error> {
        match &mut self.carrier {
            Carrier::Connecting(_) | Carrier::Http2Opening(_) => self.go_on_opening(),
            Carrier::Http1(http1) => {
                if !http1.ready(ready, scratch, self.clock, done) {
                    self.carrier = Carrier::Over;
                    return Ok(Standing::Over);
                }
                Ok(Standing::Open)
            }
            Carrier::Http2(http2) => {
                let lives = http2.ready(&mut |Flight { sent_ns, flight, .. }, done_ns, answer| {
                    done(Done { flight, sent_ns, done_ns, answer });
                });
                Ok(if lives { Standing::Open } else { Standing::Over })
            }
            Carrier::Over => Ok(Standing::Over),
        }
    }

    fn go_on_opening(&mut self) -> io::Result<Standing> {
        if let Carrier::Connecting(stream) = &mut self.carrier {
            if !stream.connected()? {
                return Ok(Standing::Opening);
            }
            let Carrier::Connecting(stream) = std::mem::replace(&mut self.carrier, Carrier::Over) else {
                unreachable!("it has just been that");
            };
            if !self.http2 {
                self.carrier = Carrier::Http1(Http1::new(stream));
                return Ok(Standing::Opened);
            }
            if matches!(stream, Stream::Tls(_)) && stream.protocol() != Some(b"h2") {
                let message = "the target does not speak HTTP/2 (it did not choose h2 by ALPN); leave --http 2 out";
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            self.carrier = Carrier::Http2Opening(http2::Opening::new(stream, self.clock));
        }
        let Carrier::Http2Opening(opening) = &mut self.carrier else { return Ok(Standing::Open) };
        match opening.go_on()? {
            None => Ok(Standing::Opening),
            Some(http2) => {
                self.carrier = Carrier::Http2(Box::new(http2));
                Ok(Standing::Opened)
            }
        }
    }

    /// Takes back the request of this number, if it is still on its way, with when it was sent. An HTTP/1.1 connection is then over.
    pub fn give_up(&mut self, serial: u64) -> Option<(F, u64)> {
        match &mut self.carrier {
            Carrier::Http1(http1) => {
                let Flight { sent_ns, flight, .. } = http1.flight.take_if(|flight| flight.serial == serial)?;
                self.carrier = Carrier::Over;
                Some((flight, sent_ns))
            }
            Carrier::Http2(http2) => {
                let Flight { sent_ns, flight, .. } = http2.give_up(|flight| flight.serial == serial)?;
                Some((flight, sent_ns))
            }
            _ => None,
        }
    }

    /// Whether the request of this number is on its way here.
    pub fn carries(&self, serial: u64) -> bool {
        match &self.carrier {
            Carrier::Http1(http1) => http1.flight.as_ref().is_some_and(|flight| flight.serial == serial),
            Carrier::Http2(http2) => http2.flights().any(|flight| flight.serial == serial),
            _ => false,
        }
    }

    /// Whether it cannot be used any more.
    pub fn is_over(&self) -> bool {
        match &self.carrier {
            Carrier::Http2(http2) => http2.is_over(),
            carrier => matches!(carrier, Carrier::Over),
        }
    }

    /// Whether it may take requests: one that the target is closing does not, though answers may still come.
    pub fn is_open(&self) -> bool {
        match &self.carrier {
            Carrier::Http1(_) => true,
            Carrier::Http2(http2) => http2.is_open(),
            _ => false,
        }
    }

    /// Whether [`Connection::ready`] has something to tell although the socket may say no more.
    pub fn has_news(&self) -> bool {
        matches!(&self.carrier, Carrier::Http2(http2) if http2.has_news())
    }

    /// Requests at a time that the target allows on it.
    pub fn streams_max(&self) -> usize {
        match &self.carrier {
            Carrier::Http2(http2) => http2.streams_max(),
            _ => 1,
        }
    }
}

impl<F> Http1<F> {
    fn new(stream: Stream) -> Self {
        let reader = Reader::default();
        Self { stream, reader, received: Vec::new(), to_write: Vec::new(), written: 0, flight: None }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.to_write.len() {
            match self.stream.write(&self.to_write[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to_write.clear();
        self.written = 0;
        match self.stream.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            flushed => flushed,
        }
    }

    /// False: the connection is over, and so is the request that was on it.
    fn ready(&mut self, ready: Ready, scratch: &mut Scratch, clock: Clock, done: &mut impl FnMut(Done<'_, F>)) -> bool {
        // A peer that answered and went away makes the rest of a request unwritable; its answer counts all the same.
        let writes = !ready.writable || self.flush().is_ok();
        let lives = match ready.readable {
            true => self.receive(ready.ending, scratch, clock, done),
            false => Ok(true),
        };
        let lives = lives.unwrap_or_else(|error| {
            self.end(clock.now_ns(), Err(error), done);
            false
        });
        if !writes {
            self.end(clock.now_ns(), Err(ExchangeError::Closed), done);
        }
        lives && writes
    }

    /// Reads until nothing is left. False: the connection can carry no more requests.
    fn receive(
        &mut self,
        ending: bool,
        scratch: &mut Scratch,
        clock: Clock,
        done: &mut impl FnMut(Done<'_, F>),
    ) -> Result<bool, ExchangeError> {
        loop {
            let length = match self.stream.read(&mut scratch.0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // No end: a body that goes on until the end is not whole.
                Err(_) => return Err(ExchangeError::Closed),
            };
            let read_ns = clock.now_ns();
            let Some(Flight { sent_ns, .. }) = &self.flight else {
                // The end, or an answer nobody asked for.
                return Ok(false);
            };
            let sent_ns = *sent_ns;
            let fresh = &scratch.0[..length];
            let bytes = if self.received.is_empty() {
                fresh
            } else {
                self.received.extend_from_slice(fresh);
                &self.received
            };
            match self.reader.read(bytes, length == 0)? {
                Some(read) => {
                    let body = match read.body {
                        Body::Here(range) => &bytes[range],
                        Body::Chunks => self.reader.chunks(),
                    };
                    let answer = Ok(Answer { status: read.status, body });
                    if let Some(Flight { flight, .. }) = self.flight.take() {
                        done(Done { flight, sent_ns, done_ns: read_ns, answer });
                    }
                    self.received.clear();
                    // An answer before the request was out: what is left of it would be taken for the next one.
                    if !read.reusable || !self.to_write.is_empty() {
                        return Ok(false);
                    }
                }
                None if self.received.is_empty() => self.received.extend_from_slice(fresh),
                None => {}
            }
            if length < scratch.0.len() && !ending && self.stream.short_read_drains() {
                return Ok(true);
            }
        }
    }

    fn end(&mut self, done_ns: u64, answer: Result<Answer<'_>, ExchangeError>, done: &mut impl FnMut(Done<'_, F>)) {
        if let Some(Flight { sent_ns, flight, .. }) = self.flight.take() {
            done(Done { flight, sent_ns, done_ns, answer });
        }
    }
}
