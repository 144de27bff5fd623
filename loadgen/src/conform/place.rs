//! Where a target is tested: a server that runs already, processes of the reference server, each with what one group of rules needs, or
//! what a profile describes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use reports::conform::Rule;
use tempfile::TempDir;

use super::door::Door;
use super::sheet::Stop;
use crate::dialect::Dialect;
use crate::observe::postgres::{FreshDatabase, PostgresError};
use crate::profile::launch::Surroundings;
use crate::profile::{LaunchError, Profile, Started};
use crate::reference::{Launch, ReferenceError, ServerProcess};
use crate::target::{Reach, TargetError};

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
    /// What a profile describes.
    Profile {
        /// The profile.
        profile: Arc<Profile>,
        /// PostgreSQL to make databases on.
        postgres_url: Option<String>,
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
    /// What a profile describes.
    #[error(transparent)]
    Profile(#[from] LaunchError),
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

/// A server that was started here, and its data.
#[derive(Debug)]
pub enum Own {
    /// The reference server.
    Reference(Box<Reference>),
    /// What a profile describes.
    Profile(Box<Started>),
}

/// A process of the reference server and its data.
#[derive(Debug)]
pub struct Reference {
    process: ServerProcess,
    folder: TempDir,
    database: Option<FreshDatabase>,
    mode: String,
    program: Option<PathBuf>,
}

/// Databases of this process so far: their names must differ.
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Subject {
    /// Whether it is started here.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Running { .. } => false,
            Self::Reference { .. } => true,
            Self::Profile { profile, .. } => profile.start.is_some(),
        }
    }

    /// Whether its settings are known: the reference server's, as it is started here.
    pub fn is_reference(&self) -> bool {
        matches!(self, Self::Reference { .. })
    }

    /// The rules that it claims to keep.
    pub fn claims(&self) -> Vec<Rule> {
        let claims = |rule: &Rule| match self {
            Self::Profile { profile, .. } => profile.claims(&rule.id()),
            _ => true,
        };
        Rule::ALL.into_iter().filter(claims).collect()
    }

    /// How it is spoken to.
    pub fn dialect(&self) -> Arc<Dialect> {
        match self {
            Self::Profile { profile, .. } => Arc::clone(&profile.dialect),
            _ => Arc::new(Dialect::contract()),
        }
    }

    /// What its acknowledgements are worth, where that is known beforehand.
    pub fn durability(&self) -> Option<&'static str> {
        match self {
            Self::Running { .. } | Self::Profile { .. } => None,
            Self::Reference { mode, .. } => Some(match mode.as_str() {
                "journal-first" => "journal",
                "db-first" => "database",
                _ => "memory",
            }),
        }
    }

    /// A server with what is needed; `None` where that is not ours to decide.
    pub async fn place(&self, need: Need) -> Result<Option<Place>, PlaceError> {
        match self {
            Self::Running { url } if need == Need::Plain => {
                Ok(Some(Place { door: Door::new(url, self.dialect())?, own: None }))
            }
            Self::Running { .. } => Ok(None),
            Self::Reference { .. } => self.reference(need).await.map(Some),
            // Its settings are its own; but it can be ended and started again.
            Self::Profile { .. } if !self.is_ours() && need != Need::Plain => Ok(None),
            Self::Profile { profile, postgres_url, database_prefix } => match need {
                Need::Webhooks | Need::SmallBounds => Ok(None),
                Need::Plain | Need::LatePersisting => {
                    let surroundings = Surroundings {
                        postgres_url: postgres_url.as_deref(),
                        database_name: database_name(database_prefix),
                        reach: Reach::default(),
                    };
                    let started = Started::start(profile, &surroundings).await?;
                    let door = Door::new(started.target.url(), self.dialect())?;
                    Ok(Some(Place { door, own: Some(Own::Profile(Box::new(started))) }))
                }
            },
        }
    }

    async fn reference(&self, need: Need) -> Result<Place, PlaceError> {
        let Self::Reference { mode, postgres_url, program, database_prefix } = self else {
            return Err(PlaceError::Io(std::io::Error::other("no reference server")));
        };
        let folder = tempfile::Builder::new().prefix("millrace-conform-").tempdir()?;
        let database = match postgres_url {
            Some(url) => Some(FreshDatabase::create(url, &database_name(database_prefix)).await?),
            None => None,
        };
        let location = location(&folder, database.as_ref());
        let launch = launch(mode, program.as_deref(), need, location, folder.path());
        match ServerProcess::listening(&launch).await {
            Ok((process, url)) => {
                let (mode, program) = (mode.clone(), program.clone());
                let own = Own::Reference(Box::new(Reference { process, folder, database, mode, program }));
                Ok(Place { door: Door::new(&url, self.dialect())?, own: Some(own) })
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

fn database_name(prefix: &str) -> String {
    format!("{prefix}_{}", DATABASES.fetch_add(1, Ordering::Relaxed))
}

impl Place {
    /// Ends the process and removes its data.
    pub async fn end(self) {
        match self.own {
            None => {}
            // Nothing of it is looked at any more; whether it ends well is O5's.
            Some(Own::Reference(mut own)) => {
                let _ = own.process.kill().await;
                if let Some(database) = own.database {
                    let _ = database.remove().await;
                }
            }
            Some(Own::Profile(started)) => {
                let _ = started.stop().await;
            }
        }
    }
}

impl Own {
    /// Tells it to end, and does not wait.
    pub fn ask_to_end(&self) {
        match self {
            Self::Reference(own) => own.process.ask_to_end(),
            Self::Profile(started) => started.ask_to_end(),
        }
    }

    /// Waits until it has ended as it was asked to. The inner error: it did not end well, and is gone all the same.
    pub async fn ended(&mut self) -> Result<Result<(), String>, PlaceError> {
        match self {
            Self::Reference(own) => Ok(own.process.ended().await?.map_err(|error| error.to_string())),
            Self::Profile(started) => Ok(match started.ended().await {
                Ok(Some(status)) if !status.success() => Err(status.to_string()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }),
        }
    }

    /// Starts it once more on the same data, plainly; the process before must have ended.
    pub async fn start_again(&mut self, dialect: Arc<Dialect>) -> Result<Door, PlaceError> {
        let url = match self {
            Self::Reference(own) => {
                let location = location(&own.folder, own.database.as_ref());
                let launch = launch(&own.mode, own.program.as_deref(), Need::Plain, location, own.folder.path());
                let (process, url) = ServerProcess::listening(&launch).await?;
                own.process = process;
                url
            }
            Self::Profile(started) => {
                started.start_again().await?;
                started.target.url().to_owned()
            }
        };
        Ok(Door::new(&url, dialect)?)
    }

    /// Folder with everything that it writes itself.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Reference(own) => own.folder.path(),
            Self::Profile(started) => started.folder(),
        }
    }

    /// Its PostgreSQL database.
    pub fn database(&self) -> Option<&FreshDatabase> {
        match self {
            Self::Reference(own) => own.database.as_ref(),
            Self::Profile(started) => started.database.as_ref(),
        }
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
        Need::Webhooks => ("wake", &["--webhook-private-addresses", "--webhook-wait-ms=60", "--webhook-wait-factor=3"]),
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
