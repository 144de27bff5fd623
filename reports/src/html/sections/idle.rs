//! The part about what a target does while nothing happens.

use maud::{Markup, html};

use super::{Section, names, row};
use crate::format;
use crate::html::{figures, number_table};
use crate::model::{Idle, Run};
use crate::summary::{self, Cell, Group, Row};

pub fn idle(run: &Run) -> Option<Section> {
    run.results.iter().find(|r| r.idle.is_some())?;
    let text_ns =
        |read: fn(&Idle) -> Option<f64>| move |g: &Group<'_>| g.cell(|r| r.idle.as_ref().and_then(read), format::time);
    let number = |read: fn(&Idle) -> Option<f64>| {
        move |g: &Group<'_>| g.cell(|r| r.idle.as_ref().and_then(read), format::number)
    };
    let rows = [
        row(run, "window counted", text_ns(|i| Some(i.seconds * 1e9))),
        row(run, "polls", number(|i| i.polls.map(|n| n as f64))),
        row(run, "SQL statements", number(|i| i.sql_statements.map(|n| n as f64))),
        row(run, "SQL statements per hour", number(|i| i.sql_statements_per_hour)),
        row(run, "… in deep idle", number(|i| i.sql_statements_per_hour_deep_idle)),
        row(run, "SQL statements per poll", number(|i| i.sql_statements_per_poll)),
        row(run, "deep idle after", text_ns(|i| i.deep_idle_after_s.map(|s| s * 1e9))),
        row(run, "poll interval at the end", text_ns(|i| i.poll_interval_ms_last.map(|ms| ms * 1e6))),
        row(run, "pooled connections unused, longest", text_ns(|i| i.connections_unused_s_max.map(|s| s * 1e9))),
        row(run, "first event after it, response time", text_ns(|i| i.first_event.map(|e| e.response_time_ns as f64))),
        row(
            run,
            "first event after it, time to durable",
            text_ns(|i| i.first_event?.time_to_durable_ns.map(|ns| ns as f64)),
        ),
    ];
    let sourced = |g: &Group<'_>| {
        Cell::plain(g.results.iter().find_map(|r| r.idle.as_ref()).map_or(format::UNKNOWN, |i| &i.source))
    };
    let rows: Vec<Row> = rows.into_iter().chain([row(run, "counted by", sourced)]).collect();
    Some(Section {
        id: "idle",
        title: "While nothing happens",
        how_to_read: "The higher the stair climbs the less often an idle server asks its database; each tick below it is an SQL statement \
                      (first repetition), and the bars are what that comes to in an hour.",
        body: html! {
            div.charts {
                @if let Some(stair) = figures::idle::stair(run) { (stair.render()) }
                @if let Some(bars) = figures::idle::statements_per_hour(run) { (bars.render()) }
            }
            (number_table(&names(run), &rows)) (statements(run))
        },
    })
}

fn statements(run: &Run) -> Markup {
    let groups = summary::groups(run);
    let listed = groups.iter().filter_map(|g| {
        let idle = g.results.first()?.idle.as_ref()?;
        (!idle.statements.is_empty()).then_some((g.name, &idle.statements))
    });
    let listed: Vec<_> = listed.collect();
    html! {
        @if !listed.is_empty() {
            h3 { "The statements" }
            div.scroll tabindex="0" role="group" aria-label="statements" {
                table {
                    thead { tr { th scope="col" { "Variant" } th scope="col" { "Calls" } th scope="col" { "Statement" } } }
                    tbody {
                        @for (name, statements) in &listed {
                            @for statement in statements.iter().take(10) {
                                tr { td { (name) } td { (format::count(statement.calls)) } td { code { (statement.statement) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}
