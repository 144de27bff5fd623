//! What to think of a run, in one word, with reasons and an exit code.
//!
//! The order: a proven loss, duplicate or corruption is never hidden (missed); then what makes the run say nothing (invalid);
//! then objectives missed; then what leaves it open (inconclusive); else pass.

use crate::capacity;
use crate::caveat;
use crate::conform;
use crate::crash;
use crate::format;
use crate::model::{
    Capacity, Conformance, CrashTest, ObjectiveResult, Outcome, RuleOutcome, Run, TargetResult, Verdict,
};
use crate::objective;

/// More than this share of planned events not accepted leaves a run open, unless an objective speaks of it: percentiles of
/// the rest do not make up for it.
pub const NOT_ACCEPTED_SHARE_MAX: f64 = 0.01;

impl Outcome {
    /// As results call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Missed => "missed",
            Self::Invalid => "invalid",
        }
    }

    /// The documented exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Missed => 3,
            Self::Inconclusive => 4,
            Self::Invalid => 5,
        }
    }
}

/// Fills in objectives, caveats and verdict, in the order in which they depend on one another.
pub fn assess(run: &mut Run) {
    run.objectives = objective::evaluate(run);
    run.caveats = caveat::find(run);
    run.verdict = decide(run);
}

/// The verdict on a search for capacities: the results are only the confirmations, and say no more than that.
fn decide_capacity(run: &Run) -> Verdict {
    let all = || run.capacity.iter();
    let mut invalid: Vec<String> = all().filter(|found| found.is_generator_at_fault).map(capacity::sentence).collect();
    if run.interrupted {
        invalid.push("interrupted before its end".to_owned());
    }
    let outcome = if !invalid.is_empty() {
        Outcome::Invalid
    } else if all().any(capacity::is_missed) {
        Outcome::Missed
    } else if all().any(capacity::is_open) {
        Outcome::Inconclusive
    } else {
        Outcome::Pass
    };
    let below = |found: &&Capacity| capacity::is_missed(found);
    let wanted = |found: &Capacity| {
        let wanted = found.fail_under_per_s.map(format::rate).unwrap_or_default();
        format!("{}: less than the {wanted} that were asked for", found.variant)
    };
    let reasons = match outcome {
        Outcome::Invalid => invalid,
        _ => all().filter(below).map(wanted).chain(all().map(capacity::sentence)).collect(),
    };
    Verdict { outcome, reasons, exit_code: outcome.exit_code() }
}

/// The verdict on a run that killed servers: a proven fault before all, then what says nothing, then what leaves it open.
fn decide_crash(run: &Run) -> Verdict {
    let of = |read: fn(&CrashTest) -> Option<String>| run.crash.iter().filter_map(read).collect::<Vec<String>>();
    let proven = of(crash::fault);
    let mut invalid = of(crash::said_nothing);
    if run.interrupted {
        invalid.push("interrupted before its end".to_owned());
    }
    let open = of(crash::open);
    let (outcome, reasons) = if !proven.is_empty() {
        (Outcome::Missed, [proven, invalid, open].concat())
    } else if !invalid.is_empty() {
        (Outcome::Invalid, invalid)
    } else if !open.is_empty() {
        (Outcome::Inconclusive, open)
    } else {
        (Outcome::Pass, run.crash.iter().map(crash::sentence).collect())
    };
    Verdict { outcome, reasons, exit_code: outcome.exit_code() }
}

/// The verdict on a test of the contract: a broken rule before all, then targets that could not be tested, then those of which nothing
/// is known. What was not tested is told, and is no pass by itself.
fn decide_conformance(run: &Run) -> Verdict {
    let all = &run.conformance;
    let has = |found: &Conformance, outcome| !conform::with(found, outcome).is_empty();
    let outcome = if all.iter().any(|found| has(found, RuleOutcome::Failed)) {
        Outcome::Missed
    } else if run.interrupted || all.iter().any(|found| found.failure.is_some()) {
        Outcome::Invalid
    } else if !all.iter().all(|found| has(found, RuleOutcome::Passed)) {
        Outcome::Inconclusive
    } else {
        Outcome::Pass
    };
    let mut reasons: Vec<String> = all.iter().map(conform::sentence).collect();
    if run.interrupted {
        reasons.push("interrupted before its end".to_owned());
    }
    Verdict { outcome, reasons, exit_code: outcome.exit_code() }
}

