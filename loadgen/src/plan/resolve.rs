//! Checks a plan as asked for, reads the files that it names, and fills in every default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum as _;
use reports::model::{self, HttpVersion, Mix, PayloadSizes};
use reports::objective;

use super::arriving::Arriving;
use super::asked::Asked;
use super::check::{LEAVE_ONE_OUT, read_file, wrong};
use super::limit::{self, milliseconds};
use super::spelling::{AskedPacing, AskedSizes, Http};
use super::{PlanError, Resolved, ServerBuild, profiled};
use crate::payload::{EVENT_FRAME_BYTES_MAX, Sizes};
use crate::priority::Priority;
use crate::profile::{DatabaseKind, Profile};
use crate::replay::Timeline;

/// What the contract allows in one batch.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

impl Asked {
    /// Checks every value, and reads the files that the plan names. `modes` and `pollings` are what the reference server knows.
    pub fn resolve(self, modes: &[String], pollings: &[String]) -> Result<Resolved, PlanError> {
        let (variants, profiles) = self.variants(modes, pollings)?;
        let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
        for text in &self.slo {
            objective::parse_for(text, &names)?;
        }
        let postgres_url = self.postgres_url()?;
        let database = databases(&variants, &profiles, postgres_url.is_some());
        let warmup_ms = milliseconds("--warmup", self.warmup, 3_000, 0)?;
        let Arriving { arrivals, rate_per_s, shape, duration_ms, replay } = self.arriving(warmup_ms)?;
        let (replay, timeline) = replay.unzip();
        let (payload_bytes, payload_sizes) = self.payload_sizes()?;
        let (http, streams) = self.protocol()?;
        let tls_ca = self.tls_ca()?;
        let (keys, organizations) = self.organizations()?;
        self.check_webhooks()?;
        let sender_nice = self.sender_nice()?;
        let realtime = self.realtime()?;
        let share = limit::DUPLICATES_SHARE.check("--duplicates-share", self.duplicates_share.unwrap_or(0.0))?;
        let plan = model::Plan {
            name: self.name.unwrap_or_else(|| "default".to_owned()),
            variants,
            database,
            arrivals,
            rate_per_s,
            shape,
            replay,
            warmup_ms,
            duration_ms,
            idle_ms: milliseconds("--idle", self.idle, 20_000, 0)?,
            drain_timeout_ms: milliseconds("--drain-timeout", self.drain_timeout, 30_000, 0)?,
            request_timeout_ms: milliseconds("--request-timeout", self.request_timeout, 5_000, 1)?,
            mix: self.mix.map_or_else(Mix::default, |asked| asked.0),
            batch_events: limit::BATCH_EVENTS.check("--batch-events", self.batch_events.unwrap_or(10))?,
            pacing: self.pacing.map_or_else(Default::default, Into::into),
            sender_nice,
            realtime,
            http,
            connections: limit::CONNECTIONS.check("--connections", self.connections.unwrap_or(64))?,
            streams,
            tls_ca: self.tls_ca.map(|path| path.display().to_string()),
            tls_insecure: self.tls_insecure,
            faults: self.fault,
            payload_bytes,
            payload_sizes,
            duplicates_share: share,
            organizations,
            seed: self.seed.unwrap_or(1),
            repeat: limit::REPEAT.check("--repeat", self.repeat.unwrap_or(1))?,
            objectives: self.slo,
            ledger: !self.no_ledger,
            webhooks: self.webhooks,
            calibration: !self.no_calibration,
            // Where a run is told is no part of a plan; see `cli::run`.
            followed_share: None,
            ledger_events_max: limit::LEDGER_EVENTS
                .check("--ledger-events-max", self.ledger_events_max.unwrap_or(model::LEDGER_EVENTS_MAX_DEFAULT))?,
        };
        check_batches(&plan, timeline.as_ref())?;
        for profile in profiles.values() {
            profiled::check(profile, &plan, postgres_url.as_deref())?;
        }
        let server = ServerBuild::default();
        Ok(Resolved { plan, keys, postgres_url, profiles, replay: timeline, tls_ca, server, part: None })
    }

    fn sender_nice(&self) -> Result<Option<i32>, PlanError> {
        let Some(nice) = self.sender_nice else { return Ok(None) };
        let nice = limit::SENDER_NICE.check("--sender-nice", nice)?;
        Priority::Nice(nice).try_out().map_err(|error| {
            let problem = format!("this user may not go first ({error})");
            wrong("--sender-nice", nice, problem, "run as root or with CAP_SYS_NICE, or leave it out")
        })?;
        // With a niceness of 0 nothing is asked of the system.
        Ok((nice != 0).then_some(nice))
    }

