//! Floor 4 of the map: the benches (one file per hot module), the tests that the map and the rules of size are true, and
//! the fuzz targets over their seeds.
//!
//! A picture of the structure that nothing checks is soon a picture of something else.

use clap::Parser;
use server::auth;
use server::config::Settings;
use server::store::KeyRow;
use uuid::Uuid;

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "says which seed a failure came from")]
mod corpus;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod map;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// Settings of a server with these flags, and a rate limit that no bench reaches.
pub fn settings(flags: &[&str]) -> Settings {
    let unlimited = ["--rate-limit-enterprise-per-minute", "1000000000"];
    Flags::parse_from([&["server"], flags, &unlimited[..]].concat()).settings
}

/// The row of an organisation that has this key.
pub fn enterprise(key: &str) -> KeyRow {
    KeyRow {
        key_hash: auth::hash(key.as_bytes()),
        organization_id: Uuid::from_u128(1),
        organization_name: "bench".to_owned(),
        tier: "enterprise".to_owned(),
        created_at_us: 0,
    }
}
