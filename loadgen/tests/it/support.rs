//! Targets that misbehave in ways the reference server cannot be made to, on ports of their own; and the program under test.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use reports::model::{CaveatKind, Run};
use tempfile::TempDir;

/// Exit code of a run that says nothing about its target.
pub const INVALID: i32 = 5;

/// What a bad target does with a request.
pub type Behaviour = dyn Fn(&Request, &mut TcpStream) -> Next + Send + Sync;

/// What it does with the connection then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Reads the next request.
    Keep,
    /// Closes.
    Close,
}

/// A request, read whole.
pub struct Request {
    /// `POST /api/events`.
    pub line: String,
    /// `name: value`, the names in lower case.
    pub headers: Vec<String>,
    /// As sent.
    pub body: Vec<u8>,
}

impl Request {
    /// Whether it is an event.
    pub fn is_event(&self) -> bool {
        self.line.starts_with("POST /api/events ")
    }

    /// Whether it asks for a key.
    pub fn is_key(&self) -> bool {
        self.line.starts_with("POST /api/keys/generate ")
    }
}

/// Starts a target; its threads end with the test's process.
pub fn target(behaviour: impl Fn(&Request, &mut TcpStream) -> Next + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || serve(&listener, behaviour));
    address
}

/// Answers for ever.
pub fn serve(listener: &TcpListener, behaviour: impl Fn(&Request, &mut TcpStream) -> Next + Send + Sync + 'static) {
    let behaviour: Arc<Behaviour> = Arc::new(behaviour);
    for stream in listener.incoming().map_while(Result::ok) {
        let behaviour = Arc::clone(&behaviour);
        thread::spawn(move || talk(stream, &behaviour));
    }
}

fn talk(mut stream: TcpStream, behaviour: &Arc<Behaviour>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let request = read_request(&mut reader)?;
        if behaviour(&request, &mut stream) == Next::Close {
            return None;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let length = lines.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let lower = |line: &String| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
        None => line.clone(),
    };
    Some(Request { line: lines.first()?.clone(), headers: lines[1..].iter().map(lower).collect(), body })
}

/// Answers with a status and a JSON body.
pub fn answer(stream: &mut TcpStream, status: u16, body: &str) -> Next {
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    match stream.write_all(format!("{head}{body}").as_bytes()) {
        Ok(()) => Next::Keep,
        Err(_) => Next::Close,
    }
}

/// An acknowledgement with an id made of a number.
pub fn acknowledge(stream: &mut TcpStream, number: u64) -> Next {
    let id = uuid::Uuid::from_u128(u128::from(number));
    answer(stream, 202, &format!(r#"{{"id":"{id}","status":"accepted","durability":"memory"}}"#))
}

/// What the program did.
pub struct Done {
    /// Its exit code.
    pub code: i32,
    /// Everything it printed.
    pub text: String,
    /// Its result.
    pub run: Run,
}

/// Flags for tests of targets that do all they should: no slow machine uses this patience up.
pub const PATIENT: [&str; 4] = ["--request-timeout", "30s", "--drain-timeout", "30s"];

/// A run that has begun.
pub struct Running {
    child: Child,
    out: TempDir,
}

/// Begins `loadgen run` with a short plan and these arguments. A shape or a recording among them brings rates (and a length) of its own.
pub fn begin(arguments: &[&str]) -> Running {
    let mut short = vec!["--no-calibration", "--idle", "0s", "--connections", "8"];
    if !arguments.contains(&"--replay") {
        short.extend(["--duration", "1s"]);
        if !arguments.contains(&"--shape") {
            short.extend(["--rate", "200"]);
        }
    }
    let patience = ["--warmup", "200ms", "--request-timeout", "500ms", "--drain-timeout", "500ms"];
    begin_command("run", &[&short[..], &patience, arguments].concat())
}

/// Begins a command that measures.
pub fn begin_command(command: &str, arguments: &[&str]) -> Running {
    let out = tempfile::tempdir().expect("a folder");
    // A limit of open files that is too low for many connections, as most systems have one, however this one is set up.
    let child = Command::new("sh")
        .args(["-c", "ulimit -Sn 512 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_loadgen"), command])
        .args(["--quiet", "--out", out.path().to_str().expect("a path")])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    Running { child, out }
}

impl Running {
    /// The program's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn end(self) -> Done {
        let output = self.child.wait_with_output().expect("the program ends");
        done(&output, self.out.path())
    }
}

/// Runs `loadgen run` with a short plan and these arguments.
pub fn run(arguments: &[&str]) -> Done {
    begin(arguments).end()
}

fn done(output: &Output, out: &Path) -> Done {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let json =
        std::fs::read_to_string(out.join("run.json")).unwrap_or_else(|error| panic!("no run.json: {error}\n{text}"));
    let html = std::fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(html.contains("<!DOCTYPE html>"), "the report is a page");
    let run = reports::schema::read(&json).expect("a valid result");
    Done { code: output.status.code().expect("an exit code"), text, run }
}

/// A machine on which other tests run at the same time may make the generator late, and then it says so instead.
#[track_caller]
pub fn assert_ends_with(done: &Done, code: i32) {
    let of_the_machine = [CaveatKind::GeneratorSaturated, CaveatKind::ArrivalsNotAsAsked];
    let excused = done.run.caveats.iter().any(|caveat| caveat.invalidates && of_the_machine.contains(&caveat.kind));
    assert!(
        done.code == code || (excused && done.code == INVALID),
        "ended with {}, not {code}:\n{}",
        done.code,
        done.text
    );
}
