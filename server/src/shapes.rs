//! The shapes of the bodies that the routes take and give, for readers of the OpenAPI document ([`crate::openapi`]).
//!
//! Bodies on the hot path are written by hand; a test compares answers with these shapes.

use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

use crate::limits::Tier;

macro_rules! shapes {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Serialize, ToSchema)]
        #[allow(missing_docs, reason = "the names are the contract's")]
        pub struct $name { $($(#[$field_meta])* pub $field: $kind,)* }
    )*};
}

/// A UUID.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = String, format = "uuid")]
pub struct Id(String);

shapes! {
    /// An event as it is sent.
    EventIn {
        #[serde(rename = "type")]
        #[schema(min_length = 1, max_length = 255)]
        event_type: String,
        /// Any JSON value, at most 256 KiB of text and 128 levels deep; it comes back byte for byte.
        #[schema(value_type = Value)]
        payload: serde_json::Value,
        /// A second event with the same one within 24 h is a duplicate.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(min_length = 1, max_length = 255, nullable = false)]
        dedup_id: Option<String>,
    }
    /// An acknowledgement.
    Accepted {
        id: Id,
        #[schema(example = "accepted")]
        status: String,
        durability: Durability,
    }
    /// One result per item of a batch, in order.
    BatchResults {
        results: Vec<BatchResult>,
    }
    /// A 202 with its id, or a problem with its members.
    BatchResult {
        status: u16,
        id: Option<Id>,
        durability: Option<Durability>,
        #[serde(rename = "type")]
        problem_type: Option<String>,
        title: Option<String>,
        detail: Option<String>,
        field: Option<String>,
    }
    /// An event as it is read.
    EventOut {
        id: Id,
        #[serde(rename = "type")]
        event_type: String,
        dedup_id: Option<String>,
        #[schema(value_type = Value)]
        payload: serde_json::Value,
        state: EventState,
        #[schema(format = DateTime)]
        created_at: String,
        /// Null while pending.
        #[schema(format = DateTime)]
        persisted_at: Option<String>,
    }
    /// A page of the inbox.
    Inbox {
        events: Vec<EventOut>,
        next_cursor: Option<String>,
    }
    /// An event that is now delivered.
    Delivered {
        id: Id,
        state: EventState,
    }
    /// A wish for a key.
    KeyWanted {
        #[schema(min_length = 1, max_length = 255)]
        organization_name: String,
        /// `free` when left out.
        #[schema(nullable = false)]
        tier: Option<Tier>,
    }
    /// A key, this once.
    NewKey {
        organization_id: Id,
        organization_name: String,
        api_key: String,
        tier: Tier,
        /// 0 = no limit.
        rate_limit_per_minute: u32,
    }
    /// Whose key it is.
    KeyShown {
        organization_id: Id,
        organization_name: String,
        tier: Tier,
        /// 0 = no limit.
        rate_limit_per_minute: u32,
        #[schema(format = DateTime)]
        created_at: Option<String>,
    }
    /// A wish for a webhook, or for none.
    WebhookWanted {
        /// `http://` or `https://`, leading to addresses of the public internet; null removes the webhook.
        webhook_url: Option<String>,
    }
    /// A webhook.
    WebhookShown {
        /// Null when there is none.
        webhook_url: Option<String>,
        /// False when there is none, or it is disabled.
        enabled: bool,
        /// When its secret was made.
        #[schema(format = DateTime)]
        created_at: Option<String>,
        /// When its receiver answered 410 Gone; setting it again enables it.
        #[schema(format = DateTime)]
        disabled_at: Option<String>,
    }
    /// A webhook, as it was set now.
    WebhookSet {
        webhook_url: Option<String>,
        enabled: bool,
        #[schema(format = DateTime)]
        created_at: Option<String>,
        #[schema(format = DateTime)]
        disabled_at: Option<String>,
        /// What deliveries are signed with, this once: `whsec_` and Base64. Left out when the webhook was there before, or was
        /// removed.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        secret: Option<String>,
        /// How to take the webhook away. Left out when it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false, example = "DELETE /api/webhook/config")]
        remove: Option<String>,
    }
    /// A dead letter that is sent again.
    Retried {
        id: Id,
        /// `failed`, until it is delivered.
        state: EventState,
    }
    /// The process lives.
    Health {
        #[schema(example = "ok")]
        status: String,
    }
    /// Whether events can be taken.
    Readiness {
        #[schema(example = "ready")]
        status: String,
        /// `stopping`, `database-unavailable`, `pending-full`.
        reasons: Vec<String>,
        mode: String,
    }
    /// RFC 9457: what was wrong and what to do.
    Problem {
        #[serde(rename = "type")]
        problem_type: String,
        title: String,
        status: u16,
        detail: String,
        /// Of the body or the query, when one is to blame.
        field: Option<String>,
        /// Of the first event, when this one is a duplicate.
        id: Option<Id>,
    }
}

/// What an acknowledgement is worth.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Lost when the process is killed before the event is persisted.
    Memory,
    /// Survives the process and the machine, in the journal.
    Journal,
    /// Survives the process and not the machine: in the journal, not synced.
    JournalOs,
    /// Survives.
    Database,
    /// Survives the process, and not the end of Redis.
    RedisMemory,
    /// Survives the process and the end of Redis, but not of its machine.
    RedisOs,
    /// Survives the process; when Redis or its machine ends, the last two seconds may be lost.
    RedisEverysec,
    /// Survives: Redis has synced it.
    RedisAlways,
}

/// Where an event stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum EventState {
    Pending,
    Persisted,
    Delivered,
    Failed,
    DeadLetter,
}

/// Where a persisted event stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum StoredState {
    Persisted,
    Delivered,
    Failed,
    DeadLetter,
}

/// A problem as an answer.
#[derive(Debug, ToResponse)]
#[response(description = "A problem: what was wrong and what to do", content_type = "application/problem+json")]
pub struct ProblemAnswer(#[allow(dead_code, reason = "a shape")] pub Problem);
