//! Persists what is pending, and finishes rows that wait in the store, at the pace that [`crate::polling`] sets.
//!
//! A cycle writes one batch from the pending buffer; unless that batch was full, it then asks the store once whether rows
//! want the processor (left behind by a crash, or written by `db-first`), claims and completes them. Handing on to webhook
//! delivery is the store's: what is owed is written with the event, and the same question sees what is due ([`crate::doorbell`]).
//! In deep idle the processes on one store share that question: each waits longer by as many as there are.
//!
//! While the store is away nothing is lost: the batch goes back to the front of the buffer and is tried again. An unknown
//! outcome of a commit does no harm, because writing an event again finds it already there.
//!
//! Not here: when to acknowledge (the ingest path's), SQL (the store's), and when to poll (a pure state machine).

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::alive::{Pulse, alive};
use crate::config::Polling;
use crate::event::Event;
use crate::metrics::{Metrics, PollLabels};
use crate::pending::Pending;
use crate::polling::{Change, Found, Next, Poller, Schedule};
use crate::store::{Handling, Inserted, Seen, Store, StoreError, now_us};

/// The first wait after the store failed; each further failure doubles it.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
/// Where that doubling ends: the longest the processor goes on waiting after the store is back.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessorSettings {
    /// When to look for work.
    pub policy: Polling,
    /// The numbers of that.
    pub schedule: Schedule,
    /// Events that are written, or rows that are claimed, at once; 1 or more.
    pub batch_events_max: usize,
    /// How often the store is asked without need at each poll: 0, but for a fault on purpose.
    pub queries_extra: u32,
    /// Ends by a panic at the first event: a fault on purpose.
    pub panics: bool,
    /// How long a claim may take before another process may think the claimant dead and claim the rows again.
    pub lease: Duration,
    /// How long [`Processor::shutdown`] tries to persist what is pending.
    pub drain_timeout: Duration,
}

