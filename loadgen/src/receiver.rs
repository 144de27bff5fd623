//! The receiver of a run's webhooks: takes what the target delivers on a thread of its own, verifies it, and knows in the end what came,
//! how often, in what order and when.
//!
//! What is expected comes from the generator's own record of acknowledgements, as in [`crate::ledger`]; times are those of the run's one
//! clock, so nothing is compared with a clock of the target.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reports::histogram::TimeHistogram;
use reports::model::Delivery;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::clock::Clock;
use crate::payload::Payloads;
use crate::recorder::Acknowledged;
use crate::target::ShownEvent;

/// What an event may have around its payload, bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Ids of events that were not delivered, kept as examples.
const EXAMPLES_MAX: usize = 10;
/// Pauses between two looks at whether everything has come.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A repeat comes soon after the first or not at all: so long is it waited for after everything has come once.
const REPEATS_PAUSE: Duration = Duration::from_millis(300);

/// Everything that came. Pure.
#[derive(Debug)]
pub struct Book {
    payloads: Payloads,
    kept: u64,
    /// By sequence number.
    events: Vec<Came>,
    /// Events that came at least once.
    distinct: u64,
    /// When the last of those did.
    last_ns: u64,
    /// Of this run by their webhook, and no event that it sent.
    strange: u64,
}

/// What is known of one event.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    copies: u32,
    first_ns: u64,
    /// Which one it was among all first deliveries.
    place: u64,
    /// Under which id it came first.
    id: Option<Uuid>,
    altered: bool,
    badly_signed: bool,
}

impl Book {
    /// For the first `kept` events of a run.
    pub fn new(payloads: &Payloads, kept: u64) -> Self {
        Self { payloads: payloads.clone(), kept, events: Vec::new(), distinct: 0, last_ns: 0, strange: 0 }
    }

    /// A delivery has come. `signed`: whether its signature is right, as far as that can be told.
    pub fn enter(&mut self, shown: &ShownEvent<'_>, signed: bool, at_ns: u64) {
        let payload = shown.payload.map(|payload| payload.get().as_bytes());
        let by_dedup_id = shown.dedup_id.as_deref().and_then(|dedup_id| self.payloads.sequence(dedup_id));
        let Some(sequence) = by_dedup_id.or_else(|| self.payloads.sequence_in(payload?)) else {
            self.strange += 1;
            return;
        };
        if sequence >= self.kept {
            return;
        }
        let at = sequence as usize;
        if self.events.len() <= at {
            self.events.resize(at + 1, Came::default());
        }
        let altered = payload != Some(self.payloads.payload(sequence));
        let came = &mut self.events[at];
        if came.copies == 0 {
            (came.first_ns, came.place, came.id) = (at_ns, self.distinct, shown.id);
            self.distinct += 1;
            self.last_ns = at_ns;
        }
        came.copies = came.copies.saturating_add(1);
        came.altered |= altered || shown.id != came.id;
        came.badly_signed |= !signed;
    }

    /// What cannot even be read.
    fn enter_nonsense(&mut self) {
        self.strange += 1;
    }

    fn of(&self, sequence: u64) -> Came {
        self.events.get(sequence as usize).copied().unwrap_or_default()
    }

    fn missing(&self, acknowledged: &[Acknowledged]) -> u64 {
        // Most looks find that not even enough have come.
        let short = (acknowledged.len() as u64).saturating_sub(self.distinct);
        if short > 0 {
            return short;
        }
        acknowledged.iter().filter(|entry| self.of(entry.sequence).copies == 0).count() as u64
    }

