//! The sentinel: the small parent of the agent that outlives it, holds the deadline of the lease
//! and performs every start of an exclusive resource.
//!
//! What it decides is in [`oarlock_core::sentinel`]; here is the process around it, and the
//! agent's side of their socket, [`SentinelHandle`].

mod client;
mod frame;

pub use client::{SentinelError, SentinelHandle};
