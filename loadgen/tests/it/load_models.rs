//! Loads whose rate changes, recordings that are sent again, and payloads of different sizes, from the command line to the result.
//!
//! What was planned is a matter of the schedule alone, so it is compared exactly, however slow the machine is.

use std::process::Command;

use reports::model::{PayloadSizes, Shape};

use crate::support::{Done, run};

fn planned_by_second(done: &Done) -> Vec<u64> {
    done.run.results[0].load.intervals.iter().map(|interval| interval.planned).collect()
}

#[test]
fn a_ramp_is_offered_second_by_second_and_the_report_says_so() {
    let shape = ["--shape", "ramp 0..300", "--arrivals", "constant", "--duration", "3s"];
    let done = run(&[&["--mode", "null"], &shape[..]].concat());
    assert_eq!(planned_by_second(&done), [50, 150, 250], "{}", done.text);
    let plan = &done.run.plan;
    assert_eq!((plan.rate_per_s, &plan.shape), (150.0, &Some(Shape::Ramp { from_per_s: 0.0, to_per_s: 300.0 })));
    assert_eq!(done.run.results[0].load.offered_per_s, 150.0);
    assert!(done.text.contains("arrivals: constant, ramp from 0/s to 300/s, 150/s on average"), "{}", done.text);
}

#[test]
fn bursts_rise_above_the_rate_between_them() {
    let shape =
        ["--shape", "burst 500 for 200ms every 1s", "--rate", "50", "--arrivals", "constant", "--duration", "2s"];
    let done = run(&[&["--mode", "null"], &shape[..]].concat());
    // 0.8 s of 50/s and 0.2 s of 500/s.
    assert_eq!(planned_by_second(&done), [140, 140], "{}", done.text);
}

#[test]
fn a_recording_is_sent_as_recorded_and_its_sizes_come_back_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("recorded.csv");
    // Twice as fast: 60 events in the first second, 20 in the next half.
    let early = (0..60).map(|n| format!("{},{}\n", n * 30, 40 + n * 50));
    let late = (0..20).map(|n| format!("{},\n", 2_000 + n * 50));
    let rows: String = early.chain(late).collect();
    std::fs::write(&path, format!("offset_ms,payload_bytes\n{rows}")).expect("a file");
    let replay = ["--replay", path.to_str().expect("a path"), "--replay-speed", "2", "--payload-bytes", "37..300"];
    let done = run(&[&["--mode", "cache-first"], &replay[..]].concat());
    assert_eq!(planned_by_second(&done), [60, 20], "{}", done.text);
    let (plan, result) = (&done.run.plan, &done.run.results[0]);
    let replayed = plan.replay.as_ref().expect("a replay");
    assert_eq!((replayed.events, replayed.speed, replayed.payload_bytes_median), (80, 2.0, Some(1_490)));
    assert_eq!(plan.payload_sizes, Some(PayloadSizes::Uniform { bytes_min: 37, bytes_max: 300 }));
    let ledger = result.ledger.as_ref().expect("a ledger");
    assert!(ledger.acknowledged > 0, "{}", done.text);
    assert_eq!((ledger.lost, ledger.corrupted, ledger.unverified), (0, 0, 0), "{ledger:?}\n{}", done.text);
}

#[test]
fn a_plan_that_cannot_be_followed_ends_with_2_before_anything_is_started() {
    for (arguments, expected) in [
        (vec!["--shape", "sine 5"], "'ramp 100..5000'"),
        (vec!["--shape", "ramp 1..2", "--rate", "5"], "does not go with --rate 5"),
        (vec!["--mix", "insert 1"], "the operation 'insert' is unknown"),
        (vec!["--http", "3"], "1.1"),
        (vec!["--http", "2"], "is not spoken by the reference server"),
        (vec!["--pacing", "nap"], "hybrid"),
        (vec!["--sender-nice", "5"], "-20 to 0"),
        (vec!["--realtime", "all"], "sender, server, both"),
        (vec!["--realtime", "both", "--sender-nice", "-5"], "does not go with --sender-nice"),
        (vec!["--realtime", "sender", "--pacing", "spin"], "does not go with --pacing spin"),
        (vec!["--realtime", "both", "--target", "http://h"], "give --realtime sender"),
        (vec!["--samples", "/no/such/folder/samples.csv"], "--samples = /no/such/folder/samples.csv: No such file"),
        (vec!["--ledger-events-max", "0"], "1 to 1000000000 events"),
        (vec!["--replay", "/no/such.csv"], "cannot read the recording /no/such.csv"),
        (vec!["--target", "http://h", "--target", "http://h"], "is there twice"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("run").args(&arguments).output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
