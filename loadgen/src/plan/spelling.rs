//! How people write the parts of a plan: lengths of time, shapes, payload sizes, mixes. The same text as a flag and in a file; a text
//! that is none says what is allowed. Ranges are not checked here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use reports::model::{self, Mix};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// How intended send times are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Open loop, exponential gaps: many independent senders
    Poisson,
    /// Open loop, equal gaps
    Constant,
    /// Closed loop: each connection sends when its last answer is in (hides stalls; the result says so)
    Closed,
}

impl From<Arrivals> for model::Arrivals {
    fn from(arrivals: Arrivals) -> Self {
        match arrivals {
            Arrivals::Poisson => Self::Poisson,
            Arrivals::Constant => Self::Constant,
            Arrivals::Closed => Self::Closed,
        }
    }
}

/// Protocol of the load's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
pub enum Http {
    /// HTTP/1.1: one request at a time on a connection
    #[value(name = "1.1")]
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2: as many as --streams
    #[value(name = "2")]
    #[serde(rename = "2")]
    Http2,
}

impl From<Http> for model::HttpVersion {
    fn from(http: Http) -> Self {
        match http {
            Http::Http1 => Self::Http1,
            Http::Http2 => Self::Http2,
        }
    }
}

/// How to wait for what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedPacing {
    /// Sleep to the end
    Sleep,
    /// Sleep, then spin
    Hybrid,
    /// Spin
    Spin,
}

/// `--realtime`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AskedRealtime {
    /// The thread that sends
    Sender,
    /// The reference server's threads that answer, and its journal's
    Server,
    /// All of these, the sender first
    Both,
}

impl From<AskedRealtime> for model::Realtime {
    fn from(realtime: AskedRealtime) -> Self {
        match realtime {
            AskedRealtime::Sender => Self::Sender,
            AskedRealtime::Server => Self::Server,
            AskedRealtime::Both => Self::Both,
        }
    }
}

impl From<AskedPacing> for model::Pacing {
    fn from(pacing: AskedPacing) -> Self {
        match pacing {
            AskedPacing::Sleep => Self::Sleep,
            AskedPacing::Hybrid => Self::Hybrid,
            AskedPacing::Spin => Self::Spin,
        }
    }
}

/// A length of time as people write it: `500ms`, `10s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: Result<jiff::SignedDuration, _> = text.parse();
        let span = parsed.ok().and_then(|span| Duration::try_from(span).ok());
        span.map(Self).ok_or_else(|| {
            format!("'{text}' is not a length of time: write a number with a unit, such as 500ms, 10s or 2m")
        })
    }
}

/// How the rate changes: `ramp 100..5000`.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedShape {
    /// As written.
    pub text: String,
    /// What it says.
    pub kind: ShapeKind,
}

/// What an [`AskedShape`] says. Rates are events per second.
#[derive(Clone, Debug, PartialEq)]
pub enum ShapeKind {
    /// It does not change.
    Constant,
    /// From one rate to another.
    Ramp(f64, f64),
    /// One rate after the other.
    Steps {
        /// As written.
        rates: Vec<f64>,
        /// In an order that the seed decides.
        shuffled: bool,
        /// And back again.
        mirrored: bool,
    },
    /// To this rate, for this long, this often.
    Burst(f64, Span, Span),
}

impl FromStr for AskedShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let (kind, allowed) = match name {
            "constant" => (rest.is_empty().then_some(ShapeKind::Constant), "'constant' alone"),
            "ramp" => (ramp(rest), "'ramp FROM..TO' with two rates in events per second, such as 'ramp 100..5000'"),
            "steps" => (
                steps(rest),
                "'steps RATE,RATE,…' in events per second, such as 'steps 1000,2000,4000', with 'shuffled' or 'mirrored' after it to have \
                 them in an order that the seed decides, or up and down again",
            ),
            "burst" => (
                burst(rest),
                "'burst RATE for TIME every TIME' with a rate in events per second, such as 'burst 10000 for 100ms every 1s'; between the \
                 bursts the rate is that of --rate",
            ),
            _ => (
                None,
                "'constant', 'ramp 100..5000', 'steps 1000,2000,4000' (also shuffled, mirrored) or 'burst 10000 for 100ms every 1s'",
            ),
        };
        let kind = kind.ok_or_else(|| format!("'{text}' is not a shape; write {allowed}"))?;
        Ok(Self { text: text.to_owned(), kind })
    }
}

fn ramp(rest: &str) -> Option<ShapeKind> {
    let (from, to) = rest.split_once("..")?;
    Some(ShapeKind::Ramp(from.trim().parse().ok()?, to.trim().parse().ok()?))
}

