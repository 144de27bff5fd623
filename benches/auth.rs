//! Cost of finding out whose request it is and whether it may come now: the key out of the headers, its hash, the organisation in memory,
//! one cell of its rate limit.

use std::hint::black_box;

use benches::{enterprise, settings};
use criterion::{Criterion, criterion_group, criterion_main};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use server::auth::{self, Keys};
use server::cache_counters::CacheCounters;
use server::metrics::{BuildInfo, Metrics};

fn authenticate_and_limit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limits = settings(&[]).limits;
    let metrics = Metrics::new(&BuildInfo::default());
    let keys = Keys::new(&limits, None, CacheCounters::new(&metrics, "keys"));
    let key = auth::generate().expect("a key");
    runtime.block_on(keys.add(enterprise(&key))).expect("a place for it");
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}")).expect("a header"));
    criterion.bench_function("auth/key_and_limit", |bencher| {
        bencher.iter(|| {
            let (organization, _) = runtime.block_on(keys.authenticate(black_box(&headers))).expect("a known key");
            organization.limiter.take().expect("a request that may come");
        });
    });
}

criterion_group!(benches, authenticate_and_limit);
criterion_main!(benches);
