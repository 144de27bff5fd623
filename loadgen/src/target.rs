//! A target as the load generator meets it: over HTTP, in its dialect. Control calls only; the load has its own connections
//! ([`crate::connection`]).

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, DATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use url::{Position, Url};
use uuid::Uuid;

use crate::connection::Destination;
use crate::dialect::{Dialect, Statuses, id_of};
use crate::http2::Origin;
use crate::observe::prometheus::Scrape;
use crate::stream::Door;
use crate::tls::{self, Trust};

/// A control call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Its own metrics are asked for again and again while it works: a target that takes longer to show them has none.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer to a control call, bytes: a page of the inbox with the largest payloads there are.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest `/metrics`, bytes.
const METRICS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events asked for in one inbox page: the most the contract allows.
pub const INBOX_PAGE_EVENTS: usize = 1_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Target {
    client: Client,
    base: Url,
    dialect: Arc<Dialect>,
    /// For the load's connections, when the target speaks TLS.
    load_tls: Option<Arc<ClientConfig>>,
    http2: bool,
    streams: usize,
}

/// How a target is to be talked to.
#[derive(Clone, Debug)]
pub struct Reach {
    /// HTTP/2 in place of HTTP/1.1: without TLS for the load and control calls, over TLS for the load, and for control calls if it can.
    pub http2: bool,
    /// Requests at a time on one connection of the load; 1 for HTTP/1.1.
    pub streams: usize,
    /// Certificates, in PEM form, of authorities to trust beside the system's.
    pub tls_ca: Option<Vec<u8>>,
    /// Trust anybody's certificate.
    pub tls_insecure: bool,
}

impl Default for Reach {
    /// HTTP/1.1, and over TLS with the system's authorities.
    fn default() -> Self {
        Self { http2: false, streams: 1, tls_ca: None, tls_insecure: false }
    }
}

impl Reach {
    fn trust(&self) -> Trust<'_> {
        match &self.tls_ca {
            _ if self.tls_insecure => Trust::Anybody,
            Some(pem) => Trust::SystemAnd(pem),
            None => Trust::System,
        }
    }
}

/// A control call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// `--target` is none.
    #[error("'{0}' is not a target: give http://HOST:PORT or https://HOST:PORT")]
    BadUrl(String),
    /// The authorities to trust cannot be had.
    #[error("{0}")]
    Tls(String),
    /// Nobody there.
    #[error("{call}: {reason}")]
    Unreachable {
        /// Which call.
        call: String,
        /// Why, in the words of the innermost cause.
        reason: String,
    },
    /// Somebody there, but not with what was asked for.
    #[error("{call} was answered {status}; {remedy}")]
    Refused {
        /// Which call.
        call: String,
        /// HTTP status.
        status: StatusCode,
        /// What to do.
        remedy: &'static str,
    },
    /// It has no such route.
    #[error("its profile says that it has no {0}; give the path as [routes] {0}, or leave out what needs it")]
    Absent(&'static str),
    /// The answer does not follow the contract.
    #[error("{call} was answered with something else than the contract says: {reason}")]
    Unexpected {
        /// Which call.
        call: String,
        /// What was wrong with it.
        reason: String,
    },
}

/// One event as a target shows it.
#[derive(Debug, Deserialize)]
pub struct ShownEvent<'a> {
    /// Its id, as [`id_of`] has it.
    #[serde(default, deserialize_with = "any_id")]
    pub id: Option<Uuid>,
    /// As sent.
    pub dedup_id: Option<String>,
    /// As sent, byte for byte.
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
    /// RFC 3339.
    pub persisted_at: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<ShownEvent<'a>>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct WebhookSet {
    secret: Option<String>,
}

/// Text or a number.
fn any_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shown {
        Text(String),
        Number(u64),
    }
    let shown = Option::<Shown>::deserialize(deserializer)?;
    Ok(shown.map(|shown| match shown {
        Shown::Text(text) => id_of(&text),
        Shown::Number(number) => id_of(&number.to_string()),
    }))
}

