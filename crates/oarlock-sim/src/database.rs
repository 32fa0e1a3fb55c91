//! A model of a database copy: a log of records with timelines, a server on it, its commands.

use crate::host::{Asked, name_of, sentinel_guard};
use crate::world::{What, World};
use oarlock_core::ids::{CopyId, NodeId, ResourceId};
use oarlock_core::resource::Observation;
use oarlock_core::resource::database::{
    Data, DataCommand, DataObservation, DataStandby, DataStatus, Position, Running,
};
use oarlock_core::sentinel::{Reply, Request};
use std::collections::BTreeSet;

/// Bytes of log per record.
const RECORD_BYTES: u64 = 100_000;
/// Records that are no client's write have this bit.
pub const MARK: u64 = 1 << 63;

/// A data directory.
#[derive(Clone, Debug)]
pub struct Dir {
    /// The copy's number.
    pub copy: CopyId,
    /// The database cluster's own identifier.
    pub system: u64,
    /// Timelines: number and first record.
    pub history: Vec<(u32, usize)>,
    /// All records.
    pub wal: Vec<u64>,
    /// How many of them are on the disk.
    pub flushed: usize,
    /// Configured as a standby.
    pub standby: bool,
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Starts as a standby.
    StartingStandby,
    /// Serves reads, receives and replays.
    Standby,
    /// Crash recovery.
    StartingPrimary,
    /// Ends its recovery.
    Promoting,
    /// Takes writes.
    Primary,
}

/// A commit that waits.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Whose.
    pub client: usize,
    /// What.
    pub id: u64,
    /// Its record.
    pub index: usize,
    /// Since when (true time).
    pub since_us: u64,
}

/// A server process.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub role: Role,
    /// Clients are let in.
    pub open: bool,
    /// Closed for a hand-over that failed: open again once whoever commits wait for has this much.
    pub reopen_at: Option<usize>,
    /// Whom commits wait for; `None`: nothing is acknowledged.
    pub sync: Option<BTreeSet<NodeId>>,
    /// The epoch under whose name standbys count.
    pub epoch: u64,
    /// Whom a standby follows.
    pub upstream: Option<(NodeId, u64)>,
    /// A standby's connection.
    pub connection: Option<u64>,
    /// It does nothing (SIGSTOP, or its disk hangs); since when.
    pub frozen_us: Option<u64>,
    /// Commits not acknowledged yet.
    pub waiting: Vec<Commit>,
}

/// A command under way.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number.
    pub number: u64,
    /// What.
    pub command: DataCommand,
    /// How far it is.
    pub step: u32,
    /// Since when (true time).
    pub since_us: u64,
    /// Another command came: nobody waits for the answer.
    pub muted: bool,
}

/// One copy on one host.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// The data directory, if there is one.
    pub dir: Option<Dir>,
    /// The server, if one runs.
    pub server: Option<Server>,
    /// The command under way.
    pub job: Option<Job>,
    /// The next command.
    pub queued: Option<DataCommand>,
}

/// A standby connected to a primary.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The resource on both.
    pub resource: ResourceId,
    /// Host and process of the primary.
    pub primary: (usize, u32),
    /// Host and process of the standby.
    pub standby: (usize, u32),
    /// The epoch in its name.
    pub epoch: u64,
    /// How many records were sent.
    pub sent: usize,
    /// How many the primary knows to be flushed.
    pub acked: usize,
    /// A batch is under way.
    pub busy: bool,
    /// The path is cut since (true time).
    pub cut_us: Option<u64>,
}

impl Dir {
    /// Whether a standby on this directory can follow a primary on the other, as far as the
    /// timelines tell.
    #[must_use]
    pub fn can_follow(&self, upstream: &Dir) -> bool {
        if self.system != upstream.system || self.history.len() > upstream.history.len() {
            return false;
        }
        let same = self.history.iter().zip(&upstream.history).all(|(mine, theirs)| mine == theirs);
        let end = upstream.history.get(self.history.len()).map_or(upstream.wal.len(), |(_, start)| *start);
        same && self.wal.len() <= end
    }

