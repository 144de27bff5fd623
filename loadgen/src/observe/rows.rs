//! What a target has persisted, read from its database by a query of its profile: PostgreSQL or SQLite, which columns it has is found out
//! from their names.
//!
//! A connection of its own each time, on which nothing can be written; none stays open while the target is watched.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{
    AssertSqlSafe, Column, ColumnIndex, Connection, Database, Decode, Executor, IntoArguments, Row, SqlSafeStr,
    Statement, Type,
};
use uuid::Uuid;

use crate::dialect::id_of;

/// What the columns of a query are known by.
pub const COLUMNS: [&str; 4] = ["id", "dedup_id", "payload", "persisted_at"];
/// One reading may take this long.
const READING_MAX: Duration = Duration::from_secs(120);
/// Pause between two looks for one row.
const FIND_EVERY: Duration = Duration::from_millis(10);

/// What the row of one event is known by: letters, digits, hyphens and dots.
#[derive(Clone, Debug)]
pub struct Needle {
    /// As sent.
    pub dedup_id: String,
    /// A part of its payload that no other event has.
    pub payload_part: String,
}

/// Where the rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A database of this URL.
    Postgres(String),
    /// A file.
    Sqlite(PathBuf),
}

/// The rows of a target.
#[derive(Clone, Debug)]
pub struct Rows {
    store: Store,
    query: String,
}

/// One of them. What a query does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistedRow {
    /// As [`id_of`] has it.
    pub id: Option<Uuid>,
    /// As stored.
    pub dedup_id: Option<String>,
    /// As stored, as text.
    pub payload: Option<String>,
    /// UTC.
    pub persisted_at: Option<jiff::Timestamp>,
}

/// The rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// No connection.
    #[error("no connection to the target's database: {0}")]
    Connect(sqlx::Error),
    /// The query is refused.
    #[error("[persisted] query was refused by the target's database: {0}")]
    Query(sqlx::Error),
    /// It has no column that says which event a row is.
    #[error(
        "[persisted] query returns {found}; one of its columns must be called dedup_id or payload, such as SELECT key AS dedup_id"
    )]
    Columns {
        /// Its columns.
        found: String,
    },
    /// It takes too long.
    #[error("[persisted] query did not end within {} s", READING_MAX.as_secs())]
    Slow,
}

impl Rows {
    /// What `query` returns from `store`.
    pub fn new(store: Store, query: String) -> Self {
        Self { store, query }
    }

    /// Whether the query is one that the database takes, and has the columns it needs.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), RowsError> {
        match &self.store {
            Store::Postgres(url) => columns(&mut postgres(url).await?, &self.query).await.map(drop),
            Store::Sqlite(file) => columns(&mut sqlite(file).await?, &self.query).await.map(drop),
        }
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// When nobody could tell.
    pub async fn count(&self) -> Result<u64, RowsError> {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM ({}) AS q", self.query));
        let counted: Result<i64, sqlx::Error> = match &self.store {
            Store::Postgres(url) => sqlx::query_scalar(count).fetch_one(&mut postgres(url).await?).await,
            Store::Sqlite(file) => sqlx::query_scalar(count).fetch_one(&mut sqlite(file).await?).await,
        };
        Ok(counted.map_err(RowsError::Query)?.unsigned_abs())
    }

    /// Looks for the row of one event until it is there, at most for `patience`; `None`: it did not come, or nobody could tell.
    pub async fn wait_for(&self, needle: &Needle, patience: Duration) -> Option<PersistedRow> {
        let waiting = async {
            match &self.store {
                Store::Postgres(url) => find(&mut postgres(url).await.ok()?, &self.query, text_postgres, needle).await,
                Store::Sqlite(file) => find(&mut sqlite(file).await.ok()?, &self.query, text_sqlite, needle).await,
            }
        };
        tokio::time::timeout(patience, waiting).await.ok()?
    }

    /// Shows all rows to `each`.
    ///
    /// # Errors
    /// When they could not be read to the end.
    pub async fn read(&self, mut each: impl FnMut(&PersistedRow)) -> Result<(), RowsError> {
        let reading = async {
            match &self.store {
                Store::Postgres(url) => {
                    read_all(&mut postgres(url).await?, &self.query, text_postgres, &mut each).await
                }
                Store::Sqlite(file) => read_all(&mut sqlite(file).await?, &self.query, text_sqlite, &mut each).await,
            }
        };
        tokio::time::timeout(READING_MAX, reading).await.unwrap_or(Err(RowsError::Slow))
    }
}

