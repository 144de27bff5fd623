//! Reasons to doubt a run: the one place of rules. Each names what was found with its numbers, and what to do about it.
//!
//! A rule looks at the run or at one repetition of a variant, and either makes the run invalid or only tells. What no number of the
//! result shows (a ledger that could not be read) the generator adds to the run itself; [`find`] keeps those.

pub mod arrivals;
pub mod machine;

use crate::calibration;
use crate::format;
use crate::model::{Arrivals, Caveat, CaveatKind, Run, TargetResult, Times};
use crate::objective;
use crate::stats;

/// Send delay above this share of the response time is told: the generator's own error in the number judged. Looked at for every
/// quantile of the response time that an objective judges, and for p50 and p99 without one.
pub const SEND_DELAY_SHARE_MAX: f64 = 0.05;

/// Send delay below this is not told unless an objective judges that quantile, ns: it is what a system call and a cache miss cost, and
/// nothing can be done about it.
pub const SEND_DELAY_NS_IGNORED: f64 = 20_000.0;

/// Share of the phase that the send loop may work. Above it the answers, too, are read late: a queue whose server is busy nine
/// tenths of the time lets its customers wait 4.5 times as long as they are served (M/D/1, Pollaczek and Khinchine).
pub const SENDER_BUSY_SHARE_MAX: f64 = 0.9;

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

/// The quantile every run is expected to carry.
const STANDARD_QUANTILE: f64 = 0.99;

