//! The run as one HTML page: no network, no script needed, readable on a phone and on paper, dark and light.
//!
//! What is drawn is decided in `figures`, how it is drawn in [`crate::chart`], what the numbers are in [`crate::summary`]; here is the
//! page: which question comes first, and one sentence on how to read each part.

pub mod comparison;
mod figures;
pub mod gate;
pub mod history;
mod sections;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::capacity;
use crate::conform;
use crate::crash;
use crate::format;
use crate::model::{Outcome, Run, Tool};
use crate::plan;
use crate::summary::{self, Cell, Row};

/// The page of a run.
pub fn render(run: &Run) -> String {
    let parts = sections::all(run);
    let title = format!("{}: {} · Millrace", word(run.verdict.outcome), run.plan.name);
    let body = html! {
        header {
            h1 { "Load test: " (run.plan.name) }
            p.meta { (subtitle(run)) }
            @for told in plan::peculiarities(&run.plan) { p.meta { (told) } }
            (verdict(run))
            (answers(run))
            nav aria-label="Contents" { ul { @for part in &parts { li { a href=(format!("#{}", part.id)) { (part.title) } } } } }
        }
        main { @for part in &parts { (part.render()) } }
        footer {
            p { "Everything measured is in this page: the element with the id "
                code { "run-data" } " holds it as " code { (run.schema) } " JSON, histograms included." }
        }
        script type="application/json" id="run-data" { (PreEscaped(embedded_json(run))) }
    };
    document(&title, Some(&run.tool), &body)
}

/// A whole page; no network, no script.
fn document(title: &str, made_by: Option<&Tool>, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                @if let Some(tool) = made_by { meta name="generator" content=(format!("{} {}", tool.name, tool.version)); }
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// JSON that cannot end the element it stands in: `<` occurs in it only within strings, where `\u003c` means the same.
fn embedded_json(data: &impl serde::Serialize) -> String {
    serde_json::to_string(data).expect("it has only text keys").replace('<', "\\u003c")
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "Pass",
        Outcome::Inconclusive => "Inconclusive",
        Outcome::Missed => "Missed",
        Outcome::Invalid => "Invalid",
    }
}

fn subtitle(run: &Run) -> String {
    if !run.crash.is_empty() {
        let tests = format::counted(run.crash.len() as u64, "test");
        return format!("{} · {tests} with kills · took {}", run.started_at, format::seconds(run.seconds));
    }
    if run.results.is_empty() && !run.conformance.is_empty() {
        let targets = format::counted(run.conformance.len() as u64, "target");
        return format!("{} · {targets} against the contract · took {}", run.started_at, format::seconds(run.seconds));
    }
    let what = match run.results.iter().find_map(|r| r.database.as_deref()).or(run.plan.database.as_deref()) {
        Some(database) => format!("on {database}"),
        None => "on a server that already ran".to_owned(),
    };
    let repeat = if run.plan.repeat > 1 { format!(", {} repetitions of each", run.plan.repeat) } else { String::new() };
    let variants = format::counted(run.plan.variants.len() as u64, "variant");
    format!("{} · {variants} {what}{repeat} · took {}", run.started_at, format::seconds(run.seconds))
}

fn verdict(run: &Run) -> Markup {
    let (class, mark) = match run.verdict.outcome {
        Outcome::Pass => ("pass", "✓"),
        Outcome::Inconclusive => ("inconclusive", "?"),
        Outcome::Missed => ("missed", "✗"),
        Outcome::Invalid => ("invalid", "⊘"),
    };
    verdict_box(class, mark, word(run.verdict.outcome), &run.verdict.reasons)
}

/// A verdict with its reasons; the first one stands beside it. `class`: of the style sheet.
fn verdict_box(class: &str, mark: &str, word: &str, reasons: &[String]) -> Markup {
    let mut reasons = reasons.iter();
    html! {
        div class=(format!("verdict {class}")) {
            p.why { strong { (mark) " " (word) } (reasons.next().map_or("", String::as_str)) }
            @if reasons.len() > 0 { ul { @for reason in reasons { li { (reason) } } } }
        }
    }
}

/// The questions that people open a report with.
fn answers(run: &Run) -> Markup {
    if !run.crash.is_empty() {
        return crash_answers(run);
    }
    if run.results.is_empty() && !run.conformance.is_empty() {
        return html! {
            dl.answers {
                div { dt { "Which rules are kept?" } dd { @for found in &run.conformance { div { (conform::sentence(found)) } } } }
            }
        };
    }
    html! {
        dl.answers {
            div { dt { "How fast?" } dd { (how_fast(run)) } }
            div { dt { "Was anything lost?" } dd { (was_anything_lost(run)) } }
            div { dt { "Can I trust it?" } dd { (can_i_trust_it(run)) } }
        }
    }
}

