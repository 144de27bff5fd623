//! The life of one server: which threads there are, in what order things start, and in what order they end.
//!
//! Threads. *Answering* threads, each with a single-threaded runtime, serve connections and never touch the database. The
//! *background* runtime has two threads that own the store's connections, the processor and the db-first writer. In
//! `cache-first` these run at a lower priority, because there persisting is behind the answer and must not delay it; in `db-first`
//! the store is on the answer's way, so they don't. (SQLite's own threads inherit the priority of the thread that opens the
//! connection, so the store is opened on the background runtime.) One *supervisor* thread owns all of these.
//!
//! Order of stopping (rule O5): say so in `/readyz`, stop accepting, finish requests (for at most half of
//! `--shutdown-timeout-ms`), persist what is pending (for the other half), close the database. What is left is reported by number.

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

use crate::app::{App, Sink};
use crate::cache_counters::CacheCounters;
use crate::config::{Limits, Mode, Settings, SettingsError, count, ms};
use crate::dedup::Dedup;
use crate::fault::{self, Faults};
use crate::http::{self, Answerer};
use crate::metrics::{BuildInfo, Metrics};
use crate::offload::Offload;
use crate::pending::Pending;
use crate::polling::Schedule;
use crate::processor::{Processor, ProcessorSettings};
use crate::store::{Store, StoreError, StoreLimits, now_us};
use crate::writer::Writer;

