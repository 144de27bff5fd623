//! How events come out of the stream: read into the pending buffer of this process, persisted from there by the processor as in every mode,
//! and only then taken out of Redis.
//!
//! The *reader* waits in Redis itself (`XREADGROUP BLOCK`) on a connection of its own, and reads no more than this process may have in hand.
//! The *keeper* takes out what the processor has persisted, renews the claims of what takes long, and twice in a lease looks for what a
//! dead process left behind (`XAUTOCLAIM`). An entry may so be in the hands of two processes; the database takes it once, by its id.
//!
//! An entry that cannot be read, or that the database cannot hold, is moved aside (`millrace:aside`), counted and logged. A group that is
//! gone (Redis was emptied, or started again without its data) is made again from the beginning of the stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::link::{Link, QueueError};
use super::{ASIDE, CLOCK_SLACK, COMPLETE, GROUP, PLACES, Queue, STATE, STREAM, dedup_key, read_entry};
use crate::alive::{Pulse, alive};
use crate::config::{Limits, count, ms};
use crate::event::Event;
use crate::follow::Followed;
use crate::pending::{Pending, Told, bytes_of};
use crate::store::{Store, now_us};

/// How long the reader waits in Redis at a time.
const BLOCK: Duration = Duration::from_secs(30);
/// Entries of one read, claim or settlement: each is a step in which Redis answers nobody else.
const ENTRIES_AT_ONCE: usize = 128;
/// Between two reads of which the first did not come back full: under load that is a read for many events and not one for each.
const READ_PAUSE: Duration = Duration::from_millis(25);
/// Between two tries while Redis is away.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// Rows of the database whose `dedup_id`s are written at once.
const DEDUP_IDS_AT_ONCE: usize = 1_000;
/// A consumer that holds nothing and did nothing for so many leases is a process that has ended.
const FORGET_AFTER_LEASES: u32 = 20;
/// Held by the process that copies the database's `dedup_id`s into Redis.
const COMPLETING: &str = "millrace:completing";

/// What can be set.
#[derive(Clone, Debug)]
pub struct DrainSettings {
    /// How long an entry is one process's.
    pub lease: Duration,
    /// Entries in the hands of this process at most.
    pub taken_events_max: usize,
    /// Bytes of these, above which no more are read.
    pub taken_bytes_max: usize,
    /// `dedup_id`s that are copied from the database at most.
    pub dedup_entries_max: usize,
    /// How long [`Drain::close`] may take.
    pub close_timeout: Duration,
}

