//! The pending buffer: events that are acknowledged and not yet persisted. Bounded by events and by bytes; full means a
//! refusal, never a silent drop. An event leaves the queue once, and stays visible to readers until the store has it. In
//! `journal-first` its room is reserved first, and it is queued once the journal has it.
//!
//! `put` stands on the path of every acknowledgement: one short lock, nothing awaited, and a wake-up only when the processor
//! has said that it sleeps. Not here: what happens to the events (the processor's), and who may send them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::event::Event;
use crate::hashed::BuildHashed;
use crate::metrics::Metrics;

/// What an event counts for beside its payload and its strings, in bytes: the event itself, its reference counts, its places
/// in queue and index, and what the allocator adds.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// Room for this many events is made at the start, so that growing doesn't stop the path of the acknowledgement. Not for more: ids
/// are spread over all of the room, and each page of it is a page fault for the first event that falls into it. With room for 65,536
/// 145 of 10,000 events met one even after two seconds at 1,000/s. It is what 8,192 places hold, 270 KiB;
/// a backlog that grows beyond it is moved once at each doubling, at some 30 ns an event: 0.25 ms for the first, 0.9 for the third.
const PREALLOCATED_EVENTS_MAX: usize = 7_168;

/// Events that are forgotten under one lock; more would make a `put` wait noticeably.
const FORGET_AT_ONCE: usize = 64;

/// Shared by all pending events that need the same thing to stay (a segment of the journal): whoever made it sees by its count when the last of
/// them is persisted.
pub type Hold = Arc<()>;

