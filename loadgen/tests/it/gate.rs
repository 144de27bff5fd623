//! `loadgen gate` from its command line to its exit code, on the reference server: what is worse is said to be, and what says nothing never
//! passes. How often the rule is wrong is `loadgen gate --self-test`'s to say, and takes longer than a test may.

use std::path::PathBuf;
use std::process::Command;

use reports::gate::file;
use reports::gate::model::{Gate, GateOutcome};
use tempfile::TempDir;

/// What a gate did.
struct Done {
    code: i32,
    text: String,
    /// `None`: it wrote none.
    gate: Option<Gate>,
    out: TempDir,
}

/// Rounds so short that a few fit into a test: only the median can be judged.
const SHORT: [&str; 18] = [
    "--rounds",
    "6",
    "--metric",
    "p50",
    "--rate",
    "500",
    "--warmup",
    "100ms",
    "--duration",
    "500ms",
    "--idle",
    "0s",
    "--capacity",
    "0s",
    "--connections",
    "8",
    "--quiet",
    "--no-confirm",
];

fn gate(arguments: &[&str]) -> Done {
    let out = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["gate", "--out", out.path().to_str().expect("a path")])
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let json = std::fs::read_to_string(out.path().join("gate.json")).ok();
    let gate = json.map(|json| file::read(&json).expect("a valid result"));
    Done { code: output.status.code().expect("an exit code"), text, gate, out }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../reports/fixtures").join(name)
}

#[test]
fn a_slow_down_is_found_and_told_in_every_form() {
    let summary = tempfile::NamedTempFile::new().expect("a file");
    let path = summary.path().to_str().expect("a path");
    let done = gate(&[&SHORT[..], &["--candidate-fault", "service-time=constant:5ms", "--summary", path]].concat());
    let gate = done.gate.expect("a result");
    // Tests that run at the same time may keep the machine too busy to tell anything, and then that is what is said.
    let excused = gate.verdict.pairs_left_out > 2 && gate.verdict.outcome == GateOutcome::Invalid;
    assert!(done.code == 3 || excused && done.code == 5, "{}", done.text);
    assert_eq!(done.code, i32::from(gate.verdict.exit_code));
    assert_eq!(gate.candidate.faults, ["service-time=constant:5ms"]);
    for pair in &gate.pairs {
        assert_eq!((pair.baseline.lost, pair.candidate.lost), (0, 0));
        assert_eq!(pair.baseline.planned, pair.candidate.planned, "the same load on both sides");
        assert!(pair.candidate.response_time_ns_p50 > pair.baseline.response_time_ns_p50, "{pair:?}");
    }
    let page = std::fs::read_to_string(done.out.path().join("report.html")).expect("a page");
    let markdown = std::fs::read_to_string(path).expect("a summary");
    for (form, text) in [("page", &page), ("summary", &markdown), ("terminal", &done.text)] {
        assert!(text.contains("response time p50"), "{form}: {text}");
        assert!(text.to_lowercase().contains(gate.verdict.outcome.name()), "{form}: {text}");
    }
    let stored = done.out.path().join("gate.json");
    let stored = stored.to_str().expect("a path");
    let other_load = self::gate(&[&SHORT[..], &["--against", stored, "--rate", "400"]].concat());
    assert_eq!(other_load.code, 2, "{}", other_load.text);
    assert!(other_load.text.contains("plan.rate_per_s: 500.0 then, 400.0 now"), "{}", other_load.text);
    if gate.verdict.pairs_left_out == 0 {
        let weak = self::gate(&[&SHORT[..], &["--against", stored]].concat());
        assert!(weak.text.contains("WEAK: the baseline was read from"), "{}", weak.text);
        assert!(
            [0, 5].contains(&weak.code),
            "without the fault it is better, if the machine lets see it: {}",
            weak.text
        );
    }
}

#[test]
fn a_candidate_that_loses_has_regressed_whatever_else() {
    let done = gate(&[&SHORT[..], &["--candidate-fault", "drop=0.2"]].concat());
    assert_eq!(done.code, 3, "{}", done.text);
    let gate = done.gate.expect("a result");
    assert_eq!(gate.pairs.len(), 1, "nothing more has to be known");
    assert!(gate.verdict.reasons[0].starts_with("the candidate lost "), "{}", done.text);
}

#[test]
fn what_says_nothing_never_passes() {
    let cases: [(&str, &[&str], &str); 4] = [
        ("one program twice", &[], "the same program with the same flags"),
        ("a program that is no server", &["--candidate", "/bin/false"], "the candidate: "),
        ("a baseline that is none", &["--baseline", "/bin/true serve"], "the baseline: "),
        ("no events", &["--rate", "0.1", "--candidate-fault", "cpu=1us"], "accepted no event"),
    ];
    for (name, arguments, part) in cases {
        let done = gate(&[&SHORT[..], arguments].concat());
        assert_eq!(done.code, 5, "{name}: {}", done.text);
        assert!(done.text.contains(part), "{name}: {}", done.text);
    }
}

#[test]
fn one_run_is_judged_by_its_objectives_and_a_file_that_is_none_is_refused() {
    let run = fixture("three-modes.json");
    let run = run.to_str().expect("a path");
    let broken = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(broken.path(), "{\"schema\": \"run.v1\"}").expect("written");
    let broken = broken.path().to_str().expect("a path");
    for (arguments, code, part) in [
        (&[run, "--slo", "response_time.p50 < 1s"][..], 0, "PASS"),
        (&[run, "--slo", "response_time.p50 < 1ns"], 3, "MISSED"),
        (&[run, "--slo", "nonsense"], 2, "--slo"),
        (&[broken, "--slo", "response_time.p50 < 1s"], 2, "does not follow its schema"),
        (&["/nowhere.json"], 2, "/nowhere.json"),
        (&["--rounds", "7"], 2, "even, 6 to 100"),
        (&["--mode", "no-such-mode"], 2, "no-such-mode"),
        (&["--candidate", "/nowhere/loadgen serve"], 2, "cannot read the program"),
    ] {
        let done = gate(arguments);
        assert_eq!(done.code, code, "{arguments:?}: {}", done.text);
        assert!(done.text.contains(part), "{arguments:?}: {}", done.text);
        assert!(done.gate.is_none());
    }
}
