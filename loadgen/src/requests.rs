//! What is sent: events one by one, now and then a deliberate repeat, and, if the plan mixes them, batches, looks into the inbox and
//! acknowledgements of what was found there.

use std::collections::VecDeque;
use std::fmt::Write;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reports::model::{self, Operation, Plan};
use uuid::Uuid;

use crate::connection::Destination;
use crate::dialect::Dialect;
use crate::exchange::{ANSWER_BYTES_MAX, Request};
use crate::payload::Payloads;
use crate::traces::{self, Trace, Traces};

/// Acknowledged events that a deliberate repeat is chosen from.
const REPEAT_WINDOW: usize = 1_024;
/// Acknowledged events that are kept for `POST /api/ack/{id}`, how far apart they are, and how old one must be, so that a target that
/// persists within a second knows it.
const ACKABLE_MAX: usize = 1_024;
const ACKABLE_EVERY_NS: u64 = 5_000_000;
const ACKABLE_AGE_NS: u64 = 1_000_000_000;
/// Most events asked for by one look into the inbox, and what one takes there beside its payload, bytes.
const INBOX_EVENTS_MAX: usize = 100;
const INBOX_EVENT_FRAME_BYTES: usize = 1_024;

/// How often each operation is chosen.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Operations with their weights, which are not negative and not all 0.
    pub weights: Vec<(Operation, f64)>,
    /// Events in one batch.
    pub batch_events: u32,
}

impl Mix {
    /// The plan's.
    pub fn of(plan: &Plan) -> Self {
        let model::Mix { ingest, batch, inbox, ack } = plan.mix;
        let all =
            [(Operation::Ingest, ingest), (Operation::Batch, batch), (Operation::Inbox, inbox), (Operation::Ack, ack)];
        let weights = all.into_iter().filter(|(_, weight)| *weight > 0.0).collect();
        Self { weights, batch_events: plan.batch_events }
    }
}

/// Events that were acknowledged of late.
#[derive(Debug, Default)]
pub struct Recent {
    repeatable: Vec<u64>,
    ackable: VecDeque<(u64, Uuid, u64)>,
}

impl Recent {
    /// Event `sequence` was acknowledged with this id.
    pub fn acknowledged(&mut self, sequence: u64, id: Option<Uuid>, done_ns: u64) {
        if self.repeatable.len() < REPEAT_WINDOW {
            self.repeatable.push(sequence);
        } else {
            self.repeatable[sequence as usize % REPEAT_WINDOW] = sequence;
        }
        let Some(id) = id else { return };
        if self.ackable.back().is_none_or(|&(_, _, last_ns)| done_ns > last_ns + ACKABLE_EVERY_NS) {
            if self.ackable.len() == ACKABLE_MAX {
                self.ackable.pop_front();
            }
            self.ackable.push_back((sequence, id, done_ns));
        }
    }

    fn repeat(&self, random: &mut ChaCha8Rng) -> Option<u64> {
        (!self.repeatable.is_empty()).then(|| self.repeatable[random.random_range(0..self.repeatable.len())])
    }

    fn ackable(&self, now_ns: u64, random: &mut ChaCha8Rng) -> Option<(u64, Uuid)> {
        let old = self.ackable.partition_point(|&(_, _, done_ns)| done_ns + ACKABLE_AGE_NS < now_ns);
        (old > 0).then(|| {
            let (sequence, id, _) = self.ackable[random.random_range(0..old)];
            (sequence, id)
        })
    }
}

/// The next request, and what to remember of it.
#[derive(Debug)]
pub struct Next<'a> {
    /// To be sent.
    pub request: Request<'a>,
    /// What it is.
    pub operation: Operation,
    /// Its event, or the first of its events.
    pub sequence: u64,
    /// Its own number.
    pub number: u64,
    /// How many events it carries.
    pub events: u32,
    /// A deliberate repeat of an acknowledged event.
    pub repeat: bool,
}

/// What a request is, before it is made.
struct Choice {
    operation: Operation,
    is_repeat: bool,
    /// The first number that it takes, or would.
    first: u64,
}

