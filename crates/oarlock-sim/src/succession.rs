//! The end of a sentinel, and who takes over: what it has on file is adopted, what runs goes on.
//!
//! As in the product: the agent sees its socket end and becomes the sentinel in the same process, or
//! the supervisor starts another. Either has the dead one's record as it was last saved, looks at the
//! deadline first of all, and starts an agent of its own.

use crate::faults::Fault;
use crate::host::{Asked, resource_named};
use crate::sabotage::Sabotage;
use crate::shell::resource_at;
use crate::world::{What, World};
use oarlock_core::Event;
use oarlock_core::request::Request;
use oarlock_core::sentinel::{self, Act, Exit, Main, Platform, Record, Sentinel};

/// The grace that a sentinel's agent asks for when the sentinel is told to end.
const LEAVING_GRACE_MS: u64 = 10_000;
/// The shortest grace under which an agent starts anew.
const RESTART_GRACE_MS: u64 = 2_000;

/// Why an agent asked for a grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// It starts anew.
    Restart,
    /// The sentinel was told to end.
    Leave,
}

impl World {
    /// kill -9 of the sentinel, after so many more of its effects.
    pub fn sentinel_doomed(&mut self, host: usize, after: u32) {
        if self.hosts[host].sentinel.is_none() {
            return;
        }
        match after {
            0 => self.sentinel_dies(host),
            more => self.hosts[host].watch.doomed = Some(more),
        }
    }

    /// Counts the effects of a doomed sentinel. True when it has had its last.
    pub fn sentinel_effect_counts(&mut self, host: usize) -> bool {
        let Some(left) = &mut self.hosts[host].watch.doomed else { return false };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        self.sentinel_dies(host);
        true
    }

    /// The sentinel is gone from one moment to the next. The agent will notice; where there is none
    /// that can, the supervisor starts another sentinel, and until then nobody holds the deadline.
    pub fn sentinel_dies(&mut self, host: usize) {
        if self.hosts[host].sentinel.is_none() {
            return;
        }
        self.say(host, || "sentinel dies".into());
        self.finish_acts(host);
        let (now, twice) = (self.now, self.stop_budget_us() * 2);
        let machine = &mut self.hosts[host];
        let stalled = machine.watch.stalled;
        let watch = machine.watch.ends();
        machine.sentinel = None;
        machine.sentinel_due = None;
        let again = now < machine.watch.since_us + twice;
        let becomes = machine.agent.is_some() && !machine.frozen;
        machine.watch.orphaned = again || stalled || !becomes;
        if becomes {
            let life = machine.agent_life;
            self.soon(50, self.stop_budget_us() / 16, What::SentinelMissed { host, life, watch });
        } else {
            self.soon(20_000, 500_000, What::Succeed { host, watch });
        }
    }

    /// What the sentinel was doing when it died: each act was done, or was not.
    fn finish_acts(&mut self, host: usize) {
        let watch = self.hosts[host].watch.number;
        for act in self.acts_of(host, watch) {
            if self.rng.chance(500) {
                continue;
            }
            match act {
                Under::Act(Act::AddAddress(address)) => {
                    self.say(host, || format!("{} added by the dying sentinel", address.ip));
                    if let Some(resource) = resource_at(&address) {
                        self.hosts[host].run.address_up(resource);
                    }
                }
                Under::Act(Act::Promote { name, process, .. }) => {
                    if let Some(resource) = resource_named(&name) {
                        self.promotion_begins(host, resource, process.pid);
                    }
                }
                Under::Act(Act::Spawn { .. } | Act::Signal { .. }) => {}
                Under::Removal(address) => {
                    if let Some(resource) = resource_at(&address) {
                        self.hosts[host].run.address_down(resource);
                    }
                }
            }
        }
    }

    fn acts_of(&self, host: usize, watch: u64) -> Vec<Under> {
        let under = |what: &What| match what {
            What::Act { host: at, watch: of, act, .. } if (*at, *of) == (host, watch) => {
                Some(Under::Act((**act).clone()))
            }
            What::AddressGoes { host: at, watch: of, address, .. } if (*at, *of) == (host, watch) => {
                Some(Under::Removal(address.clone()))
            }
            _ => None,
        };
        self.waiting().filter_map(under).collect()
    }

    /// The agent's socket to its sentinel has ended: it becomes the sentinel.
    pub fn sentinel_missed(&mut self, host: usize, life: u64, watch: u64) {
        if self.agent(host, life).is_none() || self.hosts[host].watch.number != watch {
            // It died meanwhile, and with it whoever could have taken over at once.
            return self.orphan(host, watch);
        }
        if self.hosts[host].frozen {
            return self.orphan(host, watch);
        }
        self.say(host, || "agent becomes the sentinel".into());
        self.agent_dies(host);
        self.soon(500, self.stop_budget_us() * 3 / 16, What::Succeed { host, watch });
    }

