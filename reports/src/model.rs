//! `run.v1`: the data of one run, as written to `run.json` and embedded in `report.html`.
//!
//! The only place that derives `Serialize` for results. Units are in the names: `_ns`, `_ms`, `_s`, `_bytes`, `_per_s`; counts are
//! plural nouns. Times of day are RFC 3339, UTC. A field that could not be measured is `null` and a caveat says why; it is never 0.
//! Readers must accept fields they do not know; `schema` changes when a meaning does.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of [`Run::schema`] that this code writes.
pub const SCHEMA: &str = "run.v1";

/// One run: what was asked for, where, what came out, and what to think of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// `"run.v1"`.
    pub schema: String,
    /// Unique id of this run; every event it sent carries it.
    pub run_id: String,
    /// What measured.
    pub tool: Tool,
    /// The exact command line.
    pub command: Vec<String>,
    /// When the run began.
    pub started_at: String,
    /// How long it took in all.
    pub seconds: f64,
    /// Stopped by a person or a signal before its end; never a pass.
    pub interrupted: bool,
    /// Everything that was asked for.
    pub plan: Plan,
    /// The machine and the build.
    pub environment: Environment,
    /// What to think of it, in one word, with reasons.
    pub verdict: Verdict,
    /// What was demanded, and what was measured.
    pub objectives: Vec<ObjectiveResult>,
    /// Reasons to doubt the run, from a closed list.
    pub caveats: Vec<Caveat>,
    /// What this machine and the generator can do at best, measured before the first repetition; `null` when that was left out, failed,
    /// or is a variant of the plan itself (mode `null`).
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// The highest rate at which the objectives hold, one a variant; empty when it was not looked for. `results` then has the trials at
    /// that rate that confirmed it, and `plan.rate_per_s` is 0.
    #[serde(default)]
    pub capacity: Vec<Capacity>,
    /// What a server that is killed under load keeps of what it had acknowledged, one entry a mode and store; empty when none was killed.
    /// `results` is then empty.
    #[serde(default)]
    pub crash: Vec<CrashTest>,
    /// Which rules of the contract each target keeps; left out when that was not tested. `results` is empty where nothing else was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conformance: Vec<Conformance>,
    /// Which part of a load that several generators offer together this run sent; left out when it sent all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The runs that were merged into this one, by number; empty when one generator sent all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardResult>,
    /// One entry per repetition of each variant, in the order in which they ran.
    pub results: Vec<TargetResult>,
}

/// One generator's part of a load. The plan beside it is the whole load's; objectives are judged on all parts together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// Which part, counted from 0.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// Name of the generator's machine.
    pub host: String,
    /// When the steady phase was to begin on all of them.
    pub start_at: String,
    /// When it began, by the generator's clock; `null`: it did not.
    pub steady_began_at: Option<String>,
    /// The generator's clock against the target's; `null` when the target does not show its clock.
    pub clock: Option<ClockOffset>,
    /// Why it is not known.
    pub clock_unknown: Option<String>,
    /// When the generator last asked the target for what it keeps, by the generator's clock; `null`: it did not ask.
    pub last_read_at: Option<String>,
}

/// One clock against another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockOffset {
    /// What has to be added to the generator's clock to have the target's, ns: the middle of what is possible.
    pub offset_ns: i64,
    /// By how much that may be off at most, ns.
    pub uncertainty_ns: u64,
    /// What it was read from: `date` (the header `Date` of answers).
    pub source: String,
}

/// One of the runs that were merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShardResult {
    /// Which part, whose, and by which clock.
    pub shard: Shard,
    /// What its command line was.
    pub command: Vec<String>,
    /// Its generator's machine.
    pub environment: Environment,
    /// What its own verdict was: objectives are no part of it.
    pub verdict: Verdict,
    /// Events that it had to send in the steady phase.
    pub planned: u64,
    /// What became of them.
    pub outcomes: Outcomes,
    /// done − intended, of its own.
    pub response_time: Times,
    /// sent − intended less the connection wait, of its own.
    pub send_delay: Times,
    /// Its events that were acknowledged, in all phases; `null`: nobody looked for them.
    pub acknowledged: Option<u64>,
    /// Of these, how many were lost.
    pub lost: Option<u64>,
    /// Surplus copies of its events.
    pub duplicated: Option<u64>,
    /// Of its acknowledged events, how many are neither proven kept nor lost.
    pub unverified: Option<u64>,
    /// CPU time of its generator over the steady phase, s.
    pub generator_cpu_s: Option<f64>,
    /// What its generator saw of itself and of its machine.
    pub health: Option<Health>,
}

/// What measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// `millrace loadgen`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Git revision of the build, `unknown` outside a checkout, with `-dirty` when files differed.
    pub revision: String,
    /// `release` or `debug`. Numbers of a debug build carry a caveat.
    pub build_profile: String,
}

