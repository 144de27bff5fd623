//! Every injected loss, duplicate and corruption is found, and none is invented, also when the server restarts in between.

use reports::model::{CaveatKind, TargetResult};
use rustix::process::Signal;

use super::rule::{dedup_ids, is_hit};
use super::server::{Data, FaultyServer};
use crate::support::{Done, PATIENT, run};

const DROPPED_SHARE: f64 = 0.08;
/// Each often enough that one without any hit is out of the question.
const FAULTS: [(&str, f64); 7] = [
    ("status", 0.06),
    ("close-before", 0.05),
    ("close-after", 0.08),
    ("drop", DROPPED_SHARE),
    ("duplicate", 0.1),
    ("corrupt", 0.1),
    ("ack-delay", 0.1),
];

/// Little, because the other tests want the machine too.
const RATE_PER_S: u64 = 100;

fn flags() -> String {
    let flag = |(name, share): (&str, f64)| match name {
        "status" => format!("status=507:{share}"),
        "ack-delay" => format!("ack-delay=30ms:{share}"),
        _ => format!("{name}={share}"),
    };
    FAULTS.map(flag).join(",")
}

/// What a report should say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Truth {
    acknowledged: u64,
    lost: u64,
    duplicated: u64,
    corrupted: u64,
    unacknowledged: u64,
    /// Answered 507.
    refused: u64,
    /// Not answered.
    closed: u64,
}

/// Follows each event through the faults by their description.
fn truth(done: &Done, faulty: bool) -> Truth {
    let mut truth = Truth::default();
    for dedup_id in dedup_ids(&done.run, done.run.results[0].load.planned) {
        let hit = |fault: &str| {
            let share = FAULTS.iter().find(|(name, _)| *name == fault).expect("a fault").1;
            faulty && is_hit(fault, share, &dedup_id)
        };
        if hit("status") {
            truth.refused += 1;
            continue;
        }
        if hit("close-before") {
            truth.closed += 1;
            continue;
        }
        let (acknowledged, kept) = (!hit("close-after"), !hit("drop"));
        truth.closed += u64::from(!acknowledged);
        truth.acknowledged += u64::from(acknowledged);
        truth.lost += u64::from(acknowledged && !kept);
        truth.unacknowledged += u64::from(!acknowledged && kept);
        truth.duplicated += u64::from(kept && hit("duplicate"));
        truth.corrupted += u64::from(kept && hit("corrupt"));
    }
    truth
}

fn reported(result: &TargetResult) -> Truth {
    let ledger = result.ledger.as_ref().expect("a ledger");
    assert_eq!(ledger.unverified, 0, "the inbox can be read to its end");
    let closed = "connection closed before the whole answer";
    Truth {
        acknowledged: ledger.acknowledged,
        lost: ledger.lost,
        duplicated: ledger.duplicated,
        corrupted: ledger.corrupted,
        unacknowledged: ledger.unacknowledged,
        refused: result.load.statuses.get("507").copied().unwrap_or(0),
        closed: result.load.errors.iter().filter(|error| error.kind == closed).map(|error| error.count).sum(),
    }
}

fn load(url: &str, duration_s: u64) -> Done {
    let (rate, duration) = (RATE_PER_S.to_string(), format!("{duration_s}s"));
    let schedule = ["--arrivals", "constant", "--rate", &rate, "--warmup", "0s", "--duration", &duration];
    run(&[&["--target", url][..], &PATIENT, &schedule].concat())
}

#[track_caller]
fn assert_true(done: &Done, faulty: bool, place: &str) {
    let result = &done.run.results[0];
    let truth = truth(done, faulty);
    assert_eq!(reported(result), truth, "{place}:\n{}", done.text);
    let named = &result.ledger.as_ref().expect("a ledger").lost_examples;
    let dropped = |dedup_id: &String| is_hit("drop", DROPPED_SHARE, dedup_id);
    assert!(named.iter().all(dropped) && named.len() as u64 == truth.lost.min(10), "{place}: {named:?}");
    assert_eq!(result.load.outcomes.accepted, truth.acknowledged);
    assert_eq!(done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::FaultsInjected), faulty);
    if faulty {
        let injected =
            [truth.lost, truth.duplicated, truth.corrupted, truth.unacknowledged, truth.refused, truth.closed];
        assert!(!injected.contains(&0), "{truth:?}");
    }
}

