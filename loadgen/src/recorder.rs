//! What happened to every planned event: samples from the sending thread, added up on a thread of their own.
//!
//! The sending thread only fills a buffer; histograms, the compression of finished seconds and the quantiles for the progress line
//! would each delay the next send. Times are nanoseconds of the run's [`Clock`](crate::clock::Clock).
//!
//! Memory: histograms of a fixed size, those of at most `request timeout + 2 s` open seconds, and 40 bytes an acknowledged event for
//! the ledger, which keeps the first so many events of a run (`ledger_events_max`) and counts the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use reports::arrivals::ArrivalCheck;
use reports::breakdown::PartsByTime;
use reports::histogram::TimeHistogram;
use reports::model::{ArrivalsCheck, ErrorCount, Interval, Operation, OperationLoad, Outcomes, Repeats, TimeParts};
use uuid::Uuid;

use crate::buckets::Buckets;
use crate::dialect::NoAcknowledgement;

const INTERVAL_NS: u64 = 1_000_000_000;
/// Samples are handed over this many at a time, or as old as this: 50 ms of delay in a progress line is nothing, and a wake-up of the
/// recording thread per request would cost the sending thread a system call.
const BUFFER_SAMPLES: usize = 1_024;
const BUFFER_AGE_NS: u64 = 50_000_000;

/// What became of one planned event.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What was asked.
    pub operation: Operation,
    /// Number of its event within the run; the first one's of a batch.
    pub sequence: u64,
    /// Its own number among the requests.
    pub request: u64,
    /// When it was due.
    pub intended_ns: u64,
    /// When a connection could have taken it: `intended_ns`, or later if all were busy.
    pub sendable_ns: u64,
    /// When its first byte was written; `None`: never.
    pub sent_ns: Option<u64>,
    /// When its last answer byte was read, or when it was given up.
    pub done_ns: u64,
    /// A deliberate repeat of an acknowledged event.
    pub repeat: bool,
    /// What came back.
    pub outcome: SampleOutcome,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SampleOutcome {
    /// Acknowledged, with the id in the answer ([`crate::dialect::id_of`]).
    Accepted {
        /// HTTP status.
        status: u16,
        /// See the variant.
        id: Option<Uuid>,
    },
    /// 2xx, and yet no acknowledgement.
    NotAcknowledged {
        /// HTTP status.
        status: u16,
        /// Why not.
        problem: NoAcknowledgement,
    },
    /// A repeat, refused as it should be.
    Known {
        /// HTTP status.
        status: u16,
    },
    /// 2xx to a batch: each event was acknowledged or refused by itself.
    Batch {
        /// HTTP status.
        status: u16,
        /// Number and id of each event that was acknowledged.
        acknowledged: Box<[(u64, Option<Uuid>)]>,
        /// How many were not.
        refused: u32,
    },
    /// 4xx.
    Rejected {
        /// HTTP status.
        status: u16,
    },
    /// Another status.
    FailedStatus {
        /// HTTP status.
        status: u16,
    },
    /// No whole answer, for this reason.
    Failed {
        /// Why, for people.
        error: &'static str,
    },
    /// No whole answer in time.
    TimedOut,
    /// Never left.
    NotSent,
}

/// An acknowledged event, for the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its number within the run.
    pub sequence: u64,
    /// The id in the acknowledgement, when that was a UUID.
    pub id: Option<Uuid>,
    /// When the acknowledgement was read.
    pub done_ns: u64,
}

