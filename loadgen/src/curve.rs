//! Rate over time, its integral Λ and Λ's inverse, all in closed form: how many events have been due by a time, and when the n-th is.
//!
//! Every shape is a line of pieces whose rate changes linearly: the warm-up, then a cycle that repeats until somebody stops asking.
//! Nothing is added up from event to event, so rounding errors do not add up either, and a time costs the same whatever came before.
//! Times are nanoseconds after the begin of the load, rates events per second.

use reports::model::Shape;

const SECOND_NS: f64 = 1e9;

/// Expected events over time: Λ and its inverse.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The warm-up; endless where the rate never changes.
    lead_in: Piece,
    /// What comes after it, over and over. A shape that fills its phase comes round once.
    cycle: Vec<Piece>,
    cycle_ns: f64,
    cycle_events: f64,
}

/// A time during which the rate changes linearly, or not at all.
#[derive(Clone, Copy, Debug)]
struct Piece {
    begin_ns: f64,
    length_ns: f64,
    /// Events of the cycle before this piece.
    events_before: f64,
    events: f64,
    rate_per_s: f64,
    slope_per_s2: f64,
}

impl Piece {
    fn new(before: Option<&Self>, length_ns: f64, from_per_s: f64, to_per_s: f64) -> Self {
        let slope_per_s2 = (to_per_s - from_per_s) / (length_ns / SECOND_NS);
        Self {
            begin_ns: before.map_or(0.0, |before| before.begin_ns + before.length_ns),
            length_ns,
            events_before: before.map_or(0.0, |before| before.events_before + before.events),
            events: (from_per_s + to_per_s) / 2.0 * length_ns / SECOND_NS,
            rate_per_s: from_per_s,
            slope_per_s2,
        }
    }

    /// Events within the first `offset_ns` of this piece.
    fn events_at(&self, offset_ns: f64) -> f64 {
        let s = offset_ns / SECOND_NS;
        s * (self.rate_per_s + self.slope_per_s2 * s / 2.0)
    }

    /// When `events` of this piece have been due, ns after its begin.
    ///
    /// The root of `slope/2·s² + rate·s = events` with the radical in the denominator: the usual form subtracts two nearly equal numbers
    /// where the slope is small, and divides by zero where there is none (Higham, *Accuracy and Stability of Numerical Algorithms*,
    /// 2nd ed., 2002, §1.8). Without a slope it is `events / rate`, rounded once.
    fn offset_ns(&self, events: f64) -> f64 {
        if events <= 0.0 {
            return 0.0;
        }
        // Rounding can take it below 0 at the end of a ramp to 0.
        let rate_then_squared = (self.rate_per_s * self.rate_per_s + 2.0 * self.slope_per_s2 * events).max(0.0);
        (2.0 * SECOND_NS * events / (self.rate_per_s + rate_then_squared.sqrt())).min(self.length_ns)
    }
}

impl Curve {
    /// The same rate for ever.
    pub fn constant(rate_per_s: f64) -> Self {
        // Not through `new`: the slope of an endless piece is no number.
        let (length_ns, events) = (f64::INFINITY, f64::INFINITY);
        let (begin_ns, events_before, slope_per_s2) = (0.0, 0.0, 0.0);
        let lead_in = Piece { begin_ns, length_ns, events_before, events, rate_per_s, slope_per_s2 };
        Self { lead_in, cycle: Vec::new(), cycle_ns: 0.0, cycle_events: 0.0 }
    }

