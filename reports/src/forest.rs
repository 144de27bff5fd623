//! Forest plots as small SVG: an estimate with its interval on each row, all along one axis, held against a line of no difference.
//!
//! What a row comes to is said by its mark as well as by its colour. This module knows nothing of runs; what is drawn is decided in
//! [`crate::html`].

use maud::{Markup, html};

use crate::chart::{Axis, STYLES};

/// Width of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 400.0;
const MARGIN_TOP: f64 = 20.0;
const MARGIN_BOTTOM: f64 = 8.0;
const MARGIN_RIGHT: f64 = 10.0;
const ROW_HEIGHT: f64 = 16.0;
/// Width of a character of a name, on the safe side.
const CHARACTER: f64 = 6.2;
/// Widest column of names.
const NAMES_WIDTH_MAX: f64 = 172.0;

/// One estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is of.
    pub name: String,
    /// The estimate; it is drawn at the edge when it lies beyond.
    pub value: f64,
    /// Its interval, where it has one.
    pub interval: Option<(f64, f64)>,
    /// How far it may go, where there is such a bound.
    pub bound: Option<f64>,
    /// Class of its line and mark, of the style sheet: `s0`, `good`, ….
    pub class: String,
    /// What is shown when pointing at it.
    pub text: String,
}

/// Rows under one heading.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Empty: none.
    pub heading: String,
    /// From the top.
    pub rows: Vec<Row>,
}

/// A forest plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    /// Unique on the page.
    pub id: String,
    /// Heading, read aloud as the drawing's name.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Where nothing differs.
    pub even: f64,
    /// From the top.
    pub groups: Vec<Group>,
}

/// The class of the style of this number, as charts have it.
pub fn style(number: usize) -> String {
    format!("s{}", number % STYLES)
}

impl Forest {
    /// A figure: title and drawing.
    pub fn render(&self) -> Markup {
        let (title_id, description_id) = (format!("{}-t", self.id), format!("{}-d", self.id));
        let headings = self.groups.iter().filter(|group| !group.heading.is_empty()).count();
        let rows = headings + self.groups.iter().map(|group| group.rows.len()).sum::<usize>();
        let bottom = MARGIN_TOP + ROW_HEIGHT * rows as f64;
        html! {
            figure.chart.forest {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {}", bottom + MARGIN_BOTTOM)) role="img" aria-labelledby=(format!("{title_id} {description_id}")) {
                    title id=(title_id) { (self.title) }
                    desc id=(description_id) { (self.description()) }
                    (self.axis(bottom))
                    (self.rows())
                }
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|group| &group.rows)
    }

