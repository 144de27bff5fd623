//! What can be gated: how each metric is read from a round, which way is worse, and what it takes to judge it.

use super::model::{Gated, Metric, Round};
use crate::format;
use crate::stats;

impl Metric {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::ResponseTimeP50,
        Self::ResponseTimeP99,
        Self::ResponseTimeP999,
        Self::Capacity,
        Self::TimeToDurableP50,
        Self::CpuPerEvent,
        Self::MemoryPeak,
        Self::IdleSql,
    ];

    /// Those gated unless told otherwise. The others are too coarse or too rare in a short round: what lies beyond p99.9, and what waits
    /// for a batch.
    pub const DEFAULT: [Self; 6] = [
        Self::ResponseTimeP50,
        Self::ResponseTimeP99,
        Self::Capacity,
        Self::CpuPerEvent,
        Self::MemoryPeak,
        Self::IdleSql,
    ];

    /// As flags write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResponseTimeP50 => "p50",
            Self::ResponseTimeP99 => "p99",
            Self::ResponseTimeP999 => "p99.9",
            Self::Capacity => "capacity",
            Self::TimeToDurableP50 => "durable",
            Self::CpuPerEvent => "cpu",
            Self::MemoryPeak => "memory",
            Self::IdleSql => "idle-sql",
        }
    }

    /// As exports write it: lower case words with hyphens.
    pub fn measure(self) -> &'static str {
        match self {
            Self::ResponseTimeP50 => "response-time-p50",
            Self::ResponseTimeP99 => "response-time-p99",
            Self::ResponseTimeP999 => "response-time-p999",
            Self::Capacity => "capacity",
            Self::TimeToDurableP50 => "time-to-durable-p50",
            Self::CpuPerEvent => "server-cpu-per-event",
            Self::MemoryPeak => "server-memory-peak",
            Self::IdleSql => "sql-statements-idle",
        }
    }

    /// Of [`Metric::value`]: `ns`, `events/s`, `bytes` or `statements`.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Capacity => "events/s",
            Self::MemoryPeak => "bytes",
            Self::IdleSql => "statements",
            _ => "ns",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::ResponseTimeP50 => "response time p50",
            Self::ResponseTimeP99 => "response time p99",
            Self::ResponseTimeP999 => "response time p99.9",
            Self::Capacity => "capacity",
            Self::TimeToDurableP50 => "time to durable p50",
            Self::CpuPerEvent => "CPU per event",
            Self::MemoryPeak => "memory, peak",
            Self::IdleSql => "SQL statements, idle",
        }
    }

    /// The margin unless told otherwise, a share: what two rounds of one program differ by on a shared machine, and a little more.
    pub fn margin_default(self) -> f64 {
        match self {
            Self::ResponseTimeP50 | Self::Capacity | Self::MemoryPeak => 0.05,
            Self::ResponseTimeP99 => 0.08,
            Self::CpuPerEvent => 0.03,
            Self::ResponseTimeP999 | Self::TimeToDurableP50 | Self::IdleSql => 0.2,
        }
    }

    /// With its default margin, required.
    pub fn gated(self) -> Gated {
        Gated { metric: self, margin: self.margin_default(), required: true }
    }

    /// The quantile that it is, of the response time.
    pub fn quantile(self) -> Option<f64> {
        match self {
            Self::ResponseTimeP50 => Some(0.5),
            Self::ResponseTimeP99 => Some(0.99),
            Self::ResponseTimeP999 => Some(0.999),
            _ => None,
        }
    }

    /// As the round has it.
    fn read(self, round: &Round) -> Option<f64> {
        match self {
            Self::ResponseTimeP50 => round.response_time_ns_p50,
            Self::ResponseTimeP99 => round.response_time_ns_p99,
            Self::ResponseTimeP999 => round.response_time_ns_p999,
            Self::Capacity => round.capacity_per_s,
            Self::TimeToDurableP50 => round.time_to_durable_ns_p50,
            Self::CpuPerEvent => round.cpu_ns_per_event,
            Self::MemoryPeak => round.memory_bytes_peak,
            Self::IdleSql => round.idle_sql_statements,
        }
    }

    /// A value that can be one; `None` for what was not measured, and for what no measurement gives (not a number, infinite, negative; 0
    /// where nothing takes no time).
    pub fn value(self, round: &Round) -> Option<f64> {
        let lowest_is_0 = matches!(self, Self::IdleSql | Self::TimeToDurableP50);
        self.read(round).filter(|value| value.is_finite() && (*value > 0.0 || lowest_is_0 && *value == 0.0))
    }

    /// Log ratio of two values, above 0 where the candidate is worse. Of counts, each with one more: from none to one is a doubling and
    /// not a division by 0. A time to durable is coarse to a microsecond, and gets one.
    pub fn ratio_ln(self, baseline: f64, candidate: f64) -> f64 {
        let more = match self {
            Self::IdleSql => 1.0,
            Self::TimeToDurableP50 => 1_000.0,
            _ => 0.0,
        };
        let ratio_ln = (candidate + more).ln() - (baseline + more).ln();
        if self == Self::Capacity { -ratio_ln } else { ratio_ln }
    }

    /// Whether a round has enough samples beyond the quantile to gate it, and none of those at it is a mere lower bound.
    pub fn is_adequate(self, round: &Round) -> bool {
        self.quantile().is_none_or(|q| {
            stats::samples_beyond(round.samples, q) >= stats::SAMPLES_BEYOND_TO_JUDGE
                && !stats::is_lower_bound(round.samples, round.censored, q)
        })
    }

    /// A value as text.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Capacity => format::rate(value),
            Self::MemoryPeak => format::bytes(value),
            Self::IdleSql => format::number(value),
            _ => format::time(value),
        }
    }
}

