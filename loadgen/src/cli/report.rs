//! `loadgen report` and `loadgen export`: a result as a page, and in the formats of other tools.

use std::path::PathBuf;

use clap::Args;
use reports::export::Format;
use reports::gate::file as gate_file;
use reports::schema::ReadError;
use reports::{export, html};

use super::output::{OUTPUT, open_page};
use super::terminal::print_text;
use super::{EXIT_USAGE, Failure, read_run};

pub(super) const EXAMPLES: &str = "Examples:
  # report.html beside it, made anew by this version
  loadgen report run.json
  # somewhere else, and in the browser at once
  loadgen report run.json --out monday.html --open";

pub(super) const EXPORT_EXAMPLES: &str = "Examples:
  # the summary of a job of GitHub Actions
  loadgen export run.json --format markdown >> $GITHUB_STEP_SUMMARY
  loadgen export run.json --format junit --out run.xml
  # the decision of a gate, each metric a test
  loadgen export gate.json --format junit --out gate.xml";

/// Flags of `report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// A run.json, or its folder
    #[arg(value_name = "RUN.json")]
    run: PathBuf,

    /// Where the page goes [default: report.html beside it]
    #[arg(long, value_name = "FILE", env = "LOADGEN_REPORT_OUT", help_heading = OUTPUT)]
    out: Option<PathBuf>,

    /// Open the page in the browser
    #[arg(long, help_heading = OUTPUT)]
    open: bool,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A run.json or its folder, or a gate.json
    #[arg(value_name = "RESULT.json")]
    result: PathBuf,

    /// Format of another tool
    ///
    /// markdown is for the summary of a CI job, markdown-comment for a pull request, bmf for Bencher, github-smaller and github-bigger for
    /// github-action-benchmark, hlog for HdrHistogram
    #[arg(long, value_parser = Format::ALL.map(Format::name), help_heading = OUTPUT)]
    format: String,

    /// Where it goes [default: standard output]
    #[arg(long, value_name = "FILE", env = "LOADGEN_EXPORT_OUT", help_heading = OUTPUT)]
    out: Option<PathBuf>,
}

/// Writes the page; the exit code.
pub(super) fn report(arguments: &ReportArgs) -> Result<u8, Failure> {
    let (path, run) = read_run(&arguments.run)?;
    let out = arguments.out.clone().unwrap_or_else(|| path.with_file_name("report.html"));
    std::fs::write(&out, html::render(&run)).map_err(|error| Failure::writing(EXIT_USAGE, "--out", &out, &error))?;
    print_text(&format!("{}\n", out.display()));
    if arguments.open {
        open_page(&out);
    }
    Ok(0)
}

/// Writes or prints it; the exit code.
pub(super) fn export(arguments: &ExportArgs) -> Result<u8, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("{}: {error}", arguments.result.display()));
    let format = Format::from_name(&arguments.format).ok_or_else(|| fail(&"no such format"))?;
    let gate = std::fs::read_to_string(&arguments.result).ok().map(|text| gate_file::read(&text));
    let text = match gate {
        Some(Ok(gate)) => export::export_gate(&gate, format)
            .ok_or_else(|| fail(&"a gate keeps no histograms, and hlog is made of those; choose another --format"))?,
        Some(Err(error @ ReadError::Invalid(_))) => return Err(fail(&error)),
        _ => {
            let (_, run) = read_run(&arguments.result)?;
            export::export(&run, format).map_err(|error| fail(&error))?
        }
    };
    match &arguments.out {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| Failure::writing(EXIT_USAGE, "--out", path, &error))?
        }
        None => print_text(&text),
    }
    Ok(0)
}