impl Default for ProcessorSettings {
    fn default() -> Self {
        Self {
            policy: Polling::Wake,
            schedule: Schedule::default(),
            batch_events_max: 500,
            queries_extra: 0,
            panics: false,
            lease: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What the processor asks of a store: a seam for tests that run hours of polling in no time, against a store that fails on
/// command. The methods are those of [`Store`].
pub trait Work: Send + Sync + 'static {
    /// See [`Store::insert`], with [`Handling::Done`].
    fn insert(&self, events: &[Arc<Event>]) -> impl Future<Output = Result<Vec<Inserted>, StoreError>> + Send;
    /// See [`Store::can_write`].
    fn can_write(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// See [`Store::look`].
    fn look(
        &self,
        lease_expired_us: i64,
        counts_processes: bool,
    ) -> impl Future<Output = Result<Seen, StoreError>> + Send;
    /// See [`Store::depth`].
    fn depth(&self, lease_expired_us: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// See [`Store::claim`].
    fn claim(
        &self,
        now_us: i64,
        lease_expired_us: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Uuid>, StoreError>> + Send;
    /// See [`Store::complete`].
    fn complete(&self, ids: &[Uuid], claimed_at_us: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

impl Work for Store {
    async fn insert(&self, events: &[Arc<Event>]) -> Result<Vec<Inserted>, StoreError> {
        Self::insert(self, events, Handling::Done).await
    }

    async fn can_write(&self) -> Result<(), StoreError> {
        Self::can_write(self).await
    }

    async fn look(&self, lease_expired_us: i64, counts_processes: bool) -> Result<Seen, StoreError> {
        Self::look(self, lease_expired_us, counts_processes).await
    }

    async fn depth(&self, lease_expired_us: i64) -> Result<u64, StoreError> {
        Self::depth(self, lease_expired_us).await
    }

    async fn claim(&self, now_us: i64, lease_expired_us: i64, limit: usize) -> Result<Vec<Uuid>, StoreError> {
        Self::claim(self, now_us, lease_expired_us, limit).await
    }

    async fn complete(&self, ids: &[Uuid], claimed_at_us: i64) -> Result<u64, StoreError> {
        Self::complete(self, ids, claimed_at_us).await
    }
}

/// What was taken out of the buffer and is not settled yet: it goes back when the store fails, and when this processor does.
struct InHand<'a> {
    pending: &'a Pending,
    /// A stack, the oldest on top; more than one only while looking for an event that the store can't hold.
    parts: Vec<Vec<Arc<Event>>>,
}

impl InHand<'_> {
    /// The part on top becomes two.
    fn halve(&mut self) {
        if let Some(mut part) = self.parts.pop() {
            self.parts.push(part.split_off(part.len() / 2));
            self.parts.push(part);
        }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.parts.drain(..).filter(|part| !part.is_empty()).for_each(|part| self.pending.put_back(part));
    }
}

/// A running processor. Dropping it stops the task without draining; [`Processor::shutdown`] is the way to end it.
#[derive(Debug)]
pub struct Processor {
    task: JoinHandle<()>,
    pulse: Pulse,
    stop: Option<oneshot::Sender<()>>,
    pending: Arc<Pending>,
    drain_timeout: Duration,
}

impl Processor {
    /// Starts on the current runtime, which may be one of its own with less right to the CPU than the one that answers.
    pub fn spawn(store: impl Work, pending: Arc<Pending>, metrics: Arc<Metrics>, settings: ProcessorSettings) -> Self {
        let (stop, stopped) = oneshot::channel();
        let drain_timeout = settings.drain_timeout;
        let poller = Poller::new(settings.policy, settings.schedule.clone());
        let task = Task { store, pending: pending.clone(), metrics, settings, poller, processes: 1, retry_wait: None };
        let (alive, pulse) = alive();
        let running = async move {
            let _alive = alive;
            task.run(stopped).await;
        };
        Self { task: tokio::spawn(running), pulse, stop: Some(stop), pending, drain_timeout }
    }

    /// Hears when it has ended by itself.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Persists what is pending, for as long as the settings allow; how many events could not be persisted.
    pub async fn shutdown(mut self) -> usize {
        // Dropping the sender is the signal.
        self.stop = None;
        if tokio::time::timeout(self.drain_timeout, &mut self.task).await.is_err() {
            warn!(pending = self.pending.events(), "the store did not take all pending events in time");
        }
        self.pending.events()
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task<S> {
    store: S,
    pending: Arc<Pending>,
    metrics: Arc<Metrics>,
    settings: ProcessorSettings,
    poller: Poller,
    /// Server processes on this store, as last counted.
    processes: u32,
    /// While the store is away: the wait before the next try.
    retry_wait: Option<Duration>,
}

impl<S: Work> Task<S> {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let next = match self.cycle().await {
                Ok(found) => self.next(found),
                Err(error) => Next { wait: self.store_failed(&error), wakes_on_arrival: false, change: None },
            };
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = self.pending.arrived(), if next.wakes_on_arrival => {}
                () = tokio::time::sleep(next.wait), if !next.wait.is_zero() => {}
                () = std::future::ready(()), if next.wait.is_zero() => {}
            }
        }
        self.drain().await;
    }

    /// One look for work in both places.
    async fn cycle(&mut self) -> Result<Found, StoreError> {
        let found_pending = self.write_pending().await?;
        if found_pending == Found::Empty && self.metrics.store_available.get() == 0 {
            // Looking for rows only reads, and can succeed where nothing can be written.
            self.store.can_write().await?;
        }
        let found = match found_pending {
            Found::Full => Found::Full,
            _ => found_pending.max(self.process_stored().await?),
        };
        self.store_answered();
        Ok(found)
    }

    /// Writes one batch of the pending buffer.
    async fn write_pending(&self) -> Result<Found, StoreError> {
        let batch = self.pending.take(self.settings.batch_events_max.max(1));
        let found = Found::of(batch.len(), self.settings.batch_events_max.max(1));
        self.count_poll("memory", found);
        let mut in_hand = InHand { pending: &self.pending, parts: vec![batch] };
        while let Some(part) = in_hand.parts.last().filter(|part| !part.is_empty()) {
            assert!(!self.settings.panics, "a fault on purpose: panic=processor");
            match self.store.insert(part).await {
                Ok(outcomes) => self.written(part, &outcomes),
                Err(error) if error.blames_values() && part.len() == 1 => self.set_aside(&part[0], &error),
                Err(error) if error.blames_values() => {
                    in_hand.halve();
                    continue;
                }
                Err(error) => return Err(error),
            }
            in_hand.parts.pop();
        }
        Ok(found)
    }

    fn written(&self, events: &[Arc<Event>], outcomes: &[Inserted]) {
        for (event, outcome) in events.iter().zip(outcomes) {
            if let Inserted::DuplicateOf(first) = outcome {
                // This process checks before it acknowledges, so another one has taken the same dedup_id at the same time.
                self.metrics.events_duplicate.inc();
                warn!(id = %event.id, %first, "an acknowledged event is a duplicate of one that another process took in");
            }
        }
        self.pending.persisted(events);
    }

    /// An event that alone makes its batch fail would stop all that come after it. It stays pending (visible, counted and
    /// reported at the end as not persisted), and is not tried again.
    fn set_aside(&self, event: &Arc<Event>, cause: &StoreError) {
        error!(id = %event.id, %cause, "an acknowledged event cannot be stored; it is kept and not tried again");
        self.pending.refused(event, cause.to_string());
    }

    /// Claims and completes rows that want the processor. One SELECT when there are none.
    async fn process_stored(&mut self) -> Result<Found, StoreError> {
        let now_us = now_us();
        let lease_expired_us = now_us - i64::try_from(self.settings.lease.as_micros()).unwrap_or(i64::MAX);
        if self.poller.counts_every_cycle() {
            self.store.depth(lease_expired_us).await?;
        }
        for _ in 0..self.settings.queries_extra {
            self.store.look(lease_expired_us, false).await?;
        }
        let seen = self.store.look(lease_expired_us, self.poller.deep_idle()).await?;
        self.processes = seen.processes.unwrap_or(self.processes);
        if !seen.wanted {
            self.count_poll("store", Found::Empty);
            return Ok(Found::Empty);
        }
        let limit = self.settings.batch_events_max.max(1);
        let claimed = self.store.claim(now_us, lease_expired_us, limit).await?;
        if !claimed.is_empty() {
            self.store.complete(&claimed, now_us).await?;
        }
        let found = Found::of(claimed.len(), limit);
        self.count_poll("store", found);
        if found == Found::Full && self.store.depth(lease_expired_us).await? == 0 {
            return Ok(Found::Partial);
        }
        Ok(found)
    }

    fn count_poll(&self, source: &'static str, found: Found) {
        self.metrics.polls.get_or_create(&PollLabels { source, state: found.name() }).inc();
    }

    /// Asks the state machine, and shows its answer.
    fn next(&mut self, found: Found) -> Next {
        let mut next = self.poller.polled(found);
        if self.poller.deep_idle() {
            next.wait = shared_wait(next.wait, self.processes);
        }
        self.metrics.processes.set(i64::from(self.processes));
        self.metrics.poll_interval_seconds.set(next.wait.as_secs_f64());
        self.metrics.deep_idle.set(i64::from(self.poller.deep_idle()));
        match next.change {
            Some(Change::EnteredDeepIdle) => info!(interval_seconds = next.wait.as_secs_f64(), "entering deep idle"),
            Some(Change::LeftDeepIdle) => info!("leaving deep idle"),
            None => {}
        }
        next
    }

    /// Notes an error of the store, in the log only when it begins an outage; how long to wait before trying again.
    fn store_failed(&mut self, cause: &StoreError) -> Duration {
        let wait = match self.retry_wait {
            Some(wait) => (wait * 2).min(RETRY_WAIT_MAX),
            None => {
                warn!(%cause, pending = self.pending.events(), "the store does not answer; events are kept and tried again");
                RETRY_WAIT_MIN
            }
        };
        self.metrics.store_available.set(0);
        self.retry_wait = Some(wait);
        wait
    }

    fn store_answered(&mut self) {
        // Not this processor alone can find it unavailable; so does the writer of `db-first`.
        if self.retry_wait.take().is_some() || self.metrics.store_available.get() == 0 {
            self.metrics.store_available.set(1);
            info!(pending = self.pending.events(), "the store answers again");
        }
    }

    /// Writes until nothing is queued, and nothing more is brought. Ends in time because [`Processor::shutdown`] does not wait longer.
    async fn drain(&mut self) {
        loop {
            match self.write_pending().await {
                Ok(Found::Empty) if self.pending.is_fed() => self.pending.arrived().await,
                Ok(Found::Empty) => return,
                Ok(_) => self.store_answered(),
                Err(error) => tokio::time::sleep(self.store_failed(&error)).await,
            }
        }
    }
}

/// The wait in deep idle of each of so many processes, by which all of them together look as often as one alone would. By chance a little
/// shorter or longer, so that they do not all look at once.
fn shared_wait(wait: Duration, processes: u32) -> Duration {
    match processes {
        0 | 1 => wait,
        processes => (wait * processes).mul_f64(rand::rng().random_range(0.75..1.25)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::metrics::BuildInfo;

    /// A store in memory that notes what it is asked, and fails on command.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Rows>>);

    #[derive(Default)]
    struct Rows {
        asked: Vec<(&'static str, Duration)>,
        started: Option<Instant>,
        kept: Vec<Uuid>,
        wanting: Vec<Uuid>,
        /// Answers that are errors, from now on.
        failures: usize,
        /// The next insert commits, and then fails.
        commits_then_fails: bool,
        /// Server processes on it; 0 is one, too.
        processes: u32,
        /// Payload that no store can hold.
        poison: Option<&'static [u8]>,
    }

    impl Fake {
        fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
            self.0.lock().expect("the fake's lock")
        }

        fn ask(&self, what: &'static str) -> Result<std::sync::MutexGuard<'_, Rows>, StoreError> {
            let mut rows = self.rows();
            let started = *rows.started.get_or_insert_with(Instant::now);
            rows.asked.push((what, started.elapsed()));
            if rows.failures > 0 {
                rows.failures -= 1;
                return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
            }
            Ok(rows)
        }

        fn asked(&self, what: &str) -> usize {
            self.rows().asked.iter().filter(|(asked, _)| *asked == what).count()
        }
    }

    impl Work for Fake {
        async fn insert(&self, events: &[Arc<Event>]) -> Result<Vec<Inserted>, StoreError> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut rows = self.ask("insert")?;
            if rows.poison.is_some_and(|poison| events.iter().any(|event| event.payload == poison)) {
                return Err(StoreError::Refused(sqlx::Error::Encode("no such text".into())));
            }
            let answers = events.iter().map(|event| {
                if rows.kept.contains(&event.id) {
                    return Inserted::AlreadyThere;
                }
                rows.kept.push(event.id);
                Inserted::New
            });
            let answers = answers.collect();
            if std::mem::take(&mut rows.commits_then_fails) {
                return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
            }
            Ok(answers)
        }

        async fn can_write(&self) -> Result<(), StoreError> {
            self.ask("probe").map(drop)
        }

        async fn look(&self, _lease_expired_us: i64, counts_processes: bool) -> Result<Seen, StoreError> {
            let rows = self.ask("select")?;
            let processes = counts_processes.then_some(rows.processes.max(1));
            Ok(Seen { wanted: !rows.wanting.is_empty(), processes })
        }

        async fn depth(&self, _lease_expired_us: i64) -> Result<u64, StoreError> {
            Ok(self.ask("count")?.wanting.len() as u64)
        }

        async fn claim(&self, _now_us: i64, _lease_expired_us: i64, limit: usize) -> Result<Vec<Uuid>, StoreError> {
            let mut rows = self.ask("claim")?;
            let count = limit.min(rows.wanting.len());
            Ok(rows.wanting.drain(..count).collect())
        }

        async fn complete(&self, ids: &[Uuid], _claimed_at_us: i64) -> Result<u64, StoreError> {
            drop(self.ask("complete")?);
            Ok(ids.len() as u64)
        }
    }

    struct Running {
        fake: Fake,
        pending: Arc<Pending>,
        metrics: Arc<Metrics>,
        processor: Processor,
    }

    fn start(settings: ProcessorSettings, prepare: impl FnOnce(&mut Rows)) -> Running {
        let fake = Fake::default();
        prepare(&mut fake.rows());
        let pending = Arc::new(Pending::new(10_000, 10_000_000));
        let metrics = Arc::new(Metrics::new(&BuildInfo::default()));
        let processor = Processor::spawn(fake.clone(), pending.clone(), metrics.clone(), settings);
        Running { fake, pending, metrics, processor }
    }

    fn with(policy: Polling) -> ProcessorSettings {
        ProcessorSettings { policy, ..ProcessorSettings::default() }
    }

    fn event(payload: &'static str) -> Arc<Event> {
        Arc::new(Event {
            id: Uuid::now_v7(),
            organization_id: Uuid::from_u128(1),
            event_type: "t".into(),
            dedup_id: None,
            payload: Bytes::from_static(payload.as_bytes()),
            created_at_us: now_us(),
            followed: None,
        })
    }

    fn put(pending: &Pending, count: usize) -> Vec<Uuid> {
        let events: Vec<_> = (0..count).map(|_| event("1")).collect();
        events.iter().for_each(|event| pending.put(event.clone()).expect("room"));
        events.iter().map(|event| event.id).collect()
    }

    async fn sleep_ms(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_hour_takes_the_statements_that_the_schedule_allows() {
        for (policy, selects, counts) in
            [(Polling::Fixed, 1800, 1800), (Polling::Adaptive, 129, 0), (Polling::Wake, 129, 0)]
        {
            let running = start(with(policy), |_| {});
            // Not on a beat, so that the last poll is either in or out.
            sleep_ms(3_600_000 - 1_000).await;
            assert_eq!((running.fake.asked("select"), running.fake.asked("count")), (selects, counts), "{policy:?}");
            assert_eq!(running.fake.rows().asked.len(), selects + counts, "{policy:?}: nothing else is asked");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_deep_idle_many_processes_together_ask_as_often_as_one() {
        let day = 24 * 60 * 60 * 1_000;
        let mut asked = Vec::new();
        for processes in [1, 3, 10] {
            let running = start(with(Polling::Wake), |rows| rows.processes = processes);
            // The first polls come before deep idle.
            sleep_ms(60_000).await;
            let before = running.fake.asked("select");
            sleep_ms(day).await;
            asked.push(processes as usize * (running.fake.asked("select") - before));
        }
        assert_eq!(asked[0], 2_880, "two a minute");
        assert!(asked[1..].iter().all(|all| (2_700..3_100).contains(all)), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_deep_idle_the_first_event_is_persisted_at_once_with_wake_and_at_the_next_poll_without() {
        for (policy, within) in
            [(Polling::Wake, Duration::from_millis(10)), (Polling::Adaptive, Duration::from_secs(30))]
        {
            let running = start(with(policy), |_| {});
            sleep_ms(100_000).await;
            assert_eq!(running.metrics.deep_idle.get(), 1);
            let (ids, put_at) = (put(&running.pending, 1), Instant::now());
            while running.pending.events() > 0 {
                sleep_ms(1).await;
            }
            assert_eq!(running.fake.rows().kept, ids);
            assert!(put_at.elapsed() <= within, "{policy:?}: {:?}", put_at.elapsed());
            assert_eq!(running.metrics.deep_idle.get(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn under_steady_load_the_cadence_is_the_base_interval_and_not_one_wake_up_for_each_event() {
        let running = start(with(Polling::Wake), |_| {});
        for _ in 0..1_000 {
            put(&running.pending, 1);
            sleep_ms(10).await;
        }
        let inserts = running.fake.asked("insert");
        assert!((95..=102).contains(&inserts), "{inserts} inserts in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn full_batches_follow_each_other_without_a_wait_and_without_a_probe() {
        let running = start(with(Polling::Adaptive), |_| {});
        sleep_ms(50).await;
        let probes = running.fake.asked("select");
        let ids = put(&running.pending, 2_200);
        sleep_ms(60).await;
        assert_eq!(running.fake.rows().kept, ids, "in order");
        assert_eq!((running.fake.asked("insert"), running.fake.asked("select") - probes), (5, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn rows_in_the_store_are_claimed_batch_by_batch_and_the_depth_is_asked_only_after_a_full_one() {
        let running =
            start(with(Polling::Adaptive), |rows| rows.wanting = (0..1_200).map(|_| Uuid::now_v7()).collect());
        sleep_ms(50).await;
        let asked: Vec<_> = running.fake.rows().asked.iter().map(|(what, _)| *what).collect();
        let full = ["select", "claim", "complete", "count"];
        assert_eq!(asked, [&full[..], &full[..], &["select", "claim", "complete"]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_asks_as_often_without_need_as_it_is_told_to() {
        let idle_for_a_minute = async |queries_extra| {
            let running = start(ProcessorSettings { queries_extra, ..with(Polling::Wake) }, |_| {});
            sleep_ms(60_000).await;
            running.fake.asked("select")
        };
        let needed = idle_for_a_minute(0).await;
        assert_eq!(idle_for_a_minute(2).await, 3 * needed);
    }

    #[tokio::test(start_paused = true)]
    async fn work_announced_by_wake_is_looked_for_at_once() {
        let running = start(with(Polling::Wake), |_| {});
        sleep_ms(100_000).await;
        running.fake.rows().wanting.push(Uuid::now_v7());
        running.pending.wake();
        sleep_ms(5).await;
        assert_eq!(running.fake.asked("complete"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_fails_events_are_kept_and_tried_again_with_growing_waits() {
        let running = start(with(Polling::Wake), |_| {});
        sleep_ms(50).await;
        running.fake.rows().failures = 8;
        let ids = put(&running.pending, 700);
        sleep_ms(1_000).await;
        assert_eq!((running.metrics.store_available.get(), running.pending.events()), (0, 700));
        sleep_ms(9_000).await;
        assert_eq!((running.metrics.store_available.get(), running.pending.events()), (1, 0));
        assert_eq!(running.fake.rows().kept, ids, "each one once, in order");
        let tries: Vec<_> =
            running.fake.rows().asked.iter().filter(|(what, _)| *what == "insert").map(|(_, at)| *at).collect();
        let waits: Vec<_> = tries.windows(2).take(8).map(|pair| (pair[1] - pair[0]).as_millis() - 1).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000], "a millisecond is the insert's own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_another_finds_unavailable_is_tried_until_it_takes_writes() {
        let running = start(with(Polling::Wake), |_| {});
        sleep_ms(50).await;
        running.fake.rows().failures = 3;
        running.metrics.store_available.set(0);
        running.pending.wake();
        sleep_ms(140).await;
        assert_eq!((running.metrics.store_available.get(), running.fake.asked("probe")), (0, 2));
        sleep_ms(1_000).await;
        assert_eq!((running.metrics.store_available.get(), running.fake.asked("probe")), (1, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_with_an_unknown_outcome_is_repeated_and_doubles_nothing() {
        let running = start(with(Polling::Wake), |rows| rows.commits_then_fails = true);
        let ids = put(&running.pending, 3);
        sleep_ms(500).await;
        assert_eq!(running.pending.events(), 0);
        assert_eq!(running.fake.rows().kept, ids);
        assert_eq!(running.fake.asked("insert"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_no_store_can_hold_does_not_stop_the_others() {
        let running = start(with(Polling::Wake), |rows| rows.poison = Some(b"bad"));
        let bad = event("bad");
        let mut ids = put(&running.pending, 250);
        running.pending.put(bad.clone()).expect("room");
        ids.extend(put(&running.pending, 240));
        sleep_ms(500).await;
        assert_eq!(running.fake.rows().kept, ids, "all the others, in order");
        assert!(running.pending.get(bad.id).is_some(), "still visible");
        assert!(running.fake.asked("insert") < 30, "found by halving");
        assert_eq!(running.processor.shutdown().await, 1, "reported as not persisted");
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_persists_all_that_is_pending_also_after_a_failure() {
        let running = start(with(Polling::Adaptive), |_| {});
        sleep_ms(100_000).await;
        let ids = put(&running.pending, 1_300);
        running.fake.rows().failures = 2;
        assert_eq!(running.processor.shutdown().await, 0);
        assert_eq!(running.fake.rows().kept, ids);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_in_time_and_says_how_many_were_not_persisted() {
        let running = start(with(Polling::Wake), |rows| rows.failures = usize::MAX);
        put(&running.pending, 42);
        let asked_at = Instant::now();
        assert_eq!(running.processor.shutdown().await, 42);
        assert_eq!(asked_at.elapsed(), ProcessorSettings::default().drain_timeout);
    }

    /// Lines that were logged, from the level of `info` on.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("the log's lock").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn count(&self, words: &str) -> usize {
            let bytes = self.0.lock().expect("the log's lock").clone();
            String::from_utf8_lossy(&bytes).lines().filter(|line| line.contains(words)).count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_into_and_out_of_deep_idle_and_of_an_outage_is_one_line() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let running = start(with(Polling::Wake), |_| {});
        for round in 1..=3 {
            sleep_ms(300_000).await;
            assert_eq!((log.count("entering deep idle"), log.count("leaving deep idle")), (round, round - 1));
            put(&running.pending, 1);
            sleep_ms(1_000).await;
            assert_eq!((log.count("entering deep idle"), log.count("leaving deep idle")), (round, round));
        }
        running.fake.rows().failures = 6;
        put(&running.pending, 1);
        sleep_ms(60_000).await;
        assert_eq!((log.count("the store does not answer"), log.count("the store answers again")), (1, 1));
    }
}
