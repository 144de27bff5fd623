//! Runs of many days: each number over time, and where it changed. `history.v1`, what `loadgen history` writes and shows.
//!
//! A *setting* is what two runs must have in common before their numbers stand in one series: plan, rate, database, faults, machine and
//! build ([`crate::comparison`] has the list). A run under another plan or on another machine begins a setting of its own, and the field that
//! sets it apart is told. Changes are found by [`divide`], of times and everything else that is above 0 on logarithms, since what is changed in a
//! server multiplies; they tell people where to look and decide nothing: that is what [`crate::gate`] is for.

mod build;
pub mod divide;
mod metric;
mod show;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use build::{Entry, history};
pub use metric::Metric;
pub use show::{chance, change_size, change_when, day, terminal};

/// The value of [`History::schema`].
pub const SCHEMA: &str = "history.v1";

/// Runs one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// `"history.v1"`.
    pub schema: String,
    /// When a change is marked.
    pub rule: Rule,
    /// What was found beside the runs, and runs that are no part of any series, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// Runs that go together; the most runs first.
    pub settings: Vec<Setting>,
}

/// When a change is marked; see [`divide::Rule`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// `E-divisive`.
    pub method: String,
    /// How often a series without a change gets a mark, 0..1.
    pub significance: f64,
    /// Orders of the same numbers that a split is held against.
    pub orders: u32,
    /// Fewest runs on either side of a change.
    pub runs_on_either_side_min: usize,
    /// Fewest runs that are looked at.
    pub runs_min: usize,
    /// Most runs that are looked at, the last ones.
    pub runs_max: usize,
    /// Seed of the orders.
    pub seed: u64,
}

/// A file that is no part of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Where it is.
    pub path: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// Runs under the same plan on the same machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// What was asked for, in words.
    pub title: String,
    /// Machine, in words.
    pub machine: String,
    /// What sets it apart from the setting before it that it resembles most (`plan.connections: 16 and 64`: there 16, here 64); empty for the
    /// first.
    pub differs: Vec<String>,
    /// In the order of time.
    pub runs: Vec<PastRun>,
    /// One a metric and variant.
    pub series: Vec<Series>,
}

/// A run of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastRun {
    /// Its file.
    pub path: String,
    /// Its id.
    pub run_id: String,
    /// When it began.
    pub started_at: String,
    /// Revision of the tool that made it (which has the reference server in it).
    pub revision: String,
    /// Versions that the targets reported, each once.
    pub server_versions: Vec<String>,
    /// `pass`, `missed` or `inconclusive`.
    pub outcome: String,
}

/// One number of one variant over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Which number.
    pub metric: Metric,
    /// Of which variant.
    pub variant: String,
    /// `ns`, `bytes`, `per_s`, `per_hour`, `events`.
    pub unit: String,
    /// Changes were looked for on its logarithms.
    pub is_logarithmic: bool,
    /// One a run that has it, in the order of time.
    pub points: Vec<Point>,
    /// Where it changed, in the order of time.
    pub changes: Vec<Change>,
    /// Why nobody looked for changes, or not everywhere.
    pub note: Option<String>,
}

/// A number of one run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// Place of its run in [`Setting::runs`].
    pub run: usize,
    /// Median of the repetitions (of lost and duplicated events: the sum).
    pub value: f64,
    /// Smallest of them.
    pub min: f64,
    /// Largest of them.
    pub max: f64,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Place in [`Setting::runs`] of the last run before it.
    pub run_before: usize,
    /// Place in [`Setting::runs`] of the first run after it.
    pub run: usize,
    /// Median from the change before this one (or the begin) to this one.
    pub before: f64,
    /// Median from this one to the next (or the end).
    pub after: f64,
    /// `after` ÷ `before`; `null` where that is 0.
    pub ratio: Option<f64>,
    /// Whether it became worse.
    pub is_worse: bool,
    /// Share of the orders that have a split as good.
    pub p: f64,
}

impl History {
    /// Every change with its series and its setting, the latest first.
    pub fn changes(&self) -> Vec<(&Setting, &Series, &Change)> {
        let all = self.settings.iter().flat_map(|setting| {
            setting
                .series
                .iter()
                .flat_map(move |series| series.changes.iter().map(move |change| (setting, series, change)))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| b.0.runs[b.2.run].started_at.cmp(&a.0.runs[a.2.run].started_at));
        all
    }

    /// Series in which changes were looked for.
    pub fn series_tested(&self) -> usize {
        let all = self.settings.iter().flat_map(|setting| &setting.series);
        all.filter(|series| series.points.len() >= self.rule.runs_min).count()
    }
}

/// A history as text, one field a line.
pub fn write(history: &History) -> String {
    serde_json::to_string_pretty(history).expect("a history has only text keys") + "\n"
}

/// The JSON Schema of a history.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(History);
    schema.insert("title".to_owned(), format!("Millrace {SCHEMA}").into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
