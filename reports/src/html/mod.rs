//! The run as one HTML page: no network, readable without its script, on a phone and on paper, dark and light.
//!
//! What is drawn is decided in `figures`, how it is drawn in [`crate::chart`], what the numbers are in [`crate::summary`]; here is the
//! page: which question comes first (`head`), one sentence on how to read each part (`sections`). `script/` adds what takes a
//! machine: reading values off a drawing, looking at a part of it, hiding lines, saving the data. It makes its own buttons, so that a page
//! without it has none that do nothing.

pub mod comparison;
mod figures;
pub mod gate;
mod head;
pub mod history;
mod sections;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::embed;
use crate::export;
use crate::model::{Run, Tool};
use crate::plan;
use crate::summary::{Cell, Row};

/// The page of a run.
pub fn render(run: &Run) -> String {
    let parts = sections::all(run);
    let title = format!("{}: {} · Millrace", head::word(run.verdict.outcome), run.plan.name);
    let body = html! {
        header {
            (bar("load test"))
            h1 { "Load test: " (run.plan.name) }
            p.meta { (head::subtitle(run)) }
            @for told in plan::peculiarities(&run.plan) { p.meta { (told) } }
            (head::verdict(run))
            (head::answers(run))
        }
        nav aria-label="Contents" { ul { @for part in &parts { li { a href=(format!("#{}", part.id)) { (part.title) } } } } }
        main id=(CONTENT) tabindex="-1" { @for part in &parts { (part.render()) } }
        footer {
            p { "Everything measured is in this page: the element with the id "
                code { "run-data" } " holds it as " code { (run.schema) } " JSON, histograms included." }
        }
        (stored("run-data", "run.json", run))
        (stored("csv-data", "run.csv", &export::csv(run)))
    };
    document(&title, Some(&run.tool), &body)
}

/// Where the link that skips the head leads.
const CONTENT: &str = "content";

/// A whole page: no network, and no script but ours.
fn document(title: &str, made_by: Option<&Tool>, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(embed::policy());
                @if let Some(tool) = made_by { meta name="generator" content=(format!("{} {}", tool.name, tool.version)); }
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) (PreEscaped(include_str!("figures.css"))) }
            }
            body {
                a.skip href=(format!("#{CONTENT}")) { "Skip to the numbers" }
                (body)
                (embed::script())
            }
        }
    };
    page.into_string()
}

/// The line above the heading: who made the page, and of what kind it is. The script puts its buttons here.
fn bar(kind: &str) -> Markup {
    html! { div.bar { p { b { "Millrace" } " " (kind) } } }
}

/// Data of the page that its script offers as a file of that name: JSON, and text as a JSON string.
fn stored(id: &str, file: &str, data: &impl serde::Serialize) -> Markup {
    html! { script type="application/json" id=(id) data-file=(file) { (embed::json(data)) } }
}

/// A table of numbers, variants across, in a box of its own that scrolls.
fn number_table(headings: &[String], rows: &[Row]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="table" {
            table.numbers {
                thead { tr { th scope="col" { span.unseen { "quantity" } } @for heading in headings { th scope="col" { (heading) } } } }
                tbody {
                    @for row in rows {
                        tr { th scope="row" { (row.label) } @for cell in &row.cells { td { (self::cell(cell)) } } }
                    }
                }
            }
        }
    }
}

fn cell(cell: &Cell) -> Markup {
    html! {
        @if cell.is_fault { span.fault { "✗ " (cell.text) } } @else { (cell.text) }
        @if let Some(spread) = &cell.spread { small { (spread) } }
    }
}

#[cfg(test)]
mod tests;
