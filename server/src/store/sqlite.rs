//! The embedded store: one SQLite file in WAL mode, one connection that writes, a few that only read.
//!
//! `synchronous=FULL`: a commit returns after the WAL is synced, so a persisted event survives power loss. The WAL is copied
//! back by the writer itself, within a commit, once it has grown by [`WAL_AUTOCHECKPOINT_PAGES`]; readers here are short, so
//! none of them keeps it from being reused.
//!
//! A sync that fails does not stop the server, unlike one of the journal. The commit fails and nobody is told yes; the next one
//! writes its own frames over the failed ones and syncs those, and no earlier commit hangs on them, because each was synced
//! before it counted. A copy back whose sync fails is not noted as done and is done again.

mod deliveries;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction};
use uuid::Uuid;

use super::{
    Counter, Cursor, Handling, Holder, Inserted, KeyRow, Rows, Seen, State, StoreError, StoreLimits, StoredEvent,
    TAKE_OVER_ROUNDS_MAX, Written, answers, claim_us_max, fresh_status, migrations, now_us, payload_text, state_of,
    statuses_of,
};
use crate::event::Event;
use crate::metrics::{Metrics, Statement};

/// The WAL is copied back into the database when it has this many pages of 4 KiB (2 MiB). While the copy is synced, whatever else is on that
/// disk waits: with 4,000 pages journal-first at 10,000 events/s stood still for 9 ms each time, and its p99.9 was 6.3 ms in place of
/// 2.0 ms. Smaller copies write 15 % more, and db-first commits as many events a second.
const WAL_AUTOCHECKPOINT_PAGES: u32 = 500;

/// Page cache of each connection, in KiB (SQLite takes it as a negative number of KiB).
const CACHE_KIB: u32 = 8 * 1024;

/// Rows of one INSERT. Few sizes, so that few prepared statements serve batches of all lengths; above 128 rows an insert
/// gains nothing measurable.
const CHUNK_ROWS: [usize; 3] = [128, 16, 1];

/// One INSERT text for each of [`CHUNK_ROWS`].
static INSERTS: LazyLock<[String; 3]> = LazyLock::new(|| CHUNK_ROWS.map(insert_text));

/// The parameters have no numbers, because the driver asks SQLite for the name of each one, and SQLite looks through a list of
/// them all: with 128 numbered rows that was a tenth of the server's processor time. What rows share comes last, once.
fn insert_text(rows: usize) -> String {
    let values = vec!["(?,?,?,?,?,?)"; rows].join(",");
    format!(
        "WITH fresh (id, organization_id, event_type, dedup_id, payload, inserted_at) AS (VALUES {values}) \
         INSERT INTO events (id, organization_id, event_type, dedup_id, dedup_key, payload, inserted_at, status, persisted_at) \
         SELECT id, organization_id, event_type, dedup_id, dedup_id, payload, inserted_at, ?, max(inserted_at, ?) FROM fresh WHERE true \
         ON CONFLICT DO NOTHING"
    )
}

/// The columns that [`stored_event`] reads.
macro_rules! event_columns {
    () => {
        "seq, id, organization_id, event_type, dedup_id, payload, status, inserted_at, persisted_at"
    };
}

