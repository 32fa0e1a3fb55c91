//! A writing client per database: one insert after the other through the service address.

use crate::database::{Commit, Role};
use crate::world::{What, World};
use oarlock_core::config::{Config, Kind};
use oarlock_core::ids::{GroupId, ResourceId};

/// One writer.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address it uses.
    pub address: ResourceId,
    /// The database behind it.
    pub database: ResourceId,
    /// The write it waits for, and since when.
    pub waits_for: Option<(u64, u64)>,
    /// How many were acknowledged.
    pub acknowledged: u64,
    /// When the last one was acknowledged (true time).
    pub last_good_us: u64,
}

/// Writes whose acknowledgement reached a client, for whoever looks for them later.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Their numbers, in the order of the answers.
    pub writes: Vec<u64>,
}

/// After this long it gives a write up, in microseconds.
const TIMEOUT_US: u64 = 1_000_000;

impl Client {
    /// One for each group that has an address and a database.
    #[must_use]
    pub fn one_per_database(config: &Config) -> Vec<Client> {
        config.groups().filter_map(|(id, group)| Client::of(id, group)).collect()
    }

    fn of(id: GroupId, group: &oarlock_core::config::GroupConfig) -> Option<Client> {
        let of_kind = |kind| group.resources(id).find(|(_, known)| known.kind == kind).map(|(id, _)| id);
        Some(Client {
            address: of_kind(Kind::Address)?,
            database: of_kind(Kind::Postgresql)?,
            waits_for: None,
            acknowledged: 0,
            last_good_us: 0,
        })
    }
}

impl World {
    /// The client writes, waits on, or gives up.
    pub fn client_turn(&mut self, client: usize) {
        self.soon(5_000, 30_000, What::ClientTurn { client });
        let me = self.clients[client].clone();
        if let Some((_, since)) = me.waits_for {
            if self.now < since + TIMEOUT_US {
                return;
            }
            self.clients[client].waits_for = None;
        }
        let there = |host: &usize| {
            self.hosts[*host].acts()
                && self.hosts[*host].linked
                && !self.network.clients_cut.contains(host)
                // Who is cut off from the core is cut off from the clients, who are with the core.
                && self.is_counted(self.hosts[*host].id)
                && self.hosts[*host].run.addresses().contains(&me.address)
        };
        let hosts: Vec<usize> = (0..self.hosts.len()).filter(there).collect();
        let Some(host) = self.rng.pick(&hosts) else { return };
        let id = self.number();
        self.clients[client].waits_for = Some((id, self.now));
        let delay = self.network.delay(&mut self.rng);
        self.after(delay, What::ClientWrite { client, host, id });
    }

    /// A write reaches a host.
    pub fn client_write(&mut self, client: usize, host: usize, id: u64) {
        let me = self.clients[client].clone();
        let (boot, now) = (self.hosts[host].boot, self.now);
        let here = self.hosts[host].run.addresses().contains(&me.address);
        let accepted = here.then(|| self.hosts[host].databases.get_mut(&me.database)).flatten().and_then(|instance| {
            let server = instance.server.as_mut()?;
            let dir = instance.dir.as_mut()?;
            if server.role != Role::Primary || !server.open || server.frozen_us.is_some() {
                return None;
            }
            dir.wal.push(id);
            server.waiting.push(Commit { client, id, index: dir.wal.len() - 1, since_us: now });
            Some((server.pid, dir.wal.len()))
        });
        match accepted {
            Some((pid, upto)) => {
                self.soon(100, 2_000, What::Flushed { host, boot, resource: me.database, pid, upto });
            }
            None if here => self.after(200, What::ClientAnswer { client, id, good: false }),
            None => {}
        }
    }

    /// The client hears how its write ended.
    pub fn client_answer(&mut self, client: usize, id: u64, good: bool) {
        let now = self.now;
        let me = &mut self.clients[client];
        if me.waits_for.is_some_and(|(known, _)| known == id) {
            me.waits_for = None;
            if good {
                if let Some(heard) = &mut self.heard {
                    heard.writes.push(id);
                }
                me.acknowledged += 1;
                me.last_good_us = now;
            }
        }
    }
}