fn steps(rest: &str) -> Option<ShapeKind> {
    let (mut rates, mut shuffled, mut mirrored) = (Vec::new(), false, false);
    for word in rest.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()) {
        match word {
            "shuffled" => shuffled = true,
            "mirrored" => mirrored = true,
            _ if shuffled || mirrored => return None,
            rate => rates.push(rate.parse().ok()?),
        }
    }
    (!rates.is_empty()).then_some(ShapeKind::Steps { rates, shuffled, mirrored })
}

fn burst(rest: &str) -> Option<ShapeKind> {
    match rest.split_whitespace().collect::<Vec<_>>().as_slice() {
        [height, "for", length, "every", every] => {
            Some(ShapeKind::Burst(height.parse().ok()?, length.parse().ok()?, every.parse().ok()?))
        }
        _ => None,
    }
}

/// Payload sizes in bytes: `256`, `100..2000`, `lognormal 256 p99 4000`; in a file a number, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedSizes {
    /// All alike.
    Fixed(u32),
    /// Every size in a range equally often.
    Uniform(u32, u32),
    /// Many small ones and a few large ones, by median and p99.
    Lognormal(u32, u32),
}

impl FromStr for AskedSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let words: Vec<&str> = text.split_whitespace().collect();
        let sizes = match (words.as_slice(), text.split_once("..")) {
            (["lognormal", median, "p99", p99], _) => {
                number(median).zip(number(p99)).map(|(median, p99)| Self::Lognormal(median, p99))
            }
            (_, Some((min, max))) => number(min).zip(number(max)).map(|(min, max)| Self::Uniform(min, max)),
            _ => number(text).map(Self::Fixed),
        };
        sizes.ok_or_else(|| {
            format!(
                "'{text}' is not a payload size in bytes; write one for all, such as 256, a range in which every size comes equally often, \
                 such as '100..2000', or many small and a few large ones, such as 'lognormal 256 p99 4000'"
            )
        })
    }
}

impl<'de> Deserialize<'de> for AskedSizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = AskedSizes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number of bytes, or text such as '100..2000' or 'lognormal 256 p99 4000'")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<AskedSizes, E> {
                self.visit_str(&bytes.to_string())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AskedSizes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// Operations and their weights: `ingest 90, batch 5, inbox 4, ack 1`. Holds the shares, whose sum is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AskedMix(pub Mix);

impl FromStr for AskedMix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |problem: String| {
            format!(
                "'{text}' is not a mix: {problem}; write operations (ingest, batch, inbox, ack) with weights, such as \
                 'ingest 90, batch 5, inbox 4, ack 1'"
            )
        };
        let mut weights: [(&str, Option<f64>); 4] = [("ingest", None), ("batch", None), ("inbox", None), ("ack", None)];
        for part in text.split(',') {
            let (name, weight) = part.trim().split_once(char::is_whitespace).unwrap_or((part.trim(), ""));
            let known = weights.iter_mut().find(|(known, _)| *known == name);
            let (_, slot) = known.ok_or_else(|| refuse(format!("the operation '{name}' is unknown")))?;
            let weight = weight.trim().parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0);
            let weight =
                weight.ok_or_else(|| refuse(format!("the weight of '{name}' is no number that is not negative")))?;
            if slot.replace(weight).is_some() {
                return Err(refuse(format!("'{name}' is there twice")));
            }
        }
        let weights = weights.map(|(_, weight)| weight.unwrap_or(0.0));
        let sum: f64 = weights.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return Err(refuse("no weight is greater than 0, or all of them together are too large".to_owned()));
        }
        let [ingest, batch, inbox, ack] = weights.map(|weight| weight / sum);
        Ok(Self(Mix { ingest, batch, inbox, ack }))
    }
}

/// In a file as on the command line.
macro_rules! read_as_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(Error::custom)
            }
        }
    )*};
}

read_as_text!(Span, AskedShape, AskedMix);

#[cfg(test)]
mod tests {
    use super::*;

    fn span(ms: u64) -> Span {
        Span(Duration::from_millis(ms))
    }

