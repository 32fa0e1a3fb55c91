//! The owner's side of a group: run it, hand it over, give it up.

use super::report::is_usable;
use super::{Driver, Out, Site, Stage, Unit};
use crate::entry::Entry;
use crate::happening::Happening;
use crate::ids::{GroupId, NodeId, ResourceId};
use crate::machine::address::AddressState;
use crate::machine::database::{DatabaseState, DatabaseWant};
use crate::machine::guarding::{Step, View};
use crate::machine::service::{ServiceState, ServiceWant};
use crate::message::GroupReport;
use crate::resource::{Command, Guard};
use crate::state::GroupState;
use crate::time::{Mono, Span};

/// In leases: how long a member may be missing while the address has no link.
const UNLINKED_PATIENCE: u64 = 5;
/// In halves of a lease: from when on a lost link is no mere flicker.
const UNLINKED_SETTLED: u64 = 1;
/// In halves of a lease: how long replication may take to come round by another link, so that an
/// orderly hand-over can begin, before the group is given up instead.
const UNLINKED_AT_MOST: u64 = 4;

impl Driver {
    pub(super) fn drive_as_owner(&mut self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        if self.owned.is_none_or(|(epoch, _)| epoch != group.epoch) {
            self.owned = Some((group.epoch, site.now));
            self.stage = Stage::Run;
            self.sealing = None;
            self.database_trouble = None;
            self.awaiting = None;
        }
        if self.is_sealed(site, group) {
            return self.release(site, group, out);
        }
        if !site.state.maintenance {
            self.choose_stage(site, group, out);
        }
        match self.stage.clone() {
            Stage::Run => self.run(site, group, out),
            Stage::HandOver { to } => self.hand_over(site, group, to, out),
            Stage::GiveUp { .. } => self.give_up(site, group, out),
        }
    }

    fn choose_stage(&mut self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        let leaving = match &self.stage {
            Stage::Run => None,
            Stage::HandOver { to } => Some(*to),
            Stage::GiveUp { .. } => return,
        };
        let trouble = self.database_trouble.clone();
        if let Some((reason, prefer)) = trouble.zip(self.successor(site, group)) {
            out.push(Out::Record(Happening::Note { text: format!("{:?} given up: {reason}", self.id) }));
            self.stage = Stage::GiveUp { prefer, reason };
            return;
        }
        let failed = self.units.iter_mut().any(|unit| match unit {
            Unit::Database(database) => database.take_hand_over_failed(),
            _ => false,
        });
        if let Some(prefer) = self.rescuer(site, group, failed) {
            self.stage = Stage::GiveUp { prefer, reason: "no link for its address".into() };
            return;
        }
        if failed {
            self.stage = Stage::Run;
            self.refused = group.wanted;
            out.push(Out::Propose(Entry::Want { group: self.id, epoch: group.epoch, node: None }));
            return;
        }
        let wanted = group.wanted.filter(|wanted| *wanted != site.me);
        if wanted.is_some_and(|to| self.is_hopeless(site, group, to)) && !(leaving.is_some() && self.is_past_return()) {
            self.stage = Stage::Run;
            out.push(Out::Propose(Entry::Want { group: self.id, epoch: group.epoch, node: None }));
            return;
        }
        self.refused = self.refused.filter(|refused| wanted == Some(*refused));
        match (wanted, leaving) {
            (Some(to), None) if self.refused == Some(to) => {
                out.push(Out::Propose(Entry::Want { group: self.id, epoch: group.epoch, node: None }));
            }
            (Some(to), None) if self.may_hand_over(site, group, to) => self.stage = Stage::HandOver { to },
            (None, Some(_)) if !self.is_past_return() => self.stage = Stage::Run,
            (Some(to), Some(_)) if !self.is_past_return() && !self.may_hand_over(site, group, to) => {
                self.stage = Stage::Run;
            }
            (None, None) => self.wish_elsewhere(site, group, out),
            _ => {}
        }
    }

    /// A wish for a node that died, was taken out of service or has fallen behind is over: it must not
    /// come true by surprise when the node is back, nor keep a better one from being wished for.
    fn is_hopeless(&self, site: &Site<'_>, group: &GroupState, to: NodeId) -> bool {
        let behind = self.database().is_some() && !group.in_sync.contains_key(&to);
        site.dead.contains(&to) || site.state.node(to).standby || behind
    }

