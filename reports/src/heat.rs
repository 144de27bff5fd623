//! Heat maps as small SVG: how many samples lie in each cell of two axes, shaded by the logarithm of their number, with lines on top.
//!
//! The shades are steps of one hue that differ in lightness, so that the colour-blind and paper tell them apart; the style sheet has a
//! class for each of them (`h0`, `h1`, …) and one for each line (`l0`, `l1`). A cell has its number as a title, for those who point at it.
//!
//! This module knows nothing of runs; what is drawn is decided in [`crate::html`].

use maud::{Markup, html};

use crate::chart::Axis;
use crate::format;

/// Number of shades; the style sheet has as many classes.
pub const SHADES: usize = 7;

/// Width of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 400.0;
const PLOT_HEIGHT: f64 = 190.0;
const MARGIN_TOP: f64 = 24.0;
const MARGIN_BOTTOM: f64 = 44.0;
const MARGIN_LEFT: f64 = 54.0;
/// Room for the names of the lines.
const MARGIN_RIGHT: f64 = 34.0;
/// Width of one shade in the legend: room for five digits.
const RAMP_STEP: f64 = 36.0;
/// Least distance between two names.
const NAME_DISTANCE: f64 = 13.0;

/// One cell with something in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// From and to.
    pub x: (f64, f64),
    /// From and to.
    pub y: (f64, f64),
    /// Samples in it; a cell without any is not drawn.
    pub count: u64,
    /// Where it is and how many samples it has, in words.
    pub text: String,
}

/// A value that is level over each column.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name in the legend and at its end.
    pub name: String,
    /// Unbroken parts of it: from, to, value.
    pub parts: Vec<Vec<(f64, f64, f64)>>,
}

/// A heat map.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// Unique on the page.
    pub id: String,
    /// Heading, read aloud as the drawing's name.
    pub title: String,
    /// What can be seen, for those who cannot see it.
    pub description: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// In any order.
    pub cells: Vec<Cell>,
    /// Drawn over the cells; at most two.
    pub lines: Vec<Line>,
    /// Where along x something new begins.
    pub borders: Vec<f64>,
    /// Smallest number of each shade, ascending: [`shades`] of the largest number on this map and those it is compared with.
    pub shades: Vec<u64>,
}

/// The smallest number of each shade, so that each spans the same factor up to `largest`; fewer than [`SHADES`] when it is small.
pub fn shades(largest: u64) -> Vec<u64> {
    let bound = |shade: usize| (largest.max(1) as f64).powf(shade as f64 / SHADES as f64).round() as u64;
    let mut bounds: Vec<u64> = (0..SHADES).map(bound).collect();
    bounds.dedup();
    bounds
}

impl HeatMap {
    /// A figure: title, legend and drawing.
    pub fn render(&self) -> Markup {
        let (title_id, description_id) = (format!("{}-t", self.id), format!("{}-d", self.id));
        html! {
            figure.chart.heat {
                figcaption { (self.title) }
                (self.legend())
                svg viewBox=(format!("0 0 {WIDTH} {}", MARGIN_TOP + PLOT_HEIGHT + MARGIN_BOTTOM)) role="img"
                    aria-labelledby=(format!("{title_id} {description_id}")) {
                    title id=(title_id) { (self.title) }
                    desc id=(description_id) { (self.description) }
                    (self.grid())
                    @for cell in &self.cells { (self.cell(cell)) }
                    (self.axes())
                    @for (place, line) in self.lines.iter().enumerate() { (self.line(place, line)) }
                    (self.names())
                }
            }
        }
    }

