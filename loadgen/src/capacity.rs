//! `loadgen capacity`: the highest rate at which the objectives hold, nothing is lost and the backlog stays bounded.
//!
//! Each trial is one repetition with a plan of its own, on a fresh server, so that none inherits what another left behind. Which rate comes
//! next is [`crate::search`]'s; whether a trial holds, and what follows from it, is [`reports::capacity`]'s.

use std::time::Duration;

use reports::capacity::{self, knee, samples_needed};
use reports::format;
use reports::model::{Capacity, CapacityTrial, Caveat, CaveatKind, Plan, Run, TrialStage, Variant};
use reports::objective::{self, Bound};

use crate::calibrate;
use crate::measure::{Context, Findings, Measurement};
use crate::plan::Resolved;
use crate::progress::Progress;
use crate::search::{Bounds, End, Search, Stage, Step};

/// No trial is longer, whatever its objectives need.
const PROBE_MAX: Duration = Duration::from_secs(60);
/// More samples than the objectives need, so that an unlucky draw has enough, too.
const SAMPLES_MARGIN: f64 = 1.1;
/// So many trials in a row that the generator could not offer make it the limit: a stall passes, a limit stays.
const SATURATED_MAX: u32 = 4;
/// What a search takes that ends in the middle of its bounds, beside its confirmations.
const TRIALS_EXPECTED: u32 = 15;
/// Starting, draining and stopping, per trial.
const OVERHEAD_EXPECTED: Duration = Duration::from_secs(2);

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Where, how finely, and how often it is confirmed.
    pub bounds: Bounds,
    /// Length of a trial, where its objectives do not need more.
    pub probe: Duration,
    /// See [`Capacity::fail_under_per_s`].
    pub fail_under_per_s: Option<f64>,
}

impl Wanted {
    /// Length of a trial at this rate: long enough to judge `objectives`.
    fn length(&self, objectives: &[String], rate_per_s: f64) -> Duration {
        let needed_s = samples_needed(objectives) as f64 * SAMPLES_MARGIN / rate_per_s;
        self.probe.max(Duration::from_secs_f64(needed_s).min(PROBE_MAX))
    }

    /// Why no trial at the lowest rate could be judged, however long; `None`: it can.
    pub fn unjudgeable(&self, objectives: &[String]) -> Option<String> {
        let needed = samples_needed(objectives);
        let (rate_min, longest_s) = (self.bounds.rate_per_s_min, PROBE_MAX.as_secs_f64());
        let allowed = (needed as f64 * SAMPLES_MARGIN / longest_s).ceil();
        (rate_min < allowed).then(|| {
            format!(
                "--rate-min = {rate_min}: the objectives take {} events to be judged, more than a trial of {longest_s} s has at that rate; \
                 allowed: {allowed} events per second and more, or an objective on a lower quantile",
                format::count(needed)
            )
        })
    }

    /// How long it all takes, roughly.
    pub fn expected_duration(&self, plan: &Plan) -> Duration {
        let middle = (self.bounds.rate_per_s_min * self.bounds.rate_per_s_max).sqrt();
        let trial = Duration::from_millis(plan.warmup_ms) + self.length(&plan.objectives, middle) + OVERHEAD_EXPECTED;
        trial * (TRIALS_EXPECTED + self.bounds.confirmations) * plan.variants.len() as u32
    }
}

/// An objective that cannot be judged on one trial, and why; `None`: all can.
pub fn unfit_objective(objectives: &[String]) -> Option<(&str, &'static str)> {
    let compares = |text: &&String| objective::parse(text).is_ok_and(|o| matches!(o.bound, Bound::Ratio { .. }));
    let unfit = objectives.iter().find(compares)?;
    Some((unfit, "compares with another variant, and a trial has only one"))
}

/// Looks for the capacity of each variant. Must be awaited on a `LocalSet`.
pub async fn run(resolved: &Resolved, wanted: &Wanted, context: &Context) -> Run {
    let progress = context.progress(wanted.expected_duration(&resolved.plan));
    let mut findings = Findings::begin();
    let calibration = calibrate::short(resolved, context, &progress, &mut findings.caveats).await;
    let mut capacities = Vec::new();
    for variant in &resolved.plan.variants {
        let seeker = Seeker { resolved, wanted, context, progress: &progress, variant };
        let (capacity, confirmed) = seeker.seek().await;
        progress.say(&capacity::sentence(&capacity));
        let runs_already = match resolved.profiles.get(&variant.name) {
            Some(profile) => profile.start.is_none(),
            None => variant.url.is_some(),
        };
        findings.caveats.extend(runs_already.then(|| not_fresh(variant)));
        capacities.push(capacity);
        confirmed.into_iter().for_each(|run| findings.absorb(run));
    }
    let plan = Plan { rate_per_s: 0.0, repeat: wanted.bounds.confirmations, ..resolved.plan.clone() };
    Run { calibration, capacity: capacities, ..findings.into_run(context, &plan) }
}

fn not_fresh(variant: &Variant) -> Caveat {
    Caveat {
        kind: CaveatKind::HysteresisPossible,
        subject: Some(variant.name.clone()),
        detail: "it was not started afresh for each trial, so what one left behind (a backlog, a larger store) is in the next"
            .to_owned(),
        remedy: "start it afresh and try the rate found once more, alone".to_owned(),
        invalidates: false,
    }
}

