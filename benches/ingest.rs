//! The ingest handler in this process, without sockets: an event through hyper and every step of the hot path, over memory. What it costs
//! beyond that on a real connection is the kernel's (`roundtrip` has both).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use benches::{enterprise, settings};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use loadgen::payload::Payloads;
use server::app::{App, Sink};
use server::auth;
use server::cache_counters::CacheCounters;
use server::call::Call;
use server::dedup::Dedup;
use server::metrics::{BuildInfo, Metrics};
use server::pending::Pending;
use server::routes;

/// Drained each time so many events are pending, as a processor would.
const DRAIN_EVENTS: usize = 500;

async fn app(pending: &Arc<Pending>, key: &str) -> Arc<App> {
    let settings = settings(&[]);
    let metrics = Arc::new(Metrics::new(&BuildInfo::default()));
    let dedup = Dedup::new(&settings.limits, Some(Arc::clone(pending)), CacheCounters::new(&metrics, "dedup"));
    let app = App::new(settings, Sink::Pending(Arc::clone(pending)), None, dedup, metrics, None, None);
    app.keys.add(enterprise(key)).await.expect("a place for it");
    Arc::new(app)
}

/// A client of `app` over memory; must be called on a `LocalSet`.
async fn connect(app: Arc<App>) -> SendRequest<Full<Bytes>> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(routes::handle(&app, &mut Call::new(request, Instant::now())).await) }
    });
    tokio::task::spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service));
    let (sender, connection) = handshake(TokioIo::new(near)).await.expect("a connection");
    tokio::task::spawn_local(connection);
    sender
}

fn post_event(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let pending = Arc::new(Pending::new(10_000, 64 * 1024 * 1024));
    let key = auth::generate().expect("a key");
    let mut sender = local.block_on(&runtime, async { connect(app(&pending, &key).await).await });
    let (mut payloads, mut sequence) = (Payloads::new("bench", 256, 1), 0);
    criterion.bench_function("ingest/post_event_in_memory", |bencher| {
        bencher.iter(|| {
            sequence += 1;
            let request = Request::post("/api/events")
                .header("content-type", "application/json")
                .header("authorization", format!("Bearer {key}"))
                .body(Full::new(payloads.body(sequence)))
                .expect("a request");
            local.block_on(&runtime, async {
                let answer = sender.send_request(request).await.expect("an answer");
                assert_eq!(answer.status(), 202);
                answer.into_body().collect().await.expect("its body");
            });
            if pending.events() >= DRAIN_EVENTS {
                pending.persisted(&pending.take(DRAIN_EVENTS));
            }
        });
    });
}

criterion_group!(benches, post_event);
criterion_main!(benches);
