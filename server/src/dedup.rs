//! At most one event per organisation and `dedup_id` within the window (rule I2): the index in memory of what was acknowledged.
//!
//! An entry is made only once the event is where its acknowledgement says it is, and the claim on the key ([`crate::claims`]) is
//! held until then. So a second request either waits for the first, or finds its entry, or takes over because the first failed.
//!
//! The cache may forget by size. As long as it has forgotten nothing inside the window the index is *complete*, and what is not
//! in it is new; otherwise the caller has to ask the store. What is pending is in no store, so an entry that is pushed out while
//! its event is pending is kept aside.
//!
//! The window is one of the clock, here as in the store, and the cache forgets by monotonic time. A clock that was set back makes
//! the cache forget too early; while that can be, the index is not complete either.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use uuid::Uuid;

use crate::cache_counters::CacheCounters;
use crate::claims::{self, Claim, Claims, Key};
use crate::config::{Limits, count, s_to_us};
use crate::hashed::BuildHashed;
use crate::pending::Pending;

/// How far the clock may be set back, all in all, without any effect: the cache keeps its entries for that much longer.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// The latest time at which the event with this id can have been made: a UUIDv7 begins with its milliseconds. The store goes by
/// the microseconds; were this a microsecond too early, memory would say yes to what the store drops as a duplicate.
fn created_at_us_max(id: Uuid) -> i64 {
    i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX / 1000).saturating_mul(1000).saturating_add(999)
}

/// See the module.
#[derive(Debug)]
pub struct Dedup {
    done: Cache<Key, Uuid, BuildHashed>,
    claims: Arc<Claims>,
    shared: Arc<Shared>,
    window_us: i64,
    entries_max: u64,
    started: Instant,
    /// The most that the clock was ever ahead of the time since `started`.
    clock_ahead_us_max: AtomicI64,
}

/// What the cache's eviction listener needs too.
#[derive(Debug)]
struct Shared {
    /// Entries put in minus entries known to be gone: never less than what the cache holds.
    entries: AtomicU64,
    counters: CacheCounters,
    /// Until then something inside the window may be missing from the index.
    incomplete_until_us: AtomicI64,
    /// Pushed out of the cache while pending: bounded by what may be pending.
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
        let shared = Arc::new(Shared {
            entries: AtomicU64::new(0),
            counters,
            incomplete_until_us: AtomicI64::new(i64::MIN),
            aside: Mutex::default(),
            aside_len: AtomicUsize::new(0),
            pending,
        });
        let listener = Arc::clone(&shared);
        let done = Cache::builder()
            .max_capacity(limits.dedup_entries_max)
            // The default policy may refuse the newcomer, which is the one that matters most here.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(Duration::from_secs(limits.dedup_window_s) + CLOCK_SLACK)
            .initial_capacity(count(limits.dedup_entries_max).min(1024))
            .eviction_listener(move |key: Arc<Key>, id, cause| listener.removed(*key, id, cause))
            .build_with_hasher(BuildHashed::default());
        Self {
            done,
            claims: Claims::new(),
            shared,
            window_us: s_to_us(limits.dedup_window_s),
            entries_max: limits.dedup_entries_max,
            started: Instant::now(),
            clock_ahead_us_max: AtomicI64::new(i64::MIN),
        }
    }

    /// Start of the window that ends now.
    pub fn since_us(&self, now_us: i64) -> i64 {
        now_us.saturating_sub(self.window_us)
    }

    /// Takes over what the store knows (newest first or last, the order doesn't matter); `all` when that is everything inside the window.
    pub fn warm(&self, rows: Vec<(Uuid, Box<str>, Uuid)>, all: bool, now_us: i64) {
        self.watch_clock(now_us);
        if !all {
            self.shared.incomplete_until_us.fetch_max(now_us.saturating_add(self.window_us), Ordering::SeqCst);
        }
        for (organization_id, dedup_id, id) in rows {
            self.insert(claims::key(organization_id, dedup_id.as_bytes()), id, now_us);
        }
    }

    /// Finds out who has the `dedup_id`, waiting for a request with the same one that is in flight.
    pub async fn find(&self, organization_id: Uuid, dedup_id: &str, now_us: i64) -> Found {
        self.watch_clock(now_us);
        let key = claims::key(organization_id, dedup_id.as_bytes());
        let claim = self.claims.claim(key).await;
        // Looked at only with the claim held: whoever had it before has made its entry by now, or has failed.
        let held = self.done.get(&key).or_else(|| self.shared.find_aside(&key));
        let held = held.filter(|id| created_at_us_max(*id) >= self.since_us(now_us));
        self.shared.counters.looked(held.is_some());
        match held {
            Some(id) => Found::Duplicate(id),
            None if self.is_complete(now_us) => Found::New(Slot { claim, key }),
            None => Found::Unknown(Slot { claim, key }),
        }
    }

    /// Notices that the clock was set back: entries made before that may leave the cache before their window is over.
    fn watch_clock(&self, now_us: i64) {
        let ahead_us = now_us.saturating_sub(us(self.started.elapsed()));
        let most_us = self.clock_ahead_us_max.fetch_max(ahead_us, Ordering::SeqCst).max(ahead_us);
        let set_back_us = most_us.saturating_sub(ahead_us);
        if set_back_us > us(CLOCK_SLACK) {
            let last_made_us = now_us.saturating_add(set_back_us);
            self.shared.incomplete_until_us.fetch_max(last_made_us.saturating_add(self.window_us), Ordering::SeqCst);
            self.clock_ahead_us_max.store(ahead_us, Ordering::SeqCst);
            tracing::warn!(
                seconds = set_back_us / 1_000_000,
                "the clock was set back: the database is asked for dedup_ids until it has caught up"
            );
        }
    }

    /// Whether what is not in memory is new.
    pub fn is_complete(&self, now_us: i64) -> bool {
        now_us >= self.shared.incomplete_until_us.load(Ordering::SeqCst)
    }

    fn insert(&self, key: Key, id: Uuid, now_us: i64) {
        // Said before the cache can push anything out, so that nobody takes a forgotten id for a new one in between.
        if self.shared.entries.fetch_add(1, Ordering::SeqCst) >= self.entries_max {
            self.shared.incomplete_until_us.fetch_max(now_us.saturating_add(self.window_us), Ordering::SeqCst);
        }
        self.done.insert(key, id);
    }

    /// Entries in memory.
    pub fn entries(&self) -> u64 {
        self.shared.entries.load(Ordering::Relaxed)
    }
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
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

