//! The world: hosts, network and clients on one thread, driven by a queue of events.

use crate::checks::Checks;
use crate::client::{Client, Heard};
use crate::database::Connection;
use crate::faults::{Fault, Swarm};
use crate::host::{Agent, Host};
use crate::network::Network;
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::scenario::Variant;
use oarlock_core::config::{Config, Timing};
use oarlock_core::ids::ResourceId;
use oarlock_core::message::Message;
use oarlock_core::sentinel::{self, FromSentinel};
use oarlock_core::{Core, Event, Rules};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Something that will happen. `boot` and `life` say which boot and which agent of the host it belongs
/// to: it is void once those are over.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the fields say what they are
pub enum What {
    /// The core asked to be woken.
    CoreDue { host: usize, life: u64 },
    /// A datagram arrives, with one message or several.
    Deliver { host: usize, from: usize, messages: Vec<Message> },
    /// A write to the disk is done.
    Saved { host: usize, life: u64, ticket: u64 },
    /// The sentinel wakes.
    SentinelDue { host: usize, watch: u64 },
    /// The agent's question reaches the sentinel.
    Ask { host: usize, boot: u64, life: u64, id: u64, request: Box<sentinel::Request> },
    /// The sentinel's words reach the agent.
    Said { host: usize, life: u64, what: Box<FromSentinel> },
    /// The sentinel's act is done.
    Act { host: usize, watch: u64, ticket: u64, act: Box<sentinel::Act> },
    /// A program that was just started executes.
    Executed { host: usize, watch: u64, ticket: u64 },
    /// A program dies.
    Dies { host: usize, boot: u64, resource: ResourceId, pid: u32 },
    /// An address goes.
    AddressGoes { host: usize, boot: u64, watch: u64, address: sentinel::Address },
    /// The sentinel's look at what is left of a program.
    Inspected { host: usize, watch: u64, name: String },
    /// A service's check was good.
    ServiceChecked { host: usize, life: u64, resource: ResourceId, pid: u32 },
    /// A database command's next step.
    Job { host: usize, life: u64, resource: ResourceId, number: u64 },
    /// A database server finishes its recovery or promotion.
    Recovered { host: usize, boot: u64, resource: ResourceId, pid: u32 },
    /// The agent looks at its database.
    Status { host: usize, life: u64, resource: ResourceId, regular: bool },
    /// A standby tries to connect.
    Connect { host: usize, boot: u64, resource: ResourceId, pid: u32 },
    /// A primary's log is on its disk up to here.
    Flushed { host: usize, boot: u64, resource: ResourceId, pid: u32, upto: usize },
    /// Records arrive at a standby.
    WalArrives { connection: u64, start: usize, records: Vec<u64> },
    /// They are on the standby's disk.
    WalFlushed { connection: u64, upto: usize },
    /// The primary hears of it.
    WalConfirmed { connection: u64, upto: usize },
    /// The writing client's next turn.
    ClientTurn { client: usize },
    /// A write reaches a host.
    ClientWrite { client: usize, host: usize, id: u64 },
    /// The client hears how its write ended.
    ClientAnswer { client: usize, id: u64, good: bool },
    /// The sentinel starts an agent.
    Spawn { host: usize, boot: u64 },
    /// The agent's socket to its sentinel has ended.
    SentinelMissed { host: usize, life: u64, watch: u64 },
    /// An agent's turn to start anew with a new configuration.
    Renewal { host: usize, life: u64 },
    /// Another sentinel takes over.
    Succeed { host: usize, watch: u64 },
    /// A fault begins or ends.
    Fault(Fault),
}

