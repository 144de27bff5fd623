//! A server that was told to lie does so exactly as it was told, says so everywhere, and lies to nobody else.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use server::config::Mode;
use server::fault::{self, hits};

use crate::{At, Sender, Server, everywhere, read};

everywhere! {
    what_is_dropped_doubled_or_corrupted_is_what_the_rule_says_and_stays_so_after_a_restart
    what_is_refused_or_left_without_an_answer_is_what_the_rule_says
    each_item_of_a_batch_has_its_own_fault
    time_passes_as_it_was_told_to
    what_is_done_more_than_needed_is_done_and_counted
}

const EVENTS: usize = 120;
const SHARE: f64 = 0.2;

impl At {
    fn with_faults(mut self, faults: &str) -> Self {
        self.settings.fault = vec![faults.parse().expect(faults)];
        self
    }
}

fn dedup_id(number: usize) -> String {
    format!("e-{number:03}")
}

fn body(number: usize) -> Value {
    // The text last, whatever order serde_json keeps: what corrupts an event changes its last letter.
    json!({"type": "t", "dedup_id": dedup_id(number), "payload": {"number": number, "text": "as sent"}})
}

/// Numbers of the events that this fault hits.
fn hit(name: &str) -> Vec<usize> {
    let hit: Vec<usize> = (0..EVENTS).filter(|n| hits(1, name, SHARE, dedup_id(*n).as_bytes())).collect();
    assert!(!hit.is_empty() && hit.len() < EVENTS, "{name} must hit some and not all");
    hit
}

fn numbers<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<usize> {
    let mut numbers: Vec<usize> =
        events.into_iter().map(|event| event["payload"]["number"].as_u64().expect("a number") as usize).collect();
    numbers.sort_unstable();
    numbers
}

fn without(all: impl IntoIterator<Item = usize>, some: &[usize]) -> Vec<usize> {
    all.into_iter().filter(|number| !some.contains(number)).collect()
}

async fn what_is_dropped_doubled_or_corrupted_is_what_the_rule_says_and_stays_so_after_a_restart(at: At) {
    let at = at.with_faults("drop=0.2,duplicate=0.2;corrupt=0.2");
    let (server, sender) = at.ready().await;
    for number in 0..EVENTS {
        sender.accepted(body(number)).await;
    }
    let (status, problem) = sender.event(body(hit("drop")[0])).await;
    assert_eq!(status, StatusCode::CONFLICT, "a dropped event has taken its dedup_id all the same: {problem}");
    let kept = without(0..EVENTS, &hit("drop"));
    let doubled: Vec<usize> = kept.iter().copied().filter(|number| hit("duplicate").contains(number)).collect();
    let inbox = sender.persisted(kept.len() + doubled.len()).await;
    let stopped = server.shutdown().await;
    assert_eq!(stopped.unpersisted_events, 0);

    let honest = At { settings: server::config::Settings { fault: Vec::new(), ..at.settings.clone() }, ..at };
    let server = honest.start();
    let again = server.sender(&sender.key).inbox(1000).await;
    assert_eq!(again, inbox, "no restart brings anything back");

    let (copies, originals): (Vec<&Value>, Vec<&Value>) = inbox.iter().partition(|event| event["dedup_id"].is_null());
    assert_eq!(numbers(originals.iter().copied()), kept);
    assert_eq!(numbers(copies.iter().copied()), doubled);
    let as_sent = |event: &&Value| event["payload"]["text"] == "as sent";
    let corrupted = numbers(originals.iter().copied().filter(|event| !as_sent(event)));
    let expected: Vec<usize> = kept.iter().copied().filter(|number| hit("corrupt").contains(number)).collect();
    assert_eq!(corrupted, expected);
    assert!(copies.iter().all(as_sent), "copies are as they were sent");
}

