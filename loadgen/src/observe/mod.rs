//! What is seen of the target, the database and the machine from outside, and of the generator from inside.

pub mod health;
pub mod hiccup;
pub mod machine;
pub mod postgres;
pub mod process;
pub mod processors;
pub mod prometheus;
pub mod rows;
pub mod threads;
