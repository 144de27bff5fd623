//! Flows as small SVG: what arrives at each stage as a band as wide as it is many, and what leaves or joins on the way as branches of it.
//!
//! A branch that should not be is red and says ✗; one that leaves a question is marked !; so it reads without colour. This module knows
//! nothing of runs; what is drawn is decided in [`crate::html`].

use maud::{Markup, html};

use crate::format;

/// Width of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 400.0;
/// Left and right of the first and the last stage.
const MARGIN: f64 = 6.0;
/// Where the band begins, below the names of the stages.
const TOP: f64 = 38.0;
/// Height of the largest number.
const BAND_HEIGHT: f64 = 64.0;
/// What is there is seen, however little it is.
const THICKNESS_MIN: f64 = 1.6;
/// Width of the bar that is a stage.
const BAR_WIDTH: f64 = 5.0;
/// Between the band and the first branch's text.
const TEXT_GAP: f64 = 24.0;
const TEXT_HEIGHT: f64 = 15.0;
/// Width of a character of a text, on the safe side.
const CHARACTER: f64 = 6.4;

/// What a branch is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It must not be.
    Fault,
    /// It should not be, or is not known.
    Doubt,
    /// As it may be.
    Allowed,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Doubt => "doubt",
            Self::Allowed => "allowed",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Fault => "✗ ",
            Self::Doubt => "! ",
            Self::Allowed => "",
        }
    }
}

/// Which way a branch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It leaves.
    Out,
    /// It joins.
    In,
}

/// What leaves or joins between a stage and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Which way.
    pub way: Way,
    /// What it is worth.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// What they are: `lost`.
    pub name: &'static str,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it is: `persisted`.
    pub name: &'static str,
    /// How many arrived.
    pub count: u64,
    /// What left and joined since the stage before; nothing is drawn of a count of 0, and of all before the first stage.
    pub branches: Vec<Branch>,
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Unique on the page.
    pub id: String,
    /// Heading, read aloud as the drawing's name.
    pub title: String,
    /// From left to right; two or more.
    pub stages: Vec<Stage>,
}

/// A branch that has its place.
struct Placed<'a> {
    branch: &'a Branch,
    path: String,
    thickness: f64,
    /// Where its end is that hangs down.
    x: f64,
}

