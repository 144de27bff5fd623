//! The journal: bytes of a batch, reading a whole segment back, and the way of an event to the device and back to its sender.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use server::config::JournalSync;
use server::event::Event;
use server::journal::format::{self, BatchWriter, Header, RECORDS_START};
use server::journal::{JournalSettings, Opened};
use server::metrics::{BuildInfo, Metrics};
use server::pending::Pending;
use uuid::Uuid;

const BATCH: usize = 64;
/// Batches in the segment that is read back: about what 16 MiB hold.
const BATCHES: usize = 500;

fn event(number: u128) -> Event {
    Event {
        id: Uuid::from_u128(number),
        organization_id: Uuid::from_u128(1),
        event_type: "bench.event".into(),
        dedup_id: Some(format!("bench-{number}").into()),
        payload: Bytes::from(vec![b'x'; 256]),
        created_at_us: 0,
        followed: None,
    }
}

fn bytes(criterion: &mut Criterion) {
    let events: Vec<Event> = (0..BATCH as u128).map(event).collect();
    let mut buffer = Vec::new();
    let mut group = criterion.benchmark_group("journal_bytes");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("encode_64_events", |bencher| {
        bencher.iter(|| {
            let mut batch = BatchWriter::new(&mut buffer, 7, RECORDS_START);
            events.iter().for_each(|event| batch.push(event));
            batch.finish(1);
        });
    });
    let mut segment = Header { number: 1, salt: 7 }.to_bytes().to_vec();
    segment.resize(RECORDS_START as usize, 0);
    for number in 0..BATCHES {
        let mut batch = BatchWriter::new(&mut buffer, 7, segment.len() as u64);
        events.iter().for_each(|event| batch.push(event));
        batch.finish(number as u64);
        segment.extend_from_slice(&buffer);
    }
    group.throughput(Throughput::Bytes(segment.len() as u64));
    group.bench_function("read_a_segment", |bencher| {
        bencher.iter(|| format::read(&segment).expect("whole").batches.len());
    });
    group.finish();
}

/// One event at a time, on the disk of the folder for temporary files: what of it is the sync is seen by comparing the two.
fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal_write");
    for (name, sync) in [("always", JournalSync::Always), ("os", JournalSync::Os)] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = JournalSettings::new(sync, &benches::settings(&[]).limits);
        let pending = Arc::new(Pending::new(1_000, 64 << 20));
        let metrics = Arc::new(Metrics::new(&BuildInfo::default()));
        let opened = Opened::open(folder.path()).expect("a journal");
        let journal = opened.start(&HashSet::new(), Arc::clone(&pending), settings, metrics).expect("starts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut number = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number += 1;
                runtime.block_on(journal.write(Arc::new(event(number)), None)).expect("room");
                pending.persisted(&pending.take(BATCH));
            });
        });
        journal.close();
    }
    group.finish();
}

criterion_group!(benches, bytes, write);
criterion_main!(benches);
