//! Who votes, and how that changes: one voter at a time, each change an entry of the log. The
//! consensus library's own configuration is derived from this and nothing else, so that the two
//! cannot differ.

use crate::ids::{NodeId, VoterId};
use crate::state::{Outcome, State};
use crate::time::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The voters, of one version. Acknowledgements and promises of different versions never add up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voters {
    /// Counts changes, from 1.
    pub version: u64,
    /// Who they are.
    pub nodes: BTreeSet<NodeId>,
    /// The voters of the version before, as long as they might still act: no further change then,
    /// or leases granted by them and promises made under the next could contradict. Empty once it
    /// is committed that they do not.
    pub former: BTreeSet<NodeId>,
    /// How many of `former` must have applied this version until then.
    pub former_majority: usize,
    /// No lease that was granted under an earlier version than the last settled one is longer.
    pub lease_max: Span,
}

/// One change of the voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterChange {
    /// A node that is there and has caught up votes from now on.
    Add {
        /// Which.
        node: NodeId,
        /// With which memory.
        voter: VoterId,
    },
    /// A dead node votes no more; it still gets the log when it is back.
    Remove {
        /// Which.
        node: NodeId,
        /// The generation that is dead.
        generation: u64,
    },
    /// The memory of a node is lost or not to be relied upon: it votes no more, and what it says
    /// counts only under its new identity.
    Replace {
        /// Which.
        node: NodeId,
        /// The identity that ends.
        from: VoterId,
        /// The one that begins.
        to: VoterId,
    },
}

impl VoterChange {
    /// The node it is about.
    pub fn node(&self) -> NodeId {
        match self {
            VoterChange::Add { node, .. } | VoterChange::Remove { node, .. } | VoterChange::Replace { node, .. } => {
                *node
            }
        }
    }
}

impl Voters {
    /// The voters a cluster begins with.
    pub fn begin(nodes: BTreeSet<NodeId>) -> Voters {
        Voters { version: 1, nodes, former: BTreeSet::new(), former_majority: 0, lease_max: Span::ZERO }
    }

    /// How many are a majority.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// Whether these are a majority.
    pub fn is_majority<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> bool {
        nodes.into_iter().filter(|node| self.nodes.contains(node)).count() >= self.majority()
    }

    /// Whether the voters before cannot act any more, when these have applied the present version,
    /// or have lost their memory.
    pub fn is_over(&self, gone: &BTreeSet<NodeId>) -> bool {
        gone.intersection(&self.former).count() >= self.former_majority
    }
}

impl State {
    /// The state of a node that knows nothing yet and whose memory counts for nothing: it votes
    /// under no version.
    pub fn blank(config: crate::config::Config, me: NodeId) -> State {
        let mut state = State::begin(config);
        state.voters.version = 0;
        state.voters.nodes.remove(&me);
        state
    }

    /// Whether the node votes, and under this identity.
    pub fn votes(&self, node: NodeId, voter: VoterId) -> bool {
        self.node(node).voter == voter && self.voters.nodes.contains(&node)
    }

    pub(crate) fn settle_voters(&mut self, version: u64, lease_max: Span) -> Outcome {
        if version != self.voters.version || self.voters.former.is_empty() {
            return Outcome::Stale("version of the voters");
        }
        self.voters.former.clear();
        self.voters.former_majority = 0;
        self.voters.lease_max = lease_max;
        Outcome::Applied
    }

    pub(crate) fn change_voters(&mut self, version: u64, change: &VoterChange) -> Outcome {
        if version != self.voters.version {
            return Outcome::Stale("version of the voters");
        }
        let known = match self.nodes.get_mut(&change.node()) {
            Some(known) => known,
            None => return Outcome::Stale("unknown node"),
        };
        let mut nodes = self.voters.nodes.clone();
        let mut former = nodes.clone();
        let fits = match change {
            VoterChange::Add { node, voter } => known.voter == *voter && !known.dead && nodes.insert(*node),
            VoterChange::Remove { node, generation } => {
                known.dead && known.generation == *generation && nodes.remove(node)
            }
            VoterChange::Replace { node, from, to } => {
                former.remove(node);
                nodes.remove(node);
                known.voter == *from && from != to
            }
        };
        if !fits || nodes.is_empty() {
            return Outcome::Stale("voter");
        }
        if let VoterChange::Replace { to, .. } = change {
            known.voter = *to;
        }
        let (former_majority, lease_max) = (self.voters.majority(), self.voters.lease_max);
        self.voters = Voters { version: version + 1, nodes, former, former_majority, lease_max };
        Outcome::Applied
    }
}