/// Looks for the capacity of one variant.
struct Seeker<'a> {
    resolved: &'a Resolved,
    wanted: &'a Wanted,
    context: &'a Context,
    progress: &'a Progress,
    variant: &'a Variant,
}

impl Seeker<'_> {
    /// The capacity, and the trials that confirmed it.
    async fn seek(&self) -> (Capacity, Vec<Run>) {
        let mut search = Search::new(self.wanted.bounds);
        let (mut trials, mut confirmed, mut saturated, mut limit_per_s) = (Vec::new(), Vec::new(), 0, None);
        let end = loop {
            let (rate_per_s, stage) = match search.step() {
                Step::Try { rate_per_s, stage } if !self.context.is_stopped() => (rate_per_s, stage),
                Step::Try { .. } => break End::Nothing,
                Step::End(end) => break end,
            };
            let run = self.trial(rate_per_s, trials.len() + 1).await;
            let Some(trial) = capacity::trial(&run, stage_of(stage), rate_per_s) else { break End::Nothing };
            let (held, is_saturated) = (trial.held, trial.is_saturated);
            trials.push(trial);
            if is_saturated && saturated + 1 < SATURATED_MAX {
                saturated += 1;
                continue;
            }
            saturated = 0;
            if is_saturated {
                limit_per_s = Some(rate_per_s);
                search.cannot_try();
                continue;
            }
            match (held, stage) {
                (true, Stage::Confirm) => confirmed.push(run),
                (true, _) => {}
                (false, _) => confirmed.clear(),
            }
            search.tried(held);
        };
        let capacity = self.capacity(end, trials, limit_per_s);
        let confirmed = if capacity.rate_per_s.is_some() { confirmed } else { Vec::new() };
        (capacity, confirmed)
    }

    /// `limit_per_s`: a rate that the generator could not offer.
    fn capacity(&self, end: End, trials: Vec<CapacityTrial>, limit_per_s: Option<f64>) -> Capacity {
        let (rate_per_s, rate_per_s_failed) = match end {
            End::Found { held_per_s, failed_per_s } => (Some(held_per_s), failed_per_s),
            End::Nothing => (None, lowest_failure(&trials)),
        };
        let generator = |rate| format!("at {} the generator, not the server, is the limit", format::rate(rate));
        let nothing_higher = rate_per_s.is_some() && rate_per_s_failed.is_none();
        let limit = limit_per_s.map(generator);
        Capacity {
            variant: self.variant.name.clone(),
            objectives: self.objectives(),
            rate_per_s_lowest: self.wanted.bounds.rate_per_s_min,
            rate_per_s,
            rate_per_s_failed,
            failed_because: reasons_at(&trials, rate_per_s_failed),
            limit: limit.or_else(|| nothing_higher.then(|| "no higher rate was to be tried".to_owned())),
            is_generator_at_fault: limit_per_s.is_some() && rate_per_s.is_none(),
            fail_under_per_s: self.wanted.fail_under_per_s,
            knee_per_s: knee(&trials),
            trials,
        }
    }

    /// Those that are demanded of this variant.
    fn objectives(&self) -> Vec<String> {
        let of_this = |text: &&String| {
            let demanded_of = objective::parse(text).ok().and_then(|objective| objective.variant);
            demanded_of.is_none_or(|name| name == self.variant.name)
        };
        self.resolved.plan.objectives.iter().filter(of_this).cloned().collect()
    }

    async fn trial(&self, rate_per_s: f64, number: usize) -> Run {
        let objectives = self.objectives();
        let duration = self.wanted.length(&objectives, rate_per_s);
        let plan = Plan {
            variants: vec![self.variant.clone()],
            rate_per_s,
            duration_ms: duration.as_millis() as u64,
            objectives,
            repeat: 1,
            ..self.resolved.plan.clone()
        };
        let resolved = Resolved { plan, ..self.resolved.clone() };
        let measurement = Measurement {
            resolved: &resolved,
            context: self.context,
            progress: self.progress,
            subject: format!("{} at {}", self.variant.name, format::rate(rate_per_s)),
            variant: self.variant,
            // Each trial has a schedule of its own.
            repetition: number as u32,
            events_name: format!("{}.{}.{number}", self.context.run_id, self.place()),
        };
        measurement.judged().await
    }

    /// Of the variant in the plan: names of events must be unique.
    fn place(&self) -> usize {
        self.resolved.plan.variants.iter().take_while(|variant| variant.name != self.variant.name).count() + 1
    }
}

fn stage_of(stage: Stage) -> TrialStage {
    match stage {
        Stage::Explore => TrialStage::Explore,
        Stage::Narrow => TrialStage::Narrow,
        Stage::Confirm => TrialStage::Confirm,
    }
}

fn lowest_failure(trials: &[CapacityTrial]) -> Option<f64> {
    let failed = trials.iter().filter(|trial| !trial.held && !trial.is_saturated).map(|trial| trial.rate_per_s);
    failed.reduce(f64::min)
}

/// Of the last trial that failed at this rate.
fn reasons_at(trials: &[CapacityTrial], rate_per_s: Option<f64>) -> Vec<String> {
    let failed = |trial: &&CapacityTrial| !trial.held && !trial.is_saturated && Some(trial.rate_per_s) == rate_per_s;
    trials.iter().rev().find(failed).map(|trial| trial.reasons.clone()).unwrap_or_default()
}
