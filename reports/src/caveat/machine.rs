//! Rules about the generator's machine: did it stand still, and who else used it.

use super::{Finding, STANDARD_QUANTILE, finding, judged_quantiles};
use crate::format;
use crate::model::{Health, MachineUse, Run, SENDING_THREAD, Stall, TargetResult};
use crate::stats;

/// Stalls are told when they alone explain this share of what lies beyond a quantile of the response time.
pub const STALL_SHARE_OF_TAIL_MIN: f64 = 0.25;

/// Fewest wake-ups that must have been later than the response time at that quantile.
pub const STALL_SAMPLES_MIN: u64 = 3;

/// Share of the steady phase the sending thread may have waited for a processor.
pub const RUN_QUEUE_SHARE_MAX: f64 = 0.05;

/// Share of all processors that others than the generator, the server and its database may use.
pub const OTHER_CPU_SHARE_MAX: f64 = 0.1;

/// Share of all processor time that a hypervisor may give to others.
pub const STEAL_SHARE_MAX: f64 = 0.02;

/// Share of the time in which some thread may wait for memory (PSI): none should, unless memory is short.
pub const MEMORY_PRESSURE_SHARE_MAX: f64 = 0.01;

/// Share of the time that a quota may keep the generator's control group from running.
pub const THROTTLED_SHARE_MAX: f64 = 0.01;

/// Did the machine alone make some of the events as slow as those beyond a quantile? Each wake-up of the hiccup meter is a random moment:
/// the share of them that came later than the response time at quantile q, of 1 − q, is the share of the tail that the machine explains.
pub(super) fn stalls(run: &Run, r: &TargetResult) -> Option<Finding> {
    let hiccups = r.health.as_ref()?.hiccups.as_ref()?;
    let response = &r.load.response_time;
    let moments = hiccups.standstill.as_ref().unwrap_or(&hiccups.late).histogram().ok()?;
    let judged = judged_quantiles(run, &r.target).into_iter().map(|(q, _)| q);
    let looked_at = judged.chain([0.5, STANDARD_QUANTILE, 0.999]);
    let printed = looked_at.filter(|q| stats::samples_beyond(response.count, *q) >= stats::SAMPLES_BEYOND_TO_PRINT);
    let explained = printed.filter_map(|q| {
        let later = moments.count_between(response.quantile_ns(q) as u64 + 1, u64::MAX);
        let share = later as f64 / moments.count().max(1) as f64;
        let of_tail = share / (1.0 - q);
        (later >= STALL_SAMPLES_MIN && of_tail >= STALL_SHARE_OF_TAIL_MIN).then_some((of_tail, share, q))
    });
    // The lowest quantile: what is true of it says the most.
    let (of_tail, share, q) = explained.min_by(|a, b| a.2.total_cmp(&b.2))?;
    let still = |stall: &Stall| stall.length_ns - stall.waited_ns.unwrap_or(0);
    let longest = hiccups.stalls.iter().max_by_key(|stall| still(stall)).map_or_else(String::new, |stall| {
        let (length, at) = (format::time_ns(still(stall)), format::time_ns(stall.offset_ns));
        format!("; the longest lasted {length}, {at} into the phase")
    });
    let cause = if hiccups.standstill.is_some() { "stood still" } else { "stood still or was busy" };
    let detail = format!(
        "the machine {cause} for longer than the response time's {} of {} in {} of the moments watched, which explains {} of what lies \
         beyond it{longest}",
        format::quantile_name(q),
        format::time(response.quantile_ns(q)),
        format::percent(share),
        format::percent(of_tail.min(1.0))
    );
    finding(of_tail, detail)
}

/// Who else used the processors, and what kept the generator from running.
pub(super) fn busy(_: &Run, r: &TargetResult) -> Option<Finding> {
    let health = r.health.as_ref();
    let mut causes: Vec<(f64, String)> = health
        .and_then(|health| Some((health, health.machine.as_ref()?)))
        .map_or_else(Vec::new, |(health, machine)| causes(health, machine));
    causes.extend(run_queue(r));
    causes.retain(|(excess, _)| *excess > 1.0);
    let worst = causes.iter().map(|(excess, _)| *excess).reduce(f64::max)?;
    finding(worst, causes.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; "))
}

/// How many times its limit each cause reached, and in words.
fn causes(health: &Health, machine: &MachineUse) -> Vec<(f64, String)> {
    let seconds = health.seconds.max(1e-9);
    let capacity_s = seconds * f64::from(machine.cores.max(1));
    let other_s = machine.other_cpu_s.unwrap_or(0.0);
    let memory = machine.pressure_memory.unwrap_or_default().some_share;
    let throttled_s = machine.throttled_s.unwrap_or(0.0);
    vec![
        (
            other_s / capacity_s / OTHER_CPU_SHARE_MAX,
            format!(
                "other processes used {} of CPU time, {} of the machine",
                format::seconds(other_s),
                format::percent(other_s / capacity_s)
            ),
        ),
        (
            machine.steal_share / STEAL_SHARE_MAX,
            format!("the hypervisor gave {} of the processor time to others", format::percent(machine.steal_share)),
        ),
        (memory / MEMORY_PRESSURE_SHARE_MAX, format!("memory was short in {} of the time", format::percent(memory))),
        (
            throttled_s / seconds / THROTTLED_SHARE_MAX,
            format!(
                "the CPU quota of its control group held the generator back for {}, {} of the phase",
                format::seconds(throttled_s),
                format::percent(throttled_s / seconds)
            ),
        ),
    ]
}

fn run_queue(r: &TargetResult) -> Option<(f64, String)> {
    let waited = r.resources.generator_run_queue_delay_ns? as f64;
    let watched = r.health.as_ref().and_then(|h| h.threads.iter().find(|t| t.name == SENDING_THREAD));
    let seconds = watched.map_or(r.load.seconds, |thread| thread.seconds);
    let share = waited / (seconds * 1e9).max(1.0);
    let detail = format!(
        "the sending thread waited {} for a processor, {} of the steady phase",
        format::time(waited),
        format::percent(share)
    );
    Some((share / RUN_QUEUE_SHARE_MAX, detail))
}
