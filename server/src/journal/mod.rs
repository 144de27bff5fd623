//! `journal-first`: an event is acknowledged once it is in an append-only journal that is synced to its device.
//!
//! The way of an event: its room in the pending buffer is reserved; it waits in the `handoff`; one thread takes all that wait, writes them in
//! one piece and syncs them (`log`); then they go to the pending buffer, from where the processor persists them as in `cache-first`, and
//! their senders are answered. A segment of the journal stays until the store has all of it ([`segments`]). After a crash
//! [`recovery`] reads what there is, and what the store does not have yet becomes pending again.
//!
//! A write or a sync that fails ends the server: what the disk said before cannot be relied on any more, and trying again could succeed without
//! anything being written (a kernel may forget what it could not write). A full disk is no failure: events are refused until there is
//! room again.
//!
//! Not here: what persisting means (the store's), and who may send events.

pub mod disk;
pub mod format;
mod handoff;
mod log;
pub mod recovery;
pub mod segments;
mod supplier;

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use self::disk::{Disk, DiskFile, Folder, FolderError};
use self::handoff::Handoff;
use self::log::{Log, LogSettings, Supply};
use self::recovery::{Recovered, RecoveredSegment, RecoveryError, recover};
use self::segments::{DiskError, NoSegment, Sealed, Segments, Sizes};
use self::supplier::{Supplier, Watch};
use crate::alive::{Alive, Pulse, alive};
use crate::config::{JournalSync, Limits, ms};
use crate::dedup::Entry;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::pending::{Hold, Pending};
use crate::problem::Problem;

/// What [`handoff`] builds on; its test puts others in their place.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the journal in {}: {cause}; {remedy}", path.display())]
pub struct JournalError {
    path: PathBuf,
    cause: Cause,
    remedy: &'static str,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Cause {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Folder(FolderError::InUse) => "stop that server, or give this one another --journal-dir",
            Self::Recovery(RecoveryError::Disk(_)) | Self::Folder(_) | Self::Disk(_) => {
                "give a folder on a working disk that this user may write to, with --journal-dir"
            }
            Self::Recovery(_) => {
                "nothing was changed. Acknowledged events that are not in the database are lost with what is damaged: restore the \
                 folder from a copy; or keep a copy of it and start with an empty --journal-dir, which gives up what only the journal has"
            }
        }
    }
}

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// When a batch counts as safe.
    pub sync: JournalSync,
    /// How large segments are, and all of them.
    pub sizes: Sizes,
    /// Bytes of one write; a larger event is written alone.
    pub batch_bytes_max: u64,
    /// How many times more each batch is written and synced: a fault on purpose (`journal-sync`), else 0.
    pub syncs_extra: u32,
    /// Ends by a panic at the first event: a fault on purpose.
    pub panics: bool,
    /// Whether the thread that writes goes before others, see [`scheduling`].
    pub realtime: bool,
    /// How long a request waits for its event to be synced.
    pub timeout: Duration,
}

impl JournalSettings {
    /// Out of the server's settings.
    pub fn new(sync: JournalSync, limits: &Limits) -> Self {
        Self {
            sync,
            sizes: Sizes { segment_bytes: limits.journal_segment_bytes, bytes_max: limits.journal_bytes_max },
            batch_bytes_max: limits.journal_batch_bytes_max,
            syncs_extra: 0,
            panics: false,
            realtime: false,
            timeout: ms(limits.store_timeout_ms),
        }
    }
}

/// A journal whose folder is locked and read, and to which nothing is written yet.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    folder: Folder,
    recovered: Recovered,
}

/// A running journal.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    pulse: Pulse,
    timeout: Duration,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    handoff: Handoff<Waiting>,
    pending: Arc<Pending>,
    /// The last event was refused because there was no room, and there has been none since.
    is_full: AtomicBool,
    is_broken: AtomicBool,
    broken: Notify,
}

/// An event on its way into the journal.
#[derive(Debug)]
struct Waiting {
    event: Arc<Event>,
    /// Goes with the event, because the request may be given up and the event is in all the same.
    entry: Option<Entry>,
    answer: oneshot::Sender<Result<Option<Entry>, Problem>>,
}

