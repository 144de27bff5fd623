//! `loadgen gate`: whether a change made a server worse. Runs the pairs of rounds that [`reports::gate`] asks for, and lets it judge them.
//!
//! [`asked`] has the flags, [`side`] the two things that are compared, [`round`] what is measured of one of them; [`self_test`] tests the gate
//! itself.

use std::time::Duration;

use reports::format;
use reports::gate::judge::{self, Next};
use reports::gate::model::{Gate, GateOutcome, GateVerdict, Order, Pair, Round, Rule, SCHEMA};
use tokio::time::Instant;

use crate::measure::{self, Context};
use crate::observe::machine;
use crate::plan::Resolved;
use crate::progress::Progress;
use round::{Measured, Rounds};
use side::Side;

pub mod asked;
pub mod round;
pub mod self_test;
pub mod side;

/// Starting, reading the ledger and stopping, per phase of a round.
const OVERHEAD_EXPECTED: Duration = Duration::from_millis(600);

/// What is compared, and how.
#[derive(Debug)]
pub struct Wanted {
    /// The load of every round.
    pub resolved: Resolved,
    /// Length of the closed loop of a round.
    pub capacity: Duration,
    /// What there was.
    pub baseline: Side,
    /// What there is now.
    pub candidate: Side,
    /// By which rule.
    pub rule: Rule,
    /// Rounds of a baseline that was measured before; `None`: it is measured now.
    pub stored: Option<Stored>,
}

/// A baseline from a file.
#[derive(Debug)]
pub struct Stored {
    /// The file.
    pub path: String,
    /// Its rounds, at least as many as pairs are wanted.
    pub rounds: Vec<Round>,
}

impl Wanted {
    /// How long one pair takes, roughly.
    pub fn pair_duration(&self) -> Duration {
        let plan = &self.resolved.plan;
        let open = Duration::from_millis(plan.warmup_ms + plan.duration_ms + plan.idle_ms) + OVERHEAD_EXPECTED;
        let closed = if self.capacity.is_zero() { Duration::ZERO } else { self.capacity + OVERHEAD_EXPECTED };
        (open + closed) * if self.stored.is_some() { 1 } else { 2 }
    }

    /// Whether both sides are one program, started the same way: what says nothing anyway is not measured.
    pub fn is_vain(&self) -> bool {
        self.stored.is_none() && self.baseline.shown.is_same_as(&self.candidate.shown) && !self.rule.identical_allowed
    }

    /// How long it takes without a regression and without spoiled pairs, roughly, at most.
    pub fn expected_duration(&self) -> Duration {
        self.pair_duration() * self.rule.pairs()
    }
}

/// What is known once a round was run.
#[derive(Debug, Default)]
pub struct Found {
    environment: Option<reports::model::Environment>,
    versions: [Option<String>; 2],
}

/// Runs as many pairs as it takes, asks again for a regression, and judges. Must be awaited on a `LocalSet`.
pub async fn run(wanted: &Wanted, context: &Context) -> Gate {
    let (begin, started_at) = (Instant::now(), jiff::Timestamp::now().to_string());
    let progress = Progress::start(wanted.expected_duration(), context.quiet);
    let silence = Progress::start(Duration::ZERO, true);
    let rounds = Rounds { resolved: &wanted.resolved, capacity: wanted.capacity, context, progress: &silence };
    progress.phase("pair 1", "measuring", None);
    let mut pairing = Pairing { wanted, rounds, progress: &progress, found: Found::default() };
    let pairs = if wanted.is_vain() { Vec::new() } else { pairing.run(&wanted.rule, "").await };
    let flagged = judge::flagged(&wanted.rule, &pairs);
    let confirmation = match wanted.rule.confirm && !flagged.is_empty() && !context.is_stopped() {
        true => {
            let names: Vec<&str> = flagged.iter().map(|gated| gated.metric.name()).collect();
            progress.say(&format!("{} regressed; once more, with fresh rounds, to be sure", names.join(", ")));
            let again = wanted.rule.of_confirmation(&flagged);
            Some(judge::confirmation(&again, &flagged, pairing.run(&again, "c").await))
        }
        false => None,
    };
    let Found { environment, versions: [baseline_version, candidate_version] } = pairing.found;
    let mut gate = Gate {
        schema: SCHEMA.to_owned(),
        gate_id: context.run_id.clone(),
        tool: measure::tool(),
        command: context.command.clone(),
        started_at,
        seconds: begin.elapsed().as_secs_f64(),
        interrupted: context.is_stopped(),
        environment: environment.unwrap_or_else(|| machine::environment(true, None, wanted.resolved.plan.pacing)),
        baseline: reports::gate::model::Side { version: baseline_version, ..wanted.baseline.shown.clone() },
        candidate: reports::gate::model::Side { version: candidate_version, ..wanted.candidate.shown.clone() },
        plan: wanted.resolved.plan.clone(),
        capacity_ms: wanted.capacity.as_millis() as u64,
        rule: wanted.rule.clone(),
        pairs,
        confirmation,
        stored_baseline: wanted.stored.as_ref().map(|stored| stored.path.clone()),
        metrics: Vec::new(),
        verdict: GateVerdict {
            outcome: GateOutcome::Invalid,
            reasons: Vec::new(),
            exit_code: GateOutcome::Invalid.exit_code(),
            look: 0,
            pairs_used: 0,
            pairs_left_out: 0,
        },
    };
    judge::conclude(&mut gate);
    gate
}

