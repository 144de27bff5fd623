//! When a load begins that several generators offer together (`--start-at`): by the target's clock, as far as it can be read, so that they
//! begin together although their own clocks differ.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use reports::model::{self, ClockOffset, Plan};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::offset;
use crate::plan::PlanError;
use crate::plan::spelling::Span;
use crate::shard::Shard;
use crate::target::Target;

/// A start may be this far away at most.
pub const AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// Further apart than this, two clocks are not off but wrong.
pub const OFFSET_MAX: Duration = Duration::from_secs(60);
/// Connections are opened this long before the warm-up, and so much earlier for each of them: a server closes those that stay silent.
const OPENING: Duration = Duration::from_secs(2);
const OPENING_EACH: Duration = Duration::from_millis(1);
/// How often a wait looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The begin of a steady phase, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedStart {
    /// Then.
    At(Timestamp),
    /// That long from now, at the next moment that is a multiple of it since the Unix epoch: the same for all who ask at nearly the same time.
    In(Duration),
}

impl FromStr for AskedStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || {
            format!(
                "'{text}' is no time; allowed: RFC 3339, such as 2026-11-24T16:00:00Z, or a length from now, such as +30s"
            )
        };
        match text.trim().strip_prefix('+') {
            Some(length) => match length.parse() {
                Ok(Span(length)) if length >= Duration::from_secs(1) && length.subsec_nanos() == 0 => {
                    Ok(Self::In(length))
                }
                _ => Err(format!("{}, in whole seconds", told())),
            },
            None => text.trim().parse().map(Self::At).map_err(|_| told()),
        }
    }
}

impl AskedStart {
    /// The instant, if everything that comes before it can be done until then; `first` is how long something else takes before that.
    ///
    /// # Errors
    /// When it has passed, is too far away, or too near.
    pub fn of(self, plan: &Plan, first: Duration, now: Timestamp) -> Result<Timestamp, PlanError> {
        let at = self.instant(now);
        let ahead = at.duration_since(now);
        let refuse = |problem: String, remedy: &str| {
            Err(PlanError::Value { key: "--start-at", value: at.to_string(), problem, remedy: remedy.to_owned() })
        };
        if ahead.is_negative() {
            return refuse("has passed".to_owned(), "give a time to come, the same to all parts");
        }
        if ahead.unsigned_abs() > AHEAD_MAX {
            let problem = format!("is more than {} h away", AHEAD_MAX.as_secs() / 3_600);
            return refuse(problem, "give an earlier time to all parts");
        }
        let needed = first + preparation(plan) + Duration::from_millis(plan.warmup_ms);
        if ahead.unsigned_abs() < needed {
            let (ahead, needed) = (ahead.as_secs(), needed.as_secs_f64().ceil());
            let problem = format!("is {ahead} s away, and what comes before it takes up to {needed} s");
            let remedy =
                "give a later time to all parts, or leave out what takes long (--no-calibration, a shorter --warmup)";
            return refuse(problem, remedy);
        }
        Ok(at)
    }

    /// The instant.
    fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::In(length) => {
                let every_s = length.as_secs() as i64;
                let from_s = now.as_second().saturating_add(every_s);
                Timestamp::from_second((from_s.div_euclid(every_s) + 1).saturating_mul(every_s))
                    .unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// How long it takes at most until a warm-up can begin, without a calibration.
fn preparation(plan: &Plan) -> Duration {
    offset::MEASURING_MAX + OPENING + OPENING_EACH * plan.connections
}

/// Ready to begin, at the right time.
#[derive(Debug)]
pub struct Meeting {
    /// When the warm-up begins, by this machine's clock, ns since the Unix epoch.
    pub begin_unix_ns: u64,
    /// That clock against the target's, or why that is not known.
    pub clock: Result<ClockOffset, String>,
}

/// Why a load cannot begin when it should.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The moment has passed.
    #[error(
        "--start-at = {at}: this generator was ready {late:.1?} after its warm-up should have begun; give a later time"
    )]
    Late {
        /// Asked for.
        at: Timestamp,
        /// By how much.
        late: Duration,
    },
    /// A clock that is wrong.
    #[error(
        "this machine's clock is {0:.1?} off the target's; allowed: {OFFSET_MAX:?}; set the one that is wrong (by NTP, say)"
    )]
    WrongClock(Duration),
}

