//! One group on this node: a reconciler that brings its resources to where the applied state says
//! they belong, in start order, and back in reverse.

mod owner;
mod readers;
mod report;

pub use report::is_usable;

use crate::config::{GroupConfig, Kind};
use crate::entry::Entry;
use crate::happening::Happening;
use crate::ids::{GroupId, NodeId, ResourceId};
use crate::machine::Failures;
use crate::machine::address::Address;
use crate::machine::brief;
use crate::machine::database::{Database, DatabaseState, DatabaseWant};
use crate::machine::guarding::Candidate;
use crate::machine::service::{Service, ServiceWant};
use crate::message::Report;
use crate::resource::database::{DataCommand, DataObservation};
use crate::resource::{Command, Observation, Order};
use crate::rules::Rules;
use crate::state::{GroupState, State};
use crate::time::Mono;
use readers::Readers;
use std::collections::{BTreeMap, BTreeSet};

/// What a group's driver sees of the node it is on.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Now.
    pub now: Mono,
    /// This node.
    pub me: NodeId,
    /// What is applied.
    pub state: &'a State,
    /// How far that is.
    pub applied: u64,
    /// Our incarnation.
    pub incarnation: u64,
    /// Our generation.
    pub generation: u64,
    /// By the name of a group: the highest epoch under which the sentinel starts nothing any more.
    pub sealed: &'a BTreeMap<String, u64>,
    /// Our lease holds.
    pub lease_live: bool,
    /// What is applied is no older than what an agent before us acted on.
    pub settled: bool,
    /// All in force, but in sabotage tests.
    pub rules: Rules,
    /// The others' reports.
    pub reports: &'a BTreeMap<NodeId, Report>,
    /// Nodes committed as dead, or not here yet.
    pub dead: &'a BTreeSet<NodeId>,
}

/// What a driver wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// To a resource.
    Drive(Order),
    /// To the sentinel: nothing starts under this epoch any more.
    Seal {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: u64,
    },
    /// To the cluster.
    Propose(Entry),
    /// To people.
    Record(Happening),
}

/// One resource.
#[derive(Clone, Debug)]
enum Unit {
    Address(Address),
    Reader(Address),
    Database(Box<Database>),
    Service(Service),
}

/// What the owner is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Keep everything up.
    Run,
    /// Planned: stop in reverse order, the successor has everything, let go.
    HandOver { to: NodeId },
    /// Stop at once and let go.
    GiveUp { prefer: NodeId, reason: String },
}

/// One group on this node.
#[derive(Clone, Debug)]
pub struct Driver {
    id: GroupId,
    /// This agent's own number: another one's proposals are not ours.
    life: u64,
    units: Vec<Unit>,
    stage: Stage,
    /// The epoch we own, and since when we know.
    owned: Option<(u64, Mono)>,
    /// The epoch that the sentinel was asked to seal, and when.
    sealing: Option<(u64, Mono)>,
    database_trouble: Option<String>,
    /// Since when nothing but addresses runs here because of a group that this one depends on.
    awaiting: Option<Mono>,
    /// A hand-over to this node failed; it is not tried again before it is wished for anew.
    refused: Option<NodeId>,
    /// Our permission to rewind or replace our copy: the epoch it is for.
    rejoin: Option<u64>,
    rejoin_nonce: u64,
    /// Up to where a node's report is too old to say which copy it has: it may have replaced it.
    replaced: BTreeMap<NodeId, u64>,
    readers: Readers,
    shown: Vec<&'static str>,
}

impl Driver {
    /// A driver that knows nothing of its resources yet. `nonce` is new at each start: what a former
    /// agent was permitted is not ours to do.
    pub fn new(id: GroupId, config: &GroupConfig, nonce: u64) -> Driver {
        let mut driver = Driver {
            id,
            life: nonce,
            units: Vec::new(),
            stage: Stage::Run,
            owned: None,
            sealing: None,
            database_trouble: None,
            awaiting: None,
            refused: None,
            rejoin: None,
            rejoin_nonce: nonce,
            replaced: BTreeMap::new(),
            readers: Readers::default(),
            shown: Vec::new(),
        };
        driver.grow(config);
        driver
    }

    /// Takes on the resources that a new configuration adds; they come after those that are there.
    pub fn grow(&mut self, config: &GroupConfig) {
        for resource in config.resources.iter().skip(self.units.len()) {
            self.units.push(match resource.kind {
                Kind::Address => Unit::Address(Address::default()),
                Kind::ReaderAddress => Unit::Reader(Address::default()),
                Kind::Postgresql | Kind::Mariadb => Unit::Database(Box::default()),
                Kind::Service => Unit::Service(Service::default()),
            });
            // What every resource begins with is no news; a witness has nothing else to tell.
            self.shown.push("unknown");
        }
    }

    /// The sentinel has stopped everything exclusive: nothing is known of it any more.
    pub fn forget(&mut self) {
        self.stage = Stage::Run;
        self.owned = None;
        self.end_rejoin();
        self.doubt();
    }

