//! What the command line teaches: help, examples, and what a mistake is told. Walks the commands themselves, so that a new flag is tested
//! by being there.

use std::path::Path;
use std::process::{Command, Output};

use clap::{Arg, ArgAction};
use tempfile::TempDir;

/// Commands with a dry run.
const MEASURING: [&str; 6] = ["run", "capacity", "crash", "conform", "gate", "calibrate"];

fn loadgen(folder: &Path, words: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    // What a person has set is not what is tested.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOADGEN_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).args(words).output().expect("the program runs")
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Of a command's `--help`, as a shell divides them, without what follows a pipe or goes into a file.
fn examples(command: &clap::Command) -> Vec<Vec<String>> {
    let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let (_, block) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{} has examples", command.get_name()));
    let block = block.split("\n\n").next().expect("a block").replace("\\\n", " ");
    let lines = block.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.map(split).collect()
}

fn split(line: &str) -> Vec<String> {
    let line = line.strip_prefix("sudo ").unwrap_or(line);
    let line = line.strip_prefix("source <(").map_or(line, |inner| inner.trim_end_matches(')'));
    let line = line.split(" | ").next().expect("a part");
    let line = line.split(" > ").next().expect("a part").split(" >> ").next().expect("a part");
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("printf '%s\\n' {line}"))
        .env("GITHUB_STEP_SUMMARY", "summary.md")
        .output()
        .expect("a shell");
    let words: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(words.first().map(String::as_str), Some("loadgen"), "{line}");
    words
}

/// Everything that the examples name.
fn folder_of_examples() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let copy = |from: &Path, to: &str| {
        let to = folder.path().join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    let run = root.join("reports/fixtures/three-modes.json");
    for name in ["run.json", "old/run.json", "new/run.json", "all/run.json", "capacities/run.json"] {
        copy(&run, name);
    }
    copy(&root.join("loadgen/plans/before-after.toml"), "nightly.toml");
    copy(&root.join("targets/python/profile.toml"), "targets/python/profile.toml");
    for name in ["ingest-server", "old/loadgen"] {
        std::fs::write(folder.path().join(name), "a program").expect("a file");
    }
    std::fs::write(folder.path().join("monday.csv"), "offset_s\n0\n1\n3\n").expect("a file");
    folder
}

fn files_of(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        files.push(path.display().to_string());
        if path.is_dir() {
            files.extend(files_of(&path));
        }
    }
    files.sort();
    files
}

#[test]
fn every_command_has_examples_and_all_of_them_parse() {
    let tree = loadgen::cli::commands();
    for command in std::iter::once(&tree).chain(tree.get_subcommands()) {
        let examples = examples(command);
        assert!(!examples.is_empty(), "{} has an example", command.get_name());
        for words in examples {
            if let Err(error) = loadgen::cli::commands().try_get_matches_from(&words) {
                panic!("{words:?} is an example and does not parse: {error}");
            }
        }
    }
}

