//! Processors and memory over time, and the stalls of the machine.

use crate::chart::{Axis, Chart, Series};
use crate::format;
use crate::model::{Run, Stall, TargetResult, UsageSample};
use crate::summary::groups;

use super::{by_repetition, describe, log_axis};

/// Stalls drawn of each repetition, the longest.
const STALLS_DRAWN: usize = 25;

/// Processor time of the server, as a share of one core, between two looks; stalls of the machine in the first repetition as ticks below.
pub fn server_cpu(run: &Run) -> Option<Chart> {
    cpu(run, "server-cpu", "Processor time of the server", |sample| sample.server_cpu_s)
}

/// Processor time of the generator, as a share of one core.
pub fn generator_cpu(run: &Run) -> Option<Chart> {
    cpu(run, "generator-cpu", "Processor time of the generator", |sample| sample.generator_cpu_s)
}

fn cpu(run: &Run, id: &str, title: &str, read: fn(&UsageSample) -> Option<f64>) -> Option<Chart> {
    let points = |r: &TargetResult| {
        let between = |pair: &[UsageSample]| {
            let seconds = pair[1].offset_ms.saturating_sub(pair[0].offset_ms) as f64 / 1e3;
            let used_s = (read(&pair[1])? - read(&pair[0])?).max(0.0);
            (seconds > 0.0).then(|| (middle_s(pair), used_s / seconds))
        };
        r.resources.over_time.windows(2).filter_map(between).collect()
    };
    let label = "share of one core";
    let chart = over_time(run, id, title, points, |v| format::percent(*v))?;
    let highest = peak(&chart);
    Some(Chart { y: Axis::linear(label, highest.max(0.01), format::percent), ..chart })
}

/// Resident memory of the server.
pub fn server_memory(run: &Run) -> Option<Chart> {
    let points = |r: &TargetResult| {
        let of = |sample: &UsageSample| Some((sample.offset_ms as f64 / 1e3, sample.server_rss_bytes? as f64 / MIB));
        r.resources.over_time.iter().filter_map(of).collect()
    };
    let text = |v: &f64| format::bytes(*v * MIB);
    let chart = over_time(run, "server-memory", "Memory of the server", points, text)?;
    let highest = peak(&chart);
    Some(Chart { y: Axis::linear("MiB", highest.max(1.0), format::number), ..chart })
}

const MIB: f64 = 1024.0 * 1024.0;

fn middle_s(pair: &[UsageSample]) -> f64 {
    (pair[0].offset_ms + pair[1].offset_ms) as f64 / 2e3
}

fn peak(chart: &Chart) -> f64 {
    chart.series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max)
}

fn over_time(
    run: &Run,
    id: &str,
    title: &str,
    points: impl Fn(&TargetResult) -> Vec<(f64, f64)>,
    text: impl Fn(&f64) -> String,
) -> Option<Chart> {
    let mut series = by_repetition(run, points, &text);
    let end = series.iter().flat_map(|s| s.points.last()).map(|point| point.0).fold(0.0, f64::max);
    for group in groups(run) {
        let hiccups = group.results.first().and_then(|r| r.health.as_ref()?.hiccups.as_ref());
        let stalls: Vec<f64> = hiccups.iter().flat_map(|h| &h.stalls).map(|s| s.offset_ns as f64 / 1e9).collect();
        let named = series.iter_mut().find(|series| series.name == group.name && !series.is_repeat);
        named.into_iter().for_each(|series| series.rug = stalls.iter().copied().filter(|at| *at <= end).collect());
    }
    Some(Chart {
        id: id.to_owned(),
        title: title.to_owned(),
        description: describe(&series, &text)?,
        x: Axis::span("time since the steady phase began", end, format::seconds),
        y: Axis::linear("", 1.0, format::number),
        series,
        level: None,
        rug_label: "stalls of the machine, 1 ms and longer".to_owned(),
    })
}

