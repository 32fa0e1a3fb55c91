//! What the sentinel must still know after it was killed and started again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{Address, Exit, Guard};
use super::watchdog::Watchdog;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot.
    pub start_ticks: u64,
}

/// The main process of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Main {
    /// Asked for, not yet there.
    Starting,
    /// There.
    Running(Process),
    /// Ended.
    Exited(Exit),
}

/// A service the sentinel started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, also of its cgroup.
    pub name: String,
    /// The right under which it runs, if it is exclusive.
    pub guard: Option<Guard>,
    /// Its main process.
    pub main: Main,
    /// Processes of its group may still exist.
    pub occupied: bool,
    /// The rest of the group is kept when the main process ends.
    pub keep_group: bool,
}

impl Service {
    /// Whether anything of it may still run.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.occupied || !matches!(self.main, Main::Exited(_))
    }

    /// The main process, when it runs.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        match self.main {
            Main::Running(process) => Some(process),
            Main::Starting | Main::Exited(_) => None,
        }
    }
}

/// An address the sentinel holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAddress {
    /// The address.
    pub address: Address,
    /// The right under which it is held, if it is exclusive.
    pub guard: Option<Guard>,
    /// It is to go, and not yet known to be gone.
    pub leaving: bool,
}

/// The sentinel's memory. It is saved before every act and read by the next sentinel, which may be
/// of a newer version: a field added to any part of it needs a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Current generation; 0 before the first.
    pub generation: u64,
    /// When the lease of the current generation ends.
    pub deadline_us: Option<u64>,
    /// Highest generation that lapsed; 0 for none.
    pub lapsed_generation: u64,
    /// Highest log index that was acted on.
    pub floor_index: u64,
    /// Per group, the highest epoch given back.
    pub released: BTreeMap<String, u64>,
    /// Services, alive or ended and not forgotten.
    pub services: Vec<Service>,
    /// Addresses held.
    pub addresses: Vec<HeldAddress>,
    /// The agent, to be ended by the next sentinel before it starts another.
    pub agent: Option<Process>,
    /// The hardware watchdog to be kept.
    pub watchdog: Option<Watchdog>,
}

impl Record {
    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    pub(super) fn service_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|service| service.name == name)
    }

    pub(super) fn address_mut(&mut self, address: &Address) -> Option<&mut HeldAddress> {
        self.addresses.iter_mut().find(|held| same(&held.address, address))
    }

    /// Whether anything exclusive is there or may come up.
    #[must_use]
    pub fn holds_exclusive(&self) -> bool {
        self.holds_exclusive_of(u64::MAX)
    }

    /// The same for what was started under this generation or an older one.
    pub(super) fn holds_exclusive_of(&self, generation: u64) -> bool {
        let old = |guard: &Option<Guard>| guard.as_ref().is_some_and(|guard| guard.generation <= generation);
        self.services.iter().any(|service| old(&service.guard) && service.is_alive())
            || self.addresses.iter().any(|held| old(&held.guard))
    }
}

/// The prefix does not distinguish addresses: the kernel holds one of them once.
pub(super) fn same(a: &Address, b: &Address) -> bool {
    a.interface == b.interface && a.ip == b.ip
}
