//! One request and what came of it, whatever protocol carries them.

use std::fmt;

/// An answer's body is read up to this many bytes; more is an error, so that an endless body cannot fill the memory.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A request, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST` or `PUT`.
    pub method: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// Header lines that every request carries, `name: value\r\n` each, the names in lower case: host, key and what the dialect wants.
    pub headers: &'a [u8],
    /// JSON; `None`: no body.
    pub body: Option<&'a [u8]>,
}

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Body, at most [`ANSWER_BYTES_MAX`].
    pub body: &'a [u8],
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeError {
    /// Nothing, or not all, within the request timeout.
    TimedOut,
    /// The target closed or reset the connection.
    Closed,
    /// HTTP/2: the target reset the stream, or allows no other one.
    Reset,
    /// HTTP/2: the target is closing the connection (GOAWAY) and will not answer this request.
    Refused,
    /// What came is not HTTP.
    NotHttp,
    /// The body goes on past [`ANSWER_BYTES_MAX`].
    BodyTooLong,
}

impl ExchangeError {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TimedOut => "no whole answer within the request timeout",
            Self::Closed => "connection closed before the whole answer",
            Self::Reset => "HTTP/2 stream reset before the whole answer",
            Self::Refused => "refused with GOAWAY before it was answered",
            Self::NotHttp => "answer is not HTTP",
            Self::BodyTooLong => "answer's body is longer than 1 MiB",
        }
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ExchangeError {}
