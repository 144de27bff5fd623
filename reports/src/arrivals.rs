//! The arrival process: were the events sent as asked? Takes times as they come and keeps sums only, so a run may have any length.
//!
//! Two questions, each about two streams, the events as the schedule drew them and as they were sent:
//! - **Counts** in windows of a few lengths, as their index of dispersion (variance over mean; Cox and Lewis, 1966): 1 at every length for
//!   Poisson arrivals, 0 for a metronome, above 1 for bursts. Sends that clump to a timer's ticks show in windows shorter than a tick.
//! - **Gaps** against the exponential distribution, as their Kolmogorov–Smirnov distance; only Poisson arrivals at one rate have a
//!   distribution to compare with. The distance is a share: so many of the gaps would have to be others.
//!
//! Not here: what numbers are still well ([`crate::caveat`]), and by how much single events were late (the send delay).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::{ArrivalProcess, ArrivalsCheck, ArrivalsWindow};

/// Shortest window, ns, and in units of the mean gap: below the first a server cannot tell bursts from single events, below the second
/// an event a little late changes its window too easily.
const WINDOW_NS_MIN: f64 = 200_000.0;
/// See [`WINDOW_NS_MIN`].
const WINDOW_GAPS_MIN: f64 = 2.0;
/// Each window is so many times as long as the one before.
const WINDOW_FACTOR: u64 = 8;
/// Fewest windows of one length from which a variance is taken.
const WINDOWS_MIN: u64 = 100;
/// Gaps that are shorter are not judged: one thread writes no faster.
const GAP_NS_JUDGED_MIN: f64 = 20_000.0;
/// Bins of equal probability for gaps. The distance is taken at their borders, so it is too small by at most 1/1000.
const BINS: usize = 1_000;
/// Most events waiting to be put in order, 2 MiB. Beyond, events are taken as they are and the rare late ones left out.
const UNORDERED_MAX: usize = 1 << 18;

/// Looks at the arrivals of one steady phase. All times are ns after its begin.
#[derive(Debug)]
pub struct ArrivalCheck {
    process: ArrivalProcess,
    gap_ns_mean: f64,
    length_ns: u64,
    sent: u64,
    planned: Stream,
    departed: Stream,
}

impl ArrivalCheck {
    /// For a phase of `length_ns` with `rate_per_s` events per second on average (greater than 0). An event may be reported up to
    /// `disorder_ns_max` after a later one (a request timeout and the time until it is written down).
    pub fn new(process: ArrivalProcess, rate_per_s: f64, length_ns: u64, disorder_ns_max: u64) -> Self {
        let gap_ns_mean = 1e9 / rate_per_s;
        let stream = || Stream::new(process, gap_ns_mean, length_ns, disorder_ns_max);
        Self { process, gap_ns_mean, length_ns, sent: 0, planned: stream(), departed: stream() }
    }

    /// An event that was due at `intended_ns` and sent at `sent_ns`, less what it waited for a free connection: that is the target's
    /// doing and says nothing about the generator.
    pub fn sent(&mut self, intended_ns: u64, sent_ns: u64) {
        self.sent += 1;
        self.planned.take(intended_ns);
        self.departed.take(sent_ns);
    }

    /// An event that was due at `intended_ns` and never sent.
    pub fn not_sent(&mut self, intended_ns: u64) {
        self.planned.take(intended_ns);
    }

    /// The numbers. They speak of the whole phase: of one that was broken off they say nothing.
    pub fn finish(mut self) -> ArrivalsCheck {
        self.planned.flush();
        self.departed.flush();
        let windows = self.planned.counts.iter().zip(&self.departed.counts);
        let windows = windows.filter_map(|(planned, sent)| {
            Some(ArrivalsWindow {
                length_ns: planned.length_ns,
                windows: planned.windows,
                dispersion_planned: planned.dispersion()?,
                dispersion_sent: sent.dispersion()?,
            })
        });
        let expected = (self.process != ArrivalProcess::Scheduled).then(|| self.length_ns as f64 / self.gap_ns_mean);
        ArrivalsCheck {
            process: self.process,
            gap_ns_mean: self.gap_ns_mean,
            expected,
            planned: self.planned.events + self.planned.left_out,
            sent: self.sent,
            left_out: self.planned.left_out.max(self.departed.left_out),
            gap_distance_planned: self.planned.gaps.as_ref().and_then(|gaps| gaps.distance(0.0)),
            gap_distance_sent: self.departed.gaps.as_ref().and_then(|gaps| gaps.distance(GAP_NS_JUDGED_MIN)),
            windows: windows.collect(),
        }
    }
}

