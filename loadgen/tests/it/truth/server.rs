//! The reference server with faults, as a process of its own that can be ended and started again on the same port and data.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use loadgen::target::{Reach, Target};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Runs a future to its end on a runtime of its own.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// Where a server keeps its events; gone with this.
pub enum Data {
    Sqlite(tempfile::TempDir),
    Postgres { instance: String, name: String },
}

impl Data {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a folder"))
    }

    /// A database of its own in the private instance that `scripts/test` starts.
    pub fn postgres() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let instance = std::env::var("MILLRACE_TEST_POSTGRES").expect(
            "MILLRACE_TEST_POSTGRES is not set: run scripts/test, or export MILLRACE_TEST_POSTGRES=$(scripts/postgres start DIR)",
        );
        let name = format!("millrace_truth_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        sql(&instance, format!("CREATE DATABASE {name}")).expect("a database");
        Self::Postgres { instance, name }
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("events.db").display()),
            Self::Postgres { instance, name } => {
                let (server, _) = instance.rsplit_once('/').expect("a URL with a database");
                format!("{server}/{name}")
            }
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Self::Postgres { instance, name } = self {
            // Best effort: the instance goes with the tests.
            let _ = sql(instance, format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

fn sql(url: &str, statement: String) -> Result<(), sqlx::Error> {
    block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        connection.execute(AssertSqlSafe(statement)).await?;
        connection.close().await
    })
}

/// A running server; killed when dropped.
pub struct FaultyServer {
    child: Child,
    arguments: Vec<String>,
    data: Data,
    log: tempfile::TempDir,
    pub url: String,
}

impl FaultyServer {
    pub fn start(mode: &str, data: Data, faults: &str) -> Self {
        let mut arguments: Vec<String> = ["serve", "--mode", mode, "--exit-with-stdin"].map(str::to_owned).into();
        // Half of the processors would be one thread; two show that nothing here depends on it.
        arguments.extend(["--http-threads", "2", "--rate-limit-enterprise-per-minute", "0"].map(str::to_owned));
        if !faults.is_empty() {
            arguments.extend(["--fault".to_owned(), faults.to_owned()]);
        }
        let log = tempfile::tempdir().expect("a folder");
        let (child, url) = listening(&arguments, "127.0.0.1:0", &data, log.path());
        Self { child, arguments, data, log, url }
    }

    /// Ends it with this signal, and starts it again at once on the same port and data.
    pub fn restart(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
        self.child.wait().expect("an end");
        let address = self.url.trim_start_matches("http://").to_owned();
        (self.child, self.url) = listening(&self.arguments, &address, &self.data, self.log.path());
    }

    /// Waits until it has acknowledged so many events since it was started.
    pub fn wait_for_acknowledged(&self, events: u64) {
        let target = Target::new(&self.url, &Reach::default()).expect("a target");
        let acknowledged = || {
            let scrape = block_on(target.metrics());
            scrape.and_then(|scrape| scrape.get("ingest_events_acknowledged_total")).unwrap_or(0.0)
        };
        let begin = Instant::now();
        while acknowledged() < events as f64 {
            assert!(begin.elapsed() < Duration::from_secs(60), "only {} events acknowledged", acknowledged());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening(arguments: &[String], address: &str, data: &Data, folder: &Path) -> (Child, String) {
    let log = folder.join("server.log");
    let file = std::fs::File::create(&log).expect("a log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .args(["--listen", address])
        .env("INGEST_DATABASE", data.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .expect("the program runs");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a line");
    let Some(url) = line.trim_end().strip_prefix("listening on ") else {
        panic!("it did not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    };
    (child, url.to_owned())
}
