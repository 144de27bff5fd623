//! Faults on purpose (`--fault`, off by default): a server that lies in known ways, so that tests can compare what a harness says with
//! what is true, and slows down by known amounts, so that they can see whether a change for the worse is noticed.
//!
//! Which events are hit follows from the event and `--fault-seed` ([`hits`]), how long a request is held from its place in the order
//! of arrival ([`door`]). Faults are about the two ingestion routes and the database behind them; all others answer as ever, `/readyz` too.
//! No result of such a server can be taken for one of a real one: each answer of a route carries [`HEADER`], `ingest_build_info`
//! the label `faults`, `ingest_faults_injected` counts what was done, and the log begins with a warning.
//!
//! One event can be hit by several faults. A refusal (`status`, then `close-before`) leaves nothing to the others; what is dropped is
//! neither doubled nor corrupted; of an event that is both doubled and corrupted the copy is as it was sent.
//!
//! Not here: where in a request's way each fault is asked for (that is [`crate::ingest`]'s).

mod chance;
mod cpu;
pub mod door;
mod hold;
mod payload;
pub mod spec;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Response, StatusCode};
use uuid::Uuid;

use crate::event::Event;
use crate::metrics::{FaultLabel, Metrics};
use crate::problem::Problem;

pub use chance::hits;
use door::Door;
use hold::Hold;
use spec::{Cpu, Fault, Kind, Part};

/// Names the faults on every answer of a route.
pub const HEADER: HeaderName = HeaderName::from_static("millrace-faults");

/// What a faulty server is asked on a request's way.
#[derive(Debug)]
pub struct Faults {
    text: HeaderValue,
    seed: u64,
    metrics: Arc<Metrics>,
    hold: Hold,
    door: Option<Mutex<Entrance>>,
    cpu: Option<Cpu>,
    /// By name, of the faults that hit a share of the events.
    shares: BTreeMap<&'static str, f64>,
    status: StatusCode,
    ack_delay: Duration,
    memory_bytes: usize,
    memory: Mutex<Vec<Box<[u8]>>>,
}

#[derive(Debug)]
struct Entrance {
    door: Door,
    first_arrival: Option<Instant>,
}

/// What is kept in place of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// It, or something like it.
    One(Arc<Event>),
    /// It, and a copy.
    Two(Arc<Event>, Arc<Event>),
    /// Nothing, and nobody is told.
    Nothing,
}

/// The connection is to be closed without an answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a fault on purpose: closed without an answer")]
pub struct HungUp;

/// All faults as one text: `drop=0.01;queue=one`.
pub fn text(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(";")
}

/// How many queries more than needed each poll makes.
pub fn poll_queries(faults: &[Fault]) -> u32 {
    faults.iter().map(|fault| if let Kind::PollQuery { queries } = fault.kind { queries } else { 0 }).sum()
}

/// How many commits more than needed follow each batch of events.
pub fn store_commits(faults: &[Fault]) -> u32 {
    faults.iter().map(|fault| if let Kind::StoreCommit { commits } = fault.kind { commits } else { 0 }).sum()
}

/// How many times more than needed the journal writes and syncs each batch.
pub fn journal_syncs(faults: &[Fault]) -> u32 {
    faults.iter().map(|fault| if let Kind::JournalSync { syncs } = fault.kind { syncs } else { 0 }).sum()
}

/// Whether a part is to panic as soon as it has something to do.
pub fn panics(faults: &[Fault], part: Part) -> bool {
    faults.iter().any(|fault| fault.kind == Kind::Panic(part))
}

/// Whether commits are not to be durable.
pub fn keeps_store_unsynced(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| fault.kind == Kind::StoreSyncOff)
}

/// The shares of events that are dropped and doubled on the way to their webhooks, 0..=1.
pub fn webhook_shares(faults: &[Fault]) -> (f64, f64) {
    let share = |name| faults.iter().find(|fault| fault.kind.name() == name).and_then(|fault| fault.kind.share());
    (share("webhook-drop").unwrap_or(0.0), share("webhook-duplicate").unwrap_or(0.0))
}

/// What an event is told apart by, for [`hits`]: its `dedup_id`, or without one its payload.
pub fn identity<'a>(dedup_id: Option<&'a str>, payload: &'a [u8]) -> &'a [u8] {
    dedup_id.map_or(payload, str::as_bytes)
}

