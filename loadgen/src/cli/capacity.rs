//! `loadgen capacity`: what is to be searched for, and which flags of a plan do not go with a search.

use std::path::Path;

use clap::Args;
use reports::format;
use reports::model::Plan;

use super::forecast::{Forecast, Step, judged_by};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs, SamplesArgs};
use super::{Command, EXIT_USAGE, Failure, resolve, usage};
use crate::calibrate;
use crate::capacity::{self, Wanted};
use crate::plan::Asked;
use crate::plan::limit::{self, Limit};
use crate::plan::spelling::{Arrivals, Span};
use crate::search::Bounds;

pub(super) const EXAMPLES: &str = "Examples:
  # the reference server, cache-first and db-first, p99 below 10 ms
  loadgen capacity
  # exit 3 when it is less than 5,000 events per second
  loadgen capacity --mode cache-first --slo 'response_time.p99 < 1ms' --fail-under 5000
  # a server that already runs
  loadgen capacity --target http://127.0.0.1:8080 --rate-min 200 --rate-max 5000 --probe 10s";

/// `--rate-min` and `--rate-max`
const TRIED: Limit<f64> = Limit { min: 1.0, max: calibrate::SEARCH.rate_per_s_max, unit: "events/s" };
/// `--confirm`
const CONFIRM: Limit<u32> = Limit { min: 1, max: 100, unit: "trials" };

/// Heading of the flags in `--help`.
const SEARCH: &str = "The search";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: Asked,

    /// First rate to try, events per second, 1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 500.0, value_parser = TRIED.within(), help_heading = SEARCH)]
    rate_min: f64,

    /// Highest rate to try, events per second, 1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 50_000.0, value_parser = TRIED.within(), help_heading = SEARCH)]
    rate_max: f64,

    /// How close the lowest rate that failed has to be to the highest that held, 0.5% to 100%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = resolution, help_heading = SEARCH)]
    resolution: f64,

    /// Length of a trial, 100ms to 24h; it is longer where an objective's quantile needs more samples, up to 60 s
    #[arg(long, value_name = "TIME", default_value = "4s", help_heading = SEARCH)]
    probe: Span,

    /// Trials at the rate found, all of which must hold, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = CONFIRM.within(), help_heading = SEARCH)]
    confirm: u32,

    /// Exit 3 when the capacity is below this rate, events per second, 0.1 to 200000
    #[arg(long, value_name = "PER_S", value_parser = limit::RATE.within(), help_heading = SEARCH)]
    fail_under: Option<f64>,

    #[command(flatten)]
    samples: SamplesArgs,

    #[command(flatten)]
    output: OutputArgs,
}

const CAPACITY_PLAN: &str = "
name = 'capacity'
mode = ['cache-first', 'db-first']
warmup = '1s'
idle = '0s'
slo = ['response_time.p99 < 10ms']
";

/// Searches; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let refuse = |text: String| Err(Failure(EXIT_USAGE, text));
    let of = |command| if let Command::Capacity(arguments) = command { Some(arguments.asked) } else { None };
    let asked = invocation.layered(arguments.asked, of);
    if let Some(key) = unfit_flag(&asked) {
        return refuse(format!(
            "{key}: does not go with capacity, which chooses rate, length and number of its trials; leave it out"
        ));
    }
    let (rate_min, rate_max) = (arguments.rate_min, arguments.rate_max);
    if rate_min > rate_max {
        return refuse(format!(
            "--rate-min = {rate_min}: is above --rate-max {rate_max}; allowed: {TRIED}, the smaller one first; lower it, or raise --rate-max"
        ));
    }
    let base = Asked::from_toml(CAPACITY_PLAN, Path::new("capacity")).map_err(usage)?;
    let asked = Asked { rate: Some(rate_min), duration: Some(arguments.probe), ..asked };
    let resolved = resolve(asked.over(base))?;
    if let Some((objective, why)) = capacity::unfit_objective(&resolved.plan.objectives) {
        return refuse(format!("--slo = {objective}: {why}; give a bound in its own unit"));
    }
    let wanted = Wanted {
        bounds: Bounds {
            rate_per_s_min: rate_min,
            rate_per_s_max: rate_max,
            resolution: arguments.resolution,
            confirmations: arguments.confirm,
        },
        probe: arguments.probe.0,
        fail_under_per_s: arguments.fail_under,
    };
    if let Some(why) = wanted.unjudgeable(&resolved.plan.objectives) {
        return refuse(why);
    }
    let forecast = forecast(&resolved.plan, &wanted);
    match Output::begin(arguments.output, arguments.samples.samples.as_deref(), &forecast, invocation)? {
        Some(output) => output.finish(capacity::run(&resolved, &wanted, &output.context)),
        None => Ok(0),
    }
}

fn forecast(plan: &Plan, wanted: &Wanted) -> Forecast {
    let Bounds { rate_per_s_min, rate_per_s_max, resolution, confirmations } = wanted.bounds;
    let (floor, search) = (calibrate::expected_duration(plan), wanted.expected_duration(plan));
    let mut steps = Vec::new();
    if !floor.is_zero() {
        steps.push(Step::new("the floor of this machine: a server that does nothing", floor));
    }
    for variant in &plan.variants {
        let what = format!(
            "{}: trials of {} from {} to {}, each on a fresh server where it is started here, until the border is known to {}, then {} to confirm",
            variant.name,
            format::seconds(wanted.probe.as_secs_f64()),
            format::rate(rate_per_s_min),
            format::rate(rate_per_s_max),
            format::percent(resolution),
            confirmations
        );
        steps.push(Step::new(what, search / plan.variants.len() as u32));
    }
    steps.push(judged_by(&plan.objectives));
    let names = plan.variants.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>().join(", ");
    Forecast {
        command: "capacity",
        summary: format!("the capacity of {names}: rates from {rate_per_s_min} to {rate_per_s_max} per second"),
        seconds: (floor + search).as_secs_f64(),
        steps,
        files: vec!["run.json", "report.html"],
    }
}

/// A flag of a plan that says what the search decides.
fn unfit_flag(asked: &Asked) -> Option<&'static str> {
    let given = [
        ("--rate", asked.rate.is_some()),
        ("--duration", asked.duration.is_some()),
        ("--shape", asked.shape.is_some()),
        ("--replay", asked.replay.is_some()),
        ("--repeat", asked.repeat.is_some()),
        ("--idle", asked.idle.is_some()),
        ("--arrivals closed", asked.arrivals == Some(Arrivals::Closed)),
        ("--mode null", asked.mode.iter().any(|mode| mode == "null")),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
}

/// `5%` or `0.05`.
fn resolution(text: &str) -> Result<f64, String> {
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    let share = share.ok().filter(|share| (0.005..=1.0).contains(share));
    share.ok_or_else(|| "is no share that fits; allowed: 0.5% to 100%; choose one in that range".to_owned())
}
