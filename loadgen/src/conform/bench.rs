//! What every check works with: the server at hand, and organisations on it, each check its own, so that no rule's test meets
//! another's events.
//!
//! What is only a means here (getting a key, getting an event in) is taken as it comes, whatever its status and form, so that a target
//! which breaks one rule fails that one and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::Method;
use reports::conform::Rule;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::door::{Ask, Door, Exchange};
use super::place::{Need, Own, Place, PlaceError, Subject};
use super::sheet::{Done, Stop};
use crate::dialect::Dialect;
use crate::payload::BodyTemplate;
use crate::profile::KeySource;

/// Makes an organisation.
pub const KEYS_GENERATE: &str = "/api/keys/generate";
/// Shows it.
pub const KEYS: &str = "/api/keys";
/// Replaces its key.
pub const KEYS_ROTATE: &str = "/api/keys/rotate";
/// Takes one event.
pub const EVENTS: &str = "/api/events";

/// An accepted event that is not persisted after so long is not waited for.
const PERSIST_PATIENCE: Duration = Duration::from_secs(10);
/// The same where none was ever persisted.
const PERSIST_PATIENCE_SHORT: Duration = Duration::from_millis(300);
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Pages of an inbox that are read: more than any check fills.
const PAGES_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub struct Bench {
    /// What is tested.
    pub subject: Subject,
    /// The server that most checks ask.
    pub main: Place,
    claims: Vec<Rule>,
    organizations: AtomicU32,
    /// An event was waited for in vain: nobody waits so long again.
    keeps_nothing: Arc<AtomicBool>,
}

/// An organisation with its key.
#[derive(Clone, Debug)]
pub struct Organization {
    /// Where.
    pub door: Door,
    /// Its key.
    pub key: String,
    /// Requests a minute, as the target said; `None`: it did not say, or 0.
    pub limit_per_minute: Option<u64>,
    keeps_nothing: Arc<AtomicBool>,
}

/// An event as a target shows it. The payload is kept as the text that came.
#[derive(Debug, Deserialize)]
pub struct Shown {
    /// Its id.
    pub id: Option<String>,
    /// As sent.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// As sent.
    pub payload: Option<Box<RawValue>>,
    /// `persisted` and so on.
    pub state: Option<String>,
    /// RFC 3339.
    pub persisted_at: Option<String>,
}

impl Shown {
    /// The payload as a whole number.
    pub fn number(&self) -> Option<u64> {
        self.payload.as_ref()?.get().parse().ok()
    }
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Shown>,
    next_cursor: Option<String>,
}

impl Bench {
    /// With the server that most checks ask.
    pub async fn open(subject: Subject, claims: &[Rule]) -> Result<Option<Self>, PlaceError> {
        let main = subject.place(Need::Plain).await?;
        Ok(main.map(|main| Self {
            subject,
            main,
            claims: claims.to_vec(),
            organizations: AtomicU32::new(0),
            keeps_nothing: Arc::default(),
        }))
    }

    /// Whether the target says that it keeps this rule.
    pub fn claims(&self, rule: Rule) -> bool {
        self.claims.contains(&rule)
    }

    /// A server of its own for one rule; `None` where the target is not ours to start.
    pub async fn own(&self, need: Need) -> Result<Option<Place>, Stop> {
        Ok(self.subject.place(need).await?)
    }

    /// A new organisation on the main server, with the highest limits.
    pub async fn organization(&self) -> Result<Organization, Stop> {
        self.organization_at(&self.main.door, "enterprise").await
    }

    /// A new organisation.
    pub async fn organization_at(&self, door: &Door, tier: &str) -> Result<Organization, Stop> {
        let number = self.organizations.fetch_add(1, Ordering::Relaxed);
        if door.dialect.key != Dialect::contract().key || self.has_other_keys() {
            return self.organization_of_profile(door, number as usize).await;
        }
        let wanted = json!({"organization_name": format!("conformance {number}"), "tier": tier});
        let made = door.post(KEYS_GENERATE).json(&wanted).send().await?;
        let key = made.text_at("/api_key").filter(|_| made.is_success());
        let key = key.ok_or_else(|| Stop::Blocked(format!("no key was to be had: {}", made.answer())))?;
        let limit = made.json().pointer("/rate_limit_per_minute").and_then(Value::as_u64);
        Ok(Organization {
            door: door.clone(),
            key,
            limit_per_minute: limit.filter(|limit| *limit > 0),
            keeps_nothing: Arc::clone(&self.keeps_nothing),
        })
    }

