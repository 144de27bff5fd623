//! The hot path: auth → rate limit → parse and check → dedup → pending or store → 202 (rules I1–I7).
//!
//! [`post_event`] and `accept` are all of it. An answer says yes only after the event is where `durability` says it is.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use rand::RngCore;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Organization;
use crate::call::{Answer, Call, JSON};
use crate::config::ms;
use crate::dedup::{Entry, Found, Slot};
use crate::event::Event;
use crate::fault::{self, Kept};
use crate::follow::Followed;
use crate::idempotency;
use crate::parse::{self, Draft, ENVELOPE_BYTES_MAX};
use crate::problem::Problem;
use crate::store::Inserted;

/// After this many events of one batch the other connections of the thread get a turn.
const BATCH_TURN_EVENTS: usize = 32;

/// Send one event.
#[utoipa::path(post, path = "/api/events", tag = "Ingestion", request_body = crate::shapes::EventIn,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "1 to 255 bytes; a retry with the same key and body gets the first answer again")),
    responses(
        (status = 202, description = "Acknowledged; `durability` says what that is worth", body = crate::shapes::Accepted,
            headers(("Location" = String, description = "Where the event is found"))),
        (status = 400, response = crate::shapes::ProblemAnswer), (status = 401, response = crate::shapes::ProblemAnswer),
        (status = 408, response = crate::shapes::ProblemAnswer), (status = 409, response = crate::shapes::ProblemAnswer),
        (status = 413, response = crate::shapes::ProblemAnswer), (status = 415, response = crate::shapes::ProblemAnswer),
        (status = 422, response = crate::shapes::ProblemAnswer), (status = 429, response = crate::shapes::ProblemAnswer),
        (status = 503, response = crate::shapes::ProblemAnswer)))]
pub async fn post_event(app: &Arc<App>, call: &mut Call) -> Answer {
    if let Some(faults) = &app.faults {
        faults.admit(call.started).await?;
    }
    if app.is_null() {
        return acknowledge_nothing(app, call).await;
    }
    let (organization, _) = app.keys.authenticate(call.headers()).await?;
    app.limit(&organization).await?;
    let headers = call.headers();
    require_json(headers)?;
    let repeat_key = idempotency::key(headers)?.map(Bytes::copy_from_slice);
    let started = call.started;
    let limits = &app.settings.limits;
    let body = call.body(limits.payload_bytes_max + ENVELOPE_BYTES_MAX, ms(limits.body_timeout_ms)).await?;
    let work = one(app, &organization, &body, started, followed(call));
    match repeat_key {
        None => work.await,
        Some(key) => Box::pin(once(app, &organization, "event", &key, &body, work)).await,
    }
}

/// What the events of a request carry along.
fn followed(call: &Call) -> Option<Box<Followed>> {
    call.followed.as_ref().map(|call| Box::new(call.followed.clone()))
}

async fn one(
    app: &App,
    organization: &Organization,
    body: &Bytes,
    started: Instant,
    followed: Option<Box<Followed>>,
) -> Answer {
    let draft = parse::event(body, &app.bounds)?;
    let id = accept(app, organization, draft, followed).await?;
    app.metrics.ack_seconds.observe(started.elapsed().as_secs_f64());
    Ok(accepted(id, app.durability()))
}

/// Takes in an event, unless a fault on purpose says otherwise; its id when it is to be acknowledged.
async fn accept(
    app: &App,
    organization: &Organization,
    draft: Draft,
    followed: Option<Box<Followed>>,
) -> Result<Uuid, Problem> {
    let Some(faults) = &app.faults else { return take_in(app, organization, draft, followed).await };
    let identity = fault::identity(draft.dedup_id.as_deref(), &draft.payload).to_owned();
    faults.refuse(&identity)?;
    let id = Box::pin(take_in(app, organization, draft, followed)).await?;
    faults.acknowledge(&identity).await?;
    Ok(id)
}

