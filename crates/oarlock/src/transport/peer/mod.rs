//! Everything about one peer: its sessions, the handshake, its links, the messages on their way.
//!
//! Up to three sessions live at a time. `current` seals what we send. `next` was made by answering an initiation; it
//! becomes current when the peer seals something with it, which proves that the initiation was not an old one played
//! back. `previous` only opens what was sealed before the peer noticed the change.

mod greeting;
mod traffic;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bundle::Bundle;
use super::crypto::{CookieJar, Hello, Pair};
use super::endpoint::Output;
use super::handshake::Outgoing;
use super::message::{Inbound, Outbound};
use super::packet::EPHEMERAL_BYTES;
use super::path::Path;
use super::session::Session;
use super::{LinkTiming, Suspicions};
use crate::keys::PublicKey;

/// What waited for a session longer than this is of no use to anybody.
const QUEUED_FOR: Duration = Duration::from_millis(500);
/// A session made with a key that was replaced is still good for so long: the peer may learn of its new key by it.
const OLD_KEY_FOR: Duration = Duration::from_secs(300);
/// What was sealed with the previous session has arrived by then, or never will.
const PREVIOUS_FOR: Duration = Duration::from_secs(120);
/// When a session is renewed.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    /// After this time.
    pub after: Duration,
    /// After so many datagrams sent.
    pub after_sent: u64,
}

impl Default for Renewal {
    fn default() -> Self {
        // Far below what the cipher stands (2^64 datagrams), often enough that a key lost tells little.
        Self { after: Duration::from_secs(3600), after_sent: 1 << 24 }
    }
}

/// What all peers share.
pub struct Node {
    /// Random number of this process.
    pub instance: u64,
    /// Makes cookies.
    pub jar: CookieJar,
    /// When links count as down, and so on.
    pub timing: LinkTiming,
    /// When sessions are renewed.
    pub renewal: Renewal,
    /// Name of the next session.
    pub next_index: u32,
    /// Moment of the start.
    pub start: Instant,
    /// Wall clock at the start, in microseconds.
    pub wall_us: u64,
}

impl Node {
    fn hello(&mut self) -> Hello {
        self.next_index = self.next_index.wrapping_add(1);
        Hello { index: self.next_index, instance: self.instance }
    }

    /// The probes of all peers leave at the same moments, so that they wake us once.
    fn next_probe(&self, now: Instant) -> Instant {
        let interval = self.timing.probe();
        let rest = now.saturating_duration_since(self.start).as_nanos() % interval.as_nanos();
        now + interval - Duration::from_nanos(rest as u64)
    }

    /// The moment, and our clock in microseconds, which starts at 1 with this process.
    fn clock(&self, now: Instant) -> (Instant, u64) {
        (now, now.saturating_duration_since(self.start).as_micros() as u64 + 1)
    }

    fn stamp(&self, now: Instant) -> u64 {
        self.wall_us.saturating_add(self.clock(now).1)
    }
}

/// The moment, what is shared, and where the results go.
pub struct Context<'a> {
    /// Now.
    pub now: Instant,
    /// Shared by all peers.
    pub node: &'a mut Node,
    /// Results.
    pub out: &'a mut Output,
}

/// State of one peer.
pub struct PeerState {
    /// How callers name it.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// What its key gives us.
    pub pair: Pair,
    /// Its links.
    pub paths: Vec<Path>,
    key_generation: u64,
    old_key_until: Option<Instant>,
    /// Of two that initiate at once, the one whose name comes first goes on.
    leads: bool,
    current: Option<Session>,
    next: Option<Session>,
    previous: Option<Session>,
    outgoing: Option<Outgoing>,
    answered: Option<([u8; EPHEMERAL_BYTES], Arc<[u8]>)>,
    newest_stamp: u64,
    last_stamp: u64,
    rounds: u64,
    trusted: (Instant, u32),
    met: Option<u64>,
    heard: Instant,
    heard_on_current: bool,
    probe_at: Instant,
    suspicions: Suspicions,
    queue: VecDeque<(Instant, Vec<u8>)>,
    bundle: Bundle,
    outbound: Outbound,
    inbound: Inbound,
}

