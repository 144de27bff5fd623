//! I1–I8: events on their way in.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::bench::{Bench, EVENTS, Organization};
use super::super::door::{Ask, Door, Exchange};
use super::super::json_text::says_the_same;
use super::super::place::{Need, Own, Place};
use super::super::sheet::{Done, Sheet, Stop, cut};
use crate::dialect::Statuses;

const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
const BATCH_EVENTS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Levels of nesting that a payload may have.
const DEPTH: usize = 128;
/// Requests at once with one `dedup_id` or one `Idempotency-Key`.
const AT_ONCE: usize = 12;
/// Events sent, so many at a time, until a server is full.
const FILL_EVENTS_MAX: usize = 320;
const FILL_AT_ONCE: usize = 32;
/// How long a refusal may take that must come before the body does.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that are sent of a body without end.
const ENDLESS_BYTES_MAX: usize = 16 * 1024 * 1024;

pub async fn i1(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let body = json!({"type": "order.created", "payload": {"n": 1}, "dedup_id": "d"});
    let sent = sender.event(&body).send().await?;
    acknowledgement(bench, &sender, &sent, sheet);
    let id = sender.id_in(&sent).unwrap_or_default();
    let location = bench.event(&id).unwrap_or_else(|_| format!("{EVENTS}/{id}"));
    let clause = "Location is where the event is found";
    let holds = sent.header("location") == Some(&location) && !id.is_empty();
    sheet.told(clause, holds, &location, sent.answer_with("location"), &sent.request);
    for payload in [json!(null), json!(true), json!(-1.5e3), json!("text"), json!([]), json!({})] {
        let sent = sender.event(&json!({"type": "t", "payload": payload})).send().await?;
        accepted("any JSON value is a payload", &sender, &sent, sheet);
    }
    let long: String = "ü😀".chars().cycle().take(255).collect();
    let sent = sender.event(&json!({"type": long, "payload": 1, "dedup_id": long})).send().await?;
    accepted("type and dedup_id may have 255 characters", &sender, &sent, sheet);
    let found = found_later(&sender, &id).await?;
    let told = found.map_or_else(|| "no event with this id".to_owned(), |(kind, payload)| format!("{kind} {payload}"));
    // Which type a body of its own form says is for its profile to know.
    let kind = if bench.has_own_bodies().is_ok() { "order.created " } else { "" };
    let holds = told.ends_with(&format!("{kind}{}", body["payload"]));
    sheet.told("the event is later found under its id", holds, "the event as it was sent", cut(&told), &location);
    sheet.untested("durability is true of a crash", "that takes kills: loadgen crash tests it");
    Ok(())
}

/// 202, or what the target's profile says in its place.
fn accepted(clause: &str, sender: &Organization, sent: &Exchange, sheet: &mut Sheet) {
    let statuses = &sender.door.dialect.ingest.statuses;
    let expected = match statuses {
        Statuses::Success => "2xx".to_owned(),
        Statuses::OneOf(all) => all.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
    };
    sheet.check(clause, statuses.contains(sent.status), expected, sent);
}

fn acknowledgement(bench: &Bench, sender: &Organization, sent: &Exchange, sheet: &mut Sheet) {
    accepted("an event is answered 202", sender, sent, sheet);
    let is_uuid = sender.id_in(sent).is_some_and(|id| Uuid::parse_str(&id).is_ok());
    sheet.check("the id is a UUID", is_uuid, "a UUID as id", sent);
    sheet.member("the status is accepted", sent, "/status", &json!("accepted"));
    let said = sender.door.dialect.ingest.durability(&sent.body).unwrap_or_default();
    let redis = ["redis-memory", "redis-os", "redis-everysec", "redis-always"];
    let words = [&["memory", "journal", "journal-os", "database"][..], &redis].concat();
    let holds = bench.subject.durability().map_or(words.contains(&said.as_str()), |known| said == known);
    let expected = bench.subject.durability().map_or_else(|| words.join(", "), str::to_owned);
    sheet.check("durability says what the acknowledgement is worth", holds, expected, sent);
    let is_json = sent.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    sheet.told("the answer is JSON", is_json, "application/json", sent.answer_with("content-type"), &sent.request);
}

