//! The exporter against receivers that take what they are sent, or refuse it, or are not there, or never answer.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use otlp::messages::collector::metrics::v1::ExportMetricsServiceRequest;
use otlp::messages::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use otlp::messages::common::v1::any_value::Value;
use otlp::metric::Period;
use otlp::{Counts, Kind, Resource, Running, Settings, Span};
use prost::Message;

#[path = "receiver/request.rs"]
mod request;
use request::Request;

/// Answers one request after the other, each with the next of these statuses and bodies, the last one for ever.
fn receive(listener: TcpListener, answers: Vec<(u16, Vec<u8>)>) -> Receiver<Request> {
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut answers = answers.into_iter().peekable();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            while let Some(received) = request::read(&mut reader) {
                let Some((status, body)) = answers.peek().cloned() else { return };
                if answers.len() > 1 {
                    answers.next();
                }
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = reader.get_mut().write_all(&[head.as_bytes(), &body].concat());
                if tell.send(received).is_err() {
                    return;
                }
            }
        }
    });
    told
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

fn hasty() -> Settings {
    Settings {
        queue_max: 100,
        interval: Duration::from_millis(10),
        attempt_timeout: Duration::from_millis(500),
        retry_wait: Duration::from_millis(20),
        stop_timeout: Duration::from_secs(5),
    }
}

fn start(url: &str, settings: Settings) -> Running {
    let resource = Resource {
        service_name: "tested",
        service_version: "1",
        service_instance_id: "one".to_owned(),
        attributes: vec![("millrace.run_id".to_owned(), "r-1".to_owned())],
    };
    Running::start(url.parse().expect("an endpoint"), resource, settings).expect("a thread")
}

fn span(number: u64) -> Span {
    Span {
        trace_id: 7 << 64 | u128::from(number),
        span_id: number,
        parent_id: 0,
        name: "work".into(),
        kind: Kind::Server,
        begin_unix_ns: 10,
        end_unix_ns: 20,
        attributes: vec![("number", number.into()), ("why", "because".into())],
        events: vec![("half-way", 15)],
        link: Some((9, 8)),
        failure: Some("too late".into()),
    }
}

#[test]
fn spans_and_metrics_arrive_as_they_were_given_with_who_tells_them() {
    let (listener, url) = listener();
    let received = receive(listener, vec![(200, Vec::new())]);
    let running = start(&format!("{url}/base"), hasty());
    running.exporter().span(Span { parent_id: 3, ..span(5) });
    let period = Period { begin_unix_ns: 1, end_unix_ns: 2 };
    let metric = period.gauge("level", "1", "How high.", vec![(Vec::new(), 1.5)]);
    running.exporter().metrics(vec![metric.clone()]);
    assert_eq!(running.stop(), Counts { spans_sent: 1, metrics_sent: 1, ..Counts::default() });
    let traces = received.recv().expect("a request");
    assert!(traces.head.starts_with("post /base/v1/traces http/1.1\r\n"), "{}", traces.head);
    assert!(traces.head.contains("content-type: application/x-protobuf\r\n"), "{}", traces.head);
    let request = ExportTraceServiceRequest::decode(&traces.body[..]).expect("a message");
    let of_resource = &request.resource_spans[0];
    let text = |value: &Option<otlp::messages::common::v1::AnyValue>| match value
        .as_ref()
        .and_then(|value| value.value.clone())
    {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    let attributes: Vec<(String, String)> = of_resource
        .resource
        .as_ref()
        .expect("a resource")
        .attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), text(&attribute.value)))
        .collect();
    let expected = [
        ("service.name", "tested"),
        ("service.version", "1"),
        ("service.instance.id", "one"),
        ("millrace.run_id", "r-1"),
    ];
    assert_eq!(attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let [sent] = &of_resource.scope_spans[0].spans[..] else { panic!("{of_resource:?}") };
    assert_eq!(sent.trace_id, (7u128 << 64 | 5).to_be_bytes());
    assert_eq!((&sent.span_id[..], &sent.parent_span_id[..]), (&5u64.to_be_bytes()[..], &3u64.to_be_bytes()[..]));
    assert_eq!((sent.name.as_str(), sent.start_time_unix_nano, sent.end_time_unix_nano), ("work", 10, 20));
    assert_eq!((sent.events[0].name.as_str(), sent.events[0].time_unix_nano), ("half-way", 15));
    assert_eq!(
        (&sent.links[0].trace_id[..], &sent.links[0].span_id[..]),
        (&9u128.to_be_bytes()[..], &8u64.to_be_bytes()[..])
    );
    let status = sent.status.as_ref().expect("a status");
    assert_eq!((status.code, status.message.as_str()), (2, "too late"));
    let metrics = received.recv().expect("a second request");
    assert!(metrics.head.starts_with("post /base/v1/metrics http/1.1\r\n"), "{}", metrics.head);
    let request = ExportMetricsServiceRequest::decode(&metrics.body[..]).expect("a message");
    assert_eq!(request.resource_metrics[0].scope_metrics[0].metrics, [metric]);
}

