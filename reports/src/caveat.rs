//! Reasons to doubt a run: the one place of rules. Each names what was found with its numbers, and what to do about it.
//!
//! What only the generator can see while it runs (stalls of the machine, sent gaps, its own failures to send) it adds to the
//! run itself; [`find`] keeps those.

use crate::format;
use crate::model::{Arrivals, Caveat, CaveatKind, Run, TargetResult, Times};
use crate::stats;

/// Send delay above this share of the response time, at p50 or p99, is told: the generator's own error in the number judged.
pub const SEND_DELAY_SHARE_MAX: f64 = 0.05;

/// Send delay below this is never told, ns: it is what a system call and a cache miss cost, and nothing can be done about it.
pub const SEND_DELAY_NS_IGNORED: f64 = 20_000.0;

/// Send delay p99 above this share of the response time's p99 (and above [`SATURATED_SEND_DELAY_NS`]) makes the run invalid:
/// what it measured is mostly the generator.
pub const SATURATED_SEND_DELAY_SHARE: f64 = 0.25;

/// See [`SATURATED_SEND_DELAY_SHARE`], ns. One tick of a coarse timer: a generator that paces well is far below.
pub const SATURATED_SEND_DELAY_NS: f64 = 1_000_000.0;

/// Achieved below this share of offered is told. The offered rate is that of the schedule as drawn, so the noise of Poisson
/// arrivals is in both and needs no allowance.
pub const ACHIEVED_RATIO_MIN: f64 = 0.99;

/// More than this share of the events waiting for a free connection is told: it reaches into p99.
pub const CONNECTION_WAIT_SHARE_MAX: f64 = 0.01;

/// Where delayed acknowledgements show, ns: Linux holds them back for 40 ms.
pub const DELAYED_ACK_NS: (u64, u64) = (38_000_000, 45_000_000);

/// Share of the samples in [`DELAYED_ACK_NS`] from which on it is told.
pub const DELAYED_ACK_SHARE_MIN: f64 = 0.001;

/// Fewest samples there.
pub const DELAYED_ACK_SAMPLES_MIN: u64 = 10;

/// How many times more samples there must be than in a span as wide on either side: a hill, not a slope.
pub const DELAYED_ACK_PROMINENCE: u64 = 3;

/// Share of the steady phase the sending thread may have waited for a processor.
pub const RUN_QUEUE_SHARE_MAX: f64 = 0.05;

/// The quantile every run is expected to carry.
const STANDARD_QUANTILE: f64 = 0.99;

/// All caveats of the run: those it has that no rule here repeats, and those that the rules find. Most serious first.
pub fn find(run: &Run) -> Vec<Caveat> {
    let mut caveats = run.caveats.clone();
    let mut found = of_the_run(run);
    for variant in &run.plan.variants {
        let results: Vec<&TargetResult> = run.results.iter().filter(|r| r.target == variant.name).collect();
        found.extend(RULES.iter().filter_map(|rule| rule.apply(run, &variant.name, &results)));
    }
    for caveat in found {
        if !caveats.iter().any(|c| c.kind == caveat.kind && c.subject == caveat.subject) {
            caveats.push(caveat);
        }
    }
    caveats.sort_by_key(|c| (!c.invalidates, c.kind));
    caveats
}

/// Rules about the run as a whole.
fn of_the_run(run: &Run) -> Vec<Caveat> {
    let mut caveats = Vec::new();
    let mut add = |kind, invalidates, detail: String, remedy: &str| {
        caveats.push(Caveat { kind, subject: None, detail, remedy: remedy.to_owned(), invalidates });
    };
    if run.interrupted {
        let detail = format!("stopped after {}, before its end", format::seconds(run.seconds));
        add(CaveatKind::Interrupted, true, detail, "run it again to the end");
    }
    if run.tool.build_profile == "debug" {
        let detail = "an unoptimised build measured, and served if it started the server itself".to_owned();
        add(CaveatKind::DebugBuild, false, detail, "build with --release");
    }
    if run.plan.arrivals == Arrivals::Closed {
        let detail =
            "each connection waited for its answer before it sent again, so a stall slows the sending and is seen once"
                .to_owned();
        add(CaveatKind::ClosedLoop, false, detail, "use --arrivals poisson to judge what a user would feel");
    }
    if run.plan.repeat < 2 && !run.results.is_empty() {
        let detail =
            "each variant was measured once, so nothing tells how far the numbers move by themselves".to_owned();
        add(CaveatKind::SingleRepetition, false, detail, "use --repeat 5 before comparing or publishing");
    }
    caveats
}

