//! What is worth telling a person: the event list and the demo's timeline come from here.

use crate::ids::{CopyId, GroupId, NodeId, ResourceId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something a person would want to know, seen by this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening {
    /// This node's consensus library elected (or saw) a leader; a leader grants nothing.
    LeaderChanged {
        /// The new one, if known.
        leader: Option<NodeId>,
    },
    /// A node has not renewed its lease for half a lease.
    NodeSilent {
        /// Which.
        node: NodeId,
    },
    /// A silent node renewed again.
    NodeHeard {
        /// Which.
        node: NodeId,
    },
    /// A majority promised (or a fence confirmed): committed as dead.
    NodeDead {
        /// Which.
        node: NodeId,
        /// Its generation.
        generation: u64,
    },
    /// A node is a member again under a new generation.
    NodeAlive {
        /// Which.
        node: NodeId,
        /// Its generation.
        generation: u64,
    },
    /// Our own lease lapsed; everything exclusive was stopped.
    LeaseLapsed {
        /// The generation.
        generation: u64,
    },
    /// A group has a new owner (or none).
    OwnerChanged {
        /// The group.
        group: GroupId,
        /// The owner.
        owner: Option<NodeId>,
        /// The epoch.
        epoch: u64,
        /// In words.
        reason: String,
    },
    /// The in-sync set of a group changed.
    InSyncChanged {
        /// The group.
        group: GroupId,
        /// The nodes whose copies hold every acknowledged write.
        members: Vec<(NodeId, CopyId)>,
    },
    /// A resource on this node changed its state.
    Resource {
        /// Which.
        resource: ResourceId,
        /// The new state, one word.
        state: String,
        /// Why, when there is more to say.
        reason: Option<String>,
    },
    /// A resource on this node failed.
    ResourceFailed {
        /// Which.
        resource: ResourceId,
        /// In words.
        reason: String,
        /// How often within the counting time.
        failures: u32,
    },
    /// The state of this voter is lost or cannot be saved: it votes for nothing.
    VoterDisabled {
        /// In words.
        reason: String,
    },
    /// This voter starts without the memory it had: it votes for nothing until it is let in anew.
    VoterLost {
        /// In words.
        reason: String,
    },
    /// The voters changed.
    VotersChanged {
        /// Who votes now.
        voters: Vec<NodeId>,
    },
    /// A node's memory of votes and promises was given up: it begins anew under another identity.
    VoterReplaced {
        /// Which.
        node: NodeId,
    },
    /// A configuration was committed.
    ConfigCommitted {
        /// Its generation.
        generation: u64,
    },
    /// Anything else worth a line.
    Note {
        /// In words.
        text: String,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::LeaderChanged { leader: Some(leader) } => write!(f, "leader is {leader}"),
            Happening::LeaderChanged { leader: None } => write!(f, "no leader"),
            Happening::NodeSilent { node } => write!(f, "{node} is silent"),
            Happening::NodeHeard { node } => write!(f, "{node} is heard again"),
            Happening::NodeDead { node, generation } => write!(f, "{node} declared dead (generation {generation})"),
            Happening::NodeAlive { node, generation } => write!(f, "{node} alive (generation {generation})"),
            Happening::LeaseLapsed { generation } => write!(f, "own lease lapsed (generation {generation})"),
            Happening::OwnerChanged { group, owner, epoch, reason } => {
                match owner {
                    Some(owner) => write!(f, "{group:?} owned by {owner}, epoch {epoch}")?,
                    None => write!(f, "{group:?} released, epoch {epoch}")?,
                }
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            Happening::InSyncChanged { group, members } => write!(f, "{group:?} in-sync set {members:?}"),
            Happening::Resource { resource, state, reason: None } => write!(f, "{resource:?} {state}"),
            Happening::Resource { resource, state, reason: Some(reason) } => {
                write!(f, "{resource:?} {state}: {reason}")
            }
            Happening::ResourceFailed { resource, reason, failures } => {
                write!(f, "{resource:?} failed ({failures}): {reason}")
            }
            Happening::VoterDisabled { reason } => write!(f, "this voter takes part in nothing: {reason}"),
            Happening::VoterLost { reason } => write!(f, "this voter begins anew: {reason}"),
            Happening::VotersChanged { voters } => write!(f, "voters {voters:?}"),
            Happening::VoterReplaced { node } => write!(f, "{node} votes under a new identity from now on"),
            Happening::ConfigCommitted { generation } => write!(f, "configuration generation {generation}"),
            Happening::Note { text } => f.write_str(text),
        }
    }
}
