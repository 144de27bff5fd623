//! `loadgen history` as a command.

use std::path::Path;
use std::process::{Command, Output};

fn history(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg("history").args(arguments).output().expect("the program runs")
}

#[test]
fn a_folder_of_runs_becomes_a_page_and_what_is_no_run_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/fixtures/three-modes.json");
    let run = std::fs::read_to_string(fixture).expect("a fixture");
    for (place, text) in [("run.json", run.as_str()), ("notes.json", "{")] {
        std::fs::write(folder.path().join(place), text).expect("a file");
    }
    let (from, to) = (folder.path().display().to_string(), folder.path().join("site").display().to_string());
    let done = history(&[&from, "--out", &to]);
    let told = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(told.contains("notes.json: this is not JSON") && told.contains("too few runs: 1 of 12"), "{told}");
    let page = std::fs::read_to_string(folder.path().join("site/history.html")).expect("a page");
    assert!(page.contains("History of 1 run") && page.contains("notes.json"));
    let json = history(&[&from, "--out", &to, "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(value["schema"], "history.v1");
    assert_eq!(value["left_out"].as_array().expect("a list").len(), 1, "its own output is no reason to tell anybody");
}

#[test]
fn a_folder_without_runs_or_none_at_all_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, told) in [(folder.path().to_owned(), "no run in it"), (folder.path().join("nowhere"), "No such file")] {
        let done = history(&[&path.display().to_string()]);
        let error = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{error}");
        assert!(error.contains(told) && error.contains(&path.display().to_string()), "{error}");
    }
}
