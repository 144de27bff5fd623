//! The numbers of a run as text, one row a quantity and one cell a variant: what the table and the page both show.
//!
//! Repetitions become their median, with the spread beside it. Quantiles are never averaged: the median of repetitions is one
//! of them (or the middle of two), and curves are drawn from merged histograms.

use crate::calibration;
use crate::conform;
use crate::crash;
use crate::format;
use crate::histogram::TimeHistogram;
use crate::model::{
    Calibration, Capacity, CapacityTrial, Conformance, CrashTest, Delivery, Operation, OperationLoad, RuleOutcome, Run,
    TargetResult, Times, TrialStage, Variant,
};
use crate::stats;

/// One variant with its repetitions.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Name of the variant.
    pub name: &'a str,
    /// As planned; `None` when a foreign result names a target that its plan does not.
    pub variant: Option<&'a Variant>,
    /// Its repetitions; empty when none was measured.
    pub results: Vec<&'a TargetResult>,
}

/// The variants of a run in the order of the plan.
pub fn groups(run: &Run) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> =
        run.plan.variants.iter().map(|v| Group { name: &v.name, variant: Some(v), results: Vec::new() }).collect();
    for result in &run.results {
        match groups.iter_mut().find(|g| g.name == result.target) {
            Some(group) => group.results.push(result),
            None => groups.push(Group { name: &result.target, variant: None, results: vec![result] }),
        }
    }
    groups
}

/// One number of one variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// With its unit; `–` when it was not measured or would pretend.
    pub text: String,
    /// Smallest and largest of the repetitions, when they differ.
    pub spread: Option<String>,
    /// It is a fault: lost or duplicated events, and the like. Always said in words too.
    pub is_fault: bool,
}

impl Cell {
    /// Without a spread.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), spread: None, is_fault: false }
    }

    fn unknown() -> Self {
        Self::plain(format::UNKNOWN)
    }
}

/// One quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is.
    pub label: String,
    /// In the order of [`groups`].
    pub cells: Vec<Cell>,
}

impl Group<'_> {
    /// Median and spread of a number over the repetitions that have it.
    pub fn spread(&self, read: impl Fn(&TargetResult) -> Option<f64>) -> Option<stats::Spread> {
        stats::spread(&self.results.iter().filter_map(|r| read(r)).collect::<Vec<_>>())
    }

    /// [`Group::spread`] as text.
    pub fn cell(&self, read: impl Fn(&TargetResult) -> Option<f64>, text: impl Fn(f64) -> String) -> Cell {
        self.spread(read)
            .map_or_else(Cell::unknown, |s| Cell { spread: range(&s, &text), ..Cell::plain(text(s.median)) })
    }

    /// A sum over all repetitions that counts faults: 0 is good, anything else is marked.
    pub fn faults(&self, read: impl Fn(&TargetResult) -> Option<u64>) -> Cell {
        let counts: Vec<u64> = self.results.iter().filter_map(|r| read(r)).collect();
        if counts.is_empty() {
            return Cell::unknown();
        }
        let sum = counts.iter().sum();
        Cell { is_fault: sum > 0, ..Cell::plain(format::count(sum)) }
    }

    /// Quantile `q` of a distribution: the median of the repetitions, printed only when each has enough samples beyond it.
    pub fn quantile(&self, read: impl Fn(&TargetResult) -> Option<&Times>, q: f64) -> Cell {
        let all: Vec<&Times> = self.results.iter().filter_map(|r| read(r)).filter(|t| t.count > 0).collect();
        let Some(fewest) = all.iter().min_by_key(|t| t.count) else { return Cell::unknown() };
        let values: Vec<f64> = all.iter().map(|t| t.quantile_ns(q)).collect();
        let Some(spread) = stats::spread(&values) else { return Cell::unknown() };
        // A foreign result may give a count and no such quantile; a time of 0 at a high quantile is then no measurement.
        let absent = spread.max == 0.0 && all.iter().all(|t| t.max_ns > 0 && t.histogram.is_empty());
        let censored = all.iter().map(|t| t.censored + t.overflowed).max().unwrap_or(0);
        let text = format::quantile(&Times { count: fewest.count, censored, ..Times::default() }, q, spread.median);
        match text.as_str() {
            format::UNKNOWN => Cell::unknown(),
            _ if absent => Cell::unknown(),
            _ => Cell { spread: range(&spread, &format::time), ..Cell::plain(text) },
        }
    }

    /// The largest value in any repetition.
    pub fn largest(&self, read: impl Fn(&TargetResult) -> Option<&Times>) -> Cell {
        let all: Vec<&Times> = self.results.iter().filter_map(|r| read(r)).filter(|t| t.count > 0).collect();
        all.iter().max_by_key(|t| t.max_ns).map_or_else(Cell::unknown, |t| Cell::plain(format::largest(t)))
    }

    /// All repetitions in one histogram; `None` when there is none to be read.
    pub fn merged(&self, read: impl Fn(&TargetResult) -> Option<&Times>) -> Option<TimeHistogram> {
        let mut histograms = self.results.iter().filter_map(|r| read(r)?.histogram().ok()).filter(|h| h.count() > 0);
        let mut merged = histograms.next()?;
        histograms.for_each(|h| merged.merge(&h));
        Some(merged)
    }
}

