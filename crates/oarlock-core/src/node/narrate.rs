//! Tells people what changed in the applied state.

use super::Core;
use crate::happening::Happening;
use crate::state::State;

impl Core {
    pub(super) fn narrate(&mut self, before: &State) {
        let after = self.state.clone();
        for (id, node) in &after.nodes {
            let was = before.node(*id);
            if node.dead && !was.dead {
                self.record(Happening::NodeDead { node: *id, generation: node.generation });
            }
            if node.generation != was.generation && !node.dead {
                self.record(Happening::NodeAlive { node: *id, generation: node.generation });
            }
        }
        for (id, _) in after.config.groups() {
            let (Some(group), was) = (after.group(id), before.group(id).cloned().unwrap_or_default()) else { continue };
            if group.epoch != was.epoch {
                self.record(Happening::OwnerChanged {
                    group: id,
                    owner: group.owner.map(|owner| owner.node),
                    epoch: group.epoch,
                    reason: group.reason.clone(),
                });
            }
            if group.in_sync != was.in_sync {
                let members = group.in_sync.iter().map(|(node, copy)| (*node, *copy)).collect();
                self.record(Happening::InSyncChanged { group: id, members });
            }
        }
        if after.config.generation != before.config.generation {
            self.record(Happening::ConfigCommitted { generation: after.config.generation });
        }
    }
}
