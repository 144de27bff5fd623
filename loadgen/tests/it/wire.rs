//! Protocols, and targets that end connections in every way there is: every planned request has one outcome, and nothing hangs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use reports::model::{CaveatKind, HttpVersion, Load, Operation, OperationLoad};

use crate::http2::{Act, Certificate, http2_target, https_target};
use crate::support::{Done, INVALID, Next, acknowledge, answer, run, target};

/// Runs a load against this target, without a ledger.
fn load(url: &str, arguments: &[&str]) -> Done {
    run(&[&["--target", url, "--no-ledger"], arguments].concat())
}

/// The load, of which every request has exactly one outcome.
#[track_caller]
fn adds_up(done: &Done) -> &Load {
    let load = &done.run.results[0].load;
    assert!(load.planned > 0, "{}", done.text);
    assert_eq!(load.outcomes.total(), load.planned, "{}", done.text);
    assert_eq!(load.intervals.iter().map(|interval| interval.outcomes.total()).sum::<u64>(), load.planned);
    let timed = load.outcomes.accepted + load.outcomes.timed_out + load.outcomes.not_sent;
    assert_eq!(load.response_time.count, timed, "{}", done.text);
    assert_eq!(load.refused_time.count, load.outcomes.failed + load.outcomes.rejected, "{}", done.text);
    load
}

/// Calls `talk` with each connection, on a thread of its own.
fn raw_target(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let talk = Arc::new(talk);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let talk = Arc::clone(&talk);
            thread::spawn(move || talk(stream));
        }
    });
    format!("http://{address}")
}

fn http(address: SocketAddr) -> String {
    format!("http://{address}")
}

const HTTP2: [&str; 2] = ["--http", "2"];
const KEY: [&str; 2] = ["--api-key", "k"];

#[test]
fn a_target_that_speaks_nothing_but_http2_is_measured_control_calls_and_all() {
    let target = http2_target(None, 100, |_| Act::Acknowledge);
    let done = load(&http(target.address), &HTTP2);
    let load = adds_up(&done);
    assert_eq!(load.outcomes.accepted, load.planned, "{}", done.text);
    assert_eq!(done.run.plan.http, HttpVersion::Http2);
    assert_eq!(load.reconnects, 0);
}

#[test]
fn streams_carry_more_requests_at_a_time_than_there_are_connections() {
    let target = http2_target(None, 100, |_| Act::AcknowledgeAfter(Duration::from_millis(50)));
    let done = load(&http(target.address), &[&HTTP2[..], &KEY, &["--connections", "1", "--streams", "64"]].concat());
    let load = adds_up(&done);
    assert_eq!(load.outcomes.accepted, load.planned, "{}", done.text);
    // 200 events a second of 50 ms each.
    let concurrent_max = target.concurrent_max.load(Ordering::Relaxed);
    assert!((5..=64).contains(&concurrent_max), "{concurrent_max} at a time");
}

#[test]
fn a_target_s_own_limit_of_streams_is_kept_and_what_is_more_waits() {
    let target = http2_target(None, 2, |_| Act::AcknowledgeAfter(Duration::from_millis(5)));
    let done = load(&http(target.address), &[&HTTP2[..], &KEY, &["--connections", "1", "--streams", "64"]].concat());
    let load = adds_up(&done);
    assert_eq!(load.outcomes.failed, 0, "{}", done.text);
    assert_eq!(target.concurrent_max.load(Ordering::Relaxed), 2);
    assert!(load.connection_wait.count > 0, "what waited for a stream waited for the target");
}

#[test]
fn a_stream_that_is_reset_fails_and_its_connection_lives_on() {
    let target = http2_target(None, 100, |number| if number % 3 == 0 { Act::Reset } else { Act::Acknowledge });
    let done = load(&http(target.address), &[&HTTP2[..], &KEY, &["--streams", "8"]].concat());
    let load = adds_up(&done);
    assert!(load.outcomes.failed.abs_diff(load.planned / 3) <= 20, "{:?}", load.outcomes);
    assert_eq!((load.reconnects, load.errors[0].kind.as_str()), (0, "HTTP/2 stream reset before the whole answer"));
}

