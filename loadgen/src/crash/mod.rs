//! `loadgen crash`: the reference server killed under load again and again, in every mode on every store, and every event looked for that
//! it had acknowledged.
//!
//! Order and bookkeeping only. `series` is one mode on one store, `place` where its data lie, `reckoning` what is left of a load. What it
//! all means is [`reports::crash`]'s.

pub mod asked;
mod cluster;
pub mod disk;
mod load;
mod place;
mod reckoning;
mod series;

use std::time::Duration;

use reports::crash;
use reports::model::{Caveat, CaveatKind, KillKind, Plan, Run};

use self::asked::{Asked, AskedStore};
use self::series::Series;
use crate::measure::{Context, Findings};
use crate::observe::machine;

/// Of a kill, beside its load: restart and look, by process and by power, on SQLite; a PostgreSQL that has to recover takes three times as long.
const OVERHEAD_EXPECTED: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(800)];
/// Making a place and the last look.
const SERIES_EXPECTED: Duration = Duration::from_secs(3);

/// How long it all takes, roughly.
pub fn expected_duration(asked: &Asked, modes: usize, stores: &[AskedStore]) -> Duration {
    let kill = |store: &AskedStore| {
        let load = asked.load_max.0 / 2;
        let by_power = usize::from(asked.kill.kind() == KillKind::Power);
        let slow = if *store == AskedStore::Postgres && by_power == 1 { 3 } else { 1 };
        load + OVERHEAD_EXPECTED[by_power].mul_f64(f64::from(slow) * (1.0 + asked.recovery_share))
    };
    stores.iter().map(|store| (kill(store) * asked.kills + SERIES_EXPECTED) * modes as u32).sum()
}

/// Kills every mode on every store. Must be awaited on a `LocalSet`.
pub async fn run(asked: &Asked, modes: &[String], stores: &[AskedStore], plan: &Plan, context: &Context) -> Run {
    let progress = context.progress(expected_duration(asked, modes.len(), stores));
    let findings = Findings::begin();
    let mut tests = Vec::new();
    for mode in modes {
        for store in stores {
            if context.is_stopped() {
                break;
            }
            let name = format!("{mode} on {}", store.name());
            let number = tests.len() + 1;
            let series = Series { name, mode, store, number, asked, plan, context, progress: &progress };
            let test = series.run().await;
            progress.say(&crash::sentence(&test));
            tests.push(test);
        }
    }
    let faults = (!asked.fault.is_empty()).then(|| faulty(asked));
    let parent = asked.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let environment = machine::environment(true, Some(&parent), plan.pacing);
    let caveats = faults.into_iter().collect();
    Run { environment, crash: tests, caveats, ..findings.into_run(context, plan) }
}

fn faulty(asked: &Asked) -> Caveat {
    Caveat {
        kind: CaveatKind::FaultsInjected,
        subject: None,
        detail: format!("the server breaks its promises on purpose: {}", asked.fault.join("; ")),
        remedy: "leave out --fault, to test the server itself".to_owned(),
        invalidates: false,
    }
}
