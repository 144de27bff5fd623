//! A comparison as rows of text, for the terminal and the page.

use super::{Comparison, Line, Scenario};
use crate::format;
use crate::summary::{Cell, Row};
use crate::table;

/// The numbers of a scenario, one row a quantity, a column for each of its subjects: median, smallest and largest, ratio, letters.
pub fn scenario_rows(scenario: &Scenario) -> Vec<Row> {
    let rate = |label: &str, values: Vec<Option<f64>>| Row {
        label: label.to_owned(),
        cells: values
            .into_iter()
            .map(|v| Cell::plain(v.map_or_else(|| format::UNKNOWN.to_owned(), format::rate)))
            .collect(),
    };
    let offered = rate("offered rate", scenario.offered_per_s.iter().map(|rate| Some(*rate)).collect());
    let achieved = rate("achieved rate", scenario.achieved_per_s.clone());
    [offered, achieved].into_iter().chain(scenario.lines.iter().map(Line::row)).collect()
}

impl Line {
    fn row(&self) -> Row {
        let cells = (0..self.values.len()).map(|i| {
            let Some(value) = self.values[i] else { return Cell::plain(format::UNKNOWN) };
            let text = |v: f64| format::in_unit(v, &self.unit);
            let (low, high) = (text(value.min), text(value.max));
            let range = (low != high).then(|| format!("{low} – {high}"));
            let ratio = self.ratio_text(i).map_or_else(String::new, |ratio| ratio + " ");
            let parts: Vec<String> = range.into_iter().chain([format!("{ratio}[{}]", self.letters[i])]).collect();
            Cell { spread: Some(parts.join("\n")), ..Cell::plain(text(value.median)) }
        });
        Row { label: self.label.clone(), cells: cells.collect() }
    }

    /// `2.1 × (1.9 to 2.4)`.
    pub fn ratio_text(&self, of: usize) -> Option<String> {
        let ratio = self.ratios[of]?;
        let interval = match (ratio.low, ratio.high) {
            (Some(low), Some(high)) => format!(" ({} to {})", format::number(low), format::number(high)),
            _ => String::new(),
        };
        Some(format!("{} ×{interval}", format::number(ratio.ratio)))
    }
}

/// What became of the acknowledged events, one column a subject.
pub fn ledger_rows(comparison: &Comparison) -> Vec<Row> {
    let row = |label: &str, is_fault: bool, read: fn(&super::LedgerSum) -> u64| {
        let cells = comparison.subjects.iter().map(|subject| match subject.ledger.as_ref().map(read) {
            None => Cell::plain(format::UNKNOWN),
            Some(count) => Cell { is_fault: is_fault && count > 0, ..Cell::plain(format::count(count)) },
        });
        Row { label: label.to_owned(), cells: cells.collect() }
    };
    let claims = comparison.subjects.iter().map(|s| Cell::plain(s.durability.as_deref().unwrap_or(format::UNKNOWN)));
    vec![
        Row { label: "an acknowledgement claims".to_owned(), cells: claims.collect() },
        row("acknowledged", false, |ledger| ledger.acknowledged),
        row("persisted", false, |ledger| ledger.persisted),
        row("lost", true, |ledger| ledger.lost),
        row("duplicated", true, |ledger| ledger.duplicated),
        row("altered", true, |ledger| ledger.corrupted),
        row("unverified", false, |ledger| ledger.unverified),
    ]
}

/// The capacities, one column a subject; empty without any.
pub fn capacity_rows(comparison: &Comparison) -> Vec<Row> {
    if comparison.subjects.iter().all(|subject| subject.capacity.is_none()) {
        return Vec::new();
    }
    let row = |label: &str, text: &dyn Fn(&crate::model::Capacity) -> Option<String>| {
        let cells = comparison.subjects.iter().map(|subject| {
            Cell::plain(subject.capacity.as_ref().and_then(text).unwrap_or_else(|| format::UNKNOWN.to_owned()))
        });
        Row { label: label.to_owned(), cells: cells.collect() }
    };
    vec![
        row("capacity", &|found| {
            let at_least = if found.limit.is_some() { "≥ " } else { "" };
            Some(format!("{at_least}{}", format::rate(found.rate_per_s?)))
        }),
        row("lowest rate that failed", &|found| found.rate_per_s_failed.map(format::rate)),
        row("because", &|found| found.failed_because.first().cloned()),
        row("knee", &|found| found.knee_per_s.map(format::rate)),
    ]
}

/// Width that its tables may take, characters: as lists they would be four times as long.
const WIDTH: usize = 140;

/// The whole comparison for the terminal.
pub fn terminal(comparison: &Comparison) -> String {
    let names: Vec<String> = comparison.subjects.iter().map(|subject| subject.name.clone()).collect();
    let limits: Vec<String> = comparison.limits.iter().map(|limit| format!("  {limit}")).collect();
    let mut parts = vec![format!("what this does not say\n{}", limits.join("\n"))];
    for scenario in &comparison.scenarios {
        parts.push(format!(
            "{} (× to {}, intervals for {} comparisons; who shares a letter cannot be told apart)\n{}",
            scenario.title,
            comparison.reference,
            scenario.comparisons,
            table::rows(&scenario.subjects, &scenario_rows(scenario), WIDTH)
        ));
    }
    let capacity = capacity_rows(comparison);
    if !capacity.is_empty() {
        parts.push(format!("capacity\n{}", table::rows(&names, &capacity, WIDTH)));
    }
    parts.push(format!("ledger\n{}", table::rows(&names, &ledger_rows(comparison), WIDTH)));
    parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n") + "\n"
}
