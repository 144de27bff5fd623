//! `loadgen gate --self-test`: the gate decides again and again on what is known: the reference server against itself, and against itself with
//! a fault that makes it worse by a known amount.
//!
//! Every decision is a whole gate run with rounds of its own, only shorter. Which change comes next is always the one that is furthest behind
//! its share, so that whenever time is up there are some of each.

use std::time::Duration;

use clap::ValueEnum;
use reports::format;
use reports::gate::model::{GateOutcome, Gated, Look, Metric, Rule};
use reports::gate::rule::{ALPHA, PAIRS_MAX, PAIRS_MIN};
use reports::gate::trials::{Decision, SCHEMA, SelfTest, Trial};
use reports::model::{Environment, Plan};
use tokio::time::Instant;

use super::round::Rounds;
use super::side::{Side, SideError};
use super::{Wanted, run};
use crate::measure::{self, Context};
use crate::plan::Resolved;
use crate::progress::Progress;

/// Decisions on one program against itself, for one on each change whose share is to be known well.
const SAME_PER_CHANGE: u32 = 6;
/// The same for the other changes: those that are plain to see, or that need not be found.
const SAME_PER_OTHER_CHANGE: u32 = 12;
/// Processor time on every request, as a share of what it takes anyway, by which it is first tried how much of it makes the p50 a tenth
/// longer. A share, since a slow phase of the machine makes more work slower, too: of a fixed time 10 % came out as 7 to 13 %.
const PROBE_SHARE: f64 = 0.2;
/// Pairs of rounds for that. What comes out is tried once more, since it need not be in proportion, with two pairs for each decision on one
/// program as far as chance is counted: with 40 in all, the tenth was uncertain by a sixth.
const PROBE_PAIRS: u32 = PAIRS_MIN;

/// What a candidate may be worse by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Change {
    /// Nothing: false alarms
    Same,
    /// 10 % of the p50, on every request
    P50,
    /// 5 % of the processor time of a request
    #[value(name = "cpu-5")]
    Cpu5,
    /// 10 % of it
    #[value(name = "cpu-10")]
    Cpu10,
    /// 20 % of it
    #[value(name = "cpu-20")]
    Cpu20,
    /// 0.3 ms on 2 % of requests
    P99,
    /// One more sync a batch, in journal-first
    Sync,
    /// One more query a poll
    Query,
    /// 20 % of the memory
    Memory,
}

/// What is to be tested.
#[derive(Debug)]
pub struct Wish {
    /// The load of every round.
    pub resolved: Resolved,
    /// Length of the closed loop of a round.
    pub capacity: Duration,
    /// The rule of every decision; each has a seed of its own.
    pub rule: Rule,
    /// Decisions on one program against itself; a sixth or a twelfth of them on each change.
    pub decisions: u32,
    /// Those that are decided on; none: all whose metric is gated.
    pub changes: Vec<Change>,
    /// No decision begins that would not end by then.
    pub time_max: Duration,
    /// Mode and polling policy of the reference server.
    pub server: (String, String),
}

/// What the reference server needs on this machine, as measured first.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Processor time on every request, as a share of what it takes anyway, that makes the p50 a tenth longer.
    tenth_of_p50_cpu_share: f64,
    memory_bytes_peak: f64,
}

/// A self-test cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// This program cannot be read.
    #[error(transparent)]
    Side(#[from] SideError),
    /// An earlier self-test that is not of the same kind.
    #[error("--add {path}: {why}")]
    Unlike {
        /// Its file.
        path: String,
        /// What differs.
        why: String,
    },
}

