//! Floor 1 of the map: the reference event-ingestion server.

pub mod config;
pub mod event;
pub mod metrics;
pub mod pending;
pub mod polling;
pub mod processor;
pub mod store;
