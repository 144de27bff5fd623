//! The parts of a merged result as rows: one a generator.

use crate::format;
use crate::model::{ClockOffset, Run, ShardResult, Times};
use crate::summary::{Cell, Row};

/// Of [`rows`].
pub const HEADINGS: [&str; 8] =
    ["clock offset", "accepted", "p50", "p99", "send delay p99", "lost, doubled", "sender busy", "by itself"];

/// A row for each part.
pub fn rows(run: &Run) -> Vec<Row> {
    run.shards.iter().map(row).collect()
}

fn row(part: &ShardResult) -> Row {
    let unknown = || Cell::plain(format::UNKNOWN);
    let ledger = part.lost.zip(part.duplicated).map_or_else(unknown, |(lost, duplicated)| Cell {
        is_fault: lost + duplicated > 0,
        ..Cell::plain(format!("{}, {}", format::count(lost), format::count(duplicated)))
    });
    let busy = part.health.as_ref().and_then(|health| health.sender_busy_share);
    Row {
        label: super::part_name(&part.shard),
        cells: vec![
            part.shard.clock.as_ref().map_or_else(unknown, |clock| Cell::plain(offset(clock))),
            Cell::plain(format!("{} of {}", format::count(part.outcomes.accepted), format::count(part.planned))),
            quantile(&part.response_time, 0.5),
            quantile(&part.response_time, 0.99),
            quantile(&part.send_delay, 0.99),
            ledger,
            busy.map_or_else(unknown, |share| Cell::plain(format::percent(share))),
            Cell::plain(part.verdict.outcome.word()),
        ],
    }
}

/// `+1.2 ms ± 0.4 ms`: what its clock lacks.
fn offset(clock: &ClockOffset) -> String {
    let sign = if clock.offset_ns < 0 { "−" } else { "+" };
    let (offset, uncertainty) = (clock.offset_ns.unsigned_abs(), clock.uncertainty_ns);
    format!("{sign}{} ± {}", format::time_ns(offset), format::time_ns(uncertainty))
}

fn quantile(times: &Times, q: f64) -> Cell {
    Cell::plain(format::quantile(times, q, times.quantile_ns(q)))
}
