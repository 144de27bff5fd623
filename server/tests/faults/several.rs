//! Several server processes on one PostgreSQL (and one Redis), of which one is killed at random under load and started again, more than once:
//! what was acknowledged is there, once.

use std::time::Duration;

use rand::seq::IndexedRandom as _;

use crate::ledger::{Load, Plan};
use crate::process::{Launch, Server};
use crate::redis_server::Redis;
use crate::stores::Place;
use crate::{Case, StoreKind, eventually};

const SERVERS: usize = 3;
const KILLS: usize = 2;

/// How a row differs from the others.
struct Row {
    mode: &'static str,
    /// A sender may go from one process to another: a `dedup_id` is known in all of them.
    roams: bool,
    /// What a killed process had acknowledged may be lost with it.
    may_lose: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_first_in_memory_doubles_nothing() {
    survives(Row { mode: "cache-first", roams: false, may_lose: true }, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journal_first_loses_and_doubles_nothing() {
    survives(Row { mode: "journal-first", roams: false, may_lose: false }, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn db_first_loses_and_doubles_nothing() {
    survives(Row { mode: "db-first", roams: true, may_lose: false }, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_first_on_redis_loses_and_doubles_nothing() {
    survives(Row { mode: "cache-first", roams: true, may_lose: false }, Some(&mut Redis::start(&[]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_first_on_redis_loses_and_doubles_nothing_when_redis_is_killed_too() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    survives(Row { mode: "cache-first", roams: true, may_lose: false }, Some(&mut redis)).await;
}

async fn survives(row: Row, mut redis: Option<&mut Redis>) {
    let case = Case { mode: row.mode, store: StoreKind::Postgres };
    let place = Place::new(case).await;
    let queue = redis.as_ref().map_or(String::new(), |redis| format!("--queue {}", redis.url()));
    // Leases are short, so that nobody waits for them; what bounds a wait is long, so that a slow machine is no failure.
    let limits = "--store-timeout-ms 1900 --queue-lease-ms 2000 --queue-timeout-ms 10000 --claim-lease-s 2 \
                  --deep-idle-interval-ms 2000 --database-connections-max 2";
    // A launch for each: a journal is one process's.
    let launches: Vec<Launch> =
        (0..SERVERS).map(|_| Launch::new(case, &place.database).with(limits).with(&queue)).collect();
    let mut servers: Vec<Server> = launches.iter().map(Launch::start).collect();
    let key = servers[0].key().await;
    let load = Load::start_on(&servers.iter().collect::<Vec<_>>(), &key, Plan::default(), row.roams).await;
    let numbers: Vec<usize> = (0..SERVERS).collect();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let number = *numbers.choose(&mut rand::rng()).expect("servers");
        if let Some(redis) = redis.as_deref_mut().filter(|redis| redis.is_durable()) {
            redis.kill();
            redis.start_again();
        }
        // Dropped is killed and ended: until then its journal is locked.
        drop(servers.remove(number));
        servers.insert(number, launches[number].start());
        load.moved_one(number, &servers[number]);
        load.flows().await;
    }
    let ledger = load.stop().await;
    for server in &servers {
        eventually("nothing is pending", async || (server.metric("ingest_pending_events").await? == 0.0).then_some(()))
            .await;
    }
    if row.may_lose {
        let (found, mut wrong) = ledger.examine(&servers[0], &key, 0, Duration::ZERO).await;
        wrong.retain(|what| !what.contains("acknowledged events are lost"));
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(found.persisted > 0);
    } else {
        ledger.reconcile(&servers[0], &key).await;
    }
    let left = "SELECT COUNT(*) FROM events WHERE status IN ('received', 'processing')";
    eventually("every row is processed", async || (place.count(left).await == 0).then_some(())).await;
    for server in servers {
        let ended = server.stopped().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(!ended.log.contains("panicked"), "{}", ended.log);
    }
}
