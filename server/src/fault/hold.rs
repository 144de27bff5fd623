//! Waiting for an instant to some 50 µs, which tokio's timer of 1 ms cannot.
//!
//! One thread sleeps until shortly before the next instant and spins for the rest; it costs up to [`SPIN`] of processor time for
//! each wait, which is why only faults wait here.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long before the instant the sleep ends: a sleeping thread of a virtual machine wakes 50 to 100 µs late.
const SPIN: Duration = Duration::from_micros(120);

#[derive(Debug)]
struct Waiting {
    until: Instant,
    release: oneshot::Sender<()>,
}

/// See the module.
#[derive(Debug)]
pub struct Hold {
    waiting: Sender<Waiting>,
}

impl Hold {
    /// Starts the thread; it ends with this.
    pub fn start() -> io::Result<Self> {
        let (waiting, incoming) = channel();
        thread::Builder::new().name("faults".into()).spawn(move || release_all(&incoming))?;
        Ok(Self { waiting })
    }

    /// Returns at `until`, or shortly after it, never before.
    pub async fn until(&self, until: Instant) {
        if until <= Instant::now() {
            return;
        }
        let (release, released) = oneshot::channel();
        // Neither fails: the thread ends after this, and releases whoever waits.
        let _ = self.waiting.send(Waiting { until, release });
        let _ = released.await;
    }
}

/// Releases each at its instant; of those with the same one, in the order in which they came.
fn release_all(incoming: &Receiver<Waiting>) {
    let mut held: BTreeMap<(Instant, u64), oneshot::Sender<()>> = BTreeMap::new();
    for number in 0.. {
        let arrived = loop {
            let now = Instant::now();
            while let Some(first) = held.first_entry().filter(|first| first.key().0 <= now) {
                // Who has gone away meanwhile is not missed.
                let _ = first.remove().send(());
            }
            let found = match held.first_key_value() {
                None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(((until, _), _)) => match until.duration_since(now).checked_sub(SPIN) {
                    Some(sleep) => incoming.recv_timeout(sleep),
                    None => incoming.try_recv().map_err(|error| match error {
                        TryRecvError::Empty => RecvTimeoutError::Timeout,
                        TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                    }),
                },
            };
            match found {
                Ok(arrived) => break arrived,
                Err(RecvTimeoutError::Timeout) => thread::yield_now(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        held.insert((arrived.until, number), arrived.release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_released_too_early_and_the_earliest_goes_first() {
        let hold = Hold::start().expect("a thread");
        let begin = Instant::now();
        let waits_us = [9_000u64, 3_000, 0, 3_050, 500];
        let waits = waits_us.map(|us| {
            let (until, hold) = (begin + Duration::from_micros(us), &hold);
            async move {
                hold.until(until).await;
                assert!(Instant::now() >= until);
                us
            }
        });
        let [a, b, c, d, e] = waits;
        assert_eq!(tokio::join!(a, b, c, d, e), (9_000, 3_000, 0, 3_050, 500));
    }

    #[tokio::test]
    async fn who_gives_up_does_not_keep_the_others() {
        let hold = Hold::start().expect("a thread");
        let long = hold.until(Instant::now() + Duration::from_secs(3_600));
        assert!(tokio::time::timeout(Duration::from_millis(5), long).await.is_err());
        hold.until(Instant::now() + Duration::from_millis(1)).await;
    }
}
