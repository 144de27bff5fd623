//! Where the time goes: what the response times of a variant are made of, on average and where they are slow.
//!
//! Quantiles of parts do not add up to a quantile of the whole: the slowest hundredth of the send delays need not be that of the
//! slowest answers. So these are means, of all requests or of those whose response time lies between two quantiles, and means add up.

use crate::histogram::TIME_NS_MAX;
use crate::model::{TargetResult, TimeParts};
use crate::stats;

/// What the target says of itself has to rest on this share of the requests, or it is of others.
const TARGET_COUNT_SHARE_MIN: f64 = 0.5;

/// Means over some requests, ns; their sum is the mean response time of these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breakdown {
    /// Of which requests.
    pub name: &'static str,
    /// The tool's own fault.
    pub send_delay_ns: f64,
    /// Every connection was busy.
    pub connection_wait_ns: f64,
    /// Sent → answered.
    pub service_time_ns: f64,
    /// Of the service time, what the target says it took; known of all requests together only.
    pub target_ns: Option<f64>,
}

impl Breakdown {
    /// Mean response time, ns.
    pub fn response_time_ns(&self) -> f64 {
        self.send_delay_ns + self.connection_wait_ns + self.service_time_ns
    }
}

/// Adds up what response times are made of, those together that differ by less than a quarter of a doubling.
#[derive(Debug, Clone, Default)]
pub struct PartsByTime {
    entries: Vec<TimeParts>,
}

impl PartsByTime {
    /// Adds one request, ns.
    pub fn record(&mut self, send_delay_ns: u64, connection_wait_ns: u64, service_time_ns: u64) {
        let response_time_ns = (send_delay_ns + connection_wait_ns + service_time_ns).clamp(4, TIME_NS_MAX);
        let doublings = response_time_ns.ilog2() as usize - 2;
        let quarter = (response_time_ns >> doublings) - 4;
        let place = 4 * doublings + quarter as usize;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, TimeParts::default());
        }
        let entry = &mut self.entries[place];
        entry.response_time_ns_below = (5 + quarter) << doublings;
        entry.requests += 1;
        entry.send_delay_ns += send_delay_ns;
        entry.connection_wait_ns += connection_wait_ns;
        entry.service_time_ns += service_time_ns;
    }

    /// Those that hold anything.
    pub fn finish(self) -> Vec<TimeParts> {
        self.entries.into_iter().filter(|entry| entry.requests > 0).collect()
    }
}

/// What [`Breakdown::name`] is of the first.
const ALL: &str = "all requests";

/// Requests by rank of their response time: name, from, to.
const RANGES: [(&str, f64, f64); 3] =
    [("around p50 (p45–p55)", 0.45, 0.55), ("around p90 (p85–p95)", 0.85, 0.95), ("p99 and slower", 0.99, 1.0)];

/// Of all repetitions together: of all requests, and of those around p50, around p90 and beyond p99, as far as there are enough of
/// them. Empty when there are no times.
pub fn of(results: &[&TargetResult]) -> Vec<Breakdown> {
    let parts = merged(results);
    let all = all(results, &parts);
    let ranges = RANGES.into_iter().filter_map(|(name, from, to)| between(&parts, name, from, to));
    all.into_iter().chain(ranges).collect()
}

/// From the sums where they are known, else from the distributions of the parts.
fn all(results: &[&TargetResult], parts: &[TimeParts]) -> Option<Breakdown> {
    let target_ns = target_ns(results);
    let known = between(parts, ALL, 0.0, 1.0).or_else(|| {
        let loads = || results.iter().map(|r| &r.load).filter(|load| load.service_time.count > 0);
        let requests = loads().map(|load| load.service_time.count).sum::<u64>() as f64;
        // The connection wait is that of those who waited.
        let mean = |read: fn(&crate::model::Load) -> &crate::model::Times| {
            loads().map(|load| read(load).mean_ns * read(load).count as f64).sum::<f64>() / requests
        };
        (requests > 0.0).then(|| Breakdown {
            name: ALL,
            send_delay_ns: mean(|load| &load.send_delay),
            connection_wait_ns: mean(|load| &load.connection_wait),
            service_time_ns: mean(|load| &load.service_time),
            target_ns: None,
        })
    })?;
    // A target whose clock says more than was measured around it has measured something else.
    let target_ns = target_ns.filter(|target_ns| *target_ns <= known.service_time_ns);
    Some(Breakdown { target_ns, ..known })
}

/// Mean over the repetitions of what the target said; `None` unless it said it of all of them.
fn target_ns(results: &[&TargetResult]) -> Option<f64> {
    let told = |result: &&TargetResult| {
        let told = result.load.target_time?;
        let enough = told.requests as f64 >= TARGET_COUNT_SHARE_MIN * result.load.outcomes.accepted as f64;
        enough.then_some((told.mean_ns * told.requests as f64, told.requests as f64))
    };
    let told: Option<Vec<(f64, f64)>> = results.iter().map(told).collect();
    let (sum, count) = told?.into_iter().fold((0.0, 0.0), |(sum, count), (ns, n)| (sum + ns, count + n));
    (count > 0.0).then(|| sum / count)
}

/// All repetitions together, ascending; empty unless all of them have been added up.
fn merged(results: &[&TargetResult]) -> Vec<TimeParts> {
    let measured = || results.iter().filter(|r| r.load.service_time.count > 0);
    if measured().any(|r| r.load.parts.is_empty()) {
        return Vec::new();
    }
    added(measured().flat_map(|r| r.load.parts.iter().copied()))
}

