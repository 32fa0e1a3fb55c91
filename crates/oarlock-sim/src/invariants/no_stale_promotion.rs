//! Only a member of the in-sync set becomes a primary.

use crate::world::World;
use oarlock_core::ids::ResourceId;

impl World {
    /// A server became a primary.
    pub fn check_promoted(&mut self, host: usize, resource: ResourceId) {
        let node = self.hosts[host].id;
        let Some(instance) = self.hosts[host].databases.get(&resource) else { return };
        let (Some(server), Some(dir)) = (&instance.server, &instance.dir) else { return };
        let (epoch, copy) = (server.epoch, dir.copy);
        let Some(group) = self.checks.truth.group(resource.group) else { return };
        // Superseded meanwhile: it stays shut, which `no_lost_write` and `one_acknowledger` watch.
        if group.epoch > epoch || group.in_sync.is_empty() {
            return;
        }
        if group.in_sync.get(&node) != Some(&copy) {
            let text = format!("{node} promoted copy {copy} under epoch {epoch}; the set is {:?}", group.in_sync);
            self.broken("no_stale_promotion", text);
        }
    }
}
