//! Which request goes to which function, and every function but the hot ones ([`crate::ingest`]).
//!
//! The router is a plain match over the path's segments, not axum's. Measured in one process on one thread, thirteen routes, request
//! and answer without a body to speak of: 0.32 µs a request with the match, 0.60–0.73 µs through `axum::Router` 0.8 (0.29 against
//! 0.81 µs for a path with an id). Next to the 9 µs that a request costs this server in all, axum's 0.3–0.5 µs are 3–5 %: small, and not
//! nothing; thirteen routes need no tree.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{self, KeyHash, Organization};
use crate::config::ms;
use crate::event::Event;
use crate::ingest::{self, now_us};
use crate::limits::Tier;
use crate::openapi;
use crate::problem::Problem;
use crate::store::{KeyRow, State, StoredEvent};

/// What a route gives: an answer, or a problem that becomes one.
pub type Answer = Result<Response<Full<Bytes>>, Problem>;

/// Content type of every answer that is JSON and no problem.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Template of the hot route.
pub const EVENTS: &str = "/api/events";

/// A refused body up to this size is read to its end, so that the connection can be used again.
const UNREAD_BODY_BYTES_MAX: u64 = 64 * 1024;
const CONTROL_BODY_BYTES_MAX: u64 = 16 * 1024;
const INBOX_LIMIT_DEFAULT: usize = 100;
const INBOX_LIMIT_MAX: usize = 1000;
/// How often an acknowledgement looks whether a pending event has reached the store.
const ACK_LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One request on its way through the server.
#[derive(Debug)]
pub struct Call {
    head: Parts,
    body: Incoming,
    /// When its head was complete.
    pub started: Instant,
}

impl Call {
    /// A request whose head has just been read.
    pub fn new(request: Request<Incoming>, started: Instant) -> Self {
        let (head, body) = request.into_parts();
        Self { head, body, started }
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
}

/// Everything that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /api/events`
    PostEvent,
    /// `POST /api/events/batch`
    PostBatch,
    /// `GET /api/events/{id}`
    GetEvent,
    /// `GET /api/inbox`
    Inbox,
    /// `POST /api/ack/{id}`
    Acknowledge,
    /// `POST /api/keys/generate`
    GenerateKey,
    /// `GET /api/keys`
    ShowKey,
    /// `POST /api/keys/rotate`
    RotateKey,
    /// `GET /healthz`
    Healthz,
    /// `GET /readyz`
    Readyz,
    /// `GET /health`
    Health,
    /// `GET /metrics`
    Metrics,
    /// `GET /api/openapi.json`
    OpenApi,
}

impl Route {
    /// All routes.
    pub const ALL: [Self; 13] = [
        Self::PostEvent,
        Self::PostBatch,
        Self::GetEvent,
        Self::Inbox,
        Self::Acknowledge,
        Self::GenerateKey,
        Self::ShowKey,
        Self::RotateKey,
        Self::Healthz,
        Self::Readyz,
        Self::Health,
        Self::Metrics,
        Self::OpenApi,
    ];

    /// The route of a path, and the id in it.
    pub fn find(path: &str) -> Option<(Self, &str)> {
        let Some(rest) = path.strip_prefix("/api/") else {
            let route = match path {
                "/healthz" => Self::Healthz,
                "/readyz" => Self::Readyz,
                "/health" => Self::Health,
                "/metrics" => Self::Metrics,
                _ => return None,
            };
            return Some((route, ""));
        };
        let route = match rest.split_once('/') {
            None => match rest {
                "events" => Self::PostEvent,
                "inbox" => Self::Inbox,
                "keys" => Self::ShowKey,
                "openapi.json" => Self::OpenApi,
                _ => return None,
            },
            Some(("events", "batch")) => Self::PostBatch,
            Some(("keys", "generate")) => Self::GenerateKey,
            Some(("keys", "rotate")) => Self::RotateKey,
            Some(("events", id)) if is_segment(id) => return Some((Self::GetEvent, id)),
            Some(("ack", id)) if is_segment(id) => return Some((Self::Acknowledge, id)),
            _ => return None,
        };
        Some((route, ""))
    }

