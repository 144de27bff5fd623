//! `loadgen crash`: which modes on which stores are killed, under which load.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use reports::format;

use super::forecast::{Forecast, Step};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs};
use super::{EXIT_USAGE, Failure, resolve, usage};
use crate::crash;
use crate::crash::asked::{AskedKill, AskedStore};
use crate::plan::Asked;
use crate::plan::spelling::{AskedSizes, Span};
use crate::serve;

pub(super) const EXAMPLES: &str = "Examples:
  # every mode on SQLite, its process killed 20 times each
  loadgen crash
  # two modes on two databases, 100 times each
  loadgen crash --mode cache-first,db-first --database sqlite,postgres --kills 100
  # the power of the disk under its data is cut
  sudo loadgen crash --kill power --mode db-first --kills 20
  # a store that does not sync must lose, else the test proves nothing
  sudo loadgen crash --kill power --mode db-first --fault store-sync=off --expect-losses

What a loadgen leaves that was killed itself: folders named millrace-crash-* in --data-dir or the temporary folder, and nothing else \
(mounts and processes end with it); remove them with rm -r.";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: crash::asked::Asked,

    #[command(flatten)]
    output: OutputArgs,
}

const CRASH_PLAN: &str = "
name = 'crash'
warmup = '0s'
idle = '0s'
pacing = 'sleep'
no_calibration = true
";

/// A load lasts longer than any kill takes to come, by so much.
const LOAD_AFTER_KILL: Duration = Duration::from_secs(2);

/// Kills, and looks what is left; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let asked = arguments.asked;
    let stores = asked.checked().map_err(refuse)?;
    let keeping = || serve::modes().into_iter().filter(|mode| mode != "null").collect();
    let modes: Vec<String> = if asked.mode.is_empty() { keeping() } else { asked.mode.clone() };
    let base = Asked::from_toml(CRASH_PLAN, Path::new("crash")).map_err(usage)?;
    let load = Asked {
        mode: modes.clone(),
        polling: vec![asked.polling.clone()],
        fault: asked.fault.clone(),
        rate: Some(asked.rate),
        duration: Some(Span(asked.load_max.0 + LOAD_AFTER_KILL)),
        drain_timeout: Some(asked.drain_timeout),
        connections: Some(asked.connections),
        payload_bytes: Some(AskedSizes::Fixed(asked.payload_bytes)),
        seed: Some(asked.seed),
        ..Asked::default()
    };
    let mut resolved = resolve(load.over(base))?;
    resolved.plan.database = Some(stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "));
    let forecast = forecast(&asked, &modes, &stores);
    let Some(output) = Output::begin(arguments.output, None, &forecast, invocation)? else { return Ok(0) };
    if asked.kill == AskedKill::Power {
        crash::disk::take_own_mounts().map_err(|error| refuse(error.to_string()))?;
    }
    output.finish(crash::run(&asked, &modes, &stores, &resolved.plan, &output.context))
}

fn forecast(asked: &crash::asked::Asked, modes: &[String], stores: &[AskedStore]) -> Forecast {
    let kills = asked.kills;
    let mut steps = Vec::new();
    for mode in modes {
        for store in stores {
            let duration = crash::expected_duration(asked, 1, std::slice::from_ref(store));
            let what = match asked.kill {
                AskedKill::Process => "its process is killed",
                AskedKill::Power => "the power of the disk under its data is cut",
            };
            let name = store.name();
            let (rate, within) = (format::rate(asked.rate), format::seconds(asked.load_max.0.as_secs_f64()));
            let again = format::percent(asked.recovery_share);
            steps.push(Step::new(
                format!(
                    "{mode} on {name}: {kills} times a load of {rate}, within {within} of which {what} (again while it recovers in {again} of \
                     them), a restart, and every acknowledged event looked for"
                ),
                duration,
            ));
        }
    }
    let names = stores.iter().map(AskedStore::name).collect::<Vec<_>>().join(", ");
    Forecast {
        command: "crash",
        summary: format!("{kills} kills of each of {} on {names}, seed {}", modes.join(", "), asked.seed),
        seconds: steps.iter().map(|step| step.seconds).sum(),
        steps,
        files: vec!["run.json", "report.html"],
    }
}
