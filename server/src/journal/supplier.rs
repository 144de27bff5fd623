//! The thread that makes segments ahead, so that the one that syncs batches need not, and retires those that the store has all of.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::Disk;
use super::log::Supply;
use super::segments::{AtOnce, DiskError, NoSegment, Pace, Sealed, Segment, Segments};
use crate::metrics::Metrics;

/// How often to look whether the store has all of the oldest segment, or whether a full disk has room again; only while there is such a question.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How much lower the priority of this thread is: nobody waits for it unless a segment fills up faster than one is made.
const NICE: i32 = 10;

/// How many times as long as a piece of a new segment took to be written nothing of it is written: it takes a tenth of the disk's time.
const REST_FACTOR: u32 = 9;

/// The longest such rest: with it a segment of 16 MiB takes 3 s on a disk that is slow.
const REST_MAX: Duration = Duration::from_millis(50);

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
        let (messages, received) = channel();
        let (outbox, replies) = sync_channel(1);
        // Whoever sends the first event should not have to wait for a segment.
        let inbox = Inbox { received, early: VecDeque::new(), is_waited_for: true };
        let worker = Worker { segments, inbox, ready: None, is_short: false, watch, metrics };
        let work = move || {
            scheduling::go_later(NICE);
            worker.run(&outbox);
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

/// What the thread is asked, and whether somebody waits for it.
struct Inbox {
    received: Receiver<Message>,
    /// Received during a rest.
    early: VecDeque<Message>,
    /// Nothing rests any more.
    is_waited_for: bool,
}

impl Inbox {
    /// The next message; an error when there is none in time, or never will be.
    fn next(&mut self, timeout: Option<Duration>) -> Result<Message, RecvTimeoutError> {
        self.is_waited_for = false;
        match (self.early.pop_front(), timeout) {
            (Some(message), _) => Ok(message),
            (None, Some(timeout)) => self.received.recv_timeout(timeout),
            (None, None) => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Keeps what is received for later; whether somebody waits.
    fn look(&mut self, timeout: Duration) -> bool {
        if !self.is_waited_for {
            let received = self.received.recv_timeout(timeout);
            self.is_waited_for = !matches!(received, Err(RecvTimeoutError::Timeout));
            self.early.extend(received);
        }
        self.is_waited_for
    }
}

impl Pace for Inbox {
    fn is_waited_for(&mut self) -> bool {
        self.look(Duration::ZERO)
    }

    /// Until somebody asks for something.
    fn rest(&mut self, took: Duration) {
        self.look(took.saturating_mul(REST_FACTOR).min(REST_MAX));
    }
}

struct Worker<D: Disk, W> {
    segments: Segments<D>,
    inbox: Inbox,
    ready: Option<Segment<D::File>>,
    /// There was no room at the last try.
    is_short: bool,
    watch: W,
    metrics: Arc<Metrics>,
}

impl<D: Disk, W: Watch> Worker<D, W> {
    fn run(mut self, outbox: &SyncSender<Reply<D::File>>) {
        if let Err(error) = self.serve(outbox) {
            self.watch.broken(&error);
            // Whoever asks from now on is told that this thread has ended.
        }
    }

    /// Ends well when nobody can ask any more.
    fn serve(&mut self, outbox: &SyncSender<Reply<D::File>>) -> Result<(), DiskError> {
        loop {
            self.prefetch()?;
            let looks = self.is_short || self.segments.has_sealed();
            match self.inbox.next(looks.then_some(LOOK_INTERVAL)) {
                Ok(Message::Seal(sealed)) => self.segments.seal(sealed),
                Ok(Message::Next) => {
                    // One that failed before is tried again: what stood in the way may be gone.
                    let reply = self.ready.take().map_or_else(|| self.segments.prepare(&mut AtOnce), Ok);
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
        let Self { segments, inbox, .. } = self;
        match segments.prepare(inbox) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_ends_the_rests_and_is_answered_after_who_asked_before() {
        let (messages, received) = channel();
        let mut inbox = Inbox { received, early: VecDeque::new(), is_waited_for: false };
        let seal = |number| Message::Seal(Sealed { number, bytes: 1, hold: Arc::default() });
        messages.send(seal(1)).unwrap();
        messages.send(seal(2)).unwrap();
        assert!(inbox.is_waited_for());
        // As long as rests can be: were there one, the test would take minutes.
        (0..5_000).for_each(|_| inbox.rest(Duration::MAX));
        for expected in [1, 2] {
            let message = inbox.next(None);
            assert!(matches!(message, Ok(Message::Seal(Sealed { number, .. })) if number == expected));
        }
        assert!(matches!(inbox.next(Some(Duration::ZERO)), Err(RecvTimeoutError::Timeout)));
        assert!(!inbox.is_waited_for(), "and rests again");
        drop(messages);
        inbox.rest(Duration::MAX);
        assert!(inbox.is_waited_for(), "the end is waited for, too");
    }
}
