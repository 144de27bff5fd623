//! Every setting of the server: name, unit, default, range. One struct that is at once the flags, the environment variables and `--help`.
//!
//! Not here: what a setting does (that is at its module). Units are in the names; a value out of range is refused at start
//! with the flag, the value, the range and the remedy.

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, Parser, ValueEnum};
use otlp::Endpoint;

use crate::fault::spec::{self, Fault, FaultError, FaultList};

/// When an event is acknowledged. The table of modes stands in README.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Answer 202 and do nothing at all: the floor of the machine. Acknowledgements are worth nothing.
    Null,
    /// Acknowledge once the event is in the bounded pending buffer in memory; persist it in batches behind the answer.
    CacheFirst,
    /// Acknowledge once the event is in the journal, synced with those that wait beside it; persist it in batches behind the answer.
    JournalFirst,
    /// Acknowledge once the event's row is committed.
    DbFirst,
}

impl Mode {
    /// As the flag spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::CacheFirst => "cache-first",
            Self::JournalFirst => "journal-first",
            Self::DbFirst => "db-first",
        }
    }
}

/// When an event counts as being in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JournalSync {
    /// Synced to the device: it survives the process and the machine.
    Always,
    /// Written to the operating system: it survives the process, and not the machine.
    Os,
}

/// When the processor looks for work. See [`crate::polling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Polling {
    /// The old way, kept to compare: a fixed interval, COUNT then SELECT.
    Fixed,
    /// Backs off while nothing comes: 100 ms doubling to 2 s, then 30 s ("deep idle").
    Adaptive,
    /// `adaptive`, and an arrival cuts the wait short.
    Wake,
}

/// Where events are persisted.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// An SQLite file (created when missing).
    Sqlite(PathBuf),
    /// A PostgreSQL connection URL.
    Postgres(String),
}

/// A database setting that is neither `sqlite:PATH` nor `postgres://…`.
#[derive(Debug, thiserror::Error)]
#[error("that is not a database: give sqlite:PATH (a file, created when missing) or postgres://USER@HOST:PORT/NAME")]
pub struct UnknownDatabase;

impl FromStr for Database {
    type Err = UnknownDatabase;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => Err(UnknownDatabase),
        }
    }
}

/// Reads `--database`. Not clap's own way, whose error shows the value: a URL that is nearly right has its password in it.
#[derive(Clone)]
struct DatabaseParser;

impl TypedValueParser for DatabaseParser {
    type Value = Database;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Database, clap::Error> {
        let database = value.to_str().ok_or(UnknownDatabase).and_then(str::parse);
        database.map_err(|error| {
            let message = format!("invalid value for '--database <URL>': {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

impl Database {
    /// `sqlite` or `postgres`: never the URL, which may hold a password.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://…"),
        }
    }
}

/// Where the pending buffer of `cache-first` is.
#[derive(Clone, PartialEq, Eq)]
pub enum QueueAt {
    /// In this process.
    Memory,
    /// In the Redis of this URL.
    Redis(String),
}

/// A queue setting that is neither `memory` nor `redis://…`.
#[derive(Debug, thiserror::Error)]
#[error(
    "that is not a queue: give memory, or redis://HOST:PORT/DB (with USER:PASSWORD@ before HOST where it is asked for; TLS is not spoken)"
)]
pub struct UnknownQueue;

impl FromStr for QueueAt {
    type Err = UnknownQueue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "memory" => Ok(Self::Memory),
            url if url.starts_with("redis://") && redis::Client::open(url).is_ok() => Ok(Self::Redis(url.to_owned())),
            _ => Err(UnknownQueue),
        }
    }
}

impl fmt::Debug for QueueAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Redis(_) => "redis://…",
        })
    }
}

/// Reads `--queue`; see [`DatabaseParser`].
#[derive(Clone)]
struct QueueParser;

