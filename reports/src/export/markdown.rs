//! Markdown as GitHub shows it: the run for the summary of a CI job, and shorter for a comment on a pull request. Longer ones than GitHub takes
//! are cut at a line, and say so.

use crate::conform;
use crate::format;
use crate::model::{Outcome, RuleOutcome, Run};
use crate::summary::{self, Row};
use crate::table;

/// Longest summary of a job's step that GitHub takes, bytes.
pub const SUMMARY_BYTES_MAX: usize = 1024 * 1024;
/// Longest comment on a pull request that GitHub takes, bytes.
pub const COMMENT_BYTES_MAX: usize = 64 * 1024;
/// First line of a comment, by which the next run finds it to replace it; not shown.
pub const COMMENT_MARK: &str = "<!-- millrace -->";

const CUT: &str = "\n\n*Cut here, where it is too long for GitHub: run.json and report.html have the whole.*\n";
/// Reasons, failures and caveats in a comment, of each.
const COMMENT_ITEMS_MAX: usize = 10;

/// For the summary of a job.
pub fn summary(run: &Run) -> String {
    within(whole(run, usize::MAX), SUMMARY_BYTES_MAX)
}

/// For a comment on a pull request.
pub fn comment(run: &Run) -> String {
    within(format!("{COMMENT_MARK}\n{}", whole(run, COMMENT_ITEMS_MAX)), COMMENT_BYTES_MAX)
}

fn whole(run: &Run, items_max: usize) -> String {
    let mut parts = vec![heading(run)];
    parts.extend(list(run.verdict.reasons.iter().map(|reason| md(reason)).collect(), items_max));
    parts.extend(conformance(run, items_max));
    if !run.results.is_empty() {
        parts.push(rows(&summary::headings(run), &summary::key_rows(run)));
    }
    if !run.capacity.is_empty() {
        let names: Vec<String> = run.capacity.iter().map(|found| found.variant.clone()).collect();
        parts.push(rows(&names, &summary::capacity_rows(run)));
    }
    if !run.crash.is_empty() {
        parts.push(rows(&summary::CRASH_HEADINGS.map(str::to_owned), &summary::crash_rows(run)));
    }
    parts.extend(objectives(run));
    parts.extend(caveats(run, items_max));
    let (started_at, id, revision) = (md(&run.started_at), md(&run.run_id), md(&run.tool.revision));
    parts.push(format!(
        "<sub>run {id}, begun {started_at}, loadgen {revision}, {}</sub>",
        md(&run.environment.cpu_model)
    ));
    parts.join("\n\n") + "\n"
}

fn heading(run: &Run) -> String {
    let mark = match run.verdict.outcome {
        Outcome::Pass => "✅",
        Outcome::Missed => "❌",
        Outcome::Inconclusive => "❔",
        Outcome::Invalid => "⚠️",
    };
    format!("### {mark} {}: {}", md(&run.plan.name), table::word(run.verdict.outcome).to_lowercase())
}

fn conformance(run: &Run, items_max: usize) -> Option<String> {
    if run.conformance.is_empty() {
        return None;
    }
    let names: Vec<String> = run.conformance.iter().map(|found| found.target.clone()).collect();
    let mut broken = Vec::new();
    for found in &run.conformance {
        for rule in found.rules.iter().filter(|rule| rule.outcome == RuleOutcome::Failed) {
            for it in &rule.failures {
                broken.push(format!(
                    "**{} of {}**: {}; expected {}, came {}, asked {}",
                    md(&rule.id),
                    md(&found.target),
                    md(&it.clause),
                    md(&it.expected),
                    md(&it.got),
                    md(&it.request)
                ));
            }
        }
    }
    let table = rows(&names, &summary::conformance_rows(run));
    let open: usize = run.conformance.iter().map(conform::untested_clauses).sum();
    let note = format!("{} could not be tested; report.html lists them.", format::counted(open as u64, "clause"));
    Some([Some(table), list(broken, items_max), Some(note)].into_iter().flatten().collect::<Vec<_>>().join("\n\n"))
}

