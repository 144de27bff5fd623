//! Every acknowledged event against what the target shows as persisted, or what its database holds.
//!
//! The expectation comes from the generator's own record, never from the store; ids are compared as sets, never counts, so a
//! duplicate cannot stand in for a loss. Absence is only claimed after the store was read to its end, and after what is missing was
//! asked for by its id: a reader that could not answer makes events unverified, not lost, and an inbox may lag behind the store. (The
//! reference server's does on PostgreSQL while any transaction of the whole cluster stays open.)

use std::time::Duration;

use reports::histogram::TimeHistogram;
use reports::model::{DurableInterval, Ledger, TimeToDurable};
use reports::stats;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::clock::Clock;
use crate::dialect::is_digest;
use crate::observe::rows::{PersistedRow, Rows, RowsError};
use crate::payload::{PAYLOAD_BYTES_TELLING, Payloads};
use crate::recorder::Acknowledged;
use crate::target::{ShownEvent, Target, TargetError};

/// Ids of lost events kept as examples.
const LOST_EXAMPLES_MAX: usize = 10;
/// Fewer events than this have no trend.
const GROWTH_EVENTS_MIN: usize = 20;
/// That so many times are whole milliseconds by chance is out of the question.
const RESOLUTION_EVENTS_MIN: usize = 10;
/// Pauses between two looks at a target that has not persisted everything yet.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A target that says that nothing is pending is looked at for this long before what is missing is lost.
const PATIENCE_WHEN_EMPTY: Duration = Duration::from_secs(2);
/// Missing events that are asked for by their ids; when the target has none of so many, it has none of the others.
const LOOK_UPS_MAX: usize = 1_000;
/// Reading all pages may take this long; an inbox without an end has not been read to the end.
const INBOX_READING_MAX: Duration = Duration::from_secs(120);

/// Pure: what was sent and acknowledged, and what has been found of it.
#[derive(Debug)]
pub struct Reconciliation<'a> {
    acknowledged: &'a [Acknowledged],
    payloads: Payloads,
    planned: u64,
    clock: Clock,
    /// By sequence number.
    found: Vec<Found>,
    /// Events that carry this run's name and were never sent.
    never_sent: u64,
    steady_begin_ns: u64,
    /// Whether the store keeps events under the ids of their acknowledgements.
    ids_match: bool,
}

/// What is known of one event.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Acknowledged, under this id and then.
    expected: bool,
    id: Option<Uuid>,
    done_ns: u64,
    copies: u32,
    /// One of them has the id of the acknowledgement, or does not show any.
    id_seen: bool,
    /// One of them has another payload than was sent.
    altered: bool,
    /// Of the first one (since the Unix epoch).
    persisted_unix_ns: Option<u64>,
}

impl Found {
    fn is_corrupted(&self) -> bool {
        self.altered || (self.copies > 0 && self.id.is_some() && !self.id_seen)
    }
}

impl<'a> Reconciliation<'a> {
    /// Of a load that took `planned` sequence numbers, the first `kept` of which are looked for; `acknowledged` has none of the others.
    pub fn new(acknowledged: &'a [Acknowledged], payloads: &Payloads, planned: u64, kept: u64, clock: Clock) -> Self {
        let mut found = vec![Found::default(); planned.min(kept) as usize];
        for entry in acknowledged {
            found[entry.sequence as usize] =
                Found { expected: true, id: entry.id, done_ns: entry.done_ns, ..Found::default() };
        }
        Self {
            acknowledged,
            payloads: payloads.clone(),
            planned,
            clock,
            found,
            never_sent: 0,
            steady_begin_ns: 0,
            ids_match: true,
        }
    }

    /// Whether another id in the store is corruption, as it is by default.
    pub fn with_ids_match(self, ids_match: bool) -> Self {
        Self { ids_match, ..self }
    }

    /// Leaves what was acknowledged before this time of the clock out of the growth of the time to durable.
    pub fn with_steady_begin(self, steady_begin_ns: u64) -> Self {
        Self { steady_begin_ns, ..self }
    }