impl TypedValueParser for QueueParser {
    type Value = QueueAt;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<QueueAt, clap::Error> {
        let queue = value.to_str().ok_or(UnknownQueue).and_then(str::parse);
        queue.map_err(|error| {
            let message = format!("invalid value for '--queue <QUEUE>': {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// A setting that must not be seen in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// All settings of one server.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "INGEST_LISTEN",
        default_value = "127.0.0.1:8080",
        help_heading = "What to serve"
    )]
    pub listen: SocketAddr,
    /// When an event is acknowledged
    #[arg(long, value_enum, env = "INGEST_MODE", default_value = "cache-first", help_heading = "What to serve")]
    pub mode: Mode,
    /// When the processor looks for work
    #[arg(long, value_enum, env = "INGEST_POLLING", default_value = "wake", help_heading = "What to serve")]
    pub polling: Polling,
    /// Where events are persisted: sqlite:PATH (created when missing) or postgres://USER@HOST:PORT/NAME
    #[arg(
        long,
        value_name = "URL",
        env = "INGEST_DATABASE",
        hide_env_values = true,
        default_value = "sqlite:ingest.db",
        value_parser = DatabaseParser,
        help_heading = "What to serve"
    )]
    pub database: Database,
    /// cache-first: where events wait for the database: memory, or redis://HOST:PORT/DB, which any number of servers share
    #[arg(
        long,
        value_name = "QUEUE",
        env = "INGEST_QUEUE",
        hide_env_values = true,
        default_value = "memory",
        value_parser = QueueParser,
        help_heading = "What to serve"
    )]
    pub queue: QueueAt,
    /// journal-first: folder of the journal, made when missing; one server at a time [default: beside the SQLite file, with .journal
    /// after its name; ./ingest.journal with PostgreSQL]
    #[arg(long, value_name = "DIR", env = "INGEST_JOURNAL_DIR", help_heading = "What to serve")]
    pub journal_dir: Option<PathBuf>,
    /// journal-first: when an event counts as being in the journal
    #[arg(long, value_enum, env = "INGEST_JOURNAL_SYNC", default_value = "always", help_heading = "What to serve")]
    pub journal_sync: JournalSync,
    /// Bearer token that POST /api/keys/generate asks for; needed to listen on an address that is not loopback
    #[arg(
        long,
        value_name = "TOKEN",
        env = "INGEST_ADMIN_TOKEN",
        hide_env_values = true,
        help_heading = "What to serve"
    )]
    pub admin_token: Option<Secret>,
    /// Let webhooks lead to loopback, private and other addresses that are not the public internet
    #[arg(long, env = "INGEST_WEBHOOK_PRIVATE_ADDRESSES", help_heading = "Webhooks")]
    pub webhook_private_addresses: bool,
    /// Let the threads that answer, and the journal's, go before every other thread of the machine
    ///
    /// For a server that shares its processors: the slowest answers wait for a processor. Whatever else wants those processors waits for
    /// the server. Takes root, CAP_SYS_NICE or an rtprio limit of 2 (Linux, SCHED_RR)
    #[arg(long, env = "INGEST_REALTIME", help_heading = "What to serve")]
    pub realtime: bool,
    /// Stop, as on SIGTERM, when standard input ends: a parent that is killed then leaves no orphan
    #[arg(long, env = "INGEST_EXIT_WITH_STDIN", help_heading = "What to serve")]
    pub exit_with_stdin: bool,
    /// What to log to standard error: a level, or a filter such as info,server=debug
    #[arg(long, value_name = "FILTER", env = "INGEST_LOG", default_value = "info", help_heading = "What to serve")]
    pub log: String,

    /// Receiver of spans and metrics, by OTLP over HTTP: http://HOST:PORT, the port usually 4318 [default: none]
    #[arg(long, value_name = "URL", env = "INGEST_OTLP", help_heading = "OpenTelemetry (off by default)")]
    pub otlp: Option<Endpoint>,
    /// What is said with all of them beside the name of the service, such as deployment.environment.name=test
    #[arg(
        long,
        value_name = "NAME=VALUE,…",
        value_delimiter = ',',
        value_parser = otlp_attribute,
        env = "INGEST_OTLP_ATTRIBUTES",
        help_heading = "OpenTelemetry (off by default)"
    )]
    pub otlp_attributes: Vec<(String, String)>,

    /// Faults on purpose; see [`crate::fault`]
    #[arg(long, value_name = "SPEC", env = "INGEST_FAULT", help = spec::help(), help_heading = "Faults (off by default)")]
    pub fault: Vec<FaultList>,
    /// Which events are hit, and by how much: another seed, other ones
    #[arg(
        long,
        value_name = "N",
        env = "INGEST_FAULT_SEED",
        default_value_t = 1,
        help_heading = "Faults (off by default)"
    )]
    pub fault_seed: u64,

    /// Every number.
    #[command(flatten)]
    pub limits: Limits,
}

/// Reads one of `--otlp-attributes`.
fn otlp_attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("is no attribute: give NAME=VALUE, several separated by commas".to_owned()),
    }
}

/// One row of the table of numbers: flag, what it is now, what it may be.
struct Bounded {
    flag: &'static str,
    value: u64,
    range: RangeInclusive<u64>,
}