/// One stream of times: put in order, then counted.
#[derive(Debug)]
struct Stream {
    disorder_ns_max: u64,
    waiting: BinaryHeap<Reverse<u64>>,
    newest_ns: u64,
    last_ns: Option<u64>,
    events: u64,
    left_out: u64,
    counts: Vec<Counts>,
    gaps: Option<Gaps>,
}

impl Stream {
    fn new(process: ArrivalProcess, gap_ns_mean: f64, length_ns: u64, disorder_ns_max: u64) -> Self {
        let shortest_ns = WINDOW_NS_MIN.max(WINDOW_GAPS_MIN * gap_ns_mean) as u64;
        let lengths = std::iter::successors(Some(shortest_ns), |ns| ns.checked_mul(WINDOW_FACTOR));
        let lengths = lengths.take_while(|ns| length_ns / ns >= WINDOWS_MIN);
        Self {
            disorder_ns_max,
            waiting: BinaryHeap::new(),
            newest_ns: 0,
            last_ns: None,
            events: 0,
            left_out: 0,
            counts: lengths.map(|ns| Counts::new(ns, length_ns / ns)).collect(),
            gaps: (process == ArrivalProcess::Poisson).then(|| Gaps::new(gap_ns_mean)),
        }
    }

    fn take(&mut self, at_ns: u64) {
        self.newest_ns = self.newest_ns.max(at_ns);
        self.waiting.push(Reverse(at_ns));
        while let Some(&Reverse(oldest_ns)) = self.waiting.peek() {
            if self.newest_ns - oldest_ns <= self.disorder_ns_max && self.waiting.len() <= UNORDERED_MAX {
                break;
            }
            self.waiting.pop();
            self.count(oldest_ns);
        }
    }

    fn flush(&mut self) {
        while let Some(Reverse(at_ns)) = self.waiting.pop() {
            self.count(at_ns);
        }
        self.counts.iter_mut().for_each(Counts::close);
    }

    fn count(&mut self, at_ns: u64) {
        if self.last_ns.is_some_and(|last_ns| at_ns < last_ns) {
            self.left_out += 1;
            return;
        }
        self.events += 1;
        self.counts.iter_mut().for_each(|counts| counts.add(at_ns));
        if let (Some(gaps), Some(last_ns)) = (&mut self.gaps, self.last_ns) {
            gaps.add(at_ns - last_ns);
        }
        self.last_ns = Some(at_ns);
    }
}

/// Sums over the counts of events in windows of one length.
#[derive(Debug)]
struct Counts {
    length_ns: u64,
    /// Whole windows in the phase; what comes later is not counted.
    windows: u64,
    open: u64,
    in_open: u64,
    sum: f64,
    squares: f64,
}

impl Counts {
    fn new(length_ns: u64, windows: u64) -> Self {
        Self { length_ns, windows, open: 0, in_open: 0, sum: 0.0, squares: 0.0 }
    }

    fn add(&mut self, at_ns: u64) {
        let window = at_ns / self.length_ns;
        if window != self.open {
            self.close();
            self.open = window;
        }
        self.in_open += 1;
    }

    fn close(&mut self) {
        if self.open < self.windows {
            self.sum += self.in_open as f64;
            self.squares += (self.in_open as f64).powi(2);
        }
        self.in_open = 0;
    }

    /// Variance over mean; `None` without events.
    fn dispersion(&self) -> Option<f64> {
        let (windows, mean) = (self.windows as f64, self.sum / self.windows as f64);
        (self.sum > 0.0).then(|| (self.squares - windows * mean * mean) / (windows - 1.0) / mean)
    }
}

/// Gaps in bins that are equally likely when the gaps are exponential.
#[derive(Debug)]
struct Gaps {
    ns_mean: f64,
    bins: Vec<u64>,
}

impl Gaps {
    fn new(ns_mean: f64) -> Self {
        Self { ns_mean, bins: vec![0; BINS] }
    }

