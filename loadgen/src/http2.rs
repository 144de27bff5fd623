//! HTTP/2 as a client: several requests at once on one connection, each a stream.
//!
//! The protocol is the `h2` crate's, as it is in hyper. Its futures are polled here by hand whenever the socket is ready or something
//! was asked of it, in place of a runtime that would: the loop of [`crate::send`] knows both.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{self, ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::exchange::{ANSWER_BYTES_MAX, Answer, ExchangeError, Request};
use crate::stream::Stream;

/// What the target may send before it hears from us, bytes: enough never to hold it up.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 24;

/// `http` or `https`, host and port, as every request names them.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and port.
    pub authority: String,
}

type Handshake = Pin<Box<dyn Future<Output = io::Result<(SendRequest<Bytes>, Session)>>>>;
type Session = client::Connection<StreamIo, Bytes>;

/// A connection that waits for the target's settings: a server of HTTP/1.1 takes the preface, too, and how many requests at a time the
/// target allows must be known before the first.
pub struct Opening {
    handshake: Handshake,
    clock: Clock,
    read_ns: Rc<Cell<u64>>,
}

impl Opening {
    /// On a stream that is connected.
    pub fn new(stream: Stream, clock: Clock) -> Self {
        let read_ns = Rc::new(Cell::new(0));
        let io = StreamIo { stream, clock, read_ns: Rc::clone(&read_ns) };
        Self { handshake: Box::pin(shake_hands(io)), clock, read_ns }
    }

    /// The connection, once the target's settings have come; `None`: wait until the socket is ready.
    pub fn go_on<F>(&mut self) -> io::Result<Option<Http2<F>>> {
        match self.handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(None),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok((sender, session))) => {
                let (clock, read_ns) = (self.clock, Rc::clone(&self.read_ns));
                let (flights, looked_at_ns) = (Vec::new(), read_ns.get());
                Ok(Some(Http2 { sender, session, flights, clock, read_ns, looked_at_ns, closing: false, over: false }))
            }
        }
    }
}

async fn shake_hands(io: StreamIo) -> io::Result<(SendRequest<Bytes>, Session)> {
    let (sender, mut session) = client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // Becomes something else with the target's settings, or stays when the target wants no requests.
        .initial_max_send_streams(0)
        // Counts, among others, answers that come after their request was given up: a slow target would be disconnected for them.
        .max_local_error_reset_streams(None)
        .handshake(io)
        .await
        .map_err(no_http2)?;
    poll_fn(|context| match Pin::new(&mut session).poll(context) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(no_http2(error))),
        Poll::Ready(Ok(())) => Poll::Ready(Err(no_http2("it closed the connection"))),
        Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((sender, session))
}

