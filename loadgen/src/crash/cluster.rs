//! A PostgreSQL of one's own, made of the programs that are installed, in a folder; reached over a socket in a folder beside it, so that no
//! port is taken. It keeps PostgreSQL's own defaults for everything that durability hangs on.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Where Debian and its kin keep a folder for each version.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";
/// Whom root runs it as, since it refuses to be run by root: the first of these that there is.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];

/// See the module. Dropping it kills it.
#[derive(Debug)]
pub struct Cluster {
    binaries: PathBuf,
    /// On the disk that may be cut.
    data: PathBuf,
    /// Socket and log.
    beside: PathBuf,
    user: Option<User>,
    process: Option<Child>,
}

#[derive(Clone, Debug)]
struct User {
    name: &'static str,
    uid: u32,
    gid: u32,
}

/// No cluster to be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Not installed.
    #[error(
        "PostgreSQL is not installed: apt-get install postgresql, put its initdb and postgres on PATH, or give --database postgres://…"
    )]
    NotInstalled,
    /// Root, and nobody else.
    #[error("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")]
    NoUser,
    /// A program failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// The end of its log.
        said: String,
    },
    /// Folders, processes.
    #[error("cannot run PostgreSQL: {0}")]
    Io(#[from] io::Error),
    /// Asked something, it failed.
    #[error("PostgreSQL did not answer: {0}")]
    Ask(#[from] sqlx::Error),
}

impl Cluster {
    /// Makes one in `data` (must not be there yet), synced; it does not run yet.
    pub async fn make(data: &Path, beside: &Path) -> Result<Self, ClusterError> {
        let binaries = binaries().ok_or(ClusterError::NotInstalled)?;
        let user = if rustix::process::geteuid().is_root() { Some(unprivileged_user()?) } else { None };
        for folder in [data, beside] {
            fs::create_dir_all(folder)?;
            if let Some(user) = &user {
                chown(folder, Some(user.uid), Some(user.gid))?;
            }
        }
        let cluster = Self { binaries, data: data.to_owned(), beside: beside.to_owned(), user, process: None };
        let mut initdb = cluster.command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            "--pgdata",
        ]);
        let output = initdb.arg(data).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ClusterError::Program { program: "initdb", said });
        }
        Ok(cluster)
    }

    /// Where it is to be reached.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.beside.display())
    }

    /// Starts it and waits until it has recovered and answers.
    pub async fn start(&mut self) -> Result<(), ClusterError> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(&self.data).args(["-c", "listen_addresses="]);
        postgres.arg("-c").arg(format!("unix_socket_directories={}", self.beside.display()));
        let mut process = postgres.stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()?;
        let begin = Instant::now();
        loop {
            if process.try_wait()?.is_some() || begin.elapsed() > START_PATIENCE {
                return Err(ClusterError::Program { program: "postgres", said: self.log_end() });
            }
            if self.connect().await.is_ok() {
                self.process = Some(process);
                return Ok(());
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Its version, such as `15.18`.
    pub async fn version(&self) -> Result<String, ClusterError> {
        let mut connection = self.connect().await?;
        let row = connection.fetch_one("SELECT split_part(current_setting('server_version'), ' ', 1)").await?;
        Ok(row.try_get(0)?)
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url()).await
    }

    /// SIGKILL to it and to every process it started, as when the machine dies; forgets which processes there were, as a machine that
    /// starts again does.
    pub async fn die(&mut self) -> Result<(), ClusterError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let children = process.id().map(children_of).unwrap_or_default();
        process.kill().await?;
        for child in children.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
            // Most have seen their parent die and are gone.
            let _ = kill_process(child, Signal::KILL);
        }
        Ok(())
    }

    /// What a machine that was switched off does not have any more: processes, whose numbers others may have now.
    pub fn forget_processes(&self) -> io::Result<()> {
        match fs::remove_file(self.data.join("postmaster.pid")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends it properly.
    pub async fn stop(&mut self) -> Result<(), ClusterError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if let Some(pid) = process.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::INT);
        }
        if timeout(STOP_PATIENCE, process.wait()).await.is_err() {
            process.kill().await?;
        }
        Ok(())
    }

    /// A program of it, run by whoever may, and told to quit when this process is gone without having told it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if let Some(User { uid, gid, .. }) = &self.user {
            command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        command.arg("--").arg(self.binaries.join(program)).current_dir("/").stdin(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.beside.join("postgres.log")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let who = self.user.as_ref().map(|user| format!(" (run as {})", user.name)).unwrap_or_default();
        format!("its log{who} ends with:\n  {}", lines[lines.len().saturating_sub(5)..].join("\n  "))
    }
}

/// The newest of Debian's, else whatever PATH has.
fn binaries() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let versions = fs::read_dir(DEBIAN_VERSIONS).into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let mut found: Vec<(u32, PathBuf)> =
        versions.map(|(version, folder)| (version, folder.join("bin"))).filter(|(_, folder)| has_all(folder)).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.pop().map(|(_, folder)| folder).or_else(|| std::env::split_paths(&path).find(has_all))
}

fn unprivileged_user() -> Result<User, ClusterError> {
    let known = fs::read_to_string("/etc/passwd")?;
    let user = |name: &'static str| {
        let line = known.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut numbers = line.split(':').skip(1).map_while(|number| number.parse().ok());
        Some(User { name, uid: numbers.next()?, gid: numbers.next()? })
    };
    UNPRIVILEGED_USERS.into_iter().find_map(user).ok_or(ClusterError::NoUser)
}

/// Processes whose parent is `pid`, from `/proc`.
fn children_of(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|candidate| {
        let stat = fs::read_to_string(format!("/proc/{candidate}/stat")).unwrap_or_default();
        // The command may hold spaces and parentheses; state and parent come after the last one.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parent == Some(pid)
    })
    .collect()
}