/// Everything recorded about one load.
#[derive(Debug)]
pub struct Recording {
    /// Outcomes of the steady phase.
    pub outcomes: Outcomes,
    /// Deliberate repeats of the steady phase.
    pub repeats: Repeats,
    /// Statuses of the steady phase.
    pub statuses: BTreeMap<String, u64>,
    /// Errors of the steady phase, most frequent first.
    pub errors: Vec<ErrorCount>,
    /// Accepted, timed out and not sent.
    pub response_time: TimeHistogram,
    /// Accepted and timed out.
    pub service_time: TimeHistogram,
    /// Everything that was sent.
    pub send_delay: TimeHistogram,
    /// Everything that had to wait for a connection.
    pub connection_wait: TimeHistogram,
    /// Rejected and failed.
    pub refused_time: TimeHistogram,
    /// Of those with a service time.
    pub parts: Vec<TimeParts>,
    /// The steady phase by the second.
    pub intervals: Vec<Interval>,
    /// Last done − begin of the steady phase.
    pub last_done_ns: u64,
    /// Acknowledgements of a first sending, warm-up included, of events below the limit.
    pub acknowledged: Vec<Acknowledged>,
    /// The same of events beyond the limit: they are not known one by one.
    pub acknowledged_beyond: u64,
    /// Repeats that were acknowledged although they must not be, warm-up included.
    pub repeats_accepted: u64,
    /// Outcomes of the warm-up.
    pub outcomes_warmup: Outcomes,
    /// Whether requests left as asked; `None` when there was nothing to compare with.
    pub arrivals_check: Option<ArrivalsCheck>,
    /// The steady phase by operation; those that were never asked for are not there.
    pub operations: Vec<OperationLoad>,
}

/// The running numbers for a progress line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// Outcomes so far, all phases.
    pub outcomes: Outcomes,
    /// 0.5 quantile of the steady response time so far.
    pub response_time_ns_p50: u64,
    /// 0.9 quantile of it.
    pub response_time_ns_p90: u64,
    /// 0.99 quantile of it.
    pub response_time_ns_p99: u64,
    /// 0.999 quantile of it.
    pub response_time_ns_p999: u64,
    /// Largest of it.
    pub response_time_ns_max: u64,
    /// Response times so far, all phases.
    pub buckets: Buckets,
}

/// Adds samples up. Pure; see [`spawn`] for the thread.
#[derive(Debug)]
pub struct Recorder {
    steady_begin_ns: u64,
    steady_length_ns: u64,
    /// A second is finished when no sample of it can come any more.
    open_for_ns: u64,
    open: VecDeque<OpenInterval>,
    /// Events from this number on are not kept for the ledger.
    ledger_events_max: u64,
    errors: HashMap<String, u64>,
    parts: PartsByTime,
    operations: BTreeMap<Operation, OfOperation>,
    arrivals: Option<ArrivalCheck>,
    buckets: Buckets,
    recording: Recording,
}

/// The steady phase of one operation.
#[derive(Debug, Default)]
struct OfOperation {
    outcomes: Outcomes,
    events_acknowledged: u64,
    response_time: TimeHistogram,
    service_time: TimeHistogram,
}

#[derive(Debug)]
struct OpenInterval {
    offset_ns: u64,
    planned: u64,
    outcomes: Outcomes,
    response_time: TimeHistogram,
    response_time_censored: u64,
    send_delay: TimeHistogram,
}

impl Recorder {
    /// For a load whose steady phase begins at `steady_begin_ns` and whose requests are given up after `request_timeout_ns`; `arrivals`
    /// is told of each of that phase.
    pub fn new(
        steady_begin_ns: u64,
        steady_length_ns: u64,
        request_timeout_ns: u64,
        arrivals: Option<ArrivalCheck>,
        ledger_events_max: u64,
    ) -> Self {
        Self {
            ledger_events_max,
            steady_begin_ns,
            steady_length_ns,
            // Waiting for a connection and waiting for the answer may each take a timeout.
            open_for_ns: 2 * request_timeout_ns + INTERVAL_NS,
            open: VecDeque::new(),
            errors: HashMap::new(),
            parts: PartsByTime::default(),
            operations: BTreeMap::new(),
            arrivals,
            buckets: Buckets::default(),
            recording: Recording {
                outcomes: Outcomes::default(),
                repeats: Repeats::default(),
                statuses: BTreeMap::new(),
                errors: Vec::new(),
                response_time: TimeHistogram::new(),
                service_time: TimeHistogram::new(),
                send_delay: TimeHistogram::new(),
                connection_wait: TimeHistogram::new(),
                refused_time: TimeHistogram::new(),
                parts: Vec::new(),
                intervals: Vec::new(),
                last_done_ns: 0,
                acknowledged: Vec::new(),
                acknowledged_beyond: 0,
                repeats_accepted: 0,
                outcomes_warmup: Outcomes::default(),
                arrivals_check: None,
                operations: Vec::new(),
            },
        }
    }

