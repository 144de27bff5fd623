//! `gate.v1`: the data of one decision of the gate, as written to `gate.json` and embedded in its page.
//!
//! The same rules as in [`crate::model`]: units in the names, `null` for what could not be measured, never 0 for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Environment, Plan, Tool};

/// The value of [`Gate::schema`] that this code writes.
pub const SCHEMA: &str = "gate.v1";

/// One decision: what was compared, by which rule, every round, and what follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// `"gate.v1"`.
    pub schema: String,
    /// Unique id; every event that was sent carries it.
    pub gate_id: String,
    /// What measured.
    pub tool: Tool,
    /// The exact command line.
    pub command: Vec<String>,
    /// When it began.
    pub started_at: String,
    /// How long it took in all.
    pub seconds: f64,
    /// Stopped by a person or a signal before its end; never a pass.
    pub interrupted: bool,
    /// The machine and the build of the tool.
    pub environment: Environment,
    /// What there was.
    pub baseline: Side,
    /// What there is now.
    pub candidate: Side,
    /// How each round was loaded.
    pub plan: Plan,
    /// Length of the closed loop of each round, ms; 0: there was none.
    pub capacity_ms: u64,
    /// By which rule it was decided. All of it was fixed before the first round.
    pub rule: Rule,
    /// Every pair of rounds, in the order in which they ran, those left out too.
    pub pairs: Vec<Pair>,
    /// The fresh repetition that a regression has to survive; `null`: there was no regression to confirm.
    pub confirmation: Option<Confirmation>,
    /// The baseline was read from this file and not measured anew beside the candidate, which makes the answer a weak one.
    pub stored_baseline: Option<String>,
    /// What follows, metric by metric; the gated ones first.
    pub metrics: Vec<MetricResult>,
    /// What follows in all.
    pub verdict: GateVerdict,
}

/// One of the two things that are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// As asked for: a command, or the name of a profile.
    pub name: String,
    /// The command that starts it, without secrets.
    pub command: Vec<String>,
    /// SHA-256 of the program that is started; `null` when it could not be read.
    pub program_sha256: Option<String>,
    /// Version that it reports.
    pub version: Option<String>,
    /// Faults that it was told to have, or that it says it has.
    pub faults: Vec<String>,
}

/// By which rule a gate decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// What is gated: at most six, since each costs the others some of their power.
    pub gated: Vec<Gated>,
    /// When the data are looked at. Nobody looks in between.
    pub looks: Vec<Look>,
    /// When a pair is left out.
    pub spoiled: SpoiledRule,
    /// Pairs that may be run in place of those left out.
    pub pairs_extra_max: u32,
    /// A regression is asked for again, with fresh rounds, before it is called one.
    pub confirm: bool,
    /// Baseline and candidate may be the same program with the same flags, as where the gate itself is tested.
    pub identical_allowed: bool,
    /// Seed of the order of the sides, and of the load.
    pub seed: u64,
}

/// One gated metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gated {
    /// Which.
    pub metric: Metric,
    /// How much worse does not count, as a share: 0.05 is 5 %.
    pub margin: f64,
    /// When the data do not decide, the gate is inconclusive.
    pub required: bool,
}

/// One look at the data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Look {
    /// After so many pairs that were not left out.
    pub pairs: u32,
    /// Probability of a false alarm that it may spend, over all gated metrics together.
    pub alpha: f64,
}

/// When the machine has spoiled a pair of rounds. Every measure is the worse one of its two rounds, so that the rule cannot know which side
/// it is on; both rounds are left out or none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpoiledRule {
    /// Share of the moments in which a core stood still for more than a millisecond while nothing else ran on it, 0..=1.
    pub standstill_share_max: f64,
    /// Share of the processor time that the hypervisor gave to others, 0..=1.
    pub steal_share_max: f64,
    /// Share of the processor time that other programs used, 0..=1.
    pub other_cpu_share_max: f64,
    /// Median of the send delay, ns: the generator itself was late.
    pub send_delay_ns_p50_max: f64,
}

/// Which of the two ran first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// AB.
    BaselineFirst,
    /// BA.
    CandidateFirst,
    /// The baseline is from a file.
    Stored,
}

/// Two rounds under the same load, one right after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// 1-based.
    pub number: u32,
    /// Which ran first.
    pub order: Order,
    /// Seed of the load of both.
    pub seed: u64,
    /// Why it is left out; `null`: it counts.
    pub left_out: Option<String>,
    /// The round of the baseline.
    pub baseline: Round,
    /// The round of the candidate.
    pub candidate: Round,
}

