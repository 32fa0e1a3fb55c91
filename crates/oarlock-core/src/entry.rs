//! What can be committed. Every entry is compare-and-swap: it names what it was decided on, and
//! is a no-op where that is no longer so, so that repeats and late arrivals are harmless.

use crate::config::Config;
use crate::ids::{CopyId, GroupId, NodeId, ResourceId};
use crate::time::Span;
use crate::voters::VoterChange;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One entry of the replicated log.
///
/// An entry that a node cannot decode stops its applying; it is never skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A node begins a generation (PROTOCOL §1.6). Also legal for one that is not dead.
    Alive {
        /// Which node.
        node: NodeId,
        /// The generation it leaves.
        from: u64,
        /// The generation it begins, above `from`.
        to: u64,
        /// Its incarnation; a new one means that everything exclusive of the former was stopped.
        incarnation: u64,
    },
    /// A node is dead, and these groups have new owners (§1.5).
    Take {
        /// The dead node.
        node: NodeId,
        /// Its generation.
        generation: u64,
        /// Why it is known to be dead.
        proof: Proof,
        /// Groups it owned that have somewhere to go.
        moves: Vec<Moved>,
    },
    /// A group without a living owner gets one.
    Own {
        /// Where to.
        moved: Moved,
        /// For a data group whose in-sync set is still empty: the new owner's copy is the first member.
        first: Option<FirstCopy>,
    },
    /// The owner has stopped everything exclusive and lets go.
    Release {
        /// The group.
        group: GroupId,
        /// The epoch it gives up.
        epoch: u64,
        /// Its incarnation.
        incarnation: u64,
        /// True when it ended before its own stop-budget wait had passed.
        unwaited: bool,
        /// Who should have it next.
        prefer: Option<NodeId>,
        /// In words, for people.
        reason: String,
    },
    /// The copy holds every acknowledged write and commits wait for it (§1.8).
    Join {
        /// Where the set stands.
        at: SetVersion,
        /// The copy's node.
        node: NodeId,
        /// The copy.
        copy: CopyId,
        /// The database cluster's own identifier.
        system: u64,
    },
    /// The node's copy is not counted on any more. Also voids whatever is undecided of this version;
    /// for that alone it may name a node that has no copy in the set.
    Leave {
        /// Where the set stands.
        at: SetVersion,
        /// The copy's node.
        node: NodeId,
        /// The agent's own number: only who proposed it knows that nothing is undecided that an agent
        /// before it proposed.
        life: u64,
    },
    /// The node may rewind or replace its copy, which is not in the set (§1.10).
    Rejoin {
        /// The group.
        group: GroupId,
        /// The owner's epoch.
        epoch: u64,
        /// The node.
        node: NodeId,
        /// Its incarnation.
        incarnation: u64,
        /// Its own number for this wish: only who proposed it may act on it.
        nonce: u64,
    },
    /// Where a group should run; the owner hands it over when that is possible.
    Want {
        /// The group.
        group: GroupId,
        /// The epoch this was decided on.
        epoch: u64,
        /// The node, or nobody in particular.
        node: Option<NodeId>,
    },
    /// A node is taken out of service or put back.
    Standby {
        /// Which.
        node: NodeId,
        /// Out of service.
        on: bool,
    },
    /// Nothing is started, stopped or moved while this is on.
    Maintenance {
        /// On or off.
        on: bool,
    },
    /// The failures of a resource are forgotten, everywhere.
    Clear {
        /// Which.
        resource: ResourceId,
    },
    /// A new configuration; its generation is the running one + 1.
    Configure(Box<Config>),
    /// One voter more or less, or one under a new identity.
    Voters {
        /// The version it was decided on.
        version: u64,
        /// What changes.
        change: VoterChange,
    },
    /// The voters before this version cannot act any more: the next change may come.
    VotersSettled {
        /// The version.
        version: u64,
        /// The longest lease that they may have granted.
        lease_max: Span,
    },
}

/// Why a node is known to be dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// A majority of these voters promised.
    Promised {
        /// Version of the voters.
        voters_version: u64,
        /// Who promised.
        by: BTreeSet<NodeId>,
    },
}

/// A group's new owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The group.
    pub group: GroupId,
    /// The epoch it has now; the new one is one more.
    pub epoch: u64,
    /// The new owner.
    pub to: NodeId,
    /// The new owner's incarnation.
    pub incarnation: u64,
}

/// The first copy of a group's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstCopy {
    /// The copy.
    pub copy: CopyId,
    /// The database cluster's own identifier.
    pub system: u64,
}

/// Where an in-sync set stands: what `Join` and `Leave` compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVersion {
    /// The group.
    pub group: GroupId,
    /// Its epoch.
    pub epoch: u64,
    /// Version of the set.
    pub version: u64,
}
