//! A plan as asked for: the same keys as flags and in a TOML file, and which of them win.

use std::path::{Path, PathBuf};

use clap::Args;
use reports::model::Role;
use serde::Deserialize;

use super::PlanError;
use super::limit;
use super::spelling::{Arrivals, AskedMix, AskedPacing, AskedRealtime, AskedShape, AskedSizes, Http, ShapeKind, Span};
use crate::shard::Shard;

/// Headings of the flags in `--help`.
const TARGETS: &str = "What is measured";
const LOAD: &str = "Load";
const PHASES: &str = "How long and how often";
const CONNECTIONS: &str = "Connections";
const JUDGING: &str = "What is looked at";

/// A plan as asked for: every key is a flag and a key of a plan file; what is left out has a default.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// What is measured: the URL of a server that runs, or a target profile; repeatable [default: the reference server, started]
    ///
    /// A URL is http://HOST:PORT or https://HOST:PORT; a profile says how to start and read a server (a TOML file, or a folder with a
    /// profile.toml in it; docs/target-profiles.md)
    #[arg(long, value_name = "URL|PROFILE", help_heading = TARGETS)]
    pub target: Vec<String>,

    /// API key for --target [default: the target is asked for one]
    #[arg(long, value_name = "KEY", help_heading = TARGETS)]
    pub api_key: Option<String>,

    /// File with API keys for --target, one a line, 1 to 10000
    ///
    /// Each is of another organisation; the load goes round them
    #[arg(long, value_name = "FILE", help_heading = TARGETS)]
    pub keys_file: Option<PathBuf>,

    /// Modes of the reference server: null, cache-first, journal-first, db-first [default: null,cache-first,db-first]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',', help_heading = TARGETS)]
    pub mode: Vec<String>,

    /// Polling policies of the reference server: fixed, adaptive, wake [default: wake]
    #[arg(long, value_name = "POLICY,…", value_delimiter = ',', help_heading = TARGETS)]
    pub polling: Vec<String>,

    /// Database of the servers that are started: sqlite or postgres://USER@HOST:PORT/NAME [default: sqlite]
    ///
    /// sqlite is a file in a temporary folder; on PostgreSQL a fresh database is made for each repetition, and dropped
    #[arg(long, value_name = "DATABASE", help_heading = TARGETS)]
    pub database: Option<String>,

    /// Fault that the reference server shall have, to see it found (`loadgen serve --help` lists them); repeatable
    #[arg(long, value_name = "FAULT", help_heading = TARGETS)]
    pub fault: Vec<String>,

    /// Events per second that are offered, 0.1 to 200000 [default: 1000]
    ///
    /// With --shard that of all parts together, up to 200000 for each and 2000000 in all
    #[arg(long, value_name = "PER_S", value_parser = limit::RATE.number(), help_heading = LOAD)]
    pub rate: Option<f64>,

    /// How intended send times are drawn [default: poisson]
    #[arg(long, value_enum, help_heading = LOAD)]
    pub arrivals: Option<Arrivals>,

    /// How the rate changes over the steady phase: constant, ramp, steps or burst [default: constant]
    ///
    /// 'ramp 100..5000'; 'steps 1000,2000,4000' (equally long; add shuffled for an order that the seed decides, mirrored for up and down
    /// again); 'burst 10000 for 100ms every 1s' (--rate between the bursts, each in the middle of its period). The warm-up runs at the
    /// rate with which it begins
    #[arg(long, value_name = "SHAPE", help_heading = LOAD)]
    pub shape: Option<AskedShape>,

    /// Recorded timeline to send again in the steady phase, in place of --rate, --shape and --duration
    ///
    /// CSV with a header and the columns offset_s (or offset_ms, offset_us, offset_ns) and, if sizes were recorded, payload_bytes. The
    /// warm-up runs at its mean rate
    #[arg(long, value_name = "FILE.csv", help_heading = LOAD)]
    pub replay: Option<PathBuf>,

    /// How many times as fast as it was recorded --replay is sent, 0.001 to 1000 [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = limit::REPLAY_SPEED.number(), help_heading = LOAD)]
    pub replay_speed: Option<f64>,

    /// Length of the warm-up, which is not measured, 0s to 24h [default: 3s]
    #[arg(long, value_name = "TIME", help_heading = PHASES)]
    pub warmup: Option<Span>,

    /// Length of the steady phase, which is measured, 100ms to 24h [default: 12s]
    #[arg(long, value_name = "TIME", help_heading = PHASES)]
    pub duration: Option<Span>,

    /// Length of the idle phase, up to 24h; 0s leaves it out [default: 20s]
    #[arg(long, value_name = "TIME", help_heading = PHASES)]
    pub idle: Option<Span>,

    /// How long to wait after the load for acknowledged events to be persisted, 0s to 24h [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = PHASES)]
    pub drain_timeout: Option<Span>,

    /// An answer that takes longer is timed out, 1ms to 24h [default: 5s]
    ///
    /// An event that waits longer for a connection is not sent
    #[arg(long, value_name = "TIME", help_heading = CONNECTIONS)]
    pub request_timeout: Option<Span>,

    /// What is asked of the target, by weight, such as 'ingest 90, batch 5, inbox 4, ack 1' [default: ingest 1]
    ///
    /// ingest (one event), batch (--batch-events of them), inbox (read persisted events), ack (take one out of the inbox)
    #[arg(long, value_name = "OPERATION WEIGHT, …", help_heading = LOAD)]
    pub mix: Option<AskedMix>,

    /// Events in one batch, 1 to 1000 [default: 10]
    #[arg(long, value_name = "N", value_parser = limit::BATCH_EVENTS.number(), help_heading = LOAD)]
    pub batch_events: Option<u32>,

    /// Protocol of the load's connections [default: 1.1]
    #[arg(long, value_enum, value_name = "VERSION", help_heading = CONNECTIONS)]
    pub http: Option<Http>,

    /// Connections, all opened before the warm-up, 1 to 10000; --streams requests at a time on each [default: 64]
    #[arg(long, value_name = "N", value_parser = limit::CONNECTIONS.number(), help_heading = CONNECTIONS)]
    pub connections: Option<u32>,

    /// Concurrent requests on one HTTP/2 connection, 1 to 1000 [default: 1]
    #[arg(long, value_name = "N", value_parser = limit::STREAMS.number(), help_heading = CONNECTIONS)]
    pub streams: Option<u32>,

    /// How to wait for what is due [default: hybrid]
    ///
    /// sleep is cheapest, and as late as the machine takes to wake up, some 50 µs; hybrid sleeps, and spins for as long as sleeps end late,
    /// 100 µs at most; spin takes a core for the generator alone, which on a machine with fewer than two cores to spare delays the target
    #[arg(long, value_enum, value_name = "HOW", help_heading = LOAD)]
    pub pacing: Option<AskedPacing>,

    /// Niceness of the sending thread, -20 to 0: below 0 it goes before what else wants its processor [default: 0]
    ///
    /// Where generator and server share cores, events leave on time, and the server has what is left. Below 0 takes root or CAP_SYS_NICE
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = limit::SENDER_NICE.number(),
        help_heading = LOAD
    )]
    pub sender_nice: Option<i32>,

    /// Who gets a processor before every other thread of the machine [default: nobody]
    ///
    /// Where generator and server share cores, most of the slowest percent of the response times is waiting for a processor. Those named here
    /// wait for each other alone, and whatever else runs there has what is left. Takes root, CAP_SYS_NICE or an rtprio limit of 3 (Linux,
    /// SCHED_RR)
    #[arg(long, value_enum, value_name = "WHO", help_heading = LOAD)]
    pub realtime: Option<AskedRealtime>,

    /// Certificate (PEM) of an authority to trust beside the system's, for https targets
    #[arg(long, value_name = "FILE", help_heading = CONNECTIONS)]
    pub tls_ca: Option<PathBuf>,

    /// Do not verify the certificates of https targets; the result says so
    #[arg(long, help_heading = CONNECTIONS)]
    pub tls_insecure: bool,

    /// Size of each event's JSON payload in bytes, 37 to 262144 [default: 256]
    ///
    /// One for all, a range such as 100..2000 (each size equally often), or 'lognormal 256 p99 4000' (median and p99); with --replay for
    /// events without a recorded size
    #[arg(long, value_name = "BYTES", help_heading = LOAD)]
    pub payload_bytes: Option<AskedSizes>,

    /// Share of events, 0 to 0.9, that repeat an acknowledged one and must be refused with 409 [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = limit::DUPLICATES_SHARE.number(), help_heading = LOAD)]
    pub duplicates_share: Option<f64>,

    /// Organisations (API keys) that the load is spread over, 1 to 10000 [default: 1]
    #[arg(long, value_name = "N", value_parser = limit::ORGANIZATIONS.number(), help_heading = LOAD)]
    pub organizations: Option<u32>,

    /// Seed of the schedule, the payloads and the repeats, a whole number [default: 1]
    #[arg(long, value_name = "N", value_parser = limit::SEED.number(), help_heading = LOAD)]
    pub seed: Option<u64>,

    /// Measure everything this often, 1 to 1000 times [default: 1]
    ///
    /// Each time with a fresh server, in an order that the seed decides
    #[arg(long, value_name = "N", value_parser = limit::REPEAT.number(), help_heading = PHASES)]
    pub repeat: Option<u32>,

    /// Objective such as 'response_time.p99 < 1ms' or 'cache-first: ledger.lost == 0'; repeatable
    #[arg(long, value_name = "OBJECTIVE", help_heading = JUDGING)]
    pub slo: Vec<String>,

    /// Do not reconcile what was acknowledged with what is persisted (for a target that cannot show what it keeps)
    #[arg(long, help_heading = JUDGING)]
    pub no_ledger: bool,

    /// Have every event delivered by webhook, and enter into the ledger what came
    ///
    /// The receiver runs inside of the generator, at 127.0.0.1. Told is what is missing, repeated, altered, badly signed, out of order, and
    /// how long it took. A target that already runs must be on this machine and have leave to use such addresses (the reference server:
    /// --webhook-private-addresses)
    #[arg(long, help_heading = JUDGING)]
    pub webhooks: bool,

    /// Do not measure the floor of this machine before the first repetition (a server that does nothing, for four seconds)
    #[arg(long, help_heading = JUDGING)]
    pub no_calibration: bool,

    /// First events of a repetition that the ledger keeps, at 90 bytes of memory each, 1 to 1000000000 [default: 20000000]
    ///
    /// What is acknowledged of later ones is unverified, and the result says so
    #[arg(long, value_name = "N", value_parser = limit::LEDGER_EVENTS.number(), help_heading = JUDGING)]
    pub ledger_events_max: Option<u64>,

    /// Which part of the load is sent here: no part of a plan, which is the same for all of them.
    #[arg(skip)]
    #[serde(skip)]
    pub shard: Option<Shard>,

    /// Name of the plan (in a file).
    #[arg(skip)]
    pub name: Option<String>,

    /// Explicit list of what is measured (in a file), in place of the product of `mode` and `polling`.
    #[arg(skip)]
    pub variants: Vec<AskedVariant>,
}

