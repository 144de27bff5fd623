//! Runs for tests, built without chance: no clock, no system randomness, and no floating-point function whose last digit
//! depends on the machine. `UPDATE_GOLDEN=1 cargo test -p reports` writes them to `fixtures/`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use crate::breakdown::PartsByTime;
use crate::calibration;
use crate::conform::Rule;
use crate::histogram::TimeHistogram;
use crate::merge;
use crate::model::*;
use crate::verdict;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..1.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, deviation 1: the sum of twelve.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// eˣ by squaring, the same on every machine.
fn exp(x: f64) -> f64 {
    (0..10).fold(1.0 + x / 1024.0, |v, _| v * v)
}

/// What a variant is like.
#[derive(Clone, Copy)]
pub struct Behaviour {
    pub rate_per_s: u64,
    pub seconds: u64,
    /// Median service time, ns.
    pub service_ns: f64,
    /// Deviation of its logarithm.
    pub spread: f64,
    /// Share that takes much longer, and how many times as long.
    pub tail: (f64, f64),
    /// Share that is not answered at all.
    pub timeouts: f64,
    /// Median time to durable, ns; 0: it stores nothing.
    pub durable_ns: f64,
    /// Share of acknowledged events that are lost.
    pub lost: f64,
    /// Pending events at the worst second.
    pub backlog: u64,
}

pub const CACHE_FIRST: Behaviour = Behaviour {
    rate_per_s: 1000,
    seconds: 12,
    service_ns: 210_000.0,
    spread: 0.22,
    tail: (0.004, 4.0),
    timeouts: 0.0,
    durable_ns: 3_200_000.0,
    lost: 0.0,
    backlog: 14,
};

pub const NULL: Behaviour =
    Behaviour { service_ns: 165_000.0, spread: 0.16, tail: (0.002, 3.0), durable_ns: 0.0, backlog: 0, ..CACHE_FIRST };

pub const DB_FIRST: Behaviour = Behaviour {
    service_ns: 1_350_000.0,
    spread: 0.4,
    tail: (0.01, 6.0),
    durable_ns: 60_000.0,
    backlog: 2,
    ..CACHE_FIRST
};

const TIMEOUT_NS: u64 = 2_000_000_000;

/// A distribution of so many samples of each time, ns.
pub fn times(of: &[(u64, u64)]) -> Times {
    let mut histogram = TimeHistogram::new();
    of.iter().for_each(|&(ns, n)| (0..n).for_each(|_| histogram.record(ns)));
    histogram.times(0)
}

fn load(b: Behaviour, seed: u64) -> Load {
    let mut rng = Rng(seed);
    let mut all = [(); 4].map(|()| TimeHistogram::new());
    let (mut intervals, mut outcomes, mut parts) = (Vec::new(), Outcomes::default(), PartsByTime::default());
    for second in 0..b.seconds {
        let planned = (b.rate_per_s as i64 + (rng.normal() * 30.0) as i64).max(1) as u64;
        let (mut own, mut delays, mut timed_out) = (TimeHistogram::new(), TimeHistogram::new(), 0);
        // One second in which everything takes twice as long, as a checkpoint does.
        let slow = if second == b.seconds * 2 / 3 { 2.0 } else { 1.0 };
        for _ in 0..planned {
            let delay = (400.0 * exp(rng.normal() * 0.9)) as u64;
            let long = if rng.uniform() < b.tail.0 { 1.0 + rng.uniform() * b.tail.1 } else { 1.0 };
            let mut service = (b.service_ns * slow * long * exp(rng.normal() * b.spread)) as u64;
            if rng.uniform() < b.timeouts {
                (timed_out, service) = (timed_out + 1, TIMEOUT_NS);
            }
            own.record(service + delay);
            delays.record(delay);
            all[1].record(service);
            all[3].record(0);
            parts.record(delay, 0, service);
        }
        all[0].merge(&own);
        all[2].merge(&delays);
        let own_outcomes = Outcomes { accepted: planned - timed_out, timed_out, ..Outcomes::default() };
        outcomes.accepted += own_outcomes.accepted;
        outcomes.timed_out += timed_out;
        intervals.push(Interval {
            offset_ms: second * 1000,
            length_ms: 1000,
            planned,
            outcomes: own_outcomes,
            response_time: own.times(timed_out),
            send_delay_p99_ns: delays.quantile(0.99),
        });
    }
    let mut connect = TimeHistogram::new();
    (0..16).for_each(|i| connect.record(180_000 + i * 9_000));
    let timeouts = outcomes.timed_out;
    let planned = outcomes.total();
    let seconds = b.seconds as f64;
    Load {
        seconds,
        offered_per_s: planned as f64 / seconds,
        achieved_per_s: outcomes.accepted as f64 / (seconds + 0.001),
        planned,
        outcomes,
        repeats: Repeats::default(),
        statuses: BTreeMap::from([("202".to_owned(), outcomes.accepted)]),
        errors: if timeouts > 0 {
            vec![ErrorCount { kind: "timed out".to_owned(), count: timeouts }]
        } else {
            Vec::new()
        },
        response_time: all[0].times(timeouts),
        service_time: all[1].times(timeouts),
        send_delay: all[2].times(0),
        connection_wait: all[3].times(0),
        refused_time: Times::default(),
        connections: 16,
        reconnects: 0,
        connect_time: connect.times(0),
        operations: Vec::new(),
        intervals,
        backlog: backlog(b),
        arrivals_check: (planned > 0).then(|| arrivals_check(b, planned)),
        parts: parts.finish(),
        target_time: target_time(planned, timeouts, &all[1]),
    }
}

