//! The protocol of all peers together, without sockets and without a clock.
//!
//! Feed it with [`Endpoint::send`], [`Endpoint::on_datagram`] and [`Endpoint::on_timeout`]; at the end of the turn call
//! [`Endpoint::flush`]; then take what it wants sent ([`Endpoint::poll_transmit`]) and told ([`Endpoint::poll_event`]).
//! Call [`Endpoint::on_timeout`] again at [`Endpoint::due`].

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::crypto::{CookieJar, Pair};
use super::message::MAX_PAYLOAD_BYTES;
use super::packet::{Packet, Refusal, parse};
use super::peer::{Context, Node, PeerState, Renewal};
use super::{
    LinkStatus, LinkTiming, LocalNode, MAX_LINKS, MAX_PEERS, Peer, SendError, Stats, Suspicions, TransportError,
    TransportEvent, pair_links,
};
use crate::keys::{PrivateKey, PublicKey, random_bytes};

/// Datagrams that wait for a socket; the shell takes them after every call, so this is only reached by a bug.
const MAX_TRANSMITS: usize = 8192;

/// A datagram to send.
#[derive(Debug, Clone)]
pub struct Transmit {
    /// The peer it is for.
    pub peer: u8,
    /// The address of ours to send it from.
    pub local: IpAddr,
    /// The address to send it to.
    pub remote: IpAddr,
    /// Its content.
    pub datagram: Arc<[u8]>,
}

/// What the protocol wants sent, told and counted.
#[derive(Debug, Default)]
pub struct Output {
    /// To be told to the caller.
    pub events: VecDeque<TransportEvent>,
    /// Counters.
    pub stats: Stats,
    transmits: VecDeque<Transmit>,
}

impl Output {
    /// Wants a datagram sent.
    pub fn transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() < MAX_TRANSMITS {
            self.transmits.push_back(transmit);
        } else {
            self.stats.unsent += 1;
        }
    }
}

/// The protocol of one node.
pub struct Endpoint {
    cluster: String,
    name: String,
    private_key: PrivateKey,
    links: Vec<IpAddr>,
    peers: Vec<PeerState>,
    node: Node,
    out: Output,
}

impl Endpoint {
    /// `wall_us` is the wall clock in microseconds; it only has to grow from one start of this node to the next, and if
    /// it does not, handshakes take one more exchange.
    pub fn new(
        now: Instant,
        wall_us: u64,
        local: &LocalNode,
        cluster: &str,
        peers: Vec<Peer>,
        timing: LinkTiming,
    ) -> Result<Self, TransportError> {
        let mut random = [0; 12];
        random_bytes(&mut random).map_err(TransportError::Randomness)?;
        let [a, b, c, d, instance @ ..] = random;
        let node = Node {
            instance: u64::from_le_bytes(instance),
            jar: CookieJar::new().map_err(TransportError::Randomness)?,
            timing,
            renewal: Renewal::default(),
            next_index: u32::from_le_bytes([a, b, c, d]),
            start: now,
            wall_us,
        };
        let mut endpoint = Self {
            cluster: cluster.to_owned(),
            name: local.name.clone(),
            private_key: local.private_key.clone(),
            links: Vec::new(),
            peers: Vec::new(),
            node,
            out: Output::default(),
        };
        endpoint.replace(now, &local.links, peers)?;
        Ok(endpoint)
    }

    /// Takes another set of own links and peers. What is unchanged keeps its sessions; a peer with a new key keeps them
    /// until the handshake with the new key has ended. On an error nothing changes.
    pub fn replace(&mut self, now: Instant, links: &[IpAddr], peers: Vec<Peer>) -> Result<(), TransportError> {
        self.check(links, &peers)?;
        let mut pairs = Vec::with_capacity(peers.len());
        for peer in &peers {
            pairs.push(self.pair(&self.private_key, peer)?);
        }
        let mut old = std::mem::take(&mut self.peers);
        for (peer, pair) in peers.into_iter().zip(pairs) {
            let known = old.iter().position(|state| state.id == peer.id && state.name == peer.name);
            let mut state = match known {
                Some(position) => old.swap_remove(position),
                None => PeerState::new(now, &self.name, peer.id, peer.name, peer.public_key, pair),
            };
            if known.is_some() && state.key != peer.public_key {
                let pair = self.pair_with(&self.private_key, &state.name, &peer.public_key)?;
                state.rekey(now, peer.public_key, pair);
            }
            let paths = pair_links(links, &peer.links);
            state.set_paths(paths.into_iter().filter_map(|(i, j)| Some((*links.get(i)?, *peer.links.get(j)?))));
            self.peers.push(state);
        }
        self.links = links.to_vec();
        Ok(())
    }

