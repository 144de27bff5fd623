//! Starts what a profile describes, on fresh data, waits until it is ready, and ends it; nothing of it stays behind.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{Action, DatabaseKind, KeySource, MissingValue, Persisted, Pids, Profile, Text, Values};
use crate::observe::postgres::{FreshDatabase, PostgresError};
use crate::observe::process;
use crate::observe::rows::{Rows, RowsError, Store};
use crate::reference::log_end;
use crate::target::{Reach, Target, TargetError};

/// Pause between two looks whether it is ready.
const READY_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Where free ports are looked for: below those that the system gives to outgoing connections, of which a load takes thousands.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORTS_TRIED_MAX: usize = 200;
/// What is killed is gone after this.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const OUTPUT_LINES_SHOWN: usize = 10;

/// A target that runs. Dropping it kills what was started; [`Started::stop`] ends it properly.
#[derive(Debug)]
pub struct Started {
    profile: Arc<Profile>,
    values: Values,
    folder: TempDir,
    process: Option<Process>,
    /// Ready to be loaded.
    pub target: Target,
    /// Its PostgreSQL database, whose statements are counted.
    pub database: Option<FreshDatabase>,
    rows: Option<Rows>,
}

/// A process that was started, the leader of a group of its own.
#[derive(Debug)]
struct Process {
    child: Child,
    group: Pid,
    log: PathBuf,
}

/// A target could not be started, reached or stopped as its profile says.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A placeholder stands for nothing.
    #[error(transparent)]
    Value(#[from] MissingValue),
    /// No folder, or no port.
    #[error("cannot start the target: {0}")]
    Io(#[from] io::Error),
    /// No such program.
    #[error("[{table}] cannot run {program}: {source}; is it there, and may it be executed?")]
    Program {
        /// Table of the profile.
        table: &'static str,
        /// As it was to be run.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A command ended badly.
    #[error("[{table}] command ended with {status}{output}")]
    Failed {
        /// Table of the profile.
        table: &'static str,
        /// How.
        status: ExitStatus,
        /// The end of what it printed, as the end of a sentence.
        output: String,
    },
    /// A command takes too long.
    #[error("[{table}] command did not end within {} s (timeout); it was killed", .timeout.as_secs_f64())]
    Slow {
        /// Table of the profile.
        table: &'static str,
        /// How long it had.
        timeout: Duration,
    },
    /// The run has no PostgreSQL.
    #[error(
        "[database] kind = \"postgres\": loadgen has no PostgreSQL to make a database on; give --database postgres://USER@HOST:PORT/NAME"
    )]
    NoPostgres,
    /// No database.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// It does not become ready.
    #[error("the target did not become ready ([ready]): {reason}{log}")]
    NotReady {
        /// What it did instead.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// It did not end when it was told to.
    #[error("the target did not end within {} s of its [stop] signal, and was killed; give it longer ([stop] timeout) or another [stop] signal (INT and QUIT are ignored by what a shell starts in the background){log}", .timeout.as_secs_f64())]
    NotStopped {
        /// How long it had.
        timeout: Duration,
        /// The end of its log.
        log: String,
    },
    /// It cannot be talked to.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// What it persisted cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A command printed no key.
    #[error("[key] command printed no key: its last line has to be one, without spaces")]
    NoKey,
}

/// What a start is given by the run.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// PostgreSQL server to make databases on.
    pub postgres_url: Option<&'a str>,
    /// Name for a fresh database: lower-case letters, digits, underscores.
    pub database_name: String,
    /// How the target is talked to.
    pub reach: Reach,
}

impl Profile {
    /// Whether it can only be started with a PostgreSQL server to make a database on.
    pub fn needs_postgres(&self) -> bool {
        self.database == DatabaseKind::Postgres
    }

    /// Runs `[prepare]`, once for this profile however often it is asked.
    ///
    /// # Errors
    /// When the command does not end well.
    pub async fn prepare(&self) -> Result<(), LaunchError> {
        let Some(action) = &self.prepare else { return Ok(()) };
        let prepared = self.prepared.get_or_try_init(async || {
            let mut values = Values::default();
            self.set_places(&mut values)?;
            self.run("prepare", action, &values).await.map(drop)
        });
        prepared.await.map(drop)
    }

    fn set_places(&self, values: &mut Values) -> Result<(), LaunchError> {
        values.set("profile", self.folder.display().to_string());
        values.set("loadgen", std::env::current_exe()?.display().to_string());
        Ok(())
    }

