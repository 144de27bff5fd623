//! The live view in a pseudo terminal of its own, which `script` (util-linux) makes: it is drawn, it ends early, and the terminal is given back on
//! every way out.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::INVALID;

/// Nothing here takes this long, even where other tests run at the same time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What takes the screen, and what gives back the one before and the cursor.
const TAKEN: &str = "\u{1b}[?1049h";
const GIVEN_BACK: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

/// A program in a terminal of 80 × 24 characters.
struct InTerminal {
    script: Child,
    chunks: Receiver<Vec<u8>>,
    text: String,
}

impl InTerminal {
    /// Runs a line of a shell in it.
    fn begin(line: &str) -> Self {
        let line = format!("stty rows 24 cols 80; {line}");
        let mut script = Command::new("script")
            .args(["-q", "-e", "-f", "-c", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of the package util-linux or bsdutils");
        let mut output = script.stdout.take().expect("a pipe");
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { script, chunks, text: String::new() }
    }

    /// Waits until it shows this.
    fn wait_for(&mut self, shown: &str) {
        let begin = Instant::now();
        while !self.text.contains(shown) {
            match self.chunks.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                Ok(chunk) => self.text += &String::from_utf8_lossy(&chunk),
                Err(error) => panic!("no {shown:?} ({error}) in\n{}", self.text.escape_debug()),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        let stdin = self.script.stdin.as_mut().expect("a pipe");
        stdin.write_all(keys.as_bytes()).expect("it still runs");
        stdin.flush().expect("it still runs");
    }

    /// How it ended, and everything it showed.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.script.wait().expect("it ends");
        while let Ok(chunk) = self.chunks.recv_timeout(PATIENCE) {
            self.text += &String::from_utf8_lossy(&chunk);
        }
        (status, self.text)
    }
}

/// Asserts that the terminal was taken, and that it was given back before this was said.
#[track_caller]
fn assert_given_back_before(text: &str, said: &str) {
    let taken = text.find(TAKEN).unwrap_or_else(|| panic!("never taken:\n{}", text.escape_debug()));
    let said_at = text.rfind(said).unwrap_or_else(|| panic!("no {said:?} in\n{}", text.escape_debug()));
    for code in GIVEN_BACK {
        let given_back = text[taken..].find(code).map(|at| taken + at);
        assert!(given_back.is_some_and(|at| at < said_at), "no {code:?} before {said:?}:\n{}", text.escape_debug());
    }
}

/// A run that would take a minute, in a terminal, with what it wrote once it was ended by `end`.
fn ended_early(end: impl FnOnce(&mut InTerminal)) {
    let out = tempfile::tempdir().expect("a folder");
    let mut terminal = InTerminal::begin(&format!(
        "exec '{}' run --tui --mode null --rate 200 --warmup 0s --duration 60s --idle 0s --connections 4 --no-calibration --out '{}'",
        env!("CARGO_BIN_EXE_loadgen"),
        out.path().display()
    ));
    // The most frequent time of a second of the heat map: something was answered.
    terminal.wait_for("█");
    end(&mut terminal);
    let (status, text) = terminal.end();
    assert_given_back_before(&text, "exit code 5");
    assert_eq!(status.code(), Some(INVALID), "{}", text.escape_debug());
    let json = std::fs::read_to_string(out.path().join("run.json")).expect("a result");
    let run = reports::schema::read(&json).expect("a run");
    assert!(run.interrupted && run.results[0].load.outcomes.accepted > 0, "{:?}", run.verdict);
    assert!(run.seconds < 50.0, "it ended early");
    assert!(std::fs::read_to_string(out.path().join("report.html")).is_ok_and(|page| page.contains("interrupted")));
}

#[test]
fn q_ends_early_with_a_report_and_gives_the_terminal_back() {
    ended_early(|terminal| terminal.press("q"));
}

#[test]
fn ctrl_c_ends_early_with_a_report_and_gives_the_terminal_back() {
    ended_early(|terminal| terminal.press("\u{3}"));
}

/// Names this program to itself, with the part of the test that panics.
const PANICS: &str = "MILLRACE_TEST_PANICS";

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    if std::env::var_os(PANICS).is_some() {
        let screen = loadgen::live::terminal::Screen::take().expect("a terminal");
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(panicked.is_err());
        drop(screen);
        return;
    }
    let this = std::env::current_exe().expect("a path");
    let name = "live::a_panic_gives_the_terminal_back_before_it_is_told";
    let line = format!("{PANICS}=1 exec '{}' --exact {name} --nocapture", this.display());
    let (status, text) = InTerminal::begin(&line).end();
    assert!(status.success(), "{}", text.escape_debug());
    assert_given_back_before(&text, "on purpose");
}

#[test]
fn without_a_terminal_it_is_refused_with_the_remedy_and_nothing_is_measured() {
    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().join("results");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--tui", "--mode", "null", "--out"])
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("--tui") && told.contains("terminal") && told.contains("leave --tui out"), "{told}");
    assert!(!folder.exists());
}
