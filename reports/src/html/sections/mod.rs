//! The parts of the page, in order; a part without data is left out or says why it is empty.

mod capacity;
mod context;
mod generators;
mod idle;
mod keeping;
mod machine;
mod numbers;
mod promises;
mod times;

use maud::{Markup, html};

use crate::chart::Chart;
use crate::model::Run;
use crate::summary::{self, Cell, Group, Row};

/// One part of the page.
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    /// One sentence.
    how_to_read: &'static str,
    body: Markup,
}

impl Section {
    pub fn render(&self) -> Markup {
        html! {
            section id=(self.id) aria-labelledby=(format!("{}-h", self.id)) {
                h2 id=(format!("{}-h", self.id)) { (self.title) }
                p.how { (self.how_to_read) }
                (self.body)
            }
        }
    }
}

/// Those that there are data for.
pub fn all(run: &Run) -> Vec<Section> {
    if !run.crash.is_empty() {
        return [promises::crash(run), context::caveats(run), context::environment(run)]
            .into_iter()
            .flatten()
            .collect();
    }
    if run.results.is_empty() && !run.conformance.is_empty() {
        let all = [promises::conformance(run), context::caveats(run), context::environment(run)];
        return all.into_iter().flatten().collect();
    }
    let all = [
        capacity::capacity(run),
        numbers::key_numbers(run),
        numbers::objectives(run),
        times::curves(run),
        times::parts(run),
        times::heat(run),
        times::over_time(run),
        times::operations(run),
        keeping::durable(run),
        keeping::ledger(run),
        promises::conformance(run),
        idle::idle(run),
        numbers::before_after(run),
        machine::resources(run),
        machine::trust(run),
        generators::generators(run),
        machine::floor(run),
        context::caveats(run),
        context::environment(run),
    ];
    all.into_iter().flatten().collect()
}

fn names(run: &Run) -> Vec<String> {
    summary::groups(run).iter().map(|g| g.name.to_owned()).collect()
}

fn row(run: &Run, label: &str, read: impl Fn(&Group<'_>) -> Cell) -> Row {
    Row { label: label.to_owned(), cells: summary::groups(run).iter().map(read).collect() }
}

fn charts(charts: Vec<Option<Chart>>) -> Markup {
    let charts: Vec<Chart> = charts.into_iter().flatten().collect();
    html! { @if !charts.is_empty() { div.charts { @for chart in &charts { (chart.render()) } } } }
}
