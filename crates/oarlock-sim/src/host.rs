//! One machine: power, clock, disk, the sentinel with what it keeps, and the agent.

use crate::clock::Clock;
use crate::database::Instance;
use crate::disk::Disk;
use crate::succession::Grace;
use oarlock_core::Core;
use oarlock_core::Event;
use oarlock_core::config::{Config, Timing};
use oarlock_core::ids::{GroupId, NodeId, ResourceId, VoterId};
use oarlock_core::resource::Guard;
use oarlock_core::sentinel::{FromSentinel, Record, Sentinel};
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
    /// When the sentinel asked to be woken and when it is (true time): a little later.
    pub sentinel_due: Option<(u64, u64)>,
    /// Which sentinel it is, and what it leaves to the next.
    pub watch: Watch,
    /// What lives as long as the machine has power.
    pub run: Run,
    /// The agent, while it lives.
    pub agent: Option<Agent>,
    /// Counts agents: what was under way for a former one is void.
    pub agent_life: u64,
    /// The configuration file, once it was written by an agent.
    pub file: Option<Config>,
    /// The agent is stopped (SIGSTOP).
    pub frozen: bool,
    /// The whole machine stands still.
    pub paused: bool,
    /// What the frozen agent will find.
    pub inbox: Vec<Event>,
    /// What the sentinel said to it meanwhile.
    pub unheard: Vec<FromSentinel>,
    /// What the paused machine will find.
    pub deferred: Vec<crate::world::What>,
    /// The interface of the service addresses has a carrier.
    pub linked: bool,
    /// The agent is this much slower to wake, in microseconds.
    pub sluggish_us: u64,
    /// A service here cannot be started.
    pub broken_service: bool,
    /// Copies of data, by resource.
    pub databases: BTreeMap<ResourceId, Instance>,
}

/// A machine's sentinels, one after the other.
#[derive(Default)]
pub struct Watch {
    /// Counts them: what was under way for a former one is void.
    pub number: u64,
    /// The record as it was last saved, on a file system in memory; `None`: no sentinel since boot.
    pub kept: Option<Box<Record>>,
    /// It is killed after so many more effects.
    pub doomed: Option<u32>,
    /// It is stopped (SIGSTOP).
    pub stalled: bool,
    /// What it will find when it goes on.
    pub unheard: Vec<oarlock_core::sentinel::Event>,
    /// It was told to end and stays only for the deadline.
    pub keeper: bool,
    /// It died together with whoever could have taken over at once: nobody holds the deadline.
    pub orphaned: bool,
    /// Since when the present one is there (true time).
    pub since_us: u64,
}

impl Watch {
    /// The present one is gone; the number of the next.
    pub fn ends(&mut self) -> u64 {
        self.number += 1;
        self.doomed = None;
        self.keeper = false;
        self.stalled = false;
        self.unheard.clear();
        self.number
    }

    /// The machine's power comes or goes: nothing is left of any.
    pub fn rebooted(&mut self, now_us: u64) {
        self.ends();
        self.kept = None;
        self.orphaned = false;
        self.since_us = now_us;
    }
}

/// What lives as long as the machine has power.
pub struct Run {
    /// Random, new at each boot.
    pub incarnation: u64,
    /// Incarnation and generation of the last lease armed.
    pub armed: Option<(u64, u64)>,
    /// Running programs.
    programs: BTreeMap<ResourceId, u32>,
    /// Addresses on the interface.
    addresses: BTreeSet<ResourceId>,
    /// Something of the above changed since the checkers looked.
    pub stirred: bool,
    /// The number of the last program started.
    pub last_pid: u32,
    /// When a pause of the machine ended (true time): it is silenced after that.
    pub resumed_at_us: Option<u64>,
}

