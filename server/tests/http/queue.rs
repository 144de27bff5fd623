//! `--queue redis://…` over HTTP: what is its own. Servers of a test share one Redis and one PostgreSQL.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use server::config::{Database, Mode, QueueAt};

use crate::life::{listening_on, organization, signal};
use crate::redis_server::Redis;
use crate::{At, Sender, Server, eventually, fresh_sqlite};

/// Where servers that share a queue run.
struct Shared {
    redis: Redis,
    at: At,
}

impl Shared {
    async fn new(settings: &[&str]) -> Self {
        let redis = Redis::start(settings);
        let mut at = At::cache_first_postgres().await;
        at.settings.queue = QueueAt::Redis(redis.url());
        Self { redis, at }
    }

    /// In the stream.
    fn entries(&self) -> i64 {
        self.redis.ask(&["XLEN", "millrace:events"])
    }

    /// Of these, in the hands of a process. None are before a server that has just begun has made the group.
    fn pending(&self) -> i64 {
        let mut command = redis::cmd("XPENDING");
        command.arg("millrace:events").arg("millrace");
        match self.redis.try_ask::<Vec<redis::Value>>(command) {
            Ok(groups) => redis::from_redis_value(groups[0].clone()).expect("a number"),
            Err(error) if error.code() == Some("NOGROUP") => 0,
            Err(error) => panic!("XPENDING: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_acknowledged_once_redis_has_them_and_leave_it_once_the_database_has() {
    let shared = Shared::new(&[]).await;
    let (server, sender) = shared.at.ready().await;
    for payload in 0..300 {
        sender.accepted(json!({"type": "t", "payload": payload, "dedup_id": payload.to_string()})).await;
    }
    let events = sender.persisted(300).await;
    let payloads: Vec<_> = events.iter().map(|event| event["payload"].as_u64().unwrap()).collect();
    assert_eq!(payloads, (0..300).collect::<Vec<_>>(), "each once, in order");
    eventually(async || (shared.entries() == 0 && shared.pending() == 0).then_some(())).await;
    assert_eq!(shared.redis.ask::<i64>(&["HLEN", "millrace:places"]), 0);
    assert_eq!(shared.redis.ask::<String>(&["HGET", "millrace:state", "bytes"]), "0");
    assert_eq!(server.metric("ingest_pending_events").await, 0.0);
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    let consumers: Vec<redis::Value> = shared.redis.ask(&["XINFO", "CONSUMERS", "millrace:events", "millrace"]);
    assert!(consumers.is_empty(), "who ends well leaves no consumer: {consumers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_says_what_redis_says_of_itself_and_again_after_a_restart() {
    let mut shared = Shared::new(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (server, sender) = shared.at.ready().await;
    let durability = async || {
        let (status, answer) = sender.event(json!({"type": "t", "payload": 1})).await;
        (status == StatusCode::ACCEPTED).then(|| answer["durability"].as_str().unwrap().to_owned())
    };
    assert_eq!(durability().await.as_deref(), Some("redis-always"));
    let (_, batch) = sender.post("/api/events/batch", json!([{"type": "t", "payload": 2}]).to_string()).await;
    assert_eq!(batch["results"][0]["durability"], "redis-always");
    shared.redis.kill();
    shared.redis.set(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    shared.redis.start_again();
    assert_eq!(eventually(durability).await, "redis-everysec");
    let page = server.get("/metrics").await.text().await.unwrap();
    assert!(page.contains(r#"ingest_queue_setting{name="appendfsync",value="everysec"} 1"#), "{page}");
    assert!(!page.contains(r#"value="always""#), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_be_used_is_refused_at_the_start_with_the_remedy() {
    let mut shared = Shared::new(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let refused =
        |shared: &Shared| server::start(shared.at.settings.clone()).expect_err("it cannot be used").to_string();
    let said = refused(&shared);
    assert!(said.contains("allkeys-lru") && said.contains("set maxmemory-policy noeviction"), "{said}");
    shared.redis.kill();
    let said = refused(&shared);
    assert!(said.contains("--queue") && said.contains("check that it runs"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_redis_is_persisted_at_a_stop_or_by_the_next_start() {
    let redis = Redis::start(&[]);
    let mut at = At::new(Mode::CacheFirst, fresh_sqlite(Default::default()).await);
    at.settings.queue = QueueAt::Redis(redis.url());
    at.settings.polling = server::config::Polling::Fixed;
    at.settings.limits.poll_interval_ms_fixed = 60_000;
    let (server, sender) = at.ready().await;
    let (_, answer) = sender.post("/api/events/batch", batch(0, 500).to_string()).await;
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == 202), "{answer}");
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    assert_eq!(redis.ask::<i64>(&["XLEN", "millrace:events"]), 0);
    let server = at.start();
    assert_eq!(server.sender(&sender.key).inbox(1000).await.len(), 500);
}

fn batch(from: usize, events: usize) -> serde_json::Value {
    (from..from + events).map(|n| json!({"type": "t", "payload": n, "dedup_id": n.to_string()})).collect()
}

/// Two servers on one Redis and one database.
async fn two(shared: &Shared) -> (Server, Server, Sender, Sender) {
    let (first, sender) = shared.at.ready().await;
    let second = shared.at.start();
    let other = second.sender(&sender.key);
    (first, second, sender, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dedup_id_sent_to_two_processes_at_once_is_acknowledged_once() {
    let shared = Shared::new(&[]).await;
    let (_first, _second, one, other) = two(&shared).await;
    for number in 0..50 {
        let body = json!({"type": "t", "payload": number, "dedup_id": format!("d-{number}")});
        let answers = tokio::join!(
            one.event(body.clone()),
            other.event(body.clone()),
            one.event(body.clone()),
            other.event(body)
        );
        let answers = [answers.0, answers.1, answers.2, answers.3];
        let accepted: Vec<_> = answers.iter().filter(|(status, _)| *status == StatusCode::ACCEPTED).collect();
        assert_eq!(accepted.len(), 1, "{answers:?}");
        for (status, answer) in &answers {
            assert_eq!(answer["id"], accepted[0].1["id"], "all name the first: {answers:?}");
            assert!([StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(status), "{answers:?}");
        }
    }
    assert_eq!(one.persisted(50).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_has_acknowledged_every_process_shows() {
    let shared = Shared::new(&[]).await;
    let (_first, _second, one, other) = two(&shared).await;
    let id = one.accepted(json!({"type": "t", "payload": [1]})).await;
    let (status, event) = other.get(&format!("/api/events/{id}")).await;
    assert_eq!((status, &event["payload"]), (StatusCode::OK, &json!([1])), "{event}");
    let stranger = _second.organization("free").await;
    assert_eq!(stranger.get(&format!("/api/events/{id}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(other.post(&format!("/api/ack/{id}"), "").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_limit_of_an_organisation_is_one_for_all_processes() {
    let shared = Shared::new(&[]).await;
    let (first, second, ..) = two(&shared).await;
    // 100 requests a minute; a batch counts its items.
    let one = first.organization("free").await;
    let other = second.sender(&one.key);
    let (status, answer) = one.post("/api/events/batch", batch(0, 59).to_string()).await;
    assert_eq!(status, StatusCode::MULTI_STATUS, "{answer}");
    let mut accepted = 59;
    let refusal = loop {
        let (status, answer) = other.event(json!({"type": "t", "payload": 1})).await;
        if status != StatusCode::ACCEPTED {
            break answer;
        }
        accepted += 1;
    };
    assert_eq!(refusal["status"], 429, "{refusal}");
    // More come back at 100 a minute while the test runs.
    assert!((100..=130).contains(&accepted), "{accepted}");
    let (_, answer) = other.post("/api/events/batch", batch(100, 50).to_string()).await;
    assert_eq!(answer["status"], 429, "reading counts too: {answer}");
    assert_eq!(one.get("/api/inbox").await.0, StatusCode::TOO_MANY_REQUESTS, "in the other process too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_its_bound_of_events_or_bytes_refuses_in_every_process_and_drops_nothing() {
    for by_bytes in [false, true] {
        let mut shared = Shared::new(&[]).await;
        let limits = &mut shared.at.settings.limits;
        // Nothing is persisted before the bound is met.
        limits.poll_interval_ms_fixed = 60_000;
        shared.at.settings.polling = server::config::Polling::Fixed;
        match by_bytes {
            true => (limits.pending_bytes_max, limits.payload_bytes_max) = (1 << 20, 1 << 18),
            false => limits.pending_events_max = 20,
        }
        let (first, second, one, other) = two(&shared).await;
        for server in [&first, &second] {
            // The first cycle of the processor is over once it has polled.
            eventually(async || (server.metric("ingest_poll_interval_seconds").await > 0.0).then_some(())).await;
        }
        let payload = if by_bytes { "x".repeat(200_000) } else { "x".to_owned() };
        let mut accepted = 0;
        let problem = loop {
            let sender = if accepted % 2 == 0 { &one } else { &other };
            let (status, answer) = sender.event(json!({"type": "t", "payload": payload})).await;
            match status {
                StatusCode::ACCEPTED => accepted += 1,
                _ => break answer,
            }
            assert!(accepted < 100, "it never refused");
        };
        assert_eq!((problem["status"].as_u64(), accepted), (Some(503), if by_bytes { 5 } else { 20 }), "{problem}");
        assert!(problem["type"].as_str().unwrap().ends_with(":full"), "{problem}");
        assert_eq!(shared.entries(), accepted);
        for server in [&first, &second] {
            let body: serde_json::Value = server.get("/readyz").await.json().await.unwrap();
            // By bytes only who has refused something knows that the next event does not fit.
            let knows = !by_bytes || std::ptr::eq(server, &second);
            assert_eq!(body["reasons"], json!(if knows { vec!["pending-full"] } else { vec![] }), "{body}");
        }
        assert_eq!(first.shutdown().await.unpersisted_events + second.shutdown().await.unpersisted_events, 0);
        let server = shared.at.start();
        let kept = usize::try_from(accepted).unwrap();
        assert_eq!(server.sender(&one.key).persisted(kept).await.len(), kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_events_are_refused_and_when_it_is_back_it_goes_on_with_all_that_it_had() {
    let mut shared = Shared::new(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (server, sender) = shared.at.ready().await;
    let mut accepted = 0;
    for round in 0..3 {
        for number in 0..40 {
            accepted += 1;
            sender.accepted(json!({"type": "t", "payload": accepted, "dedup_id": format!("{round}-{number}")})).await;
        }
        // At once: some of these are in Redis alone, some in the hands of the server, some persisted.
        shared.redis.kill();
        for _ in 0..3 {
            let body = json!({"type": "t", "payload": 0});
            let response = sender.request("POST", "/api/events").json(&body).send().await.unwrap();
            assert!(response.headers().contains_key("retry-after"));
            let (status, problem) = crate::read(response).await;
            let name = problem["type"].as_str().unwrap().rsplit(':').next().unwrap();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(["queue-unavailable", "outcome-unknown"].contains(&name), "{problem}");
        }
        crate::outage::unready(&server, "queue-unavailable").await;
        assert_eq!(sender.get("/api/inbox").await.0, StatusCode::OK, "what is persisted can be read");
        shared.redis.start_again();
        eventually(async || (server.get("/readyz").await.status() == StatusCode::OK).then_some(())).await;
        // As a sender does: what is refused because Redis is slow to come back is asked again.
        let again = json!({"type": "t", "payload": 0, "dedup_id": format!("{round}-0")});
        let status = eventually(async || {
            let (status, _) = sender.event(again.clone()).await;
            (status != StatusCode::SERVICE_UNAVAILABLE).then_some(status)
        })
        .await;
        assert_eq!(status, StatusCode::CONFLICT, "also what Redis may have forgotten");
    }
    let events = sender.persisted(accepted).await;
    let mut payloads: Vec<_> = events.iter().map(|event| event["payload"].as_u64().unwrap()).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, (1..=accepted as u64).collect::<Vec<_>>(), "each once");
    eventually(async || (shared.entries() == 0).then_some(())).await;
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_emptied_costs_what_it_held_and_no_duplicate_and_nothing_else() {
    let shared = Shared::new(&[]).await;
    let (server, sender) = shared.at.ready().await;
    for number in 0..10 {
        sender.accepted(json!({"type": "t", "payload": number, "dedup_id": number.to_string()})).await;
    }
    sender.persisted(10).await;
    shared.redis.ask::<String>(&["FLUSHALL"]);
    for number in 0..10 {
        let (status, _) = sender.event(json!({"type": "t", "payload": 0, "dedup_id": number.to_string()})).await;
        assert_eq!(status, StatusCode::CONFLICT, "the database knows {number}");
    }
    sender.accepted(json!({"type": "t", "payload": 10, "dedup_id": "10"})).await;
    sender.persisted(11).await;
    // The group alone: what is in the stream is given out again.
    shared.redis.ask::<i64>(&["XGROUP", "DESTROY", "millrace:events", "millrace"]);
    sender.accepted(json!({"type": "t", "payload": 11})).await;
    sender.persisted(12).await;
    eventually(async || (shared.entries() == 0).then_some(())).await;
    let complete: Option<String> = shared.redis.ask(&["HGET", "millrace:state", "complete"]);
    assert!(complete.is_some(), "the dedup_ids were copied again");
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_nobody_can_read_is_moved_aside_and_stops_nothing() {
    let shared = Shared::new(&[]).await;
    let (server, sender) = shared.at.ready().await;
    shared.redis.ask::<String>(&["XADD", "millrace:events", "*", "event", "not an event"]);
    shared.redis.ask::<String>(&["XADD", "millrace:events", "*", "what", "ever"]);
    sender.accepted(json!({"type": "t", "payload": 1})).await;
    sender.persisted(1).await;
    eventually(async || (shared.entries() == 0).then_some(())).await;
    assert_eq!(shared.redis.ask::<i64>(&["XLEN", "millrace:aside"]), 2);
    let aside: Vec<(String, Vec<String>)> = shared.redis.ask(&["XRANGE", "millrace:aside", "-", "+", "COUNT", "1"]);
    assert!(aside[0].1.contains(&"not an event".to_owned()), "as it was: {aside:?}");
    assert_eq!(server.metric("ingest_queue_entries_set_aside_total").await, 2.0);
    assert_eq!(shared.pending(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_config_may_not_be_read_an_acknowledgement_says_the_least() {
    let shared =
        Shared::new(&["--appendonly", "yes", "--appendfsync", "always", "--rename-command", "CONFIG", ""]).await;
    let (_server, sender) = shared.at.ready().await;
    let (_, answer) = sender.event(json!({"type": "t", "payload": 1})).await;
    assert_eq!(answer["durability"], "redis-memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_in_hand_another_takes_over_when_the_lease_is_over() {
    let mut shared = Shared::new(&[]).await;
    let Database::Postgres(url) = shared.at.fresh.database.clone() else { unreachable!("it is PostgreSQL") };
    let queue = shared.redis.url();
    let slow = ["--polling", "fixed", "--poll-interval-ms-fixed", "60000", "--queue", &queue];
    let (mut child, url) = listening_on(&url, "cache-first", &slow, &[]);
    let sender = organization(&url).await;
    for payload in 0..20 {
        sender.accepted(json!({"type": "t", "payload": payload, "dedup_id": payload.to_string()})).await;
    }
    eventually(async || (shared.pending() == 20).then_some(())).await;
    signal(&child, "KILL");
    let _ = child.wait();
    shared.at.settings.limits.queue_lease_ms = 1_000;
    shared.at.settings.limits.store_timeout_ms = 900;
    let server = shared.at.start();
    let heir = server.sender(&sender.key);
    let (status, event) = heir.event(json!({"type": "t", "payload": 0, "dedup_id": "7"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{event}");
    assert_eq!(heir.persisted(20).await.len(), 20);
    eventually(async || (shared.entries() == 0).then_some(())).await;
    assert_eq!(server.metric("ingest_queue_entries_claimed_total").await, 20.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_events_are_taken_and_stay_with_the_process_that_has_them_in_hand() {
    let mut shared = Shared::new(&[]).await;
    let limits = &mut shared.at.settings.limits;
    (limits.queue_lease_ms, limits.store_timeout_ms) = (1_000, 500);
    let (server, sender) = shared.at.ready().await;
    let outage = crate::outage::Outage::begin(&shared.at.fresh.database).await;
    let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
    assert_eq!(sender.get(&format!("/api/events/{id}")).await.1["state"], "pending");
    let claimed = std::time::Instant::now();
    eventually(async || {
        let held: Vec<(String, String, u64, u64)> =
            shared.redis.ask(&["XPENDING", "millrace:events", "millrace", "-", "+", "10"]);
        let [(_, _, idle_ms, given)] = &held[..] else { return None };
        assert_eq!(*given, 1, "it was given to nobody else");
        // The claim is younger than the event's stay in this process by more than could pass between the two looks.
        (claimed.elapsed() > Duration::from_millis(2_000) && *idle_ms < 1_000).then_some(())
    })
    .await;
    outage.end().await;
    sender.persisted(1).await;
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_does_not_take_before_a_stop_the_next_start_has_at_once() {
    let mut shared = Shared::new(&[]).await;
    let limits = &mut shared.at.settings.limits;
    // A lease that no test waits for.
    (limits.shutdown_timeout_ms, limits.store_timeout_ms, limits.queue_lease_ms) = (1_000, 300, 600_000);
    let (server, sender) = shared.at.ready().await;
    let outage = crate::outage::Outage::begin(&shared.at.fresh.database).await;
    for payload in 0..3 {
        sender.accepted(json!({"type": "t", "payload": payload})).await;
    }
    eventually(async || (shared.pending() == 3).then_some(())).await;
    let stopped = server.shutdown().await;
    assert_eq!((stopped.unpersisted_events, stopped.is_recoverable), (3, true));
    outage.end().await;
    let server = shared.at.start();
    assert_eq!(server.sender(&sender.key).persisted(3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_memory_is_full_refuses_and_keeps_what_it_has() {
    let mut shared = Shared::new(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]).await;
    shared.at.settings.polling = server::config::Polling::Fixed;
    shared.at.settings.limits.poll_interval_ms_fixed = 60_000;
    let (server, sender) = shared.at.ready().await;
    eventually(async || (server.metric("ingest_poll_interval_seconds").await > 0.0).then_some(())).await;
    let mut accepted = 0;
    let problem = loop {
        let (status, answer) = sender.event(json!({"type": "t", "payload": "x".repeat(100_000)})).await;
        match status {
            StatusCode::ACCEPTED => accepted += 1,
            _ => break answer,
        }
        assert!(accepted < 100, "it never refused");
    };
    assert!(problem["status"] == 503 && problem["type"].as_str().unwrap().ends_with(":full"), "{problem}");
    assert_eq!(shared.entries(), accepted);
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    assert_eq!(shared.entries(), 0);
    let server = shared.at.start();
    let again = server.sender(&sender.key);
    let kept = usize::try_from(accepted).unwrap();
    assert_eq!(again.persisted(kept).await.len(), kept);
    again.accepted(json!({"type": "t", "payload": 1})).await;
}