/// A server that says what it took unless it is in trouble.
fn target_time(planned: u64, timeouts: u64, service_time: &TimeHistogram) -> Option<TargetTime> {
    let told = TargetTime { requests: planned * 9 / 10, mean_ns: (service_time.mean() * 0.15).round() };
    (planned > 0 && timeouts == 0).then_some(told)
}

/// A server whose work is as steady as its load, and whose memory grows for two seconds.
fn usage(b: Behaviour) -> Vec<UsageSample> {
    let sample = |at: u64| UsageSample {
        offset_ms: at * 500,
        server_cpu_s: Some(0.25 + (at * b.rate_per_s) as f64 * b.service_ns.round() * 0.06e-9 + (at % 3) as f64 * 0.01),
        server_rss_bytes: Some(17_000_000 + at.min(4) * 500_000 + (b.service_ns * 11.0) as u64),
        generator_cpu_s: Some(0.5 + at as f64 * 0.11),
    };
    (0..=b.seconds * 2).map(sample).collect()
}

fn arrivals_check(b: Behaviour, planned: u64) -> ArrivalsCheck {
    let gap_ns_mean = 1e9 / b.rate_per_s as f64;
    let windows = [(2, 0.994), (16, 1.013), (128, 0.96)].map(|(gaps, dispersion)| ArrivalsWindow {
        length_ns: gaps * gap_ns_mean as u64,
        windows: b.seconds * b.rate_per_s / gaps,
        dispersion_planned: dispersion,
        dispersion_sent: dispersion + 0.001,
    });
    ArrivalsCheck {
        process: ArrivalProcess::Poisson,
        gap_ns_mean,
        expected: Some((b.rate_per_s * b.seconds) as f64),
        planned,
        sent: planned,
        left_out: 0,
        gap_distance_planned: Some(0.006),
        gap_distance_sent: Some(0.007),
        windows: windows.into_iter().filter(|w| w.windows >= 100).collect(),
    }
}

/// A generator that has time to spare, on a machine with little else to do.
fn health(b: Behaviour, seed: u64) -> Health {
    let mut rng = Rng(seed ^ 0x6ea17);
    let (mut late, mut standstill) = (TimeHistogram::new(), TimeHistogram::new());
    for _ in 0..b.seconds * 333 {
        let still = (38_000.0 * exp(rng.normal() * 0.2)) as u64;
        let waited = if rng.uniform() < 0.02 { (90_000.0 * exp(rng.normal() * 0.5)) as u64 } else { 0 };
        standstill.record(still);
        late.record(still + waited);
    }
    late.record(2_130_000);
    standstill.record(31_000);
    let seconds = b.seconds as f64;
    let thread = |name: &str, share: f64, switches: u64| ThreadUse {
        name: name.to_owned(),
        threads: 1,
        seconds,
        cpu_s: Some(share * seconds),
        run_queue_delay_ns: Some(1_500_000 * b.seconds),
        switches_voluntary: Some(switches * b.seconds),
        switches_involuntary: Some(41),
    };
    Health {
        seconds,
        hiccups: Some(Hiccups {
            period_ns: 6_000_000,
            cores: vec![0, 1],
            late: late.times(0),
            standstill: Some(standstill.times(0)),
            stalls_total: 1,
            stalls: vec![Stall {
                offset_ns: 1_733_000_000,
                length_ns: 2_130_000,
                waited_ns: Some(2_099_000),
                core: Some(1),
            }],
        }),
        sender_busy_share: Some(0.062),
        threads: vec![
            thread("hiccup 0", 0.005, 167),
            thread("hiccup 1", 0.005, 167),
            thread("loadgen", 0.003, 15),
            thread("recorder", 0.004, 20),
            thread("sender", 0.21, 1_300),
        ],
        machine: Some(MachineUse {
            cores: 2,
            busy_share: 0.19,
            idle_share: 0.8,
            iowait_share: 0.006,
            steal_share: 0.004,
            other_cpu_s: Some(0.01 * seconds),
            load_average_1m: Some(0.31),
            pressure_cpu: Some(Pressure { some_share: 0.021, full_share: 0.0 }),
            pressure_io: Some(Pressure { some_share: 0.013, full_share: 0.009 }),
            pressure_memory: Some(Pressure { some_share: 0.0, full_share: 0.0 }),
            throttled_s: None,
            generator_cores: vec![0, 1],
            server_cores: Some(vec![0, 1]),
        }),
    }
}