/// Everything that was asked for, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Name of the plan: `default`, `before-after`, or the file's own.
    pub name: String,
    /// What is measured, in the order given; each repetition runs all of them, rotated by one.
    pub variants: Vec<Variant>,
    /// Kinds of database that servers are started on (`sqlite`, `postgres`, `postgres, sqlite`), or `null` for targets that already run.
    pub database: Option<String>,
    /// How the intended send times are drawn.
    pub arrivals: Arrivals,
    /// Offered rate, events per second: the mean over the steady phase where it changes. Ignored (0) by `closed`.
    pub rate_per_s: f64,
    /// How the offered rate changes over the steady phase; `null`: it does not, or there is none (closed loop, replay).
    #[serde(default)]
    pub shape: Option<Shape>,
    /// The recorded timeline that is sent again in the steady phase, in place of a rate.
    #[serde(default)]
    pub replay: Option<Replay>,
    /// Length of the warm-up, not measured, ms.
    pub warmup_ms: u64,
    /// Length of the steady phase, ms.
    pub duration_ms: u64,
    /// Length of the idle phase, ms; 0 leaves it out.
    pub idle_ms: u64,
    /// How long to wait for acknowledged events to be persisted before they count as lost, ms.
    pub drain_timeout_ms: u64,
    /// A request without a whole answer this long after it was sent is `timed_out`; one that waits this long for a connection
    /// is `not_sent`, ms.
    pub request_timeout_ms: u64,
    /// What is asked of the target.
    #[serde(default)]
    pub mix: Mix,
    /// Events in one request of the operation `batch`.
    #[serde(default = "batch_events_default")]
    pub batch_events: u32,
    /// How the generator waits for what is due.
    #[serde(default)]
    pub pacing: Pacing,
    /// Priority of the sending thread as a niceness, −20..=−1: it goes before what else wants its processor, a server on this machine too.
    /// `null`: as the generator was started.
    #[serde(default)]
    pub sender_nice: Option<i32>,
    /// Who goes before every other thread of the machine (`SCHED_RR`). `null`: nobody.
    #[serde(default)]
    pub realtime: Option<Realtime>,
    /// Protocol of the load's connections.
    #[serde(default)]
    pub http: HttpVersion,
    /// Connections, opened before the warm-up; `streams` requests at a time on each.
    pub connections: u32,
    /// Concurrent requests on one connection; 1 with HTTP/1.1.
    #[serde(default = "one")]
    pub streams: u32,
    /// File with the certificate of an authority that is trusted beside the system's, for https targets.
    #[serde(default)]
    pub tls_ca: Option<String>,
    /// Certificates of https targets are not verified: anybody could have answered.
    #[serde(default)]
    pub tls_insecure: bool,
    /// Faults that the reference server was told to have, as written: a run with faults tests the tool, not the server.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Size of the JSON payload of each event, bytes: the median where sizes differ.
    pub payload_bytes: u32,
    /// How payload sizes are distributed; `null`: all have `payload_bytes`.
    #[serde(default)]
    pub payload_sizes: Option<PayloadSizes>,
    /// Share 0..=1 of events that are sent again with the same `dedup_id` (and must then be refused with 409).
    pub duplicates_share: f64,
    /// Organisations (API keys) the load is spread over.
    pub organizations: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// How often each variant is measured, with a fresh server and fresh data each time.
    pub repeat: u32,
    /// Objectives as written.
    pub objectives: Vec<String>,
    /// Whether acknowledged events are reconciled with what is persisted.
    pub ledger: bool,
    /// Whether the target was to deliver events by webhook to a receiver inside of the generator.
    #[serde(default)]
    pub webhooks: bool,
    /// Whether the floor of the machine was to be measured first.
    #[serde(default)]
    pub calibration: bool,
    /// First events of a run that the ledger keeps; what is acknowledged of later ones is unverified.
    #[serde(default = "ledger_events_max_default")]
    pub ledger_events_max: u64,
    /// Share 0..=1 of requests whose spans went to a receiver of OpenTelemetry; all of them carried a `traceparent`, and what both cost is in
    /// the numbers. `null`: none did.
    #[serde(default)]
    pub followed_share: Option<f64>,
}

/// One thing to measure: a target in one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Variant {
    /// Short name, unique within the plan, used as heading and in objectives: `cache-first`, `cache-first/adaptive`, a host.
    pub name: String,
    /// URL of a server that already runs, or `null`: it is started, from its profile or as the reference server.
    pub url: Option<String>,
    /// Mode of the reference server.
    pub mode: Option<String>,
    /// Polling policy of the reference server.
    pub polling: Option<String>,
    /// Which side of a before-and-after table this is: `old` or `new`.
    pub role: Option<Role>,
    /// The profile that describes it; `null`: the contract does.
    #[serde(default)]
    pub profile: Option<VariantProfile>,
}

/// What a target's profile says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VariantProfile {
    /// Name of the implementation.
    pub name: String,
    /// Name of the configuration; `null`: the default one.
    pub label: Option<String>,
    /// A line for people.
    pub description: Option<String>,
    /// Ids of the rules of the contract that it claims to follow; `null`: all of them.
    pub claims: Option<Vec<String>>,
}

/// Side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What there was.
    Old,
    /// What there is now.
    New,
}

/// How the intended send times are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Open loop, independent arrivals (exponential gaps): what many independent senders do.
    Poisson,
    /// Open loop, equal gaps.
    Constant,
    /// Closed loop: each connection sends when its last answer is in. Response time is then service time, and hides stalls.
    Closed,
}

/// How the offered rate changes over the steady phase. The warm-up runs at the rate with which the shape begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shape {
    /// From one rate to another, linearly over the whole phase.
    Ramp {
        /// Events per second at the begin of the phase.
        from_per_s: f64,
        /// Events per second at its end.
        to_per_s: f64,
    },
    /// One rate after the other, each for an equal part of the phase.
    Steps {
        /// Events per second, in the order in which they are offered (already shuffled and mirrored, where that was asked for).
        rates_per_s: Vec<f64>,
    },
    /// A burst in the middle of each period.
    Burst {
        /// Events per second between the bursts.
        base_per_s: f64,
        /// Events per second in a burst.
        height_per_s: f64,
        /// Length of a burst, ms.
        length_ms: u64,
        /// Length of a period, ms.
        every_ms: u64,
    },
}

/// A recorded timeline that is sent again. The warm-up runs at its mean rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// The file, as given.
    pub file: String,
    /// How many times as fast as it was recorded.
    pub speed: f64,
    /// Events in it.
    pub events: u64,
    /// Median of the recorded payload sizes, bytes; `null`: none was recorded. Events without one have the plan's size.
    pub payload_bytes_median: Option<u32>,
    /// Recorded payloads that were too small to carry a number and were made as large as that takes.
    pub payloads_raised: u64,
}

/// How payload sizes are distributed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PayloadSizes {
    /// Every size in a range equally often.
    Uniform {
        /// Smallest, bytes.
        bytes_min: u32,
        /// Largest, bytes.
        bytes_max: u32,
    },
    /// Many small ones and a few large ones: the logarithm is normally distributed.
    Lognormal {
        /// Half are smaller, bytes.
        bytes_median: u32,
        /// One in a hundred is larger, bytes.
        bytes_p99: u32,
    },
}

/// What is asked of the target: share 0..=1 of each operation in the requests; the sum is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mix {
    /// `POST /api/events`: one event.
    pub ingest: f64,
    /// `POST /api/events/batch`: several events.
    pub batch: f64,
    /// `GET /api/inbox`: reading persisted events.
    pub inbox: f64,
    /// `POST /api/ack/{id}`: taking one event out of the inbox.
    pub ack: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { ingest: 1.0, batch: 0.0, inbox: 0.0, ack: 0.0 }
    }
}

/// Protocol of the load's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "2")]
    Http2,
}

/// How the generator waits for the time at which a request is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// Sleep to the end: cheapest, late by as much as the machine takes to wake up.
    Sleep,
    /// Sleep, and spin for as long as nine of ten sleeps end late.
    #[default]
    Hybrid,
    /// Never sleep: a core for the generator alone.
    Spin,
}

/// Whose threads get a processor before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Realtime {
    /// The thread that sends.
    Sender,
    /// Those of the reference server that answer, and its journal's.
    Server,
    /// All of these; the sender first.
    Both,
}

impl Realtime {
    /// Whether the sending thread is among them.
    pub fn has_sender(self) -> bool {
        matches!(self, Self::Sender | Self::Both)
    }

