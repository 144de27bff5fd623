//! Hits, misses and evictions of one cache, looked up in the metrics once.

use prometheus_client::metrics::counter::Counter;

use crate::metrics::{CacheLabel, Metrics};

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CacheCounters {
    hits: Counter,
    misses: Counter,
    /// Entries that had to go because the cache was full.
    pub evictions: Counter,
}

impl CacheCounters {
    /// Of the cache of that name.
    pub fn new(metrics: &Metrics, cache: &'static str) -> Self {
        let label = CacheLabel { cache };
        Self {
            hits: metrics.cache_hits.get_or_create(&label).clone(),
            misses: metrics.cache_misses.get_or_create(&label).clone(),
            evictions: metrics.cache_evictions.get_or_create(&label).clone(),
        }
    }

    /// Counts one look.
    pub fn looked(&self, hit: bool) {
        if hit {
            self.hits.inc()
        } else {
            self.misses.inc()
        };
    }
}
