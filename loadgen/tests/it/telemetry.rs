//! Runs that are followed: every span and number that reaches a receiver, against what the run itself says.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use otlp::TraceContext;
use otlp::messages::trace::v1::Span;
use reports::model::{CaveatKind, Run};

use crate::otlp_receiver::{Receiver, Seen, attributes, values};
use crate::support::{PATIENT, acknowledge, answer, assert_ends_with, begin, run, target};

/// Generator and server read the time of day each for itself, the one of them once: a clock that is being set right may be so far off.
const CLOCKS_APART_NS: u64 = 20_000_000;

const GENERATOR: &str = "millrace-loadgen";
const SERVER: &str = "millrace-server";

/// The spans of each trace that begins with an event, by name.
fn traces(spans: &[Seen]) -> HashMap<Vec<u8>, BTreeMap<(String, String), Span>> {
    let mut traces: HashMap<Vec<u8>, BTreeMap<(String, String), Span>> = HashMap::new();
    for Seen { resource, span } in spans {
        let name = (resource["service.name"].clone(), span.name.clone());
        let doubled = traces.entry(span.trace_id.clone()).or_default().insert(name, span.clone());
        assert!(doubled.is_none(), "{} is there twice in a trace", span.name);
    }
    traces.retain(|_, spans| spans.contains_key(&(GENERATOR.to_owned(), "ingest".to_owned())));
    traces
}

/// The four spans of one event: of each the parent is the one before, and its times are within that one's where they have to be.
#[track_caller]
fn assert_is_whole(trace: &BTreeMap<(String, String), Span>) {
    let span = |service: &str, name: &str| {
        trace
            .get(&(service.to_owned(), name.to_owned()))
            .unwrap_or_else(|| panic!("no {name} of {service}: {:?}", trace.keys()))
    };
    let whole = span(GENERATOR, "ingest");
    let request = span(GENERATOR, "request");
    let answered = span(SERVER, "POST /api/events");
    let persisted = span(SERVER, "persist");
    assert_eq!(trace.len(), 4, "{:?}", trace.keys());
    assert!(whole.parent_span_id.is_empty(), "the first of its trace");
    for (child, parent) in [(request, whole), (answered, request), (persisted, answered)] {
        assert_eq!(child.parent_span_id, parent.span_id, "{} within {}", child.name, parent.name);
    }
    assert!(whole.start_time_unix_nano <= request.start_time_unix_nano, "sent when it was due, or later");
    assert_eq!(whole.end_time_unix_nano, request.end_time_unix_nano);
    assert!(request.start_time_unix_nano <= answered.start_time_unix_nano + CLOCKS_APART_NS);
    assert!(answered.end_time_unix_nano <= request.end_time_unix_nano + CLOCKS_APART_NS);
    // The one is from a clock that goes on steadily, the other to the microsecond.
    assert!(answered.start_time_unix_nano <= persisted.start_time_unix_nano + 1_000_000);
    assert!(persisted.start_time_unix_nano <= persisted.end_time_unix_nano);
    for span in [whole, request, answered] {
        assert_eq!(attributes(&span.attributes)["http.response.status_code"], "202", "{}", span.name);
        assert!(span.status.is_none(), "{} has not failed", span.name);
    }
}

fn number(run: &Run, receiver: &Receiver, service: &str, name: &str, attribute: Option<(&str, &str)>) -> f64 {
    let mut of_service = receiver.metrics().into_iter().filter(|(resource, metric)| {
        assert_eq!(resource["millrace.run_id"], run.run_id);
        resource["service.name"] == service && metric.name == name
    });
    // What was told last.
    let (_, metric) = of_service.next_back().unwrap_or_else(|| panic!("no {name} of {service}"));
    let matching = |attributes: &BTreeMap<String, String>| {
        attribute.is_none_or(|(key, value)| attributes.get(key).is_some_and(|found| found == value))
    };
    values(&metric).into_iter().filter(|(attributes, _)| matching(attributes)).map(|(_, value)| value).sum()
}

#[test]
fn every_event_is_followed_from_when_it_was_due_to_its_commit_in_every_mode() {
    for mode in ["cache-first", "journal-first", "db-first"] {
        let receiver = Receiver::start();
        let asked = ["--mode", mode, "--otlp", &receiver.url, "--otlp-share", "1"];
        let done = run(&[&asked[..], &PATIENT].concat());
        assert_ends_with(&done, 0);
        assert_eq!(done.run.plan.followed_share, Some(1.0));
        let spans = receiver.spans();
        let traces = traces(&spans);
        let result = &done.run.results[0];
        let acknowledged = result.ledger.as_ref().expect("a ledger").acknowledged;
        assert_eq!(traces.len() as u64, acknowledged, "{mode}: {}", done.text);
        traces.values().for_each(assert_is_whole);
        let of_load: Vec<&Seen> = spans.iter().filter(|seen| seen.span.name == "repetition").collect();
        let [Seen { resource, span: load }] = of_load[..] else { panic!("{of_load:?}") };
        assert_eq!(resource["millrace.run_id"], done.run.run_id);
        for event in traces.values().map(|trace| &trace[&(GENERATOR.to_owned(), "ingest".to_owned())]) {
            assert_eq!((&event.links[0].trace_id, &event.links[0].span_id), (&load.trace_id, &load.span_id));
            assert!(load.start_time_unix_nano <= event.start_time_unix_nano, "within the repetition");
        }
        let server = spans.iter().find(|seen| seen.resource["service.name"] == SERVER).expect("a span of it");
        assert_eq!(
            (&server.resource["millrace.mode"][..], &server.resource["millrace.run_id"]),
            (mode, &done.run.run_id)
        );
        let accepted =
            number(&done.run, &receiver, GENERATOR, "millrace.outcomes", Some(("millrace.outcome", "accepted")));
        assert_eq!(accepted, result.load.outcomes.accepted as f64);
        // The server told its numbers when it had ended, so that nothing is missing in them.
        let persisted = number(&done.run, &receiver, SERVER, "ingest_events_persisted", None);
        assert_eq!(persisted, acknowledged as f64, "{mode}");
        assert!(number(&done.run, &receiver, SERVER, "ingest_sql_statements", None) > 0.0);
        assert!(!done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::TelemetryIncomplete), "{}", done.text);
    }
}

