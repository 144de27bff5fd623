//! The life of one server: which threads there are, in what order things start, and in what order they end.
//!
//! Threads. *Answering* threads, each with a single-threaded runtime, serve connections and never touch the database. The
//! *background* runtime has two threads that own the store's connections, the processor and the db-first writer. In
//! `cache-first` and `journal-first` these run at a lower priority, because there persisting is behind the answer and must not delay it; in
//! `db-first` the store is on the answer's way, so they don't. (SQLite's own threads inherit the priority of the thread that opens the
//! connection, so the store is opened on the background runtime.) A queue in Redis is drained there, and each answering thread has a connection of
//! its own to it. The journal has two threads of its own, one that writes and syncs and one that makes files ahead. One *supervisor* thread owns all of these.
//!
//! Order of stopping (rule O5): say so in `/readyz`, stop accepting, finish requests (for at most half of
//! `--shutdown-timeout-ms`), persist what is pending (for the other half), close the journal and the database. What is left is reported by
//! number; in `journal-first` it is in the journal and not lost, and so with a queue in Redis it is there. A journal whose disk fails stops the server in the same way, and so does a part
//! that ends by a defect ([`crate::alive`]).

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::alive::{Pulse, alive};
use crate::app::{App, Sink};
use crate::cache_counters::CacheCounters;
use crate::config::{Mode, QueueAt, Settings, SettingsError, count, ms};
use crate::dedup::Dedup;
use crate::delivery::{self, Deliveries, DeliverySettings};
use crate::doorbell::Doorbell;
use crate::event::Event;
use crate::fault::spec::Part;
use crate::fault::{self, Faults};
use crate::http::{self, Answerer};
use crate::journal::{Journal, JournalError, JournalSettings, Opened};
use crate::metrics::{BuildInfo, Metrics, SettingLabels};
use crate::offload::Offload;
use crate::pending::Pending;
use crate::polling::Schedule;
use crate::processor::{Processor, ProcessorSettings};
use crate::queue::drain::{Drain, DrainSettings};
use crate::queue::{Queue, QueueError, QueueSettings};
use crate::store::{Handling, Inserted, Store, StoreError, StoreLimits, now_us};
use crate::telemetry::{self, Telemetry};
use crate::writer::Writer;