    fn add(&mut self, ns: u64) {
        let quantile = -(-(ns as f64) / self.ns_mean).exp_m1();
        self.bins[((quantile * BINS as f64) as usize).min(BINS - 1)] += 1;
    }

    /// Largest difference between the share of gaps up to a bin's border and what it should be, of borders from `from_ns` on.
    fn distance(&self, from_ns: f64) -> Option<f64> {
        let all = self.bins.iter().sum::<u64>() as f64;
        let first = -(-from_ns / self.ns_mean).exp_m1();
        let mut below = 0;
        let mut distance = 0.0_f64;
        for (bin, count) in self.bins.iter().enumerate() {
            let border = bin as f64 / BINS as f64;
            if border >= first {
                distance = distance.max((below as f64 / all - border).abs());
            }
            below += count;
        }
        (all > 0.0).then_some(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caveat::arrivals::ARRIVALS_SHARE_MAX;
    use crate::fixtures::{self, Rng};
    use crate::histogram::TimeHistogram;
    use crate::model::{CaveatKind, Outcome};
    use crate::verdict;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;
    const TIMEOUT: u64 = 2 * SECOND;

    fn poisson(rate_per_s: f64, length_ns: u64, seed: u64) -> Vec<u64> {
        let mut rng = Rng(seed);
        let gaps = std::iter::repeat_with(move || -(1.0 - rng.uniform()).ln() * 1e9 / rate_per_s);
        let times = gaps.scan(0.0, |at, gap| {
            *at += gap;
            Some(*at as u64)
        });
        times.take_while(|at| *at < length_ns).collect()
    }

    fn constant(rate_per_s: f64, length_ns: u64) -> Vec<u64> {
        (0..).map(|i| (f64::from(i) * 1e9 / rate_per_s) as u64).take_while(|at| *at < length_ns).collect()
    }

    /// When a generator sends what is due at these times, in order.
    type Generator = fn(&[u64]) -> Vec<u64>;

    /// Its name, what was asked for at which rate, who sends, and what comes of it.
    type Case = (&'static str, ArrivalProcess, f64, Generator, (Outcome, bool));

    fn on_time(due: &[u64]) -> Vec<u64> {
        due.to_vec()
    }

    /// Each write takes 10 µs, and the next one waits for it; wake-ups come up to 30 µs late.
    fn busy(due: &[u64]) -> Vec<u64> {
        let (mut rng, mut free) = (Rng(1), 0);
        let send = |at: &u64| {
            let sent = free.max(at + (rng.uniform() * 30_000.0) as u64);
            free = sent + 10_000;
            sent
        };
        due.iter().map(send).collect()
    }

    fn to_the_tick(due: &[u64], tick_ns: u64) -> Vec<u64> {
        due.iter().map(|at| at.div_ceil(tick_ns) * tick_ns).collect()
    }

    /// Stands still for `length_ns` of every `every_ns`, then sends all that is late at once.
    fn stalling(due: &[u64], every_ns: u64, length_ns: u64) -> Vec<u64> {
        due.iter().map(|at| if at % every_ns < length_ns { at - at % every_ns + length_ns } else { *at }).collect()
    }

    fn late_and_stalling(due: &[u64]) -> Vec<u64> {
        stalling(due, 10 * SECOND, 200 * MS).iter().map(|at| at + 9 * MS).collect()
    }

    /// A Poisson process whose events are moved independently is one again.
    fn late_by_chance(due: &[u64]) -> Vec<u64> {
        let mut rng = Rng(2);
        due.iter().map(|at| at + (rng.uniform() * MS as f64) as u64).collect()
    }

    fn check(process: ArrivalProcess, rate_per_s: f64, length_ns: u64, due: &[u64], sent: &[u64]) -> ArrivalsCheck {
        let mut check = ArrivalCheck::new(process, rate_per_s, length_ns, TIMEOUT);
        due.iter().zip(sent).for_each(|(due, sent)| check.sent(*due, *sent));
        check.finish()
    }

    /// What a run with these arrivals is called, and whether it has the caveat.
    fn judged(process: ArrivalProcess, rate_per_s: f64, length_ns: u64, due: &[u64], sent: &[u64]) -> (Outcome, bool) {
        let mut run = fixtures::three_modes();
        let mut delays = TimeHistogram::new();
        due.iter().zip(sent).for_each(|(due, sent)| delays.record(sent - due));
        let check = check(process, rate_per_s, length_ns, due, sent);
        run.plan.objectives.clear();
        for result in run.results.iter_mut().filter(|r| r.target == "cache-first") {
            result.load.arrivals_check = Some(check.clone());
            result.load.send_delay = delays.times(0);
            // So slow that the delay alone is no reason for doubt.
            result.load.response_time = fixtures::times(&[(30 * SECOND, 20_000)]);
        }
        verdict::assess(&mut run);
        let caveat = run.caveats.iter().find(|c| c.kind == CaveatKind::ArrivalsNotAsAsked);
        assert!(caveat.is_none_or(|c| c.detail.chars().any(|c| c.is_ascii_digit())), "{caveat:?}");
        (run.verdict.outcome, caveat.is_some())
    }

    #[test]
    fn a_load_that_is_not_what_was_asked_is_found_out() {
        use ArrivalProcess::{Constant, Poisson, Scheduled};
        const LENGTH: u64 = 10 * SECOND;
        let asked = |process, rate: f64| match process {
            Constant => constant(rate, LENGTH),
            _ => poisson(rate, LENGTH, 7),
        };
        let (fine, told, invalid) = ((Outcome::Pass, false), (Outcome::Pass, true), (Outcome::Invalid, true));
        let cases: [Case; 19] = [
            ("on time", Poisson, 5_000.0, on_time, fine),
            ("on time", Constant, 5_000.0, on_time, fine),
            ("on time, slowly", Poisson, 30.0, on_time, fine),
            ("each write takes 10 µs", Poisson, 5_000.0, busy, fine),
            ("each write takes 10 µs", Constant, 5_000.0, busy, fine),
            ("each write takes 10 µs, half busy", Poisson, 50_000.0, busy, fine),
            ("a timer of 1 ms", Poisson, 5_000.0, |due| to_the_tick(due, MS), invalid),
            ("a timer of 1 ms", Constant, 5_000.0, |due| to_the_tick(due, MS), invalid),
            ("a timer of 1 ms", Scheduled, 5_000.0, |due| to_the_tick(due, MS), invalid),
            ("a timer of 1 ms, one event a tick", Poisson, 1_000.0, |due| to_the_tick(due, MS), invalid),
            ("a whole second at once", Poisson, 1_000.0, |due| to_the_tick(due, SECOND), invalid),
            ("a whole second at once", Constant, 1_000.0, |due| to_the_tick(due, SECOND), invalid),
            (
                "equal gaps, a second later",
                Poisson,
                1_000.0,
                |_| constant(1_000.0, LENGTH).iter().map(|at| at + SECOND).collect(),
                invalid,
            ),
            ("all 9 ms late, and one stall of 200 ms", Poisson, 5_000.0, late_and_stalling, fine),
            ("each by another delay up to 1 ms late", Poisson, 5_000.0, late_by_chance, fine),
            ("one stall of 200 ms", Poisson, 5_000.0, |due| stalling(due, LENGTH, 200 * MS), fine),
            ("one stall of 200 ms", Constant, 5_000.0, |due| stalling(due, LENGTH, 200 * MS), fine),
            ("stalls for a sixth of the time", Poisson, 5_000.0, |due| stalling(due, 60 * MS, 10 * MS), told),
            ("stalls for a sixth of the time", Constant, 5_000.0, |due| stalling(due, 60 * MS, 10 * MS), told),
        ];
        for (name, process, rate, generator, expected) in cases {
            let due = asked(process, rate);
            let mut sent = generator(&due);
            sent.resize(due.len(), LENGTH + SECOND);
            assert!(sent.iter().zip(&due).all(|(sent, due)| sent >= due), "{name}: a generator never sends early");
            assert_eq!(judged(process, rate, LENGTH, &due, &sent), expected, "{name}, {process:?} at {rate}/s");
        }
    }

    #[test]
    fn a_schedule_that_is_not_what_was_asked_is_found_out_although_it_is_kept() {
        use ArrivalProcess::{Constant, Poisson, Scheduled};
        const LENGTH: u64 = 10 * SECOND;
        let invalid = (Outcome::Invalid, true);
        let of = |process, rate, due: Vec<u64>| judged(process, rate, LENGTH, &due, &due);
        assert_eq!(of(Poisson, 1_000.0, constant(1_000.0, LENGTH)), invalid, "equal gaps for Poisson");
        assert_eq!(of(Constant, 1_000.0, poisson(1_000.0, LENGTH, 3)), invalid, "Poisson for equal gaps");
        assert_eq!(of(Poisson, 1_000.0, poisson(930.0, LENGTH, 3)), invalid, "a wrong rate");
        assert_eq!(of(Constant, 1_000.0, constant(999.0, LENGTH)), invalid, "a wrong rate");
        let high = |at: &u64| (*at / SECOND).is_multiple_of(2);
        let waves: Vec<u64> = poisson(1_800.0, LENGTH, 3).into_iter().filter(|at| high(at) || at % 9 == 0).collect();
        assert_eq!(of(Poisson, 1_000.0, waves.clone()), invalid, "a rate that comes and goes");
        assert_eq!(of(Scheduled, 1_000.0, waves), (Outcome::Pass, false), "nobody asked for a steady rate");
    }

    #[test]
    fn a_perfect_generator_is_not_blamed_by_chance() {
        let mut largest = 0.0_f64;
        for seed in 0..30 {
            let due = poisson(2_000.0, 2 * SECOND, seed);
            let check = check(ArrivalProcess::Poisson, 2_000.0, 2 * SECOND, &due, &due);
            let bound = crate::stats::distance_max(check.planned, 0.01 / 30.0);
            largest = largest.max(check.gap_distance_planned.unwrap() / bound);
            assert_eq!(
                judged(ArrivalProcess::Poisson, 2_000.0, 2 * SECOND, &due, &due),
                (Outcome::Pass, false),
                "{seed}"
            );
        }
        assert!((0.4..1.0).contains(&largest), "the distances are not as large as chance makes them: {largest}");
    }

    #[test]
    fn the_order_in_which_events_are_reported_does_not_matter() {
        let due = poisson(2_000.0, 10 * SECOND, 5);
        let sent = busy(&due);
        let in_order = check(ArrivalProcess::Poisson, 2_000.0, 10 * SECOND, &due, &sent);
        let mut rng = Rng(9);
        let mut reported: Vec<(u64, usize)> =
            sent.iter().enumerate().map(|(i, at)| (at + (rng.uniform() * TIMEOUT as f64) as u64, i)).collect();
        reported.sort_unstable();
        let mut check = ArrivalCheck::new(ArrivalProcess::Poisson, 2_000.0, 10 * SECOND, TIMEOUT + SECOND);
        reported.iter().for_each(|(_, i)| check.sent(due[*i], sent[*i]));
        assert_eq!(check.finish(), in_order);
    }

    #[test]
    fn an_event_that_comes_too_late_is_left_out_and_counted() {
        let mut check = ArrivalCheck::new(ArrivalProcess::Poisson, 1_000.0, 10 * SECOND, SECOND);
        for at in [0, 3 * SECOND, 4 * SECOND, 5 * SECOND, 2 * SECOND] {
            check.sent(at, at);
        }
        let found = check.finish();
        assert_eq!((found.planned, found.sent, found.left_out), (5, 5, 1));
    }

    #[test]
    fn events_never_sent_were_planned_all_the_same() {
        let mut check = ArrivalCheck::new(ArrivalProcess::Constant, 1_000.0, SECOND, SECOND);
        constant(1_000.0, SECOND)
            .iter()
            .for_each(|at| if at % 2 == 0 { check.sent(*at, *at) } else { check.not_sent(*at) });
        let found = check.finish();
        assert_eq!((found.planned, found.expected), (1_000, Some(1_000.0)));
        assert!(found.windows.iter().all(|w| w.dispersion_planned < 0.01), "{found:?}");
    }

    #[test]
    fn a_distance_is_the_share_of_gaps_that_would_have_to_be_others() {
        let mut due = poisson(1_000.0, 20 * SECOND, 11);
        let count = due.len();
        // A fifth of the events together with the one before.
        (1..count).filter(|i| i % 5 == 0).for_each(|i| due[i] = due[i - 1]);
        let found = check(ArrivalProcess::Poisson, 1_000.0, 20 * SECOND, &due, &due).gap_distance_sent.unwrap();
        assert!(found > ARRIVALS_SHARE_MAX && (found - 0.2).abs() < 0.05, "{found}");
    }
}
