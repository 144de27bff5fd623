//! When the processor looks for work: a state machine without a clock, so that the whole schedule is a table in a test.
//!
//! It is told what each poll found and says how long to wait, whether an arrival may cut that wait, and when deep idle begins
//! and ends. Not here: the waiting, the looking, and the logging (all the processor's).

use std::time::Duration;

use crate::config::Polling;

/// The numbers of the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// `fixed`: the wait after every poll that didn't come back full.
    pub fixed_interval: Duration,
    /// The first wait, and the one after any event; each further empty poll doubles it.
    pub base_interval: Duration,
    /// Where the doubling ends.
    pub backoff_interval_max: Duration,
    /// The empty poll in a row from which on the wait is `deep_idle_interval`; 1 or more.
    pub deep_idle_after_polls: u32,
    /// The wait in deep idle.
    pub deep_idle_interval: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            fixed_interval: Duration::from_secs(2),
            base_interval: Duration::from_millis(100),
            backoff_interval_max: Duration::from_secs(2),
            deep_idle_after_polls: 10,
            deep_idle_interval: Duration::from_secs(30),
        }
    }
}

/// A schedule that no poller can keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A wait of nothing would poll without end.
    #[error("the poll interval '{0}' is zero: give at least 1ms")]
    Zero(&'static str),
    /// The waits must not shrink while nothing comes.
    #[error(
        "the poll interval '{shorter}' is shorter than '{longer}', which comes before it: make it the same or longer"
    )]
    Shrinks {
        /// The later one.
        shorter: &'static str,
        /// The earlier one.
        longer: &'static str,
    },
    /// Deep idle would begin before the first poll.
    #[error("deep idle cannot begin after 0 empty polls: give 1 or more")]
    DeepIdleAtOnce,
}

impl Schedule {
    /// Checks that the waits are there and never shrink.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        let named = [
            ("fixed", self.fixed_interval),
            ("base", self.base_interval),
            ("backoff maximum", self.backoff_interval_max),
            ("deep idle", self.deep_idle_interval),
        ];
        if let Some((name, _)) = named.iter().find(|(_, interval)| interval.is_zero()) {
            return Err(ScheduleError::Zero(name));
        }
        for pair in named[1..].windows(2) {
            if pair[1].1 < pair[0].1 {
                return Err(ScheduleError::Shrinks { shorter: pair[1].0, longer: pair[0].0 });
            }
        }
        if self.deep_idle_after_polls == 0 {
            return Err(ScheduleError::DeepIdleAtOnce);
        }
        Ok(())
    }
}

/// What a poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// Nothing.
    Empty,
    /// Less than a batch.
    Partial,
    /// A whole batch: there may be more.
    Full,
}

impl Found {
    /// What a batch of `count` events is, of at most `count_max`.
    pub fn of(count: usize, count_max: usize) -> Self {
        match count {
            0 => Self::Empty,
            count if count < count_max => Self::Partial,
            _ => Self::Full,
        }
    }

    /// The label's value in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// A change that is logged, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// So many polls in a row found nothing that the wait is now the longest.
    EnteredDeepIdle,
    /// Something came.
    LeftDeepIdle,
}

/// What to do after a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Zero: poll again at once.
    pub wait: Duration,
    /// Whether an arrival ends the wait.
    pub wakes_on_arrival: bool,
    /// What to log.
    pub change: Option<Change>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Poller {
    policy: Polling,
    schedule: Schedule,
    /// Empty polls in a row.
    empty_polls: u32,
}

impl Poller {
    /// A poller that has not polled yet.
    pub fn new(policy: Polling, schedule: Schedule) -> Self {
        Self { policy, schedule, empty_polls: 0 }
    }

    /// Whether each cycle begins with a COUNT (the old way); else the depth is asked for only when a batch came back full.
    pub fn counts_every_cycle(&self) -> bool {
        self.policy == Polling::Fixed
    }

