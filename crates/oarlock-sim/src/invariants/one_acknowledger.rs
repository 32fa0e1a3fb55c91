//! No two databases acknowledge different writes: what is acknowledged is on every open primary.

use crate::database::{Commit, Role};
use crate::world::World;
use oarlock_core::ids::ResourceId;

impl World {
    /// A primary acknowledges a commit. An old primary may still deliver one that the standby
    /// confirmed before its promotion; it may not acknowledge what the new one does not have.
    pub fn check_one_acknowledger(&mut self, host: usize, resource: ResourceId, commit: &Commit) {
        let epoch = self.server(host, resource).map_or(0, |server| server.epoch);
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let Some(instance) = self.hosts[other].databases.get(&resource) else { continue };
            let (Some(server), Some(dir)) = (&instance.server, &instance.dir) else { continue };
            let serves = server.role == Role::Primary && server.open && server.epoch >= epoch;
            if serves && dir.wal.get(commit.index) != Some(&commit.id) {
                let name = |host: usize| &self.config.nodes[host].name;
                let text =
                    format!("{} acknowledged write {} while {} serves without it", name(host), commit.id, name(other));
                return self.broken("one_acknowledger", text);
            }
        }
    }
}
