//! Floor 0 of the map: what a run is, how its numbers are judged, and the pages made of them. No clock, no network, no async.

pub mod model;