/// Makes the draft an event and puts it where the mode wants it; its id when it may be acknowledged.
async fn take_in(
    app: &App,
    organization: &Organization,
    draft: Draft,
    followed: Option<Box<Followed>>,
) -> Result<Uuid, Problem> {
    let now_us = now_us();
    let Draft { event_type, dedup_id, payload } = draft;
    let (id, organization_id, created_at_us) = (new_id(now_us), organization.id, now_us);
    let event = Arc::new(Event { id, organization_id, event_type, dedup_id, payload, created_at_us, followed });
    let entry = match &event.dedup_id {
        // A queue outside of this process knows itself who holds it; but not of an event that a fault on purpose keeps from it.
        Some(_) if app.queue().is_some() && app.faults.is_none() => None,
        None => None,
        Some(dedup_id) => Some(claim(app, &event, dedup_id).await?.entry(&app.dedup, id, now_us)),
    };
    let (taken, entry) = match &app.faults {
        None => app.keep(event, entry).await?,
        Some(faults) => Box::pin(keep_falsely(app, faults.kept(event), entry)).await?,
    };
    let holder = match taken {
        Inserted::DuplicateOf(first) => first,
        Inserted::New | Inserted::AlreadyThere => id,
    };
    if let Some(entry) = entry {
        entry.keep(holder);
    }
    if holder != id {
        return Err(duplicate(app, holder));
    }
    app.metrics.events_acknowledged.inc();
    Ok(id)
}

/// The right to be the first with this `dedup_id`, which no other event has.
async fn claim(app: &App, event: &Event, dedup_id: &str) -> Result<Slot, Problem> {
    let (organization_id, now_us) = (event.organization_id, event.created_at_us);
    let found = app.dedup.find(organization_id, dedup_id, now_us);
    // Whoever has the claim may wait for a disk that hangs, and go on waiting when its own request is given up.
    let found = tokio::time::timeout(ms(app.settings.limits.store_timeout_ms), found).await;
    match found.map_err(|_elapsed| Problem::OutcomeUnknown)? {
        Found::Duplicate(first) => Err(duplicate(app, first)),
        Found::New(slot) => Ok(slot),
        Found::Unknown(slot) => match find_in_store(app, event, now_us).await? {
            None => Ok(slot),
            Some(first) => {
                slot.keep(&app.dedup, first, now_us);
                Err(duplicate(app, first))
            }
        },
    }
}

/// Keeps what a fault on purpose has made of an event.
async fn keep_falsely(app: &App, kept: Kept, entry: Option<Entry>) -> Result<(Inserted, Option<Entry>), Problem> {
    match kept {
        Kept::Nothing => Ok((Inserted::New, entry)),
        Kept::One(event) => app.keep(event, entry).await,
        Kept::Two(event, copy) => {
            let taken = app.keep(event, entry).await?;
            if taken.0 == Inserted::New {
                // The event is in: where there is no room for the copy, the fault has failed and not the request.
                let _ = app.keep(copy, None).await.inspect_err(|problem| tracing::warn!(?problem, "no copy was kept"));
            }
            Ok(taken)
        }
    }
}

/// Asks the store for a `dedup_id` that memory may have forgotten. `db-first` need not: the insert itself finds out.
async fn find_in_store(app: &App, event: &Event, now_us: i64) -> Result<Option<Uuid>, Problem> {
    let (Some(_), Some(store), Some(dedup_id)) = (app.pending(), &app.store, event.dedup_id.clone()) else {
        return Ok(None);
    };
    let (organization_id, since_us) = (event.organization_id, app.dedup.since_us(now_us));
    store.call(move |store| async move { store.find_dedup(organization_id, &dedup_id, since_us).await }).await
}

fn duplicate(app: &App, first: Uuid) -> Problem {
    app.metrics.events_duplicate.inc();
    Problem::Duplicate(first)
}

