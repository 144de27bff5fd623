//! From the bytes of a request to the fields of an event (rules I1, I4, I5, I8). Pure: no clock, no network, no store.
//!
//! A payload is never parsed into values: it is checked to be JSON and kept as the bytes that came, so that big numbers,
//! duplicate keys and their order come back as sent. No input makes these functions panic or recurse.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::problem::Problem;

/// Longest `type` and `dedup_id`, in characters.
pub const NAME_CHARACTERS_MAX: usize = 255;

/// What a body may hold beside the payload: two names of which each character may be twelve bytes (`\ud83d\ude00`), and braces,
/// keys and white space. A body over payload + this is refused before it is read.
pub const ENVELOPE_BYTES_MAX: u64 = 16 * 1024;

/// The bounds of what is parsed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of the payload's text.
    pub payload_bytes_max: u64,
    /// Levels of arrays and objects inside each other.
    pub json_depth_max: u64,
    /// Of one batch.
    pub batch_items_max: usize,
}

/// A well-formed event that nobody has acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// `type`.
    pub event_type: Box<str>,
    /// `dedup_id`.
    pub dedup_id: Option<Box<str>>,
    /// JSON text as sent.
    pub payload: Bytes,
}

/// The three fields as raw JSON. `default` with [`present`] tells a missing field from one that is `null`.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "present")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    dedup_id: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one event out of a whole body.
pub fn event(body: &Bytes, bounds: &Bounds) -> Result<Draft, Problem> {
    draft(text(body)?, body, bounds)
}

/// Reads a batch: a JSON array of events. One result per item, in order; `Err` outside only when there are no items to speak of.
pub fn batch_array(body: &Bytes, bounds: &Bounds) -> Result<Vec<Result<Draft, Problem>>, Problem> {
    let text = text(body)?;
    if !text.trim_ascii_start().starts_with('[') {
        return Err(Problem::Body("send a JSON array of events, or NDJSON as application/x-ndjson".into()));
    }
    let items = Items { max: bounds.batch_items_max };
    let mut reader = serde_json::Deserializer::from_str(text);
    let items = reader.deserialize_seq(items).map_err(|error| not_json(&error))?;
    check_item_count(items.len(), bounds)?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(items.iter().map(|item| draft(item.get(), body, bounds)).collect())
}

/// Reads an array's items, and one more than there may be: an array of four million numbers must not become four million places.
struct Items {
    max: usize,
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() <= self.max
            && let Some(item) = array.next_element()?
        {
            items.push(item);
        }
        // Of what is too much: only whether it is JSON.
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}

/// Reads a batch: one event on each line; empty lines don't count.
pub fn batch_lines(body: &Bytes, bounds: &Bounds) -> Result<Vec<Result<Draft, Problem>>, Problem> {
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    check_item_count(lines().take(bounds.batch_items_max + 1).count(), bounds)?;
    // A line that is not UTF-8 is one bad item, not a bad batch.
    Ok(lines().map(|line| draft(text(line)?, body, bounds)).collect())
}

fn check_item_count(items: usize, bounds: &Bounds) -> Result<(), Problem> {
    match items {
        0 => Err(Problem::Body("the batch is empty; send at least one event".into())),
        items if items > bounds.batch_items_max => {
            Err(Problem::TooLarge { field: "batch", max: bounds.batch_items_max as u64, unit: "events" })
        }
        _ => Ok(()),
    }
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::Body(format!("the body is not UTF-8 from byte {} on; send JSON in UTF-8", error.valid_up_to()))
    })
}

fn draft(item: &str, body: &Bytes, bounds: &Bounds) -> Result<Draft, Problem> {
    // serde would take an array as the fields in order.
    if !item.trim_ascii_start().starts_with('{') {
        return Err(Problem::Body("an event is a JSON object with 'type' and 'payload'".into()));
    }
    let raw: Raw = serde_json::from_str(item).map_err(|error| not_json(&error))?;
    let event_type = match raw.event_type {
        Some(value) => name("type", value)?,
        None => return Err(Problem::field("type", "'type' is missing; send a string of 1 to 255 characters")),
    };
    let dedup_id = raw.dedup_id.map(|value| name("dedup_id", value)).transpose()?;
    let payload = match raw.payload {
        Some(value) => value.get(),
        None => return Err(Problem::field("payload", "'payload' is missing; send any JSON value")),
    };
    if payload.len() as u64 > bounds.payload_bytes_max {
        return Err(Problem::TooLarge { field: "payload", max: bounds.payload_bytes_max, unit: "bytes" });
    }
    if !depth_is_within(payload.as_bytes(), bounds.json_depth_max) {
        let detail = format!("'payload' is nested deeper than {} levels; send it flatter", bounds.json_depth_max);
        return Err(Problem::field("payload", detail));
    }
    Ok(Draft { event_type, dedup_id, payload: keep(payload, body) })
}

