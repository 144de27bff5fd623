//! The parts of one load, each sent by a generator of its own, as one result: what `loadgen merge` writes.
//!
//! What can be added is added (`sum.rs`): histograms, counts, outcomes, seconds, ledgers. Percentiles cannot, and where a result has nothing but
//! them the merged one has an upper bound or none. What is of the target as a whole comes from the first part, which alone looked at it.
//! Parts that do not belong together, and a part that is missing, are refused: a sum without one of them would look better than the truth.

mod show;
mod sum;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::format;
use crate::histogram::DecodeError;
use crate::likeness;
use crate::model::{
    Calibration, Caveat, CaveatKind, Ledger, Load, Outcome, Run, Shard, ShardResult, TargetResult, Verdict,
};

pub use show::{HEADINGS, rows};
pub use sum::{ledgers, times};

/// Steady phases that begin further apart than this, as far as clocks tell, were not one load, ns. It is a tenth of the shortest row.
pub const BEGIN_SPREAD_NS_MAX: u64 = 100_000_000;

/// Missing parts that are named.
const MISSING_SHOWN_MAX: usize = 10;

/// One part.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its file, for messages.
    pub name: String,
    /// Its content.
    pub run: Run,
}

/// What the merged result cannot take from its parts.
#[derive(Debug, Clone)]
pub struct Merging {
    /// The command line.
    pub command: Vec<String>,
    /// Generators whose offset to the target is not known are taken as right.
    pub trust_clocks: bool,
}

/// Why results are not one load.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// Nothing was given.
    #[error("there is nothing to merge; give the run.json of every part")]
    Nothing,
    /// Not a part of a load.
    #[error(
        "{0} is no part of a load: it was run without --shard; leave it out (loadgen compare puts it beside others)"
    )]
    NotAShard(String),
    /// Two files are the same part.
    #[error("{first} and {second} are both part {number}; leave one out")]
    Twice {
        /// The part.
        number: u32,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// Not all parts.
    #[error(
        "of {count} parts {} missing; give the run.json of each, or run the load again with another --run-id: a sum without a part says \
         nothing of the whole", missing(numbers, *more)
    )]
    Missing {
        /// How many there are.
        count: u32,
        /// The first of those that were not given.
        numbers: Vec<u32>,
        /// How many are missing beside these.
        more: u32,
    },
    /// Parts of different loads.
    #[error("{first} and {second} are not parts of one load: {}; give all parts the same of these", fields.join("; "))]
    Unlike {
        /// One file.
        first: String,
        /// The other.
        second: String,
        /// `plan.seed: 1 and 2`, …
        fields: Vec<String>,
    },
    /// Nobody knows whether they began together.
    #[error(
        "{name}: when part {number} ({host}) began by the target's clock is not known ({reason}); if its clock is right (NTP), say so with \
         --trust-clocks"
    )]
    ClockUnknown {
        /// The file.
        name: String,
        /// The part.
        number: u32,
        /// Its machine.
        host: String,
        /// Why.
        reason: String,
    },
    /// They did not begin together.
    #[error(
        "{name}: part {number} ({host}) began {} from {from}, give or take {}; allowed: {} in all; set its clock (NTP) and run the load \
         again, with the same --start-at for all", format::time(*apart_ns as f64), format::time_ns(*uncertainty_ns), format::time_ns(BEGIN_SPREAD_NS_MAX)
    )]
    BeganApart {
        /// The file.
        name: String,
        /// The part.
        number: u32,
        /// Its machine.
        host: String,
        /// From which it is too far, in words.
        from: String,
        /// How far, ns.
        apart_ns: u64,
        /// How well that is known, ns.
        uncertainty_ns: u64,
    },
    /// A histogram that is none.
    #[error("{name}: {error}; it is damaged, or not of this program")]
    Unreadable {
        /// The file.
        name: String,
        /// What is wrong.
        error: DecodeError,
    },
}

fn missing(numbers: &[u32], more: u32) -> String {
    let named = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match (numbers.len(), more) {
        (1, 0) => format!("{named} is"),
        (_, 0) => format!("{named} are"),
        _ => format!("{named} and {more} more are"),
    }
}

/// A part with its place.
struct Part<'a> {
    name: &'a str,
    run: &'a Run,
    shard: &'a Shard,
}

