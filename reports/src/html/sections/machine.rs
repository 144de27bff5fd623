//! The parts about what it cost, and what the generator and its machine were like.

use maud::html;

use super::{Section, charts, names, row};
use crate::format;
use crate::html::{figures, number_table};
use crate::model::{Resources, Run};
use crate::summary::{self, Group};
use crate::trust;

pub fn resources(run: &Run) -> Option<Section> {
    let seconds =
        |read: fn(&Resources) -> Option<f64>| move |g: &Group<'_>| g.cell(|r| read(&r.resources), format::seconds);
    let bytes = |read: fn(&Resources) -> Option<u64>| {
        move |g: &Group<'_>| g.cell(|r| read(&r.resources).map(|n| n as f64), format::bytes)
    };
    let rows = [
        row(run, "server CPU", seconds(|r| r.server_cpu_s)),
        row(run, "server CPU per accepted event", |g| {
            g.cell(|r| r.cpu_ns_per_event(r.resources.server_cpu_s), format::time)
        }),
        row(run, "database CPU", seconds(|r| r.database_cpu_s)),
        row(run, "server memory, peak", bytes(|r| r.server_rss_peak_bytes)),
        row(run, "generator CPU", seconds(|r| r.generator_cpu_s)),
        row(run, "generator memory, peak", bytes(|r| r.generator_rss_peak_bytes)),
        row(run, "connections opened again", |g| g.cell(|r| Some(r.load.reconnects as f64), format::number)),
    ];
    let drawn = vec![
        figures::machine::server_cpu(run),
        figures::machine::server_memory(run),
        figures::machine::generator_cpu(run),
    ];
    Some(Section {
        id: "resources",
        title: "What it cost",
        how_to_read: "Processor time and memory over the steady phase, drawn between looks twice a second (ticks below are stalls of the machine in the \
                      first repetition); memory that climbs without end and a processor at its limit both end a run sooner or later.",
        body: html! { (charts(drawn)) (number_table(&names(run), &rows)) },
    })
}

/// Variants up to which two tables fit beside one another.
const TABLES_BESIDE_VARIANTS_MAX: usize = 3;

pub fn trust(run: &Run) -> Option<Section> {
    run.results.iter().find(|r| r.health.is_some() || r.load.arrivals_check.is_some())?;
    let parts = trust::parts(run);
    let beside = names(run).len() <= TABLES_BESIDE_VARIANTS_MAX;
    Some(Section {
        id: "trust",
        title: "Can this be trusted? Generator and machine",
        how_to_read: "What the tool saw of itself and of its machine during the steady phase, always the worst repetition: its own delay \
                      should be small against the response time, its threads should not wait, a thread that only sleeps should wake in \
                      time; what is not well is told under caveats.",
        body: html! {
            div.pairs[beside] {
                @for part in &parts { div { h3 { (part.title) } (number_table(&names(run), &part.rows)) } }
                @if let Some(chart) = figures::machine::stalls(run) { div { h3 { "Stalls" } (chart.render()) } }
            }
        },
    })
}

pub fn floor(run: &Run) -> Option<Section> {
    let found = run.calibration.as_ref()?;
    let limit = found.limit.as_ref().map(|limit| {
        let rate = found.rate_per_s_failed.map_or_else(|| format::UNKNOWN.to_owned(), format::rate);
        format!("What ended it at {rate}: {limit}.")
    });
    Some(Section {
        id: "floor",
        title: "The floor of this machine",
        how_to_read: "What a server that does nothing takes here: nobody can measure less, and a number close to it says more about the machine \
                      than about the server; a rate is offered honestly when the generator sends and reads in time.",
        body: html! {
            (number_table(&["this machine".to_owned()], &summary::calibration_rows(run)))
            @if let Some(limit) = limit { p.note { (limit) } }
        },
    })
}
