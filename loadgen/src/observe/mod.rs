//! What is seen of the target, the database and the machine from outside, while the load runs and while nothing does.

pub mod idle;
pub mod machine;
pub mod postgres;
pub mod process;
pub mod prometheus;
