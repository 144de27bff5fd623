//! The page of a comparison: its limits first, then who did what under which load.

use maud::{Markup, html};

use super::figures::{curve, log_axis};
use super::{CONTENT, bar, document, number_table, stored};
use crate::capacity;
use crate::chart::{Axis, Chart, Series};
use crate::comparison::{Comparison, Line, Scenario, capacity_rows, conformance_rows, ledger_rows, scenario_rows};
use crate::forest::{self, Forest};
use crate::format;

/// The page of `comparison`.
pub fn render(comparison: &Comparison) -> String {
    let names: Vec<String> = comparison.subjects.iter().map(|subject| subject.name.clone()).collect();
    let (capacity, conformance) = (capacity_rows(comparison), conformance_rows(comparison));
    let title = format!("Comparison: {} · Millrace", names.join(", "));
    let body = html! {
        header {
            (bar("comparison"))
            h1 { "Comparison: " (names.join(", ")) }
            p.meta { "Ratios are to " b { (comparison.reference) } "." }
            (limits(comparison))
            (summary(comparison))
        }
        main id=(CONTENT) tabindex="-1" {
            @for (place, scenario) in comparison.scenarios.iter().enumerate() { (self::scenario(place, scenario, &comparison.reference)) }
            @if !capacity.is_empty() {
                section id="capacity" {
                    h2 { "Response time against rate" }
                    p.how { "Medians of the trials at each rate, those that failed too: the capacity below is the highest rate at which everything held. Further right and lower is better." }
                    div.charts { @for chart in capacity_charts(comparison) { (chart.render()) } }
                    (number_table(&names, &capacity))
                }
            }
            section id="ledger" {
                h2 { "Ledger" }
                p.how { "Every event that a server acknowledged, under all loads of this page, looked for in what it keeps." }
                (number_table(&names, &ledger_rows(comparison)))
            }
            @if !conformance.is_empty() {
                section id="conformance" {
                    h2 { "Rules of the contract" }
                    p.how { "What is broken or not claimed is part of the price of a number above: who checks less is faster." }
                    (number_table(&names, &conformance))
                }
            }
            (sources(comparison))
        }
        footer { p { "The data of this page are in it: the element with the id " code { "comparison-data" } ", " code { (comparison.schema) } " JSON." } }
        (stored("comparison-data", "compare.json", comparison))
    };
    document(&title, None, &body)
}

fn limits(comparison: &Comparison) -> Markup {
    html! {
        div.verdict.inconclusive {
            p { strong { "What this does not say" } }
            ul { @for limit in &comparison.limits { li { (limit) } } }
        }
    }
}

/// In sentences: who stands where, without ranks.
fn summary(comparison: &Comparison) -> Markup {
    let told = comparison.scenarios.iter().flat_map(|scenario| {
        let of = |label: &str| scenario.lines.iter().find(|line| line.label == label).map(|line| (scenario, line));
        ["response time p50", "response time p99"].into_iter().filter_map(of).collect::<Vec<_>>()
    });
    html! {
        dl.answers { @for (scenario, line) in told { div { dt { (line.label) ", " (scenario.title) } dd { (groups(scenario, line)) } } } }
    }
}

/// Those that cannot be told apart together, the lowest median first.
fn groups(scenario: &Scenario, line: &Line) -> Markup {
    let mut letters: Vec<char> = line.letters.iter().flat_map(|letters| letters.chars()).collect();
    letters.sort_unstable();
    letters.dedup();
    let members = |letter: char| {
        let of = (0..scenario.subjects.len()).filter(move |i| line.letters[*i].contains(letter));
        let mut of: Vec<(f64, usize)> = of.filter_map(|i| Some((line.values[i]?.median, i))).collect();
        of.sort_by(|a, b| a.0.total_cmp(&b.0));
        of
    };
    let mut all: Vec<Vec<(f64, usize)>> = letters.into_iter().map(members).collect();
    all.sort_by(|a, b| a[0].0.total_cmp(&b[0].0));
    html! {
        @for group in all {
            div { @for (place, (median, i)) in group.iter().enumerate() {
                @if place > 0 { " ≈ " }
                b { (scenario.subjects[*i]) } " " span.value { (format::in_unit(*median, &line.unit)) }
            } }
        }
    }
}

fn scenario(place: usize, scenario: &Scenario, reference: &str) -> Markup {
    let how = format!(
        "Medians of the rounds with smallest and largest, the ratio to {reference} (geometric mean over the rounds) with an interval that is \
         adjusted for all {} comparisons of this table, and letters: two that share one cannot be told apart.",
        scenario.comparisons
    );
    html! {
        section id=(format!("scenario-{place}")) {
            h2 { "Everything " (scenario.title) }
            p.how { (how) }
            div.charts {
                @if let Some(chart) = percentiles(place, scenario) { (chart.render()) }
                @if let Some(chart) = intervals(place, scenario, reference) { (chart.render()) }
            }
            (number_table(&scenario.subjects, &scenario_rows(scenario)))
        }
    }
}

