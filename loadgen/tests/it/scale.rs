//! `scripts/scale/model.py check`: the simulation passes its own tests and foretells what was measured, and says so when it does not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn check(arguments: &[&Path]) -> Output {
    let model = repository().join("scripts/scale/model.py");
    Command::new("python3").arg(model).arg("check").args(arguments).output().expect("python3")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_simulation_foretells_what_was_measured() {
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[test]
fn a_measurement_that_the_simulation_does_not_foretell_is_found() {
    let folder = repository().join("results/2026-11-28-scale");
    let text = std::fs::read_to_string(folder.join("measured.json")).expect("what was measured");
    let desk = tempfile::tempdir().expect("a folder");
    std::fs::copy(folder.join("constants.json"), desk.path().join("constants.json")).expect("the constants");
    for (row, number, factor) in [("redis-10000", "cores", 2.0), ("memory-closed", "achieved_per_s", 0.4)] {
        let mut measured: Value = serde_json::from_str(&text).expect("JSON");
        let rows = measured["rows"].as_array_mut().expect("rows");
        let wrong = rows.iter_mut().find(|found| found["name"] == row).expect("the row");
        let median = &mut wrong["values"][number]["median"];
        *median = json!(median.as_f64().expect("a number") * factor);
        let path = desk.path().join("measured.json");
        std::fs::write(&path, measured.to_string()).expect("a file");
        let output = check(&[&path]);
        assert_eq!(output.status.code(), Some(1), "{row}: {}", told(&output));
        assert!(told(&output).contains(&format!("WRONG {row}")), "{}", told(&output));
    }
}
