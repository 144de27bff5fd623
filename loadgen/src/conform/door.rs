//! Requests to a target, and what came back, kept so that a broken rule can be shown with both.
//!
//! One request and one answer over HTTP/1.1 by [`Door`]; bytes as they are on the wire by [`Wire`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use reqwest::Client;
use reqwest::redirect::Policy;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::sheet::{Stop, cut};
use crate::dialect::Dialect;
use crate::target::TargetError;
use crate::tls::{self, Trust};

/// A request that takes longer has no answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer that is read, bytes: a page of the inbox with the largest payloads of the checks.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a target is.
#[derive(Clone, Debug)]
pub struct Door {
    client: Client,
    base: Url,
    /// How the target is spoken to.
    pub dialect: Arc<Dialect>,
}

impl Door {
    /// To `url` (`http://HOST:PORT` or `https://…`, with or without a path before the contract's).
    pub fn new(url: &str, dialect: Arc<Dialect>) -> Result<Self, TargetError> {
        let bad = || TargetError::BadUrl(url.to_owned());
        let base: Url = url.parse().map_err(|_| bad())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad());
        }
        let tls = tls::client_config(Trust::System, &[b"http/1.1"]);
        let tls = tls.map_err(|error| TargetError::Tls(error.to_string()))?;
        let client = Client::builder().timeout(CALL_TIMEOUT).no_proxy().redirect(Policy::none());
        let client = client.tls_backend_preconfigured(tls).build().map_err(|_| bad())?;
        Ok(Self { client, base, dialect })
    }

    /// A GET that is not sent yet.
    pub fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    /// A POST that is not sent yet.
    pub fn post(&self, path: &str) -> Ask {
        self.ask(Method::POST, path)
    }

    /// A request that is not sent yet; `path` may have a query.
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        Ask {
            door: self.clone(),
            method,
            path: path.to_owned(),
            headers: self.dialect.headers.clone(),
            body: Bytes::new(),
            note: String::new(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// Address for connections of one's own; `None` over TLS.
    pub fn address(&self) -> Option<String> {
        let host = self.base.host_str().filter(|_| self.base.scheme() == "http")?;
        Some(format!("{host}:{}", self.base.port_or_known_default()?))
    }

    /// A connection for bytes as they are on the wire.
    pub async fn wire(&self) -> Result<Wire, Stop> {
        let Some(address) = self.address() else {
            return Err(Stop::Blocked("over TLS no bytes are sent as they are".to_owned()));
        };
        match timeout(CALL_TIMEOUT, TcpStream::connect(&address)).await {
            Ok(Ok(stream)) => {
                let base_path = self.base.path().trim_end_matches('/').to_owned();
                Ok(Wire { stream, answer: Vec::new(), base_path, dialect: Arc::clone(&self.dialect) })
            }
            Ok(Err(error)) => {
                Err(Stop::NoAnswer { request: format!("connect to {address}"), reason: error.to_string() })
            }
            Err(_) => {
                Err(Stop::NoAnswer { request: format!("connect to {address}"), reason: "it took too long".to_owned() })
            }
        }
    }
}

/// A request before it is sent.
#[derive(Clone, Debug)]
pub struct Ask {
    door: Door,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    note: String,
}

impl Ask {
    /// With this API key. Keys are never shown.
    pub fn key(mut self, key: &str) -> Self {
        self.headers.extend(self.door.dialect.key_header.iter().map(|header| header.with(key)));
        self
    }

    /// With a header that is shown.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.note += &format!(" {name}: {};", cut(value));
        self.secret_header(name, value)
    }

    /// With a header that is not shown.
    pub fn secret_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a remark for people.
    pub fn noting(mut self, note: &str) -> Self {
        self.note += &format!(" ({note})");
        self
    }

    /// With this JSON as its body.
    pub fn json(self, body: &Value) -> Self {
        self.text("application/json", body.to_string())
    }

    /// With these bytes as its body, which are said to be JSON and need not be.
    pub fn raw_json(self, body: impl Into<Bytes>) -> Self {
        self.text("application/json", body)
    }

    /// With these bytes and this content type.
    pub fn text(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut ask = self.secret_header("content-type", content_type);
        if content_type != "application/json" {
            ask.note += &format!(" content-type: {content_type};");
        }
        ask.bytes(body)
    }

    /// With these bytes and no content type.
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(2_000)]).into_owned();
        cut(&format!("{} {}{} {body}", self.method, self.path, self.note)).trim_end().to_owned()
    }

    /// Sends it and reads the whole answer.
    pub async fn send(self) -> Result<Exchange, Stop> {
        let request = self.shown();
        let no_answer = |reason: String| Stop::NoAnswer { request: request.clone(), reason };
        let mut call = self.door.client.request(self.method, self.door.url(&self.path));
        for (name, value) in &self.headers {
            call = call.header(name, value);
        }
        let mut response = call.body(self.body).send().await.map_err(|error| no_answer(innermost(&error)))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(innermost(&error)))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(no_answer(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Exchange { request, status, headers, body: body.into() })
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What was asked, without keys.
    pub request: String,
    /// Of the answer.
    pub status: u16,
    /// Of the answer.
    pub headers: HeaderMap,
    /// Of the answer.
    pub body: Bytes,
}

impl Exchange {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the status is 4xx.
    pub fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The text at a JSON pointer of the body.
    pub fn text_at(&self, pointer: &str) -> Option<String> {
        Some(self.json().pointer(pointer)?.as_str()?.to_owned())
    }

    /// A header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The answer for people.
    pub fn answer(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(2_000)]).into_owned();
        let kind = self.header("content-type").map(|kind| format!(" {kind}")).unwrap_or_default();
        cut(&format!("{}{kind} {body}", self.status)).trim_end().to_owned()
    }

    /// The answer for people, with one of its headers.
    pub fn answer_with(&self, header: &str) -> String {
        cut(&format!("{} {header}: {}", self.status, self.header(header).unwrap_or("(none)")))
    }
}

/// A connection on which bytes are sent as they are.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Read, and not looked at yet.
    answer: Vec<u8>,
    base_path: String,
    dialect: Arc<Dialect>,
}

impl Wire {
    /// The head of an event to come, up to where more header lines may follow.
    pub fn head(&self, key: &str) -> String {
        let ingest = &self.dialect.ingest;
        let headers = self.dialect.headers_with(key).into_iter().chain(ingest.headers.clone());
        let lines: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (method, base_path, path) = (ingest.method, &self.base_path, &ingest.path);
        format!("{method} {base_path}{path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}content-type: application/json\r\n")
    }

    /// Sends; a target that has closed the connection is no error here, its answer tells.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(CALL_TIMEOUT, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The status of the next answer; `None` when none comes within `patience`.
    pub async fn status(&mut self, patience: Duration) -> Option<u16> {
        let final_status = async {
            loop {
                match self.any_status().await {
                    Some(100..=199) => {}
                    status => return status,
                }
            }
        };
        timeout(patience, final_status).await.ok()?
    }

    /// Waits until the target says that it goes on reading (100), at most so long.
    pub async fn continues(&mut self, patience: Duration) -> bool {
        matches!(timeout(patience, self.any_status()).await, Ok(Some(100)))
    }

    /// The status of the next head of an answer. What was read before a cancellation is kept.
    async fn any_status(&mut self) -> Option<u16> {
        loop {
            if let Some(end) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.answer.drain(..end + 4).collect();
                return std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok();
            }
            if self.stream.read_buf(&mut self.answer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The cause that says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    tls::with_remedy(error.to_string())
}
