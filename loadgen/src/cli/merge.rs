//! `loadgen merge`: the parts of a load as one result.

use std::path::PathBuf;

use clap::Args;
use reports::merge::{Input, Merging, merge};
use reports::{html, schema, table, verdict};

use super::invocation::Invocation;
use super::output::{OUTPUT, open_page};
use super::terminal::{print_result, print_text, say_unless};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure, read_run};

pub(super) const EXAMPLES: &str = "Examples:
  # the folders that four parts left
  loadgen merge millrace-results/monday-1/0 millrace-results/monday-1/1 --out monday-1
  # files that were copied together
  loadgen merge shard-*.json --out monday-1

All parts of one load, each once: a part that is missing is refused, and so are parts of unlike plans, seeds, targets or builds, and clocks that are \
too far apart. Exit codes as for run; 2 refused.";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The result of every part (run.json, or its folder)
    #[arg(required = true, value_name = "SHARD.json")]
    parts: Vec<PathBuf>,

    /// Take clocks as right that could not be held against the target's
    #[arg(long)]
    trust_clocks: bool,

    /// Folder for run.json and report.html, made if it is not there
    #[arg(long, value_name = "DIR", required = true, env = "LOADGEN_MERGE_OUT", help_heading = OUTPUT)]
    out: PathBuf,

    /// Print the result to standard output as JSON, in place of the table
    #[arg(long, help_heading = OUTPUT)]
    json: bool,

    /// No hints: the result, where it is, and what went wrong
    #[arg(long, short, help_heading = OUTPUT)]
    quiet: bool,

    /// Open the report in the browser
    #[arg(long, help_heading = OUTPUT)]
    open: bool,
}

/// Merges, judges, writes and prints; the exit code.
pub(super) fn run(arguments: &Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let Arguments { parts, trust_clocks, out, json, quiet, open } = arguments;
    let read = |path: &PathBuf| read_run(path).map(|(path, run)| Input { name: path.display().to_string(), run });
    let inputs: Vec<Input> = parts.iter().map(read).collect::<Result<_, _>>()?;
    let merging = Merging { command: invocation.command_line(), trust_clocks: *trust_clocks };
    let mut run = merge(&inputs, merging).map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
    verdict::assess(&mut run);
    std::fs::create_dir_all(out).map_err(|error| Failure::writing(EXIT_USAGE, "--out", out, &error))?;
    let text = schema::write(&run);
    let (file, page) = (out.join("run.json"), out.join("report.html"));
    for (path, text) in [(&file, &text), (&page, &html::render(&run))] {
        std::fs::write(path, text)
            .map_err(|error| Failure(EXIT_INTERNAL, format!("cannot write {}: {error}", path.display())))?;
    }
    if *json {
        print_text(&(text + "\n"))
    } else {
        print_result(&(table::render(&run) + "\n"))
    }
    anstream::eprintln!("{} and {}", file.display(), page.display());
    say_unless(*quiet || *open, "next: open the page (--open does it)");
    if *open {
        open_page(&page);
    }
    Ok(run.verdict.exit_code)
}