fn backlog(b: Behaviour) -> Vec<BacklogSample> {
    if b.backlog == 0 {
        return Vec::new();
    }
    let total_ms = b.seconds * 1000 + 2000;
    let pending = |ms: u64| match ms.saturating_sub(b.seconds * 1000) {
        0 => b.backlog * (1 + (ms / 250 * 7) % 5) / 5 * ms.min(2000) / 2000,
        after => b.backlog * (2000 - after) / 4000,
    };
    (0..=total_ms / 250).map(|i| BacklogSample { offset_ms: i * 250, pending_events: pending(i * 250) }).collect()
}

fn ledger(b: Behaviour, load: &Load, seed: u64) -> Option<Ledger> {
    if b.durable_ns == 0.0 {
        return None;
    }
    let mut rng = Rng(seed ^ 0x1ed9e4);
    let acknowledged = load.outcomes.accepted + 1000;
    let lost = (acknowledged as f64 * b.lost) as u64;
    let mut durable = TimeHistogram::new();
    (0..acknowledged - lost).for_each(|_| durable.record((b.durable_ns * exp(rng.normal() * 0.5)) as u64));
    Some(Ledger {
        acknowledged,
        persisted: acknowledged - lost,
        delivered: None,
        delivery: None,
        lost,
        duplicated: 0,
        corrupted: 0,
        unverified: 0,
        unacknowledged: load.outcomes.timed_out / 3,
        source: "inbox".to_owned(),
        drained_after_ms: 12,
        time_to_durable: Some(TimeToDurable {
            times: durable.times(0),
            source: "persisted_at".to_owned(),
            resolution_ns: 1_000_000,
            growth: Some(0.0004),
            intervals: load.intervals.iter().map(|interval| durable_interval(b, interval)).collect(),
        }),
        lost_examples: (0..lost.min(10)).map(|i| format!("01890a5d-ac96-774b-bcce-b302099a8{i:03}")).collect(),
    })
}

/// As slow as the answers of that second.
fn durable_interval(b: Behaviour, interval: &Interval) -> DurableInterval {
    let slow = interval.response_time.p50_ns as f64 / b.service_ns;
    DurableInterval {
        offset_ms: interval.offset_ms,
        events: interval.outcomes.accepted,
        p50_ns: (b.durable_ns * slow) as u64,
        p99_ns: (b.durable_ns * slow * 3.2) as u64,
    }
}

/// The idle phase of a polling policy, as its schedule says.
fn idle(policy: &str, seconds: u64) -> Idle {
    let statements_per_poll = if policy == "fixed" { 2 } else { 1 };
    let interval = |poll: u64| match policy {
        "fixed" => 2_000,
        _ if poll >= 10 => 30_000,
        _ => (100_u64 << poll.min(5)).min(2_000),
    };
    let (mut at, mut polls, mut samples) = (0, 0, Vec::new());
    samples.push(IdleSample { offset_ms: 0, poll_interval_ms: interval(0) as f64, polls: 0, sql_statements: 0 });
    while at + interval(polls) <= seconds * 1000 {
        at += interval(polls);
        polls += 1;
        samples.push(IdleSample {
            offset_ms: at,
            poll_interval_ms: interval(polls) as f64,
            polls,
            sql_statements: polls * statements_per_poll,
        });
    }
    let deep = policy != "fixed" && polls >= 10;
    let waits_for_poll = policy == "adaptive" && deep;
    let statements = polls * statements_per_poll;
    Idle {
        seconds: seconds as f64,
        sql_statements: Some(statements),
        sql_statements_per_hour: Some(statements as f64 * 3600.0 / seconds as f64),
        polls: Some(polls),
        sql_statements_per_poll: Some(statements_per_poll as f64),
        sql_statements_per_hour_deep_idle: deep.then_some(120.0),
        deep_idle_after_s: deep.then_some(13.1),
        poll_interval_ms_last: Some(interval(polls) as f64),
        connections_unused_s_max: Some(interval(polls) as f64 / 1000.0 - 0.002),
        source: "server metrics".to_owned(),
        statements: vec![StatementCount {
            statement: "SELECT id, payload FROM events WHERE status = ? ORDER BY inserted_at LIMIT ?".to_owned(),
            calls: polls,
        }],
        samples,
        first_event: Some(FirstEvent {
            response_time_ns: 302_000,
            time_to_durable_ns: Some(if waits_for_poll {
                21_400_000_000
            } else if policy == "fixed" {
                1_240_000_000
            } else {
                3_900_000
            }),
            from_deep_idle: deep,
        }),
    }
}

