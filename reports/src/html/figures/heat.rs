//! Response time over time as a heat map, one a variant: the seconds of all its repetitions, one after the other.

use std::collections::BTreeMap;

use crate::chart::Axis;
use crate::format;
use crate::heat::{Cell, HeatMap, Line, shades};
use crate::histogram::TimeHistogram;
use crate::model::{Interval, Run, TargetResult};
use crate::stats;
use crate::summary::{Group, groups};

/// Columns of all maps of a page together, and of each.
const COLUMNS_OF_PAGE_MAX: usize = 240;
const COLUMNS_MAX: usize = 60;
const COLUMNS_MIN: usize = 12;
/// Rows that fit; fewer to a factor of ten when there are more factors of ten.
const ROWS_MAX: f64 = 26.0;
const ROWS_PER_DECADE: [u32; 7] = [10, 8, 6, 5, 4, 3, 2];
/// The lines on a map.
const LINES: [f64; 2] = [0.5, 0.99];

/// Some seconds of one repetition together.
struct Column {
    repetition: u32,
    /// From and to, s after the begin of its repetition's steady phase.
    span_s: (f64, f64),
    /// Where its repetition begins on the map, s.
    begin_s: f64,
    counts: BTreeMap<i32, u64>,
    quantiles_ns: [Option<f64>; LINES.len()],
    max_ns: u64,
}

