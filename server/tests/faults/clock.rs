//! The clock of the machine jumps, by minutes, hours and a day, forwards and backwards; monotonic time goes on as it does.
//!
//! libfaketime stands between the server and its clock and reads what it should say from a file.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use server::store::now_us;
use tempfile::TempDir;

use crate::ledger::{Load, Plan, inbox};
use crate::process::{Launch, Server};
use crate::stores::Place;
use crate::{Case, eventually, everywhere, fault_duration, report};

everywhere! {
    a_clock_that_jumps_under_load_loses_and_doubles_nothing
    a_dedup_id_is_never_acknowledged_and_then_dropped_whatever_the_clock_does
    a_claim_from_the_future_is_finished_in_the_present
}
everywhere! { @ on_any "cache-first" Sqlite: a_rate_limit_does_not_care_for_the_clock }

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

/// A clock that a test sets.
struct Clock {
    folder: TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        clock.jumps_to(0);
        clock
    }

    /// So many seconds from the present.
    fn jumps_to(&self, offset_s: i64) {
        // At once, or the server could read half of it.
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{offset_s:+}s\n")).expect("it can be written");
        std::fs::rename(next, self.file()).expect("it can be renamed");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// A server that goes by this clock.
    fn start(&self, mut launch: Launch) -> Server {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        launch.environment.extend([
            set("LD_PRELOAD", &library()),
            set("FAKETIME_TIMESTAMP_FILE", self.file().to_str().expect("a path of UTF-8")),
            set("FAKETIME_NO_CACHE", "1"),
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            set("NO_FAKE_STAT", "1"),
        ]);
        launch.start()
    }
}

fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    library.expect("libfaketime is missing: run scripts/install-test-needs").display().to_string()
}

async fn a_clock_that_jumps_under_load_loses_and_doubles_nothing(case: Case) {
    let (place, clock) = (Place::new(case).await, Clock::new());
    let server = clock.start(Launch::new(case, &place.database));
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let jumps = [300, -300, 3 * HOUR_S, -3 * HOUR_S, DAY_S, -DAY_S, 2 * DAY_S, 0];
    let mut back_after = Duration::ZERO;
    for offset_s in jumps {
        clock.jumps_to(offset_s);
        tokio::time::sleep(fault_duration() / 8).await;
        back_after = back_after.max(load.flows().await);
    }
    let found = load.settled(&server, &key, 5).await;
    assert_eq!((found.refused.len(), found.unanswered), (0, 0), "{found:?}");
    report("clock jumps by up to 3 days", case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
}

async fn event(server: &Server, key: &str, dedup_id: &str) -> (StatusCode, String) {
    let body = json!({"type": "t", "dedup_id": dedup_id, "payload": 1});
    let request = server.client.post(format!("{}/api/events", server.url)).bearer_auth(key).json(&body);
    let answer = request.send().await.expect("an answer");
    let (status, body) = (answer.status(), answer.json::<Value>().await.expect("JSON"));
    (status, body["id"].as_str().unwrap_or_default().to_owned())
}

/// The index in memory forgets by monotonic time and the store by the clock: where they disagree, memory must not say yes to what the
/// store then drops.
async fn a_dedup_id_is_never_acknowledged_and_then_dropped_whatever_the_clock_does(case: Case) {
    /// One second is the window, and two are what the index keeps its entries for longer.
    const FORGOTTEN_AFTER: Duration = Duration::from_millis(3500);
    let (place, clock) = (Place::new(case).await, Clock::new());
    let server = clock.start(Launch::new(case, &place.database).with("--dedup-window-s 1"));
    let key = server.key().await;
    let mut acknowledged = Vec::new();
    let mut offset_s = 0;
    for jump_s in [-HOUR_S, DAY_S] {
        let dedup_id = format!("jump of {jump_s}");
        let (status, first) = event(&server, &key, &dedup_id).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        offset_s += jump_s;
        clock.jumps_to(offset_s);
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        let (status, second) = event(&server, &key, &dedup_id).await;
        match status {
            StatusCode::ACCEPTED => acknowledged.extend([first, second]),
            StatusCode::CONFLICT => {
                assert_eq!(first, second);
                assert!(jump_s < 0, "after a jump forwards the window is over");
                acknowledged.push(first);
            }
            _ => panic!("{status}"),
        }
    }
    eventually("all that was acknowledged is persisted", async || {
        let rows = inbox(&server, &key).await;
        let found = |id: &String| rows.iter().any(|row| row["id"].as_str() == Some(id));
        (acknowledged.iter().all(found) && rows.len() == acknowledged.len()).then_some(())
    })
    .await;
}

/// A process whose clock was ahead claimed rows and died: its claim must not last until the clock has caught up.
async fn a_claim_from_the_future_is_finished_in_the_present(case: Case) {
    let place = Place::new(case).await;
    let server = Launch::new(case, &place.database).with("--claim-lease-s 1").start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    load.settled(&server, &key, 5).await;
    let tomorrow_us = now_us() + DAY_S * 1_000_000;
    place.run(format!("UPDATE events SET status = 'processing', processing_started_at = {tomorrow_us}")).await;
    eventually("the claimed rows are finished", async || {
        (place.count("SELECT COUNT(*) FROM events WHERE status = 'processing'").await == 0).then_some(())
    })
    .await;
}

async fn a_rate_limit_does_not_care_for_the_clock(case: Case) {
    let (place, clock) = (Place::new(case).await, Clock::new());
    // The last one wins: every organisation here is of this tier.
    let server = clock.start(Launch::new(case, &place.database).with("--rate-limit-enterprise-per-minute 10"));
    let key = server.key().await;
    for number in 0..10 {
        assert_eq!(event(&server, &key, &number.to_string()).await.0, StatusCode::ACCEPTED);
    }
    for offset_s in [0, DAY_S, -DAY_S] {
        clock.jumps_to(offset_s);
        let request = server.client.get(format!("{}/api/keys", server.url)).bearer_auth(&key);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "offset {offset_s} s");
        let after: u64 = answer.headers()["retry-after"].to_str().ok().and_then(|s| s.parse().ok()).expect("seconds");
        assert!((1..=60).contains(&after), "offset {offset_s} s: {after} s");
    }
}
