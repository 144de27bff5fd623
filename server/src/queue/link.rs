//! Connections to one Redis, and what it says of itself.
//!
//! A [`Link`] is one connection that many requests share: what they ask at once goes out in one piece, and nobody waits for a turn. It is
//! opened when it is wanted; one that breaks, or does not answer in time, is dropped, and the next one who wants it opens another. While Redis is
//! away that is tried once in [`RETRY_WAIT`], and who comes in between is told at once.
//!
//! What an acknowledgement is worth is read from Redis whenever a link is opened (it may have been started again with other settings).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError,
    RedisResult, ScriptInvocation,
};
use tokio::time::Instant;

use crate::metrics::{Metrics, SettingLabels};
use crate::problem::Problem;

/// After a connection could not be opened, this long until it is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// Requests that may wait to be written; more wait before that.
const REQUESTS_WAITING_MAX: usize = 1024;
/// XAUTOCLAIM that leaves out what was deleted came with this version.
const VERSION_MIN: u32 = 7;
/// The settings on which it depends what an acknowledgement is worth, and whether Redis may throw away what it holds.
const SETTINGS: [&str; 5] = ["appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy"];

/// What Redis does with an event before it answers, from the least (rule I1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Holds it in memory, or does not say what more.
    Memory,
    /// Has it written to the operating system, or is about to.
    Os,
    /// The same, and syncs it within about two seconds.
    Everysec,
    /// Has synced it.
    Always,
}

impl Durability {
    const ALL: [Self; 4] = [Self::Memory, Self::Os, Self::Everysec, Self::Always];

    /// As an acknowledgement says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "redis-memory",
            Self::Os => "redis-os",
            Self::Everysec => "redis-everysec",
            Self::Always => "redis-always",
        }
    }

    /// What follows from the settings; the least where one is not known.
    fn of(settings: &HashMap<String, String>) -> Self {
        let is = |name: &str, value: &str| settings.get(name).is_some_and(|set| set == value);
        if !is("appendonly", "yes") {
            return Self::Memory;
        }
        // With it nothing is synced for as long as the file is being rewritten.
        let syncs = is("no-appendfsync-on-rewrite", "no");
        match settings.get("appendfsync").map(String::as_str) {
            Some("always") if syncs => Self::Always,
            Some("everysec") if syncs => Self::Everysec,
            Some(_) => Self::Os,
            None => Self::Memory,
        }
    }
}

/// Why Redis has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It cannot be reached, or cannot be used as it is: nothing was asked.
    #[error("{0}")]
    Away(String),
    /// It was asked and has not answered: whether it has done it is not known.
    #[error("no answer: {0}")]
    Unanswered(RedisError),
    /// It said no, and has done nothing.
    #[error("refused: {0}")]
    Refused(RedisError),
}

impl QueueError {
    /// Whether the consumer group is gone, or the whole stream.
    pub fn is_no_group(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("NOGROUP"))
    }

    /// What a sender is told of it.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Away(_) => Problem::QueueUnavailable,
            Self::Unanswered(_) => Problem::OutcomeUnknown,
            // Its memory is full, and it may throw nothing away.
            Self::Refused(error) if error.code() == Some("OOM") => Problem::Full,
            Self::Refused(_) => Problem::QueueUnavailable,
        }
    }
}

/// One Redis: how to reach it, and what all links know of it.
pub struct Redis {
    client: Client,
    /// How long an answer, or a connection, is waited for.
    pub timeout: Duration,
    metrics: Arc<Metrics>,
    durability: AtomicU8,
    is_away: AtomicBool,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Redis").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Redis {
    /// One that has not been asked anything. Fails when the URL is none of Redis.
    pub fn new(url: &str, timeout: Duration, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        // Without this a request may wait for the acknowledgement of what was sent before it.
        let prompt = |to: ConnectionInfo| to.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = url.into_connection_info().and_then(|to| Client::open(prompt(to)));
        let client = client.map_err(|error| QueueError::Away(error.to_string()))?;
        Ok(Self { client, timeout, metrics, durability: AtomicU8::new(0), is_away: AtomicBool::new(false) })
    }

