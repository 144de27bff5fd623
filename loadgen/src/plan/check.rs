//! What every check of a plan needs: errors that say key, value, what is wrong and what to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::PlanError;
use super::spelling::Span;

/// Shortest steady phase, and shortest step in one, ms.
pub(super) const PHASE_MS_MIN: u64 = 100;
const PHASE_MAX: Duration = Duration::from_secs(24 * 3_600);

pub(super) const LEAVE_ONE_OUT: &str = "leave one of the two out";

pub(super) fn wrong(
    key: &'static str,
    value: impl fmt::Display,
    problem: impl Into<String>,
    remedy: &'static str,
) -> PlanError {
    PlanError::Value { key, value: value.to_string(), problem: problem.into(), remedy }
}

pub(super) fn within<T: PartialOrd + fmt::Display>(
    key: &'static str,
    value: T,
    min: T,
    max: T,
    unit: &str,
) -> Result<T, PlanError> {
    if value >= min && value <= max {
        return Ok(value);
    }
    let problem = format!("is out of range; allowed: {min} to {max} {unit}");
    Err(wrong(key, value, problem, "choose a value in that range"))
}

pub(super) fn milliseconds(
    key: &'static str,
    span: Option<Span>,
    default_ms: u64,
    min_ms: u64,
) -> Result<u64, PlanError> {
    let ms = span.map_or(default_ms, |Span(span)| span.as_millis() as u64);
    within(key, ms, min_ms, PHASE_MAX.as_millis() as u64, "ms")
}

pub(super) fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, PlanError> {
    std::fs::read(path).map_err(|source| PlanError::File { key, path: PathBuf::from(path), source })
}
