//! Targets that only their profile describes: an older variant of the API, written here, with other routes, headers, statuses and
//! bodies, tickets in place of ids, no inbox, and rows in a table of its own; it loses and doubles what it acknowledged, on purpose.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use loadgen::profile::launch::Surroundings;
use loadgen::profile::{Profile, Started};
use loadgen::target::Reach;
use reports::model::{CaveatKind, TargetResult};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::support::{self, Next, answer, assert_ends_with, run};

/// Of each 50 requests, the numbers of the one that is acknowledged and not stored, of the one that is stored twice, and of the one that is
/// stored and answered without a ticket.
const EVERY: u64 = 50;
const LOST: u64 = 7;
const DOUBLED: u64 = 13;
const WITHOUT_TICKET: u64 = 21;

/// What the older variant listens on and writes to; not set: it does not run.
const PORT: &str = "OLD_VARIANT_PORT";
const DATABASE: &str = "OLD_VARIANT_DATABASE";
const KEY: &str = "k-0123456789";

fn postgres() -> String {
    std::env::var("MILLRACE_TEST_POSTGRES").expect(
        "MILLRACE_TEST_POSTGRES is not set: run scripts/test, or export MILLRACE_TEST_POSTGRES=$(scripts/postgres start DIR)",
    )
}

enum Store {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Store {
    async fn open(url: &str) -> Self {
        let (mut store, columns) = match url.strip_prefix("sqlite:") {
            Some(file) => {
                let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
                let connection = options.connect().await.expect("a database");
                (Self::Sqlite(connection), "id INTEGER PRIMARY KEY, data TEXT, created TEXT DEFAULT CURRENT_TIMESTAMP")
            }
            None => {
                let connection = PgConnection::connect(url).await.expect("a database");
                (Self::Postgres(connection), "id BIGSERIAL, data JSONB, created TIMESTAMPTZ DEFAULT clock_timestamp()")
            }
        };
        store.execute(format!("CREATE TABLE trigger_events ({columns}, idempotency_key TEXT)")).await;
        store
    }

    async fn execute(&mut self, sql: String) {
        match self {
            Self::Postgres(connection) => drop(connection.execute(AssertSqlSafe(sql)).await.expect("SQL")),
            Self::Sqlite(connection) => drop(connection.execute(AssertSqlSafe(sql)).await.expect("SQL")),
        }
    }
}

/// Not a test of its own: the older variant, when a profile starts it as a process (this test binary with this test's name).
#[test]
fn the_older_variant_serves_when_it_is_told_to() {
    let (Ok(port), Ok(url)) = (std::env::var(PORT), std::env::var(DATABASE)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = runtime.block_on(Store::open(&url));
    let state = Arc::new(Mutex::new((runtime, store)));
    let polled = Arc::clone(&state);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let (runtime, store) = &mut *polled.lock().expect("the store");
            runtime.block_on(store.execute("SELECT count(*) FROM trigger_events WHERE data IS NULL".to_owned()));
        }
    });
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("the port");
    let number = AtomicU64::new(0);
    support::serve(&listener, move |request, stream| {
        let has = |header: &str| request.headers.iter().any(|line| line == header);
        match request.line.rsplit_once(' ').map_or("", |(start, _)| start) {
            "GET /status" => answer(stream, 204, ""),
            "POST /v1/register?plan=big" if has("x-tenant: load") => {
                answer(stream, 201, &format!(r#"{{"data":{{"key":"{KEY}"}}}}"#))
            }
            "POST /v1/events" if has(&format!("x-api-key: {KEY}")) && has("x-tenant: load") => {
                let number = number.fetch_add(1, Ordering::Relaxed);
                store_event(&state, number, &request.body);
                acknowledge(stream, number)
            }
            _ => answer(stream, 404, "{}"),
        }
    });
}

fn store_event(state: &Mutex<(tokio::runtime::Runtime, Store)>, number: u64, body: &[u8]) {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body["event_type"], "order.created");
    let (key, data) = (body["idempotency_key"].as_str().expect("a key"), &body["data"]);
    let copies = match number % EVERY {
        LOST => 0,
        DOUBLED => 2,
        _ => 1,
    };
    let (runtime, store) = &mut *state.lock().expect("the store");
    for _ in 0..copies {
        let sql = format!("INSERT INTO trigger_events (idempotency_key, data) VALUES ('{key}', '{data}')");
        runtime.block_on(store.execute(sql));
    }
}

