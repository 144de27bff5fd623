//! Where events are persisted: SQLite or PostgreSQL behind one set of questions. Everything SQL is below this module.
//!
//! Each statement is counted by kind ([`crate::metrics`]), because what the server costs while idle is one of the things
//! this project measures. Not counted is what opens a connection: its settings and the migrations.
//!
//! Not here: retries (the processor's), caches (the callers'), and what a state means to a webhook.

// First, because the macro is for the modules below it.
/// Calls the method of the same name of whichever store it is.
macro_rules! either {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store.backend.as_ref() {
            Backend::Sqlite($inner) => $call,
            Backend::Postgres($inner) => $call,
        }
    };
}

mod deliveries;
mod migrations;
mod postgres;
mod sqlite;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{TryStream, TryStreamExt};
use uuid::Uuid;

use crate::config::Database;
use crate::doorbell::Doorbell;
use crate::event::Event;
use crate::metrics::{Metrics, Statement};

pub use deliveries::{After, Claimed, Outcome, Replay, SigningSecret, Webhook};

/// An event as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// Where it stands.
    pub state: State,
    /// When the transaction that wrote it was about to commit (microseconds since the epoch, before the commit); never before the
    /// event was taken in, also when the clock was set back in between.
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

impl State {
    /// As the contract spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Persisted => "persisted",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
        }
    }
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

/// What became of a batch.
#[derive(Debug)]
struct Written {
    /// In the order of the events.
    outcomes: Vec<Inserted>,
    /// To whose webhooks events of it are owed, where the database says so.
    owed: Option<Vec<Uuid>>,
}

/// What a look at the store has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Rows want the processor.
    pub wanted: bool,
    /// Server processes on this database, this one too; if it was to count them.
    pub processes: Option<u32>,
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

/// Bounds of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLimits {
    /// PostgreSQL: connections of this process at most.
    pub postgres_connections_max: u32,
    /// SQLite: connections that only read (there is one more, which writes).
    pub sqlite_readers_max: u32,
    /// How long a caller waits for a free connection before it is told that the store is unavailable.
    pub acquire_timeout: Duration,
    /// How long one statement may take (SQLite: wait for a lock) before the store counts as unavailable.
    pub statement_timeout: Duration,
    /// How long a `dedup_id` stays taken.
    pub dedup_window: Duration,
    /// A commit is durable when it returns; `false` is a fault on purpose (`store-sync=off`).
    pub sync: bool,
    /// Commits more than needed after each batch of events: a fault on purpose (`store-commit`), else 0.
    pub commits_extra: u32,
    /// Bytes of payloads on one page of an inbox, unless its first event alone has more.
    pub page_bytes_max: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            postgres_connections_max: 8,
            sqlite_readers_max: 2,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            dedup_window: Duration::from_secs(24 * 60 * 60),
            sync: true,
            commits_extra: 0,
            page_bytes_max: 16 << 20,
        }
    }
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened at start.
    #[error("cannot open the database {database}: {cause}; {remedy}")]
    Open {
        /// Where, without a password.
        database: String,
        /// What went wrong.
        cause: String,
        /// What to do about it.
        remedy: &'static str,
    },
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

impl StoreError {
    /// Whether the values of an event are to blame (as opposed to the database or our SQL), so that the same event alone
    /// would fail again and others would not.
    pub fn blames_values(&self) -> bool {
        match self {
            Self::Refused(sqlx::Error::Encode(_)) => true,
            Self::Refused(sqlx::Error::Database(error)) => {
                match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                    // Data exception, integrity constraint violation, program limit exceeded.
                    Some(error) => ["22", "23", "54"].iter().any(|class| error.code().starts_with(class)),
                    None => {
                        matches!(sqlite_code(error.as_ref()), Some(SQLITE_TOOBIG | SQLITE_CONSTRAINT | SQLITE_MISMATCH))
                    }
                }
            }
            _ => false,
        }
    }
}

/// Primary result codes of SQLite (<https://sqlite.org/rescode.html>).
const SQLITE_ERROR: i32 = 1;
const SQLITE_TOOBIG: i32 = 18;
const SQLITE_CONSTRAINT: i32 = 19;
const SQLITE_MISMATCH: i32 = 20;
const SQLITE_MISUSE: i32 = 21;
const SQLITE_RANGE: i32 = 25;

