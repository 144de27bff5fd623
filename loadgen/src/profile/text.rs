//! Text with placeholders, such as `127.0.0.1:{port}`.

use std::collections::BTreeMap;
use std::ops::Range;

/// See the module. What is in braces is a placeholder where it is a word of lower-case letters and underscores, or `env.` and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

/// What placeholders stand for.
#[derive(Clone, Debug, Default)]
pub struct Values(BTreeMap<&'static str, String>);

/// A placeholder stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingValue {
    /// A variable that is not set, or not text.
    #[error("{{env.{0}}}: the environment of loadgen has no variable {0}; set it, as in {0}=… loadgen …")]
    Variable(String),
    /// Something that this target does not have.
    #[error("{{{0}}} stands for nothing here; see \"Placeholders\" in docs/target-profiles.md")]
    Other(String),
}

const ENVIRONMENT: &str = "env.";

impl Text {
    /// As written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is in its braces.
    pub fn placeholders(&self) -> Vec<&str> {
        places(&self.0).into_iter().map(|place| &self.0[place.start + 1..place.end - 1]).collect()
    }

    /// With everything filled in.
    ///
    /// # Errors
    /// When a placeholder stands for nothing.
    pub fn filled(&self, values: &Values) -> Result<String, MissingValue> {
        let (mut filled, mut from) = (String::with_capacity(self.0.len()), 0);
        for place in places(&self.0) {
            filled += &self.0[from..place.start];
            filled += &values.get(&self.0[place.start + 1..place.end - 1])?;
            from = place.end;
        }
        Ok(filled + &self.0[from..])
    }
}

impl Values {
    /// `name` stands for `value` from now on.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }

    fn get(&self, name: &str) -> Result<String, MissingValue> {
        match name.strip_prefix(ENVIRONMENT) {
            Some(variable) => std::env::var(variable).map_err(|_| MissingValue::Variable(variable.to_owned())),
            None => self.0.get(name).cloned().ok_or_else(|| MissingValue::Other(name.to_owned())),
        }
    }
}

/// Where placeholders are, braces included. One after a `$` is the shell's.
fn places(text: &str) -> Vec<Range<usize>> {
    let (mut places, mut from) = (Vec::new(), 0);
    while let Some(begin) = text[from..].find('{').map(|at| from + at) {
        let word = |rest: &str| {
            let is_part: fn(char) -> bool = match rest.starts_with(ENVIRONMENT) {
                true => |c| c.is_ascii_alphanumeric() || c == '_' || c == '.',
                false => |c| c.is_ascii_lowercase() || c == '_',
            };
            let length = rest.find(|c| !is_part(c))?;
            (length > 0 && rest[length..].starts_with('}')).then_some(length)
        };
        match word(&text[begin + 1..]) {
            Some(length) if !text[..begin].ends_with('$') => {
                places.push(begin..begin + length + 2);
                from = begin + length + 2;
            }
            _ => from = begin + 1,
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_braces_are_placeholders_and_what_shells_and_json_have_in_theirs_is_not() {
        for (text, expected) in [
            ("--port={port} {data}/x", vec!["port", "data"]),
            ("{env.API_KEY}", vec!["env.API_KEY"]),
            (r#"{"a":{payload},"b":{}}"#, vec!["payload"]),
            ("${port} ${HOME} {HOME} {a b} {", vec![]),
            ("{{port}}", vec!["port"]),
            ("ä{port}ö", vec!["port"]),
        ] {
            assert_eq!(Text::new(text).placeholders(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        let mut values = Values::default();
        values.set("data", "/tmp/{port}");
        values.set("port", "1");
        assert_eq!(Text::new("{data}:{port}$").filled(&values), Ok("/tmp/{port}:1$".to_owned()));
        assert_eq!(Text::new("{gone}").filled(&values), Err(MissingValue::Other("gone".to_owned())));
        let unset = Text::new("{env.MILLRACE_NO_SUCH_VARIABLE}").filled(&values);
        assert_eq!(unset, Err(MissingValue::Variable("MILLRACE_NO_SUCH_VARIABLE".to_owned())));
    }
}