    /// Whether a profile has its keys from elsewhere.
    pub fn has_other_keys(&self) -> bool {
        matches!(&self.subject, Subject::Profile { profile, .. } if profile.keys != KeySource::Route)
    }

    /// With the next key that its profile gives.
    async fn organization_of_profile(&self, door: &Door, number: usize) -> Result<Organization, Stop> {
        let Some(Own::Profile(started)) = &self.main.own else {
            return Err(Stop::Blocked("keys are not made as the contract says".to_owned()));
        };
        let name = format!("conformance {number}");
        let keys =
            started.keys(1, &name).await.map_err(|error| Stop::Blocked(format!("no key was to be had: {error}")))?;
        // A route and a command make one for each that asks; of what is given beforehand each check takes the next.
        let is_made = keys.len() == 1 && !matches!(started.profile().keys, KeySource::Static(_));
        let key = if is_made { keys.first() } else { keys.get(number) };
        let key = key
            .ok_or_else(|| Stop::Blocked(format!("its profile has {} keys, and every check needs one", keys.len())))?;
        let (door, key) = (door.clone(), key.clone());
        Ok(Organization { door, key, limit_per_minute: None, keeps_nothing: Arc::clone(&self.keeps_nothing) })
    }

    /// Where the inbox is.
    pub fn inbox(&self) -> Result<&str, Stop> {
        has_route(&self.main.door.dialect.routes.inbox, "inbox")
    }

    /// Where batches go.
    pub fn batch(&self) -> Result<&str, Stop> {
        has_route(&self.main.door.dialect.routes.batch, "batch")
    }

    /// Where the webhook is set, shown and removed.
    pub fn webhook(&self) -> Result<&str, Stop> {
        has_route(&self.main.door.dialect.routes.webhook, "webhook")
    }

    /// Where an event is acknowledged.
    pub fn ack(&self, id: &str) -> Result<String, Stop> {
        Ok(has_route(&self.main.door.dialect.routes.ack, "ack")?.replace("{id}", id))
    }

    /// Where an event is shown.
    pub fn event(&self, id: &str) -> Result<String, Stop> {
        Ok(has_route(&self.main.door.dialect.routes.event, "event")?.replace("{id}", id))
    }

    /// That bodies are the contract's, for checks whose bodies are wrong in a way of their own.
    pub fn has_own_bodies(&self) -> Done {
        match self.main.door.dialect.ingest.body == BodyTemplate::contract() {
            true => Ok(()),
            false => Err(Stop::Blocked("its bodies have another form than the contract's".to_owned())),
        }
    }
}

fn has_route<'a>(route: &'a Option<String>, name: &str) -> Result<&'a str, Stop> {
    route.as_deref().ok_or_else(|| Stop::Blocked(format!("its profile has no route for it ([routes] {name})")))
}

impl Organization {
    /// A GET with its key.
    pub fn get(&self, path: &str) -> Ask {
        self.door.get(path).key(&self.key)
    }

    /// A POST with its key.
    pub fn post(&self, path: &str) -> Ask {
        self.door.post(path).key(&self.key)
    }

    /// An event.
    pub fn event(&self, body: &Value) -> Ask {
        let ingest = &self.door.dialect.ingest;
        if ingest.body == BodyTemplate::contract() {
            return self.ingest().json(body);
        }
        let any = Uuid::new_v4().to_string();
        let dedup_id = body["dedup_id"].as_str().unwrap_or(&any);
        self.ingest().raw_json(ingest.body.filled(&body["payload"].to_string(), dedup_id, "000000000000"))
    }

    /// An event with this text as its payload.
    pub fn event_with(&self, payload: &str) -> Ask {
        self.ingest().raw_json(self.body_with(payload))
    }