    /// `shape` over a steady phase of `steady_ns`, after a warm-up of `warmup_ns` at the rate with which it begins.
    pub fn of(shape: &Shape, warmup_ns: u64, steady_ns: u64) -> Self {
        let steady_ns = steady_ns as f64;
        let parts: Vec<(f64, f64, f64)> = match *shape {
            Shape::Ramp { from_per_s, to_per_s } => vec![(steady_ns, from_per_s, to_per_s)],
            Shape::Steps { ref rates_per_s } => {
                rates_per_s.iter().map(|&rate| (steady_ns / rates_per_s.len() as f64, rate, rate)).collect()
            }
            Shape::Burst { base_per_s, height_per_s, length_ms, every_ms } => {
                let (length_ns, every_ns) = (length_ms as f64 * 1e6, every_ms as f64 * 1e6);
                let quiet_ns = (every_ns - length_ns) / 2.0;
                // In the middle of its period, so that the phase also has the recovery from the last burst.
                vec![
                    (quiet_ns, base_per_s, base_per_s),
                    (length_ns, height_per_s, height_per_s),
                    (quiet_ns, base_per_s, base_per_s),
                ]
            }
        };
        let mut cycle: Vec<Piece> = Vec::with_capacity(parts.len());
        for (length_ns, from_per_s, to_per_s) in parts {
            cycle.push(Piece::new(cycle.last(), length_ns, from_per_s, to_per_s));
        }
        let begin_per_s = cycle.first().map_or(0.0, |piece| piece.rate_per_s);
        let lead_in = if warmup_ns > 0 {
            Piece::new(None, warmup_ns as f64, begin_per_s, begin_per_s)
        } else {
            Piece { length_ns: 0.0, events: 0.0, ..Self::constant(begin_per_s).lead_in }
        };
        let end = cycle.last().map_or((0.0, 0.0), |end| (end.begin_ns + end.length_ns, end.events_before + end.events));
        Self { lead_in, cycle, cycle_ns: end.0, cycle_events: end.1 }
    }

    /// Λ: events due before `time_ns`.
    pub fn events_before(&self, time_ns: f64) -> f64 {
        if time_ns < self.lead_in.length_ns {
            return self.lead_in.events_at(time_ns);
        }
        let after_ns = time_ns - self.lead_in.length_ns;
        let turns = (after_ns / self.cycle_ns).floor();
        let rest_ns = after_ns - turns * self.cycle_ns;
        let at = self.cycle.partition_point(|piece| piece.begin_ns + piece.length_ns <= rest_ns);
        let within =
            self.cycle.get(at).map_or(0.0, |piece| piece.events_before + piece.events_at(rest_ns - piece.begin_ns));
        self.lead_in.events + turns * self.cycle_events + within
    }

