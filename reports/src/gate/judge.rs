//! From pairs of rounds to verdicts: what is said of each metric at a look, whether to go on, and what follows in all.
//!
//! The order: a candidate that loses, doubles or alters events has regressed, whatever the rest says; then what makes the gate say nothing;
//! then what regressed; then what is open; else it passes. Nothing that is missing, no number, or too little ever passes.

use super::metric::worse_by;
use super::model::{
    Confirmation, Gate, GateOutcome, GateVerdict, Gated, Look, Metric, MetricResult, Order, Pair, Round, Rule, Side,
};
use super::rank;
use crate::format;
use crate::stats;
use crate::verdict::NOT_ACCEPTED_SHARE_MAX;

impl GateOutcome {
    /// The documented exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass | Self::Improved => 0,
            Self::Regressed => 3,
            Self::Inconclusive => 4,
            Self::Invalid => 5,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Regressed => "regressed",
            Self::Improved => "improved",
            Self::Inconclusive => "inconclusive",
            Self::Invalid => "invalid",
        }
    }

    /// Whether it says that the candidate is not worse.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::Improved)
    }
}

impl Side {
    /// Whether it is the same program, started the same way: comparing the two can only show that the gate works.
    pub fn is_same_as(&self, other: &Self) -> bool {
        // The program itself may lie in two places; of what is started by a profile only the profile's place is known.
        let flags = |side: &Self| side.command.get(1..).unwrap_or_default().to_vec();
        let is_same_program = match (&self.program_sha256, &other.program_sha256) {
            (Some(one), Some(other)) => one == other,
            _ => self.command.first() == other.command.first(),
        };
        is_same_program && flags(self) == flags(other) && self.faults == other.faults
    }
}

/// Whether two rules differ in nothing but the seed.
pub fn is_same_rule(one: &Rule, other: &Rule) -> bool {
    Rule { seed: 0, ..one.clone() } == Rule { seed: 0, ..other.clone() }
}

/// One of the two rounds of a pair.
type Of = fn(&Pair) -> &Round;

/// What to do after the pairs so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run one more.
    Run {
        /// Which side begins.
        order: Order,
        /// Seed of the load of both.
        seed: u64,
    },
    /// Nothing more can change the decision, or nothing more may be run.
    Stop,
}

/// What to do after the pairs so far. A look is taken when exactly its number of pairs counts, and at no other time.
pub fn next(rule: &Rule, pairs: &[Pair]) -> Next {
    let used = used(pairs);
    let place = used.len() as u32;
    let is_at_a_look = pairs.last().is_some_and(|pair| pair.left_out.is_none());
    let look = rule.looks.iter().find(|look| look.pairs == place && is_at_a_look);
    let is_decided = look.is_some_and(|look| is_decided(&judge(rule, &used, *look)));
    let says_nothing = |round: &Round| round.failure.is_some() || round.accepted == 0;
    let has_ended = pairs.last().is_some_and(|pair| {
        says_nothing(&pair.baseline) || says_nothing(&pair.candidate) || wrong(&pair.candidate) > 0
    });
    let pairs_max = rule.pairs() + rule.pairs_extra_max;
    let all_run = place >= rule.pairs() || pairs.len() as u32 >= pairs_max;
    // Even if all that may still be run counted.
    let too_few = pairs_max - (pairs.len() as u32).min(pairs_max) + place < rule.pairs_used_min();
    if is_decided || has_ended || all_run || too_few {
        return Next::Stop;
    }
    let (order, seed) = rule.order(place);
    Next::Run { order, seed }
}

fn is_decided(metrics: &[MetricResult]) -> bool {
    let outcomes = || metrics.iter().filter_map(|result| result.outcome);
    outcomes().any(|outcome| matches!(outcome, GateOutcome::Regressed | GateOutcome::Invalid))
        || outcomes().all(GateOutcome::is_good)
}

/// The pairs that count.
pub fn used(pairs: &[Pair]) -> Vec<&Pair> {
    pairs.iter().filter(|pair| pair.left_out.is_none()).collect()
}

/// Events that were acknowledged and then not kept once, as sent.
fn wrong(round: &Round) -> u64 {
    round.lost + round.duplicated + round.corrupted
}