#[test]
fn a_connection_that_is_closed_with_goaway_is_opened_again_and_nothing_fails_for_it() {
    let target = http2_target(None, 100, |number| match number % 20 {
        0 => Act::GoAway,
        _ => Act::AcknowledgeAfter(Duration::from_millis(20)),
    });
    let done = load(&http(target.address), &[&HTTP2[..], &KEY, &["--streams", "8", "--connections", "2"]].concat());
    let load = adds_up(&done);
    assert!(load.reconnects > 3, "{} reconnects", load.reconnects);
    // A request that crosses the GOAWAY on its way may be refused. None is sent into a connection that is known to close.
    let kinds: Vec<&str> = load.errors.iter().map(|error| error.kind.as_str()).collect();
    assert!(
        kinds.iter().all(|kind| kind.starts_with("refused with GOAWAY") || kind.starts_with("never sent")),
        "{kinds:?}"
    );
    assert!(load.outcomes.accepted > load.planned / 2, "{}", done.text);
    assert!(done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::Reconnects), "{}", done.text);
}

#[test]
fn a_connection_that_breaks_with_streams_open_fails_each_of_them_once() {
    for act in [Act::HangUp, Act::Garbage] {
        let target = http2_target(None, 100, move |number| match number % 25 {
            0 => act,
            _ => Act::AcknowledgeAfter(Duration::from_millis(20)),
        });
        let arguments = [&HTTP2[..], &KEY, &["--streams", "8", "--connections", "2"]].concat();
        let done = load(&http(target.address), &arguments);
        let load = adds_up(&done);
        assert!(load.outcomes.failed > 0 && load.outcomes.accepted > 0, "{:?}\n{}", load.outcomes, done.text);
        assert!(load.reconnects > 0, "{}", done.text);
        assert!(target.connections.load(Ordering::Relaxed) > 2);
    }
}

#[test]
fn large_bodies_pass_the_windows_of_http2() {
    let target = http2_target(None, 100, |_| Act::Acknowledge);
    let size = ["--payload-bytes", "200000", "--rate", "20", "--request-timeout", "5s"];
    let done = load(&http(target.address), &[&HTTP2[..], &KEY, &size].concat());
    let load = adds_up(&done);
    assert_eq!(load.outcomes.accepted, load.planned, "{}", done.text);
}

#[test]
fn http2_asked_of_a_target_without_it_is_said_to_be_missing() {
    let refuses = target(|_, stream| answer(stream, 400, "{}"));
    let closes = raw_target(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
    });
    for url in [http(refuses), closes] {
        let done = load(&url, &[&HTTP2[..], &KEY].concat());
        assert_eq!(done.code, INVALID, "{}", done.text);
        assert!(
            done.text.contains("does not speak HTTP/2") && done.text.contains("leave --http 2 out"),
            "{}",
            done.text
        );
    }
    let certificate = Certificate::new(&["http/1.1"]);
    let address = https_target(certificate.config());
    let done = load(&format!("https://{address}"), &[&HTTP2[..], &KEY, &["--tls-insecure"]].concat());
    assert_eq!(done.code, INVALID, "{}", done.text);
    assert!(done.text.contains("NoApplicationProtocol") || done.text.contains("HTTP/2"), "{}", done.text);
}

#[test]
fn tls_carries_both_protocols_and_trusts_as_told() {
    for http2 in [false, true] {
        let certificate = Certificate::new(if http2 { &["h2"] } else { &["http/1.1"] });
        let address = match http2 {
            true => http2_target(Some(certificate.config()), 100, |_| Act::Acknowledge).address,
            false => https_target(certificate.config()),
        };
        let (url, path) = (format!("https://{address}"), certificate.path());
        let version = ["--http", if http2 { "2" } else { "1.1" }];
        for trust in [&["--tls-ca", path.to_str().expect("a path")][..], &["--tls-insecure"]] {
            let done = load(&url, &[&version[..], trust].concat());
            let load = adds_up(&done);
            assert_eq!(load.outcomes.accepted, load.planned, "HTTP/2: {http2}, {trust:?}:\n{}", done.text);
        }
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_with_the_remedy() {
    let (certificate, another) = (Certificate::new(&["http/1.1"]), Certificate::new(&["http/1.1"]));
    let address = https_target(certificate.config());
    let path = another.path();
    for arguments in [&[][..], &KEY, &["--tls-ca", path.to_str().expect("a path")]] {
        let done = load(&format!("https://{address}"), arguments);
        assert_eq!(done.code, INVALID, "{}", done.text);
        assert!(done.text.contains("invalid peer certificate") && done.text.contains("--tls-ca FILE"), "{}", done.text);
    }
}

#[test]
fn a_close_that_was_announced_is_no_failure() {
    let number = AtomicU64::new(1);
    let address = target(move |_, stream| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"id":"{}"}}"#, uuid::Uuid::from_u128(number.into()));
        let head = format!("HTTP/1.1 202 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        Next::Close
    });
    let done = load(&http(address), &KEY);
    let load = adds_up(&done);
    assert_eq!(load.outcomes.failed, 0, "{}", done.text);
    assert!(load.reconnects >= load.outcomes.accepted, "one for each answer: {}", load.reconnects);
}