/// `1.1–1.3 ms`, or nothing when there is one value or all read the same.
fn range(spread: &stats::Spread, text: &impl Fn(f64) -> String) -> Option<String> {
    let (low, high) = (text(spread.min), text(spread.max));
    (low != high).then(|| format!("{low} – {high}"))
}

/// The distributions of the steady phase, as they are named.
pub type ReadTimes = fn(&TargetResult) -> Option<&Times>;

/// Response time of a repetition.
pub fn response_time(r: &TargetResult) -> Option<&Times> {
    Some(&r.load.response_time)
}

/// Service time of a repetition.
pub fn service_time(r: &TargetResult) -> Option<&Times> {
    Some(&r.load.service_time)
}

/// Send delay of a repetition.
pub fn send_delay(r: &TargetResult) -> Option<&Times> {
    Some(&r.load.send_delay)
}

/// A distribution of the steady phase that the floor has, too.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// As it is named.
    pub name: &'static str,
    /// Of a repetition.
    pub read: ReadTimes,
    /// Of the floor; `None`: it has none.
    pub floor: Option<fn(&Calibration) -> &Times>,
}

/// done − intended.
pub const RESPONSE_TIME: Quantity =
    Quantity { name: "response time", read: response_time, floor: Some(|floor| &floor.response_time) };
/// done − sent.
pub const SERVICE_TIME: Quantity =
    Quantity { name: "service time", read: service_time, floor: Some(|floor| &floor.service_time) };
/// sent − intended.
pub const SEND_DELAY: Quantity =
    Quantity { name: "send delay", read: send_delay, floor: Some(|floor| &floor.send_delay) };
/// Acknowledged → persisted.
pub const TIME_TO_DURABLE: Quantity = Quantity { name: "time to durable", read: time_to_durable, floor: None };

/// Acknowledged → delivered by webhook.
pub const TIME_TO_DELIVERED: Quantity = Quantity { name: "time to delivered", read: time_to_delivered, floor: None };

/// What the column of the floor is called.
pub const FLOOR: &str = "floor (null)";

/// Headings of tables that have the floor beside the variants: [`key_rows`], [`quantile_rows`].
pub fn headings(run: &Run) -> Vec<String> {
    let names = groups(run).into_iter().map(|group| group.name.to_owned());
    names.chain(calibration::floor(run).map(|_| FLOOR.to_owned())).collect()
}

/// Makes rows of the variants, and of the floor where it is known.
struct Rows<'a> {
    groups: Vec<Group<'a>>,
    floor: Option<&'a Calibration>,
}