    /// How many of the acknowledged events came, of `planned` ones, and the rest of what there is to tell. `verified`: there were
    /// secrets to verify signatures with.
    pub fn finish(
        &self,
        acknowledged: &[Acknowledged],
        planned: u64,
        verified: bool,
        drained_after: Duration,
    ) -> (u64, Delivery) {
        let mut delivery = Delivery { drained_after_ms: drained_after.as_millis() as u64, ..Delivery::default() };
        let (mut times, mut delivered) = (TimeHistogram::new(), 0);
        let mut by_place = Vec::new();
        let mut other_ids = 0;
        for entry in acknowledged {
            let came = self.of(entry.sequence);
            if came.copies == 0 {
                delivery.undelivered += 1;
                if delivery.undelivered_examples.len() < EXAMPLES_MAX {
                    delivery.undelivered_examples.push(self.payloads.dedup_id(entry.sequence));
                }
                continue;
            }
            delivered += 1;
            times.record(came.first_ns.saturating_sub(entry.done_ns));
            by_place.push((came.place, entry.done_ns));
            other_ids += u64::from(!came.altered && entry.id.is_some() && came.id.is_some() && came.id != entry.id);
        }
        let count = |which: fn(&Came) -> bool| self.events.iter().filter(|came| which(came)).count() as u64;
        let never_sent = self.events.iter().skip(planned as usize).filter(|came| came.copies > 0).count() as u64;
        delivery.repeated = self.events.iter().map(|came| u64::from(came.copies.saturating_sub(1))).sum();
        delivery.altered = self.strange + never_sent + other_ids + count(|came| came.altered);
        delivery.badly_signed = verified.then(|| count(|came| came.badly_signed));
        delivery.unacknowledged = self.distinct - delivered - never_sent;
        delivery.out_of_order = out_of_order(by_place);
        delivery.time_to_delivered = (times.count() > 0).then(|| times.times(0));
        (delivered, delivery)
    }
}

/// Of events with their places in the order of delivery and the times of their acknowledgements: those that came after one that was
/// acknowledged later.
fn out_of_order(mut by_place: Vec<(u64, u64)>) -> u64 {
    by_place.sort_unstable();
    let mut latest_ns = 0;
    let late = by_place.into_iter().filter(|(_, done_ns)| {
        let late = *done_ns < latest_ns;
        latest_ns = latest_ns.max(*done_ns);
        late
    });
    late.count() as u64
}

/// Whether the headers carry the signature of Standard Webhooks for this body.
pub fn is_signed(headers: &HeaderMap, body: &[u8], secret: &[u8]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(timestamp), Some(signatures)) =
        (text("webhook-id"), text("webhook-timestamp"), text("webhook-signature"))
    else {
        return false;
    };
    // Several signatures may stand there, for a secret that is being replaced.
    signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
        let (Ok(signature), Ok(mut mac)) = (STANDARD.decode(signature), Hmac::<Sha256>::new_from_slice(secret)) else {
            return false;
        };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac.verify_slice(&signature).is_ok()
    })
}

/// The bytes behind `whsec_`.
pub fn secret_bytes(shown: &str) -> Option<Vec<u8>> {
    STANDARD.decode(shown.strip_prefix("whsec_")?).ok()
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    body_bytes_max: usize,
    /// By number of the organisation, once the target has told it.
    secrets: Mutex<Vec<Option<Vec<u8>>>>,
    book: Mutex<Book>,
}

