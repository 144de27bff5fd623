//! Before and after: the old design against each new one, quantity by quantity, each measured in this run.

use crate::format;
use crate::model::{Role, Run, TargetResult};
use crate::summary::{self, Cell, Group};

/// What is said of a number that nobody measured.
pub const NOT_MEASURED: &str = "not measured";

/// Ratios this close to 1 are called the same.
const SAME_WITHIN: f64 = 0.05;

/// From this ratio on, a change is told as a multiple and not in per cent.
const MULTIPLE_FROM: f64 = 2.0;

/// Old and new side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Name of the old variant.
    pub old: String,
    /// Names of the new ones.
    pub new: Vec<String>,
    /// One a quantity.
    pub rows: Vec<TableRow>,
}

/// One quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// What it is.
    pub label: String,
    /// Measured on the old variant.
    pub old: String,
    /// Measured on each new one, and what changed.
    pub new: Vec<(String, String)>,
}

/// How a change is put into words.
#[derive(Clone, Copy)]
enum Words {
    /// Of something that is waited for: faster, slower.
    Speed,
    /// Of a number of things: fewer, more.
    Amount,
    /// Of a time that is neither good nor bad: shorter, longer.
    Length,
}

struct Quantity {
    label: &'static str,
    words: Words,
    text: fn(f64) -> String,
    read: fn(&TargetResult) -> Option<f64>,
}

const fn quantity(
    label: &'static str,
    words: Words,
    text: fn(f64) -> String,
    read: fn(&TargetResult) -> Option<f64>,
) -> Quantity {
    Quantity { label, words, text, read }
}

const QUANTITIES: &[Quantity] = &[
    quantity("event ingestion response time, p50", Words::Speed, format::time, |r| {
        quantile(summary::response_time(r)?, 0.5)
    }),
    quantity("event ingestion response time, p99", Words::Speed, format::time, |r| {
        quantile(summary::response_time(r)?, 0.99)
    }),
    quantity("idle poll interval at the end", Words::Length, format::time, |r| {
        Some(r.idle.as_ref()?.poll_interval_ms_last? * 1e6)
    }),
    quantity("SQL statements per poll", Words::Amount, format::number, |r| r.idle.as_ref()?.sql_statements_per_poll),
    quantity("SQL statements per idle hour", Words::Amount, format::number, |r| {
        r.idle.as_ref()?.sql_statements_per_hour
    }),
    quantity("SQL statements per hour in deep idle", Words::Amount, format::number, |r| {
        r.idle.as_ref()?.sql_statements_per_hour_deep_idle
    }),
    quantity("pooled connections unused, longest", Words::Length, format::seconds, |r| {
        r.idle.as_ref()?.connections_unused_s_max
    }),
    quantity("first event after idle, response time", Words::Speed, format::time, |r| {
        Some(r.idle.as_ref()?.first_event.as_ref()?.response_time_ns as f64)
    }),
    quantity("first event after idle, time to durable", Words::Speed, format::time, |r| {
        Some(r.idle.as_ref()?.first_event.as_ref()?.time_to_durable_ns? as f64)
    }),
    quantity("under load: offered rate", Words::Amount, format::rate, |r| Some(r.load.offered_per_s)),
    quantity("under load: achieved rate", Words::Amount, format::rate, |r| Some(r.load.achieved_per_s)),
    quantity("under load: events not accepted", Words::Amount, format::number, |r| Some(r.load.not_accepted() as f64)),
    quantity("under load: time to durable, p99", Words::Speed, format::time, |r| {
        quantile(summary::time_to_durable(r)?, 0.99)
    }),
    quantity("under load: backlog, peak (events)", Words::Amount, format::number, |r| {
        Some(r.load.backlog_peak()? as f64)
    }),
];

fn quantile(times: &crate::model::Times, q: f64) -> Option<f64> {
    (format::quantile(times, q, 1.0) != format::UNKNOWN).then(|| times.quantile_ns(q))
}

/// The table of a run that has a variant with the role `old` and at least one with the role `new`; else `None`.
pub fn table(run: &Run) -> Option<Table> {
    let groups = summary::groups(run);
    let with = |role| groups.iter().filter(move |g| g.variant.is_some_and(|v| v.role == Some(role)));
    let old = with(Role::Old).next()?;
    let new: Vec<&Group<'_>> = with(Role::New).collect();
    if new.is_empty() {
        return None;
    }
    let rows = QUANTITIES.iter().map(|quantity| quantity.row(old, &new)).collect();
    Some(Table { old: old.name.to_owned(), new: new.iter().map(|g| g.name.to_owned()).collect(), rows })
}

