//! The state machine: lease, lapse, and who is told what.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Address, Command, Exit, Guard, Notice, Platform, Refusal, Remaining, Reply, Request, Welcome};
use super::record::{Main, Process, Record, Service};
use super::{
    ADDRESS_RETRY_US, KILL_LOOK_US, KILL_WAIT_US, MAX_GROUPS, MAX_LEASE_US, MAX_NAME_BYTES, SILENCE_LOOK_US,
    TERMINATE_WAIT_US,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent asks.
    Request {
        /// Id to answer under.
        id: u64,
        /// What it asks.
        request: Request,
    },
    /// Time has passed.
    Tick,
    /// An [`Effect::Act`] was performed, or a stage of it.
    Acted {
        /// Ticket of the act.
        ticket: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The main process of a service ended.
    Exited {
        /// The service.
        name: String,
        /// Its process id.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// A service has no process left.
    Emptied {
        /// The service.
        name: String,
    },
    /// An address is not on its interface any more.
    AddressGone {
        /// The address.
        address: Address,
    },
    /// The answer to [`Effect::Inspect`].
    Inspected {
        /// The service.
        name: String,
        /// Its processes.
        remaining: Vec<Remaining>,
    },
    /// An agent was started.
    AgentStarted(Process),
    /// The agent, or the connection to it, is gone; nobody waits for replies any more.
    AgentGone,
    /// The sentinel was asked to end (SIGTERM).
    Terminate,
}

/// What came of an [`Act`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process exists, the program is not executed yet.
    Forked(Process),
    /// It is done (for a start: the program is executed).
    Done,
    /// The system did not do it.
    Failed {
        /// The system's words.
        reason: String,
    },
}

/// Something that may be done only while the check before and after it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start a service in its own group: `Forked`, then `Done`.
    Spawn {
        /// The service.
        name: String,
        /// What to run.
        command: Box<Command>,
    },
    /// Write a trigger file and signal the main process, from within the service's group.
    Promote {
        /// The service.
        name: String,
        /// Its main process.
        process: Process,
        /// File to create.
        trigger_file: String,
        /// Signal to send afterwards.
        signal: i32,
    },
    /// Put an address on an interface.
    AddAddress(Address),
    /// Signal a process.
    Signal {
        /// The process.
        process: Process,
        /// Signal number.
        signal: i32,
    },
}

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Keep [`Sentinel::record`] for the next sentinel.
    Save,
    /// Answer the agent.
    Reply {
        /// Id of the request.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Tell the agent.
    Notify(Notice),
    /// Do this and report with [`Event::Acted`].
    Act {
        /// Echoed in the report.
        ticket: u64,
        /// What to do.
        act: Act,
    },
    /// Kill every process of a service; report [`Event::Emptied`] when none is left.
    Kill {
        /// The service.
        name: String,
    },
    /// Take an address away; report [`Event::AddressGone`] if that worked.
    RemoveAddress(Address),
    /// The lease ran out: kill these services and take these addresses away, before anything
    /// else and with the least possible work. Reported as for `Kill` and `RemoveAddress`.
    Silence {
        /// Services to kill.
        services: Vec<String>,
        /// Addresses to take away.
        addresses: Vec<Address>,
    },
    /// Report the processes of a service with [`Event::Inspected`].
    Inspect {
        /// The service.
        name: String,
    },
    /// End the sentinel; if anything exclusive is there, leave a keeper that holds the deadline.
    Leave,
}

/// A kill somebody waits for.
#[derive(Clone, Debug)]
pub(super) struct KillWait {
    pub id: u64,
    pub name: String,
    /// When to look whether what is left only waits for a disk.
    pub look_at_us: u64,
    pub until_us: u64,
}

/// A lapse being carried out.
#[derive(Clone, Debug)]
pub(super) struct Silencing {
    generation: u64,
    /// The deadline; for an adopted lapse, the adoption.
    since_us: u64,
    /// When to look at what is left.
    look_at_us: u64,
}

