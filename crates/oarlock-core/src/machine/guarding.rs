//! Who a primary waits for, and when it lets clients in: rule 4 on the owner's side
//! (PROTOCOL §1.7-1.9, §2). ON: a commit waits for every other member. OFF: it waits for nobody.

use crate::entry::{Entry, SetVersion};
use crate::ids::{CopyId, GroupId, NodeId};
use crate::resource::database::{DataCommand, DataStatus, Position, Running};
use crate::rules::Rules;
use crate::state::GroupState;
use crate::time::{Mono, Span};
use std::collections::{BTreeMap, BTreeSet};

/// A copy that wants into the set, as its node reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its node.
    pub node: NodeId,
    /// The copy.
    pub copy: CopyId,
    /// The database cluster's own identifier.
    pub system: u64,
}

/// What the owner knows when it decides about its set.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// This node, the owner.
    pub me: NodeId,
    /// The group's number.
    pub id: GroupId,
    /// The group as applied.
    pub group: &'a GroupState,
    /// Copies elsewhere that live, as reported.
    pub candidates: &'a [Candidate],
    /// All nodes that may have a copy.
    pub nodes: &'a [NodeId],
    /// This agent's own number.
    pub life: u64,
    /// Nodes committed as dead.
    pub dead: &'a BTreeSet<NodeId>,
    /// How long a member may be missing, or keep a commit waiting.
    pub patience: Span,
    /// Our own copy, for the first member of an empty set.
    pub own_copy: Option<(CopyId, u64)>,
    /// All in force, but in sabotage tests.
    pub rules: Rules,
}

/// A copy on its way into the set.
#[derive(Clone, Copy, Debug)]
struct Joining {
    candidate: Candidate,
    /// Set once proposed: the version it was proposed on.
    proposed: Option<SetVersion>,
}

/// What the owner does next about its set.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// To the database.
    Command(DataCommand),
    /// To the cluster.
    Propose(Entry),
}

/// Who waits for whom on this primary.
#[derive(Clone, Debug, Default)]
pub struct Guarding {
    /// Whom commits are proven to wait for; `None`: not known (nothing is acknowledged after a
    /// start; after an adoption whatever was proven before still holds).
    proven: Option<BTreeSet<NodeId>>,
    /// The position read after that proof.
    position: Position,
    /// A `SetGuard` under way.
    setting: Option<BTreeSet<NodeId>>,
    opened: bool,
    opening: bool,
    joining: Option<Joining>,
    /// A `Leave` of this agent's own was committed while this primary was ours; before that, a `Join`
    /// proposed by a former agent may still be under way. A newer version alone does not tell: an agent
    /// that has just started applies what was committed in the life of the former one.
    voided: bool,
    /// The version when this primary became ours, for sabotage tests.
    first_version: Option<u64>,
    status: Option<DataStatus>,
    missing_since: BTreeMap<NodeId, Mono>,
    connected: BTreeSet<NodeId>,
    retry_at: Mono,
    join_after: Mono,
}

/// A node that has no copy anywhere.
const NOBODY: NodeId = NodeId(0);
/// A standby this close to the primary may be waited for while it catches up, in bytes.
const NEAR: u64 = 4 * 1024 * 1024;
/// Pause after a guard that could not be set.
const RETRY: Span = Span::from_ms(100);
/// Pause after a copy that wanted in kept commits waiting, or went away.
const PAUSE: Span = Span::from_ms(1000);

impl Guarding {
    /// Clients are let in.
    pub fn is_open(&self) -> bool {
        self.opened
    }

    /// Whom commits are proven to wait for.
    pub fn proven(&self) -> Option<&BTreeSet<NodeId>> {
        self.proven.as_ref()
    }

    /// Nothing is known of the guard any more; it is set again.
    pub fn forget_guard(&mut self) {
        self.proven = None;
        self.setting = None;
    }

    /// The server has just become a primary: no standby is connected under this epoch's name yet.
    pub(super) fn began(&mut self) {
        self.status = Some(DataStatus {
            running: Running::Primary,
            position: Position::default(),
            streaming: true,
            standbys: Vec::new(),
            waiting_ms: 0,
            sick: None,
        });
    }

    pub(super) fn was_set(&mut self, position: Position) {
        self.proven = self.setting.take();
        self.position = position;
    }

    /// A `Leave` that this agent proposed was applied.
    pub fn was_voided(&mut self) {
        self.voided = true;
    }

    pub(super) fn was_opened(&mut self) {
        self.opening = false;
        self.opened = true;
    }

    pub(super) fn failed(&mut self, now: Mono) {
        self.forget_guard();
        self.opening = false;
        self.retry_at = now + RETRY;
    }

    pub(super) fn reported(&mut self, now: Mono, status: &DataStatus) {
        for standby in status.standbys.iter().filter(|standby| standby.streaming) {
            self.connected.insert(standby.node);
            self.missing_since.remove(&standby.node);
        }
        for node in &self.connected {
            if !streams(status, *node) {
                self.missing_since.entry(*node).or_insert(now);
            }
        }
        self.status = Some(status.clone());
    }

    /// When something is due that no event announces.
    pub fn wakeup(&self, patience: Span) -> Option<Mono> {
        self.missing_since.values().map(|since| *since + patience + Span(1)).min()
    }

