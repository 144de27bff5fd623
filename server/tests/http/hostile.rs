//! Clients that mean harm, over real sockets against a server that is a process of its own. For each: what it is answered, that nobody else is
//! kept waiting, that connections and memory come back, that nothing panics, and that nothing acknowledged is lost.
//!
//! What a single bad request is answered is in `bad_input.rs` too; here are whole tables of one kind, and many clients at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::life::{ended, listening, organization, signal};
use crate::{Sender, eventually};

/// A server, what it has acknowledged, and the promise that it has all of that in the end.
struct Victim {
    child: Child,
    sender: Sender,
    addr: SocketAddr,
    acknowledged: Mutex<Vec<String>>,
    folder: tempfile::TempDir,
}

impl Victim {
    async fn start(mode: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, url) = listening(&folder.path().join("events.db"), mode, flags);
        let addr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let sender = organization(&url).await;
        Self { child, sender, addr, acknowledged: Mutex::default(), folder }
    }

    /// Somebody else sends an event; how long it took.
    async fn serves_others(&self) -> Duration {
        let begun = Instant::now();
        let id = self.sender.accepted(json!({"type": "t", "payload": "of another"})).await;
        let took = begun.elapsed();
        self.acknowledged.lock().unwrap().push(id);
        took
    }

    async fn metric(&self, name: &str) -> f64 {
        let page =
            self.sender.client.get(format!("{}/metrics", self.sender.url)).send().await.unwrap().text().await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in\n{page}"))
    }

    /// Waits until only the connections of those who mean well are left: one of the HTTP client, or two.
    async fn connections_come_back(&self) {
        eventually(async || (self.metric("ingest_connections").await <= 2.0).then_some(())).await;
    }

    /// Stops it. It has not panicked, and after a restart everything acknowledged is there.
    async fn end(self) {
        signal(&self.child, "TERM");
        let (code, log) = ended(self.child);
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let (child, url) = listening(&self.folder.path().join("events.db"), "db-first", &[]);
        let again = Sender { url, ..self.sender };
        let found = again.inbox_text().await;
        for id in self.acknowledged.into_inner().unwrap() {
            assert_eq!(found.matches(&format!("{{\"id\":\"{id}\"")).count(), 1, "{id} was acknowledged");
        }
        signal(&child, "TERM");
        assert_eq!(ended(child).0, Some(0));
    }

    fn post(&self, more: &str) -> String {
        let key = &self.sender.key;
        format!(
            "POST /api/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n{more}"
        )
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What comes back for these bytes until the server closes, which it must.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }
}

