//! `loadgen run` against the real reference server, on SQLite and on PostgreSQL, from start to report.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Done, PATIENT, assert_ends_with, begin, run};
use loadgen::priority::Priority;
use loadgen::reference::{Configuration, Reference, ReferenceError};
use reports::model::{Role, Run, TargetResult};
use sqlx::Connection;

/// The databases to run on. PostgreSQL is a private instance that `scripts/test` starts.
fn databases() -> [String; 2] {
    let postgres = std::env::var("MILLRACE_TEST_POSTGRES").expect(
        "MILLRACE_TEST_POSTGRES is not set: run scripts/test, or export MILLRACE_TEST_POSTGRES=$(scripts/postgres start DIR)",
    );
    ["sqlite".to_owned(), postgres]
}

#[track_caller]
fn assert_kept_everything(done: &Done, result: &TargetResult) {
    let ledger = result.ledger.as_ref().unwrap_or_else(|| panic!("{} has no ledger:\n{}", result.target, done.text));
    assert!(ledger.acknowledged > 0, "{}", done.text);
    let faults = (ledger.lost, ledger.duplicated, ledger.corrupted, ledger.unverified);
    assert_eq!(faults, (0, 0, 0, 0), "{}: {ledger:?}\n{}", result.target, done.text);
    assert_eq!(ledger.persisted, ledger.acknowledged);
}

#[test]
fn every_mode_is_measured_and_nothing_is_lost_on_either_database() {
    for database in databases() {
        let done = run(&[&["--database", &database, "--repeat", "2"][..], &PATIENT].concat());
        let names: Vec<_> = done.run.results.iter().map(|result| (result.target.as_str(), result.repetition)).collect();
        let variants: Vec<_> = done.run.plan.variants.iter().map(|variant| variant.name.as_str()).collect();
        let blocks = (1..).zip(loadgen::blocks::orders(3, 2, done.run.plan.seed));
        let drawn: Vec<_> =
            blocks.flat_map(|(block, order)| order.into_iter().map(move |index| (index, block))).collect();
        let drawn: Vec<_> = drawn.into_iter().map(|(index, block)| (variants[index], block)).collect();
        assert_eq!(names, drawn, "{}", done.text);
        for result in &done.run.results {
            assert_eq!(result.failure, None, "{}", done.text);
            assert_eq!(result.load.outcomes.accepted, result.load.planned, "{}", done.text);
            if result.target == "null" {
                assert!(result.ledger.is_none(), "null keeps nothing");
            } else {
                assert_kept_everything(&done, result);
            }
        }
        for (name, durability) in [("cache-first", "memory"), ("db-first", "database")] {
            let of_it = done.run.results.iter().filter(|result| result.target == name);
            assert!(of_it.map(|result| result.durability.as_deref()).all(|said| said == Some(durability)), "{name}");
        }
    }
}

#[test]
fn repeats_are_refused_and_load_spreads_over_organisations() {
    for database in databases() {
        let repeats = ["--duplicates-share", "0.2", "--organizations", "3"];
        let done =
            run(&[&["--database", &database, "--mode", "cache-first,db-first"][..], &repeats, &PATIENT].concat());
        for result in &done.run.results {
            let repeats = result.load.repeats;
            assert!(
                repeats.sent > 10 && repeats.refused == repeats.sent && repeats.accepted == 0,
                "{repeats:?}\n{}",
                done.text
            );
            assert_eq!(result.load.outcomes.rejected, repeats.refused);
            assert!(result.load.errors.is_empty(), "{:?}", result.load.errors);
            assert_kept_everything(&done, result);
        }
    }
}

