//! `loadgen calibrate`: the floor of this machine, and nothing else.

use std::path::Path;

use clap::Args;

use super::output::{Output, OutputArgs};
use super::{Failure, resolve, usage};
use crate::calibrate;
use crate::plan::Asked;
use crate::plan::spelling::Span;

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Events per second at which the floor is taken, 0.1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 1_000.0)]
    rate: f64,

    /// For how long it is taken
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,

    /// Highest rate to try, 1000 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = calibrate::SEARCH.rate_per_s_max,
        value_parser = calibrate::rate_per_s_max)]
    rate_max: f64,

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
pub(super) fn run(arguments: Arguments) -> Result<u8, Failure> {
    let base = Asked::from_toml(CALIBRATE_PLAN, Path::new("calibrate")).map_err(usage)?;
    let (rate, duration) = (Some(arguments.rate), Some(arguments.duration));
    let resolved = resolve(Asked { rate, duration, ..Asked::default() }.over(base))?;
    let output = Output::prepare(arguments.output)?;
    let seconds = calibrate::expected_duration_full(&resolved.plan).as_secs();
    output.announce(&format!("the floor of this machine, and how fast it can go: about {seconds} s"));
    output.finish(calibrate::full(&resolved, &output.context, arguments.rate_max))
}