async fn what_is_refused_or_left_without_an_answer_is_what_the_rule_says(at: At) {
    let at = at.with_faults("status=507:0.2,close-before=0.2,close-after=0.2");
    let (server, sender) = at.ready().await;
    let refused = hit("status");
    let closed_before = without(hit("close-before"), &refused);
    let taken = without(0..EVENTS, &[&refused[..], &closed_before].concat());
    let closed_after: Vec<usize> = taken.iter().copied().filter(|number| hit("close-after").contains(number)).collect();
    for number in 0..EVENTS {
        let request = sender.request("POST", "/api/events").header("content-type", "application/json");
        match request.body(body(number).to_string()).send().await {
            Err(_) => assert!(closed_before.contains(&number) || closed_after.contains(&number), "{number}"),
            Ok(answer) => {
                let expected = if refused.contains(&number) { 507 } else { 202 };
                assert_eq!(read(answer).await.0.as_u16(), expected, "{number}");
                assert!(!closed_before.contains(&number) && !closed_after.contains(&number), "{number} got an answer");
            }
        }
    }
    assert_eq!(numbers(&sender.persisted(taken.len()).await), taken);
    let page = server.get("/metrics").await.text().await.unwrap();
    for (series, count) in [
        ("ingest_faults_injected_total{fault=\"status\"}", refused.len()),
        ("ingest_faults_injected_total{fault=\"close-before\"}", closed_before.len()),
        ("ingest_faults_injected_total{fault=\"close-after\"}", closed_after.len()),
        ("ingest_http_requests_total{route=\"/api/events\",status=\"444\"}", closed_before.len() + closed_after.len()),
        ("ingest_events_acknowledged_total", taken.len()),
    ] {
        assert!(page.contains(&format!("{series} {count}\n")), "{series} is not {count} in\n{page}");
    }
}

async fn each_item_of_a_batch_has_its_own_fault(at: At) {
    let at = at.with_faults("status=503:0.2,drop=0.2,close-after=0.2");
    let (_server, sender) = at.ready().await;
    let spared = without(0..EVENTS, &hit("close-after"));
    let batch: Vec<Value> = spared.iter().map(|number| body(*number)).collect();
    let (status, answer) = sender.post("/api/events/batch", json!(batch).to_string()).await;
    assert_eq!(status, StatusCode::MULTI_STATUS);
    for (number, result) in spared.iter().zip(answer["results"].as_array().unwrap()) {
        assert_eq!(result["status"], if hit("status").contains(number) { 503 } else { 202 }, "{number}: {result}");
    }
    let kept = without(without(spared, &hit("status")), &hit("drop"));
    assert_eq!(numbers(&sender.persisted(kept.len()).await), kept);

    let closing = without(hit("close-after"), &[hit("status"), hit("drop")].concat());
    let batch: Vec<Value> = closing.iter().map(|number| body(*number)).collect();
    let request = sender.request("POST", "/api/events/batch").header("content-type", "application/json");
    assert!(
        request.body(json!(batch).to_string()).send().await.is_err(),
        "one item without an answer takes it from all"
    );
    assert_eq!(sender.persisted(kept.len() + closing.len()).await.len(), kept.len() + closing.len());
}

/// How long it took until the answers of requests that were sent at the same time.
async fn times(sender: &Sender, numbers: std::ops::Range<usize>) -> Vec<Duration> {
    let begin = Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for number in numbers {
        let sender = sender.clone();
        sending.spawn(async move {
            sender.accepted(body(number)).await;
            begin.elapsed()
        });
    }
    let mut times = sending.join_all().await;
    times.sort_unstable();
    times
}

