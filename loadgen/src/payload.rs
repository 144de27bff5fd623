//! The events that are sent: unique by sequence number, and derivable from it, so that what comes back can be compared byte for byte
//! without having been kept.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Smallest payload, bytes: the sequence number and an empty fill.
pub const PAYLOAD_BYTES_MIN: u32 = PAYLOAD_FRAME_BYTES as u32;

const SEQUENCE_DIGITS: usize = 12;
const PAYLOAD_FRAME_BYTES: usize = r#"{"sequence":"","fill":""}"#.len() + SEQUENCE_DIGITS;

/// Makes and recognises the events of one run. Cloned, not shared, between threads.
#[derive(Clone, Debug)]
pub struct Payloads {
    run_id: String,
    body: Vec<u8>,
    dedup_digits_at: usize,
    payload_at: usize,
    payload_digits_at: usize,
}

impl Payloads {
    /// Events of run `run_id` (letters, digits and hyphens) with payloads of `payload_bytes` (at least [`PAYLOAD_BYTES_MIN`]).
    pub fn new(run_id: &str, payload_bytes: u32, seed: u64) -> Self {
        let digits = "0".repeat(SEQUENCE_DIGITS);
        let fill = fill(payload_bytes as usize - PAYLOAD_FRAME_BYTES, seed);
        let head = format!(r#"{{"type":"millrace.load","dedup_id":"{run_id}."#);
        let to_payload = format!(r#"{head}{digits}","payload":"#);
        let to_digits = format!(r#"{to_payload}{{"sequence":""#);
        let body = format!(r#"{to_digits}{digits}","fill":"{fill}"}}}}"#);
        Self {
            run_id: run_id.to_owned(),
            dedup_digits_at: head.len(),
            payload_at: to_payload.len(),
            payload_digits_at: to_digits.len(),
            body: body.into_bytes(),
        }
    }

    /// The request body of event `sequence`.
    pub fn body(&mut self, sequence: u64) -> Bytes {
        self.write_digits(sequence);
        Bytes::copy_from_slice(&self.body)
    }

    /// Appends the request body of event `sequence`.
    pub fn write_body(&mut self, sequence: u64, out: &mut Vec<u8>) {
        self.write_digits(sequence);
        out.extend_from_slice(&self.body);
    }

    /// Appends the request body of a batch of `count` events from event `first` on.
    pub fn write_batch(&mut self, first: u64, count: u32, out: &mut Vec<u8>) {
        for sequence in first..first + u64::from(count) {
            out.push(if sequence == first { b'[' } else { b',' });
            self.write_body(sequence, out);
        }
        out.push(b']');
    }

    /// The payload of event `sequence`, as it was sent.
    pub fn payload(&mut self, sequence: u64) -> &[u8] {
        self.write_digits(sequence);
        &self.body[self.payload_at..self.body.len() - 1]
    }

    /// The sequence number behind a `dedup_id`; `None` for events of somebody else.
    pub fn sequence(&self, dedup_id: &str) -> Option<u64> {
        dedup_id.strip_prefix(self.run_id.as_str())?.strip_prefix('.')?.parse().ok()
    }

    /// The `dedup_id` of event `sequence`.
    pub fn dedup_id(&self, sequence: u64) -> String {
        format!("{}.{sequence:0width$}", self.run_id, width = SEQUENCE_DIGITS)
    }

    fn write_digits(&mut self, sequence: u64) {
        let mut left = sequence;
        for digit in (0..SEQUENCE_DIGITS).rev() {
            let character = b'0' + (left % 10) as u8;
            self.body[self.dedup_digits_at + digit] = character;
            self.body[self.payload_digits_at + digit] = character;
            left /= 10;
        }
    }
}

/// Letters and digits, random so that nothing on the way compresses them to nothing.
fn fill(bytes: usize, seed: u64) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..bytes).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Sent<'a> {
        dedup_id: &'a str,
        #[serde(borrow)]
        payload: &'a RawValue,
    }

    #[test]
    fn the_payload_has_the_size_asked_for_and_is_what_the_body_carries() {
        for payload_bytes in [PAYLOAD_BYTES_MIN, 200, 4_096] {
            let mut payloads = Payloads::new("r-1", payload_bytes, 3);
            let body = payloads.body(42);
            let sent: Sent = serde_json::from_slice(&body).expect("an event is JSON");
            assert_eq!(sent.payload.get().len(), payload_bytes as usize);
            assert_eq!(sent.payload.get().as_bytes(), payloads.payload(42));
            assert_eq!(payloads.sequence(sent.dedup_id), Some(42));
            assert_eq!(payloads.dedup_id(42), sent.dedup_id);
        }
    }

    #[test]
    fn two_events_differ_in_payload_and_dedup_id() {
        let mut payloads = Payloads::new("r-1", 64, 3);
        assert_ne!(payloads.body(1), payloads.body(2));
        assert_ne!(payloads.payload(1).to_vec(), payloads.payload(2).to_vec());
    }

    #[test]
    fn events_of_another_run_are_not_recognised() {
        let payloads = Payloads::new("r-1", 64, 3);
        for other in ["r-2.000000000001", "r-1", "r-1.", "r-1.x", "", "r-10.000000000001"] {
            assert_eq!(payloads.sequence(other), None, "{other}");
        }
    }
}
