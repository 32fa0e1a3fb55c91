//! After everything is healed: one healthy owner, every copy in the set, everything up, and
//! clients are served, within a bound.

use crate::host::Host;
use crate::world::World;
use oarlock_core::config::Kind;
use oarlock_core::ids::GroupId;

impl World {
    /// What still is not as it should be; `None` when all is well.
    #[must_use]
    pub fn unsettled(&self) -> Option<String> {
        let truth = &self.checks.truth;
        if truth.maintenance {
            return Some("maintenance is on".into());
        }
        if let Some(missing) = self.missing_voter().filter(|_| self.core.is_none()) {
            return Some(missing);
        }
        for (id, group) in self.config.groups() {
            let Some(owner) = truth.living_owner(id) else { return Some(format!("{} has no owner", group.name)) };
            if !self.is_counted(owner) {
                return Some(format!("{} is still with {owner}, which is gone", group.name));
            }
            if let Some(node) = group.nodes.iter().find(|node| truth.node(**node).standby) {
                return Some(format!("{node} is out of service"));
            }
            let host = &self.hosts[usize::from(owner.0) - 1];
            for (resource, known) in group.resources(id) {
                let up = match known.kind {
                    Kind::Address => host.run.addresses().contains(&resource),
                    Kind::Service => host.run.program(resource).is_some(),
                    Kind::ReaderAddress => {
                        let holds = |host: &Host| self.is_counted(host.id) && host.run.addresses().contains(&resource);
                        self.hosts.iter().any(holds)
                    }
                    Kind::Postgresql | Kind::Mariadb => {
                        let server = host.databases.get(&resource).and_then(|instance| instance.server.as_ref());
                        server.is_some_and(|server| server.open)
                    }
                };
                if !up {
                    return Some(format!("{} is not up on {owner}", known.name));
                }
            }
            if let Some(missing) = self.missing_copy(id) {
                return Some(missing);
            }
        }
        let stale = self.clients.iter().find(|client| client.last_good_us + 200_000 < self.now);
        stale.map(|client| format!("no write through {:?} is acknowledged", client.address))
    }

    /// What each node thinks stands in the way, for the trace.
    pub fn say_explanations(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(core) = host.core() else { continue };
            let (now, holder) = (host.clock.at(self.now), core.holder());
            self.say(index, || {
                let live = holder.is_live(now);
                format!("generation {}, incarnation {:x}, live {live}", holder.generation(), holder.incarnation())
            });
            for (id, _) in self.config.groups() {
                for line in core.explain(id) {
                    self.say(index, || format!("{id:?} {line}"));
                }
                self.say(index, || format!("{:?}", core.state().group(id)));
            }
        }
        self.say(usize::MAX, || format!("{:?}", self.checks.truth.nodes));
        self.say(usize::MAX, || format!("{:?}", self.checks.truth.voters));
    }

    fn missing_copy(&self, id: GroupId) -> Option<String> {
        let group = self.config.group(id)?;
        group.data_resource(id)?;
        let set = &self.checks.truth.group(id)?.in_sync;
        let missing = group.nodes.iter().find(|node| self.is_counted(**node) && !set.contains_key(node))?;
        Some(format!("the copy of {missing} is not in the set"))
    }
}
