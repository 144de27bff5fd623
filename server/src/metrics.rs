//! What the server says of itself at `GET /metrics` (rule O2): Prometheus/OpenMetrics text, base units, cumulative counters.
//!
//! Times are seconds, sizes bytes. Names begin with `ingest_`. Handles are plain fields so that a hot path increments an atomic
//! and looks nothing up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Buckets for times on the acknowledgement path: 50 µs to 5 s. OpenTelemetry's defaults begin at 5 ms, which would put every
/// answer of this server into the first one.
const SECONDS_BUCKETS: [f64; 16] =
    [50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0];

/// Labels of `ingest_http_requests`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// Route template, never the path as sent (that would let a client grow the set without bound).
    pub route: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// One label with a fixed set of values.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Why.
    pub reason: &'static str,
}

/// Which cache.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CacheLabel {
    /// `dedup`, `keys`, `idempotency`.
    pub cache: &'static str,
}

/// Kind of SQL statement, in lower case as the label's value.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Statement {
    /// Reads rows.
    Select,
    /// Reads how many rows there are.
    Count,
    /// Writes new rows.
    Insert,
    /// Changes rows.
    Update,
    /// Removes rows.
    Delete,
    /// Opens a transaction.
    Begin,
    /// Ends a transaction and keeps what it did.
    Commit,
    /// Anything else: settings, rollbacks, migrations.
    Other,
}

impl Statement {
    /// All kinds, in the order of their numbers.
    const ALL: [Self; 8] =
        [Self::Select, Self::Count, Self::Insert, Self::Update, Self::Delete, Self::Begin, Self::Commit, Self::Other];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Count => "count",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Begin => "begin",
            Self::Commit => "commit",
            Self::Other => "other",
        }
    }
}

impl EncodeLabelValue for Statement {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

/// Label of `ingest_sql_statements`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StatementLabel {
    /// Kind.
    pub kind: Statement,
}

/// Labels of `ingest_polls`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PollLabels {
    /// `memory` (the pending buffer) or `store` (rows left behind).
    pub source: &'static str,
    /// `empty`, `partial`, `full`.
    pub state: &'static str,
}

/// What became of something: of a webhook attempt (`dead_letter` is a failure that was the last one allowed), of a span.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `delivered`, `failed`, `dead_letter`; `sent`, `dropped`, `lost`.
    pub outcome: &'static str,
}

/// Which fault on purpose.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FaultLabel {
    /// Its name, as `--fault` has it.
    pub fault: &'static str,
}

/// A setting of the store, or of the queue, on which it depends what a commit is worth.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SettingLabels {
    /// As the store calls it.
    pub name: String,
    /// As the store says it.
    pub value: String,
}

impl SettingLabels {
    /// A setting and its value.
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }
}

/// What `ingest_build_info` says: which server, in which configuration, produced the other numbers.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct BuildInfo {
    /// The package's version.
    pub version: String,
    /// `null`, `cache-first`, `journal-first`, `db-first`.
    pub mode: String,
    /// `fixed`, `adaptive`, `wake`.
    pub polling: String,
    /// `sqlite` or `postgres`; never the URL, which may hold a password.
    pub database: String,
    /// What an acknowledgement is worth: `memory`, `journal`, `journal-os`, `database`; `redis` is as Redis says, see `ingest_queue_setting`.
    pub durability: String,
    /// Faults injected on purpose; empty in every server that is meant.
    pub faults: String,
}

