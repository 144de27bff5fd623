//! `loadgen report` and `loadgen export`: a result as a page, and in the formats of other tools.

use std::path::PathBuf;

use clap::Args;
use reports::export::Format;
use reports::gate::file as gate_file;
use reports::schema::ReadError;
use reports::{export, html, schema};

use super::{EXIT_USAGE, Failure};

pub(super) const EXPORT_EXAMPLES: &str = "Examples:
  loadgen export run.json --format markdown >> $GITHUB_STEP_SUMMARY
  loadgen export run.json --format junit --out run.xml
  loadgen export gate.json --format junit --out gate.xml";

/// Flags of `report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// A run.json
    run: PathBuf,

    /// Where the page goes [default: report.html beside it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A run.json, or a gate.json
    #[arg(value_name = "RESULT.json")]
    result: PathBuf,

    /// markdown (for the summary of a CI job), markdown-comment (for a pull request), junit, bmf (Bencher), github-smaller, github-bigger
    /// (github-action-benchmark), csv, hlog (HdrHistogram) or openmetrics
    #[arg(long, value_parser = Format::ALL.map(Format::name))]
    format: String,

    /// Where it goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the page; the exit code.
pub(super) fn report(arguments: &ReportArgs) -> Result<u8, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("{}: {error}", arguments.run.display()));
    let text = std::fs::read_to_string(&arguments.run).map_err(|error| fail(&error))?;
    let run = schema::read(&text).map_err(|error| fail(&error))?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.run.with_file_name("report.html"));
    std::fs::write(&out, html::render(&run))
        .map_err(|error| Failure(EXIT_USAGE, format!("{}: {error}", out.display())))?;
    println!("{}", out.display());
    Ok(0)
}

/// Writes or prints it; the exit code.
pub(super) fn export(arguments: &ExportArgs) -> Result<u8, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("{}: {error}", arguments.result.display()));
    let text = std::fs::read_to_string(&arguments.result).map_err(|error| fail(&error))?;
    let format = Format::from_name(&arguments.format).ok_or_else(|| fail(&"no such format"))?;
    let text = match gate_file::read(&text) {
        Ok(gate) => export::export_gate(&gate, format)
            .ok_or_else(|| fail(&"a gate keeps no histograms, and hlog is made of those; choose another --format"))?,
        Err(ReadError::OtherSchema { .. }) => {
            let run = schema::read(&text).map_err(|error| fail(&error))?;
            export::export(&run, format).map_err(|error| fail(&error))?
        }
        Err(error) => return Err(fail(&error)),
    };
    match &arguments.out {
        Some(path) => std::fs::write(path, text)
            .map_err(|error| Failure(EXIT_USAGE, format!("--out {}: {error}", path.display())))?,
        None => print!("{text}"),
    }
    Ok(0)
}
