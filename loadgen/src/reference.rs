//! Starts the reference server for one repetition: a process of its own (this executable with `serve`), fresh data, stopped and
//! removed afterwards.

use std::fs::OpenOptions;
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
    process: ServerProcess,
    folder: TempDir,
    /// Where it listens.
    pub url: String,
    /// Its process id.
    pub pid: u32,
    /// Its PostgreSQL database, if that is where its data are.
    pub database: Option<FreshDatabase>,
}

/// How to start a process of it on data that somebody else looks after.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// What is started with `serve`; `None`: this executable.
    pub program: Option<&'a Path>,
    /// `--mode`.
    pub mode: &'a str,
    /// `--polling`.
    pub polling: &'a str,
    /// Where its data are, as `INGEST_DATABASE` has it.
    pub location: String,
    /// Folder of its journal, where the mode has one.
    pub journal: PathBuf,
    /// File that its log is added to.
    pub log: PathBuf,
    /// More flags; they come last.
    pub flags: Vec<String>,
}

/// A process of the reference server. Dropping it kills it.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    log: PathBuf,
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
        let location = match &database {
            Some(database) => database.url.clone(),
            None => format!("sqlite:{}", folder.path().join("events.db").display()),
        };
        let launch = Launch {
            program: None,
            mode: configuration.mode,
            polling: configuration.polling,
            location,
            journal: folder.path().join("journal"),
            log: folder.path().join("server.log"),
            flags: configuration.flags.clone(),
        };
        match ServerProcess::listening(&launch).await {
            Ok((process, url)) => {
                let pid = process.pid();
                Ok(Self { process, folder, url, pid, database })
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
        let ended = self.process.terminate().await?;
        if let Some(database) = self.database.take() {
            database.remove().await?;
        }
        ended
    }
}

impl ServerProcess {
    /// Starts it, and waits until it listens.
    pub async fn listening(launch: &Launch<'_>) -> Result<(Self, String), ReferenceError> {
        let mut process = Self::launch(launch)?;
        let url = process.listens().await?;
        Ok((process, url))
    }

    /// Starts it, and does not wait.
    pub fn launch(launch: &Launch<'_>) -> Result<Self, ReferenceError> {
        let log = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let program = launch.program.map_or_else(std::env::current_exe, |program| Ok(program.to_owned()))?;
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--exit-with-stdin"])
            .args(["--mode", launch.mode, "--polling", launch.polling])
            // The limiter is on the measured path, with a limit that no run reaches.
            .args(["--rate-limit-enterprise-per-minute", "1000000000"])
            .args(&launch.flags)
            // In the environment: a command line is for all to see, and the URL may hold a password.
            .env("INGEST_DATABASE", &launch.location)
            .env("INGEST_JOURNAL_DIR", &launch.journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, log: launch.log.clone() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Waits until it listens, and says where. Can be asked once.
    pub async fn listens(&mut self) -> Result<String, ReferenceError> {
        let stdout = self.child.stdout.take().ok_or_else(|| self.not_listening("its output is closed".to_owned()))?;
        let mut line = String::new();
        match timeout(START_PATIENCE, BufReader::new(stdout).read_line(&mut line)).await {
            Err(_) => Err(self.not_listening(format!("it said nothing for {} s", START_PATIENCE.as_secs()))),
            Ok(Err(error)) => Err(self.not_listening(error.to_string())),
            Ok(Ok(0)) => {
                let status = self.child.wait().await?;
                Err(self.not_listening(format!("it ended with {status}")))
            }
            Ok(Ok(_)) => match line.trim().strip_prefix("listening on ") {
                Some(url) => Ok(url.to_owned()),
                None => Err(self.not_listening(format!("it said '{}'", line.trim()))),
            },
        }
    }

    /// Whether it has, by itself.
    pub fn has_ended(&mut self) -> std::io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// The end of its log, as the end of a sentence.
    pub fn log_end(&self) -> String {
        log_end(&self.log)
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// SIGTERM, then waits until it has persisted what was pending and ended; kills it when it does not. The inner error: it ended
    /// otherwise than it should.
    pub async fn terminate(&mut self) -> Result<Result<(), ReferenceError>, ReferenceError> {
        self.ask_to_end();
        self.ended().await
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it has ended as it was asked to; as [`Self::terminate`].
    pub async fn ended(&mut self) -> Result<Result<(), ReferenceError>, ReferenceError> {
        let ended = timeout(STOP_PATIENCE, self.child.wait()).await;
        if ended.is_err() {
            self.child.kill().await?;
        }
        Ok(match ended {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => Err(ReferenceError::NotStopped(format!("{}{}", status?, log_end(&self.log)))),
            Err(_) => {
                Err(ReferenceError::NotStopped(format!("still running {} s after SIGTERM", STOP_PATIENCE.as_secs())))
            }
        })
    }

    fn not_listening(&self, reason: String) -> ReferenceError {
        ReferenceError::NotListening { reason, log: log_end(&self.log) }
    }
}

/// The last lines of a server's log, as the end of a sentence; nothing of an empty one.
pub fn log_end(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    if end.is_empty() { String::new() } else { format!("; its log ends with:\n  {}", end.join("\n  ")) }
}
