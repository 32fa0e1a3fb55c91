//! The replicated state: the only truth. A node acts only on what it has applied.

use crate::config::Config;
use crate::entry::{Entry, FirstCopy, Moved, Proof, SetVersion};
use crate::ids::{CopyId, GroupId, NodeId, VoterId};
use crate::voters::Voters;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What every node that has applied the same entries agrees on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The running configuration.
    pub config: Arc<Config>,
    /// Who votes.
    pub voters: Voters,
    /// What is known of each node.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// By `GroupId`.
    pub groups: Vec<GroupState>,
    /// Nothing is started, stopped or moved.
    pub maintenance: bool,
}

/// One node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Counts its lives; 0: was never here.
    pub generation: u64,
    /// This generation was proven dead.
    pub dead: bool,
    /// Which start of the machine this generation belongs to.
    pub incarnation: u64,
    /// Taken out of service by the administrator.
    pub standby: bool,
    /// The memory of votes and promises that counts as its own.
    pub voter: VoterId,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Counts owners.
    pub epoch: u64,
    /// Who may run it.
    pub owner: Option<Owner>,
    /// Who owned it before; first choice among equals.
    pub last_owner: Option<NodeId>,
    /// The former owner did not say goodbye: unguarded resources wait for the stop budget.
    pub must_wait: bool,
    /// Why it has this owner, in words.
    pub reason: String,
    /// Where the administrator or the planner wants it.
    pub wanted: Option<NodeId>,
    /// Counts changes of `in_sync`, and voids what was proposed on an older one.
    pub version: u64,
    /// The copies that hold every acknowledged write.
    pub in_sync: BTreeMap<NodeId, CopyId>,
    /// The database cluster's own identifier, once there is one.
    pub system: Option<u64>,
}

/// Who owns a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The incarnation that was given it.
    pub incarnation: u64,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It changed the state.
    Applied,
    /// It was decided on something that is no longer so.
    Stale(&'static str),
}

use Outcome::{Applied, Stale};

impl State {
    /// The state a cluster begins with, the same on every node.
    pub fn begin(config: Config) -> State {
        let nodes: BTreeSet<NodeId> = config.nodes.iter().map(|node| node.id).collect();
        State {
            nodes: nodes.iter().map(|id| (*id, NodeState::default())).collect(),
            voters: Voters::begin(nodes),
            groups: vec![GroupState::default(); config.groups.len()],
            config: Arc::new(config),
            maintenance: false,
        }
    }

    /// A node's state; the default for one that is not known.
    pub fn node(&self, id: NodeId) -> NodeState {
        self.nodes.get(&id).copied().unwrap_or_default()
    }

    /// Whether a node lives, as far as is committed.
    pub fn is_alive(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.generation > 0 && !node.dead
    }

    /// A group.
    pub fn group(&self, id: GroupId) -> Option<&GroupState> {
        self.groups.get(usize::from(id.0))
    }

    /// The owner, when it lives and is still the incarnation that was given the group.
    pub fn living_owner(&self, id: GroupId) -> Option<NodeId> {
        let owner = self.group(id)?.owner?;
        let valid = self.is_alive(owner.node) && self.node(owner.node).incarnation == owner.incarnation;
        valid.then_some(owner.node)
    }

    /// Applies one committed entry.
    pub fn apply(&mut self, entry: &Entry) -> Outcome {
        match entry {
            Entry::Alive { node, from, to, incarnation } => self.alive(*node, *from, *to, *incarnation),
            Entry::Take { node, generation, proof, moves } => self.take(*node, *generation, proof, moves),
            Entry::Own { moved, first } => self.own(moved, *first),
            Entry::Release { group, epoch, incarnation, unwaited, prefer, reason } => {
                let outcome = self.release(*group, *epoch, *incarnation, *unwaited);
                if let (Applied, Some(state)) = (outcome, self.groups.get_mut(usize::from(group.0))) {
                    state.wanted = prefer.or(state.wanted);
                    state.reason.clone_from(reason);
                }
                outcome
            }
            Entry::Join { at, node, copy, system } => self.join(*at, *node, *copy, *system),
            Entry::Leave { at, node, .. } => self.leave(*at, *node),
            Entry::Rejoin { group, epoch, node, incarnation, .. } => self.rejoin(*group, *epoch, *node, *incarnation),
            Entry::Want { group, epoch, node } => self.want(*group, *epoch, *node),
            Entry::Standby { node, on } => self.set_standby(*node, *on),
            Entry::Maintenance { on } => {
                self.maintenance = *on;
                Applied
            }
            // Failures are each node's own; see `Core`.
            Entry::Clear { .. } => Applied,
            Entry::Configure(config) => self.configure(config),
            Entry::Voters { version, change } => self.change_voters(*version, change),
            Entry::VotersSettled { version, lease_max } => self.settle_voters(*version, *lease_max),
        }
    }

