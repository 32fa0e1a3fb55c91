//! Several messages in one datagram, each as its length (2 bytes, little-endian) and its bytes.
//!
//! What a node has to say to a peer in one turn of its loop leaves together: a datagram costs a seal, a
//! system call per link and a wake-up at the other end, however little is in it.

use super::message::Misfit;
use super::packet::MAX_PLAIN_BYTES;

const LENGTH_BYTES: usize = 2;
/// Largest message that travels in one datagram, after the byte that tells its kind.
pub const MAX_BUNDLED_BYTES: usize = MAX_PLAIN_BYTES - 1 - LENGTH_BYTES;
/// Most messages in one datagram; a turn seldom has ten.
const MAX_PARTS: usize = 64;

/// Messages to one peer that wait for the end of the turn.
#[derive(Debug, Default)]
pub struct Bundle {
    content: Vec<u8>,
    parts: usize,
}

impl Bundle {
    /// Adds a message of at most [`MAX_BUNDLED_BYTES`]; gives the content of the datagram that has to leave
    /// before it, when both do not fit into one.
    pub fn add(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let full = self.parts == MAX_PARTS || self.content.len() + LENGTH_BYTES + payload.len() > MAX_PLAIN_BYTES - 1;
        let before = if full { self.take() } else { None };
        self.content.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        self.content.extend_from_slice(payload);
        self.parts += 1;
        before
    }

    /// The content of the datagram to send now; `None` when nothing waits.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.parts = 0;
        Some(std::mem::take(&mut self.content)).filter(|content| !content.is_empty())
    }
}

/// The messages in a datagram: all of them or none.
pub fn parts(mut content: &[u8]) -> Result<Vec<&[u8]>, Misfit> {
    let mut parts = Vec::new();
    while !content.is_empty() {
        let (length, rest) = content.split_first_chunk::<LENGTH_BYTES>().ok_or(Misfit)?;
        let (part, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or(Misfit)?;
        if parts.len() == MAX_PARTS {
            return Err(Misfit);
        }
        parts.push(part);
        content = rest;
    }
    if parts.is_empty() { Err(Misfit) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The datagrams that a turn with these messages makes.
    fn datagrams(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut bundle = Bundle::default();
        let mut all: Vec<_> = messages.iter().filter_map(|message| bundle.add(message)).collect();
        all.extend(bundle.take());
        assert_eq!(bundle.take(), None, "it was taken");
        all
    }

    #[test]
    fn all_messages_of_a_turn_arrive_in_order_in_as_few_datagrams_as_hold_them() {
        for (count, bytes, expected) in
            [(0, 0, 0), (1, 0, 1), (5, 80, 1), (14, 80, 1), (15, 80, 2), (2, MAX_BUNDLED_BYTES, 2), (65, 1, 2)]
        {
            let messages: Vec<Vec<u8>> = (0..count).map(|number| vec![number as u8; bytes]).collect();
            let datagrams = datagrams(&messages);
            assert_eq!(datagrams.len(), expected, "{count} messages of {bytes} bytes");
            assert!(datagrams.iter().all(|content| content.len() < MAX_PLAIN_BYTES));
            let arrived: Vec<&[u8]> = datagrams.iter().flat_map(|content| parts(content).unwrap()).collect();
            assert_eq!(arrived, messages);
        }
    }

    #[test]
    fn nothing_comes_out_of_a_datagram_that_is_cut_or_says_more_than_it_holds() {
        let whole = datagrams(&[b"one".to_vec(), b"three".to_vec()]).remove(0);
        let boundaries = [5, whole.len()];
        for length in 0..=whole.len() {
            assert_eq!(parts(&whole[..length]).is_ok(), boundaries.contains(&length), "cut to {length} bytes");
        }
        for position in [0, 1, 5, 6] {
            let mut damaged = whole.clone();
            damaged[position] = 0xff;
            assert_eq!(parts(&damaged), Err(Misfit), "length at {position}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(parts(&longer), Err(Misfit), "a byte too many");
        assert_eq!(parts(&[0xff; MAX_PLAIN_BYTES]), Err(Misfit), "a part of 65535 bytes");
    }

    #[test]
    fn more_messages_than_anybody_sends_are_refused() {
        let of = |count: usize| [0, 0].repeat(count);
        assert_eq!(parts(&of(MAX_PARTS)).map(|parts| parts.len()), Ok(MAX_PARTS));
        assert_eq!(parts(&of(MAX_PARTS + 1)), Err(Misfit));
    }
}
