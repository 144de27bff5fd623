//! Sums over parts. Each is what the whole would be: in whatever order, and however the parts are put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::breakdown;
use crate::histogram::{DecodeError, TimeHistogram};
use crate::model::{
    Calibration, ErrorCount, Interval, Ledger, Load, Operation, OperationLoad, Outcomes, Repeats, Resources,
    TargetResult, TimeToDurable, Times,
};

/// Ids of lost events kept as examples.
const LOST_EXAMPLES_MAX: usize = 10;

/// Of the part at this place a histogram cannot be read.
type Fault = (usize, DecodeError);

/// All samples in one distribution.
///
/// # Errors
/// With the place of the one that cannot be read.
pub fn times(parts: &[&Times]) -> Result<Times, Fault> {
    let mut sum = TimeHistogram::new();
    for (place, part) in parts.iter().enumerate().filter(|(_, part)| part.count > 0) {
        sum.merge(&part.histogram().map_err(|error| (place, error))?);
    }
    Ok(sum.times(parts.iter().map(|part| part.censored).sum()))
}

fn outcomes<'a>(parts: impl Iterator<Item = &'a Outcomes>) -> Outcomes {
    parts.fold(Outcomes::default(), |sum, part| Outcomes {
        accepted: sum.accepted + part.accepted,
        rejected: sum.rejected + part.rejected,
        failed: sum.failed + part.failed,
        timed_out: sum.timed_out + part.timed_out,
        not_sent: sum.not_sent + part.not_sent,
    })
}

/// The steady phases of all parts as one. `watcher` is that of the part that looked at the target as a whole.
///
/// # Errors
/// With the place of the part whose histograms cannot be read.
pub fn loads(parts: &[&Load], watcher: Option<&Load>) -> Result<Load, Fault> {
    let of = |read: fn(&Load) -> &Times| times(&parts.iter().map(|load| read(load)).collect::<Vec<_>>());
    let all_outcomes = outcomes(parts.iter().map(|load| &load.outcomes));
    let planned = parts.iter().map(|load| load.planned).sum();
    let seconds = parts.iter().map(|load| load.seconds).fold(0.0, f64::max);
    // The rate of each is over the time until its last answer: the whole ends with the last of all.
    let until = |load: &&Load| load.outcomes.accepted as f64 / load.achieved_per_s;
    let until_s = parts.iter().filter(|load| load.outcomes.accepted > 0).map(until).fold(seconds, f64::max);
    let mut statuses = BTreeMap::new();
    for (status, count) in parts.iter().flat_map(|load| &load.statuses) {
        *statuses.entry(status.clone()).or_default() += count;
    }
    Ok(Load {
        seconds,
        offered_per_s: planned as f64 / seconds,
        achieved_per_s: all_outcomes.accepted as f64 / until_s,
        planned,
        outcomes: all_outcomes,
        repeats: parts.iter().fold(Repeats::default(), |sum, load| Repeats {
            sent: sum.sent + load.repeats.sent,
            refused: sum.refused + load.repeats.refused,
            accepted: sum.accepted + load.repeats.accepted,
        }),
        statuses,
        errors: errors(parts),
        response_time: of(|load| &load.response_time)?,
        service_time: of(|load| &load.service_time)?,
        send_delay: of(|load| &load.send_delay)?,
        connection_wait: of(|load| &load.connection_wait)?,
        refused_time: of(|load| &load.refused_time)?,
        connections: parts.iter().map(|load| load.connections).sum(),
        reconnects: parts.iter().map(|load| load.reconnects).sum(),
        connect_time: of(|load| &load.connect_time)?,
        operations: operations(parts)?,
        intervals: intervals(parts)?,
        backlog: watcher.map_or_else(Vec::new, |load| load.backlog.clone()),
        // Each part was held against its own schedule; what is not well there is a caveat of that part.
        arrivals_check: None,
        parts: if parts.iter().all(|load| load.service_time.count == 0 || !load.parts.is_empty()) {
            breakdown::added(parts.iter().flat_map(|load| load.parts.iter().copied()))
        } else {
            Vec::new()
        },
        target_time: watcher.and_then(|load| load.target_time),
    })
}