#[test]
fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits_for_a_receiver_that_never_answers() {
    // Connections are taken, by the system, and that is all.
    let (_listener, url) = listener();
    let settings = Settings {
        queue_max: 4,
        attempt_timeout: Duration::from_millis(100),
        stop_timeout: Duration::from_millis(300),
        interval: Duration::from_secs(3600),
        ..hasty()
    };
    let running = start(&url, settings);
    let begin = Instant::now();
    (1..=20).for_each(|number| running.exporter().span(span(number)));
    assert!(begin.elapsed() < Duration::from_millis(50), "{:?}", begin.elapsed());
    assert_eq!(running.exporter().counts().spans_dropped, 16);
    running.exporter().metrics(Vec::new());
    let counts = running.stop();
    assert_eq!(counts, Counts { spans_dropped: 16, spans_lost: 4, metrics_lost: 1, ..Counts::default() });
    assert!(begin.elapsed() < Duration::from_secs(3), "stopping took {:?}", begin.elapsed());
}

#[test]
fn a_receiver_that_comes_late_gets_what_waited_for_it() {
    let (listener, url) = listener();
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let running = start(&url, hasty());
    running.exporter().span(span(1));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(running.exporter().counts(), Counts::default(), "nothing is given up");
    let received = receive(TcpListener::bind(address).expect("the port again"), vec![(200, Vec::new())]);
    received.recv_timeout(Duration::from_secs(10)).expect("the span");
    assert_eq!(running.stop(), Counts { spans_sent: 1, ..Counts::default() });
}

#[test]
fn what_a_receiver_refuses_is_lost_and_what_it_cannot_take_now_is_sent_again() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "odd".to_owned() }),
    };
    for (answers, requests, sent, lost) in [
        (vec![(400, Vec::new())], 1, 0, 2),
        (vec![(503, Vec::new()), (429, Vec::new()), (200, Vec::new())], 3, 2, 0),
        (vec![(200, partial.encode_to_vec())], 1, 1, 1),
        (vec![(200, b"not a message".to_vec())], 1, 2, 0),
    ] {
        let (listener, url) = listener();
        let told = format!("{answers:?}");
        let received = receive(listener, answers);
        let running = start(&url, Settings { interval: Duration::from_millis(100), ..hasty() });
        running.exporter().span(span(1));
        running.exporter().span(span(2));
        for _ in 0..requests {
            received.recv_timeout(Duration::from_secs(10)).expect(&told);
        }
        let counts = running.stop();
        assert_eq!((counts.spans_sent, counts.spans_lost), (sent, lost), "{told}");
        assert_eq!(received.try_iter().count(), 0, "{told}: no more requests than that");
    }
}

#[test]
fn more_spans_than_one_request_may_have_go_in_several() {
    let (listener, url) = listener();
    let received = receive(listener, vec![(200, Vec::new())]);
    let running = start(&url, Settings { queue_max: 5_000, interval: Duration::from_secs(3600), ..hasty() });
    (1..=5_000).for_each(|number| running.exporter().span(span(number)));
    assert_eq!(running.stop(), Counts { spans_sent: 5_000, ..Counts::default() });
    let counts: Vec<usize> = received
        .iter()
        .take(3)
        .map(|received| {
            ExportTraceServiceRequest::decode(&received.body[..]).expect("a message").resource_spans[0].scope_spans[0]
                .spans
                .len()
        })
        .collect();
    assert_eq!(counts, [2_048, 2_048, 904]);
}
