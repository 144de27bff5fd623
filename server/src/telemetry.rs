//! `--otlp`: what a receiver of OpenTelemetry is told. Spans of what is followed ([`crate::follow`]); and every ten seconds, and at the end, what
//! `/metrics` shows.
//!
//! Off, it is one branch a request. On, a request that nobody follows costs a look at one header. A span is given to a queue of bounded length
//! that never waits ([`otlp::exporter`]); a thread of its own sends it, never one that answers.

use std::io;
use std::time::Duration;

use otlp::metric::{Period, of_page};
use otlp::{Exporter, Resource, Running};
use uuid::Uuid;

use crate::config::Settings;
use crate::follow::unix_ns;

/// Between two times that metrics are told.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(10);

/// What all requests share of it.
#[derive(Debug)]
pub struct Telemetry {
    exporter: Exporter,
    began_unix_ns: u64,
}

impl Telemetry {
    /// Starts to send, if it is to; and what ends that.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(settings: &Settings) -> io::Result<Option<(Self, Running)>> {
        let Some(endpoint) = settings.otlp.clone() else { return Ok(None) };
        let own = [
            ("millrace.mode", settings.mode.name().to_owned()),
            ("millrace.durability", settings.durability().to_owned()),
            ("millrace.database", settings.database.kind().to_owned()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let resource = Resource {
            service_name: "millrace-server",
            service_version: env!("CARGO_PKG_VERSION"),
            service_instance_id: Uuid::now_v7().to_string(),
            attributes: own.chain(settings.otlp_attributes.iter().cloned()).collect(),
        };
        tracing::info!(%endpoint, "spans and metrics are sent over OTLP");
        let running = Running::start(endpoint, resource, otlp::Settings::default())?;
        Ok(Some((Self { exporter: running.exporter().clone(), began_unix_ns: unix_ns() }, running)))
    }

    /// Where spans are given.
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// Tells what `/metrics` shows.
    pub fn tell_metrics(&self, page: &str) {
        let period = Period { begin_unix_ns: self.began_unix_ns, end_unix_ns: unix_ns() };
        self.exporter.metrics(of_page(page, period));
    }
}
