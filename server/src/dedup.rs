//! At most one event per organisation and `dedup_id` within the window (rule I2): the index in memory of what was acknowledged.
//!
//! An entry is made only once the event is where its acknowledgement says it is, and the claim on the key ([`crate::claims`]) is
//! held until then. So a second request either waits for the first, or finds its entry, or takes over because the first failed.
//!
//! The index forgets what is older than the window, and the oldest when there are too many. As long as nothing that it forgot lies
//! inside the window it is *complete*, and what is not in it is new; otherwise the caller has to ask the store. That holds too for a
//! clock that was set back, and so moves the window to where it had been. What is pending is in no store, so an entry that has to go
//! while its event is pending is kept aside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::cache_counters::CacheCounters;
use crate::claims::{self, Claim, Claims, Key};
use crate::config::{Limits, s_to_us};
use crate::pending::Pending;
use crate::recent::Recent;

/// So that HTTP threads seldom meet at one lock.
const SHARDS: u64 = 8;
/// Of fewer entries, a share of each shard would fill too unevenly: they have one shard.
const SHARDED_ENTRIES_MIN: u64 = 65_536;
/// What an entry more may forget of those that the window has left: two, so that they become fewer after a burst, too.
const FORGOTTEN_AT_ONCE_MAX: usize = 2;

/// The latest time at which the event with this id can have been made: a UUIDv7 begins with its milliseconds. The store goes by
/// the microseconds; were this a microsecond too early, memory would say yes to what the store drops as a duplicate.
fn created_at_us_max(id: Uuid) -> i64 {
    i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX / 1000).saturating_mul(1000).saturating_add(999)
}

/// See the module.
#[derive(Debug)]
pub struct Dedup {
    shards: Box<[Mutex<Recent>]>,
    /// At most this many in each shard.
    shard_entries_max: u64,
    claims: Arc<Claims>,
    window_us: i64,
    counters: CacheCounters,
    /// The latest creation among what was forgotten: once the window has left it behind, nothing inside is missing.
    forgotten_us_max: AtomicI64,
    /// Forgotten for want of room while pending: bounded by what may be pending.
    aside: Mutex<HashMap<Key, Uuid>>,
    /// Length of `aside`, so that the usual zero costs no lock.
    aside_len: AtomicUsize,
    pending: Option<Arc<Pending>>,
}

/// What a `dedup_id` turned out to be.
#[derive(Debug)]
pub enum Found {
    /// This event has it; don't acknowledge another.
    Duplicate(Uuid),
    /// Nobody has it, as far as memory knows everything: do the work, then [`Slot::keep`].
    New(Slot),
    /// Memory does not know everything: ask the store first.
    Unknown(Slot),
}

/// The right to be the first with this `dedup_id`. Dropped without [`Slot::keep`], the next request takes over.
#[derive(Debug)]
pub struct Slot {
    claim: Claim,
    key: Key,
}

impl Dedup {
    /// An index that is empty and, until [`Dedup::warm`] says otherwise, complete.
    pub fn new(limits: &Limits, pending: Option<Arc<Pending>>, counters: CacheCounters) -> Self {
        let shards = if limits.dedup_entries_max < SHARDED_ENTRIES_MIN { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_entries_max: limits.dedup_entries_max / shards,
            claims: Claims::new(),
            window_us: s_to_us(limits.dedup_window_s),
            counters,
            forgotten_us_max: AtomicI64::new(i64::MIN),
            aside: Mutex::default(),
            aside_len: AtomicUsize::new(0),
            pending,
        }
    }

    /// Start of the window that ends now.
    pub fn since_us(&self, now_us: i64) -> i64 {
        now_us.saturating_sub(self.window_us)
    }

    /// Takes over what the store knows, in any order; `all` when that is everything inside the window.
    pub fn warm(&self, mut rows: Vec<(Uuid, Box<str>, Uuid)>, all: bool, now_us: i64) {
        if !all {
            self.forgotten_us_max.fetch_max(now_us, Ordering::SeqCst);
        }
        // The oldest go first when there are too many.
        rows.sort_unstable_by_key(|(_, _, id)| *id);
        for (organization_id, dedup_id, id) in rows {
            self.insert(claims::key(organization_id, dedup_id.as_bytes()), id, now_us);
        }
    }

    /// Finds out who has the `dedup_id`, waiting for a request with the same one that is in flight.
    pub async fn find(&self, organization_id: Uuid, dedup_id: &str, now_us: i64) -> Found {
        let key = claims::key(organization_id, dedup_id.as_bytes());
        let claim = self.claims.claim(key).await;
        // Looked at only with the claim held: whoever had it before has made its entry by now, or has failed.
        let held = self.shard(&key).get(&key);
        let held = held.or_else(|| self.find_aside(&key)).filter(|id| created_at_us_max(*id) >= self.since_us(now_us));
        self.counters.looked(held.is_some());
        match held {
            Some(id) => Found::Duplicate(id),
            None if self.is_complete(now_us) => Found::New(Slot { claim, key }),
            None => Found::Unknown(Slot { claim, key }),
        }
    }

