//! The shared store: PostgreSQL, which several server processes may use at once.
//!
//! A batch is one INSERT and commits by itself; only its conflicts, which are rare, take a transaction. What a commit is
//! worth is the server's setting (`synchronous_commit`, `fsync`): this code reads it back and changes nothing.

mod deliveries;
mod notices;

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{PgConnection, PgPool, Postgres, Row as _};
use uuid::Uuid;

use super::{
    Counter, Cursor, Handling, Holder, Inserted, KeyRow, Rows, Seen, State, StoreError, StoreLimits, StoredEvent,
    TAKE_OVER_ROUNDS_MAX, Written, answers, claim_us_max, fresh_status, migrations, now_us, payload_text, state_of,
    statuses_of,
};
use crate::doorbell::Doorbell;
use crate::event::Event;
use crate::metrics::{Metrics, Statement};
use notices::{LISTENER, Notices};

/// `xid8` and `pg_current_xact_id` came with this version.
const SERVER_VERSION_MIN: i32 = 130_000;

/// How much longer than the server's own statement timeout a reply is waited for, before the connection counts as dead. Also how
/// long a connection whose caller is done with it may take to be ready for the next one.
const REPLY_GRACE: Duration = Duration::from_secs(2);

/// One answer row and not one per event: the ids travel as an array, and only when some are missing. What is owed to a webhook
/// is written in the same statement, which says to whose.
const INSERT: &str = "WITH written AS (
    INSERT INTO events (id, organization_id, event_type, dedup_id, dedup_key, payload, inserted_at, status, persisted_at)
    SELECT fresh.id, organization_id, event_type, dedup_id, dedup_id, payload, inserted_at, $7, greatest(inserted_at, $8)
    FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        AS fresh (id, organization_id, event_type, dedup_id, payload, inserted_at)
    ON CONFLICT DO NOTHING RETURNING id, organization_id, inserted_at),
    owed AS (
    INSERT INTO deliveries (event_id, organization_id, next_attempt_at, attempts)
    SELECT id, organization_id, inserted_at, 0 FROM written JOIN webhooks USING (organization_id) WHERE disabled_at IS NULL
    RETURNING organization_id)
    SELECT CASE WHEN count(*) < $9 THEN array_agg(id) END, (SELECT array_agg(DISTINCT organization_id) FROM owed)
    FROM written HAVING count(*) > 0";

/// The columns that [`stored_event`] reads.
macro_rules! event_columns {
    () => {
        "tx::text AS tx_text, seq, id, organization_id, event_type, dedup_id, payload, status, inserted_at, persisted_at"
    };
}

#[derive(Debug)]
pub(super) struct PostgresStore {
    pool: PgPool,
    counter: Counter,
    dedup_window_us: i64,
    page_bytes_max: usize,
    reply_timeout: Duration,
    notices: Notices,
}

