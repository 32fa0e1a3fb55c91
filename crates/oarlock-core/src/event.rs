//! What can happen to a node. Past tense: the core reacts, it never asks.

use crate::ids::{GroupId, NodeId, ResourceId};
use crate::message::Message;
use crate::request::Request;
use crate::resource::Observation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing that happened. The core handles one at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The moment asked for by [`crate::Core::wakeup`] has come (or any other moment).
    Ticked,
    /// An authenticated message arrived.
    Received {
        /// Who sealed it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The state given under this ticket, and all before it, is on the disk.
    Persisted {
        /// As in [`crate::Action::Persist`].
        ticket: u64,
    },
    /// The state could not be saved. The core stops voting and says so.
    PersistFailed {
        /// In words.
        reason: String,
    },
    /// The sentinel holds this deadline now.
    LeaseArmed {
        /// The generation it is for.
        generation: u64,
    },
    /// The sentinel holds the earlier deadline that it was to take in the place of a later one.
    LeaseShortened,
    /// The sentinel found the lease of this generation lapsed and has silenced what was guarded.
    Lapsed {
        /// The generation it was for.
        generation: u64,
    },
    /// The sentinel's answer to [`crate::Action::Seal`].
    Sealed {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: u64,
        /// Why not, in words: something still runs under it.
        refused: Option<String>,
    },
    /// Something happened to a resource.
    Observed {
        /// Which one.
        resource: ResourceId,
        /// What.
        what: Observation,
    },
    /// A link to a peer came up or went down (for display and for the planner's explanations).
    LinkChanged {
        /// The peer.
        peer: NodeId,
        /// Which of its links, from 0.
        link: u8,
        /// Whether datagrams come in over it.
        up: bool,
    },
    /// The administrator (or a program for him) asked for something. Answered by
    /// [`crate::Action::Answer`] with the same `id`.
    Requested {
        /// Chosen by the shell.
        id: u64,
        /// What.
        request: Request,
    },
}

/// What the shell knows when the core starts.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Who this is.
    pub me: NodeId,
    /// Random, new at every start of the machine (or of its sentinel's state). Never zero.
    pub incarnation: u64,
    /// What the sentinel still holds from an agent before this one, if any.
    pub held: Option<Held>,
    /// The voter's own state.
    pub durable: Loaded,
    /// The configuration file on this machine; what is committed wins.
    pub config: crate::config::Config,
    /// Seeds nonces; not used for anything that needs secrecy.
    pub seed: u64,
}

/// What a voter's state file said.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// There never was one: the first start of this node.
    Fresh,
    /// As last acknowledged.
    Intact(Box<crate::durable::Durable>),
    /// Lost or damaged: this voter has lost its identity (rule 5). The core begins under a new one,
    /// and what it saves must survive together with that fact.
    Doubtful {
        /// In words.
        reason: String,
    },
}

/// A lease that outlived the agent that renewed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The incarnation the lease was for.
    pub incarnation: u64,
    /// Its generation.
    pub generation: u64,
    /// The sentinel's deadline.
    pub deadline: crate::time::Mono,
    /// True once it lapsed.
    pub lapsed: bool,
    /// No committed state below this index may be acted on.
    pub floor_index: u64,
    /// By the name of a group: the highest epoch that was given up here, whether that is committed or not.
    pub released: BTreeMap<String, u64>,
}