fn name(field: &'static str, value: &RawValue) -> Result<Box<str>, Problem> {
    if !value.get().starts_with('"') {
        return Err(Problem::field(field, format!("'{field}' is not a string; send a string of 1 to 255 characters")));
    }
    // Fails only for a lone surrogate, which JSON's grammar allows and Unicode does not.
    let text: Cow<'_, str> = serde_json::from_str::<Borrowed>(value.get())
        .map_err(|_| Problem::field(field, format!("'{field}' holds half of a surrogate pair; send Unicode text")))?
        .0;
    if text.is_empty() {
        return Err(Problem::field(field, format!("'{field}' is empty; send a string of 1 to 255 characters")));
    }
    // Bytes first: counting characters is for the few that are long or not ASCII.
    if text.len() > NAME_CHARACTERS_MAX && text.chars().count() > NAME_CHARACTERS_MAX {
        return Err(Problem::field(field, format!("'{field}' is longer than 255 characters; send a shorter one")));
    }
    if text.contains('\0') {
        return Err(Problem::field(field, format!("'{field}' holds a NUL character, which a database cannot keep")));
    }
    Ok(Box::from(text))
}

/// A string that is borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// The payload as its own bytes, or as a slice of the body where that wastes little.
///
/// A small body is a slice of the connection's read buffer: keeping a slice of it would keep 8 KiB alive for each pending event
/// and make hyper allocate a new buffer for each read. A copy of what is kept is cheaper and makes the bound of the pending
/// buffer a true one. A large body is its own allocation, of which the payload is nearly all.
fn keep(payload: &str, body: &Bytes) -> Bytes {
    if payload.len() >= 64 * 1024 && payload.len() * 2 >= body.len() {
        body.slice_ref(payload.as_bytes())
    } else {
        Bytes::copy_from_slice(payload.as_bytes())
    }
}

/// Whether valid JSON text has at most `depth_max` arrays and objects inside each other.
fn depth_is_within(json: &[u8], depth_max: u64) -> bool {
    // Each level takes two bytes, so most payloads of one level need no look; most others are short.
    if (json.len() as u64) < 2 * depth_max {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0u64, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return false;
                }
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    true
}

