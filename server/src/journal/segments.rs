//! The files of the journal: made ahead, used one after the other, and used again once the store has all that they hold.
//!
//! A file has the name of a segment only while its header says the same. It is made, or made again, under another name, synced, and renamed;
//! and the folder is synced after each rename and removal, so that after a power loss the segments are still without a gap.
//!
//! A segment goes when nobody holds its [`Hold`] any more: every pending event has a share of it. They go strictly oldest first.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngCore as _;

use super::disk::{Disk, DiskFile};
use super::format::{Header, RECORDS_START};
use crate::pending::Hold;

/// Files that are kept for use instead of being removed. More would only be needed if segments filled up faster than one can be made.
const SPARES_MAX: usize = 2;

/// A new file is written in pieces of so many bytes. All 16 MiB at once kept the disk from the batches for 6 to 10 ms.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A file while it is being made.
const UNFINISHED: &str = "unfinished";
const SEGMENT_PREFIX: &str = "segment-";
const SPARE_PREFIX: &str = "spare-";

/// A segment that can be written to.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) file: F,
    pub(super) header: Header,
    /// Of the whole file.
    pub(super) bytes: u64,
    /// Where the next batch goes.
    pub(super) end: u64,
    pub(super) hold: Hold,
}

/// Something that the journal asked of its disk, and did not get.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {name}: {error}")]
pub struct DiskError {
    /// As a verb.
    pub action: &'static str,
    /// Of which file.
    pub name: String,
    /// The system's reason.
    pub error: io::Error,
}

/// Why there is no next segment.
#[derive(Debug, thiserror::Error)]
pub enum NoSegment {
    /// The disk is full: nothing is broken, and trying again may succeed.
    #[error("the disk has no room for a segment of {bytes} bytes: {error}")]
    DiskFull {
        /// Of a segment.
        bytes: u64,
        /// The system's reason.
        error: io::Error,
    },
    /// `--journal-bytes-max` is reached, because the store has not taken what the oldest segment holds.
    #[error(
        "the journal would be over --journal-bytes-max ({bytes_max}): the store has not taken all of its oldest segment"
    )]
    AtBound {
        /// The bound.
        bytes_max: u64,
    },
    /// Something is wrong with the disk: what it said about earlier writes cannot be relied on either.
    #[error(transparent)]
    Broken(#[from] DiskError),
}

/// How large the journal may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of one segment.
    pub segment_bytes: u64,
    /// Of all segments that hold or may take events.
    pub bytes_max: u64,
}

/// How fast a new file is made: the disk is the batches', too.
pub(super) trait Pace {
    /// Whether nothing is to be left to others, because somebody waits for the segment.
    fn is_waited_for(&mut self) -> bool;
    /// Leaves the disk to others after a piece that took so long.
    fn rest(&mut self, took: Duration);
}

/// As fast as can be.
pub(super) struct AtOnce;

impl Pace for AtOnce {
    fn is_waited_for(&mut self) -> bool {
        true
    }

    fn rest(&mut self, _: Duration) {}
}

/// See the module.
#[derive(Debug)]
pub(super) struct Segments<D> {
    disk: Arc<D>,
    sizes: Sizes,
    /// For the next segment.
    number: u64,
    /// Full or left behind, oldest first.
    sealed: VecDeque<Sealed>,
    /// Names of files that can be made segments of.
    spares: Vec<String>,
}

/// A segment that takes nothing any more.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// Of the whole file.
    pub(super) bytes: u64,
    pub(super) hold: Hold,
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{SEGMENT_PREFIX}{number:016}")
}

/// The number in a segment's name; `None` for other files.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix(SEGMENT_PREFIX)?.parse().ok()
}

impl<D: Disk> Segments<D> {
    /// After a recovery that found `sealed`, oldest first, with `number` for the next one. Other files of the journal are spares, or leftovers and removed.
    pub(super) fn open(
        disk: Arc<D>,
        sizes: Sizes,
        number: u64,
        sealed: impl Into<VecDeque<Sealed>>,
    ) -> Result<Self, DiskError> {
        let segments = Self { disk, sizes, number, sealed: sealed.into(), spares: Vec::new() };
        for name in attempt("list", ".", segments.disk.list())? {
            if name == UNFINISHED || name.starts_with(SPARE_PREFIX) {
                // Spares may have another size than is wanted now, and making a new one costs little.
                attempt("remove", &name, segments.disk.remove(&name))?;
            }
        }
        segments.sync_folder()?;
        Ok(segments)
    }