async fn postgres(url: &str) -> Result<PgConnection, RowsError> {
    let options: PgConnectOptions = url.parse().map_err(RowsError::Connect)?;
    let options = options.options([("default_transaction_read_only", "on"), ("TimeZone", "UTC")]);
    PgConnection::connect_with(&options).await.map_err(RowsError::Connect)
}

async fn sqlite(file: &PathBuf) -> Result<SqliteConnection, RowsError> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    SqliteConnection::connect_with(&options).await.map_err(RowsError::Connect)
}

/// A column as text; bytes as PostgreSQL writes them, `\x…`.
type AsText = fn(&str) -> String;

fn text_postgres(column: &str) -> String {
    format!(r#"q."{column}"::text"#)
}

fn text_sqlite(column: &str) -> String {
    format!(
        r#"CASE typeof(q."{column}") WHEN 'blob' THEN '\x' || hex(q."{column}") ELSE CAST(q."{column}" AS TEXT) END"#
    )
}

/// Which of [`COLUMNS`] the query has.
async fn columns<C>(connection: &mut C, query: &str) -> Result<Vec<&'static str>, RowsError>
where
    C: Connection,
    for<'c> &'c mut C: Executor<'c, Database = C::Database>,
{
    let statement = connection.prepare(AssertSqlSafe(query).into_sql_str()).await.map_err(RowsError::Query)?;
    let names: Vec<&str> = statement.columns().iter().map(Column::name).collect();
    let known: Vec<_> = COLUMNS.into_iter().filter(|column| names.contains(column)).collect();
    if !known.iter().any(|column| matches!(*column, "dedup_id" | "payload")) {
        let found = if names.is_empty() { "no columns".to_owned() } else { names.join(", ") };
        return Err(RowsError::Columns { found });
    }
    Ok(known)
}

async fn read_all<C>(
    connection: &mut C,
    query: &str,
    as_text: AsText,
    each: &mut impl FnMut(&PersistedRow),
) -> Result<(), RowsError>
where
    C: Connection,
    for<'c> &'c mut C: Executor<'c, Database = C::Database>,
    <C::Database as Database>::Arguments: IntoArguments<C::Database>,
    usize: ColumnIndex<<C::Database as Database>::Row>,
    for<'r> Option<String>: Decode<'r, C::Database> + Type<C::Database>,
{
    let known = columns(connection, query).await?;
    let whole = selection(&known, query, as_text);
    let mut rows = sqlx::query::<C::Database>(AssertSqlSafe(whole)).fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(RowsError::Query)? {
        each(&persisted_row(|index| row.try_get(index)).map_err(RowsError::Query)?);
    }
    Ok(())
}

async fn find<C>(connection: &mut C, query: &str, as_text: AsText, needle: &Needle) -> Option<PersistedRow>
where
    C: Connection,
    for<'c> &'c mut C: Executor<'c, Database = C::Database>,
    <C::Database as Database>::Arguments: IntoArguments<C::Database>,
    usize: ColumnIndex<<C::Database as Database>::Row>,
    for<'r> Option<String>: Decode<'r, C::Database> + Type<C::Database>,
{
    let known = columns(connection, query).await.ok()?;
    let condition = match known.contains(&"dedup_id") {
        true => format!("{} = '{}'", as_text("dedup_id"), needle.dedup_id),
        false => format!("{} LIKE '%{}%'", as_text("payload"), needle.payload_part),
    };
    let whole = format!("{} WHERE {condition} LIMIT 1", selection(&known, query, as_text));
    loop {
        let found = sqlx::query::<C::Database>(AssertSqlSafe(whole.as_str())).fetch_optional(&mut *connection).await;
        if let Some(row) = found.ok()? {
            return persisted_row(|index| row.try_get(index)).ok();
        }
        tokio::time::sleep(FIND_EVERY).await;
    }
}

/// All of [`COLUMNS`] as text, in their order, of what `query` returns.
fn selection(known: &[&str], query: &str, as_text: AsText) -> String {
    let text = |column: &&str| if known.contains(column) { as_text(column) } else { "NULL".to_owned() };
    format!("SELECT {} FROM ({query}) AS q", COLUMNS.iter().map(text).collect::<Vec<_>>().join(", "))
}

fn persisted_row<E>(text: impl Fn(usize) -> Result<Option<String>, E>) -> Result<PersistedRow, E> {
    Ok(PersistedRow {
        id: text(0)?.map(|id| id_of(&id_text(id))),
        dedup_id: text(1)?.map(unescaped),
        payload: text(2)?.map(unescaped),
        persisted_at: text(3)?.and_then(|at| instant(&at)),
    })
}

/// What `\x…` stands for; `None`: it is no such.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(r"\x")?;
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn unescaped(text: String) -> String {
    bytes(&text).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text)
}