/// All caveats of the run: those it has that no rule here repeats, and those that the rules find. Most serious first.
pub fn find(run: &Run) -> Vec<Caveat> {
    let mut caveats = run.caveats.clone();
    let mut found: Vec<Caveat> = RUN_RULES.iter().filter_map(|rule| rule.apply(run)).collect();
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

/// One rule about the run as a whole.
struct RunRule {
    kind: CaveatKind,
    invalidates: bool,
    remedy: &'static str,
    check: fn(&Run) -> Option<String>,
}

impl RunRule {
    fn apply(&self, run: &Run) -> Option<Caveat> {
        let (kind, invalidates, remedy) = (self.kind, self.invalidates, self.remedy.to_owned());
        Some(Caveat { kind, subject: None, detail: (self.check)(run)?, remedy, invalidates })
    }
}

const RUN_RULES: &[RunRule] = &[
    RunRule {
        kind: CaveatKind::Interrupted,
        invalidates: true,
        remedy: "run it again to the end",
        check: |run| run.interrupted.then(|| format!("stopped after {}, before its end", format::seconds(run.seconds))),
    },
    RunRule {
        kind: CaveatKind::DebugBuild,
        invalidates: false,
        remedy: "build with --release",
        check: |run| {
            let detail = "an unoptimised build measured, and served if it started the server itself";
            (run.tool.build_profile == "debug").then(|| detail.to_owned())
        },
    },
    RunRule {
        kind: CaveatKind::ClosedLoop,
        invalidates: false,
        remedy: "use --arrivals poisson to judge what a user would feel",
        check: |run| {
            let detail = "each connection waited for its answer before it sent again, so a stall slows the sending and is seen once";
            (!is_open(run)).then(|| detail.to_owned())
        },
    },
    RunRule {
        kind: CaveatKind::SingleRepetition,
        invalidates: false,
        remedy: "use --repeat 5 before comparing or publishing",
        check: |run| {
            let detail = "each variant was measured once, so nothing tells how far the numbers move by themselves";
            (run.plan.repeat < 2 && !run.results.is_empty()).then(|| detail.to_owned())
        },
    },
    RunRule {
        kind: CaveatKind::NotCalibrated,
        invalidates: false,
        remedy: "leave out --no-calibration, or add the mode null to the variants",
        check: |run| {
            let why = if run.plan.calibration { "it was asked for, and there is none" } else { "it was left out" };
            let detail =
                format!("the floor of this machine is not known ({why}): how much of each time is the machine's");
            calibration::is_missing(run).then_some(detail)
        },
    },
];

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
        kind: CaveatKind::ArrivalsNotAsAsked,
        invalidates: true,
        remedy: arrivals::REMEDY,
        check: arrivals::unlike_asked,
    },
    Rule {
        kind: CaveatKind::ArrivalsNotAsAsked,
        invalidates: false,
        remedy: arrivals::REMEDY,
        check: arrivals::partly_unlike_asked,
    },
    Rule {
        kind: CaveatKind::SendDelayLarge,
        invalidates: false,
        remedy: "leave the generator a core of its own, let it go first (--realtime sender, or both), or compare service times too",
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
        remedy: "find out why the store could not be read to the end, or raise the drain timeout or the ledger's limit",
        check: |_, r| {
            let ledger = r.ledger.as_ref()?;
            let of = format::counted(ledger.acknowledged, "acknowledged event");
            let detail = format!("{} of {of} are neither proven kept nor lost", format::count(ledger.unverified));
            (ledger.unverified > 0).then(|| finding(ledger.unverified as f64, detail))?
        },
    },
    Rule {
        kind: CaveatKind::SignaturesUnverified,
        invalidates: false,
        remedy: "let POST /api/webhook/config answer with the signing secret, as 'secret': \"whsec_…\"",
        check: |_, r| {
            let delivery = r.ledger.as_ref()?.delivery.as_ref()?;
            let detail = "the target told no secret, so whether its webhooks are signed as they should be is not known";
            delivery.badly_signed.is_none().then(|| finding(1.0, detail.to_owned()))?
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
        kind: CaveatKind::MachineStalls,
        invalidates: false,
        remedy: "measure on a quieter or on a real machine; the report shows when the stalls were, beside the slow seconds",
        check: machine::stalls,
    },
    Rule {
        kind: CaveatKind::BusyMachine,
        invalidates: false,
        remedy: "stop what else runs there, take a machine that is not shared, or give the generator a core of its own",
        check: machine::busy,
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

/// Quantiles of the response time that objectives judge on a variant, with the objective as written.
fn judged_quantiles<'a>(run: &'a Run, variant: &str) -> Vec<(f64, &'a str)> {
    let of_variant = run.objectives.iter().filter(|o| o.variant == variant);
    let quantile = |text: &str| objective::parse(text).ok()?.metric.response_time_quantile();
    of_variant.filter_map(|o| Some((quantile(&o.expression)?, o.expression.as_str()))).collect()
}

/// Send delay p99 that makes the rest worthless.
fn is_late(r: &TargetResult) -> bool {
    let (delay, response) = (r.load.send_delay.p99_ns as f64, r.load.response_time.p99_ns as f64);
    r.load.send_delay.count > 0 && delay > SATURATED_SEND_DELAY_NS.max(SATURATED_SEND_DELAY_SHARE * response)
}

fn generator_saturated(run: &Run, r: &TargetResult) -> Option<Finding> {
    if is_open(run) && is_late(r) {
        let (delay, response) = (r.load.send_delay.p99_ns, r.load.response_time.p99_ns);
        let detail = format!(
            "events left {} late at p99 through the generator's own fault, against a response time of {}",
            format::time_ns(delay),
            format::time_ns(response)
        );
        return finding(delay as f64, detail);
    }
    let busy = r.health.as_ref()?.sender_busy_share?;
    let detail = format!(
        "the send loop worked {} of the time, so answers, too, were read late; {} is the most that is trusted",
        format::percent(busy),
        format::percent(SENDER_BUSY_SHARE_MAX)
    );
    (busy > SENDER_BUSY_SHARE_MAX).then(|| finding(busy, detail))?
}

fn send_delay_large(run: &Run, r: &TargetResult) -> Option<Finding> {
    let (delay, response) = (&r.load.send_delay, &r.load.response_time);
    if !is_open(run) || is_late(r) || response.count == 0 || delay.count == 0 {
        return None;
    }
    let judged = judged_quantiles(run, &r.target).into_iter().map(|(q, expression)| (q, Some(expression)));
    let looked_at = judged.chain([(0.5, None), (STANDARD_QUANTILE, None)]);
    let shares = looked_at.filter_map(|(q, expression)| {
        let (late, taken) = (delay.quantile_ns(q), response.quantile_ns(q));
        let ignored = expression.is_none() && late <= SEND_DELAY_NS_IGNORED;
        let share = late / taken.max(1.0);
        (share > SEND_DELAY_SHARE_MAX && !ignored).then_some((share, q, late, taken, expression))
    });
    let (share, q, late, taken, expression) = shares.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let judges = expression.map(|text| format!(", which the objective {text:?} judges")).unwrap_or_default();
    let detail = format!(
        "send delay {} is {}, {} of the response time's {}{judges}",
        format::quantile_name(q),
        format::time(late),
        format::percent(share),
        format::time(taken)
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

fn too_few_samples(run: &Run, r: &TargetResult) -> Option<Finding> {
    let count = r.load.response_time.count;
    let judged = judged_quantiles(run, &r.target).into_iter().map(|(q, _)| q).chain([STANDARD_QUANTILE]);
    let highest = judged.filter(|q| stats::samples_beyond(count, *q) < stats::SAMPLES_BEYOND_TO_JUDGE);
    let q = highest.reduce(f64::max).filter(|_| count > 0)?;
    let beyond = stats::samples_beyond(count, q);
    let detail = format!(
        "response time {} rests on {} beyond it, of {}; {} are needed to judge it, {} to print it",
        format::quantile_name(q),
        format::counted(beyond, "sample"),
        format::count(count),
        stats::SAMPLES_BEYOND_TO_JUDGE,
        stats::SAMPLES_BEYOND_TO_PRINT
    );
    finding(-(beyond as f64), detail)
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
    let foreign = run.plan.variants.iter().any(|v| v.name == r.target && (v.url.is_some() || v.profile.is_some()));
    (foreign && idle.source == "server metrics")
        .then(|| finding(0.0, "SQL statements of the idle phase are the target's own word".to_owned()))?
}

#[cfg(test)]
mod tests;
