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

impl Event {
    /// Writes it as rule R1 has it; a webhook gets it without a state. By hand, because the payload goes out as the bytes that
    /// came in.
    pub fn write_json(&self, to: &mut Vec<u8>, state: Option<&str>, persisted_at_us: Option<i64>) {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let dedup_id = self.dedup_id.as_deref().map_or("null".to_owned(), quoted);
        let persisted_at = persisted_at_us.map_or("null".to_owned(), |us| quoted(&rfc3339(us)));
        let state = state.map_or(String::new(), |state| format!(",\"state\":\"{state}\""));
        let (id, kind, created_at) = (self.id, quoted(&self.event_type), rfc3339(self.created_at_us));
        let head = format!("{{\"id\":\"{id}\",\"type\":{kind},\"dedup_id\":{dedup_id},\"payload\":");
        to.extend_from_slice(head.as_bytes());
        to.extend_from_slice(&self.payload);
        let tail = format!("{state},\"created_at\":\"{created_at}\",\"persisted_at\":{persisted_at}}}");
        to.extend_from_slice(tail.as_bytes());
    }
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
