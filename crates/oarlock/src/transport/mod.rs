//! Messages between nodes: authenticated, encrypted, over every link at once.
//!
//! Noise KK over UDP with one socket per local link. A datagram is sealed once and sent on every link to its peer; the
//! copy that comes second is dropped by the replay window, so that a dead link costs no time at all. Messages may be
//! lost, doubled never, reordered always: the layers above repeat what matters.
//!
//! [`endpoint::Endpoint`] is the whole protocol without I/O and without a clock; [`Transport`] gives it sockets and time.
//!
//! ```text
//! packet    the form of a datagram          window    takes each datagram once
//! crypto    keys, codes, Noise              message   chunks, their repair, reassembly
//! bundle    what one datagram carries       session   one established session
//! handshake the way to a session            path      one link to a peer, up or down
//! peer      all of this for one peer        endpoint  all peers
//! shell     sockets and timers              socket    one of them
//! ```

pub(crate) mod bundle;
pub(crate) mod crypto;
pub mod endpoint;
mod handshake;
pub(crate) mod message;
pub(crate) mod packet;
pub(crate) mod path;
mod peer;
mod session;
mod shell;
mod socket;
mod window;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use message::MAX_PAYLOAD_BYTES;
pub use path::pair_links;
pub use shell::Transport;

use crate::keys::{KeyError, PrivateKey, PublicKey};

/// Most links of one node.
pub const MAX_LINKS: usize = 8;
/// Most peers of one node.
pub const MAX_PEERS: usize = 32;

/// This node, as its peers see it.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// Name in the configuration.
    pub name: String,
    /// Its private key.
    pub private_key: PrivateKey,
    /// One address per link.
    pub links: Vec<IpAddr>,
    /// UDP port, the same on every node.
    pub port: u16,
}

/// Another node.
#[derive(Debug, Clone)]
pub struct Peer {
    /// How the callers of the transport name it.
    pub id: u8,
    /// Name in the configuration.
    pub name: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// One address per link.
    pub links: Vec<IpAddr>,
}

/// How often links are tried and when they count as down.
#[derive(Debug, Clone, Copy)]
pub struct LinkTiming {
    /// Between two probes on a link, in milliseconds.
    pub probe_ms: u64,
    /// A link on which nothing was heard for so long is down, in milliseconds.
    pub down_after_ms: u64,
    /// Until an unanswered handshake message is repeated, in milliseconds. A silent peer is tried less and less often,
    /// at least once a second.
    pub retry_ms: u64,
}

impl LinkTiming {
    fn probe(&self) -> Duration {
        Duration::from_millis(self.probe_ms.max(1))
    }

    fn down_after(&self) -> Duration {
        Duration::from_millis(self.down_after_ms.max(self.probe_ms).max(1))
    }

    fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms.max(1))
    }
}

/// What the transport has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// A message came.
    Received {
        /// Its sender.
        from: u8,
        /// Its content.
        payload: Vec<u8>,
    },
    /// A link to a peer began or ceased to carry datagrams both ways.
    LinkChanged {
        /// The peer.
        peer: u8,
        /// The peer's address on that link.
        link: IpAddr,
        /// Whether it is up now.
        up: bool,
    },
    /// A peer's process was met for the first time: after our start, and after each of its own.
    SessionUp {
        /// The peer.
        peer: u8,
    },
}

/// One link to a peer, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Our address.
    pub local: IpAddr,
    /// The peer's address.
    pub address: IpAddr,
    /// Whether it carries datagrams both ways.
    pub up: bool,
    /// Milliseconds since a probe was heard on it; `None` if never.
    pub last_heard_ms: Option<u64>,
    /// The last round trip measured, in microseconds, the peer's own delay in answering taken off.
    pub round_trip_us: Option<u64>,
    /// Bytes handed to the socket, UDP payload only.
    pub sent_bytes: u64,
    /// Bytes received, authenticated or the copy of something authenticated.
    pub received_bytes: u64,
    /// Datagrams that the operating system refused to send.
    pub send_errors: u64,
}

/// What was dropped since the start, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams whose code or seal is wrong, or of a session we do not have.
    pub unauthenticated: u64,
    /// Datagrams that came again on the same link, or too late to tell.
    pub replayed: u64,
    /// Copies that came by another link, as intended.
    pub twins: u64,
    /// Datagrams not of our form.
    pub malformed: u64,
    /// Datagrams of another version of the protocol.
    pub other_version: u64,
    /// Initiations that may have been old ones, answered with a challenge.
    pub challenged: u64,
    /// Messages refused because they exceed [`MAX_PAYLOAD_BYTES`].
    pub too_large: u64,
    /// Messages given up before they were sent: no session yet, or too many waiting.
    pub unsent: u64,
    /// Messages of which parts arrived, but never all.
    pub incomplete: u64,
    /// Handshakes that ended in a session.
    pub handshakes: u64,
}

/// What came from a peer's addresses without being acceptable as the peer's. A few are normal after a restart of ours;
/// ever more of them, and no session, mean that the two nodes do not have each other's keys, or not the same version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspicions {
    /// Datagrams that did not authenticate, or of a session we do not have.
    pub unauthenticated: u64,
    /// Datagrams of another version of the protocol.
    pub other_version: u64,
}

/// Why a transport could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The node has no link, or more than [`MAX_LINKS`].
    #[error("node {node:?} has {links} links, expected 1 to {MAX_LINKS}")]
    Links {
        /// The node.
        node: String,
        /// How many it has.
        links: usize,
    },
    /// More peers than [`MAX_PEERS`].
    #[error("{peers} peers, expected at most {MAX_PEERS}")]
    Peers {
        /// How many there are.
        peers: usize,
    },
    /// Two nodes share an id, a name or a key.
    #[error("peers {first:?} and {second:?} have the same {what}")]
    Duplicate {
        /// One of them; may be this node.
        first: String,
        /// The other.
        second: String,
        /// What they share.
        what: &'static str,
    },
    /// The key of a peer cannot be used.
    #[error("key of node {node:?} cannot be used")]
    Key {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// No random bytes.
    #[error("cannot start the transport")]
    Randomness(#[source] KeyError),
    /// Another process uses the port on every link.
    #[error("udp port {} is in use on every link\n  hint: is another agent running? `ss -ulnp sport = :{}` tells", .address.port(), .address.port())]
    PortInUse {
        /// One of the addresses tried.
        address: SocketAddr,
    },
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SendError {
    /// No peer has this id.
    #[error("no peer has the id {peer}")]
    UnknownPeer {
        /// The id.
        peer: u8,
    },
    /// The message exceeds [`MAX_PAYLOAD_BYTES`].
    #[error("message of {bytes} bytes, expected at most {MAX_PAYLOAD_BYTES} bytes")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}
