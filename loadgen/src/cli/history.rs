//! `loadgen history`: prints what changed over many runs.

use std::path::PathBuf;

use clap::Args;
use reports::history as model;

use super::{EXIT_USAGE, Failure};
use crate::history;

pub(super) const EXAMPLES: &str = "Examples:
  loadgen history millrace-results                          every run that was ever written here
  loadgen history nightly --out site                        the page in a folder of its own

A change is marked where hardly any order of the same runs has a split as good (E-divisive), from 12 runs of one plan on one machine; \
files that are no runs are told and left out. Exit codes: 0 written · 2 refused.";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder of results: every .json file in it, and in the folders in it, that is a run becomes a part of the history
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Folder for history.json and history.html [default: DIR]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print history.json to standard output in place of the changes
    #[arg(long)]
    json: bool,
}

/// Reads, writes and prints; the exit code.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { folder, out, json } = arguments;
    let (history, [file, page]) =
        history::history(folder, out.as_deref()).map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
    print!("{}", if *json { model::write(&history) } else { model::terminal(&history) });
    eprintln!("{} and {}", file.display(), page.display());
    Ok(0)
}
