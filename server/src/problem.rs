//! Every way in which the server says no: one enum that is the table of statuses, and its body (RFC 9457, rule O3).
//!
//! Not for logging. A body says what was wrong and what to do; it never holds SQL, paths or anything else of the inside.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use uuid::Uuid;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// 400: the body is not JSON, or not of the form that the route wants.
    Body(String),
    /// 400: one field of the body, or one parameter of the query.
    Field {
        /// Its name as the sender wrote it.
        field: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// 400: the request is not HTTP/1.1 as this server reads it.
    BadRequest,
    /// 401: no key, or not a valid one.
    Unauthorized,
    /// 401: making keys needs the administrator's token.
    AdminTokenWanted,
    /// 403: keys are made without a token, and the request was for a name that may be anybody's.
    ForeignHost,
    /// 404: no such route.
    NoRoute,
    /// 404: no such event for this organisation.
    NoEvent,
    /// 405: with the methods that the route has.
    Method(&'static str),
    /// 408: the request came too slowly.
    TooSlow,
    /// 409: the `dedup_id` is another event's.
    Duplicate(Uuid),
    /// 409: the event is no dead letter, but in this state.
    NoDeadLetter(&'static str),
    /// 409: there is no webhook to send to, or it is disabled.
    NoWebhook,
    /// 409: a server that keeps no events has nothing to send.
    KeepsNothing,
    /// 413: too many bytes or items.
    TooLarge {
        /// What is too large.
        field: &'static str,
        /// The bound.
        max: u64,
        /// `bytes` or `events`.
        unit: &'static str,
    },
    /// 414: the target is too long.
    UriTooLong,
    /// 415: with the content types that the route takes.
    ContentType(&'static str),
    /// 422: the `Idempotency-Key` was used with another body.
    IdempotencyMismatch,
    /// 429: over the tier's limit.
    RateLimited {
        /// The tier's name.
        tier: &'static str,
        /// Requests a minute.
        per_minute: u32,
        /// Whole seconds until the next one.
        retry_after_s: u64,
    },
    /// Any status: a fault on purpose.
    Injected(StatusCode),
    /// No answer at all: a fault on purpose that closes the connection.
    HungUp,
    /// 431: too many header fields, or too large.
    HeadersTooLarge,
    /// 500: a statement that this server should not have made.
    Internal,
    /// 503: the pending buffer or the writer's queue is full.
    Full,
    /// 503: the journal has no room.
    JournalFull,
    /// 503: the database cannot be asked.
    StoreUnavailable,
    /// 503: the queue outside of this process cannot be asked.
    QueueUnavailable,
    /// 503: the database, the journal's disk or the queue did not say whether the event is in: not in time, or not before the connection broke.
    OutcomeUnknown,
    /// 503: the server is stopping.
    Stopping,
    /// 503: too many open connections.
    TooManyConnections,
}

impl Problem {
    /// A field that is wrong.
    pub fn field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Field { field, detail: detail.into() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Field { .. } | Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::AdminTokenWanted => StatusCode::UNAUTHORIZED,
            Self::ForeignHost => StatusCode::FORBIDDEN,
            Self::NoRoute | Self::NoEvent => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Duplicate(_) | Self::NoDeadLetter(_) | Self::NoWebhook | Self::KeepsNothing => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Injected(status) => *status,
            Self::HungUp => NO_RESPONSE.try_into().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Full
            | Self::JournalFull
            | Self::StoreUnavailable
            | Self::QueueUnavailable
            | Self::OutcomeUnknown
            | Self::Stopping
            | Self::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A short word for metrics, and the end of the problem's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Body(_) => "malformed-body",
            Self::Field { .. } => "invalid-field",
            Self::BadRequest => "malformed-request",
            Self::Unauthorized => "invalid-api-key",
            Self::AdminTokenWanted => "admin-token-wanted",
            Self::ForeignHost => "foreign-host",
            Self::NoRoute => "no-such-route",
            Self::NoEvent => "no-such-event",
            Self::Method(_) => "method-not-allowed",
            Self::TooSlow => "too-slow",
            Self::Duplicate(_) => "duplicate",
            Self::NoDeadLetter(_) => "no-dead-letter",
            Self::NoWebhook => "no-webhook",
            Self::KeepsNothing => "keeps-nothing",
            Self::TooLarge { .. } => "too-large",
            Self::UriTooLong => "uri-too-long",
            Self::ContentType(_) => "content-type",
            Self::IdempotencyMismatch => "idempotency-key-reused",
            Self::RateLimited { .. } => "quota-exceeded",
            Self::HeadersTooLarge => "headers-too-large",
            Self::Injected(_) => "injected",
            Self::HungUp => "injected-hang-up",
            Self::Internal => "internal",
            Self::Full => "full",
            Self::JournalFull => "journal-full",
            Self::StoreUnavailable => "database-unavailable",
            Self::QueueUnavailable => "queue-unavailable",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Stopping => "stopping",
            Self::TooManyConnections => "too-many-connections",
        }
    }

    /// What was wrong and what to do.
    fn detail(&self) -> String {
        match self {
            Self::Body(detail) | Self::Field { detail, .. } => detail.clone(),
            Self::BadRequest => "the request is not well-formed HTTP/1.1; the connection is closed".into(),
            Self::Unauthorized => "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'; POST \
                                   /api/keys/generate makes one"
                .into(),
            Self::AdminTokenWanted => "send the administrator's token as 'Authorization: Bearer TOKEN'".into(),
            Self::ForeignHost => {
                "this server makes keys without a token, and so only for requests to localhost or to an \
                                  address; use one of these as Host, or start the server with --admin-token"
                    .into()
            }
            Self::NoRoute => "there is no such route; GET /api/openapi.json lists all".into(),
            Self::NoEvent => "this organisation has no event with this id".into(),
            Self::Method(allow) => format!("this route takes {allow}"),
            Self::TooSlow => "the request did not arrive in time; send it again, in one piece".into(),
            Self::Duplicate(id) => {
                format!("an event with this dedup_id was already accepted: its id is {id}; don't send it again")
            }
            Self::NoDeadLetter(state) => {
                format!("the event's state is '{state}'; only a dead letter can be sent again")
            }
            Self::NoWebhook => {
                "there is no webhook to send it to, or it is disabled; POST /api/webhook/config sets one".into()
            }
            Self::KeepsNothing => {
                "this server keeps no events (mode null), so it has none to send; start it in another mode".into()
            }
            Self::TooLarge { field, max, unit } => {
                format!("{field} is over the limit of {max} {unit}; send less at once")
            }
            Self::UriTooLong => "the request's target is too long".into(),
            Self::ContentType(wanted) => format!("send the body as {wanted}"),
            Self::IdempotencyMismatch => {
                "this Idempotency-Key was used with another body; use a new key for a new request".into()
            }
            Self::RateLimited { tier, per_minute, retry_after_s } => format!(
                "the tier '{tier}' has {per_minute} requests a minute, and they are used up; try again in {retry_after_s} s"
            ),
            Self::HeadersTooLarge => "the request has too many header fields, or too large ones; send fewer".into(),
            Self::Injected(_) => {
                "a fault on purpose: this server was started with --fault; start it without to be served".into()
            }
            Self::HungUp => "a fault on purpose: the connection is closed without this answer".into(),
            Self::Internal => "the server made a mistake; nothing was acknowledged".into(),
            Self::Full => {
                "the server holds as much unfinished work as it may; try again after the time in Retry-After".into()
            }
            Self::JournalFull => {
                "the journal has no room; nothing was acknowledged; try again after the time in Retry-After".into()
            }
            Self::StoreUnavailable => {
                "the database is not available; nothing was acknowledged; try again after the time in Retry-After"
                    .into()
            }
            Self::QueueUnavailable => {
                "the server's queue is not available; nothing was acknowledged; try again after the time in Retry-After".into()
            }
            Self::OutcomeUnknown => {
                "the storage did not answer, so it is not known whether the event is stored; try again with the same dedup_id"
                    .into()
            }
            Self::Stopping => "the server is stopping; send to another one, or try again later".into(),
            Self::TooManyConnections => {
                "the server has as many connections as it may; close some, or try again later".into()
            }
        }
    }

    /// The members of the body, also used for one item of a batch.
    pub fn to_json(&self) -> serde_json::Value {
        let status = self.status();
        let kind = match self {
            // The one that the rate limit draft registers.
            Self::RateLimited { .. } => "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned(),
            _ => format!("urn:millrace:problem:{}", self.name()),
        };
        let mut body = json!({
            "type": kind,
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": self.detail(),
        });
        match self {
            Self::Field { field, .. } => body["field"] = json!(field),
            Self::TooLarge { field, max, unit } => {
                body["field"] = json!(field);
                body[format!("{unit}_max")] = json!(max);
            }
            Self::Duplicate(id) => body["id"] = json!(id),
            Self::RateLimited { tier, .. } => body["violated-policies"] = json!([tier]),
            _ => {}
        }
        body
    }

    /// The body as bytes.
    pub fn body(&self) -> Bytes {
        Bytes::from(self.to_json().to_string())
    }

    /// The whole answer.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        match self {
            Self::Unauthorized | Self::AdminTokenWanted => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Method(allow) => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::TooSlow | Self::TooManyConnections => {
                headers.insert(CONNECTION, CLOSE);
            }
            Self::RateLimited { tier, per_minute, retry_after_s } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after_s));
                insert(headers, "ratelimit-policy", &format!("\"{tier}\";q={per_minute};w=60"));
                insert(headers, "ratelimit", &format!("\"{tier}\";r=0;t={retry_after_s}"));
            }
            _ => {}
        }
        if matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
            && !headers.contains_key(RETRY_AFTER)
        {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// The answer as it goes over the wire where there is no HTTP connection to give it to (too many connections, a head
    /// that hyper could not read); the connection is closed after it.
    pub fn wire(&self) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n",
            status.as_str(),
            status.canonical_reason().unwrap_or("Error"),
            body.len(),
        );
        [head.as_bytes(), &body].concat()
    }
}

/// The content type of every error body.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// As nginx counts connections that it closes without an answer; never sent.
const NO_RESPONSE: u16 = 444;
const CLOSE: HeaderValue = HeaderValue::from_static("close");

fn insert(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_was_wrong_and_names_the_field() {
        let body = Problem::field("type", "'type' is missing; send 1 to 255 characters").to_json();
        assert_eq!(
            body,
            json!({
                "type": "urn:millrace:problem:invalid-field",
                "title": "Bad Request",
                "status": 400,
                "detail": "'type' is missing; send 1 to 255 characters",
                "field": "type",
            })
        );
    }

    #[test]
    fn an_answer_over_the_rate_limit_carries_the_three_headers() {
        let response = Problem::RateLimited { tier: "free", per_minute: 100, retry_after_s: 7 }.response();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("retry-after"), "7");
        assert_eq!(header("ratelimit-policy"), "\"free\";q=100;w=60");
        assert_eq!(header("ratelimit"), "\"free\";r=0;t=7");
    }
}