fn variant(name: &str, mode: &str, polling: &str, role: Option<Role>) -> Variant {
    let (mode, polling) = (Some(mode.to_owned()), Some(polling.to_owned()));
    Variant { name: name.to_owned(), url: None, mode, polling, role, profile: None }
}

fn result(v: &Variant, repetition: u32, b: Behaviour, idle_seconds: u64) -> TargetResult {
    let seed = v.name.bytes().fold(u64::from(repetition), |h, byte| h.wrapping_mul(31) + u64::from(byte));
    let load = load(b, seed);
    let events = load.outcomes.accepted as f64;
    TargetResult {
        target: v.name.clone(),
        repetition,
        url: v.url.clone().unwrap_or_else(|| "http://127.0.0.1:38211".to_owned()),
        mode: v.mode.clone(),
        durability: v.mode.as_deref().map(|m| if m == "db-first" { "database" } else { "memory" }.to_owned()),
        database: (b.durable_ns > 0.0).then(|| "sqlite 3.50.4".to_owned()),
        polling: v.polling.clone(),
        server_version: Some("0.1.0".to_owned()),
        failure: None,
        ledger: ledger(b, &load, seed),
        idle: (idle_seconds > 0 && b.durable_ns > 0.0)
            .then(|| idle(v.polling.as_deref().unwrap_or("wake"), idle_seconds)),
        load,
        resources: Resources {
            server_cpu_s: Some(events * b.service_ns * 0.12e-9),
            database_cpu_s: None,
            server_rss_peak_bytes: Some(19_000_000 + (b.service_ns * 11.0) as u64),
            generator_cpu_s: Some(2.31),
            generator_rss_peak_bytes: Some(24_100_000),
            generator_switches_involuntary: Some(41),
            generator_run_queue_delay_ns: Some(18_400_000),
            over_time: usage(b),
        },
        health: Some(health(b, seed)),
    }
}

fn plan(
    name: &str,
    variants: Vec<Variant>,
    repeat: u32,
    first: Behaviour,
    idle_seconds: u64,
    objectives: &[&str],
) -> Plan {
    Plan {
        name: name.to_owned(),
        variants,
        database: Some("sqlite".to_owned()),
        arrivals: Arrivals::Poisson,
        rate_per_s: first.rate_per_s as f64,
        shape: None,
        replay: None,
        warmup_ms: 1_000,
        duration_ms: first.seconds * 1000,
        idle_ms: idle_seconds * 1000,
        drain_timeout_ms: 10_000,
        request_timeout_ms: TIMEOUT_NS / 1_000_000,
        mix: Mix::default(),
        batch_events: 10,
        pacing: Pacing::Hybrid,
        sender_nice: None,
        realtime: None,
        http: HttpVersion::Http1,
        connections: 16,
        streams: 1,
        tls_ca: None,
        tls_insecure: false,
        faults: Vec::new(),
        payload_bytes: 256,
        payload_sizes: None,
        duplicates_share: 0.0,
        organizations: 4,
        seed: 42,
        repeat,
        objectives: objectives.iter().map(|o| (*o).to_owned()).collect(),
        ledger: true,
        calibration: true,
        webhooks: false,
        ledger_events_max: LEDGER_EVENTS_MAX_DEFAULT,
        followed_share: None,
    }
}

