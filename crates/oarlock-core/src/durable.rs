//! What a voter must remember (rule 5). Nothing of it counts before it is on the disk.

use crate::consensus::Log;
use crate::ids::{NodeId, VoterId};
use crate::time::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything durable of one voter, small enough to be written as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Durable {
    /// Whose it is.
    pub me: NodeId,
    /// The identity under which it counts.
    pub voter: VoterId,
    /// Vote, term and log.
    pub log: Log,
    /// Promises given: generation and version of the voters.
    pub promised: BTreeMap<NodeId, (u64, u64)>,
    /// The longest lease ever acknowledged; at start, that long counts as acknowledged for everybody.
    pub lease_max: Span,
}

impl Durable {
    /// Encodes it for the disk.
    ///
    /// # Errors
    /// When the encoder fails (it does not for these types).
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }

    /// Decodes what the disk gave.
    ///
    /// # Errors
    /// When the bytes are not such a state: the voter's identity is lost.
    pub fn decode(bytes: &[u8]) -> Result<Durable, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}
