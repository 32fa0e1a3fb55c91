//! Directed scenarios: a quiet cluster in which things go wrong at chosen moments, for what a swarm
//! of random faults reaches too seldom.

use crate::database::{Role, Server};
use crate::run::{Plan, Verdict, settle};
use crate::world::World;
use oarlock_core::config::Kind;
use oarlock_core::ids::ResourceId;

/// A moment of a scenario that did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// What was waited for.
    pub what: String,
}

/// A cluster in the hands of a test.
pub struct Directed {
    /// All of it: faults are methods of the world.
    pub world: World,
}

/// How long a moment is waited for, in microseconds.
const PATIENCE_US: u64 = 20_000_000;

impl Directed {
    /// All machines are switched on; nothing goes wrong by itself.
    #[must_use]
    pub fn new(plan: &Plan) -> Directed {
        let mut world = Plan { faults: false, ..*plan }.world();
        for host in 0..world.hosts.len() {
            world.power_on(host);
        }
        Directed { world }
    }

    /// Lets time pass, in milliseconds.
    pub fn run_ms(&mut self, ms: u64) {
        self.world.run_until(self.world.now + ms * 1_000);
    }

    /// Lets things happen, one at a time, until something holds or a rule is broken.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), Missed> {
        let reached = self.world.run_until_holds(self.world.now + PATIENCE_US, holds);
        if reached || self.world.checks.broken.is_some() { Ok(()) } else { Err(Missed { what: what.to_owned() }) }
    }

    /// Until everybody is served with full redundancy.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn until_settled(&mut self) -> Result<(), Missed> {
        self.until("a settled cluster", |world| world.unsettled().is_none())
    }

    /// Cuts a machine off from all others, in both directions.
    pub fn isolate(&mut self, host: usize) {
        for other in (0..self.world.hosts.len()).filter(|other| *other != host) {
            self.world.network.cut(host, other);
            self.world.network.cut(other, host);
        }
    }

    /// The clocks run fast or slow, in parts per million of true time; before anything happens.
    pub fn set_clock_rate(&mut self, host: usize, rate_ppm: u64) {
        let clock = &mut self.world.hosts[host].clock;
        *clock = clock.with_rate(rate_ppm);
    }

    /// The database of the cluster.
    #[must_use]
    pub fn database(&self) -> Option<ResourceId> {
        let mut groups = self.world.config.groups();
        groups
            .find_map(|(id, group)| group.resources(id).find(|(_, known)| known.kind == Kind::Postgresql))
            .map(|r| r.0)
    }

    /// kill -9 of a machine's database server.
    pub fn kill_database(&mut self, host: usize) {
        let boot = self.world.hosts[host].boot;
        let Some(resource) = self.database() else { return };
        if let Some(pid) = self.world.hosts[host].run.program(resource) {
            self.world.dies(host, boot, resource, pid);
        }
    }

    /// A machine's database server stands still, or goes on.
    pub fn freeze_database(&mut self, host: usize, frozen: bool) {
        let Some(resource) = self.database() else { return };
        let now = self.world.now;
        if let Some(server) = self.world.server(host, resource) {
            server.frozen_us = frozen.then_some(now);
        }
    }

    /// Heals everything; the cluster must come back by itself.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        let healed = self.world.now;
        let settled_us = settle(&mut self.world, healed);
        Verdict::of(&self.world, settled_us)
    }
}

/// The database server of a machine, while one runs.
#[must_use]
pub fn server_on(world: &World, host: usize) -> Option<&Server> {
    world.hosts[host].databases.values().find_map(|instance| instance.server.as_ref())
}

/// Whether the database server of a machine is in a role.
#[must_use]
pub fn has_role(world: &World, host: usize, role: Role) -> bool {
    server_on(world, host).is_some_and(|server| server.role == role)
}
