//! A Redis of a test's own, in a temporary folder and on a free port, which the test may stop, kill and start again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use tempfile::TempDir;

/// Ends with the test, and its data with it.
pub struct Redis {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// One that is ready. `settings` are words of its command line: `["--appendonly", "yes"]`.
    pub fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = settings.iter().map(|word| (*word).to_owned()).collect();
        let mut redis = Self { folder, port: 0, settings, child: None };
        for _ in 0..20 {
            // Free now, and nobody's by tomorrow: below the ports that the system gives to outgoing connections.
            redis.port = 10_000 + rand::random_range(0..22_000);
            if std::net::TcpListener::bind(("127.0.0.1", redis.port)).is_ok() && redis.try_start() {
                return redis;
            }
        }
        panic!("no Redis starts: is redis-server installed? scripts/install-test-needs does that");
    }

    /// As `--queue` takes it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// With these settings from the next start on.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|word| (*word).to_owned()).collect();
    }

    /// On the port and the files that it had.
    pub fn start_again(&mut self) {
        assert!(self.try_start(), "Redis does not start again");
    }

    fn try_start(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(self.folder.path()).args(&self.settings);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("redis-server is installed: scripts/install-test-needs does that");
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if child.try_wait().expect("a child").is_some() {
                return false;
            }
            if self.try_ask::<String>(redis::cmd("PING")).is_ok() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// Whether it keeps what it has acknowledged when it is killed.
    pub fn is_durable(&self) -> bool {
        self.settings.iter().any(|word| word == "always")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("a child");
        }
    }

    /// Asks it something, which must succeed.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.try_ask(command).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Asks it something, over a connection of its own.
    pub fn try_ask<T: FromRedisValue>(&self, command: redis::Cmd) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))?;
        command.query(&mut connection)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
