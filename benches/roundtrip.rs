//! One event over a kept-alive loopback connection, by mode: what of an acknowledgement is the network and hyper (`null`), and what
//! is the server's own work. One client, closed loop: for costs, not for claims; those are `loadgen run`'s.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use clap::Parser;
use criterion::{Criterion, criterion_group, criterion_main};
use loadgen::payload::Payloads;
use server::config::Settings;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

fn settings(mode: &str, folder: &Path) -> Settings {
    let database = format!("sqlite:{}", folder.join(format!("{mode}.db")).display());
    let flags = ["server", "--listen", "127.0.0.1:0", "--mode", mode, "--database", &database];
    Flags::parse_from(flags.into_iter().chain(["--rate-limit-enterprise-per-minute", "0"])).settings
}

fn exchange(stream: &mut TcpStream, head: &str, body: &[u8]) -> String {
    let head =
        format!("{head}host: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).expect("a write");
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn key(stream: &mut TcpStream) -> String {
    let body = br#"{"organization_name":"bench","tier":"enterprise"}"#;
    let answer = exchange(stream, "POST /api/keys/generate HTTP/1.1\r\n", body);
    let json = answer.split("\r\n\r\n").nth(1).expect("a body");
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    json["api_key"].as_str().expect("a key").to_owned()
}

fn post_event(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut group = criterion.benchmark_group("roundtrip_post_event");
    for mode in ["null", "cache-first", "journal-first", "db-first"] {
        let running = server::start(settings(mode, folder.path())).expect("a server");
        let mut stream = TcpStream::connect(running.addr).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let head = format!("POST /api/events HTTP/1.1\r\nauthorization: Bearer {}\r\n", key(&mut stream));
        let mut payloads = Payloads::new("bench", 256, 1);
        let mut sequence = 0;
        group.bench_function(mode, |bencher| {
            bencher.iter(|| {
                sequence += 1;
                let answer = exchange(&mut stream, &head, &payloads.body(sequence));
                assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, post_event);
criterion_main!(benches);
