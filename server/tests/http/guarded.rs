//! Nobody gets in: what SECURITY.md says is defended, each with the attack that it is defended against.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use server::config::Secret;
use server::routes::Route;
use sqlx::{Connection, Row, SqliteConnection};

use crate::{At, Sender, Server, everywhere, read, support};

everywhere! {
    each_route_keeps_organizations_apart
    a_key_is_stored_as_a_hash_only
    an_inbox_page_ends_before_it_has_too_many_bytes
}

/// What keeps a route's organisations apart.
enum Apart {
    /// It needs no key, and shows nothing of any organisation.
    Nothing,
    /// It shows and changes what is the caller's own.
    OwnOnly,
    /// It names one event: to others there is none.
    ById,
}

/// A new route without a row here does not compile.
fn apart(route: Route) -> Apart {
    match route {
        Route::Healthz | Route::Readyz | Route::Health | Route::Metrics | Route::OpenApi => Apart::Nothing,
        Route::GenerateKey => Apart::Nothing,
        Route::PostEvent | Route::PostBatch | Route::Inbox | Route::ShowKey | Route::RotateKey => Apart::OwnOnly,
        Route::ShowWebhook | Route::SetWebhook | Route::RemoveWebhook => Apart::OwnOnly,
        Route::GetEvent | Route::Acknowledge | Route::RetryDelivery => Apart::ById,
    }
}

/// An organisation with one event whose every part is a word that nobody else may read.
async fn owner(server: &Server) -> (Sender, String, [String; 4]) {
    let body = json!({"organization_name": "name-of-the-owner", "tier": "enterprise"});
    let made = server.client.post(server.url("/api/keys/generate")).json(&body).send().await.unwrap();
    let made = read(made).await.1;
    let owner = server.sender(made["api_key"].as_str().unwrap());
    let event = json!({"type": "type-of-the-owner", "payload": "payload-of-the-owner", "dedup_id": "d"});
    // The key that the other one will use too.
    let sent = owner.request("POST", "/api/events").header("idempotency-key", "/api/events").json(&event);
    let id = read(sent.send().await.unwrap()).await.1["id"].as_str().unwrap().to_owned();
    let words = [
        "-of-the-owner".to_owned(),
        owner.key.clone(),
        id.clone(),
        made["organization_id"].as_str().unwrap().to_owned(),
    ];
    (owner, id, words)
}

async fn each_route_keeps_organizations_apart(mut at: At) {
    at.settings.webhook_private_addresses = true;
    let server = at.start();
    let (owner, id, words) = owner(&server).await;
    owner.persisted(1).await;
    let webhook = |whose: &str| json!({"webhook_url": format!("http://127.0.0.1:9/hook-of-the-{whose}")}).to_string();
    assert_eq!(owner.post("/api/webhook/config", webhook("owner")).await.0, StatusCode::OK);
    let before = owner.get(&format!("/api/events/{id}")).await;
    let mut other = server.organization("enterprise").await;
    assert_eq!(other.post("/api/webhook/config", webhook("other")).await.0, StatusCode::OK);
    for route in Route::ALL {
        let (method, template) = route.template();
        let path = template.replace("{id}", &id);
        let body = match route {
            Route::PostBatch => r#"[{"type":"t","payload":1,"dedup_id":"d"}]"#,
            Route::GenerateKey => r#"{"organization_name":"x"}"#,
            Route::SetWebhook => r#"{"webhook_url":"http://127.0.0.1:9/"}"#,
            _ => r#"{"type":"t","payload":1,"dedup_id":"d"}"#,
        };
        let request = other.request(method.as_str(), &path).header("idempotency-key", template);
        let request = request.header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = format!("{:?}", response.headers());
        let shown = format!("{headers} {}", response.text().await.unwrap());
        for word in &words {
            // To name the event that was asked for is no secret.
            let asked = matches!(apart(route), Apart::ById) && *word == id;
            assert!(asked || !shown.contains(word), "{template} shows {word}: {shown}");
        }
        match apart(route) {
            Apart::ById => assert_eq!(status, StatusCode::NOT_FOUND, "{template}"),
            // The owner's dedup_id and Idempotency-Key are the owner's.
            Apart::OwnOnly | Apart::Nothing => assert!(status.is_success(), "{template}: {status} {shown}"),
        }
        if route == Route::RotateKey {
            let made: Value = serde_json::from_str(shown.split_once("} ").unwrap().1).unwrap();
            other = server.sender(made["api_key"].as_str().unwrap());
        }
    }
    assert_eq!(owner.get(&format!("/api/events/{id}")).await, before, "the other organisation changed the event");
    assert_eq!(owner.inbox(10).await.len(), 1);
    let kept = owner.get("/api/webhook/config").await;
    assert!(kept.0 == StatusCode::OK && kept.1["webhook_url"].to_string().contains("hook-of-the-owner"), "{kept:?}");
    assert_eq!(owner.get("/api/keys").await.0, StatusCode::OK);
    assert!(other.persisted(1).await.iter().all(|event| event["id"] != *id));
}