fn run(
    name: &str,
    variants: Vec<Variant>,
    repeat: u32,
    behaviours: &[Behaviour],
    idle_seconds: u64,
    objectives: &[&str],
) -> Run {
    let results = (1..=repeat)
        .flat_map(|n| variants.iter().zip(behaviours).map(move |(v, b)| result(v, n, *b, idle_seconds)))
        .collect();
    let first = behaviours[0];
    let mut run = Run {
        schema: SCHEMA.to_owned(),
        run_id: format!("fixture-{name}"),
        tool: Tool {
            name: "millrace loadgen".to_owned(),
            version: "0.1.0".to_owned(),
            revision: "6152afa".to_owned(),
            build_profile: "release".to_owned(),
        },
        command: ["loadgen", "run", "--plan", name, "--repeat", &repeat.to_string()].map(str::to_owned).to_vec(),
        started_at: "2026-03-02T10:15:00Z".to_owned(),
        seconds: 74.2,
        interrupted: false,
        plan: plan(name, variants, repeat, first, idle_seconds, objectives),
        environment: Environment {
            os: "Debian GNU/Linux 13".to_owned(),
            kernel: "6.12.48".to_owned(),
            cpu_model: "AMD EPYC 7B13".to_owned(),
            cores: 2,
            memory_bytes: 8_326_750_208,
            cpu_governor: None,
            virtualization: Some("KVM".to_owned()),
            same_host: true,
            data_filesystem: Some("ext4".to_owned()),
            pacing: "clock_nanosleep, then spinning for the last 80 µs".to_owned(),
        },
        verdict: Verdict { outcome: Outcome::Invalid, reasons: Vec::new(), exit_code: 5 },
        objectives: Vec::new(),
        caveats: Vec::new(),
        calibration: None,
        capacity: Vec::new(),
        crash: Vec::new(),
        conformance: Vec::new(),
        shard: None,
        shards: Vec::new(),
        results,
    };
    if !calibration::has_null_variant(&run) {
        run.calibration = Some(floor());
    }
    verdict::assess(&mut run);
    run
}

/// The null server for three seconds.
fn floor() -> Calibration {
    let behaviour = Behaviour { seconds: 3, ..NULL };
    let load = load(behaviour, 7);
    Calibration {
        rate_per_s: behaviour.rate_per_s as f64,
        achieved_per_s: load.achieved_per_s,
        seconds: load.seconds,
        response_time: load.response_time,
        service_time: load.service_time,
        send_delay: load.send_delay,
        timer_lateness: times(&[(3_100, 120), (38_000, 70), (71_000, 10)]),
        hiccups: health(behaviour, 7).hiccups,
        generator_cpu_ns_per_request: Some(61_000.0),
        rate_per_s_max: None,
        rate_per_s_failed: None,
        limit: None,
        closed_per_s_max: None,
    }
}

/// Three modes, twice each, all well.
pub fn three_modes() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_three_modes);
    RUN.clone()
}

fn build_three_modes() -> Run {
    let variants = ["null", "cache-first", "db-first"].map(|mode| variant(mode, mode, "wake", None)).to_vec();
    let objectives = [
        "cache-first: response_time.p99 < 1ms",
        "cache-first: response_time.p50 <= 1.5 x null",
        "send_delay.p99 < 100us",
        "ledger.lost == 0",
        "load.failed == 0",
        "achieved_ratio >= 99%",
        "time_to_durable.p99 < 1s",
        "idle.first_event_time_to_durable < 50ms",
        "resources.server_rss_peak < 500MiB",
    ];
    run("default", variants, 2, &[NULL, CACHE_FIRST, DB_FIRST], 20, &objectives)
}

/// A server that acknowledges, times out now and then, and loses a tenth.
pub fn lying_server() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_lying_server);
    RUN.clone()
}

fn build_lying_server() -> Run {
    let mut lying = variant("elixir:4000", "", "", None);
    (lying.url, lying.mode, lying.polling) = (Some("http://127.0.0.1:4000".to_owned()), None, None);
    let behaviour =
        Behaviour { timeouts: 0.012, lost: 0.1, seconds: 11, backlog: 9_400, durable_ns: 4e9, ..CACHE_FIRST };
    run("lying-server", vec![lying], 1, &[behaviour], 0, &["response_time.p99 < 1ms", "ledger.lost == 0"])
}

/// Nobody listens.
pub fn dead_target() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_dead_target);
    RUN.clone()
}

fn build_dead_target() -> Run {
    let mut dead = variant("127.0.0.1:9", "", "", None);
    (dead.url, dead.mode, dead.polling) = (Some("http://127.0.0.1:9".to_owned()), None, None);
    let mut run =
        run("dead-target", vec![dead], 1, &[Behaviour { seconds: 0, ..NULL }], 0, &["response_time.p99 < 1ms"]);
    let result = &mut run.results[0];
    result.failure = Some("connection refused".to_owned());
    result.server_version = None;
    (result.resources, result.health) = (Resources::default(), None);
    result.load = Load {
        seconds: 10.0,
        offered_per_s: 1000.0,
        planned: 10_000,
        outcomes: Outcomes { not_sent: 10_000, ..Outcomes::default() },
        errors: vec![ErrorCount { kind: "connection refused".to_owned(), count: 16 }],
        achieved_per_s: 0.0,
        connections: 0,
        connect_time: Times::default(),
        statuses: BTreeMap::new(),
        target_time: None,
        ..result.load.clone()
    };
    run.caveats.clear();
    verdict::assess(&mut run);
    run
}

/// The old design against two new ones.
pub fn before_after() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_before_after);
    RUN.clone()
}

