//! One load from several generators, from `loadgen run --shard` to `loadgen merge`, against one reference server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loadgen::schedule::{Due, Schedule, ScheduleSpec};
use loadgen::target::{Reach, Target};
use reports::histogram::TimeHistogram;
use reports::model::{Arrivals, Outcomes, Run, Times};
use reports::schema;
use tempfile::TempDir;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
const PARTS: u32 = 3;
const WARMUP_MS: u64 = 300;
const STEADY_MS: u64 = 2_500;
const RATE_PER_S: f64 = 300.0;
/// Enough for all that comes before a warm-up, on a machine that other tests are busy on.
const AHEAD: Duration = Duration::from_secs(12);

/// The reference server, until it is dropped.
struct Server {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Server {
    fn start(mode: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = format!("sqlite:{}", folder.path().join("events.db").display());
        let mut process = Command::new(LOADGEN)
            .args(["serve", "--listen", "127.0.0.1:0", "--mode", mode, "--database", &database])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("text");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it says '{line}'")).to_owned();
        Self { process, url, _folder: folder }
    }

    fn key(&self) -> String {
        let target = Target::new(&self.url, &Reach::default()).expect("a target");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(target.generate_key("shards")).expect("a key")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the generators left: a folder for each.
struct Parts {
    folder: TempDir,
}

impl Parts {
    /// Sends a load of [`PARTS`] parts to `server`.
    fn of(server: &Server, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = server.key();
        let start_at = (jiff::Timestamp::now() + AHEAD).to_string();
        let part = |number: u32| {
            let own = folder.path().join(number.to_string());
            let samples = folder.path().join(format!("{number}.csv"));
            Command::new(LOADGEN)
                .args(["run", "--quiet", "--target", &server.url, "--api-key", &key, "--run-id", "the-load"])
                .args(["--shard", &format!("{number}/{PARTS}"), "--start-at", &start_at])
                .args(["--rate", &RATE_PER_S.to_string(), "--seed", "7", "--connections", "8", "--idle", "0s"])
                .args(["--warmup", &format!("{WARMUP_MS}ms"), "--duration", &format!("{STEADY_MS}ms")])
                .args(["--request-timeout", "30s", "--drain-timeout", "30s", "--no-calibration"])
                .args(["--slo", "ledger.lost == 0", "--slo", "response_time.p50 < 30s"])
                .arg("--samples")
                .arg(samples)
                .arg("--out")
                .arg(own)
                .args(flags)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program runs")
        };
        let running: Vec<Child> = (0..PARTS).map(part).collect();
        for part in running {
            let output = part.wait_with_output().expect("the program ends");
            assert!(matches!(output.status.code(), Some(0 | 4 | 5)), "{}", told(&output));
        }
        Self { folder }
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.path().join(number.to_string()).join("run.json")
    }

    fn run(&self, number: u32) -> Run {
        read(&self.file(number))
    }

    fn merge(&self) -> (Output, PathBuf) {
        let out = self.folder.path().join("all");
        let files: Vec<PathBuf> = (0..PARTS).rev().map(|number| self.file(number)).collect();
        let output = merge(&files, &out);
        (output, out)
    }

    /// Every request of every part.
    fn rows(&self) -> Vec<Row> {
        let all = (0..PARTS).flat_map(|number| {
            let began = self.run(number).shard.expect("a part").steady_began_at.expect("it began");
            let began: jiff::Timestamp = began.parse().expect("a time");
            let text = std::fs::read_to_string(self.folder.path().join(format!("{number}.csv"))).expect("rows");
            let rows: Vec<Row> =
                text.lines().skip(1).map(|line| Row::read(line, began.as_nanosecond() as i64)).collect();
            rows
        });
        all.collect()
    }
}

/// A request. Times are ns after the begin of the steady phase.
struct Row {
    operation: String,
    sequence: u64,
    dedup_id: String,
    intended_ns: i64,
    sendable_ns: i64,
    sent_ns: Option<i64>,
    done_ns: i64,
    outcome: String,
}

impl Row {
    fn read(line: &str, began_ns: i64) -> Self {
        let cells: Vec<&str> = line.split(',').collect();
        let time = |cell: &str| cell.parse::<i64>().ok().map(|ns| ns - began_ns);
        Self {
            operation: cells[2].to_owned(),
            sequence: cells[3].parse().expect("a number"),
            dedup_id: cells[4].to_owned(),
            intended_ns: time(cells[5]).expect("a time"),
            sendable_ns: time(cells[6]).expect("a time"),
            sent_ns: time(cells[7]),
            done_ns: time(cells[8]).expect("a time"),
            outcome: cells[9].to_owned(),
        }
    }
}

fn read(path: &Path) -> Run {
    schema::read(&std::fs::read_to_string(path).expect("a file")).expect("a result")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn merge(files: &[PathBuf], out: &Path) -> Output {
    Command::new(LOADGEN).arg("merge").args(files).arg("--out").arg(out).output().expect("the program runs")
}

/// The distributions that the rows of a steady phase make, by name.
fn distributions(rows: &[Row]) -> BTreeMap<&'static str, Times> {
    let mut all: BTreeMap<&'static str, TimeHistogram> = BTreeMap::new();
    let mut add = |name: &'static str, ns: i64| all.entry(name).or_default().record(ns as u64);
    for row in rows.iter().filter(|row| row.intended_ns >= 0) {
        assert_eq!(row.outcome, "accepted", "event {}", row.sequence);
        let sent_ns = row.sent_ns.expect("it was sent");
        add("response time", row.done_ns - row.intended_ns);
        add("service time", row.done_ns - sent_ns);
        add("send delay", sent_ns - row.sendable_ns);
        if row.sendable_ns > row.intended_ns {
            add("connection wait", row.sendable_ns - row.intended_ns);
        }
    }
    all.into_iter().map(|(name, histogram)| (name, histogram.times(0))).collect()
}

/// Every request of the schedule that one generator would have had, once, when it was due, under an id of its own.
#[track_caller]
fn assert_is_the_whole_schedule(rows: &[Row]) {
    let spec = ScheduleSpec {
        arrivals: Arrivals::Poisson,
        rate_per_s: RATE_PER_S,
        shape: None,
        replay: None,
        warmup_ns: WARMUP_MS * 1_000_000,
        steady_ns: STEADY_MS * 1_000_000,
    };
    let due = Schedule::new(&spec, 7).map(|due| match due {
        Due::At(at_ns) => at_ns as i64 - (WARMUP_MS * 1_000_000) as i64,
        Due::WhenFree => panic!("an open loop has times"),
    });
    let sent: BTreeMap<u64, i64> = rows.iter().map(|row| (row.sequence, row.intended_ns)).collect();
    assert_eq!(sent.len(), rows.len(), "no event was sent by two parts");
    assert_eq!(sent, (0u64..).zip(due).collect(), "all parts together are the schedule of one generator");
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.dedup_id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "no two events have one id");
}

/// The whole point: nobody could tell the merged result from that of one generator that had sent all of it.
#[test]
fn the_merged_result_is_the_one_that_all_samples_together_make() {
    let server = Server::start("db-first");
    let parts = Parts::of(&server, &[]);
    let rows = parts.rows();
    assert_is_the_whole_schedule(&rows);
    let (output, out) = parts.merge();
    let merged = read(&out.join("run.json"));
    assert_eq!(output.status.code(), Some(i32::from(merged.verdict.exit_code)), "{}", told(&output));
    let [result] = &merged.results[..] else { panic!("one result") };
    let load = &result.load;
    let found = [
        ("connection wait", &load.connection_wait),
        ("response time", &load.response_time),
        ("send delay", &load.send_delay),
        ("service time", &load.service_time),
    ];
    let found: BTreeMap<&str, Times> =
        found.into_iter().filter(|(_, times)| times.count > 0).map(|(name, times)| (name, times.clone())).collect();
    assert_eq!(found, distributions(&rows), "bucket by bucket");
    let steady = rows.iter().filter(|row| row.intended_ns >= 0);
    let by_second = |rows: &mut dyn Iterator<Item = &Row>| {
        let mut seconds: BTreeMap<u64, TimeHistogram> = BTreeMap::new();
        for row in rows {
            let second = row.intended_ns as u64 / 1_000_000_000 * 1_000;
            seconds.entry(second).or_default().record((row.done_ns - row.intended_ns) as u64);
        }
        seconds.into_iter().map(|(second, histogram)| (second, histogram.times(0))).collect::<BTreeMap<u64, Times>>()
    };
    let seconds: BTreeMap<u64, Times> =
        load.intervals.iter().map(|row| (row.offset_ms, row.response_time.clone())).collect();
    assert_eq!(seconds, by_second(&mut steady.clone()));
    let planned = steady.count() as u64;
    assert_eq!((load.planned, load.outcomes), (planned, Outcomes { accepted: planned, ..Outcomes::default() }));

    let ledger = result.ledger.as_ref().expect("a ledger");
    let faults = (ledger.lost, ledger.duplicated, ledger.corrupted, ledger.unverified, ledger.unacknowledged);
    assert_eq!(
        (ledger.acknowledged, ledger.persisted, faults),
        (rows.len() as u64, rows.len() as u64, (0, 0, 0, 0, 0))
    );
    assert_eq!(merged.objectives.len(), 2, "judged on the whole");
    assert_eq!(load.connections, 8, "shared out, not multiplied");
    for part in &merged.shards {
        let clock = part.shard.clock.as_ref().expect("the reference server dates its answers");
        let bound_ns = clock.uncertainty_ns + 1_000_000;
        assert!(clock.offset_ns.unsigned_abs() <= bound_ns, "one machine has one clock: {clock:?}");
        let instant = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_nanosecond() as i64;
        let began_ns = instant(part.shard.steady_began_at.as_ref().expect("it began")) + clock.offset_ns;
        assert_eq!(began_ns, instant(&part.shard.start_at), "by the target's clock they begin when they should");
    }
    let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(page.contains("The generators") && page.contains("part 2 ("), "each part has a row");

    let missing = merge(&[parts.file(0), parts.file(2)], &out);
    assert_eq!(missing.status.code(), Some(2), "{}", told(&missing));
    assert!(told(&missing).contains("of 3 parts 1 is missing"), "{}", told(&missing));
}

/// What a request is must not depend on answers, or two generators would number differently what they send.
#[test]
fn mixed_operations_batches_and_repeats_are_shared_out_without_an_event_that_two_parts_have() {
    let server = Server::start("cache-first");
    let parts = Parts::of(
        &server,
        &["--mix", "ingest 60, batch 10, inbox 10, ack 20", "--duplicates-share", "0.2", "--batch-events", "3"],
    );
    let mut numbers = BTreeSet::new();
    for row in parts.rows().iter().filter(|row| row.operation == "batch") {
        assert!((row.sequence..row.sequence + 3).all(|number| numbers.insert(number)), "batch {}", row.sequence);
    }
    assert!(numbers.len() > 60, "{} events came in batches", numbers.len());
    let (output, out) = parts.merge();
    let merged = read(&out.join("run.json"));
    let result = &merged.results[0];
    let ledger = result.ledger.as_ref().unwrap_or_else(|| panic!("no ledger: {}", told(&output)));
    let faults = (ledger.lost, ledger.duplicated, ledger.corrupted, ledger.unverified);
    assert_eq!(faults, (0, 0, 0, 0), "{}", told(&output));
    let Outcomes { failed, timed_out, not_sent, rejected, .. } = result.load.outcomes;
    assert_eq!((failed, timed_out, not_sent, rejected), (0, 0, 0, result.load.repeats.refused), "{}", told(&output));
    assert!(result.load.repeats.refused > 20 && result.load.operations.len() == 4, "{:?}", result.load.repeats);
}

#[test]
fn a_part_that_cannot_be_one_is_refused_with_what_to_do() {
    let common = ["--run-id", "a", "--start-at", "+60s"];
    let with = |flags: &[&'static str]| [&["--target", "http://127.0.0.1:9"], &common[..], flags].concat();
    let cases: [(Vec<&str>, &str); 14] = [
        (with(&["--shard", "2/2"]), "allowed: K/N, which part of how many"),
        (vec!["--shard", "0/2", "--run-id", "a", "--target", "http://h:1"], "give --start-at TIME, the same to all"),
        (vec!["--shard", "0/2", "--start-at", "+60s", "--target", "http://h:1"], "give --run-id ID, the same to all"),
        (vec!["--run-id", "a"], "--run-id: is for parts of a load"),
        (vec!["--start-at", "+60s"], "--start-at: is for parts of a load"),
        (with(&["--shard", "0/2", "--run-id", "A b"]), "lower-case letters, digits and hyphens"),
        ([&["--shard", "0/2", "--mode", "db-first"], &common[..]].concat(), "start the server by itself"),
        (with(&["--shard", "0/2", "--repeat", "2"]), "goes with one repetition"),
        (with(&["--shard", "0/2", "--target", "http://127.0.0.1:8"]), "goes with one --target"),
        (with(&["--shard", "0/9", "--connections", "8"]), "divides 8 connections among 9 generators"),
        (with(&["--shard", "0/2", "--webhooks"]), "does not go with --webhooks"),
        (with(&["--shard", "0/2", "--start-at", "2020-01-01T00:00:00Z"]), "has passed; give a time to come"),
        (with(&["--shard", "0/2", "--start-at", "+48h"]), "is more than 24 h away"),
        (with(&["--shard", "0/2", "--start-at", "+2s"]), "and what comes before it takes up to"),
    ];
    for (flags, expected) in cases {
        let output = Command::new(LOADGEN).arg("run").args(&flags).arg("--dry-run").output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", told(&output));
        assert!(told(&output).contains(expected), "{flags:?} is told:\n{}\nnot: {expected}", told(&output));
    }
    let more = with(&["--shard", "0/9", "--rate", "1000000"]);
    let output = Command::new(LOADGEN).arg("run").args(&more).arg("--dry-run").output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "all parts together may offer more than one could: {}", told(&output));
}
