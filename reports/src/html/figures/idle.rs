//! The idle phase: the stair of poll intervals, each SQL statement, and how many an hour that makes.

use crate::bars::{self, Bars, Part, Row};
use crate::chart::{Axis, Chart, Series, Shape};
use crate::format;
use crate::model::{Idle, IdleSample, Run};
use crate::summary::groups;

use super::{describe, log_axis};

/// The stair of poll intervals in the idle phase, and each SQL statement as a tick; of the first repetition.
pub fn stair(run: &Run) -> Option<Chart> {
    let mut series = Vec::new();
    let mut end = 0.0_f64;
    for (style, group) in groups(run).iter().enumerate() {
        let idle = group.results.first().and_then(|r| r.idle.as_ref()).filter(|i| !i.samples.is_empty());
        let Some(idle) = idle else { continue };
        let points = idle.samples.iter().map(|s| (s.offset_ms as f64 / 1000.0, s.poll_interval_ms * 1e6));
        let mut points: Vec<(f64, f64)> = points.collect();
        points.dedup_by(|later, earlier| later.1 == earlier.1);
        let text =
            |p: &(f64, f64)| format!("{} polls every {} from {}", group.name, format::time(p.1), format::seconds(p.0));
        let markers = points.iter().map(|p| (p.0, p.1, text(p))).take(40).collect();
        points.extend(points.last().map(|last| (idle.seconds, last.1)));
        end = end.max(idle.seconds);
        let rug = statement_times(&idle.samples);
        series.push(Series { markers, shape: Shape::Stair, rug, ..Series::line(group.name, style, points) });
    }
    let y = log_axis(series.iter().flat_map(|s| &s.points).map(|p| p.1))?;
    Some(Chart {
        id: "idle-stair".to_owned(),
        title: "Poll interval while nothing happens".to_owned(),
        description: describe(&series, |v| format::time(*v))?,
        x: Axis::span("time since the idle phase began", end, format::seconds),
        y: Axis { label: "poll interval".to_owned(), ..y },
        series,
        level: None,
        rug_label: "SQL statements".to_owned(),
    })
}

/// When statements ran, s: at the sample that first counts them, or spread evenly before it when it counts several.
fn statement_times(samples: &[IdleSample]) -> Vec<f64> {
    let mut times = Vec::new();
    for pair in samples.windows(2) {
        let new = pair[1].sql_statements.saturating_sub(pair[0].sql_statements).min(1000);
        let (from, to) = (pair[0].offset_ms as f64, pair[1].offset_ms as f64);
        times.extend((1..=new).map(|i| (from + (to - from) * i as f64 / new as f64) / 1000.0));
    }
    times
}

/// SQL statements an hour, in the window and once in deep idle, a bar a variant, against the bound that the plan sets.
pub fn statements_per_hour(run: &Run) -> Option<Bars> {
    let row = |name: String, kind: usize, per_hour: f64| {
        let total = format::in_unit(per_hour, "per_hour");
        let part = Part { kind: 2 + kind, length: per_hour, label: String::new(), text: format!("{name}: {total}") };
        Row { name, total, parts: vec![part] }
    };
    let groups = groups(run);
    let mut rows = Vec::new();
    for group in &groups {
        let median = |read: fn(&Idle) -> Option<f64>| group.spread(|r| read(r.idle.as_ref()?)).map(|s| s.median);
        let (window, deep) =
            (median(|idle| idle.sql_statements_per_hour), median(|idle| idle.sql_statements_per_hour_deep_idle));
        rows.extend(window.map(|per_hour| row(group.name.to_owned(), 0, per_hour)));
        rows.extend(deep.map(|per_hour| row(format!("{}, once in deep idle", group.name), 1, per_hour)));
    }
    let levels = bounds(run);
    let lengths = rows.iter().flat_map(|row| &row.parts).map(|part| part.length);
    let largest = lengths.chain(levels.iter().map(|level| level.value)).fold(1.0, f64::max);
    (!rows.is_empty()).then(|| Bars {
        id: "idle-sql".to_owned(),
        title: "SQL statements an hour".to_owned(),
        x: Axis::linear("statements an hour", largest, format::number),
        kinds: Vec::new(),
        rows,
        levels,
    })
}

/// What the objectives allow.
fn bounds(run: &Run) -> Vec<bars::Level> {
    let of_statements = run.objectives.iter().filter(|o| o.expression.contains("idle.sql_statements_per_hour"));
    let mut levels: Vec<bars::Level> = of_statements
        .filter_map(|o| Some(bars::Level { value: o.bound?, name: format!("objective: {}", o.expression) }))
        .collect();
    levels.dedup();
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::model::ObjectiveResult;

    #[test]
    fn each_statement_of_the_idle_phase_is_a_tick() {
        let run = fixtures::before_after();
        let chart = stair(&run).unwrap();
        for (series, result) in chart.series.iter().zip(&run.results) {
            assert_eq!(Some(series.rug.len() as u64), result.idle.as_ref().unwrap().sql_statements);
        }
    }

    #[test]
    fn a_stair_has_a_step_for_each_interval_however_often_it_was_looked_at() {
        let mut run = fixtures::before_after();
        let idle = run.results[0].idle.as_mut().unwrap();
        let sample = idle.samples[1];
        idle.samples = (0..10_000).map(|i| IdleSample { offset_ms: i * 200, ..sample }).collect();
        assert_eq!(stair(&run).unwrap().series[0].points.len(), 2);
    }

    #[test]
    fn every_policy_has_its_statements_an_hour_beside_what_the_plan_allows() {
        let mut run = fixtures::before_after();
        run.objectives.push(ObjectiveResult {
            expression: "idle.sql_statements_per_hour <= 4000/h".to_owned(),
            variant: "db-first/fixed".to_owned(),
            value: None,
            values: Vec::new(),
            bound: Some(4_000.0),
            unit: "per_hour".to_owned(),
            met: None,
            note: None,
        });
        let bars = statements_per_hour(&run).unwrap();
        let names: Vec<&str> = bars.rows.iter().map(|row| row.name.as_str()).collect();
        let expected = [
            "db-first/fixed",
            "cache-first/adaptive",
            "cache-first/adaptive, once in deep idle",
            "cache-first/wake",
            "cache-first/wake, once in deep idle",
        ];
        assert_eq!(names, expected);
        assert_eq!((bars.levels.len(), bars.levels[0].value), (1, 4_000.0));
        assert!(bars.x.max >= 4_000.0);
        assert!(statements_per_hour(&fixtures::lying_server()).is_none());
    }
}