/// The primary code in the low byte of an extended one.
fn sqlite_code(error: &dyn sqlx::error::DatabaseError) -> Option<i32> {
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let refused = match &error {
            sqlx::Error::Database(inner) => match inner.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                // Feature not supported, and the classes that speak of the values, the SQL or the rights to run it.
                Some(error) => ["0A", "21", "22", "23", "42", "54"].iter().any(|class| error.code().starts_with(class)),
                // All the others (BUSY, LOCKED, IOERR, FULL, READONLY, CANTOPEN …) may pass.
                None => matches!(
                    sqlite_code(inner.as_ref()),
                    Some(
                        SQLITE_ERROR
                            | SQLITE_TOOBIG
                            | SQLITE_CONSTRAINT
                            | SQLITE_MISMATCH
                            | SQLITE_MISUSE
                            | SQLITE_RANGE
                    )
                ),
            },
            sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::RowNotFound => true,
            _ => false,
        };
        if refused { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<Backend>,
    metrics: Arc<Metrics>,
    doorbell: Arc<Doorbell>,
    commits_extra: u32,
}

#[derive(Debug)]
enum Backend {
    Sqlite(sqlite::SqliteStore),
    Postgres(postgres::PostgresStore),
}

impl Store {
    /// Opens the database (an SQLite file is created when missing), and brings its tables up to date.
    pub async fn connect(database: &Database, limits: StoreLimits, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let commits_extra = limits.commits_extra;
        let doorbell: Arc<Doorbell> = Arc::default();
        let backend = match database {
            Database::Sqlite(path) => {
                Backend::Sqlite(sqlite::SqliteStore::connect(path, limits, metrics.clone()).await?)
            }
            Database::Postgres(url) => {
                Backend::Postgres(postgres::PostgresStore::connect(url, limits, metrics.clone(), &doorbell).await?)
            }
        };
        Ok(Self { backend: Arc::new(backend), metrics, doorbell, commits_extra })
    }

