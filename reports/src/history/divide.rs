//! Where a series of numbers changes: E-divisive with its permutation test (Matteson and James, "A nonparametric approach for multiple change
//! point analysis of multivariate data", Journal of the American Statistical Association 109, 2014).
//!
//! The two sides of a split are compared by their energy distance, which sees any difference of two distributions and assumes none. Of all
//! splits into `[begin, at)` and `[at, until)` the one whose sides differ most is looked at; it is a change when hardly any order of the same
//! numbers has a split that good. Then both parts are looked at in the same way, until no part has one.
//!
//! Two things differ from the paper. Each part is tested by itself, not all parts together: a noisy part would hide the change of a quiet
//! one. And the test ends as soon as it cannot become significant any more, which changes no answer. Hunter (Apache Otava) took Student's t in place of
//! the permutations because two runs of its program then agree; a fixed seed does that too, and the t finds more than it should at the
//! same level (otava, pull request 154).
//!
//! What it assumes: that without a change every order of the runs is as likely as any other. Where neighbours resemble one another (a
//! machine that is in a slow mood all day), it marks more than it says. Measured on normal noise of deviation σ, with fixed seeds (300 series
//! without a change, 25 with one):
//!
#![doc = include_str!("rates.md")]

use crate::gate::rule::mixed;

/// When a change is one. All of it is fixed before anybody looks at the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Share of the orders of the same numbers that may have a split as good, 0..1: how often a series without a change gets a mark.
    pub significance: f64,
    /// Orders that are tried.
    pub orders: u32,
    /// Fewest numbers on either side of a change. A change is seen this many runs after it at the earliest.
    pub side_min: usize,
    /// Fewest numbers that are looked at: with fewer, two sides that have nothing in common would hardly be beyond chance.
    pub count_min: usize,
    /// Most numbers that are looked at, the last ones: the time it takes grows with the square.
    pub count_max: usize,
    /// Of the orders.
    pub seed: u64,
}

/// The one that is used.
pub const RULE: Rule =
    Rule { significance: 0.01, orders: 999, side_min: 5, count_min: 12, count_max: 500, seed: 20_140_301 };

/// One change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The first number that belongs to what came after.
    pub at: usize,
    /// Share of the orders (this one among them) that have a split as good.
    pub p: f64,
}

impl Rule {
    /// The changes of `values`, in their order; `None`: too few to tell. Of more than [`Rule::count_max`] the last ones are looked at.
    ///
    /// Multiplying all values, or adding to them, changes nothing. Values must be finite.
    pub fn changes(&self, values: &[f64]) -> Option<Vec<Change>> {
        if values.len() < self.count_min {
            return None;
        }
        let left_out = values.len().saturating_sub(self.count_max);
        let mut search = Search { rule: *self, drawn: self.seed, changes: Vec::new() };
        search.divide(&values[left_out..], left_out);
        search.changes.sort_by_key(|change| change.at);
        Some(search.changes)
    }
}

struct Search {
    rule: Rule,
    drawn: u64,
    changes: Vec<Change>,
}

impl Search {
    /// Looks for changes in `part`, which begins at `begin` of the series.
    fn divide(&mut self, part: &[f64], begin: usize) {
        let Some((at, difference)) = best_split(part, self.rule.side_min) else { return };
        let Some(p) = self.share_as_good(part, difference) else { return };
        self.changes.push(Change { at: begin + at, p });
        self.divide(&part[..at], begin);
        self.divide(&part[at..], begin + at);
    }

    /// Of the orders of `part`, this one among them, the share that have a split as good; `None`: more than the rule allows.
    fn share_as_good(&mut self, part: &[f64], difference: f64) -> Option<f64> {
        let orders = f64::from(self.rule.orders) + 1.0;
        let as_good_max = (self.rule.significance * orders + 1e-9).floor() as u32;
        let (mut order, mut as_good) = (part.to_vec(), 1);
        for _ in 0..self.rule.orders {
            self.shuffle(&mut order);
            // The same two sides in another order differ by the rounding of their sums.
            let enough = difference * (1.0 - 1e-9);
            if best_split(&order, self.rule.side_min).is_some_and(|(_, found)| found >= enough) {
                as_good += 1;
                if as_good > as_good_max {
                    return None;
                }
            }
        }
        Some(f64::from(as_good) / orders)
    }

    /// Every order equally likely (Fisher and Yates).
    fn shuffle(&mut self, order: &mut [f64]) {
        for last in (1..order.len()).rev() {
            let random = mixed(self.drawn);
            self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
            order.swap(last, ((u128::from(random) * (last as u128 + 1)) >> 64) as usize);
        }
    }
}

