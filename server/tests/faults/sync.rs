//! Syncs to the device that fail, are slow, or are the last thing the process does: strace stands between it and the kernel.
//!
//! A sync that fails here writes nothing away: the system call is not made at all and the pages stay in the kernel's cache. What a
//! machine without power would have lost is the business of `loadgen crash`.

use std::time::Duration;

use tempfile::TempDir;

use crate::ledger::{Load, Plan};
use crate::process::{Launch, Server};
use crate::stores::{Place, path};
use crate::{Case, eventually, everywhere, fault_duration, report};

everywhere! { sqlite: slow_syncs_make_nothing_fail_that_can_wait }
everywhere! { @ cache_first "cache-first" Sqlite: a_sync_that_fails_acknowledges_nothing_and_the_next_commit_starts_anew }
everywhere! { @ db_first "db-first" Sqlite:
    a_sync_that_fails_acknowledges_nothing_and_the_next_commit_starts_anew
    a_process_killed_in_a_sync_has_lost_nothing_it_acknowledged
}
everywhere! { @ journal_first "journal-first" Sqlite:
    a_sync_of_the_journal_that_fails_ends_the_server_and_loses_nothing
    a_process_killed_in_a_sync_has_lost_nothing_it_acknowledged
    an_event_synced_after_its_sender_was_given_up_is_found_by_the_next_try
}
everywhere! { @ journal_first_beside_postgres "journal-first" Postgres:
    a_sync_of_the_journal_that_fails_ends_the_server_and_loses_nothing
    a_process_killed_in_a_sync_has_lost_nothing_it_acknowledged
}

/// What SQLite calls, and what the journal calls.
const ALL: &str = "fsync,fdatasync";
const JOURNAL: &str = "fdatasync";

/// A load flows once 200 events are acknowledged, and on a slow machine a sync is for one event: so not before some more syncs than that.
const KILLED_LATE: &str = "signal=SIGKILL:when=300";
const FAILING_LATE: &str = "error=EIO:when=300+";

/// Runs what it is given with something done to its syncs, and writes those down.
struct Strace {
    folder: TempDir,
    calls: &'static str,
    inject: &'static str,
}

impl Strace {
    /// `inject` as strace has it after the names of the system calls.
    fn new(calls: &'static str, inject: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), calls, inject }
    }

    fn under(&self) -> Vec<String> {
        // -D: strace is the grandchild, so that signals and exit codes are the server's own.
        let mut words: Vec<_> = ["strace", "-D", "-f", "-qq"].map(str::to_owned).into();
        if !self.inject.starts_with("signal=") {
            // All other system calls stay as fast as they are. Signals come to nothing with it.
            words.push("--seccomp-bpf".to_owned());
        }
        words.extend(["-o".to_owned(), path(&self.folder.path().join("syncs"))]);
        words.extend(["-e".to_owned(), format!("trace={}", self.calls)]);
        words.extend(["-e".to_owned(), format!("inject={}:{}", self.calls, self.inject)]);
        words
    }

    /// A server whose syncs it has in hand, and one whose syncs are left alone.
    fn launches(&self, case: Case, place: &Place) -> (Launch, Launch) {
        let plain = Launch::new(case, &place.database);
        (Launch { under: self.under(), ..plain.clone() }, plain)
    }

    /// How many syncs were not what they should have been.
    fn injected(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("syncs")).expect("strace ran");
        log.lines().filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)")).count()
    }
}

/// Which syncs of each thread fail: rarely enough that load flows in between.
const FAILING: &str = "error=EIO:when=60..63";

async fn a_sync_that_fails_acknowledges_nothing_and_the_next_commit_starts_anew(case: Case) {
    let (place, strace) = (Place::new(case).await, Strace::new(ALL, FAILING));
    let server = strace.launches(case, &place).0.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    tokio::time::sleep(fault_duration()).await;
    eventually("a sync fails", async || (strace.injected() > 0).then_some(())).await;
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    assert_eq!(found.refused.is_empty(), !case.waits_for_store(), "{found:?}");
    report(&format!("{} syncs failed", strace.injected()), case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
}

async fn slow_syncs_make_nothing_fail_that_can_wait(case: Case) {
    let (place, strace) = (Place::new(case).await, Strace::new(ALL, "delay_enter=100000"));
    let server = strace.launches(case, &place).0.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    tokio::time::sleep(fault_duration()).await;
    let found = load.settled(&server, &key, 5).await;
    assert!(strace.injected() > 0);
    assert_eq!((found.refused.len(), found.unanswered), (0, 0), "{found:?}");
    report("syncs 100 ms slower", case, &found, Duration::ZERO);
    assert_eq!(server.stopped().await.code, Some(0));
}

/// The load goes on at a server without faults in the place of the one that ended.
async fn goes_on(load: Load, plain: &Launch, key: &str, fault: &str) {
    let case = plain.case.expect("a case");
    let server: Server = plain.start();
    load.moved(&server);
    let back_after = load.flows().await;
    let found = load.settled(&server, key, 5).await;
    report(fault, case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
}

async fn a_process_killed_in_a_sync_has_lost_nothing_it_acknowledged(case: Case) {
    let (place, strace) = (Place::new(case).await, Strace::new(ALL, KILLED_LATE));
    let (launch, plain) = strace.launches(case, &place);
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let ended = server.ended().await;
    assert_eq!(ended.code, None, "it was killed: {}", ended.log);
    goes_on(load, &plain, &key, "killed in a sync").await;
}

async fn a_sync_of_the_journal_that_fails_ends_the_server_and_loses_nothing(case: Case) {
    let (place, strace) = (Place::new(case).await, Strace::new(JOURNAL, FAILING_LATE));
    let (launch, plain) = strace.launches(case, &place);
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let ended = server.ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("the journal's disk has failed"), "{}", ended.log);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    assert_eq!(strace.injected(), 1, "it does not try again");
    goes_on(load, &plain, &key, "a sync of the journal failed").await;
}

/// The sync takes longer than a request may wait. The sender is told that the outcome is unknown and tries again: that must find the
/// first one, and not be acknowledged under an id which the store then drops as a duplicate.
async fn an_event_synced_after_its_sender_was_given_up_is_found_by_the_next_try(case: Case) {
    let (place, strace) = (Place::new(case).await, Strace::new(JOURNAL, "delay_enter=700000:when=40+5"));
    let server = strace.launches(case, &place).0.with("--store-timeout-ms 300").start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    eventually("a request is given up", async || (load.ledger.refused_with("outcome-unknown") > 0).then_some(())).await;
    tokio::time::sleep(fault_duration()).await;
    let found = load.settled(&server, &key, 5).await;
    report("syncs slower than the time-out", case, &found, Duration::ZERO);
    assert_eq!(server.stopped().await.code, Some(0));
}
