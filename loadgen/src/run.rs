//! `loadgen run`: every variant, as often as the plan says, in randomised complete blocks ([`crate::blocks`]): start, warm-up, steady
//! load, drain and reconcile, idle, stop.
//!
//! Order and bookkeeping only; what each phase does is in the modules it calls. Nothing here judges: that is
//! [`reports::verdict`]'s. What has been measured is never lost: a phase that fails leaves a sentence in the result and the rest
//! goes on.

use std::time::Duration;

use rand::Rng;
use reports::model::{Plan, Run};
use tokio::task::spawn_blocking;

use crate::blocks;
use crate::calibrate;
use crate::measure::{Context, Findings, Measurement};
use crate::plan::Resolved;

/// Time for starting, stopping and reading the ledger that a plan is expected to take beside its phases, per repetition.
const OVERHEAD_EXPECTED: Duration = Duration::from_secs(2);

/// How long a plan takes, roughly.
pub fn expected_duration(plan: &Plan) -> Duration {
    let phases = Duration::from_millis(plan.warmup_ms + plan.duration_ms + plan.idle_ms) + OVERHEAD_EXPECTED;
    phases * plan.repeat * plan.variants.len() as u32 + calibrate::expected_duration(plan)
}

/// Measures everything. Must be awaited on a `LocalSet`.
pub async fn run(resolved: &Resolved, context: &Context) -> Run {
    let plan = &resolved.plan;
    let progress = context.progress(expected_duration(plan));
    let mut findings = Findings::begin();
    let calibration = calibrate::short(resolved, context, &progress, &mut findings.caveats).await;
    let orders = blocks::orders(plan.variants.len(), plan.repeat as usize, plan.seed);
    let name = match resolved.part {
        // By attempt: what an earlier one of the same part left behind is none of this one's.
        Some(part) => format!("{}-{}-{:04x}", context.run_id, part.shard.number, rand::rng().random::<u16>()),
        None => context.run_id.clone(),
    };
    for (repetition, order) in (1..).zip(orders) {
        for variant in order.into_iter().map(|index| &plan.variants[index]) {
            if context.is_stopped() {
                break;
            }
            let measurement = Measurement {
                resolved,
                context,
                progress: &progress,
                subject: variant.name.clone(),
                variant,
                repetition,
                events_name: format!("{name}.{}", findings.results.len() + 1),
            };
            findings.add(&measurement).await;
        }
    }
    findings.caveats.extend(context.samples.as_ref().and_then(|file| file.finish()));
    if let Some(telemetry) = context.telemetry.clone() {
        // A receiver that is away may take some seconds.
        let untold = spawn_blocking(move || telemetry.finish()).await;
        findings.caveats.extend(untold.ok().flatten());
    }
    Run { calibration, ..findings.into_run(context, plan) }
}
