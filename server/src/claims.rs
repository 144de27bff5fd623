//! Who is at work on a key right now: at most one, and the others wait until that one is done or has given up.
//!
//! Used for two requests with one `dedup_id`, and for a retry that comes while the first request is still in flight. It knows
//! nothing of what the work is. Bounded by the requests in flight: a claim ends with the request that holds it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::hashed::BuildHashed;

/// Sixteen bytes of SHA-256, so already spread evenly: the first byte picks the shard.
pub type Key = [u8; 16];

/// Enough that two HTTP threads seldom meet at one lock.
const SHARDS: usize = 32;

type Shard = HashMap<Key, watch::Receiver<()>, BuildHashed>;

/// See the module.
#[derive(Debug)]
pub struct Claims {
    shards: [Mutex<Shard>; SHARDS],
}

/// The right to work on a key; ends when dropped, which wakes all that wait for it.
#[derive(Debug)]
pub struct Claim {
    claims: Arc<Claims>,
    key: Key,
    // Dropped after the entry is gone from the map (see Drop), and that wakes the waiting.
    _done: watch::Sender<()>,
}

impl Claims {
    /// With nobody at work.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { shards: std::array::from_fn(|_| Mutex::default()) })
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[key[0] as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the key, waiting for its turn. Not in the order of arrival: all that wait try again at once.
    pub async fn claim(self: &Arc<Self>, key: Key) -> Claim {
        loop {
            let mut others = match self.shard(&key).entry(key) {
                Entry::Vacant(free) => {
                    let (done, others) = watch::channel(());
                    free.insert(others);
                    return Claim { claims: Arc::clone(self), key, _done: done };
                }
                Entry::Occupied(taken) => taken.get().clone(),
            };
            // An error means that the sender is gone: the claim has ended.
            while others.changed().await.is_ok() {}
        }
    }

    /// How many are claimed.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nobody is at work.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.shard(&self.key).remove(&self.key);
    }
}

/// A key out of an organisation and what its sender chose. A collision would take one for another; at 128 bits nobody makes
/// one on purpose that hurts anybody but their own organisation, and chance does not make one at all.
///
/// Another one in each process: maps take a part of the key as its hash ([`crate::hashed`]), and a sender who could compute it
/// would choose thousands that fall into one bucket. The secret is mixed into the organisation's id, so that it costs nothing.
pub fn key(organization_id: uuid::Uuid, chosen: &[u8]) -> Key {
    use sha2::{Digest, Sha256};
    static SECRET: LazyLock<u128> = LazyLock::new(rand::random);
    let organization = (organization_id.as_u128() ^ *SECRET).to_le_bytes();
    let digest = Sha256::new().chain_update(organization).chain_update(chosen).finalize();
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_works_and_the_other_waits_until_the_claim_is_dropped() {
        let claims = Claims::new();
        let first = claims.claim([7; 16]).await;
        let other_key = claims.claim([8; 16]).await;
        let waiting = tokio::spawn({
            let claims = Arc::clone(&claims);
            async move { drop(claims.claim([7; 16]).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        drop(other_key);
        assert!(claims.is_empty());
    }

    #[tokio::test]
    async fn one_that_gives_up_waiting_leaves_nothing_behind() {
        let claims = Claims::new();
        let first = claims.claim([7; 16]).await;
        let waiting = tokio::spawn({
            let claims = Arc::clone(&claims);
            async move { drop(claims.claim([7; 16]).await) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        let _ = waiting.await;
        drop(first);
        assert!(claims.is_empty());
    }
}
