//! O1–O5: what whoever operates a server relies on.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::bench::{Bench, EVENTS, KEYS, KEYS_GENERATE, KEYS_ROTATE, Organization};
use super::super::door::{Exchange, Wire};
use super::super::place::{Need, Place};
use super::super::sheet::{Done, Sheet, Stop, cut};
use super::keys::NO_ID;
use crate::observe::prometheus::Scrape;

/// Metrics that every server has, by CONTRACT.md.
const METRICS: [&str; 18] = [
    "ingest_http_requests",
    "ingest_ack_seconds",
    "ingest_pending_events",
    "ingest_pending_bytes",
    "ingest_events_acknowledged",
    "ingest_events_persisted",
    "ingest_events_delivered",
    "ingest_events_duplicate",
    "ingest_events_rejected",
    "ingest_persist_seconds",
    "ingest_sql_statements",
    "ingest_polls",
    "ingest_poll_interval_seconds",
    "ingest_journal_syncs",
    "ingest_journal_sync_seconds",
    "ingest_cache_hits",
    "ingest_cache_misses",
    "ingest_cache_entries",
];
/// The finest bucket of the ingest time, s.
const FIRST_BUCKET_S: f64 = 50e-6;
/// What is counted is counted after so long at most.
const COUNT_PATIENCE: Duration = Duration::from_secs(10);
/// Traces of the inside that no answer may have.
const INSIDE: [&str; 14] = [
    "panicked",
    "Traceback",
    "stack backtrace",
    "SQLSTATE",
    "SELECT ",
    "INSERT ",
    "postgres://",
    "sqlite:",
    ".rs:",
    ".py\"",
    ".ex:",
    ".lisp",
    "/home/",
    "/usr/",
];
/// Shortest text that can say what to do, characters.
const DETAIL_CHARACTERS_MIN: usize = 12;
/// Events that are pending when the server is told to end.
const PENDING_EVENTS: u64 = 50;
/// How long it may take until nobody is let in any more.
const CLOSED_PATIENCE: Duration = Duration::from_secs(5);
/// How long a server is given to read the head of a request.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

pub async fn o1(bench: &Bench, sheet: &mut Sheet) -> Done {
    for path in ["/healthz", "/readyz", "/health"] {
        let answer = bench.main.door.get(path).noting("without a key").send().await?;
        sheet.status(&format!("{path} answers 200 without a key"), &answer, 200);
    }
    Ok(())
}

pub async fn o2(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    // A server that runs already may serve others, and is never quiet.
    let page = if bench.subject.is_ours() { quiet(&sender).await? } else { metrics(&sender).await? };
    sheet.status("metrics are answered 200", &page, 200);
    let before = Counts::of(&page);
    for number in 0..3 {
        sender.accepted(&json!({"type": "t", "payload": number, "dedup_id": number.to_string()})).await?;
    }
    sender.event(&json!({"type": "t", "payload": 0, "dedup_id": "0"})).send().await?;
    sender.event(&json!({"type": "t"})).send().await?;
    let grown = counted(&sender, &before, bench.subject.is_ours()).await?;
    for (what, by, expected) in &grown {
        // Others may ask a server that runs already.
        let holds = if bench.subject.is_ours() { by == expected } else { by >= expected };
        let expected = format!("{expected} more {what}");
        let request = "GET /metrics, before and after 3 events, a duplicate and a bad one";
        sheet.told(&format!("{what} are counted"), holds, &expected, by.to_string(), request);
    }
    named(&metrics(&sender).await?, sheet);
    let evictions = "cache evictions and webhook attempts are counted";
    sheet.untested(evictions, "there need not be any until there was one");
    Ok(())
}

