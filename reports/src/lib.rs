//! Floor 0 of the map: what a run is, how its numbers are judged, and the pages made of them. No clock, no network, no async.
//!
//! Data: [`model`], [`schema`], [`histogram`], [`arrivals`]. Judging: [`stats`], [`objective`], [`calibration`], [`capacity`], [`crash`], [`conform`],
//! [`gate`], [`caveat`], [`verdict`]. Showing: [`mod@format`] (numbers as text), [`plan`] (what was asked for, in words), [`summary`], [`trust`] and
//! [`before_after`] (rows of numbers), [`comparison`] (several results side by side), [`history`] (one after the other),
//! [`export`] (for other tools), [`table`] (terminal), [`chart`] (SVG), [`html`] (the page).

pub mod arrivals;
pub mod before_after;
pub mod calibration;
pub mod capacity;
pub mod caveat;
pub mod chart;
pub mod comparison;
pub mod conform;
pub mod crash;
pub mod export;
#[cfg(test)]
mod fixtures;
pub mod format;
pub mod gate;
pub mod histogram;
pub mod history;
pub mod html;
pub mod model;
pub mod objective;
pub mod plan;
pub mod schema;
pub mod stats;
pub mod summary;
pub mod table;
pub mod trust;
pub mod verdict;
