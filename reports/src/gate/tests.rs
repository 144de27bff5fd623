//! The whole rule, on pairs that are made up: what passes, what does not, and how often chance alone makes it fail.

use super::judge::{Next, conclude, confirmation, flagged, next};
use super::model::{Gate, GateOutcome, GateVerdict, Gated, Metric, Pair, Round, Rule, SCHEMA, Side};
use super::rule::ALPHA;
use super::{file, show, stored};
use crate::fixtures;
use crate::model::Realtime;

const P50: Metric = Metric::ResponseTimeP50;

/// Normally distributed numbers, the same every time.
struct Chance(u64);

impl Chance {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

fn round(factor: f64) -> Round {
    Round {
        planned: 10_000,
        accepted: 10_000,
        samples: 10_000,
        response_time_ns_p50: Some(200_000.0 * factor),
        response_time_ns_p99: Some(900_000.0 * factor),
        response_time_ns_p999: Some(3e6 * factor),
        capacity_per_s: Some(20_000.0 / factor),
        time_to_durable_ns_p50: Some(5e6 * factor),
        cpu_ns_per_event: Some(25_000.0 * factor),
        memory_bytes_peak: Some(60e6 * factor),
        idle_sql_statements: Some(10.0),
        acknowledged: Some(12_000),
        ..Round::default()
    }
}

fn side(name: &str) -> Side {
    Side {
        name: name.to_owned(),
        command: vec![name.to_owned(), "serve".to_owned()],
        program_sha256: Some(name.to_owned()),
        version: None,
        faults: Vec::new(),
    }
}

fn gate(rule: Rule, pairs: Vec<Pair>) -> Gate {
    let run = fixtures::three_modes();
    Gate {
        schema: SCHEMA.to_owned(),
        gate_id: "g".to_owned(),
        tool: run.tool,
        command: Vec::new(),
        started_at: run.started_at,
        seconds: 1.0,
        interrupted: false,
        environment: run.environment,
        baseline: side("old"),
        candidate: side("new"),
        plan: run.plan,
        capacity_ms: 1_000,
        rule,
        pairs,
        confirmation: None,
        stored_baseline: None,
        metrics: Vec::new(),
        verdict: GateVerdict {
            outcome: GateOutcome::Invalid,
            reasons: Vec::new(),
            exit_code: 5,
            look: 0,
            pairs_used: 0,
            pairs_left_out: 0,
        },
    }
}

/// Runs pairs as long as the rule wants them; `candidate` makes the candidate's round of the n-th pair.
fn run(rule: &Rule, mut candidate: impl FnMut(u32) -> Round) -> Vec<Pair> {
    let mut pairs = Vec::new();
    while let Next::Run { order, seed } = next(rule, &pairs) {
        let number = pairs.len() as u32 + 1;
        let (baseline, candidate) = (round(1.0), candidate(number));
        let left_out = rule.spoiled.why(&baseline, &candidate);
        pairs.push(Pair { number, order, seed, left_out, baseline, candidate });
    }
    pairs
}

fn concluded(rule: &Rule, candidate: impl FnMut(u32) -> Round) -> Gate {
    let mut gate = gate(rule.clone(), run(rule, candidate));
    let flagged = flagged(rule, &gate.pairs);
    if rule.confirm && !flagged.is_empty() {
        let again = rule.of_confirmation(&flagged);
        gate.confirmation = Some(confirmation(&again, &flagged, gate.pairs.clone()));
    }
    conclude(&mut gate);
    gate
}

fn rule(metrics: &[Metric]) -> Rule {
    Rule::new(metrics.iter().map(|metric| metric.gated()).collect(), 20, 1)
}

/// Around `shift` as log ratio, without two equal ones.
fn around(shift: f64, spread: f64) -> impl FnMut(u32) -> Round {
    move |number| round((shift + spread * (f64::from(number % 7) - 3.0 + f64::from(number) / 100.0)).exp())
}

#[test]
fn each_verdict_has_its_exit_code() {
    for (name, shift, spread, expected, look) in [
        ("the same", 0.0, 0.001, GateOutcome::Pass, 1),
        ("20 % worse", 0.2, 0.001, GateOutcome::Regressed, 1),
        ("20 % better", -0.2, 0.001, GateOutcome::Improved, 1),
        ("worse, within the margin", 0.03, 0.001, GateOutcome::Pass, 1),
        ("6 % worse", 0.06, 0.006, GateOutcome::Regressed, 2),
        ("anything", 0.04, 0.1, GateOutcome::Inconclusive, 2),
    ] {
        let gate = concluded(&rule(&[P50, Metric::Capacity]), around(shift, spread));
        assert_eq!((gate.verdict.outcome, gate.verdict.look), (expected, look), "{name}: {:#?}", gate.verdict);
        assert_eq!(gate.verdict.exit_code, expected.exit_code());
        assert!(!gate.verdict.reasons.is_empty());
        assert_eq!(gate.metrics.iter().filter(|result| result.gated).count(), 2);
        assert!(gate.metrics.len() > 2, "the others are told too");
    }
}

#[test]
fn events_that_are_lost_or_doubled_decide_alone() {
    type Change = fn(&mut Round);
    let changes: [Change; 3] = [|round| round.lost = 1, |round| round.duplicated = 1, |round| round.corrupted = 1];
    for change in changes {
        let mut better = around(-0.5, 0.001);
        let gate = concluded(&rule(&[P50]), |number| {
            let mut round = better(number);
            if number == 3 {
                change(&mut round);
                // Left out or not: what is lost is lost.
                round.steal_share = Some(0.5);
            }
            round
        });
        assert_eq!(gate.verdict.outcome, GateOutcome::Regressed, "{:#?}", gate.verdict);
        assert_eq!(gate.pairs.len(), 3, "nothing more has to be known");
    }
}

#[test]
fn a_baseline_that_loses_is_said_and_the_candidate_judged() {
    let mut good = gate(rule(&[P50]), run(&rule(&[P50]), around(0.0, 0.001)));
    good.pairs[0].baseline.lost = 5;
    conclude(&mut good);
    assert_eq!(good.verdict.outcome, GateOutcome::Pass);
    assert!(good.verdict.reasons.iter().any(|reason| reason.contains("the baseline lost 5 of")), "{:#?}", good.verdict);
}

#[test]
fn what_says_nothing_never_passes() {
    let of_candidate = |change: fn(&mut Round)| move |gate: &mut Gate| change(&mut gate.pairs[4].candidate);
    let dead =
        of_candidate(|round| *round = Round { failure: Some("connection refused".to_owned()), ..Round::default() });
    let nothing = of_candidate(|round| (round.accepted, round.samples) = (0, 0));
    let no_number = of_candidate(|round| round.response_time_ns_p50 = Some(f64::NAN));
    let zero = of_candidate(|round| round.response_time_ns_p50 = Some(0.0));
    let missing = of_candidate(|round| round.response_time_ns_p50 = None);
    type Change = Box<dyn Fn(&mut Gate)>;
    let cases: Vec<(&str, Change, GateOutcome)> = vec![
        ("dead", Box::new(dead), GateOutcome::Invalid),
        ("nothing accepted", Box::new(nothing), GateOutcome::Invalid),
        ("NaN", Box::new(no_number), GateOutcome::Invalid),
        ("0 ns", Box::new(zero), GateOutcome::Invalid),
        ("missing", Box::new(missing), GateOutcome::Invalid),
        ("interrupted", Box::new(|gate| gate.interrupted = true), GateOutcome::Invalid),
        ("no pairs", Box::new(|gate| gate.pairs.clear()), GateOutcome::Invalid),
        ("a pair too few", Box::new(|gate| drop(gate.pairs.pop())), GateOutcome::Invalid),
        ("nothing gated", Box::new(|gate| gate.rule.gated.clear()), GateOutcome::Invalid),
        ("the same twice", Box::new(|gate| gate.candidate = gate.baseline.clone()), GateOutcome::Invalid),
        ("ledger missing", Box::new(|gate| gate.pairs[1].candidate.acknowledged = None), GateOutcome::Inconclusive),
        ("unverified", Box::new(|gate| gate.pairs[1].candidate.unverified = 1), GateOutcome::Inconclusive),
        ("few samples", Box::new(|gate| gate.pairs[1].baseline.samples = 100), GateOutcome::Inconclusive),
        (
            "overloaded",
            Box::new(|gate| gate.pairs.iter_mut().for_each(|pair| pair.baseline.achieved_share = Some(0.5))),
            GateOutcome::Invalid,
        ),
        ("refusals", Box::new(|gate| gate.pairs[1].candidate.accepted = 5_000), GateOutcome::Regressed),
    ];
    for (name, change, expected) in cases {
        let mut gate = gate(rule(&[P50]), run(&rule(&[P50]), around(0.0, 0.001)));
        change(&mut gate);
        conclude(&mut gate);
        assert_eq!(gate.verdict.outcome, expected, "{name}: {:#?}", gate.verdict);
        assert_ne!(gate.verdict.exit_code, 0);
    }
}

#[test]
fn pairs_that_the_machine_spoiled_are_run_again_and_too_many_are_no_answer() {
    let disturbed = |every: u32| {
        move |number: u32| {
            let mut steady = around(0.0, 0.001);
            Round { steal_share: number.is_multiple_of(every).then_some(0.5), ..steady(number) }
        }
    };
    let gate = concluded(&rule(&[P50]), disturbed(3));
    assert_eq!((gate.verdict.outcome, gate.verdict.pairs_used), (GateOutcome::Pass, 10));
    assert_eq!(gate.verdict.pairs_left_out, 4);
    // One of two counts, so that 15 of 30 do, and the last look is content with those.
    let noisy =
        |number: u32| Round { steal_share: number.is_multiple_of(2).then_some(0.5), ..around(0.04, 0.1)(number) };
    assert_eq!(concluded(&rule(&[P50]), noisy).verdict.pairs_used, 15);
    let gate = concluded(&rule(&[P50]), |number| Round {
        steal_share: (!number.is_multiple_of(10)).then_some(0.5),
        ..around(0.0, 0.001)(number)
    });
    assert_eq!((gate.verdict.outcome, gate.pairs.len()), (GateOutcome::Invalid, 17), "16 of 30 are too many");
    assert!(gate.verdict.reasons[0].contains("16 left out"), "{:#?}", gate.verdict);
    let saturated = |number: u32| Round { saturated: Some("too busy".to_owned()), ..around(0.2, 0.001)(number) };
    let gate = concluded(&rule(&[P50]), saturated);
    assert_eq!(gate.verdict.outcome, GateOutcome::Invalid);
    assert!(gate.verdict.reasons[0].contains("generator saturated: too busy"), "{:#?}", gate.verdict);
}

#[test]
fn a_regression_that_does_not_come_again_is_inconclusive() {
    let rule = rule(&[P50, Metric::CpuPerEvent]);
    let mut gate = gate(rule.clone(), run(&rule, around(0.2, 0.001)));
    let flagged = flagged(&rule, &gate.pairs);
    assert_eq!(flagged.len(), 2);
    let again = rule.of_confirmation(&flagged);
    assert_ne!(again.order(0).1, rule.order(0).1, "another load");
    gate.confirmation = Some(confirmation(&again, &flagged, run(&again, around(0.0, 0.001))));
    conclude(&mut gate);
    assert_eq!(gate.verdict.outcome, GateOutcome::Inconclusive, "{:#?}", gate.verdict);
    gate.confirmation = Some(confirmation(&again, &flagged, run(&again, around(0.2, 0.001))));
    conclude(&mut gate);
    assert_eq!(gate.verdict.outcome, GateOutcome::Regressed);
    assert!(gate.metrics[0].notes[0].contains("confirms it"));
}

#[test]
fn swapping_the_sides_turns_the_ratios_and_nothing_else() {
    let rule = rule(&[P50]);
    let mut one = gate(rule.clone(), run(&rule, around(0.04, 0.02)));
    let mut other = one.clone();
    for pair in &mut other.pairs {
        std::mem::swap(&mut pair.baseline, &mut pair.candidate);
    }
    conclude(&mut one);
    conclude(&mut other);
    for (one, other) in one.metrics.iter().zip(&other.metrics) {
        let turned: Vec<f64> = other.ratios_ln.iter().map(|d| -d).collect();
        assert_eq!(one.ratios_ln, turned);
        let ln = |share: Option<f64>| share.unwrap().ln_1p();
        assert!((ln(one.worse_by) + ln(other.worse_by)).abs() < 1e-12);
        assert!((ln(one.worse_by_low) + ln(other.worse_by_high)).abs() < 1e-12);
    }
}

#[test]
fn an_order_effect_and_a_drift_are_told() {
    let rule = rule(&[P50]);
    let order = |number: u32| rule.order(number - 1).0;
    let gate = concluded(&rule, |number| {
        let later = if order(number) == super::model::Order::BaselineFirst { 0.1 } else { -0.1 };
        round((later + f64::from(number) / 1e4).exp())
    });
    let effect = gate.metrics[0].order_effect_ln.unwrap();
    assert!((effect - 0.1).abs() < 0.001, "{effect}");
    assert!(
        gate.metrics[0].notes.iter().any(|note| note.contains("whoever runs second is 10")),
        "{:?}",
        gate.metrics[0].notes
    );
    let gate = concluded(&rule, |number| round((f64::from(number) / 1e3).exp()));
    assert_eq!(gate.metrics[0].drift, Some(1.0));
    assert!(gate.metrics[0].notes.iter().any(|note| note.contains("drifts")));
}

#[test]
fn a_result_is_read_back_exactly_and_follows_its_schema() {
    let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/gate.v1.json");
    fixtures::assert_golden(&path, &(serde_json::to_string_pretty(&file::json_schema()).unwrap() + "\n"));
    let validator = jsonschema::validator_for(&file::json_schema()).unwrap();
    for shift in [0.0, 0.2] {
        let gate = concluded(&rule(&[P50, Metric::Capacity]), around(shift, 0.001));
        let text = file::write(&gate);
        assert_eq!(file::read(&text).unwrap(), gate);
        assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()));
        let page = crate::html::gate::render(&gate);
        let data = page.split("data-file=\"gate.json\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!(file::read(data).unwrap(), gate);
        assert_eq!(page.matches("class=\"chart\"").count(), 8, "one a metric");
    }
    for text in ["{", "[]", r#"{"schema":"run.v1"}"#, r#"{"schema":"gate.v1"}"#] {
        assert!(file::read(text).is_err(), "{text}");
    }
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let evil = "</script><script>alert(1)</script>|`*";
    let mut gate = concluded(&rule(&[P50]), around(0.0, 0.001));
    (gate.candidate.name, gate.baseline.faults) = (evil.to_owned(), vec![evil.to_owned()]);
    gate.pairs[0].left_out = Some(evil.to_owned());
    conclude(&mut gate);
    gate.verdict.reasons.push(evil.to_owned());
    assert!(!crate::html::gate::render(&gate).contains("<script>alert"));
    let markdown = show::markdown(&gate);
    assert!(!markdown.lines().any(|line| line.starts_with("- ") && line.contains("<script>")), "{markdown}");
}

