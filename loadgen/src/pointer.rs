//! Values inside of an answer, found by JSON pointer (RFC 6901) without building the rest of it: on the sending thread there is one to
//! find in every answer.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    name: String,
    /// The same as an index of an array.
    index: Option<usize>,
}

impl Pointer {
    /// The member of this name.
    pub fn member(name: &str) -> Self {
        Self(vec![Token::new(name)])
    }

    /// The text or number there, as text; `None` when there is none, or only an empty text.
    ///
    /// # Errors
    /// When `json` is not JSON.
    pub fn find<'j>(&self, json: &'j [u8]) -> Result<Option<Cow<'j, str>>, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let found = At(&self.0).deserialize(&mut reader)?;
        reader.end()?;
        Ok(found.filter(|text| !text.is_empty()))
    }
}

impl Token {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), index: name.parse().ok() }
    }
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or_else(|| "is no JSON pointer: it begins with a slash".to_owned())?;
        Ok(Self(rest.split('/').map(|token| Token::new(&token.replace("~1", "/").replace("~0", "~"))).collect()))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", token.name.replace('~', "~0").replace('/', "~1")))
    }
}

/// What is at the rest of a pointer.
struct At<'p>(&'p [Token]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_next) = map.next_key_seed(Is(self.0.first()))? {
            match self.0 {
                [_, rest @ ..] if is_next => found = map.next_value_seed(At(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.first().and_then(|token| token.index);
        let (mut found, mut index) = (None, 0);
        loop {
            let more = match self.0 {
                [_, rest @ ..] if wanted == Some(index) => seq.next_element_seed(At(rest))?.map(|value| found = value),
                _ => seq.next_element::<IgnoredAny>()?.map(drop),
            };
            if more.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then_some(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| Cow::Owned(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| Cow::Owned(number.to_string())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Whether a member's name is this one.
struct Is<'p>(Option<&'p Token>);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(self.0.is_some_and(|token| token.name == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_where_the_pointer_says_and_nowhere_else() {
        let json = r#" {"id":"a","n":7,"m":-7,"f":1.5,"e":"","z":null,"t":true,"x\"y":"q","s":"a\nb",
            "a/b":{"m~n":"deep"},"list":[{"id":"first"},{"id":"second"}],"0":"zero","id2":{"id":"inner"}} "#;
        for (pointer, expected) in [
            ("/id", Some("a")),
            ("/n", Some("7")),
            ("/m", Some("-7")),
            ("/f", Some("1.5")),
            ("/e", None),
            ("/z", None),
            ("/t", None),
            ("/x\"y", Some("q")),
            ("/s", Some("a\nb")),
            ("/a~1b/m~0n", Some("deep")),
            ("/list/1/id", Some("second")),
            ("/list/2/id", None),
            ("/list/id", None),
            ("/0", Some("zero")),
            ("/id/0", None),
            ("/id2", None),
            ("/id2/id", Some("inner")),
            ("/gone", None),
        ] {
            let parsed: Pointer = pointer.parse().expect(pointer);
            assert_eq!(parsed.find(json.as_bytes()).expect("JSON").as_deref(), expected, "{pointer}");
            assert_eq!(parsed.to_string(), pointer);
        }
    }

    #[test]
    fn what_is_no_json_is_an_error_also_behind_the_value() {
        let id = Pointer::member("id");
        for json in ["", "{", r#"{"id":"a""#, r#"{"id":"a"} x"#, "<html>"] {
            assert!(id.find(json.as_bytes()).is_err(), "{json}");
        }
        assert!("id".parse::<Pointer>().is_err());
    }
}
