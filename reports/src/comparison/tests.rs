//! Comparisons of runs that are made up.

use super::*;
use crate::fixtures;
use crate::model::Run;

fn input(name: &str, run: Run) -> Input {
    Input { name: name.to_owned(), run }
}

/// A run with the variants `names`, measured in `rounds` rounds at `rate_per_s`; the response times of each are a round's own factor times
/// the variant's.
fn run(names: &[(&str, f64)], rounds: u32, rate_per_s: f64) -> Run {
    let mut run = fixtures::three_modes();
    let (variant, result) = (run.plan.variants[1].clone(), run.results[1].clone());
    run.plan.variants =
        names.iter().map(|(name, _)| crate::model::Variant { name: (*name).to_owned(), ..variant.clone() }).collect();
    run.plan.rate_per_s = rate_per_s;
    run.plan.repeat = rounds;
    run.results.clear();
    for round in 1..=rounds {
        let of_round = 1.0 + 0.05 * f64::from(round % 4);
        for (place, (name, slow)) in names.iter().enumerate() {
            let noise = 1.0 + 0.004 * ((f64::from(round) * 7.3 + place as f64 * 3.1).sin());
            let mut result =
                crate::model::TargetResult { target: (*name).to_owned(), repetition: round, ..result.clone() };
            result.load.response_time = scaled(of_round * slow * noise);
            run.results.push(result);
        }
    }
    run
}

/// 100,000 samples between 100 µs and 1 ms, times `factor`.
fn scaled(factor: f64) -> Times {
    let pairs: Vec<(u64, u64)> =
        (1..=1000).map(|i| ((100_000.0 * factor) as u64 + i * (900.0 * factor) as u64, 100)).collect();
    fixtures::times(&pairs)
}

fn line<'a>(scenario: &'a Scenario, label: &str) -> &'a Line {
    scenario.lines.iter().find(|line| line.label == label).unwrap()
}

#[test]
fn a_difference_that_all_rounds_have_is_told_and_one_within_the_noise_is_not() {
    let all = run(&[("a", 1.0), ("same", 1.0), ("slow", 1.3)], 8, 1000.0);
    let compared = compare(&[input("all", all)], None).unwrap();
    let scenario = &compared.scenarios[0];
    let p50 = line(scenario, "response time p50");
    assert_eq!(
        (compared.reference.as_str(), scenario.title.as_str(), scenario.is_paired),
        ("a", "at 1\u{202f}000/s", true)
    );
    assert_eq!(p50.letters, ["a", "a", "b"]);
    assert_eq!(p50.ratios[0], None);
    let slow = p50.ratios[2].unwrap();
    assert!((slow.ratio - 1.3).abs() < 0.02 && slow.low.unwrap() > 1.25 && slow.high.unwrap() < 1.35, "{slow:?}");
    assert!(!p50.ratios[1].unwrap().is_told());
}

