//! What response times must be, worked out without the program: the times at which the events are due (the plan), service times by the
//! rule of the faults, and for a single server the waiting times by Lindley's recursion (D. V. Lindley, The theory of queues with a
//! single server, 1952). It is the truth of these very events, not of their distribution, so no chance is left between it and a report.

use loadgen::schedule::{Due, Schedule, ScheduleSpec};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reports::model::{Arrivals, Load, Times};

use super::server::{Data, FaultyServer};
use crate::support::run;

/// The reported quantiles.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// A reported quantile may be this much off, whichever is more.
const TOLERANCE_SHARE: f64 = 0.01;
const TOLERANCE_S: f64 = 20e-6;

/// A load, the faults of its target, and what follows from both. Times are seconds.
pub struct Case {
    /// As `--fault` has them.
    pub faults: String,
    pub arrivals: Arrivals,
    pub rate_per_s: f64,
    pub warmup_s: f64,
    pub steady_s: f64,
    pub connections: u32,
    /// Service time, out of a draw 0 <= u < 1.
    pub service_s: fn(f64) -> f64,
    /// One request at a time, in the order of arrival.
    pub one_at_a_time: bool,
    /// One stall: when it begins, after the first event, and how long it is.
    pub stall_s: Option<(f64, f64)>,
}

impl Case {
    /// When each event is due, after the begin of the load.
    fn due_s(&self) -> Vec<f64> {
        let spec = ScheduleSpec {
            arrivals: self.arrivals,
            rate_per_s: self.rate_per_s,
            shape: None,
            replay: None,
            warmup_ns: (self.warmup_s * 1e9) as u64,
            steady_ns: (self.steady_s * 1e9) as u64,
        };
        let schedule = Schedule::new(&spec, 1);
        schedule.map(|due| if let Due::At(ns) = due { ns as f64 / 1e9 } else { panic!("a closed loop") }).collect()
    }

    /// True response times of the steady phase, sorted.
    pub fn response_s(&self) -> Vec<f64> {
        let due_s = self.due_s();
        // Without the stall: it stops the server's time, which therefore runs behind everybody's afterwards.
        let (stall_begin_s, stall_s) = self.stall_s.map_or((f64::MAX, 0.0), |(begin_s, s)| (due_s[0] + begin_s, s));
        let running_s = |at_s: f64| at_s.min(stall_begin_s.max(at_s - stall_s));
        let passed_s = |running_s: f64| if running_s < stall_begin_s { running_s } else { running_s + stall_s };
        let mut free_s = 0.0f64;
        let mut response_s = Vec::new();
        for (due_s, u) in due_s.into_iter().zip(draws()) {
            let begin_s = if self.one_at_a_time { free_s.max(running_s(due_s)) } else { running_s(due_s) };
            free_s = begin_s + (self.service_s)(u);
            if due_s >= self.warmup_s {
                response_s.push(passed_s(free_s) - due_s);
            }
        }
        response_s.sort_by(f64::total_cmp);
        response_s
    }

    /// What the program reports of it.
    pub fn report(&self) -> Load {
        let server = FaultyServer::start("null", Data::sqlite(), &self.faults);
        let arrivals = if self.arrivals == Arrivals::Constant { "constant" } else { "poisson" };
        let (rate, connections) = (self.rate_per_s.to_string(), self.connections.to_string());
        let (warmup, steady) = (format!("{}ms", self.warmup_s * 1e3), format!("{}ms", self.steady_s * 1e3));
        let done = run(&[
            &["--target", &server.url, "--api-key", "none", "--arrivals", arrivals, "--rate", &rate][..],
            &["--warmup", &warmup, "--duration", &steady, "--connections", &connections, "--request-timeout", "30s"],
        ]
        .concat());
        done.run.results.into_iter().next().expect("a result").load
    }
}

/// Draws for requests in the order of their arrival, by the rule of `--fault-seed 1`.
fn draws() -> impl Iterator<Item = f64> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    random.set_stream(1);
    std::iter::repeat_with(move || random.random())
}

/// The `q`-quantile of what is sorted: the smallest that is not below a share `q` of all.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Reported quantiles beside the true ones.
pub struct Comparison {
    /// By [`QUANTILES`]: how far the reported one is above the true one, in tolerances.
    pub excesses: [f64; 4],
    pub text: String,
}

pub fn compare(name: &str, reported: &Times, truth_s: &[f64]) -> Comparison {
    assert_eq!(reported.count, truth_s.len() as u64, "{name}: every event is in the report");
    let reported_ns = [reported.p50_ns, reported.p90_ns, reported.p99_ns, reported.p999_ns];
    let mut excesses = [0.0; 4];
    let mut text = name.to_owned();
    for (index, (q, reported_ns)) in QUANTILES.into_iter().zip(reported_ns).enumerate() {
        let (reported_s, true_s) = (reported_ns as f64 / 1e9, quantile(truth_s, q));
        excesses[index] = (reported_s - true_s) / (TOLERANCE_SHARE * true_s).max(TOLERANCE_S);
        let (reported_ms, true_ms) = (reported_s * 1e3, true_s * 1e3);
        text += &format!("; p{} {reported_ms:.3} ms, true {true_ms:.3} ms ({:+.2})", q * 100.0, excesses[index]);
    }
    show(&text);
    Comparison { excesses, text }
}

/// How close it came is worth seeing even where it was close enough (`cargo test -- --nocapture`).
#[allow(clippy::print_stderr, reason = "for the person who runs the test")]
fn show(text: &str) {
    eprintln!("{text}");
}

impl Comparison {
    /// Whether these quantiles are within the tolerance.
    pub fn is_true(&self, quantiles: std::ops::Range<usize>) -> bool {
        self.excesses[quantiles].iter().all(|excess| excess.abs() <= 1.0)
    }
}

/// Tries until an attempt is good: a machine on which others work too can spoil some. When none is, all are shown.
#[track_caller]
pub fn one_of_some_attempts(name: &str, attempt: impl Fn() -> Result<(), String>) {
    const ATTEMPTS_MAX: usize = 5;
    let mut failures = Vec::new();
    while failures.len() < ATTEMPTS_MAX {
        match attempt() {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("{name}: none of {ATTEMPTS_MAX} attempts was good:\n{}", failures.join("\n"));
}