/// Threads of the background runtime: one can write while the other reads.
const BACKGROUND_THREADS: usize = 2;
/// How much lower the priority of the background threads is where persisting is behind the answer.
const BACKGROUND_NICE: i32 = 10;
/// Events of the journal that the store is asked about, or takes, in one statement.
const EVENTS_AT_ONCE: usize = 1_000;
/// Connections that wait to be accepted; the system may allow fewer (`net.core.somaxconn`). What does not fit is asked for again by its
/// sender's kernel a second later: with 128, ten thousand connections took 40 s.
const CONNECTIONS_WAITING_MAX: i32 = 4096;
/// Files that are open besides connections: databases, libraries, event queues.
const FILES_BESIDES_CONNECTIONS: u64 = 128;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting that cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {error}; choose another --listen (port 0 takes a free one)")]
    Listen {
        /// --listen
        address: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Redis.
    #[error(
        "cannot use the Redis of --queue: {0}; check that it runs there, and that the user and the password are right"
    )]
    Queue(#[from] QueueError),
    /// --realtime
    #[error(
        "--realtime: this process may not let threads go before others ({0}); run it as root or with CAP_SYS_NICE, raise its rtprio \
         limit to 2 (ulimit -r 2), or leave --realtime out"
    )]
    Realtime(io::Error),
    /// Threads, signals.
    #[error("the system refused something that the server needs to run: {0}")]
    System(#[from] io::Error),
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Stopped {
    /// Events that were acknowledged and are not in the database, which did not take them in time.
    pub unpersisted_events: usize,
    /// They are in the journal or in Redis, and are taken up at the next start (those in Redis by any process).
    pub is_recoverable: bool,
    /// The journal's disk failed.
    pub is_journal_broken: bool,
    /// The part that ended by a defect, and the server with it.
    pub dead_part: Option<&'static str>,
}

impl Stopped {
    /// Nothing was acknowledged, so nothing is lost.
    const NEVER_STARTED: Self =
        Self { unpersisted_events: 0, is_recoverable: false, is_journal_broken: false, dead_part: None };

    /// 0, or 1 when acknowledged events were lost, the journal's disk failed, or a part of the server did.
    pub fn exit_code(self) -> ExitCode {
        let nothing_lost = self.unpersisted_events == 0 || self.is_recoverable;
        let is_whole = !self.is_journal_broken && self.dead_part.is_none();
        if nothing_lost && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Stopped {
    fn log(self, place: &str) {
        match self.unpersisted_events {
            0 => tracing::info!("stopped; everything acknowledged is persisted"),
            events if self.is_recoverable => tracing::warn!(
                events,
                "stopped; the database did not take this many acknowledged events in time: they are in {place}, and the next start takes them up"
            ),
            events => tracing::error!(
                events,
                "stopped; this many acknowledged events could not be persisted in time and are lost"
            ),
        }
    }
}

/// A server that runs in this process. Dropping it stops it as [`Running::shutdown`] does.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: watch::Sender<bool>,
    /// Its sender goes when the supervisor ends.
    ended: watch::Receiver<()>,
    supervisor: Option<JoinHandle<Stopped>>,
}

impl Running {
    /// `http://ADDR:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Tells it to stop, and doesn't wait.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
    }

    /// Resolves when it has ended by itself.
    async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Stops it, and waits until it has; at most about `--shutdown-timeout-ms`.
    pub fn shutdown(mut self) -> Stopped {
        self.end()
    }

    fn end(&mut self) -> Stopped {
        self.stop();
        let ended = self.supervisor.take().map(JoinHandle::join);
        // A supervisor that panicked has lost count; nothing in it should.
        ended.and_then(Result::ok).unwrap_or(Stopped::NEVER_STARTED)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Runs a server until SIGTERM, SIGINT or (with `--exit-with-stdin`) the end of standard input. Once it listens it prints one
/// line to standard output: `listening on http://ADDR:PORT`. Blocks; must not be called from within an async runtime.
pub fn run(settings: Settings) -> Result<Stopped, ServeError> {
    let exit_with_stdin = settings.exit_with_stdin;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Before anything is acknowledged: a signal must never find its default action.
    let (mut terminated, mut interrupted) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let running = start(settings)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {}", running.url())?;
    stdout.flush()?;
    let reason = runtime.block_on(async {
        tokio::select! {
            () = running.ended() => "it cannot go on; the reason is above",
            _ = terminated.recv() => "SIGTERM",
            _ = interrupted.recv() => "SIGINT",
            () = stdin_ended(exit_with_stdin) => "the end of standard input",
        }
    });
    tracing::info!(reason, "stopping");
    Ok(running.shutdown())
}

async fn stdin_ended(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel();
    // A thread of its own: it may block for as long as the process lives.
    let reader = thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut scratch = [0u8; 1024];
        while matches!(io::stdin().read(&mut scratch), Ok(1..)) {}
        let _ = ended.send(());
    });
    if reader.is_err() {
        tracing::error!("cannot watch standard input: --exit-with-stdin has no effect");
        return std::future::pending().await;
    }
    let _ = end.await;
}

/// Starts a server and returns once it listens.
pub fn start(settings: Settings) -> Result<Running, ServeError> {
    settings.validate()?;
    if settings.realtime {
        scheduling::try_out(|| scheduling::take(scheduling::Urgency::Journal)).map_err(ServeError::Realtime)?;
    }
    raise_file_limit(settings.limits.connections_max + FILES_BESIDES_CONNECTIONS);
    let listen = |error| ServeError::Listen { address: settings.listen, error };
    let listener = TcpListener::bind(settings.listen).map_err(listen)?;
    // Once more, with a longer queue than the 128 of the standard library.
    rustix::net::listen(&listener, CONNECTIONS_WAITING_MAX).map_err(|error| listen(error.into()))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let (alive, ended) = watch::channel(());
    let (ready, started) = mpsc::sync_channel(1);
    let supervise = move || {
        let _alive = alive;
        match Server::start(settings, listener) {
            Err(error) => {
                let _ = ready.send(Err(error));
                Stopped::NEVER_STARTED
            }
            Ok(server) => {
                let _ = ready.send(Ok(()));
                server.supervise(stopped)
            }
        }
    };
    let supervisor = thread::Builder::new().name("supervisor".into()).spawn(supervise)?;
    match started.recv() {
        Ok(Ok(())) => Ok(Running { addr, stop, ended, supervisor: Some(supervisor) }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ServeError::System(io::Error::other("the supervisor thread ended at start"))),
    }
}

/// A process may open 1,024 files by default on many systems, which is fewer connections than are asked for.
fn raise_file_limit(files: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= files) {
        return;
    }
    let allowed = maximum.map_or(files, |maximum| maximum.min(files));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    if raised.is_err() || allowed < files {
        tracing::warn!(
            allowed,
            wanted = files,
            "the system allows fewer open files than --connections-max needs: raise 'ulimit -n'"
        );
    }
}

