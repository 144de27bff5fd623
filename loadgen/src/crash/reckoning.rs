//! What is left of one load after a kill: every acknowledged event looked for, until there is no doubt about any of them.

use std::time::Duration;

use bytes::Bytes;
use reports::model::Ledger;
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::ledger::{self, LookedUp, Reconciliation};
use crate::payload::Payloads;
use crate::recorder::Acknowledged;
use crate::target::{Sending, Target, TargetError};

/// Between two looks at a target that does not show everything. What is missing in two looks in a row, while nothing is pending, is lost.
const LOOK_PAUSE: Duration = Duration::from_millis(150);
/// How long a server that is ready may refuse an event as busy, and the pause between two attempts.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Unanswered events of one load that are sent again, at most.
const RESENT_MAX: usize = 512;

/// A load that was cut short by a kill.
#[derive(Debug)]
pub struct Account {
    /// Key of its organisation, in which there is nothing else.
    pub key: String,
    /// Its events.
    pub payloads: Payloads,
    /// Sequence numbers used.
    pub planned: u64,
    /// What was acknowledged, before the kill or when it was sent again.
    pub acknowledged: Vec<Acknowledged>,
    /// When the kill came, ns of the clock.
    pub kill_ns: u64,
    /// Sent again after the restart.
    pub resent: u64,
    /// Of these, what the target knew.
    pub resent_known: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// In numbers.
    pub ledger: Ledger,
    /// What is lost.
    pub lost: Vec<Acknowledged>,
    /// Why something could not be verified.
    pub doubt: Option<String>,
}

/// As often as it takes: a server that was started a moment ago may say that it is busy.
async fn sent_again(target: &Target, key: &str, body: &Bytes) -> Result<Sending, TargetError> {
    let begin = Instant::now();
    loop {
        match target.send_event(key, body.clone()).await {
            Err(TargetError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. })
                if begin.elapsed() < BUSY_PATIENCE =>
            {
                sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
}

struct Look {
    found: Found,
    /// Nothing is between acknowledged and persisted or between inbox and event, and everybody answered.
    is_clear: bool,
}

impl Account {
    /// Sends what was never answered once more, as a sender does who does not know. Each is acknowledged then, or known already, and has to
    /// be there once.
    pub async fn resend(&mut self, target: &Target, clock: Clock) -> Result<(), TargetError> {
        let mut answered = vec![false; self.planned as usize];
        for entry in &self.acknowledged {
            answered[entry.sequence as usize] = true;
        }
        let unanswered = (0..self.planned).filter(|sequence| !answered[*sequence as usize]).take(RESENT_MAX);
        for sequence in unanswered.collect::<Vec<_>>() {
            let body = self.payloads.body(sequence);
            let sending = match sent_again(target, &self.key, &body).await {
                Ok(sending) => sending,
                // The whole organisation is gone; looking for its events tells.
                Err(TargetError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            self.resent += 1;
            let id = match sending {
                Sending::Acknowledged(id) => id,
                Sending::Known(id) => {
                    self.resent_known += 1;
                    id
                }
            };
            self.acknowledged.push(Acknowledged { sequence, id, done_ns: clock.now_ns() });
        }
        Ok(())
    }

    /// How long before the kill an event had been acknowledged; `None`: after it, by a server that lived on without its disk, or whose last
    /// answers were still on their way.
    pub fn age_ns(&self, event: &Acknowledged) -> Option<u64> {
        self.kill_ns.checked_sub(event.done_ns)
    }

    /// Looks until every event is there, or is missing without a doubt, or the patience is over.
    pub async fn reconcile(&self, target: &Target, clock: Clock, patience: Duration) -> Found {
        let begin = Instant::now();
        let mut missing_before = None;
        loop {
            let pending = ledger::wait_until_nothing_is_pending(target, begin, begin + patience).await;
            let Look { found, is_clear } = self.look(target, clock).await;
            let missing = found.lost.len();
            let settled = is_clear && pending.is_some() && (missing == 0 || missing_before == Some(missing));
            if settled || begin.elapsed() > patience {
                return found;
            }
            missing_before = Some(missing);
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn look(&self, target: &Target, clock: Clock) -> Look {
        let mut reconciliation =
            Reconciliation::new(&self.acknowledged, &self.payloads, self.planned, self.planned, clock);
        let keys = std::slice::from_ref(&self.key);
        let read = ledger::read_inboxes(&mut reconciliation, target, keys).await;
        let (doubt, looked_up) = match read {
            Ok(()) => (None, ledger::look_up_missing(&mut reconciliation, target, keys).await),
            // The whole organisation is gone, and that is an answer.
            Err(TargetError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => (None, LookedUp::default()),
            Err(error) => (Some(error.to_string()), LookedUp::default()),
        };
        let LookedUp { shown, unsure } = looked_up;
        let unsure = (unsure > 0).then(|| format!("{unsure} events could not be asked for, or are not persisted yet"));
        let doubt = doubt.or(unsure);
        let lost = if doubt.is_none() { reconciliation.missing_events().copied().collect() } else { Vec::new() };
        let ledger = reconciliation.finish(0, doubt.is_none(), Duration::ZERO, true);
        Look { is_clear: doubt.is_none() && shown == 0, found: Found { ledger, lost, doubt } }
    }
}
