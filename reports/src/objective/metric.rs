//! What an objective can be about: names, units, and how each is read from one repetition.

use std::fmt;

use crate::format;
use crate::model::{Delivery, Operation, OperationLoad, TargetResult, Times};
use crate::stats;

/// Kind of quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    Time,
    Bytes,
    PerSecond,
    PerHour,
    Events,
    Ratio,
}

impl Dimension {
    /// Name of its base unit, as `run.v1` writes it.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Time => "ns",
            Self::Bytes => "bytes",
            Self::PerSecond => "per_s",
            Self::PerHour => "per_hour",
            Self::Events => "events",
            Self::Ratio => "ratio",
        }
    }

    /// What may stand behind a number, for messages.
    pub(super) fn allowed_units(self) -> &'static str {
        match self {
            Self::Time => "a time needs one of ns, us, ms, s, min",
            Self::Bytes => "a size needs one of B, KiB, MiB, GiB, kB, MB, GB",
            Self::PerSecond => "a rate per second is a plain number or ends in /s",
            Self::PerHour => "a rate per hour is a plain number or ends in /h",
            Self::Events => "a count is a plain number",
            Self::Ratio => "a ratio is a plain number or ends in %",
        }
    }

    /// The name as it is kept, and how many base units it is; `None` when it does not fit.
    pub(super) fn scale(self, unit: &str) -> Option<(&'static str, f64)> {
        const UNITS: [(Dimension, &str, f64); 19] = [
            (Dimension::Time, "ns", 1.0),
            (Dimension::Time, "us", 1e3),
            (Dimension::Time, "µs", 1e3),
            (Dimension::Time, "μs", 1e3),
            (Dimension::Time, "ms", 1e6),
            (Dimension::Time, "s", 1e9),
            (Dimension::Time, "min", 60e9),
            (Dimension::Bytes, "B", 1.0),
            (Dimension::Bytes, "KiB", 1024.0),
            (Dimension::Bytes, "MiB", 1048576.0),
            (Dimension::Bytes, "GiB", 1073741824.0),
            (Dimension::Bytes, "kB", 1e3),
            (Dimension::Bytes, "MB", 1e6),
            (Dimension::Bytes, "GB", 1e9),
            (Dimension::PerSecond, "/s", 1.0),
            (Dimension::PerHour, "/h", 1.0),
            (Dimension::Ratio, "%", 0.01),
            (Dimension::PerSecond, "", 1.0),
            (Dimension::PerHour, "", 1.0),
        ];
        if unit.is_empty() && matches!(self, Self::Events | Self::Ratio) {
            return Some(("", 1.0));
        }
        UNITS
            .iter()
            .find(|(dimension, name, _)| *dimension == self && *name == unit)
            .map(|&(_, name, scale)| (name, scale))
    }
}

/// The interval in which the truth of one repetition lies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// As recorded; `None` when nothing was.
    pub value: Option<f64>,
    pub low: f64,
    pub high: f64,
    /// The same interval when nothing of it may be the generator's own delay: it reaches as far as that delay goes.
    pub own: (f64, f64),
    /// Why the interval is no point, or what the value is of.
    pub note: Option<String>,
}

impl Reading {
    fn exact(value: f64) -> Self {
        Self::between(Some(value), value, value, None)
    }

    fn between(value: Option<f64>, low: f64, high: f64, note: Option<String>) -> Self {
        Self { value, low, high, own: (low, high), note }
    }

    pub(super) fn missing(why: String) -> Self {
        Self::between(None, 0.0, f64::INFINITY, Some(why))
    }

    /// This time, of which up to `delay` may be the generator's own and at least `least` is not.
    fn less_own(self, delay: f64, least: f64) -> Self {
        Self { own: ((self.low - delay).max(least.min(self.low)), self.high), ..self }
    }