    /// The next step, if any.
    pub fn next(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        if self.setting.is_some() || self.opening || now < self.retry_at {
            return None;
        }
        self.first_version.get_or_insert(view.group.version);
        if view.group.in_sync.is_empty() {
            // Our own, newly made copy is the first member.
            let (copy, system) = view.own_copy?;
            return Some(Step::Propose(Entry::Join { at: at(view), node: view.me, copy, system }));
        }
        if let Some(step) = self.shrink(now, view).or_else(|| self.follow_joining(now, view)) {
            return Some(step);
        }
        let members = self.required(view);
        if self.proven.as_ref() != Some(&members) {
            return self.set_guard(members, view);
        }
        if !self.opened && (self.all_flushed(&members) || !view.rules.open_flushed) {
            self.opening = true;
            return Some(Step::Command(DataCommand::Open));
        }
        self.advance_joining(now, view)
    }

    /// Members of the set other than this node, and whoever is on its way in.
    fn required(&self, view: &View<'_>) -> BTreeSet<NodeId> {
        let members = view.group.in_sync.keys().copied().filter(|node| *node != view.me);
        members.chain(self.joining.map(|joining| joining.candidate.node)).collect()
    }

    /// Proposes the smaller set when a member is missing; the guard follows once it is committed.
    fn shrink(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        let status = self.status.as_ref()?;
        let gone = |node: &NodeId| {
            if view.dead.contains(node) {
                return true;
            }
            let since = self.missing_since.get(node);
            let late = since.is_some_and(|since| now.since(*since) > view.patience);
            let never = !self.connected.contains(node);
            late || never || (stalled(status, view) && lags(status, *node))
        };
        let node = view.group.in_sync.keys().copied().filter(|node| *node != view.me).find(gone)?;
        if let Some(proven) = self.proven.as_ref().filter(|proven| !view.rules.leave_first && proven.contains(&node)) {
            let rest: BTreeSet<NodeId> = proven.iter().copied().filter(|member| *member != node).collect();
            return Some(self.order_guard(rest, view));
        }
        Some(leave(node, view))
    }

    /// Drops a joining copy that has arrived, or that went away. A `Join` that was proposed is
    /// voided by a committed new version, never by a timeout.
    fn follow_joining(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        let joining = self.joining?;
        let node = joining.candidate.node;
        if view.group.in_sync.get(&node) == Some(&joining.candidate.copy) {
            self.joining = None;
            return None;
        }
        let undecided = joining.proposed == Some(at(view));
        let keeps_up = |status: &DataStatus| streams(status, node) && !stalled(status, view);
        let there = view.candidates.contains(&joining.candidate) && self.status.as_ref().is_some_and(keeps_up);
        if there && (undecided || joining.proposed.is_none()) {
            return None;
        }
        if undecided {
            return Some(leave(node, view));
        }
        self.joining = None;
        self.join_after = now + PAUSE;
        None
    }

    fn set_guard(&mut self, members: BTreeSet<NodeId>, view: &View<'_>) -> Option<Step> {
        // Whoever is not waited for must not join by a late word of a former agent: see `voided`.
        let everybody = view.nodes.iter().all(|node| *node == view.me || members.contains(node));
        let voided = if view.rules.void_first { self.voided } else { self.first_version != Some(view.group.version) };
        if !everybody && !voided {
            return Some(leave(NOBODY, view));
        }
        Some(self.order_guard(members, view))
    }

    fn order_guard(&mut self, members: BTreeSet<NodeId>, view: &View<'_>) -> Step {
        self.setting = Some(members.clone());
        Step::Command(DataCommand::SetGuard { members: members.into_iter().collect(), epoch: view.group.epoch })
    }

    fn all_flushed(&self, members: &BTreeSet<NodeId>) -> bool {
        members.iter().all(|node| flushed(self.status.as_ref(), *node) >= Some(self.position))
    }

    /// Guard ON and proven, the copy has flushed what was there then: propose it; else look for
    /// one that could begin.
    fn advance_joining(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        if let Some(joining) = &mut self.joining {
            let Candidate { node, copy, system } = joining.candidate;
            if flushed(self.status.as_ref(), node) < Some(self.position) {
                return None;
            }
            joining.proposed = Some(at(view));
            return Some(Step::Propose(Entry::Join { at: at(view), node, copy, system }));
        }
        if now < self.join_after {
            return None;
        }
        let status = self.status.as_ref()?;
        let near = |candidate: &&Candidate| {
            let flushed = flushed(Some(status), candidate.node);
            !view.group.in_sync.contains_key(&candidate.node)
                && flushed.is_some_and(|flushed| status.position.0.saturating_sub(flushed.0) < NEAR)
        };
        let candidate = *view.candidates.iter().find(near)?;
        if !view.rules.join_catch_up {
            let Candidate { node, copy, system } = candidate;
            return Some(Step::Propose(Entry::Join { at: at(view), node, copy, system }));
        }
        self.joining = Some(Joining { candidate, proposed: None });
        let members = self.required(view);
        self.set_guard(members, view)
    }
}

fn leave(node: NodeId, view: &View<'_>) -> Step {
    Step::Propose(Entry::Leave { at: at(view), node, life: view.life })
}

fn at(view: &View<'_>) -> SetVersion {
    SetVersion { group: view.id, epoch: view.group.epoch, version: view.group.version }
}

fn stalled(status: &DataStatus, view: &View<'_>) -> bool {
    status.waiting_ms.saturating_mul(1000) > view.patience.0
}

fn streams(status: &DataStatus, node: NodeId) -> bool {
    status.standbys.iter().any(|standby| standby.node == node && standby.streaming)
}

fn flushed(status: Option<&DataStatus>, node: NodeId) -> Option<Position> {
    status?.standbys.iter().find(|standby| standby.node == node && standby.streaming).map(|standby| standby.flushed)
}

fn lags(status: &DataStatus, node: NodeId) -> bool {
    status.standbys.iter().find(|standby| standby.node == node).is_none_or(|standby| standby.flushed < status.position)
}