    /// Whether the reference server is.
    pub fn has_server(self) -> bool {
        matches!(self, Self::Server | Self::Both)
    }
}

/// What results that do not say it had.
fn one() -> u32 {
    1
}

/// Results that do not say it sent no batches.
fn batch_events_default() -> u32 {
    10
}

/// Events that the ledger keeps unless told otherwise: about 1.8 GB while it is reconciled.
pub const LEDGER_EVENTS_MAX_DEFAULT: u64 = 20_000_000;

fn ledger_events_max_default() -> u64 {
    LEDGER_EVENTS_MAX_DEFAULT
}

/// The machine and the build, as found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Operating system and version.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu_model: String,
    /// Cores this process may use.
    pub cores: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Frequency governor, when the machine shows one.
    pub cpu_governor: Option<String>,
    /// Hypervisor vendor when the machine is virtual, as far as can be seen.
    pub virtualization: Option<String>,
    /// Generator and server share the machine.
    pub same_host: bool,
    /// Filesystem type under the server's data folder.
    pub data_filesystem: Option<String>,
    /// How the generator waits for an intended time.
    pub pacing: String,
}

/// What to think of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// Sentences, most important first.
    pub reasons: Vec<String>,
    /// The exit code that goes with it.
    pub exit_code: u8,
}

/// In one word. Ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every objective met, nothing lost, nothing duplicated. Exit 0.
    Pass,
    /// The data do not decide. Exit 4.
    Inconclusive,
    /// An objective missed, or an acknowledged event lost or duplicated. Exit 3.
    Missed,
    /// The run says nothing about the target: no data, dead target, generator could not keep up, interrupted. Exit 5.
    Invalid,
}

/// One objective on one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectiveResult {
    /// As written.
    pub expression: String,
    /// Variant it was judged on.
    pub variant: String,
    /// Measured, in the unit of `unit`: of times and ratios the median over the repetitions, of counts (`events`) the worst
    /// repetition. `null`: nothing to judge.
    pub value: Option<f64>,
    /// Measured, one per repetition.
    pub values: Vec<f64>,
    /// The bound, in the same unit.
    pub bound: Option<f64>,
    /// `ns`, `bytes`, `per_s`, `per_hour`, `s`, `events`, `ratio`.
    pub unit: String,
    /// `null`: undecided (no data, or too few samples); the run is then inconclusive.
    pub met: Option<bool>,
    /// Why it is undecided, or what the value is of.
    pub note: Option<String>,
}

/// A reason to doubt the run, with its numbers and what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Caveat {
    /// From the closed list.
    pub kind: CaveatKind,
    /// `variant` or `variant #repetition` it applies to; `null`: the whole run.
    pub subject: Option<String>,
    /// What was found, with numbers and units.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// The run is invalid because of it.
    pub invalidates: bool,
}

/// The closed list of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaveatKind {
    /// The target could not be reached at all.
    DeadTarget,
    /// No event was accepted.
    NothingAccepted,
    /// Stopped before the end.
    Interrupted,
    /// The target says that it breaks promises on purpose: what is measured says nothing about a real one.
    FaultsInjected,
    /// The generator was too late or too busy: what was measured is mostly the generator.
    GeneratorSaturated,
    /// Send delay is not small against the response time reported.
    SendDelayLarge,
    /// Accepted rate is not the offered rate.
    RateNotReached,
    /// Events were planned and never sent.
    EventsNotSent,
    /// Events timed out; quantiles near them are lower bounds.
    Timeouts,
    /// Requests failed or were refused.
    Errors,
    /// Connections had to be opened again during the measurement.
    Reconnects,
    /// Requests waited for a free connection.
    ConnectionsExhausted,
    /// Too few samples beyond a quantile to judge or to print it.
    TooFewSamples,
    /// A mode at 38–45 ms: Nagle and delayed acknowledgements.
    DelayedAcknowledgements,
    /// The machine itself stood still (late wake-ups of idle threads), often enough to explain the slowest events.
    MachineStalls,
    /// Events were not due as asked, or not sent when they were due, often enough to make it another load.
    ArrivalsNotAsAsked,
    /// Not reconciled: nobody checked that acknowledged events were kept.
    LedgerLeftOut,
    /// The ledger could not be completed: some events are unverified.
    LedgerIncomplete,
    /// Persisted events this run sent, but for which no acknowledgement was read.
    PersistedWithoutAcknowledgement,
    /// The target told no secret to verify the signatures of its webhooks with.
    SignaturesUnverified,
    /// Not every request could be written to the file that was asked for.
    SamplesIncomplete,
    /// Not every span or metric reached the receiver that was asked for.
    TelemetryIncomplete,
    /// SQL could not be counted, or only by the target's own word.
    SqlCountUnavailable,
    /// Unoptimised build.
    DebugBuild,
    /// Closed loop: stalls are hidden.
    ClosedLoop,
    /// Measured once: no spread.
    SingleRepetition,
    /// Something else used the processors, or kept the generator from running.
    BusyMachine,
    /// Nobody measured what this machine can do at best, so no number has its floor beside it.
    NotCalibrated,
    /// Trials followed one another on a target that cannot be started afresh: what one left behind is in the next.
    HysteresisPossible,
}

/// The floor: a server that does nothing at all (mode `null`, on the generator's own machine), driven as the plan says. What it takes is
/// the machine's, the network stack's and the generator's, and in every number of every other server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// Rate it was driven at, per second: the plan's mean rate; 0 in a closed loop.
    pub rate_per_s: f64,
    /// Rate it accepted, per second.
    pub achieved_per_s: f64,
    /// For how long, s.
    pub seconds: f64,
    /// done − intended.
    pub response_time: Times,
    /// done − sent.
    pub service_time: Times,
    /// sent − intended.
    pub send_delay: Times,
    /// How late sleeps of 1 ms ended, through the same system call with which the generator waits.
    pub timer_lateness: Times,
    /// How late idle threads woke meanwhile; `null` when nobody watched.
    pub hiccups: Option<Hiccups>,
    /// CPU time of the generator's whole process per request, spinning included, ns.
    pub generator_cpu_ns_per_request: Option<f64>,
    /// Highest rate that the generator can honestly offer, per second (what that means: [`crate::calibration`]); `null`: not looked for,
    /// or not even the lowest one that was tried.
    #[serde(default)]
    pub rate_per_s_max: Option<f64>,
    /// Lowest rate that it could not offer honestly, per second; `null`: none was tried.
    #[serde(default)]
    pub rate_per_s_failed: Option<f64>,
    /// Why not, in words.
    #[serde(default)]
    pub limit: Option<String>,
    /// What all connections together reach when each sends as soon as its answer is in, per second; `null`: not tried.
    #[serde(default)]
    pub closed_per_s_max: Option<f64>,
}

