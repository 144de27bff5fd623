//! PostgreSQL: webhooks and what is owed to them. Each question is one statement, which commits by itself.

use sqlx::Row as _;
use uuid::Uuid;

use super::{PostgresStore, stored_event};
use crate::metrics::Statement;
use crate::store::deliveries::{Claimed, SigningSecret, Sorted, Webhook};
use crate::store::{StoreError, row_count};

type WebhookRow = (String, Vec<u8>, i64, Option<i64>);

fn webhook((url, secret, created_at_us, disabled_at_us): WebhookRow) -> Webhook {
    Webhook { url, secret: SigningSecret(secret), created_at_us, disabled_at_us }
}

impl PostgresStore {
    pub(in crate::store) async fn webhook(&self, organization_id: Uuid) -> Result<Option<Webhook>, StoreError> {
        let query = sqlx::query_as::<_, WebhookRow>(
            "SELECT url, secret, created_at, disabled_at FROM webhooks WHERE organization_id = $1",
        );
        let query = query.bind(organization_id);
        let row = self.run(Statement::Select, query.fetch_optional(&mut *self.connection().await?)).await?;
        Ok(row.map(webhook))
    }

    pub(in crate::store) async fn set_webhook(
        &self,
        organization_id: Uuid,
        url: &str,
        secret: &SigningSecret,
        now_us: i64,
    ) -> Result<Webhook, StoreError> {
        let query = sqlx::query_as::<_, WebhookRow>(
            "INSERT INTO webhooks (organization_id, url, secret, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (organization_id) DO UPDATE SET url = excluded.url, disabled_at = NULL
             RETURNING url, secret, created_at, disabled_at",
        );
        let query = query.bind(organization_id).bind(url).bind(secret.0.as_slice()).bind(now_us);
        let row = self.run(Statement::Insert, query.fetch_one(&mut *self.connection().await?)).await?;
        Ok(webhook(row))
    }

    pub(in crate::store) async fn remove_webhook(&self, organization_id: Uuid) -> Result<bool, StoreError> {
        let query = sqlx::query("DELETE FROM webhooks WHERE organization_id = $1").bind(organization_id);
        let done = self.run(Statement::Delete, query.execute(&mut *self.connection().await?)).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(in crate::store) async fn disable_webhook(
        &self,
        organization_id: Uuid,
        url: &str,
        now_us: i64,
    ) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE webhooks SET disabled_at = $3 WHERE organization_id = $1 AND url = $2");
        let query = query.bind(organization_id).bind(url).bind(now_us);
        self.run(Statement::Update, query.execute(&mut *self.connection().await?)).await?;
        Ok(())
    }