impl Flow {
    /// A figure: title and drawing.
    pub fn render(&self) -> Markup {
        let (title_id, description_id) = (format!("{}-t", self.id), format!("{}-d", self.id));
        let rows = self.stages.iter().skip(1).flat_map(|stage| &stage.branches).filter(|b| b.count > 0).count();
        let bottom = self.bottom();
        let text_begin = bottom + TEXT_GAP;
        let placed = self.placed(text_begin);
        let height = if rows > 0 { text_begin + TEXT_HEIGHT * rows as f64 } else { bottom + 6.0 };
        html! {
            figure.chart.stream {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {height:.1}")) role="img" aria-labelledby=(format!("{title_id} {description_id}")) {
                    title id=(title_id) { (self.title) }
                    desc id=(description_id) { (self.description()) }
                    @for place in 1..self.stages.len() { (self.band(place)) }
                    @for placed in &placed { (branch(placed)) }
                    @for (row, placed) in placed.iter().enumerate() { (name(placed, text_begin + TEXT_HEIGHT * row as f64)) }
                    @for place in 0..self.stages.len() { (self.stage(place)) }
                }
            }
        }
    }

    /// In words: each stage, and what left and joined before it.
    fn description(&self) -> String {
        let stages = self.stages.iter().map(|stage| {
            let branches = stage.branches.iter().filter(|branch| branch.count > 0 || branch.kind == Kind::Fault);
            let branches: String = branches.map(|b| format!(", {} {}", format::count(b.count), b.name)).collect();
            format!("{} {}{branches}", format::count(stage.count), stage.name)
        });
        stages.collect::<Vec<_>>().join("; ")
    }

    fn x(&self, place: usize) -> f64 {
        let step = (WIDTH - 2.0 * MARGIN - BAR_WIDTH) / (self.stages.len().max(2) - 1) as f64;
        MARGIN + step * place as f64
    }

    fn thickness(&self, count: u64) -> f64 {
        let largest = self.stages.iter().map(|stage| stage.count).max().unwrap_or(0).max(1);
        if count == 0 { 0.0 } else { (count as f64 / largest as f64 * BAND_HEIGHT).clamp(THICKNESS_MIN, BAND_HEIGHT) }
    }

    /// What goes on from the stage before to this one.
    fn kept(&self, place: usize) -> u64 {
        let stage = &self.stages[place];
        let left: u64 = stage.branches.iter().filter(|branch| branch.way == Way::Out).map(|branch| branch.count).sum();
        self.stages[place - 1].count.saturating_sub(left).min(stage.count)
    }

    /// The lowest edge of the band and its branches, where they leave or join.
    fn bottom(&self) -> f64 {
        let below = |place: usize, way: Way| {
            let branches = self.stages[place].branches.iter().filter(|branch| branch.way == way);
            self.thickness(self.kept(place)) + branches.map(|branch| self.thickness(branch.count)).sum::<f64>()
        };
        let depths = (1..self.stages.len()).flat_map(|place| [below(place, Way::Out), below(place, Way::In)]);
        TOP + depths.fold(BAND_HEIGHT, f64::max)
    }

    fn band(&self, place: usize) -> Markup {
        let (from, to, kept) = (self.x(place - 1) + BAR_WIDTH, self.x(place), self.kept(place));
        let (name, before) = (self.stages[place].name, self.stages[place - 1].name);
        html! {
            @if kept > 0 {
                path.band d=(format!("M{from:.1} {TOP}H{to:.1}v{:.1}H{from:.1}z", self.thickness(kept))) {
                    title { (format::count(kept)) " " (before) " → " (name) }
                }
            }
        }
    }

    fn stage(&self, place: usize) -> Markup {
        let (stage, x, last) = (&self.stages[place], self.x(place), self.stages.len() - 1);
        let (anchor, at) = match place {
            0 => ("", x),
            _ if place == last => ("end", x + BAR_WIDTH),
            _ => ("middle", x + BAR_WIDTH / 2.0),
        };
        html! {
            path.stage d=(format!("M{x:.1} {TOP}h{BAR_WIDTH}v{:.1}h-{BAR_WIDTH}z", self.thickness(stage.count))) {}
            text class=(format!("number {anchor}")) x=(format!("{at:.1}")) y="13" { (format::count(stage.count)) }
            text class=(format!("label {anchor}")) x=(format!("{at:.1}")) y="28" { (stage.name) }
        }
    }

    /// All branches, the one farthest to the right first: its text is the highest, so that no branch crosses the text of another.
    fn placed(&self, text_begin: f64) -> Vec<Placed<'_>> {
        let mut placed: Vec<Placed<'_>> = (1..self.stages.len())
            .flat_map(|place| [Way::Out, Way::In].map(|way| self.placed_between(place, way)))
            .flatten()
            .collect();
        placed.sort_by(|a, b| b.x.total_cmp(&a.x));
        for (row, one) in placed.iter_mut().enumerate() {
            let end = text_begin + TEXT_HEIGHT * row as f64 - 11.0;
            one.path += &format!("V{end:.1}");
        }
        placed
    }

    fn placed_between(&self, place: usize, way: Way) -> Vec<Placed<'_>> {
        let (left, right) = (self.x(place - 1) + BAR_WIDTH, self.x(place));
        let mut edge = TOP + self.thickness(self.kept(place));
        let mut reach = 6.0;
        let branches: Vec<&Branch> =
            self.stages[place].branches.iter().filter(|branch| branch.way == way && branch.count > 0).collect();
        // The outermost hangs down nearest to its stage: so none crosses another.
        let widths: f64 = branches.iter().map(|branch| self.thickness(branch.count) + 10.0).sum();
        reach += widths;
        let mut found = Vec::new();
        for branch in branches {
            let thickness = self.thickness(branch.count);
            let (y, bend) = (edge + thickness / 2.0, reach - thickness / 2.0);
            let (begin, x, radius) = match way {
                Way::Out => (left, left + bend, (thickness / 2.0 + 6.0).min(bend)),
                Way::In => (right, right - bend, -(thickness / 2.0 + 6.0).min(bend)),
            };
            let path = format!("M{begin:.1} {y:.1}H{:.1}Q{x:.1} {y:.1} {x:.1} {:.1}", x - radius, y + radius.abs());
            found.push(Placed { branch, path, thickness, x });
            edge += thickness;
            reach -= thickness + 10.0;
        }
        found
    }
}