    /// Writes the events; the answers are in the order of the events. Counts `events_persisted` and `persist_seconds`.
    ///
    /// On an error the caller doesn't know what was committed (a connection can break during the commit) and must not
    /// acknowledge any of them. Trying again with the same events is safe: what was committed is then `AlreadyThere`.
    pub async fn insert(&self, events: &[Arc<Event>], handling: Handling) -> Result<Vec<Inserted>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let Written { outcomes, owed } = either!(self, store => store.insert(events, handling).await)?;
        for _ in 0..self.commits_extra {
            either!(self, store => store.commit_nothing().await)?;
        }
        let committed_at_us = now_us();
        for (event, outcome) in events.iter().zip(&outcomes) {
            if !matches!(outcome, Inserted::DuplicateOf(_)) {
                self.metrics.events_persisted.inc();
                let seconds = (committed_at_us - event.created_at_us).max(0) as f64 / MICROSECONDS_PER_SECOND;
                self.metrics.persist_seconds.observe(seconds);
                if let Some(followed) = &event.followed {
                    followed.persisted(event.id, event.created_at_us, committed_at_us);
                }
            }
        }
        match owed {
            Some(organizations) => self.doorbell.owed(&organizations),
            None => self.doorbell.committed(events),
        }
        Ok(outcomes)
    }

    /// The id of the event that holds this `dedup_id` since `since_us`.
    pub async fn find_dedup(
        &self,
        organization_id: Uuid,
        dedup_id: &str,
        since_us: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        either!(self, store => store.find_dedup(organization_id, dedup_id, since_us).await)
    }

    /// The newest `(organisation, dedup_id, event id)` since `since_us`, newest first, at most `limit`, and whether that was all.
    ///
    /// Finds events by their ids, which carry their time ([`Event::id`]): the window needs no index of its own.
    pub async fn recent_dedup(
        &self,
        since_us: i64,
        limit: usize,
    ) -> Result<(Vec<(Uuid, Box<str>, Uuid)>, bool), StoreError> {
        let limit_rows = row_count(limit.saturating_add(1));
        let mut found = either!(self, store => store.recent_dedup(oldest_id(since_us), since_us, limit_rows).await)?;
        let complete = found.len() <= limit;
        found.truncate(limit);
        Ok((found, complete))
    }

    /// Which of these events have a row. For few at a time: all of them are in one statement.
    pub async fn existing(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        either!(self, store => store.existing(ids).await)
    }

    /// One event of this organisation.
    pub async fn event(&self, organization_id: Uuid, id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        either!(self, store => store.event(organization_id, id).await)
    }

    /// A page of this organisation's events in `state` (all states when `None`), oldest first, from `cursor` on.
    pub async fn inbox(
        &self,
        organization_id: Uuid,
        state: Option<State>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page, StoreError> {
        let after = cursor.map(Cursor::decode).transpose()?.unwrap_or_default();
        let limit_rows = row_count(limit.saturating_add(1));
        let rows = either!(self, store => store.inbox(organization_id, state, limit_rows, after).await)?;
        let more = rows.more || rows.events.len() > limit;
        let mut rows = rows.events;
        rows.truncate(limit);
        let next_cursor = if more { rows.last().map(|(at, _)| at.encode()) } else { None };
        Ok(Page { events: rows.into_iter().map(|(_, event)| event).collect(), next_cursor })
    }

    /// Marks an event as delivered; false when this organisation has no such event. Counts `events_delivered`, once per event.
    pub async fn acknowledge(&self, organization_id: Uuid, id: Uuid) -> Result<bool, StoreError> {
        if either!(self, store => store.mark_delivered(organization_id, id).await)? {
            self.metrics.events_delivered.inc();
            return Ok(true);
        }
        Ok(self.event(organization_id, id).await?.is_some())
    }

    /// Adds a key.
    pub async fn add_key(&self, key: &KeyRow) -> Result<(), StoreError> {
        either!(self, store => store.add_key(key).await)
    }

    /// Looks a key up by hash.
    pub async fn find_key(&self, key_hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        either!(self, store => store.find_key(key_hash).await)
    }

    /// Puts `new` in the place of the key `old_hash`, at once; false when `old_hash` is not there (any more).
    pub async fn replace_key(&self, old_hash: &[u8; 32], new: &KeyRow) -> Result<bool, StoreError> {
        either!(self, store => store.replace_key(old_hash, new).await)
    }

    /// Whether rows want the processor: received, or claimed before `lease_expired_us` (or in what is still the future) by a process
    /// that has not finished them. The same statement looks when the next webhook delivery is due, and tells the [`Doorbell`].
    pub async fn wants_processing(&self, lease_expired_us: i64) -> Result<bool, StoreError> {
        self.look(lease_expired_us, false).await.map(|seen| seen.wanted)
    }

    /// Like [`Store::wants_processing`]; the same statement counts the processes on this database if it is to.
    pub async fn look(&self, lease_expired_us: i64, counts_processes: bool) -> Result<Seen, StoreError> {
        let (seen, due_at_us) = either!(self, store => store.look(lease_expired_us, counts_processes).await)?;
        self.doorbell.polled(due_at_us);
        Ok(seen)
    }

    /// Tells the other processes on this database that it may have work which this one does not do: it stops.
    pub async fn announce(&self) -> Result<(), StoreError> {
        either!(self, store => store.announce().await)
    }

    /// How many rows want the processor (see [`Store::wants_processing`]).
    pub async fn depth(&self, lease_expired_us: i64) -> Result<u64, StoreError> {
        either!(self, store => store.depth(lease_expired_us).await)
    }

    /// Claims the oldest rows that want the processor, at most `limit`. No two claims get the same row, whichever process asks.
    pub async fn claim(&self, now_us: i64, lease_expired_us: i64, limit: usize) -> Result<Vec<Uuid>, StoreError> {
        either!(self, store => store.claim(now_us, lease_expired_us, row_count(limit)).await)
    }

    /// Marks rows that were claimed at `claimed_at_us` as processed; those that another process has claimed since are its own.
    pub async fn complete(&self, ids: &[Uuid], claimed_at_us: i64) -> Result<u64, StoreError> {
        either!(self, store => store.complete(ids, claimed_at_us).await)
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        either!(self, store => store.ping().await)
    }

    /// Whether the database takes writes. Leaves nothing behind.
    pub async fn can_write(&self) -> Result<(), StoreError> {
        either!(self, store => store.can_write().await)
    }

    /// Shows the store as unavailable, until the processor finds that it takes writes again.
    pub fn mark_unavailable(&self) {
        self.metrics.store_available.set(0);
    }

    /// The settings that decide what a commit is worth, read back from the database.
    pub async fn durability_settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        either!(self, store => store.durability_settings().await)
    }

    /// Waits for statements in progress and closes all connections; what comes after is answered with `Unavailable`.
    pub async fn close(&self) {
        either!(self, store => store.close().await)
    }
}

/// The present, in microseconds since the epoch.
pub fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// How far the clock that made an id may lie behind the one that stamped the event (they are read one after the other, and
/// UUIDv7 cuts to milliseconds).
const ID_CLOCK_SLACK_MS: i64 = 60_000;

/// How far ahead of this machine's clock that of another process on the same database may be. A claim from later than that was
/// made before a clock was set back; its lease would last until the clock has caught up, and so it counts as over.
const CLAIM_CLOCK_SLACK_US: i64 = 60_000_000;

/// Claims that are later than this are over, see [`CLAIM_CLOCK_SLACK_US`].
fn claim_us_max() -> i64 {
    now_us().saturating_add(CLAIM_CLOCK_SLACK_US)
}

/// The smallest UUIDv7 of an event taken in at `since_us`.
fn oldest_id(since_us: i64) -> Uuid {
    let since_ms = u64::try_from(since_us / 1_000 - ID_CLOCK_SLACK_MS).unwrap_or(0);
    Uuid::from_u128(u128::from(since_ms & 0xffff_ffff_ffff) << 80)
}

