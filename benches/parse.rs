//! Cost of checking one event's body on the server: by payload size, and at the deepest nesting allowed.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadgen::payload::Payloads;
use server::parse::{self, Bounds};

const BOUNDS: Bounds = Bounds { payload_bytes_max: 256 * 1024, json_depth_max: 128, batch_items_max: 1_000 };

fn event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse_event");
    let nested = format!(r#"{{"type":"t","payload":{}1{}}}"#, "[".repeat(120), "]".repeat(120));
    let mut bodies = vec![("nested_120".to_owned(), Bytes::from(nested))];
    for payload_bytes in [64, 256, 16_384] {
        bodies.push((format!("payload_{payload_bytes}"), Payloads::new("run.1", payload_bytes, 1).body(1)));
    }
    for (name, body) in bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| parse::event(&body, &BOUNDS).expect("an event")));
    }
    group.finish();
}

criterion_group!(benches, event);
criterion_main!(benches);
