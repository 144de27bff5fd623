//! What all requests share: one struct, made once at start, behind an `Arc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, StatusCode};
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

use crate::auth::{KeyHash, Keys, Organization};
use crate::cache_counters::CacheCounters;
use crate::config::{Mode, Settings, count};
use crate::dedup::{Dedup, Entry};
use crate::delivery::address::{self, Guard};
use crate::event::Event;
use crate::fault::Faults;
use crate::idempotency::Idempotency;
use crate::journal::Journal;
use crate::metrics::{CacheLabel, Metrics, OutcomeLabel, ReasonLabel, RequestLabels};
use crate::offload::Offload;
use crate::parse::Bounds;
use crate::pending::Pending;
use crate::problem::Problem;
use crate::queue::{Holder, Put, Queue};
use crate::store::{Inserted, Store};
use crate::telemetry::Telemetry;
use crate::writer::Writer;

/// Where an event goes before it is acknowledged: the one place where the modes differ.
#[derive(Debug)]
pub enum Sink {
    /// `null`: nowhere.
    Nowhere,
    /// `cache-first`.
    Pending(Arc<Pending>),
    /// `cache-first` with the buffer in Redis.
    Queue {
        /// Where events go, and whence any process drains them.
        queue: Arc<Queue>,
        /// What this process has taken out to persist it.
        pending: Arc<Pending>,
    },
    /// `journal-first`: first into the journal, then into the same buffer.
    Journal {
        /// What makes it safe.
        journal: Arc<Journal>,
        /// Where it waits for the store.
        pending: Arc<Pending>,
    },
    /// `db-first`.
    Writer(Writer),
}

/// See the module.
#[derive(Debug)]
pub struct App {
    /// As started with.
    pub settings: Settings,
    /// Bounds of parsing, out of the settings.
    pub bounds: Bounds,
    /// Where events go.
    pub sink: Sink,
    /// The store; none in mode `null`.
    pub store: Option<Offload>,
    /// API keys.
    pub keys: Arc<Keys>,
    /// Who has which `dedup_id`.
    pub dedup: Arc<Dedup>,
    /// Answers to repeat.
    pub idempotency: Idempotency,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// `ingest_http_requests` of the one route and status that is hot, looked up once.
    pub accepted: Counter,
    /// The last event was refused because the pending buffer was full.
    pending_refused: AtomicBool,
    /// Set when the server is stopping.
    pub stopping: AtomicBool,
    /// Where webhooks may lead.
    pub webhook_guard: Arc<Guard>,
    /// Faults on purpose.
    pub faults: Option<Faults>,
    /// `--otlp`.
    pub telemetry: Option<Telemetry>,
}

impl App {
    /// Puts the parts together.
    pub fn new(
        settings: Settings,
        sink: Sink,
        store: Option<Offload>,
        dedup: Dedup,
        metrics: Arc<Metrics>,
        faults: Option<Faults>,
        telemetry: Option<Telemetry>,
    ) -> Self {
        let limits = &settings.limits;
        let bounds = Bounds {
            payload_bytes_max: limits.payload_bytes_max,
            json_depth_max: limits.json_depth_max,
            batch_items_max: count(limits.batch_items_max),
        };
        let hot = RequestLabels { route: crate::call::EVENTS, status: 202 };
        let accepted = metrics.http_requests.get_or_create(&hot).clone();
        let keys = Keys::new(limits, store.clone(), CacheCounters::new(&metrics, "keys"));
        let idempotency = Idempotency::new(limits, CacheCounters::new(&metrics, "idempotency"));
        let webhook_guard =
            Guard::new(limits.webhook_url_bytes_max, settings.webhook_private_addresses, address::system());
        Self {
            webhook_guard: Arc::new(webhook_guard),
            bounds,
            sink,
            store,
            keys,
            dedup: Arc::new(dedup),
            idempotency,
            metrics,
            accepted,
            pending_refused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            faults,
            telemetry,
            settings,
        }
    }

