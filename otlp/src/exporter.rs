//! Takes spans and metrics without ever waiting, and sends them to a receiver on a thread of its own.
//!
//! Whoever gives something pays for a place in a bounded queue: no lock, no system call, nobody is woken. What finds no place is dropped and
//! counted. The thread looks four times a second, at a lower priority than the one that started it, and sends what there is in requests of
//! bounded size. A receiver that is away, or asks to be asked again, is tried again after longer and longer waits while the queue fills; the
//! log says so once. Stopping takes a bounded time, and what could not be delivered by then is counted.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::endpoint::Endpoint;
use crate::span::{Span, attribute};

/// Spans in one request; each takes some 300 bytes there.
const SPANS_AT_ONCE: usize = 2_048;
/// Bytes of an answer that are read; it has a count and a sentence at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much lower the priority of the exporting thread is than that of the one that started it (Linux, where each thread has its own).
const NICE: i32 = 10;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Spans (and times that metrics were told) that wait at most.
    pub queue_max: usize,
    /// Between two looks into the queue.
    pub interval: Duration,
    /// How long the receiver may take for an answer, connecting included.
    pub attempt_timeout: Duration,
    /// The wait after a first failure; each further failure doubles it, up to thirty times.
    pub retry_wait: Duration,
    /// How long [`Running::stop`] goes on sending, beside the attempt that is under way.
    pub stop_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_max: 32_768,
            interval: Duration::from_millis(250),
            attempt_timeout: Duration::from_secs(2),
            retry_wait: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(3),
        }
    }
}

/// Which program tells all this; the attributes are on everything that it tells.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    /// `service.name`
    pub service_name: &'static str,
    /// `service.version`
    pub service_version: &'static str,
    /// `service.instance.id`: another one for each process.
    pub service_instance_id: String,
    /// More of them.
    pub attributes: Vec<(String, String)>,
}

/// What became of what was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans that the receiver has taken.
    pub spans_sent: u64,
    /// Spans for which there was no place in the queue.
    pub spans_dropped: u64,
    /// Spans that the receiver did not take: it refused them, or was away until the end.
    pub spans_lost: u64,
    /// Times that metrics were told and the receiver has taken them.
    pub metrics_sent: u64,
    /// Times that it did not.
    pub metrics_lost: u64,
}

impl Counts {
    /// Whether everything has arrived.
    pub fn is_whole(&self) -> bool {
        self.spans_dropped == 0 && self.spans_lost == 0 && self.metrics_lost == 0
    }
}

#[derive(Debug)]
enum Item {
    Span(Span),
    Metrics(Vec<Metric>),
}

#[derive(Debug, Default)]
struct Tally {
    spans_sent: AtomicU64,
    spans_dropped: AtomicU64,
    spans_lost: AtomicU64,
    metrics_sent: AtomicU64,
    metrics_lost: AtomicU64,
}

impl Tally {
    fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            spans_sent: read(&self.spans_sent),
            spans_dropped: read(&self.spans_dropped),
            spans_lost: read(&self.spans_lost),
            metrics_sent: read(&self.metrics_sent),
            metrics_lost: read(&self.metrics_lost),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Where spans and metrics are given. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: SyncSender<Item>,
    tally: Arc<Tally>,
}

impl Exporter {
    /// Has the span sent, or counts it as dropped. Never waits.
    pub fn span(&self, span: Span) {
        if self.queue.try_send(Item::Span(span)).is_err() {
            add(&self.tally.spans_dropped, 1);
        }
    }

    /// Has the metrics sent, or counts them as lost. Never waits.
    pub fn metrics(&self, metrics: Vec<Metric>) {
        if self.queue.try_send(Item::Metrics(metrics)).is_err() {
            add(&self.tally.metrics_lost, 1);
        }
    }

    /// What has become of everything so far.
    pub fn counts(&self) -> Counts {
        self.tally.read()
    }
}

/// The thread that sends. Dropping it stops it as [`Running::stop`] does.
#[derive(Debug)]
pub struct Running {
    exporter: Exporter,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the thread. No connection is made before there is something to send.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(endpoint: Endpoint, resource: Resource, settings: Settings) -> io::Result<Self> {
        let (queue, items) = sync_channel(settings.queue_max.max(1));
        let (stop, stopped) = watch::channel(false);
        let tally: Arc<Tally> = Arc::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let task = Task {
            client: Client { endpoint, sender: None, timeout: settings.attempt_timeout },
            resource,
            settings,
            items,
            tally: Arc::clone(&tally),
            outbox: VecDeque::new(),
            is_away: false,
            is_drop_told: false,
        };
        let thread = thread::Builder::new().name("otlp".into()).spawn(move || {
            scheduling::go_later(NICE);
            runtime.block_on(task.run(stopped));
        })?;
        Ok(Self { exporter: Exporter { queue, tally }, stop, thread: Some(thread) })
    }

