//! Commands and exit codes. Each command is a file: its flags, its examples, and what turns them into a call of what does the work.
//!
//! `invocation` reads the command line and gives every flag its environment variable, `help` is what `--help` teaches, `mistakes` what a
//! wrong command line is told; `forecast` says what will be done, `output` is where all of it goes, `terminal` what is
//! printed, and `secrets` what is struck out of it.
//!
//! A command is added with its file, which has `EXAMPLES`, `Arguments` and `run`, a variant of `Command` and an arm in `run`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "results go to stdout, talk to stderr")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use reports::model::Run;
use reports::schema;

use self::invocation::Invocation;
use self::output::OUTPUT;
use self::terminal::{Color, tell_error, tell_warning};
use crate::nearest::nearest_path;
use crate::plan::{Asked, PlanError, Resolved};
use crate::serve;

mod calibrate;
mod capacity;
mod compare;
mod conform;
mod crash;
mod forecast;
mod gate;
mod help;
mod history;
mod invocation;
mod merge;
mod mistakes;
mod output;
mod plans;
mod report;
mod run;
mod secrets;
mod shell;
mod terminal;

/// Exit code of a defect of this program or of the machine under it.
const EXIT_INTERNAL: u8 = 1;
/// Exit code of a command line or a plan that cannot be followed.
const EXIT_USAGE: u8 = 2;

/// What `--version` says; `-V` leaves out what it was built of. scripts/gate reads it.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (revision ",
    env!("MILLRACE_REVISION"),
    ", ",
    env!("MILLRACE_BUILD_PROFILE"),
    " build)"
);

/// Measures event-ingestion servers so that nobody can argue with the result.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, long_version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Whether output has colours
    #[arg(long, value_name = "WHEN", value_enum, global = true, default_value = "auto", help_heading = OUTPUT)]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure: load, ledger, idle; writes run.json and report.html
    #[command(after_long_help = run::EXAMPLES, args_override_self = true)]
    Run(Box<run::Arguments>),
    /// The highest rate at which the objectives hold, nothing is lost, and what is acknowledged is persisted as fast
    #[command(after_long_help = capacity::EXAMPLES, args_override_self = true)]
    Capacity(Box<capacity::Arguments>),
    /// What the reference server keeps of what it acknowledged when it is killed under load, again and again
    #[command(after_long_help = crash::EXAMPLES, args_override_self = true)]
    Crash(Box<crash::Arguments>),
    /// Several results side by side: ratios with intervals, and who cannot be told apart; writes compare.json and compare.html
    #[command(after_long_help = compare::EXAMPLES)]
    Compare(compare::Arguments),
    /// Runs of many days on one page: each number over time, and where it changed; writes history.json and history.html
    #[command(after_long_help = history::EXAMPLES)]
    History(history::Arguments),
    /// The parts of one load, each sent by a generator of its own (`run --shard`), as one result; writes run.json and report.html
    #[command(after_long_help = merge::EXAMPLES)]
    Merge(merge::Arguments),
    /// Which rules of the contract (CONTRACT.md) a server keeps
    #[command(after_long_help = conform::EXAMPLES, args_override_self = true)]
    Conform(Box<conform::Arguments>),
    /// Whether a change made a server worse: exit 0 pass or improved, 3 regressed, 4 inconclusive, 5 invalid
    #[command(after_long_help = gate::EXAMPLES, args_override_self = true)]
    Gate(Box<gate::Arguments>),
    /// What this machine can do at best: a server that does nothing, a timer, and the highest rate the generator can honestly offer
    #[command(after_long_help = calibrate::EXAMPLES, args_override_self = true)]
    Calibrate(calibrate::Arguments),
    /// Run the reference server (the same flags as ingest-server)
    #[command(after_long_help = help::SERVE_EXAMPLES, args_override_self = true)]
    Serve(Box<serve::Settings>),
    /// Make report.html from a run.json
    #[command(after_long_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Write a run.json in the format of another tool
    #[command(after_long_help = report::EXPORT_EXAMPLES)]
    Export(report::ExportArgs),
    /// List the built-in plans, or print one as TOML
    #[command(after_long_help = plans::EXAMPLES)]
    Plans(plans::Arguments),
    /// Print completions for a shell
    #[command(after_long_help = shell::COMPLETIONS_EXAMPLES)]
    Completions(shell::CompletionsArgs),
    /// Manual pages, for `man`
    #[command(after_long_help = shell::MAN_EXAMPLES)]
    Man(shell::ManArgs),
}

