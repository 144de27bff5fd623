//! `loadgen run`: every variant, as often as the plan says: start, warm-up, steady load, drain and reconcile, idle, stop.
//!
//! Order and bookkeeping only; what each phase does is in the modules it calls. Nothing here judges: that is
//! [`reports::verdict`]'s. What has been measured is never lost: a phase that fails leaves a sentence in the result and the rest
//! goes on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reports::model::{self, Caveat, CaveatKind, Plan, Run, TargetResult, Variant};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::idle;
use crate::ledger::{self, Account};
use crate::observe::machine;
use crate::payload::Payloads;
use crate::plan::Resolved;
use crate::progress::Progress;
use crate::recorder::Snapshot;
use crate::reference::{Configuration, Reference, ReferenceError};
use crate::samples::SampleFile;
use crate::steady::{self, Steady};
use crate::target::{Reach, Target, TargetError};

/// Time for starting, stopping and reading the ledger that a plan is expected to take beside its phases, per repetition.
const OVERHEAD_EXPECTED: Duration = Duration::from_secs(2);

/// What a run needs beside its plan.
#[derive(Clone, Debug)]
pub struct Context {
    /// Unique; lower-case letters, digits and hyphens.
    pub run_id: String,
    /// The command line.
    pub command: Vec<String>,
    /// Set from outside to end early.
    pub stop: Arc<AtomicBool>,
    /// Where every request is written down.
    pub samples: Option<Arc<SampleFile>>,
    /// No progress line.
    pub quiet: bool,
}

/// How long a plan takes, roughly.
pub fn expected_duration(plan: &Plan) -> Duration {
    let phases = Duration::from_millis(plan.warmup_ms + plan.duration_ms + plan.idle_ms) + OVERHEAD_EXPECTED;
    phases * plan.repeat * plan.variants.len() as u32
}

/// Measures everything. Must be awaited on a `LocalSet`.
pub async fn run(resolved: &Resolved, context: &Context) -> Run {
    let begin = Instant::now();
    let started_at = jiff::Timestamp::now().to_string();
    let plan = &resolved.plan;
    let progress = Progress::start(expected_duration(plan), context.quiet);
    let mut results = Vec::new();
    let mut caveats = Vec::new();
    let mut environment = None;
    for repetition in 1..=plan.repeat {
        // Rotated by one each time, so that no variant always comes first, on the coldest or the warmest machine.
        let mut order: Vec<&Variant> = plan.variants.iter().collect();
        order.rotate_left((repetition as usize - 1) % plan.variants.len());
        for variant in order {
            if context.stop.load(Ordering::Relaxed) {
                break;
            }
            let measurement = Measurement {
                resolved,
                context,
                progress: &progress,
                variant,
                repetition,
                events_name: format!("{}.{}", context.run_id, results.len() + 1),
            };
            let (result, found) = measurement.measure(&mut caveats).await;
            if let Some(failure) = &result.failure {
                progress.say(&format!("{}: {failure}", variant.name));
            }
            environment = environment.or(found);
            results.push(result);
        }
    }
    caveats.extend(context.samples.as_ref().and_then(|file| file.finish()));
    Run {
        schema: model::SCHEMA.to_owned(),
        run_id: context.run_id.clone(),
        tool: model::Tool {
            name: "millrace loadgen".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("MILLRACE_REVISION").to_owned(),
            build_profile: env!("MILLRACE_BUILD_PROFILE").to_owned(),
        },
        command: context.command.clone(),
        started_at,
        seconds: begin.elapsed().as_secs_f64(),
        interrupted: context.stop.load(Ordering::Relaxed),
        plan: plan.clone(),
        environment: environment.unwrap_or_else(|| machine::environment(false, None, plan.pacing)),
        verdict: model::Verdict { outcome: model::Outcome::Invalid, reasons: Vec::new(), exit_code: 5 },
        objectives: Vec::new(),
        caveats,
        results,
    }
}

/// One repetition of one variant.
struct Measurement<'a> {
    resolved: &'a Resolved,
    context: &'a Context,
    progress: &'a Progress,
    variant: &'a Variant,
    repetition: u32,
    events_name: String,
}

/// A target that runs, whoever started it.
struct Running {
    target: Target,
    reference: Option<Reference>,
    keys: Vec<String>,
    data: Option<PathBuf>,
}