/// The highest rate at which a variant holds its objectives, keeps everything, and persists as fast as it acknowledges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// Name of the variant.
    pub variant: String,
    /// Objectives that had to be met in each trial, as written.
    pub objectives: Vec<String>,
    /// Lowest rate that was to be tried, per second.
    pub rate_per_s_lowest: f64,
    /// The capacity, per second: every confirmation held there. `null`: none was found.
    pub rate_per_s: Option<f64>,
    /// Lowest rate that failed, per second; `null`: none did.
    pub rate_per_s_failed: Option<f64>,
    /// Why it failed, as sentences.
    pub failed_because: Vec<String>,
    /// What ended the search other than the target (the generator, the highest rate that was to be tried): the capacity is at least
    /// `rate_per_s`. `null`: the target did.
    pub limit: Option<String>,
    /// The generator was saturated before anything held, so nothing is known of the target.
    pub is_generator_at_fault: bool,
    /// Rate below which the verdict is `missed`, per second; `null`: none was asked for.
    pub fail_under_per_s: Option<f64>,
    /// Rate with the largest ratio of rate to mean response time, per second: beyond it more load costs more waiting than it brings
    /// (*power*; Kleinrock, ICC 1979). `null`: fewer than three rates were tried.
    pub knee_per_s: Option<f64>,
    /// Every trial, in the order in which they ran.
    pub trials: Vec<CapacityTrial>,
}

/// What a trial of a search is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialStage {
    /// Doubling the rate until one fails.
    Explore,
    /// Halving the ratio between what held and what failed.
    Narrow,
    /// The rate found, once more.
    Confirm,
}

/// One rate, tried once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityTrial {
    /// What for.
    pub stage: TrialStage,
    /// Offered rate, per second.
    pub rate_per_s: f64,
    /// Length of the steady phase, s.
    pub seconds: f64,
    /// Everything that was demanded was so.
    pub held: bool,
    /// It says nothing about the target: the generator could not keep up.
    pub is_saturated: bool,
    /// Why it did not hold, as sentences.
    pub reasons: Vec<String>,
    /// Accepted, per second.
    pub achieved_per_s: f64,
    /// Persisted, per second, while the load lasted; `null` when it cannot be told.
    pub persisted_per_s: Option<f64>,
    /// By how much the time to durable grows, s per s; `null` when events carry no time at which they were persisted.
    pub growth: Option<f64>,
    /// Mean response time.
    pub response_time_ns_mean: f64,
    /// Quantile 0.5 of the response time.
    pub response_time_ns_p50: u64,
    /// Quantile 0.99 of it.
    pub response_time_ns_p99: u64,
    /// Quantile 0.999 of it.
    pub response_time_ns_p999: u64,
    /// Quantile 0.99 of the send delay.
    pub send_delay_ns_p99: u64,
    /// Most events that the target said were pending; `null` when it does not say.
    pub backlog_peak: Option<u64>,
    /// CPU time of the server, as a share of one core; `null` when not known.
    pub server_cpu_share: Option<f64>,
    /// CPU time of the generator, as a share of one core.
    pub generator_cpu_share: Option<f64>,
}

/// How a server was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KillKind {
    /// SIGKILL to its process: what it had handed to the system's page cache is kept.
    Process,
    /// The filesystem of its data shut down without flushing anything, its processes killed, the filesystem mounted again: what was not
    /// synced is gone, as after a power cut. (That the device itself keeps what it was told to flush is not tested.)
    Power,
}

/// One mode on one store, killed under load again and again, each time started again on the same data and reconciled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CrashTest {
    /// `db-first on sqlite`; unique in the run.
    pub name: String,
    /// `--mode` of the reference server.
    pub mode: String,
    /// Kind and version of the database.
    pub database: String,
    /// How it was killed.
    pub kill: KillKind,
    /// What its acknowledgements claim to be worth; `null`: there was none, or it said nothing.
    pub durability: Option<String>,
    /// It was made to lose on purpose (no sync, a fault), to show that losses are found.
    pub losses_expected: bool,
    /// What the store itself says of its durability, read back after the first start.
    pub settings: Vec<DurabilitySetting>,
    /// Filesystem of the data.
    pub filesystem: Option<String>,
    /// Seed of the moments of the kills.
    pub seed: u64,
    /// Kills under load that were asked for.
    pub kills_planned: u32,
    /// Each of them, in order.
    pub kills: Vec<Kill>,
    /// Events acknowledged in all.
    pub acknowledged: u64,
    /// Acknowledged although the power went while they were under way: not counted as acknowledged. A real machine would not have lived to
    /// answer, and Linux may say of a sync that a shutdown of ext4 overtakes that it was done.
    #[serde(default)]
    pub in_flight: u64,
    /// Acknowledged, and not there after the last restart: asked for by id, and not in the inbox.
    pub lost: u64,
    /// Copies more than one of an event, and repeats that were acknowledged as if they were new.
    pub duplicated: u64,
    /// Events stored with another payload or under another id than acknowledged.
    pub altered: u64,
    /// Acknowledged events of which nobody could tell whether they are there.
    pub unverified: u64,
    /// There although their acknowledgement never arrived: allowed, since the sender cannot know.
    pub unacknowledged: u64,
    /// Not there when the server was ready again, and there later.
    pub reappeared: u64,
    /// Unanswered events that were sent again after the restart, as a sender would do it.
    pub resent: u64,
    /// Of these, how many the server knew from before the kill (409).
    pub resent_known: u64,
    /// How long before the kill the lost ones had been acknowledged: the window of loss. Without those that were acknowledged after it (a
    /// server lives on for a moment when its disk is cut off).
    pub lost_age: Times,
    /// From the start of the server (and of its own database, after a power cut) until it said that it is ready.
    pub ready: Times,
    /// `dedup_id`s of lost events, as examples.
    pub lost_examples: Vec<String>,
    /// Why the server could not go on: it did not start again on its data after a kill, or ended by itself before one; `null`: it always could.
    pub server_failure: Option<String>,
    /// Why the test ended early, other than through the server's data; a sentence.
    pub failure: Option<String>,
}

/// One setting of a store that decides what a commit is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DurabilitySetting {
    /// As the store calls it: `synchronous`, `fsync`, …
    pub name: String,
    /// As the store says it.
    pub value: String,
}

