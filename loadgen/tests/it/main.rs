//! The program as a whole, from its command line to its files: one binary, so that what the tests share is compiled once.

mod bad_targets;
mod calibrate;
mod capacity;
mod command_line;
mod conform;
mod crash;
mod gate;
#[cfg(target_os = "linux")]
mod health;
mod http2;
mod load_models;
mod profiles;
mod proxy;
mod reference;
mod support;
mod surroundings;
mod truth;
mod wire;
