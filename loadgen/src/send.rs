//! The send loop: for each time of the schedule, wait until it, take a free connection, send, record.
//!
//! One loop for every load model: the schedule says when an event is due, the loop never asks how the server is doing. An event that
//! finds all connections busy waits, and its response time counts from when it was due; one that waits longer than the request
//! timeout is recorded as not sent. Runs on a thread of its own with a single-threaded runtime.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reports::histogram::TimeHistogram;
use serde::Deserialize;
use tokio::task::{LocalSet, spawn_local, yield_now};
use uuid::Uuid;

use crate::clock::Clock;
use crate::connection::{Answer, Connection, Exchange, ExchangeError};
use crate::observe::process::ThreadUsage;
use crate::pace::Pacer;
use crate::payload::Payloads;
use crate::pool::Pool;
use crate::recorder::{Sample, SampleOutcome, Samples};
use crate::schedule::{Due, Schedule};

/// Acknowledged events that a deliberate repeat is chosen from.
const REPEAT_WINDOW: usize = 1_024;

/// What to send, where and when.
#[derive(Debug)]
pub struct Load {
    /// The run's clock.
    pub clock: Clock,
    /// When each event is due.
    pub schedule: Schedule,
    /// The events.
    pub payloads: Payloads,
    /// Where they go.
    pub destination: Destination,
    /// Connections.
    pub connections: usize,
    /// See [`reports::model::Plan::request_timeout_ms`].
    pub request_timeout: Duration,
    /// Share of events that repeat an acknowledged one, 0..=1.
    pub duplicates_share: f64,
    /// Seed of the choice of repeats.
    pub seed: u64,
    /// Set from outside to end early.
    pub stop: Arc<AtomicBool>,
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Resolved address.
    pub address: SocketAddr,
    /// `Host` of the target's URL.
    pub host: HeaderValue,
    /// Path of the ingestion route.
    pub path: Uri,
    /// `Bearer KEY`, one per organisation; events go round.
    pub authorizations: Vec<HeaderValue>,
}

/// What the sending thread itself can tell after a load.
#[derive(Debug)]
pub struct Sent {
    /// Times to open a connection.
    pub connect_time: TimeHistogram,
    /// Connections opened again.
    pub reconnects: u64,
    /// What the acknowledgements claim to be worth, when they say so.
    pub durability: Option<String>,
    /// Events taken from the schedule.
    pub planned: u64,
    /// What the machine did to the sending thread from the first to the last event.
    pub thread: ThreadUsage,
}

impl Load {
    /// Sends it all on this thread; `begin` is told the instant from which the schedule counts, once every connection is open, and
    /// says where samples go.
    pub fn run(self, begin: impl FnOnce(u64) -> io::Result<Samples>) -> io::Result<Sent> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.send_all(begin))
    }

    async fn send_all(mut self, begin: impl FnOnce(u64) -> io::Result<Samples>) -> io::Result<Sent> {
        let timeout_ns = self.request_timeout.as_nanos() as u64;
        let pacer = Pacer::new(self.clock)?;
        let pool = Pool::open(self.destination.address, self.connections, self.clock).await?;
        let mut events = Events::new(&self);
        let begin_ns = self.clock.now_ns();
        let end_ns = begin_ns + self.schedule.length_ns();
        let log = Rc::new(Log::new(begin(begin_ns)?));
        let usage = ThreadUsage::own();

        for due in self.schedule.by_ref() {
            if let Due::At(offset_ns) = due {
                pacer.until(begin_ns + offset_ns).await?;
            }
            let deadline_ns = if let Due::At(offset_ns) = due { begin_ns + offset_ns + timeout_ns } else { end_ns };
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let connection = pool.take(deadline_ns).await;
            let intended_ns = match due {
                Due::At(offset_ns) => begin_ns + offset_ns,
                Due::WhenFree if self.clock.now_ns() >= end_ns => break,
                Due::WhenFree => self.clock.now_ns(),
            };
            let event = events.next(&log);
            match connection {
                Some(connection) => {
                    spawn_local(carry(
                        Rc::clone(&pool),
                        connection,
                        event,
                        intended_ns,
                        self.request_timeout,
                        Rc::clone(&log),
                    ));
                }
                None => log.push(event.not_sent(intended_ns, self.clock.now_ns())),
            }
            // Lets the request be written before the next one is looked at, also when the schedule is behind.
            yield_now().await;
        }
        pool.all_free(self.clock.now_ns() + 2 * timeout_ns).await;
        Ok(log.sent(&pool, events.sequence, ThreadUsage::own().since(usage)))
    }
}

/// Carries one event over one connection, and puts what came of it into the log.
async fn carry(
    pool: Rc<Pool>,
    mut connection: Connection,
    event: Event,
    intended_ns: u64,
    patience: Duration,
    log: Rc<Log>,
) {
    let sendable_ns = connection.free_since_ns.max(intended_ns);
    let Event { sequence, repeat, request } = event;
    let exchange = connection.exchange(request, pool.clock(), patience).await;
    let whole = exchange.answer.is_ok();
    let Exchange { sent_ns, done_ns, answer } = exchange;
    let outcome = log.judge(answer, sequence);
    log.push(Sample { sequence, intended_ns, sendable_ns, sent_ns, done_ns, repeat, outcome });
    if whole { pool.give_back(connection).await } else { pool.discard(connection) }
}