/// All parts of a running server; owned by the supervisor thread.
struct Server {
    app: Arc<App>,
    store: Option<Store>,
    processor: Option<Processor>,
    deliveries: Option<Deliveries>,
    drain: Option<Drain>,
    sending: Option<otlp::Running>,
    background: Runtime,
    threads: Vec<JoinHandle<()>>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    /// Those that live as long as the server, by name.
    parts: Vec<(&'static str, Pulse)>,
    stop_accepting: watch::Sender<bool>,
    end_threads: watch::Sender<bool>,
    shutdown_timeout: Duration,
}

impl Server {
    fn start(settings: Settings, listener: TcpListener) -> Result<Self, ServeError> {
        let background = background(settings.mode)?;
        let shutdown_timeout = ms(settings.limits.shutdown_timeout_ms);
        let parts = background.block_on(open(settings.clone(), background.handle().clone()));
        let Parts { app, store, processor, deliveries, writer, drain, sending } = parts?;
        let (stop_accepting, stopped) = watch::channel(false);
        let (end_threads, end) = watch::channel(false);
        let (answerers, threads) = answering_threads(settings.http_threads(), settings.realtime, &end)?;
        let (alive, accepting) = alive();
        let runtime = answerers[0].runtime.clone();
        let accept = http::serve(Arc::clone(&app), listener, answerers, stopped);
        let serving = runtime.spawn(async move {
            let _alive = alive;
            accept.await.inspect_err(|error| tracing::error!(%error, "no connection can be accepted"))
        });
        let pulses = [
            ("accepting", Some(accepting)),
            ("processor", processor.as_ref().map(Processor::pulse)),
            ("writer", writer),
            ("deliveries", deliveries.as_ref().map(Deliveries::pulse)),
            ("journal", app.journal().map(|journal| journal.pulse())),
            ("drain", drain.as_ref().map(Drain::pulse)),
        ];
        let parts = pulses.into_iter().filter_map(|(name, pulse)| Some((name, pulse?))).collect();
        background.spawn(tell_metrics(Arc::clone(&app)));
        Ok(Self {
            app,
            store,
            processor,
            deliveries,
            drain,
            sending,
            background,
            threads,
            serving,
            parts,
            stop_accepting,
            end_threads,
            shutdown_timeout,
        })
    }

