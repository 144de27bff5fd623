//! What is printed and what is kept is shown around, and must let nobody in: keys and passwords are struck out of it.

/// What takes the place of a secret.
const STRUCK_OUT: &str = "***";

/// The words of a command line without keys and passwords.
pub(super) fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut key_follows = false;
    let strike_out = |word: String| {
        if std::mem::replace(&mut key_follows, word == "--api-key") {
            return STRUCK_OUT.to_owned();
        }
        match word.split_once('=') {
            Some((name @ ("--api-key" | "LOADGEN_API_KEY"), _)) => format!("{name}={STRUCK_OUT}"),
            _ => without_passwords(&word),
        }
    };
    words.map(strike_out).collect()
}

/// A text without the passwords of URLs. They need not be good ones: a sentence on a bad one repeats it.
pub(super) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        rest = behind;
        let ends_authority = |c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace();
        let authority = behind.split(ends_authority).next().unwrap_or_default();
        let Some((user, _)) = authority.rsplit_once('@') else { continue };
        if let Some((name, _)) = user.split_once(':') {
            shown.push_str(name);
            shown.push(':');
            shown.push_str(STRUCK_OUT);
            rest = &behind[user.len()..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_passwords_do_not_reach_the_result() {
        for (given, shown) in [
            ("loadgen run --api-key mr_live_x --rate 5", "loadgen run --api-key *** --rate 5"),
            ("loadgen run --api-key=mr_live_x", "loadgen run --api-key=***"),
            ("env LOADGEN_API_KEY=mr_live_x loadgen run", "env LOADGEN_API_KEY=*** loadgen run"),
            (
                "env LOADGEN_DATABASE=postgres://me:secret@h/db loadgen",
                "env LOADGEN_DATABASE=postgres://me:***@h/db loadgen",
            ),
            ("--database postgres://me:secret@h/db", "--database postgres://me:***@h/db"),
            ("--database=postgres://me:secret@h/db", "--database=postgres://me:***@h/db"),
            (
                "--target http://127.0.0.1:1 --database postgres://me@h/db",
                "--target http://127.0.0.1:1 --database postgres://me@h/db",
            ),
        ] {
            let words = given.split(' ').map(str::to_owned);
            assert_eq!(without_secrets(words).join(" "), shown);
        }
    }

    #[test]
    fn a_text_is_what_it_was_but_for_the_passwords_in_it() {
        for (text, shown) in [
            ("--otlp = http://me:secret@h: no", "--otlp = http://me:***@h: no"),
            ("redis://:secret@h:1/0 and x://a:b:c@d", "redis://:***@h:1/0 and x://a:***@d"),
            ("x://me:p@ss@h:port/a:b@c", "x://me:***@h:port/a:b@c"),
            ("http://h:80/a:b@c, http://me@h:1, https://", "http://h:80/a:b@c, http://me@h:1, https://"),
            ("a:b@c of nothing", "a:b@c of nothing"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
