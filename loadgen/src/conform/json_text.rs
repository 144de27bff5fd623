//! Whether two JSON texts say the same, by everything that a reader could tell apart: numbers digit by digit, keys in their order and as
//! often as they stand there. White space and how a character is escaped do not count.

/// The smallest pieces of a JSON text.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A bracket, brace, comma or colon.
    Mark(char),
    /// A string, unescaped; as it stands where it cannot be.
    Text(String),
    /// A number, `true`, `false` or `null`, as written.
    Word(String),
}

/// See the module. Texts that are no JSON are compared piece by piece all the same.
pub fn says_the_same(one: &str, other: &str) -> bool {
    tokens(one) == tokens(other)
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '[' | ']' | '{' | '}' | ',' | ':' => 1,
            _ => rest.find(|c: char| "[]{},:\"".contains(c) || c.is_whitespace()).unwrap_or(rest.len()),
        };
        let (piece, after) = rest.split_at(length);
        tokens.push(match first {
            '"' => Token::Text(serde_json::from_str(piece).unwrap_or_else(|_| piece.to_owned())),
            '[' | ']' | '{' | '}' | ',' | ':' => Token::Mark(first),
            _ => Token::Word(piece.to_owned()),
        });
        rest = after.trim_start();
    }
    tokens
}

/// Bytes of the string with which the text begins, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_white_space_and_escapes_do_not_count() {
        for (one, other, expected) in [
            (r#"{"a":1,"b":[true]}"#, " { \"a\" : 1 ,\n\"b\":[ true ] } ", true),
            (r#""\u00e9\/""#, "\"é/\"", true),
            (r#""a\"b""#, r#""a\u0022b""#, true),
            ("1e2", "100", false),
            ("1.0", "1", false),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, false),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, false),
            ("[1,[2]]", "[1,2]", false),
            ("\"1\"", "1", false),
            ("\"a", "\"a", true),
            ("\"", "", false),
        ] {
            assert_eq!(says_the_same(one, other), expected, "{one} {other}");
        }
    }
}
