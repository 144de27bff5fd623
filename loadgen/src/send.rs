//! The send loop: for each time of the schedule, wait until it, take a free connection, send; read what comes back; record.
//!
//! One loop for every load model: the schedule says when a request is due, the loop never asks how the server is doing. A request that
//! finds all connections busy waits, and its response time counts from when it was due; one that waits longer than the request
//! timeout is recorded as not sent. Runs on a thread of its own, without a runtime: nothing but the kernel is between two sends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reports::histogram::TimeHistogram;
use reports::model::Operation;
use serde::Deserialize;

use crate::clock::Clock;
use crate::connection::{Destination, Done};
use crate::dialect::{Dialect, id_of, is_digest};
use crate::exchange::{Answer, ExchangeError};
use crate::pace::{Pacer, Pacing};
use crate::pool::Pool;
use crate::priority::Priority;
use crate::recorder::{Sample, SampleOutcome, Samples};
use crate::requests::{Next, Recent, Requests};
use crate::schedule::{Due, Schedule};
use crate::shard::Share;

/// The loop looks this often at least whether it is to stop.
const LOOK_UP: Duration = Duration::from_millis(100);
/// The loop begins this long before the first event that is due at a given time: what it waits for until then is no sign of idleness.
const BEGIN_AHEAD: Duration = Duration::from_millis(10);

/// What to send, where and when.
#[derive(Debug)]
pub struct Load {
    /// The run's clock.
    pub clock: Clock,
    /// When each request is due.
    pub schedule: Schedule,
    /// Which of them are sent here.
    pub share: Share,
    /// From when the schedule counts, ns of the clock; `None`: from when every connection is open.
    pub begin_at_ns: Option<u64>,
    /// The requests.
    pub requests: Requests,
    /// Where they go.
    pub destination: Destination,
    /// Connections.
    pub connections: usize,
    /// How to wait for what is due.
    pub pacing: Pacing,
    /// How soon this thread gets a processor while it sends.
    pub priority: Priority,
    /// See [`reports::model::Plan::request_timeout_ms`].
    pub request_timeout: Duration,
    /// Set from outside to end early.
    pub stop: Arc<AtomicBool>,
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
    /// Sequence numbers given to events.
    pub planned: u64,
    /// Share of the time from the first to the last event in which the thread had something to do, 0..=1: neither slept nor spun for nothing.
    pub busy_share: f64,
}

/// A request on its way.
#[derive(Debug)]
struct Flight {
    operation: Operation,
    sequence: u64,
    request: u64,
    events: u32,
    repeat: bool,
    intended_ns: u64,
    sendable_ns: u64,
}

impl Load {
    /// Sends it all on this thread; `begin` is told the instant from which the schedule counts, once every connection is open, and
    /// says where samples go.
    pub fn run(self, begin: impl FnOnce(u64) -> io::Result<Samples>) -> io::Result<Sent> {
        let dialect = Arc::clone(&self.destination.dialect);
        let pool = Pool::open(self.destination.clone(), self.connections, self.clock)?;
        let begin_ns = self.wait_for_begin()?;
        let samples = begin(begin_ns)?;
        // After `begin`, whose threads would have it too.
        self.priority.take()?;
        let log = Log { dialect, samples, recent: Recent::default(), durability: None, durability_known: false };
        let mut sending = Sending {
            clock: self.clock,
            begin_ns,
            end_ns: begin_ns + self.schedule.length_ns(),
            timeout_ns: self.request_timeout.as_nanos() as u64,
            schedule: self.schedule,
            share: self.share,
            due: None,
            requests: self.requests,
            pool,
            pacer: Pacer::new(self.pacing),
            log,
            idle_ns: 0,
        };
        sending.send_all(&self.stop)?;
        Ok(sending.sent())
    }

    /// The instant from which the schedule counts.
    fn wait_for_begin(&self) -> io::Result<u64> {
        let now_ns = self.clock.now_ns();
        let begin_ns = self.begin_at_ns.unwrap_or(now_ns);
        if begin_ns < now_ns {
            let late = Duration::from_nanos(now_ns - begin_ns);
            let told = format!("they were open {late:.1?} too late for --start-at; give a later time");
            return Err(io::Error::new(io::ErrorKind::TimedOut, told));
        }
        while !self.stop.load(Ordering::Relaxed) {
            let left = Duration::from_nanos(begin_ns.saturating_sub(self.clock.now_ns())).saturating_sub(BEGIN_AHEAD);
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK_UP));
        }
        Ok(begin_ns)
    }
}

