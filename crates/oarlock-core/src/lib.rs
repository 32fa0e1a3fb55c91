//! The pure core of oarlock: what a node decides, without I/O, clock, randomness or async.
//!
//! The shell, the simulator and the tests all drive it in the same way: hand it one [`Event`] with
//! the time, then carry out the [`Action`]s it wants, in order.

pub mod config;
pub mod ids;
pub mod request;
pub mod resource;
pub mod sentinel;
pub mod time;