/// Send up to 1,000 events.
#[utoipa::path(post, path = "/api/events/batch", tag = "Ingestion",
    request_body(content((Vec<crate::shapes::EventIn> = "application/json"), (String = "application/x-ndjson")),
        description = "A JSON array of events, or one event on each line"),
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "1 to 255 bytes; a retry with the same key and body gets the first answer again")),
    responses(
        (status = 207, description = "One result per item, in order: a 202 with its id, or a problem", body = crate::shapes::BatchResults),
        (status = 400, response = crate::shapes::ProblemAnswer), (status = 401, response = crate::shapes::ProblemAnswer),
        (status = 408, response = crate::shapes::ProblemAnswer), (status = 413, response = crate::shapes::ProblemAnswer),
        (status = 415, response = crate::shapes::ProblemAnswer), (status = 422, response = crate::shapes::ProblemAnswer),
        (status = 429, response = crate::shapes::ProblemAnswer), (status = 503, response = crate::shapes::ProblemAnswer)))]
pub async fn post_batch(app: &Arc<App>, call: &mut Call) -> Answer {
    if let Some(faults) = &app.faults {
        faults.admit(call.started).await?;
    }
    let (organization, _) = app.keys.authenticate(call.headers()).await?;
    app.limit(&organization).await?;
    let lines = match media_type(call.headers()) {
        Some(kind) if kind.eq_ignore_ascii_case(b"application/json") => false,
        Some(kind) if kind.eq_ignore_ascii_case(b"application/x-ndjson") => true,
        _ => return Err(Problem::ContentType("application/json or application/x-ndjson")),
    };
    let repeat_key = idempotency::key(call.headers())?.map(Bytes::copy_from_slice);
    let limits = &app.settings.limits;
    let body = call.body(limits.batch_body_bytes_max, ms(limits.body_timeout_ms)).await?;
    let work = many(app, &organization, &body, lines, followed(call));
    match repeat_key {
        None => work.await,
        Some(key) => Box::pin(once(app, &organization, "batch", &key, &body, work)).await,
    }
}

async fn many(
    app: &Arc<App>,
    organization: &Arc<Organization>,
    body: &Bytes,
    lines: bool,
    followed: Option<Box<Followed>>,
) -> Answer {
    let drafts = if lines { parse::batch_lines(body, &app.bounds) } else { parse::batch_array(body, &app.bounds) }?;
    let mut outcomes = Vec::with_capacity(drafts.len());
    // The items of a batch must wait for the same commit, or sync, and not one after the other. (One after the other is right
    // where nothing waits: a task for each would only cost.)
    let mut writing = tokio::task::JoinSet::new();
    // The request itself was the first item's.
    let (more, refusal) = app.limit_many(organization, drafts.len().saturating_sub(1)).await;
    for (index, draft) in drafts.into_iter().enumerate() {
        let limited = refusal.clone().filter(|_| index > more).map_or(Ok(()), Err);
        let outcome = match limited.and(draft) {
            Err(problem) => Err(problem),
            Ok(draft) if app.shares_waits() => {
                let (app, organization, followed) = (Arc::clone(app), Arc::clone(organization), followed.clone());
                writing.spawn(async move { (index, accept(&app, &organization, draft, followed).await) });
                Err(Problem::Internal)
            }
            Ok(draft) => accept(app, organization, draft, followed.clone()).await,
        };
        outcomes.push(outcome);
        if index % BATCH_TURN_EVENTS == BATCH_TURN_EVENTS - 1 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(written) = writing.join_next().await {
        let (index, outcome) = written.map_err(|_| Problem::Stopping)?;
        outcomes[index] = outcome;
    }
    if outcomes.contains(&Err(Problem::HungUp)) {
        return Err(Problem::HungUp);
    }
    Ok(results(app, &outcomes))
}

fn results(app: &App, outcomes: &[Result<Uuid, Problem>]) -> Response<Full<Bytes>> {
    let results: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(id) => json!({"status": 202, "id": id, "durability": app.durability()}),
            Err(problem) => {
                app.count_rejected(problem);
                problem.to_json()
            }
        })
        .collect();
    let mut response = Response::new(Full::new(Bytes::from(json!({"results": results}).to_string())));
    *response.status_mut() = StatusCode::MULTI_STATUS;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Does the work unless it was done before for this `Idempotency-Key`.
