//! Processes: their groups, their priorities, their memory, and the clock they are timed by.

pub mod cgroup;
pub mod clock;
pub mod identity;
pub mod realtime;
pub(crate) mod spawn;
mod sys;

pub use sys::inherited;
pub(crate) use sys::{Forked, bind_packet, fork, ignore_no_signals, signal_descriptor, watch};
