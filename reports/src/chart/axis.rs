//! Axes: how values become positions, where lines and texts go, and how values are written.

use crate::format;

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
    /// Quantiles 0..1 by −log₁₀(1 − q): p90, p99, p99.9 lie equally far apart.
    Tail,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(f64::MIN_POSITIVE).log10(),
            Self::Tail => -(1.0 - value).max(1e-12).log10(),
        }
    }
}

/// How the values of an axis are written: the ways of [`mod@format`] that the page's script knows as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds: `412 µs`.
    Time,
    /// Seconds: `2 min 5 s`.
    Seconds,
    /// `1 235`.
    Number,
    /// `998/s`.
    Rate,
    /// `48.2 MiB`.
    Bytes,
    /// Quantiles 0..1: `p99.9`.
    Quantile,
    /// Shares: `12 %`.
    Percent,
    /// Shares by which something changed: `+12 %`.
    Change,
}

impl Unit {
    const ALL: [Self; 8] =
        [Self::Time, Self::Seconds, Self::Number, Self::Rate, Self::Bytes, Self::Quantile, Self::Percent, Self::Change];

    /// A value in this unit.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Time => format::time(value),
            Self::Seconds => format::seconds(value),
            Self::Number => format::number(value),
            Self::Rate => format::rate(value),
            Self::Bytes => format::bytes(value),
            Self::Quantile => format::quantile_name(value),
            Self::Percent => format::percent(value),
            Self::Change => format!("{}{}", if value > 0.0 { "+" } else { "" }, format::percent(value)),
        }
    }

    /// The unit that writes values as `text` does, so that whoever makes an axis says it once. [`Unit::Number`] when `text` is of no
    /// unit: then the ticks are as it writes them, and the script's numbers are bare.
    fn of(text: impl Fn(f64) -> String) -> Self {
        let alike = |unit: &Self| [0.125, 1.0, 34_567.0].into_iter().all(|value| unit.text(value) == text(value));
        Self::ALL.into_iter().find(alike).unwrap_or(Self::Number)
    }
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit or "time" when the ticks carry units.
    pub label: String,
    /// How values become positions.
    pub scale: Scale,
    /// Value at the begin.
    pub min: f64,
    /// Value at the end.
    pub max: f64,
    /// Where lines and texts go.
    pub ticks: Vec<(f64, String)>,
    /// How its values are written, for the page's script, which writes others than the ticks'.
    pub unit: Unit,
}

impl Axis {
    /// From 0 to a round number not below `max`.
    pub fn linear(label: &str, max: f64, text: impl Fn(f64) -> String) -> Self {
        let step = round_step(max.max(1e-9) / 5.0);
        let steps = (max / step - 1e-9).ceil().max(1.0) as u32;
        let ticks = (0..=steps).map(|i| (f64::from(i) * step, text(f64::from(i) * step))).collect();
        let (label, unit) = (label.to_owned(), Unit::of(text));
        Self { label, scale: Scale::Linear, min: 0.0, max: f64::from(steps) * step, ticks, unit }
    }

    /// From 0 to exactly `max`, for time.
    pub fn span(label: &str, max: f64, text: impl Fn(f64) -> String) -> Self {
        let mut axis = Self::linear(label, max, text);
        axis.max = max.max(1e-9);
        axis.ticks.retain(|(at, _)| *at <= axis.max * 1.0001);
        axis
    }

    /// Logarithmic, from a round number not above `min` to one not below `max`.
    pub fn log(label: &str, min: f64, max: f64, text: impl Fn(f64) -> String) -> Self {
        let min = if min > 0.0 && min.is_finite() { min } else { 1.0 };
        let max = max.max(min * 1.5);
        let decades = (max / min).log10();
        let steps: &[f64] = match decades {
            d if d <= 2.0 => &[1.0, 2.0, 5.0],
            d if d <= 3.5 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let exponents = (min.log10().floor() as i32)..=(max.log10().ceil() as i32);
        let all: Vec<f64> = exponents.flat_map(|e| steps.iter().map(move |s| s * 10_f64.powi(e))).collect();
        let low = all.iter().copied().rfind(|v| *v <= min * 1.0001).unwrap_or(min);
        let high = all.iter().copied().find(|v| *v >= max * 0.9999).unwrap_or(max);
        let ticks = all.into_iter().filter(|v| (low..=high).contains(v)).map(|v| (v, text(v))).collect();
        Self { label: label.to_owned(), scale: Scale::Log, min: low, max: high, ticks, unit: Unit::of(text) }
    }

    /// Quantiles from 0 to at least p99, as far as `count` samples go.
    pub fn tail(label: &str, count: u64, text: impl Fn(f64) -> String) -> Self {
        let max = 1.0 - 1.0 / (count.max(100) as f64);
        let ticks = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].into_iter().filter(|q| *q <= max + 1e-12);
        let ticks = ticks.map(|q| (q, text(q))).collect();
        Self { label: label.to_owned(), scale: Scale::Tail, min: 0.0, max, ticks, unit: Unit::of(text) }
    }

    /// 0..=1 along the axis.
    pub fn share(&self, value: f64) -> f64 {
        let (low, high) = (self.scale.place(self.min), self.scale.place(self.max));
        ((self.scale.place(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// The nearest of 1, 2, 5 × 10ⁿ that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= step * 0.999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, t)| t.as_str()).collect()
    }

    #[test]
    fn axes_end_at_round_numbers_around_the_data() {
        let text = crate::format::time;
        assert_eq!(texts(&Axis::log("", 160e3, 1.9e6, text)), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms"]);
        assert_eq!(
            texts(&Axis::log("", 300.0, 2.1e9, text)),
            ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
        assert_eq!(texts(&Axis::linear("", 1034.0, crate::format::number)).last(), Some(&"1\u{202f}500"));
        assert_eq!(texts(&Axis::span("", 12.0, |v| v.to_string())), ["0", "5", "10"]);
        assert_eq!(texts(&Axis::tail("", 1_000, crate::format::quantile_name)), ["p50", "p90", "p99", "p99.9"]);
    }

    #[test]
    fn no_data_make_an_axis_of_nonsense() {
        for axis in [
            Axis::log("", 0.0, 0.0, |_| String::new()),
            Axis::linear("", 0.0, |_| String::new()),
            Axis::span("", 0.0, |_| String::new()),
        ] {
            assert!(axis.min < axis.max && axis.share(f64::MAX) <= 1.0 && axis.ticks.len() < 20, "{axis:?}");
        }
    }

    #[test]
    fn an_axis_knows_the_unit_that_its_texts_are_in() {
        for unit in Unit::ALL {
            assert_eq!(Unit::of(|value| unit.text(value)), unit);
        }
        assert_eq!(Axis::log("", 1.0, 9.0, format::time).unit, Unit::Time);
        assert_eq!(Axis::span("", 9.0, |v| format!("{v} apples")).unit, Unit::Number);
    }
}
