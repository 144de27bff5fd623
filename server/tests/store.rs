//! The store's promises, each on both databases.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use server::config::Database;
use server::event::Event;
use server::metrics::{BuildInfo, Metrics};
use server::store::{
    After, Claimed, Handling, Inserted, KeyRow, Outcome, Replay, SigningSecret, State, Store, StoreError, StoreLimits,
    now_us,
};
use sqlx::{Connection as _, PgConnection};
use support::{Fresh, aged_event, event, fresh_postgres, fresh_sqlite, open_again};
use uuid::Uuid;

/// Makes one test for each database out of `async fn name(fresh: Fresh)`.
macro_rules! on_both_databases {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                super::$name(super::fresh_sqlite(super::StoreLimits::default()).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                super::$name(super::fresh_postgres(super::StoreLimits::default()).await).await;
            })*
        }
    };
}

on_both_databases! {
    an_inserted_event_reads_back_exactly_as_sent
    batches_of_every_length_are_written_whole_and_in_order
    a_second_event_with_the_same_dedup_id_is_a_duplicate_of_the_first
    duplicates_inside_one_batch_are_found
    inserting_the_same_events_again_finds_them_already_there
    an_event_older_than_the_window_gives_its_dedup_id_up
    a_dedup_id_at_the_edge_of_the_window_is_still_taken
    recent_dedup_ids_come_newest_first_and_say_whether_that_was_all
    two_inserts_of_one_dedup_id_at_once_keep_exactly_one
    an_inbox_is_read_page_by_page_in_order_and_only_by_its_organization
    an_inbox_shows_each_event_once_while_many_write
    an_inbox_can_be_read_by_state
    a_cursor_that_was_not_given_out_is_refused
    an_acknowledged_event_is_delivered_once_and_only_for_its_organization
    a_key_is_found_until_it_is_replaced
    rows_left_to_do_are_claimed_once_and_completed
    a_claim_whose_lease_is_over_is_given_again_and_the_late_claimant_changes_nothing
    claims_at_once_never_share_a_row
    statements_are_counted_by_kind
    an_event_that_the_database_cannot_hold_is_refused_and_named_as_its_own_fault
    what_was_inserted_is_there_after_opening_again
    a_closed_store_is_unavailable
    the_settings_that_make_a_commit_durable_can_be_read_back
    only_events_that_come_while_there_is_a_webhook_are_owed_to_it
    a_delivery_is_claimed_once_until_its_lease_is_over
    claims_take_no_more_than_asked_of_each_organization_oldest_first
    what_became_of_deliveries_is_written_with_the_states_of_their_events
    a_dead_letter_becomes_due_again_only_with_a_webhook
    a_webhook_costs_an_insert_no_statement
}

/// The events' outcomes must all be `New`.
async fn insert_new(store: &Store, events: &[Arc<Event>]) {
    let outcomes = store.insert(events, Handling::Done).await.expect("insert");
    assert_eq!(outcomes, vec![Inserted::New; events.len()]);
}

