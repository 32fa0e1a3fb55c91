//! Two sets of voters are never in force at once: a majority of one could grant a lease that a
//! majority of the other has promised away. And whoever is taken for dead has no lease any more.

use crate::world::World;
use oarlock_core::ids::{NodeId, VoterId};
use oarlock_core::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// Every version of the voters that was seen: who they are, under which identities.
#[derive(Default)]
pub struct Memory {
    seen: BTreeMap<u64, BTreeMap<NodeId, VoterId>>,
    /// By host: the version it acts under, and its identity.
    acting: BTreeMap<usize, (u64, VoterId)>,
}

impl Memory {
    /// Whether these hosts, one bit each, are a majority of the voters of a version.
    #[must_use]
    pub fn is_majority(&self, version: u64, hosts: u64) -> bool {
        self.seen.get(&version).is_some_and(|set| {
            let counted = set.keys().filter(|node| hosts & (1 << (node.0 - 1)) != 0).count();
            counted > set.len() / 2
        })
    }

    fn note(&mut self, state: &State) {
        let set = state.voters.nodes.iter().map(|node| (*node, state.node(*node).voter));
        self.seen.entry(state.voters.version).or_insert_with(|| set.collect());
    }

    fn in_force(&self, version: u64) -> bool {
        let Some(set) = self.seen.get(&version) else { return false };
        let acts =
            |node: &NodeId, voter: &VoterId| self.acting.get(&(usize::from(node.0) - 1)) == Some(&(version, *voter));
        set.iter().filter(|(node, voter)| acts(node, voter)).count() > set.len() / 2
    }
}

impl World {
    /// A host may act under other voters than before: it applied a change, or fell back to what is
    /// on its disk.
    pub fn check_voters(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let acting = match machine.core() {
            Some(core) => {
                let state = core.state();
                let acting = (state.voters.version, core.voter());
                if self.checks.voters.acting.get(&host) == Some(&acting) {
                    return;
                }
                if state.voters.version > 0 {
                    self.checks.voters.note(state);
                }
                acting
            }
            None => return,
        };
        self.checks.voters.acting.insert(host, acting);
        let versions: BTreeSet<u64> = self.checks.voters.acting.values().map(|(version, _)| *version).collect();
        let in_force: Vec<u64> = versions.into_iter().filter(|version| self.checks.voters.in_force(*version)).collect();
        if in_force.len() > 1 {
            self.broken("voters", format!("majorities of the versions {in_force:?} are in force at once"));
        }
    }

    /// A node was committed as dead: no lease of it is live.
    pub fn check_deaths(&mut self, before: &State) {
        let truth = &self.checks.truth;
        let dead = truth.nodes.iter().filter(|(id, node)| node.dead && !before.node(**id).dead);
        for id in dead.map(|(id, _)| *id).collect::<Vec<_>>() {
            let host = usize::from(id.0) - 1;
            let now = self.hosts[host].clock.at(self.now);
            let live = self.checks.leases.latest(host, self.hosts[host].boot).is_some_and(|deadline| now < deadline);
            // What is on file is what the next sentinel would go on with.
            let kept = self.hosts[host].watch.kept.as_ref().and_then(|record| record.deadline_us);
            let live = live || kept.is_some_and(|deadline_us| now.0 < deadline_us);
            if live && self.hosts[host].on {
                self.broken("dead_means_proven", format!("{id} is taken for dead and has a lease"));
            }
        }
    }

    /// What is missing until every node votes, with the memory that it has.
    #[must_use]
    pub fn missing_voter(&self) -> Option<String> {
        let truth = &self.checks.truth;
        let missing = self.hosts.iter().find(|host| !truth.voters.nodes.contains(&host.id));
        if let Some(host) = missing {
            return Some(format!("{} does not vote", host.id));
        }
        let without = self
            .hosts
            .iter()
            .find(|host| host.disk.torn || host.disk.saved().is_none_or(|saved| !truth.votes(host.id, saved.voter)));
        without.map(|host| {
            let saved = host.disk.saved().map(|saved| saved.voter);
            let known = truth.node(host.id).voter;
            format!("{} has memory {saved:?}, damaged {}, and should have {known:?}", host.id, host.disk.torn)
        })
    }
}