#[test]
fn idle_statements_are_counted_by_the_database_where_there_is_one() {
    for (database, source) in databases().iter().zip(["server metrics", "pg_stat_statements"]) {
        let idle = ["--mode", "cache-first", "--polling", "fixed,wake", "--idle", "5s"];
        let done = run(&[&["--database", database][..], &idle, &PATIENT].concat());
        for result in &done.run.results {
            // `fixed` needs up to 2 s to persist; what it still has to do then is not idleness.
            assert_kept_everything(&done, result);
            let idle = result.idle.as_ref().expect("an idle phase");
            assert_eq!(idle.source, source, "{}", done.text);
            let (sql, polls) = (idle.sql_statements.expect("a count"), idle.polls.expect("a count"));
            let per_poll = if result.polling.as_deref() == Some("fixed") { 2 } else { 1 };
            // A cycle may lie across either end of the window, which the two sources do not cut at the same instant.
            assert!(
                sql.abs_diff(polls * per_poll) <= per_poll,
                "{}: {sql} statements in {polls} polls: {idle:#?}",
                result.target
            );
            assert!(polls >= 1 && !idle.samples.is_empty(), "{idle:?}");
            let first = idle.first_event.expect("a first event");
            assert!(first.time_to_durable_ns.is_some(), "{first:?}");
        }
    }
}

#[test]
fn before_and_after_are_told_apart() {
    let done = run(&["--plan", "before-after", "--idle", "1s", "--drain-timeout", "10s"]);
    let roles: Vec<_> = done.run.plan.variants.iter().map(|variant| variant.role).collect();
    assert_eq!(roles, [Some(Role::Old), Some(Role::New), Some(Role::New)]);
    let table = reports::before_after::table(&done.run);
    assert!(table.is_some(), "{}", done.text);
}

#[test]
fn a_closed_loop_sends_when_an_answer_is_in() {
    let done = run(&["--mode", "null", "--arrivals", "closed", "--connections", "2"]);
    let load = &done.run.results[0].load;
    assert!(load.outcomes.accepted > 200, "{load:?}");
    assert_eq!(load.planned, load.outcomes.total());
    assert_eq!(load.connection_wait.count, 0, "a closed loop waits for nobody");
}

#[test]
fn a_missed_objective_ends_with_3_and_a_met_one_with_0() {
    let arguments = ["--mode", "cache-first", "--duration", "2s", "--slo"];
    let missed = run(&[&arguments[..], &["response_time.p50 < 1ns"]].concat());
    assert_ends_with(&missed, 3);
    assert_eq!(missed.run.objectives[0].met, Some(false), "{}", missed.text);
    let met = run(&[&arguments[..], &["ledger.lost == 0"], &PATIENT].concat());
    assert_ends_with(&met, 0);
    assert_eq!(met.run.objectives[0].met, Some(true), "{}", met.text);
}

