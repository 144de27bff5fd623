//! What is seen of the target, the database and the machine from outside.

pub mod machine;
pub mod postgres;
pub mod process;
pub mod prometheus;
