//! What no well-behaved client sends, byte for byte over TCP: each gets a clear answer or a closed connection, and the server
//! goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{At, assert_problem};

/// Sends the bytes and reads until the server closes (or 10 s).
fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A server that has refused may close while this is still sending.
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of the last answer, whose body must be a problem when it is an error.
fn status(answer: &str) -> u16 {
    let last = &answer[answer.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer in {answer:?}"))..];
    let status = last["HTTP/1.1 ".len()..][..3].parse().unwrap();
    if status >= 400 {
        assert!(last.contains("content-type: application/problem+json"), "{last}");
        let body: Value = serde_json::from_str(last.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_problem(&body, status);
    }
    status
}

/// Settings with short time-outs and small bounds.
async fn strict() -> At {
    let mut at = At::cache_first_sqlite().await;
    let limits = &mut at.settings.limits;
    (limits.header_timeout_ms, limits.body_timeout_ms, limits.idle_timeout_ms) = (300, 300, 1000);
    (limits.headers_max, limits.header_bytes_max, limits.connections_max) = (16, 8192, 40);
    at
}

/// What is sent, and the status that it must get.
fn bad_requests(key: &str) -> Vec<(&'static str, Vec<u8>, u16)> {
    let post = |more: &str| {
        format!(
            "POST /api/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n{more}"
        )
    };
    let with_body = |body: &[u8]| {
        [post(&format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len())).as_bytes(), body].concat()
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").into_bytes();
    let headers = |count: usize| (0..count).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    vec![
        ("no HTTP at all", b"hello\r\n\r\n".to_vec(), 400),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        ("a header without a colon", b"GET / HTTP/1.1\r\nhost x\r\n\r\n".to_vec(), 400),
        ("a NUL in a header", b"GET / HTTP/1.1\r\nhost: \0\r\n\r\n".to_vec(), 400),
        ("too many headers", format!("GET / HTTP/1.1\r\n{}\r\n", headers(17)).into_bytes(), 431),
        ("a header too large", format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000)).into_bytes(), 431),
        ("two lengths", post("content-length: 1\r\ncontent-length: 2\r\n\r\n{}").into_bytes(), 400),
        ("a negative length", post("content-length: -1\r\n\r\n").into_bytes(), 400),
        (
            "garbage chunks",
            post("connection: close\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\ngarbage\r\n\r\n").into_bytes(),
            400,
        ),
        ("a body that is announced too large", post("content-length: 99999999999\r\n\r\n{").into_bytes(), 413),
        (
            "chunks without end",
            [
                post("transfer-encoding: chunked\r\n\r\n").into_bytes(),
                b"8000\r\n".to_vec(),
                vec![b' '; 0x8000],
                b"\r\n".to_vec(),
            ]
            .concat()
            .repeat(1),
            408,
        ),
        ("no path of ours", get("/api/webhook"), 404),
        ("an absolute path of nothing", get("/../../etc/passwd"), 404),
        (
            "a method that the route lacks",
            b"DELETE /api/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
            405,
        ),
        ("a body that is not UTF-8", with_body(b"{\"type\":\"t\",\"payload\":\"\xff\"}"), 400),
        ("a body of NULs", with_body(&[0; 100]), 400),
        ("a deep body", with_body(&[b'['; 200_000]), 400),
        (
            "a key that is not ASCII",
            b"GET /api/keys HTTP/1.1\r\nauthorization: Bearer \xff\xfe\r\nconnection: close\r\n\r\n".to_vec(),
            401,
        ),
        ("a head that never ends", b"GET / HTTP/1.1\r\nhost: x\r\n".to_vec(), 408),
        ("half a request line", b"GE".to_vec(), 408),
        ("a body that never comes", post("content-length: 10\r\n\r\n{").into_bytes(), 408),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_request_gets_its_status_and_the_server_goes_on() {
    let at = strict().await;
    let (server, sender) = at.ready().await;
    let addr = server.running.addr;
    let threads: Vec<_> = bad_requests(&sender.key)
        .into_iter()
        .map(|(name, bytes, expected)| (name, expected, std::thread::spawn(move || raw(addr, &bytes))))
        .collect();
    for (name, expected, thread) in threads {
        let answer = thread.join().unwrap();
        assert!(!answer.is_empty(), "{name}: no answer");
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        if expected == 405 {
            assert!(answer.contains("allow: POST\r\n"), "{answer}");
        }
    }
    sender.accepted(serde_json::json!({"type": "t", "payload": 1})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_over_the_bound_are_refused_while_they_come() {
    let at = At::cache_first_sqlite().await;
    let (server, sender) = at.ready().await;
    let head = format!(
        "POST /api/events HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        sender.key
    );
    let chunk = [b"8000\r\n".as_slice(), &[b' '; 0x8000], b"\r\n"].concat();
    let answer = raw(server.running.addr, &[head.as_bytes(), &chunk.repeat(100)].concat());
    assert_eq!(status(&answer), 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_one_packet_are_answered_in_order() {
    let at = At::cache_first_sqlite().await;
    let (server, sender) = at.ready().await;
    let one = |kind: &str, close: &str| {
        let body = format!(r#"{{"type":"{kind}","payload":1}}"#);
        let head = format!(
            "POST /api/events HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n",
            sender.key
        );
        format!("{head}{close}content-length: {}\r\n\r\n{body}", body.len())
    };
    let answer =
        raw(server.running.addr, [one("a", ""), one("", ""), one("b", "connection: close\r\n")].concat().as_bytes());
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["202", "400", "202"]);
    let types: Vec<_> = sender.persisted(2).await.iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_with_a_small_body_keeps_its_connection() {
    let at = At::cache_first_sqlite().await;
    let server = at.start();
    let refused = "POST /api/events HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
    let last = "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n";
    let answer = raw(server.running.addr, [refused, refused, last].concat().as_bytes());
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["401", "401", "200"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_so_and_a_free_place_is_given_again() {
    let at = strict().await;
    let server = at.start();
    let addr = server.running.addr;
    let held: Vec<_> = (0..40).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let refused = raw(addr, b"GET /healthz HTTP/1.1\r\n\r\n");
    assert_eq!(status(&refused), 503);
    assert!(refused.contains("retry-after: "), "{refused}");
    drop(held);
    let started = Instant::now();
    while status(&raw(addr, b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")) != 200 {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_outlives_the_header_timeout_and_is_closed_after_the_idle_timeout() {
    let at = strict().await;
    let server = at.start();
    let mut stream = TcpStream::connect(server.running.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for wait_ms in [0, 600] {
        std::thread::sleep(Duration::from_millis(wait_ms));
        stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut rest = [0; 1024];
        let _ = stream.read(&mut rest).unwrap();
    }
    let started = Instant::now();
    assert_eq!(read_all(&mut stream), "");
    assert!(
        (Duration::from_millis(800)..Duration::from_secs(5)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arbitrary_bytes_never_take_the_server_down() {
    let at = strict().await;
    let (server, sender) = at.ready().await;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let valid = format!(
        "POST /api/events HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\r\n{{\"type\":\"t\",\"payload\":1}} ",
        sender.key
    );
    for _ in 0..300 {
        let mut bytes = valid.clone().into_bytes();
        for _ in 0..random() % 4 {
            let at = random() as usize % bytes.len();
            bytes[at] = random() as u8;
        }
        bytes.truncate(random() as usize % (bytes.len() + 1));
        let mut stream = TcpStream::connect(server.running.addr).unwrap();
        let _ = stream.write_all(&bytes);
        if random() % 4 == 0 {
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let _ = stream.read(&mut [0; 100]);
        }
    }
    crate::eventually(async || (sender.get("/api/keys").await.0 == 200).then_some(())).await;
}
