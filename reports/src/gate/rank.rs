//! The exact statistics of paired differences: the signed-rank test of Wilcoxon (1945), the estimate of Hodges and Lehmann (1963) that
//! belongs to it, its interval, and what a family of tests or a share may claim.
//!
//! Nothing here is approximated: every probability is a count of the 2^n sign patterns. Equal absolute differences get their mean rank, and
//! the counts are those of these very ranks (the distribution given the ties), so a p-value is exact with ties too. Differences of 0 are
//! dropped, as Wilcoxon did. The interval is that of the ranks without ties: with ties it covers at least as often as it says, since it
//! includes its ends (Lehmann, *Nonparametrics*, 1975, section 4.4).
//!
//! What it assumes: that pairs are independent and that, where there is no effect, a difference is as likely to be positive as negative.
//! Balanced random order and fresh processes are there to make that so.

/// Most differences that are counted exactly: 2^n fits a `u128` and its sums do too.
pub const PAIRS_MAX: usize = 100;

/// `P(W⁺ ≥ observed)` when every sign is as likely as its opposite, for the differences `values` against 0: small when they are mostly
/// and by much above it. 1 when nothing differs from 0.
///
/// # Panics
/// With more than [`PAIRS_MAX`] differences, or one that is no number.
pub fn p_greater(values: &[f64]) -> f64 {
    let ranked = Ranked::of(values);
    let at_least: u128 = ranked.patterns().iter().skip(ranked.positive).sum();
    at_least as f64 / 2f64.powi(ranked.ranks.len() as i32)
}

/// Differences that are not 0: twice their ranks (mean ranks are halves), and the sum of those of the positive ones.
struct Ranked {
    ranks: Vec<usize>,
    positive: usize,
}

impl Ranked {
    fn of(values: &[f64]) -> Self {
        assert!(values.len() <= PAIRS_MAX, "{} differences; at most {PAIRS_MAX} are counted", values.len());
        assert!(values.iter().all(|value| !value.is_nan()), "a difference that is no number has no rank");
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| *value != 0.0).collect();
        sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let (mut ranks, mut positive) = (Vec::with_capacity(sorted.len()), 0);
        for equal in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
            // Of ranks i+1 ..= i+m, twice the mean.
            let rank = 2 * ranks.len() + 1 + equal.len();
            positive += rank * equal.iter().filter(|value| **value > 0.0).count();
            ranks.extend(std::iter::repeat_n(rank, equal.len()));
        }
        Self { ranks, positive }
    }

    /// How many of the sign patterns have each sum of positive ranks.
    fn patterns(&self) -> Vec<u128> {
        patterns(&self.ranks)
    }
}

fn patterns(ranks: &[usize]) -> Vec<u128> {
    let mut counts = vec![0; ranks.iter().sum::<usize>() + 1];
    counts[0] = 1;
    for &rank in ranks {
        for sum in (rank..counts.len()).rev() {
            counts[sum] += counts[sum - rank];
        }
    }
    counts
}

/// Means of all pairs of `values`, each with itself too (Walsh averages), sorted.
pub fn walsh(values: &[f64]) -> Vec<f64> {
    let mut means: Vec<f64> =
        (0..values.len()).flat_map(|i| (i..values.len()).map(move |j| (values[i] + values[j]) / 2.0)).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The shift of `values` from 0 that the signed-rank test finds least surprising (Hodges–Lehmann); `None` of none.
pub fn estimate(values: &[f64]) -> Option<f64> {
    let means = walsh(values);
    let middle = |at: usize| means.get(at).copied();
    match means.len() {
        0 => None,
        n if n % 2 == 1 => middle(n / 2),
        n => Some((middle(n / 2 - 1)? + middle(n / 2)?) / 2.0),
    }
}

/// Which Walsh average from either end bounds the shift of `count` differences, so that it lies below (or above) with a probability of at
/// most `alpha` on that side; 1-based. `None`: so few say nothing at that level.
pub fn bound_rank(count: usize, alpha: f64) -> Option<usize> {
    let ranks: Vec<usize> = (1..=count.min(PAIRS_MAX)).collect();
    let all = 2f64.powi(ranks.len() as i32);
    let mut sum = 0u128;
    let within = patterns(&ranks).into_iter().take_while(|n| {
        sum += n;
        sum as f64 / all <= alpha
    });
    match within.count() {
        0 => None,
        k => Some(k),
    }
}

/// Between what the shift of `values` lies, but for a probability of `alpha` on either side; open where there are too few to say.
pub fn interval(values: &[f64], alpha: f64) -> (f64, f64) {
    match bound_rank(values.len(), alpha) {
        Some(k) => {
            let means = walsh(values);
            (means[k - 1], means[means.len() - k])
        }
        None => (f64::NEG_INFINITY, f64::INFINITY),
    }
}

/// Which of the tests with these p-values reject, so that the probability that any of them does so wrongly is at most `alpha` (Holm, 1979).
pub fn holm(p_values: &[f64], alpha: f64) -> Vec<bool> {
    adjusted(p_values).into_iter().map(|p| p <= alpha).collect()
}

/// The p-values as [`holm`] compares them with its `alpha`.
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let (mut adjusted, mut largest) = (vec![1.0; p_values.len()], 0.0_f64);
    for (place, at) in order.into_iter().enumerate() {
        largest = largest.max((p_values.len() - place) as f64 * p_values[at]).min(1.0);
        adjusted[at] = largest;
    }
    adjusted
}