    /// Λ⁻¹: when event number `events` (a real number, as a Poisson process needs it; at least 0) is due. Where no event is due for a
    /// while, the end of that while. Infinite when that many never are.
    pub fn time_ns(&self, events: f64) -> f64 {
        if events < self.lead_in.events {
            return self.lead_in.offset_ns(events);
        }
        let after = events - self.lead_in.events;
        let turns = (after / self.cycle_events).floor();
        if !turns.is_finite() {
            return f64::INFINITY;
        }
        // The product is rounded, and may be a trifle more than what it is taken from.
        let rest = (after - turns * self.cycle_events).max(0.0);
        let at = self.cycle.partition_point(|piece| piece.events_before + piece.events <= rest);
        let within_ns = self
            .cycle
            .get(at)
            .map_or(self.cycle_ns, |piece| piece.begin_ns + piece.offset_ns(rest - piece.events_before));
        self.lead_in.length_ns + turns * self.cycle_ns + within_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WARMUP_NS: u64 = 3_000_000_000;

    fn ramp(from_per_s: f64, to_per_s: f64) -> Shape {
        Shape::Ramp { from_per_s, to_per_s }
    }

    fn burst() -> Shape {
        Shape::Burst { base_per_s: 1_000.0, height_per_s: 10_000.0, length_ms: 100, every_ms: 1_000 }
    }

    #[test]
    fn the_integral_of_each_shape_is_the_area_below_its_rate() {
        // (shape, seconds of the steady phase, events by then)
        for (shape, seconds, expected) in [
            (ramp(0.0, 100.0), 10.0, 500.0),
            (ramp(0.0, 100.0), 5.0, 125.0),
            (ramp(300.0, 100.0), 10.0, 2_000.0),
            (ramp(100.0, 100.0), 7.5, 750.0),
            (Shape::Steps { rates_per_s: vec![100.0, 0.0, 400.0, 10.0] }, 2.5, 250.0),
            (Shape::Steps { rates_per_s: vec![100.0, 0.0, 400.0, 10.0] }, 4.0, 250.0),
            (Shape::Steps { rates_per_s: vec![100.0, 0.0, 400.0, 10.0] }, 10.0, 1_275.0),
            (burst(), 0.45, 450.0),
            (burst(), 0.5, 950.0),
            (burst(), 0.55, 1_450.0),
            (burst(), 1.0, 1_900.0),
            (burst(), 10.0, 19_000.0),
        ] {
            let curve = Curve::of(&shape, 0, 10_000_000_000);
            let found = curve.events_before(seconds * SECOND_NS);
            assert!((found - expected).abs() < 1e-6, "{shape:?} by {seconds} s: {found}, not {expected}");
        }
    }

    #[test]
    fn the_warm_up_runs_at_the_rate_with_which_the_shape_begins() {
        for (shape, rate_per_s) in [
            (ramp(200.0, 1_000.0), 200.0),
            (ramp(0.0, 1_000.0), 0.0),
            (Shape::Steps { rates_per_s: vec![50.0, 100.0] }, 50.0),
            (burst(), 1_000.0),
        ] {
            let curve = Curve::of(&shape, WARMUP_NS, 10_000_000_000);
            assert_eq!(curve.events_before(WARMUP_NS as f64), rate_per_s * 3.0, "{shape:?}");
        }
    }

    #[test]
    fn a_time_without_events_is_passed_over_and_what_never_is_due_is_never_due() {
        let curve = Curve::of(&Shape::Steps { rates_per_s: vec![0.0, 100.0, 0.0, 100.0] }, WARMUP_NS, 4_000_000_000);
        assert_eq!(curve.time_ns(0.0), 4e9);
        assert_eq!(curve.time_ns(99.0), 4.99e9);
        assert_eq!(curve.time_ns(100.0), 6e9);
        let silent = Curve::of(&ramp(0.0, 0.0), WARMUP_NS, 1_000_000_000);
        assert_eq!(silent.time_ns(0.0), f64::INFINITY);
    }

    #[test]
    fn a_ramp_that_hardly_rises_is_a_constant_rate() {
        let level = Curve::constant(1_000.0);
        for to_per_s in [1_000.0, 1_000.0 + 1e-9, 1_000.0 - 1e-9, 1_000.0 + 1e-12] {
            let curve = Curve::of(&ramp(1_000.0, to_per_s), 0, 86_400_000_000_000);
            for events in [0.0, 1.0, 12_345.0, 80_000_000.0] {
                let (found, expected) = (curve.time_ns(events), level.time_ns(events));
                assert!((found - expected).abs() < 1e3, "to {to_per_s}: event {events} at {found}, not {expected}");
            }
        }
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let rate = || prop_oneof![1 => Just(0.0), 9 => 0.1..50_000.0];
        prop_oneof![
            (rate(), 0.1..50_000.0).prop_map(|(from, to)| ramp(from, to)),
            (0.1..50_000.0, rate()).prop_map(|(from, to)| ramp(from, to)),
            (0.1..50_000.0, -1e-6..1e-6).prop_map(|(from, more)| ramp(from, from + more)),
            (prop::collection::vec(rate(), 0..20), 0.1..50_000.0).prop_map(|(mut rates_per_s, last)| {
                rates_per_s.push(last);
                Shape::Steps { rates_per_s }
            }),
            (0.1..50_000.0, 0.1..50_000.0, 1u64..500, 1u64..500).prop_map(
                |(base_per_s, height_per_s, length_ms, rest)| {
                    Shape::Burst { base_per_s, height_per_s, length_ms, every_ms: length_ms + rest }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn the_inverse_of_the_integral_is_its_inverse(
            shape in shapes(), warmup_ms in 0u64..5_000, steady_ms in 100u64..60_000, share in 0.0..1.0,
        ) {
            let (warmup_ns, steady_ns) = (warmup_ms * 1_000_000, steady_ms * 1_000_000);
            let curve = Curve::of(&shape, warmup_ns, steady_ns);
            let all = curve.events_before((warmup_ns + steady_ns) as f64 * (1.0 - 1e-12));
            let events = all * share;
            let again = curve.events_before(curve.time_ns(events));
            prop_assert!((again - events).abs() <= 1e-6 + 1e-9 * all, "{} became {}", events, again);
        }

        #[test]
        fn more_events_take_longer(shape in shapes(), warmup_ms in 0u64..5_000, first in 0.0..1e6, more in 1e-3..1e3) {
            let curve = Curve::of(&shape, warmup_ms * 1_000_000, 10_000_000_000);
            let (earlier, later) = (curve.time_ns(first), curve.time_ns(first + more));
            prop_assert!(earlier <= later, "{} at {}, {} at {}", first, earlier, first + more, later);
        }
    }
}
