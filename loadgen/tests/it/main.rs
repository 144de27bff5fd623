//! The program as a whole, from its command line to its files: one binary, so that what the tests share is compiled once.

mod bad_targets;
mod calibrate;
mod capacity;
mod cluster;
mod command_line;
mod conform;
mod crash;
mod docs;
mod gate;
#[cfg(target_os = "linux")]
mod health;
mod history;
mod http2;
#[cfg(target_os = "linux")]
mod live;
mod load_models;
#[path = "../../../otlp/tests/receiver/mod.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the tests of the exporter and of the server")]
mod otlp_receiver;
mod profiles;
mod proxy;
mod reference;
mod scale;
mod shards;
mod support;
mod surroundings;
mod telemetry;
mod truth;
mod wire;
