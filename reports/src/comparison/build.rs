//! From runs to a comparison.

use std::collections::BTreeMap;

use super::ratio::{self, Ratio};
use super::{Comparison, ERROR_RATE, Line, QUANTITIES, Quantity, SCHEMA, Scenario, Source, Subject, Value};
use super::{Unlike, limits};
use crate::format;
use crate::histogram::TimeHistogram;
use crate::likeness;
use crate::model::{Conformance, Run, TargetResult, Times};
use crate::stats;
use crate::summary;

/// Rates of one scenario that are no more than this share of a capacity apart are the same fraction of it.
const FRACTION_WITHIN: f64 = 0.03;

/// A result to compare.
#[derive(Debug, Clone)]
pub struct Input {
    /// What tells it from the others: `old`, `a/run.json`.
    pub name: String,
    /// Its content.
    pub run: Run,
}

/// Why results cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// Other plan, other machine.
    #[error(transparent)]
    Unlike(#[from] Unlike),
    /// Nothing to compare with.
    #[error(
        "a comparison takes two subjects, and here are {0}; give a run of several variants or targets, or several files"
    )]
    TooFew(usize),
    /// A file without anything that is compared.
    #[error("{0} has neither results nor capacities nor conformance (a crash test is no comparison); leave it out")]
    Empty(String),
    /// `--reference` names none.
    #[error("--reference '{name}' is none of the subjects; allowed: {}", known.join(", "))]
    NoSuchReference {
        /// As given.
        name: String,
        /// The subjects.
        known: Vec<String>,
    },
    /// Two capacities of one name.
    #[error("the capacity of {name} is in {first} and in {second}; leave one out")]
    TwoCapacities {
        /// The subject.
        name: String,
        /// One source.
        first: String,
        /// The other.
        second: String,
    },
    /// Alone at its rate.
    #[error("{0}")]
    OtherRate(String),
}

/// One subject under one load.
struct Measured<'a> {
    subject: String,
    /// Its variant's own name.
    plain: &'a str,
    input: usize,
    rate_per_s: f64,
    results: Vec<&'a TargetResult>,
}

/// Puts results side by side; ratios are to `reference`, or to the first subject.
///
/// # Errors
/// See [`CompareError`].
pub fn compare(inputs: &[Input], reference: Option<&str>) -> Result<Comparison, CompareError> {
    check_likeness(inputs)?;
    let measured = measured(inputs);
    let subjects = subjects(inputs, &measured)?;
    if subjects.len() < 2 {
        return Err(CompareError::TooFew(subjects.len()));
    }
    let reference = match reference {
        None => subjects[0].name.clone(),
        Some(name) if subjects.iter().any(|subject| subject.name == name) => name.to_owned(),
        Some(name) => {
            let known = subjects.into_iter().map(|subject| subject.name).collect();
            return Err(CompareError::NoSuchReference { name: name.to_owned(), known });
        }
    };
    let scenarios = scenarios(&measured, &subjects, &reference)?;
    let limits = limits::sentences(inputs, &subjects, &scenarios);
    let sources = inputs.iter().map(source).collect();
    Ok(Comparison { schema: SCHEMA.to_owned(), limits, sources, reference, subjects, scenarios })
}

fn check_likeness(inputs: &[Input]) -> Result<(), CompareError> {
    let Some(first) = inputs.first() else { return Err(CompareError::TooFew(0)) };
    for input in inputs {
        if input.run.results.is_empty() && input.run.capacity.is_empty() && input.run.conformance.is_empty() {
            return Err(CompareError::Empty(input.name.clone()));
        }
        likeness::machines((&first.name, &first.run), (&input.name, &input.run))?;
    }
    // A test of the contract has no load that another could be compared with.
    let mut loads = inputs.iter().filter(|input| has_load(input) || !input.run.capacity.is_empty());
    if let Some(first) = loads.next() {
        for input in loads {
            likeness::plans((&first.name, &first.run), (&input.name, &input.run))?;
        }
    }
    Ok(())
}

