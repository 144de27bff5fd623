//! The thread that makes segments ahead, so that the one that syncs batches need not, and retires those that the store has all of.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::Disk;
use super::log::Supply;
use super::segments::{DiskError, NoSegment, Sealed, Segment, Segments};
use crate::metrics::Metrics;

/// How often to look whether the store has all of the oldest segment, or whether a full disk has room again; only while there is such a question.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How much lower the priority of this thread is: nobody waits for it unless a segment fills up faster than one is made.
const NICE: i32 = 10;

enum Message {
    Next,
    Seal(Sealed),
}

type Reply<F> = Result<Segment<F>, NoSegment>;

/// The way to the thread; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Supplier<F> {
    messages: Sender<Message>,
    replies: Receiver<Reply<F>>,
}

/// What else the thread tells: what is broken, and that there is room again.
pub(super) trait Watch: Send + 'static {
    /// Nothing of this disk can be relied on.
    fn broken(&self, error: &DiskError);
    /// A segment is ready.
    fn has_room(&self);
}

impl<F: Send + 'static> Supplier<F> {
    pub(super) fn start<D: Disk<File = F>>(
        segments: Segments<D>,
        watch: impl Watch,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (messages, inbox) = channel();
        let (outbox, replies) = sync_channel(1);
        let worker = Worker { segments, ready: None, is_short: false, watch, metrics };
        let work = move || {
            // On Linux the priority is the thread's; 0 is the calling one. Where it is refused, the thread is only less polite.
            let _ = rustix::process::setpriority_process(None, NICE);
            worker.run(&inbox, &outbox);
        };
        let thread = thread::Builder::new().name("journal-segments".into()).spawn(work)?;
        Ok((Self { messages, replies }, thread))
    }
}

impl<F> Supply<F> for Supplier<F> {
    fn next(&mut self) -> Result<Segment<F>, NoSegment> {
        let gone = || DiskError {
            action: "get a segment from",
            name: "the thread that makes them".to_owned(),
            error: std::io::Error::other("it has ended"),
        };
        self.messages.send(Message::Next).map_err(|_| gone())?;
        self.replies.recv().map_err(|_| gone())?
    }

    fn seal(&mut self, sealed: Sealed) {
        // Without its thread the segment stays in its place, and is read at the next start.
        let _ = self.messages.send(Message::Seal(sealed));
    }
}

struct Worker<D: Disk, W> {
    segments: Segments<D>,
    ready: Option<Segment<D::File>>,
    /// There was no room at the last try.
    is_short: bool,
    watch: W,
    metrics: Arc<Metrics>,
}

impl<D: Disk, W: Watch> Worker<D, W> {
    fn run(mut self, inbox: &Receiver<Message>, outbox: &SyncSender<Reply<D::File>>) {
        if let Err(error) = self.serve(inbox, outbox) {
            self.watch.broken(&error);
            // Whoever asks from now on is told that this thread has ended.
        }
    }

    /// Ends well when nobody can ask any more.
    fn serve(&mut self, inbox: &Receiver<Message>, outbox: &SyncSender<Reply<D::File>>) -> Result<(), DiskError> {
        loop {
            self.prefetch()?;
            let message = if self.is_short || self.segments.has_sealed() {
                inbox.recv_timeout(LOOK_INTERVAL)
            } else {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match message {
                Ok(Message::Seal(sealed)) => self.segments.seal(sealed),
                Ok(Message::Next) => {
                    // One that failed before is tried again: what stood in the way may be gone.
                    let reply = self.ready.take().map_or_else(|| self.segments.prepare(), Ok);
                    if outbox.send(reply).is_err() {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.segments.retire()?,
                Err(RecvTimeoutError::Disconnected) => return self.segments.retire(),
            }
            self.metrics.journal_segments.set(i64::try_from(self.segments.sealed_count() + 1).unwrap_or(i64::MAX));
        }
    }

    fn prefetch(&mut self) -> Result<(), DiskError> {
        if self.ready.is_some() {
            return Ok(());
        }
        match self.segments.prepare() {
            Ok(segment) => {
                self.ready = Some(segment);
                self.is_short = false;
                self.watch.has_room();
            }
            Err(NoSegment::Broken(error)) => return Err(error),
            Err(_) => self.is_short = true,
        }
        Ok(())
    }
}
