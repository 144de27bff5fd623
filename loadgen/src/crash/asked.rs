//! What `loadgen crash` is asked for: flags, and what they may be.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use reports::model::KillKind;

use crate::plan::limit::{self, Limit};
use crate::plan::scheme;
use crate::plan::spelling::Span;

/// Shortest and longest `--load-max`.
const LOAD_MAX_ALLOWED: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// `--kills`
const KILLS: Limit<u32> = Limit { min: 1, max: 10_000, unit: "kills" };
/// `--recovery-share`
const SHARE: Limit<f64> = Limit { min: 0.0, max: 1.0, unit: "of the kills" };
/// `--rate`
const RATE: Limit<f64> = Limit { min: 1.0, max: limit::RATE.max, unit: limit::RATE.unit };
/// `--image-mib`
const IMAGE: Limit<u32> = Limit { min: 512, max: 65_536, unit: "MiB" };

/// Headings of the flags in `--help`.
const KILLED: &str = "What is killed, and how";
const LOAD: &str = "Load";

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// Modes of the reference server: cache-first, journal-first, db-first [default: all that keep events]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',', help_heading = KILLED)]
    pub mode: Vec<String>,

    /// Databases: sqlite, postgres, postgres://USER@HOST:PORT/NAME
    ///
    /// postgres is a cluster of its own, made of the PostgreSQL that is installed; at a URL, with --kill process, a fresh database is made,
    /// and dropped
    #[arg(long, value_name = "DATABASE,…", value_delimiter = ',', default_value = "sqlite", help_heading = KILLED)]
    pub database: Vec<String>,

    /// What is killed: the server's process, or the power of the disk that its data are on (Linux, as root)
    #[arg(long, value_enum, default_value = "process", help_heading = KILLED)]
    pub kill: AskedKill,

    /// Kills under load, for each mode on each database, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = KILLS.within(), help_heading = KILLED)]
    pub kills: u32,

    /// Share of the kills, 0 to 1, after which it is killed once more while it recovers
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, value_parser = SHARE.within(), help_heading = KILLED)]
    pub recovery_share: f64,

    /// Events per second that are offered, 1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 2_000.0, value_parser = RATE.within(), help_heading = LOAD)]
    pub rate: f64,

    /// Each kill comes at a random moment up to so long after its load began, 50ms to 60s
    #[arg(long, value_name = "TIME", default_value = "700ms", help_heading = LOAD)]
    pub load_max: Span,

    /// Connections of the load, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = limit::CONNECTIONS.number(), help_heading = LOAD)]
    pub connections: u32,

    /// Size of each event's JSON payload in bytes, 37 to 262144
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = limit::PAYLOAD_BYTES.number(), help_heading = LOAD)]
    pub payload_bytes: u32,

    /// How long to wait after a restart for acknowledged events to be persisted, 0s to 24h
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = KILLED)]
    pub drain_timeout: Span,

    /// Polling policy of the server: fixed, adaptive or wake
    #[arg(long, value_name = "POLICY", default_value = "wake", help_heading = KILLED)]
    pub polling: String,

    /// Fault that the server shall have, to see it found (`loadgen serve --help` lists them); repeatable
    #[arg(long, value_name = "FAULT", help_heading = KILLED)]
    pub fault: Vec<String>,

    /// One more flag for the server, such as --server-flag=--journal-sync=os; repeatable
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true, help_heading = KILLED)]
    pub server_flag: Vec<String>,

    /// The server is made to lose (no sync, a fault): finding losses is a pass, finding none shows that the test cannot (exit 4)
    #[arg(long, help_heading = KILLED)]
    pub expect_losses: bool,

    /// Seed of the moments of the kills, the schedules and the payloads, a whole number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = limit::SEED.number(), help_heading = LOAD)]
    pub seed: u64,

    /// Folder in which the data folders are made, and with --kill power the disk images [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", help_heading = KILLED)]
    pub data_dir: Option<PathBuf>,

    /// Size of a disk image in MiB, 512 to 65536; only what is written takes space
    #[arg(long, value_name = "MIB", default_value_t = 2_048, value_parser = IMAGE.within(), help_heading = KILLED)]
    pub image_mib: u32,
}

/// `--kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AskedKill {
    /// SIGKILL to the server's process
    Process,
    /// The filesystem of its data is shut down without flushing anything, the processes are killed, the filesystem is mounted again
    Power,
}

impl AskedKill {
    /// As a result has it.
    pub fn kind(self) -> KillKind {
        match self {
            Self::Process => KillKind::Process,
            Self::Power => KillKind::Power,
        }
    }
}

/// Where a server keeps its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedStore {
    /// A file.
    Sqlite,
    /// A cluster of its own.
    Postgres,
    /// A database on a server that runs already.
    PostgresUrl(String),
}

impl AskedStore {
    /// In the name of a test.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::PostgresUrl(_) => "postgres URL",
        }
    }
}

impl Asked {
    /// The stores, or what is wrong with the flags that no parser looks at.
    pub fn checked(&self) -> Result<Vec<AskedStore>, String> {
        let (min, max) = LOAD_MAX_ALLOWED;
        if !(min..=max).contains(&self.load_max.0) {
            return Err(format!(
                "--load-max = {:?}: is out of range; allowed: {min:?} to {max:?}; choose a time in that range",
                self.load_max.0
            ));
        }
        if self.mode.iter().any(|mode| mode == "null") {
            return Err("--mode = null: keeps nothing that could be lost; leave it out".to_owned());
        }
        if let Some(folder) = self.data_dir.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(format!("--data-dir = {}: there is no such folder; make it first", folder.display()));
        }
        let mut stores = Vec::new();
        for text in &self.database {
            let store = self.store(text)?;
            if stores.contains(&store) {
                return Err(format!("--database = {}: is there twice; leave one out", store.name()));
            }
            stores.push(store);
        }
        Ok(stores)
    }

    fn store(&self, text: &str) -> Result<AskedStore, String> {
        match text {
            "sqlite" => Ok(AskedStore::Sqlite),
            "postgres" => Ok(AskedStore::Postgres),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => match self.kill {
                AskedKill::Process => Ok(AskedStore::PostgresUrl(url.to_owned())),
                AskedKill::Power => Err(
                    "--kill = power: does not go with a PostgreSQL that runs elsewhere, whose disk is not ours to cut; \
                                         give --database postgres for a cluster of its own"
                        .to_owned(),
                ),
            },
            other => Err(format!(
                "--database = {}: is no database that the reference server can be started on; allowed: sqlite, postgres, \
                 postgres://USER@HOST:PORT/NAME; give one or more of them",
                scheme(other)
            )),
        }
    }
}