fn not_json(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    for field in ["type", "payload", "dedup_id"] {
        if message.starts_with(&format!("duplicate field `{field}`")) {
            return Problem::field(field, format!("'{field}' is there twice; send it once"));
        }
    }
    Problem::Body(format!("the body is not JSON: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { payload_bytes_max: 256 * 1024, json_depth_max: 128, batch_items_max: 1000 };

    fn check(body: impl AsRef<[u8]>) -> Result<Draft, Problem> {
        event(&Bytes::copy_from_slice(body.as_ref()), &BOUNDS)
    }

    fn nested(levels: usize) -> String {
        format!(r#"{{"type":"t","payload":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn a_bad_field_is_named() {
        let long = format!(r#"{{"type":"{}","payload":1}}"#, "é".repeat(256));
        let twice = r#"{"type":"a","payload":1,"payload":2}"#;
        for (body, field) in [
            (r#"{"payload":1}"#, "type"),
            (r#"{"type":"","payload":1}"#, "type"),
            (r#"{"type":7,"payload":1}"#, "type"),
            (r#"{"type":null,"payload":1}"#, "type"),
            (r#"{"type":["a"],"payload":1}"#, "type"),
            (r#"{"type":"a\u0000","payload":1}"#, "type"),
            (r#"{"type":"\ud800","payload":1}"#, "type"),
            (&long, "type"),
            (r#"{"type":"a"}"#, "payload"),
            (twice, "payload"),
            (&nested(129), "payload"),
            (r#"{"type":"a","payload":1,"dedup_id":""}"#, "dedup_id"),
            (r#"{"type":"a","payload":1,"dedup_id":7}"#, "dedup_id"),
            (r#"{"type":"a","payload":1,"dedup_id":null}"#, "dedup_id"),
            (r#"{"type":"a","payload":1,"dedup_id":"\u0000"}"#, "dedup_id"),
        ] {
            match check(body) {
                Err(Problem::Field { field: named, detail }) => {
                    assert_eq!(named, field, "{body}");
                    assert!(detail.contains(field), "{detail}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_a_json_object_is_refused() {
        for body in [
            "",
            " ",
            "{",
            "[]",
            r#"["t",1,"d"]"#,
            "null",
            "7",
            "{}x",
            r#"{"type":"t","payload":01}"#,
            "{\"type\":\"t\",\"payload\":\"\n\"}",
        ] {
            assert!(matches!(check(body), Err(Problem::Body(_))), "{body:?}");
        }
        assert!(matches!(check(b"{\"type\":\"t\",\"payload\":\"\xff\"}"), Err(Problem::Body(_))));
    }

    #[test]
    fn a_payload_is_kept_byte_for_byte() {
        for payload in [
            "null",
            "0.10",
            "123456789012345678901234567890.5e+99999",
            r#"{"a":1,"a":2,"b":{"z":1,"y":2}}"#,
            r#""\ud83d\ude00 😀 \u0000 \ud800""#,
            "[ 1 ,\n\t2 ]",
        ] {
            let body = format!(r#" {{"x":[],"payload":{payload} ,"type":"t"}} "#);
            assert_eq!(
                check(&body).map(|draft| draft.payload),
                Ok(Bytes::copy_from_slice(payload.as_bytes())),
                "{body}"
            );
        }
        assert!(check(nested(128)).is_ok());
        let brackets_in_a_string = format!(r#"{{"type":"t","payload":["{}\"["]}}"#, "[".repeat(1000));
        assert!(check(brackets_in_a_string).is_ok());
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let body =
            |count: usize| format!(r#"{{"type":"{0}","dedup_id":"{0}","payload":1}}"#, "\\ud83d\\ude00".repeat(count));
        assert_eq!(check(body(255)).map(|draft| draft.event_type.chars().count()), Ok(255));
        assert!(check(body(256)).is_err());
        assert!((body(255).len() as u64) < ENVELOPE_BYTES_MAX);
    }

    #[test]
    fn a_payload_over_its_bound_is_too_large_and_one_at_the_bound_is_not() {
        let body = |bytes: usize| format!(r#"{{"type":"t","payload":"{}"}}"#, "x".repeat(bytes - 2));
        assert!(check(body(256 * 1024)).is_ok());
        assert!(matches!(check(body(256 * 1024 + 1)), Err(Problem::TooLarge { field: "payload", .. })));
    }

    #[test]
    fn deep_nesting_anywhere_neither_overflows_the_stack_nor_fails() {
        let deep = "[".repeat(200_000);
        let unknown_field = format!(r#"{{"type":"t","payload":1,"x":{deep}{}}}"#, "]".repeat(200_000));
        assert!(check(unknown_field).is_ok());
        assert!(check(format!(r#"{{"type":"t","payload":{deep}"#)).is_err());
        assert!(batch_array(&Bytes::from(deep), &BOUNDS).is_err());
    }

    #[test]
    fn one_bad_item_does_not_fail_the_others() {
        let array = Bytes::from_static(br#"[{"type":"a","payload":1},7,{"type":"b","payload":2}]"#);
        let lines = Bytes::from_static(b"{\"type\":\"a\",\"payload\":1}\n\xff\r\n\n{\"type\":\"b\",\"payload\":2}");
        for items in [batch_array(&array, &BOUNDS).unwrap(), batch_lines(&lines, &BOUNDS).unwrap()] {
            let ok: Vec<bool> = items.iter().map(Result::is_ok).collect();
            assert_eq!(ok, [true, false, true]);
        }
        let wide = Bytes::from(format!("[{}0]", "0,".repeat(1_000_000)));
        assert!(matches!(batch_array(&wide, &BOUNDS), Err(Problem::TooLarge { field: "batch", max: 1000, .. })));
        for trailing in ["[7] x", "[7],", "[7", "[7,]", "[7][8]"] {
            assert!(matches!(batch_array(&Bytes::from(trailing), &BOUNDS), Err(Problem::Body(_))), "{trailing}");
        }
        assert!(batch_array(&Bytes::from_static(b"[]"), &BOUNDS).is_err());
        assert!(batch_lines(&Bytes::from_static(b"\n \n"), &BOUNDS).is_err());
        assert!(batch_lines(&Bytes::from("{}\n".repeat(1001)), &BOUNDS).is_err());
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            "-?[1-9][0-9]{0,40}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?",
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(|items| format!("[{}]", items.join(", "))),
                // Few names: so keys repeat.
                prop::collection::vec(("[ab]", inner), 0..8).prop_map(|items| {
                    let members: Vec<String> = items.iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let body = Bytes::from(bytes);
            let _ = (event(&body, &BOUNDS), batch_array(&body, &BOUNDS), batch_lines(&body, &BOUNDS));
        }

        #[test]
        fn a_damaged_event_never_panics(payload in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = format!(r#"{{"type":"t","dedup_id":"d","payload":{payload}}}"#).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = check(&bytes);
            let _ = check(&bytes[..at]);
        }

        #[test]
        fn an_accepted_payload_has_the_bytes_that_were_sent(payload in json(), event_type in "\\PC{1,255}") {
            let body = format!(r#"{{"payload": {payload} ,"type":{}}}"#, serde_json::to_string(&event_type).unwrap());
            let draft = check(body).unwrap();
            prop_assert_eq!(draft.payload.as_ref(), payload.as_bytes());
            prop_assert_eq!(draft.event_type.as_ref(), event_type.as_str());
        }
    }
}