/// Threads of the background runtime: one can write while the other reads.
const BACKGROUND_THREADS: usize = 2;
/// How much lower the priority of the background threads is in `cache-first`.
const BACKGROUND_NICE: i32 = 10;
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
    /// Threads, signals.
    #[error("the system refused something that the server needs to run: {0}")]
    System(#[from] io::Error),
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Stopped {
    /// Events that were acknowledged and are lost, because the database did not take them in time.
    pub unpersisted_events: usize,
}

impl Stopped {
    /// 0, or 1 when acknowledged events were lost.
    pub fn exit_code(self) -> ExitCode {
        if self.unpersisted_events == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A server that runs in this process. Dropping it stops it as [`Running::shutdown`] does.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: watch::Sender<bool>,
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

    /// Stops it, and waits until it has; at most about `--shutdown-timeout-ms`.
    pub fn shutdown(mut self) -> Stopped {
        self.end()
    }

    fn end(&mut self) -> Stopped {
        self.stop();
        let ended = self.supervisor.take().map(JoinHandle::join);
        // A supervisor that panicked has lost count; nothing in it should.
        ended.and_then(Result::ok).unwrap_or(Stopped { unpersisted_events: 0 })
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
    raise_file_limit(settings.limits.connections_max + FILES_BESIDES_CONNECTIONS);
    let listen = |error| ServeError::Listen { address: settings.listen, error };
    let listener = TcpListener::bind(settings.listen).map_err(listen)?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let (ready, started) = mpsc::sync_channel(1);
    let supervisor =
        thread::Builder::new().name("supervisor".into()).spawn(move || match Server::start(settings, listener) {
            Err(error) => {
                let _ = ready.send(Err(error));
                Stopped { unpersisted_events: 0 }
            }
            Ok(server) => {
                let _ = ready.send(Ok(()));
                server.supervise(stopped)
            }
        })?;
    match started.recv() {
        Ok(Ok(())) => Ok(Running { addr, stop, supervisor: Some(supervisor) }),
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
    background: Runtime,
    threads: Vec<JoinHandle<()>>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    stop_accepting: watch::Sender<bool>,
    end_threads: watch::Sender<bool>,
    shutdown_timeout: Duration,
}

impl Server {
    fn start(settings: Settings, listener: TcpListener) -> Result<Self, ServeError> {
        let background = background(settings.mode)?;
        let shutdown_timeout = ms(settings.limits.shutdown_timeout_ms);
        let parts = {
            let (settings, handle) = (settings.clone(), background.handle().clone());
            background.block_on(background.spawn(async move { open(settings, handle).await }))
        };
        let Parts { app, store, processor } = parts.map_err(io::Error::other)??;
        let (stop_accepting, stopped) = watch::channel(false);
        let (end_threads, end) = watch::channel(false);
        let (answerers, threads) = answering_threads(settings.http_threads(), &end)?;
        let serving = answerers[0].runtime.clone().spawn(http::serve(Arc::clone(&app), listener, answerers, stopped));
        Ok(Self { app, store, processor, background, threads, serving, stop_accepting, end_threads, shutdown_timeout })
    }

    fn supervise(self, mut stopped: watch::Receiver<bool>) -> Stopped {
        // An error means that the owner is gone, which is a wish to stop too.
        let _ = self.background.block_on(stopped.wait_for(|stop| *stop));
        self.app.stopping.store(true, Ordering::Relaxed);
        let _ = self.stop_accepting.send(true);
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
            if let Some(processor) = self.processor {
                processor.shutdown().await;
            }
            if let Some(store) = self.store {
                let _ = tokio::time::timeout(Duration::from_secs(1), store.close()).await;
            }
        });
        let unpersisted_events = pending.map_or(0, |pending| pending.events());
        match unpersisted_events {
            0 => tracing::info!("stopped; everything acknowledged is persisted"),
            lost => tracing::error!(
                events = lost,
                "stopped; this many acknowledged events could not be persisted in time and are lost"
            ),
        }
        self.background.shutdown_background();
        Stopped { unpersisted_events }
    }
}

fn background(mode: Mode) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(BACKGROUND_THREADS).thread_name("background").enable_all();
    if mode == Mode::CacheFirst {
        builder.on_thread_start(|| {
            // On Linux the priority is the thread's; 0 is the calling one. Where it is refused, persisting is only less polite.
            let _ = rustix::process::setpriority_process(None, BACKGROUND_NICE);
        });
    }
    builder.build()
}

/// Starts the threads that answer; each lives until `end`.
fn answering_threads(threads: usize, end: &watch::Receiver<bool>) -> io::Result<(Vec<Answerer>, Vec<JoinHandle<()>>)> {
    let (mut answerers, mut joins) = (Vec::with_capacity(threads), Vec::with_capacity(threads));
    for index in 0..threads {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        answerers.push(Answerer { runtime: runtime.handle().clone(), connections: Arc::new(AtomicUsize::new(0)) });
        let mut end = end.clone();
        let answer = move || {
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
}

/// Opens the store and puts everything together; runs on the background runtime.
async fn open(settings: Settings, background: tokio::runtime::Handle) -> Result<Parts, ServeError> {
    let metrics = Arc::new(Metrics::new(&build_info(&settings)));
    let counters = CacheCounters::new(&metrics, "dedup");
    let limits = settings.limits.clone();
    let faults = Faults::start(&settings.faults(), settings.fault_seed, Arc::clone(&metrics))?;
    if settings.mode == Mode::Null {
        let dedup = Dedup::new(&limits, None, counters);
        let app = Arc::new(App::new(settings, Sink::Nowhere, None, dedup, metrics, faults));
        return Ok(Parts { app, store: None, processor: None });
    }
    let store = Store::connect(&settings.database, store_limits(&limits), Arc::clone(&metrics)).await?;
    let pending = Arc::new(Pending::new(count(limits.pending_events_max), count(limits.pending_bytes_max)));
    let cache_first = settings.mode == Mode::CacheFirst;
    let dedup = Dedup::new(&limits, cache_first.then(|| Arc::clone(&pending)), counters);
    let now_us = now_us();
    let (rows, all) = store.recent_dedup(dedup.since_us(now_us), count(limits.dedup_entries_max)).await?;
    tracing::info!(dedup_ids = rows.len(), all, "the index of dedup_ids is warm");
    dedup.warm(rows, all, now_us);
    let sink = match cache_first {
        true => Sink::Pending(Arc::clone(&pending)),
        false => Sink::Writer(Writer::start(store.clone(), Arc::clone(&pending), &background, &limits)),
    };
    let processor = Processor::spawn(store.clone(), pending, Arc::clone(&metrics), processor_settings(&settings));
    let offload = Offload::new(store.clone(), background, ms(limits.store_timeout_ms));
    let app = Arc::new(App::new(settings, sink, Some(offload), dedup, metrics, faults));
    Ok(Parts { app, store: Some(store), processor: Some(processor) })
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
        lease: Duration::from_secs(limits.claim_lease_s),
        drain_timeout: ms(limits.shutdown_timeout_ms) / 2,
    }
}

fn build_info(settings: &Settings) -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: settings.mode.name().into(),
        polling: format!("{:?}", settings.polling).to_lowercase(),
        database: settings.database.kind().into(),
        durability: settings.mode.durability().into(),
        faults: fault::text(&settings.faults()),
    }
}

fn store_limits(limits: &Limits) -> StoreLimits {
    let connections = u32::try_from(limits.database_connections_max).unwrap_or(u32::MAX);
    StoreLimits {
        postgres_connections_max: connections,
        sqlite_readers_max: connections,
        acquire_timeout: ms(limits.store_timeout_ms),
        statement_timeout: ms(limits.store_timeout_ms),
        dedup_window: Duration::from_secs(limits.dedup_window_s),
        page_bytes_max: count(limits.inbox_bytes_max),
    }
}