/// Runs pairs.
#[derive(Debug)]
struct Pairing<'a> {
    wanted: &'a Wanted,
    rounds: Rounds<'a>,
    progress: &'a Progress,
    found: Found,
}

impl Pairing<'_> {
    /// As many as `rule` wants. `series` tells its names of events from those of another series.
    async fn run(&mut self, rule: &Rule, series: &str) -> Vec<Pair> {
        let mut pairs = Vec::new();
        while let Next::Run { order, seed } = judge::next(rule, &pairs) {
            if self.rounds.context.is_stopped() {
                break;
            }
            let (number, place) = (pairs.len() as u32 + 1, judge::used(&pairs).len());
            self.progress.step(&format!("pair {number} of {}", rule.pairs()));
            let pair = match self.wanted.stored.as_ref().and_then(|stored| stored.rounds.get(place)) {
                Some(stored) => self.pair_with(stored.clone(), number, seed, rule).await,
                None => self.pair(number, (order, seed), rule, series).await,
            };
            self.progress.say(&told(&pair, rule));
            pairs.push(pair);
        }
        pairs
    }

    /// With a round that was measured before.
    async fn pair_with(&mut self, baseline: Round, number: u32, seed: u64, rule: &Rule) -> Pair {
        let candidate = self.rounds.measure(&self.wanted.candidate, seed, &number.to_string()).await;
        self.found.note(None, &candidate);
        let left_out = rule.spoiled.why(&baseline, &candidate.round);
        Pair { number, order: Order::Stored, seed, left_out, baseline, candidate: candidate.round }
    }

    async fn pair(&mut self, number: u32, (order, seed): (Order, u64), rule: &Rule, series: &str) -> Pair {
        let name = |side: &str| format!("{series}{number}{side}");
        let (baseline, candidate) = (&self.wanted.baseline, &self.wanted.candidate);
        let (baseline, candidate) = match order {
            Order::CandidateFirst => {
                let candidate = self.rounds.measure(candidate, seed, &name("b")).await;
                (self.rounds.measure(baseline, seed, &name("a")).await, candidate)
            }
            _ => {
                let baseline = self.rounds.measure(baseline, seed, &name("a")).await;
                (baseline, self.rounds.measure(candidate, seed, &name("b")).await)
            }
        };
        self.found.note(Some(&baseline), &candidate);
        let left_out = rule.spoiled.why(&baseline.round, &candidate.round);
        Pair { number, order, seed, left_out, baseline: baseline.round, candidate: candidate.round }
    }
}

impl Found {
    fn note(&mut self, baseline: Option<&Measured>, candidate: &Measured) {
        self.environment.get_or_insert_with(|| candidate.environment.clone());
        for (known, measured) in self.versions.iter_mut().zip([baseline, Some(candidate)]) {
            if let (None, Some(measured)) = (&known, measured) {
                known.clone_from(&measured.version);
            }
        }
    }
}

/// One line on a pair.
fn told(pair: &Pair, rule: &Rule) -> String {
    let ratio = |metric: reports::gate::model::Metric| {
        let (baseline, candidate) = (metric.value(&pair.baseline)?, metric.value(&pair.candidate)?);
        Some(format!("{} {}", metric.name(), judge::signed(metric.ratio_ln(baseline, candidate).exp_m1())))
    };
    let ratios: Vec<String> = rule.gated.iter().filter_map(|gated| ratio(gated.metric)).collect();
    let why = pair.left_out.as_ref().map(|why| format!(" · left out: {why}")).unwrap_or_default();
    let failure = [&pair.baseline, &pair.candidate].into_iter().find_map(|round| round.failure.as_ref());
    let failure = failure.map(|why| format!(" · failed: {why}")).unwrap_or_default();
    format!("pair {} of {}: {}{why}{failure}", format::count(u64::from(pair.number)), rule.pairs(), ratios.join(", "))
}