impl PeerState {
    /// A peer not yet met.
    pub fn new(now: Instant, own_name: &str, id: u8, name: String, key: PublicKey, pair: Pair) -> Self {
        Self {
            leads: own_name < name.as_str(),
            id,
            name,
            key,
            pair,
            paths: Vec::new(),
            key_generation: 0,
            old_key_until: None,
            current: None,
            next: None,
            previous: None,
            outgoing: None,
            answered: None,
            newest_stamp: 0,
            last_stamp: 0,
            rounds: 0,
            trusted: (now, 0),
            met: None,
            heard: now,
            heard_on_current: false,
            probe_at: now,
            suspicions: Suspicions::default(),
            queue: VecDeque::new(),
            bundle: Bundle::default(),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
        }
    }

    /// Whether there is a session to send on.
    pub fn has_session(&self) -> bool {
        self.current.is_some()
    }

    /// What came from this peer's addresses without being its own.
    pub fn suspicions(&self) -> Suspicions {
        self.suspicions
    }

    /// Something came from one of this peer's addresses that is not of its making, as far as we can tell.
    pub fn suspect(&mut self, note: impl FnOnce(&mut Suspicions)) {
        note(&mut self.suspicions);
    }

    /// Long messages given up so far.
    pub fn incomplete(&self) -> u64 {
        self.inbound.incomplete
    }

    /// One of the two keys changed. Live sessions go on until a handshake with the new keys has ended.
    pub fn rekey(&mut self, now: Instant, key: PublicKey, pair: Pair) {
        (self.key, self.pair) = (key, pair);
        self.key_generation += 1;
        self.old_key_until = Some(now + OLD_KEY_FOR);
        (self.outgoing, self.answered, self.newest_stamp) = (None, None, 0);
    }

    /// Takes a new list of address pairs; those that stay keep their state.
    pub fn set_paths(&mut self, pairs: impl Iterator<Item = (IpAddr, IpAddr)>) {
        let mut old = std::mem::take(&mut self.paths);
        let mut keep = |(local, remote)| {
            let position = old.iter().position(|path| (path.local, path.remote) == (local, remote));
            position.map_or_else(|| Path::new(local, remote), |position| old.swap_remove(position))
        };
        self.paths = pairs.map(&mut keep).collect();
    }

    fn path_of(&self, local: IpAddr, remote: IpAddr) -> Option<usize> {
        self.paths.iter().position(|path| (path.local, path.remote) == (local, remote))
    }

    /// Whether a datagram from this address may come from this peer.
    pub fn is_at(&self, remote: IpAddr) -> bool {
        self.paths.iter().any(|path| path.remote == remote)
    }

    /// Whether one of the sessions has this index.
    pub fn knows(&self, index: u32) -> bool {
        [&self.current, &self.next, &self.previous].into_iter().flatten().any(|session| session.index == index)
    }

    /// Whether a handshake of ours has this index.
    pub fn awaits(&self, index: u32) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.index() == index)
    }

    /// Does what is due.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        if self.old_key_until.is_some_and(|until| until <= cx.now) {
            self.old_key_until = None;
            let generation = self.key_generation;
            for session in [&mut self.current, &mut self.next, &mut self.previous] {
                session.take_if(|session| session.key_generation != generation);
            }
        }
        let since = self.current.as_ref().map_or(cx.now, |current| current.since);
        if self.heard_on_current && since + PREVIOUS_FOR <= cx.now {
            self.previous = None;
        }
        for path in 0..self.paths.len() {
            let (clock, timing) = (cx.node.clock(cx.now), &cx.node.timing);
            let change = self.paths.get_mut(path).map(|path| path.tick(clock, timing));
            self.on_path_change(cx, path, change.unwrap_or_default());
        }
        self.tick_handshake(cx);
        if self.current.is_some() && self.probe_at <= cx.now {
            self.send_probes(cx, cx.node.next_probe(cx.now));
        }
        self.send_chunks(cx);
        self.send_repairs(cx);
        self.drop_stale_queue(cx);
    }

    /// When [`PeerState::tick`] has something to do.
    pub fn due(&self, node: &Node) -> Option<Instant> {
        let handshake = self.outgoing.as_ref().map_or_else(|| self.handshake_at(node), |outgoing| outgoing.due);
        let probe = self.current.is_some().then_some(self.probe_at);
        let paths = self.paths.iter().filter_map(|path| path.due(&node.timing));
        let queue = self.queue.front().map(|(since, _)| *since + QUEUED_FOR);
        [Some(handshake), probe, self.old_key_until, self.outbound.due(), self.inbound.due(), queue]
            .into_iter()
            .flatten()
            .chain(paths)
            .min()
    }
}
