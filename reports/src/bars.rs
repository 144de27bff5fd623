//! Bars as small SVG: each row a name, its total, and below them a bar of one or more parts along a common axis, with levels across all.
//!
//! Parts stand in the same order in every row and in the legend, with a gap between them, and wide ones are named: they can be told apart
//! without colour. This module knows nothing of runs; what is drawn is decided in [`crate::html`].

use maud::{Markup, html};

use crate::chart::Axis;

/// Kinds of parts before their colours repeat; the style sheet has as many classes `p0`, `p1`, ….
pub const KINDS: usize = 5;

/// Width of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 400.0;
const MARGIN: f64 = 6.0;
const BAR_HEIGHT: f64 = 16.0;
/// From one row to the next.
const ROW_HEIGHT: f64 = 40.0;
/// From a row's top to its bar.
const TEXT_HEIGHT: f64 = 18.0;
const MARGIN_TOP: f64 = 4.0;
const MARGIN_BOTTOM: f64 = 40.0;
/// Width of a character written on a part, on the safe side: bold, and larger on a small screen.
const CHARACTER: f64 = 8.0;
/// Between two parts.
const GAP: f64 = 0.8;

/// One part of a bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Place in [`Bars::kinds`].
    pub kind: usize,
    /// Length, in units of the axis.
    pub length: f64,
    /// Written on it where it is wide enough.
    pub label: String,
    /// What is shown when pointing at it.
    pub text: String,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is of.
    pub name: String,
    /// What it comes to.
    pub total: String,
    /// From the left; none when there is nothing to draw.
    pub parts: Vec<Part>,
}

/// A value to compare all rows with.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Where.
    pub value: f64,
    /// What it is, for the legend.
    pub name: String,
}

/// Bars.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Unique on the page.
    pub id: String,
    /// Heading, read aloud as the drawing's name.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// What the parts are; no legend for a single one.
    pub kinds: Vec<String>,
    /// From the top.
    pub rows: Vec<Row>,
    /// At most one is usual.
    pub levels: Vec<Level>,
}

impl Bars {
    /// A figure: title, legend and drawing.
    pub fn render(&self) -> Markup {
        let (title_id, description_id) = (format!("{}-t", self.id), format!("{}-d", self.id));
        let bottom = MARGIN_TOP + ROW_HEIGHT * self.rows.len() as f64;
        html! {
            figure.chart.bars {
                figcaption { (self.title) }
                (self.legend())
                svg viewBox=(format!("0 0 {WIDTH} {}", bottom + MARGIN_BOTTOM)) role="img" aria-labelledby=(format!("{title_id} {description_id}")) {
                    title id=(title_id) { (self.title) }
                    desc id=(description_id) { (self.description()) }
                    (self.axis(bottom))
                    @for level in &self.levels { path.level d=(format!("M{:.1} {MARGIN_TOP}V{bottom:.1}", self.x(level.value))) {} }
                    @for (place, row) in self.rows.iter().enumerate() { (self.row(row, MARGIN_TOP + ROW_HEIGHT * place as f64)) }
                }
            }
        }
    }

    fn x(&self, value: f64) -> f64 {
        MARGIN + self.x.share(value) * (WIDTH - 2.0 * MARGIN)
    }

    /// In words: each row with its total and its parts.
    fn description(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let parts: Vec<&str> = row.parts.iter().map(|part| part.text.as_str()).collect();
            let parts = if parts.len() > 1 { format!(" ({})", parts.join(", ")) } else { String::new() };
            format!("{}: {}{parts}", row.name, row.total)
        });
        rows.collect::<Vec<_>>().join("; ")
    }

    fn legend(&self) -> Markup {
        html! {
            @if self.kinds.len() > 1 || !self.levels.is_empty() {
                ul.legend {
                    @if self.kinds.len() > 1 {
                        @for (kind, name) in self.kinds.iter().enumerate() {
                            li { svg.shade viewBox="0 0 12 12" aria-hidden="true" { path class=(class(kind)) d="M0 0h12v12h-12z" {} } (name) }
                        }
                    }
                    @for level in &self.levels {
                        li { svg.swatch viewBox="0 0 34 12" aria-hidden="true" { path.level d="M1 6H33" {} } (level.name) }
                    }
                }
            }
        }
    }

    fn axis(&self, bottom: f64) -> Markup {
        html! {
            @for (value, text) in &self.x.ticks {
                @let x = self.x(*value);
                @let anchor = if x < MARGIN + 14.0 { "tick" } else if x > WIDTH - 20.0 { "tick end" } else { "tick middle" };
                // Not where the names and the bars begin.
                @if *value > self.x.min { path.grid d=(format!("M{x:.1} {MARGIN_TOP}V{:.1}", bottom + 4.0)) {} }
                text class=(anchor) x=(format!("{x:.1}")) y=(format!("{:.1}", bottom + 16.0)) { (text) }
            }
            text.label.middle x=(format!("{:.1}", WIDTH / 2.0)) y=(format!("{:.1}", bottom + 33.0)) { (self.x.label) }
        }
    }

    fn row(&self, row: &Row, top: f64) -> Markup {
        let y = top + TEXT_HEIGHT;
        let placed = row.parts.iter().scan(self.x.min, |end, part| {
            let from = *end;
            *end += part.length;
            Some((self.x(from), self.x(*end), part))
        });
        html! {
            text.name x=(MARGIN) y=(format!("{:.1}", y - 5.0)) { (row.name) }
            text.number.end x=(WIDTH - MARGIN) y=(format!("{:.1}", y - 5.0)) { (row.total) }
            @for (left, right, part) in placed {
                @let width = (right - left - GAP).max(0.4);
                path class=(class(part.kind)) d=(format!("M{left:.1} {y:.1}h{width:.1}v{BAR_HEIGHT}h-{width:.1}z")) { title { (part.text) } }
                @if part.label.chars().count() as f64 * CHARACTER + 6.0 < width {
                    text.on x=(format!("{:.1}", left + 4.0)) y=(format!("{:.1}", y + 12.0)) { (part.label) }
                }
            }
        }
    }
}

fn class(kind: usize) -> String {
    format!("part p{}", kind % KINDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(lengths: &[f64]) -> Bars {
        let part = |(kind, length): (usize, &f64)| {
            let text = format!("part {kind}: {length}");
            Part { kind, length: *length, label: format!("<{kind}>"), text }
        };
        let parts = lengths.iter().enumerate().map(part).collect();
        Bars {
            id: "b".to_owned(),
            title: "shares".to_owned(),
            x: Axis::linear("share", 100.0, |v| v.to_string()),
            kinds: vec!["one".to_owned(), "two".to_owned()],
            rows: vec![Row { name: "all".to_owned(), total: "all of it".to_owned(), parts }],
            levels: vec![Level { value: 50.0, name: "half".to_owned() }],
        }
    }

    #[test]
    fn parts_follow_one_another_and_only_wide_ones_are_named() {
        let svg = bars(&[99.0, 1.0]).render().into_string();
        let begins: Vec<f64> = svg
            .split("class=\"part p")
            .skip(3)
            .map(|rest| rest.split("d=\"M").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(begins, [6.0, 390.1]);
        assert!(svg.contains("&lt;0&gt;") && !svg.contains("&lt;1&gt;"));
    }

    #[test]
    fn those_who_cannot_see_it_are_told_every_part() {
        let svg = bars(&[60.0, 40.0]).render().into_string();
        assert!(svg.contains("<desc id=\"b-d\">all: all of it (part 0: 60, part 1: 40)</desc>"), "{svg}");
    }
}
