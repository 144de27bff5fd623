//! What is followed through this server: a request whose sender says that it keeps what it sees of it, and the event that comes of it.
//!
//! An event carries what its commit ends: where that is does not matter, also not in which process (a queue in Redis takes it along). It is
//! not in the journal: what a crash left there is followed no further.
//!
//! Not here: which requests are followed (their senders decide), and webhooks, with which nothing is followed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};
use otlp::context::TRACEPARENT;
use otlp::{Exporter, Kind, Span, TraceContext};
use rand::RngCore as _;
use uuid::Uuid;

/// Something that is followed, and the span of this server that whatever comes of it belongs to.
#[derive(Clone, Debug)]
pub struct Followed {
    context: TraceContext,
    exporter: Exporter,
}

impl PartialEq for Followed {
    fn eq(&self, other: &Self) -> bool {
        self.context == other.context
    }
}

impl Eq for Followed {}

/// A request that is followed.
#[derive(Debug)]
pub struct FollowedCall {
    /// For what comes of it.
    pub followed: Followed,
    /// The sender's span.
    parent_id: u64,
}

impl FollowedCall {
    /// The request, if its sender follows it: one header that is as it should be, and says that the sender keeps what it sees.
    pub fn of(headers: &HeaderMap, exporter: &Exporter) -> Option<Box<Self>> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let context = TraceContext::parse(values.next()?.as_bytes()).filter(|context| context.is_sampled)?;
        if values.next().is_some() {
            return None;
        }
        let own = TraceContext { span_id: new_span_id(), ..context };
        let followed = Followed { context: own, exporter: exporter.clone() };
        Some(Box::new(Self { followed, parent_id: context.span_id }))
    }

    /// The answer is ready. `started`: when the request's head was complete.
    pub fn answered(&self, method: &Method, route: &'static str, status: StatusCode, started: Instant) {
        let end_unix_ns = unix_ns();
        let took_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let TraceContext { trace_id, span_id, .. } = self.followed.context;
        self.followed.exporter.span(Span {
            trace_id,
            span_id,
            parent_id: self.parent_id,
            name: format!("{method} {route}").into(),
            kind: Kind::Server,
            begin_unix_ns: end_unix_ns.saturating_sub(took_ns),
            end_unix_ns,
            attributes: vec![("http.route", route.into()), ("http.response.status_code", status.as_u16().into())],
            events: Vec::new(),
            link: None,
            // As OpenTelemetry has it: what the client did wrong is no failure of a server.
            failure: status.is_server_error().then(|| "the server could not answer well".into()),
        });
    }
}

impl Followed {
    /// The same in another process, of what this one has written with [`Followed::traceparent`].
    pub fn from_traceparent(value: &[u8], exporter: &Exporter) -> Option<Box<Self>> {
        Some(Box::new(Self { context: TraceContext::parse(value)?, exporter: exporter.clone() }))
    }

    /// For whoever goes on with it elsewhere.
    pub fn traceparent(&self) -> [u8; otlp::context::TRACEPARENT_BYTES] {
        self.context.traceparent()
    }

    /// The event with this id, taken in at `taken_in_us`, was committed at `committed_at_us` (microseconds since the epoch).
    pub fn persisted(&self, id: Uuid, taken_in_us: i64, committed_at_us: i64) {
        let unix_ns = |us: i64| us.unsigned_abs().saturating_mul(1_000);
        self.exporter.span(Span {
            trace_id: self.context.trace_id,
            span_id: new_span_id(),
            parent_id: self.context.span_id,
            name: "persist".into(),
            kind: Kind::Internal,
            begin_unix_ns: unix_ns(taken_in_us),
            end_unix_ns: unix_ns(committed_at_us),
            attributes: vec![("millrace.event_id", id.to_string().into())],
            events: Vec::new(),
            link: None,
            failure: None,
        });
    }
}

/// Any but 0, which is none.
fn new_span_id() -> u64 {
    rand::rng().next_u64() | 1
}

/// The time of day, in nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use http::HeaderValue;

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_request_is_followed_when_one_header_says_that_its_sender_keeps_what_it_sees() {
        let endpoint = otlp::Endpoint::from_str("http://127.0.0.1:1").expect("an endpoint");
        let running =
            otlp::Running::start(endpoint, otlp::Resource::default(), otlp::Settings::default()).expect("a thread");
        for (values, is_followed) in [
            (&[SAMPLED][..], true),
            (&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"], false),
            (&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"], false),
            (&[SAMPLED, SAMPLED], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, HeaderValue::from_static(value));
            }
            let call = FollowedCall::of(&headers, running.exporter());
            assert_eq!(call.is_some(), is_followed, "{values:?}");
            if let Some(call) = call {
                assert_eq!(call.parent_id, 0x00f0_67aa_0ba9_02b7);
                assert_ne!(call.followed.context.span_id, call.parent_id, "a span of its own");
            }
        }
    }
}
