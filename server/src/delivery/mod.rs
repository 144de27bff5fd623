//! Sends events to their organisations' webhooks (rules D1, D2): signed, at least once, with back-off, and then a dead letter.
//!
//! What is owed stands in the store, written in the event's own transaction. One task takes it from there: it hears
//! ([`crate::doorbell`]) that there is something, asks [`turns`] who may go next, claims as many deliveries as may start now (so
//! memory is bounded by the attempts under way), makes the attempts ([`client`]), lets [`schedule`] judge them, and writes down all
//! that ended together in one transaction. While nothing is owed it asks the database nothing.
//!
//! A claim is a lease. A process that dies leaves its deliveries due again when the lease ends, and whoever polls finds them; so
//! an event can be sent twice, and never not at all. The `webhook-id` is the event's id, by which a receiver knows the second one.
//! Attempts are counted when they have failed: being killed costs none.
//!
//! Deliveries of a webhook that was removed or has answered 410 become dead letters as they come due.
//!
//! Not here: SQL (the store's), the routes ([`crate::webhooks`]).

pub mod address;
pub mod client;
pub mod schedule;
pub mod signature;
pub mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};
use uuid::Uuid;

use crate::alive::{Pulse, alive};
use crate::fault;
use crate::metrics::{FaultLabel, Metrics, OutcomeLabel, ReasonLabel};
use crate::store::{After, Claimed, Outcome, Store, StoreError, now_us};
use address::Guard;
use client::{Attempt, Bounds, Client};
use schedule::{Answer, Next, Schedule};
use turns::{Health, Turns};

/// The first wait after the store failed; each further failure doubles it.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
/// Where that doubling ends.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often at most the store is asked whose deliveries are due, when a poll has seen that some are.
const DISCOVERY_INTERVAL_US: i64 = 1_000_000;
/// Retries are due at multiples of this, so that many of them are one alarm.
const RETRY_GRAIN_US: i64 = 100_000;
/// The longest sleep without a look at the clock, which may be set.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What can be set.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// When to try again.
    pub schedule: Schedule,
    /// Of one attempt.
    pub bounds: Bounds,
    /// Attempts at a time; 1 or more.
    pub running_max: usize,
    /// Of those, for one organisation; 1 or more.
    pub organization_running_max: usize,
    /// How long a claim is this process's; longer than an attempt may take.
    pub lease: Duration,
    /// How long [`Deliveries::shutdown`] waits for attempts under way.
    pub drain_timeout: Duration,
    /// Faults on purpose.
    pub faults: Faults,
}

/// Lies on purpose ([`crate::fault`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// `--fault-seed`
    pub seed: u64,
    /// Share of events that are never sent, and count as delivered.
    pub drop_share: f64,
    /// Share of events that are sent twice.
    pub duplicate_share: f64,
    /// Ends by a panic at the first turn.
    pub panics: bool,
}

/// The running machinery. Dropping it stops it at once, as a crash would; [`Deliveries::shutdown`] is the way to end it.
#[derive(Debug)]
pub struct Deliveries {
    task: JoinHandle<()>,
    pulse: Pulse,
    stop: Option<oneshot::Sender<()>>,
    drain_timeout: Duration,
}

impl Deliveries {
    /// Learns which organisations have webhooks, then starts on the current runtime.
    pub async fn start(
        store: Store,
        guard: Arc<Guard>,
        metrics: Arc<Metrics>,
        settings: DeliverySettings,
    ) -> Result<Self, StoreError> {
        let organizations = store.webhook_organizations().await?;
        organizations.into_iter().for_each(|id| store.doorbell().know(id));
        let (stop, stopped) = oneshot::channel();
        let drain_timeout = settings.drain_timeout;
        let task = Task {
            client: Arc::new(Client::new(guard, settings.bounds.clone())),
            turns: Turns::new(settings.running_max, settings.organization_running_max),
            store,
            metrics,
            settings,
            attempts: JoinSet::new(),
            under_way: HashMap::new(),
            ended: Vec::new(),
            // What the last process left.
            due_at_us: Some(0),
            discover_after_us: 0,
            retry_wait: None,
        };
        let (alive, pulse) = alive();
        let running = async move {
            let _alive = alive;
            task.run(stopped).await;
        };
        Ok(Self { task: tokio::spawn(running), pulse, stop: Some(stop), drain_timeout })
    }

