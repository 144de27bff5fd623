//! The events that are sent: unique by sequence number, and derivable from it, so that what comes back can be compared byte for byte
//! without having been kept.

mod sizes;
mod template;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use self::template::Piece;

pub use self::sizes::Sizes;
pub use self::template::{BodyTemplate, PLACEHOLDERS};

/// Smallest payload, bytes: the sequence number and an empty fill.
pub const PAYLOAD_BYTES_MIN: u32 = PAYLOAD_FRAME_BYTES as u32;
/// Largest payload the contract allows, bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 256 * 1024;
/// Bytes of an event beside its payload, and the comma or bracket around it in a batch, for a run id of up to 60 characters.
pub const EVENT_FRAME_BYTES_MAX: u32 = 128;

const SEQUENCE_DIGITS: usize = 12;
const PAYLOAD_FRAME_BYTES: usize = r#"{"sequence":"","fill":""}"#.len() + SEQUENCE_DIGITS;
/// A fill this long is this run's alone: that another run's is the same by chance is out of the question (36^16).
const FILL_BYTES_TELLING: usize = 16;
/// Smallest payload by which an event can be recognised, bytes.
pub const PAYLOAD_BYTES_TELLING: u32 = (PAYLOAD_FRAME_BYTES + FILL_BYTES_TELLING) as u32;
/// What closes the payload.
const PAYLOAD_END: &[u8] = br#""}"#;

/// Makes and recognises the events of one run. Cloned, not shared, between threads.
#[derive(Clone, Debug)]
pub struct Payloads {
    run_id: String,
    sizes: Sizes,
    seed: u64,
    /// An event up to the end of its fill, which is as long as the largest payload needs; a smaller one takes less of it.
    template: Vec<u8>,
    payload_at: usize,
    /// Where the number of the event is in it.
    digits_at: Vec<usize>,
    /// What comes after the payload, and where the number is in that.
    end: Vec<u8>,
    end_digits_at: Vec<usize>,
    /// The payload that was asked for last.
    payload: Vec<u8>,
}

/// The parts of a payload.
#[derive(Deserialize)]
struct Content<'a> {
    sequence: &'a str,
    fill: &'a str,
}

impl Payloads {
    /// Events of run `run_id` (letters, digits, hyphens and dots) with payloads of these sizes (a number: all alike), each
    /// [`PAYLOAD_BYTES_MIN`] to [`PAYLOAD_BYTES_MAX`], in the contract's body.
    pub fn new(run_id: &str, sizes: impl Into<Sizes>, seed: u64) -> Self {
        Self::with_template(run_id, sizes, seed, &BodyTemplate::contract())
    }

