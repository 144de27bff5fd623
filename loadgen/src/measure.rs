//! One repetition of one variant: start the server, load it, drain and reconcile, watch it idle, stop it; and what several of them add
//! up to.
//!
//! Everything that measures comes through here with a plan of its own: `run` with the one asked for, calibration and the search for a
//! capacity with one that is changed for each trial.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reports::model::{self, Caveat, CaveatKind, Plan, Run, TargetResult, Variant};
use reports::verdict;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::connection::Destination;
use crate::idle::{self, First};
use crate::ledger::{self, Account, ReadError, Source};
use crate::observe::machine;
use crate::observe::postgres::FreshDatabase;
use crate::observe::rows::{Needle, Rows};
use crate::payload::Payloads;
use crate::plan::{Part, Resolved};
use crate::profile::launch::Surroundings;
use crate::profile::{DatabaseKind, LaunchError, Persisted, Profile, Started};
use crate::progress::{Progress, Talk};
use crate::receiver::Receiver;
use crate::recorder::Snapshot;
use crate::reference::{Configuration, Reference, ReferenceError};
use crate::samples::SampleFile;
use crate::start;
use crate::steady::{self, Loaded, Steady};
use crate::target::{Target, TargetError};
use crate::telemetry::{self, Telemetry};

/// How often a wait looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    /// Who is told of it over OTLP.
    pub telemetry: Option<Arc<Telemetry>>,
    /// No progress.
    pub quiet: bool,
    /// Progress on the whole terminal, live.
    pub tui: bool,
}

impl Context {
    /// Begins to tell how far something is that takes `total`. Needs a running tokio runtime.
    pub fn progress(&self, total: Duration) -> Progress {
        let talk = match (self.quiet, self.tui) {
            (true, _) => Talk::Nothing,
            (false, true) => Talk::Live,
            (false, false) => Talk::Line,
        };
        Progress::start(total, talk, &self.stop)
    }

    /// Whether somebody wants this to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What has been measured so far. Nothing of it is ever lost: a measurement that fails leaves a sentence in its result.
#[derive(Debug)]
pub struct Findings {
    begin: Instant,
    started_at: String,
    environment: Option<model::Environment>,
    shard: Option<model::Shard>,
    /// In the order in which they were measured.
    pub results: Vec<TargetResult>,
    /// What no number of the results shows.
    pub caveats: Vec<Caveat>,
}

impl Findings {
    /// Nothing yet; time counts from now.
    pub fn begin() -> Self {
        Self {
            begin: Instant::now(),
            started_at: jiff::Timestamp::now().to_string(),
            environment: None,
            shard: None,
            results: Vec::new(),
            caveats: Vec::new(),
        }
    }

    /// Measures, and keeps what was found.
    pub async fn add(&mut self, measurement: &Measurement<'_>) {
        let mut part = measurement.resolved.part.map(|part| start::unmet(part.shard, part.start_at));
        let clock = Clock::start();
        let (result, found) = measurement.measure(&mut self.caveats, part.as_mut()).await;
        if let Some(telemetry) = &measurement.context.telemetry {
            let (begin, end) = (clock.unix_ns(0), clock.unix_ns(clock.now_ns()));
            telemetry.measured(&measurement.events_name, begin, end, &result);
        }
        self.shard = self.shard.take().or(part);
        if let Some(failure) = &result.failure {
            measurement.progress.say(&format!("{}: {failure}", measurement.subject));
        }
        self.environment = self.environment.take().or(found);
        self.results.push(result);
    }

    /// Keeps what a run of its own found, as the next repetition of its variant. Its caveats are found again.
    pub fn absorb(&mut self, run: Run) {
        for mut result in run.results {
            let earlier = self.results.iter().filter(|known| known.target == result.target).count();
            result.repetition = earlier as u32 + 1;
            self.results.push(result);
        }
        self.environment.get_or_insert(run.environment);
    }

