//! `loadgen history`: prints what changed over many runs.

use std::path::PathBuf;

use clap::Args;
use reports::history as model;

use super::output::{OUTPUT, open_page};
use super::terminal::{print_text, say_unless};
use super::{EXIT_USAGE, Failure};
use crate::history;
use crate::nearest::nearest_path;

pub(super) const EXAMPLES: &str = "Examples:
  # every run that was ever written here
  loadgen history millrace-results
  # the page in a folder of its own
  loadgen history nightly --out site

A change is marked where hardly any order of the same runs has a split as good (E-divisive), from 12 runs of one plan on one machine; \
files that are no runs are told and left out. Exit codes: 0 written · 2 refused.";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder of results: every .json file in it, and in the folders in it, that is a run becomes a part of the history
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Folder for history.json and history.html [default: DIR]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    out: Option<PathBuf>,

    /// Print history.json to standard output in place of the changes
    #[arg(long, help_heading = OUTPUT)]
    json: bool,

    /// No hints: the changes, where the page is, and what went wrong
    #[arg(long, short, help_heading = OUTPUT)]
    quiet: bool,

    /// Open the page in the browser
    #[arg(long, help_heading = OUTPUT)]
    open: bool,
}

/// Reads, writes and prints; the exit code.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { folder, out, json, quiet, open } = arguments;
    let (history, [file, page]) = history::history(folder, out.as_deref()).map_err(|error| {
        let near = if folder.exists() { None } else { nearest_path(folder) };
        let remedy = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        Failure(EXIT_USAGE, format!("{error}{remedy}"))
    })?;
    print_text(&if *json { model::write(&history) } else { model::terminal(&history) });
    anstream::eprintln!("{} and {}", file.display(), page.display());
    say_unless(*quiet, "a mark says where to look; whether one change made a server worse: loadgen gate");
    if *open {
        open_page(&page);
    }
    Ok(0)
}
