//! One round: a fresh server on fresh data under the load of its pair, and what of it the gate judges.
//!
//! Two phases, each on a server of its own: the open loop at the rate asked for, with ledger and idle window; then a closed loop, whose rate
//! says how much the server can do.

use std::time::Duration;

use reports::gate::model::Round;
use reports::gate::rule::STANDSTILL_NS_MIN;
use reports::model::{Arrivals, CaveatKind, Environment, Health, Plan, Run};

use super::side::Side;
use crate::measure::{Context, Measurement};
use crate::plan::Resolved;
use crate::progress::Progress;

/// A closed loop is at its speed at once; a new server's memory is not.
const CAPACITY_WARMUP: Duration = Duration::from_millis(200);

/// How rounds are measured.
#[derive(Debug)]
pub struct Rounds<'a> {
    /// The load of every round; its seed is the pair's.
    pub resolved: &'a Resolved,
    /// Length of the closed loop; zero leaves it out.
    pub capacity: Duration,
    /// In which run.
    pub context: &'a Context,
    /// Where phases are told; usually nowhere.
    pub progress: &'a Progress,
}

/// A round, and what its server says of itself.
#[derive(Debug)]
pub struct Measured {
    /// What is judged.
    pub round: Round,
    /// The machine.
    pub environment: Environment,
    /// Of the server.
    pub version: Option<String>,
}

impl Rounds<'_> {
    /// Measures `side` under the load with this seed. `name` is unique: lower-case letters, digits, dots.
    pub async fn measure(&self, side: &Side, seed: u64, name: &str) -> Measured {
        let plan = Plan { variants: vec![side.variant.clone()], seed, repeat: 1, ..self.resolved.plan.clone() };
        let open = self.run(side, plan, format!("{}.{name}", self.context.run_id)).await;
        let has_failed = open.results.iter().all(|result| result.failure.is_some());
        let closed = match self.capacity.is_zero() || has_failed || self.context.is_stopped() {
            true => None,
            false => Some(self.run(side, self.closed(side, seed), format!("{}.{name}c", self.context.run_id)).await),
        };
        let version = open.results.first().and_then(|result| result.server_version.clone());
        Measured { round: of(&open, closed.as_ref()), environment: open.environment, version }
    }

    fn closed(&self, side: &Side, seed: u64) -> Plan {
        Plan {
            variants: vec![side.variant.clone()],
            arrivals: Arrivals::Closed,
            rate_per_s: 0.0,
            warmup_ms: CAPACITY_WARMUP.as_millis() as u64,
            duration_ms: self.capacity.as_millis() as u64,
            idle_ms: 0,
            ledger: false,
            seed,
            repeat: 1,
            ..self.resolved.plan.clone()
        }
    }

    async fn run(&self, side: &Side, plan: Plan, events_name: String) -> Run {
        let resolved = Resolved { plan, ..side.in_plan(self.resolved) };
        let measurement = Measurement {
            resolved: &resolved,
            context: self.context,
            progress: self.progress,
            subject: side.variant.name.clone(),
            variant: &side.variant,
            repetition: 1,
            events_name,
        };
        measurement.judged().await
    }
}

/// What the two phases of a round found.
fn of(open: &Run, closed: Option<&Run>) -> Round {
    let Some(result) = open.results.first() else {
        return Round { failure: Some("there is no result".to_owned()), ..Round::default() };
    };
    let closed_result = closed.and_then(|run| run.results.first());
    let load = &result.load;
    let measured = load.response_time.count > 0;
    let time = |q: f64| measured.then(|| load.response_time.quantile_ns(q));
    let ledger = result.ledger.as_ref();
    let durable = ledger.and_then(|ledger| ledger.time_to_durable.as_ref());
    let cpu_s = result.resources.server_cpu_s.map(|server| server + result.resources.database_cpu_s.unwrap_or(0.0));
    let health = [result.health.as_ref(), closed_result.and_then(|result| result.health.as_ref())];
    let health: Vec<&Health> = health.into_iter().flatten().collect();
    let failure = [Some(result), closed_result].into_iter().flatten().find_map(|result| result.failure.clone());
    Round {
        failure,
        planned: load.planned.saturating_sub(load.repeats.refused),
        accepted: load.outcomes.accepted,
        achieved_share: load.achieved_ratio(),
        samples: load.response_time.count,
        censored: load.response_time.censored + load.response_time.overflowed,
        response_time_ns_p50: time(0.5),
        response_time_ns_p99: time(0.99),
        response_time_ns_p999: time(0.999),
        capacity_per_s: closed_result.map(|result| result.load.achieved_per_s),
        time_to_durable_ns_p50: durable
            .filter(|durable| durable.times.count > 0)
            .map(|durable| durable.times.quantile_ns(0.5)),
        cpu_ns_per_event: result.cpu_ns_per_event(cpu_s),
        memory_bytes_peak: result.resources.server_rss_peak_bytes.map(|bytes| bytes as f64),
        idle_sql_statements: result.idle.as_ref().and_then(|idle| idle.sql_statements).map(|count| count as f64),
        acknowledged: ledger.map(|ledger| ledger.acknowledged),
        lost: ledger.map_or(0, |ledger| ledger.lost),
        duplicated: ledger.map_or(0, |ledger| ledger.duplicated),
        corrupted: ledger.map_or(0, |ledger| ledger.corrupted),
        unverified: ledger.map_or(0, |ledger| ledger.unverified),
        saturated: saturated(open),
        standstill_share: over_both(&health, standstill_share),
        steal_share: over_both(&health, |health| health.machine.as_ref().map(|machine| machine.steal_share)),
        other_cpu_share: over_both(&health, other_cpu_share),
        send_delay_ns_p50: measured.then(|| load.send_delay.quantile_ns(0.5)),
    }
}

/// A share of the time of both phases together: one of them is so short that a single tick of the system's clock would be several per cent of
/// it.
fn over_both(phases: &[&Health], share: fn(&Health) -> Option<f64>) -> Option<f64> {
    let known: Vec<(f64, f64)> = phases.iter().filter_map(|health| Some((share(health)?, health.seconds))).collect();
    let seconds: f64 = known.iter().map(|(_, seconds)| seconds).sum();
    (seconds > 0.0).then(|| known.iter().map(|(share, seconds)| share * seconds).sum::<f64>() / seconds)
}

fn saturated(run: &Run) -> Option<String> {
    let of_generator = |kind| matches!(kind, CaveatKind::GeneratorSaturated | CaveatKind::ArrivalsNotAsAsked);
    run.caveats
        .iter()
        .find(|caveat| caveat.invalidates && of_generator(caveat.kind))
        .map(|caveat| caveat.detail.clone())
}

fn standstill_share(health: &Health) -> Option<f64> {
    let times = health.hiccups.as_ref()?.standstill.as_ref()?;
    let histogram = times.histogram().ok()?;
    let stalled: u64 = histogram.iter().filter(|(ns, _)| *ns >= STANDSTILL_NS_MIN).map(|(_, count)| count).sum();
    (times.count > 0).then(|| stalled as f64 / times.count as f64)
}

fn other_cpu_share(health: &Health) -> Option<f64> {
    let machine = health.machine.as_ref()?;
    let available_s = f64::from(machine.cores) * health.seconds;
    machine.other_cpu_s.filter(|_| available_s > 0.0).map(|other_s| other_s / available_s)
}