/// One map a variant that has response times by the second; all have the same rows and shades, so that they can be compared.
pub fn response_time(run: &Run) -> Vec<HeatMap> {
    let groups = groups(run);
    let measured: Vec<(usize, &Group<'_>)> =
        groups.iter().enumerate().filter(|(_, group)| group.results.iter().any(|r| has_histograms(r))).collect();
    let Some((low_ns, high_ns)) = range(&measured) else { return Vec::new() };
    let rows_per_decade = rows_per_decade(low_ns, high_ns);
    let columns_max = (COLUMNS_OF_PAGE_MAX / measured.len()).clamp(COLUMNS_MIN, COLUMNS_MAX);
    let maps: Vec<(usize, &Group<'_>, Vec<Column>)> = measured
        .into_iter()
        .map(|(place, group)| (place, group, columns(group, columns_max, rows_per_decade)))
        .filter(|(_, _, columns)| !columns.is_empty())
        .collect();
    let counts = || maps.iter().flat_map(|(.., columns)| columns).flat_map(|column| &column.counts);
    let edge = |row: i32| 10_f64.powf(f64::from(row) / f64::from(rows_per_decade));
    let (Some(lowest), Some(highest)) = (counts().map(|c| *c.0).min(), counts().map(|c| *c.0).max()) else {
        return Vec::new();
    };
    let y = Axis::log("response time", edge(lowest), edge(highest + 1), format::time);
    let shades = shades(counts().map(|c| *c.1).max().unwrap_or(1));
    let edges = |row: i32| (edge(row), edge(row + 1));
    maps.iter()
        .map(|(place, group, columns)| HeatMap {
            id: format!("heat-{place}"),
            title: format!("{}: response time over time", group.name),
            description: description(columns),
            x: time_axis(columns),
            y: y.clone(),
            cells: columns.iter().flat_map(|column| cells(column, &edges)).collect(),
            lines: (0..LINES.len()).map(|place| line(columns, place)).collect(),
            borders: begins(columns).skip(1).map(|(_, begin_s)| begin_s).collect(),
            shades: shades.clone(),
        })
        .collect()
}

fn has_histograms(result: &TargetResult) -> bool {
    result.load.intervals.iter().any(|interval| !interval.response_time.histogram.is_empty())
}

/// Smallest and largest response time of all; `None`: there is none.
fn range(measured: &[(usize, &Group<'_>)]) -> Option<(f64, f64)> {
    let times = || {
        let results = measured.iter().flat_map(|(_, group)| &group.results);
        results.flat_map(|r| &r.load.intervals).map(|i| &i.response_time).filter(|times| times.count > 0)
    };
    let low = times().map(|times| if times.min_ns > 0 { times.min_ns } else { times.p50_ns.max(1) }).min()?;
    let high = times().map(|times| times.max_ns.max(times.p50_ns)).max()?;
    Some((low as f64, (high as f64).max(low as f64)))
}

fn rows_per_decade(low_ns: f64, high_ns: f64) -> u32 {
    let decades = (high_ns / low_ns).log10();
    let fits = |per_decade: &u32| decades * f64::from(*per_decade) <= ROWS_MAX - 1.0;
    ROWS_PER_DECADE.into_iter().find(fits).unwrap_or(1)
}

/// The seconds of each repetition in as many equal columns as may be, all repetitions one after the other.
fn columns(group: &Group<'_>, columns_max: usize, rows_per_decade: u32) -> Vec<Column> {
    let seconds: usize = group.results.iter().map(|r| r.load.intervals.len()).sum();
    let seconds_each = seconds.div_ceil(columns_max).max(1);
    let mut columns = Vec::new();
    let mut begin_s = 0.0;
    for result in &group.results {
        for intervals in result.load.intervals.chunks(seconds_each) {
            columns.extend(column(result.repetition, begin_s, intervals, rows_per_decade));
        }
        begin_s += result.load.intervals.last().map_or(0.0, end_s);
    }
    columns
}

fn end_s(interval: &Interval) -> f64 {
    (interval.offset_ms + interval.length_ms) as f64 / 1e3
}

fn column(repetition: u32, begin_s: f64, intervals: &[Interval], rows_per_decade: u32) -> Option<Column> {
    let mut merged = TimeHistogram::new();
    let readable = intervals.iter().filter_map(|interval| interval.response_time.histogram().ok());
    readable.for_each(|histogram| merged.merge(&histogram));
    let mut counts = BTreeMap::new();
    for (ns, count) in merged.iter() {
        let row = (ns.max(1) as f64).log10() * f64::from(rows_per_decade);
        *counts.entry((row + 1e-9).floor() as i32).or_default() += count;
    }
    let censored = intervals.iter().map(|i| i.response_time.censored).sum::<u64>();
    let sure = |q: f64| {
        let enough = stats::samples_beyond(merged.count(), q) >= super::SAMPLES_BEYOND_TO_DRAW;
        (enough && !stats::is_lower_bound(merged.count(), censored, q)).then(|| merged.quantile(q) as f64)
    };
    Some(Column {
        repetition,
        span_s: (intervals.first()?.offset_ms as f64 / 1e3, end_s(intervals.last()?)),
        begin_s,
        quantiles_ns: LINES.map(sure),
        max_ns: merged.max(),
        counts,
    })
}

impl Column {
    fn x(&self) -> (f64, f64) {
        (self.begin_s + self.span_s.0, self.begin_s + self.span_s.1)
    }

    /// `#2, 3 s–4 s`.
    fn name(&self) -> String {
        format!("#{}, {}–{}", self.repetition, format::seconds(self.span_s.0), format::seconds(self.span_s.1))
    }
}

/// Number and begin of each repetition.
fn begins(columns: &[Column]) -> impl Iterator<Item = (u32, f64)> + '_ {
    let mut last = None;
    columns
        .iter()
        .map(|column| (column.repetition, column.begin_s))
        .filter(move |(_, begin_s)| last.replace(*begin_s) != Some(*begin_s))
}

fn time_axis(columns: &[Column]) -> Axis {
    let end = columns.last().map_or(1.0, |column| column.x().1);
    let begins: Vec<(u32, f64)> = begins(columns).collect();
    let mut axis = Axis::span("time since the steady phase began", end, format::seconds);
    if begins.len() > 1 {
        axis.label = format!("repetitions of {}, one after the other", format::seconds(begins[1].1));
        axis.ticks = begins.iter().map(|(repetition, begin_s)| (*begin_s, format!("#{repetition}"))).collect();
    }
    axis
}

fn cells(column: &Column, edges: &impl Fn(i32) -> (f64, f64)) -> Vec<Cell> {
    let cell = |(row, count): (&i32, &u64)| {
        let y = edges(*row);
        let (from, to) = (format::time(y.0), format::time(y.1));
        let text = format!("{}, {from}–{to}: {}", column.name(), format::counted(*count, "event"));
        Cell { x: column.x(), y, count: *count, text }
    };
    column.counts.iter().map(cell).collect()
}

fn line(columns: &[Column], place: usize) -> Line {
    let mut parts: Vec<Vec<(f64, f64, f64)>> = Vec::new();
    let mut last_end = f64::NAN;
    let mut last_repetition = None;
    for column in columns {
        let ((from, to), Some(value)) = (column.x(), column.quantiles_ns[place]) else { continue };
        let goes_on = from == last_end && last_repetition == Some(column.repetition);
        match parts.last_mut().filter(|_| goes_on) {
            Some(part) => part.push((from, to, value)),
            None => parts.push(vec![(from, to, value)]),
        }
        (last_end, last_repetition) = (to, Some(column.repetition));
    }
    Line { name: format::quantile_name(LINES[place]), parts }
}

/// The range of each line, and when it was slowest.
fn description(columns: &[Column]) -> String {
    let ranges = LINES.iter().enumerate().filter_map(|(place, q)| {
        let values = || columns.iter().filter_map(move |column| column.quantiles_ns[place]);
        let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        Some(format!("{} between {} and {}", format::quantile_name(*q), format::time(low), format::time(high)))
    });
    let slowest = columns.iter().max_by_key(|column| column.max_ns);
    let slowest = slowest.map(|c| format!("the slowest event took {}, in {}", format::time_ns(c.max_ns), c.name()));
    ranges.chain(slowest).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_event_is_in_a_cell_of_its_second_and_the_maps_can_be_compared() {
        let run = fixtures::three_modes();
        let maps = response_time(&run);
        assert_eq!(maps.len(), 3);
        for (map, name) in maps.iter().zip(["null", "cache-first", "db-first"]) {
            let results = run.results.iter().filter(|r| r.target == name);
            let events: u64 = results.map(|r| r.load.response_time.count).sum();
            assert_eq!(map.cells.iter().map(|cell| cell.count).sum::<u64>(), events, "{name}");
            assert!(map.title.starts_with(name) && map.y == maps[0].y && map.shades == maps[0].shades);
            // Two repetitions of 12 s.
            assert_eq!((map.borders.as_slice(), map.x.max), (&[12.0][..], 24.0));
        }
    }

    #[test]
    fn a_long_run_of_many_variants_has_no_more_columns_than_the_page_can_bear() {
        let mut run = fixtures::lying_server();
        let second = run.results[0].load.intervals[0].clone();
        let second_at = |second_ms: u64| Interval { offset_ms: second_ms * 1_000, ..second.clone() };
        run.results[0].load.intervals = (0..300).map(second_at).collect();
        let result = run.results[0].clone();
        run.results = (0..10).map(|n| TargetResult { target: format!("v{n}"), ..result.clone() }).collect();
        run.plan.variants.clear();
        let maps = response_time(&run);
        let columns = |map: &HeatMap| {
            let mut columns: Vec<u64> = map.cells.iter().map(|cell| cell.x.0 as u64).collect();
            columns.dedup();
            columns.len()
        };
        assert_eq!(maps.iter().map(columns).sum::<usize>(), 10 * 24);
        assert!(maps.iter().map(|map| map.render().into_string().len()).sum::<usize>() < 600_000);
    }

    #[test]
    fn no_line_is_drawn_through_too_few_events_or_events_that_timed_out() {
        let run = fixtures::lying_server();
        let map = &response_time(&run)[0];
        // More than one in a hundred is not answered: where p99 is, nobody knows.
        let drawn = |line: &Line| line.parts.iter().map(Vec::len).sum::<usize>();
        assert_eq!(drawn(&map.lines[0]), 11);
        assert!(drawn(&map.lines[1]) < 11, "{:?}", map.lines);
        assert!(map.description.contains("the slowest event took"), "{}", map.description);
    }

    #[test]
    fn rows_become_coarser_the_more_factors_of_ten_they_have_to_span() {
        assert_eq!([1e2, 1e4, 1e8, 1e10].map(|times| rows_per_decade(1e3, 1e3 * times)), [10, 6, 3, 2]);
    }

    #[test]
    fn without_seconds_there_is_no_map() {
        assert!(response_time(&fixtures::dead_target()).is_empty());
    }
}