/// Writes each number down once: field, flag, environment variable, default, allowed range and help come from the same row.
macro_rules! limits {
    ($($heading:literal { $($name:ident, $flag:literal, $env:literal, $default:literal in $min:literal..=$max:literal: $help:literal;)* })*) => {
        /// The numbers among the settings; the unit is in each name.
        #[derive(Clone, Debug, Args)]
        pub struct Limits {
            $($(
                #[doc = $help]
                #[arg(
                    long = $flag,
                    value_name = "N",
                    env = $env,
                    default_value_t = $default,
                    help_heading = $heading,
                    help = concat!($help, " [range: ", stringify!($min), "..=", stringify!($max), "]")
                )]
                pub $name: u64,
            )*)*
        }

        impl Limits {
            fn rows(&self) -> Vec<Bounded> {
                vec![$($(Bounded { flag: concat!("--", $flag), value: self.$name, range: $min..=$max },)*)*]
            }
        }
    };
}

limits! {
    "Connections and threads" {
        http_threads, "http-threads", "INGEST_HTTP_THREADS", 0 in 0..=256:
            "Threads that answer requests; 0 takes half of the processors, at least one";
        connections_max, "connections-max", "INGEST_CONNECTIONS_MAX", 4096 in 1..=1000000:
            "Open connections; one more is answered 503 and closed";
        header_bytes_max, "header-bytes-max", "INGEST_HEADER_BYTES_MAX", 16384 in 8192..=1048576:
            "Bytes of a request's head; more is answered 431";
        headers_max, "headers-max", "INGEST_HEADERS_MAX", 64 in 8..=1000:
            "Header fields of a request; more is answered 431";
        header_timeout_ms, "header-timeout-ms", "INGEST_HEADER_TIMEOUT_MS", 5000 in 10..=600000:
            "Time from the first byte of a request to the end of its head; later is answered 408";
        body_timeout_ms, "body-timeout-ms", "INGEST_BODY_TIMEOUT_MS", 10000 in 10..=600000:
            "Time for a request's body; later is answered 408";
        idle_timeout_ms, "idle-timeout-ms", "INGEST_IDLE_TIMEOUT_MS", 300000 in 100..=86400000:
            "How long a connection may do nothing before it is closed";
        shutdown_timeout_ms, "shutdown-timeout-ms", "INGEST_SHUTDOWN_TIMEOUT_MS", 20000 in 100..=3600000:
            "Time after SIGTERM for finishing requests (at most half of it) and for persisting what is pending";
    }
    "Requests" {
        payload_bytes_max, "payload-bytes-max", "INGEST_PAYLOAD_BYTES_MAX", 262144 in 1..=67108864:
            "Bytes of one event's payload; more is answered 413";
        batch_body_bytes_max, "batch-body-bytes-max", "INGEST_BATCH_BODY_BYTES_MAX", 4194304 in 1024..=268435456:
            "Bytes of one batch; more is answered 413";
        inbox_bytes_max, "inbox-bytes-max", "INGEST_INBOX_BYTES_MAX", 16777216 in 1024..=1073741824:
            "Bytes of payloads on one page of the inbox, which ends before it has more (one event it always has)";
        batch_items_max, "batch-items-max", "INGEST_BATCH_ITEMS_MAX", 1000 in 1..=100000:
            "Events in one batch; more is answered 413";
        json_depth_max, "json-depth-max", "INGEST_JSON_DEPTH_MAX", 128 in 1..=100000:
            "Levels of nesting in a payload; more is answered 400";
        rate_limit_free_per_minute, "rate-limit-free-per-minute", "INGEST_RATE_LIMIT_FREE_PER_MINUTE", 100 in 0..=1000000000:
            "Requests a minute of an organisation of tier free; 0 = no limit";
        rate_limit_pro_per_minute, "rate-limit-pro-per-minute", "INGEST_RATE_LIMIT_PRO_PER_MINUTE", 1000 in 0..=1000000000:
            "Requests a minute of an organisation of tier pro; 0 = no limit";
        rate_limit_business_per_minute, "rate-limit-business-per-minute", "INGEST_RATE_LIMIT_BUSINESS_PER_MINUTE", 10000 in 0..=1000000000:
            "Requests a minute of an organisation of tier business; 0 = no limit";
        rate_limit_enterprise_per_minute, "rate-limit-enterprise-per-minute", "INGEST_RATE_LIMIT_ENTERPRISE_PER_MINUTE", 100000 in 0..=1000000000:
            "Requests a minute of an organisation of tier enterprise; 0 = no limit";
    }
    "Keys, duplicates and repeats" {
        key_cache_ttl_s, "key-cache-ttl-s", "INGEST_KEY_CACHE_TTL_S", 30 in 1..=3600:
            "How long a key is taken from memory; also how long a rotated key may still work in other processes on the same database";
        key_stale_s_max, "key-stale-s-max", "INGEST_KEY_STALE_S_MAX", 3600 in 1..=86400:
            "How long known keys go on working while the database cannot be asked";
        key_cache_entries_max, "key-cache-entries-max", "INGEST_KEY_CACHE_ENTRIES_MAX", 100000 in 100..=10000000:
            "Keys in memory; the least recently used one goes first";
        dedup_window_s, "dedup-window-s", "INGEST_DEDUP_WINDOW_S", 86400 in 1..=31536000:
            "How long a dedup_id is remembered";
        dedup_entries_max, "dedup-entries-max", "INGEST_DEDUP_ENTRIES_MAX", 1000000 in 2..=1000000000:
            "dedup_ids in memory; beyond it the database is asked. At least twice --pending-events-max";
        idempotency_window_s, "idempotency-window-s", "INGEST_IDEMPOTENCY_WINDOW_S", 86400 in 1..=604800:
            "How long the answer to an Idempotency-Key is kept (in memory only: a restart forgets it)";
        idempotency_bytes_max, "idempotency-bytes-max", "INGEST_IDEMPOTENCY_BYTES_MAX", 67108864 in 65536..=17179869184:
            "Bytes of kept answers to Idempotency-Keys, 256 bytes of overhead each; the least recently used one goes first";
    }
    "Persisting" {
        pending_events_max, "pending-events-max", "INGEST_PENDING_EVENTS_MAX", 100000 in 1..=100000000:
            "Events acknowledged and not yet persisted (cache-first, journal-first); more is answered 503";
        pending_bytes_max, "pending-bytes-max", "INGEST_PENDING_BYTES_MAX", 268435456 in 1048576..=1099511627776:
            "Bytes acknowledged and not yet persisted (cache-first, journal-first); more is answered 503";
        batch_events_max, "batch-events-max", "INGEST_BATCH_EVENTS_MAX", 1000 in 1..=10000:
            "Events that the processor persists in one transaction";
        writer_group_events_max, "writer-group-events-max", "INGEST_WRITER_GROUP_EVENTS_MAX", 500 in 1..=10000:
            "Events of waiting requests that db-first puts into one transaction";
        writer_queue_events_max, "writer-queue-events-max", "INGEST_WRITER_QUEUE_EVENTS_MAX", 10000 in 1..=1000000:
            "Events that may wait for the db-first writer; more is answered 503";
        writer_queue_bytes_max, "writer-queue-bytes-max", "INGEST_WRITER_QUEUE_BYTES_MAX", 268435456 in 1048576..=1099511627776:
            "Bytes of events that may wait for the db-first writer; more is answered 503";
        database_connections_max, "database-connections-max", "INGEST_DATABASE_CONNECTIONS_MAX", 4 in 1..=100:
            "Connections to PostgreSQL (and one more, which listens for other processes), or readers of SQLite (which has one writer besides)";
        store_timeout_ms, "store-timeout-ms", "INGEST_STORE_TIMEOUT_MS", 5000 in 10..=600000:
            "Time that a request may wait for the database; later is answered 503";
    }
    "Queue" {
        queue_timeout_ms, "queue-timeout-ms", "INGEST_QUEUE_TIMEOUT_MS", 1000 in 10..=60000:
            "Time that a request may wait for Redis; later is answered 503";
        queue_lease_ms, "queue-lease-ms", "INGEST_QUEUE_LEASE_MS", 30000 in 100..=3600000:
            "How long an event that a process has taken out of Redis is its own before another takes it over. Longer than --store-timeout-ms";
        queue_taken_events_max, "queue-taken-events-max", "INGEST_QUEUE_TAKEN_EVENTS_MAX", 4000 in 1..=1000000:
            "Events that a process has taken out of Redis and not persisted yet";
    }
    "Journal" {
        journal_segment_bytes, "journal-segment-bytes", "INGEST_JOURNAL_SEGMENT_BYTES", 16777216 in 65536..=1073741824:
            "Bytes of one file of the journal; must hold the largest event";
        journal_bytes_max, "journal-bytes-max", "INGEST_JOURNAL_BYTES_MAX", 1073741824 in 262144..=1099511627776:
            "Bytes of all files of the journal that are in use; at least four segments. More is answered 503";
        journal_batch_bytes_max, "journal-batch-bytes-max", "INGEST_JOURNAL_BATCH_BYTES_MAX", 1048576 in 4096..=268435456:
            "Bytes that the journal writes and syncs at once; a larger event goes alone";
    }
    "Polling" {
        poll_interval_ms, "poll-interval-ms", "INGEST_POLL_INTERVAL_MS", 100 in 1..=3600000:
            "adaptive and wake: the first wait after an event; doubles with each empty poll";
        poll_interval_ms_max, "poll-interval-ms-max", "INGEST_POLL_INTERVAL_MS_MAX", 2000 in 1..=3600000:
            "adaptive and wake: where the doubling ends";
        deep_idle_after_polls, "deep-idle-after-polls", "INGEST_DEEP_IDLE_AFTER_POLLS", 10 in 1..=1000000:
            "adaptive and wake: the empty poll in a row with which deep idle begins";
        deep_idle_interval_ms, "deep-idle-interval-ms", "INGEST_DEEP_IDLE_INTERVAL_MS", 30000 in 1..=3600000:
            "adaptive and wake: the wait between polls in deep idle";
        poll_interval_ms_fixed, "poll-interval-ms-fixed", "INGEST_POLL_INTERVAL_MS_FIXED", 2000 in 1..=3600000:
            "fixed: the wait between polls";
        claim_lease_s, "claim-lease-s", "INGEST_CLAIM_LEASE_S", 30 in 1..=86400:
            "How long a claimed row is one process's before another may claim it";
    }
    "Webhooks" {
        webhook_attempts_max, "webhook-attempts-max", "INGEST_WEBHOOK_ATTEMPTS_MAX", 5 in 1..=100:
            "Attempts to deliver an event; after the last failure it is a dead letter";
        webhook_wait_ms, "webhook-wait-ms", "INGEST_WEBHOOK_WAIT_MS", 5000 in 1..=86400000:
            "The wait after the first failed attempt; each wait is half to one and a half of what is said, by chance";
        webhook_wait_factor, "webhook-wait-factor", "INGEST_WEBHOOK_WAIT_FACTOR", 6 in 1..=100:
            "By how much each wait is longer than the one before: 5 s, 30 s, 3 min, 18 min with the defaults";
        webhook_wait_ms_max, "webhook-wait-ms-max", "INGEST_WEBHOOK_WAIT_MS_MAX", 3600000 in 1..=604800000:
            "Where that growth ends";
        webhook_retry_after_s_max, "webhook-retry-after-s-max", "INGEST_WEBHOOK_RETRY_AFTER_S_MAX", 3600 in 0..=604800:
            "The longest Retry-After of a 429 or 503 that is honoured; meanwhile nothing is sent to that receiver";
        webhook_timeout_ms, "webhook-timeout-ms", "INGEST_WEBHOOK_TIMEOUT_MS", 15000 in 10..=600000:
            "Time for one attempt, from looking up the name to the end of the answer";
        webhook_connect_timeout_ms, "webhook-connect-timeout-ms", "INGEST_WEBHOOK_CONNECT_TIMEOUT_MS", 5000 in 10..=600000:
            "Of that, the time until there is a connection";
        webhook_response_bytes_max, "webhook-response-bytes-max", "INGEST_WEBHOOK_RESPONSE_BYTES_MAX", 65536 in 0..=16777216:
            "Bytes of a receiver's answer that are read (and forgotten); after more the connection is closed";
        webhook_url_bytes_max, "webhook-url-bytes-max", "INGEST_WEBHOOK_URL_BYTES_MAX", 2048 in 16..=8192:
            "Bytes of a webhook's URL; a longer one is answered 400";
        webhook_attempts_running_max, "webhook-attempts-running-max", "INGEST_WEBHOOK_ATTEMPTS_RUNNING_MAX", 256 in 1..=10000:
            "Attempts at a time; receivers that fail get at most half of them together. Each holds one event in memory";
        webhook_organization_attempts_max, "webhook-organization-attempts-max", "INGEST_WEBHOOK_ORGANIZATION_ATTEMPTS_MAX", 64 in 1..=1000:
            "Attempts at a time to one organisation's webhook";
        webhook_lease_ms, "webhook-lease-ms", "INGEST_WEBHOOK_LEASE_MS", 30000 in 100..=3600000:
            "How long a delivery is one process's: after a crash, how long what was under way waits. Longer than --webhook-timeout-ms";
    }
}

