//! What was found of one rule, clause by clause.
//!
//! A check goes on after a clause that does not hold, so that one test shows everything that is broken; it ends where nothing more can
//! be asked ([`Stop`]).

use reports::conform::Rule;
use reports::model::{ClauseFailure, ClauseUntested, RuleOutcome, RuleResult};
use serde_json::Value;

use super::door::Exchange;

/// Characters of an answer or a request that are shown.
pub const SHOWN_CHARACTERS_MAX: usize = 300;

/// How a rule's check ends.
pub type Done = Result<(), Stop>;

/// Why a check cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A request got no answer, or not a whole one.
    NoAnswer {
        /// What was asked.
        request: String,
        /// What happened.
        reason: String,
    },
    /// What the rest of the check needs could not be had; whether that breaks a rule is for that rule's own check.
    Blocked(String),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sheet {
    passed: Vec<String>,
    failures: Vec<ClauseFailure>,
    untested: Vec<ClauseUntested>,
}

impl Sheet {
    /// Notes whether a clause holds in this exchange.
    pub fn check(&mut self, clause: &str, holds: bool, expected: impl Into<String>, seen: &Exchange) {
        self.note(clause, holds, expected, || (seen.answer(), seen.request.clone()));
    }

    /// The answer has this status.
    pub fn status(&mut self, clause: &str, seen: &Exchange, expected: u16) {
        self.check(clause, seen.status == expected, expected.to_string(), seen);
    }

    /// The answer's JSON has this value at `pointer` (RFC 6901).
    pub fn member(&mut self, clause: &str, seen: &Exchange, pointer: &str, expected: &Value) {
        let holds = seen.json().pointer(pointer) == Some(expected);
        self.check(clause, holds, format!("{pointer} is {expected}"), seen);
    }

    /// Notes whether a clause holds that is about more than one exchange.
    pub fn told(&mut self, clause: &str, holds: bool, expected: &str, got: impl Into<String>, request: &str) {
        self.note(clause, holds, expected, || (got.into(), request.to_owned()));
    }

    fn note(
        &mut self,
        clause: &str,
        holds: bool,
        expected: impl Into<String>,
        seen: impl FnOnce() -> (String, String),
    ) {
        // A clause that is tried several times is one clause, and broken when it was broken once.
        if self.failures.iter().any(|failure| failure.clause == clause) {
            return;
        }
        if holds {
            if !self.passed.iter().any(|passed| passed == clause) {
                self.passed.push(clause.to_owned());
            }
            return;
        }
        self.passed.retain(|passed| passed != clause);
        let (got, request) = seen();
        self.failures.push(ClauseFailure { clause: clause.to_owned(), expected: expected.into(), got, request });
    }

    /// A clause that cannot be tested here.
    pub fn untested(&mut self, clause: &str, reason: &str) {
        self.untested.push(ClauseUntested { clause: clause.to_owned(), reason: reason.to_owned() });
    }

    /// What it all means. A rule of which no clause was tested is not testable here.
    pub fn finish(mut self, rule: Rule, done: Done) -> RuleResult {
        let reason = match done {
            Ok(()) => None,
            Err(Stop::Blocked(reason)) => Some(reason),
            Err(Stop::NoAnswer { request, reason }) => {
                self.note("every request is answered", false, "an answer", || (reason, request));
                None
            }
        };
        let outcome = match (self.failures.is_empty(), self.passed.is_empty()) {
            (false, _) => RuleOutcome::Failed,
            // What was begun and could not be ended has shown nothing.
            (true, false) if reason.is_none() => RuleOutcome::Passed,
            (true, _) => RuleOutcome::NotTestable,
        };
        let reason = reason.or_else(|| {
            let nothing = outcome == RuleOutcome::NotTestable && self.untested.is_empty();
            nothing.then(|| "there is nothing to test".to_owned())
        });
        RuleResult {
            id: rule.id(),
            outcome,
            reason,
            passed: self.passed,
            failures: self.failures,
            untested: self.untested,
        }
    }
}

/// Of a rule that the target does not claim to keep.
pub fn not_claimed(rule: Rule) -> RuleResult {
    RuleResult {
        id: rule.id(),
        outcome: RuleOutcome::NotClaimed,
        reason: None,
        passed: Vec::new(),
        failures: Vec::new(),
        untested: Vec::new(),
    }
}

/// At most [`SHOWN_CHARACTERS_MAX`] characters of a text, on one line.
pub fn cut(text: &str) -> String {
    let mut short: String =
        text.chars().take(SHOWN_CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARACTERS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(done: Done, fill: impl FnOnce(&mut Sheet)) -> (RuleOutcome, usize) {
        let mut sheet = Sheet::default();
        fill(&mut sheet);
        let result = sheet.finish(Rule::A1, done);
        (result.outcome, result.failures.len())
    }

    #[test]
    fn a_rule_is_passed_only_when_something_was_tested_and_to_its_end() {
        let told = |sheet: &mut Sheet, clause: &str, holds| sheet.told(clause, holds, "x", "y", "GET /");
        let blocked = || Err(Stop::Blocked("no key".to_owned()));
        let silent = || Err(Stop::NoAnswer { request: "GET /".to_owned(), reason: "reset".to_owned() });
        assert_eq!(outcome(Ok(()), |sheet| told(sheet, "a", true)), (RuleOutcome::Passed, 0));
        assert_eq!(outcome(Ok(()), |_| {}), (RuleOutcome::NotTestable, 0));
        assert_eq!(outcome(blocked(), |sheet| told(sheet, "a", true)), (RuleOutcome::NotTestable, 0));
        assert_eq!(outcome(blocked(), |sheet| told(sheet, "a", false)), (RuleOutcome::Failed, 1));
        assert_eq!(outcome(silent(), |sheet| told(sheet, "a", true)), (RuleOutcome::Failed, 1));
    }

    #[test]
    fn a_clause_that_was_broken_once_stays_broken_and_is_told_once() {
        let mut sheet = Sheet::default();
        for holds in [true, false, true, false] {
            sheet.told("a", holds, "x", "y", "GET /");
        }
        let result = sheet.finish(Rule::A1, Ok(()));
        assert_eq!((result.passed.len(), result.failures.len()), (0, 1));
    }
}