    /// Its one method, and the path with a placeholder for the id, as metrics and the OpenAPI document have it.
    pub fn template(self) -> (Method, &'static str) {
        match self {
            Self::PostEvent => (Method::POST, EVENTS),
            Self::PostBatch => (Method::POST, "/api/events/batch"),
            Self::GetEvent => (Method::GET, "/api/events/{id}"),
            Self::Inbox => (Method::GET, "/api/inbox"),
            Self::Acknowledge => (Method::POST, "/api/ack/{id}"),
            Self::GenerateKey => (Method::POST, "/api/keys/generate"),
            Self::ShowKey => (Method::GET, "/api/keys"),
            Self::RotateKey => (Method::POST, "/api/keys/rotate"),
            Self::Healthz => (Method::GET, "/healthz"),
            Self::Readyz => (Method::GET, "/readyz"),
            Self::Health => (Method::GET, "/health"),
            Self::Metrics => (Method::GET, "/metrics"),
            Self::OpenApi => (Method::GET, "/api/openapi.json"),
        }
    }

    fn check(self, method: &Method) -> Result<(), Problem> {
        match self.template().0 {
            Method::POST if method == Method::POST => Ok(()),
            Method::POST => Err(Problem::Method("POST")),
            // hyper leaves the body of an answer to HEAD out by itself.
            _ if method == Method::GET || method == Method::HEAD => Ok(()),
            _ => Err(Problem::Method("GET, HEAD")),
        }
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// Answers one request, and counts it.
pub async fn handle(app: &Arc<App>, call: &mut Call) -> Response<Full<Bytes>> {
    let Some((route, id)) = Route::find(call.head.uri.path()) else {
        return finish(app, "(none)", Err(Problem::NoRoute));
    };
    if route == Route::PostEvent && call.head.method == Method::POST {
        let answer = ingest::post_event(app, call).await;
        return finish(app, EVENTS, answer);
    }
    let template = route.template().1;
    let answer = match route.check(&call.head.method) {
        Err(problem) => Err(problem),
        Ok(()) => {
            let id = id.to_owned();
            // Boxed, so that the hot route's future doesn't carry the room of all the others.
            Box::pin(answer(app, route, &id, call)).await
        }
    };
    finish(app, template, answer)
}

async fn answer(app: &Arc<App>, route: Route, id: &str, call: &mut Call) -> Answer {
    match route {
        Route::PostEvent => ingest::post_event(app, call).await,
        Route::PostBatch => ingest::post_batch(app, call).await,
        Route::GetEvent => get_event(app, call, id).await,
        Route::Inbox => inbox(app, call).await,
        Route::Acknowledge => acknowledge(app, call, id).await,
        Route::GenerateKey => generate_key(app, call).await,
        Route::ShowKey => show_key(app, call).await,
        Route::RotateKey => rotate_key(app, call).await,
        Route::Healthz => Ok(healthz()),
        Route::Readyz | Route::Health => Ok(readyz(app)),
        Route::Metrics => Ok(metrics(app)),
        Route::OpenApi => Ok(openapi_json()),
    }
}

fn finish(app: &App, template: &'static str, answer: Answer) -> Response<Full<Bytes>> {
    let response = answer.unwrap_or_else(|problem| {
        app.count_rejected(&problem);
        problem.response()
    });
    if template == EVENTS && response.status() == StatusCode::ACCEPTED {
        app.accepted.inc();
    } else {
        app.count_request(template, response.status());
    }
    response
}

fn json_answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

async fn authenticate(app: &Arc<App>, headers: &HeaderMap) -> Result<(Arc<Organization>, KeyHash), Problem> {
    let (organization, key_hash) = app.keys.authenticate(headers).await?;
    organization.limiter.take()?;
    Ok((organization, key_hash))
}

/// Read one event.
#[utoipa::path(get, path = "/api/events/{id}", tag = "Reading", params(("id" = openapi::Id, Path, description = "Out of the acknowledgement")),
    responses((status = 200, description = "The event, from the moment of its 202", body = openapi::EventOut),
        (status = 401, response = openapi::ProblemAnswer), (status = 404, response = openapi::ProblemAnswer),
        (status = 429, response = openapi::ProblemAnswer), (status = 503, response = openapi::ProblemAnswer)))]
async fn get_event(app: &Arc<App>, call: &Call, id: &str) -> Answer {
    let (organization, _) = authenticate(app, call.headers()).await?;
    let id: Uuid = id.parse().map_err(|_| Problem::NoEvent)?;
    let mut body = Vec::with_capacity(512);
    // In this order: an event leaves the pending buffer only after the store has it.
    let pending =
        app.pending().and_then(|pending| pending.get(id)).filter(|event| event.organization_id == organization.id);
    if let Some(event) = pending {
        write_event(&mut body, &event, "pending", None);
        return Ok(json_answer(StatusCode::OK, body));
    }
    let Some(store) = &app.store else { return Err(Problem::NoEvent) };
    let stored = store.call(move |store| async move { store.event(organization.id, id).await }).await?;
    write_stored(&mut body, &stored.ok_or(Problem::NoEvent)?);
    Ok(json_answer(StatusCode::OK, body))
}