    /// Notes that a segment takes nothing any more.
    pub(super) fn seal(&mut self, sealed: Sealed) {
        self.sealed.push_back(sealed);
    }

    /// Whether segments wait for the store.
    pub(super) fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Segments that hold events or wait to be retired.
    pub(super) fn sealed_count(&self) -> usize {
        self.sealed.len()
    }

    /// Takes the segments that nobody needs out of the journal.
    pub(super) fn retire(&mut self) -> Result<(), DiskError> {
        while let Some(oldest) = self.sealed.front()
            && Arc::strong_count(&oldest.hold) == 1
        {
            let name = segment_name(oldest.number);
            if self.spares.len() < SPARES_MAX && oldest.bytes == self.sizes.segment_bytes {
                let spare = format!("{SPARE_PREFIX}{:016}", oldest.number);
                attempt("rename", &name, self.disk.rename(&name, &spare))?;
                self.spares.push(spare);
            } else {
                attempt("remove", &name, self.disk.remove(&name))?;
            }
            // After each one: two that went could otherwise come back as a newer without an older, or the other way round.
            self.sync_folder()?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    /// The next segment: durable, empty, with its name.
    pub(super) fn prepare(&mut self, pace: &mut dyn Pace) -> Result<Segment<D::File>, NoSegment> {
        self.retire()?;
        let sealed_bytes: u64 = self.sealed.iter().map(|sealed| sealed.bytes).sum();
        // The one in use, and this one.
        if sealed_bytes + 2 * self.sizes.segment_bytes > self.sizes.bytes_max {
            return Err(NoSegment::AtBound { bytes_max: self.sizes.bytes_max });
        }
        let header = Header { number: self.number, salt: rand::rng().next_u64() };
        let name = segment_name(header.number);
        let from = self.spares.pop().unwrap_or_else(|| UNFINISHED.to_owned());
        let file = match self.make(&from, &name, header, pace) {
            Err(DiskError { error, .. }) if is_full(&error) => {
                // What there is of it takes the room that others may need.
                let _ = self.disk.remove(&from);
                return Err(NoSegment::DiskFull { bytes: self.sizes.segment_bytes, error });
            }
            made => made?,
        };
        self.sync_folder()?;
        self.number += 1;
        Ok(Segment { file, header, bytes: self.sizes.segment_bytes, end: RECORDS_START, hold: Hold::default() })
    }

    /// Makes a segment of a spare, or of a new file.
    fn make(&self, from: &str, name: &str, header: Header, pace: &mut dyn Pace) -> Result<D::File, DiskError> {
        let file = match from {
            UNFINISHED => self.create(pace)?,
            spare => attempt("open", spare, self.disk.open(spare))?,
        };
        attempt("write the header of", name, file.write_at(&header.to_bytes(), 0))?;
        attempt("sync", name, file.sync())?;
        attempt("rename", from, self.disk.rename(from, name))?;
        Ok(file)
    }

    /// A new file, each byte of which is written. Allocated is not enough: ext4 notes for each block whether it was ever written, and noting
    /// that at the first write would make each sync of a batch a change of metadata, too.
    fn create(&self, pace: &mut dyn Pace) -> Result<D::File, DiskError> {
        let bytes = self.sizes.segment_bytes;
        let file = attempt("create", UNFINISHED, self.disk.create(UNFINISHED, bytes))?;
        let zeros = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let started = Instant::now();
            let piece = usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            attempt("write to", UNFINISHED, file.write_at(&zeros[..piece], offset))?;
            offset += piece as u64;
            // Who waits has one sync to wait for, which comes with the header, and not one for each piece.
            if offset < bytes && !pace.is_waited_for() {
                attempt("sync", UNFINISHED, file.sync())?;
                pace.rest(started.elapsed());
            }
        }
        Ok(file)
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        attempt("sync", "the folder", self.disk.sync())
    }
}

/// Says what was tried on which file when it failed.
pub(super) fn attempt<T>(action: &'static str, name: &str, result: io::Result<T>) -> Result<T, DiskError> {
    result.map_err(|error| DiskError { action, name: name.to_owned(), error })
}

/// Whether there is no room, as opposed to something being wrong.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