    /// Whether the wait is the longest.
    pub fn deep_idle(&self) -> bool {
        self.policy != Polling::Fixed && self.empty_polls >= self.schedule.deep_idle_after_polls
    }

    /// A poll has ended.
    pub fn polled(&mut self, found: Found) -> Next {
        let was_deep_idle = self.deep_idle();
        self.empty_polls = if found == Found::Empty { self.empty_polls.saturating_add(1) } else { 0 };
        let change = match (was_deep_idle, self.deep_idle()) {
            (false, true) => Some(Change::EnteredDeepIdle),
            (true, false) => Some(Change::LeftDeepIdle),
            _ => None,
        };
        let wait = if found == Found::Full { Duration::ZERO } else { self.interval() };
        // A wait of the base interval is not worth cutting: under load that would be a wake-up for each event.
        let wakes_on_arrival = self.policy == Polling::Wake && wait > self.schedule.base_interval;
        Next { wait, wakes_on_arrival, change }
    }

    /// The wait after the empty polls so far.
    fn interval(&self) -> Duration {
        if self.policy == Polling::Fixed {
            return self.schedule.fixed_interval;
        }
        if self.deep_idle() {
            return self.schedule.deep_idle_interval;
        }
        let doublings = self.empty_polls.saturating_sub(1);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.schedule.base_interval.saturating_mul(factor).min(self.schedule.backoff_interval_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn waits_ms(policy: Polling, polls: &[Found]) -> Vec<u128> {
        let mut poller = Poller::new(policy, Schedule::default());
        polls.iter().map(|found| poller.polled(*found).wait.as_millis()).collect()
    }

    #[test]
    fn the_waits_of_each_policy_are_exactly_these() {
        use Found::{Empty, Full, Partial};
        let idle = [Empty; 12];
        let adaptive = [100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000, 30_000, 30_000, 30_000];
        for (policy, polls, waits) in [
            (Polling::Fixed, &idle[..], vec![2000; 12]),
            (Polling::Adaptive, &idle, adaptive.to_vec()),
            (Polling::Wake, &idle, adaptive.to_vec()),
            (Polling::Adaptive, &[Empty, Empty, Empty, Partial, Empty, Empty], vec![100, 200, 400, 100, 100, 200]),
            (
                Polling::Adaptive,
                &[Empty, Empty, Full, Full, Partial, Empty, Empty],
                vec![100, 200, 0, 0, 100, 100, 200],
            ),
            (Polling::Fixed, &[Full, Partial, Empty, Full], vec![0, 2000, 2000, 0]),
        ] {
            assert_eq!(waits_ms(policy, polls), waits, "{policy:?} {polls:?}");
        }
    }

    #[test]
    fn deep_idle_is_entered_and_left_once() {
        for policy in [Polling::Adaptive, Polling::Wake] {
            let mut poller = Poller::new(policy, Schedule::default());
            let changes: Vec<_> = (0..30).map(|_| poller.polled(Found::Empty).change).collect();
            assert_eq!(changes.iter().flatten().collect::<Vec<_>>(), [&Change::EnteredDeepIdle]);
            assert_eq!(changes[9], Some(Change::EnteredDeepIdle), "at the tenth empty poll");
            assert!(poller.deep_idle());
            assert_eq!(poller.polled(Found::Partial).change, Some(Change::LeftDeepIdle));
            assert_eq!(poller.polled(Found::Partial).change, None);
        }
        let mut fixed = Poller::new(Polling::Fixed, Schedule::default());
        assert!((0..30).all(|_| fixed.polled(Found::Empty).change.is_none()), "fixed has no deep idle");
    }

    #[test]
    fn only_wake_lets_an_arrival_cut_a_wait_and_only_one_longer_than_the_base() {
        for (policy, wanted) in [
            (Polling::Fixed, [false, false, false]),
            (Polling::Adaptive, [false, false, false]),
            (Polling::Wake, [false, true, true]),
        ] {
            let mut poller = Poller::new(policy, Schedule::default());
            assert_eq!([0; 3].map(|_| poller.polled(Found::Empty).wakes_on_arrival), wanted, "{policy:?}");
            assert!(!poller.polled(Found::Partial).wakes_on_arrival, "under load the cadence is the base interval");
        }
    }

    #[test]
    fn only_fixed_counts_in_every_cycle() {
        for (policy, wanted) in [(Polling::Fixed, true), (Polling::Adaptive, false), (Polling::Wake, false)] {
            assert_eq!(Poller::new(policy, Schedule::default()).counts_every_cycle(), wanted);
        }
    }

    #[test]
    fn a_schedule_that_cannot_be_kept_is_refused_with_a_remedy() {
        let good = Schedule::default();
        assert_eq!(good.validate(), Ok(()));
        let zero = Schedule { base_interval: Duration::ZERO, ..good.clone() };
        let shrinks = Schedule { backoff_interval_max: ms(50), ..good.clone() };
        let shallow = Schedule { deep_idle_interval: ms(1999), ..good.clone() };
        let at_once = Schedule { deep_idle_after_polls: 0, ..good };
        for (schedule, words) in
            [(zero, "'base' is zero"), (shrinks, "'backoff maximum'"), (shallow, "'deep idle'"), (at_once, "1 or more")]
        {
            let error = schedule.validate().expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    fn any_found() -> impl Strategy<Value = Found> {
        prop_oneof![3 => Just(Found::Empty), 1 => Just(Found::Partial), 1 => Just(Found::Full)]
    }

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        (1..10_000_u64, 1..10_000_u64, 0..10_000_u64, 1..200_u32, 0..100_000_u64).prop_map(
            |(fixed, base, further, after, deeper)| Schedule {
                fixed_interval: ms(fixed),
                base_interval: ms(base),
                backoff_interval_max: ms(base + further),
                deep_idle_after_polls: after,
                deep_idle_interval: ms(base + further + deeper),
            },
        )
    }

    proptest! {
        #[test]
        fn while_nothing_comes_the_waits_never_shrink_and_stay_in_their_bounds(schedule in any_schedule(), polls in 1..400_usize) {
            prop_assert_eq!(schedule.validate(), Ok(()));
            let mut poller = Poller::new(Polling::Adaptive, schedule.clone());
            let waits: Vec<_> = (0..polls).map(|_| poller.polled(Found::Empty).wait).collect();
            prop_assert!(waits.is_sorted());
            prop_assert!(waits.iter().all(|wait| (schedule.base_interval..=schedule.deep_idle_interval).contains(wait)));
        }

        #[test]
        fn any_event_leads_back_to_the_base_interval(schedule in any_schedule(), polls in prop::collection::vec(any_found(), 0..300)) {
            let mut poller = Poller::new(Polling::Wake, schedule.clone());
            for found in polls {
                let next = poller.polled(found);
                prop_assert_eq!(next.wait.is_zero(), found == Found::Full);
                if found == Found::Partial {
                    prop_assert_eq!(next.wait, schedule.base_interval);
                    prop_assert!(!poller.deep_idle());
                }
            }
            prop_assert_eq!(poller.polled(Found::Partial).wait, schedule.base_interval);
        }

        #[test]
        fn entering_and_leaving_deep_idle_alternate(polls in prop::collection::vec(any_found(), 0..300)) {
            let schedule = Schedule { deep_idle_after_polls: 3, ..Schedule::default() };
            let mut poller = Poller::new(Polling::Adaptive, schedule);
            let changes: Vec<_> = polls.into_iter().filter_map(|found| poller.polled(found).change).collect();
            for (number, change) in changes.iter().enumerate() {
                let wanted = if number % 2 == 0 { Change::EnteredDeepIdle } else { Change::LeftDeepIdle };
                prop_assert_eq!(*change, wanted);
            }
        }
    }
}
