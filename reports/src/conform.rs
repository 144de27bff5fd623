//! The rules of the contract (CONTRACT.md), and what a test of them says of a target.

use crate::format;
use crate::model::{Conformance, RuleOutcome, RuleResult, Run};

/// One rule: `id` is how CONTRACT.md, tables and JUnit name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum Rule {
    A1,
    A2,
    A3,
    A4,
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    R1,
    R2,
    D1,
    D2,
    O1,
    O2,
    O3,
    O4,
    O5,
}

impl Rule {
    /// All, in the contract's order.
    pub const ALL: [Self; 21] = [
        Self::A1,
        Self::A2,
        Self::A3,
        Self::A4,
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::R1,
        Self::R2,
        Self::D1,
        Self::D2,
        Self::O1,
        Self::O2,
        Self::O3,
        Self::O4,
        Self::O5,
    ];

    /// `A1` to `O5`.
    pub fn id(self) -> String {
        format!("{self:?}")
    }

    /// The rule of this id.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.id() == id)
    }

    /// What it is about, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::A1 => "keys are made",
            Self::A2 => "no route without a key",
            Self::A3 => "keys are shown hidden, and rotated",
            Self::A4 => "rate limits by tier",
            Self::I1 => "an event is acknowledged",
            Self::I2 => "one event per dedup_id",
            Self::I3 => "retries by Idempotency-Key",
            Self::I4 => "bad fields are named",
            Self::I5 => "too large, or no JSON",
            Self::I6 => "a full server says so",
            Self::I7 => "batches",
            Self::I8 => "payloads come back as sent",
            Self::R1 => "one event is read",
            Self::R2 => "the inbox",
            Self::D1 => "webhooks are delivered",
            Self::D2 => "webhooks do not lead inside",
            Self::O1 => "health",
            Self::O2 => "metrics",
            Self::O3 => "errors are problems",
            Self::O4 => "the OpenAPI document",
            Self::O5 => "SIGTERM",
        }
    }
}

/// Title of a rule by its id; the id itself where a later version knows more rules.
pub fn title(id: &str) -> &str {
    Rule::from_id(id).map_or(id, |rule| rule.title())
}

/// An outcome as people read it.
pub fn word(outcome: RuleOutcome) -> &'static str {
    match outcome {
        RuleOutcome::Passed => "passed",
        RuleOutcome::Failed => "FAILED",
        RuleOutcome::NotClaimed => "not claimed",
        RuleOutcome::NotTestable => "not testable here",
    }
}

/// Rules of this outcome.
pub fn with(found: &Conformance, outcome: RuleOutcome) -> Vec<&RuleResult> {
    found.rules.iter().filter(|rule| rule.outcome == outcome).collect()
}

/// Clauses of all rules that could not be tested, as `I2: across a restart`.
pub fn untested_clauses(found: &Conformance) -> usize {
    found.rules.iter().map(|rule| rule.untested.len()).sum()
}

/// Ids of the rules that were looked at, in the order in which they come.
pub fn ids(run: &Run) -> Vec<&str> {
    let mut ids: Vec<&str> = Vec::new();
    for rule in run.conformance.iter().flat_map(|found| &found.rules) {
        if !ids.contains(&rule.id.as_str()) {
            ids.push(&rule.id);
        }
    }
    ids
}

/// Everything that could not be tested, and with which targets: `I2: across a restart: it was not started here`, `a, b`.
pub fn untested(run: &Run) -> Vec<(String, String)> {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for found in &run.conformance {
        let reasons = found.rules.iter().filter_map(|rule| Some(format!("{}: {}", rule.id, rule.reason.as_ref()?)));
        let clauses = found
            .rules
            .iter()
            .flat_map(|rule| rule.untested.iter().map(|open| format!("{}: {}: {}", rule.id, open.clause, open.reason)));
        for what in reasons.chain(clauses) {
            match all.iter_mut().find(|(known, _)| *known == what) {
                Some((_, who)) => who.push(&found.target),
                None => all.push((what, vec![&found.target])),
            }
        }
    }
    all.into_iter().map(|(what, who)| (what, who.join(", "))).collect()
}

/// The target in one sentence.
pub fn sentence(found: &Conformance) -> String {
    if let Some(failure) = &found.failure {
        return format!("{}: {failure}", found.target);
    }
    let ids = |outcome| {
        let ids: Vec<&str> = with(found, outcome).iter().map(|rule| rule.id.as_str()).collect();
        (!ids.is_empty()).then(|| format!("{} {}", word(outcome), ids.join(", ")))
    };
    let passed = with(found, RuleOutcome::Passed).len();
    let rules = format::counted(found.rules.len() as u64, "rule");
    let rest = [RuleOutcome::Failed, RuleOutcome::NotTestable, RuleOutcome::NotClaimed].into_iter().filter_map(ids);
    let parts: Vec<String> = std::iter::once(format!("{passed} of {rules} passed")).chain(rest).collect();
    let untested = match untested_clauses(found) {
        0 => String::new(),
        n => format!("; {} of them could not be tested here", format::counted(n as u64, "clause")),
    };
    format!("{}: {}{untested}", found.target, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::conformance;

    #[test]
    fn the_sentence_names_what_failed_and_what_was_not_tested() {
        use RuleOutcome::{Failed, NotTestable, Passed};
        let mut found = conformance("a target", &[Passed, Failed, NotTestable]);
        assert_eq!(
            sentence(&found),
            "a target: 1 of 3 rules passed, FAILED A2, not testable here A3; 1 clause of them could not be tested here"
        );
        found.failure = Some("connection refused".to_owned());
        assert_eq!(sentence(&found), "a target: connection refused");
    }
}