/// What a look at these pairs says of each metric: the gated ones in the order of the rule, then the others that were measured.
pub fn judge(rule: &Rule, pairs: &[&Pair], look: Look) -> Vec<MetricResult> {
    let mut results: Vec<MetricResult> = rule.gated.iter().map(|gated| describe(*gated, true, pairs, look)).collect();
    let tested: Vec<usize> = (0..results.len()).filter(|at| results[*at].p_worse.is_some()).collect();
    let p_values: Vec<f64> = tested.iter().filter_map(|at| results[*at].p_worse).collect();
    for (at, p) in tested.into_iter().zip(rank::adjusted(&p_values)) {
        results[at].p_worse_adjusted = Some(p);
    }
    for result in &mut results {
        result.outcome = Some(outcome(result, pairs, look.alpha));
    }
    let others = Metric::ALL.into_iter().filter(|metric| rule.gated.iter().all(|gated| gated.metric != *metric));
    let others = others.map(|metric| describe(Gated { required: false, ..metric.gated() }, false, pairs, look));
    results.extend(others.filter(|result| result.pairs > 0));
    results
}

fn outcome(result: &MetricResult, pairs: &[&Pair], alpha: f64) -> GateOutcome {
    let (Some(p_worse), Some(p_not_worse)) = (result.p_worse_adjusted, result.p_not_worse) else {
        return GateOutcome::Invalid;
    };
    let is_adequate =
        |pair: &&Pair| result.metric.is_adequate(&pair.baseline) && result.metric.is_adequate(&pair.candidate);
    if !pairs.iter().all(is_adequate) {
        return GateOutcome::Inconclusive;
    }
    if p_worse <= alpha {
        return GateOutcome::Regressed;
    }
    let better_than = share_ln(-result.margin);
    match p_not_worse <= alpha {
        true if result.worse_by_high.is_some_and(|high| high.ln_1p() < better_than) => GateOutcome::Improved,
        true => GateOutcome::Pass,
        false => GateOutcome::Inconclusive,
    }
}

/// A margin as a log ratio: as far for the better as for the worse.
fn share_ln(share: f64) -> f64 {
    share.signum() * share.abs().ln_1p()
}

/// Everything about a metric but the verdict. A metric that a pair lacks has no tests.
fn describe(gated: Gated, is_gated: bool, pairs: &[&Pair], look: Look) -> MetricResult {
    let Gated { metric, margin, required } = gated;
    let values = |pair: &&Pair| Some((metric.value(&pair.baseline)?, metric.value(&pair.candidate)?));
    let found: Vec<(&Pair, f64)> = pairs
        .iter()
        .filter_map(|pair| values(pair).map(|(baseline, candidate)| (*pair, metric.ratio_ln(baseline, candidate))))
        .collect();
    let ratios_ln: Vec<f64> = found.iter().map(|(_, ratio_ln)| *ratio_ln).collect();
    let is_complete = !ratios_ln.is_empty() && ratios_ln.len() == pairs.len();
    let margin_ln = share_ln(margin);
    let beyond = |sign: f64| ratios_ln.iter().map(|ratio_ln| sign * (ratio_ln - margin_ln)).collect::<Vec<_>>();
    let (low, high) = rank::interval(&ratios_ln, look.alpha);
    let share = |ratio_ln: f64| ratio_ln.is_finite().then(|| ratio_ln.exp_m1());
    let side = |of: Of| stats::median(&pairs.iter().filter_map(|pair| metric.value(of(pair))).collect::<Vec<_>>());
    let mut result = MetricResult {
        metric,
        gated: is_gated,
        required,
        margin,
        outcome: None,
        baseline: side(|pair| &pair.baseline),
        candidate: side(|pair| &pair.candidate),
        worse_by: rank::estimate(&ratios_ln).and_then(share),
        worse_by_low: share(low),
        worse_by_high: share(high),
        confidence: 1.0 - 2.0 * look.alpha,
        p_worse: (is_gated && is_complete).then(|| rank::p_greater(&beyond(1.0))),
        p_worse_adjusted: None,
        p_not_worse: (is_gated && is_complete).then(|| rank::p_greater(&beyond(-1.0))),
        pairs: found.len() as u32,
        order_effect_ln: order_effect_ln(&found),
        drift: rank::spearman(&found.iter().map(|(pair, d)| (f64::from(pair.number), *d)).collect::<Vec<_>>()),
        ratios_ln,
        notes: Vec::new(),
    };
    result.notes = notes(&result, pairs);
    result
}

fn order_effect_ln(found: &[(&Pair, f64)]) -> Option<f64> {
    let mean = |order: Order| {
        let of: Vec<f64> = found.iter().filter(|(pair, _)| pair.order == order).map(|(_, d)| *d).collect();
        (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64)
    };
    Some((mean(Order::BaselineFirst)? - mean(Order::CandidateFirst)?) / 2.0)
}

/// Correlation with the number of the pair beyond which it is told: p < 0.01 of 20 pairs.
const DRIFT_TOLD_MIN: f64 = 0.57;