/// Something found in one repetition.
struct Finding {
    /// Larger is worse; picks the repetition whose numbers are shown.
    severity: f64,
    detail: String,
}

fn finding(severity: f64, detail: String) -> Option<Finding> {
    Some(Finding { severity, detail })
}

/// One rule about one repetition.
struct Rule {
    kind: CaveatKind,
    invalidates: bool,
    remedy: &'static str,
    check: fn(&Run, &TargetResult) -> Option<Finding>,
}

impl Rule {
    /// One caveat for a variant, with the numbers of its worst repetition.
    fn apply(&self, run: &Run, variant: &str, results: &[&TargetResult]) -> Option<Caveat> {
        let found = results.iter().filter_map(|r| (self.check)(run, r).map(|f| (r.repetition, f)));
        let found: Vec<(u32, Finding)> = found.collect();
        let (repetition, worst) = found.iter().max_by(|a, b| a.1.severity.total_cmp(&b.1.severity))?;
        let detail = match (results.len(), found.len()) {
            (1, _) => worst.detail.clone(),
            (all, 1) => format!("{} (in one of {all} repetitions, #{repetition})", worst.detail),
            (all, some) => format!("{} (#{repetition}, the worst of {some} such repetitions of {all})", worst.detail),
        };
        Some(Caveat {
            kind: self.kind,
            subject: Some(variant.to_owned()),
            detail,
            remedy: self.remedy.to_owned(),
            invalidates: self.invalidates,
        })
    }
}

const RULES: &[Rule] = &[
    Rule {
        kind: CaveatKind::DeadTarget,
        invalidates: true,
        remedy: "check that the target runs and listens at this address",
        check: dead_target,
    },
    Rule {
        kind: CaveatKind::NothingAccepted,
        invalidates: true,
        remedy: "look at the statuses and errors, and try one event by hand",
        check: nothing_accepted,
    },
    Rule {
        kind: CaveatKind::GeneratorSaturated,
        invalidates: true,
        remedy: "lower the rate, give the generator a core of its own, or send from another machine",
        check: generator_saturated,
    },
    Rule {
        kind: CaveatKind::SendDelayLarge,
        invalidates: false,
        remedy: "leave the generator a core of its own, or compare service times too",
        check: send_delay_large,
    },
    Rule {
        kind: CaveatKind::RateNotReached,
        invalidates: false,
        remedy: "read every time beside the rate it was measured at, or offer less",
        check: rate_not_reached,
    },
    Rule {
        kind: CaveatKind::EventsNotSent,
        invalidates: false,
        remedy: "use more connections or a lower rate; these events are in the response time with the time they waited",
        check: |_, r| {
            let n = r.load.outcomes.not_sent;
            let of = format::counted(r.load.planned, "planned event");
            let was_alive = !r.load.statuses.is_empty() || r.load.outcomes.accepted > 0;
            (n > 0 && was_alive).then(|| finding(n as f64, format!("{} of {of} were never sent", format::count(n))))?
        },
    },
    Rule {
        kind: CaveatKind::Timeouts,
        invalidates: false,
        remedy: "read the quantiles marked ≥ as lower bounds; a longer --request-timeout shows how long they really take",
        check: timeouts,
    },
    Rule {
        kind: CaveatKind::Errors,
        invalidates: false,
        remedy: "look at the target's log for these; only accepted events are in the response time",
        check: errors,
    },
    Rule {
        kind: CaveatKind::Reconnects,
        invalidates: false,
        remedy: "keep connections open on the server, or its times include connecting",
        check: |_, r| {
            let n = r.load.reconnects;
            let detail = format!("{} had to be opened again during the steady phase", format::counted(n, "connection"));
            (n > 0).then(|| finding(n as f64, detail))?
        },
    },
    Rule {
        kind: CaveatKind::ConnectionsExhausted,
        invalidates: false,
        remedy: "use more connections, or read the wait as the target's: it did not answer in time to free one",
        check: connections_exhausted,
    },
    Rule {
        kind: CaveatKind::TooFewSamples,
        invalidates: false,
        remedy: "measure longer, at a higher rate, or judge a lower quantile",
        check: too_few_samples,
    },
    Rule {
        kind: CaveatKind::DelayedAcknowledgements,
        invalidates: false,
        remedy: "set TCP_NODELAY on the server, and write head and body of an answer at once",
        check: delayed_acknowledgements,
    },
    Rule {
        kind: CaveatKind::LedgerLeftOut,
        invalidates: false,
        remedy: "let the tool read what is persisted (inbox or SQL)",
        check: |_, r| {
            let left_out = r.ledger.is_none() && r.load.outcomes.accepted > 0 && r.mode.as_deref() != Some("null");
            let n = format::counted(r.load.outcomes.accepted, "acknowledged event");
            left_out.then(|| finding(0.0, format!("nobody checked that {n} were kept")))?
        },
    },
    Rule {
        kind: CaveatKind::LedgerIncomplete,
        invalidates: false,
        remedy: "find out why the store could not be read to the end, or raise the drain timeout",
        check: |_, r| {
            let ledger = r.ledger.as_ref()?;
            let of = format::counted(ledger.acknowledged, "acknowledged event");
            let detail = format!("{} of {of} are neither proven kept nor lost", format::count(ledger.unverified));
            (ledger.unverified > 0).then(|| finding(ledger.unverified as f64, detail))?
        },
    },
    Rule {
        kind: CaveatKind::PersistedWithoutAcknowledgement,
        invalidates: false,
        remedy: "none needed: a sender repeats such an event, and its dedup_id must make the repeat harmless",
        check: |_, r| {
            let n = r.ledger.as_ref()?.unacknowledged;
            let detail = format!("{} persisted whose acknowledgement was never read", format::counted(n, "event"));
            (n > 0).then(|| finding(n as f64, detail))?
        },
    },
    Rule {
        kind: CaveatKind::SqlCountUnavailable,
        invalidates: false,
        remedy: "count from outside: on PostgreSQL create the extension pg_stat_statements",
        check: sql_count_unavailable,
    },
    Rule {
        kind: CaveatKind::BusyMachine,
        invalidates: false,
        remedy: "stop what else runs there, or give the generator a core of its own",
        check: busy_machine,
    },
];