/// One result of all parts, not judged yet.
///
/// # Errors
/// See [`MergeError`].
pub fn merge(inputs: &[Input], merging: Merging) -> Result<Run, MergeError> {
    let parts = in_order(inputs)?;
    check_likeness(&parts)?;
    check_begin(&parts, merging.trust_clocks)?;
    let first = parts[0].run;
    let begins = parts.iter().map(|part| part.run.started_at.as_str());
    let started_at = begins.min().unwrap_or_default().to_owned();
    let mut merged = Run {
        command: merging.command,
        seconds: parts.iter().map(|part| ended_after_s(part.run, &started_at)).fold(0.0, f64::max),
        started_at,
        interrupted: parts.iter().any(|part| part.run.interrupted),
        verdict: Verdict { outcome: Outcome::Invalid, reasons: Vec::new(), exit_code: 5 },
        objectives: Vec::new(),
        caveats: parts.iter().flat_map(caveats).collect(),
        calibration: calibration(&parts)?,
        shard: None,
        shards: parts.iter().map(shard_result).collect(),
        results: results(&parts)?,
        ..first.clone()
    };
    merged.environment.same_host = parts.iter().any(|part| part.run.environment.same_host);
    merged.caveats.extend(idle_disturbed(&parts, &mut merged.results));
    Ok(merged)
}

/// The floor of all machines together, where each has one: a server that does nothing, driven by all of them.
fn calibration(parts: &[Part<'_>]) -> Result<Option<Calibration>, MergeError> {
    let all: Option<Vec<&Calibration>> = parts.iter().map(|part| part.run.calibration.as_ref()).collect();
    let named =
        |(place, error): (usize, DecodeError)| MergeError::Unreadable { name: parts[place].name.to_owned(), error };
    all.map(|all| sum::calibrations(&all)).transpose().map_err(named)
}

/// All parts by number, each once.
fn in_order(inputs: &[Input]) -> Result<Vec<Part<'_>>, MergeError> {
    let mut by_number: BTreeMap<u32, Part<'_>> = BTreeMap::new();
    let mut count = 0;
    for Input { name, run } in inputs {
        let Some(shard) = &run.shard else { return Err(MergeError::NotAShard(name.clone())) };
        count = count.max(shard.count);
        if let Some(first) = by_number.insert(shard.number, Part { name, run, shard }) {
            let (first, second) = (first.name.to_owned(), name.clone());
            return Err(MergeError::Twice { number: shard.number, first, second });
        }
    }
    let Some((_, first)) = by_number.first_key_value() else { return Err(MergeError::Nothing) };
    if let Some(other) = by_number.values().find(|part| part.shard.count != first.shard.count) {
        let fields = vec![format!("shard.count: {} and {}", first.shard.count, other.shard.count)];
        return Err(MergeError::Unlike { first: first.name.to_owned(), second: other.name.to_owned(), fields });
    }
    // A count out of a damaged file may be anything.
    let missing = count - by_number.range(..count).count() as u32;
    if missing > 0 {
        let absent = (0..count).filter(|number| !by_number.contains_key(number));
        let numbers: Vec<u32> = absent.take(MISSING_SHOWN_MAX).collect();
        let more = missing - numbers.len() as u32;
        return Err(MergeError::Missing { count, numbers, more });
    }
    Ok(by_number.into_values().collect())
}

