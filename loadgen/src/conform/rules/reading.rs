//! R1 and R2: events on their way out.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::super::bench::{Bench, Organization, Shown};
use super::super::door::Exchange;
use super::super::sheet::{Done, Sheet, Stop};
use super::keys::NO_ID;

const STATES: [&str; 5] = ["pending", "persisted", "delivered", "failed", "dead_letter"];
/// Events that are read right after their acknowledgement.
const READ_AT_ONCE: usize = 20;
/// Events in the inbox that is read in pages, and those that come meanwhile.
const INBOX_EVENTS: u64 = 60;
const LIMITS: [u32; 4] = [1, 7, 60, 1_000];
/// An accepted event that is not persisted after so long is not waited for.
const PERSIST_PATIENCE: Duration = Duration::from_secs(10);

pub async fn r1(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let body = json!({"type": "order.created", "payload": {"n": [1]}, "dedup_id": "d"});
    let id = sender.accepted(&body).await?;
    let seen = sender.event_by_id(&id).await?;
    sheet.status("an event is shown with 200", &seen, 200);
    if !seen.is_success() {
        return Err(Stop::Blocked("events cannot be read by their ids".to_owned()));
    }
    as_documented(&seen, sheet);
    // Which type a body of its own form says is for its profile to know.
    let names = ["payload", "dedup_id", "type"];
    for name in &names[..if bench.has_own_bodies().is_ok() { 3 } else { 2 }] {
        sheet.member("it is shown as it was sent", &seen, &format!("/{name}"), &body[*name]);
    }
    sheet.member("it is shown under its id", &seen, "/id", &json!(id));
    for number in 0..READ_AT_ONCE {
        let id = sender.accepted(&json!({"type": "t", "payload": number})).await?;
        let seen = sender.event_by_id(&id).await?;
        sheet.status("it is visible from the moment of the 202", &seen, 200);
        if bench.has_own_bodies().is_ok() {
            sheet.member("without a dedup_id it shows null", &seen, "/dedup_id", &Value::Null);
        }
    }
    let persisted = settled(&sender, &id).await?;
    sheet.member("in the end it is persisted", &persisted, "/state", &json!("persisted"));
    as_documented(&persisted, sheet);
    let time = |name: &str| persisted.text_at(name).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let holds = time("/created_at").is_some() && time("/created_at") <= time("/persisted_at");
    sheet.check("it was created before it was persisted", holds, "created_at ≤ persisted_at", &persisted);
    let foreign = bench.organization().await?.event_by_id(&id).await?;
    sheet.status("another organisation's event is answered 404", &foreign, 404);
    let unknown = sender.event_by_id(NO_ID).await?;
    sheet.status("an unknown id is answered 404", &unknown, 404);
    sheet.untested("the state is failed or dead_letter where it should be", "D1 looks at those");
    Ok(())
}

