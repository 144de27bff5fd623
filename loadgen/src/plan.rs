//! What to measure: the same keys as flags and in a TOML file, checked and with every default filled in.
//!
//! A flag wins over the file, the file over the default. The result is [`reports::model::Plan`], which every result carries.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use reports::model::{self, Role, Variant};
use reports::objective;
use serde::{Deserialize, Deserializer};

use crate::payload::PAYLOAD_BYTES_MIN;

/// Largest payload the contract allows, bytes.
const PAYLOAD_BYTES_MAX: u32 = 256 * 1024;
/// Highest rate that is accepted, events/s: beyond it one sending thread cannot be honest.
const RATE_PER_S_MAX: f64 = 200_000.0;
const CONNECTIONS_MAX: u32 = 10_000;
const ORGANIZATIONS_MAX: u32 = 10_000;
const REPEAT_MAX: u32 = 1_000;
const PHASE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A plan as asked for: every key is a flag and a key of a plan file; what is left out has a default.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Base URL of a server that already runs (http://HOST:PORT); repeatable. Without it the reference server is started
    #[arg(long, value_name = "URL")]
    pub target: Vec<String>,

    /// API key for --target; without it the target is asked for one
    #[arg(long, value_name = "KEY", env = "LOADGEN_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// Modes of the reference server [default: null,cache-first,db-first]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',')]
    pub mode: Vec<String>,

    /// Polling policies of the reference server [default: wake]
    #[arg(long, value_name = "POLICY,…", value_delimiter = ',')]
    pub polling: Vec<String>,

    /// Database of the reference server: `sqlite` (in a temporary folder) or postgres://USER@HOST:PORT/NAME (a fresh database is
    /// made there for each repetition, and dropped) [default: sqlite]
    #[arg(long, value_name = "DATABASE")]
    pub database: Option<String>,

    /// Events per second that are offered, 0.1 to 200000 [default: 1000]
    #[arg(long, value_name = "PER_S")]
    pub rate: Option<f64>,

    /// How intended send times are drawn [default: poisson]
    #[arg(long, value_enum)]
    pub arrivals: Option<Arrivals>,

    /// Length of the warm-up, which is not measured, such as 3s [default: 3s]
    #[arg(long, value_name = "TIME")]
    pub warmup: Option<Span>,

    /// Length of the steady phase, which is measured [default: 12s]
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Span>,

    /// Length of the idle phase; 0s leaves it out [default: 20s]
    #[arg(long, value_name = "TIME")]
    pub idle: Option<Span>,

    /// How long to wait after the load for acknowledged events to be persisted [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<Span>,

    /// An answer that takes longer is timed out; an event that waits longer for a connection is not sent [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub request_timeout: Option<Span>,

    /// Connections, all opened before the warm-up, 1 to 10000; one request at a time on each [default: 64]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,

    /// Size of each event's JSON payload in bytes, 37 to 262144 [default: 256]
    #[arg(long, value_name = "BYTES")]
    pub payload_bytes: Option<u32>,

    /// Share of events, 0 to 0.9, that repeat an acknowledged one and must be refused with 409 [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub duplicates_share: Option<f64>,

    /// Organisations (API keys) that the load is spread over, 1 to 10000 [default: 1]
    #[arg(long, value_name = "N")]
    pub organizations: Option<u32>,

    /// Seed of the schedule, the payloads and the repeats [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Measure everything this often, each time with a fresh server, rotating the order [default: 1]
    #[arg(long, value_name = "N")]
    pub repeat: Option<u32>,

    /// Objective such as 'response_time.p99 < 1ms' or 'cache-first: ledger.lost == 0'; repeatable
    #[arg(long, value_name = "OBJECTIVE")]
    pub slo: Vec<String>,

    /// Do not reconcile what was acknowledged with what is persisted (for a target that cannot show what it keeps)
    #[arg(long)]
    pub no_ledger: bool,

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
    name: Option<String>,
    mode: String,
    polling: String,
    role: Option<Role>,
}

