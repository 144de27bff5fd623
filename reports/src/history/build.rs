//! From runs to a history.

use jiff::Timestamp;

use super::divide::RULE;
use super::{Change, History, LeftOut, Metric, PastRun, Point, Rule, SCHEMA, Series, Setting};
use crate::format;
use crate::likeness;
use crate::model::{Environment, Outcome, Run};
use crate::plan;
use crate::stats::{self, Spread};
use crate::summary;

/// A run, without what no history asks for.
#[derive(Debug, Clone)]
pub struct Entry {
    path: String,
    at: Timestamp,
    /// Its results are taken out.
    run: Run,
    server_versions: Vec<String>,
    numbers: Vec<(String, Metric, Spread)>,
}

impl Entry {
    /// Of the run in `path`.
    ///
    /// # Errors
    /// When it has no place in a series: why, as a sentence.
    pub fn of(path: &str, mut run: Run) -> Result<Self, LeftOut> {
        let refuse = |reason: String| Err(LeftOut { path: path.to_owned(), reason });
        if run.verdict.outcome == Outcome::Invalid {
            let why = run.verdict.reasons.first().map_or("", String::as_str);
            return refuse(format!("the run is invalid: {why}"));
        }
        let numbers = numbers(&run);
        if numbers.is_empty() {
            return refuse("it has neither a load nor a capacity (a crash test or a test of the contract)".to_owned());
        }
        let Ok(at) = run.started_at.parse() else {
            return refuse(format!("started_at is '{}', which is no time (RFC 3339)", run.started_at));
        };
        let mut server_versions: Vec<String> = Vec::new();
        for version in run.results.drain(..).filter_map(|result| result.server_version) {
            if !server_versions.contains(&version) {
                server_versions.push(version);
            }
        }
        Ok(Self { path: path.to_owned(), at, run, server_versions, numbers })
    }

    fn past_run(&self) -> PastRun {
        PastRun {
            path: self.path.clone(),
            run_id: self.run.run_id.clone(),
            started_at: self.run.started_at.clone(),
            revision: self.run.tool.revision.clone(),
            server_versions: self.server_versions.clone(),
            outcome: self.run.verdict.outcome.word().to_owned(),
        }
    }
}

/// What is followed of a run: by variant and metric.
fn numbers(run: &Run) -> Vec<(String, Metric, Spread)> {
    if !run.capacity.is_empty() {
        let found = run.capacity.iter();
        let numbers =
            found.filter_map(|found| Some((found.variant.clone(), Metric::Capacity, Metric::read_search(found)?)));
        return numbers.collect();
    }
    let groups = summary::groups(run);
    let of = |metric: Metric| groups.iter().filter_map(move |g| Some((g.name.to_owned(), metric, metric.read(g)?)));
    Metric::ALL.into_iter().flat_map(of).collect()
}

/// Puts runs in the order of time, those that go together into one setting, and marks the changes of each of their numbers. `left_out` is
/// what was found beside them.
pub fn history(mut entries: Vec<Entry>, mut left_out: Vec<LeftOut>) -> History {
    entries.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.path.cmp(&b.path)));
    let mut alike: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        if let Some(known) = alike.iter().flatten().find(|known| known.run.run_id == entry.run.run_id) {
            left_out.push(LeftOut { reason: format!("the same run as {}", known.path), path: entry.path });
            continue;
        }
        match alike.iter_mut().find(|runs| representatives(runs).all(|one| unlike(&one.run, &entry.run).is_empty())) {
            Some(runs) => runs.push(entry),
            None => alike.push(vec![entry]),
        }
    }
    // Stable: of two with as many runs, the older one.
    alike.sort_by_key(|runs| std::cmp::Reverse(runs.len()));
    let settings = (0..alike.len()).map(|place| setting(&alike[..place], &alike[place])).collect();
    left_out.sort_by(|a, b| a.path.cmp(&b.path));
    History { schema: SCHEMA.to_owned(), rule: rule(), left_out, settings }
}

fn rule() -> Rule {
    Rule {
        method: "E-divisive".to_owned(),
        significance: RULE.significance,
        orders: RULE.orders,
        runs_on_either_side_min: RULE.side_min,
        runs_min: RULE.count_min,
        runs_max: RULE.count_max,
        seed: RULE.seed,
    }
}

/// The runs that all others of a setting are alike to: its first one, and the first that was watched while idle, since one that was not goes
/// with any that was.
fn representatives(runs: &[Entry]) -> impl Iterator<Item = &Entry> {
    let idle = runs.iter().skip(1).find(|entry| entry.run.plan.idle_ms > 0);
    runs.first().into_iter().chain(idle)
}

