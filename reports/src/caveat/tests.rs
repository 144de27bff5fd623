//! Tests of the rules.

use super::*;
use crate::fixtures::{self, times};
use crate::model::{
    ArrivalProcess, ArrivalsCheck, Delivery, ErrorCount, Health, Hiccups, MachineUse, Outcome, Outcomes, Pressure,
    SENDING_THREAD, Stall,
};
use crate::verdict;

type Change = fn(&mut Run, usize);

/// Kinds found on a sound run after `change` to the first repetition of cache-first, and to the run.
fn found(change: Change) -> Vec<CaveatKind> {
    let mut run = fixtures::three_modes();
    change(&mut run, 1);
    find(&run).into_iter().map(|c| c.kind).collect()
}

#[test]
fn a_sound_run_has_none() {
    assert_eq!(found(|_, _| {}), []);
}

#[test]
fn each_rule_finds_what_it_is_for() {
    use CaveatKind::*;
    let cases: [(CaveatKind, Change); 24] = [
        (Interrupted, |run, _| run.interrupted = true),
        (DebugBuild, |run, _| run.tool.build_profile = "debug".to_owned()),
        (ClosedLoop, |run, _| run.plan.arrivals = Arrivals::Closed),
        (SingleRepetition, |run, _| run.plan.repeat = 1),
        (NothingAccepted, |run, i| run.results[i].load.outcomes.accepted = 0),
        (DeadTarget, |run, i| {
            run.results[i].failure = Some("connection refused".to_owned());
            run.results[i].load.statuses.clear();
            run.results[i].load.outcomes.accepted = 0;
        }),
        (GeneratorSaturated, |run, i| run.results[i].load.send_delay = times(&[(5_000_000, 20_000)])),
        (SendDelayLarge, |run, i| run.results[i].load.send_delay = times(&[(1_000, 19_000), (60_000, 1_000)])),
        (RateNotReached, |run, i| run.results[i].load.achieved_per_s *= 0.98),
        (EventsNotSent, |run, i| run.results[i].load.outcomes.not_sent = 1),
        (Timeouts, |run, i| run.results[i].load.outcomes.timed_out = 1),
        (Errors, |run, i| run.results[i].load.outcomes.rejected = 1),
        (Reconnects, |run, i| run.results[i].load.reconnects = 1),
        (ConnectionsExhausted, |run, i| run.results[i].load.connection_wait = times(&[(0, 11_000), (900_000, 200)])),
        (TooFewSamples, |run, i| run.results[i].load.response_time = times(&[(1_000_000, 9_000)])),
        (DelayedAcknowledgements, |run, i| {
            run.results[i].load.service_time = times(&[(200_000, 19_900), (40_100_000, 100)]);
        }),
        (LedgerLeftOut, |run, i| run.results[i].ledger = None),
        (LedgerIncomplete, |run, i| run.results[i].ledger.as_mut().unwrap().unverified = 1),
        (PersistedWithoutAcknowledgement, |run, i| run.results[i].ledger.as_mut().unwrap().unacknowledged = 1),
        (SignaturesUnverified, |run, i| run.results[i].ledger.as_mut().unwrap().delivery = Some(Delivery::default())),
        (SqlCountUnavailable, |run, i| run.results[i].idle.as_mut().unwrap().sql_statements = None),
        (MachineStalls, |run, i| hiccups(run, i).standstill = Some(times(&[(40_000, 4_000), (3_000_000, 30)]))),
        (ArrivalsNotAsAsked, |run, i| arrivals(run, i).gap_distance_sent = Some(0.2)),
        (NotCalibrated, |run, _| run.plan.variants[0].mode = None),
    ];
    for (kind, change) in cases {
        assert_eq!(found(change), [kind]);
    }
}

fn health(run: &mut Run, i: usize) -> &mut Health {
    run.results[i].health.as_mut().unwrap()
}