fn dead_target(_: &Run, r: &TargetResult) -> Option<Finding> {
    let failure = r.failure.as_ref()?;
    (r.load.outcomes.accepted == 0 && r.load.statuses.is_empty())
        .then(|| finding(0.0, format!("{}: {failure}", r.url)))?
}

fn nothing_accepted(run: &Run, r: &TargetResult) -> Option<Finding> {
    if r.load.outcomes.accepted > 0 || dead_target(run, r).is_some() {
        return None;
    }
    let failure = r.failure.as_ref().map(|f| format!(" ({f})")).unwrap_or_default();
    let planned = format::counted(r.load.planned, "planned event");
    finding(r.load.planned as f64, format!("none of {planned} was accepted: {}{failure}", what_went_wrong(r)))
}

/// `HTTP 500 × 1 000, connection refused × 3`, or that nothing is known.
pub(crate) fn what_went_wrong(r: &TargetResult) -> String {
    let mut parts: Vec<String> =
        r.load.errors.iter().take(4).map(|e| format!("{} × {}", e.kind, format::count(e.count))).collect();
    if parts.is_empty() {
        let refused = r.load.statuses.iter().filter(|(status, _)| !status.starts_with('2'));
        parts = refused.take(4).map(|(status, n)| format!("HTTP {status} × {}", format::count(*n))).collect();
    }
    if parts.is_empty() && r.load.outcomes.timed_out > 0 {
        parts.push(format!("timed out × {}", format::count(r.load.outcomes.timed_out)));
    }
    if parts.is_empty() { "no reason is recorded".to_owned() } else { parts.join(", ") }
}

fn is_open(run: &Run) -> bool {
    run.plan.arrivals != Arrivals::Closed
}

fn is_saturated(r: &TargetResult) -> bool {
    let (delay, response) = (r.load.send_delay.p99_ns as f64, r.load.response_time.p99_ns as f64);
    r.load.send_delay.count > 0 && delay > SATURATED_SEND_DELAY_NS.max(SATURATED_SEND_DELAY_SHARE * response)
}

