//! Numbers as people read them: with a unit, three sensible digits, thin spaces between thousands, and "–" for what is not
//! known. The one place where the table and the page get their text from.

use crate::model::Times;
use crate::stats;

/// What stands where a number is not known or would pretend to be.
pub const UNKNOWN: &str = "–";

/// Thin no-break space, between groups of three digits.
const THIN: char = '\u{202f}';

/// `412 ns`, `4.12 µs`, `41.2 ms`, `3.5 s`, `2 min 5 s`; 0 is `0`.
pub fn time(ns: f64) -> String {
    if !ns.is_finite() {
        return UNKNOWN.to_owned();
    }
    if ns == 0.0 {
        return "0".to_owned();
    }
    // The borders lie where rounding to three digits would reach 1000 of the smaller unit.
    let (scale, unit) = match ns.abs() {
        v if v < 999.5 => (1.0, "ns"),
        v if v < 999.5e3 => (1e3, "µs"),
        v if v < 999.5e6 => (1e6, "ms"),
        v if v < 119.5e9 => (1e9, "s"),
        _ => {
            let seconds = (ns / 1e9).round() as i64;
            return match seconds % 60 {
                0 => format!("{} min", seconds / 60),
                rest => format!("{} min {rest} s", seconds / 60),
            };
        }
    };
    format!("{} {unit}", digits(ns / scale))
}

/// [`time`] of whole nanoseconds.
pub fn time_ns(ns: u64) -> String {
    time(ns as f64)
}

/// [`time`] of seconds.
pub fn seconds(s: f64) -> String {
    time(s * 1e9)
}

/// `1 234`; never rounded.
pub fn count(n: u64) -> String {
    let text = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in text.chars().enumerate() {
        if i > 0 && (text.len() - i).is_multiple_of(3) {
            grouped.push(THIN);
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 event`, `2 events`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Three significant digits, or all digits of the whole part: `0.0123`, `1.5`, `99.8`, `1 235`.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return UNKNOWN.to_owned();
    }
    if value.abs() < 999.5 {
        return digits(value);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", count(value.abs().round() as u64))
}

/// `998/s`.
pub fn rate(per_s: f64) -> String {
    format!("{}/s", number(per_s))
}

/// `48.2 MiB`, in powers of 1024.
pub fn bytes(n: f64) -> String {
    let (scale, unit) = match n.abs() {
        v if v < 1024.0 => (1.0, "B"),
        v if v < 1024.0 * 999.5 => (1024.0, "KiB"),
        v if v < 1024.0 * 1024.0 * 999.5 => (1024.0 * 1024.0, "MiB"),
        _ => (1024.0 * 1024.0 * 1024.0, "GiB"),
    };
    format!("{} {unit}", number(n / scale))
}

/// `99.8 %` of a share 0..=1.
pub fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// A value in the unit an objective result is in.
pub fn in_unit(value: f64, unit: &str) -> String {
    match unit {
        "ns" => time(value),
        "s" => seconds(value),
        "bytes" => bytes(value),
        "per_s" => rate(value),
        "per_hour" => format!("{}/h", number(value)),
        _ => number(value),
    }
}

/// The value of quantile `q` of `times`: `–` when fewer than [`stats::SAMPLES_BEYOND_TO_PRINT`] samples lie beyond it (the median
/// of anything is printed), `≥ x` when it is only known to be at least that.
pub fn quantile(times: &Times, q: f64, ns: f64) -> String {
    if times.count == 0 || (q > 0.5 && stats::samples_beyond(times.count, q) < stats::SAMPLES_BEYOND_TO_PRINT) {
        return UNKNOWN.to_owned();
    }
    at_least(ns, stats::is_lower_bound(times.count, times.censored + times.overflowed, q))
}

/// The largest of `times`.
pub fn largest(times: &Times) -> String {
    if times.count == 0 {
        return UNKNOWN.to_owned();
    }
    at_least(times.max_ns as f64, times.censored + times.overflowed > 0)
}

/// `412 µs`, or `≥ 412 µs`.
pub fn at_least(ns: f64, lower_bound: bool) -> String {
    if lower_bound { format!("≥ {}", time(ns)) } else { time(ns) }
}

/// `p50`, `p99.9`, `p99.99` of 0..=1.
pub fn quantile_name(q: f64) -> String {
    let percent = (q * 1e6).round() / 1e4;
    format!("p{percent}")
}

/// Three significant digits without trailing zeros after the point.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (2 - magnitude).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}").replace('-', "−");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_fits() {
        for (ns, expected) in [
            (0.0, "0"),
            (1.0, "1 ns"),
            (999.4, "999 ns"),
            (999.6, "1 µs"),
            (4_123.0, "4.12 µs"),
            (412_345.0, "412 µs"),
            (999_499.0, "999 µs"),
            (999_900.0, "1 ms"),
            (45_000_000.0, "45 ms"),
            (3_500_000_000.0, "3.5 s"),
            (125e9, "2 min 5 s"),
            (3600e9, "60 min"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(time(ns), expected, "{ns} ns");
        }
    }

    #[test]
    fn other_numbers_read_well() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(counted(1, "event"), "1 event");
        assert_eq!(number(0.012345), "0.0123");
        assert_eq!(number(-4.0), "−4");
        assert_eq!(number(99.96), "100");
        assert_eq!(rate(999.7), "1\u{202f}000/s");
        assert_eq!(bytes(50_500_000.0), "48.2 MiB");
        assert_eq!(percent(0.998), "99.8 %");
        assert_eq!([0.5, 0.99, 0.999, 0.9999].map(quantile_name), ["p50", "p99", "p99.9", "p99.99"]);
    }

    #[test]
    fn a_quantile_without_samples_beyond_it_is_not_printed() {
        let times = |count, censored| Times { count, censored, ..Times::default() };
        assert_eq!(quantile(&times(1_000, 0), 0.999, 5e6), "–");
        assert_eq!(quantile(&times(10_000, 0), 0.999, 5e6), "5 ms");
        assert_eq!(quantile(&times(10_000, 11), 0.999, 5e6), "≥ 5 ms");
        assert_eq!(quantile(&times(0, 0), 0.5, 0.0), "–");
        assert_eq!(quantile(&times(1, 0), 0.5, 7.0), "7 ns");
    }
}
