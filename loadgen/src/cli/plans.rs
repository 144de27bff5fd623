//! `loadgen plans`: the built-in plans, and each as a file to begin one's own with.

use clap::Args;
use reports::format;
use serde::Serialize;

use super::output::OUTPUT;
use super::terminal::{print_json, print_text};
use super::{Failure, resolve, usage};
use crate::plan::{Asked, BUILT_IN};
use crate::run;

pub(super) const EXAMPLES: &str = "Examples:
  # which there are, and how long each takes
  loadgen plans
  # begin a plan of your own with one, and run it
  loadgen plans before-after > nightly.toml
  loadgen run nightly.toml";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print this plan as TOML, which `loadgen run FILE` takes [default: list all]
    #[arg(value_name = "NAME", value_parser = BUILT_IN.map(|(name, _)| name))]
    name: Option<String>,

    /// Print the list as JSON
    #[arg(long, conflicts_with = "name", help_heading = OUTPUT)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    seconds_expected: f64,
    what: String,
}

/// Prints; the exit code.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if let Some((_, toml)) = BUILT_IN.iter().find(|(name, _)| arguments.name.as_deref() == Some(*name)) {
        print_text(toml);
        return Ok(0);
    }
    let list = BUILT_IN.into_iter().map(|(name, toml)| {
        let plan = resolve(Asked::built_in(name).map_err(usage)?)?.plan;
        let seconds_expected = run::expected_duration(&plan).as_secs_f64();
        Ok(Listed { name, seconds_expected, what: first_sentence(toml) })
    });
    let list: Vec<Listed> = list.collect::<Result<_, Failure>>()?;
    if arguments.json {
        return print_json(&list).map(|()| 0);
    }
    let width = list.iter().map(|plan| plan.name.len()).max().unwrap_or(0);
    for Listed { name, seconds_expected, what } in &list {
        print_text(&format!("{name:width$}  about {:<12}  {what}\n", format::seconds(*seconds_expected)));
    }
    Ok(0)
}

/// Of the comment that a plan begins with.
fn first_sentence(toml: &str) -> String {
    let comment = toml.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect::<Vec<_>>().join(" ");
    comment.split_once(". ").map_or_else(|| comment.trim_end_matches('.').to_owned(), |(first, _)| first.to_owned())
}
