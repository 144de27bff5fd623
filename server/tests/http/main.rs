//! The server over HTTP, rule by rule of the contract, in every mode that keeps events and on both databases.
//!
//! Each test starts its own server in this process on a free port, with a database of its own. What needs a process of its own
//! (signals) is in `life.rs`; what no HTTP client would send is in `bad_input.rs`.

#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

#[path = "../../../otlp/tests/receiver/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the exporter and of the load generator")]
mod otlp_receiver;
#[path = "../support/redis.rs"]
#[allow(dead_code, reason = "shared with the tests of faults")]
mod redis_server;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the store's tests")]
mod support;

mod bad_input;
mod faults;
mod guarded;
mod hostile;
mod journal;
mod life;
mod openapi;
mod outage;
mod queue;
mod receiver;
mod rules;
mod several;
mod telemetry;
mod webhooks;

use std::time::{Duration, Instant};

use redis_server::Redis;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use server::config::{Mode, QueueAt, Settings};
use server::{Running, Stopped};
use support::{Fresh, fresh_postgres, fresh_sqlite};

/// A client to ask servers with. The load generator builds the library with TLS, for which a provider of cryptography must be named; no
/// test here uses it.
fn client() -> reqwest::Client {
    // An error means that another test has done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Makes one test for each mode and database out of `async fn name(at: At)`.
macro_rules! everywhere {
    ($($name:ident)*) => {
        everywhere! { @ cache_first_sqlite: $($name)* }
        everywhere! { @ cache_first_postgres: $($name)* }
        everywhere! { @ cache_first_redis: $($name)* }
        everywhere! { @ journal_first_sqlite: $($name)* }
        everywhere! { @ journal_first_postgres: $($name)* }
        everywhere! { @ db_first_sqlite: $($name)* }
        everywhere! { @ db_first_postgres: $($name)* }
    };
    (@ $at:ident: $($name:ident)*) => {
        mod $at {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                super::$name($crate::At::$at().await).await;
            })*
        }
    };
}
pub(crate) use everywhere;

/// Where a test runs: the settings of its server, and what keeps its database alive.
pub struct At {
    pub settings: Settings,
    pub fresh: Fresh,
    _journal: tempfile::TempDir,
    redis: Option<Redis>,
}

impl At {
    pub async fn cache_first_sqlite() -> Self {
        Self::new(Mode::CacheFirst, fresh_sqlite(Default::default()).await)
    }

    pub async fn cache_first_postgres() -> Self {
        Self::new(Mode::CacheFirst, fresh_postgres(Default::default()).await)
    }

    /// On PostgreSQL, as several processes have it.
    pub async fn cache_first_redis() -> Self {
        Self::cache_first_postgres().await.on(Redis::start(&[]))
    }

    /// With the queue in this Redis.
    pub fn on(mut self, redis: Redis) -> Self {
        self.settings.queue = QueueAt::Redis(redis.url());
        self.redis = Some(redis);
        self
    }

    pub async fn journal_first_sqlite() -> Self {
        Self::new(Mode::JournalFirst, fresh_sqlite(Default::default()).await)
    }

    pub async fn journal_first_postgres() -> Self {
        Self::new(Mode::JournalFirst, fresh_postgres(Default::default()).await)
    }

    pub async fn db_first_sqlite() -> Self {
        Self::new(Mode::DbFirst, fresh_sqlite(Default::default()).await)
    }

    pub async fn db_first_postgres() -> Self {
        Self::new(Mode::DbFirst, fresh_postgres(Default::default()).await)
    }

    pub fn new(mode: Mode, fresh: Fresh) -> Self {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let mut settings = Settings { listen, mode, database: fresh.database.clone(), ..Settings::default() };
        settings.limits.database_connections_max = 3;
        // Small, so that tests fill some.
        settings.limits.journal_segment_bytes = 512 * 1024;
        let journal = tempfile::tempdir().expect("a temporary folder");
        settings.journal_dir = Some(journal.path().join("journal"));
        Self { settings, fresh, _journal: journal, redis: None }
    }

    /// What an acknowledgement says that it is worth.
    pub fn durability(&self) -> &'static str {
        if self.redis.is_some() { "redis-memory" } else { self.settings.durability() }
    }

    pub fn start(&self) -> Server {
        let running = server::start(self.settings.clone()).expect("the server starts");
        Server { running, client: client() }
    }

    /// A running server and an organisation on it.
    pub async fn ready(&self) -> (Server, Sender) {
        let server = self.start();
        let sender = server.organization("enterprise").await;
        (server, sender)
    }
}

/// A server in this process.
pub struct Server {
    pub running: Running,
    pub client: reqwest::Client,
}

impl Server {
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url())
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.expect("an answer")
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").await.text().await.expect("text");
        let line = page.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in\n{page}"))
    }

    pub async fn organization(&self, tier: &str) -> Sender {
        let body = json!({"organization_name": "Söhne & Co", "tier": tier});
        let response = self.client.post(self.url("/api/keys/generate")).json(&body).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
        let made: Value = response.json().await.expect("JSON");
        self.sender(made["api_key"].as_str().expect("a key"))
    }

    pub fn sender(&self, key: &str) -> Sender {
        Sender { url: self.running.url(), client: self.client.clone(), key: key.to_owned() }
    }

    pub async fn shutdown(self) -> Stopped {
        tokio::task::block_in_place(|| self.running.shutdown())
    }
}

/// Who sends with one key.
#[derive(Clone)]
pub struct Sender {
    pub url: String,
    pub client: reqwest::Client,
    pub key: String,
}

impl Sender {
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.request("GET", path).send().await.expect("an answer")).await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let request = self.request("POST", path).header("content-type", "application/json").body(body);
        read(request.send().await.expect("an answer")).await
    }

    pub async fn event(&self, body: Value) -> (StatusCode, Value) {
        self.post("/api/events", body.to_string()).await
    }

    /// Sends an event that must be accepted; its id.
    pub async fn accepted(&self, body: Value) -> String {
        let (status, answer) = self.event(body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// Reads the inbox to its end, page by page.
    pub async fn inbox(&self, limit: usize) -> Vec<Value> {
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, page) = self.get(&format!("/api/inbox?limit={limit}&cursor={cursor}")).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let found = page["events"].as_array().expect("events");
            assert!(found.len() <= limit);
            events.extend(found.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return events,
            }
        }
    }

    /// Waits until so many events are persisted.
    pub async fn persisted(&self, count: usize) -> Vec<Value> {
        eventually(async || {
            let events = self.inbox(1000).await;
            (events.len() >= count).then_some(events)
        })
        .await
    }
}

/// Status and body; every error must be problem+json that says its own status (rule O3).
pub async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("ASCII").to_owned());
    let text = response.text().await.expect("text");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}: {error}: {text}"));
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{text}");
        assert_problem(&body, status.as_u16());
    }
    (status, body)
}

/// What rule O3 asks of an error's body.
pub fn assert_problem(body: &Value, status: u16) {
    assert_eq!(body["status"], status, "{body}");
    for member in ["type", "title", "detail"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {body}");
    }
    let text = body.to_string().to_lowercase();
    for inside in ["select ", "insert into", "sqlx", "sqlite", "postgres", "/tmp", "src/", "panicked"] {
        assert!(!text.contains(inside), "{inside} in {body}");
    }
}

/// Looks again until there is something, for at most 20 s.
pub async fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
