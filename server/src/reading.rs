//! The routes that read (rules R1, R2): one event, the inbox, and its reader's acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::call::{Answer, Call, json_answer};
use crate::problem::Problem;
use crate::shapes;
use crate::store::{State, StoredEvent};

const INBOX_LIMIT_DEFAULT: usize = 100;
const INBOX_LIMIT_MAX: usize = 1000;
/// How often an acknowledgement looks whether a pending event has reached the store.
const ACK_LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Read one event.
#[utoipa::path(get, path = "/api/events/{id}", tag = "Reading", params(("id" = shapes::Id, Path, description = "Out of the acknowledgement")),
    responses((status = 200, description = "The event, from the moment of its 202", body = shapes::EventOut),
        (status = 401, response = shapes::ProblemAnswer), (status = 404, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn get_event(app: &Arc<App>, call: &Call, id: &str) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    let id: Uuid = id.parse().map_err(|_| Problem::NoEvent)?;
    let mut body = Vec::with_capacity(512);
    // In this order: an event leaves the pending buffer only after the store has it.
    let pending = app.find_pending(organization.id, id).await;
    if let Ok(Some(event)) = &pending {
        event.write_json(&mut body, Some("pending"), None);
        return Ok(json_answer(StatusCode::OK, body));
    }
    let Some(store) = &app.store else { return Err(Problem::NoEvent) };
    let stored = store.call(move |store| async move { store.event(organization.id, id).await }).await?;
    // What the queue could not be asked for, and the store does not have, may be there.
    let Some(stored) = stored else { return Err(pending.err().unwrap_or(Problem::NoEvent)) };
    write_stored(&mut body, &stored);
    Ok(json_answer(StatusCode::OK, body))
}

/// Read the organisation's persisted events, oldest first.
#[utoipa::path(get, path = "/api/inbox", tag = "Reading",
    params(("status" = Option<shapes::StoredState>, Query, description = "Only events in this state"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Events on a page at most; 100 when left out"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, description = "One page; all pages show each event once", body = shapes::Inbox),
        (status = 400, response = shapes::ProblemAnswer), (status = 401, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn inbox(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    let Filter { state, limit, cursor } = filter(call.query())?;
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
#[utoipa::path(post, path = "/api/ack/{id}", tag = "Reading", params(("id" = shapes::Id, Path, description = "Of the event")),
    responses((status = 200, description = "Done, now or before", body = shapes::Delivered),
        (status = 401, response = shapes::ProblemAnswer), (status = 404, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn acknowledge(app: &Arc<App>, call: &Call, id: &str) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    let id: Uuid = id.parse().map_err(|_| Problem::NoEvent)?;
    let Some(store) = &app.store else { return Err(Problem::NoEvent) };
    // What is acknowledged to its sender may be read, and so acknowledged by its reader, before it is in the store.
    let looks_max = app.settings.limits.store_timeout_ms / ACK_LOOK_INTERVAL.as_millis() as u64;
    for look in 0.. {
        match app.find_pending(organization.id, id).await?.is_some() {
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
    all.into_iter().find(|state| state.name() == name).ok_or_else(|| {
        Problem::field(
            "status",
            "'status' is not a state of a persisted event; send persisted, delivered, failed or dead_letter",
        )
    })
}

fn write_stored(body: &mut Vec<u8>, stored: &StoredEvent) {
    stored.event.write_json(body, Some(stored.state.name()), Some(stored.persisted_at_us));
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