fn notes(result: &MetricResult, pairs: &[&Pair]) -> Vec<String> {
    let mut notes = Vec::new();
    let missing = pairs.len() - result.pairs as usize;
    if missing > 0 {
        notes.push(format!("{missing} of {} pairs have no number for it", pairs.len()));
    }
    let metric = result.metric;
    let inadequate = |pair: &&&Pair| !metric.is_adequate(&pair.baseline) || !metric.is_adequate(&pair.candidate);
    if let Some((pair, q)) = pairs.iter().find(inadequate).zip(metric.quantile()) {
        let needed = (stats::SAMPLES_BEYOND_TO_JUDGE as f64 / (1.0 - q)).round() as u64;
        notes.push(format!(
            "a round needs {} samples to judge it, all of them whole, and one has {}: raise --rate or --duration",
            format::count(needed),
            format::count(pair.baseline.samples.min(pair.candidate.samples))
        ));
    }
    let effect = result.order_effect_ln.filter(|effect| effect.abs() > share_ln(result.margin) / 2.0);
    if let Some(effect) = effect {
        let which = if effect > 0.0 { "second" } else { "first" };
        notes.push(format!(
            "whoever runs {which} is {} worse off; the order is balanced",
            format::percent(effect.abs().exp_m1())
        ));
    }
    if result.pairs >= 10 && result.drift.is_some_and(|drift| drift.abs() > DRIFT_TOLD_MIN) {
        notes.push("the ratio drifts from the first pair to the last: the pairs are not alike".to_owned());
    }
    notes
}

/// The look that these pairs have come to, and its number (1-based). The last one also when no more pairs may be run and enough count.
fn look_reached(rule: &Rule, pairs: &[Pair]) -> Option<(u32, Look)> {
    let place = used(pairs).len() as u32;
    let is_exhausted = pairs.len() as u32 >= rule.pairs() + rule.pairs_extra_max;
    let last = rule.looks.len();
    let reached = |at: usize, look: &Look| {
        place == look.pairs || at + 1 == last && is_exhausted && place >= rule.pairs_used_min() && place <= look.pairs
    };
    rule.looks.iter().enumerate().find(|(at, look)| reached(*at, look)).map(|(at, look)| (at as u32 + 1, *look))
}

/// The gated metrics that these pairs say have regressed.
pub fn flagged(rule: &Rule, pairs: &[Pair]) -> Vec<Gated> {
    let Some((_, look)) = look_reached(rule, pairs) else { return Vec::new() };
    let results = judge(rule, &used(pairs), look);
    let regressed =
        |metric| results.iter().any(|result| result.metric == metric && result.outcome == Some(GateOutcome::Regressed));
    rule.gated.iter().copied().filter(|gated| regressed(gated.metric)).collect()
}

/// The fresh repetition of what was flagged, judged.
pub fn confirmation(rule: &Rule, flagged: &[Gated], pairs: Vec<Pair>) -> Confirmation {
    let metrics = match look_reached(rule, &pairs) {
        Some((_, look)) => judge(rule, &used(&pairs), look).into_iter().filter(|result| result.gated).collect(),
        None => Vec::new(),
    };
    Confirmation { flagged: flagged.iter().map(|gated| gated.metric).collect(), pairs, metrics }
}

/// Fills in what follows from the rest.
pub fn conclude(gate: &mut Gate) {
    let reached = look_reached(&gate.rule, &gate.pairs);
    let look = reached.or_else(|| gate.rule.looks.last().map(|look| (0, *look)));
    let used = used(&gate.pairs);
    gate.metrics = look.map(|(_, look)| judge(&gate.rule, &used, look)).unwrap_or_default();
    if let Some(confirmation) = &gate.confirmation {
        confirm(&mut gate.metrics, confirmation);
    }
    let pairs_used = used.len() as u32;
    let (outcome, reasons) = decide(gate, reached.is_some());
    gate.verdict = GateVerdict {
        outcome,
        reasons,
        exit_code: outcome.exit_code(),
        look: reached.map_or(0, |(number, _)| number),
        pairs_used,
        pairs_left_out: gate.pairs.len() as u32 - pairs_used,
    };
}

