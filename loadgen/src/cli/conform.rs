//! `loadgen conform`: which targets are tested, and where the outcomes go.

use std::path::Path;

use clap::Args;
use reports::export;

use super::output::{Output, OutputArgs};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure, resolve, usage};
use crate::conform;
use crate::plan::Asked;
use crate::serve;

pub(super) const EXAMPLES: &str = "Examples:
  loadgen conform                                                     the reference server, every mode that keeps events, on SQLite
  loadgen conform --mode cache-first --database sqlite,postgres://me@localhost/postgres
  loadgen conform --target http://127.0.0.1:8080 --junit conform.xml  a server that already runs
  loadgen conform --target targets/python --database postgres://me@localhost/postgres
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
pub(super) fn run(arguments: Arguments) -> Result<u8, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let asked = arguments.asked;
    let stores = asked.stores().map_err(refuse)?;
    if arguments.output.samples.is_some() {
        return Err(refuse("--samples does not go with conform, which measures nothing; leave it out".to_owned()));
    }
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
    let output = Output::prepare(arguments.output)?;
    let targets = resolved.plan.variants.len() * if asked.target.is_empty() { stores.len() } else { 1 };
    output.announce(&format!(
        "{} rules of the contract on {} targets, about {} s",
        asked.rules().len(),
        targets,
        conform::expected_duration(targets).as_secs()
    ));
    output.finish_with(conform::run(&asked, &stores, &resolved, &output.context), |run| match &junit {
        None => Ok(()),
        Some(path) => std::fs::write(path, export::junit(run))
            .map_err(|error| Failure(EXIT_INTERNAL, format!("--junit {}: {error}", path.display()))),
    })
}
