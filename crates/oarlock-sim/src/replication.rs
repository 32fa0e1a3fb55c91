//! A model of streaming replication: connect, send, flush, confirm; and what a commit waits for.

use crate::database::{Connection, Role};
use crate::sabotage::Sabotage;
use crate::world::{What, World};
use oarlock_core::ids::{NodeId, ResourceId};

/// After how long a cut connection is given up, in microseconds.
const BROKEN_AFTER_US: u64 = 1_500_000;
/// How often a segment is sent again.
const RETRY_US: u64 = 20_000;

impl World {
    /// Ends a connection; both sides notice.
    pub fn disconnect(&mut self, connection: Option<u64>) {
        let Some(gone) = connection.and_then(|id| self.connections.remove(&id)) else { return };
        let resource = gone.resource;
        let (host, pid) = gone.standby;
        let boot = self.hosts[host].boot;
        if let Some(server) = self.server(host, resource).filter(|server| server.pid == pid) {
            server.connection = None;
            if server.role == Role::Standby {
                self.soon(20_000, 100_000, What::Connect { host, boot, resource, pid });
            }
        }
        for host in [gone.primary.0, gone.standby.0] {
            let life = self.hosts[host].agent_life;
            self.soon(1_000, 10_000, What::Status { host, life, resource, regular: false });
        }
    }

    /// A standby tries to connect.
    pub fn connect(&mut self, host: usize, boot: u64, resource: ResourceId, pid: u32) {
        if self.hosts[host].boot != boot {
            return;
        }
        let Some(server) = self.server(host, resource).filter(|server| server.pid == pid) else { return };
        if server.role != Role::Standby || server.connection.is_some() {
            return;
        }
        let upstream = server.upstream.filter(|_| server.frozen_us.is_none());
        self.soon(20_000, 100_000, What::Connect { host, boot, resource, pid });
        let Some((node, epoch)) = upstream else { return };
        let source = usize::from(node.0) - 1;
        if source == host || !self.network.replicates(host, source) || !self.hosts[source].acts() {
            return;
        }
        let Some(primary) = self.server(source, resource).filter(|s| s.role == Role::Primary && s.frozen_us.is_none())
        else {
            return;
        };
        let primary = (source, primary.pid);
        let (Some(theirs), Some(mine)) = (self.dir(source, resource).map(|dir| dir.clone()), self.dir(host, resource))
        else {
            return;
        };
        if !mine.can_follow(&theirs) {
            return;
        }
        mine.flushed = mine.wal.len();
        let sent = mine.wal.len();
        let id = self.number();
        let standby = (host, pid);
        self.connections
            .insert(id, Connection { resource, primary, standby, epoch, sent, acked: sent, busy: false, cut_us: None });
        if let Some(server) = self.server(host, resource) {
            server.connection = Some(id);
        }
        self.say(host, || format!("streams from {node} under epoch {epoch}"));
        for host in [source, host] {
            let life = self.hosts[host].agent_life;
            self.soon(1_000, 10_000, What::Status { host, life, resource, regular: false });
        }
        self.release_commits(source, resource);
        self.send_wal(id);
    }

