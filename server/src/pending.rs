//! The pending buffer: events that are acknowledged and not yet persisted. Bounded by events and by bytes; full means a
//! refusal, never a silent drop. An event leaves the queue once, and stays visible to readers until the store has it.
//!
//! `put` stands on the path of every acknowledgement: one short lock, nothing awaited, and a wake-up only when the processor
//! has said that it sleeps. Not here: what happens to the events (the processor's), and who may send them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::event::Event;
use crate::metrics::Metrics;

/// What an event counts for beside its payload and its strings, in bytes: the event itself, its reference counts, its places
/// in queue and index, and what the allocator adds.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// Room for this many events is made at the start, so that growing doesn't stop the path of the acknowledgement.
const PREALLOCATED_EVENTS_MAX: usize = 65_536;

/// Events that are forgotten under one lock; more would make a `put` wait noticeably.
const FORGET_AT_ONCE: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Pending {
    state: Mutex<State>,
    notify: Notify,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    /// Not taken yet, oldest first. Each one is in `held`, too.
    queue: VecDeque<Arc<Event>>,
    /// Queued or being written.
    held: HashMap<Uuid, Arc<Event>>,
    /// Sum of [`bytes_of`] over `held`.
    bytes: usize,
    /// Somebody sleeps in [`Pending::arrived`] and nobody has woken them yet.
    sleeping: bool,
    /// [`Pending::wake`] was called since [`Pending::arrived`] resolved.
    woken: bool,
}

/// The buffer has reached its bound of events or of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pending buffer is full")]
pub struct Full;

impl Pending {
    /// An empty buffer that refuses what would take it over either bound.
    pub fn new(events_max: usize, bytes_max: usize) -> Self {
        let room = events_max.min(PREALLOCATED_EVENTS_MAX);
        let state = State {
            queue: VecDeque::with_capacity(room),
            held: HashMap::with_capacity(room),
            bytes: 0,
            sleeping: false,
            woken: false,
        };
        Self { state: Mutex::new(state), notify: Notify::new(), events_max, bytes_max }
    }

    /// Adds an event, or refuses it; on success wakes who waits in [`Pending::arrived`]. An id that is held already is not
    /// added a second time.
    pub fn put(&self, event: Arc<Event>) -> Result<(), Full> {
        let bytes = bytes_of(&event);
        let wake = {
            let mut state = self.lock();
            if state.held.contains_key(&event.id) {
                return Ok(());
            }
            if state.held.len() >= self.events_max || state.bytes.saturating_add(bytes) > self.bytes_max {
                return Err(Full);
            }
            state.bytes += bytes;
            state.held.insert(event.id, event.clone());
            state.queue.push_back(event);
            std::mem::take(&mut state.sleeping)
        };
        if wake {
            self.notify.notify_one();
        }
        Ok(())
    }

    /// Takes up to `events_max` of the oldest events out of the queue; they count against the bounds and stay visible to
    /// [`Pending::get`] until [`Pending::persisted`] or [`Pending::put_back`].
    pub fn take(&self, events_max: usize) -> Vec<Arc<Event>> {
        let mut state = self.lock();
        let count = events_max.min(state.queue.len());
        state.queue.drain(..count).collect()
    }

    /// The store has these: forget them.
    pub fn persisted(&self, events: &[Arc<Event>]) {
        for some in events.chunks(FORGET_AT_ONCE) {
            let mut state = self.lock();
            for event in some {
                if state.held.remove(&event.id).is_some() {
                    state.bytes -= bytes_of(event);
                }
            }
        }
    }

    /// The store refused: the events go back to the front, in order.
    pub fn put_back(&self, events: Vec<Arc<Event>>) {
        let mut state = self.lock();
        for event in events.into_iter().rev() {
            if state.held.contains_key(&event.id) {
                state.queue.push_front(event);
            }
        }
    }

    /// An event that is pending or being written.
    pub fn get(&self, id: Uuid) -> Option<Arc<Event>> {
        self.lock().held.get(&id).cloned()
    }

    /// Events held (queued or being written).
    pub fn events(&self) -> usize {
        self.lock().held.len()
    }

    /// Bytes held by the same measure as the bound.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Sets the two gauges to what is held now; for whoever shows the metrics, just before.
    pub fn report(&self, metrics: &Metrics) {
        let (events, bytes) = {
            let state = self.lock();
            (state.held.len(), state.bytes)
        };
        metrics.pending_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        metrics.pending_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Work has come by another way than [`Pending::put`] (rows in the store that want the processor): ends a wait, too.
    pub fn wake(&self) {
        let wake = {
            let mut state = self.lock();
            state.woken = true;
            std::mem::take(&mut state.sleeping)
        };
        if wake {
            self.notify.notify_one();
        }
    }

    /// Resolves when an event is queued, or [`Pending::wake`] was called since the last call resolved. Nothing is lost between
    /// two calls, and dropping the future loses nothing. For one waiter at a time: the processor.
    pub async fn arrived(&self) {
        loop {
            {
                let mut state = self.lock();
                if std::mem::take(&mut state.woken) || !state.queue.is_empty() {
                    state.sleeping = false;
                    return;
                }
                state.sleeping = true;
            }
            // A permit left by an earlier waiter that gave up makes this return too early, and the loop looks again.
            self.notify.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change, so what a poisoned lock guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event counts for against the bound of bytes.
fn bytes_of(event: &Event) -> usize {
    EVENT_OVERHEAD_BYTES + event.payload.len() + event.event_type.len() + event.dedup_id.as_deref().map_or(0, str::len)
}