    /// Hears when it has ended by itself.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Begins nothing more from here on.
    pub fn stop(&mut self) {
        // Dropping the sender is the signal.
        self.stop = None;
    }

    /// Lets attempts under way end, for as long as the settings allow; what did not is due again at the next start.
    pub async fn shutdown(mut self) {
        self.stop();
        if self.pulse.is_stopped() {
            return;
        }
        let patience = self.drain_timeout + RETRY_WAIT_MAX;
        if tokio::time::timeout(patience, &mut self.task).await.is_err() {
            warn!("webhook deliveries did not end in time; what was under way is sent again once its lease is over");
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is remembered of an attempt while it is made.
#[derive(Debug)]
struct UnderWay {
    organization_id: Uuid,
    event_id: Uuid,
    created_at_us: i64,
    attempts: u32,
    lease_us: i64,
    url: Option<String>,
}

struct Task {
    store: Store,
    metrics: Arc<Metrics>,
    settings: DeliverySettings,
    client: Arc<Client>,
    turns: Turns,
    attempts: JoinSet<Attempt>,
    under_way: HashMap<Id, UnderWay>,
    /// Over, and not written down yet; their slots are still taken.
    ended: Vec<(UnderWay, Attempt)>,
    /// When the earliest row of the store is due, as far as the last poll knows.
    due_at_us: Option<i64>,
    discover_after_us: i64,
    /// While the store is away: the wait before the next try.
    retry_wait: Option<Duration>,
}

impl Task {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let wait = match self.round().await {
                Ok(wait) => wait,
                Err(error) => self.store_failed(&error),
            };
            let listens = self.retry_wait.is_none();
            let bell = self.store.doorbell().clone();
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(ended) = self.attempts.join_next_with_id(), if listens => self.end(ended),
                () = bell.rung(), if listens => {}
                () = sleep(wait) => {}
            }
            while let Some(ended) = self.attempts.try_join_next_with_id() {
                self.end(ended);
            }
        }
        self.finish().await;
    }

