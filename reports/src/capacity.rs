//! Whether a trial of the search for a capacity holds, and what the search says in the end.
//!
//! A capacity is what a server keeps up, not what it answers: a server that acknowledges at once and persists slowly answers every trial in
//! time. So the time to durable must not grow while the load lasts. If it grows by g seconds a second, the events acknowledged in one
//! second take 1 + g seconds to be persisted, and a server that is offered R persists R ÷ (1 + g).

use crate::format;
use crate::model::{Capacity, CapacityTrial, Caveat, CaveatKind, Run, TargetResult, TrialStage};
use crate::objective;
use crate::stats;

/// Share of the offered events that has to be accepted.
pub const ACCEPTED_SHARE_MIN: f64 = 0.99;

/// Growth of the time to durable, s per s, above which the backlog is not bounded. Not 0: the line through noise has a slope, too.
pub const GROWTH_MAX: f64 = 0.05;

/// A target that does not say when it persisted an event may still be busy after the load for this share of the phase …
pub const DRAIN_SHARE_MAX: f64 = 0.1;
/// … and this long, s.
pub const DRAIN_S_ALLOWED: f64 = 1.0;

/// Rates that it takes for one of them to be a knee.
const KNEE_RATES_MIN: usize = 3;

/// Samples that a trial needs so that the quantiles which `objectives` judge can be judged.
pub fn samples_needed(objectives: &[String]) -> u64 {
    let quantile = |text: &String| objective::parse(text).ok()?.metric.response_time_quantile();
    let needed = |q: f64| (stats::SAMPLES_BEYOND_TO_JUDGE as f64 / (1.0 - q).max(1e-6)).ceil() as u64;
    objectives.iter().filter_map(quantile).map(needed).max().unwrap_or(0)
}

/// What a judged run of one repetition says of the rate that it was offered.
pub fn trial(run: &Run, stage: TrialStage, rate_per_s: f64) -> Option<CapacityTrial> {
    let result = run.results.first()?;
    let load = &result.load;
    let mut reasons = reasons(run, result);
    // A generator that could not keep up makes a failure doubtful, and no success: whatever it was late by is in the response time, and
    // what was sent later was answered no earlier. And however late the events left, what is lost is lost, and what falls behind falls behind.
    let doubts = run.caveats.iter().filter(|caveat| caveat.invalidates && is_of_generator(caveat));
    let mut doubts = doubts.map(told).peekable();
    let is_proven = reasons.is_empty() || unbounded(result).is_some() || not_kept(result).is_some();
    let is_saturated = !is_proven && doubts.peek().is_some();
    if !reasons.is_empty() {
        reasons.extend(doubts);
    }
    let share = |cpu_s: Option<f64>| cpu_s.map(|cpu_s| cpu_s / load.seconds.max(1e-9));
    Some(CapacityTrial {
        stage,
        rate_per_s,
        seconds: load.seconds,
        held: reasons.is_empty(),
        is_saturated,
        reasons,
        achieved_per_s: load.achieved_per_s,
        persisted_per_s: persisted_per_s(result),
        growth: growth(result),
        response_time_ns_mean: load.response_time.mean_ns,
        response_time_ns_p50: load.response_time.p50_ns,
        response_time_ns_p99: load.response_time.p99_ns,
        response_time_ns_p999: load.response_time.p999_ns,
        send_delay_ns_p99: load.send_delay.p99_ns,
        backlog_peak: load.backlog_peak(),
        server_cpu_share: share(result.resources.server_cpu_s),
        generator_cpu_share: share(result.resources.generator_cpu_s),
    })
}

fn is_of_generator(caveat: &Caveat) -> bool {
    matches!(caveat.kind, CaveatKind::GeneratorSaturated | CaveatKind::ArrivalsNotAsAsked)
}

fn told(caveat: &Caveat) -> String {
    format!("{}: {}", caveat.kind.name(), caveat.detail)
}

fn growth(result: &TargetResult) -> Option<f64> {
    result.ledger.as_ref()?.time_to_durable.as_ref()?.growth
}

/// What it persisted per second while the load lasted.
fn persisted_per_s(result: &TargetResult) -> Option<f64> {
    let ledger = result.ledger.as_ref()?;
    let seconds = result.load.seconds;
    let longer = match growth(result) {
        Some(growth) => 1.0 + growth.max(0.0),
        None => (seconds + ledger.drained_after_ms as f64 / 1e3) / seconds.max(1e-9),
    };
    Some(result.load.achieved_per_s / longer)
}

