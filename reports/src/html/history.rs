//! The page of a history: what changed first, then every number over time, then the runs.

use maud::{Markup, html};

use super::figures::log_axis;
use super::{CONTENT, bar, document, number_table, stored};
use crate::chart::{Axis, Chart, Series as Line};
use crate::format;
use crate::history::{
    Change, History, LeftOut, Metric, PastRun, Series, Setting, chance, change_size, change_when, day,
};
use crate::summary::{Cell, Row};

/// Runs of a series that get a marker with a text, the last ones: the line has them all, and a page of five hundred runs stays small.
const MARKED_RUNS_MAX: usize = 150;

/// The page of `history`; no network, no script.
pub fn render(history: &History) -> String {
    let runs: usize = history.settings.iter().map(|setting| setting.runs.len()).sum();
    let title = format!("History of {}", format::counted(runs as u64, "run"));
    let body = html! {
        header {
            (bar("history"))
            h1 { (title) }
            p.meta { "Changes are marked by " (history.rule.method) " at a significance of " (format::percent(history.rule.significance))
                ", with at least " (history.rule.runs_on_either_side_min) " runs on either side, in series of " (history.rule.runs_min) " runs and more." }
            (answers(history))
        }
        main id=(CONTENT) tabindex="-1" {
            @for (place, setting) in history.settings.iter().enumerate() { (self::setting(place, setting)) }
            @if !history.left_out.is_empty() { (left_out(&history.left_out)) }
        }
        footer { p { "The data of this page are in it: the element with the id " code { "history-data" } ", " code { (history.schema) } " JSON." } }
        (stored("history-data", "history.json", history))
    };
    document(&format!("{title} · Millrace"), None, &body)
}

/// Changes in the box at the top; the others are in the tables below.
const CHANGES_TOLD_MAX: usize = 5;

fn answers(history: &History) -> Markup {
    let changes = history.changes();
    html! {
        dl.answers {
            div { dt { "What changed last?" } dd {
                @if changes.is_empty() { "Nothing that is marked." }
                @for (setting, series, change) in changes.iter().take(CHANGES_TOLD_MAX) { div {
                    b { (series.variant) } ", " (series.metric.title()) ": "
                    span.value { (change_size(series, change)) } ", " (worse(change)) ", " (change_when(setting, change))
                } }
                @if changes.len() > CHANGES_TOLD_MAX { div { "and " (changes.len() - CHANGES_TOLD_MAX) " more below" } }
            } }
            div { dt { "Can I trust it?" } dd { (chance(history)) " A mark says where to look; whether one change made a server worse is for "
                code { "loadgen gate" } " to decide." } }
            div { dt { "Is everything in it?" } dd {
                (format::counted(history.settings.iter().map(|setting| setting.runs.len() as u64).sum(), "run")) " in "
                (format::counted(history.settings.len() as u64, "setting")) " (plan and machine)."
                @if !history.left_out.is_empty() { " " a href="#left-out" { (format::counted(history.left_out.len() as u64, "file")) " left out" } "." }
            } }
        }
    }
}

fn worse(change: &Change) -> Markup {
    html! { @if change.is_worse { b.fault { "worse" } } @else { "better" } }
}

fn setting(place: usize, setting: &Setting) -> Markup {
    let number = place + 1;
    html! {
        section id=(format!("setting-{number}")) {
            h2 { (number) ". " (setting.title) }
            p.how { (setting.machine) ". "
                @if setting.runs.len() > 1 { "Each point is a run, in the order of time; a vertical line is a change, a level line the median from one to the next." }
                @else { "One run has no history yet: its numbers, medians of its repetitions and from the smallest to the largest of them." }
                @if !setting.differs.is_empty() { " It is no part of another setting because of " (setting.differs.join("; ")) "." } }
            @if setting.runs.len() > 1 {
                (changes(setting))
                div.charts { @for metric in Metric::ALL { @if let Some(chart) = chart(number, setting, metric) { (chart.render()) } } }
            } @else { (numbers(setting)) }
            (runs(setting))
        }
    }
}

