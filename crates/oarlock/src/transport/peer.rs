//! Everything about one peer: its sessions, the handshake, its links, the messages on their way.
//!
//! Up to three sessions live at a time. `current` seals what we send. `next` was made by answering an initiation; it
//! becomes current when the peer seals something with it, which proves that the initiation was not an old one played
//! back. `previous` only opens what was sealed before the peer noticed the change.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crypto::{CookieJar, Hello, Pair, same};
use super::endpoint::{Output, Transmit};
use super::handshake::Outgoing;
use super::message::{Inbound, MAX_WHOLE_BYTES, Misfit, Outbound};
use super::packet::{Challenge, EPHEMERAL_BYTES, Initiation, MAX_DATAGRAM_BYTES, Response, challenge, response};
use super::path::{Path, PathChange};
use super::session::{Opened, Session};
use super::{LinkTiming, TransportEvent};
use crate::keys::PublicKey;

/// Messages that wait for the first session; older ones give way.
const QUEUED: usize = 16;
/// Their total length, in bytes.
const QUEUED_BYTES: usize = 64 * 1024;
/// What waited longer than this is of no use to anybody.
const QUEUED_FOR: Duration = Duration::from_millis(500);
/// Initiations taken on their stamp alone, per second; beyond, each must answer a challenge.
const TRUSTED_PER_SECOND: u32 = 8;
/// A peer not heard for this many times `down_after` may have lost the session: a handshake finds out.
const SILENT_FACTOR: u32 = 3;
/// … and at least this long.
const SILENT_AT_LEAST: Duration = Duration::from_secs(1);
/// A session made with a key that was replaced is still good for so long: the peer may learn of its new key by it.
const OLD_KEY_FOR: Duration = Duration::from_secs(300);
/// The initiator confirms a session eagerly for so long.
const CONFIRM_FOR: Duration = Duration::from_millis(500);