    fn orphan(&mut self, host: usize, watch: u64) {
        let machine = &mut self.hosts[host];
        if machine.on && machine.sentinel.is_none() && machine.watch.number == watch {
            machine.watch.orphaned = true;
            self.soon(20_000, 500_000, What::Succeed { host, watch });
        }
    }

    /// Another sentinel takes over.
    pub fn succeed(&mut self, host: usize, watch: u64) {
        let machine = &mut self.hosts[host];
        if !machine.on || machine.watch.number != watch {
            return;
        }
        if machine.watch.keeper {
            // It hands over; all that is needed is on file.
            machine.watch.ends();
            machine.sentinel = None;
        }
        if machine.sentinel.is_some() {
            return;
        }
        let forgets = self.sabotage == Some(Sabotage::SuccessorForgets);
        let record = machine.watch.kept.clone().filter(|_| !forgets);
        let orphaned = std::mem::take(&mut machine.watch.orphaned);
        machine.watch.since_us = self.now;
        machine.watch.keeper = false;
        machine.sentinel_due = None;
        if orphaned {
            machine.run.resumed_at_us = Some(self.now);
        }
        machine.sentinel = Some(match &record {
            Some(record) => Sentinel::adopt((**record).clone(), Platform::default()),
            None => Sentinel::new(Platform::default()),
        });
        self.say(host, || format!("another sentinel, with the record {record:?}"));
        self.take_over(host, &record.map(|record| *record).unwrap_or_default());
    }

    fn take_over(&mut self, host: usize, record: &Record) {
        let number = self.hosts[host].watch.number;
        let ended = self.ended(host, record);
        let lives = |world: &World| world.hosts[host].watch.number == number && world.hosts[host].sentinel.is_some();
        // Before anything else: the lease may have lapsed while nobody held the deadline.
        self.sentinel(host, sentinel::Event::Tick);
        self.kill_strays(host, record);
        for event in ended.into_iter().filter(|_| lives(self)).collect::<Vec<_>>() {
            self.sentinel(host, event);
        }
        // An agent that did not become the sentinel does not run beside it.
        self.agent_dies(host);
        if record.agent.is_some() && lives(self) {
            self.sentinel(host, sentinel::Event::AgentGone);
        }
        let boot = self.hosts[host].boot;
        self.soon(5_000, 60_000, What::Spawn { host, boot });
    }

    /// What the record says is alive and is not.
    fn ended(&self, host: usize, record: &Record) -> Vec<sentinel::Event> {
        let mut ended = Vec::new();
        for service in record.services.iter().filter(|service| service.is_alive()) {
            let name = service.name.clone();
            let program = resource_named(&name).and_then(|resource| self.hosts[host].run.program(resource));
            if let Main::Running(process) = service.main
                && program != Some(process.pid)
            {
                ended.push(sentinel::Event::Exited { name: name.clone(), pid: process.pid, exit: Exit::Unknown });
            }
            if program.is_none() {
                ended.push(sentinel::Event::Emptied { name });
            }
        }
        ended
    }

    /// Programs that no record knows are of a start that was cut short.
    fn kill_strays(&mut self, host: usize, record: &Record) {
        if self.sabotage == Some(Sabotage::SuccessorForgets) {
            return;
        }
        let names = self.hosts[host].run.programs().map(|(resource, _)| crate::host::name_of(resource));
        let strays: Vec<String> = names.filter(|name| record.service(name).is_none()).collect();
        for name in strays {
            self.kill(host, name);
        }
    }

    /// SIGSTOP of the sentinel: nobody holds the deadline until its agent has lost patience and
    /// takes its place, or until it goes on.
    pub fn sentinel_stops(&mut self, host: usize) {
        if self.hosts[host].sentinel.is_none() || self.hosts[host].watch.stalled {
            return;
        }
        self.say(host, || "sentinel stopped".into());
        let timing = self.core(host).map_or(self.config.timing, |core| core.state().config.timing);
        let machine = &mut self.hosts[host];
        machine.watch.stalled = true;
        machine.watch.orphaned = true;
        let watch = machine.watch.number;
        let patience = timing.lease.0 / 3;
        self.soon(patience, patience + timing.heartbeat.0 * 2, What::Fault(Fault::Impatient(host, watch)));
        self.soon(20_000, 5_000_000, What::Fault(Fault::Continue(host, watch)));
    }

    /// The agent has waited long enough for its sentinel to answer, and kills it.
    pub fn sentinel_is_missed(&mut self, host: usize, watch: u64) {
        let machine = &self.hosts[host];
        if machine.watch.stalled && machine.watch.number == watch && machine.agent.is_some() && !machine.frozen {
            self.sentinel_dies(host);
        }
    }

