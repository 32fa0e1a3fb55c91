//! A model of a database copy: rows with timelines, a server on them, streaming without loss.

use super::cluster::Cluster;
use oarlock_core::ids::{CopyId, NodeId, ResourceId};
use oarlock_core::resource::Observation;
use oarlock_core::resource::database::{
    Data, DataCommand, DataObservation, DataStandby, DataStatus, Position, Running,
};
use std::collections::BTreeSet;

/// A server that does not answer is called sick after this long, in microseconds.
const PROBE_US: u64 = 500_000;
/// A server reports at least this often, in microseconds.
const STATUS_US: u64 = 200_000;
/// What a row takes in the log, in bytes.
const ROW_BYTES: u64 = 100;

#[derive(Default)]
pub struct Instance {
    pub dir: Option<Dir>,
    pub server: Option<Server>,
    told: Option<(u64, DataStatus)>,
}

/// A data directory.
#[derive(Clone)]
pub struct Dir {
    pub copy: CopyId,
    pub system: u64,
    /// Timelines: number and first row.
    timelines: Vec<(u32, usize)>,
    /// Clients' rows; 0 is a checkpoint.
    pub rows: Vec<u64>,
    standby: bool,
}

/// A running server.
pub struct Server {
    pub running: Running,
    upstream: Option<(NodeId, u64)>,
    epoch: u64,
    pub open: bool,
    /// Whom commits wait for; `None`: nothing is acknowledged.
    sync: Option<BTreeSet<NodeId>>,
    /// SIGSTOP since then.
    pub frozen_us: Option<u64>,
    /// Rows whose clients wait, and since when.
    waiting: Vec<(usize, u64)>,
}

impl Instance {
    /// A new agent is told everything again.
    pub fn forget_told(&mut self) {
        self.told = None;
    }
}

impl Server {
    fn new(running: Running, upstream: Option<(NodeId, u64)>, epoch: u64) -> Server {
        Server { running, upstream, epoch, open: false, sync: None, frozen_us: None, waiting: Vec::new() }
    }
}

impl Dir {
    fn position(&self) -> Position {
        Position(self.rows.len() as u64 * ROW_BYTES)
    }

    fn can_follow(&self, upstream: &Dir) -> bool {
        let same = self.timelines.iter().zip(&upstream.timelines).all(|(mine, theirs)| mine == theirs);
        let end = upstream.timelines.get(self.timelines.len()).map_or(upstream.rows.len(), |(_, start)| *start);
        self.system == upstream.system
            && same
            && self.timelines.len() <= upstream.timelines.len()
            && self.rows.len() <= end
    }

    fn data(&self, running: Option<Running>) -> Data {
        Data::Present { copy: self.copy, system: self.system, standby: self.standby, running }
    }
}

