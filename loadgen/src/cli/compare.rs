//! `loadgen compare`: prints what was compared.

use reports::comparison;

use super::{EXIT_USAGE, Failure};
use crate::compare::{self, CompareArgs};

pub(super) const EXAMPLES: &str = "Examples:
  loadgen compare run.json                                  the variants or targets of one run
  loadgen compare old/run.json new/run.json                 the same plan on two days: named after the folders
  loadgen compare all/run.json capacities/run.json          with the response time against the rate
  loadgen compare all/run.json --reference cache-first --out comparison

Results of unlike plans or machines are refused with the fields that differ. Exit codes: 0 compared · 2 refused.";

/// Compares and prints; the exit code.
pub(super) fn run(arguments: &CompareArgs) -> Result<u8, Failure> {
    let (comparison, files) = compare::compare(arguments).map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
    match arguments.json {
        true => println!("{}", comparison::write(&comparison)),
        false => println!("{}", comparison::terminal(&comparison)),
    }
    eprintln!("{} and {}", files[0].display(), files[1].display());
    Ok(0)
}