/// Of a run that killed servers.
fn crash_answers(run: &Run) -> Markup {
    let lost = |test: &crate::model::CrashTest| {
        format!("{} of {}", format::count(test.lost), format::counted(test.acknowledged, "acknowledged event"))
    };
    html! {
        dl.answers {
            div { dt { "Was anything lost?" } dd {
                @for test in &run.crash { div {
                    b { (test.name) } ": "
                    @if test.lost > 0 && crash::must_keep(test) { b.fault { (lost(test)) } } @else { span.value { (lost(test)) } }
                } }
            } }
            div { dt { "How long until it is ready again?" } dd {
                @for test in run.crash.iter().filter(|test| test.ready.count > 0) { div {
                    b { (test.name) } ": "
                    span.value { "p50 " (format::time_ns(test.ready.p50_ns)) ", " } span.value { "at most " (format::time_ns(test.ready.max_ns)) }
                } }
            } }
            div { dt { "Can I trust it?" } dd { (can_i_trust_it(run)) } }
        }
    }
}

fn how_fast(run: &Run) -> Markup {
    html! {
        @for found in &run.capacity { div { (capacity::sentence(found)) } }
        @for group in summary::groups(run).iter().filter(|group| run.capacity.is_empty() || !group.results.is_empty()) {
            div {
                b { (group.name) } ": "
                span.value { "p99 " (group.quantile(summary::response_time, 0.99).text) } ", "
                span.value { "p50 " (group.quantile(summary::response_time, 0.5).text) } " "
                span.value { "at " (group.cell(|r| Some(r.load.achieved_per_s), format::rate).text) }
            }
        }
    }
}

fn was_anything_lost(run: &Run) -> Markup {
    let sum = |read: fn(&crate::model::Ledger) -> u64| {
        run.results.iter().filter_map(|r| r.ledger.as_ref()).map(read).sum::<u64>()
    };
    let (acknowledged, lost, duplicated) = (sum(|l| l.acknowledged), sum(|l| l.lost), sum(|l| l.duplicated));
    let (corrupted, unverified) = (sum(|l| l.corrupted), sum(|l| l.unverified));
    let undelivered = sum(|l| l.delivery.as_ref().map_or(0, |delivery| delivery.undelivered));
    let of = format!("of {}", format::counted(acknowledged, "acknowledged event"));
    html! {
        @if run.results.iter().all(|r| r.load.outcomes.accepted == 0) {
            b { "There was nothing to lose." } " No event was acknowledged."
        } @else if run.results.iter().all(|r| r.ledger.is_none()) {
            b { "Nobody checked." } " What the server kept was not compared with what it acknowledged."
        } @else if lost + duplicated + corrupted > 0 {
            b.fault { "Yes: " (format::count(lost)) " lost, " (format::count(duplicated)) " duplicated"
                @if corrupted > 0 { ", " (format::count(corrupted)) " altered" } } " " (of) "."
        } @else if undelivered > 0 {
            b.fault { "Kept, but " (format::count(undelivered)) " not delivered" } " " (of) "."
        } @else if unverified > 0 {
            b { "Unknown for " (format::count(unverified)) } " " (of) "; none is proven lost."
        } @else {
            b { "No." } " All " (of.trim_start_matches("of ")) " are persisted, once each."
        }
    }
}

fn can_i_trust_it(run: &Run) -> Markup {
    let invalidating = run.caveats.iter().filter(|c| c.invalidates).count();
    let delay = run.results.iter().filter(|r| r.load.send_delay.count > 0).map(|r| r.load.send_delay.p99_ns).max();
    html! {
        @match (invalidating, run.caveats.len()) {
            (0, 0) => { b { "Yes." } " No reason for doubt was found." }
            (0, n) => { b { "With " (format::counted(n as u64, "caveat")) "." } " See " a href="#caveats" { "caveats" } "." }
            (_, _) => { b { "No." } " See " a href="#caveats" { "caveats" } "." }
        }
        @if run.results.iter().any(|r| r.health.is_some()) { " What the tool saw of itself: " a href="#trust" { "generator and machine" } "." }
        @if let Some(delay) = delay { " The tool itself was at most " (format::time_ns(delay)) " late at p99." }
    }
}

/// A table of numbers, variants across, in a box of its own that scrolls.
fn number_table(headings: &[String], rows: &[Row]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="table" {
            table.numbers {
                thead { tr { th scope="col" { span { "" } } @for heading in headings { th scope="col" { (heading) } } } }
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
