//! Every command of the documentation is run: a flag that is gone, a file that moved or an example with a mistake fails here. What measures is
//! run with `--dry-run`, which resolves and checks everything that it would do.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// Commands that only look at what there is, or print.
const QUICK: [&str; 8] = ["plans", "report", "export", "compare", "history", "merge", "completions", "man"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A folder with everything that the documentation's commands speak of.
fn desk(page: &str) -> TempDir {
    let desk = tempfile::tempdir().expect("a folder");
    for name in ["scripts", "regressions"] {
        symlink(repository().join(name), desk.path().join(name)).expect("a link");
    }
    std::fs::create_dir_all(desk.path().join("targets/old")).expect("a folder");
    for name in ["python", "rust"] {
        symlink(repository().join("targets").join(name), desk.path().join("targets").join(name)).expect("a link");
    }
    for side in ["old", "new"] {
        std::fs::create_dir(desk.path().join(side)).expect("a folder");
        symlink(LOADGEN, desk.path().join(side).join("loadgen")).expect("a link");
    }
    let run = repository().join("results/2026-11-23-b/floor-sqlite.json");
    let write = |name: &str, text: &str| std::fs::write(desk.path().join(name), text).expect("a file");
    let run = std::fs::read_to_string(run).expect("a result");
    write("run.json", &run);
    std::fs::create_dir_all(desk.path().join("results/monday")).expect("a folder");
    write("results/monday/run.json", &run);
    for part in ["0", "1", "2"] {
        let folder = desk.path().join("millrace-results/monday-1").join(part);
        std::fs::create_dir_all(&folder).expect("a folder");
        let shard = repository().join(format!("reports/fixtures/shard-{part}.json"));
        std::fs::copy(shard, folder.join("run.json")).expect("a part of a load");
    }
    write("keys", "mr_live_one\nmr_live_two\n");
    write("monday.csv", "offset_s,payload_bytes\n0.0,100\n0.5,200\n1.0,100\n");
    let legacy = blocks(page, "toml").into_iter().find(|block| block.starts_with("name = \"legacy\""));
    write("targets/old/profile.toml", &legacy.unwrap_or_default());
    if let Some(plan) = blocks(page, "toml").into_iter().find(|block| block.starts_with("# plan.toml")) {
        write("plan.toml", &plan);
    } else {
        write("plan.toml", "name = 'mine'\n");
    }
    desk
}

/// The code blocks of a page that are marked as `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// What stands behind the prompts.
fn commands(page: &str) -> Vec<String> {
    let joined: Vec<String> = blocks(page, "console").iter().map(|block| block.replace("\\\n", " ")).collect();
    let lines = joined.iter().flat_map(|block| block.lines());
    lines.filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

fn shell(desk: &Path, command: &str) -> Command {
    let folder = Path::new(LOADGEN).parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    // A comment behind a command stays one.
    shell.args(["-c", command]).current_dir(desk).env("PATH", format!("{folder}:{path}"));
    shell
}

/// The reference server, until it is dropped.
struct Server {
    process: Child,
    _output: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    fn start(desk: &Path, command: &str) -> Self {
        let mut process =
            shell(desk, command).env("INGEST_LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).spawn().expect("a shell");
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("`{command}` does not listen: it says '{line}'")).to_owned();
        Self { process, _output: output, url }
    }

    fn key(&self) -> String {
        let asked = format!(
            "curl --silent --fail-with-body --json '{{\"organization_name\":\"docs\"}}' {}/api/keys/generate",
            self.url
        );
        let answer = Command::new("bash").args(["-c", &asked]).output().expect("curl");
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no key: {text}"));
        answer["api_key"].as_str().expect("a key").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Exit codes of a verdict: the command did what it is for.
const VERDICTS: [i32; 4] = [0, 3, 4, 5];

#[track_caller]
fn run(desk: &Path, command: &str, environment: &[(&str, &str)], codes: &[i32]) {
    let done = shell(desk, command).envs(environment.iter().copied()).output().expect("a shell");
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let is_fine = done.status.code().is_some_and(|code| codes.contains(&code));
    assert!(is_fine, "`{command}` ended with {}:\n{text}", done.status);
}

/// Runs one command as its reader would, but for what takes minutes or root.
fn try_out(desk: &Path, command: &str) {
    let plain = command.replacen("sudo ", "", 1).replacen("cargo run --release -- ", "loadgen ", 1);
    // A comment would swallow what is put behind it.
    let plain = plain.split("   #").next().unwrap_or_default().split("  #").next().unwrap_or_default().trim_end();
    let words: Vec<&str> = plain.split_whitespace().skip_while(|word| word.contains('=')).collect();
    match words[..] {
        ["loadgen", "serve", ..] => drop(Server::start(desk, &format!("exec {}", without_variables(plain)))),
        ["loadgen", quick, ..] if QUICK.contains(&quick) => run(desk, plain, &[], &[0]),
        ["loadgen", "gate", "run.json", ..] => run(desk, plain, &[], &VERDICTS),
        ["loadgen", ..] if words.contains(&"--dry-run") => run(desk, plain, &[], &[0]),
        ["loadgen", ..] => run(desk, &format!("{plain} --dry-run"), &[], &[0]),
        ["curl", ..] => {
            let server = Server::start(desk, "exec loadgen serve --webhook-private-addresses");
            let curl = plain.replacen("curl", "curl --silent --fail-with-body", 1);
            run(desk, &curl, &[("SERVER", &server.url), ("KEY", &server.key())], &[0]);
        }
        [script, ..] if script.starts_with("scripts/") && script.ends_with(".py") => {
            let parse = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
            run(desk, &format!("test -x {script} && python3 -c '{parse}' {script}"), &[], &[0]);
        }
        [script, ..] if script.starts_with("scripts/") => {
            run(desk, &format!("test -x {script} && bash -n {script}"), &[], &[0]);
        }
        _ => panic!("nobody runs `{command}`"),
    }
}

/// `A=b program` as `env A=b program`, which `exec` takes.
fn without_variables(command: &str) -> String {
    let begins_with_variable = command.split_whitespace().next().is_some_and(|word| word.contains('='));
    if begins_with_variable { format!("env {command}") } else { command.to_owned() }
}

#[track_caller]
fn every_command_of(page: &str, at_least: usize) {
    let text = std::fs::read_to_string(repository().join(page)).expect("a page");
    let desk = desk(&text);
    let commands = commands(&text);
    assert!(commands.len() >= at_least, "{page}: only {} commands were found", commands.len());
    commands.iter().for_each(|command| try_out(desk.path(), command));
}

#[test]
fn every_command_of_the_readme_runs() {
    every_command_of("README.md", 10);
}

#[test]
fn every_command_of_the_page_on_measuring_runs() {
    every_command_of("docs/measuring.md", 1);
}

#[test]
fn every_command_of_the_page_on_plans_runs_and_so_does_its_plan() {
    every_command_of("docs/plans.md", 8);
}

#[test]
fn every_command_of_the_page_on_modes_runs() {
    every_command_of("docs/modes.md", 3);
}

#[test]
fn every_command_of_the_page_on_gating_runs() {
    every_command_of("docs/gating.md", 4);
}

#[test]
fn every_command_of_the_page_on_target_profiles_runs() {
    every_command_of("docs/target-profiles.md", 3);
}

#[test]
fn every_command_of_the_page_on_the_command_line_runs() {
    every_command_of("docs/command-line.md", 9);
}

#[test]
fn every_command_of_the_other_pages_runs() {
    for (page, at_least) in [
        ("docs/checked.md", 3),
        ("docs/result-format.md", 2),
        ("docs/several-machines.md", 5),
        ("docs/history.md", 1),
        ("docs/scale.md", 3),
        ("docs/webhooks.md", 1),
        ("docs/opentelemetry.md", 5),
        ("targets/python/README.md", 0),
        ("targets/elixir/README.md", 0),
        ("targets/common-lisp/README.md", 0),
        ("SECURITY.md", 0),
        ("results/README.md", 0),
    ] {
        every_command_of(page, at_least);
    }
}

/// A page that no test above reads would be one whose commands nobody runs.
#[test]
fn no_page_of_the_documentation_is_forgotten() {
    let pages = std::fs::read_dir(repository().join("docs")).expect("the pages").flatten().map(|entry| entry.path());
    let pages: BTreeSet<String> = pages
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| format!("docs/{}", path.file_name().expect("a name").to_string_lossy()))
        .collect();
    let forgotten: Vec<&String> =
        pages.iter().filter(|page| !include_str!("docs.rs").contains(&format!("\"{page}\""))).collect();
    assert!(forgotten.is_empty(), "add {forgotten:?} to a test of this file");
}
