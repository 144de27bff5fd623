//! JUnit XML: one suite a target of `conform`, with one case a rule; one suite for the objectives and the ledger of a run that measured; one
//! suite for a gate, with one case a gated metric.
//!
//! Written by hand: the format is two elements, and a crate for it brings a dozen others.

use crate::conform;
use crate::format;
use crate::gate::model::{Gate, GateOutcome, MetricResult};
use crate::gate::show;
use crate::model::{Conformance, Outcome, RuleOutcome, RuleResult, Run};
use crate::objective;

/// One `<testcase>`.
struct Case {
    class: String,
    name: String,
    seconds: Option<f64>,
    result: Result,
}

enum Result {
    Passed,
    Failed { message: String, text: String },
    Error { message: String },
    Skipped { message: String },
}

/// One `<testsuite>`.
struct Suite {
    name: String,
    seconds: f64,
    cases: Vec<Case>,
}

/// The run as JUnit XML.
pub fn junit(run: &Run) -> String {
    let suite = |found: &Conformance| Suite {
        name: found.target.clone(),
        seconds: found.seconds,
        cases: conformance_cases(found),
    };
    let mut suites: Vec<Suite> = run.conformance.iter().map(suite).collect();
    if run.conformance.is_empty() || !run.results.is_empty() {
        suites.push(Suite { name: run.plan.name.clone(), seconds: run.seconds, cases: run_cases(run) });
    }
    document(&run.tool.name, &run.started_at, run.seconds, &suites)
}

/// The decision of a gate as JUnit XML.
pub fn of_gate(gate: &Gate) -> String {
    let suite = Suite { name: "performance gate".to_owned(), seconds: gate.seconds, cases: gate_cases(gate) };
    document(&gate.tool.name, &gate.started_at, gate.seconds, &[suite])
}

fn document(tool: &str, started_at: &str, seconds: f64, suites: &[Suite]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\"{} time=\"{seconds:.3}\">\n",
        escaped(tool),
        counts(suites.iter().flat_map(|suite| &suite.cases)),
    );
    let at = started_at.split('.').next().unwrap_or_default().trim_end_matches('Z');
    for suite in suites {
        text += &format!(
            "  <testsuite name=\"{}\"{} time=\"{:.3}\" timestamp=\"{}\">\n",
            escaped(&suite.name),
            counts(suite.cases.iter()),
            suite.seconds,
            escaped(at)
        );
        suite.cases.iter().for_each(|case| text += &element(case));
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

fn counts<'a>(cases: impl Iterator<Item = &'a Case> + Clone) -> String {
    let count = |which: fn(&Result) -> bool| cases.clone().filter(|case| which(&case.result)).count();
    format!(
        " tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
        cases.clone().count(),
        count(|result| matches!(result, Result::Failed { .. })),
        count(|result| matches!(result, Result::Error { .. })),
        count(|result| matches!(result, Result::Skipped { .. }))
    )
}

fn element(case: &Case) -> String {
    let time = case.seconds.map(|seconds| format!(" time=\"{seconds:.3}\"")).unwrap_or_default();
    let head = format!("    <testcase classname=\"{}\" name=\"{}\"{time}", escaped(&case.class), escaped(&case.name));
    let inside = match &case.result {
        Result::Passed => return format!("{head}/>\n"),
        Result::Failed { message, text } => {
            format!("<failure message=\"{}\" type=\"failure\">{}</failure>", escaped(message), escaped(text))
        }
        Result::Error { message } => format!("<error message=\"{}\" type=\"error\"/>", escaped(message)),
        Result::Skipped { message } => format!("<skipped message=\"{}\"/>", escaped(message)),
    };
    format!("{head}>\n      {inside}\n    </testcase>\n")
}

fn conformance_cases(found: &Conformance) -> Vec<Case> {
    let failure = found.failure.iter().map(|failure| Case {
        class: found.target.clone(),
        name: "the target answers".to_owned(),
        seconds: None,
        result: Result::Error { message: failure.clone() },
    });
    let rules = found.rules.iter().map(|rule| Case {
        class: found.target.clone(),
        name: format!("{} {}", rule.id, conform::title(&rule.id)),
        seconds: None,
        result: rule_result(rule),
    });
    failure.chain(rules).collect()
}

fn rule_result(rule: &RuleResult) -> Result {
    let untested = || {
        let clauses: Vec<String> =
            rule.untested.iter().map(|open| format!("{}: {}", open.clause, open.reason)).collect();
        rule.reason.clone().unwrap_or_else(|| clauses.join("; "))
    };
    match rule.outcome {
        RuleOutcome::Passed => Result::Passed,
        RuleOutcome::Failed => {
            let lines: Vec<String> = rule
                .failures
                .iter()
                .map(|it| {
                    format!(
                        "{}\n  expected {}\n  came     {}\n  asked    {}",
                        it.clause, it.expected, it.got, it.request
                    )
                })
                .collect();
            let message = rule.failures.iter().map(|it| it.clause.as_str()).collect::<Vec<_>>().join("; ");
            Result::Failed { message, text: lines.join("\n") }
        }
        RuleOutcome::NotClaimed => Result::Skipped { message: "not claimed by its profile".to_owned() },
        RuleOutcome::NotTestable => Result::Skipped { message: format!("not testable here: {}", untested()) },
    }
}