/// Between what a share lies of which `hits` of `count` were seen, but for a probability of `alpha` on either side (Clopper and Pearson,
/// 1934): exact, and so never narrower than it says.
pub fn share_bounds(hits: u64, count: u64, alpha: f64) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    let at_least = |p: f64| binomial_tail(hits, count, p);
    let at_most = |p: f64| 1.0 - binomial_tail(hits + 1, count, p);
    let low = if hits == 0 { 0.0 } else { bisect(|p| at_least(p) < alpha) };
    let high = if hits >= count { 1.0 } else { bisect(|p| at_most(p) > alpha) };
    (low, high)
}

/// `P(X ≥ hits)` of a binomial X.
fn binomial_tail(hits: u64, count: u64, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return if hits == 0 || p >= 1.0 { 1.0 } else { 0.0 };
    }
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    for k in 0..=count {
        if k > 0 {
            log_choose += ((count - k + 1) as f64).ln() - (k as f64).ln();
        }
        if k >= hits {
            sum += (log_choose + k as f64 * p.ln() + (count - k) as f64 * (1.0 - p).ln()).exp();
        }
    }
    sum.min(1.0)
}

/// Where in 0..=1 a condition that holds below and not above ends.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if holds(middle) { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Spearman's rank correlation; `None` with fewer than three pairs or without any change on one side.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let (x, y) = (mean_ranks(pairs.iter().map(|p| p.0)), mean_ranks(pairs.iter().map(|p| p.1)));
    let mean = (pairs.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let scale = (product(&x, &x) * product(&y, &y)).sqrt();
    (scale > 0.0).then(|| product(&x, &y) / scale)
}