    fn supervise(mut self, mut stopped: watch::Receiver<bool>) -> Stopped {
        let journal = self.app.journal().cloned();
        let parts = std::mem::take(&mut self.parts);
        let dead_part = self.background.block_on(async {
            tokio::select! {
                // An error means that the owner is gone, which is a wish to stop too.
                _ = stopped.wait_for(|stop| *stop) => None,
                () = broken(journal.as_deref()) => None,
                part = first_to_end(parts) => Some(part),
            }
        });
        if let Some(part) = dead_part.filter(|_| !journal.as_ref().is_some_and(|journal| journal.is_broken())) {
            tracing::error!(
                part,
                "a part of the server has ended by a defect (the reason is above): the server stops, since nobody would do that part's work"
            );
        }
        self.app.stopping.store(true, Ordering::Relaxed);
        let _ = self.stop_accepting.send(true);
        self.deliveries.iter_mut().for_each(Deliveries::stop);
        let finished =
            self.background.block_on(async { tokio::time::timeout(self.shutdown_timeout / 2, self.serving).await });
        if finished.is_err() {
            tracing::warn!(
                connections = self.app.metrics.connections.get(),
                "some connections did not finish in time and are cut"
            );
        }
        let _ = self.end_threads.send(true);
        for thread in self.threads {
            let _ = thread.join();
        }
        let pending = self.app.pending().cloned();
        self.background.block_on(async {
            self.drain.iter().for_each(Drain::finish);
            if let Some(processor) = self.processor {
                processor.shutdown().await;
            }
            if let (Some("processor"), Some(store), Some(pending)) = (dead_part, &self.store, &pending) {
                // What the dead one had in hand is pending again, and need not be lost with it.
                let settings = ProcessorSettings { panics: false, ..processor_settings(&self.app.settings) };
                let metrics = Arc::clone(&self.app.metrics);
                Processor::spawn(store.clone(), Arc::clone(pending), metrics, settings).shutdown().await;
            }
            if let Some(drain) = self.drain.take() {
                drain.close().await;
            }
            if let Some(journal) = &journal {
                journal.close();
            }
            if let Some(deliveries) = self.deliveries {
                deliveries.shutdown().await;
            }
            if let Some(store) = self.store {
                // The others need not wait for their next poll to find what this one leaves.
                let _ = tokio::time::timeout(Duration::from_secs(1), store.announce()).await;
                let _ = tokio::time::timeout(Duration::from_secs(1), store.close()).await;
            }
        });
        self.background.block_on(tell_last(&self.app, self.sending));
        self.background.shutdown_background();
        let stopped = Stopped {
            unpersisted_events: pending.map_or(0, |pending| pending.events()),
            is_recoverable: journal.is_some() || self.app.queue().is_some(),
            is_journal_broken: journal.is_some_and(|journal| journal.is_broken()),
            dead_part,
        };
        stopped.log(if self.app.queue().is_some() { "Redis" } else { "the journal" });
        stopped
    }
}

/// Tells the metrics now and then, if anybody is to be told; ends with the runtime.
async fn tell_metrics(app: Arc<App>) {
    let Some(told) = &app.telemetry else { return };
    loop {
        tokio::time::sleep(telemetry::METRICS_INTERVAL).await;
        app.measure().await;
        told.tell_metrics(&app.metrics.encode());
    }
}

/// Tells them a last time, and waits for a bounded time until everything is sent.
async fn tell_last(app: &App, running: Option<otlp::Running>) {
    let (Some(told), Some(running)) = (&app.telemetry, running) else { return };
    app.measure().await;
    told.tell_metrics(&app.metrics.encode());
    let counts = tokio::task::spawn_blocking(move || running.stop()).await;
    if let Ok(counts) = counts {
        tracing::info!(?counts, "what became of the spans and metrics");
    }
}

/// The name of the part that ends first; never returns without parts.
async fn first_to_end(parts: Vec<(&'static str, Pulse)>) -> &'static str {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    for (name, pulse) in parts {
        let tell = tell.clone();
        tokio::spawn(async move {
            pulse.stopped().await;
            // Nobody listens any more when the server ends as it should.
            let _ = tell.send(name).await;
        });
    }
    match told.recv().await {
        Some(name) => name,
        None => std::future::pending().await,
    }
}

/// Resolves when the journal's disk has failed; never without a journal.
async fn broken(journal: Option<&Journal>) {
    match journal {
        Some(journal) => journal.broken().await,
        None => std::future::pending().await,
    }
}

fn background(mode: Mode) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(BACKGROUND_THREADS).thread_name("background").enable_all();
    if matches!(mode, Mode::CacheFirst | Mode::JournalFirst) {
        builder.on_thread_start(|| {
            scheduling::go_later(BACKGROUND_NICE);
        });
    }
    builder.build()
}

/// Starts the threads that answer; each lives until `end`.
fn answering_threads(
    threads: usize,
    realtime: bool,
    end: &watch::Receiver<bool>,
) -> io::Result<(Vec<Answerer>, Vec<JoinHandle<()>>)> {
    let (mut answerers, mut joins) = (Vec::with_capacity(threads), Vec::with_capacity(threads));
    for index in 0..threads {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        answerers.push(Answerer { runtime: runtime.handle().clone(), connections: Arc::new(AtomicUsize::new(0)) });
        let mut end = end.clone();
        let answer = move || {
            if realtime {
                scheduling::take_or_log(scheduling::Urgency::Answering);
            }
            let _ = runtime.block_on(end.wait_for(|end| *end));
        };
        joins.push(thread::Builder::new().name(format!("answer-{index}")).spawn(answer)?);
    }
    Ok((answerers, joins))
}

struct Parts {
    app: Arc<App>,
    store: Option<Store>,
    processor: Option<Processor>,
    deliveries: Option<Deliveries>,
    writer: Option<Pulse>,
    drain: Option<Drain>,
    sending: Option<otlp::Running>,
}

/// Opens the store and puts everything together. On the supervisor's thread, whose priority those threads inherit that are started here (the
/// journal's, which are on the way of every answer); only the store is opened by the background runtime, whose priority is its own.
async fn open(settings: Settings, background: tokio::runtime::Handle) -> Result<Parts, ServeError> {
    let metrics = Arc::new(Metrics::new(&build_info(&settings)));
    let counters = CacheCounters::new(&metrics, "dedup");
    let limits = settings.limits.clone();
    let faults = Faults::start(&settings.faults(), settings.fault_seed, Arc::clone(&metrics))?;
    let (telemetry, sending) = Telemetry::start(&settings)?.unzip();
    let exporter = telemetry.as_ref().map(|telemetry: &Telemetry| telemetry.exporter().clone());
    if settings.mode == Mode::Null {
        let dedup = Dedup::new(&limits, None, counters);
        let app = Arc::new(App::new(settings, Sink::Nowhere, None, dedup, metrics, faults, telemetry));
        return Ok(Parts { app, store: None, processor: None, deliveries: None, writer: None, drain: None, sending });
    }
    let store = {
        let (database, limits, metrics) = (settings.database.clone(), store_limits(&settings), Arc::clone(&metrics));
        let connecting = background.spawn(async move { Store::connect(&database, limits, metrics).await });
        connecting.await.map_err(io::Error::other)??
    };
    say_durability(&settings, &store, &metrics).await?;
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let pending = Pending::new(count(limits.pending_events_max), count(limits.pending_bytes_max));
    let pending = Arc::new(if settings.queue == QueueAt::Memory { pending } else { pending.telling(tell) });
    let dedup = Dedup::new(&limits, (settings.mode != Mode::DbFirst).then(|| Arc::clone(&pending)), counters);
    if settings.mode != Mode::JournalFirst {
        empty_journal(&settings, &store).await?;
    }
    let mut writer_pulse = None;
    let sink = match settings.mode {
        Mode::Null => Sink::Nowhere,
        Mode::CacheFirst => match &settings.queue {
            QueueAt::Memory => Sink::Pending(Arc::clone(&pending)),
            QueueAt::Redis(url) => {
                let settings = QueueSettings { exporter, ..QueueSettings::new(&limits) };
                let queue = Queue::open(url, settings, Arc::clone(&metrics)).await?;
                Sink::Queue { queue, pending: Arc::clone(&pending) }
            }
        },
        Mode::JournalFirst => {
            let journal = open_journal(&settings, &store, &pending, &dedup, &metrics).await?;
            Sink::Journal { journal: Arc::new(journal), pending: Arc::clone(&pending) }
        }
        Mode::DbFirst => {
            let panics = fault::panics(&settings.faults(), Part::Writer);
            let (writer, pulse) = Writer::start(store.clone(), Arc::clone(&pending), &background, &limits, panics);
            writer_pulse = Some(pulse);
            Sink::Writer(writer)
        }
    };
    let mut drain = None;
    if let Sink::Queue { queue, pending } = &sink {
        // On the background runtime, as persisting is.
        let start =
            Drain::start(Arc::clone(queue), Arc::clone(pending), told, store.clone(), DrainSettings::new(&limits));
        drain = Some(background.spawn(start).await.map_err(io::Error::other)?);
    } else {
        warm(&dedup, &store, count(limits.dedup_entries_max)).await?;
    }
    background.spawn(listen(store.doorbell().clone(), Arc::clone(&pending)));
    let processor = Processor::spawn(store.clone(), pending, Arc::clone(&metrics), processor_settings(&settings));
    let offload = Offload::new(store.clone(), background, ms(limits.store_timeout_ms));
    let delivery = delivery_settings(&settings);
    let app = Arc::new(App::new(settings, sink, Some(offload), dedup, Arc::clone(&metrics), faults, telemetry));
    let deliveries = Deliveries::start(store.clone(), Arc::clone(&app.webhook_guard), metrics, delivery).await?;
    let (processor, deliveries) = (Some(processor), Some(deliveries));
    Ok(Parts { app, store: Some(store), processor, deliveries, writer: writer_pulse, drain, sending })
}

/// Has the processor look into the store whenever another process announces something; ends with the runtime.
async fn listen(doorbell: Arc<Doorbell>, pending: Arc<Pending>) {
    loop {
        doorbell.announced().await;
        pending.wake();
    }
}

/// Makes known in this process who holds which `dedup_id`.
async fn warm(dedup: &Dedup, store: &Store, entries_max: usize) -> Result<(), StoreError> {
    let now_us = now_us();
    let (rows, all) = store.recent_dedup(dedup.since_us(now_us), entries_max).await?;
    tracing::info!(dedup_ids = rows.len(), all, "the index of dedup_ids is warm");
    dedup.warm(rows, all, now_us);
    Ok(())
}

/// Says what the store says of its own durability, and whether that is less than what acknowledgements promise.
async fn say_durability(settings: &Settings, store: &Store, metrics: &Metrics) -> Result<(), StoreError> {
    for (name, value) in store.durability_settings().await? {
        tracing::info!(name, value, "durability of the store, as it says itself");
        if settings.durability() != "memory" && is_weak(&name, &value) {
            tracing::warn!(
                name,
                value,
                "the database's commits do not survive a power loss, so acknowledgements say more than they are worth: change the database's setting"
            );
        }
        metrics.store_settings.get_or_create(&SettingLabels { name, value }).set(1);
    }
    Ok(())
}

/// Whether a commit of a database with this setting may be lost with the machine. (A segment of the journal goes when its events are committed.)
fn is_weak(name: &str, value: &str) -> bool {
    matches!(
        (name, value),
        ("fsync" | "full_page_writes" | "synchronous_commit" | "synchronous", "off") | ("synchronous", "normal")
    )
}

/// Reads the journal, makes pending what the store does not have, and begins to write.
async fn open_journal(
    settings: &Settings,
    store: &Store,
    pending: &Arc<Pending>,
    dedup: &Dedup,
    metrics: &Arc<Metrics>,
) -> Result<Journal, ServeError> {
    let opened = Opened::open(&settings.journal_dir())?;
    let missing = missing_events(&opened, store).await?;
    let rows: Vec<_> =
        missing.iter().filter_map(|event| Some((event.organization_id, event.dedup_id.clone()?, event.id))).collect();
    tracing::info!(events = opened.events().count(), not_persisted = missing.len(), "the journal is read");
    let missing = missing.iter().map(|event| event.id).collect();
    let syncs_extra = fault::journal_syncs(&settings.faults());
    let panics = fault::panics(&settings.faults(), Part::Journal);
    let settings = JournalSettings {
        syncs_extra,
        panics,
        realtime: settings.realtime,
        ..JournalSettings::new(settings.journal_sync, &settings.limits)
    };
    let journal = opened.start(&missing, Arc::clone(pending), settings, Arc::clone(metrics))?;
    dedup.warm(rows, true, now_us());
    Ok(journal)
}

/// In the modes without a journal: brings what an earlier server left in one into the store, so that a change of mode loses nothing.
async fn empty_journal(settings: &Settings, store: &Store) -> Result<(), ServeError> {
    let folder = settings.journal_dir();
    if !folder.exists() {
        return Ok(());
    }
    let opened = Opened::open(&folder)?;
    let missing = missing_events(&opened, store).await?;
    for some in missing.chunks(EVENTS_AT_ONCE) {
        for (event, outcome) in some.iter().zip(store.insert(some, Handling::Done).await?) {
            if let Inserted::DuplicateOf(first) = outcome {
                tracing::warn!(id = %event.id, %first, "an acknowledged event of the journal is a duplicate of one that another process took in");
            }
        }
    }
    if !missing.is_empty() {
        tracing::warn!(
            events = missing.len(),
            mode = settings.mode.name(),
            "an earlier server in mode journal-first left these events in its journal; the database has them now"
        );
    }
    opened.empty()?;
    Ok(())
}

/// The events of a journal that the store does not have.
async fn missing_events(opened: &Opened, store: &Store) -> Result<Vec<Arc<Event>>, StoreError> {
    let events: Vec<_> = opened.events().collect();
    let mut missing = Vec::new();
    for some in events.chunks(EVENTS_AT_ONCE) {
        let ids: Vec<Uuid> = some.iter().map(|event| event.id).collect();
        let existing: HashSet<Uuid> = store.existing(&ids).await?.into_iter().collect();
        missing
            .extend(some.iter().filter(|event| !existing.contains(&event.id)).map(|event| Arc::new((*event).clone())));
    }
    Ok(missing)
}

fn processor_settings(settings: &Settings) -> ProcessorSettings {
    let limits = &settings.limits;
    let schedule = Schedule {
        fixed_interval: ms(limits.poll_interval_ms_fixed),
        base_interval: ms(limits.poll_interval_ms),
        backoff_interval_max: ms(limits.poll_interval_ms_max),
        deep_idle_after_polls: u32::try_from(limits.deep_idle_after_polls).unwrap_or(u32::MAX),
        deep_idle_interval: ms(limits.deep_idle_interval_ms),
    };
    ProcessorSettings {
        policy: settings.polling,
        schedule,
        batch_events_max: count(limits.batch_events_max),
        queries_extra: fault::poll_queries(&settings.faults()),
        panics: fault::panics(&settings.faults(), Part::Processor),
        lease: Duration::from_secs(limits.claim_lease_s),
        drain_timeout: ms(limits.shutdown_timeout_ms) / 2,
    }
}

fn delivery_settings(settings: &Settings) -> DeliverySettings {
    let limits = &settings.limits;
    let (drop_share, duplicate_share) = fault::webhook_shares(&settings.faults());
    DeliverySettings {
        schedule: delivery::schedule::Schedule {
            attempts_max: u32::try_from(limits.webhook_attempts_max).unwrap_or(u32::MAX),
            wait_first: ms(limits.webhook_wait_ms),
            wait_factor: u32::try_from(limits.webhook_wait_factor).unwrap_or(u32::MAX),
            wait_max: ms(limits.webhook_wait_ms_max),
            retry_after_max: Duration::from_secs(limits.webhook_retry_after_s_max),
        },
        bounds: delivery::client::Bounds {
            timeout: ms(limits.webhook_timeout_ms),
            connect_timeout: ms(limits.webhook_connect_timeout_ms),
            response_bytes_max: limits.webhook_response_bytes_max,
            idle_connections_max: count(limits.webhook_organization_attempts_max),
        },
        running_max: count(limits.webhook_attempts_running_max),
        organization_running_max: count(limits.webhook_organization_attempts_max),
        lease: ms(limits.webhook_lease_ms),
        drain_timeout: ms(limits.shutdown_timeout_ms) / 4,
        faults: delivery::Faults {
            seed: settings.fault_seed,
            drop_share,
            duplicate_share,
            panics: fault::panics(&settings.faults(), Part::Deliveries),
        },
    }
}

fn build_info(settings: &Settings) -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: settings.mode.name().into(),
        polling: format!("{:?}", settings.polling).to_lowercase(),
        database: settings.database.kind().into(),
        durability: settings.durability().into(),
        faults: fault::text(&settings.faults()),
    }
}

fn store_limits(settings: &Settings) -> StoreLimits {
    let limits = &settings.limits;
    let connections = u32::try_from(limits.database_connections_max).unwrap_or(u32::MAX);
    StoreLimits {
        postgres_connections_max: connections,
        sqlite_readers_max: connections,
        acquire_timeout: ms(limits.store_timeout_ms),
        statement_timeout: ms(limits.store_timeout_ms),
        dedup_window: Duration::from_secs(limits.dedup_window_s),
        sync: !fault::keeps_store_unsynced(&settings.faults()),
        commits_extra: fault::store_commits(&settings.faults()),
        page_bytes_max: count(limits.inbox_bytes_max),
    }
}
