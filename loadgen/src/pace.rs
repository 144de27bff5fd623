//! When to wake up for an intended time: sleep until shortly before it, then look again and again.
//!
//! How long before is a trade of processor time for precision, and [`Pacing`] is where it is made. The machine is asked: the time by
//! which sleeps end late is measured all the while, and the last part of a wait is not slept but spun for as long as that
//! (bounded). Spinning means polling the sockets without waiting, so answers that come in meanwhile are read at once.

use std::time::Duration;

pub use reports::model::Pacing;

use crate::poller::Poller;

/// Longest spin before an intended time, ns: on a machine that wakes up later than this the send delay shows it.
const SPIN_NS_MAX: u64 = 100_000;
/// Shortest: what a system call and a look at the clock take.
const SPIN_NS_MIN: u64 = 2_000;
/// The spin follows a quantile of the lateness, by steps: up by 49 steps for each later one, down by 1 for each earlier one is the 0.98
/// quantile (Robbins and Monro, 1951).
const STEP_NS: u64 = 200;
const STEPS_UP: u64 = 49;

/// How this build waits with it, for the result.
pub fn description(pacing: Pacing) -> String {
    let call = Poller::DESCRIPTION;
    match pacing {
        Pacing::Sleep => format!("{call}, to the end"),
        Pacing::Hybrid => {
            format!("{call}, then spin for as long as it wakes up late, {} µs at most", SPIN_NS_MAX / 1_000)
        }
        Pacing::Spin => format!("spin: {call} without waiting, all the time"),
    }
}

/// Decides for each wait. One for a sending thread.
#[derive(Debug)]
pub struct Pacer {
    pacing: Pacing,
    spin_ns: u64,
}

impl Pacer {
    /// Knows nothing of the machine yet.
    pub fn new(pacing: Pacing) -> Self {
        Self { pacing, spin_ns: SPIN_NS_MAX / 2 }
    }

    /// How long to sleep now for a time that is `left_ns` away; zero: do not.
    pub fn sleep(&self, left_ns: u64) -> Duration {
        match self.pacing {
            Pacing::Sleep => Duration::from_nanos(left_ns),
            Pacing::Hybrid => Duration::from_nanos(left_ns.saturating_sub(self.spin_ns)),
            Pacing::Spin => Duration::ZERO,
        }
    }

    /// Tells by how much a sleep that nothing interrupted ended late.
    pub fn woke_late_by(&mut self, late_ns: u64) {
        if late_ns > self.spin_ns {
            self.spin_ns = (self.spin_ns + STEP_NS * STEPS_UP).min(SPIN_NS_MAX);
        } else {
            self.spin_ns = self.spin_ns.saturating_sub(STEP_NS).max(SPIN_NS_MIN);
        }
    }

    /// The spin as of now, ns.
    pub fn spin_ns(&self) -> u64 {
        self.spin_ns
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_spin_covers_nearly_all_late_wake_ups() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut pacer = Pacer::new(Pacing::Hybrid);
        let (mut covered, count) = (0, 20_000);
        for _ in 0..count {
            let late_ns = random.random_range(10_000..60_000);
            covered += u32::from(late_ns <= pacer.spin_ns());
            pacer.woke_late_by(late_ns);
        }
        let share = f64::from(covered) / f64::from(count);
        assert!((0.96..0.995).contains(&share), "{share} of the wake-ups were covered");
    }

    #[test]
    fn the_spin_stays_within_its_bounds() {
        let mut pacer = Pacer::new(Pacing::Hybrid);
        for (late_ns, spin_ns) in [(10_000_000, SPIN_NS_MAX), (0, SPIN_NS_MIN)] {
            (0..1_000).for_each(|_| pacer.woke_late_by(late_ns));
            assert_eq!(pacer.spin_ns(), spin_ns);
        }
    }

    #[test]
    fn each_pacing_sleeps_as_it_says() {
        for (pacing, expected_ns) in [(Pacing::Sleep, 1_000_000), (Pacing::Hybrid, 950_000), (Pacing::Spin, 0)] {
            assert_eq!(Pacer::new(pacing).sleep(1_000_000), Duration::from_nanos(expected_ns), "{pacing:?}");
        }
        assert_eq!(Pacer::new(Pacing::Hybrid).sleep(10), Duration::ZERO);
    }
}
