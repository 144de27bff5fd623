//! The program among others: environment variables, terminals and pipes, shells, `man`, the browser, Ctrl-C.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Arg;
use tempfile::TempDir;

/// The program in a folder of its own, without what a person has set.
fn program(folder: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOADGEN_")) {
        command.env_remove(name);
    }
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "DISPLAY", "WAYLAND_DISPLAY"] {
        command.env_remove(name);
    }
    command.current_dir(folder).args(line);
    command
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(folder: &Path, variables: &[(&str, &str)], line: &str) -> Output {
    let line: Vec<&str> = line.split(' ').collect();
    program(folder, &line).envs(variables.iter().copied()).output().expect("the program runs")
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_a_plan_file() {
    let folder = folder();
    std::fs::write(folder.path().join("p.toml"), "rate = 50.0\nmode = ['db-first']\nidle = '0s'").expect("a file");
    let dry = "run p.toml --dry-run";
    for (variables, line, expected) in [
        (&[][..], dry.to_owned(), "Poisson, 50/s"),
        (&[("LOADGEN_RATE", "250")], dry.to_owned(), "Poisson, 250/s"),
        (&[("LOADGEN_RATE", "250")], format!("{dry} --rate 125"), "Poisson, 125/s"),
        (&[("LOADGEN_RATE", "")], dry.to_owned(), "Poisson, 50/s"),
        (&[("LOADGEN_MODE", "null,cache-first")], dry.to_owned(), "2 variants"),
        (
            &[("LOADGEN_SLO", "ledger.lost == 0; response_time.p99 < 5ms")],
            dry.to_owned(),
            "ledger.lost == 0,  response_time.p99 < 5ms",
        ),
        (&[("LOADGEN_PLAN", "before-after")], dry.to_owned(), "plan 'p'"),
        (&[("LOADGEN_PLAN", "before-after")], "run --dry-run".to_owned(), "plan 'before-after'"),
        (&[("LOADGEN_JSON", "1")], dry.to_owned(), "{\"command\":\"run\""),
        (&[("LOADGEN_JSON", "no")], dry.to_owned(), "dry run: "),
        (&[("LOADGEN_DRY_RUN", "true")], "run p.toml".to_owned(), "dry run: "),
        // Of other commands.
        (&[("LOADGEN_KILLS", "many"), ("LOADGEN_RATE_MAX", "-")], dry.to_owned(), "Poisson, 50/s"),
        (&[("LOADGEN_SLO", "ledger.lost == 0")], "gate --allow-identical --dry-run".to_owned(), "up to 20 pairs"),
        (
            &[("LOADGEN_RATE", "250"), ("LOADGEN_IDLE", "1s")],
            "capacity --dry-run".to_owned(),
            "the capacity of cache-first, db-first",
        ),
        (
            &[("LOADGEN_TARGET", "http://127.0.0.1:1")],
            "conform --mode db-first --dry-run".to_owned(),
            "db-first on sqlite",
        ),
    ] {
        let output = run(folder.path(), variables, &line);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr)).replace('\u{202f}', " ");
        assert!(told.contains(expected), "{variables:?} {line} should say {expected:?}: {told}");
    }
    let shape = program(folder.path(), &["run", "p.toml", "--dry-run", "--shape", "ramp 1..3"])
        .env("LOADGEN_RATE", "250")
        .output();
    let shape = text(&shape.expect("the program runs").stdout);
    assert!(shape.contains("ramp from 1/s to 3/s"), "a shape displaces the variable's rate: {shape}");
}