/// Type and payload of an event, by its route or else by the inbox: whether both work is R1's and R2's.
async fn found_later(sender: &Organization, id: &str) -> Result<Option<(String, String)>, Stop> {
    let read = sender.event_by_id(id).await?;
    if let Some(event_type) = read.text_at("/type").filter(|_| read.is_success()) {
        return Ok(Some((event_type, read.json()["payload"].to_string())));
    }
    // An inbox that cannot be read has not shown the event either.
    let events = sender.persisted(1).await.unwrap_or_default();
    let found = events.into_iter().find(|event| event.id.as_deref() == Some(id));
    Ok(found.map(|event| {
        (event.event_type.unwrap_or_default(), event.payload.map_or(String::new(), |raw| raw.get().to_owned()))
    }))
}

/// Sends all at once; the answers in no order.
async fn at_once(requests: impl Iterator<Item = Ask>) -> Result<Vec<Exchange>, Stop> {
    let mut sent: JoinSet<_> = requests.map(Ask::send).collect();
    let mut answers = Vec::new();
    while let Some(answer) = sent.join_next().await {
        answers.push(answer.map_err(|error| Stop::Blocked(error.to_string()))??);
    }
    Ok(answers)
}

pub async fn i2(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let body = json!({"type": "t", "payload": 1, "dedup_id": "d"});
    let first = sender.accepted(&body).await?;
    let again = sender.event(&body).send().await?;
    sheet.status("the same dedup_id again is answered 409", &again, 409);
    let names = |seen: &Exchange, id: &str| seen.status == 409 && String::from_utf8_lossy(&seen.body).contains(id);
    sheet.check("the 409 names the first event's id", names(&again, &first), format!("409 with {first}"), &again);
    let other_payload = sender.event(&json!({"type": "t", "payload": 2, "dedup_id": "d"})).send().await?;
    sheet.status("the same dedup_id with another payload is answered 409", &other_payload, 409);
    let elsewhere = bench.organization().await?.event(&body).send().await?;
    sheet.check("another organisation may use the same", elsewhere.is_success(), "2xx", &elsewhere);
    for round in 0..5 {
        let body = json!({"type": "t", "payload": round, "dedup_id": format!("at once {round}")});
        let answers = at_once((0..AT_ONCE).map(|_| sender.event(&body))).await?;
        let accepted: Vec<&Exchange> = answers.iter().filter(|answer| answer.is_success()).collect();
        let id = accepted.first().and_then(|answer| sender.id_in(answer)).unwrap_or_default();
        let named = answers.iter().filter(|answer| names(answer, &id)).count();
        let got = format!("{} accepted, {named} answered 409 with its id", accepted.len());
        let holds = accepted.len() == 1 && named == AT_ONCE - 1;
        let expected = format!("1 accepted, {} answered 409 with its id", AT_ONCE - 1);
        sheet.told("of several in flight exactly one is accepted", holds, &expected, got, &answers[0].request);
    }
    sheet.untested("it is remembered for 24 h", "that takes 24 h");
    sheet.untested(
        "a duplicate is never acknowledged before the original is as durable",
        "that takes kills: loadgen crash tests it",
    );
    across_a_restart(bench, sheet).await?;
    let kept = sender.persisted(6).await?;
    let got = format!("{} events", kept.len());
    sheet.told("of each dedup_id one event is persisted", kept.len() == 6, "6 events", got, "GET /api/inbox");
    Ok(())
}

