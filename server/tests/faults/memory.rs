//! The bounds of memory are reached: what does not fit is refused, the process does not grow, and afterwards it goes on.

use std::time::Duration;

use crate::ledger::{Load, Plan};
use crate::process::Launch;
use crate::stores::Place;
use crate::{Case, eventually, everywhere, fault_duration, report};

everywhere! {
    a_full_buffer_or_queue_refuses_what_does_not_fit_and_empties_by_itself
    memory_stays_bounded_by_bytes_whatever_the_events_weigh
}

const MIB: usize = 1024 * 1024;

async fn a_full_buffer_or_queue_refuses_what_does_not_fit_and_empties_by_itself(case: Case) {
    let place = Place::own(case);
    let bounds = "--pending-events-max 500 --writer-queue-events-max 10 --store-timeout-ms 1000";
    let server = Launch::new(case, &place.database).with(bounds).start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan { batch_events: 60, ..Plan::default() }).await;
    let away = place.goes_away().await;
    eventually("something is full", async || (load.ledger.refused_with("full") > 0).then_some(())).await;
    tokio::time::sleep(fault_duration()).await;
    assert!(server.metric("ingest_pending_events").await.expect("an answer") <= 500.0);
    away.comes_back().await;
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    report("buffer or queue full", case, &found, back_after);
}

async fn memory_stays_bounded_by_bytes_whatever_the_events_weigh(case: Case) {
    const BOUND: usize = 16 * MIB;
    /// Requests in flight, and what the allocator does not give back.
    const BESIDES: usize = 96 * MIB;
    let place = Place::own(case);
    let bounds = format!("--pending-bytes-max {BOUND} --writer-queue-bytes-max {BOUND} --store-timeout-ms 2000");
    let server = Launch::new(case, &place.database).with(&bounds).start();
    let key = server.key().await;
    let pause = Duration::from_millis(20);
    let heavy = Plan { singles: 2, batchers: 14, pause, text_bytes: 100_000, batch_events: 20 };
    let load = Load::start(&server, &key, heavy).await;
    let before = server.footprint();
    let away = place.goes_away().await;
    eventually("something is full", async || (load.ledger.refused_with("full") > 0).then_some(())).await;
    tokio::time::sleep(fault_duration().max(Duration::from_secs(4))).await;
    let during = server.footprint();
    away.comes_back().await;
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    let peak = during.rss_peak_bytes;
    assert!(peak < before.rss_bytes + BOUND + BESIDES, "{before:?} {during:?}");
    report(&format!("16 MiB bound, RSS {} → {} MiB", before.rss_bytes / MIB, peak / MIB), case, &found, back_after);
}
