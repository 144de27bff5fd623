//! OpenMetrics text 1.0: the numbers of a run for whoever keeps them as time series. Times are seconds; no sample has a timestamp, since
//! what is measured is a span.

use crate::conform;
use crate::gate::model::Gate;
use crate::model::{RuleOutcome, Run, TargetResult, Times};
use crate::summary;

use super::numbers::{is_known, of_gate as gate_numbers};

const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// A metric family under way.
struct Family {
    name: &'static str,
    text: String,
    is_empty: bool,
}

impl Family {
    fn new(name: &'static str, kind: &str, unit: &str, help: &str) -> Self {
        let unit = if unit.is_empty() { String::new() } else { format!("# UNIT {name} {unit}\n") };
        Self { name, text: format!("# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n"), is_empty: true }
    }

    /// A sample; the labels are escaped here.
    fn add(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.text += &format!("{}{suffix}{labels} {value}\n", self.name);
        self.is_empty = false;
    }

    /// The family as text; nothing when it has no sample.
    fn text(self) -> String {
        if self.is_empty { String::new() } else { self.text }
    }
}

/// The run.
pub fn openmetrics(run: &Run) -> String {
    let mut families = vec![info(run)];
    families.extend(distributions(run));
    families.extend(counts(run));
    families.extend(costs(run));
    families.extend(judgements(run));
    families.into_iter().map(Family::text).collect::<String>() + "# EOF\n"
}

/// The decision of a gate. Numbers are medians over the rounds that count, in the unit that their label names.
pub fn of_gate(gate: &Gate) -> String {
    let mut info = Family::new("millrace_gate", "info", "", "Which gate this is, and what it decided.");
    let labels = [
        ("gate_id", gate.gate_id.as_str()),
        ("revision", &gate.tool.revision),
        ("verdict", gate.verdict.outcome.name()),
    ];
    info.add("_info", &labels, 1.0);
    let mut measured = Family::new("millrace_gate_measured", "gauge", "", "Median over the rounds of a side.");
    for number in gate_numbers(gate) {
        let labels = [("side", number.variant.as_str()), ("measure", number.measure), ("unit", number.unit)];
        measured.add("", &labels, number.spread.median);
    }
    let mut worse = Family::new(
        "millrace_gate_worse_ratio",
        "gauge",
        "ratio",
        "By how much the candidate is worse, and its interval.",
    );
    for metric in &gate.metrics {
        let bounds = [("estimate", metric.worse_by), ("low", metric.worse_by_low), ("high", metric.worse_by_high)];
        for (bound, value) in bounds.into_iter().filter_map(|(bound, value)| Some((bound, value?))) {
            worse.add("", &[("measure", metric.metric.measure()), ("bound", bound)], value);
        }
    }
    [info, measured, worse].into_iter().map(Family::text).collect::<String>() + "# EOF\n"
}

fn info(run: &Run) -> Family {
    let mut family = Family::new("millrace_run", "info", "", "Which run this is, and what to think of it.");
    let labels = [
        ("run_id", run.run_id.as_str()),
        ("plan", &run.plan.name),
        ("version", &run.tool.version),
        ("revision", &run.tool.revision),
        ("verdict", crate::table::word(run.verdict.outcome)),
    ];
    family.add("_info", &labels, 1.0);
    family
}

fn distributions(run: &Run) -> Vec<Family> {
    let all: [(&str, &str, summary::ReadTimes); 5] = [
        (
            "millrace_response_time_seconds",
            "From the intended send to the answer, of accepted events.",
            summary::response_time,
        ),
        ("millrace_service_time_seconds", "From the send to the answer, of accepted events.", summary::service_time),
        ("millrace_send_delay_seconds", "How late the generator itself sent.", summary::send_delay),
        (
            "millrace_time_to_durable_seconds",
            "From the acknowledgement until the event was persisted.",
            summary::time_to_durable,
        ),
        (
            "millrace_time_to_delivered_seconds",
            "From the acknowledgement until the event was delivered.",
            summary::time_to_delivered,
        ),
    ];
    let family = |(name, help, read): (&'static str, &str, summary::ReadTimes)| {
        let mut family = Family::new(name, "summary", "seconds", help);
        for result in &run.results {
            if let Some(times) = read(result).filter(|times| times.count > 0) {
                distribution(&mut family, result, times);
            }
        }
        family
    };
    all.into_iter().map(family).collect()
}

fn distribution(family: &mut Family, result: &TargetResult, times: &Times) {
    let repetition = result.repetition.to_string();
    let labels = [("target", result.target.as_str()), ("repetition", &repetition)];
    for q in QUANTILES.into_iter().filter(|q| is_known(times, *q)) {
        let q_text = q.to_string();
        family.add("", &[&labels[..], &[("quantile", &q_text)]].concat(), times.quantile_ns(q) / 1e9);
    }
    family.add("_count", &labels, times.count as f64);
    family.add("_sum", &labels, times.mean_ns * times.count as f64 / 1e9);
}