async fn across_a_restart(bench: &Bench, sheet: &mut Sheet) -> Done {
    const CLAUSE: &str = "a dedup_id is remembered across a restart";
    let Some(place) = bench.own(Need::LatePersisting).await? else {
        sheet.untested(CLAUSE, super::NOT_OURS);
        return Ok(());
    };
    let mut sender = bench.organization_at(&place.door, "enterprise").await?;
    let body = json!({"type": "t", "payload": 1, "dedup_id": "d"});
    let first = sender.accepted(&body).await?;
    let Some(mut own) = place.own else { return Ok(()) };
    sender.door = restarted(&mut own, bench).await?;
    let again = sender.event(&body).noting("after a restart").send().await?;
    let named = again.status == 409 && String::from_utf8_lossy(&again.body).contains(&first);
    sheet.check(CLAUSE, named, format!("409 with {first}"), &again);
    Place { door: sender.door, own: Some(own) }.end().await;
    Ok(())
}

/// Ends the server as it should be ended, and starts it again. Whether it ended well is O5's.
async fn restarted(own: &mut Own, bench: &Bench) -> Result<Door, Stop> {
    own.ask_to_end();
    own.ended().await?.ok();
    Ok(own.start_again(bench.subject.dialect()).await?)
}

pub async fn i3(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let send = |sender: &Organization, key: &str, payload: u64| {
        sender.event(&json!({"type": "t", "payload": payload})).header("idempotency-key", key)
    };
    let once = send(&sender, "k", 1);
    let first = once.clone().send().await?;
    let again = once.send().await?;
    let same = (again.status, &again.body) == (first.status, &first.body);
    let clause = "a retry with the same key and body gets the first answer again";
    sheet.check(clause, same && first.is_success(), first.answer(), &again);
    let other = send(&sender, "k", 2).send().await?;
    sheet.status("another body with the same key is answered 422", &other, 422);
    let new = send(&sender, "k2", 1).send().await?;
    let differs = new.is_success() && sender.id_in(&new) != sender.id_in(&first);
    sheet.check("another key with the same body is another event", differs, "another id", &new);
    let elsewhere = send(&bench.organization().await?, "k", 2).send().await?;
    let differs = elsewhere.is_success() && sender.id_in(&elsewhere) != sender.id_in(&first);
    sheet.check("another organisation may use the same key", differs, "2xx and another id", &elsewhere);
    let once = send(&sender, "at once", 3);
    let answers = at_once((0..AT_ONCE).map(|_| once.clone())).await?;
    let distinct: HashSet<(u16, &[u8])> = answers.iter().map(|answer| (answer.status, &answer.body[..])).collect();
    let holds = distinct.len() == 1 && answers[0].is_success();
    let got = format!("{} different answers", distinct.len());
    sheet.told("retries in flight at once get one answer", holds, "1 answer, 2xx", got, &answers[0].request);
    let kept = sender.persisted(3).await?;
    let got = format!("{} events", kept.len());
    sheet.told("a retry makes no second event", kept.len() == 3, "3 events", got, "GET /api/inbox");
    Ok(())
}

