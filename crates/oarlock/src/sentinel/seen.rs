//! What an agent was told by its sentinel, and what it must still be told after notices were lost.

use std::collections::BTreeMap;

use oarlock_core::sentinel::{Exit, Main, Notice, Service, Welcome};

/// What the agent has heard of. Everything comes over one socket in order, so a [`Welcome`] that
/// knows more than this proves that notices were lost on the way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first welcome is where the agent begins; it asks for what that says by itself.
    begun: bool,
    services: BTreeMap<String, Known>,
    lapsed: u64,
    silenced: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    main: Option<u32>,
    occupied: bool,
}

impl Seen {
    /// A service was started.
    pub(super) fn spawned(&mut self, name: String, pid: u32) {
        self.services.insert(name, Known { main: Some(pid), occupied: true });
    }

    /// The agent is told this.
    pub(super) fn told(&mut self, notice: &Notice) {
        match notice {
            Notice::Exited { name, pid, .. } => {
                if let Some(known) = self.services.get_mut(name).filter(|known| known.main == Some(*pid)) {
                    known.main = None;
                }
            }
            Notice::Emptied { name } => {
                if let Some(known) = self.services.get_mut(name) {
                    known.occupied = false;
                }
            }
            Notice::Lapsed { generation } => self.lapsed = self.lapsed.max(*generation),
            Notice::Silenced { generation, .. } => self.silenced = self.silenced.max(*generation),
            Notice::Terminate | Notice::Missed | Notice::Log { .. } => {}
        }
    }

    /// The notices that must have been lost; they count as told from now on.
    pub(super) fn lost(&mut self, welcome: &Welcome) -> Vec<Notice> {
        let mut lost = Vec::new();
        let silent = is_silent(welcome);
        if std::mem::replace(&mut self.begun, true) {
            self.lost_ends(welcome, &mut lost);
            let generation = welcome.lapsed_generation;
            if generation > self.lapsed {
                lost.push(Notice::Lapsed { generation });
            }
            if silent && generation > self.silenced {
                lost.push(Notice::Silenced { generation, took_us: 0 });
            }
        } else {
            self.lapsed = welcome.lapsed_generation;
            self.silenced = if silent { welcome.lapsed_generation } else { 0 };
        }
        for notice in &lost {
            self.told(notice);
        }
        for service in &welcome.services {
            if let Some(process) = service.process() {
                self.spawned(service.name.clone(), process.pid);
            }
        }
        lost
    }

    fn lost_ends(&self, welcome: &Welcome, lost: &mut Vec<Notice>) {
        for (name, known) in &self.services {
            let service = welcome.services.iter().find(|service| service.name == *name);
            let main = service.and_then(Service::process).map(|process| process.pid);
            if let Some(pid) = known.main.filter(|pid| main != Some(*pid)) {
                let exit = match service.map(|service| service.main) {
                    Some(Main::Exited(exit)) => exit,
                    _ => Exit::Unknown,
                };
                lost.push(Notice::Exited { name: name.clone(), pid, exit });
            }
            if known.occupied && !service.is_some_and(|service| service.occupied) {
                lost.push(Notice::Emptied { name: name.clone() });
            }
        }
    }
}

/// Nothing is left of what a lapse was to end.
fn is_silent(welcome: &Welcome) -> bool {
    let lapsed = |generation: u64| generation <= welcome.lapsed_generation;
    let mut services = welcome.services.iter().filter(|service| service.is_alive());
    let mut addresses = welcome.addresses.iter();
    !services.any(|service| service.guard.as_ref().is_some_and(|guard| lapsed(guard.generation)))
        && !addresses.any(|held| held.guard.as_ref().is_some_and(|guard| lapsed(guard.generation)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oarlock_core::sentinel::{Guard, Platform, Process};

    use super::*;

    fn welcome(services: Vec<Service>, lapsed_generation: u64) -> Welcome {
        Welcome {
            fresh: false,
            generation: 1,
            deadline_us: None,
            lapsed_generation,
            floor_index: 0,
            released: BTreeMap::new(),
            services,
            addresses: Vec::new(),
            platform: Platform::default(),
        }
    }

    fn service(main: Main, occupied: bool) -> Service {
        let guard = Some(Guard { group: "oar".into(), generation: 1, epoch: 1 });
        Service { name: "db".into(), guard, main, occupied, keep_group: false }
    }

    fn running(pid: u32) -> Service {
        service(Main::Running(Process { pid, start_ticks: 1 }), true)
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut seen = Seen::default();
        assert_eq!(seen.lost(&welcome(vec![running(7)], 0)), vec![]);
        for notice in [
            Notice::Exited { name: "db".into(), pid: 7, exit: Exit::Code(1) },
            Notice::Emptied { name: "db".into() },
            Notice::Lapsed { generation: 1 },
            Notice::Silenced { generation: 1, took_us: 9 },
        ] {
            seen.told(&notice);
        }
        assert_eq!(seen.lost(&welcome(vec![service(Main::Exited(Exit::Code(1)), false)], 1)), vec![]);
    }

    #[test]
    fn lost_ends_and_a_lost_lapse_are_found_once() {
        let mut seen = Seen::default();
        seen.lost(&welcome(vec![], 0));
        seen.spawned("db".into(), 7);
        let half = welcome(vec![service(Main::Exited(Exit::Signal(9)), true)], 1);
        let exited = Notice::Exited { name: "db".into(), pid: 7, exit: Exit::Signal(9) };
        // Its group still has processes: not silent yet.
        assert_eq!(seen.lost(&half), vec![exited, Notice::Lapsed { generation: 1 }]);
        let whole = welcome(vec![service(Main::Exited(Exit::Signal(9)), false)], 1);
        let rest = vec![Notice::Emptied { name: "db".into() }, Notice::Silenced { generation: 1, took_us: 0 }];
        assert_eq!(seen.lost(&whole), rest);
        assert_eq!(seen.lost(&whole), vec![]);
    }

    #[test]
    fn a_service_that_was_started_again_has_ended_in_between() {
        let mut seen = Seen::default();
        seen.lost(&welcome(vec![running(7)], 0));
        let unknown = Notice::Exited { name: "db".into(), pid: 7, exit: Exit::Unknown };
        assert_eq!(seen.lost(&welcome(vec![running(8)], 0)), vec![unknown]);
        assert_eq!(seen.lost(&welcome(vec![running(8)], 0)), vec![]);
    }

    #[test]
    fn the_first_welcome_is_the_beginning() {
        let mut seen = Seen::default();
        assert_eq!(seen.lost(&welcome(vec![service(Main::Exited(Exit::Unknown), false)], 3)), vec![]);
        assert_eq!(seen.lost(&welcome(vec![], 3)), vec![]);
        assert_eq!(seen.lost(&welcome(vec![], 4)).len(), 2);
    }
}
