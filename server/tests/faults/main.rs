//! Faults under load: the database away, slow, locked or cut off; a full disk; a clock that jumps; bounds of memory reached;
//! SIGTERM at full load; syncs that fail. After each: no acknowledged event is lost or doubled, refusals had their form, nothing
//! panicked, nothing leaked, and the server came back by itself.
//!
//! Each test is a row of modes × stores (see `everywhere!`), drives a real server process with a load of about a thousand events
//! a second, and keeps a ledger of what was acknowledged ([`ledger`]). A fault lasts [`fault_duration`]: short in `scripts/test`,
//! half a minute in `scripts/faults`, which runs the same tests and collects a table of what they saw.

#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

#[path = "../support/redis.rs"]
#[allow(dead_code, reason = "shared with the tests of rules")]
mod redis_server;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the store's tests")]
mod support;

mod ledger;
mod process;
mod proxy;
mod stores;

mod checker;
mod clock;
mod disk;
mod memory;
mod network;
mod outage;
mod several;
mod stop;
mod sync;

use std::io::Write as _;
use std::time::{Duration, Instant};

use ledger::Reconciled;

/// One row of the table: how the server acknowledges, and where it persists.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub mode: &'static str,
    pub store: StoreKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Sqlite,
    Postgres,
}

impl Case {
    /// Whether an acknowledgement waits for the database.
    pub fn waits_for_store(self) -> bool {
        self.mode == "db-first"
    }

    /// Whether what is not in the database yet ends with the process.
    pub fn is_only_in_memory(self) -> bool {
        self.mode == "cache-first"
    }
}

/// Makes one test for each row out of `async fn name(case: Case)`. With a store, for the modes on that one only.
macro_rules! everywhere {
    ($($name:ident)*) => {
        crate::everywhere! { sqlite: $($name)* }
        crate::everywhere! { postgres: $($name)* }
    };
    (sqlite: $($name:ident)*) => {
        crate::everywhere! { @ cache_first_on_sqlite "cache-first" Sqlite: $($name)* }
        crate::everywhere! { @ journal_first_on_sqlite "journal-first" Sqlite: $($name)* }
        crate::everywhere! { @ db_first_on_sqlite "db-first" Sqlite: $($name)* }
    };
    (postgres: $($name:ident)*) => {
        crate::everywhere! { @ cache_first_on_postgres "cache-first" Postgres: $($name)* }
        crate::everywhere! { @ journal_first_on_postgres "journal-first" Postgres: $($name)* }
        crate::everywhere! { @ db_first_on_postgres "db-first" Postgres: $($name)* }
    };
    (@ $row:ident $mode:literal $store:ident: $($name:ident)*) => {
        mod $row {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                super::$name(crate::Case { mode: $mode, store: crate::StoreKind::$store }).await;
            })*
        }
    };
}
pub(crate) use everywhere;

/// What no slow machine uses up, and no test of a server that does all it should waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a fault lasts: `MILLRACE_FAULT_SECONDS`, or a second and a half.
pub fn fault_duration() -> Duration {
    let seconds = std::env::var("MILLRACE_FAULT_SECONDS").ok();
    Duration::from_secs_f64(seconds.map_or(1.5, |text| text.parse().expect("MILLRACE_FAULT_SECONDS is a number")))
}

/// A client with connections of its own, of which it keeps one: under load it opens more than it needs, and tests count what is left.
pub fn client() -> reqwest::Client {
    // An error means that another test has done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().pool_max_idle_per_host(1);
    client.build().expect("a client without settings that can be wrong")
}

/// Looks again until there is something, for at most [`PATIENCE`].
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Adds a row to the table that `scripts/faults` shows: the file that `MILLRACE_FAULT_REPORT` names, if any.
pub fn report(fault: &str, case: Case, found: &Reconciled, back_after: Duration) {
    let Ok(path) = std::env::var("MILLRACE_FAULT_REPORT") else { return };
    let refused: Vec<_> =
        found.refused.iter().map(|((status, name), count)| format!("{count} × {status} {name}")).collect();
    let row = format!(
        "| {fault} | {} | {:?} | {} | {} | {} | 0 | 0 | {:.1} s |\n",
        case.mode,
        case.store,
        found.acknowledged,
        if refused.is_empty() { "–".to_owned() } else { refused.join(", ") },
        found.unanswered,
        back_after.as_secs_f64(),
    );
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(row.as_bytes())).expect("the report can be written");
}
