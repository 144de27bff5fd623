//! What of a request's body is the same for every event, and where what is not goes.

use std::fmt::Write;

/// The body of a request with one event. Pure text around a payload: checked once, and then only copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTemplate {
    /// What comes before the payload.
    pub(super) before: Vec<Piece>,
    /// What comes after it.
    pub(super) after: Vec<Piece>,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it is.
    Text(String),
    /// The event's `dedup_id`.
    DedupId,
    /// Its number.
    Sequence,
}

/// Placeholders of a body.
pub const PLACEHOLDERS: [&str; 3] = ["payload", "dedup_id", "sequence"];

const PAYLOAD: &str = "{payload}";
const DEDUP_ID: &str = "{dedup_id}";
const SEQUENCE: &str = "{sequence}";

impl BodyTemplate {
    /// The contract's: `type`, `dedup_id`, `payload`.
    pub fn contract() -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        Self {
            before: vec![text(r#"{"type":"millrace.load","dedup_id":""#), Piece::DedupId, text(r#"","payload":"#)],
            after: vec![text("}")],
        }
    }

    /// Reads `{"data": {payload}, "key": "{dedup_id}"}`. Other words in braces are text: see [`PLACEHOLDERS`].
    ///
    /// # Errors
    /// What is wrong, when it is not JSON with exactly one payload as a value, and the others within strings.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((before, after)) = text.split_once(PAYLOAD) else {
            return Err("has no {payload}, without which no event can be recognised".to_owned());
        };
        if after.contains(PAYLOAD) {
            return Err("has {payload} more than once".to_owned());
        }
        let template = Self { before: pieces(before), after: pieces(after) };
        // Digits with zeros before them are JSON within a string only, and so are letters; an object is JSON as a value only.
        let sample = template.filled(r#"{"sequence":"0","fill":""}"#, "r.01", "01");
        match serde_json::from_str::<serde_json::Value>(&sample) {
            Ok(_) => Ok(template),
            Err(error) => Err(format!(
                "is not JSON once filled in ({error}); {{payload}} is an object and needs no quotes, {{dedup_id}} and {{sequence}} \
                 need them"
            )),
        }
    }

    /// Whether the `dedup_id` is sent.
    pub fn has_dedup_id(&self) -> bool {
        self.before.iter().chain(&self.after).any(|piece| *piece == Piece::DedupId)
    }

    /// With these in their places.
    pub fn filled(&self, payload: &str, dedup_id: &str, sequence: &str) -> String {
        let mut text = String::new();
        let mut write = |pieces: &[Piece]| {
            for piece in pieces {
                let _ = match piece {
                    Piece::Text(same) => text.write_str(same),
                    Piece::DedupId => text.write_str(dedup_id),
                    Piece::Sequence => text.write_str(sequence),
                };
            }
        };
        write(&self.before);
        write(&[Piece::Text(payload.to_owned())]);
        write(&self.after);
        text
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    let known = [(DEDUP_ID, Piece::DedupId), (SEQUENCE, Piece::Sequence)];
    loop {
        let next = known.iter().filter_map(|(name, piece)| Some((rest.find(name)?, name.len(), piece)));
        let Some((at, length, piece)) = next.min_by_key(|(at, ..)| *at) else { break };
        pieces.push(Piece::Text(rest[..at].to_owned()));
        pieces.push(piece.clone());
        rest = &rest[at + length..];
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payloads;

    #[test]
    fn the_contract_s_body_is_what_its_text_says() {
        let text = r#"{"type":"millrace.load","dedup_id":"{dedup_id}","payload":{payload}}"#;
        assert_eq!(BodyTemplate::parse(text).expect("a template"), BodyTemplate::contract());
    }

    #[test]
    fn every_event_fills_in_its_own_numbers_wherever_they_are() {
        let text = r#"{"n":"{sequence}","data":{"x": {payload} ,"k":"a{dedup_id}b"},"again":"{sequence}"}"#;
        let template = BodyTemplate::parse(text).expect("a template");
        let mut payloads = Payloads::with_template("r-1", 64, 3, &template);
        for sequence in [0, 7, 999_999_999_999] {
            let digits = format!("{sequence:012}");
            let expected = text
                .replace("{sequence}", &digits)
                .replace("{dedup_id}", &payloads.dedup_id(sequence))
                .replace("{payload}", std::str::from_utf8(payloads.payload(sequence)).expect("text"));
            assert_eq!(payloads.body(sequence), expected.as_bytes());
            assert_eq!(payloads.body_bytes(sequence), expected.len());
            let payload = payloads.payload(sequence).to_vec();
            assert_eq!(payloads.sequence_in(&payload), Some(sequence));
        }
    }

    #[test]
    fn what_is_no_body_is_refused_with_the_reason() {
        for (text, expected) in [
            (r#"{"a":1}"#, "has no {payload}"),
            (r#"[{payload},{payload}]"#, "more than once"),
            (r#"{"a":"{payload}"}"#, "needs no quotes"),
            (r#"{"a":{payload}"#, "is not JSON once filled in (EOF"),
            (r#"{"a":{payload},"b":{sequence}}"#, "is not JSON once filled in"),
            (r#"{"a":{payload},"b":{dedup_id}}"#, "is not JSON once filled in"),
        ] {
            let error = BodyTemplate::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
