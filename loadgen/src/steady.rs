//! One load from first to last event (warm-up and steady phase without a break), and what is watched meanwhile.
//!
//! The sending thread and the recording thread do the work; this task looks at the target and at the generator's own threads twice a
//! second, and takes the usage of processors and memory at the edges of the steady phase.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use reports::arrivals::ArrivalCheck;
use reports::histogram::TimeHistogram;
use reports::model::{
    self, ArrivalProcess, Arrivals, BacklogSample, Health, Outcomes, Plan, Repeats, Resources, SENDING_THREAD,
    TargetTime, Times, UsageSample,
};
use tokio::sync::oneshot;
use tokio::time::{interval, sleep};

use crate::clock::Clock;
use crate::connection::Destination;
use crate::observe::health::HealthWatch;
use crate::observe::postgres::FreshDatabase;
use crate::observe::process::{ProcessState, ProcessUsage, cpu_s_of_all, with_descendants};
use crate::observe::prometheus::Scrape;
use crate::payload::Payloads;
use crate::plan::Resolved;
use crate::priority::Priority;
use crate::progress::Progress;
use crate::recorder::{self, Acknowledged, Recorder, Recording, Snapshot};
use crate::requests::{Mix, Requests};
use crate::samples::Rows;
use crate::schedule::Schedule;
use crate::send::{Load, Sent};
use crate::target::Target;
use crate::telemetry::Spans;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The sending thread may end as soon as it has sent the last event of the schedule, and a thread that has ended tells nothing.
const LAST_LOOK_BEFORE_END: Duration = Duration::from_millis(10);

/// What to load, and what to watch.
#[derive(Debug)]
pub struct Steady<'a> {
    /// The plan, and which part of it is sent here.
    pub resolved: &'a Resolved,
    /// The run's clock.
    pub clock: Clock,
    /// Target for control calls.
    pub target: &'a Target,
    /// Where the events go.
    pub destination: Destination,
    /// When the warm-up begins, ns of the clock; `None`: when every connection is open.
    pub begin_at_ns: Option<u64>,
    /// The events.
    pub payloads: Payloads,
    /// Seed of this repetition.
    pub seed: u64,
    /// Set from outside to end early.
    pub stop: &'a Arc<AtomicBool>,
    /// Where every request is written down.
    pub rows: Option<Rows>,
    /// Who is told of the requests that are followed.
    pub spans: Option<Spans>,
    /// Kept up to date for the progress line.
    pub snapshot: Arc<Mutex<Snapshot>>,
    /// Who is told what is seen of the target and of the machine.
    pub progress: &'a Progress,
    /// Processes of the server, without their descendants; none: not known.
    pub server_pids: Vec<u32>,
    /// Database of the server, when it is ours.
    pub database: Option<&'a mut FreshDatabase>,
}

/// What a load gave.
#[derive(Debug)]
pub struct Loaded {
    /// For the result.
    pub load: model::Load,
    /// For the result.
    pub resources: Resources,
    /// For the result.
    pub health: Health,
    /// What the acknowledgements claim.
    pub durability: Option<String>,
    /// For the ledger.
    pub acknowledged: Vec<Acknowledged>,
    /// For the ledger: acknowledgements beyond its limit.
    pub acknowledged_beyond: u64,
    /// For the ledger.
    pub repeats_accepted: u64,
    /// Sequence numbers used.
    pub planned: u64,
    /// When the steady phase began, ns of the clock.
    pub steady_begin_ns: u64,
}

