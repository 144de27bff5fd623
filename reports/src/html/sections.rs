//! The parts of the page, in order; a part without data is left out or says why it is empty.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::{figures, number_table};
use crate::before_after;
use crate::calibration;
use crate::chart::Chart;
use crate::conform;
use crate::crash;
use crate::format;
use crate::model::{Capacity, CapacityTrial, Conformance, CrashTest, Delivery, Kill, Ledger, ObjectiveResult, Run};
use crate::plan as words;
use crate::summary::{self, Cell, Group, Row};
use crate::trust;

/// One part of the page.
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    /// One sentence.
    how_to_read: &'static str,
    body: Markup,
}

impl Section {
    pub fn render(&self) -> Markup {
        html! {
            section id=(self.id) aria-labelledby=(format!("{}-h", self.id)) {
                h2 id=(format!("{}-h", self.id)) { (self.title) }
                p.how { (self.how_to_read) }
                (self.body)
            }
        }
    }
}

/// Kills shown one by one, of each test.
const KILLS_SHOWN: usize = 20;

pub fn all(run: &Run) -> Vec<Section> {
    if !run.crash.is_empty() {
        return [crash(run), caveats(run), environment(run)].into_iter().flatten().collect();
    }
    if run.results.is_empty() && !run.conformance.is_empty() {
        return [conformance(run), caveats(run), environment(run)].into_iter().flatten().collect();
    }
    let all = [
        capacity(run),
        key_numbers(run),
        objectives(run),
        times(run),
        operations(run),
        over_time(run),
        durable(run),
        ledger(run),
        conformance(run),
        idle(run),
        before_after(run),
        resources(run),
        trust(run),
        floor(run),
        caveats(run),
        environment(run),
    ];
    all.into_iter().flatten().collect()
}

fn names(run: &Run) -> Vec<String> {
    summary::groups(run).iter().map(|g| g.name.to_owned()).collect()
}