/// Why a target could not be had.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Measurement<'_> {
    async fn measure(&self, caveats: &mut Vec<Caveat>) -> (TargetResult, Option<model::Environment>) {
        let mut result = self.empty_result();
        self.progress.phase(&self.variant.name, "starting", None);
        let mut running = match self.start().await {
            Ok(running) => running,
            Err(error) => {
                result.failure = Some(error.to_string());
                return (result, None);
            }
        };
        let environment =
            machine::environment(running.target.is_local(), running.data.as_deref(), self.resolved.plan.pacing);
        caveats.extend(self.describe(&mut result, &mut running).await);
        if let Err(error) = self.measure_running(&mut result, &mut running, caveats).await {
            result.failure = Some(error.to_string());
        }
        if let Some(reference) = running.reference {
            self.progress.phase(&self.variant.name, "stopping", None);
            if let Err(error) = reference.stop().await {
                result.failure.get_or_insert_with(|| error.to_string());
            }
        }
        (result, Some(environment))
    }

    async fn measure_running(
        &self,
        result: &mut TargetResult,
        running: &mut Running,
        caveats: &mut Vec<Caveat>,
    ) -> Result<(), SteadyOrTarget> {
        let plan = &self.resolved.plan;
        let clock = Clock::start();
        // Every variant of one repetition is offered the same schedule; each repetition another.
        let seed = plan.seed.wrapping_add(u64::from(self.repetition) - 1);
        let mut payloads = Payloads::new(&self.events_name, self.resolved.payload_sizes(seed), plan.seed);
        let destination = running.target.destination(&running.keys)?;
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        self.progress.phase(&self.variant.name, "load", Some(&snapshot));
        let steady = Steady {
            plan,
            clock,
            target: &running.target,
            destination: destination.clone(),
            schedule: self.resolved.schedule(),
            payloads: payloads.clone(),
            seed,
            stop: &self.context.stop,
            rows: self
                .context
                .samples
                .as_ref()
                .map(|file| file.rows(&self.variant.name, self.repetition, clock, payloads.clone())),
            snapshot,
            server_pid: running.reference.as_ref().map(|reference| reference.pid),
            database: running.reference.as_mut().and_then(|reference| reference.database.as_mut()),
        };
        let loaded = steady.run().await?;
        let load_end = Instant::now();
        result.load = loaded.load;
        result.resources = loaded.resources;
        result.health = Some(loaded.health);
        result.durability = loaded.durability;
        if plan.ledger && self.variant.mode.as_deref() != Some("null") {
            let account = Account {
                acknowledged: &loaded.acknowledged,
                repeats_accepted: loaded.repeats_accepted,
                planned: loaded.planned,
                kept: plan.ledger_events_max,
                acknowledged_beyond: loaded.acknowledged_beyond,
                payloads: &payloads,
                keys: &running.keys,
                load_end,
                patience: Duration::from_millis(plan.drain_timeout_ms),
            };
            caveats.extend(self.reconcile(&account, result, &running.target, clock).await);
        }
        if plan.idle_ms > 0 && !self.context.stop.load(Ordering::Relaxed) {
            self.progress.phase(&self.variant.name, "idle", None);
            let length = Duration::from_millis(plan.idle_ms);
            let database = running.reference.as_mut().and_then(|reference| reference.database.as_mut());
            let mut watched = idle::watch(&running.target, database, length, load_end, &self.context.stop).await;
            if result.ledger.is_some() && !self.context.stop.load(Ordering::Relaxed) {
                self.progress.phase(&self.variant.name, "first event", None);
                let body = payloads.body(loaded.planned);
                watched.first_event =
                    idle::first_event(&running.target, &destination, &running.keys[0], body, clock).await;
            }
            result.idle = Some(watched);
        }
        Ok(())
    }

    async fn reconcile(
        &self,
        account: &Account<'_>,
        result: &mut TargetResult,
        target: &Target,
        clock: Clock,
    ) -> Vec<Caveat> {
        self.progress.phase(&self.variant.name, "drain", None);
        let (ledger, error) = ledger::reconcile(account, target, clock).await;
        result.ledger = Some(ledger);
        let beyond = account.acknowledged_beyond;
        let full = (beyond > 0).then(|| self.full_ledger(beyond));
        error.map(|error| self.incomplete_ledger(&error)).into_iter().chain(full).collect()
    }

    /// The target answered the load and then could not show what it kept: nobody is guilty, nothing is proven.
    fn incomplete_ledger(&self, error: &TargetError) -> Caveat {
        Caveat {
            kind: CaveatKind::LedgerIncomplete,
            subject: Some(self.variant.name.clone()),
            detail: format!("what it kept could not be read to the end: {error}"),
            remedy: "mend the inbox, or leave the ledger out with --no-ledger (the result then says so)".to_owned(),
            invalidates: false,
        }
    }

    fn full_ledger(&self, beyond: u64) -> Caveat {
        let kept = self.resolved.plan.ledger_events_max;
        Caveat {
            kind: CaveatKind::LedgerIncomplete,
            subject: Some(self.variant.name.clone()),
            detail: format!(
                "the ledger keeps the first {kept} events: nobody looked for {beyond} acknowledged ones after them"
            ),
            remedy: "raise --ledger-events-max (90 bytes of memory an event), or measure for a shorter time".to_owned(),
            invalidates: false,
        }
    }

    async fn start(&self) -> Result<Running, StartError> {
        let plan = &self.resolved.plan;
        let mut reference = None;
        let url = match &self.variant.url {
            Some(url) => url.clone(),
            None => reference.insert(Reference::start(&self.configuration()).await?).url.clone(),
        };
        let target = Target::new(&url, &Reach::of(plan))?;
        let mut keys = self.resolved.keys.clone();
        if keys.is_empty() {
            for organization in 1..=plan.organizations {
                keys.push(target.generate_key(&format!("{} {organization}", self.events_name)).await?);
            }
        }
        let data = reference.as_ref().map(|reference| reference.folder().to_owned());
        Ok(Running { target, reference, keys, data })
    }

    fn configuration(&self) -> Configuration<'_> {
        Configuration {
            mode: self.variant.mode.as_deref().unwrap_or("cache-first"),
            polling: self.variant.polling.as_deref().unwrap_or("wake"),
            postgres_url: self.resolved.postgres_url.as_deref(),
            database_name: format!("millrace_{}", self.events_name.replace(['-', '.'], "_")),
        }
    }

    async fn describe(&self, result: &mut TargetResult, running: &mut Running) -> Option<Caveat> {
        running.target.url().clone_into(&mut result.url);
        if let Some(scrape) = running.target.metrics().await {
            let label = |label| scrape.label("ingest_build_info", label).map(str::to_owned);
            result.server_version = label("version");
            result.mode = result.mode.take().or_else(|| label("mode"));
            result.polling = result.polling.take().or_else(|| label("polling"));
            result.database = label("database");
        }
        let database = running.reference.as_mut().and_then(|reference| reference.database.as_mut())?;
        result.database = database.version().await.ok().map(|version| format!("PostgreSQL {version}"));
        let reason = database.statements.as_ref().err()?;
        Some(Caveat {
            kind: CaveatKind::SqlCountUnavailable,
            subject: Some(self.variant.name.clone()),
            detail: format!(
                "PostgreSQL does not count statements here ({reason}): idle SQL is by the server's own word"
            ),
            remedy:
                "start PostgreSQL with shared_preload_libraries = 'pg_stat_statements', and install its contrib modules"
                    .to_owned(),
            invalidates: false,
        })
    }

    fn empty_result(&self) -> TargetResult {
        TargetResult {
            target: self.variant.name.clone(),
            repetition: self.repetition,
            url: self.variant.url.clone().unwrap_or_default(),
            mode: self.variant.mode.clone(),
            durability: None,
            database: None,
            polling: self.variant.polling.clone(),
            server_version: None,
            failure: None,
            load: steady::empty_load(&self.resolved.plan),
            ledger: None,
            idle: None,
            resources: model::Resources::default(),
            health: None,
        }
    }
}

/// Why a running target could not be measured.
#[derive(Debug, thiserror::Error)]
enum SteadyOrTarget {
    #[error(transparent)]
    Steady(#[from] steady::SteadyError),
    #[error(transparent)]
    Target(#[from] TargetError),
}