    /// Everything in one result, not judged yet.
    pub fn into_run(self, context: &Context, plan: &Plan) -> Run {
        Run {
            schema: model::SCHEMA.to_owned(),
            run_id: context.run_id.clone(),
            tool: tool(),
            command: context.command.clone(),
            started_at: self.started_at,
            seconds: self.begin.elapsed().as_secs_f64(),
            interrupted: context.is_stopped(),
            plan: plan.clone(),
            environment: self.environment.unwrap_or_else(|| machine::environment(false, None, plan.pacing)),
            verdict: model::Verdict { outcome: model::Outcome::Invalid, reasons: Vec::new(), exit_code: 5 },
            objectives: Vec::new(),
            caveats: self.caveats,
            calibration: None,
            capacity: Vec::new(),
            crash: Vec::new(),
            conformance: Vec::new(),
            shard: self.shard,
            shards: Vec::new(),
            results: self.results,
        }
    }
}

/// This program.
pub fn tool() -> model::Tool {
    model::Tool {
        name: "millrace loadgen".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: env!("MILLRACE_REVISION").to_owned(),
        build_profile: env!("MILLRACE_BUILD_PROFILE").to_owned(),
    }
}

/// One repetition of one variant.
#[derive(Debug)]
pub struct Measurement<'a> {
    /// What to do.
    pub resolved: &'a Resolved,
    /// In which run.
    pub context: &'a Context,
    /// Who is told meanwhile.
    pub progress: &'a Progress,
    /// What the progress line calls it.
    pub subject: String,
    /// What is measured; need not be one of the plan.
    pub variant: &'a Variant,
    /// 1-based; each has a schedule of its own.
    pub repetition: u32,
    /// Of the events, unique in this run; lower-case letters, digits, hyphens and dots.
    pub events_name: String,
}

/// A target that runs, whoever started it.
#[derive(Debug)]
struct Running {
    target: Target,
    host: Host,
    keys: Vec<String>,
    server_pids: Vec<u32>,
}

/// Who started it.
#[derive(Debug)]
enum Host {
    /// Somebody else.
    Foreign,
    /// We, as the reference server.
    Reference(Box<Reference>),
    /// We, from its profile; or somebody else, and its profile says how to look at it.
    Profile(Box<Started>),
}

impl Host {
    fn database(&mut self) -> Option<&mut FreshDatabase> {
        match self {
            Self::Foreign => None,
            Self::Reference(reference) => reference.database.as_mut(),
            Self::Profile(started) => started.database.as_mut(),
        }
    }

    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Foreign => None,
            Self::Reference(reference) => Some(reference.folder()),
            Self::Profile(started) => Some(started.folder()),
        }
    }

    fn rows(&self) -> Option<&Rows> {
        match self {
            Self::Profile(started) => started.rows(),
            Self::Foreign | Self::Reference(_) => None,
        }
    }

    /// Where what is persisted can be seen.
    fn source(&self) -> Source<'_> {
        match self {
            Self::Profile(started) => match (&started.profile().persisted, started.rows()) {
                (Persisted::Sql(_), Some(rows)) => Source::Rows(rows),
                (Persisted::Inbox, _) => Source::Inbox,
                _ => Source::Nowhere,
            },
            Self::Foreign | Self::Reference(_) => Source::Inbox,
        }
    }

    async fn stop(self) -> Result<(), StartError> {
        match self {
            Self::Foreign => Ok(()),
            Self::Reference(reference) => Ok(reference.stop().await?),
            Self::Profile(started) => Ok(started.stop().await?),
        }
    }
}