fn many(organization: Uuid, count: usize) -> Vec<Arc<Event>> {
    (0..count).map(|number| event(organization, None, &number.to_string())).collect()
}

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// All ids of an inbox that has `count` events. On PostgreSQL they show once no older transaction runs in the whole cluster,
/// which the other tests share.
async fn read_inbox(store: &Store, organization: Uuid, state: Option<State>, limit: usize, count: usize) -> Vec<Uuid> {
    let started = Instant::now();
    loop {
        let ids = read_pages(store, organization, state, limit).await;
        if ids.len() >= count || started.elapsed() > PATIENCE {
            return ids;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All ids that an inbox shows now.
async fn read_pages(store: &Store, organization: Uuid, state: Option<State>, limit: usize) -> Vec<Uuid> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.inbox(organization, state, limit, cursor.as_deref()).await.expect("a page");
        ids.extend(page.events.iter().map(|stored| stored.event.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return ids;
        }
    }
}

async fn an_inserted_event_reads_back_exactly_as_sent(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let payload = r#"{"b":1, "a":123456789012345678901234567890.10, "a":"é\u0000😀", "n":[[[]]]}"#;
    let sent = event(organization, Some("dédup-1"), payload);
    let before_us = now_us();
    insert_new(&fresh.store, std::slice::from_ref(&sent)).await;
    let stored = fresh.store.event(organization, sent.id).await.expect("read").expect("there");
    assert_eq!(stored.event, *sent);
    assert_eq!(stored.state, State::Persisted);
    assert!((before_us..=now_us()).contains(&stored.persisted_at_us));
    assert_eq!(
        fresh.store.event(Uuid::now_v7(), sent.id).await.expect("read"),
        None,
        "another organization sees nothing"
    );
    assert_eq!(fresh.metrics.events_persisted.get(), 1);
}

async fn batches_of_every_length_are_written_whole_and_in_order(fresh: Fresh) {
    for length in [0, 1, 2, 15, 16, 17, 127, 128, 129, 145, 500] {
        let organization = Uuid::now_v7();
        let events = many(organization, length);
        insert_new(&fresh.store, &events).await;
        let wanted: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        assert_eq!(read_inbox(&fresh.store, organization, None, 100, length).await, wanted, "{length} events");
    }
}

async fn a_second_event_with_the_same_dedup_id_is_a_duplicate_of_the_first(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let first = event(organization, Some("x"), "1");
    insert_new(&fresh.store, std::slice::from_ref(&first)).await;
    let batch = [
        event(organization, Some("x"), "2"),
        event(organization, Some("y"), "3"),
        event(Uuid::now_v7(), Some("x"), "4"),
    ];
    let outcomes = fresh.store.insert(&batch, Handling::Done).await.expect("insert");
    assert_eq!(outcomes, [Inserted::DuplicateOf(first.id), Inserted::New, Inserted::New]);
    assert_eq!(fresh.store.event(organization, batch[0].id).await.expect("read"), None);
    assert_eq!(fresh.metrics.events_persisted.get(), 3, "a duplicate is not persisted");
    assert_eq!(fresh.store.find_dedup(organization, "x", 0).await.expect("find"), Some(first.id));
    assert_eq!(fresh.store.find_dedup(organization, "z", 0).await.expect("find"), None);
    assert_eq!(fresh.store.find_dedup(organization, "x", first.created_at_us + 1).await.expect("find"), None);
}

async fn duplicates_inside_one_batch_are_found(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let (first, second) = (event(organization, Some("x"), "1"), event(organization, Some("x"), "2"));
    let mut batch = many(organization, 20);
    batch.insert(5, first.clone());
    batch.push(second);
    batch.push(first.clone());
    let outcomes = fresh.store.insert(&batch, Handling::Done).await.expect("insert");
    let mut wanted = vec![Inserted::New; 23];
    wanted[21] = Inserted::DuplicateOf(first.id);
    wanted[22] = Inserted::AlreadyThere;
    assert_eq!(outcomes, wanted);
    assert_eq!(read_inbox(&fresh.store, organization, None, 100, 21).await.len(), 21);
}

async fn inserting_the_same_events_again_finds_them_already_there(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let mut batch = many(organization, 150);
    batch.push(event(organization, Some("x"), "1"));
    insert_new(&fresh.store, &batch).await;
    batch.insert(140, event(organization, None, "new"));
    let outcomes = fresh.store.insert(&batch, Handling::Done).await.expect("insert");
    let mut wanted = vec![Inserted::AlreadyThere; 152];
    wanted[140] = Inserted::New;
    assert_eq!(outcomes, wanted);
    assert_eq!(read_inbox(&fresh.store, organization, None, 100, 152).await.len(), 152);
}

async fn an_event_older_than_the_window_gives_its_dedup_id_up(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let window = StoreLimits::default().dedup_window;
    let old = aged_event(organization, "x", window + Duration::from_secs(1));
    insert_new(&fresh.store, std::slice::from_ref(&old)).await;
    let (new, late) = (event(organization, Some("x"), "2"), event(organization, Some("x"), "3"));
    let outcomes = fresh.store.insert(&[new.clone(), late], Handling::Done).await.expect("insert");
    assert_eq!(outcomes, [Inserted::New, Inserted::DuplicateOf(new.id)]);
    let kept = fresh.store.event(organization, old.id).await.expect("read").expect("the old event stays");
    assert_eq!(kept.event.dedup_id.as_deref(), Some("x"), "and still shows its dedup_id");
    assert_eq!(fresh.store.find_dedup(organization, "x", 0).await.expect("find"), Some(new.id));
}

async fn a_dedup_id_at_the_edge_of_the_window_is_still_taken(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let new = event(organization, Some("x"), "2");
    let mut old = Event::clone(&event(organization, Some("x"), "1"));
    old.created_at_us =
        new.created_at_us - i64::try_from(StoreLimits::default().dedup_window.as_micros()).expect("a window");
    let old = Arc::new(old);
    insert_new(&fresh.store, std::slice::from_ref(&old)).await;
    let outcomes = fresh.store.insert(&[new], Handling::Done).await.expect("insert");
    assert_eq!(outcomes, [Inserted::DuplicateOf(old.id)]);
}

async fn recent_dedup_ids_come_newest_first_and_say_whether_that_was_all(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let since_us = now_us();
    let events: Vec<_> = (0..5).map(|number| event(organization, Some(&number.to_string()), "1")).collect();
    insert_new(&fresh.store, &events).await;
    insert_new(&fresh.store, &many(organization, 3)).await;
    let (all, complete) = fresh.store.recent_dedup(since_us, 5).await.expect("read");
    let wanted: Vec<_> =
        events.iter().rev().map(|e| (organization, e.dedup_id.clone().expect("a dedup_id"), e.id)).collect();
    assert_eq!((all, complete), (wanted.clone(), true));
    let (some, complete) = fresh.store.recent_dedup(since_us, 4).await.expect("read");
    assert_eq!((some.as_slice(), complete), (&wanted[..4], false));
    let (none, complete) = fresh.store.recent_dedup(now_us() + 1_000_000, 4).await.expect("read");
    assert_eq!((none, complete), (vec![], true));
}

async fn two_inserts_of_one_dedup_id_at_once_keep_exactly_one(fresh: Fresh) {
    let organization = Uuid::now_v7();
    for round in 0..20 {
        let dedup_id = round.to_string();
        let (one, two) = (event(organization, Some(&dedup_id), "1"), event(organization, Some(&dedup_id), "2"));
        let (a, b) = ([one.clone()], [two.clone()]);
        let (first, second) =
            tokio::join!(fresh.store.insert(&a, Handling::Done), fresh.store.insert(&b, Handling::Done));
        let outcomes = (first.expect("insert")[0], second.expect("insert")[0]);
        let one_kept = outcomes == (Inserted::New, Inserted::DuplicateOf(one.id))
            || outcomes == (Inserted::DuplicateOf(two.id), Inserted::New);
        assert!(one_kept, "{outcomes:?}");
    }
}

async fn an_inbox_is_read_page_by_page_in_order_and_only_by_its_organization(fresh: Fresh) {
    let (organization, other) = (Uuid::now_v7(), Uuid::now_v7());
    let mut wanted = Vec::new();
    for _ in 0..5 {
        let events = many(organization, 5);
        wanted.extend(events.iter().map(|event| event.id));
        insert_new(&fresh.store, &events).await;
        insert_new(&fresh.store, &many(other, 3)).await;
    }
    for limit in [1, 4, 5, 24, 25, 26, 1000] {
        assert_eq!(read_inbox(&fresh.store, organization, None, limit, wanted.len()).await, wanted, "pages of {limit}");
    }
    let page = fresh.store.inbox(organization, None, 25, None).await.expect("a page");
    assert_eq!(page.next_cursor, None, "a page that ends with the last event is the last one");
    assert!(read_inbox(&fresh.store, Uuid::now_v7(), None, 10, 0).await.is_empty());
}

async fn an_inbox_shows_each_event_once_while_many_write(fresh: Fresh) {
    const WRITERS: usize = 6;
    const BATCHES: usize = 40;
    const BATCH: usize = 7;
    let organization = Uuid::now_v7();
    let (second, _) = open_again(&fresh.database, StoreLimits::default()).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let store = if number % 2 == 0 { fresh.store.clone() } else { second.clone() };
            tokio::spawn(async move {
                for _ in 0..BATCHES {
                    insert_new(&store, &many(organization, BATCH)).await;
                }
            })
        })
        .collect();
    // Reads as a consumer does that follows the end: it keeps the cursor of the last event that it has seen.
    const TOTAL: usize = WRITERS * BATCHES * BATCH;
    let mut seen: HashMap<Uuid, usize> = HashMap::new();
    let mut cursor: Option<String> = None;
    let started = Instant::now();
    loop {
        let page = fresh.store.inbox(organization, None, 3, cursor.as_deref()).await.expect("a page");
        let ended = page.next_cursor.is_none();
        let last_page = ended && (seen.len() + page.events.len() >= TOTAL || started.elapsed() > PATIENCE);
        if !ended || last_page {
            page.events.iter().for_each(|stored| *seen.entry(stored.event.id).or_default() += 1);
            cursor = page.next_cursor;
        }
        if last_page {
            break;
        }
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(seen.len(), TOTAL, "no event may appear behind the cursor");
    assert!(seen.values().all(|times| *times == 1), "no event may appear twice");
}

async fn an_inbox_can_be_read_by_state(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let events = many(organization, 6);
    let (done, wanted) = events.split_at(3);
    insert_new(&fresh.store, done).await;
    fresh.store.insert(wanted, Handling::Wanted).await.expect("insert");
    assert!(fresh.store.acknowledge(organization, events[1].id).await.expect("acknowledge"));
    let ids = |numbers: &[usize]| numbers.iter().map(|number| events[*number].id).collect::<Vec<_>>();
    for (state, numbers) in [
        (None, &[0, 1, 2, 3, 4, 5][..]),
        (Some(State::Persisted), &[0, 2, 3, 4, 5]),
        (Some(State::Delivered), &[1]),
        (Some(State::Failed), &[]),
        (Some(State::DeadLetter), &[]),
    ] {
        assert_eq!(read_inbox(&fresh.store, organization, state, 2, numbers.len()).await, ids(numbers), "{state:?}");
    }
}

async fn a_cursor_that_was_not_given_out_is_refused(fresh: Fresh) {
    for cursor in ["", "x", "AAAA", "!!!!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "_____________________w"] {
        let answer = fresh.store.inbox(Uuid::now_v7(), None, 10, Some(cursor)).await;
        assert!(matches!(answer, Err(StoreError::BadCursor)), "{cursor}: {answer:?}");
    }
}

async fn an_acknowledged_event_is_delivered_once_and_only_for_its_organization(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let sent = event(organization, None, "1");
    insert_new(&fresh.store, std::slice::from_ref(&sent)).await;
    assert!(!fresh.store.acknowledge(Uuid::now_v7(), sent.id).await.expect("acknowledge"));
    assert!(!fresh.store.acknowledge(organization, Uuid::now_v7()).await.expect("acknowledge"));
    for _ in 0..2 {
        assert!(fresh.store.acknowledge(organization, sent.id).await.expect("acknowledge"));
    }
    let stored = fresh.store.event(organization, sent.id).await.expect("read").expect("there");
    assert_eq!(stored.state, State::Delivered);
    assert_eq!(fresh.metrics.events_delivered.get(), 1, "counted once");
}

async fn a_key_is_found_until_it_is_replaced(fresh: Fresh) {
    let key = |number: u8| KeyRow {
        key_hash: [number; 32],
        organization_id: Uuid::from_u128(7),
        organization_name: format!("Ünïcorn {number}"),
        tier: "pro".to_owned(),
        created_at_us: 1_000 + i64::from(number),
    };
    fresh.store.add_key(&key(1)).await.expect("add");
    assert_eq!(fresh.store.find_key(&[1; 32]).await.expect("find"), Some(key(1)));
    assert_eq!(fresh.store.find_key(&[2; 32]).await.expect("find"), None);
    assert!(matches!(fresh.store.add_key(&key(1)).await, Err(StoreError::Refused(_))), "a hash is there once");
    assert!(fresh.store.replace_key(&[1; 32], &key(2)).await.expect("replace"));
    assert!(!fresh.store.replace_key(&[1; 32], &key(3)).await.expect("replace"), "the old key is gone");
    assert_eq!(fresh.store.find_key(&[1; 32]).await.expect("find"), None);
    assert_eq!(fresh.store.find_key(&[2; 32]).await.expect("find"), Some(key(2)));
}

/// A time at which no claim of a test has outlived its lease.
const NO_LEASE_IS_OVER: i64 = 0;

async fn rows_left_to_do_are_claimed_once_and_completed(fresh: Fresh) {
    let store = &fresh.store;
    let organization = Uuid::now_v7();
    insert_new(store, &many(organization, 2)).await;
    assert!(!store.wants_processing(NO_LEASE_IS_OVER).await.expect("probe"), "rows that are done want nothing");
    let events = many(organization, 5);
    store.insert(&events, Handling::Wanted).await.expect("insert");
    assert!(store.wants_processing(NO_LEASE_IS_OVER).await.expect("probe"));
    assert_eq!(store.depth(NO_LEASE_IS_OVER).await.expect("depth"), 5);
    let first = store.claim(100, NO_LEASE_IS_OVER, 3).await.expect("claim");
    let second = store.claim(200, NO_LEASE_IS_OVER, 3).await.expect("claim");
    assert_eq!((first.len(), second.len()), (3, 2));
    let claimed: HashSet<Uuid> = first.iter().chain(&second).copied().collect();
    assert_eq!(claimed, events.iter().map(|event| event.id).collect());
    assert!(first.iter().all(|id| events[..3].iter().any(|event| event.id == *id)), "the oldest first");
    assert_eq!(store.complete(&first, 100).await.expect("complete"), 3);
    assert_eq!(store.complete(&second, 200).await.expect("complete"), 2);
    assert!(!store.wants_processing(i64::MAX).await.expect("probe"), "nothing is left");
}

async fn a_claim_whose_lease_is_over_is_given_again_and_the_late_claimant_changes_nothing(fresh: Fresh) {
    let store = &fresh.store;
    store.insert(&many(Uuid::now_v7(), 1), Handling::Wanted).await.expect("insert");
    let claimed = store.claim(100, NO_LEASE_IS_OVER, 10).await.expect("claim");
    assert!(!store.wants_processing(100).await.expect("probe"), "the lease is not over");
    assert!(store.wants_processing(101).await.expect("probe"));
    assert_eq!(store.depth(101).await.expect("depth"), 1);
    assert_eq!(store.claim(200, 101, 10).await.expect("claim"), claimed);
    assert_eq!(store.complete(&claimed, 100).await.expect("complete"), 0, "the claim of 100 was taken over");
    assert_eq!(store.complete(&claimed, 200).await.expect("complete"), 1);
}

async fn claims_at_once_never_share_a_row(fresh: Fresh) {
    let (second, _) = open_again(&fresh.database, StoreLimits::default()).await;
    fresh.store.insert(&many(Uuid::now_v7(), 400), Handling::Wanted).await.expect("insert");
    let claimants: Vec<_> = (0..4)
        .map(|number| {
            let store = if number % 2 == 0 { fresh.store.clone() } else { second.clone() };
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let ids = store.claim(100, NO_LEASE_IS_OVER, 7).await.expect("claim");
                    if ids.is_empty() && store.depth(NO_LEASE_IS_OVER).await.expect("depth") == 0 {
                        return mine;
                    }
                    mine.extend(ids);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimant in claimants {
        all.extend(claimant.await.expect("a claimant"));
    }
    assert_eq!(all.len(), 400);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 400);
}

async fn statements_are_counted_by_kind(fresh: Fresh) {
    use server::metrics::Statement;
    let organization = Uuid::now_v7();
    fresh.store.find_dedup(organization, "x", 0).await.expect("find");
    fresh.store.depth(NO_LEASE_IS_OVER).await.expect("depth");
    fresh.store.insert(&many(organization, 3), Handling::Wanted).await.expect("insert");
    fresh.store.claim(100, NO_LEASE_IS_OVER, 3).await.expect("claim");
    for (kind, at_least) in [
        (Statement::Select, 1),
        (Statement::Count, 1),
        (Statement::Insert, 1),
        (Statement::Update, 1),
        (Statement::Delete, 0),
    ] {
        assert_eq!(fresh.metrics.statements(kind).min(1), at_least, "{kind:?}");
    }
}

async fn an_event_that_the_database_cannot_hold_is_refused_and_named_as_its_own_fault(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let mut bad = Event::clone(&event(organization, None, "1"));
    bad.payload = bytes::Bytes::from_static(b"\"\xff\"");
    let good = event(organization, None, "2");
    let error = fresh.store.insert(&[good.clone(), Arc::new(bad)], Handling::Done).await.expect_err("not UTF-8");
    assert!(matches!(error, StoreError::Refused(_)) && error.blames_values(), "{error:?}");
    assert_eq!(fresh.store.event(organization, good.id).await.expect("read"), None, "nothing of the batch was written");
    assert_eq!(fresh.metrics.events_persisted.get(), 0);
}

async fn what_was_inserted_is_there_after_opening_again(fresh: Fresh) {
    let organization = Uuid::now_v7();
    let events = many(organization, 10);
    insert_new(&fresh.store, &events).await;
    fresh.store.close().await;
    let (again, _) = open_again(&fresh.database, StoreLimits::default()).await;
    assert_eq!(read_inbox(&again, organization, None, 100, 10).await.len(), 10);
}

async fn a_closed_store_is_unavailable(fresh: Fresh) {
    fresh.store.ping().await.expect("alive");
    fresh.store.close().await;
    assert!(matches!(fresh.store.ping().await, Err(StoreError::Unavailable(_))));
}

async fn the_settings_that_make_a_commit_durable_can_be_read_back(fresh: Fresh) {
    let settings: HashMap<String, String> =
        fresh.store.durability_settings().await.expect("settings").into_iter().collect();
    let wanted = match fresh.database.kind() {
        "sqlite" => [("journal_mode", "wal"), ("synchronous", "full")],
        _ => [("fsync", "on"), ("synchronous_commit", "on")],
    };
    for (name, value) in wanted {
        assert_eq!(settings.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_that_start_at_once_on_an_empty_postgres_take_turns() {
    let empty = support::empty_postgres().await;
    let opening = || support::open_again(&empty.database, StoreLimits::default());
    let (one, two, three) = tokio::join!(opening(), opening(), opening());
    for (store, _) in [&one, &two, &three] {
        insert_new(store, &many(Uuid::now_v7(), 2)).await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_with_the_cause_and_a_remedy() {
    let metrics = || Arc::new(Metrics::new(&BuildInfo::default()));
    let limits = StoreLimits { acquire_timeout: Duration::from_millis(300), ..StoreLimits::default() };
    for (database, place, remedy) in [
        (
            Database::Sqlite("/nowhere/at/all/events.db".into()),
            "sqlite:/nowhere/at/all/events.db",
            "--database sqlite:PATH",
        ),
        (
            Database::Postgres("postgres://me:secret@127.0.0.1:1/events".to_owned()),
            "postgres://127.0.0.1:1/events",
            "check that it runs",
        ),
        (Database::Postgres("postgres://[secret".to_owned()), "(URL not understood)", "postgres://USER@HOST:PORT/NAME"),
    ] {
        let error = Store::connect(&database, limits.clone(), metrics()).await.expect_err("not there").to_string();
        assert!(error.contains(place) && error.contains(remedy), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn transactions_are_ordered_as_numbers_and_not_as_text() {
    let fresh = fresh_postgres(StoreLimits::default()).await;
    let Database::Postgres(url) = &fresh.database else { panic!("not PostgreSQL") };
    let organization = Uuid::now_v7();
    let events = many(organization, 3);
    let mut connection = PgConnection::connect(url).await.expect("connect");
    for (event, tx) in events.iter().zip(["9", "10", "100"]) {
        insert_new(&fresh.store, std::slice::from_ref(event)).await;
        let query = sqlx::query("UPDATE events SET tx = $1::text::xid8 WHERE id = $2").bind(tx).bind(event.id);
        query.execute(&mut connection).await.expect("update");
    }
    let wanted: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    assert_eq!(read_inbox(&fresh.store, organization, None, 1, 3).await, wanted);
}

#[tokio::test]
async fn an_event_of_a_transaction_that_commits_late_does_not_appear_behind_the_cursor() {
    let fresh = fresh_postgres(StoreLimits::default()).await;
    let Database::Postgres(url) = &fresh.database else { panic!("not PostgreSQL") };
    let organization = Uuid::now_v7();
    let mut connection = PgConnection::connect(url).await.expect("connect");
    let mut late = connection.begin().await.expect("begin");
    let query = sqlx::query(
        "INSERT INTO events (id, organization_id, event_type, payload, status, inserted_at, persisted_at)
         VALUES ($1, $2, 't', '1', 'processed', 1, 1)",
    );
    query.bind(Uuid::now_v7()).bind(organization).execute(&mut *late).await.expect("insert");
    insert_new(&fresh.store, &many(organization, 3)).await;

    // What a reader in pages of one has seen, and where it stands.
    let (mut seen, mut cursor) = (0, None);
    loop {
        let page = fresh.store.inbox(organization, None, 1, cursor.as_deref()).await.expect("a page");
        let Some(next) = page.next_cursor else { break };
        seen += page.events.len();
        cursor = Some(next);
    }
    late.commit().await.expect("commit");
    let started = Instant::now();
    loop {
        let rest = fresh.store.inbox(organization, None, 10, cursor.as_deref()).await.expect("a page").events.len();
        if seen + rest == 4 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{seen} seen before the commit, {rest} after it, of 4");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Far enough away for a lease that no test outlives.
const LEASE_US: i64 = 3_600_000_000;

async fn set_webhook(store: &Store, organization: Uuid) {
    store.set_webhook(organization, "http://a/", &SigningSecret(vec![1; 32]), now_us()).await.expect("set");
}

async fn claim(store: &Store, organization: Uuid, count: usize, lease_us: i64) -> Vec<Claimed> {
    store.claim_deliveries(&[(organization, count)], now_us(), lease_us).await.expect("claim")
}

fn ids(claimed: &[Claimed]) -> Vec<Uuid> {
    claimed.iter().map(|claimed| claimed.stored.event.id).collect()
}

async fn only_events_that_come_while_there_is_a_webhook_are_owed_to_it(fresh: Fresh) {
    let (organization, other, store) = (Uuid::now_v7(), Uuid::now_v7(), &fresh.store);
    insert_new(store, &many(organization, 3)).await;
    set_webhook(store, organization).await;
    let owed = many(organization, 20);
    insert_new(store, &[owed.as_slice(), &many(other, 5)].concat()).await;
    store.insert(&owed, Handling::Done).await.expect("a second time");
    assert_eq!(store.organizations_due(now_us()).await.expect("due"), [organization]);
    assert!(store.organizations_due(0).await.expect("due").is_empty());
    store.disable_webhook(organization, "http://another/", now_us()).await.expect("of another URL");
    let one = event(organization, Some("x"), "1");
    store.insert(std::slice::from_ref(&one), Handling::Wanted).await.expect("insert");
    store.disable_webhook(organization, "http://a/", now_us()).await.expect("disable");
    insert_new(store, &many(organization, 2)).await;
    set_webhook(store, organization).await;
    assert!(store.remove_webhook(organization).await.expect("remove"));
    assert!(!store.remove_webhook(organization).await.expect("remove"));
    insert_new(store, &many(organization, 2)).await;
    let claimed = claim(store, organization, 100, now_us() + LEASE_US).await;
    let wanted: Vec<Uuid> = owed.iter().map(|event| event.id).chain([one.id]).collect();
    assert_eq!(ids(&claimed), wanted);
    assert!(claimed.iter().all(|claimed| claimed.webhook.is_none()), "it is gone");
    assert_eq!(claimed[20].stored.event, *one);
}

async fn a_delivery_is_claimed_once_until_its_lease_is_over(fresh: Fresh) {
    let (organization, store) = (Uuid::now_v7(), &fresh.store);
    set_webhook(store, organization).await;
    insert_new(store, &many(organization, 10)).await;
    let (second, _) = open_again(&fresh.database, StoreLimits::default()).await;
    let short_us = now_us() + 50_000;
    let (one, two) = tokio::join!(claim(store, organization, 10, short_us), claim(&second, organization, 10, short_us));
    assert_eq!(one.len() + two.len(), 10);
    assert!(ids(&one).iter().all(|id| !ids(&two).contains(id)));
    tokio::time::sleep(Duration::from_millis(60)).await;
    let again = claim(&second, organization, 100, now_us() + LEASE_US).await;
    assert_eq!(again.len(), 10, "the lease is over");
    assert_eq!(again[0].webhook, Some(("http://a/".to_owned(), SigningSecret(vec![1; 32]))));
    // The late claimant changes nothing, unless it has delivered.
    let late = [After::DeadLetter, After::Retry { attempts: 1, at_us: 0 }, After::Released, After::Delivered];
    let outcome = |(id, after)| Outcome { event_id: id, lease_us: short_us, after };
    let outcomes: Vec<_> = ids(&again).into_iter().zip(late).map(outcome).collect();
    store.record_deliveries(&outcomes).await.expect("record");
    assert_eq!(claim(store, organization, 100, now_us() + LEASE_US).await, []);
    for (outcome, state) in
        outcomes.iter().zip([State::Persisted, State::Persisted, State::Persisted, State::Delivered])
    {
        let stored = store.event(organization, outcome.event_id).await.expect("read").expect("there");
        assert_eq!(stored.state, state, "{:?}", outcome.after);
    }
}

async fn claims_take_no_more_than_asked_of_each_organization_oldest_first(fresh: Fresh) {
    let (one, two, store) = (Uuid::now_v7(), Uuid::now_v7(), &fresh.store);
    set_webhook(store, one).await;
    set_webhook(store, two).await;
    let (of_one, of_two) = (many(one, 50), many(two, 5));
    insert_new(store, &[of_one.as_slice(), &of_two].concat()).await;
    let turns = [(one, 3), (Uuid::now_v7(), 4), (two, 9)];
    let claimed = store.claim_deliveries(&turns, now_us(), now_us() + LEASE_US).await.expect("claim");
    let wanted: HashSet<Uuid> = of_one[..3].iter().chain(&of_two).map(|event| event.id).collect();
    assert_eq!(ids(&claimed).into_iter().collect::<HashSet<_>>(), wanted);
    assert_eq!(store.organizations_due(now_us()).await.expect("due"), [one]);
}

async fn what_became_of_deliveries_is_written_with_the_states_of_their_events(fresh: Fresh) {
    let (organization, store) = (Uuid::now_v7(), &fresh.store);
    set_webhook(store, organization).await;
    let events = many(organization, 6);
    insert_new(store, &events).await;
    store.acknowledge(organization, events[5].id).await.expect("its reader has it");
    let lease_us = now_us() + LEASE_US;
    claim(store, organization, 10, lease_us).await;
    let later_us = lease_us + 5;
    let afters = [
        After::Delivered,
        After::DeadLetter,
        After::Retry { attempts: 3, at_us: 7 },
        After::Retry { attempts: 1, at_us: later_us },
        After::Released,
        After::Retry { attempts: 1, at_us: later_us },
    ];
    let outcome = |(event, after): (&Arc<Event>, After)| Outcome { event_id: event.id, lease_us, after };
    let outcomes: Vec<_> = events.iter().zip(afters).map(outcome).collect();
    for _ in 0..2 {
        store.record_deliveries(&outcomes).await.expect("record, also a second time");
    }
    for (event, state) in events.iter().zip([
        State::Delivered,
        State::DeadLetter,
        State::Failed,
        State::Failed,
        State::Persisted,
        State::Delivered,
    ]) {
        assert_eq!(store.event(organization, event.id).await.expect("read").expect("there").state, state);
    }
    assert_eq!(fresh.metrics.events_delivered.get(), 2, "once each");
    let again = claim(store, organization, 10, lease_us).await;
    let found: Vec<_> = again.iter().map(|claimed| (claimed.stored.event.id, claimed.attempts)).collect();
    assert_eq!(found, [(events[2].id, 3), (events[4].id, 0)]);
}

async fn a_dead_letter_becomes_due_again_only_with_a_webhook(fresh: Fresh) {
    let (organization, store) = (Uuid::now_v7(), &fresh.store);
    set_webhook(store, organization).await;
    let events = many(organization, 2);
    insert_new(store, &events).await;
    let lease_us = now_us() + LEASE_US;
    claim(store, organization, 10, lease_us).await;
    let dead = events[0].id;
    let replay = async |organization, id| store.replay(organization, id, now_us()).await.expect("replay");
    assert_eq!(replay(organization, dead).await, Replay::NotDead(State::Persisted));
    store.record_deliveries(&[Outcome { event_id: dead, lease_us, after: After::DeadLetter }]).await.expect("record");
    assert_eq!(replay(Uuid::now_v7(), dead).await, Replay::NoEvent);
    store.remove_webhook(organization).await.expect("remove");
    assert_eq!(replay(organization, dead).await, Replay::NoWebhook);
    set_webhook(store, organization).await;
    assert_eq!(replay(organization, dead).await, Replay::Due);
    assert_eq!(replay(organization, dead).await, Replay::NotDead(State::Failed));
    let claimed = claim(store, organization, 10, lease_us).await;
    assert_eq!((ids(&claimed), claimed[0].attempts), (vec![dead], 0));
}

async fn a_webhook_costs_an_insert_no_statement(fresh: Fresh) {
    let (with, without, store) = (Uuid::now_v7(), Uuid::now_v7(), &fresh.store);
    set_webhook(store, with).await;
    let mut costs = Vec::new();
    for organization in [without, with] {
        let before = fresh.metrics.statements_all();
        insert_new(store, &many(organization, 100)).await;
        costs.push(fresh.metrics.statements_all() - before);
    }
    assert_eq!(costs[0], costs[1]);
}
