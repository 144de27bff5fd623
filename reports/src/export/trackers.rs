//! JSON for services that follow benchmarks over time: Bencher Metric Format, and what github-action-benchmark calls custom results.

use serde_json::{Map, Value, json};

use super::numbers::{Better, Number, numbers, of_gate};
use crate::gate::model::Gate;
use crate::model::Run;

/// Bencher Metric Format: benchmark (a variant) → measure → value, and the smallest and largest of the repetitions where there are several.
pub fn bmf(run: &Run) -> String {
    let mut benchmarks = by_variant(&numbers(run));
    for found in &run.conformance {
        let of = |outcome| crate::conform::with(found, outcome).len();
        let measures = benchmarks.entry(found.target.clone()).or_insert_with(|| json!({}));
        measures["rules-passed"] = json!({"value": of(crate::model::RuleOutcome::Passed)});
        measures["rules-failed"] = json!({"value": of(crate::model::RuleOutcome::Failed)});
    }
    pretty(&Value::Object(benchmarks))
}

/// The same of a gate: the benchmarks are `baseline` and `candidate`.
pub fn gate_bmf(gate: &Gate) -> String {
    pretty(&Value::Object(by_variant(&of_gate(gate))))
}

fn by_variant(numbers: &[Number]) -> Map<String, Value> {
    let mut benchmarks: Map<String, Value> = Map::new();
    for number in numbers {
        let measures = benchmarks.entry(number.variant.clone()).or_insert_with(|| json!({}));
        let spread = &number.spread;
        measures[number.measure] = match spread.count {
            1 => json!({"value": spread.median}),
            _ => json!({"value": spread.median, "lower_value": spread.min, "upper_value": spread.max}),
        };
    }
    benchmarks
}

/// github-action-benchmark, `customSmallerIsBetter` or `customBiggerIsBetter`: one file cannot hold both.
pub fn github(run: &Run, better: Better) -> String {
    entries(numbers(run), better, |count| format!("run {}, {count} repetitions, seed {}", run.run_id, run.plan.seed))
}

/// The same of a gate's candidate: what is kept over time is the side that stays.
pub fn gate_github(gate: &Gate, better: Better) -> String {
    let candidate = of_gate(gate).into_iter().filter(|number| number.variant == "candidate").collect();
    entries(candidate, better, |count| format!("gate {}, {count} rounds, seed {}", gate.gate_id, gate.rule.seed))
}

fn entries(numbers: Vec<Number>, better: Better, extra: impl Fn(usize) -> String) -> String {
    let entry = |number: Number| {
        let spread = &number.spread;
        let mut entry = json!({
            "name": format!("{} {}", number.variant, number.measure),
            "unit": number.unit,
            "value": spread.median,
            "extra": extra(spread.count),
        });
        if spread.count > 1 {
            entry["range"] = json!(format!("{} – {}", spread.min, spread.max));
        }
        entry
    };
    let entries: Vec<Value> = numbers.into_iter().filter(|number| number.better == better).map(entry).collect();
    pretty(&Value::Array(entries))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// After <https://bencher.dev/docs/reference/bencher-metric-format>.
    fn bmf_schema() -> Value {
        let number = || json!({"type": "number"});
        let metric = json!({
            "type": "object",
            "properties": {"value": number(), "lower_value": number(), "upper_value": number()},
            "required": ["value"],
            "additionalProperties": false,
        });
        let slug = json!({"maxLength": 64, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"});
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": 1024},
            "additionalProperties": {
                "type": "object",
                "propertyNames": slug,
                "additionalProperties": metric,
            },
        })
    }

    /// After the README of github-action-benchmark.
    fn github_schema() -> Value {
        let text = || json!({"type": "string", "minLength": 1});
        let properties =
            json!({"name": text(), "unit": text(), "value": {"type": "number"}, "range": text(), "extra": text()});
        let required = ["name", "unit", "value"];
        let item =
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        json!({"type": "array", "items": item})
    }

    fn errors(schema: &Value, text: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(text).unwrap();
        let validator = jsonschema::validator_for(schema).unwrap();
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    #[test]
    fn every_fixture_follows_the_schemas() {
        for (name, run) in fixtures::all() {
            assert_eq!(errors(&bmf_schema(), &bmf(&run)), Vec::<String>::new(), "{name}");
            for better in [Better::Smaller, Better::Bigger] {
                assert_eq!(errors(&github_schema(), &github(&run, better)), Vec::<String>::new(), "{name}");
            }
        }
        assert!(!errors(&bmf_schema(), r#"{"a":{"b":{"lower_value":1}}}"#).is_empty());
        assert!(!errors(&github_schema(), r#"[{"name":"a","value":1}]"#).is_empty());
    }

    #[test]
    fn a_variant_has_its_measures_with_their_spread_and_each_is_in_one_file_of_two() {
        let run = fixtures::three_modes();
        let value: Value = serde_json::from_str(&bmf(&run)).unwrap();
        let metric = &value["cache-first"]["response-time-p99"];
        let at = |name: &str| metric[name].as_f64().unwrap();
        assert!(at("lower_value") <= at("value") && at("value") <= at("upper_value") && at("value") > 1e5, "{metric}");
        let names = |better| -> Vec<String> {
            let entries: Vec<Value> = serde_json::from_str(&github(&run, better)).unwrap();
            entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
        };
        let (smaller, bigger) = (names(Better::Smaller), names(Better::Bigger));
        assert!(smaller.contains(&"cache-first response-time-p99".to_owned()), "{smaller:?}");
        assert_eq!(bigger, ["null achieved-rate", "cache-first achieved-rate", "db-first achieved-rate"]);
    }
}