    /// This one as a multiple of `other`, which is that of the variant `name`; both in `unit`.
    pub(super) fn over(&self, other: &Self, name: &str, unit: &str) -> Self {
        let (Some(own), Some(reference)) = (self.value, other.value) else {
            let why = if self.value.is_none() {
                self.note.clone()
            } else {
                other.note.as_ref().map(|n| format!("{name}: {n}"))
            };
            return Self::missing(why.unwrap_or_default());
        };
        if reference == 0.0 {
            return Self::missing(format!("{name} measured 0, of which nothing is a multiple"));
        }
        let note =
            [self.note.clone(), other.note.as_ref().map(|n| format!("{name}: {n}"))].into_iter().flatten().next();
        let ratio = |(low, high): (f64, f64), (other_low, other_high): (f64, f64)| {
            let lowest = if other_high.is_finite() { low / other_high } else { 0.0 };
            (lowest, if other_low > 0.0 { high / other_low } else { f64::INFINITY })
        };
        let (low, high) = ratio((self.low, self.high), (other.low, other.high));
        Self {
            value: Some(own / reference),
            low,
            high,
            own: ratio(self.own, other.own),
            note: note.or_else(|| {
                Some(format!("{} against {}", format::in_unit(own, unit), format::in_unit(reference, unit)))
            }),
        }
    }
}

/// A quantity that objectives can be about.
#[derive(Clone, Copy)]
pub struct Metric(Kind);

