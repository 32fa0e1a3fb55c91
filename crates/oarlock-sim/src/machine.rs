//! Power, the sentinel and the programs it starts.

use crate::clock::Clock;
use crate::host::{Agent, Host, Run, guard_group, name_of, resource_named};
use crate::sabotage::Sabotage;
use crate::shell::resource_at;
use crate::world::{What, World};
use oarlock_core::config::{GroupConfig, Kind};
use oarlock_core::event::{Boot, Held, Loaded};
use oarlock_core::ids::{GroupId, ResourceId};
use oarlock_core::sentinel::{self, Act, Effect, Exit, FromSentinel, Outcome, Platform, Sentinel};
use oarlock_core::time::Mono;
use oarlock_core::{Core, Event};
use std::collections::BTreeMap;

impl World {
    /// Switches a machine on.
    pub fn power_on(&mut self, host: usize) {
        if self.hosts[host].on {
            return;
        }
        self.say(host, || "power on".into());
        // Two clocks that are each wrong by r differ by 2r / (1 - r), and that is what is allowed for.
        let allowed = self.config.timing.drift_permille;
        let half = allowed * 1_000_000 / (2_000 + allowed);
        let rate = self.rng.within(1_000_000 - half, 1_000_000 + half);
        let offset = self.rng.within(1_000_000, 500_000_000);
        let incarnation = self.rng.draw() | 1;
        let machine = &mut self.hosts[host];
        machine.on = true;
        machine.boot += 1;
        machine.clock = Clock::new(self.now, offset, rate);
        machine.run = Run::new(incarnation);
        machine.sentinel = Some(Sentinel::new(Platform::default()));
        machine.sentinel_due = None;
        machine.watch.rebooted(self.now);
        for instance in machine.databases.values_mut() {
            instance.power_lost();
        }
        let boot = machine.boot;
        self.soon(1_000, 30_000, What::Spawn { host, boot });
    }

    /// Takes the power away: everything dies in one instant, what was flushed stays.
    pub fn power_off(&mut self, host: usize) {
        if !self.hosts[host].on {
            return;
        }
        self.say(host, || "power off".into());
        self.agent_dies(host);
        let machine = &mut self.hosts[host];
        machine.on = false;
        machine.boot += 1;
        machine.sentinel = None;
        machine.watch.rebooted(self.now);
        machine.paused = false;
        machine.deferred.clear();
        machine.run = Run::new(0);
        let resources: Vec<ResourceId> = machine.databases.keys().copied().collect();
        for resource in resources {
            self.server_gone(host, resource);
            let World { hosts, rng, .. } = self;
            if let Some(dir) = hosts[host].databases.get_mut(&resource).and_then(|instance| instance.dir.as_mut()) {
                let kept = rng.within(dir.flushed as u64, dir.wal.len() as u64) as usize;
                dir.wal.truncate(kept);
                dir.flushed = kept;
            }
        }
    }

    /// The agent dies; the sentinel and what it keeps live on.
    pub fn agent_dies(&mut self, host: usize) {
        let World { hosts, rng, .. } = self;
        let machine = &mut hosts[host];
        machine.agent = None;
        machine.agent_life += 1;
        machine.frozen = false;
        machine.inbox.clear();
        machine.unheard.clear();
        machine.disk.crash(rng);
        for instance in machine.databases.values_mut() {
            instance.agent_died();
        }
    }

    /// kill -9 of the agent: the sentinel starts another.
    pub fn agent_crashes(&mut self, host: usize) {
        if self.hosts[host].agent.is_none() {
            return;
        }
        self.say(host, || "agent killed".into());
        self.agent_dies(host);
        self.sentinel(host, sentinel::Event::AgentGone);
        let boot = self.hosts[host].boot;
        self.soon(5_000, 60_000, What::Spawn { host, boot });
    }

