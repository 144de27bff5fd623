//! Cost of one intended time: paid once per event on the sending thread.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadgen::schedule::Schedule;
use reports::model::Arrivals;

fn next(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule_next");
    group.throughput(Throughput::Elements(1));
    for (name, arrivals) in [("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)] {
        let mut schedule = Schedule::new(arrivals, 1_000.0, u64::MAX, 1);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(schedule.next())));
    }
    group.finish();
}

criterion_group!(benches, next);
criterion_main!(benches);
