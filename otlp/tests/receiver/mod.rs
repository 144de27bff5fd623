//! A receiver of OTLP over HTTP for tests: takes everything that it is sent, and keeps it decoded.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use otlp::messages::collector::metrics::v1::ExportMetricsServiceRequest;
use otlp::messages::collector::trace::v1::ExportTraceServiceRequest;
use otlp::messages::common::v1::{KeyValue, any_value};
use otlp::messages::metrics::v1::{Metric, metric, number_data_point};
use otlp::messages::resource::v1::Resource;
use otlp::messages::trace::v1::Span;
use prost::Message;

mod request;
use request::Request;

/// Attributes as text.
pub type Attributes = BTreeMap<String, String>;

/// A span, and who told it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub resource: Attributes,
    pub span: Span,
}

/// Where it listens, and what came. Its threads end with the test's process.
pub struct Receiver {
    pub url: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Seen>,
    metrics: Vec<(Attributes, Metric)>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let keep = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keep = Arc::clone(&keep);
                thread::spawn(move || talk(stream, &keep));
            }
        });
        Self { url, kept }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Seen> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).spans.clone()
    }

    /// All metrics so far, the later ones of a name after the earlier ones.
    pub fn metrics(&self) -> Vec<(Attributes, Metric)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).metrics.clone()
    }
}

fn talk(stream: TcpStream, kept: &Mutex<Kept>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let Request { head, body } = request::read(&mut reader)?;
        keep(&head, &body, &mut kept.lock().unwrap_or_else(PoisonError::into_inner));
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

fn keep(head: &str, body: &[u8], kept: &mut Kept) {
    if head.starts_with("post /v1/traces ") {
        let request = ExportTraceServiceRequest::decode(body).expect("spans");
        for of_resource in request.resource_spans {
            let resource = resource(of_resource.resource);
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.spans.extend(spans.map(|span| Seen { resource: resource.clone(), span }));
        }
    } else {
        assert!(head.starts_with("post /v1/metrics "), "{head}");
        let request = ExportMetricsServiceRequest::decode(body).expect("metrics");
        for of_resource in request.resource_metrics {
            let resource = resource(of_resource.resource);
            let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            kept.metrics.extend(metrics.map(|metric| (resource.clone(), metric)));
        }
    }
}

fn resource(resource: Option<Resource>) -> Attributes {
    attributes(&resource.expect("a resource").attributes)
}

/// As text.
pub fn attributes(attributes: &[KeyValue]) -> Attributes {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.clone()) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

/// The values of a counter or a gauge, with their attributes.
pub fn values(metric: &Metric) -> Vec<(Attributes, f64)> {
    let points = match metric.data.as_ref().expect("data") {
        metric::Data::Sum(sum) => &sum.data_points,
        metric::Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let value = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(number)) => *number,
        other => panic!("{other:?}"),
    };
    points.iter().map(|point| (attributes(&point.attributes), value(&point.value))).collect()
}