/// Everything.
pub struct World {
    /// True time in microseconds.
    pub now: u64,
    /// All randomness.
    pub rng: Rng,
    /// What varies.
    pub variant: Variant,
    /// The configuration of every node.
    pub config: Config,
    /// Rules of the cores.
    pub rules: Rules,
    /// A rule of the world that is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// All machines; node n is `hosts[n - 1]`.
    pub hosts: Vec<Host>,
    /// The network.
    pub network: Network,
    /// Standbys connected to primaries.
    pub connections: BTreeMap<u64, Connection>,
    /// Counts whatever needs a number.
    pub last_number: u64,
    /// Writers, one per database.
    pub clients: Vec<Client>,
    /// What must hold.
    pub checks: Checks,
    /// Which faults there are.
    pub swarm: Swarm,
    /// Print each event.
    pub tracing: bool,
    /// Print each message too.
    pub tracing_messages: bool,
    /// What the nodes tell people, kept for whoever reads it.
    pub told: Option<Vec<String>>,
    /// What clients were told is safe, kept for whoever looks for it.
    pub heard: Option<Heard>,
    /// A request to give up a node's memory may still be under way until then (true time).
    pub replacing_until_us: u64,
    /// Only these hosts are mended, the others stay as they are.
    pub core: Option<BTreeSet<usize>>,
    /// How many events were handled.
    pub handled: u64,
    /// What a node says to another in one turn travels in one datagram, as the product's transport has it; else each
    /// message has one of its own.
    pub bundles: bool,
    /// The actions of several events of one host are being collected.
    collecting: bool,
    /// What the host that acts says, by the host it is for, until its turn is over.
    pub(crate) outbox: Vec<Vec<Message>>,
    /// Emptied datagrams, for use again.
    pub(crate) spare: Vec<Vec<Message>>,
    /// When, which came first, and where in `slots`: in one number, see [`key`].
    queue: BinaryHeap<Reverse<u128>>,
    slots: Vec<Option<What>>,
    free: Vec<usize>,
    sequence: u64,
}

/// Bits of a key for the place in `slots`.
const SLOT_BITS: u32 = 24;
/// Bits of a key for the order among events of one time, and those for the place.
const LOW_BITS: u32 = 64;

/// The queue compares one number only: first the time, then who came first.
fn key(at_us: u64, sequence: u64, slot: usize) -> u128 {
    u128::from(at_us) << LOW_BITS | u128::from(sequence << SLOT_BITS) | slot as u128
}

impl World {
    /// A world where every machine is off.
    #[must_use]
    pub fn new(seed: u64, variant: Variant) -> World {
        let config = variant.config();
        let hosts: Vec<Host> = config.nodes.iter().map(|node| Host::new(node.id)).collect();
        let mut world = World {
            now: 1_000_000,
            rng: Rng::new(seed),
            variant,
            rules: Rules::default(),
            sabotage: None,
            bundles: false,
            collecting: false,
            outbox: hosts.iter().map(|_| Vec::new()).collect(),
            spare: Vec::new(),
            hosts,
            network: Network::quiet(),
            connections: BTreeMap::new(),
            last_number: 0,
            clients: Vec::new(),
            checks: Checks::new(&config),
            swarm: Swarm::default(),
            tracing: false,
            tracing_messages: false,
            told: None,
            heard: None,
            replacing_until_us: 0,
            core: None,
            handled: 0,
            queue: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            config,
        };
        world.clients = Client::one_per_database(&world.config);
        for client in 0..world.clients.len() {
            world.after(10_000, What::ClientTurn { client });
        }
        world
    }

