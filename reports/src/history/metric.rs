//! What is followed over time, and how it is read from a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::export::is_known;
use crate::model::{Capacity, TargetResult};
use crate::stats::{self, Spread};
use crate::summary::{self, Group};

/// One number of a run that is followed over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median of the response time, ns.
    ResponseTimeP50,
    /// Quantile 0.99 of it, ns.
    ResponseTimeP99,
    /// Quantile 0.99 of acknowledged → persisted, ns.
    TimeToDurableP99,
    /// Highest rate at which everything held, per second; of a search for it.
    Capacity,
    /// Accepted events per second.
    AchievedRate,
    /// Events lost or duplicated, of all repetitions together.
    LostOrDuplicated,
    /// CPU time of the server per accepted event, ns.
    CpuPerEvent,
    /// Largest resident memory of the server, bytes.
    MemoryPeak,
    /// SQL statements per hour while idle.
    IdleSql,
    /// Quantile 0.99 of the send delay, ns: the generator's own fault.
    SendDelayP99,
}

impl Metric {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::ResponseTimeP50,
        Self::ResponseTimeP99,
        Self::TimeToDurableP99,
        Self::Capacity,
        Self::AchievedRate,
        Self::LostOrDuplicated,
        Self::CpuPerEvent,
        Self::MemoryPeak,
        Self::IdleSql,
        Self::SendDelayP99,
    ];

    /// In words, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::ResponseTimeP50 => "response time p50",
            Self::ResponseTimeP99 => "response time p99",
            Self::TimeToDurableP99 => "time to durable p99",
            Self::Capacity => "capacity",
            Self::AchievedRate => "achieved rate",
            Self::LostOrDuplicated => "lost or duplicated",
            Self::CpuPerEvent => "server CPU per event",
            Self::MemoryPeak => "server memory, peak",
            Self::IdleSql => "SQL statements per idle hour",
            Self::SendDelayP99 => "send delay p99",
        }
    }

    /// As [`crate::format::in_unit`] knows it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::ResponseTimeP50
            | Self::ResponseTimeP99
            | Self::TimeToDurableP99
            | Self::CpuPerEvent
            | Self::SendDelayP99 => "ns",
            Self::Capacity | Self::AchievedRate => "per_s",
            Self::MemoryPeak => "bytes",
            Self::IdleSql => "per_hour",
            Self::LostOrDuplicated => "events",
        }
    }

    /// Whether more of it is worse.
    pub fn is_worse_above(self) -> bool {
        !matches!(self, Self::Capacity | Self::AchievedRate)
    }

    /// Of one variant: median, smallest and largest of its repetitions. `None`: not measured, too few samples, or only known to be at least
    /// something.
    pub(super) fn read(self, group: &Group<'_>) -> Option<Spread> {
        match self {
            Self::ResponseTimeP50 => quantile(group, summary::response_time, 0.5),
            Self::ResponseTimeP99 => quantile(group, summary::response_time, 0.99),
            Self::TimeToDurableP99 => quantile(group, summary::time_to_durable, 0.99),
            Self::SendDelayP99 => quantile(group, summary::send_delay, 0.99),
            Self::AchievedRate => group.spread(|r| Some(r.load.achieved_per_s).filter(|_| r.load.planned > 0)),
            Self::CpuPerEvent => group.spread(|r| r.cpu_ns_per_event(r.resources.server_cpu_s)),
            Self::MemoryPeak => group.spread(|r| r.resources.server_rss_peak_bytes.map(|bytes| bytes as f64)),
            Self::IdleSql => group.spread(|r| r.idle.as_ref()?.sql_statements_per_hour),
            Self::LostOrDuplicated => {
                let faults = |r: &&TargetResult| r.ledger.as_ref().map(|ledger| ledger.lost + ledger.duplicated);
                let found: Vec<u64> = group.results.iter().filter_map(faults).collect();
                let sum = found.iter().sum::<u64>() as f64;
                stats::spread(if found.is_empty() { &[] } else { std::slice::from_ref(&sum) })
            }
            Self::Capacity => None,
        }
    }

    /// Of a search for a capacity: all other numbers are of the rates that it happened to try.
    pub(super) fn read_search(found: &Capacity) -> Option<Spread> {
        found.rate_per_s.filter(|_| found.limit.is_none()).and_then(|rate| stats::spread(&[rate]))
    }
}

fn quantile(group: &Group<'_>, read: summary::ReadTimes, q: f64) -> Option<Spread> {
    group.spread(|r| read(r).filter(|times| is_known(times, q)).map(|times| times.quantile_ns(q)))
}
