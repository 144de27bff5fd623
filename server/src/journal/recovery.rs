//! What a journal holds after whatever ended the process, or the machine.
//!
//! Reads every segment, cuts a torn tail (by not reading it: nothing is ever written behind it), and refuses when something that was
//! synced is missing or damaged. Changes nothing but to sync what it read: a batch that the last process wrote and did not sync
//! may be told of from now on.

use super::disk::{Disk, DiskFile};
use super::format::{self, Damage};
use super::segments::{DiskError, attempt, segment_name, segment_number};
use crate::event::Event;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Oldest first.
    pub segments: Vec<RecoveredSegment>,
    /// Number for the next batch.
    pub batch: u64,
    /// Number for the next segment.
    pub number: u64,
}

/// One segment of them.
#[derive(Debug, PartialEq, Eq)]
pub struct RecoveredSegment {
    /// Its number.
    pub number: u64,
    /// Of the whole file.
    pub bytes: u64,
    /// In the order in which they were acknowledged.
    pub events: Vec<Event>,
}

/// Why a journal is not used.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A segment that must be there is not.
    #[error("{} is missing between older and newer segments", segment_name(*number))]
    Missing {
        /// Its number.
        number: u64,
    },
    /// A segment cannot be trusted.
    #[error("{name}: {damage}")]
    Damaged {
        /// File.
        name: String,
        /// How.
        damage: Damage,
    },
    /// The file is another one than its name says.
    #[error("{name} holds segment {number}")]
    Misnamed {
        /// File.
        name: String,
        /// What its header says.
        number: u64,
    },
    /// Batches are missing at the end of a segment, or at the beginning of the next.
    #[error("{name} goes on with batch {found}, and batch {expected} is missing: something that was synced is damaged")]
    Gap {
        /// File.
        name: String,
        /// The batch that should come next.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// The disk does not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// See the module.
pub fn recover<D: Disk>(disk: &D) -> Result<Recovered, RecoveryError> {
    let names = attempt("list", ".", disk.list())?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    if let Some([before, _]) = numbers.array_windows().find(|[before, after]| before + 1 != *after) {
        return Err(RecoveryError::Missing { number: before + 1 });
    }
    let mut recovered = Recovered { segments: Vec::new(), batch: 1, number: 1 };
    let mut is_first_batch = true;
    for number in numbers {
        let name = segment_name(number);
        let (bytes, content) = read(disk, &name)?;
        if content.header.number != number {
            return Err(RecoveryError::Misnamed { name, number: content.header.number });
        }
        let mut events = Vec::new();
        for batch in content.batches {
            // Segments that went took their batches with them, so the first may have any number.
            if batch.number != recovered.batch && !is_first_batch {
                return Err(RecoveryError::Gap { name, expected: recovered.batch, found: batch.number });
            }
            is_first_batch = false;
            recovered.batch = batch.number + 1;
            events.extend(batch.events);
        }
        recovered.number = number + 1;
        recovered.segments.push(RecoveredSegment { number, bytes, events });
    }
    attempt("sync", "the folder", disk.sync())?;
    Ok(recovered)
}

fn read<D: Disk>(disk: &D, name: &str) -> Result<(u64, format::Content), RecoveryError> {
    let file = attempt("open", name, disk.open(name))?;
    attempt("sync", name, file.sync())?;
    let bytes = attempt("read", name, file.read())?;
    let content = format::read(&bytes).map_err(|damage| RecoveryError::Damaged { name: name.to_owned(), damage })?;
    Ok((bytes.len() as u64, content))
}
