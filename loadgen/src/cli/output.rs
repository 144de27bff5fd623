//! Where results go: their folder, the terminal, and what ends a measurement early.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use rand::Rng;
use reports::model::Run;
use reports::{html, schema, table, verdict};
use tokio::task::LocalSet;

use super::{EXIT_INTERNAL, EXIT_USAGE, Failure};
use crate::live::terminal;
use crate::measure::Context;
use crate::samples::SampleFile;

/// Flags of every command that measures.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Folder for run.json and report.html [default: millrace-results/RUN_ID]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// File for every request of every repetition, one a row: when it was due, could be sent, was sent and was done, and what came of it
    #[arg(long, value_name = "FILE.csv")]
    pub samples: Option<PathBuf>,

    /// Print run.json to stdout in place of the table
    #[arg(long)]
    pub json: bool,

    /// No progress
    #[arg(long, short)]
    pub quiet: bool,

    /// A live view on the whole terminal in place of the progress line: rate, response times, backlog, polls; q ends early
    #[arg(long, conflicts_with = "quiet")]
    pub tui: bool,
}

/// Where a measurement goes.
pub(super) struct Output {
    /// Which is there.
    pub folder: PathBuf,
    /// JSON goes to stdout in place of a table.
    pub json: bool,
    /// For what measures.
    pub context: Context,
}

impl Output {
    /// Makes the folder.
    pub fn prepare(arguments: OutputArgs) -> Result<Self, Failure> {
        if arguments.tui && !terminal::is_there() {
            let told = "--tui: standard error is no terminal to draw on; run it in one, or leave --tui out";
            return Err(Failure(EXIT_USAGE, told.to_owned()));
        }
        let run_id = new_run_id();
        let folder = arguments.out.unwrap_or_else(|| Path::new("millrace-results").join(&run_id));
        // Before the run: a path that cannot be written must not cost two minutes.
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure(EXIT_USAGE, format!("--out {}: {error}", folder.display())))?;
        let samples = arguments.samples.as_ref().map(|path| {
            SampleFile::create(path)
                .map_err(|error| Failure(EXIT_USAGE, format!("--samples {}: {error}", path.display())))
        });
        let context = Context {
            run_id,
            samples: samples.transpose()?,
            command: without_secrets(std::env::args()),
            stop: Arc::new(AtomicBool::new(false)),
            quiet: arguments.quiet,
            tui: arguments.tui,
        };
        Ok(Self { folder, json: arguments.json, context })
    }

    /// A sentence before it begins.
    pub fn announce(&self, sentence: &str) {
        if !self.context.quiet {
            eprintln!("{sentence}");
        }
    }

    /// Waits for what is measured, or for a signal to end it early.
    pub fn block_on<T>(&self, measuring: impl Future<Output = T>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(EXIT_INTERNAL, format!("no async runtime: {error}")))?;
        Ok(LocalSet::new().block_on(&runtime, async {
            tokio::spawn(stop_on_signal(Arc::clone(&self.context.stop)));
            measuring.await
        }))
    }

    /// Measures, judges, writes and prints; the exit code.
    pub fn finish(&self, measuring: impl Future<Output = Run>) -> Result<u8, Failure> {
        self.finish_with(measuring, |_| Ok(()))
    }

    /// The same, and writes what else was asked for.
    pub fn finish_with(
        &self,
        measuring: impl Future<Output = Run>,
        also: impl FnOnce(&Run) -> Result<(), Failure>,
    ) -> Result<u8, Failure> {
        let mut run = self.block_on(measuring)?;
        verdict::assess(&mut run);
        write(&run, &self.folder)?;
        also(&run)?;
        if self.json {
            println!("{}", schema::write(&run));
        } else {
            println!("{}", table::render(&run));
        }
        eprintln!("{} and {}", self.folder.join("run.json").display(), self.folder.join("report.html").display());
        Ok(run.verdict.exit_code)
    }
}

fn write(run: &Run, out: &Path) -> Result<(), Failure> {
    for (name, text) in [("run.json", schema::write(run)), ("report.html", html::render(run))] {
        write_file(&out.join(name), &text)?;
    }
    Ok(())
}

/// Writes a file of a result.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure(EXIT_INTERNAL, format!("cannot write {}: {error}", path.display())))
}

/// Adds to the file of `--summary`.
pub(super) fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure(EXIT_INTERNAL, format!("--summary {}: {error}", path.display())))
}

/// The command line for the result, which is meant to be shown around: keys and passwords are struck out.
fn without_secrets(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const STRUCK_OUT: &str = "***";
    let mut key_follows = false;
    let strike_out = |argument: String| {
        if std::mem::replace(&mut key_follows, argument == "--api-key") {
            return STRUCK_OUT.to_owned();
        }
        if argument.starts_with("--api-key=") {
            return format!("--api-key={STRUCK_OUT}");
        }
        let (flag, value) = argument.split_at(argument.find("=postgres").map_or(0, |at| at + 1));
        let mut url = value.parse::<url::Url>().ok().filter(|url| url.password().is_some());
        if let Some(url) = &mut url {
            // It has a password, so it can have another.
            let _ = url.set_password(Some(STRUCK_OUT));
        }
        url.map_or_else(|| argument.clone(), |url| format!("{flag}{url}"))
    };
    arguments.map(strike_out).collect()
}

/// The first signal ends the run early, with a report; the second ends the program.
async fn stop_on_signal(stop: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if stop.swap(true, Ordering::Relaxed) {
            terminal::give_back();
            std::process::exit(130);
        }
        // The live view says so itself.
        if !terminal::is_taken() {
            eprintln!("\ninterrupted: ending this phase and writing what there is (once more to quit at once)");
        }
    }
}

/// Sorts by time, and two runs begun in the same second still differ.
fn new_run_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:04x}", now.strftime("%Y%m%dt%H%M%S"), rand::rng().random::<u16>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_passwords_do_not_reach_the_result() {
        for (given, shown) in [
            ("loadgen run --api-key mr_live_x --rate 5", "loadgen run --api-key *** --rate 5"),
            ("loadgen run --api-key=mr_live_x", "loadgen run --api-key=***"),
            ("--database postgres://me:secret@h/db", "--database postgres://me:***@h/db"),
            ("--database=postgres://me:secret@h/db", "--database=postgres://me:***@h/db"),
            (
                "--target http://127.0.0.1:1 --database postgres://me@h/db",
                "--target http://127.0.0.1:1 --database postgres://me@h/db",
            ),
        ] {
            let arguments = given.split(' ').map(str::to_owned);
            assert_eq!(without_secrets(arguments).join(" "), shown);
        }
    }
}