async fn once(
    app: &App,
    organization: &Organization,
    route: &str,
    key: &[u8],
    body: &Bytes,
    work: impl Future<Output = Answer>,
) -> Answer {
    let slot = match app.idempotency.find(organization.id, route, key, body).await? {
        idempotency::Found::Repeat(response) => return Ok(response),
        idempotency::Found::New(slot) => slot,
    };
    let (response, failure) = match work.await {
        Ok(response) => (response, None),
        Err(problem) => (problem.response(), Some(problem)),
    };
    let bytes = idempotency::bytes(&response).await;
    slot.keep(&app.idempotency, &response, bytes);
    failure.map_or(Ok(response), Err)
}

/// 202. The body and the Location are slices of one allocation.
fn accepted(id: Uuid, durability: &str) -> Response<Full<Bytes>> {
    const LOCATION_PREFIX: &[u8] = b"/api/events/";
    let mut hex = Uuid::encode_buffer();
    let hex = id.hyphenated().encode_lower(&mut hex).as_bytes();
    let mut text = BytesMut::with_capacity(160);
    text.extend_from_slice(LOCATION_PREFIX);
    text.extend_from_slice(hex);
    let location = text.len();
    for part in [b"{\"id\":\"", hex, b"\",\"status\":\"accepted\",\"durability\":\"", durability.as_bytes(), b"\"}"] {
        text.extend_from_slice(part);
    }
    let text = text.freeze();
    let mut response = Response::new(Full::new(text.slice(location..)));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(..location)) {
        headers.insert(LOCATION, value);
    }
    response
}

/// `null`: reads the body and forgets it.
async fn acknowledge_nothing(app: &App, call: &mut Call) -> Answer {
    const BODY: &[u8] =
        b"{\"id\":\"00000000-0000-0000-0000-000000000000\",\"status\":\"accepted\",\"durability\":\"memory\"}";
    let limits = &app.settings.limits;
    let body = call.body(limits.payload_bytes_max + ENVELOPE_BYTES_MAX, ms(limits.body_timeout_ms)).await?;
    if let Some(faults) = &app.faults {
        // What is no event has no dedup_id either.
        let draft = parse::event(&body, &app.bounds).ok();
        let identity =
            draft.as_ref().map_or(&body[..], |draft| fault::identity(draft.dedup_id.as_deref(), &draft.payload));
        faults.refuse(identity)?;
        faults.acknowledge(identity).await?;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("/api/events/00000000-0000-0000-0000-000000000000"));
    Ok(response)
}

/// The content type without its parameters.
fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(CONTENT_TYPE)?.as_bytes();
    value.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

/// 415 unless the body is JSON.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers) {
        Some(kind) if kind.eq_ignore_ascii_case(b"application/json") => Ok(()),
        _ => Err(Problem::ContentType("application/json")),
    }
}

/// Microseconds since the epoch.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A UUIDv7 whose twelve bits after the milliseconds are the fraction of the millisecond (RFC 9562, method 3), so that ids
/// sort as their events came. The random bits are the thread's own generator's: the crate's would ask the system each time.
pub fn new_id(now_us: i64) -> Uuid {
    let now_us = now_us.unsigned_abs();
    let mut random = [0u8; 10];
    rand::rng().fill_bytes(&mut random);
    let fraction = ((now_us % 1000) * 4096 / 1000) as u16;
    random[..2].copy_from_slice(&fraction.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(now_us / 1000, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuid_v7_and_sort_by_the_microsecond() {
        let ids: Vec<Uuid> = (0..5000).map(|us| new_id(1_800_000_000_000_000 + us)).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
    }

    #[test]
    fn parameters_of_a_content_type_are_allowed_and_other_types_are_not() {
        for (value, ok) in [
            ("application/json", true),
            ("Application/JSON ; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonx", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(require_json(&headers).is_ok(), ok, "{value}");
        }
        assert!(require_json(&HeaderMap::new()).is_err());
    }
}