/// One event, ready to go.
struct Event {
    sequence: u64,
    repeat: bool,
    request: Request<Full<Bytes>>,
}

impl Event {
    fn not_sent(self, intended_ns: u64, now_ns: u64) -> Sample {
        let (sequence, repeat, outcome) = (self.sequence, self.repeat, SampleOutcome::NotSent);
        Sample { sequence, intended_ns, sendable_ns: now_ns, sent_ns: None, done_ns: now_ns, repeat, outcome }
    }
}

/// Makes the events, in order, with a repeat now and then.
struct Events {
    payloads: Payloads,
    destination: Destination,
    duplicates_share: f64,
    random: ChaCha8Rng,
    sequence: u64,
}

impl Events {
    fn new(load: &Load) -> Self {
        Self {
            payloads: load.payloads.clone(),
            destination: load.destination.clone(),
            duplicates_share: load.duplicates_share,
            random: ChaCha8Rng::seed_from_u64(load.seed),
            sequence: 0,
        }
    }

    /// A repeat takes a number of its own in the plan, but carries the acknowledged event's `dedup_id`, payload and key.
    fn next(&mut self, log: &Log) -> Event {
        let repeated = (self.duplicates_share > 0.0 && self.random.random_bool(self.duplicates_share))
            .then(|| log.any_acknowledged(&mut self.random))
            .flatten();
        let sequence = repeated.unwrap_or(self.sequence);
        self.sequence += 1;
        Event { sequence, repeat: repeated.is_some(), request: self.request(sequence) }
    }

    fn request(&mut self, sequence: u64) -> Request<Full<Bytes>> {
        let Destination { host, path, authorizations, .. } = &self.destination;
        let mut request = Request::new(Full::new(self.payloads.body(sequence)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !authorizations.is_empty() {
            headers.insert(AUTHORIZATION, authorizations[sequence as usize % authorizations.len()].clone());
        }
        request
    }
}

/// What the tasks of the sending thread write down.
struct Log {
    samples: RefCell<Samples>,
    acknowledged: RefCell<Vec<u64>>,
    durability: RefCell<Option<String>>,
}

/// The parts of an acknowledgement that are looked at.
#[derive(Deserialize)]
struct Acknowledgement<'a> {
    #[serde(borrow)]
    id: Option<&'a str>,
    #[serde(borrow)]
    durability: Option<&'a str>,
}

impl Log {
    fn new(samples: Samples) -> Self {
        Self {
            samples: RefCell::new(samples),
            acknowledged: RefCell::new(Vec::with_capacity(REPEAT_WINDOW)),
            durability: RefCell::new(None),
        }
    }

    fn push(&self, sample: Sample) {
        self.samples.borrow_mut().push(sample);
    }

    fn judge(&self, answer: Result<Answer, ExchangeError>, sequence: u64) -> SampleOutcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(ExchangeError::TimedOut) => return SampleOutcome::TimedOut,
            Err(ExchangeError::Closed) => {
                return SampleOutcome::Failed { error: "connection closed before the whole answer" };
            }
            Err(ExchangeError::NotHttp) => return SampleOutcome::Failed { error: "answer is not HTTP/1.1" },
            Err(ExchangeError::BodyTooLong) => {
                return SampleOutcome::Failed { error: "answer's body is longer than 64 KiB" };
            }
        };
        let status = answer.status.as_u16();
        match status {
            200..300 => SampleOutcome::Accepted { status, id: self.acknowledgement(&answer.body, sequence) },
            400..500 => SampleOutcome::Rejected { status },
            _ => SampleOutcome::FailedStatus { status },
        }
    }

    fn acknowledgement(&self, body: &[u8], sequence: u64) -> Option<Uuid> {
        let mut acknowledged = self.acknowledged.borrow_mut();
        if acknowledged.len() < REPEAT_WINDOW {
            acknowledged.push(sequence);
        } else {
            acknowledged[sequence as usize % REPEAT_WINDOW] = sequence;
        }
        let acknowledgement: Acknowledgement<'_> = serde_json::from_slice(body).ok()?;
        let mut durability = self.durability.borrow_mut();
        if durability.is_none() {
            *durability = acknowledgement.durability.map(str::to_owned);
        }
        acknowledgement.id?.parse().ok()
    }

    fn any_acknowledged(&self, random: &mut ChaCha8Rng) -> Option<u64> {
        let acknowledged = self.acknowledged.borrow();
        (!acknowledged.is_empty()).then(|| acknowledged[random.random_range(0..acknowledged.len())])
    }

    fn sent(&self, pool: &Pool, planned: u64, thread: ThreadUsage) -> Sent {
        Sent {
            connect_time: pool.connect_time(),
            reconnects: pool.reconnects(),
            durability: self.durability.take(),
            planned,
            thread,
        }
    }
}