/// A regression that fresh rounds do not show again is none, and no pass either.
fn confirm(metrics: &mut [MetricResult], confirmation: &Confirmation) {
    let again = |metric| confirmation.metrics.iter().find(|result| result.metric == metric);
    for result in metrics.iter_mut().filter(|result| confirmation.flagged.contains(&result.metric)) {
        let (found, is_confirmed) = match again(result.metric) {
            Some(again) => (
                again.worse_by.map_or_else(|| format::UNKNOWN.to_owned(), worse_by),
                again.outcome == Some(GateOutcome::Regressed),
            ),
            None => (format::UNKNOWN.to_owned(), false),
        };
        result.notes.push(match is_confirmed {
            true => format!("a fresh repetition confirms it: {found}"),
            false => format!("a fresh repetition does not confirm it: {found}"),
        });
        if !is_confirmed {
            result.outcome = Some(GateOutcome::Inconclusive);
        }
    }
}

fn decide(gate: &Gate, is_look_reached: bool) -> (GateOutcome, Vec<String>) {
    let proven = proven(gate);
    if !proven.is_empty() {
        return (GateOutcome::Regressed, proven);
    }
    let invalid = invalid(gate, is_look_reached);
    if !invalid.is_empty() {
        return (GateOutcome::Invalid, invalid);
    }
    let gated = || gate.metrics.iter().filter(|result| result.gated);
    let with = |outcome: GateOutcome| gated().filter(move |result| result.outcome == Some(outcome)).map(sentence);
    let said: Vec<String> = baseline_at_fault(gate);
    let regressed: Vec<String> = with(GateOutcome::Regressed).collect();
    let open: Vec<String> = with(GateOutcome::Inconclusive).chain(unverified(gate)).collect();
    let better: Vec<String> = with(GateOutcome::Improved).collect();
    let good: Vec<String> = better.iter().cloned().chain(with(GateOutcome::Pass)).collect();
    let is_open = gated().any(|result| result.required && result.outcome == Some(GateOutcome::Inconclusive))
        || unverified(gate).is_some();
    let outcome = if !regressed.is_empty() {
        GateOutcome::Regressed
    } else if is_open {
        GateOutcome::Inconclusive
    } else if !better.is_empty() {
        GateOutcome::Improved
    } else {
        GateOutcome::Pass
    };
    (outcome, [regressed, open, said, good].concat())
}

/// What the candidate does that needs no statistics.
fn proven(gate: &Gate) -> Vec<String> {
    let mut reasons = Vec::new();
    let faults = |of: Of| faults(gate, of);
    if let Some(found) = faults(|pair| &pair.candidate) {
        reasons.push(format!("the candidate {found}"));
        reasons.extend(faults(|pair| &pair.baseline).map(|found| format!("the baseline {found}, too")));
    }
    let (baseline, candidate) = (not_accepted(gate, |pair| &pair.baseline), not_accepted(gate, |pair| &pair.candidate));
    let always_accepted_some = used(&gate.pairs).iter().all(|pair| pair.candidate.accepted > 0);
    if baseline <= NOT_ACCEPTED_SHARE_MAX && candidate > NOT_ACCEPTED_SHARE_MAX && always_accepted_some {
        let (baseline, candidate) = (format::percent(baseline), format::percent(candidate));
        reasons.push(format!("the candidate does not accept {candidate} of the events, the baseline {baseline}"));
    }
    reasons
}

/// Losses and the like of one side, in all pairs: what is left out because the machine was busy is lost all the same.
fn faults(gate: &Gate, of: Of) -> Option<String> {
    let confirming = gate.confirmation.iter().flat_map(|confirmation| &confirmation.pairs);
    let rounds: Vec<&Round> = gate.pairs.iter().chain(confirming).map(of).collect();
    let sum = |read: fn(&Round) -> u64| rounds.iter().map(|round| read(round)).sum::<u64>();
    if sum(wrong) == 0 {
        return None;
    }
    let acknowledged = format::counted(sum(|round| round.acknowledged.unwrap_or(0)), "acknowledged event");
    let part = |n: u64, what: &str| (n > 0).then(|| format!("{what} {}", format::count(n)));
    let parts = [
        part(sum(|round| round.lost), "lost"),
        part(sum(|round| round.duplicated), "duplicated"),
        part(sum(|round| round.corrupted), "altered"),
    ];
    Some(format!("{} of {acknowledged}", parts.into_iter().flatten().collect::<Vec<_>>().join(", ")))
}

fn baseline_at_fault(gate: &Gate) -> Vec<String> {
    faults(gate, |pair| &pair.baseline)
        .map(|found| format!("the baseline {found}; the candidate none"))
        .into_iter()
        .collect()
}

/// Share of the planned events of one side that were not accepted.
fn not_accepted(gate: &Gate, of: Of) -> f64 {
    let sum = |read: fn(&Round) -> u64| used(&gate.pairs).into_iter().map(|pair| read(of(pair))).sum::<u64>();
    let planned = sum(|round| round.planned);
    if planned == 0 { 0.0 } else { 1.0 - sum(|round| round.accepted.min(round.planned)) as f64 / planned as f64 }
}

