//! Where a target is tested: a server that runs already, or processes of the reference server, each with what one group of rules needs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::door::Door;
use super::sheet::Stop;
use crate::observe::postgres::{FreshDatabase, PostgresError};
use crate::reference::{Launch, ReferenceError, ServerProcess};
use crate::target::TargetError;

/// What a target is.
#[derive(Clone, Debug)]
pub enum Subject {
    /// It runs already.
    Running {
        /// `http://HOST:PORT`.
        url: String,
    },
    /// The reference server, started for the test.
    Reference {
        /// `--mode`.
        mode: String,
        /// PostgreSQL to make databases on; `None`: SQLite.
        postgres_url: Option<String>,
        /// What is started; `None`: this executable.
        program: Option<PathBuf>,
        /// Beginning of the names of its databases: lower-case letters, digits, underscores.
        database_prefix: String,
    },
}

/// What some rules need a server of their own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: what it is when nobody says anything.
    Plain,
    /// Webhooks may lead to this machine, and are tried again soon.
    Webhooks,
    /// Few events may wait to be persisted.
    SmallBounds,
    /// Events are persisted late: at SIGTERM everything is pending still.
    LatePersisting,
}

/// No server to be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The URL.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The process.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Its database.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Its folder.
    #[error("no folder for the server's data: {0}")]
    Io(#[from] std::io::Error),
}

impl From<PlaceError> for Stop {
    fn from(error: PlaceError) -> Self {
        Self::Blocked(error.to_string())
    }
}

/// A server to ask. Dropping it kills what was started; [`Place::end`] leaves nothing behind.
#[derive(Debug)]
pub struct Place {
    /// How to ask it.
    pub door: Door,
    /// Of a server that was started here.
    pub own: Option<Own>,
}

/// A server process and its data.
#[derive(Debug)]
pub struct Own {
    /// The process.
    pub process: ServerProcess,
    /// Its data (SQLite, journal) and its log.
    pub folder: TempDir,
    /// Its PostgreSQL database.
    pub database: Option<FreshDatabase>,
    /// `--mode`.
    mode: String,
    program: Option<PathBuf>,
    need: Need,
}

/// Databases of this process so far: their names must differ.
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Subject {
    /// Whether it is started here.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Reference { .. })
    }

    /// What its acknowledgements are worth, where that is known beforehand.
    pub fn durability(&self) -> Option<&'static str> {
        match self {
            Self::Running { .. } => None,
            Self::Reference { mode, .. } => Some(match mode.as_str() {
                "journal-first" => "journal",
                "db-first" => "database",
                _ => "memory",
            }),
        }
    }

    /// A server with what is needed; `None` where it is not ours to start and something is needed.
    pub async fn place(&self, need: Need) -> Result<Option<Place>, PlaceError> {
        match self {
            Self::Running { url } if need == Need::Plain => Ok(Some(Place { door: Door::new(url)?, own: None })),
            Self::Running { .. } => Ok(None),
            Self::Reference { mode, postgres_url, program, database_prefix } => {
                let folder = tempfile::Builder::new().prefix("millrace-conform-").tempdir()?;
                let name = format!("{database_prefix}_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
                let database = match postgres_url {
                    Some(url) => Some(FreshDatabase::create(url, &name).await?),
                    None => None,
                };
                let location = location(&folder, database.as_ref());
                let launch = launch(mode, program.as_deref(), need, location, folder.path());
                match ServerProcess::listening(&launch).await {
                    Ok((process, url)) => {
                        let (mode, program) = (mode.clone(), program.clone());
                        let own = Own { process, folder, database, mode, program, need };
                        Ok(Some(Place { door: Door::new(&url)?, own: Some(own) }))
                    }
                    Err(error) => {
                        if let Some(database) = database {
                            // Why it did not start says more than why its database is still there.
                            let _ = database.remove().await;
                        }
                        Err(error.into())
                    }
                }
            }
        }
    }
}

impl Place {
    /// Ends the process at once and removes its data.
    pub async fn end(self) {
        let Some(mut own) = self.own else { return };
        // Nothing of it is looked at any more.
        let _ = own.process.kill().await;
        if let Some(database) = own.database {
            let _ = database.remove().await;
        }
    }
}

impl Own {
    /// Starts it once more on the same data, plainly; the process before must have ended.
    pub async fn start_again(&mut self) -> Result<Door, PlaceError> {
        let location = location(&self.folder, self.database.as_ref());
        let launch = launch(&self.mode, self.program.as_deref(), Need::Plain, location, self.folder.path());
        let (process, url) = ServerProcess::listening(&launch).await?;
        (self.process, self.need) = (process, Need::Plain);
        Ok(Door::new(&url)?)
    }

    /// Folder with everything that it writes itself.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn location(folder: &TempDir, database: Option<&FreshDatabase>) -> String {
    match database {
        Some(database) => database.url.clone(),
        None => format!("sqlite:{}", folder.path().join("events.db").display()),
    }
}

fn launch<'a>(mode: &'a str, program: Option<&'a Path>, need: Need, location: String, folder: &Path) -> Launch<'a> {
    // A minute's polling is later than any check looks.
    let (polling, flags): (_, &[&str]) = match need {
        Need::Plain => ("wake", &[]),
        Need::Webhooks => {
            ("wake", &["--webhook-private-addresses", "--webhook-wait-ms=120", "--webhook-wait-factor=2"])
        }
        Need::SmallBounds if mode == "db-first" => {
            ("wake", &["--writer-queue-events-max=1", "--writer-group-events-max=1"])
        }
        Need::SmallBounds => ("fixed", &["--pending-events-max=40", "--poll-interval-ms-fixed=1500"]),
        Need::LatePersisting => ("fixed", &["--poll-interval-ms-fixed=60000"]),
    };
    // The contract's own limit, in place of the one that a load is not to reach.
    let flags = flags.iter().chain(&["--rate-limit-enterprise-per-minute=100000"]);
    Launch {
        program,
        mode,
        polling,
        location,
        journal: folder.join("journal"),
        log: folder.join("server.log"),
        flags: flags.map(|flag| (*flag).to_owned()).collect(),
    }
}
