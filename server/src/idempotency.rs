//! A retry with the same `Idempotency-Key` and body gets the first answer again (rule I3).
//!
//! Kept in memory only, bounded by bytes and by time: a restart forgets, and so does a full cache (the least recently used
//! answer first). Who must not send an event twice whatever happens gives it a `dedup_id`. Answers that a retry should improve on
//! (429, 5xx, most 4xx) are not kept.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::cache_counters::CacheCounters;
use crate::claims::{self, Claim, Claims, Key};
use crate::config::Limits;
use crate::problem::Problem;

/// Longest value of the header, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// Counted for each answer on top of its body: headers, key, and the cache's own.
const ENTRY_OVERHEAD_BYTES: u32 = 256;

/// An answer as it was given.
#[derive(Clone, Debug)]
struct Kept {
    fingerprint: [u8; 32],
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// See the module.
#[derive(Debug)]
pub struct Idempotency {
    done: Cache<Key, Arc<Kept>>,
    claims: Arc<Claims>,
    counters: CacheCounters,
}

/// What an `Idempotency-Key` turned out to be.
#[derive(Debug)]
pub enum Found {
    /// The answer to give again.
    Repeat(Response<Full<Bytes>>),
    /// Do the work, then [`Slot::keep`].
    New(Slot),
}

/// The right to do the work of this key. Dropped without [`Slot::keep`], the next request takes over.
#[derive(Debug)]
pub struct Slot {
    claim: Claim,
    key: Key,
    fingerprint: [u8; 32],
}

impl Idempotency {
    /// With nothing kept.
    pub fn new(limits: &Limits, counters: CacheCounters) -> Self {
        let evictions = counters.evictions.clone();
        let done = Cache::builder()
            .max_capacity(limits.idempotency_bytes_max)
            .weigher(|_, kept: &Arc<Kept>| {
                u32::try_from(kept.body.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_OVERHEAD_BYTES)
            })
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.inc();
                }
            })
            .time_to_live(std::time::Duration::from_secs(limits.idempotency_window_s))
            .build();
        Self { done, claims: Claims::new(), counters }
    }

    /// Finds the first answer, waiting for a request with the same key that is in flight.
    pub async fn find(&self, organization_id: Uuid, route: &str, key: &[u8], body: &[u8]) -> Result<Found, Problem> {
        // The route is part of what was asked: the same key on another route is another body.
        let fingerprint = Sha256::new().chain_update(route).chain_update([0]).chain_update(body).finalize().into();
        let key = claims::key(organization_id, key);
        let claim = self.claims.claim(key).await;
        let kept = self.done.get(&key);
        self.counters.looked(kept.is_some());
        match kept {
            None => Ok(Found::New(Slot { claim, key, fingerprint })),
            Some(kept) if kept.fingerprint != fingerprint => Err(Problem::IdempotencyMismatch),
            Some(kept) => {
                let mut response = Response::new(Full::new(kept.body.clone()));
                *response.status_mut() = kept.status;
                *response.headers_mut() = kept.headers.clone();
                Ok(Found::Repeat(response))
            }
        }
    }

    /// Answers held.
    pub fn entries(&self) -> u64 {
        self.done.entry_count()
    }
}

impl Slot {
    /// The answer that retries get, if it is one that a retry could not improve on: done, or done before.
    pub fn keep(self, cache: &Idempotency, response: &Response<Full<Bytes>>, body: Bytes) {
        let status = response.status();
        if status.is_success() || status == StatusCode::CONFLICT {
            let headers = response.headers().clone();
            cache.done.insert(self.key, Arc::new(Kept { fingerprint: self.fingerprint, status, headers, body }));
        }
        drop(self.claim);
    }
}

/// The bytes of an answer, which is always whole in memory: reading them cannot wait or fail.
pub async fn bytes(response: &Response<Full<Bytes>>) -> Bytes {
    use http_body_util::BodyExt;
    response.body().clone().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

/// The key out of the header: a quoted string (as the draft has it) or raw (as most clients send it).
pub fn key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let raw = value.as_bytes();
    let key = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(raw);
    if key.is_empty() || key.len() > KEY_BYTES_MAX || values.next().is_some() {
        return Err(Problem::field("Idempotency-Key", "send one Idempotency-Key of 1 to 255 bytes, or none"));
    }
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_key_is_the_same_quoted_or_raw_and_has_a_longest_length() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_str(value).unwrap());
            key(&headers).map(|key| key.map(<[u8]>::to_vec))
        };
        assert_eq!(check("\"abc\""), check("abc"));
        assert!(check(&"x".repeat(255)).is_ok());
        assert!(check(&"x".repeat(256)).is_err());
        assert!(check("\"\"").is_err());
        assert_eq!(key(&HeaderMap::new()), Ok(None));
    }
}