/// One kill under load and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kill {
    /// 1-based.
    pub number: u32,
    /// When, after the begin of its load, ms.
    pub at_ms: f64,
    /// When the server was killed once more while it recovered, after its start, ms; `null`: it was not.
    pub in_recovery_ms: Option<f64>,
    /// Events of its load that were acknowledged.
    pub acknowledged: u64,
    /// See [`CrashTest::in_flight`].
    #[serde(default)]
    pub in_flight: u64,
    /// Of these, how many were lost.
    pub lost: u64,
    /// How long before the kill the oldest lost one had been acknowledged, ns; `null`: none that was acknowledged before it was lost.
    pub lost_age_ns_max: Option<u64>,
    /// See [`CrashTest::duplicated`].
    pub duplicated: u64,
    /// See [`CrashTest::altered`].
    pub altered: u64,
    /// See [`CrashTest::unverified`].
    pub unverified: u64,
    /// See [`CrashTest::unacknowledged`].
    pub unacknowledged: u64,
    /// See [`CrashTest::ready`]; `null`: it never was.
    pub ready_ns: Option<u64>,
}

/// One repetition of one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetResult {
    /// Name of the variant.
    pub target: String,
    /// 1-based.
    pub repetition: u32,
    /// Base URL that was driven.
    pub url: String,
    /// Mode of the reference server, else `null`.
    pub mode: Option<String>,
    /// What the target's acknowledgements claim: `memory`, `journal`, `database`, or `null` when they say nothing.
    pub durability: Option<String>,
    /// Database kind and version, as far as known.
    pub database: Option<String>,
    /// Polling policy of the reference server, else `null`.
    pub polling: Option<String>,
    /// Version the target reports.
    pub server_version: Option<String>,
    /// Why this repetition ended early or has no data; a sentence.
    pub failure: Option<String>,
    /// The steady phase.
    pub load: Load,
    /// Acknowledged against persisted; `null` when left out.
    pub ledger: Option<Ledger>,
    /// The idle phase; `null` when left out.
    pub idle: Option<Idle>,
    /// CPU and memory.
    pub resources: Resources,
    /// What the generator saw of itself and of its machine; `null` when nobody watched.
    #[serde(default)]
    pub health: Option<Health>,
}

impl TargetResult {
    /// `cpu_s` seconds of CPU spread over the accepted events of the steady phase, ns per event.
    pub fn cpu_ns_per_event(&self, cpu_s: Option<f64>) -> Option<f64> {
        let accepted = self.load.outcomes.accepted;
        cpu_s.filter(|_| accepted > 0).map(|s| s * 1e9 / accepted as f64)
    }
}

/// The steady phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// Length of the phase as planned, s.
    pub seconds: f64,
    /// Offered rate: planned events over `seconds`.
    pub offered_per_s: f64,
    /// Achieved rate: accepted events over the time from the first intended send to the later of the end of the phase and
    /// the last answer.
    pub achieved_per_s: f64,
    /// Events planned; equal to the sum of the outcomes.
    pub planned: u64,
    /// What became of them.
    pub outcomes: Outcomes,
    /// Deliberate repeats among the planned, and what they got.
    pub repeats: Repeats,
    /// HTTP statuses received, by code.
    pub statuses: BTreeMap<String, u64>,
    /// Kinds of errors, most frequent first.
    pub errors: Vec<ErrorCount>,
    /// done − intended, of accepted events; timed-out and never-sent ones are in it with the time they had waited (`censored`).
    pub response_time: Times,
    /// done − sent, of the same.
    pub service_time: Times,
    /// sent − intended less the connection wait: the generator's own fault.
    pub send_delay: Times,
    /// Time during which a due request found every connection busy: the target's fault, part of the response time.
    pub connection_wait: Times,
    /// done − intended of rejected and failed requests, kept apart so that a quick refusal flatters nobody.
    pub refused_time: Times,
    /// Connections opened before the phase.
    pub connections: u32,
    /// Connections opened again during the phase.
    pub reconnects: u64,
    /// Time to open a connection.
    pub connect_time: Times,
    /// By operation, where several were mixed; the numbers above are of all of them together.
    #[serde(default)]
    pub operations: Vec<OperationLoad>,
    /// By second of the phase (of intended time).
    pub intervals: Vec<Interval>,
    /// What the target said was pending, over time; empty when it does not say.
    pub backlog: Vec<BacklogSample>,
    /// Whether the events left as asked; `null` when nobody looked, and in a closed loop, where nothing was asked.
    #[serde(default)]
    pub arrivals_check: Option<ArrivalsCheck>,
    /// What the response times were made of, by how long they were, ascending; empty when nobody added it up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TimeParts>,
    /// What the target says its answers took; left out when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_time: Option<TargetTime>,
}

impl Load {
    /// Achieved over offered rate, leaving out of the offered one the deliberate repeats that were rightly refused; `None` when
    /// nothing was offered (closed loop).
    pub fn achieved_ratio(&self) -> Option<f64> {
        let wanted = self.planned.saturating_sub(self.repeats.refused);
        if self.planned == 0 || wanted == 0 || self.offered_per_s <= 0.0 {
            return None;
        }
        Some(self.achieved_per_s / (self.offered_per_s * wanted as f64 / self.planned as f64))
    }

    /// Planned events that were not accepted and should have been: deliberate repeats that were refused are left out.
    pub fn not_accepted(&self) -> u64 {
        self.planned.saturating_sub(self.outcomes.accepted).saturating_sub(self.repeats.refused)
    }

    /// Largest number of pending events the target spoke of; `None` when it said nothing.
    pub fn backlog_peak(&self) -> Option<u64> {
        self.backlog.iter().map(|s| s.pending_events).max()
    }
}

/// Requests whose response times are alike, with the sums of what these were made of: of each, the three are its response time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeParts {
    /// Their response times are below this, ns, and not below that of the entry before.
    pub response_time_ns_below: u64,
    /// How many; those that were never sent are not among them.
    pub requests: u64,
    /// Sum of sent − intended less the connection wait, ns.
    pub send_delay_ns: u64,
    /// Sum of the waiting for a free connection, ns.
    pub connection_wait_ns: u64,
    /// Sum of done − sent, ns.
    pub service_time_ns: u64,
}

/// What the target says its answers took, by its own clock: from having read a request's head to having the answer ready.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetTime {
    /// Requests that it counted, between the first and the last look at its metrics in the steady phase.
    pub requests: u64,
    /// Arithmetic mean of them, ns.
    pub mean_ns: f64,
}

/// What a target can be asked by a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /api/events`: one event.
    Ingest,
    /// `POST /api/events/batch`: several events.
    Batch,
    /// `GET /api/inbox`: reading persisted events.
    Inbox,
    /// `POST /api/ack/{id}`: taking one event out of the inbox.
    Ack,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Batch, Self::Inbox, Self::Ack];

    /// As plans, objectives and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Batch => "batch",
            Self::Inbox => "inbox",
            Self::Ack => "ack",
        }
    }
}

