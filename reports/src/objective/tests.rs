//! Tests of objectives.

use proptest::prelude::*;

use super::*;
use crate::fixtures;
use crate::model::{Times, Variant};

const WELL_FORMED: &[&str] = &[
    "response_time.p99 < 1ms",
    "cache-first: response_time.p50 <= 1.5 x null",
    "localhost:8080: response_time.p50 <= 2 x other:80",
    "ledger.lost == 0",
    "load.failed == 0",
    "achieved_ratio >= 0.99",
    "achieved_ratio >= 99%",
    "send_delay.p99 < 100us",
    "time_to_durable.p99 < 1s",
    "time_to_delivered.p99 < 1s",
    "ledger.undelivered == 0",
    "idle.sql_statements_per_hour <= 150",
    "idle.sql_statements_per_hour <= 150/h",
    "idle.first_event_time_to_durable < 50ms",
    "resources.server_rss_peak < 500MiB",
    "resources.server_cpu_per_event < 50µs",
    "achieved_per_s > 990/s",
];

#[test]
fn what_is_printed_reads_as_the_same_objective() {
    for text in WELL_FORMED {
        let objective = parse(text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(objective.to_string(), *text);
        assert_eq!(parse(&objective.to_string()).unwrap(), objective, "{text}");
    }
    assert_eq!(parse("response_time.p99.9<1_000us").unwrap().to_string(), "response_time.p999 < 1000us");
    assert_eq!(parse("response_time.p50≤1.5×null").unwrap().to_string(), "response_time.p50 <= 1.5 x null");
}

fn errors(texts: &[&str]) -> String {
    texts.iter().map(|text| parse(text).unwrap_err().to_string()).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn an_unknown_metric_or_variant_is_shown_with_what_was_probably_meant() {
    let texts = ["response_time.p9 < 1ms", "response_time.p95 < 1ms", "latency.p99 < 1ms", "ledger.losst == 0"];
    insta::assert_snapshot!(errors(&texts), @r#"
no metric is called "response_time.p9"
  response_time.p9 < 1ms
  ^^^^^^^^^^^^^^^^
did you mean response_time.p90? response_time has p50, p90, p99, p999, p9999, min, mean, max

no metric is called "response_time.p95"
  response_time.p95 < 1ms
  ^^^^^^^^^^^^^^^^^
did you mean response_time.p90? response_time has p50, p90, p99, p999, p9999, min, mean, max

no metric is called "latency.p99"
  latency.p99 < 1ms
  ^^^^^^^^^^^
metrics begin with response_time, service_time, send_delay, connection_wait, refused_time, connect_time, time_to_durable, time_to_delivered, ingest, batch, inbox, ack, offered_per_s, achieved_per_s, achieved_ratio, load, backlog, ledger, idle, resources

no metric is called "ledger.losst"
  ledger.losst == 0
  ^^^^^^^^^^^^
did you mean ledger.lost? ledger has acknowledged, persisted, lost, duplicated, corrupted, unverified, unacknowledged, delivered, undelivered, delivered_repeatedly, delivered_altered, delivered_badly_signed, delivered_out_of_order, drained_after
"#);
    insta::assert_snapshot!(parse_for("cache-frist: ledger.lost == 0", &["null", "cache-first"]).unwrap_err(), @r#"
no variant is called "cache-frist"
  cache-frist: ledger.lost == 0
  ^^^^^^^^^^^
variants are null, cache-first; did you mean "cache-first"?
"#);
    insta::assert_snapshot!(parse_for("response_time.p50 < 2 x nul", &["null", "cache-first"]).unwrap_err(), @r#"
no variant is called "nul"
  response_time.p50 < 2 x nul
                          ^^^
variants are null, cache-first; did you mean "null"?
"#);
}

#[test]
fn a_comparison_that_is_none_is_shown_with_those_there_are() {
    let texts = ["ledger.lost = 0", "ledger.lost", "< 3ms", ": ledger.lost == 0", ""];
    insta::assert_snapshot!(errors(&texts), @r#"
"=" is no comparison
  ledger.lost = 0
              ^
write one of <, <=, >, >=, ==

there is no comparison
  ledger.lost
  ^^^^^^^^^^^
write one of <, <=, >, >=, ==

there is no metric
  < 3ms
  ^
write a metric before it, as in response_time.p99 < 1ms

there is no variant before the colon
  : ledger.lost == 0
  ^^^^^^^^^^^^^^
write variant: metric < bound

there is no comparison
  
  ^
write one of <, <=, >, >=, ==
"#);
}

#[test]
fn a_bound_that_is_none_is_shown_with_the_units_that_fit() {
    let texts = [
        "response_time.p99 < 1",
        "cache-first: response_time.p99 < 5 parsecs",
        "ledger.lost ==",
        "response_time.p50 < -1ms",
        "response_time.p50 < 1.5 x",
    ];
    insta::assert_snapshot!(errors(&texts), @r#"
"1" has no unit
  response_time.p99 < 1
                      ^
a time needs one of ns, us, ms, s, min

"parsecs" is not a unit of this metric
  cache-first: response_time.p99 < 5 parsecs
                                     ^^^^^^^
a time needs one of ns, us, ms, s, min

there is no bound
  ledger.lost ==
                ^
write a number; a count is a plain number

"-1ms" is not a number that can be a bound
  response_time.p50 < -1ms
                      ^^^^
write digits, as in 1.5; a time needs one of ns, us, ms, s, min

there is no variant after the x
  response_time.p50 < 1.5 x
                          ^
write as in 1.5 x null
"#);
}

/// One variant, measured `readings.len()` times.
fn judged(expression: &str, readings: Vec<Times>) -> ObjectiveResult {
    let mut run = fixtures::small();
    let template = run.results.remove(1);
    run.plan.variants =
        vec![Variant { name: "x".to_owned(), url: None, mode: None, polling: None, role: None, profile: None }];
    run.plan.objectives = vec![expression.to_owned()];
    run.results = (1..)
        .zip(readings)
        .map(|(repetition, times)| {
            let mut result = TargetResult { target: "x".to_owned(), repetition, ..template.clone() };
            result.load.response_time = times;
            result
        })
        .collect();
    evaluate(&run).remove(0)
}

fn p99(ms: u64, count: u64, censored: u64) -> Times {
    let mut histogram = crate::histogram::TimeHistogram::new();
    (0..count).for_each(|_| histogram.record(ms * 1_000_000));
    histogram.times(censored)
}

#[test]
fn an_objective_is_decided_only_when_every_possible_truth_agrees() {
    let cases = [
        ("a plain value below the bound", "< 2ms", vec![p99(1, 20_000, 0)], Some(true)),
        ("a plain value above the bound", "< 2ms", vec![p99(3, 20_000, 0)], Some(false)),
        ("too few samples below the bound", "< 2ms", vec![p99(1, 9_000, 0)], None),
        ("too few samples and even the least it can be is above", "< 2ms", vec![p99(3, 9_000, 0)], Some(false)),
        ("a censored rank below the bound", "< 2ms", vec![p99(1, 20_000, 500)], None),
        ("a censored rank above the bound", "< 2ms", vec![p99(3, 20_000, 500)], Some(false)),
        (
            "one censored repetition of three",
            "< 2ms",
            vec![p99(1, 20_000, 500), p99(1, 20_000, 0), p99(1, 20_000, 0)],
            Some(true),
        ),
        (
            "one slow repetition of three",
            "< 2ms",
            vec![p99(9, 20_000, 0), p99(1, 20_000, 0), p99(1, 20_000, 0)],
            Some(true),
        ),
        ("no samples", "< 2ms", vec![Times::default()], None),
        ("no result at all", "< 2ms", vec![], None),
        ("a lower bound that reaches a wanted minimum", "> 1us", vec![p99(1, 20_000, 500)], Some(true)),
    ];
    for (name, bound, readings, expected) in cases {
        let result = judged(&format!("response_time.p99 {bound}"), readings);
        assert_eq!(result.met, expected, "{name}: {result:#?}");
        assert_eq!(result.met.is_none(), result.met.is_none() && result.note.is_some(), "{name} does not say why");
    }
}

/// cache-first with a response time and a send delay of its own, and null as it is (p50 about 169 µs, send delay below 1 µs).
fn judged_with_delay(expression: &str, response_us: u64, service_us: u64, delay_us: u64) -> ObjectiveResult {
    let mut run = fixtures::three_modes();
    run.plan.objectives = vec![format!("cache-first: {expression}")];
    for result in run.results.iter_mut().filter(|r| r.target == "cache-first") {
        result.load.response_time = fixtures::times(&[(response_us * 1_000, 20_000)]);
        result.load.service_time = fixtures::times(&[(service_us * 1_000, 20_000)]);
        result.load.send_delay = fixtures::times(&[(delay_us * 1_000, 20_000)]);
    }
    evaluate(&run).remove(0)
}

#[test]
fn what_the_generators_own_delay_could_turn_round_is_undecided() {
    let cases = [
        ("met, with or without the delay", "response_time.p99 < 1ms", (990, 500, 490), Some(true)),
        ("missed only with the delay", "response_time.p99 < 1ms", (1_100, 900, 200), None),
        ("missed by less than even a small delay", "response_time.p99 < 1ms", (1_001, 990, 3), None),
        ("missed without the delay, too", "response_time.p99 < 1ms", (1_300, 1_100, 200), Some(false)),
        // The delays are not those of the slow events: the service time alone is above the bound.
        ("missed by the service time", "response_time.p99 < 1ms", (1_100, 1_050, 200), Some(false)),
        ("reached only with the delay", "response_time.p99 > 1ms", (1_100, 900, 200), None),
        ("a service time has no such part", "service_time.p99 < 1ms", (1_300, 1_100, 200), Some(false)),
        ("a multiple, without the delay, too", "response_time.p50 <= 1.5 x null", (300, 280, 20), Some(false)),
        ("a multiple that the delay makes", "response_time.p50 <= 1.5 x null", (300, 200, 100), None),
    ];
    for (name, expression, (response, service, delay), expected) in cases {
        let result = judged_with_delay(expression, response, service, delay);
        assert_eq!(result.met, expected, "{name}: {result:#?}");
        assert_eq!(result.note.is_some_and(|n| n.contains("the generator's own")), expected.is_none(), "{name}");
    }
    insta::assert_snapshot!(sentence(&judged_with_delay("response_time.p99 < 1ms", 1_100, 900, 200)), @r#"
cache-first: response_time.p99 < 1ms is undecided (without the generator's own send delay it may be as little as 901 µs, with it 1.1 ms: the bound lies between)
"#);
}

#[test]
fn a_count_has_to_hold_in_every_repetition() {
    let mut run = fixtures::three_modes();
    run.plan.objectives = vec!["cache-first: load.failed == 0".to_owned()];
    assert_eq!(evaluate(&run)[0].met, Some(true));
    run.results.iter_mut().rfind(|r| r.target == "cache-first").unwrap().load.outcomes.failed = 1;
    let result = evaluate(&run).remove(0);
    assert_eq!((result.met, result.value, result.values), (Some(false), Some(1.0), vec![0.0, 1.0]));
}

#[test]
fn a_ratio_is_taken_within_each_repetition_and_not_asked_of_its_reference() {
    let mut run = fixtures::three_modes();
    run.plan.objectives = vec!["response_time.p50 <= 1.5 x null".to_owned(), "ledger.lost == 0".to_owned()];
    let results = evaluate(&run);
    let of: Vec<(&str, Option<bool>)> = results.iter().map(|r| (r.variant.as_str(), r.met)).collect();
    let expected =
        [("cache-first", Some(true)), ("db-first", Some(false)), ("cache-first", Some(true)), ("db-first", Some(true))];
    assert_eq!(of, expected);
    assert_eq!(results[0].unit, "ratio");
    assert!(results[0].note.as_ref().unwrap().contains("against"), "{:?}", results[0].note);
}

#[test]
fn every_metric_is_found_by_its_name_and_read_from_a_full_run() {
    let run = fixtures::before_after();
    for name in names() {
        let metric = Metric::find(&name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(metric.to_string(), name);
        metric.read(&run.results[1]);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,40}", tail in "[a-z_.: <>=≤×0-9µ%]{0,40}") {
        for text in [text.as_str(), tail.as_str(), &format!("{text}:{tail}"), &format!("ledger.lost {tail}")] {
            if let Err(error) = parse(text) {
                prop_assert!(error.column <= text.chars().count());
                prop_assert!(!error.help.is_empty());
            }
        }
    }

    #[test]
    fn any_objective_printed_reads_as_itself(
        metric in proptest::sample::select(names()),
        number in 0.0..1e12_f64,
        operator in proptest::sample::select(vec!["<", "<=", ">", ">=", "=="]),
        variant in proptest::option::of("[a-z][a-z0-9/:.-]{0,12}[a-z]"),
        reference in proptest::option::of("[a-z][a-z0-9/:.-]{0,12}"),
    ) {
        let unit = match Metric::find(&metric).unwrap().dimension() { Dimension::Time => "us", Dimension::Bytes => "KiB", _ => "" };
        let prefix = variant.map(|v| format!("{v}: ")).unwrap_or_default();
        let bound = reference.map_or(format!("{number}{unit}"), |r| format!("{number} x {r}"));
        let objective = parse(&format!("{prefix}{metric} {operator} {bound}"));
        let objective = objective.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(parse(&objective.to_string()).unwrap(), objective);
    }
}

#[test]
fn an_operation_of_a_mix_has_objectives_of_its_own() {
    let judged = |mut run: Run, text: &str| {
        run.plan.objectives = vec![text.to_owned()];
        evaluate(&run).swap_remove(0)
    };
    let text = "cache-first: inbox.response_time.p99 < 20ms";
    let met = judged(fixtures::mixed(), text);
    assert_eq!((met.met, met.expression.as_str()), (Some(true), text));
    assert_eq!(judged(fixtures::mixed(), "cache-first: inbox.service_time.p99 < 1us").met, Some(false));
    let never = judged(fixtures::three_modes(), text);
    assert_eq!((never.met, never.value), (None, None), "nobody looked into the inbox");
    assert!(parse("inbox.response_time.p98 < 1ms").unwrap_err().help.contains("response_time.p99"));
}