    /// Where to give spans and metrics.
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// Sends what waits, for as long as the settings allow; what became of everything. Blocks.
    pub fn stop(mut self) -> Counts {
        self.end();
        self.exporter.counts()
    }

    fn end(&mut self) {
        let _ = self.stop.send(true);
        // A thread that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A request that waits to be sent, and how many spans are in it; none: metrics.
struct Outgoing {
    body: Bytes,
    spans: Option<u64>,
}

struct Task {
    client: Client,
    resource: Resource,
    settings: Settings,
    items: Receiver<Item>,
    tally: Arc<Tally>,
    /// Taken out of the queue and not settled.
    outbox: VecDeque<Outgoing>,
    /// The receiver does not take anything, and the log has been told.
    is_away: bool,
    /// The log has been told of what was dropped.
    is_drop_told: bool,
}

impl Task {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut retry_wait = self.settings.retry_wait;
        let mut wait = self.settings.interval;
        loop {
            tokio::select! {
                // An error means that nobody is left who could stop it.
                _ = stopped.wait_for(|stop| *stop) => break,
                () = sleep(wait) => {}
            }
            wait = self.settings.interval;
            if self.send_all(&stopped).await {
                retry_wait = self.settings.retry_wait;
            } else {
                wait = retry_wait;
                retry_wait = (retry_wait * 2).min(self.settings.retry_wait * 30);
            }
            self.tell_dropped();
        }
        let (_never, never) = watch::channel(false);
        let limit = self.settings.stop_timeout;
        let _ = timeout(limit, self.send_all(&never)).await;
        self.lose_the_rest();
    }

    /// Sends until nothing waits, or it is to stop; false: the receiver does not take it, and it is to be tried again later.
    async fn send_all(&mut self, stopped: &watch::Receiver<bool>) -> bool {
        loop {
            if self.outbox.is_empty() {
                self.take_some();
            }
            let Some(next) = self.outbox.front() else { return true };
            let signal = if next.spans.is_some() { "traces" } else { "metrics" };
            match self.client.post(signal, next.body.clone()).await {
                Ok(answer) => self.settle(Some(&answer)),
                Err(Failure::Refused(cause)) => {
                    tracing::warn!(endpoint = %self.client.endpoint, %cause, "the receiver of OpenTelemetry data refuses what it is sent; it is counted as lost");
                    self.settle(None);
                }
                Err(Failure::Away(cause)) => {
                    if !std::mem::replace(&mut self.is_away, true) {
                        tracing::warn!(
                            endpoint = %self.client.endpoint, %cause,
                            "the receiver of OpenTelemetry data cannot be reached; what finds no room meanwhile is dropped and counted. Check \
                             --otlp (OTLP over HTTP is usually at port 4318; 4317 is gRPC, which is not spoken here)"
                        );
                    }
                    return false;
                }
            }
            if *stopped.borrow() {
                return true;
            }
        }
    }

    /// Takes out of the queue what one request may have.
    fn take_some(&mut self) {
        let (mut spans, mut metrics) = (Vec::new(), Vec::new());
        while let Some(item) = (spans.len() < SPANS_AT_ONCE).then(|| self.items.try_recv().ok()).flatten() {
            match item {
                Item::Span(span) => spans.push(span.into_message()),
                Item::Metrics(more) => metrics.push(more),
            }
        }
        let (resource, scope) = (self.resource.message(), self.resource.scope());
        if !spans.is_empty() {
            let count = spans.len() as u64;
            let scope_spans = vec![ScopeSpans { scope: Some(scope.clone()), spans, ..ScopeSpans::default() }];
            let of_resource =
                ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() };
            let request = ExportTraceServiceRequest { resource_spans: vec![of_resource] };
            self.outbox.push_back(Outgoing { body: request.encode_to_vec().into(), spans: Some(count) });
        }
        for metrics in metrics {
            let scope_metrics = vec![ScopeMetrics { scope: Some(scope.clone()), metrics, ..ScopeMetrics::default() }];
            let of_resource =
                ResourceMetrics { resource: Some(resource.clone()), scope_metrics, ..ResourceMetrics::default() };
            let request = ExportMetricsServiceRequest { resource_metrics: vec![of_resource] };
            self.outbox.push_back(Outgoing { body: request.encode_to_vec().into(), spans: None });
        }
    }

