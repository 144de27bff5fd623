//! Cost of recording one request: on the sending thread (handing it over) and on the recording thread (adding it up).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadgen::recorder::{Recorder, Sample, SampleOutcome, spawn};
use reports::histogram::TimeHistogram;

fn sample(sequence: u64) -> Sample {
    let intended_ns = sequence * 50_000;
    Sample {
        operation: reports::model::Operation::Ingest,
        sequence,
        request: sequence,
        intended_ns,
        sendable_ns: intended_ns,
        sent_ns: Some(intended_ns + 5_000),
        done_ns: intended_ns + 80_000 + sequence % 1_000 * 100,
        repeat: false,
        outcome: SampleOutcome::Accepted { status: 202, id: Some(uuid::Uuid::from_u128(sequence.into())) },
    }
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    let mut histogram = TimeHistogram::new();
    let mut sequence = 0;
    group.bench_function("histogram", |bencher| {
        bencher.iter(|| {
            sequence += 1;
            histogram.record(black_box(80_000 + sequence % 1_000 * 100));
        });
    });
    let mut recorder = Recorder::new(0, u64::MAX, 1_000_000_000, None, u64::MAX);
    group.bench_function("add_up", |bencher| {
        bencher.iter(|| {
            sequence += 1;
            recorder.record(&sample(sequence));
        });
    });
    let (mut samples, thread) =
        spawn(Recorder::new(0, u64::MAX, 1_000_000_000, None, u64::MAX), std::sync::Arc::default(), |_| {})
            .expect("a thread");
    group.bench_function("hand_over", |bencher| {
        bencher.iter(|| {
            sequence += 1;
            samples.push(sample(sequence));
        });
    });
    group.finish();
    drop(samples);
    thread.join().expect("the recording");
}

criterion_group!(benches, record);
criterion_main!(benches);