/// The load could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum SteadyError {
    /// No connection at all, or none as many as the plan says.
    #[error("cannot open {connections} connections to {url}: {source}")]
    Connect {
        /// How many.
        connections: u32,
        /// Whereto.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// A thread of the generator ended in a panic: a defect of this program.
    #[error("the {0} thread of the load generator panicked; please report this")]
    Panicked(&'static str),
}

type SendingThread = JoinHandle<io::Result<Sent>>;
type RecordingThread = JoinHandle<Recording>;

impl Steady<'_> {
    /// Carries it out.
    pub async fn run(mut self) -> Result<Loaded, SteadyError> {
        let (begun, begin) = oneshot::channel();
        let thread = self.start_sending(begun).map_err(|source| self.no_connection(source))?;
        let Ok((begin_ns, recording)) = begin.await else {
            let error = join(thread, "sending").await?.err().unwrap_or_else(|| io::ErrorKind::Other.into());
            return Err(self.no_connection(error));
        };
        let plan = &self.resolved.plan;
        let steady_begin_ns = begin_ns + plan.warmup_ms * 1_000_000;
        sleep(Duration::from_nanos(steady_begin_ns.saturating_sub(self.clock.now_ns()))).await;
        let database_pids = match &mut self.database {
            Some(database) => database.process_ids().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let before = self.usage(&database_pids).await;
        let steady_end_ns = steady_begin_ns + plan.duration_ms * 1_000_000;
        let mut health = HealthWatch::begin(self.clock, steady_end_ns, self.server_pids.first().copied());
        let seen = self.watch(steady_begin_ns, steady_end_ns, &thread, &mut health).await;
        let after = self.usage(&database_pids).await;
        let mut resources = Resources { over_time: seen.usage.clone(), ..resources(&before, &after) };
        let mut health = health.finish(self.known_cpu_s(&resources));
        if let Some(sender) = health.threads.iter().find(|thread| thread.name == SENDING_THREAD) {
            resources.generator_switches_involuntary = sender.switches_involuntary;
            resources.generator_run_queue_delay_ns = sender.run_queue_delay_ns;
        }
        let sent = join(thread, "sending").await?.map_err(|source| self.no_connection(source))?;
        health.sender_busy_share = Some(sent.busy_share);
        let recording: Recording = join(recording, "recording").await?;
        let loaded = self.loaded(recording, sent, seen, resources, health);
        Ok(Loaded { steady_begin_ns, ..loaded })
    }

    fn start_sending(&mut self, begun: oneshot::Sender<(u64, RecordingThread)>) -> io::Result<SendingThread> {
        let plan = &self.resolved.plan;
        let (warmup_ns, steady_ns) = (plan.warmup_ms * 1_000_000, plan.duration_ms * 1_000_000);
        let timeout_ns = plan.request_timeout_ms * 1_000_000;
        let load = Load {
            clock: self.clock,
            schedule: Schedule::new(&self.resolved.schedule(), self.seed),
            share: self.resolved.share(self.seed),
            begin_at_ns: self.begin_at_ns,
            requests: Requests::new(
                &self.destination,
                self.payloads.clone(),
                Mix::of(plan),
                plan.duplicates_share,
                self.seed,
            )
            .followed(self.spans.as_ref().map(Spans::traces)),
            destination: self.destination.clone(),
            connections: self.resolved.connections() as usize,
            pacing: plan.pacing,
            priority: Priority::of(plan),
            request_timeout: Duration::from_millis(plan.request_timeout_ms),
            stop: Arc::clone(self.stop),
        };
        let arrivals = self.arrival_check(steady_ns, timeout_ns);
        let (snapshot, mut rows, spans) = (Arc::clone(&self.snapshot), self.rows.take(), self.spans.take());
        let ledger_events_max = if plan.ledger { plan.ledger_events_max } else { 0 };
        std::thread::Builder::new().name(SENDING_THREAD.into()).spawn(move || {
            load.run(|begin_ns| {
                let recorder = Recorder::new(begin_ns + warmup_ns, steady_ns, timeout_ns, arrivals, ledger_events_max);
                let (samples, recording) = recorder::spawn(recorder, snapshot, move |samples| {
                    rows.iter_mut().for_each(|rows| rows.write(samples));
                    spans.iter().for_each(|spans| spans.tell(samples));
                })?;
                // The receiver is waiting; if it were gone, so would be the run.
                let _ = begun.send((begin_ns, recording));
                Ok(samples)
            })
        })
    }

    /// What the sent times are to be held against; nothing in a closed loop.
    fn arrival_check(&self, steady_ns: u64, timeout_ns: u64) -> Option<ArrivalCheck> {
        let plan = &self.resolved.plan;
        let process = match plan.arrivals {
            Arrivals::Closed => return None,
            _ if plan.shape.is_some() || plan.replay.is_some() => ArrivalProcess::Scheduled,
            Arrivals::Poisson => ArrivalProcess::Poisson,
            Arrivals::Constant => ArrivalProcess::Constant,
        };
        // Waiting for a connection, waiting for the answer, and the buffer of the sending thread.
        let rate_per_s = self.resolved.rate_per_s();
        Some(ArrivalCheck::new(process, rate_per_s, steady_ns, 2 * timeout_ns + 1_000_000_000))
    }

    fn no_connection(&self, source: io::Error) -> SteadyError {
        SteadyError::Connect { connections: self.resolved.connections(), url: self.target.url().to_owned(), source }
    }

    /// Looks at the target, at what it and the generator use, and at the generator's health until the sending thread has ended.
    async fn watch(
        &self,
        steady_begin_ns: u64,
        steady_end_ns: u64,
        thread: &SendingThread,
        health: &mut HealthWatch,
    ) -> Seen {
        let mut seen = Seen::default();
        // Found once: looking for them takes as long as the machine has processes.
        let server_pids = with_descendants(&self.server_pids);
        let mut ticks = interval(LOOK_EVERY);
        let left = Duration::from_nanos(steady_end_ns.saturating_sub(self.clock.now_ns()));
        let mut last_look = std::pin::pin!(sleep(left.saturating_sub(LAST_LOOK_BEFORE_END)));
        let mut looked_last = false;
        while !thread.is_finished() {
            tokio::select! {
                () = &mut last_look, if !looked_last => looked_last = true,
                _ = ticks.tick() => {
                    let now_ns = self.clock.now_ns();
                    let offset_ms = now_ns.saturating_sub(steady_begin_ns) / 1_000_000;
                    if now_ns <= steady_end_ns {
                        seen.usage.push(usage_now(&server_pids, offset_ms));
                    }
                    // Of the target as a whole: one look at it is enough, and several would be added up.
                    let scrape = if self.resolved.watches_target() { self.target.metrics().await } else { None };
                    self.progress.target(scrape.as_ref());
                    self.progress.stalls(health.stalls());
                    if let Some(scrape) = &scrape {
                        seen.look(scrape, offset_ms);
                    }
                }
            }
            health.look();
        }
        seen
    }

    /// What the generator, the server and its database used together; `None` unless all that runs on this machine is known: of a
    /// server that somebody else started here, a database may run beside it.
    fn known_cpu_s(&self, resources: &Resources) -> Option<f64> {
        let generator_s = resources.generator_cpu_s?;
        if !self.target.is_local() {
            return Some(generator_s);
        }
        if self.server_pids.is_empty() {
            return None;
        }
        let database_s = if self.database.is_some() { resources.database_cpu_s? } else { 0.0 };
        Some(generator_s + resources.server_cpu_s? + database_s)
    }

    async fn usage(&self, database_pids: &[u32]) -> Usage {
        let server = match self.server_pids[..] {
            [_, ..] => ProcessUsage::of_trees(&self.server_pids),
            [] if !self.resolved.watches_target() => ProcessUsage::default(),
            [] => self.target.metrics().await.map_or_else(ProcessUsage::default, |scrape| ProcessUsage {
                cpu_s: scrape.get("process_cpu_seconds_total"),
                rss_peak_bytes: scrape.get("process_resident_memory_bytes").map(|bytes| bytes as u64),
            }),
        };
        let database_cpu_s = (!database_pids.is_empty()).then(|| cpu_s_of_all(database_pids));
        Usage { server, generator: ProcessUsage::own(), database_cpu_s }
    }

    fn loaded(&self, recording: Recording, sent: Sent, seen: Seen, resources: Resources, health: Health) -> Loaded {
        let plan = &self.resolved.plan;
        let outcomes = recording.outcomes;
        let (seconds, planned) = (plan.duration_ms as f64 / 1e3, outcomes.total());
        // A backlog of answers that come after the end does not count as if it had come within the phase.
        let until_last_answer_s = (recording.last_done_ns as f64 / 1e9).max(seconds);
        let censored = outcomes.timed_out + outcomes.not_sent;
        let load = model::Load {
            seconds,
            offered_per_s: planned as f64 / seconds,
            achieved_per_s: outcomes.accepted as f64 / until_last_answer_s,
            planned,
            outcomes,
            repeats: recording.repeats,
            statuses: recording.statuses,
            errors: recording.errors,
            response_time: recording.response_time.times(censored),
            service_time: recording.service_time.times(outcomes.timed_out),
            send_delay: recording.send_delay.times(0),
            connection_wait: recording.connection_wait.times(0),
            refused_time: recording.refused_time.times(0),
            connections: self.resolved.connections(),
            reconnects: sent.reconnects,
            connect_time: sent.connect_time.times(0),
            operations: if recording.operations.len() > 1 { recording.operations } else { Vec::new() },
            intervals: recording.intervals,
            target_time: seen.target_time(),
            backlog: seen.backlog,
            arrivals_check: recording.arrivals_check,
            parts: recording.parts,
        };
        Loaded {
            load,
            resources,
            health,
            durability: sent.durability,
            acknowledged: recording.acknowledged,
            acknowledged_beyond: recording.acknowledged_beyond,
            repeats_accepted: recording.repeats_accepted,
            planned: sent.planned,
            steady_begin_ns: 0,
        }
    }
}

/// The load of a result that has none.
pub fn empty_load(plan: &Plan) -> model::Load {
    let none = || -> Times { TimeHistogram::new().times(0) };
    model::Load {
        seconds: plan.duration_ms as f64 / 1e3,
        offered_per_s: 0.0,
        achieved_per_s: 0.0,
        planned: 0,
        outcomes: Outcomes::default(),
        repeats: Repeats::default(),
        statuses: std::collections::BTreeMap::new(),
        errors: Vec::new(),
        response_time: none(),
        service_time: none(),
        send_delay: none(),
        connection_wait: none(),
        refused_time: none(),
        connections: plan.connections,
        reconnects: 0,
        connect_time: none(),
        operations: Vec::new(),
        intervals: Vec::new(),
        backlog: Vec::new(),
        arrivals_check: None,
        parts: Vec::new(),
        target_time: None,
    }
}

#[derive(Debug)]
struct Usage {
    server: ProcessUsage,
    generator: ProcessUsage,
    database_cpu_s: Option<f64>,
}

fn resources(before: &Usage, after: &Usage) -> Resources {
    let grown = |then: Option<f64>, now: Option<f64>| Some((now? - then?).max(0.0));
    Resources {
        server_cpu_s: grown(before.server.cpu_s, after.server.cpu_s),
        database_cpu_s: grown(before.database_cpu_s, after.database_cpu_s),
        server_rss_peak_bytes: after.server.rss_peak_bytes.max(before.server.rss_peak_bytes),
        generator_cpu_s: grown(before.generator.cpu_s, after.generator.cpu_s),
        generator_rss_peak_bytes: after.generator.rss_peak_bytes,
        generator_switches_involuntary: None,
        generator_run_queue_delay_ns: None,
        over_time: Vec::new(),
    }
}

fn usage_now(server_pids: &[u32], offset_ms: u64) -> UsageSample {
    let (server, generator) = (ProcessState::of(server_pids), ProcessState::own());
    UsageSample {
        offset_ms,
        server_cpu_s: server.cpu_s,
        server_rss_bytes: server.rss_bytes,
        generator_cpu_s: generator.cpu_s,
    }
}

/// What was seen while the load was on.
#[derive(Debug, Default)]
struct Seen {
    backlog: Vec<BacklogSample>,
    usage: Vec<UsageSample>,
    /// Requests and seconds that the target had counted at the first and at the last look.
    answers: Option<[(f64, f64); 2]>,
}

impl Seen {
    fn look(&mut self, scrape: &Scrape, offset_ms: u64) {
        let pending = scrape.get("ingest_pending_events");
        self.backlog.extend(pending.map(|pending| BacklogSample { offset_ms, pending_events: pending as u64 }));
        // Of a server that runs elsewhere, its own word.
        let untold = |usage: &&mut UsageSample| usage.offset_ms == offset_ms && usage.server_cpu_s.is_none();
        if let Some(usage) = self.usage.last_mut().filter(untold) {
            usage.server_cpu_s = scrape.get("process_cpu_seconds_total");
            usage.server_rss_bytes = scrape.get("process_resident_memory_bytes").map(|bytes| bytes as u64);
        }
        if let (Some(count), Some(seconds)) =
            (scrape.get("ingest_ack_seconds_count"), scrape.get("ingest_ack_seconds_sum"))
        {
            let now = (count, seconds);
            self.answers = Some([self.answers.map_or(now, |[first, _]| first), now]);
        }
    }

    /// `None` when it does not say, or counted nothing between the looks.
    fn target_time(&self) -> Option<TargetTime> {
        let [first, last] = self.answers?;
        let (requests, seconds) = (last.0 - first.0, last.1 - first.1);
        (requests > 0.0).then(|| TargetTime { requests: requests as u64, mean_ns: seconds.max(0.0) / requests * 1e9 })
    }
}

/// Joins a thread that may still have to work, without blocking this task's thread.
async fn join<T: Send + 'static>(thread: JoinHandle<T>, name: &'static str) -> Result<T, SteadyError> {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    joined.map_err(|_| SteadyError::Panicked(name))?.map_err(|_| SteadyError::Panicked(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_target_is_that_between_the_first_and_the_last_look() {
        let mut seen = Seen::default();
        assert_eq!(seen.target_time(), None);
        for (offset_ms, text) in [
            (0, "ingest_ack_seconds_sum 5\ningest_ack_seconds_count 1000\n"),
            (500, "ingest_pending_events 7\n"),
            (1_000, "ingest_ack_seconds_sum 5.25\ningest_ack_seconds_count 2000\ningest_pending_events 3\n"),
        ] {
            seen.look(&Scrape::parse(text), offset_ms);
        }
        assert_eq!(seen.target_time(), Some(TargetTime { requests: 1_000, mean_ns: 250_000.0 }));
        let backlog: Vec<(u64, u64)> = seen.backlog.iter().map(|s| (s.offset_ms, s.pending_events)).collect();
        assert_eq!(backlog, [(500, 7), (1_000, 3)]);
    }
}
