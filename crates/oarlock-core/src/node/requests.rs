//! What the administrator asks: turned into entries, answered when seen to have taken effect.

use super::Core;
use crate::action::Action;
use crate::consensus::Consensus;
use crate::entry::Entry;
use crate::ids::{GroupId, NodeId, VoterId};
use crate::message::Message;
use crate::planner::{self, Knowledge};
use crate::request::{Answer, GRACE_LONGEST, Request};
use crate::time::{Mono, Span};
use std::collections::{BTreeMap, BTreeSet};

/// How long a request may take before it is answered with what stands in its way.
const DEADLINE: Span = Span::from_ms(30_000);

/// A request under way.
pub(super) struct PendingRequest {
    id: u64,
    request: Request,
    pub(super) deadline: Mono,
    /// The epoch a move started from; a group that is back without a move has refused it.
    epoch: u64,
    accepted: bool,
    /// For a replacement: the identity that ends, and the one that nobody has.
    voter: (VoterId, VoterId),
    /// When it was last passed on.
    asked_at: Mono,
}

impl Core {
    pub(super) fn requested(&mut self, id: u64, request: Request) {
        let epoch = match &request {
            Request::Move { group, .. } => self.state.group(*group).map_or(0, |group| group.epoch),
            _ => 0,
        };
        if let Some(answer) = self.refusal(&request) {
            self.actions.push_back(Action::Answer { id, answer });
            return;
        }
        if let Request::Grace { grace_ms } = &request {
            self.grace = Some(Span::from_ms(*grace_ms).min(GRACE_LONGEST));
            self.next_renew = self.now;
        }
        let former = match &request {
            Request::Replace { node } => self.state.node(*node).voter,
            _ => VoterId::FIRST,
        };
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let voter = (former, VoterId(self.next_nonce.max(1)));
        let (deadline, asked_at) = (self.now + DEADLINE, Mono(0));
        self.requests.push(PendingRequest { id, request, deadline, epoch, accepted: false, voter, asked_at });
    }

    /// Proposes what pending requests need and answers those that are done.
    pub(super) fn check_requests(&mut self) {
        let pending = std::mem::take(&mut self.requests);
        for mut request in pending {
            let answer = self.progress(&mut request);
            match answer {
                Some(answer) => self.actions.push_back(Action::Answer { id: request.id, answer }),
                None => self.requests.push(request),
            }
        }
    }

    fn refusal(&self, request: &Request) -> Option<Answer> {
        if self.disabled.is_some() {
            return Some(Answer::Negative("this node takes part in nothing: its state is in doubt".into()));
        }
        if let Request::Replace { node } = request {
            return self.unreplaceable(*node);
        }
        let Request::Move { group, to } = request else { return None };
        let config = self.state.config.group(*group)?;
        let state = self.state.group(*group)?;
        if self.state.living_owner(*group) == Some(*to) {
            return Some(Answer::Done);
        }
        if !config.nodes.contains(to) {
            let name = self.state.config.node_name(*to);
            return Some(Answer::Negative(format!("{name} is not a node of group {}", config.name)));
        }
        let reason = self.obstacle(*group, *to)?;
        let name = self.state.config.node_name(*to);
        let counted = config.data_resource(*group).is_none() || state.in_sync.contains_key(to);
        Some(if counted {
            Answer::Negative(format!("{name} cannot have it: {reason}"))
        } else {
            Answer::Unsafe(format!("{name} cannot have it: {reason}"))
        })
    }

    /// Without the node, the others must be able to decide.
    fn unreplaceable(&self, node: NodeId) -> Option<Answer> {
        let config = &self.state.config;
        let mut others = self.state.voters.nodes.clone();
        let majority = self.state.voters.majority();
        others.remove(&node);
        let there = others.iter().filter(|other| self.state.is_alive(**other)).count();
        (there < majority).then(|| {
            let names: Vec<String> = others.iter().map(|other| config.node_name(*other)).collect();
            Answer::Unsafe(format!(
                "{there} of the other voters ({}) are there, {majority} have to agree without {}",
                names.join(", "),
                config.node_name(node)
            ))
        })
    }

    /// The leader changes the voters, in its own time.
    fn ask_to_disown(&mut self, pending: &mut PendingRequest) {
        let Request::Replace { node } = pending.request else { return };
        let again = Span(self.state.config.timing.heartbeat.0 * 3);
        if self.now.since(pending.asked_at) < again {
            return;
        }
        pending.asked_at = self.now;
        let (from, to) = pending.voter;
        match self.consensus.as_ref().and_then(Consensus::leader) {
            Some(leader) if leader == self.me => self.disown(node, from, to),
            Some(leader) => self.send(leader, Message::Disown { node, from, to }),
            None => {}
        }
    }