fn generator_saturated(run: &Run, r: &TargetResult) -> Option<Finding> {
    if !is_open(run) || !is_saturated(r) {
        return None;
    }
    let (delay, response) = (r.load.send_delay.p99_ns, r.load.response_time.p99_ns);
    let detail = format!(
        "events left {} late at p99 through the generator's own fault, against a response time of {}",
        format::time_ns(delay),
        format::time_ns(response)
    );
    finding(delay as f64, detail)
}

fn send_delay_large(run: &Run, r: &TargetResult) -> Option<Finding> {
    if !is_open(run) || is_saturated(r) {
        return None;
    }
    let (delay, response) = (&r.load.send_delay, &r.load.response_time);
    let pairs = [("p50", delay.p50_ns, response.p50_ns), ("p99", delay.p99_ns, response.p99_ns)];
    let large = |&(_, d, t): &(_, u64, u64)| d as f64 > SEND_DELAY_NS_IGNORED.max(SEND_DELAY_SHARE_MAX * t as f64);
    let (name, d, t) =
        pairs.into_iter().filter(|_| response.count > 0).filter(large).max_by_key(|p| p.1 * 1000 / p.2.max(1))?;
    let share = d as f64 / t.max(1) as f64;
    let detail = format!(
        "send delay {name} is {}, {} of the response time's {}",
        format::time_ns(d),
        format::percent(share),
        format::time_ns(t)
    );
    finding(share, detail)
}

fn rate_not_reached(run: &Run, r: &TargetResult) -> Option<Finding> {
    let ratio = r.load.achieved_ratio().filter(|_| is_open(run) && r.load.outcomes.accepted > 0)?;
    let (offered, achieved) = (format::rate(r.load.offered_per_s), format::rate(r.load.achieved_per_s));
    let detail = format!("{achieved} accepted of {offered} offered, {}", format::percent(ratio));
    (ratio < ACHIEVED_RATIO_MIN).then(|| finding(1.0 - ratio, detail))?
}

fn timeouts(run: &Run, r: &TargetResult) -> Option<Finding> {
    let n = r.load.outcomes.timed_out;
    let detail = format!(
        "{} of {} had no whole answer within {}",
        format::count(n),
        format::counted(r.load.planned, "planned event"),
        format::seconds(run.plan.request_timeout_ms as f64 / 1e3)
    );
    (n > 0).then(|| finding(n as f64, detail))?
}

fn errors(_: &Run, r: &TargetResult) -> Option<Finding> {
    let n = (r.load.outcomes.rejected + r.load.outcomes.failed).saturating_sub(r.load.repeats.refused);
    let of = format::counted(r.load.planned, "planned event");
    (n > 0).then(|| {
        finding(n as f64, format!("{} of {of} were refused or failed: {}", format::count(n), what_went_wrong(r)))
    })?
}

/// Events that waited at all for a connection.
fn waited(times: &Times) -> u64 {
    times.histogram().map_or(0, |h| h.count() - h.count_between(0, 0))
}

fn connections_exhausted(_: &Run, r: &TargetResult) -> Option<Finding> {
    let n = waited(&r.load.connection_wait);
    let share = n as f64 / r.load.planned.max(1) as f64;
    let detail = format!(
        "{} ({} of those planned) found all {} connections busy and waited, {} at most",
        format::counted(n, "event"),
        format::percent(share),
        r.load.connections,
        format::largest(&r.load.connection_wait)
    );
    (share > CONNECTION_WAIT_SHARE_MAX).then(|| finding(share, detail))?
}

fn too_few_samples(_: &Run, r: &TargetResult) -> Option<Finding> {
    let count = r.load.response_time.count;
    let beyond = stats::samples_beyond(count, STANDARD_QUANTILE);
    let detail = format!(
        "response time p99 rests on {} beyond it, of {}; {} are needed to judge it",
        format::counted(beyond, "sample"),
        format::count(count),
        stats::SAMPLES_BEYOND_TO_JUDGE
    );
    (count > 0 && beyond < stats::SAMPLES_BEYOND_TO_JUDGE).then(|| finding(-(beyond as f64), detail))?
}