#[test]
fn a_variable_that_cannot_be_is_refused_by_its_name_and_an_unknown_one_is_told() {
    let folder = folder();
    for (variables, line, parts) in [
        (
            &[("LOADGEN_RATE", "abc")][..],
            "run --dry-run",
            &["--rate = abc: is no number", "comes from the environment variable LOADGEN_RATE"][..],
        ),
        (&[("LOADGEN_RATE", "0")], "run --dry-run", &["--rate = 0: is out of range", "variable LOADGEN_RATE"]),
        (&[("LOADGEN_QUIET", "perhaps")], "run --dry-run", &["--quiet = perhaps", "variable LOADGEN_QUIET"]),
        (&[("LOADGEN_MODE", "fast")], "run --dry-run", &["--mode = fast: is unknown", "variable LOADGEN_MODE"]),
        (
            &[("LOADGEN_TARGET", "http://127.0.0.1:1")],
            "run --mode null --dry-run",
            &["--mode = null", "--target comes from the environment variable LOADGEN_TARGET"],
        ),
        (
            &[("LOADGEN_AGAINST", "a"), ("LOADGEN_BASELINE", "b")],
            "gate --dry-run",
            &["does not go with", "variable LOADGEN_AGAINST", "variable LOADGEN_BASELINE"],
        ),
    ] {
        let output = run(folder.path(), variables, line);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variables:?}: {told}");
        for part in parts {
            assert!(told.contains(part), "{variables:?} should be told {part:?}: {told}");
        }
    }
    for (variable, part) in
        [("LOADGEN_RTAE", "did you mean LOADGEN_RATE?"), ("LOADGEN_PORT_80_TCP", "LOADGEN_RATE for --rate")]
    {
        let output = run(folder.path(), &[(variable, "5")], "run --dry-run");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "others may name theirs so: {told}");
        assert!(told.contains(&format!("warning: {variable}: ")) && told.contains(part), "{told}");
    }
}

#[test]
fn the_variable_of_every_number_reaches_its_flag() {
    let folder = folder();
    let tree = loadgen::cli::commands();
    for command in tree.get_subcommands().filter(|command| command.get_name() != "serve") {
        let is_number = |arg: &&Arg| {
            arg.get_value_names().is_some_and(|names| ["N", "PER_S", "SHARE", "TIME"].contains(&names[0].as_str()))
        };
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()).filter(is_number) {
            let variable = arg.get_env().expect("a variable").to_string_lossy().into_owned();
            // A flag that needs another one gets it.
            let output = run(folder.path(), &[(&variable, "many"), ("LOADGEN_SELF_TEST", "1")], command.get_name());
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{} {variable}: {told}", command.get_name());
            assert!(told.contains(&format!("environment variable {variable}")), "{}: {told}", command.get_name());
        }
    }
}

#[test]
fn a_run_says_how_long_it_takes_and_what_to_do_next_and_keeps_its_variables_and_no_secret() {
    let folder = folder();
    let short = "run --mode null --duration 300ms --warmup 100ms --idle 0s --connections 2 --out";
    let variables = [("LOADGEN_RATE", "100"), ("LOADGEN_SLO", "load.failed == 0")];
    let output = run(folder.path(), &variables, &format!("{short} loud"));
    let told = text(&output.stderr);
    assert!(told.contains("plan 'default': 1 variants × 1, about 2 s"), "{told}");
    assert!(told.contains("loud/run.json and loud/report.html\nnext: loadgen compare loud OTHER"), "{told}");
    let json = std::fs::read_to_string(folder.path().join("loud/run.json")).expect("a result");
    let made = reports::schema::read(&json).expect("a result");
    assert_eq!(made.command[..3], ["env", "LOADGEN_RATE=100", "LOADGEN_SLO=load.failed == 0"], "it can be typed again");
    let quiet = run(
        folder.path(),
        &[("LOADGEN_API_KEY", "mr_secret"), ("LOADGEN_QUIET", "1"), ("LOADGEN_RATE", "100")],
        &format!("{short} quiet"),
    );
    assert_eq!(text(&quiet.stderr), "quiet/run.json and quiet/report.html\n");
    for file in ["run.json", "report.html"] {
        let kept = std::fs::read_to_string(folder.path().join("quiet").join(file)).expect("a file");
        assert!(!kept.contains("mr_secret"), "{file} has no key");
    }
}

