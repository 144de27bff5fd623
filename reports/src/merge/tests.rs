//! Merges of parts that are made up.

use proptest::prelude::*;

use super::*;
use crate::fixtures;
use crate::histogram::TimeHistogram;
use crate::model::{TimeToDurable, Times};
use crate::verdict;

fn merged(parts: Vec<Run>, trust_clocks: bool) -> Result<Run, MergeError> {
    let input = |(place, run)| Input { name: format!("{place}.json"), run };
    let inputs: Vec<Input> = parts.into_iter().enumerate().map(input).collect();
    merge(&inputs, Merging { command: vec!["loadgen".to_owned(), "merge".to_owned()], trust_clocks })
}

fn shard(run: &mut Run) -> &mut Shard {
    run.shard.as_mut().unwrap()
}

#[test]
fn all_parts_add_up_and_are_judged_anew() {
    let parts = fixtures::shards();
    let sum = |read: fn(&TargetResult) -> u64| parts.iter().map(|part| read(&part.results[0])).sum::<u64>();
    let whole = fixtures::merged();
    let result = &whole.results[0];
    assert_eq!(result.load.planned, sum(|r| r.load.planned));
    assert_eq!(result.load.outcomes.total(), result.load.planned);
    assert_eq!(result.load.response_time.count, sum(|r| r.load.response_time.count));
    assert_eq!(result.load.intervals.iter().map(|row| row.planned).sum::<u64>(), result.load.planned);
    let ledger = result.ledger.as_ref().unwrap();
    assert_eq!(ledger.acknowledged, sum(|r| r.ledger.as_ref().unwrap().acknowledged));
    assert_eq!(result.idle, parts[0].results[0].idle);
    assert_eq!(result.resources.server_cpu_s, parts[0].results[0].resources.server_cpu_s);
    assert!(parts.iter().all(|part| part.objectives.is_empty()), "a part says nothing of an objective");
    assert_eq!(whole.objectives.len(), 2);
    assert_eq!(whole.verdict.outcome, Outcome::Pass, "{:?}", whole.verdict);
    assert_eq!((whole.shard.is_none(), whole.shards.len()), (true, 3));
}

#[test]
fn the_order_of_the_files_makes_no_difference() {
    let parts = fixtures::shards();
    let straight = merged(parts.clone(), false).unwrap();
    for order in [[2, 1, 0], [1, 2, 0]] {
        assert_eq!(merged(order.map(|place| parts[place].clone()).to_vec(), false).unwrap(), straight);
    }
}

#[test]
fn what_one_part_lost_is_lost_and_what_one_part_did_not_look_for_is_unverified() {
    type Change = fn(&mut Run);
    let cases: [(&str, Change, Outcome); 6] = [
        ("nothing", |_| {}, Outcome::Pass),
        ("one part lost an event", |run| run.results[0].ledger.as_mut().unwrap().lost = 1, Outcome::Missed),
        ("one part has no ledger", |run| run.results[0].ledger = None, Outcome::Inconclusive),
        ("one part failed", |run| run.results[0].failure = Some("it went away".to_owned()), Outcome::Invalid),
        ("one part has no result", |run| run.results.clear(), Outcome::Invalid),
        ("one part was interrupted", |run| run.interrupted = true, Outcome::Invalid),
    ];
    for (what, change, outcome) in cases {
        let mut parts = fixtures::shards();
        change(&mut parts[1]);
        let mut whole = merged(parts, false).unwrap();
        verdict::assess(&mut whole);
        assert_eq!(whole.verdict.outcome, outcome, "{what}: {:?}", whole.verdict.reasons);
    }
}

#[test]
fn a_doubt_about_one_part_is_kept_with_its_name_and_makes_the_whole_invalid_if_it_did_the_part() {
    let mut parts = fixtures::shards();
    parts[2].caveats = vec![Caveat {
        kind: CaveatKind::GeneratorSaturated,
        subject: Some("10.0.0.7:8080".to_owned()),
        detail: "too late".to_owned(),
        remedy: "slower".to_owned(),
        invalidates: true,
    }];
    let mut whole = merged(parts, false).unwrap();
    verdict::assess(&mut whole);
    let caveat = whole.caveats.iter().find(|caveat| caveat.kind == CaveatKind::GeneratorSaturated).unwrap();
    assert_eq!(caveat.subject.as_deref(), Some("10.0.0.7:8080, part 2 (load-2)"));
    assert_eq!(whole.verdict.outcome, Outcome::Invalid);
}