#[test]
fn every_example_that_measures_can_be_followed_and_a_dry_run_of_it_does_nothing() {
    let folder = folder_of_examples();
    let before = files_of(folder.path());
    let tree = loadgen::cli::commands();
    for name in MEASURING {
        for example in examples(tree.find_subcommand(name).expect(name)) {
            // Whether a stored gate can be compared with depends on the machine.
            if example.contains(&"--against".to_owned()) {
                continue;
            }
            for json in [false, true] {
                let mut dry = [&example[1..], &words(&["--dry-run"])].concat();
                dry.extend(json.then(|| "--json".to_owned()));
                let output = loadgen(folder.path(), &dry);
                assert_eq!(output.status.code(), Some(0), "{dry:?}: {}", told(&output));
                let text = String::from_utf8_lossy(&output.stdout);
                if json {
                    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON and nothing else");
                    assert_eq!(value["command"], name);
                    assert!(value["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{text}");
                    assert!(value["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{text}");
                } else {
                    assert!(text.contains("about") && text.contains("dry run: nothing was started"), "{dry:?}: {text}");
                }
            }
        }
    }
    assert_eq!(files_of(folder.path()), before, "a dry run creates nothing");
}

/// Every flag of every command, with the command's name.
fn flags() -> Vec<(String, Arg)> {
    let tree = loadgen::cli::commands();
    let of = |command: &clap::Command| {
        let flags = command.get_arguments().filter(|arg| arg.get_long().is_some());
        flags.map(|arg| (command.get_name().to_owned(), arg.clone())).collect::<Vec<_>>()
    };
    std::iter::once(&tree).chain(tree.get_subcommands()).flat_map(of).collect()
}

fn name_of(arg: &Arg) -> String {
    format!("--{}", arg.get_long().expect("a flag"))
}

fn is_number(arg: &Arg) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    arg.get_action().takes_values()
        && names.iter().any(|name| ["N", "PER_S", "SHARE", "FACTOR", "MIB"].contains(&name.as_str()))
}

#[test]
fn every_flag_has_help_and_a_variable_and_its_first_line_is_short() {
    for (command, arg) in flags().into_iter().filter(|(_, arg)| !arg.is_hide_set()) {
        let flag = name_of(&arg);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(!help.is_empty(), "{command} {flag} has help");
        assert!(command == "serve" || help.chars().count() <= 140, "{command} {flag}: its first line is long: {help}");
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let prefix = if command == "serve" { "INGEST_" } else { "LOADGEN_" };
        assert!(variable.starts_with(prefix), "{command} {flag} has a variable: {variable:?}");
        let names = arg.get_value_names().unwrap_or_default();
        let is_time = arg.get_action().takes_values() && names.iter().any(|name| name == "TIME");
        if is_time || is_number(&arg) {
            let says_what =
                help.contains(|c: char| c.is_ascii_digit()) || help.contains("whole number") || command == "serve";
            assert!(says_what, "{command} {flag} says what its number may be: {help}");
        }
    }
}

#[test]
fn what_is_no_number_is_told_flag_value_range_and_remedy_and_the_help_has_that_range() {
    let folder = tempfile::tempdir().expect("a folder");
    for (command, arg) in flags().into_iter().filter(|(_, arg)| is_number(arg)) {
        let flag = name_of(&arg);
        // Flags that go with another one alone.
        let with: &[&str] = match flag.as_str() {
            "--decisions" | "--minutes" => &["--self-test"],
            _ => &[],
        };
        let output = loadgen(folder.path(), &words(&[&[command.as_str()], with, &[flag.as_str(), "many"]].concat()));
        let text = told(&output);
        assert_eq!(output.status.code(), Some(2), "{command} {flag}: {text}");
        let expected = format!("error: {flag} = many: ");
        assert!(
            text.starts_with(&expected) && text.contains("; allowed: ") && text.contains("; choose "),
            "{command}: {text}"
        );
        let allowed = text.split("allowed: ").nth(1).and_then(|rest| rest.split("; choose").next()).expect("a range");
        let Some((min, rest)) = allowed.split_once(" to ") else { continue };
        let max = rest.split(' ').next().expect("an upper end");
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let numbers: Vec<&str> = help.split(|c: char| !c.is_ascii_digit() && !".%-".contains(c)).collect();
        let is_there = |end: &str| end.rsplit(' ').next().is_some_and(|end| numbers.contains(&end));
        let says = |end: &str| is_there(end) || help.contains("whole number") || arg.is_hide_set();
        assert!(
            command == "serve" || (says(min) && says(max)),
            "{command} {flag}: {min} to {max} is not in its help: {help}"
        );
    }
}

/// What is typed, and what it is told.
const MISTAKES: &[(&str, &[&str])] = &[
    ("rnu", &["'rnu': is no command", "allowed: run, capacity", "did you mean run?"]),
    ("frobnicate", &["'frobnicate': is no command", "allowed: run, capacity", "loadgen --help"]),
    ("run --rte 5", &["--rte: loadgen run has no such flag", "did you mean --rate?"]),
    ("calibrate --kills 5", &["--kills: loadgen calibrate has no such flag", "it is one of loadgen crash"]),
    ("run --frobnicate", &["--frobnicate: loadgen run has no such flag", "loadgen run --help lists them"]),
    ("run a.toml b.toml", &["'b.toml': loadgen run takes no such word", "leave it out"]),
    (
        "run --plan before-afer",
        &["--plan = before-afer: is unknown", "allowed: default, before-after", "did you mean before-after?"],
    ),
    (
        "run --arrivals gaussian",
        &["--arrivals = gaussian: is unknown", "allowed: poisson, constant, closed", "choose one"],
    ),
    ("run --arrivals possion", &["--arrivals = possion", "did you mean poisson?"]),
    (
        "run --mode cache-frist",
        &["--mode = cache-frist: is unknown", "allowed: null, cache-first", "did you mean cache-first?"],
    ),
    ("run --polling wkae", &["--polling = wkae: is unknown", "allowed: fixed, adaptive, wake", "did you mean wake?"]),
    ("run --target targets/pyhton", &["--target = targets/pyhton: is no target", "did you mean targets/python?"]),
    ("run --target targtes", &["--target = targtes: is no target", "did you mean targets?", "http://HOST:PORT"]),
    (
        "run --slo response_tme.p99<1ms",
        &["--slo: no metric is called", "response_tme.p99<1ms", "did you mean response_time.p99?"],
    ),
    ("run --slo cache-frist:ledger.lost==0", &["--slo: no variant is called", "did you mean \"cache-first\"?"]),
    ("run --warmup 3", &["--warmup = 3: is not a length of time", "write a number with a unit, such as 500ms"]),
    ("run --duration 1ms", &["--duration = 1", "allowed: 100 to 86400000 ms", "choose a value in that range"]),
    (
        "run --rate 0",
        &["--rate = 0: is out of range", "allowed: 0.1 to 200000 events/s", "choose a value in that range"],
    ),
    ("run --rate", &["--rate: has no value", "allowed: Events per second", "0.1 to 200000"]),
    ("run --quiet=5", &["--quiet = 5: takes no value", "write --quiet alone"]),
    ("run nightly.toml --plan default", &["does not go with", "--plan", "leave one of the two out"]),
    ("run nihgtly.toml", &["nihgtly.toml", "did you mean nightly.toml?"]),
    ("run --shape sine", &["--shape = sine: is not a shape", "write 'constant', 'ramp 100..5000'"]),
    ("run --mix insert", &["--mix = insert: is not a mix", "ingest, batch, inbox, ack"]),
    ("capacity --rate 5", &["--rate: does not go with capacity", "leave it out"]),
    (
        "capacity --rate-min 9 --rate-max 5",
        &["--rate-min = 9: is above --rate-max 5", "allowed: 1 to 200000 events/s", "lower it"],
    ),
    ("capacity --resolution 0", &["--resolution = 0:", "allowed: 0.5% to 100%", "choose"]),
    ("crash --kills 0", &["--kills = 0: is out of range", "allowed: 1 to 10000 kills", "choose a value in that range"]),
    ("crash --load-max 1h", &["--load-max = 3600s: is out of range", "allowed: 50ms to 60s", "choose a time"]),
    ("crash --mode db-frist", &["--mode = db-frist: is unknown", "did you mean db-first?"]),
    (
        "crash --database postgres//me:hunter2@h",
        &["--database = postgres: is no database", "allowed: sqlite, postgres"],
    ),
    (
        "run --otlp http://me:hunter2@h",
        &["--otlp = http://me:***@h: has more than host, port and path", "give the base URL"],
    ),
    ("conform --rule I99", &["--rule = I99: is no rule of the contract", "allowed: ", "choose one or more"]),
    (
        "conform --database mysql://me:hunter2@h",
        &["--database = mysql: is no database", "allowed: sqlite", "give one or both"],
    ),
    ("gate --metric p98", &["--metric = p98: is no metric", "allowed: p50, p99", "did you mean p99?"]),
    (
        "gate --metric p50=lots",
        &["--metric = p50=lots: is no margin", "allowed: 0% to 900%", "write one such as p50=5%"],
    ),
    ("gate --optional idle-sq", &["--optional = idle-sq: is no metric", "did you mean idle-sql?"]),
    ("gate --rounds 7", &["--rounds = 7:", "allowed: even, 6 to 100", "choose"]),
    ("gate --against a --baseline b", &["does not go with", "leave one of the two out"]),
    (
        "calibrate --rate-max 5",
        &["--rate-max = 5: is out of range", "allowed: 1000 to 200000 events/s", "choose a value"],
    ),
    (
        "export run.json --format makrdown",
        &["--format = makrdown: is unknown", "allowed: markdown", "did you mean markdown?"],
    ),
    ("export run.json", &["--format <FORMAT>", "markdown", "is missing", "loadgen export needs it", "add it"]),
    ("report rnu.json", &["rnu.json", "did you mean run.json?"]),
    ("compare", &["RUN.json", "is missing", "add it"]),
    ("history rnu.json", &["rnu.json", "did you mean run.json?"]),
    ("plans before", &["before: is unknown", "allowed: default, before-after"]),
    ("completions tcsh", &["tcsh: is unknown", "allowed: bash, elvish, fish"]),
    ("man rnu", &["'rnu': is no command", "did you mean run?"]),
    ("serve --mode fast", &["--mode = fast: is unknown", "allowed: null, cache-first", "choose one"]),
];

#[test]
fn mistakes_are_told_with_flag_value_what_is_allowed_and_what_was_probably_meant() {
    let folder = folder_of_examples();
    for (line, parts) in MISTAKES {
        let output = loadgen(folder.path(), &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let text = told(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(output.stdout.is_empty() && text.starts_with("error: "), "{line}: {text}");
        for part in *parts {
            assert!(text.contains(part), "{line} should be told {part:?}: {text}");
        }
        assert!(!text.contains("hunter2"), "a password is not shown: {text}");
    }
}

#[test]
fn the_short_help_has_a_line_for_each_flag_and_the_long_one_tells_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = loadgen::cli::commands();
    for command in tree.get_subcommands() {
        let name = command.get_name();
        let help = |flag: &str| {
            let output = loadgen(folder.path(), &words(&[name, flag]));
            assert_eq!(output.status.code(), Some(0), "{name} {flag}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let (short, long) = (help("-h"), help("--help"));
        assert!(short.contains(&format!("loadgen {name} --help")) && !short.contains("Examples:"), "{name}: {short}");
        // The server's flags have one line each, in either.
        assert!(name == "serve" || short.len() < long.len() * 3 / 4, "{name}: -h is short");
        assert!(long.contains("Examples:") && long.contains("Exit codes:"), "{name}: {long}");
        assert!(!short.contains("LOADGEN_"), "{name}: {short}");
        let has_flags =
            command.get_arguments().any(|arg| arg.get_long().is_some() && !matches!(arg.get_action(), ArgAction::Help));
        assert!(!has_flags || long.contains("[env: "), "{name}: {long}");
    }
    let run = loadgen(folder.path(), &words(&["run", "--help"]));
    let run = String::from_utf8_lossy(&run.stdout);
    for heading in
        ["What is measured:", "Load:", "How long and how often:", "Connections:", "What is looked at:", "Output:"]
    {
        assert!(run.contains(heading), "run has {heading}");
    }
    let capacity = loadgen(folder.path(), &words(&["capacity", "--help"]));
    assert!(
        !String::from_utf8_lossy(&capacity.stdout).contains("--rate <PER_S>"),
        "what a search decides is not shown"
    );
}

#[test]
fn the_modes_and_policies_in_the_help_are_those_of_the_server() {
    for (command, arg) in flags().into_iter().filter(|(command, _)| command != "serve") {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let names = match arg.get_long() {
            Some("mode") => loadgen::serve::modes(),
            Some("polling") => loadgen::serve::pollings(),
            _ => continue,
        };
        // What keeps nothing cannot lose it.
        for name in names.iter().filter(|name| command != "crash" || *name != "null") {
            assert!(help.contains(name.as_str()), "{command}: {name} is not in: {help}");
        }
    }
}

#[test]
fn what_only_reads_results_prints_json_and_nothing_else_when_it_is_told_to() {
    let folder = folder_of_examples();
    for line in
        ["gate run.json --slo load.failed<1 --json", "compare run.json --json", "compare old new --json --quiet"]
    {
        let output = loadgen(folder.path(), &words(&line.split(' ').collect::<Vec<_>>()));
        let value: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        assert!(value.is_ok() && output.status.code() == Some(0), "{line}: {}", told(&output));
        let is_told_more = line.starts_with("compare") && !line.contains("--quiet");
        assert_eq!(told(&output).contains("next: "), is_told_more, "{line}");
    }
}

#[test]
fn built_in_plans_are_listed_with_their_length_and_printed_as_files_that_run_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = told(&loadgen(folder.path(), &words(&["plans"])));
    let json = loadgen(folder.path(), &words(&["plans", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON and nothing else");
    for (name, _) in loadgen::plan::BUILT_IN {
        let line =
            list.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is listed: {list}"));
        assert!(line.contains("about ") && line.len() > 40, "a length and a line: {line}");
        assert!(json.as_array().is_some_and(|all| all.iter().any(|plan| plan["name"] == name)), "{json}");
        let printed = loadgen(folder.path(), &words(&["plans", name]));
        std::fs::write(folder.path().join("mine.toml"), &printed.stdout).expect("a file");
        let from_file = loadgen(folder.path(), &words(&["run", "mine.toml", "--dry-run"]));
        let built_in = loadgen(folder.path(), &words(&["run", "--plan", name, "--dry-run"]));
        assert_eq!(from_file.status.code(), Some(0), "{}", told(&from_file));
        assert_eq!(told(&from_file), told(&built_in));
    }
}