impl Sender {
    /// All pages as they came: a number that no reader of JSON here can hold is an event all the same.
    async fn inbox_text(&self) -> String {
        let (mut all, mut cursor) = (String::new(), String::new());
        loop {
            let page = self.request("GET", &format!("/api/inbox?limit=1000&cursor={cursor}")).send().await.unwrap();
            all.push_str(&page.text().await.unwrap());
            match all.rsplit_once("\"next_cursor\":").unwrap().1.trim_end_matches('}') {
                "null" => return all,
                next => cursor = next.trim_matches('"').to_owned(),
            }
        }
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "the connection stays open after {}",
            answer.escape_ascii()
        );
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<u16> {
    answer.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_byte_by_byte_is_cut_off_however_busy_it_looks() {
    let victim = Victim::start("cache-first", &["--header-timeout-ms", "700", "--body-timeout-ms", "700"]).await;
    let heads = (0..40).map(|_| victim.post("x-padding: ").into_bytes());
    let bodies = (0..40).map(|_| victim.post("content-length: 10000\r\n\r\n").into_bytes());
    let lorises: Vec<_> = heads
        .chain(bodies)
        .map(|begin| {
            let mut stream = victim.connect();
            std::thread::spawn(move || {
                let begun = Instant::now();
                stream.write_all(&begin).unwrap();
                // A byte now and then for as long as the server takes them.
                while begun.elapsed() < Duration::from_secs(15) && stream.write_all(b"a").is_ok() {
                    std::thread::sleep(Duration::from_millis(30));
                    let mut byte = [0];
                    stream.set_nonblocking(true).unwrap();
                    let answered = stream.peek(&mut byte).is_ok();
                    stream.set_nonblocking(false).unwrap();
                    if answered {
                        break;
                    }
                }
                (rest(&mut stream), begun.elapsed())
            })
        })
        .collect();
    victim.serves_others().await;
    for loris in lorises {
        let (answer, lasted) = loris.join().unwrap();
        assert_eq!(statuses(&answer), [408], "{answer}");
        assert!(lasted < Duration::from_secs(15));
    }
    victim.connections_come_back().await;
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_late_gets_its_time_once() {
    let victim = Victim::start("cache-first", &["--body-timeout-ms", "4000"]).await;
    let begun = Instant::now();
    assert_eq!(statuses(&victim.answer(victim.post("content-length: 10\r\n\r\n{").as_bytes())), [408]);
    assert!((Duration::from_secs(4)..Duration::from_secs(8)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_bodies_leave_nothing_behind() {
    for mode in ["cache-first", "db-first"] {
        let victim = Victim::start(mode, &[]).await;
        let whole = r#"{"type":"half","payload":"x"}"#;
        for cut in 0..whole.len() {
            let head = victim.post(&format!("content-length: {}\r\n\r\n", whole.len()));
            let mut stream = victim.connect();
            stream.write_all(&[head.as_bytes(), &whole.as_bytes()[..cut]].concat()).unwrap();
            if cut % 2 == 0 {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let answer = rest(&mut stream);
                assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
            }
        }
        victim.serves_others().await;
        victim.connections_come_back().await;
        assert!(victim.sender.persisted(1).await.iter().all(|event| event["type"] != "half"));
        victim.end().await;
    }
}

/// How many files this process may open; raised as far as the system lets it.
fn files_allowed() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

const IDLE: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "what it measured, for whoever asks with --nocapture")]
async fn ten_thousand_idle_connections_cost_little_and_keep_nobody_waiting() {
    assert!(files_allowed() > IDLE as u64 + 500, "this test needs more open files: raise 'ulimit -Hn'");
    let victim = Victim::start("cache-first", &["--connections-max", "12000"]).await;
    victim.serves_others().await;
    let before = victim.metric("process_resident_memory_bytes").await;
    let held: Vec<_> = (0..IDLE).map(|_| victim.connect()).collect();
    eventually(async || (victim.metric("ingest_connections").await >= IDLE as f64).then_some(())).await;
    let idle_bytes = (victim.metric("process_resident_memory_bytes").await - before) / IDLE as f64;
    let mut times: Vec<_> = Vec::new();
    for _ in 0..50 {
        times.push(victim.serves_others().await);
    }
    times.sort();
    // One request on each: what a connection keeps after it has been used.
    for mut stream in &held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    }
    for mut stream in &held {
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let used_bytes = (victim.metric("process_resident_memory_bytes").await - before) / IDLE as f64;
    println!(
        "per idle connection: {idle_bytes:.0} bytes, after a request {used_bytes:.0}; an event beside them: median {:?}",
        times[25]
    );
    assert!(idle_bytes < 24_576.0 && used_bytes < 32_768.0, "{idle_bytes} and {used_bytes} bytes for each");
    drop(held);
    victim.connections_come_back().await;
    // The allocator keeps what was freed and settles; who leaked would need as much again for each ten thousand.
    let mut peaks = Vec::new();
    for _ in 0..2 {
        let held: Vec<_> = (0..IDLE).map(|_| victim.connect()).collect();
        eventually(async || (victim.metric("ingest_connections").await >= IDLE as f64).then_some(())).await;
        peaks.push(victim.metric("process_resident_memory_bytes").await);
        drop(held);
        victim.connections_come_back().await;
    }
    assert!(peaks[1] - peaks[0] < 0.25 * used_bytes * IDLE as f64, "{peaks:?} bytes at each ten thousand");
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_above_the_bound_are_refused_and_those_below_it_are_served() {
    assert!(files_allowed() > IDLE as u64 + 500, "this test needs more open files: raise 'ulimit -Hn'");
    let victim = Victim::start("cache-first", &["--connections-max", "1000"]).await;
    // The place of somebody who was there before.
    victim.serves_others().await;
    let before = victim.metric("process_resident_memory_bytes").await;
    let mut held = Vec::new();
    for count in 0..IDLE {
        held.push(victim.connect());
        if count % 1000 == 0 {
            victim.serves_others().await;
        }
    }
    assert!(victim.metric("ingest_connections").await <= 1000.0);
    let grown = victim.metric("process_resident_memory_bytes").await - before;
    assert!(grown < 64e6, "{grown} bytes for connections that were refused");
    let (mut told, mut closed) = (0, 0);
    for stream in held.iter_mut().skip(1000) {
        match statuses(&rest(stream)).as_slice() {
            [503] => told += 1,
            [] => closed += 1,
            other => panic!("{other:?}"),
        }
    }
    // 64 are told at a time, up to two of them in place of the HTTP client's own connections, which are among the first thousand.
    assert!(told >= 62 && told + closed == IDLE - 1000, "{told} told, {closed} closed");
    drop(held);
    victim.connections_come_back().await;
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_events_are_answered_in_order_and_each_acknowledgement_is_true() {
    for mode in ["cache-first", "db-first"] {
        let victim = Victim::start(mode, &[]).await;
        let mut bytes = Vec::new();
        for number in 0..500 {
            let body = format!(r#"{{"type":"t","payload":{number},"dedup_id":"{number}"}}"#);
            let close = if number == 499 { "connection: close\r\n" } else { "" };
            bytes.extend(victim.post(&format!("{close}content-length: {}\r\n\r\n{body}", body.len())).into_bytes());
        }
        let mut sending = victim.connect();
        let mut reading = sending.try_clone().unwrap();
        let sender = std::thread::spawn(move || sending.write_all(&bytes).unwrap());
        let answer = rest(&mut reading);
        sender.join().unwrap();
        assert_eq!(statuses(&answer), [202; 500]);
        let ids: Vec<&str> = answer.split("{\"id\":\"").skip(1).map(|rest| &rest[..36]).collect();
        let events = victim.sender.persisted(500).await;
        for (number, id) in ids.iter().enumerate() {
            let event = events.iter().find(|event| event["id"] == *id).unwrap_or_else(|| panic!("{id} is lost"));
            assert_eq!(event["payload"], number, "the answers are out of order");
        }
        victim.acknowledged.lock().unwrap().extend(ids.iter().map(ToString::to_string));
        victim.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_never_reads_is_cut_off_and_costs_one_answer() {
    let victim = Victim::start("cache-first", &["--idle-timeout-ms", "1500"]).await;
    for _ in 0..20 {
        let (status, _) = victim.sender.event(json!({"type": "t", "payload": "x".repeat(200_000)})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    victim.sender.persisted(20).await;
    let before = victim.metric("process_resident_memory_bytes").await;
    let ask = format!("GET /api/inbox HTTP/1.1\r\nauthorization: Bearer {}\r\n\r\n", victim.sender.key);
    let deaf: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = victim.connect();
            stream.write_all(ask.repeat(50).as_bytes()).unwrap();
            stream
        })
        .collect();
    victim.serves_others().await;
    let grown = victim.metric("process_resident_memory_bytes").await - before;
    // Fifty answers of 4 MB to each of ten would be 2 GB.
    assert!(grown < 400e6, "{grown} bytes");
    victim.connections_come_back().await;
    drop(deaf);
    victim.end().await;
}

/// `NEXT` is a request that an attacker wants to have taken
/// for one of its own: where it is a part of a body, or behind an answer that ends the connection, it must not be answered.
const NEXT: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const EVENT: &str = r#"{"type":"t","payload":1}"#;

/// What is sent behind the head, and the statuses that come back before the server closes.
fn lies() -> Vec<(&'static str, String, &'static [u16])> {
    let chunked = |rest: &str| format!("transfer-encoding: chunked\r\n\r\n{rest}");
    let good = format!("18\r\n{EVENT}\r\n0\r\n");
    let long_extension = format!("18;x={}\r\n{EVENT}\r\n0\r\n\r\n", "y".repeat(40_000));
    let long_trailer = format!("{good}x: {}\r\n\r\n", "y".repeat(40_000));
    vec![
        ("honest chunks", chunked(&format!("{good}\r\n")), &[202, 200][..]),
        ("a trailer", chunked(&format!("{good}x: y\r\n\r\n")), &[202, 200]),
        ("a chunk extension", chunked(&format!("18;x=y\r\n{EVENT}\r\n0\r\n\r\n")), &[202, 200]),
        ("a size that overflows", chunked(&format!("10000000000000018\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("the largest size", chunked(&format!("ffffffffffffffff\r\n{EVENT}\r\n0\r\n\r\n")), &[408]),
        ("a negative size", chunked(&format!("-18\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("a size with a plus", chunked(&format!("+18\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("a size with 0x", chunked(&format!("0x18\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("no size", chunked(&format!("\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("a size too small", chunked(&format!("10\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("a size too large", chunked(&format!("19\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("no end of a chunk", chunked(&format!("18\r\n{EVENT}0\r\n\r\n")), &[400]),
        ("an extension that does not end", chunked(&long_extension), &[400]),
        ("a trailer that does not end", chunked(&long_trailer), &[400]),
        ("no last chunk", chunked(&format!("18\r\n{EVENT}\r\n")), &[400]),
        (
            "chunked and something else behind it",
            format!("transfer-encoding: chunked, identity\r\n\r\n{good}\r\n"),
            &[400],
        ),
        ("another coding", format!("transfer-encoding: gzip\r\n\r\n{good}\r\n"), &[400]),
        ("nearly chunked", format!("transfer-encoding: xchunked\r\n\r\n{good}\r\n"), &[400]),
        ("a blank before the colon", format!("transfer-encoding : chunked\r\n\r\n{good}\r\n"), &[400]),
        ("a folded header", format!("transfer-encoding:\r\n chunked\r\n\r\n{good}\r\n"), &[400]),
        ("a vertical tab", format!("transfer-encoding: \x0bchunked\r\n\r\n{good}\r\n"), &[400]),
        // Both: chunked holds, and the connection ends, because who forwarded this may have seen it otherwise.
        ("both lengths", format!("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{good}\r\n"), &[202]),
        (
            "both, the other way round",
            format!("transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n{good}\r\n"),
            &[202],
        ),
        (
            "both, and the length is longer",
            format!("content-length: 500\r\ntransfer-encoding: chunked\r\n\r\n{good}\r\n"),
            &[202],
        ),
        ("two equal lengths", format!("content-length: 24\r\ncontent-length: 24\r\n\r\n{EVENT}"), &[202, 200]),
        ("two lengths in one", format!("content-length: 24, 24\r\n\r\n{EVENT}"), &[400]),
        ("two different lengths in one", format!("content-length: 24, 5\r\n\r\n{EVENT}"), &[400]),
        ("a length with a plus", format!("content-length: +24\r\n\r\n{EVENT}"), &[400]),
        ("a length in hex", format!("content-length: 0x18\r\n\r\n{EVENT}"), &[400]),
        ("an empty length", format!("content-length:\r\n\r\n{EVENT}"), &[400]),
        ("a length that overflows", format!("content-length: 18446744073709551640\r\n\r\n{EVENT}"), &[400]),
        // The rest of the event is no request: it ends the connection.
        ("a length too small", format!("content-length: 5\r\n\r\n{EVENT}"), &[400, 400]),
        (
            "a length that takes the next request in",
            format!("connection: close\r\ncontent-length: {}\r\n\r\n{EVENT}", 24 + NEXT.len()),
            &[400],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_whose_length_is_a_lie_is_refused_and_smuggles_nothing() {
    let victim = Victim::start("cache-first", &["--body-timeout-ms", "1000"]).await;
    let mut wrong = Vec::new();
    for (name, sent, expected) in lies() {
        let mut stream = victim.connect();
        let _ = stream.write_all(format!("{}{NEXT}", victim.post(&sent)).as_bytes());
        let answer = rest(&mut stream);
        if statuses(&answer) != expected {
            wrong.push(format!("{name}: {expected:?} and not {answer}"));
        }
        for id in answer.split("{\"id\":\"").skip(1) {
            victim.acknowledged.lock().unwrap().push(id[..36].to_owned());
        }
        victim.serves_others().await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    victim.connections_come_back().await;
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_leads_to_its_route_as_it_is_written_or_nowhere() {
    let victim = Victim::start("cache-first", &[]).await;
    let long = format!("/{}", "a".repeat(12_000));
    let mut wrong = Vec::new();
    for (target, expected) in [
        ("/healthz", 200),
        ("/healthz?x=y", 200),
        ("/healthz?%00", 200),
        ("http://anywhere.example/healthz", 200),
        ("//healthz", 404),
        ("/healthz/", 404),
        ("/./healthz", 404),
        ("/api/../healthz", 404),
        ("/api/%2e%2e/healthz", 404),
        ("/%68ealthz", 404),
        ("/HEALTHZ", 404),
        ("/healthz%00", 404),
        ("/healthz%0d%0ax:%20y", 404),
        ("/healthz;x=y", 404),
        ("/healthz\\", 404),
        ("/\u{e9}", 404),
        ("/api/events/%2e%2e%2fkeys", 401),
        ("/api/events//", 404),
        ("/api//keys", 404),
        ("/api/ack/..%2f..%2fkeys", 405),
        ("/../../../../etc/passwd", 404),
        ("*", 404),
        ("healthz", 404),
        ("http://", 400),
        ("http:///healthz", 400),
        ("file:///etc/passwd", 400),
        ("/a b", 400),
        ("/\0", 400),
        ("/\x7f", 400),
        (&long, 404),
    ] {
        let answer = victim.answer(format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        if statuses(&answer) != [expected] {
            wrong.push(format!("{target:.40}: {expected} and not {answer:.40}"));
        }
        assert!(!answer.to_lowercase().contains("\r\nx: y"), "a header of the attacker's: {answer}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let too_long = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(70_000));
    let answer = victim.answer(too_long.as_bytes());
    assert!(matches!(statuses(&answer)[..], [414 | 431]), "{answer:.100}");
    victim.serves_others().await;
    victim.connections_come_back().await;
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_methods_and_versions_are_refused_by_name() {
    let victim = Victim::start("cache-first", &[]).await;
    let long_method = format!("{} /healthz HTTP/1.1", "A".repeat(9_000));
    for (line, expected) in [
        ("HEAD /healthz HTTP/1.1", 200),
        ("PUT /healthz HTTP/1.1", 405),
        ("OPTIONS /healthz HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 404),
        ("TRACE /healthz HTTP/1.1", 405),
        ("CONNECT example.org:443 HTTP/1.1", 404),
        ("get /healthz HTTP/1.1", 405),
        ("GETT /healthz HTTP/1.1", 405),
        ("G@T /healthz HTTP/1.1", 400),
        (" GET /healthz HTTP/1.1", 400),
        ("GET  /healthz HTTP/1.1", 400),
        ("GET /healthz HTTP/1.1 ", 400),
        ("GET /healthz HTTP/1.2", 400),
        ("GET /healthz HTTP/2.0", 400),
        ("GET /healthz HTTP/9", 400),
        ("GET /healthz", 400),
        ("GET", 400),
        ("PRI * HTTP/2.0", 400),
        ("\u{0}\u{1}\u{2}", 400),
        (&long_method, 405),
    ] {
        let answer = victim.answer(format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        assert_eq!(statuses(&answer), [expected], "{line:.40}: {answer:.300}");
    }
    let answer = victim.answer(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    victim.serves_others().await;
    victim.connections_come_back().await;
    victim.end().await;
}

/// Each bomb, where it goes, and what becomes of it; `None` where it is an event like any other, and comes back byte for byte.
fn bombs() -> Vec<(&'static str, &'static str, String, Option<u16>)> {
    let event = |payload: &str| format!(r#"{{"type":"t","payload":{payload}}}"#);
    let deep = |open: &str, close: &str, levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    let (one, batch) = ("/api/events", "/api/events/batch");
    vec![
        ("a number of 200,000 digits", one, event(&"9".repeat(200_000)), None),
        ("a number with an enormous exponent", one, event("1e999999999999999999"), None),
        ("a fraction of 200,000 digits", one, event(&format!("0.{}", "1".repeat(200_000))), None),
        ("a key of 200,000 characters", one, event(&format!(r#"{{"{}":1}}"#, "k".repeat(200_000))), None),
        ("20,000 equal keys", one, event(&format!("{{{}\"a\":0}}", r#""a":1,"#.repeat(20_000))), None),
        ("an array of 100,000 numbers", one, event(&format!("[{}0]", "0,".repeat(100_000))), None),
        ("30,000 escapes", one, event(&format!("\"{}\"", "\\ud83d\\ude00".repeat(15_000))), None),
        ("128 levels", one, event(&deep("[", "]", 128)), None),
        ("129 levels", one, event(&deep("[", "]", 129)), Some(400)),
        ("50,000 objects inside each other", one, event(&deep(r#"{"a":"#, "}", 40_000)), Some(400)),
        (
            "100,000 levels in an unknown field",
            one,
            format!(r#"{{"type":"t","payload":1,"x":{}}}"#, deep("[", "]", 100_000)),
            Some(202),
        ),
        ("100,000 levels without an end", one, event(&"[".repeat(100_000)), Some(400)),
        (
            "a type of 200,000 characters",
            one,
            format!(r#"{{"type":"{}","payload":1}}"#, "t".repeat(200_000)),
            Some(400),
        ),
        (
            "10,000 unknown fields",
            one,
            format!(r#"{{{}"type":"t","payload":1}}"#, r#""x":1,"#.repeat(10_000)),
            Some(202),
        ),
        ("10,000 types", one, format!(r#"{{{}"payload":1}}"#, r#""type":"t","#.repeat(10_000)), Some(400)),
        ("a batch of 2,000,000 numbers", batch, format!("[{}0]", "0,".repeat(2_000_000)), Some(413)),
        ("a batch of 100,000 levels", batch, deep("[", "]", 100_000), Some(207)),
        (
            "a batch of 1,001 events",
            batch,
            format!("[{}{}]", format!("{},", event("1")).repeat(1_000), event("1")),
            Some(413),
        ),
        ("a batch of 1,000 that are none", batch, format!("[{}7]", "7,".repeat(999)), Some(207)),
        ("an endless string", one, "\"".to_owned() + &"\\u0000".repeat(20_000), Some(400)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_bombs_are_kept_as_they_are_or_refused_and_nobody_waits_for_them() {
    let victim = Victim::start("cache-first", &[]).await;
    let before = victim.metric("process_resident_memory_bytes").await;
    for (name, path, body, expected) in bombs() {
        let (status, answer) = victim.sender.post(path, body.clone()).await;
        assert_eq!(status, expected.unwrap_or(202), "{name}: {answer:.300}");
        if expected.is_none() {
            let id = answer["id"].as_str().unwrap();
            let response =
                victim.sender.request("GET", &format!("/api/events/{id}")).send().await.unwrap().text().await.unwrap();
            let payload = &body[r#"{"type":"t","payload":"#.len()..body.len() - 1];
            assert!(
                response.contains(&format!("\"payload\":{payload},\"state\"")),
                "{name} did not come back as it was sent"
            );
            victim.acknowledged.lock().unwrap().push(id.to_owned());
        }
        victim.serves_others().await;
    }
    // Two million places for numbers that are no events would be 32 MB, and as much again while they grow.
    let grown = victim.metric("process_resident_memory_bytes").await - before;
    assert!(grown < 64e6, "{grown} bytes");
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf_8_is_refused_wherever_it_stands() {
    let victim = Victim::start("cache-first", &[]).await;
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"] {
        for place in [
            "{\"type\":\"@\",\"payload\":1}",
            "{\"type\":\"t\",\"payload\":\"@\"}",
            "{\"type\":\"t\",\"payload\":{\"@\":1}}",
            "{\"@\":1,\"type\":\"t\",\"payload\":1}",
            "@{\"type\":\"t\",\"payload\":1}",
        ] {
            let body: Vec<u8> = place.split('@').map(str::as_bytes).collect::<Vec<_>>().join(bad);
            let (status, answer) = victim.sender.post("/api/events", body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{}: {answer}", body.escape_ascii());
            let (status, answer) = victim.sender.post("/api/events/batch", [b"[", &body[..], b"]"].concat()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{}: {answer}", body.escape_ascii());
        }
    }
    let key: &[u8] = b"\xff\xfe not text";
    let request = victim
        .sender
        .request("POST", "/api/events")
        .header("idempotency-key", key)
        .json(&json!({"type": "t", "payload": 1}));
    let first: Value = request.try_clone().unwrap().send().await.unwrap().json().await.unwrap();
    let again: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(first["id"], again["id"], "any bytes are an Idempotency-Key");
    victim.end().await;
}
