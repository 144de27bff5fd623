//! Every request as a row of a CSV file: what a result sums up, for those who want to do their own sums.
//!
//! Written by the recording thread, never by the sending one. A disk that is full ends the writing, not the run: the result says how many
//! rows are missing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reports::model::{Caveat, CaveatKind, Operation};

use crate::clock::Clock;
use crate::payload::Payloads;
use crate::recorder::{Sample, SampleOutcome};

const HEADER: &str = "target,repetition,operation,sequence,dedup_id,intended_unix_ns,sendable_unix_ns,sent_unix_ns,done_unix_ns,outcome,status";
/// Written with one call, bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// The file of a run.
#[derive(Debug)]
pub struct SampleFile {
    path: PathBuf,
    writing: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    out: BufWriter<File>,
    rows: u64,
    /// Since when rows are left out, and why.
    failed: Option<(u64, io::Error)>,
}

impl SampleFile {
    /// Creates the file, or empties it, and writes the header.
    pub fn create(path: &Path) -> io::Result<Arc<Self>> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        writeln!(out, "{HEADER}")?;
        let writing = Mutex::new(Writing { out, rows: 0, failed: None });
        Ok(Arc::new(Self { path: path.to_owned(), writing }))
    }

    /// The rows of one load.
    pub fn rows(self: &Arc<Self>, target: &str, repetition: u32, clock: Clock, payloads: Payloads) -> Rows {
        Rows { file: Arc::clone(self), target: quoted(target), repetition, clock, payloads }
    }

    /// Writes what is still in memory; tells what is missing in the file.
    pub fn finish(&self) -> Option<Caveat> {
        let mut writing = self.lock();
        let rows = writing.rows;
        let flushed = writing.out.flush();
        writing.fail_at(rows, flushed);
        let (from, error) = writing.failed.as_ref()?;
        let detail = match from {
            0 => format!("{} is not whole: {error}", self.path.display()),
            from => format!("{} ends after about {from} of {rows} rows: {error}", self.path.display()),
        };
        let remedy =
            "make room where --samples writes, or leave it out; the numbers here are of all requests".to_owned();
        Some(Caveat { kind: CaveatKind::SamplesIncomplete, subject: None, detail, remedy, invalidates: false })
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    fn fail_at(&mut self, row: u64, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.get_or_insert((row, error));
        }
    }
}

/// Writes the rows of one load.
#[derive(Debug)]
pub struct Rows {
    file: Arc<SampleFile>,
    target: String,
    repetition: u32,
    clock: Clock,
    payloads: Payloads,
}

impl Rows {
    /// A row for each.
    pub fn write(&mut self, samples: &[Sample]) {
        let mut writing = self.file.lock();
        for sample in samples {
            if writing.failed.is_none() {
                let (row, written) = (writing.rows, self.write_row(sample, &mut writing.out));
                writing.fail_at(row, written);
            }
            writing.rows += 1;
        }
    }

    fn write_row(&self, sample: &Sample, out: &mut impl Write) -> io::Result<()> {
        let Sample { operation, sequence, .. } = *sample;
        let dedup_id = if operation == Operation::Ingest { self.payloads.dedup_id(sequence) } else { String::new() };
        let unix_ns = |ns| self.clock.unix_ns(ns);
        let sent = sample.sent_ns.map_or_else(String::new, |ns| unix_ns(ns).to_string());
        let (outcome, status) = match &sample.outcome {
            SampleOutcome::Accepted { status, .. } => ("accepted", Some(status)),
            SampleOutcome::Batch { status, refused: 0, .. } => ("accepted", Some(status)),
            SampleOutcome::Batch { status, .. }
            | SampleOutcome::Rejected { status }
            | SampleOutcome::Known { status } => ("rejected", Some(status)),
            SampleOutcome::FailedStatus { status } | SampleOutcome::NotAcknowledged { status, .. } => {
                ("failed", Some(status))
            }
            SampleOutcome::Failed { .. } => ("failed", None),
            SampleOutcome::TimedOut => ("timed_out", None),
            SampleOutcome::NotSent => ("not_sent", None),
        };
        let status = status.map_or_else(String::new, u16::to_string);
        write!(out, "{},{},{},{sequence},{dedup_id},", self.target, self.repetition, operation.name())?;
        let (intended, sendable) = (unix_ns(sample.intended_ns), unix_ns(sample.sendable_ns));
        writeln!(out, "{intended},{sendable},{sent},{},{outcome},{status}", unix_ns(sample.done_ns))
    }
}

/// As RFC 4180 has it, where it is needed.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(operation: Operation, sent_ns: Option<u64>, outcome: SampleOutcome) -> Sample {
        let (intended_ns, sendable_ns, done_ns) = (10, 20, 40);
        Sample {
            operation,
            sequence: 7,
            request: 8,
            intended_ns,
            sendable_ns,
            sent_ns,
            done_ns,
            repeat: false,
            outcome,
        }
    }

    #[test]
    fn each_request_is_a_row_with_its_four_instants() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("samples.csv");
        let file = SampleFile::create(&path).expect("a file");
        let (clock, payloads) = (Clock::start(), Payloads::new("run-1", 64, 1));
        let mut rows = file.rows("a, \"b\"", 2, clock, payloads.clone());
        let refused = SampleOutcome::Batch { status: 200, acknowledged: Box::new([]), refused: 1 };
        rows.write(&[
            sample(Operation::Ingest, Some(30), SampleOutcome::Accepted { status: 202, id: None }),
            sample(Operation::Batch, Some(30), refused),
            sample(Operation::Ingest, None, SampleOutcome::NotSent),
        ]);
        assert_eq!(file.finish(), None);
        let [a, b, c, d] = [10, 20, 30, 40].map(|ns| clock.unix_ns(ns));
        let id = payloads.dedup_id(7);
        let name = "\"a, \"\"b\"\"\"";
        let expected = format!(
            "{HEADER}\n{name},2,ingest,7,{id},{a},{b},{c},{d},accepted,202\n{name},2,batch,7,,{a},{b},{c},{d},rejected,200\n\
             {name},2,ingest,7,{id},{a},{b},,{d},not_sent,\n"
        );
        assert_eq!(std::fs::read_to_string(&path).expect("text"), expected);
    }
}
