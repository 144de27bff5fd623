//! One request on its way through the server, and what it becomes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};

use crate::follow::FollowedCall;
use crate::problem::Problem;

/// What a route gives: an answer, or a problem that becomes one.
pub type Answer = Result<Response<Full<Bytes>>, Problem>;

/// Content type of every answer that is JSON and no problem.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Template of the hot route.
pub const EVENTS: &str = "/api/events";

/// A refused body up to this size is read to its end, so that the connection can be used again.
const UNREAD_BODY_BYTES_MAX: u64 = 64 * 1024;

/// One request on its way through the server.
#[derive(Debug)]
pub struct Call {
    head: Parts,
    body: Incoming,
    /// When its head was complete.
    pub started: Instant,
    /// With `--otlp`, when its sender follows it.
    pub followed: Option<Box<FollowedCall>>,
}

impl Call {
    /// A request whose head has just been read.
    pub fn new(request: Request<Incoming>, started: Instant) -> Self {
        let (head, body) = request.into_parts();
        Self { head, body, started, followed: None }
    }

    /// The header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The whole body: see [`crate::body::read`].
    pub async fn body(&mut self, bytes_max: u64, timeout: Duration) -> Result<Bytes, Problem> {
        crate::body::read(&mut self.body, bytes_max, timeout).await
    }

    /// Whether the connection can take another request: reads the rest of a small body that the answer didn't need, because
    /// closing a connection for each 401 or 429 would cost both ends more.
    pub async fn finish(&mut self, timeout: Duration) -> bool {
        self.body.is_end_stream() || crate::body::read(&mut self.body, UNREAD_BODY_BYTES_MAX, timeout).await.is_ok()
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path of its URI.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// What is behind the `?` of its URI; empty when there is none.
    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or("")
    }
}

/// An answer with a JSON body.
pub fn json_answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
