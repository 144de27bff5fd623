//! Broken servers: a proxy in front of the reference server that changes one thing, and the table of what there is to change.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use loadgen::tls::{self, Trust};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request on its way to the server.
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer on its way back.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.split('?').next() == Some(path)
    }

    /// `POST /api/events`.
    fn is_event(&self) -> bool {
        self.is("POST", "/api/events")
    }

    /// `GET /api/events/{id}`.
    fn is_look(&self) -> bool {
        self.method == "GET" && self.path.starts_with("/api/events/")
    }

    /// The inbox in pages of seven, which only R2 reads.
    fn is_small_page(&self) -> bool {
        self.is("GET", "/api/inbox") && self.path.contains("limit=7")
    }

    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }
}

impl Answer {
    /// An answer of the proxy's own.
    fn new(status: u16, body: &Value) -> Self {
        let mut answer = Self { status, headers: HeaderMap::new(), body: Bytes::from(body.to_string()) };
        answer.set("content-type", "application/json");
        answer
    }

    /// Another status, also in the problem that says it, so that this alone is wrong.
    fn say(&mut self, status: u16) {
        self.status = status;
        self.edit(|body| {
            if body.get("status").is_some_and(Value::is_u64) {
                body["status"] = json!(status);
            }
        });
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        if let Ok(mut body) = serde_json::from_slice(&self.body) {
            edit(&mut body);
            self.body = Bytes::from(body.to_string());
        }
    }

    fn replace(&mut self, from: &str, to: &str) {
        self.body = Bytes::from(String::from_utf8_lossy(&self.body).replace(from, to));
    }

