//! Refusals and closed connections appear as outcomes, each counted once. (Those by chance are in the tests of the ledger.)

use reports::model::Outcomes;

use super::server::{Data, FaultyServer};
use super::simulation::one_of_some_attempts;
use crate::support::{PATIENT, run};

#[test]
fn what_a_throttle_refuses_is_counted_to_the_event() {
    one_of_some_attempts("a throttle", || {
        let server = FaultyServer::start("null", Data::sqlite(), "throttle=120/s");
        // Three seconds begun, each with more events than are let through, and its end far from the end of a second.
        let done = run(&[
            &["--target", &server.url, "--api-key", "none"][..],
            &PATIENT,
            &["--arrivals", "constant", "--rate", "200", "--warmup", "0s", "--duration", "2800ms"],
        ]
        .concat());
        let load = &done.run.results[0].load;
        let truth = Outcomes { accepted: 3 * 120, rejected: 560 - 3 * 120, ..Outcomes::default() };
        assert_eq!(load.statuses.get("429"), Some(&load.outcomes.rejected));
        assert_eq!(load.response_time.count + load.refused_time.count, 560, "refusals flatter no response time");
        assert_eq!(load.refused_time.count, load.outcomes.rejected);
        if load.outcomes == truth { Ok(()) } else { Err(format!("{:?} instead of {truth:?}", load.outcomes)) }
    });
}

#[test]
fn a_server_that_only_refuses_or_closes_has_accepted_nothing() {
    for (faults, error) in [
        ("status=500:1", "HTTP 500"),
        ("close-before=1", "connection closed before the whole answer"),
        ("close-after=1", "connection closed before the whole answer"),
    ] {
        let server = FaultyServer::start("null", Data::sqlite(), faults);
        let done = run(&[&["--target", &server.url, "--api-key", "none"][..], &PATIENT].concat());
        let load = &done.run.results[0].load;
        assert_eq!(load.outcomes, Outcomes { failed: load.planned, ..Outcomes::default() }, "{faults}\n{}", done.text);
        assert_eq!((load.errors.len(), load.errors[0].kind.as_str()), (1, error), "{faults}");
    }
}
