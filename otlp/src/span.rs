//! One piece of work of a trace, when it is over.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as SpanMessage, SpanFlags, Status};

/// Where a span stands between programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Within one program.
    Internal,
    /// Asks another program, and ends with its answer.
    Client,
    /// Answers another program.
    Server,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
}

/// What is told of a piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Of the trace.
    pub trace_id: u128,
    /// Its own; never 0.
    pub span_id: u64,
    /// The span within which it was; 0: none, it is the first of its trace.
    pub parent_id: u64,
    /// Of a handful; what tells one from another is an attribute.
    pub name: Cow<'static, str>,
    /// See [`Kind`].
    pub kind: Kind,
    /// Nanoseconds since the Unix epoch.
    pub begin_unix_ns: u64,
    /// The same.
    pub end_unix_ns: u64,
    /// Names with a unit behind them where there is one.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened within it, and when, in nanoseconds since the Unix epoch.
    pub events: Vec<(&'static str, u64)>,
    /// Trace and span of something else that it belongs to.
    pub link: Option<(u128, u64)>,
    /// Why it did not do what it was for.
    pub failure: Option<Cow<'static, str>>,
}

impl Span {
    pub(crate) fn into_message(self) -> SpanMessage {
        let span_id = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
        let kind = match self.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Client => SpanKind::Client,
            Kind::Server => SpanKind::Server,
        };
        let event =
            |(name, time_unix_nano): (&str, u64)| Event { time_unix_nano, name: name.to_owned(), ..Event::default() };
        let link = |(trace_id, id): (u128, u64)| Link {
            trace_id: trace_id.to_be_bytes().to_vec(),
            span_id: span_id(id),
            ..Link::default()
        };
        let status =
            self.failure.map(|message| Status { message: message.into_owned(), code: StatusCode::Error as i32 });
        SpanMessage {
            trace_id: self.trace_id.to_be_bytes().to_vec(),
            span_id: span_id(self.span_id),
            parent_span_id: span_id(self.parent_id),
            // What a receiver can take for true of a span is said with it: the parent of a server's span is another program's.
            flags: SpanFlags::ContextHasIsRemoteMask as u32
                | if self.kind == Kind::Server { SpanFlags::ContextIsRemoteMask as u32 } else { 0 }
                | 1,
            name: self.name.into_owned(),
            kind: kind as i32,
            start_time_unix_nano: self.begin_unix_ns,
            end_time_unix_nano: self.end_unix_ns.max(self.begin_unix_ns),
            attributes: self.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
            events: self.events.into_iter().map(event).collect(),
            links: self.link.into_iter().map(link).collect(),
            status,
            ..SpanMessage::default()
        }
    }
}

/// As a message has it.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Integer(number) => any_value::Value::IntValue(number),
        Value::Number(number) => any_value::Value::DoubleValue(number),
        Value::Flag(flag) => any_value::Value::BoolValue(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}