/// A number of rows as SQL's LIMIT takes it.
fn row_count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The text of the `status` column for fresh rows.
fn fresh_status(handling: Handling) -> &'static str {
    match handling {
        Handling::Done => "processed",
        Handling::Wanted => "received",
    }
}

/// What the contract's state of a `status` column is; an unknown one was written by a newer server.
fn state_of(status: &str) -> Result<State, sqlx::Error> {
    match status {
        "received" | "processing" | "processed" => Ok(State::Persisted),
        "delivered" => Ok(State::Delivered),
        "failed" => Ok(State::Failed),
        "dead_letter" => Ok(State::DeadLetter),
        other => Err(sqlx::Error::Decode(format!("unknown status '{other}' in the database").into())),
    }
}

/// The texts of the `status` column that make up a state (three, because a prepared statement has a fixed number of places).
fn statuses_of(state: State) -> [&'static str; 3] {
    match state {
        State::Persisted => ["received", "processing", "processed"],
        State::Delivered => ["delivered"; 3],
        State::Failed => ["failed"; 3],
        State::DeadLetter => ["dead_letter"; 3],
    }
}

/// A place in an inbox: after the row `(tx, seq)`. SQLite has no tx; there it is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    tx: u64,
    seq: i64,
}

impl Cursor {
    fn encode(self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.tx.to_be_bytes());
        bytes[8..].copy_from_slice(&self.seq.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(text: &str) -> Result<Self, StoreError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::BadCursor)?;
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| StoreError::BadCursor)?;
        let number = u128::from_be_bytes(bytes);
        let seq = i64::try_from(number & u128::from(u64::MAX)).map_err(|_| StoreError::BadCursor)?;
        Ok(Self { tx: (number >> 64) as u64, seq })
    }
}

/// The payload as text, without a copy. The parser upstream has seen that it is UTF-8; what got past it is refused here
/// and not written to a place where it could not be read back.
fn payload_text(event: &Event) -> Result<&str, sqlx::Error> {
    std::str::from_utf8(&event.payload).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// The one place that SQL passes: counts each statement when it ends, also when its caller goes away before that.
#[derive(Clone, Debug)]
struct Counter {
    metrics: Arc<Metrics>,
}

/// Rows of an inbox, read until they would not fit on a page.
struct Rows {
    events: Vec<(Cursor, StoredEvent)>,
    /// The last one that was read did not fit, and is not among `events`.
    more: bool,
}

impl Rows {
    /// Reads one after the other: a thousand of the largest events would be a quarter of a gigabyte, several times over.
    async fn read<R>(
        mut rows: impl TryStream<Ok = R, Error = sqlx::Error> + Unpin,
        event: impl Fn(&R) -> Result<(Cursor, StoredEvent), sqlx::Error>,
        bytes_max: usize,
    ) -> Result<Self, sqlx::Error> {
        let (mut events, mut bytes) = (Vec::new(), 0usize);
        while let Some(row) = rows.try_next().await? {
            let (at, stored) = event(&row)?;
            bytes = bytes.saturating_add(stored.event.payload.len());
            if bytes > bytes_max && !events.is_empty() {
                return Ok(Self { events, more: true });
            }
            events.push((at, stored));
        }
        Ok(Self { events, more: false })
    }
}

impl Counter {
    async fn run<T>(
        &self,
        kind: Statement,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let _counted = CountedAtEnd { metrics: &self.metrics, kind };
        self.checked(statement.await)
    }

    /// Counts what failed, and sorts it; for what is no statement, too (waiting for a connection).
    fn checked<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        result.map_err(|error| {
            self.metrics.store_errors.inc();
            StoreError::from(error)
        })
    }
}

struct CountedAtEnd<'a> {
    metrics: &'a Metrics,
    kind: Statement,
}

impl Drop for CountedAtEnd<'_> {
    fn drop(&mut self) {
        self.metrics.statement(self.kind);
    }
}

/// How often an insert that found its `dedup_id` held by an event older than the window tries to take it over. A round is
/// lost only to another process that does the same.
const TAKE_OVER_ROUNDS_MAX: usize = 3;

/// What the conflict path learns about the holder of a `dedup_id`.
#[derive(Debug, Clone, Copy)]
struct Holder {
    id: Uuid,
    inserted_at_us: i64,
}

/// The answers for a batch of which `written` came back from the database, with a gap for each event that conflicted. An id
/// that stands in the batch twice was written once.
fn answers(events: &[Arc<Event>], mut written: HashSet<Uuid>) -> Vec<Option<Inserted>> {
    events.iter().map(|event| written.remove(&event.id).then_some(Inserted::New)).collect()
}