#[test]
fn colours_are_for_terminals_unless_somebody_says_otherwise() {
    let folder = folder();
    const ESCAPE: char = '\u{1b}';
    for (variables, flags, coloured) in [
        (&[][..], "", false),
        (&[], " --color always", true),
        (&[], " --color never", false),
        (&[("CLICOLOR_FORCE", "1")], "", true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], "", false),
        (&[("CLICOLOR_FORCE", "1")], " --color never", false),
        (&[("NO_COLOR", "1")], " --color always", true),
        (&[("LOADGEN_COLOR", "always")], "", true),
        (&[("LOADGEN_COLOR", "always")], " --color=auto", false),
    ] {
        for line in ["run --help", "run --plan nothing", "run --rate 0"] {
            let output = run(folder.path(), variables, &format!("{line}{flags}"));
            let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert_eq!(told.contains(ESCAPE), coloured, "{variables:?} {line}{flags}: {told:?}");
        }
    }
    let run_json = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/fixtures/three-modes.json");
    let line = format!("gate {} --slo load.failed<1 --color always", run_json.display());
    let judged = text(&run(folder.path(), &[], &line).stdout);
    assert!(judged.contains("\u{1b}[1m\u{1b}[32mPASS (exit code 0)"), "{judged:?}");
}

#[test]
fn completions_are_loaded_by_a_shell_and_know_commands_flags_and_values() {
    let folder = folder();
    let script = "source <(\"$0\" completions bash) && complete -p loadgen
        for words in 'loadgen cap' 'loadgen run --rat' 'loadgen run --plan be' 'loadgen run --arrivals po'; do
            COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _loadgen loadgen \"${COMP_WORDS[$COMP_CWORD]}\" \"${COMP_WORDS[$COMP_CWORD - 1]}\"
            echo \"$words: ${COMPREPLY[*]}\"
        done";
    let mut bash = Command::new("bash");
    let output = bash.args(["--norc", "-c", script, env!("CARGO_BIN_EXE_loadgen")]).output().expect("bash");
    let told = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{told}{}", text(&output.stderr));
    for line in [
        "-F _loadgen",
        "loadgen cap: capacity",
        "loadgen run --rat: --rate",
        "loadgen run --plan be: before-after",
        "loadgen run --arrivals po: poisson",
    ] {
        assert!(told.contains(line), "{line} is not in: {told}");
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = text(&run(folder.path(), &[], &format!("completions {shell}")).stdout);
        assert!(script.contains("journal") || script.contains("before-after"), "{shell}: {script}");
    }
}

#[test]
fn manual_pages_are_those_of_all_commands_and_groff_has_nothing_to_say() {
    let folder = folder();
    let output = run(folder.path(), &[], "man --out pages");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let tree = loadgen::cli::commands();
    let names = tree.get_subcommands().map(|command| format!("loadgen-{}.1", command.get_name()));
    for name in names.chain(["loadgen.1".to_owned()]) {
        let path = folder.path().join("pages").join(&name);
        let groff = Command::new("groff").args(["-man", "-ww", "-Kutf8", "-Tutf8", "-P-cbou"]).arg(&path).output();
        let groff = groff.expect("groff, which scripts/install-test-needs installs");
        let page = text(&groff.stdout);
        assert!(groff.status.success() && groff.stderr.is_empty(), "{name}: {}", text(&groff.stderr));
        for part in ["SYNOPSIS", "EXAMPLES", "Millrace"] {
            assert!(page.contains(part), "{name} has {part}: {page}");
        }
        let has_own_line = page.lines().any(|line| line.trim_start().starts_with("# ") || line.trim() == "loadgen run");
        assert!(has_own_line, "{name}: examples keep their lines: {page}");
    }
    let page = text(&run(folder.path(), &[], "man run").stdout);
    assert!(page.contains("\\-\\-rate") && page.contains("LOADGEN_DRAIN_TIMEOUT"), "a flag and its variable: {page}");
}

