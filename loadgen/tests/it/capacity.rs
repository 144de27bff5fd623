//! The search for a capacity, against targets whose capacity is known.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{Done, Running, acknowledge, answer, assert_ends_with, begin_command, target};
use reports::model::{Capacity, CaveatKind};

#[derive(Deserialize)]
struct Event {
    dedup_id: String,
    payload: Box<RawValue>,
}

/// An event and when it will be persisted.
struct Stored {
    number: u64,
    event: Event,
    at: SystemTime,
}

/// So long that a busy machine, which sends a little late, is not most of the response time: else the trial would be void.
const ANSWERING: Duration = Duration::from_millis(20);

/// Acknowledges everything it is sent and persists `per_s` a second, one after the other.
fn slow_store(per_s: f64) -> SocketAddr {
    let stored: Arc<Mutex<Vec<Stored>>> = Arc::default();
    target(move |request, stream| {
        if request.is_event() {
            std::thread::sleep(ANSWERING);
        }
        let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
        if request.is_event() {
            let free =
                stored.last().map_or(SystemTime::UNIX_EPOCH, |last| last.at + Duration::from_secs_f64(1.0 / per_s));
            let event = serde_json::from_slice(&request.body).expect("an event");
            let number = stored.len() as u64 + 1;
            stored.push(Stored { number, event, at: SystemTime::now().max(free) });
            return acknowledge(stream, number);
        }
        match request.line.contains(" /api/inbox") {
            true => answer(stream, 200, &inbox(&stored)),
            false => answer(stream, 404, "{}"),
        }
    })
}

/// What is persisted by now, on one page.
fn inbox(stored: &[Stored]) -> String {
    let now = SystemTime::now();
    let events = stored.iter().filter(|stored| stored.at <= now).map(|stored| {
        let id = uuid::Uuid::from_u128(u128::from(stored.number));
        let at = jiff::Timestamp::try_from(stored.at).expect("a time");
        let Event { dedup_id, payload } = &stored.event;
        format!(r#"{{"id":"{id}","dedup_id":"{dedup_id}","payload":{payload},"persisted_at":"{at}"}}"#)
    });
    format!(r#"{{"events":[{}],"next_cursor":null}}"#, events.collect::<Vec<_>>().join(","))
}

/// Begins a search with short trials at low rates.
fn begin(address: SocketAddr, arguments: &[&str]) -> Running {
    let url = format!("http://{address}");
    let target =
        ["--target", &url, "--api-key", "k", "--connections", "64", "--no-calibration", "--arrivals", "constant"];
    let short = ["--warmup", "200ms", "--probe", "1s", "--resolution", "20%", "--confirm", "1"];
    begin_command("capacity", &[&target[..], &short, arguments].concat())
}

fn capacity(done: &Done) -> &Capacity {
    done.run.capacity.first().unwrap_or_else(|| panic!("no capacity:\n{}", done.text))
}

/// One event in two hundred a second: far from what the generator or a debug build could not do.
const PERSISTED_PER_S: f64 = 200.0;

#[test]
fn a_server_that_acknowledges_at_once_and_persists_slowly_has_the_capacity_of_what_it_persists() {
    // The median: 200 samples are enough to judge it, and a busy machine does not change it.
    let rates = ["--rate-min", "100", "--rate-max", "1600", "--fail-under", "150"];
    let done =
        begin(slow_store(PERSISTED_PER_S), &[&rates[..], &["--slo", "response_time.p50 < 500ms"]].concat()).end();
    assert_ends_with(&done, 0);
    let found = capacity(&done);
    let rate = found.rate_per_s.unwrap_or_else(|| panic!("none was found:\n{}", done.text));
    assert!((160.0..=240.0).contains(&rate), "{rate}, not about {PERSISTED_PER_S}\n{}", done.text);
    assert!(found.failed_because.iter().any(|why| why.contains("it acknowledges")), "{found:?}");
    for trial in found.trials.iter().filter(|trial| trial.rate_per_s >= 2.0 * PERSISTED_PER_S && !trial.is_saturated) {
        let persisted = trial.persisted_per_s.expect("known");
        assert!((0.8..1.25).contains(&(persisted / PERSISTED_PER_S)), "{trial:?}");
        assert!(trial.achieved_per_s > 1.5 * persisted, "it acknowledges all of them: {trial:?}");
    }
    assert!(done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::HysteresisPossible), "{}", done.text);
    assert_eq!(done.run.results.len(), 1, "the one that confirmed it");
}

#[test]
fn a_capacity_below_what_was_asked_for_ends_with_3() {
    let rates = ["--rate-min", "800", "--rate-max", "1600", "--fail-under", "800"];
    let done =
        begin(slow_store(PERSISTED_PER_S), &[&rates[..], &["--slo", "response_time.p50 < 500ms"]].concat()).end();
    assert_ends_with(&done, 3);
    assert_eq!(capacity(&done).rate_per_s, None, "{}", done.text);
    assert!(done.text.contains("less than the 800/s that were asked for"), "{}", done.text);
}

#[test]
fn what_the_search_decides_itself_cannot_be_asked_for() {
    for (arguments, says) in [
        (&["--rate", "5"][..], "--rate: does not go with capacity"),
        (&["--mode", "null"], "--mode null: does not go"),
        (&["--rate-min", "500", "--rate-max", "100"], "the smaller one first"),
        (&["--resolution", "0%"], "allowed: 0.5% to 100%"),
        (&["--slo", "cache-first: response_time.p50 < 2 x db-first"], "a trial has only one"),
        (&["--rate-min", "100", "--slo", "response_time.p99 < 10ms"], "allowed: 184 events per second"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("capacity").args(arguments).output();
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(says), "{arguments:?}: {text}");
    }
}
