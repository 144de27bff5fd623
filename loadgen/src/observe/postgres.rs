//! PostgreSQL seen from outside the server: statements counted by `pg_stat_statements`, the database's own processes, a fresh
//! database for each repetition, or one that was there before.
//!
//! One connection, opened before anything is counted. Its own statements all name `pg_stat_statements` or `pg_stat_activity` or run
//! outside the counted window, so they never count as the target's.

use reports::model::StatementCount;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

/// Statement texts are cut to this many characters.
const STATEMENT_CHARACTERS_MAX: i32 = 200;

/// A database made for one repetition, dropped by [`FreshDatabase::remove`]; or one that is only looked at.
#[derive(Debug)]
pub struct FreshDatabase {
    admin: PgConnection,
    name: String,
    is_fresh: bool,
    /// URL of the database.
    pub url: String,
    /// Whether `pg_stat_statements` counts here; else why not.
    pub statements: Result<(), String>,
}

/// What the server's PostgreSQL is and does could not be told.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// `--database` (or `[database] url`) does not parse.
    #[error(
        "--database (or [database] url of a profile) is not a PostgreSQL URL: {0}; give postgres://USER@HOST:PORT/NAME"
    )]
    Url(sqlx::Error),
    /// No connection.
    #[error(
        "no connection to PostgreSQL at --database (or [database] url): {0}; is it running, and may this user connect?"
    )]
    Connect(sqlx::Error),
    /// No database could be made.
    #[error("PostgreSQL refused to make a database for this run: {0}; the user of --database needs the right CREATEDB")]
    Create(sqlx::Error),
    /// Something later.
    #[error("PostgreSQL did not answer a question of the load generator: {0}")]
    Ask(#[from] sqlx::Error),
}

/// Statements of the database so far, by text.
#[derive(Clone, Debug, Default)]
pub struct StatementCounts(Vec<(i64, String, u64)>);

