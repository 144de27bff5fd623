//! A decision as text: for the terminal, and as Markdown for a job's summary or a comment on a pull request.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::judge::signed;
use super::metric::worse_by;
use super::model::{Gate, GateOutcome, MetricResult};
use crate::model::Plan;
use crate::{format, plan};

/// Headings of [`row`].
pub const HEADINGS: [&str; 7] = ["", "baseline", "candidate", "change", "between", "allowed", "verdict"];

/// A metric as a row: name, both medians, by how much it is worse, its interval, margin, verdict.
pub fn row(result: &MetricResult) -> [String; 7] {
    let text = |value: Option<f64>| value.map_or_else(|| format::UNKNOWN.to_owned(), |value| result.metric.text(value));
    let bound = |share: Option<f64>| share.map_or_else(|| format::UNKNOWN.to_owned(), signed);
    let verdict = match result.outcome {
        Some(outcome) if result.required => outcome.name().to_owned(),
        Some(outcome) => format!("{} (optional)", outcome.name()),
        None => "for information".to_owned(),
    };
    [
        result.metric.title().to_owned(),
        text(result.baseline),
        text(result.candidate),
        result.worse_by.map_or_else(|| format::UNKNOWN.to_owned(), worse_by),
        format!("{} to {}", bound(result.worse_by_low), bound(result.worse_by_high)),
        if result.gated { signed(result.margin) } else { String::new() },
        verdict,
    ]
}

/// What the numbers are of, in a sentence.
pub fn basis(gate: &Gate) -> String {
    let verdict = &gate.verdict;
    let left_out = match verdict.pairs_left_out {
        0 => String::new(),
        n => format!(", {n} left out as spoiled by the machine"),
    };
    let confidence = gate.metrics.first().map_or(0.0, |result| result.confidence);
    format!(
        "{} of rounds count{left_out}; worse is positive; intervals at {} confidence",
        format::counted(u64::from(verdict.pairs_used), "pair"),
        format::percent(confidence)
    )
}

/// Why the answer is a weak one; `None`: it is not.
pub fn weakness(gate: &Gate) -> Option<String> {
    let stored = gate.stored_baseline.as_ref()?;
    Some(format!(
        "WEAK: the baseline was read from {stored} and not measured beside the candidate, so whatever changed on the machine since then \
         counts as if the candidate had done it"
    ))
}

/// What sets the load of the rounds apart from the usual one, a sentence each; not the faults, which are told with their side.
pub fn peculiarities(gate: &Gate) -> Vec<String> {
    plan::peculiarities(&Plan { faults: Vec::new(), ..gate.plan.clone() })
}

/// The decision for a terminal.
pub fn terminal(gate: &Gate) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(HEADINGS);
    for result in &gate.metrics {
        table.add_row(row(result));
    }
    for column in 1..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let names = format!("baseline   {}\ncandidate  {}", side(&gate.baseline), side(&gate.candidate));
    let verdict = format!("{} (exit code {})", gate.verdict.outcome.name().to_uppercase(), gate.verdict.exit_code);
    let reasons: String = gate.verdict.reasons.iter().map(|reason| format!("\n  {reason}")).collect();
    let mut parts = vec![names, table.trim_fmt(), basis(gate)];
    parts.extend(peculiarities(gate));
    parts.extend(weakness(gate));
    parts.push(format!("{verdict}{reasons}"));
    parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n") + "\n"
}

/// A side as asked for, with its faults.
pub fn side(side: &super::model::Side) -> String {
    match side.faults.is_empty() {
        true => side.name.clone(),
        false => format!("{} with {}", side.name, side.faults.join(", ")),
    }
}

/// The decision as Markdown, a few thousand characters at most.
pub fn markdown(gate: &Gate) -> String {
    let mark = match gate.verdict.outcome {
        GateOutcome::Pass | GateOutcome::Improved => "✅",
        GateOutcome::Regressed => "❌",
        GateOutcome::Inconclusive => "❔",
        GateOutcome::Invalid => "⊘",
    };
    let line =
        |cells: &[String]| format!("| {} |\n", cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | "));
    let mut text = format!("### {mark} Performance gate: {}\n\n", gate.verdict.outcome.name());
    text += &format!(
        "`{}` against `{}`\n\n",
        side(&gate.candidate).replace('`', "'"),
        side(&gate.baseline).replace('`', "'")
    );
    text.extend(weakness(gate).map(|weak| format!("**{weak}**\n\n")));
    for reason in gate.verdict.reasons.iter().take(REASONS_SHOWN) {
        text += &format!("- {}\n", escaped(reason));
    }
    text += &format!("\n{}|---|--:|--:|--:|--:|--:|---|\n", line(&HEADINGS.map(str::to_owned)));
    text.extend(gate.metrics.iter().map(|result| line(&row(result))));
    text += &format!("\n{}.\n", escaped(&basis(gate)));
    text.extend(peculiarities(gate).iter().map(|told| format!("\n{}.\n", escaped(told))));
    text
}

/// Reasons of a verdict in Markdown; all of them are in the result.
const REASONS_SHOWN: usize = 8;

/// Without what Markdown would take for something else.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*").replace('\n', " ")
}