fn rows(headings: &[String], rows: &[Row]) -> String {
    let headings: Vec<String> = headings.iter().map(|heading| md(heading)).collect();
    let mut text = format!("| | {} |\n|:--|{}", headings.join(" | "), "--:|".repeat(headings.len()));
    for row in rows {
        let cells = row.cells.iter().map(|cell| {
            let spread =
                cell.spread.as_ref().map(|spread| format!("<br><sub>{}</sub>", md(spread))).unwrap_or_default();
            let text = md(&cell.text);
            if cell.is_fault { format!("**{text}**{spread}") } else { format!("{text}{spread}") }
        });
        text += &format!("\n| {} | {} |", md(&row.label), cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn objectives(run: &Run) -> Option<String> {
    if run.objectives.is_empty() {
        return None;
    }
    let mut text = "| objective | on | measured | |\n|:--|:--|--:|:--|".to_owned();
    for it in &run.objectives {
        let mark = match it.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "undecided",
        };
        let value = it.value.map_or_else(|| format::UNKNOWN.to_owned(), |value| format::in_unit(value, &it.unit));
        text += &format!("\n| {} | {} | {} | {mark} |", md(&it.expression), md(&it.variant), md(&value));
    }
    Some(text)
}

fn caveats(run: &Run, items_max: usize) -> Option<String> {
    let item = |it: &crate::model::Caveat| {
        let on = it.subject.as_ref().map(|subject| format!("{}: ", md(subject))).unwrap_or_default();
        format!("**{}** {on}{} → {}", it.kind.name(), md(&it.detail), md(&it.remedy))
    };
    let items = list(run.caveats.iter().map(item).collect(), items_max)?;
    Some(format!(
        "<details><summary>{}</summary>\n\n{items}\n\n</details>",
        format::counted(run.caveats.len() as u64, "caveat")
    ))
}

fn list(items: Vec<String>, items_max: usize) -> Option<String> {
    if items.is_empty() {
        return None;
    }
    let mut lines: Vec<String> = items.iter().take(items_max).map(|item| format!("- {item}")).collect();
    if items.len() > items_max {
        lines.push(format!("- … and {} more", items.len() - items_max));
    }
    Some(lines.join("\n"))
}

/// Text that Markdown and HTML leave as it is, and that calls nobody (`@name`) and links to nothing (`#1`).
fn md(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '@' => escaped += "&#64;",
            '#' => escaped += "&#35;",
            '|' => escaped += "&#124;",
            '\\' | '`' | '*' | '_' | '~' | '[' | ']' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// At most so many bytes: cut after a line, with a sentence that says so.
fn within(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let room = bytes_max.saturating_sub(CUT.len());
    let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let whole_lines = text[..end].rfind('\n').unwrap_or(end);
    format!("{}{CUT}", &text[..whole_lines])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_run_that_is_too_long_is_cut_at_a_line_and_says_so() {
        let mut run = fixtures::conform();
        let reason = "ü".repeat(300);
        run.verdict.reasons = vec![reason; 5_000];
        let text = summary(&run);
        assert!(text.len() <= SUMMARY_BYTES_MAX && text.len() > SUMMARY_BYTES_MAX - 1_000, "{}", text.len());
        assert!(text.ends_with(CUT));
        assert!(text.trim_end_matches(CUT).ends_with('ü'), "a line is there whole");
        let short = comment(&run);
        assert!(short.starts_with(COMMENT_MARK) && short.len() < COMMENT_BYTES_MAX && !short.contains(CUT.trim()));
        assert!(short.contains("- … and 4990 more"), "{short}");
    }

    #[test]
    fn nothing_from_outside_becomes_markup_a_mention_or_a_link() {
        assert_eq!(md("<b>@me #1 a|b `c` [x](y)\n*d*"), "&lt;b&gt;&#64;me &#35;1 a&#124;b \\`c\\` \\[x\\](y) \\*d\\*");
        let mut run = fixtures::small();
        run.plan.variants[0].name = "<script>|x".to_owned();
        assert!(!summary(&run).contains("<script>"));
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells_as_its_head() {
        for (name, run) in fixtures::all() {
            let text = summary(&run);
            let mut head = None;
            for line in text.lines() {
                match line.starts_with('|') {
                    false => head = None,
                    true => {
                        let cells = line.matches('|').count();
                        assert_eq!(*head.get_or_insert(cells), cells, "{name}: {line}");
                    }
                }
            }
        }
    }
}