    /// Whether what is not in memory is new.
    pub fn is_complete(&self, now_us: i64) -> bool {
        self.forgotten_us_max.load(Ordering::SeqCst) < self.since_us(now_us)
    }

    /// Entries in memory.
    pub fn entries(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Recent> {
        let shard = &self.shards[usize::from(key[0]) % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: Key, id: Uuid, now_us: i64) {
        let since_us = self.since_us(now_us);
        let mut shard = self.shard(&key);
        shard.push(key, id);
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let Some((key, oldest)) = shard.oldest() else { return };
            let created_us = created_at_us_max(oldest);
            if created_us >= since_us {
                if shard.len() <= self.shard_entries_max {
                    return;
                }
                self.counters.evictions.inc();
                self.put_aside(key, oldest);
            }
            // Said before the lock is given back: nobody takes a forgotten id for a new one in between.
            self.forgotten_us_max.fetch_max(created_us, Ordering::SeqCst);
            shard.pop();
        }
    }

    fn put_aside(&self, key: Key, id: Uuid) {
        let Some(pending) = self.pending.as_ref().filter(|pending| pending.get(id).is_some()) else { return };
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        aside.insert(key, id);
        // What has been persisted since is the store's to know. Doubling makes this one look per entry on average.
        if aside.len().is_power_of_two() {
            aside.retain(|_, id| pending.get(*id).is_some());
        }
        self.aside_len.store(aside.len(), Ordering::SeqCst);
    }

    fn find_aside(&self, key: &Key) -> Option<Uuid> {
        if self.aside_len.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }
}

impl Slot {
    /// The event `id` has the `dedup_id` from now on: it is as durable as its acknowledgement will say.
    pub fn keep(self, dedup: &Dedup, id: Uuid, now_us: i64) {
        dedup.insert(self.key, id, now_us);
        drop(self.claim);
    }

    /// For an event that is given away and cannot be called back.
    pub fn entry(self, dedup: &Arc<Dedup>, id: Uuid, now_us: i64) -> Entry {
        Entry { slot: Some(self), dedup: Arc::clone(dedup), id, now_us, is_in: false }
    }
}

/// The entry of an event that travels with it. Once the event is in, the entry is made when this is dropped, whoever drops it: the
/// request that waited may have been given up by then, and its sender's next try must find the event.
#[derive(Debug)]
pub struct Entry {
    slot: Option<Slot>,
    dedup: Arc<Dedup>,
    id: Uuid,
    now_us: i64,
    is_in: bool,
}

impl Entry {
    /// The event is as durable as its acknowledgement will say.
    pub fn set_in(&mut self) {
        self.is_in = true;
    }

