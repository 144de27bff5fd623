//! `--otlp`: what a receiver of OpenTelemetry is told of a run. Of each request that is followed two spans, out of the sample that is recorded of
//! it anyway, on the recording thread; of each repetition of a variant one, and its numbers.
//!
//! Each request is a trace of its own, which goes on in the target; its first span has a link to that of the repetition. (All of them
//! in one trace would be one that nothing can show.) The sending thread does no more than to write ids into a header.
//!
//! Not here: which requests are followed ([`crate::traces`]), and how it all gets to the receiver ([`otlp::exporter`]).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use otlp::metric::{Buckets, Labels, Period};
use otlp::span::Value;
use otlp::{Endpoint, Exporter, Kind, Resource, Running, Span};
use reports::format;
use reports::model::{Caveat, CaveatKind, Operation, TargetResult, Times};
use uuid::Uuid;

use crate::clock::Clock;
use crate::payload::Payloads;
use crate::recorder::{Sample, SampleOutcome};
use crate::traces::Traces;

/// Bounds of the buckets of response times and send delays, s: those of the server's own `/metrics`, and some beyond.
const BOUNDS_S: [f64; 18] = [
    50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0,
    10.0, 30.0,
];

/// Of one run.
#[derive(Debug)]
pub struct Telemetry {
    endpoint: Endpoint,
    share: f64,
    run_id: String,
    exporter: Exporter,
    running: Mutex<Option<Running>>,
}

/// Of one repetition of a variant.
#[derive(Debug)]
pub struct Spans {
    exporter: Exporter,
    traces: Traces,
    clock: Clock,
    payloads: Payloads,
}

impl Telemetry {
    /// Starts to send. `share` (0..=1) of the requests are followed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(endpoint: Endpoint, share: f64, run_id: &str) -> io::Result<Arc<Self>> {
        let resource = Resource {
            service_name: "millrace-loadgen",
            service_version: env!("CARGO_PKG_VERSION"),
            service_instance_id: Uuid::new_v4().to_string(),
            attributes: vec![("millrace.run_id".to_owned(), run_id.to_owned())],
        };
        let running = Running::start(endpoint.clone(), resource, otlp::Settings::default())?;
        let (exporter, running) = (running.exporter().clone(), Mutex::new(Some(running)));
        Ok(Arc::new(Self { endpoint, share, run_id: run_id.to_owned(), exporter, running }))
    }

    /// Flags by which a reference server tells the same receiver.
    pub fn server_flags(&self) -> Vec<String> {
        let attribute = format!("millrace.run_id={}", self.run_id);
        vec!["--otlp".to_owned(), self.endpoint.to_string(), "--otlp-attributes".to_owned(), attribute]
    }

    /// For the load with this name, which no other one has.
    pub fn spans(&self, load_name: &str, clock: Clock, payloads: Payloads) -> Spans {
        Spans { exporter: self.exporter.clone(), traces: self.traces(load_name), clock, payloads }
    }

    fn traces(&self, load_name: &str) -> Traces {
        Traces::new(load_name, self.share)
    }

    /// A repetition of a variant is over: it took from then to then (ns since the Unix epoch), and this came of it.
    pub fn measured(&self, load_name: &str, begin_unix_ns: u64, end_unix_ns: u64, result: &TargetResult) {
        let trace = self.traces(load_name).of_load();
        self.exporter.span(Span {
            trace_id: trace.context.trace_id,
            span_id: trace.whole_span_id,
            parent_id: 0,
            name: "repetition".into(),
            kind: Kind::Internal,
            begin_unix_ns,
            end_unix_ns,
            attributes: attributes(result),
            events: Vec::new(),
            link: None,
            failure: result.failure.clone().map(Into::into),
        });
        self.exporter.metrics(metrics(result, Period { begin_unix_ns, end_unix_ns }));
    }

    /// Sends what is left, for a bounded time; tells what has not arrived. Blocks. Nothing is to be told after it.
    pub fn finish(&self) -> Option<Caveat> {
        let counts = self.running.lock().unwrap_or_else(PoisonError::into_inner).take()?.stop();
        if counts.is_whole() {
            return None;
        }
        let (lost, metrics) = (counts.spans_lost, counts.metrics_lost);
        let detail = format!(
            "of the generator's spans {} reached {}, {} were dropped for want of room and {} not taken; {metrics} of {} reports of metrics were not \
             taken",
            format::count(counts.spans_sent),
            self.endpoint,
            format::count(counts.spans_dropped),
            format::count(lost),
            metrics + counts.metrics_sent,
        );
        Some(incomplete(None, detail))
    }
}