    fn set(&mut self, name: &'static str, value: &'static str) {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// What a broken server does otherwise.
#[derive(Default)]
pub struct Change {
    /// To a request; an answer here means that the server is not asked.
    before: Option<fn(&mut Asked) -> Option<Answer>>,
    /// To an answer.
    after: Option<fn(&Asked, &mut Answer)>,
    /// Bodies are read to their ends, whatever their length.
    buffers: bool,
}

fn before(change: fn(&mut Asked) -> Option<Answer>) -> Change {
    Change { before: Some(change), ..Change::default() }
}

fn after(change: fn(&Asked, &mut Answer)) -> Change {
    Change { after: Some(change), ..Change::default() }
}

/// A name, the rules that fail, and the one thing that is changed.
type Row = (&'static str, &'static [&'static str], fn() -> Change);

/// In front of a server whose webhooks may not lead to this machine.
#[rustfmt::skip]
pub const BROKEN: &[Row] = &[
    ("nothing is changed", &[], Change::default),
    ("a key is made with 200", &["A1"], || after(|asked, answer| if asked.is("POST", "/api/keys/generate") && answer.status == 201 { answer.status = 200 })),
    ("a tier is spelt otherwise", &["A1"], || after(|asked, answer| if asked.is("POST", "/api/keys/generate") { answer.replace("\"free\"", "\"Free\"") })),
    ("a route answers 403 without a key", &["A2"], || after(|asked, answer| if asked.path.starts_with("/api/ack/") && answer.status == 401 { answer.say(403) })),
    ("the inbox is open", &["A2"], || before(|asked| {
        let has_key = asked.headers.contains_key("authorization") || asked.headers.contains_key("x-api-key");
        (asked.is("GET", "/api/inbox") && !has_key).then(|| Answer::new(200, &json!({"events": [], "next_cursor": null})))
    })),
    ("X-API-Key is not known", &["A2"], || before(|asked| { asked.headers.remove("x-api-key"); None })),
    ("the key is shown again", &["A3"], || after(|asked, answer| if asked.is("GET", "/api/keys") && answer.status == 200 {
        let key = asked.headers["authorization"].to_str().expect("text").to_owned();
        answer.edit(|body| body["key"] = json!(key));
    })),
    ("a key is rotated with 201", &["A3"], || after(|asked, answer| if asked.is("POST", "/api/keys/rotate") && answer.status == 200 { answer.status = 201 })),
    ("no RateLimit-Policy", &["A4"], || after(|_, answer| { answer.headers.remove("ratelimit-policy"); })),
    ("503 for 429", &["A4"], || after(|_, answer| if answer.status == 429 { answer.say(503) })),
    ("an event is answered 200", &["I1"], || after(|asked, answer| if asked.is_event() && answer.status == 202 { answer.status = 200 })),
    ("no Location", &["I1"], || after(|_, answer| { answer.headers.remove("location"); })),
    ("an unknown durability", &["I1"], || after(|asked, answer| if asked.is_event() { answer.replace("\"memory\"", "\"disk\"") })),
    ("a duplicate is accepted", &["I2"], || after(|asked, answer| if asked.is_event() && answer.status == 409 { answer.status = 202 })),
    ("a duplicate without the first id", &["I2"], || after(|asked, answer| if asked.is_event() && answer.status == 409 {
        let id = serde_json::from_slice::<Value>(&answer.body).expect("JSON")["id"].as_str().expect("an id").to_owned();
        answer.replace(&id, "another event");
    })),
    ("Idempotency-Key is not known", &["I3"], || before(|asked| { asked.headers.remove("idempotency-key"); None })),
    ("409 for 422", &["I3"], || after(|_, answer| if answer.status == 422 { answer.say(409) })),
    ("422 for 400", &["I4"], || after(|asked, answer| if asked.is_event() && answer.status == 400 { answer.say(422) })),
    ("a bad field is not named", &["I4"], || after(|asked, answer| if asked.is_event() && answer.status == 400 {
        answer.edit(|body| (body["field"], body["detail"]) = (Value::Null, json!("something is wrong with it")));
    })),
    ("413 for 415", &["I5"], || after(|asked, answer| if asked.is_event() && answer.status == 415 { answer.say(413) })),
    ("400 for 413", &["I5"], || after(|asked, answer| if asked.is_event() && answer.status == 413 { answer.say(400) })),
    ("what is refused is buffered", &["I5"], || Change { buffers: true, ..Change::default() }),
    ("a batch is answered 200", &["I7"], || after(|_, answer| if answer.status == 207 { answer.status = 200 })),
    ("results of a batch in another order", &["I7"], || after(|_, answer| if answer.status == 207 {
        answer.edit(|body| body["results"].as_array_mut().expect("results").reverse());
    })),
    ("one bad item fails all", &["I7"], || before(|asked| {
        (asked.is("POST", "/api/events/batch") && asked.has("\"type\":\"\"")).then(|| Answer::new(400, &json!({"status": 400})))
    })),
    ("duplicate keys are dropped", &["I8"], || after(|asked, answer| if asked.is("GET", "/api/inbox") { answer.replace("{\"b\":1,\"a\":2,", "{\"a\":2,") })),
    ("numbers are rounded", &["I8"], || after(|asked, answer| if asked.is("GET", "/api/inbox") { answer.replace("-9007199254740993", "-9007199254740992") })),
    ("a state of its own", &["R1"], || after(|asked, answer| if asked.is_look() {
        answer.replace("\"state\":\"pending\"", "\"state\":\"queued\"");
        answer.replace("\"state\":\"persisted\"", "\"state\":\"stored\"");
    })),
    ("410 for 404", &["R1"], || after(|asked, answer| if asked.is_look() && answer.status == 404 { answer.say(410) })),
    ("times without fractions", &["R1"], || after(|asked, answer| if asked.is_look() && answer.status == 200 {
        answer.edit(|body| body["created_at"] = json!("2026-01-31T12:00:00Z"));
    })),
    ("the newest comes first", &["R2"], || after(|asked, answer| if asked.is_small_page() {
        answer.edit(|body| body["events"].as_array_mut().expect("events").reverse());
    })),
    ("a page lacks its last event", &["R2"], || after(|asked, answer| if asked.is_small_page() {
        answer.edit(|body| drop(body["events"].as_array_mut().expect("events").pop()));
    })),
    ("an event is on its page twice", &["R2"], || after(|asked, answer| if asked.is_small_page() {
        answer.edit(|body| { let events = body["events"].as_array_mut().expect("events"); events.extend(events.first().cloned()); });
    })),
    ("acknowledging does nothing", &["R2"], || before(|asked| {
        let is_own = asked.path.starts_with("/api/ack/") && asked.headers.contains_key("authorization");
        (is_own && !asked.path.contains("01890a5d")).then(|| Answer::new(200, &json!({})))
    })),
    ("any URL is taken", &["D2"], || before(|asked| {
        (asked.is("POST", "/api/webhook/config") && asked.has("ftp://")).then(|| Answer::new(200, &json!({})))
    })),
    ("an address inside is taken", &["D2"], || before(|asked| {
        (asked.is("POST", "/api/webhook/config") && asked.has("169.254")).then(|| Answer::new(200, &json!({})))
    })),
    ("health is elsewhere", &["O1"], || after(|asked, answer| if asked.is("GET", "/health") { answer.status = 204; answer.body = Bytes::new(); })),
    ("a metric is missing", &["O2"], || after(|asked, answer| if asked.is("GET", "/metrics") { answer.replace("ingest_pending_bytes", "ingest_pending_octets") })),
    ("duplicates are not counted", &["O2"], || after(|asked, answer| if asked.is("GET", "/metrics") { answer.replace("ingest_events_duplicate_total ", "ingest_events_duplicate_total 0 ") })),
    ("an error is plain JSON", &["O3"], || after(|asked, answer| if asked.is_look() && answer.status == 404 { answer.set("content-type", "application/json") })),
    ("an error shows a statement", &["O3"], || after(|asked, answer| if asked.is_look() && answer.status == 404 { answer.replace("this organisation", "SELECT * FROM events: this organisation") })),
    ("an older document", &["O4"], || after(|asked, answer| if asked.is("GET", "/api/openapi.json") { answer.edit(|body| body["openapi"] = json!("3.0.3")) })),
    ("a route that is not documented", &["O4"], || after(|asked, answer| if asked.is("GET", "/api/openapi.json") {
        answer.edit(|body| drop(body["paths"].as_object_mut().expect("paths").remove("/api/inbox")));
    })),
    ("a documented route that is not there", &["O4"], || after(|asked, answer| if asked.is("GET", "/api/openapi.json") { answer.edit(|body| body["paths"]["/api/nothing"] = json!({"get": {}})) })),
];

/// In front of a server whose webhooks may lead to this machine.
#[rustfmt::skip]
pub const BROKEN_WEBHOOKS: &[Row] = &[
    ("nothing is changed", &[], Change::default),
    ("a webhook is set with 201", &["D1"], || after(|asked, answer| if asked.is("POST", "/api/webhook/config") && answer.status == 200 { answer.status = 201 })),
    ("another secret", &["D1"], || after(|asked, answer| if asked.is("POST", "/api/webhook/config") {
        answer.edit(|body| if body["secret"].is_string() { body["secret"] = json!("whsec_MDEyMzQ1Njc4OWFiY2RlZg==") });
    })),
    ("the webhook is forgotten", &["D1"], || before(|asked| {
        (asked.is("POST", "/api/webhook/config") && asked.has("/well")).then(|| Answer::new(200, &json!({})))
    })),
];

/// In front of every server that is started.
#[rustfmt::skip]
pub const BROKEN_WHEN_FULL: &[Row] = &[
    ("what does not fit is acknowledged", &["I6"], || after(|asked, answer| if asked.is_event() && answer.status == 503 {
        *answer = Answer::new(202, &json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057", "status": "accepted", "durability": "memory"}));
    })),
    ("a full server says 500", &["I6"], || after(|asked, answer| if asked.is_event() && answer.status == 503 { answer.say(500) })),
    ("a full server without Retry-After", &["I6"], || after(|_, answer| if answer.status == 503 { answer.headers.remove("retry-after"); })),
];

/// A server of another form: see [`OTHER_FORM`].
pub fn other_form() -> Change {
    Change {
        before: Some(|asked| {
            if let Some(key) = asked.headers.remove("x-secret") {
                let value = format!("Bearer {}", key.to_str().expect("text"));
                asked.headers.insert("authorization", value.parse().expect("a header"));
            }
            if asked.is("POST", "/v1/events") {
                asked.path = "/api/events".to_owned();
                let text = String::from_utf8_lossy(&asked.body);
                let text = text.replace(r#""event_type":"#, r#""type":"#).replace(r#""key":"#, r#""dedup_id":"#);
                asked.body = Bytes::from(text.replace(r#""data":"#, r#""payload":"#));
            }
            None
        }),
        after: Some(|asked, answer| {
            if asked.is_event() && answer.status == 202 {
                answer.status = 200;
                answer.edit(|body| {
                    *body = json!({"data": {"ticket": body["id"], "worth": body["durability"]}, "status": "accepted"})
                });
            }
        }),
        buffers: false,
    }
}

/// What a profile says of such a server.
pub const OTHER_FORM: &str = r#"
[key]
header = "X-Secret: {key}"

[ingest]
path = "/v1/events"
body = '{"event_type":"x","key":"{dedup_id}","data":{payload}}'
status = 200
id = "/data/ticket"
durability = "/data/worth"

[routes]
batch = "none"
"#;

/// Bytes of a body that are read before it is refused.
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Listens until it is dropped. The first segment of a path is the port of the server that is meant.
pub struct Proxy {
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    pub fn start(change: Change) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let tls = tls::client_config(Trust::Anybody, &[b"http/1.1"]).expect("TLS");
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().expect("a client");
        let change = Arc::new(change);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, change) = (client.clone(), Arc::clone(&change));
                let service = service_fn(move |request| forward(client.clone(), Arc::clone(&change), request));
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, _runtime: runtime }
    }

    /// Where a server is reached through it.
    pub fn url_of(&self, server: SocketAddr) -> String {
        format!("http://{}/{}", self.address, server.port())
    }
}

async fn forward(
    client: reqwest::Client,
    change: Arc<Change>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let announced = head.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let max = if change.buffers { usize::MAX } else { BODY_BYTES_MAX };
    let body = match announced {
        Some(length) if length > max => None,
        _ => Limited::new(body, max).collect().await.ok().map(|whole| whole.to_bytes()),
    };
    let Some(body) = body else {
        return Ok(response(Answer::new(413, &json!({"status": 413, "detail": "too large for this server"}))));
    };
    let target = head.uri.path_and_query().expect("a path").as_str();
    let (port, path) = target[1..].split_once('/').expect("a port and a path");
    let mut asked = Asked { method: head.method.to_string(), path: format!("/{path}"), headers: head.headers, body };
    if let Some(answer) = change.before.and_then(|change| change(&mut asked)) {
        return Ok(response(answer));
    }
    for name in ["host", "content-length", "transfer-encoding", "expect"] {
        asked.headers.remove(name);
    }
    let url = format!("http://127.0.0.1:{port}{}", asked.path);
    let sent = client.request(head.method, url).headers(asked.headers.clone()).body(asked.body.clone()).send().await;
    let Ok(came) = sent else { return Ok(response(Answer::new(502, &json!({"status": 502})))) };
    let (status, headers) = (came.status().as_u16(), came.headers().clone());
    let body = came.bytes().await.unwrap_or_default();
    let mut answer = Answer { status, headers, body };
    if let Some(change) = change.after {
        change(&asked, &mut answer);
    }
    Ok(response(answer))
}

fn response(mut answer: Answer) -> Response<Full<Bytes>> {
    for name in ["content-length", "transfer-encoding", "connection"] {
        answer.headers.remove(name);
    }
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    *response.headers_mut() = answer.headers;
    response
}