    /// Takes in one event of the store; events of others are passed over. A copy may have lost its `dedup_id` or have another: it is
    /// known by its payload then.
    pub fn enter(&mut self, shown: &ShownEvent<'_>) {
        let payload = shown.payload.map(|payload| payload.get().as_bytes());
        let by_dedup_id = shown.dedup_id.as_deref().and_then(|dedup_id| self.payloads.sequence(dedup_id));
        let Some(sequence) = by_dedup_id.or_else(|| self.payloads.sequence_in(payload?)) else { return };
        if sequence >= self.planned {
            self.never_sent += 1;
        } else {
            self.enter_as(sequence, shown);
        }
    }

    /// Takes in one row of a table; rows of others are passed over. Its payload is compared by content, because databases write JSON anew.
    pub fn enter_row(&mut self, row: &PersistedRow) {
        let within = || row.payload.as_deref().and_then(|payload| self.payloads.sequence_within(payload));
        let by_dedup_id = row.dedup_id.as_deref().and_then(|dedup_id| self.payloads.sequence(dedup_id));
        let Some(sequence) = by_dedup_id.or_else(within) else { return };
        if sequence >= self.planned {
            self.never_sent += 1;
            return;
        }
        // One too short to be recognised cannot be compared, either.
        let tells = self.payloads.payload(sequence).len() >= PAYLOAD_BYTES_TELLING as usize;
        let altered = by_dedup_id.is_some()
            && tells
            && row.payload.as_deref().is_some_and(|payload| self.payloads.sequence_within(payload) != Some(sequence));
        self.add(sequence, row.id, altered, row.persisted_at);
    }

    /// Takes in a copy of event `sequence`.
    fn enter_as(&mut self, sequence: u64, shown: &ShownEvent<'_>) {
        let payload = shown.payload.map(|payload| payload.get().as_bytes());
        let altered = payload != Some(self.payloads.payload(sequence));
        self.add(sequence, shown.id, altered, shown.persisted_at);
    }

    fn add(&mut self, sequence: u64, id: Option<Uuid>, altered: bool, persisted_at: Option<jiff::Timestamp>) {
        // Beyond the limit: whether it was acknowledged is not known.
        let Some(found) = self.found.get_mut(sequence as usize) else { return };
        found.id_seen |= !self.ids_match || id.is_none() || id == found.id;
        found.altered |= altered;
        if found.copies == 0 {
            found.persisted_unix_ns = persisted_at.and_then(|at| u64::try_from(at.as_nanosecond()).ok());
        }
        found.copies += 1;
    }

    /// Acknowledged events of which no copy has been found.
    pub fn missing(&self) -> u64 {
        self.acknowledged.len() as u64 - self.persisted()
    }

    /// Those.
    pub fn missing_events(&self) -> impl Iterator<Item = &Acknowledged> {
        self.acknowledged.iter().filter(|entry| self.found[entry.sequence as usize].copies == 0)
    }

    /// The numbers and ids of those.
    fn missing_ids(&self) -> Vec<(u64, Uuid)> {
        let missing = self.found.iter().enumerate().filter(|(_, found)| found.expected && found.copies == 0);
        let known = missing.filter_map(|(sequence, found)| Some((sequence as u64, found.id?)));
        known.filter(|(_, id)| !is_digest(*id)).collect()
    }

    fn persisted(&self) -> u64 {
        self.count(|found| found.expected && found.copies > 0)
    }

    fn count(&self, which: impl Fn(&Found) -> bool) -> u64 {
        self.found.iter().filter(|found| which(found)).count() as u64
    }

