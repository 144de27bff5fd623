//! Every setting of the server: name, unit, default, range. One struct that is at once the flags, the environment variables and `--help`.
//!
//! Not here: what a setting does (that is at its module). Units are in the names; a value out of range is refused at start
//! with the flag, the value, the range and the remedy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// When an event is acknowledged. The table of modes stands in DESIGN.md and README.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Answer 202 and do nothing at all: the floor of the machine. Acknowledgements are worth nothing.
    Null,
    /// Acknowledge once the event is in the bounded pending buffer in memory; persist it in batches behind the answer.
    CacheFirst,
    /// Acknowledge once the event's row is committed.
    DbFirst,
}

/// When the processor looks for work. See [`crate::polling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Polling {
    /// The old way, kept to compare: a fixed interval, COUNT then SELECT.
    Fixed,
    /// Backs off while nothing comes: 100 ms doubling to 2 s, then 30 s ("deep idle").
    Adaptive,
    /// `adaptive`, and an arrival cuts the wait short.
    Wake,
}

/// Where events are persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// An SQLite file (created when missing).
    Sqlite(PathBuf),
    /// A PostgreSQL connection URL.
    Postgres(String),
}

/// A database setting that is neither `sqlite:PATH` nor `postgres://…`.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a database: give sqlite:PATH (a file, created when missing) or postgres://USER@HOST:PORT/NAME")]
pub struct UnknownDatabase(String);

impl FromStr for Database {
    type Err = UnknownDatabase;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//")) {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => Err(UnknownDatabase(text.to_owned())),
        }
    }
}

impl Database {
    /// `sqlite` or `postgres`: never the URL, which may hold a password.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}
