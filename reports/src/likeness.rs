//! What has to be the same before two results may stand side by side.

use serde_json::Value;

use crate::model::{Environment, Plan, Run};

/// Of a plan: what is no part of what is asked of a target. Everything else must be equal; the rate is looked at apart.
const PLAN_MAY_DIFFER: [&str; 11] = [
    "name",
    "variants",
    "database",
    "faults",
    "objectives",
    "repeat",
    "seed",
    "calibration",
    "ledger_events_max",
    "drain_timeout_ms",
    "rate_per_s",
];

/// What a search for a capacity decides by itself, beside that.
const SEARCH_MAY_DIFFER: [&str; 3] = ["warmup_ms", "duration_ms", "idle_ms"];

/// Of a machine: the folder of the data is a target's own affair.
const MACHINE_MAY_DIFFER: [&str; 2] = ["data_filesystem", "pacing"];

/// Fields in which two results differ that must not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{first} and {second} cannot be compared: {}", fields.join("; "))]
pub struct Unlike {
    /// Source of the one.
    pub first: String,
    /// Source of the other.
    pub second: String,
    /// `plan.connections: 16 and 64`, …
    pub fields: Vec<String>,
}

/// Whether the machines are alike, by what is known of them.
pub fn machines(first: (&str, &Run), second: (&str, &Run)) -> Result<(), Unlike> {
    let environment = |environment: &Environment| serde_json::to_value(environment).unwrap_or(Value::Null);
    let mut fields = differing(
        "environment",
        &environment(&first.1.environment),
        &environment(&second.1.environment),
        &MACHINE_MAY_DIFFER,
    );
    let (one, other) = (&first.1.tool.build_profile, &second.1.tool.build_profile);
    if one != other {
        fields.push(format!("tool.build_profile: {one} and {other}"));
    }
    unlike(first.0, second.0, fields)
}

/// Whether the plans ask for the same, their rates aside.
pub fn plans(first: (&str, &Run), second: (&str, &Run)) -> Result<(), Unlike> {
    // Who was not watched while idle has no number to compare, and no wrong one.
    let both_idle = first.1.plan.idle_ms > 0 && second.1.plan.idle_ms > 0;
    let plan = |plan: &Plan| {
        let idle_ms = if both_idle { plan.idle_ms } else { 0 };
        serde_json::to_value(Plan { idle_ms, ..plan.clone() }).unwrap_or(Value::Null)
    };
    let is_search = !first.1.capacity.is_empty() || !second.1.capacity.is_empty();
    let own: &[&str] = if is_search { &SEARCH_MAY_DIFFER } else { &[] };
    let may_differ = [&PLAN_MAY_DIFFER, own].concat();
    unlike(first.0, second.0, differing("plan", &plan(&first.1.plan), &plan(&second.1.plan), &may_differ))
}

/// Every field in which two plans differ.
pub fn plans_differ(one: &Plan, other: &Plan) -> Vec<String> {
    let value = |plan: &Plan| serde_json::to_value(plan).unwrap_or(Value::Null);
    differing("plan", &value(one), &value(other), &[])
}

fn unlike(first: &str, second: &str, fields: Vec<String>) -> Result<(), Unlike> {
    if fields.is_empty() { Ok(()) } else { Err(Unlike { first: first.to_owned(), second: second.to_owned(), fields }) }
}

fn differing(of: &str, one: &Value, other: &Value, may_differ: &[&str]) -> Vec<String> {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return Vec::new() };
    let looked_at = one.iter().filter(|(key, _)| !may_differ.contains(&key.as_str()));
    let differ = looked_at.filter(|(key, value)| other.get(*key) != Some(value));
    let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    differ.map(|(key, value)| format!("{of}.{key}: {value} and {}", text(other.get(key)))).collect()
}