    /// Once the database has stopped, letting go is the shortest way back to service.
    fn is_past_return(&self) -> bool {
        self.database()
            .is_none_or(|database| database.is_no_primary() || *database.state() == DatabaseState::HandingOver)
    }

    /// Since when an address of ours has had no link.
    fn unlinked_since(&self) -> Option<Mono> {
        let addresses = self.units.iter().filter_map(|unit| match unit {
            Unit::Address(address) => address.unlinked_since(),
            _ => None,
        });
        addresses.min()
    }

    /// Who takes over when nobody outside is served from here and an orderly hand-over has failed or
    /// does not come about: waiting for one costs them time.
    fn rescuer(&self, site: &Site<'_>, group: &GroupState, failed: bool) -> Option<NodeId> {
        let to = self.successor(site, group).filter(|node| self.is_linked(site, *node))?;
        let overdue = self.is_unlinked(site, UNLINKED_AT_MOST)
            && self.stage == Stage::Run
            && !self.may_hand_over(site, group, to);
        ((failed && self.is_unlinked(site, UNLINKED_SETTLED)) || overdue).then_some(to)
    }

    /// Whether an address of ours has been without a link for that many halves of a lease.
    fn is_unlinked(&self, site: &Site<'_>, half_leases: u64) -> bool {
        let enough = Span(site.state.config.timing.lease.0 * half_leases / 2);
        self.unlinked_since().is_some_and(|since| site.now.since(since) >= enough)
    }

    /// Whether a node's own addresses have a link, as it last said.
    fn is_linked(&self, site: &Site<'_>, node: NodeId) -> bool {
        self.report_of(site, node).is_some_and(|report| report.linked)
    }

    /// How long a member may keep commits waiting before the smaller set is proposed. Without the
    /// address's link nobody outside is waiting, and replication may have used that link too: the
    /// member is worth more as a successor, once it has come round by another link.
    fn patience(&self, site: &Site<'_>) -> Span {
        let lease = site.state.config.timing.lease;
        if self.unlinked_since().is_some() { Span(lease.0 * UNLINKED_PATIENCE) } else { lease }
    }

    /// A service that keeps failing, or an address whose link is cut, asks for another node.
    fn wish_elsewhere(&mut self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        let unlinked = self.is_unlinked(site, UNLINKED_SETTLED);
        // What failed here before, and what runs again, is no reason to leave: it may be repaired.
        let since = self.owned.map_or(site.now, |(_, since)| since);
        let exhausted = self.units.iter().any(|unit| match unit {
            Unit::Service(service) => service.failures.exhausted_since(since) && service.has_failed(),
            Unit::Address(address) => address.failures.exhausted_since(since) && address.is_down(),
            _ => false,
        });
        if !unlinked && !exhausted {
            return;
        }
        let better = self.successor(site, group).filter(|node| {
            let good = |report: &GroupReport| (!unlinked || report.linked) && report.awaits.is_none();
            self.may_hand_over(site, group, *node) && self.report_of(site, *node).is_some_and(good)
        });
        if let Some(node) = better {
            out.push(Out::Propose(Entry::Want { group: self.id, epoch: group.epoch, node: Some(node) }));
        }
    }

    /// Another node that could own the group now.
    fn successor(&self, site: &Site<'_>, group: &GroupState) -> Option<NodeId> {
        let config = site.state.config.group(self.id)?;
        let fit = |node: &NodeId| {
            *node != site.me
                && !site.dead.contains(node)
                && !site.state.node(*node).standby
                && (self.database().is_none() || group.in_sync.contains_key(node))
                && self.report_of(site, *node).is_some_and(|report| report.unfit.is_none() && report.worn.is_none())
        };
        config.nodes.iter().copied().find(fit)
    }

    /// A planned move needs a successor that has (nearly) everything already.
    fn may_hand_over(&self, site: &Site<'_>, group: &GroupState, to: NodeId) -> bool {
        let fit = !site.dead.contains(&to)
            && !site.state.node(to).standby
            && self.report_of(site, to).is_some_and(|report| report.unfit.is_none());
        let Some(database) = self.database() else { return fit };
        let streams = database
            .status()
            .is_some_and(|status| status.standbys.iter().any(|standby| standby.node == to && standby.streaming));
        fit && group.in_sync.contains_key(&to) && (streams || self.is_past_return())
    }

    fn guard(&self, site: &Site<'_>, group: &GroupState) -> Guard {
        Guard { generation: site.generation, epoch: group.epoch }
    }