    fn description(&self) -> String {
        self.all().map(|row| row.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    fn names_width(&self) -> f64 {
        let longest = self.all().map(|row| row.name.chars().count()).max().unwrap_or(0);
        (longest as f64 * CHARACTER + 12.0).min(NAMES_WIDTH_MAX)
    }

    fn x(&self, value: f64) -> f64 {
        let left = self.names_width();
        left + self.x.share(value) * (WIDTH - MARGIN_RIGHT - left)
    }

    fn axis(&self, bottom: f64) -> Markup {
        let named = self.named_ticks();
        html! {
            @for (place, (value, text)) in self.x.ticks.iter().enumerate() {
                @let x = self.x(*value);
                path class=(if *value == self.even { "axis" } else { "grid" }) d=(format!("M{x:.1} {MARGIN_TOP}V{bottom:.1}")) {}
                @if named(place) {
                    text class=(if x > WIDTH - 20.0 { "tick end" } else { "tick middle" }) x=(format!("{x:.1}")) y="13" { (text) }
                }
            }
        }
    }

    /// Which ticks have room for their text: every so many, the one of no difference among them.
    fn named_ticks(&self) -> impl Fn(usize) -> bool {
        let ticks = &self.x.ticks;
        let even = ticks.iter().position(|(value, _)| *value == self.even).unwrap_or(0);
        let width = ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0) as f64 * CHARACTER + 4.0;
        let distances = ticks.windows(2).map(|pair| self.x(pair[1].0) - self.x(pair[0].0));
        let distance = distances.fold(WIDTH, f64::min).max(1.0);
        let every = (width / distance).ceil().max(1.0) as usize;
        move |place| place.abs_diff(even).is_multiple_of(every)
    }

    fn rows(&self) -> Markup {
        let mut placed = Vec::new();
        let mut y = MARGIN_TOP;
        for group in &self.groups {
            if !group.heading.is_empty() {
                y += ROW_HEIGHT;
                placed.push(html! { text.heading x="2" y=(format!("{:.1}", y - 4.0)) { (group.heading) } });
            }
            for row in &group.rows {
                y += ROW_HEIGHT;
                placed.push(self.row(row, y - ROW_HEIGHT / 2.0));
            }
        }
        html! { @for row in placed { (row) } }
    }

    fn row(&self, row: &Row, y: f64) -> Markup {
        let x = self.x(row.value);
        html! {
            text.end x=(format!("{:.1}", self.names_width() - 8.0)) y=(format!("{:.1}", y + 4.0)) { (row.name) }
            @if let Some(bound) = row.bound {
                path.bound d=(format!("M{:.1} {:.1}v12", self.x(bound), y - 6.0)) {}
            }
            @if let Some((low, high)) = row.interval {
                path class=(format!("interval {}", row.class)) d=(format!("M{:.1} {y:.1}H{:.1}m0 -3v6M{:.1} {:.1}v6", self.x(low), self.x(high), self.x(low), y - 3.0)) {
                    title { (row.text) }
                }
            }
            circle class=(format!("marker {}", row.class)) cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="3.5" { title { (row.text) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forest(rows: &[(f64, Option<(f64, f64)>)]) -> Forest {
        let row = |(value, interval): &(f64, Option<(f64, f64)>)| Row {
            name: "response time p99".to_owned(),
            value: *value,
            interval: *interval,
            bound: None,
            class: style(7),
            text: format!("<{value}>"),
        };
        let rows = rows.iter().map(row).collect();
        Forest {
            id: "f".to_owned(),
            title: "ratios".to_owned(),
            x: Axis::log("", 0.5, 2.0, |v| v.to_string()),
            even: 1.0,
            groups: vec![Group { heading: "heading".to_owned(), rows }],
        }
    }

    fn centre(svg: &str) -> f64 {
        svg.split("cx=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    }

    #[test]
    fn an_estimate_lies_within_its_interval_and_one_beyond_the_axis_at_its_edge() {
        let svg = forest(&[(1.2, Some((0.9, 1.7)))]).render().into_string();
        let line = svg.split("class=\"interval s1\" d=\"M").nth(1).unwrap();
        let low: f64 = line.split(' ').next().unwrap().parse().unwrap();
        let high: f64 = line.split('H').nth(1).unwrap().split('m').next().unwrap().parse().unwrap();
        assert!(low < centre(&svg) && centre(&svg) < high, "{low} {high} {svg}");
        assert_eq!(centre(&forest(&[(40.0, None)]).render().into_string()), WIDTH - MARGIN_RIGHT);
    }

    #[test]
    fn ticks_that_lie_too_close_are_not_all_named_and_that_of_no_difference_is() {
        let x = Axis::log("", 0.02, 50.0, |v| format!("about {v} times as much"));
        let svg = Forest { x: x.clone(), ..forest(&[(1.0, None)]) }.render().into_string();
        let named = svg.matches(" times as much</text>").count();
        assert!(named < x.ticks.len() && svg.contains(">about 1 times as much</text>"), "{svg}");
    }

    #[test]
    fn one_without_an_interval_is_a_point_and_those_who_cannot_see_it_are_told() {
        let svg = forest(&[(1.0, None)]).render().into_string();
        assert!(!svg.contains("interval") && svg.contains("<desc id=\"f-d\">&lt;1&gt;</desc>"), "{svg}");
    }
}