/// Decides for as long as there are decisions to make and time, beside those of earlier self-tests (by their files), which count. Must be
/// awaited on a `LocalSet`.
///
/// # Errors
/// Before anything is decided: see [`SelfTestError`].
pub async fn test(wish: &Wish, earlier: Vec<(String, SelfTest)>, context: &Context) -> Result<SelfTest, SelfTestError> {
    let begin = Instant::now();
    let progress = context.progress(wish.time_max);
    progress.phase("sizing the changes", "measuring", None);
    let changes = Change::value_variants().iter().copied();
    let changes: Vec<Change> = changes.filter(|change| change.is_wanted(&wish.changes, &wish.rule.gated)).collect();
    let (sizes, environment) = sizes(wish, &changes, context).await?;
    let trials = |sizes| changes.iter().map(|change| change.trial(&wish.server.0, sizes)).collect();
    let mut test = SelfTest {
        schema: SCHEMA.to_owned(),
        tool: measure::tool(),
        command: context.command.clone(),
        started_at: jiff::Timestamp::now().to_string(),
        seconds: 0.0,
        interrupted: false,
        environment,
        plan: Plan { variants: Vec::new(), ..wish.resolved.plan.clone() },
        rule: Rule { identical_allowed: true, ..wish.rule.clone() },
        trials: sizes.map(trials).unwrap_or_default(),
    };
    let wanted = test.trials.clone();
    for (path, earlier) in earlier {
        test.add(earlier).map_err(|why| SelfTestError::Unlike { path, why })?;
    }
    let is_wanted = |trial: &Trial| wanted.iter().any(|wanted| wanted.is_like(trial));
    let seconds_before = test.seconds;
    let mut number: u32 = test.trials.iter().map(|trial| trial.decisions.len() as u32).sum();
    while let Some(at) = furthest_behind(&test.trials, wish.decisions, is_wanted) {
        if context.is_stopped() || begin.elapsed() + longest(&test.trials) > wish.time_max {
            break;
        }
        number += 1;
        progress.step(&format!("decision {number}, {}", test.trials[at].name));
        let decision = decide(wish, &test.trials[at], number, context).await?;
        progress.say(&told(number, &test.trials[at], &decision));
        test.trials[at].decisions.push(decision);
    }
    test.interrupted = context.is_stopped();
    test.seconds = seconds_before + begin.elapsed().as_secs_f64();
    Ok(test)
}

/// How long the longest decision so far took.
fn longest(trials: &[Trial]) -> Duration {
    let all = trials.iter().flat_map(|trial| &trial.decisions);
    Duration::from_secs_f64(all.map(|decision| decision.seconds).fold(0.0, f64::max))
}

/// The wanted trial with the smallest part of its decisions made; `None`: all are.
fn furthest_behind(trials: &[Trial], decisions: u32, is_wanted: impl Fn(&Trial) -> bool) -> Option<usize> {
    let part = |trial: &Trial| trial.decisions.len() as f64 / f64::from(wanted_of(trial, decisions));
    let open = trials.iter().enumerate().filter(|(_, trial)| is_wanted(trial) && part(trial) < 1.0);
    open.min_by(|(_, a), (_, b)| part(a).total_cmp(&part(b))).map(|(at, _)| at)
}

fn wanted_of(trial: &Trial, decisions: u32) -> u32 {
    match trial.worsens {
        None => decisions,
        Some(Metric::ResponseTimeP50 | Metric::ResponseTimeP99) => decisions.div_ceil(SAME_PER_CHANGE),
        Some(_) => decisions.div_ceil(SAME_PER_OTHER_CHANGE),
    }
}

fn told(number: u32, trial: &Trial, decision: &Decision) -> String {
    let reason = decision.reasons.first().map_or("", String::as_str);
    let pairs = decision.pairs.len() + decision.pairs_again.len();
    let took = format::seconds(decision.seconds);
    format!("decision {number}, {}: {} ({pairs} pairs, {took}) · {reason}", trial.name, decision.outcome.name())
}

