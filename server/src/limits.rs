//! How many requests a minute an organisation has (rule A4): GCRA by governor, one limiter per organisation.
//!
//! Not the limits on sizes and counts of one request; those are settings that stand where they are enforced.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::Limits;
use crate::problem::Problem;

/// What an organisation pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The smallest.
    Free,
    /// The next.
    Pro,
    /// The next but one.
    Business,
    /// The largest.
    Enterprise,
}

impl Tier {
    /// All, from the smallest.
    pub const ALL: [Self; 4] = [Self::Free, Self::Pro, Self::Business, Self::Enterprise];

    /// As the contract and the store spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Business => "business",
            Self::Enterprise => "enterprise",
        }
    }

    /// The tier of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// Requests a minute; 0 = no limit.
    pub fn per_minute(self, limits: &Limits) -> u32 {
        let per_minute = match self {
            Self::Free => limits.rate_limit_free_per_minute,
            Self::Pro => limits.rate_limit_pro_per_minute,
            Self::Business => limits.rate_limit_business_per_minute,
            Self::Enterprise => limits.rate_limit_enterprise_per_minute,
        };
        u32::try_from(per_minute).unwrap_or(u32::MAX)
    }
}

/// One organisation's requests, counted. A minute's worth may come at once; from then on they come back evenly.
#[derive(Debug)]
pub struct Limiter {
    tier: Tier,
    per_minute: u32,
    cells: Option<DefaultDirectRateLimiter>,
    /// Cells of a limit that several processes share, which this one has taken and not used.
    ahead: AtomicUsize,
}

impl Limiter {
    /// With nothing used yet.
    pub fn new(tier: Tier, limits: &Limits) -> Self {
        let per_minute = tier.per_minute(limits);
        let cells = NonZeroU32::new(per_minute).map(|cells| RateLimiter::direct(Quota::per_minute(cells)));
        Self { tier, per_minute, cells, ahead: AtomicUsize::new(0) }
    }

    /// Counts one request, or says when the next one may come.
    pub fn take(&self) -> Result<(), Problem> {
        let Some(cells) = &self.cells else { return Ok(()) };
        cells.check().map_err(|not_until| self.refusal(not_until.wait_time_from(DefaultClock::default().now())))
    }

    /// The answer to a request that is over the limit, when there is room for another one after `wait`.
    pub fn refusal(&self, wait: Duration) -> Problem {
        Problem::RateLimited {
            tier: self.tier.name(),
            per_minute: self.per_minute,
            // Rounded up: a sender that comes back after whole seconds finds a cell.
            retry_after_s: wait.as_nanos().div_ceil(1_000_000_000).max(1) as u64,
        }
    }

    /// Requests a minute; 0 = no limit.
    pub fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Uses cells that were taken ahead, if there are as many.
    pub fn use_ahead(&self, cells: usize) -> bool {
        let left = |ahead: usize| ahead.checked_sub(cells);
        self.ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    /// Keeps cells that were taken ahead.
    pub fn keep_ahead(&self, cells: usize) {
        self.ahead.fetch_add(cells, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn a_tier_has_its_minutes_worth_and_then_says_when_to_come_back() {
        let limits = Settings::default().limits;
        for (tier, per_minute, retry_after_s) in
            [(Tier::Free, 100, 1), (Tier::Pro, 1000, 1), (Tier::Business, 10_000, 1)]
        {
            let limiter = Limiter::new(tier, &limits);
            let taken = (0..per_minute).filter(|_| limiter.take().is_ok()).count();
            assert_eq!(taken, per_minute as usize);
            // The fast tiers may have got a cell back while the loop ran.
            let refusal = (0..per_minute).find_map(|_| limiter.take().err());
            assert_eq!(refusal, Some(Problem::RateLimited { tier: tier.name(), per_minute, retry_after_s }));
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut limits = Settings::default().limits;
        limits.rate_limit_free_per_minute = 0;
        let limiter = Limiter::new(Tier::Free, &limits);
        assert!((0..100_000).all(|_| limiter.take().is_ok()));
    }
}
