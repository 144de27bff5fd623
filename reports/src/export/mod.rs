//! A run in the formats of other tools. Each is made from `run.v1` alone, and each is read by a reader that is not ours in the tests.

mod junit;

pub use self::junit::junit;