struct Sending {
    clock: Clock,
    begin_ns: u64,
    end_ns: u64,
    timeout_ns: u64,
    schedule: Schedule,
    share: Share,
    /// What is to be sent next.
    due: Option<Due>,
    requests: Requests,
    pool: Pool<Flight>,
    pacer: Pacer,
    log: Log,
    idle_ns: u64,
}

impl Sending {
    fn send_all(&mut self, stop: &AtomicBool) -> io::Result<()> {
        self.due = self.next_due();
        while (self.due.is_some() && !stop.load(Ordering::Relaxed)) || self.pool.flights() > 0 {
            if stop.load(Ordering::Relaxed) {
                self.due = None;
            }
            self.send_due();
            self.wait()?;
            while self.pool.next(&mut |done| self.log.enter(done)) {
                // Between two answers, not after all of them: what is due does not wait for what is done.
                self.send_due();
            }
            self.pool.turn(&mut |done| self.log.enter(done));
        }
        Ok(())
    }

    /// Sends everything that is due and finds a free connection.
    fn send_due(&mut self) {
        while let Some(due) = self.due {
            let now_ns = self.clock.now_ns();
            let intended_ns = match due {
                Due::At(offset_ns) if self.begin_ns + offset_ns > now_ns => return,
                Due::At(offset_ns) => self.begin_ns + offset_ns,
                Due::WhenFree if now_ns >= self.end_ns => {
                    self.due = None;
                    return;
                }
                Due::WhenFree => now_ns,
            };
            match self.pool.free_since_ns() {
                Some(free_since_ns) => self.send(intended_ns, free_since_ns.max(intended_ns)),
                None if now_ns > intended_ns + self.timeout_ns => self.leave_unsent(intended_ns, now_ns),
                None => return,
            }
            self.due = self.next_due();
        }
    }

    /// The next one that is sent here.
    fn next_due(&mut self) -> Option<Due> {
        loop {
            let due = self.schedule.next()?;
            if self.share.takes_next() {
                return Some(due);
            }
            self.requests.pass_over();
        }
    }

    fn send(&mut self, intended_ns: u64, sendable_ns: u64) {
        let Next { request, operation, sequence, number, events, repeat } =
            self.requests.next(&self.log.recent, intended_ns);
        let flight = Flight { operation, sequence, request: number, events, repeat, intended_ns, sendable_ns };
        if let Err((flight, error)) = self.pool.send(&request, self.timeout_ns, flight) {
            let now_ns = self.clock.now_ns();
            self.log.enter(Done { flight, sent_ns: now_ns, done_ns: now_ns, answer: Err(error) });
        }
    }

    fn leave_unsent(&mut self, intended_ns: u64, now_ns: u64) {
        let Next { operation, sequence, number, repeat, .. } = self.requests.next(&self.log.recent, intended_ns);
        self.log.samples.push(Sample {
            operation,
            sequence,
            request: number,
            intended_ns,
            sendable_ns: now_ns,
            sent_ns: None,
            done_ns: now_ns,
            repeat,
            outcome: SampleOutcome::NotSent,
        });
    }

    /// Waits until a socket is ready, something is due and could be sent, or a timeout has passed.
    fn wait(&mut self) -> io::Result<()> {
        let free = self.pool.free_since_ns().is_some();
        let due_ns = match self.due {
            Some(Due::At(offset_ns)) if free => Some(self.begin_ns + offset_ns),
            // It will not wait for ever.
            Some(Due::At(offset_ns)) => Some(self.begin_ns + offset_ns + self.timeout_ns + 1),
            Some(Due::WhenFree) | None => None,
        };
        let now_ns = self.clock.now_ns();
        let left_ns = |at_ns: u64| at_ns.saturating_sub(now_ns);
        let sleep = due_ns.map_or(LOOK_UP, |due_ns| self.pacer.sleep(left_ns(due_ns)).min(LOOK_UP));
        let turn = self.pool.next_turn_ns().map_or(LOOK_UP, |turn_ns| Duration::from_nanos(left_ns(turn_ns)));
        let limit = if self.pool.has_news() { Duration::ZERO } else { sleep.min(turn) };
        self.pool.wait(Some(limit))?;
        let woke_ns = self.clock.now_ns();
        if !self.pool.has_news() {
            self.idle_ns += woke_ns - now_ns;
            if !limit.is_zero() && limit < LOOK_UP {
                self.pacer.woke_late_by(woke_ns.saturating_sub(now_ns + limit.as_nanos() as u64));
            }
        } else if !limit.is_zero() {
            self.idle_ns += woke_ns - now_ns;
        }
        Ok(())
    }

