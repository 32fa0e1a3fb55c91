//! Processes: their groups, their priorities, their memory, and the clock they are timed by.

mod sys;

pub(crate) use sys::{bind_packet, watch};