    /// What an acknowledgement is worth here.
    pub fn durability(&self) -> &'static str {
        match &self.sink {
            Sink::Queue { queue, .. } => queue.durability().name(),
            _ => self.settings.durability(),
        }
    }

    /// Whether nothing is checked and nothing is kept.
    pub fn is_null(&self) -> bool {
        self.settings.mode == Mode::Null
    }

    /// The pending buffer of this process, in the modes that have one.
    pub fn pending(&self) -> Option<&Arc<Pending>> {
        match &self.sink {
            Sink::Pending(pending) | Sink::Journal { pending, .. } | Sink::Queue { pending, .. } => Some(pending),
            Sink::Nowhere | Sink::Writer(_) => None,
        }
    }

    /// The journal, in the mode that has one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        match &self.sink {
            Sink::Journal { journal, .. } => Some(journal),
            _ => None,
        }
    }

    /// The queue outside of this process, where there is one.
    pub fn queue(&self) -> Option<&Arc<Queue>> {
        match &self.sink {
            Sink::Queue { queue, .. } => Some(queue),
            _ => None,
        }
    }

    /// An event of this organisation that is acknowledged and may not be in the store yet. Asked before the store: an event leaves only
    /// after that has it.
    pub async fn find_pending(&self, organization_id: Uuid, id: Uuid) -> Result<Option<Arc<Event>>, Problem> {
        let mut found = self.pending().and_then(|pending| pending.get(id));
        if let (None, Some(queue)) = (&found, self.queue()) {
            found = queue.find(id).await?.map(Arc::new);
        }
        Ok(found.filter(|event| event.organization_id == organization_id))
    }

    /// Whether events of one request should be kept side by side, because each waits for something that all can share.
    pub fn shares_waits(&self) -> bool {
        matches!(self.sink, Sink::Journal { .. } | Sink::Queue { .. } | Sink::Writer(_))
    }

    /// Counts a request, or an item of a batch, that was refused.
    pub fn count_rejected(&self, problem: &Problem) {
        if !matches!(problem, Problem::Duplicate(_)) {
            self.metrics.events_rejected.get_or_create(&ReasonLabel { reason: problem.name() }).inc();
        }
    }

    /// Counts an answer.
    pub fn count_request(&self, route: &'static str, status: StatusCode) {
        self.metrics.http_requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }

    /// Brings the gauges of what this process holds up to date in the metrics.
    pub async fn measure(&self) {
        match (self.queue(), self.pending()) {
            (Some(queue), _) => queue.look().await,
            (None, Some(pending)) => pending.report(&self.metrics),
            (None, None) => {}
        }
        for (cache, entries) in [
            ("dedup", self.dedup.entries()),
            ("keys", self.keys.entries()),
            ("idempotency", self.idempotency.entries()),
        ] {
            self.metrics
                .cache_entries
                .get_or_create(&CacheLabel { cache })
                .set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
        if let Some(telemetry) = &self.telemetry {
            let counts = telemetry.exporter().counts();
            for (outcome, spans) in
                [("sent", counts.spans_sent), ("dropped", counts.spans_dropped), ("lost", counts.spans_lost)]
            {
                let counter = self.metrics.otlp_spans.get_or_create(&OutcomeLabel { outcome }).clone();
                counter.inner().store(spans, Ordering::Relaxed);
            }
        }
    }

    /// Puts an event where the mode wants it; resolves once it is as durable as its acknowledgement will say. Gives the entry back
    /// when the event is in or its `dedup_id` is another's.
    pub async fn keep(&self, event: Arc<Event>, entry: Option<Entry>) -> Result<(Inserted, Option<Entry>), Problem> {
        match &self.sink {
            Sink::Nowhere => Ok((Inserted::New, entry)),
            Sink::Pending(pending) => {
                self.note_full(pending.put(event).map_err(|_| Problem::Full)).map(|()| (Inserted::New, entry))
            }
            Sink::Queue { queue, .. } => self.enqueue(queue, &event).await.map(|inserted| (inserted, entry)),
            Sink::Journal { journal, .. } => {
                self.note_full(journal.write(event, entry).await).map(|entry| (Inserted::New, entry))
            }
            // An insert whose sender is gone needs no entry: the next one with this dedup_id finds the row.
            Sink::Writer(writer) => writer.write(event).await.map(|inserted| (inserted, entry)),
        }
    }

    /// Puts an event into the queue, which knows who holds its `dedup_id`, or that the store has to be asked.
    async fn enqueue(&self, queue: &Queue, event: &Event) -> Result<Inserted, Problem> {
        let mut put = queue.put(event, Holder::Unknown).await?;
        if let (Put::Unknown, Some(store), Some(dedup_id)) = (put, &self.store, event.dedup_id.clone()) {
            let (organization_id, since_us) = (event.organization_id, self.dedup.since_us(event.created_at_us));
            let find = move |store: Store| async move { store.find_dedup(organization_id, &dedup_id, since_us).await };
            put = match store.call(find).await? {
                Some(first) => Put::DuplicateOf(first),
                None => queue.put(event, Holder::NotInStore).await?,
            };
        }
        match put {
            Put::New => Ok(Inserted::New),
            Put::DuplicateOf(first) => Ok(Inserted::DuplicateOf(first)),
            Put::Unknown => Err(Problem::Internal),
        }
    }

    /// Remembers whether the pending buffer was full.
    fn note_full<T>(&self, taken: Result<T, Problem>) -> Result<T, Problem> {
        let refused = matches!(taken, Err(Problem::Full));
        if refused != self.pending_refused.load(Ordering::Relaxed) {
            self.pending_refused.store(refused, Ordering::Relaxed);
        }
        taken
    }

    /// Full by events; or by bytes, which are never exactly at their bound: so the last event was refused, and it has not
    /// drained since.
    fn is_pending_full(&self) -> bool {
        let (Some(pending), limits) = (self.pending(), &self.settings.limits) else { return false };
        let refused = self.pending_refused.load(Ordering::Relaxed);
        pending.events() >= count(limits.pending_events_max)
            || (refused && pending.bytes() > count(limits.pending_bytes_max) / 2)
    }

    /// Why the server cannot take events right now (rule O1): nothing when it can.
    pub async fn unready(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if let Some(queue) = self.queue() {
            queue.look().await;
            reasons.extend(queue.unready());
        }
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("stopping");
        }
        if self.store.is_some() && self.metrics.store_available.get() == 0 {
            reasons.push("database-unavailable");
        }
        if self.queue().is_none() && self.is_pending_full() {
            reasons.push("pending-full");
        }
        reasons.extend(self.journal().and_then(|journal| journal.unready()));
        reasons
    }

    /// Whose key the request carries, and one cell of its rate limit.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<(Arc<Organization>, KeyHash), Problem> {
        let (organization, key_hash) = self.keys.authenticate(headers).await?;
        self.limit(&organization).await?;
        Ok((organization, key_hash))
    }

    /// Takes one cell of the organisation's rate limit.
    pub async fn limit(&self, organization: &Organization) -> Result<(), Problem> {
        organization.limiter.take()?;
        match self.queue() {
            None => Ok(()),
            Some(queue) => queue.take_cells(organization, 1).await.1.map_or(Ok(()), Err),
        }
    }

    /// Takes as many cells of the organisation's rate limit as there are of those wanted: how many, and if not all, why.
    pub async fn limit_many(&self, organization: &Organization, wanted: usize) -> (usize, Option<Problem>) {
        let mut refusal = None;
        let taken =
            (0..wanted).take_while(|_| organization.limiter.take().map_err(|why| refusal = Some(why)).is_ok()).count();
        let Some(queue) = self.queue() else { return (taken, refusal) };
        let (shared, why) = queue.take_cells(organization, taken).await;
        (shared, why.or(refusal))
    }
}
