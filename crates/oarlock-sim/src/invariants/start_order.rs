//! No service is started before the databases of the groups that its own depends on have been open to
//! clients. That they are open still is more than another machine can know.

use crate::world::World;
use oarlock_core::ids::{GroupId, ResourceId};
use std::collections::BTreeSet;

/// The groups whose database has been open to clients.
pub type Memory = BTreeSet<GroupId>;

impl World {
    /// A database lets clients in.
    pub fn note_open(&mut self, resource: ResourceId) {
        self.checks.opened.insert(resource.group);
    }

    /// A service is about to be started that does not run.
    pub fn check_start_order(&mut self, resource: ResourceId) {
        let Some(group) = self.config.group(resource.group) else { return };
        let early = group.depends.iter().find(|id| !self.checks.opened.contains(id));
        if let Some(early) = early {
            let text = format!("{resource:?} is started before {early:?} has ever been open");
            self.broken("start_order", text);
        }
    }
}