    /// The last record both have, as far as the timelines tell.
    #[must_use]
    pub fn fork(&self, upstream: &Dir) -> usize {
        let common = self.history.iter().zip(&upstream.history).take_while(|(mine, theirs)| mine == theirs).count();
        let end = |dir: &Dir| dir.history.get(common).map_or(dir.wal.len(), |(_, start)| *start);
        end(self).min(end(upstream))
    }
}

impl Instance {
    /// The machine lost its power: nothing runs.
    pub fn power_lost(&mut self) {
        self.server = None;
        self.job = None;
        self.queued = None;
    }

    /// The agent died: what it was doing to the directory is left half done.
    pub fn agent_died(&mut self) {
        let half_done = self.job.as_ref().is_some_and(|job| {
            job.step > 0 && matches!(job.command, DataCommand::Clone { .. } | DataCommand::Rewind { .. })
        });
        if half_done {
            self.dir = None;
        }
        self.job = None;
        self.queued = None;
    }

    /// The sentinel forked a server.
    pub fn forked(&mut self, pid: u32) {
        let (role, upstream, epoch) = match self.job.as_ref().map(|job| &job.command) {
            Some(DataCommand::StartPrimary { guard }) => (Role::StartingPrimary, None, guard.epoch),
            Some(DataCommand::Follow { upstream, epoch }) => (Role::StartingStandby, Some((*upstream, *epoch)), *epoch),
            // The agent died in between: what was started is known by its directory.
            _ if self.dir.as_ref().is_some_and(|dir| dir.standby) => (Role::StartingStandby, None, 0),
            _ => (Role::StartingPrimary, None, 0),
        };
        self.server = Some(Server {
            pid,
            role,
            open: false,
            reopen_at: None,
            sync: None,
            epoch,
            upstream,
            connection: None,
            frozen_us: None,
            waiting: Vec::new(),
        });
    }

    fn position(&self) -> Position {
        lsn(self.dir.as_ref().map_or(0, |dir| dir.wal.len()))
    }
}

/// The position behind this many records.
#[must_use]
pub fn lsn(records: usize) -> Position {
    Position(records as u64 * RECORD_BYTES)
}

/// Looks, 10 ms apart, at a server that somebody else started, before it has surely been forgotten.
const FORGOTTEN_AFTER_STEPS: u32 = 50;

impl World {
    /// The core orders something of a database.
    pub fn database_command(&mut self, host: usize, resource: ResourceId, command: DataCommand) {
        let number = self.number();
        let now = self.now;
        let Some(instance) = self.hosts[host].databases.get_mut(&resource) else { return };
        if let Some(job) = &mut instance.job {
            let interrupts = matches!(command, DataCommand::Kill);
            let touches = matches!(job.command, DataCommand::Clone { .. } | DataCommand::Rewind { .. });
            if !interrupts || touches {
                job.muted = true;
                instance.queued = Some(command);
                return;
            }
        }
        instance.job = Some(Job { number, command, step: 0, since_us: now, muted: false });
        let life = self.hosts[host].agent_life;
        self.job(host, life, resource, number);
    }

    fn job_of(&self, host: usize, life: u64, resource: ResourceId, number: u64) -> Option<Job> {
        if self.hosts[host].agent_life != life {
            return None;
        }
        let job = self.hosts[host].databases.get(&resource)?.job.as_ref()?;
        (job.number == number).then(|| job.clone())
    }

    fn later(&mut self, host: usize, resource: ResourceId, job: &Job, low_us: u64, high_us: u64) {
        let life = self.hosts[host].agent_life;
        if let Some(known) = self.instance(host, resource).and_then(|instance| instance.job.as_mut()) {
            known.step = job.step + 1;
        }
        self.soon(low_us, high_us, What::Job { host, life, resource, number: job.number });
    }

    /// The copy on a host.
    pub fn instance(&mut self, host: usize, resource: ResourceId) -> Option<&mut Instance> {
        self.hosts[host].databases.get_mut(&resource)
    }

