//! Webhooks and what is owed to them, as the store has it. The row of a delivery is written with its event, by the database
//! (SQLite: a trigger; PostgreSQL: a part of the same statement).

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::{Backend, State, Store, StoreError, StoredEvent};
use crate::doorbell::Doorbell;

/// What deliveries are signed with. Not shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(pub Vec<u8>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// An organisation's webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where events are posted.
    pub url: String,
    /// What they are signed with.
    pub secret: SigningSecret,
    /// When the secret was made (microseconds since the epoch).
    pub created_at_us: i64,
    /// When the receiver said that it is gone (410).
    pub disabled_at_us: Option<i64>,
}

/// An event to be sent by whoever claimed it, until the lease is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What to send.
    pub stored: StoredEvent,
    /// Attempts that have failed.
    pub attempts: u32,
    /// When the claim ends, which is also the token by which the claimant is known.
    pub lease_us: i64,
    /// Where to, and what to sign with; `None` when the webhook was removed or disabled meanwhile.
    pub webhook: Option<(String, SigningSecret)>,
}

/// What became of a claimed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The receiver has it. Counts even when another process has claimed it since.
    Delivered,
    /// So many attempts have failed; the next one is due then (microseconds since the epoch).
    Retry {
        /// Failed so far.
        attempts: u32,
        /// When the next one is due.
        at_us: i64,
    },
    /// It failed for good.
    DeadLetter,
    /// Nothing: it is due as before.
    Released,
}

/// One delivery's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Of the event.
    pub event_id: Uuid,
    /// Of the claim: what another process has claimed since is its own.
    pub lease_us: i64,
    /// What became of it.
    pub after: After,
}

/// What became of the wish to send a dead letter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It is due now.
    Due,
    /// This organisation has no such event.
    NoEvent,
    /// It is no dead letter.
    NotDead(State),
    /// There is no webhook to send it to, or it is disabled.
    NoWebhook,
}

/// The outcomes, sorted by what is to be written.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) delivered: Vec<Uuid>,
    /// Event, lease.
    pub(super) dead: Vec<(Uuid, i64)>,
    /// Event, lease, failed attempts, when due.
    pub(super) put_off: Vec<(Uuid, i64, u32, i64)>,
    /// Event, lease.
    pub(super) released: Vec<(Uuid, i64)>,
}

impl Sorted {
    fn of(outcomes: &[Outcome]) -> Self {
        let mut sorted = Self::default();
        for Outcome { event_id, lease_us, after } in outcomes.iter().copied() {
            match after {
                After::Delivered => sorted.delivered.push(event_id),
                After::DeadLetter => sorted.dead.push((event_id, lease_us)),
                After::Retry { attempts, at_us } => sorted.put_off.push((event_id, lease_us, attempts, at_us)),
                After::Released => sorted.released.push((event_id, lease_us)),
            }
        }
        sorted
    }
}

impl Store {
    /// Where the delivery machinery listens.
    pub fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// The organisation's webhook.
    pub async fn webhook(&self, organization_id: Uuid) -> Result<Option<Webhook>, StoreError> {
        either!(self, store => store.webhook(organization_id).await)
    }

    /// Sets where the organisation's events are sent, and enables it; the webhook as it is now. `secret` counts only when
    /// there was none before.
    pub async fn set_webhook(
        &self,
        organization_id: Uuid,
        url: &str,
        secret: &SigningSecret,
        now_us: i64,
    ) -> Result<Webhook, StoreError> {
        let webhook = either!(self, store => store.set_webhook(organization_id, url, secret, now_us).await)?;
        self.doorbell.know(organization_id);
        Ok(webhook)
    }

    /// Removes the webhook; false when there was none. What is owed to it is claimed without one from now on.
    pub async fn remove_webhook(&self, organization_id: Uuid) -> Result<bool, StoreError> {
        let removed = either!(self, store => store.remove_webhook(organization_id).await)?;
        self.doorbell.forget(organization_id);
        self.doorbell.ring(organization_id);
        Ok(removed)
    }

    /// Sends nothing more to this URL of the organisation; one that was set meanwhile stays enabled.
    pub async fn disable_webhook(&self, organization_id: Uuid, url: &str, now_us: i64) -> Result<(), StoreError> {
        either!(self, store => store.disable_webhook(organization_id, url, now_us).await)?;
        self.doorbell.ring(organization_id);
        Ok(())
    }

    /// All organisations that have a webhook.
    pub async fn webhook_organizations(&self) -> Result<Vec<Uuid>, StoreError> {
        either!(self, store => store.webhook_organizations().await)
    }

    /// All organisations that are owed something by `now_us`.
    pub async fn organizations_due(&self, now_us: i64) -> Result<Vec<Uuid>, StoreError> {
        either!(self, store => store.organizations_due(now_us).await)
    }

    /// Claims what is due by `now_us`, oldest first: for each organisation at most so many. No two claims get the same
    /// delivery before `lease_us`, whichever process asks.
    pub async fn claim_deliveries(
        &self,
        turns: &[(Uuid, usize)],
        now_us: i64,
        lease_us: i64,
    ) -> Result<Vec<Claimed>, StoreError> {
        let mut claimed = either!(self, store => store.claim_deliveries(turns, now_us, lease_us).await)?;
        claimed.sort_unstable_by_key(|claimed| claimed.stored.event.id);
        Ok(claimed)
    }

    /// Writes down what became of claimed deliveries, and so the states of their events. Safe to do again. Counts
    /// `events_delivered`, once per event.
    pub async fn record_deliveries(&self, outcomes: &[Outcome]) -> Result<(), StoreError> {
        let delivered = either!(self, store => store.record_deliveries(&Sorted::of(outcomes)).await)?;
        self.metrics.events_delivered.inc_by(delivered);
        Ok(())
    }

    /// Makes a dead letter due again, with all its attempts.
    pub async fn replay(&self, organization_id: Uuid, id: Uuid, now_us: i64) -> Result<Replay, StoreError> {
        if either!(self, store => store.replay(organization_id, id, now_us).await)? {
            self.doorbell.ring(organization_id);
            return Ok(Replay::Due);
        }
        let Some(stored) = self.event(organization_id, id).await? else { return Ok(Replay::NoEvent) };
        Ok(if stored.state == State::DeadLetter { Replay::NoWebhook } else { Replay::NotDead(stored.state) })
    }
}