/// Fields in which two runs differ that must not in one series. More than in a comparison, where the rate, the database and the faults are
/// what is compared.
fn unlike(one: &Run, other: &Run) -> Vec<String> {
    let mut fields = Vec::new();
    let mut differing = |field: &str, one: String, other: String| {
        if one != other {
            fields.push(format!("{field}: {one} and {other}"));
        }
    };
    let kind = |run: &Run| if run.capacity.is_empty() { "a load" } else { "a search for a capacity" }.to_owned();
    differing("what was done", kind(one), kind(other));
    if one.capacity.is_empty() && other.capacity.is_empty() {
        differing("plan.rate_per_s", one.plan.rate_per_s.to_string(), other.plan.rate_per_s.to_string());
    }
    let or_none = |text: Option<&str>| text.unwrap_or("none").to_owned();
    differing("plan.database", or_none(one.plan.database.as_deref()), or_none(other.plan.database.as_deref()));
    let faults = |run: &Run| or_none(Some(run.plan.faults.join(" ").as_str()).filter(|faults| !faults.is_empty()));
    differing("plan.faults", faults(one), faults(other));
    let same = ("", "");
    for found in [likeness::plans((same.0, one), (same.1, other)), likeness::machines((same.0, one), (same.1, other))] {
        fields.extend(found.err().map(|unlike| unlike.fields).unwrap_or_default());
    }
    fields
}

fn setting(before: &[Vec<Entry>], entries: &[Entry]) -> Setting {
    let run = &entries[0].run;
    // Of each other setting, what kept this one out of it.
    let kept_out =
        |other: &[Entry]| representatives(other).map(|one| unlike(&one.run, run)).find(|fields| !fields.is_empty());
    let differing = before.iter().filter_map(|other| kept_out(other));
    let kind = match run.capacity.is_empty() {
        true => {
            let seconds = run.plan.duration_ms as f64 / 1e3;
            format!("{} for {}", plan::arrivals(&run.plan), format::seconds(seconds))
        }
        false => "search for a capacity".to_owned(),
    };
    let on = run.plan.database.as_ref().map_or_else(String::new, |database| format!(" on {database}"));
    Setting {
        title: format!("{kind}{on}"),
        machine: machine(&run.environment),
        differs: differing.min_by_key(Vec::len).unwrap_or_default(),
        runs: entries.iter().map(Entry::past_run).collect(),
        series: series(entries),
    }
}

fn machine(environment: &Environment) -> String {
    let Environment { cores, cpu_model, os, kernel, .. } = environment;
    format!("{cores} × {cpu_model}, {os}, kernel {kernel}")
}

/// By metric, then by variant in the order in which they first came.
fn series(entries: &[Entry]) -> Vec<Series> {
    let mut variants: Vec<&str> = Vec::new();
    for (variant, ..) in entries.iter().flat_map(|entry| &entry.numbers) {
        if !variants.contains(&variant.as_str()) {
            variants.push(variant);
        }
    }
    let points = |metric: Metric, variant: &str| -> Vec<Point> {
        let of = |(run, entry): (usize, &Entry)| {
            let (.., spread) = entry.numbers.iter().find(|(name, of, _)| name == variant && *of == metric)?;
            Some(Point { run, value: spread.median, min: spread.min, max: spread.max })
        };
        entries.iter().enumerate().filter_map(of).filter(|point| point.value.is_finite()).collect()
    };
    let all = Metric::ALL.into_iter().flat_map(|metric| variants.iter().map(move |variant| (metric, *variant)));
    let found = all.map(|(metric, variant)| (metric, variant, points(metric, variant)));
    found
        .filter(|(.., points)| !points.is_empty())
        .map(|(metric, variant, points)| one(metric, variant, points))
        .collect()
}

/// Looks for its changes.
fn one(metric: Metric, variant: &str, points: Vec<Point>) -> Series {
    let is_logarithmic = points.iter().all(|point| point.value > 0.0);
    let scaled = |point: &Point| if is_logarithmic { point.value.ln() } else { point.value };
    let found = RULE.changes(&points.iter().map(scaled).collect::<Vec<_>>());
    let note = match &found {
        None => Some(format!("too few runs: {} of {}", points.len(), RULE.count_min)),
        Some(_) if points.len() > RULE.count_max => Some(format!("looked at the last {} runs", RULE.count_max)),
        Some(_) => None,
    };
    let found = found.unwrap_or_default();
    let begin = points.len().saturating_sub(RULE.count_max);
    let edges: Vec<usize> =
        std::iter::once(begin).chain(found.iter().map(|change| change.at)).chain([points.len()]).collect();
    let level = |from: usize, to: usize| {
        stats::median(&points[from..to].iter().map(|point| point.value).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let changes = found.iter().zip(edges.windows(3)).map(|(change, edges)| {
        let (before, after) = (level(edges[0], edges[1]), level(edges[1], edges[2]));
        Change {
            run_before: points[change.at - 1].run,
            run: points[change.at].run,
            before,
            after,
            ratio: (before > 0.0).then(|| after / before),
            is_worse: if metric.is_worse_above() { after > before } else { after < before },
            p: change.p,
        }
    });
    let changes = changes.collect();
    Series {
        metric,
        variant: variant.to_owned(),
        unit: metric.unit().to_owned(),
        is_logarithmic,
        points,
        changes,
        note,
    }
}
