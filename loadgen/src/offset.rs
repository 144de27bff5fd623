//! How the target's clock stands to ours, by the `Date` of its answers.
//!
//! A date is cut to whole seconds, and yet each answer bounds the offset on both sides: it was dated after it was asked for and before it was
//! read (Cristian, *Distributed Computing* 3, 1989), within the second that it names. What all answers allow is what is possible (Marzullo,
//! 1984). Asking around the moments at which the target's second changes narrows that to about the time that an answer takes.

use std::time::Duration;

use reports::model::ClockOffset;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::target::Target;

const SECOND_NS: i64 = 1_000_000_000;
/// Changes of the second that are asked around at most, and how often around each.
const ROUNDS: u32 = 4;
const QUESTIONS: i64 = 15;
/// Narrow enough: no row of a result is shorter than a second, ns.
const WIDTH_NS_ENOUGH: i64 = 2_000_000;
/// The first question of a round is asked this long from now at least, ns.
const LEAD_NS: i64 = 20_000_000;

/// What [`measure`] takes at most, but for answers that are slow.
pub const MEASURING_MAX: Duration = Duration::from_secs(ROUNDS as u64 + 2);

/// Offsets that no answer has ruled out, ns: from, and up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Possible {
    low_ns: i64,
    high_ns: i64,
}

impl Possible {
    /// By one answer, asked for and read at these times of our clock (ns since the Unix epoch).
    fn by(asked_ns: i64, read_ns: i64, date_s: i64) -> Self {
        let second_ns = date_s.saturating_mul(SECOND_NS);
        Self { low_ns: second_ns - read_ns, high_ns: second_ns + SECOND_NS - asked_ns }
    }

    /// What both allow.
    ///
    /// # Errors
    /// With how far they are apart, ns, when they allow nothing.
    fn and(self, other: Self) -> Result<Self, u64> {
        let both = Self { low_ns: self.low_ns.max(other.low_ns), high_ns: self.high_ns.min(other.high_ns) };
        if both.low_ns <= both.high_ns { Ok(both) } else { Err(both.low_ns.abs_diff(both.high_ns)) }
    }

    fn width_ns(self) -> i64 {
        self.high_ns - self.low_ns
    }

    fn middle_ns(self) -> i64 {
        self.low_ns + self.width_ns() / 2
    }

    /// When to ask, by our clock: spread over all the times at which the target's second may change next.
    fn questions(self, now_ns: i64) -> impl Iterator<Item = i64> {
        // The latest offset has the earliest change.
        let next = (now_ns + LEAD_NS + self.high_ns).div_euclid(SECOND_NS) + 1;
        let begin_ns = next * SECOND_NS - self.high_ns;
        (1..=QUESTIONS).map(move |n| begin_ns + self.width_ns() * n / (QUESTIONS + 1))
    }
}

/// How the target's clock stands to `clock`; takes some seconds.
///
/// # Errors
/// Why it cannot be told, in words.
pub async fn measure(target: &Target, clock: Clock) -> Result<ClockOffset, String> {
    let now_ns = || i64::try_from(clock.unix_ns(clock.now_ns())).unwrap_or(i64::MAX);
    let ask = async || {
        let asked_ns = now_ns();
        let date_s = target.shown_date().await?;
        Ok::<_, String>(Possible::by(asked_ns, now_ns(), date_s))
    };
    let contradiction = |apart_ns: u64| {
        format!(
            "its answers are dated by clocks that are at least {:.0?} apart: several servers, or one whose clock was set",
            Duration::from_nanos(apart_ns)
        )
    };
    // The first answer may have waited for a connection.
    ask().await?;
    let mut possible = ask().await?;
    for _ in 0..ROUNDS {
        let before_ns = possible.width_ns();
        for at_ns in possible.questions(now_ns()) {
            sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns()).max(0).unsigned_abs())).await;
            possible = possible.and(ask().await?).map_err(contradiction)?;
        }
        if possible.width_ns() <= WIDTH_NS_ENOUGH || possible.width_ns() > before_ns / 2 {
            break;
        }
    }
    Ok(ClockOffset {
        offset_ns: possible.middle_ns(),
        uncertainty_ns: (possible.width_ns() / 2 + 1).unsigned_abs(),
        source: "date".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clocks_that_contradict_each_other_are_found_out() {
        let of = |offset_ms: i64| {
            let now_ns = 5_500_000_000;
            Possible::by(now_ns, now_ns + 1_000_000, (now_ns + offset_ms * 1_000_000).div_euclid(SECOND_NS))
        };
        assert!(of(0).and(of(300)).is_ok(), "both in the same second");
        assert!(of(0).and(of(3_000)).is_err());
    }

    proptest! {
        /// Whatever the offset, and however long each answer takes on either way: it is among what is possible, and that becomes narrow.
        #[test]
        fn the_true_offset_is_always_possible_and_found_to_a_millisecond(
            offset_ns in -100 * SECOND_NS..100 * SECOND_NS, begin_ns in 0..SECOND_NS, ways in prop::collection::vec((1_000i64..300_000, 1_000i64..300_000), 200),
        ) {
            let mut now_ns = 1_700_000_000 * SECOND_NS + begin_ns;
            let mut ways = ways.into_iter().cycle();
            let mut ask = |at_ns: i64| {
                let (there_ns, back_ns) = ways.next().expect("it has no end");
                let date_s = (at_ns + there_ns + offset_ns).div_euclid(SECOND_NS);
                (Possible::by(at_ns, at_ns + there_ns + back_ns, date_s), at_ns + there_ns + back_ns)
            };
            let mut possible = ask(now_ns).0;
            for _ in 0..ROUNDS {
                for at_ns in possible.questions(now_ns) {
                    let (found, read_ns) = ask(at_ns.max(now_ns));
                    now_ns = read_ns;
                    possible = possible.and(found).expect("one clock");
                    prop_assert!((possible.low_ns..=possible.high_ns).contains(&offset_ns));
                }
            }
            prop_assert!(possible.width_ns() <= WIDTH_NS_ENOUGH, "{} ns wide", possible.width_ns());
        }
    }
}
