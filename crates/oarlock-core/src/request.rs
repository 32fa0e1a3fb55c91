//! What an administrator can ask, and the answers.

use crate::config::Config;
use crate::ids::{GroupId, NodeId, ResourceId};
use crate::time::Span;
use serde::{Deserialize, Serialize};

/// No node may ask for a longer grace than this: it bounds every lease.
pub const GRACE_LONGEST: Span = Span::from_ms(60_000);

/// A request to the cluster, valid on any node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Hand a group over to another node.
    Move {
        /// The group.
        group: GroupId,
        /// Where to.
        to: NodeId,
    },
    /// Take a node out of service (its groups are handed over first), or back into it.
    Standby {
        /// The node.
        node: NodeId,
        /// True: out of service.
        on: bool,
    },
    /// While on, nothing is started, stopped or moved.
    Maintenance {
        /// On or off.
        on: bool,
    },
    /// Forget the failures of a resource.
    Clear {
        /// The resource.
        resource: ResourceId,
    },
    /// Commit a new configuration (already validated by every node that is there).
    Apply {
        /// With `generation` = the running one + 1.
        config: Box<Config>,
    },
    /// The votes and promises that a node remembers are lost or not to be relied upon: whatever
    /// comes back under its name does so under a new identity.
    Replace {
        /// The node.
        node: NodeId,
    },
    /// This node is about to restart on purpose: hold its place for `grace_ms`.
    Grace {
        /// How long, in milliseconds; at most [`GRACE_LONGEST`].
        grace_ms: u64,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done, seen to have taken effect.
    Done,
    /// Not possible, and why (exit code 1).
    Negative(String),
    /// No quorum within the deadline (exit code 3).
    NoQuorum,
    /// Refused for safety, with what would be lost (exit code 4).
    Unsafe(String),
}
