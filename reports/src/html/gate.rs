//! The page of a gate: the verdict, the numbers, and the ratio of every pair of rounds.

use maud::{Markup, html};

use super::head::verdict_box;
use super::{CONTENT, bar, document, stored};
use crate::chart::{Axis, Chart, Level, Scale, Series, Shape, Unit};
use crate::forest::{self, Forest};
use crate::format;
use crate::gate::judge::{self, signed};
use crate::gate::metric::worse_by;
use crate::gate::model::{Gate, GateOutcome, Metric, MetricResult, Order, Pair};
use crate::gate::show;

/// The page of a gate's decision.
pub fn render(gate: &Gate) -> String {
    let title = format!("{}: gate · Millrace", gate.verdict.outcome.name());
    let body = html! {
        header {
            (bar("gate"))
            h1 { "Gate: " (show::side(&gate.candidate)) }
            p.meta { "against " (show::side(&gate.baseline)) " · " (gate.started_at) " · took " (format::seconds(gate.seconds)) }
            @for told in show::peculiarities(gate) { p.meta { (told) } }
            @if let Some(weak) = show::weakness(gate) { p.fault { (weak) } }
            (verdict(gate))
        }
        main id=(CONTENT) tabindex="-1" {
            (section("metrics", "Metrics", &show::basis(gate), &html! { (at_a_glance(&gate.metrics)) (metrics(&gate.metrics)) }))
            (section("pairs", "Pair by pair",
                "Each mark is one pair of rounds: by how much the candidate was worse than the baseline that ran right before or after it, \
                 under the same load. The dotted lines are the estimate and its interval; the level is what is allowed. What was left out is drawn at the edge where it lies beyond.",
                &pairs(gate)))
            @if let Some(confirmation) = &gate.confirmation {
                (section("again", "Once more", "The fresh repetition of what had regressed.", &metrics(&confirmation.metrics)))
            }
            (section("left-out", "Left out", "Pairs in which the machine, whichever side ran, was too unsteady to tell anything.", &left_out(gate)))
            (section("rule", "Rule", "Fixed before the first round.", &rule(gate)))
        }
        footer { p { "Everything measured is in this page: the element with the id " code { "gate-data" } " holds it as " code { (gate.schema) } " JSON." } }
        (stored("gate-data", "gate.json", gate))
    };
    document(&title, Some(&gate.tool), &body)
}

fn section(id: &str, title: &str, how_to_read: &str, body: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby=(format!("{id}-h")) {
            h2 id=(format!("{id}-h")) { (title) }
            p.how { (how_to_read) }
            (body)
        }
    }
}

fn verdict(gate: &Gate) -> Markup {
    let (class, mark) = match gate.verdict.outcome {
        GateOutcome::Pass | GateOutcome::Improved => ("pass", "✓"),
        GateOutcome::Regressed => ("missed", "✗"),
        GateOutcome::Inconclusive => ("inconclusive", "?"),
        GateOutcome::Invalid => ("invalid", "⊘"),
    };
    verdict_box(class, mark, gate.verdict.outcome.name(), &gate.verdict.reasons)
}

fn metrics(results: &[MetricResult]) -> Markup {
    let p = |p: Option<f64>| p.map_or_else(|| format::UNKNOWN.to_owned(), format::number);
    html! {
        div.scroll tabindex="0" role="group" aria-label="metrics" {
            table.numbers {
                thead { tr {
                    th scope="col" { span.unseen { "metric" } }
                    @for heading in &show::HEADINGS[1..] { th scope="col" { (heading) } }
                    th scope="col" { "p worse" } th scope="col" { "p not worse" }
                } }
                tbody { @for result in results { tr {
                    @for (place, cell) in show::row(result).into_iter().enumerate() {
                        @match place {
                            0 => { th scope="row" { (cell) } }
                            6 => { td { span class=(state(result)) { (cell) } } }
                            _ => { td { (cell) } }
                        }
                    }
                    td { (p(result.p_worse_adjusted)) } td { (p(result.p_not_worse)) }
                } } }
            }
        }
        @for result in results { @for note in &result.notes { p.note { (result.metric.title()) ": " (note) } } }
    }
}

