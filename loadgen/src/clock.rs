//! One monotonic clock for a whole run: nanoseconds since the run began, and what time of day that was.
//!
//! Not here: waiting ([`crate::pace`]). The time of day is read once, because a clock that is stepped during the run must not bend a
//! measured time; it serves only to compare with times that a server stored.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// See the module. Copied freely: all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    epoch_unix_ns: u64,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        let epoch_unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Self { epoch: Instant::now(), epoch_unix_ns }
    }

    /// Nanoseconds since the clock began. Monotonic.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The time of day (nanoseconds since the Unix epoch) of an instant of this clock.
    pub fn unix_ns(&self, ns: u64) -> u64 {
        self.epoch_unix_ns + ns
    }
}
