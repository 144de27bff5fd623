//! What a comparison does not say: printed before any of its numbers.

use std::collections::BTreeSet;

use super::build::Input;
use super::{Scenario, Subject};
use crate::format;
use crate::model::Outcome;

/// Rounds below which the intervals say little.
const ROUNDS_MIN: usize = 5;

pub fn sentences(inputs: &[Input], subjects: &[Subject], scenarios: &[Scenario]) -> Vec<String> {
    let mut limits = vec![
        "One machine, one plan, one kind of event. Another payload, another rate or another machine may turn an order round.".to_owned(),
    ];
    if inputs.iter().any(|input| input.run.environment.same_host) {
        limits.push(
            "The generator and the servers shared the machine: what a server takes, the generator and the other processes lack.".to_owned(),
        );
    }
    limits.extend(promises(subjects));
    limits.extend(rounds(scenarios));
    if scenarios.iter().any(|scenario| !scenario.is_paired) {
        limits.push(
            "Some were measured in runs of their own: what the machine did meanwhile is in the ratios. Measure all in one run for rounds that they share."
                .to_owned(),
        );
    }
    limits.extend(revisions(inputs));
    limits.extend(troubles(inputs));
    limits.extend(faults(subjects));
    limits.extend(unused_tests(inputs, subjects));
    if subjects.iter().any(|subject| subject.capacity.is_some()) {
        limits.push(
            "A capacity is one search, not a number with a spread; its curve is drawn from trials of a few seconds each.".to_owned(),
        );
    }
    limits
}

/// A fast answer that promises nothing is not the same as a slow one that promises everything.
fn promises(subjects: &[Subject]) -> Option<String> {
    let known: Vec<(&str, &str)> =
        subjects.iter().filter_map(|s| Some((s.name.as_str(), s.durability.as_deref()?))).collect();
    let kinds: BTreeSet<&str> = known.iter().map(|(_, durability)| *durability).collect();
    let told: Vec<String> = known.iter().map(|(name, durability)| format!("{name}: {durability}")).collect();
    (kinds.len() > 1).then(|| {
        format!("They do not promise the same: what an acknowledgement is worth differs ({}).", told.join(", "))
    })
}

fn rounds(scenarios: &[Scenario]) -> Option<String> {
    let fewest = scenarios.iter().flat_map(|scenario| &scenario.rounds).min()?;
    match fewest {
        1 => Some(
            "Some were measured once: there is no spread, so no interval, and nobody can be told apart there."
                .to_owned(),
        ),
        few if *few < ROUNDS_MIN => Some(format!(
            "{few} rounds are few: intervals are wide, and who seems alike may only be measured too seldom."
        )),
        _ => None,
    }
}

fn revisions(inputs: &[Input]) -> Option<String> {
    let of: BTreeSet<&str> = inputs.iter().map(|input| input.run.tool.revision.as_str()).collect();
    let told: Vec<&str> = of.iter().copied().collect();
    (of.len() > 1).then(|| format!("Measured by different revisions of the tool: {}.", told.join(", ")))
}

fn troubles(inputs: &[Input]) -> Vec<String> {
    let mut told = Vec::new();
    for input in inputs {
        let run = &input.run;
        let reason = run.verdict.reasons.first().map_or("", String::as_str);
        match run.verdict.outcome {
            Outcome::Invalid => told.push(format!("{} is invalid by its own verdict: {reason}", input.name)),
            Outcome::Inconclusive => told.push(format!("{} is inconclusive by its own verdict: {reason}", input.name)),
            Outcome::Pass | Outcome::Missed => {}
        }
        if !run.caveats.is_empty() {
            let kinds: BTreeSet<&str> = run.caveats.iter().map(|caveat| caveat.kind.name()).collect();
            let kinds: Vec<&str> = kinds.into_iter().collect();
            let count = format::counted(run.caveats.len() as u64, "caveat");
            told.push(format!("{} has {count}: {}. Its own report has the numbers.", input.name, kinds.join(", ")));
        }
    }
    told
}

/// Tests of the contract on targets that are not compared, and second ones on a target that has one.
fn unused_tests(inputs: &[Input], subjects: &[Subject]) -> Option<String> {
    let is_shown = |target: &str| subjects.iter().any(|s| s.conformance.as_ref().is_some_and(|c| c.target == target));
    let tested = inputs.iter().flat_map(|input| &input.run.conformance);
    let unused: Vec<&str> = tested.map(|found| found.target.as_str()).filter(|target| !is_shown(target)).collect();
    (!unused.is_empty()).then(|| {
        format!("Tests of the contract that are not shown, since nothing of their names is compared here, or it has one already: {}.", unused.join(", "))
    })
}

fn faults(subjects: &[Subject]) -> Vec<String> {
    let with = subjects.iter().filter(|subject| !subject.faults.is_empty());
    with.map(|s| format!("{} was made to break promises on purpose: {}.", s.name, s.faults.join(", "))).collect()
}
