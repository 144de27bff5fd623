//! Whose delivery goes next: a pure state machine over receivers and slots, without clock, network or database.
//!
//! A slot is one attempt under way. Receivers (one for each organisation) take slots in turns, one at a time, so a backlog of one
//! of them never stands before another's first event. How many slots one may hold follows from how it does: its window grows by
//! one with each quick answer, and is halved by each failure. Receivers that fail hold at most half of all slots together,
//! however many they are: what answers is never kept waiting by what does not. A receiver that asked for time takes no turn
//! until it is over.
//!
//! Times are microseconds since the epoch, as in the store.

use std::collections::{BTreeSet, HashMap, VecDeque};

use uuid::Uuid;

/// The window of a receiver of which nothing is known.
const WINDOW_FIRST: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Turns {
    slots_max: usize,
    window_max: usize,
    running: usize,
    /// Of those, held by receivers that fail.
    running_failing: usize,
    receivers: HashMap<Uuid, Receiver>,
    /// Receivers that could take a slot, the next one in front; each is here once.
    queue: VecDeque<Uuid>,
    /// When to look at a receiver again.
    alarms: BTreeSet<(i64, Uuid)>,
}

#[derive(Debug)]
struct Receiver {
    window: usize,
    running: usize,
    failing: bool,
    /// There may be something due for it.
    more: bool,
    queued: bool,
    rests_until_us: i64,
}

/// How a receiver did in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered as it should, and at once.
    Well,
    /// It failed, or made this server wait.
    Ill,
    /// It answered as it should, and took its time: it gets no more slots than it has.
    Slow,
    /// Nothing was asked of it.
    Unknown,
}

impl Turns {
    /// With so many slots, of which one receiver may hold `window_max`; both 1 or more.
    pub fn new(slots_max: usize, window_max: usize) -> Self {
        Self {
            slots_max: slots_max.max(1),
            window_max: window_max.max(1),
            running: 0,
            running_failing: 0,
            receivers: HashMap::new(),
            queue: VecDeque::new(),
            alarms: BTreeSet::new(),
        }
    }

    /// There may be something due for this receiver.
    pub fn heard(&mut self, id: Uuid) {
        let window = WINDOW_FIRST.min(self.window_max);
        let fresh = Receiver { window, running: 0, failing: false, more: false, queued: false, rests_until_us: 0 };
        self.receivers.entry(id).or_insert(fresh).more = true;
        self.enqueue(id);
    }

    /// Something will be due for this receiver then.
    pub fn alarm(&mut self, at_us: i64, id: Uuid) {
        self.alarms.insert((at_us, id));
    }

    /// When [`Turns::next`] should be asked although nothing else has happened.
    pub fn wake_at_us(&self) -> Option<i64> {
        self.alarms.first().map(|(at_us, _)| *at_us)
    }

    /// Slots in use.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Hands out free slots: how many each receiver gets now. They are in use from here on.
    pub fn next(&mut self, now_us: i64) -> Vec<(Uuid, usize)> {
        while let Some((at_us, id)) = self.alarms.first().copied().filter(|(at_us, _)| *at_us <= now_us) {
            self.alarms.remove(&(at_us, id));
            self.heard(id);
        }
        let mut given: Vec<(Uuid, usize)> = Vec::new();
        let mut set_aside = Vec::new();
        while self.running < self.slots_max
            && let Some(id) = self.queue.pop_front()
        {
            let failing_full = self.running_failing >= (self.slots_max / 2).max(1);
            let Some(receiver) = self.receivers.get_mut(&id) else { continue };
            receiver.queued = false;
            // Since it was queued it may have had nothing more, or its window may have shrunk.
            if !receiver.more || receiver.running >= receiver.window {
                self.leave(id, 0);
                continue;
            }
            if receiver.rests_until_us > now_us {
                self.alarms.insert((receiver.rests_until_us, id));
                continue;
            }
            receiver.rests_until_us = 0;
            if receiver.failing && failing_full {
                set_aside.push(id);
                continue;
            }
            receiver.running += 1;
            self.running += 1;
            self.running_failing += usize::from(receiver.failing);
            match given.iter_mut().find(|(other, _)| *other == id) {
                Some((_, count)) => *count += 1,
                None => given.push((id, 1)),
            }
            self.enqueue(id);
        }
        set_aside.into_iter().for_each(|id| self.enqueue(id));
        given
    }

    /// A claim for so many of [`Turns::next`] has found so many. Finding fewer means that no more are due.
    pub fn claimed(&mut self, id: Uuid, asked: usize, found: usize) {
        if let Some(receiver) = self.receivers.get_mut(&id)
            && found < asked
        {
            receiver.more = false;
            self.leave(id, asked - found);
        }
    }

