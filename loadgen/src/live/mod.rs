//! The live view (`--tui`): what is measured, while it is measured.
//!
//! It must not disturb that. Everything it shows is there anyway: the running numbers that the recording thread leaves four times a second for
//! the progress line, what the control thread reads of the target's metrics, and the stalls that the hiccup meters count. It is drawn five
//! times a second on the control thread, which sends nothing; the sending thread has no lock, no allocation and no call more than without
//! it.
//!
//! [`view`] is what is known, without a terminal and without a clock; [`screen`] draws it; [`terminal`] has the terminal and its keys,
//! and gives it back on every way out.

pub mod screen;
pub mod terminal;
pub mod view;