/// One operation's part of the steady phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationLoad {
    /// Which.
    pub operation: Operation,
    /// Requests planned.
    pub planned: u64,
    /// What became of them; a batch of which any event was refused is rejected.
    pub outcomes: Outcomes,
    /// Events that these requests got acknowledged.
    pub events_acknowledged: u64,
    /// done − intended, of what was accepted, timed out or never sent, and of batches that were refused in part.
    pub response_time: Times,
    /// done − sent, of those of them that were sent.
    pub service_time: Times,
}

/// The arrival process of the steady phase: as drawn by the schedule, and as sent. What an event waited for a connection is the
/// target's doing and left out of its send time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArrivalsCheck {
    /// What was asked for.
    pub process: ArrivalProcess,
    /// Mean gap between two events as asked, ns.
    pub gap_ns_mean: f64,
    /// Events that the rate asked for makes on average; `null` when only the times are known (`scheduled`).
    pub expected: Option<f64>,
    /// Events that the schedule made due.
    pub planned: u64,
    /// Events that were sent.
    pub sent: u64,
    /// Events of these that were reported too late to be put in order, and are not in the numbers below.
    pub left_out: u64,
    /// Kolmogorov–Smirnov distance between the gaps of the schedule and the exponential distribution, 0..=1; `null` unless `poisson`.
    pub gap_distance_planned: Option<f64>,
    /// The same of the gaps between events sent, of gaps of 20 µs and more: shorter ones are the time a write takes.
    pub gap_distance_sent: Option<f64>,
    /// Counts of events in windows of several lengths.
    pub windows: Vec<ArrivalsWindow>,
}

/// What kind of arrivals was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalProcess {
    /// Poisson at one rate throughout.
    Poisson,
    /// Equal gaps at one rate throughout.
    Constant,
    /// The times of the schedule, whatever they are.
    Scheduled,
}

/// Counts of events in equal windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArrivalsWindow {
    /// Length of a window, ns.
    pub length_ns: u64,
    /// How many there are.
    pub windows: u64,
    /// Index of dispersion (variance over mean) of the events due: 1 for Poisson, 0 for equal gaps, more for bursts.
    pub dispersion_planned: f64,
    /// Index of dispersion of the events sent.
    pub dispersion_sent: f64,
}

/// What became of the planned events; the sum is `planned`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcomes {
    /// Acknowledged (2xx).
    pub accepted: u64,
    /// Refused (4xx).
    pub rejected: u64,
    /// 5xx, an answer that is none, or a broken connection.
    pub failed: u64,
    /// No whole answer within the request timeout.
    pub timed_out: u64,
    /// Never sent: no connection came free within the request timeout, or none could be opened.
    pub not_sent: u64,
}

impl Outcomes {
    /// Sum of all outcomes.
    pub fn total(&self) -> u64 {
        self.accepted + self.rejected + self.failed + self.timed_out + self.not_sent
    }
}

/// Deliberate repeats: events sent again with a `dedup_id` that was acknowledged before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repeats {
    /// Sent.
    pub sent: u64,
    /// Refused with 409, as they should be.
    pub refused: u64,
    /// Acknowledged with a 2xx: wrong.
    pub accepted: u64,
}

/// One kind of error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorCount {
    /// Short name: `connection refused`, `HTTP 503`, `connection closed before the answer`.
    pub kind: String,
    /// How many.
    pub count: u64,
}

/// A distribution of times. Other implementations may leave out what they do not have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Times {
    /// Samples.
    pub count: u64,
    /// Samples whose true value is at least the recorded one (timed out, never sent): quantiles among them are lower bounds.
    pub censored: u64,
    /// Samples above the histogram's range, recorded at its upper bound.
    pub overflowed: u64,
    /// Smallest.
    pub min_ns: u64,
    /// Arithmetic mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// Quantile 0.9.
    pub p90_ns: u64,
    /// Quantile 0.99.
    pub p99_ns: u64,
    /// Quantile 0.999.
    pub p999_ns: u64,
    /// Quantile 0.9999.
    pub p9999_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// HdrHistogram V2 compressed, base64: nanoseconds, 3 significant digits.
    pub histogram: String,
}

/// One second of the steady phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Begin, ms after the begin of the phase.
    pub offset_ms: u64,
    /// Length, ms (the last one may be shorter).
    pub length_ms: u64,
    /// Planned in this second.
    pub planned: u64,
    /// What became of these.
    pub outcomes: Outcomes,
    /// Response time of the accepted, timed-out and not-sent ones.
    pub response_time: Times,
    /// 0.99 quantile of the send delay.
    pub send_delay_p99_ns: u64,
}

/// What the target said was pending at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BacklogSample {
    /// ms after the begin of the steady phase (goes on through the drain).
    pub offset_ms: u64,
    /// Acknowledged and not yet persisted.
    pub pending_events: u64,
}

/// What a test of the contract found of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Conformance {
    /// Its name, unique in the run: `cache-first on sqlite`, a profile's name, a host.
    pub target: String,
    /// Where it was, when it was running already.
    pub url: Option<String>,
    /// Mode of the reference server.
    pub mode: Option<String>,
    /// Kind of the database it was started on.
    pub database: Option<String>,
    /// How long the test took, s.
    pub seconds: f64,
    /// One entry a rule that was asked for, in the contract's order.
    pub rules: Vec<RuleResult>,
    /// Why the target could not be tested at all, or not to the end.
    pub failure: Option<String>,
}

/// What was found of one rule of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleResult {
    /// Its id, `A1` to `O5`.
    pub id: String,
    /// In one word.
    pub outcome: RuleOutcome,
    /// Why it was not tested, or not to its end.
    pub reason: Option<String>,
    /// Clauses that hold.
    pub passed: Vec<String>,
    /// Clauses that do not.
    pub failures: Vec<ClauseFailure>,
    /// Clauses that could not be tested here.
    pub untested: Vec<ClauseUntested>,
}

/// Of a rule, in one word. Only `passed` counts as passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleOutcome {
    /// Every clause that could be tested holds.
    Passed,
    /// A clause does not hold.
    Failed,
    /// The target's profile does not claim it; it was not tested.
    NotClaimed,
    /// No clause of it could be tested here.
    NotTestable,
}

/// A clause of a rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClauseFailure {
    /// The clause.
    pub clause: String,
    /// What the contract wants.
    pub expected: String,
    /// What came.
    pub got: String,
    /// What was asked.
    pub request: String,
}

/// A clause of a rule that could not be tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClauseUntested {
    /// The clause.
    pub clause: String,
    /// Why not.
    pub reason: String,
}

