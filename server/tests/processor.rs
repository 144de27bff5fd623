//! The processor on real databases: nothing lost, nothing doubled, across idle times, outages and several processes.

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use server::config::{Database, Polling};
use server::metrics::Statement;
use server::pending::Pending;
use server::polling::Schedule;
use server::processor::{Processor, ProcessorSettings};
use server::store::{Handling, Store, StoreLimits};
use sqlx::{Connection as _, PgConnection};
use support::{Fresh, event, fresh_postgres, fresh_sqlite, open_again};
use uuid::Uuid;

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The waits of the default, a hundred times shorter.
fn hasty(policy: Polling) -> ProcessorSettings {
    let schedule = Schedule {
        fixed_interval: Duration::from_millis(20),
        base_interval: Duration::from_millis(1),
        backoff_interval_max: Duration::from_millis(20),
        deep_idle_after_polls: 10,
        deep_idle_interval: Duration::from_millis(300),
    };
    ProcessorSettings { policy, schedule, ..ProcessorSettings::default() }
}

fn put(pending: &Pending, organization: Uuid, count: usize) -> Vec<Uuid> {
    let events: Vec<_> = (0..count).map(|number| event(organization, None, &number.to_string())).collect();
    events.iter().for_each(|event| pending.put(event.clone()).expect("room"));
    events.iter().map(|event| event.id).collect()
}

/// The ids of an inbox of `count` events.
async fn inbox(store: &Store, organization: Uuid, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    until("the inbox shows all events", async || {
        let page = store.inbox(organization, None, 10_000, None).await.expect("a page");
        ids = page.events.iter().map(|stored| stored.event.id).collect();
        ids.len() >= count
    })
    .await;
    ids
}

