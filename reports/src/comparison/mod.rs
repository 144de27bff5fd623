//! Several results side by side: `compare.v1`, what `loadgen compare` writes and shows.
//!
//! Compared are *subjects* (a variant of a run) in *scenarios*: all at one rate, or each at the same fraction of its own capacity. Nobody
//! is ranked: a number is a ratio to one subject with an interval, adjusted for the number of comparisons of its scenario, and who cannot be told
//! apart has a letter in common. Results of unlike plans or machines are refused.

mod build;
mod limits;
mod ratio;
mod show;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use build::{CompareError, Input, compare};
pub use ratio::Ratio;
pub use show::{capacity_rows, conformance_rows, ledger_rows, scenario_rows, terminal};

pub use crate::likeness::Unlike;
use crate::model::{Capacity, Conformance, TargetResult, Times};
use crate::stats;
use crate::summary;

/// The value of [`Comparison::schema`].
pub const SCHEMA: &str = "compare.v1";

/// How often, of 1, at least one interval of a scenario may miss the truth by chance.
pub const ERROR_RATE: f64 = 0.05;

/// Results side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// `"compare.v1"`.
    pub schema: String,
    /// What it does not say, as sentences; read first.
    pub limits: Vec<String>,
    /// Where the numbers come from.
    pub sources: Vec<Source>,
    /// The subject that ratios are to.
    pub reference: String,
    /// What is compared.
    pub subjects: Vec<Subject>,
    /// Under which loads.
    pub scenarios: Vec<Scenario>,
}

/// One result that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// As given, shortened to what tells it from the others.
    pub name: String,
    /// Its run.
    pub run_id: String,
    /// When it began.
    pub started_at: String,
    /// The command that made it.
    pub command: Vec<String>,
    /// Revision of the tool that made it.
    pub revision: String,
    /// `pass`, `missed`, `inconclusive` or `invalid`.
    pub outcome: String,
}

/// One of those compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Unique.
    pub name: String,
    /// Mode of the reference server.
    pub mode: Option<String>,
    /// What its acknowledgements claim to be worth.
    pub durability: Option<String>,
    /// Kind and version of its database.
    pub database: Option<String>,
    /// Version that it reports.
    pub version: Option<String>,
    /// Faults that it was told to have.
    pub faults: Vec<String>,
    /// Over all its repetitions in all scenarios.
    pub ledger: Option<LedgerSum>,
    /// The highest rate that it holds; `null`: nobody looked.
    pub capacity: Option<Capacity>,
    /// Which rules of the contract it keeps; `null`: nobody tested.
    #[serde(default)]
    pub conformance: Option<Conformance>,
}

/// Ledgers of several repetitions added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerSum {
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Of these, found persisted.
    pub persisted: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// Surplus copies, or repeats that were acknowledged as if they were new.
    pub duplicated: u64,
    /// Kept otherwise than acknowledged.
    pub corrupted: u64,
    /// Neither kept nor lost, as far as anybody could tell.
    pub unverified: u64,
}

/// One load on all subjects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scenario {
    /// `at 1,000/s`, `at 60 % of each one's own capacity`.
    pub title: String,
    /// Subjects measured, in the order of [`Comparison::subjects`].
    pub subjects: Vec<String>,
    /// Offered rate of each, per second.
    pub offered_per_s: Vec<f64>,
    /// Accepted rate of each, per second: median of the rounds.
    pub achieved_per_s: Vec<Option<f64>>,
    /// Rounds (repetitions with a fresh server) of each.
    pub rounds: Vec<usize>,
    /// All were measured in the same rounds, so that what disturbed one disturbed all.
    pub is_paired: bool,
    /// Comparisons that the intervals are adjusted for: pairs of subjects times quantities (Bonferroni).
    pub comparisons: usize,
    /// Response time of each, all rounds merged.
    pub response_time: Vec<Times>,
    /// One a quantity.
    pub lines: Vec<Line>,
}

/// One quantity in one scenario. Lower is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// What it is.
    pub label: String,
    /// `ns`, `bytes`, `per_hour`.
    pub unit: String,
    /// Of each subject; `null`: not measured, or too few samples.
    pub values: Vec<Option<Value>>,
    /// Of each subject to the reference; `null`: of the reference itself, or where a number is missing or 0.
    pub ratios: Vec<Option<Ratio>>,
    /// Two subjects that have a letter in common cannot be told apart; empty where nothing was measured.
    pub letters: Vec<String>,
}

/// Median of the rounds, with the smallest and largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Value {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// A comparison as text, one field a line.
pub fn write(comparison: &Comparison) -> String {
    serde_json::to_string_pretty(comparison).expect("a comparison has only text keys") + "\n"
}

/// A quantity that is compared.
struct Quantity {
    label: &'static str,
    unit: &'static str,
    read: fn(&TargetResult) -> Option<f64>,
}

const QUANTITIES: [Quantity; 9] = [
    Quantity { label: "response time p50", unit: "ns", read: |r| quantile(&r.load.response_time, 0.5) },
    Quantity { label: "response time p99", unit: "ns", read: |r| quantile(&r.load.response_time, 0.99) },
    Quantity { label: "response time p99.9", unit: "ns", read: |r| quantile(&r.load.response_time, 0.999) },
    Quantity { label: "time to durable p50", unit: "ns", read: |r| quantile(summary::time_to_durable(r)?, 0.5) },
    Quantity { label: "time to durable p99", unit: "ns", read: |r| quantile(summary::time_to_durable(r)?, 0.99) },
    Quantity { label: "server CPU per event", unit: "ns", read: |r| r.cpu_ns_per_event(r.resources.server_cpu_s) },
    Quantity { label: "database CPU per event", unit: "ns", read: |r| r.cpu_ns_per_event(r.resources.database_cpu_s) },
    Quantity {
        label: "server memory, peak",
        unit: "bytes",
        read: |r| r.resources.server_rss_peak_bytes.map(|bytes| bytes as f64),
    },
    Quantity {
        label: "SQL statements per idle hour",
        unit: "per_hour",
        read: |r| r.idle.as_ref()?.sql_statements_per_hour,
    },
];

/// Of a distribution that has enough samples beyond it, and where what timed out does not make it a mere lower bound.
fn quantile(times: &Times, q: f64) -> Option<f64> {
    let enough = q <= 0.5 || stats::samples_beyond(times.count, q) >= stats::SAMPLES_BEYOND_TO_PRINT;
    let known = !stats::is_lower_bound(times.count, times.censored + times.overflowed, q);
    (times.count > 0 && enough && known).then(|| times.quantile_ns(q))
}

#[cfg(test)]
mod tests;