    /// The sentinel does not seal our epoch: what we take for stopped is not, and is stopped again.
    pub fn seal_refused(&mut self, reason: &str) -> Happening {
        self.doubt();
        Happening::Note { text: format!("{:?} cannot be released yet: {reason}", self.id) }
    }

    fn doubt(&mut self) {
        for unit in &mut self.units {
            match unit {
                Unit::Address(address) | Unit::Reader(address) => address.forget(),
                Unit::Database(database) => database.forget(),
                Unit::Service(service) => service.forget(),
            }
        }
    }

    /// Forgets the failures of one resource, on request.
    pub fn clear(&mut self, resource: ResourceId) {
        match self.units.get_mut(usize::from(resource.index)) {
            Some(Unit::Address(address) | Unit::Reader(address)) => address.failures.clear(),
            Some(Unit::Database(database)) => database.failures.clear(),
            Some(Unit::Service(service)) => service.failures.clear(),
            None => {}
        }
    }

    /// Something happened to one of its resources.
    pub fn observe(&mut self, now: Mono, resource: ResourceId, what: &Observation) -> Option<Happening> {
        if let Observation::Database(DataObservation::Note { text }) = what {
            return Some(Happening::Note { text: text.clone() });
        }
        let unit = self.units.get_mut(usize::from(resource.index))?;
        let before = failures(unit);
        match (unit, what) {
            (Unit::Address(address) | Unit::Reader(address), Observation::Address(what)) => {
                address.observe(now, what);
            }
            (Unit::Service(service), Observation::Service(what)) => service.observe(now, what),
            (Unit::Database(database), Observation::Database(what)) => {
                let was_primary = matches!(
                    database.state(),
                    DatabaseState::Primary | DatabaseState::Promoting | DatabaseState::StartingPrimary
                );
                // One that hangs while it is handed over would keep everybody waiting.
                let serves = was_primary || *database.state() == DatabaseState::HandingOver;
                database.observe(now, what);
                self.database_trouble = match what {
                    DataObservation::Exited { reason } if was_primary => Some(brief(reason)),
                    DataObservation::Failed { reason } if was_primary && *database.state() == DatabaseState::Ended => {
                        Some(reason.clone())
                    }
                    DataObservation::Status(status) if serves => status.sick.clone(),
                    _ => self.database_trouble.take(),
                };
            }
            _ => {}
        }
        let unit = self.units.get(usize::from(resource.index))?;
        let (count, reason) = failures(unit);
        if let Observation::Database(DataObservation::Failed { reason }) = what
            && count == before.0
        {
            return Some(Happening::Note { text: format!("database: {reason}") });
        }
        (count > before.0).then(|| Happening::ResourceFailed {
            resource,
            reason: reason.unwrap_or_default(),
            failures: count,
        })
    }

    /// Our own permission to rewind was applied.
    pub fn rejoin_applied(&mut self, epoch: u64, nonce: u64) {
        if nonce == self.rejoin_nonce {
            self.rejoin = Some(epoch);
        }
    }

    /// A `Leave` was applied that some agent had proposed.
    pub fn leave_applied(&mut self, life: u64) {
        if life != self.life {
            return;
        }
        for unit in &mut self.units {
            if let Unit::Database(database) = unit {
                database.guarding.was_voided();
            }
        }
    }

    /// A node's permission to replace its copy was applied at `index`.
    pub fn copy_replaced(&mut self, node: NodeId, index: u64) {
        self.replaced.insert(node, index);
    }

    /// The permission is used, or not needed any more: never act on it again.
    fn end_rejoin(&mut self) {
        self.rejoin = None;
        self.rejoin_nonce = self.rejoin_nonce.wrapping_add(1);
    }

    /// Everything there is to do now.
    pub fn drive(&mut self, site: &Site<'_>) -> Vec<Out> {
        let mut out = Vec::new();
        for unit in &mut self.units {
            unit.forgive(site.now);
        }
        let Some(group) = site.state.group(self.id) else { return out };
        let ours = site.state.config.group(self.id).is_some_and(|config| config.nodes.contains(&site.me));
        if ours && site.settled {
            let owner = site.state.living_owner(self.id);
            let ours = owner == Some(site.me) && site.state.node(site.me).incarnation == site.incarnation;
            if ours && site.lease_live {
                self.drive_as_owner(site, group, &mut out);
            } else if !ours {
                self.drive_as_other(site, group, owner, &mut out);
            }
            self.drive_readers(site, group, owner, &mut out);
        }
        self.show_changes(&mut out);
        out
    }