/// Not everything has arrived that was to be told of a variant, or of the run.
pub fn incomplete(subject: Option<String>, detail: String) -> Caveat {
    let remedy = "check that a receiver of OTLP over HTTP is there and keeps up, or lower --otlp-share; the numbers here are whole".to_owned();
    Caveat { kind: CaveatKind::TelemetryIncomplete, subject, detail, remedy, invalidates: false }
}

impl Spans {
    /// Which requests are followed.
    pub fn traces(&self) -> Traces {
        self.traces
    }

    /// Two spans of each that is followed: from when it was due, and, unless it never left, from its first byte.
    pub fn tell(&self, samples: &[Sample]) {
        for sample in samples {
            let trace = self.traces.of(sample.request);
            if trace.context.is_sampled {
                self.tell_one(sample, trace);
            }
        }
    }

    fn tell_one(&self, sample: &Sample, trace: crate::traces::Trace) {
        let (trace_id, load) = (trace.context.trace_id, self.traces.of_load());
        let (status, failure) = outcome(&sample.outcome);
        let waited_ns = sample.sendable_ns.saturating_sub(sample.intended_ns);
        let mut attributes = vec![
            ("millrace.event_number", sample.sequence.into()),
            ("millrace.connection_wait_ns", waited_ns.into()),
            ("millrace.repeat", sample.repeat.into()),
        ];
        if let Some(sent_ns) = sample.sent_ns {
            attributes.push(("millrace.send_delay_ns", sent_ns.saturating_sub(sample.sendable_ns).into()));
        }
        if sample.operation == Operation::Ingest {
            attributes.push(("millrace.dedup_id", self.payloads.dedup_id(sample.sequence).into()));
        }
        let status = status.map(|status| ("http.response.status_code", Value::from(status)));
        let whole = Span {
            trace_id,
            span_id: trace.whole_span_id,
            parent_id: 0,
            name: sample.operation.name().into(),
            kind: Kind::Internal,
            begin_unix_ns: self.clock.unix_ns(sample.intended_ns),
            end_unix_ns: self.clock.unix_ns(sample.done_ns),
            attributes: attributes.into_iter().chain(status.clone()).collect(),
            events: Vec::new(),
            link: Some((load.context.trace_id, load.whole_span_id)),
            failure: failure.map(Into::into),
        };
        if let Some(sent_ns) = sample.sent_ns {
            self.exporter.span(Span {
                span_id: trace.context.span_id,
                parent_id: trace.whole_span_id,
                name: "request".into(),
                kind: Kind::Client,
                begin_unix_ns: self.clock.unix_ns(sent_ns),
                attributes: status.into_iter().collect(),
                link: None,
                ..whole.clone()
            });
        }
        self.exporter.span(whole);
    }
}

/// Its status, and why it is not what was asked for.
fn outcome(outcome: &SampleOutcome) -> (Option<u16>, Option<&'static str>) {
    match outcome {
        SampleOutcome::Accepted { status, .. }
        | SampleOutcome::Known { status }
        | SampleOutcome::Batch { status, refused: 0, .. } => (Some(*status), None),
        SampleOutcome::Batch { status, .. } => (Some(*status), Some("events of a batch refused")),
        SampleOutcome::Rejected { status } => (Some(*status), Some("rejected")),
        SampleOutcome::FailedStatus { status } => (Some(*status), Some("failed")),
        SampleOutcome::NotAcknowledged { status, problem } => (Some(*status), Some(problem.reason())),
        SampleOutcome::Failed { error } => (None, Some(error)),
        SampleOutcome::TimedOut => (None, Some("timed out")),
        SampleOutcome::NotSent => (None, Some("not sent")),
    }
}

