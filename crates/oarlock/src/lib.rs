//! The shell of oarlock: everything that touches the operating system.

pub mod agents;
pub mod causes;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod deploy;
pub mod enrol;
#[doc(hidden)]
pub mod fuzzing;
pub mod keys;
pub mod network;
pub mod notify;
pub mod process;
pub mod profiles;
pub mod runtime;
pub mod secrets;
pub mod sentinel;
pub mod sql;
pub mod store;
pub mod transport;