    /// The ledger. `complete`: the store was read to its end, so what is missing is lost; else it is unverified.
    pub fn finish(&self, repeats_accepted: u64, complete: bool, drained_after: Duration, same_clock: bool) -> Ledger {
        let missing = self.missing();
        let copies_surplus: u64 = self.found.iter().map(|found| u64::from(found.copies.saturating_sub(1))).sum();
        let lost = self.found.iter().enumerate().filter(|(_, found)| found.expected && found.copies == 0 && complete);
        Ledger {
            acknowledged: self.acknowledged.len() as u64,
            persisted: self.persisted(),
            delivered: None,
            delivery: None,
            lost: if complete { missing } else { 0 },
            // A repeat that was acknowledged is, where it was stored too, one of the surplus copies: not to be counted twice.
            duplicated: copies_surplus.max(repeats_accepted),
            corrupted: self.never_sent + self.count(Found::is_corrupted),
            unverified: if complete { 0 } else { missing },
            unacknowledged: self.count(|found| !found.expected && found.copies > 0),
            source: "inbox".to_owned(),
            drained_after_ms: drained_after.as_millis() as u64,
            time_to_durable: if same_clock { self.time_to_durable() } else { None },
            lost_examples: lost
                .take(LOST_EXAMPLES_MAX)
                .map(|(sequence, _)| self.payloads.dedup_id(sequence as u64))
                .collect(),
        }
    }

    fn time_to_durable(&self) -> Option<TimeToDurable> {
        let (mut histogram, mut steady) = (TimeHistogram::new(), Vec::new());
        for found in self.found.iter().filter(|found| found.expected) {
            if let Some(persisted_unix_ns) = found.persisted_unix_ns {
                let durable_ns = persisted_unix_ns.saturating_sub(self.clock.unix_ns(found.done_ns));
                histogram.record(durable_ns);
                if found.done_ns >= self.steady_begin_ns {
                    steady.push(((found.done_ns - self.steady_begin_ns) as f64, durable_ns as f64));
                }
            }
        }
        steady.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        (histogram.count() > 0).then(|| TimeToDurable {
            times: histogram.times(0),
            source: "persisted_at".to_owned(),
            resolution_ns: self.resolution_ns(),
            growth: if steady.len() >= GROWTH_EVENTS_MIN { stats::slope(&steady) } else { None },
            intervals: by_second(&steady),
        })
    }

    /// How coarse the times of the store are: microseconds, or as coarse as all of them say.
    fn resolution_ns(&self) -> u64 {
        let all: Vec<u64> = self.found.iter().filter_map(|found| found.persisted_unix_ns).collect();
        let fits = |unit_ns: &u64| all.len() >= RESOLUTION_EVENTS_MIN && all.iter().all(|at_ns| at_ns % unit_ns == 0);
        [1_000_000_000, 1_000_000].into_iter().find(fits).unwrap_or(1_000)
    }
}

/// Of pairs (ns after the begin of the steady phase, ns until durable), ascending.
fn by_second(steady: &[(f64, f64)]) -> Vec<DurableInterval> {
    let second = |pair: &(f64, f64)| (pair.0 / 1e9) as u64;
    let interval = |pairs: &[(f64, f64)]| {
        let mut histogram = TimeHistogram::new();
        pairs.iter().for_each(|(_, durable_ns)| histogram.record(*durable_ns as u64));
        DurableInterval {
            offset_ms: second(&pairs[0]) * 1_000,
            events: histogram.count(),
            p50_ns: histogram.quantile(0.5),
            p99_ns: histogram.quantile(0.99),
        }
    };
    steady.chunk_by(|a, b| second(a) == second(b)).map(interval).collect()
}

/// What a load left to be reconciled.
#[derive(Debug)]
pub struct Account<'a> {
    /// Acknowledgements of first sendings.
    pub acknowledged: &'a [Acknowledged],
    /// Repeats acknowledged against the contract.
    pub repeats_accepted: u64,
    /// Sequence numbers used.
    pub planned: u64,
    /// Of these, how many are in `acknowledged` if they were acknowledged.
    pub kept: u64,
    /// Acknowledgements of the others.
    pub acknowledged_beyond: u64,
    /// The events.
    pub payloads: &'a Payloads,
    /// Keys of the organisations.
    pub keys: &'a [String],
    /// When the steady phase began, ns of the clock.
    pub steady_begin_ns: u64,
    /// When the load ended.
    pub load_end: Instant,
    /// How long to wait for what is missing.
    pub patience: Duration,
    /// Where what is persisted can be seen.
    pub source: Source<'a>,
}