fn percentiles(place: usize, scenario: &Scenario) -> Option<Chart> {
    let histograms: Vec<_> = scenario.response_time.iter().map(|times| times.histogram().ok()).collect();
    let count = histograms.iter().flatten().map(|histogram| histogram.count()).max().filter(|count| *count > 0)?;
    let measured = histograms.iter().enumerate().filter_map(|(i, histogram)| Some((i, histogram.as_ref()?)));
    let series: Vec<Series> = measured
        .filter(|(_, histogram)| histogram.count() > 0)
        .map(|(i, histogram)| curve(i, &scenario.subjects[i], histogram, scenario.response_time[i].censored))
        .collect();
    let y = log_axis(series.iter().flat_map(|s| s.points.iter().chain(&s.faint)).map(|p| p.1))?;
    Some(Chart {
        id: format!("percentiles-{place}"),
        title: format!("Response time, all rounds, {}", scenario.title),
        description: "Percentile curves, one a subject; the numbers are in the table below.".to_owned(),
        x: Axis::tail("quantile (each step: ten times rarer)", count, format::quantile_name),
        y,
        series,
        level: None,
        rug_label: String::new(),
    })
}

/// Response time of the trials of each search, p50 and p99, against the rate.
fn capacity_charts(comparison: &Comparison) -> Vec<Chart> {
    let chart = |name: &str, read: fn(&capacity::Point) -> f64| {
        let series: Vec<Series> = comparison
            .subjects
            .iter()
            .enumerate()
            .filter_map(|(style, subject)| {
                let points = capacity::curve(&subject.capacity.as_ref()?.trials);
                Some(Series::line(&subject.name, style, points.iter().map(|p| (p.rate_per_s, read(p))).collect()))
            })
            .collect();
        let points = || series.iter().flat_map(|series| &series.points);
        let y = log_axis(points().map(|point| point.1))?;
        let (low, high) = points().fold((f64::MAX, 0.0_f64), |(low, high), p| (low.min(p.0), high.max(p.0)));
        Some(Chart {
            id: format!("rates-{name}"),
            title: format!("Response time {name} against rate"),
            description: format!("{name} of each trial's response time over the offered rate, one line a subject."),
            x: Axis::log("offered rate", low, high, format::rate),
            y,
            series,
            level: None,
            rug_label: String::new(),
        })
    };
    [chart("p50", |point| point.p50_ns), chart("p99", |point| point.p99_ns)].into_iter().flatten().collect()
}

/// Ratios to the reference with their intervals on one logarithmic axis: a group a quantity, a row a subject.
fn intervals(place: usize, scenario: &Scenario, reference: &str) -> Option<Forest> {
    let row = |line: &Line, i: usize| {
        let ratio = line.ratios[i]?;
        Some(forest::Row {
            name: scenario.subjects[i].clone(),
            value: ratio.ratio,
            interval: ratio.low.zip(ratio.high),
            bound: None,
            class: forest::style(i),
            text: format!("{}, {}: {}", line.label, scenario.subjects[i], line.ratio_text(i).unwrap_or_default()),
        })
    };
    let group = |line: &Line| forest::Group {
        heading: line.label.clone(),
        rows: (0..scenario.subjects.len()).filter_map(|i| row(line, i)).collect(),
    };
    let groups: Vec<forest::Group> = scenario.lines.iter().map(group).filter(|group| !group.rows.is_empty()).collect();
    let rows = groups.iter().flat_map(|group| &group.rows);
    let ends = rows.flat_map(|row| [row.value].into_iter().chain(row.interval.into_iter().flat_map(|(a, b)| [a, b])));
    // An interval that spans more than this is drawn to the edge: its text has the numbers.
    let (low, high) =
        ends.fold((0.8_f64, 1.25_f64), |(low, high), end| (low.min(end.max(0.02)), high.max(end.min(50.0))));
    (!groups.is_empty()).then(|| Forest {
        id: format!("ratios-{place}"),
        title: format!("Ratio to {reference}: left of the line is less"),
        x: Axis::log("", low, high, |ratio| format!("{} ×", format::number(ratio))),
        even: 1.0,
        groups,
    })
}

fn sources(comparison: &Comparison) -> Markup {
    html! {
        section id="sources" {
            h2 { "Where this comes from" }
            p.how { "Each file with its own report, its command and its own verdict." }
            div.scroll tabindex="0" role="group" aria-label="table" {
                table {
                    thead { tr { th scope="col" { "result" } th scope="col" { "begun" } th scope="col" { "verdict" } th scope="col" { "tool" } th scope="col" { "command" } } }
                    tbody { @for source in &comparison.sources {
                        tr { th scope="row" { (source.name) } td { (source.started_at) } td { (source.outcome) } td { (source.revision) } td { code { (source.command.join(" ")) } } }
                    } }
                }
            }
            h3 { "Subjects" }
            dl.facts { @for subject in &comparison.subjects {
                dt { (subject.name) }
                dd { (described(subject)) }
            } }
        }
    }
}

fn described(subject: &crate::comparison::Subject) -> String {
    let facts = [
        ("mode", &subject.mode),
        ("acknowledges", &subject.durability),
        ("database", &subject.database),
        ("version", &subject.version),
    ];
    let facts: Vec<String> =
        facts.iter().filter_map(|(name, fact)| Some(format!("{name} {}", fact.as_deref()?))).collect();
    if facts.is_empty() { "it says nothing of itself".to_owned() } else { facts.join(", ") }
}
