//! The reference server killed under load, on real files and real PostgreSQL: what it promised is there, and one that breaks its promise
//! is caught. Power cuts take root and loop devices: `scripts/crash check` tests them.

use std::process::Command;

use reports::model::{CaveatKind, CrashTest, Outcome};

use crate::support::{Done, begin_command};

/// Moments and loads such that a slow machine has acknowledged something before most kills.
const SHORT: [&str; 10] =
    ["--rate", "400", "--load-max", "1500ms", "--connections", "8", "--kills", "3", "--recovery-share", "0.5"];

/// Its data folders lie in a folder of the test's own, and there must be none left.
fn crash(arguments: &[&str]) -> Done {
    let data = tempfile::tempdir().expect("a folder");
    // PostgreSQL does not run as root: whoever runs it must be able to enter.
    std::fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let folder = ["--data-dir", data.path().to_str().expect("a path")];
    let done = begin_command("crash", &[&SHORT[..], &folder, arguments].concat()).end();
    let left: Vec<_> = std::fs::read_dir(data.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}\n{}", done.text);
    done
}

fn databases() -> String {
    let url = std::env::var("MILLRACE_TEST_POSTGRES").expect(
        "MILLRACE_TEST_POSTGRES is not set: run scripts/test, or export MILLRACE_TEST_POSTGRES=$(scripts/postgres start DIR)",
    );
    format!("sqlite,{url}")
}

fn value<'a>(test: &'a CrashTest, name: &str) -> Option<&'a str> {
    test.settings.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
}

#[test]
fn what_a_mode_promised_is_there_after_every_kill_and_the_stores_say_why() {
    let done = crash(&["--database", &databases()]);
    assert_eq!(done.code, 0, "{}", done.text);
    assert_eq!(done.run.crash.len(), 6, "three modes on two stores:\n{}", done.text);
    for test in &done.run.crash {
        assert!(test.kills.len() == 3 && test.acknowledged > 0 && test.ready.count == 3, "{test:#?}");
        assert_eq!((test.duplicated, test.altered, test.unverified), (0, 0, 0), "{test:#?}");
        assert_eq!((&test.failure, &test.server_failure), (&None, &None), "{}", done.text);
        let durability = test.durability.as_deref().expect("it says what an acknowledgement is worth");
        if durability != "memory" {
            assert_eq!(test.lost, 0, "{test:#?}");
        }
        let (name, expected) = if test.database == "SQLite" { ("synchronous", "full") } else { ("fsync", "on") };
        assert_eq!(value(test, name), Some(expected), "{:?}", test.settings);
    }
    assert!(done.run.crash.iter().flat_map(|test| &test.kills).any(|kill| kill.in_recovery_ms.is_some()));
}

#[test]
fn a_server_that_loses_doubles_or_alters_what_it_acknowledged_is_caught() {
    type Count = fn(&CrashTest) -> u64;
    let faults: [(&str, &str, Count); 3] = [
        ("db-first", "drop=0.2", |test| test.lost),
        ("cache-first", "duplicate=0.2", |test| test.duplicated),
        ("db-first", "corrupt=0.2", |test| test.altered),
    ];
    for (mode, fault, count) in faults {
        let done = crash(&["--mode", mode, "--fault", fault]);
        assert_eq!(done.code, 3, "{fault}:\n{}", done.text);
        assert!(count(&done.run.crash[0]) > 0, "{fault}: {:#?}", done.run.crash);
        let told = done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::FaultsInjected);
        assert!(told, "{}", done.text);
    }
}

#[test]
fn losses_that_are_expected_have_to_be_found() {
    let found = crash(&["--mode", "db-first", "--fault", "drop=0.2", "--expect-losses"]);
    assert_eq!(found.code, 0, "{}", found.text);
    let blind = crash(&["--mode", "db-first", "--expect-losses"]);
    assert_eq!((blind.code, blind.run.verdict.outcome), (4, Outcome::Inconclusive), "{}", blind.text);
    assert!(blind.text.contains("could not show anything"), "{}", blind.text);
}

#[test]
fn a_cluster_of_its_own_is_made_and_leaves_nothing() {
    let done = crash(&["--mode", "db-first", "--database", "postgres", "--kills", "1"]);
    assert_eq!(done.code, 0, "{}", done.text);
    assert!(done.run.crash[0].database.starts_with("PostgreSQL "), "{:?}", done.run.crash[0].database);
}

#[test]
fn an_interrupted_test_writes_what_there_is_and_is_never_a_pass() {
    let running = begin_command("crash", &[&SHORT[..], &["--kills", "10000", "--mode", "db-first"]].concat());
    // Long enough for a kill or two; what is asserted does not depend on how many.
    std::thread::sleep(std::time::Duration::from_secs(4));
    // The shell has become the program.
    let pid = rustix::process::Pid::from_raw(running.id() as i32).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the process is there");
    let done = running.end();
    assert_eq!(done.code, 5, "{}", done.text);
    assert!(done.run.interrupted && done.run.crash.len() == 1, "{}", done.text);
}

#[test]
fn what_cannot_be_tested_is_refused_before_anything_is_started() {
    for (arguments, says) in [
        (&["--mode", "null"][..], "keeps nothing"),
        (&["--mode", "cache-frist"], "is unknown"),
        (&["--database", "mysql"], "allowed: sqlite, postgres, postgres://USER@HOST:PORT/NAME; give one or more"),
        (&["--database", "sqlite,sqlite"], "is there twice"),
        (&["--kill", "power", "--database", "postgres://h/d"], "whose disk is not ours to cut"),
        (&["--load-max", "1ms"], "allowed: 50ms to 60s"),
        (&["--recovery-share", "2"], "allowed: 0 to 1"),
        (&["--data-dir", "/nowhere/at/all"], "no such folder"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("crash").args(arguments).output();
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(says), "{arguments:?}: {text}");
    }
}