/// What makes the gate say nothing.
fn invalid(gate: &Gate, is_look_reached: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if gate.interrupted {
        reasons.push("interrupted before its end".to_owned());
    }
    if gate.rule.gated.is_empty() {
        reasons.push("nothing is gated".to_owned());
    }
    // Against a file it is a fair question whether the machine is still the same.
    if gate.stored_baseline.is_none() && gate.baseline.is_same_as(&gate.candidate) && !gate.rule.identical_allowed {
        reasons.push("baseline and candidate are the same program with the same flags: nothing is compared".to_owned());
    }
    for (name, of) in SIDES {
        let rounds = || gate.pairs.iter().map(of);
        reasons.extend(rounds().find_map(|round| round.failure.as_ref()).map(|why| format!("the {name}: {why}")));
        if rounds().any(|round| round.accepted == 0 && round.failure.is_none()) {
            reasons.push(format!("the {name} accepted no event in a round"));
        }
        let share = not_accepted(gate, of);
        if share > NOT_ACCEPTED_SHARE_MAX && share < 1.0 {
            reasons.push(format!("the {name} did not accept {} of the events", format::percent(share)));
        }
    }
    reasons.extend(falls_behind(gate));
    if !is_look_reached && reasons.is_empty() {
        reasons.push(too_few_pairs(gate));
    }
    if reasons.is_empty() {
        let without = gate.metrics.iter().filter(|result| result.outcome == Some(GateOutcome::Invalid));
        reasons.extend(without.map(|result| {
            let why = result.notes.first().map_or("there are no numbers", String::as_str);
            let name = result.metric.name();
            format!("{}: {why}; leave {name} out of --metric where it cannot be measured", result.metric.title())
        }));
    }
    reasons
}

/// Below this share of the offered rate, a baseline is overloaded: its response times are those of a queue that grows for as long as it is let.
const ACHIEVED_SHARE_MIN: f64 = 0.9;

/// A baseline that cannot do what is offered to it. (A candidate that cannot, where the baseline can, shows in every metric.)
fn falls_behind(gate: &Gate) -> Option<String> {
    let shares: Vec<f64> = used(&gate.pairs).into_iter().filter_map(|pair| pair.baseline.achieved_share).collect();
    let share = stats::median(&shares).filter(|share| *share < ACHIEVED_SHARE_MIN)?;
    Some(format!("the baseline does {} of the rate that is offered: lower --rate", format::percent(share)))
}

const SIDES: [(&str, Of); 2] = [("baseline", |pair| &pair.baseline), ("candidate", |pair| &pair.candidate)];

fn too_few_pairs(gate: &Gate) -> String {
    let used = used(&gate.pairs).len();
    let left_out: Vec<&String> = gate.pairs.iter().filter_map(|pair| pair.left_out.as_ref()).collect();
    let last = left_out.last().map(|why| format!("; the last one because {why}")).unwrap_or_default();
    format!(
        "{used} of {} pairs that were run count, and {} were needed: {} left out as spoiled by the machine{last}",
        gate.pairs.len(),
        gate.rule.pairs_used_min(),
        left_out.len()
    )
}

/// What nobody looked at.
fn unverified(gate: &Gate) -> Option<String> {
    let candidates = || used(&gate.pairs).into_iter().map(|pair| &pair.candidate);
    if gate.plan.ledger && candidates().any(|round| round.acknowledged.is_none()) {
        return Some("what the candidate persisted could not be read, so losses would not have been seen".to_owned());
    }
    let unverified: u64 = candidates().map(|round| round.unverified).sum();
    (unverified > 0).then(|| format!("{} of the candidate could not be verified", format::counted(unverified, "event")))
}

/// A metric in words.
pub fn sentence(result: &MetricResult) -> String {
    let found = result.worse_by.map_or_else(|| "not measured".to_owned(), worse_by);
    let bound = |share: Option<f64>| share.map_or_else(|| format::UNKNOWN.to_owned(), signed);
    let note = result.notes.first().map(|note| format!("; {note}")).unwrap_or_default();
    format!(
        "{}: {found} ({} to {}), allowed {}{note}",
        result.metric.title(),
        bound(result.worse_by_low),
        bound(result.worse_by_high),
        signed(result.margin)
    )
}

/// `+5.2 %`, `−3 %`.
pub fn signed(share: f64) -> String {
    let sign = if share > 0.0 { "+" } else { "" };
    format!("{sign}{}", format::percent(share))
}