    /// The server on a host.
    pub fn server(&mut self, host: usize, resource: ResourceId) -> Option<&mut Server> {
        self.instance(host, resource)?.server.as_mut()
    }

    /// The directory on a host.
    pub fn dir(&mut self, host: usize, resource: ResourceId) -> Option<&mut Dir> {
        self.instance(host, resource)?.dir.as_mut()
    }

    /// Ends the command under way.
    fn answer(&mut self, host: usize, resource: ResourceId, what: DataObservation) {
        let life = self.hosts[host].agent_life;
        let Some(instance) = self.instance(host, resource) else { return };
        let Some(job) = instance.job.take() else { return };
        let queued = instance.queued.take();
        if !job.muted {
            self.observed(host, life, resource, Observation::Database(what));
        }
        if let Some(command) = queued {
            self.database_command(host, resource, command);
        }
        self.soon(1_000, 5_000, What::Status { host, life, resource, regular: false });
    }

    fn fail(&mut self, host: usize, resource: ResourceId, reason: &str) {
        self.answer(host, resource, DataObservation::Failed { reason: reason.into() });
    }

    /// The next step of a command.
    pub fn job(&mut self, host: usize, life: u64, resource: ResourceId, number: u64) {
        let Some(job) = self.job_of(host, life, resource, number) else { return };
        if self.hosts[host].frozen {
            return self.after(10_000, What::Job { host, life, resource, number });
        }
        match job.command.clone() {
            DataCommand::Inspect => self.inspect(host, resource, &job),
            DataCommand::Initialize => self.initialize(host, resource, &job),
            DataCommand::Clone { from } => self.copy(host, resource, &job, from, false),
            DataCommand::Rewind { from } => self.copy(host, resource, &job, from, true),
            DataCommand::Follow { upstream, epoch } => self.follow(host, resource, &job, upstream, epoch),
            DataCommand::StartPrimary { guard } => {
                let request = Request::Spawn {
                    name: name_of(resource),
                    command: Box::default(),
                    guard: Some(sentinel_guard(resource, guard)),
                };
                self.ask(host, Asked::Database(resource, number), request);
            }
            DataCommand::Promote { guard } => self.promote(host, resource, &job, guard),
            DataCommand::SetGuard { members, epoch } => self.set_guard(host, resource, &job, members, epoch),
            DataCommand::Open => self.open(host, resource, &job),
            DataCommand::HandOver { standby } => self.hand_over(host, resource, &job, standby),
            DataCommand::Kill | DataCommand::Stop => {
                let request = Request::KillGroup { name: name_of(resource) };
                self.ask(host, Asked::Database(resource, number), request);
            }
        }
    }

