//! The floor of this machine: the null server driven as the plan says, a timer, and how fast the generator can honestly go.
//!
//! `run` does the short form before its first repetition, so that every report has the floor of its own hour beside each number;
//! `loadgen calibrate` does the long one. What is honest is decided in [`reports::calibration`].

use std::collections::BTreeMap;
use std::time::Duration;

use reports::calibration::dishonesty;
use reports::histogram::TimeHistogram;
use reports::model::{Arrivals, Calibration, Caveat, CaveatKind, Plan, Run, TargetResult, Times, Variant};
use tokio::task::spawn_blocking;

use crate::clock::Clock;
use crate::measure::{Context, Findings, Measurement};
use crate::plan::{Resolved, ServerBuild};
use crate::poller::Poller;
use crate::progress::Progress;
use crate::search::{Bounds, End, Search, Step};

const SHORT_WARMUP_MS: u64 = 1_000;
const SHORT_DURATION_MS: u64 = 3_000;
/// Starting and stopping the null server, and the timer.
const OVERHEAD_EXPECTED: Duration = Duration::from_secs(1);

/// The floor is taken at this rate at least, per s: three seconds of fewer give no median.
const RATE_PER_S_MIN: f64 = 20.0;

const SLEEPS: u32 = 200;
const SLEEP_NS: u64 = 1_000_000;

/// The search for the highest honest rate. Its upper end is the highest rate that a plan may have.
pub const SEARCH: Bounds =
    Bounds { rate_per_s_min: 1_000.0, rate_per_s_max: 200_000.0, resolution: 0.1, confirmations: 2 };
const SEARCH_WARMUP_MS: u64 = 500;
const SEARCH_DURATION_MS: u64 = 2_000;
/// What a search takes that ends in the middle of its bounds.
const SEARCH_TRIALS_EXPECTED: u32 = 18;

/// How long the short form takes before `plan`, roughly; nothing where there is none.
pub fn expected_duration(plan: &Plan) -> Duration {
    match is_wanted(plan) {
        true => Duration::from_millis(SHORT_WARMUP_MS + SHORT_DURATION_MS) + OVERHEAD_EXPECTED,
        false => Duration::ZERO,
    }
}

/// How long the long form takes, roughly.
pub fn expected_duration_full(plan: &Plan) -> Duration {
    let trial = Duration::from_millis(SEARCH_WARMUP_MS + SEARCH_DURATION_MS) + OVERHEAD_EXPECTED;
    Duration::from_millis(plan.warmup_ms + plan.duration_ms) + OVERHEAD_EXPECTED + trial * (SEARCH_TRIALS_EXPECTED + 1)
}

/// A plan with the variant `null` measures the floor itself.
fn is_wanted(plan: &Plan) -> bool {
    plan.calibration && !plan.variants.iter().any(|variant| variant.mode.as_deref() == Some("null"))
}

/// The floor for a run of this plan, where it wants one; it never fails a run: why there is none is a caveat.
pub async fn short(
    resolved: &Resolved,
    context: &Context,
    progress: &Progress,
    caveats: &mut Vec<Caveat>,
) -> Option<Calibration> {
    if !is_wanted(&resolved.plan) || context.is_stopped() {
        return None;
    }
    let driven = null_plan(resolved, SHORT_WARMUP_MS, SHORT_DURATION_MS);
    // Nobody asked for the requests of a calibration, and nothing is faster than it.
    let context = &Context { samples: None, telemetry: None, ..context.clone() };
    let calibrator = Calibrator { context, progress };
    let trial = calibrator.trial(&driven, "floor", "floor".to_owned()).await;
    let calibration = match trial.results.into_iter().next() {
        Some(result) if result.load.response_time.count > 0 => calibration(result, driven.plan.rate_per_s).await,
        Some(result) => Err(result.failure.unwrap_or_else(|| "the null server accepted nothing".to_owned())),
        None => Err("it was not begun".to_owned()),
    };
    calibration.map_err(|reason| caveats.push(not_calibrated(&reason))).ok()
}

fn not_calibrated(reason: &str) -> Caveat {
    Caveat {
        kind: CaveatKind::NotCalibrated,
        subject: None,
        detail: format!("the floor of this machine could not be measured: {reason}"),
        remedy: "try loadgen calibrate, or leave it out with --no-calibration".to_owned(),
        invalidates: false,
    }
}