/// Why a trial does not hold, the generator aside; what is worst first.
fn reasons(run: &Run, result: &TargetResult) -> Vec<String> {
    let mut reasons = Vec::new();
    reasons.extend(result.failure.iter().map(|failure| format!("it ended early: {failure}")));
    reasons.extend(unbounded(result));
    reasons.extend(not_kept(result));
    reasons.extend(run.caveats.iter().filter(|caveat| caveat.invalidates && !is_of_generator(caveat)).map(told));
    let load = &result.load;
    let accepted = 1.0 - load.not_accepted() as f64 / load.planned.max(1) as f64;
    if accepted < ACCEPTED_SHARE_MIN {
        reasons.push(format!("{} of the offered events were accepted", format::percent(accepted)));
    }
    let prefix = format!("{}: ", result.target);
    let missed = run.objectives.iter().filter(|objective| objective.met != Some(true)).map(objective::sentence);
    reasons.extend(missed.map(|sentence| sentence.strip_prefix(&prefix).map(str::to_owned).unwrap_or(sentence)));
    reasons
}

/// The backlog grows for as long as the load lasts.
fn unbounded(result: &TargetResult) -> Option<String> {
    let persisted = persisted_per_s(result)?;
    let acknowledged = result.load.achieved_per_s;
    let behind = format!("it acknowledges {} and persists {}", format::rate(acknowledged), format::rate(persisted));
    if let Some(growth) = growth(result) {
        let text = format!("{behind}: the time to durable grows by {} a second", format::seconds(growth));
        return (growth > GROWTH_MAX).then_some(text);
    }
    let drained_s = result.ledger.as_ref()?.drained_after_ms as f64 / 1e3;
    let text = format!("{behind}: it was busy for another {} after the load", format::seconds(drained_s));
    (drained_s > DRAIN_SHARE_MAX * result.load.seconds + DRAIN_S_ALLOWED).then_some(text)
}

fn not_kept(result: &TargetResult) -> Option<String> {
    let ledger = result.ledger.as_ref()?;
    let faults = [
        (ledger.lost, "lost"),
        (ledger.duplicated, "duplicated"),
        (ledger.corrupted, "stored altered"),
        (ledger.unverified, "unverified"),
        (ledger.delivery.as_ref().map_or(0, |delivery| delivery.undelivered), "not delivered"),
    ];
    let found: Vec<String> =
        faults.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", format::count(*n))).collect();
    let of = format::counted(ledger.acknowledged, "acknowledged event");
    (!found.is_empty()).then(|| format!("of {of} {}", found.join(", ")))
}

/// A rate with its middle trial: medians of the trials that say something about the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Offered, per s.
    pub rate_per_s: f64,
    /// Accepted, per s.
    pub achieved_per_s: f64,
    /// Mean response time, ns.
    pub mean_ns: f64,
    /// Quantile 0.5 of it.
    pub p50_ns: f64,
    /// Quantile 0.99 of it.
    pub p99_ns: f64,
}

/// Response time against rate, by rate.
pub fn curve(trials: &[CapacityTrial]) -> Vec<Point> {
    let told: Vec<&CapacityTrial> =
        trials.iter().filter(|trial| !trial.is_saturated && trial.response_time_ns_p50 > 0).collect();
    let mut rates: Vec<f64> = told.iter().map(|trial| trial.rate_per_s).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let point = |rate: f64| {
        let median = |read: fn(&CapacityTrial) -> f64| {
            let values: Vec<f64> =
                told.iter().filter(|trial| trial.rate_per_s == rate).map(|trial| read(trial)).collect();
            stats::median(&values)
        };
        Some(Point {
            rate_per_s: rate,
            achieved_per_s: median(|trial| trial.achieved_per_s)?,
            mean_ns: median(|trial| trial.response_time_ns_mean)?,
            p50_ns: median(|trial| trial.response_time_ns_p50 as f64)?,
            p99_ns: median(|trial| trial.response_time_ns_p99 as f64)?,
        })
    };
    rates.into_iter().filter_map(point).collect()
}

/// The rate with the largest power, rate ÷ mean response time (Kleinrock, *Power and deterministic rules of thumb for probabilistic
/// problems in computer communications*, ICC 1979), per s. Among the rates that were persisted as fast as acknowledged: beyond them the
/// queue is where no response time shows it.
pub fn knee(trials: &[CapacityTrial]) -> Option<f64> {
    let keeps_up = |trial: &&CapacityTrial| {
        trial.persisted_per_s.is_none_or(|persisted| persisted * (1.0 + GROWTH_MAX) >= trial.achieved_per_s)
    };
    let points = curve(&trials.iter().filter(keeps_up).cloned().collect::<Vec<_>>());
    let power = |point: &Point| point.achieved_per_s / point.mean_ns.max(1.0);
    let enough = points.len() >= KNEE_RATES_MIN;
    points.iter().max_by(|a, b| power(a).total_cmp(&power(b))).filter(|_| enough).map(|point| point.rate_per_s)
}

