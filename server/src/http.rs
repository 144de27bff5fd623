//! Connections: accepting them, dealing them out to the threads that answer, and serving HTTP/1.1 on each.
//!
//! Not here: what a request means ([`crate::routes`]). Every bound of a connection is a setting: their number, the size and the
//! count of header fields, the time for a head, the time for a body, and the time for doing nothing.

use std::io;
use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::http::header::CONNECTION;
use ::http::{HeaderValue, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::app::App;
use crate::call::Call;
use crate::config::{count, ms};
use crate::fault::HungUp;
use crate::problem::Problem;
use crate::routes;
use crate::wire::{self, Io, Phase, Watch};

/// Connections over the limit that may be told so at once; the rest is closed without a word.
const REFUSALS_MAX: usize = 64;
/// After the system refused a connection (no more files, no more memory), this long until the next attempt.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// One thread that answers: a way to give it connections, and how many it has.
#[derive(Clone, Debug)]
pub struct Answerer {
    /// Of its single-threaded runtime.
    pub runtime: Handle,
    /// Connections that it serves now.
    pub connections: Arc<AtomicUsize>,
}

/// Accepts until told to stop, giving each connection to the thread that has the fewest. (A shared listener or SO_REUSEPORT would
/// leave the balance to chance, and with a few long-lived connections chance is bad at it.) Returns when every connection has
/// ended.
pub async fn serve(
    app: Arc<App>,
    listener: StdListener,
    answerers: Vec<Answerer>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let connections_max = count(app.settings.limits.connections_max).min(Semaphore::MAX_PERMITS);
    let (free, refusals) = (Arc::new(Semaphore::new(connections_max)), Arc::new(Semaphore::new(REFUSALS_MAX)));
    let stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // A connection that was gone before it was accepted is nobody's trouble; the rest is about resources.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                continue;
            }
        };
        match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => deal(&app, &answerers, stream, permit, stopped.clone()),
            Err(_) => refuse(&refusals, stream),
        }
    }
    drop(listener);
    // All permits back: all connections have ended.
    let _all = free.acquire_many(u32::try_from(connections_max).unwrap_or(u32::MAX)).await;
    Ok(())
}

fn deal(
    app: &Arc<App>,
    answerers: &[Answerer],
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) {
    let Some(answerer) = answerers.iter().min_by_key(|answerer| answerer.connections.load(Ordering::Relaxed)) else {
        return;
    };
    // Off this runtime's reactor: the thread that answers registers it with its own.
    let Ok(stream) = stream.into_std() else { return };
    let app = Arc::clone(app);
    let open = Open::count(Arc::clone(&app), Arc::clone(&answerer.connections), permit);
    answerer.runtime.spawn(async move {
        if let Ok(stream) = TcpStream::from_std(stream) {
            connection(&app, stream, stop).await;
        }
        drop(open);
    });
}

/// A connection that is counted for as long as this lives, however it ends.
struct Open {
    app: Arc<App>,
    of_thread: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn count(app: Arc<App>, of_thread: Arc<AtomicUsize>, permit: OwnedSemaphorePermit) -> Self {
        of_thread.fetch_add(1, Ordering::Relaxed);
        app.metrics.connections.inc();
        Self { app, of_thread, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.app.metrics.connections.dec();
        self.of_thread.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refuse(refusals: &Arc<Semaphore>, mut stream: TcpStream) {
    if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
        tokio::spawn(async move {
            wire::refuse(&mut stream, &Problem::TooManyConnections).await;
            wire::linger(stream).await;
            drop(permit);
        });
    }
}

/// Serves one connection to its end.
async fn connection(app: &Arc<App>, stream: TcpStream, mut stop: watch::Receiver<bool>) {
    // Answers are small and must leave at once.
    let _ = stream.set_nodelay(true);
    let limits = &app.settings.limits;
    let (header_timeout, idle_timeout) = (ms(limits.header_timeout_ms), ms(limits.idle_timeout_ms));
    let phase = Phase::new();
    let body_timeout = ms(limits.body_timeout_ms);
    let unread = AtomicBool::new(false);
    let service = service_fn(|request| {
        let started = Instant::now();
        phase.request(started);
        let mut call = Call::new(request, started);
        let (phase, unread) = (&phase, &unread);
        async move {
            let mut response = routes::handle(app, &mut call).await;
            if let Some(faults) = &app.faults {
                faults.mark(&mut response)?;
            }
            // Who was too slow has had that time already.
            let late = response.status() == StatusCode::REQUEST_TIMEOUT;
            if late || !call.finish(body_timeout).await {
                unread.store(true, Ordering::Relaxed);
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            phase.answered();
            Ok::<_, HungUp>(response)
        }
    });
    let io = TokioIo::new(Io::new(stream, Arc::clone(&phase)));
    let mut served = builder(app).serve_connection(io, service);
    let mut stopping = false;
    let slow = {
        let mut watching = pin!(tokio::time::sleep(header_timeout));
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        loop {
            tokio::select! {
                biased;
                _ = &mut served => break false,
                () = &mut watching => match phase.watch(header_timeout, idle_timeout) {
                    Watch::Again(after) => watching.as_mut().reset(tokio::time::Instant::now() + after),
                    Watch::Slow => break true,
                    Watch::Idle => break false,
                },
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    std::pin::Pin::new(&mut served).graceful_shutdown();
                }
            }
        }
    };
    let mut stream = served.into_parts().io.into_inner().into_stream();
    if slow {
        app.count_request("(none)", StatusCode::REQUEST_TIMEOUT);
        wire::refuse(&mut stream, &Problem::TooSlow).await;
    }
    if slow || unread.load(Ordering::Relaxed) {
        wire::linger(stream).await;
    }
}

fn builder(app: &App) -> http1::Builder {
    let limits = &app.settings.limits;
    let mut builder = http1::Builder::new();
    builder
        // crate::wire has the time-outs.
        .header_read_timeout(None)
        .max_headers(count(limits.headers_max))
        .max_buf_size(count(limits.header_bytes_max))
        // With it hyper would hold an answer back while anything of a next request is here, and never send its parser's errors.
        .pipeline_flush(false)
        .half_close(false);
    builder
}
