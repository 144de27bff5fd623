//! n → intended send time. Pure: no clock, no network; the same seed gives the same schedule.
//!
//! Times are nanoseconds after the begin of the load. The schedule alone decides when an event is due; nothing a server does can
//! move it (that is what makes the loop open).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reports::model::Arrivals;

/// When the next event is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time, whatever the server does (open loop).
    At(u64),
    /// As soon as a connection is free (closed loop).
    WhenFree,
}

/// The intended send times of one load, in order; ends at `length_ns`.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    gap_ns_mean: f64,
    length_ns: u64,
    sequence: u64,
    last_ns: f64,
    random: ChaCha8Rng,
}

impl Schedule {
    /// A schedule of `rate_per_s` events per second (greater than 0; ignored by the closed loop) over `length_ns`.
    pub fn new(arrivals: Arrivals, rate_per_s: f64, length_ns: u64, seed: u64) -> Self {
        Self {
            arrivals,
            gap_ns_mean: 1e9 / rate_per_s,
            length_ns,
            sequence: 0,
            last_ns: 0.0,
            // ChaCha8 is specified: unlike rand's default generator it gives the same schedule in every version.
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// End of the load, nanoseconds after its begin.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// An exponential gap by inversion; `1 - u` because `u` may be 0 and its logarithm is not a time.
    fn exponential_gap_ns(&mut self) -> f64 {
        -(1.0 - self.random.random::<f64>()).ln() * self.gap_ns_mean
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let at_ns = match self.arrivals {
            Arrivals::Closed => return Some(Due::WhenFree),
            // From n, not by adding gaps: rounding errors do not add up.
            Arrivals::Constant => (self.sequence as f64 * self.gap_ns_mean) as u64,
            Arrivals::Poisson => {
                self.last_ns += self.exponential_gap_ns();
                self.last_ns as u64
            }
        };
        self.sequence += 1;
        (at_ns < self.length_ns).then_some(Due::At(at_ns))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn times_ns(arrivals: Arrivals, rate_per_s: f64, length_ns: u64, seed: u64) -> Vec<u64> {
        Schedule::new(arrivals, rate_per_s, length_ns, seed)
            .map(|due| match due {
                Due::At(at_ns) => at_ns,
                Due::WhenFree => panic!("an open loop has times"),
            })
            .collect()
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let times = times_ns(Arrivals::Constant, 3.0, 1_000 * SECOND_NS, 1);
        assert_eq!(times.len(), 3_000);
        assert_eq!(times[2_997], 999 * SECOND_NS);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_deviation_of_an_exponential() {
        let times = times_ns(Arrivals::Poisson, 1_000.0, 200 * SECOND_NS, 7);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // 200,000 gaps: the standard error of either is 0.22 %, so 1 % is more than four of them (and the seed is fixed).
        assert!((mean / 1e6 - 1.0).abs() < 0.01, "mean gap {mean} ns");
        assert!((deviation / mean - 1.0).abs() < 0.01, "deviation {deviation} ns of mean {mean} ns");
    }

    #[test]
    fn another_seed_gives_another_schedule_and_the_same_seed_the_same() {
        let with_seed = |seed| times_ns(Arrivals::Poisson, 100.0, SECOND_NS, seed);
        assert_eq!(with_seed(1), with_seed(1));
        assert_ne!(with_seed(1), with_seed(2));
    }

    #[test]
    fn a_closed_loop_is_due_whenever_a_connection_is_free() {
        assert_eq!(Schedule::new(Arrivals::Closed, 1.0, SECOND_NS, 1).next(), Some(Due::WhenFree));
    }

    proptest! {
        #[test]
        fn times_never_go_back_and_stay_below_the_end(rate in 0.1..50_000.0, length_ms in 1u64..2_000, seed: u64) {
            for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
                let times = times_ns(arrivals, rate, length_ms * 1_000_000, seed);
                prop_assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert!(times.iter().all(|&at| at < length_ms * 1_000_000));
            }
        }
    }
}
