//! Floor 2 of the map: the load generator. [`serve`] alone knows the server's code; everything else meets a target over HTTP.
//!
//! Read [`send`] first: it is what the rest is there for.

pub mod blocks;
pub mod calibrate;
pub mod capacity;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod conform;
pub mod connection;
pub mod crash;
pub mod curve;
pub mod dialect;
pub mod exchange;
pub mod gate;
pub mod history;
pub mod http1;
pub mod http2;
pub mod idle;
pub mod ledger;
pub mod measure;
pub mod nearest;
pub mod observe;
pub mod pace;
pub mod payload;
pub mod plan;
pub mod pointer;
pub mod poller;
pub mod pool;
pub mod profile;
pub mod progress;
pub mod receiver;
pub mod recorder;
pub mod reference;
pub mod replay;
pub mod requests;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod search;
pub mod send;
pub mod serve;
pub mod steady;
pub mod stream;
pub mod target;
pub mod tls;
