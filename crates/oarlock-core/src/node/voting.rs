//! This node as a voter: under which identity, and, as leader, who else votes.

use super::Core;
use crate::action::Action;
use crate::consensus::{Consensus, Frame};
use crate::entry::Entry;
use crate::happening::Happening;
use crate::ids::{NodeId, VoterId};
use crate::message::Message;
use crate::planner::voters::{self, Electorate};
use crate::state::State;
use crate::time::{Mono, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// After so many leases a dead node is taken for one that will not be back at once.
const ABSENT_LEASES: u64 = 5;
/// So many heartbeats after it was last asked for, a wish for a new identity is forgotten.
const FRESH_HEARTBEATS: u64 = 8;

/// What a node keeps about voters, itself included.
#[derive(Default)]
pub(super) struct Voting {
    /// The identity of this node's memory.
    pub(super) voter: VoterId,
    /// Whether that identity would survive a crash.
    pub(super) kept: bool,
    /// The identity under which each other node last spoke to us: our answers are for that one.
    speakers: BTreeMap<NodeId, VoterId>,
    /// Versions of the voters on their way to the disk, by ticket.
    pub(super) saving: Vec<(u64, u64)>,
    /// The newest version that is applied there.
    pub(super) saved_version: u64,
    /// Since when each dead node is dead, as seen here.
    dead_since: BTreeMap<NodeId, Mono>,
    /// As leader: nodes that have lost their memory, or (below) whose memory shall be given up;
    /// the new identity of each, and when it was last heard of.
    lost: Wishes,
    disowned: Wishes,
}

type Wishes = BTreeMap<NodeId, (VoterId, Mono)>;

impl Voting {
    pub(super) fn new(voter: VoterId, kept: bool) -> Voting {
        Voting { voter, kept, ..Voting::default() }
    }

    /// Everything up to this ticket is on the disk.
    pub(super) fn saved(&mut self, ticket: u64) {
        let saved = self.saving.iter().filter(|(at, _)| *at <= ticket).map(|(_, version)| *version);
        self.saved_version = saved.fold(self.saved_version, u64::max);
        self.saving.retain(|(at, _)| *at > ticket);
        self.kept = true;
    }

    pub(super) fn note_deaths(&mut self, now: Mono, state: &State) {
        for (id, node) in &state.nodes {
            if node.dead {
                self.dead_since.entry(*id).or_insert(now);
            } else {
                self.dead_since.remove(id);
            }
        }
    }
}

impl Core {
    /// Whether this node votes: the cluster knows it as a voter, and with the memory that it has.
    pub(super) fn votes(&self) -> bool {
        self.state.votes(self.me, self.voting.voter)
    }

    /// The identity of this node's memory.
    pub fn voter(&self) -> VoterId {
        self.voting.voter
    }

    pub(super) fn raft_received(&mut self, node: NodeId, from: VoterId, to: VoterId, frame: Frame) {
        // What was meant for a memory that is lost is not for this one; and an answer counts only
        // when it is that of the voter who is counted. What a leader says needs no such proof: who
        // elected it has looked.
        if to != self.voting.voter || (frame.is_answer() && from != self.state.node(node).voter) {
            return;
        }
        self.voting.speakers.insert(node, from);
        let Some(consensus) = &mut self.consensus else { return };
        if let Err(error) = consensus.step(node, frame) {
            self.renounce(error.to_string());
        }
    }

    pub(super) fn send_raft(&mut self, to: NodeId, frame: Frame) {
        let speaker = self.voting.speakers.get(&to).filter(|_| frame.is_answer());
        let meant = speaker.copied().unwrap_or_else(|| self.state.node(to).voter);
        self.send(to, Message::Raft { from: self.voting.voter, to: meant, frame: Box::new(frame) });
    }

    /// The memory of this voter is worth nothing: it says nothing more, and the next agent begins
    /// with none.
    pub(super) fn renounce(&mut self, reason: String) {
        if self.disabled.is_none() {
            self.disable(reason.clone());
            self.actions.push_back(Action::Renounce { reason });
        }
    }

    /// A leader speaks: it knows who we are, unless we have a memory it has not heard of.
    pub(super) fn identity_heard(&mut self, from: NodeId, nonce: u64, applied: u64, known: VoterId) {
        let admitted = self.state.node(self.me).voter == self.voting.voter;
        if admitted && known != self.voting.voter && applied > self.applied {
            self.renounce("another identity was given to this voter".to_owned());
        } else if !admitted && self.voting.kept && from != self.me {
            self.send(from, Message::Enrol { nonce, voter: self.voting.voter });
        }
    }

    /// As leader: a node has lost its memory and says so in answer to a fresh beacon.
    pub(super) fn enrol(&mut self, node: NodeId, nonce: u64, voter: VoterId) {
        let leads = self.consensus.as_ref().is_some_and(Consensus::may_plan);
        if leads && self.nonces.contains(&nonce) && self.state.node(node).voter != voter {
            self.voting.lost.insert(node, (voter, self.now));
        }
    }

    /// As leader: the memory of a node shall be given up.
    pub(super) fn disown(&mut self, node: NodeId, from: VoterId, to: VoterId) {
        let leads = self.consensus.as_ref().is_some_and(Consensus::may_plan);
        if leads && self.state.node(node).voter == from && from != to {
            self.voting.disowned.insert(node, (to, self.now));
        }
    }

    /// As leader: the next change of the voters.
    pub(super) fn plan_voters(&mut self) {
        let timing = self.state.config.timing;
        let (now, fresh) = (self.now, Span(timing.heartbeat.0 * FRESH_HEARTBEATS));
        for wishes in [&mut self.voting.lost, &mut self.voting.disowned] {
            wishes.retain(|_, (_, at)| now.since(*at) <= fresh);
        }
        let voters = &self.state.voters;
        let wished = !self.voting.lost.is_empty() || !self.voting.disowned.is_empty();
        let complete = voters.former.is_empty() && voters.nodes.len() == self.state.nodes.len();
        if complete && !wished && self.voting.dead_since.is_empty() {
            return;
        }
        let patience = Span(timing.lease.0 * ABSENT_LEASES);
        let dead = self.voting.dead_since.iter().filter(|(id, since)| **id != self.me && now.since(**since) > patience);
        let absent: BTreeSet<NodeId> = dead.map(|(id, _)| *id).collect();
        let identities =
            |wishes: &Wishes| -> BTreeMap<_, _> { wishes.iter().map(|(node, (voter, _))| (*node, *voter)).collect() };
        let (lost, disowned) = (identities(&self.voting.lost), identities(&self.voting.disowned));
        let state = Arc::clone(&self.state);
        let know = Electorate {
            state: &state,
            applied: self.applied,
            reports: &self.reports,
            silent: &self.suspected,
            absent: &absent,
            lost: &lost,
            disowned: &disowned,
            settle: self.rules.voters_settle,
        };
        let Some(entry) = voters::change(&know) else { return };
        match &entry {
            // Whoever is to go does not lead its own going.
            Entry::Voters { change, .. } if change.node() == self.me => {
                let next = self.other_voters().into_iter().find(|voter| !self.suspected.contains(voter));
                if let (Some(next), Some(consensus)) = (next, &mut self.consensus) {
                    consensus.hand_leadership(next);
                }
            }
            _ => self.propose(entry),
        }
    }

    /// The voters are others now. `mine` is the identity that this node had before, and `forgotten`
    /// a node that has another one now: of its log nothing is known.
    pub(super) fn voters_changed(&mut self, mine: VoterId, forgotten: Option<NodeId>) {
        let state = Arc::clone(&self.state);
        self.voter.voters_changed(self.now, &state);
        self.persisting.wanted = true;
        if mine == self.voting.voter && state.node(self.me).voter != mine {
            return self.renounce("another identity was given to this voter".to_owned());
        }
        let followed = self.consensus.as_mut().map(|consensus| consensus.follow_voters(&state, forgotten));
        if let Some(Err(error)) = followed {
            return self.disable(error.to_string());
        }
        if let Some(node) = forgotten {
            self.voting.lost.remove(&node);
            self.voting.disowned.remove(&node);
            self.record(Happening::VoterReplaced { node });
        }
        self.record(Happening::VotersChanged { voters: state.voters.nodes.iter().copied().collect() });
    }
}
