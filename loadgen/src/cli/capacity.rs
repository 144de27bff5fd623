//! `loadgen capacity`: what is to be searched for, and which flags of a plan do not go with a search.

use std::path::Path;

use clap::Args;

use super::output::{Output, OutputArgs};
use super::{EXIT_USAGE, Failure, resolve, usage};
use crate::calibrate;
use crate::capacity::{self, Wanted};
use crate::plan::Asked;
use crate::plan::spelling::{Arrivals, Span};
use crate::search::Bounds;

pub(super) const EXAMPLES: &str = "Examples:
  loadgen capacity                                         the reference server, cache-first and db-first, p99 below 10 ms
  loadgen capacity --mode cache-first --slo 'response_time.p99 < 1ms' --fail-under 5000
  loadgen capacity --target http://127.0.0.1:8080 --rate-min 50 --rate-max 5000 --probe 10s";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: Asked,

    /// First rate to try, events per second, 1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 500.0)]
    rate_min: f64,

    /// Highest rate to try, events per second, up to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 50_000.0)]
    rate_max: f64,

    /// How close the lowest rate that failed has to be to the highest that held, 0.5% to 100%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = resolution)]
    resolution: f64,

    /// Length of a trial; it is longer where an objective's quantile needs more samples, up to 60 s
    #[arg(long, value_name = "TIME", default_value = "4s")]
    probe: Span,

    /// Trials at the rate found, all of which must hold, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    confirm: u32,

    /// Exit 3 when the capacity is below this rate, events per second
    #[arg(long, value_name = "PER_S")]
    fail_under: Option<f64>,

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
pub(super) fn run(arguments: Arguments) -> Result<u8, Failure> {
    let refuse = |text: String| Err(Failure(EXIT_USAGE, text));
    if let Some(key) = unfit_flag(&arguments.asked) {
        return refuse(format!(
            "{key} does not go with capacity, which chooses rate, length and number of its trials; leave it out"
        ));
    }
    let (rate_min, rate_max) = (arguments.rate_min, arguments.rate_max);
    if !(1.0..=rate_max).contains(&rate_min) || rate_max > calibrate::SEARCH.rate_per_s_max {
        return refuse(format!(
            "--rate-min {rate_min} --rate-max {rate_max}: allowed: 1 to {} events per second, the smaller one first",
            calibrate::SEARCH.rate_per_s_max
        ));
    }
    let base = Asked::from_toml(CAPACITY_PLAN, Path::new("capacity")).map_err(usage)?;
    let asked = Asked { rate: Some(rate_min), duration: Some(arguments.probe), ..arguments.asked };
    let resolved = resolve(asked.over(base))?;
    if let Some((objective, why)) = capacity::unfit_objective(&resolved.plan.objectives) {
        return refuse(format!("--slo '{objective}' {why}; give a bound in its own unit"));
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
    let output = Output::prepare(arguments.output)?;
    let minutes = (wanted.expected_duration(&resolved.plan).as_secs_f64() / 60.0).ceil();
    output.announce(&format!(
        "the capacity of {}: rates from {rate_min} to {rate_max} per second, about {minutes} min",
        resolved.plan.variants.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>().join(", ")
    ));
    output.finish(capacity::run(&resolved, &wanted, &output.context))
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
    share.ok_or_else(|| "allowed: 0.5% to 100%".to_owned())
}
