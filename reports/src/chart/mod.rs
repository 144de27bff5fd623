//! Line charts as small SVG: axes with units, lines that differ in colour, dashes and markers, names at their ends.
//!
//! Own code after a look at what there is. plotters draws into a bitmap or an SVG whose colours are fixed in attributes and
//! whose text widths come from a font it has to find; charts-rs brings fonts, and its colours are fixed as well; poloto can be
//! styled with CSS but knows neither logarithmic nor quantile axes nor stairs. A report that follows the reader's dark or
//! light theme through CSS classes, has a title and a description for screen readers, needs no font and stays small is the
//! few hundred lines below.
//!
//! This module knows nothing of runs; what is drawn is decided in [`crate::html`]. The page's script draws the same again when a part
//! of a chart is looked at (`html/script/drawing.js`, with the numbers of `data.rs`): who changes one changes both, and a test in a browser
//! holds one drawing against the other.

mod axis;
mod data;

use maud::{Markup, html};

pub use self::axis::{Axis, Scale, Unit};
use crate::embed;

/// Width of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 400.0;
/// Height of the part with the lines.
const PLOT_HEIGHT: f64 = 190.0;
const MARGIN_TOP: f64 = 24.0;
const MARGIN_BOTTOM: f64 = 44.0;
const MARGIN_LEFT: f64 = 54.0;
/// Width of a character of a label, on the safe side.
const CHARACTER: f64 = 6.4;
/// Longest name written at the end of a line, characters; the legend has it in full.
const NAME_LENGTH_MAX: usize = 13;
/// Height of one row of ticks below the plot.
const RUG_HEIGHT: f64 = 14.0;
/// Between the horizontal axis' label and the rows of ticks.
const RUG_GAP: f64 = 8.0;
/// Least distance between two names at line ends.
const NAME_DISTANCE: f64 = 13.0;
/// Points of a line that are drawn; of more (an hour has 3600 seconds, the plot some 300 units) the extremes of each part are kept.
const POINTS_MAX: usize = 800;
/// Number of styles before they repeat; the style sheet has as many classes `s0`, `s1`, ….
pub const STYLES: usize = 6;

/// How a line runs from point to point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Straight.
    Line,
    /// Level until the next point, then up or down.
    Stair,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend, in the tool tips and at its end.
    pub name: String,
    /// Colour, dashes and marker: modulo [`STYLES`].
    pub style: usize,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
    /// Points whose value is not sure, drawn faint after the others.
    pub faint: Vec<(f64, f64)>,
    /// Points that get a marker, with the text that is shown when pointing at it.
    pub markers: Vec<(f64, f64, String)>,
    /// How it runs.
    pub shape: Shape,
    /// One of several repetitions: thinner, and named only once.
    pub is_repeat: bool,
    /// Events along x, drawn as ticks in a row of their own below the plot.
    pub rug: Vec<f64>,
}

impl Series {
    /// A straight line without markers.
    pub fn line(name: &str, style: usize, points: Vec<(f64, f64)>) -> Self {
        let (faint, markers, rug) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: name.to_owned(), style, points, faint, markers, shape: Shape::Line, is_repeat: false, rug }
    }
}

/// A level that everything is compared with, or a line of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// In the order of x; a single one is a level across the whole plot.
    pub points: Vec<(f64, f64)>,
    /// What it is, for the legend.
    pub name: String,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Unique on the page.
    pub id: String,
    /// Heading, read aloud as the chart's name.
    pub title: String,
    /// What can be seen, for those who cannot see it.
    pub description: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Lines; the later ones lie on top.
    pub series: Vec<Series>,
    /// What everything is compared with.
    pub level: Option<Level>,
    /// What the rows of ticks below the plot are, when there are any.
    pub rug_label: String,
}

/// Where things are in one chart.
struct Layout {
    right: f64,
    bottom: f64,
    height: f64,
}

