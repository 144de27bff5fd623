//! The parts about what the targets promise: the rules of the contract, and what is left when they are killed.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::Section;
use crate::conform;
use crate::crash;
use crate::format;
use crate::html::number_table;
use crate::model::{Conformance, CrashTest, Kill, Run};
use crate::summary;

/// Kills shown one by one, of each test.
const KILLS_SHOWN: usize = 20;

pub fn conformance(run: &Run) -> Option<Section> {
    let names: Vec<String> = run.conformance.iter().map(|found| found.target.clone()).collect();
    let untested = conform::untested(run);
    (!names.is_empty()).then(|| Section {
        id: "conformance",
        title: "Rules of the contract",
        how_to_read: "One check a rule id of CONTRACT.md; “passed 7 of 9”: two clauses could not be tested on this target, and are listed below. \
                      Only what was tested counts as passed.",
        body: html! {
            (number_table(&names, &summary::conformance_rows(run)))
            @for found in &run.conformance { (broken(found)) }
            @if !untested.is_empty() {
                h3 { "Not tested here" }
                ul { @for (what, who) in &untested { li { (what) " " small { "(" (who) ")" } } } }
            }
        },
    })
}

/// The clauses that a target does not keep.
fn broken(found: &Conformance) -> Markup {
    let failures = || found.rules.iter().flat_map(|rule| rule.failures.iter().map(move |failure| (rule, failure)));
    html! {
        @if failures().next().is_some() {
            h3 { "Broken by " (found.target) }
            dl.facts {
                @for (rule, failure) in failures() {
                    dt { (rule.id) ": " (failure.clause) }
                    dd {
                        div { "expected " (failure.expected) }
                        div { "came " code { (failure.got) } }
                        div { "asked " code { (failure.request) } }
                    }
                }
            }
        }
    }
}

pub fn crash(run: &Run) -> Option<Section> {
    let headings = summary::CRASH_HEADINGS.map(str::to_owned);
    let kinds: BTreeSet<&str> = run.crash.iter().map(|test| crash::kind(test.kill)).collect();
    let in_flight = run.crash.iter().map(|test| test.in_flight).sum();
    Some(Section {
        id: "crash",
        title: "Killed under load",
        how_to_read: "Every acknowledged event is looked for after each restart, and all of them once more at the end: lost is what is neither \
                      in the inbox nor known by its id, and its age is how long before the kill it had been acknowledged; again \
                      counts kills that were followed by one during recovery; unanswered is there although its acknowledgement never \
                      arrived, which is allowed; ready counts from the start of the process.",
        body: html! {
            div.close { (number_table(&headings, &summary::crash_rows(run))) }
            p { "Killed: " (kinds.into_iter().collect::<Vec<_>>().join(", ")) "." }
            ul { @for test in &run.crash { li { b { (test.name) } ": " (crash::settings(test)) } } }
            @if run.crash.iter().any(|test| test.kill == crate::model::KillKind::Power) {
                p.note { "A power cut is a filesystem that is shut down without flushing and mounted again: whether the device keeps what it \
                          was told to flush is not tested. Left out are " (format::counted(in_flight, "event")) " that were under way \
                          while the power went and acknowledged then: a real machine would not have lived to answer." }
            }
            @for test in &run.crash { (kills(test)) }
        },
    })
}

/// The kills that broke something, worst first.
fn kills(test: &CrashTest) -> Markup {
    let broken = |kill: &&Kill| kill.lost + kill.duplicated + kill.altered + kill.unverified > 0;
    let mut shown: Vec<&Kill> = test.kills.iter().filter(broken).collect();
    let count = shown.len();
    shown.sort_by_key(|kill| std::cmp::Reverse((kill.duplicated + kill.altered, kill.lost)));
    shown.truncate(KILLS_SHOWN);
    let times = |ms: Option<f64>| ms.map_or_else(|| format::UNKNOWN.to_owned(), |ms| format::time(ms * 1e6));
    html! {
        @if count > 0 {
            h3 { (test.name) ": kills after which not all was as it had been" }
            p.note { (format::counted(count as u64, "kill")) " of " (format::count(test.kills.len() as u64))
                @if count > KILLS_SHOWN { "; the worst " (format::count(KILLS_SHOWN as u64)) " are shown" }
                "; seed " (test.seed) "." }
            div.scroll tabindex="0" role="group" aria-label="kills" {
                table.numbers {
                    thead { tr { @for heading in ["kill", "after", "again in recovery", "acknowledged", "lost", "oldest lost", "duplicated", "altered"] {
                        th scope="col" { (heading) } } } }
                    tbody { @for kill in shown { tr {
                        th scope="row" { (kill.number) }
                        td { (times(Some(kill.at_ms))) } td { (times(kill.in_recovery_ms)) }
                        td { (format::count(kill.acknowledged)) } td { (format::count(kill.lost)) }
                        td { (times(kill.lost_age_ns_max.map(|ns| ns as f64 / 1e6))) }
                        td { (format::count(kill.duplicated)) } td { (format::count(kill.altered)) }
                    } } }
                }
            }
        }
    }
}