/// The metrics that have to be there, once there was something to count.
fn named(page: &Exchange, sheet: &mut Sheet) {
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let has = |name: &str| text.lines().any(|line| line.strip_prefix("# TYPE ").unwrap_or(line).starts_with(name));
    let missing: Vec<&str> = METRICS.into_iter().filter(|name| !has(name)).collect();
    let told = format!("without {}", missing.join(", "));
    sheet.told("every metric of the contract is there", missing.is_empty(), "all of them", told, &page.request);
    let buckets = text.lines().filter(|line| line.starts_with("ingest_ack_seconds_bucket{"));
    let bounds = buckets.filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok());
    let first = bounds.fold(f64::INFINITY, f64::min);
    let clause = "ingest time has buckets from 50 µs";
    sheet.told(clause, first <= FIRST_BUCKET_S * 1.001, "0.00005 or less", first.to_string(), &page.request);
}

async fn metrics(sender: &Organization) -> Result<Exchange, Stop> {
    let Some(path) = &sender.door.dialect.routes.metrics else {
        return Err(Stop::Blocked("its profile has no route for it ([routes] metrics)".to_owned()));
    };
    let open = sender.door.get(path).send().await?;
    // The contract does not say that it is open.
    if open.status == 401 { sender.get(path).send().await } else { Ok(open) }
}

/// The metrics once what came before is counted: persisting goes on behind the answers.
async fn quiet(sender: &Organization) -> Result<Exchange, Stop> {
    let begin = Instant::now();
    let mut before = f64::NAN;
    loop {
        let page = metrics(sender).await?;
        let scrape = Scrape::parse(&String::from_utf8_lossy(&page.body));
        let persisted = scrape.get("ingest_events_persisted_total").unwrap_or(0.0);
        let is_idle = scrape.get("ingest_pending_events").unwrap_or(0.0) == 0.0;
        if (is_idle && persisted == before) || begin.elapsed() > COUNT_PATIENCE {
            return Ok(page);
        }
        before = persisted;
        sleep(5 * LOOK_PAUSE).await;
    }
}

/// What three events, a duplicate and a bad one change.
struct Counts {
    values: [f64; 6],
}

const COUNTED: [(&str, f64); 6] = [
    ("acknowledged events", 3.0),
    ("persisted events", 3.0),
    ("duplicates", 1.0),
    ("rejected events", 1.0),
    ("ingest times", 3.0),
    ("times to persist", 3.0),
];

impl Counts {
    fn of(page: &Exchange) -> Self {
        let scrape = Scrape::parse(&String::from_utf8_lossy(&page.body));
        let names = [
            "ingest_events_acknowledged_total",
            "ingest_events_persisted_total",
            "ingest_events_duplicate_total",
            "ingest_events_rejected_total",
            "ingest_ack_seconds_count",
            "ingest_persist_seconds_count",
        ];
        Self { values: names.map(|name| scrape.get(name).unwrap_or(0.0)) }
    }
}

/// By how much everything has grown, once that is as much as expected or the patience is used up.
async fn counted(sender: &Organization, before: &Counts, exactly: bool) -> Result<Vec<(&'static str, f64, f64)>, Stop> {
    let begin = Instant::now();
    loop {
        let now = Counts::of(&metrics(sender).await?);
        let grown = COUNTED.iter().zip(now.values.iter().zip(before.values));
        let grown: Vec<_> = grown.map(|((what, expected), (now, before))| (*what, now - before, *expected)).collect();
        let done = grown.iter().all(|(_, by, expected)| if exactly { by == expected } else { by >= expected });
        if done || begin.elapsed() > COUNT_PATIENCE {
            return Ok(grown);
        }
        sleep(LOOK_PAUSE).await;
    }
}

