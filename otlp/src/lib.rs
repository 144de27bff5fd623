//! Floor 1 of the map: how a request is followed from one program to the next, and how what each saw of it gets to a receiver.
//!
//! [`context`] is the header that travels with a request (W3C Trace Context), [`span`] what is told of one piece of work, [`metric`] of many;
//! [`exporter`] takes both without ever waiting, and sends them over OTLP/HTTP on a thread of its own. The messages are those of the
//! `opentelemetry-proto` crate. Not here: which requests are followed, and what is worth telling of them.

pub mod context;
pub mod endpoint;
pub mod exporter;
pub mod metric;
pub mod span;

pub use context::TraceContext;
pub use endpoint::Endpoint;
pub use exporter::{Counts, Exporter, Resource, Running, Settings};
pub use opentelemetry_proto::tonic as messages;
pub use span::{Kind, Span};