#[test]
fn who_went_before_all_others_is_told_wherever_the_decision_is() {
    let mut gate = concluded(&rule(&[P50]), around(0.0, 0.001));
    let told = |gate: &Gate| [show::terminal(gate), show::markdown(gate), crate::html::gate::render(gate)];
    assert!(told(&gate).iter().all(|text| !text.contains("(SCHED_RR)")));
    gate.plan.realtime = Some(Realtime::Both);
    for text in told(&gate) {
        assert!(
            text.contains("generator: its sending thread went")
                && text.contains("server: the threads of the reference server"),
            "{text}"
        );
    }
}

#[test]
fn the_terminal_shows_what_decides_first() {
    insta::assert_snapshot!(show::terminal(&concluded(&rule(&[P50, Metric::Capacity]), around(0.2, 0.001))), @r#"
baseline   old
candidate  new

                       baseline  candidate        change             between  allowed  verdict
 response time p50       200 µs     244 µs  22.1 % worse  +21.9 % to +22.3 %     +5 %  regressed
 capacity              20 000/s   16 382/s  22.1 % worse  +21.9 % to +22.3 %     +5 %  regressed
 response time p99       900 µs     1.1 ms  22.1 % worse  +21.9 % to +22.3 %           for information
 response time p99.9       3 ms    3.66 ms  22.1 % worse  +21.9 % to +22.3 %           for information
 time to durable p50       5 ms     6.1 ms  22.1 % worse  +21.9 % to +22.3 %           for information
 CPU per event            25 µs    30.5 µs  22.1 % worse  +21.9 % to +22.3 %           for information
 memory, peak          57.2 MiB   69.9 MiB  22.1 % worse  +21.9 % to +22.3 %           for information
 SQL statements, idle        10         10      the same          0 % to 0 %           for information

10 pairs of rounds count; worse is positive; intervals at 98 % confidence

REGRESSED (exit code 3)
  response time p50: 22.1 % worse (+21.9 % to +22.3 %), allowed +5 %; a fresh repetition confirms it: 22.1 % worse
  capacity: 22.1 % worse (+21.9 % to +22.3 %), allowed +5 %; a fresh repetition confirms it: 22.1 % worse
"#);
}

#[test]
fn a_stored_baseline_is_of_a_machine_and_a_load_like_this_one_or_none() {
    let gate = concluded(&rule(&[P50]), around(0.0, 0.001));
    let (mut environment, mut plan) = (gate.environment.clone(), gate.plan.clone());
    assert_eq!(stored::unlike(&gate, &environment, &plan, 1_000, &gate.tool.build_profile), [] as [String; 0]);
    assert_eq!(stored::rounds(&gate).len(), 10);
    plan.seed += 1;
    (environment.cores, plan.rate_per_s) = (64, 7.0);
    let found = stored::unlike(&gate, &environment, &plan, 500, "other");
    let fields: Vec<&str> = found.iter().filter_map(|text| text.split(':').next()).collect();
    assert_eq!(fields, ["environment.cores", "tool.build_profile", "capacity_ms", "plan.rate_per_s"], "{found:?}");
}

/// How often the rule says `regressed` (not confirmed again) of candidates that are worse by `shift_in_margins` margins.
fn alarms(trials: u32, shift_in_margins: f64, noise: fn(&mut Chance) -> f64) -> f64 {
    let mut chance = Chance(20_261_124);
    let metrics = [P50, Metric::ResponseTimeP99, Metric::Capacity, Metric::CpuPerEvent];
    let margin = 0.05;
    let gated = metrics.map(|metric| Gated { margin, ..metric.gated() });
    let rule = Rule::new(gated.to_vec(), 20, 7);
    let mut found = 0;
    for _ in 0..trials {
        let pairs = run(&rule, |_| {
            let mut factor = || ((shift_in_margins * margin).ln_1p() + 0.06 * noise(&mut chance)).exp();
            let (a, b, c, d) = (round(factor()), factor(), factor(), factor());
            Round {
                response_time_ns_p99: Some(900_000.0 * b),
                capacity_per_s: Some(20_000.0 / c),
                cpu_ns_per_event: Some(25_000.0 * d),
                ..a
            }
        });
        found += u32::from(!flagged(&rule, &pairs).is_empty());
    }
    f64::from(found) / f64::from(trials)
}

#[test]
fn false_alarms_are_no_more_than_stated() {
    const TRIALS: u32 = 450;
    // Three standard errors of a share of 0.05.
    let chance = 3.0 * (ALPHA * (1.0 - ALPHA) / f64::from(TRIALS)).sqrt();
    let contaminated = |chance: &mut Chance| {
        let wide = if chance.uniform() < 0.1 { 5.0 } else { 1.0 };
        wide * chance.normal()
    };
    for (name, noise) in
        [("normal", Chance::normal as fn(&mut Chance) -> f64), ("one in ten five times as wide", contaminated)]
    {
        // The worst case that is not a regression: all four are worse by exactly the margin.
        let share = alarms(TRIALS, 1.0, noise);
        assert!(share <= ALPHA + chance, "{name}: {share}");
        // A against A: the margin is between.
        let share = alarms(TRIALS / 3, 0.0, noise);
        assert!(share <= 0.01, "{name}: {share}");
        // And it does find what is there: three margins.
        let share = alarms(TRIALS / 15, 3.0, noise);
        assert!(share >= 0.9, "{name}: {share}");
    }
}
