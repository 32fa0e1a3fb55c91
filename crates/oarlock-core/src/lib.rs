//! The pure core of oarlock: what a node decides, without I/O, clock, randomness or async.
//!
//! The shell, the simulator and the tests all drive it in the same way: hand it one [`Event`] with
//! the time, then carry out the [`Action`]s it wants, in order.

pub mod action;
pub mod config;
pub mod consensus;
pub mod durable;
pub mod entry;
pub mod event;
pub mod group;
pub mod happening;
pub mod ids;
pub mod lease;
pub mod machine;
pub mod message;
pub mod node;
pub mod planner;
pub mod request;
pub mod resource;
pub mod rules;
pub mod sentinel;
pub mod state;
pub mod status;
pub mod time;
pub mod voters;

pub use action::Action;
pub use event::Event;
pub use node::Core;
pub use rules::Rules;
