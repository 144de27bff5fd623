//! The floor of the machine: measured before every run that has none in its plan, and by itself.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Done, acknowledge, answer, assert_ends_with, begin_command, run, target};
use reports::model::CaveatKind;

/// A target that acknowledges and shows nothing.
fn url() -> String {
    let number = AtomicU64::new(1);
    let address = target(move |request, stream| match request.is_event() {
        true => acknowledge(stream, number.fetch_add(1, Ordering::Relaxed)),
        false => answer(stream, 404, "{}"),
    });
    format!("http://{address}")
}

fn says_not_calibrated(done: &Done) -> bool {
    done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::NotCalibrated)
}

#[test]
fn a_run_has_the_floor_of_its_own_machine_beside_each_number() {
    let plan = ["--rate", "150", "--warmup", "100ms", "--duration", "1s", "--idle", "0s", "--connections", "8"];
    let url = url();
    let done = begin_command("run", &[&plan[..], &["--target", &url, "--api-key", "k", "--no-ledger"]].concat()).end();
    let floor = done.run.calibration.as_ref().unwrap_or_else(|| panic!("no floor:\n{}", done.text));
    assert_eq!((floor.rate_per_s, floor.seconds), (150.0, 3.0));
    assert!(floor.response_time.count > 300 && floor.service_time.p50_ns > 0, "{floor:?}");
    assert_eq!(floor.timer_lateness.count, 200);
    assert!(floor.hiccups.is_some() && floor.generator_cpu_ns_per_request.is_some(), "{floor:?}");
    assert!(floor.rate_per_s_max.is_none() && floor.closed_per_s_max.is_none(), "that is for calibrate");
    assert!(done.text.contains("floor (null)") && !says_not_calibrated(&done), "{}", done.text);
}

#[test]
fn a_run_without_a_floor_says_so_unless_it_has_the_variant_null() {
    let left_out = run(&["--target", &url(), "--api-key", "k", "--no-ledger"]);
    assert!(left_out.run.calibration.is_none() && says_not_calibrated(&left_out), "{}", left_out.text);
    let own = run(&["--mode", "null,cache-first"]);
    assert!(own.run.calibration.is_none() && !says_not_calibrated(&own), "{}", own.text);
}

#[test]
fn calibrate_measures_the_floor_and_looks_for_the_highest_honest_rate() {
    let done = begin_command("calibrate", &["--rate", "200", "--duration", "1s", "--rate-max", "1000"]).end();
    assert_ends_with(&done, 0);
    let floor = done.run.calibration.as_ref().unwrap_or_else(|| panic!("no floor:\n{}", done.text));
    assert!(floor.response_time.count > 100, "{floor:?}");
    // Whether a debug build on a busy machine is honest at that rate is not for a test to demand; that the result says which, is.
    match (floor.rate_per_s_max, &floor.limit) {
        (Some(rate), _) => assert!(rate <= 1_000.0, "{floor:?}"),
        (None, Some(limit)) => assert!(!limit.is_empty() && floor.rate_per_s_failed.is_some(), "{floor:?}"),
        (None, None) => panic!("neither a rate nor a reason: {floor:?}"),
    }
    assert!(floor.closed_per_s_max.is_some_and(|per_s| per_s > 100.0), "{floor:?}");
    assert!(done.text.contains("floor of this machine") && done.text.contains("closed loop"), "{}", done.text);
}