    fn alive(&mut self, id: NodeId, from: u64, to: u64, incarnation: u64) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else { return Stale("unknown node") };
        if node.generation != from || to <= from {
            return Stale("generation");
        }
        *node = NodeState { generation: to, dead: false, incarnation, ..*node };
        Applied
    }

    fn take(&mut self, id: NodeId, generation: u64, proof: &Proof, moves: &[Moved]) -> Outcome {
        let Proof::Promised { voters_version, by } = proof;
        if *voters_version != self.voters.version || !self.voters.is_majority(by) {
            return Stale("proof");
        }
        match self.nodes.get_mut(&id) {
            Some(node) if node.generation == generation && !node.dead => node.dead = true,
            _ => return Stale("generation"),
        }
        for moved in moves {
            // A group that cannot move stays with the dead owner; the planner tries again.
            self.own(moved, None);
        }
        Applied
    }

    fn own(&mut self, moved: &Moved, first: Option<FirstCopy>) -> Outcome {
        if self.living_owner(moved.group).is_some() {
            return Stale("has an owner");
        }
        if !self.is_alive(moved.to) || self.node(moved.to).incarnation != moved.incarnation {
            return Stale("new owner does not live");
        }
        let Some(group) = self.groups.get_mut(usize::from(moved.group.0)) else { return Stale("unknown group") };
        if group.epoch != moved.epoch {
            return Stale("epoch");
        }
        match (group.in_sync.is_empty(), first) {
            (false, None) if !group.in_sync.contains_key(&moved.to) => return Stale("not in sync"),
            (false, Some(_)) => return Stale("has data already"),
            (true, Some(first)) => {
                group.in_sync.insert(moved.to, first.copy);
                group.system = Some(first.system);
            }
            _ => {}
        }
        if let Some(former) = group.owner {
            group.reason = match former.node == moved.to {
                true => "back after a restart or a lapse".into(),
                false => format!("taken over from {}, which is dead", self.config.node_name(former.node)),
            };
        }
        // Inherited: an owner that let go before it had waited leaves the waiting to the next.
        group.must_wait |= group.owner.is_some();
        // A planned move has ended, here or elsewhere: handed over again at once to a node that
        // cannot have it, the group would never come to rest.
        group.wanted = group.wanted.filter(|wanted| group.owner.is_some() && *wanted != moved.to);
        group.last_owner = Some(moved.to);
        group.owner = Some(Owner { node: moved.to, incarnation: moved.incarnation });
        group.epoch += 1;
        group.version += 1;
        Applied
    }

    fn release(&mut self, id: GroupId, epoch: u64, incarnation: u64, unwaited: bool) -> Outcome {
        let Some(group) = self.groups.get_mut(usize::from(id.0)) else { return Stale("unknown group") };
        match group.owner {
            Some(owner) if group.epoch == epoch && owner.incarnation == incarnation => {}
            _ => return Stale("epoch"),
        }
        group.must_wait = unwaited;
        group.owner = None;
        group.epoch += 1;
        group.version += 1;
        Applied
    }

    fn at(&mut self, at: SetVersion) -> Option<&mut GroupState> {
        let group = self.groups.get_mut(usize::from(at.group.0))?;
        (group.epoch == at.epoch && group.version == at.version && group.owner.is_some()).then_some(group)
    }

    fn join(&mut self, at: SetVersion, node: NodeId, copy: CopyId, system: u64) -> Outcome {
        let Some(group) = self.at(at) else { return Stale("version") };
        if *group.system.get_or_insert(system) != system {
            return Stale("another database");
        }
        group.in_sync.insert(node, copy);
        group.version += 1;
        Applied
    }

    fn leave(&mut self, at: SetVersion, node: NodeId) -> Outcome {
        let Some(group) = self.at(at) else { return Stale("version") };
        // The last copy is the data: nothing may make the set empty.
        if group.in_sync.len() == 1 && group.in_sync.contains_key(&node) {
            return Stale("last copy");
        }
        group.in_sync.remove(&node);
        group.version += 1;
        Applied
    }

    fn rejoin(&mut self, id: GroupId, epoch: u64, node: NodeId, incarnation: u64) -> Outcome {
        if self.node(node).incarnation != incarnation || !self.is_alive(node) {
            return Stale("incarnation");
        }
        let Some(group) = self.groups.get_mut(usize::from(id.0)) else { return Stale("unknown group") };
        let other_owns = group.owner.is_some_and(|owner| owner.node != node);
        if group.epoch != epoch || !other_owns || group.in_sync.contains_key(&node) {
            return Stale("copy is counted on");
        }
        // Voids a `Join` of the copy that is about to change.
        group.version += 1;
        Applied
    }

    fn want(&mut self, id: GroupId, epoch: u64, node: Option<NodeId>) -> Outcome {
        match self.groups.get_mut(usize::from(id.0)) {
            Some(group) if group.epoch == epoch => {
                group.wanted = node;
                Applied
            }
            _ => Stale("epoch"),
        }
    }

    fn set_standby(&mut self, id: NodeId, on: bool) -> Outcome {
        match self.nodes.get_mut(&id) {
            Some(node) => {
                node.standby = on;
                Applied
            }
            None => Stale("unknown node"),
        }
    }

    fn configure(&mut self, config: &Config) -> Outcome {
        if config.generation != self.config.generation + 1 {
            return Stale("generation");
        }
        self.groups.resize(config.groups.len(), GroupState::default());
        self.config = Arc::new(config.clone());
        Applied
    }
}
