//! The client's side of the truth: what was sent, what was acknowledged, and whether the server has it in the end.
//!
//! A sender does what a good one does: an event with a `dedup_id` that was refused or left without an answer is sent again
//! until it is acknowledged (a 409 that names an id is such an answer); one without is given up.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::process::{Footprint, Server};
use crate::{PATIENCE, eventually};

/// What kind of load: how many connections, how hard.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections that send event after event, each with one request in flight.
    pub singles: usize,
    /// Connections that send batch after batch.
    pub batchers: usize,
    /// Between two requests of a sender.
    pub pause: Duration,
    /// Bytes of text in each payload.
    pub text_bytes: usize,
    /// Events of a batch.
    pub batch_events: usize,
}

impl Default for Plan {
    fn default() -> Self {
        // Up to 800 + 400 events a second, which leaves room for other tests on two cores.
        Self { singles: 8, batchers: 1, pause: Duration::from_millis(10), text_bytes: 64, batch_events: 20 }
    }
}

/// How long a sender that was refused waits; `Retry-After` says whole seconds, and tests have none to spare.
const REFUSED_PAUSE: Duration = Duration::from_millis(25);
/// Those of [`Server::client`]: the one it keeps, and one that it may open for the request that asks how many there are.
const CONNECTIONS_OF_TEST: f64 = 2.0;
/// How long it waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What was sent and what became of it. Shared by the senders.
#[derive(Default)]
pub struct Ledger {
    numbers: AtomicU64,
    acknowledged: Mutex<BTreeMap<u64, String>>,
    sent: Mutex<HashSet<u64>>,
    violations: Mutex<Vec<String>>,
    refused: Mutex<BTreeMap<(u16, String), u64>>,
    unanswered: AtomicU64,
    text_bytes: AtomicU64,
}

/// What a reconciliation found; all of it was checked already.
#[derive(Clone, Debug)]
pub struct Reconciled {
    pub acknowledged: usize,
    pub persisted: usize,
    /// By status and name of the problem.
    pub refused: BTreeMap<(u16, String), u64>,
    pub unanswered: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no sender panics with it")
}

impl Ledger {
    fn event(&self, number: u64) -> Value {
        let text = "x".repeat(usize::try_from(self.text_bytes.load(Ordering::Relaxed)).expect("a length"));
        let mut event = json!({"type": "fault.test", "payload": {"number": number, "text": text}});
        if has_dedup_id(number) {
            event["dedup_id"] = json!(format!("e-{number}"));
        }
        event
    }