/// `None`: there is nothing to size a change by, since the server cannot be measured.
async fn sizes(
    wish: &Wish,
    changes: &[Change],
    context: &Context,
) -> Result<(Option<Sizes>, Option<Environment>), SideError> {
    let silence = Progress::silent();
    let rounds = Rounds { resolved: &wish.resolved, capacity: Duration::ZERO, context, progress: &silence };
    let first = rounds.measure(&side("baseline", &wish.server.0, wish, &[])?, wish.rule.seed, "size").await;
    let environment = Some(first.environment);
    let mut sizes = Sizes { tenth_of_p50_cpu_share: PROBE_SHARE, memory_bytes_peak: 0.0 };
    let stages = match changes.iter().any(|change| change.is_sized()) {
        true => vec![PROBE_PAIRS, (2 * wish.decisions).clamp(PAIRS_MIN, PAIRS_MAX)],
        false => Vec::new(),
    };
    for (number, &pairs) in (1..).zip(&stages) {
        let probe = sizes.tenth_of_p50_cpu_share;
        let rule = Rule {
            looks: vec![Look { pairs, alpha: ALPHA }],
            pairs_extra_max: pairs / 2,
            confirm: false,
            ..wish.rule.clone()
        };
        let mut wanted = wanted(wish, &wish.server.0, &[cpu_share(probe)], rule)?;
        wanted.capacity = Duration::ZERO;
        let gate = run(&wanted, &part_of(context, &format!("size{number}"))).await;
        let p50 = gate.metrics.iter().find(|result| result.metric == Metric::ResponseTimeP50);
        let memory: Vec<f64> = gate.pairs.iter().filter_map(|pair| Metric::MemoryPeak.value(&pair.baseline)).collect();
        let slower_by = p50.and_then(|result| result.worse_by);
        let Some((slower_by, memory_bytes_peak)) = slower_by.zip(reports::stats::median(&memory)) else {
            return Ok((None, environment));
        };
        // An answer takes little but processor time, and whoever is late makes others wait: what looks like less than half is noise.
        let tenth_of_p50_cpu_share = probe * 0.1 / slower_by.max(probe / 2.0);
        sizes = Sizes { tenth_of_p50_cpu_share, memory_bytes_peak };
    }
    Ok((Some(sizes), environment))
}

impl Change {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it makes worse.
    pub fn worsens(self) -> Option<Metric> {
        match self {
            Self::Same => None,
            Self::P50 | Self::Sync => Some(Metric::ResponseTimeP50),
            Self::Cpu5 | Self::Cpu10 | Self::Cpu20 => Some(Metric::CpuPerEvent),
            Self::P99 => Some(Metric::ResponseTimeP99),
            Self::Query => Some(Metric::IdleSql),
            Self::Memory => Some(Metric::MemoryPeak),
        }
    }

    /// For people.
    fn title(self) -> &'static str {
        match self {
            Self::Same => "the same program",
            Self::P50 => "10 % of p50 on every request",
            Self::Cpu5 => "5 % CPU a request",
            Self::Cpu10 => "10 % CPU a request",
            Self::Cpu20 => "20 % CPU a request",
            Self::P99 => "0.3 ms on 2 % of requests",
            Self::Sync => "one more sync a batch (journal-first)",
            Self::Query => "one more query a poll",
            Self::Memory => "20 % memory",
        }
    }

    fn fault(self, sizes: Sizes) -> Option<String> {
        let fixed = |fault: &str| Some(fault.to_owned());
        match self {
            Self::Same => None,
            Self::P50 => Some(cpu_share(sizes.tenth_of_p50_cpu_share)),
            Self::Cpu5 => fixed("cpu=5%"),
            Self::Cpu10 => fixed("cpu=10%"),
            Self::Cpu20 => fixed("cpu=20%"),
            Self::P99 => fixed("ack-delay=300us:0.02"),
            Self::Sync => fixed("journal-sync=1"),
            Self::Query => fixed("poll-query=1"),
            Self::Memory => {
                let fifth_mib = (sizes.memory_bytes_peak / 5.0 / f64::from(1 << 20)).round().max(1.0);
                Some(format!("ballast={fifth_mib}MiB"))
            }
        }
    }

    /// Whether the size of its fault is measured first.
    fn is_sized(self) -> bool {
        matches!(self, Self::P50 | Self::Memory)
    }

    fn trial(self, mode: &str, sizes: Sizes) -> Trial {
        Trial {
            name: self.title().to_owned(),
            mode: if self == Self::Sync { "journal-first" } else { mode }.to_owned(),
            faults: self.fault(sizes).into_iter().collect(),
            worsens: self.worsens(),
            must_be_found: !matches!(self, Self::Same | Self::Cpu5 | Self::Cpu10),
            decisions: Vec::new(),
        }
    }

    /// Whether it is decided on: of what nobody asked to be watched nothing can be found.
    fn is_wanted(self, chosen: &[Self], gated: &[Gated]) -> bool {
        let is_watched = |metric| gated.iter().any(|gated| gated.metric == metric);
        (chosen.is_empty() || chosen.contains(&self)) && self.worsens().is_none_or(is_watched)
    }
}

fn side(name: &'static str, mode: &str, wish: &Wish, faults: &[String]) -> Result<Side, SideError> {
    Side::of(name, None, faults, (mode, &wish.server.1))
}

/// The fault that takes this share more processor time.
fn cpu_share(share: f64) -> String {
    format!("cpu={:.1}%", 100.0 * share)
}