/// Those together whose response times are alike, ascending.
pub fn added(parts: impl Iterator<Item = TimeParts>) -> Vec<TimeParts> {
    let mut all: Vec<TimeParts> = parts.collect();
    all.sort_by_key(|parts| parts.response_time_ns_below);
    let mut merged: Vec<TimeParts> = Vec::new();
    for one in all {
        match merged.last_mut().filter(|last| last.response_time_ns_below == one.response_time_ns_below) {
            Some(last) => {
                last.requests += one.requests;
                last.send_delay_ns += one.send_delay_ns;
                last.connection_wait_ns += one.connection_wait_ns;
                last.service_time_ns += one.service_time_ns;
            }
            None => merged.push(one),
        }
    }
    merged
}

/// Of the requests from rank share `from` to `to`. Those of an entry that lies across a border count with the share that lies inside.
fn between(parts: &[TimeParts], name: &'static str, from: f64, to: f64) -> Option<Breakdown> {
    let count = parts.iter().map(|parts| parts.requests).sum::<u64>() as f64;
    let (low, high) = (from * count, to * count);
    if high - low < stats::SAMPLES_BEYOND_TO_PRINT as f64 {
        return None;
    }
    let (mut sums, mut rank) = ([0.0; 3], 0.0);
    for parts in parts.iter().filter(|parts| parts.requests > 0) {
        let requests = parts.requests as f64;
        let inside = ((rank + requests).min(high) - low.max(rank)).max(0.0) / requests;
        rank += requests;
        let of = [parts.send_delay_ns, parts.connection_wait_ns, parts.service_time_ns];
        sums.iter_mut().zip(of).for_each(|(sum, ns)| *sum += inside * ns as f64);
    }
    let [send_delay_ns, connection_wait_ns, service_time_ns] = sums.map(|sum| sum / (high - low));
    Some(Breakdown { name, send_delay_ns, connection_wait_ns, service_time_ns, target_ns: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::model::TargetTime;

    fn parts(below: u64, requests: u64, send_delay_ns: u64, service_time_ns: u64) -> TimeParts {
        TimeParts {
            response_time_ns_below: below,
            requests,
            send_delay_ns: requests * send_delay_ns,
            connection_wait_ns: 0,
            service_time_ns: requests * service_time_ns,
        }
    }

    #[test]
    fn times_that_are_alike_are_added_up_below_a_common_bound() {
        let mut parts = PartsByTime::default();
        for service_time_ns in [0, 900, 1_000, 1_100, u64::MAX >> 20] {
            parts.record(10, 5, service_time_ns);
        }
        let found: Vec<(u64, u64)> =
            parts.finish().iter().map(|parts| (parts.response_time_ns_below, parts.requests)).collect();
        // 15; 915 and 1 015; 1 115; above one hour.
        assert_eq!(found, [(16, 1), (1_024, 2), (1_280, 1), (3_848_290_697_216, 1)]);
    }

    #[test]
    fn the_slow_ones_are_told_apart_from_the_usual_ones() {
        let mut result = fixtures::small().results[0].clone();
        // One in a hundred is slow, and not for the server's sake.
        result.load.parts = vec![parts(256, 990, 10, 200), parts(2_048, 10, 1_500, 250)];
        let found = of(&[&result]);
        let of = |name: &str| found.iter().find(|breakdown| breakdown.name == name).unwrap();
        assert_eq!(
            (of("around p50 (p45–p55)").send_delay_ns, of("around p50 (p45–p55)").service_time_ns),
            (10.0, 200.0)
        );
        assert!((of("p99 and slower").send_delay_ns - 1_500.0).abs() < 1e-6, "{found:?}");
        assert!((of(ALL).response_time_ns() - (0.99 * 210.0 + 0.01 * 1_750.0)).abs() < 1e-6);
    }

    #[test]
    fn repetitions_are_added_up_and_too_few_requests_are_left_out() {
        let mut one = fixtures::small().results[0].clone();
        one.load.parts = vec![parts(256, 100, 10, 200)];
        let mut two = one.clone();
        two.load.parts = vec![parts(256, 300, 30, 200), parts(512, 0, 0, 0)];
        let found = of(&[&one, &two]);
        assert_eq!(
            found.iter().map(|b| b.name).collect::<Vec<_>>(),
            [ALL, "around p50 (p45–p55)", "around p90 (p85–p95)"]
        );
        assert!((found[0].send_delay_ns - 25.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_result_that_added_nothing_up_has_the_means_of_its_distributions() {
        let mut result = fixtures::small().results[1].clone();
        result.load.parts.clear();
        let load = &result.load;
        let found = of(&[&result]);
        assert_eq!(found.len(), 1);
        let expected = load.send_delay.mean_ns + load.service_time.mean_ns;
        assert!((found[0].response_time_ns() / expected - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_the_target_says_is_believed_only_of_as_many_requests_and_of_less_than_was_measured() {
        let mut result = fixtures::small().results[1].clone();
        let service_ns = result.load.service_time.mean_ns;
        let accepted = result.load.outcomes.accepted;
        for (requests, mean_ns, is_believed) in [
            (accepted, service_ns / 2.0, true),
            (accepted / 3, service_ns / 2.0, false),
            (accepted, service_ns * 2.0, false),
        ] {
            result.load.target_time = Some(TargetTime { requests, mean_ns });
            assert_eq!(of(&[&result])[0].target_ns.is_some(), is_believed, "{requests} of {mean_ns} ns");
        }
    }
}