    #[test]
    fn shapes_are_read_as_people_write_them() {
        let steps = |shuffled, mirrored| ShapeKind::Steps { rates: vec![1_000.0, 2_000.5], shuffled, mirrored };
        for (text, expected) in [
            ("constant", ShapeKind::Constant),
            (" constant ", ShapeKind::Constant),
            ("ramp 100..5000", ShapeKind::Ramp(100.0, 5_000.0)),
            ("ramp 5e3 .. 0", ShapeKind::Ramp(5_000.0, 0.0)),
            ("ramp  0.5..0.75", ShapeKind::Ramp(0.5, 0.75)),
            ("steps 1000,2000.5", steps(false, false)),
            ("steps 1000, 2000.5 shuffled", steps(true, false)),
            ("steps 1000 2000.5 mirrored", steps(false, true)),
            ("steps 1000,2000.5 mirrored shuffled", steps(true, true)),
            ("steps 1000,2000.5, shuffled, mirrored", steps(true, true)),
            ("burst 10000 for 100ms every 1s", ShapeKind::Burst(10_000.0, span(100), span(1_000))),
            ("burst 10000  for 2s every 1m", ShapeKind::Burst(10_000.0, span(2_000), span(60_000))),
        ] {
            assert_eq!(text.parse::<AskedShape>().map(|shape| shape.kind), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_shape_is_told_what_is() {
        for (text, parts) in [
            ("", ["'' is not a shape", "'ramp 100..5000'"]),
            ("rmp 1..2", ["'rmp 1..2' is not a shape", "'steps 1000,2000,4000'"]),
            ("constant 5", ["is not a shape", "'constant' alone"]),
            ("ramp", ["'ramp' is not a shape", "'ramp FROM..TO'"]),
            ("ramp 100", ["is not a shape", "such as 'ramp 100..5000'"]),
            ("ramp 100-200", ["is not a shape", "such as 'ramp 100..5000'"]),
            ("ramp ..5", ["is not a shape", "'ramp FROM..TO'"]),
            ("ramp 1..2..3", ["is not a shape", "'ramp FROM..TO'"]),
            ("steps", ["is not a shape", "'steps RATE,RATE,…'"]),
            ("steps fast", ["is not a shape", "'shuffled' or 'mirrored'"]),
            ("steps shuffled 1,2", ["is not a shape", "'shuffled' or 'mirrored'"]),
            ("burst 10000", ["is not a shape", "'burst RATE for TIME every TIME'"]),
            ("burst 10000 for 100 every 1s", ["is not a shape", "'burst 10000 for 100ms every 1s'"]),
            ("burst 10000 every 1s for 100ms", ["is not a shape", "'burst 10000 for 100ms every 1s'"]),
        ] {
            let message = text.parse::<AskedShape>().expect_err(text);
            assert!(parts.iter().all(|part| message.contains(part)), "{text:?}: {message}");
        }
    }

    #[test]
    fn payload_sizes_are_a_number_a_range_or_a_distribution() {
        for (text, expected) in [
            ("256", AskedSizes::Fixed(256)),
            (" 256 ", AskedSizes::Fixed(256)),
            ("100..2000", AskedSizes::Uniform(100, 2_000)),
            ("100 .. 2000", AskedSizes::Uniform(100, 2_000)),
            ("lognormal 256 p99 4000", AskedSizes::Lognormal(256, 4_000)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "big", "-3", "2.5", "100..", "..5", "1..2..3", "100-200", "lognormal 256", "lognormal a p99 b"]
        {
            let message = text.parse::<AskedSizes>().expect_err(text);
            for part in [&format!("'{text}' is not a payload size"), "'100..2000'", "'lognormal 256 p99 4000'"] {
                assert!(message.contains(part), "{text:?}: {message}");
            }
        }
    }

    #[test]
    fn a_mix_is_weights_and_becomes_shares() {
        for (text, ingest, batch, inbox, ack) in [
            ("ingest 1", 1.0, 0.0, 0.0, 0.0),
            ("ingest 90, batch 5, inbox 4, ack 1", 0.9, 0.05, 0.04, 0.01),
            ("ack 1,ingest 3", 0.75, 0.0, 0.0, 0.25),
            ("ingest  0.5 , inbox 0.5, batch 0", 0.5, 0.0, 0.5, 0.0),
        ] {
            assert_eq!(text.parse(), Ok(AskedMix(Mix { ingest, batch, inbox, ack })), "{text}");
        }
    }

    #[test]
    fn what_is_no_mix_is_told_what_is_wrong_and_what_is_allowed() {
        for (text, problem) in [
            ("", "the operation '' is unknown"),
            ("ingest 1,", "the operation '' is unknown"),
            ("insert 1", "the operation 'insert' is unknown"),
            ("ingest", "the weight of 'ingest' is no number"),
            ("ingest x", "the weight of 'ingest' is no number"),
            ("ingest -1", "the weight of 'ingest' is no number"),
            ("ingest NaN", "the weight of 'ingest' is no number"),
            ("ingest inf", "the weight of 'ingest' is no number"),
            ("ingest 1 batch 2", "the weight of 'ingest' is no number"),
            ("ingest 1, ingest 2", "'ingest' is there twice"),
            ("ingest 0, ack 0", "no weight is greater than 0"),
            ("ingest 1e308, ack 1e308", "all of them together are too large"),
        ] {
            let message = text.parse::<AskedMix>().expect_err(text);
            for part in [problem, "ingest, batch, inbox, ack", "'ingest 90, batch 5, inbox 4, ack 1'"] {
                assert!(message.contains(part), "{text:?}: {message}");
            }
        }
    }
}
