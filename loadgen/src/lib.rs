//! Floor 2 of the map: the load generator. Everything but `serve` meets the server over HTTP.

pub mod clock;
pub mod connection;
pub mod pace;
pub mod payload;
pub mod pool;
pub mod recorder;
pub mod schedule;
pub mod send;
