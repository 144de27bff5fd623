//! Starting and stopping: what `ingest-server` does as a process of its own, and what it refuses to start with.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::{At, Sender, read};

fn ingest_server(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingest-server"));
    command.arg("serve").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that listens, and where. It ends with this one, however this ends: a test that fails leaves none behind.
pub fn listening(database: &Path, mode: &str, more: &[&str]) -> (Child, String) {
    listening_with(database, mode, more, &[])
}

/// The same with variables in its environment.
pub fn listening_with(database: &Path, mode: &str, more: &[&str], variables: &[(&str, &str)]) -> (Child, String) {
    listening_on(&format!("sqlite:{}", database.display()), mode, more, variables)
}

/// The same on any database, as `--database` takes it.
pub fn listening_on(database: &str, mode: &str, more: &[&str], variables: &[(&str, &str)]) -> (Child, String) {
    let own = ["--listen", "127.0.0.1:0", "--database", database, "--mode", mode, "--exit-with-stdin"];
    let mut child = ingest_server(&[&own, more].concat()).envs(variables.iter().copied()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).trim_end().to_owned();
    (child, url)
}

pub async fn organization(url: &str) -> Sender {
    let client = crate::client();
    let body = json!({"organization_name": "a", "tier": "enterprise"});
    let made = client.post(format!("{url}/api/keys/generate")).json(&body).send().await.unwrap();
    let key = read(made).await.1["api_key"].as_str().unwrap().to_owned();
    Sender { url: url.to_owned(), client, key }
}

pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

pub fn ended(mut child: Child) -> (Option<i32>, String) {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(30), "it did not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    (child.wait().unwrap().code(), log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o5_a_signal_persists_what_is_pending_and_exits_0() {
    for name in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("events.db");
        // Fixed polling with a long wait: at the signal everything is still pending.
        let slow = ["--polling", "fixed", "--poll-interval-ms-fixed", "60000"];
        let (child, url) = listening(&database, "cache-first", &slow);
        let sender = organization(&url).await;
        for payload in 0..100 {
            sender.accepted(json!({"type": "t", "payload": payload})).await;
        }
        signal(&child, name);
        let (code, log) = ended(child);
        assert_eq!(code, Some(0), "{log}");
        let (child, url) = listening(&database, "db-first", &[]);
        let again = Sender { url, ..sender };
        assert_eq!(again.inbox(1000).await.len(), 100, "{log}");
        signal(&child, "TERM");
        assert_eq!(ended(child).0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_ends_by_a_defect_ends_the_server_which_says_so_and_keeps_what_it_promised_to() {
    for (mode, part) in [
        ("cache-first", "processor"),
        ("journal-first", "processor"),
        ("journal-first", "journal"),
        ("db-first", "writer"),
        ("cache-first", "deliveries"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("events.db");
        let fault = format!("panic={part}");
        let (child, url) = listening(&database, mode, &["--fault", &fault, "--webhook-private-addresses"]);
        let sender = organization(&url).await;
        // The deliveries have something to do only when there is a webhook; nobody listens at this address.
        let webhook = json!({"webhook_url": "http://127.0.0.1:1/hook"});
        sender.post("/api/webhook/config", webhook.to_string()).await;
        let (status, answer) = sender.event(json!({"type": "t", "payload": 1})).await;
        let (code, log) = ended(child);
        assert_eq!(code, Some(1), "{mode}, {part}: {log}");
        assert!(
            log.contains("ended by a defect") && log.contains(&format!("part=\"{part}\"")),
            "{mode}, {part}: {log}"
        );
        let (child, url) = listening(&database, mode, &[]);
        let again = Sender { url, ..sender };
        if status == StatusCode::ACCEPTED {
            let kept = again.get(&format!("/api/events/{}", answer["id"].as_str().unwrap())).await.0;
            assert_eq!(kept, StatusCode::OK, "{mode}, {part}: {log}");
            assert!(!log.contains("are lost"), "{mode}, {part}: {log}");
        } else {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{mode}, {part}: {log}");
        }
        signal(&child, "TERM");
        assert_eq!(ended(child).0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_flag_the_end_of_stdin_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _) = listening(&folder.path().join("events.db"), "cache-first", &[]);
    drop(child.stdin.take());
    assert_eq!(ended(child).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_promises_to_loses_nothing_when_it_is_killed_whatever_it_starts_as_again() {
    // Fixed polling with a long wait: what is not in the database at the answer is not there at the kill.
    let slow = ["--polling", "fixed", "--poll-interval-ms-fixed", "60000"];
    for (mode, next) in [
        ("db-first", "cache-first"),
        ("journal-first", "journal-first"),
        ("journal-first", "cache-first"),
        ("journal-first", "db-first"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("events.db");
        let (mut child, url) = listening(&database, mode, &slow);
        let sender = organization(&url).await;
        let mut ids = Vec::new();
        for payload in 0..50 {
            ids.push(sender.accepted(json!({"type": "t", "payload": payload, "dedup_id": payload.to_string()})).await);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (child, url) = listening(&database, next, &[]);
        let again = Sender { url, ..sender };
        let (status, problem) = again.event(json!({"type": "t", "payload": 1, "dedup_id": "7"})).await;
        assert_eq!((status, &problem["id"]), (StatusCode::CONFLICT, &json!(ids[7])), "{mode}, {next}");
        assert_eq!(again.get(&format!("/api/events/{}", ids[49])).await.0, StatusCode::OK, "visible at once");
        let found: Vec<_> =
            again.persisted(50).await.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, ids, "{mode}, {next}");
        signal(&child, "TERM");
        assert_eq!(ended(child).0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_left_in_a_journal_whose_dedup_id_another_process_took_meanwhile_is_told_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("events.db");
    let event = json!({"type": "t", "payload": 1, "dedup_id": "7"});
    let slow = ["--polling", "fixed", "--poll-interval-ms-fixed", "60000"];
    let (mut child, url) = listening(&database, "journal-first", &slow);
    let sender = organization(&url).await;
    let left = sender.accepted(event.clone()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let elsewhere = folder.path().join("elsewhere").display().to_string();
    let (child, url) = listening(&database, "db-first", &["--journal-dir", &elsewhere]);
    let first = Sender { url, ..sender }.accepted(event).await;
    signal(&child, "TERM");
    assert_eq!(ended(child).0, Some(0));
    let (child, _) = listening(&database, "cache-first", &[]);
    signal(&child, "TERM");
    let (code, log) = ended(child);
    assert_eq!(code, Some(0));
    let told = log.lines().find(|line| line.contains("duplicate of one that another process took in"));
    assert!(told.is_some_and(|line| line.contains(&left) && line.contains(&first)), "{left} {first}: {log}");
}

#[test]
fn what_it_cannot_start_with_is_said_with_the_remedy_and_a_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, code, part) in [
        (&["--listen", "0.0.0.0:0"][..], 2, "set --admin-token"),
        (&["--pending-events-max", "0"], 2, "--pending-events-max is 0, and must be from 1 to"),
        (&["--dedup-entries-max", "10"], 2, "at least twice --pending-events-max"),
        (&["--database", "mysql://x"], 2, "sqlite:PATH"),
        (&["--log", "x=y=z"], 2, "--log 'x=y=z' is not a filter"),
        (&["--listen", &taken], 1, "choose another --listen"),
        (&["--listen", "127.0.0.1:0", "--database", "sqlite:/nowhere/at/all.db"], 1, "error: cannot open the database"),
    ] {
        let output = ingest_server(arguments).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(part), "{arguments:?}: {log}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_shows_every_number_with_its_default_range_and_variable() {
    let output = ingest_server(&["--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "--pending-events-max",
        "[default: 100000]",
        "INGEST_PENDING_EVENTS_MAX",
        "[range: 1..=100000000]",
        "--exit-with-stdin",
    ] {
        assert!(words.contains(part), "{part} in\n{help}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_admin_token_keys_are_made_for_its_bearer_only() {
    let mut at = At::cache_first_sqlite().await;
    at.settings.admin_token = Some(server::config::Secret("correct-horse-battery".into()));
    let server = at.start();
    for (token, expected) in [
        ("", StatusCode::UNAUTHORIZED),
        ("wrong", StatusCode::UNAUTHORIZED),
        ("correct-horse-battery", StatusCode::CREATED),
    ] {
        let request = server.client.post(server.url("/api/keys/generate")).bearer_auth(token);
        let response = request.json(&json!({"organization_name": "a"})).send().await.unwrap();
        assert_eq!(read(response).await.0, expected, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_acknowledges_anything_and_keeps_nothing() {
    let mut at = At::cache_first_sqlite().await;
    at.settings.mode = server::config::Mode::Null;
    let (server, sender) = at.ready().await;
    for body in ["", "nonsense", r#"{"type":"t","payload":1}"#] {
        let response = server.client.post(server.url("/api/events")).body(body).send().await.unwrap();
        assert!(response.headers().contains_key("location"));
        let (status, answer) = read(response).await;
        assert_eq!(
            (status, &answer["status"], &answer["durability"]),
            (StatusCode::ACCEPTED, &json!("accepted"), &json!("memory"))
        );
    }
    assert_eq!(sender.get("/api/keys").await.0, StatusCode::OK);
    let (status, made) = sender.post("/api/keys/rotate", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(sender.get("/api/keys").await.0, StatusCode::UNAUTHORIZED);
    let sender = server.sender(made["api_key"].as_str().unwrap());
    assert_eq!(sender.inbox(10).await.len(), 0);
    assert_eq!(server.get("/readyz").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_rotated_by_another_process_ends_within_the_stated_time() {
    let mut at = At::db_first_sqlite().await;
    at.settings.limits.key_cache_ttl_s = 1;
    let (here, sender) = at.ready().await;
    let there = at.start();
    let elsewhere = there.sender(&sender.key);
    assert_eq!(elsewhere.get("/api/keys").await.0, StatusCode::OK);
    assert_eq!(sender.post("/api/keys/rotate", "").await.0, StatusCode::OK);
    let rotated = Instant::now();
    crate::eventually(async || (elsewhere.get("/api/keys").await.0 == StatusCode::UNAUTHORIZED).then_some(())).await;
    assert!(rotated.elapsed() < Duration::from_millis(1500), "{:?}", rotated.elapsed());
    drop(here);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_health_needs_no_key_and_a_stopping_server_is_not_ready() {
    let at = At::cache_first_sqlite().await;
    let (server, _) = at.ready().await;
    for path in ["/healthz", "/readyz", "/health"] {
        assert_eq!(server.get(path).await.status(), StatusCode::OK, "{path}");
        assert_eq!(server.client.head(server.url(path)).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    // A request is half sent when the stop comes: it is finished, and tells the truth about the server.
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(server.running.addr).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    server.running.stop();
    std::thread::sleep(Duration::from_millis(100));
    stream.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"stopping\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_owed_when_it_was_killed_is_delivered_after_the_next_start() {
    use crate::receiver::{Reaction, Receiver};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    for mode in ["cache-first", "db-first"] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("events.db");
        let well = Arc::new(AtomicBool::new(false));
        let is_well = Arc::clone(&well);
        let receiver = Receiver::start(move |_, before| match before {
            _ if is_well.load(Ordering::Relaxed) => Reaction::Status(200),
            0 => Reaction::Status(500),
            _ => Reaction::Hang,
        });
        let receiver = receiver.await;
        let flags = ["--webhook-private-addresses", "--webhook-wait-ms", "10", "--webhook-timeout-ms", "1000"];
        let flags = [&flags[..], &["--webhook-lease-ms", "1500", "--deep-idle-interval-ms", "2000"]].concat();
        let (mut child, url) = listening(&database, mode, &flags);
        let sender = organization(&url).await;
        let config = json!({"webhook_url": receiver.url}).to_string();
        assert_eq!(sender.post("/api/webhook/config", config).await.0, StatusCode::OK);
        let mut ids = Vec::new();
        for payload in 0..30 {
            ids.push(sender.accepted(json!({"type": "t", "payload": payload})).await);
        }
        sender.persisted(30).await;
        crate::eventually(async || (receiver.ids().len() > 3).then_some(())).await;
        child.kill().unwrap();
        child.wait().unwrap();
        well.store(true, Ordering::Relaxed);
        let (child, url) = listening(&database, mode, &flags);
        let again = Sender { url, ..sender };
        crate::eventually(async || {
            let (_, page) = again.get("/api/inbox?status=delivered&limit=1000").await;
            (page["events"].as_array().unwrap().len() == 30).then_some(())
        })
        .await;
        let received: std::collections::BTreeSet<String> = receiver.ids().into_iter().collect();
        assert_eq!(received, ids.into_iter().collect());
        signal(&child, "TERM");
        assert_eq!(ended(child).0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_gets_no_webhook() {
    use crate::receiver::{Reaction, Receiver};
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::always(Reaction::Status(200)).await;
    let proxy = Receiver::always(Reaction::Status(502)).await;
    let database = format!("sqlite:{}", folder.path().join("events.db").display());
    let mut command =
        ingest_server(&["--listen", "127.0.0.1:0", "--database", &database, "--webhook-private-addresses"]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, &proxy.url);
    }
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let sender = organization(line.strip_prefix("listening on ").unwrap().trim_end()).await;
    sender.post("/api/webhook/config", json!({"webhook_url": receiver.url}).to_string()).await;
    let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
    crate::eventually(async || (receiver.ids() == std::slice::from_ref(&id)).then_some(())).await;
    assert_eq!(proxy.ids().len(), 0);
    signal(&child, "TERM");
    assert_eq!(ended(child).0, Some(0));
}
