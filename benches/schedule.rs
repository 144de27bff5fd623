//! Cost of one intended time: paid once per event on the sending thread, whatever the shape.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadgen::replay::{Row, Timeline};
use loadgen::schedule::{Schedule, ScheduleSpec};
use reports::model::{Arrivals, Shape};

/// Long enough that no bench comes to its end, and short enough for whole nanoseconds in a double.
const PHASE_NS: u64 = 1 << 52;

fn next(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule_next");
    group.throughput(Throughput::Elements(1));
    let steps = |count: u32| Shape::Steps { rates_per_s: (1..=count).map(f64::from).collect() };
    let burst = Shape::Burst { base_per_s: 1e3, height_per_s: 1e4, length_ms: 100, every_ms: 1_000 };
    for (name, shape) in [
        ("", None),
        ("_ramp", Some(Shape::Ramp { from_per_s: 0.0, to_per_s: 1e5 })),
        ("_steps_10", Some(steps(10))),
        ("_steps_1000", Some(steps(1_000))),
        ("_burst", Some(burst)),
    ] {
        for (drawn, arrivals) in [("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)] {
            let (shape, steady_ns) = (shape.clone(), PHASE_NS);
            let spec =
                ScheduleSpec { arrivals, rate_per_s: 1e3, shape, replay: None, warmup_ns: 3_000_000_000, steady_ns };
            let mut schedule = Schedule::new(&spec, 1);
            group.bench_function(format!("{drawn}{name}"), |bencher| bencher.iter(|| black_box(schedule.next())));
        }
    }
    let rows = (0..10_000_000).map(|n| Row { offset_ns: n * 1_000, payload_bytes: None }).collect();
    let replay = Some(Arc::new(Timeline::new(rows)));
    let (arrivals, warmup_ns) = (Arrivals::Poisson, 0);
    let spec = ScheduleSpec { arrivals, rate_per_s: 1e6, shape: None, replay, warmup_ns, steady_ns: PHASE_NS };
    let mut schedule = Schedule::new(&spec, 1);
    group.bench_function("replay", |bencher| {
        bencher.iter(|| {
            let due = schedule.next();
            if due.is_none() {
                schedule = Schedule::new(&spec, 1);
            }
            black_box(due)
        });
    });
    group.finish();
}

criterion_group!(benches, next);
criterion_main!(benches);