/// An agent: the core, and what its shell waits for.
pub struct Agent {
    /// The core.
    pub core: Core,
    /// When it asked to be woken and when it is (true time): a little later.
    pub due: Option<(u64, u64)>,
    /// The generation the sentinel was told of.
    pub generation_told: u64,
    /// How far applied the sentinel was told of.
    pub floor_told: u64,
    /// Questions to the sentinel that are not answered yet.
    pub asked: BTreeMap<u64, Asked>,
    /// Counts questions.
    pub last_id: u64,
    /// The times of the file it was started with.
    pub timing: Timing,
    /// What the checkers last saw applied: how far, under which voters, with which memory.
    pub seen: Option<(u64, u64, VoterId)>,
    /// The request for a grace that is under way, and what it is for.
    pub grace: Option<(u64, Grace)>,
}

/// Why the sentinel was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nobody waits for the answer.
    Nothing,
    /// A lease of this generation.
    Lease(u64),
    /// A lease to end earlier.
    Shorter,
    /// An epoch of a group to be sealed.
    Seal(GroupId, u64),
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
    /// All before it, because the agent is to start anew.
    Restart,
    /// A step of the database's job of this number.
    Database(ResourceId, u64),
}

impl Run {
    /// A machine that has just been switched on, or off.
    #[must_use]
    pub fn new(incarnation: u64) -> Run {
        Run {
            incarnation,
            armed: None,
            programs: BTreeMap::new(),
            addresses: BTreeSet::new(),
            stirred: true,
            last_pid: 0,
            resumed_at_us: None,
        }
    }

    /// The process of a resource's program, while it runs.
    #[must_use]
    pub fn program(&self, resource: ResourceId) -> Option<u32> {
        self.programs.get(&resource).copied()
    }

    /// All programs that run, with their processes.
    pub fn programs(&self) -> impl Iterator<Item = (ResourceId, u32)> {
        self.programs.iter().map(|(resource, pid)| (*resource, *pid))
    }

    /// A program starts.
    pub fn program_starts(&mut self, resource: ResourceId) -> u32 {
        self.stirred = true;
        self.last_pid += 1;
        self.programs.insert(resource, self.last_pid);
        self.last_pid
    }

    /// A program ends.
    pub fn program_ends(&mut self, resource: ResourceId) {
        self.stirred = true;
        self.programs.remove(&resource);
    }

    /// The addresses that are up.
    #[must_use]
    pub fn addresses(&self) -> &BTreeSet<ResourceId> {
        &self.addresses
    }

    /// An address comes up.
    pub fn address_up(&mut self, resource: ResourceId) {
        self.stirred = true;
        self.addresses.insert(resource);
    }

    /// An address goes.
    pub fn address_down(&mut self, resource: ResourceId) {
        self.stirred = true;
        self.addresses.remove(&resource);
    }

    /// Nothing exclusive is here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.addresses.is_empty() && self.programs.is_empty()
    }
}

/// The name of a resource towards the sentinel.
#[must_use]
pub fn name_of(resource: ResourceId) -> String {
    format!("g{}.r{}", resource.group.0, resource.index)
}

/// The resource of a name.
#[must_use]
pub fn resource_named(name: &str) -> Option<ResourceId> {
    let (group, index) = name.strip_prefix('g')?.split_once(".r")?;
    let group = oarlock_core::ids::GroupId(group.parse().ok()?);
    Some(ResourceId { group, index: index.parse().ok()? })
}

/// The name under which the sentinel counts a group's epochs.
#[must_use]
pub fn guard_group(group: GroupId) -> String {
    format!("g{}", group.0)
}

/// The sentinel's form of a guard.
#[must_use]
pub fn sentinel_guard(resource: ResourceId, guard: Guard) -> oarlock_core::sentinel::Guard {
    oarlock_core::sentinel::Guard {
        group: guard_group(resource.group),
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
            watch: Watch::default(),
            run: Run::new(0),
            agent: None,
            agent_life: 0,
            file: None,
            frozen: false,
            paused: false,
            inbox: Vec::new(),
            unheard: Vec::new(),
            deferred: Vec::new(),
            linked: true,
            sluggish_us: 0,
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