/// In these modes on either database, all at once.
fn everywhere(modes: &[&str], check: impl Fn(&str, fn() -> Data, &str) + Sync) {
    std::thread::scope(|scope| {
        for mode in modes {
            for (data, database) in [(Data::sqlite as fn() -> Data, "SQLite"), (Data::postgres, "PostgreSQL")] {
                let check = &check;
                scope.spawn(move || check(mode, data, &format!("{mode} on {database}")));
            }
        }
    });
}

const KEEPING: [&str; 2] = ["cache-first", "db-first"];

#[test]
fn every_injected_fault_is_found() {
    everywhere(&KEEPING, |mode, data, place| {
        let server = FaultyServer::start(mode, data(), &flags());
        assert_true(&load(&server.url, 3), true, place);
    });
}

#[test]
fn nothing_is_found_where_nothing_was_injected() {
    everywhere(&KEEPING, |mode, data, place| {
        let server = FaultyServer::start(mode, data(), "");
        assert_true(&load(&server.url, 2), false, place);
    });
}

/// A load during which the server is ended with this signal, and started again.
fn load_with_a_restart(server: &mut FaultyServer, signal: Signal) -> Done {
    const DURATION_S: u64 = 4;
    std::thread::scope(|scope| {
        let url = server.url.clone();
        let load = scope.spawn(move || load(&url, DURATION_S));
        server.wait_for_acknowledged(RATE_PER_S * DURATION_S / 4);
        server.restart(signal);
        load.join().expect("a result")
    })
}

/// Requests that failed although nothing made them to: they met a server that was just ending.
fn surprises(done: &Done, truth: &Truth) -> u64 {
    let outcomes = done.run.results[0].load.outcomes;
    outcomes.failed + outcomes.timed_out + outcomes.not_sent - truth.refused - truth.closed
}

/// What must be true even when some requests failed that should not have: of what was injected at most as many are missing, nothing is
/// added.
#[track_caller]
fn assert_true_but_for(surprises: u64, done: &Done, faulty: bool, place: &str) {
    let (truth, reported) = (truth(done, faulty), reported(&done.run.results[0]));
    for (reported, truth) in
        [(reported.lost, truth.lost), (reported.duplicated, truth.duplicated), (reported.corrupted, truth.corrupted)]
    {
        assert!(reported <= truth && reported + surprises >= truth, "{place}, {surprises}: {reported} {truth}");
    }
    assert!(reported.unacknowledged <= truth.unacknowledged + surprises, "{place}");
}

#[test]
fn a_restart_in_between_hides_no_fault_and_looks_like_none() {
    const ATTEMPTS_MAX: usize = 5;
    everywhere(&KEEPING, |mode, data, place| {
        for faults in ["", &flags()] {
            // Exact once no request met the server while it was ending, which it can by a hair's breadth.
            for _ in 0..ATTEMPTS_MAX {
                let mut server = FaultyServer::start(mode, data(), faults);
                let done = load_with_a_restart(&mut server, Signal::TERM);
                let surprises = surprises(&done, &truth(&done, !faults.is_empty()));
                // An event that was to be kept and left without an answer, but met the server while it was ending, was not kept: it
                // fails as it was meant to, so it is no surprise. So not `assert_true`, which counts those events to the last.
                assert_true_but_for(surprises, &done, !faults.is_empty(), place);
                if surprises == 0 {
                    break;
                }
            }
        }
    });
}

#[test]
fn a_server_that_is_killed_in_db_first_loses_nothing_and_the_report_says_so() {
    everywhere(&["db-first"], |mode, data, place| {
        let mut server = FaultyServer::start(mode, data(), "");
        let done = load_with_a_restart(&mut server, Signal::KILL);
        let ledger = done.run.results[0].ledger.as_ref().expect("a ledger");
        let faults = (ledger.lost, ledger.duplicated, ledger.corrupted, ledger.unverified);
        assert_eq!(faults, (0, 0, 0, 0), "{place}: {ledger:?}\n{}", done.text);
        assert!(ledger.acknowledged > RATE_PER_S && ledger.persisted == ledger.acknowledged, "{place}: {ledger:?}");
    });
}