#[derive(Clone, Copy)]
enum Kind {
    Time(&'static Distribution, &'static (&'static str, Statistic)),
    Plain(&'static Plain),
}

struct Distribution {
    name: &'static str,
    read: fn(&TargetResult) -> Option<&Times>,
    /// Of a response time: the service time that is a part of it.
    service: Option<fn(&TargetResult) -> Option<&Times>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Statistic {
    Quantile(f64),
    Min,
    Mean,
    Max,
}

struct Plain {
    name: &'static str,
    dimension: Dimension,
    read: fn(&TargetResult) -> Option<f64>,
}

const fn times(name: &'static str, read: fn(&TargetResult) -> Option<&Times>) -> Distribution {
    Distribution { name, read, service: None }
}

const fn response(
    name: &'static str,
    read: fn(&TargetResult) -> Option<&Times>,
    service: fn(&TargetResult) -> Option<&Times>,
) -> Distribution {
    Distribution { name, read, service: Some(service) }
}

/// One operation's part of the load; only where several were mixed.
fn part(r: &TargetResult, operation: Operation) -> Option<&OperationLoad> {
    r.load.operations.iter().find(|part| part.operation == operation)
}

/// What the receiver of webhooks got; only where delivery was asked for.
fn delivery(r: &TargetResult) -> Option<&Delivery> {
    r.ledger.as_ref()?.delivery.as_ref()
}

const DISTRIBUTIONS: &[Distribution] = &[
    response("response_time", |r| Some(&r.load.response_time), |r| Some(&r.load.service_time)),
    times("service_time", |r| Some(&r.load.service_time)),
    times("send_delay", |r| Some(&r.load.send_delay)),
    times("connection_wait", |r| Some(&r.load.connection_wait)),
    times("refused_time", |r| Some(&r.load.refused_time)),
    times("connect_time", |r| Some(&r.load.connect_time)),
    times("time_to_durable", |r| Some(&r.ledger.as_ref()?.time_to_durable.as_ref()?.times)),
    times("time_to_delivered", |r| delivery(r)?.time_to_delivered.as_ref()),
    response(
        "ingest.response_time",
        |r| Some(&part(r, Operation::Ingest)?.response_time),
        |r| Some(&part(r, Operation::Ingest)?.service_time),
    ),
    times("ingest.service_time", |r| Some(&part(r, Operation::Ingest)?.service_time)),
    response(
        "batch.response_time",
        |r| Some(&part(r, Operation::Batch)?.response_time),
        |r| Some(&part(r, Operation::Batch)?.service_time),
    ),
    times("batch.service_time", |r| Some(&part(r, Operation::Batch)?.service_time)),
    response(
        "inbox.response_time",
        |r| Some(&part(r, Operation::Inbox)?.response_time),
        |r| Some(&part(r, Operation::Inbox)?.service_time),
    ),
    times("inbox.service_time", |r| Some(&part(r, Operation::Inbox)?.service_time)),
    response(
        "ack.response_time",
        |r| Some(&part(r, Operation::Ack)?.response_time),
        |r| Some(&part(r, Operation::Ack)?.service_time),
    ),
    times("ack.service_time", |r| Some(&part(r, Operation::Ack)?.service_time)),
];

const STATISTICS: &[(&str, Statistic)] = &[
    ("p50", Statistic::Quantile(0.5)),
    ("p90", Statistic::Quantile(0.9)),
    ("p99", Statistic::Quantile(0.99)),
    ("p999", Statistic::Quantile(0.999)),
    ("p9999", Statistic::Quantile(0.9999)),
    ("min", Statistic::Min),
    ("mean", Statistic::Mean),
    ("max", Statistic::Max),
];

const fn plain(name: &'static str, dimension: Dimension, read: fn(&TargetResult) -> Option<f64>) -> Plain {
    Plain { name, dimension, read }
}

const PLAIN: &[Plain] = &[
    plain("offered_per_s", Dimension::PerSecond, |r| Some(r.load.offered_per_s)),
    plain("achieved_per_s", Dimension::PerSecond, |r| Some(r.load.achieved_per_s)),
    plain("achieved_ratio", Dimension::Ratio, |r| r.load.achieved_ratio()),
    plain("load.planned", Dimension::Events, |r| Some(r.load.planned as f64)),
    plain("load.accepted", Dimension::Events, |r| Some(r.load.outcomes.accepted as f64)),
    plain("load.rejected", Dimension::Events, |r| Some(r.load.outcomes.rejected as f64)),
    plain("load.failed", Dimension::Events, |r| Some(r.load.outcomes.failed as f64)),
    plain("load.timed_out", Dimension::Events, |r| Some(r.load.outcomes.timed_out as f64)),
    plain("load.not_sent", Dimension::Events, |r| Some(r.load.outcomes.not_sent as f64)),
    plain("load.not_accepted", Dimension::Events, |r| Some(r.load.not_accepted() as f64)),
    plain("load.not_accepted_ratio", Dimension::Ratio, |r| {
        (r.load.planned > 0).then(|| r.load.not_accepted() as f64 / r.load.planned as f64)
    }),
    plain("load.reconnects", Dimension::Events, |r| Some(r.load.reconnects as f64)),
    plain("backlog.peak", Dimension::Events, |r| r.load.backlog_peak().map(|n| n as f64)),
    plain("ledger.acknowledged", Dimension::Events, |r| Some(r.ledger.as_ref()?.acknowledged as f64)),
    plain("ledger.persisted", Dimension::Events, |r| Some(r.ledger.as_ref()?.persisted as f64)),
    plain("ledger.lost", Dimension::Events, |r| Some(r.ledger.as_ref()?.lost as f64)),
    plain("ledger.duplicated", Dimension::Events, |r| Some(r.ledger.as_ref()?.duplicated as f64)),
    plain("ledger.corrupted", Dimension::Events, |r| Some(r.ledger.as_ref()?.corrupted as f64)),
    plain("ledger.unverified", Dimension::Events, |r| Some(r.ledger.as_ref()?.unverified as f64)),
    plain("ledger.unacknowledged", Dimension::Events, |r| Some(r.ledger.as_ref()?.unacknowledged as f64)),
    plain("ledger.delivered", Dimension::Events, |r| r.ledger.as_ref()?.delivered.map(|n| n as f64)),
    plain("ledger.undelivered", Dimension::Events, |r| Some(delivery(r)?.undelivered as f64)),
    plain("ledger.delivered_repeatedly", Dimension::Events, |r| Some(delivery(r)?.repeated as f64)),
    plain("ledger.delivered_altered", Dimension::Events, |r| Some(delivery(r)?.altered as f64)),
    plain("ledger.delivered_badly_signed", Dimension::Events, |r| delivery(r)?.badly_signed.map(|n| n as f64)),
    plain("ledger.delivered_out_of_order", Dimension::Events, |r| Some(delivery(r)?.out_of_order as f64)),
    plain("ledger.drained_after", Dimension::Time, |r| Some(r.ledger.as_ref()?.drained_after_ms as f64 * 1e6)),
    plain("idle.sql_statements", Dimension::Events, |r| r.idle.as_ref()?.sql_statements.map(|n| n as f64)),
    plain("idle.sql_statements_per_hour", Dimension::PerHour, |r| r.idle.as_ref()?.sql_statements_per_hour),
    plain("idle.sql_statements_per_hour_deep_idle", Dimension::PerHour, |r| {
        r.idle.as_ref()?.sql_statements_per_hour_deep_idle
    }),
    plain("idle.sql_statements_per_poll", Dimension::Ratio, |r| r.idle.as_ref()?.sql_statements_per_poll),
    plain("idle.polls", Dimension::Events, |r| r.idle.as_ref()?.polls.map(|n| n as f64)),
    plain("idle.poll_interval_last", Dimension::Time, |r| r.idle.as_ref()?.poll_interval_ms_last.map(|ms| ms * 1e6)),
    plain("idle.deep_idle_after", Dimension::Time, |r| r.idle.as_ref()?.deep_idle_after_s.map(|s| s * 1e9)),
    plain("idle.first_event_response_time", Dimension::Time, |r| {
        r.idle.as_ref()?.first_event.as_ref().map(|e| e.response_time_ns as f64)
    }),
    plain("idle.first_event_time_to_durable", Dimension::Time, |r| {
        r.idle.as_ref()?.first_event.as_ref()?.time_to_durable_ns.map(|ns| ns as f64)
    }),
    plain("resources.server_cpu", Dimension::Time, |r| r.resources.server_cpu_s.map(|s| s * 1e9)),
    plain("resources.server_cpu_per_event", Dimension::Time, |r| r.cpu_ns_per_event(r.resources.server_cpu_s)),
    plain("resources.database_cpu_per_event", Dimension::Time, |r| r.cpu_ns_per_event(r.resources.database_cpu_s)),
    plain("resources.generator_cpu_per_event", Dimension::Time, |r| r.cpu_ns_per_event(r.resources.generator_cpu_s)),
    plain("resources.server_rss_peak", Dimension::Bytes, |r| r.resources.server_rss_peak_bytes.map(|n| n as f64)),
    plain("resources.generator_rss_peak", Dimension::Bytes, |r| r.resources.generator_rss_peak_bytes.map(|n| n as f64)),
];

/// Every name that [`Metric`]s have.
pub fn names() -> Vec<String> {
    let times = DISTRIBUTIONS.iter().flat_map(|d| STATISTICS.iter().map(move |(s, _)| format!("{}.{s}", d.name)));
    times.chain(PLAIN.iter().map(|p| p.name.to_owned())).collect()
}

impl Metric {
    /// The metric of that name; `p99.9` is read as `p999`.
    pub fn find(name: &str) -> Option<Self> {
        if let Some(plain) = PLAIN.iter().find(|p| p.name == name) {
            return Some(Self(Kind::Plain(plain)));
        }
        let of = |d: &'static Distribution| Some((d, name.strip_prefix(d.name)?.strip_prefix('.')?));
        let (distribution, statistic) = DISTRIBUTIONS.iter().find_map(of)?;
        let statistic = statistic.replace('.', "");
        Some(Self(Kind::Time(distribution, STATISTICS.iter().find(|(s, _)| *s == statistic)?)))
    }

    pub(super) fn dimension(self) -> Dimension {
        match self.0 {
            Kind::Time(..) => Dimension::Time,
            Kind::Plain(plain) => plain.dimension,
        }
    }

    /// Whether it says nothing about a server that stores nothing.
    pub(super) fn is_about_storing(self) -> bool {
        let name = self.to_string();
        ["ledger.", "time_to_durable.", "time_to_delivered.", "idle.", "backlog."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    }

    /// The quantile, when it is one of the response time, of which the send delay is a part.
    pub(crate) fn response_time_quantile(self) -> Option<f64> {
        match self.0 {
            Kind::Time(Distribution { service: Some(_), .. }, (_, Statistic::Quantile(q))) => Some(*q),
            _ => None,
        }
    }

    /// Whether it is about how many events were accepted at all.
    pub(crate) fn is_about_acceptance(self) -> bool {
        let name = self.to_string();
        ["load.", "achieved_"].iter().any(|prefix| name.starts_with(prefix))
    }

    pub(super) fn read(self, result: &TargetResult) -> Reading {
        let missing = || Reading::missing(format!("{self} was not measured"));
        match self.0 {
            Kind::Plain(plain) => (plain.read)(result).map_or_else(missing, Reading::exact),
            Kind::Time(distribution, (name, statistic)) => {
                let reading =
                    (distribution.read)(result).map_or_else(missing, |times| read_times(times, name, *statistic));
                match self.response_time_quantile() {
                    Some(q) => {
                        let least = distribution.least_service(result, q);
                        reading.less_own(result.load.send_delay.quantile_ns(q), least)
                    }
                    None => reading,
                }
            }
        }
    }
}

impl Distribution {
    /// What a response time would have been at least without any send delay: the service time is a part of it. 0 when events that were
    /// never sent are in the one and not in the other.
    fn least_service(&self, result: &TargetResult, q: f64) -> f64 {
        let service = self.service.and_then(|read| read(result));
        let whole = (self.read)(result).map_or(0, |times| times.count);
        service.filter(|service| service.count == whole).map_or(0.0, |service| service.quantile_ns(q))
    }
}

fn read_times(times: &Times, name: &str, statistic: Statistic) -> Reading {
    if times.count == 0 {
        return Reading::missing("there are no samples".to_owned());
    }
    let censored = times.censored + times.overflowed;
    let (value, lower_bound) = match statistic {
        Statistic::Min => (times.min_ns as f64, censored == times.count),
        Statistic::Mean => (times.mean_ns, censored > 0),
        Statistic::Max => (times.max_ns as f64, censored > 0),
        Statistic::Quantile(q) => (times.quantile_ns(q), stats::is_lower_bound(times.count, censored, q)),
    };
    if let Statistic::Quantile(q) = statistic {
        let beyond = stats::samples_beyond(times.count, q);
        if beyond < stats::SAMPLES_BEYOND_TO_JUDGE {
            let sure = times.histogram().map_or(0, |h| h.quantile(stats::quantile_of_lower_confidence(times.count, q)));
            let note = format!(
                "only {} beyond {name} of {}, {} are needed",
                format::counted(beyond, "sample"),
                format::count(times.count),
                stats::SAMPLES_BEYOND_TO_JUDGE
            );
            return Reading::between(Some(value), (sure as f64).min(value), f64::INFINITY, Some(note));
        }
    }
    if lower_bound {
        let note = format!(
            "{name} is only known to be at least this: {} did not finish in time",
            format::counted(censored, "event")
        );
        return Reading::between(Some(value), value, f64::INFINITY, Some(note));
    }
    Reading::exact(value)
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Time(distribution, (statistic, _)) => write!(f, "{}.{statistic}", distribution.name),
            Kind::Plain(plain) => f.write_str(plain.name),
        }
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({self})")
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
