//! What goes into a datagram between agents: the core's messages and a few of the shell's.

use crate::network::clients::Pair;
use oarlock_core::message::{MESSAGE_MAX_BYTES, Message};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One message between agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Envelope {
    /// The core's.
    Core(Box<Message>),
    /// Who is connected to a service address, from its owner: whoever takes the address over
    /// resets these connections.
    Connections {
        /// The address.
        address: IpAddr,
        /// The connections.
        pairs: Vec<Pair>,
    },
    /// What people want to know of a node.
    Greeting {
        /// Its clock, in milliseconds since 1970.
        unix_ms: u64,
        /// Real-time scheduling was granted there.
        realtime: bool,
        /// Its sentinel keeps a hardware watchdog.
        watchdog: bool,
    },
    /// Can you take this configuration?
    Check {
        /// Echoed in the answer.
        id: u64,
        /// The whole file.
        text: String,
    },
    /// The answer: every problem, none if it can.
    Checked {
        /// As in the question.
        id: u64,
        /// In words.
        problems: Vec<String>,
    },
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than any message may be.
    #[error("{bytes} bytes, expected at most {MESSAGE_MAX_BYTES} bytes")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not of this form, or more follows.
    #[error("not a message of this version")]
    Malformed(#[source] postcard::Error),
}

impl Envelope {
    /// As bytes.
    ///
    /// # Errors
    /// When it is longer than a message may be.
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let bytes = postcard::to_stdvec(self).map_err(EnvelopeError::Malformed)?;
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(EnvelopeError::TooLong { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// From bytes that were authenticated.
    ///
    /// # Errors
    /// When they are not a message.
    pub fn decode(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(EnvelopeError::TooLong { bytes: bytes.len() });
        }
        match postcard::take_from_bytes(bytes).map_err(EnvelopeError::Malformed)? {
            (envelope, []) => Ok(envelope),
            _ => Err(EnvelopeError::Malformed(postcard::Error::DeserializeUnexpectedEnd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_make_the_message_they_came_from_and_garbage_makes_none() {
        let greeting = Envelope::Greeting { unix_ms: 7, realtime: true, watchdog: false };
        let mut bytes = greeting.encode().unwrap();
        assert_eq!(Envelope::decode(&bytes).unwrap(), greeting);
        bytes.push(0);
        assert!(Envelope::decode(&bytes).is_err());
        assert!(Envelope::decode(&[0xff; 40]).is_err());
        assert!(matches!(Envelope::decode(&vec![0; MESSAGE_MAX_BYTES + 1]), Err(EnvelopeError::TooLong { .. })));
    }
}
