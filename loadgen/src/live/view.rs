//! What the live view shows. Times are counted from the begin of the run and given from outside.

use std::collections::VecDeque;
use std::time::Duration;

use reports::model::Outcomes;

use crate::buckets::Buckets;
use crate::observe::hiccup::StallsSeen;
use crate::observe::prometheus::Scrape;
use crate::recorder::Snapshot;

/// Seconds that are kept: as many as the widest terminal has columns.
pub const SECONDS_MAX: usize = 512;

/// Sentences that are kept for when the terminal is given back.
const SENTENCES_MAX: usize = 200;

/// Over how long a rate of the target's own counters is taken: shorter, and a poll a second would read as 0 and 2 in turns.
const COUNTER_WINDOW: Duration = Duration::from_secs(3);

const SECOND: Duration = Duration::from_secs(1);

/// What the target said of itself at one moment; `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TargetLook {
    /// Acknowledged and not yet persisted.
    pub pending_events: Option<u64>,
    /// Between two looks for work, s.
    pub poll_interval_s: Option<f64>,
    /// Whether it is in deep idle.
    pub is_deep_idle: bool,
    /// SQL statements since it began.
    pub sql_statements: Option<f64>,
}

impl TargetLook {
    /// Of its metrics.
    pub fn of(scrape: &Scrape) -> Self {
        Self {
            pending_events: scrape.get("ingest_pending_events").map(|pending| pending as u64),
            poll_interval_s: scrape.get("ingest_poll_interval_seconds").filter(|interval_s| *interval_s > 0.0),
            is_deep_idle: scrape.get("ingest_deep_idle") == Some(1.0),
            sql_statements: scrape.get("ingest_sql_statements_total"),
        }
    }
}

/// One second of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Events accepted.
    pub accepted: u64,
    /// Response times.
    pub times: Buckets,
}

/// See the module.
#[derive(Debug)]
pub struct View {
    /// How long all of it takes.
    pub total: Duration,
    /// What is measured.
    pub subject: String,
    /// What is done with it.
    pub phase: &'static str,
    /// Whether a load is on; if not, the numbers are those of the last one.
    pub is_loading: bool,
    /// Rate that the load asks for, per second.
    pub offered_per_s: Option<f64>,
    /// The running numbers of the load; `None` before the first one.
    pub numbers: Option<Snapshot>,
    /// Seconds of the load that are over, the newest last.
    pub seconds: VecDeque<Second>,
    /// The second that is not over yet.
    pub second: Second,
    /// The last that the target said of itself.
    pub target: TargetLook,
    /// Its SQL statements per second.
    pub sql_per_s: Option<f64>,
    /// Of the machine in this load; `None`: nobody watches.
    pub stalls: Option<StallsSeen>,
    /// Sentences that stay, the newest last.
    pub sentences: VecDeque<String>,
    /// Somebody wants it to end.
    pub is_ending: bool,
    /// When it was last looked at.
    pub now: Duration,
    phase_begin: Duration,
    second_begin: Duration,
    before_second: Snapshot,
    counted: VecDeque<(Duration, f64)>,
}

impl View {
    /// Of a run that takes `total`.
    pub fn new(total: Duration) -> Self {
        Self {
            total,
            subject: String::new(),
            phase: "starting",
            is_loading: false,
            offered_per_s: None,
            numbers: None,
            seconds: VecDeque::new(),
            second: Second::default(),
            target: TargetLook::default(),
            sql_per_s: None,
            stalls: None,
            sentences: VecDeque::new(),
            is_ending: false,
            now: Duration::ZERO,
            phase_begin: Duration::ZERO,
            second_begin: Duration::ZERO,
            before_second: Snapshot::default(),
            counted: VecDeque::new(),
        }
    }

    /// The next phase begins. With a load of its own the numbers begin anew; those of the last load stay while it drains and idles.
    pub fn phase(&mut self, now: Duration, subject: &str, phase: &'static str, is_load: bool) {
        if self.subject != subject {
            (self.target, self.sql_per_s, self.stalls) = (TargetLook::default(), None, None);
            self.counted.clear();
        }
        subject.clone_into(&mut self.subject);
        (self.phase, self.phase_begin, self.now, self.is_loading) = (phase, now, now, is_load);
        if is_load {
            self.offered_per_s = None;
            self.seconds.clear();
            (self.second, self.second_begin, self.before_second) = (Second::default(), now, Snapshot::default());
            self.numbers = None;
        }
    }