/// An act under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub id: Option<u64>,
    pub guard: Option<Guard>,
    pub subject: Subject,
    /// What a start has forked: another start under the same name may follow before we hear how
    /// this one ended.
    pub forked: Option<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Spawn(String),
    Promote(String),
    Address(Address),
    Signal,
}

/// The sentinel's decisions.
#[derive(Clone, Debug)]
pub struct Sentinel {
    pub(super) record: Record,
    platform: Platform,
    fresh: bool,
    pub(super) now_us: u64,
    pub(super) next_ticket: u64,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) kills: Vec<KillWait>,
    pub(super) removals: Vec<(u64, Address)>,
    retry_us: Option<u64>,
    terminate_by_us: Option<u64>,
    leaving: bool,
    pub(super) silencing: Option<Silencing>,
    /// Services that were killed and are not known to be gone.
    pub(super) killed: BTreeSet<String>,
    /// Those of which only processes are left that will never run another instruction: they wait for a
    /// disk. Nothing of them can answer anybody, so a lapse is complete and an epoch may be released without waiting.
    pub(super) spent: BTreeSet<String>,
    pub(super) out: Vec<Effect>,
}

impl Silencing {
    fn new(generation: u64, since_us: u64) -> Self {
        let look_at_us = since_us.saturating_add(SILENCE_LOOK_US);
        Self { generation, since_us, look_at_us }
    }
}