/// All metrics of one server.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field's help text stands at its registration, where /metrics shows it")]
pub struct Metrics {
    registry: Registry,
    pub http_requests: Family<RequestLabels, Counter>,
    pub ack_seconds: Histogram,
    pub pending_events: Gauge,
    pub pending_bytes: Gauge,
    pub events_acknowledged: Counter,
    pub events_persisted: Counter,
    pub events_delivered: Counter,
    pub events_duplicate: Counter,
    pub events_rejected: Family<ReasonLabel, Counter>,
    pub persist_seconds: Histogram,
    pub sql_idle_seconds: Gauge<f64, AtomicU64>,
    pub polls: Family<PollLabels, Counter>,
    pub poll_interval_seconds: Gauge<f64, AtomicU64>,
    pub deep_idle: Gauge,
    pub processes: Gauge,
    pub store_available: Gauge,
    pub store_errors: Counter,
    pub store_settings: Family<SettingLabels, Gauge>,
    pub queue_available: Gauge,
    pub queue_errors: Counter,
    pub queue_settings: Family<SettingLabels, Gauge>,
    pub queue_entries_claimed: Counter,
    pub queue_entries_set_aside: Counter,
    pub journal_syncs: Counter,
    pub journal_sync_seconds: Histogram,
    pub journal_segments: Gauge,
    pub cache_hits: Family<CacheLabel, Counter>,
    pub cache_misses: Family<CacheLabel, Counter>,
    pub cache_entries: Family<CacheLabel, Gauge>,
    pub cache_evictions: Family<CacheLabel, Counter>,
    pub webhook_attempts: Family<OutcomeLabel, Counter>,
    pub webhook_failures: Family<ReasonLabel, Counter>,
    pub webhook_attempts_running: Gauge,
    pub webhook_deliver_seconds: Histogram,
    pub dead_letters: Counter,
    pub faults_injected: Family<FaultLabel, Counter>,
    pub otlp_spans: Family<OutcomeLabel, Counter>,
    pub connections: Gauge,
    pub process_cpu_seconds: Counter<f64, AtomicU64>,
    pub process_resident_memory_bytes: Gauge,
    /// One counter for each kind, so that counting a statement looks nothing up.
    statements: [Counter; Statement::ALL.len()],
    started: Instant,
    /// When the last SQL statement ended, in nanoseconds after `started`.
    sql_last_used_ns: AtomicU64,
}

impl Metrics {
    /// All at zero, and the store taken to be available (it answered when the server connected to it).
    pub fn new(build: &BuildInfo) -> Self {
        let sql_statements: Family<StatementLabel, Counter> = Family::default();
        let metrics = Self {
            registry: Registry::default(),
            http_requests: Family::default(),
            ack_seconds: Histogram::new(SECONDS_BUCKETS),
            pending_events: Gauge::default(),
            pending_bytes: Gauge::default(),
            events_acknowledged: Counter::default(),
            events_persisted: Counter::default(),
            events_delivered: Counter::default(),
            events_duplicate: Counter::default(),
            events_rejected: Family::default(),
            persist_seconds: Histogram::new(SECONDS_BUCKETS),
            sql_idle_seconds: Gauge::default(),
            polls: Family::default(),
            poll_interval_seconds: Gauge::default(),
            deep_idle: Gauge::default(),
            processes: Gauge::default(),
            store_available: Gauge::default(),
            store_errors: Counter::default(),
            store_settings: Family::default(),
            queue_available: Gauge::default(),
            queue_errors: Counter::default(),
            queue_settings: Family::default(),
            queue_entries_claimed: Counter::default(),
            queue_entries_set_aside: Counter::default(),
            journal_syncs: Counter::default(),
            journal_sync_seconds: Histogram::new(SECONDS_BUCKETS),
            journal_segments: Gauge::default(),
            cache_hits: Family::default(),
            cache_misses: Family::default(),
            cache_entries: Family::default(),
            cache_evictions: Family::default(),
            webhook_attempts: Family::default(),
            webhook_failures: Family::default(),
            webhook_attempts_running: Gauge::default(),
            webhook_deliver_seconds: Histogram::new(SECONDS_BUCKETS),
            dead_letters: Counter::default(),
            faults_injected: Family::default(),
            otlp_spans: Family::default(),
            connections: Gauge::default(),
            process_cpu_seconds: Counter::default(),
            process_resident_memory_bytes: Gauge::default(),
            statements: Statement::ALL.map(|kind| sql_statements.get_or_create(&StatementLabel { kind }).clone()),
            started: Instant::now(),
            sql_last_used_ns: AtomicU64::new(0),
        };
        metrics.store_available.set(1);
        metrics.registered(sql_statements, build)
    }

    /// Counts one SQL statement that has just ended, well or not.
    pub fn statement(&self, kind: Statement) {
        self.statements[kind as usize].inc();
        let since_start = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.sql_last_used_ns.store(since_start, Ordering::Relaxed);
    }

    /// SQL statements of this kind so far.
    pub fn statements(&self, kind: Statement) -> u64 {
        self.statements[kind as usize].get()
    }