/// How intended send times are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Open loop, exponential gaps: many independent senders
    Poisson,
    /// Open loop, equal gaps
    Constant,
    /// Closed loop: each connection sends when its last answer is in (hides stalls; the result says so)
    Closed,
}

impl From<Arrivals> for model::Arrivals {
    fn from(arrivals: Arrivals) -> Self {
        match arrivals {
            Arrivals::Poisson => Self::Poisson,
            Arrivals::Constant => Self::Constant,
            Arrivals::Closed => Self::Closed,
        }
    }
}

/// A length of time as people write it: `500ms`, `10s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: Result<jiff::SignedDuration, _> = text.parse();
        let span = parsed.ok().and_then(|span| Duration::try_from(span).ok());
        span.map(Self).ok_or_else(|| {
            format!("'{text}' is not a length of time: write a number with a unit, such as 500ms, 10s or 2m")
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What of a plan is not for the result: secrets, and where the database really is.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// For the result, and for everyone who needs no secret.
    pub plan: model::Plan,
    /// Key for a target that already runs.
    pub api_key: Option<String>,
    /// PostgreSQL server to make databases on; `None`: SQLite.
    pub postgres_url: Option<String>,
}

/// The plan cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No such file, or not readable.
    #[error("cannot read plan {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a wrong type.
    #[error("plan {path} is not valid: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what (spans lines).
        source: Box<toml::de::Error>,
    },
    /// No built-in plan of that name.
    #[error("there is no built-in plan '{0}'; there are: {names}", names = BUILT_IN.map(|(name, _)| name).join(", "))]
    UnknownPlan(String),
    /// A value out of its range, or one that does not go with another.
    #[error("{key} = {value}: {problem}; {remedy}")]
    Value {
        /// Flag, as typed.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An objective that does not parse.
    #[error("--slo: {0}")]
    Objective(#[from] reports::objective::ParseError),
}

/// The built-in plans, as TOML.
pub const BUILT_IN: [(&str, &str); 2] =
    [("default", include_str!("../plans/default.toml")), ("before-after", include_str!("../plans/before-after.toml"))];

impl Asked {
    /// Reads a plan file.
    pub fn from_file(path: &Path) -> Result<Self, PlanError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PlanError::Unreadable { path: path.to_owned(), source })?;
        let mut asked = Self::from_toml(&text, path)?;
        asked.name = asked.name.or_else(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        Ok(asked)
    }

    /// One of [`BUILT_IN`].
    pub fn built_in(name: &str) -> Result<Self, PlanError> {
        let (_, text) =
            BUILT_IN.iter().find(|(known, _)| *known == name).ok_or_else(|| PlanError::UnknownPlan(name.to_owned()))?;
        Self::from_toml(text, Path::new(name))
    }

    fn from_toml(text: &str, path: &Path) -> Result<Self, PlanError> {
        toml::from_str(text).map_err(|source| PlanError::Toml { path: path.to_owned(), source: Box::new(source) })
    }

    /// This, with what it leaves out taken from `base`.
    pub fn over(self, mut base: Self) -> Self {
        if !self.target.is_empty() {
            // Which modes the reference server would be started in says nothing about servers that already run.
            (base.mode, base.polling, base.variants) = (Vec::new(), Vec::new(), Vec::new());
        }
        let list = |own: Vec<String>, base: Vec<String>| if own.is_empty() { base } else { own };
        // Modes or policies on the command line ask for another set of variants than the file's.
        let variants = if self.mode.is_empty() && self.polling.is_empty() { base.variants } else { Vec::new() };
        Self {
            target: list(self.target, base.target),
            api_key: self.api_key.or(base.api_key),
            mode: list(self.mode, base.mode),
            polling: list(self.polling, base.polling),
            database: self.database.or(base.database),
            rate: self.rate.or(base.rate),
            arrivals: self.arrivals.or(base.arrivals),
            warmup: self.warmup.or(base.warmup),
            duration: self.duration.or(base.duration),
            idle: self.idle.or(base.idle),
            drain_timeout: self.drain_timeout.or(base.drain_timeout),
            request_timeout: self.request_timeout.or(base.request_timeout),
            connections: self.connections.or(base.connections),
            payload_bytes: self.payload_bytes.or(base.payload_bytes),
            duplicates_share: self.duplicates_share.or(base.duplicates_share),
            organizations: self.organizations.or(base.organizations),
            seed: self.seed.or(base.seed),
            repeat: self.repeat.or(base.repeat),
            slo: list(self.slo, base.slo),
            no_ledger: self.no_ledger || base.no_ledger,
            name: self.name.or(base.name),
            variants,
        }
    }

    /// Checks every value. `modes` and `pollings` are what the reference server knows.
    pub fn resolve(self, modes: &[String], pollings: &[String]) -> Result<Resolved, PlanError> {
        let variants = self.variants(modes, pollings)?;
        let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
        for text in &self.slo {
            objective::parse_for(text, &names)?;
        }
        let postgres_url = self.postgres_url()?;
        let starts_server = variants.iter().any(|variant| variant.url.is_none());
        let kind = if postgres_url.is_some() { "postgres" } else { "sqlite" };
        let plan = model::Plan {
            name: self.name.unwrap_or_else(|| "default".to_owned()),
            variants,
            database: starts_server.then(|| kind.to_owned()),
            arrivals: self.arrivals.unwrap_or(Arrivals::Poisson).into(),
            rate_per_s: within("--rate", self.rate.unwrap_or(1_000.0), 0.1, RATE_PER_S_MAX, "events/s")?,
            warmup_ms: milliseconds("--warmup", self.warmup, 3_000, 0)?,
            duration_ms: milliseconds("--duration", self.duration, 12_000, 100)?,
            idle_ms: milliseconds("--idle", self.idle, 20_000, 0)?,
            drain_timeout_ms: milliseconds("--drain-timeout", self.drain_timeout, 30_000, 0)?,
            request_timeout_ms: milliseconds("--request-timeout", self.request_timeout, 5_000, 1)?,
            connections: within("--connections", self.connections.unwrap_or(64), 1, CONNECTIONS_MAX, "connections")?,
            payload_bytes: within(
                "--payload-bytes",
                self.payload_bytes.unwrap_or(256),
                PAYLOAD_BYTES_MIN,
                PAYLOAD_BYTES_MAX,
                "bytes",
            )?,
            duplicates_share: within(
                "--duplicates-share",
                self.duplicates_share.unwrap_or(0.0),
                0.0,
                0.9,
                "of all events",
            )?,
            organizations: within(
                "--organizations",
                self.organizations.unwrap_or(1),
                1,
                ORGANIZATIONS_MAX,
                "organisations",
            )?,
            seed: self.seed.unwrap_or(1),
            repeat: within("--repeat", self.repeat.unwrap_or(1), 1, REPEAT_MAX, "repetitions")?,
            objectives: self.slo,
            ledger: !self.no_ledger,
        };
        Ok(Resolved { plan, api_key: self.api_key, postgres_url })
    }

    fn postgres_url(&self) -> Result<Option<String>, PlanError> {
        match self.database.as_deref() {
            None | Some("sqlite") => Ok(None),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Some(url.to_owned())),
            Some(other) => Err(PlanError::Value {
                key: "--database",
                value: other.to_owned(),
                problem: "is no database that the reference server can be started on".to_owned(),
                remedy: "give sqlite (a file in a temporary folder) or postgres://USER@HOST:PORT/NAME",
            }),
        }
    }

    fn variants(&self, modes: &[String], pollings: &[String]) -> Result<Vec<Variant>, PlanError> {
        if !self.target.is_empty() {
            return self.running_targets();
        }
        let explicit = self
            .variants
            .iter()
            .map(|asked| (asked.mode.clone(), asked.polling.clone(), asked.name.clone(), asked.role));
        let asked: Vec<_> = if self.variants.is_empty() { self.product() } else { explicit.collect() };
        for (mode, polling, ..) in &asked {
            known("--mode", mode, modes)?;
            known("--polling", polling, pollings)?;
        }
        let mut variants: Vec<Variant> = Vec::new();
        for (mode, polling, name, role) in asked {
            let name = name.unwrap_or_else(|| mode.clone());
            let (mode, polling) = (Some(mode), Some(polling));
            if !variants.iter().any(|variant| variant.name == name) {
                variants.push(Variant { name, url: None, mode, polling, role });
            }
        }
        Ok(variants)
    }

    fn running_targets(&self) -> Result<Vec<Variant>, PlanError> {
        let owned_by_server =
            [("--mode", &self.mode), ("--polling", &self.polling)].into_iter().find(|(_, list)| !list.is_empty());
        if let Some((key, list)) = owned_by_server {
            return Err(PlanError::Value {
                key,
                value: list.join(","),
                problem: "does not go with --target, whose mode was chosen when it was started".to_owned(),
                remedy: "leave one of the two out",
            });
        }
        let variant = |url: &String| Variant {
            name: url.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            url: Some(url.clone()),
            mode: None,
            polling: None,
            role: None,
        };
        Ok(self.target.iter().map(variant).collect())
    }

    /// Modes times policies. `null` does not poll, so it is there once, whatever the policies.
    fn product(&self) -> Vec<(String, String, Option<String>, Option<Role>)> {
        let or = |own: &Vec<String>, default: &[&str]| {
            if own.is_empty() { default.iter().map(|&text| text.to_owned()).collect() } else { own.clone() }
        };
        let modes = or(&self.mode, &["null", "cache-first", "db-first"]);
        let pollings = or(&self.polling, &["wake"]);
        let combine = |mode: &String| {
            let named = |polling: &String| (pollings.len() > 1 && mode != "null").then(|| format!("{mode}/{polling}"));
            pollings.iter().map(|polling| (mode.clone(), polling.clone(), named(polling), None)).collect::<Vec<_>>()
        };
        modes.iter().flat_map(combine).collect()
    }
}