/// Read the organisation's persisted events, oldest first.
#[utoipa::path(get, path = "/api/inbox", tag = "Reading",
    params(("status" = Option<openapi::StoredState>, Query, description = "Only events in this state"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Events on a page at most; 100 when left out"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, description = "One page; all pages show each event once", body = openapi::Inbox),
        (status = 400, response = openapi::ProblemAnswer), (status = 401, response = openapi::ProblemAnswer),
        (status = 429, response = openapi::ProblemAnswer), (status = 503, response = openapi::ProblemAnswer)))]
async fn inbox(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, _) = authenticate(app, call.headers()).await?;
    let Filter { state, limit, cursor } = filter(call.head.uri.query().unwrap_or(""))?;
    let Some(store) = &app.store else { return Ok(json_answer(StatusCode::OK, r#"{"events":[],"next_cursor":null}"#)) };
    let id = organization.id;
    let page = store.call(move |store| async move { store.inbox(id, state, limit, cursor.as_deref()).await }).await?;
    let mut body =
        Vec::with_capacity(64 + page.events.iter().map(|stored| stored.event.payload.len() + 512).sum::<usize>());
    body.extend_from_slice(b"{\"events\":[");
    for (index, stored) in page.events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_stored(&mut body, stored);
    }
    body.extend_from_slice(b"],\"next_cursor\":");
    body.extend_from_slice(json!(page.next_cursor).to_string().as_bytes());
    body.push(b'}');
    Ok(json_answer(StatusCode::OK, body))
}

/// Mark an event as delivered: it leaves `status=persisted`.
#[utoipa::path(post, path = "/api/ack/{id}", tag = "Reading", params(("id" = openapi::Id, Path, description = "Of the event")),
    responses((status = 200, description = "Done, now or before", body = openapi::Delivered),
        (status = 401, response = openapi::ProblemAnswer), (status = 404, response = openapi::ProblemAnswer),
        (status = 429, response = openapi::ProblemAnswer), (status = 503, response = openapi::ProblemAnswer)))]
async fn acknowledge(app: &Arc<App>, call: &Call, id: &str) -> Answer {
    let (organization, _) = authenticate(app, call.headers()).await?;
    let id: Uuid = id.parse().map_err(|_| Problem::NoEvent)?;
    let Some(store) = &app.store else { return Err(Problem::NoEvent) };
    let is_pending = || {
        let pending = app.pending().and_then(|pending| pending.get(id));
        pending.is_some_and(|event| event.organization_id == organization.id)
    };
    // What is acknowledged to its sender may be read, and so acknowledged by its reader, before it is in the store.
    let looks_max = app.settings.limits.store_timeout_ms / ACK_LOOK_INTERVAL.as_millis() as u64;
    for look in 0.. {
        match is_pending() {
            false => break,
            true if look == looks_max => return Err(Problem::StoreUnavailable),
            true => tokio::time::sleep(ACK_LOOK_INTERVAL).await,
        }
    }
    let organization_id = organization.id;
    match store.call(move |store| async move { store.acknowledge(organization_id, id).await }).await? {
        true => Ok(json_answer(StatusCode::OK, json!({"id": id, "state": "delivered"}).to_string())),
        false => Err(Problem::NoEvent),
    }
}

#[derive(serde::Deserialize)]
struct KeyWanted {
    organization_name: Option<serde_json::Value>,
    tier: Option<serde_json::Value>,
}

/// Make an organisation and its API key.
#[utoipa::path(post, path = "/api/keys/generate", tag = "Keys", request_body = openapi::KeyWanted,
    responses((status = 201, description = "The key, shown this once", body = openapi::NewKey),
        (status = 400, response = openapi::ProblemAnswer), (status = 401, response = openapi::ProblemAnswer),
        (status = 408, response = openapi::ProblemAnswer), (status = 413, response = openapi::ProblemAnswer),
        (status = 415, response = openapi::ProblemAnswer), (status = 503, response = openapi::ProblemAnswer)))]
