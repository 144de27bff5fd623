//! `ingest-server`: parses flags, and calls [`server::run`].

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use server::config::Settings;
use server::runtime::ServeError;

/// Exit code of a wrong flag, as clap has it.
const EXIT_USAGE: u8 = 2;

#[derive(Parser)]
#[command(name = "ingest-server", version, about = "Millrace's reference event-ingestion server")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM. Exit codes: 0 stopped and all persisted, 1 failed or acknowledged events lost, 2 usage
    Serve(Box<Settings>),
}

#[allow(clippy::print_stderr, reason = "the one place that talks to a person")]
fn main() -> ExitCode {
    let Command::Serve(settings) = Cli::parse().command;
    if let Err(error) = server::log_to_stderr(&settings.log) {
        eprintln!("error: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    match server::run(*settings) {
        Ok(stopped) => stopped.exit_code(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, ServeError::Settings(_)) { EXIT_USAGE } else { 1 })
        }
    }
}