    /// A new agent starts.
    pub fn spawn_agent(&mut self, host: usize, boot: u64) {
        let machine = &self.hosts[host];
        if machine.boot != boot || machine.agent.is_some() || machine.watch.keeper {
            return;
        }
        if machine.watch.stalled {
            return self.after(5_000, What::Spawn { host, boot });
        }
        let Some(sentinel) = &machine.sentinel else { return };
        let record = sentinel.record();
        // What a lapse is still stopping has to be gone first.
        if record.deadline_us.is_none() && record.holds_exclusive() {
            return self.after(5_000, What::Spawn { host, boot });
        }
        let armed = machine.run.armed.filter(|_| record.generation > 0);
        let held = armed.map(|(incarnation, _)| Held {
            incarnation,
            generation: record.generation,
            deadline: Mono(record.deadline_us.unwrap_or(0)),
            lapsed: record.deadline_us.is_none(),
            floor_index: record.floor_index,
            released: self.released(record),
        });
        if held.as_ref().is_none_or(|held| held.lapsed) {
            self.checks.leases.begin_anew(host);
        }
        self.say(host, || format!("agent starts, held {held:?}"));
        let generation_told = record.generation;
        let deadline = record.deadline_us.map(Mono);
        self.lease_inherited(host, deadline);
        let durable = self.hosts[host].disk.load();
        let mut config = self.hosts[host].file.clone().unwrap_or_else(|| self.config.clone());
        // The file does not say which generation it is.
        config.generation = match &durable {
            Loaded::Intact(durable) => durable.log.state.config.generation,
            _ => 1,
        };
        let timing = config.timing;
        self.check_loaded(host);
        let boot_args = Boot {
            me: self.hosts[host].id,
            incarnation: self.hosts[host].run.incarnation,
            held,
            durable,
            config,
            seed: self.rng.draw() >> 1,
        };
        let now = self.hosts[host].clock.at(self.now);
        let core = Core::with_rules(boot_args, now, self.rules);
        let machine = &mut self.hosts[host];
        machine.agent_life += 1;
        let agent = Agent {
            core,
            due: None,
            generation_told,
            floor_told: 0,
            asked: BTreeMap::new(),
            last_id: 0,
            timing,
            seen: None,
            grace: None,
        };
        machine.agent = Some(agent);
        let life = machine.agent_life;
        let process = sentinel::Process { pid: life as u32, start_ticks: self.now };
        let databases: Vec<ResourceId> = machine.databases.keys().copied().collect();
        self.sentinel(host, sentinel::Event::AgentStarted(process));
        self.drain(host);
        self.report_link(host);
        for resource in databases {
            self.soon(10_000, 500_000, What::Status { host, life, resource, regular: true });
        }
    }

    /// What the sentinel has sealed, by the group's name in the configuration.
    fn released(&self, record: &sentinel::Record) -> BTreeMap<String, u64> {
        let known = |(id, group): (GroupId, &GroupConfig)| {
            record.released.get(&guard_group(id)).map(|epoch| (group.name.clone(), *epoch))
        };
        self.config.groups().filter_map(known).collect()
    }

    /// Tells the core whether its service addresses have a carrier.
    pub fn report_link(&mut self, host: usize) {
        use oarlock_core::resource::{AddressObservation, Observation};
        let life = self.hosts[host].agent_life;
        let up = self.hosts[host].linked;
        let config = self.config.clone();
        for (id, group) in config.groups() {
            for (resource, known) in group.resources(id) {
                if known.kind == Kind::Address {
                    self.observed(host, life, resource, Observation::Address(AddressObservation::Link { up }));
                }
            }
        }
    }

    /// Hands an event to the sentinel and does what it wants.
    pub fn sentinel(&mut self, host: usize, event: sentinel::Event) {
        let now = self.hosts[host].clock.at(self.now).0;
        if self.hosts[host].watch.stalled {
            return self.hosts[host].watch.unheard.push(event);
        }
        let Some(sentinel) = &mut self.hosts[host].sentinel else { return };
        let effects = sentinel.handle(now, event);
        let number = self.hosts[host].watch.number;
        for effect in effects {
            if self.sentinel_effect_counts(host) || self.hosts[host].watch.number != number {
                return;
            }
            self.effect(host, effect);
        }
        self.schedule_sentinel(host);
    }

    fn schedule_sentinel(&mut self, host: usize) {
        // The sentinel may be late by a part of its budget; its death and what it stops take the rest.
        let share = if self.swarm.kills_sentinels() { 4 } else { 2 };
        let latest = self.stop_budget_us() / share;
        let now = self.now;
        let World { hosts, rng, .. } = self;
        let machine = &mut hosts[host];
        let Some(at) = machine.sentinel.as_ref().and_then(Sentinel::wake_at_us) else { return };
        let due = machine.clock.when(Mono(at)).max(now);
        if machine.sentinel_due.is_some_and(|(known, at)| known <= due && at > now) {
            return;
        }
        let at = due + rng.within(0, latest);
        machine.sentinel_due = Some((due, at));
        let watch = machine.watch.number;
        self.after(at - now, What::SentinelDue { host, watch });
    }

