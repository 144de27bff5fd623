//! Cost of one unique event body: paid once per event on the sending thread.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loadgen::payload::{Payloads, Sizes};

const RUN_ID: &str = "20261123t090000-0000.1";

fn body(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payload_body");
    for payload_bytes in [64, 256, 16_384] {
        let mut payloads = Payloads::new(RUN_ID, payload_bytes, 1);
        let mut sequence = 0;
        group.throughput(Throughput::Bytes(payload_bytes.into()));
        group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| {
            bencher.iter(|| {
                sequence += 1;
                payloads.body(sequence)
            });
        });
    }
    group.finish();
}

fn write_body(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payload_write_body");
    group.throughput(Throughput::Elements(1));
    for (name, sizes) in [
        ("fixed_256", Sizes::Fixed(256)),
        ("uniform_64_448", Sizes::Uniform(64, 448)),
        ("lognormal_256_p99_2600", Sizes::lognormal(256, 2_600)),
    ] {
        let mut payloads = Payloads::new(RUN_ID, sizes, 1);
        let mut sequence = 0;
        let mut buffer = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                sequence += 1;
                buffer.clear();
                payloads.write_body(sequence, &mut buffer);
                buffer.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, body, write_body);
criterion_main!(benches);
