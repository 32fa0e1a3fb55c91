//! From machines as they are to a running cluster, and back: what is found on them, what is to be done, in
//! which order, and how one sees that it is done.
//!
//! Everything here is pure. Facts come from a script that changes nothing, a plan is a list of steps with
//! their scripts; `cli/deploy.rs` brings both to the machines.

pub mod edits;
pub mod facts;
pub mod plan;
mod server;
pub mod step;
#[cfg(test)]
mod tests;
pub mod undo;

pub use facts::{Facts, FactsError, SCRIPT};
pub use plan::{Plan, Wish, plan};
pub use step::{Act, Step};
pub use undo::undo;
