//! Objectives: `response_time.p99 < 1ms`, read from text and judged on a run.
//!
//! ```text
//! objective = [ variant ":" ] metric ( "<" | "<=" | ">" | ">=" | "==" ) bound
//! bound     = number [ unit ]            1ms, 500MiB, 150, 0.99, 99%
//!           | number "x" variant         1.5 x null: that many times the same metric of another variant, same repetition
//! ```
//! A metric of one operation of a mix has its name before it: `inbox.response_time.p99 < 20ms`.
//!
//! Without a variant it is demanded of every variant it can apply to: nothing that is about storing is asked of mode `null`,
//! and a ratio is not asked of the variant it refers to.
//!
//! The time or ratio that is judged is the median over the repetitions; a count (`events`) has to hold in every repetition,
//! so the worst one is judged. Every measurement is an interval in which the truth lies: a point as a rule, open above when it
//! is censored or rests on too few samples. An objective is met or missed only if the whole interval says so, and still says so
//! when the generator's own delay is taken off the response time: what the target would have missed only through the generator's fault,
//! or met only through it, is undecided.

mod metric;
mod parse;

use std::fmt;

pub use metric::{Metric, names};
pub use parse::{ParseError, parse, parse_for};

use crate::format;
use crate::model::{ObjectiveResult, Run, TargetResult};
use crate::stats;
use metric::{Dimension, Reading};

/// One demand.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The variant it is demanded of; `None`: all that it can apply to.
    pub variant: Option<String>,
    /// What is measured.
    pub metric: Metric,
    /// How it is compared.
    pub comparison: Comparison,
    /// What it is compared with.
    pub bound: Bound,
}

/// How the measured value is compared with the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
}

impl Comparison {
    /// Whether `value` compares so with `bound`.
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Equal => value == bound,
        }
    }

    fn wants_large(self) -> bool {
        matches!(self, Self::Above | Self::AtLeast)
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Equal => "==",
        }
    }
}

/// What a metric is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// A number in a unit.
    Value {
        /// As written.
        number: f64,
        /// As written; empty when there is none.
        unit: &'static str,
        /// The same in the metric's own unit (ns, bytes, events, …).
        in_base_unit: f64,
    },
    /// So many times the same metric of another variant in the same repetition.
    Ratio {
        /// How many times.
        factor: f64,
        /// The other variant.
        variant: String,
    },
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variant) = &self.variant {
            write!(f, "{variant}: ")?;
        }
        write!(f, "{} {} ", self.metric, self.comparison.symbol())?;
        match &self.bound {
            Bound::Value { number, unit, .. } => write!(f, "{number}{unit}"),
            Bound::Ratio { factor, variant } => write!(f, "{factor} x {variant}"),
        }
    }
}

/// Judges every objective of the plan on every variant it applies to.
pub fn evaluate(run: &Run) -> Vec<ObjectiveResult> {
    // They are the whole load's: of one part of it they say nothing.
    if run.shard.is_some() {
        return Vec::new();
    }
    let variants: Vec<&str> = run.plan.variants.iter().map(|v| v.name.as_str()).collect();
    let mut results = Vec::new();
    for text in &run.plan.objectives {
        match parse_for(text, &variants) {
            Ok(objective) => {
                let judged = run.plan.variants.iter().filter(|v| objective.applies_to(&v.name, v.mode.as_deref()));
                results.extend(judged.map(|v| objective.judge(run, text, &v.name)));
            }
            Err(error) => results.push(undecided(text, error.problem)),
        }
    }
    results
}

fn undecided(text: &str, note: String) -> ObjectiveResult {
    ObjectiveResult {
        expression: text.to_owned(),
        variant: String::new(),
        value: None,
        values: Vec::new(),
        bound: None,
        unit: String::new(),
        met: None,
        note: Some(note),
    }
}

impl Objective {
    fn applies_to(&self, variant: &str, mode: Option<&str>) -> bool {
        if let Some(wanted) = &self.variant {
            return wanted == variant;
        }
        let is_reference = matches!(&self.bound, Bound::Ratio { variant: other, .. } if other == variant);
        let stores_nothing = mode == Some("null") && self.metric.is_about_storing();
        !is_reference && !stores_nothing
    }