/// A setting that the server cannot start with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A number outside its range.
    #[error(
        "{flag} is {value}, and must be from {min} to {max}: give a number in that range, or leave it out for the default"
    )]
    OutOfRange {
        /// With its dashes.
        flag: &'static str,
        /// As given.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// The index of dedup_ids could lose one of an event that is only in memory.
    #[error(
        "--dedup-entries-max is {entries}, and must be at least twice --pending-events-max ({pending}): the dedup_id of an event \
         that is not persisted yet is known to this index alone, and must not be pushed out; raise the one or lower the other"
    )]
    DedupBelowPending {
        /// --dedup-entries-max
        entries: u64,
        /// --pending-events-max
        pending: u64,
    },
    /// A segment that the largest event does not fit into.
    #[error(
        "--journal-segment-bytes is {segment_bytes}, and must be at least {least} with --payload-bytes-max {payload_bytes}, so that the \
         largest event fits: raise the one or lower the other"
    )]
    SegmentBelowPayload {
        /// --journal-segment-bytes
        segment_bytes: u64,
        /// What it must be at least.
        least: u64,
        /// --payload-bytes-max
        payload_bytes: u64,
    },
    /// A journal that could never go on to another segment.
    #[error(
        "--journal-bytes-max is {bytes_max}, and must be at least four times --journal-segment-bytes ({segment_bytes}): one segment is written, one is \
         ready, and the ones before wait for the database; raise the one or lower the other"
    )]
    JournalBelowSegments {
        /// --journal-bytes-max
        bytes_max: u64,
        /// --journal-segment-bytes
        segment_bytes: u64,
    },
    /// An interval that would shrink where it should grow.
    #[error(
        "{first} is {first_ms}, which is over {then} ({then_ms}), the wait that comes after it: lower the first or raise the second"
    )]
    IntervalsCrossed {
        /// The flag of the earlier wait.
        first: &'static str,
        /// Its value.
        first_ms: u64,
        /// The flag of the later wait.
        then: &'static str,
        /// Its value.
        then_ms: u64,
    },
    /// Another process would deliver what this one still does.
    #[error(
        "--webhook-lease-ms is {lease_ms}, and must be longer than --webhook-timeout-ms ({timeout_ms}): an attempt that outlives \
         its lease is made a second time meanwhile; raise the one or lower the other"
    )]
    LeaseTooShort {
        /// --webhook-lease-ms
        lease_ms: u64,
        /// --webhook-timeout-ms
        timeout_ms: u64,
    },
    /// A queue outside of the process in a mode that has none.
    #[error(
        "--queue redis://… is where events of cache-first wait, and --mode is {mode}: give --mode cache-first, or leave --queue out"
    )]
    QueueWithoutCacheFirst {
        /// --mode
        mode: &'static str,
    },
    /// Another process would take over what this one is still writing.
    #[error(
        "--queue-lease-ms is {lease_ms}, and must be longer than --store-timeout-ms ({timeout_ms}): what is still being written to the \
         database would be taken over by another process; raise the one or lower the other"
    )]
    QueueLeaseTooShort {
        /// --queue-lease-ms
        lease_ms: u64,
        /// --store-timeout-ms
        timeout_ms: u64,
    },
    /// Anybody who reaches the port could make keys.
    #[error(
        "--listen {listen} is not a loopback address, and without --admin-token anybody who reaches it could make API keys: \
         set --admin-token (or INGEST_ADMIN_TOKEN), or listen on 127.0.0.1"
    )]
    OpenWithoutToken {
        /// --listen
        listen: SocketAddr,
    },
    /// Faults that this server cannot have.
    #[error("--fault {0}")]
    Fault(#[from] FaultError),
    /// A token that can be guessed.
    #[error(
        "--admin-token has {characters} characters, and must have at least 16: anybody who guesses it can make API keys"
    )]
    ShortToken {
        /// How many were given.
        characters: usize,
    },
}