/// Creates the file for its owner alone, where there is none: events are nobody else's business. SQLite gives the files beside it
/// the same permissions. What goes wrong is told when the file is opened.
fn create(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

#[derive(Debug)]
pub(super) struct SqliteStore {
    /// One connection: SQLite has one writer at a time, and waiting for it here is fairer than its busy handler.
    writer: SqlitePool,
    readers: SqlitePool,
    counter: Counter,
    dedup_window_us: i64,
    page_bytes_max: usize,
}

impl SqliteStore {
    pub(super) async fn connect(path: &Path, limits: StoreLimits, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        create(path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(limits.statement_timeout)
            .foreign_keys(true)
            .synchronous(if limits.sync { SqliteSynchronous::Full } else { SqliteSynchronous::Off })
            .pragma("cache_size", format!("-{CACHE_KIB}"));
        let writer_options = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES.to_string())
            .thread_name(|_| "sqlite-writer".to_owned());
        let reader_options = options.read_only(true).thread_name(|number| format!("sqlite-reader-{number}"));
        let pool = |connections_max| {
            SqlitePoolOptions::new()
                .max_connections(connections_max)
                .acquire_timeout(limits.acquire_timeout)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool(1)
            .after_release(|connection, _| Box::pin(may_be_used_again(connection)))
            .connect_with(writer_options)
            .await
            .map_err(|error| cannot_open(path, &error.to_string()))?;
        migrations::sqlite().run(&writer).await.map_err(|error| cannot_open(path, &error.to_string()))?;
        let readers = pool(limits.sqlite_readers_max.max(1));
        let readers =
            readers.connect_with(reader_options).await.map_err(|error| cannot_open(path, &error.to_string()))?;
        let dedup_window_us = i64::try_from(limits.dedup_window.as_micros()).unwrap_or(i64::MAX);
        Ok(Self {
            writer,
            readers,
            counter: Counter { metrics },
            dedup_window_us,
            page_bytes_max: limits.page_bytes_max,
        })
    }

    pub(super) async fn insert(&self, events: &[Arc<Event>], handling: Handling) -> Result<Written, StoreError> {
        let mut transaction = self.begin().await?;
        let persisted_at_us = now_us();
        let mut written = HashSet::with_capacity(events.len());
        let mut rest = events;
        while !rest.is_empty() {
            let size = CHUNK_ROWS.iter().position(|rows| *rows <= rest.len()).unwrap_or(CHUNK_ROWS.len() - 1);
            let (chunk, after) = rest.split_at(CHUNK_ROWS[size]);
            self.insert_chunk(&mut transaction, size, chunk, handling, persisted_at_us, &mut written).await?;
            rest = after;
        }
        let mut outcomes = Vec::with_capacity(events.len());
        for (event, answer) in events.iter().zip(answers(events, written)) {
            outcomes.push(match answer {
                Some(new) => new,
                None => self.resolve(&mut transaction, event, handling, persisted_at_us).await?,
            });
        }
        self.counter.run(Statement::Commit, transaction.commit()).await?;
        // One process has the file, and knows all webhooks.
        Ok(Written { outcomes, owed: None })
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        // IMMEDIATE takes the write lock at the start, where waiting for it is safe; a lock that is upgraded later fails.
        self.counter.run(Statement::Begin, self.writer.begin_with("BEGIN IMMEDIATE")).await
    }

    /// Inserts a chunk of one of the sizes of [`CHUNK_ROWS`] and notes the ids that were written.
    async fn insert_chunk(
        &self,
        connection: &mut SqliteConnection,
        size: usize,
        chunk: &[Arc<Event>],
        handling: Handling,
        persisted_at_us: i64,
        written: &mut HashSet<Uuid>,
    ) -> Result<(), StoreError> {
        let mut query = sqlx::query(INSERTS[size].as_str());
        for event in chunk {
            query = query
                .bind(event.id)
                .bind(event.organization_id)
                .bind(event.event_type.as_ref())
                .bind(event.dedup_id.as_deref())
                .bind(self.counter.checked(payload_text(event))?)
                .bind(event.created_at_us);
        }
        let query = query.bind(fresh_status(handling)).bind(persisted_at_us);
        let done = self.counter.run(Statement::Insert, query.execute(&mut *connection)).await?;
        if done.rows_affected() == chunk.len() as u64 {
            written.extend(chunk.iter().map(|event| event.id));
        } else if done.rows_affected() > 0 {
            // Asking which rows were written only here is cheaper than RETURNING each of them. The one writer's AUTOINCREMENT
            // numbers them without a gap.
            let last = done.last_insert_rowid();
            let first = last - i64::try_from(done.rows_affected()).unwrap_or(i64::MAX) + 1;
            let query = sqlx::query_scalar("SELECT id FROM events WHERE seq BETWEEN ?1 AND ?2").bind(first).bind(last);
            let ids: Vec<Uuid> = self.counter.run(Statement::Select, query.fetch_all(&mut *connection)).await?;
            written.extend(ids);
        }
        Ok(())
    }

    /// The conflict path: finds out why an event was not written, and takes the `dedup_id` over from one older than the window.
    async fn resolve(
        &self,
        connection: &mut SqliteConnection,
        event: &Event,
        handling: Handling,
        persisted_at_us: i64,
    ) -> Result<Inserted, StoreError> {
        let event = Arc::new(event.clone());
        for _ in 0..TAKE_OVER_ROUNDS_MAX {
            let query = sqlx::query_scalar::<_, i64>("SELECT 1 FROM events WHERE id = ?1").bind(event.id);
            if self.counter.run(Statement::Select, query.fetch_optional(&mut *connection)).await?.is_some() {
                return Ok(Inserted::AlreadyThere);
            }
            if let Some(holder) = self.holder(connection, &event).await? {
                if holder.inserted_at_us >= event.created_at_us.saturating_sub(self.dedup_window_us) {
                    return Ok(Inserted::DuplicateOf(holder.id));
                }
                let query = sqlx::query("UPDATE events SET dedup_key = NULL WHERE id = ?1").bind(holder.id);
                self.counter.run(Statement::Update, query.execute(&mut *connection)).await?;
            }
            let mut written = HashSet::new();
            let one = std::slice::from_ref(&event);
            self.insert_chunk(connection, CHUNK_ROWS.len() - 1, one, handling, persisted_at_us, &mut written).await?;
            if written.contains(&event.id) {
                return Ok(Inserted::New);
            }
        }
        Err(StoreError::Unavailable(sqlx::Error::Protocol("the dedup_id could not be taken over".to_owned())))
    }

    async fn holder(&self, connection: &mut SqliteConnection, event: &Event) -> Result<Option<Holder>, StoreError> {
        let query = sqlx::query_as("SELECT id, inserted_at FROM events WHERE organization_id = ?1 AND dedup_key = ?2")
            .bind(event.organization_id)
            .bind(event.dedup_id.as_deref());
        let row: Option<(Uuid, i64)> = self.counter.run(Statement::Select, query.fetch_optional(connection)).await?;
        Ok(row.map(|(id, inserted_at_us)| Holder { id, inserted_at_us }))
    }

    pub(super) async fn find_dedup(
        &self,
        organization_id: Uuid,
        dedup_id: &str,
        since_us: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        let query = sqlx::query_scalar(
            "SELECT id FROM events WHERE organization_id = ?1 AND dedup_key = ?2 AND inserted_at >= ?3",
        );
        let query = query.bind(organization_id).bind(dedup_id).bind(since_us);
        self.counter.run(Statement::Select, query.fetch_optional(&mut *self.reader().await?)).await
    }

    pub(super) async fn recent_dedup(
        &self,
        oldest_id: Uuid,
        since_us: i64,
        limit: i64,
    ) -> Result<Vec<(Uuid, Box<str>, Uuid)>, StoreError> {
        let query = sqlx::query_as::<_, (Uuid, String, Uuid)>(
            "SELECT organization_id, dedup_key, id FROM events
             WHERE id >= ?1 AND inserted_at >= ?2 AND dedup_key IS NOT NULL ORDER BY id DESC LIMIT ?3",
        );
        let query = query.bind(oldest_id).bind(since_us).bind(limit);
        let rows = self.counter.run(Statement::Select, query.fetch_all(&mut *self.reader().await?)).await?;
        Ok(rows.into_iter().map(|(organization, dedup_id, id)| (organization, dedup_id.into(), id)).collect())
    }

    pub(super) async fn existing(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar("SELECT id FROM events WHERE id IN (SELECT unhex(value) FROM json_each(?1))");
        let query = query.bind(json_ids(ids));
        self.counter.run(Statement::Select, query.fetch_all(&mut *self.reader().await?)).await
    }

    pub(super) async fn event(&self, organization_id: Uuid, id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        let query =
            sqlx::query(concat!("SELECT ", event_columns!(), " FROM events WHERE id = ?1 AND organization_id = ?2"));
        let query = query.bind(id).bind(organization_id);
        let row = self.counter.run(Statement::Select, query.fetch_optional(&mut *self.reader().await?)).await?;
        self.counter.checked(row.map(|row| stored_event(&row).map(|(_, event)| event)).transpose())
    }

    pub(super) async fn inbox(
        &self,
        organization_id: Uuid,
        state: Option<State>,
        limit: i64,
        after: Cursor,
    ) -> Result<Rows, StoreError> {
        let text = match state {
            None => concat!(
                "SELECT ",
                event_columns!(),
                " FROM events WHERE organization_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"
            ),
            Some(_) => concat!(
                "SELECT ",
                event_columns!(),
                " FROM events WHERE organization_id = ?1 AND seq > ?2 AND status IN (?4, ?5, ?6) ORDER BY seq LIMIT ?3"
            ),
        };
        let mut query = sqlx::query(text).bind(organization_id).bind(after.seq).bind(limit);
        for status in state.into_iter().flat_map(statuses_of) {
            query = query.bind(status);
        }
        let mut connection = self.reader().await?;
        let rows = Rows::read(query.fetch(&mut *connection), stored_event, self.page_bytes_max);
        self.counter.run(Statement::Select, rows).await
    }

    /// Whether the row became delivered now (false: it was before, or is not there).
    pub(super) async fn mark_delivered(&self, organization_id: Uuid, id: Uuid) -> Result<bool, StoreError> {
        let query = sqlx::query(
            "UPDATE events SET status = 'delivered' WHERE id = ?1 AND organization_id = ?2 AND status <> 'delivered'",
        );
        let query = query.bind(id).bind(organization_id);
        let done = self.counter.run(Statement::Update, query.execute(&mut *self.writer().await?)).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn add_key(&self, key: &KeyRow) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO api_keys (key_hash, organization_id, organization_name, tier, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        );
        let query = query
            .bind(key.key_hash.as_slice())
            .bind(key.organization_id)
            .bind(&key.organization_name)
            .bind(&key.tier)
            .bind(key.created_at_us);
        self.counter.run(Statement::Insert, query.execute(&mut *self.writer().await?)).await?;
        Ok(())
    }

    pub(super) async fn find_key(&self, key_hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let query = sqlx::query_as::<_, (Uuid, String, String, i64)>(
            "SELECT organization_id, organization_name, tier, created_at FROM api_keys WHERE key_hash = ?1",
        );
        let query = query.bind(key_hash.as_slice());
        let row = self.counter.run(Statement::Select, query.fetch_optional(&mut *self.reader().await?)).await?;
        Ok(row.map(|(organization_id, organization_name, tier, created_at_us)| KeyRow {
            key_hash: *key_hash,
            organization_id,
            organization_name,
            tier,
            created_at_us,
        }))
    }

    pub(super) async fn replace_key(&self, old_hash: &[u8; 32], new: &KeyRow) -> Result<bool, StoreError> {
        let query = sqlx::query(
            "UPDATE api_keys SET key_hash = ?2, organization_id = ?3, organization_name = ?4, tier = ?5, created_at = ?6
             WHERE key_hash = ?1",
        );
        let query = query
            .bind(old_hash.as_slice())
            .bind(new.key_hash.as_slice())
            .bind(new.organization_id)
            .bind(&new.organization_name)
            .bind(&new.tier)
            .bind(new.created_at_us);
        let done = self.counter.run(Statement::Update, query.execute(&mut *self.writer().await?)).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether rows want processing, and when the next delivery is due. There is one process.
    pub(super) async fn look(
        &self,
        lease_expired_us: i64,
        counts_processes: bool,
    ) -> Result<(Seen, Option<i64>), StoreError> {
        let query = sqlx::query_as::<_, (bool, Option<i64>)>(
            "SELECT EXISTS (SELECT 1 FROM events WHERE status = 'received')
             OR EXISTS (SELECT 1 FROM events WHERE status = 'processing' AND processing_started_at < ?1)
             OR EXISTS (SELECT 1 FROM events WHERE status = 'processing' AND processing_started_at > ?2),
             (SELECT MIN(next_attempt_at) FROM deliveries)",
        );
        let query = query.bind(lease_expired_us).bind(claim_us_max());
        let (wanted, due_at_us) =
            self.counter.run(Statement::Select, query.fetch_one(&mut *self.reader().await?)).await?;
        Ok((Seen { wanted, processes: counts_processes.then_some(1) }, due_at_us))
    }

    pub(super) async fn depth(&self, lease_expired_us: i64) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar::<_, i64>(
            "SELECT (SELECT COUNT(*) FROM events WHERE status = 'received')
             + (SELECT COUNT(*) FROM events WHERE status = 'processing'
                AND (processing_started_at < ?1 OR processing_started_at > ?2))",
        );
        let query = query.bind(lease_expired_us).bind(claim_us_max());
        let rows = self.counter.run(Statement::Count, query.fetch_one(&mut *self.reader().await?)).await?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }

    pub(super) async fn claim(&self, now_us: i64, lease_expired_us: i64, limit: i64) -> Result<Vec<Uuid>, StoreError> {
        // One statement of the one writer is atomic: no other claim can come between its SELECT and its UPDATE. Expired
        // claims come first: with received rows before them they would wait for as long as events keep coming.
        let query = sqlx::query_scalar(
            "UPDATE events SET status = 'processing', processing_started_at = ?1 WHERE seq IN (
                 SELECT seq FROM (SELECT seq FROM events WHERE status = 'processing'
                                  AND (processing_started_at < ?2 OR processing_started_at > ?4) ORDER BY processing_started_at LIMIT ?3)
                 UNION ALL
                 SELECT seq FROM (SELECT seq FROM events WHERE status = 'received' ORDER BY inserted_at LIMIT ?3)
                 LIMIT ?3)
             RETURNING id",
        );
        let query = query.bind(now_us).bind(lease_expired_us).bind(limit).bind(claim_us_max());
        self.counter.run(Statement::Update, query.fetch_all(&mut *self.writer().await?)).await
    }

    pub(super) async fn complete(&self, ids: &[Uuid], claimed_at_us: i64) -> Result<u64, StoreError> {
        let query = sqlx::query(
            "UPDATE events SET status = 'processed' WHERE id IN (SELECT unhex(value) FROM json_each(?1))
             AND status = 'processing' AND processing_started_at = ?2",
        );
        let query = query.bind(json_ids(ids)).bind(claimed_at_us);
        let done = self.counter.run(Statement::Update, query.execute(&mut *self.writer().await?)).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let query = sqlx::query_scalar::<_, i64>("SELECT 1");
        self.counter.run(Statement::Select, query.fetch_one(&mut *self.reader().await?)).await?;
        Ok(())
    }

    /// Commits once, synced, and changes nothing.
    pub(super) async fn commit_nothing(&self) -> Result<(), StoreError> {
        self.can_write().await
    }

    pub(super) async fn can_write(&self) -> Result<(), StoreError> {
        // A number that nobody uses, written over with what it is: the smallest commit there is.
        let query = sqlx::query("PRAGMA user_version = 0");
        self.counter.run(Statement::Other, query.execute(&mut *self.writer().await?)).await?;
        Ok(())
    }

    pub(super) async fn durability_settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        // From the writer: synchronous is a setting of each connection.
        let mut connection = self.writer().await?;
        let query = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
        let journal_mode = self.counter.run(Statement::Other, query.fetch_one(&mut *connection)).await?;
        let query = sqlx::query_scalar::<_, i64>("PRAGMA synchronous");
        let synchronous = match self.counter.run(Statement::Other, query.fetch_one(&mut *connection)).await? {
            0 => "off".to_owned(),
            1 => "normal".to_owned(),
            2 => "full".to_owned(),
            3 => "extra".to_owned(),
            other => other.to_string(),
        };
        Ok(vec![("journal_mode".to_owned(), journal_mode), ("synchronous".to_owned(), synchronous)])
    }

    /// There is nobody else.
    pub(super) async fn announce(&self) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        // Last, because the last connection to go copies the WAL back, and a read-only one can't.
        self.writer.close().await;
    }

    async fn writer(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, StoreError> {
        self.counter.checked(self.writer.acquire().await)
    }

    async fn reader(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, StoreError> {
        self.counter.checked(self.readers.acquire().await)
    }
}

/// Whether the writing connection is out of its transaction; otherwise it is closed, and the next caller gets a new one.
///
/// SQLite ends a transaction by itself when a write or a sync fails (disk full, I/O error). The driver keeps its own count of
/// transactions, finds nothing to roll back, and goes on believing that one is open: it would refuse every later BEGIN.
async fn may_be_used_again(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A rollback is only queued when a transaction is dropped; after this it is done.
    connection.ping().await?;
    let usable = !connection.is_in_transaction();
    if !usable {
        tracing::warn!("a transaction failed for good; the connection that writes is replaced");
    }
    Ok(usable)
}

/// Ids as one parameter: `unhex(value)` of each element of `json_each`.
fn json_ids(ids: &[Uuid]) -> String {
    let hex: Vec<String> = ids.iter().map(|id| format!("\"{}\"", id.simple())).collect();
    format!("[{}]", hex.join(","))
}

fn cannot_open(path: &Path, cause: &str) -> StoreError {
    StoreError::Open {
        database: format!("sqlite:{}", path.display()),
        cause: cause.to_owned(),
        remedy: "give a path in a folder that exists and that this user may write to, with --database sqlite:PATH",
    }
}

fn stored_event(row: &SqliteRow) -> Result<(Cursor, StoredEvent), sqlx::Error> {
    let event = Event {
        id: row.try_get(1)?,
        organization_id: row.try_get(2)?,
        event_type: row.try_get::<String, _>(3)?.into(),
        dedup_id: row.try_get::<Option<String>, _>(4)?.map(Into::into),
        payload: Bytes::from(row.try_get::<String, _>(5)?),
        created_at_us: row.try_get(7)?,
        followed: None,
    };
    let state = state_of(row.try_get(6)?)?;
    Ok((Cursor { tx: 0, seq: row.try_get(0)? }, StoredEvent { event, state, persisted_at_us: row.try_get(8)? }))
}
