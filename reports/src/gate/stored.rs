//! A baseline from a file: what of it can be used, and whether it is from a machine and a load like this one.
//!
//! Weak all the same. What the machine is like today is on one side only, and no statistics can tell it from what the candidate did.

use super::model::{Gate, Round};
use crate::model::{Environment, Plan};

/// The rounds of a stored gate that can be a baseline: those of its candidate, which was what there was when it was decided.
pub fn rounds(stored: &Gate) -> Vec<Round> {
    let used = stored.pairs.iter().filter(|pair| pair.left_out.is_none() && pair.candidate.failure.is_none());
    used.map(|pair| pair.candidate.clone()).collect()
}

/// What differs between where and how a stored gate was measured and where and how this one is, as `field: then, now`. Empty: they can be
/// compared.
pub fn unlike(
    stored: &Gate,
    environment: &Environment,
    plan: &Plan,
    capacity_ms: u64,
    build_profile: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |field: &str, then: String, now: String| {
        if then != now {
            found.push(format!("{field}: {then} then, {now} now"));
        }
    };
    let then = &stored.environment;
    // Not the filesystem: it is known only once a server runs.
    compare("environment.os", then.os.clone(), environment.os.clone());
    compare("environment.kernel", then.kernel.clone(), environment.kernel.clone());
    compare("environment.cpu_model", then.cpu_model.clone(), environment.cpu_model.clone());
    compare("environment.cores", then.cores.to_string(), environment.cores.to_string());
    compare("environment.memory_bytes", then.memory_bytes.to_string(), environment.memory_bytes.to_string());
    compare("environment.cpu_governor", text(&then.cpu_governor), text(&environment.cpu_governor));
    compare("environment.virtualization", text(&then.virtualization), text(&environment.virtualization));
    compare("tool.build_profile", stored.tool.build_profile.clone(), build_profile.to_owned());
    compare("capacity_ms", stored.capacity_ms.to_string(), capacity_ms.to_string());
    let (then, now) = (load(&stored.plan), load(plan));
    for (key, then) in &then {
        let now = now.get(key).unwrap_or(&serde_json::Value::Null);
        compare(&format!("plan.{key}"), then.to_string(), now.to_string());
    }
    found
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "unknown".to_owned())
}

/// What of a plan makes a load what it is: not what is loaded, nor which of all its loads it is.
fn load(plan: &Plan) -> serde_json::Map<String, serde_json::Value> {
    let plan = Plan { variants: Vec::new(), seed: 0, name: String::new(), ..plan.clone() };
    match serde_json::to_value(plan) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}
