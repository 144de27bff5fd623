//! What every check of a plan needs: errors that say key, value, what is wrong and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use super::PlanError;

pub(super) const LEAVE_ONE_OUT: &str = "leave one of the two out";

pub(super) fn wrong(
    key: &'static str,
    value: impl fmt::Display,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> PlanError {
    PlanError::Value { key, value: value.to_string(), problem: problem.into(), remedy: remedy.into() }
}

pub(super) fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, PlanError> {
    std::fs::read(path).map_err(|source| PlanError::File { key, path: PathBuf::from(path), source })
}
