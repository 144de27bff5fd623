//! What follows from an attempt: delivered, once more and when, or never again. Pure: the answer and a random number in, the
//! decision out.

use std::time::Duration;

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status, and what `Retry-After` said.
    Status {
        /// 200 to 599.
        status: u16,
        /// As the receiver asked.
        retry_after: Option<Duration>,
    },
    /// No status in time.
    TimedOut,
    /// No connection, or none that lasted until the status.
    NoConnection,
    /// The URL leads to where it must not.
    Refused,
    /// There is no webhook (any more).
    NoWebhook,
}

impl Answer {
    /// A word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status { status: 300..=399, .. } => "redirect",
            Self::Status { status: 429, .. } => "throttled",
            Self::Status { .. } => "status",
            Self::TimedOut => "timeout",
            Self::NoConnection => "no-connection",
            Self::Refused => "address-refused",
            Self::NoWebhook => "no-webhook",
        }
    }
}

/// What to do next about one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, the receiver has it.
    Delivered,
    /// Another attempt after this time, `attempts` having failed.
    Retry {
        /// Failed so far.
        attempts: u32,
        /// From now.
        wait: Duration,
    },
    /// Nothing, it has failed for good.
    DeadLetter,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// About the delivery.
    pub next: Next,
    /// The receiver wants to be left alone for this long: all its deliveries wait.
    pub rest: Option<Duration>,
    /// The receiver is gone for good (410): its webhook is disabled.
    pub gone: bool,
}

/// The numbers of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Attempts in all; 1 or more.
    pub attempts_max: u32,
    /// The wait after the first failure.
    pub wait_first: Duration,
    /// By how much each wait is longer than the one before.
    pub wait_factor: u32,
    /// Where that ends.
    pub wait_max: Duration,
    /// The longest `Retry-After` that is honoured.
    pub retry_after_max: Duration,
}

impl Schedule {
    /// Decides. `failed_before`: attempts that failed before this one; `random`: 0..1, spreads the waits.
    pub fn judge(&self, answer: Answer, failed_before: u32, random: f64) -> Verdict {
        let verdict = |next| Verdict { next, rest: None, gone: false };
        let retry_after = match answer {
            Answer::Status { status: 200..=299, .. } => return verdict(Next::Delivered),
            Answer::Status { status: 410, .. } => return Verdict { gone: true, ..verdict(Next::DeadLetter) },
            Answer::NoWebhook => return verdict(Next::DeadLetter),
            // Too many requests without saying for how long.
            Answer::Status { status: 429, retry_after } => Some(retry_after.unwrap_or(self.wait_first)),
            Answer::Status { status: 503, retry_after } => retry_after,
            _ => None,
        };
        let rest = retry_after.map(|wait| wait.min(self.retry_after_max)).filter(|wait| !wait.is_zero());
        let attempts = failed_before.saturating_add(1);
        let next = match attempts < self.attempts_max {
            true => Next::Retry { attempts, wait: self.wait(attempts, random).max(rest.unwrap_or_default()) },
            false => Next::DeadLetter,
        };
        Verdict { rest, ..verdict(next) }
    }

    /// The wait after so many failures: half to one and a half of the exponential one, so that what failed together does not
    /// come back together.
    fn wait(&self, failed: u32, random: f64) -> Duration {
        let factor = f64::from(self.wait_factor).powi(i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX));
        let longest_s = self.wait_max.as_secs_f64();
        let wait_s = (self.wait_first.as_secs_f64() * factor).min(longest_s);
        Duration::from_secs_f64(wait_s * (0.5 + random.clamp(0.0, 1.0)))
    }
}

/// What `Retry-After` asks for: whole seconds, or a date.
pub fn retry_after(text: &str, now_us: i64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let wait_us = date.timestamp().as_microsecond().saturating_sub(now_us);
    Some(Duration::from_micros(u64::try_from(wait_us).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule() -> Schedule {
        Schedule {
            attempts_max: 5,
            wait_first: Duration::from_secs(5),
            wait_factor: 6,
            wait_max: Duration::from_secs(600),
            retry_after_max: Duration::from_secs(100),
        }
    }

    fn status(status: u16) -> Answer {
        Answer::Status { status, retry_after: None }
    }

    fn asking(status: u16, seconds: u64) -> Answer {
        Answer::Status { status, retry_after: Some(Duration::from_secs(seconds)) }
    }

    fn retry(attempts: u32, seconds: u64) -> Next {
        Next::Retry { attempts, wait: Duration::from_secs(seconds) }
    }

    #[test]
    fn waits_grow_up_to_the_longest_and_the_last_attempt_ends_it() {
        for (failed_before, expected) in
            [(0, retry(1, 5)), (1, retry(2, 30)), (2, retry(3, 180)), (3, retry(4, 600)), (4, Next::DeadLetter)]
        {
            for answer in
                [status(500), status(404), status(302), Answer::TimedOut, Answer::NoConnection, Answer::Refused]
            {
                assert_eq!(
                    schedule().judge(answer, failed_before, 0.5).next,
                    expected,
                    "{answer:?} after {failed_before}"
                );
            }
        }
    }

    #[test]
    fn any_2xx_is_delivered_and_nothing_else_is() {
        for code in 200..600 {
            let delivered = schedule().judge(status(code), 0, 0.5).next == Next::Delivered;
            assert_eq!(delivered, (200..300).contains(&code), "{code}");
        }
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_within_the_bound() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (answer, rest, wait_s) in [
            (asking(429, 20), seconds(20), 20),
            (asking(503, 20), seconds(20), 20),
            (asking(503, 1), seconds(1), 5),
            (asking(429, 1_000_000), seconds(100), 100),
            (status(429), seconds(5), 5),
            (status(503), None, 5),
            (asking(503, 0), None, 5),
            (asking(500, 20), None, 5),
        ] {
            let verdict = schedule().judge(answer, 0, 0.5);
            assert_eq!((verdict.rest, verdict.next), (rest, retry(1, wait_s)), "{answer:?}");
        }
    }

    #[test]
    fn a_receiver_that_is_gone_is_not_asked_again() {
        let verdict = schedule().judge(status(410), 0, 0.5);
        assert_eq!(verdict, Verdict { next: Next::DeadLetter, rest: None, gone: true });
        assert_eq!(schedule().judge(Answer::NoWebhook, 0, 0.5).next, Next::DeadLetter);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now_us = 784_111_777_000_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, expected_s) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("99999999999999999999", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now_us), expected_s.map(Duration::from_secs), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_within_half_of_what_it_should_be(failed in 1u32..1_000, random in 0.0..1.0f64) {
            let expected_s = (5.0 * 6f64.powi(failed as i32 - 1)).min(600.0);
            let wait_s = schedule().wait(failed, random).as_secs_f64();
            prop_assert!((0.5 * expected_s - 1e-6..=1.5 * expected_s + 1e-6).contains(&wait_s));
        }

        #[test]
        fn no_retry_after_makes_it_panic(text in ".{0,40}", now_us: i64) {
            let _ = retry_after(&text, now_us);
        }
    }
}