impl FreshDatabase {
    /// Makes database `name` (lower-case letters, digits, underscores) on the server of `url`.
    pub async fn create(url: &str, name: &str) -> Result<Self, PostgresError> {
        let options: PgConnectOptions = url.parse().map_err(PostgresError::Url)?;
        let mut admin = PgConnection::connect_with(&options).await.map_err(PostgresError::Connect)?;
        let create = AssertSqlSafe(format!(r#"CREATE DATABASE "{name}""#));
        admin.execute(create).await.map_err(PostgresError::Create)?;
        let statements = enable_statements(&mut admin).await.map_err(|error| error.to_string());
        Ok(Self { admin, name: name.to_owned(), is_fresh: true, url: with_database(url, name), statements })
    }

    /// The database of `url`, in which nothing is made or dropped.
    pub async fn attach(url: &str) -> Result<Self, PostgresError> {
        let options: PgConnectOptions = url.parse().map_err(PostgresError::Url)?;
        let mut admin = PgConnection::connect_with(&options).await.map_err(PostgresError::Connect)?;
        let name = admin.fetch_one("SELECT current_database()::text").await?.try_get(0)?;
        let counted = admin.execute("SELECT count(*) FROM pg_stat_statements").await;
        let statements = counted.map(drop).map_err(|error| error.to_string());
        Ok(Self { admin, name, is_fresh: false, url: url.to_owned(), statements })
    }

    /// Version of PostgreSQL, such as `15.18`.
    pub async fn version(&mut self) -> Result<String, PostgresError> {
        let row = self.admin.fetch_one("SELECT split_part(current_setting('server_version'), ' ', 1)").await?;
        Ok(row.try_get(0)?)
    }

    /// Calls of every statement run in the fresh database so far.
    pub async fn statement_counts(&mut self) -> Result<StatementCounts, PostgresError> {
        let query = sqlx::query(
            "SELECT queryid, left(query, $2), sum(calls)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
             WHERE d.datname = $1 AND toplevel AND ($3 OR query NOT LIKE '%pg_stat_%') GROUP BY 1, 2",
        );
        // In a database that is only looked at, our own statements are counted, too.
        let query = query.bind(&self.name).bind(STATEMENT_CHARACTERS_MAX).bind(self.is_fresh);
        let rows = query.fetch_all(&mut self.admin).await?;
        let counts = rows.iter().map(|row| {
            let calls: i64 = row.try_get(2)?;
            Ok((row.try_get(0)?, row.try_get(1)?, calls as u64))
        });
        Ok(StatementCounts(counts.collect::<Result<_, sqlx::Error>>()?))
    }

    /// Process ids of the whole PostgreSQL server (its backends and its background processes).
    pub async fn process_ids(&mut self) -> Result<Vec<u32>, PostgresError> {
        let rows = self.admin.fetch_all("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").await?;
        Ok(rows.iter().map(|row| row.try_get::<i32, _>(0).map(|pid| pid as u32)).collect::<Result<_, _>>()?)
    }

    /// Tables of the fresh database with this text anywhere in a row, as it is or as bytes.
    pub async fn tables_with(&self, text: &str) -> Result<Vec<String>, PostgresError> {
        let options: PgConnectOptions = self.url.parse().map_err(PostgresError::Url)?;
        let mut connection = PgConnection::connect_with(&options).await.map_err(PostgresError::Connect)?;
        let tables = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                      WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await?;
        let mut found = Vec::new();
        for table in tables {
            // A name as the catalogue itself quotes it.
            let query = format!(
                "SELECT count(*) FROM {table} t WHERE strpos(t::text, $1) > 0 OR strpos(t::text, encode($1::bytea, 'hex')) > 0"
            );
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(query)).bind(text).fetch_one(&mut connection).await?;
            if count > 0 {
                found.push(table);
            }
        }
        Ok(found)
    }

    /// Drops the database if it was made here, whoever is still connected to it.
    pub async fn remove(mut self) -> Result<(), PostgresError> {
        if !self.is_fresh {
            return Ok(());
        }
        let drop = AssertSqlSafe(format!(r#"DROP DATABASE IF EXISTS "{}" WITH (FORCE)"#, self.name));
        self.admin.execute(drop).await?;
        Ok(())
    }
}

async fn enable_statements(admin: &mut PgConnection) -> Result<(), sqlx::Error> {
    admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await?;
    admin.execute("SELECT count(*) FROM pg_stat_statements").await?;
    Ok(())
}

/// The URL with another database; parameters stay.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(address, rest)| (address, Some(rest)));
    let authority_at = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority_at..].find('/').map_or(address.len(), |at| authority_at + at);
    let parameters = parameters.map(|rest| format!("?{rest}")).unwrap_or_default();
    format!("{}/{name}{parameters}", &address[..end])
}

impl StatementCounts {
    /// Statements run since `earlier`, most frequent first.
    pub fn since(&self, earlier: &Self) -> Vec<StatementCount> {
        let before =
            |id: i64| earlier.0.iter().filter(|(other, ..)| *other == id).map(|(.., calls)| calls).sum::<u64>();
        let counts = self.0.iter().map(|(id, statement, calls)| StatementCount {
            statement: statement.split_whitespace().collect::<Vec<_>>().join(" "),
            calls: calls.saturating_sub(before(*id)),
        });
        let mut counts: Vec<_> = counts.filter(|count| count.calls > 0).collect();
        counts.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.statement.cmp(&b.statement)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        for (url, expected) in [
            ("postgres://u:p@h:5432/postgres", "postgres://u:p@h:5432/x"),
            ("postgres://u@h", "postgres://u@h/x"),
            ("postgres://u@h/a?host=/run/pg&port=1", "postgres://u@h/x?host=/run/pg&port=1"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }

    #[test]
    fn statements_are_counted_from_the_begin_of_the_window() {
        let before = StatementCounts(vec![(1, "SELECT 1".into(), 5), (2, "COMMIT".into(), 2)]);
        let after =
            StatementCounts(vec![(1, "SELECT 1".into(), 5), (2, "COMMIT".into(), 4), (3, "INSERT\n  x".into(), 9)]);
        let counted: Vec<_> = after.since(&before).into_iter().map(|count| (count.statement, count.calls)).collect();
        assert_eq!(counted, [("INSERT x".to_owned(), 9), ("COMMIT".to_owned(), 2)]);
    }
}
