//! Quantiles of known distributions are reported as they are: within 1 % or 20 µs, whichever is larger, up to p99.9.
//!
//! What network and processor add to each answer is in the report, as it should be, and nothing is subtracted from it here: the
//! service times are so long that 1 % of them is more than a machine usually adds.

use reports::model::Arrivals;

use super::simulation::{Case, compare, one_of_some_attempts};

fn case(distribution: &str, service_s: fn(f64) -> f64) -> Case {
    Case {
        faults: format!("service-time={distribution}"),
        arrivals: Arrivals::Poisson,
        rate_per_s: 250.0,
        warmup_s: 1.0,
        steady_s: 8.0,
        // More than are ever in use: events wait at the server, or not at all.
        connections: 700,
        service_s,
        one_at_a_time: false,
        stall_s: None,
    }
}

/// One server for all requests, busy nearly all the time: hundreds of milliseconds of waiting for a few of service.
fn queued(distribution: &str, rate_per_s: f64, service_s: fn(f64) -> f64) -> Case {
    let case = case(distribution, service_s);
    Case { faults: format!("{},queue=one", case.faults), one_at_a_time: true, rate_per_s, steady_s: 25.0, ..case }
}

/// Each as if it were alone: their machine is idle most of the time.
fn all_at_once(cases: &[Case]) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| one_of_some_attempts(&case.faults, || attempt(case)));
        }
    });
}

fn attempt(case: &Case) -> Result<(), String> {
    let (load, truth_s) = (case.report(), case.response_s());
    // There are connections for all, so both times are the same here.
    for (time, reported) in [("response time", &load.response_time), ("service time", &load.service_time)] {
        let comparison = compare(&format!("{} {time}", case.faults), reported, &truth_s);
        if !comparison.is_true(0..4) {
            return Err(comparison.text);
        }
    }
    Ok(())
}

#[test]
fn service_times_of_known_distributions_are_reported_as_they_are() {
    all_at_once(&[
        // Long, because here every answer that the machine delays is in the tail.
        case("constant:2s", |_| 2.0),
        case("exponential:500ms", |u| -0.5 * (1.0 - u).ln()),
        case("two-point:500ms:2s:0.02", |u| if u < 0.02 { 2.0 } else { 0.5 }),
    ]);
}

#[test]
fn waiting_for_a_single_server_is_reported_as_queueing_theory_has_it() {
    all_at_once(&[
        queued("constant:12ms", 83.0, |_| 0.012),
        queued("exponential:12ms", 82.0, |u| -0.012 * (1.0 - u).ln()),
        queued("two-point:6ms:66ms:0.1", 80.0, |u| if u < 0.1 { 0.066 } else { 0.006 }),
    ]);
}