    /// From when on resources without a data guard may start (PROTOCOL §1.11).
    fn unguarded_from(&self, site: &Site<'_>, group: &GroupState) -> Mono {
        let timing = site.state.config.timing;
        let since = self.owned.map_or(site.now, |(_, since)| since);
        if group.must_wait && site.rules.stop_wait { since + timing.with_drift(timing.stop_budget) } else { since }
    }

    /// The first group that this one depends on and that is not usable, as its owner last said.
    fn awaited(&self, site: &Site<'_>) -> Option<GroupId> {
        let config = site.state.config.group(self.id)?;
        config.depends.iter().copied().find(|id| !is_usable(site.state, site.reports, *id))
    }

    /// Nothing runs here but addresses: whoever moves the group takes nothing away from anybody.
    fn is_idle(&self) -> bool {
        self.units.iter().all(|unit| match unit {
            Unit::Service(service) => matches!(service.state(), ServiceState::Stopped | ServiceState::Failed),
            Unit::Database(_) => false,
            Unit::Address(_) | Unit::Reader(_) => true,
        })
    }

    fn run(&mut self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        let guard = self.guard(site, group);
        let frozen = site.state.maintenance;
        self.run_database(site, group, guard, out);
        let primary = self.database().is_none_or(|database| *database.state() == DatabaseState::Primary);
        let open = self.database().is_none_or(super::Database::is_open);
        let looked = self.database().is_none_or(super::Database::is_inspected);
        let due = site.now >= self.unguarded_from(site, group);
        let awaited = site.rules.depends_heeded && self.awaited(site).is_some();
        self.awaiting = if awaited && self.is_idle() { self.awaiting.or(Some(site.now)) } else { None };
        let mut ready = open && due;
        if frozen {
            return;
        }
        for index in 0..self.units.len() {
            let command = match &mut self.units[index] {
                Unit::Address(address) => {
                    let command = if ready { address.next(site.now, Some(guard)) } else { None };
                    ready &= address.state() == AddressState::Up;
                    command.map(Command::Address)
                }
                Unit::Service(service) => {
                    let want = if ready && awaited {
                        // It is not started yet; one that runs bears a short absence better than a restart.
                        None
                    } else if ready {
                        Some(ServiceWant::Up { guard, takeover: true })
                    } else if primary || service.is_down() {
                        None
                    } else if service.state() == ServiceState::Unknown && !looked {
                        // The agent has just started: both may well run, and are adopted then.
                        None
                    } else {
                        // Its database is gone: it starts anew after it.
                        Some(ServiceWant::Killed)
                    };
                    let command = want.and_then(|want| service.next(site.now, want));
                    ready &= service.state() == ServiceState::Running;
                    command.map(Command::Service)
                }
                Unit::Database(_) | Unit::Reader(_) => None,
            };
            self.order(index, command, out);
        }
    }

    fn run_database(&mut self, site: &Site<'_>, group: &GroupState, guard: Guard, out: &mut Vec<Out>) {
        let candidates = self.candidates(site);
        let patience = self.patience(site);
        let Some(index) = self.units.iter().position(|unit| matches!(unit, Unit::Database(_))) else { return };
        let Unit::Database(database) = &mut self.units[index] else { return };
        let frozen = site.state.maintenance;
        // A frozen or full server that nobody can replace is restarted here.
        let patient = database.failures.retry_at().is_some_and(|at| site.now < at);
        let trouble = self.database_trouble.take().filter(|_| !patient && *database.state() == DatabaseState::Primary);
        if let Some(reason) = &trouble {
            database.failures.add(site.now, reason);
            let (resource, failures) = (ResourceId { group: self.id, index: index as u8 }, database.failures.count());
            out.push(Out::Record(Happening::ResourceFailed { resource, reason: reason.clone(), failures }));
        }
        let restart = trouble.is_some();
        let own_copy = database.copy();
        let member = match own_copy {
            Some((copy, _)) => group.in_sync.is_empty() || group.in_sync.get(&site.me) == Some(&copy),
            None => false,
        };
        let other = group.in_sync.keys().copied().find(|node| *node != site.me).unwrap_or(site.me);
        let first = group.in_sync.is_empty() && group.system.is_none();
        let want =
            if restart { DatabaseWant::NoPrimary } else { DatabaseWant::Primary { guard, member, first, other } };
        let command = if frozen { None } else { database.next(site.now, &want) };
        let command = if command.is_none() && *database.state() == DatabaseState::Primary {
            let view = View {
                me: site.me,
                id: self.id,
                group,
                candidates: &candidates,
                nodes: site.state.config.group(self.id).map_or(&[], |config| config.nodes.as_slice()),
                life: self.life,
                dead: site.dead,
                patience,
                own_copy,
                rules: site.rules,
            };
            match database.guarding.next(site.now, &view) {
                Some(Step::Propose(entry)) => {
                    out.push(Out::Propose(entry));
                    None
                }
                Some(Step::Command(command)) => Some(command),
                None => None,
            }
        } else {
            command
        };
        self.order(index, command.map(Command::Database), out);
    }