impl Faults {
    /// `None` when there are none. Says so in the log when there are.
    pub fn start(faults: &[Fault], seed: u64, metrics: Arc<Metrics>) -> io::Result<Option<Self>> {
        if faults.is_empty() {
            return Ok(None);
        }
        let text = text(faults);
        tracing::warn!(
            faults = text,
            seed,
            "FAULTS ARE INJECTED: this server lies and delays on purpose; what is measured with it says nothing about a real one"
        );
        let kinds = || faults.iter().map(|fault| fault.kind);
        let mut started = Self {
            text: HeaderValue::from_str(&text).map_err(io::Error::other)?,
            seed,
            metrics,
            hold: Hold::start()?,
            door: Door::new(kinds(), seed).map(|door| Mutex::new(Entrance { door, first_arrival: None })),
            cpu: None,
            shares: kinds().filter_map(|kind| Some((kind.name(), kind.share()?))).collect(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            ack_delay: Duration::ZERO,
            memory_bytes: 0,
            memory: Mutex::default(),
        };
        for kind in kinds() {
            match kind {
                Kind::Status { status, .. } => started.status = status,
                Kind::AckDelay { delay, .. } => started.ack_delay = delay,
                Kind::Cpu(cpu) => started.cpu = Some(cpu),
                Kind::Memory { bytes } => started.memory_bytes = bytes,
                Kind::Ballast { bytes } => started.memory = Mutex::new(vec![held(bytes)]),
                _ => {}
            }
        }
        Ok(Some(started))
    }

    /// Holds an event request that arrived then until it may be worked on, and burns processor time for it.
    pub async fn admit(&self, arrived: Instant) -> Result<(), Problem> {
        if let Some(door) = &self.door {
            let entered = door.lock().unwrap_or_else(PoisonError::into_inner).enter(arrived);
            match entered {
                Some(until) => self.hold.until(until).await,
                None => {
                    self.count("throttle");
                    return Err(Problem::Injected(StatusCode::TOO_MANY_REQUESTS));
                }
            }
        }
        if let Some(cpu) = self.cpu {
            cpu::burn(cpu);
        }
        Ok(())
    }

    /// Whether this event is not even taken.
    pub fn refuse(&self, identity: &[u8]) -> Result<(), Problem> {
        if self.is_hit("status", identity) {
            return Err(Problem::Injected(self.status));
        }
        if self.is_hit("close-before", identity) { Err(Problem::HungUp) } else { Ok(()) }
    }

    /// What to keep of an event that is taken.
    pub fn kept(&self, event: Arc<Event>) -> Kept {
        if self.memory_bytes > 0 {
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).push(held(self.memory_bytes));
        }
        let hit = |name| self.is_hit(name, identity(event.dedup_id.as_deref(), &event.payload));
        if hit("drop") {
            return Kept::Nothing;
        }
        // Without the dedup_id, which the store would not take twice.
        let copy =
            hit("duplicate").then(|| Arc::new(Event { id: Uuid::now_v7(), dedup_id: None, ..Event::clone(&event) }));
        let original = match hit("corrupt") {
            true => Arc::new(Event { payload: payload::corrupted(&event.payload), ..Event::clone(&event) }),
            false => event,
        };
        match copy {
            Some(copy) => Kept::Two(original, copy),
            None => Kept::One(original),
        }
    }

    /// What happens between taking an event and saying so.
    pub async fn acknowledge(&self, identity: &[u8]) -> Result<(), Problem> {
        if self.is_hit("ack-delay", identity) {
            self.hold.until(Instant::now() + self.ack_delay).await;
        }
        if self.is_hit("close-after", identity) { Err(Problem::HungUp) } else { Ok(()) }
    }

    /// Marks an answer, or says that there is to be none.
    pub fn mark<B>(&self, answer: &mut Response<B>) -> Result<(), HungUp> {
        if answer.status() == Problem::HungUp.status() {
            return Err(HungUp);
        }
        answer.headers_mut().insert(HEADER, self.text.clone());
        Ok(())
    }

    /// Decides, and counts a hit.
    fn is_hit(&self, name: &'static str, identity: &[u8]) -> bool {
        let hit = self.shares.get(name).is_some_and(|share| hits(self.seed, name, *share, identity));
        if hit {
            self.count(name);
        }
        hit
    }

    fn count(&self, fault: &'static str) {
        self.metrics.faults_injected.get_or_create(&FaultLabel { fault }).inc();
    }
}

