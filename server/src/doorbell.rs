//! How the delivery machinery hears that there is something to send, without asking the database.
//!
//! The store rings after it has committed an event that is owed to a webhook, and passes on what the processor's poll found:
//! that poll is the one look at the database for what a crash left behind or another process has written.
//!
//! What is known here of webhooks only decides who is woken: what is owed is decided by the database, in the transaction that
//! writes the event. PostgreSQL says with each batch to whom it is owed, so that a webhook that another process has set a moment
//! ago counts; and other processes announce there that they have written something ([`crate::store`]), which this passes on.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::event::Event;

/// See the module.
#[derive(Debug, Default)]
pub struct Doorbell {
    /// Whether any webhook is known: an event of a server without webhooks costs one load of this.
    any_known: AtomicBool,
    state: Mutex<State>,
    notify: Notify,
    announced: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<Uuid>,
    rung: HashSet<Uuid>,
    /// What the last poll has seen, until somebody has heard it.
    polled: Option<Option<i64>>,
}

/// What was heard since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Organisations with something to send.
    pub organizations: Vec<Uuid>,
    /// If there was a poll: when the earliest row of the store is due (microseconds since the epoch), or that there is none.
    pub polled: Option<Option<i64>>,
}

impl Doorbell {
    /// This organisation has a webhook.
    pub fn know(&self, organization_id: Uuid) {
        self.lock().known.insert(organization_id);
        self.any_known.store(true, Ordering::Release);
    }

    /// This organisation has none any more.
    pub fn forget(&self, organization_id: Uuid) {
        let mut state = self.lock();
        state.known.remove(&organization_id);
        self.any_known.store(!state.known.is_empty(), Ordering::Release);
    }

    /// These events are committed: rings for those whose organisation has a webhook.
    pub fn committed(&self, events: &[Arc<Event>]) {
        if !self.any_known.load(Ordering::Acquire) {
            return;
        }
        let mut owed = false;
        let mut state = self.lock();
        for event in events {
            if state.known.contains(&event.organization_id) {
                owed = true;
                state.rung.insert(event.organization_id);
            }
        }
        drop(state);
        if owed {
            self.notify.notify_one();
        }
    }

    /// Events that are owed to the webhooks of these organisations are committed.
    pub fn owed(&self, organizations: &[Uuid]) {
        if organizations.is_empty() {
            return;
        }
        self.lock().rung.extend(organizations);
        self.notify.notify_one();
    }

    /// Another process has announced that the database has work that it may not do itself.
    pub fn announce(&self) {
        self.announced.notify_one();
    }

    /// Resolves when there was an announcement since this resolved last. For one listener: whoever makes the processor poll.
    pub async fn announced(&self) {
        self.announced.notified().await;
    }

    /// There is something to send for this organisation.
    pub fn ring(&self, organization_id: Uuid) {
        self.lock().rung.insert(organization_id);
        self.notify.notify_one();
    }

    /// A poll has seen that the earliest row is due then, or that there is none.
    pub fn polled(&self, due_at_us: Option<i64>) {
        self.lock().polled = Some(due_at_us);
        // Nothing due is no news that somebody has to be woken for.
        if due_at_us.is_some() {
            self.notify.notify_one();
        }
    }

    /// What was heard since the last call.
    pub fn heard(&self) -> Heard {
        let mut state = self.lock();
        Heard { organizations: state.rung.drain().collect(), polled: state.polled.take() }
    }

    /// Resolves when it was rung since this resolved last. For one listener; dropping the future loses nothing.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change, so what a poisoned lock guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(organization: u128) -> Arc<Event> {
        Arc::new(Event {
            id: Uuid::now_v7(),
            organization_id: Uuid::from_u128(organization),
            event_type: "t".into(),
            dedup_id: None,
            payload: Bytes::from_static(b"1"),
            created_at_us: 0,
            followed: None,
        })
    }

    async fn is_rung(bell: &Doorbell) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), bell.rung()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_events_of_organizations_with_a_webhook_only() {
        let bell = Doorbell::default();
        bell.committed(&[event(1)]);
        assert!(!is_rung(&bell).await);
        bell.know(Uuid::from_u128(1));
        bell.committed(&[event(2)]);
        assert!(!is_rung(&bell).await);
        bell.committed(&[event(2), event(1), event(1)]);
        assert!(is_rung(&bell).await);
        assert_eq!(bell.heard().organizations, [Uuid::from_u128(1)]);
        assert!(bell.heard().organizations.is_empty());
        bell.forget(Uuid::from_u128(1));
        bell.committed(&[event(1)]);
        assert!(!is_rung(&bell).await);
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_whom_the_database_says_that_it_owes_also_when_the_webhook_is_not_known_here() {
        let bell = Doorbell::default();
        bell.owed(&[]);
        assert!(!is_rung(&bell).await);
        bell.owed(&[Uuid::from_u128(1)]);
        assert!(is_rung(&bell).await);
        assert_eq!(bell.heard().organizations, [Uuid::from_u128(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_rings_when_it_has_seen_something_and_is_heard_once() {
        let bell = Doorbell::default();
        bell.polled(None);
        assert!(!is_rung(&bell).await);
        assert_eq!(bell.heard().polled, Some(None));
        assert_eq!(bell.heard().polled, None);
        bell.polled(Some(7));
        assert!(is_rung(&bell).await);
        assert_eq!(bell.heard().polled, Some(Some(7)));
    }
}
