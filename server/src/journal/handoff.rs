//! The hand-over from those who want something synced to the one thread that syncs.
//!
//! There is no timer and no least size: whoever syncs takes all that waits, and what comes meanwhile waits for the next turn. So at a low
//! rate each event is synced by itself, and at a high rate a batch is what came during the last sync.
//!
//! `server/tests/handoff.rs` compiles this file a second time with loom's lock and condition variable in the place of `sync`, and runs every order
//! in which its threads can take their steps.

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct Handoff<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// The one that takes sleeps, and nobody has woken it yet.
    is_asleep: bool,
    is_closed: bool,
}

impl<T> Handoff<T> {
    /// Nothing waits.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State { waiting: Vec::new(), is_asleep: false, is_closed: false }),
            arrived: Condvar::new(),
        }
    }

    /// Adds an item to what waits, or gives it back because [`Handoff::close`] was called: then nobody would ever take it.
    pub fn submit(&self, item: T) -> Result<(), T> {
        let wake = {
            let mut state = self.lock();
            if state.is_closed {
                return Err(item);
            }
            state.waiting.push(item);
            std::mem::take(&mut state.is_asleep)
        };
        // Behind the lock, so that the woken one does not run into it.
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves all that waits into `items`, in the order in which it came; sleeps until there is something. False: closed, and nothing is left. For
    /// one thread.
    pub fn take(&self, items: &mut Vec<T>) -> bool {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.is_closed {
            state.is_asleep = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asleep = false;
        let taken = !state.waiting.is_empty();
        items.append(&mut state.waiting);
        taken
    }

    /// From now on nothing can be submitted; what waits can still be taken.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