/// Reads the target's clock, and waits until it is time to open connections for a steady phase that begins `at`, or until `stop`.
///
/// # Errors
/// When it is too late for that, or one of the clocks is wrong.
pub async fn meet(target: &Target, plan: &Plan, at: Timestamp, stop: &Arc<AtomicBool>) -> Result<Meeting, StartError> {
    let clock = Clock::start();
    let measured = offset::measure(target, clock).await;
    let offset_ns = measured.as_ref().map_or(0, |measured| measured.offset_ns);
    if offset_ns.unsigned_abs() > OFFSET_MAX.as_nanos() as u64 {
        return Err(StartError::WrongClock(Duration::from_nanos(offset_ns.unsigned_abs())));
    }
    let begin_ns = at.as_nanosecond() - i128::from(plan.warmup_ms) * 1_000_000 - i128::from(offset_ns);
    let now_ns = || i128::from(clock.unix_ns(clock.now_ns()));
    if begin_ns <= now_ns() {
        return Err(StartError::Late { at, late: Duration::from_nanos((now_ns() - begin_ns) as u64) });
    }
    let opening_ns = begin_ns - (OPENING + OPENING_EACH * plan.connections).as_nanos() as i128;
    while now_ns() < opening_ns && !stop.load(Ordering::Relaxed) {
        sleep(LOOK_EVERY.min(Duration::from_nanos((opening_ns - now_ns()).max(0) as u64))).await;
    }
    Ok(Meeting { begin_unix_ns: begin_ns as u64, clock: measured })
}

/// Of a part of a load that has not met the others.
pub fn unmet(shard: Shard, start_at: Timestamp) -> model::Shard {
    model::Shard {
        number: shard.number,
        count: shard.count,
        host: host(),
        start_at: start_at.to_string(),
        steady_began_at: None,
        clock: None,
        clock_unknown: None,
        last_read_at: None,
    }
}

/// Name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// An instant of `clock` as RFC 3339.
pub fn time_of_day(clock: Clock, ns: u64) -> Option<String> {
    Timestamp::from_nanosecond(i128::from(clock.unix_ns(ns))).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_an_instant_or_a_length_from_now_that_is_rounded_up() {
        let at = |text: &str| text.parse::<Timestamp>().expect(text);
        let now = at("2026-11-24T15:59:41.2Z");
        for (text, expected) in [
            ("2026-11-24T16:00:00Z", "2026-11-24T16:00:00Z"),
            ("2026-11-24T17:00:00+01:00", "2026-11-24T16:00:00Z"),
            ("+30s", "2026-11-24T16:00:30Z"),
            ("+1m", "2026-11-24T16:01:00Z"),
        ] {
            let asked: AskedStart = text.parse().expect(text);
            assert_eq!(asked.instant(now), at(expected), "{text}");
        }
        assert_eq!(AskedStart::In(Duration::from_secs(i64::MAX as u64)).instant(now), Timestamp::MAX);
        for text in ["", "soon", "16:00", "+", "+0s", "+1500ms", "30s"] {
            let told = text.parse::<AskedStart>().expect_err(text);
            assert!(told.contains("allowed: RFC 3339"), "{told}");
        }
    }

    #[test]
    fn whoever_asks_a_little_later_is_given_the_same_start() {
        let begin = Timestamp::from_second(1_764_000_000).expect("a time");
        let all: std::collections::BTreeSet<Timestamp> = (0..29)
            .map(|second| AskedStart::In(Duration::from_secs(30)).instant(begin + Duration::from_secs(second)))
            .collect();
        assert_eq!(all.len(), 1, "{all:?}");
    }
}