fn build_before_after() -> Run {
    let variants = vec![
        variant("db-first/fixed", "db-first", "fixed", Some(Role::Old)),
        variant("cache-first/adaptive", "cache-first", "adaptive", Some(Role::New)),
        variant("cache-first/wake", "cache-first", "wake", Some(Role::New)),
    ];
    run("before-after", variants, 1, &[DB_FIRST, CACHE_FIRST, CACHE_FIRST], 60, &["ledger.lost == 0"])
}

/// A run small enough to keep its page in the repository.
pub fn small() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_small);
    RUN.clone()
}

fn build_small() -> Run {
    let variants = ["null", "cache-first"].map(|mode| variant(mode, mode, "wake", None)).to_vec();
    let few = |b: Behaviour| Behaviour { rate_per_s: 400, seconds: 3, ..b };
    run(
        "small",
        variants,
        1,
        &[few(NULL), few(CACHE_FIRST)],
        15,
        &["response_time.p90 < 1ms", "response_time.p99 < 1ms"],
    )
}

/// The search for a capacity: it acknowledges more than it persists from 2 000/s on.
pub fn capacity() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_capacity);
    RUN.clone()
}

fn build_capacity() -> Run {
    let few = Behaviour { seconds: 3, ..CACHE_FIRST };
    let cache_first = variant("cache-first", "cache-first", "wake", None);
    let objectives = ["response_time.p90 < 1ms"];
    let mut run = run("capacity", vec![cache_first], 1, &[few], 0, &objectives);
    use TrialStage::{Confirm, Explore, Narrow};
    let offered = [(Explore, 500.0), (Explore, 1_000.0), (Explore, 2_000.0), (Explore, 4_000.0), (Explore, 4_000.0)];
    let offered = offered.into_iter().chain([(Narrow, 2_828.0), (Narrow, 2_828.0), (Confirm, 2_000.0)]);
    let mut trials: Vec<CapacityTrial> =
        offered.filter_map(|(stage, rate)| crate::capacity::trial(&run, stage, rate)).collect();
    for trial in &mut trials {
        let (rate, persisted) = (trial.rate_per_s, trial.rate_per_s.min(2_100.0));
        (trial.achieved_per_s, trial.persisted_per_s, trial.growth) =
            (rate, Some(persisted), Some(rate / persisted - 1.0));
        let slower = 1.0 + (rate / 2_000.0) * (rate / 2_000.0);
        let scaled = |ns: u64| (ns as f64 * slower) as u64;
        trial.response_time_ns_mean *= slower;
        trial.response_time_ns_p50 = scaled(trial.response_time_ns_p50);
        trial.response_time_ns_p99 = scaled(trial.response_time_ns_p99);
        trial.held = rate <= 2_000.0;
        if !trial.held {
            trial.reasons = vec![format!("it acknowledges {rate}/s and persists 2 100/s")];
        }
    }
    run.capacity = vec![Capacity {
        variant: "cache-first".to_owned(),
        objectives: objectives.map(str::to_owned).to_vec(),
        rate_per_s_lowest: 500.0,
        rate_per_s: Some(2_000.0),
        rate_per_s_failed: Some(2_828.0),
        failed_because: trials[5].reasons.clone(),
        limit: None,
        is_generator_at_fault: false,
        fail_under_per_s: None,
        knee_per_s: crate::capacity::knee(&trials),
        trials,
    }];
    run.plan.rate_per_s = 0.0;
    verdict::assess(&mut run);
    run
}

/// Three modes killed: one that loses by design, one that keeps everything, one that loses what it promised to keep.
pub fn crash() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_crash);
    RUN.clone()
}

fn build_crash() -> Run {
    let mut run = run("crash", Vec::new(), 1, &[CACHE_FIRST], 0, &[]);
    run.crash = vec![
        crash_test("cache-first on sqlite", KillKind::Process, "memory", &[9, 0, 14, 3]),
        crash_test("db-first on postgres", KillKind::Process, "database", &[0, 0, 0, 0]),
        crash_test("journal-first on sqlite", KillKind::Power, "journal", &[0, 2, 0, 0]),
    ];
    run.crash[2].kills[1].duplicated = 1;
    run.crash[2].duplicated = 1;
    run.plan.calibration = false;
    run.calibration = None;
    verdict::assess(&mut run);
    run
}