pub async fn i4(bench: &Bench, sheet: &mut Sheet) -> Done {
    bench.has_own_bodies()?;
    let sender = bench.organization().await?;
    let long = "x".repeat(256);
    let bodies = [
        (r#"{"payload":1}"#.to_owned(), "type"),
        (r#"{"type":"","payload":1}"#.to_owned(), "type"),
        (r#"{"type":7,"payload":1}"#.to_owned(), "type"),
        (r#"{"type":null,"payload":1}"#.to_owned(), "type"),
        (format!(r#"{{"type":"{long}","payload":1}}"#), "type"),
        (r#"{"type":"t"}"#.to_owned(), "payload"),
        (r#"{"type":"t","payload":1,"dedup_id":7}"#.to_owned(), "dedup_id"),
        (r#"{"type":"t","payload":1,"dedup_id":""}"#.to_owned(), "dedup_id"),
        (format!(r#"{{"type":"t","payload":1,"dedup_id":"{long}"}}"#), "dedup_id"),
    ];
    for (body, field) in bodies {
        let refused = sender.ingest().raw_json(body).send().await?;
        sheet.status("a missing, empty or wrong field is answered 400", &refused, 400);
        let named = refused.status != 400 || names_field(&refused.json(), field);
        sheet.check("the 400 names the field", named, format!("an answer that names '{field}'"), &refused);
    }
    for body in [
        &b"{\"type\":\"t\",\"payload\":1"[..],
        b"",
        b"[\"t\",1]",
        b"{'type':'t'}",
        b"{\"type\":\"t\",\"payload\":\"\xff\"}",
    ] {
        let refused = sender.ingest().raw_json(body.to_vec()).send().await?;
        sheet.status("malformed JSON is answered 400", &refused, 400);
    }
    sender.accepted(&json!({"type": "the only good one", "payload": 1})).await?;
    let kept = sender.persisted(1).await?;
    let holds = kept.len() == 1 && kept[0].event_type.as_deref() == Some("the only good one");
    let got = format!("{} events", kept.len());
    sheet.told("nothing of what was refused is kept", holds, "the one good event", got, "GET /api/inbox");
    Ok(())
}

/// Whether any text of a problem, other than its `type`, has the field's name in it.
fn names_field(problem: &Value, field: &str) -> bool {
    let Some(members) = problem.as_object() else { return false };
    let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == field);
    members.iter().filter(|(name, _)| *name != "type").any(|(_, value)| word(&value.to_string()))
}

pub async fn i5(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let sized = |bytes: usize| sender.event_with(&format!("\"{}\"", "x".repeat(bytes - 2)));
    let fits = sized(PAYLOAD_BYTES_MAX).noting("a payload of 256 KiB").send().await?;
    sheet.check("a payload of 256 KiB is taken", fits.is_success(), "2xx", &fits);
    for bytes in [PAYLOAD_BYTES_MAX + 1, 3 * 1024 * 1024] {
        let note = format!("a payload of {bytes} bytes");
        let refused = sized(bytes).noting(&note).send().await?;
        sheet.status("a payload over 256 KiB is answered 413", &refused, 413);
    }
    let event = sender.body_with(r#"{"n":1}"#);
    let typed = [
        sender.ingest().text("text/plain", event.clone()),
        sender.ingest().text("application/x-www-form-urlencoded", event.clone()),
        sender.ingest().bytes(event.clone()).noting("without a content type"),
    ];
    for attempt in typed {
        let refused = attempt.send().await?;
        sheet.status("another content type is answered 415", &refused, 415);
    }
    let with_charset = sender.ingest().text("application/json; charset=utf-8", event).send().await?;
    sheet.check("a content type may have parameters", with_charset.is_success(), "2xx", &with_charset);
    refused_unread(&sender, sheet).await
}

/// What is refused is not read to its end first.
async fn refused_unread(sender: &Organization, sheet: &mut Sheet) -> Done {
    const CLAUSE: &str = "what is refused is not buffered";
    let mut wire = match sender.door.wire().await {
        Err(Stop::Blocked(reason)) => {
            sheet.untested(CLAUSE, &reason);
            return Ok(());
        }
        wire => wire?,
    };
    let head = format!("{}content-length: 10000000000\r\n\r\n{{", wire.head(&sender.key));
    wire.send(head.as_bytes()).await;
    let status = wire.status(REFUSAL_PATIENCE).await;
    let told = |status: Option<u16>| status.map_or("no answer".to_owned(), |status| status.to_string());
    let request = "POST /api/events of which 10 GB are announced and one byte is sent";
    sheet.told(CLAUSE, status == Some(413), "413", told(status), request);

    let mut wire = sender.door.wire().await?;
    wire.send(format!("{}transfer-encoding: chunked\r\n\r\n", wire.head(&sender.key)).as_bytes()).await;
    let chunk = [b"8000\r\n".as_slice(), &[b' '; 0x8000], b"\r\n"].concat();
    for _ in 0..ENDLESS_BYTES_MAX / 0x8000 {
        if !wire.send(&chunk).await {
            break;
        }
    }
    let status = wire.status(REFUSAL_PATIENCE).await;
    // A refusal that was sent while bytes still came may be lost with the connection.
    let holds = matches!(status, Some(413) | None);
    sheet.told(CLAUSE, holds, "413, or a closed connection", told(status), "POST /api/events in chunks without end");
    Ok(())
}

pub async fn i6(bench: &Bench, sheet: &mut Sheet) -> Done {
    let own = bench.own(Need::SmallBounds).await?;
    let door = own.as_ref().map_or(&bench.main.door, |place| &place.door);
    let sender = bench.organization_at(door, "enterprise").await?;
    let (mut accepted, mut refused) = (Vec::new(), None);
    for round in 0..FILL_EVENTS_MAX / FILL_AT_ONCE {
        let event = |number: usize| sender.event(&json!({"type": "t", "payload": round * FILL_AT_ONCE + number}));
        for answer in at_once((0..FILL_AT_ONCE).map(event)).await? {
            if answer.is_success() {
                accepted.push(sender.id_in(&answer).unwrap_or_default());
            } else {
                refused.get_or_insert(answer);
            }
        }
        if refused.is_some() {
            break;
        }
    }
    match &refused {
        Some(refused) => {
            sheet.status("a server that cannot take more says 503", refused, 503);
            let has = refused.header("retry-after").is_some_and(|text| !text.is_empty());
            sheet.told(
                "the 503 has Retry-After",
                has,
                "Retry-After",
                refused.answer_with("retry-after"),
                &refused.request,
            );
        }
        None => {
            let reason = format!("it took {} events, {FILL_AT_ONCE} at a time, and was not full", accepted.len());
            sheet.untested("a server that cannot take more says 503, with Retry-After", &reason);
        }
    }
    let clause = "what it acknowledges meanwhile is kept";
    let missing = missing(&sender, &accepted).await?;
    let got = format!("{missing} of {} are not there", accepted.len());
    sheet.told(clause, missing == 0, "every acknowledged event in the inbox", got, "GET /api/inbox");
    if let Some(place) = own {
        place.end().await;
    }
    Ok(())
}

/// How many of these events the inbox does not have, once it should have all.
async fn missing(sender: &Organization, ids: &[String]) -> Result<usize, Stop> {
    let kept = sender.persisted_or_not(ids.len()).await?;
    let kept: HashSet<String> = kept.into_iter().filter_map(|event| event.id).collect();
    Ok(ids.iter().filter(|id| !kept.contains(*id)).count())
}

pub async fn i7(bench: &Bench, sheet: &mut Sheet) -> Done {
    bench.has_own_bodies()?;
    let batch = bench.batch()?;
    let sender = bench.organization().await?;
    for (kind, prefix) in [("application/json", "a"), ("application/x-ndjson", "l")] {
        let items = [
            json!({"type": format!("{prefix}0"), "payload": 0}),
            json!({"type": "", "payload": 1}),
            json!({"type": format!("{prefix}2"), "payload": 2, "dedup_id": prefix}),
            json!({"payload": 3}),
            json!({"type": format!("{prefix}4"), "payload": 4, "dedup_id": prefix}),
            json!({"type": format!("{prefix}5"), "payload": 5}),
        ];
        let body = match kind {
            "application/json" => json!(items).to_string(),
            _ => items.iter().map(|item| format!("{item}\n")).collect(),
        };
        let answer = sender.post(batch).text(kind, body).send().await?;
        sheet.status("a batch is answered 207", &answer, 207);
        let statuses: Vec<u64> = results(&answer).iter().filter_map(|result| result["status"].as_u64()).collect();
        let clause = match kind {
            "application/json" => "each item of an array has its own status, in order",
            _ => "each line of NDJSON has its own status, in order",
        };
        let expected = [202, 400, 202, 400, 409, 202];
        sheet.check(clause, statuses == expected, format!("results with {expected:?}"), &answer);
        found_in_order(&sender, prefix, &answer, sheet).await?;
    }
    let line = "{\"type\":\"t\",\"payload\":1}\n";
    let full = sender.post(batch).text("application/x-ndjson", line.repeat(BATCH_EVENTS_MAX)).send().await?;
    let accepted = results(&full).iter().filter(|result| result["status"] == 202).count();
    sheet.check("1,000 events are taken", accepted == BATCH_EVENTS_MAX, "1,000 results with 202", &full);
    let more = sender.post(batch).text("application/x-ndjson", line.repeat(BATCH_EVENTS_MAX + 1)).send().await?;
    sheet.check("more than 1,000 events are refused", more.is_refusal(), "413", &more);
    let large = sender.post(batch).text("application/x-ndjson", " ".repeat(BATCH_BYTES_MAX + 1)).send().await?;
    sheet.check("more than 4 MiB are refused", large.is_refusal(), "413", &large);
    Ok(())
}

/// The results of a batch: the body itself, or its member `results`.
fn results(answer: &Exchange) -> Vec<Value> {
    let body = answer.json();
    body["results"].as_array().or(body.as_array()).cloned().unwrap_or_default()
}

async fn found_in_order(sender: &Organization, prefix: &str, answer: &Exchange, sheet: &mut Sheet) -> Done {
    let results = results(answer);
    for (at, result) in results.iter().enumerate().filter(|(_, result)| result["status"] == 202) {
        let id = result["id"].as_str().unwrap_or_default();
        let found = found_later(sender, id).await?.map(|(event_type, _)| event_type);
        let expected = format!("{prefix}{at}");
        let holds = found.as_deref() == Some(&expected);
        let got = found.unwrap_or_else(|| format!("no event {id}"));
        sheet.told("each accepted item is found under its result's id", holds, &expected, got, &answer.request);
    }
    Ok(())
}

pub async fn i8(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let deep = format!("{}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let payloads = [
        ("Unicode comes back", r#""é \u00e9 😀 \ud83d\ude00 \u2028 中 \" \\ \/ \u0001""#),
        ("Unicode comes back", r#"{"ключ":"значение"}"#),
        ("128 levels come back", deep.as_str()),
        ("big numbers come back", "[123456789012345678901234567890,1.00000000000000000000000000001,-9007199254740993]"),
        ("big numbers come back", "1e400"),
        ("duplicate keys come back, in order", r#"{"b":1,"a":2,"b":3,"c":{"a":1,"a":[]}}"#),
        ("null comes back", "null"),
    ];
    let mut ids = Vec::new();
    for (clause, payload) in payloads {
        let sent = sender.event_with(payload).send().await?;
        sheet.check(clause, sent.is_success(), "the payload taken in", &sent);
        ids.push(sender.id_in(&sent).unwrap_or_default());
    }
    let taken = ids.iter().filter(|id| !id.is_empty()).count();
    let kept = sender.persisted(taken).await?;
    for ((clause, payload), id) in payloads.iter().zip(&ids).filter(|(_, id)| !id.is_empty()) {
        let event = kept.iter().find(|event| event.id.as_ref() == Some(id));
        let shown = event.and_then(|event| Some(event.payload.as_ref()?.get().to_owned()));
        let shown = shown.unwrap_or_else(|| "null".to_owned());
        let holds = event.is_some() && says_the_same(&shown, payload);
        sheet.told(clause, holds, &cut(payload), cut(&shown), "GET /api/inbox");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_by_a_word_of_any_member_but_type() {
        for (problem, field, expected) in [
            (json!({"type": "urn:x", "field": "type"}), "type", true),
            (json!({"type": "urn:type", "detail": "wrong"}), "type", false),
            (json!({"detail": "'dedup_id' is too long"}), "dedup_id", true),
            (json!({"detail": "typed wrongly"}), "type", false),
            (json!({"errors": [{"loc": ["body", "payload"]}]}), "payload", true),
            (json!("payload"), "payload", false),
        ] {
            assert_eq!(names_field(&problem, field), expected, "{problem}");
        }
    }
}
