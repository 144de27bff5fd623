//! Whether a change made a server worse, decided on pairs of rounds by statistics that hold on a noisy machine. Pure: no clock, no chance.
//!
//! The unit is a **round**: a fresh process on fresh data, warmed up and measured. A round of the baseline and one of the candidate under
//! the same load make a **pair**; what is judged are the log ratios of pairs, never single requests, of which those of one round share
//! everything that made this round what it was. [`rule`] is what is fixed before the first round, [`rank`] the statistics, [`metric`] what can
//! be judged, [`judge`] what follows, [`model`] the data, [`mod@file`] their text, [`show`] what people see of them, [`stored`] baselines from a
//! file, and [`trials`] what a gate that is tested itself did.

pub mod file;
pub mod judge;
pub mod metric;
pub mod model;
pub mod rank;
pub mod rule;
pub mod show;
pub mod stored;
#[cfg(test)]
mod tests;
pub mod trials;
