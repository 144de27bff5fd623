//! Ratios of positive numbers, with intervals; and who cannot be told apart.
//!
//! A round (one repetition: a fresh server on fresh data) is one observation; what happens within a round is none. Ratios are geometric
//! means over the rounds, so that A ÷ B is the inverse of B ÷ A, with Student's interval on the logarithms (Kalibera and Jones,
//! "Quantifying performance changes with effect size confidence intervals", 2012): paired where both were measured in the same rounds,
//! else by Welch's formula.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Half an interval, as a logarithm, from which on it says nothing: a factor of a thousand either way comes of too few rounds.
const HALF_LN_MAX: f64 = 6.9;

/// One number divided by another, over several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// Geometric mean.
    pub ratio: f64,
    /// Lower end of the interval; `null`: too few rounds for one that says anything.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Ratio {
    /// Whether the two can be told apart: the interval does not contain 1.
    pub fn is_told(&self) -> bool {
        matches!((self.low, self.high), (Some(low), Some(high)) if low > 1.0 || high < 1.0)
    }

    fn of(mean_ln: f64, error_ln: f64, degrees: f64, alpha: f64) -> Self {
        let half = (degrees >= 1.0).then(|| student_t(1.0 - alpha / 2.0, degrees.floor() as u32) * error_ln);
        let half = half.filter(|half| *half <= HALF_LN_MAX);
        Self {
            ratio: mean_ln.exp(),
            low: half.map(|half| (mean_ln - half).exp()),
            high: half.map(|half| (mean_ln + half).exp()),
        }
    }
}

/// Of rounds that both were measured in: `(numerator, denominator)` each. `None` without a round, or when a number is not positive.
/// `alpha`: how often the interval may miss the truth.
pub fn paired(rounds: &[(f64, f64)], alpha: f64) -> Option<Ratio> {
    let logs = logarithms(rounds.iter().map(|(numerator, denominator)| numerator / denominator))?;
    let (mean, variance) = moments(&logs);
    Some(Ratio::of(mean, (variance / logs.len() as f64).sqrt(), logs.len() as f64 - 1.0, alpha))
}

/// Of rounds of their own. `None` when one has no round, or a number is not positive.
pub fn unpaired(numerators: &[f64], denominators: &[f64], alpha: f64) -> Option<Ratio> {
    let (a, b) = (logarithms(numerators.iter().copied())?, logarithms(denominators.iter().copied())?);
    let ((a_mean, a_variance), (b_mean, b_variance)) = (moments(&a), moments(&b));
    let (a_part, b_part) = (a_variance / a.len() as f64, b_variance / b.len() as f64);
    let fewest = a.len().min(b.len()) as f64 - 1.0;
    // Welch and Satterthwaite; without any spread there is nothing to weigh.
    let degrees = match a_part + b_part {
        0.0 => fewest,
        both => both.powi(2) / (a_part.powi(2) / (a.len() as f64 - 1.0) + b_part.powi(2) / (b.len() as f64 - 1.0)),
    };
    Some(Ratio::of(a_mean - b_mean, (a_part + b_part).sqrt(), if fewest < 1.0 { 0.0 } else { degrees }, alpha))
}

fn logarithms(values: impl Iterator<Item = f64>) -> Option<Vec<f64>> {
    let logs: Vec<f64> = values.map(f64::ln).collect();
    (!logs.is_empty() && logs.iter().all(|log| log.is_finite())).then_some(logs)
}

/// Mean and variance (÷ n − 1; 0 for one value).
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { squares / (count - 1.0) } else { 0.0 })
}

/// Quantile `p` (0.5..1) of Student's t with `degrees` ≥ 1 degrees of freedom, by halving.
fn student_t(p: f64, degrees: u32) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_t_within(high, degrees) < 2.0 * p - 1.0 && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if student_t_within(middle, degrees) < 2.0 * p - 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// P(|T| ≤ t), in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4).
fn student_t_within(t: f64, degrees: u32) -> f64 {
    let angle = (t / f64::from(degrees).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let is_odd = degrees % 2 == 1;
    let (mut term, mut sum) = if is_odd { (cosine, 0.0) } else { (1.0, 0.0) };
    let mut step = if is_odd { 1 } else { 0 };
    while step + 2 <= degrees {
        sum += term;
        step += 2;
        term *= cosine.powi(2) * f64::from(step - 1) / f64::from(step);
    }
    if is_odd { (angle + sine * sum) * 2.0 / std::f64::consts::PI } else { sine * sum }
}

/// Letters: two that share one cannot be told apart (Piepho, "An algorithm for a letter-based representation of all-pairwise
/// comparisons", 2004). `is_told(i, j)` for `i < j` of `count`.
pub fn letters(count: usize, is_told: impl Fn(usize, usize) -> bool) -> Vec<String> {
    let mut columns: Vec<Vec<bool>> = vec![vec![true; count]];
    for (i, j) in (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j))).filter(|(i, j)| is_told(*i, *j)) {
        let (split, mut kept): (Vec<_>, Vec<_>) = columns.into_iter().partition(|column| column[i] && column[j]);
        for column in split {
            for without in [i, j] {
                let mut part = column.clone();
                part[without] = false;
                kept.push(part);
            }
        }
        columns = absorbed(kept);
    }
    // The first letter goes to whom is first, and so on.
    columns.sort_by_key(|column| column.iter().position(|has| *has));
    let letter = |place: usize| char::from(b'a' + (place % 26) as u8);
    (0..count)
        .map(|i| columns.iter().enumerate().filter(|(_, column)| column[i]).map(|(place, _)| letter(place)).collect())
        .collect()
}

