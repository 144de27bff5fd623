//! Where results go: their folder, the terminal, the browser; and what ends a measurement early.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::eprintln;
use clap::Args;
use rand::Rng;
use reports::model::Run;
use reports::{html, schema, table, verdict};
use tokio::task::LocalSet;

use super::forecast::Forecast;
use super::invocation::Invocation;
use super::terminal::{print_result, print_text, say_unless, tell_warning};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure};
use crate::measure::Context;
use crate::samples::SampleFile;

/// Heading of the flags in `--help`.
pub(super) const OUTPUT: &str = "Output";

/// Flags of every command that measures.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Folder for the results, made if it is not there [default: millrace-results/RUN_ID]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: Option<PathBuf>,

    /// Print the result to standard output as JSON, in place of the table
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,

    /// No progress and no hints: the result, where it is, and what went wrong
    #[arg(long, short, help_heading = OUTPUT)]
    pub quiet: bool,

    /// Open the report in the browser at the end
    #[arg(long, help_heading = OUTPUT)]
    pub open: bool,

    /// Say step by step what would be done, and how long it takes; start, measure and write nothing
    #[arg(long, help_heading = OUTPUT)]
    pub dry_run: bool,
}

/// Flag of the commands that keep a distance of single requests.
#[derive(Debug, Args)]
pub(super) struct SamplesArgs {
    /// File for every request of every repetition, one a row
    ///
    /// When it was due, could be sent, was sent and was done, and what came of it
    #[arg(long, value_name = "FILE.csv", help_heading = OUTPUT)]
    pub samples: Option<PathBuf>,
}

/// Where a measurement goes.
#[derive(Debug)]
pub(super) struct Output {
    /// Which is there.
    pub folder: PathBuf,
    /// JSON goes to standard output in place of a table.
    pub json: bool,
    /// For what measures.
    pub context: Context,
    open: bool,
}

impl Output {
    /// Says what will be done, and makes the folder for it; `None`: it was a dry run, and there is nothing to do.
    pub fn begin(
        arguments: OutputArgs,
        samples: Option<&Path>,
        forecast: &Forecast,
        invocation: &Invocation,
    ) -> Result<Option<Self>, Failure> {
        let run_id = new_run_id();
        let out = |name: &str| arguments.out.clone().unwrap_or_else(|| Path::new("millrace-results").join(name));
        if arguments.dry_run {
            return forecast.tell(arguments.json, &out("RUN_ID")).map(|()| None);
        }
        let folder = out(&run_id);
        // Before the run: a path that cannot be written must not cost two minutes.
        std::fs::create_dir_all(&folder).map_err(|error| Failure::writing(EXIT_USAGE, "--out", &folder, &error))?;
        let samples = samples.map(|path| {
            SampleFile::create(path).map_err(|error| Failure::writing(EXIT_USAGE, "--samples", path, &error))
        });
        let context = Context {
            run_id,
            samples: samples.transpose()?,
            command: invocation.command_line(),
            stop: Arc::new(AtomicBool::new(false)),
            quiet: arguments.quiet,
        };
        let output = Self { folder, json: arguments.json, context, open: arguments.open };
        say_unless(output.context.quiet, &forecast.line());
        Ok(Some(output))
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
        let json = schema::write(&run);
        self.write("run.json", &json)?;
        self.write("report.html", &html::render(&run))?;
        also(&run)?;
        if self.json {
            print_text(&(json + "\n"))
        } else {
            print_result(&(table::render(&run) + "\n"))
        }
        let file = self.folder.join("run.json");
        let file = file.display();
        self.end(
            &["run.json", "report.html"],
            &format!("loadgen compare {file} OTHER/run.json puts runs side by side; loadgen export {file} --format markdown tells a pull request"),
        );
        Ok(run.verdict.exit_code)
    }

    /// Writes a file of the result.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)
            .map_err(|error| Failure(EXIT_INTERNAL, format!("cannot write {}: {error}", path.display())))
    }

    /// Says where the files are and what can be done with them, and opens the page if that was asked for, which is the last of them.
    pub fn end(&self, files: &[&str], next: &str) {
        let paths: Vec<PathBuf> = files.iter().map(|name| self.folder.join(name)).collect();
        eprintln!("{}", paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "));
        say_unless(self.context.quiet, &format!("next: {next}"));
        if let Some(page) = paths.last().filter(|_| self.open) {
            open_page(page);
        }
    }
}

/// Adds to the file of `--summary`.
pub(super) fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::writing(EXIT_INTERNAL, "--summary", path, &error))
}

/// Opens a page in the browser. Where that cannot be it says why; how the command ends does not change.
pub(super) fn open_page(path: &Path) {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    // Without one, xdg-open would take the terminal for a browser in text mode.
    let opened =
        match cfg!(target_os = "linux") && !["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"].into_iter().any(has) {
            true => Err("there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set)".to_owned()),
            false => std::path::absolute(path).and_then(open::that_detached).map_err(|error| error.to_string()),
        };
    if let Err(why) = opened {
        tell_warning(&format!("--open: {why}; open {} in a browser yourself", path.display()));
    }
}

/// The first signal ends the run early, with a report; the second ends the program.
async fn stop_on_signal(stop: Arc<AtomicBool>) {
    while signal().await.is_ok() {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: ending this phase and writing what there is (once more to quit at once)");
    }
}

/// Ctrl-C; and where there is one, the signal by which others end a program.
async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Sorts by time, and two runs begun in the same second still differ.
fn new_run_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:04x}", now.strftime("%Y%m%dt%H%M%S"), rand::rng().random::<u16>())
}
