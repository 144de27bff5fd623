//! The receiver of a check's webhooks: notes what comes and when, and answers by path.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Takes everything: 200.
pub const WELL: &str = "/well";
/// Refuses everything: 500.
pub const FAILING: &str = "/failing";
/// Never answers.
pub const HANGING: &str = "/hanging";

const BODY_BYTES_MAX: usize = 1024 * 1024;

/// One delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// One of the paths of this module.
    pub path: String,
    /// When it was read.
    pub at: Instant,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Delivery {
    /// A header, empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// For people.
    pub fn shown(&self) -> String {
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: Vec<String> = names.iter().map(|name| format!("{name}: {}", self.header(name))).collect();
        format!("{} {}", headers.join("; "), String::from_utf8_lossy(&self.body))
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Hook {
    url: String,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    task: JoinHandle<()>,
}

impl Hook {
    /// On a free port of this machine.
    pub async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let deliveries: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let notes = Arc::clone(&deliveries);
        let task = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                let service = service_fn(move |request| answer(request, Arc::clone(&notes)));
                connections.spawn(async move {
                    // A target that closes early is its own business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { url, deliveries, task })
    }

    /// Where it takes deliveries for one of the paths of this module.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// What came to a path so far.
    pub fn deliveries(&self, path: &str) -> Vec<Delivery> {
        lock(&self.deliveries).iter().filter(|delivery| delivery.path == path).cloned().collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    notes: Arc<Mutex<Vec<Delivery>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let status = match path.as_str() {
        WELL => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let hangs = path == HANGING;
    lock(&notes).push(Delivery { path, at: Instant::now(), headers: head.headers, body });
    if hangs {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
