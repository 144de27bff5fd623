//! What a server tells of requests that are followed, and of those that are not.

use std::collections::BTreeMap;

use otlp::messages::trace::v1::Span;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::otlp_receiver::{Receiver, attributes, values};
use crate::{At, Sender, eventually, everywhere, read};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SENDER_ID: u64 = 0x00f0_67aa_0ba9_02b7;

fn told(at: &mut At) -> Receiver {
    let receiver = Receiver::start();
    at.settings.otlp = Some(receiver.url.parse().expect("an endpoint"));
    at.settings.otlp_attributes = vec![("deployment.environment.name".to_owned(), "test".to_owned())];
    receiver
}

async fn post(sender: &Sender, path: &str, traceparent: &str, body: Value) -> (StatusCode, Value) {
    let request = sender.request("POST", path).header("traceparent", traceparent);
    read(request.header("content-type", "application/json").body(body.to_string()).send().await.expect("an answer"))
        .await
}

/// The spans of this name, once there are so many.
async fn spans(receiver: &Receiver, name: &str, count: usize) -> Vec<Span> {
    let named =
        || receiver.spans().into_iter().map(|seen| seen.span).filter(|span| span.name == name).collect::<Vec<_>>();
    eventually(async || Some(named()).filter(|spans| spans.len() >= count)).await;
    let spans = named();
    assert_eq!(spans.len(), count, "{name}");
    spans
}

everywhere! {
    a_followed_event_is_told_of_from_its_request_to_its_commit
}

async fn a_followed_event_is_told_of_from_its_request_to_its_commit(mut at: At) {
    let receiver = told(&mut at);
    let (server, sender) = at.ready().await;
    let (status, one) =
        post(&sender, "/api/events", TRACEPARENT, json!({"type": "t", "payload": 1, "dedup_id": "a"})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{one}");
    let batch = json!([{"type": "t", "payload": 2}, {"type": ""}, {"type": "t", "payload": 3}]);
    let (status, many) = post(&sender, "/api/events/batch", TRACEPARENT, batch).await;
    assert_eq!(status, StatusCode::MULTI_STATUS, "{many}");
    let persisted = spans(&receiver, "persist", 3).await;
    let single = spans(&receiver, "POST /api/events", 1).await.remove(0);
    let batch = spans(&receiver, "POST /api/events/batch", 1).await.remove(0);
    for span in persisted.iter().chain([&single, &batch]) {
        assert_eq!(span.trace_id, TRACE_ID.to_be_bytes(), "{}", span.name);
        assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    for span in [&single, &batch] {
        assert_eq!(span.parent_span_id, SENDER_ID.to_be_bytes(), "{}", span.name);
    }
    let parents: BTreeMap<String, Vec<u8>> = persisted
        .iter()
        .map(|span| (attributes(&span.attributes)["millrace.event_id"].clone(), span.parent_span_id.clone()))
        .collect();
    let id = |answer: &Value| answer["id"].as_str().expect("an id").to_owned();
    let expected = [(id(&one), &single), (id(&many["results"][0]), &batch), (id(&many["results"][2]), &batch)];
    assert_eq!(parents, expected.map(|(id, parent)| (id, parent.span_id.clone())).into());
    assert_eq!(attributes(&single.attributes)["http.response.status_code"], "202");
    let resource = &receiver.spans()[0].resource;
    assert_eq!(
        (&resource["service.name"][..], &resource["deployment.environment.name"][..]),
        ("millrace-server", "test")
    );
    let _ = server.shutdown().await;
    let metrics = receiver.metrics();
    let (_, persisted) =
        metrics.iter().rfind(|(_, metric)| metric.name == "ingest_events_persisted").expect("told at the end");
    assert_eq!(values(persisted)[0].1, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_of_a_request_that_nobody_follows_and_every_outcome_is_of_one_that_somebody_does() {
    let mut at = At::cache_first_sqlite().await;
    let receiver = told(&mut at);
    let (server, sender) = at.ready().await;
    let event = |dedup_id: &str| json!({"type": "t", "payload": 1, "dedup_id": dedup_id});
    for unfollowed in [TRACEPARENT.replace("-01", "-00"), "nonsense".to_owned(), TRACEPARENT.to_uppercase()] {
        post(&sender, "/api/events", &unfollowed, event(&unfollowed[..8])).await;
    }
    sender.accepted(event("without")).await;
    let (status, _) = post(&sender, "/api/events", TRACEPARENT, event("without")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let told = spans(&receiver, "POST /api/events", 1).await.remove(0);
    assert_eq!(attributes(&told.attributes)["http.response.status_code"], "409");
    assert!(told.status.is_none(), "what a client did wrong is no failure of the server");
    // The receiver has it before the server has heard so.
    let counted = "ingest_otlp_spans_total{outcome=\"sent\"} 1\n";
    eventually(async || server.get("/metrics").await.text().await.expect("text").contains(counted).then_some(())).await;
    let _ = server.shutdown().await;
    assert_eq!(receiver.spans().len(), 1, "and nothing was committed for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_stops_nothing_and_is_counted() {
    let mut at = At::cache_first_sqlite().await;
    at.settings.otlp = Some("http://127.0.0.1:1".parse().expect("an endpoint"));
    let (server, sender) = at.ready().await;
    for number in 0..20 {
        let (status, _) = post(&sender, "/api/events", TRACEPARENT, json!({"type": "t", "payload": number})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    sender.persisted(20).await;
    let begun = std::time::Instant::now();
    let stopped = server.shutdown().await;
    assert_eq!(stopped.unpersisted_events, 0);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}
