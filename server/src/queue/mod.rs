//! `--queue redis://…`: the pending buffer of `cache-first` on Redis, for any number of server processes that take events and drain them.
//!
//! ```text
//! millrace:events            the stream: acknowledged and not yet persisted; one consumer group, one consumer for each process
//! millrace:places            event id → its place in the stream, so that every process can read what any has acknowledged
//! millrace:state             what the stream's events count for in bytes; for which run of Redis the dedup_ids are complete
//! millrace:dedup:ORG:ID      who holds a dedup_id; gone after the window
//! millrace:rate:ORG          an organisation's rate limit
//! millrace:aside             entries that nobody could persist, with the reason
//! ```
//!
//! An event goes in by one script (`put.lua`), which looks whether there is room and whether another one holds its `dedup_id`: so
//! both hold over all processes, and an acknowledgement costs one round trip. How it comes out is in [`drain`]. Nothing leaves the stream
//! before the database has it; no length is ever cut.
//!
//! The `dedup_id`s of Redis are *complete* once the database's were copied into it, which is done for each run of Redis (it may have
//! lost some when it ended). Until then what Redis does not know is asked of the database.
//!
//! One deployment has one database number of Redis to itself.

pub mod drain;
mod link;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use otlp::Exporter;
use redis::{Script, Value};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::auth::Organization;
use crate::config::{Limits, ms};
use crate::event::Event;
use crate::metrics::Metrics;
use crate::pending::bytes_of;
use crate::problem::Problem;

pub use link::{Durability, QueueError};
use link::{Link, Redis};

const STREAM: &str = "millrace:events";
const PLACES: &str = "millrace:places";
const STATE: &str = "millrace:state";
const ASIDE: &str = "millrace:aside";
const GROUP: &str = "millrace";
/// Field of [`STATE`]: the run of Redis for which the `dedup_id`s are complete.
const COMPLETE: &str = "complete";
/// How much longer than the window a `dedup_id` is kept: the clocks of the processes need not agree with each other, and an event that
/// Redis takes for new must not be the database's duplicate.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// One cell in so many of an organisation's minute is taken ahead: a tenth of a second's worth, and none of the small limits, which so stay
/// exact. A process that takes in nothing for a while keeps its share, by which the next minute may be over its limit.
const CELLS_AHEAD_SHARE: usize = 600;
/// Bytes of the checksum before an entry's event.
const CHECKSUM_BYTES: usize = 4;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in.
    New,
    /// This event holds its `dedup_id`; nothing was put.
    DuplicateOf(Uuid),
    /// Redis may not know who holds its `dedup_id`: ask the database, then put it with [`Holder::NotInStore`].
    Unknown,
}

/// What the caller knows of the holder of a `dedup_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nothing.
    Unknown,
    /// The database knows none.
    NotInStore,
}

/// What is to be set.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// How long Redis may take for an answer.
    pub timeout: Duration,
    /// Events in the stream at most.
    pub events_max: u64,
    /// Bytes of these at most.
    pub bytes_max: u64,
    /// How long a `dedup_id` is taken.
    pub dedup_window: Duration,
    /// Who is told of events that are followed.
    pub exporter: Option<Exporter>,
}