/// The numbers of a single run: a chart of one point shows less in more room.
fn numbers(setting: &Setting) -> Markup {
    let variants = variants(setting);
    let cell = |metric: Metric, variant: &str| {
        let of = |series: &&Series| series.metric == metric && series.variant == variant;
        let Some(point) = setting.series.iter().find(of).and_then(|series| series.points.first()) else {
            return Cell::plain(format::UNKNOWN);
        };
        let text = |value: f64| format::in_unit(value, metric.unit());
        let (least, most) = (text(point.min), text(point.max));
        let spread = (least != most).then(|| format!("{least} – {most}"));
        let is_fault = metric == Metric::LostOrDuplicated && point.value > 0.0;
        Cell { text: text(point.value), spread, is_fault }
    };
    let is_known = |metric: &Metric| setting.series.iter().any(|series| series.metric == *metric);
    let row = |metric: Metric| Row {
        label: metric.title().to_owned(),
        cells: variants.iter().map(|variant| cell(metric, variant)).collect(),
    };
    let rows: Vec<Row> = Metric::ALL.into_iter().filter(is_known).map(row).collect();
    number_table(&variants.iter().map(|&variant| variant.to_owned()).collect::<Vec<_>>(), &rows)
}

fn changes(setting: &Setting) -> Markup {
    let all = || setting.series.iter().flat_map(|series| series.changes.iter().map(move |change| (series, change)));
    // Of the longest series: what is true of it is true of the shorter ones.
    let noted = setting.series.iter().filter(|series| series.note.is_some()).max_by_key(|series| series.points.len());
    let note = noted.and_then(|series| series.note.as_deref());
    html! {
        @if all().next().is_some() {
            div.scroll tabindex="0" role="group" aria-label="table" {
                table {
                    thead { tr { th scope="col" { "what" } th scope="col" { "of" } th scope="col" { "change" } th scope="col" { "when" } th scope="col" { "p" } } }
                    tbody { @for (series, change) in all() {
                        tr { th scope="row" { (series.metric.title()) } td { (series.variant) }
                            td { (change_size(series, change)) ", " (worse(change)) } td { (change_when(setting, change)) } td { (format::number(change.p)) } }
                    } }
                }
            }
        } @else { p.note { "No change is marked" @if let Some(note) = note { ": " (note) } "." } }
        @if let Some(note) = note.filter(|_| all().next().is_some()) { p.note { "Changes were not looked for everywhere: " (note) "." } }
    }
}

/// One number of all variants.
fn chart(number: usize, setting: &Setting, metric: Metric) -> Option<Chart> {
    let variants = variants(setting);
    let all: Vec<&Series> = setting.series.iter().filter(|series| series.metric == metric).collect();
    let values = || all.iter().flat_map(|series| &series.points).map(|point| drawn(metric, point.value));
    let largest = values().reduce(f64::max)?;
    let y = match metric.unit() {
        "ns" => log_axis(values())?,
        "per_s" => Axis::linear("events per second", largest, format::rate),
        "bytes" => Axis::linear("memory, MiB", largest, format::number),
        "per_hour" => Axis::linear("statements per hour", largest, format::number),
        // Where nothing was ever lost, the axis has whole events all the same.
        _ => Axis::linear("events", largest.max(5.0), format::number),
    };
    let style = |series: &Series| variants.iter().position(|variant| *variant == series.variant).unwrap_or(0);
    let bounds = (y.min, y.max);
    let lines = all.iter().flat_map(|series| lines(setting, series, style(series), bounds));
    let spoken = all.iter().map(|series| {
        let ends = [series.points.first(), series.points.last()].into_iter().flatten();
        let ends: Vec<String> = ends.map(|point| format::in_unit(point.value, &series.unit)).collect();
        format!("{}: {}, {}", series.variant, ends.join(" to "), format::counted(series.changes.len() as u64, "change"))
    });
    Some(Chart {
        id: format!("setting-{number}-{}", metric.title().replace([' ', ','], "-")),
        title: metric.title().to_owned(),
        description: spoken.collect::<Vec<_>>().join("; "),
        x: runs_axis(&setting.runs),
        y,
        series: lines.collect(),
        level: None,
        rug_label: String::new(),
    })
}

/// As it is on the vertical axis: ticks at round numbers of bytes would be none of MiB.
fn drawn(metric: Metric, value: f64) -> f64 {
    if metric == Metric::MemoryPeak { value / f64::from(1 << 20) } else { value }
}

/// In the order in which they first came, so that a variant has one style in all charts of its setting.
fn variants(setting: &Setting) -> Vec<&str> {
    let mut variants: Vec<&str> = Vec::new();
    for series in &setting.series {
        if !variants.contains(&series.variant.as_str()) {
            variants.push(&series.variant);
        }
    }
    variants
}

