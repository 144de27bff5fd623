//! A history as sentences, for the terminal and the page.

use super::{Change, History, PastRun, Series, Setting};
use crate::format;

/// `312 µs → 404 µs (1.29 ×)`.
pub fn change_size(series: &Series, change: &Change) -> String {
    let text = |value: f64| format::in_unit(value, &series.unit);
    let ratio = change.ratio.map_or_else(String::new, |ratio| format!(" ({} ×)", format::number(ratio)));
    format!("{} → {}{ratio}", text(change.before), text(change.after))
}

/// `between 2026-11-19 (1a2b3c4) and 2026-11-20 (5d6e7f8)`.
pub fn change_when(setting: &Setting, change: &Change) -> String {
    let named = |run: &PastRun| format!("{} ({})", day(run), run.revision.chars().take(12).collect::<String>());
    format!("between {} and {}", named(&setting.runs[change.run_before]), named(&setting.runs[change.run]))
}

/// The day on which it began, UTC.
pub fn day(run: &PastRun) -> &str {
    run.started_at.get(..10).unwrap_or(&run.started_at)
}

/// What chance alone does to so many series, as a sentence.
pub fn chance(history: &History) -> String {
    let tested = history.series_tested();
    let rule = &history.rule;
    if tested == 0 {
        return format!("No change could be looked for: that takes {} runs of one setting.", rule.runs_min);
    }
    format!(
        "Changes were looked for in {} series; where nothing changed, chance marks {} of them, so about {} here. A change that its neighbours \
         do not share is to be doubted; runs of one day resemble one another, and that marks more.",
        format::count(tested as u64),
        format::percent(rule.significance),
        format::number(tested as f64 * rule.significance)
    )
}

/// The whole history for the terminal.
pub fn terminal(history: &History) -> String {
    let mut lines = Vec::new();
    for (place, setting) in history.settings.iter().enumerate() {
        lines.push(format!("{}. {}: {}", place + 1, setting.title, runs(setting)));
        lines.push(format!("   {}", setting.machine));
        lines.extend(setting.differs.iter().map(|field| format!("   apart from the ones above by {field}")));
        let marked: Vec<&Series> = setting.series.iter().filter(|series| !series.changes.is_empty()).collect();
        for series in &marked {
            for change in &series.changes {
                let mark = if change.is_worse { "worse " } else { "better" };
                lines.push(format!(
                    "   {mark}  {}, {}: {}, {}, p {}",
                    series.variant,
                    series.metric.title(),
                    change_size(series, change),
                    change_when(setting, change),
                    format::number(change.p)
                ));
            }
        }
        if marked.is_empty() {
            let note = setting.series.iter().find_map(|series| series.note.clone());
            lines.push(format!("   no change marked{}", note.map_or_else(String::new, |note| format!(" ({note})"))));
        }
        lines.push(String::new());
    }
    if !history.left_out.is_empty() {
        lines.push("left out".to_owned());
        lines.extend(history.left_out.iter().map(|left_out| format!("   {}: {}", left_out.path, left_out.reason)));
        lines.push(String::new());
    }
    lines.push(chance(history));
    lines.join("\n") + "\n"
}

/// `20 runs, 2026-10-01 to 2026-11-24`.
fn runs(setting: &Setting) -> String {
    let count = format::counted(setting.runs.len() as u64, "run");
    let days: Vec<&str> = [setting.runs.first(), setting.runs.last()].into_iter().flatten().map(day).collect();
    match days[..] {
        [first, last] if first != last => format!("{count}, {first} to {last}"),
        [first, ..] => format!("{count}, {first}"),
        [] => count,
    }
}
