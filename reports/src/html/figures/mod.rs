//! What is drawn of a run: data → [`Chart`] and the other drawings. The style of a line is the place of its variant in the plan, on every
//! chart that has a line a variant.

pub mod heat;
pub mod idle;
pub mod ledger;
pub mod machine;
pub mod parts;

use crate::calibration;
use crate::capacity::{self, Point};
use crate::chart::{Axis, Chart, Level, Series};
use crate::format;
use crate::histogram::TimeHistogram;
use crate::model::{Arrivals, Capacity, DurableInterval, Interval, Run, TargetResult};
use crate::stats;
use crate::summary::{self, Group, Quantity, groups};

/// Steps of the percentile curve for each factor of ten of samples.
const STEPS_PER_DECADE: f64 = 24.0;

/// Samples beyond a quantile that it takes to draw it for one second. Fewer than for a number that stands alone, since the
/// seconds beside it show how much it moves.
const SAMPLES_BEYOND_TO_DRAW: u64 = 3;

/// Quantiles that get a marker.
const MARKED: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Percentile curves of a distribution, one a variant, of all repetitions merged; and the floor's, where it is known.
pub fn percentiles(run: &Run, id: &str, title: &str, quantity: Quantity) -> Option<Chart> {
    let (groups, read) = (groups(run), quantity.read);
    let merged = groups.iter().enumerate().filter_map(|(style, g)| Some((style, g, g.merged(read)?)));
    let merged: Vec<(usize, &Group<'_>, TimeHistogram)> = merged.collect();
    let count = merged.iter().map(|(_, _, h)| h.count()).max()?;
    let series = merged.iter().map(|(style, group, histogram)| {
        let censored = group.results.iter().filter_map(|r| read(r)).map(|t| t.censored + t.overflowed).sum();
        curve(*style, group.name, histogram, censored)
    });
    let floor = calibration::floor(run).zip(quantity.floor).and_then(|(floor, read)| {
        let histogram = read(floor).histogram().ok().filter(|histogram| histogram.count() > 0)?;
        Some(curve(groups.len(), summary::FLOOR, &histogram, read(floor).censored))
    });
    let series: Vec<Series> = series.chain(floor).collect();
    let y = log_axis(series.iter().flat_map(|s| s.points.iter().chain(&s.faint)).map(|p| p.1))?;
    let spoken = merged.iter().map(|(_, g, h)| {
        format!("{}: p50 {}, p99 {}", g.name, format::time_ns(h.quantile(0.5)), format::time_ns(h.quantile(0.99)))
    });
    Some(Chart {
        id: id.to_owned(),
        title: title.to_owned(),
        description: spoken.collect::<Vec<_>>().join("; "),
        x: Axis::tail("quantile (each step: ten times rarer)", count, format::quantile_name),
        y,
        series,
        level: None,
        rug_label: String::new(),
    })
}

/// Response time, service time and send delay of one variant, of all repetitions merged, and the response time of the floor, where it is
/// known. `place` tells the variants of a run apart.
pub fn times(run: &Run, place: usize, group: &Group<'_>) -> Option<Chart> {
    let kinds = [summary::RESPONSE_TIME, summary::SERVICE_TIME, summary::SEND_DELAY];
    let merged = kinds.iter().enumerate().filter_map(|(style, kind)| Some((style, kind, group.merged(kind.read)?)));
    let merged: Vec<(usize, &Quantity, TimeHistogram)> = merged.collect();
    let count = merged.iter().map(|(.., histogram)| histogram.count()).max()?;
    let of_group = merged.iter().map(|(style, kind, histogram)| {
        let censored = group.results.iter().filter_map(|r| (kind.read)(r)).map(|t| t.censored + t.overflowed).sum();
        curve(*style, kind.name, histogram, censored)
    });
    let floor = floor_beside(run, group).map(|histogram| curve(kinds.len(), summary::FLOOR, &histogram, 0));
    let series: Vec<Series> = of_group.chain(floor).collect();
    let y = log_axis(series.iter().flat_map(|s| s.points.iter().chain(&s.faint)).map(|p| p.1))?;
    let spoken = merged.iter().map(|(_, kind, h)| {
        format!("{}: p50 {}, p99 {}", kind.name, format::time_ns(h.quantile(0.5)), format::time_ns(h.quantile(0.99)))
    });
    Some(Chart {
        id: format!("curves-{place}"),
        title: format!("{}: response time and its parts", group.name),
        description: spoken.collect::<Vec<_>>().join("; "),
        x: Axis::tail("quantile (each step: ten times rarer)", count, format::quantile_name),
        y,
        series,
        level: None,
        rug_label: String::new(),
    })
}

/// Response times of the floor for a variant that is not the floor itself: the calibration's, or those of the plan's own null server.
fn floor_beside(run: &Run, group: &Group<'_>) -> Option<TimeHistogram> {
    if let Some(floor) = calibration::floor(run) {
        return floor.response_time.histogram().ok().filter(|histogram| histogram.count() > 0);
    }
    let is_null = |group: &Group<'_>| group.variant.is_some_and(|variant| variant.mode.as_deref() == Some("null"));
    let null = groups(run).into_iter().find(is_null).filter(|_| !is_null(group))?;
    null.merged(summary::response_time)
}

pub fn curve(style: usize, name: &str, histogram: &TimeHistogram, censored: u64) -> Series {
    let count = histogram.count();
    let sure = |q: f64| {
        stats::samples_beyond(count, q) >= stats::SAMPLES_BEYOND_TO_PRINT && !stats::is_lower_bound(count, censored, q)
    };
    let steps = ((count.max(2) as f64).log10() * STEPS_PER_DECADE).ceil() as u32;
    let all = (0..=steps)
        .map(|i| 1.0 - 10_f64.powf(-f64::from(i) / STEPS_PER_DECADE))
        .map(|q| q.min(1.0 - 1.0 / count as f64));
    let points = |qs: Vec<f64>| qs.into_iter().map(|q| (q, histogram.quantile(q) as f64)).collect::<Vec<_>>();
    let (solid, faint): (Vec<f64>, Vec<f64>) = all.partition(|q| sure(*q));
    let faint = solid.last().copied().into_iter().chain(faint).collect();
    let markers = MARKED.into_iter().filter(|q| sure(*q)).map(|q| {
        let ns = histogram.quantile(q);
        (q, ns as f64, format!("{name} {}: {}", format::quantile_name(q), format::time_ns(ns)))
    });
    Series { faint: points(faint), markers: markers.collect(), ..Series::line(name, style, points(solid)) }
}

/// Room for 0 below the smallest time, as a factor.
const ZERO_BELOW: f64 = 2.5;

/// Of times; 0, which has no place on a logarithmic axis, has a line of its own below all others.
pub fn log_axis(values: impl Iterator<Item = f64>) -> Option<Axis> {
    let (positive, others): (Vec<f64>, Vec<f64>) = values.partition(|v| *v > 0.0);
    let low = positive.iter().copied().reduce(f64::min)?;
    let high = positive.iter().copied().reduce(f64::max)?;
    let mut axis = Axis::log("time", low, high, format::time);
    if !others.is_empty() {
        axis.min /= ZERO_BELOW;
        axis.ticks.insert(0, (axis.min, format::time(0.0)));
    }
    Some(axis)
}

/// Response time against rate, both logarithmic: medians by rate as lines, trials that failed, the capacity and the knee as points.
pub fn capacity(place: usize, found: &Capacity) -> Option<Chart> {
    let curve = capacity::curve(&found.trials);
    let line = |name: &str, style: usize, read: fn(&Point) -> f64| {
        Series::line(name, style, curve.iter().map(|point| (point.rate_per_s, read(point))).collect())
    };
    let marks = |name: &str, style: usize, markers: Vec<(f64, f64, String)>| {
        (!markers.is_empty()).then(|| Series { markers, ..Series::line(name, style, Vec::new()) })
    };
    let at = |name: &str, style: usize, rate: Option<f64>, read: fn(&Point) -> f64| {
        let point = curve.iter().find(|point| Some(point.rate_per_s) == rate)?;
        let (rate, ns) = (point.rate_per_s, read(point));
        marks(name, style, vec![(rate, ns, format!("{name}: {}, {}", format::rate(rate), format::time(ns)))])
    };
    let failed =
        found.trials.iter().filter(|t| !t.held && !t.is_saturated && t.response_time_ns_p99 > 0).map(|trial| {
            let text = format!("{} failed: {}", format::rate(trial.rate_per_s), trial.reasons.join("; "));
            (trial.rate_per_s, trial.response_time_ns_p99 as f64, text)
        });
    let points = [
        marks("failed", 5, failed.collect()), // On the other line: where both are the same rate, neither hides the other.
        at("knee", 4, found.knee_per_s, |point| point.p50_ns),
        at("capacity", 3, found.rate_per_s, |point| point.p99_ns),
    ];
    let series: Vec<Series> = [line("p50", 0, |point| point.p50_ns), line("p99", 1, |point| point.p99_ns)]
        .into_iter()
        .chain(points.into_iter().flatten())
        .collect();
    let y = log_axis(series.iter().flat_map(|s| s.points.iter().map(|p| p.1).chain(s.markers.iter().map(|m| m.1))))?;
    let (low, high) = (curve.first()?.rate_per_s, curve.last()?.rate_per_s);
    Some(Chart {
        id: format!("capacity-{place}"),
        title: format!("{}: response time against rate", found.variant),
        description: capacity::sentence(found),
        x: Axis::log("offered rate", low, high, format::rate),
        y,
        series,
        level: None,
        rug_label: String::new(),
    })
}

/// Accepted events per second over the steady phase, against the offered rate.
pub fn rate(run: &Run) -> Option<Chart> {
    let per_s = |i: &Interval| Some(i.outcomes.accepted as f64 * 1000.0 / i.length_ms.max(1) as f64);
    let mut chart = over_time(run, "rate", "Accepted events per second", per_s, |v| format::rate(*v))?;
    chart.level = offered(run);
    let levels = chart.level.iter().flat_map(|level| &level.points);
    let largest = chart.series.iter().flat_map(|s| &s.points).chain(levels).map(|p| p.1).fold(0.0, f64::max);
    chart.y = Axis::linear("events per second", largest * 1.05, format::number);
    Some(chart)
}

/// The offered rate: one number where it does not change, else what was planned second by second (of one repetition: the others
/// are offered the same shape).
fn offered(run: &Run) -> Option<Level> {
    let plan = &run.plan;
    if plan.arrivals == Arrivals::Closed || plan.rate_per_s <= 0.0 {
        return None;
    }
    if plan.shape.is_none() && plan.replay.is_none() {
        let name = format!("offered: {}", format::rate(plan.rate_per_s));
        return Some(Level { points: vec![(0.0, plan.rate_per_s)], name });
    }
    let intervals = run.results.iter().map(|r| &r.load.intervals).find(|intervals| !intervals.is_empty())?;
    let per_s = |i: &Interval| i.planned as f64 * 1000.0 / i.length_ms.max(1) as f64;
    let name = format!("offered: {} on average", format::rate(plan.rate_per_s));
    Some(Level { points: intervals.iter().map(|i| (middle_s(i), per_s(i))).collect(), name })
}

fn middle_s(interval: &Interval) -> f64 {
    (interval.offset_ms as f64 + interval.length_ms as f64 / 2.0) / 1000.0
}

/// Quantile `q` of the response time, second by second.
pub fn response_over_time(run: &Run, q: f64) -> Option<Chart> {
    let name = format::quantile_name(q);
    let read = |i: &Interval| {
        let enough = stats::samples_beyond(i.response_time.count, q) >= SAMPLES_BEYOND_TO_DRAW;
        enough.then(|| i.response_time.quantile_ns(q))
    };
    let title = format!("Response time {name}, second by second");
    let mut chart = over_time(run, &format!("response-{name}"), &title, read, |v| format::time(*v))?;
    chart.y = log_axis(chart.series.iter().flat_map(|s| &s.points).map(|p| p.1))?;
    Some(chart)
}

/// One line a repetition; the first of each variant has the name and the markers.
fn over_time(
    run: &Run,
    id: &str,
    title: &str,
    read: impl Fn(&Interval) -> Option<f64>,
    text: impl Fn(&f64) -> String,
) -> Option<Chart> {
    let points = |r: &TargetResult| {
        r.load.intervals.iter().filter_map(|i| Some((middle_s(i), read(i)?))).collect::<Vec<(f64, f64)>>()
    };
    let series = by_repetition(run, points, &text);
    let end =
        run.results.iter().flat_map(|r| r.load.intervals.last()).map(|i| (i.offset_ms + i.length_ms) as f64 / 1000.0);
    Some(Chart {
        id: id.to_owned(),
        title: title.to_owned(),
        description: describe(&series, &text)?,
        x: Axis::span("time since the steady phase began", end.fold(0.0, f64::max), format::seconds),
        y: Axis::linear("", 1.0, format::number),
        series,
        level: None,
        rug_label: String::new(),
    })
}

fn by_repetition(
    run: &Run,
    points: impl Fn(&TargetResult) -> Vec<(f64, f64)>,
    text: &impl Fn(&f64) -> String,
) -> Vec<Series> {
    let mut all = Vec::new();
    for (style, group) in groups(run).iter().enumerate() {
        for result in group.results.iter().rev() {
            let points = points(result);
            let is_repeat = result.repetition != group.results[0].repetition;
            if points.is_empty() {
                continue;
            }
            let every = (points.len() / 6).max(1);
            let markers = points.iter().skip(every / 2).step_by(every).filter(|_| !is_repeat);
            let markers =
                markers.map(|(x, y)| (*x, *y, format!("{} at {}: {}", group.name, format::seconds(*x), text(y))));
            let markers = markers.collect();
            all.push(Series { markers, is_repeat, ..Series::line(group.name, style, points) });
        }
    }
    all.sort_by_key(|s| !s.is_repeat);
    all
}

/// The range of each named line; `None` when there is no line.
fn describe(series: &[Series], text: impl Fn(&f64) -> String) -> Option<String> {
    let spoken = series.iter().filter(|s| !s.is_repeat).map(|s| {
        let values = s.points.iter().map(|p| p.1);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        format!("{}: between {} and {}", s.name, text(&low), text(&high))
    });
    let spoken: Vec<String> = spoken.collect();
    (!spoken.is_empty()).then(|| spoken.join("; "))
}

/// Quantile 0.99 of the time to durable, by the second in which events were acknowledged.
pub fn durable_over_time(run: &Run) -> Option<Chart> {
    let points = |r: &TargetResult| {
        let durable = r.ledger.as_ref().and_then(|ledger| ledger.time_to_durable.as_ref());
        let enough = |i: &&DurableInterval| stats::samples_beyond(i.events, 0.99) >= SAMPLES_BEYOND_TO_DRAW;
        let point = |i: &DurableInterval| (i.offset_ms as f64 / 1000.0 + 0.5, i.p99_ns as f64);
        durable.iter().flat_map(|durable| &durable.intervals).filter(enough).map(point).collect::<Vec<_>>()
    };
    let text = |v: &f64| format::time(*v);
    let series = by_repetition(run, points, &text);
    let y = log_axis(series.iter().flat_map(|s| &s.points).map(|point| point.1))?;
    let end = run.results.iter().map(|r| r.load.seconds).fold(0.0, f64::max);
    Some(Chart {
        id: "durable-over-time".to_owned(),
        title: "Time to durable p99, second by second".to_owned(),
        description: describe(&series, text)?,
        x: Axis::span("time since the steady phase began", end, format::seconds),
        y,
        series,
        level: None,
        rug_label: String::new(),
    })
}

/// Acknowledged and not yet persisted events over time, the drain included.
pub fn backlog(run: &Run) -> Option<Chart> {
    let points = |r: &TargetResult| {
        r.load.backlog.iter().map(|s| (s.offset_ms as f64 / 1000.0, s.pending_events as f64)).collect::<Vec<_>>()
    };
    let text = |v: &f64| format::counted(*v as u64, "event");
    let series = by_repetition(run, points, &text);
    let all = || series.iter().flat_map(|s| &s.points);
    let (end, peak) = all().fold((0.0_f64, 0.0_f64), |(e, p), (x, y)| (e.max(*x), p.max(*y)));
    Some(Chart {
        id: "backlog".to_owned(),
        title: "Events acknowledged and not yet persisted".to_owned(),
        description: describe(&series, text)?,
        x: Axis::span("time since the steady phase began", end, format::seconds),
        y: Axis::linear("events", peak.max(1.0), format::number),
        series,
        level: None,
        rug_label: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, model};

    #[test]
    fn a_curve_is_faint_where_it_rests_on_too_few_samples_or_on_lower_bounds() {
        let chart = percentiles(&fixtures::three_modes(), "c", "", summary::RESPONSE_TIME).unwrap();
        let (solid, faint) = (chart.series[1].points.last().unwrap().0, chart.series[1].faint.first().unwrap().0);
        assert!(solid == faint && solid > 0.998 && solid < 0.9998, "{solid}");
        let chart = percentiles(&fixtures::lying_server(), "c", "", summary::RESPONSE_TIME).unwrap();
        assert!(chart.series[0].points.last().unwrap().0 < 0.987);
    }

    #[test]
    fn a_time_of_zero_has_a_line_of_its_own_below_all_others() {
        let axis = log_axis([0.0, 2e3, 1e6].into_iter()).unwrap();
        assert_eq!((axis.ticks[0].1.as_str(), axis.ticks[1].1.as_str()), ("0", "1 µs"));
        assert_eq!((axis.share(0.0), axis.ticks[0].0), (0.0, axis.min));
        assert_eq!(log_axis([2e3, 1e6].into_iter()).unwrap().ticks[0].1, "1 µs");
    }

    #[test]
    fn the_repetitions_of_a_variant_share_style_and_are_named_once() {
        let chart = rate(&fixtures::three_modes()).unwrap();
        assert_eq!(chart.series.iter().filter(|s| s.is_repeat).count(), 3);
        assert_eq!(chart.series.iter().filter(|s| !s.is_repeat).map(|s| s.style).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_load_that_changes_is_compared_with_what_was_planned_in_each_second() {
        let mut run = fixtures::small();
        assert_eq!(rate(&run).unwrap().level.unwrap().points, [(0.0, 400.0)]);
        run.plan.shape = Some(model::Shape::Ramp { from_per_s: 0.0, to_per_s: 800.0 });
        let planned: Vec<f64> = run.results[0].load.intervals.iter().map(|i| i.planned as f64).collect();
        let level = rate(&run).unwrap().level.unwrap();
        assert_eq!(level.points.iter().map(|p| p.1).collect::<Vec<_>>(), planned);
        assert_eq!(level.points[1].0, 1.5);
    }

    #[test]
    fn the_time_to_durable_is_drawn_where_a_second_has_enough_events_for_it() {
        let mut run = fixtures::lying_server();
        assert_eq!(durable_over_time(&run).unwrap().series[0].points.len(), 11);
        let durable = run.results[0].ledger.as_mut().unwrap().time_to_durable.as_mut().unwrap();
        durable.intervals[3].events = 200;
        let points = &durable_over_time(&run).unwrap().series[0].points;
        assert!(points.len() == 10 && points.iter().all(|point| point.0 != 3.5), "{points:?}");
    }

    #[test]
    fn the_times_of_a_variant_stand_on_the_floor_whoever_measured_it() {
        let names = |run: &Run| -> Vec<Vec<String>> {
            let groups = groups(run);
            let charts = groups.iter().enumerate().filter_map(|(place, group)| times(run, place, group));
            charts.map(|chart| chart.series.into_iter().map(|series| series.name).collect()).collect()
        };
        let own = vec!["response time", "service time", "send delay"];
        let on_floor = [own.clone(), vec![summary::FLOOR]].concat();
        assert_eq!(names(&fixtures::three_modes()), [own.clone(), on_floor.clone(), on_floor.clone()]);
        let mut run = fixtures::lying_server();
        assert_eq!(names(&run), [on_floor]);
        run.calibration = None;
        assert_eq!(names(&run), [own]);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let run = fixtures::dead_target();
        assert!(percentiles(&run, "c", "", summary::RESPONSE_TIME).is_none());
        assert!(
            rate(&run).is_none()
                && response_over_time(&run, 0.5).is_none()
                && idle::stair(&run).is_none()
                && parts::bars(&run).is_empty()
                && backlog(&run).is_none()
                && durable_over_time(&run).is_none()
        );
    }
}