    fn judge(&self, run: &Run, text: &str, variant: &str) -> ObjectiveResult {
        let repetitions: Vec<&TargetResult> = run.results.iter().filter(|r| r.target == variant).collect();
        let readings: Vec<Reading> = repetitions.iter().map(|r| self.read(run, r)).collect();
        let values: Vec<f64> = readings.iter().filter_map(|r| r.value).collect();
        let (bound, unit) = match &self.bound {
            Bound::Value { in_base_unit, .. } => (*in_base_unit, self.metric.dimension().unit()),
            Bound::Ratio { factor, .. } => (*factor, Dimension::Ratio.unit()),
        };
        let low = self.over_repetitions(readings.iter().map(|r| r.low));
        let high = self.over_repetitions(readings.iter().map(|r| r.high));
        let own_low = self.over_repetitions(readings.iter().map(|r| r.own.0));
        let own_high = self.over_repetitions(readings.iter().map(|r| r.own.1));
        let decide = |low: Option<f64>, high: Option<f64>| self.decide(low?, high?, bound);
        let met = decide(low, high);
        let own_fault = met.is_some() && decide(own_low, own_high).is_none();
        let note = if own_fault { own_note(own_low, own_high, unit) } else { self.note(&readings, met) };
        ObjectiveResult {
            expression: text.to_owned(),
            variant: variant.to_owned(),
            value: self.over_repetitions(values.iter().copied()).filter(|v| v.is_finite()),
            values,
            bound: Some(bound),
            unit: unit.to_owned(),
            met: met.filter(|_| !own_fault),
            note,
        }
    }

    /// One repetition.
    fn read(&self, run: &Run, result: &TargetResult) -> Reading {
        let own = self.metric.read(result);
        let Bound::Ratio { variant, .. } = &self.bound else { return own };
        let other = run.results.iter().find(|r| r.target == *variant && r.repetition == result.repetition);
        match other {
            Some(other) => own.over(&self.metric.read(other), variant, self.metric.dimension().unit()),
            None => Reading::missing(format!("{variant} has no repetition {}", result.repetition)),
        }
    }

    /// The repetition that counts: the worst of counts, the median of everything else.
    fn over_repetitions(&self, values: impl Iterator<Item = f64>) -> Option<f64> {
        let values: Vec<f64> = values.collect();
        if !self.judges_the_worst() {
            return stats::median(&values);
        }
        values.into_iter().reduce(if self.comparison.wants_large() { f64::min } else { f64::max })
    }

    fn judges_the_worst(&self) -> bool {
        self.metric.dimension() == Dimension::Events && matches!(self.bound, Bound::Value { .. })
    }

    fn decide(&self, low: f64, high: f64, bound: f64) -> Option<bool> {
        if self.comparison == Comparison::Equal {
            return if low == high { Some(low == bound) } else { (bound < low || bound > high).then_some(false) };
        }
        let (at_low, at_high) = (self.comparison.holds(low, bound), self.comparison.holds(high, bound));
        (at_low == at_high).then_some(at_low)
    }

    fn note(&self, readings: &[Reading], met: Option<bool>) -> Option<String> {
        if readings.is_empty() {
            return Some("the variant has no result".to_owned());
        }
        let mut notes: Vec<String> = Vec::new();
        let doubtful = readings.iter().filter(|r| r.low != r.high).count();
        if let Some(first) = readings.iter().find(|r| r.low != r.high) {
            let of = if readings.len() > 1 {
                format!(" (in {doubtful} of {} repetitions)", readings.len())
            } else {
                String::new()
            };
            notes.push(format!("{}{of}", first.note.clone().unwrap_or_default()));
            if met == Some(false) {
                notes.push("missed even at the least it can be".to_owned());
            }
        } else if let Some(note) = readings.iter().find_map(|r| r.note.clone()) {
            notes.push(note);
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

/// Why a value that lies on one side of the bound does not decide.
fn own_note(low: Option<f64>, high: Option<f64>, unit: &str) -> Option<String> {
    let (low, high) = (format::in_unit(low?, unit), format::in_unit(high?, unit));
    Some(format!(
        "without the generator's own send delay it may be as little as {low}, with it {high}: the bound lies between"
    ))
}

/// `cache-first: response_time.p99 < 1ms is missed with 4.2 ms (median of 5 repetitions)`: the result as a sentence.
pub fn sentence(result: &ObjectiveResult) -> String {
    let value = result.value.map_or_else(|| format::UNKNOWN.to_owned(), |v| format::in_unit(v, &result.unit));
    let on = if result.variant.is_empty() { String::new() } else { format!("{}: ", result.variant) };
    let demand = result.expression.strip_prefix(&on).unwrap_or(&result.expression);
    let note = result.note.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
    match result.met {
        Some(true) => format!("{on}{demand} is met with {value}{note}"),
        Some(false) => format!("{on}{demand} is missed with {value}{note}"),
        None => format!("{on}{demand} is undecided{note}"),
    }
}

#[cfg(test)]
mod tests;
