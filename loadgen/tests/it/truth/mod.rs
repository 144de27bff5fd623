//! What the harness reports against what is true: the real program against a server whose faults are known, the truth worked out here
//! by other means than either of them uses.

mod ledger;
mod outcomes;
mod rule;
mod server;
mod simulation;
mod stall;
mod times;
mod webhooks;
