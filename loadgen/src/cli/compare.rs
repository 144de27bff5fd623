//! `loadgen compare`: prints what was compared.

use std::path::PathBuf;

use clap::Args;
use reports::comparison;

use super::output::{OUTPUT, open_page};
use super::terminal::{print_text, say_unless};
use super::{EXIT_USAGE, Failure};
use crate::compare;

pub(super) const EXAMPLES: &str = "Examples:
  # the variants or targets of one run
  loadgen compare run.json
  # the same plan on two days: named after the folders
  loadgen compare old/run.json new/run.json
  # with the response time against the rate
  loadgen compare all/run.json capacities/run.json
  # ratios to one of them, in a folder of its own
  loadgen compare all/run.json --reference cache-first --out comparison

Results of unlike plans or machines are refused with the fields that differ. Exit codes: 0 compared · 2 refused.";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Results (run.json, or their folders): of runs, and of searches for a capacity
    #[arg(required = true, value_name = "RUN.json")]
    runs: Vec<PathBuf>,

    /// The subject that ratios are to [default: the first]
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,

    /// Folder for compare.json and compare.html [default: that of the first result]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    out: Option<PathBuf>,

    /// Print compare.json to standard output in place of the tables
    #[arg(long, help_heading = OUTPUT)]
    json: bool,

    /// No hints: the tables, where they are, and what went wrong
    #[arg(long, short, help_heading = OUTPUT)]
    quiet: bool,

    /// Open the page in the browser
    #[arg(long, help_heading = OUTPUT)]
    open: bool,
}

/// Compares and prints; the exit code.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { runs, reference, out, json, quiet, open } = arguments;
    let (comparison, [file, page]) = compare::compare(runs, reference.as_deref(), out.as_deref())
        .map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
    let text = if *json { comparison::write(&comparison) } else { comparison::terminal(&comparison) };
    print_text(&(text + "\n"));
    anstream::eprintln!("{} and {}", file.display(), page.display());
    say_unless(*quiet || *open, "next: open the page (--open does it)");
    if *open {
        open_page(&page);
    }
    Ok(0)
}