impl Sentinel {
    /// A sentinel on a machine where no sentinel ran since boot.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self { fresh: true, ..Self::adopt(Record::default(), platform) }
    }

    /// A sentinel that takes over the record of a dead one. The shell must then report what is
    /// gone (`Exited`, `Emptied`, `AddressGone`), and first of all a `Tick`: the lease may have
    /// lapsed meanwhile.
    #[must_use]
    pub fn adopt(record: Record, platform: Platform) -> Self {
        let mut record = record;
        let retry_us = record.addresses.iter().any(|held| held.leaving).then_some(0);
        let mut killed = BTreeSet::new();
        for service in &mut record.services {
            // Its starter died before it could write down what it had started.
            let cut_short = service.main == Main::Starting;
            if cut_short {
                service.main = Main::Exited(Exit::Unknown);
            }
            let lapsed = service.guard.as_ref().is_some_and(|guard| guard.generation <= record.lapsed_generation);
            let rest = service.process().is_none() && !service.keep_group;
            if service.is_alive() && (cut_short || lapsed || rest) {
                killed.insert(service.name.clone());
            }
        }
        let out = killed.iter().map(|name| Effect::Kill { name: name.clone() }).collect();
        let lapsed = record.lapsed_generation;
        let silencing = record.holds_exclusive_of(lapsed).then(|| Silencing::new(lapsed, 0));
        Self {
            record,
            platform,
            fresh: false,
            now_us: 0,
            next_ticket: 1,
            pending: BTreeMap::new(),
            kills: Vec::new(),
            removals: Vec::new(),
            retry_us,
            terminate_by_us: None,
            leaving: false,
            silencing,
            killed,
            spent: BTreeSet::new(),
            out,
        }
    }

    /// What must outlive this sentinel.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Changes what the machine is known to grant.
    pub fn set_platform(&mut self, platform: Platform) {
        self.platform = platform;
    }

    /// When the next `Tick` is due at the latest.
    #[must_use]
    pub fn wake_at_us(&self) -> Option<u64> {
        let kills = self.kills.iter().map(|wait| wait.look_at_us.min(wait.until_us)).min();
        let look = self.silencing.as_ref().map(|silencing| silencing.look_at_us);
        [look, self.record.deadline_us, kills, self.retry_us, self.terminate_by_us].into_iter().flatten().min()
    }

    /// Takes an event and returns what to do, in order. A lapse due by `now_us` comes first,
    /// whatever the event.
    pub fn handle(&mut self, now_us: u64, event: Event) -> Vec<Effect> {
        self.now_us = self.now_us.max(now_us);
        self.lapse_if_due();
        match event {
            Event::Request { id, request } => self.request(id, request),
            Event::Tick => {}
            Event::Acted { ticket, outcome } => self.acted(ticket, outcome),
            Event::Exited { name, pid, exit } => self.exited(name, pid, exit),
            Event::Emptied { name } => self.emptied(name),
            Event::AddressGone { address } => self.address_gone(&address),
            Event::Inspected { name, remaining } => self.inspected(&name, &remaining),
            Event::AgentStarted(process) => {
                self.record.agent = Some(process);
                self.save();
            }
            Event::AgentGone => self.agent_gone(),
            Event::Terminate => self.terminate(),
        }
        self.timers();
        self.report_silence();
        std::mem::take(&mut self.out)
    }

    fn lapse_if_due(&mut self) {
        let Some(deadline_us) = self.record.deadline_us.filter(|at| self.now_us >= *at) else {
            return;
        };
        let record = &mut self.record;
        record.lapsed_generation = record.lapsed_generation.max(record.generation);
        record.deadline_us = None;
        let mut addresses = Vec::new();
        for held in record.addresses.iter_mut().filter(|held| held.guard.is_some()) {
            held.leaving = true;
            addresses.push(held.address.clone());
        }
        let services: Vec<String> = record
            .services
            .iter()
            .filter(|service| service.guard.is_some() && service.is_alive())
            .map(|service| service.name.clone())
            .collect();
        let generation = record.generation;
        if !addresses.is_empty() {
            self.retry_us = Some(self.now_us + ADDRESS_RETRY_US);
        }
        self.killed.extend(services.iter().cloned());
        if !(services.is_empty() && addresses.is_empty()) {
            self.out.push(Effect::Silence { services, addresses });
        }
        self.save();
        self.out.push(Effect::Notify(Notice::Lapsed { generation }));
        self.silencing = Some(Silencing::new(generation, deadline_us));
    }

    /// Says once that everything the lapse stopped is gone.
    fn report_silence(&mut self) {
        let Some(silencing) = &self.silencing else {
            return;
        };
        let generation = silencing.generation;
        let old = |guard: &Option<Guard>| guard.as_ref().is_some_and(|guard| guard.generation <= generation);
        let mut addresses = self.record.addresses.iter();
        if self.unsilenced().next().is_some() || addresses.any(|held| old(&held.guard)) {
            return;
        }
        let took_us = self.now_us.saturating_sub(silencing.since_us);
        self.silencing = None;
        self.out.push(Effect::Notify(Notice::Silenced { generation, took_us }));
    }

    /// The services that the lapse stopped and that may still do something.
    fn unsilenced(&self) -> impl Iterator<Item = &Service> {
        let old = |service: &Service, silencing: &Silencing| {
            service.guard.as_ref().is_some_and(|guard| guard.generation <= silencing.generation)
                && !self.is_spent(&service.name)
        };
        let services = self.record.services.iter().filter(|service| service.is_alive());
        services.filter(move |service| self.silencing.as_ref().is_some_and(|silencing| old(service, silencing)))
    }

    /// Whether something may start or stay under `guard` now.
    pub(super) fn admit(&self, guard: &Guard) -> Result<(), Refusal> {
        let record = &self.record;
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        self.current(guard.generation)?;
        if record.deadline_us.is_none() {
            return Err(Refusal::NoLease { generation: record.generation });
        }
        let released = record.released.get(&guard.group).copied().unwrap_or(0);
        if guard.epoch <= released {
            return Err(Refusal::Released { group: guard.group.clone(), epoch: guard.epoch, released });
        }
        Ok(())
    }

    fn current(&self, generation: u64) -> Result<(), Refusal> {
        let record = &self.record;
        if generation <= record.lapsed_generation {
            return Err(Refusal::Lapsed { lapsed: record.lapsed_generation });
        }
        if generation != record.generation {
            return Err(Refusal::Generation { asked: generation, current: record.generation });
        }
        Ok(())
    }

    fn request(&mut self, id: u64, request: Request) {
        let answer = match request {
            Request::Hello => Ok(Some(self.welcome())),
            Request::Lease { generation, deadline_us } => self.lease(generation, deadline_us).map(Some),
            Request::Shorten { generation, deadline_us } => self.shorten(generation, deadline_us).map(Some),
            Request::NewGeneration { generation } => self.new_generation(generation).map(Some),
            Request::Floor { applied_index, released } => self.floor(applied_index, released).map(Some),
            Request::Spawn { name, command, guard } => self.spawn(id, name, command, guard),
            Request::Signal { name, signal } => self.signal(id, &name, signal),
            Request::KillGroup { name } => self.kill_group(id, name),
            Request::AddressUp { address, guard } => self.address_up(id, address, guard),
            Request::AddressDown { address } => self.address_down(id, &address),
            Request::Promote { name, pid, trigger_file, signal, guard } => {
                self.promote(id, name, pid, trigger_file, signal, guard)
            }
            Request::Guarded { name, guard } => self.guarded(&name, guard).map(Some),
            Request::Unguarded { name } => self.unguarded(&name).map(Some),
            Request::Watch { watchdog } => Ok(Some(self.watch(watchdog))),
            Request::Forget { name } => self.forget(&name).map(Some),
            Request::MayLeave { generation, until_us } => {
                self.may_leave(id, generation, until_us);
                Ok(None)
            }
            Request::Stay => {
                self.terminate_by_us = None;
                Ok(Some(Reply::Done))
            }
        };
        match answer {
            Ok(Some(reply)) => self.out.push(Effect::Reply { id, reply }),
            Ok(None) => {}
            Err(refusal) => self.refuse(Some(id), refusal),
        }
    }

    fn welcome(&self) -> Reply {
        let record = self.record.clone();
        Reply::Welcome(Box::new(Welcome {
            fresh: self.fresh,
            generation: record.generation,
            deadline_us: record.deadline_us,
            lapsed_generation: record.lapsed_generation,
            floor_index: record.floor_index,
            released: record.released,
            services: record.services,
            addresses: record.addresses,
            platform: self.platform,
        }))
    }

    fn lease(&mut self, generation: u64, deadline_us: u64) -> Result<Reply, Refusal> {
        self.current(generation)?;
        let now_us = self.now_us;
        if deadline_us <= now_us && self.record.deadline_us.is_none() {
            self.late_lease(generation, deadline_us);
        }
        if deadline_us <= now_us || deadline_us > now_us.saturating_add(MAX_LEASE_US) {
            return Err(Refusal::Deadline { deadline_us, now_us });
        }
        // A majority granted the later one; a reordered, older renewal takes nothing back.
        let deadline_us = deadline_us.max(self.record.deadline_us.unwrap_or(0));
        self.record.deadline_us = Some(deadline_us);
        self.save();
        Ok(Reply::LeaseArmed { generation, deadline_us })
    }

    fn shorten(&mut self, generation: u64, deadline_us: u64) -> Result<Reply, Refusal> {
        self.current(generation)?;
        let now_us = self.now_us;
        let Some(held_us) = self.record.deadline_us.filter(|_| deadline_us > now_us) else {
            return Err(Refusal::Deadline { deadline_us, now_us });
        };
        let deadline_us = deadline_us.min(held_us);
        self.record.deadline_us = Some(deadline_us);
        self.save();
        Ok(Reply::LeaseArmed { generation, deadline_us })
    }

    /// A lease that was over before it came: it lapsed all the same, which the agent has to hear,
    /// for it waits for the silence.
    fn late_lease(&mut self, generation: u64, deadline_us: u64) {
        self.record.lapsed_generation = self.record.lapsed_generation.max(generation);
        self.silencing.get_or_insert_with(|| Silencing::new(generation, deadline_us)).generation = generation;
        self.save();
    }

    fn new_generation(&mut self, generation: u64) -> Result<Reply, Refusal> {
        let record = &mut self.record;
        if generation <= record.lapsed_generation {
            return Err(Refusal::Lapsed { lapsed: record.lapsed_generation });
        }
        if generation < record.generation {
            return Err(Refusal::Generation { asked: generation, current: record.generation });
        }
        if generation > record.generation {
            record.generation = generation;
            self.fresh = false;
            self.save();
        }
        Ok(Reply::Done)
    }

    fn floor(&mut self, applied_index: u64, released: Option<(String, u64)>) -> Result<Reply, Refusal> {
        if let Some((group, epoch)) = released {
            check_name(&group)?;
            let left = self.still_under(&group, epoch);
            // Killed, they may only wait for a disk by now: whoever asks again is told so.
            let killed = left.iter().filter(|name| self.killed.contains(*name)).cloned();
            self.out.extend(killed.map(|name| Effect::Inspect { name }));
            if let Some(name) = left.into_iter().next() {
                return Err(Refusal::StillRunning { name });
            }
            let record = &mut self.record;
            if !record.released.contains_key(&group) && record.released.len() >= MAX_GROUPS {
                return Err(Refusal::Full { what: "groups".into(), limit: MAX_GROUPS });
            }
            let floor = record.released.entry(group).or_insert(0);
            *floor = epoch.max(*floor);
        }
        self.record.floor_index = self.record.floor_index.max(applied_index);
        self.save();
        Ok(Reply::Done)
    }

    /// Whether nothing of a service can run again, nor is about to be born.
    fn is_spent(&self, name: &str) -> bool {
        let births =
            |pending: &Pending| matches!(&pending.subject, Subject::Spawn(of) | Subject::Promote(of) if of == name);
        self.spent.contains(name) && !self.pending.values().any(births)
    }

    /// What is still there under `epoch` of `group` or an older one, and may do something.
    fn still_under(&self, group: &str, epoch: u64) -> Vec<String> {
        let under =
            |guard: &Option<Guard>| guard.as_ref().is_some_and(|guard| guard.group == group && guard.epoch <= epoch);
        let record = &self.record;
        let services = record.services.iter().filter(|s| under(&s.guard) && s.is_alive() && !self.is_spent(&s.name));
        let addresses = record.addresses.iter().filter(|held| under(&held.guard));
        services.map(|service| service.name.clone()).chain(addresses.map(|held| held.address.to_string())).collect()
    }

    fn exited(&mut self, name: String, pid: u32, exit: Exit) {
        let Some(service) = self.record.service_mut(&name) else {
            return;
        };
        if service.process().is_none_or(|process| process.pid != pid) {
            return;
        }
        service.main = Main::Exited(exit);
        let kill_rest = service.occupied && !service.keep_group;
        if !service.occupied {
            service.guard = None;
        }
        // What is left of a service without its main process can only do harm.
        if kill_rest {
            self.kill(&name);
        }
        self.save();
        self.out.push(Effect::Notify(Notice::Exited { name: name.clone(), pid, exit }));
        self.answer_kills(&name);
    }

    fn emptied(&mut self, name: String) {
        let Some(service) = self.record.service_mut(&name) else {
            return;
        };
        if !service.occupied {
            return;
        }
        service.occupied = false;
        if !service.is_alive() {
            service.guard = None;
        }
        self.begin_anew(&name);
        self.save();
        self.out.push(Effect::Notify(Notice::Emptied { name: name.clone() }));
        self.answer_kills(&name);
    }

    /// Answers who waited for the end of a service, once it has ended.
    pub(super) fn answer_kills(&mut self, name: &str) {
        if self.record.service(name).is_some_and(Service::is_alive) {
            return;
        }
        let out = &mut self.out;
        self.kills.retain(|wait| {
            if wait.name == name {
                let reply = Reply::Killed { remaining: Vec::new() };
                out.push(Effect::Reply { id: wait.id, reply });
            }
            wait.name != name
        });
    }

    fn inspected(&mut self, name: &str, remaining: &[Remaining]) {
        // Only what was killed is looked at.
        let silent = !remaining.is_empty() && remaining.iter().all(Remaining::is_silent);
        if silent {
            self.spent.insert(name.to_owned());
        }
        let (now_us, out) = (self.now_us, &mut self.out);
        self.kills.retain(|wait| {
            let due = wait.name == name && (silent || now_us >= wait.until_us);
            if due {
                let reply = Reply::Killed { remaining: remaining.to_vec() };
                out.push(Effect::Reply { id: wait.id, reply });
            }
            !due
        });
    }

    fn agent_gone(&mut self) {
        self.record.agent = None;
        for pending in self.pending.values_mut() {
            pending.id = None;
        }
        self.kills.clear();
        self.removals.clear();
        self.save();
        // The answer to `Terminate` will not come.
        if self.terminate_by_us.is_some() {
            self.leave();
        }
    }

    fn terminate(&mut self) {
        if self.record.agent.is_none() || self.terminate_by_us.is_some() {
            self.leave();
            return;
        }
        self.terminate_by_us = Some(self.now_us + TERMINATE_WAIT_US);
        self.out.push(Effect::Notify(Notice::Terminate));
    }

    fn may_leave(&mut self, id: u64, generation: u64, until_us: Option<u64>) {
        let extended = until_us.map(|until_us| self.lease(generation, until_us));
        let reply = match extended {
            Some(Err(refusal)) => Reply::Refused(refusal),
            Some(Ok(_)) | None => Reply::Done,
        };
        self.out.push(Effect::Reply { id, reply });
        // Asked to end and answered: without a grace, what runs keeps the lease it has.
        self.leave();
    }

    fn leave(&mut self) {
        self.terminate_by_us = None;
        if !self.leaving {
            self.leaving = true;
            self.save();
            self.out.push(Effect::Leave);
        }
    }

    /// What is due besides the lapse.
    fn timers(&mut self) {
        let now_us = self.now_us;
        for wait in &mut self.kills {
            if now_us >= wait.look_at_us.min(wait.until_us) {
                wait.look_at_us = now_us + KILL_LOOK_US;
                self.out.push(Effect::Inspect { name: wait.name.clone() });
            }
        }
        if let Some(silencing) = self.silencing.as_mut().filter(|silencing| now_us >= silencing.look_at_us) {
            if silencing.since_us == 0 {
                silencing.since_us = now_us;
            }
            silencing.look_at_us = now_us + SILENCE_LOOK_US;
            let names: Vec<String> = self.unsilenced().map(|service| service.name.clone()).collect();
            self.out.extend(names.into_iter().map(|name| Effect::Inspect { name }));
        }
        if self.retry_us.is_some_and(|at| now_us >= at) {
            self.retry_us = None;
            for held in self.record.addresses.iter().filter(|held| held.leaving) {
                self.out.push(Effect::RemoveAddress(held.address.clone()));
                self.retry_us = Some(now_us + ADDRESS_RETRY_US);
            }
        }
        if self.terminate_by_us.is_some_and(|at| now_us >= at) {
            self.leave();
        }
    }

    /// Takes an address away, again and again until it is gone.
    pub(super) fn remove_address(&mut self, address: &Address) {
        if let Some(held) = self.record.address_mut(address) {
            held.leaving = true;
        }
        self.save();
        self.out.push(Effect::RemoveAddress(address.clone()));
        self.retry_us = Some(self.now_us + ADDRESS_RETRY_US);
    }

    pub(super) fn refuse(&mut self, id: Option<u64>, refusal: Refusal) {
        if let Some(id) = id {
            self.out.push(Effect::Reply { id, reply: Reply::Refused(refusal) });
        }
    }

    pub(super) fn wait_killed(&mut self, id: u64, name: String) {
        let until_us = self.now_us + KILL_WAIT_US;
        // Of one that is known to wait for a disk nothing else is to be expected.
        let look_at_us = self.now_us + if self.is_spent(&name) { 0 } else { KILL_LOOK_US };
        self.kills.push(KillWait { id, name, look_at_us, until_us });
    }

    /// Kills every process of a service.
    pub(super) fn kill(&mut self, name: &str) {
        self.killed.insert(name.to_owned());
        self.out.push(Effect::Kill { name: name.to_owned() });
    }

    /// What was known of the end of a service of this name is not true of the next.
    pub(super) fn begin_anew(&mut self, name: &str) {
        self.killed.remove(name);
        self.spent.remove(name);
    }

    pub(super) fn save(&mut self) {
        if self.out.last() != Some(&Effect::Save) {
            self.out.push(Effect::Save);
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.starts_with('.') && name.bytes().all(plain);
    if good { Ok(()) } else { Err(Refusal::Name { name: name.chars().take(80).collect() }) }
}