const PROBE: u8 = 0;
const WHOLE: u8 = 1;
const CHUNK: u8 = 2;
const REPAIR: u8 = 3;

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

    fn stamp(&self, now: Instant) -> u64 {
        self.wall_us.saturating_add(now.saturating_duration_since(self.start).as_micros() as u64)
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
    queue: VecDeque<(Instant, Vec<u8>)>,
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
            queue: VecDeque::new(),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
        }
    }

    /// Whether there is a session to send on.
    pub fn has_session(&self) -> bool {
        self.current.is_some()
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

    /// Sends a message, or lets it wait for the first session.
    pub fn send(&mut self, cx: &mut Context<'_>, payload: &[u8]) {
        if self.current.is_none() {
            self.enqueue(cx, payload);
        } else if payload.len() > MAX_WHOLE_BYTES {
            cx.out.stats.unsent += self.outbound.push(cx.now, payload);
            self.send_chunks(cx);
        } else {
            self.send_sealed(cx, WHOLE, payload);
        }
    }

    fn enqueue(&mut self, cx: &mut Context<'_>, payload: &[u8]) {
        self.queue.push_back((cx.now, payload.to_vec()));
        let total =
            |queue: &VecDeque<(Instant, Vec<u8>)>| queue.iter().map(|(_, payload)| payload.len()).sum::<usize>();
        // The newest always stays, even when it alone is longer than the limit.
        while self.queue.len() > QUEUED || self.queue.len() > 1 && total(&self.queue) > QUEUED_BYTES {
            self.queue.pop_front();
            cx.out.stats.unsent += 1;
        }
    }

    fn drop_stale_queue(&mut self, cx: &mut Context<'_>) {
        while self.queue.front().is_some_and(|(since, _)| *since + QUEUED_FOR <= cx.now) {
            self.queue.pop_front();
            cx.out.stats.unsent += 1;
        }
    }

    fn send_chunks(&mut self, cx: &mut Context<'_>) {
        for chunk in self.outbound.burst(cx.now) {
            self.send_sealed(cx, CHUNK, &chunk);
        }
    }

    fn send_sealed(&mut self, cx: &mut Context<'_>, kind: u8, content: &[u8]) {
        let mut plain = Vec::with_capacity(1 + content.len());
        plain.push(kind);
        plain.extend_from_slice(content);
        if let Some(datagram) = self.current.as_mut().and_then(|session| session.seal(&plain)) {
            self.transmit(cx, &datagram);
        }
    }

    fn transmit(&mut self, cx: &mut Context<'_>, datagram: &Arc<[u8]>) {
        for path in 0..self.paths.len() {
            self.transmit_on(cx, path, datagram);
        }
    }

    fn transmit_on(&mut self, cx: &mut Context<'_>, path: usize, datagram: &Arc<[u8]>) {
        if let Some(path) = self.paths.get_mut(path) {
            path.sent_bytes += datagram.len() as u64;
            let (local, remote) = (path.local, path.remote);
            cx.out.transmit(Transmit { peer: self.id, local, remote, datagram: datagram.clone() });
        }
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

    /// Something came for a session that we do not have: the peer may be waiting for a new one.
    pub fn on_sign_of_life(&mut self, cx: &mut Context<'_>) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.hurry(cx.now, cx.node.timing.retry());
        }
    }

    /// Takes the first message of a handshake.
    pub fn on_initiation(&mut self, cx: &mut Context<'_>, from: (IpAddr, IpAddr), message: &Initiation<'_>) {
        if !self.pair.verify(message.covered, message.mac) {
            cx.out.stats.unauthenticated += 1;
            return;
        }
        let ephemeral = message.ephemeral();
        if let Some((answered, response)) = self.answered.clone()
            && answered == ephemeral
        {
            // Its copy from another link, or its repetition because our answer was late or lost. Once the session is
            // confirmed nobody waits for that answer.
            if self.next.is_some() {
                self.answer(cx, from, &response);
            }
            return;
        }
        if self.leads
            && let Some(outgoing) = &mut self.outgoing
        {
            outgoing.hurry(cx.now, cx.node.timing.retry());
            return;
        }
        if !self.is_fresh(cx, message) {
            cx.out.stats.challenged += 1;
            let cookie = cx.node.jar.cookie(&self.pair.peer_tag, &ephemeral, self.rounds);
            let datagram = self.pair.authenticate(challenge(self.pair.own_tag, ephemeral, cookie));
            self.answer(cx, from, &datagram.into());
            return;
        }
        self.accept(cx, message);
    }

    fn is_fresh(&mut self, cx: &mut Context<'_>, message: &Initiation<'_>) -> bool {
        let cookie = cx.node.jar.cookie(&self.pair.peer_tag, &message.ephemeral(), self.rounds);
        if same(&cookie, &message.cookie) {
            return true;
        }
        if cx.now.saturating_duration_since(self.trusted.0) >= Duration::from_secs(1) {
            self.trusted = (cx.now, 0);
        }
        let fresh = message.stamp > self.newest_stamp && self.trusted.1 < TRUSTED_PER_SECOND;
        self.trusted.1 += u32::from(fresh);
        fresh
    }

    fn accept(&mut self, cx: &mut Context<'_>, message: &Initiation<'_>) {
        let hello = cx.node.hello();
        let Ok((peer, noise, answer)) = self.pair.respond(message.noise, hello) else {
            cx.out.stats.unauthenticated += 1;
            return;
        };
        self.newest_stamp = self.newest_stamp.max(message.stamp);
        self.rounds += 1;
        self.next = Some(Session::new(cx.now, hello.index, peer, noise, self.key_generation));
        let datagram: Arc<[u8]> = self.pair.authenticate(response(peer.index, &answer)).into();
        self.answered = Some((message.ephemeral(), datagram.clone()));
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.hold(cx.now, cx.node.timing.retry() * 3);
        }
        self.transmit(cx, &datagram);
    }

    /// Answers by the way that a message came; by all ways if that one is not in the configuration.
    fn answer(&mut self, cx: &mut Context<'_>, (local, remote): (IpAddr, IpAddr), datagram: &Arc<[u8]>) {
        match self.path_of(local, remote) {
            Some(path) => self.transmit_on(cx, path, datagram),
            None => self.transmit(cx, datagram),
        }
    }

    /// Takes a demand for a cookie.
    pub fn on_challenge(&mut self, cx: &mut Context<'_>, message: &Challenge<'_>) {
        if !self.pair.verify(message.covered, message.mac) {
            cx.out.stats.unauthenticated += 1;
            return;
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.challenge(cx.now, &message.ephemeral, message.cookie);
        }
        self.send_initiation(cx);
    }

    /// Takes the second message of a handshake.
    pub fn on_response(&mut self, cx: &mut Context<'_>, message: &Response<'_>) {
        let authentic = self.pair.verify(message.covered, message.mac);
        let Some(peer) = authentic.then(|| self.outgoing.as_mut()?.finish(message.noise)).flatten() else {
            cx.out.stats.unauthenticated += 1;
            return;
        };
        let outgoing = self.outgoing.take();
        if let Some(session) = outgoing.and_then(|outgoing| outgoing.into_session(cx.now, peer, self.key_generation)) {
            self.establish(cx, session);
        }
    }

    /// From here on `session` seals what we send.
    fn establish(&mut self, cx: &mut Context<'_>, session: Session) {
        cx.out.stats.handshakes += 1;
        let instance = session.peer.instance;
        if session.key_generation == self.key_generation {
            self.old_key_until = None;
        }
        self.previous = self.current.replace(session).filter(|old| old.key_generation == self.key_generation);
        self.outgoing = None;
        self.heard_on_current = false;
        (self.heard, self.probe_at) = (cx.now, cx.now);
        if self.met.replace(instance) != Some(instance) {
            self.inbound.reset();
            cx.out.events.push_back(TransportEvent::SessionUp { peer: self.id });
        }
        self.send_probes(cx);
        self.drop_stale_queue(cx);
        for (_, payload) in std::mem::take(&mut self.queue) {
            self.send(cx, &payload);
        }
    }

    /// Takes a datagram of one of the sessions.
    pub fn on_data(
        &mut self,
        cx: &mut Context<'_>,
        from: (IpAddr, IpAddr),
        link: usize,
        (index, counter, sealed): (u32, u64, &[u8]),
    ) {
        let mut plain = [0; MAX_DATAGRAM_BYTES];
        let sessions = [&mut self.current, &mut self.next, &mut self.previous];
        let Some(session) = sessions.into_iter().flatten().find(|session| session.index == index) else {
            return;
        };
        let opened = session.open(counter, sealed, link, &mut plain);
        let path = self.path_of(from.0, from.1);
        let stats = &mut cx.out.stats;
        match opened {
            Opened::Forged => stats.unauthenticated += 1,
            Opened::Replayed => stats.replayed += 1,
            Opened::Twin => stats.twins += 1,
            Opened::Plain(_) => {}
        }
        if matches!(opened, Opened::Plain(_) | Opened::Twin)
            && let Some(path) = path.and_then(|path| self.paths.get_mut(path))
        {
            path.received_bytes += sealed.len() as u64;
        }
        if let Opened::Plain(length) = opened
            && let Some((kind, content)) = plain[..length].split_first()
        {
            self.on_authentic(cx, index);
            if self.on_content(cx, path, (index, counter), *kind, content).is_err() {
                cx.out.stats.malformed += 1;
            }
        }
    }

    /// The peer sealed something new with the session `index`.
    fn on_authentic(&mut self, cx: &mut Context<'_>, index: u32) {
        self.heard = cx.now;
        if self.next.as_ref().is_some_and(|next| next.index == index)
            && let Some(next) = self.next.take()
        {
            self.establish(cx, next);
        }
        let on_current = self.current.as_ref().is_some_and(|current| current.index == index);
        self.heard_on_current |= on_current;
        if on_current && self.outgoing.as_ref().is_some_and(|outgoing| outgoing.on_silence) {
            self.outgoing = None;
        }
    }

    fn on_content(
        &mut self,
        cx: &mut Context<'_>,
        path: Option<usize>,
        (session, counter): (u32, u64),
        kind: u8,
        content: &[u8],
    ) -> Result<(), Misfit> {
        let from = self.id;
        match kind {
            WHOLE => cx.out.events.push_back(TransportEvent::Received { from, payload: content.to_vec() }),
            CHUNK => {
                let patience = (cx.node.timing.retry() * 2).max(Duration::from_millis(20));
                if let Some(payload) = self.inbound.on_chunk(cx.now, patience, content)? {
                    cx.out.events.push_back(TransportEvent::Received { from, payload });
                }
            }
            REPAIR => {
                self.outbound.on_repair(cx.now, content)?;
                self.send_chunks(cx);
            }
            PROBE => {
                let Some(path) = path else { return Ok(()) };
                let change = self.paths.get_mut(path).and_then(|p| p.on_probe(cx.now, session, counter, content));
                if let Some(change) = change {
                    self.on_path_change(cx, path, change);
                }
            }
            _ => return Err(Misfit),
        }
        Ok(())
    }

    fn on_path_change(&mut self, cx: &mut Context<'_>, path: usize, change: PathChange) {
        if let (Some(up), Some(state)) = (change.up, self.paths.get(path)) {
            cx.out.events.push_back(TransportEvent::LinkChanged { peer: self.id, link: state.remote, up });
        }
        if change.probe_now {
            self.send_probe(cx, path);
        }
    }

    fn send_probes(&mut self, cx: &mut Context<'_>) {
        for path in 0..self.paths.len() {
            self.send_probe(cx, path);
        }
        let confirming = self.current.as_ref().is_some_and(|session| {
            session.initiator && !self.heard_on_current && cx.now.saturating_duration_since(session.since) < CONFIRM_FOR
        });
        let timing = &cx.node.timing;
        self.probe_at = cx.now + if confirming { timing.probe().min(timing.retry()) } else { timing.probe() };
    }

    fn send_probe(&mut self, cx: &mut Context<'_>, path: usize) {
        let Some(probe) = self.paths.get(path).map(Path::probe) else { return };
        let mut plain = vec![PROBE];
        plain.extend_from_slice(&probe);
        if let Some(datagram) = self.current.as_mut().and_then(|session| session.seal(&plain)) {
            self.transmit_on(cx, path, &datagram);
        }
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
        for path in 0..self.paths.len() {
            let change = self.paths.get_mut(path).map(|path| path.tick(cx.now, &cx.node.timing));
            self.on_path_change(cx, path, change.unwrap_or_default());
        }
        self.tick_handshake(cx);
        if self.current.is_some() && self.probe_at <= cx.now {
            self.send_probes(cx);
        }
        self.send_chunks(cx);
        self.outbound.expire(cx.now);
        for request in self.inbound.tick(cx.now) {
            self.send_sealed(cx, REPAIR, &request);
        }
        self.drop_stale_queue(cx);
    }

    fn tick_handshake(&mut self, cx: &mut Context<'_>) {
        if self.outgoing.is_none() && self.handshake_at(cx.node) <= cx.now {
            self.outgoing = self.make_initiation(cx);
            let silent = self.current.is_some() && self.silent_at(&cx.node.timing) <= cx.now;
            if let Some(outgoing) = &mut self.outgoing {
                outgoing.on_silence = silent;
            }
        }
        if self.outgoing.as_ref().is_some_and(|outgoing| outgoing.due <= cx.now) {
            if self.outgoing.as_ref().is_some_and(|outgoing| outgoing.is_stale(cx.now))
                && let Some(fresh) = self.make_initiation(cx)
                && let Some(old) = &self.outgoing
            {
                self.outgoing = Some(fresh.replacing(old));
            }
            self.send_initiation(cx);
        }
    }

    fn make_initiation(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        self.last_stamp = cx.node.stamp(cx.now).max(self.last_stamp + 1);
        let hello = cx.node.hello();
        Outgoing::new(cx.now, &self.pair, hello, self.last_stamp, cx.node.timing.retry()).ok()
    }

    fn send_initiation(&mut self, cx: &mut Context<'_>) {
        if let Some(outgoing) = self.outgoing.as_mut().filter(|outgoing| outgoing.due <= cx.now) {
            let datagram = outgoing.datagram(cx.now, &self.pair).into();
            self.transmit(cx, &datagram);
        }
    }

    /// When a handshake of ours becomes necessary.
    fn handshake_at(&self, node: &Node) -> Instant {
        let Some(current) = &self.current else {
            // An answer of ours may be on its way to become a session.
            return self.next.as_ref().map_or(self.heard, |next| next.since + node.timing.retry() * 5);
        };
        if current.key_generation != self.key_generation {
            return self.heard;
        }
        // The initiator renews; the other only if that fails.
        let (after, after_sent) = match current.initiator {
            true => (node.renewal.after, node.renewal.after_sent),
            false => (node.renewal.after * 11 / 10, node.renewal.after_sent / 10 * 11),
        };
        let renew_at = if current.sent() >= after_sent { current.since } else { current.since + after };
        renew_at.min(self.silent_at(&node.timing))
    }

    fn silent_at(&self, timing: &LinkTiming) -> Instant {
        self.heard + (timing.down_after() * SILENT_FACTOR).max(SILENT_AT_LEAST)
    }

    /// When [`PeerState::tick`] has something to do.
    pub fn due(&self, node: &Node) -> Option<Instant> {
        let handshake = self.outgoing.as_ref().map_or_else(|| self.handshake_at(node), |outgoing| outgoing.due);
        let probe = self.current.is_some().then_some(self.probe_at);
        let paths = self.paths.iter().filter_map(|path| path.silent_from(&node.timing));
        let queue = self.queue.front().map(|(since, _)| *since + QUEUED_FOR);
        [Some(handshake), probe, self.old_key_until, self.outbound.due(), self.inbound.due(), queue]
            .into_iter()
            .flatten()
            .chain(paths)
            .min()
    }
}
