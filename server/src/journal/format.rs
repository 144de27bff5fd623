//! The bytes of a segment: a header, then batches, each of them records and one commit record. Pure: bytes in, bytes out.
//!
//! ```text
//! segment  header, zeros up to RECORDS_START, batch, batch, … then whatever the file held before
//! batch    event record × n, commit record
//! record   crc32 u32 · length u32 · kind u8 · 7 × 0 · body · zeros up to a multiple of 8        (little endian)
//! event    as [`Event::write_bytes`] has it
//! commit   batch number u64 · offset of the batch's first record u64 · records u32 · 0 u32
//! ```
//!
//! A checksum covers the record, its offset and the segment's *salt*: a random number of each life of the file. So what a recycled file
//! held before is no record, and nobody can send a payload that looks like one.
//!
//! A batch is written in one piece and synced before the next one is begun. So only the last batch can be torn, and a commit record
//! that begins *after* the end of what can be read proves that something synced is damaged: that is [`Damage::Hole`], and no reason to cut.
//! (Damage to the very last batch cannot be told from a torn write: nobody knows whether it was acknowledged.)

use crate::event::{BYTES_MIN, Event};

/// Where the first record begins: the header has a page of its own, so that no later write touches it.
pub const RECORDS_START: u64 = 4096;

/// What a batch of one event takes beside the event's texts, at most: two frames, fixed fields, commit, padding. In bytes.
pub const BATCH_OVERHEAD_BYTES: u64 = 128;

const MAGIC: [u8; 8] = *b"MILLJRNL";
const VERSION: u32 = 1;
/// Magic, version, reserved, number, salt, checksum.
const HEADER_BYTES: usize = 36;
const FRAME_BYTES: usize = 16;
const ALIGNMENT: usize = 8;
const EVENT: u8 = 1;
const COMMIT: u8 = 2;
const COMMIT_BYTES: usize = 24;

/// Who a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Position among the segments, from 1; never given twice in a folder.
    pub number: u64,
    /// Random; see the module.
    pub salt: u64,
}

impl Header {
    /// As it stands at the beginning of the file.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        let header = bytes.get(..HEADER_BYTES).ok_or(Damage::Header)?;
        if header[..8] != MAGIC || crc32fast::hash(&header[..32]) != u32_at(header, 32) {
            return Err(Damage::Header);
        }
        match u32_at(header, 8) {
            VERSION => Ok(Self { number: u64_at(header, 16), salt: u64_at(header, 24) }),
            version => Err(Damage::Version { version }),
        }
    }
}

/// Why a segment cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a segment, or its header is broken.
    #[error("its header is not a journal segment's")]
    Header,
    /// Written by another version of this program.
    #[error("it has format version {version}, and this program reads version {VERSION}")]
    Version {
        /// As found.
        version: u32,
    },
    /// Valid data behind data that cannot be read.
    #[error(
        "the bytes {from}..{until} cannot be read, and batch {batch} behind them can: something that was synced is damaged"
    )]
    Hole {
        /// Offset of the first byte that is no valid record.
        from: u64,
        /// Offset at which the batch behind it begins.
        until: u64,
        /// Its number.
        batch: u64,
    },
}

/// One batch as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Counts up by one from batch to batch, across segments.
    pub number: u64,
    /// In the order in which they were written.
    pub events: Vec<Event>,
}

/// All that a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Who it is.
    pub header: Header,
    /// In order.
    pub batches: Vec<Batch>,
    /// Offset behind the last batch.
    pub end: u64,
}

/// Puts one batch together.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    buffer: &'a mut Vec<u8>,
    salt: u64,
    /// Offset in the segment at which the buffer will be written.
    start: u64,
    records: u32,
}

impl<'a> BatchWriter<'a> {
    /// A batch that will be written at `start` of the segment with this `salt`. Clears the buffer.
    pub fn new(buffer: &'a mut Vec<u8>, salt: u64, start: u64) -> Self {
        buffer.clear();
        Self { buffer, salt, start, records: 0 }
    }

    /// How long the batch would be with this event, finished. In bytes.
    pub fn bytes_with(&self, event: &Event) -> u64 {
        let events = self.buffer.len() + padded(FRAME_BYTES + event.bytes_len());
        (events + padded(FRAME_BYTES + COMMIT_BYTES)) as u64
    }

