//! Processes: their groups, their priorities, their memory, and the clock they are timed by.

pub mod cgroup;
pub mod clock;
pub mod identity;
pub mod realtime;
pub(crate) mod spawn;
mod sys;

pub use sys::inherited;
pub(crate) use sys::{Ended, Forked, bind_packet, exit, fork, ignore_no_signals, peek_child, signal_descriptor, watch};
