//! `journal-first` over HTTP: what is its own. What it shares with the other modes is in `rules.rs`, `outage.rs` and `life.rs`.

use reqwest::StatusCode;
use serde_json::{Value, json};
use server::config::JournalSync;

use crate::outage::unready;
use crate::{At, eventually, read};

fn batch(from: usize, events: usize) -> Value {
    (from..from + events).map(|n| json!({"type": "t", "payload": {"n": n, "pad": "x".repeat(400)}})).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_together_share_a_sync_and_segments_go_when_the_store_has_them() {
    let at = At::journal_first_sqlite().await;
    let (server, sender) = at.ready().await;
    for from in 0..8 {
        let (status, answer) = sender.post("/api/events/batch", batch(from * 1000, 1000).to_string()).await;
        assert_eq!(status, StatusCode::MULTI_STATUS);
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"] == 202 && result["durability"] == "journal"));
    }
    let syncs = server.metric("ingest_journal_syncs_total").await;
    assert!((8.0..800.0).contains(&syncs), "{syncs} syncs for 8,000 events");
    assert_eq!(sender.persisted(8000).await.len(), 8000);
    // 4 MB of events in segments of 512 KiB.
    eventually(async || (server.metric("ingest_journal_segments").await == 1.0).then_some(())).await;
    let folder = at.settings.journal_dir();
    let files = || std::fs::read_dir(&folder).unwrap().count();
    assert!(files() <= 5, "{} files: one in use, one ready, two to use again, and the lock", files());
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    let server = at.start();
    assert_eq!(server.metric("ingest_pending_events").await, 0.0, "nothing is taken up that the store has");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_says_when_the_journal_is_not_synced() {
    let mut at = At::journal_first_sqlite().await;
    at.settings.journal_sync = JournalSync::Os;
    let (server, sender) = at.ready().await;
    let sent = sender.request("POST", "/api/events").json(&json!({"type": "t", "payload": 1})).send().await.unwrap();
    assert_eq!(read(sent).await.1["durability"], "journal-os");
    assert_eq!(server.metric("ingest_journal_syncs_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_in_use_or_damaged_is_refused_with_the_folder_and_the_remedy() {
    let at = At::journal_first_sqlite().await;
    let (server, sender) = at.ready().await;
    for payload in 0..3 {
        sender.accepted(json!({"type": "t", "payload": payload})).await;
    }
    let folder = at.settings.journal_dir();
    let refused = || server::start(at.settings.clone()).expect_err("it cannot be used").to_string();
    let said = refused();
    for part in [folder.to_str().unwrap(), "another server uses it", "--journal-dir"] {
        assert!(said.contains(part), "{said}");
    }
    // As a crash would have left it: a clean stop takes away what the store has.
    let segment = folder.join("segment-0000000000000001");
    let mut bytes = std::fs::read(&segment).expect("the segment in use");
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    // Each event was a batch of its own; the first one is damaged.
    bytes[4096 + 20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let said = refused();
    for part in ["segment-0000000000000001", "cannot be read, and batch", "restore the folder from a copy"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_at_its_bound_refuses_until_the_store_has_taken_what_it_holds() {
    let mut at = At::journal_first_sqlite().await;
    at.settings.limits.journal_bytes_max = 4 * at.settings.limits.journal_segment_bytes;
    at.settings.polling = server::config::Polling::Fixed;
    at.settings.limits.poll_interval_ms_fixed = 60_000;
    let (server, sender) = at.ready().await;
    // The first cycle of the processor is over once it has polled.
    eventually(async || (server.metric("ingest_poll_interval_seconds").await > 0.0).then_some(())).await;
    let mut accepted = 0;
    let problem = loop {
        let (_, answer) = sender.post("/api/events/batch", batch(accepted, 500).to_string()).await;
        let results = answer["results"].as_array().unwrap().clone();
        let taken = results.iter().filter(|result| result["status"] == 202).count();
        accepted += taken;
        if let Some(refused) = results.iter().find(|result| result["status"] != 202) {
            break refused.clone();
        }
        assert!(accepted < 20_000, "it never refused");
    };
    assert_eq!(problem["status"], 503);
    assert!(problem["type"].as_str().unwrap().ends_with("journal-full"), "{problem}");
    unready(&server, "journal-full").await;
    // Stopping persists what is pending; the next start has room again.
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    at.settings.polling = server::config::Polling::Wake;
    let server = at.start();
    let sender = server.sender(&sender.key);
    sender.accepted(json!({"type": "t", "payload": 1})).await;
    assert_eq!(sender.persisted(accepted + 1).await.len(), accepted + 1);
}