/// Every acknowledged event against what is persisted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    /// Acknowledged in all phases of this repetition (warm-up included: those events count too).
    pub acknowledged: u64,
    /// Distinct acknowledged events found persisted.
    pub persisted: u64,
    /// Distinct acknowledged events delivered by webhook; `null` when delivery was not asked for.
    pub delivered: Option<u64>,
    /// More about that; `null` when delivery was not asked for.
    #[serde(default)]
    pub delivery: Option<Delivery>,
    /// Acknowledged, and not there once the drain timeout had passed or the target said nothing was pending.
    pub lost: u64,
    /// Surplus copies of events of this run in the store, or repeats that were acknowledged again, whichever are more: a repeat
    /// that was acknowledged and stored is both.
    pub duplicated: u64,
    /// Events persisted with another content than was sent or under another id than was acknowledged, and those never sent.
    pub corrupted: u64,
    /// Acknowledged, and the store could not be read to the end: neither kept nor lost.
    pub unverified: u64,
    /// Persisted events of this run whose acknowledgement was never read (timed out, connection broken): allowed, but told.
    pub unacknowledged: u64,
    /// Where the persisted ones were read: `inbox`, `sql`.
    pub source: String,
    /// From the last acknowledgement until the store had everything (or the drain gave up), ms.
    pub drained_after_ms: u64,
    /// Acknowledged → persisted; `null` when it cannot be told.
    pub time_to_durable: Option<TimeToDurable>,
    /// Up to 10 ids of lost events.
    pub lost_examples: Vec<String>,
}

/// What the receiver of the webhooks got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    /// Acknowledged, and not delivered once the drain timeout had passed.
    pub undelivered: u64,
    /// Deliveries of an event that had been delivered before: allowed (at least once), but told.
    pub repeated: u64,
    /// Events delivered with another content than was sent or under another id than was acknowledged, and deliveries of none that was
    /// sent.
    pub altered: u64,
    /// Events of which a delivery was not signed as it should be; `null` when the target told no secret to verify with.
    pub badly_signed: Option<u64>,
    /// First deliveries that came after that of an event acknowledged later: allowed, but told.
    pub out_of_order: u64,
    /// Delivered events of this run whose acknowledgement was never read.
    pub unacknowledged: u64,
    /// From the last acknowledgement until everything was delivered (or the wait was given up), ms.
    pub drained_after_ms: u64,
    /// Acknowledged → first delivered, by the generator's own clock; an event that was delivered before its acknowledgement was read
    /// counts as 0. `null`: nothing was delivered.
    pub time_to_delivered: Option<Times>,
    /// Up to 10 ids of events that were not delivered.
    pub undelivered_examples: Vec<String>,
}

/// Acknowledged → persisted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimeToDurable {
    /// The distribution; an event that was persisted before its acknowledgement was read counts as 0.
    pub times: Times,
    /// `persisted_at` (stored with the event) or `watching` (the store was read over and over).
    pub source: String,
    /// How coarse that source is.
    pub resolution_ns: u64,
    /// By how much it grows over the steady phase, s per s: the slope of the regression line through the events, over the time at which
    /// each was acknowledged. 0: the target persists as fast as it acknowledges. `null`: too few events, or not known.
    #[serde(default)]
    pub growth: Option<f64>,
    /// By second of the steady phase in which events were acknowledged; empty when nobody added it up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<DurableInterval>,
}

/// The events that were acknowledged in one second of the steady phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DurableInterval {
    /// Begin, ms after the begin of the phase.
    pub offset_ms: u64,
    /// How many.
    pub events: u64,
    /// Median of their time to durable.
    pub p50_ns: u64,
    /// Quantile 0.99 of it.
    pub p99_ns: u64,
}

/// The idle phase: no request at all, what does the target do?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Idle {
    /// Length of the window that was counted, s.
    pub seconds: f64,
    /// SQL statements in the window; `null` when nobody could count them.
    pub sql_statements: Option<u64>,
    /// The same per hour.
    pub sql_statements_per_hour: Option<f64>,
    /// Polls in the window.
    pub polls: Option<u64>,
    /// SQL statements per poll.
    pub sql_statements_per_poll: Option<f64>,
    /// Statements per hour once in deep idle (from the poll interval reached and statements per poll); `null` if not reached.
    pub sql_statements_per_hour_deep_idle: Option<f64>,
    /// From the last event until deep idle, s; `null`: not reached in this window, or no such state.
    pub deep_idle_after_s: Option<f64>,
    /// Poll interval at the end of the window, ms.
    pub poll_interval_ms_last: Option<f64>,
    /// Longest time during which the target's pooled database connections were all unused, s.
    pub connections_unused_s_max: Option<f64>,
    /// Where the statements were counted: `pg_stat_statements`, `server metrics`, `none`.
    pub source: String,
    /// Each statement with its calls, most frequent first (only where the source tells).
    pub statements: Vec<StatementCount>,
    /// The target's state over time.
    pub samples: Vec<IdleSample>,
    /// The first event after the window: acknowledged → persisted.
    pub first_event: Option<FirstEvent>,
}

/// One SQL statement and how often it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatementCount {
    /// Its text, with constants taken out, shortened to 200 characters.
    pub statement: String,
    /// Calls in the window.
    pub calls: u64,
}

/// What the target said of itself at one moment of the idle phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IdleSample {
    /// ms after the begin of the window.
    pub offset_ms: u64,
    /// Poll interval then, ms.
    pub poll_interval_ms: f64,
    /// Polls since the begin of the window.
    pub polls: u64,
    /// SQL statements since the begin of the window.
    pub sql_statements: u64,
}

/// The first event after the idle phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FirstEvent {
    /// Its response time.
    pub response_time_ns: u64,
    /// Acknowledged → persisted.
    pub time_to_durable_ns: Option<u64>,
    /// Whether the target was in deep idle when it was sent.
    pub from_deep_idle: bool,
}

/// CPU and memory over the steady phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// CPU time of the server's process, s.
    pub server_cpu_s: Option<f64>,
    /// CPU time of its database's processes (PostgreSQL), s.
    pub database_cpu_s: Option<f64>,
    /// Largest resident memory of the server's process, bytes.
    pub server_rss_peak_bytes: Option<u64>,
    /// CPU time of the generator's process, s.
    pub generator_cpu_s: Option<f64>,
    /// Largest resident memory of the generator's process, bytes.
    pub generator_rss_peak_bytes: Option<u64>,
    /// Involuntary context switches of the sending thread.
    pub generator_switches_involuntary: Option<u64>,
    /// Time the sending thread was runnable and not running, ns.
    pub generator_run_queue_delay_ns: Option<u64>,
    /// What was used by when; empty when nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over_time: Vec<UsageSample>,
}