impl Opened {
    /// Locks the folder (made when it is missing) and reads it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let open = || -> Result<_, Cause> {
            let folder = Folder::open(path)?;
            let recovered = recover(&folder)?;
            Ok((folder, recovered))
        };
        let (folder, recovered) = open().map_err(|cause| at(path, cause))?;
        Ok(Self { path: path.to_owned(), folder, recovered })
    }

    /// The events that it holds, oldest first: the store may have some of them, or all.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.recovered.segments.iter().flat_map(|segment| &segment.events)
    }

    /// Removes all that it holds: the store has it.
    pub fn empty(self) -> Result<(), JournalError> {
        let Self { path, folder, recovered } = self;
        let segments = recovered.segments;
        let sealed: Vec<Sealed> = segments.into_iter().map(|segment| sealed(&segment)).collect();
        // No segment is made, so their sizes do not matter.
        let sizes = Sizes { segment_bytes: 0, bytes_max: 0 };
        let emptied =
            Segments::open(Arc::new(folder), sizes, recovered.number, sealed).and_then(|mut all| all.retire());
        emptied.map_err(|error| at(&path, error.into()))
    }

    /// Makes those events pending that are `missing` in the store, whatever the bounds of the buffer, and begins to take new ones.
    pub fn start(
        self,
        missing: &HashSet<Uuid>,
        pending: Arc<Pending>,
        settings: JournalSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Journal, JournalError> {
        let Self { path, folder, recovered } = self;
        let sealed = restore(recovered.segments, missing, &pending);
        let segments = Segments::open(Arc::new(folder), settings.sizes, recovered.number, sealed);
        let segments = segments.map_err(|error| at(&path, error.into()))?;
        let shared = Arc::new(Shared {
            handoff: Handoff::new(),
            pending,
            is_full: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            broken: Notify::new(),
        });
        let (alive, pulse) = alive();
        let threads = start_threads(segments, recovered.batch, settings, Arc::clone(&shared), metrics, alive);
        let threads = threads.map_err(|error| at(&path, FolderError::Io(error).into()))?;
        Ok(Journal { shared, pulse, timeout: settings.timeout, threads: Mutex::new(threads) })
    }
}

fn at(path: &Path, cause: Cause) -> JournalError {
    JournalError { path: path.to_owned(), remedy: cause.remedy(), cause }
}

/// Makes the missing events pending; the segments that they came from are held for as long as they are.
fn restore(segments: Vec<RecoveredSegment>, missing: &HashSet<Uuid>, pending: &Pending) -> Vec<Sealed> {
    let mut all = Vec::with_capacity(segments.len());
    for segment in segments {
        let sealed = sealed(&segment);
        for event in segment.events.into_iter().filter(|event| missing.contains(&event.id)) {
            pending.restore(Arc::new(event), Some(&sealed.hold));
        }
        all.push(sealed);
    }
    all
}

fn sealed(segment: &RecoveredSegment) -> Sealed {
    Sealed { number: segment.number, bytes: segment.bytes, hold: Hold::default() }
}

fn start_threads<D: Disk>(
    segments: Segments<D>,
    batch: u64,
    settings: JournalSettings,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    alive: Alive,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (supplier, making) = Supplier::start(segments, Arc::clone(&shared), Arc::clone(&metrics))?;
    let log_settings = LogSettings {
        sync: settings.sync,
        batch_bytes_max: settings.batch_bytes_max,
        syncs_extra: settings.syncs_extra,
    };
    let mut log = Log::new(supplier, batch, log_settings);
    let writing = thread::Builder::new().name("journal".into()).spawn(move || {
        let _alive = alive;
        if settings.realtime {
            scheduling::take_or_log(scheduling::Urgency::Journal);
        }
        write_batches(&shared, &mut log, &metrics, settings.panics);
        log.close();
    })?;
    Ok(vec![writing, making])
}

