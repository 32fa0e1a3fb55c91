//! The machines, the network between them, and the order in which things happen.

use super::machine::{Lease, Machine, Unit};
use super::trace::Trace;
use super::words;
use oarlock_core::config::Config;
use oarlock_core::entry::Entry;
use oarlock_core::event::{Boot, Loaded};
use oarlock_core::ids::{NodeId, ResourceId};
use oarlock_core::message::Message;
use oarlock_core::resource::{AddressObservation, Observation};
use oarlock_core::state::{Outcome, State};
use oarlock_core::time::Mono;
use oarlock_core::{Action, Core, Event};
use std::collections::{BTreeMap, BTreeSet};

/// From one machine to another, in microseconds.
const NETWORK_US: u64 = 300;
/// A write and its fsync.
const DISK_US: u64 = 1_000;
/// Agent to sentinel and back.
const SENTINEL_US: u64 = 100;
/// A killed agent is respawned after this.
const RESPAWN_US: u64 = 10_000;
/// Replication is looked at this often.
const REPLICATION_US: u64 = 5_000;

/// What is going to happen.
pub enum What {
    Deliver { from: NodeId, to: NodeId, message: Box<Message> },
    Told { node: NodeId, life: u64, event: Event },
    Saved { node: NodeId, life: u64, ticket: u64 },
    LeaseEnds { node: NodeId, boot: u64 },
    Done { node: NodeId, life: u64, resource: ResourceId, number: u64 },
    Respawn { node: NodeId, boot: u64 },
    Replicate,
}

/// All of it.
pub struct Cluster {
    pub now_us: u64,
    pub config: Config,
    machines: Vec<Machine>,
    queue: BTreeMap<(u64, u64), What>,
    last_number: u64,
    /// How many copies of data were ever made.
    pub copies: u64,
    /// Who hears nothing of whom: from, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Between whom databases cannot talk.
    cut_replication: BTreeSet<(NodeId, NodeId)>,
    /// What was committed, as applied by the first node that did; every node must agree with it.
    pub truth: State,
    applied: u64,
    entries: BTreeMap<u64, Entry>,
    /// Rows that clients were told are safe.
    pub acknowledged: BTreeSet<u64>,
    pub trace: Trace,
}