fn delayed_acknowledgements(_: &Run, r: &TargetResult) -> Option<Finding> {
    let histogram = r.load.service_time.histogram().ok()?;
    let (low, high) = DELAYED_ACK_NS;
    let width = high - low;
    let there = histogram.count_between(low, high);
    let beside = histogram.count_between(low - width, low - 1).max(histogram.count_between(high + 1, high + width));
    let share = there as f64 / histogram.count().max(1) as f64;
    let is_a_hill = there >= DELAYED_ACK_SAMPLES_MIN && there > DELAYED_ACK_PROMINENCE * beside;
    let detail = format!(
        "{} of the service times ({}) lie between {} and {}, where held-back TCP acknowledgements show",
        format::percent(share),
        format::counted(there, "event"),
        format::time_ns(low),
        format::time_ns(high)
    );
    (is_a_hill && share >= DELAYED_ACK_SHARE_MIN).then(|| finding(share, detail))?
}

fn sql_count_unavailable(run: &Run, r: &TargetResult) -> Option<Finding> {
    let idle = r.idle.as_ref()?;
    if r.mode.as_deref() == Some("null") {
        return None;
    }
    if idle.sql_statements.is_none() {
        return finding(
            1.0,
            format!("nobody could count the SQL statements of the idle phase (source: {})", idle.source),
        );
    }
    let foreign = run.plan.variants.iter().any(|v| v.name == r.target && v.url.is_some());
    (foreign && idle.source == "server metrics")
        .then(|| finding(0.0, "SQL statements of the idle phase are the target's own word".to_owned()))?
}

