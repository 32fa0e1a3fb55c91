//! What the product's shell and its agents do, obediently: every command succeeds after a while.

use super::cluster::{Cluster, What};
use super::machine::Unit;
use super::words;
use oarlock_core::Event;
use oarlock_core::ids::{NodeId, ResourceId};
use oarlock_core::resource::database::{DataCommand, DataObservation, Running};
use oarlock_core::resource::{
    AddressCommand, AddressObservation, Command, Guard, Observation, Order, ServiceCommand, ServiceObservation,
};

/// How long a command takes, in milliseconds.
fn takes_ms(command: &Command) -> u64 {
    match command {
        Command::Address(_) => 2,
        Command::Service(_) => 20,
        Command::Database(command) => match command {
            DataCommand::Inspect | DataCommand::SetGuard { .. } | DataCommand::Open | DataCommand::Kill => 5,
            DataCommand::Initialize | DataCommand::Clone { .. } | DataCommand::Rewind { .. } => 100,
            DataCommand::StartPrimary { .. } | DataCommand::Promote { .. } => 50,
            DataCommand::Follow { .. } | DataCommand::HandOver { .. } | DataCommand::Stop => 20,
        },
    }
}

fn guard_of(command: &Command) -> Option<Guard> {
    match command {
        Command::Address(AddressCommand::Raise { guard })
        | Command::Service(ServiceCommand::Start { guard, .. })
        | Command::Database(DataCommand::StartPrimary { guard } | DataCommand::Promote { guard }) => Some(*guard),
        _ => None,
    }
}

impl Cluster {
    /// The core orders something.
    pub fn order(&mut self, node: NodeId, Order { resource, command }: Order) {
        self.say(node, format!("{resource:?}: {}", words::command(&command)));
        let (number, life) = (self.number(), self.machine(node).life);
        let wait_us = takes_ms(&command) * 1000;
        self.unit(node, resource).job = Some((number, command));
        self.after(wait_us, What::Done { node, life, resource, number });
    }

    /// A command has ended, unless a newer one took its place.
    pub fn done(&mut self, node: NodeId, id: ResourceId, number: u64) {
        let unit = self.unit(node, id);
        let hangs = unit.database.server.as_ref().is_some_and(|server| server.frozen_us.is_some());
        let Some((_, command)) = unit.job.take_if(|(known, _)| *known == number) else { return };
        if hangs && matches!(command, Command::Database(DataCommand::HandOver { .. })) {
            return unit.job = Some((number, command));
        }
        let now = self.now();
        let refused = guard_of(&command).filter(|guard| !self.machine(node).may_start(now, guard.generation));
        let unit = self.unit(node, id);
        unit.database.forget_told();
        let trouble = match refused {
            Some(_) => Some("the sentinel refuses: no lease".to_owned()),
            None => unit.fails(words::verb(&command)),
        };
        let what = match (command, trouble) {
            (Command::Address(_), Some(reason)) => Observation::Address(AddressObservation::Failed { reason }),
            (Command::Address(command), None) => {
                unit.up = matches!(command, AddressCommand::Raise { .. });
                Observation::Address(if unit.up { AddressObservation::Up } else { AddressObservation::Down })
            }
            (Command::Service(ServiceCommand::Start { .. }), Some(reason)) => {
                Observation::Service(ServiceObservation::Failed { reason })
            }
            (Command::Service(command), _) => {
                unit.up = matches!(command, ServiceCommand::Start { .. });
                Observation::Service(if unit.up { ServiceObservation::Started } else { ServiceObservation::Stopped })
            }
            (Command::Database(command), Some(reason)) => {
                if matches!(
                    command,
                    DataCommand::StartPrimary { .. } | DataCommand::Promote { .. } | DataCommand::Follow { .. }
                ) {
                    unit.database.server = None;
                }
                Observation::Database(DataObservation::Failed { reason })
            }
            (Command::Database(command), None) => Observation::Database(
                self.database_done(node, id, command)
                    .unwrap_or_else(|reason| DataObservation::Failed { reason: reason.into() }),
            ),
        };
        self.observed(node, id, what);
    }

    /// Something on a machine ends without being told to.
    pub fn kill(&mut self, node: NodeId, id: ResourceId) {
        let unit = self.unit(node, id);
        unit.up = false;
        unit.job = None;
        let reason = "killed".to_owned();
        let what = if unit.database.server.take().is_some() {
            Observation::Database(DataObservation::Exited { reason })
        } else {
            Observation::Service(ServiceObservation::Failed { reason })
        };
        self.observed(node, id, what);
    }

    pub fn observed(&mut self, node: NodeId, resource: ResourceId, what: Observation) {
        self.tell(node, Event::Observed { resource, what });
    }

    /// The lease is over: whatever is exclusive goes, without asking the agent.
    pub fn lease_ends(&mut self, node: NodeId) {
        let now = self.now();
        let machine = self.machine_mut(node);
        let Some(lease) = machine.lease.as_mut().filter(|lease| !lease.lapsed && now >= lease.deadline) else { return };
        lease.lapsed = true;
        let generation = lease.generation;
        let mut silenced = Vec::new();
        for (id, unit) in &mut machine.units {
            if unit.is_exclusive() {
                silenced.push(format!("{id:?}"));
                unit.database.server = None;
                unit.up = false;
            }
            unit.job = None;
        }
        let (life, what) = (machine.life, if silenced.is_empty() { "nothing".into() } else { silenced.join(", ") });
        self.say(node, format!("sentinel: lease of generation {generation} over, silences {what}"));
        self.after(1_000, What::Told { node, life, event: Event::Lapsed { generation } });
    }
}

impl Unit {
    fn fails(&mut self, verb: &str) -> Option<String> {
        let left = self.broken.get_mut(verb).filter(|left| **left > 0)?;
        *left -= 1;
        Some(format!("{verb} is broken"))
    }

    /// Whether something exclusive is up or on its way.
    fn is_exclusive(&self) -> bool {
        self.up || self.database.server.as_ref().is_some_and(|server| server.running == Running::Primary)
    }
}