impl Chart {
    /// A figure: title, legend, drawing, and its numbers for the script.
    pub fn render(&self) -> Markup {
        if self.series.iter().any(|series| series.points.len() > POINTS_MAX) {
            return self.thinned().render();
        }
        let layout = self.layout();
        let (title_id, description_id) = (format!("{}-t", self.id), format!("{}-d", self.id));
        html! {
            figure.chart {
                figcaption id=(title_id) { (self.title) }
                (self.legend())
                svg viewBox=(format!("0 0 {WIDTH} {}", layout.height)) role="img"
                    aria-labelledby=(format!("{title_id} {description_id}")) {
                    desc id=(description_id) { (self.description) }
                    g {
                        (self.axes(&layout))
                        @if let Some(level) = &self.level { (self.level(&layout, level)) }
                        @for series in &self.series { (self.line(&layout, series)) }
                        (self.rugs(&layout))
                        (self.names(&layout))
                    }
                }
                script type="application/json" { (embed::json(&data::of(self, &layout))) }
            }
        }
    }

    fn thinned(&self) -> Self {
        let thinned = |series: &Series| Series { points: extremes(&series.points), ..series.clone() };
        Self { series: self.series.iter().map(thinned).collect(), ..self.clone() }
    }

    fn named(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|s| !s.is_repeat)
    }

    fn layout(&self) -> Layout {
        // Points alone have no end to write a name at.
        let ending = self.named().filter(|s| !(s.points.is_empty() && s.faint.is_empty() && s.rug.is_empty()));
        let longest = ending.map(|s| shortened(&s.name).chars().count()).max().unwrap_or(0);
        let rugs = self.named().filter(|s| !s.rug.is_empty()).count() as f64;
        let rug_rows = if rugs > 0.0 { (rugs + 1.0) * RUG_HEIGHT + RUG_GAP } else { 0.0 };
        Layout {
            right: WIDTH - longest as f64 * CHARACTER - 12.0,
            bottom: MARGIN_TOP + PLOT_HEIGHT,
            height: MARGIN_TOP + PLOT_HEIGHT + MARGIN_BOTTOM + rug_rows,
        }
    }

    fn at(&self, layout: &Layout, x: f64, y: f64) -> (f64, f64) {
        let right = MARGIN_LEFT + self.x.share(x) * (layout.right - MARGIN_LEFT);
        (right, layout.bottom - self.y.share(y) * PLOT_HEIGHT)
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for series in self.named() {
                    li {
                        svg.swatch viewBox="0 0 34 12" aria-hidden="true" {
                            path class=(class("line", series.style)) d="M1 6H33" {}
                            (marker(series.style, 17.0, 6.0, ""))
                        }
                        (series.name)
                    }
                }
                @if let Some(level) = &self.level {
                    li { svg.swatch viewBox="0 0 34 12" aria-hidden="true" { path.level d="M1 6H33" {} } (level.name) }
                }
            }
        }
    }

    fn axes(&self, layout: &Layout) -> Markup {
        let middle = (MARGIN_LEFT + layout.right) / 2.0;
        html! {
            @for (value, text) in &self.y.ticks {
                @let y = self.at(layout, self.x.min, *value).1;
                path.grid d=(format!("M{MARGIN_LEFT} {y:.1}H{:.1}", layout.right)) {}
                text.tick.end x=(format!("{:.1}", MARGIN_LEFT - 6.0)) y=(format!("{:.1}", y + 4.0)) { (text) }
            }
            @for (value, text) in self.sparse_x_ticks(layout) {
                @let x = self.at(layout, value, self.y.min).0;
                path.grid d=(format!("M{x:.1} {MARGIN_TOP}V{:.1}", layout.bottom + 4.0)) {}
                text.tick.middle x=(format!("{x:.1}")) y=(format!("{:.1}", layout.bottom + 17.0)) { (text) }
            }
            path.axis d=(format!("M{MARGIN_LEFT} {MARGIN_TOP}V{:.1}H{:.1}", layout.bottom, layout.right)) {}
            text.label x="4" y="13" { (self.y.label) }
            text.label.middle x=(format!("{middle:.1}")) y=(format!("{:.1}", layout.bottom + 35.0)) { (self.x.label) }
        }
    }

    /// The ticks whose texts do not run into one another.
    fn sparse_x_ticks(&self, layout: &Layout) -> Vec<(f64, &str)> {
        let (mut kept, mut free_from) = (Vec::new(), f64::MIN);
        for (value, text) in &self.x.ticks {
            let (x, half) = (self.at(layout, *value, self.y.min).0, text.chars().count() as f64 * CHARACTER / 2.0);
            if x - half >= free_from {
                kept.push((*value, text.as_str()));
                free_from = x + half + 5.0;
            }
        }
        kept
    }

    fn level(&self, layout: &Layout, level: &Level) -> Markup {
        let path = match level.points.as_slice() {
            [(_, value)] => {
                let y = self.at(layout, self.x.min, *value).1;
                format!("M{MARGIN_LEFT} {y:.1}H{:.1}", layout.right)
            }
            points => self.path(layout, points, Shape::Line),
        };
        html! { path.level d=(path) {} }
    }

    fn line(&self, layout: &Layout, series: &Series) -> Markup {
        let thin = if series.is_repeat { " thin" } else { "" };
        html! {
            @if series.points.len() > 1 {
                path class=(class("line", series.style) + thin) d=(self.path(layout, &series.points, series.shape)) {}
            }
            @if series.faint.len() > 1 {
                path class=(class("line", series.style) + " faint") d=(self.path(layout, &series.faint, series.shape)) {}
            }
            @for (x, y, text) in &series.markers {
                @let (x, y) = self.at(layout, *x, *y);
                (marker(series.style, x, y, text))
            }
        }
    }

    fn path(&self, layout: &Layout, points: &[(f64, f64)], shape: Shape) -> String {
        let mut path = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            let (x, y) = self.at(layout, *x, *y);
            match (i, shape) {
                (0, _) => path += &format!("M{x:.1} {y:.1}"),
                (_, Shape::Line) => path += &format!("L{x:.1} {y:.1}"),
                (_, Shape::Stair) => path += &format!("H{x:.1}V{y:.1}"),
            }
        }
        path
    }

    fn rugs(&self, layout: &Layout) -> Markup {
        let with_rug: Vec<&Series> = self.named().filter(|s| !s.rug.is_empty()).collect();
        let top = layout.bottom + MARGIN_BOTTOM + RUG_GAP;
        html! {
            @if !with_rug.is_empty() {
                text.label x="4" y=(format!("{:.1}", top + 4.0)) { (self.rug_label) }
            }
            @for (i, series) in with_rug.iter().enumerate() {
                @let y = top + 9.0 + i as f64 * RUG_HEIGHT;
                path class=(class("rug", series.style)) d=(self.rug(layout, &series.rug, y)) {}
                text.tick x=(format!("{:.1}", layout.right + 6.0)) y=(format!("{:.1}", y + 9.0)) { (shortened(&series.name)) }
            }
        }
    }

    /// At most one tick for each unit of width: however many events there are, the drawing stays small.
    fn rug(&self, layout: &Layout, events: &[f64], y: f64) -> String {
        let mut columns: Vec<i64> = events.iter().map(|x| self.at(layout, *x, self.y.min).0.round() as i64).collect();
        columns.dedup();
        columns.iter().map(|x| format!("M{x} {y:.1}v10")).collect()
    }

    /// Names at the ends of the lines, pushed apart where they would overlap.
    fn names(&self, layout: &Layout) -> Markup {
        let mut ends: Vec<(f64, &Series)> = self
            .named()
            .filter_map(|s| s.faint.last().or(s.points.last()).map(|(x, y)| (self.at(layout, *x, *y).1, s)))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        for i in 1..ends.len() {
            ends[i].0 = ends[i].0.max(ends[i - 1].0 + NAME_DISTANCE);
        }
        // Those pushed below the plot come back up, and push the ones above them.
        let mut limit = layout.bottom;
        for end in ends.iter_mut().rev() {
            end.0 = end.0.min(limit);
            limit = end.0 - NAME_DISTANCE;
        }
        html! {
            @for (y, series) in ends {
                text.tick x=(format!("{:.1}", layout.right + 6.0)) y=(format!("{:.1}", y + 4.0)) { (shortened(&series.name)) }
            }
        }
    }
}

