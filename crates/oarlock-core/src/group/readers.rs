//! Addresses for readers: on an in-sync standby, on the owner when there is none.
//!
//! A lease does not guard these: whoever has one may hold its lease and yet not have applied that
//! it belongs elsewhere now. So the next one waits until every other node has said that it has
//! applied as much and does not have it, or is proven dead and silent.

use super::{Driver, Out, Site, Unit};
use crate::config::Timing;
use crate::ids::NodeId;
use crate::machine::address::AddressState;
use crate::machine::database::Database;
use crate::resource::{Command, Guard};
use crate::state::GroupState;
use crate::time::Mono;
use std::collections::BTreeSet;

/// What decides where these addresses are, since which index, and since when nobody else has one.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    decided_by: (u64, u64, BTreeSet<NodeId>),
    index: u64,
    clear_since: Option<Mono>,
}

impl Readers {
    /// When the wait for the dead is over.
    pub(super) fn due_at(&self, timing: &Timing) -> Option<Mono> {
        self.clear_since.map(|since| since + timing.with_drift(timing.stop_budget))
    }
}

impl Driver {
    pub(super) fn drive_readers(
        &mut self,
        site: &Site<'_>,
        group: &GroupState,
        owner: Option<NodeId>,
        out: &mut Vec<Out>,
    ) {
        let decided_by = (group.epoch, group.version, site.dead.clone());
        if self.readers.decided_by != decided_by {
            self.readers = Readers { decided_by, index: site.applied, clear_since: None };
        }
        let standby = group.in_sync.keys().find(|node| Some(**node) != owner && site.state.is_alive(**node));
        let here = standby.copied().or(owner) == Some(site.me) && site.lease_live && !site.state.maintenance;
        let serves = self.database().is_none_or(Database::serves_readers);
        if here {
            self.let_readers_in(site, out);
        }
        let clear = here && self.nobody_else_reads(site);
        self.readers.clear_since = if clear { self.readers.clear_since.or(Some(site.now)) } else { None };
        let due = self.readers.due_at(&site.state.config.timing).is_some_and(|at| site.now >= at);
        let guard = Guard { generation: site.generation, epoch: group.epoch };
        for index in 0..self.units.len() {
            let Unit::Reader(address) = &mut self.units[index] else { continue };
            if site.state.maintenance && !here {
                continue;
            }
            // One that is up stays up: what is checked before a start need not hold for ever.
            let up = here && serves && (due || address.state() == AddressState::Up);
            let command = address.next(site.now, up.then_some(guard));
            self.order(index, command.map(Command::Address), out);
        }
    }

    fn let_readers_in(&mut self, site: &Site<'_>, out: &mut Vec<Out>) {
        if !self.units.iter().any(|unit| matches!(unit, Unit::Reader(_))) {
            return;
        }
        let Some(index) = self.units.iter().position(|unit| matches!(unit, Unit::Database(_))) else { return };
        let Unit::Database(database) = &mut self.units[index] else { return };
        let command = database.let_readers_in(site.now);
        self.order(index, command.map(Command::Database), out);
    }

    fn nobody_else_reads(&self, site: &Site<'_>) -> bool {
        let Some(config) = site.state.config.group(self.id) else { return false };
        let has_none = |node: NodeId| {
            let resources = self.report_of(site, node).map(|report| &report.resources);
            let applied = site.reports.get(&node).map_or(0, |report| report.applied);
            applied >= self.readers.index
                && resources.is_some_and(|resources| {
                    let mut readers =
                        self.units.iter().zip(resources).filter(|(unit, _)| matches!(unit, Unit::Reader(_)));
                    readers.all(|(_, resource)| matches!(resource.state.as_ref(), "down" | "failed"))
                })
        };
        config.nodes.iter().filter(|node| **node != site.me).all(|node| site.dead.contains(node) || has_none(*node))
    }
}
