//! `db-first`: events of all requests that wait go into one transaction as soon as the writer is free.
//!
//! There is no timer: at a low rate each event is written at once, at a high rate the group is whatever came during the last
//! commit. Bounded by events and by bytes: what doesn't fit into the queue is refused, and nobody is told yes before the commit.
//! An event counts until its group is over, even when nobody waits for its answer any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::alive::{Pulse, alive};
use crate::config::{Limits, count, ms};
use crate::event::Event;
use crate::offload;
use crate::pending::{Pending, bytes_of};
use crate::problem::Problem;
use crate::store::{Handling, Inserted, Store, StoreError};

type Answer = Result<Inserted, Problem>;

/// An event that waits for the writer, and who waits for its answer.
#[derive(Debug)]
struct Waiting {
    event: Arc<Event>,
    answer: oneshot::Sender<Answer>,
    _room: Room,
}

/// Bytes taken of the queue's bound; given back when dropped.
#[derive(Debug)]
struct Room {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    fn take(taken: &Arc<AtomicUsize>, bytes: usize, bytes_max: usize) -> Option<Self> {
        // Made before it is checked, so that a refusal gives back what it took.
        let room = Self { taken: Arc::clone(taken), bytes };
        let before = taken.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= bytes_max).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The way into the writer's queue.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    timeout: Duration,
}

impl Writer {
    /// Starts the one task that writes; it wakes whoever waits for `pending` after each commit, because the rows want processing. `panics`: a
    /// fault on purpose.
    pub fn start(
        store: Store,
        pending: Arc<Pending>,
        background: &Handle,
        limits: &Limits,
        panics: bool,
    ) -> (Self, Pulse) {
        let (queue, waiting) = mpsc::channel(count(limits.writer_queue_events_max));
        let timeout = ms(limits.store_timeout_ms);
        let group_events_max = count(limits.writer_group_events_max);
        let (alive, pulse) = alive();
        background.spawn(async move {
            let _alive = alive;
            write_groups(store, pending, waiting, group_events_max, timeout, panics).await;
        });
        (Self { queue, bytes: Arc::default(), bytes_max: count(limits.writer_queue_bytes_max), timeout }, pulse)
    }

    /// Resolves once the event is committed, or surely not, or its outcome cannot be known in time.
    pub async fn write(&self, event: Arc<Event>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let room = Room::take(&self.bytes, bytes_of(&event), self.bytes_max).ok_or(Problem::Full)?;
        self.queue.try_send(Waiting { event, answer, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Problem::Full,
            mpsc::error::TrySendError::Closed(_) => Problem::Stopping,
        })?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            // Nobody is left who knows.
            Ok(Err(_)) | Err(_) => Err(Problem::OutcomeUnknown),
        }
    }
}

async fn write_groups(
    store: Store,
    pending: Arc<Pending>,
    mut waiting: mpsc::Receiver<Waiting>,
    group_events_max: usize,
    timeout: Duration,
    panics: bool,
) {
    let mut group = Vec::with_capacity(group_events_max);
    while waiting.recv_many(&mut group, group_events_max).await > 0 {
        assert!(!panics, "a fault on purpose: panic=writer");
        // Who has gone away meanwhile was not answered, so nothing is owed to them.
        group.retain(|waiting: &Waiting| !waiting.answer.is_closed());
        let events: Vec<_> = group.iter().map(|waiting| Arc::clone(&waiting.event)).collect();
        let outcomes = write(&store, &events, timeout).await;
        if outcomes.iter().any(|outcome| matches!(outcome, Err(Problem::StoreUnavailable | Problem::OutcomeUnknown))) {
            store.mark_unavailable();
        }
        for (waiting, outcome) in group.drain(..).zip(outcomes) {
            let _ = waiting.answer.send(outcome);
        }
        pending.wake();
    }
}

async fn write(store: &Store, events: &[Arc<Event>], timeout: Duration) -> Vec<Answer> {
    let refusal = match tokio::time::timeout(timeout, store.insert(events, Handling::Wanted)).await {
        Ok(Ok(inserted)) => return inserted.into_iter().map(Ok).collect(),
        Ok(Err(error @ StoreError::Refused(_))) if events.len() > 1 => error,
        Ok(Err(error)) => return vec![Err(problem(&error)); events.len()],
        Err(_elapsed) => return vec![Err(Problem::OutcomeUnknown); events.len()],
    };
    // One event that the database cannot hold must not fail those that happened to wait with it.
    tracing::warn!(error = %refusal, events = events.len(), "a group was refused; its events are written one by one");
    let mut outcomes = Vec::with_capacity(events.len());
    for event in events {
        outcomes.push(
            match tokio::time::timeout(timeout, store.insert(std::slice::from_ref(event), Handling::Wanted)).await {
                Ok(Ok(inserted)) => inserted.first().copied().ok_or(Problem::Internal),
                Ok(Err(error)) => Err(problem(&error)),
                Err(_elapsed) => Err(Problem::OutcomeUnknown),
            },
        );
    }
    outcomes
}

/// What the sender of an event is told of a failed insert.
fn problem(error: &StoreError) -> Problem {
    match error {
        // The connection broke, and that may have been between the commit and its answer.
        StoreError::Unavailable(sqlx::Error::Io(_)) => Problem::OutcomeUnknown,
        other => offload::problem(other),
    }
}