fn known(key: &'static str, value: &str, all: &[String]) -> Result<(), PlanError> {
    if all.iter().any(|known| known == value) {
        return Ok(());
    }
    let problem = format!("is unknown; allowed: {}", all.join(", "));
    Err(PlanError::Value {
        key,
        value: value.to_owned(),
        problem,
        remedy: "choose one or more of these, separated by commas",
    })
}

fn within<T: PartialOrd + fmt::Display>(
    key: &'static str,
    value: T,
    min: T,
    max: T,
    unit: &str,
) -> Result<T, PlanError> {
    if value >= min && value <= max {
        return Ok(value);
    }
    let problem = format!("is out of range; allowed: {min} to {max} {unit}");
    Err(PlanError::Value { key, value: value.to_string(), problem, remedy: "choose a value in that range" })
}

fn milliseconds(key: &'static str, span: Option<Span>, default_ms: u64, min_ms: u64) -> Result<u64, PlanError> {
    let ms = span.map_or(default_ms, |Span(span)| span.as_millis() as u64);
    within(key, ms, min_ms, PHASE_MAX.as_millis() as u64, "ms")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        asked: Asked,
    }

    fn flags(arguments: &[&str]) -> Asked {
        Flags::parse_from([&["loadgen"], arguments].concat()).asked
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    fn resolve(asked: Asked) -> Result<Resolved, PlanError> {
        asked.resolve(&strings(&["null", "cache-first", "db-first"]), &strings(&["fixed", "adaptive", "wake"]))
    }

    fn names(asked: Asked) -> Vec<String> {
        resolve(asked).expect("a plan").plan.variants.into_iter().map(|variant| variant.name).collect()
    }

    #[test]
    fn built_in_plans_resolve_and_the_default_one_writes_the_defaults_out() {
        for (name, _) in BUILT_IN {
            resolve(Asked::built_in(name).expect(name)).expect(name);
        }
        let written = resolve(Asked::built_in("default").expect("a plan")).expect("a plan").plan;
        assert_eq!(written, resolve(Asked::default()).expect("a plan").plan);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = Asked::from_toml("rate = 50.0\nconnections = 7", Path::new("x.toml")).expect("a plan");
        let plan = resolve(flags(&["--rate", "20"]).over(file)).expect("a plan").plan;
        assert_eq!((plan.rate_per_s, plan.connections, plan.payload_bytes), (20.0, 7, 256));
    }

    #[test]
    fn variants_are_modes_times_policies_with_null_once() {
        assert_eq!(names(flags(&[])), ["null", "cache-first", "db-first"]);
        assert_eq!(
            names(flags(&["--mode", "null,cache-first", "--polling", "adaptive,wake"])),
            ["null", "cache-first/adaptive", "cache-first/wake"]
        );
        assert_eq!(
            names(flags(&["--mode", "db-first"]).over(Asked::built_in("before-after").expect("a plan"))),
            ["db-first"]
        );
    }

    #[test]
    fn a_running_target_takes_the_place_of_the_plans_modes() {
        let base = Asked::built_in("default").expect("a plan");
        let resolved = resolve(flags(&["--target", "http://127.0.0.1:1/"]).over(base)).expect("a plan");
        assert_eq!(resolved.plan.variants[0].name, "127.0.0.1:1");
        assert_eq!(resolved.plan.database, None);
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_key_value_range_and_remedy() {
        for (arguments, expected) in [
            (
                vec!["--rate", "0"],
                "--rate = 0: is out of range; allowed: 0.1 to 200000 events/s; choose a value in that range",
            ),
            (
                vec!["--rate", "NaN"],
                "--rate = NaN: is out of range; allowed: 0.1 to 200000 events/s; choose a value in that range",
            ),
            (
                vec!["--connections", "0"],
                "--connections = 0: is out of range; allowed: 1 to 10000 connections; choose a value in that range",
            ),
            (
                vec!["--payload-bytes", "3"],
                "--payload-bytes = 3: is out of range; allowed: 37 to 262144 bytes; choose a value in that range",
            ),
            (
                vec!["--duration", "1ms"],
                "--duration = 1: is out of range; allowed: 100 to 86400000 ms; choose a value in that range",
            ),
            (
                vec!["--mode", "fast"],
                "--mode = fast: is unknown; allowed: null, cache-first, db-first; choose one or more of these, separated by commas",
            ),
            (
                vec!["--database", "mysql://x"],
                "--database = mysql://x: is no database that the reference server can be started on; give sqlite (a file in a \
                 temporary folder) or postgres://USER@HOST:PORT/NAME",
            ),
            (
                vec!["--target", "http://h", "--mode", "null"],
                "--mode = null: does not go with --target, whose mode was chosen when it was started; leave one of the two out",
            ),
        ] {
            assert_eq!(resolve(flags(&arguments)).expect_err(expected).to_string(), expected);
        }
    }

    #[test]
    fn a_mistake_in_a_file_is_shown_where_it_is() {
        for (text, parts) in [
            ("rate = 1.0\nconections = 3", ["line 2", "unknown field `conections`"]),
            ("warmup = \"3\"", ["line 1", "500ms, 10s or 2m"]),
            ("arrivals = \"gaussian\"", ["line 1", "poisson"]),
        ] {
            let message = Asked::from_toml(text, Path::new("p.toml")).expect_err(text).to_string();
            for part in ["plan p.toml is not valid", parts[0], parts[1]] {
                assert!(message.contains(part), "should say {part:?}: {message}");
            }
        }
    }

    #[test]
    fn objectives_are_checked_before_anything_runs() {
        assert!(matches!(resolve(flags(&["--slo", "response_tme.p99 < 1ms"])), Err(PlanError::Objective(_))));
        assert!(matches!(resolve(flags(&["--slo", "cache-frist: ledger.lost == 0"])), Err(PlanError::Objective(_))));
        assert!(resolve(flags(&["--slo", "cache-first: response_time.p99 < 1ms"])).is_ok());
    }
}