/// Every metric with its interval on one axis, against what is allowed of it.
fn at_a_glance(results: &[MetricResult]) -> Markup {
    let row = |result: &MetricResult| {
        let (mark, class) = match result.outcome {
            Some(outcome) if outcome.is_good() => ("✓ ", "met"),
            Some(GateOutcome::Regressed) => ("✗ ", "miss"),
            Some(GateOutcome::Invalid) => ("⊘ ", "miss"),
            Some(_) => ("? ", "open"),
            None => ("", "told"),
        };
        Some(forest::Row {
            name: format!("{mark}{}", result.metric.title()),
            value: result.worse_by?,
            interval: result.worse_by_low.zip(result.worse_by_high),
            bound: result.gated.then_some(result.margin),
            class: class.to_owned(),
            text: judge::sentence(result),
        })
    };
    let rows: Vec<forest::Row> = results.iter().filter_map(row).collect();
    let ends =
        rows.iter().flat_map(|row| [Some(row.value), row.bound, row.interval.map(|i| i.0), row.interval.map(|i| i.1)]);
    // Beyond twice as much, an interval is drawn to the edge: its text has the numbers.
    let reach = ends.flatten().map(f64::abs).fold(0.0, f64::max).min(1.0);
    let forest = Forest {
        id: "glance".to_owned(),
        title: "Worse by: left of the line is better, a bar is what is allowed".to_owned(),
        x: shares_axis(reach),
        even: 0.0,
        groups: vec![forest::Group { heading: String::new(), rows }],
    };
    html! { @if !forest.groups[0].rows.is_empty() { div.charts { (forest.render()) } } }
}

fn state(result: &MetricResult) -> &'static str {
    match result.outcome {
        Some(outcome) if outcome.is_good() => "state met",
        Some(GateOutcome::Regressed | GateOutcome::Invalid) => "state miss",
        Some(_) => "state open",
        None => "",
    }
}

fn pairs(gate: &Gate) -> Markup {
    let charts: Vec<Chart> = gate.metrics.iter().filter_map(|result| chart(gate, result)).collect();
    html! {
        @if charts.is_empty() { p { "There is none." } }
        div.charts { @for chart in &charts { (chart.render()) } }
    }
}

/// The ratio of one pair, as a share by which the candidate is worse.
fn worse(metric: Metric, pair: &Pair) -> Option<f64> {
    Some(metric.ratio_ln(metric.value(&pair.baseline)?, metric.value(&pair.candidate)?).exp_m1())
}

fn chart(gate: &Gate, result: &MetricResult) -> Option<Chart> {
    let found = |wanted: &dyn Fn(&Pair) -> bool| -> Vec<(f64, f64, String)> {
        let of = gate.pairs.iter().filter(|pair| wanted(pair));
        of.filter_map(|pair| {
            let share = worse(result.metric, pair)?;
            Some((f64::from(pair.number), share, format!("pair {}: {}", pair.number, worse_by(share))))
        })
        .collect()
    };
    let counts = |pair: &Pair| pair.left_out.is_none();
    let mut series: Vec<Series> = [
        ("baseline first", 0, found(&|pair| counts(pair) && pair.order != Order::CandidateFirst)),
        ("candidate first", 2, found(&|pair| counts(pair) && pair.order == Order::CandidateFirst)),
        ("left out", 5, found(&|pair| !counts(pair))),
    ]
    .into_iter()
    .filter(|(_, _, markers)| !markers.is_empty())
    .map(|(name, style, markers)| Series { markers, ..Series::line(name, style, Vec::new()) })
    .collect();
    let last = gate.pairs.last().map_or(1.0, |pair| f64::from(pair.number));
    let bounds = [result.worse_by, result.worse_by_low, result.worse_by_high].into_iter().flatten();
    // What is left out may be far out; it is drawn at the edge.
    let largest = gate.pairs.iter().filter(|pair| counts(pair)).filter_map(|pair| worse(result.metric, pair));
    let reach = largest.map(f64::abs).chain([result.margin]).fold(0.0_f64, f64::max);
    (!series.is_empty()).then_some(())?;
    series.extend(bounds.map(|share| Series {
        faint: vec![(0.5, share), (last + 0.5, share)],
        shape: Shape::Line,
        is_repeat: true,
        ..Series::line("estimate and interval", 3, Vec::new())
    }));
    Some(Chart {
        id: format!("ratio-{}", result.metric.name().replace('.', "")),
        title: result.metric.title().to_owned(),
        description: judge::sentence(result),
        x: pairs_axis(last),
        y: shares_axis(reach),
        series,
        level: Some(Level { points: vec![(0.5, result.margin)], name: format!("allowed: {}", signed(result.margin)) }),
        rug_label: String::new(),
    })
}