#[test]
fn a_connection_closed_between_two_requests_is_opened_again() {
    let number = AtomicU64::new(1);
    let address = target(move |_, stream| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        acknowledge(stream, number);
        if number.is_multiple_of(5) { Next::Close } else { Next::Keep }
    });
    let done = load(&http(address), &KEY);
    let load = adds_up(&done);
    assert!(load.reconnects > 0 && load.outcomes.accepted > load.planned / 2, "{:?}\n{}", load.outcomes, done.text);
}

#[test]
fn an_answer_in_pieces_is_one_answer() {
    let address = target(|_, stream| {
        for byte in
            b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 202 X\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"id\":7}\r\n0\r\n\r\n"
        {
            let _ = stream.write_all(&[*byte]);
        }
        Next::Keep
    });
    let done = load(&http(address), &[&KEY[..], &["--rate", "50"]].concat());
    let load = adds_up(&done);
    assert_eq!((load.outcomes.accepted, load.reconnects), (load.planned, 0), "{}", done.text);
}

#[test]
fn an_answer_acknowledges_with_the_status_and_the_id_of_the_contract_or_not_at_all() {
    for (status, body, error) in [
        (200, r#"{"id":7}"#, "HTTP 200: acknowledged with another status than it should"),
        (202, r#"{"status":"accepted"}"#, "HTTP 202: acknowledged without an id"),
        (202, "accepted", "HTTP 202: acknowledged with what is not JSON"),
    ] {
        let address = target(move |_, stream| answer(stream, status, body));
        let done = load(&http(address), &KEY);
        let load = adds_up(&done);
        let errors: Vec<_> = load.errors.iter().map(|error| (error.kind.as_str(), error.count)).collect();
        assert_eq!((load.outcomes.accepted, errors), (0, vec![(error, load.planned)]), "{}", done.text);
        assert_eq!(load.statuses.get(&status.to_string()), Some(&load.planned));
    }
}

#[test]
fn what_comes_behind_an_answer_ends_the_connection_and_is_nobody_s_answer() {
    let address = target(|_, stream| {
        let twice = "HTTP/1.1 202 X\r\ncontent-length: 8\r\n\r\n{\"id\":7}HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(twice.as_bytes());
        Next::Keep
    });
    let done = load(&http(address), &KEY);
    let load = adds_up(&done);
    assert_eq!(load.statuses.get("500"), None, "{}", done.text);
    assert!(load.outcomes.accepted > 0 && load.reconnects > 0, "{}", done.text);
}

#[test]
fn an_answer_before_the_request_is_read_counts_and_the_rest_of_it_is_no_new_request() {
    let url = raw_target(|mut stream| {
        let _ = stream.read(&mut [0; 1_000]);
        let _ = stream.write_all(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n");
        // Closing with something unread would reset the connection, and the answer with it.
        let _ = stream.shutdown(Shutdown::Write);
        while stream.read(&mut [0; 65_536]).is_ok_and(|length| length > 0) {}
    });
    let done = load(&url, &[&KEY[..], &["--payload-bytes", "250000", "--rate", "50"]].concat());
    let load = adds_up(&done);
    assert!(load.outcomes.rejected > 0, "{:?}\n{}", load.outcomes, done.text);
}

#[test]
fn a_target_that_stops_reading_is_timed_out() {
    let url = raw_target(|mut stream| {
        let _ = stream.read(&mut [0; 1_000]);
        thread::sleep(Duration::from_secs(60));
    });
    let done = load(&url, &[&KEY[..], &["--payload-bytes", "250000", "--rate", "50"]].concat());
    let load = adds_up(&done);
    assert_eq!(load.outcomes.timed_out + load.outcomes.not_sent, load.planned, "{}", done.text);
}

#[test]
fn large_bodies_that_do_not_leave_at_once_arrive_whole() {
    let number = AtomicU64::new(1);
    let address = target(move |_, stream| acknowledge(stream, number.fetch_add(1, Ordering::Relaxed)));
    let arguments = ["--payload-bytes", "250000", "--rate", "30", "--request-timeout", "5s"];
    let done = load(&http(address), &[&KEY[..], &arguments].concat());
    let load = adds_up(&done);
    assert_eq!((load.outcomes.accepted, load.reconnects), (load.planned, 0), "{}", done.text);
}

#[test]
fn a_target_that_closes_every_connection_at_once_does_not_make_the_generator_run_in_circles() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let url = raw_target(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        drop(stream);
    });
    // Nothing is asked of nearly all of them.
    let done = load(&url, &[&KEY[..], &["--rate", "1", "--arrivals", "constant", "--duration", "2s"]].concat());
    adds_up(&done);
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 2_000, "{taken} connections for 8 places in two seconds");
}