    /// The sentinel wakes.
    pub fn sentinel_due(&mut self, host: usize, watch: u64) {
        if self.hosts[host].watch.number == watch {
            if self.hosts[host].sentinel_due.is_some_and(|(_, at)| at <= self.now) {
                self.hosts[host].sentinel_due = None;
            }
            self.sentinel(host, sentinel::Event::Tick);
        }
    }

    fn effect(&mut self, host: usize, effect: Effect) {
        let boot = self.hosts[host].boot;
        let watch = self.hosts[host].watch.number;
        let life = self.hosts[host].agent_life;
        match effect {
            Effect::Save => {
                let machine = &mut self.hosts[host];
                let record = machine.sentinel.as_ref().map(Sentinel::record);
                match (record, &mut machine.watch.kept) {
                    (Some(record), Some(kept)) if differ_in_time(record, kept) => {
                        kept.deadline_us = record.deadline_us;
                        kept.floor_index = record.floor_index;
                    }
                    (record, kept) => *kept = record.map(|record| Box::new(record.clone())),
                }
            }
            Effect::Leave => self.sentinel_leaves(host),
            Effect::Reply { id, reply } => {
                self.after(80, What::Said { host, life, what: Box::new(FromSentinel::Reply { id, reply }) });
            }
            Effect::Notify(notice) => {
                self.say(host, || format!("sentinel: {notice:?}"));
                self.after(80, What::Said { host, life, what: Box::new(FromSentinel::Notice(notice)) });
            }
            // A fork leaves no room in between; what the program does with its time comes after.
            Effect::Act { ticket, act: act @ Act::Spawn { .. } } => self.perform(host, watch, ticket, act),
            Effect::Act { ticket, act } => {
                self.soon(100, 3_000, What::Act { host, watch, ticket, act: Box::new(act) });
            }
            Effect::Kill { name } => self.kill(host, name),
            Effect::RemoveAddress(address) => {
                self.soon(50, 1_000, What::AddressGoes { host, boot, watch, address });
            }
            Effect::Silence { services, addresses } => {
                self.say(host, || format!("sentinel silences {services:?} and {} addresses", addresses.len()));
                for address in addresses {
                    self.soon(50, 1_000, What::AddressGoes { host, boot, watch, address });
                }
                let spared = self.sabotage == Some(Sabotage::LapseSparesPrograms);
                for name in services.into_iter().filter(|_| !spared) {
                    self.kill(host, name);
                }
            }
            Effect::Inspect { name } => self.after(100, What::Inspected { host, watch, name }),
        }
    }

    pub(crate) fn kill(&mut self, host: usize, name: String) {
        let boot = self.hosts[host].boot;
        let budget = self.stop_budget_us();
        let Some(resource) = resource_named(&name) else { return };
        let Some(pid) = self.hosts[host].run.program(resource) else { return };
        self.soon(100, budget * 2 / 5, What::Dies { host, boot, resource, pid });
    }

    /// A look at what is left of a program.
    pub fn process_inspected(&mut self, host: usize, watch: u64, name: String) {
        if self.hosts[host].watch.number != watch {
            return;
        }
        let left = resource_named(&name).and_then(|resource| self.hosts[host].run.program(resource));
        // A kill takes its time here, but no disk holds it up: whoever is left may still do something.
        let remaining = left.map(|pid| sentinel::Remaining { pid, state: 'R' }).into_iter().collect();
        self.sentinel(host, sentinel::Event::Inspected { name, remaining });
    }

    /// A program dies, whoever killed it.
    pub fn dies(&mut self, host: usize, boot: u64, resource: ResourceId, pid: u32) {
        if self.hosts[host].boot != boot || self.hosts[host].run.program(resource) != Some(pid) {
            return;
        }
        let name = name_of(resource);
        self.say(host, || format!("{name} ends"));
        self.hosts[host].run.program_ends(resource);
        self.server_gone(host, resource);
        self.sentinel(host, sentinel::Event::Exited { name: name.clone(), pid, exit: Exit::Signal(9) });
        self.sentinel(host, sentinel::Event::Emptied { name });
    }