/// What a segment of the journal holds beside the payload of its only event: its header, the longest texts, and the records' frames.
const SEGMENT_BESIDES_PAYLOAD_BYTES: u64 = 16 * 1024;

#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    settings: Settings,
}

impl Default for Settings {
    /// What no flags at all give (environment variables count).
    fn default() -> Self {
        Defaults::parse_from(["ingest-server"]).settings
    }
}

impl Settings {
    /// Refuses what the server could not keep its promises with.
    pub fn validate(&self) -> Result<(), SettingsError> {
        for Bounded { flag, value, range } in self.limits.rows() {
            if !range.contains(&value) {
                return Err(SettingsError::OutOfRange { flag, value, min: *range.start(), max: *range.end() });
            }
        }
        let limits = &self.limits;
        if limits.dedup_entries_max < 2 * limits.pending_events_max {
            return Err(SettingsError::DedupBelowPending {
                entries: limits.dedup_entries_max,
                pending: limits.pending_events_max,
            });
        }
        self.validate_journal()?;
        self.validate_queue()?;
        let waits = [
            ("--poll-interval-ms", limits.poll_interval_ms),
            ("--poll-interval-ms-max", limits.poll_interval_ms_max),
            ("--deep-idle-interval-ms", limits.deep_idle_interval_ms),
        ];
        let webhook_waits =
            [("--webhook-wait-ms", limits.webhook_wait_ms), ("--webhook-wait-ms-max", limits.webhook_wait_ms_max)];
        if let Some([(first, first_ms), (then, then_ms)]) =
            waits.array_windows().chain([&webhook_waits]).find(|[first, then]| first.1 > then.1).copied()
        {
            return Err(SettingsError::IntervalsCrossed { first, first_ms, then, then_ms });
        }
        if limits.webhook_lease_ms <= limits.webhook_timeout_ms {
            let (lease_ms, timeout_ms) = (limits.webhook_lease_ms, limits.webhook_timeout_ms);
            return Err(SettingsError::LeaseTooShort { lease_ms, timeout_ms });
        }
        spec::check(&self.faults(), self.mode != Mode::Null)?;
        match &self.admin_token {
            None if !self.listen.ip().is_loopback() => Err(SettingsError::OpenWithoutToken { listen: self.listen }),
            Some(Secret(token)) if token.chars().count() < 16 => {
                Err(SettingsError::ShortToken { characters: token.chars().count() })
            }
            _ => Ok(()),
        }
    }

