//! The few statistics the reports stand on: medians over repetitions, and how much a quantile may be believed.
//!
//! Deliberately absent: averages of percentiles.

/// Samples beyond a quantile that it takes to judge it: below this, the quantile moves by more than about a tenth of the
/// distance it is meant to resolve (relative error of a count of n is 1/√n).
pub const SAMPLES_BEYOND_TO_JUDGE: u64 = 100;

/// Samples beyond a quantile that it takes to print it.
pub const SAMPLES_BEYOND_TO_PRINT: u64 = 10;

/// Repetitions of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Repetitions.
    pub count: usize,
    /// Smallest.
    pub min: f64,
    /// Lower quartile.
    pub quartile_low: f64,
    /// Middle one; the mean of the middle two when their number is even.
    pub median: f64,
    /// Upper quartile.
    pub quartile_high: f64,
    /// Largest.
    pub max: f64,
}

/// Median, quartiles and extremes of `values`; `None` when there are none. Values that are no numbers are left out.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    Some(Spread {
        count: sorted.len(),
        min,
        quartile_low: between(&sorted, 0.25),
        median: between(&sorted, 0.5),
        quartile_high: between(&sorted, 0.75),
        max,
    })
}

/// Median of `values`; `None` when there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    spread(values).map(|s| s.median)
}

/// Slope of the line through `points` that is nearest to them (least squares); `None` with fewer than two different x.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |read: fn(&(f64, f64)) -> f64| points.iter().map(read).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|p| p.0), mean(|p| p.1));
    let xx: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let xy: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    (xx > 0.0).then(|| xy / xx)
}

fn between(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    // Not `low + (high − low) × …`: that is NaN between two infinities.
    if low == high { low } else { low * (1.0 - at.fract()) + high * at.fract() }
}

/// Rank, 1-based, of quantile `q` among `count` samples. The nudge keeps 0.99 × 10 000 at 9 900 in binary.
fn rank(count: u64, q: f64) -> u64 {
    ((q.clamp(0.0, 1.0) * count as f64 - 1e-6).ceil() as u64).clamp(1, count.max(1))
}

/// Samples that lie beyond quantile `q` (0..=1) of `count`.
pub fn samples_beyond(count: u64, q: f64) -> u64 {
    count.saturating_sub(rank(count, q))
}

/// Whether quantile `q` falls among the censored samples, so that the recorded value is only a lower bound. Censored samples
/// are taken to be the longest.
pub fn is_lower_bound(count: u64, censored: u64, q: f64) -> bool {
    count > 0 && rank(count, q) > count.saturating_sub(censored)
}

/// The quantile below `q` that a true `q` of the population is very unlikely (3 standard errors) to lie under, from `count`
/// samples: reading the sample there gives a lower confidence bound without any assumption on the distribution.
pub fn quantile_of_lower_confidence(count: u64, q: f64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    (q - 3.0 * (q * (1.0 - q) / count as f64).sqrt()).max(0.0)
}

/// Largest Kolmogorov–Smirnov distance that `count` samples of the right distribution exceed with no more than the probability
/// `false_alarm`: the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990), true for every `count`.
pub fn distance_max(count: u64, false_alarm: f64) -> f64 {
    ((2.0 / false_alarm).ln() / (2.0 * count.max(1) as f64)).sqrt()
}

/// Between what the index of dispersion of Poisson counts in `windows` windows lies, but for a chance of that of `sigmas` standard
/// deviations of a normal distribution on either side. (windows − 1) × index is χ²-distributed with windows − 1 degrees of freedom
/// (Fisher, 1950), whose quantiles are taken from Wilson and Hilferty (1931).
pub fn dispersion_between(windows: u64, sigmas: f64) -> (f64, f64) {
    let part = 2.0 / (9.0 * (windows.max(2) - 1) as f64);
    let bound = |sigmas: f64| (1.0 - part + sigmas * part.sqrt()).max(0.0).powi(3);
    (bound(-sigmas), bound(sigmas))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_sorted_values() {
        let found = spread(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(
            (found.min, found.quartile_low, found.median, found.quartile_high, found.max),
            (1.0, 2.0, 3.0, 4.0, 5.0)
        );
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_slope_is_that_of_the_line_through_the_points() {
        let line = |n: u32| (0..n).map(|i| (f64::from(i), 3.0 - 0.5 * f64::from(i))).collect::<Vec<_>>();
        assert_eq!(slope(&line(50)), Some(-0.5));
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]), Some(0.0));
        assert_eq!((slope(&[]), slope(&[(1.0, 2.0)]), slope(&[(1.0, 2.0), (1.0, 3.0)])), (None, None, None));
    }

    #[test]
    fn samples_beyond_counts_what_is_above_the_rank() {
        for (count, q, expected) in [
            (10_000, 0.99, 100),
            (9_999, 0.99, 99),
            (1_000, 0.999, 1),
            (100_000, 0.9999, 10),
            (0, 0.5, 0),
            (1, 0.5, 0),
            (7, 1.0, 0),
        ] {
            assert_eq!(samples_beyond(count, q), expected, "{count} samples, quantile {q}");
        }
    }

    #[test]
    fn a_quantile_is_a_lower_bound_when_its_rank_is_censored() {
        for (count, censored, q, expected) in [
            (1000, 0, 1.0, false),
            (1000, 1, 1.0, true),
            (1000, 10, 0.99, false),
            (1000, 11, 0.99, true),
            (0, 0, 0.5, false),
        ] {
            assert_eq!(is_lower_bound(count, censored, q), expected, "{censored} of {count} censored, quantile {q}");
        }
    }

    #[test]
    fn bounds_of_the_tests_are_those_of_the_tables() {
        let about =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 5e-3, "{found}, not {expected}");
        // 2 exp(−2 n d²) is the false alarm.
        about(distance_max(10_000, 1e-6), 0.026_93);
        // χ² with 99 degrees of freedom: 0.025 quantile 73.36, 0.975 quantile 128.42.
        let (low, high) = dispersion_between(100, 1.959_96);
        about(low * 99.0, 73.36);
        about(high * 99.0, 128.42);
    }

    #[test]
    fn the_lower_confidence_quantile_closes_in_with_more_samples() {
        assert!(quantile_of_lower_confidence(1_000, 0.999) < 0.9961);
        assert!(quantile_of_lower_confidence(1_000_000, 0.999) > 0.9989);
        assert_eq!(quantile_of_lower_confidence(0, 0.9), 0.0);
    }
}
