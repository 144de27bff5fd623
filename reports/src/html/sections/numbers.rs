//! The parts with what is asked for first: the key numbers, the objectives, old against new.

use maud::{Markup, html};

use super::{Section, names};
use crate::before_after;
use crate::calibration;
use crate::format;
use crate::html::number_table;
use crate::model::{ObjectiveResult, Run};
use crate::summary::{self, Row};

pub fn key_numbers(run: &Run) -> Option<Section> {
    Some(Section {
        id: "numbers",
        title: "Key numbers",
        how_to_read: "Response time runs from the moment an event was due, so a stall counts for every event that waited; each number is \
                      the median of the repetitions, with the smallest and largest below it where they differ; – means not measured or \
                      too few samples.",
        body: html! {
            (number_table(&summary::headings(run), &summary::key_rows(run)))
            @if let Some(note) = floor_note(run) { p.note { (note) } }
        },
    })
}

/// Where the floor stands.
fn floor_note(run: &Run) -> Option<&'static str> {
    if calibration::has_null_variant(run) {
        return Some(
            "The server null does nothing with an event: its times are the floor of this machine, and in those of every other one.",
        );
    }
    calibration::floor(run).map(|_| {
        "The floor was measured before the first repetition: a server that does nothing, on the generator's machine, at the rate in its column."
    })
}

pub fn objectives(run: &Run) -> Option<Section> {
    let names = names(run);
    let mut expressions: Vec<&str> = run.objectives.iter().map(|o| o.expression.as_str()).collect();
    expressions.dedup();
    let body = html! {
        @if run.objectives.is_empty() { p { "None was set." } } @else {
            div.scroll tabindex="0" role="group" aria-label="objectives" {
                table.objectives {
                    thead { tr { th scope="col" { "Objective" } @for name in &names { th scope="col" { (name) } } } }
                    tbody {
                        @for expression in expressions {
                            tr {
                                th scope="row" { code { (expression) } }
                                @for name in &names { td { (objective_cell(run, expression, name)) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Some(Section {
        id: "objectives",
        title: "Objectives",
        how_to_read: "Times and ratios are judged by the median of the repetitions, counts by the worst; undecided means that the data allow \
                      both answers, which never counts as met; an empty field was not asked for.",
        body,
    })
}

fn objective_cell(run: &Run, expression: &str, variant: &str) -> Markup {
    // One that could not be read belongs to no variant; it is shown under each.
    let of = |o: &&ObjectiveResult| o.expression == expression && (o.variant == variant || o.variant.is_empty());
    html! {
        @if let Some(o) = run.objectives.iter().find(of) {
            @match o.met {
                Some(true) => span.state.met { "✓ met" },
                Some(false) => span.state.miss { "✗ missed" },
                None => span.state.open { "? undecided" },
            }
            @if let Some(value) = o.value { span.value { " " (format::in_unit(value, &o.unit)) } }
            @if let Some(note) = &o.note { small { (note) } }
        }
    }
}

pub fn before_after(run: &Run) -> Option<Section> {
    let table = before_after::table(run)?;
    let rows: Vec<Row> = table.rows.iter().map(before_after::TableRow::across).collect();
    Some(Section {
        id: "before-after",
        title: "Before and after",
        how_to_read: "The old design against each new one, measured in this run on this machine; the change is that of the new one against the old.",
        body: number_table(&table.headings(), &rows),
    })
}
