//! One generator's part of a load that several offer together (`--shard`).
//!
//! All of them walk through one schedule, from one seed, and number its requests alike; each sends those that are its own. Who owns which
//! follows from the number alone, so nobody has to be asked, and all parts together are the schedule of one generator, request by request.
//! Of Poisson arrivals each request belongs to a part drawn by a hash of its number: parts of a Poisson process whose points are dealt out by
//! chance are Poisson processes, independent of each other (Kingman, *Poisson Processes*, 1993, §5.1). All other requests go round in turn,
//! which keeps equal gaps equal, and divides what is recorded at one instant.

use std::fmt;
use std::str::FromStr;

use reports::model::{Arrivals, Plan};

/// Most parts: of more, each would send less than a hundredth and walk through all the same.
pub const SHARDS_MAX: u32 = 256;

/// Which part of how many. Pure data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub number: u32,
    /// All of them, 1 to [`SHARDS_MAX`].
    pub count: u32,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| {
            format!(
                "{problem}; allowed: K/N, which part of how many, such as 0/4 to 3/4; N is 1 to {SHARDS_MAX}, and K from 0 to N - 1"
            )
        };
        let parts = text.trim().split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        let (number, count): (u32, u32) = parts.ok_or_else(|| wrong("is no part of a load"))?;
        match (1..=SHARDS_MAX).contains(&count) && number < count {
            true => Ok(Self { number, count }),
            false => Err(wrong("is out of range")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl Shard {
    /// Its part of so many connections; those that are left over go to the first ones.
    pub fn connections(self, of: u32) -> u32 {
        of / self.count + u32::from(self.number < of % self.count)
    }

    /// Its part of a rate.
    pub fn rate_per_s(self, of: f64) -> f64 {
        of / f64::from(self.count)
    }

    /// Whether it is the one that looks at the target as a whole.
    pub fn is_first(self) -> bool {
        self.number == 0
    }
}

/// Which requests of a schedule are sent here: asked request by request, in their order.
#[derive(Clone, Debug)]
pub struct Share {
    shard: Shard,
    seed: u64,
    by_chance: bool,
    next: u64,
}

impl Share {
    /// All of them.
    pub fn whole() -> Self {
        Self { shard: Shard { number: 0, count: 1 }, seed: 0, by_chance: false, next: 0 }
    }

    /// Those of a part of `plan`, whose schedule has this seed.
    pub fn of(shard: Shard, plan: &Plan, seed: u64) -> Self {
        let by_chance = plan.arrivals == Arrivals::Poisson && plan.replay.is_none();
        Self { shard, seed, by_chance, next: 0 }
    }

    /// Whether the next request is sent here.
    pub fn takes_next(&mut self) -> bool {
        let Shard { number, count } = self.shard;
        let request = self.next;
        self.next += 1;
        let owner = match self.by_chance {
            // The high half of a product: unlike a remainder it favours none (Lemire, 2019).
            true => ((u128::from(mixed(mixed(self.seed) ^ request)) * u128::from(count)) >> 64) as u32,
            false => (request % u64::from(count)) as u32,
        };
        owner == number
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014), of the next number: 0 is not mixed to 0.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reports::arrivals::ArrivalCheck;
    use reports::model::ArrivalProcess;
    use reports::stats;

    use super::*;
    use crate::schedule::{Due, Schedule, ScheduleSpec};

    const SECOND_NS: u64 = 1_000_000_000;

    fn share(number: u32, count: u32, seed: u64, by_chance: bool) -> Share {
        Share { shard: Shard { number, count }, seed, by_chance, next: 0 }
    }

    fn times_ns(spec: &ScheduleSpec, seed: u64) -> Vec<u64> {
        let time = |due| match due {
            Due::At(at_ns) => at_ns,
            Due::WhenFree => panic!("an open loop has times"),
        };
        Schedule::new(spec, seed).map(time).collect()
    }

    fn part(times: &[u64], mut share: Share) -> Vec<u64> {
        times.iter().copied().filter(|_| share.takes_next()).collect()
    }

    fn spec(arrivals: Arrivals, rate_per_s: f64, seconds: u64) -> ScheduleSpec {
        let steady_ns = seconds * SECOND_NS;
        ScheduleSpec { arrivals, rate_per_s, shape: None, replay: None, warmup_ns: 0, steady_ns }
    }

    #[test]
    fn a_part_is_written_as_its_number_from_zero_and_their_count() {
        for (text, number, count) in [("0/1", 0, 1), ("3/4", 3, 4), (" 255/256 ", 255, 256)] {
            assert_eq!(text.parse(), Ok(Shard { number, count }), "{text}");
        }
        for text in ["", "1", "4/4", "1/0", "0/257", "-1/2", "a/b", "1/2/3", "0/"] {
            let told = text.parse::<Shard>().expect_err(text);
            assert!(told.contains("allowed: K/N") && told.contains("1 to 256"), "{told}");
        }
    }

    #[test]
    fn connections_are_shared_out_without_one_left_over() {
        for (all, count, parts) in [(64, 2, vec![32, 32]), (7, 3, vec![3, 2, 2]), (3, 3, vec![1, 1, 1])] {
            let shared: Vec<u32> = (0..count).map(|number| Shard { number, count }.connections(all)).collect();
            assert_eq!(shared, parts);
        }
    }

    /// Judged by the rules that a run is judged by, each part against its own part of the rate.
    #[test]
    fn each_part_of_a_poisson_schedule_is_poisson_and_knows_nothing_of_the_others() {
        let (rate, seconds, count) = (8_000.0, 60, 4);
        let times = times_ns(&spec(Arrivals::Poisson, rate, seconds), 11);
        let parts: Vec<_> = (0..count).map(|number| part(&times, share(number, count, 11, true))).collect();
        for times in &parts {
            let own = rate / f64::from(count);
            let mut check = ArrivalCheck::new(ArrivalProcess::Poisson, own, seconds * SECOND_NS, 0);
            times.iter().for_each(|at_ns| check.sent(*at_ns, *at_ns));
            let check = check.finish();
            let expected = check.expected.expect("a rate");
            assert!((check.planned as f64 - expected).abs() < 5.0 * expected.sqrt(), "{} of {expected}", check.planned);
            assert!(check.gap_distance_planned.expect("gaps") < stats::distance_max(check.planned, 1e-6), "{check:?}");
            for window in &check.windows {
                let (low, high) = stats::dispersion_between(window.windows, 5.0);
                assert!((low..=high).contains(&window.dispersion_planned), "{window:?}");
            }
        }
        // Counts of two parts in the same 10 ms: independent ones do not correlate (6,000 windows, standard error 1.3 %).
        let counts = |times: &[u64]| {
            let mut counts = vec![0.0; (seconds * 100) as usize];
            times.iter().for_each(|at_ns| counts[(at_ns / 10_000_000) as usize] += 1.0);
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            counts.into_iter().map(|n| n - mean).collect::<Vec<f64>>()
        };
        let (a, b) = (counts(&parts[0]), counts(&parts[1]));
        let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let correlation = product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt();
        assert!(correlation.abs() < 0.065, "they correlate by {correlation}");
    }

    #[test]
    fn each_part_of_equal_gaps_has_equal_gaps() {
        let times = times_ns(&spec(Arrivals::Constant, 900.0, 2), 1);
        for number in 0..3 {
            let own = part(&times, share(number, 3, 1, false));
            assert_eq!(own.len(), 600);
            assert!(own.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(SECOND_NS / 300) <= 1), "part {number}");
        }
    }

    proptest! {
        /// Whatever the count, the seed and the way of dealing: every request has one owner.
        #[test]
        fn all_parts_together_are_the_whole(count in 1u32..=256, seed: u64, by_chance: bool, requests in 0usize..2_000) {
            let mut shares: Vec<Share> = (0..count).map(|number| share(number, count, seed, by_chance)).collect();
            for request in 0..requests {
                let owners = shares.iter_mut().map(|share| u32::from(share.takes_next())).sum::<u32>();
                prop_assert_eq!(owners, 1, "request {}", request);
            }
        }
    }
}
