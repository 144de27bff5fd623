//! The parts about how long an acknowledgement takes: curves, what the time is made of, and how it goes on.

use maud::html;

use super::{Section, charts, names};
use crate::chart::Chart;
use crate::html::{figures, number_table};
use crate::model::Run;
use crate::summary::{self, Row, groups};

/// Variants that have a chart of their own beside the one with all of them.
const VARIANTS_DRAWN_MAX: usize = 6;

pub fn curves(run: &Run) -> Option<Section> {
    let rows: Vec<Row> = [summary::RESPONSE_TIME, summary::SERVICE_TIME, summary::SEND_DELAY]
        .into_iter()
        .flat_map(|kind| summary::quantile_rows(run, kind))
        .collect();
    Some(Section {
        id: "times",
        title: "How long an acknowledgement takes",
        how_to_read: "Response time (due → answered) is what a sender feels, service time (sent → answered) what the server took, send delay \
                      (due → sent) the tool's own fault; the lower and the later a curve bends up the better, nobody can be below the \
                      floor, and where a curve is faint it rests on fewer than 10 samples or is only a lower bound.",
        body: html! { (charts(drawn_curves(run))) (number_table(&summary::headings(run), &rows)) },
    })
}

/// All variants on one chart, then each with its parts; a lone variant needs the latter only.
fn drawn_curves(run: &Run) -> Vec<Option<Chart>> {
    let groups = groups(run);
    let each = groups.iter().enumerate().map(|(place, group)| figures::times(run, place, group));
    let each: Vec<Option<Chart>> = each.take(VARIANTS_DRAWN_MAX).collect();
    let compared = (groups.len() > 1)
        .then(|| figures::percentiles(run, "curve-response", "Response time, all variants", summary::RESPONSE_TIME));
    compared.into_iter().chain(each).collect()
}

pub fn parts(run: &Run) -> Option<Section> {
    let drawn = figures::parts::bars(run);
    (!drawn.is_empty()).then(|| Section {
        id: "parts",
        title: "Where the time goes",
        how_to_read: "Each bar is the mean response time of some requests, by what it was spent on: of all of them, and of those around p50, around \
                      p90 and beyond p99 of the response time (means add up, quantiles of parts do not); the part in the server is \
                      its own word for all of them together.",
        body: html! { div.charts { @for bars in &drawn { (bars.render()) } } },
    })
}

pub fn heat(run: &Run) -> Option<Section> {
    let drawn = figures::heat::response_time(run);
    (!drawn.is_empty()).then(|| Section {
        id: "heat",
        title: "Every event over time",
        how_to_read: "A column is a moment, a row a range of response times, and the stronger the shade the more events fell into both (by equal factors, \
                      from the number below each); a level band is good, a second band above the first or a column that reaches up is a mode \
                      or a stall that no single percentile shows.",
        body: html! { div.charts { @for map in &drawn { (map.render()) } } },
    })
}

pub fn over_time(run: &Run) -> Option<Section> {
    let drawn = vec![figures::rate(run), figures::response_over_time(run, 0.5), figures::response_over_time(run, 0.99)];
    drawn.iter().any(Option::is_some).then(|| Section {
        id: "over-time",
        title: "Over time",
        how_to_read: "Level lines are good; a dip in the rate with a hill in the response time is a stall; each repetition is a line, the \
                      first of each variant the thick one, and a lone hill in p99 may be a handful of events.",
        body: charts(drawn),
    })
}

pub fn operations(run: &Run) -> Option<Section> {
    let rows = summary::operation_rows(run);
    (!rows.is_empty()).then(|| Section {
        id: "operations",
        title: "By operation",
        how_to_read: "The load mixed several operations; the numbers above are of all of them together. A batch is one request of several \
                      events, each acknowledged by itself.",
        body: number_table(&names(run), &rows),
    })
}