    fn obstacle(&self, group: GroupId, to: NodeId) -> Option<String> {
        let know = Knowledge {
            state: &self.state,
            reports: &self.reports,
            silent: &BTreeSet::new(),
            promises: &BTreeMap::new(),
        };
        let config = self.state.config.group(group)?;
        planner::obstacle(&know, group, config, self.state.group(group)?, to)
    }

    fn progress(&mut self, pending: &mut PendingRequest) -> Option<Answer> {
        if let Some(answer) = self.outcome(pending) {
            return Some(answer);
        }
        if self.now >= pending.deadline {
            let leader = self.consensus.as_ref().and_then(Consensus::leader);
            return Some(match leader {
                Some(_) => Answer::Negative(format!("not done within {} s", DEADLINE.as_ms() / 1000)),
                None => Answer::NoQuorum,
            });
        }
        self.ask_to_disown(pending);
        if let Some(entry) = self.entry_for(pending) {
            self.propose(entry);
        }
        None
    }

    fn entry_for(&self, pending: &PendingRequest) -> Option<Entry> {
        match &pending.request {
            Request::Move { group, to } if !pending.accepted => {
                Some(Entry::Want { group: *group, epoch: pending.epoch, node: Some(*to) })
            }
            Request::Standby { node, on } if !pending.accepted && self.state.node(*node).standby != *on => {
                Some(Entry::Standby { node: *node, on: *on })
            }
            Request::Maintenance { on } if self.state.maintenance != *on => Some(Entry::Maintenance { on: *on }),
            Request::Clear { resource } if !pending.accepted => Some(Entry::Clear { resource: *resource }),
            Request::Apply { config } if config.generation > self.config().generation => {
                Some(Entry::Configure(config.clone()))
            }
            _ => None,
        }
    }

    fn outcome(&self, pending: &mut PendingRequest) -> Option<Answer> {
        match &pending.request {
            Request::Move { group, to } => {
                let state = self.state.group(*group)?;
                if self.state.living_owner(*group) == Some(*to) {
                    return self.is_started(*group).then_some(Answer::Done);
                }
                pending.accepted |= state.wanted == Some(*to) || state.epoch != pending.epoch;
                let back = state.epoch == pending.epoch || self.state.living_owner(*group).is_some();
                let given_up = pending.accepted && state.wanted.is_none() && back;
                given_up.then(|| Answer::Negative("the owner could not hand it over; see `oarlock events`".into()))
            }
            Request::Standby { node, on } => {
                let done = self.state.node(*node).standby == *on;
                let owned: Vec<&str> = self
                    .state
                    .config
                    .groups()
                    .filter(|(id, _)| self.state.living_owner(*id) == Some(*node))
                    .map(|(_, config)| config.name.as_str())
                    .collect();
                let waits = *on && !owned.is_empty();
                // Asked for once is asked for: whoever takes it back meanwhile has the last word.
                pending.accepted |= done;
                match (done, waits) {
                    (true, waits) => (!waits).then_some(Answer::Done),
                    (false, _) => pending.accepted.then(|| Answer::Negative("taken back meanwhile".into())),
                }
            }
            Request::Maintenance { on } => (self.state.maintenance == *on).then_some(Answer::Done),
            Request::Clear { resource } => {
                let entry = Entry::Clear { resource: *resource };
                let under_way = self.proposed.iter().any(|(known, _)| *known == entry);
                let done = pending.accepted && !under_way;
                pending.accepted |= under_way;
                done.then_some(Answer::Done)
            }
            Request::Apply { config } => {
                let running = self.config();
                if running.generation < config.generation {
                    return None;
                }
                Some(if running.text == config.text {
                    Answer::Done
                } else {
                    Answer::Negative(format!("another configuration became generation {}", config.generation))
                })
            }
            Request::Replace { node } => (self.state.node(*node).voter != pending.voter.0).then_some(Answer::Done),
            Request::Grace { grace_ms } => {
                let enough = self.now + Span::from_ms(grace_ms / 2).min(GRACE_LONGEST.scaled(1, 2));
                self.holder.deadline().is_some_and(|deadline| deadline > enough).then_some(Answer::Done)
            }
        }
    }

    fn is_started(&self, group: GroupId) -> bool {
        let Some(owner) = self.state.living_owner(group) else { return false };
        let report = self.reports.get(&owner).and_then(|report| report.groups.get(usize::from(group.0)));
        report.is_some_and(|report| report.ready)
    }
}
