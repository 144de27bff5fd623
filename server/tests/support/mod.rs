//! What the server's tests share: stores of their own on both databases, and events to put into them.
//!
//! SQLite lives in a temporary folder. PostgreSQL is the private instance that `MILLRACE_TEST_POSTGRES` names; each test
//! makes a database of its own in it and drops it at the end. A missing instance fails the test, it never skips it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use server::config::Database;
use server::event::Event;
use server::metrics::{BuildInfo, Metrics};
use server::store::{Store, StoreLimits, now_us};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

/// A store of this test's own, and what keeps its database alive.
pub struct Fresh {
    /// The store.
    pub store: Store,
    /// The metrics that it counts in.
    pub metrics: Arc<Metrics>,
    /// Where it is, to open it a second time.
    pub database: Database,
    _keeper: Keeper,
}

/// Removes the database when the test is over.
enum Keeper {
    Folder(#[expect(dead_code, reason = "held for its drop")] tempfile::TempDir),
    Database { admin_url: String, name: String },
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Self::Database { admin_url, name } = self {
            let (admin_url, name) = (admin_url.clone(), name.clone());
            // Best effort, on a thread and runtime of its own: drop may run inside the test's.
            let dropping = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map(|runtime| {
                    runtime.block_on(admin(&admin_url, format!("DROP DATABASE \"{name}\" WITH (FORCE)")))
                })
            });
            drop(dropping.join());
        }
    }
}

/// A store on a new SQLite file.
pub async fn fresh_sqlite(limits: StoreLimits) -> Fresh {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = Database::Sqlite(folder.path().join("events.db"));
    open(database, limits, Keeper::Folder(folder)).await
}

/// A store on a new database of the private PostgreSQL.
pub async fn fresh_postgres(limits: StoreLimits) -> Fresh {
    let empty = empty_postgres().await;
    open(empty.database, limits, empty.keeper).await
}

/// A database without tables; dropped with this.
pub struct Empty {
    /// Where it is.
    pub database: Database,
    keeper: Keeper,
}

/// A new database of the private PostgreSQL.
pub async fn empty_postgres() -> Empty {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let admin_url = postgres_url();
    let name = format!("t{}_{}_{}", std::process::id(), now_us(), NUMBER.fetch_add(1, Ordering::Relaxed));
    admin(&admin_url, format!("CREATE DATABASE \"{name}\"")).await.expect("CREATE DATABASE on MILLRACE_TEST_POSTGRES");
    let base = admin_url.rsplit_once('/').expect("MILLRACE_TEST_POSTGRES ends in /DATABASE").0;
    let database = Database::Postgres(format!("{base}/{name}"));
    Empty { database, keeper: Keeper::Database { admin_url, name } }
}

/// The private PostgreSQL of the tests.
pub fn postgres_url() -> String {
    std::env::var("MILLRACE_TEST_POSTGRES").expect(
        "this test needs a private PostgreSQL: run scripts/test, or \
         export MILLRACE_TEST_POSTGRES=$(scripts/postgres start DIR)",
    )
}

/// Opens a store a second time, as another process would.
pub async fn open_again(database: &Database, limits: StoreLimits) -> (Store, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(&BuildInfo::default()));
    (Store::connect(database, limits, metrics.clone()).await.expect("the store opens"), metrics)
}

async fn open(database: Database, limits: StoreLimits, keeper: Keeper) -> Fresh {
    let (store, metrics) = open_again(&database, limits).await;
    Fresh { store, metrics, database, _keeper: keeper }
}

async fn admin(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

/// An event of `organization_id`, taken in now.
pub fn event(organization_id: Uuid, dedup_id: Option<&str>, payload: &str) -> Arc<Event> {
    Arc::new(Event {
        id: Uuid::now_v7(),
        organization_id,
        event_type: "order.created".into(),
        dedup_id: dedup_id.map(Into::into),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        created_at_us: now_us(),
        followed: None,
    })
}

/// Like [`event`], but taken in `age` ago.
pub fn aged_event(organization_id: Uuid, dedup_id: &str, age: Duration) -> Arc<Event> {
    let mut event = Event::clone(&event(organization_id, Some(dedup_id), "1"));
    event.created_at_us -= i64::try_from(age.as_micros()).expect("an age");
    Arc::new(event)
}
