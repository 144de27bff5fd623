//! A payload with another content than was sent, and still JSON.

use bytes::Bytes;

/// One letter or digit of the last string that has one, replaced by another; around a payload without any, a pair of brackets.
pub fn corrupted(payload: &[u8]) -> Bytes {
    let mut changed = payload.to_vec();
    match last_letter_in_a_string(payload) {
        Some(at) => changed[at] = if changed[at] == b'x' { b'y' } else { b'x' },
        None => changed = [b"[", payload, b"]"].concat(),
    }
    changed.into()
}

/// Where it is. What an escape is made of does not count: changed, it might be none.
fn last_letter_in_a_string(json: &[u8]) -> Option<usize> {
    let (mut in_string, mut last, mut at) = (false, None, 0);
    while at < json.len() {
        match json[at] {
            b'"' => in_string = !in_string,
            b'\\' if json.get(at + 1) == Some(&b'u') => at += 5,
            b'\\' => at += 1,
            character if in_string && character.is_ascii_alphanumeric() => last = Some(at),
            _ => {}
        }
        at += 1;
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn one_character_is_changed_and_escapes_and_numbers_are_not() {
        for (sent, kept) in [
            (r#"{"a":"bc"}"#, r#"{"a":"bx"}"#),
            (r#"{"a":"x"}"#, r#"{"a":"y"}"#),
            (r#"["ab","\u00e4\n","\\"]"#, r#"["ax","\u00e4\n","\\"]"#),
            (r#"{"a\"":12}"#, r#"{"x\"":12}"#),
            ("12", "[12]"),
            (r#"["",true]"#, r#"[["",true]]"#),
        ] {
            assert_eq!(corrupted(sent.as_bytes()), kept.as_bytes(), "{sent}");
        }
    }

    proptest! {
        #[test]
        fn it_is_still_json_and_never_what_was_sent(keys in prop::collection::vec(any::<String>(), 0..4), text: String, number: i64) {
            let sent = serde_json::json!({"keys": keys, "text": text, "number": number}).to_string();
            let kept = corrupted(sent.as_bytes());
            prop_assert_ne!(&kept[..], sent.as_bytes());
            prop_assert!(serde_json::from_slice::<Value>(&kept).is_ok());
        }
    }
}
