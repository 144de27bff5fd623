//! Floor 3 of the map: the benches (one file per hot module), and the tests that the map and the rules of size are true.
//!
//! A picture of the structure that nothing checks is soon a picture of something else.

#[cfg(test)]
mod map;
