//! Cost of one decision of the polling state machine.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use server::config::Polling;
use server::polling::{Found, Poller, Schedule};

fn polled(criterion: &mut Criterion) {
    let mut poller = Poller::new(Polling::Wake, Schedule::default());
    criterion.bench_function("polling_polled", |bencher| bencher.iter(|| black_box(poller.polled(Found::of(0, 500)))));
}

criterion_group!(benches, polled);
criterion_main!(benches);
