//! What this node says of a group to the others and to people.

use super::{Driver, Out, Site, Unit, failures, failures_of};
use crate::happening::Happening;
use crate::ids::{GroupId, NodeId, ResourceId};
use crate::machine::address::AddressState;
use crate::machine::database::DatabaseState;
use crate::machine::service::ServiceState;
use crate::message::{CopyReport, GroupReport, Report, ResourceReport};
use crate::state::State;
use crate::time::{Mono, Span};
use std::collections::BTreeMap;

/// In leases: how long an owner waits for another group before it says so; reports come twice in each.
const AWAITED_LEASES: u64 = 3;

impl Driver {
    /// A node's report of this group.
    pub(super) fn report_of<'a>(&self, site: &Site<'a>, node: NodeId) -> Option<&'a GroupReport> {
        let report = site.reports.get(&node)?;
        // A report of a former life says nothing of this one.
        if report.incarnation != site.state.node(node).incarnation {
            return None;
        }
        report.groups.get(usize::from(self.id.0))
    }

    /// Our own report; `reports` are the others'.
    pub fn report(&self, state: &State, me: NodeId, reports: &BTreeMap<NodeId, Report>, now: Mono) -> GroupReport {
        let database = self.database();
        let linked = self.units.iter().all(|unit| !matches!(unit, Unit::Address(address) if !address.is_linked()));
        GroupReport {
            unfit: self.unfit(state, me),
            worn: self.worn(state),
            ready: self.owned.is_some() && self.units.iter().all(is_up),
            usable: self.owned.is_some() && self.units[..self.depended_on()].iter().all(is_up),
            awaits: self.awaits(state, reports, now),
            inspected: database.is_none_or(super::Database::is_inspected),
            serving: database.is_some_and(super::Database::is_open),
            linked,
            copy: database.and_then(|database| {
                let (copy, system) = database.copy()?;
                // One that may be replaced at any moment is not there for anybody to count on.
                if self.rejoin.is_some() || *database.state() == DatabaseState::Working {
                    return None;
                }
                let status = database.status();
                Some(CopyReport {
                    copy,
                    system,
                    position: status.map(|status| status.position).unwrap_or_default(),
                    streaming: status.is_some_and(|status| status.streaming),
                })
            }),
            resources: self.units.iter().map(resource_report).collect(),
        }
    }

    /// How many of its resources others wait for that depend on this group: where there is a database they want
    /// that, and what stands between it and them, not a service that makes use of it as well.
    fn depended_on(&self) -> usize {
        let database = self.units.iter().position(|unit| matches!(unit, Unit::Database(_)));
        let service = |from: usize| self.units.iter().skip(from).position(|unit| matches!(unit, Unit::Service(_)));
        database.and_then(|from| Some(from + service(from)?)).unwrap_or(self.units.len())
    }

    /// The word of the report.
    fn awaits(&self, state: &State, reports: &BTreeMap<NodeId, Report>, now: Mono) -> Option<GroupId> {
        let config = state.config.group(self.id)?;
        let patience = Span(state.config.timing.lease.0 * AWAITED_LEASES);
        let said = self.owned.is_none() || self.awaiting.is_some_and(|since| now.since(since) >= patience);
        config.depends.iter().copied().find(|id| said && !is_usable(state, reports, *id))
    }

    /// Why this node cannot run the group now.
    fn unfit(&self, state: &State, me: NodeId) -> Option<String> {
        let config = state.config.group(self.id)?;
        if !config.nodes.contains(&me) {
            return Some("not a node of this group".into());
        }
        if state.node(me).standby {
            return Some("taken out of service".into());
        }
        self.units.iter().zip(&config.resources).find_map(|(unit, resource)| match unit {
            Unit::Database(database) => database.foreign().map(|foreign| format!("{}: {foreign}", resource.name)),
            _ => None,
        })
    }

    /// Why another node is the better place for the group now.
    fn worn(&self, state: &State) -> Option<String> {
        let config = state.config.group(self.id)?;
        self.units.iter().zip(&config.resources).find_map(|(unit, resource)| {
            let failures = failures_of(unit);
            // An owner restarts its database in place (`database_trouble` moves it where it can), and
            // a standby that runs is the quickest way back to service, whatever failed before.
            let counts = match unit {
                Unit::Database(database) => {
                    self.owned.is_none() && !matches!(database.state(), DatabaseState::Standby { .. })
                }
                _ => true,
            };
            let reason = failures.reason().unwrap_or_default();
            (failures.exhausted() && counts)
                .then(|| format!("{} failed {} times: {reason}", resource.name, failures.count()))
        })
    }

    /// Tells people of states that changed since the last time.
    pub(super) fn show_changes(&mut self, out: &mut Vec<Out>) {
        for (index, unit) in self.units.iter().enumerate() {
            let state = word(unit);
            let Some(shown) = self.shown.get_mut(index).filter(|shown| **shown != state) else { continue };
            *shown = state;
            let resource = ResourceId { group: self.id, index: index as u8 };
            out.push(Out::Record(Happening::Resource { resource, state: state.to_owned(), reason: None }));
        }
    }
}

/// Whether what runs here as the owner's is up.
fn is_up(unit: &Unit) -> bool {
    match unit {
        Unit::Address(address) => address.state() == AddressState::Up,
        Unit::Service(service) => service.state() == ServiceState::Running,
        Unit::Database(database) => database.is_open(),
        Unit::Reader(_) => true,
    }
}

/// Whether what other groups need of a group is up, as its owner last said.
pub fn is_usable(state: &State, reports: &BTreeMap<NodeId, Report>, id: GroupId) -> bool {
    let Some(owner) = state.living_owner(id) else { return false };
    // A report of a former life says nothing of this one.
    let current = reports.get(&owner).filter(|report| report.incarnation == state.node(owner).incarnation);
    current.and_then(|report| report.groups.get(usize::from(id.0))).is_some_and(|report| report.usable)
}

fn resource_report(unit: &Unit) -> ResourceReport {
    let (count, reason) = failures(unit);
    ResourceReport { state: word(unit).into(), failures: count, reason }
}

/// The state of a resource in one word.
fn word(unit: &Unit) -> &'static str {
    match unit {
        Unit::Address(address) | Unit::Reader(address) => match address.state() {
            AddressState::Unknown => "unknown",
            AddressState::Down => "down",
            AddressState::Raising => "raising",
            AddressState::Up => "up",
            AddressState::Lowering => "lowering",
            AddressState::Failed => "failed",
        },
        Unit::Service(service) => match service.state() {
            ServiceState::Unknown => "unknown",
            ServiceState::Stopped => "stopped",
            ServiceState::Starting => "starting",
            ServiceState::Running => "running",
            ServiceState::Stopping => "stopping",
            ServiceState::Failed => "failed",
        },
        Unit::Database(database) => match database.state() {
            DatabaseState::Unknown => "unknown",
            DatabaseState::Ended => "ended",
            DatabaseState::Working => "working",
            DatabaseState::Absent => "absent",
            DatabaseState::Foreign => "foreign",
            DatabaseState::Stopped { .. } => "stopped",
            DatabaseState::StartingStandby => "starting-standby",
            DatabaseState::Standby { .. } => "standby",
            DatabaseState::StartingPrimary => "starting",
            DatabaseState::Promoting => "promoting",
            DatabaseState::Primary if database.is_open() => "primary",
            DatabaseState::Primary => "primary-closed",
            DatabaseState::HandingOver => "handing-over",
            DatabaseState::Stopping => "stopping",
        },
    }
}
