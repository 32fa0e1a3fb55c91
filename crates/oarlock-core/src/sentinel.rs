//! The sentinel's decisions, without any system call.
//!
//! The sentinel is the small process that outlives the agent: it holds the deadline of the node's
//! lease, performs every start of an exclusive resource (check, act, check again, undo) and, when
//! the lease lapses, silences what is exclusive without asking anyone. This module decides; the
//! shell (or the simulator) hands it events with the time and performs the effects it returns, in
//! order.
//!
//! Words: a resource is *guarded* while it may run only under a live lease; a generation is
//! *lapsed* once its lease ran out, which is terminal for it; a service is *alive* while its main
//! process runs or its group still has processes.
//!
//! All times are microseconds on one clock of the host that never stands still (it must count
//! the time a machine was suspended).

mod acts;
mod machine;
mod message;
#[cfg(test)]
mod properties;
mod record;
#[cfg(test)]
mod tests;
mod watchdog;

pub use machine::{Act, Effect, Event, Outcome, Sentinel};
pub use message::{
    Address, Command, Exit, FromSentinel, Guard, Notice, Platform, Priority, Refusal, Remaining, Reply, Request,
    ToSentinel, Welcome,
};
pub use record::{HeldAddress, Main, Process, Record, Service};
pub use watchdog::{Care, Watchdog};

/// Largest frame on the socket between agent and sentinel, in bytes.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Most services one sentinel keeps.
pub const MAX_SERVICES: usize = 64;
/// Most addresses one sentinel keeps.
pub const MAX_ADDRESSES: usize = 64;
/// Most groups whose released epoch one sentinel remembers.
pub const MAX_GROUPS: usize = 64;
/// Longest name of a service or a group, in bytes: it becomes the name of a directory.
pub const MAX_NAME_BYTES: usize = 64;
/// A lease deadline further away than this is a mistake of the agent, not a lease: one hour.
pub const MAX_LEASE_US: u64 = 3_600_000_000;
/// How long a killed group is given before what remains of it is reported.
pub const KILL_WAIT_US: u64 = 1_000_000;
/// How often to look meanwhile whether what is left is only waiting for a disk, which is the end of the wait.
pub const KILL_LOOK_US: u64 = 200_000;
/// How long after a failed removal of an address the next attempt is made.
pub const ADDRESS_RETRY_US: u64 = 20_000;
/// How often to look, after a lapse, whether what is left is only waiting for a disk.
pub const SILENCE_LOOK_US: u64 = 20_000;
/// How long the agent may take to answer `Terminate` before the sentinel leaves without it.
pub const TERMINATE_WAIT_US: u64 = 5_000_000;