/// `cache-first: 4 000/s; at 4 200/s it acknowledges …`: the end of a search as a sentence.
pub fn sentence(capacity: &Capacity) -> String {
    let failed = capacity.rate_per_s_failed.map(|rate| {
        let why = capacity.failed_because.first().map_or("it did not hold", String::as_str);
        format!("; at {}: {why}", format::rate(rate))
    });
    let failed = failed.unwrap_or_default();
    match (capacity.rate_per_s, &capacity.limit) {
        (Some(rate), Some(limit)) => format!("{}: at least {} ({limit})", capacity.variant, format::rate(rate)),
        (Some(rate), None) => format!("{}: {} hold{failed}", capacity.variant, format::rate(rate)),
        (None, Some(limit)) => format!("{}: no capacity was found ({limit}){failed}", capacity.variant),
        (None, None) => format!("{}: no capacity was found{failed}", capacity.variant),
    }
}

/// What is known to be below what was asked for.
pub fn is_missed(capacity: &Capacity) -> bool {
    let Some(wanted) = capacity.fail_under_per_s.filter(|_| !capacity.is_generator_at_fault) else { return false };
    match capacity.rate_per_s {
        Some(rate) => rate < wanted && capacity.limit.is_none(),
        // Not even the lowest rate held, and that was not more than is wanted.
        None => capacity.limit.is_none() && capacity.rate_per_s_failed.is_some_and(|failed| failed <= wanted),
    }
}

