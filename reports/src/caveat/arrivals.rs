//! Rules about the arrival process: was the load what was asked for?
//!
//! Two kinds of fault. The **schedule** is not what was asked: tested as a statistic, with a known chance to blame a perfect one.
//! What was **sent** is not what the schedule said: both are of the same draw, so a perfect generator cannot be blamed by chance; how far
//! it may be off is a tolerance. Everything is counted in shares of the load, so that one stall, which delays many events once, does
//! not condemn a run whose other events all came as asked.
//!
//! Chance to call a perfect generator at fault, for a run of any length: below 1e-5 (one test of the number of events and at most a
//! dozen of dispersions at 5 sigmas, 6e-7 each, and [`ARRIVALS_FALSE_ALARM`] for the gaps).

use super::{Finding, finding};
use crate::format;
use crate::model::{ArrivalProcess, ArrivalsCheck, ArrivalsWindow, Run, TargetResult};
use crate::stats;

/// Chance that gaps drawn as asked are called at fault.
pub const ARRIVALS_FALSE_ALARM: f64 = 1e-6;

/// Standard deviations by which counts drawn as asked may differ from what is expected.
pub const ARRIVALS_SIGMAS: f64 = 5.0;

/// Expected events from which on their number is judged: with fewer the normal distribution is no guide.
pub const COUNT_JUDGED_MIN: f64 = 100.0;

/// Most by which the index of dispersion of what was sent may differ from that of the schedule, where the latter is up to 1; a share of
/// it beyond. Also the index up to which counts are those of equal gaps (they cannot reach more than 0.25).
pub const DISPERSION_TOLERANCE: f64 = 0.5;

/// An event is displaced when its send delay differs from the median one by more than this share of the mean gap: a delay that
/// all events have moves the process and leaves it as it is.
pub const DISPLACED_GAPS: f64 = 0.25;

/// And by more than this, ns.
pub const DISPLACED_NS_MIN: f64 = 50_000.0;

/// Share of the load that may arrive in another way than asked before it is told: displaced events when the dispersion shows
/// bursts, or the distance of the gaps.
pub const ARRIVALS_SHARE_MAX: f64 = 0.1;

/// The same, before the run is invalid.
pub const ARRIVALS_SHARE_INVALID: f64 = 0.25;

/// Share of the planned events that must have been sent for sent and planned to be compared.
const SENT_SHARE_MIN: f64 = 0.99;

pub(super) const REMEDY: &str = "give the generator a core of its own or offer less; if it has one, this is a defect of the generator: please report it";

/// The load was another one than asked for.
pub(super) fn unlike_asked(_: &Run, r: &TargetResult) -> Option<Finding> {
    let check = r.load.arrivals_check.as_ref()?;
    let schedule = schedule_fault(check).map(|detail| (f64::INFINITY, detail));
    let (severity, detail) = schedule.or_else(|| share_sent_otherwise(check, r))?;
    (severity > ARRIVALS_SHARE_INVALID).then(|| finding(severity, detail))?
}

/// Some of the load came otherwise than asked for.
pub(super) fn partly_unlike_asked(_: &Run, r: &TargetResult) -> Option<Finding> {
    let (severity, detail) = share_sent_otherwise(r.load.arrivals_check.as_ref()?, r)?;
    (severity > ARRIVALS_SHARE_MAX).then(|| finding(severity, detail))?
}

/// Why the schedule is not what was asked for.
fn schedule_fault(check: &ArrivalsCheck) -> Option<String> {
    let poisson = check.process == ArrivalProcess::Poisson;
    if let Some(expected) = check.expected.filter(|expected| *expected >= COUNT_JUDGED_MIN) {
        // Equal gaps: one more or less, by where the phase begins.
        let allowed = if poisson { ARRIVALS_SIGMAS * expected.sqrt() } else { 2.0 };
        if (check.planned as f64 - expected).abs() > allowed {
            let (planned, expected) = (format::counted(check.planned, "event"), format::number(expected));
            return Some(format!("{planned} were due, and the rate asked for makes {expected}"));
        }
    }
    let allowed = stats::distance_max(check.planned, ARRIVALS_FALSE_ALARM);
    if let Some(distance) = check.gap_distance_planned.filter(|distance| poisson && *distance > allowed) {
        let (distance, allowed) = (format::percent(distance), format::percent(allowed));
        return Some(format!(
            "the gaps of the schedule are not exponential: {distance} of them would have to be others, {allowed} is chance"
        ));
    }
    check.windows.iter().find_map(|window| {
        let (low, high) = match check.process {
            ArrivalProcess::Poisson => stats::dispersion_between(window.windows, ARRIVALS_SIGMAS),
            ArrivalProcess::Constant => (0.0, DISPERSION_TOLERANCE),
            ArrivalProcess::Scheduled => (0.0, f64::INFINITY),
        };
        let found = window.dispersion_planned;
        (found < low || found > high).then(|| {
            format!(
                "the schedule is not {}: in windows of {} the index of dispersion of its events is {}, and {} to {} is what was asked for",
                if poisson { "Poisson" } else { "of equal gaps" },
                format::time_ns(window.length_ns),
                format::number(found),
                format::number(low),
                format::number(high)
            )
        })
    })
}

/// The share of the load that was sent otherwise than scheduled, in the worst of the ways it can be, and in words.
fn share_sent_otherwise(check: &ArrivalsCheck, r: &TargetResult) -> Option<(f64, String)> {
    if (check.sent as f64) < SENT_SHARE_MIN * check.planned as f64 {
        return None;
    }
    [wrong_gaps(check), bursts(check, r)].into_iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0))
}

fn wrong_gaps(check: &ArrivalsCheck) -> Option<(f64, String)> {
    let distance = check.gap_distance_sent?;
    let beyond_chance = distance - stats::distance_max(check.sent, ARRIVALS_FALSE_ALARM);
    let detail = format!(
        "{} of the gaps between sent events would have to be others to be exponential as asked",
        format::percent(distance)
    );
    (beyond_chance > 0.0).then_some((beyond_chance, detail))
}

fn bursts(check: &ArrivalsCheck, r: &TargetResult) -> Option<(f64, String)> {
    let excess = |w: &ArrivalsWindow| (w.dispersion_sent - w.dispersion_planned).abs() / w.dispersion_planned.max(1.0);
    let worst = check.windows.iter().max_by(|a, b| excess(a).total_cmp(&excess(b)))?;
    if excess(worst) <= DISPERSION_TOLERANCE {
        return None;
    }
    let limit_ns = DISPLACED_NS_MIN.max(DISPLACED_GAPS * check.gap_ns_mean) as u64;
    let delays = r.load.send_delay.histogram().ok()?;
    let (median, count) = (delays.quantile(0.5), delays.count().max(1));
    let in_place = delays.count_between(median.saturating_sub(limit_ns), median.saturating_add(limit_ns));
    let displaced = 1.0 - in_place as f64 / count as f64;
    let detail = format!(
        "{} of the events were sent more than {} away from where they belong, and in windows of {} the index of dispersion is {} \
         instead of {}",
        format::percent(displaced),
        format::time_ns(limit_ns),
        format::time_ns(worst.length_ns),
        format::number(worst.dispersion_sent),
        format::number(worst.dispersion_planned)
    );
    Some((displaced, detail))
}