impl Quantity {
    fn row(&self, old: &Group<'_>, new: &[&Group<'_>]) -> TableRow {
        let median = |group: &Group<'_>| group.spread(self.read).map(|s| s.median);
        let text = |value: Option<f64>| value.map_or_else(|| NOT_MEASURED.to_owned(), self.text);
        let before = median(old);
        let after = new.iter().map(|group| {
            let value = median(group);
            let change = match (before, value) {
                (Some(before), Some(after)) => self.words.change(before, after, self.text),
                _ => format::UNKNOWN.to_owned(),
            };
            (text(value), change)
        });
        TableRow { label: self.label.to_owned(), old: text(before), new: after.collect() }
    }
}

impl Words {
    fn change(self, old: f64, new: f64, text: fn(f64) -> String) -> String {
        if old == new {
            return "the same".to_owned();
        }
        if old == 0.0 {
            return format!("up from 0 by {}", text(new));
        }
        let ratio = new / old;
        if (ratio - 1.0).abs() < SAME_WITHIN {
            return "about the same".to_owned();
        }
        let (less, more, as_much) = match self {
            Self::Speed => ("faster", "slower", "as slow"),
            Self::Amount => ("fewer", "more", "as many"),
            Self::Length => ("shorter", "longer", "as long"),
        };
        match self {
            Self::Speed if ratio <= 1.0 / MULTIPLE_FROM => format!("{} times as fast", format::number(1.0 / ratio)),
            _ if ratio >= MULTIPLE_FROM => format!("{} times {as_much}", format::number(ratio)),
            Self::Speed if ratio < 1.0 => format!("{} less time", format::percent(1.0 - ratio)),
            Self::Speed => format!("{} more time", format::percent(ratio - 1.0)),
            _ if ratio < 1.0 => format!("{} {less}", format::percent(1.0 - ratio)),
            _ => format!("{} {more}", format::percent(ratio - 1.0)),
        }
    }
}

impl TableRow {
    /// With each change in a column of its own, under [`Table::headings`].
    pub fn across(&self) -> summary::Row {
        let new = self.new.iter().flat_map(|(value, change)| [Cell::plain(value), Cell::plain(change)]);
        summary::Row { label: self.label.clone(), cells: std::iter::once(Cell::plain(&self.old)).chain(new).collect() }
    }

    /// With each change below its value, for where columns are dear.
    pub fn stacked(&self) -> summary::Row {
        let new = self.new.iter().map(|(value, change)| Cell { spread: Some(change.clone()), ..Cell::plain(value) });
        summary::Row { label: self.label.clone(), cells: std::iter::once(Cell::plain(&self.old)).chain(new).collect() }
    }
}

impl Table {
    /// Headings of the columns after the first: old, then each new one with its change.
    pub fn headings(&self) -> Vec<String> {
        let new = self.new.iter().flat_map(|name| [format!("new: {name}"), "change".to_owned()]);
        std::iter::once(format!("old: {}", self.old)).chain(new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_run_without_roles_has_no_before_and_after() {
        assert_eq!(table(&fixtures::three_modes()), None);
    }

    #[test]
    fn changes_are_put_into_words() {
        for (words, old, new, expected) in [
            (Words::Speed, 1e6, 2e5, "5 times as fast"),
            (Words::Speed, 2e5, 1e6, "5 times as slow"),
            (Words::Speed, 1e6, 8e5, "20 % less time"),
            (Words::Amount, 3600.0, 120.0, "96.7 % fewer"),
            (Words::Amount, 0.0, 12.0, "up from 0 by 12"),
            (Words::Amount, 0.0, 0.0, "the same"),
            (Words::Length, 2.0, 30.0, "15 times as long"),
            (Words::Length, 100.0, 101.0, "about the same"),
        ] {
            assert_eq!(words.change(old, new, format::number), expected);
        }
    }

    #[test]
    fn what_was_not_measured_is_said_and_never_0() {
        let mut run = fixtures::before_after();
        for result in &mut run.results {
            result.idle = None;
        }
        let table = table(&run).unwrap();
        let row = table.rows.iter().find(|r| r.label == "SQL statements per poll").unwrap();
        assert_eq!((row.old.as_str(), row.new[0].0.as_str(), row.new[0].1.as_str()), (NOT_MEASURED, NOT_MEASURED, "–"));
    }
}
