//! Target profiles: how to start, reach, inspect and stop a target, as a TOML file says it. `docs/target-profiles.md` is the manual.
//!
//! `build` reads one, `read` is the TOML below it and `text` what is filled in later; `launch` starts what it describes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reports::model;
use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::dialect::Dialect;

mod build;
mod command;
pub mod launch;
mod read;
mod text;

pub use self::launch::{LaunchError, Started};
pub use self::read::Mistake;
pub use self::text::{MissingValue, Text, Values};

/// Name of the file when a folder is given.
pub const FILE_NAME: &str = "profile.toml";

/// A target in one configuration.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Of the implementation: lower-case letters, digits, `.`, `-`, `_`.
    pub name: String,
    /// Of the configuration; `None`: the default one.
    pub label: Option<String>,
    /// A line for people.
    pub description: Option<String>,
    /// Ids of the rules of the contract that it claims to follow, in the contract's order; `None`: all.
    pub claims: Option<Vec<String>>,
    /// Folder of the file; commands run there.
    pub folder: PathBuf,
    /// How it is spoken to.
    pub dialect: Arc<Dialect>,
    /// To be run once before anything else.
    pub prepare: Option<Action>,
    /// To be run before each start.
    pub setup: Option<Action>,
    /// Starts it; `None`: it runs already.
    pub start: Option<Action>,
    /// How long it may take to become ready.
    pub ready_timeout: Duration,
    /// How it is told to end.
    pub stop_signal: Signal,
    /// How long it may take to end.
    pub stop_timeout: Duration,
    /// Where its data are.
    pub database: DatabaseKind,
    /// Its base URL.
    pub url: Text,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How to see what is persisted.
    pub persisted: Persisted,
    /// Whose CPU time and memory is its own.
    pub pids: Pids,
    prepared: Arc<OnceCell<()>>,
}

/// A command that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Program and arguments, not empty.
    pub command: Vec<Text>,
    /// Added to loadgen's own environment.
    pub environment: Vec<(String, Text)>,
    /// How long it may take; of a target that is started, nothing.
    pub timeout: Duration,
}

/// Where a target's data are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// Nobody says.
    None,
    /// In this file.
    Sqlite(Text),
    /// In a fresh PostgreSQL database.
    Postgres,
    /// In a fresh PostgreSQL database where the run has PostgreSQL, else in this file.
    Any(Text),
    /// In a PostgreSQL database of this URL, which is there already.
    Existing(Text),
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The target's route, once an organisation.
    Route,
    /// These, one an organisation.
    Static(Vec<Text>),
    /// This command, once an organisation.
    Command(Action),
    /// There are none.
    None,
}

/// How to see what is persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persisted {
    /// By the inbox.
    Inbox,
    /// By a query.
    Sql(String),
    /// Not at all.
    None,
}

/// Whose CPU time and memory is the target's, descendants included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pids {
    /// The process that was started.
    Child,
    /// Those in a file.
    File(Text),
    /// Those that a command prints.
    Command(Vec<Text>),
    /// Not known.
    None,
}

/// There is no profile to be had.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not there, or not readable.
    #[error("cannot read the profile {path}: {source}; give a profile's file, or a folder with a {FILE_NAME} in it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a profile.
    #[error("the profile {path} is not valid:{}", lines(.path, .mistakes))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From the first line to the last.
        mistakes: Vec<Mistake>,
    },
    /// No command line.
    #[error("'{command}' is no command: {problem}")]
    Command {
        /// As given.
        command: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn lines(path: &Path, mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("\n  {}, {mistake}", path.display())).collect()
}

impl Profile {
    /// Reads the profile in a file, or in the folder of one.
    ///
    /// # Errors
    /// When there is none, or with everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let unreadable = |source| ProfileError::Unreadable { path: path.clone(), source };
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        // Commands run in this folder, where a relative path of it would mean another one.
        let whole = std::path::absolute(&path).map_err(unreadable)?;
        Self::parse(&text, &path, whole.parent().unwrap_or(Path::new("/")))
    }

    /// Reads the text of one; `path` is for its errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, path: &Path, folder: &Path) -> Result<Self, ProfileError> {
        let invalid = |mistakes| ProfileError::Invalid { path: path.to_owned(), mistakes };
        build::profile(text, folder).map_err(invalid)
    }

    /// A target that follows the contract, started by a command line with the placeholders of `[start]`: split at white space, with quotes
    /// and backslashes as a shell has them. Its name is the command's program.
    ///
    /// # Errors
    /// When it is no command line.
    pub fn from_command(command: &str) -> Result<Self, ProfileError> {
        command::profile(command).map_err(|problem| ProfileError::Command { command: command.to_owned(), problem })
    }

    /// What results call it: the name, with the label if it has one.
    pub fn target_name(&self) -> String {
        match &self.label {
            Some(label) => format!("{}/{label}", self.name),
            None => self.name.clone(),
        }
    }

    /// What a plan says of it.
    pub fn variant(&self) -> model::Variant {
        model::Variant {
            name: self.target_name(),
            url: None,
            mode: None,
            polling: None,
            role: None,
            profile: Some(model::VariantProfile {
                name: self.name.clone(),
                label: self.label.clone(),
                description: self.description.clone(),
                claims: self.claims.clone(),
            }),
        }
    }

    /// Whether it claims to follow rule `id` of the contract.
    pub fn claims(&self, id: &str) -> bool {
        self.claims.as_ref().is_none_or(|claims| claims.iter().any(|claim| claim == id))
    }
}

#[cfg(test)]
mod tests;