/// The longest stalls of the machine, each as a point: when, and how long.
pub fn stalls(run: &Run) -> Option<Chart> {
    let (mut series, mut end) = (Vec::new(), 0.0_f64);
    for (style, group) in groups(run).iter().enumerate() {
        let watched =
            group.results.iter().filter_map(|r| Some((r, r.health.as_ref()?, r.health.as_ref()?.hiccups.as_ref()?)));
        let mut markers = Vec::new();
        for (result, health, hiccups) in watched {
            end = end.max(result.load.seconds.min(health.seconds));
            let mut longest: Vec<&Stall> = hiccups.stalls.iter().collect();
            longest.sort_by_key(|stall| std::cmp::Reverse(stall.length_ns));
            markers.extend(
                longest.into_iter().take(STALLS_DRAWN).map(|stall| stall_marker(group.name, result.repetition, stall)),
            );
        }
        if !markers.is_empty() {
            series.push(Series { markers, ..Series::line(group.name, style, Vec::new()) });
        }
    }
    let y = log_axis(series.iter().flat_map(|s| &s.markers).map(|m| m.1))?;
    let spoken = series.iter().map(|s| {
        let longest = s.markers.iter().map(|m| m.1).fold(0.0, f64::max);
        format!("{}: {} drawn, the longest {}", s.name, s.markers.len(), format::time(longest))
    });
    Some(Chart {
        id: "stalls".to_owned(),
        title: "Idle threads that woke late: the machine stood still, or ran others".to_owned(),
        description: spoken.collect::<Vec<_>>().join("; "),
        x: Axis::span("time since the steady phase began", end, format::seconds),
        y: Axis { label: "length".to_owned(), ..y },
        series,
        level: None,
        rug_label: String::new(),
    })
}

fn stall_marker(name: &str, repetition: u32, stall: &Stall) -> (f64, f64, String) {
    let core = stall.core.map(|core| format!(" on core {core}")).unwrap_or_default();
    let waited =
        stall.waited_ns.map(|ns| format!(", {} of it while others ran", format::time_ns(ns))).unwrap_or_default();
    let (at, length) = (format::time_ns(stall.offset_ns), format::time_ns(stall.length_ns));
    let text = format!("{name} #{repetition} at {at}: {length}{core}{waited}");
    (stall.offset_ns as f64 / 1e9, stall.length_ns as f64, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn processor_time_is_what_was_used_between_two_looks() {
        let mut run = fixtures::three_modes();
        let sample = |offset_ms, cpu_s| UsageSample { offset_ms, server_cpu_s: Some(cpu_s), ..UsageSample::default() };
        run.results[0].resources.over_time = vec![sample(0, 7.0), sample(500, 7.1), sample(1_000, 7.5)];
        let chart = server_cpu(&run).unwrap();
        let series = chart.series.iter().find(|series| series.name == "null" && !series.is_repeat).unwrap();
        let points: Vec<(f64, i64)> =
            series.points.iter().map(|(at, share)| (*at, (share * 100.0).round() as i64)).collect();
        assert_eq!(points, [(0.25, 20), (0.75, 80)]);
    }

    #[test]
    fn the_stalls_of_the_machine_are_ticks_below() {
        let run = fixtures::three_modes();
        let chart = server_memory(&run).unwrap();
        let named = chart.series.iter().filter(|series| !series.is_repeat);
        assert!(named.clone().count() == 3 && named.clone().all(|series| series.rug == [1.733]));
        assert!(chart.series.iter().filter(|series| series.is_repeat).all(|series| series.rug.is_empty()));
    }

    #[test]
    fn what_nobody_looked_at_is_not_drawn() {
        let mut run = fixtures::three_modes();
        run.results.iter_mut().for_each(|r| r.resources.over_time.clear());
        assert!(server_cpu(&run).is_none() && generator_cpu(&run).is_none() && server_memory(&run).is_none());
    }
}
