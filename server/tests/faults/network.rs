//! The network between server and PostgreSQL is slow, stalls, or cuts connections, also between a commit and its answer.

use std::time::Duration;

use crate::ledger::{Load, Plan, Reconciled};
use crate::process::Launch;
use crate::proxy::{Network, Proxy};
use crate::stores::Place;
use crate::{Case, everywhere, fault_duration, report};

everywhere! { postgres:
    a_slow_database_makes_nothing_fail_that_can_wait
    a_connection_that_stalls_for_good_is_given_up_and_replaced
    connections_that_are_cut_at_random_lose_nothing
    a_commit_whose_answer_is_cut_off_is_neither_lost_nor_doubled
}

async fn through(network: Network, name: &str, case: Case) -> Reconciled {
    through_some(network, name, case, 4).await
}

async fn through_some(network: Network, name: &str, case: Case, connections: usize) -> Reconciled {
    let place = Place::new(case).await;
    let proxy = Proxy::start(&place.database).await;
    let flags = format!("--store-timeout-ms 1000 --database-connections-max {connections}");
    let server = Launch::new(case, proxy.url(&place.database)).with(&flags).start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    proxy.becomes(network);
    tokio::time::sleep(fault_duration()).await;
    proxy.becomes(Network::Works);
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, connections).await;
    report(name, case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
    found
}

async fn a_slow_database_makes_nothing_fail_that_can_wait(case: Case) {
    let found = through(Network::Slow(Duration::from_millis(50)), "network 50 ms slower", case).await;
    // A machine that is busy enough can be late for anything; the database was not unavailable to anybody.
    assert!(found.refused.keys().all(|(_, name)| name == "outcome-unknown"), "{found:?}");
}

async fn a_connection_that_stalls_for_good_is_given_up_and_replaced(case: Case) {
    // With more of them a short outage would leave some that were not in use and still work.
    let found = through_some(Network::Stalls, "the connection stalls for good", case, 1).await;
    assert!(!found.refused.is_empty() || !case.waits_for_store(), "{found:?}");
}

async fn connections_that_are_cut_at_random_lose_nothing(case: Case) {
    through(Network::Cuts(0.1), "connections cut", case).await;
}

async fn a_commit_whose_answer_is_cut_off_is_neither_lost_nor_doubled(case: Case) {
    through(Network::CutsAnswers(0.2), "answers cut off", case).await;
}
