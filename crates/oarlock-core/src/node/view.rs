//! The cluster as this node sees it, for people and programs.

use super::Core;
use crate::config::{GroupConfig, Kind, NodeConfig};
use crate::consensus::Consensus;
use crate::group;
use crate::ids::{GroupId, NodeId, ResourceId};
use crate::message::GroupReport;
use crate::planner::{self, Knowledge};
use crate::state::GroupState;
use crate::status::{GroupStatus, MemberStatus, NodeStatus, ResourceStatus, Status};
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// Everything; the shell adds addresses of links and what the kernel granted.
    pub fn status(&self) -> Status {
        let config = &self.state.config;
        Status {
            schema: 1,
            cluster: config.cluster.clone(),
            quorum: self.holder.is_live(self.now),
            leader: self.consensus.as_ref().and_then(Consensus::leader).map(|id| config.node_name(id)),
            generation: config.generation,
            nodes: config.nodes.iter().map(|node| self.node_status(node)).collect(),
            groups: config.groups().map(|(id, group)| self.group_status(id, group)).collect(),
        }
    }

    /// What the planner thinks of a group and each of its nodes: one line each.
    pub fn explain(&self, id: GroupId) -> Vec<String> {
        let (Some(config), Some(group)) = (self.state.config.group(id), self.state.group(id)) else {
            return vec!["no such group".into()];
        };
        let name = |node: NodeId| self.state.config.node_name(node);
        let mut lines = Vec::new();
        match self.state.living_owner(id) {
            Some(owner) => lines.push(format!("owned by {} under epoch {}", name(owner), group.epoch)),
            None => lines.push(match self.placement(id, config, group, None) {
                Ok(node) => format!("about to be given to {}", name(node)),
                Err(reason) => format!("blocked: {reason}"),
            }),
        }
        if !group.reason.is_empty() {
            lines.push(format!("last moved because: {}", group.reason));
        }
        for (name, up) in self.dependencies(config) {
            lines.push(match up {
                true => format!("depends on {name}, which is up"),
                false => format!("depends on {name}, which is not up: services are not started, those that run stay"),
            });
        }
        let owner = self.state.living_owner(id);
        lines.extend(owner.and_then(|owner| self.deaf(id, owner)).map(|text| format!("{text}: services wait")));
        let members: Vec<String> = group.in_sync.keys().map(|node| name(*node)).collect();
        if config.data_resource(id).is_some() {
            lines.push(format!("every acknowledged write is on: {}", members.join(", ")));
        }
        for node in &config.nodes {
            let text = self.obstacle_of(id, config, group, *node).unwrap_or_else(|| "could have it".into());
            let deaf = self.deaf(id, *node).map(|text| format!("; {text}")).unwrap_or_default();
            lines.push(format!("{}: {text}{deaf}", name(*node)));
        }
        lines
    }

    /// That a node does not hear of a group which is up as far as is known here, in words.
    fn deaf(&self, id: GroupId, node: NodeId) -> Option<String> {
        let awaited = self.group_report(node, id)?.awaits?;
        let up = group::is_usable(&self.state, &self.reports, awaited);
        let other = &self.state.config.group(awaited)?.name;
        up.then(|| format!("{} does not hear that group {other} is up", self.state.config.node_name(node)))
    }

    /// What is known of a node: one line each.
    pub fn explain_node(&self, node: NodeId) -> Vec<String> {
        let known = self.state.node(node);
        let life = match (known.generation, known.dead) {
            (0, _) => "was never here".to_owned(),
            (generation, true) => format!("declared dead in generation {generation}"),
            (generation, false) => format!("a member since generation {generation}"),
        };
        let mut lines = vec![life];
        if node != self.me {
            let silent_ms = self.now.since(self.voter.silent_since(node)).as_ms();
            lines.push(format!("last renewed its lease here {silent_ms} ms ago"));
        }
        if known.standby {
            lines.push("taken out of service by the administrator".to_owned());
        }
        for (id, config) in self.state.config.groups().filter(|(_, config)| config.nodes.contains(&node)) {
            let Some(group) = self.state.group(id) else { continue };
            let text = match self.state.living_owner(id) == Some(node) {
                true => "owned by it".to_owned(),
                false => self.obstacle_of(id, config, group, node).unwrap_or_else(|| "could have it".to_owned()),
            };
            lines.push(format!("group {}: {text}", config.name));
        }
        lines
    }

    /// Where each group would go if `node` failed now: the same planner, touching nothing.
    pub fn simulate_failure(&self, node: NodeId) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, config) in self.state.config.groups() {
            let Some(group) = self.state.group(id) else { continue };
            if self.state.living_owner(id) != Some(node) {
                lines.push(format!("{}: stays where it is", config.name));
                continue;
            }
            lines.push(match self.placement(id, config, group, Some(node)) {
                Ok(to) => format!("{}: goes to {}", config.name, self.state.config.node_name(to)),
                Err(reason) => format!("{}: stops: {reason}", config.name),
            });
        }
        let left: BTreeSet<NodeId> =
            self.state.voters.nodes.iter().copied().filter(|id| *id != node && self.state.is_alive(*id)).collect();
        let quorum = if self.state.voters.is_majority(&left) { "a majority is left" } else { "no majority is left" };
        lines.push(format!("voters: {} of {}: {quorum}", left.len(), self.state.voters.nodes.len()));
        lines
    }

    fn knowledge_with<T>(&self, look: impl FnOnce(&Knowledge<'_>) -> T) -> T {
        look(&Knowledge {
            state: &self.state,
            reports: &self.reports,
            silent: &self.suspected,
            promises: &BTreeMap::new(),
        })
    }

    fn placement(
        &self,
        id: GroupId,
        config: &GroupConfig,
        group: &GroupState,
        except: Option<NodeId>,
    ) -> planner::Placement {
        self.knowledge_with(|know| planner::place(know, id, config, group, except))
    }

    fn obstacle_of(&self, id: GroupId, config: &GroupConfig, group: &GroupState, node: NodeId) -> Option<String> {
        self.knowledge_with(|know| planner::obstacle(know, id, config, group, node))
    }

    fn node_status(&self, node: &NodeConfig) -> NodeStatus {
        let known = self.state.node(node.id);
        let heard =
            node.id == self.me || self.now.since(self.voter.silent_since(node.id)) <= self.config().timing.lease;
        let state = match () {
            () if !self.state.is_alive(node.id) || !heard => "offline",
            () if self.state.maintenance => "maintenance",
            () if known.standby => "standby",
            () => "online",
        };
        NodeStatus {
            name: node.name.clone(),
            role: if node.witness { "witness" } else { "server" }.into(),
            state: state.into(),
            realtime: false,
            watchdog: false,
            links: Vec::new(),
        }
    }

    /// The groups that one depends on, by name, and whether they are up.
    fn dependencies<'a>(&'a self, config: &'a GroupConfig) -> impl Iterator<Item = (&'a str, bool)> {
        let known = config.depends.iter().filter_map(|id| Some((*id, self.state.config.group(*id)?)));
        known.map(|(id, other)| (other.name.as_str(), group::is_usable(&self.state, &self.reports, id)))
    }

    /// What a group that is not up waits for, in words: what its owner says goes before what is known here.
    fn waiting(&self, id: GroupId, config: &GroupConfig, owner: NodeId) -> Option<String> {
        let said = self.group_report(owner, id).and_then(|report| self.state.config.group(report.awaits?));
        let known = || self.dependencies(config).find(|(_, up)| !up).map(|(name, _)| name);
        let name = said.map(|other| other.name.as_str()).or_else(known)?;
        let deaf = self.deaf(id, owner).map(|text| format!(" ({text})")).unwrap_or_default();
        Some(format!("waits for group {name} before it starts services{deaf}"))
    }

    fn group_report(&self, node: NodeId, id: GroupId) -> Option<&GroupReport> {
        // What a node said before it died says nothing of now.
        let report = self.reports.get(&node).filter(|_| self.state.is_alive(node))?;
        report.groups.get(usize::from(id.0))
    }

    fn group_status(&self, id: GroupId, config: &GroupConfig) -> GroupStatus {
        let group = self.state.group(id).cloned().unwrap_or_default();
        let owner = self.state.living_owner(id);
        let placed = self.placement(id, config, &group, None);
        let ready = owner.and_then(|owner| self.group_report(owner, id)).is_some_and(|report| report.ready);
        let leaving = owner.is_some() && group.wanted.is_some_and(|wanted| Some(wanted) != owner);
        let (state, reason) = match (owner, &placed) {
            (Some(_), _) if leaving => ("stopping", Some(group.reason.clone())),
            (Some(_), _) if ready => ("started", Some(group.reason.clone())),
            (Some(owner), _) => {
                ("starting", Some(self.waiting(id, config, owner).unwrap_or_else(|| group.reason.clone())))
            }
            (None, Ok(_)) => ("stopped", None),
            (None, Err(reason)) => ("blocked", Some(reason.clone())),
        };
        GroupStatus {
            name: config.name.clone(),
            state: state.into(),
            owner: owner.map(|owner| self.state.config.node_name(owner)),
            epoch: group.epoch,
            reason: reason.filter(|reason| !reason.is_empty()),
            resources: config
                .resources(id)
                .map(|(resource, _)| self.resource_status(resource, config, &group, owner))
                .collect(),
        }
    }

    fn resource_status(
        &self,
        id: ResourceId,
        config: &GroupConfig,
        group: &GroupState,
        owner: Option<NodeId>,
    ) -> ResourceStatus {
        let Some(resource) = self.state.config.resource(id) else { return ResourceStatus::default() };
        let kind = match resource.kind {
            Kind::Address | Kind::ReaderAddress => "address",
            Kind::Postgresql => "postgresql",
            Kind::Mariadb => "mariadb",
            Kind::Service => "service",
        };
        let on = |node: NodeId| self.group_report(node, id.group)?.resources.get(usize::from(id.index));
        let owned = owner.and_then(on);
        let members = config.nodes.iter().map(|node| self.member_status(*node, id, resource.kind, group, owner));
        // Readers are sent where the owner is not.
        let is_up = |node: &NodeId| on(*node).is_some_and(|report| report.state == "up");
        let elsewhere = resource.kind == Kind::ReaderAddress && config.nodes.iter().any(is_up);
        let state = owned.map_or("stopped", |report| report.state.as_ref());
        ResourceStatus {
            name: resource.name.clone(),
            kind: kind.into(),
            state: if elsewhere { "up" } else { state }.to_owned(),
            failures: owned.map_or(0, |report| report.failures),
            members: members.collect(),
        }
    }

    fn member_status(
        &self,
        node: NodeId,
        id: ResourceId,
        kind: Kind,
        group: &GroupState,
        owner: Option<NodeId>,
    ) -> MemberStatus {
        let report = self.group_report(node, id.group);
        let state = report.and_then(|report| report.resources.get(usize::from(id.index)));
        let state = state.map_or("unknown", |report| report.state.as_ref()).to_owned();
        let data = kind.is_database();
        let role = match state.as_str() {
            "primary" | "primary-closed" | "handing-over" => "primary",
            "standby" => "standby",
            _ => "none",
        };
        let position = |node: NodeId| Some(self.group_report(node, id.group)?.copy?.position.0);
        let lag = owner.and_then(position).zip(position(node)).map(|(ahead, here)| ahead.saturating_sub(here));
        MemberStatus {
            node: self.state.config.node_name(node),
            role: role.into(),
            state,
            in_sync: data && group.in_sync.contains_key(&node),
            lag_bytes: lag.filter(|_| kind == Kind::Postgresql),
            lag_transactions: lag.filter(|_| kind == Kind::Mariadb),
        }
    }
}
