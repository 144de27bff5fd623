//! Commands and exit codes. Each command is a file: its flags, its examples, and what turns them into a call of what does the work;
//! `output` is where all of them write to.
//!
//! A command is added with its file, which has `EXAMPLES`, `Arguments` and `run`, a variant of [`Command`] and an arm in [`main`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "results go to stdout, talk to stderr")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::compare::CompareArgs;
use crate::plan::{Asked, PlanError, Resolved};
use crate::serve;

mod calibrate;
mod capacity;
mod compare;
mod conform;
mod crash;
mod gate;
mod history;
mod output;
mod report;
mod run;

/// Exit code of a defect of this program or of the machine under it.
const EXIT_INTERNAL: u8 = 1;
/// Exit code of a command line or a plan that cannot be followed.
const EXIT_USAGE: u8 = 2;

const EXIT_CODES: &str = "Exit codes: 0 pass · 1 internal error · 2 usage · 3 objective missed, or an acknowledged event lost or \
duplicated · 4 inconclusive · 5 invalid (no data, dead target, generator could not keep up, interrupted)";

/// Measures event-ingestion servers so that nobody can argue with the result.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure: load, ledger, idle; writes run.json and report.html
    #[command(after_help = run::EXAMPLES, args_override_self = true)]
    Run(Box<run::Arguments>),
    /// The highest rate at which the objectives hold, nothing is lost, and what is acknowledged is persisted as fast
    #[command(after_help = capacity::EXAMPLES, args_override_self = true)]
    Capacity(Box<capacity::Arguments>),
    /// What the reference server keeps of what it acknowledged when it is killed under load, again and again
    #[command(after_help = crash::EXAMPLES, args_override_self = true)]
    Crash(Box<crash::Arguments>),
    /// Several results side by side: ratios with intervals, and who cannot be told apart; writes compare.json and compare.html
    #[command(after_help = compare::EXAMPLES)]
    Compare(CompareArgs),
    /// Runs of many days on one page: each number over time, and where it changed; writes history.json and history.html
    #[command(after_help = history::EXAMPLES)]
    History(history::Arguments),
    /// Which rules of the contract (CONTRACT.md) a server keeps
    #[command(after_help = conform::EXAMPLES, args_override_self = true)]
    Conform(Box<conform::Arguments>),
    /// Whether a change made a server worse: exit 0 pass or improved, 3 regressed, 4 inconclusive, 5 invalid
    #[command(after_help = gate::EXAMPLES, args_override_self = true)]
    Gate(Box<gate::Arguments>),
    /// What this machine can do at best: a server that does nothing, a timer, and the highest rate the generator can honestly offer
    #[command(args_override_self = true)]
    Calibrate(calibrate::Arguments),
    /// Run the reference server (the same flags as ingest-server)
    #[command(args_override_self = true)]
    Serve(Box<serve::Settings>),
    /// Make report.html from a run.json
    Report(report::ReportArgs),
    /// Write a run.json in the format of another tool
    #[command(after_help = report::EXPORT_EXAMPLES)]
    Export(report::ExportArgs),
}

/// A failure, and the exit code that goes with it.
struct Failure(u8, String);

/// The whole program.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(settings) => return serve::serve(*settings),
        Command::Run(arguments) => run::run(*arguments),
        Command::Capacity(arguments) => capacity::run(*arguments),
        Command::Crash(arguments) => crash::run(*arguments),
        Command::Conform(arguments) => conform::run(*arguments),
        Command::Gate(arguments) => gate::run(*arguments),
        Command::Calibrate(arguments) => calibrate::run(arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Report(arguments) => report::report(&arguments),
        Command::Export(arguments) => report::export(&arguments),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, message)) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

/// A plan that cannot be followed.
fn usage(error: PlanError) -> Failure {
    Failure(EXIT_USAGE, error.to_string())
}

/// Checks a plan against what the reference server knows.
fn resolve(asked: Asked) -> Result<Resolved, Failure> {
    asked.resolve(&serve::modes(), &serve::pollings()).map_err(usage)
}
