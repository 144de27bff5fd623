//! SQLite: webhooks and what is owed to them. Many ids or outcomes go into a statement as one JSON parameter.

use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

use super::{SqliteStore, json_ids, stored_event};
use crate::metrics::Statement;
use crate::store::deliveries::{Claimed, SigningSecret, Sorted, Webhook};
use crate::store::{StoreError, row_count};

type WebhookRow = (String, Vec<u8>, i64, Option<i64>);

fn webhook((url, secret, created_at_us, disabled_at_us): WebhookRow) -> Webhook {
    Webhook { url, secret: SigningSecret(secret), created_at_us, disabled_at_us }
}

impl SqliteStore {
    pub(in crate::store) async fn webhook(&self, organization_id: Uuid) -> Result<Option<Webhook>, StoreError> {
        let query = sqlx::query_as::<_, WebhookRow>(
            "SELECT url, secret, created_at, disabled_at FROM webhooks WHERE organization_id = ?1",
        );
        let query = query.bind(organization_id);
        let row = self.counter.run(Statement::Select, query.fetch_optional(&mut *self.reader().await?)).await?;
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
            "INSERT INTO webhooks (organization_id, url, secret, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (organization_id) DO UPDATE SET url = excluded.url, disabled_at = NULL
             RETURNING url, secret, created_at, disabled_at",
        );
        let query = query.bind(organization_id).bind(url).bind(secret.0.as_slice()).bind(now_us);
        let row = self.counter.run(Statement::Insert, query.fetch_one(&mut *self.writer().await?)).await?;
        Ok(webhook(row))
    }

    pub(in crate::store) async fn remove_webhook(&self, organization_id: Uuid) -> Result<bool, StoreError> {
        let query = sqlx::query("DELETE FROM webhooks WHERE organization_id = ?1").bind(organization_id);
        let done = self.counter.run(Statement::Delete, query.execute(&mut *self.writer().await?)).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(in crate::store) async fn disable_webhook(
        &self,
        organization_id: Uuid,
        url: &str,
        now_us: i64,
    ) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE webhooks SET disabled_at = ?3 WHERE organization_id = ?1 AND url = ?2");
        let query = query.bind(organization_id).bind(url).bind(now_us);
        self.counter.run(Statement::Update, query.execute(&mut *self.writer().await?)).await?;
        Ok(())
    }

    pub(in crate::store) async fn webhook_organizations(&self) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar("SELECT organization_id FROM webhooks");
        self.counter.run(Statement::Select, query.fetch_all(&mut *self.reader().await?)).await
    }

    pub(in crate::store) async fn organizations_due(&self, now_us: i64) -> Result<Vec<Uuid>, StoreError> {
        // From one organisation to the next through the index: a backlog of any length costs one step.
        let query = sqlx::query_scalar(
            "WITH RECURSIVE owed (organization_id) AS (
                 SELECT MIN(organization_id) FROM deliveries
                 UNION ALL
                 SELECT (SELECT MIN(d.organization_id) FROM deliveries d WHERE d.organization_id > owed.organization_id)
                 FROM owed WHERE owed.organization_id IS NOT NULL)
             SELECT organization_id FROM owed WHERE organization_id IS NOT NULL AND EXISTS (
                 SELECT 1 FROM deliveries d WHERE d.organization_id = owed.organization_id AND d.next_attempt_at <= ?1)",
        );
        let query = query.bind(now_us);
        self.counter.run(Statement::Select, query.fetch_all(&mut *self.reader().await?)).await
    }

    pub(in crate::store) async fn claim_deliveries(
        &self,
        turns: &[(Uuid, usize)],
        now_us: i64,
        lease_us: i64,
    ) -> Result<Vec<Claimed>, StoreError> {
        let mut ids: Vec<Uuid> = Vec::new();
        let mut transaction = self.begin().await?;
        for (organization_id, count) in turns {
            let query = sqlx::query_scalar(
                "UPDATE deliveries SET next_attempt_at = ?1 WHERE event_id IN (
                     SELECT event_id FROM deliveries WHERE organization_id = ?2 AND next_attempt_at <= ?3
                     ORDER BY next_attempt_at LIMIT ?4)
                 RETURNING event_id",
            );
            let query = query.bind(lease_us).bind(organization_id).bind(now_us).bind(row_count(*count));
            let claimed: Vec<Uuid> = self.counter.run(Statement::Update, query.fetch_all(&mut *transaction)).await?;
            ids.extend(claimed);
        }
        self.counter.run(Statement::Commit, transaction.commit()).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "SELECT e.seq, e.id, e.organization_id, e.event_type, e.dedup_id, e.payload, e.status, e.inserted_at,
                 e.persisted_at, d.attempts, w.url, w.secret
             FROM deliveries d JOIN events e ON e.id = d.event_id
             LEFT JOIN webhooks w ON w.organization_id = d.organization_id AND w.disabled_at IS NULL
             WHERE d.event_id IN (SELECT unhex(value) FROM json_each(?1)) AND d.next_attempt_at = ?2",
        );
        let query = query.bind(json_ids(&ids)).bind(lease_us);
        let rows = self.counter.run(Statement::Select, query.fetch_all(&mut *self.reader().await?)).await?;
        let claimed = rows.iter().map(|row| {
            let (_, stored) = stored_event(row)?;
            let (url, secret): (Option<String>, Option<Vec<u8>>) = (row.try_get(10)?, row.try_get(11)?);
            let webhook = url.zip(secret.map(SigningSecret));
            Ok(Claimed { stored, attempts: row.try_get(9)?, lease_us, webhook })
        });
        self.counter.checked(claimed.collect())
    }

    /// How many events became delivered now.
    pub(in crate::store) async fn record_deliveries(&self, sorted: &Sorted) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let delivered = self.record_delivered(&mut transaction, &sorted.delivered).await?;
        let dead: Vec<_> = sorted.dead.iter().map(|(id, lease)| (*id, *lease, 0, 0)).collect();
        let query = "DELETE FROM deliveries WHERE (event_id, next_attempt_at) IN (
                         SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)) RETURNING event_id";
        let gone = self.record_rows(&mut transaction, Statement::Delete, query, &dead).await?;
        self.set_status(&mut transaction, "dead_letter", &gone).await?;
        let query = "UPDATE deliveries SET attempts = o.attempts, next_attempt_at = o.due
                     FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS lease, value ->> 2 AS attempts, value ->> 3 AS due
                           FROM json_each(?1)) AS o
                     WHERE event_id = o.id AND next_attempt_at = o.lease RETURNING event_id";
        let put_off = self.record_rows(&mut transaction, Statement::Update, query, &sorted.put_off).await?;
        self.set_status(&mut transaction, "failed", &put_off).await?;
        let released: Vec<_> = sorted.released.iter().map(|(id, lease)| (*id, *lease, 0, 0)).collect();
        let query = "UPDATE deliveries SET next_attempt_at = 0 WHERE (event_id, next_attempt_at) IN (
                         SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)) RETURNING event_id";
        self.record_rows(&mut transaction, Statement::Update, query, &released).await?;
        self.counter.run(Statement::Commit, transaction.commit()).await?;
        Ok(delivered)
    }

    async fn record_delivered(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        ids: &[Uuid],
    ) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let query = sqlx::query("DELETE FROM deliveries WHERE event_id IN (SELECT unhex(value) FROM json_each(?1))");
        let query = query.bind(json_ids(ids));
        self.counter.run(Statement::Delete, query.execute(&mut **transaction)).await?;
        self.set_status(transaction, "delivered", ids).await
    }

    /// Runs a statement over `(event, lease, attempts, when due)`; the ids that it returns.
    async fn record_rows(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        kind: Statement,
        text: &'static str,
        rows: &[(Uuid, i64, u32, i64)],
    ) -> Result<Vec<Uuid>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<String> = rows
            .iter()
            .map(|(id, lease_us, attempts, at_us)| format!("[\"{}\",{lease_us},{attempts},{at_us}]", id.simple()))
            .collect();
        let query = sqlx::query_scalar(text).bind(format!("[{}]", rows.join(",")));
        self.counter.run(kind, query.fetch_all(&mut **transaction)).await
    }

    /// Sets the status of events that are not delivered; how many were changed.
    async fn set_status(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        status: &'static str,
        ids: &[Uuid],
    ) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let query = sqlx::query(
            "UPDATE events SET status = ?1 WHERE id IN (SELECT unhex(value) FROM json_each(?2))
             AND status NOT IN ('delivered', ?1)",
        );
        let query = query.bind(status).bind(json_ids(ids));
        let done = self.counter.run(Statement::Update, query.execute(&mut **transaction)).await?;
        Ok(done.rows_affected())
    }

    /// Whether the event was a dead letter with a webhook, and is due now.
    pub(in crate::store) async fn replay(
        &self,
        organization_id: Uuid,
        id: Uuid,
        now_us: i64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let query = sqlx::query(
            "UPDATE events SET status = 'failed' WHERE id = ?1 AND organization_id = ?2 AND status = 'dead_letter'
             AND EXISTS (SELECT 1 FROM webhooks WHERE organization_id = ?2 AND disabled_at IS NULL)",
        );
        let query = query.bind(id).bind(organization_id);
        let done = self.counter.run(Statement::Update, query.execute(&mut *transaction)).await?;
        if done.rows_affected() == 1 {
            let query = sqlx::query(
                "INSERT INTO deliveries (event_id, organization_id, next_attempt_at, attempts) VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT DO NOTHING",
            );
            let query = query.bind(id).bind(organization_id).bind(now_us);
            self.counter.run(Statement::Insert, query.execute(&mut *transaction)).await?;
        }
        self.counter.run(Statement::Commit, transaction.commit()).await?;
        Ok(done.rows_affected() == 1)
    }
}