    /// Takes a new key of our own. Live sessions go on; new ones use the new key.
    pub fn replace_private_key(&mut self, now: Instant, key: PrivateKey) -> Result<(), TransportError> {
        let mut pairs = Vec::with_capacity(self.peers.len());
        for peer in &self.peers {
            pairs.push(self.pair_with(&key, &peer.name, &peer.key)?);
        }
        for (peer, pair) in self.peers.iter_mut().zip(pairs) {
            peer.rekey(now, peer.key, pair);
        }
        self.private_key = key;
        Ok(())
    }

    fn pair(&self, private_key: &PrivateKey, peer: &Peer) -> Result<Pair, TransportError> {
        self.pair_with(private_key, &peer.name, &peer.public_key)
    }

    fn pair_with(&self, private_key: &PrivateKey, name: &str, key: &PublicKey) -> Result<Pair, TransportError> {
        Pair::new(&self.cluster, (&self.name, private_key), (name, key))
            .map_err(|source| TransportError::Key { node: name.to_owned(), source })
    }

    fn check(&self, links: &[IpAddr], peers: &[Peer]) -> Result<(), TransportError> {
        if peers.len() > MAX_PEERS {
            return Err(TransportError::Peers { peers: peers.len() });
        }
        let counts = peers.iter().map(|peer| (&peer.name, peer.links.len()));
        for (node, links) in counts.chain([(&self.name, links.len())]) {
            if links == 0 || links > MAX_LINKS {
                return Err(TransportError::Links { node: node.clone(), links });
            }
        }
        let own_key = self.private_key.public();
        for (position, peer) in peers.iter().enumerate() {
            let duplicate = |first: &str, what| {
                Err(TransportError::Duplicate { first: first.to_owned(), second: peer.name.clone(), what })
            };
            if peer.name == self.name {
                return duplicate(&self.name, "name");
            }
            if peer.public_key == own_key {
                return duplicate(&self.name, "key");
            }
            for other in peers.iter().take(position) {
                if other.id == peer.id {
                    return duplicate(&other.name, "id");
                }
                if other.name == peer.name {
                    return duplicate(&other.name, "name");
                }
                if other.public_key == peer.public_key {
                    return duplicate(&other.name, "key");
                }
            }
        }
        Ok(())
    }