impl Journal {
    /// Resolves once the event is in the journal and pending, or surely not, or its outcome cannot be known in time.
    /// The entry comes back when the event is in; when the outcome is not known, or nobody waits any more, it goes the event's way.
    pub async fn write(&self, event: Arc<Event>, entry: Option<Entry>) -> Result<Option<Entry>, Problem> {
        self.shared.pending.reserve(&event).map_err(|_| Problem::Full)?;
        let (answer, answered) = oneshot::channel();
        if let Err(refused) = self.shared.handoff.submit(Waiting { event, entry, answer }) {
            self.shared.pending.forget(&refused.event);
            return Err(Problem::Stopping);
        }
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            // Nobody is left who knows.
            Ok(Err(_)) | Err(_) => Err(Problem::OutcomeUnknown),
        }
    }

    /// Hears when its writing thread has ended by itself.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Why it takes nothing right now, if it does not.
    pub fn unready(&self) -> Option<&'static str> {
        match () {
            () if self.is_broken() => Some("journal-broken"),
            () if self.shared.is_full.load(Ordering::Relaxed) => Some("journal-full"),
            () => None,
        }
    }

    /// Whether its disk has failed, so that the server must end.
    pub fn is_broken(&self) -> bool {
        self.shared.is_broken.load(Ordering::SeqCst)
    }

    /// Resolves when its disk has failed.
    pub async fn broken(&self) {
        while !self.is_broken() {
            self.shared.broken.notified().await;
        }
    }

    /// Takes nothing any more, and waits until what waits is written. Segments that the store has all of are gone then.
    pub fn close(&self) {
        self.shared.handoff.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Takes what waits, writes and syncs it, hands it on and answers; until the hand-over is closed.
fn write_batches<F: DiskFile, S: Supply<F>>(
    shared: &Arc<Shared>,
    log: &mut Log<F, S>,
    metrics: &Metrics,
    panics: bool,
) {
    let mut waiting: Vec<Waiting> = Vec::new();
    while shared.handoff.take(&mut waiting) {
        assert!(!panics, "a fault on purpose: panic=journal");
        while !waiting.is_empty() {
            match log.append(waiting.iter().map(|waiting| &*waiting.event), metrics) {
                Ok(appended) => shared.synced(waiting.drain(..appended.events).collect(), &appended.hold),
                Err(NoSegment::Broken(error)) => {
                    shared.broken(&error);
                    shared.refuse(&mut waiting, &Problem::OutcomeUnknown);
                    while shared.handoff.take(&mut waiting) {
                        shared.refuse(&mut waiting, &Problem::Stopping);
                    }
                    return;
                }
                Err(cause) => {
                    if !shared.is_full.swap(true, Ordering::Relaxed) {
                        tracing::error!(%cause, "the journal takes nothing: events are refused until there is room again");
                    }
                    shared.refuse(&mut waiting, &Problem::JournalFull);
                }
            }
        }
    }
}

impl Shared {
    /// These are safe: the processor may have them, and their senders may know.
    fn synced(&self, batch: Vec<Waiting>, hold: &Hold) {
        self.pending.queue(batch.iter().map(|waiting| &waiting.event), hold);
        for Waiting { answer, mut entry, .. } in batch {
            if let Some(entry) = &mut entry {
                entry.set_in();
            }
            // Who has gone away is not told; the event is in all the same, and its entry is made here.
            let _ = answer.send(Ok(entry));
        }
    }

    fn refuse(&self, waiting: &mut Vec<Waiting>, problem: &Problem) {
        for Waiting { event, answer, .. } in waiting.drain(..) {
            self.pending.forget(&event);
            let _ = answer.send(Err(problem.clone()));
        }
    }
}

impl Watch for Arc<Shared> {
    fn broken(&self, error: &DiskError) {
        tracing::error!(
            %error,
            "the journal's disk has failed: nothing more is acknowledged and the server stops. What was acknowledged is in the journal or in the \
             database. Check the disk before you start again"
        );
        self.is_broken.store(true, Ordering::SeqCst);
        self.handoff.close();
        self.broken.notify_one();
    }

    fn has_room(&self) {
        if self.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("the journal has room again");
        }
    }
}
