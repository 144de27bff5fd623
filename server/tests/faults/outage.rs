//! The database is away for a while: PostgreSQL stopped and started again, SQLite locked by another process.

use crate::ledger::{Load, Plan};
use crate::process::Launch;
use crate::stores::Place;
use crate::{Case, eventually, everywhere, fault_duration, report};

everywhere! { a_database_that_goes_away_and_comes_back_under_load_costs_nothing_acknowledged }

async fn a_database_that_goes_away_and_comes_back_under_load_costs_nothing_acknowledged(case: Case) {
    let place = Place::own(case);
    let server = Launch::new(case, &place.database).with("--store-timeout-ms 1000").start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    let away = place.goes_away().await;
    let before = load.ledger.acknowledged();
    tokio::time::sleep(fault_duration()).await;
    if case.waits_for_store() {
        assert!(load.ledger.refused() > 0, "what cannot be committed is refused");
    } else {
        assert!(load.ledger.acknowledged() > before, "what fits into memory is taken");
    }
    eventually("it says that the database is away", async || (!server.is_ready().await).then_some(())).await;
    away.comes_back().await;
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    report("database away", case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
}
