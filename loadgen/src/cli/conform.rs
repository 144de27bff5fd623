//! `loadgen conform`: which targets are tested, and where the outcomes go.

use std::path::Path;

use clap::Args;
use reports::export;
use reports::model::Plan;

use super::forecast::{Forecast, Step};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure, resolve, usage};
use crate::conform;
use crate::plan::Asked;
use crate::serve;

pub(super) const EXAMPLES: &str = "Examples:
  # the reference server, every mode that keeps events, on SQLite
  loadgen conform
  # one mode on two databases
  loadgen conform --mode cache-first --database sqlite,postgres://me@localhost/postgres
  # a server that already runs, with an outcome that CI reads
  loadgen conform --target http://127.0.0.1:8080 --junit conform.xml
  # a server that a profile says how to start
  loadgen conform --target targets/python --database postgres://me@localhost/postgres
  # two rules on another build of the reference server
  loadgen conform --rule I2,O5 --server ./ingest-server

Rules that need a server of their own (I6, O5, parts of D1 and I2) are tested where loadgen starts the target; on others they are \
\"not testable here\", which is no pass.";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: conform::asked::Asked,

    #[command(flatten)]
    output: OutputArgs,
}

const CONFORM_PLAN: &str = "
name = 'conform'
warmup = '0s'
idle = '0s'
pacing = 'sleep'
no_calibration = true
no_ledger = true
";

/// Tests; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let asked = arguments.asked;
    let stores = asked.stores().map_err(refuse)?;
    let keeping = || serve::modes().into_iter().filter(|mode| mode != "null").collect();
    let modes: Vec<String> = match (asked.target.is_empty(), asked.mode.is_empty()) {
        (true, true) => keeping(),
        _ => asked.mode.clone(),
    };
    let base = Asked::from_toml(CONFORM_PLAN, Path::new("conform")).map_err(usage)?;
    let database = conform::asked::Asked::postgres_url(&stores);
    let plan = Asked { target: asked.target.clone(), mode: modes, database, ..Asked::default() };
    let mut resolved = resolve(plan.over(base))?;
    if asked.target.is_empty() {
        resolved.plan.database = Some(stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "));
    }
    let junit = asked.junit.clone();
    let forecast = forecast(&asked, &stores, &resolved.plan);
    let Some(output) = Output::begin(arguments.output, None, &forecast, invocation)? else { return Ok(0) };
    output.finish_with(conform::run(&asked, &stores, &resolved, &output.context), |run| match &junit {
        None => Ok(()),
        Some(path) => std::fs::write(path, export::junit(run))
            .map_err(|error| Failure::writing(EXIT_INTERNAL, "--junit", path, &error)),
    })
}

fn forecast(asked: &conform::asked::Asked, stores: &[conform::asked::AskedStore], plan: &Plan) -> Forecast {
    let places: Vec<String> = match asked.target.is_empty() {
        true => stores.iter().map(|store| format!(" on {}", store.name())).collect(),
        false => vec![String::new()],
    };
    let rules = asked.rules().len();
    let mut steps = Vec::new();
    for variant in &plan.variants {
        for place in &places {
            let what = format!("{}{place}: {rules} rules, clause by clause, over HTTP", variant.name);
            steps.push(Step::new(what, conform::expected_duration(1)));
        }
    }
    Forecast {
        command: "conform",
        summary: format!("{rules} rules of the contract on {} targets", steps.len()),
        seconds: conform::expected_duration(steps.len()).as_secs_f64(),
        steps,
        files: vec!["run.json", "report.html"],
    }
}