    /// Planned: services first, while the database still serves; the address last, so that clients
    /// are refused at once instead of left without an answer.
    fn hand_over(&mut self, site: &Site<'_>, group: &GroupState, to: NodeId, out: &mut Vec<Out>) {
        let has_database = self.database().is_some();
        let mut down = self.stop_services(site, ServiceWant::Down, out);
        if down && has_database {
            down = self.stop_database(site, &DatabaseWant::HandOver { standby: to }, out);
        }
        if down && self.lower_addresses(site, out) {
            self.let_go(site, group, out);
        }
    }

    fn give_up(&mut self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        let services = self.stop_services(site, ServiceWant::Killed, out);
        let database = self.stop_database(site, &DatabaseWant::NoPrimary, out);
        if services && database && self.lower_addresses(site, out) {
            self.let_go(site, group, out);
        }
    }

    /// Whether the sentinel starts nothing under our epoch any more. There is no way back from here.
    fn is_sealed(&self, site: &Site<'_>, group: &GroupState) -> bool {
        let name = site.state.config.group(self.id).map(|config| config.name.as_str());
        name.and_then(|name| site.sealed.get(name)).is_some_and(|sealed| *sealed >= group.epoch)
    }

    /// Everything is stopped. A release that was proposed may be committed at any time later, when an
    /// agent after us runs this node: that it starts nothing again is promised first, where it outlives us.
    fn let_go(&mut self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        if !site.rules.seal_first {
            return self.release(site, group, out);
        }
        let lease = site.state.config.timing.lease;
        if self.sealing.is_none_or(|(epoch, at)| epoch != group.epoch || site.now.since(at) >= lease) {
            self.sealing = Some((group.epoch, site.now));
            out.push(Out::Seal { group: self.id, epoch: group.epoch });
        }
    }

    fn release(&self, site: &Site<'_>, group: &GroupState, out: &mut Vec<Out>) {
        let (prefer, reason) = match &self.stage {
            Stage::HandOver { to } => (Some(*to), format!("moved to {}", site.state.config.node_name(*to))),
            Stage::GiveUp { prefer, reason } => (Some(*prefer), reason.clone()),
            // An agent before this one gave it up; whom it is for is in `wanted`, if there was a wish.
            Stage::Run => (None, "released by an agent that ended".into()),
        };
        out.push(Out::Propose(Entry::Release {
            group: self.id,
            epoch: group.epoch,
            incarnation: site.incarnation,
            unwaited: site.now < self.unguarded_from(site, group),
            prefer,
            reason,
        }));
    }

    /// In reverse order, each after the next; true once all are down.
    fn stop_services(&mut self, site: &Site<'_>, want: ServiceWant, out: &mut Vec<Out>) -> bool {
        for index in (0..self.units.len()).rev() {
            let Unit::Service(service) = &mut self.units[index] else { continue };
            let command = service.next(site.now, want);
            let down = service.is_down();
            self.order(index, command.map(Command::Service), out);
            if !down {
                return false;
            }
        }
        true
    }

    fn stop_database(&mut self, site: &Site<'_>, want: &DatabaseWant, out: &mut Vec<Out>) -> bool {
        let Some(index) = self.units.iter().position(|unit| matches!(unit, Unit::Database(_))) else { return true };
        let Unit::Database(database) = &mut self.units[index] else { return true };
        let command = if database.is_no_primary() { None } else { database.next(site.now, want) };
        let down = database.is_no_primary();
        self.order(index, command.map(Command::Database), out);
        down
    }

    fn lower_addresses(&mut self, site: &Site<'_>, out: &mut Vec<Out>) -> bool {
        let mut down = true;
        for index in (0..self.units.len()).rev() {
            let Unit::Address(address) = &mut self.units[index] else { continue };
            let command = address.next(site.now, None);
            down &= address.is_down();
            self.order(index, command.map(Command::Address), out);
        }
        down
    }
}
