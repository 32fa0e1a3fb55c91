//! Leases, promises and generations: this node as holder, as voter, and as leader.

use super::Core;
use crate::action::Action;
use crate::consensus::Consensus;
use crate::entry::Entry;
use crate::happening::Happening;
use crate::ids::NodeId;
use crate::lease::Reply;
use crate::message::{Message, Promise, Renew};
use crate::time::{Mono, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Beacons whose nonce is still fresh.
const FRESH_NONCES: usize = 4;

impl Core {
    /// As holder: notice a lapse, renew when due. As leader: the beacon.
    pub(super) fn keep_lease(&mut self) {
        self.notice_lapse();
        if self.disabled.is_some() || !self.is_time_to_renew() {
            return;
        }
        self.turn.beat = false;
        let timing = self.state.config.timing;
        self.next_renew = self.now + timing.heartbeat;
        if self.voter.shorten(self.now, timing.lease) {
            self.persisting.wanted = true;
            // What is still on its way to the disk will not be there for long.
            self.persisting.leases.clear();
        }
        self.renew();
        if self.consensus.as_ref().is_some_and(Consensus::may_plan) {
            self.send_beacon();
        }
    }

    /// Every heartbeat, and sooner with the leader's beat: all nodes then renew in the turn in which the consensus
    /// library and the beacon make them speak anyway. It is never later for that.
    pub(super) fn is_time_to_renew(&self) -> bool {
        let early = if self.turn.beat { self.state.config.timing.heartbeat.scaled(5, 8) } else { Span::ZERO };
        self.now + early >= self.next_renew
    }

    pub(super) fn notice_lapse(&mut self) {
        if self.holder.expire(self.now) {
            self.after_lapse();
        }
    }

    fn renew(&mut self) {
        let timing = self.state.config.timing;
        let lease = self.grace.unwrap_or(timing.lease);
        let current = self.state.node(self.me).generation == self.holder.generation() && !self.state.node(self.me).dead;
        if !current {
            return;
        }
        let state = self.state.clone();
        let Some(renew) = self.holder.renew(self.now, &state.voters, lease, timing.heartbeat) else { return };
        for voter in self.other_voters() {
            self.send(voter, Message::Renew(renew));
        }
        if self.votes() {
            match self.voter.on_renew(self.now, self.me, &renew, &state) {
                Reply::Ack => self.acked(self.me, &renew),
                Reply::SaveFirst => self.persisting.wanted = true,
                Reply::Refuse { above } => self.refused(renew.generation, above),
                Reply::Ignore => {}
            }
        }
    }

    pub(super) fn renew_received(&mut self, from: NodeId, renew: &Renew) {
        // What is not on the disk yet does not count: neither does our word.
        if (self.persisting.saved == 0 && self.persisting.ticket > 0) || !self.votes() {
            return;
        }
        if self.nonces.contains(&renew.beacon) {
            self.echoed.insert(from, self.now);
        }
        match self.voter.on_renew(self.now, from, renew, &self.state) {
            Reply::Ack => self.send(from, Message::Acked(*renew)),
            Reply::Refuse { above } => self.send(from, Message::Refused { generation: renew.generation, above }),
            Reply::SaveFirst => self.persisting.wanted = true,
            Reply::Ignore => {}
        }
    }

    pub(super) fn acked(&mut self, from: NodeId, renew: &Renew) {
        let Some(moved) = self.holder.acknowledged(from, renew, &self.state.voters) else { return };
        let deadline = if self.rules.lease_from_sending { moved.deadline } else { self.now + renew.lease };
        self.holder.told_sentinel(self.now);
        self.actions.push_back(Action::ArmLease {
            generation: self.holder.generation(),
            incarnation: self.holder.incarnation(),
            deadline,
            shortens: moved.shortens,
            floor_index: self.applied,
        });
    }

    pub(super) fn refused(&mut self, generation: u64, above: u64) {
        if generation == self.holder.generation() {
            self.refused_above = self.refused_above.max(above);
        }
    }

    /// The sentinel has silenced this node (the only thing that ends an incarnation).
    pub(super) fn lapsed(&mut self, generation: u64) {
        if generation > self.holder.generation() {
            return;
        }
        if self.holder.is_begun() && generation < self.holder.generation() {
            // The next generation was begun before the sentinel heard of it: it goes on, but what
            // ran under the former one is gone.
            for driver in &mut self.drivers {
                driver.forget();
            }
            return;
        }
        if self.holder.is_begun() {
            self.holder.lapse();
            self.after_lapse();
        }
        // A lease that the sentinel was told of later may have let something start once more.
        if !self.silenced && generation >= self.holder.armed() {
            self.silenced = true;
            self.holder.new_incarnation();
            for driver in &mut self.drivers {
                driver.forget();
            }
        }
    }

    fn after_lapse(&mut self) {
        self.silenced = false;
        self.record(Happening::LeaseLapsed { generation: self.holder.generation() });
        for driver in &mut self.drivers {
            driver.forget();
        }
    }

    fn send_beacon(&mut self) {
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let nonce = self.next_nonce;
        self.nonces.push_back(nonce);
        while self.nonces.len() > FRESH_NONCES {
            self.nonces.pop_front();
        }
        for peer in self.peers() {
            let voter = self.state.node(peer).voter;
            self.send(peer, Message::Beacon { nonce, applied: self.applied, voter });
        }
        self.beacon(self.me, nonce);
    }

    /// A leader that we hear: ask it for a generation if ours is over.
    pub(super) fn beacon(&mut self, from: NodeId, nonce: u64) {
        self.turn.beat = true;
        self.holder.heard_beacon(nonce);
        let known = self.state.node(self.me);
        let begun = self.holder.is_begun() && known.generation == self.holder.generation() && !known.dead;
        let refused = self.refused_above >= self.holder.generation() && self.refused_above > 0;
        let ready = self.silenced && self.applied >= self.floor_index && self.consensus.is_some();
        if !ready || (begun && !refused && known.incarnation == self.holder.incarnation()) {
            return;
        }
        let incarnation = self.holder.incarnation();
        let above = self.refused_above;
        if from == self.me {
            self.want_alive(self.me, nonce, known.generation, incarnation, above);
        } else {
            let generation = known.generation;
            self.send(from, Message::WantAlive { nonce, generation, incarnation, above });
        }
    }

    /// As leader: whoever answers a fresh beacon hears and is heard.
    pub(super) fn want_alive(&mut self, node: NodeId, nonce: u64, generation: u64, incarnation: u64, above: u64) {
        let leads = self.consensus.as_ref().is_some_and(Consensus::may_plan);
        if !leads || !self.nonces.contains(&nonce) || self.state.node(node).generation != generation {
            return;
        }
        let to = generation.max(above).saturating_add(1);
        self.propose(Entry::Alive { node, from: generation, to, incarnation });
    }

    /// As leader: who is silent, and the wish for promises about them.
    pub(super) fn suspect(&mut self) {
        let timing = self.state.config.timing;
        let patience = Span(timing.lease.0 / 2);
        let state = self.state.clone();
        let silent = |node: &NodeId| {
            *node != self.me && state.is_alive(*node) && self.now.since(self.voter.silent_since(*node)) > patience
        };
        let suspected: BTreeSet<NodeId> = state.nodes.keys().copied().filter(silent).collect();
        let before = std::mem::replace(&mut self.suspected, suspected);
        for node in self.suspected.difference(&before) {
            self.actions.push_back(Action::Record(Happening::NodeSilent { node: *node }));
        }
        for node in before.difference(&self.suspected).filter(|node| state.is_alive(**node)) {
            self.actions.push_back(Action::Record(Happening::NodeHeard { node: *node }));
        }
        if self.now.since(self.asked_at) < timing.heartbeat {
            return;
        }
        self.asked_at = self.now;
        for node in self.suspected.clone() {
            let generation = state.node(node).generation;
            let wish = Promise { node, generation, voters_version: state.voters.version };
            for voter in self.other_voters().into_iter().filter(|voter| *voter != node) {
                self.send(voter, Message::PromiseWanted(wish));
            }
            self.promise_wanted(self.me, wish);
        }
    }

    /// As leader: when a node that is heard now will have been silent for too long.
    pub(super) fn silences(&self) -> impl Iterator<Item = Mono> {
        let leads = self.consensus.as_ref().is_some_and(Consensus::may_plan);
        let lease = self.state.config.timing.lease;
        let a_moment = Span(1);
        let nodes = self.state.nodes.keys().filter(move |node| leads && **node != self.me);
        let silent = nodes.map(move |node| self.voter.silent_since(*node) + Span(lease.0 / 2) + a_moment);
        let deaf = self.echoed.values().filter(move |_| leads).map(move |at| *at + lease + a_moment);
        silent.chain(deaf)
    }

    pub(super) fn promise_wanted(&mut self, from: NodeId, wish: Promise) {
        if wish.node != self.me && self.votes() {
            self.wishes.insert(wish, from);
        }
    }

    /// As voter: promise what may be promised by now.
    pub(super) fn keep_promises(&mut self) {
        if self.disabled.is_some() || self.wishes.is_empty() {
            return;
        }
        let state = self.state.clone();
        let mut kept = Vec::new();
        for (wish, from) in std::mem::take(&mut self.wishes) {
            let current = state.node(wish.node).generation == wish.generation
                && !state.node(wish.node).dead
                && wish.voters_version >= state.voters.version;
            // Heard since: the wish is void, the leader will ask again if need be.
            let heard = self
                .voter
                .heard(wish.node)
                .is_some_and(|at| self.now.since(at) < Span(state.config.timing.lease.0 / 2));
            if !current || heard {
                continue;
            }
            match self.voter.promise(self.now, &wish, &state, self.rules) {
                Some(true) if self.rules.durable_promises => {
                    self.persisting.wanted = true;
                    self.persisting.promises.push((0, wish));
                    kept.push((wish, from));
                }
                Some(_) => {
                    let saving = self.persisting.promises.iter().any(|(_, known)| *known == wish);
                    if saving {
                        kept.push((wish, from));
                    } else {
                        self.say_promised(from, wish);
                    }
                }
                None => kept.push((wish, from)),
            }
        }
        self.wishes.extend(kept);
    }

    /// Promises whose ticket is saved are said.
    pub(super) fn give_promises(&mut self) {
        let saved = self.persisting.saved;
        self.persisting.promises.retain(|(ticket, _)| *ticket == 0 || *ticket > saved);
    }

    fn say_promised(&mut self, to: NodeId, promise: Promise) {
        if to == self.me {
            self.promised(self.me, promise);
        } else {
            self.send(to, Message::Promised(promise));
        }
    }

    /// As leader: an owner that is heard but does not hear us could commit nothing under us (a link
    /// that is cut one way). Nor could one that we do not hear and that is not dead all the same: for longer than
    /// promises take, somebody else hears it. Another voter that it may hear leads better.
    pub(super) fn yield_to_the_heard(&mut self) {
        let patience = self.state.config.timing.lease;
        let settled = self.led_since.is_some_and(|since| self.now.since(since) > patience);
        let state = self.state.clone();
        let hears = |node: NodeId, echoed: &BTreeMap<NodeId, Mono>| {
            echoed.get(&node).is_some_and(|at| self.now.since(*at) <= patience)
        };
        let owners = state.config.groups().filter_map(|(id, _)| state.living_owner(id));
        let promised_by_now = state.config.timing.with_drift(self.voter.lease_max()) + patience;
        let deaf = |owner: &NodeId| match self.suspected.contains(owner) {
            true => self.now.since(self.voter.silent_since(*owner)) > promised_by_now,
            false => *owner != self.me && !hears(*owner, &self.echoed),
        };
        if !settled || !owners.into_iter().any(|owner| deaf(&owner)) {
            return;
        }
        // In a ring, so that everybody has a turn until one is heard.
        let (before, after): (Vec<NodeId>, Vec<NodeId>) =
            self.other_voters().into_iter().partition(|voter| *voter < self.me);
        let next = after.into_iter().chain(before).find(|voter| hears(*voter, &self.echoed));
        if let (Some(next), Some(consensus)) = (next, &mut self.consensus) {
            consensus.hand_leadership(next);
            self.led_since = Some(self.now);
            self.record(Happening::Note {
                text: format!("an owner does not hear us, or we do not hear it: {next} shall lead"),
            });
        }
    }

    pub(super) fn other_voters(&self) -> Vec<NodeId> {
        self.state.voters.nodes.iter().copied().filter(|voter| *voter != self.me).collect()
    }

    /// As leader: collect.
    pub(super) fn promised(&mut self, from: NodeId, promise: Promise) {
        self.promises.entry(promise).or_default().insert(from);
    }

    /// The clock of this node.
    pub fn now(&self) -> Mono {
        self.now
    }
}