/// What leaves it open: nothing was found, or the search ended below what was asked for and not through the target.
pub fn is_open(capacity: &Capacity) -> bool {
    let below = |rate: f64| capacity.fail_under_per_s.is_some_and(|wanted| rate < wanted);
    !is_missed(capacity) && capacity.rate_per_s.is_none_or(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, verdict};

    type Change = fn(&mut Run);

    fn judged(change: Change) -> CapacityTrial {
        let mut run = fixtures::three_modes();
        run.results = vec![run.results[1].clone()];
        run.plan.variants = vec![run.plan.variants[1].clone()];
        (run.plan.repeat, run.plan.objectives) = (1, vec!["response_time.p99 < 1ms".to_owned()]);
        change(&mut run);
        verdict::assess(&mut run);
        trial(&run, TrialStage::Explore, 1_000.0).expect("a result")
    }

    fn durable(run: &mut Run) -> &mut crate::model::TimeToDurable {
        run.results[0].ledger.as_mut().expect("a ledger").time_to_durable.as_mut().expect("times")
    }

    fn drained_after_ms(run: &mut Run, ms: u64) {
        let ledger = run.results[0].ledger.as_mut().expect("a ledger");
        (ledger.time_to_durable, ledger.drained_after_ms) = (None, ms);
    }

    #[test]
    fn a_trial_holds_unless_something_that_is_demanded_is_not_so() {
        let held: [Change; 3] = [|_| {}, |run| durable(run).growth = Some(0.04), |run| drained_after_ms(run, 2_000)];
        for change in held {
            let trial = judged(change);
            assert!(trial.held && trial.reasons.is_empty(), "{:?}", trial.reasons);
        }
        let failed: [(&str, Change); 7] = [
            ("response_time.p99 < 1us is missed", |run| {
                run.plan.objectives = vec!["response_time.p99 < 1us".to_owned()]
            }),
            ("of the offered events were accepted", |run| {
                let outcomes = &mut run.results[0].load.outcomes;
                (outcomes.accepted, outcomes.failed) = (outcomes.accepted - 200, 200);
            }),
            ("1 lost", |run| run.results[0].ledger.as_mut().expect("a ledger").lost = 1),
            ("1 duplicated", |run| run.results[0].ledger.as_mut().expect("a ledger").duplicated = 1),
            ("the time to durable grows by 1 s a second", |run| durable(run).growth = Some(1.0)),
            ("busy for another 2.3 s", |run| drained_after_ms(run, 2_300)),
            ("it went away", |run| run.results[0].failure = Some("it went away".to_owned())),
        ];
        for (why, change) in failed {
            let trial = judged(change);
            assert!(!trial.held && trial.reasons.iter().any(|reason| reason.contains(why)), "{why}: {trial:?}");
            assert!(!trial.is_saturated, "{why}");
        }
    }

    #[test]
    fn what_is_persisted_is_what_is_acknowledged_less_what_falls_behind() {
        let trial = judged(|run| durable(run).growth = Some(1.0));
        assert!((trial.persisted_per_s.expect("known") * 2.0 / trial.achieved_per_s - 1.0).abs() < 1e-9, "{trial:?}");
        let shrinking = judged(|run| durable(run).growth = Some(-0.5));
        assert_eq!(shrinking.persisted_per_s, Some(shrinking.achieved_per_s), "it catches up with the past, no more");
    }

    #[test]
    fn a_failure_under_a_generator_that_cannot_keep_up_says_nothing_of_the_target_and_a_success_does() {
        fn saturate(run: &mut Run) {
            run.results[0].health.as_mut().expect("a watch").sender_busy_share = Some(0.95);
        }
        let trial = judged(|run| {
            saturate(run);
            run.plan.objectives = vec!["response_time.p99 < 1us".to_owned()];
        });
        assert!(trial.is_saturated && !trial.held, "{trial:?}");
        assert!(trial.reasons.iter().any(|reason| reason.contains("generator saturated")), "{trial:?}");
        let fast_enough = judged(saturate);
        assert!(fast_enough.held && !fast_enough.is_saturated && fast_enough.reasons.is_empty(), "{fast_enough:?}");
        let behind = judged(|run| {
            saturate(run);
            durable(run).growth = Some(1.0);
        });
        assert!(!behind.is_saturated && !behind.held, "what falls behind falls behind: {behind:?}");
    }

    #[test]
    fn the_knee_is_where_the_power_is_largest() {
        // M/M/1 with capacity 1000: the mean time is 1 / (1000 − rate), and the power is largest at half of the capacity.
        let at = |rate: f64| CapacityTrial {
            rate_per_s: rate,
            achieved_per_s: rate,
            persisted_per_s: Some(rate),
            response_time_ns_mean: 1e9 / (1_000.0 - rate),
            ..judged(|_| {})
        };
        let trials: Vec<CapacityTrial> = [100.0, 800.0, 500.0, 300.0, 950.0].map(at).to_vec();
        assert_eq!(knee(&trials), Some(500.0));
        assert_eq!(
            curve(&trials).iter().map(|point| point.rate_per_s).collect::<Vec<_>>(),
            [100.0, 300.0, 500.0, 800.0, 950.0]
        );
        assert_eq!(knee(&trials[..2]), None, "two rates have no middle");
        let behind = CapacityTrial { persisted_per_s: Some(900.0), response_time_ns_mean: 1e6, ..at(1_900.0) };
        assert_eq!(knee(&[&trials[..], &[behind]].concat()), Some(500.0), "quick, and behind");
    }

    #[test]
    fn the_samples_needed_follow_the_highest_quantile_that_is_judged() {
        let objectives = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(samples_needed(&objectives(&["ledger.lost == 0"])), 0);
        assert_eq!(
            samples_needed(&objectives(&["response_time.p50 < 1s", "response_time.p99 < 1s"])).div_ceil(100),
            100
        );
    }

    fn ended(rate: Option<f64>, failed: Option<f64>, limit: Option<&str>, fail_under: Option<f64>) -> Capacity {
        Capacity {
            variant: "a".to_owned(),
            objectives: Vec::new(),
            rate_per_s_lowest: 100.0,
            rate_per_s: rate,
            rate_per_s_failed: failed,
            failed_because: vec!["too slow".to_owned()],
            limit: limit.map(str::to_owned),
            is_generator_at_fault: false,
            fail_under_per_s: fail_under,
            knee_per_s: None,
            trials: Vec::new(),
        }
    }

    #[test]
    fn a_capacity_is_missed_only_when_the_target_is_known_to_be_below_it() {
        for (capacity, missed, open) in [
            (ended(Some(400.0), Some(420.0), None, None), false, false),
            (ended(Some(400.0), Some(420.0), None, Some(300.0)), false, false),
            (ended(Some(400.0), Some(420.0), None, Some(500.0)), true, false),
            (ended(Some(400.0), None, Some("the generator"), Some(500.0)), false, true),
            (ended(None, Some(100.0), None, Some(500.0)), true, false),
            (ended(None, Some(100.0), None, Some(50.0)), false, true),
            (ended(None, Some(100.0), None, None), false, true),
        ] {
            assert_eq!((is_missed(&capacity), is_open(&capacity)), (missed, open), "{capacity:?}");
        }
        assert_eq!(sentence(&ended(Some(400.0), Some(420.0), None, None)), "a: 400/s hold; at 420/s: too slow");
        assert_eq!(sentence(&ended(Some(400.0), None, Some("x"), None)), "a: at least 400/s (x)");
    }
}