/// Why a target could not be had, or not be ended.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Measurement<'_> {
    /// Measures, and judges this repetition as a run of its own.
    pub async fn judged(&self) -> Run {
        let mut findings = Findings::begin();
        findings.add(self).await;
        let mut run = findings.into_run(self.context, &self.resolved.plan);
        verdict::assess(&mut run);
        run
    }

    /// `part` is told how this part of a load met the others.
    async fn measure(
        &self,
        caveats: &mut Vec<Caveat>,
        part: Option<&mut model::Shard>,
    ) -> (TargetResult, Option<model::Environment>) {
        let mut result = self.empty_result();
        self.progress.phase(&self.subject, "starting", None);
        let mut running = match self.start().await {
            Ok(running) => running,
            Err(error) => {
                result.failure = Some(error.to_string());
                return (result, None);
            }
        };
        let environment =
            machine::environment(running.target.is_local(), running.host.folder(), self.resolved.plan.pacing);
        caveats.extend(self.describe(&mut result, &mut running).await);
        if let Err(error) = self.measure_running(&mut result, &mut running, caveats, part).await {
            result.failure = Some(error.to_string());
        }
        caveats.extend(self.untold(&running.target).await);
        self.progress.phase(&self.subject, "stopping", None);
        if let Err(error) = running.host.stop().await {
            result.failure.get_or_insert_with(|| error.to_string());
        }
        (result, Some(environment))
    }

    async fn measure_running(
        &self,
        result: &mut TargetResult,
        running: &mut Running,
        caveats: &mut Vec<Caveat>,
        mut part: Option<&mut model::Shard>,
    ) -> Result<(), SteadyOrTarget> {
        let plan = &self.resolved.plan;
        let begin_unix_ns = match &mut part {
            Some(part) => Some(self.meet_others(&running.target, part).await?),
            None => None,
        };
        let clock = Clock::start();
        // Every variant of one repetition is offered the same schedule; each repetition another.
        let seed = plan.seed.wrapping_add(u64::from(self.repetition) - 1);
        let body = &running.target.dialect().ingest.body;
        let sizes = self.resolved.payload_sizes(seed);
        let mut payloads = Payloads::with_template(&self.events_name, sizes, plan.seed, body);
        let destination = running.target.destination(&running.keys)?;
        let receiver = match plan.webhooks && self.variant.mode.as_deref() != Some("null") {
            true => Some(self.receive_webhooks(running, clock, &payloads).await?),
            false => None,
        };
        let begin_at_ns = begin_unix_ns.map(|unix_ns| unix_ns.saturating_sub(clock.unix_ns(0)));
        let loaded = self.load(running, clock, &destination, &payloads, seed, begin_at_ns).await?;
        let load_end = Instant::now();
        if let Some(part) = &mut part {
            part.steady_began_at = start::time_of_day(clock, loaded.steady_begin_ns);
        }
        if plan.ledger && self.variant.mode.as_deref() != Some("null") {
            let (mut ledger, error) = self.reconcile(running, clock, &payloads, &loaded, load_end).await;
            if let Some(receiver) = receiver {
                self.progress.phase(&self.subject, "deliveries", None);
                let patience = Duration::from_millis(plan.drain_timeout_ms);
                let (delivered, delivery) =
                    receiver.settle(&loaded.acknowledged, loaded.planned, load_end, patience).await;
                (ledger.delivered, ledger.delivery) = (Some(delivered), Some(delivery));
            }
            result.ledger = Some(ledger);
            if let Some(part) = part {
                part.last_read_at = start::time_of_day(clock, clock.now_ns());
            }
            caveats.extend(error.map(|error| self.incomplete_ledger(&error)));
            let beyond = loaded.acknowledged_beyond;
            caveats.extend((beyond > 0).then(|| self.full_ledger(beyond)));
        }
        if plan.idle_ms > 0 && self.resolved.watches_target() && !self.context.is_stopped() {
            if self.resolved.part.is_some() {
                self.let_others_read(load_end).await;
            }
            let first = result.ledger.is_some().then_some((loaded.planned, &mut payloads));
            result.idle = Some(self.idle(running, clock, &destination, first, load_end).await);
        }
        result.load = loaded.load;
        result.resources = loaded.resources;
        result.health = Some(loaded.health);
        result.durability = loaded.durability;
        Ok(())
    }

    /// Waits until it is time for this part of a load; when its warm-up begins, ns since the Unix epoch.
    async fn meet_others(&self, target: &Target, part: &mut model::Shard) -> Result<u64, start::StartError> {
        self.progress.phase(&self.subject, "waiting for the start", None);
        let Some(Part { start_at, .. }) = self.resolved.part else { return Ok(0) };
        let met = start::meet(target, &self.resolved.plan, start_at, &self.context.stop).await?;
        match met.clock {
            Ok(clock) => part.clock = Some(clock),
            Err(reason) => part.clock_unknown = Some(reason),
        }
        Ok(met.begin_unix_ns)
    }

    /// The others ask for what is persisted, each for as long as its patience lasts: a target that answers is not idle.
    async fn let_others_read(&self, load_end: Instant) {
        self.progress.phase(&self.subject, "the other parts' drain", None);
        let until = load_end + Duration::from_millis(self.resolved.plan.drain_timeout_ms);
        while Instant::now() < until && !self.context.is_stopped() {
            sleep(LOOK_EVERY.min(until - Instant::now())).await;
        }
    }

    /// Starts a receiver, and has the events of every organisation delivered to it.
    async fn receive_webhooks(
        &self,
        running: &Running,
        clock: Clock,
        payloads: &Payloads,
    ) -> Result<Receiver, SteadyOrTarget> {
        if !running.target.is_local() {
            return Err(SteadyOrTarget::NotLocal);
        }
        let kept = self.resolved.plan.ledger_events_max;
        let receiver = Receiver::start(clock, payloads, kept, running.keys.len()).map_err(SteadyOrTarget::Receiver)?;
        for (number, key) in running.keys.iter().enumerate() {
            if let Some(secret) = running.target.set_webhook(key, &receiver.url(number)).await? {
                receiver.expect_signed(number, &secret);
            }
        }
        Ok(receiver)
    }

    async fn load(
        &self,
        running: &mut Running,
        clock: Clock,
        destination: &Destination,
        payloads: &Payloads,
        seed: u64,
        begin_at_ns: Option<u64>,
    ) -> Result<Loaded, steady::SteadyError> {
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        self.progress.phase(&self.subject, "load", Some(&snapshot));
        self.progress.offered(self.resolved.rate_per_s());
        let steady = Steady {
            resolved: self.resolved,
            clock,
            target: &running.target,
            begin_at_ns,
            destination: destination.clone(),
            payloads: payloads.clone(),
            seed,
            stop: &self.context.stop,
            rows: self
                .context
                .samples
                .as_ref()
                .map(|file| file.rows(&self.variant.name, self.repetition, clock, payloads.clone())),
            spans: (self.context.telemetry.as_ref())
                .map(|telemetry| telemetry.spans(&self.events_name, clock, payloads.clone())),
            snapshot,
            progress: self.progress,
            server_pids: running.server_pids.clone(),
            database: running.host.database(),
        };
        steady.run().await
    }

    async fn reconcile(
        &self,
        running: &Running,
        clock: Clock,
        payloads: &Payloads,
        loaded: &Loaded,
        load_end: Instant,
    ) -> (model::Ledger, Option<ReadError>) {
        self.progress.phase(&self.subject, "drain", None);
        let account = Account {
            acknowledged: &loaded.acknowledged,
            repeats_accepted: loaded.repeats_accepted,
            planned: loaded.planned,
            kept: self.resolved.plan.ledger_events_max,
            acknowledged_beyond: loaded.acknowledged_beyond,
            payloads,
            keys: &running.keys,
            steady_begin_ns: loaded.steady_begin_ns,
            load_end,
            patience: Duration::from_millis(self.resolved.plan.drain_timeout_ms),
            source: running.host.source(),
        };
        ledger::reconcile(&account, &running.target, clock).await
    }

    async fn idle(
        &self,
        running: &mut Running,
        clock: Clock,
        destination: &Destination,
        first: Option<(u64, &mut Payloads)>,
        load_end: Instant,
    ) -> model::Idle {
        self.progress.phase(&self.subject, "idle", None);
        let length = Duration::from_millis(self.resolved.plan.idle_ms);
        let (target, database) = (&running.target, running.host.database());
        let mut watched = idle::watch(target, database, length, load_end, &self.context.stop, self.progress).await;
        if let Some((sequence, payloads)) = first.filter(|_| !self.context.is_stopped()) {
            self.progress.phase(&self.subject, "first event", None);
            let needle = Needle { dedup_id: payloads.dedup_id(sequence), payload_part: Payloads::digits(sequence) };
            let first = First { body: payloads.body(sequence), rows: running.host.rows().map(|rows| (rows, needle)) };
            watched.first_event = idle::first_event(target, destination, &running.keys[0], first, clock).await;
        }
        watched
    }

    /// The target answered the load and then could not show what it kept: nobody is guilty, nothing is proven.
    fn incomplete_ledger(&self, error: &ReadError) -> Caveat {
        Caveat {
            kind: CaveatKind::LedgerIncomplete,
            subject: Some(self.variant.name.clone()),
            detail: format!("what it kept could not be read to the end: {error}"),
            remedy: match error {
                ReadError::Target(_) => {
                    "mend the inbox, or leave the ledger out with --no-ledger (the result then says so)"
                }
                ReadError::Rows(_) => "mend the query or its database, or leave the ledger out with --no-ledger",
                ReadError::Nowhere => "give a query with [persisted] source = \"sql\", if it keeps them in a database",
            }
            .to_owned(),
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
        match (self.profile(), &self.variant.url) {
            (Some(profile), _) => self.start_profile(profile).await,
            (None, Some(url)) => {
                let (target, keys) = self.meet(url).await?;
                Ok(Running { target, host: Host::Foreign, keys, server_pids: Vec::new() })
            }
            (None, None) => self.start_reference().await,
        }
    }

    /// Of the variant, if it has one.
    fn profile(&self) -> Option<&Arc<Profile>> {
        self.variant.profile.as_ref().and_then(|_| self.resolved.profiles.get(&self.variant.name))
    }

    async fn start_reference(&self) -> Result<Running, StartError> {
        let reference = Reference::start(&self.configuration()).await?;
        match self.meet(&reference.url).await {
            Ok((target, keys)) => {
                let server_pids = vec![reference.pid];
                Ok(Running { target, host: Host::Reference(Box::new(reference)), keys, server_pids })
            }
            Err(error) => {
                // Its database goes with it; why there is no key says more than how it ended.
                let _ = reference.stop().await;
                Err(error.into())
            }
        }
    }

    async fn start_profile(&self, profile: &Arc<Profile>) -> Result<Running, StartError> {
        if profile.prepare.is_some() {
            self.progress.phase(&self.subject, "preparing", None);
            profile.prepare().await?;
            self.progress.phase(&self.subject, "starting", None);
        }
        let surroundings = Surroundings {
            postgres_url: self.resolved.postgres_url.as_deref(),
            database_name: self.database_name(),
            reach: self.resolved.reach(),
        };
        let started = Started::start(profile, &surroundings).await?;
        match self.introduce(&started).await {
            Ok((keys, server_pids)) => {
                let target = started.target.clone();
                Ok(Running { target, host: Host::Profile(Box::new(started)), keys, server_pids })
            }
            Err(error) => {
                let _ = started.stop().await;
                Err(error.into())
            }
        }
    }

    /// The keys to send with, and whose CPU time is the target's.
    async fn introduce(&self, started: &Started) -> Result<(Vec<String>, Vec<u32>), LaunchError> {
        let mut keys = self.resolved.keys.clone();
        if keys.is_empty() {
            keys = started.keys(self.resolved.plan.organizations, &self.events_name).await?;
        }
        Ok((keys, started.process_ids().await?))
    }

    /// The target at `url`, and the keys to send with.
    async fn meet(&self, url: &str) -> Result<(Target, Vec<String>), TargetError> {
        let target = Target::new(url, &self.resolved.reach())?;
        let mut keys = self.resolved.keys.clone();
        if keys.is_empty() {
            for organization in 1..=self.resolved.plan.organizations {
                keys.push(target.generate_key(&format!("{} {organization}", self.events_name)).await?);
            }
        }
        Ok((target, keys))
    }

    fn database_name(&self) -> String {
        format!("millrace_{}", self.events_name.replace(['-', '.'], "_"))
    }

    fn configuration(&self) -> Configuration<'_> {
        let plan = &self.resolved.plan;
        let faults = plan.faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]);
        // The receiver of its webhooks is at 127.0.0.1.
        let leave = plan.webhooks.then(|| "--webhook-private-addresses".to_owned());
        let realtime = plan.realtime.filter(|who| who.has_server()).map(|_| "--realtime".to_owned());
        let followed = self.context.telemetry.iter().flat_map(|telemetry| telemetry.server_flags());
        Configuration {
            mode: self.variant.mode.as_deref().unwrap_or("cache-first"),
            polling: self.variant.polling.as_deref().unwrap_or("wake"),
            postgres_url: self.resolved.postgres_url.as_deref(),
            database_name: self.database_name(),
            program: self.resolved.server.program.as_deref(),
            flags: faults
                .chain(leave)
                .chain(realtime)
                .chain(followed)
                .chain(self.resolved.server.flags.iter().cloned())
                .collect(),
        }
    }

    async fn describe(&self, result: &mut TargetResult, running: &mut Running) -> Vec<Caveat> {
        running.target.url().clone_into(&mut result.url);
        let mut caveats = Vec::new();
        if let Some(scrape) = running.target.metrics().await {
            let label = |label| scrape.label("ingest_build_info", label).map(str::to_owned);
            result.server_version = label("version");
            result.mode = result.mode.take().or_else(|| label("mode"));
            result.polling = result.polling.take().or_else(|| label("polling"));
            result.database = label("database");
            caveats.extend(label("faults").filter(|faults| !faults.is_empty()).map(|faults| self.faulty(&faults)));
        }
        if let Some(database) = running.host.database() {
            result.database = database.version().await.ok().map(|version| format!("PostgreSQL {version}"));
            caveats.extend(database.statements.as_ref().err().map(|reason| self.no_statement_count(reason)));
        } else if let Host::Profile(started) = &running.host {
            let is_sqlite = !matches!(started.profile().database, DatabaseKind::None);
            result.database = result.database.take().or_else(|| is_sqlite.then(|| "SQLite".to_owned()));
        }
        caveats
    }

    /// What a target that was to tell the same receiver has not told it, by its own count.
    async fn untold(&self, target: &Target) -> Option<Caveat> {
        self.context.telemetry.as_ref()?;
        let scrape = target.metrics().await?;
        let spans = |outcome| scrape.get_where("ingest_otlp_spans_total", "outcome", outcome).unwrap_or(0.0) as u64;
        let (dropped, lost) = (spans("dropped"), spans("lost"));
        let detail = format!(
            "of the target's spans {dropped} were dropped for want of room and {lost} not taken by the receiver"
        );
        (dropped + lost > 0).then(|| telemetry::incomplete(Some(self.variant.name.clone()), detail))
    }

    fn faulty(&self, faults: &str) -> Caveat {
        Caveat {
            kind: CaveatKind::FaultsInjected,
            subject: Some(self.variant.name.clone()),
            detail: format!("it says that it breaks its promises on purpose: {faults}"),
            remedy: "start it without --fault, and without INGEST_FAULT in its environment, to measure it itself"
                .to_owned(),
            invalidates: false,
        }
    }

    fn no_statement_count(&self, reason: &str) -> Caveat {
        Caveat {
            kind: CaveatKind::SqlCountUnavailable,
            subject: Some(self.variant.name.clone()),
            detail: format!(
                "PostgreSQL does not count statements here ({reason}): idle SQL is by the server's own word"
            ),
            remedy:
                "start PostgreSQL with shared_preload_libraries = 'pg_stat_statements', and install its contrib modules"
                    .to_owned(),
            invalidates: false,
        }
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
    #[error("the receiver of webhooks could not be started: {0}")]
    Receiver(std::io::Error),
    #[error("--webhooks: the receiver is at 127.0.0.1, and this target is on another machine; run loadgen there")]
    NotLocal,
    #[error(transparent)]
    Start(#[from] start::StartError),
    #[error(transparent)]
    Steady(#[from] steady::SteadyError),
    #[error(transparent)]
    Target(#[from] TargetError),
}
