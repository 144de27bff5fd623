//! Histories of runs that are made up.

use super::*;
use crate::fixtures;
use crate::model::{Outcome, Run};

/// A run on day `day` whose response times are `slow` times as long as they were.
fn run(day: u32, slow: f64) -> Run {
    let mut run = fixtures::three_modes();
    run.run_id = format!("run-{day}");
    run.started_at = format!("2026-{:02}-{:02}T01:00:00Z", 1 + day / 28, 1 + day % 28);
    run.tool.revision = format!("revision{day}");
    run.verdict.outcome = Outcome::Pass;
    run.plan.idle_ms = 60_000;
    for result in &mut run.results {
        // Some noise, or all runs of a level would be the same.
        let noise = 1.0 + 0.01 * f64::from((day * 7 + result.repetition * 3) % 5);
        let factor = if result.target == "cache-first" { slow * noise } else { noise };
        let pairs: Vec<(u64, u64)> =
            (1..=100).map(|i| ((200_000.0 * factor) as u64 + i * (900.0 * factor) as u64, 200)).collect();
        result.load.response_time = fixtures::times(&pairs);
    }
    run
}

fn of(runs: impl IntoIterator<Item = Run>) -> History {
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for run in runs {
        match Entry::of(&format!("{}/run.json", run.run_id), run) {
            Ok(entry) => entries.push(entry),
            Err(why) => left_out.push(why),
        }
    }
    history(entries, left_out)
}

fn series<'a>(setting: &'a Setting, metric: Metric, variant: &str) -> &'a Series {
    setting.series.iter().find(|series| series.metric == metric && series.variant == variant).unwrap()
}

/// The history that the golden files show: a change for the worse on the 15th day, one file that is none.
pub fn example() -> History {
    let mut with_foreign = of((0..24).rev().map(|day| run(day, if day < 14 { 1.0 } else { 1.3 })));
    with_foreign.left_out.push(LeftOut { path: "notes.json".to_owned(), reason: "this is not JSON".to_owned() });
    with_foreign
}

#[test]
fn a_slower_server_is_marked_where_it_became_slower_and_nothing_else_is() {
    let history = example();
    let [setting] = &history.settings[..] else { panic!("one setting: {:?}", history.settings) };
    let marked: Vec<(Metric, &str, usize)> = history
        .changes()
        .iter()
        .map(|(_, series, change)| (series.metric, series.variant.as_str(), change.run))
        .collect();
    assert_eq!(
        marked,
        [(Metric::ResponseTimeP50, "cache-first", 14), (Metric::ResponseTimeP99, "cache-first", 14)],
        "oldest run first, whatever the order of the files"
    );
    let change = &series(setting, Metric::ResponseTimeP99, "cache-first").changes[0];
    assert!(change.is_worse && change.run_before == 13 && (change.ratio.unwrap() - 1.3).abs() < 0.02, "{change:?}");
}

#[test]
fn too_few_runs_are_told_and_not_judged() {
    let history = of((0..11).map(|day| run(day, if day < 6 { 1.0 } else { 2.0 })));
    let p50 = series(&history.settings[0], Metric::ResponseTimeP50, "cache-first");
    assert_eq!((p50.changes.len(), p50.note.as_deref()), (0, Some("too few runs: 11 of 12")));
    assert_eq!(history.series_tested(), 0);
}

#[test]
fn runs_that_are_not_alike_are_no_series_and_the_field_that_sets_them_apart_is_told() {
    type Change = fn(&mut Run);
    let cases: [(&str, Change); 7] = [
        ("plan.connections: 16 and 64", |run| run.plan.connections = 64),
        ("plan.rate_per_s: 1000 and 2000", |run| run.plan.rate_per_s = 2000.0),
        ("plan.database: sqlite and postgres", |run| run.plan.database = Some("postgres".to_owned())),
        ("plan.faults: none and cpu=10%", |run| run.plan.faults = vec!["cpu=10%".to_owned()]),
        ("environment.cores: 2 and 8", |run| run.environment.cores = 8),
        ("tool.build_profile: release and debug", |run| run.tool.build_profile = "debug".to_owned()),
        ("plan.idle_ms: 60000 and 5000", |run| run.plan.idle_ms = 5_000),
    ];
    for (field, change) in cases {
        let mut others = [run(3, 1.0), run(4, 1.0)];
        others.iter_mut().for_each(change);
        let history = of([run(1, 1.0), others[0].clone(), run(2, 1.0), run(5, 1.0), others[1].clone()]);
        let told: Vec<(usize, Vec<String>)> =
            history.settings.iter().map(|setting| (setting.runs.len(), setting.differs.clone())).collect();
        assert_eq!(told, [(3, vec![]), (2, vec![field.to_owned()])]);
    }
}

#[test]
fn a_run_without_an_idle_phase_goes_with_those_that_have_one_but_does_not_join_two_that_differ() {
    let with_idle = |day: u32, idle_ms: u64| {
        let mut run = run(day, 1.0);
        run.plan.idle_ms = idle_ms;
        run
    };
    let history = of([with_idle(1, 0), with_idle(2, 60_000), with_idle(3, 5_000), with_idle(4, 0)]);
    let told: Vec<(usize, Vec<String>)> =
        history.settings.iter().map(|setting| (setting.runs.len(), setting.differs.clone())).collect();
    assert_eq!(told, [(3, vec![]), (1, vec!["plan.idle_ms: 60000 and 5000".to_owned()])]);
}

