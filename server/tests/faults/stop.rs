//! SIGTERM at full load: every 202 that was read is persisted, or counted as lost.

use crate::ledger::{Load, Plan};
use crate::process::Launch;
use crate::stores::Place;
use crate::{Case, everywhere, report};

everywhere! {
    sigterm_at_full_load_persists_every_acknowledged_event
    sigterm_while_the_database_is_away_says_how_many_events_are_lost
}

async fn sigterm_at_full_load_persists_every_acknowledged_event(case: Case) {
    let place = Place::new(case).await;
    let launch = Launch::new(case, &place.database);
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let ended = server.stopped().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    let server = launch.start();
    load.moved(&server);
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    report("SIGTERM at full load", case, &found, back_after);
}

async fn sigterm_while_the_database_is_away_says_how_many_events_are_lost(case: Case) {
    let place = Place::own(case);
    let launch = Launch::new(case, &place.database);
    let server = launch.clone().with("--store-timeout-ms 1500 --shutdown-timeout-ms 4000").start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let away = place.goes_away().await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let ended = server.stopped().await;
    let ledger = load.stop().await;
    away.comes_back().await;
    let lost = lost_and_said(&ended.log);
    assert_eq!(ended.code, Some(if lost > 0 { 1 } else { 0 }), "{}", ended.log);
    assert_eq!(lost > 0, case.is_only_in_memory(), "only memory can lose\n{}", ended.log);
    let server = launch.start();
    ledger.reconcile_but(&server, &key, lost).await;
}

/// The number of lost events in what the server says last.
fn lost_and_said(log: &str) -> usize {
    let Some(line) = log.lines().find(|line| line.contains("could not be persisted in time and are lost")) else {
        let kept =
            ["everything acknowledged is persisted", "they are in the journal, and the next start takes them up"];
        assert!(kept.iter().any(|said| log.contains(said)), "{log}");
        return 0;
    };
    let number = line.rsplit_once("events=").expect("a number").1;
    number.trim().parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}