/// What whoever keeps the events elsewhere, too, is told of them ([`crate::queue`]).
#[derive(Debug)]
pub enum Told {
    /// The store has these.
    Persisted(Vec<Uuid>),
    /// No store can hold this one.
    Refused {
        /// The event.
        event: Arc<Event>,
        /// As the store says it.
        cause: String,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Pending {
    state: Mutex<State>,
    tell: Option<UnboundedSender<Told>>,
    notify: Notify,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    /// Not taken yet, oldest first. Each one is in `held`, too.
    queue: VecDeque<Arc<Event>>,
    /// Queued or being written.
    held: HashMap<Uuid, Held, BuildHashed>,
    /// Sum of [`bytes_of`] over `held`.
    bytes: usize,
    /// Somebody sleeps in [`Pending::arrived`] and nobody has woken them yet.
    sleeping: bool,
    /// [`Pending::wake`] was called since [`Pending::arrived`] resolved.
    woken: bool,
    /// Somebody brings events here and has not ended yet.
    fed: bool,
}

#[derive(Debug)]
struct Held {
    event: Arc<Event>,
    /// Dropped with the entry.
    _hold: Option<Hold>,
}

/// See [`Pending::feeding`].
#[derive(Debug)]
pub struct Feeding(Arc<Pending>);

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.lock().fed = false;
        self.0.wake();
    }
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
            held: HashMap::with_capacity_and_hasher(room, BuildHashed::default()),
            bytes: 0,
            sleeping: false,
            woken: false,
            fed: false,
        };
        Self { state: Mutex::new(state), tell: None, notify: Notify::new(), events_max, bytes_max }
    }

    /// With somebody who is told what becomes of the events.
    pub fn telling(mut self, tell: UnboundedSender<Told>) -> Self {
        self.tell = Some(tell);
        self
    }

    /// Adds an event, or refuses it; on success wakes who waits in [`Pending::arrived`]. An id that is held already is not
    /// added a second time.
    pub fn put(&self, event: Arc<Event>) -> Result<(), Full> {
        let wake = {
            let mut state = self.lock();
            if !self.hold(&mut state, &event)? {
                return Ok(());
            }
            state.queue.push_back(event);
            std::mem::take(&mut state.sleeping)
        };
        self.wake_if(wake);
        Ok(())
    }

    /// Makes room for an event that is not to be taken before [`Pending::queue`], or refuses it. It counts and is visible from now on.
    pub fn reserve(&self, event: &Arc<Event>) -> Result<(), Full> {
        self.hold(&mut self.lock(), event).map(drop)
    }

    /// Events that [`Pending::reserve`] made room for can be taken now, and `hold` is kept for as long as one of them is pending.
    pub fn queue<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>, hold: &Hold) {
        let wake = {
            let mut state = self.lock();
            for event in events {
                if let Some(held) = state.held.get_mut(&event.id) {
                    held._hold = Some(hold.clone());
                    state.queue.push_back(event.clone());
                }
            }
            std::mem::take(&mut state.sleeping)
        };
        self.wake_if(wake);
    }

    /// An event that [`Pending::reserve`] made room for does not come.
    pub fn forget(&self, event: &Event) {
        self.lock().release(event);
    }

    /// Adds an event that is acknowledged already (by an earlier process, or another), whatever the bounds, and wakes as [`Pending::put`]
    /// does. An id that is held already is not added a second time.
    pub fn restore(&self, event: Arc<Event>, hold: Option<&Hold>) {
        let wake = {
            let mut state = self.lock();
            if state.held.contains_key(&event.id) {
                return;
            }
            state.bytes += bytes_of(&event);
            state.held.insert(event.id, Held { event: event.clone(), _hold: hold.cloned() });
            state.queue.push_back(event);
            std::mem::take(&mut state.sleeping)
        };
        self.wake_if(wake);
    }

    /// Counts an event if there is room; whether it is new.
    fn hold(&self, state: &mut State, event: &Arc<Event>) -> Result<bool, Full> {
        let bytes = bytes_of(event);
        if state.held.contains_key(&event.id) {
            return Ok(false);
        }
        if state.held.len() >= self.events_max || state.bytes.saturating_add(bytes) > self.bytes_max {
            return Err(Full);
        }
        state.bytes += bytes;
        state.held.insert(event.id, Held { event: event.clone(), _hold: None });
        Ok(true)
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
            some.iter().for_each(|event| state.release(event));
        }
        if let Some(tell) = &self.tell {
            // An error means that the server is ending, and whoever is given the events next finds them persisted.
            let _ = tell.send(Told::Persisted(events.iter().map(|event| event.id).collect()));
        }
    }

    /// No store can hold this one. It stays pending and is not taken again.
    pub fn refused(&self, event: &Arc<Event>, cause: String) {
        if let Some(tell) = &self.tell {
            let _ = tell.send(Told::Refused { event: event.clone(), cause });
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
        self.lock().held.get(&id).map(|held| held.event.clone())
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
        self.wake_if(wake);
    }

    /// Until the answer is dropped, this buffer counts as one that more is coming for ([`Pending::is_fed`]).
    pub fn feeding(self: &Arc<Self>) -> Feeding {
        self.lock().fed = true;
        Feeding(Arc::clone(self))
    }

    /// Whether more may come although nobody is served any more.
    pub fn is_fed(&self) -> bool {
        self.lock().fed
    }

    fn wake_if(&self, sleeping: bool) {
        if sleeping {
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

impl State {
    /// Stops counting an event, and lets go of what was held for it.
    fn release(&mut self, event: &Event) {
        if self.held.remove(&event.id).is_some() {
            self.bytes -= bytes_of(event);
        }
    }
}

/// What an event counts for against a bound of bytes.
pub fn bytes_of(event: &Event) -> usize {
    EVENT_OVERHEAD_BYTES + event.payload.len() + event.event_type.len() + event.dedup_id.as_deref().map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn event(payload_bytes: usize) -> Arc<Event> {
        Arc::new(Event {
            id: Uuid::now_v7(),
            organization_id: Uuid::from_u128(1),
            event_type: "t".into(),
            dedup_id: None,
            payload: Bytes::from(vec![b'1'; payload_bytes]),
            created_at_us: 0,
            followed: None,
        })
    }

    /// What `event(payload_bytes)` counts for.
    const fn weight(payload_bytes: usize) -> usize {
        EVENT_OVERHEAD_BYTES + 1 + payload_bytes
    }

    #[test]
    fn an_event_is_visible_and_counted_until_it_is_persisted() {
        let pending = Pending::new(10, 10_000);
        let event = event(100);
        pending.put(event.clone()).expect("room");
        assert_eq!(pending.take(5), std::slice::from_ref(&event));
        assert_eq!(pending.get(event.id), Some(event.clone()), "being written");
        assert_eq!((pending.events(), pending.bytes()), (1, weight(100)));
        assert!(pending.take(5).is_empty(), "it is taken once");
        pending.persisted(std::slice::from_ref(&event));
        assert_eq!((pending.get(event.id), pending.events(), pending.bytes()), (None, 0, 0));
    }

    #[test]
    fn either_bound_refuses_and_changes_nothing() {
        let by_events = Pending::new(2, usize::MAX);
        let by_bytes = Pending::new(usize::MAX, 2 * weight(10));
        for pending in [by_events, by_bytes] {
            let (first, second) = (event(10), event(10));
            pending.put(first.clone()).expect("room");
            pending.put(second.clone()).expect("room");
            assert_eq!(pending.put(event(10)), Err(Full));
            assert_eq!(pending.take(1), std::slice::from_ref(&first));
            assert_eq!(pending.put(event(10)), Err(Full), "what is being written counts");
            pending.persisted(&[first]);
            pending.put(event(10)).expect("room again");
            assert_eq!(pending.take(5).len(), 2);
        }
    }

    #[test]
    fn an_id_that_is_held_is_not_added_again() {
        let pending = Pending::new(10, 10_000);
        let event = event(1);
        pending.put(event.clone()).expect("room");
        pending.put(event.clone()).expect("a repetition is no error");
        assert_eq!((pending.events(), pending.take(5).len()), (1, 1));
        pending.put(event).expect("a repetition while it is being written, too");
        assert!(pending.take(5).is_empty());
    }

    #[test]
    fn what_is_put_back_comes_first_again_and_in_order() {
        let pending = Pending::new(10, 10_000);
        let events: Vec<_> = (0..5).map(event).collect();
        events.iter().for_each(|event| pending.put(event.clone()).expect("room"));
        let taken = pending.take(3);
        pending.put_back(taken);
        assert_eq!(pending.take(10), events);
    }

    #[tokio::test(start_paused = true)]
    async fn an_arrival_before_or_during_the_wait_ends_it_and_nothing_else_does() {
        let pending = Arc::new(Pending::new(10, 10_000));
        let waits = || tokio::time::timeout(Duration::from_secs(60), pending.arrived());
        assert!(waits().await.is_err(), "nothing came");
        pending.put(event(1)).expect("room");
        assert!(waits().await.is_ok(), "it came before the wait");
        pending.take(1);
        assert!(waits().await.is_err(), "what was taken ends no further wait");
        for arrive in [|pending: &Pending| pending.put(event(1)).expect("room"), Pending::wake] {
            pending.take(1);
            let other = pending.clone();
            let late = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                arrive(&other);
            });
            assert!(waits().await.is_ok(), "it came during the wait");
            late.await.expect("the late one");
        }
        pending.take(1);
        assert!(waits().await.is_err());
    }

    #[test]
    fn threads_that_put_take_and_put_back_at_once_lose_and_double_nothing() {
        const PUTTERS: usize = 3;
        const EACH: usize = 2_000;
        let pending = Pending::new(100, usize::MAX);
        let mut stored = Vec::new();
        std::thread::scope(|scope| {
            let putters: Vec<_> = (0..PUTTERS)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..EACH {
                            let event = event(1);
                            while pending.put(event.clone()).is_err() {
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            let mut turn = 0;
            while stored.len() < PUTTERS * EACH {
                assert!(pending.events() <= 100);
                let taken = pending.take(17);
                turn += 1;
                if turn % 3 == 0 {
                    pending.put_back(taken);
                } else {
                    pending.persisted(&taken);
                    stored.extend(taken.iter().map(|event| event.id));
                }
            }
            putters.into_iter().for_each(|putter| putter.join().expect("a putter"));
        });
        assert_eq!(stored.iter().collect::<HashSet<_>>().len(), PUTTERS * EACH);
        assert_eq!((pending.events(), pending.bytes()), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(usize),
        Take(usize),
        Persisted,
        PutBack,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..600_usize).prop_map(Step::Put),
            2 => (0..6_usize).prop_map(Step::Take),
            1 => Just(Step::Persisted),
            1 => Just(Step::PutBack),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_steps_loses_doubles_or_exceeds(steps in prop::collection::vec(any_step(), 0..200)) {
            const EVENTS_MAX: usize = 8;
            const BYTES_MAX: usize = 3_000;
            let pending = Pending::new(EVENTS_MAX, BYTES_MAX);
            let (mut accepted, mut stored, mut hands) = (Vec::new(), Vec::new(), Vec::<Vec<Arc<Event>>>::new());
            for step in steps {
                match step {
                    Step::Put(payload_bytes) => {
                        let event = event(payload_bytes);
                        let room = pending.events() < EVENTS_MAX && pending.bytes() + weight(payload_bytes) <= BYTES_MAX;
                        prop_assert_eq!(pending.put(event.clone()).is_ok(), room);
                        if room {
                            accepted.push(event.id);
                        }
                    }
                    Step::Take(count) => hands.push(pending.take(count)),
                    Step::Persisted => if !hands.is_empty() {
                        let hand = hands.remove(0);
                        pending.persisted(&hand);
                        stored.extend(hand.iter().map(|event| event.id));
                    },
                    Step::PutBack => if let Some(hand) = hands.pop() {
                        pending.put_back(hand);
                    },
                }
                prop_assert!(pending.events() <= EVENTS_MAX && pending.bytes() <= BYTES_MAX);
                prop_assert_eq!(pending.events() + stored.len(), accepted.len());
                for id in &accepted {
                    prop_assert_eq!(pending.get(*id).is_some(), !stored.contains(id));
                }
            }
            stored.extend(hands.into_iter().flatten().map(|event| event.id));
            stored.extend(pending.take(usize::MAX).iter().map(|event| event.id));
            stored.sort();
            accepted.sort();
            prop_assert_eq!(stored, accepted);
        }
    }
}
