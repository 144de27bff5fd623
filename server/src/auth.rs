//! API keys (rules A1–A3): what they look like, and from the bytes of a header to the organisation, once, in memory.
//!
//! A key is `mr_live_`, 32 characters of base 62 (190 bits out of the system's generator), and 6 characters of base 62 that hold the CRC-32
//! of all before them. The checksum is for scanners of leaked secrets and for typing errors: what doesn't match is refused
//! without a look-up. It proves nothing, anybody can compute it. Kept are SHA-256 hashes only; a slow hash would protect
//! nothing here, because there is no guessing 190 bits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use crate::cache_counters::CacheCounters;
use crate::config::{Limits, Secret, count, ms};
use crate::hashed::BuildHashed;
use crate::limits::{Limiter, Tier};
use crate::offload::Offload;
use crate::problem::Problem;
use crate::store::{KeyRow, Store};

/// What each key begins with.
pub const PREFIX: &str = "mr_live_";
const RANDOM_CHARACTERS: usize = 32;
const CHECKSUM_CHARACTERS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a whole key.
pub type KeyHash = [u8; 32];

/// How long a key that the store does not have is refused without asking again.
const UNKNOWN_TTL: Duration = Duration::from_secs(2);
const UNKNOWN_ENTRIES_MAX: u64 = 10_000;
/// An organisation that did nothing for this long has its whole minute again anyway, so its limiter may be forgotten.
const ORGANIZATION_IDLE: Duration = Duration::from_secs(120);
/// Look-ups of keys that are not in memory are done one at a time in each of these lanes; a key's hash chooses its lane.
const LANES: usize = 16;
/// After the store could not be asked, this long until it is asked again for a known key.
const RETRY_AFTER_MS: u64 = 1000;

/// A new key. Fails only when the system's random generator does.
pub fn generate() -> Result<String, Problem> {
    let mut key = String::with_capacity(PREFIX.len() + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS);
    key.push_str(PREFIX);
    while key.len() < PREFIX.len() + RANDOM_CHARACTERS {
        let mut bytes = [0u8; 48];
        OsRng.try_fill_bytes(&mut bytes).map_err(|_| Problem::Internal)?;
        // 248 = 4 * 62: what is above would favour the first characters.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let room = PREFIX.len() + RANDOM_CHARACTERS - key.len();
        key.extend(fair.take(room).map(|byte| BASE62[usize::from(byte % 62)] as char));
    }
    let checksum = checksum(key.as_bytes());
    key.extend(checksum.iter().map(|byte| *byte as char));
    Ok(key)
}

/// Whether the text has the form of a key and its checksum matches.
pub fn is_well_formed(key: &[u8]) -> bool {
    let Some((body, sum)) = key.split_last_chunk::<CHECKSUM_CHARACTERS>() else { return false };
    body.len() == PREFIX.len() + RANDOM_CHARACTERS && body.starts_with(PREFIX.as_bytes()) && checksum(body) == *sum
}

/// What is kept of a key.
pub fn hash(key: &[u8]) -> KeyHash {
    Sha256::digest(key).into()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_CHARACTERS] {
    let mut rest = crc32(bytes);
    let mut characters = [b'0'; CHECKSUM_CHARACTERS];
    for character in characters.iter_mut().rev() {
        *character = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    characters
}

/// CRC-32 as in zip and Ethernet (polynomial 0xEDB88320, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let (mut value, mut bit) = (index as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8))
}

/// The key out of the headers: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
pub fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        return scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii());
    }
    headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii())
}