    /// Runs a command to its end; what it printed on its standard output.
    async fn run(&self, table: &'static str, action: &Action, values: &Values) -> Result<String, LaunchError> {
        let mut command = self.command_of(&action.command, &action.environment, values)?;
        let program = command.as_std().get_program().display().to_string();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|source| LaunchError::Program { table, program, source })?;
        let group = group_of(&child);
        match timeout(action.timeout, child.wait_with_output()).await {
            Ok(output) => {
                let output = output?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                if output.status.success() {
                    return Ok(text(&output.stdout));
                }
                let all = text(&output.stdout) + &text(&output.stderr);
                let lines: Vec<&str> = all.lines().collect();
                let end = lines[lines.len().saturating_sub(OUTPUT_LINES_SHOWN)..].join("\n  ");
                let output_end = if end.is_empty() { end } else { format!("; its output ends with:\n  {end}") };
                Err(LaunchError::Failed { table, status: output.status, output: output_end })
            }
            Err(_) => {
                // The command itself went with its future; what it started is in its group.
                kill_group(group);
                Err(LaunchError::Slow { table, timeout: action.timeout })
            }
        }
    }

    /// In the profile's folder, as the leader of a group that can be killed as a whole.
    fn command_of(
        &self,
        parts: &[Text],
        environment: &[(String, Text)],
        values: &Values,
    ) -> Result<Command, LaunchError> {
        let mut parts = parts.iter().map(|part| part.filled(values));
        let program = parts.next().transpose()?.unwrap_or_default();
        let program = if program.contains('/') { self.folder.join(program) } else { program.into() };
        let mut command = Command::new(program);
        command.args(parts.collect::<Result<Vec<_>, _>>()?);
        for (name, value) in environment {
            command.env(name, value.filled(values)?);
        }
        command.current_dir(&self.folder).process_group(0).kill_on_drop(true);
        Ok(command)
    }
}

impl Started {
    /// Prepares and starts it, and waits until it is ready. When that fails, nothing of it is left behind.
    ///
    /// # Errors
    /// Why it could not be had.
    pub async fn start(profile: &Arc<Profile>, surroundings: &Surroundings<'_>) -> Result<Self, LaunchError> {
        profile.prepare().await?;
        let folder = tempfile::Builder::new().prefix("millrace-").tempdir()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let mut values = Values::default();
        profile.set_places(&mut values)?;
        values.set("data", data.display().to_string());
        if profile.start.is_some() {
            values.set("port", free_port()?.to_string());
        }
        let (mut database, store) = open_database(profile, surroundings, &mut values).await?;
        let started = Self::start_on(profile, surroundings, &values, folder.path()).await;
        let rows = match (&profile.persisted, store) {
            (Persisted::Sql(query), Some(store)) => Some(Rows::new(store, query.clone())),
            _ => None,
        };
        let checked = match (started, &rows) {
            (Ok(started), Some(rows)) => rows.check().await.map(|()| started).map_err(LaunchError::from),
            (started, _) => started,
        };
        match checked {
            Ok((process, target)) => {
                Ok(Self { profile: Arc::clone(profile), values, folder, process, target, database, rows })
            }
            Err(error) => {
                if let Some(database) = database.take() {
                    // Why it did not start says more than why its database is still there.
                    let _ = database.remove().await;
                }
                Err(error)
            }
        }
    }

    async fn start_on(
        profile: &Profile,
        surroundings: &Surroundings<'_>,
        values: &Values,
        folder: &Path,
    ) -> Result<(Option<Process>, Target), LaunchError> {
        if let Some(setup) = &profile.setup {
            profile.run("setup", setup, values).await?;
        }
        let url = profile.url.filled(values)?;
        let target = Target::speaking(&url, &surroundings.reach, Arc::clone(&profile.dialect))?;
        let mut process = match &profile.start {
            Some(start) => Some(Process::start(profile, start, values, &folder.join("target.log"))?),
            None => None,
        };
        wait_until_ready(profile, &target, process.as_mut()).await?;
        Ok((process, target))
    }

    /// Keys of `count` organisations, or of as many as the profile has. `name` is of the run.
    ///
    /// # Errors
    /// When one could not be had.
    pub async fn keys(&self, count: u32, name: &str) -> Result<Vec<String>, LaunchError> {
        let mut keys = Vec::new();
        match &self.profile.keys {
            KeySource::Static(all) => {
                for key in all {
                    keys.push(key.filled(&self.values)?);
                }
            }
            KeySource::Route => {
                for organization in 1..=count {
                    keys.push(self.target.generate_key(&format!("{name} {organization}")).await?);
                }
            }
            KeySource::Command(action) => {
                for organization in 1..=count {
                    let mut values = self.values.clone();
                    values.set("organization", format!("{name} {organization}"));
                    values.set("url", self.target.url());
                    let output = self.profile.run("key", action, &values).await?;
                    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
                    if last.is_empty() || !last.bytes().all(|byte| byte.is_ascii_graphic()) {
                        return Err(LaunchError::NoKey);
                    }
                    keys.push(last.to_owned());
                }
            }
            // Nothing is sent of it.
            KeySource::None => keys.push(String::new()),
        }
        Ok(keys)
    }

