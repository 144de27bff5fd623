//! The events that are sent: unique by sequence number, and derivable from it, so that what comes back can be compared byte for byte
//! without having been kept.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// Smallest payload, bytes: the sequence number and an empty fill.
pub const PAYLOAD_BYTES_MIN: u32 = PAYLOAD_FRAME_BYTES as u32;

const SEQUENCE_DIGITS: usize = 12;
/// A fill this long is this run's alone: that another run's is the same by chance is out of the question (36^16).
const FILL_BYTES_TELLING: usize = 16;
const PAYLOAD_FRAME_BYTES: usize = r#"{"sequence":"","fill":""}"#.len() + SEQUENCE_DIGITS;

/// Makes and recognises the events of one run. Cloned, not shared, between threads.
#[derive(Clone, Debug)]
pub struct Payloads {
    run_id: String,
    body: Vec<u8>,
    dedup_digits_at: usize,
    payload_at: usize,
    payload_digits_at: usize,
    fill: String,
}

/// The parts of a payload.
#[derive(Deserialize)]
struct Content<'a> {
    sequence: &'a str,
    fill: &'a str,
}

impl Payloads {
    /// Events of run `run_id` (letters, digits and hyphens) with payloads of `payload_bytes` (at least [`PAYLOAD_BYTES_MIN`]).
    pub fn new(run_id: &str, payload_bytes: u32, seed: u64) -> Self {
        let digits = "0".repeat(SEQUENCE_DIGITS);
        let fill = fill(payload_bytes as usize - PAYLOAD_FRAME_BYTES, seed, run_id);
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
            fill,
        }
    }

    /// The request body of event `sequence`.
    pub fn body(&mut self, sequence: u64) -> Bytes {
        self.write_digits(sequence);
        Bytes::copy_from_slice(&self.body)
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

    /// The sequence number in a payload, however its JSON is written, if it is one of this run. The payloads of a run are told from
    /// those of others by their fill; one that is too short for that tells nothing, and is not recognised.
    pub fn sequence_in(&self, payload: &[u8]) -> Option<u64> {
        let content: Content<'_> = serde_json::from_slice(payload).ok()?;
        let of_this_run = self.fill.len() >= FILL_BYTES_TELLING && content.fill == self.fill;
        of_this_run.then(|| content.sequence.parse().ok()).flatten()
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

/// Letters and digits, random so that nothing on the way compresses them to nothing, and others for each run.
fn fill(bytes: usize, seed: u64, run_id: &str) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut whole_seed = [0; 32];
    whole_seed[..8].copy_from_slice(&seed.to_le_bytes());
    for (index, byte) in run_id.bytes().enumerate() {
        whole_seed[8 + index % 24] ^= byte;
    }
    let mut random = ChaCha8Rng::from_seed(whole_seed);
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
    fn a_payload_is_recognised_by_its_content_however_it_is_written_if_it_is_long_enough_to_tell() {
        let mut payloads = Payloads::new("r-1", 64, 3);
        let payload = payloads.payload(42).to_vec();
        let spaced = String::from_utf8(payload.clone()).expect("text").replace(':', " : ");
        assert_eq!((payloads.sequence_in(&payload), payloads.sequence_in(spaced.as_bytes())), (Some(42), Some(42)));
        for mut other in [Payloads::new("r-2", 64, 3), Payloads::new("r-1", 64, 4), Payloads::new("r-1", 65, 3)] {
            assert_eq!(payloads.sequence_in(other.payload(42)), None);
        }
        assert_eq!(payloads.sequence_in(b"null"), None);
        let mut short = Payloads::new("r-1", PAYLOAD_BYTES_MIN, 3);
        let payload = short.payload(42).to_vec();
        assert_eq!(short.sequence_in(&payload), None, "any other run's is the same");
    }

    #[test]
    fn events_of_another_run_are_not_recognised() {
        let payloads = Payloads::new("r-1", 64, 3);
        for other in ["r-2.000000000001", "r-1", "r-1.", "r-1.x", "", "r-10.000000000001"] {
            assert_eq!(payloads.sequence(other), None, "{other}");
        }
    }
}
