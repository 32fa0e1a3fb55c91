//! At any instant at most one node runs what is exclusive of a group and has no data guard.

use crate::host::Host;
use crate::world::World;
use oarlock_core::config::Kind;

impl World {
    /// Rule 1. A machine that was paused as a whole is silenced within the stop budget after it
    /// goes on; until then its clock's jump is the only thing that could have told it.
    pub fn check_one_owner(&mut self) {
        if let Some(text) = self.two_owners() {
            self.broken("one_owner", text);
        }
    }

    /// Whether a machine went on after a pause so lately that it may not be silent yet; or agent and
    /// sentinel were killed in one instant, and nobody holds its deadline.
    pub fn has_just_resumed(&self, host: &Host) -> bool {
        let budget = self.stop_budget_us() * 11 / 10;
        host.watch.orphaned || host.run.resumed_at_us.is_some_and(|at| self.now < at + budget)
    }

    fn two_owners(&self) -> Option<String> {
        for (id, group) in self.config.groups() {
            let mut first = None;
            for (index, host) in self.hosts.iter().enumerate() {
                if !host.acts() || host.run.is_idle() || self.has_just_resumed(host) {
                    continue;
                }
                let runs = group.resources(id).any(|(resource, known)| match known.kind {
                    Kind::Address => host.run.addresses().contains(&resource),
                    Kind::Service => host.run.program(resource).is_some(),
                    Kind::ReaderAddress | Kind::Postgresql | Kind::Mariadb => false,
                });
                match (runs, first) {
                    (true, Some(other)) => {
                        let name = |host: usize| &self.config.nodes[host].name;
                        let text = format!("{} and {} both run {}", name(other), name(index), group.name);
                        return Some(text);
                    }
                    (true, None) => first = Some(index),
                    _ => {}
                }
            }
            let readers = group.resources(id).filter(|(_, known)| known.kind == Kind::ReaderAddress);
            for (resource, _) in readers {
                let up = self.hosts.iter().filter(|host| {
                    host.acts() && host.run.addresses().contains(&resource) && !self.has_just_resumed(host)
                });
                if up.count() > 1 {
                    return Some(format!("two nodes hold the readers' address {resource:?}"));
                }
            }
        }
        None
    }
}
