//! What the product's shell does: carries out a core's actions through disk, network and sentinel.

use crate::host::{Asked, guard_group, name_of, resource_named, sentinel_guard};
use crate::sabotage::Sabotage;
use crate::world::{What, World};
use oarlock_core::ids::{GroupId, ResourceId};
use oarlock_core::message::Message;
use oarlock_core::request::Answer;
use oarlock_core::resource::{
    AddressCommand, AddressObservation, Command, Observation, Order, ServiceCommand, ServiceObservation,
};
use oarlock_core::sentinel::{self, FromSentinel, Notice, Reply, Request};
use oarlock_core::{Action, Event};
use std::net::{IpAddr, Ipv4Addr};

/// The address a resource stands for, and back.
#[must_use]
pub fn address_of(resource: ResourceId) -> sentinel::Address {
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, resource.group.0, resource.index));
    sentinel::Address { interface: "eth0".into(), ip, prefix_bits: 24 }
}

/// The resource of an address.
#[must_use]
pub fn resource_at(address: &sentinel::Address) -> Option<ResourceId> {
    let IpAddr::V4(ip) = address.ip else { return None };
    let [_, _, group, index] = ip.octets();
    Some(ResourceId { group: GroupId(group), index })
}

impl World {
    /// Carries out one action of a core.
    pub fn act(&mut self, host: usize, action: Action) {
        let life = self.hosts[host].agent_life;
        match action {
            Action::Send { to, message } => self.send(host, usize::from(to.0) - 1, message),
            Action::Persist { ticket, durable } => {
                let slow = self.hosts[host].disk.slow_us;
                self.hosts[host].disk.begin(ticket, durable);
                self.soon(100, 500 + slow, What::Saved { host, life, ticket });
            }
            Action::ArmLease { generation, incarnation, deadline, shortens, floor_index } => {
                self.check_deadline(host, incarnation, deadline, shortens);
                self.hosts[host].run.armed = Some((incarnation, generation));
                let Some(agent) = &mut self.hosts[host].agent else { return };
                let (told, reached) = (agent.generation_told, agent.floor_told);
                agent.generation_told = generation;
                agent.floor_told = floor_index;
                if told != generation {
                    self.ask(host, Asked::Nothing, Request::NewGeneration { generation });
                }
                if reached != floor_index {
                    self.ask(host, Asked::Nothing, Request::Floor { applied_index: floor_index, released: None });
                }
                let deadline_us = deadline.0;
                match shortens {
                    true => self.ask(host, Asked::Shorter, Request::Shorten { generation, deadline_us }),
                    false => self.ask(host, Asked::Lease(generation), Request::Lease { generation, deadline_us }),
                }
            }
            Action::Seal { group, epoch } => {
                let released = Some((guard_group(group), epoch));
                self.ask(host, Asked::Seal(group, epoch), Request::Floor { applied_index: 0, released });
            }
            Action::Drive(order) => self.order(host, order),
            Action::Answer { id, answer } => {
                self.told(host, || format!("request {id}: {answer:?}"));
                self.grace_answered(host, id, answer == Answer::Done);
            }
            Action::Record(happening) => self.told(host, || happening.to_string()),
            Action::Renounce { reason } => {
                self.told(host, || format!("memory given up: {reason}"));
                self.hosts[host].disk.lose();
                self.after(1_000, What::Fault(crate::faults::Fault::Respawn(host)));
            }
            Action::AdoptConfig { generation, .. } => self.adopt_config(host, generation),
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.check_said(from, to, &message);
        if self.tracing_messages {
            self.say(from, || format!("-> {} {message:?}", self.hosts[to].id));
        }
        if self.outbox[to].capacity() == 0 {
            self.outbox[to] = self.spare.pop().unwrap_or_default();
        }
        self.outbox[to].push(message);
        if !self.bundles {
            self.post(from);
        }
    }

    /// Whatever a host has said since the last time leaves, a datagram for each other host.
    pub(crate) fn post(&mut self, from: usize) {
        for to in 0..self.outbox.len() {
            if self.outbox[to].is_empty() {
                continue;
            }
            let mut messages = std::mem::take(&mut self.outbox[to]);
            let [first, second] = self.network.arrivals(&mut self.rng, from, to);
            let there = self.hosts[to].agent.is_some();
            if let Some(delay) = second.filter(|_| there) {
                self.after(delay, What::Deliver { host: to, from, messages: messages.clone() });
            }
            match first.filter(|_| there) {
                Some(delay) => self.after(delay, What::Deliver { host: to, from, messages }),
                None => {
                    messages.clear();
                    self.outbox[to] = messages;
                }
            }
        }
    }

    fn order(&mut self, host: usize, order: Order) {
        let resource = order.resource;
        self.say(host, || format!("{resource:?} {:?}", order.command));
        match order.command {
            Command::Address(AddressCommand::Raise { guard }) => {
                let guard = (self.sabotage != Some(Sabotage::UnguardedStart)).then(|| sentinel_guard(resource, guard));
                let request = Request::AddressUp { address: address_of(resource), guard };
                self.ask(host, Asked::Raise(resource), request);
            }
            Command::Address(AddressCommand::Lower) => {
                self.ask(host, Asked::Lower(resource), Request::AddressDown { address: address_of(resource) });
            }
            Command::Service(ServiceCommand::Start { guard, .. }) => {
                let (name, guard) = (name_of(resource), sentinel_guard(resource, guard));
                // One that a former agent started is taken over, not started again.
                let request = if self.hosts[host].run.program(resource).is_some() {
                    Request::Guarded { name, guard }
                } else {
                    self.check_start_order(resource);
                    Request::Spawn { name, command: Box::default(), guard: Some(guard) }
                };
                self.ask(host, Asked::ServiceStart(resource), request);
            }
            Command::Service(ServiceCommand::Stop { .. }) if self.sabotage == Some(Sabotage::StopIsALie) => {
                let life = self.hosts[host].agent_life;
                self.observed(host, life, resource, Observation::Service(ServiceObservation::Stopped));
            }
            Command::Service(ServiceCommand::Stop { .. }) => {
                self.ask(host, Asked::ServiceStop(resource), Request::KillGroup { name: name_of(resource) });
            }
            Command::Database(command) => self.database_command(host, resource, command),
        }
    }

    /// Asks the sentinel.
    pub fn ask(&mut self, host: usize, why: Asked, request: Request) {
        let (boot, life) = (self.hosts[host].boot, self.hosts[host].agent_life);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.last_id += 1;
        let id = agent.last_id;
        agent.asked.insert(id, why);
        // One socket: what is asked first arrives first.
        self.after(80, What::Ask { host, boot, life, id, request: Box::new(request) });
    }

    /// A question reaches the sentinel, which knows only the agent that is connected.
    pub fn ask_arrives(&mut self, host: usize, boot: u64, life: u64, id: u64, request: Request) {
        if self.hosts[host].boot != boot || self.hosts[host].agent_life != life {
            return;
        }
        let shorter_us = match &request {
            Request::Shorten { deadline_us, .. } => Some(*deadline_us),
            _ => None,
        };
        self.sentinel(host, sentinel::Event::Request { id, request });
        if let Some(deadline_us) = shorter_us {
            self.lease_shortened(host, deadline_us);
        }
    }

    /// The sentinel's words reach the agent.
    pub fn said(&mut self, host: usize, life: u64, what: FromSentinel) {
        if self.agent(host, life).is_none() {
            return;
        }
        if self.hosts[host].frozen {
            return self.hosts[host].unheard.push(what);
        }
        match what {
            FromSentinel::Reply { id, reply } => self.replied(host, life, id, reply),
            FromSentinel::Notice(Notice::Silenced { generation, .. }) => {
                self.tell(host, life, Event::Lapsed { generation });
            }
            FromSentinel::Notice(Notice::Terminate) => self.told_to_end(host),
            FromSentinel::Notice(Notice::Exited { name, .. }) => self.program_ended(host, life, &name),
            FromSentinel::Notice(_) => {}
        }
    }

    fn replied(&mut self, host: usize, life: u64, id: u64, reply: Reply) {
        let Some(why) = self.agent(host, life).and_then(|agent| agent.asked.remove(&id)) else { return };
        let refused = match &reply {
            Reply::Refused(refusal) => Some(refusal.to_string()),
            Reply::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        match why {
            Asked::Nothing => {}
            Asked::Restart => self.agent_crashes(host),
            Asked::Lease(generation) => match refused {
                None => self.tell(host, life, Event::LeaseArmed { generation }),
                Some(reason) => self.say(host, || format!("lease refused: {reason}")),
            },
            Asked::Shorter => match refused {
                None => self.tell(host, life, Event::LeaseShortened),
                Some(reason) => self.say(host, || format!("shorter lease refused: {reason}")),
            },
            Asked::Seal(group, epoch) => self.tell(host, life, Event::Sealed { group, epoch, refused }),
            Asked::Raise(resource) => {
                let what = match refused {
                    None => AddressObservation::Up,
                    Some(reason) => AddressObservation::Failed { reason },
                };
                self.observed(host, life, resource, Observation::Address(what));
            }
            Asked::Lower(resource) => {
                self.observed(host, life, resource, Observation::Address(AddressObservation::Down));
            }
            Asked::ServiceStart(resource) => {
                let pid = self.hosts[host].run.program(resource);
                match (pid, refused) {
                    (Some(pid), None) => {
                        self.soon(20_000, 400_000, What::ServiceChecked { host, life, resource, pid });
                    }
                    _ => self.service_failed(host, resource),
                }
            }
            Asked::ServiceFailed(resource) => {
                let what = ServiceObservation::Failed { reason: "its start failed".into() };
                self.observed(host, life, resource, Observation::Service(what));
            }
            Asked::ServiceStop(resource) => {
                self.observed(host, life, resource, Observation::Service(ServiceObservation::Stopped));
            }
            Asked::Database(resource, number) => self.job_answered(host, life, resource, number, &reply),
        }
    }

    /// Tells the core of a resource.
    pub fn observed(&mut self, host: usize, life: u64, resource: ResourceId, what: Observation) {
        self.tell(host, life, Event::Observed { resource, what });
    }

    /// The check of a service that was started, and its regular check after that.
    pub fn service_checked(&mut self, host: usize, life: u64, resource: ResourceId, pid: u32) {
        if self.agent(host, life).is_none() || self.hosts[host].run.program(resource) != Some(pid) {
            return;
        }
        if self.hosts[host].frozen {
            self.after(10_000, What::ServiceChecked { host, life, resource, pid });
            return;
        }
        if self.hosts[host].broken_service {
            return self.service_failed(host, resource);
        }
        self.observed(host, life, resource, Observation::Service(ServiceObservation::Started));
    }

    /// What is left of it is killed before the failure is told.
    fn service_failed(&mut self, host: usize, resource: ResourceId) {
        self.ask(host, Asked::ServiceFailed(resource), Request::KillGroup { name: name_of(resource) });
    }

    /// A program of ours ended without being told to.
    fn program_ended(&mut self, host: usize, life: u64, name: &str) {
        let Some(resource) = resource_named(name) else { return };
        let Some(known) = self.config.resource(resource) else { return };
        if known.kind.is_database() {
            return self.database_ended(host, life, resource);
        }
        let stopping = self.agent(host, life).is_some_and(|agent| {
            let ends = [Asked::ServiceStop(resource), Asked::ServiceFailed(resource)];
            agent.asked.values().any(|asked| ends.contains(asked))
        });
        if !stopping {
            let what = ServiceObservation::Failed { reason: "it ended by itself".into() };
            self.observed(host, life, resource, Observation::Service(what));
        }
    }
}