/// Whether the administrator's token is there, when one is set; else whether the request was meant for this machine.
pub fn admin(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Problem> {
    let Some(Secret(token)) = token else { return meant_for_this_machine(headers) };
    // Of hashes, which are of equal length, and all of it whatever differs: how long it takes says nothing of the token.
    match presented(headers) {
        Some(given) if hash(given).ct_eq(&hash(token.as_bytes())).into() => Ok(()),
        _ => Err(Problem::AdminTokenWanted),
    }
}

/// Without a token only this machine reaches the port, and so do the pages that its browser shows: one whose name was made to
/// point here (DNS rebinding) sends that name as `Host`. An address cannot be made to point elsewhere, and a client that sends no
/// `Host` is no browser.
fn meant_for_this_machine(headers: &HeaderMap) -> Result<(), Problem> {
    let is_local = |host: &str| {
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let name = name.map_or(host, |(name, _)| name).trim_end_matches('.');
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    };
    let mut hosts = headers.get_all(HOST).iter();
    if hosts.all(|host| host.to_str().is_ok_and(is_local)) { Ok(()) } else { Err(Problem::ForeignHost) }
}

/// Who sends: all keys of an organisation lead to the same one, so they share its limiter.
#[derive(Debug)]
pub struct Organization {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it pays for.
    pub tier: Tier,
    /// Its requests of this minute.
    pub limiter: Limiter,
}

/// A key that was found in the store.
#[derive(Debug)]
struct Known {
    organization: Arc<Organization>,
    /// Milliseconds since `Keys::started` when the store last confirmed it.
    confirmed_ms: AtomicU64,
    /// Milliseconds since `Keys::started` before which the store is not asked again.
    ask_after_ms: AtomicU64,
    /// Somebody is asking the store.
    asking: AtomicBool,
    created_at_us: i64,
}

/// The keys in memory, and the way to the store for those that are not.
#[derive(Debug)]
pub struct Keys {
    known: Cache<KeyHash, Arc<Known>, BuildHashed>,
    unknown: Cache<KeyHash, ()>,
    organizations: Cache<Uuid, Arc<Organization>>,
    lanes: [Mutex<()>; LANES],
    /// Look-ups in the store at once: half of its connections, so that made-up keys never take all of them.
    lookups: Arc<Semaphore>,
    lookup_timeout: Duration,
    /// Changes with each rotation, so that a look-up that was under way meanwhile is done again.
    rotations: AtomicU64,
    started: Instant,
    ttl_ms: u64,
    stale_ms_max: u64,
    limits: Limits,
    store: Option<Offload>,
    counters: CacheCounters,
}

impl Keys {
    /// With nothing in memory. Without a store (mode `null`) keys live in memory alone.
    pub fn new(limits: &Limits, store: Option<Offload>, counters: CacheCounters) -> Arc<Self> {
        let evictions = counters.evictions.clone();
        let known = Cache::builder()
            .max_capacity(limits.key_cache_entries_max)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.inc();
                }
            })
            .build_with_hasher(BuildHashed::default());
        let unknown = Cache::builder().max_capacity(UNKNOWN_ENTRIES_MAX).time_to_live(UNKNOWN_TTL).build();
        let organizations = Cache::builder()
            .max_capacity(limits.key_cache_entries_max)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(ORGANIZATION_IDLE)
            .build();
        Arc::new(Self {
            known,
            unknown,
            organizations,
            lanes: std::array::from_fn(|_| Mutex::new(())),
            lookups: Arc::new(Semaphore::new((count(limits.database_connections_max) / 2).max(1))),
            lookup_timeout: ms(limits.store_timeout_ms),
            rotations: AtomicU64::new(0),
            started: Instant::now(),
            ttl_ms: limits.key_cache_ttl_s * 1000,
            stale_ms_max: limits.key_stale_s_max * 1000,
            limits: limits.clone(),
            store,
            counters,
        })
    }

    /// The organisation whose key is in the headers.
    pub async fn authenticate(self: &Arc<Self>, headers: &HeaderMap) -> Result<(Arc<Organization>, KeyHash), Problem> {
        let key = presented(headers).filter(|key| is_well_formed(key)).ok_or(Problem::Unauthorized)?;
        let key_hash = hash(key);
        let known = self.known.get(&key_hash).filter(|known| self.is_fresh(known, key_hash));
        self.counters.looked(known.is_some());
        match known {
            Some(known) => Ok((Arc::clone(&known.organization), key_hash)),
            None => self.look_up(key_hash).await.map(|organization| (organization, key_hash)),
        }
    }

    /// Whether a known key may be taken from memory. Past half of its time it is confirmed behind the answer, so that a key in
    /// use never waits for the store; while the store cannot be asked it goes on for `--key-stale-s-max`.
    fn is_fresh(self: &Arc<Self>, known: &Arc<Known>, key_hash: KeyHash) -> bool {
        if self.store.is_none() {
            return true;
        }
        let now_ms = self.now_ms();
        let age_ms = now_ms.saturating_sub(known.confirmed_ms.load(Ordering::Relaxed));
        if age_ms * 2 < self.ttl_ms {
            return true;
        }
        let failing = known.ask_after_ms.load(Ordering::Relaxed) > 0;
        let is_fresh = age_ms < self.ttl_ms || (failing && age_ms < self.ttl_ms + self.stale_ms_max);
        let due = now_ms >= known.ask_after_ms.load(Ordering::Relaxed);
        if is_fresh && due && !known.asking.swap(true, Ordering::AcqRel) {
            let (keys, known) = (Arc::clone(self), Arc::clone(known));
            tokio::spawn(async move { keys.confirm(&known, key_hash).await });
        }
        is_fresh
    }

    async fn confirm(&self, known: &Known, key_hash: KeyHash) {
        let Some(store) = &self.store else { return };
        match store.call(move |store| async move { store.find_key(&key_hash).await }).await {
            Ok(Some(_)) => {
                known.confirmed_ms.store(self.now_ms(), Ordering::Relaxed);
                known.ask_after_ms.store(0, Ordering::Relaxed);
            }
            Ok(None) => self.known.invalidate(&key_hash),
            Err(_) => known.ask_after_ms.store(self.now_ms() + RETRY_AFTER_MS, Ordering::Relaxed),
        }
        known.asking.store(false, Ordering::Release);
    }

    async fn look_up(self: &Arc<Self>, key_hash: KeyHash) -> Result<Arc<Organization>, Problem> {
        let Some(store) = &self.store else { return Err(Problem::Unauthorized) };
        // One look-up for all that come with the same new key at once.
        let lane = self.lanes[key_hash[0] as usize % LANES].lock();
        // Behind other people's keys nobody waits for longer than for the store itself.
        let Ok(_turn) = tokio::time::timeout(self.lookup_timeout, lane).await else {
            return self.in_doubt(self.known.get(&key_hash), key_hash, Problem::StoreUnavailable);
        };
        loop {
            if self.unknown.contains_key(&key_hash) {
                return Err(Problem::Unauthorized);
            }
            let stale = self.known.get(&key_hash);
            if let Some(known) = &stale
                && self.is_fresh(known, key_hash)
            {
                return Ok(Arc::clone(&known.organization));
            }
            let rotations = self.rotations.load(Ordering::SeqCst);
            let row = match (self.find(store, key_hash).await, stale) {
                (Ok(row), _) => row,
                (Err(problem), known) => return self.in_doubt(known, key_hash, problem),
            };
            match &row {
                Some(row) => self.remember(row),
                None => {
                    self.known.invalidate(&key_hash);
                    self.unknown.insert(key_hash, ());
                }
            }
            // A rotation in between may have read or written this very key.
            if self.rotations.load(Ordering::SeqCst) != rotations {
                self.known.invalidate(&key_hash);
                self.unknown.invalidate(&key_hash);
                continue;
            }
            return row.map(|row| self.organization(&row)).ok_or(Problem::Unauthorized);
        }
    }

    /// Asks the store. The permit goes with the question, not with the request: who hangs up before the answer does not make room
    /// for the next one's question.
    async fn find(&self, store: &Offload, key_hash: KeyHash) -> Result<Option<KeyRow>, Problem> {
        let permit = tokio::time::timeout(self.lookup_timeout, Arc::clone(&self.lookups).acquire_owned());
        let permit = permit.await.map_err(|_| Problem::StoreUnavailable)?.map_err(|_| Problem::Stopping)?;
        let question = move |store: Store| async move {
            let _permit = permit;
            store.find_key(&key_hash).await
        };
        store.call(question).await
    }

    /// The store could not be asked: a key that was good within the bound stays good.
    fn in_doubt(
        self: &Arc<Self>,
        known: Option<Arc<Known>>,
        key_hash: KeyHash,
        problem: Problem,
    ) -> Result<Arc<Organization>, Problem> {
        let Some(known) = known else { return Err(problem) };
        known.ask_after_ms.store(self.now_ms() + RETRY_AFTER_MS, Ordering::Relaxed);
        if self.is_fresh(&known, key_hash) { Ok(Arc::clone(&known.organization)) } else { Err(problem) }
    }

    fn organization(&self, row: &KeyRow) -> Arc<Organization> {
        self.organizations.get_with(row.organization_id, || {
            // A tier that this version does not know gets the smallest quota, not none.
            let tier = Tier::from_name(&row.tier).unwrap_or(Tier::Free);
            let limiter = Limiter::new(tier, &self.limits);
            Arc::new(Organization { id: row.organization_id, name: row.organization_name.clone(), tier, limiter })
        })
    }

    fn remember(&self, row: &KeyRow) {
        let known = Known {
            organization: self.organization(row),
            confirmed_ms: AtomicU64::new(self.now_ms()),
            ask_after_ms: AtomicU64::new(0),
            asking: AtomicBool::new(false),
            created_at_us: row.created_at_us,
        };
        self.unknown.invalidate(&row.key_hash);
        self.known.insert(row.key_hash, Arc::new(known));
    }

    /// Adds a key to the store, then to memory.
    pub async fn add(&self, row: KeyRow) -> Result<(), Problem> {
        if let Some(store) = &self.store {
            let row = row.clone();
            store.call(move |store| async move { store.add_key(&row).await }).await?;
        }
        self.remember(&row);
        Ok(())
    }

    /// Puts `new` in the place of `old`, for the same organisation and what is left of its minute. In this process the old key ends before the new one is answered; in others on the same
    /// database within `--key-cache-ttl-s`.
    pub async fn rotate(&self, organization: &Arc<Organization>, old: KeyHash, new: KeyRow) -> Result<(), Problem> {
        if let Some(store) = &self.store {
            let row = new.clone();
            let replaced = store.call(move |store| async move { store.replace_key(&old, &row).await }).await;
            // Even when the outcome is unknown: the next use of the old key asks the store.
            self.rotations.fetch_add(1, Ordering::SeqCst);
            self.known.invalidate(&old);
            if !replaced? {
                return Err(Problem::Unauthorized);
            }
        }
        self.known.invalidate(&old);
        // It may have been forgotten here, though its key was in use all the time: another one would have a whole minute again.
        self.organizations.insert(organization.id, Arc::clone(organization));
        self.remember(&new);
        Ok(())
    }

    /// When the key was made, if it is in memory (it is, right after [`Keys::authenticate`]).
    pub fn created_at_us(&self, key_hash: &KeyHash) -> Option<i64> {
        self.known.get(key_hash).map(|known| known.created_at_us)
    }

    /// Keys in memory.
    pub fn entries(&self) -> u64 {
        self.known.entry_count()
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_the_crc_32_that_everybody_has() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn keys_differ_and_are_well_formed() {
        let keys: std::collections::HashSet<String> = (0..1000).map(|_| generate().unwrap()).collect();
        assert_eq!(keys.len(), 1000);
        for key in keys {
            assert!(key.starts_with("mr_live_") && key.len() == 46 && is_well_formed(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_key_with_one_character_changed_is_refused_without_a_look_up() {
        let key = generate().unwrap().into_bytes();
        for at in 0..key.len() {
            let mut changed = key.clone();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            assert!(!is_well_formed(&changed), "{at}");
        }
    }

    #[test]
    fn a_key_comes_in_either_header() {
        for (name, value, expected) in [
            ("authorization", "Bearer abc", Some("abc")),
            ("authorization", "bearer  abc", Some("abc")),
            ("authorization", "Basic abc", None),
            ("authorization", "Bearer", None),
            ("x-api-key", "abc", Some("abc")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(presented(&headers), expected.map(str::as_bytes), "{name}: {value}");
        }
    }

    #[test]
    fn without_a_token_only_requests_to_an_address_or_to_localhost_make_keys() {
        let check = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            admin(&headers, None)
        };
        for host in ["127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "localhost", "LocalHost:1", "localhost.:80"]
        {
            assert_eq!(check(&[host]), Ok(()), "{host}");
        }
        assert_eq!(check(&[]), Ok(()));
        for host in
            ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "x:8080", "", "[evil]", "é"]
        {
            assert_eq!(check(&[host]), Err(Problem::ForeignHost), "{host}");
        }
        assert_eq!(check(&["127.0.0.1", "evil.example"]), Err(Problem::ForeignHost));
        let token = Secret("0123456789abcdef".into());
        assert_eq!(admin(&HeaderMap::new(), Some(&token)), Err(Problem::AdminTokenWanted));
    }

    /// Its entry is given up after [`ORGANIZATION_IDLE`] without a look-up, which a key in use never needs.
    #[tokio::test]
    async fn a_rotated_key_has_what_is_left_of_the_old_ones_minute_however_long_that_was_in_use() {
        let mut limits = crate::config::Settings::default().limits;
        limits.rate_limit_free_per_minute = 1;
        let keys = Keys::new(&limits, None, CacheCounters::default());
        let key = |text: &str| KeyRow {
            key_hash: hash(text.as_bytes()),
            organization_id: Uuid::from_u128(1),
            organization_name: "a".into(),
            tier: "free".into(),
            created_at_us: 0,
        };
        let (old, new) = (generate().unwrap(), generate().unwrap());
        let sent = |key: &str| HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {key}").parse().unwrap())]);
        keys.add(key(&old)).await.unwrap();
        let (organization, old_hash) = keys.authenticate(&sent(&old)).await.unwrap();
        organization.limiter.take().unwrap();
        keys.organizations.invalidate(&organization.id);
        keys.rotate(&organization, old_hash, key(&new)).await.unwrap();
        let (again, _) = keys.authenticate(&sent(&new)).await.unwrap();
        assert!(again.limiter.take().is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_key_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(!is_well_formed(&bytes));
        }
    }
}
