//! Floor 0 of the map: what a run is, how its numbers are judged, and the pages made of them. No clock, no network, no async.

pub mod caveat;
#[cfg(test)]
mod fixtures;
pub mod format;
pub mod histogram;
pub mod model;
pub mod objective;
pub mod schema;
pub mod stats;
pub mod verdict;