    /// Something happens after `delay_us`.
    pub fn after(&mut self, delay_us: u64, what: What) {
        self.sequence += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(what);
                slot
            }
            None => {
                self.slots.push(Some(what));
                self.slots.len() - 1
            }
        };
        self.queue.push(Reverse(key(self.now + delay_us, self.sequence, slot)));
    }

    /// Something happens after a random time, in microseconds.
    pub fn soon(&mut self, low_us: u64, high_us: u64, what: What) {
        let delay = self.rng.within(low_us, high_us);
        self.after(delay, what);
    }

    /// A number never given before.
    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// One line of the trace.
    pub fn say(&self, host: usize, text: impl FnOnce() -> String) {
        if self.tracing {
            let name = self.config.nodes.get(host).map_or("", |node| node.name.as_str());
            println!("{:>12.3} ms  {name:<9} {}", self.now as f64 / 1000.0, text());
        }
    }

    /// A node tells people something.
    pub fn told(&mut self, host: usize, text: impl Fn() -> String) {
        self.say(host, &text);
        let name = self.config.nodes.get(host).map_or("", |node| node.name.as_str());
        if let Some(told) = &mut self.told {
            told.push(format!("{:>6} ms  {name:<9} {}", self.now / 1000, text()));
        }
    }

    /// Lets things happen until a true time, or until a rule is broken.
    pub fn run_until(&mut self, until_us: u64) {
        while self.checks.broken.is_none() {
            let due = self.queue.peek().map(|Reverse(key)| (key >> LOW_BITS) as u64);
            if due.is_none_or(|at| at > until_us) {
                self.now = self.now.max(until_us);
                return;
            }
            self.step();
        }
    }

    /// Lets things happen, one at a time, until something holds (true), a true time is reached or a
    /// rule is broken.
    pub fn run_until_holds(&mut self, until_us: u64, holds: impl Fn(&World) -> bool) -> bool {
        while self.checks.broken.is_none() && self.now < until_us {
            if holds(self) {
                return true;
            }
            if self.queue.is_empty() {
                return false;
            }
            self.step();
        }
        false
    }

    fn step(&mut self) {
        let Some(Reverse(key)) = self.queue.pop() else { return };
        let (at, slot) = ((key >> LOW_BITS) as u64, key as usize & ((1 << SLOT_BITS) - 1));
        let Some(what) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.free.push(slot);
        self.now = at;
        self.handled += 1;
        let host = host_of(&what);
        if let Some(host) = host.filter(|host| self.hosts[*host].paused) {
            self.hosts[host].deferred.push(what);
            return;
        }
        self.happen(what);
        self.check_always();
    }

    fn happen(&mut self, what: What) {
        match what {
            What::CoreDue { host, life } => self.core_due(host, life),
            What::Deliver { host, from, messages } => self.deliver(host, from, messages),
            What::Saved { host, life, ticket } => self.saved(host, life, ticket),
            What::SentinelDue { host, watch } => self.sentinel_due(host, watch),
            What::Ask { host, boot, life, id, request } => self.ask_arrives(host, boot, life, id, *request),
            What::Said { host, life, what } => self.said(host, life, *what),
            What::Act { host, watch, ticket, act } => self.perform(host, watch, ticket, *act),
            What::Executed { host, watch, ticket } => self.executed(host, watch, ticket),
            What::Dies { host, boot, resource, pid } => self.dies(host, boot, resource, pid),
            What::AddressGoes { host, boot, watch, address } => self.address_goes(host, boot, watch, address),
            What::Inspected { host, watch, name } => self.process_inspected(host, watch, name),
            What::ServiceChecked { host, life, resource, pid } => self.service_checked(host, life, resource, pid),
            What::Job { host, life, resource, number } => self.job(host, life, resource, number),
            What::Recovered { host, boot, resource, pid } => self.recovered(host, boot, resource, pid),
            What::Status { host, life, resource, regular } => self.status(host, life, resource, regular),
            What::Connect { host, boot, resource, pid } => self.connect(host, boot, resource, pid),
            What::Flushed { host, boot, resource, pid, upto } => self.flushed(host, boot, resource, pid, upto),
            What::WalArrives { connection, start, records } => self.wal_arrives(connection, start, records),
            What::WalFlushed { connection, upto } => self.wal_flushed(connection, upto),
            What::WalConfirmed { connection, upto } => self.wal_confirmed(connection, upto),
            What::ClientTurn { client } => self.client_turn(client),
            What::ClientWrite { client, host, id } => self.client_write(client, host, id),
            What::ClientAnswer { client, id, good } => self.client_answer(client, id, good),
            What::Spawn { host, boot } => self.spawn_agent(host, boot),
            What::SentinelMissed { host, life, watch } => self.sentinel_missed(host, life, watch),
            What::Renewal { host, life } => self.renewal(host, life),
            What::Succeed { host, watch } => self.succeed(host, watch),
            What::Fault(fault) => self.fault(fault),
        }
    }

    /// All that is still to happen, in no order.
    pub fn waiting(&self) -> impl Iterator<Item = &What> {
        self.slots.iter().flatten()
    }

    /// What silencing a node may take at most, in microseconds.
    #[must_use]
    pub fn stop_budget_us(&self) -> u64 {
        // Times may change; a machine does not become faster by that.
        if self.swarm.configures() { Timing::FAST.stop_budget.0 } else { self.config.timing.stop_budget.0 }
    }

    /// The core of a host, with its life.
    pub fn agent(&mut self, host: usize, life: u64) -> Option<&mut Agent> {
        let host = &mut self.hosts[host];
        if host.agent_life == life { host.agent.as_mut() } else { None }
    }

    /// An event for a core: kept while the agent is frozen.
    pub fn tell(&mut self, host: usize, life: u64, event: Event) {
        if self.agent(host, life).is_none() {
            return;
        }
        if self.hosts[host].frozen {
            // A socket holds only so much.
            if self.hosts[host].inbox.len() < 400 {
                self.hosts[host].inbox.push(event);
            }
            return;
        }
        self.handle(host, event);
    }

    /// Hands an event to a core and carries out what it wants.
    pub fn handle(&mut self, host: usize, event: Event) {
        let now = self.hosts[host].clock.at(self.now);
        if self.tracing && !matches!(event, Event::Ticked | Event::Received { .. }) {
            self.say(host, || format!("  <- {event:?}"));
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.core.handle(now, event);
        self.drain(host);
    }

    /// Carries out what a core wants.
    pub fn drain(&mut self, host: usize) {
        while let Some(action) = self.hosts[host].agent.as_mut().and_then(|agent| agent.core.action()) {
            self.act(host, action);
        }
        self.check_applied(host);
        if !self.collecting {
            self.end_turn(host);
        }
    }

    /// What was said leaves, and the core has said when it wants to be woken.
    fn end_turn(&mut self, host: usize) {
        if self.bundles {
            self.post(host);
        }
        self.schedule_core(host);
    }

    fn schedule_core(&mut self, host: usize) {
        let now = self.now;
        let World { hosts, rng, .. } = self;
        let machine = &mut hosts[host];
        let (life, sluggish) = (machine.agent_life, machine.sluggish_us);
        let Some(agent) = &mut machine.agent else { return };
        let due = machine.clock.when(agent.core.wakeup()).max(now + 50);
        if agent.due.is_some_and(|(known, _)| known <= due) {
            return;
        }
        let noise = rng.within(sluggish / 2, sluggish + 500);
        agent.due = Some((due, due + noise));
        self.after(due + noise - now, What::CoreDue { host, life });
    }

    fn core_due(&mut self, host: usize, life: u64) {
        let now = self.now;
        let Some(agent) = self.agent(host, life) else { return };
        if agent.due.is_none_or(|(_, at)| at > now) {
            return;
        }
        agent.due = None;
        if self.hosts[host].frozen {
            return;
        }
        // Something else has happened meanwhile, and the core wants to sleep longer: as the product's loop has it.
        let machine = &self.hosts[host];
        let wanted = machine.core().map(|core| machine.clock.when(core.wakeup()));
        if wanted.is_some_and(|at| at > now) {
            return self.schedule_core(host);
        }
        self.handle(host, Event::Ticked);
    }

    fn deliver(&mut self, host: usize, from: usize, mut messages: Vec<Message>) {
        let life = self.hosts[host].agent_life;
        let from = self.hosts[from].id;
        self.collecting = true;
        for message in messages.drain(..) {
            self.tell(host, life, Event::Received { from, message });
        }
        self.collecting = false;
        self.spare.push(messages);
        self.end_turn(host);
    }

    fn saved(&mut self, host: usize, life: u64, ticket: u64) {
        if self.agent(host, life).is_none() {
            return;
        }
        self.hosts[host].disk.done(ticket);
        self.tell(host, life, Event::Persisted { ticket });
    }

    /// A core on a host with a live agent.
    #[must_use]
    pub fn core(&self, host: usize) -> Option<&Core> {
        self.hosts[host].core()
    }
}

/// The host something happens on, for those that stand still with it.
fn host_of(what: &What) -> Option<usize> {
    match what {
        What::CoreDue { host, .. }
        | What::Deliver { host, .. }
        | What::Saved { host, .. }
        | What::SentinelDue { host, .. }
        | What::Ask { host, .. }
        | What::Said { host, .. }
        | What::Act { host, .. }
        | What::Executed { host, .. }
        | What::Dies { host, .. }
        | What::AddressGoes { host, .. }
        | What::Inspected { host, .. }
        | What::ServiceChecked { host, .. }
        | What::Job { host, .. }
        | What::Recovered { host, .. }
        | What::Status { host, .. }
        | What::Connect { host, .. }
        | What::Flushed { host, .. }
        | What::ClientWrite { host, .. }
        | What::SentinelMissed { host, .. }
        | What::Renewal { host, .. }
        | What::Succeed { host, .. }
        | What::Spawn { host, .. } => Some(*host),
        What::WalArrives { .. }
        | What::WalFlushed { .. }
        | What::WalConfirmed { .. }
        | What::ClientTurn { .. }
        | What::ClientAnswer { .. }
        | What::Fault(_) => None,
    }
}