    /// An address is taken off its interface.
    pub fn address_goes(&mut self, host: usize, boot: u64, watch: u64, address: sentinel::Address) {
        if self.hosts[host].boot != boot || self.hosts[host].watch.number != watch {
            return;
        }
        if self.hosts[host].watch.stalled {
            return self.after(5_000, What::AddressGoes { host, boot, watch, address });
        }
        self.say(host, || format!("{} removed", address.ip));
        if let Some(resource) = resource_at(&address) {
            self.hosts[host].run.address_down(resource);
        }
        self.sentinel(host, sentinel::Event::AddressGone { address });
    }

    /// The sentinel's act takes place.
    pub fn perform(&mut self, host: usize, watch: u64, ticket: u64, act: Act) {
        if self.hosts[host].watch.number != watch {
            return;
        }
        if self.hosts[host].watch.stalled {
            return self.after(5_000, What::Act { host, watch, ticket, act: Box::new(act) });
        }
        match act {
            Act::Spawn { name, .. } => {
                let Some(resource) = resource_named(&name) else { return };
                let machine = &mut self.hosts[host];
                let pid = machine.run.program_starts(resource);
                machine.server_started(resource, pid);
                let process = sentinel::Process { pid, start_ticks: self.now };
                self.sentinel(host, sentinel::Event::Acted { ticket, outcome: Outcome::Forked(process) });
                self.soon(100, 1_000, What::Executed { host, watch, ticket });
            }
            Act::AddAddress(address) => {
                self.say(host, || format!("{} added", address.ip));
                if let Some(resource) = resource_at(&address) {
                    self.hosts[host].run.address_up(resource);
                }
                self.executed(host, watch, ticket);
            }
            Act::Promote { name, process, .. } => {
                if let Some(resource) = resource_named(&name) {
                    self.promotion_begins(host, resource, process.pid);
                }
                self.executed(host, watch, ticket);
            }
            Act::Signal { .. } => self.executed(host, watch, ticket),
        }
    }

    /// An act is complete.
    pub fn executed(&mut self, host: usize, watch: u64, ticket: u64) {
        if self.hosts[host].watch.number == watch {
            self.sentinel(host, sentinel::Event::Acted { ticket, outcome: Outcome::Done });
        }
    }

    /// The agent stops, or goes on and finds what has piled up.
    pub fn freeze(&mut self, host: usize, frozen: bool) {
        if self.hosts[host].agent.is_none() || self.hosts[host].frozen == frozen {
            return;
        }
        self.say(host, || if frozen { "agent frozen".into() } else { "agent goes on".into() });
        self.hosts[host].frozen = frozen;
        if !frozen {
            let inbox = std::mem::take(&mut self.hosts[host].inbox);
            for event in inbox {
                self.handle(host, event);
            }
            let life = self.hosts[host].agent_life;
            for what in std::mem::take(&mut self.hosts[host].unheard) {
                self.said(host, life, what);
            }
            self.handle(host, Event::Ticked);
        }
    }

    /// The machine stands still, or goes on.
    pub fn pause(&mut self, host: usize, paused: bool) {
        if !self.hosts[host].on || self.hosts[host].paused == paused {
            return;
        }
        self.say(host, || if paused { "machine paused".into() } else { "machine goes on".into() });
        self.hosts[host].paused = paused;
        if !paused {
            self.hosts[host].run.resumed_at_us = Some(self.now);
            let deferred = std::mem::take(&mut self.hosts[host].deferred);
            let spread = deferred.len() as u64;
            for (order, what) in deferred.into_iter().enumerate() {
                self.after(order as u64 * 2_000 / spread.max(1), what);
            }
        }
    }
}

/// Whether two records differ in nothing but how long and how far, which changes all the time.
fn differ_in_time(a: &sentinel::Record, b: &sentinel::Record) -> bool {
    let sentinel::Record {
        generation,
        deadline_us: _,
        lapsed_generation,
        floor_index: _,
        released,
        services,
        addresses,
        agent,
        watchdog,
    } = a;
    (generation, lapsed_generation, agent, watchdog) == (&b.generation, &b.lapsed_generation, &b.agent, &b.watchdog)
        && (services, addresses, released) == (&b.services, &b.addresses, &b.released)
}

impl Host {
    /// The sentinel forked a database server.
    pub fn server_started(&mut self, resource: ResourceId, pid: u32) {
        if let Some(instance) = self.databases.get_mut(&resource) {
            instance.forked(pid);
        }
    }
}