/// Makes the requests of a load, in order.
#[derive(Debug)]
pub struct Requests {
    payloads: Payloads,
    headers: Vec<Vec<u8>>,
    /// Ids that they carry, if any.
    traces: Option<Traces>,
    event_method: &'static str,
    event_path: String,
    batch_path: String,
    inbox_path: String,
    /// What comes before the id in it, and what after.
    ack_path: (String, String),
    mix: Mix,
    duplicates_share: f64,
    /// Decides what each request is, and nothing else: all generators of a load that is shared out draw the same.
    random: ChaCha8Rng,
    /// Picks among what was acknowledged here.
    picks: ChaCha8Rng,
    sequence: u64,
    requests: u64,
    body: Vec<u8>,
    path: String,
}

impl Requests {
    /// Requests to `destination`, whose choices follow from `seed`.
    pub fn new(destination: &Destination, payloads: Payloads, mix: Mix, duplicates_share: f64, seed: u64) -> Self {
        // As many as fit into an answer that is read whole, whatever their size.
        let inbox_events = ANSWER_BYTES_MAX / (payloads.payload_bytes_max() + INBOX_EVENT_FRAME_BYTES);
        let inbox_events = inbox_events.clamp(1, INBOX_EVENTS_MAX);
        let Dialect { ingest, routes, .. } = &*destination.dialect;
        // A plan asks for no route that there is not: see `plan::resolve`.
        let path = |path: &str| format!("{}{path}", destination.base_path);
        let route = |route: &Option<String>| path(route.as_deref().unwrap_or_default());
        let inbox_path = route(&routes.inbox);
        let separator = if inbox_path.contains('?') { '&' } else { '?' };
        let ack_path = route(&routes.ack);
        let (before_id, after_id) = ack_path.split_once("{id}").unwrap_or((&ack_path, ""));
        let mut picks = ChaCha8Rng::seed_from_u64(seed);
        picks.set_stream(1);
        Self {
            payloads,
            headers: destination.headers.clone(),
            traces: None,
            event_method: ingest.method,
            event_path: path(&ingest.path),
            batch_path: route(&routes.batch),
            inbox_path: format!("{inbox_path}{separator}limit={inbox_events}"),
            ack_path: (before_id.to_owned(), after_id.to_owned()),
            mix,
            duplicates_share,
            random: ChaCha8Rng::seed_from_u64(seed),
            picks,
            sequence: 0,
            requests: 0,
            body: Vec::new(),
            path: String::new(),
        }
    }

    /// With ids by which they can be followed.
    pub fn followed(mut self, traces: Option<Traces>) -> Self {
        if traces.is_some() {
            self.headers.iter_mut().for_each(traces::add_line);
        }
        self.traces = traces;
        self
    }

    /// Sequence numbers given out.
    pub fn sequences(&self) -> u64 {
        self.sequence
    }