    fn realtime(&self) -> Result<Option<model::Realtime>, PlanError> {
        let Some(asked) = self.realtime else { return Ok(None) };
        let realtime = model::Realtime::from(asked);
        let refused = |problem: String, remedy: &str| {
            let name = asked.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            wrong("--realtime", name, problem, remedy)
        };
        if realtime.has_sender() && self.sender_nice.is_some() {
            let problem = "does not go with --sender-nice: a niceness is for threads of the usual class";
            return Err(refused(problem.to_owned(), LEAVE_ONE_OUT));
        }
        if realtime.has_sender() && self.pacing == Some(AskedPacing::Spin) {
            let problem =
                "does not go with --pacing spin: a thread that never sleeps would leave no other its processor";
            return Err(refused(
                problem.to_owned(),
                "give --pacing hybrid, which spins only for as long as sleeps end late",
            ));
        }
        if realtime.has_server() && !self.target.is_empty() {
            let problem = "is of the reference server, and does not go with --target";
            return Err(refused(problem.to_owned(), "give --realtime sender"));
        }
        // The server finds out for itself, but only when it is started.
        Priority::Realtime.try_out().map_err(|error| {
            let problem = format!("this user may not let threads go before others ({error})");
            refused(problem, "run as root, with CAP_SYS_NICE or an rtprio limit of 3 (ulimit -r 3), or leave it out")
        })?;
        Ok(Some(realtime))
    }

    fn payload_sizes(&self) -> Result<(u32, Option<PayloadSizes>), PlanError> {
        let size = |bytes| limit::PAYLOAD_BYTES.check("--payload-bytes", bytes);
        let ordered = |low: u32, high: u32, problem: &str| {
            let refused = || wrong("--payload-bytes", format!("{low}..{high}"), problem, "write the smaller one first");
            if low <= high { Ok((size(low)?, size(high)?)) } else { Err(refused()) }
        };
        match self.payload_bytes.unwrap_or(AskedSizes::Fixed(256)) {
            AskedSizes::Fixed(bytes) => Ok((size(bytes)?, None)),
            AskedSizes::Uniform(min, max) => {
                let (bytes_min, bytes_max) = ordered(min, max, "ends before it begins")?;
                Ok((bytes_min.midpoint(bytes_max), Some(PayloadSizes::Uniform { bytes_min, bytes_max })))
            }
            AskedSizes::Lognormal(median, p99) => {
                let (bytes_median, bytes_p99) = ordered(median, p99, "has a p99 below its median")?;
                Ok((bytes_median, Some(PayloadSizes::Lognormal { bytes_median, bytes_p99 })))
            }
        }
    }

    fn protocol(&self) -> Result<(HttpVersion, u32), PlanError> {
        let http = self.http.unwrap_or(Http::Http1);
        let streams = limit::STREAMS.check("--streams", self.streams.unwrap_or(1))?;
        if http == Http::Http1 && streams > 1 {
            let problem = "HTTP/1.1 carries one request at a time on a connection";
            return Err(wrong("--streams", streams, problem, "add --http 2, or use more --connections"));
        }
        if http == Http::Http2 && self.target.is_empty() {
            let problem = "is not spoken by the reference server";
            return Err(wrong("--http", 2, problem, "leave it out, or give --target URL"));
        }
        Ok((http.into(), streams))
    }