fn acknowledge(stream: &mut std::net::TcpStream, number: u64) -> Next {
    match number % EVERY {
        WITHOUT_TICKET => answer(stream, 200, r#"{"data":{}}"#),
        _ => answer(
            stream,
            200 + u16::from(number.is_multiple_of(2)),
            &format!(r#"{{"data":{{"ticket":"t-{number}"}}}}"#),
        ),
    }
}

/// A folder with the older variant's profile.
fn older_variant(database: &str, query: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::current_exe().expect("this program");
    let profile = format!(
        r#"
name = "old"
label = "as-found"
description = "the first version"
claims = ["A2", "A1"]

[start]
command = ["{}", "profiles::the_older_variant_serves_when_it_is_told_to", "--exact", "--nocapture"]
environment = {{ {PORT} = "{{port}}", {DATABASE} = "{{database_url}}" }}

[ready]
path = "/status"
status = 204

# Not INT, which whatever a shell starts in the background ignores, and so do those that it starts.
[stop]
signal = "USR1"

[database]
kind = "{database}"

[http]
headers = {{ X-Tenant = "load" }}

[key]
path = "/v1/register?plan=big"
body = '{{"name": "{{organization}}"}}'
status = 201
pointer = "/data/key"
header = "X-API-Key: {{key}}"

[ingest]
path = "/v1/events"
body = '{{"event_type": "order.created", "idempotency_key": "{{dedup_id}}", "data": {{payload}}}}'
status = [200, 201]
id = "/data/ticket"
ids_match = false

[routes]
inbox = "none"
event = "none"
ack = "none"
batch = "none"
webhook = "none"
metrics = "none"

[persisted]
source = "sql"
query = "{query}"
"#,
        program.display()
    );
    std::fs::write(folder.path().join("profile.toml"), profile).expect("a file");
    folder
}

/// How many of the first `count` requests have this number among each 50.
fn share_of(count: u64, number: u64) -> u64 {
    (0..count).filter(|n| n % EVERY == number).count() as u64
}

#[track_caller]
fn assert_says_what_it_does(result: &TargetResult, text: &str) {
    assert_eq!(result.failure, None, "{text}");
    let ledger = result.ledger.as_ref().expect("a ledger");
    // Every request was stored or acknowledged, or both.
    let requests = ledger.acknowledged + ledger.unacknowledged;
    assert!(requests >= 4 * EVERY, "{ledger:?}\n{text}");
    let found = (ledger.lost, ledger.duplicated, ledger.unacknowledged, ledger.corrupted, ledger.unverified);
    let done = (share_of(requests, LOST), share_of(requests, DOUBLED), share_of(requests, WITHOUT_TICKET), 0, 0);
    assert_eq!(found, done, "lost, duplicated, unacknowledged, corrupted, unverified of {requests}\n{text}");
    assert_eq!(ledger.persisted, ledger.acknowledged - ledger.lost);
    assert_eq!(ledger.source, "sql");
    let load = &result.load;
    let without_ticket: u64 =
        load.errors.iter().filter(|e| e.kind == "HTTP 200: acknowledged without an id").map(|e| e.count).sum();
    assert_eq!((load.outcomes.failed, load.errors.len()), (without_ticket, 1), "{:?}\n{text}", load.errors);
    assert!(without_ticket > 0 && without_ticket <= ledger.unacknowledged);
    assert_eq!(load.statuses.keys().collect::<Vec<_>>(), ["200", "201"]);
}

#[test]
fn of_an_older_variant_the_harness_says_exactly_what_it_keeps_loses_doubles_and_costs() {
    let postgres = postgres();
    let all = "SELECT idempotency_key AS dedup_id, id, data AS payload, created AS persisted_at FROM trigger_events";
    for (database, flag, query) in [
        ("postgres", postgres.as_str(), all),
        ("sqlite", "sqlite", all),
        ("any", "sqlite", "SELECT data AS payload FROM trigger_events"),
    ] {
        let folder = older_variant(database, query);
        let target = folder.path().to_str().expect("a path");
        // No answer is given up: what the older variant took and nobody waited for would be in neither count.
        let flags = ["--target", target, "--database", flag, "--duration", "2s", "--idle", "2s", "--connections", "4"];
        let done = run(&[&flags[..], &["--request-timeout", "30s"]].concat());
        // Lost and duplicated.
        assert_ends_with(&done, 3);
        let result = &done.run.results[0];
        assert_eq!(result.target, "old/as-found");
        assert_says_what_it_does(result, &done.text);
        let profile = done.run.plan.variants[0].profile.as_ref().expect("a profile");
        assert_eq!(profile.claims.as_deref(), Some(&["A1".to_owned(), "A2".to_owned()][..]));
        let (ledger, idle) = (result.ledger.as_ref().expect("a ledger"), result.idle.as_ref().expect("an idle phase"));
        assert_eq!(ledger.time_to_durable.is_some(), query == all, "{}", done.text);
        assert!(idle.first_event.as_ref().is_some_and(|first| first.time_to_durable_ns.is_some()), "{idle:?}");
        if database == "postgres" {
            assert_eq!(idle.source, "pg_stat_statements", "{}", done.text);
            let polls: u64 =
                idle.statements.iter().filter(|s| s.statement.contains("trigger_events")).map(|s| s.calls).sum();
            assert!(
                polls >= 3 && Some(polls) == idle.sql_statements,
                "nobody but its poll asks: {:?}",
                idle.statements
            );
            assert!(result.database.as_ref().is_some_and(|name| name.starts_with("PostgreSQL ")));
            assert_eq!(result.resources.server_cpu_s.is_some(), cfg!(target_os = "linux"));
        } else {
            assert_eq!((idle.source.as_str(), result.database.as_deref()), ("none", Some("SQLite")), "{}", done.text);
        }
    }
}

/// Runs `loadgen run` with a profile of this text.
fn run_profile(text: &str, arguments: &[&str]) -> (Output, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("profile.toml");
    std::fs::write(&file, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--quiet", "--no-calibration", "--idle", "0s", "--warmup", "0s", "--duration", "200ms", "--out"])
        .arg(folder.path().join("out"))
        .args(["--target", file.to_str().expect("a path")])
        .args(arguments)
        .output()
        .expect("the program runs");
    (output, folder)
}

#[test]
fn a_profile_that_is_wrong_or_cannot_do_what_is_asked_is_refused_before_anything_starts() {
    let url = "name = 'x'\n[http]\nurl = 'http://127.0.0.1:9'\n";
    for (text, arguments, expected) in [
        ("name = 'x'\n[strat]\n", &[][..], "profile.toml, line 2: strat is no key of a profile; did you mean start?"),
        (
            "name = 'x'\n[start]\ncommand = ['/bin/true']\n[database]\nkind = 'postgres'\n",
            &[],
            "this target's profile says that it needs one ([database] kind); give postgres://",
        ),
        (
            &format!("{url}[routes]\nbatch = 'none'"),
            &["--mix", "batch 1"],
            "needs a route that x does not have ([routes] batch",
        ),
        (
            &format!("{url}[ingest]\nbody = '{{\"a\":{{payload}}}}'"),
            &["--payload-bytes", "52"],
            "is too short to be told from others, and x shows no dedup_id; allowed: 53 bytes or more",
        ),
        (url, &["--mode", "null"], "is of the reference server, and does not go with --target"),
    ] {
        let (output, _folder) = run_profile(text, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}\n{message}");
        assert!(message.contains(expected), "{text}\n  should say {expected:?}: {message}");
    }
}

#[test]
fn a_target_that_does_not_start_says_why_with_the_end_of_its_log() {
    let start =
        |script: &str| format!("name = 'x'\n[ready]\ntimeout = '1s'\n[start]\ncommand = ['sh', '-c', '{script}']\n");
    for (text, expected) in [
        (
            start("echo one; echo no such table >&2; exit 3"),
            "it ended with exit status: 3; its log ends with:\n  one\n  no such table",
        ),
        (start("echo up; sleep 600"), "no good answer to /readyz at http://127.0.0.1:"),
        ("name = 'x'\n[start]\ncommand = ['./gone', '{port}']\n".to_owned(), "[start] cannot run "),
        (
            format!("{}[prepare]\ncommand = ['sh', '-c', 'echo no compiler; exit 1']\n", start("true")),
            "[prepare] command ended with exit status: 1; its output ends with:\n  no compiler",
        ),
        (
            format!("{}[setup]\ntimeout = '1s'\ncommand = ['sleep', '600']\n", start("true")),
            "[setup] command did not end within 1 s (timeout); it was killed",
        ),
        (
            format!(
                "{}[key]\nsource = 'static'\nvalues = ['{{env.MILLRACE_NO_SUCH_KEY}}']\n[http]\nurl = 'http://{{env.MILLRACE_NO_SUCH_HOST}}'\n",
                start("sleep 9")
            ),
            "the environment of loadgen has no variable MILLRACE_NO_SUCH_HOST; set it",
        ),
    ] {
        let (output, _folder) = run_profile(&text, &[]);
        let message = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{text}\n{message}");
        assert!(message.contains(expected), "{text}\n  should say {expected:?}: {message}");
    }
}

#[test]
fn two_targets_are_measured_in_every_block_and_the_reference_server_by_its_profile_keeps_everything() {
    let rust = Path::new(env!("CARGO_MANIFEST_DIR")).join("../targets/rust");
    let other = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(rust.join("profile.toml")).expect("the profile");
    let journal =
        text.replace("cache-first", "journal-first").replace("name = \"rust\"", "name = \"rust\"\nlabel = \"journal\"");
    std::fs::write(other.path().join("profile.toml"), journal).expect("a file");
    let targets = [rust.as_path(), other.path()].map(|path| path.to_str().expect("a path").to_owned());
    let flags = ["--target", &targets[0], "--target", &targets[1], "--repeat", "2", "--database", &postgres()];
    let done = run(&[&flags[..], &support::PATIENT].concat());
    let mut measured: Vec<_> = done.run.results.iter().map(|r| (r.repetition, r.target.clone())).collect();
    assert!(measured.is_sorted_by_key(|(repetition, _)| *repetition), "one block after the other: {measured:?}");
    assert_ne!(measured[0].1, measured[2].1, "each is first once");
    measured.sort();
    let of = |repetition| [(repetition, "rust".to_owned()), (repetition, "rust/journal".to_owned())];
    assert_eq!(measured, [of(1), of(2)].concat(), "{}", done.text);
    for result in &done.run.results {
        let ledger = result.ledger.as_ref().unwrap_or_else(|| panic!("no ledger:\n{}", done.text));
        assert_eq!(ledger.persisted, ledger.acknowledged, "{ledger:?}\n{}", done.text);
        assert_eq!((ledger.duplicated, ledger.corrupted, ledger.source.as_str()), (0, 0, "inbox"));
        assert!(result.resources.server_rss_peak_bytes > Some(1_000_000), "{:?}", result.resources);
    }
    let claims = done.run.results.iter().find(|result| result.target == "rust/journal");
    assert_eq!(claims.and_then(|result| result.durability.as_deref()), Some("journal"));
    assert!(!done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::SqlCountUnavailable), "{}", done.text);
}

/// Whether a process runs; one that has ended and that nobody has asked for its status does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_target_that_does_not_end_is_killed_with_all_it_started_and_that_is_said() {
    let folder = older_variant("sqlite", "SELECT data AS payload FROM trigger_events");
    let file = folder.path().join("profile.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let deaf = text
        .replace("command = [\"", "command = ['sh', '-c', 'trap : TERM; \"$0\" \"$@\" & wait; wait', \"")
        .replace("signal = \"USR1\"", "signal = \"TERM\"\ntimeout = \"1s\"");
    std::fs::write(&file, deaf).expect("a file");
    let profile = Arc::new(Profile::load(folder.path()).expect("a profile"));
    let surroundings = Surroundings { postgres_url: None, database_name: "unused".to_owned(), reach: Reach::default() };
    let started = Started::start(&profile, &surroundings).await.expect("it starts");
    let family = loadgen::observe::process::with_descendants(&started.process_ids().await.expect("its process"));
    assert_eq!(family.len(), 2, "a shell and its child");
    let error = started.stop().await.expect_err("it is deaf").to_string();
    assert!(error.contains("did not end within 1 s of its [stop] signal, and was killed"), "{error}");
    let begin = std::time::Instant::now();
    while family.iter().any(|pid| runs(*pid)) && begin.elapsed().as_secs() < 10 {
        tokio::task::yield_now().await;
    }
    assert!(!family.iter().any(|pid| runs(*pid)), "{family:?}");
}

#[test]
fn every_profile_of_this_project_is_valid() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../targets");
    let folders = std::fs::read_dir(targets).expect("the targets").map(|entry| entry.expect("an entry").path());
    let profiles: Vec<_> = folders.filter(|path| path.join("profile.toml").exists()).collect();
    assert!(profiles.len() >= 4, "{profiles:?}");
    for path in profiles {
        let profile = Profile::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(profile.name.as_str()));
    }
}

#[tokio::test]
async fn a_command_line_is_a_target_too_and_leaves_nothing_behind() {
    let line = format!("'{}' serve --listen 127.0.0.1:{{port}} --exit-with-stdin", env!("CARGO_BIN_EXE_loadgen"));
    let profile = Arc::new(Profile::from_command(&line).expect("a command"));
    let surroundings = Surroundings { postgres_url: None, database_name: "unused".to_owned(), reach: Reach::default() };
    let started = Started::start(&profile, &surroundings).await.expect("it starts");
    let keys = started.keys(2, "by command").await.expect("keys");
    let pids = started.process_ids().await.expect("its process");
    let folder = started.folder().to_owned();
    assert_eq!((keys.len(), pids.len()), (2, 1));
    assert!(started.target.is_ready().await && folder.join("data/events.db").exists());
    started.stop().await.expect("it ends");
    assert!(!folder.exists() && !Path::new(&format!("/proc/{}", pids[0])).exists());
}
