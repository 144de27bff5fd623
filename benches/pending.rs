//! Cost of one event in the pending buffer: put on the answer's path, taken and persisted behind it.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use server::event::Event;
use server::pending::Pending;
use uuid::Uuid;

const BATCH: usize = 500;

fn put_take_persisted(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pending");
    group.throughput(Throughput::Elements(BATCH as u64));
    let pending = Pending::new(10_000, 64 * 1024 * 1024);
    let mut number = 0;
    group.bench_function("put_take_persisted_500", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH {
                number += 1;
                pending.put(event(number)).expect("there is room");
            }
            let taken = pending.take(BATCH);
            pending.persisted(&taken);
        });
    });
    group.finish();
    assert_eq!(pending.events(), 0);
}

fn event(number: u128) -> Arc<Event> {
    Arc::new(Event {
        id: Uuid::from_u128(number),
        organization_id: Uuid::nil(),
        event_type: "bench".into(),
        dedup_id: None,
        payload: Bytes::from_static(b"{}"),
        created_at_us: 0,
        followed: None,
    })
}

criterion_group!(benches, put_take_persisted);
criterion_main!(benches);