    fn validate_journal(&self) -> Result<(), SettingsError> {
        let Limits { journal_segment_bytes: segment_bytes, journal_bytes_max: bytes_max, payload_bytes_max, .. } =
            self.limits;
        let least = payload_bytes_max + SEGMENT_BESIDES_PAYLOAD_BYTES;
        if self.mode != Mode::JournalFirst {
            return Ok(());
        }
        if segment_bytes < least {
            return Err(SettingsError::SegmentBelowPayload { segment_bytes, least, payload_bytes: payload_bytes_max });
        }
        if bytes_max < 4 * segment_bytes {
            return Err(SettingsError::JournalBelowSegments { bytes_max, segment_bytes });
        }
        Ok(())
    }

    fn validate_queue(&self) -> Result<(), SettingsError> {
        let Limits { queue_lease_ms: lease_ms, store_timeout_ms: timeout_ms, .. } = self.limits;
        match (&self.queue, self.mode) {
            (QueueAt::Memory, _) => Ok(()),
            (QueueAt::Redis(_), Mode::CacheFirst) if lease_ms > timeout_ms => Ok(()),
            (QueueAt::Redis(_), Mode::CacheFirst) => Err(SettingsError::QueueLeaseTooShort { lease_ms, timeout_ms }),
            (QueueAt::Redis(_), mode) => Err(SettingsError::QueueWithoutCacheFirst { mode: mode.name() }),
        }
    }