impl Rows<'_> {
    fn of(run: &Run) -> Rows<'_> {
        Rows { groups: groups(run), floor: calibration::floor(run) }
    }

    fn row(&self, label: &str, cell: impl Fn(&Group<'_>) -> Cell, floor: impl Fn(&Calibration) -> Cell) -> Row {
        let cells = self.groups.iter().map(cell).chain(self.floor.map(floor)).collect();
        Row { label: label.to_owned(), cells }
    }

    /// Of which a server that does nothing has nothing.
    fn without_floor(&self, label: &str, cell: impl Fn(&Group<'_>) -> Cell) -> Row {
        self.row(label, cell, |_| Cell::unknown())
    }

    fn quantile(&self, quantity: Quantity, q: f64) -> Row {
        let floor = |floor: &Calibration| {
            let times = quantity.floor.map(|read| read(floor));
            times.map_or_else(Cell::unknown, |times| Cell::plain(format::quantile(times, q, times.quantile_ns(q))))
        };
        self.row(&format!("{} {}", quantity.name, format::quantile_name(q)), |g| g.quantile(quantity.read, q), floor)
    }

    fn largest(&self, quantity: Quantity) -> Row {
        let floor = |floor: &Calibration| {
            quantity.floor.map_or_else(Cell::unknown, |read| Cell::plain(format::largest(read(floor))))
        };
        self.row(&format!("{} max", quantity.name), |g| g.largest(quantity.read), floor)
    }
}

/// Quantiles that are listed where there is room.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];

/// The quantiles of one quantity, and its largest value.
pub fn quantile_rows(run: &Run, quantity: Quantity) -> Vec<Row> {
    let rows = Rows::of(run);
    QUANTILES.iter().map(|q| rows.quantile(quantity, *q)).chain([rows.largest(quantity)]).collect()
}

/// What the calibration found, in one column; empty without one.
pub fn calibration_rows(run: &Run) -> Vec<Row> {
    let Some(found) = &run.calibration else { return Vec::new() };
    let row = |label: String, text: String| Row { label, cells: vec![Cell::plain(text)] };
    let quantile = |name: &str, times: &Times, q: f64| {
        let text = format::quantile(times, q, times.quantile_ns(q));
        row(format!("{name} {}", format::quantile_name(q)), text)
    };
    let known = |value: Option<f64>, text: fn(f64) -> String| value.map_or_else(|| format::UNKNOWN.to_owned(), text);
    let driven = match found.rate_per_s {
        0.0 => format!("{}, closed loop", format::rate(found.achieved_per_s)),
        rate => format!("{} for {}", format::rate(rate), format::seconds(found.seconds)),
    };
    let mut rows = vec![row("null server driven at".to_owned(), driven)];
    for (name, times, high) in [
        ("response time", &found.response_time, 0.99),
        ("service time", &found.service_time, 0.99),
        ("send delay", &found.send_delay, 0.99),
        // Of as many sleeps as a run has time for, p99 would rest on two.
        ("sleep of 1 ms ends late by", &found.timer_lateness, 0.9),
    ] {
        rows.extend([0.5, high].map(|q| quantile(name, times, q)));
        rows.push(row(format!("{name} max"), format::largest(times)));
    }
    let standstill = found.hiccups.as_ref().and_then(|hiccups| Some(hiccups.standstill.as_ref()?.max_ns as f64));
    rows.push(row("machine stood still max".to_owned(), known(standstill, format::time)));
    rows.push(row("generator CPU per request".to_owned(), known(found.generator_cpu_ns_per_request, format::time)));
    if found.rate_per_s_max.is_some() || found.rate_per_s_failed.is_some() {
        rows.push(row("highest rate offered honestly".to_owned(), known(found.rate_per_s_max, format::rate)));
        rows.push(row("… lowest that was not".to_owned(), known(found.rate_per_s_failed, format::rate)));
    }
    if found.closed_per_s_max.is_some() {
        rows.push(row("highest rate in a closed loop".to_owned(), known(found.closed_per_s_max, format::rate)));
    }
    rows
}

/// What the columns of [`trial_rows`] are.
pub const TRIAL_HEADINGS: [&str; 10] = [
    "held",
    "achieved",
    "persisted",
    "p50",
    "p99",
    "p99.9",
    "send delay p99",
    "backlog",
    "server CPU",
    "generator CPU",
];

/// Every trial of a search, in the order in which they ran; a column as [`TRIAL_HEADINGS`] says.
pub fn trial_rows(found: &Capacity) -> Vec<Row> {
    found.trials.iter().map(trial_row).collect()
}

fn trial_row(trial: &CapacityTrial) -> Row {
    let known = |value: Option<f64>, text: fn(f64) -> String| value.map_or_else(|| format::UNKNOWN.to_owned(), text);
    let held = match (trial.held, trial.is_saturated) {
        (true, _) => "yes",
        (_, true) => "void",
        _ => "no",
    };
    // A time of 0 is that of a trial in which nothing was accepted.
    let time = |ns: u64| known(Some(ns as f64).filter(|ns| *ns > 0.0), format::time);
    let cells = [
        held.to_owned(),
        format::rate(trial.achieved_per_s),
        known(trial.persisted_per_s, format::rate),
        time(trial.response_time_ns_p50),
        time(trial.response_time_ns_p99),
        time(trial.response_time_ns_p999),
        time(trial.send_delay_ns_p99),
        known(trial.backlog_peak.map(|n| n as f64), format::number),
        known(trial.server_cpu_share, format::percent),
        known(trial.generator_cpu_share, format::percent),
    ];
    let stage = match trial.stage {
        TrialStage::Explore => "",
        TrialStage::Narrow => " (narrowing)",
        TrialStage::Confirm => " (confirming)",
    };
    Row { label: format!("{}{stage}", format::rate(trial.rate_per_s)), cells: cells.map(Cell::plain).to_vec() }
}

/// What the search found for each variant: one row a fact, one cell a variant.
pub fn capacity_rows(run: &Run) -> Vec<Row> {
    let row = |label: &str, text: &dyn Fn(&Capacity) -> Option<String>| Row {
        label: label.to_owned(),
        cells: run.capacity.iter().map(|found| text(found).map_or_else(Cell::unknown, Cell::plain)).collect(),
    };
    let at_capacity = |found: &Capacity| {
        let confirmed = found.trials.iter().filter(|trial| Some(trial.rate_per_s) == found.rate_per_s && trial.held);
        stats::median(&confirmed.filter_map(|trial| trial.persisted_per_s).collect::<Vec<_>>())
    };
    let most_persisted = |found: &Capacity| found.trials.iter().filter_map(|t| t.persisted_per_s).reduce(f64::max);
    vec![
        row("capacity", &|found| {
            let at_least = if found.limit.is_some() { "≥ " } else { "" };
            found.rate_per_s.map(|rate| format!("{at_least}{}", format::rate(rate)))
        }),
        row("persisted there", &|found| at_capacity(found).map(format::rate)),
        row("lowest rate that failed", &|found| found.rate_per_s_failed.map(format::rate)),
        row("most persisted in any trial", &|found| most_persisted(found).map(format::rate)),
        row("knee", &|found| found.knee_per_s.map(format::rate)),
        row("trials", &|found| Some(format::count(found.trials.len() as u64))),
    ]
}

/// What the columns of [`crash_rows`] are.
pub const CRASH_HEADINGS: [&str; 12] = [
    "kills",
    "again",
    "acknowledged",
    "lost",
    "age p50",
    "max",
    "duplicated",
    "altered",
    "unanswered",
    "ready p50",
    "p99",
    "max",
];

/// Every test with kills: one row a mode and store; a column as [`CRASH_HEADINGS`] says.
pub fn crash_rows(run: &Run) -> Vec<Row> {
    run.crash.iter().map(crash_row).collect()
}

fn crash_row(test: &CrashTest) -> Row {
    let number = |n: u64| Cell::plain(format::count(n));
    let fault = |n: u64, is_fault: bool| Cell { is_fault: is_fault && n > 0, ..number(n) };
    let time = |times: &Times, ns: u64| match times.count {
        0 => Cell::unknown(),
        _ => Cell::plain(format::time_ns(ns)),
    };
    let (age, ready) = (&test.lost_age, &test.ready);
    let cells = vec![
        number(test.kills.len() as u64),
        number(test.kills.iter().filter(|kill| kill.in_recovery_ms.is_some()).count() as u64),
        number(test.acknowledged),
        fault(test.lost, crash::must_keep(test)),
        time(age, age.p50_ns),
        time(age, age.max_ns),
        fault(test.duplicated, true),
        fault(test.altered, true),
        number(test.unacknowledged),
        time(ready, ready.p50_ns),
        time(ready, ready.p99_ns),
        time(ready, ready.max_ns),
    ];
    Row { label: test.name.clone(), cells }
}

/// Every rule of the contract that was tested, with one cell a target.
pub fn conformance_rows(run: &Run) -> Vec<Row> {
    let cell = |found: &Conformance, id: &str| {
        let Some(rule) = found.rules.iter().find(|rule| rule.id == id) else { return Cell::unknown() };
        let word = conform::word(rule.outcome);
        let all = rule.passed.len() + rule.failures.len() + rule.untested.len();
        let text = match rule.outcome {
            RuleOutcome::Passed if rule.untested.is_empty() => word.to_owned(),
            RuleOutcome::Passed => format!("{word} {} of {all}", rule.passed.len()),
            RuleOutcome::Failed => format!("{word} {} of {all}", rule.failures.len()),
            RuleOutcome::NotClaimed | RuleOutcome::NotTestable => word.to_owned(),
        };
        Cell { is_fault: rule.outcome == RuleOutcome::Failed, ..Cell::plain(text) }
    };
    let row = |id: &str| Row {
        label: format!("{id} {}", conform::title(id)),
        cells: run.conformance.iter().map(|found| cell(found, id)).collect(),
    };
    conform::ids(run).into_iter().map(row).collect()
}

/// Time to durable of a repetition, where it was measured.
pub fn time_to_durable(r: &TargetResult) -> Option<&Times> {
    r.ledger.as_ref()?.time_to_durable.as_ref().map(|t| &t.times)
}

/// Time to delivered of a repetition, where delivery was asked for and something was delivered.
pub fn time_to_delivered(r: &TargetResult) -> Option<&Times> {
    delivery(r)?.time_to_delivered.as_ref()
}

fn delivery(r: &TargetResult) -> Option<&Delivery> {
    r.ledger.as_ref()?.delivery.as_ref()
}

/// The operations by themselves, where several were mixed.
pub fn operation_rows(run: &Run) -> Vec<Row> {
    let groups = groups(run);
    let mut rows = Vec::new();
    for operation in Operation::ALL {
        let part = |r: &'_ TargetResult| r.load.operations.iter().position(|part| part.operation == operation);
        if !groups.iter().flat_map(|g| &g.results).any(|r| part(r).is_some()) {
            continue;
        }
        let mut row = |label: &str, read: &dyn Fn(&Group<'_>) -> Cell| {
            let label = format!("{}: {label}", operation.name());
            rows.push(Row { label, cells: groups.iter().map(read).collect() });
        };
        let number = |read: fn(&OperationLoad) -> u64| {
            move |g: &Group<'_>| {
                g.cell(|r| Some(read(&r.load.operations[part(r)?]) as f64), |n| format::count(n as u64))
            }
        };
        row("planned", &number(|part| part.planned));
        row("accepted", &number(|part| part.outcomes.accepted));
        if matches!(operation, Operation::Ingest | Operation::Batch) {
            row("events acknowledged", &number(|part| part.events_acknowledged));
        }
        for q in [0.5, 0.99] {
            let name = format::quantile_name(q);
            row(&format!("response time {name}"), &|g| {
                g.quantile(|r| Some(&r.load.operations[part(r)?].response_time), q)
            });
        }
        for q in [0.5, 0.99] {
            let name = format::quantile_name(q);
            row(&format!("service time {name}"), &|g| {
                g.quantile(|r| Some(&r.load.operations[part(r)?].service_time), q)
            });
        }
    }
    rows
}