fn attributes(result: &TargetResult) -> Vec<(&'static str, Value)> {
    let load = &result.load;
    let mut attributes = vec![
        ("millrace.target", result.target.clone().into()),
        ("millrace.repetition", u64::from(result.repetition).into()),
        ("millrace.offered_per_s", load.offered_per_s.into()),
        ("millrace.achieved_per_s", load.achieved_per_s.into()),
        ("millrace.response_time_ns_p50", load.response_time.quantile_ns(0.5).into()),
        ("millrace.response_time_ns_p99", load.response_time.quantile_ns(0.99).into()),
    ];
    if let Some(ledger) = &result.ledger {
        attributes
            .extend([("millrace.acknowledged", ledger.acknowledged.into()), ("millrace.lost", ledger.lost.into())]);
    }
    attributes
}

fn metrics(result: &TargetResult, period: Period) -> Vec<otlp::messages::metrics::v1::Metric> {
    let load = &result.load;
    let label = |name: &str, value: String| (name.to_owned(), value);
    let labels: Labels = vec![
        label("millrace.target", result.target.clone()),
        label("millrace.repetition", result.repetition.to_string()),
    ];
    let one = |value: f64| vec![(labels.clone(), value)];
    let outcomes = &load.outcomes;
    let outcomes = [
        ("accepted", outcomes.accepted),
        ("rejected", outcomes.rejected),
        ("failed", outcomes.failed),
        ("timed_out", outcomes.timed_out),
        ("not_sent", outcomes.not_sent),
    ];
    let outcomes = outcomes.map(|(outcome, count)| {
        ([&labels[..], &[label("millrace.outcome", outcome.to_owned())]].concat(), count as f64)
    });
    let times = |name: &str, help: &str, times: &Times| {
        period.histogram(name, "s", help, vec![(labels.clone(), buckets(times))])
    };
    vec![
        period.gauge(
            "millrace.offered_rate",
            "{event}/s",
            "Events due in a second of the steady phase",
            one(load.offered_per_s),
        ),
        period.gauge(
            "millrace.achieved_rate",
            "{event}/s",
            "Events accepted in a second of it",
            one(load.achieved_per_s),
        ),
        period.counter("millrace.outcomes", "{event}", "What became of the events planned for it", outcomes.to_vec()),
        times("millrace.response_time", "From when a request was due to the end of its answer", &load.response_time),
        times("millrace.send_delay", "From when a request could have been sent to its first byte", &load.send_delay),
    ]
}

/// Of the whole histogram of a result; none where it has none.
fn buckets(times: &Times) -> Buckets {
    let mut counts = vec![0; BOUNDS_S.len() + 1];
    let mut sum_ns = 0.0;
    if let Ok(histogram) = times.histogram() {
        for (value_ns, count) in histogram.iter() {
            counts[BOUNDS_S.partition_point(|bound_s| *bound_s * 1e9 < value_ns as f64)] += count;
        }
        sum_ns = histogram.mean() * histogram.count() as f64;
    }
    Buckets { bounds: BOUNDS_S.to_vec(), counts, sum: sum_ns / 1e9 }
}

#[cfg(test)]
mod tests {
    use reports::histogram::TimeHistogram;

    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_bounds_it_lies_between() {
        let mut histogram = TimeHistogram::new();
        for ns in [1_000, 49_000, 60_000, 2_500_000, 60_000_000_000] {
            histogram.record(ns);
        }
        let buckets = buckets(&histogram.times(0));
        let filled: Vec<(usize, u64)> =
            buckets.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (8, 1), (18, 1)]);
        assert!((buckets.sum - 60.002_610).abs() < 0.06, "{}", buckets.sum);
    }
}