pub async fn o3(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let event = json!({"type": "t", "payload": 1, "dedup_id": "d"});
    sender.accepted(&event).await?;
    let door = &bench.main.door;
    let inbox = bench.inbox().unwrap_or(KEYS);
    let asks = [
        door.get(inbox).noting("without a key"),
        sender.get(&bench.event(NO_ID).unwrap_or_else(|_| format!("{EVENTS}/{NO_ID}"))),
        sender.get("/api/no/such/route"),
        door.ask(Method::PATCH, &door.dialect.ingest.path).key(&sender.key),
        sender.ingest().raw_json("{"),
        sender.ingest().raw_json(r#"{"type":"t"}"#),
        sender.ingest().raw_json("\u{0}'; DROP TABLE events; --"),
        sender.event(&event),
        sender.ingest().text("text/plain", "t"),
        sender.ingest().raw_json(format!(r#"{{"type":"t","payload":"{}"}}"#, "x".repeat(300_000))),
        sender.get(&format!("{inbox}?limit=0")),
        sender.get(&format!("{inbox}?cursor=%27%22nonsense")),
        door.post(KEYS_GENERATE).json(&json!({})),
    ];
    for ask in asks {
        let answer = ask.send().await?;
        if answer.status >= 400 {
            is_problem(&answer, sheet);
        }
    }
    Ok(())
}

fn is_problem(answer: &Exchange, sheet: &mut Sheet) {
    let kind = answer.header("content-type").unwrap_or_default();
    let typed = kind.split(';').next().unwrap_or_default().trim() == "application/problem+json";
    sheet.check("an error is application/problem+json", typed, "application/problem+json", answer);
    let body = answer.json();
    let status = body.get("status");
    let same = body.is_object() && status.is_none_or(|status| *status == json!(answer.status));
    sheet.check("an error's status is the answer's", same, format!("status {}", answer.status), answer);
    let said = body["detail"].as_str().or(body["title"].as_str()).unwrap_or_default();
    let enough = said.chars().count() >= DETAIL_CHARACTERS_MIN;
    sheet.check("an error says what to do", enough, "a detail", answer);
    let text = String::from_utf8_lossy(&answer.body);
    let leaks: Vec<&str> = INSIDE.into_iter().filter(|trace| text.contains(trace)).collect();
    sheet.check("an error leaks nothing of the inside", leaks.is_empty(), format!("nothing like {leaks:?}"), answer);
}

pub async fn o4(bench: &Bench, sheet: &mut Sheet) -> Done {
    let sender = bench.organization().await?;
    let answer = bench.main.door.get("/api/openapi.json").noting("without a key").send().await?;
    sheet.status("the document is answered 200", &answer, 200);
    let document = answer.json();
    let version = document["openapi"].as_str().unwrap_or_default();
    sheet.told("it is OpenAPI 3.1", version.starts_with("3.1"), "3.1.…", version, &answer.request);
    let documented = operations(&document);
    let contract = [
        ("post", EVENTS),
        ("post", "/api/events/batch"),
        ("get", "/api/events/{}"),
        ("get", "/api/inbox"),
        ("post", "/api/ack/{}"),
        ("post", KEYS_GENERATE),
        ("get", KEYS),
        ("post", KEYS_ROTATE),
        ("post", "/api/webhook/config"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    ];
    let missing: Vec<String> = contract
        .iter()
        .filter(|(method, path)| !documented.contains(&((*method).to_owned(), (*path).to_owned())))
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    let got = format!("without {}", missing.join(", "));
    sheet.told("it has the contract's routes", missing.is_empty(), "all of them", got, &answer.request);
    for (method, path) in &documented {
        // A key that is rotated has ended, and nothing more could be asked with it.
        if path == KEYS_ROTATE {
            continue;
        }
        let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or(Method::GET);
        let asked = bench.main.door.ask(verb, &path.replace("{}", NO_ID)).key(&sender.key).send().await?;
        let lacks = asked.status == 405 || (asked.status == 404 && !path.contains("{}"));
        sheet.check("every route that it has is there", !lacks, "anything but 404 or 405", &asked);
    }
    sheet.untested(
        "it is generated from the code",
        "from outside that cannot be seen; scripts/schemathesis compares ours with what it does",
    );
    Ok(())
}

/// Methods and paths of a document; what stands in braces is left out.
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let mut bare = String::new();
        for (at, part) in path.split('{').enumerate() {
            bare += if at == 0 {
                part.to_owned()
            } else {
                format!("{{}}{}", part.split_once('}').map_or("", |(_, rest)| rest))
            }
            .as_str();
        }
        for method in item.as_object().into_iter().flat_map(|item| item.keys()) {
            if ["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                operations.insert((method.clone(), bare.clone()));
            }
        }
    }
    operations
}

pub async fn o5(bench: &Bench, sheet: &mut Sheet) -> Done {
    let Some(place) = bench.own(Need::LatePersisting).await? else {
        return Err(Stop::Blocked(super::NOT_OURS.to_owned()));
    };
    let mut sender = bench.organization_at(&place.door, "enterprise").await?;
    let mut ids = BTreeSet::new();
    for number in 0..PENDING_EVENTS {
        ids.insert(sender.accepted(&json!({"type": "t", "payload": number})).await?);
    }
    let mut wire = place.door.wire().await?;
    let body = place.door.dialect.ingest.body.filled(r#"{"in":"flight"}"#, "in flight", "000000000000");
    let head = wire.head(&sender.key);
    let head = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    // All but its last byte. A server that says 100 is in the middle of reading it; one that never says so has had the time to be.
    wire.send(format!("{head}{}", &body[..body.len() - 1]).as_bytes()).await;
    wire.continues(CONTINUE_PATIENCE).await;
    let Some(mut own) = place.own else { return Ok(()) };
    own.ask_to_end();
    let address = place.door.address().unwrap_or_default();
    let is_closed = closed(&address).await;
    sheet.told(
        "new connections are not taken any more",
        is_closed,
        "connection refused",
        "connected",
        "SIGTERM, then connect",
    );
    let finished = finish(&mut wire, &body).await;
    let told = finished.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    sheet.told(
        "a request in flight is finished",
        finished.is_some(),
        "an answer",
        told,
        "SIGTERM in the middle of POST /api/events",
    );
    let in_flight = usize::from(finished == Some(202));
    let ended = own.ended().await?;
    let told = ended.as_ref().map_or_else(|error| cut(error), |()| "0".to_owned());
    sheet.told("it exits 0", ended.is_ok(), "exit code 0", told, "SIGTERM");
    sender.door = own.start_again(bench.subject.dialect()).await?;
    let expected = ids.len() + in_flight;
    let kept = sender.persisted_or_not(expected).await?;
    let missing = ids.iter().filter(|id| !kept.iter().any(|event| event.id.as_ref() == Some(*id))).count();
    let got = format!("{} events, {missing} acknowledged ones missing", kept.len());
    let holds = missing == 0 && kept.len() >= expected;
    let clause = "what was pending is persisted, or recovered at the next start";
    sheet.told(clause, holds, &format!("{expected} events"), got, "GET /api/inbox, after the next start");
    let got = format!("{} events", kept.len());
    sheet.told(
        "nothing of it is there twice",
        kept.len() <= ids.len() + 1,
        "each once",
        got,
        "GET /api/inbox, after the next start",
    );
    Place { door: sender.door.clone(), own: Some(own) }.end().await;
    Ok(())
}

/// Whether connections are refused before the patience is used up.
async fn closed(address: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < CLOSED_PATIENCE {
        if TcpStream::connect(address).await.is_err() {
            return true;
        }
        sleep(LOOK_PAUSE).await;
    }
    false
}

async fn finish(wire: &mut Wire, body: &str) -> Option<u16> {
    wire.send(&body.as_bytes()[body.len() - 1..]).await;
    wire.status(CLOSED_PATIENCE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_a_document_are_compared_without_the_names_of_parameters() {
        let document = json!({"paths": {"/a/{id}": {"get": {}, "parameters": []}, "/b": {"post": {}}}});
        let expected = [("get", "/a/{}"), ("post", "/b")].map(|(method, path)| (method.to_owned(), path.to_owned()));
        assert_eq!(operations(&document), BTreeSet::from(expected));
    }
}