#[test]
fn the_report_is_opened_where_there_is_a_display_and_the_exit_code_stays() {
    let folder = folder();
    let run_json = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/fixtures/small.json");
    std::fs::copy(run_json, folder.path().join("run.json")).expect("a copy");
    let browser = folder.path().join("xdg-open");
    std::fs::write(&browser, "#!/bin/sh\nprintf '%s' \"$1\" > \"$(dirname \"$0\")/opened\"\n").expect("a program");
    #[cfg(unix)]
    std::fs::set_permissions(&browser, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a program");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let blind = run(folder.path(), &[("PATH", &path)], "report run.json --open");
    assert_eq!(blind.status.code(), Some(0));
    assert!(text(&blind.stderr).contains("--open: there is no display here"), "{}", text(&blind.stderr));
    let shown = run(folder.path(), &[("PATH", &path), ("DISPLAY", ":0")], "report run.json --open");
    assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(0), String::new()));
    let opened = wait_until("the browser is started", || {
        std::fs::read_to_string(folder.path().join("opened")).ok().filter(|path| !path.is_empty())
    });
    let page = std::fs::canonicalize(folder.path().join("report.html")).expect("a page");
    assert_eq!(std::fs::canonicalize(opened).expect("a path"), page);
}

/// Waits for a condition of the world outside this process, which no paused clock can hurry.
fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never happened: {what}");
}

fn has_child(child: &Child) -> bool {
    let id = child.id();
    std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).is_ok_and(|list| !list.trim().is_empty())
}

/// A command under way; one whose test failed leaves nothing behind.
#[cfg(target_os = "linux")]
struct Begun(Option<Child>);

#[cfg(target_os = "linux")]
impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(target_os = "linux")]
impl Begun {
    fn interrupt(&self, name: &str) {
        let child = self.0.as_ref().expect("it is under way");
        wait_until(name, || has_child(child).then_some(()));
        // One by the key, the others as a supervisor does it.
        let signal = if name == "run" { rustix::process::Signal::INT } else { rustix::process::Signal::TERM };
        let id = rustix::process::Pid::from_raw(child.id() as i32).expect("a process id");
        rustix::process::kill_process(id, signal).expect("it runs");
    }

    fn end(mut self) -> Output {
        self.0.take().expect("it is under way").wait_with_output().expect("it ends")
    }
}

#[cfg(target_os = "linux")]
#[test]
fn every_command_that_measures_writes_what_there_is_when_it_is_interrupted() {
    let folder = folder();
    // The one that takes least comes first: interrupted in this order, it is still under way.
    let begun: Vec<(&str, &str, Begun)> = [
        ("conform", "run.json", "conform --mode cache-first"),
        ("run", "run.json", "run --mode cache-first --idle 0s --no-calibration --duration 60s --rate 100"),
        ("capacity", "run.json", "capacity --mode cache-first --no-calibration --rate-max 1000 --probe 30s"),
        ("crash", "run.json", "crash --mode cache-first --kills 10000"),
        ("gate", "gate.json", "gate --allow-identical --rounds 60"),
        ("self-test", "self-test.json", "gate --self-test"),
        ("calibrate", "run.json", "calibrate --rate 100 --duration 60s"),
    ]
    .into_iter()
    .map(|(name, file, line)| {
        let line = format!("{line} --json --out {name}");
        let mut command = program(folder.path(), &line.split(' ').collect::<Vec<_>>());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        (name, file, Begun(Some(child)))
    })
    .collect();
    begun.iter().for_each(|(name, _, begun)| begun.interrupt(name));
    for (name, file, begun) in begun {
        let output = begun.end();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{name}: {told}");
        assert!(told.contains(", about ") && told.contains("interrupted: "), "{name} says how long it takes: {told}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{name}: JSON and nothing else on standard output: {error}\n{told}"));
        assert_eq!(result["interrupted"], true, "{name}");
        let kept = std::fs::read_to_string(folder.path().join(name).join(file)).expect("the same in a file");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).expect("JSON"), result, "{name}");
    }
}
