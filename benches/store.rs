//! Cost of persisting a batch on SQLite, sync included: how much a batch saves over single rows.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use server::config::Database;
use server::event::Event;
use server::metrics::{BuildInfo, Metrics};
use server::store::{Handling, Store, StoreLimits};
use uuid::Uuid;

fn insert(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = runtime.block_on(open(&Database::Sqlite(folder.path().join("events.db"))));
    let mut group = criterion.benchmark_group("store_insert_sqlite");
    group.sample_size(20);
    let mut number = 0;
    for batch in [1, 16, 128, 500] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                let events: Vec<_> = (0..batch).map(|at| event(number + u128::from(at))).collect();
                number += u128::from(batch);
                runtime.block_on(store.insert(&events, Handling::Done)).expect("the rows")
            });
        });
    }
    group.finish();
    runtime.block_on(store.close());
}

async fn open(database: &Database) -> Store {
    let text = String::new;
    let build = BuildInfo {
        version: text(),
        mode: text(),
        polling: text(),
        database: text(),
        durability: text(),
        faults: text(),
    };
    Store::connect(database, StoreLimits::default(), Arc::new(Metrics::new(&build))).await.expect("a store")
}

fn event(number: u128) -> Arc<Event> {
    Arc::new(Event {
        id: Uuid::from_u128(number),
        organization_id: Uuid::nil(),
        event_type: "bench".into(),
        dedup_id: Some(number.to_string().into()),
        payload: Bytes::from(vec![b'1'; 256]),
        created_at_us: 0,
        followed: None,
    })
}

criterion_group!(benches, insert);
criterion_main!(benches);