    /// The sentinel answered a step of a command.
    pub fn job_answered(&mut self, host: usize, life: u64, resource: ResourceId, number: u64, reply: &Reply) {
        let Some(job) = self.job_of(host, life, resource, number) else { return };
        let refused = match reply {
            Reply::Refused(refusal) => Some(refusal.to_string()),
            Reply::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        if matches!(job.command, DataCommand::Kill | DataCommand::Stop | DataCommand::HandOver { .. }) {
            return self.answer(host, resource, DataObservation::Stopped);
        }
        let boot = self.hosts[host].boot;
        if let Some(reason) = refused {
            return self.start_failed(host, resource, &reason);
        }
        let Some(pid) = self.server(host, resource).map(|server| server.pid) else {
            return self.fail(host, resource, "it ended at once");
        };
        match job.command {
            DataCommand::StartPrimary { .. } | DataCommand::Follow { .. } => {
                self.soon(20_000, 200_000, What::Recovered { host, boot, resource, pid });
            }
            _ => {}
        }
    }

    /// A start or promotion was refused: nothing of it runs any more, as promised.
    fn start_failed(&mut self, host: usize, resource: ResourceId, reason: &str) {
        let boot = self.hosts[host].boot;
        if let Some(pid) = self.server(host, resource).map(|server| server.pid) {
            self.dies(host, boot, resource, pid);
        }
        self.fail(host, resource, reason);
    }

    fn inspect(&mut self, host: usize, resource: ResourceId, job: &Job) {
        if job.step == 0 {
            return self.later(host, resource, job, 1_000, 10_000);
        }
        let Some(instance) = self.instance(host, resource) else { return };
        let role = instance.server.as_ref().map(|server| server.role);
        if matches!(role, Some(Role::StartingStandby | Role::StartingPrimary)) {
            // A server comes up by itself even if whoever started it has lost interest meanwhile.
            if job.step == FORGOTTEN_AFTER_STEPS
                && let Some(pid) = instance.server.as_ref().map(|server| server.pid)
            {
                let boot = self.hosts[host].boot;
                self.soon(20_000, 200_000, What::Recovered { host, boot, resource, pid });
            }
            return self.later(host, resource, job, 10_000, 10_000);
        }
        let data = match &instance.dir {
            None => Data::Absent,
            Some(dir) => Data::Present {
                copy: dir.copy,
                system: dir.system,
                standby: dir.standby,
                running: role.map(|role| if role == Role::Primary { Running::Primary } else { Running::Standby }),
            },
        };
        self.answer(host, resource, DataObservation::Inspected(data));
    }

    fn initialize(&mut self, host: usize, resource: ResourceId, job: &Job) {
        if job.step == 0 {
            return self.later(host, resource, job, 100_000, 300_000);
        }
        let (copy, system) = (CopyId(self.rng.draw()), self.rng.draw());
        let mark = MARK | self.number();
        let Some(instance) = self.instance(host, resource) else { return };
        if instance.dir.is_some() {
            return self.fail(host, resource, "the directory is not empty");
        }
        instance.dir = Some(Dir { copy, system, history: vec![(1, 0)], wal: vec![mark], flushed: 1, standby: false });
        self.answer(
            host,
            resource,
            DataObservation::Inspected(Data::Present { copy, system, standby: false, running: None }),
        );
    }

    /// Clone or rewind.
    fn copy(&mut self, host: usize, resource: ResourceId, job: &Job, from: NodeId, rewind: bool) {
        let source = usize::from(from.0) - 1;
        let reachable = self.network.replicates(host, source) && self.hosts[source].acts();
        let runs = self.server(source, resource).is_some_and(|s| s.role == Role::Primary && s.frozen_us.is_none());
        let unlucky = self.checks.faulty && self.rng.chance(if rewind { 150 } else { 30 });
        if !reachable || !runs || (job.step > 0 && unlucky) {
            if job.step > 0
                && !rewind
                && let Some(instance) = self.instance(host, resource)
            {
                instance.dir = None;
            }
            return self.fail(host, resource, "the primary cannot be copied");
        }
        if job.step == 0 {
            self.check_replaceable(host, resource);
            return self.later(host, resource, job, 50_000, 500_000);
        }
        let Some(upstream) = self.dir(source, resource).map(|dir| dir.clone()) else { return };
        let copy = CopyId(self.rng.draw());
        let Some(instance) = self.instance(host, resource) else { return };
        let mut wal = upstream.wal.clone();
        if rewind {
            let Some(mine) = instance.dir.as_ref().filter(|dir| dir.system == upstream.system) else {
                return self.fail(host, resource, "another database");
            };
            let fork = mine.fork(&upstream).min(wal.len());
            wal = mine.wal[..fork].iter().chain(&upstream.wal[fork..]).copied().collect();
        }
        let flushed = wal.len();
        let system = upstream.system;
        // A rewind takes the log's files as they are; either has the primary flush them before it is done.
        if let Some(dir) = self.dir(source, resource) {
            dir.flushed = dir.wal.len();
        }
        let Some(instance) = self.instance(host, resource) else { return };
        instance.dir = Some(Dir { copy, system, history: upstream.history, wal, flushed, standby: true });
        self.answer(
            host,
            resource,
            DataObservation::Inspected(Data::Present { copy, system, standby: true, running: None }),
        );
    }

    fn follow(&mut self, host: usize, resource: ResourceId, job: &Job, upstream: NodeId, epoch: u64) {
        let Some(instance) = self.instance(host, resource) else { return };
        if let Some(server) = &mut instance.server {
            if server.role == Role::Promoting || server.role == Role::Primary {
                return self.start_failed(host, resource, "it is a primary");
            }
            if job.step == 0 {
                return self.later(host, resource, job, 1_000, 20_000);
            }
            server.upstream = Some((upstream, epoch));
            let (pid, connection) = (server.pid, server.connection.take());
            let boot = self.hosts[host].boot;
            self.disconnect(connection);
            self.soon(1_000, 20_000, What::Connect { host, boot, resource, pid });
            return self.answer(host, resource, DataObservation::Started);
        }
        if job.step > 0 || instance.dir.as_ref().is_none_or(|dir| !dir.standby) {
            return self.fail(host, resource, "there is no standby to start");
        }
        let request = Request::Spawn { name: name_of(resource), command: Box::default(), guard: None };
        self.ask(host, Asked::Database(resource, job.number), request);
    }

    fn promote(&mut self, host: usize, resource: ResourceId, job: &Job, guard: oarlock_core::resource::Guard) {
        let Some(server) = self.server(host, resource) else { return self.fail(host, resource, "it does not run") };
        let pid = server.pid;
        if server.role == Role::Primary {
            return self.answer(host, resource, DataObservation::Promoted);
        }
        server.epoch = guard.epoch;
        let request = Request::Promote {
            name: name_of(resource),
            pid,
            trigger_file: String::new(),
            signal: 10,
            guard: sentinel_guard(resource, guard),
        };
        self.ask(host, Asked::Database(resource, job.number), request);
    }

    /// The trigger was pulled.
    pub fn promotion_begins(&mut self, host: usize, resource: ResourceId, pid: u32) {
        let boot = self.hosts[host].boot;
        let Some(server) = self.server(host, resource).filter(|server| server.pid == pid) else { return };
        if server.role != Role::Promoting && server.role != Role::Primary {
            server.role = Role::Promoting;
            self.soon(10_000, 120_000, What::Recovered { host, boot, resource, pid });
        }
    }

    /// Recovery or promotion has ended.
    pub fn recovered(&mut self, host: usize, boot: u64, resource: ResourceId, pid: u32) {
        if self.hosts[host].boot != boot {
            return;
        }
        let mark = MARK | self.number();
        let unlucky = self.checks.faulty && self.rng.chance(20);
        let Some(server) = self.server(host, resource).filter(|server| server.pid == pid) else { return };
        if server.frozen_us.is_some() {
            return self.after(20_000, What::Recovered { host, boot, resource, pid });
        }
        let role = server.role;
        if unlucky {
            return self.dies(host, boot, resource, pid);
        }
        match role {
            Role::StartingStandby => {
                server.role = Role::Standby;
                self.soon(1_000, 20_000, What::Connect { host, boot, resource, pid });
            }
            Role::StartingPrimary | Role::Promoting => {
                server.role = Role::Primary;
                server.upstream = None;
                let connection = server.connection.take();
                self.disconnect(connection);
                if let Some(dir) = self.dir(host, resource) {
                    if role == Role::Promoting {
                        let last = dir.history.last().map_or(0, |(timeline, _)| *timeline);
                        dir.history.push((last + 1, dir.wal.len()));
                    }
                    dir.wal.push(mark);
                    dir.flushed = dir.wal.len();
                    dir.standby = false;
                }
                self.check_promoted(host, resource);
            }
            Role::Standby | Role::Primary => {}
        }
        let command = self.instance(host, resource).and_then(|instance| Some(instance.job.as_ref()?.command.clone()));
        let what = match (command, role) {
            (Some(DataCommand::Promote { .. }), Role::Promoting) => DataObservation::Promoted,
            (Some(DataCommand::Follow { .. }), Role::StartingStandby)
            | (Some(DataCommand::StartPrimary { .. }), Role::StartingPrimary) => DataObservation::Started,
            _ => return,
        };
        self.answer(host, resource, what);
    }

    fn set_guard(&mut self, host: usize, resource: ResourceId, job: &Job, members: Vec<NodeId>, epoch: u64) {
        match job.step {
            0 => return self.later(host, resource, job, 1_000, 20_000),
            1 => {
                let unlucky = self.checks.faulty && self.rng.chance(30);
                let Some(server) = self.server(host, resource) else {
                    return self.fail(host, resource, "it does not run");
                };
                if server.frozen_us.is_some() || unlucky {
                    return self.fail(host, resource, "the guard is not proven in time");
                }
                server.epoch = epoch;
                server.sync = Some(members.into_iter().collect());
                self.release_commits(host, resource);
                return self.later(host, resource, job, 1_000, 20_000);
            }
            _ => {}
        }
        let Some(instance) = self.instance(host, resource) else { return };
        if instance.server.is_none() {
            return self.fail(host, resource, "it does not run");
        }
        let position = instance.position();
        self.answer(host, resource, DataObservation::GuardSet { position });
    }

    fn open(&mut self, host: usize, resource: ResourceId, job: &Job) {
        if job.step == 0 {
            return self.later(host, resource, job, 1_000, 10_000);
        }
        let unlucky = self.checks.faulty && self.rng.chance(20);
        let Some(server) = self.server(host, resource) else { return self.fail(host, resource, "it does not run") };
        if server.frozen_us.is_some() || unlucky {
            return self.fail(host, resource, "it does not answer");
        }
        // A standby's readers are no concern of the primary's.
        if server.role == Role::Primary {
            server.open = true;
            server.reopen_at = None;
            self.note_open(resource);
            self.check_open(host, resource);
        }
        self.answer(host, resource, DataObservation::Opened);
    }

    fn hand_over(&mut self, host: usize, resource: ResourceId, job: &Job, standby: NodeId) {
        let to = usize::from(standby.0) - 1;
        let late = self.now > job.since_us + 1_000_000;
        let connections: Vec<Connection> = self.connections.values().cloned().collect();
        let Some(instance) = self.instance(host, resource) else { return };
        let (Some(server), Some(dir)) = (&mut instance.server, &mut instance.dir) else {
            return self.answer(host, resource, DataObservation::Exited { reason: "the server ended".into() });
        };
        server.open = false;
        server.reopen_at = None;
        let flushed = connections.iter().any(|connection| {
            connection.primary == (host, server.pid)
                && connection.standby.0 == to
                && connection.epoch == server.epoch
                && connection.acked >= dir.wal.len()
        });
        if server.frozen_us.is_none() && server.waiting.is_empty() && flushed {
            dir.flushed = dir.wal.len();
            let request = Request::KillGroup { name: name_of(resource) };
            return self.ask(host, Asked::Database(resource, job.number), request);
        }
        // One that hangs cannot even call it off.
        if late && server.frozen_us.is_none() {
            server.reopen_at = Some(dir.wal.len());
            return self.fail(host, resource, "the standby does not catch up");
        }
        self.later(host, resource, job, 5_000, 5_000);
        if let Some(job) = self.instance(host, resource).and_then(|instance| instance.job.as_mut()) {
            job.step = 1;
        }
    }

    /// A server is gone, whoever killed it; its log stays.
    pub fn server_gone(&mut self, host: usize, resource: ResourceId) {
        let Some(server) = self.instance(host, resource).and_then(|instance| instance.server.take()) else { return };
        for commit in server.waiting {
            self.soon(100, 1_000, What::ClientAnswer { client: commit.client, id: commit.id, good: false });
        }
        let mine = |connection: &Connection| {
            connection.resource == resource
                && (connection.primary == (host, server.pid) || connection.standby == (host, server.pid))
        };
        let gone: Vec<u64> = self.connections.iter().filter(|(_, c)| mine(c)).map(|(id, _)| *id).collect();
        for id in gone {
            self.disconnect(Some(id));
        }
    }

    /// The agent hears that its server ended.
    pub fn database_ended(&mut self, host: usize, life: u64, resource: ResourceId) {
        let job = self.instance(host, resource).and_then(|instance| instance.job.clone());
        let reason = "the server ended";
        match job.map(|job| job.command) {
            Some(DataCommand::Kill | DataCommand::Stop | DataCommand::HandOver { .. }) => {}
            Some(
                DataCommand::Inspect | DataCommand::Clone { .. } | DataCommand::Rewind { .. } | DataCommand::Initialize,
            ) => {}
            Some(DataCommand::StartPrimary { .. } | DataCommand::Follow { .. } | DataCommand::Promote { .. }) => {
                self.fail(host, resource, reason);
            }
            Some(DataCommand::SetGuard { .. } | DataCommand::Open) => {
                self.answer(host, resource, DataObservation::Exited { reason: reason.into() });
            }
            None => {
                let what = DataObservation::Exited { reason: reason.into() };
                self.observed(host, life, resource, Observation::Database(what));
            }
        }
    }

    /// The agent looks at its server and reports.
    pub fn status(&mut self, host: usize, life: u64, resource: ResourceId, regular: bool) {
        if self.agent(host, life).is_none() {
            return;
        }
        if !self.hosts[host].frozen {
            self.reopen(host, resource);
        }
        let status = self.look(host, resource);
        let restless = status.as_ref().is_some_and(|status| status.waiting_ms > 0);
        let closed = self.server(host, resource).is_some_and(|server| server.role == Role::Primary && !server.open);
        if regular {
            let pause = if restless || closed { 50_000 } else { 500_000 };
            self.after(pause, What::Status { host, life, resource, regular });
        }
        if let Some(status) = status.filter(|_| !self.hosts[host].frozen) {
            self.observed(host, life, resource, Observation::Database(DataObservation::Status(status)));
        }
    }

    /// After a hand-over that failed clients may see what one saw last: in again once all have it.
    fn reopen(&mut self, host: usize, resource: ResourceId) {
        let reached = self.confirmed(host, resource);
        let Some(server) = self.server(host, resource).filter(|server| server.frozen_us.is_none()) else { return };
        if server.reopen_at.is_some_and(|position| reached >= Some(position)) {
            server.reopen_at = None;
            server.open = true;
            self.note_open(resource);
            self.check_open(host, resource);
        }
    }

    fn look(&mut self, host: usize, resource: ResourceId) -> Option<DataStatus> {
        let now = self.now;
        let connections = self.connections.values().filter(|connection| connection.resource == resource);
        let connections: Vec<Connection> = connections.cloned().collect();
        let nodes: Vec<NodeId> = self.hosts.iter().map(|host| host.id).collect();
        let instance = self.hosts[host].databases.get(&resource)?;
        let (server, position) = (instance.server.as_ref()?, instance.position());
        let sick = server.frozen_us.filter(|since| now > since + 500_000).map(|_| "the probe timed out".to_owned());
        if server.frozen_us.is_some() && sick.is_none() {
            return None;
        }
        match server.role {
            Role::Primary => {
                let standbys = connections
                    .iter()
                    .filter(|c| c.primary == (host, server.pid) && c.epoch == server.epoch)
                    .map(|c| DataStandby { node: nodes[c.standby.0], flushed: lsn(c.acked), streaming: true });
                let oldest = server.waiting.iter().map(|commit| commit.since_us).min();
                let waiting_ms = oldest.map_or(0, |since| (now - since) / 1000);
                Some(DataStatus {
                    running: Running::Primary,
                    position,
                    streaming: true,
                    standbys: standbys.collect(),
                    waiting_ms,
                    sick,
                })
            }
            Role::Standby => Some(DataStatus {
                running: Running::Standby,
                position: lsn(instance.dir.as_ref().map_or(0, |dir| dir.flushed)),
                streaming: server.connection.is_some(),
                standbys: Vec::new(),
                waiting_ms: 0,
                sick,
            }),
            _ => None,
        }
    }
}
