//! `loadgen run`: a plan out of flags, a file or the built-in ones, measured.

use std::path::PathBuf;

use clap::Args;

use super::output::{Output, OutputArgs};
use super::{Failure, resolve, usage};
use crate::plan::{Asked, BUILT_IN};

pub(super) const EXAMPLES: &str = "Examples:
  loadgen run                                          the reference server in three modes, on SQLite, under two minutes
  loadgen run --slo 'response_time.p99 < 1ms'          the same, and exit 3 when a mode misses the objective
  loadgen run --mode cache-first --rate 10000 --idle 0s --repeat 5
  loadgen run --mode cache-first --shape 'ramp 100..20000' --duration 60s
  loadgen run --mode cache-first --replay monday.csv --replay-speed 2
  loadgen run --database postgres://me@localhost/postgres
  loadgen run --target http://127.0.0.1:8080           a server that already runs
  loadgen run --plan before-after                      the old design against the new";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Plan file (TOML); flags win over it
    #[arg(value_name = "PLAN.toml", conflicts_with = "plan")]
    plan_file: Option<PathBuf>,

    /// Built-in plan
    #[arg(long, value_name = "NAME", value_parser = BUILT_IN.map(|(name, _)| name))]
    plan: Option<String>,

    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    output: OutputArgs,
}

/// Measures; the exit code.
pub(super) fn run(arguments: Arguments) -> Result<u8, Failure> {
    let base = match (&arguments.plan_file, &arguments.plan) {
        (Some(path), _) => Asked::from_file(path),
        (None, name) => Asked::built_in(name.as_deref().unwrap_or("default")),
    };
    let resolved = resolve(arguments.asked.over(base.map_err(usage)?))?;
    let plan = &resolved.plan;
    let output = Output::prepare(arguments.output)?;
    let seconds = crate::run::expected_duration(plan).as_secs();
    output.announce(&format!(
        "plan '{}': {} variants × {}, about {seconds} s",
        plan.name,
        plan.variants.len(),
        plan.repeat
    ));
    output.finish(crate::run::run(&resolved, &output.context))
}
