//! What the server takes in and keeps: an event, from the bytes of the request to the row.
//!
//! Times are microseconds since the Unix epoch (UTC). The payload is kept as the bytes that were sent, because a parsed and
//! re-written JSON value loses big numbers, duplicate keys and the order of both.

use bytes::Bytes;
use uuid::Uuid;

/// One acknowledged event, whole. Shared behind an `Arc` between the pending buffer, the processor and readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The id in the acknowledgement and in the inbox: a UUIDv7, so ids sort by time.
    pub id: Uuid,
    /// The organisation that sent it.
    pub organization_id: Uuid,
    /// `type` of the contract, 1..=255 characters.
    pub event_type: Box<str>,
    /// At most one event per organisation and `dedup_id` within the dedup window; 1..=255 characters.
    pub dedup_id: Option<Box<str>>,
    /// Raw JSON text, exactly as sent (valid UTF-8).
    pub payload: Bytes,
    /// When the server took it in.
    pub created_at_us: i64,
}

/// A time as the contract shows it: RFC 3339, UTC, six digits of a second.
pub fn rfc3339(us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_even_when_they_are_zero() {
        assert_eq!(rfc3339(1_700_000_000_000_000), "2023-11-14T22:13:20.000000Z");
    }
}