    /// Adds one sample.
    pub fn record(&mut self, sample: &Sample) {
        self.enter_in_ledger(sample);
        if counts_in_response_time(&sample.outcome) {
            self.buckets.add(sample.done_ns.saturating_sub(sample.intended_ns));
        }
        let Some(offset_ns) = sample.intended_ns.checked_sub(self.steady_begin_ns) else {
            count(&mut self.recording.outcomes_warmup, &sample.outcome);
            return;
        };
        count(&mut self.recording.outcomes, &sample.outcome);
        self.count_details(sample);
        self.record_times(sample);
        self.record_interval(sample, offset_ns);
        self.operations.entry(sample.operation).or_default().record(sample);
        if let Some(arrivals) = &mut self.arrivals {
            match sample.sent_ns {
                // Less what it waited for a connection, which is the target's doing.
                Some(sent_ns) => arrivals.sent(offset_ns, offset_ns + sent_ns.saturating_sub(sample.sendable_ns)),
                None => arrivals.not_sent(offset_ns),
            }
        }
        self.recording.last_done_ns = self.recording.last_done_ns.max(sample.done_ns - self.steady_begin_ns);
    }

    fn enter_in_ledger(&mut self, sample: &Sample) {
        let (one, several) = match &sample.outcome {
            SampleOutcome::Accepted { .. } if sample.operation != Operation::Ingest => return,
            SampleOutcome::Accepted { .. } if sample.repeat => {
                self.recording.repeats_accepted += 1;
                return;
            }
            SampleOutcome::Accepted { id, .. } => (Some((sample.sequence, *id)), &[][..]),
            SampleOutcome::Batch { acknowledged, .. } => (None, &acknowledged[..]),
            _ => return,
        };
        let done_ns = sample.done_ns;
        let entries = one.into_iter().chain(several.iter().copied());
        for (sequence, id) in entries {
            if sequence < self.ledger_events_max {
                self.recording.acknowledged.push(Acknowledged { sequence, id, done_ns });
            } else {
                self.recording.acknowledged_beyond += 1;
            }
        }
    }

    fn count_details(&mut self, sample: &Sample) {
        let (status, error) = match &sample.outcome {
            SampleOutcome::Accepted { status, .. } | SampleOutcome::Batch { status, refused: 0, .. } => {
                (Some(*status), None)
            }
            SampleOutcome::Batch { status, .. } => (Some(*status), Some("events of a batch refused".to_owned())),
            SampleOutcome::Rejected { status } | SampleOutcome::FailedStatus { status } => {
                (Some(*status), Some(format!("HTTP {status}")))
            }
            SampleOutcome::Known { status } => (Some(*status), None),
            SampleOutcome::NotAcknowledged { status, problem } => {
                (Some(*status), Some(format!("HTTP {status}: {}", problem.reason())))
            }
            SampleOutcome::Failed { error } => (None, Some((*error).to_owned())),
            SampleOutcome::TimedOut => (None, Some("no whole answer within the request timeout".to_owned())),
            SampleOutcome::NotSent => (None, Some("never sent: no connection came free".to_owned())),
        };
        if let Some(status) = status {
            *self.recording.statuses.entry(status.to_string()).or_default() += 1;
        }
        if let Some(error) = error {
            *self.errors.entry(error).or_default() += 1;
        }
        if sample.repeat {
            let repeats = &mut self.recording.repeats;
            repeats.sent += u64::from(sample.sent_ns.is_some());
            repeats.refused += u64::from(matches!(sample.outcome, SampleOutcome::Known { .. }));
            repeats.accepted += u64::from(matches!(sample.outcome, SampleOutcome::Accepted { .. }));
        }
    }

    fn record_times(&mut self, sample: &Sample) {
        let response_ns = sample.done_ns.saturating_sub(sample.intended_ns);
        let recording = &mut self.recording;
        match sample.outcome {
            SampleOutcome::Accepted { .. } | SampleOutcome::Batch { .. } | SampleOutcome::TimedOut => {
                recording.response_time.record(response_ns);
                let sent_ns = sample.sent_ns.unwrap_or(sample.sendable_ns);
                let service_time_ns = sample.done_ns.saturating_sub(sent_ns);
                recording.service_time.record(service_time_ns);
                let wait_ns = sample.sendable_ns.saturating_sub(sample.intended_ns);
                self.parts.record(sent_ns.saturating_sub(sample.sendable_ns), wait_ns, service_time_ns);
            }
            SampleOutcome::NotSent => recording.response_time.record(response_ns),
            _ => recording.refused_time.record(response_ns),
        }
        if let Some(sent_ns) = sample.sent_ns {
            recording.send_delay.record(sent_ns.saturating_sub(sample.sendable_ns));
        }
        if sample.sendable_ns > sample.intended_ns {
            recording.connection_wait.record(sample.sendable_ns - sample.intended_ns);
        }
    }