/// `loadgen calibrate`: the floor for as long as the plan says, then the highest honest rate, then a closed loop. The plan has one variant,
/// `null`; no rate above `rate_per_s_max` is tried.
pub async fn full(resolved: &Resolved, context: &Context, rate_per_s_max: f64) -> Run {
    let plan = &resolved.plan;
    let progress = context.progress(expected_duration_full(plan));
    let calibrator = Calibrator { context, progress: &progress };
    let mut findings = Findings::begin();
    let measurement = calibrator.measurement(resolved, "floor", "floor".to_owned());
    findings.add(&measurement).await;
    let floor = findings.results.first().filter(|result| result.load.response_time.count > 0).cloned();
    let calibration = match floor {
        Some(result) => calibration(result, plan.rate_per_s).await,
        None => Err("the null server accepted nothing".to_owned()),
    };
    let calibration = match calibration {
        Ok(calibration) => Some(calibrator.extremes(resolved, calibration, rate_per_s_max).await),
        Err(reason) => {
            findings.caveats.push(not_calibrated(&reason));
            None
        }
    };
    Run { calibration, ..findings.into_run(context, plan) }
}

/// The same requests to a server that does nothing with them: at the mean rate, without what only other servers have.
fn null_plan(resolved: &Resolved, warmup_ms: u64, duration_ms: u64) -> Resolved {
    let variant = Variant {
        name: "null".to_owned(),
        url: None,
        mode: Some("null".to_owned()),
        polling: Some("wake".to_owned()),
        role: None,
        profile: None,
    };
    let rate_per_s = match resolved.plan.arrivals {
        Arrivals::Closed => 0.0,
        _ => resolved.rate_per_s().max(RATE_PER_S_MIN),
    };
    let plan = Plan {
        variants: vec![variant],
        rate_per_s,
        connections: resolved.connections(),
        shape: None,
        replay: None,
        warmup_ms,
        duration_ms,
        idle_ms: 0,
        ledger: false,
        tls_ca: None,
        tls_insecure: false,
        faults: Vec::new(),
        // It does not know one event from another, so it would take every repeat.
        duplicates_share: 0.0,
        repeat: 1,
        objectives: Vec::new(),
        ..resolved.plan.clone()
    };
    let (profiles, server) = (BTreeMap::new(), ServerBuild::default());
    Resolved { plan, keys: Vec::new(), postgres_url: None, profiles, replay: None, tls_ca: None, server, part: None }
}

/// # Errors
/// When the timer cannot be had, in words.
async fn calibration(result: TargetResult, rate_per_s: f64) -> Result<Calibration, String> {
    let timer_lateness = spawn_blocking(timer_lateness).await.map_err(|error| error.to_string())?;
    let requests = result.load.planned.max(1) as f64;
    Ok(Calibration {
        rate_per_s,
        achieved_per_s: result.load.achieved_per_s,
        seconds: result.load.seconds,
        response_time: result.load.response_time,
        service_time: result.load.service_time,
        send_delay: result.load.send_delay,
        timer_lateness: timer_lateness.map_err(|error| format!("the timer: {error}"))?,
        hiccups: result.health.and_then(|health| health.hiccups),
        generator_cpu_ns_per_request: result.resources.generator_cpu_s.map(|cpu_s| cpu_s * 1e9 / requests),
        rate_per_s_max: None,
        rate_per_s_failed: None,
        limit: None,
        closed_per_s_max: None,
    })
}

/// How late sleeps end that nothing interrupts, on a thread of their own: the poller belongs to one.
fn timer_lateness() -> std::io::Result<Times> {
    let (mut poller, clock, mut none) = (Poller::new()?, Clock::start(), Vec::new());
    let mut late = TimeHistogram::new();
    for _ in 0..SLEEPS {
        let due_ns = clock.now_ns() + SLEEP_NS;
        poller.wait(Some(Duration::from_nanos(SLEEP_NS)), &mut none)?;
        late.record(clock.now_ns().saturating_sub(due_ns));
    }
    Ok(late.times(0))
}

/// Drives the null server.
struct Calibrator<'a> {
    context: &'a Context,
    progress: &'a Progress,
}