async fn time_passes_as_it_was_told_to(at: At) {
    let ms = Duration::from_millis;
    let at = at.with_faults("service-time=constant:50ms,queue=one");
    let (server, sender) = at.ready().await;
    let queued = times(&sender, 0..4).await;
    for (place, time) in queued.iter().enumerate() {
        assert!(*time >= ms(50) * (place as u32 + 1), "{queued:?}");
    }
    let _ = server.shutdown().await;
    // What is true at least: a machine may always be slower. How exact it is, the load generator's tests of truth tell.
    for (faults, least) in [
        ("service-time=constant:50ms", [50, 50]),
        ("stall=300ms@0s", [300, 300]),
        ("ack-delay=80ms:1", [80, 80]),
        ("cpu=5ms", [5, 10]),
    ] {
        let mut at = At::new(at.settings.mode, crate::fresh_sqlite(Default::default()).await);
        at.settings.database = at.fresh.database.clone();
        at.settings.limits.http_threads = 1;
        let at = at.with_faults(faults);
        let (_server, sender) = at.ready().await;
        let taken = times(&sender, 0..2).await;
        assert!(taken[0] >= ms(least[0]) && taken[1] >= ms(least[1]), "{faults}: {taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_lets_so_many_through_and_refuses_the_others() {
    let at = At::cache_first_sqlite().await.with_faults("throttle=3/s");
    let (_server, sender) = at.ready().await;
    let begin = Instant::now();
    let mut statuses = Vec::new();
    for number in 0..10 {
        statuses.push(sender.event(body(number)).await.0.as_u16());
    }
    if begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(statuses, [vec![202; 3], vec![429; 7]].concat());
    }
    // However slow the machine is: some of the first second is refused, and another second lets more through.
    crate::eventually(async || (sender.event(body(10)).await.0 == StatusCode::ACCEPTED).then_some(())).await;
}

/// A server that keeps nothing and lies all the same.
async fn null(faults: &str) -> (At, Server) {
    let mut at = At::cache_first_sqlite().await.with_faults(faults);
    at.settings.mode = Mode::Null;
    let server = at.start();
    (at, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_has_all_faults_that_are_not_about_keeping() {
    let (_at, server) = null("service-time=constant:20ms,status=500:0.2,close-after=0.2,ack-delay=30ms:1").await;
    let (refused, closed) = (hit("status"), hit("close-after"));
    for number in 0..EVENTS {
        let begin = Instant::now();
        let answer = server.client.post(server.url("/api/events")).body(body(number).to_string()).send().await;
        let least = if refused.contains(&number) { 20 } else { 50 };
        assert!(begin.elapsed() >= Duration::from_millis(least), "{number}");
        let status = answer.map(|answer| answer.status().as_u16()).ok();
        let expected = match number {
            _ if refused.contains(&number) => Some(500),
            _ if closed.contains(&number) => None,
            _ => Some(202),
        };
        assert_eq!(status, expected, "{number}");
    }
    let (_at, server) = null("status=500:1").await;
    assert_eq!(server.client.post(server.url("/api/events")).body("no JSON").send().await.unwrap().status(), 500);
}

async fn what_is_done_more_than_needed_is_done_and_counted(at: At) {
    let at = at.with_faults("store-commit=30,journal-sync=40");
    let is_journalled = at.settings.mode == Mode::JournalFirst;
    let (server, sender) = at.ready().await;
    sender.accepted(body(0)).await;
    sender.persisted(1).await;
    // The event can be seen before the commits that follow it are through.
    let commits = "ingest_sql_statements_total{kind=\"other\"}";
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.metric(commits).await < 30.0 {
        assert!(Instant::now() < deadline, "{}", server.metric(commits).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.metric("ingest_journal_syncs_total").await >= 41.0, is_journalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_and_the_metrics_say_that_it_lies_and_it_is_ready_all_the_same() {
    let at = At::cache_first_sqlite().await.with_faults("stall=10s@0s,drop=1");
    let (server, sender) = at.ready().await;
    let stalled = tokio::spawn({
        let sender = sender.clone();
        async move { sender.event(body(0)).await }
    });
    for path in ["/healthz", "/readyz", "/metrics", "/nowhere", "/api/inbox"] {
        let answer = server.get(path).await;
        assert_eq!(answer.headers()[fault::HEADER], "stall=10s@0s;drop=1", "{path}");
        assert_eq!(answer.status() == StatusCode::OK, !["/nowhere", "/api/inbox"].contains(&path), "{path}");
    }
    let page = server.get("/metrics").await.text().await.unwrap();
    assert!(page.contains("faults=\"stall=10s@0s;drop=1\"} 1\n"), "{page}");
    assert!(!stalled.is_finished(), "only event requests stand still");
    stalled.abort();

    let honest = At::cache_first_sqlite().await;
    let (server, sender) = honest.ready().await;
    let answer = sender.request("GET", "/api/inbox").send().await.unwrap();
    assert!(!answer.headers().contains_key(fault::HEADER));
    let page = server.get("/metrics").await.text().await.unwrap();
    assert!(page.contains("faults=\"\"} 1\n") && !page.contains("ingest_faults_injected_total{"), "{page}");
}

#[test]
fn the_log_begins_with_a_warning_and_faults_can_come_from_the_environment() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ingest-server"))
        .args(["serve", "--listen", "127.0.0.1:0", "--mode", "null", "--exit-with-stdin", "--fault", "queue=one"])
        .env("INGEST_FAULT", "drop=2")
        .args(["--fault", "service-time=constant:1ms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on"), "flags win over the environment: {line:?}");
    drop(child.stdin.take());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success());
    let first = log.lines().next().unwrap_or_default();
    for part in ["WARN", "FAULTS ARE INJECTED", "queue=one;service-time=constant:1ms"] {
        assert!(first.contains(part), "{part} in {first}");
    }

    let refused = Command::new(env!("CARGO_BIN_EXE_ingest-server"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("INGEST_FAULT", "queue=one;drop=2")
        .output()
        .expect("it runs");
    let log = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(log.contains("'drop=2': '2' is not a share from 0 to 1; write drop=SHARE, for example drop=0.01"), "{log}");
}