    /// SIGCONT of the sentinel, if it still is the same.
    pub fn sentinel_continues(&mut self, host: usize, watch: u64) {
        let now = self.now;
        let machine = &mut self.hosts[host];
        if !machine.watch.stalled || machine.watch.number != watch {
            return;
        }
        machine.watch.stalled = false;
        machine.watch.orphaned = false;
        machine.run.resumed_at_us = Some(now);
        self.say(host, || "sentinel goes on".into());
        let unheard = std::mem::take(&mut self.hosts[host].watch.unheard);
        self.sentinel(host, sentinel::Event::Tick);
        for event in unheard {
            if self.hosts[host].watch.number == watch {
                self.sentinel(host, event);
            }
        }
    }

    /// kill -9 of agent and sentinel in one instant.
    pub fn both_killed(&mut self, host: usize) {
        if self.hosts[host].sentinel.is_none() {
            return;
        }
        self.agent_dies(host);
        self.sentinel_dies(host);
    }

    /// The agent is to start anew under a grace, as after a change of the configuration.
    pub fn restart_agent(&mut self, host: usize) {
        let Some(core) = self.core(host) else { return };
        let grace_ms = (core.state().config.timing.lease.as_ms() * 4).max(RESTART_GRACE_MS);
        self.ask_grace(host, grace_ms, Grace::Restart);
    }

    /// A configuration is in force: it is written, and where an agent reads it only at its start, the
    /// agents start anew, one after the other.
    pub fn adopt_config(&mut self, host: usize, generation: u64) {
        self.say(host, || format!("configuration {generation}"));
        let Some(config) = self.core(host).map(|core| core.state().config.as_ref().clone()) else { return };
        let timing = config.timing;
        let former = self.hosts[host].agent.as_ref().map(|agent| agent.timing);
        self.hosts[host].file = Some(config);
        if former.is_some_and(|former| former != timing) {
            let life = self.hosts[host].agent_life;
            self.after(timing.lease.0 * 2 * (host as u64 + 1), What::Renewal { host, life });
        }
    }

    /// It is this agent's turn to start anew with the new configuration.
    pub fn renewal(&mut self, host: usize, life: u64) {
        let now = self.hosts[host].file.as_ref().map(|config| config.timing);
        if self.agent(host, life).is_some_and(|agent| Some(agent.timing) != now) {
            self.restart_agent(host);
        }
    }

    /// The sentinel is told to end (SIGTERM): the supervisor starts another later.
    pub fn terminate(&mut self, host: usize) {
        if !self.hosts[host].watch.keeper {
            self.sentinel(host, sentinel::Event::Terminate);
        }
    }

    /// The agent asks the others for a grace.
    pub fn ask_grace(&mut self, host: usize, grace_ms: u64, why: Grace) {
        let id = self.number();
        let life = self.hosts[host].agent_life;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.grace = Some((id, why));
        self.say(host, || format!("asks for a grace of {grace_ms} ms: {why:?}"));
        self.tell(host, life, Event::Requested { id, request: Request::Grace { grace_ms } });
    }

    /// The sentinel was told to end, and tells its agent.
    pub fn told_to_end(&mut self, host: usize) {
        self.ask_grace(host, LEAVING_GRACE_MS, Grace::Leave);
    }

    /// A request was answered: perhaps the one for a grace.
    pub fn grace_answered(&mut self, host: usize, id: u64, granted: bool) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some((_, why)) = agent.grace.take_if(|(known, _)| *known == id) else { return };
        let (generation, deadline) = (agent.core.holder().generation(), agent.core.holder().deadline());
        match why {
            // The sentinel hears of the long lease first.
            Grace::Restart => self.ask(host, Asked::Restart, sentinel::Request::Hello),
            Grace::Leave => {
                let until_us = deadline.filter(|_| granted).map(|deadline| deadline.0);
                self.ask(host, Asked::Nothing, sentinel::Request::MayLeave { generation, until_us });
            }
        }
    }

    /// The sentinel leaves: where something exclusive runs, a keeper stays with the deadline.
    pub fn sentinel_leaves(&mut self, host: usize) {
        self.agent_dies(host);
        let machine = &mut self.hosts[host];
        let keeps = machine.sentinel.as_ref().is_some_and(|sentinel| sentinel.record().holds_exclusive());
        self.say(host, || format!("sentinel leaves, a keeper stays: {keeps}"));
        let machine = &mut self.hosts[host];
        machine.watch.keeper = keeps;
        if !keeps {
            machine.watch.ends();
            machine.sentinel = None;
        }
        let watch = self.hosts[host].watch.number;
        // Mostly at once, sometimes long after the end of the grace.
        let longest = if self.rng.chance(800) { 2_000_000 } else { 20_000_000 };
        self.soon(20_000, longest, What::Succeed { host, watch });
    }
}

/// What a sentinel was doing.
enum Under {
    Act(Act),
    Removal(sentinel::Address),
}
