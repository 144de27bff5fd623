//! The numbers that trackers of benchmarks follow: one a variant, with the spread of its repetitions.

use crate::format;
use crate::gate::model::{Gate, Metric};
use crate::model::{Run, TargetResult, Times};
use crate::stats::{self, Spread};
use crate::summary::{self, Group};

/// In which direction a number is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Times, costs, losses.
    Smaller,
    /// Rates.
    Bigger,
}

/// One number of one variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// The variant.
    pub variant: String,
    /// What it is, in words with hyphens: `response-time-p99`.
    pub measure: &'static str,
    /// `ns`, `events/s`, `events`, `statements/h`, `bytes`, `rules`.
    pub unit: &'static str,
    /// What is better.
    pub better: Better,
    /// Over the repetitions.
    pub spread: Spread,
}

/// A distribution and the quantile of it that is a number.
type Quantile = (&'static str, summary::ReadTimes, f64);
/// A number of one result.
type Read = (&'static str, &'static str, Better, fn(&TargetResult) -> Option<f64>);

const QUANTILES: [Quantile; 7] = [
    ("response-time-p50", summary::response_time, 0.5),
    ("response-time-p90", summary::response_time, 0.9),
    ("response-time-p99", summary::response_time, 0.99),
    ("response-time-p999", summary::response_time, 0.999),
    ("service-time-p99", summary::service_time, 0.99),
    ("time-to-durable-p50", summary::time_to_durable, 0.5),
    ("time-to-durable-p99", summary::time_to_durable, 0.99),
];

const READS: [Read; 9] = [
    ("achieved-rate", "events/s", Better::Bigger, |r| Some(r.load.achieved_per_s).filter(|_| r.load.planned > 0)),
    ("not-accepted", "events", Better::Smaller, |r| Some(r.load.not_accepted() as f64).filter(|_| r.load.planned > 0)),
    ("lost", "events", Better::Smaller, |r| r.ledger.as_ref().map(|ledger| ledger.lost as f64)),
    ("duplicated", "events", Better::Smaller, |r| r.ledger.as_ref().map(|ledger| ledger.duplicated as f64)),
    ("altered", "events", Better::Smaller, |r| r.ledger.as_ref().map(|ledger| ledger.corrupted as f64)),
    ("sql-statements-idle", "statements/h", Better::Smaller, |r| r.idle.as_ref()?.sql_statements_per_hour),
    ("server-cpu-per-event", "ns", Better::Smaller, |r| r.cpu_ns_per_event(r.resources.server_cpu_s)),
    ("server-memory-peak", "bytes", Better::Smaller, |r| r.resources.server_rss_peak_bytes.map(|bytes| bytes as f64)),
    ("time-to-first-durable", "ns", Better::Smaller, |r| {
        r.idle.as_ref()?.first_event?.time_to_durable_ns.map(|ns| ns as f64)
    }),
];

/// All of a run. What was not measured, and a quantile that has too few samples or is only known to be at least something, is left out.
pub fn numbers(run: &Run) -> Vec<Number> {
    let mut numbers: Vec<Number> = summary::groups(run).iter().flat_map(of_group).collect();
    for found in &run.capacity {
        let one = stats::spread(&found.rate_per_s.into_iter().collect::<Vec<_>>());
        numbers.extend(one.map(|spread| Number {
            variant: found.variant.clone(),
            measure: "capacity",
            unit: "events/s",
            better: Better::Bigger,
            spread,
        }));
    }
    numbers
}

/// What a gate measured of either side, over the rounds that count.
pub fn of_gate(gate: &Gate) -> Vec<Number> {
    let pairs = || gate.pairs.iter().filter(|pair| pair.left_out.is_none());
    let number = |side: &str, metric: Metric, values: Vec<f64>| {
        let spread = stats::spread(&values)?;
        let better = if metric == Metric::Capacity { Better::Bigger } else { Better::Smaller };
        Some(Number { variant: side.to_owned(), measure: metric.measure(), unit: metric.unit(), better, spread })
    };
    let both = Metric::ALL.into_iter().flat_map(|metric| {
        let baseline = pairs().filter_map(|pair| metric.value(&pair.baseline)).collect();
        let candidate = pairs().filter_map(|pair| metric.value(&pair.candidate)).collect();
        [number("baseline", metric, baseline), number("candidate", metric, candidate)]
    });
    both.flatten().collect()
}

fn of_group(group: &Group<'_>) -> Vec<Number> {
    let number =
        |measure, unit, better, spread| Number { variant: group.name.to_owned(), measure, unit, better, spread };
    let quantiles = QUANTILES.iter().filter_map(|(measure, read, q)| {
        let spread =
            group.spread(|r| read(r).filter(|times| is_known(times, *q)).map(|times| times.quantile_ns(*q)))?;
        Some(number(*measure, "ns", Better::Smaller, spread))
    });
    let others = READS
        .iter()
        .filter_map(|(measure, unit, better, read)| Some(number(*measure, *unit, *better, group.spread(read)?)));
    quantiles.chain(others).collect()
}

/// Whether the quantile has samples enough, and is not only a lower bound.
pub fn is_known(times: &Times, q: f64) -> bool {
    let censored = times.censored + times.overflowed;
    let enough = format::quantile(times, q, times.quantile_ns(q)) != format::UNKNOWN;
    times.count > 0 && enough && !stats::is_lower_bound(times.count, censored, q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn value(numbers: &[Number], variant: &str, measure: &str) -> Option<f64> {
        numbers.iter().find(|n| n.variant == variant && n.measure == measure).map(|n| n.spread.median)
    }

    #[test]
    fn a_lower_bound_and_what_nobody_measured_are_no_numbers() {
        let lying = numbers(&fixtures::lying_server());
        assert_eq!(value(&lying, "elixir:4000", "response-time-p99"), None, "it is at least 2 s");
        assert!(value(&lying, "elixir:4000", "response-time-p50").is_some());
        assert_eq!(value(&lying, "elixir:4000", "lost"), Some(1166.0));
        let modes = numbers(&fixtures::three_modes());
        assert_eq!(value(&modes, "null", "lost"), None);
        assert_eq!(value(&modes, "cache-first", "lost"), Some(0.0));
    }

    #[test]
    fn a_capacity_is_a_number() {
        let run = fixtures::capacity();
        let found = run.capacity[0].rate_per_s;
        assert_eq!(value(&numbers(&run), &run.capacity[0].variant, "capacity"), found);
    }
}
