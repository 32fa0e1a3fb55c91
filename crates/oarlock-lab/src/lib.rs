//! The lab: real processes on namespace hosts.

pub mod client;
pub mod history;
pub mod stats;