/// What came of sending an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It was acknowledged, under this id, if it has one.
    Acknowledged(Option<Uuid>),
    /// The target has it already (409), under this id.
    Known(Option<Uuid>),
}

impl Target {
    /// A target at `url` (`http://HOST:PORT` or `https://…`) that follows the contract.
    pub fn new(url: &str, reach: &Reach) -> Result<Self, TargetError> {
        Self::speaking(url, reach, Arc::new(Dialect::contract()))
    }

    /// A target at `url` that is spoken to like this.
    pub fn speaking(url: &str, reach: &Reach, dialect: Arc<Dialect>) -> Result<Self, TargetError> {
        let bad = || TargetError::BadUrl(url.to_owned());
        let base: Url = url.parse().map_err(|_| bad())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad());
        }
        let tls = |alpn: &[&[u8]]| {
            tls::client_config(reach.trust(), alpn).map_err(|error| TargetError::Tls(error.to_string()))
        };
        // Control calls take whichever the target has, where it can be asked; without TLS nobody asks.
        let either: &[&[u8]] = if reach.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        let client = Client::builder().timeout(CALL_TIMEOUT).no_proxy().tls_backend_preconfigured(tls(either)?);
        let client = if reach.http2 && base.scheme() == "http" { client.http2_prior_knowledge() } else { client };
        let client = client.build().map_err(|_| bad())?;
        let load_tls = match base.scheme() {
            "https" => Some(Arc::new(tls(&either[..1])?)),
            _ => None,
        };
        Ok(Self { client, base, dialect, load_tls, http2: reach.http2, streams: reach.streams })
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// How it is spoken to.
    pub fn dialect(&self) -> &Arc<Dialect> {
        &self.dialect
    }

    /// Whether it runs on this machine.
    pub fn is_local(&self) -> bool {
        self.address().is_ok_and(|address| address.ip().is_loopback())
    }

    fn address(&self) -> Result<SocketAddr, TargetError> {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.base.port_or_known_default().unwrap_or(80);
        let unreachable = |reason: String| TargetError::Unreachable { call: format!("looking up {host}"), reason };
        let mut addresses = (host, port).to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
        addresses.next().ok_or_else(|| unreachable("no address".to_owned()))
    }

    /// Where the load goes, with one key per organisation.
    pub fn destination(&self, keys: &[String]) -> Result<Destination, TargetError> {
        let host = &self.base[Position::BeforeHost..Position::AfterPort];
        let headers = keys.iter().map(|key| {
            let mut lines = format!("host: {host}\r\n");
            for (name, value) in self.dialect.headers_with(key).iter().chain(&self.dialect.ingest.headers) {
                if !is_header_value(value) {
                    let (call, reason) = (format!("the header {name}"), "it is no header value".to_owned());
                    return Err(TargetError::Unexpected { call, reason });
                }
                lines += &format!("{name}: {value}\r\n");
            }
            Ok(lines.into_bytes())
        });
        let name = || {
            let name = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            ServerName::try_from(name).map_err(|_| TargetError::BadUrl(self.base.to_string()))
        };
        let tls = match &self.load_tls {
            Some(config) => Some((Arc::clone(config), name()?)),
            None => None,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Destination {
            door: Door { address: self.address()?, tls },
            origin: Origin { scheme, authority: host.to_owned() },
            http2: self.http2,
            streams: self.streams,
            base_path: self.base.path().trim_end_matches('/').to_owned(),
            dialect: Arc::clone(&self.dialect),
            headers: headers.collect::<Result<_, _>>()?,
        })
    }

    /// Asks the target for the key of a new organisation, whose name is plain text without quotes and backslashes.
    pub async fn generate_key(&self, organization_name: &str) -> Result<String, TargetError> {
        let route = &self.dialect.key;
        let call = format!("{} {}", route.method, route.path);
        let body = route.body.replace("{organization}", organization_name);
        let request = with_headers(self.request(route.method, &route.path), &self.dialect.headers);
        let request = with_headers(request, &route.headers).header(CONTENT_TYPE, "application/json").body(body);
        let remedy = "give the key of an organisation with --api-key KEY";
        let response = expected(&call, self.call(&call, request).await?, &route.statuses, remedy)?;
        let answer = whole(&call, response).await?;
        let unexpected = |reason: String| TargetError::Unexpected { call: call.clone(), reason };
        let key = route.pointer.find(&answer).map_err(|error| unexpected(error.to_string()))?;
        let key = key.ok_or_else(|| unexpected(format!("there is no key at {} in it", route.pointer)))?;
        match key.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(key.into_owned()),
            false => Err(unexpected("the key is no header value".to_owned())),
        }
    }

    /// Whether it says that it can take events.
    pub async fn is_ready(&self) -> bool {
        let ready = &self.dialect.ready;
        match &ready.path {
            Some(path) => {
                let request = with_headers(self.request("GET", path), &self.dialect.headers);
                request.send().await.is_ok_and(|answer| ready.statuses.contains(answer.status().as_u16()))
            }
            None => match self.address() {
                Ok(address) => tokio::net::TcpStream::connect(address).await.is_ok(),
                Err(_) => false,
            },
        }
    }

    /// The time of day that it writes into its answers, s since the Unix epoch.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn shown_date(&self) -> Result<i64, String> {
        let path = self.dialect.ready.path.as_deref().unwrap_or("/");
        let call = format!("GET {path}");
        let request = with_headers(self.request("GET", path), &self.dialect.headers);
        let response = self.call(&call, request).await.map_err(|error| error.to_string())?;
        let shown = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let shown = shown.ok_or_else(|| format!("the answer to {call} has no Date"))?;
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(shown);
        date.map(jiff::Timestamp::as_second)
            .map_err(|_| format!("the answer to {call} has a Date that is none: '{shown}'"))
    }

    /// Sends one event, outside of any load.
    pub async fn send_event(&self, key: &str, body: Bytes) -> Result<Sending, TargetError> {
        let ingest = &self.dialect.ingest;
        let call = format!("{} {}", ingest.method, ingest.path);
        let request = with_headers(self.authorized(ingest.method, &ingest.path, key), &ingest.headers);
        let response = self.call(&call, request.header(CONTENT_TYPE, "application/json").body(body)).await?;
        let status = response.status();
        if !ingest.statuses.contains(status.as_u16()) && ingest.duplicate_statuses.contains(status.as_u16()) {
            let answer = whole(&call, response).await?;
            let id = ingest.id.as_ref().and_then(|pointer| pointer.find(&answer).ok()?).map(|id| id_of(&id));
            return Ok(Sending::Known(id));
        }
        let remedy = "it should take an event it did not answer";
        let answer = whole(&call, expected(&call, response, &ingest.statuses, remedy)?).await?;
        let acknowledged = ingest.acknowledgement(status.as_u16(), &answer);
        acknowledged
            .map(Sending::Acknowledged)
            .map_err(|problem| TargetError::Unexpected { call, reason: problem.reason().to_owned() })
    }

    /// Has the events of this key's organisation delivered to `url`; the secret that deliveries are signed with, as the target shows it.
    pub async fn set_webhook(&self, key: &str, url: &str) -> Result<Option<String>, TargetError> {
        let path = self.dialect.routes.webhook.as_deref().ok_or(TargetError::Absent("webhook"))?;
        let call = &format!("POST {path}");
        let body = serde_json::json!({ "webhook_url": url });
        let request = self.authorized("POST", path, key).json(&body);
        let remedy = "give it leave to use 127.0.0.1 (the reference server: --webhook-private-addresses), or leave --webhooks out";
        let answer = whole(call, successful(call, self.call(call, request).await?, remedy)?).await?;
        let set: WebhookSet = parse(call, &answer)?;
        Ok(set.secret)
    }

    /// Scrapes `/metrics`; `None` when the target has none, or takes more than 2 s to show them.
    pub async fn metrics(&self) -> Option<Scrape> {
        let request = with_headers(self.request("GET", self.dialect.routes.metrics.as_deref()?), &self.dialect.headers);
        let response = request.timeout(METRICS_TIMEOUT).send().await.ok()?.error_for_status().ok()?;
        let text = within(response, METRICS_BYTES_MAX).await.ok()?;
        Some(Scrape::parse(&String::from_utf8_lossy(&text)))
    }

    /// Shows one page of the inbox to `each`, and says where the next one begins.
    pub async fn inbox_page(
        &self,
        key: &str,
        cursor: Option<&str>,
        mut each: impl FnMut(ShownEvent<'_>),
    ) -> Result<Option<String>, TargetError> {
        let path = self.dialect.routes.inbox.as_deref().ok_or(TargetError::Absent("inbox"))?;
        let mut page = url::form_urlencoded::Serializer::new(String::new());
        page.append_pair("limit", &INBOX_PAGE_EVENTS.to_string());
        page.extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        let separator = if path.contains('?') { '&' } else { '?' };
        let call = &format!("GET {path}");
        let request = self.authorized("GET", &format!("{path}{separator}{}", page.finish()), key);
        let response = self.call(call, request).await?;
        let remedy = "a target that cannot show what it keeps is run with --no-ledger";
        let answer = whole(call, successful(call, response, remedy)?).await?;
        let page: Page<'_> = parse(call, &answer)?;
        page.events.into_iter().for_each(&mut each);
        Ok(page.next_cursor)
    }

    /// Shows event `id` to `each`; that the target does not have it is an error, too.
    pub async fn event(&self, key: &str, id: Uuid, each: impl FnOnce(ShownEvent<'_>)) -> Result<(), TargetError> {
        let path = self.dialect.routes.event.as_deref().ok_or(TargetError::Absent("event"))?;
        let call = &format!("GET {path}");
        let request = self.authorized("GET", &path.replace("{id}", &id.to_string()), key);
        let response = self.call(call, request).await?;
        let answer = whole(call, successful(call, response, "it should show an event it acknowledged")?).await?;
        each(parse(call, &answer)?);
        Ok(())
    }

    /// When the target says that event `id` was persisted; `None`: not yet.
    pub async fn persisted_at(&self, key: &str, id: Uuid) -> Result<Option<jiff::Timestamp>, TargetError> {
        let mut persisted_at = None;
        self.event(key, id, |event| persisted_at = event.persisted_at).await?;
        Ok(persisted_at)
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        let method = if method == "GET" { Method::GET } else { method.parse().unwrap_or(Method::POST) };
        self.client.request(method, url)
    }

    fn authorized(&self, method: &str, path: &str, key: &str) -> RequestBuilder {
        with_headers(self.request(method, path), &self.dialect.headers_with(key))
    }

    async fn call(&self, call: &str, request: RequestBuilder) -> Result<Response, TargetError> {
        request
            .send()
            .await
            .map_err(|error| TargetError::Unreachable { call: call.to_owned(), reason: innermost(&error) })
    }
}

fn successful(call: &str, response: Response, remedy: &'static str) -> Result<Response, TargetError> {
    expected(call, response, &Statuses::Success, remedy)
}

fn expected(
    call: &str,
    response: Response,
    statuses: &Statuses,
    remedy: &'static str,
) -> Result<Response, TargetError> {
    let status = response.status();
    match statuses.contains(status.as_u16()) {
        true => Ok(response),
        false => Err(TargetError::Refused { call: call.to_owned(), status, remedy }),
    }
}

fn with_headers(request: RequestBuilder, headers: &[(String, String)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

async fn whole(call: &str, response: Response) -> Result<Vec<u8>, TargetError> {
    within(response, ANSWER_BYTES_MAX)
        .await
        .map_err(|reason| TargetError::Unreachable { call: call.to_owned(), reason })
}

/// The whole body, or why there is none: a target that never ends one must not fill the memory.
async fn within(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(format!("its body is longer than {} MiB", bytes_max / (1024 * 1024)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn parse<'a, T: Deserialize<'a>>(call: &str, body: &'a [u8]) -> Result<T, TargetError> {
    serde_json::from_slice(body)
        .map_err(|error| TargetError::Unexpected { call: call.to_owned(), reason: error.to_string() })
}

/// The cause that says most: reqwest's own message is "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    tls::with_remedy(error.to_string())
}