/// One entry of `[[variants]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedVariant {
    /// Heading; without one the mode.
    pub name: Option<String>,
    /// See `--mode`.
    pub mode: String,
    /// See `--polling`.
    pub polling: String,
    /// Side of a before-and-after table.
    pub role: Option<Role>,
}

/// The built-in plans, as TOML.
pub const BUILT_IN: [(&str, &str); 2] = [
    ("default", include_str!("../../plans/default.toml")),
    ("before-after", include_str!("../../plans/before-after.toml")),
];

impl Asked {
    /// Reads a plan file. Paths in it are taken from where it lies.
    pub fn from_file(path: &Path) -> Result<Self, PlanError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PlanError::Unreadable { path: path.to_owned(), source })?;
        let mut asked = Self::from_toml(&text, path)?;
        asked.name = asked.name.or_else(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        for file in [&mut asked.replay, &mut asked.keys_file, &mut asked.tls_ca].into_iter().flatten() {
            *file = path.parent().unwrap_or(Path::new("")).join(&file);
        }
        for target in asked.target.iter_mut().filter(|target| !is_url(target)) {
            *target = path.parent().unwrap_or(Path::new("")).join(&target).display().to_string();
        }
        Ok(asked)
    }

    /// One of [`BUILT_IN`].
    pub fn built_in(name: &str) -> Result<Self, PlanError> {
        let (_, text) =
            BUILT_IN.iter().find(|(known, _)| *known == name).ok_or_else(|| PlanError::UnknownPlan(name.to_owned()))?;
        Self::from_toml(text, Path::new(name))
    }

    /// Reads the text of a plan file; `path` is for its errors.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, PlanError> {
        toml::from_str(text).map_err(|source| PlanError::Toml { path: path.to_owned(), source: Box::new(source) })
    }

    /// This, with what it leaves out taken from `base`.
    pub fn over(self, base: Self) -> Self {
        let base = self.displace(base);
        let list = |own: Vec<String>, base: Vec<String>| if own.is_empty() { base } else { own };
        // Modes or policies on the command line ask for another set of variants than the file's.
        let variants = if self.mode.is_empty() && self.polling.is_empty() { base.variants } else { Vec::new() };
        Self {
            target: list(self.target, base.target),
            api_key: self.api_key.or(base.api_key),
            keys_file: self.keys_file.or(base.keys_file),
            mode: list(self.mode, base.mode),
            polling: list(self.polling, base.polling),
            database: self.database.or(base.database),
            fault: list(self.fault, base.fault),
            rate: self.rate.or(base.rate),
            arrivals: self.arrivals.or(base.arrivals),
            shape: self.shape.or(base.shape),
            replay: self.replay.or(base.replay),
            replay_speed: self.replay_speed.or(base.replay_speed),
            warmup: self.warmup.or(base.warmup),
            duration: self.duration.or(base.duration),
            idle: self.idle.or(base.idle),
            drain_timeout: self.drain_timeout.or(base.drain_timeout),
            request_timeout: self.request_timeout.or(base.request_timeout),
            mix: self.mix.or(base.mix),
            batch_events: self.batch_events.or(base.batch_events),
            http: self.http.or(base.http),
            connections: self.connections.or(base.connections),
            streams: self.streams.or(base.streams),
            pacing: self.pacing.or(base.pacing),
            sender_nice: self.sender_nice.or(base.sender_nice),
            realtime: self.realtime.or(base.realtime),
            tls_ca: self.tls_ca.or(base.tls_ca),
            tls_insecure: self.tls_insecure || base.tls_insecure,
            payload_bytes: self.payload_bytes.or(base.payload_bytes),
            duplicates_share: self.duplicates_share.or(base.duplicates_share),
            organizations: self.organizations.or(base.organizations),
            seed: self.seed.or(base.seed),
            repeat: self.repeat.or(base.repeat),
            slo: list(self.slo, base.slo),
            no_ledger: self.no_ledger || base.no_ledger,
            webhooks: self.webhooks || base.webhooks,
            no_calibration: self.no_calibration || base.no_calibration,
            ledger_events_max: self.ledger_events_max.or(base.ledger_events_max),
            shard: self.shard.or(base.shard),
            name: self.name.or(base.name),
            variants,
        }
    }

    /// `base` without what says in another way what this says: two ways in one place are a mistake, a flag against a file is a wish.
    fn displace(&self, mut base: Self) -> Self {
        if !self.target.is_empty() {
            // How the reference server would be started says nothing about servers that already run.
            (base.mode, base.polling, base.variants, base.fault) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        }
        if self.shape.as_ref().is_some_and(AskedShape::has_rates) {
            base.rate = None;
        }
        if self.replay.is_some() {
            (base.rate, base.shape, base.duration) = (None, None, None);
        }
        if self.api_key.is_some() || self.keys_file.is_some() {
            (base.api_key, base.keys_file, base.organizations) = (None, None, None);
        }
        if matches!(self.realtime, Some(AskedRealtime::Sender | AskedRealtime::Both)) {
            base.sender_nice = None;
        }
        if self.http == Some(Http::Http1) {
            base.streams = None;
        }
        base
    }
}

/// Whether a target is a URL; else it is the path of a profile.
pub(super) fn is_url(target: &str) -> bool {
    target.contains("://")
}

impl AskedShape {
    /// Whether it leaves nothing for `--rate` to say.
    pub fn has_rates(&self) -> bool {
        matches!(self.kind, ShapeKind::Ramp(..) | ShapeKind::Steps { .. })
    }
}