/// A running receiver. Dropping it stops it.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    base: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1 for the first `kept` events of a run of so many organisations.
    pub fn start(clock: Clock, payloads: &Payloads, kept: u64, organizations: usize) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let base = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            clock,
            body_bytes_max: payloads.payload_bytes_max() + FRAME_BYTES_MAX,
            secrets: Mutex::new(vec![None; organizations]),
            book: Mutex::new(Book::new(payloads, kept)),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("receiver".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, serving) => {}
                }
            });
        })?;
        Ok(Self { shared, base, stop: Some(stop), thread: Some(thread) })
    }

    /// Where the events of organisation `number` (from 0) are to be delivered.
    pub fn url(&self, number: usize) -> String {
        format!("{}/{number}", self.base)
    }

    /// What the events of organisation `number` are signed with, as the target shows it.
    pub fn expect_signed(&self, number: usize, shown_secret: &str) {
        if let Some(secret) = lock(&self.shared.secrets).get_mut(number) {
            // One that cannot be read signs nothing: what comes is then badly signed.
            *secret = Some(secret_bytes(shown_secret).unwrap_or_default());
        }
    }

    /// Waits until everything that was acknowledged has come, for `patience` at most, and a little longer for repeats. See
    /// [`Book::finish`].
    pub async fn settle(
        &self,
        acknowledged: &[Acknowledged],
        planned: u64,
        load_end: Instant,
        patience: Duration,
    ) -> (u64, Delivery) {
        let mut pause = LOOK_PAUSE_MIN;
        let deadline = Instant::now() + patience;
        while lock(&self.shared.book).missing(acknowledged) > 0 && Instant::now() < deadline {
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LOOK_PAUSE_MAX);
        }
        // When the last one came, and not when somebody looked.
        let (missing, last_ns) = {
            let book = lock(&self.shared.book);
            (book.missing(acknowledged), book.last_ns)
        };
        let since_last_ns = if missing == 0 { self.shared.clock.now_ns().saturating_sub(last_ns) } else { 0 };
        let drained_after = load_end.elapsed().saturating_sub(Duration::from_nanos(since_last_ns));
        sleep(REPEATS_PAUSE).await;
        let verified = lock(&self.shared.secrets).iter().all(Option::is_some);
        let book = lock(&self.shared.book);
        book.finish(acknowledged, planned, verified, drained_after)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It ends at once, and has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with it is gone; what it counted so far is still true.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // An answer that waits for more to send would be measured as the target's delay.
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| take(request, Arc::clone(&shared)));
            // A connection that ends badly was the target's to keep.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn take(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let body = match Limited::new(body, shared.body_bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        // Not a whole delivery, so none.
        Err(_) => {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(response);
        }
    };
    let at_ns = shared.clock.now_ns();
    let number: Option<usize> = head.uri.path().trim_start_matches('/').parse().ok();
    let secret = number.and_then(|number| lock(&shared.secrets).get(number).cloned().flatten());
    let signed = secret.is_none_or(|secret| is_signed(&head.headers, &body, &secret));
    let mut book = lock(&shared.book);
    match serde_json::from_slice::<ShownEvent<'_>>(&body) {
        Ok(shown) => book.enter(&shown, signed, at_ns),
        Err(_) => book.enter_nonsense(),
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const MS: u64 = 1_000_000;

    fn payloads() -> Payloads {
        Payloads::new("run-1", 64, 1)
    }

    fn id(sequence: u64) -> Uuid {
        Uuid::from_u128(u128::from(sequence) + 1)
    }

    /// Event n was acknowledged n ms after the begin.
    fn acknowledged(sequences: impl IntoIterator<Item = u64>) -> Vec<Acknowledged> {
        let entry = |sequence| Acknowledged { sequence, id: Some(id(sequence)), done_ns: sequence * MS };
        sequences.into_iter().map(entry).collect()
    }

    fn enter(
        book: &mut Book,
        sequence: u64,
        at_ms: u64,
        change: impl FnOnce(&mut ShownEvent<'_>, &mut String, &mut bool),
    ) {
        let mut payloads = payloads();
        let mut payload = String::from_utf8(payloads.payload(sequence).to_vec()).expect("text");
        let dedup_id = Some(payloads.dedup_id(sequence));
        let mut shown = ShownEvent { id: Some(id(sequence)), dedup_id, payload: None, persisted_at: None };
        let mut signed = true;
        change(&mut shown, &mut payload, &mut signed);
        let raw: &RawValue = serde_json::from_str(&payload).expect("JSON");
        let shown = ShownEvent { id: shown.id, dedup_id: shown.dedup_id, payload: Some(raw), persisted_at: None };
        book.enter(&shown, signed, at_ms * MS);
    }

    fn plainly(book: &mut Book, sequence: u64, at_ms: u64) {
        enter(book, sequence, at_ms, |_, _, _| {});
    }

    #[test]
    fn what_is_missing_is_found_although_a_repeat_makes_the_counts_equal() {
        let mut book = Book::new(&payloads(), 100);
        let entries = acknowledged(0..3);
        [(0, 5), (1, 6), (1, 7)].into_iter().for_each(|(sequence, at_ms)| plainly(&mut book, sequence, at_ms));
        assert_eq!(book.missing(&entries), 1);
        let (delivered, delivery) = book.finish(&entries, 3, true, Duration::from_millis(9));
        assert_eq!((delivered, delivery.undelivered, delivery.repeated), (2, 1, 1));
        assert_eq!((delivery.undelivered_examples, delivery.drained_after_ms), (vec![payloads().dedup_id(2)], 9));
        let times = delivery.time_to_delivered.expect("times");
        assert_eq!((times.count, times.max_ns.abs_diff(5 * MS) < 10_000), (2, true), "of the first deliveries");
    }

    #[test]
    fn as_many_as_were_acknowledged_are_not_enough_when_they_are_others() {
        let mut book = Book::new(&payloads(), 100);
        (1..4).for_each(|sequence| plainly(&mut book, sequence, 9));
        let entries = acknowledged(0..3);
        assert_eq!(book.missing(&entries), 1);
        let (delivered, delivery) = book.finish(&entries, 4, true, Duration::ZERO);
        assert_eq!((delivered, delivery.undelivered, delivery.unacknowledged, delivery.altered), (2, 1, 1, 0));
    }

    #[test]
    fn another_content_another_id_nonsense_and_what_was_never_sent_are_alterations() {
        let mut book = Book::new(&payloads(), 100);
        enter(&mut book, 0, 1, |_, payload, _| payload.insert(1, ' '));
        enter(&mut book, 1, 1, |shown, _, _| shown.id = Some(id(7)));
        plainly(&mut book, 2, 1);
        enter(&mut book, 2, 2, |shown, _, _| shown.id = Some(id(8)));
        plainly(&mut book, 50, 1);
        book.enter_nonsense();
        let (_, delivery) = book.finish(&acknowledged(0..4), 10, true, Duration::ZERO);
        assert_eq!((delivery.altered, delivery.undelivered, delivery.unacknowledged), (5, 1, 0));
        assert_eq!(delivery.badly_signed, Some(0));
    }

    #[test]
    fn a_bad_signature_counts_once_an_event_and_only_where_it_can_be_told() {
        let mut book = Book::new(&payloads(), 100);
        enter(&mut book, 0, 1, |_, _, signed| *signed = false);
        enter(&mut book, 0, 2, |_, _, signed| *signed = false);
        plainly(&mut book, 1, 1);
        let badly_signed = |verified| book.finish(&acknowledged(0..2), 2, verified, Duration::ZERO).1.badly_signed;
        assert_eq!((badly_signed(true), badly_signed(false)), (Some(1), None));
    }

    #[test]
    fn out_of_order_is_what_comes_after_something_acknowledged_later() {
        for (order, expected) in
            [(&[0, 1, 2, 3][..], 0), (&[1, 0, 2, 3], 1), (&[3, 0, 1, 2], 3), (&[0, 2, 2, 1, 1, 3], 1)]
        {
            let mut book = Book::new(&payloads(), 100);
            order.iter().for_each(|sequence| plainly(&mut book, *sequence, 10));
            let (_, delivery) = book.finish(&acknowledged(0..4), 4, true, Duration::ZERO);
            assert_eq!(delivery.out_of_order, expected, "{order:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_passed_over() {
        let mut book = Book::new(&payloads(), 2);
        (0..5).for_each(|sequence| plainly(&mut book, sequence, 9));
        let (delivered, delivery) = book.finish(&acknowledged(0..2), 5, true, Duration::ZERO);
        assert_eq!((delivered, delivery.altered, delivery.unacknowledged), (2, 0, 0));
    }

    /// The example of the specification (Standard Webhooks 1.0.0, and its libraries' tests).
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let signed = |signature: &str, body: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().expect("a value"));
            headers.insert("webhook-timestamp", "1614265330".parse().expect("a value"));
            headers.insert("webhook-signature", signature.parse().expect("a value"));
            is_signed(&headers, body, &secret)
        };
        const RIGHT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert!(signed(RIGHT, body));
        assert!(signed(&format!("v1a,x v1,AAAA {RIGHT}"), body));
        assert!(!signed(RIGHT, b"{}"));
        assert!(!signed("v1,AAAA", body) && !signed("", body) && !signed("v1,*", body));
        assert!(!is_signed(&HeaderMap::new(), body, &secret));
    }
}