/// The same of an id, which 16 bytes may be.
fn id_text(text: String) -> String {
    let uuid = bytes(&text).and_then(|bytes| Uuid::from_slice(&bytes).ok());
    uuid.map_or_else(|| unescaped(text), |uuid| uuid.to_string())
}

/// RFC 3339, or what databases make of it (without an offset: UTC), or a number of s, ms, µs or ns since 1970.
fn instant(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(number) = text.parse::<f64>() {
        // Each of these is later than 1973 in its own unit and after the year 5000 in the next larger one.
        let per_s = [(1e11, 1), (1e14, 1_000), (1e17, 1_000_000)].into_iter().find(|(below, _)| number.abs() < *below);
        let per_s = per_s.map_or(1_000_000_000, |(_, per_s)| per_s);
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction: i128 = format!("{fraction:0<9.9}").parse().ok()?;
        let ns_per_unit = 1_000_000_000 / per_s;
        let ns = whole.parse::<i128>().ok()? * ns_per_unit + fraction * ns_per_unit / 1_000_000_000;
        return jiff::Timestamp::from_nanosecond(ns).ok();
    }
    let utc = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| utc().map(|zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_however_a_store_writes_them() {
        let expected: jiff::Timestamp = "2026-11-24T08:18:52.123456Z".parse().expect("a time");
        let seconds = expected.as_second();
        for text in [
            "2026-11-24T08:18:52.123456Z".to_owned(),
            "2026-11-24 08:18:52.123456+00".to_owned(),
            "2026-11-24 10:18:52.123456+02:00".to_owned(),
            "2026-11-24 08:18:52.123456".to_owned(),
            "2026-11-24T08:18:52.123456".to_owned(),
            format!("{seconds}.123456"),
            format!("{seconds}123.456"),
            format!("{seconds}123456"),
            format!("{seconds}123456000"),
        ] {
            assert_eq!(instant(&text), Some(expected), "{text}");
        }
        assert_eq!(instant("yesterday"), None);
        assert_eq!(instant("1e9"), None, "no store writes that");
    }

    #[tokio::test]
    async fn rows_of_sqlite_are_read_whatever_their_types_and_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("events.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("a database");
        let uuid = Uuid::from_u128(7);
        let fill = sqlx::query(
            "INSERT INTO t VALUES (1, ?, 'd1', 1795508332.5), (2, ?, NULL, '2026-11-24 08:18:52.5'), (3, NULL, 'd3', NULL)",
        );
        connection.execute("CREATE TABLE t (id INTEGER, body BLOB, k TEXT, at)").await.expect("a table");
        fill.bind(uuid.as_bytes().as_slice()).bind("{\"a\":1}").execute(&mut connection).await.expect("rows");
        let read = async |query: &str| {
            let mut found = Vec::new();
            let rows = Rows::new(Store::Sqlite(file.clone()), query.to_owned());
            rows.read(|row| found.push(row.clone())).await.map(|()| found)
        };
        let rows = read("SELECT at AS persisted_at, k AS dedup_id, body AS payload, id FROM t ORDER BY id")
            .await
            .expect("rows");
        assert_eq!(rows.len(), 3);
        let counted = Rows::new(Store::Sqlite(file.clone()), "SELECT k AS dedup_id FROM t WHERE k <> ''".to_owned());
        assert_eq!(counted.count().await.expect("a count"), 2);
        assert_eq!(rows[0].id, Some(id_of("1")));
        assert_eq!(rows[1].payload.as_deref(), Some("{\"a\":1}"));
        assert_eq!(rows.iter().map(|row| row.dedup_id.as_deref()).collect::<Vec<_>>(), [Some("d1"), None, Some("d3")]);
        assert_eq!(rows[0].persisted_at, rows[1].persisted_at);
        assert!(rows[0].persisted_at.is_some() && rows[2].persisted_at.is_none());
        let ids = read("SELECT body AS id, k AS dedup_id FROM t WHERE id = 1").await.expect("a row");
        assert_eq!((ids[0].id, &ids[0].payload), (Some(uuid), &None));
        let error = read("SELECT id, k FROM t").await.expect_err("no column").to_string();
        assert!(error.contains("returns id, k; one of its columns must be called dedup_id or payload"), "{error}");
        let error = read("SELECT gone AS dedup_id FROM t").await.expect_err("no column").to_string();
        assert!(error.contains("refused") && error.contains("gone"), "{error}");
        let error = read("DELETE FROM t RETURNING k AS dedup_id").await.expect_err("read only").to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
