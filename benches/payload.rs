//! Cost of one unique event body: paid once per event on the sending thread.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loadgen::payload::Payloads;

fn body(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payload_body");
    for payload_bytes in [64, 256, 16_384] {
        let mut payloads = Payloads::new("20261123t090000-0000.1", payload_bytes, 1);
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

criterion_group!(benches, body);
criterion_main!(benches);
