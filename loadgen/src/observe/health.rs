//! The generator watches itself and its machine during the steady phase; what to think of it is in [`reports::caveat`].

use reports::model::Health;

use super::hiccup::{HiccupMeter, StallsSeen, cores_to_watch};
use super::processors::Processors;
use super::threads::ThreadWatch;
use crate::clock::Clock;

/// A watch that is being kept.
#[derive(Debug)]
pub struct HealthWatch {
    clock: Clock,
    begin_ns: u64,
    server_pid: Option<u32>,
    hiccups: Option<HiccupMeter>,
    threads: ThreadWatch,
    processors: Processors,
}

impl HealthWatch {
    /// Begins now; the hiccup meters end at `until_ns` of the clock. `server_pid` is the server's process, if it is ours.
    pub fn begin(clock: Clock, until_ns: u64, server_pid: Option<u32>) -> Self {
        let begin_ns = clock.now_ns();
        Self {
            clock,
            begin_ns,
            server_pid,
            hiccups: HiccupMeter::start(clock, begin_ns, until_ns, cores_to_watch()).ok(),
            threads: ThreadWatch::begin(clock),
            processors: Processors::now(begin_ns),
        }
    }

    /// Looks at the threads. To be called now and then, the last time shortly before the sending thread ends.
    pub fn look(&mut self) {
        self.threads.look();
    }

    /// Stalls of the machine until now; `None`: no meter could be started.
    pub fn stalls(&self) -> Option<StallsSeen> {
        self.hiccups.as_ref().map(HiccupMeter::seen)
    }

    /// Ends now. `known_cpu_s` is what the generator, the server and its database used since the begin, if all of it is known.
    pub fn finish(self, known_cpu_s: Option<f64>) -> Health {
        let now_ns = self.clock.now_ns();
        Health {
            seconds: (now_ns - self.begin_ns) as f64 / 1e9,
            machine: Processors::now(now_ns).since(&self.processors, known_cpu_s, self.server_pid),
            hiccups: self.hiccups.map(HiccupMeter::finish),
            sender_busy_share: None,
            threads: self.threads.finish(),
        }
    }
}