impl Shared {
    fn removed(&self, key: Key, id: Uuid, cause: RemovalCause) {
        self.entries.fetch_sub(1, Ordering::SeqCst);
        if cause != RemovalCause::Size {
            return;
        }
        self.counters.evictions.inc();
        let Some(pending) = &self.pending else { return };
        if pending.get(id).is_none() {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

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
    async fn a_clock_that_was_set_back_makes_the_index_incomplete_until_it_has_caught_up_and_a_window_has_passed() {
        let (hour_us, day_us) = (3_600_000_000, 86_400_000_000);
        let dedup = dedup(100);
        for (at_us, complete) in [
            (NOW_US, true),
            (NOW_US - us(CLOCK_SLACK) / 2, true),
            (NOW_US + hour_us, true),
            (NOW_US, false),
            (NOW_US + hour_us, false),
            (NOW_US + hour_us + day_us + 1_000_000, true),
        ] {
            match dedup.find(Uuid::nil(), "b", at_us).await {
                Found::New(_) => assert!(complete, "{}", at_us - NOW_US),
                Found::Unknown(_) => assert!(!complete, "{}", at_us - NOW_US),
                Found::Duplicate(_) => panic!("nobody has it"),
            }
        }
    }

    #[tokio::test]
    async fn an_index_that_had_to_forget_says_so_instead_of_calling_an_old_id_new() {
        let dedup = dedup(100);
        for number in 0..200u8 {
            keep(&dedup, &number.to_string(), id(NOW_US, number)).await;
        }
        dedup.done.run_pending_tasks();
        let mut forgotten = 0;
        for number in 0..200u8 {
            match dedup.find(Uuid::nil(), &number.to_string(), NOW_US).await {
                Found::Duplicate(_) => {}
                Found::Unknown(_) => forgotten += 1,
                Found::New(_) => panic!("{number} was kept, and is not new"),
            }
        }
        assert_eq!(forgotten, 100);
        assert!(dedup.is_complete(NOW_US + 86_400_000_000));
    }

    #[tokio::test]
    async fn a_partial_warm_up_is_not_complete() {
        let dedup = dedup(100);
        dedup.warm(vec![(Uuid::nil(), "a".into(), id(NOW_US - 1000, 1))], false, NOW_US);
        assert!(matches!(dedup.find(Uuid::nil(), "a", NOW_US).await, Found::Duplicate(_)));
        assert!(matches!(dedup.find(Uuid::nil(), "b", NOW_US).await, Found::Unknown(_)));
    }
}
