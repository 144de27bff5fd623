//! Whatever the target does, `loadgen run` ends with the right exit code, a sentence that says what happened, and a report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{INVALID, Next, acknowledge, answer, assert_ends_with, run, target};
use reports::model::CaveatKind;

const INCONCLUSIVE: i32 = 4;
const MISSED: i32 = 3;

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "should say {part:?}:\n{text}");
    }
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[test]
fn a_dead_port_is_invalid_and_said_to_be_dead() {
    let done = run(&["--target", &free_port()]);
    assert_ends_with(&done, INVALID);
    assert_says(&done.text, &["onnection refused"]);
    assert!(done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::DeadTarget));
}

#[test]
fn a_dead_port_is_dead_even_when_the_key_is_known() {
    let done = run(&["--target", &free_port(), "--api-key", "k"]);
    assert_ends_with(&done, INVALID);
    assert_says(&done.text, &["cannot open 8 connections", "onnection refused"]);
}

#[test]
fn a_server_that_gives_no_key_is_invalid_and_the_remedy_is_named() {
    let address = target(|_, stream| answer(stream, 500, "{}"));
    let done = run(&["--target", &format!("http://{address}")]);
    assert_ends_with(&done, INVALID);
    assert_says(&done.text, &["POST /api/keys/generate was answered 500", "--api-key"]);
}

#[test]
fn a_server_that_answers_500_accepted_nothing() {
    let address = target(|_, stream| answer(stream, 500, "{}"));
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    assert_ends_with(&done, INVALID);
    let load = &done.run.results[0].load;
    assert_eq!(load.outcomes.failed, load.planned);
    assert_eq!(load.errors[0].kind, "HTTP 500");
    assert_eq!(load.response_time.count, 0, "a quick refusal is no response time");
    assert_says(&done.text, &["HTTP 500"]);
}