#[test]
fn intervals_grow_with_the_number_of_comparisons() {
    let width = |names: &[(&str, f64)]| {
        let compared = compare(&[input("all", run(names, 6, 1000.0))], None).unwrap();
        let ratio = line(&compared.scenarios[0], "response time p99").ratios[1].unwrap();
        ratio.high.unwrap() / ratio.low.unwrap()
    };
    assert!(width(&[("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)]) > width(&[("a", 1.0), ("b", 1.0)]));
}

#[test]
fn one_round_tells_nobody_apart_and_says_so() {
    let compared = compare(&[input("all", run(&[("a", 1.0), ("slow", 9.0)], 1, 1000.0))], None).unwrap();
    assert_eq!(line(&compared.scenarios[0], "response time p50").letters, ["a", "a"]);
    assert!(compared.limits.iter().any(|limit| limit.contains("measured once")), "{:?}", compared.limits);
}

#[test]
fn the_same_variant_in_two_files_is_two_subjects_called_after_the_files() {
    let files = [input("old", run(&[("a", 1.0)], 5, 1000.0)), input("new", run(&[("a", 2.0)], 5, 1000.0))];
    let compared = compare(&files, Some("a (new)")).unwrap();
    let names: Vec<&str> = compared.subjects.iter().map(|subject| subject.name.as_str()).collect();
    assert_eq!((names, compared.reference.as_str()), (vec!["a (old)", "a (new)"], "a (new)"));
    let ratio = line(&compared.scenarios[0], "response time p50").ratios[0].unwrap();
    assert!((ratio.ratio - 0.5).abs() < 0.05, "{ratio:?}");
    assert!(!compared.scenarios[0].is_paired);
    assert!(compared.limits.iter().any(|limit| limit.contains("runs of their own")));
}

/// Changes one thing of a run.
type Change = fn(&mut Run);

#[test]
fn unlike_plans_and_machines_are_refused_with_the_fields_that_differ() {
    let changes: [(&str, Change); 7] = [
        ("plan.idle_ms: ", |run| run.plan.idle_ms += 1),
        ("plan.connections: ", |run| run.plan.connections = 1234),
        ("plan.payload_bytes: ", |run| run.plan.payload_bytes = 1),
        ("plan.duration_ms: ", |run| run.plan.duration_ms += 1),
        ("environment.cpu_model: ", |run| run.environment.cpu_model = "another".to_owned()),
        ("environment.kernel: ", |run| run.environment.kernel = "another".to_owned()),
        ("tool.build_profile: ", |run| run.tool.build_profile = "debug".to_owned()),
    ];
    for (field, change) in changes {
        let (one, mut other) = (run(&[("a", 1.0)], 2, 1000.0), run(&[("b", 1.0)], 2, 1000.0));
        change(&mut other);
        let error = compare(&[input("one", one), input("other", other)], None).unwrap_err().to_string();
        assert!(error.starts_with("one and other cannot be compared: ") && error.contains(field), "{error}");
    }
    let harmless: [Change; 5] = [
        |run| run.plan.idle_ms = 0,
        |run| run.plan.seed += 1,
        |run| run.plan.repeat += 1,
        |run| run.plan.objectives.clear(),
        |run| run.plan.name = "another".to_owned(),
    ];
    for change in harmless {
        let (one, mut other) = (run(&[("a", 1.0)], 2, 1000.0), run(&[("b", 1.0)], 2, 1000.0));
        change(&mut other);
        assert!(compare(&[input("one", one), input("other", other)], None).is_ok());
    }
}

/// A search that found `rate_per_s` for each.
fn capacities(of: &[(&str, f64)]) -> Run {
    let mut run = fixtures::capacity();
    let found = run.capacity[0].clone();
    run.capacity = of
        .iter()
        .map(|(name, rate)| crate::model::Capacity {
            variant: (*name).to_owned(),
            rate_per_s: Some(*rate),
            ..found.clone()
        })
        .collect();
    run.environment = fixtures::three_modes().environment;
    run.tool = fixtures::three_modes().tool;
    run
}

#[test]
fn other_rates_go_together_when_they_are_the_same_fraction_of_the_capacities() {
    let at = |name: &str, rate: f64| input(name, run(&[(name, 1.0)], 5, rate));
    let found = || input("capacities", capacities(&[("a", 10_000.0), ("b", 2_000.0)]));
    let other_payload = || {
        let mut found = found();
        found.run.plan.payload_bytes += 1;
        found
    };
    let compared = compare(&[found(), at("a", 6_000.0), at("b", 1_210.0)], None).unwrap();
    assert_eq!(compared.scenarios[0].title, "at 60.2 % of each one's own capacity");
    assert_eq!(compared.scenarios[0].offered_per_s, [6_000.0, 1_210.0]);
    for (files, part) in [
        (vec![found(), at("a", 6_000.0), at("b", 1_700.0)], "b at 1\u{202f}700/s, 85 % of its capacity"),
        (vec![other_payload(), at("a", 6_000.0), at("b", 1_200.0)], "plan.payload_bytes: "),
        (
            vec![at("a", 6_000.0), at("b", 1_200.0)],
            "b was measured at 1\u{202f}200/s and nothing else was (plan.rate_per_s)",
        ),
    ] {
        let error = compare(&files, None).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_cannot_be_a_comparison_is_refused() {
    let two = || run(&[("a", 1.0), ("b", 1.0)], 2, 1000.0);
    for (files, reference, part) in [
        (vec![], None, "here are 0"),
        (vec![input("x", run(&[("a", 1.0)], 2, 1000.0))], None, "and here are 1"),
        (vec![input("x", fixtures::crash())], None, "x has neither results nor capacities nor conformance"),
        (vec![input("x", two())], Some("c"), "--reference 'c' is none of the subjects; allowed: a, b"),
        (
            vec![input("x", capacities(&[("a", 1.0)])), input("y", capacities(&[("a", 2.0)]))],
            None,
            "the capacity of a is in x and in y",
        ),
    ] {
        let error = compare(&files, reference).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_one_lacks_is_not_made_up_and_lost_events_are_marked() {
    let mut both = run(&[("a", 1.0), ("b", 1.0)], 5, 1000.0);
    for result in both.results.iter_mut().filter(|result| result.target == "b") {
        result.idle = None;
        let ledger = result.ledger.as_mut().unwrap();
        (ledger.lost, ledger.persisted) = (3, ledger.persisted - 3);
    }
    let compared = compare(&[input("x", both)], None).unwrap();
    let idle = line(&compared.scenarios[0], "SQL statements per idle hour");
    assert!(idle.values[0].is_some());
    assert_eq!((idle.values[1], idle.ratios[1], idle.letters[1].as_str()), (None, None, ""));
    let rows = ledger_rows(&compared);
    let lost = rows.iter().find(|row| row.label == "lost").unwrap();
    assert_eq!((lost.cells[0].is_fault, lost.cells[1].is_fault, lost.cells[1].text.as_str()), (false, true, "15"));
}

#[test]
fn conformance_is_shown_beside_the_subject_it_was_tested_on() {
    let mut tested = fixtures::conform();
    (tested.environment, tested.tool) = (fixtures::three_modes().environment, fixtures::three_modes().tool);
    let compared =
        compare(&[input("all", run(&[("cache-first", 1.0), ("other", 1.0)], 2, 1000.0)), input("rules", tested)], None)
            .unwrap();
    let told = compared.limits.iter().find(|limit| limit.starts_with("Tests of the contract that are not shown"));
    assert!(told.is_some_and(|limit| limit.contains("127.0.0.1:4000")), "{:?}", compared.limits);
    let rows = conformance_rows(&compared);
    assert_eq!((rows[0].cells[0].text.as_str(), rows[0].cells[1].text.as_str()), ("20", "–"), "{rows:?}");
}

#[test]
fn the_pages_are_as_they_were_looked_at() {
    let all = run(&[("python", 4.0), ("rust", 1.0), ("rust-again", 1.001)], 6, 1000.0);
    let compared = compare(
        &[input("all", all), input("capacities", capacities(&[("rust", 9000.0), ("python", 1500.0)]))],
        Some("rust"),
    )
    .unwrap();
    fixtures::assert_golden(&fixtures::path("comparison.html"), &crate::html::comparison::render(&compared));
    fixtures::assert_golden(&fixtures::path("comparison.txt"), &terminal(&compared));
    assert_eq!(serde_json::from_str::<Comparison>(&write(&compared)).unwrap(), compared);
}