/// A fresh server on fresh data, warmed up and measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Round {
    /// Why there are no data; a sentence.
    pub failure: Option<String>,
    /// Events planned in the measured window.
    pub planned: u64,
    /// Of these, how many were accepted.
    pub accepted: u64,
    /// Achieved over offered rate; `null`: nothing was offered.
    pub achieved_share: Option<f64>,
    /// Samples of the response time.
    pub samples: u64,
    /// Samples that are only lower bounds.
    pub censored: u64,
    /// Quantile 0.5 of the response time.
    pub response_time_ns_p50: Option<f64>,
    /// Quantile 0.99 of it.
    pub response_time_ns_p99: Option<f64>,
    /// Quantile 0.999 of it.
    pub response_time_ns_p999: Option<f64>,
    /// Events a second that were accepted when every connection sent again at once.
    pub capacity_per_s: Option<f64>,
    /// Quantile 0.5 of acknowledged → persisted.
    pub time_to_durable_ns_p50: Option<f64>,
    /// CPU time of the server per accepted event, its database's included.
    pub cpu_ns_per_event: Option<f64>,
    /// Largest resident memory of the server.
    pub memory_bytes_peak: Option<f64>,
    /// SQL statements in the idle window.
    pub idle_sql_statements: Option<f64>,
    /// Events acknowledged, warm-up included; `null`: nobody looked for them.
    pub acknowledged: Option<u64>,
    /// Of these, how many were not there.
    pub lost: u64,
    /// Copies more than one.
    pub duplicated: u64,
    /// Stored with another content.
    pub corrupted: u64,
    /// Nobody could tell.
    pub unverified: u64,
    /// Why the generator's own numbers cannot be believed; `null`: they can.
    pub saturated: Option<String>,
    /// See [`SpoiledRule::standstill_share_max`].
    pub standstill_share: Option<f64>,
    /// See [`SpoiledRule::steal_share_max`].
    pub steal_share: Option<f64>,
    /// See [`SpoiledRule::other_cpu_share_max`].
    pub other_cpu_share: Option<f64>,
    /// See [`SpoiledRule::send_delay_ns_p50_max`].
    pub send_delay_ns_p50: Option<f64>,
}

/// What can be gated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median of the response time.
    ResponseTimeP50,
    /// Quantile 0.99 of it.
    ResponseTimeP99,
    /// Quantile 0.999 of it.
    ResponseTimeP999,
    /// Events a second in a closed loop: more is better.
    Capacity,
    /// Median of acknowledged → persisted.
    TimeToDurableP50,
    /// CPU time of the server per event.
    CpuPerEvent,
    /// Peak memory of the server.
    MemoryPeak,
    /// SQL statements while idle.
    IdleSql,
}

/// What is said of a metric, and of all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    /// Not worse by more than the margin. Exit 0.
    Pass,
    /// Worse by more than the margin. Exit 3.
    Regressed,
    /// Better by more than the margin. Exit 0.
    Improved,
    /// The data do not decide. Exit 4 where the metric is required.
    Inconclusive,
    /// There is nothing to decide with. Exit 5.
    Invalid,
}

/// What follows for one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricResult {
    /// Which.
    pub metric: Metric,
    /// Whether it decides; the others are for information.
    pub gated: bool,
    /// Whether it leaves the gate open when it is inconclusive.
    pub required: bool,
    /// How much worse does not count, as a share.
    pub margin: f64,
    /// In one word; `null` of a metric that is not gated.
    pub outcome: Option<GateOutcome>,
    /// Median over the rounds of the baseline, in the metric's unit.
    pub baseline: Option<f64>,
    /// Median over the rounds of the candidate.
    pub candidate: Option<f64>,
    /// By how much the candidate is worse, as a share (0.1: 10 % worse, −0.1: 9.1 % better): Hodges and Lehmann's estimate of the log
    /// ratios. `null`: no pair has it.
    pub worse_by: Option<f64>,
    /// Lower end of its interval; `null`: open.
    pub worse_by_low: Option<f64>,
    /// Upper end of its interval; `null`: open.
    pub worse_by_high: Option<f64>,
    /// Confidence of the interval, 0..=1; two-sided.
    pub confidence: f64,
    /// One-sided exact p of "not worse by more than the margin": small when it is.
    pub p_worse: Option<f64>,
    /// The same, adjusted for the number of gated metrics (Holm).
    pub p_worse_adjusted: Option<f64>,
    /// One-sided exact p of "worse by the margin or more": small when it is not.
    pub p_not_worse: Option<f64>,
    /// Pairs it was decided on.
    pub pairs: u32,
    /// Log ratio of each of them, worse above 0, in their order.
    pub ratios_ln: Vec<f64>,
    /// Half the difference between the mean log ratio of the pairs that began with the baseline and of the others.
    pub order_effect_ln: Option<f64>,
    /// Rank correlation of the log ratios with the number of the pair, −1..=1.
    pub drift: Option<f64>,
    /// What else has to be known, in sentences.
    pub notes: Vec<String>,
}

/// The fresh repetition of a regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmation {
    /// Metrics that had regressed.
    pub flagged: Vec<Metric>,
    /// Every pair of it.
    pub pairs: Vec<Pair>,
    /// What it says of each of them.
    pub metrics: Vec<MetricResult>,
}

/// What follows in all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateVerdict {
    /// In one word.
    pub outcome: GateOutcome,
    /// Sentences, most important first.
    pub reasons: Vec<String>,
    /// The exit code that goes with it.
    pub exit_code: u8,
    /// The look at which it was decided, 1-based; 0: none was reached.
    pub look: u32,
    /// Pairs that count.
    pub pairs_used: u32,
    /// Pairs that were left out.
    pub pairs_left_out: u32,
}