#[test]
fn what_has_no_place_in_a_series_is_told_with_the_reason() {
    let mut invalid = run(1, 1.0);
    invalid.verdict.outcome = Outcome::Invalid;
    invalid.verdict.reasons = vec!["the generator could not keep up".to_owned()];
    let mut undated = run(2, 1.0);
    undated.started_at = "yesterday".to_owned();
    let again = run(3, 1.0);
    let mut crash = fixtures::crash();
    (crash.run_id, crash.verdict.outcome) = ("crash".to_owned(), Outcome::Missed);
    let history = of([invalid, undated, again.clone(), again, crash]);
    let told: Vec<&str> = history.left_out.iter().map(|left_out| left_out.reason.as_str()).collect();
    assert_eq!(
        told,
        [
            "it has neither a load nor a capacity (a crash test or a test of the contract)",
            "the run is invalid: the generator could not keep up",
            "started_at is 'yesterday', which is no time (RFC 3339)",
            "the same run as run-3/run.json",
        ]
    );
    assert_eq!(history.settings[0].runs.len(), 1);
}

#[test]
fn of_a_search_only_the_capacity_is_followed_and_only_where_it_is_one() {
    let search = |day: u32, limit: Option<&str>| {
        let mut run = fixtures::capacity();
        (run.run_id, run.started_at) = (format!("search-{day}"), format!("2026-01-{:02}T00:00:00Z", day + 1));
        run.verdict.outcome = Outcome::Pass;
        run.capacity.iter_mut().for_each(|found| found.limit = limit.map(str::to_owned));
        run
    };
    let history = of([search(1, None), search(2, Some("the generator")), search(3, None)]);
    assert!(
        history.settings[0].series.iter().all(|series| series.metric == Metric::Capacity && series.points.len() == 2)
    );
    assert_eq!(history.left_out.len(), 1, "one that is only known to be at least something is no number");
}

#[test]
fn the_schema_and_the_terminal_are_as_they_were() {
    let schema = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/history.v1.json");
    fixtures::assert_golden(&schema, &(serde_json::to_string_pretty(&json_schema()).unwrap() + "\n"));
    let history = example();
    let value = serde_json::from_str(&write(&history)).unwrap();
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    assert!(validator.iter_errors(&value).next().is_none());
    assert_eq!(serde_json::from_value::<History>(value).unwrap(), history);
    fixtures::assert_golden(&fixtures::path("history.txt"), &terminal(&history));
}

#[test]
fn the_page_shows_the_change_asks_nothing_of_the_network_and_is_as_it_was() {
    let page = crate::html::history::render(&example());
    assert!(page.contains("response time p99") && page.contains("left-out") && page.contains("this is not JSON"));
    assert!(!page.contains("<link") && !page.contains("src=\""));
    // Without the style sheet and the data, which other tests have.
    let body = page.split("</style>").nth(1).unwrap().split("<script").next().unwrap();
    fixtures::assert_golden(&fixtures::path("history.html"), body);
}

#[test]
fn a_single_run_is_a_table_and_several_of_one_day_go_by_the_hour() {
    let page = crate::html::history::render(&of([run(1, 1.0)]));
    assert!(page.contains("One run has no history yet") && page.contains("<th scope=\"row\">response time p99</th>"));
    assert!(!page.contains("<figure"), "a chart of one point");
    let mut at_noon = run(1, 1.0);
    at_noon.started_at = at_noon.started_at.replace("T01", "T12");
    at_noon.run_id.push('b');
    let page = crate::html::history::render(&of([run(1, 1.0), at_noon.clone()]));
    let hour = &at_noon.started_at[11..16];
    assert!(page.contains(&format!(">{hour}</text>")) && page.contains("runs of "), "{hour}");
    assert!(page.contains("No change is marked: too few runs: 2 of 12."));
}

#[test]
fn files_that_are_left_out_for_one_reason_are_told_together() {
    let mut history = of([run(1, 1.0)]);
    let left_out = |path: &str, reason: &str| LeftOut { path: path.to_owned(), reason: reason.to_owned() };
    history.left_out = vec![left_out("a.json", "no JSON"), left_out("b.json", "no run"), left_out("c.json", "no JSON")];
    let page = crate::html::history::render(&history);
    let (_, section) = page.split_once("id=\"left-out\"").unwrap();
    assert_eq!(section.split("</section>").next().unwrap().matches("<li>").count(), 2);
    assert!(["a.json", "b.json", "c.json"].iter().all(|path| section.contains(path)));
}

#[test]
fn what_a_file_says_is_escaped() {
    let mut evil = run(1, 1.0);
    evil.tool.revision = "</script><script>alert(1)</script>".to_owned();
    let page = crate::html::history::render(&of([evil]));
    assert!(!page.contains("<script>alert"));
}