impl PostgresStore {
    pub(super) async fn connect(
        url: &str,
        limits: StoreLimits,
        metrics: Arc<Metrics>,
        doorbell: &Arc<Doorbell>,
    ) -> Result<Self, StoreError> {
        let options =
            PgConnectOptions::from_str(url).map_err(|error| cannot_open("(URL not understood)".to_owned(), &error))?;
        let place = format!(
            "postgres://{}:{}/{}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or("")
        );
        let options = options
            .application_name("millrace")
            .options([("statement_timeout", format!("{}ms", limits.statement_timeout.as_millis()))]);
        let options = if limits.sync { options } else { options.options([("synchronous_commit", "off")]) };
        let pool = PgPoolOptions::new()
            .max_connections(limits.postgres_connections_max.max(1))
            .acquire_timeout(limits.acquire_timeout)
            // Whatever tends idle connections makes statements while nothing happens.
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await
            .map_err(|error| cannot_open(place.clone(), &error))?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&pool)
            .await
            .map_err(|error| cannot_open(place.clone(), &error))?;
        if version < SERVER_VERSION_MIN {
            let cause = format!("its version number is {version}, and {SERVER_VERSION_MIN} is the least");
            return Err(StoreError::Open { database: place, cause, remedy: "use PostgreSQL 13 or newer" });
        }
        // Under an advisory lock, so that processes which start together take turns.
        migrations::postgres().run(&pool).await.map_err(|error| cannot_open(place, &error))?;
        let dedup_window_us = i64::try_from(limits.dedup_window.as_micros()).unwrap_or(i64::MAX);
        let reply_timeout = limits.statement_timeout + REPLY_GRACE;
        let notices = Notices::start(options, pool.clone(), Counter { metrics: metrics.clone() }, doorbell.clone());
        Ok(Self {
            notices,
            pool,
            counter: Counter { metrics },
            dedup_window_us,
            page_bytes_max: limits.page_bytes_max,
            reply_timeout,
        })
    }

    pub(super) async fn insert(&self, events: &[Arc<Event>], handling: Handling) -> Result<Written, StoreError> {
        let mut owed = Vec::new();
        let outcomes = self.insert_all(events, handling, &mut owed).await?;
        if !owed.is_empty() {
            self.notices.announce_soon();
        }
        Ok(Written { outcomes, owed: Some(owed) })
    }

    /// Adds to `owed` to whose webhooks events are owed that were written.
    async fn insert_all(
        &self,
        events: &[Arc<Event>],
        handling: Handling,
        owed: &mut Vec<Uuid>,
    ) -> Result<Vec<Inserted>, StoreError> {
        let mut connection = self.connection().await?;
        let persisted_at_us = now_us();
        let written = self.insert_batch(&mut connection, events, handling, persisted_at_us, owed).await?;
        if written.len() == events.len() {
            return Ok(vec![Inserted::New; events.len()]);
        }
        let answers = answers(events, written);
        let missing: Vec<Arc<Event>> = events
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(event, _)| event.clone())
            .collect();
        let mut resolved = self.resolve(&mut connection, &missing, handling, persisted_at_us, owed).await?.into_iter();
        Ok(answers
            .into_iter()
            .map(|answer| answer.or_else(|| resolved.next()).unwrap_or(Inserted::AlreadyThere))
            .collect())
    }

    /// Inserts what conflicts with nothing; the ids of what was written.
    async fn insert_batch(
        &self,
        connection: &mut PgConnection,
        events: &[Arc<Event>],
        handling: Handling,
        persisted_at_us: i64,
        owed: &mut Vec<Uuid>,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        let organizations: Vec<Uuid> = events.iter().map(|event| event.organization_id).collect();
        let types: Vec<&str> = events.iter().map(|event| event.event_type.as_ref()).collect();
        let dedup_ids: Vec<Option<&str>> = events.iter().map(|event| event.dedup_id.as_deref()).collect();
        let payloads: Result<Vec<&str>, sqlx::Error> = events.iter().map(|event| payload_text(event)).collect();
        let inserted_at: Vec<i64> = events.iter().map(|event| event.created_at_us).collect();
        let query = sqlx::query_as::<_, (Option<Vec<Uuid>>, Option<Vec<Uuid>>)>(INSERT)
            .bind(&ids)
            .bind(organizations)
            .bind(types)
            .bind(dedup_ids)
            .bind(self.counter.checked(payloads)?)
            .bind(inserted_at)
            .bind(fresh_status(handling))
            .bind(persisted_at_us)
            .bind(super::row_count(events.len()));
        let Some((some_ids, organizations)) = self.run(Statement::Insert, query.fetch_optional(connection)).await?
        else {
            return Ok(HashSet::new());
        };
        owed.extend(organizations.into_iter().flatten());
        Ok(some_ids.unwrap_or(ids).into_iter().collect())
    }

    /// The conflict path: finds out why events were not written, and takes a `dedup_id` over from one older than the window.
    async fn resolve(
        &self,
        connection: &mut PgConnection,
        events: &[Arc<Event>],
        handling: Handling,
        persisted_at_us: i64,
        owed: &mut Vec<Uuid>,
    ) -> Result<Vec<Inserted>, StoreError> {
        let mut found: HashMap<Uuid, Inserted> = HashMap::with_capacity(events.len());
        for _ in 0..TAKE_OVER_ROUNDS_MAX {
            let open: Vec<Arc<Event>> = events.iter().filter(|event| !found.contains_key(&event.id)).cloned().collect();
            if open.is_empty() {
                break;
            }
            let released = self.classify(connection, &open, &mut found).await?;
            let retry: Vec<Arc<Event>> = open.into_iter().filter(|event| !found.contains_key(&event.id)).collect();
            if retry.is_empty() {
                break;
            }
            for id in self.take_over(connection, &released, &retry, handling, persisted_at_us, owed).await? {
                found.insert(id, Inserted::New);
            }
        }
        let mut seen = HashSet::with_capacity(events.len());
        let outcome = |event: &Arc<Event>| match found.get(&event.id) {
            // The same id twice in one batch: the second one finds the first.
            Some(Inserted::New) if !seen.insert(event.id) => Ok(Inserted::AlreadyThere),
            Some(outcome) => Ok(*outcome),
            None => {
                Err(StoreError::Unavailable(sqlx::Error::Protocol("the dedup_id could not be taken over".to_owned())))
            }
        };
        events.iter().map(outcome).collect()
    }

    /// Notes which events are there already and which are duplicates; the ids of holders that are older than the window.
    async fn classify(
        &self,
        connection: &mut PgConnection,
        events: &[Arc<Event>],
        found: &mut HashMap<Uuid, Inserted>,
    ) -> Result<Vec<Uuid>, StoreError> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        let query = sqlx::query_scalar("SELECT id FROM events WHERE id = ANY($1)").bind(ids);
        let there: HashSet<Uuid> =
            self.run(Statement::Select, query.fetch_all(&mut *connection)).await?.into_iter().collect();
        let organizations: Vec<Uuid> = events.iter().map(|event| event.organization_id).collect();
        let dedup_ids: Vec<Option<&str>> = events.iter().map(|event| event.dedup_id.as_deref()).collect();
        let query = sqlx::query_as::<_, (Uuid, String, Uuid, i64)>(
            "SELECT e.organization_id, e.dedup_key, e.id, e.inserted_at FROM events e
             JOIN UNNEST($1::uuid[], $2::text[]) AS wanted (organization_id, dedup_id)
             ON e.organization_id = wanted.organization_id AND e.dedup_key = wanted.dedup_id",
        );
        let query = query.bind(organizations).bind(dedup_ids);
        let rows = self.run(Statement::Select, query.fetch_all(&mut *connection)).await?;
        let holders: HashMap<(Uuid, &str), Holder> = rows
            .iter()
            .map(|(organization, key, id, at)| ((*organization, key.as_str()), Holder { id: *id, inserted_at_us: *at }))
            .collect();
        let mut released = Vec::new();
        for event in events {
            let holder = event.dedup_id.as_deref().and_then(|key| holders.get(&(event.organization_id, key)));
            if there.contains(&event.id) {
                found.insert(event.id, Inserted::AlreadyThere);
            } else if let Some(holder) = holder {
                if holder.inserted_at_us >= event.created_at_us.saturating_sub(self.dedup_window_us) {
                    found.insert(event.id, Inserted::DuplicateOf(holder.id));
                } else {
                    released.push(holder.id);
                }
            }
        }
        Ok(released)
    }

    /// Releases the `dedup_id`s of old holders and inserts again, in one transaction: no moment in which nobody holds one.
    async fn take_over(
        &self,
        connection: &mut PgConnection,
        released: &[Uuid],
        events: &[Arc<Event>],
        handling: Handling,
        persisted_at_us: i64,
        owed: &mut Vec<Uuid>,
    ) -> Result<HashSet<Uuid>, StoreError> {
        use sqlx::Connection as _;
        let mut transaction = self.run(Statement::Begin, connection.begin()).await?;
        let query = sqlx::query("UPDATE events SET dedup_key = NULL WHERE id = ANY($1)").bind(released);
        self.run(Statement::Update, query.execute(&mut *transaction)).await?;
        let written = self.insert_batch(&mut transaction, events, handling, persisted_at_us, owed).await?;
        self.run(Statement::Commit, transaction.commit()).await?;
        Ok(written)
    }

    pub(super) async fn find_dedup(
        &self,
        organization_id: Uuid,
        dedup_id: &str,
        since_us: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        let query = sqlx::query_scalar(
            "SELECT id FROM events WHERE organization_id = $1 AND dedup_key = $2 AND inserted_at >= $3",
        );
        let query = query.bind(organization_id).bind(dedup_id).bind(since_us);
        self.run(Statement::Select, query.fetch_optional(&mut *self.connection().await?)).await
    }

    pub(super) async fn recent_dedup(
        &self,
        oldest_id: Uuid,
        since_us: i64,
        limit: i64,
    ) -> Result<Vec<(Uuid, Box<str>, Uuid)>, StoreError> {
        let query = sqlx::query_as::<_, (Uuid, String, Uuid)>(
            "SELECT organization_id, dedup_key, id FROM events
             WHERE id >= $1 AND inserted_at >= $2 AND dedup_key IS NOT NULL ORDER BY id DESC LIMIT $3",
        );
        let query = query.bind(oldest_id).bind(since_us).bind(limit);
        let rows = self.run(Statement::Select, query.fetch_all(&mut *self.connection().await?)).await?;
        Ok(rows.into_iter().map(|(organization, dedup_id, id)| (organization, dedup_id.into(), id)).collect())
    }

    pub(super) async fn existing(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar("SELECT id FROM events WHERE id = ANY($1)").bind(ids);
        self.run(Statement::Select, query.fetch_all(&mut *self.connection().await?)).await
    }

    pub(super) async fn event(&self, organization_id: Uuid, id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        let query =
            sqlx::query(concat!("SELECT ", event_columns!(), " FROM events WHERE id = $1 AND organization_id = $2"));
        let query = query.bind(id).bind(organization_id);
        let row = self.run(Statement::Select, query.fetch_optional(&mut *self.connection().await?)).await?;
        self.counter.checked(row.map(|row| stored_event(&row).map(|(_, event)| event)).transpose())
    }

    pub(super) async fn inbox(
        &self,
        organization_id: Uuid,
        state: Option<State>,
        limit: i64,
        after: Cursor,
    ) -> Result<Rows, StoreError> {
        // Rows of transactions that are not over, or that began before one that is not over, come with a later page: only
        // so does nothing ever appear behind a cursor. See the migration.
        let text = match state {
            None => concat!(
                "SELECT ",
                event_columns!(),
                " FROM events WHERE organization_id = $1 AND (tx, seq) > ($2::text::xid8, $3)
                  AND tx < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY events.tx, events.seq LIMIT $4"
            ),
            Some(_) => concat!(
                "SELECT ",
                event_columns!(),
                " FROM events WHERE organization_id = $1 AND (tx, seq) > ($2::text::xid8, $3)
                  AND tx < pg_snapshot_xmin(pg_current_snapshot()) AND status = ANY($5) ORDER BY events.tx, events.seq LIMIT $4"
            ),
        };
        let mut query = sqlx::query(text).bind(organization_id).bind(after.tx.to_string()).bind(after.seq).bind(limit);
        if let Some(state) = state {
            query = query.bind(statuses_of(state).to_vec());
        }
        let mut connection = self.connection().await?;
        let rows = Rows::read(query.fetch(&mut *connection), stored_event, self.page_bytes_max);
        self.run(Statement::Select, rows).await
    }

    /// Whether the row became delivered now (false: it was before, or is not there).
    pub(super) async fn mark_delivered(&self, organization_id: Uuid, id: Uuid) -> Result<bool, StoreError> {
        let query = sqlx::query(
            "UPDATE events SET status = 'delivered' WHERE id = $1 AND organization_id = $2 AND status <> 'delivered'",
        );
        let query = query.bind(id).bind(organization_id);
        let done = self.run(Statement::Update, query.execute(&mut *self.connection().await?)).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn add_key(&self, key: &KeyRow) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO api_keys (key_hash, organization_id, organization_name, tier, created_at) VALUES ($1, $2, $3, $4, $5)",
        );
        let query = query
            .bind(key.key_hash.as_slice())
            .bind(key.organization_id)
            .bind(&key.organization_name)
            .bind(&key.tier)
            .bind(key.created_at_us);
        self.run(Statement::Insert, query.execute(&mut *self.connection().await?)).await?;
        Ok(())
    }

    pub(super) async fn find_key(&self, key_hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let query = sqlx::query_as::<_, (Uuid, String, String, i64)>(
            "SELECT organization_id, organization_name, tier, created_at FROM api_keys WHERE key_hash = $1",
        );
        let query = query.bind(key_hash.as_slice());
        let row = self.run(Statement::Select, query.fetch_optional(&mut *self.connection().await?)).await?;
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
            "UPDATE api_keys SET key_hash = $2, organization_id = $3, organization_name = $4, tier = $5, created_at = $6
             WHERE key_hash = $1",
        );
        let query = query
            .bind(old_hash.as_slice())
            .bind(new.key_hash.as_slice())
            .bind(new.organization_id)
            .bind(&new.organization_name)
            .bind(&new.tier)
            .bind(new.created_at_us);
        let done = self.run(Statement::Update, query.execute(&mut *self.connection().await?)).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether rows want processing, how many processes there are, and when the next delivery is due.
    pub(super) async fn look(
        &self,
        lease_expired_us: i64,
        counts_processes: bool,
    ) -> Result<(Seen, Option<i64>), StoreError> {
        // Each process has one connection that listens.
        let query = sqlx::query_as::<_, (bool, Option<i64>, Option<i64>)>(
            "SELECT EXISTS (SELECT 1 FROM events WHERE status = 'received')
             OR EXISTS (SELECT 1 FROM events WHERE status = 'processing' AND processing_started_at < $1)
             OR EXISTS (SELECT 1 FROM events WHERE status = 'processing' AND processing_started_at > $2),
             (SELECT MIN(next_attempt_at) FROM deliveries),
             CASE WHEN $3 THEN (SELECT count(*) FROM pg_stat_activity
                                WHERE datname = current_database() AND application_name = $4) END",
        );
        let query = query.bind(lease_expired_us).bind(claim_us_max()).bind(counts_processes).bind(LISTENER);
        let found = self.run(Statement::Select, query.fetch_one(&mut *self.connection().await?)).await?;
        let processes = found.2.map(|count| u32::try_from(count).unwrap_or(u32::MAX).max(1));
        Ok((Seen { wanted: found.0, processes }, found.1))
    }

    pub(super) async fn depth(&self, lease_expired_us: i64) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar::<_, i64>(
            "SELECT (SELECT COUNT(*) FROM events WHERE status = 'received')
             + (SELECT COUNT(*) FROM events WHERE status = 'processing'
                AND (processing_started_at < $1 OR processing_started_at > $2))",
        );
        let query = query.bind(lease_expired_us).bind(claim_us_max());
        let rows = self.run(Statement::Count, query.fetch_one(&mut *self.connection().await?)).await?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }

    pub(super) async fn claim(&self, now_us: i64, lease_expired_us: i64, limit: i64) -> Result<Vec<Uuid>, StoreError> {
        // SKIP LOCKED: processes that claim at once each get other rows, and none waits. Expired claims come first: with
        // received rows before them they would wait for as long as events keep coming.
        let query = sqlx::query_scalar(
            "WITH expired AS MATERIALIZED (
                 SELECT id FROM events WHERE status = 'processing'
                 AND (processing_started_at < $2 OR processing_started_at > $4) ORDER BY processing_started_at LIMIT $3 FOR UPDATE SKIP LOCKED),
             received AS MATERIALIZED (
                 SELECT id FROM events WHERE status = 'received'
                 ORDER BY inserted_at LIMIT $3 - (SELECT count(*) FROM expired) FOR UPDATE SKIP LOCKED)
             UPDATE events SET status = 'processing', processing_started_at = $1
             WHERE id IN (SELECT id FROM expired UNION ALL SELECT id FROM received) RETURNING id",
        );
        let query = query.bind(now_us).bind(lease_expired_us).bind(limit).bind(claim_us_max());
        self.run(Statement::Update, query.fetch_all(&mut *self.connection().await?)).await
    }

    pub(super) async fn complete(&self, ids: &[Uuid], claimed_at_us: i64) -> Result<u64, StoreError> {
        let query = sqlx::query(
            "UPDATE events SET status = 'processed'
             WHERE id = ANY($1) AND status = 'processing' AND processing_started_at = $2",
        );
        let query = query.bind(ids).bind(claimed_at_us);
        let done = self.run(Statement::Update, query.execute(&mut *self.connection().await?)).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let query = sqlx::query_scalar::<_, i32>("SELECT 1");
        self.run(Statement::Select, query.fetch_one(&mut *self.connection().await?)).await?;
        Ok(())
    }

    /// Commits once, synced, and changes nothing.
    pub(super) async fn commit_nothing(&self) -> Result<(), StoreError> {
        // A record in the log for nobody, since a transaction that writes nothing is not synced.
        let query = sqlx::query("SELECT pg_logical_emit_message(true, 'millrace', '')");
        self.run(Statement::Other, query.execute(&mut *self.connection().await?)).await?;
        Ok(())
    }

    pub(super) async fn can_write(&self) -> Result<(), StoreError> {
        // No lock keeps all writers out, as in SQLite: who answers takes writes.
        self.ping().await
    }

    pub(super) async fn durability_settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        let query = sqlx::query_as(
            "SELECT name, setting FROM pg_settings
             WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'wal_sync_method') ORDER BY name",
        );
        self.run(Statement::Select, query.fetch_all(&mut *self.connection().await?)).await
    }

    pub(super) async fn announce(&self) -> Result<(), StoreError> {
        self.notices.announce().await
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn connection(&self) -> Result<Lease, StoreError> {
        self.counter.checked(self.pool.acquire().await).map(Lease)
    }

    /// Counts a statement, and gives up on a server that has vanished without closing its connections.
    async fn run<T>(
        &self,
        kind: Statement,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let bounded = async {
            match tokio::time::timeout(self.reply_timeout, statement).await {
                Ok(result) => result,
                Err(_) => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no reply in time"))),
            }
        };
        self.counter.run(kind, bounded).await
    }
}

