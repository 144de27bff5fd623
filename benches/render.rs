//! Cost of reading a result and making its page: what `loadgen report` does.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use reports::{html, schema, table};

const RUN: &str = include_str!("../reports/fixtures/three-modes.json");

fn render(criterion: &mut Criterion) {
    let run = schema::read(RUN).expect("a result");
    let mut group = criterion.benchmark_group("report");
    group.throughput(Throughput::Bytes(RUN.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(|| schema::read(RUN).expect("a result")));
    group.bench_function("table", |bencher| bencher.iter(|| table::render(&run)));
    group.bench_function("html", |bencher| bencher.iter(|| html::render(&run)));
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