impl Cluster {
    pub fn new(config: Config) -> Cluster {
        let machines = config.nodes.iter().map(|node| Machine::new(node.id, &config)).collect();
        let queue = BTreeMap::from([((REPLICATION_US, 0), What::Replicate)]);
        Cluster {
            now_us: 0,
            trace: Trace::new(&config),
            truth: State::begin(config.clone()),
            config,
            machines,
            queue,
            last_number: 0,
            copies: 0,
            cut: BTreeSet::new(),
            cut_replication: BTreeSet::new(),
            applied: 1,
            entries: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    pub fn now(&self) -> Mono {
        Mono(self.now_us)
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.machines.len() as u8).map(NodeId)
    }

    pub fn machine(&self, node: NodeId) -> &Machine {
        &self.machines[usize::from(node.0) - 1]
    }

    pub fn machine_mut(&mut self, node: NodeId) -> &mut Machine {
        &mut self.machines[usize::from(node.0) - 1]
    }

    pub fn unit(&mut self, node: NodeId, id: ResourceId) -> &mut Unit {
        self.machine_mut(node).units.get_mut(&id).expect("a resource of this machine")
    }

    pub fn say(&mut self, node: NodeId, text: String) {
        self.trace.say(self.now_us, node, &text);
    }

    /// A number never used before.
    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub fn after(&mut self, wait_us: u64, what: What) {
        let number = self.number();
        self.queue.insert((self.now_us + wait_us, number), what);
    }

    /// Lets the cluster live until `end_us`, or until `done` says so; whether it did.
    pub fn run(&mut self, end_us: u64, mut done: impl FnMut(&Cluster) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let wakes = self.machines.iter().filter(|machine| !machine.frozen);
            let wakes = wakes.filter_map(|machine| Some((machine.core.as_ref()?.wakeup().0, machine.id)));
            let wake = wakes.min().map(|(at, node)| (at.max(self.now_us), node));
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next = queued.into_iter().chain(wake.map(|(at, _)| at)).min().filter(|at| *at <= end_us);
            let Some(at) = next else { break };
            self.now_us = at;
            if queued == Some(at) {
                if let Some((_, what)) = self.queue.pop_first() {
                    self.happen(what);
                }
            } else if let Some((_, node)) = wake {
                self.handle(node, Event::Ticked);
            }
        }
        self.now_us = end_us;
        done(self)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver { from, to, message } if !self.cut.contains(&(from, to)) => {
                self.tell(to, Event::Received { from, message: *message });
            }
            What::Told { node, life, event } if self.machine(node).life == life => self.tell(node, event),
            What::Saved { node, life, ticket } if self.machine(node).life == life => {
                let machine = self.machine_mut(node);
                machine.disk = machine.saving.remove(&ticket).or(machine.disk.take());
                self.tell(node, Event::Persisted { ticket });
            }
            What::LeaseEnds { node, boot } if self.machine(node).boot == boot => self.lease_ends(node),
            What::Done { node, life, resource, number } if self.machine(node).life == life => {
                self.done(node, resource, number);
            }
            What::Respawn { node, boot } if self.machine(node).boot == boot => self.spawn(node),
            What::Replicate => {
                self.replicate();
                self.after(REPLICATION_US, What::Replicate);
            }
            _ => {}
        }
    }

    /// The agent hears of something, once it is able to.
    pub fn tell(&mut self, node: NodeId, event: Event) {
        let machine = self.machine_mut(node);
        if machine.frozen {
            machine.inbox.push(event);
        } else {
            self.handle(node, event);
        }
    }

    fn handle(&mut self, node: NodeId, event: Event) {
        let now = self.now();
        if let Some(core) = &mut self.machine_mut(node).core {
            core.handle(now, event);
            self.drain(node);
        }
    }

    fn drain(&mut self, node: NodeId) {
        let mut actions = Vec::new();
        if let Some(core) = &mut self.machine_mut(node).core {
            actions.extend(std::iter::from_fn(|| core.action()));
        }
        // What a node knows of the log goes along with what it saves.
        for action in &actions {
            if let Action::Persist { durable, .. } = action {
                let named = durable.log.entries.iter().filter(|entry| !entry.data.is_empty());
                let named = named.filter_map(|entry| Some((entry.index, postcard::from_bytes(&entry.data).ok()?)));
                self.entries.extend(named.filter(|(index, _)| *index > self.applied));
            }
        }
        self.compare(node);
        for action in actions {
            self.act(node, action);
        }
    }

    /// Applies to the truth what the node has applied, and sees that both agree.
    fn compare(&mut self, node: NodeId) {
        let machine = self.machine_mut(node);
        let Some(core) = &machine.core else { return };
        let applied = core.applied();
        if std::mem::replace(&mut machine.compared, applied) == applied {
            return;
        }
        let state = core.state().clone();
        while self.applied < applied {
            self.applied += 1;
            if let Some(entry) = self.entries.remove(&self.applied) {
                let outcome = self.truth.apply(&entry);
                let stale = match outcome {
                    Outcome::Applied => String::new(),
                    Outcome::Stale(why) => format!(" (no effect: {why})"),
                };
                self.say(node, format!("#{} {}{stale}", self.applied, words::entry(&entry)));
            }
        }
        assert!(applied < self.applied || state == self.truth, "{node} has applied something else");
    }

    fn act(&mut self, node: NodeId, action: Action) {
        let life = self.machine(node).life;
        match action {
            Action::Send { to, message } => self.send(node, to, message),
            Action::Persist { ticket, durable } => {
                self.machine_mut(node).saving.insert(ticket, *durable);
                self.after(DISK_US, What::Saved { node, life, ticket });
            }
            Action::ArmLease { generation, incarnation, deadline, shortens, floor_index } => {
                let boot = self.machine(node).boot;
                let over = |lease: &Lease| lease.lapsed && lease.generation >= generation;
                if self.machine(node).lease.as_ref().is_some_and(over) {
                    return;
                }
                self.trace.show("lease", self.now_us, node, || format!("lease until {deadline:?}"));
                let lease = Lease { generation, incarnation, deadline, lapsed: false, floor_index };
                self.machine_mut(node).lease = Some(lease);
                let event = if shortens { Event::LeaseShortened } else { Event::LeaseArmed { generation } };
                self.after(SENTINEL_US, What::Told { node, life, event });
                self.after(deadline.0.saturating_sub(self.now_us), What::LeaseEnds { node, boot });
            }
            Action::Seal { group, epoch } => {
                let name = self.truth.config.group(group).expect("a known group").name.clone();
                self.say(node, format!("seal {name}, epoch {epoch}"));
                self.machine_mut(node).sealed.insert(name, epoch);
                self.after(
                    SENTINEL_US,
                    What::Told { node, life, event: Event::Sealed { group, epoch, refused: None } },
                );
            }
            Action::Drive(order) => self.order(node, order),
            Action::Answer { answer, .. } => self.say(node, format!("answer: {answer:?}")),
            Action::Record(happening) => self.trace.happened(self.now_us, node, &happening),
            Action::Renounce { reason } => self.say(node, format!("renounce: {reason}")),
            Action::AdoptConfig { generation, .. } => self.say(node, format!("adopt configuration {generation}")),
        }
    }

    /// Whatever travels is encoded and decoded on its way.
    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.trace.sent(self.now_us, from, to, &message);
        let bytes = postcard::to_stdvec(&message).expect("encodes");
        let decoded: Message = postcard::from_bytes(&bytes).expect("decodes");
        assert_eq!(decoded, message);
        if self.machine(to).core.is_some() {
            self.after(NETWORK_US, What::Deliver { from, to, message: Box::new(decoded) });
        }
    }

    /// Whether databases on two machines can talk.
    pub fn path(&self, a: NodeId, b: NodeId) -> bool {
        let both = [(a, b), (b, a)];
        !both.iter().any(|way| self.cut.contains(way) || self.cut_replication.contains(way))
    }

    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub fn cut_replication(&mut self, a: NodeId, b: NodeId) {
        self.cut_replication.insert((a, b));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.cut_replication.clear();
    }

    pub fn power_on(&mut self, node: NodeId) {
        if !std::mem::replace(&mut self.machine_mut(node).on, true) {
            self.spawn(node);
        }
    }

    pub fn kill_agent(&mut self, node: NodeId) {
        self.machine_mut(node).agent_gone();
        let boot = self.machine(node).boot;
        self.after(RESPAWN_US, What::Respawn { node, boot });
    }

    pub fn freeze(&mut self, node: NodeId, frozen: bool) {
        self.machine_mut(node).frozen = frozen;
        for event in std::mem::take(&mut self.machine_mut(node).inbox) {
            self.handle(node, event);
        }
    }

    fn spawn(&mut self, node: NodeId) {
        let (now, config) = (self.now(), self.config.clone());
        let machine = self.machine_mut(node);
        if machine.core.is_some() || !machine.on {
            return;
        }
        machine.life += 1;
        let durable = machine.disk.clone().map_or(Loaded::Fresh, |durable| Loaded::Intact(Box::new(durable)));
        // Incarnations are new at each boot and far enough apart for those that follow a lapse.
        let incarnation = (machine.boot + 1) * 10;
        let seed = machine.life * 1000;
        let boot = Boot { me: node, incarnation, held: machine.held(), durable, config, seed };
        machine.core = Some(Core::new(boot, now));
        let units: Vec<(ResourceId, bool)> = machine.units.iter().map(|(id, unit)| (*id, unit.linked)).collect();
        self.drain(node);
        for (id, up) in units {
            self.unit(node, id).database.forget_told();
            if self.config.resource(id).is_some_and(|known| words::is_address(known.kind)) {
                self.observed(node, id, Observation::Address(AddressObservation::Link { up }));
            }
        }
    }
}