/// Objectives, one a case; and the verdict, which also knows of losses.
fn run_cases(run: &Run) -> Vec<Case> {
    let objectives = run.objectives.iter().map(|it| Case {
        class: it.variant.clone(),
        name: it.expression.clone(),
        seconds: None,
        result: match it.met {
            Some(true) => Result::Passed,
            Some(false) => Result::Failed {
                message: objective::sentence(it),
                text: it
                    .value
                    .map_or_else(String::new, |value| format!("measured {}", format::in_unit(value, &it.unit))),
            },
            None => Result::Skipped { message: objective::sentence(it) },
        },
    });
    let reasons = run.verdict.reasons.join("\n");
    let verdict = Case {
        class: "verdict".to_owned(),
        name: "the run as a whole".to_owned(),
        seconds: Some(run.seconds),
        result: match run.verdict.outcome {
            Outcome::Pass => Result::Passed,
            Outcome::Missed => {
                Result::Failed { message: run.verdict.reasons.first().cloned().unwrap_or_default(), text: reasons }
            }
            Outcome::Inconclusive => Result::Skipped { message: format!("inconclusive: {reasons}") },
            Outcome::Invalid => Result::Error { message: format!("invalid: {reasons}") },
        },
    };
    objectives.chain([verdict]).collect()
}

/// Gated metrics, one a case; and the verdict, which also knows of losses.
fn gate_cases(gate: &Gate) -> Vec<Case> {
    let metrics = gate.metrics.iter().filter_map(|metric| {
        let result = gate_result(metric.outcome?, &metric_sentence(metric), &metric.notes.join("\n"));
        Some(Case { class: "metric".to_owned(), name: metric.metric.title().to_owned(), seconds: None, result })
    });
    let (first, all) = (gate.verdict.reasons.first().map_or("", String::as_str), gate.verdict.reasons.join("\n"));
    let verdict = Case {
        class: "verdict".to_owned(),
        name: "the candidate as a whole".to_owned(),
        seconds: Some(gate.seconds),
        result: gate_result(gate.verdict.outcome, first, &all),
    };
    metrics.chain([verdict]).collect()
}

fn gate_result(outcome: GateOutcome, sentence: &str, text: &str) -> Result {
    match outcome {
        GateOutcome::Pass | GateOutcome::Improved => Result::Passed,
        GateOutcome::Regressed => Result::Failed { message: sentence.to_owned(), text: text.to_owned() },
        GateOutcome::Inconclusive => Result::Skipped { message: format!("inconclusive: {sentence}") },
        GateOutcome::Invalid => Result::Error { message: format!("invalid: {sentence}") },
    }
}

fn metric_sentence(metric: &MetricResult) -> String {
    let [_, baseline, candidate, change, between, allowed, _] = show::row(metric);
    format!("{baseline} → {candidate}: {change} ({between}), allowed {allowed}")
}

/// For XML 1.0: its five special characters, and none that it does not allow at all.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\n' => escaped += "&#10;",
            '\t' => escaped += "&#9;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other if other.is_control() && (other as u32) < 0x20 => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn only_what_was_tested_counts_as_passed() {
        let text = junit(&fixtures::conform());
        assert!(
            text.contains(
                "<testsuite name=\"cache-first on sqlite\" tests=\"21\" failures=\"0\" errors=\"0\" skipped=\"1\""
            ),
            "{text}"
        );
        assert!(
            text.contains("<testsuite name=\"127.0.0.1:4000\" tests=\"21\" failures=\"1\" errors=\"0\" skipped=\"2\""),
            "{text}"
        );
        assert!(
            text.contains("<testsuite name=\"127.0.0.1:4001\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\""),
            "{text}"
        );
        assert!(text.contains("<skipped message=\"not claimed by its profile\"/>"), "{text}");
    }

    #[test]
    fn a_missed_objective_is_a_failure() {
        let text = junit(&fixtures::lying_server());
        assert!(text.contains("name=\"ledger.lost == 0\">\n      <failure message="), "{text}");
    }

    #[test]
    fn nothing_that_xml_forbids_gets_in() {
        let text = escaped("a<b>&\"'\u{0}\u{1b}\n\u{ffff}");
        assert_eq!(text, "a&lt;b&gt;&amp;&quot;&apos;\u{fffd}\u{fffd}&#10;\u{fffd}");
    }
}