#[test]
fn the_result_can_be_printed_and_validates_against_the_committed_schema() {
    let done = run(&["--mode", "cache-first", "--json"]);
    let json = done.text.split("\n/").next().expect("the result comes before the paths");
    let value: serde_json::Value = serde_json::from_str(json.trim()).expect("JSON on stdout");
    let schema = include_str!("../../../reports/schema/run.v1.json");
    let schema: serde_json::Value = serde_json::from_str(schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[tokio::test]
async fn a_server_that_does_not_start_leaves_no_database_behind() {
    let [_, postgres] = databases();
    let name = format!("millrace_test_{}", std::process::id());
    let configuration = Configuration {
        mode: "cache-first",
        polling: "wake",
        postgres_url: Some(&postgres),
        database_name: name.clone(),
        program: None,
        flags: vec!["--no-such-flag".to_owned()],
    };
    let error = Reference::start(&configuration).await.expect_err("there is no such flag");
    assert!(matches!(error, ReferenceError::NotListening { .. }), "{error}");
    let mut connection = sqlx::PgConnection::connect(&postgres).await.expect("PostgreSQL");
    let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_database WHERE datname = $1");
    assert_eq!(query.bind(&name).fetch_one(&mut connection).await.expect("a count"), 0);
}

fn start_long(out: &std::path::Path) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--mode", "cache-first", "--rate", "200", "--warmup", "0s", "--duration", "60s", "--idle", "0s"])
        .arg("--no-calibration")
        .args(["--out", out.to_str().expect("a path")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs")
}

/// Process ids of servers started by `parent`.
fn children_of(parent: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits for a condition of the world outside this process, which no paused clock can hurry.
fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never happened: {what}");
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}

#[test]
fn an_interrupted_run_writes_what_there_is_and_is_never_a_pass() {
    let out = tempfile::tempdir().expect("a folder");
    let mut child = start_long(out.path());
    wait_until("the server starts", || children_of(child.id()).first().copied());
    // Long enough for a few events; what is asserted does not depend on how many.
    std::thread::sleep(Duration::from_secs(2));
    signal(child.id(), rustix::process::Signal::INT);
    let status = child.wait().expect("an end");
    let run: Run = reports::schema::read(&std::fs::read_to_string(out.path().join("run.json")).expect("a result"))
        .expect("a result");
    assert_eq!(status.code(), Some(5));
    assert!(run.interrupted);
    assert!(run.results[0].load.outcomes.accepted > 0);
}

#[test]
fn a_killed_load_generator_leaves_no_server_behind() {
    let out = tempfile::tempdir().expect("a folder");
    let mut child = start_long(out.path());
    let server = wait_until("the server starts", || children_of(child.id()).first().copied());
    child.kill().expect("a kill");
    child.wait().expect("an end");
    wait_until("the server ends", || (!std::path::Path::new(&format!("/proc/{server}/stat")).exists()).then_some(()));
}

/// What proc_pid_stat(5) says in this field, 3 or higher, of each thread of a process, by the thread's name.
#[cfg(target_os = "linux")]
fn of_threads(pid: u32, field: usize) -> BTreeMap<String, i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stat = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    let of_stat = |stat: String| {
        let (head, tail) = stat.rsplit_once(')')?;
        // What is behind the name begins with the third.
        Some((head.split_once('(')?.1.to_owned(), tail.split_whitespace().nth(field - 3)?.parse().ok()?))
    };
    stat.filter_map(of_stat).collect()
}

/// Field of a thread's niceness.
const NICENESS: usize = 19;
/// Field of a thread's priority in a class that goes before the usual one, 0 in that.
const URGENCY: usize = 40;

#[cfg(target_os = "linux")]
#[test]
fn the_sending_thread_goes_first_where_it_may_and_no_other_thread_does() {
    let flags = ["--mode", "null", "--duration", "3s", "--sender-nice", "-5"];
    if Priority::Nice(-5).try_out().is_err() {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("run").args(flags).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("--sender-nice = -5: this user may not") && told.contains("CAP_SYS_NICE"), "{told}");
        return;
    }
    let running = begin(&flags);
    let niceness = wait_until("the sending thread goes first", || {
        Some(of_threads(running.id(), NICENESS)).filter(|found| found.get("sender") == Some(&-5))
    });
    assert!(niceness.iter().all(|(name, nice)| name == "sender" || *nice >= 0), "{niceness:?}");
    let done = running.end();
    assert_eq!(done.run.plan.sender_nice, Some(-5));
    assert!(done.text.contains("generator: its sending thread went first (niceness -5)"), "{}", done.text);
}

#[cfg(target_os = "linux")]
#[test]
fn who_is_named_goes_before_all_others_where_it_may_and_nobody_else_does() {
    let flags = |who| ["--mode", "journal-first", "--duration", "3s", "--realtime", who];
    if Priority::Realtime.try_out().is_err() {
        let output =
            Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("run").args(flags("both")).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("--realtime = both: this user may not") && told.contains("ulimit -r 3"), "{told}");
        return;
    }
    let all = [("sender", 3), ("journal", 2), ("answer", 1)];
    for (who, expected) in [("sender", &all[..1]), ("server", &all[1..]), ("both", &all[..])] {
        let running = begin(&flags(who));
        let expected: BTreeMap<_, _> = expected.iter().map(|(name, urgency)| ((*name).to_owned(), *urgency)).collect();
        wait_until(&format!("{who} go before all others, and nobody else"), || {
            let servers = children_of(running.id());
            let threads = servers.into_iter().chain([running.id()]).flat_map(|process| of_threads(process, URGENCY));
            let urgent = threads.filter(|(_, urgency)| *urgency > 0);
            let named = urgent
                .map(|(name, urgency)| (if name.starts_with("answer-") { "answer".to_owned() } else { name }, urgency));
            (named.collect::<BTreeMap<_, _>>() == expected).then_some(())
        });
        let done = running.end();
        assert_eq!(
            done.run.plan.realtime.map(|asked| (asked.has_sender(), asked.has_server())),
            Some((who != "server", who != "sender"))
        );
        assert!(done.text.contains("(SCHED_RR)"), "{}", done.text);
    }
}
