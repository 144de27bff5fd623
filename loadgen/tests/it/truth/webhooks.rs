//! What is said of deliveries against what was delivered: everything, where nothing is injected; exactly the injected losses and repeats;
//! and nothing good of a target that delivers what nobody signed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use reports::model::{CaveatKind, Delivery, Ledger};

use super::rule::{dedup_ids, is_hit};
use crate::support::{Done, INVALID, PATIENT, acknowledge, answer, assert_ends_with, run, target};

const DROPPED_SHARE: f64 = 0.1;
const DOUBLED_SHARE: f64 = 0.2;

fn delivered(done: &Done) -> (&Ledger, u64, &Delivery) {
    let ledger = done.run.results[0].ledger.as_ref().unwrap_or_else(|| panic!("no ledger:\n{}", done.text));
    let delivery = ledger.delivery.as_ref().unwrap_or_else(|| panic!("no deliveries:\n{}", done.text));
    (ledger, ledger.delivered.expect("a number"), delivery)
}

#[test]
fn everything_is_delivered_signed_and_measured_in_every_mode_on_either_database() {
    let postgres = std::env::var("MILLRACE_TEST_POSTGRES").expect("MILLRACE_TEST_POSTGRES: run scripts/test");
    for database in ["sqlite", &postgres] {
        for mode in ["cache-first", "db-first"] {
            let slo = ["--slo", "ledger.undelivered == 0", "--slo", "time_to_delivered.p50 < 60s"];
            let flags = ["--webhooks", "--mode", mode, "--database", database, "--organizations", "3"];
            let done = run(&[&flags[..], &slo, &PATIENT].concat());
            let (ledger, delivered, delivery) = delivered(&done);
            assert!(ledger.acknowledged > 0 && delivered == ledger.acknowledged, "{}", done.text);
            let Delivery { undelivered, repeated, altered, badly_signed, .. } = delivery;
            assert_eq!((*undelivered, *repeated, *altered, *badly_signed), (0, 0, 0, Some(0)), "{}", done.text);
            assert_eq!(delivery.time_to_delivered.as_ref().expect("times").count, delivered);
            assert!(done.run.objectives.iter().all(|objective| objective.met == Some(true)), "{}", done.text);
            assert!(done.text.contains("acknowledged, undelivered"), "{}", done.text);
        }
    }
}

#[test]
fn every_injected_loss_and_repeat_on_the_way_to_the_webhook_is_found_and_a_loss_fails_the_run() {
    let faults = format!("webhook-drop={DROPPED_SHARE},webhook-duplicate={DOUBLED_SHARE}");
    let schedule = ["--arrivals", "constant", "--rate", "100", "--warmup", "0s", "--duration", "3s"];
    let patience = ["--request-timeout", "30s", "--drain-timeout", "5s"];
    let flags = ["--webhooks", "--mode", "cache-first", "--fault", &faults];
    let done = run(&[&flags[..], &schedule, &patience].concat());
    let (ledger, delivered, delivery) = delivered(&done);
    let (mut dropped, mut doubled) = (0, 0);
    for dedup_id in dedup_ids(&done.run, done.run.results[0].load.planned) {
        let is_dropped = is_hit("webhook-drop", DROPPED_SHARE, &dedup_id);
        dropped += u64::from(is_dropped);
        doubled += u64::from(!is_dropped && is_hit("webhook-duplicate", DOUBLED_SHARE, &dedup_id));
    }
    assert!(dropped > 0 && doubled > 0);
    assert_eq!((delivery.undelivered, delivery.repeated), (dropped, doubled), "{}", done.text);
    assert_eq!((ledger.lost, delivered), (0, ledger.acknowledged - dropped));
    let named = &delivery.undelivered_examples;
    assert!(named.iter().all(|id| is_hit("webhook-drop", DROPPED_SHARE, id)) && named.len() as u64 == dropped.min(10));
    assert_ends_with(&done, 3);
    assert!(done.text.contains("were not delivered to their webhook"), "{}", done.text);
}

/// Posts an event to a receiver as a target would, but for the signature.
fn deliver_unsigned(url: &str, id: u64, event: &[u8]) {
    let address = url.trim_start_matches("http://").split('/').next().expect("an address").to_owned();
    let path = &url["http://".len() + address.len()..];
    let id = uuid::Uuid::from_u128(u128::from(id));
    let text = String::from_utf8(event.to_vec()).expect("text");
    let body = text.replacen('{', &format!("{{\"id\":\"{id}\","), 1);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nwebhook-id: {id}\r\nwebhook-timestamp: 1\r\n\
         webhook-signature: v1,AAAA\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("the receiver");
    stream.write_all(format!("{head}{body}").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

#[test]
fn a_target_that_signs_wrongly_or_tells_no_secret_is_found_out() {
    for (secret, badly_signed) in [(r#","secret":"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#, true), ("", false)] {
        let (url, count) = (Mutex::new(String::new()), AtomicU64::new(0));
        let address = target(move |request, stream| {
            if request.is_key() {
                return answer(stream, 201, r#"{"api_key":"k"}"#);
            }
            if request.line.starts_with("POST /api/webhook/config ") {
                let wanted: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
                *url.lock().expect("the URL") = wanted["webhook_url"].as_str().expect("a URL").to_owned();
                return answer(stream, 200, &format!(r#"{{"webhook_url":"set"{secret}}}"#));
            }
            if request.is_event() {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let url = url.lock().expect("the URL").clone();
                deliver_unsigned(&url, number, &request.body);
                return acknowledge(stream, number);
            }
            answer(stream, 404, "{}")
        });
        // It has no inbox, which would be waited for; each event is delivered before its acknowledgement.
        let patience = ["--request-timeout", "30s", "--drain-timeout", "1s"];
        let done = run(&[&["--webhooks", "--target", &format!("http://{address}")][..], &patience].concat());
        let (ledger, delivered, delivery) = delivered(&done);
        assert_eq!((delivered, delivery.altered), (ledger.acknowledged, 0), "{}", done.text);
        assert_eq!(delivery.badly_signed, badly_signed.then_some(delivered), "{}", done.text);
        let unverified = done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::SignaturesUnverified);
        assert_eq!(unverified, !badly_signed, "{}", done.text);
    }
}

#[test]
fn a_target_that_takes_no_webhook_is_told_of_the_remedy() {
    let address = target(|request, stream| match request.is_key() {
        true => answer(stream, 201, r#"{"api_key":"k"}"#),
        false => answer(stream, 400, "{}"),
    });
    let done = run(&["--webhooks", "--target", &format!("http://{address}")]);
    assert_ends_with(&done, INVALID);
    assert!(done.text.contains("--webhook-private-addresses"), "{}", done.text);
}