#[test]
fn every_route_of_the_document_is_among_those_that_are_kept_apart() {
    let document: Value = serde_json::from_str(server::openapi::text()).unwrap();
    let listed: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let tested: BTreeSet<&str> = Route::ALL.iter().map(|route| route.template().1).collect();
    assert_eq!(listed, tested);
}

async fn a_key_is_stored_as_a_hash_only(at: At) {
    let (server, sender) = at.ready().await;
    let random = &sender.key["mr_live_".len()..];
    let mut found = 0;
    match &at.settings.database {
        server::config::Database::Sqlite(path) => {
            let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
            let rows = sqlx::query("SELECT key_hash FROM api_keys").fetch_all(&mut connection).await.unwrap();
            for row in rows {
                assert_eq!(row.get::<Vec<u8>, _>(0), server::auth::hash(sender.key.as_bytes()));
                found += 1;
            }
            drop(server);
            for name in ["", "-wal", "-shm"] {
                let file = format!("{}{name}", path.display());
                let Ok(bytes) = std::fs::read(&file) else { continue };
                assert!(!bytes.windows(random.len()).any(|window| window == random.as_bytes()), "the key is in {file}");
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::metadata(&file).unwrap().permissions().mode();
                // The store of the test made the file, as a server would.
                assert_eq!(mode & 0o077, 0, "{file} can be read by others: {mode:o}");
            }
        }
        server::config::Database::Postgres(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            let rows =
                sqlx::query("SELECT k.key_hash, k::text FROM api_keys k").fetch_all(&mut connection).await.unwrap();
            for row in rows {
                assert_eq!(row.get::<Vec<u8>, _>(0), server::auth::hash(sender.key.as_bytes()));
                assert!(!row.get::<String, _>(1).contains(random));
                found += 1;
            }
        }
    }
    assert_eq!(found, 1);
}

