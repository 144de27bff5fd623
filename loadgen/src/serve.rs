//! The one place where the load generator touches the server's code: `loadgen serve`, and what the server's flags allow.
//!
//! Everything else meets the server over HTTP, as it would any other.

use std::process::ExitCode;

use clap::ValueEnum;
use server::config::{Mode, Polling};

pub use server::config::Settings;

/// Runs the reference server until it is told to stop.
pub fn serve(settings: Settings) -> ExitCode {
    server::serve(settings)
}

/// Names of the server's modes.
pub fn modes() -> Vec<String> {
    names(Mode::value_variants())
}

/// Names of its polling policies.
pub fn pollings() -> Vec<String> {
    names(Polling::value_variants())
}

fn names<T: ValueEnum>(values: &[T]) -> Vec<String> {
    values.iter().filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned())).collect()
}