/// Without those that another one contains.
fn absorbed(columns: Vec<Vec<bool>>) -> Vec<Vec<bool>> {
    let within = |small: &[bool], large: &[bool]| small.iter().zip(large).all(|(small, large)| !small || *large);
    let mut kept: Vec<Vec<bool>> = Vec::new();
    for column in columns {
        if kept.iter().any(|other| within(&column, other)) {
            continue;
        }
        kept.retain(|other| !within(other, &column));
        kept.push(column);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_students_t_are_those_of_the_tables() {
        for (p, degrees, expected) in [
            (0.975, 1, 12.706),
            (0.975, 2, 4.303),
            (0.975, 3, 3.182),
            (0.975, 4, 2.776),
            (0.975, 9, 2.262),
            (0.95, 10, 1.812),
            (0.995, 19, 2.861),
            (0.9995, 4, 8.610),
            (0.975, 120, 1.980),
        ] {
            let found = student_t(p, degrees);
            assert!((found - expected).abs() < 0.0006, "t({p}, {degrees}) is {found}, tables have {expected}");
        }
    }

    #[test]
    fn one_round_gives_a_ratio_and_no_interval_and_tells_nobody_apart() {
        for found in [paired(&[(4.0, 2.0)], 0.05), unpaired(&[4.0], &[2.0, 2.0], 0.05)] {
            let found = found.unwrap();
            assert_eq!((found.low, found.high, found.is_told()), (None, None, false));
            assert!((found.ratio - 2.0).abs() < 1e-12);
        }
    }

    #[test]
    fn an_interval_that_says_nothing_is_none() {
        let found = paired(&[(1.0, 2.0), (5.0, 1.0)], 0.05 / 48.0).unwrap();
        assert_eq!((found.low, found.high, found.is_told()), (None, None, false));
    }

    #[test]
    fn without_positive_numbers_there_is_no_ratio() {
        for rounds in [&[][..], &[(1.0, 0.0)], &[(0.0, 1.0)], &[(1.0, 1.0), (f64::NAN, 1.0)], &[(-1.0, 1.0)]] {
            assert_eq!(paired(rounds, 0.05), None, "{rounds:?}");
        }
        assert_eq!(unpaired(&[], &[1.0], 0.05), None);
    }

    #[test]
    fn what_all_rounds_share_does_not_hide_a_difference_when_they_are_paired() {
        let rounds = [(1.1, 1.0), (2.22, 2.0), (4.36, 4.0), (8.9, 8.0), (16.1, 15.0)];
        let (numerators, denominators): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        assert!(paired(&rounds, 0.05).unwrap().is_told());
        assert!(!unpaired(&numerators, &denominators, 0.05).unwrap().is_told());
    }

    #[test]
    fn letters_join_those_that_cannot_be_told_apart_also_when_it_is_no_chain() {
        let told = |pairs: &'static [(usize, usize)]| move |i: usize, j: usize| pairs.contains(&(i, j));
        assert_eq!(letters(3, told(&[])), ["a", "a", "a"]);
        assert_eq!(letters(3, told(&[(0, 1), (0, 2), (1, 2)])), ["a", "b", "c"]);
        assert_eq!(letters(3, told(&[(0, 2)])), ["a", "ab", "b"]);
        // 0 and 2 are alike, and 1 between them is like neither.
        assert_eq!(letters(3, told(&[(0, 1), (1, 2)])), ["a", "b", "a"]);
        assert!(letters(0, |_, _| true).is_empty());
    }

    proptest! {
        #[test]
        fn two_share_a_letter_if_and_only_if_they_cannot_be_told_apart(bits in proptest::collection::vec(any::<bool>(), 15)) {
            let place = |i: usize, j: usize| (0..i).map(|i| 5 - i).sum::<usize>() + j - i - 1;
            let found = letters(6, |i, j| bits[place(i, j)]);
            for i in 0..6 {
                for j in i + 1..6 {
                    let shared = found[i].chars().any(|letter| found[j].contains(letter));
                    prop_assert_eq!(shared, !bits[place(i, j)], "{} {} {:?}", i, j, found);
                }
            }
        }

        #[test]
        fn turning_a_ratio_round_inverts_it_and_its_interval(
            rounds in proptest::collection::vec((0.01_f64..100.0, 0.01_f64..100.0), 2..9),
        ) {
            let turned: Vec<_> = rounds.iter().map(|(a, b)| (*b, *a)).collect();
            let (one, other) = (paired(&rounds, 0.05).unwrap(), paired(&turned, 0.05).unwrap());
            let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-6;
            prop_assert!(near(one.ratio, 1.0 / other.ratio));
            match (one.low, one.high, other.high) {
                (Some(low), Some(high), Some(turned)) => {
                    prop_assert!(near(low, 1.0 / turned));
                    prop_assert!(low <= one.ratio && one.ratio <= high);
                }
                (None, None, None) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