fn counts(run: &Run) -> Vec<Family> {
    let mut events =
        Family::new("millrace_events", "counter", "", "Events planned in the steady phase, by what became of them.");
    let mut offered = Family::new("millrace_offered_events_per_second", "gauge", "", "Rate that was offered.");
    let mut achieved = Family::new("millrace_achieved_events_per_second", "gauge", "", "Rate that was accepted.");
    let mut ledger =
        Family::new("millrace_ledger_events", "gauge", "", "Acknowledged events, and what was found of them.");
    for result in &run.results {
        let repetition = result.repetition.to_string();
        let labels = [("target", result.target.as_str()), ("repetition", repetition.as_str())];
        let with = |name: &'static str, value: &'static str| [&labels[..], &[(name, value)]].concat();
        let o = &result.load.outcomes;
        for (outcome, count) in [
            ("accepted", o.accepted),
            ("rejected", o.rejected),
            ("failed", o.failed),
            ("timed_out", o.timed_out),
            ("not_sent", o.not_sent),
        ] {
            events.add("_total", &with("outcome", outcome), count as f64);
        }
        if result.load.planned > 0 {
            offered.add("", &labels, result.load.offered_per_s);
            achieved.add("", &labels, result.load.achieved_per_s);
        }
        let Some(found) = &result.ledger else { continue };
        for (state, count) in [
            ("acknowledged", Some(found.acknowledged)),
            ("persisted", Some(found.persisted)),
            ("delivered", found.delivered),
            ("lost", Some(found.lost)),
            ("duplicated", Some(found.duplicated)),
            ("altered", Some(found.corrupted)),
            ("unverified", Some(found.unverified)),
        ] {
            count.into_iter().for_each(|count| ledger.add("", &with("state", state), count as f64));
        }
    }
    vec![events, offered, achieved, ledger]
}

fn costs(run: &Run) -> Vec<Family> {
    type Read = fn(&TargetResult) -> Option<f64>;
    let all: [(&'static str, &str, &str, Read); 4] = [
        ("millrace_idle_sql_statements_per_hour", "", "SQL statements while no request came.", |r| {
            r.idle.as_ref()?.sql_statements_per_hour
        }),
        ("millrace_server_cpu_seconds", "seconds", "CPU time of the server over the steady phase.", |r| {
            r.resources.server_cpu_s
        }),
        ("millrace_database_cpu_seconds", "seconds", "CPU time of its database over the steady phase.", |r| {
            r.resources.database_cpu_s
        }),
        ("millrace_server_memory_peak_bytes", "bytes", "Largest resident memory of the server.", |r| {
            r.resources.server_rss_peak_bytes.map(|bytes| bytes as f64)
        }),
    ];
    let family = |(name, unit, help, read): (&'static str, &str, &str, Read)| {
        let mut family = Family::new(name, "gauge", unit, help);
        for result in &run.results {
            let repetition = result.repetition.to_string();
            let labels = [("target", result.target.as_str()), ("repetition", repetition.as_str())];
            read(result).into_iter().for_each(|value| family.add("", &labels, value));
        }
        family
    };
    all.into_iter().map(family).collect()
}

fn judgements(run: &Run) -> Vec<Family> {
    let mut capacity =
        Family::new("millrace_capacity_events_per_second", "gauge", "", "Highest rate at which the objectives hold.");
    for found in &run.capacity {
        found.rate_per_s.into_iter().for_each(|rate| capacity.add("", &[("target", &found.variant)], rate));
    }
    let mut objectives =
        Family::new("millrace_objective_met", "gauge", "", "1: met, 0: missed; undecided ones are left out.");
    for it in &run.objectives {
        let labels = [("target", it.variant.as_str()), ("objective", &it.expression)];
        it.met.into_iter().for_each(|met| objectives.add("", &labels, f64::from(u8::from(met))));
    }
    let mut rules =
        Family::new("millrace_rule_kept", "gauge", "", "1: passed, 0: failed; what was not tested is left out.");
    for found in &run.conformance {
        for rule in &found.rules {
            let labels = [("target", found.target.as_str()), ("rule", &rule.id), ("title", conform::title(&rule.id))];
            match rule.outcome {
                RuleOutcome::Passed => rules.add("", &labels, 1.0),
                RuleOutcome::Failed => rules.add("", &labels, 0.0),
                RuleOutcome::NotClaimed | RuleOutcome::NotTestable => {}
            }
        }
    }
    vec![capacity, objectives, rules]
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_sample_belongs_to_the_family_above_it_and_it_ends_as_it_must() {
        for (name, run) in fixtures::all() {
            let text = openmetrics(&run);
            assert!(text.ends_with("\n# EOF\n"), "{name}");
            let mut family = "";
            for line in text.lines() {
                match line.strip_prefix("# TYPE ") {
                    Some(rest) => family = rest.split(' ').next().unwrap(),
                    None => assert!(line.starts_with('#') || line.starts_with(family), "{name}: {line} in {family}"),
                }
            }
        }
    }

    #[test]
    fn what_is_only_a_lower_bound_is_no_quantile_and_labels_are_escaped() {
        let mut run = fixtures::lying_server();
        run.results[0].target = "a\"b\\c\nd".to_owned();
        let text = openmetrics(&run);
        assert!(
            text.contains(
                "millrace_response_time_seconds{target=\"a\\\"b\\\\c\\nd\",repetition=\"1\",quantile=\"0.5\"}"
            ),
            "{text}"
        );
        let response_times = text.lines().filter(|line| line.starts_with("millrace_response_time_seconds{target=\"a"));
        assert_eq!(response_times.filter(|line| line.contains("quantile=")).count(), 2, "p50 and p90: {text}");
        assert!(text.contains(",state=\"lost\"} 1166\n"), "{text}");
    }
}