fn errors(parts: &[&Load]) -> Vec<ErrorCount> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for error in parts.iter().flat_map(|load| &load.errors) {
        *counts.entry(&error.kind).or_default() += error.count;
    }
    let mut errors: Vec<ErrorCount> =
        counts.into_iter().map(|(kind, count)| ErrorCount { kind: kind.to_owned(), count }).collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
    errors
}

fn operations(parts: &[&Load]) -> Result<Vec<OperationLoad>, Fault> {
    let one = |operation: Operation| {
        let of: Vec<(usize, &OperationLoad)> = parts
            .iter()
            .enumerate()
            .flat_map(|(place, load)| load.operations.iter().map(move |of| (place, of)))
            .filter(|(_, of)| of.operation == operation)
            .collect();
        let sum = |read: fn(&OperationLoad) -> &Times| {
            let all: Vec<&Times> = of.iter().map(|(_, load)| read(load)).collect();
            times(&all).map_err(|(place, error)| (of[place].0, error))
        };
        Ok(OperationLoad {
            operation,
            planned: of.iter().map(|(_, load)| load.planned).sum(),
            outcomes: outcomes(of.iter().map(|(_, load)| &load.outcomes)),
            events_acknowledged: of.iter().map(|(_, load)| load.events_acknowledged).sum(),
            response_time: sum(|load| &load.response_time)?,
            service_time: sum(|load| &load.service_time)?,
        })
    };
    let asked: BTreeSet<Operation> = parts.iter().flat_map(|load| &load.operations).map(|of| of.operation).collect();
    asked.into_iter().map(one).collect()
}

/// Second by second. They begin together to a tenth of the shortest ([`super::BEGIN_SPREAD_NS_MAX`]).
fn intervals(parts: &[&Load]) -> Result<Vec<Interval>, Fault> {
    let mut rows: BTreeMap<u64, Vec<(usize, &Interval)>> = BTreeMap::new();
    for (place, load) in parts.iter().enumerate() {
        for row in &load.intervals {
            rows.entry(row.offset_ms).or_default().push((place, row));
        }
    }
    let one = |(offset_ms, of): (u64, Vec<(usize, &Interval)>)| {
        let all: Vec<&Times> = of.iter().map(|(_, row)| &row.response_time).collect();
        Ok(Interval {
            offset_ms,
            length_ms: of.iter().map(|(_, row)| row.length_ms).max().unwrap_or(0),
            planned: of.iter().map(|(_, row)| row.planned).sum(),
            outcomes: outcomes(of.iter().map(|(_, row)| &row.outcomes)),
            response_time: times(&all).map_err(|(place, error)| (of[place].0, error))?,
            // There is no histogram of it by the second; of a mixture no quantile is above the largest of its parts.
            send_delay_p99_ns: of.iter().map(|(_, row)| row.send_delay_p99_ns).max().unwrap_or(0),
        })
    };
    rows.into_iter().map(one).collect()
}

/// A ledger of nothing.
pub fn empty_ledger() -> Ledger {
    Ledger {
        acknowledged: 0,
        persisted: 0,
        delivered: None,
        delivery: None,
        lost: 0,
        duplicated: 0,
        corrupted: 0,
        unverified: 0,
        unacknowledged: 0,
        source: String::new(),
        drained_after_ms: 0,
        time_to_durable: None,
        lost_examples: Vec::new(),
    }
}

/// The ledger of all: each event belongs to one part, so everything is a sum. `None`: there are none.
///
/// # Errors
/// With the place of the one whose histogram cannot be read.
pub fn ledgers(parts: &[&Ledger]) -> Result<Option<Ledger>, Fault> {
    if parts.is_empty() {
        return Ok(None);
    }
    let sum = |read: fn(&Ledger) -> u64| parts.iter().map(|ledger| read(ledger)).sum();
    let mut examples: Vec<String> = parts.iter().flat_map(|ledger| ledger.lost_examples.iter().cloned()).collect();
    examples.sort();
    examples.truncate(LOST_EXAMPLES_MAX);
    Ok(Some(Ledger {
        acknowledged: sum(|ledger| ledger.acknowledged),
        persisted: sum(|ledger| ledger.persisted),
        lost: sum(|ledger| ledger.lost),
        duplicated: sum(|ledger| ledger.duplicated),
        corrupted: sum(|ledger| ledger.corrupted),
        unverified: sum(|ledger| ledger.unverified),
        unacknowledged: sum(|ledger| ledger.unacknowledged),
        source: joined(parts.iter().map(|ledger| ledger.source.as_str())),
        drained_after_ms: parts.iter().map(|ledger| ledger.drained_after_ms).max().unwrap_or(0),
        time_to_durable: times_to_durable(parts)?,
        lost_examples: examples,
        ..empty_ledger()
    }))
}