/// At most [`POINTS_MAX`] of `points`: the first, the last, the lowest and the highest of equally long parts, so that no peak goes.
fn extremes(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let of_part = |part: &[(f64, f64)]| {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let kept = [part.first(), part.iter().min_by(by_height), part.iter().max_by(by_height), part.last()];
        let mut kept: Vec<(f64, f64)> = kept.into_iter().flatten().copied().collect();
        kept.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.dedup();
        kept
    };
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    points.chunks(points.len().div_ceil(POINTS_MAX / 4)).flat_map(of_part).collect()
}

fn class(what: &str, style: usize) -> String {
    format!("{what} s{}", style % STYLES)
}

/// The end of a long name tells more than its begin: variants are called `mode/policy`.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_LENGTH_MAX {
        return name.to_owned();
    }
    match name.rsplit_once('/') {
        Some((_, last)) if (1..NAME_LENGTH_MAX - 1).contains(&last.chars().count()) => format!("…/{last}"),
        _ => format!("…{}", name.chars().skip(length - NAME_LENGTH_MAX + 1).collect::<String>()),
    }
}

/// A shape of its own for each style, so that lines can be told apart without colour.
fn marker(style: usize, x: f64, y: f64, text: &str) -> Markup {
    let path = match style % STYLES {
        0 => format!("M{:.1} {y:.1}a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z", x - 3.4),
        1 => format!("M{:.1} {:.1}h6v6h-6z", x - 3.0, y - 3.0),
        2 => format!("M{x:.1} {:.1}l4 7h-8z", y - 4.4),
        3 => format!("M{x:.1} {:.1}l4.2 4.2l-4.2 4.2l-4.2 -4.2z", y - 4.2),
        4 => format!("M{x:.1} {:.1}l4 -7h-8z", y + 4.4),
        _ => format!("M{:.1} {:.1}h2v-2h2v2h2v2h-2v2h-2v-2h-2z", x - 3.0, y - 1.0),
    };
    html! { path class=(class("marker", style)) d=(path) { @if !text.is_empty() { title { (text) } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(names: &[&str]) -> Chart {
        let series =
            names.iter().enumerate().map(|(i, name)| Series::line(name, i, vec![(0.0, 1.0), (1.0, 1.0)])).collect();
        Chart {
            id: "c".to_owned(),
            title: "<title> & co".to_owned(),
            description: "flat lines".to_owned(),
            x: Axis::span("time", 1.0, |v| v.to_string()),
            y: Axis::linear("events", 2.0, |v| v.to_string()),
            series,
            level: None,
            rug_label: String::new(),
        }
    }

    #[test]
    fn names_at_line_ends_do_not_overlap() {
        let svg = chart(&["a", "b", "c", "d"]).render().into_string();
        let mut heights: Vec<f64> = svg
            .split("<text class=\"tick\" ")
            .skip(1)
            .map(|t| t.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        heights.sort_by(f64::total_cmp);
        assert_eq!(heights.len(), 4);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= NAME_DISTANCE - 0.2), "{heights:?}");
    }

    #[test]
    fn a_level_is_drawn_across_the_plot_and_levels_that_change_as_a_line() {
        let path = |points: &[(f64, f64)]| {
            let level = Level { points: points.to_vec(), name: String::new() };
            let svg = Chart { level: Some(level), ..chart(&["a"]) }.render().into_string();
            svg.rsplit("path class=\"level\" d=\"").next().unwrap().split('"').next().unwrap().to_owned()
        };
        assert!(path(&[(0.0, 1.0)]).contains('H'));
        assert_eq!(path(&[(0.0, 0.0), (0.5, 2.0), (1.0, 1.0)]).matches('L').count(), 2);
    }

    #[test]
    fn a_chart_is_named_and_described_and_escapes_what_it_is_given() {
        let svg = chart(&["<b>"]).render().into_string();
        assert!(svg.contains("role=\"img\" aria-labelledby=\"c-t c-d\""));
        assert!(svg.contains("&lt;title&gt; &amp; co") && svg.contains("flat lines"));
        assert!(!svg.contains("<b>"));
    }

    #[test]
    fn of_ten_thousand_points_the_page_holds_few_and_every_peak() {
        let mut chart = chart(&["a"]);
        chart.series[0].points = (0..10_000).map(|i| (f64::from(i) / 10_000.0, f64::from(i % 7) / 7.0)).collect();
        chart.series[0].points[4_321].1 = 1.75;
        let page = chart.render().into_string();
        assert!(page.contains(",0.4321,1.75,") && page.len() < 30_000, "{} bytes", page.len());
    }

    #[test]
    fn ten_thousand_ticks_are_drawn_as_no_more_than_there_are_columns() {
        let mut chart = chart(&["a"]);
        chart.series[0].rug = (0..10_000).map(|i| f64::from(i) / 10_000.0).collect();
        assert!(chart.render().into_string().matches("v10").count() < WIDTH as usize);
    }
}