/// The numbers that are asked for first; a column a variant, and the floor's where [`headings`] has it.
pub fn key_rows(run: &Run) -> Vec<Row> {
    let rows = Rows::of(run);
    let floor_rate = |read: fn(&Calibration) -> f64| {
        move |floor: &Calibration| {
            Some(read(floor))
                .filter(|rate| *rate > 0.0)
                .map_or_else(Cell::unknown, |rate| Cell::plain(format::rate(rate)))
        }
    };
    let mut listed = vec![
        rows.row(
            "offered rate",
            |g| g.cell(|r| Some(r.load.offered_per_s).filter(|o| *o > 0.0), format::rate),
            floor_rate(|floor| floor.rate_per_s),
        ),
        rows.row(
            "achieved rate",
            |g| g.cell(|r| Some(r.load.achieved_per_s), format::rate),
            floor_rate(|floor| floor.achieved_per_s),
        ),
        rows.quantile(RESPONSE_TIME, 0.5),
        rows.quantile(RESPONSE_TIME, 0.99),
        rows.quantile(RESPONSE_TIME, 0.999),
        rows.largest(RESPONSE_TIME),
        rows.quantile(SERVICE_TIME, 0.99),
        rows.quantile(SEND_DELAY, 0.99),
        rows.without_floor("not accepted", |g| g.faults(|r| Some(r.load.not_accepted()))),
        rows.without_floor("acknowledged, lost", |g| g.faults(|r| Some(r.ledger.as_ref()?.lost))),
        rows.without_floor("acknowledged, duplicated", |g| g.faults(|r| Some(r.ledger.as_ref()?.duplicated))),
        rows.quantile(TIME_TO_DURABLE, 0.99),
        rows.without_floor("SQL statements, idle", |g| {
            g.cell(|r| r.idle.as_ref()?.sql_statements_per_hour, |n| format::in_unit(n, "per_hour"))
        }),
        rows.without_floor("server CPU per event", |g| {
            g.cell(|r| r.cpu_ns_per_event(r.resources.server_cpu_s), format::time)
        }),
        rows.without_floor("server memory, peak", |g| {
            g.cell(|r| r.resources.server_rss_peak_bytes.map(|n| n as f64), format::bytes)
        }),
    ];
    if run.plan.webhooks {
        let undelivered = |g: &Group<'_>| g.faults(|r| Some(delivery(r)?.undelivered));
        let repeated = |g: &Group<'_>| g.cell(|r| Some(delivery(r)?.repeated as f64), format::number);
        listed.extend([
            rows.without_floor("acknowledged, undelivered", undelivered),
            rows.without_floor("delivered again", repeated),
            rows.quantile(TIME_TO_DELIVERED, 0.99),
        ]);
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn operations_have_rows_of_their_own_where_several_were_mixed() {
        assert!(operation_rows(&fixtures::three_modes()).is_empty());
        let run = fixtures::mixed();
        let labels: Vec<String> = operation_rows(&run).into_iter().map(|row| row.label).collect();
        let times = ["response time p50", "response time p99", "service time p50", "service time p99"];
        let of = |name: &str, counts: &[&str]| -> Vec<String> {
            counts.iter().chain(&times).map(|what| format!("{name}: {what}")).collect()
        };
        let expected =
            [of("ingest", &["planned", "accepted", "events acknowledged"]), of("inbox", &["planned", "accepted"])];
        assert_eq!(labels, expected.concat());
        let text = crate::table::render(&run);
        assert!(text.contains("by operation") && text.contains("inbox: response time p99"), "{text}");
        assert!(crate::html::render(&run).contains("By operation"));
    }
}
