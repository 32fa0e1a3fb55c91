//! The clients' side of a change of owner: no client waits for a timeout it can be spared.
//!
//! * [`Refuser`]: the node that lets an address go in a planned handover answers late connection
//!   attempts with a reset, so that they fail at once instead of being lost.
//! * [`list_connections`] and [`tickle`]: the node that takes an address over makes the clients of
//!   the dead owner notice that their connections are gone.

pub(crate) mod connections;
pub(crate) mod packet;
mod raw;
mod refuse;
#[cfg(test)]
mod tests;
mod tickle;
mod turnover;

pub use connections::{MAX_PAIRS, Pair, list_connections};
pub use refuse::{REFUSE_FOR, Refuser};
pub use tickle::{TICKLE_AT_MS, tickle};
pub use turnover::Turnover;

use std::io;
use std::net::{IpAddr, UdpSocket};
use thiserror::Error;

/// Why the clients could not be helped. Never a reason to stop a takeover.
#[derive(Debug, Error)]
pub enum ClientsError {
    /// There is no such network interface.
    #[error("no network interface \"{name}\"")]
    Interface {
        /// As it was asked for.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    Socket {
        /// The imperative that failed.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's list of connections could not be understood.
    #[error("cannot understand the kernel's list of connections")]
    Decode(#[source] netlink_packet_core::DecodeError),
    /// The kernel did not finish its list in time.
    #[error("the kernel did not finish its list of connections within {deadline_ms} ms")]
    Deadline {
        /// What it was given.
        deadline_ms: u64,
    },
}

/// For `map_err`: the error of the system call that was to `what`.
fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ClientsError {
    move |source| ClientsError::Socket { what, source: source.into() }
}

/// False only when this host surely does not have `address` now: a socket cannot be bound to it.
/// (Under the sysctl `ip_nonlocal_bind` it always can; then nothing is refused, which is safe. The
/// source address of a route to it would not tell: for a secondary address that is the primary.)
fn may_be_local(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}
