//! One established session with a peer.

use std::sync::Arc;
use std::time::Instant;

use snow::StatelessTransportState;

use super::crypto::Hello;
use super::packet::{DATA_HEADER_BYTES, MAX_PLAIN_BYTES, SEAL_BYTES, data_header};
use super::window::{Seen, Window};

/// Keys and counters of a session.
pub struct Session {
    /// Our name for it.
    pub index: u32,
    /// The peer's name for it, and the peer's process.
    pub peer: Hello,
    /// When it was made.
    pub since: Instant,
    /// Whether we began the handshake.
    pub initiator: bool,
    /// Generation of the key pair it was made with.
    pub key_generation: u64,
    sent: u64,
    noise: StatelessTransportState,
    window: Window,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Authentic and new; so many bytes.
    Plain(usize),
    /// The seal is wrong.
    Forged,
    /// The copy from another link.
    Twin,
    /// Seen before.
    Replayed,
}

impl Session {
    /// A session just made by a handshake.
    pub fn new(now: Instant, index: u32, peer: Hello, noise: StatelessTransportState, key_generation: u64) -> Self {
        let initiator = noise.is_initiator();
        Self { index, peer, since: now, initiator, key_generation, sent: 0, noise, window: Window::new() }
    }

    /// Datagrams sealed so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Seals one datagram. `None` if it is too long.
    pub fn seal(&mut self, plain: &[u8]) -> Option<Arc<[u8]>> {
        if plain.len() > MAX_PLAIN_BYTES {
            return None;
        }
        let counter = self.sent;
        let mut datagram = data_header(self.peer.index, counter);
        datagram.resize(DATA_HEADER_BYTES + plain.len() + SEAL_BYTES, 0);
        let sealed = datagram.get_mut(DATA_HEADER_BYTES..)?;
        self.noise.write_message(counter, plain, sealed).ok()?;
        // Only now, but before the datagram leaves: no counter is ever used for two contents.
        self.sent += 1;
        Some(datagram.into())
    }

    /// Opens one datagram into `plain`.
    pub fn open(&mut self, counter: u64, sealed: &[u8], link: usize, plain: &mut [u8]) -> Opened {
        match self.window.check(counter, link) {
            Seen::Never => {}
            Seen::OnOtherLink => return Opened::Twin,
            Seen::Before => return Opened::Replayed,
        }
        match self.noise.read_message(counter, sealed, plain) {
            Ok(length) => {
                self.window.mark(counter, link);
                Opened::Plain(length)
            }
            Err(_) => Opened::Forged,
        }
    }
}