/// What had been used at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UsageSample {
    /// ms after the begin of the steady phase.
    pub offset_ms: u64,
    /// CPU time of the server's processes since their start, s.
    pub server_cpu_s: Option<f64>,
    /// Their resident memory now, bytes.
    pub server_rss_bytes: Option<u64>,
    /// CPU time of the generator's process since its start, s.
    pub generator_cpu_s: Option<f64>,
}

/// Name of the thread that sends, in [`Health::threads`].
pub const SENDING_THREAD: &str = "sender";

/// What the generator saw of itself and of its machine during the steady phase: whether its numbers can be believed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Health {
    /// Length of the span that was watched, s.
    pub seconds: f64,
    /// How late idle threads woke; `null` when none could be started.
    pub hiccups: Option<Hiccups>,
    /// Share 0..=1 of the phase in which the send loop did something other than wait for an intended time or an answer; `null`
    /// when it does not say. CPU time does not tell: waiting for the last microseconds before a send is done by spinning.
    pub sender_busy_share: Option<f64>,
    /// The generator's own threads, by name.
    pub threads: Vec<ThreadUse>,
    /// The generator's machine; `null` when the system does not tell.
    pub machine: Option<MachineUse>,
}

/// How late threads woke that do nothing but sleep until the next period: what an event would have waited that needs nothing but
/// a processor. Each period of each watched core is one sample; those that a stall swallowed count with what they waited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Hiccups {
    /// Between two wake-ups on one core, ns. Shorter stalls are seen with the probability length ÷ period.
    pub period_ns: u64,
    /// Cores watched, by the system's number; empty: one thread wherever the system put it.
    pub cores: Vec<u32>,
    /// Due → running.
    pub late: Times,
    /// Due → woken: the part in which the machine stood still (processor taken by a hypervisor, interrupts held back, coarse
    /// timer). The rest of `late` is waiting while other threads ran. `null` when the two cannot be told apart.
    pub standstill: Option<Times>,
    /// Wake-ups that were late enough to be called a stall (1 ms and more).
    pub stalls_total: u64,
    /// The longest of them, at most 100, by time.
    pub stalls: Vec<Stall>,
}

/// One stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// When the thread should have woken, ns after the begin of the steady phase.
    pub offset_ns: u64,
    /// How late it ran, ns.
    pub length_ns: u64,
    /// Of that, waiting while other threads ran, ns; `null` when it cannot be told.
    pub waited_ns: Option<u64>,
    /// Where; `null`: wherever the system put it.
    pub core: Option<u32>,
}

/// What the generator's threads of one name used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadUse {
    /// Name.
    pub name: String,
    /// How many have it.
    pub threads: u32,
    /// Length of the span they were watched, s: a little shorter than the phase for one that ends with it.
    pub seconds: f64,
    /// CPU time, s.
    pub cpu_s: Option<f64>,
    /// Time they were runnable and not running, ns.
    pub run_queue_delay_ns: Option<u64>,
    /// Times they gave up the processor to wait.
    pub switches_voluntary: Option<u64>,
    /// Times another thread was put in their place.
    pub switches_involuntary: Option<u64>,
}

impl ThreadUse {
    /// CPU time as a share of one core.
    pub fn cpu_share(&self) -> Option<f64> {
        self.cpu_s.filter(|_| self.seconds > 0.0).map(|s| s / self.seconds)
    }
}

/// The processors of the generator's machine. Shares are of all of them together, 0..=1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MachineUse {
    /// Cores that were on.
    pub cores: u32,
    /// Running anything.
    pub busy_share: f64,
    /// Nothing to do.
    pub idle_share: f64,
    /// Nothing to do but wait for a disk.
    pub iowait_share: f64,
    /// Wanted to run, and the hypervisor ran someone else.
    pub steal_share: f64,
    /// CPU time of everything but the generator, the server and its database, s; `null` when those are not all known.
    pub other_cpu_s: Option<f64>,
    /// Load average over one minute when the steady phase began.
    pub load_average_1m: Option<f64>,
    /// Pressure on processors, as the kernel counts it (PSI); `null` when it does not.
    pub pressure_cpu: Option<Pressure>,
    /// Pressure on disks.
    pub pressure_io: Option<Pressure>,
    /// Pressure on memory.
    pub pressure_memory: Option<Pressure>,
    /// Time the generator's control group was kept from running by its own quota, s; `null` when it has none.
    pub throttled_s: Option<f64>,
    /// Cores the generator may use, by the system's number.
    pub generator_cores: Vec<u32>,
    /// Cores the server may use; `null` when that is not known.
    pub server_cores: Option<Vec<u32>>,
}

impl MachineUse {
    /// Cores that both the generator and the server may use; `None` when that is not known.
    pub fn cores_shared(&self) -> Option<usize> {
        let server = self.server_cores.as_ref()?;
        Some(self.generator_cores.iter().filter(|core| server.contains(core)).count())
    }
}

/// Pressure stall information: shares of the time, 0..=1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    /// In which at least one thread had to wait.
    pub some_share: f64,
    /// In which all threads that were not idle had to wait.
    pub full_share: f64,
}

impl CaveatKind {
    /// In words, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadTarget => "dead target",
            Self::NothingAccepted => "nothing accepted",
            Self::Interrupted => "interrupted",
            Self::FaultsInjected => "faults injected",
            Self::GeneratorSaturated => "generator saturated",
            Self::SendDelayLarge => "send delay large",
            Self::RateNotReached => "rate not reached",
            Self::EventsNotSent => "events not sent",
            Self::Timeouts => "timeouts",
            Self::Errors => "errors",
            Self::Reconnects => "reconnects",
            Self::ConnectionsExhausted => "connections exhausted",
            Self::TooFewSamples => "too few samples",
            Self::DelayedAcknowledgements => "delayed acknowledgements",
            Self::MachineStalls => "machine stalls",
            Self::ArrivalsNotAsAsked => "arrivals not as asked",
            Self::LedgerLeftOut => "ledger left out",
            Self::LedgerIncomplete => "ledger incomplete",
            Self::PersistedWithoutAcknowledgement => "persisted without acknowledgement",
            Self::SignaturesUnverified => "signatures unverified",
            Self::SamplesIncomplete => "samples incomplete",
            Self::TelemetryIncomplete => "telemetry incomplete",
            Self::SqlCountUnavailable => "SQL count unavailable",
            Self::DebugBuild => "debug build",
            Self::ClosedLoop => "closed loop",
            Self::SingleRepetition => "single repetition",
            Self::BusyMachine => "busy machine",
            Self::NotCalibrated => "not calibrated",
            Self::HysteresisPossible => "hysteresis possible",
        }
    }
}
