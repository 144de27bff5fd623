//! A load that somebody else ends: the send loop of every other command, with a switch.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reports::model::{Plan, SENDING_THREAD};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::connection::Destination;
use crate::payload::Payloads;
use crate::priority::Priority;
use crate::recorder::{self, Acknowledged, Recorder, Recording, Snapshot};
use crate::requests::{Mix, Requests};
use crate::schedule::{Schedule, ScheduleSpec};
use crate::send::{Load, Sent};
use crate::shard::Share;

/// A load under way.
#[derive(Debug)]
pub struct Underway {
    sending: JoinHandle<io::Result<Sent>>,
    recording: JoinHandle<Recording>,
    stop: Arc<AtomicBool>,
    sent_ns: Arc<Mutex<HashMap<u64, u64>>>,
    /// When it began, ns of the clock.
    pub begin_ns: u64,
}

/// What it left.
#[derive(Debug)]
pub struct Loaded {
    /// What was acknowledged.
    pub acknowledged: Vec<Acknowledged>,
    /// When each of these was sent, ns of the clock, by sequence number.
    pub sent_ns: HashMap<u64, u64>,
    /// Sequence numbers used.
    pub planned: u64,
    /// What the acknowledgements claim to be worth.
    pub durability: Option<String>,
}

/// Begins to send `payloads` to `destination` as `plan` says; goes on until it is ended, and no longer than the plan's steady phase.
pub async fn begin(
    plan: &Plan,
    destination: &Destination,
    payloads: &Payloads,
    seed: u64,
    clock: Clock,
    snapshot: &Arc<Mutex<Snapshot>>,
) -> io::Result<Underway> {
    let stop = Arc::new(AtomicBool::new(false));
    let load = Load {
        clock,
        schedule: Schedule::new(&ScheduleSpec::of(plan, None), seed),
        requests: Requests::new(destination, payloads.clone(), Mix::of(plan), 0.0, seed),
        destination: destination.clone(),
        share: Share::whole(),
        begin_at_ns: None,
        connections: plan.connections as usize,
        pacing: plan.pacing,
        priority: Priority::of(plan),
        request_timeout: Duration::from_millis(plan.request_timeout_ms),
        stop: Arc::clone(&stop),
    };
    let (length_ns, timeout_ns) = (plan.duration_ms * 1_000_000, plan.request_timeout_ms * 1_000_000);
    let (ledger_events_max, snapshot) = (plan.ledger_events_max, Arc::clone(snapshot));
    let (begun, begin) = oneshot::channel();
    let sent_ns: Arc<Mutex<HashMap<u64, u64>>> = Arc::default();
    let note = Arc::clone(&sent_ns);
    let sending = std::thread::Builder::new().name(SENDING_THREAD.into()).spawn(move || {
        load.run(|begin_ns| {
            let recorder = Recorder::new(begin_ns, length_ns, timeout_ns, None, ledger_events_max);
            let (samples, recording) = recorder::spawn(recorder, snapshot, move |samples| {
                let mut sent_ns = note.lock().unwrap_or_else(PoisonError::into_inner);
                sent_ns.extend(samples.iter().filter_map(|sample| Some((sample.sequence, sample.sent_ns?))));
            })?;
            // The receiver is waiting; if it were gone, so would be the load.
            let _ = begun.send((begin_ns, recording));
            Ok(samples)
        })
    })?;
    match begin.await {
        Ok((begin_ns, recording)) => Ok(Underway { sending, recording, stop, sent_ns, begin_ns }),
        Err(_) => Err(joined(sending).await?.err().unwrap_or_else(|| io::ErrorKind::Other.into())),
    }
}

impl Loaded {
    /// Takes out what was acknowledged after `begin_ns` of a cut although it was sent before its end; how many those were.
    pub fn forget_in_flight(&mut self, begin_ns: u64, end_ns: u64) -> u64 {
        let before = self.acknowledged.len();
        let sent_ns = &self.sent_ns;
        let was_in_flight = |event: &Acknowledged| {
            event.done_ns >= begin_ns && sent_ns.get(&event.sequence).is_none_or(|sent_ns| *sent_ns < end_ns)
        };
        self.acknowledged.retain(|event| !was_in_flight(event));
        (before - self.acknowledged.len()) as u64
    }
}

impl Underway {
    /// Sends nothing more, and waits for the answers that still come.
    pub async fn end(self) -> io::Result<Loaded> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = joined(self.sending).await??;
        let recording = joined(self.recording).await?;
        let sent_ns = std::mem::take(&mut *self.sent_ns.lock().unwrap_or_else(PoisonError::into_inner));
        let (acknowledged, planned) = (recording.acknowledged, sent.planned);
        Ok(Loaded { acknowledged, sent_ns, planned, durability: sent.durability })
    }
}

/// Joins a thread that may still have to work, without blocking this task's thread.
async fn joined<T: Send + 'static>(thread: JoinHandle<T>) -> io::Result<T> {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await.map_err(io::Error::other)?;
    joined.map_err(|_| io::Error::other("a thread of the load generator panicked; please report this"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_under_way_while_the_power_went_is_forgotten() {
        let event = |sequence, done_ns| Acknowledged { sequence, id: None, done_ns };
        let mut loaded = Loaded {
            // Before the cut; before its begin and answered in it; in it; after it, which no honest server acknowledges.
            acknowledged: vec![event(0, 99), event(1, 100), event(2, 250), event(3, 251)],
            sent_ns: HashMap::from([(0, 10), (1, 20), (2, 199), (3, 200)]),
            planned: 4,
            durability: None,
        };
        assert_eq!(loaded.forget_in_flight(100, 200), 2);
        assert_eq!(loaded.acknowledged, [event(0, 99), event(3, 251)]);
    }
}