    /// The first request is over: with the receiver's answer to what it took, or without one when it refused all of it.
    fn settle(&mut self, answer: Option<&[u8]>) {
        if answer.is_some() && std::mem::take(&mut self.is_away) {
            tracing::info!(endpoint = %self.client.endpoint, "the receiver of OpenTelemetry data answers again");
        }
        match (self.outbox.pop_front().map(|done| done.spans), answer) {
            (Some(Some(spans)), answer) => {
                let lost = answer.map_or(spans, |answer| rejected_spans(answer).min(spans));
                add(&self.tally.spans_lost, lost);
                add(&self.tally.spans_sent, spans - lost);
            }
            (Some(None), answer) if answer.is_some_and(|answer| !rejects_metrics(answer)) => {
                add(&self.tally.metrics_sent, 1);
            }
            (Some(None), _) => add(&self.tally.metrics_lost, 1),
            (None, _) => {}
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = self.tally.spans_dropped.load(Ordering::Relaxed);
        if dropped > 0 && !std::mem::replace(&mut self.is_drop_told, true) {
            tracing::warn!(
                dropped,
                "spans come faster than they can be sent; they are dropped and counted from here on"
            );
        }
    }

    fn lose_the_rest(&mut self) {
        loop {
            if self.outbox.is_empty() {
                self.take_some();
            }
            match self.outbox.pop_front().map(|left| left.spans) {
                Some(Some(spans)) => add(&self.tally.spans_lost, spans),
                Some(None) => add(&self.tally.metrics_lost, 1),
                None => break,
            }
        }
        let counts = self.tally.read();
        if !counts.is_whole() {
            tracing::warn!(?counts, endpoint = %self.client.endpoint, "not everything reached the receiver of OpenTelemetry data");
        }
    }
}

/// Spans that the receiver says it has not taken. An answer that is none says nothing.
fn rejected_spans(answer: &[u8]) -> u64 {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

fn rejects_metrics(answer: &[u8]) -> bool {
    let partial = ExportMetricsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.is_some_and(|partial| partial.rejected_data_points > 0)
}

impl Resource {
    fn message(&self) -> ResourceMessage {
        let own = [
            ("service.name", self.service_name),
            ("service.version", self.service_version),
            ("service.instance.id", &self.service_instance_id),
        ];
        let more = self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let attributes = own.into_iter().chain(more).map(|(name, value)| attribute(name, value.to_owned().into()));
        ResourceMessage { attributes: attributes.collect(), ..ResourceMessage::default() }
    }

    fn scope(&self) -> InstrumentationScope {
        let (name, version) = (self.service_name.to_owned(), self.service_version.to_owned());
        InstrumentationScope { name, version, ..InstrumentationScope::default() }
    }
}

/// Why a request was not taken.
#[derive(Debug)]
enum Failure {
    /// It would not be taken a second time either.
    Refused(String),
    /// It may be, later.
    Away(String),
}

/// One connection to the receiver, made again when it is gone.
struct Client {
    endpoint: Endpoint,
    sender: Option<SendRequest<Full<Bytes>>>,
    timeout: Duration,
}

impl Client {
    /// The body of the answer.
    async fn post(&mut self, signal: &str, body: Bytes) -> Result<Vec<u8>, Failure> {
        let is_new = self.sender.is_none();
        match self.attempt(signal, body.clone()).await {
            // A connection that did nothing for a while may have been closed, which shows with the next request.
            Err(Failure::Away(_)) if !is_new => {
                self.sender = None;
                self.attempt(signal, body).await
            }
            other => other,
        }
    }

    async fn attempt(&mut self, signal: &str, body: Bytes) -> Result<Vec<u8>, Failure> {
        let limit = self.timeout;
        let answered = timeout(limit, self.exchange(signal, body)).await;
        let answered = answered.unwrap_or_else(|_elapsed| Err(Failure::Away(format!("no answer within {limit:?}"))));
        if matches!(answered, Err(Failure::Away(_))) {
            self.sender = None;
        }
        answered
    }

    async fn exchange(&mut self, signal: &str, body: Bytes) -> Result<Vec<u8>, Failure> {
        let away = |error: &dyn std::fmt::Display| Failure::Away(error.to_string());
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let (host, port) = &self.endpoint.address;
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| away(&error))?;
            let _ = stream.set_nodelay(true);
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
            // Its end shows at the sender.
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        let Some(sender) = &mut self.sender else { return Err(Failure::Away("no connection".to_owned())) };
        let request = Request::post(self.endpoint.path(signal))
            .header(HOST, &self.endpoint.authority)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("millrace/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        sender.ready().await.map_err(|error| away(&error))?;
        let response = sender.send_request(request).await.map_err(|error| away(&error))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(|error| Failure::Away(error.to_string()))?.to_bytes();
        match status {
            _ if status.is_success() => Ok(answer.into()),
            // These alone ask for it again, by the specification of OTLP/HTTP.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Failure::Away(format!("it answered {status}"))),
            _ => Err(Failure::Refused(format!("it answered {status}"))),
        }
    }
}