impl Placed<'_> {
    fn text(&self) -> String {
        let Branch { kind, count, name, .. } = self.branch;
        format!("{}{} {name}", kind.mark(), format::count(*count))
    }
}

fn branch(placed: &Placed<'_>) -> Markup {
    html! {
        path class=(format!("branch {}", placed.branch.kind.class())) d=(placed.path) stroke-width=(format!("{:.1}", placed.thickness)) {
            title { (placed.text()) }
        }
    }
}

/// Below its end; drawn after all branches, so that one that passes behind a text does not strike it out.
fn name(placed: &Placed<'_>, y: f64) -> Markup {
    let (text, begin) = (placed.text(), placed.x - 4.0);
    let fits = begin + text.chars().count() as f64 * CHARACTER <= WIDTH;
    let (anchor, at) = if fits { ("", begin) } else { (" end", WIDTH - 2.0) };
    html! {
        text class=(format!("{}{anchor}", placed.branch.kind.class())) x=(format!("{at:.1}")) y=(format!("{y:.1}")) { (text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(way: Way, kind: Kind, count: u64, name: &'static str) -> Branch {
        Branch { way, kind, count, name }
    }

    fn flow(branches: Vec<Branch>) -> Flow {
        let lost: u64 = branches.iter().filter(|b| b.way == Way::Out).map(|b| b.count).sum();
        let stages = vec![
            Stage { name: "acknowledged", count: 1_000_000, branches: Vec::new() },
            Stage { name: "persisted", count: 1_000_000 - lost, branches },
        ];
        Flow { id: "f".to_owned(), title: "ledger".to_owned(), stages }
    }

    fn strokes(svg: &str) -> Vec<f64> {
        let strokes = svg.split("stroke-width=\"").skip(1);
        strokes.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn a_branch_is_as_wide_as_it_is_many_and_a_single_event_is_still_seen() {
        let of = |lost: u64| strokes(&flow(vec![branch(Way::Out, Kind::Fault, lost, "lost")]).render().into_string());
        assert_eq!((of(0), of(500_000), of(1)), (vec![], vec![32.0], vec![1.6]));
    }

    #[test]
    fn what_leaves_does_not_go_on_however_many_join() {
        let mut flow = flow(vec![branch(Way::Out, Kind::Doubt, 250_000, "refused")]);
        flow.stages[1].branches.push(branch(Way::In, Kind::Allowed, 250_000, "of the warm-up"));
        flow.stages[1].count = 1_000_000;
        assert_eq!(flow.kept(1), 750_000);
        assert!(flow.render().into_string().contains(">750\u{202f}000 acknowledged → persisted<"));
    }

    #[test]
    fn a_fault_says_so_without_colour_and_what_is_allowed_does_not() {
        let branches = vec![
            branch(Way::Out, Kind::Fault, 3, "lost"),
            branch(Way::Out, Kind::Doubt, 2, "unverified"),
            branch(Way::In, Kind::Allowed, 7, "not acknowledged"),
        ];
        let svg = flow(branches).render().into_string();
        for text in [">✗ 3 lost<", ">! 2 unverified<", ">7 not acknowledged<"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn no_branch_hangs_through_the_text_of_another() {
        let branches = vec![
            branch(Way::Out, Kind::Fault, 100_000, "lost"),
            branch(Way::Out, Kind::Doubt, 50_000, "unverified"),
            branch(Way::In, Kind::Fault, 30_000, "duplicated"),
        ];
        let flow = flow(branches);
        let placed = flow.placed(150.0);
        assert_eq!(placed.len(), 3);
        let end = |placed: &Placed<'_>| placed.path.rsplit('V').next().unwrap().parse::<f64>().unwrap();
        assert!(placed.windows(2).all(|pair| pair[1].x < pair[0].x && end(&pair[1]) > end(&pair[0])));
    }

    #[test]
    fn those_who_cannot_see_it_are_told_every_number_and_that_nothing_is_lost() {
        let svg = flow(vec![branch(Way::Out, Kind::Fault, 0, "lost")]).render().into_string();
        let expected = "1\u{202f}000\u{202f}000 acknowledged; 1\u{202f}000\u{202f}000 persisted, 0 lost";
        assert!(svg.contains(&format!("<desc id=\"f-d\">{expected}</desc>")), "{svg}");
    }
}