    /// The same in another body.
    pub fn with_template(run_id: &str, sizes: impl Into<Sizes>, seed: u64, body: &BodyTemplate) -> Self {
        let sizes = sizes.into();
        let fill = fill(sizes.bytes_max() as usize - PAYLOAD_FRAME_BYTES, seed, run_id);
        let (mut template, mut digits_at) = filled_in(&body.before, run_id);
        let payload_at = template.len();
        let frame =
            [Piece::Text(r#"{"sequence":""#.to_owned()), Piece::Sequence, Piece::Text(format!(r#"","fill":"{fill}"#))];
        let (payload, payload_digits_at) = filled_in(&frame, run_id);
        template.extend_from_slice(&payload);
        digits_at.extend(payload_digits_at.iter().map(|at| payload_at + at));
        let (end, end_digits_at) = filled_in(&body.after, run_id);
        let run_id = run_id.to_owned();
        Self { run_id, sizes, seed, template, payload_at, digits_at, end, end_digits_at, payload: Vec::new() }
    }

    /// The request body of event `sequence`.
    pub fn body(&mut self, sequence: u64) -> Bytes {
        let mut body = Vec::with_capacity(self.body_bytes(sequence));
        self.write_body(sequence, &mut body);
        body.into()
    }

    /// Length of the request body of event `sequence`.
    pub fn body_bytes(&self, sequence: u64) -> usize {
        self.payload_at + self.payload_bytes(sequence) + self.end.len()
    }

    /// Appends the request body of event `sequence` to `to`.
    pub fn write_body(&mut self, sequence: u64, to: &mut Vec<u8>) {
        self.write_digits(sequence);
        let fill_end = self.payload_at + self.payload_bytes(sequence) - PAYLOAD_END.len();
        to.reserve(fill_end + PAYLOAD_END.len() + self.end.len());
        to.extend_from_slice(&self.template[..fill_end]);
        to.extend_from_slice(PAYLOAD_END);
        to.extend_from_slice(&self.end);
    }

    /// Length of the body of a batch of `events` events from number `first` on.
    pub fn batch_bytes(&self, first: u64, events: u32) -> usize {
        let bodies: usize = (first..first + u64::from(events)).map(|sequence| self.body_bytes(sequence)).sum();
        // A comma between two, a bracket at either end.
        bodies + events.saturating_sub(1) as usize + 2
    }

    /// Appends the body of a batch of `events` events from number `first` on to `to`: a JSON array.
    pub fn write_batch(&mut self, first: u64, events: u32, to: &mut Vec<u8>) {
        to.push(b'[');
        for sequence in first..first + u64::from(events) {
            if sequence > first {
                to.push(b',');
            }
            self.write_body(sequence, to);
        }
        to.push(b']');
    }

    /// The payload of event `sequence`, as it was sent.
    pub fn payload(&mut self, sequence: u64) -> &[u8] {
        self.write_digits(sequence);
        let fill_end = self.payload_at + self.payload_bytes(sequence) - PAYLOAD_END.len();
        self.payload.clear();
        self.payload.extend_from_slice(&self.template[self.payload_at..fill_end]);
        self.payload.extend_from_slice(PAYLOAD_END);
        &self.payload
    }

    /// The sequence number behind a `dedup_id`; `None` for events of somebody else.
    pub fn sequence(&self, dedup_id: &str) -> Option<u64> {
        dedup_id.strip_prefix(self.run_id.as_str())?.strip_prefix('.')?.parse().ok()
    }

    /// The sequence number in a payload, however its JSON is written, if it is one of this run. The payloads of a run are told from
    /// those of others by their fill; one that is too short for that tells nothing, and is not recognised.
    pub fn sequence_in(&self, payload: &[u8]) -> Option<u64> {
        let Content { sequence, fill } = serde_json::from_slice(payload).ok()?;
        self.known(sequence, fill)
    }

    fn known(&self, sequence: &str, fill: &str) -> Option<u64> {
        let sequence = sequence.parse().ok()?;
        let fill_at = self.payload_at + PAYLOAD_FRAME_BYTES - PAYLOAD_END.len();
        let of_this_run = fill.len() >= FILL_BYTES_TELLING
            && fill.len() + PAYLOAD_FRAME_BYTES == self.payload_bytes(sequence)
            && self.template[fill_at..].starts_with(fill.as_bytes());
        of_this_run.then_some(sequence)
    }

    /// The sequence number of a payload that is somewhere in `text`: the whole of it, or a part of the JSON that it is, also within a
    /// string of that, as some stores keep it. `None` as for [`Payloads::sequence_in`].
    pub fn sequence_within(&self, text: &str) -> Option<u64> {
        self.sequence_in(text.as_bytes()).or_else(|| self.sequence_within_value(&serde_json::from_str(text).ok()?))
    }

    fn sequence_within_value(&self, value: &Value) -> Option<u64> {
        match value {
            Value::Object(members) => {
                let member = |name| members.get(name).and_then(Value::as_str);
                let own =
                    member("sequence").zip(member("fill")).and_then(|(sequence, fill)| self.known(sequence, fill));
                own.or_else(|| members.values().find_map(|value| self.sequence_within_value(value)))
            }
            Value::Array(items) => items.iter().find_map(|value| self.sequence_within_value(value)),
            Value::String(text) if text.starts_with(['{', '[', '"']) => self.sequence_within(text),
            _ => None,
        }
    }

    /// The `dedup_id` of event `sequence`.
    pub fn dedup_id(&self, sequence: u64) -> String {
        format!("{}.{}", self.run_id, Self::digits(sequence))
    }

    /// The number of event `sequence` as its payload has it: no other event's has it there.
    pub fn digits(sequence: u64) -> String {
        format!("{sequence:0width$}", width = SEQUENCE_DIGITS)
    }

    /// Length of the longest payload that can come.
    pub fn payload_bytes_max(&self) -> usize {
        self.sizes.bytes_max() as usize
    }

    fn payload_bytes(&self, sequence: u64) -> usize {
        self.sizes.bytes(sequence, self.seed) as usize
    }

    fn write_digits(&mut self, sequence: u64) {
        let (mut digits, mut left) = ([0; SEQUENCE_DIGITS], sequence);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        for &at in &self.digits_at {
            self.template[at..at + SEQUENCE_DIGITS].copy_from_slice(&digits);
        }
        for &at in &self.end_digits_at {
            self.end[at..at + SEQUENCE_DIGITS].copy_from_slice(&digits);
        }
    }
}

/// The pieces as bytes of event 0, and where its number is in them.
fn filled_in(pieces: &[Piece], run_id: &str) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut digits_at) = (Vec::new(), Vec::new());
    for piece in pieces {
        match piece {
            Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Piece::DedupId => bytes.extend_from_slice(format!("{run_id}.").as_bytes()),
            Piece::Sequence => {}
        }
        if !matches!(piece, Piece::Text(_)) {
            digits_at.push(bytes.len());
            bytes.extend_from_slice(&[b'0'; SEQUENCE_DIGITS]);
        }
    }
    (bytes, digits_at)
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
    fn events_of_different_sizes_are_whole_and_can_be_made_again_in_any_order() {
        let mut payloads = Payloads::new("r-1", Sizes::Uniform(PAYLOAD_BYTES_MIN, 600), 3);
        let bodies: Vec<_> = (0..200).map(|sequence| payloads.body(sequence)).collect();
        for (sequence, body) in bodies.iter().enumerate().rev() {
            let sent: Sent = serde_json::from_slice(body).expect("an event is JSON");
            assert_eq!(sent.payload.get().as_bytes(), payloads.payload(sequence as u64));
            assert_eq!(body.len(), payloads.body_bytes(sequence as u64));
            assert_eq!(payloads.sequence(sent.dedup_id), Some(sequence as u64));
        }
        let lengths: std::collections::BTreeSet<_> = bodies.iter().map(Bytes::len).collect();
        assert!(lengths.len() > 100, "{lengths:?}");
    }

