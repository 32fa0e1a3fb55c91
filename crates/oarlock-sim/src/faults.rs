//! What goes wrong, when and for how long: each seed draws which faults are on and how often.

mod machines;
mod resources;
mod swarm;

pub use swarm::{SORTS, Sort, Swarm};

use crate::rng::Rng;
use crate::world::{What, World};
use oarlock_core::Event;
use oarlock_core::ids::ResourceId;

/// A fault that begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Draw the next one.
    Next,
    /// Power on.
    PowerOn(usize),
    /// The agent goes on.
    Thaw(usize),
    /// The machine goes on.
    Resume(usize),
    /// One direction is mended.
    Mend(usize, usize),
    /// The path of the databases is mended.
    MendReplication(usize, usize),
    /// The network is calm again.
    Calm,
    /// The database server goes on.
    ThawDatabase(usize, ResourceId, u32),
    /// The service can be started again.
    RepairService(usize),
    /// The address's link is back.
    LinkUp(usize),
    /// A link that comes and goes: the two, how often still, and whether it goes now.
    Flap(usize, usize, u8),
    /// The agent has lost patience with the sentinel of this number.
    Impatient(usize, u64),
    /// The sentinel of this number goes on.
    Continue(usize, u64),
    /// The machine is well again.
    Brisk(usize),
    /// The disk is fast again.
    FastDisk(usize),
    /// The agent that could not save is started anew.
    Respawn(usize),
    /// The agent starts anew under a grace once more.
    RestartAgain(usize),
}

impl World {
    /// A fault begins or ends.
    pub fn fault(&mut self, fault: Fault) {
        // What was to be mended is, or stays as it is.
        if self.core.is_some() && !matches!(fault, Fault::Respawn(_)) {
            return;
        }
        match fault {
            Fault::Next => {
                if self.checks.faulty {
                    self.next_fault();
                }
            }
            Fault::PowerOn(host) => self.power_on(host),
            Fault::Thaw(host) => self.freeze(host, false),
            Fault::Resume(host) => self.pause(host, false),
            Fault::Mend(from, to) => self.network.mend(from, to),
            Fault::MendReplication(a, b) => self.network.mend_replication(a, b),
            Fault::Calm => {
                self.network.loss_permille = 0;
                self.network.twice_permille = 0;
                self.network.slow_permille = 0;
            }
            Fault::ThawDatabase(host, resource, pid) => {
                if let Some(server) = self.server(host, resource).filter(|server| server.pid == pid) {
                    server.frozen_us = None;
                }
            }
            Fault::RepairService(host) => self.hosts[host].broken_service = false,
            Fault::LinkUp(host) => {
                self.hosts[host].linked = true;
                self.report_link(host);
            }
            Fault::Flap(host, other, left) => self.flap(host, other, left),
            Fault::Impatient(host, watch) => self.sentinel_is_missed(host, watch),
            Fault::Continue(host, watch) => self.sentinel_continues(host, watch),
            Fault::Brisk(host) => self.sluggish(host, 0),
            Fault::FastDisk(host) => self.hosts[host].disk.slow_us = 0,
            Fault::Respawn(host) => self.agent_crashes(host),
            Fault::RestartAgain(host) => self.restart_agent(host),
        }
    }

    fn next_fault(&mut self) {
        // Each has its own randomness, so that one can be left out without another becoming a different one.
        let number = self.swarm.struck;
        self.swarm.struck += 1;
        let mut draw = Rng::new(self.swarm.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.after(draw.within(20_000, self.swarm.pause_us), What::Fault(Fault::Next));
        let total = self.swarm.sorts.iter().map(|(_, weight)| weight).sum::<u64>().max(1);
        let mut drawn = draw.within(0, total - 1);
        let falls_on = |(_, weight): &&(Sort, u64)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        };
        let sort = self.swarm.sorts.iter().find(falls_on).map(|(sort, _)| *sort);
        if let Some(sort) = sort.filter(|_| !self.swarm.left_out.contains(number)) {
            std::mem::swap(&mut self.rng, &mut draw);
            self.strike(sort);
            std::mem::swap(&mut self.rng, &mut draw);
        }
    }

    pub(super) fn ends(&mut self, low_us: u64, high_us: u64, fault: Fault) {
        self.soon(low_us, high_us, What::Fault(fault));
    }

    /// A fault begins.
    pub fn strike(&mut self, sort: Sort) {
        let count = self.hosts.len();
        let host = self.rng.within(0, count as u64 - 1) as usize;
        let other = (host + 1 + self.rng.within(0, count as u64 - 2) as usize) % count;
        self.say(host, || format!("FAULT {sort:?}"));
        if self.swarm.listing {
            let (at_s, name) = (self.now as f64 / 1e6, &self.config.nodes[host].name);
            self.swarm.list.push(format!("{:>4} {at_s:>9.3} s  {sort:?} {name}", self.swarm.struck - 1));
        }
        match sort {
            Sort::PowerOff => {
                self.power_off(host);
                self.ends(300_000, 8_000_000, Fault::PowerOn(host));
            }
            Sort::LongOff => {
                for host in [host, other] {
                    self.power_off(host);
                    self.ends(2_000_000, 20_000_000, Fault::PowerOn(host));
                }
            }
            Sort::AllOff => {
                for host in 0..count {
                    self.power_off(host);
                    self.ends(300_000, 6_000_000, Fault::PowerOn(host));
                }
            }
            Sort::AgentKill
            | Sort::SentinelKill
            | Sort::SentinelStop
            | Sort::BothKill
            | Sort::Restart
            | Sort::Leave
            | Sort::Freeze => self.strike_agent(host, sort),
            Sort::Pause => {
                self.pause(host, true);
                self.ends(50_000, 5_000_000, Fault::Resume(host));
            }
            Sort::CutHost => self.cut_host(host),
            Sort::CutPair => {
                self.network.cut(host, other);
                self.ends(50_000, 6_000_000, Fault::Mend(host, other));
            }
            Sort::CutReplication => {
                self.network.cut_replication(host, other);
                self.ends(50_000, 6_000_000, Fault::MendReplication(host, other));
            }
            Sort::Flaky => {
                self.network.loss_permille = self.rng.within(0, 300);
                self.network.twice_permille = self.rng.within(0, 200);
                self.network.slow_permille = self.rng.within(0, 100);
                self.ends(500_000, 5_000_000, Fault::Calm);
            }
            Sort::DatabaseKill | Sort::DatabaseFreeze => self.strike_database(host, sort),
            Sort::ServiceKill | Sort::ServiceBreak => self.strike_service(host, sort),
            Sort::LinkDown => {
                self.hosts[host].linked = false;
                self.report_link(host);
                self.ends(500_000, 5_000_000, Fault::LinkUp(host));
            }
            Sort::Flap | Sort::Gray | Sort::ClockStep | Sort::SlowDisk => self.strike_slowness(host, other, sort),
            Sort::SaveFails => {
                let life = self.hosts[host].agent_life;
                self.tell(host, life, Event::PersistFailed { reason: "no space left on device".into() });
                self.ends(500_000, 3_000_000, Fault::Respawn(host));
            }
            Sort::Torn | Sort::Replace => self.strike_memory(sort, host, other),
            Sort::Configure => self.configure(host),
            Sort::Move | Sort::Standby | Sort::Maintenance => self.strike_request(host, sort),
        }
    }
}