/// Whether it is of a load that others can be measured under, too; what a search for a capacity offers is its own affair.
fn has_load(input: &Input) -> bool {
    input.run.capacity.is_empty() && !input.run.results.is_empty()
}

fn source(input: &Input) -> Source {
    let run = &input.run;
    Source {
        name: input.name.clone(),
        run_id: run.run_id.clone(),
        started_at: run.started_at.clone(),
        command: run.command.clone(),
        revision: run.tool.revision.clone(),
        outcome: run.verdict.outcome.word().to_owned(),
    }
}

/// What was measured under a load of its own; variants of one name at one rate in two files are two subjects, called after their files.
fn measured(inputs: &[Input]) -> Vec<Measured<'_>> {
    let mut all = Vec::new();
    for (place, input) in inputs.iter().enumerate().filter(|(_, input)| has_load(input)) {
        for group in summary::groups(&input.run).into_iter().filter(|group| !group.results.is_empty()) {
            let (plain, rate_per_s) = (group.name, input.run.plan.rate_per_s);
            all.push(Measured { subject: plain.to_owned(), plain, input: place, rate_per_s, results: group.results });
        }
    }
    let twice = |one: &Measured<'_>, all: &[Measured<'_>]| {
        let same = |other: &&Measured<'_>| other.plain == one.plain && other.rate_per_s == one.rate_per_s;
        all.iter().filter(same).count() > 1
    };
    let ambiguous: Vec<&str> = all.iter().filter(|one| twice(one, &all)).map(|one| one.plain).collect();
    for one in &mut all {
        if ambiguous.contains(&one.plain) {
            one.subject = format!("{} ({})", one.plain, inputs[one.input].name);
        }
    }
    all
}