    pub(in crate::store) async fn webhook_organizations(&self) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar("SELECT organization_id FROM webhooks");
        self.run(Statement::Select, query.fetch_all(&mut *self.connection().await?)).await
    }

    pub(in crate::store) async fn organizations_due(&self, now_us: i64) -> Result<Vec<Uuid>, StoreError> {
        // From one organisation to the next through the index: a backlog of any length costs one step.
        let query = sqlx::query_scalar(
            "WITH RECURSIVE owed (organization_id) AS (
                 (SELECT organization_id FROM deliveries ORDER BY organization_id LIMIT 1)
                 UNION ALL
                 SELECT (SELECT d.organization_id FROM deliveries d WHERE d.organization_id > owed.organization_id
                         ORDER BY d.organization_id LIMIT 1)
                 FROM owed WHERE owed.organization_id IS NOT NULL)
             SELECT organization_id FROM owed WHERE organization_id IS NOT NULL AND EXISTS (
                 SELECT 1 FROM deliveries d WHERE d.organization_id = owed.organization_id AND d.next_attempt_at <= $1)",
        );
        let query = query.bind(now_us);
        self.run(Statement::Select, query.fetch_all(&mut *self.connection().await?)).await
    }

    pub(in crate::store) async fn claim_deliveries(
        &self,
        turns: &[(Uuid, usize)],
        now_us: i64,
        lease_us: i64,
    ) -> Result<Vec<Claimed>, StoreError> {
        let (organizations, counts): (Vec<Uuid>, Vec<i64>) =
            turns.iter().map(|(organization_id, count)| (*organization_id, row_count(*count))).unzip();
        // SKIP LOCKED: processes that claim at once each get other rows, and none waits.
        let query = sqlx::query(
            "WITH turns AS (SELECT * FROM UNNEST($1::uuid[], $2::bigint[]) AS turn (organization_id, places)),
             picked AS MATERIALIZED (
                 SELECT due.event_id FROM turns CROSS JOIN LATERAL (
                     SELECT d.event_id FROM deliveries d
                     WHERE d.organization_id = turns.organization_id AND d.next_attempt_at <= $3
                     ORDER BY d.next_attempt_at LIMIT turns.places FOR UPDATE SKIP LOCKED) AS due),
             claimed AS (
                 UPDATE deliveries SET next_attempt_at = $4 WHERE event_id IN (SELECT event_id FROM picked)
                 RETURNING event_id, organization_id, attempts)
             SELECT e.tx::text, e.seq, e.id, e.organization_id, e.event_type, e.dedup_id, e.payload, e.status, e.inserted_at,
                 e.persisted_at, claimed.attempts, w.url, w.secret
             FROM claimed JOIN events e ON e.id = claimed.event_id
             LEFT JOIN webhooks w ON w.organization_id = claimed.organization_id AND w.disabled_at IS NULL",
        );
        let query = query.bind(organizations).bind(counts).bind(now_us).bind(lease_us);
        let rows = self.run(Statement::Update, query.fetch_all(&mut *self.connection().await?)).await?;
        let claimed = rows.iter().map(|row| {
            let (_, stored) = stored_event(row)?;
            let (url, secret): (Option<String>, Option<Vec<u8>>) = (row.try_get(11)?, row.try_get(12)?);
            let attempts: i32 = row.try_get(10)?;
            let webhook = url.zip(secret.map(SigningSecret));
            Ok(Claimed { stored, attempts: attempts.unsigned_abs(), lease_us, webhook })
        });
        self.counter.checked(claimed.collect())
    }

    /// How many events became delivered now.
    pub(in crate::store) async fn record_deliveries(&self, sorted: &Sorted) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let mut delivered = 0;
        if !sorted.delivered.is_empty() {
            let query = sqlx::query(
                "WITH gone AS (DELETE FROM deliveries WHERE event_id = ANY($1))
                 UPDATE events SET status = 'delivered' WHERE id = ANY($1) AND status <> 'delivered'",
            );
            let query = query.bind(&sorted.delivered);
            delivered = self.run(Statement::Update, query.execute(&mut *connection)).await?.rows_affected();
        }
        // The ids as an array, as in the statement above and in the processor's: rows are locked in the order of one index.
        if !sorted.dead.is_empty() {
            let query = sqlx::query(
                "WITH gone AS (
                     DELETE FROM deliveries d USING UNNEST($1::uuid[], $2::bigint[]) AS o (id, lease)
                     WHERE d.event_id = o.id AND d.next_attempt_at = o.lease RETURNING d.event_id)
                 UPDATE events SET status = 'dead_letter'
                 WHERE id = ANY(ARRAY(SELECT event_id FROM gone)) AND status <> 'delivered'",
            );
            let (ids, leases): (Vec<Uuid>, Vec<i64>) = sorted.dead.iter().copied().unzip();
            self.run(Statement::Update, query.bind(ids).bind(leases).execute(&mut *connection)).await?;
        }
        if !sorted.put_off.is_empty() {
            let query = sqlx::query(
                "WITH put_off AS (
                     UPDATE deliveries d SET attempts = o.attempts, next_attempt_at = o.due
                     FROM UNNEST($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[]) AS o (id, lease, attempts, due)
                     WHERE d.event_id = o.id AND d.next_attempt_at = o.lease RETURNING d.event_id)
                 UPDATE events SET status = 'failed'
                 WHERE id = ANY(ARRAY(SELECT event_id FROM put_off)) AND status NOT IN ('delivered', 'failed')",
            );
            let rows = &sorted.put_off;
            let query = query
                .bind(rows.iter().map(|row| row.0).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| i32::try_from(row.2).unwrap_or(i32::MAX)).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.3).collect::<Vec<_>>());
            self.run(Statement::Update, query.execute(&mut *connection)).await?;
        }
        if !sorted.released.is_empty() {
            let query = sqlx::query(
                "UPDATE deliveries d SET next_attempt_at = 0 FROM UNNEST($1::uuid[], $2::bigint[]) AS o (id, lease)
                 WHERE d.event_id = o.id AND d.next_attempt_at = o.lease",
            );
            let (ids, leases): (Vec<Uuid>, Vec<i64>) = sorted.released.iter().copied().unzip();
            self.run(Statement::Update, query.bind(ids).bind(leases).execute(&mut *connection)).await?;
        }
        Ok(delivered)
    }

    /// Whether the event was a dead letter with a webhook, and is due now.
    pub(in crate::store) async fn replay(
        &self,
        organization_id: Uuid,
        id: Uuid,
        now_us: i64,
    ) -> Result<bool, StoreError> {
        let query = sqlx::query(
            "WITH raised AS (
                 UPDATE events SET status = 'failed' WHERE id = $1 AND organization_id = $2 AND status = 'dead_letter'
                 AND EXISTS (SELECT 1 FROM webhooks WHERE organization_id = $2 AND disabled_at IS NULL) RETURNING id)
             INSERT INTO deliveries (event_id, organization_id, next_attempt_at, attempts)
             SELECT id, $2, $3, 0 FROM raised ON CONFLICT DO NOTHING",
        );
        let query = query.bind(id).bind(organization_id).bind(now_us);
        let done = self.run(Statement::Update, query.execute(&mut *self.connection().await?)).await?;
        Ok(done.rows_affected() == 1)
    }
}