/// The split `[0, at)`, `[at, until)` of `values` whose sides differ most, over all `at` and `until` that leave `side_min` on either side:
/// where it is, and the paper's Q (the energy distance of the sides, weighted by their sizes). `None`: there is none.
fn best_split(values: &[f64], side_min: usize) -> Option<(usize, f64)> {
    let count = values.len();
    // Sum of the distances within the first k.
    let mut within_left = vec![0.0; count + 1];
    for k in 0..count {
        within_left[k + 1] = within_left[k] + values[..k].iter().map(|v| (v - values[k]).abs()).sum::<f64>();
    }
    // Sum of the distances within [at, k), for the `at` of the loop.
    let mut within_right = vec![0.0; count + 1];
    let mut best: Option<(usize, f64)> = None;
    for at in (side_min..count).rev() {
        let mut from_at = 0.0;
        for k in at + 1..count {
            from_at += (values[at] - values[k]).abs();
            within_right[k + 1] += from_at;
        }
        for until in at + side_min..=count {
            let (left, right) = (at as f64, (until - at) as f64);
            let between = within_left[until] - within_left[at] - within_right[until];
            let distance = 2.0 * between / (left * right)
                - 2.0 * within_left[at] / (left * (left - 1.0))
                - 2.0 * within_right[until] / (right * (right - 1.0));
            let difference = left * right / (left + right) * distance;
            if best.is_none_or(|(_, most)| difference > most) {
                best = Some((at, difference));
            }
        }
    }
    best.filter(|(_, difference)| *difference > 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{self, Rng};

    /// `count` numbers of mean 0 and deviation 1, each of which has `memory` of the one before it.
    fn noise(seed: u64, count: usize, memory: f64) -> Vec<f64> {
        let (mut rng, mut last) = (Rng(seed.wrapping_mul(0x5851_f42d_4c95_7f2d)), 0.0);
        let fresh = (1.0 - memory * memory).sqrt();
        (0..count + 20)
            .map(|_| {
                last = memory * last + fresh * rng.normal();
                last
            })
            .skip(20)
            .collect()
    }

    /// With `size` more from `begin` to before `end`.
    fn raised(mut values: Vec<f64>, begin: usize, end: usize, size: f64) -> Vec<f64> {
        values[begin..end].iter_mut().for_each(|value| *value += size);
        values
    }

    fn places(values: &[f64]) -> Vec<usize> {
        RULE.changes(values).unwrap().iter().map(|change| change.at).collect()
    }

    /// What `best_split` is by the paper's own formula.
    fn difference_by_the_book(values: &[f64], at: usize, until: usize) -> f64 {
        let (left, right) = (&values[..at], &values[at..until]);
        let mean = |one: &[f64], other: &[f64], pairs: f64| {
            one.iter().flat_map(|x| other.iter().map(move |y| (x - y).abs())).sum::<f64>() / pairs
        };
        let (m, n) = (left.len() as f64, right.len() as f64);
        let distance =
            2.0 * mean(left, right, m * n) - mean(left, left, m * (m - 1.0)) - mean(right, right, n * (n - 1.0));
        m * n / (m + n) * distance
    }

    #[test]
    fn the_best_split_is_that_of_the_formula_over_all_splits() {
        for seed in 0..20 {
            let values = raised(noise(seed, 17, 0.0), 9, 17, 1.0);
            let (at, difference) = best_split(&values, 5).unwrap();
            let all = (5..=12).flat_map(|at| (at + 5..=17).map(move |until| (at, until)));
            let (best_at, best) = all
                .map(|(at, until)| (at, difference_by_the_book(&values, at, until)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .unwrap();
            assert_eq!(at, best_at, "seed {seed}");
            assert!((difference - best).abs() < 1e-9, "seed {seed}: {difference}, not {best}");
        }
    }

    #[test]
    fn a_step_is_found_where_it_is_and_so_is_one_that_was_taken_back() {
        assert_eq!(places(&raised(noise(3, 40, 0.0), 22, 40, 6.0)), [22]);
        assert_eq!(places(&raised(noise(2, 40, 0.0), 12, 24, -6.0)), [12, 24]);
    }

    #[test]
    fn too_few_are_told_and_a_constant_series_has_no_change() {
        assert_eq!(RULE.changes(&noise(1, 11, 0.0)), None);
        assert!(places(&[0.0; 12]).is_empty());
        assert!(places(&[5e6; 60]).is_empty());
    }

    #[test]
    fn two_sides_that_have_nothing_in_common_are_told_apart_with_the_fewest_numbers() {
        let values = raised(noise(3, RULE.count_min, 0.0), RULE.count_min / 2, RULE.count_min, 50.0);
        assert_eq!(places(&values), [RULE.count_min / 2]);
    }

    #[test]
    fn one_outlier_is_no_change() {
        let mut values = noise(4, 30, 0.0);
        values[15] = 40.0;
        assert!(places(&values).is_empty());
    }

    #[test]
    fn of_a_series_that_is_too_long_the_end_is_looked_at() {
        let rule = Rule { count_max: 40, ..RULE };
        let values = raised(raised(noise(5, 100, 0.0), 30, 100, 9.0), 80, 100, 9.0);
        let found: Vec<usize> = rule.changes(&values).unwrap().iter().map(|change| change.at).collect();
        assert_eq!(found, [80]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn neither_a_factor_nor_a_sum_nor_a_mirror_changes_an_answer(
            seed in 0_u64..1_000, at in 5_usize..20, size in 0.0_f64..5.0, factor in 0.001_f64..1_000.0, sum in -50.0_f64..50.0
        ) {
            let values = raised(noise(seed, 25, 0.0), at, 25, size);
            let found = RULE.changes(&values).unwrap();
            let moved: Vec<f64> = values.iter().map(|value| value * factor + sum).collect();
            let mirrored: Vec<f64> = values.iter().map(|value| -value).collect();
            prop_assert_eq!(&RULE.changes(&moved).unwrap(), &found);
            prop_assert_eq!(&RULE.changes(&mirrored).unwrap(), &found);
        }

        #[test]
        fn changes_are_in_order_and_leave_enough_on_either_side(seed in 0_u64..1_000, sizes in prop::collection::vec(-8.0_f64..8.0, 1..5)) {
            let levels = sizes.iter().enumerate();
            let values: Vec<f64> = levels.flat_map(|(i, size)| raised(noise(seed + i as u64, 9, 0.0), 0, 9, *size)).collect();
            let found = RULE.changes(&values);
            prop_assert_eq!(found.is_none(), values.len() < RULE.count_min);
            let mut begin = 0;
            for at in found.iter().flatten().map(|change| change.at).chain([values.len()]) {
                prop_assert!(at >= begin + RULE.side_min);
                begin = at;
            }
        }
    }

    /// Share of `count` seeds that `is_so` of.
    fn share(count: u64, is_so: impl Fn(u64) -> bool) -> f64 {
        (0..count).filter(|seed| is_so(*seed)).count() as f64 / count as f64
    }

    #[test]
    fn false_alarms_are_no_more_than_stated() {
        for count in [12, 25] {
            let alarms = share(1_000, |seed| !places(&noise(seed, count, 0.0)).is_empty());
            // Three standard deviations above: a right rule passes for nearly every choice of the seeds.
            assert!(alarms <= RULE.significance + 3.0 * (0.01_f64 * 0.99 / 1_000.0).sqrt(), "{count} runs: {alarms}");
        }
    }

    /// One row of `rates.md`.
    fn measured(count: usize) -> [f64; 10] {
        let (nothing, steps) = (300, 25);
        let marked = |memory: f64| share(nothing, |seed| !places(&noise(seed, count, memory)).is_empty());
        let found =
            |seed: u64, begin: usize, end: usize, size: f64| places(&raised(noise(seed, count, 0.0), begin, end, size));
        let (middle, quarter) = (count / 2, (count / 4).max(RULE.side_min));
        let step = |size: f64| share(steps, |seed| !found(seed, middle, count, size).is_empty());
        let large: Vec<Vec<usize>> = (0..steps).map(|seed| found(seed, middle, count, 3.0)).collect();
        let of_large = |is_so: &dyn Fn(&[usize]) -> bool| {
            large.iter().filter(|places| is_so(places)).count() as f64 / steps as f64
        };
        [
            marked(0.0),
            marked(0.3),
            marked(0.6),
            step(1.0),
            step(2.0),
            of_large(&|places| !places.is_empty()),
            of_large(&|places| places.iter().any(|at| at.abs_diff(middle) <= 1)),
            of_large(&|places| places.len() > 1),
            share(steps, |seed| !found(seed, quarter, count, 3.0).is_empty()),
            share(steps, |seed| !found(seed, quarter, 2 * quarter, 3.0).is_empty()),
        ]
    }

    #[test]
    fn the_measured_rates_are_those_of_the_table() {
        let headings = [
            "runs",
            "nothing changes: marked",
            "… neighbours alike, correlation 0.3",
            "… 0.6",
            "a step of 1 σ in the middle: found",
            "… 2 σ",
            "… 3 σ",
            "… 3 σ, within one run of where it is",
            "… 3 σ, and marks beside it",
            "… 3 σ, after a quarter of the runs",
            "… 3 σ, and taken back after a second quarter",
        ];
        let mut text = format!("| {} |\n|{}\n", headings.join(" | "), "---|".repeat(headings.len()));
        for count in [12, 20, 30] {
            let cells = measured(count).map(|share| format!("{:.0} %", share * 100.0));
            text += &format!("| {count} | {} |\n", cells.join(" | "));
        }
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/history/rates.md");
        fixtures::assert_golden(&path, &text);
    }
}