    fn next(&self) -> (u64, Value) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        locked(&self.sent).insert(number);
        (number, self.event(number))
    }

    fn violated(&self, what: String) {
        locked(&self.violations).push(what);
    }

    /// How many events are acknowledged by now.
    pub fn acknowledged(&self) -> usize {
        locked(&self.acknowledged).len()
    }

    pub fn refused(&self) -> u64 {
        locked(&self.refused).values().sum()
    }

    /// How often the problem of this name was the answer.
    pub fn refused_with(&self, name: &str) -> u64 {
        locked(&self.refused).iter().filter(|((_, problem), _)| problem == name).map(|(_, count)| count).sum()
    }

    /// Takes in what the server said of one event; whether that was the last word.
    fn answered(&self, number: u64, status: u16, body: &Value, first_try: bool) -> bool {
        match (status, body["id"].as_str()) {
            (202, Some(id)) => self.acknowledge(number, id),
            // The answer to an earlier try was lost, or was an error after the commit.
            (409, Some(id)) if !first_try => self.acknowledge(number, id),
            (503 | 429, _) => {
                let name = body["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default();
                *locked(&self.refused).entry((status, name.to_owned())).or_default() += 1;
                return false;
            }
            _ => self.violated(format!("event {number} was answered {status} {body}")),
        }
        true
    }

    fn acknowledge(&self, number: u64, id: &str) {
        if let Some(other) = locked(&self.acknowledged).insert(number, id.to_owned()) {
            self.violated(format!("event {number} was acknowledged twice: {other} and {id}"));
        }
    }

    /// Waits until the server has persisted what it has, and holds that against what was acknowledged: each once, whole, and
    /// nothing else; no 500, no refusal without its form, no panic.
    pub async fn reconcile(&self, server: &Server, key: &str) -> Reconciled {
        self.reconcile_but(server, key, 0).await
    }

    /// The inbox once it has all that was acknowledged, or as it is when that does not happen in time: on PostgreSQL it shows
    /// nothing that is younger than a transaction which is still open, be it of another database.
    async fn all_there(&self, server: &Server, key: &str, lost_and_said: usize, patience: Duration) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let rows = inbox(server, key).await;
            let lost = missing(&locked(&self.acknowledged), &rows).len();
            if lost <= lost_and_said || started.elapsed() > patience {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Like [`Ledger::reconcile`], where the server has said by number how many of its acknowledgements are lost.
    pub async fn reconcile_but(&self, server: &Server, key: &str, lost_and_said: usize) -> Reconciled {
        let (found, mut wrong) = self.examine(server, key, lost_and_said, PATIENCE).await;
        let count = wrong.len();
        wrong.truncate(10);
        assert!(
            wrong.is_empty(),
            "{count} things are wrong, first {wrong:#?}\nlog:\n{}",
            last_lines(&server.log(), 60)
        );
        found
    }

    /// What there is, and everything that is wrong with it. What was acknowledged has `patience` to appear.
    pub async fn examine(
        &self,
        server: &Server,
        key: &str,
        lost_and_said: usize,
        patience: Duration,
    ) -> (Reconciled, Vec<String>) {
        eventually("nothing is pending and the server is ready", async || {
            let pending = server.metric("ingest_pending_events").await? + server.metric("ingest_pending_bytes").await?;
            (pending == 0.0 && server.is_ready().await).then_some(())
        })
        .await;
        let rows = self.all_there(server, key, lost_and_said, patience).await;
        let mut wrong = locked(&self.violations).clone();
        let (mut ids, mut numbers) = (HashSet::new(), HashSet::new());
        for row in &rows {
            let number = row["payload"]["number"].as_u64().unwrap_or(u64::MAX);
            if !locked(&self.sent).contains(&number) {
                wrong.push(format!("{row} was never sent"));
            } else if *row != as_sent(&self.event(number), row) {
                wrong.push(format!("{row} is not what was sent"));
            }
            if !numbers.insert(number) {
                wrong.push(format!("event {number} is there twice"));
            }
            if !ids.insert(row["id"].as_str().unwrap_or_default()) {
                wrong.push(format!("two rows have the id {}", row["id"]));
            }
            if row["persisted_at"].as_str() < row["created_at"].as_str() {
                wrong.push(format!("{row} was persisted before it was created"));
            }
        }
        let acknowledged = locked(&self.acknowledged).clone();
        let lost = missing(&acknowledged, &rows);
        if lost.len() != lost_and_said {
            let first: Vec<_> = lost.iter().take(5).collect();
            wrong.push(format!("{} acknowledged events are lost and not {lost_and_said}, first {first:?}", lost.len()));
        }
        if server.log().contains("panicked") {
            wrong.push("the log has a panic".to_owned());
        }
        let found = Reconciled {
            acknowledged: acknowledged.len(),
            persisted: rows.len(),
            refused: locked(&self.refused).clone(),
            unanswered: self.unanswered.load(Ordering::Relaxed),
        };
        (found, wrong)
    }
}

/// What was acknowledged and is not among the rows under its id.
fn missing<'a>(acknowledged: &'a BTreeMap<u64, String>, rows: &[Value]) -> Vec<(&'a u64, &'a String)> {
    let there = rows.iter().map(|row| (row["id"].as_str(), row["payload"]["number"].as_u64()));
    let there: HashSet<_> = there.collect();
    acknowledged.iter().filter(|(number, id)| !there.contains(&(Some(id.as_str()), Some(**number)))).collect()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One event in four has no `dedup_id`.
fn has_dedup_id(number: u64) -> bool {
    !number.is_multiple_of(4)
}

/// `row` with what its sender had a say in put back to what was sent.
fn as_sent(event: &Value, row: &Value) -> Value {
    let mut expected = row.clone();
    for field in ["type", "payload", "dedup_id"] {
        expected[field] = event[field].clone();
    }
    expected
}

/// The whole inbox, page by page.
pub async fn inbox(server: &Server, key: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = eventually("a page of the inbox", async || {
            let url = format!("{}/api/inbox?limit=1000&cursor={cursor}", server.url);
            let answer = server.client.get(url).bearer_auth(key).send().await.ok()?;
            (answer.status() == StatusCode::OK).then_some(answer.json::<Value>().await.ok()?)
        })
        .await;
        rows.extend(page["events"].as_array().expect("events").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return rows,
        }
    }
}