    /// The claim for so many of [`Turns::next`] could not be made.
    pub fn unclaimed(&mut self, id: Uuid, asked: usize) {
        self.leave(id, asked);
        self.enqueue(id);
    }

    /// An attempt is over and written down; the receiver wants to be left alone until then, if at all.
    pub fn finished(&mut self, id: Uuid, health: Health, rests_until_us: Option<i64>) {
        let window_max = self.window_max;
        if let Some(receiver) = self.receivers.get_mut(&id) {
            let was_failing = receiver.failing;
            match health {
                Health::Well => receiver.window = (receiver.window + 1).min(window_max),
                Health::Ill => receiver.window = (receiver.window / 2).max(1),
                Health::Slow | Health::Unknown => {}
            }
            receiver.failing = match health {
                Health::Well | Health::Slow => false,
                Health::Ill => true,
                Health::Unknown => was_failing,
            };
            receiver.rests_until_us = receiver.rests_until_us.max(rests_until_us.unwrap_or(0));
            let (before, now) = (usize::from(was_failing), usize::from(receiver.failing));
            self.running_failing = self.running_failing + receiver.running * now - receiver.running * before;
        }
        self.leave(id, 1);
        self.enqueue(id);
    }

    /// Gives slots back, and forgets a receiver of which there is nothing to remember.
    fn leave(&mut self, id: Uuid, count: usize) {
        let Some(receiver) = self.receivers.get_mut(&id) else { return };
        receiver.running -= count;
        self.running -= count;
        if receiver.failing {
            self.running_failing -= count;
        }
        let idle = receiver.running == 0 && !receiver.more && !receiver.queued;
        if idle && !receiver.failing && receiver.rests_until_us == 0 {
            self.receivers.remove(&id);
        }
    }