async fn everything_put_is_persisted_once_and_in_order(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let pending = Arc::new(Pending::new(10_000, 10_000_000));
    let processor = Processor::spawn(fresh.store.clone(), pending.clone(), fresh.metrics.clone(), hasty(Polling::Wake));
    let mut ids = Vec::new();
    for burst in [1, 700, 3, 1_200, 1] {
        ids.extend(put(&pending, organization, burst));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(processor.shutdown().await, 0);
    assert_eq!(inbox(&fresh.store, organization, ids.len()).await, ids);
    assert_eq!(fresh.metrics.events_persisted.get(), ids.len() as u64);
}

async fn an_idle_cycle_is_one_statement_or_two_with_fixed(fresh: Fresh) {
    for (policy, counts_each) in [(Polling::Wake, 0), (Polling::Adaptive, 0), (Polling::Fixed, 1)] {
        let pending = Arc::new(Pending::new(10, 10_000));
        let read = || {
            (
                fresh.metrics.statements(Statement::Select),
                fresh.metrics.statements(Statement::Count),
                fresh.metrics.statements_all(),
            )
        };
        let before = read();
        let processor = Processor::spawn(fresh.store.clone(), pending, fresh.metrics.clone(), hasty(policy));
        tokio::time::sleep(Duration::from_millis(400)).await;
        processor.shutdown().await;
        let after = read();
        let (selects, counts, all) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
        assert!(selects > 5, "{policy:?}: {selects}");
        assert_eq!(counts, selects * counts_each, "{policy:?}");
        assert_eq!(all, selects + counts, "{policy:?}: nothing else");
    }
}

async fn rows_that_a_crash_left_behind_are_finished_by_one_process_each(fresh: Fresh) {
    let events: Vec<_> = (0..900).map(|_| event(Uuid::from_u128(1), None, "1")).collect();
    fresh.store.insert(&events, Handling::Wanted).await.expect("insert");
    let (second, second_metrics) = open_again(&fresh.database, StoreLimits::default()).await;
    let settings = ProcessorSettings { batch_events_max: 50, ..hasty(Polling::Wake) };
    let pending = || Arc::new(Pending::new(10, 10_000));
    let one = Processor::spawn(fresh.store.clone(), pending(), fresh.metrics.clone(), settings.clone());
    let two = Processor::spawn(second.clone(), pending(), second_metrics, settings);
    until("no row is left", async || !fresh.store.wants_processing(i64::MAX).await.expect("probe")).await;
    one.shutdown().await;
    two.shutdown().await;
}

mod sqlite {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_put_is_persisted_once_and_in_order() {
        super::everything_put_is_persisted_once_and_in_order(fresh_sqlite(StoreLimits::default()).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_idle_cycle_is_one_statement_or_two_with_fixed() {
        super::an_idle_cycle_is_one_statement_or_two_with_fixed(fresh_sqlite(StoreLimits::default()).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_that_a_crash_left_behind_are_finished_by_one_process_each() {
        super::rows_that_a_crash_left_behind_are_finished_by_one_process_each(
            fresh_sqlite(StoreLimits::default()).await,
        )
        .await;
    }
}

mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_put_is_persisted_once_and_in_order() {
        super::everything_put_is_persisted_once_and_in_order(fresh_postgres(StoreLimits::default()).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_idle_cycle_is_one_statement_or_two_with_fixed() {
        super::an_idle_cycle_is_one_statement_or_two_with_fixed(fresh_postgres(StoreLimits::default()).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_that_a_crash_left_behind_are_finished_by_one_process_each() {
        super::rows_that_a_crash_left_behind_are_finished_by_one_process_each(
            fresh_postgres(StoreLimits::default()).await,
        )
        .await;
    }
}

/// Statements that PostgreSQL itself has counted in this database, without the ones that count and the set-up.
async fn statements_seen_by_postgres(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT COALESCE(SUM(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
         WHERE d.datname = current_database() AND query NOT LIKE '%pg_stat_statements%'",
    )
    .fetch_one(connection)
    .await
    .expect("pg_stat_statements")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_count_of_statements_is_that_of_postgres() {
    let fresh = fresh_postgres(StoreLimits { postgres_connections_max: 1, ..StoreLimits::default() }).await;
    let Database::Postgres(url) = &fresh.database else { panic!("not PostgreSQL") };
    let mut observer = PgConnection::connect(url).await.expect("connect");
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&mut observer).await.expect("the extension");
    let organization = Uuid::now_v7();
    let (seen_before, ours_before) = (statements_seen_by_postgres(&mut observer).await, fresh.metrics.statements_all());

    let pending = Arc::new(Pending::new(10_000, 10_000_000));
    let processor =
        Processor::spawn(fresh.store.clone(), pending.clone(), fresh.metrics.clone(), hasty(Polling::Fixed));
    put(&pending, organization, 1_234);
    let wanted: Vec<_> = (0..20).map(|_| event(organization, Some("same"), "1")).collect();
    fresh.store.insert(&wanted, Handling::Wanted).await.expect("insert");
    let old = support::aged_event(organization, "old", StoreLimits::default().dedup_window * 2);
    fresh.store.insert(&[old, event(organization, Some("old"), "2")], Handling::Done).await.expect("insert");
    fresh.store.acknowledge(organization, wanted[0].id).await.expect("acknowledge");
    fresh.store.acknowledge(organization, wanted[0].id).await.expect("acknowledge");
    fresh.store.durability_settings().await.expect("settings");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(processor.shutdown().await, 0);

    let ours = fresh.metrics.statements_all() - ours_before;
    let seen = statements_seen_by_postgres(&mut observer).await - seen_before;
    assert!(ours > 20, "{ours}");
    assert_eq!(i64::try_from(ours).expect("a count"), seen);
}

/// Runs scripts/postgres; what it prints.
fn postgres_script(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
    let output = Command::new(script).args(arguments).output().expect("scripts/postgres runs");
    assert!(output.status.success(), "scripts/postgres {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A PostgreSQL that this test may stop; ends with it.
struct Own {
    folder: tempfile::TempDir,
    url: String,
    port: String,
}

impl Own {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = postgres_script(&["start", &folder.path().to_string_lossy()]);
        let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port").to_owned();
        Self { folder, url, port }
    }

    fn stop(&self) {
        postgres_script(&["stop", &self.folder.path().to_string_lossy()]);
    }

    fn start_again(&self) {
        assert_eq!(postgres_script(&["start", &self.folder.path().to_string_lossy(), &self.port]), self.url);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
        // Best effort: it may be stopped already.
        drop(Command::new(script).arg("stop").arg(self.folder.path()).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_keeps_events_pending_and_gets_each_once_when_it_is_back() {
    let own = Own::start();
    let limits = StoreLimits { acquire_timeout: Duration::from_millis(500), ..StoreLimits::default() };
    let (store, metrics) = open_again(&Database::Postgres(own.url.clone()), limits).await;
    let organization = Uuid::now_v7();
    let pending = Arc::new(Pending::new(10_000, 10_000_000));
    let processor = Processor::spawn(store.clone(), pending.clone(), metrics.clone(), hasty(Polling::Wake));
    // Events keep coming while it is stopped, so that one batch is cut off in the middle.
    let feeder = tokio::spawn({
        let pending = pending.clone();
        async move {
            let mut ids = Vec::new();
            for _ in 0..150 {
                ids.extend(put(&pending, organization, 20));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ids
        }
    });
    until("some are persisted", async || metrics.events_persisted.get() > 100).await;
    tokio::task::block_in_place(|| own.stop());
    let ids = feeder.await.expect("the feeder");
    until("the outage is noticed", async || metrics.store_available.get() == 0).await;
    assert!(pending.events() > 0, "what came since is kept");
    assert!(store.ping().await.is_err());
    tokio::task::block_in_place(|| own.start_again());
    until("everything is persisted", async || pending.events() == 0).await;
    assert_eq!(metrics.store_available.get(), 1);
    let kept = inbox(&store, organization, ids.len()).await;
    assert_eq!(kept.len(), ids.len());
    assert_eq!(kept.iter().collect::<HashSet<_>>(), ids.iter().collect::<HashSet<_>>());
    assert_eq!(processor.shutdown().await, 0);
    store.close().await;
}
