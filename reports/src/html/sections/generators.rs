//! The part about who sent a load that several generators offered together.

use maud::html;

use super::Section;
use crate::html::number_table;
use crate::merge;
use crate::model::Run;
use crate::summary::{Cell, Row};

pub fn generators(run: &Run) -> Option<Section> {
    run.shards.first()?;
    let headings: Vec<String> = merge::HEADINGS.iter().map(|&heading| heading.to_owned()).collect();
    let machine = |part: &crate::model::ShardResult| {
        let environment = &part.environment;
        Row {
            label: merge::part_name(&part.shard),
            cells: vec![
                Cell::plain(environment.cpu_model.clone()),
                Cell::plain(environment.cores.to_string()),
                Cell::plain(environment.kernel.clone()),
            ],
        }
    };
    let machines: Vec<Row> = run.shards.iter().map(machine).collect();
    Some(Section {
        id: "generators",
        title: "The generators",
        how_to_read: "Each sent its own part of one schedule, and all numbers above are of all parts together: histograms were added, percentiles \
                      were not. The clock offset is what a generator's clock lacks of the target's; p50 and p99 are of the response time. What one of \
                      them saw amiss of itself stands under caveats with its name; parts that differ much had different machines, or ways to the \
                      server.",
        body: html! {
            (number_table(&headings, &merge::rows(run)))
            h3 { "Their machines" }
            (number_table(&["processor", "cores", "kernel"].map(str::to_owned), &machines))
        },
    })
}
