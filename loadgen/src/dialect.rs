//! How a target is spoken to: paths, headers, bodies, and how its answers are to be read. The contract's is the default; a target
//! profile says where another one differs ([`crate::profile`]).

use std::hash::Hasher;

use uuid::Uuid;

use crate::payload::BodyTemplate;
use crate::pointer::Pointer;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Headers of every request, the names in lower case.
    pub headers: Vec<(String, String)>,
    /// How a request shows its key; `None`: not at all.
    pub key_header: Option<KeyHeader>,
    /// How a key is asked for.
    pub key: KeyRoute,
    /// How an event is sent.
    pub ingest: Ingest,
    /// The other routes.
    pub routes: Routes,
    /// How to see that it can take events.
    pub ready: Ready,
}

/// A header line with the key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHeader {
    /// In lower case.
    pub name: String,
    /// What comes before the key.
    pub before: String,
    /// What comes after it.
    pub after: String,
}

/// Asks for the key of a new organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRoute {
    /// Path and query.
    pub path: String,
    /// `POST` or `PUT`.
    pub method: &'static str,
    /// JSON, with `{organization}` in a string.
    pub body: String,
    /// Headers beside [`Dialect::headers`].
    pub headers: Vec<(String, String)>,
    /// What it is answered with.
    pub statuses: Statuses,
    /// Where the key is in the answer.
    pub pointer: Pointer,
}

/// Sends one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// Path and query.
    pub path: String,
    /// `POST` or `PUT`.
    pub method: &'static str,
    /// Headers beside [`Dialect::headers`].
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: BodyTemplate,
    /// What an acknowledgement has.
    pub statuses: Statuses,
    /// What a repeat of an acknowledged event is refused with.
    pub duplicate_statuses: Statuses,
    /// Where the event's id is in an acknowledgement; `None`: it has none.
    pub id: Option<Pointer>,
    /// Whether the store keeps the event under that id.
    pub ids_match: bool,
    /// Where an acknowledgement says what it is worth.
    pub durability: Pointer,
}

/// Paths, each with its query; `None`: the target has no such route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Pages of what is persisted.
    pub inbox: Option<String>,
    /// One event; `{id}` in it is its id.
    pub event: Option<String>,
    /// Takes an event out of the inbox; `{id}` in it is its id.
    pub ack: Option<String>,
    /// Several events at once.
    pub batch: Option<String>,
    /// Where deliveries go.
    pub webhook: Option<String>,
    /// Prometheus text.
    pub metrics: Option<String>,
}

/// Shows that the target can take events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Path; `None`: it is ready when it takes connections.
    pub path: Option<String>,
    /// What it is answered with then.
    pub statuses: Statuses,
}

/// Statuses that mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// 200 to 299.
    Success,
    /// These.
    OneOf(Vec<u16>),
}

impl Statuses {
    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        match self {
            Self::Success => (200..300).contains(&status),
            Self::OneOf(all) => all.contains(&status),
        }
    }
}

/// What is wrong with an answer that is meant to acknowledge an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAcknowledgement {
    /// From 200 to 299, and none of those that acknowledge.
    OtherStatus,
    /// Its body is not JSON.
    NotJson,
    /// There is no id in it, or an empty one.
    NoId,
}

impl NoAcknowledgement {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::OtherStatus => "acknowledged with another status than it should",
            Self::NotJson => "acknowledged with what is not JSON",
            Self::NoId => "acknowledged without an id",
        }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::contract()
    }
}

impl Dialect {
    /// What the contract says.
    pub fn contract() -> Self {
        Self {
            headers: Vec::new(),
            key_header: Some(KeyHeader {
                name: "authorization".to_owned(),
                before: "Bearer ".to_owned(),
                after: String::new(),
            }),
            key: KeyRoute {
                path: "/api/keys/generate".to_owned(),
                method: "POST",
                body: r#"{"organization_name":"{organization}","tier":"enterprise"}"#.to_owned(),
                headers: Vec::new(),
                statuses: Statuses::Success,
                pointer: Pointer::member("api_key"),
            },
            ingest: Ingest {
                path: "/api/events".to_owned(),
                method: "POST",
                headers: Vec::new(),
                body: BodyTemplate::contract(),
                statuses: Statuses::OneOf(vec![202]),
                duplicate_statuses: Statuses::OneOf(vec![409]),
                id: Some(Pointer::member("id")),
                ids_match: true,
                durability: Pointer::member("durability"),
            },
            routes: Routes {
                inbox: Some("/api/inbox".to_owned()),
                event: Some("/api/events/{id}".to_owned()),
                ack: Some("/api/ack/{id}".to_owned()),
                batch: Some("/api/events/batch".to_owned()),
                webhook: Some("/api/webhook/config".to_owned()),
                metrics: Some("/metrics".to_owned()),
            },
            ready: Ready { path: Some("/readyz".to_owned()), statuses: Statuses::Success },
        }
    }

