//! The part about how much the targets can take.

use maud::{Markup, html};

use super::{Section, charts};
use crate::html::{figures, number_table};
use crate::model::{Capacity, CapacityTrial, Run};
use crate::summary;

pub fn capacity(run: &Run) -> Option<Section> {
    let names: Vec<String> = run.capacity.iter().map(|found| found.variant.clone()).collect();
    let drawn = run.capacity.iter().enumerate().map(|(i, found)| figures::capacity(i, found)).collect();
    (!names.is_empty()).then(|| Section {
        id: "capacity",
        title: "Capacity",
        how_to_read: "The highest rate at which every objective is met, nothing is lost, and what is acknowledged is persisted as fast, in every \
                      confirmation; each trial had a fresh server unless a caveat says otherwise; beyond the knee, more load costs more \
                      waiting than it brings (rate ÷ mean response time is largest there).",
        body: html! {
            (number_table(&names, &summary::capacity_rows(run)))
            (charts(drawn))
            @for found in &run.capacity { (trials(found)) }
        },
    })
}

fn trials(found: &Capacity) -> Markup {
    html! {
        h3 { "Trials of " (found.variant) }
        @if !found.objectives.is_empty() { p.note { "Demanded in each: " code { (found.objectives.join(", ")) } } }
        div.scroll tabindex="0" role="group" aria-label="trials" {
            table.trials {
                thead { tr { th scope="col" { "rate" } @for heading in summary::TRIAL_HEADINGS { th scope="col" { (heading) } } } }
                tbody {
                    @for (row, trial) in summary::trial_rows(found).iter().zip(&found.trials) {
                        tr {
                            th scope="row" { (row.label) }
                            @for (i, cell) in row.cells.iter().enumerate() {
                                td { @if i == 0 { (held(trial)) } @else { (cell.text) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn held(trial: &CapacityTrial) -> Markup {
    html! {
        @match (trial.held, trial.is_saturated) {
            (true, _) => span.state.met { "✓ held" },
            (_, true) => span.state.open { "⊘ void" },
            _ => span.state.miss { "✗ failed" },
        }
        @for reason in &trial.reasons { small { (reason) } }
    }
}