    /// What an acknowledgement is worth, as the 202 says it (rule I1); `redis` when Redis is to say what.
    pub fn durability(&self) -> &'static str {
        match (self.mode, self.journal_sync) {
            (Mode::CacheFirst, _) if self.queue != QueueAt::Memory => "redis",
            (Mode::Null | Mode::CacheFirst, _) => "memory",
            (Mode::JournalFirst, JournalSync::Always) => "journal",
            (Mode::JournalFirst, JournalSync::Os) => "journal-os",
            (Mode::DbFirst, _) => "database",
        }
    }

    /// `--journal-dir`, or where it is when that is not given.
    pub fn journal_dir(&self) -> PathBuf {
        match (&self.journal_dir, &self.database) {
            (Some(folder), _) => folder.clone(),
            (None, Database::Sqlite(file)) => {
                let mut name = file.clone().into_os_string();
                name.push(".journal");
                name.into()
            }
            (None, Database::Postgres(_)) => PathBuf::from("ingest.journal"),
        }
    }

    /// All faults asked for, in that order.
    pub fn faults(&self) -> Vec<Fault> {
        self.fault.iter().flat_map(|list| list.0.iter().cloned()).collect()
    }

    /// `--http-threads`, with 0 resolved to half of the processors.
    pub fn http_threads(&self) -> usize {
        match self.limits.http_threads {
            0 => std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1)),
            threads => usize::try_from(threads).unwrap_or(1),
        }
    }
}

