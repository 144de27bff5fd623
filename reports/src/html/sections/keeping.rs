//! The parts about what is kept: how long until it is, and the ledger.

use maud::{Markup, html};

use super::{Section, charts};
use crate::format;
use crate::html::{figures, number_table};
use crate::model::{Delivery, Ledger, Run};
use crate::summary::{self, Group};

pub fn durable(run: &Run) -> Option<Section> {
    let drawn = vec![
        figures::percentiles(run, "curve-durable", "Acknowledged → persisted", summary::TIME_TO_DURABLE),
        figures::durable_over_time(run),
        figures::backlog(run),
    ];
    if drawn.iter().all(Option::is_none) && run.results.iter().all(|r| summary::time_to_durable(r).is_none()) {
        return None;
    }
    let sources: Vec<String> = summary::groups(run)
        .iter()
        .filter_map(|g| {
            let durable = g.results.iter().find_map(|r| r.ledger.as_ref()?.time_to_durable.as_ref())?;
            Some(format!("{}: {}, to {}", g.name, durable.source, format::time_ns(durable.resolution_ns)))
        })
        .collect();
    let rows = summary::quantile_rows(run, summary::TIME_TO_DURABLE);
    Some(Section {
        id: "durable",
        title: "How long until it is safe",
        how_to_read: "From the acknowledgement to the stored row: until then a crash may lose the event, and a backlog that grows under \
                      load means that the server acknowledges faster than it stores.",
        body: html! {
            (charts(drawn)) (number_table(&summary::headings(run), &rows))
            @if run.plan.webhooks {
                p { "Acknowledged → delivered to the webhook, by the generator's own clock:" }
                (number_table(&summary::headings(run), &summary::quantile_rows(run, summary::TIME_TO_DELIVERED)))
            }
            @if !sources.is_empty() { p.note { "Source and resolution – " (sources.join("; ")) "." } }
        },
    })
}

pub fn ledger(run: &Run) -> Option<Section> {
    let groups = summary::groups(run);
    let unchecked: Vec<&str> =
        groups.iter().filter(|g| g.results.iter().all(|r| r.ledger.is_none())).map(|g| g.name).collect();
    Some(Section {
        id: "ledger",
        title: "The ledger",
        how_to_read: "Every event that was acknowledged, warm-up included, is looked for in the store, and persisted has to equal acknowledged: \
                      bands are as wide as they are many (what is there is always seen), what must not be is red and marked ✗; \
                      the sum of all repetitions is shown.",
        body: html! {
            div.ledgers { @for (place, group) in groups.iter().enumerate() {
                @if let Some(flow) = figures::ledger::flow(run, place, group) { div { (flow.render()) (account(group)) } }
            } }
            @if !unchecked.is_empty() { p.note { "Not reconciled: " (unchecked.join(", ")) "." } }
        },
    })
}

/// What the flow of a variant comes to, and what it rests on.
fn account(group: &Group<'_>) -> Markup {
    let ledgers: Vec<&Ledger> = group.results.iter().filter_map(|r| r.ledger.as_ref()).collect();
    let sum = |read: fn(&Ledger) -> u64| ledgers.iter().map(|l| read(l)).sum::<u64>();
    let faults = [
        ("lost", sum(|l| l.lost)),
        ("duplicated", sum(|l| l.duplicated)),
        ("stored altered", sum(|l| l.corrupted)),
        ("unverified", sum(|l| l.unverified)),
    ];
    let shown = faults.iter().filter(|(name, n)| *n > 0 || ["lost", "duplicated"].contains(name));
    let examples: Vec<&str> = ledgers.iter().flat_map(|l| &l.lost_examples).take(10).map(String::as_str).collect();
    let drained = ledgers.iter().map(|l| l.drained_after_ms).max().unwrap_or(0);
    let source = ledgers.first().map_or(format::UNKNOWN, |ledger| ledger.source.as_str());
    html! {
        p {
            @for (i, (name, n)) in shown.enumerate() {
                @if i > 0 { " · " }
                @if *n > 0 { span.fault { "✗ " (format::count(*n)) " " (name) } } @else { "0 " (name) }
            }
        }
        (deliveries(&ledgers))
        p.note { "Read from " (source) "; the store had everything or gave up " (format::time(drained as f64 * 1e6))
            " after the last acknowledgement." }
        @if !examples.is_empty() { p.note { "Lost, for example: " span.mono { (examples.join(" ")) } } }
    }
}

/// What the receiver of webhooks got, where delivery was asked for.
fn deliveries(ledgers: &[&Ledger]) -> Markup {
    let all: Vec<&Delivery> = ledgers.iter().filter_map(|l| l.delivery.as_ref()).collect();
    let sum = |read: fn(&Delivery) -> u64| all.iter().map(|d| read(d)).sum::<u64>();
    let faults = [
        ("not delivered", sum(|d| d.undelivered)),
        ("delivered altered", sum(|d| d.altered)),
        ("badly signed", sum(|d| d.badly_signed.unwrap_or(0))),
    ];
    let examples: Vec<&str> = all.iter().flat_map(|d| &d.undelivered_examples).take(10).map(String::as_str).collect();
    let drained_ms = all.iter().map(|d| d.drained_after_ms).max().unwrap_or(0);
    html! {
        @if !all.is_empty() {
            p {
                "Webhooks: "
                @for (i, (name, n)) in faults.iter().enumerate() {
                    @if i > 0 { " · " }
                    @if *n > 0 { span.fault { "✗ " (format::count(*n)) " " (name) } } @else { "0 " (name) }
                }
                " · " (format::count(sum(|d| d.repeated))) " delivered again · " (format::count(sum(|d| d.out_of_order)))
                " out of order (both are allowed) · all or given up " (format::time(drained_ms as f64 * 1e6)) " after the last acknowledgement."
            }
            @if all.iter().any(|d| d.badly_signed.is_none()) { p.note { "Signatures could not be verified: the target told no secret." } }
            @if !examples.is_empty() { p.note { "Not delivered, for example: " span.mono { (examples.join(" ")) } } }
        }
    }
}