impl DrainSettings {
    /// Out of the server's.
    pub fn new(limits: &Limits) -> Self {
        Self {
            lease: ms(limits.queue_lease_ms),
            taken_events_max: count(limits.queue_taken_events_max),
            taken_bytes_max: count(limits.pending_bytes_max),
            dedup_entries_max: count(limits.dedup_entries_max),
            close_timeout: ms(limits.shutdown_timeout_ms) / 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Draining,
    /// Reads what is there, and waits for nothing more.
    Finishing,
    /// Takes out what is persisted, and ends.
    Closing,
}

impl Phase {
    /// Resolves when this phase has begun. (Nothing of the channel may be held meanwhile.)
    async fn begun(self, phases: &mut watch::Receiver<Self>) {
        let _ = phases.wait_for(|phase| *phase >= self).await;
    }
}

/// The running drain. Dropping it stops it as a crash would: what it holds is another process's when the lease is over.
#[derive(Debug)]
pub struct Drain {
    task: JoinHandle<()>,
    pulse: Pulse,
    phase: watch::Sender<Phase>,
    close_timeout: Duration,
}

impl Drain {
    /// Starts on the current runtime. `told` is what `pending` tells of its events.
    pub async fn start(
        queue: Arc<Queue>,
        pending: Arc<Pending>,
        told: UnboundedReceiver<Told>,
        store: Store,
        settings: DrainSettings,
    ) -> Self {
        let (phase, phases) = watch::channel(Phase::Draining);
        let close_timeout = settings.close_timeout;
        let feeding = pending.feeding();
        let task = Arc::new(Task::new(queue, pending, store, settings));
        // Before the first event, so that none has to be looked for in the database without need. Whoever fails here tries again later.
        task.tended(task.complete().await);
        let (alive, pulse) = alive();
        let running = async move {
            let _alive = alive;
            let reading = async {
                task.read(phases.clone()).await;
                drop(feeding);
            };
            tokio::join!(reading, task.keep(told, phases.clone()));
        };
        Self { task: tokio::spawn(running), pulse, phase, close_timeout }
    }

    /// Hears when it has ended by itself.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// From here on only what the stream has now is read; the pending buffer counts as fed until that is done.
    pub fn finish(&self) {
        let _ = self.phase.send(Phase::Finishing);
    }

    /// Takes what is persisted out of Redis, for as long as the settings allow. What was not stays, and is found to be persisted by whoever
    /// is given it next.
    pub async fn close(mut self) {
        let _ = self.phase.send(Phase::Closing);
        if timeout(self.close_timeout, &mut self.task).await.is_err() {
            warn!(
                "Redis did not take in time that these events are persisted; another process, or the next start, finds them so"
            );
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An entry in the hands of this process.
#[derive(Clone, Debug)]
struct Taken {
    place: String,
    bytes: usize,
    /// When the claim was made, or renewed.
    claimed: Instant,
}

/// Place in the stream and fields; no fields when it was deleted meanwhile.
type Entry = (String, Option<Vec<Vec<u8>>>);

struct Task {
    queue: Arc<Queue>,
    pending: Arc<Pending>,
    store: Store,
    settings: DrainSettings,
    /// This process, this time.
    consumer: String,
    /// Waits in Redis, so that nothing else can be asked on it.
    reading: Link,
    link: Link,
    taken: Mutex<HashMap<Uuid, Taken>>,
    /// Bytes that have left the stream, and count for it still.
    unwritten_bytes: AtomicU64,
    room: Notify,
    settle: Script,
    set_aside: Script,
    forget_consumer: Script,
}

impl Task {
    fn new(queue: Arc<Queue>, pending: Arc<Pending>, store: Store, settings: DrainSettings) -> Self {
        let (redis, timeout) = (&queue.redis, queue.redis.timeout);
        Self {
            consumer: Uuid::now_v7().to_string(),
            reading: Link::new(Arc::clone(redis), BLOCK + timeout),
            link: Link::new(Arc::clone(redis), timeout),
            taken: Mutex::default(),
            unwritten_bytes: AtomicU64::new(0),
            room: Notify::new(),
            settle: Script::new(include_str!("settle.lua")),
            set_aside: Script::new(include_str!("set_aside.lua")),
            forget_consumer: Script::new(include_str!("forget_consumer.lua")),
            queue,
            pending,
            store,
            settings,
        }
    }

    /// The reader.
    async fn read(&self, mut phases: watch::Receiver<Phase>) {
        // What was given to this consumer and has not arrived here, because the connection broke in between.
        let mut may_have_lost = false;
        loop {
            let step = async {
                self.room().await;
                if may_have_lost {
                    self.read_again().await?;
                }
                self.read_new(Some(BLOCK)).await
            };
            let read = tokio::select! {
                read = step => read,
                () = Phase::Finishing.begun(&mut phases) => break,
            };
            may_have_lost = read.is_err();
            let wait = match read {
                Ok(count) if count >= ENTRIES_AT_ONCE => continue,
                Ok(_) => READ_PAUSE,
                Err(error) => self.tended(self.recover(error).await).unwrap_or(RETRY_WAIT),
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = Phase::Finishing.begun(&mut phases) => break,
            }
        }
        // With the question that is still open on it.
        self.reading.close();
        self.tended(self.read_rest().await);
    }

    /// As many as there are now, and not all that others go on putting in.
    async fn read_rest(&self) -> Result<(), QueueError> {
        self.read_again().await?;
        let mut left: usize = self.link.ask(redis::cmd("XLEN").arg(STREAM)).await?;
        while left > 0 {
            self.room().await;
            match self.read_new(None).await? {
                count if count < ENTRIES_AT_ONCE => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }

    /// Reads entries that no consumer was given; how many.
    async fn read_new(&self, wait: Option<Duration>) -> Result<usize, QueueError> {
        let mut ask = redis::cmd("XREADGROUP");
        ask.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(ENTRIES_AT_ONCE);
        if let Some(wait) = wait {
            ask.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        ask.arg("STREAMS").arg(STREAM).arg(">");
        let read: Option<Vec<(String, Vec<Entry>)>> = self.reading.ask(&ask).await?;
        let entries: Vec<Entry> = read.into_iter().flatten().flat_map(|(_, entries)| entries).collect();
        let count = entries.len();
        self.take(entries).await?;
        Ok(count)
    }

    /// Reads what this consumer was given before and does not have.
    async fn read_again(&self) -> Result<(), QueueError> {
        let mut after = "0".to_owned();
        loop {
            let mut ask = redis::cmd("XREADGROUP");
            ask.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(ENTRIES_AT_ONCE);
            ask.arg("STREAMS").arg(STREAM).arg(&after);
            let read: Option<Vec<(String, Vec<Entry>)>> = self.reading.ask(&ask).await?;
            let entries: Vec<Entry> = read.into_iter().flatten().flat_map(|(_, entries)| entries).collect();
            let Some((last, _)) = entries.last() else { return Ok(()) };
            after.clone_from(last);
            self.take(entries).await?;
        }
    }

    /// Makes the entries pending here.
    async fn take(&self, entries: Vec<Entry>) -> Result<(), QueueError> {
        for (place, fields) in entries {
            let Some(fields) = fields else {
                // Deleted by hand, or by a process that was given it before.
                self.link.ask::<i64>(redis::cmd("XACK").arg(STREAM).arg(GROUP).arg(&place)).await?;
                continue;
            };
            let field = |name: &[u8]| fields.chunks_exact(2).find(|field| field[0] == name).map(|field| &field[1][..]);
            let Some(mut event) = field(b"event").and_then(read_entry) else {
                self.set_aside(&place, None, "it is not an event as this version writes them").await?;
                continue;
            };
            if let Some((exporter, traceparent)) = self.queue.settings.exporter.as_ref().zip(field(b"traceparent")) {
                event.followed = Followed::from_traceparent(traceparent, exporter);
            }
            let taken = Taken { place, bytes: bytes_of(&event), claimed: Instant::now() };
            self.lock().insert(event.id, taken);
            self.pending.restore(Arc::new(event), None);
        }
        Ok(())
    }

    /// Resolves when this process may have more in hand.
    async fn room(&self) {
        while !self.has_room() {
            self.room.notified().await;
        }
    }

    fn has_room(&self) -> bool {
        let taken = self.lock().len();
        taken < self.settings.taken_events_max && self.pending.bytes() < self.settings.taken_bytes_max
    }

    /// What is to be done about an error of a read; how long to wait then.
    async fn recover(&self, error: QueueError) -> Result<Duration, QueueError> {
        if !error.is_no_group() {
            return Err(error);
        }
        self.make_group().await?;
        Ok(Duration::ZERO)
    }

    /// From the beginning of the stream: what is in it is not persisted, or does no harm a second time.
    async fn make_group(&self) -> Result<(), QueueError> {
        let mut make = redis::cmd("XGROUP");
        make.arg("CREATE").arg(STREAM).arg(GROUP).arg("0").arg("MKSTREAM");
        match self.link.ask::<()>(&make).await {
            Ok(()) => info!("the consumer group is made; it begins with all that the stream has"),
            Err(QueueError::Refused(error)) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The keeper.
    async fn keep(&self, mut told: UnboundedReceiver<Told>, mut phases: watch::Receiver<Phase>) {
        let mut ticks = interval(self.settings.lease / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(told) = told.recv() => self.settle(told).await,
                _ = ticks.tick() => drop(self.tended(self.tend().await)),
                () = self.queue.incomplete.notified() => drop(self.tended(self.complete().await)),
                () = Phase::Closing.begun(&mut phases) => break,
            }
        }
        while let Ok(told) = told.try_recv() {
            self.settle(told).await;
        }
        // What the database did not take in time is the next one's at once.
        let lease_ms = u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX);
        self.tended(self.set_idle(|_| true, lease_ms).await);
        let mut forget = self.forget_consumer.prepare_invoke();
        forget.key(STREAM).arg(GROUP).arg(&self.consumer);
        self.tended(self.link.run::<i64>(&forget).await);
    }

    /// Takes out what has been persisted, or moves aside what cannot be; tries until Redis has taken it.
    async fn settle(&self, told: Told) {
        while let Err(error) = self.settle_once(&told).await {
            self.tended::<()>(Err(error));
            sleep(RETRY_WAIT).await;
        }
        let mut taken = self.lock();
        match &told {
            Told::Persisted(ids) => ids.iter().for_each(|id| drop(taken.remove(id))),
            Told::Refused { event, .. } => drop(taken.remove(&event.id)),
        }
        drop(taken);
        self.room.notify_one();
    }

    async fn settle_once(&self, told: &Told) -> Result<(), QueueError> {
        let ids = match told {
            Told::Persisted(ids) => ids,
            Told::Refused { event, cause } => {
                let Some(taken) = self.lock().get(&event.id).cloned() else { return Ok(()) };
                self.set_aside(&taken.place, Some(event), cause).await?;
                self.pending.forget(event);
                return Ok(());
            }
        };
        for some in ids.chunks(ENTRIES_AT_ONCE) {
            let mut settle = self.settle.prepare_invoke();
            settle.key(STREAM).key(STATE).key(PLACES).arg(GROUP).arg(self.unwritten_bytes.load(Ordering::Relaxed));
            {
                let taken = self.lock();
                for (id, taken) in some.iter().filter_map(|id| Some((id, taken.get(id)?))) {
                    settle.arg(&taken.place).arg(id.as_bytes().as_slice()).arg(taken.bytes);
                }
            }
            let (left, unwritten_bytes) = self.link.run(&settle).await?;
            self.unwritten_bytes.store(unwritten_bytes, Ordering::Relaxed);
            self.queue.holds(left);
        }
        Ok(())
    }

    async fn set_aside(&self, place: &str, event: Option<&Event>, reason: &str) -> Result<(), QueueError> {
        let mut aside = self.set_aside.prepare_invoke();
        aside.key(STREAM).key(STATE).key(PLACES).key(ASIDE).arg(GROUP).arg(place);
        aside.arg(event.map_or(&[][..], |event| event.id.as_bytes())).arg(event.map_or(0, bytes_of)).arg(reason);
        if self.link.run::<i64>(&aside).await? > 0 {
            self.queue.metrics.queue_entries_set_aside.inc();
            error!(
                place,
                reason,
                "an entry of the queue cannot be persisted; it is kept in the stream {ASIDE} and not tried again"
            );
        }
        Ok(())
    }

    /// What is to be done twice in a lease.
    async fn tend(&self) -> Result<(), QueueError> {
        self.link.read_settings().await?;
        match self.renew().await.and(self.claim().await) {
            Err(error) if error.is_no_group() => self.make_group().await?,
            other => other?,
        }
        self.forget_the_dead().await?;
        self.complete().await
    }

    /// Keeps what this process still works on (the database is away) from being given to another.
    async fn renew(&self) -> Result<(), QueueError> {
        let now = Instant::now();
        let is_old = |taken: &Taken| now.duration_since(taken.claimed) > self.settings.lease / 3;
        self.set_idle(is_old, 0).await?;
        self.lock().values_mut().filter(|taken| is_old(taken)).for_each(|taken| taken.claimed = now);
        Ok(())
    }

    /// Has these of the entries in hand count as claimed so long ago: just now, or so that the next one who looks takes them over.
    async fn set_idle(&self, which: impl Fn(&Taken) -> bool, idle_ms: u64) -> Result<(), QueueError> {
        let places: Vec<String> =
            self.lock().values().filter(|taken| which(taken)).map(|taken| taken.place.clone()).collect();
        for some in places.chunks(ENTRIES_AT_ONCE) {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(STREAM).arg(GROUP).arg(&self.consumer).arg(0).arg(some).arg("IDLE").arg(idle_ms).arg("JUSTID");
            self.link.ask::<Vec<String>>(&claim).await?;
        }
        Ok(())
    }

    /// Takes over what others were given and have not persisted within the lease.
    async fn claim(&self) -> Result<(), QueueError> {
        let mut from = "0-0".to_owned();
        let mut claimed = 0;
        // Not by waiting for room, which this very task makes.
        while self.has_room() {
            let mut claim = redis::cmd("XAUTOCLAIM");
            claim.arg(STREAM).arg(GROUP).arg(&self.consumer);
            claim.arg(u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX));
            claim.arg(&from).arg("COUNT").arg(ENTRIES_AT_ONCE);
            let (next, entries, _deleted): (String, Vec<Entry>, Vec<String>) = self.link.ask(&claim).await?;
            claimed += entries.len();
            self.take(entries).await?;
            from = next;
            if from == "0-0" {
                break;
            }
        }
        if claimed > 0 {
            self.queue.metrics.queue_entries_claimed.inc_by(claimed as u64);
            info!(entries = claimed, "taken over from a process that has not persisted them within its lease");
        }
        Ok(())
    }

    /// Forgets consumers of processes that have ended and left nothing.
    async fn forget_the_dead(&self) -> Result<(), QueueError> {
        let idle_ms_min = u64::try_from((self.settings.lease * FORGET_AFTER_LEASES).as_millis()).unwrap_or(u64::MAX);
        let consumers: Vec<HashMap<String, redis::Value>> =
            self.link.ask(redis::cmd("XINFO").arg("CONSUMERS").arg(STREAM).arg(GROUP)).await?;
        let number = |consumer: &HashMap<String, redis::Value>, field: &str| match consumer.get(field) {
            Some(redis::Value::Int(number)) => number.cast_unsigned(),
            _ => 0,
        };
        for consumer in consumers.iter().filter(|consumer| number(consumer, "idle") > idle_ms_min) {
            if let Some(redis::Value::BulkString(name)) = consumer.get("name") {
                let mut forget = self.forget_consumer.prepare_invoke();
                forget.key(STREAM).arg(GROUP).arg(&name[..]);
                self.link.run::<i64>(&forget).await?;
            }
        }
        Ok(())
    }

    /// Copies the database's `dedup_id`s into Redis, if they were not since it was started.
    async fn complete(&self) -> Result<(), QueueError> {
        let mut opened = self.link.open().await?;
        let run: Option<String> = self.link.ask(redis::cmd("HGET").arg(STATE).arg(COMPLETE)).await?;
        if run.as_deref() == Some(&*opened.run) {
            return Ok(());
        }
        // One process does it. What it has not done in a lease, another does.
        let lease_ms = u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX);
        let mut lock = redis::cmd("SET");
        lock.arg(COMPLETING).arg(&self.consumer).arg("NX").arg("PX").arg(lease_ms);
        if self.link.ask::<Option<String>>(&lock).await?.is_none() {
            return Ok(());
        }
        let window = self.queue.settings.dedup_window;
        let since_us = now_us().saturating_sub(i64::try_from(window.as_micros()).unwrap_or(i64::MAX));
        let found = self.store.recent_dedup(since_us, self.settings.dedup_entries_max).await;
        let (rows, all) = match found {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the dedup_ids of Redis cannot be completed; the database is asked for each until they are");
                return self.link.ask(redis::cmd("DEL").arg(COMPLETING)).await;
            }
        };
        for some in rows.chunks(DEDUP_IDS_AT_ONCE) {
            let mut set = redis::pipe();
            for (organization_id, dedup_id, id) in some {
                let left_ms = left_ms(*id, window + CLOCK_SLACK);
                let set = set.cmd("SET").arg(dedup_key(*organization_id, dedup_id)).arg(id.as_bytes().as_slice());
                set.arg("NX").arg("PX").arg(left_ms).ignore();
            }
            let done = set.query_async::<()>(&mut opened.connection).await;
            self.link.judged(&opened, done)?;
        }
        info!(dedup_ids = rows.len(), all, "the database's dedup_ids are in Redis");
        // With more than fit, what Redis does not know goes on to be asked of the database.
        if all {
            self.link.ask::<i64>(redis::cmd("HSET").arg(STATE).arg(COMPLETE).arg(&*opened.run)).await?;
        }
        self.link.ask(redis::cmd("DEL").arg(COMPLETING)).await
    }

    /// Counts what failed, and says it where it is no outage (of which the link speaks).
    fn tended<T>(&self, result: Result<T, QueueError>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.queue.metrics.queue_errors.inc();
                if let QueueError::Refused(cause) = error {
                    warn!(%cause, "Redis refuses what it is asked");
                }
            })
            .ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Taken>> {
        // No code that holds the lock can panic half-way through a change, so what a poisoned lock guards is whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds until `keep` after the event was made, of which its id (a UUIDv7) begins with the time; at least one.
fn left_ms(id: Uuid, keep: Duration) -> u64 {
    let made_ms = u64::try_from(id.as_u128() >> 80).unwrap_or(0);
    let until_ms = made_ms.saturating_add(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
    until_ms.saturating_sub(u64::try_from(now_us() / 1_000).unwrap_or(0)).max(1)
}
