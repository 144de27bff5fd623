//! The rule by which a faulty server decides which events it hits, written down a second time from its description.

use reports::model::Run;
use sha2::{Digest, Sha256};

/// `--fault-seed` when it is left out.
const FAULT_SEED: u64 = 1;

/// Whether a fault that hits this share of all events hits this one.
pub fn is_hit(fault: &str, share: f64, dedup_id: &str) -> bool {
    let digest = Sha256::digest(format!("{FAULT_SEED}:{fault}:{dedup_id}"));
    let first = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    ((first >> 11) as f64) < share * (1u64 << 53) as f64
}

/// `dedup_id`s of the events of the only measurement of a run, in the order in which they were due.
pub fn dedup_ids(run: &Run, planned: u64) -> impl Iterator<Item = String> {
    (0..planned).map(|sequence| format!("{}.1.{sequence:012}", run.run_id))
}
