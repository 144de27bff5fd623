//! Where results go: their folder, the terminal, the browser; and what ends a measurement early.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anstream::eprintln;
use clap::Args;
use rand::Rng;
use reports::model::Run;
use reports::{html, schema, table, verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::forecast::Forecast;
use super::invocation::Invocation;
use super::terminal::{print_result, print_text, say_unless, tell_warning};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure};
use crate::live::terminal;
use crate::measure::Context;
use crate::progress::interrupt;
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

    /// A live view on the whole terminal in place of the progress line: rate, response times, backlog, polls; q ends early
    #[arg(long, conflicts_with = "quiet", help_heading = OUTPUT)]
    pub tui: bool,

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
        if arguments.tui && !terminal::is_there() {
            let told = "--tui: standard error is no terminal to draw on; run it in one, or leave --tui out";
            return Err(Failure(EXIT_USAGE, told.to_owned()));
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
            telemetry: None,
            command: invocation.command_line(),
            stop: Arc::new(AtomicBool::new(false)),
            quiet: arguments.quiet,
            tui: arguments.tui,
        };
        let output = Self { folder, json: arguments.json, context, open: arguments.open };
        say_unless(output.context.quiet, &forecast.line());
        Ok(Some(output))
    }

    /// Waits for what is measured, or for a signal to end it early.
    pub fn block_on<T>(&self, measuring: impl Future<Output = T>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(EXIT_INTERNAL, format!("no async runtime: {error}")))?;
        LocalSet::new().block_on(&runtime, async {
            // Before anything begins: a signal must not find the program without.
            let signals = Signals::listen();
            let signals =
                signals.map_err(|error| Failure(EXIT_INTERNAL, format!("no signals can be heard: {error}")))?;
            tokio::spawn(stop_on_signal(signals, Arc::clone(&self.context.stop)));
            Ok(measuring.await)
        })
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
        let folder = self.folder.display();
        self.end(
            &["run.json", "report.html"],
            &format!("loadgen compare {folder} OTHER puts two results side by side"),
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
async fn stop_on_signal(mut signals: Signals, stop: Arc<AtomicBool>) {
    loop {
        signals.next().await;
        interrupt(&stop);
        // The live view says so itself.
        if !terminal::is_taken() {
            eprintln!("\ninterrupted: ending this phase and writing what there is (once more to quit at once)");
        }
    }
}

/// Ctrl-C, and the signal by which a supervisor ends a program.
struct Signals([tokio::signal::unix::Signal; 2]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Sorts by time, and two runs begun in the same second still differ.
fn new_run_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:04x}", now.strftime("%Y%m%dt%H%M%S"), rand::rng().random::<u16>())
}