/// A failure, and the exit code that goes with it.
#[derive(Debug)]
struct Failure(u8, String);

impl Failure {
    /// A file of a flag that cannot be written.
    fn writing(code: u8, flag: &str, path: &Path, error: &std::io::Error) -> Self {
        Self(code, format!("{flag} = {}: {error}; give a path that can be written", path.display()))
    }

    /// A file of a flag that cannot be used.
    fn reading(flag: &str, path: &Path, why: &dyn std::fmt::Display) -> Self {
        let near = if path.exists() { None } else { nearest_path(path) };
        let remedy = near.map_or_else(|| "give another file".to_owned(), |near| format!("did you mean {near}?"));
        Self(EXIT_USAGE, format!("{flag} = {}: {why}; {remedy}", path.display()))
    }
}

/// All commands with their flags, variables and help: for whoever wants to look at them without calling one.
pub fn commands() -> clap::Command {
    invocation::tree()
}

/// The whole program.
pub fn main() -> ExitCode {
    let mut invocation = Invocation::new(std::env::args_os().collect());
    if let Some(color) =
        invocation.early("--color").and_then(|text| <Color as clap::ValueEnum>::from_str(&text, false).ok())
    {
        color.choose();
    }
    let cli = match invocation.read() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &invocation),
    };
    cli.color.choose();
    if !matches!(cli.command, Command::Serve(_)) {
        invocation::unknown_variables().iter().for_each(|told| tell_warning(told));
    }
    match run(cli.command, &invocation) {
        Ok(code) => code,
        Err(Failure(code, sentence)) => {
            tell_error(&format!("{sentence}{}", invocation.origins(&sentence)));
            ExitCode::from(code)
        }
    }
}

fn run(command: Command, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let code = match command {
        Command::Serve(settings) => return Ok(serve::serve(*settings)),
        Command::Run(arguments) => run::run(*arguments, invocation),
        Command::Capacity(arguments) => capacity::run(*arguments, invocation),
        Command::Crash(arguments) => crash::run(*arguments, invocation),
        Command::Conform(arguments) => conform::run(*arguments, invocation),
        Command::Gate(arguments) => gate::run(*arguments, invocation),
        Command::Calibrate(arguments) => calibrate::run(arguments, invocation),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Merge(arguments) => merge::run(&arguments, invocation),
        Command::Report(arguments) => report::report(&arguments),
        Command::Export(arguments) => report::export(&arguments),
        Command::Plans(arguments) => plans::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
    };
    code.map(ExitCode::from)
}

/// What is no command line: help where that was asked for, else what is wrong with it.
fn refuse(error: &clap::Error, invocation: &Invocation) -> ExitCode {
    let told = mistakes::sentence(error, &invocation::tree(), invocation.command());
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    match told.filter(|_| error.use_stderr() && !is_help) {
        Some(sentence) => tell_error(&format!("{sentence}{}", invocation.origins(&sentence))),
        // There is nobody left to tell.
        None => drop(error.print()),
    }
    ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
}

/// A plan that cannot be followed.
fn usage(error: PlanError) -> Failure {
    Failure(EXIT_USAGE, error.to_string())
}

/// Checks a plan against what the reference server knows.
fn resolve(asked: Asked) -> Result<Resolved, Failure> {
    asked.resolve(&serve::modes(), &serve::pollings()).map_err(usage)
}

/// The result in a file, or in a folder with a run.json; and where it is.
fn read_run(path: &Path) -> Result<(PathBuf, Run), Failure> {
    let path = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
    let fail = |what: String| Failure(EXIT_USAGE, format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let near = nearest_path(&path).map(|near| format!("did you mean {near}?"));
        fail(format!("{error}; {}", near.unwrap_or_else(|| "give a run.json, or the folder of one".to_owned())))
    })?;
    let run = schema::read(&text).map_err(|error| fail(error.to_string()))?;
    Ok((path, run))
}