fn hiccups(run: &mut Run, i: usize) -> &mut Hiccups {
    health(run, i).hiccups.as_mut().unwrap()
}

fn machine(run: &mut Run, i: usize) -> &mut MachineUse {
    health(run, i).machine.as_mut().unwrap()
}

fn arrivals(run: &mut Run, i: usize) -> &mut ArrivalsCheck {
    run.results[i].load.arrivals_check.as_mut().unwrap()
}

/// Changes to a sound run each of which makes it invalid, with the kind of caveat that says why.
const INVALIDATING: &[(&str, CaveatKind, Change)] = &[
    ("a person stopped it", CaveatKind::Interrupted, |run, _| run.interrupted = true),
    ("nobody answers", CaveatKind::DeadTarget, |run, i| {
        run.results[i].failure = Some("connection refused".to_owned());
        run.results[i].load.statuses.clear();
        (run.results[i].load.outcomes.failed, run.results[i].load.outcomes.accepted) = (run.results[i].load.planned, 0);
    }),
    ("every event is refused", CaveatKind::NothingAccepted, |run, i| {
        let outcomes = &mut run.results[i].load.outcomes;
        (outcomes.rejected, outcomes.accepted) = (outcomes.accepted, 0);
    }),
    (
        "the generator is 5 ms late where an answer takes half a millisecond",
        CaveatKind::GeneratorSaturated,
        |run, i| {
            run.results[i].load.send_delay = times(&[(5_000_000, 20_000)]);
        },
    ),
    ("the send loop is busy 91 % of the time", CaveatKind::GeneratorSaturated, |run, i| {
        health(run, i).sender_busy_share = Some(0.91);
    }),
    ("a third of the gaps is wrong", CaveatKind::ArrivalsNotAsAsked, |run, i| {
        arrivals(run, i).gap_distance_sent = Some(0.33);
    }),
    ("bursts, with a third of the events elsewhere", CaveatKind::ArrivalsNotAsAsked, |run, i| {
        arrivals(run, i).windows[0].dispersion_sent = 1.6;
        run.results[i].load.send_delay = times(&[(400, 8_000), (400_000, 4_000)]);
        run.results[i].load.response_time = times(&[(9_000_000, 20_000)]);
    }),
    ("a schedule of another rate", CaveatKind::ArrivalsNotAsAsked, |run, i| arrivals(run, i).planned -= 900),
    ("a schedule with the wrong gaps", CaveatKind::ArrivalsNotAsAsked, |run, i| {
        arrivals(run, i).gap_distance_planned = Some(0.03);
    }),
    ("a schedule of bursts", CaveatKind::ArrivalsNotAsAsked, |run, i| {
        arrivals(run, i).windows.iter_mut().for_each(|w| (w.dispersion_planned, w.dispersion_sent) = (1.9, 1.9));
    }),
    ("a schedule that is too even", CaveatKind::ArrivalsNotAsAsked, |run, i| {
        arrivals(run, i).windows.iter_mut().for_each(|w| (w.dispersion_planned, w.dispersion_sent) = (0.6, 0.6));
    }),
    ("a schedule of equal gaps that are not", CaveatKind::ArrivalsNotAsAsked, |run, i| {
        arrivals(run, i).process = ArrivalProcess::Constant;
    }),
];

#[test]
fn every_rule_that_can_make_a_run_invalid_does_so() {
    let mut sound = fixtures::three_modes();
    verdict::assess(&mut sound);
    assert_eq!((sound.verdict.outcome, sound.caveats.as_slice()), (Outcome::Pass, [].as_slice()));
    for (name, kind, change) in INVALIDATING {
        let mut run = fixtures::three_modes();
        change(&mut run, 1);
        verdict::assess(&mut run);
        assert_eq!((run.verdict.outcome, run.verdict.exit_code), (Outcome::Invalid, 5), "{name}: {:#?}", run.verdict);
        let invalidating: Vec<&Caveat> = run.caveats.iter().filter(|c| c.invalidates).collect();
        assert_eq!(invalidating.iter().map(|c| c.kind).collect::<Vec<_>>(), [*kind], "{name}");
        assert!(!invalidating[0].remedy.is_empty() && run.verdict.reasons[0].contains(kind.name()), "{name}");
        let says_how_much = invalidating[0].detail.chars().any(|c| c.is_ascii_digit());
        assert!(says_how_much || *kind == CaveatKind::DeadTarget, "{name}: {}", invalidating[0].detail);
    }
}

