//! `loadgen calibrate`: the floor of this machine, and nothing else.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use reports::format;
use reports::model::Plan;

use super::forecast::{Forecast, Step, load};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs, SamplesArgs};
use super::{Failure, resolve, usage};
use crate::calibrate;
use crate::plan::Asked;
use crate::plan::limit::{self, Limit};
use crate::plan::spelling::{AskedRealtime, Span};

pub(super) const EXAMPLES: &str = "Examples:
  # the floor at 1,000 events per second, and the highest rate that is honest
  loadgen calibrate
  # before a run at 20,000 events per second
  loadgen calibrate --rate 20000 --duration 30s
  # no more than that is needed
  loadgen calibrate --rate-max 50000";

/// `--rate-max`
const HIGHEST: Limit<f64> =
    Limit { min: calibrate::SEARCH.rate_per_s_min, max: calibrate::SEARCH.rate_per_s_max, unit: "events/s" };

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Events per second at which the floor is taken, 0.1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 1_000.0, value_parser = limit::RATE.within())]
    rate: f64,

    /// For how long it is taken, 100ms to 24h
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,

    /// Highest rate to try, events per second, 1000 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = HIGHEST.max, value_parser = HIGHEST.within())]
    rate_max: f64,

    /// Who gets a processor before every other thread of the machine, as for `loadgen run` [default: nobody]
    #[arg(long, value_enum, value_name = "WHO")]
    realtime: Option<AskedRealtime>,

    #[command(flatten)]
    samples: SamplesArgs,

    #[command(flatten)]
    output: OutputArgs,
}

const CALIBRATE_PLAN: &str = "
name = 'calibrate'
mode = ['null']
warmup = '2s'
idle = '0s'
no_ledger = true
";

/// Measures; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let base = Asked::from_toml(CALIBRATE_PLAN, Path::new("calibrate")).map_err(usage)?;
    let (rate, duration) = (Some(arguments.rate), Some(arguments.duration));
    let resolved = resolve(Asked { rate, duration, realtime: arguments.realtime, ..Asked::default() }.over(base))?;
    let forecast = forecast(&resolved.plan, arguments.rate_max);
    match Output::begin(arguments.output, arguments.samples.samples.as_deref(), &forecast, invocation)? {
        Some(output) => output.finish(calibrate::full(&resolved, &output.context, arguments.rate_max)),
        None => Ok(0),
    }
}

fn forecast(plan: &Plan, rate_per_s_max: f64) -> Forecast {
    let total = calibrate::expected_duration_full(plan);
    let floor = Duration::from_millis(plan.warmup_ms + plan.duration_ms);
    let (from, to) = (format::rate(calibrate::SEARCH.rate_per_s_min), format::rate(rate_per_s_max));
    Forecast {
        command: "calibrate",
        summary: "the floor of this machine, and how fast it can go".to_owned(),
        seconds: total.as_secs_f64(),
        steps: vec![
            Step::new(format!("a server that does nothing: {}", load(plan, Some("null"))), floor),
            Step::new(
                format!(
                    "short trials from {from} to {to}: the highest rate that the generator can honestly offer; a closed loop; a timer"
                ),
                total - floor,
            ),
        ],
        files: vec!["run.json", "report.html"],
    }
}
