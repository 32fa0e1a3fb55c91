//! What befalls machines and the paths between them.

use super::{Fault, Sort};
use crate::world::{What, World};
use oarlock_core::Event;
use oarlock_core::request::Request;

impl World {
    /// What neither kills nor cuts off for long.
    pub(super) fn strike_slowness(&mut self, host: usize, other: usize, sort: Sort) {
        match sort {
            Sort::Flap => {
                let often = self.rng.within(3, 30) as u8;
                self.flap(host, other, often);
            }
            Sort::Gray => {
                let us = self.rng.within(10_000, 40_000);
                self.sluggish(host, us);
                self.ends(1_000_000, 10_000_000, Fault::Brisk(host));
            }
            Sort::ClockStep => {
                let us = self.rng.within(100_000, 20_000_000);
                self.clock_steps(host, us);
            }
            _ => {
                // Now and then it hangs for longer than any grace.
                let longest = if self.rng.chance(100) { 15_000_000 } else { 200_000 };
                self.hosts[host].disk.slow_us = self.rng.within(5_000, longest);
                self.ends(500_000, 5_000_000, Fault::FastDisk(host));
            }
        }
    }

    /// What befalls the agent and its sentinel.
    pub(super) fn strike_agent(&mut self, host: usize, sort: Sort) {
        match sort {
            Sort::AgentKill => self.agent_crashes(host),
            Sort::SentinelKill => {
                let after = self.rng.within(0, 8) as u32;
                self.sentinel_doomed(host, after);
            }
            Sort::SentinelStop => self.sentinel_stops(host),
            Sort::BothKill => self.both_killed(host),
            Sort::Restart => {
                self.restart_agent(host);
                for turn in 1..=self.rng.within(0, 3) {
                    self.after(turn * 1_500_000, What::Fault(Fault::RestartAgain(host)));
                }
            }
            Sort::Leave => self.terminate(host),
            _ => {
                self.freeze(host, true);
                self.ends(50_000, 5_000_000, Fault::Thaw(host));
            }
        }
    }

    /// One memory at a time: with too many lost at once only a person can help. The last one is mended
    /// once a majority knows it, not when it is committed: who alone knows that may be the next.
    pub(super) fn strike_memory(&mut self, sort: Sort, host: usize, other: usize) {
        let settled = self.checks.truth.voters.former.is_empty();
        if self.missing_voter().is_some() || !settled || self.now < self.replacing_until_us {
            return;
        }
        if sort == Sort::Torn {
            self.agent_crashes(host);
            self.hosts[host].disk.lose();
        } else {
            let node = self.hosts[other].id;
            self.replacing_until_us = self.now + 31_000_000;
            self.request(host, Request::Replace { node });
        }
    }

    pub(super) fn flap(&mut self, host: usize, other: usize, left: u8) {
        if left % 2 == 1 {
            self.network.cut(host, other);
            self.network.cut(other, host);
        } else {
            self.network.mend(host, other);
            self.network.mend(other, host);
        }
        if left > 0 {
            self.ends(20_000, 300_000, Fault::Flap(host, other, left - 1));
        }
    }

    /// Datagrams, disk and agent of a machine take this much longer; its sentinel has its priority.
    pub(super) fn sluggish(&mut self, host: usize, us: u64) {
        self.hosts[host].sluggish_us = us;
        self.hosts[host].disk.slow_us = us * 2;
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            match us {
                0 => self.network.straighten(host, other),
                us => {
                    self.network.detour(host, other, us);
                    self.network.detour(other, host, us);
                }
            }
        }
    }

    /// The clock that agent and sentinel go by jumps ahead. It never goes back.
    fn clock_steps(&mut self, host: usize, us: u64) {
        if !self.hosts[host].on {
            return;
        }
        let clock = &mut self.hosts[host].clock;
        *clock = clock.stepped(us);
        // Timers on that clock that are due now fire now.
        self.hosts[host].sentinel_due = None;
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.due = None;
        }
        let watch = self.hosts[host].watch.number;
        let life = self.hosts[host].agent_life;
        self.after(0, What::SentinelDue { host, watch });
        self.tell(host, life, Event::Ticked);
    }

    pub(super) fn cut_host(&mut self, host: usize) {
        let directions = self.rng.within(1, 3);
        let until = self.rng.within(50_000, 6_000_000);
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            if directions & 1 != 0 {
                self.network.cut(host, other);
            }
            if directions & 2 != 0 {
                self.network.cut(other, host);
            }
            self.ends(until, until, Fault::Mend(host, other));
            self.ends(until, until, Fault::Mend(other, host));
        }
    }
}