    /// The headers with which a request shows `key`, [`Dialect::headers`] included.
    pub fn headers_with(&self, key: &str) -> Vec<(String, String)> {
        let own = self.key_header.iter().map(|header| header.with(key));
        self.headers.iter().cloned().chain(own).collect()
    }
}

impl KeyHeader {
    /// Name and value.
    pub fn with(&self, key: &str) -> (String, String) {
        (self.name.clone(), format!("{}{key}{}", self.before, self.after))
    }
}

impl Ingest {
    /// The id in the answer to an event (`None`: it has none, and needs none), or why that is no acknowledgement.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn acknowledgement(&self, status: u16, body: &[u8]) -> Result<Option<Uuid>, NoAcknowledgement> {
        if !self.statuses.contains(status) {
            return Err(NoAcknowledgement::OtherStatus);
        }
        let Some(pointer) = &self.id else { return Ok(None) };
        let found = pointer.find(body).map_err(|_| NoAcknowledgement::NotJson)?;
        found.map(|id| Some(id_of(&id))).ok_or(NoAcknowledgement::NoId)
    }

    /// What the answer says it is worth.
    pub fn durability(&self, body: &[u8]) -> Option<String> {
        self.durability.find(body).ok()?.map(std::borrow::Cow::into_owned)
    }
}

/// An id as 16 bytes: a UUID as it is; of any other text a digest, so that ids can be compared without keeping them ([`is_digest`]).
pub fn id_of(text: &str) -> Uuid {
    text.parse().unwrap_or_else(|_| {
        let half = |salt: u8| {
            // Its keys are always the same, so an id read from a store meets the one that was acknowledged.
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(text.as_bytes());
            hasher.finish()
        };
        let bytes = (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes();
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// Whether this is no id that a target could be asked for, but what [`id_of`] made of one. (So are UUIDs of version 8, which hardly
/// anybody makes.)
pub fn is_digest(id: Uuid) -> bool {
    id.get_version_num() == 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_acknowledges_with_its_status_and_an_id() {
        let contract = Dialect::contract().ingest;
        let uuid = Uuid::from_u128(7);
        for (status, body, expected) in [
            (202, format!(r#"{{"status":"accepted","id":"{uuid}"}}"#), Ok(Some(uuid))),
            (202, r#"{"id":"evt_1"}"#.to_owned(), Ok(Some(id_of("evt_1")))),
            (202, r#"{"id":17}"#.to_owned(), Ok(Some(id_of("17")))),
            (202, r#"{"id":""}"#.to_owned(), Err(NoAcknowledgement::NoId)),
            (202, r#"{"id":null}"#.to_owned(), Err(NoAcknowledgement::NoId)),
            (202, "{}".to_owned(), Err(NoAcknowledgement::NoId)),
            (202, "accepted".to_owned(), Err(NoAcknowledgement::NotJson)),
            (200, format!(r#"{{"id":"{uuid}"}}"#), Err(NoAcknowledgement::OtherStatus)),
        ] {
            assert_eq!(contract.acknowledgement(status, body.as_bytes()), expected, "{status} {body}");
        }
        let other = Ingest { statuses: Statuses::OneOf(vec![200, 201]), id: None, ..contract };
        assert_eq!(other.acknowledgement(201, b"OK"), Ok(None));
        assert_eq!(other.acknowledgement(202, b"OK"), Err(NoAcknowledgement::OtherStatus));
    }

    #[test]
    fn ids_that_are_no_uuids_differ_where_their_text_does() {
        let uuid = Uuid::from_u128(7);
        assert_eq!(id_of(&uuid.to_string()), uuid);
        assert_eq!(id_of("evt_1"), id_of("evt_1"));
        assert!(is_digest(id_of("evt_1")) && !is_digest(uuid));
        let ids: std::collections::BTreeSet<_> = (0..1_000).map(|number| id_of(&number.to_string())).collect();
        assert_eq!(ids.len(), 1_000);
    }
}
