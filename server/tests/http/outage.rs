//! A database that goes away and comes back (rule I6 and the promises of the modes), and a buffer that fills up meanwhile.

use reqwest::StatusCode;
use serde_json::json;
use server::config::{Database, Mode};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::{At, Sender, Server, eventually, read, support};

/// Keeps the database away until [`Outage::end`].
pub enum Outage {
    /// SQLite: another process holds the lock to write.
    Locked(SqliteConnection),
    /// PostgreSQL: takes no connections.
    Closed { name: String },
}

impl Outage {
    pub async fn begin(database: &Database) -> Self {
        match database {
            Database::Sqlite(path) => {
                let mut other = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
                sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
                Self::Locked(other)
            }
            Database::Postgres(url) => {
                let name = url.rsplit_once('/').unwrap().1.to_owned();
                admin(format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false")).await;
                admin(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
                Self::Closed { name }
            }
        }
    }

    pub async fn end(self) {
        match self {
            Self::Locked(mut other) => drop(sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap()),
            Self::Closed { name } => admin(format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true")).await,
        }
    }
}

async fn admin(sql: String) {
    let mut connection = PgConnection::connect(&support::postgres_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

async fn refused(sender: &Sender) {
    let response =
        sender.request("POST", "/api/events").json(&json!({"type": "t", "payload": 1})).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(read(response).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

pub async fn unready(server: &Server, reason: &str) {
    eventually(async || {
        let response = server.get("/readyz").await;
        let unready = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        let body: serde_json::Value = response.json().await.unwrap();
        (unready && body["reasons"].as_array().unwrap().contains(&json!(reason))).then_some(())
    })
    .await;
}

async fn ready(server: &Server) {
    eventually(async || (server.get("/readyz").await.status() == StatusCode::OK).then_some(())).await;
}

/// `cache-first` and `journal-first`: keeps what it acknowledged, refuses what it cannot keep, says so, and persists everything once when the database is back.
async fn buffered(mut at: At) {
    at.settings.limits.pending_events_max = 5;
    // So short that a key is due for a look-up while the database is away.
    (at.settings.limits.key_cache_ttl_s, at.settings.limits.store_timeout_ms) = (1, 500);
    let (server, sender) = at.ready().await;
    sender.accepted(json!({"type": "t", "payload": 0})).await;
    sender.persisted(1).await;
    let outage = Outage::begin(&at.fresh.database).await;
    for payload in 1..=5 {
        let id = sender.accepted(json!({"type": "t", "payload": payload, "dedup_id": payload.to_string()})).await;
        assert_eq!(sender.get(&format!("/api/events/{id}")).await.1["state"], "pending");
    }
    refused(&sender).await;
    unready(&server, "pending-full").await;
    unready(&server, "database-unavailable").await;
    assert_eq!(server.metric("ingest_pending_events").await, 5.0);
    assert_eq!(server.metric("ingest_store_available").await, 0.0);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(sender.event(json!({"type": "t", "payload": 1, "dedup_id": "1"})).await.0, StatusCode::CONFLICT);
    refused(&sender).await;
    outage.end().await;
    ready(&server).await;
    let payloads: Vec<_> = sender.persisted(6).await.iter().map(|event| event["payload"].as_u64().unwrap()).collect();
    assert_eq!(payloads, [0, 1, 2, 3, 4, 5]);
    sender.accepted(json!({"type": "t", "payload": 6})).await;
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
}

/// Refuses while the database is away, and takes events again when it is back.
async fn db_first(mut at: At) {
    at.settings.limits.store_timeout_ms = 500;
    let (server, sender) = at.ready().await;
    sender.accepted(json!({"type": "t", "payload": 0})).await;
    let outage = Outage::begin(&at.fresh.database).await;
    refused(&sender).await;
    unready(&server, "database-unavailable").await;
    outage.end().await;
    ready(&server).await;
    let accepted = eventually(async || {
        let (status, _) = sender.event(json!({"type": "t", "payload": 2, "dedup_id": "d"})).await;
        (status != StatusCode::SERVICE_UNAVAILABLE).then_some(status)
    });
    assert!([StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(&accepted.await));
    let events = sender.persisted(2).await;
    assert_eq!(events.iter().filter(|event| event["dedup_id"] == "d").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_cache_first_keeps_and_retries_on_sqlite() {
    buffered(At::cache_first_sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_cache_first_keeps_and_retries_on_postgres() {
    buffered(At::cache_first_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_journal_first_keeps_and_retries_on_sqlite() {
    buffered(At::journal_first_sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_journal_first_keeps_and_retries_on_postgres() {
    buffered(At::journal_first_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_db_first_refuses_meanwhile_on_sqlite() {
    db_first(At::db_first_sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_db_first_refuses_meanwhile_on_postgres() {
    db_first(At::db_first_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o5_what_cannot_be_persisted_in_time_is_reported_by_number_and_with_a_journal_comes_with_the_next_start() {
    for mut at in [At::cache_first_sqlite().await, At::journal_first_sqlite().await] {
        (at.settings.limits.shutdown_timeout_ms, at.settings.limits.store_timeout_ms) = (1000, 300);
        let (server, sender) = at.ready().await;
        let outage = Outage::begin(&at.fresh.database).await;
        for payload in 0..3 {
            sender.accepted(json!({"type": "t", "payload": payload})).await;
        }
        let has_journal = at.settings.mode == Mode::JournalFirst;
        let stopped = server.shutdown().await;
        assert_eq!((stopped.unpersisted_events, stopped.is_recoverable), (3, has_journal));
        outage.end().await;
        let server = at.start();
        let kept = if has_journal { 3 } else { 0 };
        assert_eq!(server.sender(&sender.key).persisted(kept).await.len(), kept);
        assert_eq!(server.shutdown().await.unpersisted_events, 0);
    }
}