/// Load that runs until it is stopped, through faults and restarts.
pub struct Load {
    pub ledger: Arc<Ledger>,
    place: Arc<Place>,
    senders: JoinSet<()>,
    before: Footprint,
}

struct Place {
    /// Of each server; a sender goes to the one of its number, or from one to the next with each request.
    urls: RwLock<Vec<String>>,
    roams: bool,
    requests: AtomicUsize,
    key: String,
    stop: AtomicBool,
}

impl Load {
    /// Begins, and waits until the server has acknowledged some of it.
    pub async fn start(server: &Server, key: &str, plan: Plan) -> Self {
        Self::start_on(&[server], key, plan, false).await
    }

    /// On several servers, of which each sender has one, or (when it roams) asks another one each time.
    pub async fn start_on(servers: &[&Server], key: &str, plan: Plan, roams: bool) -> Self {
        let urls = RwLock::new(servers.iter().map(|server| server.url.clone()).collect());
        let server = servers[0];
        let place =
            Place { urls, roams, requests: AtomicUsize::new(0), key: key.to_owned(), stop: AtomicBool::new(false) };
        let (place, ledger) = (Arc::new(place), Arc::new(Ledger::default()));
        ledger.text_bytes.store(plan.text_bytes as u64, Ordering::Relaxed);
        let before = server.footprint();
        let mut senders = JoinSet::new();
        for number in 0..plan.singles + plan.batchers {
            let (ledger, place) = (Arc::clone(&ledger), Arc::clone(&place));
            let sender = Sender { number, ledger, place, client: crate::client() };
            match number < plan.singles {
                true => senders.spawn(sender.singles(plan)),
                false => senders.spawn(sender.batches(plan)),
            };
        }
        let load = Self { ledger, place, senders, before };
        load.flows().await;
        load
    }

    /// Waits until the server has acknowledged 200 events more than now; how long that took. This is recovery without a person.
    pub async fn flows(&self) -> Duration {
        let (started, from) = (Instant::now(), self.ledger.acknowledged());
        eventually("events are acknowledged", async || (self.ledger.acknowledged() >= from + 200).then_some(())).await;
        started.elapsed()
    }

    /// The server listens at another place from now on.
    pub fn moved(&self, server: &Server) {
        self.moved_one(0, server);
    }

    /// The server of this number does.
    pub fn moved_one(&self, number: usize, server: &Server) {
        self.place.urls.write().expect("no sender panics with it")[number].clone_from(&server.url);
    }

    /// Ends it; every request has its answer, or its time-out, when this returns.
    pub async fn stop(self) -> Arc<Ledger> {
        self.end().await.0
    }

