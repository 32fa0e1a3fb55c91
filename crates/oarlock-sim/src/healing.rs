//! The end of all faults: first, in some seeds, only for a core that is just sufficient, a majority of
//! the voters and one copy of each group's data that holds every acknowledged write; then for all.

use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::world::World;
use oarlock_core::ids::NodeId;
use oarlock_core::request::Request;
use std::collections::BTreeSet;

impl World {
    /// Everything is mended; what was asked for is taken back by [`World::calm_requests`].
    pub fn heal(&mut self) {
        self.say(usize::MAX, || "HEAL".into());
        self.checks.faulty = false;
        self.core = None;
        self.network.heal();
        for host in 0..self.hosts.len() {
            self.heal_host(host);
        }
    }

    fn heal_host(&mut self, host: usize) {
        self.power_on(host);
        self.pause(host, false);
        self.freeze(host, false);
        self.sentinel_continues(host, self.hosts[host].watch.number);
        self.hosts[host].broken_service = false;
        self.hosts[host].disk.slow_us = 0;
        self.hosts[host].sluggish_us = 0;
        self.hosts[host].linked = true;
        self.report_link(host);
        for instance in self.hosts[host].databases.values_mut() {
            if let Some(server) = &mut instance.server {
                server.frozen_us = None;
            }
        }
        let disabled = self.core(host).is_some_and(|core| core.disabled().is_some());
        if disabled && !self.hosts[host].disk.torn {
            self.agent_crashes(host);
        }
    }

    /// Mends only what a sufficient core needs, drawn at random. The others are off, or cut off as they are.
    pub fn heal_core(&mut self, draw: &mut Rng) {
        self.checks.faulty = false;
        self.network.heal();
        let core = self.draw_core(draw);
        self.core = Some(core.clone());
        for host in &core {
            self.heal_host(*host);
        }
        for host in (0..self.hosts.len()).filter(|host| !core.contains(host)) {
            if draw.chance(500) {
                self.power_off(host);
            }
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                self.network.cut(host, other);
                self.network.cut(other, host);
            }
        }
        self.say(usize::MAX, || format!("HEAL of {core:?} only"));
    }

    /// Hosts that suffice: in half of the cases none of them could be spared.
    fn draw_core(&self, draw: &mut Rng) -> BTreeSet<usize> {
        let mut core: BTreeSet<usize> = (0..self.hosts.len()).collect();
        let sparing = draw.chance(500);
        let mut others: Vec<usize> = core.iter().copied().collect();
        while !others.is_empty() {
            let host = others.swap_remove(draw.within(0, others.len() as u64 - 1) as usize);
            let smaller: BTreeSet<usize> = core.iter().copied().filter(|known| *known != host).collect();
            if self.is_sufficient(&smaller) && (sparing || draw.chance(500)) {
                core = smaller;
            }
        }
        if self.sabotage == Some(Sabotage::InsufficientCore) {
            core.pop_first();
        }
        core
    }

    /// Takes hosts into the core until it is sufficient; true when there were any to take. What was
    /// under way when the others were cut off may still be committed, and ask for more.
    pub fn extend_core(&mut self, draw: &mut Rng) -> bool {
        let enough = self.sabotage == Some(Sabotage::InsufficientCore);
        let Some(mut core) = self.core.clone().filter(|_| !enough) else { return false };
        let before = core.len();
        let mut others: Vec<usize> = (0..self.hosts.len()).filter(|host| !core.contains(host)).collect();
        while !self.is_sufficient(&core) && !others.is_empty() {
            let taken = draw.within(0, others.len() as u64 - 1) as usize;
            let host = others.swap_remove(taken);
            core.insert(host);
            for other in &core {
                self.network.mend(host, *other);
                self.network.mend(*other, host);
            }
            self.heal_host(host);
        }
        let grown = core.len() > before;
        self.core = Some(core);
        grown
    }

    fn is_sufficient(&self, core: &BTreeSet<usize>) -> bool {
        let truth = &self.checks.truth;
        let nodes: BTreeSet<NodeId> = core.iter().map(|host| self.hosts[*host].id).collect();
        let sound = |node: &&NodeId| {
            let disk = &self.hosts[usize::from(node.0) - 1].disk;
            !disk.torn && disk.saved().is_some_and(|saved| truth.votes(**node, saved.voter))
        };
        let sound: BTreeSet<NodeId> = nodes.iter().filter(sound).copied().collect();
        let former = sound.intersection(&truth.voters.former).count();
        if !truth.voters.is_majority(&sound) || former < truth.voters.former_majority {
            return false;
        }
        self.config.groups().all(|(id, group)| {
            let Some(state) = truth.group(id) else { return false };
            let holds = |node: &NodeId| {
                let copy = group.data_resource(id).and_then(|resource| {
                    self.hosts[usize::from(node.0) - 1].databases.get(&resource)?.dir.as_ref().map(|dir| dir.copy)
                });
                copy.is_some() && copy == state.in_sync.get(node).copied()
            };
            match group.data_resource(id) {
                // Data is begun only once every node has said that it has none.
                Some(_) if state.in_sync.is_empty() => group.nodes.iter().all(|node| nodes.contains(node)),
                Some(_) => group.nodes.iter().any(|node| nodes.contains(node) && holds(node)),
                None => group.nodes.iter().any(|node| nodes.contains(node)),
            }
        })
    }

    /// Whether a node is one that has to be served and counted on now.
    #[must_use]
    pub fn is_counted(&self, node: NodeId) -> bool {
        self.core.as_ref().is_none_or(|core| core.contains(&(usize::from(node.0) - 1)))
    }

    /// The administrator takes back what is still in force.
    pub fn calm_requests(&mut self) {
        let requests: Vec<Request> = {
            let truth = &self.checks.truth;
            let standby = truth.nodes.iter().filter(|(_, node)| node.standby);
            let online = standby.map(|(node, _)| Request::Standby { node: *node, on: false });
            online.chain(truth.maintenance.then_some(Request::Maintenance { on: false })).collect()
        };
        let is_well = |host: &usize| {
            self.is_counted(self.hosts[*host].id) && self.core(*host).is_some_and(|core| core.disabled().is_none())
        };
        let healthy = (0..self.hosts.len()).find(is_well);
        if let Some(host) = healthy {
            for request in requests {
                self.request(host, request);
            }
        }
    }
}
