//! Floor 2 of the map: the reference event-ingestion server.

pub mod alive;
pub mod app;
pub mod auth;
pub mod body;
pub mod cache_counters;
pub mod call;
pub mod claims;
pub mod config;
pub mod dedup;
pub mod delivery;
pub mod doorbell;
pub mod event;
pub mod fault;
pub mod follow;
pub mod hashed;
pub mod http;
pub mod idempotency;
pub mod ingest;
pub mod journal;
pub mod keys;
pub mod limits;
pub mod metrics;
pub mod offload;
pub mod openapi;
pub mod operating;
pub mod parse;
pub mod pending;
pub mod polling;
pub mod problem;
pub mod processor;
pub mod queue;
pub mod reading;
pub mod recent;
pub mod routes;
pub mod runtime;
pub mod shapes;
pub mod store;
pub mod telemetry;
pub mod webhooks;
pub mod wire;
pub mod writer;

use std::process::ExitCode;

pub use runtime::{Running, ServeError, Stopped, run, start};

/// A `--log` that is neither a level nor a filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log '{filter}' is not a filter: {reason}; give a level (error, warn, info, debug, trace) or target=level, separated by commas"
)]
pub struct BadLogFilter {
    filter: String,
    reason: String,
}

/// Sends the log of this process to standard error, once; what comes second has no effect.
pub fn log_to_stderr(filter: &str) -> Result<(), BadLogFilter> {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| BadLogFilter { filter: filter.to_owned(), reason: error.to_string() })?;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(false).finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Exit code of a setting that cannot be.
const EXIT_USAGE: u8 = 2;

/// A whole `serve` command: logs to standard error, runs until told to stop, and says what went wrong.
#[allow(clippy::print_stderr, reason = "errors of the command line go to the person at it")]
pub fn serve(settings: config::Settings) -> ExitCode {
    if let Err(error) = log_to_stderr(&settings.log) {
        eprintln!("error: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    match run(settings) {
        Ok(stopped) => stopped.exit_code(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, ServeError::Settings(_)) { EXIT_USAGE } else { 1 })
        }
    }
}