    /// SQL statements of all kinds so far.
    pub fn statements_all(&self) -> u64 {
        self.statements.iter().map(Counter::get).sum()
    }

    /// How long ago the last SQL statement ended (since the start when there was none).
    pub fn sql_idle(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_nanos(self.sql_last_used_ns.load(Ordering::Relaxed)))
    }

    /// The page for `GET /metrics` ([`CONTENT_TYPE`]), with the gauges of the process read at this moment.
    pub fn encode(&self) -> String {
        self.sql_idle_seconds.set(self.sql_idle().as_secs_f64());
        self.process_cpu_seconds.inner().store(process_cpu().as_secs_f64().to_bits(), Ordering::Relaxed);
        self.process_resident_memory_bytes.set(process_resident_memory_bytes());
        let mut page = String::with_capacity(PAGE_BYTES_USUAL);
        // Writing to a String cannot fail, and no metric of ours has an encoding that can.
        let written = encode(&mut page, &self.registry);
        debug_assert!(written.is_ok(), "a metric could not be encoded");
        page
    }

    fn registered(mut self, sql_statements: Family<StatementLabel, Counter>, build: &BuildInfo) -> Self {
        let mut registry = Registry::default();
        self.register_events(&mut registry);
        self.register_store(&mut registry, sql_statements);
        self.register_queue(&mut registry);
        self.register_webhooks(&mut registry);
        self.register_rest(&mut registry);
        let info: Family<BuildInfo, Gauge> = Family::default();
        info.get_or_create(build).set(1);
        // A gauge and not OpenMetrics' info type, which Prometheus' older text parser refuses.
        add(&mut registry, "ingest_build_info", None, "Which server this is and how it is configured; always 1", info);
        self.registry = registry;
        self
    }

    fn register_events(&self, to: &mut Registry) {
        let seconds = || Some(Unit::Seconds);
        add(to, "ingest_http_requests", None, "Requests answered, by route and status", self.http_requests.clone());
        let help = "From the first byte of an ingestion request's head having been read to its answer being ready";
        add(to, "ingest_ack", seconds(), help, self.ack_seconds.clone());
        let help = "Events acknowledged or about to be, not yet committed by the store";
        add(to, "ingest_pending_events", None, help, self.pending_events.clone());
        let help = "Memory that pending events count for against their bound";
        add(to, "ingest_pending", Some(Unit::Bytes), help, self.pending_bytes.clone());
        add(to, "ingest_events_acknowledged", None, "Events answered with 202", self.events_acknowledged.clone());
        let help = "Events that the store has durably committed";
        add(to, "ingest_events_persisted", None, help, self.events_persisted.clone());
        let help = "Events acknowledged by their reader or by their webhook";
        add(to, "ingest_events_delivered", None, help, self.events_delivered.clone());
        let help = "Events not kept because another one holds their dedup_id";
        add(to, "ingest_events_duplicate", None, help, self.events_duplicate.clone());
        add(to, "ingest_events_rejected", None, "Events refused, by reason", self.events_rejected.clone());
        let help = "From an event being taken in to its commit";
        add(to, "ingest_persist", seconds(), help, self.persist_seconds.clone());
    }

    fn register_store(&self, to: &mut Registry, sql_statements: Family<StatementLabel, Counter>) {
        let seconds = || Some(Unit::Seconds);
        add(to, "ingest_sql_statements", None, "SQL statements run by this process, by kind", sql_statements);
        add(to, "ingest_sql_idle", seconds(), "Time since the last SQL statement ended", self.sql_idle_seconds.clone());
        let help = "Looks for work by the processor, by where it looked and what came back";
        add(to, "ingest_polls", None, help, self.polls.clone());
        let help = "How long the processor waits now between two looks for work";
        add(to, "ingest_poll_interval", seconds(), help, self.poll_interval_seconds.clone());
        let help = "1 while the processor polls at its longest interval because nothing came for long";
        add(to, "ingest_deep_idle", None, help, self.deep_idle.clone());
        let help = "Server processes on this database, this one too, as last counted in deep idle";
        add(to, "ingest_processes", None, help, self.processes.clone());
        let help = "1 while the database answers, 0 from its first error until it has answered again";
        add(to, "ingest_store_available", None, help, self.store_available.clone());
        add(to, "ingest_store_errors", None, "Failed writes or reads of the store", self.store_errors.clone());
        let help = "What the store says of its own durability, read back at the start; always 1";
        add(to, "ingest_store_setting", None, help, self.store_settings.clone());
        add(to, "ingest_journal_syncs", None, "Syncs of the journal to its device", self.journal_syncs.clone());
        let help = "How long a sync of the journal took";
        add(to, "ingest_journal_sync", seconds(), help, self.journal_sync_seconds.clone());
        let help = "Segments of the journal that hold events, or take them";
        add(to, "ingest_journal_segments", None, help, self.journal_segments.clone());
    }

    fn register_queue(&self, to: &mut Registry) {
        let help = "1 while the queue outside of this process answers; 0 where there is none";
        add(to, "ingest_queue_available", None, help, self.queue_available.clone());
        add(
            to,
            "ingest_queue_errors",
            None,
            "Questions that the queue has not answered well",
            self.queue_errors.clone(),
        );
        let help = "What the queue says of its own durability, and what follows for an acknowledgement; always 1";
        add(to, "ingest_queue_setting", None, help, self.queue_settings.clone());
        let help = "Entries of the queue taken over from a process that has not persisted them within its lease";
        add(to, "ingest_queue_entries_claimed", None, help, self.queue_entries_claimed.clone());
        let help = "Entries of the queue that cannot be persisted, and were moved aside";
        add(to, "ingest_queue_entries_set_aside", None, help, self.queue_entries_set_aside.clone());
    }

    fn register_webhooks(&self, to: &mut Registry) {
        add(to, "ingest_webhook_attempts", None, "Webhook requests sent, by outcome", self.webhook_attempts.clone());
        let help = "Webhook requests that failed, by reason";
        add(to, "ingest_webhook_failures", None, help, self.webhook_failures.clone());
        let help = "Webhook requests under way now";
        add(to, "ingest_webhook_attempts_running", None, help, self.webhook_attempts_running.clone());
        let help = "From an event being taken in to its webhook's 2xx";
        add(to, "ingest_webhook_deliver", Some(Unit::Seconds), help, self.webhook_deliver_seconds.clone());
        let help = "Events whose webhook failed for good, or was removed first";
        add(to, "ingest_dead_letters", None, help, self.dead_letters.clone());
    }

    fn register_rest(&self, to: &mut Registry) {
        add(to, "ingest_cache_hits", None, "Look-ups that a cache answered", self.cache_hits.clone());
        add(to, "ingest_cache_misses", None, "Look-ups that a cache did not answer", self.cache_misses.clone());
        add(to, "ingest_cache_entries", None, "Entries in a cache now", self.cache_entries.clone());
        let help = "Entries that a cache dropped to stay within its bounds";
        add(to, "ingest_cache_evictions", None, help, self.cache_evictions.clone());
        let help = "Faults injected on purpose (--fault), by kind";
        add(to, "ingest_faults_injected", None, help, self.faults_injected.clone());
        let help = "Spans given to the exporter (--otlp): sent, dropped for want of room, lost because the receiver did not take them";
        add(to, "ingest_otlp_spans", None, help, self.otlp_spans.clone());
        add(to, "ingest_connections", None, "Client connections open now", self.connections.clone());
        let help = "User and system CPU time of this process";
        add(to, "process_cpu", Some(Unit::Seconds), help, self.process_cpu_seconds.clone());
        let help = "Memory of this process that is in RAM; 0 where /proc does not tell";
        add(to, "process_resident_memory", Some(Unit::Bytes), help, self.process_resident_memory_bytes.clone());
    }
}

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Room for a usual page, so that encoding does not grow the string step by step.
const PAGE_BYTES_USUAL: usize = 16 * 1024;

