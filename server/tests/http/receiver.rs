//! A webhook's receiver for tests: notes what comes, and answers as it is told, also as no receiver should.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How to answer.
#[derive(Clone, Debug)]
pub enum Reaction {
    Status(u16),
    /// A status with a header.
    With(u16, &'static str, String),
    /// A status after a time.
    After(Duration, u16),
    /// No answer at all.
    Hang,
    /// 200, and a body without an end.
    EndlessBody,
}

/// One request that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub path: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} in {:?}", self.headers)).to_str().expect("ASCII")
    }

    pub fn id(&self) -> String {
        self.header("webhook-id").to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether the signature is that of Standard Webhooks, computed here from the hash alone.
    pub fn is_signed_with(&self, shown_secret: &str) -> bool {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let key = base64.decode(shown_secret.strip_prefix("whsec_").expect("the prefix")).expect("Base64");
        let signed = format!("{}.{}.", self.id(), self.header("webhook-timestamp"));
        let mut block = [0u8; 64];
        block[..key.len()].copy_from_slice(&key);
        let pad = |with: u8| block.map(|byte| byte ^ with);
        let inner = Sha256::digest([&pad(0x36)[..], signed.as_bytes(), &self.body].concat());
        let outer = Sha256::digest([&pad(0x5c)[..], &inner].concat());
        self.header("webhook-signature") == format!("v1,{}", base64.encode(outer))
    }
}

type React = Arc<dyn Fn(&Received, usize) -> Reaction + Send + Sync>;

/// Listens until it is dropped.
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// `react` is asked for each request, with how many came with the same `webhook-id` before.
    pub async fn start(react: impl Fn(&Received, usize) -> Reaction + Send + Sync + 'static) -> Self {
        Self::listen(None, react).await
    }

    /// Over TLS, with this certificate.
    pub async fn over_tls(config: ServerConfig, reaction: Reaction) -> Self {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), move |_, _| reaction.clone()).await
    }

    async fn listen(
        tls: Option<TlsAcceptor>,
        react: impl Fn(&Received, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/hook", listener.local_addr().expect("an address"));
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let react: React = Arc::new(react);
        let notes = Arc::clone(&received);
        let task = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (react, notes) = (Arc::clone(&react), Arc::clone(&notes));
                let service = hyper::service::service_fn(move |request| answer(request, react.clone(), notes.clone()));
                let (http1, tls) = (hyper::server::conn::http1::Builder::new(), tls.clone());
                connections.spawn(async move {
                    // Who breaks off is one of the cases.
                    let Some(tls) = tls else {
                        let _ = http1.serve_connection(TokioIo::new(stream), service).await;
                        return;
                    };
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = http1.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Self { url, received, task }
    }

    /// Always the same.
    pub async fn always(reaction: Reaction) -> Self {
        Self::start(move |_, _| reaction.clone()).await
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("the notes").clone()
    }

    pub fn ids(&self) -> Vec<String> {
        self.received().iter().map(Received::id).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    react: React,
    notes: Arc<Mutex<Vec<Received>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let received = Received { headers: head.headers, body, path: head.uri.to_string() };
    let before = {
        let mut notes = notes.lock().expect("the notes");
        let before =
            notes.iter().filter(|note| note.headers.get("webhook-id") == received.headers.get("webhook-id")).count();
        notes.push(received.clone());
        before
    };
    let empty = || Full::new(Bytes::from_static(b"ok")).boxed();
    let (status, body) = match react(&received, before) {
        Reaction::Status(status) => (status, empty()),
        Reaction::With(status, name, value) => {
            let response = Response::builder().status(status).header(name, value).body(empty());
            return Ok(response.expect("a response"));
        }
        Reaction::After(wait, status) => {
            tokio::time::sleep(wait).await;
            (status, empty())
        }
        Reaction::Hang => std::future::pending().await,
        Reaction::EndlessBody => (200, Endless.boxed()),
    };
    Ok(Response::builder().status(status).body(body).expect("a response"))
}

struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 8192])))))
    }
}
