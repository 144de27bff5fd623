//! What a command would do, step by step, and how long it takes: said in a line before it begins, and all that a dry run does.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use reports::format;
use reports::model::Plan;
use reports::plan;
use serde::Serialize;

use super::Failure;
use super::terminal::{print_json, print_text};

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Forecast {
    /// Which, without `loadgen`.
    pub command: &'static str,
    /// What it is about, in a line.
    pub summary: String,
    /// How long it takes, roughly.
    pub seconds: f64,
    /// In this order.
    pub steps: Vec<Step>,
    /// The files of the result, by name.
    pub files: Vec<&'static str>,
}

/// A part of it.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// A sentence without its full stop.
    pub what: String,
    /// How long it takes, roughly.
    pub seconds: f64,
}

impl Step {
    /// A sentence, and how long.
    pub fn new(what: impl Into<String>, duration: Duration) -> Self {
        Self { what: what.into(), seconds: duration.as_secs_f64() }
    }
}

impl Forecast {
    /// In a line, for before it begins.
    pub fn line(&self) -> String {
        format!("{}, about {}", self.summary, about(self.seconds))
    }

    /// For a person. `folder` is where the files would be.
    fn text(&self, folder: &Path) -> String {
        let mut text = format!("{}\n\n", self.line());
        for step in &self.steps {
            // Writing to a string does not fail.
            let length = if step.seconds > 0.0 { about(step.seconds) } else { String::new() };
            let _ = writeln!(text, "  {length:>12}  {}", step.what);
        }
        let files: Vec<String> = self.files.iter().map(|name| folder.join(name).display().to_string()).collect();
        if !files.is_empty() {
            let _ = writeln!(text, "\nwould write {}", files.join(", "));
        }
        text + "dry run: nothing was started, measured or written\n"
    }

    /// All that a dry run does.
    pub fn tell(&self, json: bool, folder: &Path) -> Result<(), Failure> {
        match json {
            true => print_json(self),
            false => {
                print_text(&self.text(folder));
                Ok(())
            }
        }
    }
}

/// Whole seconds: it is a guess.
fn about(seconds: f64) -> String {
    if seconds < 0.5 { "0 s".to_owned() } else { format::seconds(seconds.round()) }
}

/// What one repetition of a plan asks of one server, in words. One in the mode `null` keeps nothing that could be looked for.
pub(super) fn load(plan: &Plan, mode: Option<&str>) -> String {
    let ms = |n: u64| format::time(n as f64 * 1e6);
    let events = plan.rate_per_s * plan.duration_ms as f64 / 1e3;
    let events =
        if events >= 1.0 { format!(", {} events", format::count(events.round() as u64)) } else { String::new() };
    let mut parts = Vec::new();
    if plan.warmup_ms > 0 {
        parts.push(format!("{} of warm-up", ms(plan.warmup_ms)));
    }
    parts.push(format!(
        "{} of load ({}{events} of {})",
        ms(plan.duration_ms),
        plan::arrivals(plan),
        plan::payloads(plan)
    ));
    if plan.ledger && mode != Some("null") {
        parts.push(format!("every acknowledged event looked for (at most {})", ms(plan.drain_timeout_ms)));
    }
    if plan.idle_ms > 0 {
        parts.push(format!("{} idle", ms(plan.idle_ms)));
    }
    parts.join(", ")
}

/// What a result is judged by.
pub(super) fn judged_by(objectives: &[String]) -> Step {
    let what = match objectives.is_empty() {
        true => "judged: nothing lost, nothing duplicated, and whether the generator kept up; no objective (--slo)"
            .to_owned(),
        false => format!("judged: nothing lost, nothing duplicated, and {}", objectives.join(", ")),
    };
    Step::new(what, Duration::ZERO)
}