#[test]
fn any_target_gets_a_header_with_each_request_and_spans_are_told_of_those_that_say_so() {
    let seen: Arc<Mutex<Vec<Option<TraceContext>>>> = Arc::default();
    let see = Arc::clone(&seen);
    let address = target(move |request, stream| {
        if !request.is_event() {
            return answer(stream, 201, r#"{"api_key":"key"}"#);
        }
        let values: Vec<&str> = request.headers.iter().filter_map(|line| line.strip_prefix("traceparent: ")).collect();
        let context = values.first().map(|value| TraceContext::parse(value.as_bytes()).expect("a traceparent"));
        let mut seen = see.lock().expect("the list");
        assert!(values.len() <= 1, "{values:?}");
        seen.push(context);
        acknowledge(stream, seen.len() as u64)
    });
    let url = format!("http://{address}");
    let plain = ["--target", &url, "--no-ledger"];
    let done = run(&[&plain[..], &PATIENT].concat());
    assert_eq!(done.run.plan.followed_share, None);
    let unfollowed = std::mem::take(&mut *seen.lock().expect("the list"));
    assert!(!unfollowed.is_empty() && unfollowed.iter().all(Option::is_none), "off, requests are as they always were");

    let receiver = Receiver::start();
    let done = run(&[&plain[..], &["--otlp", &receiver.url, "--otlp-share", "0.3"], &PATIENT].concat());
    let contexts: Vec<TraceContext> =
        seen.lock().expect("the list").iter().map(|context| context.expect("a header")).collect();
    let sampled: Vec<&TraceContext> = contexts.iter().filter(|context| context.is_sampled).collect();
    let share = sampled.len() as f64 / contexts.len() as f64;
    assert!((0.15..0.45).contains(&share), "{share} of {}", contexts.len());
    let spans = receiver.spans();
    let requests: HashMap<(Vec<u8>, Vec<u8>), &Span> = spans
        .iter()
        .filter(|seen| seen.span.name == "request")
        .map(|seen| ((seen.span.trace_id.clone(), seen.span.span_id.clone()), &seen.span))
        .collect();
    assert_eq!(requests.len(), sampled.len(), "{}", done.text);
    for context in sampled {
        let id = (context.trace_id.to_be_bytes().to_vec(), context.span_id.to_be_bytes().to_vec());
        assert!(requests.contains_key(&id), "{context:?} was told of");
    }
}

#[test]
fn a_receiver_that_is_not_there_costs_a_run_a_caveat_and_no_more_than_some_seconds() {
    let asked = ["--mode", "cache-first", "--otlp", "http://127.0.0.1:1", "--otlp-share", "1"];
    let begun = Instant::now();
    let done = begin(&[&asked[..], &PATIENT].concat()).end();
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    assert_ends_with(&done, 0);
    let ledger = done.run.results[0].ledger.as_ref().expect("a ledger");
    assert_eq!(ledger.lost, 0);
    let caveat = done.run.caveats.iter().find(|caveat| caveat.kind == CaveatKind::TelemetryIncomplete);
    let caveat = caveat.unwrap_or_else(|| panic!("{}", done.text));
    // Two spans an event, and the one of the repetition.
    let lost = (2 * ledger.acknowledged + 1).to_string();
    assert!(caveat.detail.contains(&format!("of the generator's spans 0 reached http://127.0.0.1:1, 0 were dropped for want of room and {lost} not taken")), "{}", caveat.detail);
}

#[test]
fn what_is_no_receiver_or_no_share_is_refused_with_what_to_give() {
    for (arguments, parts) in [
        (&["--otlp", "collector:4317"][..], &["--otlp = collector:4317", "http://127.0.0.1:4318"][..]),
        (&["--otlp", "https://h:4318"], &["is https", "a collector beside this program"]),
        (&["--otlp", "http://h:4318/v1/traces"], &["the path of one signal"]),
        (&["--otlp", "http://h:4318", "--otlp-share", "1.5"], &["--otlp-share = 1.5", "0 to 1 of all requests"]),
        (&["--otlp-share", "0.5"], &["--otlp"]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(["run", "--dry-run"]).args(arguments).output();
        let output = output.expect("the program runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        for part in parts {
            assert!(told.contains(part), "{arguments:?} should be told {part:?}: {told}");
        }
    }
}