    fn enqueue(&mut self, id: Uuid) {
        if let Some(receiver) = self.receivers.get_mut(&id)
            && receiver.more
            && !receiver.queued
            && receiver.running < receiver.window
        {
            receiver.queued = true;
            self.queue.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Hands out slots, all of which find something; how many each of the receivers 0.. got.
    fn served(turns: &mut Turns, receivers: usize, now_us: i64) -> Vec<usize> {
        let mut counts = vec![0; receivers];
        for (receiver, count) in turns.next(now_us) {
            turns.claimed(receiver, count, count);
            counts[receiver.as_u128() as usize] += count;
        }
        counts
    }

    #[test]
    fn slots_are_shared_in_turns_and_a_backlog_stands_before_nobody() {
        let mut turns = Turns::new(5, 16);
        turns.heard(id(0));
        assert_eq!(served(&mut turns, 3, 0), [4, 0, 0], "the first window");
        turns.heard(id(1));
        turns.heard(id(2));
        assert_eq!(served(&mut turns, 3, 0), [0, 1, 0], "the last slot");
        turns.finished(id(0), Health::Well, None);
        assert_eq!(served(&mut turns, 3, 0), [0, 0, 1], "its turn came before the second of the others");
        turns.finished(id(0), Health::Well, None);
        turns.finished(id(0), Health::Well, None);
        assert_eq!(served(&mut turns, 3, 0), [1, 1, 0]);
    }

    #[test]
    fn a_window_grows_with_answers_and_shrinks_with_failures() {
        let mut turns = Turns::new(100, 6);
        turns.heard(id(0));
        assert_eq!(served(&mut turns, 1, 0), [4]);
        for _ in 0..4 {
            turns.finished(id(0), Health::Well, None);
        }
        assert_eq!(served(&mut turns, 1, 0), [6], "up to its largest");
        for _ in 0..6 {
            turns.finished(id(0), Health::Ill, None);
        }
        assert_eq!(served(&mut turns, 1, 0), [1]);
        turns.finished(id(0), Health::Well, None);
        assert_eq!(served(&mut turns, 1, 0), [2]);
        turns.finished(id(0), Health::Slow, None);
        assert_eq!(served(&mut turns, 1, 0), [1], "no more than before");
    }

    #[test]
    fn receivers_that_fail_leave_half_of_the_slots_to_the_others() {
        let mut turns = Turns::new(8, 1);
        for receiver in 0..20 {
            turns.heard(id(receiver));
        }
        assert_eq!(turns.next(0).len(), 8);
        for receiver in 0..8 {
            turns.finished(id(receiver), Health::Ill, None);
        }
        assert_eq!(turns.next(0).len(), 8, "of the others nothing is known yet");
        for receiver in 8..16 {
            turns.finished(id(receiver), Health::Ill, None);
        }
        let next: Vec<Uuid> = turns.next(0).into_iter().map(|(id, _)| id).collect();
        let fresh: Vec<_> = next.iter().filter(|next| next.as_u128() >= 16).collect();
        assert_eq!((fresh.len(), next.len()), (4, 8), "{next:?}");
        for receiver in 16..20 {
            turns.finished(id(receiver), Health::Ill, None);
        }
        assert!(turns.next(0).is_empty(), "four that fail are under way: no more of them");
        turns.heard(id(99));
        assert_eq!(turns.next(0), [(id(99), 1)], "there is always room for one that does not");
    }

    #[test]
    fn who_asked_for_time_takes_no_turn_until_it_is_over() {
        let mut turns = Turns::new(8, 2);
        turns.heard(id(0));
        turns.heard(id(1));
        assert_eq!(served(&mut turns, 2, 0), [2, 2]);
        turns.finished(id(0), Health::Ill, Some(1_000));
        turns.finished(id(0), Health::Ill, Some(500));
        turns.finished(id(1), Health::Well, None);
        assert_eq!(served(&mut turns, 2, 10), [0, 1]);
        assert_eq!(turns.wake_at_us(), Some(1_000));
        assert_eq!(served(&mut turns, 2, 999), [0, 0]);
        assert_eq!(served(&mut turns, 2, 1_000), [1, 0]);
    }

    #[test]
    fn an_alarm_brings_a_receiver_back() {
        let mut turns = Turns::new(8, 2);
        turns.alarm(100, id(7));
        turns.alarm(50, id(6));
        assert_eq!(turns.wake_at_us(), Some(50));
        assert_eq!(turns.next(49), []);
        assert_eq!(turns.next(100), [(id(6), 2), (id(7), 2)]);
        assert_eq!(turns.wake_at_us(), None);
    }

    #[test]
    fn a_claim_that_found_less_ends_the_turns_until_something_is_heard() {
        let mut turns = Turns::new(8, 4);
        turns.heard(id(0));
        assert_eq!(turns.next(0), [(id(0), 4)]);
        turns.claimed(id(0), 4, 1);
        assert_eq!((turns.running(), turns.next(0)), (1, vec![]));
        turns.finished(id(0), Health::Well, None);
        assert_eq!((turns.running(), turns.next(0)), (0, vec![]));
        assert!(turns.receivers.is_empty() && turns.queue.is_empty(), "nothing to remember");
        turns.heard(id(0));
        assert_eq!(turns.next(0).len(), 1);
    }

    #[test]
    fn a_claim_that_failed_is_made_again() {
        let mut turns = Turns::new(8, 4);
        turns.heard(id(0));
        assert_eq!(turns.next(0), [(id(0), 4)]);
        turns.unclaimed(id(0), 4);
        assert_eq!(turns.next(0), [(id(0), 4)]);
    }

    proptest! {
        /// Whatever happens, slots add up, nobody holds more than the bounds, and who has something gets a turn.
        #[test]
        fn the_bounds_hold_whatever_happens(steps in prop::collection::vec((0u8..5, 0u128..6), 0..400)) {
            let mut turns = Turns::new(7, 3);
            let mut running: Vec<Uuid> = Vec::new();
            let mut now_us = 0;
            for (step, number) in steps {
                now_us += 1;
                match step {
                    0 => turns.heard(id(number)),
                    1 => turns.alarm(now_us + 3, id(number)),
                    2 => for (receiver, asked) in turns.next(now_us) {
                        let found = asked - usize::from(number == 0);
                        turns.claimed(receiver, asked, found);
                        running.extend(std::iter::repeat_n(receiver, found));
                    },
                    _ => if let Some(receiver) = running.pop() {
                        let health = if number % 2 == 0 { Health::Ill } else { Health::Well };
                        turns.finished(receiver, health, (number == 3).then_some(now_us + 5));
                    },
                }
                prop_assert_eq!(turns.running(), running.len());
                prop_assert!(running.len() <= 7);
                for number in 0..6 {
                    prop_assert!(running.iter().filter(|receiver| **receiver == id(number)).count() <= 3);
                }
                let failing = turns.receivers.values().filter(|receiver| receiver.failing);
                prop_assert_eq!(turns.running_failing, failing.map(|receiver| receiver.running).sum::<usize>());
            }
            while let Some(receiver) = running.pop() {
                turns.finished(receiver, Health::Well, None);
            }
            turns.heard(id(0));
            // Six receivers, of which three that fail may take a turn at a time: two rounds are enough for all.
            let mut served = false;
            for round in 0..2 {
                for (receiver, asked) in turns.next(now_us + 10 + round) {
                    served |= receiver == id(0);
                    turns.claimed(receiver, asked, asked);
                    (0..asked).for_each(|_| turns.finished(receiver, Health::Well, None));
                }
            }
            prop_assert!(served);
        }
    }
}