#[test]
fn what_does_not_belong_together_is_refused_with_what_differs_and_what_to_do() {
    type Change = fn(&mut Vec<Run>);
    let cases: [(Change, &str); 19] = [
        (|parts| parts.clear(), "there is nothing to merge"),
        (|parts| drop(parts.remove(1)), "of 3 parts 1 is missing"),
        (|parts| parts.truncate(1), "of 3 parts 1, 2 are missing"),
        (
            |parts| parts.iter_mut().for_each(|part| shard(part).count = u32::MAX),
            "parts 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 4294967282 more are missing",
        ),
        (|parts| shard(&mut parts[2]).number = 7, "of 3 parts 2 is missing"),
        (|parts| shard(&mut parts[2]).number = 1, "1.json and 2.json are both part 1"),
        (|parts| shard(&mut parts[2]).count = 4, "0.json and 2.json are not parts of one load: shard.count: 3 and 4"),
        (|parts| parts[1].shard = None, "1.json is no part of a load: it was run without --shard"),
        (|parts| parts[1].run_id = "monday-2".to_owned(), "run_id: monday-1 and monday-2"),
        (|parts| parts[1].plan.seed = 43, "plan.seed: 42 and 43"),
        (|parts| parts[1].plan.connections = 8, "plan.connections: 16 and 8"),
        (|parts| parts[2].plan.objectives.clear(), "plan.objectives: ["),
        (|parts| parts[2].tool.revision = "other".to_owned(), "tool.revision: "),
        (|parts| parts[2].results[0].url = "http://10.0.0.8:8080".to_owned(), "results.url: http://10.0.0.7:8080 and "),
        (
            |parts| shard(&mut parts[1]).start_at = "2026-11-20T08:01:00Z".to_owned(),
            "shard.start_at: 2026-11-20T08:00:30Z and 2026-11-20T08:01:00Z",
        ),
        (
            |parts| {
                (shard(&mut parts[1]).clock, shard(&mut parts[1]).clock_unknown) = (None, Some("no Date".to_owned()))
            },
            "1.json: when part 1 (load-1) began by the target's clock is not known (no Date); if its clock is right (NTP), say so with \
             --trust-clocks",
        ),
        (
            |parts| shard(&mut parts[2]).clock.as_mut().unwrap().offset_ns = 200_000_000,
            "2.json: part 2 (load-2) began 160 ms from the first, give or take 1.2 ms; allowed: 100 ms",
        ),
        (
            |parts| {
                for (part, offset_ns) in [(1, -60_000_000), (2, 100_000_000)] {
                    shard(&mut parts[part]).clock.as_mut().unwrap().offset_ns = offset_ns;
                }
            },
            "2.json: part 2 (load-2) began 120 ms from part 1, give or take 1.2 ms; allowed: 100 ms",
        ),
        (
            |parts| parts[1].results[0].load.response_time.histogram = "AAAA".to_owned(),
            "1.json: the histogram is not in the format",
        ),
    ];
    for (change, expected) in cases {
        let mut parts = fixtures::shards();
        change(&mut parts);
        let told = merged(parts, false).unwrap_err().to_string();
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn a_clock_that_nobody_could_read_is_right_if_that_is_said() {
    let mut parts = fixtures::shards();
    shard(&mut parts[1]).clock = None;
    assert!(merged(parts.clone(), true).is_ok());
    shard(&mut parts[1]).steady_began_at = Some("2026-11-20T08:00:31Z".to_owned());
    assert!(matches!(merged(parts, true), Err(MergeError::BeganApart { number: 1, .. })));
}

#[test]
fn an_idle_phase_during_which_another_part_still_read_is_left_out() {
    let mut parts = fixtures::shards();
    // 3 s of load and 10 s of drain after the begin at 08:00:30.
    for (read_at, kept) in [("2026-11-20T08:00:42Z", true), ("2026-11-20T08:00:44Z", false)] {
        shard(&mut parts[1]).last_read_at = Some(read_at.to_owned());
        let whole = merged(parts.clone(), false).unwrap();
        assert_eq!(whole.results[0].idle.is_some(), kept, "{read_at}");
        assert_eq!(whole.caveats.iter().any(|c| c.detail.contains("part 1 (load-1) still read")), !kept, "{read_at}");
    }
}

/// Distributions of samples that are dealt out to parts.
fn dealt() -> impl Strategy<Value = Vec<(u64, usize)>> {
    let ns = prop_oneof![0u64..3_000, 0u64..5_000_000_000, 3_500_000_000_000u64..4_000_000_000_000];
    prop::collection::vec((ns, 0usize..4), 0..300)
}

fn recorded(samples: impl Iterator<Item = u64>) -> Times {
    let mut histogram = TimeHistogram::new();
    samples.for_each(|ns| histogram.record(ns));
    // Each longer one was given up.
    histogram.times(histogram.count_between(1_000_000_000, u64::MAX))
}

fn ledger(counts: [u64; 7], times: Times) -> Ledger {
    let [acknowledged, persisted, lost, duplicated, corrupted, unverified, unacknowledged] = counts;
    let source = if lost % 2 == 0 { "inbox" } else { "sql" };
    let durable = |times| TimeToDurable {
        times,
        source: "persisted_at".to_owned(),
        resolution_ns: 1_000 * (1 + lost % 3),
        growth: None,
        intervals: Vec::new(),
    };
    Ledger {
        acknowledged,
        persisted,
        lost,
        duplicated,
        corrupted,
        unverified,
        unacknowledged,
        source: source.to_owned(),
        drained_after_ms: duplicated,
        time_to_durable: (times.count > 0).then(|| durable(times)),
        lost_examples: (0..lost.min(10)).map(|n| format!("r.{:03}", (n * 37 + corrupted) % 100)).collect(),
        ..sum::empty_ledger()
    }
}

proptest! {
    // A histogram is 270 KB, and each case has a dozen.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every bucket, every count and every quantile: the sum of parts is what one histogram would hold.
    #[test]
    fn histograms_of_parts_are_the_histogram_of_all_samples(samples in dealt()) {
        let parts: Vec<Times> =
            (0..4).map(|part| recorded(samples.iter().filter(|(_, of)| *of == part).map(|(ns, _)| *ns))).collect();
        let all = recorded(samples.iter().map(|(ns, _)| *ns));
        let [a, b, c, d] = [&parts[0], &parts[1], &parts[2], &parts[3]];
        prop_assert_eq!(&times(&[a, b, c, d]).unwrap(), &all);
        prop_assert_eq!(&times(&[d, b, a, c]).unwrap(), &all);
        let (left, right) = (times(&[a, b]).unwrap(), times(&[c, d]).unwrap());
        prop_assert_eq!(&times(&[&left, &right]).unwrap(), &all);
    }

    #[test]
    fn ledgers_add_up_in_any_order_and_however_they_are_put_together(
        parts in prop::collection::vec((prop::array::uniform7(0u64..50), prop::collection::vec(0u64..1_000_000, 0..20)), 1..6)
    ) {
        let parts: Vec<Ledger> =
            parts.into_iter().map(|(counts, durable)| ledger(counts, recorded(durable.into_iter()))).collect();
        let sum = |of: &[&Ledger]| ledgers(of).unwrap();
        let straight: Vec<&Ledger> = parts.iter().collect();
        let whole = sum(&straight).unwrap();
        let total = |read: fn(&Ledger) -> u64| parts.iter().map(read).sum::<u64>();
        prop_assert_eq!(whole.acknowledged, total(|l| l.acknowledged));
        prop_assert_eq!(whole.lost, total(|l| l.lost));
        prop_assert_eq!(whole.unverified, total(|l| l.unverified));
        let reversed: Vec<&Ledger> = parts.iter().rev().collect();
        prop_assert_eq!(sum(&reversed), Some(whole.clone()));
        let (front, back) = straight.split_at(parts.len() / 2);
        let halves: Vec<Ledger> = [sum(front), sum(back)].into_iter().flatten().collect();
        prop_assert_eq!(sum(&halves.iter().collect::<Vec<_>>()), Some(whole));
    }
}
