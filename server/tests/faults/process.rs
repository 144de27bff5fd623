//! A server as a process of its own: its log, its resources, its signals, its exit code.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stores::path;
use crate::{Case, PATIENCE, StoreKind};

/// How to start it. The first words of [`Launch::under`] run the program, which is why they must not fork.
#[derive(Clone, Default)]
pub struct Launch {
    pub case: Option<Case>,
    /// `sqlite:PATH` or `postgres://…`.
    pub database: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A program that runs the server: `strace …`, `nsenter …`.
    pub under: Vec<String>,
    /// Where the journal is, when it is not beside an SQLite file. Stays for as long as a server or a launch has it.
    pub journal: Option<Arc<TempDir>>,
}

impl Launch {
    pub fn new(case: Case, database: impl Into<String>) -> Self {
        let beside = case.store == StoreKind::Sqlite || case.mode != "journal-first";
        let journal = (!beside).then(|| Arc::new(tempfile::tempdir().expect("a temporary folder")));
        Self { case: Some(case), database: database.into(), journal, ..Self::default() }
    }

    /// With these arguments too, separated by spaces.
    pub fn with(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    pub fn start(&self) -> Server {
        let mode = self.case.expect("a case").mode;
        let mut words = self.under.clone();
        words.push(env!("CARGO_BIN_EXE_ingest-server").to_owned());
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--exit-with-stdin", "--mode", mode, "--database"];
        words.extend(fixed.map(str::to_owned));
        words.push(self.database.clone());
        if let Some(journal) = &self.journal {
            words.extend(["--journal-dir".to_owned(), path(journal.path())]);
        }
        let limit = "--rate-limit-enterprise-per-minute";
        if !self.arguments.iter().any(|argument| argument == limit) {
            words.extend([limit.to_owned(), "0".to_owned()]);
        }
        words.extend(self.arguments.iter().cloned());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let log = collect(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
        let url = match line.strip_prefix("listening on ") {
            Some(url) => url.trim_end().to_owned(),
            None => {
                let _ = child.wait();
                panic!("the server did not start: {line:?}\n{}", text(&log));
            }
        };
        Server { child, url, log, client: crate::client(), _journal: self.journal.clone() }
    }
}

type Log = Arc<Mutex<String>>;

fn text(log: &Log) -> String {
    log.lock().expect("the log").clone()
}

/// Reads a pipe on a thread, so that a full one never stops the writer.
fn collect(mut pipe: impl Read + Send + 'static) -> Log {
    let log = Log::default();
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut part) {
            kept.lock().expect("the log").push_str(&String::from_utf8_lossy(&part[..read]));
        }
    });
    log
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    log: Log,
    pub client: reqwest::Client,
    _journal: Option<Arc<TempDir>>,
}

/// How a server ended.
pub struct Ended {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub log: String,
}

/// What a server holds of the system.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub threads: usize,
    pub files: usize,
    pub rss_bytes: usize,
    /// The most that [`Footprint::rss_bytes`] ever was.
    pub rss_peak_bytes: usize,
}

impl Server {
    /// A key of a new organisation.
    pub async fn key(&self) -> String {
        let body = json!({"organization_name": "a", "tier": "enterprise"});
        let request = self.client.post(format!("{}/api/keys/generate", self.url)).json(&body);
        let made: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        made["api_key"].as_str().unwrap_or_else(|| panic!("no key in {made}")).to_owned()
    }

    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// The value of a metric without labels; `None` when the server does not answer.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let page = self.client.get(format!("{}/metrics", self.url)).send().await.ok()?.text().await.ok()?;
        let line = page.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
        Some(line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in\n{page}")))
    }

    pub async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub fn footprint(&self) -> Footprint {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let entries = |folder: &str| std::fs::read_dir(process.join(folder)).expect("a live process").count();
        let status = std::fs::read_to_string(process.join("status")).expect("a live process");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().trim_end_matches(" kB").parse::<usize>().expect(name) * 1024
        };
        Footprint {
            threads: entries("task"),
            files: entries("fd"),
            rss_bytes: kib("VmRSS:"),
            rss_peak_bytes: kib("VmHWM:"),
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let started = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it did not end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // The log's thread may have a last part to read.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ended { code, log: self.log() }
    }

    /// SIGTERM, and how it ended.
    pub async fn stopped(self) -> Ended {
        self.signal("TERM");
        self.ended().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            let _ = writeln!(std::io::stderr(), "the server ({ended:?} before it was killed) said last:\n{last}");
        }
    }
}