/// Milliseconds of a setting as a duration.
pub fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Seconds of a setting as microseconds, the unit of an event's times.
pub fn s_to_us(value: u64) -> i64 {
    i64::try_from(value.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

/// A count of a setting as the size of something in memory.
pub fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Settings {
        Defaults::try_parse_from([&["ingest-server"], arguments].concat()).expect("arguments parse").settings
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(parse(&[]).validate(), Ok(()));
    }

    #[test]
    fn every_number_is_refused_just_outside_its_range_with_its_flag_and_range() {
        for row in parse(&[]).limits.rows() {
            let above = (row.range.end() + 1).to_string();
            let error = parse(&[row.flag, &above]).validate().expect_err(row.flag).to_string();
            for part in [row.flag, &above, &row.range.start().to_string(), &row.range.end().to_string()] {
                assert!(error.contains(part), "{error} names {part}");
            }
        }
    }

    #[test]
    fn what_only_fails_together_is_refused_with_the_reason_and_the_remedy() {
        for (arguments, part) in [
            (&["--dedup-entries-max", "199999"][..], "at least twice --pending-events-max (100000)"),
            (
                &["--mode", "journal-first", "--journal-segment-bytes", "262144"],
                "must be at least 278528 with --payload-bytes-max 262144",
            ),
            (
                &["--mode", "journal-first", "--journal-bytes-max", "67108863"],
                "at least four times --journal-segment-bytes (16777216)",
            ),
            (&["--mode", "db-first", "--queue", "redis://h/0"], "--mode is db-first: give --mode cache-first"),
            (&["--queue", "redis://h/0", "--queue-lease-ms", "5000"], "longer than --store-timeout-ms (5000)"),
            (&["--poll-interval-ms", "3000"], "over --poll-interval-ms-max (2000)"),
            (&["--deep-idle-interval-ms", "100"], "over --deep-idle-interval-ms (100)"),
            (&["--webhook-wait-ms", "3600001"], "over --webhook-wait-ms-max (3600000)"),
            (&["--webhook-lease-ms", "15000"], "longer than --webhook-timeout-ms (15000)"),
            (&["--listen", "0.0.0.0:80"], "set --admin-token"),
            (&["--listen", "[::]:80"], "set --admin-token"),
            (&["--admin-token", "short"], "at least 16"),
            (&["--fault", "drop=0.1,queue=one"], "--fault 'queue=one' needs something to queue for"),
            (&["--fault", "drop=0.1", "--fault", "drop=0.2"], "'drop=0.1' and 'drop=0.2': a fault can be given once"),
            (&["--fault", "drop=0.1", "--mode", "null"], "'drop=0.1' has no meaning in mode null"),
        ] {
            let error = parse(arguments).validate().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let open = parse(&["--listen", "0.0.0.0:80", "--admin-token", "0123456789abcdef"]);
        assert_eq!(open.validate(), Ok(()));
    }

    #[test]
    fn neither_a_password_nor_a_token_is_printed() {
        let settings = parse(&["--database", "postgres://me:hunter2@db/x", "--admin-token", "hunter2hunter2hunter2"]);
        assert!(!format!("{settings:?}").contains("hunter2"));
        for wrong in ["mysql://me:hunter2@db/x", "postgres//me:hunter2@db/x"] {
            let error =
                Defaults::try_parse_from(["ingest-server", "--database", wrong]).err().expect(wrong).to_string();
            assert!(error.contains("--database") && error.contains("sqlite:PATH"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_queue_is_memory_or_redis_and_no_password_is_printed() {
        assert_eq!(parse(&[]).queue, QueueAt::Memory);
        let url = "redis://me:hunter2@h:6379/3";
        let settings = parse(&["--queue", url]);
        assert_eq!(settings.queue, QueueAt::Redis(url.to_owned()));
        assert!(!format!("{settings:?}").contains("hunter2"));
        for wrong in ["rediss://me:hunter2@h/0", "redis//me:hunter2@h", "redis://me:hunter2@h/x", "kafka://h", ""] {
            let error = Defaults::try_parse_from(["ingest-server", "--queue", wrong]).err().expect(wrong).to_string();
            assert!(error.contains("--queue") && error.contains("redis://HOST:PORT/DB"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_receiver_is_a_url_and_attributes_have_a_name_and_a_value() {
        assert_eq!(parse(&[]).otlp, None, "nothing is told to anybody who was not asked for");
        let settings = parse(&["--otlp", "http://127.0.0.1:4318", "--otlp-attributes", "a.b=1, c=d=e"]);
        assert_eq!(settings.otlp.map(|endpoint| endpoint.to_string()).as_deref(), Some("http://127.0.0.1:4318"));
        let attributes: Vec<_> = settings.otlp_attributes.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!(attributes, [("a.b", "1"), ("c", "d=e")]);
        for (flag, value, part) in [
            (
                "--otlp",
                "127.0.0.1:4318",
                "give the base URL of a receiver of OTLP over HTTP, such as http://127.0.0.1:4318",
            ),
            ("--otlp-attributes", "a", "give NAME=VALUE"),
            ("--otlp-attributes", "=a", "give NAME=VALUE"),
        ] {
            let error = Defaults::try_parse_from(["ingest-server", flag, value]).err().expect(value).to_string();
            assert!(error.contains(flag) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_database_is_a_file_or_a_url_and_nothing_else() {
        let file = |path: &str| Ok::<_, String>(Database::Sqlite(path.into()));
        for (text, expected) in [
            ("sqlite:a.db", file("a.db")),
            ("sqlite:///tmp/a.db", file("/tmp/a.db")),
            ("postgres://h/x", Ok(Database::Postgres("postgres://h/x".into()))),
            ("sqlite:", Err(UnknownDatabase.to_string())),
            ("mysql://h/x", Err(UnknownDatabase.to_string())),
        ] {
            assert_eq!(text.parse::<Database>().map_err(|error| error.to_string()), expected, "{text}");
        }
    }
}