    fn sent(self) -> Sent {
        let length_ns = self.clock.now_ns() - self.begin_ns;
        Sent {
            connect_time: self.pool.connect_time().clone(),
            reconnects: self.pool.reconnects(),
            durability: self.log.durability,
            planned: self.requests.sequences(),
            busy_share: 1.0 - (self.idle_ns as f64 / length_ns.max(1) as f64).min(1.0),
        }
    }
}

/// What the loop writes down.
struct Log {
    dialect: Arc<Dialect>,
    samples: Samples,
    recent: Recent,
    durability: Option<String>,
    durability_known: bool,
}

/// An item of the answer to a batch.
#[derive(Deserialize)]
struct Item<'a> {
    status: u16,
    #[serde(borrow)]
    id: Option<&'a str>,
}

#[derive(Deserialize)]
struct Items<'a> {
    #[serde(borrow)]
    results: Vec<Item<'a>>,
}

impl Log {
    fn enter(&mut self, done: Done<'_, Flight>) {
        let Done { flight, sent_ns, done_ns, answer } = done;
        let outcome = self.judge(answer, &flight, done_ns);
        let Flight { operation, sequence, request, repeat, intended_ns, sendable_ns, .. } = flight;
        let sent_ns = Some(sent_ns);
        let sample =
            Sample { operation, sequence, request, intended_ns, sendable_ns, sent_ns, done_ns, repeat, outcome };
        self.samples.push(sample);
    }

    fn judge(&mut self, answer: Result<Answer<'_>, ExchangeError>, flight: &Flight, done_ns: u64) -> SampleOutcome {
        let Answer { status, body } = match answer {
            Ok(answer) => answer,
            Err(ExchangeError::TimedOut) => return SampleOutcome::TimedOut,
            Err(error) => return SampleOutcome::Failed { error: error.reason() },
        };
        let ingest = &self.dialect.ingest;
        match status {
            _ if flight.repeat && ingest.duplicate_statuses.contains(status) => SampleOutcome::Known { status },
            200..300 => match flight.operation {
                Operation::Ingest => self.acknowledgement(status, body, flight.sequence, done_ns),
                Operation::Batch => self.batch(status, body, flight, done_ns),
                Operation::Inbox | Operation::Ack => SampleOutcome::Accepted { status, id: None },
            },
            400..500 => SampleOutcome::Rejected { status },
            _ => SampleOutcome::FailedStatus { status },
        }
    }

    /// A status alone acknowledges nothing: what the answer says is looked at.
    fn acknowledgement(&mut self, status: u16, body: &[u8], sequence: u64, done_ns: u64) -> SampleOutcome {
        let ingest = &self.dialect.ingest;
        let id = match ingest.acknowledgement(status, body) {
            Ok(id) => id,
            Err(problem) => return SampleOutcome::NotAcknowledged { status, problem },
        };
        if !self.durability_known {
            // Once: all answers of one target say the same.
            (self.durability, self.durability_known) = (ingest.durability(body), true);
        }
        self.recent.acknowledged(sequence, id.filter(|id| !is_digest(*id)), done_ns);
        SampleOutcome::Accepted { status, id }
    }

    /// Each item of a batch is acknowledged by itself.
    fn batch(&mut self, status: u16, body: &[u8], flight: &Flight, done_ns: u64) -> SampleOutcome {
        let Ok(Items { results }) = serde_json::from_slice(body) else {
            return SampleOutcome::Failed { error: "answer to a batch does not have a result for each event" };
        };
        if results.len() != flight.events as usize {
            return SampleOutcome::Failed { error: "answer to a batch does not have a result for each event" };
        }
        let accepted = results.iter().zip(flight.sequence..).filter(|(item, _)| (200..300).contains(&item.status));
        let acknowledged: Box<[_]> = accepted.map(|(item, sequence)| (sequence, item.id.map(id_of))).collect();
        // Only the first one belongs to the organisation that its number says: a repeat or an ack of another would name the wrong one.
        if let Some(&(sequence, id)) = acknowledged.first().filter(|(sequence, _)| *sequence == flight.sequence) {
            self.recent.acknowledged(sequence, id.filter(|id| !is_digest(*id)), done_ns);
        }
        SampleOutcome::Batch { status, refused: flight.events - acknowledged.len() as u32, acknowledged }
    }
}