    fn record_interval(&mut self, sample: &Sample, offset_ns: u64) {
        let begin_ns = offset_ns - offset_ns % INTERVAL_NS;
        while self.open.back().is_none_or(|newest| newest.offset_ns < begin_ns) {
            let offset_ns = self.open.back().map_or_else(
                || self.recording.intervals.last().map_or(0, |last| last.offset_ms * 1_000_000 + INTERVAL_NS),
                |newest| newest.offset_ns + INTERVAL_NS,
            );
            self.open.push_back(OpenInterval::new(offset_ns));
            self.finish_intervals(begin_ns.saturating_sub(self.open_for_ns));
        }
        let oldest_ns = self.open[0].offset_ns;
        let index = (begin_ns.saturating_sub(oldest_ns) / INTERVAL_NS) as usize;
        self.open[index].record(sample);
    }

    /// Compresses and drops the histograms of seconds that began before `before_ns`.
    fn finish_intervals(&mut self, before_ns: u64) {
        while self.open.len() > 1 && self.open[0].offset_ns < before_ns {
            let interval = self.open.pop_front().expect("there is more than one");
            self.recording.intervals.push(interval.finish(self.steady_length_ns));
        }
    }

    /// The running numbers.
    pub fn snapshot(&self) -> Snapshot {
        let (steady, warmup) = (self.recording.outcomes, self.recording.outcomes_warmup);
        Snapshot {
            outcomes: Outcomes {
                accepted: steady.accepted + warmup.accepted,
                rejected: steady.rejected + warmup.rejected,
                failed: steady.failed + warmup.failed,
                timed_out: steady.timed_out + warmup.timed_out,
                not_sent: steady.not_sent + warmup.not_sent,
            },
            response_time_ns_p50: self.recording.response_time.quantile(0.5),
            response_time_ns_p90: self.recording.response_time.quantile(0.9),
            response_time_ns_p99: self.recording.response_time.quantile(0.99),
            response_time_ns_p999: self.recording.response_time.quantile(0.999),
            response_time_ns_max: self.recording.response_time.max(),
            buckets: self.buckets,
        }
    }

    /// Everything recorded.
    pub fn finish(mut self) -> Recording {
        for interval in self.open {
            self.recording.intervals.push(interval.finish(self.steady_length_ns));
        }
        let mut errors: Vec<_> = self.errors.into_iter().map(|(kind, count)| ErrorCount { kind, count }).collect();
        errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
        self.recording.errors = errors;
        self.recording.parts = self.parts.finish();
        self.recording.arrivals_check = self.arrivals.map(ArrivalCheck::finish);
        self.recording.operations = self.operations.into_iter().map(|(of, load)| load.finish(of)).collect();
        self.recording
    }
}

impl OfOperation {
    fn record(&mut self, sample: &Sample) {
        count(&mut self.outcomes, &sample.outcome);
        if counts_in_response_time(&sample.outcome) {
            self.response_time.record(sample.done_ns.saturating_sub(sample.intended_ns));
        }
        if let Some(sent_ns) = sample.sent_ns.filter(|_| counts_in_response_time(&sample.outcome)) {
            self.service_time.record(sample.done_ns.saturating_sub(sent_ns));
        }
        self.events_acknowledged += match &sample.outcome {
            SampleOutcome::Accepted { .. } => u64::from(sample.operation == Operation::Ingest),
            SampleOutcome::Batch { acknowledged, .. } => acknowledged.len() as u64,
            _ => 0,
        };
    }