/// One run id, one plan, one program, one target, one start.
fn check_likeness(parts: &[Part<'_>]) -> Result<(), MergeError> {
    let first = &parts[0];
    for part in &parts[1..] {
        let (one, other) = (first.run, part.run);
        let mut fields = likeness::plans_differ(&one.plan, &other.plan);
        let mut differ = |field: &str, one: &str, other: &str| {
            if one != other {
                fields.push(format!("{field}: {one} and {other}"));
            }
        };
        differ("run_id", &one.run_id, &other.run_id);
        differ("shard.start_at", &first.shard.start_at, &part.shard.start_at);
        differ("tool.version", &one.tool.version, &other.tool.version);
        differ("tool.revision", &one.tool.revision, &other.tool.revision);
        differ("tool.build_profile", &one.tool.build_profile, &other.tool.build_profile);
        if let (Some(one), Some(other)) = (one.results.first(), other.results.first()) {
            differ("results.url", &one.url, &other.url);
        }
        if !fields.is_empty() {
            let (first, second) = (first.name.to_owned(), part.name.to_owned());
            return Err(MergeError::Unlike { first, second, fields });
        }
    }
    Ok(())
}

/// Whether their steady phases began together, by the target's clock: each part with each, for two that are near a third may be far apart.
fn check_begin(parts: &[Part<'_>], trust_clocks: bool) -> Result<(), MergeError> {
    let mut begun: Vec<(u32, i128, u64)> = Vec::with_capacity(parts.len());
    for Part { name, shard, .. } in parts {
        // One that did not begin has a reason for that in its result.
        let Some(began) = shard.steady_began_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok()) else { continue };
        let (number, host) = (shard.number, shard.host.clone());
        let (offset_ns, own_uncertainty_ns) = match &shard.clock {
            Some(clock) => (clock.offset_ns, clock.uncertainty_ns),
            None if trust_clocks => (0, 0),
            None => {
                let reason = shard.clock_unknown.clone().unwrap_or_else(|| "it does not say why".to_owned());
                return Err(MergeError::ClockUnknown { name: (*name).to_owned(), number, host, reason });
            }
        };
        let began_ns = began.as_nanosecond() + i128::from(offset_ns);
        for &(other, other_ns, other_uncertainty_ns) in &begun {
            let apart_ns = u64::try_from(began_ns.abs_diff(other_ns)).unwrap_or(u64::MAX);
            let uncertainty_ns = own_uncertainty_ns.saturating_add(other_uncertainty_ns);
            if apart_ns.saturating_add(uncertainty_ns) > BEGIN_SPREAD_NS_MAX {
                let from = if other == 0 { "the first".to_owned() } else { format!("part {other}") };
                let name = (*name).to_owned();
                return Err(MergeError::BeganApart { name, number, host, from, apart_ns, uncertainty_ns });
            }
        }
        begun.push((number, began_ns, own_uncertainty_ns));
    }
    Ok(())
}

/// How long after the first part's begin this one's end was, s.
fn ended_after_s(run: &Run, started_at: &str) -> f64 {
    let instant = |text: &str| text.parse::<Timestamp>().ok();
    let later = instant(&run.started_at).zip(instant(started_at)).map(|(own, first)| own.duration_since(first));
    later.map_or(0.0, |later| later.as_secs_f64()) + run.seconds
}

/// Kinds that are found anew on the sum; of these a part's own would say the same again, of less.
const FOUND_ANEW: [CaveatKind; 16] = [
    CaveatKind::Interrupted,
    CaveatKind::RateNotReached,
    CaveatKind::EventsNotSent,
    CaveatKind::Timeouts,
    CaveatKind::Errors,
    CaveatKind::Reconnects,
    CaveatKind::ConnectionsExhausted,
    CaveatKind::DelayedAcknowledgements,
    CaveatKind::TooFewSamples,
    CaveatKind::LedgerLeftOut,
    CaveatKind::SqlCountUnavailable,
    CaveatKind::PersistedWithoutAcknowledgement,
    CaveatKind::DebugBuild,
    CaveatKind::ClosedLoop,
    CaveatKind::SingleRepetition,
    CaveatKind::NotCalibrated,
];

/// Doubts about the one part, under its name.
fn caveats(part: &Part<'_>) -> Vec<Caveat> {
    let of_part = part_name(part.shard);
    let kept = part.run.caveats.iter().filter(|caveat| !FOUND_ANEW.contains(&caveat.kind));
    let named = |caveat: &Caveat| {
        let subject = caveat.subject.as_ref().map_or_else(|| of_part.clone(), |of| format!("{of}, {of_part}"));
        Caveat { subject: Some(subject), ..caveat.clone() }
    };
    kept.map(named).collect()
}

/// `part 1 (host)`.
pub fn part_name(shard: &Shard) -> String {
    format!("part {} ({})", shard.number, shard.host)
}

fn shard_result(part: &Part<'_>) -> ShardResult {
    let run = part.run;
    let result = run.results.first();
    let load = result.map(|result| &result.load);
    let ledger = |read: fn(&Ledger) -> u64| result.and_then(|result| result.ledger.as_ref()).map(read);
    ShardResult {
        shard: part.shard.clone(),
        command: run.command.clone(),
        environment: run.environment.clone(),
        verdict: run.verdict.clone(),
        planned: load.map_or(0, |load| load.planned),
        outcomes: load.map_or_else(Default::default, |load| load.outcomes),
        response_time: load.map_or_else(Default::default, |load| load.response_time.clone()),
        send_delay: load.map_or_else(Default::default, |load| load.send_delay.clone()),
        acknowledged: ledger(|ledger| ledger.acknowledged),
        lost: ledger(|ledger| ledger.lost),
        duplicated: ledger(|ledger| ledger.duplicated),
        unverified: ledger(|ledger| ledger.unverified),
        generator_cpu_s: result.and_then(|result| result.resources.generator_cpu_s),
        health: result.and_then(|result| result.health.clone()),
    }
}

/// One repetition of one variant: the plans that can be shared out have no more. None where no part has a result.
fn results(parts: &[Part<'_>]) -> Result<Vec<TargetResult>, MergeError> {
    let measured: Vec<(&Part<'_>, &TargetResult)> =
        parts.iter().filter_map(|part| Some((part, part.run.results.first()?))).collect();
    let Some(&(_, first)) = measured.first() else { return Ok(Vec::new()) };
    let unreadable = |(place, error): (usize, DecodeError)| {
        let name = measured.get(place).map_or_else(String::new, |(part, _)| part.name.to_owned());
        MergeError::Unreadable { name, error }
    };
    let loads: Vec<&Load> = measured.iter().map(|(_, result)| &result.load).collect();
    let accounts: Vec<Ledger> = measured.iter().filter_map(|(part, result)| account(part.run, result)).collect();
    let ledger = sum::ledgers(&accounts.iter().collect::<Vec<_>>()).map_err(unreadable)?;
    let failures = parts.iter().filter_map(|part| {
        let failure = match part.run.results.first() {
            Some(result) => result.failure.clone()?,
            None => "it has no result".to_owned(),
        };
        Some(format!("{}: {failure}", part_name(part.shard)))
    });
    let failures: Vec<String> = failures.collect();
    // Who looked at the target as a whole.
    let watcher = measured.iter().find(|(part, _)| part.shard.number == 0).map(|(_, result)| *result);
    let durabilities: BTreeSet<&str> = measured.iter().filter_map(|(_, result)| result.durability.as_deref()).collect();
    Ok(vec![TargetResult {
        durability: (!durabilities.is_empty()).then(|| durabilities.into_iter().collect::<Vec<_>>().join(", ")),
        failure: (!failures.is_empty()).then(|| failures.join("; ")),
        load: sum::loads(&loads, watcher.map(|result| &result.load)).map_err(unreadable)?,
        ledger,
        idle: watcher.and_then(|result| result.idle.clone()),
        resources: sum::resources(measured.iter().map(|(_, result)| &result.resources), watcher),
        health: None,
        ..first.clone()
    }])
}

/// The ledger of a part. One that was asked for and is not there leaves everything unverified that was acknowledged: what the other parts
/// know must not hide it.
fn account(run: &Run, result: &TargetResult) -> Option<Ledger> {
    let accepted = result.load.outcomes.accepted;
    let missing = || Ledger { acknowledged: accepted, unverified: accepted, ..sum::empty_ledger() };
    result.ledger.clone().or_else(|| (run.plan.ledger && accepted > 0).then(missing))
}

/// The target was not idle while another part still read what it keeps: what was counted then is no idle target's.
fn idle_disturbed(parts: &[Part<'_>], results: &mut [TargetResult]) -> Option<Caveat> {
    let result = results.first_mut().filter(|result| result.idle.is_some())?;
    let instant = |at: &Option<String>| at.as_ref()?.parse::<Timestamp>().ok();
    let [first, others @ ..] = parts else { return None };
    let drain = SignedDuration::from_millis(i64::try_from(first.run.plan.drain_timeout_ms).ok()?);
    let steady = SignedDuration::from_millis(i64::try_from(first.run.plan.duration_ms).ok()?);
    let idle_began = instant(&first.shard.steady_began_at)? + steady + drain;
    let late = others.iter().find(|part| instant(&part.shard.last_read_at).is_some_and(|read| read > idle_began))?;
    result.idle = None;
    Some(Caveat {
        kind: CaveatKind::SqlCountUnavailable,
        subject: Some(result.target.clone()),
        detail: format!(
            "the idle phase is left out: {} still read what is persisted when it began",
            part_name(late.shard)
        ),
        remedy: "raise --drain-timeout, after which the first part begins to count".to_owned(),
        invalidates: false,
    })
}

#[cfg(test)]
mod tests;
