//! `ingest-server`: parses flags, and calls [`server::serve`].

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use server::config::Settings;

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

fn main() -> ExitCode {
    let Command::Serve(settings) = Cli::parse().command;
    server::serve(*settings)
}
