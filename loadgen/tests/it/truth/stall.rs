//! A stall of 1.4 s at 1,000 events/s is in the response time of every event that was due meanwhile, and in the service time of no more
//! requests than there are connections: the others were not sent, because no connection was free.

use reports::model::{Arrivals, Load, Times};

use super::simulation::{Case, compare, one_of_some_attempts};

const STALL_S: f64 = 1.4;
/// Long enough after the first event for the machine to be warm.
const STALL_BEGIN_S: f64 = 1.0;

fn stalled(rate_per_s: f64, connections: u32) -> Case {
    Case {
        faults: format!("stall={STALL_S}s@{STALL_BEGIN_S}s"),
        arrivals: Arrivals::Constant,
        rate_per_s,
        warmup_s: 0.0,
        steady_s: 5.0,
        connections,
        service_s: |_| 0.0,
        one_at_a_time: false,
        stall_s: Some((STALL_BEGIN_S, STALL_S)),
    }
}

/// How many samples are longer than this.
fn longer_than(times: &Times, s: f64) -> u64 {
    times.histogram().expect("a histogram").count_between((s * 1e9) as u64, u64::MAX)
}

fn expect(what: &str, is_so: bool) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what.to_owned()) }
}

/// What the machine needs to catch up adds to the response times, so they can only be longer than in theory; those of the events that
/// had been waiting the longest by next to nothing, because it is their turn first.
fn appears_in_response_time(case: &Case, load: &Load) -> Result<(), String> {
    let truth_s = case.response_s();
    let comparison = compare("response time", &load.response_time, &truth_s);
    expect(&comparison.text, comparison.is_true(3..4) && comparison.excesses.iter().all(|excess| *excess >= -1.0))?;
    for s in [0.1, 0.7, 1.3] {
        let true_count = truth_s.iter().filter(|time_s| **time_s > s * 1.01).count() as u64;
        expect(&comparison.text, longer_than(&load.response_time, s) >= true_count)?;
    }
    Ok(())
}

#[test]
fn a_stall_is_in_the_response_time_of_all_events_that_waited_and_in_the_service_time_of_one_per_connection() {
    const CONNECTIONS: u32 = 16;
    let case = stalled(1_000.0, CONNECTIONS);
    one_of_some_attempts("a stall", || {
        let load = case.report();
        appears_in_response_time(&case, &load)?;
        // All connections are taken within 16 ms, each by a request that then takes until the end of the stall.
        let stuck = longer_than(&load.service_time, STALL_S - 0.1);
        let p99_ms = load.service_time.p99_ns as f64 / 1e6;
        expect(&format!("{stuck} requests took as long as the stall"), stuck == u64::from(CONNECTIONS))?;
        expect(&format!("service time p99 {p99_ms} ms"), p99_ms < 100.0)?;
        let waited = longer_than(&load.connection_wait, 0.1);
        let due_meanwhile = ((STALL_S - 0.1) * 1_000.0) as u64 - u64::from(CONNECTIONS);
        expect(&format!("{waited} events waited for a connection"), waited >= due_meanwhile)
    });
}

#[test]
fn with_a_connection_for_every_event_a_stall_is_in_both_times() {
    let case = stalled(400.0, 700);
    one_of_some_attempts("a stall", || {
        let load = case.report();
        appears_in_response_time(&case, &load)?;
        let service = compare("service time", &load.service_time, &case.response_s());
        expect(&service.text, service.is_true(2..4))?;
        expect("nobody waits for a connection", load.connection_wait.count == 0)
    });
}

/// How fast a machine catches up is not known, but that of a single server with a known service time is: all quantiles can be told then.
#[test]
fn catching_up_after_a_stall_takes_as_long_as_theory_says() {
    let stalled = stalled(1_000.0, 64);
    let case = Case {
        faults: format!("{},service-time=constant:600us,queue=one", stalled.faults),
        arrivals: Arrivals::Poisson,
        service_s: |_| 0.0006,
        one_at_a_time: true,
        ..stalled
    };
    one_of_some_attempts("catching up", || {
        let comparison = compare("response time", &case.report().response_time, &case.response_s());
        expect(&comparison.text, comparison.is_true(0..4))
    });
}
