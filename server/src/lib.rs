//! Floor 1 of the map: the reference event-ingestion server.

pub mod app;
pub mod auth;
pub mod body;
pub mod cache_counters;
pub mod claims;
pub mod config;
pub mod dedup;
pub mod event;
pub mod http;
pub mod idempotency;
pub mod ingest;
pub mod limits;
pub mod metrics;
pub mod offload;
pub mod openapi;
pub mod parse;
pub mod pending;
pub mod problem;
pub mod routes;
pub mod store;
pub mod wire;
pub mod writer;
