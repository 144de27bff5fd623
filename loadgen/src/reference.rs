//! Starts the reference server for one repetition: a process of its own (this executable with `serve`), fresh data, stopped and
//! removed afterwards.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::observe::postgres::{FreshDatabase, PostgresError};

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Lines of the server's log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 5;

/// How to start it.
#[derive(Clone, Debug)]
pub struct Configuration<'a> {
    /// `--mode`.
    pub mode: &'a str,
    /// `--polling`.
    pub polling: &'a str,
    /// PostgreSQL server to make a database on; `None`: SQLite in a temporary folder.
    pub postgres_url: Option<&'a str>,
    /// Name for that database: lower-case letters, digits, underscores.
    pub database_name: String,
    /// More flags of the server, such as `--fault drop=0.01`; they come last.
    pub flags: Vec<String>,
}

/// A running reference server. Dropping it kills the process; [`Reference::stop`] ends it properly.
#[derive(Debug)]
pub struct Reference {
    child: Child,
    folder: TempDir,
    /// Where it listens.
    pub url: String,
    /// Its process id.
    pub pid: u32,
    /// Its PostgreSQL database, if that is where its data are.
    pub database: Option<FreshDatabase>,
}

/// It could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// No temporary folder, or this executable is gone.
    #[error("cannot start the reference server: {0}")]
    Io(#[from] std::io::Error),
    /// No database.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// It ended, or said nothing, before it listened.
    #[error("the reference server did not start: {reason}{log}")]
    NotListening {
        /// What it did instead.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// It did not end, or not well.
    #[error("the reference server did not stop as it should: {0}")]
    NotStopped(String),
}

impl Reference {
    /// Starts it and waits until it listens. When it does not, nothing of it is left behind.
    pub async fn start(configuration: &Configuration<'_>) -> Result<Self, ReferenceError> {
        let folder = tempfile::Builder::new().prefix("millrace-").tempdir()?;
        let database = match configuration.postgres_url {
            Some(url) => Some(FreshDatabase::create(url, &configuration.database_name).await?),
            None => None,
        };
        match listening(configuration, folder.path(), database.as_ref()).await {
            Ok((child, url)) => {
                let pid = child.id().unwrap_or_default();
                Ok(Self { child, folder, url, pid, database })
            }
            Err(error) => {
                if let Some(database) = database {
                    // Why it did not start says more than why its database is still there.
                    let _ = database.remove().await;
                }
                Err(error)
            }
        }
    }

    /// Folder of its data (SQLite) and its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGTERM, then waits until it has persisted what was pending and ended; removes its data.
    pub async fn stop(mut self) -> Result<(), ReferenceError> {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = timeout(STOP_PATIENCE, self.child.wait()).await;
        if ended.is_err() {
            self.child.kill().await?;
        }
        if let Some(database) = self.database.take() {
            database.remove().await?;
        }
        match ended {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => Err(ReferenceError::NotStopped(format!("{}{}", status?, log_end(self.folder.path())))),
            Err(_) => {
                Err(ReferenceError::NotStopped(format!("still running {} s after SIGTERM", STOP_PATIENCE.as_secs())))
            }
        }
    }
}

/// A server process that listens, and where. Dropped before that, it is killed.
async fn listening(
    configuration: &Configuration<'_>,
    folder: &Path,
    database: Option<&FreshDatabase>,
) -> Result<(Child, String), ReferenceError> {
    let location = match database {
        Some(database) => database.url.clone(),
        None => format!("sqlite:{}", folder.join("events.db").display()),
    };
    let log = std::fs::File::create(log_path(folder))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "--listen", "127.0.0.1:0", "--exit-with-stdin"])
        .args(["--mode", configuration.mode, "--polling", configuration.polling])
        // The limiter is on the measured path, with a limit that no run reaches.
        .args(["--rate-limit-enterprise-per-minute", "1000000000"])
        .args(&configuration.flags)
        // In the environment: a command line is for all to see, and the URL may hold a password.
        .env("INGEST_DATABASE", location)
        .env("INGEST_JOURNAL_DIR", folder.join("journal"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let url = listening_url(&mut child, folder).await?;
    Ok((child, url))
}

async fn listening_url(child: &mut Child, folder: &Path) -> Result<String, ReferenceError> {
    let not_listening = |reason: String| ReferenceError::NotListening { reason, log: log_end(folder) };
    let stdout = child.stdout.take().ok_or_else(|| not_listening("its output is closed".to_owned()))?;
    let mut line = String::new();
    match timeout(START_PATIENCE, BufReader::new(stdout).read_line(&mut line)).await {
        Err(_) => Err(not_listening(format!("it said nothing for {} s", START_PATIENCE.as_secs()))),
        Ok(Err(error)) => Err(not_listening(error.to_string())),
        Ok(Ok(0)) => Err(not_listening(format!("it ended with {}", child.wait().await?))),
        Ok(Ok(_)) => match line.trim().strip_prefix("listening on ") {
            Some(url) => Ok(url.to_owned()),
            None => Err(not_listening(format!("it said '{}'", line.trim()))),
        },
    }
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

fn log_end(folder: &Path) -> String {
    let log = std::fs::read_to_string(log_path(folder)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    if end.is_empty() { String::new() } else { format!("; its log ends with:\n  {}", end.join("\n  ")) }
}
