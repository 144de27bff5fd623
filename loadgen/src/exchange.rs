//! One request and what came of it, whatever protocol carries them.

/// An answer's body is read up to this many bytes; more is an error, so that an endless body cannot fill the memory.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A request, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// Header lines that every request carries, `name: value\r\n` each, the names in lower case: host and authorization.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Nothing, or not all, within the request timeout.
    #[error("no whole answer within the request timeout")]
    TimedOut,
    /// The target closed or reset the connection, or (HTTP/2) the stream.
    #[error("connection closed before the whole answer")]
    Closed,
    /// What came is not HTTP.
    #[error("answer is not HTTP")]
    NotHttp,
    /// The body goes on past [`ANSWER_BYTES_MAX`].
    #[error("answer's body is longer than 1 MiB")]
    BodyTooLong,
}