    #[test]
    fn a_body_is_appended_to_what_is_there_and_leaves_it_alone() {
        let mut payloads = Payloads::new("r-1", 64, 3);
        let mut buffer = b"head".to_vec();
        payloads.write_body(7, &mut buffer);
        assert_eq!(buffer, [b"head", payloads.body(7).as_ref()].concat());
    }

    #[test]
    fn a_batch_is_an_array_of_the_same_bodies() {
        for (sizes, events) in [(Sizes::Fixed(64), 1), (Sizes::Fixed(64), 3), (Sizes::Uniform(40, 400), 50)] {
            let mut payloads = Payloads::new("r-1", sizes, 3);
            let mut batch = Vec::new();
            payloads.write_batch(10, events, &mut batch);
            assert_eq!(batch.len(), payloads.batch_bytes(10, events));
            let sent: Vec<&RawValue> = serde_json::from_slice(&batch).expect("a JSON array");
            let bodies: Vec<_> = (10..10 + u64::from(events)).map(|sequence| payloads.body(sequence)).collect();
            assert!(sent.iter().map(|event| event.get().as_bytes()).eq(bodies.iter().map(Bytes::as_ref)));
        }
    }

    #[test]
    fn an_event_is_no_larger_than_its_payload_and_the_frame() {
        let payloads = Payloads::new(&"r".repeat(60), 64, 3);
        assert!(payloads.body_bytes(1) < 64 + EVENT_FRAME_BYTES_MAX as usize);
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
    fn a_payload_is_found_inside_of_what_a_store_made_of_it() {
        let mut payloads = Payloads::new("r-1", 64, 3);
        let payload = String::from_utf8(payloads.payload(42).to_vec()).expect("text");
        let quoted = serde_json::to_string(&payload).expect("a string");
        let twice = serde_json::to_string(&format!(r#"{{"data":{quoted}}}"#)).expect("a string");
        let (_, fill) = payload.split_once(r#","fill":"#).expect("two members");
        let reordered = format!(r#"{{"fill": {}, "sequence": "000000000042"}}"#, fill.trim_end_matches('}'));
        for stored in [
            payload.clone(),
            quoted.clone(),
            twice,
            format!(r#"{{"event_type":"x","data":{payload}}}"#),
            format!(r#"[1,{{"a":{{"b":{quoted}}}}}]"#),
            reordered,
        ] {
            assert_eq!(payloads.sequence_within(&stored), Some(42), "{stored}");
        }
        for other in ["", "null", "42", "{}", r#""x""#, r#"{"sequence":"42","fill":"x"}"#] {
            assert_eq!(payloads.sequence_within(other), None, "{other}");
        }
        let altered = payload.replace("000042", "000043");
        assert_eq!(payloads.sequence_within(&altered), Some(43), "it says which one it is");
        assert_eq!(payloads.sequence_within(&payload.replace(r#""}"#, r#"x"}"#)), None);
    }

    #[test]
    fn events_of_another_run_are_not_recognised() {
        let payloads = Payloads::new("r-1", 64, 3);
        for other in ["r-2.000000000001", "r-1", "r-1.", "r-1.x", "", "r-10.000000000001"] {
            assert_eq!(payloads.sequence(other), None, "{other}");
        }
    }
}