async fn generate_key(app: &Arc<App>, call: &mut Call) -> Answer {
    auth::admin(call.headers(), app.settings.admin_token.as_ref())?;
    ingest::require_json(call.headers())?;
    let body = call.body(CONTROL_BODY_BYTES_MAX, ms(app.settings.limits.body_timeout_ms)).await?;
    let wanted = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(value) if value.is_object() => serde_json::from_value::<KeyWanted>(value),
        Ok(_) => return Err(Problem::Body("send a JSON object with 'organization_name'".into())),
        Err(error) => Err(error),
    }
    .map_err(|error| Problem::Body(format!("the body is not JSON: {error}")))?;
    let name = organization_name(wanted.organization_name.as_ref())?;
    let tier = match &wanted.tier {
        None => Tier::Free,
        Some(tier) => tier.as_str().and_then(Tier::from_name).ok_or_else(|| {
            Problem::field(
                "tier",
                "'tier' is not a tier; send \"free\", \"pro\", \"business\" or \"enterprise\", or leave it out",
            )
        })?,
    };
    let (key, now_us) = (auth::generate()?, now_us());
    let organization = Organization {
        id: ingest::new_id(now_us),
        name,
        tier,
        limiter: crate::limits::Limiter::new(tier, &app.settings.limits),
    };
    app.keys.add(key_row(&organization, &key, now_us)).await?;
    Ok(json_answer(StatusCode::CREATED, new_key(app, &organization, &key)))
}

fn organization_name(value: Option<&serde_json::Value>) -> Result<String, Problem> {
    match value.and_then(serde_json::Value::as_str) {
        Some(name) if !name.is_empty() && name.chars().count() <= 255 && !name.contains('\0') => Ok(name.to_owned()),
        _ => Err(Problem::field(
            "organization_name",
            "'organization_name' is not a string of 1 to 255 characters; send one",
        )),
    }
}

fn key_row(organization: &Organization, key: &str, now_us: i64) -> KeyRow {
    KeyRow {
        key_hash: auth::hash(key.as_bytes()),
        organization_id: organization.id,
        organization_name: organization.name.clone(),
        tier: organization.tier.name().to_owned(),
        created_at_us: now_us,
    }
}

fn new_key(app: &App, organization: &Organization, key: &str) -> String {
    let mut body = about(app, organization);
    body["api_key"] = json!(key);
    body.to_string()
}

fn about(app: &App, organization: &Organization) -> serde_json::Value {
    json!({
        "organization_id": organization.id,
        "organization_name": organization.name,
        "tier": organization.tier.name(),
        "rate_limit_per_minute": organization.tier.per_minute(&app.settings.limits),
    })
}

/// Show whose key this is (never the key).
#[utoipa::path(get, path = "/api/keys", tag = "Keys",
    responses((status = 200, description = "The organisation", body = openapi::KeyShown), (status = 401, response = openapi::ProblemAnswer),
        (status = 429, response = openapi::ProblemAnswer), (status = 503, response = openapi::ProblemAnswer)))]
async fn show_key(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, key_hash) = authenticate(app, call.headers()).await?;
    let mut body = about(app, &organization);
    body["created_at"] = json!(app.keys.created_at_us(&key_hash).map(rfc3339));
    Ok(json_answer(StatusCode::OK, body.to_string()))
}

/// Get a new key in the place of the one that this request carries.
#[utoipa::path(post, path = "/api/keys/rotate", tag = "Keys",
    responses((status = 200, description = "The new key, shown this once; the old one has ended here, and ends within `--key-cache-ttl-s` in other processes on the same database", body = openapi::NewKey),
        (status = 401, response = openapi::ProblemAnswer), (status = 429, response = openapi::ProblemAnswer),
        (status = 503, response = openapi::ProblemAnswer)))]
async fn rotate_key(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, old) = authenticate(app, call.headers()).await?;
    let key = auth::generate()?;
    app.keys.rotate(old, key_row(&organization, &key, now_us())).await?;
    Ok(json_answer(StatusCode::OK, new_key(app, &organization, &key)))
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "Operating", security(()), responses((status = 200, description = "It does", body = openapi::Health)))]
fn healthz() -> Response<Full<Bytes>> {
    json_answer(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// The server can take events. (`/health` is the same.)
#[utoipa::path(get, path = "/readyz", tag = "Operating", security(()), responses((status = 200, description = "It can", body = openapi::Readiness),
    (status = 503, description = "It cannot: `reasons` says why", body = openapi::Readiness)))]
fn readyz(app: &App) -> Response<Full<Bytes>> {
    let reasons = app.unready();
    let (status, word) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let mode = app.settings.mode.name();
    json_answer(status, json!({"status": word, "reasons": reasons, "mode": mode}).to_string())
}