fn no_http2(why: impl std::fmt::Display) -> io::Error {
    let message = format!("the target does not speak HTTP/2 ({why}); leave --http 2 out");
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// A connection that takes requests. `F` is what the caller wants back with the answer.
pub struct Http2<F> {
    sender: SendRequest<Bytes>,
    session: Session,
    flights: Vec<Flight<F>>,
    clock: Clock,
    /// When the last bytes came.
    read_ns: Rc<Cell<u64>>,
    /// The same, as of when the flights were last looked at.
    looked_at_ns: u64,
    /// The target takes no more requests (GOAWAY), and answers those that it has.
    closing: bool,
    over: bool,
}

struct Flight<F> {
    flight: F,
    answer: Incoming,
}

enum Incoming {
    Head(ResponseFuture),
    Body { status: u16, stream: RecvStream, body: Vec<u8> },
}

impl<F> Http2<F> {
    /// Opens a stream for the request, and writes as much of it as the socket takes. Given back when the target allows no more requests:
    /// it has lowered its limit, or the connection is closing.
    pub fn send(&mut self, request: &Request<'_>, origin: &Origin, flight: F) -> Result<(), (F, ExchangeError)> {
        let Ok(head) = head(request, origin) else { return Err((flight, ExchangeError::NotHttp)) };
        if !matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))) {
            return Err((flight, ExchangeError::Reset));
        }
        let sent =
            self.sender.send_request(head, request.body.is_none()).and_then(|(answer, mut stream)| {
                match request.body {
                    Some(body) => stream.send_data(Bytes::copy_from_slice(body), true).map(|()| answer),
                    None => Ok(answer),
                }
            });
        match sent {
            Ok(answer) => {
                self.flights.push(Flight { flight, answer: Incoming::Head(answer) });
                self.poll_session();
                Ok(())
            }
            Err(_) => Err((flight, ExchangeError::Closed)),
        }
    }

    /// Reads and writes what there is; tells of each request that came to its end, and when its last byte was read or it was seen to have
    /// failed. False: the connection is over, and so was every request on it.
    pub fn ready(&mut self, done: &mut impl FnMut(F, u64, Result<Answer<'_>, ExchangeError>)) -> bool {
        self.poll_session();
        loop {
            self.looked_at_ns = self.read_ns.get();
            self.end_flights(done);
            if self.over {
                return false;
            }
            // Window updates for what was read. It may read more, of which no socket will tell again.
            self.poll_session();
            if !self.has_news() {
                break;
            }
        }
        let refuses = matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)));
        self.closing |= refuses;
        !(self.closing && self.flights.is_empty())
    }

    /// Ends the flights whose answer is whole, or will never be.
    fn end_flights(&mut self, done: &mut impl FnMut(F, u64, Result<Answer<'_>, ExchangeError>)) {
        let mut context = Context::from_waker(Waker::noop());
        let mut index = 0;
        while index < self.flights.len() {
            let Flight { answer, .. } = &mut self.flights[index];
            let ended = match answer.poll(&mut context) {
                Poll::Pending if !self.over => {
                    index += 1;
                    continue;
                }
                Poll::Pending => Err(ExchangeError::Closed),
                Poll::Ready(ended) => ended,
            };
            let done_ns = if ended.is_ok() { self.looked_at_ns } else { self.clock.now_ns() };
            let Flight { flight, answer } = self.flights.swap_remove(index);
            done(flight, done_ns, ended.map(|status| Answer { status, body: answer.body() }));
        }
    }

    /// Whether [`Http2::ready`] has something to tell although the socket may say no more.
    pub fn has_news(&self) -> bool {
        self.over || self.read_ns.get() != self.looked_at_ns
    }

    /// Whether it takes requests.
    pub fn is_open(&self) -> bool {
        !self.over && !self.closing
    }

    /// Whether it is of no more use: closing, and the last request on it has ended.
    pub fn is_over(&self) -> bool {
        !self.is_open() && self.flights.is_empty()
    }

    /// Requests at a time that the target allows on this connection.
    pub fn streams_max(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Takes back a request that `wanted` recognises; its stream is reset.
    pub fn give_up(&mut self, wanted: impl Fn(&F) -> bool) -> Option<F> {
        let index = self.flights.iter().position(|flight| wanted(&flight.flight))?;
        let Flight { flight, answer } = self.flights.swap_remove(index);
        drop(answer);
        self.poll_session();
        Some(flight)
    }

    /// The requests on their way.
    pub fn flights(&self) -> impl Iterator<Item = &F> {
        self.flights.iter().map(|flight| &flight.flight)
    }

    fn poll_session(&mut self) {
        // Not again once it has ended: an error of the socket is told but once.
        self.over = self.over || Pin::new(&mut self.session).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    }
}

impl Incoming {
    /// The status, once the answer is whole.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<u16, ExchangeError>> {
        if let Self::Head(answer) = self {
            let head = std::task::ready!(Pin::new(answer).poll(context)).map_err(|error| failure(&error))?;
            let status = head.status().as_u16();
            *self = Self::Body { status, stream: head.into_body(), body: Vec::new() };
        }
        let Self::Body { status, stream, body } = self else { unreachable!("the head has been read") };
        while let Some(data) = std::task::ready!(stream.poll_data(context)) {
            let data = data.map_err(|error| failure(&error))?;
            if body.len() + data.len() > ANSWER_BYTES_MAX {
                return Poll::Ready(Err(ExchangeError::BodyTooLong));
            }
            body.extend_from_slice(&data);
            // Fails when the stream is over, and then nobody waits for it.
            let _ = stream.flow_control().release_capacity(data.len());
        }
        Poll::Ready(Ok(*status))
    }

    fn body(&self) -> &[u8] {
        match self {
            Self::Head(_) => &[],
            Self::Body { body, .. } => body,
        }
    }
}

fn failure(error: &h2::Error) -> ExchangeError {
    match error {
        error if error.is_reset() => ExchangeError::Reset,
        error if error.is_go_away() && error.is_library() => ExchangeError::NotHttp,
        error if error.is_go_away() => ExchangeError::Refused,
        _ => ExchangeError::Closed,
    }
}

fn head(request: &Request<'_>, origin: &Origin) -> Result<http::Request<()>, http::Error> {
    let uri = format!("{}://{}{}", origin.scheme, origin.authority, request.path);
    let method = if request.body.is_some() || request.method == "POST" { Method::POST } else { Method::GET };
    let mut head = http::Request::builder().method(method).uri(uri).body(())?;
    copy_headers(request.headers, head.headers_mut())?;
    if let Some(body) = request.body {
        head.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Ok(head)
}

/// All but `host`, which HTTP/2 calls `:authority`.
fn copy_headers(lines: &[u8], headers: &mut HeaderMap) -> Result<(), http::Error> {
    for line in lines.split(|&byte| byte == b'\n') {
        let mut parts = line.trim_ascii().splitn(2, |&byte| byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if name != b"host" {
            headers.insert(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value.trim_ascii())?);
        }
    }
    Ok(())
}

/// A stream as `h2` wants it. Registers no waker: whoever polls knows when the socket is ready.
struct StreamIo {
    stream: Stream,
    clock: Clock,
    read_ns: Rc<Cell<u64>>,
}

fn poll<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = poll(self.stream.read(buffer.initialize_unfilled()))?.map(|length| buffer.advance(length));
        if read.is_ready() {
            self.read_ns.set(self.clock.now_ns());
        }
        read.map(Ok)
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll(self.stream.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll(self.stream.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.socket().shutdown(std::net::Shutdown::Write))
    }
}
