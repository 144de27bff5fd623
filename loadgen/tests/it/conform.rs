//! `loadgen conform`: the reference server keeps every rule in each mode on each store, and each of many broken servers fails the very
//! rule that it breaks. A broken server is the reference behind a proxy that changes one thing, or one that is started otherwise.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use reports::conform::{Rule, with};
use reports::model::{Conformance, RuleOutcome};

use crate::proxy::{self, Change, Proxy};
use crate::support::{Done, begin_command};

/// As many at once as wait more than they work.
const AT_ONCE: usize = 8;

fn conform(arguments: &[&str]) -> Done {
    begin_command("conform", arguments).end()
}

fn ids(found: &Conformance, outcome: RuleOutcome) -> Vec<&str> {
    with(found, outcome).iter().map(|rule| rule.id.as_str()).collect()
}

fn all_but(left_out: &[&str]) -> String {
    let ids: Vec<String> = Rule::ALL.map(Rule::id).into_iter().filter(|id| !left_out.contains(&id.as_str())).collect();
    ids.join(",")
}

/// Does the work for each of the cases, several at once.
fn for_each<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(case);
                }
            });
        }
    });
}

#[test]
fn the_reference_keeps_every_rule_in_each_mode_on_each_store() {
    let postgres = std::env::var("MILLRACE_TEST_POSTGRES").expect(
        "MILLRACE_TEST_POSTGRES is not set: run scripts/test, or export MILLRACE_TEST_POSTGRES=$(scripts/postgres start DIR)",
    );
    let cases: Vec<(&str, &str)> = ["cache-first", "journal-first", "db-first"]
        .into_iter()
        .flat_map(|mode| [(mode, "sqlite"), (mode, postgres.as_str())])
        .collect();
    for_each(&cases, |(mode, database)| {
        let done = conform(&["--mode", mode, "--database", database]);
        assert_eq!(done.code, 0, "{}", done.text);
        let [found] = &done.run.conformance[..] else { panic!("one target: {}", done.text) };
        assert_eq!(ids(found, RuleOutcome::Passed), Rule::ALL.map(Rule::id), "{}", done.text);
        // All that stays open can be seen from outside by nobody, or takes a day, or kills.
        let open: Vec<&str> =
            found.rules.iter().filter(|rule| !rule.untested.is_empty()).map(|rule| &rule.id[..]).collect();
        assert_eq!(open, ["A1", "I1", "I2", "R1", "D2", "O2", "O4"], "{}", done.text);
    });
}

#[test]
fn a_server_that_does_nothing_fails_most_rules_and_what_it_cannot_show_is_not_passed() {
    let done = conform(&["--mode", "null", "--rule", &all_but(&["D1", "O2"])]);
    assert_eq!(done.code, 3, "{}", done.text);
    let found = &done.run.conformance[0];
    assert_eq!(
        ids(found, RuleOutcome::Failed),
        ["A2", "I1", "I2", "I3", "I4", "I5", "I6", "I7", "R1", "D2"],
        "{}",
        done.text
    );
    assert_eq!(ids(found, RuleOutcome::NotTestable), ["I8", "R2", "O5"], "{}", done.text);
}