/// Registers `metric` under exactly `name`, and `_unit` after it when there is one (the encoder adds `_total` to counters).
fn add(to: &mut Registry, name: &str, unit: Option<Unit>, help: &str, metric: impl Metric) {
    match unit {
        Some(unit) => to.register_with_unit(name, help, unit, metric),
        None => to.register(name, help, metric),
    }
}

/// User and system time of all threads of this process; in nanoseconds, unlike the 10 ms ticks of /proc/self/stat.
fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// `VmRSS` of /proc/self/status, which is in KiB whatever the size of a page; 0 where there is no such file.
fn process_resident_memory_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<i64> = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 22] = [
        "ingest_ack_seconds_count",
        "ingest_pending_events",
        "ingest_pending_bytes",
        "ingest_events_acknowledged_total",
        "ingest_events_persisted_total",
        "ingest_events_delivered_total",
        "ingest_events_duplicate_total",
        "ingest_persist_seconds_bucket",
        "ingest_sql_idle_seconds",
        "ingest_poll_interval_seconds",
        "ingest_deep_idle",
        "ingest_store_available",
        "ingest_store_errors_total",
        "ingest_journal_syncs_total",
        "ingest_journal_sync_seconds_sum",
        "ingest_webhook_attempts_running",
        "ingest_webhook_deliver_seconds_sum",
        "ingest_dead_letters_total",
        "ingest_connections",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "ingest_build_info",
    ];

    fn value_of(page: &str, series: &str) -> Option<f64> {
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn every_name_comes_out_as_the_list_has_it() {
        let page = Metrics::new(&BuildInfo::default()).encode();
        for name in NAMES {
            let found = page
                .lines()
                .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{')));
            assert!(found, "{name} is missing from\n{page}");
        }
    }

    #[test]
    fn labels_come_out_in_lower_case_and_counted() {
        let metrics = Metrics::new(&BuildInfo { mode: "cache-first".to_owned(), ..BuildInfo::default() });
        metrics.statement(Statement::Select);
        metrics.statement(Statement::Select);
        metrics.http_requests.get_or_create(&RequestLabels { route: "/api/events", status: 202 }).inc();
        metrics.polls.get_or_create(&PollLabels { source: "memory", state: "empty" }).inc();
        metrics.cache_hits.get_or_create(&CacheLabel { cache: "dedup" }).inc();
        metrics.cache_entries.get_or_create(&CacheLabel { cache: "dedup" }).set(7);
        metrics.events_rejected.get_or_create(&ReasonLabel { reason: "full" }).inc();
        metrics.webhook_attempts.get_or_create(&OutcomeLabel { outcome: "failed" }).inc();
        let page = metrics.encode();
        for (series, value) in [
            ("ingest_sql_statements_total{kind=\"select\"}", 2.0),
            ("ingest_sql_statements_total{kind=\"commit\"}", 0.0),
            ("ingest_http_requests_total{route=\"/api/events\",status=\"202\"}", 1.0),
            ("ingest_polls_total{source=\"memory\",state=\"empty\"}", 1.0),
            ("ingest_cache_hits_total{cache=\"dedup\"}", 1.0),
            ("ingest_cache_entries{cache=\"dedup\"}", 7.0),
            ("ingest_events_rejected_total{reason=\"full\"}", 1.0),
            ("ingest_webhook_attempts_total{outcome=\"failed\"}", 1.0),
        ] {
            assert_eq!(value_of(&page, series), Some(value), "{series} in\n{page}");
        }
        assert!(page.contains("ingest_build_info{version=\"\",mode=\"cache-first\""), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn the_types_are_ones_that_both_text_parsers_of_prometheus_know() {
        let page = Metrics::new(&BuildInfo::default()).encode();
        for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
            let kind = line.rsplit(' ').next();
            assert!(matches!(kind, Some("counter" | "gauge" | "histogram")), "{line}");
        }
    }

    #[test]
    fn the_process_gauges_are_read_when_the_page_is_made() {
        let page = Metrics::new(&BuildInfo::default()).encode();
        assert!(value_of(&page, "process_cpu_seconds_total").is_some_and(|seconds| seconds > 0.0), "{page}");
        if cfg!(target_os = "linux") {
            assert!(value_of(&page, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6), "{page}");
        }
    }

    #[test]
    fn a_statement_ends_the_sql_idle_time() {
        let before = Instant::now();
        let metrics = Metrics::new(&BuildInfo::default());
        std::thread::sleep(Duration::from_millis(20));
        assert!(metrics.sql_idle() >= Duration::from_millis(20));
        metrics.statement(Statement::Insert);
        let idle = metrics.sql_idle();
        assert!(
            before.elapsed() - idle >= Duration::from_millis(20),
            "the 20 ms before the statement are not idle time"
        );
    }
}