/// The reference server against itself with these faults.
fn wanted(wish: &Wish, mode: &str, faults: &[String], rule: Rule) -> Result<Wanted, SideError> {
    let (baseline, candidate) = (side("baseline", mode, wish, &[])?, side("candidate", mode, wish, faults)?);
    let plan =
        Plan { variants: vec![baseline.variant.clone(), candidate.variant.clone()], ..wish.resolved.plan.clone() };
    let resolved = Resolved { plan, ..wish.resolved.clone() };
    let rule = Rule { identical_allowed: true, ..rule };
    Ok(Wanted { resolved, capacity: wish.capacity, baseline, candidate, rule, stored: None })
}

/// One gate run of many, that only the whole tells of.
fn part_of(context: &Context, part: &str) -> Context {
    Context { run_id: format!("{}.{part}", context.run_id), quiet: true, ..context.clone() }
}

async fn decide(wish: &Wish, trial: &Trial, number: u32, context: &Context) -> Result<Decision, SideError> {
    // Far apart, since the order of the sides takes the seeds that follow.
    let seed = wish.rule.seed.wrapping_add(u64::from(number) << 20);
    let wanted = wanted(wish, &trial.mode, &trial.faults, Rule { seed, ..wish.rule.clone() })?;
    let gate = run(&wanted, &part_of(context, &number.to_string())).await;
    let mut decision = Decision::of(gate);
    if context.is_stopped() {
        // It did not end.
        decision.outcome = GateOutcome::Invalid;
    }
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(worsens: Option<Metric>, made: usize) -> Trial {
        let decision = Decision {
            faults: Vec::new(),
            outcome: GateOutcome::Pass,
            look: 1,
            flagged: Vec::new(),
            regressed: Vec::new(),
            inconclusive: Vec::new(),
            seconds: 1.0,
            reasons: Vec::new(),
            worse_by: Vec::new(),
            pairs: Vec::new(),
            pairs_again: Vec::new(),
        };
        let (name, mode) = (String::new(), String::new());
        Trial { name, mode, faults: Vec::new(), worsens, must_be_found: false, decisions: vec![decision; made] }
    }

    #[test]
    fn the_trial_that_is_furthest_behind_its_share_is_next_until_none_is() {
        let worse = Some(Metric::CpuPerEvent);
        for (same, slower, expected) in
            [(0, 0, Some(0)), (1, 0, Some(1)), (6, 1, Some(0)), (24, 1, Some(1)), (23, 2, Some(0)), (24, 2, None)]
        {
            let trials = [trial(None, same), trial(worse, slower)];
            assert_eq!(furthest_behind(&trials, 24, |_| true), expected, "{same} and {slower}");
            let slower_alone = (slower < 2).then_some(1);
            assert_eq!(furthest_behind(&trials, 24, |trial| trial.worsens.is_some()), slower_alone, "{slower} alone");
        }
    }

    #[test]
    fn what_is_decided_on_is_what_was_chosen_and_is_gated() {
        let gated = [Gated { metric: Metric::ResponseTimeP50, margin: 0.05, required: true }];
        for (change, chosen, expected) in [
            (Change::Same, &[][..], true),
            (Change::P50, &[], true),
            (Change::P99, &[], false),
            (Change::P50, &[Change::P50], true),
            (Change::Same, &[Change::P50], false),
            (Change::P99, &[Change::P99], false),
        ] {
            assert_eq!(change.is_wanted(chosen, &gated), expected, "{change:?} of {chosen:?}");
        }
    }

    #[test]
    fn each_change_has_a_name_and_a_fault_of_its_own() {
        let sizes = Sizes { tenth_of_p50_cpu_share: 0.1149, memory_bytes_peak: 30e6 };
        let trials: Vec<Trial> =
            Change::value_variants().iter().map(|change| change.trial("cache-first", sizes)).collect();
        for (at, trial) in trials.iter().enumerate() {
            assert!(
                trials[..at].iter().all(|other| !other.is_like(trial) && other.faults != trial.faults),
                "{trial:?}"
            );
        }
        assert_eq!(Change::Cpu20.name(), "cpu-20");
        assert_eq!(
            (&trials[1].faults[..], &trials[8].faults[..]),
            (&["cpu=11.5%".to_owned()][..], &["ballast=6MiB".to_owned()][..])
        );
    }
}
