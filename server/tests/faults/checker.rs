//! The checker itself: a server that was told to lie is found out.

use std::time::Duration;

use crate::Case;
use crate::ledger::{Load, Plan};
use crate::process::Launch;
use crate::stores::Place;

crate::everywhere! { @ on_any "cache-first" Sqlite: a_server_that_drops_doubles_or_corrupts_is_found_out }

async fn a_server_that_drops_doubles_or_corrupts_is_found_out(case: Case) {
    for (fault, part) in [
        ("drop=0.05", "acknowledged events are lost and not 0"),
        ("duplicate=0.05", "is there twice"),
        ("corrupt=0.05", "is not what was sent"),
        ("status=500:0.05", "was answered 500"),
    ] {
        let place = Place::new(case).await;
        let server = Launch::new(case, &place.database).with(&format!("--fault {fault}")).start();
        let key = server.key().await;
        let ledger = Load::start(&server, &key, Plan::default()).await.stop().await;
        let (_, wrong) = ledger.examine(&server, &key, 0, Duration::from_millis(500)).await;
        assert!(wrong.iter().any(|wrong| wrong.contains(part)), "{fault}: {wrong:#?}");
    }
}
