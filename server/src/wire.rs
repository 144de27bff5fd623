//! A connection below HTTP: what it is doing and since when, and the answers that hyper would give without a body.
//!
//! hyper has one timer for "no complete head yet", which would cut idle connections and slow senders alike, and without a word.
//! Here the connection's phase is noted as bytes pass (no timer is touched per request), and one lazy timer per connection
//! looks at it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::problem::Problem;

/// Nothing of a request is here, or an answer is on its way out.
const IDLE: u8 = 0;
/// A head has begun.
const HEAD: u8 = 1;
/// The server is at work on a request (its own time-outs hold: body, store).
const BUSY: u8 = 2;

/// What a connection is doing.
#[derive(Debug)]
pub struct Phase {
    now: AtomicU8,
    since_ms: AtomicU64,
    started: Instant,
}

/// What the watching timer should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Watch {
    /// Look again then.
    Again(Duration),
    /// The head is late: 408.
    Slow,
    /// Nothing happened for too long: close.
    Idle,
}

impl Phase {
    /// Of a new connection.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { now: AtomicU8::new(IDLE), since_ms: AtomicU64::new(0), started: Instant::now() })
    }

    fn enter(&self, phase: u8, now: Instant) {
        // Relaxed: one thread writes and reads all of it.
        self.since_ms.store(now.duration_since(self.started).as_millis() as u64, Ordering::Relaxed);
        self.now.store(phase, Ordering::Relaxed);
    }

    /// A head is complete.
    pub fn request(&self, now: Instant) {
        self.enter(BUSY, now);
    }

    /// An answer is made.
    pub fn answered(&self) {
        self.enter(IDLE, Instant::now());
    }

    /// What the timer should do at `now`.
    pub fn watch(&self, header_timeout: Duration, idle_timeout: Duration) -> Watch {
        let lasted =
            self.started.elapsed().saturating_sub(Duration::from_millis(self.since_ms.load(Ordering::Relaxed)));
        let (allowed, verdict) = match self.now.load(Ordering::Relaxed) {
            HEAD => (header_timeout, Watch::Slow),
            IDLE => (idle_timeout, Watch::Idle),
            _ => return Watch::Again(header_timeout),
        };
        // A connection that is idle now may begin a head at any moment: never look away for longer than a head may take.
        if lasted >= allowed { verdict } else { Watch::Again((allowed - lasted).min(header_timeout)) }
    }
}

/// The stream of one connection.
#[derive(Debug)]
pub struct Io {
    stream: TcpStream,
    phase: Arc<Phase>,
    /// A full answer that goes out instead of hyper's empty one, and how much of it is out.
    instead: Option<(Vec<u8>, usize)>,
    /// The system took only a part of the last write: the next one begins in the middle of an answer, with whatever bytes a
    /// payload has there.
    in_the_middle: bool,
}

impl Io {
    /// Notes in `phase` what passes through `stream`.
    pub fn new(stream: TcpStream, phase: Arc<Phase>) -> Self {
        Self { stream, phase, instead: None, in_the_middle: false }
    }

    /// The stream itself.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn write_through(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(taken)) = written {
            self.in_the_middle = taken < bytes.len();
        }
        written
    }

    fn write_instead(&mut self, context: &mut Context<'_>, claimed: usize) -> Poll<io::Result<usize>> {
        let Some((answer, written)) = &mut self.instead else { return Poll::Ready(Ok(claimed)) };
        while *written < answer.len() {
            match Pin::new(&mut self.stream).poll_write(context, &answer[*written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => *written += bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.instead = None;
        Poll::Ready(Ok(claimed))
    }
}

/// The problem behind an answer that hyper's parser made by itself: it has no body, and ours all have a content type.
fn parser_answer(bytes: &[u8]) -> Option<Problem> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let problem = match status {
        b"400" => Problem::BadRequest,
        b"414" => Problem::UriTooLong,
        b"431" => Problem::HeadersTooLarge,
        _ => return None,
    };
    let has_type = bytes.windows(13).any(|window| window == b"content-type:");
    (!has_type).then_some(problem)
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.phase.now.load(Ordering::Relaxed) == IDLE {
            self.phase.enter(HEAD, Instant::now());
        }
        result
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none() {
            match parser_answer(bytes).filter(|_| !self.in_the_middle) {
                None => return self.write_through(context, bytes),
                Some(problem) => self.instead = Some((problem.wire(), 0)),
            }
        }
        self.write_instead(context, bytes.len())
    }

    // Not vectored: answers are small, and one copied buffer is cheaper than a list of two.

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Gives the last answer of a connection outside of HTTP.
pub async fn refuse(stream: &mut TcpStream, problem: &Problem) {
    let _ = tokio::time::timeout(LINGER, stream.write_all(&problem.wire())).await;
}

/// How long, and for how many bytes, a refused sender is listened to so that it reads why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Ends a connection whose peer may still be sending: closing at once would make the system answer with a reset, which can
/// overtake the answer. What comes meanwhile is thrown away.
pub async fn linger(mut stream: TcpStream) {
    let ended = async {
        stream.shutdown().await?;
        let mut scratch = [0u8; 4096];
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES_MAX {
            match stream.read(&mut scratch).await? {
                0 => break,
                bytes => thrown_away += bytes,
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, ended).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_has_no_body_of_ours_is_replaced() {
        for (bytes, expected) in [
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", Some(Problem::BadRequest)),
            (
                "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n",
                Some(Problem::HeadersTooLarge),
            ),
            ("HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\r\n{}", None),
            ("HTTP/1.1 202 Accepted\r\n\r\n", None),
            ("HTTP/1.1 4", None),
            ("", None),
        ] {
            assert_eq!(parser_answer(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    #[tokio::test]
    async fn the_rest_of_an_answer_goes_out_as_it_is_whatever_it_looks_like() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut io = Io::new(listener.accept().await.unwrap().0, Phase::new());
        let answer = [b"HTTP/1.1 200 OK\r\n".as_slice(), &vec![b'x'; 64 << 20]].concat();
        let taken = io.write(&answer).await.unwrap();
        assert!(taken < answer.len(), "more than the system takes at once");
        let reading = tokio::spawn(async move {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).await.map(|_| received)
        });
        // hyper comes back with what was not taken; here that is what a payload may well hold.
        let rest = b"HTTP/1.1 400 is how a refusal begins";
        io.write_all(rest).await.unwrap();
        drop(io);
        assert!(reading.await.unwrap().unwrap() == [&answer[..taken], rest].concat());
    }

    #[test]
    fn a_head_that_takes_too_long_is_slow_and_a_connection_that_does_nothing_is_idle() {
        let (header, idle) = (Duration::from_millis(100), Duration::from_secs(10));
        let started = Instant::now() - Duration::from_secs(60);
        let phase = Phase { now: AtomicU8::new(IDLE), since_ms: AtomicU64::new(0), started };
        assert_eq!(phase.watch(header, idle), Watch::Idle);
        phase.enter(HEAD, Instant::now());
        assert!(matches!(phase.watch(header, idle), Watch::Again(again) if again <= header));
        phase.enter(HEAD, Instant::now() - Duration::from_millis(150));
        assert_eq!(phase.watch(header, idle), Watch::Slow);
        phase.request(Instant::now() - Duration::from_secs(50));
        assert!(matches!(phase.watch(header, idle), Watch::Again(_)));
    }
}
