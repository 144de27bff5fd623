//! `loadgen crash`: which modes on which stores are killed, under which load.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::output::{Output, OutputArgs};
use super::{EXIT_USAGE, Failure, resolve, usage};
use crate::crash;
use crate::plan::Asked;
use crate::plan::spelling::{AskedSizes, Span};
use crate::serve;

pub(super) const EXAMPLES: &str = "Examples:
  loadgen crash                                                       every mode on SQLite, its process killed 20 times each
  loadgen crash --mode cache-first,db-first --database sqlite,postgres --kills 100
  sudo loadgen crash --kill power --mode db-first --kills 20          the power of the disk under its data is cut
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
pub(super) fn run(arguments: Arguments) -> Result<u8, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let asked = arguments.asked;
    let stores = asked.checked().map_err(refuse)?;
    if arguments.output.samples.is_some() {
        return Err(refuse("--samples does not go with crash, whose loads are not measured; leave it out".to_owned()));
    }
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
    if asked.kill == crash::asked::AskedKill::Power {
        crash::disk::take_own_mounts().map_err(|error| refuse(error.to_string()))?;
    }
    let output = Output::prepare(arguments.output)?;
    let minutes = (crash::expected_duration(&asked, modes.len(), &stores).as_secs_f64() / 60.0).ceil();
    output.announce(&format!(
        "{} kills of each of {} on {}, seed {}, about {minutes} min",
        asked.kills,
        modes.join(", "),
        stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "),
        asked.seed
    ));
    output.finish(crash::run(&asked, &modes, &stores, &resolved.plan, &output.context))
}