    /// What an acknowledgement is worth, as far as Redis has said last.
    pub fn durability(&self) -> Durability {
        Durability::ALL[usize::from(self.durability.load(Ordering::Relaxed)) % Durability::ALL.len()]
    }

    /// Whether it did not answer when it was last asked.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    fn set_away(&self, cause: &str) {
        self.metrics.queue_available.set(0);
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                cause,
                "Redis does not answer; events are refused until it does, and what it holds stays there"
            );
        }
    }

    fn set_back(&self) {
        self.metrics.queue_available.set(1);
        if self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!(durability = self.durability().name(), "Redis answers again");
        }
    }

    /// Opens a connection whose answers come within `reply_timeout`, and has Redis say what it is.
    async fn connect(&self, reply_timeout: Duration) -> Result<(MultiplexedConnection, Arc<str>), QueueError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(reply_timeout))
            .set_pipeline_buffer_size(REQUESTS_WAITING_MAX);
        let away = |error: RedisError| QueueError::Away(error.to_string());
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(away)?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(away)?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let version = field("redis_version").unwrap_or_default();
        if version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u32| major < VERSION_MIN) {
            return Err(QueueError::Away(format!(
                "its version is '{version}', and {VERSION_MIN}.0 is the least: use a newer Redis"
            )));
        }
        let run = field("run_id").unwrap_or_default().into();
        self.read_settings(&mut connection).await?;
        Ok((connection, run))
    }

    /// Reads what an acknowledgement is worth. Refuses a Redis that throws away what it holds when its memory is full.
    async fn read_settings(&self, connection: &mut MultiplexedConnection) -> Result<(), QueueError> {
        let mut settings = HashMap::new();
        for name in SETTINGS {
            let asked: RedisResult<HashMap<String, String>> =
                redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
            match asked {
                Ok(found) => settings.extend(found),
                // Some who lend out a Redis do not let it be asked.
                Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => {}
                Err(error) => return Err(QueueError::Away(error.to_string())),
            }
        }
        let set = |name: &str| settings.get(name).map_or("unknown", String::as_str);
        if set("maxmemory") != "0" && !matches!(set("maxmemory-policy"), "noeviction" | "unknown") {
            let policy = set("maxmemory-policy");
            return Err(QueueError::Away(format!(
                "its maxmemory-policy is {policy}, so that it throws away what it holds when its memory is full, acknowledged events too: \
                 set maxmemory-policy noeviction"
            )));
        }
        let durability = Durability::of(&settings);
        let before = self.durability.swap(durability as u8, Ordering::Relaxed);
        let is_first =
            self.metrics.queue_settings.get_or_create(&SettingLabels::new("durability", durability.name())).set(1) == 0;
        if is_first || before != durability as u8 {
            self.metrics.queue_settings.clear();
            self.metrics.queue_settings.get_or_create(&SettingLabels::new("durability", durability.name())).set(1);
            for name in SETTINGS {
                self.metrics.queue_settings.get_or_create(&SettingLabels::new(name, set(name))).set(1);
            }
            let (appendonly, appendfsync) = (set("appendonly"), set("appendfsync"));
            tracing::info!(
                durability = durability.name(),
                appendonly,
                appendfsync,
                "what Redis says of its durability"
            );
            if appendonly == "unknown" {
                tracing::warn!(
                    "Redis does not let its settings be read (CONFIG GET), so acknowledgements say the least that they may be worth"
                );
            }
        }
        Ok(())
    }
}

/// An open connection, and which one it is.
#[derive(Clone)]
pub struct Opened {
    /// Cheap to clone, and shared.
    pub connection: MultiplexedConnection,
    /// Another one after each start of Redis.
    pub run: Arc<str>,
    number: u64,
}

/// See the module.
pub struct Link {
    redis: Arc<Redis>,
    reply_timeout: Duration,
    opened: Mutex<Option<Opened>>,
    /// Held by the one who opens the connection: until when nobody needs to try again.
    trying: tokio::sync::Mutex<Option<Instant>>,
    count: AtomicU64,
}