    /// The next one.
    pub fn next(&mut self, recent: &Recent, now_ns: u64) -> Next<'_> {
        let Choice { operation, is_repeat, first } = self.choose();
        match operation {
            Operation::Batch => self.batch(first),
            Operation::Inbox => self.inbox(first),
            Operation::Ack => match recent.ackable(now_ns, &mut self.picks) {
                Some((sequence, id)) => self.ack(sequence, id),
                None => self.event(first, is_repeat, recent),
            },
            Operation::Ingest => self.event(first, is_repeat, recent),
        }
    }

    /// Leaves the next one to another generator: it takes its numbers here as there.
    pub fn pass_over(&mut self) {
        self.choose();
    }

    /// Follows from the seed and from what came before alone, never from an answer.
    fn choose(&mut self) -> Choice {
        self.requests += 1;
        let operation = self.operation();
        let may_repeat = self.duplicates_share > 0.0 && matches!(operation, Operation::Ingest | Operation::Ack);
        let is_repeat = may_repeat && self.random.random_bool(self.duplicates_share);
        let first = self.sequence;
        self.sequence += match operation {
            // An ack that finds nothing to take is an event.
            Operation::Ingest | Operation::Ack => 1,
            Operation::Batch => u64::from(self.mix.batch_events),
            Operation::Inbox => 0,
        };
        Choice { operation, is_repeat, first }
    }

    fn operation(&mut self) -> Operation {
        if let [(only, _)] = self.mix.weights[..] {
            return only;
        }
        let sum: f64 = self.mix.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.random::<f64>() * sum;
        for &(operation, weight) in &self.mix.weights {
            if at < weight {
                return operation;
            }
            at -= weight;
        }
        self.mix.weights.last().map_or(Operation::Ingest, |&(operation, _)| operation)
    }

    /// A repeat takes a number of its own in the plan, but carries the acknowledged event's `dedup_id`, payload and key.
    fn event(&mut self, own: u64, is_repeat: bool, recent: &Recent) -> Next<'_> {
        let repeated = is_repeat.then(|| recent.repeat(&mut self.picks)).flatten();
        let sequence = repeated.unwrap_or(own);
        self.body.clear();
        self.payloads.write_body(sequence, &mut self.body);
        let (number, trace) = (self.requests, self.trace());
        let headers = headers(&mut self.headers, sequence, trace);
        let request = Request { method: self.event_method, path: &self.event_path, headers, body: Some(&self.body) };
        Next { request, operation: Operation::Ingest, sequence, number, events: 1, repeat: repeated.is_some() }
    }

    fn batch(&mut self, sequence: u64) -> Next<'_> {
        let events = self.mix.batch_events;
        self.body.clear();
        self.payloads.write_batch(sequence, events, &mut self.body);
        let (number, trace) = (self.requests, self.trace());
        let headers = headers(&mut self.headers, sequence, trace);
        let request = Request { method: "POST", path: &self.batch_path, headers, body: Some(&self.body) };
        Next { request, operation: Operation::Batch, sequence, number, events, repeat: false }
    }

    fn inbox(&mut self, sequence: u64) -> Next<'_> {
        let (number, trace) = (self.requests, self.trace());
        let headers = headers(&mut self.headers, number, trace);
        let request = Request { method: "GET", path: &self.inbox_path, headers, body: None };
        Next { request, operation: Operation::Inbox, sequence, number, events: 0, repeat: false }
    }

    fn ack(&mut self, sequence: u64, id: Uuid) -> Next<'_> {
        self.path.clear();
        let (before_id, after_id) = &self.ack_path;
        let _ = write!(self.path, "{before_id}{id}{after_id}");
        let (number, trace) = (self.requests, self.trace());
        let headers = headers(&mut self.headers, sequence, trace);
        let request = Request { method: "POST", path: &self.path, headers, body: Some(b"{}") };
        Next { request, operation: Operation::Ack, sequence, number, events: 0, repeat: false }
    }

    /// Of the request that was chosen last.
    fn trace(&self) -> Option<Trace> {
        self.traces.map(|traces| traces.of(self.requests))
    }
}

/// Of the organisation that event `sequence` belongs to, with the request's ids in them.
fn headers(all: &mut [Vec<u8>], sequence: u64, trace: Option<Trace>) -> &[u8] {
    let organization = sequence as usize % all.len().max(1);
    let Some(headers) = all.get_mut(organization) else { return &[] };
    if let Some(trace) = trace {
        traces::fill_line(headers, &trace.context);
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::http2::Origin;
    use crate::payload::PAYLOAD_BYTES_MAX;
    use crate::stream::Door;

    #[test]
    fn a_look_into_the_inbox_asks_for_no_more_than_an_answer_may_hold() {
        let destination = Destination {
            door: Door { address: SocketAddr::from(([127, 0, 0, 1], 1)), tls: None },
            origin: Origin { scheme: "http", authority: "h".to_owned() },
            http2: false,
            streams: 1,
            base_path: "/base".to_owned(),
            dialect: std::sync::Arc::default(),
            headers: Vec::new(),
        };
        for (payload_bytes, events) in [(256, 100), (64 * 1024, 15), (PAYLOAD_BYTES_MAX, 3)] {
            let mix = Mix { weights: vec![(Operation::Inbox, 1.0)], batch_events: 1 };
            let payloads = Payloads::new("r-1", payload_bytes, 1);
            let mut requests = Requests::new(&destination, payloads, mix, 0.0, 1);
            let path = requests.next(&Recent::default(), 0).request.path.to_owned();
            assert_eq!(path, format!("/base/api/inbox?limit={events}"));
        }
    }
}