fn pairs_axis(last: f64) -> Axis {
    let mut axis = Axis::linear("pair", last, format::number);
    (axis.min, axis.max) = (0.5, last + 0.5);
    axis.ticks.retain(|(at, _)| (1.0..=last).contains(at));
    axis
}

/// From as far below 0 as above.
fn shares_axis(reach: f64) -> Axis {
    let above = Axis::linear("", reach.max(0.01), |_| String::new());
    let below = above.ticks.iter().skip(1).rev().map(|(at, _)| -at);
    let ticks: Vec<f64> = below.chain(above.ticks.iter().map(|(at, _)| *at)).collect();
    Axis {
        label: "worse by".to_owned(),
        scale: Scale::Linear,
        min: -above.max,
        max: above.max,
        ticks: ticks.into_iter().map(|at| (at, signed(at))).collect(),
        unit: Unit::Change,
    }
}

fn left_out(gate: &Gate) -> Markup {
    let left_out: Vec<(&Pair, &String)> =
        gate.pairs.iter().filter_map(|pair| Some((pair, pair.left_out.as_ref()?))).collect();
    html! {
        @if left_out.is_empty() { p { "None." } }
        ul { @for (pair, why) in left_out { li { "Pair " (pair.number) ": " (why) } } }
    }
}

fn rule(gate: &Gate) -> Markup {
    let looks: Vec<String> = gate
        .rule
        .looks
        .iter()
        .map(|look| format!("after {} pairs at {}", look.pairs, format::percent(look.alpha)))
        .collect();
    let spoiled = &gate.rule.spoiled;
    let facts = [
        (
            "Looks",
            format!("{}: the chance of a false alarm that each may spend, over all gated metrics", looks.join(", ")),
        ),
        (
            "Load",
            format!(
                "{} for {} after a warm-up of {}, {} connections, seed {}",
                format::rate(gate.plan.rate_per_s),
                format::seconds(gate.plan.duration_ms as f64 / 1e3),
                format::seconds(gate.plan.warmup_ms as f64 / 1e3),
                gate.plan.connections,
                gate.rule.seed
            ),
        ),
        (
            "A pair is left out",
            format!(
                "when in the worse of its rounds a core stood still for over 1 ms in {} of the time, others took {} (other machines) or {} (other programs) of \
             the processor time, the generator was {} late at p50, or could not keep up",
                format::percent(spoiled.standstill_share_max),
                format::percent(spoiled.steal_share_max),
                format::percent(spoiled.other_cpu_share_max),
                format::time(spoiled.send_delay_ns_p50_max)
            ),
        ),
        (
            "A regression",
            if gate.rule.confirm { "has to come again in fresh rounds" } else { "is not asked for again" }.to_owned(),
        ),
        (
            "Machine",
            format!(
                "{}, {} cores, {}, {}",
                gate.environment.cpu_model, gate.environment.cores, gate.environment.os, gate.environment.kernel
            ),
        ),
        ("Command", gate.command.join(" ")),
    ];
    html! { dl.facts { @for (name, text) in facts { dt { (name) } dd { (text) } } } }
}
