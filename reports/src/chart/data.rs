//! What the page's script gets of a chart, to read values off it and to draw a part of it larger: the points themselves, as small JSON.

use serde_json::{Map, Value, json};

use super::{Axis, Chart, Layout, MARGIN_LEFT, MARGIN_TOP, Series, Shape};

/// Significant digits of a coordinate: more than anybody can see or a histogram holds.
const DIGITS: i32 = 9;

/// Beside the drawing, as one element.
pub fn of(chart: &Chart, layout: &Layout) -> Value {
    let mut data = object([
        ("id", json!(chart.id)),
        ("title", json!(chart.title)),
        ("plot", [MARGIN_LEFT, MARGIN_TOP, layout.right, layout.bottom].map(number).to_vec().into()),
        ("x", axis(&chart.x)),
        ("y", axis(&chart.y)),
        ("series", chart.series.iter().map(series).collect()),
    ]);
    if let Some(level) = &chart.level {
        data.insert("level".to_owned(), json!({ "name": level.name, "points": flat(&level.points) }));
    }
    if !chart.rug_label.is_empty() {
        data.insert("rug_label".to_owned(), json!(chart.rug_label));
    }
    data.into()
}

fn axis(axis: &Axis) -> Value {
    let ticks: Value = axis.ticks.iter().map(|(at, text)| json!([number(*at), text])).collect();
    json!({
        "label": axis.label, "scale": axis.scale, "unit": axis.unit,
        "min": number(axis.min), "max": number(axis.max), "ticks": ticks,
    })
}

/// Only what there is: most lines have neither faint ends nor ticks below.
fn series(series: &Series) -> Value {
    let markers: Value = series.markers.iter().map(|(x, y, text)| json!([number(*x), number(*y), text])).collect();
    let rug: Value = series.rug.iter().copied().map(number).collect();
    let lists = [("points", flat(&series.points)), ("faint", flat(&series.faint)), ("markers", markers), ("rug", rug)];
    let mut data = object([("name", json!(series.name)), ("style", json!(series.style))]);
    data.extend(lists.into_iter().filter(|(_, list)| *list != json!([])).map(|(name, list)| (name.to_owned(), list)));
    if series.shape == Shape::Stair {
        data.insert("is_stair".to_owned(), true.into());
    }
    if series.is_repeat {
        data.insert("is_repeat".to_owned(), true.into());
    }
    data.into()
}

/// x, y, x, y, …: brackets around each point would be a fifth of the page.
fn flat(points: &[(f64, f64)]) -> Value {
    points.iter().flat_map(|(x, y)| [number(*x), number(*y)]).collect()
}

/// Without digits that say nothing, and whole numbers without a point.
fn number(value: f64) -> Value {
    if !value.is_finite() || value == 0.0 {
        return if value == 0.0 { 0.into() } else { Value::Null };
    }
    let scale = 10_f64.powi(DIGITS - 1 - value.abs().log10().floor() as i32);
    let rounded = if scale.is_finite() && scale < 1e300 { (value * scale).round() / scale } else { value };
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { (rounded as i64).into() } else { rounded.into() }
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_to_nine_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (812_031.0, "812031"),
            (1.0 - 1.0 / 11.0, "0.909090909"),
            (0.1 + 0.2, "0.3"),
            (1.5e18, "1.5e+18"),
            (1_234_567_890_123.0, "1234567890000"),
            (-0.25, "-0.25"),
            (f64::NAN, "null"),
        ] {
            assert_eq!(number(value).to_string(), expected);
        }
    }
}