impl Link {
    /// A link that is not open; its answers may take until `reply_timeout`.
    pub fn new(redis: Arc<Redis>, reply_timeout: Duration) -> Self {
        Self {
            redis,
            reply_timeout,
            opened: Mutex::default(),
            trying: tokio::sync::Mutex::default(),
            count: AtomicU64::new(0),
        }
    }

    /// The connection, which is opened when it is not open.
    pub async fn open(&self) -> Result<Opened, QueueError> {
        if let Some(opened) = self.lock().clone() {
            return Ok(opened);
        }
        let mut trying = self.trying.lock().await;
        if let Some(opened) = self.lock().clone() {
            return Ok(opened);
        }
        if trying.is_some_and(|until| Instant::now() < until) {
            return Err(QueueError::Away("it was away a moment ago".into()));
        }
        // Of the connection and of each of the few questions after it.
        let connected = tokio::time::timeout(self.redis.timeout * 2, self.redis.connect(self.reply_timeout)).await;
        match connected.unwrap_or_else(|_elapsed| Err(QueueError::Away("no connection in time".into()))) {
            Ok((connection, run)) => {
                let opened = Opened { connection, run, number: self.count.fetch_add(1, Ordering::Relaxed) };
                *self.lock() = Some(opened.clone());
                *trying = None;
                self.redis.set_back();
                Ok(opened)
            }
            Err(error) => {
                *trying = Some(Instant::now() + RETRY_WAIT);
                self.redis.set_away(&error.to_string());
                Err(error)
            }
        }
    }

    /// Runs a script.
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, QueueError> {
        let mut opened = self.open().await?;
        let result = script.invoke_async(&mut opened.connection).await;
        self.judged(&opened, result)
    }

    /// Runs a command.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, QueueError> {
        let mut opened = self.open().await?;
        let result = command.query_async(&mut opened.connection).await;
        self.judged(&opened, result)
    }

    /// Reads again what an acknowledgement is worth.
    pub async fn read_settings(&self) -> Result<(), QueueError> {
        let mut opened = self.open().await?;
        self.redis.read_settings(&mut opened.connection).await
    }

    /// Drops a connection that has failed, and sorts the error.
    pub fn judged<T>(&self, opened: &Opened, result: RedisResult<T>) -> Result<T, QueueError> {
        let error = match result {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            return Err(QueueError::Refused(error));
        }
        self.discard(opened);
        self.redis.set_away(&error.to_string());
        Err(QueueError::Unanswered(error))
    }

    /// Closes this connection, unless another one is open by now.
    fn discard(&self, opened: &Opened) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| current.number == opened.number) {
            *current = None;
        }
    }

    /// Closes the connection.
    pub fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        // No code that holds the lock can panic, so what a poisoned lock guards is whole.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_worth_what_the_settings_say_and_the_least_where_they_do_not() {
        for (appendonly, appendfsync, no_sync_on_rewrite, expected) in [
            (Some("no"), Some("always"), Some("no"), "redis-memory"),
            (Some("yes"), Some("no"), Some("no"), "redis-os"),
            (Some("yes"), Some("everysec"), Some("no"), "redis-everysec"),
            (Some("yes"), Some("everysec"), Some("yes"), "redis-os"),
            (Some("yes"), Some("always"), Some("no"), "redis-always"),
            (Some("yes"), Some("always"), Some("yes"), "redis-os"),
            (Some("yes"), Some("always"), None, "redis-os"),
            (Some("yes"), None, Some("no"), "redis-memory"),
            (None, Some("always"), Some("no"), "redis-memory"),
            (None, None, None, "redis-memory"),
        ] {
            let settings = [
                ("appendonly", appendonly),
                ("appendfsync", appendfsync),
                ("no-appendfsync-on-rewrite", no_sync_on_rewrite),
            ];
            let settings = settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
            assert_eq!(Durability::of(&settings.collect()).name(), expected);
        }
    }
}