    /// Events so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Adds an event. Its texts are as long as the contract allows at most, so that their lengths fit.
    pub fn push(&mut self, event: &Event) {
        let frame = self.open(EVENT, event.bytes_len());
        event.write_bytes(self.buffer);
        self.close(frame);
        self.records += 1;
    }

    /// Adds the commit record: now the buffer is the batch.
    pub fn finish(mut self, number: u64) {
        let frame = self.open(COMMIT, COMMIT_BYTES);
        self.buffer.extend_from_slice(&number.to_le_bytes());
        self.buffer.extend_from_slice(&self.start.to_le_bytes());
        self.buffer.extend_from_slice(&self.records.to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.close(frame);
    }

    /// Begins a record; where its frame is.
    fn open(&mut self, kind: u8, body_bytes: usize) -> usize {
        let frame = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        // A body is bounded by the largest payload, which a setting keeps far below 4 GiB.
        self.buffer.extend_from_slice(&(body_bytes as u32).to_le_bytes());
        self.buffer.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
        frame
    }

    fn close(&mut self, frame: usize) {
        let crc = checksum(self.salt, self.start + frame as u64, &self.buffer[frame + 4..]);
        self.buffer[frame..frame + 4].copy_from_slice(&crc.to_le_bytes());
        let length = self.buffer.len() - frame;
        self.buffer.resize(frame + padded(length), 0);
    }
}

/// Reads a whole segment: what was committed, with a torn tail left out.
pub fn read(bytes: &[u8]) -> Result<Content, Damage> {
    let header = Header::from_bytes(bytes)?;
    let (mut batches, mut events) = (Vec::new(), Vec::new());
    let (mut end, mut at) = (RECORDS_START, RECORDS_START);
    while let Some(record) = record_at(bytes, header.salt, at) {
        at += padded(FRAME_BYTES + record.body.len()) as u64;
        if record.kind == EVENT {
            let Some(event) = Event::from_bytes(record.body) else { break };
            events.push(event);
            continue;
        }
        let commit = Commit::read(record.body);
        if commit.start != end || commit.records as usize != events.len() {
            break;
        }
        batches.push(Batch { number: commit.number, events: std::mem::take(&mut events) });
        end = at;
    }
    match first_batch_behind(bytes, header.salt, end) {
        Some(commit) => Err(Damage::Hole { from: end, until: commit.start, batch: commit.number }),
        None => Ok(Content { header, batches, end }),
    }
}

struct Record<'a> {
    kind: u8,
    body: &'a [u8],
}

struct Commit {
    number: u64,
    start: u64,
    records: u32,
}

impl Commit {
    /// Out of a body of [`COMMIT_BYTES`].
    fn read(body: &[u8]) -> Self {
        Self { number: u64_at(body, 0), start: u64_at(body, 8), records: u32_at(body, 16) }
    }
}

/// The valid record at this offset, if there is one.
fn record_at(bytes: &[u8], salt: u64, offset: u64) -> Option<Record<'_>> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    let frame = rest.get(..FRAME_BYTES)?;
    let (length, kind) = (u32_at(frame, 4) as usize, frame[8]);
    let known = match kind {
        EVENT => length >= BYTES_MIN,
        COMMIT => length == COMMIT_BYTES,
        _ => false,
    };
    if !known {
        return None;
    }
    let record = rest.get(..FRAME_BYTES.checked_add(length)?)?;
    let valid = checksum(salt, offset, &record[4..]) == u32_at(frame, 0);
    valid.then(|| Record { kind, body: &record[FRAME_BYTES..] })
}

/// The first commit record behind `end` whose batch began behind `end`, too.
fn first_batch_behind(bytes: &[u8], salt: u64, end: u64) -> Option<Commit> {
    (end..bytes.len() as u64)
        .step_by(ALIGNMENT)
        .filter(|offset| bytes.get(*offset as usize + 8) == Some(&COMMIT))
        .filter_map(|offset| record_at(bytes, salt, offset))
        .map(|record| Commit::read(record.body))
        .find(|commit| commit.start > end)
}

fn checksum(salt: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}