/// A rule added without a case above fails here.
#[test]
fn every_rule_that_can_make_a_run_invalid_has_a_case() {
    let broken = |change: &Change| {
        let mut run = fixtures::three_modes();
        change(&mut run, 1);
        run
    };
    let runs: Vec<Run> = INVALIDATING.iter().map(|(_, _, change)| broken(change)).collect();
    for rule in RULES.iter().filter(|rule| rule.invalidates) {
        let found = runs.iter().any(|run| (rule.check)(run, &run.results[1]).is_some());
        assert!(found, "no case of INVALIDATING makes the rule about {:?} find anything", rule.kind);
    }
    for rule in RUN_RULES.iter().filter(|rule| rule.invalidates) {
        let found = runs.iter().any(|run| (rule.check)(run).is_some());
        assert!(found, "no case of INVALIDATING makes the rule about {:?} find anything", rule.kind);
    }
}

#[test]
fn each_cause_of_a_busy_machine_is_told_with_its_numbers() {
    let detail = |change: Change| {
        let mut run = fixtures::three_modes();
        change(&mut run, 1);
        find(&run).into_iter().map(|c| format!("{:?}: {}\n", c.kind, c.detail)).collect::<String>()
    };
    let changes: [Change; 6] = [
        |run, i| run.results[i].resources.generator_run_queue_delay_ns = Some(700_000_000),
        |run, i| machine(run, i).other_cpu_s = Some(2.5),
        |run, i| machine(run, i).steal_share = 0.03,
        |run, i| machine(run, i).pressure_memory = Some(Pressure { some_share: 0.02, full_share: 0.0 }),
        |run, i| machine(run, i).throttled_s = Some(0.5),
        |run, i| (machine(run, i).steal_share, machine(run, i).other_cpu_s) = (0.03, Some(2.5)),
    ];
    insta::assert_snapshot!(changes.map(detail).concat(), @r#"
BusyMachine: the sending thread waited 700 ms for a processor, 5.83 % of the steady phase (in one of 2 repetitions, #1)
BusyMachine: other processes used 2.5 s of CPU time, 10.4 % of the machine (in one of 2 repetitions, #1)
BusyMachine: the hypervisor gave 3 % of the processor time to others (in one of 2 repetitions, #1)
BusyMachine: memory was short in 2 % of the time (in one of 2 repetitions, #1)
BusyMachine: the CPU quota of its control group held the generator back for 500 ms, 4.17 % of the phase (in one of 2 repetitions, #1)
BusyMachine: other processes used 2.5 s of CPU time, 10.4 % of the machine; the hypervisor gave 3 % of the processor time to others (in one of 2 repetitions, #1)
"#);
}

#[test]
fn stalls_are_told_when_they_explain_the_tail_and_not_when_the_server_is_slower_or_kept_the_cores_busy() {
    let stall =
        |length_ns, waited_ns| Stall { offset_ns: 3_200_000_000, length_ns, waited_ns: Some(waited_ns), core: Some(0) };
    let mut run = fixtures::three_modes();
    let found = |run: &Run| find(run).into_iter().map(|c| c.detail).collect::<String>();
    // Of 4 000 moments 20 were later than p99: half of the hundredth that lies beyond it.
    let late = [(40_000, 3_980), (3_000_000, 20)];
    hiccups(&mut run, 1).late = times(&late);
    hiccups(&mut run, 1).stalls = vec![stall(5_000_000, 4_000_000), stall(3_100_000, 100_000)];
    assert_eq!(found(&run), "", "other threads ran meanwhile: that is no standstill");
    hiccups(&mut run, 1).standstill = None;
    insta::assert_snapshot!(found(&run), @r#"
the machine stood still or was busy for longer than the response time's p99 of 554 µs in 0.5 % of the moments watched, which explains 50 % of what lies beyond it; the longest lasted 3 ms, 3.2 s into the phase (in one of 2 repetitions, #1)
"#);
    hiccups(&mut run, 1).standstill = Some(times(&late));
    insta::assert_snapshot!(found(&run), @r#"
the machine stood still for longer than the response time's p99 of 554 µs in 0.5 % of the moments watched, which explains 50 % of what lies beyond it; the longest lasted 3 ms, 3.2 s into the phase (in one of 2 repetitions, #1)
"#);
    run.results[1].load.response_time = times(&[(4_000_000, 20_000)]);
    assert_eq!(found(&run), "", "the server takes longer than the longest stall");
}

#[test]
fn send_delay_is_held_against_every_quantile_that_an_objective_judges() {
    let found = |objective: &str, delay: &[(u64, u64)]| {
        let mut run = fixtures::three_modes();
        run.plan.objectives = vec![objective.to_owned()];
        run.results[1].load.send_delay = times(delay);
        verdict::assess(&mut run);
        run.caveats.into_iter().map(|c| c.detail).collect::<String>()
    };
    let late_at_p90 = [(15_000, 10_000), (60_000, 2_000)];
    assert_eq!(found("db-first: response_time.p90 < 9ms", &[(15_000, 20_000)]), "", "judged on another variant");
    assert_eq!(found("cache-first: service_time.p50 < 9ms", &[(15_000, 20_000)]), "", "no part of a service time");
    let texts = [
        found("cache-first: response_time.p50 < 9ms", &[(15_000, 20_000)]),
        found("cache-first: response_time.p90 < 9ms", &late_at_p90),
        found("response_time.p50 <= 1.5 x null", &[(15_000, 20_000)]),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r#"
send delay p50 is 15 µs, 6.94 % of the response time's 216 µs, which the objective "cache-first: response_time.p50 < 9ms" judges (in one of 2 repetitions, #1)
send delay p90 is 60 µs, 18.3 % of the response time's 328 µs, which the objective "cache-first: response_time.p90 < 9ms" judges (in one of 2 repetitions, #1)
send delay p50 is 15 µs, 6.94 % of the response time's 216 µs, which the objective "response_time.p50 <= 1.5 x null" judges (in one of 2 repetitions, #1)
"#);
}

#[test]
fn too_few_samples_are_told_of_the_highest_quantile_that_is_judged() {
    let mut run = fixtures::three_modes();
    run.plan.objectives = vec!["cache-first: response_time.p999 < 9ms".to_owned()];
    verdict::assess(&mut run);
    assert_eq!(run.caveats.iter().map(|c| c.kind).collect::<Vec<_>>(), [CaveatKind::TooFewSamples]);
    insta::assert_snapshot!(run.caveats[0].detail, @r#"
response time p99.9 rests on 11 samples beyond it, of 11 826; 100 are needed to judge it, 10 to print it (#2, the worst of 2 such repetitions of 2)
"#);
}

#[test]
fn events_that_were_never_sent_leave_nothing_to_compare_with_the_schedule() {
    let changes: [Change; 2] = [
        |run, i| arrivals(run, i).gap_distance_sent = Some(0.9),
        |run, i| (arrivals(run, i).gap_distance_sent, arrivals(run, i).sent) = (Some(0.9), 11_000),
    ];
    assert_eq!(changes.map(found), [vec![CaveatKind::ArrivalsNotAsAsked], vec![]]);
}

#[test]
fn the_sending_thread_is_judged_over_the_time_it_was_watched() {
    let watched = |run: &mut Run, i: usize, seconds: f64| {
        run.results[i].resources.generator_run_queue_delay_ns = Some(500_000_000);
        health(run, i).threads.iter_mut().filter(|t| t.name == SENDING_THREAD).for_each(|t| t.seconds = seconds);
    };
    let mut run = fixtures::three_modes();
    watched(&mut run, 1, 12.0);
    assert_eq!(find(&run), []);
    watched(&mut run, 1, 5.0);
    assert_eq!(find(&run)[0].kind, CaveatKind::BusyMachine);
}

#[test]
fn what_is_no_fault_is_not_told() {
    let cases: [(&str, Change); 6] = [
        ("a repeat that was rightly refused", |run, i| {
            let load = &mut run.results[i].load;
            (load.outcomes.rejected, load.repeats.sent, load.repeats.refused) = (500, 500, 500);
            (load.planned, load.offered_per_s) = (load.planned + 500, load.offered_per_s + 500.0 / load.seconds);
        }),
        ("a slope that passes through 40 ms", |run, i| {
            run.results[i].load.service_time =
                times(&[(33_000_000, 5_000), (40_000_000, 4_000), (47_000_000, 3_000), (90_000_000, 20_000)]);
        }),
        ("a send delay of 15 µs at a short response time that nobody judges", |run, i| {
            run.results[i].load.send_delay = times(&[(15_000, 20_000)]);
            run.objectives.clear();
        }),
        ("a null server without a ledger and without SQL", |run, i| {
            (run.results[i].mode, run.results[i].ledger) = (Some("null".to_owned()), None);
            run.results[i].idle.as_mut().unwrap().sql_statements = None;
        }),
        ("a few events that waited for a connection", |run, i| {
            run.results[i].load.connection_wait = times(&[(0, 12_000), (900_000, 20)]);
        }),
        ("a slow server that makes a send delay of 2 ms small", |run, i| {
            run.results[i].load.send_delay = times(&[(1_000, 19_000), (2_000_000, 1_000)]);
            run.results[i].load.response_time = times(&[(900_000, 10_000), (50_000_000, 10_000)]);
        }),
    ];
    for (name, change) in cases {
        assert_eq!(found(change), [], "{name}");
    }
}

#[test]
fn a_caveat_shows_the_worst_repetition_and_how_many_have_it() {
    let mut run = fixtures::three_modes();
    (run.results[1].load.reconnects, run.results[4].load.reconnects) = (3, 7);
    let caveat = find(&run).remove(0);
    assert_eq!(caveat.subject.as_deref(), Some("cache-first"));
    insta::assert_snapshot!(caveat.detail, @r#"7 connections had to be opened again during the steady phase (#2, the worst of 2 such repetitions of 2)"#);
}

#[test]
fn what_the_generator_added_stays_and_finding_twice_adds_nothing() {
    let mut run = fixtures::lying_server();
    run.caveats.push(Caveat {
        kind: CaveatKind::MachineStalls,
        subject: None,
        detail: "3 stalls above 10 ms".to_owned(),
        remedy: "use a quieter machine".to_owned(),
        invalidates: false,
    });
    run.caveats = find(&run);
    assert!(run.caveats.iter().any(|c| c.kind == CaveatKind::MachineStalls));
    assert_eq!(find(&run), run.caveats);
}

#[test]
fn errors_are_named() {
    let mut run = fixtures::three_modes();
    let load = &mut run.results[1].load;
    load.outcomes = Outcomes { failed: 40, ..load.outcomes };
    load.errors = vec![ErrorCount { kind: "HTTP 503".to_owned(), count: 40 }];
    insta::assert_snapshot!(find(&run)[0].detail, @r#"40 of 12 131 planned events were refused or failed: HTTP 503 × 40 (in one of 2 repetitions, #1)"#);
}
