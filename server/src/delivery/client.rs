//! One attempt: a signed POST to a receiver that may hang, lie, lead elsewhere or never stop talking.
//!
//! Redirects are not followed, proxies of the environment are not used, and of the answer only the status counts: its body is
//! read up to a bound, so that the connection can be used again, and forgotten.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::address::{Guard, Unfit};
use super::schedule::{Answer, retry_after};
use super::signature::signature;
use crate::store::{Claimed, now_us};

const USER_AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));
/// A connection that was not used for this long is closed.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// The bounds of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From the look-up of the name to the end of the answer.
    pub timeout: Duration,
    /// Of that, until there is a connection.
    pub connect_timeout: Duration,
    /// Of the answer's body, what is read.
    pub response_bytes_max: u64,
    /// Connections that are kept open to one receiver.
    pub idle_connections_max: usize,
}

/// See the module. Made at the first attempt: a server without webhooks reads no certificates.
#[derive(Debug)]
pub struct Client {
    guard: Arc<Guard>,
    bounds: Bounds,
    client: OnceCell<reqwest::Client>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The answer.
    pub answer: Answer,
    /// The answer ended within its bounds: the receiver kept this server no longer than it had to.
    pub prompt: bool,
    /// It took less than a tenth of the time that it was allowed.
    pub quick: bool,
}

impl Client {
    /// Without a connection yet.
    pub fn new(guard: Arc<Guard>, bounds: Bounds) -> Self {
        Self { guard, bounds, client: OnceCell::new() }
    }

    /// Sends the event once.
    pub async fn attempt(&self, claimed: &Claimed) -> Attempt {
        let failed = |answer| Attempt { answer, prompt: false, quick: false };
        let begin = Instant::now();
        let deadline = begin + self.bounds.timeout;
        let response = match timeout_at(deadline, self.send(claimed)).await {
            Err(_elapsed) => return failed(Answer::TimedOut),
            Ok(Err(answer)) => return failed(answer),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|text| retry_after(text, now_us()));
        let ended = timeout_at(deadline, read_to_end(response, self.bounds.response_bytes_max)).await;
        Attempt {
            answer: Answer::Status { status, retry_after: wait },
            prompt: ended.unwrap_or(false),
            quick: begin.elapsed() < self.bounds.timeout / 10,
        }
    }

    async fn send(&self, claimed: &Claimed) -> Result<Response, Answer> {
        let Some((url, secret)) = &claimed.webhook else { return Err(Answer::NoWebhook) };
        // Literal addresses never come to the resolver, and the rules may be others than when the URL was set.
        let url = self.guard.parse(url).map_err(|_| Answer::Refused)?;
        let client = self.client.get_or_try_init(|| self.build()).await.map_err(|error| {
            tracing::error!(%error, "webhooks cannot be called");
            Answer::NoConnection
        })?;
        let event = &claimed.stored.event;
        let mut body = Vec::with_capacity(event.payload.len() + 512);
        event.write_json(&mut body, None, Some(claimed.stored.persisted_at_us));
        let timestamp_s = now_us() / 1_000_000;
        let signature = signature(secret, event.id, timestamp_s, &body);
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", event.id.to_string())
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", signature)
            .body(body);
        request.send().await.map_err(|error| failure(&error))
    }

    async fn build(&self) -> io::Result<reqwest::Client> {
        // Reading certificates takes long enough to hold up what else runs on this thread.
        let tls = tokio::task::spawn_blocking(tls).await.map_err(io::Error::other)??;
        reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(self.bounds.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(self.bounds.idle_connections_max)
            .dns_resolver(Arc::new(Checked(Arc::clone(&self.guard))))
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(io::Error::other)
    }
}

/// Gives the connection the very addresses that were checked.
struct Checked(Arc<Guard>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str().to_owned()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// Trusts the system's authorities. A system without any is no error: an `http://` receiver needs none.
fn tls() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn failure(error: &reqwest::Error) -> Answer {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<Unfit>() == Some(&Unfit::NotPublic) {
            return Answer::Refused;
        }
        cause = inner.source();
    }
    if error.is_timeout() { Answer::TimedOut } else { Answer::NoConnection }
}

/// Reads what is left of an answer; whether it ended within the bound, so that its connection is of further use.
async fn read_to_end(mut response: Response, bytes_max: u64) -> bool {
    let mut bytes = 0;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes += chunk.len() as u64,
            Ok(None) => return true,
            Err(_) => return false,
        }
        if bytes > bytes_max {
            return false;
        }
    }
}
