//! The parts about what the numbers rest on: caveats, environment, plan, command, targets.

use maud::{Markup, html};

use super::Section;
use crate::format;
use crate::model::Run;
use crate::plan as words;
use crate::summary;

pub fn caveats(run: &Run) -> Option<Section> {
    let body = html! {
        @if run.caveats.is_empty() { p { "No reason for doubt was found." } } @else {
            div.scroll tabindex="0" role="group" aria-label="caveats" {
                table {
                    thead { tr { th scope="col" { "Caveat" } th scope="col" { "Where" } th scope="col" { "What was found" } th scope="col" { "What to do" } } }
                    tbody {
                        @for caveat in &run.caveats {
                            tr {
                                th scope="row" { (caveat.kind.name()) @if caveat.invalidates { small.fault { "makes the run invalid" } } }
                                td { (caveat.subject.as_deref().unwrap_or("the run")) }
                                td { (caveat.detail) }
                                td { (caveat.remedy) }
                            }
                        }
                    }
                }
            }
        }
    };
    Some(Section {
        id: "caveats",
        title: "Caveats",
        how_to_read: "Reasons to doubt these numbers that the tool found by itself, from a closed list, each with what to do about it.",
        body,
    })
}

pub fn environment(run: &Run) -> Option<Section> {
    let (environment, plan) = (&run.environment, &run.plan);
    let unknown = || "not known".to_owned();
    let build =
        format!("{} {} ({}, {} build)", run.tool.name, run.tool.version, run.tool.revision, run.tool.build_profile);
    let ms = |n: u64| format::time(n as f64 * 1e6);
    let phases = format!("warm-up {}, steady {}, idle {}", ms(plan.warmup_ms), ms(plan.duration_ms), ms(plan.idle_ms));
    let patience = format!("request {}, drain {}", ms(plan.request_timeout_ms), ms(plan.drain_timeout_ms));
    let load = format!(
        "{} connections, {} repeated, {}",
        plan.connections,
        format::percent(plan.duplicates_share),
        format::counted(u64::from(plan.organizations), "organisation")
    );
    let facts = [
        ("tool", build),
        ("run", run.run_id.clone()),
        (
            "machine",
            format!(
                "{}, {} cores, {}",
                environment.cpu_model,
                environment.cores,
                format::bytes(environment.memory_bytes as f64)
            ),
        ),
        ("system", format!("{}, kernel {}", environment.os, environment.kernel)),
        ("virtual", environment.virtualization.clone().unwrap_or_else(|| "not that it shows".to_owned())),
        ("CPU governor", environment.cpu_governor.clone().unwrap_or_else(unknown)),
        ("data on", environment.data_filesystem.clone().unwrap_or_else(unknown)),
        (
            "generator and server",
            if environment.same_host { "share the machine" } else { "on different machines" }.to_owned(),
        ),
        ("pacing", environment.pacing.clone()),
        ("arrivals", words::arrivals(plan)),
        ("payloads", words::payloads(plan)),
        ("operations", words::operations(plan)),
        ("protocol", words::protocol(plan)),
        ("faults asked for", if plan.faults.is_empty() { "none".to_owned() } else { plan.faults.join(", ") }),
        ("load", load),
        ("phases", phases),
        ("timeouts", patience),
        ("seed", plan.seed.to_string()),
        ("repetitions", plan.repeat.to_string()),
    ];
    Some(Section {
        id: "environment",
        title: "Environment, plan and command",
        how_to_read: "What it takes to do this again; compare numbers only with those of the same machine, build and plan.",
        body: html! {
            h3 { "Command" }
            pre { code { (run.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")) } }
            dl.facts { @for (name, value) in &facts { dt { (name) } dd { (value) } } }
            (targets(run))
        },
    })
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn targets(run: &Run) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="targets" {
            table {
                thead { tr { th scope="col" { "Variant" } th scope="col" { "Mode" } th scope="col" { "Polling" } th scope="col" { "Claims" }
                    th scope="col" { "Database" } th scope="col" { "Version" } th scope="col" { "URL" } } }
                tbody {
                    @for group in summary::groups(run) {
                        @if let Some(r) = group.results.first() {
                            tr {
                                th scope="row" {
                                    (r.target)
                                    @if let Some(text) = group.variant.and_then(|v| v.profile.as_ref()?.description.as_deref()) {
                                        small { " " (text) }
                                    }
                                }
                                @for fact in [&r.mode, &r.polling, &r.durability, &r.database, &r.server_version] {
                                    td { (fact.as_deref().unwrap_or(format::UNKNOWN)) }
                                }
                                td { (r.url) @if let Some(failure) = &r.failure { small.fault { (failure) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}