/// What one test knows of its broken servers: the name of each, the rules it breaks, and how.
type Broken = (&'static str, &'static [&'static str], fn() -> Change);

/// A reference server for several proxies at once.
struct Shared {
    _child: Child,
    _folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Shared {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = format!("sqlite:{}", folder.path().join("events.db").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["serve", "--listen", "127.0.0.1:0", "--exit-with-stdin", "--log", "error", "--database", &database])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").expect(&line).parse().expect("an address");
        Self { _child: child, _folder: folder, address }
    }
}

/// Tests proxies in front of one server that runs already, where I6 and O5 cannot be tested.
fn assert_each_fails_its_rules(server: &Shared, cases: &[Broken]) {
    let rules = all_but(&["I6", "O5"]);
    let failed = Mutex::new(Vec::new());
    for_each(cases, |(name, expected, change)| {
        let proxy = Proxy::start(change());
        let done = conform(&["--target", &proxy.url_of(server.address), "--rule", &rules]);
        let found = ids(&done.run.conformance[0], RuleOutcome::Failed);
        let code = if expected.is_empty() { 0 } else { 3 };
        if found != **expected || done.code != code {
            failed.lock().expect("no panic").push(format!("{name}: not {expected:?} but {found:?}:\n{}", done.text));
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn each_broken_server_fails_the_rule_that_it_breaks_and_no_other() {
    assert_each_fails_its_rules(&Shared::start(&[]), proxy::BROKEN);
}

#[test]
fn each_server_with_broken_webhooks_fails_the_rule_that_it_breaks_and_no_other() {
    assert_each_fails_its_rules(&Shared::start(&["--webhook-private-addresses"]), proxy::BROKEN_WEBHOOKS);
}

/// A program to start in place of the reference server: a script.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/usr/bin/env bash\n{text}\n")).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

/// Runs the reference as a child, and does this on SIGTERM. (What runs in the background has no input of its own otherwise.)
fn with_trap(on_term: &str) -> String {
    format!(
        "\"$LOADGEN\" \"$@\" <&0 & child=$!\ntrap '{on_term}' TERM\nwhile kill -0 $child 2>/dev/null; do wait $child; done"
    )
}

#[test]
fn each_server_that_is_started_or_ended_wrongly_fails_the_rules_that_it_breaks() {
    let folder = tempfile::tempdir().expect("a folder");
    let exec = |flags: &str| format!("exec \"$LOADGEN\" \"$@\" {flags}");
    let cases: Vec<(&str, &[&str], String)> = vec![
        ("as it should be", &[], exec("")),
        ("three attempts", &["D1"], exec("--webhook-attempts-max 3")),
        ("waits that do not grow", &["D1"], exec("--webhook-wait-factor 1")),
        ("deliveries that are dropped", &["D1"], exec("--fault webhook-drop=0.7")),
        ("webhooks lead inside", &["D2"], exec("--webhook-private-addresses")),
        ("another limit", &["A4"], exec("--rate-limit-free-per-minute 50")),
        ("exits 1", &["O5"], with_trap("kill -TERM $child; wait $child; exit 1")),
        ("drops what is pending", &["I2", "O5"], with_trap("kill -KILL $child; exit 0")),
    ];
    let failed = Mutex::new(Vec::new());
    for_each(&cases, |(name, expected, text)| {
        let path =
            script(folder.path(), &name.replace(' ', "-"), &text.replace("$LOADGEN", env!("CARGO_BIN_EXE_loadgen")));
        let done = conform(&["--mode", "cache-first", "--server", path.to_str().expect("a path")]);
        let found = ids(&done.run.conformance[0], RuleOutcome::Failed);
        if found != **expected {
            failed.lock().expect("no panic").push(format!("{name}: not {expected:?} but {found:?}:\n{}", done.text));
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn a_full_server_that_says_otherwise_is_caught() {
    let folder = tempfile::tempdir().expect("a folder");
    // What is started says that it listens at the proxy, which finds the server by the path.
    let failed = Mutex::new(Vec::new());
    for_each(proxy::BROKEN_WHEN_FULL, |(name, expected, change)| {
        let proxy = Proxy::start(change());
        let text = format!(
            "exec \"{}\" \"$@\" > >(sed -u 's#http://127.0.0.1:#http://{}/#')",
            env!("CARGO_BIN_EXE_loadgen"),
            proxy.address
        );
        let path = script(folder.path(), &name.replace(' ', "-"), &text);
        // In front of O5's server the proxy goes on listening.
        let arguments =
            ["--mode", "cache-first", "--rule", &all_but(&["O5"]), "--server", path.to_str().expect("a path")];
        let done = conform(&arguments);
        let found = ids(&done.run.conformance[0], RuleOutcome::Failed);
        if found != **expected {
            failed.lock().expect("no panic").push(format!("{name}: not {expected:?} but {found:?}:\n{}", done.text));
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// A folder with a profile in it.
fn profile(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("profile.toml"), text).expect("a file");
    folder
}

#[test]
fn a_profile_starts_its_target_and_what_it_does_not_claim_is_not_tested() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../targets/rust/profile.toml")).expect("a file");
    let folder = profile(&format!("claims = [\"A1\", \"I2\", \"O1\", \"O5\"]\n{text}"));
    let done = conform(&["--target", folder.path().to_str().expect("a path")]);
    assert_eq!(done.code, 0, "{}", done.text);
    let found = &done.run.conformance[0];
    assert_eq!(
        (&found.target[..], ids(found, RuleOutcome::Passed)),
        ("rust", vec!["A1", "I2", "O1", "O5"]),
        "{}",
        done.text
    );
    assert_eq!(ids(found, RuleOutcome::NotClaimed).len(), Rule::ALL.len() - 4, "{}", done.text);
    // It was started here: I2 also across a restart.
    let rule = found.rules.iter().find(|rule| rule.id == "I2").expect("I2");
    assert!(rule.passed.iter().any(|clause| clause.contains("restart")), "{rule:?}");
}

#[test]
fn a_server_of_another_form_is_tested_by_its_profile() {
    let server = Shared::start(&[]);
    let proxy = Proxy::start(proxy::other_form());
    let url = proxy.url_of(server.address);
    let claims = r#"claims = ["A1", "A2", "I1", "I2", "I3", "I4", "I5", "I7", "I8", "R1", "R2", "O1"]"#;
    let folder = profile(&format!("name = 'older'\n{claims}\n[http]\nurl = '{url}'\n{}", proxy::OTHER_FORM));
    let done = conform(&["--target", folder.path().to_str().expect("a path")]);
    let found = &done.run.conformance[0];
    let expected = ["A1", "A2", "I1", "I2", "I3", "I5", "I8", "R1", "R2", "O1"];
    assert_eq!(ids(found, RuleOutcome::Passed), expected, "{}", done.text);
    // Which are about the form of bodies.
    assert_eq!(ids(found, RuleOutcome::NotTestable), ["I4", "I7"], "{}", done.text);
}

#[test]
fn every_rule_is_broken_by_some_server_of_these_tests() {
    let tables = [proxy::BROKEN, proxy::BROKEN_WEBHOOKS, proxy::BROKEN_WHEN_FULL];
    let mut broken: HashMap<String, usize> = HashMap::new();
    for rule in tables.into_iter().flatten().flat_map(|(_, rules, _)| *rules) {
        *broken.entry((*rule).to_owned()).or_default() += 1;
    }
    // By one that is ended wrongly.
    broken.insert("O5".to_owned(), 2);
    let never: Vec<String> = Rule::ALL.map(Rule::id).into_iter().filter(|id| !broken.contains_key(id)).collect();
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn a_dead_target_is_invalid_and_what_cannot_be_followed_is_refused() {
    let dead = conform(&["--target", "http://127.0.0.1:1"]);
    assert_eq!(dead.code, 5, "{}", dead.text);
    assert!(dead.text.contains("onnection refused"), "{}", dead.text);
    for (arguments, says) in [
        (&["--mode", "cache-frist"][..], "is unknown"),
        (&["--database", "mysql"], "allowed: sqlite, postgres://USER@HOST:PORT/NAME; give one or both"),
        (&["--database", "sqlite,sqlite"], "is there twice"),
        (&["--rule", "Z9"], "is no rule of the contract; allowed: A1, A2"),
        (&["--target", "nonsense"], "is no target"),
        (&["--server", "/nowhere/at/all"], "no such file"),
        (&["--target", "http://127.0.0.1:1", "--mode", "null"], "does not go with"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("conform").args(arguments).output();
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(says), "{arguments:?}: {text}");
    }
}

#[test]
fn outcomes_are_written_as_junit_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("conform.xml");
    let junit = ["--junit", file.to_str().expect("a path")];
    let done = conform(&[&["--mode", "cache-first", "--rule", "a1,O1"][..], &junit].concat());
    assert_eq!(done.code, 0, "{}", done.text);
    let text = std::fs::read_to_string(file).expect("a file");
    assert!(text.contains("<testsuite name=\"cache-first on sqlite\" tests=\"2\" failures=\"0\""), "{text}");
    assert!(text.contains("name=\"O1 health\"/>"), "{text}");
}