#[test]
fn a_thousand_connections_are_opened_and_used() {
    let done = run(&["--mode", "null", "--connections", "1000", "--rate", "2000", "--request-timeout", "5s"]);
    let load = adds_up(&done);
    assert_eq!((load.connections, load.connect_time.count, load.reconnects), (1_000, 1_000, 0), "{}", done.text);
    assert_eq!(load.outcomes.accepted, load.planned, "{}", done.text);
}

#[test]
fn a_target_that_goes_away_and_comes_back_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let mut listener = listener;
        let events = Arc::new(AtomicUsize::new(0));
        loop {
            listener.set_nonblocking(true).expect("a non-blocking listener");
            let mut streams: Vec<TcpStream> = Vec::new();
            let before = events.load(Ordering::Relaxed);
            while before > 0 || events.load(Ordering::Relaxed) < 100 {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                stream.set_nonblocking(false).expect("a blocking stream");
                streams.push(stream.try_clone().expect("a copy"));
                let events = Arc::clone(&events);
                thread::spawn(move || acknowledge_all(stream, &events));
            }
            streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
            drop((streams, listener));
            thread::sleep(Duration::from_millis(700));
            listener = loop {
                match TcpListener::bind(address) {
                    Ok(listener) => break listener,
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            };
        }
    });
    let done = load(&http(address), &[&KEY[..], &["--duration", "5s"]].concat());
    let load = adds_up(&done);
    assert!(load.outcomes.accepted < load.planned, "{:?}", load.outcomes);
    let last = load.intervals.last().expect("seconds");
    assert!(last.outcomes.accepted > 0, "accepted nothing in the last second: {:?}\n{}", last.outcomes, done.text);
    assert!(load.reconnects > 0);
}

fn acknowledge_all(mut stream: TcpStream, events: &AtomicUsize) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..length]);
        // Each payload is 256 bytes, and nothing is asked before the answer: the end of the body is the end of what came.
        if request.ends_with(b"}") {
            request.clear();
            let number = events.fetch_add(1, Ordering::Relaxed);
            acknowledge(&mut stream, number as u64);
        }
    }
}

#[test]
fn mixed_operations_come_in_the_shares_asked_for_and_every_event_of_a_batch_is_kept() {
    for mode in ["cache-first", "db-first"] {
        let mix = ["--mix", "ingest 60, batch 20, inbox 10, ack 10", "--batch-events", "7", "--organizations", "3"];
        let phases = ["--warmup", "1500ms", "--duration", "3s", "--seed", "7", "--duplicates-share", "0.1"];
        let patience = ["--request-timeout", "5s", "--drain-timeout", "20s"];
        let done = run(&[&["--mode", mode], &mix[..], &phases, &patience].concat());
        let (load, result) = (adds_up(&done), &done.run.results[0]);
        let of = |operation| load.operations.iter().find(|of| of.operation == operation).expect("an operation");
        let (ingest, batch) = (of(Operation::Ingest), of(Operation::Batch));
        let (inbox, ack) = (of(Operation::Inbox), of(Operation::Ack));
        for (of, share) in [(batch, 0.2), (inbox, 0.1)] {
            let (n, planned) = (load.planned as f64, of.planned as f64);
            let six_deviations = 6.0 * (n * share * (1.0 - share)).sqrt();
            assert!((planned - n * share).abs() < six_deviations, "{:?}: {planned} of {n}", of.operation);
        }
        assert!(ack.planned > 0 && ack.planned < load.planned / 5, "{} acks", ack.planned);
        assert_eq!(ack.outcomes.accepted, ack.planned, "each is answered 200:\n{}", done.text);
        assert_eq!(inbox.outcomes.accepted, inbox.planned, "{}", done.text);
        assert_eq!((batch.outcomes.accepted, batch.events_acknowledged), (batch.planned, 7 * batch.planned));
        assert_eq!(ingest.events_acknowledged, ingest.outcomes.accepted);
        let sum = |read: fn(&OperationLoad) -> u64| load.operations.iter().map(read).sum::<u64>();
        assert_eq!(sum(|of| of.planned), load.planned);
        assert_eq!(sum(|of| of.outcomes.accepted), load.outcomes.accepted);
        assert_eq!(sum(|of| of.response_time.count), load.response_time.count);
        assert_eq!(load.repeats.accepted, 0, "a repeat goes to the organisation of its original");
        let ledger = result.ledger.as_ref().expect("a ledger");
        assert!(ledger.acknowledged >= ingest.events_acknowledged + batch.events_acknowledged, "{ledger:?}");
        assert_eq!((ledger.lost, ledger.duplicated, ledger.corrupted, ledger.unverified), (0, 0, 0, 0), "{ledger:?}");
    }
}