    /// What describes it.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Folder of its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its rows are read, if that is how it shows what it persisted.
    pub fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    /// Processes whose CPU time and memory are its own, together with those of their descendants; none: not known.
    ///
    /// # Errors
    /// When its profile says how to find them, and they are not found.
    pub async fn process_ids(&self) -> Result<Vec<u32>, LaunchError> {
        let numbers = |text: String| text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match &self.profile.pids {
            Pids::Child => Ok(self.process.iter().filter_map(|process| process.child.id()).collect()),
            Pids::File(file) => Ok(numbers(std::fs::read_to_string(file.filled(&self.values)?)?)),
            Pids::Command(command) => {
                let action = Action { command: command.clone(), environment: Vec::new(), timeout: KILL_PATIENCE };
                self.profile.run("process", &action, &self.values).await.map(numbers)
            }
            Pids::None => Ok(Vec::new()),
        }
    }

    /// Sends it the signal that it is to end with, and does not wait.
    pub fn ask_to_end(&self) {
        if let Some(process) = self.process.as_ref().filter(|process| process.child.id().is_some()) {
            let _ = kill_process(process.group, self.profile.stop_signal);
        }
    }

    /// Waits until it has ended as it was asked to; how. What it started and left is killed then, and so is itself when it takes too long.
    ///
    /// # Errors
    /// When it took too long; it is gone all the same.
    pub async fn ended(&mut self) -> Result<Option<ExitStatus>, LaunchError> {
        match self.process.take() {
            Some(process) => process.ended(&self.profile).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts it once more on its data, and waits until it is ready. The process before must have ended.
    ///
    /// # Errors
    /// Why it could not be had.
    pub async fn start_again(&mut self) -> Result<(), LaunchError> {
        let Some(start) = &self.profile.start else { return Ok(()) };
        let log = self.folder.path().join("target.log");
        let process = self.process.insert(Process::start(&self.profile, start, &self.values, &log)?);
        wait_until_ready(&self.profile, &self.target, Some(process)).await
    }

    /// Ends it as its profile says, and removes its data.
    ///
    /// # Errors
    /// When it did not end by itself; it is gone all the same.
    pub async fn stop(mut self) -> Result<(), LaunchError> {
        let ended = match self.process.take() {
            Some(process) => process.stop(&self.profile).await,
            None => Ok(()),
        };
        if let Some(database) = self.database.take() {
            database.remove().await?;
        }
        ended
    }
}

impl Process {
    fn start(profile: &Profile, start: &Action, values: &Values, log: &Path) -> Result<Self, LaunchError> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = profile.command_of(&start.command, &start.environment, values)?;
        let program = command.as_std().get_program().display().to_string();
        // A pipe that ends with loadgen, for servers that end with their standard input.
        let command = command.stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        let table = "start";
        let child = command.spawn().map_err(|source| LaunchError::Program { table, program, source })?;
        let group = group_of(&child).ok_or_else(|| io::Error::other("the target has no process id"))?;
        Ok(Self { child, group, log: log.to_owned() })
    }

    async fn stop(self, profile: &Profile) -> Result<(), LaunchError> {
        if self.child.id().is_some() {
            let _ = kill_process(self.group, profile.stop_signal);
        }
        self.ended(profile).await.map(drop)
    }

    async fn ended(mut self, profile: &Profile) -> Result<ExitStatus, LaunchError> {
        let ended = timeout(profile.stop_timeout, self.child.wait()).await;
        let log = log_end(&self.log);
        // With all that it started and left.
        kill_group(Some(self.group));
        match ended {
            Ok(status) => status.map_err(LaunchError::Io),
            Err(_) => {
                let _ = timeout(KILL_PATIENCE, self.child.wait()).await;
                Err(LaunchError::NotStopped { timeout: profile.stop_timeout, log })
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_group(Some(self.group));
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| Pid::from_raw(pid as i32))
}

/// Kills a group if anybody is in it: the number of an empty one may be somebody else's by now.
fn kill_group(group: Option<Pid>) {
    if let Some(group) = group.filter(|group| process::is_group(group.as_raw_nonzero().get() as u32)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

async fn wait_until_ready(
    profile: &Profile,
    target: &Target,
    mut process: Option<&mut Process>,
) -> Result<(), LaunchError> {
    let log = |process: Option<&mut Process>| process.map_or_else(String::new, |process| log_end(&process.log));
    let looking = async {
        while !target.is_ready().await {
            let ended = process.as_deref_mut().map(|process| process.child.try_wait()).transpose()?.flatten();
            if ended.is_some() {
                return Ok(ended);
            }
            sleep(READY_LOOK_EVERY).await;
        }
        Ok::<_, io::Error>(None)
    };
    let reason = match timeout(profile.ready_timeout, looking).await {
        Ok(ended) => match ended? {
            None => return Ok(()),
            Some(status) => format!("it ended with {status}"),
        },
        Err(_) => {
            let wanted = profile.dialect.ready.path.as_deref().unwrap_or("a connection");
            format!("no good answer to {wanted} at {} within {} s", target.url(), profile.ready_timeout.as_secs_f64())
        }
    };
    Err(LaunchError::NotReady { reason, log: log(process) })
}

/// Makes or finds the database, and says where rows are.
async fn open_database(
    profile: &Profile,
    surroundings: &Surroundings<'_>,
    values: &mut Values,
) -> Result<(Option<FreshDatabase>, Option<Store>), LaunchError> {
    let file = match (&profile.database, surroundings.postgres_url) {
        (DatabaseKind::None, _) => return Ok((None, None)),
        (DatabaseKind::Existing(url), _) => {
            let database = FreshDatabase::attach(&url.filled(values)?).await?;
            set_parts(&database.url, values);
            let store = Store::Postgres(database.url.clone());
            return Ok((Some(database), Some(store)));
        }
        (DatabaseKind::Postgres | DatabaseKind::Any(_), Some(url)) => {
            let database = FreshDatabase::create(url, &surroundings.database_name).await?;
            set_parts(&database.url, values);
            let store = Store::Postgres(database.url.clone());
            return Ok((Some(database), Some(store)));
        }
        (DatabaseKind::Postgres, None) => return Err(LaunchError::NoPostgres),
        (DatabaseKind::Sqlite(file), _) | (DatabaseKind::Any(file), None) => file.filled(values)?,
    };
    values.set("database_url", format!("sqlite:{file}"));
    values.set("database_file", file.clone());
    Ok((None, Some(Store::Sqlite(file.into()))))
}

/// The parts of a PostgreSQL URL. What it leaves out is what PostgreSQL itself would take.
fn set_parts(url: &str, values: &mut Values) {
    values.set("database_url", url);
    let Ok(parsed) = url.parse::<Url>() else { return };
    let parameter = |name: &str| parsed.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let host = parameter("host").or_else(|| parsed.host_str().filter(|host| !host.is_empty()).map(str::to_owned));
    let port = parameter("port").or_else(|| parsed.port().map(|port| port.to_string()));
    values.set("database_user", if parsed.username().is_empty() { "postgres" } else { parsed.username() });
    values.set("database_password", parsed.password().unwrap_or_default());
    values.set("database_host", host.unwrap_or_else(|| "localhost".to_owned()));
    values.set("database_port", port.unwrap_or_else(|| "5432".to_owned()));
    values.set("database_name", parsed.path().trim_start_matches('/'));
}

fn free_port() -> io::Result<u16> {
    let mut random = rand::rng();
    let tries = (0..PORTS_TRIED_MAX).map(|_| random.random_range(PORTS));
    let mut free = tries.filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().ok_or_else(|| io::Error::other(format!("no free port from {} to {}", PORTS.start, PORTS.end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_by_its_parts() {
        for (url, expected) in [
            ("postgres://u:p@h:99/x", ["u", "p", "h", "99", "x"]),
            ("postgres://h/x", ["postgres", "", "h", "5432", "x"]),
            ("postgres://u@localhost/x?host=/run/pg&port=7", ["u", "", "/run/pg", "7", "x"]),
        ] {
            let mut values = Values::default();
            set_parts(url, &mut values);
            let parts = ["user", "password", "host", "port", "name"];
            let parts = parts.map(|part| Text::new(format!("{{database_{part}}}")).filled(&values).expect(part));
            assert_eq!(parts, expected, "{url}");
            assert_eq!(Text::new("{database_url}").filled(&values).expect("a URL"), url);
        }
    }
}