    /// Writes down what ended, and begins what may begin; how long until there is something to do without being told.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        self.record().await?;
        self.hear().await?;
        loop {
            let now_us = now_us();
            let turns = self.turns.next(now_us);
            if turns.is_empty() {
                break;
            }
            assert!(!self.settings.faults.panics, "a fault on purpose: panic=deliveries");
            self.claim(&turns, now_us).await?;
        }
        self.metrics.webhook_attempts_running.set(i64::try_from(self.under_way.len()).unwrap_or(i64::MAX));
        if self.retry_wait.take().is_some() {
            info!("the store answers again; webhook deliveries go on");
        }
        let discover_at_us = self.due_at_us.map(|due_at_us| due_at_us.max(self.discover_after_us));
        let wake_at_us = [self.turns.wake_at_us(), discover_at_us].into_iter().flatten().min();
        let wait_us = wake_at_us.map_or(i64::MAX, |at_us| at_us.saturating_sub(now_us()).max(0));
        // At least a little: a clock that shows the same microsecond again must not make this spin.
        Ok(Duration::from_micros(wait_us.unsigned_abs()).clamp(Duration::from_millis(1), SLEEP_MAX))
    }

    /// Who has something to send: as rung for, or found by a poll of the store.
    async fn hear(&mut self) -> Result<(), StoreError> {
        let heard = self.store.doorbell().heard();
        heard.organizations.into_iter().for_each(|id| self.turns.heard(id));
        if let Some(due_at_us) = heard.polled {
            self.due_at_us = due_at_us;
        }
        let now_us = now_us();
        if self.due_at_us.is_some_and(|due_at_us| due_at_us <= now_us) && now_us >= self.discover_after_us {
            self.due_at_us = None;
            self.discover_after_us = now_us + DISCOVERY_INTERVAL_US;
            let due = self.store.organizations_due(now_us).await;
            if due.is_err() {
                self.due_at_us = Some(now_us);
            }
            for id in due? {
                // Another process may have set its webhook: from now on its events ring here too.
                self.store.doorbell().know(id);
                self.turns.heard(id);
            }
        }
        Ok(())
    }

    async fn claim(&mut self, turns: &[(Uuid, usize)], now_us: i64) -> Result<(), StoreError> {
        let lease_us = now_us.saturating_add(micros(self.settings.lease));
        let claimed = match self.store.claim_deliveries(turns, now_us, lease_us).await {
            Ok(claimed) => claimed,
            Err(error) => {
                turns.iter().for_each(|(id, asked)| self.turns.unclaimed(*id, *asked));
                return Err(error);
            }
        };
        for gone in claimed.iter().filter(|claimed| claimed.webhook.is_none()) {
            self.store.doorbell().forget(gone.stored.event.organization_id);
        }
        for (id, asked) in turns {
            let found = claimed.iter().filter(|claimed| claimed.stored.event.organization_id == *id).count();
            self.turns.claimed(*id, *asked, found);
        }
        claimed.into_iter().for_each(|claimed| self.begin(claimed));
        Ok(())
    }

    fn begin(&mut self, claimed: Claimed) {
        let event = &claimed.stored.event;
        let under_way = UnderWay {
            organization_id: event.organization_id,
            event_id: event.id,
            created_at_us: event.created_at_us,
            attempts: claimed.attempts,
            lease_us: claimed.lease_us,
            url: claimed.webhook.as_ref().map(|(url, _)| url.clone()),
        };
        let client = Arc::clone(&self.client);
        let hit = |name, share| self.is_hit(name, share, &claimed);
        let dropped = hit("webhook-drop", self.settings.faults.drop_share);
        let doubled = !dropped && hit("webhook-duplicate", self.settings.faults.duplicate_share);
        let attempt = async move {
            if dropped {
                return Attempt {
                    answer: Answer::Status { status: 204, retry_after: None },
                    prompt: true,
                    quick: true,
                };
            }
            if doubled {
                client.attempt(&claimed).await;
            }
            client.attempt(&claimed).await
        };
        let handle = self.attempts.spawn(attempt);
        self.under_way.insert(handle.id(), under_way);
    }

    fn is_hit(&self, name: &'static str, share: f64, claimed: &Claimed) -> bool {
        let event = &claimed.stored.event;
        let identity = fault::identity(event.dedup_id.as_deref(), &event.payload);
        let hit = share > 0.0 && fault::hits(self.settings.faults.seed, name, share, identity);
        if hit {
            self.metrics.faults_injected.get_or_create(&FaultLabel { fault: name }).inc();
        }
        hit
    }

    /// An attempt is over.
    fn end(&mut self, ended: Result<(Id, Attempt), JoinError>) {
        let (id, attempt) = ended.unwrap_or_else(|error| {
            // It panicked, which nothing in it should: to the receiver it is an attempt that broke off.
            (error.id(), Attempt { answer: Answer::NoConnection, prompt: false, quick: false })
        });
        if let Some(under_way) = self.under_way.remove(&id) {
            self.ended.push((under_way, attempt));
        }
    }

    /// Writes down all that has ended, and gives its slots back.
    async fn record(&mut self) -> Result<(), StoreError> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let now_us = now_us();
        let judge = |(under_way, attempt): &(UnderWay, Attempt)| {
            self.settings.schedule.judge(attempt.answer, under_way.attempts, rand::rng().random())
        };
        let verdicts: Vec<_> = self.ended.iter().map(judge).collect();
        let outcome = |((under_way, _), verdict): (&(UnderWay, Attempt), &schedule::Verdict)| Outcome {
            event_id: under_way.event_id,
            lease_us: under_way.lease_us,
            after: match verdict.next {
                Next::Delivered => After::Delivered,
                Next::DeadLetter => After::DeadLetter,
                Next::Retry { attempts, wait } => After::Retry { attempts, at_us: retry_at_us(now_us, wait) },
            },
        };
        let outcomes: Vec<Outcome> = self.ended.iter().zip(&verdicts).map(outcome).collect();
        for ((under_way, _), verdict) in self.ended.iter().zip(&verdicts) {
            if let (true, Some(url)) = (verdict.gone, &under_way.url) {
                self.store.disable_webhook(under_way.organization_id, url, now_us).await?;
                info!(organization = %under_way.organization_id, "a webhook answered 410 Gone and is disabled");
            }
        }
        self.store.record_deliveries(&outcomes).await?;
        for (((under_way, attempt), verdict), outcome) in
            std::mem::take(&mut self.ended).into_iter().zip(verdicts).zip(outcomes)
        {
            self.metrics_of(&under_way, attempt, outcome.after, now_us);
            if let After::Retry { at_us, .. } = outcome.after {
                self.turns.alarm(at_us, under_way.organization_id);
            }
            let health = match (verdict.next, attempt.answer) {
                (_, Answer::NoWebhook) => Health::Unknown,
                (Next::Delivered, _) if attempt.prompt && attempt.quick => Health::Well,
                (Next::Delivered, _) if attempt.prompt => Health::Slow,
                _ => Health::Ill,
            };
            let rests_until_us = verdict.rest.map(|rest| now_us.saturating_add(micros(rest)));
            self.turns.finished(under_way.organization_id, health, rests_until_us);
        }
        Ok(())
    }

    fn metrics_of(&self, under_way: &UnderWay, attempt: Attempt, after: After, now_us: i64) {
        let outcome = match after {
            After::Delivered => {
                let seconds = (now_us - under_way.created_at_us).max(0) as f64 / 1e6;
                self.metrics.webhook_deliver_seconds.observe(seconds);
                "delivered"
            }
            After::DeadLetter => {
                self.metrics.dead_letters.inc();
                "dead_letter"
            }
            After::Retry { .. } | After::Released => "failed",
        };
        if attempt.answer == Answer::NoWebhook {
            return;
        }
        self.metrics.webhook_attempts.get_or_create(&OutcomeLabel { outcome }).inc();
        if outcome != "delivered" {
            let reason = attempt.answer.name();
            self.metrics.webhook_failures.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Notes an error of the store, in the log only when it begins an outage; how long to wait before trying again.
    fn store_failed(&mut self, cause: &StoreError) -> Duration {
        let wait = match self.retry_wait {
            Some(wait) => (wait * 2).min(RETRY_WAIT_MAX),
            None => {
                warn!(%cause, "the store does not answer; webhook deliveries wait");
                RETRY_WAIT_MIN
            }
        };
        self.retry_wait = Some(wait);
        wait
    }

    /// Lets attempts end for a while, writes down what ended, and gives back what did not.
    async fn finish(&mut self) {
        let deadline = Instant::now() + self.settings.drain_timeout;
        while let Ok(Some(ended)) = timeout_at(deadline, self.attempts.join_next_with_id()).await {
            self.end(ended);
        }
        self.attempts.abort_all();
        while let Err(error) = self.record().await {
            // Ends in time because `shutdown` does not wait longer.
            sleep(self.store_failed(&error)).await;
        }
        let released = |under_way: &UnderWay| Outcome {
            event_id: under_way.event_id,
            lease_us: under_way.lease_us,
            after: After::Released,
        };
        let released: Vec<Outcome> = self.under_way.values().map(released).collect();
        if !released.is_empty() {
            info!(deliveries = released.len(), "webhook attempts were cut off; they are made again at the next start");
            if let Err(error) = self.store.record_deliveries(&released).await {
                warn!(%error, "they could not be given back; they are made again once their lease is over");
            }
        }
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// `wait` after now, rounded up.
fn retry_at_us(now_us: i64, wait: Duration) -> i64 {
    let at_us = now_us.saturating_add(micros(wait));
    at_us.saturating_add(RETRY_GRAIN_US - 1).div_euclid(RETRY_GRAIN_US).saturating_mul(RETRY_GRAIN_US)
}