#[test]
fn every_request_is_a_row_of_the_file_that_was_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("samples.csv");
    let mix = ["--mix", "ingest 3, batch 1", "--repeat", "2", "--pacing", "spin"];
    let done = run(&[&["--mode", "null", "--samples", path.to_str().expect("a path")], &mix[..]].concat());
    let load = adds_up(&done);
    let text = std::fs::read_to_string(&path).expect("the file");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|row| row.split(',').collect()).collect();
    let warm_up_end = |repetition: &str| {
        let first = rows.iter().filter(|row| row[1] == repetition).map(|row| row[5].parse().expect("ns")).min();
        first.unwrap_or(0_u64) + 200_000_000
    };
    let first = rows.iter().filter(|row| row[1] == "1");
    let (count, steady) = (
        first.clone().count() as u64,
        first.filter(|row| row[5].parse::<u64>().is_ok_and(|at| at >= warm_up_end("1"))),
    );
    // The first event is due a little after the begin, so the begin of the steady phase is not known to the row.
    assert!(
        count > load.planned && (steady.count() as u64).abs_diff(load.planned) < 20,
        "{count} rows, {} planned",
        load.planned
    );
    assert!(rows.iter().any(|row| row[1] == "2"), "rows of the second repetition");
    for row in rows.iter().filter(|row| row[9] == "accepted") {
        let [intended, sendable, sent, done] = [5, 6, 7, 8].map(|at| row[at].parse::<u64>().expect("ns"));
        assert!(intended <= sendable && sendable <= sent && sent <= done, "{row:?}");
        assert_eq!((row[2] == "ingest", row[10].len()), (!row[4].is_empty(), 3), "{row:?}");
    }
    assert!(done.run.environment.pacing.starts_with("spin"), "{}", done.run.environment.pacing);
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_under_the_samples_is_a_caveat_and_the_run_goes_on() {
    let done = run(&["--mode", "null", "--samples", "/dev/full", "--rate", "2000"]);
    adds_up(&done);
    let caveat = done.run.caveats.iter().find(|caveat| caveat.kind == CaveatKind::SamplesIncomplete);
    assert!(caveat.is_some_and(|caveat| caveat.detail.contains("No space left")), "{}", done.text);
}

#[test]
fn a_ledger_that_is_full_says_how_much_nobody_looked_for() {
    let done = run(&["--mode", "cache-first", "--ledger-events-max", "50", "--drain-timeout", "10s"]);
    let load = adds_up(&done);
    let ledger = done.run.results[0].ledger.as_ref().expect("a ledger");
    assert!(ledger.acknowledged >= load.outcomes.accepted, "{ledger:?}");
    assert_eq!(ledger.persisted + ledger.unverified, ledger.acknowledged, "{ledger:?}");
    assert!(ledger.persisted > 0 && ledger.persisted <= 50, "{ledger:?}");
    assert_eq!((ledger.lost, ledger.corrupted, ledger.duplicated, ledger.unacknowledged), (0, 0, 0, 0), "{ledger:?}");
    assert!(
        done.text.contains("keeps the first 50 events") && done.text.contains("--ledger-events-max"),
        "{}",
        done.text
    );
}