fn subjects(inputs: &[Input], measured: &[Measured<'_>]) -> Result<Vec<Subject>, CompareError> {
    let mut subjects: Vec<Subject> = Vec::new();
    for one in measured {
        if !subjects.iter().any(|subject| subject.name == one.subject) {
            subjects.push(Subject { name: one.subject.clone(), ..Subject::default() });
        }
        let Some(subject) = subjects.iter_mut().find(|subject| subject.name == one.subject) else { continue };
        subject.faults.clone_from(&inputs[one.input].run.plan.faults);
        for result in &one.results {
            let take = |known: &mut Option<String>, found: &Option<String>| {
                *known = known.take().or_else(|| found.clone());
            };
            take(&mut subject.mode, &result.mode);
            take(&mut subject.durability, &result.durability);
            take(&mut subject.database, &result.database);
            take(&mut subject.version, &result.server_version);
            if let Some(ledger) = &result.ledger {
                let sum = subject.ledger.get_or_insert_default();
                sum.acknowledged += ledger.acknowledged;
                sum.persisted += ledger.persisted;
                sum.lost += ledger.lost;
                sum.duplicated += ledger.duplicated;
                sum.corrupted += ledger.corrupted;
                sum.unverified += ledger.unverified;
            }
        }
    }
    add_capacities(inputs, measured, &mut subjects)?;
    for found in inputs.iter().flat_map(|input| &input.run.conformance) {
        for one in measured.iter().filter(|one| is_test_of(found, one.plain)) {
            let subject = subjects.iter_mut().find(|subject| subject.name == one.subject);
            if let Some(subject) = subject.filter(|subject| subject.conformance.is_none()) {
                subject.conformance = Some(found.clone());
            }
        }
    }
    Ok(subjects)
}

/// `cache-first on sqlite` is a test of the variant `cache-first`.
fn is_test_of(found: &Conformance, variant: &str) -> bool {
    found.target == variant || found.target.starts_with(&format!("{variant} on "))
}

/// To the subject of that name; what has a capacity alone is a subject as well.
fn add_capacities(
    inputs: &[Input],
    measured: &[Measured<'_>],
    subjects: &mut Vec<Subject>,
) -> Result<(), CompareError> {
    let mut sources: BTreeMap<&str, &str> = BTreeMap::new();
    for input in inputs {
        for found in &input.run.capacity {
            if let Some(first) = sources.insert(&found.variant, &input.name) {
                let (name, second) = (found.variant.clone(), input.name.clone());
                return Err(CompareError::TwoCapacities { name, first: first.to_owned(), second });
            }
            let of = measured.iter().find(|one| one.plain == found.variant).map_or(&found.variant, |one| &one.subject);
            match subjects.iter_mut().find(|subject| subject.name == *of) {
                Some(subject) => subject.capacity = Some(found.clone()),
                None => {
                    subjects.push(Subject { name: of.clone(), capacity: Some(found.clone()), ..Subject::default() })
                }
            }
        }
    }
    Ok(())
}

fn scenarios(measured: &[Measured<'_>], subjects: &[Subject], reference: &str) -> Result<Vec<Scenario>, CompareError> {
    let mut by_rate: Vec<(f64, Vec<&Measured<'_>>)> = Vec::new();
    for one in measured {
        match by_rate.iter_mut().find(|(rate, _)| *rate == one.rate_per_s) {
            Some((_, of)) => of.push(one),
            None => by_rate.push((one.rate_per_s, vec![one])),
        }
    }
    by_rate.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (together, alone): (Vec<_>, Vec<_>) = by_rate.into_iter().partition(|(_, of)| of.len() > 1);
    let mut scenarios: Vec<Scenario> = together
        .into_iter()
        .map(|(rate, of)| {
            let title =
                if rate > 0.0 { format!("at {}", format::rate(rate)) } else { "as fast as answers come".to_owned() };
            scenario(title, &in_order(of, subjects), reference)
        })
        .collect();
    let alone: Vec<&Measured<'_>> = alone.into_iter().flat_map(|(_, of)| of).collect();
    if !alone.is_empty() {
        let fraction = common_fraction(&alone, subjects)?;
        let title = format!("at {} of each one's own capacity", format::percent(fraction));
        scenarios.push(scenario(title, &in_order(alone, subjects), reference));
    }
    Ok(scenarios)
}

fn in_order<'a, 'b>(mut of: Vec<&'a Measured<'b>>, subjects: &[Subject]) -> Vec<&'a Measured<'b>> {
    of.sort_by_key(|one| subjects.iter().position(|subject| subject.name == one.subject));
    of
}

/// Of those that are alone at their rates: which fraction of its own capacity each was offered.
fn common_fraction(alone: &[&Measured<'_>], subjects: &[Subject]) -> Result<f64, CompareError> {
    let mut fractions = Vec::new();
    for one in alone {
        let capacity =
            subjects.iter().find(|subject| subject.name == one.subject).and_then(|s| s.capacity.as_ref()?.rate_per_s);
        let Some(capacity) = capacity else {
            return Err(CompareError::OtherRate(format!(
                "{} was measured at {} and nothing else was (plan.rate_per_s); give a run of another one at that rate, or its capacity \
                 (loadgen capacity) for a comparison at equal fractions of it",
                one.subject,
                format::rate(one.rate_per_s)
            )));
        };
        fractions.push(one.rate_per_s / capacity);
    }
    let (low, high) = fractions.iter().fold((f64::MAX, 0.0_f64), |(low, high), f| (low.min(*f), high.max(*f)));
    if alone.len() < 2 || high - low > FRACTION_WITHIN {
        let told: Vec<String> = alone
            .iter()
            .zip(&fractions)
            .map(|(one, fraction)| {
                format!(
                    "{} at {}, {} of its capacity",
                    one.subject,
                    format::rate(one.rate_per_s),
                    format::percent(*fraction)
                )
            })
            .collect();
        return Err(CompareError::OtherRate(format!(
            "rates (plan.rate_per_s) that are neither equal nor equal fractions of the capacities: {}",
            told.join("; ")
        )));
    }
    Ok(stats::median(&fractions).unwrap_or(low))
}

fn scenario(title: String, of: &[&Measured<'_>], reference: &str) -> Scenario {
    let measured: Vec<&Quantity> = QUANTITIES
        .iter()
        .filter(|quantity| of.iter().any(|one| one.results.iter().any(|r| (quantity.read)(r).is_some())))
        .collect();
    let comparisons = of.len() * (of.len() - 1) / 2 * measured.len();
    let alpha = ERROR_RATE / comparisons.max(1) as f64;
    let achieved =
        |one: &&Measured<'_>| stats::median(&one.results.iter().map(|r| r.load.achieved_per_s).collect::<Vec<_>>());
    Scenario {
        title,
        subjects: of.iter().map(|one| one.subject.clone()).collect(),
        offered_per_s: of.iter().map(|one| one.rate_per_s).collect(),
        achieved_per_s: of.iter().map(achieved).collect(),
        rounds: of.iter().map(|one| one.results.len()).collect(),
        is_paired: of.iter().all(|one| one.input == of[0].input),
        comparisons,
        response_time: of.iter().map(|one| merged(&one.results)).collect(),
        lines: measured.iter().map(|quantity| line(quantity, of, reference, alpha)).collect(),
    }
}

fn merged(results: &[&TargetResult]) -> Times {
    let mut merged = TimeHistogram::new();
    for histogram in results.iter().filter_map(|r| r.load.response_time.histogram().ok()) {
        merged.merge(&histogram);
    }
    merged.times(results.iter().map(|r| r.load.response_time.censored).sum())
}

fn line(quantity: &Quantity, of: &[&Measured<'_>], reference: &str, alpha: f64) -> Line {
    let value = |one: &&Measured<'_>| {
        let values: Vec<f64> = one.results.iter().filter_map(|r| (quantity.read)(r)).collect();
        // A median of the rounds that happen to have the number would be that of the good ones.
        let complete = values.len() == one.results.len();
        stats::spread(&values).filter(|_| complete).map(|s| Value { median: s.median, min: s.min, max: s.max })
    };
    let values: Vec<Option<Value>> = of.iter().map(value).collect();
    let base = of.iter().position(|one| one.subject == reference);
    let ratios = (0..of.len()).map(|i| {
        let base = base.filter(|base| *base != i && values[*base].is_some() && values[i].is_some())?;
        between(quantity, of[i], of[base], alpha)
    });
    let mut places: Vec<usize> = (0..of.len()).filter(|i| values[*i].is_some()).collect();
    // The lowest is the first to get a letter.
    places.sort_by(|i, j| {
        let median = |i: usize| values[i].map_or(f64::NAN, |value| value.median);
        median(*i).total_cmp(&median(*j))
    });
    let told = |i: usize, j: usize| {
        between(quantity, of[places[i]], of[places[j]], alpha).is_some_and(|ratio: Ratio| ratio.is_told())
    };
    let mut letters = vec![String::new(); of.len()];
    for (place, letter) in places.iter().zip(ratio::letters(places.len(), told)) {
        letters[*place] = letter;
    }
    let ratios = ratios.collect();
    Line { label: quantity.label.to_owned(), unit: quantity.unit.to_owned(), values, ratios, letters }
}

/// `one` ÷ `other`: paired where both were measured in the same rounds.
fn between(quantity: &Quantity, one: &Measured<'_>, other: &Measured<'_>, alpha: f64) -> Option<Ratio> {
    let read = |r: &&TargetResult| (quantity.read)(r);
    if one.input == other.input {
        let rounds: Vec<(f64, f64)> = one
            .results
            .iter()
            .filter_map(|r| {
                let same = other.results.iter().find(|o| o.repetition == r.repetition)?;
                Some((read(r)?, read(same)?))
            })
            .collect();
        return ratio::paired(&rounds, alpha);
    }
    let all = |of: &Measured<'_>| of.results.iter().filter_map(read).collect::<Vec<_>>();
    ratio::unpaired(&all(one), &all(other), alpha)
}
