//! What goes through a session: messages, chunks, probes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::TransportEvent;
use super::super::bundle::{self, MAX_BUNDLED_BYTES};
use super::super::endpoint::Transmit;
use super::super::message::Misfit;
use super::super::packet::{DATA_HEADER_BYTES, MAX_DATAGRAM_BYTES};
use super::super::path::PathChange;
use super::super::session::Opened;
use super::{Context, PeerState, QUEUED_FOR};

/// Messages that wait for the first session; older ones give way.
const QUEUED: usize = 16;
/// Their total length, in bytes.
const QUEUED_BYTES: usize = 64 * 1024;
/// The initiator confirms a session eagerly for so long.
const CONFIRM_FOR: Duration = Duration::from_millis(500);

// What the first sealed byte tells of the rest.
const PROBE: u8 = 0;
const BUNDLE: u8 = 1;
const CHUNK: u8 = 2;
const REPAIR: u8 = 3;

impl PeerState {
    /// Takes a message to send: with the others of this turn (see [`PeerState::flush`]), or, where there is none
    /// yet, with the first session.
    pub fn send(&mut self, cx: &mut Context<'_>, payload: &[u8]) {
        if self.current.is_none() {
            self.enqueue(cx, payload);
        } else if payload.len() > MAX_BUNDLED_BYTES {
            cx.out.stats.unsent += self.outbound.push(cx.now, payload);
            self.send_chunks(cx);
        } else {
            let full = self.bundle.add(payload);
            full.iter().for_each(|content| self.send_sealed(cx, BUNDLE, content));
        }
    }

    /// The turn is over: sends what was collected in it.
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        let Some(content) = self.bundle.take() else { return };
        self.send_sealed(cx, BUNDLE, &content);
        // A probe that is due soon goes along, so that it wakes nobody later.
        let interval = cx.node.timing.probe();
        if self.current.is_some() && self.probe_at <= cx.now + interval / 4 {
            self.send_probes(cx, cx.now + interval);
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

    pub(super) fn drop_stale_queue(&mut self, cx: &mut Context<'_>) {
        while self.queue.front().is_some_and(|(since, _)| *since + QUEUED_FOR <= cx.now) {
            self.queue.pop_front();
            cx.out.stats.unsent += 1;
        }
    }

    pub(super) fn send_chunks(&mut self, cx: &mut Context<'_>) {
        for chunk in self.outbound.burst(cx.now) {
            self.send_sealed(cx, CHUNK, &chunk);
        }
    }

    /// Asks for what is missing, and forgets what nobody asks us for.
    pub(super) fn send_repairs(&mut self, cx: &mut Context<'_>) {
        self.outbound.expire(cx.now);
        for request in self.inbound.tick(cx.now) {
            self.send_sealed(cx, REPAIR, &request);
        }
    }

    pub(super) fn send_sealed(&mut self, cx: &mut Context<'_>, kind: u8, content: &[u8]) {
        let mut plain = Vec::with_capacity(1 + content.len());
        plain.push(kind);
        plain.extend_from_slice(content);
        if let Some(datagram) = self.current.as_mut().and_then(|session| session.seal(&plain)) {
            self.transmit(cx, &datagram);
        }
    }

    pub(super) fn transmit(&mut self, cx: &mut Context<'_>, datagram: &Arc<[u8]>) {
        for path in 0..self.paths.len() {
            self.transmit_on(cx, path, datagram);
        }
    }

    pub(super) fn transmit_on(&mut self, cx: &mut Context<'_>, path: usize, datagram: &Arc<[u8]>) {
        if let Some(path) = self.paths.get_mut(path) {
            path.sent_bytes += datagram.len() as u64;
            let (local, remote) = (path.local, path.remote);
            cx.out.transmit(Transmit { peer: self.id, local, remote, datagram: datagram.clone() });
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
            path.received_bytes += (DATA_HEADER_BYTES + sealed.len()) as u64;
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
            BUNDLE => {
                let received = bundle::parts(content)?.into_iter().map(<[u8]>::to_vec);
                cx.out.events.extend(received.map(|payload| TransportEvent::Received { from, payload }));
            }
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
                let (clock, timing) = (cx.node.clock(cx.now), &cx.node.timing);
                let state = self.paths.get_mut(path);
                let change = state.and_then(|path| path.on_probe(clock, timing, (session, counter), content));
                if let Some(change) = change {
                    self.on_path_change(cx, path, change);
                }
            }
            _ => return Err(Misfit),
        }
        Ok(())
    }

    pub(super) fn on_path_change(&mut self, cx: &mut Context<'_>, path: usize, change: PathChange) {
        if let (Some(up), Some(state)) = (change.up, self.paths.get(path)) {
            cx.out.events.push_back(TransportEvent::LinkChanged { peer: self.id, link: state.remote, up });
        }
        if change.probe_now {
            self.send_probe(cx, path);
        }
    }

    /// Sends a probe on every link, and plans those after it for `next` at the latest.
    pub(super) fn send_probes(&mut self, cx: &mut Context<'_>, next: Instant) {
        for path in 0..self.paths.len() {
            self.send_probe(cx, path);
        }
        let confirming = self.current.as_ref().is_some_and(|session| {
            session.initiator && !self.heard_on_current && cx.now.saturating_duration_since(session.since) < CONFIRM_FOR
        });
        self.probe_at = if confirming { next.min(cx.now + cx.node.timing.retry()) } else { next };
    }

    fn send_probe(&mut self, cx: &mut Context<'_>, path: usize) {
        let Some(probe) = self.paths.get(path).map(|path| path.probe(cx.node.clock(cx.now))) else { return };
        let mut plain = vec![PROBE];
        plain.extend_from_slice(&probe);
        if let Some(datagram) = self.current.as_mut().and_then(|session| session.seal(&plain)) {
            self.transmit_on(cx, path, &datagram);
        }
    }
}
