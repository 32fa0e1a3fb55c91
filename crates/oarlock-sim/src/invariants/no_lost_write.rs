//! Every acknowledged write is on the disk of every member of the in-sync set, and on whoever
//! serves later.

use crate::database::{Commit, MARK};
use crate::world::World;
use oarlock_core::ids::{CopyId, NodeId, ResourceId};
use oarlock_core::state::State;
use std::collections::BTreeMap;

/// Acknowledged writes.
#[derive(Default)]
pub struct Memory {
    /// By database: number and record of each, in the order of acknowledgement.
    pub acknowledged: BTreeMap<ResourceId, Vec<(u64, usize)>>,
}

impl World {
    /// A primary acknowledges a commit.
    pub fn check_acknowledged(&mut self, host: usize, resource: ResourceId, commit: &Commit) {
        self.check_one_acknowledger(host, resource, commit);
        let write = (commit.id, commit.index);
        self.checks.writes.acknowledged.entry(resource).or_default().push(write);
        for (node, copy) in self.members(resource) {
            self.check_member(resource, node, copy, &[write]);
        }
    }

    fn members(&self, resource: ResourceId) -> Vec<(NodeId, CopyId)> {
        let group = self.checks.truth.group(resource.group);
        group.map(|group| group.in_sync.iter().map(|(node, copy)| (*node, *copy)).collect()).unwrap_or_default()
    }

    fn check_member(&mut self, resource: ResourceId, node: NodeId, copy: CopyId, writes: &[(u64, usize)]) {
        let dir = self.hosts[usize::from(node.0) - 1].databases.get(&resource).and_then(|known| known.dir.as_ref());
        let Some(dir) = dir.filter(|dir| dir.copy == copy) else {
            return self.broken("no_lost_write", format!("copy {copy} of {node} is in the set but not on its disk"));
        };
        let missing = writes.iter().find(|(id, index)| *index >= dir.flushed || dir.wal.get(*index) != Some(id));
        if let Some((id, index)) = missing {
            let text = format!("write {id} (record {index}) was acknowledged and is not on member {node}");
            self.broken("no_lost_write", text);
        }
    }

    /// A new state was applied: whoever is in a set now has everything.
    pub fn check_set_changes(&mut self, before: &State) {
        let config = self.config.clone();
        for (id, group) in config.groups() {
            let Some(resource) = group.data_resource(id) else { continue };
            let old = before.group(id).map(|group| group.in_sync.clone()).unwrap_or_default();
            let new = self.checks.truth.group(id).map(|group| group.in_sync.clone()).unwrap_or_default();
            if old == new {
                continue;
            }
            let writes = self.checks.writes.acknowledged.get(&resource).cloned().unwrap_or_default();
            for (node, copy) in new {
                self.check_member(resource, node, copy, &writes);
            }
        }
    }

    /// A primary lets clients in: it has everything that was ever acknowledged, and what it shows
    /// from now on is as good as acknowledged.
    ///
    /// A machine that was paused as a whole may carry out what it had begun before its sentinel has looked at the
    /// clock: it shows old rows for that moment and can acknowledge none, for its guard waits for a standby that
    /// has gone elsewhere (seed two/2955 of the simulator as it was).
    pub fn check_open(&mut self, host: usize, resource: ResourceId) {
        let writes = self.checks.writes.acknowledged.get(&resource).cloned().unwrap_or_default();
        let Some(instance) = self.instance(host, resource) else { return };
        let (Some(dir), Some(server)) = (&instance.dir, &instance.server) else { return };
        let missing = writes.iter().find(|(id, index)| dir.wal.get(*index) != Some(id)).copied();
        let shown = dir.wal.iter().enumerate().filter(|(_, id)| **id & MARK == 0);
        // A server that was open already shows nothing of what still waits.
        let shown = shown.filter(|(_, id)| server.waiting.iter().all(|commit| commit.id != **id));
        let shown: Vec<(u64, usize)> = shown.map(|(index, id)| (*id, index)).collect();
        if let Some((id, index)) = missing {
            if self.has_just_resumed(&self.hosts[host]) {
                return;
            }
            let text = format!("write {id} (record {index}) was acknowledged and is not on the primary that opens");
            return self.broken("no_lost_write", text);
        }
        for (node, copy) in self.members(resource) {
            self.check_member(resource, node, copy, &shown);
        }
        self.checks.writes.acknowledged.insert(resource, shown);
    }

    /// A copy is about to be rewound or replaced: nobody may count on it.
    pub fn check_replaceable(&mut self, host: usize, resource: ResourceId) {
        let node = self.hosts[host].id;
        let Some(copy) = self.dir(host, resource).map(|dir| dir.copy) else { return };
        if self.members(resource).contains(&(node, copy)) {
            self.broken("no_lost_write", format!("{node} replaces its copy {copy}, which is in the set"));
        }
    }
}