    fn finish(self, operation: Operation) -> OperationLoad {
        let censored = self.outcomes.timed_out + self.outcomes.not_sent;
        OperationLoad {
            operation,
            planned: self.outcomes.total(),
            outcomes: self.outcomes,
            events_acknowledged: self.events_acknowledged,
            response_time: self.response_time.times(censored),
            service_time: self.service_time.times(self.outcomes.timed_out),
        }
    }
}

impl OpenInterval {
    fn new(offset_ns: u64) -> Self {
        Self {
            offset_ns,
            planned: 0,
            outcomes: Outcomes::default(),
            response_time: TimeHistogram::new(),
            response_time_censored: 0,
            send_delay: TimeHistogram::new(),
        }
    }

    fn record(&mut self, sample: &Sample) {
        self.planned += 1;
        count(&mut self.outcomes, &sample.outcome);
        let response_ns = sample.done_ns.saturating_sub(sample.intended_ns);
        match sample.outcome {
            SampleOutcome::Accepted { .. } | SampleOutcome::Batch { .. } => self.response_time.record(response_ns),
            SampleOutcome::TimedOut | SampleOutcome::NotSent => {
                self.response_time.record(response_ns);
                self.response_time_censored += 1;
            }
            _ => {}
        }
        if let Some(sent_ns) = sample.sent_ns {
            self.send_delay.record(sent_ns.saturating_sub(sample.sendable_ns));
        }
    }

    fn finish(self, steady_length_ns: u64) -> Interval {
        Interval {
            offset_ms: self.offset_ns / 1_000_000,
            length_ms: INTERVAL_NS.min(steady_length_ns.saturating_sub(self.offset_ns)) / 1_000_000,
            planned: self.planned,
            outcomes: self.outcomes,
            response_time: self.response_time.times(self.response_time_censored),
            send_delay_p99_ns: self.send_delay.quantile(0.99),
        }
    }
}

/// A quick refusal must not make a target look fast.
fn counts_in_response_time(outcome: &SampleOutcome) -> bool {
    use SampleOutcome::{Accepted, Batch, NotSent, TimedOut};
    matches!(outcome, Accepted { .. } | Batch { .. } | TimedOut | NotSent)
}

fn count(outcomes: &mut Outcomes, outcome: &SampleOutcome) {
    let counter = match outcome {
        SampleOutcome::Accepted { .. } | SampleOutcome::Batch { refused: 0, .. } => &mut outcomes.accepted,
        SampleOutcome::Rejected { .. } | SampleOutcome::Known { .. } | SampleOutcome::Batch { .. } => {
            &mut outcomes.rejected
        }
        SampleOutcome::NotAcknowledged { .. } | SampleOutcome::FailedStatus { .. } | SampleOutcome::Failed { .. } => {
            &mut outcomes.failed
        }
        SampleOutcome::TimedOut => &mut outcomes.timed_out,
        SampleOutcome::NotSent => &mut outcomes.not_sent,
    };
    *counter += 1;
}

/// The sending thread's end.
#[derive(Debug)]
pub struct Samples {
    buffer: Vec<Sample>,
    handed_over_ns: u64,
    channel: Sender<Vec<Sample>>,
}