/// A connection on loan from the pool. The pool asks each one that comes back for a sign of life, and waits for it without end:
/// four connections that stalled (a firewall has forgotten them, the machine behind them is gone) would be all that it has.
struct Lease(PoolConnection<Postgres>);

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let returning = self.0.return_to_pool();
        // Without a runtime the process is ending, and the connection ends with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Given up, it is closed and makes room for a new one.
                if tokio::time::timeout(REPLY_GRACE, returning).await.is_err() {
                    tracing::warn!("a connection to the database gives no sign of life and is closed");
                }
            });
        }
    }
}

fn cannot_open(database: String, cause: &dyn std::error::Error) -> StoreError {
    StoreError::Open {
        database,
        cause: cause.to_string(),
        remedy: "check that it runs, that the URL postgres://USER@HOST:PORT/NAME is right, and that this user may create tables there",
    }
}

fn stored_event(row: &PgRow) -> Result<(Cursor, StoredEvent), sqlx::Error> {
    let tx: &str = row.try_get(0)?;
    let tx = tx.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let event = Event {
        id: row.try_get(2)?,
        organization_id: row.try_get(3)?,
        event_type: row.try_get::<String, _>(4)?.into(),
        dedup_id: row.try_get::<Option<String>, _>(5)?.map(Into::into),
        payload: Bytes::from(row.try_get::<String, _>(6)?),
        created_at_us: row.try_get(8)?,
        followed: None,
    };
    let state = state_of(row.try_get(7)?)?;
    Ok((Cursor { tx, seq: row.try_get(1)? }, StoredEvent { event, state, persisted_at_us: row.try_get(9)? }))
}
