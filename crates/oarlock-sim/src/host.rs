//! One machine: power, clock, disk, the sentinel with what it keeps, and the agent.

use crate::clock::Clock;
use crate::database::Instance;
use crate::disk::Disk;
use oarlock_core::Core;
use oarlock_core::Event;
use oarlock_core::ids::{NodeId, ResourceId};
use oarlock_core::resource::Guard;
use oarlock_core::sentinel::Sentinel;
use std::collections::{BTreeMap, BTreeSet};

/// A machine.
pub struct Host {
    /// Its node.
    pub id: NodeId,
    /// Whether it has power.
    pub on: bool,
    /// Counts power-ons: what was under way before is void.
    pub boot: u64,
    /// Its clock.
    pub clock: Clock,
    /// The disk under the voter's state.
    pub disk: Disk,
    /// The sentinel, while there is power.
    pub sentinel: Option<Sentinel>,
    /// When the sentinel is woken next (true time).
    pub sentinel_due: Option<u64>,
    /// What lives as long as the machine has power.
    pub run: Run,
    /// The agent, while it lives.
    pub agent: Option<Agent>,
    /// Counts agents: what was under way for a former one is void.
    pub agent_life: u64,
    /// The agent is stopped (SIGSTOP).
    pub frozen: bool,
    /// The whole machine stands still.
    pub paused: bool,
    /// What the frozen agent will find.
    pub inbox: Vec<Event>,
    /// What the paused machine will find.
    pub deferred: Vec<crate::world::What>,
    /// The interface of the service addresses has a carrier.
    pub linked: bool,
    /// A service here cannot be started.
    pub broken_service: bool,
    /// Copies of data, by resource.
    pub databases: BTreeMap<ResourceId, Instance>,
}

/// What lives as long as the machine has power.
#[derive(Default)]
pub struct Run {
    /// Random, new at each boot.
    pub incarnation: u64,
    /// Incarnation and generation of the last lease armed.
    pub armed: Option<(u64, u64)>,
    /// Running programs by the sentinel's name for them.
    pub processes: BTreeMap<String, u32>,
    /// Addresses on the interface.
    pub addresses: BTreeSet<ResourceId>,
    /// The number of the last program started.
    pub last_pid: u32,
    /// When a pause of the machine ended (true time): it is silenced after that.
    pub resumed_at_us: Option<u64>,
}

/// An agent: the core, and what its shell waits for.
pub struct Agent {
    /// The core.
    pub core: Core,
    /// When it is woken next (true time).
    pub due: Option<u64>,
    /// The generation the sentinel was told of.
    pub generation_told: u64,
    /// Questions to the sentinel that are not answered yet.
    pub asked: BTreeMap<u64, Asked>,
    /// Counts questions.
    pub last_id: u64,
}

/// Why the sentinel was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nobody waits for the answer.
    Nothing,
    /// A lease of this generation.
    Lease(u64),
    /// An address to come up.
    Raise(ResourceId),
    /// An address to go.
    Lower(ResourceId),
    /// A service to start.
    ServiceStart(ResourceId),
    /// What is left of a service that failed to go.
    ServiceFailed(ResourceId),
    /// A service to stop.
    ServiceStop(ResourceId),
    /// A step of the database's job of this number.
    Database(ResourceId, u64),
}

/// The name of a resource towards the sentinel.
#[must_use]
pub fn name_of(resource: ResourceId) -> String {
    format!("g{}.r{}", resource.group.0, resource.index)
}

/// The sentinel's form of a guard.
#[must_use]
pub fn sentinel_guard(resource: ResourceId, guard: Guard) -> oarlock_core::sentinel::Guard {
    oarlock_core::sentinel::Guard {
        group: format!("g{}", resource.group.0),
        generation: guard.generation,
        epoch: guard.epoch,
    }
}

impl Host {
    /// A machine that was never switched on.
    #[must_use]
    pub fn new(id: NodeId) -> Host {
        Host {
            id,
            on: false,
            boot: 0,
            clock: Clock::new(0, 0, 1_000_000),
            disk: Disk::default(),
            sentinel: None,
            sentinel_due: None,
            run: Run::default(),
            agent: None,
            agent_life: 0,
            frozen: false,
            paused: false,
            inbox: Vec::new(),
            deferred: Vec::new(),
            linked: true,
            broken_service: false,
            databases: BTreeMap::new(),
        }
    }

    /// Its core, while the agent lives.
    #[must_use]
    pub fn core(&self) -> Option<&Core> {
        self.agent.as_ref().map(|agent| &agent.core)
    }

    /// Whether anything on it runs at all.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.on && !self.paused
    }
}