    /// Like [`Slot::keep`].
    pub fn keep(mut self, holder: Uuid) {
        (self.id, self.is_in) = (holder, true);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_in
            && let Some(slot) = self.slot.take()
        {
            slot.keep(&self.dedup, self.id, self.now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::event::Event;

    const NOW_US: i64 = 1_800_000_000_000_000;

    fn id(created_at_us: i64, number: u8) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis((created_at_us / 1000) as u64, &[number; 10]).into_uuid()
    }

    fn dedup(entries_max: u64) -> Dedup {
        let mut limits = Settings::default().limits;
        limits.dedup_entries_max = entries_max;
        Dedup::new(&limits, None, CacheCounters::default())
    }

    async fn keep(dedup: &Dedup, dedup_id: &str, id: Uuid) {
        match dedup.find(Uuid::nil(), dedup_id, NOW_US).await {
            Found::New(slot) | Found::Unknown(slot) => slot.keep(dedup, id, NOW_US),
            Found::Duplicate(id) => panic!("duplicate of {id}"),
        }
    }

    #[tokio::test]
    async fn the_second_finds_the_first_and_one_that_failed_leaves_the_place_free() {
        let dedup = dedup(100);
        let first = id(NOW_US, 1);
        drop(dedup.find(Uuid::nil(), "a", NOW_US).await);
        keep(&dedup, "a", first).await;
        assert!(matches!(dedup.find(Uuid::nil(), "a", NOW_US).await, Found::Duplicate(id) if id == first));
        assert!(matches!(dedup.find(Uuid::max(), "a", NOW_US).await, Found::New(_)), "another organisation");
    }

    #[tokio::test]
    async fn an_entry_ends_with_the_window() {
        let dedup = dedup(100);
        keep(&dedup, "a", id(NOW_US, 1)).await;
        let day_us = 86_400_000_000;
        assert!(matches!(dedup.find(Uuid::nil(), "a", NOW_US + day_us - 1000).await, Found::Duplicate(_)));
        assert!(
            matches!(dedup.find(Uuid::nil(), "a", NOW_US + day_us).await, Found::Duplicate(_)),
            "it may be a µs old"
        );
        assert!(matches!(dedup.find(Uuid::nil(), "a", NOW_US + day_us + 1000).await, Found::New(_)));
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_makes_the_index_incomplete_until_the_window_has_left_what_was_forgotten_meanwhile()
    {
        let (hour_us, day_us) = (3_600_000_000, 86_400_000_000);
        let dedup = dedup(100);
        keep(&dedup, "a", id(NOW_US, 1)).await;
        dedup.insert(claims::key(Uuid::nil(), b"ahead"), id(NOW_US + 2 * day_us, 2), NOW_US + 2 * day_us);
        for (at_us, complete) in [
            (NOW_US + 2 * day_us, true),
            (NOW_US + hour_us, false),
            (NOW_US + day_us, false),
            (NOW_US + day_us + 1_000, true),
        ] {
            match dedup.find(Uuid::nil(), "b", at_us).await {
                Found::New(_) => assert!(complete, "{}", at_us - NOW_US),
                Found::Unknown(_) => assert!(!complete, "{}", at_us - NOW_US),
                Found::Duplicate(_) => panic!("nobody has it"),
            }
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_changes_nothing_as_long_as_nothing_was_forgotten() {
        let dedup = dedup(100);
        let ahead_us = NOW_US + 3_600_000_000;
        dedup.insert(claims::key(Uuid::nil(), b"ahead"), id(ahead_us, 1), ahead_us);
        assert!(matches!(dedup.find(Uuid::nil(), "ahead", NOW_US).await, Found::Duplicate(_)));
        assert!(matches!(dedup.find(Uuid::nil(), "b", NOW_US).await, Found::New(_)));
    }

    #[tokio::test]
    async fn entries_that_the_window_has_left_are_forgotten_even_after_a_burst() {
        let day_us = 86_400_000_000;
        let dedup = dedup(1_000);
        for number in 0..100 {
            keep(&dedup, &number.to_string(), id(NOW_US, number)).await;
        }
        for number in 0..60u64 {
            let later_us = NOW_US + day_us + 1_000;
            dedup.insert(claims::key(Uuid::nil(), &number.to_be_bytes()), id(later_us, 0), later_us);
        }
        assert_eq!(dedup.entries(), 60);
        assert!(dedup.is_complete(NOW_US + day_us + 1_000));
    }

    #[tokio::test]
    async fn what_had_to_go_while_it_was_pending_is_found_all_the_same_and_what_was_persisted_is_asked_for() {
        let mut limits = Settings::default().limits;
        limits.dedup_entries_max = 2;
        let pending = Arc::new(Pending::new(10, 10_000));
        let event = Event {
            id: id(NOW_US, 0),
            organization_id: Uuid::nil(),
            event_type: "t".into(),
            dedup_id: Some("0".into()),
            payload: "{}".into(),
            created_at_us: NOW_US,
            followed: None,
        };
        pending.put(Arc::new(event)).unwrap();
        let dedup = Dedup::new(&limits, Some(Arc::clone(&pending)), CacheCounters::default());
        for number in 0..4 {
            keep(&dedup, &number.to_string(), id(NOW_US, number)).await;
        }
        assert!(
            matches!(dedup.find(Uuid::nil(), "0", NOW_US).await, Found::Duplicate(found) if found == id(NOW_US, 0))
        );
        assert!(matches!(dedup.find(Uuid::nil(), "1", NOW_US).await, Found::Unknown(_)));
    }

    #[tokio::test]
    async fn an_index_that_had_to_forget_says_so_instead_of_calling_an_old_id_new() {
        let dedup = dedup(100);
        for number in 0..200u8 {
            keep(&dedup, &number.to_string(), id(NOW_US, number)).await;
        }
        let mut forgotten = 0;
        for number in 0..200u8 {
            match dedup.find(Uuid::nil(), &number.to_string(), NOW_US).await {
                Found::Duplicate(_) => {}
                Found::Unknown(_) => forgotten += 1,
                Found::New(_) => panic!("{number} was kept, and is not new"),
            }
        }
        assert_eq!(forgotten, 100);
        assert!(dedup.is_complete(NOW_US + 86_400_000_000 + 1_000));
    }

    #[tokio::test]
    async fn a_warm_up_with_too_many_forgets_the_oldest_in_whatever_order_they_come() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let dedup = dedup(2);
            let row =
                |number: u8| (Uuid::nil(), number.to_string().into(), id(NOW_US + i64::from(number) * 1_000, number));
            dedup.warm(order.map(row).into(), true, NOW_US + 10_000);
            for (dedup_id, known) in [("1", false), ("2", true), ("3", true)] {
                let found = dedup.find(Uuid::nil(), dedup_id, NOW_US + 10_000).await;
                assert_eq!(matches!(found, Found::Duplicate(_)), known, "{dedup_id} of {order:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_partial_warm_up_is_not_complete() {
        let dedup = dedup(100);
        dedup.warm(vec![(Uuid::nil(), "a".into(), id(NOW_US - 1000, 1))], false, NOW_US);
        assert!(matches!(dedup.find(Uuid::nil(), "a", NOW_US).await, Found::Duplicate(_)));
        assert!(matches!(dedup.find(Uuid::nil(), "b", NOW_US).await, Found::Unknown(_)));
    }
}