/// A kill for each of these numbers of lost events.
pub fn crash_test(name: &str, kill: KillKind, durability: &str, lost: &[u64]) -> CrashTest {
    let (mode, store) = name.split_once(" on ").unwrap();
    let (mut ages, mut ready) = (TimeHistogram::new(), TimeHistogram::new());
    let kills: Vec<Kill> = (1..)
        .zip(lost)
        .map(|(number, lost)| {
            let ready_ns = 20_000_000 + u64::from(number) * 1_000_000;
            ready.record(ready_ns);
            (0..*lost).for_each(|event| ages.record((event + 1) * 700_000));
            Kill {
                number,
                at_ms: 170.5 * f64::from(number),
                in_recovery_ms: (number % 4 == 1).then_some(7.25),
                acknowledged: 300 * u64::from(number),
                in_flight: u64::from(kill == KillKind::Power),
                lost: *lost,
                lost_age_ns_max: (*lost > 0).then_some(lost * 700_000),
                duplicated: 0,
                altered: 0,
                unverified: 0,
                unacknowledged: 3,
                ready_ns: Some(ready_ns),
            }
        })
        .collect();
    let setting = |name: &str, value: &str| DurabilitySetting { name: name.to_owned(), value: value.to_owned() };
    CrashTest {
        name: name.to_owned(),
        mode: mode.to_owned(),
        database: if store == "sqlite" { "SQLite" } else { "PostgreSQL 15.18" }.to_owned(),
        kill,
        durability: Some(durability.to_owned()),
        losses_expected: false,
        settings: match store {
            "sqlite" => vec![setting("journal_mode", "wal"), setting("synchronous", "full")],
            _ => vec![setting("fsync", "on"), setting("synchronous_commit", "on")],
        },
        filesystem: Some("ext4".to_owned()),
        seed: 1,
        kills_planned: kills.len() as u32,
        acknowledged: kills.iter().map(|kill| kill.acknowledged).sum(),
        in_flight: kills.iter().map(|kill| kill.in_flight).sum(),
        lost: lost.iter().sum(),
        duplicated: 0,
        altered: 0,
        unverified: 0,
        unacknowledged: 3 * kills.len() as u64,
        reappeared: 0,
        resent: 5 * kills.len() as u64,
        resent_known: 3 * kills.len() as u64,
        lost_age: ages.times(0),
        ready: ready.times(0),
        lost_examples: (0..*lost.iter().max().unwrap()).map(|n| format!("r.1.{n:012}")).take(3).collect(),
        server_failure: None,
        failure: None,
        kills,
    }
}

/// Three targets: one that keeps every rule that could be tested, one that breaks one, one that nobody reached.
pub fn conform() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(build_conform);
    RUN.clone()
}

fn build_conform() -> Run {
    use RuleOutcome::{Failed, NotClaimed, NotTestable, Passed};
    let mut run = run("conform", Vec::new(), 1, &[CACHE_FIRST], 0, &[]);
    let mut keeps = vec![Passed; Rule::ALL.len()];
    keeps[Rule::ALL.len() - 1] = NotTestable;
    let mut breaks = keeps.clone();
    (breaks[4], breaks[13]) = (Failed, NotClaimed);
    run.conformance = vec![
        Conformance {
            mode: Some("cache-first".to_owned()),
            database: Some("sqlite".to_owned()),
            ..conformance("cache-first on sqlite", &keeps)
        },
        Conformance { url: Some("http://127.0.0.1:4000".to_owned()), ..conformance("127.0.0.1:4000", &breaks) },
        Conformance {
            failure: Some("GET /healthz: Connection refused (os error 111)".to_owned()),
            ..conformance("127.0.0.1:4001", &[])
        },
    ];
    run.plan.calibration = false;
    run.calibration = None;
    verdict::assess(&mut run);
    run
}

/// A target with these outcomes of the first rules.
pub fn conformance(target: &str, outcomes: &[RuleOutcome]) -> Conformance {
    let rule = |(rule, outcome): (Rule, &RuleOutcome)| {
        let failure = ClauseFailure {
            clause: "the answer is 202".to_owned(),
            expected: "202".to_owned(),
            got: "200 {\"id\":\"0190\"}".to_owned(),
            request: "POST /api/events {\"type\":\"<t>\",\"payload\":1}".to_owned(),
        };
        let untested = ClauseUntested {
            clause: "a last clause".to_owned(),
            reason: "the target was not started by this program".to_owned(),
        };
        RuleResult {
            id: rule.id(),
            outcome: *outcome,
            reason: (*outcome == RuleOutcome::NotClaimed).then(|| "its profile does not claim it".to_owned()),
            passed: match outcome {
                RuleOutcome::Passed | RuleOutcome::Failed => vec!["one clause".to_owned(), "another one".to_owned()],
                _ => Vec::new(),
            },
            failures: if *outcome == RuleOutcome::Failed { vec![failure] } else { Vec::new() },
            untested: if *outcome == RuleOutcome::NotTestable { vec![untested] } else { Vec::new() },
        }
    };
    Conformance {
        target: target.to_owned(),
        url: None,
        mode: None,
        database: None,
        seconds: 1.25,
        rules: Rule::ALL.into_iter().zip(outcomes).map(rule).collect(),
        failure: None,
    }
}

