//! Handshakes with one peer: when they begin, who yields, when a session replaces another.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::crypto::same;
use super::super::handshake::Outgoing;
use super::super::packet::{Challenge, Initiation, Response, challenge, response};
use super::super::path::Path;
use super::super::session::Session;
use super::super::{LinkTiming, TransportEvent};
use super::{Context, Node, PeerState};

/// Initiations taken on their stamp alone, per second; beyond, each must answer a challenge.
const TRUSTED_PER_SECOND: u32 = 8;
/// A peer not heard for this many times `down_after` may have lost the session: a handshake finds out.
const SILENT_FACTOR: u32 = 3;
/// … and at least this long.
const SILENT_AT_LEAST: Duration = Duration::from_secs(1);

impl PeerState {
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
            // The peer will hear us seal with this session. Were an older one promoted after it, the two ends could
            // settle on different ones.
            self.next = None;
            self.establish(cx, session);
        }
    }

    /// From here on `session` seals what we send.
    pub(super) fn establish(&mut self, cx: &mut Context<'_>, session: Session) {
        cx.out.stats.handshakes += 1;
        let instance = session.peer.instance;
        if session.key_generation == self.key_generation {
            self.old_key_until = None;
        }
        self.previous = self.current.replace(session);
        self.outgoing = None;
        self.heard_on_current = false;
        (self.heard, self.probe_at) = (cx.now, cx.now);
        if self.met.replace(instance) != Some(instance) {
            self.inbound.reset();
            self.paths.iter_mut().for_each(Path::forget_peer_clock);
            cx.out.events.push_back(TransportEvent::SessionUp { peer: self.id });
        }
        self.send_probes(cx, cx.node.next_probe(cx.now));
        self.drop_stale_queue(cx);
        for (_, payload) in std::mem::take(&mut self.queue) {
            self.send(cx, &payload);
        }
    }

    pub(super) fn tick_handshake(&mut self, cx: &mut Context<'_>) {
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
    pub(super) fn handshake_at(&self, node: &Node) -> Instant {
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
}