impl QueueSettings {
    /// Out of the server's.
    pub fn new(limits: &Limits) -> Self {
        Self {
            timeout: ms(limits.queue_timeout_ms),
            events_max: limits.pending_events_max,
            bytes_max: limits.pending_bytes_max,
            dedup_window: Duration::from_secs(limits.dedup_window_s),
            exporter: None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    redis: Arc<Redis>,
    settings: QueueSettings,
    put: Script,
    find: Script,
    take_cells: Script,
    /// As last seen: events and bytes in the stream.
    events: AtomicI64,
    bytes: AtomicI64,
    /// The last event was refused for want of room.
    refused: AtomicBool,
    /// The log has been told that Redis refuses what it is asked, and it has not taken anything since.
    is_told: AtomicBool,
    /// Somebody has met a `dedup_id` that Redis may have lost.
    incomplete: Notify,
    metrics: Arc<Metrics>,
}

thread_local! {
    /// The link of this thread that answers requests, so that none waits for another thread; and whose it is.
    static LINK: RefCell<Option<(Arc<Redis>, Arc<Link>)>> = const { RefCell::new(None) };
}

impl Queue {
    /// The queue on the Redis of this URL, which is asked what it is; fails when it cannot be used.
    pub async fn open(url: &str, settings: QueueSettings, metrics: Arc<Metrics>) -> Result<Arc<Self>, QueueError> {
        let redis = Arc::new(Redis::new(url, settings.timeout, Arc::clone(&metrics))?);
        Link::new(Arc::clone(&redis), settings.timeout).open().await?;
        Ok(Arc::new(Self {
            redis,
            settings,
            put: Script::new(include_str!("put.lua")),
            find: Script::new(include_str!("find.lua")),
            take_cells: Script::new(include_str!("take_cells.lua")),
            events: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            refused: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            incomplete: Notify::new(),
            metrics,
        }))
    }

    /// What an acknowledgement is worth now, as Redis itself says.
    pub fn durability(&self) -> Durability {
        self.redis.durability()
    }

    /// Puts an event into the stream. Once this has returned [`Put::New`] the event is as durable as [`Queue::durability`] says.
    pub async fn put(&self, event: &Event, holder: Holder) -> Result<Put, Problem> {
        let link = self.link();
        let mut opened = link.open().await.map_err(|error| error.problem())?;
        let mut put = self.put.prepare_invoke();
        put.key(STREAM).key(STATE).key(PLACES);
        if let Some(dedup_id) = &event.dedup_id {
            put.key(dedup_key(event.organization_id, dedup_id));
        }
        put.arg(event.id.as_bytes().as_slice()).arg(entry(event)).arg(bytes_of(event));
        put.arg(self.settings.events_max).arg(self.settings.bytes_max).arg(self.window_ms()).arg(&*opened.run);
        put.arg(u8::from(holder == Holder::NotInStore));
        if let Some(followed) = &event.followed {
            put.arg(followed.traceparent().as_slice());
        }
        let answer = put.invoke_async(&mut opened.connection).await;
        let answer = link.judged(&opened, answer).map_err(|error| self.said_no(&error))?;
        self.note_refused(matches!(answer, Value::Int(1)));
        match answer {
            Value::Int(0) => Ok(Put::New),
            Value::Int(1) => Err(Problem::Full),
            Value::Int(_) => {
                self.incomplete.notify_one();
                Ok(Put::Unknown)
            }
            holder => uuid(&holder).map(Put::DuplicateOf).ok_or(Problem::Internal),
        }
    }

    /// An event that is in the stream, of whichever process.
    pub async fn find(&self, id: Uuid) -> Result<Option<Event>, Problem> {
        let mut find = self.find.prepare_invoke();
        find.key(STREAM).key(PLACES).arg(id.as_bytes().as_slice());
        let found: Option<Vec<u8>> = self.link().run(&find).await.map_err(|error| self.said_no(&error))?;
        Ok(found.and_then(|entry| read_entry(&entry)))
    }

    /// Takes cells of the rate limit that the organisation has over all processes: how many of those wanted there were, and if not all, why.
    /// Of a large limit some are taken ahead, so that not every request asks Redis. While that is away there are as many as wanted, for the limit
    /// of each process still holds.
    pub async fn take_cells(&self, organization: &Organization, wanted: usize) -> (usize, Option<Problem>) {
        let limiter = &organization.limiter;
        if limiter.per_minute() == 0 || limiter.use_ahead(wanted) {
            return (wanted, None);
        }
        let ahead = limiter.per_minute() as usize / CELLS_AHEAD_SHARE;
        let mut take = self.take_cells.prepare_invoke();
        take.key(format!("millrace:rate:{}", organization.id)).arg(limiter.per_minute()).arg(wanted + ahead);
        match self.link().run::<(usize, u64)>(&take).await {
            Ok((cells, wait_us)) if cells < wanted => (cells, Some(limiter.refusal(Duration::from_micros(wait_us)))),
            Ok((cells, _)) => {
                limiter.keep_ahead(cells - wanted);
                (wanted, None)
            }
            Err(_) => (wanted, None),
        }
    }

    /// Looks how much the stream holds, for the metrics and for [`Queue::unready`].
    pub async fn look(&self) {
        let link = self.link();
        let Ok(mut opened) = link.open().await else { return };
        let mut look = redis::pipe();
        look.cmd("XLEN").arg(STREAM).cmd("HGET").arg(STATE).arg("bytes");
        let looked = look.query_async::<(i64, Option<i64>)>(&mut opened.connection).await;
        if let Ok((events, bytes)) = link.judged(&opened, looked) {
            self.holds(events);
            self.bytes.store(if events == 0 { 0 } else { bytes.unwrap_or(0).max(0) }, Ordering::Relaxed);
        }
        self.metrics.pending_events.set(self.events.load(Ordering::Relaxed));
        self.metrics.pending_bytes.set(self.bytes.load(Ordering::Relaxed));
    }

    /// Why no event can be taken, as far as is known: see [`Queue::look`].
    pub fn unready(&self) -> Option<&'static str> {
        if self.redis.is_away() {
            return Some("queue-unavailable");
        }
        let is_full = self.events.load(Ordering::Relaxed) >= self.settings.events_max.cast_signed()
            // Bytes are never exactly at their bound: so the last event was refused, and the stream has not drained since.
            || (self.refused.load(Ordering::Relaxed) && self.bytes.load(Ordering::Relaxed) > self.settings.bytes_max.cast_signed() / 2);
        is_full.then_some("pending-full")
    }

    fn holds(&self, events: i64) {
        self.events.store(events, Ordering::Relaxed);
    }

    fn note_refused(&self, refused: bool) {
        if self.is_told.load(Ordering::Relaxed) {
            self.is_told.store(false, Ordering::Relaxed);
        }
        if refused != self.refused.load(Ordering::Relaxed) {
            self.refused.store(refused, Ordering::Relaxed);
        }
    }

    /// What the sender is told; the log is told the rest of what is no outage.
    fn said_no(&self, error: &QueueError) -> Problem {
        self.metrics.queue_errors.inc();
        if let QueueError::Refused(cause) = error
            && !self.is_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%cause, "Redis refuses what it is asked");
        }
        error.problem()
    }

    fn window_ms(&self) -> u64 {
        u64::try_from((self.settings.dedup_window + CLOCK_SLACK).as_millis()).unwrap_or(u64::MAX)
    }

    /// This thread's link.
    fn link(&self) -> Arc<Link> {
        LINK.with_borrow_mut(|link| match link {
            Some((redis, link)) if Arc::ptr_eq(redis, &self.redis) => Arc::clone(link),
            _ => {
                let new = Arc::new(Link::new(Arc::clone(&self.redis), self.settings.timeout));
                *link = Some((Arc::clone(&self.redis), Arc::clone(&new)));
                new
            }
        })
    }
}

