//! What to measure: the same keys as flags and in a TOML file, checked and with every default filled in.
//!
//! A flag wins over the file, the file over the default. The result is [`reports::model::Plan`], which every result carries.
//! [`asked`] has the keys, [`spelling`] how their values are written, [`limit`] what their numbers may be; `resolve` checks them,
//! `arriving` what says when events are due, `variants` what says what is measured, `profiled` whether targets with a profile can do it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use reports::model;

use crate::nearest::{nearest, nearest_path};
use crate::payload::Sizes;
use crate::profile::{Profile, ProfileError};
use crate::replay::{ReplayError, Timeline};
use crate::schedule::ScheduleSpec;
use crate::shard::{Shard, Share};
use crate::target::Reach;

mod arriving;
pub mod asked;
mod check;
pub mod limit;
mod profiled;
mod resolve;
mod sharded;
pub mod spelling;
mod variants;

pub use self::asked::{Asked, BUILT_IN};
pub use self::resolve::scheme;

/// A plan that can be followed, and what of it is not for the result: secrets, what was read from files, and where the database
/// really is.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// For the result, and for everyone who needs no secret.
    pub plan: model::Plan,
    /// Keys for a target that already runs, one an organisation; none: it is asked for them.
    pub keys: Vec<String>,
    /// PostgreSQL server to make databases on; `None`: SQLite.
    pub postgres_url: Option<String>,
    /// Profiles of the targets that have one, by the names of their variants.
    pub profiles: BTreeMap<String, Arc<Profile>>,
    /// The recording to replay.
    pub replay: Option<Arc<Timeline>>,
    /// Certificates (PEM) to trust beside the system's.
    pub tls_ca: Option<Vec<u8>>,
    /// The reference server, where it is not this program as it is.
    pub server: ServerBuild,
    /// Which part of the load is sent here, and when it begins; `None`: all of it, as soon as everything is ready.
    pub part: Option<Part>,
}

/// A part of a load that several generators offer together.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which of them.
    pub shard: Shard,
    /// When the steady phase begins on all of them.
    pub start_at: Timestamp,
}

/// A build of the reference server, and how it differs from what the plan says of it.
#[derive(Clone, Debug, Default)]
pub struct ServerBuild {
    /// Its program; `None`: this one.
    pub program: Option<PathBuf>,
    /// More flags; they come last.
    pub flags: Vec<String>,
}

impl Resolved {
    /// What the schedule of each repetition follows.
    pub fn schedule(&self) -> ScheduleSpec {
        ScheduleSpec::of(&self.plan, self.replay.as_ref())
    }

    /// Which requests of the schedule with this seed are sent here.
    pub fn share(&self, seed: u64) -> Share {
        self.part.map_or_else(Share::whole, |part| Share::of(part.shard, &self.plan, seed))
    }

    /// Connections that are opened here.
    pub fn connections(&self) -> u32 {
        self.part.map_or(self.plan.connections, |part| part.shard.connections(self.plan.connections))
    }

    /// Mean rate that is offered here, per second.
    pub fn rate_per_s(&self) -> f64 {
        self.part.map_or(self.plan.rate_per_s, |part| part.shard.rate_per_s(self.plan.rate_per_s))
    }

    /// Whether the target as a whole is looked at from here.
    pub fn watches_target(&self) -> bool {
        self.part.is_none_or(|part| part.shard.is_first())
    }

    /// How the targets are talked to.
    pub fn reach(&self) -> Reach {
        Reach {
            http2: self.plan.http == model::HttpVersion::Http2,
            streams: self.plan.streams as usize,
            tls_ca: self.tls_ca.clone(),
            tls_insecure: self.plan.tls_insecure,
        }
    }

    /// How large the payloads are of the repetition whose schedule has this seed.
    pub fn payload_sizes(&self, seed: u64) -> Sizes {
        Sizes::of(&self.plan, self.replay.as_ref().map(|timeline| (timeline, self.schedule().warmup_events(seed))))
    }
}

/// The plan cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No such file, or not readable.
    #[error("cannot read plan {path}: {source}; {}", remedy(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that the plan names is not there, or not readable.
    #[error("{key} = {path}: {source}; {}", remedy(path))]
    File {
        /// Flag, as typed.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a wrong type.
    #[error("plan {path} is not valid: {source}{}", meant(source))]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what (spans lines).
        source: Box<toml::de::Error>,
    },
    /// No built-in plan of that name.
    #[error("there is no built-in plan '{0}'; there are: {names}", names = BUILT_IN.map(|(name, _)| name).join(", "))]
    UnknownPlan(String),
    /// A value out of its range, or one that does not go with another.
    #[error("{key} = {value}: {problem}; {remedy}")]
    Value {
        /// Flag, as typed.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A target's profile that is none.
    #[error("--target: {0}")]
    Profile(#[from] ProfileError),
    /// An objective that does not parse.
    #[error("--slo: {0}")]
    Objective(#[from] reports::objective::ParseError),
    /// A recording that cannot be replayed.
    #[error("--replay: {0}")]
    Replay(#[from] ReplayError),
}

/// Of a key that no plan has, the one that was probably meant: the message names it first and those that there are after it.
fn meant(error: &toml::de::Error) -> String {
    let mut names = error.message().split('`').skip(1).step_by(2);
    let meant =
        names.next().filter(|_| error.message().starts_with("unknown field")).and_then(|key| nearest(key, names));
    meant.map_or_else(String::new, |known| format!("did you mean {known}?"))
}

fn remedy(path: &Path) -> String {
    nearest_path(path).map_or_else(|| "give a file that can be read".to_owned(), |near| format!("did you mean {near}?"))
}

#[cfg(test)]
mod tests;
