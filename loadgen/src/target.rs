//! A target as the load generator meets it: over HTTP, by the routes of the contract. Control calls only; the load has its own
//! connections ([`crate::connection`]).

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use http::{HeaderValue, Uri};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::{Position, Url};
use uuid::Uuid;

use crate::observe::prometheus::Scrape;
use crate::send::Destination;

/// A control call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Events asked for in one inbox page: the most the contract allows.
pub const INBOX_PAGE_EVENTS: usize = 1_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Target {
    client: Client,
    base: Url,
}

/// A control call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// `--target` is none.
    #[error("'{0}' is not a target: give http://HOST:PORT")]
    BadUrl(String),
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
    /// Its id.
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
struct GeneratedKey {
    api_key: String,
}

impl Target {
    /// A target at `url` (`http://HOST:PORT`).
    pub fn new(url: &str) -> Result<Self, TargetError> {
        let bad = || TargetError::BadUrl(url.to_owned());
        let base: Url = url.parse().map_err(|_| bad())?;
        if base.scheme() != "http" || base.host_str().is_none() {
            return Err(bad());
        }
        let client = Client::builder().timeout(CALL_TIMEOUT).no_proxy().build().map_err(|_| bad())?;
        Ok(Self { client, base })
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
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
        let bad_key =
            |_| TargetError::Unexpected { call: "the API key".to_owned(), reason: "it is no header value".to_owned() };
        let host = &self.base[Position::BeforeHost..Position::AfterPort];
        let authorizations = keys.iter().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(bad_key)?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Destination {
            address: self.address()?,
            host: HeaderValue::from_str(host).map_err(|_| TargetError::BadUrl(self.base.to_string()))?,
            path: Uri::from_static("/api/events"),
            authorizations: authorizations.collect::<Result<_, _>>()?,
        })
    }

    /// Asks the target for the key of a new organisation.
    pub async fn generate_key(&self, organization_name: &str) -> Result<String, TargetError> {
        let body = serde_json::json!({ "organization_name": organization_name, "tier": "enterprise" });
        let call = "POST /api/keys/generate";
        let response = self.call(call, self.client.post(self.at(&["api", "keys", "generate"])).json(&body)).await?;
        let remedy = "give the key of an organisation with --api-key KEY";
        let answer = whole(call, successful(call, response, remedy)?).await?;
        let key: GeneratedKey = parse(call, &answer)?;
        Ok(key.api_key)
    }

    /// Scrapes `/metrics`; `None` when the target has none.
    pub async fn metrics(&self) -> Option<Scrape> {
        let response = self.client.get(self.at(&["metrics"])).send().await.ok()?.error_for_status().ok()?;
        Some(Scrape::parse(&response.text().await.ok()?))
    }

    /// Shows one page of the inbox to `each`, and says where the next one begins.
    pub async fn inbox_page(
        &self,
        key: &str,
        cursor: Option<&str>,
        mut each: impl FnMut(ShownEvent<'_>),
    ) -> Result<Option<String>, TargetError> {
        let mut url = self.at(&["api", "inbox"]);
        url.query_pairs_mut().append_pair("limit", &INBOX_PAGE_EVENTS.to_string());
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let call = "GET /api/inbox";
        let response = self.call(call, self.client.get(url).bearer_auth(key)).await?;
        let remedy = "a target that cannot show what it keeps is run with --no-ledger";
        let answer = whole(call, successful(call, response, remedy)?).await?;
        let page: Page<'_> = parse(call, &answer)?;
        page.events.into_iter().for_each(&mut each);
        Ok(page.next_cursor)
    }

    /// Shows event `id` to `each`; that the target does not have it is an error, too.
    pub async fn event(&self, key: &str, id: Uuid, each: impl FnOnce(ShownEvent<'_>)) -> Result<(), TargetError> {
        let call = "GET /api/events/{id}";
        let response =
            self.call(call, self.client.get(self.at(&["api", "events", &id.to_string()])).bearer_auth(key)).await?;
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

    fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn call(&self, call: &str, request: RequestBuilder) -> Result<Response, TargetError> {
        request
            .send()
            .await
            .map_err(|error| TargetError::Unreachable { call: call.to_owned(), reason: innermost(&error) })
    }
}

fn successful(call: &str, response: Response, remedy: &'static str) -> Result<Response, TargetError> {
    let status = response.status();
    if status.is_success() { Ok(response) } else { Err(TargetError::Refused { call: call.to_owned(), status, remedy }) }
}

async fn whole(call: &str, response: Response) -> Result<bytes::Bytes, TargetError> {
    response
        .bytes()
        .await
        .map_err(|error| TargetError::Unreachable { call: call.to_owned(), reason: innermost(&error) })
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
    error.to_string()
}