fn row(run: &Run, label: &str, read: impl Fn(&Group<'_>) -> Cell) -> Row {
    Row { label: label.to_owned(), cells: summary::groups(run).iter().map(read).collect() }
}

fn charts(charts: Vec<Option<Chart>>) -> Markup {
    let charts: Vec<Chart> = charts.into_iter().flatten().collect();
    html! { @if !charts.is_empty() { div.charts { @for chart in &charts { (chart.render()) } } } }
}

fn capacity(run: &Run) -> Option<Section> {
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
        div.scroll tabindex="0" role="region" aria-label="trials" {
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

fn conformance(run: &Run) -> Option<Section> {
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

fn crash(run: &Run) -> Option<Section> {
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
            div.scroll tabindex="0" role="region" aria-label="kills" {
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

fn key_numbers(run: &Run) -> Option<Section> {
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

fn objectives(run: &Run) -> Option<Section> {
    let names = names(run);
    let mut expressions: Vec<&str> = run.objectives.iter().map(|o| o.expression.as_str()).collect();
    expressions.dedup();
    let body = html! {
        @if run.objectives.is_empty() { p { "None was set." } } @else {
            div.scroll tabindex="0" role="region" aria-label="objectives" {
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

fn times(run: &Run) -> Option<Section> {
    let kinds = [
        ("response", "Response time", summary::RESPONSE_TIME),
        ("service", "Service time", summary::SERVICE_TIME),
        ("delay", "Send delay", summary::SEND_DELAY),
    ];
    let drawn =
        kinds.iter().map(|(id, name, kind)| figures::percentiles(run, &format!("curve-{id}"), name, *kind)).collect();
    let rows: Vec<Row> = kinds.iter().flat_map(|(.., kind)| summary::quantile_rows(run, *kind)).collect();
    Some(Section {
        id: "times",
        title: "How long an acknowledgement takes",
        how_to_read: "Response time (due → answered) is what a sender feels, service time (sent → answered) what the server took, send delay \
                      (due → sent) the tool's own fault; the lower and the later a curve bends up the better, and where it is \
                      faint it rests on fewer than 10 samples or is only a lower bound.",
        body: html! { (charts(drawn)) (number_table(&summary::headings(run), &rows)) },
    })
}

fn operations(run: &Run) -> Option<Section> {
    let rows = summary::operation_rows(run);
    (!rows.is_empty()).then(|| Section {
        id: "operations",
        title: "By operation",
        how_to_read: "The load mixed several operations; the numbers above are of all of them together. A batch is one request of several \
                      events, each acknowledged by itself.",
        body: number_table(&names(run), &rows),
    })
}

fn over_time(run: &Run) -> Option<Section> {
    let drawn = vec![figures::rate(run), figures::response_over_time(run, 0.5), figures::response_over_time(run, 0.99)];
    drawn.iter().any(Option::is_some).then(|| Section {
        id: "over-time",
        title: "Over time",
        how_to_read: "Level lines are good; a dip in the rate with a hill in the response time is a stall; each repetition is a line, the \
                      first of each variant the thick one, and a lone hill in p99 may be a handful of events.",
        body: charts(drawn),
    })
}

fn durable(run: &Run) -> Option<Section> {
    let drawn = vec![
        figures::percentiles(run, "curve-durable", "Acknowledged → persisted", summary::TIME_TO_DURABLE),
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

fn ledger(run: &Run) -> Option<Section> {
    let groups = summary::groups(run);
    let checked: Vec<&Group<'_>> = groups.iter().filter(|g| g.results.iter().any(|r| r.ledger.is_some())).collect();
    let unchecked: Vec<&str> =
        groups.iter().filter(|g| g.results.iter().all(|r| r.ledger.is_none())).map(|g| g.name).collect();
    Some(Section {
        id: "ledger",
        title: "The ledger",
        how_to_read: "Every event that was acknowledged, warm-up included, is looked for in the store: persisted has to equal acknowledged; \
                      the sum of all repetitions is shown.",
        body: html! {
            @if !checked.is_empty() { div.flow { @for group in &checked { (flow(run, group)) } } }
            @if !unchecked.is_empty() { p.note { "Not reconciled: " (unchecked.join(", ")) "." } }
        },
    })
}

fn flow(run: &Run, group: &Group<'_>) -> Markup {
    let ledgers: Vec<&Ledger> = group.results.iter().filter_map(|r| r.ledger.as_ref()).collect();
    let sum = |read: fn(&Ledger) -> u64| ledgers.iter().map(|l| read(l)).sum::<u64>();
    let planned: u64 = group.results.iter().map(|r| r.load.planned).sum();
    let delivered: Option<u64> = ledgers.iter().map(|l| l.delivered).sum();
    let faults = [
        ("lost", sum(|l| l.lost)),
        ("duplicated", sum(|l| l.duplicated)),
        ("stored altered", sum(|l| l.corrupted)),
        ("unverified", sum(|l| l.unverified)),
    ];
    let unacknowledged = sum(|l| l.unacknowledged);
    let examples: Vec<&str> = ledgers.iter().flat_map(|l| &l.lost_examples).take(10).map(String::as_str).collect();
    let drained = ledgers.iter().map(|l| l.drained_after_ms).max().unwrap_or(0);
    html! {
        div {
            h3 { (group.name) }
            ol {
                li { b { (format::count(planned)) } small { "planned" @if run.plan.warmup_ms > 0 { " (steady phase)" } } }
                li { b { (format::count(sum(|l| l.acknowledged))) } small { "acknowledged" } }
                li { b { (format::count(sum(|l| l.persisted))) } small { "persisted" } }
                @if let Some(delivered) = delivered.filter(|_| ledgers.iter().any(|l| l.delivered.is_some())) {
                    li { b { (format::count(delivered)) } small { "delivered" } }
                }
            }
            p {
                @for (i, (name, n)) in faults.iter().filter(|(name, n)| *n > 0 || ["lost", "duplicated"].contains(name)).enumerate() {
                    @if i > 0 { " · " }
                    @if *n > 0 { span.fault { "✗ " (format::count(*n)) " " (name) } } @else { "0 " (name) }
                }
                @if unacknowledged > 0 { " · " (format::count(unacknowledged)) " persisted without an acknowledgement that was read" }
            }
            (deliveries(&ledgers))
            p.note { "Read from " (ledgers[0].source) "; the store had everything or gave up " (format::time(drained as f64 * 1e6))
                " after the last acknowledgement." }
            @if !examples.is_empty() { p.note { "Lost, for example: " span.mono { (examples.join(" ")) } } }
        }
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

fn idle(run: &Run) -> Option<Section> {
    run.results.iter().find(|r| r.idle.is_some())?;
    let text_ns = |read: fn(&crate::model::Idle) -> Option<f64>| {
        move |g: &Group<'_>| g.cell(|r| r.idle.as_ref().and_then(read), format::time)
    };
    let number = |read: fn(&crate::model::Idle) -> Option<f64>| {
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
        how_to_read: "The higher the stair climbs the less often an idle server asks its database; each tick below is an SQL statement \
                      (first repetition).",
        body: html! { (charts(vec![figures::idle(run)])) (number_table(&names(run), &rows)) (statements(run)) },
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
            div.scroll tabindex="0" role="region" aria-label="statements" {
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

fn before_after(run: &Run) -> Option<Section> {
    let table = before_after::table(run)?;
    let rows: Vec<Row> = table.rows.iter().map(before_after::TableRow::across).collect();
    Some(Section {
        id: "before-after",
        title: "Before and after",
        how_to_read: "The old design against each new one, measured in this run on this machine; the change is that of the new one against the old.",
        body: number_table(&table.headings(), &rows),
    })
}

fn resources(run: &Run) -> Option<Section> {
    let seconds = |read: fn(&crate::model::Resources) -> Option<f64>| {
        move |g: &Group<'_>| g.cell(|r| read(&r.resources), format::seconds)
    };
    let bytes = |read: fn(&crate::model::Resources) -> Option<u64>| {
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
    Some(Section {
        id: "resources",
        title: "What it cost",
        how_to_read: "CPU time and memory over the steady phase; a generator that is short of CPU measures itself.",
        body: number_table(&names(run), &rows),
    })
}

/// Variants up to which two tables fit beside one another.
const TABLES_BESIDE_VARIANTS_MAX: usize = 3;

fn trust(run: &Run) -> Option<Section> {
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
                @if let Some(chart) = figures::stalls(run) { div { h3 { "Stalls" } (chart.render()) } }
            }
        },
    })
}

fn floor(run: &Run) -> Option<Section> {
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

fn caveats(run: &Run) -> Option<Section> {
    let body = html! {
        @if run.caveats.is_empty() { p { "No reason for doubt was found." } } @else {
            div.scroll tabindex="0" role="region" aria-label="caveats" {
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

fn environment(run: &Run) -> Option<Section> {
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
        div.scroll tabindex="0" role="region" aria-label="targets" {
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