    /// The running numbers of the load, and the time.
    pub fn look(&mut self, now: Duration, numbers: Option<&Snapshot>) {
        self.now = now;
        let Some(numbers) = numbers else { return };
        self.numbers = Some(*numbers);
        self.second = Second {
            accepted: numbers.outcomes.accepted.saturating_sub(self.before_second.outcomes.accepted),
            times: numbers.buckets.since(&self.before_second.buckets),
        };
        while now >= self.second_begin + SECOND {
            self.seconds.push_back(std::mem::take(&mut self.second));
            self.second_begin += SECOND;
            self.before_second = *numbers;
        }
        while self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_front();
        }
    }

    /// What the target says of itself.
    pub fn target(&mut self, now: Duration, look: TargetLook) {
        self.target = look;
        let Some(statements) = look.sql_statements else {
            self.sql_per_s = None;
            return;
        };
        // A server that was started afresh counts from 0.
        if self.counted.back().is_some_and(|(_, before)| *before > statements) {
            self.counted.clear();
        }
        self.counted.push_back((now, statements));
        while self.counted.len() > 2 && now.saturating_sub(self.counted[1].0) >= COUNTER_WINDOW {
            self.counted.pop_front();
        }
        let (then, before) = self.counted[0];
        let seconds = now.saturating_sub(then).as_secs_f64();
        self.sql_per_s = (seconds >= 1.0).then(|| (statements - before) / seconds);
    }

    /// A sentence that stays.
    pub fn say(&mut self, sentence: &str) {
        self.sentences.push_back(sentence.to_owned());
        while self.sentences.len() > SENTENCES_MAX {
            self.sentences.pop_front();
        }
    }

    /// How long the phase has lasted.
    pub fn phase_seconds(&self) -> u64 {
        self.now.saturating_sub(self.phase_begin).as_secs()
    }

    /// How much of the whole is over, 0..=1.
    pub fn share(&self) -> f64 {
        (self.now.as_secs_f64() / self.total.as_secs_f64().max(1e-9)).clamp(0.0, 1.0)
    }

    /// How long it will still take.
    pub fn left(&self) -> Duration {
        self.total.saturating_sub(self.now)
    }

    /// Accepted in the last whole second; `None` before there is one.
    pub fn achieved_per_s(&self) -> Option<u64> {
        self.seconds.back().map(|second| second.accepted)
    }

    /// What became of the events of this load.
    pub fn outcomes(&self) -> Outcomes {
        self.numbers.map(|numbers| numbers.outcomes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn numbers(accepted: u64) -> Snapshot {
        let mut numbers = Snapshot { outcomes: Outcomes { accepted, ..Outcomes::default() }, ..Snapshot::default() };
        (0..accepted).for_each(|_| numbers.buckets.add(300_000));
        numbers
    }

    #[test]
    fn a_second_has_what_came_within_it() {
        let mut view = View::new(at(60_000));
        view.phase(at(5_000), "a", "load", true);
        for (now_ms, accepted) in [(5_200, 20), (5_800, 80), (6_000, 100), (6_400, 130), (7_000, 300), (7_200, 310)] {
            view.look(at(now_ms), Some(&numbers(accepted)));
        }
        let seconds: Vec<u64> = view.seconds.iter().map(|second| second.accepted).collect();
        assert_eq!((seconds, view.second.accepted, view.achieved_per_s()), (vec![100, 200], 10, Some(200)));
        assert_eq!(view.seconds[1].times.count(0..crate::buckets::COUNT), 200);
        assert_eq!((view.phase_seconds(), view.left()), (2, at(52_800)));
    }

    #[test]
    fn a_second_in_which_nobody_looked_is_empty_and_the_next_load_begins_anew() {
        let mut view = View::new(at(60_000));
        view.phase(at(0), "a", "load", true);
        view.look(at(3_500), Some(&numbers(50)));
        assert_eq!(view.seconds.iter().map(|second| second.accepted).collect::<Vec<_>>(), [50, 0, 0]);
        view.phase(at(4_000), "a", "idle", false);
        assert_eq!((view.seconds.len(), view.numbers.is_some()), (3, true));
        view.phase(at(5_000), "b", "load", true);
        assert!(view.seconds.is_empty() && view.numbers.is_none());
    }

    #[test]
    fn a_run_of_hours_keeps_as_many_seconds_as_fit_on_a_screen() {
        let mut view = View::new(at(60_000));
        view.phase(at(0), "a", "load", true);
        view.look(Duration::from_secs(7_200), Some(&numbers(1)));
        assert_eq!(view.seconds.len(), SECONDS_MAX);
    }

    #[test]
    fn statements_per_second_are_taken_over_a_few_seconds_and_begin_anew_with_a_server() {
        let mut view = View::new(at(60_000));
        let look = |statements: f64| TargetLook { sql_statements: Some(statements), ..TargetLook::default() };
        view.target(at(0), look(100.0));
        assert_eq!(view.sql_per_s, None, "there is nothing to compare with");
        for (now_ms, statements) in [(1_000, 110.0), (2_000, 120.0), (3_000, 130.0), (4_000, 140.0), (5_000, 180.0)] {
            view.target(at(now_ms), look(statements));
        }
        assert_eq!(view.sql_per_s, Some(20.0), "of the last three seconds");
        view.target(at(6_000), look(3.0));
        assert_eq!(view.sql_per_s, None);
        view.target(at(7_000), TargetLook::default());
        assert_eq!(view.sql_per_s, None, "it does not say");
    }
}
