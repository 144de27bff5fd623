//! One batch after the other: encode, one write, one sync. What cannot be synced is never said to be.

use std::time::Instant;

use super::disk::{Disk, DiskFile};
use super::format::BatchWriter;
use super::segments::{AtOnce, DiskError, NoSegment, Sealed, Segment, Segments, attempt, is_full, segment_name};
use crate::config::JournalSync;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::pending::Hold;

/// Where the next segment comes from.
pub(super) trait Supply<F> {
    /// A segment to write to.
    fn next(&mut self) -> Result<Segment<F>, NoSegment>;
    /// One that takes nothing any more.
    fn seal(&mut self, sealed: Sealed);
}

impl<D: Disk> Supply<D::File> for Segments<D> {
    fn next(&mut self) -> Result<Segment<D::File>, NoSegment> {
        self.prepare(&mut AtOnce)
    }

    fn seal(&mut self, sealed: Sealed) {
        Self::seal(self, sealed);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Log<F, S> {
    supply: S,
    segment: Option<Segment<F>>,
    /// Number of the next batch.
    batch: u64,
    buffer: Vec<u8>,
    settings: LogSettings,
}

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogSettings {
    /// When a batch counts as safe.
    pub(super) sync: JournalSync,
    /// Bytes of one write; one event that is larger is written alone.
    pub(super) batch_bytes_max: u64,
    /// See [`super::JournalSettings::syncs_extra`].
    pub(super) syncs_extra: u32,
}

/// So many events from the front are in the journal.
#[derive(Debug)]
pub(super) struct Appended {
    /// 1 or more.
    pub(super) events: usize,
    /// To be kept until the store has them.
    pub(super) hold: Hold,
}

impl<F: DiskFile, S: Supply<F>> Log<F, S> {
    /// Continues after the batch before `batch`, in a segment of its own.
    pub(super) fn new(supply: S, batch: u64, settings: LogSettings) -> Self {
        Self { supply, segment: None, batch, buffer: Vec::new(), settings }
    }

    /// Writes and syncs one batch: as many of these events as fit, and at least the first. On an error none is in, or (when something
    /// is [`NoSegment::Broken`]) nobody can know: then this log must not be used again.
    pub(super) fn append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Event> + Clone,
        metrics: &Metrics,
    ) -> Result<Appended, NoSegment> {
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.supply.next()?,
        };
        let mut appended = self.encode(&segment, events.clone());
        if appended == 0 {
            self.retire(segment);
            segment = self.supply.next()?;
            appended = self.encode(&segment, events);
        }
        let name = || segment_name(segment.header.number);
        match segment.file.write_at(&self.buffer, segment.end) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // On a file system that writes elsewhere each time. What is there of the batch has no commit record that could be read as
                // one of the next batch, which goes into another segment.
                let bytes = segment.bytes;
                self.retire(segment);
                return Err(NoSegment::DiskFull { bytes, error });
            }
            Err(error) => return Err(DiskError { action: "write to", name: name(), error }.into()),
        }
        if self.settings.sync == JournalSync::Always {
            let started = Instant::now();
            attempt("sync", &name(), segment.file.sync())?;
            for _ in 0..self.settings.syncs_extra {
                // Written once more, or there would be nothing to sync.
                let again = segment.file.write_at(&self.buffer, segment.end).and_then(|()| segment.file.sync());
                attempt("sync", &name(), again)?;
                metrics.journal_syncs.inc();
            }
            metrics.journal_sync_seconds.observe(started.elapsed().as_secs_f64());
            metrics.journal_syncs.inc();
        }
        segment.end += self.buffer.len() as u64;
        self.batch += 1;
        let hold = segment.hold.clone();
        self.segment = Some(segment);
        Ok(Appended { events: appended, hold })
    }

    /// Ends the segment in use. The log can go on: with another one.
    pub(super) fn close(&mut self) -> &mut S {
        if let Some(segment) = self.segment.take() {
            self.retire(segment);
        }
        &mut self.supply
    }

    fn retire(&mut self, segment: Segment<F>) {
        let Segment { header, bytes, hold, .. } = segment;
        self.supply.seal(Sealed { number: header.number, bytes, hold });
    }

    /// Fills the buffer with as many events as fit behind the end of the segment; how many.
    fn encode<'a>(&mut self, segment: &Segment<F>, events: impl Iterator<Item = &'a Event>) -> usize {
        let mut batch = BatchWriter::new(&mut self.buffer, segment.header.salt, segment.end);
        for event in events {
            let bytes = batch.bytes_with(event);
            let is_large = batch.records() > 0 && bytes > self.settings.batch_bytes_max;
            if is_large || segment.end + bytes > segment.bytes {
                break;
            }
            batch.push(event);
        }
        let records = batch.records();
        batch.finish(self.batch);
        records as usize
    }
}