/// Three parts of one load on a server that ran already, each sent by a generator of its own: the last one's clock is 40 ms behind.
pub fn shards() -> Vec<Run> {
    static RUNS: LazyLock<Vec<Run>> = LazyLock::new(build_shards);
    RUNS.clone()
}

fn build_shards() -> Vec<Run> {
    let part = |number: u32| {
        let target = Variant {
            url: Some("http://10.0.0.7:8080".to_owned()),
            ..variant("10.0.0.7:8080", "db-first", "wake", None)
        };
        let own = Behaviour { rate_per_s: 100 + 10 * u64::from(number), seconds: 3, ..DB_FIRST };
        let mut run = run("cluster", vec![target], 1, &[own], 5, &["response_time.p50 < 10ms", "ledger.lost == 0"]);
        (run.plan.rate_per_s, run.plan.database, run.run_id) = (330.0, None, "monday-1".to_owned());
        run.command.extend(["--shard".to_owned(), format!("{number}/3")]);
        // By the target's clock all of them began at the same time.
        let behind_ns = if number == 2 { 40_000_000 } else { 0 };
        run.shard = Some(Shard {
            number,
            count: 3,
            host: format!("load-{number}"),
            start_at: "2026-11-20T08:00:30Z".to_owned(),
            steady_began_at: Some(
                if number == 2 { "2026-11-20T08:00:29.96Z" } else { "2026-11-20T08:00:30Z" }.to_owned(),
            ),
            clock: Some(ClockOffset { offset_ns: behind_ns, uncertainty_ns: 600_000, source: "date".to_owned() }),
            clock_unknown: None,
            last_read_at: Some("2026-11-20T08:00:34Z".to_owned()),
        });
        let result = &mut run.results[0];
        // The seconds of these fixtures vary more than Poisson ones do.
        result.load.arrivals_check = None;
        if number > 0 {
            (result.idle, result.load.backlog, result.load.target_time) = (None, Vec::new(), None);
            (result.resources.server_cpu_s, result.resources.server_rss_peak_bytes) = (None, None);
        }
        run.caveats.clear();
        verdict::assess(&mut run);
        run
    };
    (0..3).map(part).collect()
}

/// [`shards`], as one result.
pub fn merged() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(|| {
        let name = |(number, run)| merge::Input { name: format!("{number}/run.json"), run };
        let inputs: Vec<merge::Input> = shards().into_iter().enumerate().map(name).collect();
        let command = ["loadgen", "merge", "0", "1", "2", "--out", "all"].map(str::to_owned).to_vec();
        let mut run = merge::merge(&inputs, merge::Merging { command, trust_clocks: false }).unwrap();
        verdict::assess(&mut run);
        run
    });
    RUN.clone()
}

/// All of them by file name.
pub fn all() -> Vec<(&'static str, Run)> {
    let parts = ["shard-0", "shard-1", "shard-2"].into_iter().zip(shards());
    let whole = vec![
        ("three-modes", three_modes()),
        ("lying-server", lying_server()),
        ("dead-target", dead_target()),
        ("before-after", before_after()),
        ("small", small()),
        ("capacity", capacity()),
        ("crash", crash()),
        ("conform", conform()),
        ("merged", merged()),
    ];
    whole.into_iter().chain(parts).collect()
}

/// A file of this crate's `fixtures` folder.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Compares `actual` with a committed file; `UPDATE_GOLDEN=1` writes it instead.
pub fn assert_golden(path: &std::path::Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return;
    }
    let differs = expected.lines().zip(actual.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or(expected.lines().count().min(actual.lines().count()));
    let cut = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").chars().take(300).collect::<String>();
    panic!(
        "{} differs in line {}; UPDATE_GOLDEN=1 accepts it\n  was: {}\n  is:  {}",
        path.display(),
        line + 1,
        cut(&expected),
        cut(actual)
    );
}

/// [`three_modes`], each of whose loads was a mix of nine events to one look into the inbox.
pub fn mixed() -> Run {
    let mut run = three_modes();
    for result in &mut run.results {
        let load = &result.load;
        let part = |operation, planned: u64, events_acknowledged| OperationLoad {
            operation,
            planned,
            outcomes: Outcomes { accepted: planned, ..Outcomes::default() },
            events_acknowledged,
            response_time: load.response_time.clone(),
            service_time: load.service_time.clone(),
        };
        let looks = load.planned / 10;
        let ingest = part(Operation::Ingest, load.planned - looks, load.planned - looks);
        result.load.operations = vec![ingest, part(Operation::Inbox, looks, 0)];
    }
    run
}
