//! The lab: real processes on namespace hosts.

pub mod client;
pub mod history;
pub mod plot;
pub mod report;
pub mod results;
pub mod stats;
