//! TOML with the line of every value, and mistakes that say where, what, what is allowed and what to do. Knows no key of a profile.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::nearest::did_you_mean;

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// 1-based.
    pub line: usize,
    /// The key, as in `[http] url`; empty: the whole file.
    pub key: String,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, key, problem, remedy } = self;
        let separator = if key.is_empty() { "" } else { " " };
        write!(f, "line {line}: {key}{separator}{problem}; {remedy}")
    }
}

/// A value, and where it is.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Of its key.
    pub line: usize,
}

/// A file while it is being read.
#[derive(Debug)]
pub struct Document<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

/// One table of it.
#[derive(Debug)]
pub struct Section<'t> {
    /// `http`; empty for what comes before the first table.
    name: &'static str,
    line: usize,
    values: BTreeMap<String, (usize, DeValue<'t>)>,
    asked: Vec<&'static str>,
}

impl<'t> Document<'t> {
    /// The text, and what is in its top table; nothing of it is left out where it is no TOML, but the mistake is noted.
    pub fn parse(text: &'t str) -> (Self, Section<'t>) {
        let mut document = Self { text, mistakes: Vec::new() };
        let table = DeTable::parse(text).map(toml::Spanned::into_inner).unwrap_or_else(|error| {
            let line = document.line(error.span().unwrap_or_default());
            let problem = format!("is not TOML: {}", error.message().replace('\n', ", "));
            document.add(line, "", problem, "see https://toml.io");
            DeTable::default()
        });
        let top = Section::new("", 1, table, &document);
        (document, top)
    }

    /// Notes a mistake.
    pub fn add(&mut self, line: usize, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let (key, problem, remedy) = (key.to_owned(), problem.into(), remedy.into());
        self.mistakes.push(Mistake { line, key, problem, remedy });
    }

    /// All of them, from the first line to the last.
    pub fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| mistake.line);
        self.mistakes
    }

    fn line(&self, span: Range<usize>) -> usize {
        1 + self.text[..span.start.min(self.text.len())].matches('\n').count()
    }
}

impl<'t> Section<'t> {
    fn new(name: &'static str, line: usize, table: DeTable<'t>, document: &Document<'_>) -> Self {
        let placed = |(key, value): (toml::Spanned<std::borrow::Cow<'t, str>>, toml::Spanned<DeValue<'t>>)| {
            let line = document.line(key.span());
            (key.into_inner().into_owned(), (line, value.into_inner()))
        };
        Self { name, line, values: table.into_iter().map(placed).collect(), asked: Vec::new() }
    }

    /// `[http] url`.
    pub fn key(&self, key: &str) -> String {
        match self.name {
            "" => key.to_owned(),
            name => format!("[{name}] {key}"),
        }
    }

    /// Where it begins.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Whether `key` is there, and where.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        self.values.get(key).map(|(line, _)| *line)
    }

    fn take(&mut self, key: &'static str) -> Option<Placed<DeValue<'t>>> {
        self.asked.push(key);
        let (line, value) = self.values.remove(key)?;
        Some(Placed { value, line })
    }

    /// Takes `key`, which must be what `read` makes something of; `allowed` says what that is.
    fn typed<T>(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        allowed: &str,
        read: impl FnOnce(&DeValue<'t>) -> Option<T>,
    ) -> Option<Placed<T>> {
        let Placed { value, line } = self.take(key)?;
        let read = read(&value);
        if read.is_none() {
            let problem = format!("= {}: is not {allowed}", shown(&value));
            document.add(line, &self.key(key), problem, "write it like that, or leave it out");
        }
        Some(Placed { value: read?, line })
    }

    /// A text that is not empty.
    pub fn text(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<Placed<String>> {
        let text = |value: &DeValue<'t>| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        self.typed(document, key, "a text in quotes", text)
    }

    /// A list of texts, one at least.
    pub fn texts(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<Placed<Vec<String>>> {
        self.typed(document, key, "a list of texts, such as [\"a\", \"b\"]", |value| {
            let texts = value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())
        })
    }

    /// Texts by name.
    pub fn pairs(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<Placed<Vec<(String, String)>>> {
        self.typed(document, key, "texts by name, such as { NAME = \"text\" }", |value| {
            let pairs = value
                .as_table()?
                .iter()
                .map(|(name, value)| Some((name.get_ref().clone().into_owned(), value.get_ref().as_str()?.to_owned())));
            pairs.collect()
        })
    }

    /// Yes or no.
    pub fn boolean(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<Placed<bool>> {
        self.typed(document, key, "true or false", DeValue::as_bool)
    }

    /// One of these words.
    pub fn choice<T: Copy>(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        all: &[(&str, T)],
    ) -> Option<Placed<T>> {
        let words: Vec<String> = all.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let allowed = format!("one of {}", words.join(", "));
        self.typed(document, key, &allowed, |value| {
            let word = value.as_str()?;
            all.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
        })
    }

    /// A length of time within bounds.
    pub fn span(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        (min, max): (Duration, Duration),
    ) -> Option<Placed<Duration>> {
        let allowed = format!("a length of time from {} to {}, such as \"30s\"", spelled(min), spelled(max));
        self.typed(document, key, &allowed, |value| {
            let span: jiff::SignedDuration = value.as_str()?.parse().ok()?;
            Duration::try_from(span).ok().filter(|span| (min..=max).contains(span))
        })
    }

    /// HTTP statuses within a range: a number, or a list of them.
    pub fn statuses(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        range: std::ops::RangeInclusive<u16>,
    ) -> Option<Placed<Vec<u16>>> {
        let allowed = format!("an HTTP status from {} to {}, or a list of such", range.start(), range.end());
        self.typed(document, key, &allowed, |value| {
            let one = |value: &DeValue<'t>| {
                let status: u16 = value.as_integer()?.to_string().parse().ok()?;
                range.contains(&status).then_some(status)
            };
            match value.as_array() {
                Some(all) => {
                    let all: Option<Vec<u16>> = all.iter().map(|item| one(item.get_ref())).collect();
                    all.filter(|all| !all.is_empty())
                }
                None => one(value).map(|status| vec![status]),
            }
        })
    }

    /// A table in this one; a part of nothing, when it is not there.
    pub fn section(&mut self, document: &mut Document<'_>, name: &'static str) -> Option<Section<'t>> {
        let Placed { value, line } = self.take(name)?;
        match value {
            DeValue::Table(table) => Some(Section::new(name, line, table, document)),
            other => {
                let problem = format!("= {}: is not a table", shown(&other));
                document.add(line, name, problem, format!("write [{name}] and its keys on the lines below"));
                None
            }
        }
    }

    /// Everything else in it is a mistake.
    pub fn finish(self, document: &mut Document<'_>) {
        let own = self.name;
        for (key, (line, _)) in &self.values {
            let otherwise = format!("leave it out; known here: {}", self.asked.join(", "));
            let remedy = did_you_mean(key, self.asked.iter().copied(), &otherwise);
            let key = if own.is_empty() { key.clone() } else { format!("[{own}] {key}") };
            document.add(*line, &key, "is no key of a profile", remedy);
        }
    }
}

fn spelled(span: Duration) -> String {
    match span.as_millis() {
        ms if ms % 1_000 != 0 => format!("{ms}ms"),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms => format!("{}s", ms / 1_000),
    }
}

/// A value as it was written, more or less.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => {
            format!("[{}]", items.iter().map(|item| shown(item.get_ref())).collect::<Vec<_>>().join(", "))
        }
        DeValue::Table(_) => "{ … }".to_owned(),
    }
}
