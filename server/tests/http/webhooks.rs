//! Webhook delivery (rules D1, D2): real receivers that do well, fail, hang, lie and never stop talking; restarts; dead letters.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::life::{ended, listening_with, organization, signal};
use crate::receiver::{Reaction, Receiver};
use crate::{At, Sender, Server, eventually, everywhere};

everywhere! {
    d1_an_event_is_delivered_signed_and_exactly_as_sent
    d1_a_failure_is_tried_again_until_it_is_delivered
    d1_a_dead_letter_is_kept_and_can_be_sent_again_by_its_organization_only
    d1_a_server_that_is_started_again_goes_on_where_the_last_one_ended
    d1_a_webhook_set_in_another_process_gets_what_this_one_takes_in
}

impl At {
    /// With leave to use private addresses, and waits of milliseconds.
    fn with_webhooks(mut self) -> Self {
        self.settings.webhook_private_addresses = true;
        let limits = &mut self.settings.limits;
        (limits.webhook_wait_ms, limits.webhook_wait_factor) = (20, 1);
        (limits.webhook_timeout_ms, limits.webhook_lease_ms) = (2_000, 20_000);
        self
    }
}

impl Sender {
    /// Sets the webhook; the answer.
    async fn set_webhook(&self, url: &str) -> Value {
        let (status, answer) = self.post("/api/webhook/config", json!({"webhook_url": url}).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    async fn state(&self, id: &str) -> String {
        let (status, event) = self.get(&format!("/api/events/{id}")).await;
        assert_eq!(status, StatusCode::OK, "{event}");
        event["state"].as_str().expect("a state").to_owned()
    }

    async fn reaches(&self, id: &str, state: &str) {
        eventually(async || (self.state(id).await == state).then_some(())).await;
    }

    /// The inbox of that state shows it first. On PostgreSQL it does once no older transaction runs in the whole cluster.
    async fn is_listed(&self, id: &str, state: &str) {
        let path = format!("/api/inbox?status={state}");
        eventually(async || (self.get(&path).await.1["events"][0]["id"] == json!(id)).then_some(())).await;
    }

    async fn delete_webhook(&self) -> (StatusCode, Value) {
        crate::read(self.request("DELETE", "/api/webhook/config").send().await.expect("an answer")).await
    }
}

impl Server {
    /// The value of a metric with this label, 0 when it is not there.
    async fn labelled(&self, series: &str) -> f64 {
        let page = self.get("/metrics").await.text().await.expect("text");
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }
}

async fn d1_an_event_is_delivered_signed_and_exactly_as_sent(at: At) {
    let at = at.with_webhooks();
    let receiver = Receiver::always(Reaction::Status(204)).await;
    let (server, sender) = at.ready().await;
    let stranger = server.organization("enterprise").await;
    let set = sender.set_webhook(&receiver.url).await;
    let secret = set["secret"].as_str().expect("the secret is shown once").to_owned();
    assert_eq!((&set["webhook_url"], &set["enabled"]), (&json!(receiver.url), &json!(true)));
    assert!(set["remove"].as_str().expect("a way back").contains("DELETE /api/webhook/config"));
    let payload = r#"{"b":1, "a":123456789012345678901234567890.10, "a":"é\u0000😀", "n":[[[]]]}"#;
    let event = format!(r#"{{"type":"order.created","dedup_id":"d \"1\"","payload":{payload}}}"#);
    let (status, answer) = sender.post("/api/events", event).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let id = answer["id"].as_str().expect("an id");
    stranger.accepted(json!({"type": "t", "payload": 1})).await;
    sender.reaches(id, "delivered").await;
    let received = receiver.received();
    let [one] = received.as_slice() else { panic!("{} requests", received.len()) };
    assert_eq!(one.id(), id);
    assert_eq!(one.path, "/hook");
    assert_eq!(one.header("content-type"), "application/json");
    assert!(one.header("user-agent").starts_with("millrace/"));
    let now_s = server::store::now_us() / 1_000_000;
    let timestamp_s: i64 = one.header("webhook-timestamp").parse().expect("seconds");
    assert!((now_s - 60..=now_s).contains(&timestamp_s), "{timestamp_s}");
    assert!(one.is_signed_with(&secret));
    assert!(!one.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "the check can fail");
    let body = String::from_utf8(one.body.to_vec()).expect("UTF-8");
    assert!(body.contains(&format!("\"payload\":{payload},")), "{body}");
    let shown = sender.get(&format!("/api/events/{id}")).await.1;
    let got = one.json();
    for member in ["id", "type", "dedup_id", "created_at", "persisted_at"] {
        assert_eq!(got[member], shown[member], "{member}");
    }
    assert_eq!(got.as_object().expect("an object").len(), 6);
    assert_eq!(server.metric("ingest_events_delivered_total").await, 1.0);
    assert_eq!(server.labelled("ingest_webhook_attempts_total{outcome=\"delivered\"}").await, 1.0);
}

async fn d1_a_failure_is_tried_again_until_it_is_delivered(at: At) {
    let at = at.with_webhooks();
    let elsewhere = Receiver::always(Reaction::Status(200)).await;
    let target = elsewhere.url.clone();
    let go_on = Arc::new(AtomicBool::new(false));
    let may = Arc::clone(&go_on);
    let receiver = Receiver::start(move |_, before| match before {
        0 => Reaction::Status(500),
        1 => Reaction::With(302, "location", target.clone()),
        _ if !may.load(Ordering::Relaxed) => Reaction::With(503, "retry-after", "0".into()),
        _ => Reaction::Status(200),
    });
    let receiver = receiver.await;
    let mut at = at;
    at.settings.limits.webhook_attempts_max = 100;
    let (server, sender) = at.ready().await;
    sender.set_webhook(&receiver.url).await;
    let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
    eventually(async || (receiver.ids().len() >= 3).then_some(())).await;
    sender.reaches(&id, "failed").await;
    sender.is_listed(&id, "failed").await;
    go_on.store(true, Ordering::Relaxed);
    sender.reaches(&id, "delivered").await;
    assert_eq!(receiver.ids().iter().collect::<HashSet<_>>().len(), 1, "the same webhook-id each time");
    assert_eq!(elsewhere.ids().len(), 0, "a redirect is a failure and is not followed");
    assert_eq!(server.metric("ingest_events_delivered_total").await, 1.0);
    assert_eq!(server.labelled("ingest_webhook_failures_total{reason=\"redirect\"}").await, 1.0);
}

async fn d1_a_dead_letter_is_kept_and_can_be_sent_again_by_its_organization_only(at: At) {
    let mut at = at.with_webhooks();
    at.settings.limits.webhook_attempts_max = 3;
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let receiver =
        Receiver::start(move |_, _| Reaction::Status(if is_well.load(Ordering::Relaxed) { 200 } else { 500 })).await;
    let (server, sender) = at.ready().await;
    sender.set_webhook(&receiver.url).await;
    let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
    sender.reaches(&id, "dead_letter").await;
    assert_eq!(receiver.ids(), vec![id.clone(); 3]);
    sender.is_listed(&id, "dead_letter").await;
    assert_eq!(server.metric("ingest_dead_letters_total").await, 1.0);
    let stranger = server.organization("enterprise").await;
    stranger.set_webhook(&receiver.url).await;
    let retry = format!("/api/deliveries/{id}/retry");
    for (who, path, expected) in [
        (&stranger, retry.as_str(), StatusCode::NOT_FOUND),
        (&sender, "/api/deliveries/00000000-0000-0000-0000-000000000000/retry", StatusCode::NOT_FOUND),
        (&sender, "/api/deliveries/nonsense/retry", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(who.post(path, "").await.0, expected, "{path}");
    }
    sender.delete_webhook().await;
    assert_eq!(sender.post(&retry, "").await.1["type"], "urn:millrace:problem:no-webhook");
    sender.set_webhook(&receiver.url).await;
    well.store(true, Ordering::Relaxed);
    let (status, answer) = sender.post(&retry, "").await;
    assert_eq!((status, &answer["id"]), (StatusCode::ACCEPTED, &json!(id)));
    sender.reaches(&id, "delivered").await;
    assert_eq!(receiver.ids(), vec![id.clone(); 4]);
    let (status, problem) = sender.post(&retry, "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().expect("a detail").contains("'delivered'"), "{problem}");
}

async fn d1_a_server_that_is_started_again_goes_on_where_the_last_one_ended(at: At) {
    let mut at = at.with_webhooks();
    (at.settings.limits.webhook_attempts_max, at.settings.limits.shutdown_timeout_ms) = (4, 1_000);
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    // The first attempt fails, the second hangs: one delivery waits for its time, and one is under way, when it stops.
    let receiver = Receiver::start(move |_, before| match before {
        _ if is_well.load(Ordering::Relaxed) => Reaction::Status(200),
        0 => Reaction::Status(500),
        _ => Reaction::Hang,
    });
    let receiver = receiver.await;
    let (server, sender) = at.ready().await;
    sender.set_webhook(&receiver.url).await;
    let mut ids = Vec::new();
    for payload in 0..20 {
        ids.push(sender.accepted(json!({"type": "t", "payload": payload})).await);
    }
    eventually(async || (receiver.ids().len() >= 3).then_some(())).await;
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    well.store(true, Ordering::Relaxed);
    let server = at.start();
    let sender = server.sender(&sender.key);
    for id in &ids {
        sender.reaches(id, "delivered").await;
    }
    let received: HashSet<String> = receiver.ids().into_iter().collect();
    assert_eq!(received, ids.into_iter().collect());
}

async fn d1_a_webhook_set_in_another_process_gets_what_this_one_takes_in(at: At) {
    let mut at = at.with_webhooks();
    at.settings.limits.deep_idle_interval_ms = 2_000;
    let receiver = Receiver::start(|_, _| Reaction::After(Duration::from_millis(20), 200)).await;
    let (one, sender) = at.ready().await;
    // A journal is one process's alone.
    at.settings.journal_dir = at.settings.journal_dir.map(|folder| folder.with_extension("other"));
    let other = at.start();
    other.sender(&sender.key).set_webhook(&receiver.url).await;
    let (mut ids, mut taken) = (BTreeSet::new(), Vec::new());
    for payload in 0..100 {
        let by = if payload % 2 == 0 { sender.clone() } else { other.sender(&sender.key) };
        let id = by.accepted(json!({"type": "t", "payload": payload})).await;
        ids.insert(id.clone());
        taken.push((by, id));
    }
    // Asked of the process that took it: while it is pending there, no other knows of it.
    for (by, id) in &taken {
        by.reaches(id, "delivered").await;
    }
    let received = receiver.ids();
    assert_eq!(received.len(), 100, "two processes never send one event both");
    assert_eq!(received.into_iter().collect::<BTreeSet<_>>(), ids);
    let delivered =
        one.metric("ingest_events_delivered_total").await + other.metric("ingest_events_delivered_total").await;
    assert_eq!(delivered, 100.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_every_way_to_fail_is_survived_and_counted() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (reaction, state, reason) in [
        (Some(Reaction::Hang), "dead_letter", "timeout"),
        (Some(Reaction::Status(500)), "dead_letter", "status"),
        (Some(Reaction::Status(404)), "dead_letter", "status"),
        (Some(Reaction::With(307, "location", "http://127.0.0.1:1/".into())), "dead_letter", "redirect"),
        (Some(Reaction::With(429, "retry-after", "0".into())), "dead_letter", "throttled"),
        (None, "dead_letter", "no-connection"),
        (Some(Reaction::EndlessBody), "delivered", ""),
    ] {
        let mut at = At::cache_first_sqlite().await.with_webhooks();
        (at.settings.limits.webhook_attempts_max, at.settings.limits.webhook_timeout_ms) = (2, 300);
        let (server, sender) = at.ready().await;
        let receiver = Receiver::always(reaction.clone().unwrap_or(Reaction::Hang)).await;
        let url = if reaction.is_some() { receiver.url.clone() } else { format!("http://{closed}/") };
        sender.set_webhook(&url).await;
        let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
        sender.reaches(&id, state).await;
        if state == "dead_letter" {
            let series = format!("ingest_webhook_failures_total{{reason=\"{reason}\"}}");
            assert_eq!(server.labelled(&series).await, 2.0, "{reaction:?}");
        }
        assert_eq!(server.metric("ingest_webhook_attempts_running").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_hanging_and_a_throttled_receiver_delay_nobody() {
    let mut at = At::cache_first_sqlite().await.with_webhooks();
    // A hanging attempt outlasts the test.
    (at.settings.limits.webhook_timeout_ms, at.settings.limits.webhook_lease_ms) = (600_000, 700_000);
    (at.settings.limits.webhook_attempts_running_max, at.settings.limits.shutdown_timeout_ms) = (16, 400);
    let server = at.start();
    let hanging = Receiver::always(Reaction::Hang).await;
    let throttled = Receiver::always(Reaction::With(429, "retry-after", "3600".into())).await;
    let fast = Receiver::always(Reaction::Status(200)).await;
    let (slow, limited, well) = (
        server.organization("enterprise").await,
        server.organization("enterprise").await,
        server.organization("enterprise").await,
    );
    slow.set_webhook(&hanging.url).await;
    limited.set_webhook(&throttled.url).await;
    well.set_webhook(&fast.url).await;
    let batch = |count: usize| {
        let events: Vec<Value> = (0..count).map(|payload| json!({"type": "t", "payload": payload})).collect();
        Value::from(events).to_string()
    };
    for sender in [&slow, &limited] {
        assert_eq!(sender.post("/api/events/batch", batch(300)).await.0, StatusCode::MULTI_STATUS);
    }
    eventually(async || (!hanging.ids().is_empty() && !throttled.ids().is_empty()).then_some(())).await;
    assert_eq!(well.post("/api/events/batch", batch(300)).await.0, StatusCode::MULTI_STATUS);
    eventually(async || (fast.ids().len() >= 300).then_some(())).await;
    eventually(async || (server.metric("ingest_events_delivered_total").await == 300.0).then_some(())).await;
    assert_eq!(fast.ids().into_iter().collect::<HashSet<_>>().len(), 300);
    assert!(hanging.ids().len() <= 4, "{} attempts to what does not answer", hanging.ids().len());
    assert!(throttled.ids().len() <= 4, "{} attempts to what asked for time", throttled.ids().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_two_processes_never_send_one_event_at_the_same_time() {
    for at in [At::cache_first_postgres().await, At::db_first_sqlite().await] {
        let at = at.with_webhooks();
        let running: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let doubled = Arc::new(AtomicUsize::new(0));
        let (now, twice) = (Arc::clone(&running), Arc::clone(&doubled));
        let receiver = Receiver::start(move |received, before| {
            twice.fetch_add(before, Ordering::Relaxed);
            *now.lock().unwrap().entry(received.id()).or_default() += 1;
            Reaction::After(Duration::from_millis(5), 200)
        });
        let receiver = receiver.await;
        let (one, sender) = at.ready().await;
        sender.set_webhook(&receiver.url).await;
        let (two, three) = (at.start(), at.start());
        for server in [&one, &two, &three] {
            let events: Vec<Value> = (0..200).map(|payload| json!({"type": "t", "payload": payload})).collect();
            let (status, _) =
                server.sender(&sender.key).post("/api/events/batch", Value::from(events).to_string()).await;
            assert_eq!(status, StatusCode::MULTI_STATUS);
        }
        eventually(async || (running.lock().unwrap().len() == 600).then_some(())).await;
        assert_eq!(doubled.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_is_disabled_until_it_is_set_again() {
    let at = At::cache_first_sqlite().await.with_webhooks();
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let receiver =
        Receiver::start(move |_, _| Reaction::Status(if is_well.load(Ordering::Relaxed) { 200 } else { 410 })).await;
    let (_server, sender) = at.ready().await;
    let secret = sender.set_webhook(&receiver.url).await["secret"].as_str().unwrap().to_owned();
    let dead = sender.accepted(json!({"type": "t", "payload": 1})).await;
    sender.reaches(&dead, "dead_letter").await;
    assert_eq!(receiver.ids().len(), 1, "gone is gone");
    let shown = sender.get("/api/webhook/config").await.1;
    assert_eq!((&shown["enabled"], &shown["webhook_url"]), (&json!(false), &json!(receiver.url)));
    assert!(shown["disabled_at"].is_string());
    let unsent = sender.accepted(json!({"type": "t", "payload": 2})).await;
    sender.reaches(&unsent, "persisted").await;
    assert_eq!(sender.post(&format!("/api/deliveries/{dead}/retry"), "").await.0, StatusCode::CONFLICT);
    well.store(true, Ordering::Relaxed);
    let set = sender.set_webhook(&receiver.url).await;
    assert_eq!((&set["enabled"], &set["secret"]), (&json!(true), &Value::Null), "the secret stays, and stays secret");
    assert_eq!(sender.post(&format!("/api/deliveries/{dead}/retry"), "").await.0, StatusCode::ACCEPTED);
    sender.reaches(&dead, "delivered").await;
    let new = sender.accepted(json!({"type": "t", "payload": 3})).await;
    sender.reaches(&new, "delivered").await;
    assert_eq!(sender.state(&unsent).await, "persisted", "it was not owed when it came");
    assert!(receiver.received().iter().all(|received| received.is_signed_with(&secret)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_shown_replaced_and_removed() {
    for at in [At::cache_first_sqlite().await, At::db_first_postgres().await] {
        let at = at.with_webhooks();
        let (_server, sender) = at.ready().await;
        let none = sender.get("/api/webhook/config").await;
        assert_eq!((none.0, &none.1["webhook_url"], &none.1["enabled"]), (StatusCode::OK, &Value::Null, &json!(false)));
        let hanging = Receiver::always(Reaction::Hang).await;
        let first = sender.set_webhook(&hanging.url).await;
        assert!(!sender.get("/api/webhook/config").await.1.to_string().contains("whsec_"));
        let left = sender.accepted(json!({"type": "t", "payload": 1})).await;
        eventually(async || (!hanging.ids().is_empty()).then_some(())).await;
        let receiver = Receiver::always(Reaction::Status(200)).await;
        assert!(sender.set_webhook(&receiver.url).await["secret"].is_null());
        // What hung is tried again, at the new URL.
        sender.reaches(&left, "delivered").await;
        assert!(receiver.received()[0].is_signed_with(first["secret"].as_str().unwrap()));
        sender.set_webhook(&hanging.url).await;
        let undelivered = sender.accepted(json!({"type": "t", "payload": 2})).await;
        eventually(async || (hanging.ids().len() == 2).then_some(())).await;
        for _ in 0..2 {
            let (status, body) = sender.delete_webhook().await;
            assert_eq!((status, &body["webhook_url"]), (StatusCode::OK, &Value::Null));
        }
        sender.reaches(&undelivered, "dead_letter").await;
        let second = sender.set_webhook(&receiver.url).await;
        assert!(second["secret"].is_string() && second["secret"] != first["secret"], "a new one");
        let (status, _) = sender.post("/api/webhook/config", r#"{"webhook_url":null}"#).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(sender.get("/api/webhook/config").await.1["webhook_url"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_url_that_leads_inside_is_refused_without_leave() {
    let at = At::cache_first_sqlite().await;
    let (_server, sender) = at.ready().await;
    let long = format!("http://example.com/{}", "a".repeat(2048));
    for url in [
        "http://127.0.0.1:8080/",
        "http://localhost/",
        "http://[::1]/",
        "http://2130706433/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://user:password@8.8.8.8/",
        "ftp://8.8.8.8/",
        "nonsense",
        "",
        long.as_str(),
    ] {
        let (status, problem) = sender.post("/api/webhook/config", json!({"webhook_url": url}).to_string()).await;
        assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &json!("webhook_url")), "{url}: {problem}");
        assert!(!problem.to_string().contains("127.0.0.1"), "what a name leads to is not told: {problem}");
    }
    let (status, _) = sender.post("/api/webhook/config", json!({"webhook_url": "http://8.8.8.8/"}).to_string()).await;
    assert_eq!(status, StatusCode::OK, "a public address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_webhook_that_was_set_with_leave_is_not_called_without_it() {
    let at = At::cache_first_sqlite().await.with_webhooks();
    let receiver = Receiver::always(Reaction::Status(200)).await;
    let (server, sender) = at.ready().await;
    sender.set_webhook(&receiver.url).await;
    drop(server);
    let mut at = at;
    (at.settings.webhook_private_addresses, at.settings.limits.webhook_attempts_max) = (false, 2);
    let server = at.start();
    let sender = server.sender(&sender.key);
    let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
    sender.reaches(&id, "dead_letter").await;
    assert_eq!(receiver.ids().len(), 0);
    assert_eq!(server.labelled("ingest_webhook_failures_total{reason=\"address-refused\"}").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_with_a_webhook_asks_the_database_no_more_than_one_without() {
    for at in [At::cache_first_sqlite().await, At::cache_first_postgres().await] {
        let mut at = at.with_webhooks();
        at.settings.polling = server::config::Polling::Fixed;
        at.settings.limits.poll_interval_ms_fixed = 20;
        let receiver = Receiver::always(Reaction::Status(200)).await;
        let (server, sender) = at.ready().await;
        sender.set_webhook(&receiver.url).await;
        let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
        sender.reaches(&id, "delivered").await;
        // One poll more, so that nothing of the delivery is still to be counted.
        let polls = async || server.labelled("ingest_polls_total{source=\"store\",state=\"empty\"}").await;
        let after = polls().await + 1.0;
        eventually(async || (polls().await > after).then_some(())).await;
        let count = async || {
            let page = server.get("/metrics").await.text().await.expect("text");
            let sum = |prefix: &str| -> f64 {
                let lines = page.lines().filter(|line| line.starts_with(prefix));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
            };
            (sum("ingest_sql_statements_total"), sum("ingest_polls_total{source=\"store\""))
        };
        let before = count().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = count().await;
        let (statements, polls) = (now.0 - before.0, now.1 - before.1);
        // `fixed` makes two statements a poll; the page may be read between them.
        assert!(polls > 3.0 && (statements - 2.0 * polls).abs() <= 1.0, "{statements} statements in {polls} polls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_nothing_has_nothing_to_send() {
    let mut at = At::cache_first_sqlite().await;
    at.settings.mode = server::config::Mode::Null;
    let (_server, sender) = at.ready().await;
    for (status, problem) in [
        sender.get("/api/webhook/config").await,
        sender.post("/api/webhook/config", r#"{"webhook_url":"http://8.8.8.8/"}"#).await,
        sender.post("/api/deliveries/00000000-0000-0000-0000-000000000000/retry", "").await,
        sender.delete_webhook().await,
    ] {
        assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("urn:millrace:problem:keeps-nothing")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_faults_of_delivery_do_what_they_say() {
    for (fault, sent, state) in [("webhook-drop=1", 0, "delivered"), ("webhook-duplicate=1", 2, "delivered")] {
        let mut at = At::cache_first_sqlite().await.with_webhooks();
        at.settings.fault = vec![fault.parse().unwrap()];
        let receiver = Receiver::always(Reaction::Status(200)).await;
        let (_server, sender) = at.ready().await;
        sender.set_webhook(&receiver.url).await;
        let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
        sender.reaches(&id, state).await;
        assert_eq!(receiver.ids(), vec![id; sent], "{fault}");
    }
}

/// A claimed event for this URL.
fn claimed(url: &str) -> server::store::Claimed {
    use server::store::{Claimed, SigningSecret, State, StoredEvent};
    let event = server::event::Event::clone(&crate::support::event(uuid::Uuid::now_v7(), None, "1"));
    let stored = StoredEvent { event, state: State::Persisted, persisted_at_us: 1 };
    let webhook = Some((url.to_owned(), SigningSecret(vec![7; 32])));
    Claimed { stored, attempts: 0, lease_us: 0, webhook }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_what_was_checked_is_what_is_connected_to_whatever_the_dns_says_next() {
    use server::delivery::address::{Guard, Lookup};
    use server::delivery::client::{Bounds, Client};
    use server::delivery::schedule::Answer;
    let receiver = Receiver::always(Reaction::Status(200)).await;
    let port = receiver.url.split(':').nth(2).unwrap().split('/').next().unwrap().to_owned();
    // 203.0.113.0/24 is nobody's; here it stands for a public address, and nothing is sent to it.
    let asked = Arc::new(AtomicUsize::new(0));
    let lookup = |first: &'static str, then: &'static str| -> Lookup {
        let asked = Arc::clone(&asked);
        Arc::new(move |name| {
            assert_eq!(name, "rebinding.example");
            let address = if asked.fetch_add(1, Ordering::Relaxed) == 0 { first } else { then };
            Box::pin(std::future::ready(Ok(vec![address.parse().unwrap()])))
        })
    };
    let bounds = Bounds {
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        response_bytes_max: 100,
        idle_connections_max: 4,
    };
    let url = format!("http://rebinding.example:{port}/hook");
    // Public while the URL is set, the machine itself when the event is sent: refused before anything is connected to.
    let guard = Arc::new(Guard::new(2048, false, lookup("8.8.8.8", "127.0.0.1")));
    assert!(guard.check(&url).await.is_ok());
    let client = Client::new(guard, bounds.clone());
    assert_eq!(client.attempt(&claimed(&url)).await.answer, Answer::Refused);
    assert_eq!(client.attempt(&claimed(&format!("http://127.0.0.1:{port}/"))).await.answer, Answer::Refused);
    assert_eq!(receiver.ids().len(), 0);
    // With leave: the connection goes to the address that the look-up gave, once, and not to a second look-up's.
    asked.store(0, Ordering::Relaxed);
    let client = Client::new(Arc::new(Guard::new(2048, true, lookup("127.0.0.1", "203.0.113.7"))), bounds);
    let delivered = Answer::Status { status: 200, retry_after: None };
    assert_eq!(client.attempt(&claimed(&url)).await.answer, delivered);
    assert_eq!(
        (asked.load(Ordering::Relaxed), receiver.ids().len()),
        (1, 1),
        "one look-up, for the guard and the connection"
    );
    // Over the same connection: another would go to the second address. (Whether a look-up for one has begun when it comes free is a race.)
    assert_eq!(client.attempt(&claimed(&url)).await.answer, delivered);
    assert_eq!(receiver.ids().len(), 2);
}

/// A certificate that signs itself, for `name`: as a server needs it, and as text for those who shall trust it.
fn certificate(name: &str) -> (ServerConfig, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a server's settings");
    (config, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_over_tls_an_event_goes_to_a_receiver_with_a_certificate_for_its_name_that_the_system_trusts_and_to_no_other()
 {
    let folder = tempfile::tempdir().expect("a folder");
    let (good, good_pem) = certificate("127.0.0.1");
    let (other_name, other_name_pem) = certificate("receiver.example");
    let (unknown, _) = certificate("127.0.0.1");
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, good_pem + &other_name_pem).expect("a file");
    let flags = ["--webhook-private-addresses", "--webhook-wait-ms", "10", "--webhook-attempts-max", "2"];
    let trust = [("SSL_CERT_FILE", trusted.to_str().expect("a path"))];
    let (child, url) = listening_with(&folder.path().join("events.db"), "cache-first", &flags, &trust);
    for (config, state) in [(good, "delivered"), (other_name, "dead_letter"), (unknown, "dead_letter")] {
        let receiver = Receiver::over_tls(config, Reaction::Status(200)).await;
        let sender = organization(&url).await;
        let secret = sender.set_webhook(&receiver.url).await["secret"].as_str().expect("a secret").to_owned();
        let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
        sender.reaches(&id, state).await;
        let received = receiver.received();
        assert_eq!(received.len(), usize::from(state == "delivered"), "nothing is said to whom nobody trusts");
        assert!(received.iter().all(|it| it.is_signed_with(&secret)));
    }
    signal(&child, "TERM");
    assert_eq!(ended(child).0, Some(0));
}