#[test]
fn a_server_that_keeps_nothing_loses_every_event() {
    let number = AtomicU64::new(1);
    let address = target(move |request, stream| match () {
        () if request.is_key() => answer(stream, 201, r#"{"api_key":"k"}"#),
        () if request.is_event() => acknowledge(stream, number.fetch_add(1, Ordering::Relaxed)),
        () => answer(stream, 200, r#"{"events":[],"next_cursor":null}"#),
    });
    let done = run(&["--target", &format!("http://{address}")]);
    assert_ends_with(&done, MISSED);
    let ledger = done.run.results[0].ledger.as_ref().expect("a ledger");
    assert!(ledger.lost > 0 && ledger.lost == ledger.acknowledged, "{ledger:?}");
    assert!(!ledger.lost_examples.is_empty());
    assert_says(&done.text, &["lost"]);
}

#[test]
fn a_server_that_cannot_show_what_it_keeps_is_inconclusive_not_guilty() {
    let number = AtomicU64::new(1);
    let address = target(move |request, stream| match request.is_event() {
        true => acknowledge(stream, number.fetch_add(1, Ordering::Relaxed)),
        false => answer(stream, 404, "{}"),
    });
    let arguments = ["--target", &format!("http://{address}"), "--api-key", "k"];
    let done = run(&arguments);
    assert_ends_with(&done, INCONCLUSIVE);
    let ledger = done.run.results[0].ledger.as_ref().expect("a ledger");
    assert_eq!((ledger.lost, ledger.unverified), (0, ledger.acknowledged));
    assert_says(&done.text, &["--no-ledger"]);

    let done = run(&[&arguments[..], &["--no-ledger"]].concat());
    assert_ends_with(&done, 0);
    assert!(done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::LedgerLeftOut));
}

/// A server that keeps every event, and whose inbox is empty until so long after its first event.
fn lagging(lag: Duration) -> std::net::SocketAddr {
    let kept = Mutex::new(Vec::<String>::new());
    let first_event = OnceLock::new();
    target(move |request, stream| {
        let mut kept = kept.lock().expect("the lock");
        let page = |events: String| format!(r#"{{"events":[{events}],"next_cursor":null}}"#);
        match request.line.split(' ').nth(1).unwrap_or_default() {
            _ if request.is_event() => {
                first_event.get_or_init(Instant::now);
                let (number, body) = (kept.len() as u64 + 1, String::from_utf8_lossy(&request.body));
                let id = uuid::Uuid::from_u128(u128::from(number));
                let shown = body.trim_start().trim_start_matches('{');
                kept.push(format!(r#"{{"id":"{id}","persisted_at":"2026-01-01T00:00:00Z",{shown}"#));
                acknowledge(stream, number)
            }
            "/metrics" => answer(stream, 200, "ingest_pending_events 0\n"),
            path if path.starts_with("/api/events/") => {
                let number = u128::from_str_radix(&path["/api/events/".len()..].replace('-', ""), 16);
                match number.ok().and_then(|number| kept.get(number as usize - 1)) {
                    Some(event) => answer(stream, 200, event),
                    None => answer(stream, 404, "{}"),
                }
            }
            _ if first_event.get().is_some_and(|first: &Instant| first.elapsed() < lag) => {
                answer(stream, 200, &page(String::new()))
            }
            _ => answer(stream, 200, &page(kept.join(","))),
        }
    })
}

#[test]
fn an_inbox_that_lags_behind_is_waited_for_and_makes_no_event_lost() {
    let patient = ["--duration", "500ms", "--drain-timeout", "30s"];
    for (lag, patience, incomplete) in [
        // Longer than a target that says that nothing is pending is waited for.
        (Duration::from_secs(4), &patient[..], false),
        (Duration::from_secs(3_600), &[], true),
    ] {
        let target = format!("http://{}", lagging(lag));
        let done = run(&[&["--target", &target, "--api-key", "k"][..], patience].concat());
        let ledger = done.run.results[0].ledger.as_ref().expect("a ledger");
        let found = (ledger.lost, ledger.unverified, ledger.duplicated, ledger.corrupted);
        assert_eq!(found, (0, 0, 0, 0), "{lag:?}: {ledger:?}\n{}", done.text);
        assert!(ledger.acknowledged > 0 && ledger.persisted == ledger.acknowledged, "{ledger:?}");
        let told = done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::LedgerIncomplete);
        assert_eq!(told, incomplete, "{lag:?}\n{}", done.text);
    }
}

#[test]
fn a_server_that_never_answers_times_out_and_nothing_is_left_out() {
    let address = target(|_, _| {
        thread::sleep(Duration::from_secs(60));
        Next::Close
    });
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    assert_ends_with(&done, INVALID);
    let load = &done.run.results[0].load;
    assert!(load.outcomes.timed_out > 0 && load.outcomes.not_sent > 0, "{:?}", load.outcomes);
    assert_eq!(load.outcomes.total(), load.planned);
    assert_eq!(load.response_time.censored, load.planned, "every time is a lower bound");
    assert_says(&done.text, &["no whole answer within 500 ms"]);
}

#[test]
fn a_server_that_closes_connections_without_an_answer_fails_every_request() {
    let address = target(|_, _| Next::Close);
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    assert_ends_with(&done, INVALID);
    let load = &done.run.results[0].load;
    assert!(load.outcomes.failed > 0 && load.outcomes.accepted == 0, "{:?}", load.outcomes);
    assert!(load.reconnects > 0);
    assert_says(&done.text, &["connection closed before the whole answer"]);
}

#[test]
fn a_server_that_closes_after_each_answer_is_measured_and_the_reconnects_are_told() {
    let number = AtomicU64::new(1);
    let address = target(move |request, stream| match request.is_event() {
        true => {
            acknowledge(stream, number.fetch_add(1, Ordering::Relaxed));
            Next::Close
        }
        false => answer(stream, 404, "{}"),
    });
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    let run = &done.run;
    assert!(run.results[0].load.outcomes.accepted > 0, "{}", done.text);
    assert!(run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::Reconnects), "{}", done.text);
}

#[test]
fn an_endless_body_is_an_error_and_fills_no_memory() {
    let address = target(|_, stream| {
        use std::io::Write;
        let begun = stream.write_all(b"HTTP/1.1 202 X\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
        if begun.is_ok() {
            while stream.write_all(&chunk).is_ok() {}
        }
        Next::Close
    });
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    assert_ends_with(&done, INVALID);
    assert_says(&done.text, &["longer than 1 MiB"]);
    // Control calls get it too: unbounded, they read gigabytes of it.
    if let Some(bytes) = done.run.results[0].resources.generator_rss_peak_bytes {
        assert!(bytes < 400 << 20, "the generator took {bytes} bytes of memory");
    }
}

#[test]
fn an_answer_that_is_not_http_is_said_to_be_none() {
    let address = target(|_, stream| {
        use std::io::Write;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
        Next::Close
    });
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    assert_ends_with(&done, INVALID);
    assert_says(&done.text, &["not HTTP"]);
}