/// The event once it is not pending any more, or when the patience is used up.
async fn settled(sender: &Organization, id: &str) -> Result<Exchange, Stop> {
    let begin = Instant::now();
    loop {
        let seen = sender.event_by_id(id).await?;
        let is_pending = seen.is_success() && seen.text_at("/state").as_deref() == Some("pending");
        if !is_pending || begin.elapsed() > PERSIST_PATIENCE {
            return Ok(seen);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The members of an event, and their forms.
fn as_documented(seen: &Exchange, sheet: &mut Sheet) {
    let event = seen.json();
    let members = ["id", "type", "dedup_id", "payload", "state", "created_at", "persisted_at"];
    let missing: Vec<&str> = members.into_iter().filter(|name| event.get(*name).is_none()).collect();
    sheet.check("an event has all its members", missing.is_empty(), members.join(", "), seen);
    let state = event["state"].as_str().unwrap_or_default();
    sheet.check("the state is one of the contract's", STATES.contains(&state), STATES.join(", "), seen);
    for name in ["created_at", "persisted_at"] {
        let holds = event[name].as_str().map_or(name == "persisted_at" && event[name].is_null(), is_precise_utc);
        sheet.check("times are RFC 3339, UTC, to the microsecond", holds, "2026-01-31T12:00:00.000000Z", seen);
    }
    let holds = event["persisted_at"].is_null() == (state == "pending");
    sheet.check("persisted_at is null while pending, and only then", holds, "null if and only if pending", seen);
}

fn is_precise_utc(text: &str) -> bool {
    let is_utc = text.ends_with('Z') || text.ends_with("+00:00");
    let digits = text.split_once('.').map_or(0, |(_, rest)| rest.chars().take_while(char::is_ascii_digit).count());
    is_utc && digits >= 6 && text.parse::<jiff::Timestamp>().is_ok()
}

pub async fn r2(bench: &Bench, sheet: &mut Sheet) -> Done {
    let inbox = bench.inbox()?;
    let (sender, other) = (bench.organization().await?, bench.organization().await?);
    other.accepted(&json!({"type": "other", "payload": 1_000_000})).await?;
    let mut ids = Vec::new();
    for number in 0..INBOX_EVENTS {
        ids.push(sender.accepted(&json!({"type": "t", "payload": number})).await?);
    }
    sender.persisted(ids.len()).await?;
    let expected: Vec<u64> = (0..INBOX_EVENTS).collect();
    for limit in LIMITS {
        let events = sender.inbox("", limit).await?;
        let numbers: Vec<u64> = events.iter().filter_map(Shown::number).collect();
        let request = format!("GET {inbox}?limit={limit}, to the end");
        let distinct: HashSet<&u64> = numbers.iter().collect();
        let got = format!("{} events, {} of them distinct", numbers.len(), distinct.len());
        let once = numbers.len() == expected.len() && distinct.len() == expected.len();
        sheet.told("each event is on exactly one page", once, "60 events, 60 of them distinct", got, &request);
        let sorted = numbers.is_sorted();
        sheet.told("the oldest comes first", sorted, "0, 1, 2, …", format!("{numbers:?}"), &request);
        let own = numbers.iter().all(|number| *number < INBOX_EVENTS);
        sheet.told("it has this organisation's events only", own, "own events", format!("{numbers:?}"), &request);
        let persisted =
            events.iter().all(|event| event.persisted_at.is_some() && event.state.as_deref() != Some("pending"));
        sheet.told("it has persisted events only", persisted, "persisted_at in each", "one without", &request);
    }
    pages(&sender, inbox, sheet).await?;
    under_writes(&sender, sheet).await?;
    acknowledged(bench, [&sender, &other], &ids[7], sheet).await
}

/// The form of a page, and what is asked wrongly.
async fn pages(sender: &Organization, inbox: &str, sheet: &mut Sheet) -> Done {
    let page = sender.get(&format!("{inbox}?limit=7")).send().await?;
    sheet.status("a page is answered 200", &page, 200);
    let length = page.json()["events"].as_array().map(Vec::len);
    sheet.check("a page has at most limit events", length == Some(7), "7 events", &page);
    sheet.check(
        "a page that is not the last has a cursor",
        page.json()["next_cursor"].is_string(),
        "next_cursor",
        &page,
    );
    for query in ["limit=0", "limit=1001", "limit=x"] {
        let refused = sender.get(&format!("{inbox}?{query}")).send().await?;
        sheet.check("a limit outside of 1 to 1000 is refused", refused.is_refusal(), "400", &refused);
    }
    Ok(())
}

/// Pages read while events go on coming: what was there is on exactly one of them.
async fn under_writes(sender: &Organization, sheet: &mut Sheet) -> Done {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    let mut number = INBOX_EVENTS;
    loop {
        let (page, next) = sender.inbox_page("", 7, &cursor).await?;
        seen.extend(page.iter().filter_map(Shown::number));
        // Not for ever: what comes may always be persisted before the next page is read.
        if number < 2 * INBOX_EVENTS {
            for _ in 0..3 {
                sender.accepted(&json!({"type": "t", "payload": number})).await?;
                number += 1;
            }
        }
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let first: Vec<u64> = seen.iter().copied().filter(|number| *number < INBOX_EVENTS).collect();
    let distinct: HashSet<&u64> = seen.iter().collect();
    let holds = first.len() as u64 == INBOX_EVENTS && distinct.len() == seen.len();
    let got = format!("{} of the 60, {} events on two pages", first.len(), seen.len() - distinct.len());
    let request = "GET the inbox with limit=7, to the end, while events come";
    sheet.told("pages are stable while events come", holds, "each of the 60 once", got, request);
    Ok(())
}

async fn acknowledged(bench: &Bench, [sender, other]: [&Organization; 2], id: &str, sheet: &mut Sheet) -> Done {
    let (path, inbox) = (bench.ack(id)?, bench.inbox()?);
    let foreign = other.post(&path).noting("another organisation's").send().await?;
    sheet.status("another organisation's event cannot be acknowledged: 404", &foreign, 404);
    let acknowledged = sender.post(&path).send().await?;
    sheet.status("an event is acknowledged with 200", &acknowledged, 200);
    let has = |events: &[Shown]| events.iter().any(|event| event.id.as_deref() == Some(id));
    let undelivered = sender.inbox("persisted", 1_000).await?;
    let request = format!("GET {inbox}?status=persisted, after {}", acknowledged.request);
    let clause = "an acknowledged event leaves the undelivered inbox";
    sheet.told(clause, !has(&undelivered), "an inbox without it", "it is still there", &request);
    let got = format!("{} events", undelivered.len());
    let rest = undelivered.len() as u64 >= INBOX_EVENTS - 1;
    sheet.told("nothing else leaves it", rest, "59 events at least", got, &request);
    let delivered = sender.inbox("delivered", 1_000).await?;
    let request = format!("GET {inbox}?status=delivered, after {}", acknowledged.request);
    let holds = has(&delivered) && delivered.len() == 1;
    sheet.told(
        "the inbox is filtered by status",
        holds,
        "this event alone",
        format!("{} events", delivered.len()),
        &request,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_utc_and_has_microseconds() {
        for (text, expected) in [
            ("2026-01-31T12:00:00.000001Z", true),
            ("2026-01-31T12:00:00.000001234+00:00", true),
            ("2026-01-31T12:00:00.001Z", false),
            ("2026-01-31T12:00:00Z", false),
            ("2026-01-31T12:00:00.000001+01:00", false),
            ("2026-01-31 12:00:00.000001", false),
        ] {
            assert_eq!(is_precise_utc(text), expected, "{text}");
        }
    }
}
