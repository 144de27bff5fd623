//! `loadgen run`: a plan out of flags, variables, a file or the built-in ones, measured.

use std::path::PathBuf;

use clap::Args;
use reports::model::Plan;

use super::forecast::{Forecast, Step, judged_by, load};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs, SamplesArgs};
use super::{Command, Failure, resolve, usage};
use crate::calibrate;
use crate::plan::{Asked, BUILT_IN};

pub(super) const EXAMPLES: &str = "Examples:
  # the reference server in three modes, on SQLite, in under two minutes
  loadgen run
  # the same, and exit 3 when a mode misses the objective
  loadgen run --slo 'response_time.p99 < 1ms'
  # one mode, faster, five times
  loadgen run --mode cache-first --rate 10000 --idle 0s --repeat 5
  # a rate that rises, and one that was recorded
  loadgen run --mode cache-first --shape 'ramp 100..20000' --duration 60s
  loadgen run --mode cache-first --replay monday.csv --replay-speed 2
  # on PostgreSQL
  loadgen run --database postgres://me@localhost/postgres
  # a server that already runs
  loadgen run --target http://127.0.0.1:8080
  # the old design against the new; a plan of your own; what it would do
  loadgen run --plan before-after
  loadgen run nightly.toml --open
  loadgen run nightly.toml --dry-run";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Plan file (TOML); flags and variables win over it
    #[arg(value_name = "PLAN.toml", conflicts_with = "plan")]
    plan_file: Option<PathBuf>,

    /// Built-in plan (`loadgen plans` lists them)
    #[arg(long, value_name = "NAME", value_parser = BUILT_IN.map(|(name, _)| name))]
    plan: Option<String>,

    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    samples: SamplesArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Measures; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let base = match (&arguments.plan_file, &arguments.plan) {
        (Some(path), _) => Asked::from_file(path),
        (None, name) => Asked::built_in(name.as_deref().unwrap_or("default")),
    };
    let of = |command| if let Command::Run(arguments) = command { Some(arguments.asked) } else { None };
    let resolved = resolve(invocation.layered(arguments.asked, of).over(base.map_err(usage)?))?;
    let forecast = forecast(&resolved.plan);
    match Output::begin(arguments.output, arguments.samples.samples.as_deref(), &forecast, invocation)? {
        Some(output) => output.finish(crate::run::run(&resolved, &output.context)),
        None => Ok(0),
    }
}

fn forecast(plan: &Plan) -> Forecast {
    let floor = calibrate::expected_duration(plan);
    let total = crate::run::expected_duration(plan);
    let each = (total - floor) / plan.variants.len().max(1) as u32;
    let mut steps = Vec::new();
    if !floor.is_zero() {
        steps.push(Step::new("the floor of this machine: a server that does nothing, at the same rate", floor));
    }
    let times = if plan.repeat > 1 {
        format!(", {} times, in an order that the seed draws", plan.repeat)
    } else {
        String::new()
    };
    for variant in &plan.variants {
        let started = if variant.url.is_some() { "" } else { "started, " };
        steps.push(Step::new(
            format!("{}{times}: {started}{}", variant.name, load(plan, variant.mode.as_deref())),
            each,
        ));
    }
    steps.push(judged_by(&plan.objectives));
    Forecast {
        command: "run",
        summary: format!("plan '{}': {} variants × {}", plan.name, plan.variants.len(), plan.repeat),
        seconds: total.as_secs_f64(),
        steps,
        files: vec!["run.json", "report.html"],
    }
}
