//! What the server says of itself at `GET /metrics` (rule O2): Prometheus/OpenMetrics text, base units, cumulative counters.
//!
//! Times are seconds, sizes bytes. Names begin with `ingest_`. Handles are plain fields so that a hot path increments an atomic
//! and looks nothing up.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

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

/// Kind of SQL statement.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum Statement {
    Select,
    Count,
    Insert,
    Update,
    Delete,
    Begin,
    Commit,
    Other,
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

/// Outcome of a webhook attempt.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `delivered`, `failed`, `dead_letter`.
    pub outcome: &'static str,
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
    pub sql_statements: Family<StatementLabel, Counter>,
    pub sql_idle_seconds: Gauge<f64, AtomicU64>,
    pub polls: Family<PollLabels, Counter>,
    pub poll_interval_seconds: Gauge<f64, AtomicU64>,
    pub deep_idle: Gauge,
    pub store_available: Gauge,
    pub store_errors: Counter,
    pub journal_syncs: Counter,
    pub journal_sync_seconds: Histogram,
    pub cache_hits: Family<CacheLabel, Counter>,
    pub cache_misses: Family<CacheLabel, Counter>,
    pub cache_entries: Family<CacheLabel, Gauge>,
    pub cache_evictions: Family<CacheLabel, Counter>,
    pub webhook_attempts: Family<OutcomeLabel, Counter>,
    pub connections: Gauge,
    pub process_cpu_seconds: Counter<f64, AtomicU64>,
    pub process_resident_memory_bytes: Gauge,
    started: Instant,
    sql_last_used_ns: AtomicI64,
}
