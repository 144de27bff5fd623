//! The first screen of a run's page: did it pass, how fast, was anything lost, can I trust it.

use maud::{Markup, html};

use crate::capacity;
use crate::conform;
use crate::crash;
use crate::format;
use crate::model::{CrashTest, Ledger, Outcome, Run};
use crate::summary::{self, Group};

/// The verdict in a word, as the title has it.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "Pass",
        Outcome::Inconclusive => "Inconclusive",
        Outcome::Missed => "Missed",
        Outcome::Invalid => "Invalid",
    }
}

/// When, what, on what, how long.
pub fn subtitle(run: &Run) -> String {
    if !run.crash.is_empty() {
        let tests = format::counted(run.crash.len() as u64, "test");
        return format!("{} · {tests} with kills · took {}", started(run), format::seconds(run.seconds));
    }
    if run.results.is_empty() && !run.conformance.is_empty() {
        let targets = format::counted(run.conformance.len() as u64, "target");
        return format!("{} · {targets} against the contract · took {}", started(run), format::seconds(run.seconds));
    }
    let what = match run.results.iter().find_map(|r| r.database.as_deref()).or(run.plan.database.as_deref()) {
        Some(database) => format!("on {database}"),
        None => "on a server that already ran".to_owned(),
    };
    let repeat = if run.plan.repeat > 1 { format!(", {} repetitions of each", run.plan.repeat) } else { String::new() };
    let variants = format::counted(run.plan.variants.len() as u64, "variant");
    let sent = match (&run.shard, run.shards.len()) {
        (Some(shard), _) => format!(" · part {} of {} of the load", shard.number, shard.count),
        (None, 0) => String::new(),
        (None, n) => format!(" · sent by {}", format::counted(n as u64, "generator")),
    };
    format!("{} · {variants} {what}{repeat}{sent} · took {}", started(run), format::seconds(run.seconds))
}

/// To the second: more digits of a date tell nothing.
fn started(run: &Run) -> String {
    match run.started_at.split_once('.') {
        Some((seconds, _)) if run.started_at.ends_with('Z') => format!("{seconds}Z"),
        _ => run.started_at.clone(),
    }
}

/// Did it pass, and why.
pub fn verdict(run: &Run) -> Markup {
    let (class, mark) = match run.verdict.outcome {
        Outcome::Pass => ("pass", "✓"),
        Outcome::Inconclusive => ("inconclusive", "?"),
        Outcome::Missed => ("missed", "✗"),
        Outcome::Invalid => ("invalid", "⊘"),
    };
    verdict_box(class, mark, word(run.verdict.outcome), &run.verdict.reasons)
}

/// So many reasons stand open beside a verdict: more would push the answers off the first screen of a phone.
const REASONS_OPEN_MAX: usize = 3;

/// A verdict with its reasons beside it, which come in the order of their weight: the first few open, the others folded away (on paper
/// they are open, says the style sheet). `class`: of the style sheet.
pub fn verdict_box(class: &str, mark: &str, word: &str, reasons: &[String]) -> Markup {
    // A fold takes a line itself: it is not worth a single reason.
    let open = if reasons.len() > REASONS_OPEN_MAX + 1 { REASONS_OPEN_MAX } else { reasons.len() };
    let (open, folded) = reasons.split_at(open);
    html! {
        div class=(format!("verdict {class}")) {
            p { strong { (mark) " " (word) } }
            ul {
                @for reason in open { li { (reason) } }
                @if !folded.is_empty() {
                    li { details {
                        summary { "and " (format::counted(folded.len() as u64, "more reason")) }
                        ul { @for reason in folded { li { (reason) } } }
                    } }
                }
            }
        }
    }
}

/// The questions that people open a report with.
pub fn answers(run: &Run) -> Markup {
    if !run.crash.is_empty() {
        return crash_answers(run);
    }
    if run.results.is_empty() && !run.conformance.is_empty() {
        return html! {
            dl.answers {
                div.wide { dt { "Which rules are kept?" } dd { @for found in &run.conformance { p { (conform::sentence(found)) } } } }
            }
        };
    }
    html! {
        dl.answers {
            div.wide { dt { "How fast?" } dd { (how_fast(run)) } }
            div { dt { "Was anything lost?" } dd { (was_anything_lost(run)) } }
            div { dt { "Can I trust it?" } dd { (can_i_trust_it(run)) } }
        }
    }
}

