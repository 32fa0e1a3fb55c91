//! What nodes say to each other. The transport authenticates and encrypts; this is what is inside.

use crate::consensus::Frame;
use crate::entry::Entry;
use crate::ids::{CopyId, GroupId, NodeId, VoterId};
use crate::resource::database::Position;
use crate::time::Span;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Largest encoded message accepted, in bytes: a snapshot with its configuration text, with room.
pub const MESSAGE_MAX_BYTES: usize = 256 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// "My lease, please": straight to every voter, each heartbeat (PROTOCOL §1.1).
    Renew(Renew),
    /// "Acknowledged": I will not promise you dead before your L has passed here (§1.2).
    Acked(Renew),
    /// "Refused": this generation was promised dead or is over; ask for a higher one.
    Refused {
        /// The generation that was refused.
        generation: u64,
        /// Ask for one above this.
        above: u64,
    },
    /// The leader suspects a node: whoever has not acknowledged it for L(1+d) shall promise.
    PromiseWanted(Promise),
    /// "I have not acknowledged it for L(1+d) and will not": durable before it is sent (§1.4).
    Promised(Promise),
    /// The leader's sign of life, each heartbeat; its nonce proves that who answers can hear.
    Beacon {
        /// Fresh, from the leader's own counter.
        nonce: u64,
        /// How far the leader has applied.
        applied: u64,
        /// The identity of the voter it is sent to, as the leader knows it.
        voter: VoterId,
    },
    /// "My memory is lost: let me be a voter under this identity": only in answer to a beacon.
    Enrol {
        /// From the beacon.
        nonce: u64,
        /// The new identity.
        voter: VoterId,
    },
    /// To the leader: the memory of this node shall count for nothing any more.
    Disown {
        /// The node.
        node: NodeId,
        /// The identity that shall end.
        from: VoterId,
        /// One that nobody has.
        to: VoterId,
    },
    /// "Let me live under a new generation": only in answer to a beacon.
    WantAlive {
        /// From the beacon.
        nonce: u64,
        /// The generation it has now, to be left behind.
        generation: u64,
        /// Its incarnation.
        incarnation: u64,
        /// Highest promise against it that it was told of; the new generation is above this.
        above: u64,
    },
    /// To the leader: please propose this. Compare-and-swap at apply makes repeats harmless.
    Propose(Box<Entry>),
    /// The consensus library's own traffic, from one voter to another: with another memory, the
    /// same node is not the one that was meant.
    Raft {
        /// Who speaks.
        from: VoterId,
        /// Who is meant.
        to: VoterId,
        /// What.
        frame: Box<Frame>,
    },
    /// How my resources are; on change and a few times per lease.
    Report(Report),
}

/// A renewal, echoed in its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Renew {
    /// Incarnation of the holder.
    pub incarnation: u64,
    /// Its generation.
    pub generation: u64,
    /// Version of the voters it counts a majority of.
    pub voters_version: u64,
    /// Counts up.
    pub sequence: u64,
    /// How long it is to last.
    pub lease: Span,
    /// Nothing that was granted before is counted on for longer than this one: what the voter stood by
    /// so far may end with it.
    pub firm: bool,
    /// The newest beacon it heard: a leader that it does not hear finds its own nonces missing here.
    pub beacon: u64,
}

/// A promise (or the wish for one) about one generation of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Promise {
    /// The node it is about.
    pub node: NodeId,
    /// The generation it is about.
    pub generation: u64,
    /// Version of the voters it counts for.
    pub voters_version: u64,
}

/// What a node says of its resources to the others; the leader plans with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its incarnation.
    pub incarnation: u64,
    /// How far it has applied.
    pub applied: u64,
    /// Its identity as a voter.
    pub voter: VoterId,
    /// The newest version of the voters that it has applied and would find applied after a crash.
    pub voters_version: u64,
    /// The longest lease it has acknowledged that may still run.
    pub lease_max: Span,
    /// Its groups.
    pub groups: Vec<GroupReport>,
}

/// One group on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Why this node cannot run the group now, in words; `None` when it can.
    pub unfit: Option<String>,
    /// It has failed here so often of late that another node is the better place, in words. Where
    /// there is no other, it is tried here all the same.
    pub worn: Option<String>,
    /// Owner: everything is up. Others: the copy, where there is one, follows.
    pub ready: bool,
    /// Owner: what groups that depend on this one wait for is up: everything or, in a group with a database, all
    /// but the first service after that and what comes after it.
    pub usable: bool,
    /// The first group that this one depends on and that this node does not hear to be usable. An owner says so only
    /// once nothing but addresses has run here for that reason for some leases: another node may hear it.
    pub awaits: Option<GroupId>,
    /// The data directory here was looked at: an absent `copy` means that there is none.
    pub inspected: bool,
    /// The database here is a primary that lets clients in: it can be copied and followed.
    pub serving: bool,
    /// The interface of every service address has a carrier here.
    pub linked: bool,
    /// The copy of the data here.
    pub copy: Option<CopyReport>,
    /// Resource states, one word each, in order, with their failure counts.
    pub resources: Vec<ResourceReport>,
}

impl GroupReport {
    /// Whether it says the same, but for the position of the copy, which moves all the time.
    #[must_use]
    pub fn is_like(&self, other: &GroupReport) -> bool {
        let GroupReport { unfit, worn, ready, usable, awaits, inspected, serving, linked, copy, resources } = self;
        let still = |copy: &Option<CopyReport>| copy.map(|copy| CopyReport { position: Position::default(), ..copy });
        (unfit, worn, resources) == (&other.unfit, &other.worn, &other.resources)
            && (usable, awaits) == (&other.usable, &other.awaits)
            && (ready, inspected, serving, linked) == (&other.ready, &other.inspected, &other.serving, &other.linked)
            && still(copy) == still(&other.copy)
    }
}

/// One resource on one node, for display.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// One word.
    pub state: Cow<'static, str>,
    /// Failures within the counting time.
    pub failures: u32,
    /// Why, when there is more to say.
    pub reason: Option<String>,
}

/// One copy of the data, as its node reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Its number.
    pub copy: CopyId,
    /// The database cluster's own identifier.
    pub system: u64,
    /// Its position.
    pub position: Position,
    /// It streams from the owner (or is the owner's).
    pub streaming: bool,
}