/// `5.2 % worse`, `3 % better`, `the same`; from a share by which the candidate is worse (−0.5: half of it).
pub fn worse_by(share: f64) -> String {
    match share {
        s if !s.is_finite() => format::UNKNOWN.to_owned(),
        s if s.abs() < 5e-5 => "the same".to_owned(),
        s if s > 0.0 => format!("{} worse", format::percent(s)),
        s => format!("{} better", format::percent(-s)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_0_is_worse_whichever_way_the_metric_goes() {
        for metric in Metric::ALL {
            let worse = if metric == Metric::Capacity { 900.0 } else { 1_100.0 };
            assert!(metric.ratio_ln(1_000.0, worse) > 0.0, "{metric:?}");
            assert_eq!(metric.ratio_ln(1_000.0, worse), -metric.ratio_ln(worse, 1_000.0), "{metric:?}");
            assert_eq!(metric.ratio_ln(7.0, 7.0), 0.0);
        }
        assert_eq!(Metric::IdleSql.ratio_ln(0.0, 0.0), 0.0);
        assert_eq!(Metric::IdleSql.ratio_ln(0.0, 1.0), 2f64.ln());
    }

    #[test]
    fn what_no_measurement_gives_is_no_value() {
        for (value, of_time, of_count) in [
            (f64::NAN, false, false),
            (f64::INFINITY, false, false),
            (-1.0, false, false),
            (0.0, false, true),
            (1.0, true, true),
        ] {
            let round =
                Round { response_time_ns_p50: Some(value), idle_sql_statements: Some(value), ..Round::default() };
            assert_eq!(Metric::ResponseTimeP50.value(&round).is_some(), of_time, "{value}");
            assert_eq!(Metric::IdleSql.value(&round).is_some(), of_count, "{value}");
            assert_eq!(Metric::Capacity.value(&round), None);
        }
    }

    #[test]
    fn a_quantile_needs_a_hundred_samples_beyond_it() {
        let round = |samples, censored| Round { samples, censored, ..Round::default() };
        for (metric, samples, censored, expected) in [
            (Metric::ResponseTimeP99, 10_000, 0, true),
            (Metric::ResponseTimeP99, 9_999, 0, false),
            (Metric::ResponseTimeP99, 10_000, 101, false),
            (Metric::ResponseTimeP999, 99_999, 0, false),
            (Metric::ResponseTimeP999, 100_000, 100, true),
            (Metric::ResponseTimeP50, 199, 0, false),
            (Metric::CpuPerEvent, 0, 0, true),
        ] {
            assert_eq!(metric.is_adequate(&round(samples, censored)), expected, "{metric:?} {samples} {censored}");
        }
    }

    #[test]
    fn names_are_those_that_flags_and_files_write() {
        let mut names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
        assert_eq!([0.05, -0.03, 0.00001].map(worse_by), ["5 % worse", "3 % better", "the same"]);
    }
}
