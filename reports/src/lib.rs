//! Floor 0 of the map: what a run is, how its numbers are judged, and the pages made of them. No clock, no network, no async.
//!
//! Data: [`model`], [`schema`], [`histogram`], [`arrivals`]. Judging: [`stats`], [`objective`], [`calibration`], [`capacity`], [`crash`], [`conform`],
//! [`gate`], [`caveat`], [`verdict`]. Showing: [`mod@format`] (numbers as text), [`plan`] (what was asked for, in words), [`summary`], [`trust`] and
//! [`before_after`] (rows of numbers), [`breakdown`] (where the time goes), [`likeness`] (what must be the same for that), [`comparison`] (several results side by side), [`merge`] (the parts of one load), [`history`] (one after
//! the other), [`export`] (for other tools), [`table`] (terminal), [`chart`], [`heat`], [`flow`], [`bars`] and [`forest`] (SVG), [`embed`] (data and
//! script in a page), [`html`] (the page).

pub mod arrivals;
pub mod bars;
pub mod before_after;
pub mod breakdown;
pub mod calibration;
pub mod capacity;
pub mod caveat;
pub mod chart;
pub mod comparison;
pub mod conform;
pub mod crash;
pub mod embed;
pub mod export;
#[cfg(test)]
mod fixtures;
pub mod flow;
pub mod forest;
pub mod format;
pub mod gate;
pub mod heat;
pub mod histogram;
pub mod history;
pub mod html;
pub mod likeness;
pub mod merge;
pub mod model;
pub mod objective;
pub mod plan;
pub mod schema;
pub mod stats;
pub mod summary;
pub mod table;
pub mod trust;
pub mod verdict;