/// The verdict on a run whose objectives and caveats are filled in.
pub fn decide(run: &Run) -> Verdict {
    if !run.capacity.is_empty() {
        return decide_capacity(run);
    }
    if !run.crash.is_empty() {
        return decide_crash(run);
    }
    if !run.conformance.is_empty() && run.results.is_empty() {
        return decide_conformance(run);
    }
    let proven = proven(run);
    let invalid = invalid(run);
    let missed: Vec<String> = run.objectives.iter().filter(|o| o.met == Some(false)).map(objective::sentence).collect();
    let open = open(run);
    let outcome = if !proven.is_empty() {
        Outcome::Missed
    } else if !invalid.is_empty() {
        Outcome::Invalid
    } else if !missed.is_empty() {
        Outcome::Missed
    } else if !open.is_empty() {
        Outcome::Inconclusive
    } else {
        Outcome::Pass
    };
    let reasons = match outcome {
        Outcome::Pass => praise(run),
        Outcome::Invalid => invalid,
        _ => [proven, invalid, missed, open].concat(),
    };
    Verdict { outcome, reasons, exit_code: outcome.exit_code() }
}

fn subject(run: &Run, r: &TargetResult) -> String {
    if run.plan.repeat > 1 { format!("{} #{}", r.target, r.repetition) } else { r.target.clone() }
}

/// Whether a caveat's subject, `variant` or `variant #repetition`, is this repetition.
fn is_about(subject: &str, r: &TargetResult) -> bool {
    subject == r.target || subject == format!("{} #{}", r.target, r.repetition)
}

/// Losses, duplicates and corruptions, one sentence a repetition.
fn proven(run: &Run) -> Vec<String> {
    let mut sentences = Vec::new();
    for r in &run.results {
        let of = r.ledger.as_ref().map(|l| format!("of {}", format::counted(l.acknowledged, "acknowledged event")));
        let mut add = |n: u64, what: &str| {
            if n > 0 {
                sentences.push(format!(
                    "{}: {} {} {what}",
                    subject(run, r),
                    format::count(n),
                    of.as_deref().unwrap_or("events")
                ));
            }
        };
        match &r.ledger {
            Some(ledger) => {
                add(ledger.lost, "were lost");
                add(ledger.duplicated, "were duplicated");
                add(ledger.corrupted, "were stored with another content than was sent");
                if let Some(delivery) = &ledger.delivery {
                    add(delivery.undelivered, "were not delivered to their webhook");
                    add(delivery.altered, "were delivered with another content than was sent");
                    add(delivery.badly_signed.unwrap_or(0), "were delivered without a valid signature");
                }
            }
            None => add(r.load.repeats.accepted, "were repeats and acknowledged again"),
        }
    }
    sentences
}

/// What makes the run say nothing about the target.
fn invalid(run: &Run) -> Vec<String> {
    let mut sentences = Vec::new();
    for caveat in run.caveats.iter().filter(|c| c.invalidates) {
        let on = caveat.subject.as_ref().map(|s| format!("{s}: ")).unwrap_or_default();
        sentences.push(format!("{on}{}: {}", caveat.kind.name(), caveat.detail));
    }
    if run.interrupted && !sentences.iter().any(|s| s.contains("interrupted")) {
        sentences.push("interrupted before its end".to_owned());
    }
    let expected = run.plan.variants.len() * run.plan.repeat.max(1) as usize;
    if run.results.is_empty() {
        sentences.push("there are no results".to_owned());
    } else if run.results.len() < expected && !run.interrupted {
        sentences.push(format!("only {} of {expected} planned repetitions have a result", run.results.len()));
    }
    for r in &run.results {
        let doubted = run.caveats.iter().any(|c| c.invalidates && c.subject.as_deref().is_some_and(|s| is_about(s, r)));
        match &r.failure {
            Some(failure) if !doubted => sentences.push(format!("{}: ended early: {failure}", subject(run, r))),
            None if r.load.outcomes.accepted == 0 && !doubted => {
                sentences.push(format!("{}: no event was accepted", subject(run, r)))
            }
            _ => {}
        }
        let (planned, total) = (r.load.planned, r.load.outcomes.total());
        if planned != total {
            let (planned, total) = (format::count(planned), format::count(total));
            sentences.push(format!("{}: {planned} events were planned and {total} have an outcome", subject(run, r)));
        }
    }
    sentences
}

