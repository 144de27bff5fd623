//! Syncs to the device that fail, are slow, or are the last thing the process does: strace stands between it and the kernel.

use std::time::Duration;

use tempfile::TempDir;

use crate::ledger::{Load, Plan};
use crate::process::Launch;
use crate::stores::Place;
use crate::{Case, everywhere, fault_duration, report};

everywhere! { sqlite:
    a_sync_that_fails_acknowledges_nothing_and_the_next_commit_starts_anew
    slow_syncs_make_nothing_fail_that_can_wait
}
everywhere! { @ db_first_on_sqlite_killed "db-first" Sqlite: a_process_killed_in_a_sync_has_lost_nothing_it_acknowledged }

/// Runs what it is given with something done to its syncs, and writes those down.
struct Strace {
    folder: TempDir,
    inject: String,
}

impl Strace {
    /// `inject` as strace has it after the names of the system calls.
    fn new(inject: &str) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), inject: inject.to_owned() }
    }

    fn under(&self) -> Vec<String> {
        let output = self.folder.path().join("syncs").display().to_string();
        // -D: strace is the grandchild, so that signals and exit codes are the server's own.
        let mut words: Vec<_> = ["strace", "-D", "-f", "-qq"].map(str::to_owned).into();
        if !self.inject.starts_with("signal=") {
            // All other system calls stay as fast as they are. Signals come to nothing with it.
            words.push("--seccomp-bpf".to_owned());
        }
        words.extend(["-e", "trace=fsync,fdatasync", "-o"].map(str::to_owned));
        words.extend([output, "-e".to_owned(), format!("inject=fsync,fdatasync:{}", self.inject)]);
        words
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
    let (place, strace) = (Place::new(case).await, Strace::new(FAILING));
    let mut launch = Launch::new(case, &place.database);
    launch.under = strace.under();
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    tokio::time::sleep(fault_duration()).await;
    crate::eventually("a sync fails", async || (strace.injected() > 0).then_some(())).await;
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    assert_eq!(found.refused.is_empty(), !case.waits_for_store(), "{found:?}");
    report(&format!("{} syncs failed", strace.injected()), case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
}

async fn slow_syncs_make_nothing_fail_that_can_wait(case: Case) {
    let (place, strace) = (Place::new(case).await, Strace::new("delay_enter=100000"));
    let mut launch = Launch::new(case, &place.database);
    launch.under = strace.under();
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    tokio::time::sleep(fault_duration()).await;
    let found = load.settled(&server, &key, 5).await;
    assert!(strace.injected() > 0);
    assert_eq!((found.refused.len(), found.unanswered), (0, 0), "{found:?}");
    report("syncs 100 ms slower", case, &found, Duration::ZERO);
    assert_eq!(server.stopped().await.code, Some(0));
}

async fn a_process_killed_in_a_sync_has_lost_nothing_it_acknowledged(case: Case) {
    let place = Place::new(case).await;
    let plain = Launch::new(case, &place.database);
    let strace = Strace::new("signal=SIGKILL:when=120");
    let mut launch = plain.clone();
    launch.under = strace.under();
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let ended = server.ended().await;
    assert_eq!(ended.code, None, "it was killed: {}", ended.log);
    let server = plain.start();
    load.moved(&server);
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    report("killed in a sync", case, &found, back_after);
}
