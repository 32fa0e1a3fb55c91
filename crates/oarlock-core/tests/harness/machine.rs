//! One machine: power, disk, the sentinel's lease, the agent.

use super::database::Instance;
use oarlock_core::config::{Config, Kind};
use oarlock_core::durable::Durable;
use oarlock_core::event::Held;
use oarlock_core::ids::{NodeId, ResourceId};
use oarlock_core::resource::Command;
use oarlock_core::time::Mono;
use oarlock_core::{Core, Event};
use std::collections::BTreeMap;

/// A machine and what is on it.
pub struct Machine {
    pub id: NodeId,
    pub on: bool,
    /// Counts power-ons; what was under way before is void.
    pub boot: u64,
    /// The agent, while it lives.
    pub core: Option<Core>,
    /// Counts agents; what was under way for a former one is void.
    pub life: u64,
    /// How far it had applied when that was compared with the truth.
    pub compared: u64,
    /// Stopped by SIGSTOP: events pile up here.
    pub frozen: bool,
    pub inbox: Vec<Event>,
    /// What was saved last, and what is being saved.
    pub disk: Option<Durable>,
    pub saving: BTreeMap<u64, Durable>,
    pub lease: Option<Lease>,
    /// The epochs that the sentinel has sealed, by the name of the group.
    pub sealed: BTreeMap<String, u64>,
    pub units: BTreeMap<ResourceId, Unit>,
}

/// What the sentinel holds.
#[derive(Clone, Copy)]
pub struct Lease {
    pub generation: u64,
    pub incarnation: u64,
    pub deadline: Mono,
    pub lapsed: bool,
    pub floor_index: u64,
}

/// A resource on a machine.
pub struct Unit {
    pub kind: Kind,
    /// An address that is up, a service that runs.
    pub up: bool,
    /// A database's directory and server.
    pub database: Instance,
    /// The command under way and its number; a newer one takes its place.
    pub job: Option<(u64, Command)>,
    /// Commands that fail, by name, and how often.
    pub broken: BTreeMap<String, u32>,
    /// The interface has a carrier.
    pub linked: bool,
}

impl Machine {
    pub fn new(id: NodeId, config: &Config) -> Machine {
        let groups = config.groups().filter(|(_, group)| group.nodes.contains(&id));
        let units = groups.flat_map(|(group_id, group)| {
            let unit = |kind| Unit {
                kind,
                up: false,
                database: Instance::default(),
                job: None,
                broken: BTreeMap::new(),
                linked: true,
            };
            group.resources(group_id).map(move |(id, resource)| (id, unit(resource.kind))).collect::<Vec<_>>()
        });
        Machine {
            id,
            on: false,
            boot: 0,
            core: None,
            life: 0,
            compared: 0,
            frozen: false,
            inbox: Vec::new(),
            disk: None,
            saving: BTreeMap::new(),
            lease: None,
            sealed: BTreeMap::new(),
            units: units.collect(),
        }
    }

    /// What a new agent finds at the sentinel.
    pub fn held(&self) -> Option<Held> {
        self.lease.map(|lease| Held {
            incarnation: lease.incarnation,
            generation: lease.generation,
            deadline: lease.deadline,
            lapsed: lease.lapsed,
            floor_index: lease.floor_index,
            released: self.sealed.clone(),
        })
    }

    /// The agent is gone, and with it what it was waiting for.
    pub fn agent_gone(&mut self) {
        self.core = None;
        self.life += 1;
        self.frozen = false;
        self.inbox.clear();
        self.saving.clear();
        for unit in self.units.values_mut() {
            unit.job = None;
        }
    }

    /// The power is gone; directories stay.
    pub fn power_gone(&mut self) {
        self.agent_gone();
        self.on = false;
        self.boot += 1;
        self.lease = None;
        self.sealed.clear();
        for unit in self.units.values_mut() {
            unit.up = false;
            unit.database.server = None;
        }
    }

    /// Whether the sentinel would let something start under this generation now.
    pub fn may_start(&self, now: Mono, generation: u64) -> bool {
        self.lease.is_some_and(|lease| !lease.lapsed && now < lease.deadline && generation >= lease.generation)
    }
}