impl Samples {
    /// Adds a sample; now and then hands a bufferful over.
    pub fn push(&mut self, sample: Sample) {
        let now_ns = sample.done_ns;
        self.buffer.push(sample);
        if self.buffer.len() == BUFFER_SAMPLES || now_ns > self.handed_over_ns + BUFFER_AGE_NS {
            self.handed_over_ns = now_ns;
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_SAMPLES));
        // The other end only goes away when its thread has panicked, which joining it will tell.
        let _ = self.channel.send(full);
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// Starts the recording thread. It ends, with the recording, when the [`Samples`] are dropped; `snapshot` is kept up to date, and `also` is
/// called there with all samples, some at a time.
pub fn spawn(
    recorder: Recorder,
    snapshot: Arc<Mutex<Snapshot>>,
    also: impl FnMut(&[Sample]) + Send + 'static,
) -> std::io::Result<(Samples, JoinHandle<Recording>)> {
    let (channel, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("recorder".into())
        .spawn(move || record_all(recorder, &receiver, &snapshot, also))?;
    Ok((Samples { buffer: Vec::with_capacity(BUFFER_SAMPLES), handed_over_ns: 0, channel }, thread))
}

fn record_all(
    mut recorder: Recorder,
    receiver: &Receiver<Vec<Sample>>,
    snapshot: &Mutex<Snapshot>,
    mut also: impl FnMut(&[Sample]),
) -> Recording {
    const SNAPSHOT_EVERY_NS: u64 = 250_000_000;
    let mut snapshot_ns = 0;
    for samples in receiver {
        for sample in &samples {
            recorder.record(sample);
        }
        also(&samples);
        let newest_ns = samples.last().map_or(0, |sample| sample.done_ns);
        if newest_ns > snapshot_ns + SNAPSHOT_EVERY_NS {
            snapshot_ns = newest_ns;
            *snapshot.lock().unwrap_or_else(PoisonError::into_inner) = recorder.snapshot();
        }
    }
    *snapshot.lock().unwrap_or_else(PoisonError::into_inner) = recorder.snapshot();
    recorder.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const WARMUP_NS: u64 = 1_000 * MS;

    fn sample(intended_ms: u64, outcome: SampleOutcome) -> Sample {
        let intended_ns = WARMUP_NS + intended_ms * MS;
        Sample {
            operation: Operation::Ingest,
            sequence: intended_ms,
            request: intended_ms + 1,
            intended_ns,
            sendable_ns: intended_ns,
            sent_ns: Some(intended_ns),
            done_ns: intended_ns + MS,
            repeat: false,
            outcome,
        }
    }

    fn accepted() -> SampleOutcome {
        SampleOutcome::Accepted { status: 202, id: None }
    }

    fn record(samples: &[Sample]) -> Recording {
        let mut recorder = Recorder::new(WARMUP_NS, 10_000 * MS, 2_000 * MS, None, 4);
        samples.iter().for_each(|sample| recorder.record(sample));
        recorder.finish()
    }

    /// Within the resolution of a histogram with three significant digits.
    #[track_caller]
    fn assert_about(actual_ns: u64, expected_ns: u64) {
        assert!(actual_ns.abs_diff(expected_ns) <= expected_ns / 1_000, "{actual_ns} is not about {expected_ns}");
    }

    #[test]
    fn the_three_times_are_told_apart() {
        let mut late = sample(0, accepted());
        // Due at 0, every connection busy until 5 ms, written at 5.2 ms, answered at 6 ms.
        late.sendable_ns = late.intended_ns + 5 * MS;
        late.sent_ns = Some(late.sendable_ns + MS / 5);
        late.done_ns = late.intended_ns + 6 * MS;
        let recording = record(&[late]);
        assert_about(recording.response_time.max(), 6 * MS);
        assert_about(recording.service_time.max(), 4 * MS / 5);
        assert_about(recording.connection_wait.max(), 5 * MS);
        assert_about(recording.send_delay.max(), MS / 5);
        let [parts] = recording.parts[..] else { panic!("{:?}", recording.parts) };
        let sums = (parts.send_delay_ns, parts.connection_wait_ns, parts.service_time_ns);
        assert_eq!((parts.requests, sums), (1, (MS / 5, 5 * MS, 4 * MS / 5)));
    }

    #[test]
    fn what_timed_out_or_was_never_sent_is_in_the_response_time_and_refusals_are_not() {
        let mut never = sample(3, SampleOutcome::NotSent);
        never.sent_ns = None;
        never.done_ns = never.intended_ns + 2_000 * MS;
        let recording = record(&[
            sample(0, accepted()),
            sample(1, SampleOutcome::TimedOut),
            sample(2, SampleOutcome::FailedStatus { status: 503 }),
            never,
            sample(4, SampleOutcome::Rejected { status: 429 }),
            sample(5, SampleOutcome::Failed { error: "closed" }),
        ]);
        assert_eq!(recording.response_time.count(), 3);
        assert_about(recording.response_time.max(), 2_000 * MS);
        assert_eq!(recording.refused_time.count(), 3);
        let kinds: Vec<&str> = recording.errors.iter().map(|error| error.kind.as_str()).collect();
        assert_eq!(kinds.len(), 5, "{kinds:?}");
        assert!(kinds.contains(&"HTTP 503") && kinds.contains(&"HTTP 429") && kinds.contains(&"closed"));
    }

    #[test]
    fn the_warm_up_is_not_measured_but_its_events_are_in_the_ledger() {
        let mut early = sample(0, accepted());
        early.intended_ns = WARMUP_NS - 1;
        let recording = record(&[early, sample(0, accepted())]);
        assert_eq!((recording.outcomes.accepted, recording.outcomes_warmup.accepted), (1, 1));
        assert_eq!(recording.response_time.count(), 1);
        assert_eq!(recording.acknowledged.len(), 2);
    }

    #[test]
    fn a_repeat_that_is_refused_is_as_it_should_be_and_one_that_is_accepted_is_not() {
        let mut refused = sample(1, SampleOutcome::Known { status: 409 });
        refused.repeat = true;
        let mut again = sample(2, accepted());
        again.repeat = true;
        let recording = record(&[sample(0, accepted()), refused, again]);
        assert_eq!(recording.repeats, Repeats { sent: 2, refused: 1, accepted: 1 });
        assert_eq!(recording.repeats_accepted, 1);
        assert_eq!(recording.acknowledged.len(), 1, "the ledger expects the first sending only");
        assert!(recording.errors.is_empty(), "an expected refusal is no error: {:?}", recording.errors);
    }

    #[test]
    fn a_second_without_any_event_is_there_and_empty() {
        let recording = record(&[sample(0, accepted()), sample(2_500, accepted())]);
        let planned: Vec<_> =
            recording.intervals.iter().map(|interval| (interval.offset_ms, interval.planned)).collect();
        assert_eq!(planned, [(0, 1), (1_000, 0), (2_000, 1)]);
    }

    #[test]
    fn the_thread_gives_back_everything_that_was_pushed() {
        let snapshot = Arc::default();
        let recorder = Recorder::new(WARMUP_NS, 10_000 * MS, 2_000 * MS, None, 4);
        let (mut samples, thread) = spawn(recorder, Arc::clone(&snapshot), |_| {}).expect("a thread");
        (0..5_000).for_each(|at_ms| samples.push(sample(at_ms, accepted())));
        drop(samples);
        let recording = thread.join().expect("the recording");
        assert_eq!(recording.outcomes.accepted, 5_000);
        assert_eq!(snapshot.lock().expect("the snapshot").outcomes.accepted, 5_000);
    }

    #[test]
    fn acknowledgements_beyond_the_limit_are_counted_and_take_no_memory() {
        let mut batch = sample(2, accepted());
        batch.operation = Operation::Batch;
        let acknowledged = (2..6).map(|sequence| (sequence, None)).collect();
        batch.outcome = SampleOutcome::Batch { status: 200, acknowledged, refused: 0 };
        let recording = record(&[sample(0, accepted()), batch, sample(9, accepted())]);
        let kept: Vec<_> = recording.acknowledged.iter().map(|entry| entry.sequence).collect();
        assert_eq!((kept, recording.acknowledged_beyond), (vec![0, 2, 3], 3));
    }

    fn any_outcome() -> impl Strategy<Value = SampleOutcome> {
        prop_oneof![
            Just(accepted()),
            (400u16..500).prop_map(|status| SampleOutcome::Rejected { status }),
            (500u16..600).prop_map(|status| SampleOutcome::FailedStatus { status }),
            Just(SampleOutcome::Failed { error: "closed" }),
            Just(SampleOutcome::TimedOut),
            Just(SampleOutcome::NotSent),
        ]
    }

    proptest! {
        /// In whatever order answers come, no request vanishes, and the seconds add up to the whole.
        #[test]
        fn outcomes_sum_to_planned_in_all_and_by_the_second(
            samples in prop::collection::vec((0u64..10_000, any_outcome()), 0..200)
        ) {
            let samples: Vec<_> = samples.into_iter().map(|(at_ms, outcome)| sample(at_ms, outcome)).collect();
            let recording = record(&samples);
            prop_assert_eq!(recording.outcomes.total(), samples.len() as u64);
            let of_intervals = |pick: fn(&Interval) -> u64| recording.intervals.iter().map(pick).sum::<u64>();
            prop_assert_eq!(of_intervals(|interval| interval.planned), samples.len() as u64);
            prop_assert_eq!(of_intervals(|interval| interval.outcomes.total()), samples.len() as u64);
            prop_assert_eq!(of_intervals(|interval| interval.response_time.count), recording.response_time.count());
        }
    }
}