fn times_to_durable(parts: &[&Ledger]) -> Result<Option<TimeToDurable>, Fault> {
    let known: Vec<(usize, &TimeToDurable)> = parts
        .iter()
        .enumerate()
        .filter_map(|(place, ledger)| Some((place, ledger.time_to_durable.as_ref()?)))
        .collect();
    if known.is_empty() {
        return Ok(None);
    }
    let all: Vec<&Times> = known.iter().map(|(_, durable)| &durable.times).collect();
    Ok(Some(TimeToDurable {
        times: times(&all).map_err(|(place, error)| (known[place].0, error))?,
        source: joined(known.iter().map(|(_, durable)| durable.source.as_str())),
        resolution_ns: known.iter().map(|(_, durable)| durable.resolution_ns).max().unwrap_or(0),
        // A slope, and seconds of which there are quantiles alone.
        growth: None,
        intervals: Vec::new(),
    }))
}

/// Each word once, in alphabetical order.
fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: BTreeSet<&str> = words.flat_map(|words| words.split(", ")).filter(|word| !word.is_empty()).collect();
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// What all generators used, and what the one that looked at the target saw of it.
pub fn resources<'a>(parts: impl Iterator<Item = &'a Resources>, watcher: Option<&TargetResult>) -> Resources {
    let of_target = watcher.map_or_else(Resources::default, |watcher| watcher.resources.clone());
    let parts: Vec<&Resources> = parts.collect();
    let sum_cpu_s: Option<f64> = parts.iter().map(|part| part.generator_cpu_s).sum();
    let mut over_time = of_target.over_time;
    over_time.iter_mut().for_each(|sample| sample.generator_cpu_s = None);
    Resources {
        generator_cpu_s: sum_cpu_s,
        generator_rss_peak_bytes: parts.iter().filter_map(|part| part.generator_rss_peak_bytes).max(),
        generator_switches_involuntary: parts.iter().map(|part| part.generator_switches_involuntary).sum(),
        // A share of one thread's time: of several it would be none.
        generator_run_queue_delay_ns: None,
        over_time,
        ..of_target
    }
}

/// The floor of all machines together.
///
/// # Errors
/// With the place of the one whose histograms cannot be read.
pub fn calibrations(parts: &[&Calibration]) -> Result<Calibration, Fault> {
    let of = |read: fn(&Calibration) -> &Times| times(&parts.iter().map(|part| read(part)).collect::<Vec<_>>());
    let requests = |part: &Calibration| part.achieved_per_s * part.seconds;
    let all_requests: f64 = parts.iter().map(|part| requests(part)).sum();
    let cpu_ns: Option<f64> =
        parts.iter().map(|part| Some(part.generator_cpu_ns_per_request? * requests(part) / all_requests)).sum();
    Ok(Calibration {
        rate_per_s: parts.iter().map(|part| part.rate_per_s).sum(),
        achieved_per_s: parts.iter().map(|part| part.achieved_per_s).sum(),
        seconds: parts.iter().map(|part| part.seconds).fold(0.0, f64::max),
        response_time: of(|part| &part.response_time)?,
        service_time: of(|part| &part.service_time)?,
        send_delay: of(|part| &part.send_delay)?,
        timer_lateness: of(|part| &part.timer_lateness)?,
        hiccups: None,
        generator_cpu_ns_per_request: cpu_ns,
        rate_per_s_max: None,
        rate_per_s_failed: None,
        limit: None,
        closed_per_s_max: None,
    })
}