    /// Nothing exclusive here; the copy follows whoever owns.
    fn drive_as_other(&mut self, site: &Site<'_>, group: &GroupState, owner: Option<NodeId>, out: &mut Vec<Out>) {
        self.owned = None;
        self.sealing = None;
        self.stage = Stage::Run;
        self.database_trouble = None;
        self.awaiting = None;
        if site.state.maintenance {
            return;
        }
        let want = self.database_want_as_other(site, group, owner, out);
        let mut replaces = false;
        for index in (0..self.units.len()).rev() {
            match &mut self.units[index] {
                Unit::Address(address) => {
                    let command = address.next(site.now, None);
                    self.order(index, command.map(Command::Address), out);
                }
                Unit::Service(service) => {
                    let command = service.next(site.now, ServiceWant::Killed);
                    self.order(index, command.map(Command::Service), out);
                }
                Unit::Database(database) => {
                    if !site.rules.rejoin_committed && group.in_sync.contains_key(&site.me) {
                        database.doubt();
                    }
                    let command = database.next(site.now, &want);
                    if matches!(command, Some(DataCommand::Clone { .. } | DataCommand::Rewind { .. })) {
                        replaces = true;
                    }
                    self.order(index, command.map(Command::Database), out);
                }
                Unit::Reader(_) => {}
            }
        }
        if replaces {
            self.end_rejoin();
        }
    }

    fn database_want_as_other(
        &mut self,
        site: &Site<'_>,
        group: &GroupState,
        owner: Option<NodeId>,
        out: &mut Vec<Out>,
    ) -> DatabaseWant {
        let Some(database) = self.database() else { return DatabaseWant::NoPrimary };
        let Some(upstream) = owner.filter(|owner| *owner != site.me) else { return DatabaseWant::NoPrimary };
        if !database.is_no_primary() {
            return DatabaseWant::NoPrimary;
        }
        let serving = self.report_of(site, upstream).is_some_and(|report| report.serving);
        if self.rejoin.is_some() && (self.rejoin != Some(group.epoch) || !database.needs_rejoin(site.now)) {
            self.end_rejoin();
        }
        let Some(database) = self.database() else { return DatabaseWant::NoPrimary };
        let granted = self.rejoin == Some(group.epoch) || !site.rules.rejoin_committed;
        if database.needs_rejoin(site.now) && !granted && serving && site.lease_live {
            let counted_on = group.in_sync.contains_key(&site.me);
            if !counted_on {
                out.push(Out::Propose(Entry::Rejoin {
                    group: self.id,
                    epoch: group.epoch,
                    node: site.me,
                    incarnation: site.incarnation,
                    nonce: self.rejoin_nonce,
                }));
            }
        }
        DatabaseWant::Follow { upstream, epoch: group.epoch, rejoin: granted, serving }
    }

    fn database(&self) -> Option<&Database> {
        self.units.iter().find_map(|unit| match unit {
            Unit::Database(database) => Some(database.as_ref()),
            _ => None,
        })
    }

    fn order(&self, index: usize, command: Option<Command>, out: &mut Vec<Out>) {
        if let Some(command) = command {
            let resource = ResourceId { group: self.id, index: index as u8 };
            out.push(Out::Drive(Order { resource, command }));
        }
    }

    /// Copies elsewhere that live, as their nodes report them.
    fn candidates(&self, site: &Site<'_>) -> Vec<Candidate> {
        let copies = site.reports.iter().filter(|(node, _)| **node != site.me && !site.dead.contains(node));
        copies
            .filter_map(|(node, _)| {
                let copy = self.report_of(site, *node)?.copy?;
                let applied = site.reports.get(node).map_or(0, |report| report.applied);
                self.replaced.get(node).is_none_or(|index| applied >= *index).then_some(())?;
                Some(Candidate { node: *node, copy: copy.copy, system: copy.system })
            })
            .collect()
    }

    /// When something is due that no event announces.
    pub fn wakeup(&self, state: &State, now: Mono) -> Option<Mono> {
        let timing = state.config.timing;
        let wait = self.owned.map(|(_, since)| since + timing.with_drift(timing.stop_budget));
        let again = self.sealing.map(|(_, at)| at + timing.lease);
        let failures = self.units.iter().map(failures_of);
        let pasts = failures.flat_map(|failures| [failures.retry_at(), failures.forgiven_at()]);
        let units = self.units.iter().flat_map(|unit| match unit {
            Unit::Database(database) => database.wakeup(timing.lease),
            Unit::Address(_) | Unit::Reader(_) | Unit::Service(_) => [None, None],
        });
        units.chain(pasts).chain([wait, again, self.readers.due_at(&timing)]).flatten().filter(|due| *due > now).min()
    }
}

fn failures_of(unit: &Unit) -> &Failures {
    match unit {
        Unit::Address(address) | Unit::Reader(address) => &address.failures,
        Unit::Database(database) => &database.failures,
        Unit::Service(service) => &service.failures,
    }
}

fn failures(unit: &Unit) -> (u32, Option<String>) {
    let failures = failures_of(unit);
    (failures.count(), failures.reason().map(str::to_owned))
}

impl Unit {
    /// Failures that are long past are forgotten, whether it runs or not.
    fn forgive(&mut self, now: Mono) {
        match self {
            Unit::Address(address) | Unit::Reader(address) => address.failures.forgive(now),
            Unit::Database(database) => database.failures.forgive(now),
            Unit::Service(service) => service.failures.forgive(now),
        }
    }
}