/// Memory that is in use: written to, or the system would not give it.
fn held(bytes: usize) -> Box<[u8]> {
    vec![1; bytes].into_boxed_slice()
}

impl Entrance {
    fn enter(&mut self, arrived: Instant) -> Option<Instant> {
        let first = *self.first_arrival.get_or_insert(arrived);
        // Of two that come at once on two threads the second may be the first one here.
        let after_ns = u64::try_from(arrived.saturating_duration_since(first).as_nanos()).unwrap_or(u64::MAX);
        self.door.enter(after_ns).map(|until_ns| first + Duration::from_nanos(until_ns))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::metrics::BuildInfo;

    fn start(faults: &str) -> Faults {
        let list: spec::FaultList = faults.parse().expect(faults);
        let metrics = Arc::new(Metrics::new(&BuildInfo::default()));
        Faults::start(&list.0, 1, metrics).expect("it starts").expect("there are faults")
    }

    fn event() -> Arc<Event> {
        Arc::new(Event {
            id: Uuid::from_u128(1),
            organization_id: Uuid::from_u128(2),
            event_type: "t".into(),
            dedup_id: Some("d".into()),
            payload: Bytes::from_static(br#"{"a":"b"}"#),
            created_at_us: 3,
            followed: None,
        })
    }

    #[test]
    fn no_fault_at_all_is_none() {
        let metrics = Arc::new(Metrics::new(&BuildInfo::default()));
        assert!(Faults::start(&[], 1, metrics).expect("it starts").is_none());
    }

    #[test]
    fn the_faults_of_keeping_do_what_they_say_and_go_together_as_they_say() {
        assert_eq!(start("cpu=1us").kept(event()), Kept::One(event()));
        assert_eq!(start("drop=1,duplicate=1,corrupt=1").kept(event()), Kept::Nothing);
        let Kept::One(corrupted) = start("corrupt=1").kept(event()) else { panic!("one is kept") };
        assert_eq!(*corrupted, Event { payload: corrupted.payload.clone(), ..Event::clone(&event()) });
        assert_ne!(corrupted.payload, event().payload);
        let Kept::Two(original, copy) = start("duplicate=1,corrupt=1").kept(event()) else { panic!("two are kept") };
        assert_eq!(original, corrupted);
        assert_eq!(*copy, Event { id: copy.id, dedup_id: None, ..Event::clone(&event()) });
        assert_ne!(copy.id, event().id);
    }

    #[test]
    fn a_refusal_is_the_first_that_hits_and_is_counted() {
        for (faults, refused) in [
            ("status=502:1,close-before=1", Err(Problem::Injected(StatusCode::BAD_GATEWAY))),
            ("close-before=1", Err(Problem::HungUp)),
            ("close-before=0,close-after=1", Ok(())),
        ] {
            assert_eq!(start(faults).refuse(b"d"), refused, "{faults}");
        }
        let faults = start("status=502:1");
        let _ = (faults.refuse(b"d"), faults.refuse(b"e"));
        assert!(faults.metrics.encode().contains("ingest_faults_injected_total{fault=\"status\"} 2"));
    }

    #[test]
    fn memory_is_held_from_the_start_and_for_each_event() {
        let faults = start("memory=3KiB,ballast=5KiB");
        let held = || faults.memory.lock().expect("the lock").iter().map(|held| held.len()).sum::<usize>();
        assert_eq!(held(), 5 * 1024);
        (0..4).for_each(|_| drop(faults.kept(event())));
        assert_eq!(held(), (5 + 4 * 3) * 1024);
    }

    #[tokio::test]
    async fn an_acknowledgement_is_late_by_the_delay_or_does_not_come() {
        let begin = Instant::now();
        assert_eq!(start("ack-delay=20ms:1").acknowledge(b"d").await, Ok(()));
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert_eq!(start("ack-delay=20ms:0,close-after=1").acknowledge(b"d").await, Err(Problem::HungUp));
    }

    #[tokio::test]
    async fn a_request_is_held_from_its_arrival_and_one_too_many_is_refused() {
        let faults = start("service-time=constant:20ms,throttle=1/s");
        let arrived = Instant::now();
        assert_eq!(faults.admit(arrived).await, Ok(()));
        assert!(arrived.elapsed() >= Duration::from_millis(20));
        assert_eq!(faults.admit(arrived).await, Err(Problem::Injected(StatusCode::TOO_MANY_REQUESTS)));
    }
}