/// Where what is persisted can be seen.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In the inboxes of the organisations.
    Inbox,
    /// In the rows of a query.
    Rows(&'a Rows),
    /// Nowhere.
    Nowhere,
}

impl Source<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Rows(_) => "sql",
            Self::Nowhere => "none",
        }
    }
}

/// What a target keeps could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Over HTTP.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// From its database.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// Its profile says that nobody can see it.
    #[error("its profile says that it cannot be seen ([persisted] source = \"none\")")]
    Nowhere,
}

impl Account<'_> {
    /// Whether there are too few rows for all that was acknowledged: reading them all costs a database time that it should spend on the
    /// others.
    async fn lacks_rows(&self) -> bool {
        match self.source {
            Source::Rows(rows) => rows.count().await.is_ok_and(|count| count < self.acknowledged.len() as u64),
            Source::Inbox | Source::Nowhere => false,
        }
    }
}

/// Reads what the target keeps until every acknowledged event is found, or the patience is over.
pub async fn reconcile(account: &Account<'_>, target: &Target, clock: Clock) -> (Ledger, Option<ReadError>) {
    let patience_end = account.load_end + account.patience;
    let emptied_after = wait_until_nothing_is_pending(target, account.load_end, patience_end).await;
    let doubt_begin = match emptied_after {
        Some(_) => patience_end.min(Instant::now() + PATIENCE_WHEN_EMPTY),
        None => patience_end,
    };
    let mut pause = LOOK_PAUSE_MIN;
    loop {
        let doubted = Instant::now() >= doubt_begin;
        if !doubted && account.lacks_rows().await {
            sleep(pause.min(doubt_begin.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LOOK_PAUSE_MAX);
            continue;
        }
        let mut found =
            Reconciliation::new(account.acknowledged, account.payloads, account.planned, account.kept, clock)
                .with_steady_begin(account.steady_begin_ns)
                .with_ids_match(target.dialect().ingest.ids_match);
        let mut error = read(&mut found, account, target).await.err();
        let mut complete = error.is_none();
        let mut done = doubted || (complete && found.missing() == 0) || matches!(account.source, Source::Nowhere);
        if done && complete && found.missing() > 0 && matches!(account.source, Source::Inbox) {
            let LookedUp { shown, .. } = look_up_missing(&mut found, target, account.keys).await;
            if shown > 0 {
                // Not before the inbox shows them: it may hide duplicates as well, which nobody can ask for.
                done = Instant::now() >= patience_end;
                error = Some(lagging_inbox(shown).into());
                complete = found.missing() == 0;
            }
        }
        if done {
            let drained_after = emptied_after.unwrap_or_else(|| account.load_end.elapsed());
            let mut ledger = found.finish(account.repeats_accepted, complete, drained_after, target.is_local());
            ledger.acknowledged += account.acknowledged_beyond;
            ledger.unverified += account.acknowledged_beyond;
            account.source.name().clone_into(&mut ledger.source);
            return (ledger, error);
        }
        let next_edge = if doubted { patience_end } else { doubt_begin };
        sleep(pause.min(next_edge.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// Enters all that can be seen.
async fn read(found: &mut Reconciliation<'_>, account: &Account<'_>, target: &Target) -> Result<(), ReadError> {
    match account.source {
        Source::Inbox => match timeout(INBOX_READING_MAX, read_inboxes(found, target, account.keys)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(endless_inbox().into()),
        },
        Source::Rows(rows) => Ok(rows.read(|row| found.enter_row(row)).await?),
        Source::Nowhere => Err(ReadError::Nowhere),
    }
}

/// What came of asking for events by their ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookedUp {
    /// The target has persisted so many of them; they are entered.
    pub shown: u64,
    /// Of so many it said neither that it has nor that it has not persisted them: not yet, or no answer at all.
    pub unsure: u64,
}

/// Asks for events by id that the inbox does not show, and enters those that the target has persisted.
pub async fn look_up_missing(found: &mut Reconciliation<'_>, target: &Target, keys: &[String]) -> LookedUp {
    let missing = found.missing_ids();
    // Of many, some from everywhere.
    let step = missing.len().div_ceil(LOOK_UPS_MAX).max(1);
    let mut looked_up = LookedUp::default();
    for (sequence, id) in missing.into_iter().step_by(step) {
        let key = &keys[sequence as usize % keys.len()];
        let asked = target.event(key, id, |event| {
            if event.persisted_at.is_some() {
                found.enter_as(sequence, &event);
                looked_up.shown += 1;
            } else {
                looked_up.unsure += 1;
            }
        });
        match asked.await {
            Ok(()) => {}
            Err(TargetError::Refused { status, .. }) if status == reqwest::StatusCode::NOT_FOUND => {}
            // A target that cannot be asked like this leaves it at what its inbox says; one that is gone is not asked again and again.
            Err(TargetError::Unreachable { .. }) => {
                looked_up.unsure += 1;
                break;
            }
            Err(_) => looked_up.unsure += 1,
        }
    }
    looked_up
}

fn lagging_inbox(shown: u64) -> TargetError {
    let reason = format!("{shown} events that GET /api/events/{{id}} shows as persisted are not in it");
    TargetError::Unexpected { call: "GET /api/inbox".to_owned(), reason }
}

/// Reading a large inbox costs the target time that it should spend on persisting: where it says how much is pending, that is asked
/// first.
pub async fn wait_until_nothing_is_pending(target: &Target, load_end: Instant, deadline: Instant) -> Option<Duration> {
    loop {
        let pending = target.metrics().await?.get("ingest_pending_events")?;
        if pending == 0.0 {
            return Some(load_end.elapsed());
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(LOOK_PAUSE_MIN).await;
    }
}

fn endless_inbox() -> TargetError {
    let reason = format!("its pages did not end within {} s", INBOX_READING_MAX.as_secs());
    TargetError::Unexpected { call: "GET /api/inbox".to_owned(), reason }
}

/// Enters all that the inboxes show.
pub async fn read_inboxes(found: &mut Reconciliation<'_>, target: &Target, keys: &[String]) -> Result<(), TargetError> {
    for key in keys {
        let mut cursor = None;
        loop {
            cursor = target.inbox_page(key, cursor.as_deref(), |event| found.enter(&event)).await?;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    const PLANNED: u64 = 20;

    fn payloads() -> Payloads {
        Payloads::new("run-1", 64, 1)
    }

    fn acknowledged(sequences: impl IntoIterator<Item = u64>) -> Vec<Acknowledged> {
        let entry = |sequence| Acknowledged { sequence, id: Some(id(sequence)), done_ns: sequence * 1_000_000 };
        sequences.into_iter().map(entry).collect()
    }

    fn id(sequence: u64) -> Uuid {
        Uuid::from_u128(u128::from(sequence) + 1)
    }

    /// Enters event `sequence` as a faithful store shows it, changed by `change`.
    fn enter(found: &mut Reconciliation<'_>, sequence: u64, change: impl FnOnce(&mut ShownEvent<'_>, &mut String)) {
        let mut payloads = payloads();
        let mut payload = String::from_utf8(payloads.payload(sequence).to_vec()).expect("text");
        let mut shown = ShownEvent {
            id: Some(id(sequence)),
            dedup_id: Some(payloads.dedup_id(sequence)),
            payload: None,
            persisted_at: None,
        };
        change(&mut shown, &mut payload);
        let raw: &RawValue = serde_json::from_str(&payload).expect("JSON");
        found.enter(&ShownEvent {
            id: shown.id,
            dedup_id: shown.dedup_id,
            payload: Some(raw),
            persisted_at: shown.persisted_at,
        });
    }

    fn ledger(
        acknowledged: &[Acknowledged],
        enter_all: impl FnOnce(&mut Reconciliation<'_>),
        complete: bool,
    ) -> Ledger {
        let mut found = Reconciliation::new(acknowledged, &payloads(), PLANNED, PLANNED, Clock::start());
        enter_all(&mut found);
        found.finish(0, complete, Duration::ZERO, true)
    }

    #[test]
    fn a_loss_is_found_although_a_duplicate_makes_the_counts_equal() {
        let ledger =
            ledger(&acknowledged(0..3), |found| [0, 1, 1].into_iter().for_each(|n| enter(found, n, |_, _| {})), true);
        assert_eq!((ledger.acknowledged, ledger.persisted, ledger.lost, ledger.duplicated), (3, 2, 1, 1));
        assert_eq!(ledger.lost_examples, [payloads().dedup_id(2)]);
    }

    #[test]
    fn what_could_not_be_read_to_the_end_is_unverified_not_lost() {
        let ledger = ledger(&acknowledged(0..3), |found| enter(found, 0, |_, _| {}), false);
        assert_eq!((ledger.lost, ledger.unverified), (0, 2));
        assert!(ledger.lost_examples.is_empty());
    }

    #[test]
    fn another_payload_another_id_or_an_event_never_sent_is_corruption() {
        let entries = acknowledged(0..3);
        let ledger = ledger(
            &entries,
            |found| {
                enter(found, 0, |_, payload| payload.insert(1, ' '));
                enter(found, 1, |shown, _| shown.id = Some(id(2)));
                enter(found, 2, |_, _| {});
                enter(found, PLANNED, |_, _| {});
            },
            true,
        );
        assert_eq!((ledger.corrupted, ledger.lost, ledger.persisted), (3, 0, 3));
    }

    #[test]
    fn persisted_without_an_acknowledgement_is_told_and_no_fault() {
        let ledger = ledger(&acknowledged(0..1), |found| (0..3).for_each(|n| enter(found, n, |_, _| {})), true);
        assert_eq!((ledger.unacknowledged, ledger.duplicated, ledger.lost), (2, 0, 0));
    }

    #[test]
    fn what_is_beyond_the_limit_is_passed_over() {
        let entries = acknowledged(0..2);
        let mut found = Reconciliation::new(&entries, &payloads(), PLANNED, 3, Clock::start());
        (0..PLANNED).for_each(|n| enter(&mut found, n, |_, _| {}));
        let ledger = found.finish(0, true, Duration::ZERO, true);
        assert_eq!((ledger.persisted, ledger.lost, ledger.unacknowledged, ledger.corrupted), (2, 0, 1, 0));
    }

    #[test]
    fn events_of_others_are_nothing_to_this_ledger() {
        let ledger = ledger(
            &acknowledged(0..1),
            |found| {
                enter(found, 0, |_, _| {});
                let mut others = Payloads::new("run-2", 64, 1);
                let payload_of_others = String::from_utf8(others.payload(1).to_vec()).expect("text");
                for dedup_id in [Some(others.dedup_id(1)), None] {
                    enter(found, 1, |shown, payload| {
                        shown.dedup_id = dedup_id;
                        *payload = payload_of_others.clone();
                    });
                }
            },
            true,
        );
        assert_eq!((ledger.persisted, ledger.unacknowledged, ledger.duplicated, ledger.corrupted), (1, 0, 0, 0));
    }

    #[test]
    fn a_copy_is_a_duplicate_and_no_corruption_whatever_its_id_and_its_dedup_id_are() {
        for dedup_id in [None, Some("run-1.000000000001#2".to_owned()), Some(payloads().dedup_id(1))] {
            for copy_first in [false, true] {
                let ledger = ledger(
                    &acknowledged(0..2),
                    |found| {
                        let copy = |shown: &mut ShownEvent<'_>, _: &mut String| {
                            shown.id = Some(id(100));
                            shown.dedup_id = dedup_id.clone();
                        };
                        enter(found, 0, |_, _| {});
                        if copy_first {
                            enter(found, 1, copy);
                            enter(found, 1, |_, _| {});
                        } else {
                            enter(found, 1, |_, _| {});
                            enter(found, 1, copy);
                        }
                    },
                    true,
                );
                let found = (ledger.duplicated, ledger.corrupted, ledger.lost, ledger.persisted);
                assert_eq!(found, (1, 0, 0, 2), "{dedup_id:?}");
            }
        }
    }

    #[test]
    fn an_event_that_lost_its_dedup_id_is_neither_lost_nor_doubled() {
        let ledger = ledger(&acknowledged(0..1), |found| enter(found, 0, |shown, _| shown.dedup_id = None), true);
        assert_eq!((ledger.lost, ledger.persisted, ledger.duplicated, ledger.corrupted), (0, 1, 0, 0));
    }

    #[test]
    fn an_event_is_corrupted_once_however_many_of_its_copies_are() {
        let ledger = ledger(
            &acknowledged(0..1),
            |found| (0..3).for_each(|_| enter(found, 0, |_, payload| payload.insert(1, ' '))),
            true,
        );
        assert_eq!((ledger.corrupted, ledger.duplicated), (1, 2));
    }

    #[test]
    fn a_repeat_that_is_acknowledged_and_stored_is_one_duplicate_and_one_that_is_not_stored_too() {
        for (copies, repeats_accepted, duplicated) in [(2, 1, 1), (1, 1, 1), (2, 0, 1), (1, 0, 0)] {
            let entries = acknowledged(0..1);
            let mut found = Reconciliation::new(&entries, &payloads(), PLANNED, PLANNED, Clock::start());
            (0..copies).for_each(|_| enter(&mut found, 0, |_, _| {}));
            let ledger = found.finish(repeats_accepted, true, Duration::ZERO, true);
            assert_eq!(ledger.duplicated, duplicated, "{copies} copies, {repeats_accepted} repeats acknowledged");
        }
    }

    #[test]
    fn time_to_durable_counts_from_the_acknowledgement_and_is_never_negative() {
        let clock = Clock::start();
        let entries = acknowledged([0, 5]);
        let mut found = Reconciliation::new(&entries, &payloads(), PLANNED, PLANNED, clock);
        let at = |ns: u64| jiff::Timestamp::from_nanosecond(i128::from(ns)).ok();
        enter(&mut found, 0, |shown, _| shown.persisted_at = at(clock.unix_ns(3_000_000)));
        enter(&mut found, 5, |shown, _| shown.persisted_at = at(clock.unix_ns(1_000_000)));
        let ledger = found.finish(0, true, Duration::ZERO, true);
        let times = ledger.time_to_durable.expect("times").times;
        assert_eq!((times.count, times.min_ns), (2, 0));
        assert!(times.max_ns.abs_diff(3_000_000) < 3_000, "{}", times.max_ns);
        assert!(
            found.finish(0, true, Duration::ZERO, false).time_to_durable.is_none(),
            "another machine's clock tells nothing"
        );
    }

    /// Growth of the time to durable of events that a store takes in `per_s` a second, one after the other; they come at 1000/s.
    fn growth_at(per_s: f64, steady_begin_ns: u64) -> Option<f64> {
        durable_at(per_s, steady_begin_ns).growth
    }

    fn durable_at(per_s: f64, steady_begin_ns: u64) -> TimeToDurable {
        let (count, clock) = (200, Clock::start());
        let entries = acknowledged(0..count);
        let mut found =
            Reconciliation::new(&entries, &payloads(), count, count, clock).with_steady_begin(steady_begin_ns);
        for sequence in 0..count {
            let persisted_ns = (sequence as f64 * (1e9 / per_s).max(1e6)) as u64 + 5_000_000;
            let at = jiff::Timestamp::from_nanosecond(i128::from(clock.unix_ns(persisted_ns))).ok();
            enter(&mut found, sequence, |shown, _| shown.persisted_at = at);
        }
        found.finish(0, true, Duration::ZERO, true).time_to_durable.expect("times")
    }

    #[test]
    fn the_time_to_durable_grows_where_a_store_is_slower_than_its_events() {
        for (per_s, expected) in [(2_000.0, 0.0), (1_000.0, 0.0), (500.0, 1.0), (250.0, 3.0)] {
            let growth = growth_at(per_s, 0).expect("enough events");
            assert!((growth - expected).abs() < 0.001, "{per_s}/s: {growth}, not {expected}");
        }
        assert_eq!(growth_at(500.0, 190_000_000), None, "ten events have no trend");
    }

    #[test]
    fn the_time_to_durable_is_also_told_second_by_second_of_the_steady_phase() {
        // 200 events acknowledged 1 ms apart, of which the first 150 are of the warm-up.
        let [interval] = durable_at(500.0, 150_000_000).intervals[..] else { panic!("one second") };
        assert_eq!((interval.offset_ms, interval.events), (0, 50));
        // Event n is stored at 2n + 5 ms and acknowledged at n ms.
        let about = |ns: u64, ms: u64| assert!(ns.abs_diff(ms * 1_000_000) < 2_000_000, "{ns} ns, not {ms} ms");
        about(interval.p50_ns, 180);
        about(interval.p99_ns, 204);
    }

    proptest! {
        /// Whatever a store drops, doubles or adds, the ledger finds exactly that.
        #[test]
        fn every_loss_and_duplicate_is_found_and_none_invented(
            fates in prop::collection::vec((any::<bool>(), 0u32..4), PLANNED as usize)
        ) {
            let entries = acknowledged((0..PLANNED).filter(|&n| fates[n as usize].0));
            let ledger = ledger(
                &entries,
                |found| for n in 0..PLANNED {
                    (0..fates[n as usize].1).for_each(|_| enter(found, n, |_, _| {}));
                },
                true,
            );
            let count = |test: fn(&(bool, u32)) -> bool| fates.iter().filter(|fate| test(fate)).count() as u64;
            prop_assert_eq!(ledger.lost, count(|fate| fate.0 && fate.1 == 0));
            prop_assert_eq!(ledger.persisted, count(|fate| fate.0 && fate.1 > 0));
            prop_assert_eq!(ledger.unacknowledged, count(|fate| !fate.0 && fate.1 > 0));
            prop_assert_eq!(ledger.duplicated, fates.iter().map(|fate| u64::from(fate.1.saturating_sub(1))).sum::<u64>());
            prop_assert_eq!(ledger.corrupted, 0);
        }

        /// Pages come as the store has them: copies far apart, corrupted ones first, events nobody knows in between.
        #[test]
        fn the_order_in_which_a_store_shows_its_events_makes_no_difference(
            (shown, shuffled) in prop::collection::vec((0..PLANNED, 0u8..4), 0..60)
                .prop_flat_map(|shown| (Just(shown.clone()), Just(shown).prop_shuffle()))
        ) {
            let entries = acknowledged((0..PLANNED).filter(|sequence| sequence % 3 != 0));
            let of = |shown: &[(u64, u8)]| {
                let enter_all = |found: &mut Reconciliation<'_>| for (sequence, kind) in shown {
                    enter(found, *sequence, |event, payload| match kind {
                        0 => *payload = format!("[{payload}]"),
                        1 => event.id = Some(Uuid::from_u128(u128::MAX - u128::from(*sequence))),
                        2 => event.dedup_id = None,
                        _ => {}
                    });
                };
                ledger(&entries, enter_all, true)
            };
            prop_assert_eq!(of(&shown), of(&shuffled));
        }
    }
}
