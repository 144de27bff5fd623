//! Where events are persisted: SQLite or PostgreSQL behind one set of questions. Everything SQL is below this module.
//!
//! Each statement is counted by kind ([`crate::metrics`]), because what the server costs while idle is one of the things
//! this project measures.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::event::Event;

/// An event as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// Where it stands.
    pub state: State,
    /// When the transaction that wrote it was about to commit (microseconds since the epoch, before the commit).
    pub persisted_at_us: i64,
}

/// State of a persisted event, as the contract names it (R1); `pending` is never in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the inbox.
    Persisted,
    /// Acknowledged by its reader (`POST /api/ack`) or by its webhook.
    Delivered,
    /// Its webhook failed and will be tried again.
    Failed,
    /// Its webhook failed for good.
    DeadLetter,
}

/// What became of one event of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The row is committed.
    New,
    /// Another event of this organisation holds its `dedup_id` within the window: its id. Nothing was written.
    DuplicateOf(Uuid),
    /// A row with this very id was there before (a replay): nothing was written, nothing is lost.
    AlreadyThere,
}

/// Whether freshly inserted rows still need the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// The inserting code is the processor: the row is done.
    Done,
    /// The processor has yet to claim it (`db-first`).
    Wanted,
}

/// An API key's row, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// SHA-256 of the whole key.
    pub key_hash: [u8; 32],
    /// Whose it is.
    pub organization_id: Uuid,
    /// Its name.
    pub organization_name: String,
    /// `free`, `pro`, `business` or `enterprise`.
    pub tier: String,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
}

/// One page of an organisation's inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<StoredEvent>,
    /// Opaque; `None` when there was nothing after this page when it was read.
    pub next_cursor: Option<String>,
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Away, out of connections, or out of time: trying again may succeed.
    #[error("the database is unavailable: {0}")]
    Unavailable(sqlx::Error),
    /// The statement itself failed: trying again won't help.
    #[error("the database refused a statement: {0}")]
    Refused(sqlx::Error),
    /// A cursor that this store did not give out.
    #[error("the cursor is not one that this server gave out")]
    BadCursor,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Writes the events in one transaction; the answers are in the order of the events. All or nothing on error.
    pub async fn insert(&self, _events: &[Arc<Event>], _handling: Handling) -> Result<Vec<Inserted>, StoreError> {
        todo!()
    }

    /// The id of the event that holds this `dedup_id` since `since_us`.
    pub async fn find_dedup(
        &self,
        _organization_id: Uuid,
        _dedup_id: &str,
        _since_us: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        todo!()
    }

    /// The newest `(organisation, dedup_id, event id)` since `since_us`, at most `limit`, and whether that was all.
    pub async fn recent_dedup(
        &self,
        _since_us: i64,
        _limit: usize,
    ) -> Result<(Vec<(Uuid, Box<str>, Uuid)>, bool), StoreError> {
        todo!()
    }

    /// One event of this organisation.
    pub async fn event(&self, _organization_id: Uuid, _id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        todo!()
    }

    /// A page of this organisation's events in `state` (all states when `None`), oldest first, from `cursor` on.
    pub async fn inbox(
        &self,
        _organization_id: Uuid,
        _state: Option<State>,
        _limit: usize,
        _cursor: Option<&str>,
    ) -> Result<Page, StoreError> {
        todo!()
    }

    /// Marks an event as delivered; false when this organisation has no such event.
    pub async fn acknowledge(&self, _organization_id: Uuid, _id: Uuid) -> Result<bool, StoreError> {
        todo!()
    }

    /// Adds a key.
    pub async fn add_key(&self, _key: &KeyRow) -> Result<(), StoreError> {
        todo!()
    }

    /// Looks a key up by hash.
    pub async fn find_key(&self, _key_hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        todo!()
    }

    /// Puts `new` in the place of the key `old_hash`, in one transaction; false when `old_hash` is not there (any more).
    pub async fn replace_key(&self, _old_hash: &[u8; 32], _new: &KeyRow) -> Result<bool, StoreError> {
        todo!()
    }
}

/// Raw JSON text of a payload, as stored.
pub type Payload = Bytes;