    /// The certificates to trust, read.
    fn tls_ca(&self) -> Result<Option<Vec<u8>>, PlanError> {
        let https = self.target.iter().any(|url| url.starts_with("https://"));
        let flags = [
            (
                self.tls_ca.is_some(),
                "--tls-ca",
                self.tls_ca.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            ),
            (self.tls_insecure, "--tls-insecure", "true".to_owned()),
        ];
        if let Some((_, key, value)) = flags.into_iter().find(|(given, ..)| *given && !https) {
            return Err(wrong(
                key,
                value,
                "is about https, and no target is",
                "leave it out, or give --target https://HOST:PORT",
            ));
        }
        let Some(path) = &self.tls_ca else { return Ok(None) };
        if self.tls_insecure {
            let problem = "does not go with --tls-insecure, which verifies nothing";
            return Err(wrong("--tls-ca", path.display(), problem, LEAVE_ONE_OUT));
        }
        let pem = read_file("--tls-ca", path)?;
        if !pem.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) {
            let problem = "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)";
            let remedy = "convert it with: openssl x509 -inform der -outform pem";
            return Err(wrong("--tls-ca", path.display(), problem, remedy));
        }
        Ok(Some(pem))
    }

    /// The keys that are known, and the number of organisations.
    fn organizations(&self) -> Result<(Vec<String>, u32), PlanError> {
        let asked = limit::ORGANIZATIONS.check("--organizations", self.organizations.unwrap_or(1))?;
        let Some(path) = &self.keys_file else {
            if self.api_key.is_some() && asked > 1 {
                let problem = "does not go with --api-key (or LOADGEN_API_KEY), which is the key of one";
                return Err(wrong("--organizations", asked, problem, "give the keys of all with --keys-file"));
            }
            return Ok((self.api_key.iter().cloned().collect(), asked));
        };
        let refuse = |problem: &str, remedy| Err(wrong("--keys-file", path.display(), problem, remedy));
        if self.target.is_empty() {
            return refuse("is for --target: the reference server gives keys of its own", "use --organizations");
        }
        if self.api_key.is_some() {
            return refuse("does not go with --api-key (or LOADGEN_API_KEY)", LEAVE_ONE_OUT);
        }
        if self.organizations.is_some() {
            return refuse("does not go with --organizations: it has as many as it has keys", LEAVE_ONE_OUT);
        }
        let keys = keys(path)?;
        let count = keys.len() as u32;
        Ok((keys, count))
    }

    /// Webhooks need somebody to compare them with, and an organisation whose own webhook nobody would miss.
    fn check_webhooks(&self) -> Result<(), PlanError> {
        let given = [
            (self.no_ledger, "does not go with --no-ledger: what is delivered is compared with what was acknowledged"),
            (
                self.api_key.is_some() || self.keys_file.is_some(),
                "does not go with keys of organisations that are there already: it would replace their webhook",
            ),
        ];
        match given.into_iter().find(|(given, _)| self.webhooks && *given) {
            Some((_, problem)) => Err(wrong("--webhooks", true, problem, LEAVE_ONE_OUT)),
            None => Ok(()),
        }
    }

    fn postgres_url(&self) -> Result<Option<String>, PlanError> {
        match self.database.as_deref() {
            None | Some("sqlite") => Ok(None),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Some(url.to_owned())),
            Some(other) => Err(wrong(
                "--database",
                scheme(other),
                "is no database that the reference server can be started on",
                "give sqlite (a file in a temporary folder) or postgres://USER@HOST:PORT/NAME",
            )),
        }
    }
}

/// Of a database that is none, what may be shown: what follows is a password in a URL that is nearly right.
pub fn scheme(url: &str) -> &str {
    url.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// The kinds of databases that servers are started on.
fn databases(
    variants: &[model::Variant],
    profiles: &BTreeMap<String, Arc<Profile>>,
    is_postgres: bool,
) -> Option<String> {
    let of_run = if is_postgres { "postgres" } else { "sqlite" };
    let of_variant = |variant: &model::Variant| match profiles.get(&variant.name).map(|profile| &profile.database) {
        None => variant.url.is_none().then_some(of_run),
        Some(DatabaseKind::Any(_)) => Some(of_run),
        Some(DatabaseKind::Postgres) => Some("postgres"),
        Some(DatabaseKind::Sqlite(_)) => Some("sqlite"),
        Some(DatabaseKind::None | DatabaseKind::Existing(_)) => None,
    };
    let kinds: BTreeSet<&str> = variants.iter().filter_map(of_variant).collect();
    (!kinds.is_empty()).then(|| kinds.into_iter().collect::<Vec<_>>().join(", "))
}

/// A batch of the largest events must be one that the contract allows.
fn check_batches(plan: &model::Plan, timeline: Option<&Arc<Timeline>>) -> Result<(), PlanError> {
    if plan.mix.batch == 0.0 {
        return Ok(());
    }
    let event_bytes_max = Sizes::of(plan, timeline.map(|timeline| (timeline, 0))).bytes_max() + EVENT_FRAME_BYTES_MAX;
    let events_max = BATCH_BYTES_MAX / u64::from(event_bytes_max);
    if u64::from(plan.batch_events) <= events_max {
        return Ok(());
    }
    let problem = format!(
        "with payloads as large as they can be here, a batch would be larger than {BATCH_BYTES_MAX} bytes; allowed: {events_max} events"
    );
    Err(wrong("--batch-events", plan.batch_events, problem, "send fewer in one batch, or smaller payloads"))
}

/// One key a line; empty lines and lines that begin with # are passed over. An error never shows a key.
fn keys(path: &Path) -> Result<Vec<String>, PlanError> {
    let refuse = |problem: String, remedy| Err(wrong("--keys-file", path.display(), problem, remedy));
    let text = String::from_utf8_lossy(&read_file("--keys-file", path)?).into_owned();
    let (mut keys, mut seen) = (Vec::new(), BTreeSet::new());
    for (line, key) in (1..).zip(text.lines().map(str::trim)) {
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(
                format!("line {line} is no key: it has a space or a special character"),
                "write one key a line",
            );
        }
        if !seen.insert(key) {
            return refuse(format!("line {line} repeats a key"), "leave it out");
        }
        if keys.len() == limit::ORGANIZATIONS.max as usize {
            return refuse(format!("has more than {} keys", limit::ORGANIZATIONS.max), "leave some out");
        }
        keys.push(key.to_owned());
    }
    if keys.is_empty() {
        return refuse("has no keys".to_owned(), "write one key a line");
    }
    Ok(keys)
}