/// Where a run is on the horizontal axis.
fn at(run: usize) -> f64 {
    run as f64 + 1.0
}

/// The numbers of a variant, and over them its changes and the levels between them.
fn lines(setting: &Setting, series: &Series, style: usize, (bottom, top): (f64, f64)) -> Vec<Line> {
    let drawn = |value: f64| drawn(series.metric, value);
    let points = series.points.iter().map(|point| (at(point.run), drawn(point.value))).collect();
    let marked = series.points.iter().skip(series.points.len().saturating_sub(MARKED_RUNS_MAX)).map(|point| {
        let run = &setting.runs[point.run];
        let text = |value: f64| format::in_unit(value, &series.unit);
        let range = if point.min < point.max {
            format!(" ({} – {})", text(point.min), text(point.max))
        } else {
            String::new()
        };
        let told =
            format!("{}: {}{range}, {}, revision {}", series.variant, text(point.value), run.started_at, run.revision);
        (at(point.run), drawn(point.value), told)
    });
    let mut lines = vec![Line { markers: marked.collect(), ..Line::line(&series.variant, style, points) }];
    // A repeat has no entry in the legend and no name at its end.
    let more = |faint: Vec<(f64, f64)>, markers| Line {
        faint,
        markers,
        is_repeat: true,
        ..Line::line(&series.variant, style, Vec::new())
    };
    let first = series.points.first().map_or(0, |point| point.run);
    let last = series.points.last().map_or(0, |point| point.run);
    let mut begin = at(first);
    for change in &series.changes {
        let x = (at(change.run_before) + at(change.run)) / 2.0;
        let told = format!("{}: {}, {}", series.variant, change_size(series, change), change_when(setting, change));
        lines.push(more(vec![(x, bottom), (x, top)], vec![(x, top, told)]));
        lines.push(more(vec![(begin, drawn(change.before)), (x, drawn(change.before))], Vec::new()));
        begin = x;
    }
    lines.extend(
        series
            .changes
            .last()
            .map(|change| more(vec![(begin, drawn(change.after)), (at(last), drawn(change.after))], Vec::new())),
    );
    lines
}

/// Runs at equal distances, whenever they were: ten of one afternoon are as good as ten of as many nights. Those of one day go by the hour.
fn runs_axis(runs: &[PastRun]) -> Axis {
    let one_day = runs.first().map(day).filter(|first| runs.iter().all(|run| day(run) == *first));
    let label = match one_day {
        Some(one_day) => format!("runs of {one_day}, in the order of time (UTC)"),
        None => "runs, in the order of time".to_owned(),
    };
    let when = |run: &PastRun| match (one_day, run.started_at.get(11..16)) {
        (Some(_), Some(hour)) => hour.to_owned(),
        _ => day(run).to_owned(),
    };
    let mut axis = Axis::linear(&label, 1.0, |_| String::new());
    (axis.min, axis.max) = (0.5, runs.len() as f64 + 0.5);
    axis.ticks = runs.iter().enumerate().map(|(place, run)| (at(place), when(run))).collect();
    axis
}

fn runs(setting: &Setting) -> Markup {
    html! {
        details {
            summary { "The " @if setting.runs.len() > 1 { (format::counted(setting.runs.len() as u64, "run")) } @else { "run" } " of this setting" }
            div.scroll tabindex="0" role="group" aria-label="table" {
                table {
                    thead { tr { th scope="col" { "begun" } th scope="col" { "verdict" } th scope="col" { "revision" } th scope="col" { "server" } th scope="col" { "file" } } }
                    tbody { @for run in setting.runs.iter().rev() {
                        tr { th scope="row" { (run.started_at) } td { (run.outcome) } td { code { (run.revision) } } td { (run.server_versions.join(", ")) } td { (run.path) } }
                    } }
                }
            }
        }
    }
}

/// By reason: a folder of crash tests would be told of a screen long otherwise.
fn left_out(files: &[LeftOut]) -> Markup {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for LeftOut { path, reason } in files {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, paths)) => paths.push(path),
            None => reasons.push((reason, vec![path])),
        }
    }
    html! {
        section id="left-out" {
            h2 { "Left out" }
            p.how { "Files in the folder that are no part of a series, and why." }
            ul { @for (reason, paths) in &reasons { li { (reason) ": "
                @for (place, path) in paths.iter().enumerate() { @if place > 0 { ", " } span.mono { (path) } } } } }
        }
    }
}