    /// Sends what is new, if nothing is under way.
    pub fn send_wal(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id).filter(|connection| !connection.busy).cloned() else { return };
        let (host, pid) = connection.primary;
        if self.server(host, connection.resource).is_none_or(|server| server.pid != pid) {
            return;
        }
        let Some(dir) = self.dir(host, connection.resource) else { return };
        // What is not on the primary's own disk is not sent.
        let upto = dir.flushed.max(connection.sent).min(dir.wal.len());
        let records = dir.wal.get(connection.sent..upto).map(<[u64]>::to_vec).unwrap_or_default();
        if records.is_empty() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.busy = true;
        }
        let delay = self.network.delay(&mut self.rng);
        self.after(delay, What::WalArrives { connection: id, start: connection.sent, records });
    }

    /// Whether a segment gets through now; else it is tried again, or the connection breaks.
    fn passes(&mut self, id: u64, retry: impl FnOnce() -> What) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get(&id).cloned() else { return false };
        let (a, b) = (connection.primary.0, connection.standby.0);
        if self.network.replicates(a, b) && self.hosts[a].acts() && self.hosts[b].acts() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.cut_us = None;
            }
            return true;
        }
        let since = connection.cut_us.unwrap_or(now);
        if now > since + BROKEN_AFTER_US {
            self.disconnect(Some(id));
            return false;
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.cut_us = Some(since);
        }
        self.after(RETRY_US, retry());
        false
    }

    /// Records arrive at the standby.
    pub fn wal_arrives(&mut self, id: u64, start: usize, records: Vec<u64>) {
        if !self.passes(id, || What::WalArrives { connection: id, start, records: records.clone() }) {
            return;
        }
        let Some(connection) = self.connections.get(&id).cloned() else { return };
        let (host, resource) = (connection.standby.0, connection.resource);
        if self.server(host, resource).is_none_or(|server| server.frozen_us.is_some()) {
            return self.after(RETRY_US, What::WalArrives { connection: id, start, records });
        }
        if self.server(host, resource).is_none_or(|server| server.role != Role::Standby) {
            return;
        }
        let source = connection.primary.0;
        let history = self.dir(source, resource).map(|dir| dir.history.clone()).unwrap_or_default();
        let Some(dir) = self.dir(host, resource) else { return };
        if dir.wal.len() != start {
            return self.disconnect(Some(id));
        }
        dir.wal.extend(&records);
        let reached = dir.wal.len();
        let begun = |(_, from): &&(u32, usize)| *from < reached;
        if !history.iter().filter(begun).eq(&dir.history) {
            dir.history = history.iter().filter(begun).copied().collect();
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sent = reached;
        }
        if self.sabotage == Some(Sabotage::ConfirmUnflushed) {
            return self.after(1, What::WalConfirmed { connection: id, upto: reached });
        }
        self.soon(100, 3_000, What::WalFlushed { connection: id, upto: reached });
    }

    /// Records are on the standby's disk.
    pub fn wal_flushed(&mut self, id: u64, upto: usize) {
        let Some(connection) = self.connections.get(&id).cloned() else { return };
        let (host, resource) = (connection.standby.0, connection.resource);
        if self.hosts[host].paused || self.server(host, resource).is_none_or(|server| server.frozen_us.is_some()) {
            return self.after(RETRY_US, What::WalFlushed { connection: id, upto });
        }
        if let Some(dir) = self.dir(host, resource) {
            dir.flushed = dir.flushed.max(upto);
        }
        let delay = self.network.delay(&mut self.rng);
        self.after(delay, What::WalConfirmed { connection: id, upto });
    }

    /// The primary hears that records are on the standby's disk.
    pub fn wal_confirmed(&mut self, id: u64, upto: usize) {
        if !self.passes(id, || What::WalConfirmed { connection: id, upto }) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.acked = connection.acked.max(upto);
        connection.busy = false;
        let (host, resource) = (connection.primary.0, connection.resource);
        self.release_commits(host, resource);
        self.send_wal(id);
    }

    /// The primary's log is on its disk.
    pub fn flushed(&mut self, host: usize, boot: u64, resource: ResourceId, pid: u32, upto: usize) {
        if self.hosts[host].boot != boot {
            return;
        }
        let Some(server) = self.server(host, resource).filter(|server| server.pid == pid) else { return };
        if server.frozen_us.is_some() {
            return self.after(RETRY_US, What::Flushed { host, boot, resource, pid, upto });
        }
        if let Some(dir) = self.dir(host, resource) {
            dir.flushed = dir.flushed.max(upto);
        }
        self.release_commits(host, resource);
        let mine = self.connections.iter().filter(|(_, c)| c.primary == (host, pid) && c.resource == resource);
        let mine: Vec<u64> = mine.map(|(id, _)| *id).collect();
        for id in mine {
            self.send_wal(id);
        }
    }

    /// How many records all have confirmed that commits wait for; `None` when that is not known.
    pub fn confirmed(&self, host: usize, resource: ResourceId) -> Option<usize> {
        let server = self.hosts[host].databases.get(&resource)?.server.as_ref()?;
        let counts = |c: &Connection, node: NodeId| {
            c.resource == resource
                && c.primary == (host, server.pid)
                && c.epoch == server.epoch
                && c.standby.0 + 1 == usize::from(node.0)
        };
        let by = |node| {
            let mine = self.connections.values().filter(|connection| counts(connection, node));
            mine.map(|connection| connection.acked).max().unwrap_or(0)
        };
        Some(server.sync.as_ref()?.iter().map(|node| by(*node)).min().unwrap_or(usize::MAX))
    }

    /// Acknowledges commits that have waited long enough.
    pub fn release_commits(&mut self, host: usize, resource: ResourceId) {
        let Some(confirmed) = self.confirmed(host, resource) else { return };
        let Some(instance) = self.hosts[host].databases.get_mut(&resource) else { return };
        let (Some(server), Some(dir)) = (&mut instance.server, &instance.dir) else { return };
        if server.waiting.is_empty() || server.frozen_us.is_some() {
            return;
        }
        let upto = confirmed.min(dir.flushed);
        let done: Vec<_> = server.waiting.extract_if(.., |commit| commit.index < upto).collect();
        for commit in done {
            self.check_acknowledged(host, resource, &commit);
            let delay = self.network.delay(&mut self.rng);
            self.after(delay, What::ClientAnswer { client: commit.client, id: commit.id, good: true });
        }
    }
}