    fn x(&self, value: f64) -> f64 {
        MARGIN_LEFT + self.x.share(value) * (WIDTH - MARGIN_RIGHT - MARGIN_LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        MARGIN_TOP + (1.0 - self.y.share(value)) * PLOT_HEIGHT
    }

    /// The class of a shade: the last one is the strongest, however few there are.
    fn class(&self, shade: usize) -> String {
        let shades = self.shades.len();
        let class = if shades > 1 { shade * (SHADES - 1) / (shades - 1) } else { SHADES - 1 };
        format!("h{class}")
    }

    fn legend(&self) -> Markup {
        let width = RAMP_STEP * self.shades.len() as f64;
        html! {
            ul.legend {
                @for (place, line) in self.lines.iter().enumerate() {
                    li { svg.swatch viewBox="0 0 34 12" aria-hidden="true" {
                        path.halo d="M1 6H33" {} path class=(format!("over l{place}")) d="M1 6H33" {}
                    } (line.name) }
                }
                li {
                    "events in a cell:"
                    svg.ramp viewBox=(format!("0 0 {width} 24")) width=(width) height="24" role="img"
                        aria-label=(format!("shades from {} to {} and more", self.shades[0], self.shades[self.shades.len() - 1])) {
                        @for (shade, from) in self.shades.iter().enumerate() {
                            @let left = RAMP_STEP * shade as f64;
                            path class=(self.class(shade)) d=(format!("M{left:.1} 2h{RAMP_STEP}v9h-{RAMP_STEP}z")) {}
                            text.tick x=(format!("{left:.1}")) y="22" { (format::count(*from)) }
                        }
                    }
                }
            }
        }
    }

    fn cell(&self, cell: &Cell) -> Markup {
        let shade = self.shades.iter().rposition(|from| *from <= cell.count).unwrap_or(0);
        let (left, right) = (self.x(cell.x.0), self.x(cell.x.1));
        let (bottom, top) = (self.y(cell.y.0), self.y(cell.y.1));
        let path = format!("M{left:.1} {top:.1}H{right:.1}V{bottom:.1}H{left:.1}z");
        html! { path class=(self.class(shade)) d=(path) { title { (cell.text) } } }
    }

    fn grid(&self) -> Markup {
        let (right, bottom) = (WIDTH - MARGIN_RIGHT, MARGIN_TOP + PLOT_HEIGHT);
        html! {
            @for (value, text) in &self.y.ticks {
                @let y = self.y(*value);
                path.grid d=(format!("M{MARGIN_LEFT} {y:.1}H{right:.1}")) {}
                text.tick.end x=(format!("{:.1}", MARGIN_LEFT - 6.0)) y=(format!("{:.1}", y + 4.0)) { (text) }
            }
            @for (value, text) in &self.x.ticks {
                @let x = self.x(*value);
                path.grid d=(format!("M{x:.1} {MARGIN_TOP}V{:.1}", bottom + 4.0)) {}
                text.tick.middle x=(format!("{x:.1}")) y=(format!("{:.1}", bottom + 17.0)) { (text) }
            }
        }
    }

    fn axes(&self) -> Markup {
        let (right, bottom) = (WIDTH - MARGIN_RIGHT, MARGIN_TOP + PLOT_HEIGHT);
        html! {
            @for border in &self.borders { path.border d=(format!("M{:.1} {MARGIN_TOP}V{bottom:.1}", self.x(*border))) {} }
            path.axis d=(format!("M{MARGIN_LEFT} {MARGIN_TOP}V{bottom:.1}H{right:.1}")) {}
            text.label x="4" y="13" { (self.y.label) }
            text.label.middle x=(format!("{:.1}", (MARGIN_LEFT + right) / 2.0)) y=(format!("{:.1}", bottom + 35.0)) { (self.x.label) }
        }
    }

    /// Twice: a wide stroke in the colour of the paper below it keeps a line visible on every shade.
    fn line(&self, place: usize, line: &Line) -> Markup {
        let path: String = line.parts.iter().map(|part| self.stair(part)).collect();
        html! {
            path.halo d=(path) {}
            path class=(format!("over l{place}")) d=(path) {}
        }
    }

    fn stair(&self, part: &[(f64, f64, f64)]) -> String {
        let steps = part.iter().enumerate().map(|(i, (from, to, value))| {
            let (from, to, y) = (self.x(*from), self.x(*to), self.y(*value));
            if i == 0 { format!("M{from:.1} {y:.1}H{to:.1}") } else { format!("V{y:.1}H{to:.1}") }
        });
        steps.collect()
    }

    /// Names at the ends of the lines, from the top down, pushed apart where they would overlap.
    fn names(&self) -> Markup {
        let end = |line: &Line| line.parts.last()?.last().map(|(_, _, value)| self.y(*value));
        let mut ends: Vec<(f64, &Line)> = self.lines.iter().filter_map(|line| Some((end(line)?, line))).collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        for i in 1..ends.len() {
            ends[i].0 = ends[i].0.max(ends[i - 1].0 + NAME_DISTANCE);
        }
        html! {
            @for (y, line) in ends {
                text.tick x=(format!("{:.1}", WIDTH - MARGIN_RIGHT + 5.0)) y=(format!("{:.1}", y + 4.0)) { (line.name) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(counts: &[u64]) -> HeatMap {
        let cell = |(i, count): (usize, &u64)| {
            let from = i as f64;
            Cell { x: (from, from + 1.0), y: (1.0, 2.0), count: *count, text: format!("<{count}>") }
        };
        HeatMap {
            id: "m".to_owned(),
            title: "a map".to_owned(),
            description: "one row".to_owned(),
            x: Axis::span("time", counts.len() as f64, |v| v.to_string()),
            y: Axis::log("value", 1.0, 10.0, |v| v.to_string()),
            cells: counts.iter().enumerate().map(cell).collect(),
            lines: vec![Line { name: "p50".to_owned(), parts: vec![vec![(0.0, 1.0, 1.5)], vec![(1.0, 2.0, 3.0)]] }],
            borders: vec![1.0],
            shades: shades(counts.iter().copied().max().unwrap_or(0)),
        }
    }

    #[test]
    fn shades_begin_at_one_and_never_repeat() {
        assert_eq!(shades(0), [1]);
        assert_eq!(shades(1), [1]);
        assert_eq!(shades(3), [1, 2, 3]);
        assert_eq!(shades(10_000_000), [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]);
    }

    #[test]
    fn ten_times_as_many_are_a_darker_shade_and_the_most_are_the_darkest() {
        let svg = map(&[1, 30, 10_000]).render().into_string();
        let classes: Vec<&str> = ["&lt;1&gt;", "&lt;30&gt;", "&lt;10000&gt;"]
            .iter()
            .map(|text| svg.split(&format!("<title>{text}")).next().unwrap().rsplit("class=\"h").next().unwrap())
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(classes, ["0", "2", "6"]);
    }

    #[test]
    fn a_line_is_broken_where_its_parts_end_and_lies_on_paper_of_its_own() {
        let svg = map(&[5, 5]).render().into_string();
        let path = svg.split("class=\"over l0\" d=\"").last().unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert!(svg.contains(&format!("class=\"halo\" d=\"{path}\"")));
    }

    #[test]
    fn a_map_is_named_and_described_for_those_who_cannot_see_it() {
        let svg = map(&[2]).render().into_string();
        assert!(svg.contains("role=\"img\" aria-labelledby=\"m-t m-d\"") && svg.contains("one row"));
    }
}
