//! Where the time goes: mean response times of a variant as bars of their parts.

use crate::bars::{Bars, Part, Row};
use crate::breakdown::{self, Breakdown};
use crate::chart::Axis;
use crate::format;
use crate::model::Run;
use crate::summary::groups;

const SEND_DELAY: usize = 0;
const CONNECTION_WAIT: usize = 1;
const SERVICE: usize = 2;
const TARGET: usize = 3;
const UNDERWAY: usize = 4;
/// Names of the parts, in the order in which they happen; a service time of which nothing is known is one part.
const KINDS: [&str; 5] = ["send delay", "connection wait", "service", "… in the server", "… network and kernel"];

/// One drawing a variant that has times; one of all of them where nothing is known but the means of all requests.
pub fn bars(run: &Run) -> Vec<Bars> {
    let groups = groups(run);
    let broken_down = groups.iter().map(|group| (group.name, breakdown::of(&group.results)));
    let broken_down: Vec<(&str, Vec<Breakdown>)> = broken_down.filter(|(_, found)| !found.is_empty()).collect();
    if broken_down.len() > 1 && broken_down.iter().all(|(_, found)| found.len() == 1) {
        let all: Vec<Breakdown> = broken_down.iter().map(|(_, found)| found[0]).collect();
        let rows = broken_down.iter().map(|(name, found)| row(name, &found[0]));
        return vec![drawing(0, "All requests, by variant", &all, rows.collect())];
    }
    let drawings = broken_down.iter().enumerate().map(|(place, (name, found))| {
        drawing(place, name, found, found.iter().map(|breakdown| row(breakdown.name, breakdown)).collect())
    });
    drawings.collect()
}

fn drawing(place: usize, title: &str, found: &[Breakdown], rows: Vec<Row>) -> Bars {
    let kinds = if knows_target(found) { &KINDS[..] } else { &KINDS[..TARGET] };
    Bars {
        id: format!("parts-{place}"),
        title: title.to_owned(),
        x: Axis::linear("share of the mean response time", 1.0, format::percent),
        kinds: kinds.iter().map(|name| (*name).to_owned()).collect(),
        rows,
        levels: Vec::new(),
    }
}

fn knows_target(found: &[Breakdown]) -> bool {
    found.iter().any(|breakdown| breakdown.target_ns.is_some())
}

fn row(name: &str, breakdown: &Breakdown) -> Row {
    let response_ns = breakdown.response_time_ns();
    let part = |kind: usize, ns: f64| {
        let share = ns / response_ns.max(1.0);
        let text =
            format!("{} {} ({})", KINDS[kind].trim_start_matches("… "), format::time(ns), format::percent(share));
        Part {
            kind,
            length: share,
            label: format!("{} {}", KINDS[kind].trim_start_matches("… "), format::time(ns)),
            text,
        }
    };
    let mut parts =
        vec![part(SEND_DELAY, breakdown.send_delay_ns), part(CONNECTION_WAIT, breakdown.connection_wait_ns)];
    match breakdown.target_ns {
        Some(target_ns) => {
            parts.extend([part(TARGET, target_ns), part(UNDERWAY, breakdown.service_time_ns - target_ns)]);
        }
        None => parts.push(part(SERVICE, breakdown.service_time_ns)),
    }
    parts.retain(|part| part.length > 0.0);
    Row { name: name.to_owned(), total: format::time(response_ns), parts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_parts_of_each_row_are_the_whole_response_time() {
        let drawn = bars(&fixtures::three_modes());
        assert_eq!(drawn.len(), 3);
        for row in drawn.iter().flat_map(|bars| &bars.rows) {
            let sum: f64 = row.parts.iter().map(|part| part.length).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{row:?}");
        }
    }

    #[test]
    fn variants_of_which_only_the_means_are_known_are_drawn_beside_one_another() {
        let mut run = fixtures::three_modes();
        run.results.iter_mut().for_each(|r| r.load.parts.clear());
        let drawn = bars(&run);
        let names: Vec<&str> = drawn[0].rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!((drawn.len(), names), (1, vec!["null", "cache-first", "db-first"]));
    }

    #[test]
    fn what_the_server_says_is_a_part_only_of_all_requests_and_only_where_it_says_it() {
        let mut run = fixtures::three_modes();
        let told = |bars: &Bars| bars.rows.iter().map(|row| row.parts.iter().any(|part| part.kind == TARGET)).collect();
        let before: Vec<bool> = told(&bars(&run)[1]);
        assert_eq!(before, [true, false, false, false]);
        run.results.iter_mut().for_each(|r| r.load.target_time = None);
        let bars = &bars(&run)[1];
        assert_eq!((told(bars), bars.kinds.len()), (vec![false; 4], 3));
    }
}