impl Cluster {
    /// A command to a database is carried out; the answer, or why it could not be.
    pub fn database_done(
        &mut self,
        node: NodeId,
        id: ResourceId,
        command: DataCommand,
    ) -> Result<DataObservation, &'static str> {
        match command {
            DataCommand::Inspect => {}
            DataCommand::Initialize => {
                let copy = self.new_copy();
                let dir = Dir { copy, system: 7, timelines: vec![(1, 0)], rows: vec![0], standby: false };
                self.unit(node, id).database.dir = Some(dir);
            }
            DataCommand::Clone { from } | DataCommand::Rewind { from } => {
                let source = self.primary(from, id).filter(|_| self.path(node, from));
                let source = source.ok_or("the primary is away")?.clone();
                let copy = self.new_copy();
                self.unit(node, id).database.dir = Some(Dir { copy, standby: true, ..source });
            }
            DataCommand::Follow { upstream, epoch } => {
                let instance = &mut self.unit(node, id).database;
                let standby = instance.dir.as_ref().is_some_and(|dir| dir.standby);
                let primary = instance.server.as_ref().is_some_and(|server| server.running == Running::Primary);
                if primary || !standby {
                    return Err("it is no standby");
                }
                instance.server = Some(Server::new(Running::Standby, Some((upstream, epoch)), epoch));
                return Ok(DataObservation::Started);
            }
            DataCommand::StartPrimary { guard } => {
                self.become_primary(node, id, guard.epoch, false)?;
                return Ok(DataObservation::Started);
            }
            DataCommand::Promote { guard } => {
                self.become_primary(node, id, guard.epoch, true)?;
                return Ok(DataObservation::Promoted);
            }
            DataCommand::SetGuard { members, epoch } => {
                let instance = &mut self.unit(node, id).database;
                let server = instance.server.as_mut().ok_or("it does not run")?;
                if server.frozen_us.is_some() {
                    return Err("it does not answer");
                }
                server.epoch = epoch;
                server.sync = Some(members.into_iter().collect());
                let position = instance.dir.as_ref().map(Dir::position).unwrap_or_default();
                return Ok(DataObservation::GuardSet { position });
            }
            DataCommand::Open => {
                self.unit(node, id).database.server.as_mut().ok_or("it does not run")?.open = true;
                self.check_nothing_lost(node, id);
                return Ok(DataObservation::Opened);
            }
            DataCommand::HandOver { standby } => {
                let position = self.unit(node, id).database.dir.as_ref().map(Dir::position);
                let has_all = |other: &DataStandby| other.node == standby && Some(other.flushed) >= position;
                let reached = self.standbys(node, id).iter().any(has_all);
                return if reached { Ok(self.stop(node, id)) } else { Err("the standby does not catch up") };
            }
            DataCommand::Kill | DataCommand::Stop => return Ok(self.stop(node, id)),
        }
        let instance = &self.unit(node, id).database;
        let running = instance.server.as_ref().map(|server| server.running);
        Ok(DataObservation::Inspected(instance.dir.as_ref().map_or(Data::Absent, |dir| dir.data(running))))
    }

    fn new_copy(&mut self) -> CopyId {
        self.copies += 1;
        CopyId(self.copies)
    }

    fn become_primary(&mut self, node: NodeId, id: ResourceId, epoch: u64, promote: bool) -> Result<(), &'static str> {
        let instance = &mut self.unit(node, id).database;
        let dir = instance.dir.as_mut().ok_or("there is no data")?;
        if promote {
            instance.server.as_ref().ok_or("it does not run")?;
            let last = dir.timelines.last().map_or(0, |(number, _)| *number);
            dir.timelines.push((last + 1, dir.rows.len()));
        }
        dir.rows.push(0);
        dir.standby = false;
        instance.server = Some(Server::new(Running::Primary, None, epoch));
        Ok(())
    }

    fn stop(&mut self, node: NodeId, id: ResourceId) -> DataObservation {
        self.unit(node, id).database.server = None;
        DataObservation::Stopped
    }

    /// The directory under a primary that lets itself be copied.
    fn primary(&self, node: NodeId, id: ResourceId) -> Option<&Dir> {
        let machine = self.machine(node);
        let instance = &machine.units.get(&id).filter(|_| machine.on)?.database;
        let server = instance.server.as_ref()?;
        (server.running == Running::Primary && server.frozen_us.is_none()).then_some(instance.dir.as_ref())?
    }

    /// Standbys that stream from this node's primary.
    fn standbys(&self, node: NodeId, id: ResourceId) -> Vec<DataStandby> {
        let Some((primary, epoch)) = self.primary(node, id).zip(self.epoch(node, id)) else { return Vec::new() };
        let follows = |other: NodeId| {
            let machine = self.machine(other);
            let instance = &machine.units.get(&id).filter(|_| machine.on && self.path(node, other))?.database;
            let (server, dir) = instance.server.as_ref().zip(instance.dir.as_ref())?;
            let follows = server.upstream == Some((node, epoch));
            (server.running == Running::Standby && follows && dir.can_follow(primary)).then_some(DataStandby {
                node: other,
                flushed: dir.position(),
                streaming: true,
            })
        };
        self.nodes().filter(|other| *other != node).filter_map(follows).collect()
    }

    fn epoch(&self, node: NodeId, id: ResourceId) -> Option<u64> {
        Some(self.machine(node).units.get(&id)?.database.server.as_ref()?.epoch)
    }

    /// Replication goes on: rows flow, commits are acknowledged, servers report what changed.
    pub fn replicate(&mut self) {
        for node in self.nodes().collect::<Vec<_>>() {
            let ids: Vec<ResourceId> = self.machine(node).units.keys().copied().collect();
            for id in ids {
                if let Some(primary) = self.primary(node, id).cloned() {
                    for standby in self.standbys(node, id) {
                        let instance = &mut self.unit(standby.node, id).database;
                        let hangs = instance.server.as_ref().is_some_and(|server| server.frozen_us.is_some());
                        if let Some(dir) = instance.dir.as_mut().filter(|_| !hangs) {
                            dir.rows.clone_from(&primary.rows);
                            dir.timelines.clone_from(&primary.timelines);
                        }
                    }
                    self.acknowledge(node, id);
                }
                self.tell_status(node, id);
            }
        }
    }

    /// Clients' rows, as many as wished, at the primary that lets them in.
    pub fn write(&mut self, rows: u64) {
        for node in self.nodes().collect::<Vec<_>>() {
            let ids: Vec<ResourceId> = self.machine(node).units.keys().copied().collect();
            for id in ids {
                if self.primary(node, id).is_none() {
                    continue;
                }
                for _ in 0..rows {
                    let (row, now) = (self.number(), self.now_us);
                    let instance = &mut self.unit(node, id).database;
                    let (Some(server), Some(dir)) = (&mut instance.server, &mut instance.dir) else { continue };
                    if server.open {
                        dir.rows.push(row);
                        server.waiting.push((dir.rows.len() - 1, now));
                    }
                }
            }
        }
    }

    /// Commits whose rows everybody has who is waited for.
    fn acknowledge(&mut self, node: NodeId, id: ResourceId) {
        let standbys = self.standbys(node, id);
        let instance = &mut self.unit(node, id).database;
        let (Some(server), Some(dir)) = (&mut instance.server, &instance.dir) else { return };
        let Some(sync) = &server.sync else { return };
        let flushed = |member: &NodeId| {
            standbys.iter().find(|standby| standby.node == *member).map_or(Position(0), |standby| standby.flushed)
        };
        let upto = sync.iter().map(flushed).min().unwrap_or_else(|| dir.position());
        let done = |(index, _): &(usize, u64)| (*index as u64) < upto.0 / ROW_BYTES;
        let (done, waiting): (Vec<_>, Vec<_>) = server.waiting.drain(..).partition(done);
        server.waiting = waiting;
        if !done.is_empty() {
            let rows: Vec<u64> = done.iter().map(|(index, _)| dir.rows[*index]).collect();
            self.say(node, format!("{} rows acknowledged", rows.len()));
            self.acknowledged.extend(rows);
        }
    }

    fn check_nothing_lost(&mut self, node: NodeId, id: ResourceId) {
        let rows = self.unit(node, id).database.dir.as_ref().map(|dir| dir.rows.clone()).unwrap_or_default();
        let lost = self.acknowledged.iter().filter(|row| !rows.contains(row)).count();
        assert!(lost == 0, "{node} opens without {lost} acknowledged rows");
    }

    fn tell_status(&mut self, node: NodeId, id: ResourceId) {
        let (now, standbys) = (self.now_us, self.standbys(node, id));
        let streams = self.nodes().any(|other| self.standbys(other, id).iter().any(|standby| standby.node == node));
        let Some(unit) = self.machine_mut(node).units.get_mut(&id) else { return };
        let instance = &mut unit.database;
        let (Some(server), Some(dir)) = (&instance.server, &instance.dir) else {
            instance.told = None;
            return;
        };
        let frozen_for = server.frozen_us.map(|since| now - since);
        if frozen_for.is_some_and(|us| us < PROBE_US) {
            return;
        }
        let status = DataStatus {
            running: server.running,
            position: dir.position(),
            streaming: server.running == Running::Primary || streams,
            standbys,
            waiting_ms: server.waiting.first().map_or(0, |(_, since)| (now - since) / 1000),
            sick: frozen_for.map(|_| "the probe timed out".to_owned()),
        };
        let told = instance.told.as_ref().is_some_and(|(at, told)| *told == status && now < at + STATUS_US);
        if !told {
            instance.told = Some((now, status.clone()));
            self.observed(node, id, Observation::Database(DataObservation::Status(status)));
        }
    }
}