fn mean_ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count() as f64;
        let equal = values.iter().filter(|other| *other == value).count() as f64;
        below + (equal + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by trying every pattern of signs.
    fn p_by_force(values: &[f64]) -> f64 {
        let values: Vec<f64> = values.iter().copied().filter(|value| *value != 0.0).collect();
        let ranks = mean_ranks(values.iter().map(|value| value.abs()));
        let sum = |positive: &dyn Fn(usize) -> bool| -> f64 {
            ranks.iter().enumerate().filter(|(at, _)| positive(*at)).map(|(_, rank)| rank).sum()
        };
        let observed = sum(&|at| values[at] > 0.0);
        let patterns = 1u32 << values.len();
        let hits = (0..patterns).filter(|signs| sum(&|at| signs >> at & 1 == 1) >= observed - 1e-9).count();
        hits as f64 / f64::from(patterns)
    }

    /// One-sided levels .05, .025, .01, .05/6, .05/12.
    const BOUND_RANKS: [(usize, [usize; 5]); 8] = [
        (8, [6, 4, 2, 2, 1]),
        (10, [11, 9, 6, 5, 3]),
        (12, [18, 14, 10, 10, 7]),
        (15, [31, 26, 20, 19, 15]),
        (16, [36, 30, 24, 23, 19]),
        (20, [61, 53, 44, 42, 37]),
        (24, [92, 82, 70, 68, 60]),
        (30, [152, 138, 121, 118, 107]),
    ];

    #[test]
    fn the_bounds_of_the_interval_are_those_of_the_table() {
        for (count, expected) in BOUND_RANKS {
            let found = [0.05, 0.025, 0.01, 0.05 / 6.0, 0.05 / 12.0].map(|alpha| bound_rank(count, alpha).unwrap_or(0));
            assert_eq!(found, expected, "{count} pairs");
        }
    }

    #[test]
    fn so_few_pairs_say_nothing() {
        // The smallest p is 2^−n.
        for (count, alpha, expected) in
            [(4, 0.05, None), (5, 0.05, Some(1)), (7, 0.05 / 12.0, None), (8, 0.05 / 12.0, Some(1)), (0, 0.5, None)]
        {
            assert_eq!(bound_rank(count, alpha), expected, "{count} pairs at {alpha}");
        }
        assert_eq!(interval(&[1.0, 2.0], 0.05), (f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!((p_greater(&[]), p_greater(&[0.0, 0.0]), estimate(&[])), (1.0, 1.0, None));
    }

    #[test]
    fn known_examples_come_out() {
        // Hollander and Wolfe, Nonparametric Statistical Methods, example 3.1 (Hamilton depression scale): W⁺ of the improvements is 40 of
        // 45, p = 0.0195; the estimate is 0.46, the interval of 96.1 % goes from 0.010 to 0.786.
        let improvements = [0.952, -0.147, 1.022, 0.430, 0.620, 0.590, 0.490, -0.080, 0.010];
        assert!((p_greater(&improvements) - 0.0195).abs() < 5e-5, "{}", p_greater(&improvements));
        assert!((estimate(&improvements).unwrap() - 0.46).abs() < 0.0005);
        let (low, high) = interval(&improvements, 0.02);
        assert!((low - 0.010).abs() < 1e-9 && (high - 0.786).abs() < 1e-9, "{low} to {high}");
    }

    #[test]
    fn holm_rejects_step_by_step_and_stops_at_the_first_that_holds() {
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005], 0.05), [true, false, false, true]);
        assert_eq!(holm(&[0.012, 0.026, 0.03], 0.05), [true, false, false]);
        assert_eq!(adjusted(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
        assert_eq!(holm(&[], 0.05), [] as [bool; 0]);
    }

    #[test]
    fn bounds_of_a_share_are_exact() {
        // None in 59 is what it takes to claim at most 5 % with 95 % confidence; the rule of three.
        assert!((share_bounds(0, 59, 0.05).1 - 0.0495).abs() < 5e-5);
        assert!(share_bounds(0, 58, 0.05).1 > 0.05);
        assert!(share_bounds(1, 93, 0.05).1 <= 0.05 && share_bounds(1, 92, 0.05).1 > 0.05);
        assert!(share_bounds(2, 124, 0.05).1 <= 0.05 && share_bounds(2, 123, 0.05).1 > 0.05);
        // 9 of 10 at 2.5 % on either side: 0.555 to 0.9975 in every table.
        let (low, high) = share_bounds(9, 10, 0.025);
        assert!((low - 0.5550).abs() < 5e-5 && (high - 0.99747).abs() < 5e-5, "{low} {high}");
        assert_eq!((share_bounds(0, 0, 0.05), share_bounds(7, 7, 0.05).1), ((0.0, 1.0), 1.0));
    }

    #[test]
    fn ranks_correlate_by_their_order_alone() {
        let rising: Vec<(f64, f64)> = (0..6).map(|i| (f64::from(i), f64::from(i * i))).collect();
        let close = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?}");
        close(spearman(&rising), 1.0);
        close(spearman(&rising.iter().map(|(x, y)| (*x, -y)).collect::<Vec<_>>()), -1.0);
        assert_eq!(spearman(&[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]), None);
    }

    fn differences() -> impl Strategy<Value = Vec<f64>> {
        // Few different values, so that there are ties and zeros.
        prop_oneof![
            prop::collection::vec((-4i32..=4).prop_map(f64::from), 0..=12),
            prop::collection::vec(-1.0..1.0f64, 0..=12),
        ]
    }

    proptest! {
        #[test]
        fn p_is_the_share_of_all_sign_patterns(values in differences()) {
            prop_assert!((p_greater(&values) - p_by_force(&values)).abs() < 1e-12);
        }

        #[test]
        fn turning_the_signs_turns_everything(values in differences(), alpha in 0.001..0.3f64) {
            let turned: Vec<f64> = values.iter().map(|value| -value).collect();
            let (low, high) = interval(&values, alpha);
            prop_assert_eq!(interval(&turned, alpha), (-high, -low));
            prop_assert_eq!(estimate(&turned), estimate(&values).map(|value| -value + 0.0));
            // Both tails have what lies exactly at the observed sum.
            prop_assert!(p_greater(&values) + p_greater(&turned) >= 1.0 - 1e-12);
        }

        #[test]
        fn the_order_of_the_pairs_and_the_scale_do_not_matter(mut values in differences(), power in -8i32..8) {
            let p = p_greater(&values);
            values.reverse();
            prop_assert_eq!(p_greater(&values), p);
            let scaled: Vec<f64> = values.iter().map(|value| value * 2f64.powi(power)).collect();
            prop_assert_eq!(p_greater(&scaled), p);
        }

        /// The interval and the test are one: a shift is inside exactly when the test against it does not reject.
        #[test]
        fn the_interval_is_the_test_turned_round(values in prop::collection::vec(-1.0..1.0f64, 5..=12), shift in -1.0..1.0f64) {
            const ALPHA: f64 = 0.05;
            let shifted: Vec<f64> = values.iter().map(|value| value - shift).collect();
            prop_assert_eq!(p_greater(&shifted) <= ALPHA, shift < interval(&values, ALPHA).0);
        }
    }
}
