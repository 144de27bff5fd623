//! n → intended send time. Pure: no clock, no network; the same seed gives the same schedule.
//!
//! Times are nanoseconds after the begin of the load. The schedule alone decides when an event is due; nothing a server does can
//! move it (that is what makes the loop open). How the rate changes ([`Curve`]) and how single times are drawn are independent of
//! each other: constant arrivals are Λ⁻¹(0), Λ⁻¹(1), Λ⁻¹(2), …; Poisson arrivals are Λ⁻¹ of the times of a Poisson process of rate 1,
//! which is exactly a Poisson process of the rate that Λ integrates (Çinlar, *Introduction to Stochastic Processes*, 1975, §4.7;
//! compared with thinning in Lewis & Shedler, *Naval Research Logistics Quarterly* 26, 1979, and Devroye, *Non-Uniform Random Variate
//! Generation*, 1986, §VI.1.3).

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reports::model::{Arrivals, Plan, Shape};

use crate::curve::Curve;
use crate::replay::Timeline;

/// When the next event is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time, whatever the server does (open loop).
    At(u64),
    /// As soon as a connection is free (closed loop).
    WhenFree,
}

/// What a schedule follows: all of it but the seed. Pure data; cloning it costs next to nothing.
#[derive(Clone, Debug)]
pub struct ScheduleSpec {
    /// How single times are drawn.
    pub arrivals: Arrivals,
    /// Events per second, greater than 0: the rate where there is no shape, the mean of a recording (its warm-up's rate). Ignored by
    /// the closed loop and by a shape, which has rates of its own.
    pub rate_per_s: f64,
    /// How the rate changes over the steady phase.
    pub shape: Option<Shape>,
    /// Times that are followed in the steady phase as they are.
    pub replay: Option<Arc<Timeline>>,
    /// Length of the warm-up.
    pub warmup_ns: u64,
    /// Length of the steady phase.
    pub steady_ns: u64,
}

impl ScheduleSpec {
    /// What `plan` asks for; `replay` is the timeline that it names.
    pub fn of(plan: &Plan, replay: Option<&Arc<Timeline>>) -> Self {
        Self {
            arrivals: plan.arrivals,
            rate_per_s: plan.rate_per_s,
            shape: plan.shape.clone(),
            replay: replay.cloned(),
            warmup_ns: plan.warmup_ms * 1_000_000,
            steady_ns: plan.duration_ms * 1_000_000,
        }
    }

    /// Mean rate over the steady phase, events per second.
    pub fn rate_per_s_mean(&self) -> f64 {
        if self.shape.is_none() {
            return self.rate_per_s;
        }
        let curve = self.curve();
        let (begin_ns, end_ns) = (self.warmup_ns as f64, (self.warmup_ns + self.steady_ns) as f64);
        (curve.events_before(end_ns) - curve.events_before(begin_ns)) * 1e9 / self.steady_ns as f64
    }

    /// Events of the warm-up: the number of the steady phase's first one. Walks through them.
    pub fn warmup_events(&self, seed: u64) -> u64 {
        let in_warmup = |due: &Due| matches!(due, Due::At(at_ns) if *at_ns < self.warmup_ns);
        Schedule::new(self, seed).take_while(in_warmup).count() as u64
    }

    fn curve(&self) -> Curve {
        match &self.shape {
            None => Curve::constant(self.rate_per_s),
            Some(shape) => Curve::of(shape, self.warmup_ns, self.steady_ns),
        }
    }
}

/// The intended send times of one load, in order.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    curve: Curve,
    /// Where the curve is left: the end of the load, or of the warm-up when a recording follows.
    curve_end_ns: u64,
    recorded: Option<Recorded>,
    length_ns: u64,
    /// Events so far.
    sequence: u64,
    /// Time of the Poisson process of rate 1.
    unit_time: f64,
    last_ns: u64,
    random: ChaCha8Rng,
}

#[derive(Debug)]
struct Recorded {
    timeline: Arc<Timeline>,
    next: usize,
    /// The warm-up is over.
    begun: bool,
}

