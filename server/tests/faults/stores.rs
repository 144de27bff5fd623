//! Databases of a test's own, and how they go away.

use std::path::Path;
use std::process::{Command, Output};

use server::config::Database;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::{Case, StoreKind, support};

/// A database of a test's own.
pub struct Place {
    /// As `--database` takes it.
    pub database: String,
    keeper: Keeper,
}

enum Keeper {
    /// An SQLite file in a temporary folder.
    Folder(#[expect(dead_code, reason = "held for its drop")] TempDir),
    /// A database of the PostgreSQL that all tests share.
    Shared(#[expect(dead_code, reason = "held for its drop")] support::Empty),
    /// A PostgreSQL that this test may stop.
    Cluster(Cluster),
}

impl Place {
    /// One that stays where it is.
    pub async fn new(case: Case) -> Self {
        match case.store {
            StoreKind::Sqlite => Self::file(),
            StoreKind::Postgres => {
                let empty = support::empty_postgres().await;
                let Database::Postgres(url) = &empty.database else { unreachable!("it is PostgreSQL") };
                Self { database: url.clone(), keeper: Keeper::Shared(empty) }
            }
        }
    }

    /// One that can be taken away.
    pub fn own(case: Case) -> Self {
        match case.store {
            StoreKind::Sqlite => Self::file(),
            StoreKind::Postgres => {
                let cluster = Cluster::start(&[]);
                Self { database: cluster.url.clone(), keeper: Keeper::Cluster(cluster) }
            }
        }
    }

    fn file() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            database: format!("sqlite:{}", folder.path().join("events.db").display()),
            keeper: Keeper::Folder(folder),
        }
    }

    /// The database answers nobody from here on: SQLite is locked by another connection, PostgreSQL is stopped.
    pub async fn goes_away(&self) -> Away<'_> {
        match &self.keeper {
            Keeper::Folder(_) => {
                let mut other = self.sqlite().await;
                sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut other).await.expect("the lock");
                Away::Locked(other)
            }
            Keeper::Cluster(cluster) => {
                cluster.stop();
                Away::Stopped(cluster)
            }
            Keeper::Shared(_) => unreachable!("the PostgreSQL of all tests stays up"),
        }
    }
}

impl Place {
    /// Changes rows behind the server's back.
    pub async fn run(&self, sql: String) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self.database.starts_with("sqlite:") {
            true => drop(sql.execute(&mut self.sqlite().await).await.expect("the SQL is right")),
            false => drop(sql.execute(&mut self.postgres().await).await.expect("the SQL is right")),
        }
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        match self.database.starts_with("sqlite:") {
            true => sqlx::query_scalar(sql).fetch_one(&mut self.sqlite().await).await,
            false => sqlx::query_scalar(sql).fetch_one(&mut self.postgres().await).await,
        }
        .expect("the SQL is right")
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnection::connect(&self.database).await.expect("a connection")
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.database).await.expect("a connection")
    }
}

/// A database that is away.
pub enum Away<'a> {
    Locked(SqliteConnection),
    Stopped(&'a Cluster),
}

impl Away<'_> {
    pub async fn comes_back(self) {
        match self {
            Self::Locked(mut other) => {
                sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("the lock is given back");
                other.close().await.expect("it closes");
            }
            Self::Stopped(cluster) => cluster.start_again(),
        }
    }
}

/// A PostgreSQL of this test's own.
pub struct Cluster {
    folder: TempDir,
    /// Words before the script, as in [`crate::process::Launch::under`].
    under: Vec<String>,
    pub url: String,
}

impl Cluster {
    pub fn start(under: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { folder, under: under.to_vec(), url: String::new() };
        cluster.url = cluster.script("start", &[]);
        cluster
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, command: &str, more: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
        let mut words = self.under.clone();
        words.extend([path(&script), command.to_owned(), path(self.folder.path())]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    fn script(&self, command: &str, more: &[&str]) -> String {
        let mut command = self.command(command, more);
        let Output { status, stdout, stderr } = command.output().expect("scripts/postgres runs");
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim().to_owned()
    }

    fn stop(&self) {
        self.script("stop", &[]);
    }

    fn start_again(&self) {
        let port = self.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).expect("a port").0;
        self.script("start", &[port]);
    }

    /// Runs SQL as its owner.
    pub async fn run(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.url).await.expect("a connection");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("the SQL is right");
        connection.close().await.expect("it closes");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.command("stop", &[]).output();
    }
}

/// As a word of a command line.
pub fn path(path: &Path) -> String {
    path.to_str().expect("a path of UTF-8").to_owned()
}