/// What leaves the run open.
fn open(run: &Run) -> Vec<String> {
    let undecided = run.objectives.iter().filter(|o| o.met.is_none());
    let mut sentences: Vec<String> = undecided.map(objective::sentence).collect();
    for r in &run.results {
        if let Some(ledger) = r.ledger.as_ref().filter(|l| l.unverified > 0) {
            let of = format::counted(ledger.acknowledged, "acknowledged event");
            sentences.push(format!(
                "{}: {} of {of} could not be verified",
                subject(run, r),
                format::count(ledger.unverified)
            ));
        }
        if r.ledger.is_none() && run.plan.ledger && r.mode.as_deref() != Some("null") && r.load.outcomes.accepted > 0 {
            sentences.push(format!(
                "{}: what is persisted could not be read, so losses would not have been seen",
                subject(run, r)
            ));
        }
        let share = r.load.not_accepted() as f64 / r.load.planned.max(1) as f64;
        if share > NOT_ACCEPTED_SHARE_MAX && !run.objectives.iter().any(|o| allows_refusals(o, &r.target)) {
            sentences.push(format!(
                "{}: {} of the planned events were not accepted ({}), and no objective says how many may be",
                subject(run, r),
                format::percent(share),
                caveat::what_went_wrong(r)
            ));
        }
    }
    sentences
}

/// Whether the objective was met on the variant and speaks of how many events are accepted.
fn allows_refusals(result: &ObjectiveResult, variant: &str) -> bool {
    let of_acceptance = objective::parse(&result.expression).is_ok_and(|o| o.metric.is_about_acceptance());
    of_acceptance && result.met == Some(true) && result.variant == variant
}

