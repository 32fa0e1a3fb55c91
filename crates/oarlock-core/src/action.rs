//! What a node does. Imperative: the shell carries it out and reports back as events.

use crate::durable::Durable;
use crate::happening::Happening;
use crate::ids::{GroupId, NodeId};
use crate::message::Message;
use crate::request::Answer;
use crate::resource::Order;
use crate::time::Mono;

/// One thing to do, in the order given.
#[derive(Clone, Debug)]
pub enum Action {
    /// Seal and send on every link.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Make this the durable state; answer with `Persisted` or `PersistFailed`. A later ticket
    /// replaces an earlier one, never the other way round.
    Persist {
        /// Counts up.
        ticket: u64,
        /// The whole of it.
        durable: Box<Durable>,
    },
    /// Tell the sentinel that this generation's lease holds until `deadline`; answer `LeaseArmed`.
    ArmLease {
        /// The generation.
        generation: u64,
        /// The incarnation it belongs to.
        incarnation: u64,
        /// On the node's own clock.
        deadline: Mono,
        /// In the place of a later one, that an agent before this one asked for; answer `LeaseShortened`.
        shortens: bool,
        /// Applied index and highest epoch released by this node: an adopting agent starts nothing below.
        floor_index: u64,
    },
    /// Tell the sentinel that this epoch of a group is given up, so that nothing can be started under it
    /// any more, by this agent or by one after it; answer `Sealed`.
    Seal {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: u64,
    },
    /// Drive a resource.
    Drive(Order),
    /// Answer a request.
    Answer {
        /// As in [`crate::Event::Requested`].
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// Tell the log, the event list and whoever watches.
    Record(Happening),
    /// This voter's memory counts for nothing any more: keep a durable note that it is lost, end the
    /// agent, and let the next one find [`crate::event::Loaded::Doubtful`]. What is guarded goes on.
    Renounce {
        /// In words.
        reason: String,
    },
    /// A new configuration was committed: validate again and write the file.
    AdoptConfig {
        /// Its generation.
        generation: u64,
        /// The text.
        text: std::sync::Arc<str>,
    },
}