fn busy_machine(_: &Run, r: &TargetResult) -> Option<Finding> {
    let waited = r.resources.generator_run_queue_delay_ns? as f64;
    let share = waited / (r.load.seconds * 1e9).max(1.0);
    let detail = format!(
        "the sending thread waited {} for a processor, {} of the steady phase",
        format::time(waited),
        format::percent(share)
    );
    (share > RUN_QUEUE_SHARE_MAX).then(|| finding(share, detail))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::histogram::TimeHistogram;
    use crate::model::{ErrorCount, Outcomes};

    type Change = fn(&mut Run, usize);

    fn times(of: &[(u64, u64)]) -> Times {
        let mut histogram = TimeHistogram::new();
        of.iter().for_each(|&(ns, n)| (0..n).for_each(|_| histogram.record(ns)));
        histogram.times(0)
    }

    /// Kinds found on a sound run after `change` to the first repetition of cache-first, and to the run.
    fn found(change: Change) -> Vec<CaveatKind> {
        let mut run = fixtures::three_modes();
        change(&mut run, 1);
        find(&run).into_iter().map(|c| c.kind).collect()
    }

    #[test]
    fn a_sound_run_has_none() {
        assert_eq!(found(|_, _| {}), []);
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        use CaveatKind::*;
        let cases: [(CaveatKind, Change); 20] = [
            (Interrupted, |run, _| run.interrupted = true),
            (DebugBuild, |run, _| run.tool.build_profile = "debug".to_owned()),
            (ClosedLoop, |run, _| run.plan.arrivals = Arrivals::Closed),
            (SingleRepetition, |run, _| run.plan.repeat = 1),
            (NothingAccepted, |run, i| run.results[i].load.outcomes.accepted = 0),
            (DeadTarget, |run, i| {
                run.results[i].failure = Some("connection refused".to_owned());
                run.results[i].load.statuses.clear();
                run.results[i].load.outcomes.accepted = 0;
            }),
            (GeneratorSaturated, |run, i| run.results[i].load.send_delay = times(&[(5_000_000, 20_000)])),
            (SendDelayLarge, |run, i| run.results[i].load.send_delay = times(&[(1_000, 19_000), (60_000, 1_000)])),
            (RateNotReached, |run, i| run.results[i].load.achieved_per_s *= 0.98),
            (EventsNotSent, |run, i| run.results[i].load.outcomes.not_sent = 1),
            (Timeouts, |run, i| run.results[i].load.outcomes.timed_out = 1),
            (Errors, |run, i| run.results[i].load.outcomes.rejected = 1),
            (Reconnects, |run, i| run.results[i].load.reconnects = 1),
            (ConnectionsExhausted, |run, i| {
                run.results[i].load.connection_wait = times(&[(0, 11_000), (900_000, 200)])
            }),
            (TooFewSamples, |run, i| run.results[i].load.response_time = times(&[(1_000_000, 9_000)])),
            (DelayedAcknowledgements, |run, i| {
                run.results[i].load.service_time = times(&[(200_000, 19_900), (40_100_000, 100)]);
            }),
            (LedgerLeftOut, |run, i| run.results[i].ledger = None),
            (LedgerIncomplete, |run, i| run.results[i].ledger.as_mut().unwrap().unverified = 1),
            (PersistedWithoutAcknowledgement, |run, i| run.results[i].ledger.as_mut().unwrap().unacknowledged = 1),
            (SqlCountUnavailable, |run, i| run.results[i].idle.as_mut().unwrap().sql_statements = None),
        ];
        for (kind, change) in cases {
            assert_eq!(found(change), [kind]);
        }
        assert_eq!(
            found(|run, i| run.results[i].resources.generator_run_queue_delay_ns = Some(700_000_000)),
            [BusyMachine]
        );
    }

    #[test]
    fn what_is_no_fault_is_not_told() {
        let cases: [(&str, Change); 6] = [
            ("a repeat that was rightly refused", |run, i| {
                let load = &mut run.results[i].load;
                (load.outcomes.rejected, load.repeats.sent, load.repeats.refused) = (500, 500, 500);
                (load.planned, load.offered_per_s) = (load.planned + 500, load.offered_per_s + 500.0 / load.seconds);
            }),
            ("a slope that passes through 40 ms", |run, i| {
                run.results[i].load.service_time =
                    times(&[(33_000_000, 5_000), (40_000_000, 4_000), (47_000_000, 3_000), (90_000_000, 20_000)]);
            }),
            ("a send delay of 15 µs at a short response time", |run, i| {
                run.results[i].load.send_delay = times(&[(15_000, 20_000)]);
            }),
            ("a null server without a ledger and without SQL", |run, i| {
                (run.results[i].mode, run.results[i].ledger) = (Some("null".to_owned()), None);
                run.results[i].idle.as_mut().unwrap().sql_statements = None;
            }),
            ("a few events that waited for a connection", |run, i| {
                run.results[i].load.connection_wait = times(&[(0, 12_000), (900_000, 20)]);
            }),
            ("a slow server that makes a send delay of 2 ms small", |run, i| {
                run.results[i].load.send_delay = times(&[(1_000, 19_000), (2_000_000, 1_000)]);
                run.results[i].load.response_time = times(&[(900_000, 10_000), (50_000_000, 10_000)]);
            }),
        ];
        for (name, change) in cases {
            assert_eq!(found(change), [], "{name}");
        }
    }

    #[test]
    fn a_caveat_shows_the_worst_repetition_and_how_many_have_it() {
        let mut run = fixtures::three_modes();
        (run.results[1].load.reconnects, run.results[4].load.reconnects) = (3, 7);
        let caveat = find(&run).remove(0);
        assert_eq!(caveat.subject.as_deref(), Some("cache-first"));
        insta::assert_snapshot!(caveat.detail, @r#"7 connections had to be opened again during the steady phase (#2, the worst of 2 such repetitions of 2)"#);
    }

    #[test]
    fn what_the_generator_added_stays_and_finding_twice_adds_nothing() {
        let mut run = fixtures::lying_server();
        run.caveats.push(Caveat {
            kind: CaveatKind::MachineStalls,
            subject: None,
            detail: "3 stalls above 10 ms".to_owned(),
            remedy: "use a quieter machine".to_owned(),
            invalidates: false,
        });
        run.caveats = find(&run);
        assert!(run.caveats.iter().any(|c| c.kind == CaveatKind::MachineStalls));
        assert_eq!(find(&run), run.caveats);
    }

    #[test]
    fn errors_are_named() {
        let mut run = fixtures::three_modes();
        let load = &mut run.results[1].load;
        load.outcomes = Outcomes { failed: 40, ..load.outcomes };
        load.errors = vec![ErrorCount { kind: "HTTP 503".to_owned(), count: 40 }];
        insta::assert_snapshot!(find(&run)[0].detail, @r#"40 of 12 131 planned events were refused or failed: HTTP 503 × 40 (in one of 2 repetitions, #1)"#);
    }
}
