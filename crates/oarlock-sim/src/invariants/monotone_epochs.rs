//! Epochs, versions and generations only grow, and nodes that applied as far agree.

use crate::world::World;
use oarlock_core::state::State;
use std::collections::BTreeMap;

/// The states seen, by index: only their counters.
#[derive(Default)]
pub struct Memory {
    seen: BTreeMap<u64, Vec<u64>>,
    last: BTreeMap<usize, (u64, u64)>,
}

fn counters(state: &State) -> Vec<u64> {
    let groups = state.groups.iter().flat_map(|group| {
        let owner = group.owner.map_or(0, |owner| owner.incarnation ^ u64::from(owner.node.0));
        let copies = group.in_sync.values().fold(0, |sum: u64, copy| sum.wrapping_add(copy.0));
        [group.epoch, group.version, owner, copies]
    });
    let nodes = state.nodes.values().flat_map(|node| [node.generation, u64::from(node.dead), node.incarnation]);
    groups.chain(nodes).chain([state.config.generation, state.voters.version]).collect()
}

impl World {
    /// A core may have applied something.
    pub fn check_epochs(&mut self, host: usize) {
        let life = self.hosts[host].agent_life;
        let Some(core) = self.hosts[host].core() else { return };
        let index = core.applied();
        let known = self.checks.epochs.last.get(&host).copied();
        if known == Some((life, index)) {
            return;
        }
        if known.is_some_and(|(former, applied)| former == life && applied > index) {
            return self.broken("monotone_epochs", format!("what is applied went back to {index}"));
        }
        let counters = counters(core.state());
        self.checks.epochs.last.insert(host, (life, index));
        let before = self.checks.epochs.seen.range(..index).next_back().map(|(_, counters)| counters.clone());
        let same = self.checks.epochs.seen.entry(index).or_insert_with(|| counters.clone()) == &counters;
        if !same {
            return self.broken("monotone_epochs", format!("two nodes differ in what they applied up to {index}"));
        }
        // Epoch and version of each group stand at the beginning, four numbers a group.
        let groups = self.config.groups.len();
        let falls = before.is_some_and(|before| {
            (0..groups)
                .any(|group| counters[4 * group] < before[4 * group] || counters[4 * group + 1] < before[4 * group + 1])
        });
        if falls {
            self.broken("monotone_epochs", format!("an epoch or version fell at {index}"));
        }
    }
}
