//! What the server takes in and keeps: an event, from the bytes of the request to the row.
//!
//! Times are microseconds since the Unix epoch (UTC). The payload is kept as the bytes that were sent, because a parsed and
//! re-written JSON value loses big numbers, duplicate keys and the order of both.

use bytes::Bytes;
use uuid::Uuid;

use crate::follow::Followed;

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
    /// With `--otlp`, when its sender follows it; no part of what is kept.
    pub followed: Option<Box<Followed>>,
}

/// Bytes of what is the same for every event, see [`Event::write_bytes`].
pub const BYTES_MIN: usize = 16 + 16 + 8 + 2 + 2;
/// In the place of a length: there is no dedup_id.
const NO_DEDUP_ID: u16 = u16::MAX;

impl Event {
    /// How long [`Event::write_bytes`] is.
    pub fn bytes_len(&self) -> usize {
        BYTES_MIN + self.event_type.len() + self.dedup_id.as_deref().map_or(0, str::len) + self.payload.len()
    }

    /// Writes it as journal and queue keep it (little endian): id 16 · organisation 16 · created_at_us i64 · type length u16 · dedup_id
    /// length u16 (0xffff: none) · type · dedup_id · payload.
    pub fn write_bytes(&self, to: &mut Vec<u8>) {
        let dedup_id = self.dedup_id.as_deref();
        to.extend_from_slice(self.id.as_bytes());
        to.extend_from_slice(self.organization_id.as_bytes());
        to.extend_from_slice(&self.created_at_us.to_le_bytes());
        to.extend_from_slice(&text_length(&self.event_type).to_le_bytes());
        to.extend_from_slice(&dedup_id.map_or(NO_DEDUP_ID, text_length).to_le_bytes());
        to.extend_from_slice(self.event_type.as_bytes());
        to.extend_from_slice(dedup_id.unwrap_or_default().as_bytes());
        to.extend_from_slice(&self.payload);
    }

    /// Reads what [`Event::write_bytes`] has written; `None` for what it cannot have.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (organization_id, rest) = rest.split_first_chunk()?;
        let (created_at_us, rest) = rest.split_first_chunk()?;
        let (type_length, rest) = rest.split_first_chunk()?;
        let (dedup_length, texts) = rest.split_first_chunk()?;
        let dedup_length = Some(u16::from_le_bytes(*dedup_length)).filter(|length| *length != NO_DEDUP_ID);
        let (event_type, texts) = texts.split_at_checked(usize::from(u16::from_le_bytes(*type_length)))?;
        let (dedup_id, payload) = texts.split_at_checked(dedup_length.map_or(0, usize::from))?;
        Some(Self {
            id: Uuid::from_bytes(*id),
            organization_id: Uuid::from_bytes(*organization_id),
            created_at_us: i64::from_le_bytes(*created_at_us),
            event_type: std::str::from_utf8(event_type).ok()?.into(),
            dedup_id: match dedup_length {
                Some(_) => Some(std::str::from_utf8(dedup_id).ok()?.into()),
                None => None,
            },
            payload: Bytes::copy_from_slice(payload),
            followed: None,
        })
    }

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

/// Bytes of a text of at most 255 characters of at most 4 bytes each.
fn text_length(text: &str) -> u16 {
    debug_assert!(text.len() < usize::from(NO_DEDUP_ID));
    text.len() as u16
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
