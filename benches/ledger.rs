//! Cost of reconciling: entering every event of a store that kept them all.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use loadgen::clock::Clock;
use loadgen::ledger::Reconciliation;
use loadgen::payload::Payloads;
use loadgen::recorder::Acknowledged;
use loadgen::target::ShownEvent;
use serde_json::value::RawValue;

const EVENTS: u64 = 1_000;

fn enter(criterion: &mut Criterion) {
    let mut payloads = Payloads::new("run.1", 256, 1);
    let acknowledged: Vec<_> =
        (0..EVENTS).map(|sequence| Acknowledged { sequence, id: None, done_ns: sequence }).collect();
    let stored: Vec<(String, Box<RawValue>)> = (0..EVENTS)
        .map(|sequence| {
            let payload = String::from_utf8(payloads.payload(sequence).to_vec()).expect("text");
            (payloads.dedup_id(sequence), RawValue::from_string(payload).expect("JSON"))
        })
        .collect();
    let shown =
        || -> Vec<ShownEvent<'_>> { stored.iter().map(|(dedup_id, payload)| show(dedup_id, payload)).collect() };
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("enter_1000", |bencher| {
        bencher.iter_batched(
            || (Reconciliation::new(&acknowledged, &payloads, EVENTS, EVENTS, Clock::start()), shown()),
            |(mut found, shown)| {
                shown.iter().for_each(|event| found.enter(event));
                assert_eq!(found.missing(), 0);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn show<'a>(dedup_id: &str, payload: &'a RawValue) -> ShownEvent<'a> {
    ShownEvent { id: None, dedup_id: Some(dedup_id.to_owned()), payload: Some(payload), persisted_at: None }
}

criterion_group!(benches, enter);
criterion_main!(benches);