fn dedup_key(organization_id: Uuid, dedup_id: &str) -> String {
    format!("millrace:dedup:{organization_id}:{dedup_id}")
}

fn uuid(value: &Value) -> Option<Uuid> {
    match value {
        Value::BulkString(bytes) => Uuid::from_slice(bytes).ok(),
        _ => None,
    }
}

/// An event as the stream has it: a checksum, then the event. What others put there, or a later version, is known by it.
fn entry(event: &Event) -> Vec<u8> {
    let mut entry = Vec::with_capacity(CHECKSUM_BYTES + event.bytes_len());
    entry.extend_from_slice(&[0; CHECKSUM_BYTES]);
    event.write_bytes(&mut entry);
    let checksum = crc32fast::hash(&entry[CHECKSUM_BYTES..]);
    entry[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    entry
}

fn read_entry(entry: &[u8]) -> Option<Event> {
    let (checksum, event) = entry.split_first_chunk()?;
    Event::from_bytes(event).filter(|_| crc32fast::hash(event) == u32::from_le_bytes(*checksum))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_nothing_else_is_one() {
        for dedup_id in [None, Some("ü")] {
            let event = Event {
                id: Uuid::now_v7(),
                organization_id: Uuid::now_v7(),
                event_type: "t".into(),
                dedup_id: dedup_id.map(Into::into),
                payload: Bytes::from_static(br#"{"a":1,"a":"\u0000"}"#),
                created_at_us: -1,
                followed: None,
            };
            let entry = entry(&event);
            assert_eq!(read_entry(&entry), Some(event));
            for at in 0..entry.len() {
                let mut changed = entry.clone();
                changed[at] ^= 1;
                assert_eq!(read_entry(&changed), None, "byte {at}");
                assert_eq!(read_entry(&entry[..at]), None, "cut at {at}");
            }
        }
        assert_eq!(read_entry(b""), None);
    }
}
