//! The host's network as far as a service address needs it: interfaces and addresses (rtnetlink),
//! announcements and conflict detection (ARP, neighbour discovery), the clients that use them.

pub mod clients;

mod announce;
mod conflict;
mod connections;
pub(crate) mod frames;
mod interfaces;
mod netlink;
mod packet;
mod watch;

pub use announce::{ANNOUNCE_AT_MS, announce, keep_announcing};
pub use conflict::{ConflictWatch, PROBE_WAIT, probe};
pub use connections::{End, destroy_connections, destroy_untold};
pub use frames::MacAddress;
pub use interfaces::{Interface, InterfaceAddress, Snapshot, same_subnet};
pub use netlink::Netlink;
pub use watch::{Change, Watcher};

use std::io;
use std::net::IpAddr;

/// The kernel's answer to a request, which is a negative error number; whatever else comes must do no harm.
pub(crate) fn refused(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_abs())
}

/// Something about the network that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A request to the kernel failed.
    #[error("{what} failed")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface has an address in the subnet.
    #[error("no interface has an address in the subnet of {ip}/{prefix_bits}; hint: name the interface of the address")]
    NoInterface {
        /// The address to be placed.
        ip: IpAddr,
        /// Its prefix, in bits.
        prefix_bits: u8,
    },
    /// No interface of this name.
    #[error("no interface {name}")]
    UnknownInterface {
        /// The name.
        name: String,
    },
    /// The interface has no Ethernet address.
    #[error("interface {name} has no ethernet address to announce with")]
    NoEthernet {
        /// The interface.
        name: String,
    },
}

impl NetworkError {
    pub(crate) fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { what, source }
    }
}
