//! What the numbers of a plan may be: every limit with its unit and its range, for flags and for files.

use std::fmt;
use std::str::FromStr;

use super::PlanError;
use super::check::wrong;
use super::spelling::Span;
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};

/// A range with its unit, both ends allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit<T> {
    /// Smallest.
    pub min: T,
    /// Largest.
    pub max: T,
    /// What is counted, in the plural.
    pub unit: &'static str,
}

/// `--rate`: beyond the highest one sending thread cannot be honest.
pub const RATE: Limit<f64> = Limit { min: 0.1, max: 200_000.0, unit: "events/s" };
/// `--rate` of a load that is shared out: each generator walks through all of the schedule to find what is its own.
pub const RATE_SHARED_MAX: f64 = 2_000_000.0;
/// `--replay-speed`
pub const REPLAY_SPEED: Limit<f64> = Limit { min: 0.001, max: 1_000.0, unit: "times as fast" };
/// `--sender-nice`
pub const SENDER_NICE: Limit<i32> = Limit { min: -20, max: 0, unit: "(niceness)" };
/// `--connections`
pub const CONNECTIONS: Limit<u32> = Limit { min: 1, max: 10_000, unit: "connections" };
/// `--streams`
pub const STREAMS: Limit<u32> = Limit { min: 1, max: 1_000, unit: "streams" };
/// `--batch-events`: what the contract allows.
pub const BATCH_EVENTS: Limit<u32> = Limit { min: 1, max: 1_000, unit: "events" };
/// `--payload-bytes`
pub const PAYLOAD_BYTES: Limit<u32> = Limit { min: PAYLOAD_BYTES_MIN, max: PAYLOAD_BYTES_MAX, unit: "bytes" };
/// `--duplicates-share`
pub const DUPLICATES_SHARE: Limit<f64> = Limit { min: 0.0, max: 0.9, unit: "of all events" };
/// `--otlp-share`
pub const OTLP_SHARE: Limit<f64> = Limit { min: 0.0, max: 1.0, unit: "of all requests" };
/// `--organizations`
pub const ORGANIZATIONS: Limit<u32> = Limit { min: 1, max: 10_000, unit: "organisations" };
/// `--repeat`
pub const REPEAT: Limit<u32> = Limit { min: 1, max: 1_000, unit: "repetitions" };
/// `--ledger-events-max`
pub const LEDGER_EVENTS: Limit<u64> = Limit { min: 1, max: 1_000_000_000, unit: "events" };
/// `--seed`
pub const SEED: Limit<u64> = Limit { min: 0, max: u64::MAX, unit: "as a whole number" };

/// Shortest steady phase, and shortest step in one, ms.
pub(super) const PHASE_MS_MIN: u64 = 100;
/// Longest phase: a day.
const PHASE_MS_MAX: u64 = 24 * 3_600_000;

impl<T: PartialOrd + fmt::Display + FromStr + Copy + Send + Sync + 'static> Limit<T> {
    /// Reads the number of a flag whose range is checked later, with that of the file's.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(self) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
        move |text: &str| text.trim().parse().map_err(|_| self.told("is no number that fits"))
    }

    /// Reads the number of a flag that no file has.
    ///
    /// # Errors
    /// When it is no number, or out of the range.
    pub fn within(self) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
        let number = self.number();
        move |text: &str| {
            number(text).and_then(|value| if self.has(value) { Ok(value) } else { Err(self.told("is out of range")) })
        }
    }

    /// The value, if it is in the range.
    pub(super) fn check(self, key: &'static str, value: T) -> Result<T, PlanError> {
        if self.has(value) {
            return Ok(value);
        }
        Err(wrong(key, value, format!("is out of range; allowed: {self}"), REMEDY))
    }

    fn has(self, value: T) -> bool {
        value >= self.min && value <= self.max
    }

    fn told(self, problem: &str) -> String {
        format!("{problem}; allowed: {self}; {REMEDY}")
    }
}

/// A length of time as ms; at least `min_ms`.
pub(super) fn milliseconds(
    key: &'static str,
    span: Option<Span>,
    default_ms: u64,
    min_ms: u64,
) -> Result<u64, PlanError> {
    let ms = span.map_or(default_ms, |Span(span)| span.as_millis() as u64);
    Limit { min: min_ms, max: PHASE_MS_MAX, unit: "ms" }.check(key, ms)
}

const REMEDY: &str = "choose a value in that range";

impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} {}", self.min, self.max, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_or_out_of_range_is_told_the_range_and_what_to_do() {
        let within = RATE.within();
        assert_eq!((within("0.1"), within(" 200000 ")), (Ok(0.1), Ok(200_000.0)));
        let rest = "; allowed: 0.1 to 200000 events/s; choose a value in that range";
        for (text, problem) in [
            ("", "is no number that fits"),
            ("fast", "is no number that fits"),
            ("0", "is out of range"),
            ("200001", "is out of range"),
            ("NaN", "is out of range"),
        ] {
            assert_eq!(within(text), Err(format!("{problem}{rest}")), "{text}");
        }
        assert_eq!(CONNECTIONS.number()("0"), Ok(0), "a file's range is checked with a flag's");
        assert!(CONNECTIONS.number()("-1").is_err() && CONNECTIONS.number()("1.5").is_err());
    }
}