impl Schedule {
    /// The schedule that `spec` and `seed` give.
    pub fn new(spec: &ScheduleSpec, seed: u64) -> Self {
        let length_ns = spec.warmup_ns + spec.steady_ns;
        let recorded =
            spec.replay.as_ref().map(|timeline| Recorded { timeline: Arc::clone(timeline), next: 0, begun: false });
        Self {
            arrivals: spec.arrivals,
            curve: spec.curve(),
            curve_end_ns: if recorded.is_some() { spec.warmup_ns } else { length_ns },
            recorded,
            length_ns,
            sequence: 0,
            unit_time: 0.0,
            last_ns: 0,
            // ChaCha8 is specified: unlike rand's default generator it gives the same schedule in every version.
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// End of the load, nanoseconds after its begin.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    fn next_recorded(&mut self) -> Option<Due> {
        let recorded = self.recorded.as_mut()?;
        recorded.begun = true;
        let row = recorded.timeline.rows().get(recorded.next)?;
        recorded.next += 1;
        // The curve ends where the recording begins.
        let at_ns = self.curve_end_ns + row.offset_ns;
        (at_ns < self.length_ns).then_some(Due::At(at_ns))
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        if self.recorded.as_ref().is_some_and(|recorded| recorded.begun) {
            return self.next_recorded();
        }
        let events = match self.arrivals {
            Arrivals::Closed => return Some(Due::WhenFree),
            // From n, not by adding gaps: rounding errors do not add up.
            Arrivals::Constant => self.sequence as f64,
            Arrivals::Poisson => {
                // An exponential gap by inversion; `1 - u` because `u` may be 0 and its logarithm is not a time.
                self.unit_time -= (1.0 - self.random.random::<f64>()).ln();
                self.unit_time
            }
        };
        self.sequence += 1;
        // Two Poisson events can be closer than a rounding error of the curve.
        let at_ns = (self.curve.time_ns(events) as u64).max(self.last_ns);
        if at_ns < self.curve_end_ns {
            self.last_ns = at_ns;
            return Some(Due::At(at_ns));
        }
        self.next_recorded()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn spec(arrivals: Arrivals, rate_per_s: f64, steady_ns: u64) -> ScheduleSpec {
        ScheduleSpec { arrivals, rate_per_s, shape: None, replay: None, warmup_ns: 0, steady_ns }
    }

    fn shaped(arrivals: Arrivals, shape: &Shape, warmup_ns: u64, steady_ns: u64) -> ScheduleSpec {
        ScheduleSpec { shape: Some(shape.clone()), warmup_ns, ..spec(arrivals, 1.0, steady_ns) }
    }

    fn times_ns(spec: &ScheduleSpec, seed: u64) -> Vec<u64> {
        Schedule::new(spec, seed)
            .map(|due| match due {
                Due::At(at_ns) => at_ns,
                Due::WhenFree => panic!("an open loop has times"),
            })
            .collect()
    }

    fn example_shapes() -> [Shape; 5] {
        [
            Shape::Ramp { from_per_s: 0.0, to_per_s: 5_000.0 },
            Shape::Ramp { from_per_s: 5_000.0, to_per_s: 0.0 },
            Shape::Ramp { from_per_s: 2_000.0, to_per_s: 2_000.1 },
            Shape::Steps { rates_per_s: vec![4_000.0, 0.0, 1_000.0, 2_000.0] },
            Shape::Burst { base_per_s: 1_000.0, height_per_s: 10_000.0, length_ms: 100, every_ms: 1_000 },
        ]
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let times = times_ns(&spec(Arrivals::Constant, 3.0, 1_000 * SECOND_NS), 1);
        assert_eq!(times.len(), 3_000);
        assert_eq!(times[2_997], 999 * SECOND_NS);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_deviation_of_an_exponential() {
        let times = times_ns(&spec(Arrivals::Poisson, 1_000.0, 200 * SECOND_NS), 7);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // 200,000 gaps: the standard error of either is 0.22 %, so 1 % is more than four of them (and the seed is fixed).
        assert!((mean / 1e6 - 1.0).abs() < 0.01, "mean gap {mean} ns");
        assert!((deviation / mean - 1.0).abs() < 0.01, "deviation {deviation} ns of mean {mean} ns");
    }

    #[test]
    fn another_seed_gives_another_schedule_and_the_same_seed_the_same() {
        let with_seed = |seed| times_ns(&spec(Arrivals::Poisson, 100.0, SECOND_NS), seed);
        assert_eq!(with_seed(1), with_seed(1));
        assert_ne!(with_seed(1), with_seed(2));
    }

    #[test]
    fn a_closed_loop_is_due_whenever_a_connection_is_free() {
        let spec = spec(Arrivals::Closed, 0.0, SECOND_NS);
        assert_eq!(Schedule::new(&spec, 1).next(), Some(Due::WhenFree));
    }

    #[test]
    fn a_ramp_is_twice_as_dense_where_its_rate_is_twice_as_high() {
        let ramp = Shape::Ramp { from_per_s: 0.0, to_per_s: 1_000.0 };
        let times = times_ns(&shaped(Arrivals::Constant, &ramp, 0, 10 * SECOND_NS), 1);
        let second = |s: u64| times.iter().filter(|&&at| at / SECOND_NS == s).count();
        assert_eq!((0..10).map(second).collect::<Vec<_>>(), [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]);
    }

    /// Counts in slices of equal Λ: for a Poisson process independent, with a variance equal to the mean, whatever the shape.
    #[test]
    fn counts_in_slices_of_equal_expectation_are_poisson_for_every_shape() {
        const SLICES: usize = 1_000;
        for (seed, shape) in example_shapes().iter().enumerate() {
            let spec = shaped(Arrivals::Poisson, shape, 2 * SECOND_NS, 60 * SECOND_NS);
            let curve = Curve::of(shape, spec.warmup_ns, spec.steady_ns);
            let all = curve.events_before(62.0 * SECOND_NS as f64 - 1.0);
            let mut counts = [0u32; SLICES];
            for at_ns in times_ns(&spec, seed as u64) {
                let slice = curve.events_before(at_ns as f64) / all * SLICES as f64;
                counts[(slice as usize).min(SLICES - 1)] += 1;
            }
            let mean = counts.iter().sum::<u32>() as f64 / SLICES as f64;
            let variance = counts.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / (SLICES - 1) as f64;
            // The index of dispersion of 1,000 Poisson counts has a standard error of √(2/999) = 4.5 %; the seeds are fixed.
            assert!((variance / mean - 1.0).abs() < 0.135, "{shape:?}: dispersion {}", variance / mean);
            let expected = all / SLICES as f64;
            let error = (expected / SLICES as f64).sqrt();
            assert!((mean - expected).abs() < 4.0 * error, "{shape:?}: {mean} a slice, not {expected}");
            // Neighbouring slices know nothing of each other (standard error 1/√1000 = 3.2 %).
            let products = counts.windows(2).map(|pair| (f64::from(pair[0]) - mean) * (f64::from(pair[1]) - mean));
            let correlation = products.sum::<f64>() / (SLICES - 1) as f64 / variance;
            assert!(correlation.abs() < 0.13, "{shape:?}: neighbours correlate by {correlation}");
        }
    }

    #[test]
    fn the_mean_rate_is_that_of_the_steady_phase_alone() {
        for (shape, expected) in example_shapes().iter().zip([2_500.0, 2_500.0, 2_000.05, 1_750.0, 1_900.0]) {
            let mean = shaped(Arrivals::Poisson, shape, 7 * SECOND_NS, 60 * SECOND_NS).rate_per_s_mean();
            assert!((mean - expected).abs() < 1e-6, "{shape:?}: {mean}");
        }
        assert_eq!(spec(Arrivals::Poisson, 123.0, SECOND_NS).rate_per_s_mean(), 123.0);
    }

    #[test]
    fn a_recording_follows_a_warm_up_at_its_mean_rate() {
        let timeline = Timeline::of_offsets_ns(&[0, 5, 5, 900_000_000]);
        let spec = ScheduleSpec {
            warmup_ns: 2 * SECOND_NS,
            replay: Some(Arc::new(timeline)),
            ..spec(Arrivals::Constant, 4.0, SECOND_NS)
        };
        let times = times_ns(&spec, 1);
        assert_eq!(times[..8], [0, 250, 500, 750, 1_000, 1_250, 1_500, 1_750].map(|ms| ms * 1_000_000));
        assert_eq!(times[8..], [0, 5, 5, 900_000_000].map(|offset_ns| 2 * SECOND_NS + offset_ns));
        assert_eq!(spec.warmup_events(1), 8);
        let poisson = ScheduleSpec { arrivals: Arrivals::Poisson, ..spec };
        let recorded = times_ns(&poisson, 3).split_off(poisson.warmup_events(3) as usize);
        assert_eq!(recorded, times[8..]);
    }

    fn any_shape() -> impl Strategy<Value = Shape> {
        prop_oneof![
            (0.0..20_000.0, 0.1..20_000.0).prop_map(|(from_per_s, to_per_s)| Shape::Ramp { from_per_s, to_per_s }),
            prop::collection::vec(0.1..20_000.0, 1..9).prop_map(|rates_per_s| Shape::Steps { rates_per_s }),
            (0.1..20_000.0, 0.1..20_000.0, 1u64..300, 1u64..300).prop_map(
                |(base_per_s, height_per_s, length_ms, rest)| Shape::Burst {
                    base_per_s,
                    height_per_s,
                    length_ms,
                    every_ms: length_ms + rest
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn times_never_go_back_and_stay_below_the_end(
            shape in prop::option::of(any_shape()), rate in 0.1..50_000.0, warmup_ms in 0u64..500, steady_ms in 1u64..2_000, seed: u64,
        ) {
            for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
                let warmup_ns = warmup_ms * 1_000_000;
                let spec = ScheduleSpec { shape: shape.clone(), warmup_ns, ..spec(arrivals, rate, steady_ms * 1_000_000) };
                let times = times_ns(&spec, seed);
                prop_assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert!(times.iter().all(|&at| at < (warmup_ms + steady_ms) * 1_000_000));
            }
        }

        /// The first event is due at once, so there are Λ(T) of them, rounded up.
        #[test]
        fn constant_arrivals_are_as_many_as_the_rate_adds_up_to(
            shape in any_shape(), warmup_ms in 0u64..500, steady_ms in 1u64..2_000,
        ) {
            let spec = shaped(Arrivals::Constant, &shape, warmup_ms * 1_000_000, steady_ms * 1_000_000);
            let end_ns = (warmup_ms + steady_ms) as f64 * 1e6;
            let expected = Curve::of(&shape, spec.warmup_ns, spec.steady_ns).events_before(end_ns - 1e-3);
            let count = times_ns(&spec, 1).len() as f64;
            // Within a millionth of a whole number, rounding decides.
            prop_assert!((expected - 1e-5).ceil() <= count && count <= (expected + 1e-5).ceil(), "{} of {}", count, expected);
        }
    }
}