/// Of a run that killed servers.
fn crash_answers(run: &Run) -> Markup {
    let lost = |test: &CrashTest| {
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

/// A line a variant, so that numbers stand below numbers.
fn how_fast(run: &Run) -> Markup {
    let groups = summary::groups(run);
    let shown: Vec<&Group<'_>> =
        groups.iter().filter(|group| run.capacity.is_empty() || !group.results.is_empty()).collect();
    let of = if run.plan.repeat > 1 {
        "Response time and rate, medians of the repetitions"
    } else {
        "Response time and rate"
    };
    html! {
        @for found in &run.capacity { p { (capacity::sentence(found)) } }
        @if !shown.is_empty() {
            table.brief {
                caption { (of) }
                thead { tr {
                    th scope="col" { span.unseen { "variant" } }
                    @for heading in ["p50", "p99", "achieved"] { th scope="col" { (heading) } }
                } }
                tbody { @for group in shown { tr {
                    th scope="row" { (group.name) }
                    td { (group.quantile(summary::response_time, 0.5).text) }
                    td { b { (group.quantile(summary::response_time, 0.99).text) } }
                    td { (group.cell(|r| Some(r.load.achieved_per_s), format::rate).text) }
                } } }
            }
        }
    }
}

fn was_anything_lost(run: &Run) -> Markup {
    let sum = |read: fn(&Ledger) -> u64| run.results.iter().filter_map(|r| r.ledger.as_ref()).map(read).sum::<u64>();
    let (acknowledged, lost, duplicated) = (sum(|l| l.acknowledged), sum(|l| l.lost), sum(|l| l.duplicated));
    let (corrupted, unverified) = (sum(|l| l.corrupted), sum(|l| l.unverified));
    let undelivered = sum(|l| l.delivery.as_ref().map_or(0, |delivery| delivery.undelivered));
    let of = format!("of {}", format::counted(acknowledged, "acknowledged event"));
    html! {
        @if run.results.iter().all(|r| r.load.outcomes.accepted == 0) {
            p.lead { "There was nothing to lose." } p { "No event was acknowledged." }
        } @else if run.results.iter().all(|r| r.ledger.is_none()) {
            p.lead { "Nobody checked." } p { "What the server kept was not compared with what it acknowledged." }
        } @else if lost + duplicated + corrupted > 0 {
            p.lead.fault { "Yes: " (format::count(lost)) " lost, " (format::count(duplicated)) " duplicated"
                @if corrupted > 0 { ", " (format::count(corrupted)) " altered" } }
            p { (of) "." }
        } @else if undelivered > 0 {
            p.lead.fault { "Kept, but " (format::count(undelivered)) " not delivered" } p { (of) "." }
        } @else if unverified > 0 {
            p.lead { "Unknown for " (format::count(unverified)) } p { (of) "; none is proven lost." }
        } @else {
            p.lead.good { "No" } p { "All " (of.trim_start_matches("of ")) " are persisted, once each." }
        }
    }
}

fn can_i_trust_it(run: &Run) -> Markup {
    let invalidating = run.caveats.iter().filter(|c| c.invalidates).count();
    let delay = run.results.iter().filter(|r| r.load.send_delay.count > 0).map(|r| r.load.send_delay.p99_ns).max();
    html! {
        @match (invalidating, run.caveats.len()) {
            (0, 0) => { p.lead.good { "Yes" } p { "No reason for doubt was found." } }
            (0, n) => { p.lead { "With " a href="#caveats" { (format::counted(n as u64, "caveat")) } } }
            (_, _) => { p.lead.fault { "No: see " a href="#caveats" { "caveats" } } }
        }
        p {
            @if let Some(delay) = delay { "The tool itself was at most " (format::time_ns(delay)) " late at p99. " }
            @if !run.shards.is_empty() { a href="#generators" { "What the generators saw of themselves" } "." }
            @else if run.results.iter().any(|r| r.health.is_some()) { a href="#trust" { "What it saw of itself" } "." }
        }
    }
}