impl Calibrator<'_> {
    fn measurement<'a>(&'a self, resolved: &'a Resolved, subject: &str, name: String) -> Measurement<'a> {
        Measurement {
            resolved,
            context: self.context,
            progress: self.progress,
            subject: subject.to_owned(),
            variant: &resolved.plan.variants[0],
            repetition: 1,
            events_name: format!("{}.{name}", self.context.run_id),
        }
    }

    async fn trial(&self, resolved: &Resolved, subject: &str, name: String) -> Run {
        self.measurement(resolved, subject, name).judged().await
    }

    /// With the highest honest rate, and that of a closed loop.
    async fn extremes(&self, resolved: &Resolved, floor: Calibration, rate_per_s_max: f64) -> Calibration {
        let bounds = Bounds { rate_per_s_max, ..SEARCH };
        let (rate_per_s_max, failed) = self.highest_honest_rate(resolved, bounds).await;
        let (rate_per_s_failed, limit) = failed.unzip();
        let mut closed = null_plan(resolved, SEARCH_WARMUP_MS, SEARCH_DURATION_MS);
        closed.plan.arrivals = Arrivals::Closed;
        let trial = match self.context.is_stopped() {
            true => None,
            false => self.trial(&closed, "null, closed loop", "closed".to_owned()).await.results.into_iter().next(),
        };
        let reached = trial.map(|result| result.load.achieved_per_s).filter(|per_s| *per_s > 0.0);
        Calibration { rate_per_s_max, rate_per_s_failed, limit, closed_per_s_max: reached, ..floor }
    }

    /// The highest rate that is offered honestly, and the lowest that is not, with the reason.
    async fn highest_honest_rate(&self, resolved: &Resolved, bounds: Bounds) -> (Option<f64>, Option<(f64, String)>) {
        let (mut search, mut failed, mut trials) = (Search::new(bounds), None::<(f64, String)>, 0);
        loop {
            let rate_per_s = match search.step() {
                Step::Try { rate_per_s, .. } => rate_per_s,
                Step::End(End::Found { held_per_s, failed_per_s }) => {
                    return (Some(held_per_s), failed.filter(|_| failed_per_s.is_some()));
                }
                Step::End(End::Nothing) => return (None, failed),
            };
            if self.context.is_stopped() {
                return (None, failed);
            }
            let mut driven = null_plan(resolved, SEARCH_WARMUP_MS, SEARCH_DURATION_MS);
            driven.plan.rate_per_s = rate_per_s;
            trials += 1;
            let subject = format!("null at {}", reports::format::rate(rate_per_s));
            let why = dishonesty(&self.trial(&driven, &subject, format!("search{trials}")).await);
            search.tried(why.is_none());
            failed = lowest(failed, why.map(|why| (rate_per_s, why)));
        }
    }
}

/// The failure at the lower rate; of two at the same one the first.
fn lowest(known: Option<(f64, String)>, found: Option<(f64, String)>) -> Option<(f64, String)> {
    [known, found].into_iter().flatten().reduce(|a, b| if b.0 < a.0 { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_after_its_time() {
        let late = timer_lateness().expect("a poller");
        assert_eq!((late.count, late.overflowed), (u64::from(SLEEPS), 0));
    }

    #[test]
    fn the_floor_is_driven_as_the_plan_says_and_only_as_far_as_null_can() {
        let resolve = |text: &str| {
            let asked = crate::plan::Asked::from_toml(text, std::path::Path::new("p")).expect("a plan");
            asked.resolve(&crate::serve::modes(), &crate::serve::pollings()).expect("a plan that can be followed")
        };
        let resolved =
            resolve("shape = 'ramp 100..300'\nconnections = 7\nduplicates_share = 0.5\nslo = ['ledger.lost == 0']");
        let null = null_plan(&resolved, 1_000, 3_000).plan;
        assert_eq!((null.rate_per_s, null.connections, null.duplicates_share), (200.0, 7, 0.0));
        assert_eq!(null.variants.iter().map(|variant| variant.mode.as_deref()).collect::<Vec<_>>(), [Some("null")]);
        assert!(null.shape.is_none() && null.objectives.is_empty() && !null.ledger && null.idle_ms == 0);
        assert_eq!(null_plan(&resolve("rate = 0.5"), 1_000, 3_000).plan.rate_per_s, RATE_PER_S_MIN);
        let closed = null_plan(&resolve("arrivals = 'closed'"), 1_000, 3_000).plan;
        assert_eq!((closed.arrivals, closed.rate_per_s), (Arrivals::Closed, 0.0));
    }

    #[test]
    fn the_short_form_takes_time_only_where_it_is_wanted() {
        let asked = |text: &str| {
            let asked = crate::plan::Asked::from_toml(text, std::path::Path::new("p")).expect("a plan");
            asked.resolve(&crate::serve::modes(), &crate::serve::pollings()).expect("a plan").plan
        };
        for (text, wanted) in [
            ("mode = ['cache-first']", true),
            ("target = ['http://127.0.0.1:1']", true),
            ("mode = ['cache-first']\nno_calibration = true", false),
            ("mode = ['null', 'cache-first']", false),
        ] {
            assert_eq!(expected_duration(&asked(text)) > Duration::ZERO, wanted, "{text}");
        }
    }

    #[test]
    fn the_lowest_failure_is_told() {
        let at = |rate: f64, why: &str| Some((rate, why.to_owned()));
        assert_eq!(lowest(None, None), None);
        assert_eq!(lowest(at(2.0, "a"), at(1.0, "b")), at(1.0, "b"));
        assert_eq!(lowest(at(1.0, "a"), at(1.0, "b")), at(1.0, "a"));
    }
}