    /// The body of one.
    pub fn body_with(&self, payload: &str) -> String {
        match &self.door.dialect.ingest.body {
            body if *body == BodyTemplate::contract() => format!(r#"{{"type":"t","payload":{payload}}}"#),
            body => body.filled(payload, &Uuid::new_v4().to_string(), "000000000000"),
        }
    }

    /// The route of events, without a body.
    pub fn ingest(&self) -> Ask {
        let ingest = &self.door.dialect.ingest;
        let method = if ingest.method == "PUT" { Method::PUT } else { Method::POST };
        let ask = self.door.ask(method, &ingest.path).key(&self.key);
        ingest.headers.iter().fold(ask, |ask, (name, value)| ask.secret_header(name, value))
    }

    /// The id in the answer to an event.
    pub fn id_in(&self, answer: &Exchange) -> Option<String> {
        let pointer = self.door.dialect.ingest.id.as_ref().filter(|_| answer.is_success())?;
        Some(pointer.find(&answer.body).ok()??.into_owned())
    }

    /// Gets an event in, as a means; its id.
    pub async fn accepted(&self, body: &Value) -> Result<String, Stop> {
        let sent = self.event(body).send().await?;
        self.id_in(&sent).ok_or_else(|| Stop::Blocked(format!("an event was not taken in: {}", sent.answer())))
    }

    /// An event by its id.
    pub async fn event_by_id(&self, id: &str) -> Result<Exchange, Stop> {
        let path = has_route(&self.door.dialect.routes.event, "event")?.replace("{id}", id);
        self.get(&path).send().await
    }

    /// The inbox, read to its end in pages of `limit`; `status`: only these.
    pub async fn inbox(&self, status: &str, limit: u32) -> Result<Vec<Shown>, Stop> {
        let mut events = Vec::new();
        let mut cursor = String::new();
        for _ in 0..PAGES_MAX {
            let (page, next) = self.inbox_page(status, limit, &cursor).await?;
            events.extend(page);
            match next {
                Some(next) => cursor = next,
                None => return Ok(events),
            }
        }
        Err(Stop::Blocked(format!("the inbox has no end: {PAGES_MAX} pages were read")))
    }

    /// One page of it, and where the next one begins.
    pub async fn inbox_page(
        &self,
        status: &str,
        limit: u32,
        cursor: &str,
    ) -> Result<(Vec<Shown>, Option<String>), Stop> {
        let mut path = format!("{}?limit={limit}", has_route(&self.door.dialect.routes.inbox, "inbox")?);
        for (name, value) in [("status", status), ("cursor", cursor)] {
            if !value.is_empty() {
                let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                path += &format!("&{name}={value}");
            }
        }
        let page = self.get(&path).send().await?;
        match serde_json::from_slice::<Page>(&page.body) {
            Ok(read) if page.is_success() => Ok((read.events, read.next_cursor)),
            _ => Err(Stop::Blocked(format!("the inbox could not be read: {}", page.answer()))),
        }
    }

    /// The same, with what there is when that is less.
    pub async fn persisted_or_not(&self, count: usize) -> Result<Vec<Shown>, Stop> {
        match self.persisted(count).await {
            Err(Stop::Blocked(_)) => self.inbox("", 1_000).await,
            found => found,
        }
    }

    /// Waits until so many events are persisted, and reads them.
    pub async fn persisted(&self, count: usize) -> Result<Vec<Shown>, Stop> {
        let begin = Instant::now();
        loop {
            let events = self.inbox("", 1_000).await?;
            if events.len() >= count {
                return Ok(events);
            }
            let in_vain = self.keeps_nothing.load(Ordering::Relaxed);
            let patience = if in_vain { PERSIST_PATIENCE_SHORT } else { PERSIST_PATIENCE };
            if begin.elapsed() > patience {
                self.keeps_nothing.store(true, Ordering::Relaxed);
                let waited = patience.as_secs_f64();
                let found = events.len();
                return Err(Stop::Blocked(format!(
                    "of {count} accepted events {found} were in the inbox after {waited} s"
                )));
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}