/// The same as `/readyz`.
#[utoipa::path(get, path = "/health", tag = "Operating", security(()), responses((status = 200, description = "It can", body = openapi::Readiness),
    (status = 503, description = "It cannot: `reasons` says why", body = openapi::Readiness)))]
#[allow(dead_code, reason = "documents the alias; /readyz answers for both")]
fn health() {}

/// What the server counts, as Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "Operating", security(()),
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
fn metrics(app: &App) -> Response<Full<Bytes>> {
    app.measure();
    let mut response = Response::new(Full::new(Bytes::from(app.metrics.encode())));
    let kind = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "Operating", security(()), responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
fn openapi_json() -> Response<Full<Bytes>> {
    json_answer(StatusCode::OK, openapi::text())
}

struct Filter {
    state: Option<State>,
    limit: usize,
    cursor: Option<String>,
}

fn filter(query: &str) -> Result<Filter, Problem> {
    let mut filter = Filter { state: None, limit: INBOX_LIMIT_DEFAULT, cursor: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "status" if value.is_empty() => {}
            "status" => filter.state = Some(state(value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=INBOX_LIMIT_MAX).contains(limit));
                filter.limit =
                    limit.ok_or_else(|| Problem::field("limit", "'limit' is not a number from 1 to 1000"))?;
            }
            "cursor" if value.is_empty() => {}
            // Cursors are made of characters that need no percent-encoding.
            "cursor" => filter.cursor = Some(value.to_owned()),
            // What a later version may know is no mistake.
            _ => {}
        }
    }
    Ok(filter)
}

fn state(name: &str) -> Result<State, Problem> {
    let all = [State::Persisted, State::Delivered, State::Failed, State::DeadLetter];
    all.into_iter().find(|state| state_name(*state) == name).ok_or_else(|| {
        Problem::field(
            "status",
            "'status' is not a state of a persisted event; send persisted, delivered, failed or dead_letter",
        )
    })
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Persisted => "persisted",
        State::Delivered => "delivered",
        State::Failed => "failed",
        State::DeadLetter => "dead_letter",
    }
}

fn write_stored(body: &mut Vec<u8>, stored: &StoredEvent) {
    write_event(body, &stored.event, state_name(stored.state), Some(stored.persisted_at_us));
}

/// Writes an event as rule R1 has it. By hand, because the payload goes out as the bytes that came in.
fn write_event(body: &mut Vec<u8>, event: &Event, state: &str, persisted_at_us: Option<i64>) {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let dedup_id = event.dedup_id.as_deref().map_or("null".to_owned(), quoted);
    let persisted_at = persisted_at_us.map_or("null".to_owned(), |us| quoted(&rfc3339(us)));
    let (id, kind, created_at) = (event.id, quoted(&event.event_type), rfc3339(event.created_at_us));
    body.extend_from_slice(
        format!("{{\"id\":\"{id}\",\"type\":{kind},\"dedup_id\":{dedup_id},\"payload\":").as_bytes(),
    );
    body.extend_from_slice(&event.payload);
    body.extend_from_slice(
        format!(",\"state\":\"{state}\",\"created_at\":\"{created_at}\",\"persisted_at\":{persisted_at}}}").as_bytes(),
    );
}

/// UTC with microseconds.
fn rfc3339(us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_found_by_its_own_path_and_nothing_else_is() {
        for route in Route::ALL {
            let path = route.template().1.replace("{id}", "0190");
            let id = if path.ends_with("0190") { "0190" } else { "" };
            assert_eq!(Route::find(&path), Some((route, id)), "{path}");
        }
        for path in [
            "/",
            "",
            "/api",
            "/api/",
            "/api/events/",
            "/api/events/a/b",
            "/api/ack/",
            "/api/webhook/config",
            "/healthz/",
        ] {
            assert_eq!(Route::find(path), None, "{path}");
        }
    }

    #[test]
    fn a_bad_parameter_of_the_inbox_is_named() {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("status=pending", "status"),
            ("status=x", "status"),
        ] {
            assert!(matches!(filter(query), Err(Problem::Field { field: named, .. }) if named == field), "{query}");
        }
        assert!(filter("limit=1000&status=dead_letter&cursor=abc&x=y").is_ok());
    }

    #[test]
    fn times_have_six_digits_even_when_they_are_zero() {
        assert_eq!(rfc3339(1_700_000_000_000_000), "2023-11-14T22:13:20.000000Z");
    }
}
