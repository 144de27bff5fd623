//! Several server processes on one PostgreSQL: who wakes whom, what they cost while nothing happens, and deliveries of one that is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use server::config::{Database, Mode};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::life::{listening_on, signal};
use crate::receiver::{Reaction, Receiver};
use crate::support::postgres_url;
use crate::{At, Sender, eventually, fresh_postgres, support};

/// Statements on this database so far, as PostgreSQL itself counts them.
async fn statements(database: &Database) -> i64 {
    let Database::Postgres(url) = database else { unreachable!("it is PostgreSQL") };
    let name = url.rsplit_once('/').expect("a name").1;
    let mut admin = PgConnection::connect(&postgres_url()).await.expect("the private PostgreSQL");
    let sql = format!(
        "SELECT COALESCE(SUM(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
         WHERE d.datname = '{name}'"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut admin).await.expect("pg_stat_statements")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_idle_processes_make_as_many_statements_together_as_one_alone() {
    let mut admin = PgConnection::connect(&postgres_url()).await.unwrap();
    // Another test may do the same at the same time, which PostgreSQL answers with a unique violation.
    let _ = sqlx::raw_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(&mut admin).await;
    let mut at = At::new(Mode::DbFirst, fresh_postgres(Default::default()).await);
    let limits = &mut at.settings.limits;
    (limits.poll_interval_ms, limits.poll_interval_ms_max, limits.deep_idle_after_polls) = (1, 1, 1);
    limits.deep_idle_interval_ms = 200;
    let servers = [at.start(), at.start(), at.start()];
    // The fourth that listens is the store that made this database.
    for server in &servers {
        eventually(async || (server.metric("ingest_processes").await == 4.0).then_some(())).await;
    }
    // The wait that each had begun before it knew of all of them.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let before = statements(&at.fresh.database).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let made = statements(&at.fresh.database).await - before;
    // 3 processes × 4 s / (4 × 200 ms) = 15 by the schedule; each by itself would make 60 in all. A machine that stalls makes fewer.
    assert!((3..=25).contains(&made), "{made} statements");
}

/// Three processes with a webhook that only the first was told of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_has_written_is_delivered_at_once_and_not_at_the_next_poll() {
    let receiver = Receiver::always(Reaction::Status(200)).await;
    let mut at = At::new(Mode::CacheFirst, fresh_postgres(Default::default()).await);
    at.settings.webhook_private_addresses = true;
    let limits = &mut at.settings.limits;
    // So that no poll comes to help: they are all over before the first event.
    (limits.poll_interval_ms, limits.poll_interval_ms_max, limits.deep_idle_after_polls) = (1, 1, 1);
    limits.deep_idle_interval_ms = 3_600_000;
    let (one, sender) = at.ready().await;
    let other = at.start();
    for server in [&one, &other] {
        eventually(async || (server.metric("ingest_deep_idle").await == 1.0).then_some(())).await;
    }
    one.sender(&sender.key).post("/api/webhook/config", json!({"webhook_url": receiver.url}).to_string()).await;
    let id = other.sender(&sender.key).accepted(json!({"type": "t", "payload": 1})).await;
    eventually(async || receiver.ids().contains(&id).then_some(())).await;

    // Another that writes and does not deliver: it announces, and a process in deep idle does.
    let (store, _) = support::open_again(&at.fresh.database, Default::default()).await;
    let organization = organization_of(&at.fresh.database).await;
    let event = support::event(organization, None, "2");
    store.insert(std::slice::from_ref(&event), server::store::Handling::Done).await.expect("it is written");
    eventually(async || receiver.ids().contains(&event.id.to_string()).then_some(())).await;
    // Rows that want the processor, of a process that stops.
    let event = support::event(organization, None, "3");
    store.insert(&[event], server::store::Handling::Wanted).await.expect("it is written");
    store.announce().await.expect("it is announced");
    eventually(async || (!store.wants_processing(0).await.expect("a look")).then_some(())).await;
}

async fn organization_of(database: &Database) -> uuid::Uuid {
    let Database::Postgres(url) = database else { unreachable!("it is PostgreSQL") };
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    sqlx::query_scalar("SELECT organization_id FROM webhooks").fetch_one(&mut connection).await.expect("a webhook")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_of_a_process_that_is_killed_are_made_by_the_others_and_none_is_forgotten() {
    let fresh = fresh_postgres(Default::default()).await;
    let Database::Postgres(url) = &fresh.database else { unreachable!("it is PostgreSQL") };
    let receiver = Receiver::start(|_, _| Reaction::After(Duration::from_millis(30), 200)).await;
    let flags = "--webhook-private-addresses --webhook-timeout-ms 500 --webhook-lease-ms 1000 --claim-lease-s 1 --deep-idle-interval-ms 2000 \
                 --webhook-organization-attempts-max 4 --database-connections-max 2";
    let start = || listening_on(url, "db-first", &flags.split_whitespace().collect::<Vec<_>>(), &[]);
    let mut servers = [start(), start(), start()];
    let sender = crate::life::organization(&servers[0].1).await;
    sender.post("/api/webhook/config", json!({"webhook_url": receiver.url}).to_string()).await;
    let mut ids = BTreeSet::new();
    for number in 0..300 {
        if number == 150 {
            signal(&servers[1].0, "KILL");
            let _ = servers[1].0.wait();
        }
        let by = Sender {
            url: servers[if number < 150 { number % 3 } else { 2 * (number % 2) }].1.clone(),
            ..sender.clone()
        };
        let (status, answer) = by.event(json!({"type": "t", "payload": number})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        ids.insert(answer["id"].as_str().unwrap().to_owned());
    }
    eventually(async || {
        let delivered: BTreeSet<_> = receiver.ids().into_iter().collect();
        (delivered == ids).then_some(())
    })
    .await;
    let sent = receiver.ids().len();
    // Only what the killed one had under way, four at a time, may have come twice.
    assert!((300..=304).contains(&sent), "{sent} deliveries of 300 events");
    for (mut child, _) in servers {
        let _ = child.kill();
        let _ = child.wait();
    }
}
