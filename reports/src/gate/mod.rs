//! Whether a change made a server worse, decided on pairs of rounds by statistics that hold on a noisy machine. Pure: no clock, no chance.
//!
//! The unit is a **round**: a fresh process on fresh data, warmed up and measured. A round of the baseline and one of the candidate under
//! the same load make a **pair**; what is judged are the log ratios of pairs, never single requests, of which those of one round share
//! everything that made this round what it was. [`rule`] is what is fixed before the first round, [`rank`] the statistics, [`metric`] what can
//! be judged, [`judge`] what follows, [`model`] the data.

pub mod judge;
pub mod metric;
pub mod model;
pub mod rank;
pub mod rule;
#[cfg(test)]
mod tests;