async fn an_inbox_page_ends_before_it_has_too_many_bytes(mut at: At) {
    at.settings.limits.inbox_bytes_max = 10_000;
    let (_server, sender) = at.ready().await;
    // The third alone is more than a page may have, and still comes.
    for bytes in [3_000, 6_000, 20_000, 100, 9_000] {
        sender.accepted(json!({"type": "t", "payload": "x".repeat(bytes)})).await;
    }
    sender.persisted(5).await;
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let (_, page) = sender.get(&format!("/api/inbox?limit=1000&cursor={cursor}")).await;
        let lengths = page["events"].as_array().unwrap().iter().map(|event| event["payload"].as_str().unwrap().len());
        pages.push(lengths.collect::<Vec<_>>());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, [vec![3_000, 6_000], vec![20_000], vec![100, 9_000]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_keys_do_not_take_the_database_from_those_who_have_one() {
    let mut at = At::db_first_postgres().await;
    (at.settings.limits.database_connections_max, at.settings.limits.store_timeout_ms) = (4, 2000);
    let (server, sender) = at.ready().await;
    sender.accepted(json!({"type": "t", "payload": 0})).await;
    // Every look-up of a key waits behind this lock.
    let server::config::Database::Postgres(url) = &at.settings.database else { unreachable!() };
    let mut locker = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").execute(&mut locker).await.unwrap();
    let strangers: Vec<_> = (0..64)
        .map(|_| {
            let stranger = server.sender(&server::auth::generate().unwrap());
            tokio::spawn(async move {
                // Half of them hang up at once, which must not make room for the others.
                let asked = stranger.get("/api/inbox");
                if stranger.key.as_bytes()[10] % 2 == 0 {
                    drop(tokio::time::timeout(Duration::from_millis(50), asked).await)
                } else {
                    drop(asked.await)
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for payload in 1..20 {
        sender.accepted(json!({"type": "t", "payload": payload})).await;
    }
    let waiting = sqlx::query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    let waiting: i64 = waiting.fetch_one(&mut locker).await.unwrap().get(0);
    assert_eq!(waiting, 2, "half of the connections look for keys at most");
    sqlx::raw_sql("ROLLBACK").execute(&mut locker).await.unwrap();
    for stranger in strangers {
        stranger.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_key_is_asked_for_once_and_one_with_a_wrong_checksum_never() {
    let mut at = At::db_first_sqlite().await;
    // After its first poll the processor says nothing for an hour.
    (at.settings.polling, at.settings.limits.poll_interval_ms_fixed) = (server::config::Polling::Fixed, 3_600_000);
    let server = at.start();
    let stranger = server.sender(&server::auth::generate().unwrap());
    let statements = async |kind: &str| {
        let page = server.get("/metrics").await.text().await.unwrap();
        let name = format!("ingest_sql_statements_total{{kind=\"{kind}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |value| value.parse().unwrap())
    };
    crate::eventually(async || (server.metric("ingest_sql_idle_seconds").await > 0.3).then_some(())).await;
    let selects = async || statements("select").await;
    let before: f64 = selects().await;
    let started = Instant::now();
    for _ in 0..50 {
        assert_eq!(stranger.get("/api/keys").await.0, StatusCode::UNAUTHORIZED);
    }
    // Refused for two seconds without asking again.
    let allowed = 1.0 + started.elapsed().as_secs_f64() / 2.0;
    let asked = selects().await - before;
    assert!((1.0..=allowed.ceil()).contains(&asked), "{asked}");
    let before = selects().await;
    for number in 0..50 {
        let wrong = server.sender(&format!("mr_live_{number:038}"));
        assert_eq!(wrong.get("/api/keys").await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(selects().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_name_makes_no_keys_on_a_server_without_a_token() {
    let at = At::cache_first_sqlite().await;
    let server = at.start();
    let port = server.running.addr.port();
    let send = async |server: &Server, host: &str, token: Option<&str>| {
        let request = server.client.post(server.url("/api/keys/generate")).header("host", host);
        let request = token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token));
        read(request.json(&json!({"organization_name": "a"})).send().await.unwrap()).await
    };
    let (status, problem) = send(&server, &format!("rebound.example:{port}"), None).await;
    assert_eq!((status, &problem["type"]), (StatusCode::FORBIDDEN, &json!("urn:millrace:problem:foreign-host")));
    assert_eq!(send(&server, &format!("localhost:{port}"), None).await.0, StatusCode::CREATED);
    // A browser asks first whether it may send JSON to another origin, and is not told that it may.
    let asked = server.client.request("OPTIONS".parse().unwrap(), server.url("/api/keys/generate"));
    let asked = asked
        .header("origin", "http://evil.example")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(asked.headers().keys().all(|name| !name.as_str().starts_with("access-control-")));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let simple = server.client.post(server.url("/api/keys/generate")).header("content-type", kind);
        let simple = simple.body(r#"{"organization_name":"a"}"#).send().await.unwrap();
        assert_eq!(read(simple).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    // With a token the name does not matter: a page does not have it.
    let mut at = At::cache_first_sqlite().await;
    at.settings.admin_token = Some(Secret("correct-horse-battery".into()));
    let server = at.start();
    assert_eq!(send(&server, "ingest.example", Some("correct-horse-battery")).await.0, StatusCode::CREATED);
    assert_eq!(send(&server, "ingest.example", None).await.0, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_public_address_without_a_token_is_refused_and_a_nearly_right_url_is_not_repeated() {
    for (arguments, part) in [
        (&["--listen", "0.0.0.0:0"][..], "set --admin-token"),
        (&["--listen", "[::]:0"], "set --admin-token"),
        (&["--listen", "192.0.2.1:0"], "set --admin-token"),
        (&["--listen", "[::ffff:127.0.0.1]:0"], "set --admin-token"),
        (&["--listen", "0.0.0.0:0", "--admin-token", "fifteen-hunter2"], "at least 16"),
        (&["--database", "postgresq://me:hunter2@127.0.0.1/x"], "sqlite:PATH"),
        (&["--listen", "127.0.0.1:0", "--database", "postgres://me:hunter2@127.0.0.1:1/x"], "cannot open the database"),
        (
            &["--listen", "127.0.0.1:0", "--database", "postgres://me:hunter2@127.0.0.1:port/x"],
            "cannot open the database",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ingest-server")).arg("serve").args(arguments).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && log.contains(part), "{arguments:?}: {log}");
        assert!(!log.contains("hunter2") && output.stdout.is_empty(), "{arguments:?}: {log}");
    }
}

/// Runs a server as a process at the loudest log, has it do everything including what fails, and gives its log.
async fn everything_logged(database: &str, secrets: &mut Vec<String>) -> String {
    let token = "token-hunter2-hunter2";
    let mut child = Command::new(env!("CARGO_BIN_EXE_ingest-server"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log",
            "trace",
            "--database",
            database,
            "--store-timeout-ms",
            "300",
        ])
        .env("INGEST_ADMIN_TOKEN", token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    let logged = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let url = line.strip_prefix("listening on ").unwrap().trim_end().to_owned();
    let client = crate::client();
    let made =
        client.post(format!("{url}/api/keys/generate")).bearer_auth(token).json(&json!({"organization_name": "a"}));
    let key = read(made.send().await.unwrap()).await.1["api_key"].as_str().unwrap().to_owned();
    let sender = Sender { url: url.clone(), client, key };
    secrets.extend([token.to_owned(), sender.key.clone()]);
    for (method, path, body) in [
        ("POST", "/api/events", r#"{"type":"t","payload":"payload-hunter2","dedup_id":"dedup-hunter2"}"#),
        ("POST", "/api/events", r#"{"type":"t","payload":"payload-hunter2","dedup_id":"dedup-hunter2"}"#),
        ("POST", "/api/events", "payload-hunter2"),
        ("POST", "/api/events/batch", r#"[{"type":"t","payload":"payload-hunter2"},{"type":"payload-hunter2"}]"#),
        ("GET", "/api/inbox?cursor=cursor-hunter2", ""),
        ("GET", "/api/inbox?limit=1", ""),
        ("GET", "/api/keys", ""),
        ("GET", "/no/route?token=query-hunter2", ""),
        ("POST", "/api/keys/generate", r#"{"organization_name":"payload-hunter2"}"#),
        ("POST", "/api/keys/rotate", ""),
        ("GET", "/api/keys", ""),
    ] {
        let request = sender
            .request(method, path)
            .header("idempotency-key", format!("idempotency-hunter2-{body}").replace(['{', '}'], ""));
        let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
        if path.ends_with("rotate") {
            secrets.push(read(response).await.1["api_key"].as_str().unwrap().to_owned());
        }
    }
    let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success() && child.wait().unwrap().success());
    logged.join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_even_at_the_loudest_level() {
    let folder = tempfile::tempdir().unwrap();
    let empty = support::empty_postgres().await;
    let server::config::Database::Postgres(url) = &empty.database else { unreachable!() };
    // The private PostgreSQL trusts loopback: the password is sent to nobody, and must be shown to nobody.
    let with_password = url.replace("postgres@", "postgres:password-hunter2@");
    for database in [format!("sqlite:{}", folder.path().join("events.db").display()), with_password] {
        let mut secrets = vec!["hunter2".to_owned()];
        let log = everything_logged(&database, &mut secrets).await;
        assert!(log.contains("DEBUG") || log.contains("TRACE"), "the log is not loud: {log}");
        for secret in &secrets {
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(secret.as_str())).take(3).collect();
            assert!(lines.is_empty(), "{secret} is in the log: {lines:#?}");
        }
    }
}

/// Every number has a row of SECURITY.md or stands in `--help`, which SECURITY.md points to, with what happens at it.
#[test]
fn each_limit_says_what_happens_at_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_ingest-server")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let security = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md")).unwrap();
    let flags: Vec<&str> =
        help.split_whitespace().filter(|word| word.starts_with("--") && word.ends_with("-max")).collect();
    assert!(flags.len() >= 15, "{flags:?}");
    for flag in flags {
        assert!(security.contains(&format!("`{flag}`")), "SECURITY.md does not say what happens at {flag}");
    }
}