/// What a pass rests on.
fn praise(run: &Run) -> Vec<String> {
    let mut sentences = Vec::new();
    match run.objectives.len() {
        0 if run.shard.is_some() => {
            sentences.push("objectives are judged on all parts of the load together (loadgen merge)".to_owned());
        }
        0 => sentences.push("no objective was set".to_owned()),
        n => sentences.push(format!("{} met", format::counted(n as u64, "objective"))),
    }
    let ledgers: Vec<_> = run.results.iter().filter_map(|r| r.ledger.as_ref()).collect();
    let acknowledged: u64 = ledgers.iter().map(|l| l.acknowledged).sum();
    if acknowledged > 0 {
        let kept = format::counted(acknowledged, "acknowledged event");
        sentences.push(format!("{kept} persisted once each: nothing lost, nothing duplicated"));
        let deliveries: Vec<_> = ledgers.iter().filter_map(|l| Some((l.delivered?, l.delivery.as_ref()?))).collect();
        if !deliveries.is_empty() {
            let delivered: u64 = deliveries.iter().map(|(delivered, _)| delivered).sum();
            let repeated: u64 = deliveries.iter().map(|(_, delivery)| delivery.repeated).sum();
            let text = format!(
                "{} delivered to webhooks, {} again",
                format::counted(delivered, "event"),
                format::count(repeated)
            );
            sentences.push(text);
        }
    } else {
        sentences.push("nobody checked that acknowledged events were kept".to_owned());
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::model::{Delivery, KillKind, Ledger};

    fn ledger(run: &mut Run) -> &mut Ledger {
        run.results[1].ledger.as_mut().unwrap()
    }

    /// Of a run in which delivery was asked for.
    fn delivery(run: &mut Run) -> &mut Delivery {
        let signed = Delivery { badly_signed: Some(0), ..Delivery::default() };
        ledger(run).delivery.get_or_insert(signed)
    }

    type Change = fn(&mut Run);

    fn check(cases: &[(&str, Change, Outcome)]) {
        for (name, change, expected) in cases {
            let mut run = fixtures::three_modes();
            change(&mut run);
            assess(&mut run);
            assert_eq!(run.verdict.outcome, *expected, "{name}: {:#?}", run.verdict);
            assert_eq!(run.verdict.exit_code, expected.exit_code());
            assert!(!run.verdict.reasons.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_proven_loss_comes_before_all_and_what_says_nothing_is_invalid() {
        check(&[
            ("nothing is wrong", |_| {}, Outcome::Pass),
            ("one event is lost", |run| ledger(run).lost = 1, Outcome::Missed),
            ("one event is duplicated", |run| ledger(run).duplicated = 1, Outcome::Missed),
            ("one event is not delivered", |run| delivery(run).undelivered = 1, Outcome::Missed),
            ("one event is delivered altered", |run| delivery(run).altered = 1, Outcome::Missed),
            ("one delivery is badly signed", |run| delivery(run).badly_signed = Some(1), Outcome::Missed),
            (
                "one event is delivered twice, and out of order",
                |run| {
                    (delivery(run).repeated, delivery(run).out_of_order) = (1, 1);
                },
                Outcome::Pass,
            ),
            ("one event is altered", |run| ledger(run).corrupted = 1, Outcome::Missed),
            (
                "a repeat is acknowledged and nobody looks at the store",
                |run| {
                    (run.results[1].ledger, run.results[1].load.repeats.accepted, run.plan.ledger) = (None, 1, false);
                },
                Outcome::Missed,
            ),
            (
                "one event is lost in a run that was interrupted",
                |run| (ledger(run).lost, run.interrupted) = (1, true),
                Outcome::Missed,
            ),
            ("interrupted", |run| run.interrupted = true, Outcome::Invalid),
            ("no results", |run| run.results.clear(), Outcome::Invalid),
            ("a repetition is missing", |run| drop(run.results.pop()), Outcome::Invalid),
            (
                "the target ended early",
                |run| run.results[1].failure = Some("it went away".to_owned()),
                Outcome::Invalid,
            ),
            ("an event vanished from the outcomes", |run| run.results[1].load.planned += 1, Outcome::Invalid),
            (
                "nothing accepted and an objective missed",
                |run| {
                    let outcomes = &mut run.results[1].load.outcomes;
                    (outcomes.failed, outcomes.accepted) = (outcomes.accepted, 0);
                },
                Outcome::Invalid,
            ),
        ]);
    }

    #[test]
    fn a_missed_objective_comes_before_what_is_left_open() {
        check(&[
            (
                "an objective is missed",
                |run| run.plan.objectives = vec!["response_time.p50 < 1us".to_owned()],
                Outcome::Missed,
            ),
            (
                "an objective cannot be read",
                |run| run.plan.objectives = vec!["so fast".to_owned()],
                Outcome::Inconclusive,
            ),
            ("one event is unverified", |run| ledger(run).unverified = 1, Outcome::Inconclusive),
            (
                "the ledger was asked for and is not there",
                |run| {
                    run.results[1].ledger = None;
                    run.plan.objectives.clear();
                },
                Outcome::Inconclusive,
            ),
            (
                "the ledger was left out on request",
                |run| {
                    run.results.iter_mut().for_each(|r| r.ledger = None);
                    run.plan.ledger = false;
                    run.plan.objectives.clear();
                },
                Outcome::Pass,
            ),
        ]);
    }

    #[test]
    fn refusals_leave_a_run_open_unless_an_objective_allows_them() {
        let mut run = fixtures::three_modes();
        run.plan.objectives = vec!["response_time.p99 < 1s".to_owned()];
        let outcomes = &mut run.results[1].load.outcomes;
        (outcomes.accepted, outcomes.failed) = (outcomes.accepted - 300, 300);
        assess(&mut run);
        assert_eq!(run.verdict.outcome, Outcome::Inconclusive);
        run.plan.objectives.push("load.not_accepted_ratio < 5%".to_owned());
        assess(&mut run);
        assert_eq!(run.verdict.outcome, Outcome::Pass, "{:?}", run.verdict);
    }

    #[test]
    fn a_search_is_judged_by_what_it_found() {
        let cases: [(&str, Change, Outcome); 6] = [
            ("found", |_| {}, Outcome::Pass),
            ("less than was asked for", |run| run.capacity[0].fail_under_per_s = Some(2_500.0), Outcome::Missed),
            ("as much as was asked for", |run| run.capacity[0].fail_under_per_s = Some(1_500.0), Outcome::Pass),
            ("nothing held", |run| run.capacity[0].rate_per_s = None, Outcome::Inconclusive),
            (
                "the generator gave up first",
                |run| (run.capacity[0].rate_per_s, run.capacity[0].is_generator_at_fault) = (None, true),
                Outcome::Invalid,
            ),
            ("interrupted", |run| run.interrupted = true, Outcome::Invalid),
        ];
        for (name, change, expected) in cases {
            let mut run = fixtures::capacity();
            change(&mut run);
            assess(&mut run);
            assert_eq!(run.verdict.outcome, expected, "{name}: {:#?}", run.verdict);
            assert!(!run.verdict.reasons.is_empty(), "{name}");
        }
    }

    #[test]
    fn kills_are_judged_by_what_was_promised() {
        let keeps = || fixtures::crash_test("db-first on sqlite", KillKind::Power, "database", &[0, 0]);
        type Change = fn(&mut CrashTest);
        let cases: [(&str, Change, Outcome); 7] = [
            ("nothing lost", |_| {}, Outcome::Pass),
            ("lost", |test| test.lost = 1, Outcome::Missed),
            ("lost by design", |test| (test.lost, test.durability) = (1, Some("memory".to_owned())), Outcome::Pass),
            ("lost as expected", |test| (test.lost, test.losses_expected) = (1, true), Outcome::Pass),
            ("not lost as expected", |test| test.losses_expected = true, Outcome::Inconclusive),
            ("unverified", |test| test.unverified = 1, Outcome::Inconclusive),
            ("nothing acknowledged", |test| test.acknowledged = 0, Outcome::Invalid),
        ];
        for (what, change, outcome) in cases {
            let mut run = fixtures::crash();
            run.crash = vec![keeps(), keeps()];
            change(&mut run.crash[1]);
            assess(&mut run);
            assert_eq!(run.verdict.outcome, outcome, "{what}: {:?}", run.verdict.reasons);
            run.interrupted = true;
            assess(&mut run);
            let proven = outcome == Outcome::Missed;
            assert_eq!(run.verdict.outcome, if proven { outcome } else { Outcome::Invalid }, "{what}, interrupted");
        }
    }

    #[test]
    fn a_broken_rule_comes_before_all_and_what_was_not_tested_is_no_pass() {
        use RuleOutcome::{Failed, NotClaimed, NotTestable, Passed};
        for (outcomes, failure, interrupted, expected) in [
            (&[Passed, NotClaimed, NotTestable][..], None, false, Outcome::Pass),
            (&[Passed, Failed], None, false, Outcome::Missed),
            (&[Passed, Failed], Some("it went away"), true, Outcome::Missed),
            (&[Passed], Some("it went away"), false, Outcome::Invalid),
            (&[Passed], None, true, Outcome::Invalid),
            (&[], Some("connection refused"), false, Outcome::Invalid),
            (&[NotClaimed, NotTestable], None, false, Outcome::Inconclusive),
        ] {
            let mut run = fixtures::conform();
            let mut found = fixtures::conformance("a target", outcomes);
            found.failure = failure.map(str::to_owned);
            (run.conformance, run.interrupted) = (vec![found], interrupted);
            assess(&mut run);
            assert_eq!(run.verdict.outcome, expected, "{outcomes:?} {failure:?} {interrupted}: {:?}", run.verdict);
            assert!(!run.verdict.reasons.is_empty());
        }
    }

    #[test]
    fn assessing_twice_changes_nothing() {
        for (_, mut run) in fixtures::all() {
            let once = run.clone();
            assess(&mut run);
            assert_eq!(run, once);
        }
    }
}