    async fn end(mut self) -> (Arc<Ledger>, Footprint) {
        self.place.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("no sender panics");
        }
        (self.ledger, self.before)
    }

    /// Ends it, reconciles, and checks that the server is back to what it held before: connections, files, threads.
    pub async fn settled(self, server: &Server, key: &str, connections_to_store: usize) -> Reconciled {
        let (ledger, before) = self.end().await;
        let found = ledger.reconcile(server, key).await;
        // Connections to the store are opened as they are wanted: each may have a thread and three files.
        let threads_max = before.threads + connections_to_store;
        let files_max = before.files + 3 * connections_to_store;
        let started = Instant::now();
        loop {
            let now = server.footprint();
            let connections = server.metric("ingest_connections").await.expect("an answer");
            if now.threads <= threads_max && now.files <= files_max && connections <= CONNECTIONS_OF_TEST {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "before {before:?}, after {now:?} and {connections} connections");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        found
    }
}

struct Sender {
    number: usize,
    ledger: Arc<Ledger>,
    place: Arc<Place>,
    client: Client,
}

impl Sender {
    fn stopped(&self) -> bool {
        self.place.stop.load(Ordering::Relaxed)
    }

    async fn post(&self, path: &str, body: String) -> Option<(StatusCode, Value)> {
        let number = match self.place.roams {
            true => self.place.requests.fetch_add(1, Ordering::Relaxed),
            false => self.number,
        };
        let url = {
            let urls = self.place.urls.read().expect("no sender panics with it");
            format!("{}{path}", urls[number % urls.len()])
        };
        let request = self.client.post(url).bearer_auth(&self.place.key).timeout(ANSWER_TIMEOUT);
        let answer = request.header("content-type", "application/json").body(body).send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body: Value = answer.json().await.ok()?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let kind = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
            if !kind || !headers.contains_key("retry-after") || body["status"] != status.as_u16() {
                self.ledger.violated(format!("a refusal without its form: {status} {headers:?} {body}"));
            }
        }
        Some((status, body))
    }

    async fn singles(self, plan: Plan) {
        while !self.stopped() {
            let (number, event) = self.ledger.next();
            let mut first_try = true;
            while !self.once(number, &event, first_try).await && has_dedup_id(number) && !self.stopped() {
                first_try = false;
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            tokio::time::sleep(plan.pause).await;
        }
    }

    /// Whether the server has said its last word.
    async fn once(&self, number: u64, event: &Value, first_try: bool) -> bool {
        match self.post("/api/events", event.to_string()).await {
            Some((status, body)) => self.ledger.answered(number, status.as_u16(), &body, first_try),
            None => {
                self.ledger.unanswered.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    async fn batches(self, plan: Plan) {
        while !self.stopped() {
            let mut open: Vec<_> = (0..plan.batch_events).map(|_| self.ledger.next()).collect();
            let mut first_try = true;
            loop {
                open = self.batch_once(open, first_try).await;
                open.retain(|(number, _)| has_dedup_id(*number));
                if open.is_empty() || self.stopped() {
                    break;
                }
                first_try = false;
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            tokio::time::sleep(plan.pause * 5).await;
        }
    }

    /// The events of which the server has not said its last word.
    async fn batch_once(&self, open: Vec<(u64, Value)>, first_try: bool) -> Vec<(u64, Value)> {
        let body = Value::Array(open.iter().map(|(_, event)| event.clone()).collect());
        match self.post("/api/events/batch", body.to_string()).await {
            Some((StatusCode::MULTI_STATUS, answer)) => {
                let results = answer["results"].as_array().cloned().unwrap_or_default();
                if results.len() != open.len() {
                    self.ledger.violated(format!("{} results for {} events", results.len(), open.len()));
                }
                let said = |((number, _), result): (&(u64, Value), &Value)| {
                    let status = result["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(0);
                    self.ledger.answered(*number, status, result, first_try)
                };
                let said: Vec<bool> = open.iter().zip(&results).map(said).collect();
                open.into_iter().zip(said).filter(|(_, said)| !said).map(|(event, _)| event).collect()
            }
            Some((status, body)) => {
                if self.ledger.answered(open[0].0, status.as_u16(), &body, false) {
                    self.ledger.violated(format!("a batch was answered {status} {body}"));
                }
                open
            }
            None => {
                self.ledger.unanswered.fetch_add(1, Ordering::Relaxed);
                open
            }
        }
    }
}