    /// Takes a message, to be sent at the next [`Endpoint::flush`] and as soon as there is a session. A peer that is down is no error.
    pub fn send(&mut self, now: Instant, peer: u8, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            self.out.stats.too_large += 1;
            return Err(SendError::TooLarge { bytes: payload.len() });
        }
        let position = self.peers.iter().position(|state| state.id == peer);
        let position = position.ok_or(SendError::UnknownPeer { peer })?;
        self.with(now, position, |state, cx| state.send(cx, payload));
        Ok(())
    }

    /// The turn is over: what was given to [`Endpoint::send`] since the last call leaves.
    pub fn flush(&mut self, now: Instant) {
        for position in 0..self.peers.len() {
            self.with(now, position, |peer, cx| peer.flush(cx));
        }
    }

    /// Takes a datagram that arrived at our address `local` from `remote`.
    pub fn on_datagram(&mut self, now: Instant, local: IpAddr, remote: IpAddr, datagram: &[u8]) {
        match parse(datagram) {
            Ok(packet) => self.on_packet(now, (local, remote), packet),
            Err(Refusal::Malformed) => self.out.stats.malformed += 1,
            Err(Refusal::OtherVersion) => {
                self.out.stats.other_version += 1;
                self.suspect(remote, |suspicions| suspicions.other_version += 1);
            }
        }
    }

    fn on_packet(&mut self, now: Instant, from: (IpAddr, IpAddr), packet: Packet<'_>) {
        let before = self.out.stats.unauthenticated;
        let peer = self.find(|peer| match &packet {
            Packet::Data { receiver, .. } => peer.knows(*receiver),
            Packet::Response(message) => peer.awaits(message.receiver),
            Packet::Initiation(message) => peer.pair.peer_tag == message.tag,
            Packet::Challenge(message) => peer.pair.peer_tag == message.tag,
        });
        let link = self.links.iter().position(|link| *link == from.0).unwrap_or_default();
        match (peer, &packet) {
            (Some(peer), Packet::Data { receiver, counter, sealed }) => {
                self.with(now, peer, |peer, cx| peer.on_data(cx, from, link, (*receiver, *counter, sealed)));
            }
            (Some(peer), Packet::Initiation(message)) => {
                self.with(now, peer, |peer, cx| peer.on_initiation(cx, from, message));
            }
            (Some(peer), Packet::Response(message)) => self.with(now, peer, |peer, cx| peer.on_response(cx, message)),
            (Some(peer), Packet::Challenge(message)) => self.with(now, peer, |peer, cx| peer.on_challenge(cx, message)),
            (None, Packet::Data { .. }) => {
                self.out.stats.unauthenticated += 1;
                // Perhaps the peer seals with a session that we lost in a restart.
                if let Some(peer) = self.find(|peer| peer.is_at(from.1)) {
                    self.with(now, peer, |peer, cx| peer.on_sign_of_life(cx));
                }
            }
            // The copy of a response, from another link.
            (None, Packet::Response(message)) if self.find(|peer| peer.knows(message.receiver)).is_some() => {
                self.out.stats.twins += 1;
            }
            (None, _) => self.out.stats.unauthenticated += 1,
        }
        if self.out.stats.unauthenticated > before {
            self.suspect(from.1, |suspicions| suspicions.unauthenticated += 1);
        }
    }

    fn suspect(&mut self, remote: IpAddr, note: impl FnOnce(&mut Suspicions)) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.is_at(remote)) {
            peer.suspect(note);
        }
    }

    fn find(&self, is_it: impl Fn(&PeerState) -> bool) -> Option<usize> {
        self.peers.iter().position(is_it)
    }

    fn with(&mut self, now: Instant, position: usize, act: impl FnOnce(&mut PeerState, &mut Context<'_>)) {
        let mut cx = Context { now, node: &mut self.node, out: &mut self.out };
        if let Some(peer) = self.peers.get_mut(position) {
            act(peer, &mut cx);
        }
    }

    /// Does what is due. Calling it early does no harm.
    pub fn on_timeout(&mut self, now: Instant) {
        for position in 0..self.peers.len() {
            self.with(now, position, |peer, cx| peer.tick(cx));
        }
    }

    /// When [`Endpoint::on_timeout`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.peers.iter().filter_map(|peer| peer.due(&self.node)).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.out.events.pop_front()
    }

    /// Whether [`Endpoint::poll_event`] has something.
    pub fn has_event(&self) -> bool {
        !self.out.events.is_empty()
    }

    /// The operating system refused a datagram.
    pub fn on_send_error(&mut self, transmit: &Transmit) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == transmit.peer);
        let mut paths = peer.into_iter().flat_map(|peer| &mut peer.paths);
        if let Some(path) = paths.find(|path| (path.local, path.remote) == (transmit.local, transmit.remote)) {
            path.send_errors += 1;
            path.sent_bytes = path.sent_bytes.saturating_sub(transmit.datagram.len() as u64);
        }
    }

    /// Whether messages to this peer leave at once.
    pub fn has_session(&self, peer: u8) -> bool {
        self.peers.iter().any(|state| state.id == peer && state.has_session())
    }

    /// The links to a peer; empty for one we do not know.
    pub fn links(&self, now: Instant, peer: u8) -> Vec<LinkStatus> {
        let peers = self.peers.iter().filter(|state| state.id == peer);
        peers.flat_map(|state| &state.paths).map(|path| path.status(now)).collect()
    }

    /// What came from a peer's addresses without being acceptable as the peer's; nothing for one we do not know.
    pub fn suspicions(&self, peer: u8) -> Suspicions {
        let peer = self.peers.iter().find(|state| state.id == peer);
        peer.map(PeerState::suspicions).unwrap_or_default()
    }

    /// What was dropped so far.
    pub fn stats(&self) -> Stats {
        let incomplete = self.peers.iter().map(PeerState::incomplete).sum();
        Stats { incomplete, ..self.out.stats }
    }

    /// Renews sessions at another age, for tests.
    #[cfg(test)]
    pub fn set_renewal(&mut self, renewal: Renewal) {
        self.node.renewal = renewal;
    }
}
