//! What goes wrong, when and for how long: each seed draws which faults are on and how often.

use crate::rng::Rng;
use crate::shrink::LeftOut;
use crate::world::{What, World};
use oarlock_core::Event;
use oarlock_core::config::{Failback, Kind, Timing};
use oarlock_core::ids::ResourceId;
use oarlock_core::request::Request;

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

/// Kinds of fault, for the draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A host loses its power.
    PowerOff,
    /// Two hosts lose their power, long enough for the voters to go on without them.
    LongOff,
    /// Every host loses its power.
    AllOff,
    /// kill -9 of the agent.
    AgentKill,
    /// kill -9 of the sentinel.
    SentinelKill,
    /// SIGSTOP of the sentinel.
    SentinelStop,
    /// kill -9 of agent and sentinel in one instant.
    BothKill,
    /// The agent starts anew under a grace, once or several times in a row.
    Restart,
    /// The sentinel is told to end, and another is started later.
    Leave,
    /// SIGSTOP of the agent.
    Freeze,
    /// The whole machine stands still.
    Pause,
    /// A host is cut off, in one or both directions.
    CutHost,
    /// One direction between two hosts is cut.
    CutPair,
    /// The databases cannot talk.
    CutReplication,
    /// Loss, duplication, delay.
    Flaky,
    /// kill -9 of the database.
    DatabaseKill,
    /// The database does nothing.
    DatabaseFreeze,
    /// kill -9 of the service.
    ServiceKill,
    /// The service cannot be started for a while.
    ServiceBreak,
    /// The address's link is down.
    LinkDown,
    /// A link comes and goes, many times.
    Flap,
    /// A machine does everything a hundred times slower: it is neither dead nor well.
    Gray,
    /// A machine's clock jumps ahead.
    ClockStep,
    /// The disk is slow.
    SlowDisk,
    /// The state cannot be saved.
    SaveFails,
    /// Both slots of the state are damaged.
    Torn,
    /// The administrator has a node's memory given up.
    Replace,
    /// The administrator has another configuration applied: times, failback, preferences.
    Configure,
    /// The administrator moves a group.
    Move,
    /// The administrator takes a node out of service, or back.
    Standby,
    /// The administrator turns maintenance on or off.
    Maintenance,
}

/// All of them with the weight they may have.
pub const SORTS: &[(Sort, u64)] = &[
    (Sort::PowerOff, 4),
    (Sort::LongOff, 2),
    (Sort::AllOff, 1),
    (Sort::AgentKill, 4),
    (Sort::SentinelKill, 4),
    (Sort::SentinelStop, 2),
    (Sort::BothKill, 2),
    (Sort::Restart, 3),
    (Sort::Leave, 2),
    (Sort::Freeze, 4),
    (Sort::Pause, 2),
    (Sort::CutHost, 4),
    (Sort::CutPair, 4),
    (Sort::CutReplication, 3),
    (Sort::Flaky, 3),
    (Sort::DatabaseKill, 4),
    (Sort::DatabaseFreeze, 2),
    (Sort::ServiceKill, 3),
    (Sort::ServiceBreak, 2),
    (Sort::LinkDown, 2),
    (Sort::Flap, 2),
    (Sort::Gray, 2),
    (Sort::ClockStep, 3),
    (Sort::SlowDisk, 2),
    (Sort::SaveFails, 1),
    (Sort::Torn, 2),
    (Sort::Replace, 1),
    (Sort::Configure, 2),
    (Sort::Move, 3),
    (Sort::Standby, 2),
    (Sort::Maintenance, 1),
];

impl std::fmt::Display for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.sorts.iter().map(|(_, weight)| weight).sum::<u64>().max(1);
        writeln!(
            f,
            "  fault               share   (one each {} ms on average)",
            self.pause_us.midpoint(20_000) / 1000
        )?;
        for (sort, _) in SORTS {
            match self.sorts.iter().find(|(known, _)| known == sort) {
                Some((_, weight)) => writeln!(f, "  {:<18} {:>4} %", format!("{sort:?}"), weight * 100 / total)?,
                None => writeln!(f, "  {:<18}    off", format!("{sort:?}"))?,
            }
        }
        Ok(())
    }
}

/// Which faults a seed has, and how often they come.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    /// Kinds and weights.
    pub sorts: Vec<(Sort, u64)>,
    /// Longest pause between two, in microseconds.
    pub pause_us: u64,
    /// Each fault's own randomness comes from it and from the fault's number.
    pub seed: u64,
    /// How many there were.
    pub struck: u32,
    /// Those that are left out.
    pub left_out: LeftOut,
    /// Whether to list them.
    pub listing: bool,
    /// What struck when and where.
    pub list: Vec<String>,
}

impl Swarm {
    /// Draws one: each kind is on with probability one half.
    pub fn draw(rng: &mut crate::rng::Rng) -> Swarm {
        let mut sorts: Vec<(Sort, u64)> = Vec::new();
        for (sort, weight) in SORTS {
            // Clocks that are wrong excuse the rules that rest on clocks: seldom.
            if rng.chance(if *sort == Sort::ClockStep { 30 } else { 450 }) {
                sorts.push((*sort, weight * rng.within(1, 4)));
            }
        }
        if sorts.is_empty() {
            sorts.push((Sort::PowerOff, 1));
        }
        Swarm { sorts, pause_us: rng.within(300_000, 4_000_000), seed: rng.draw(), ..Swarm::default() }
    }

    /// Whether clocks may jump.
    #[must_use]
    pub fn steps_clocks(&self) -> bool {
        self.sorts.iter().any(|(sort, _)| *sort == Sort::ClockStep)
    }

    /// Whether the configuration may change.
    #[must_use]
    pub fn configures(&self) -> bool {
        self.sorts.iter().any(|(sort, _)| *sort == Sort::Configure)
    }

    /// Whether a sentinel may die in the middle of what it does.
    #[must_use]
    pub fn kills_sentinels(&self) -> bool {
        let deadly = [Sort::SentinelKill, Sort::SentinelStop, Sort::BothKill];
        self.sorts.iter().any(|(sort, _)| deadly.contains(sort))
    }
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

    fn ends(&mut self, low_us: u64, high_us: u64, fault: Fault) {
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

    /// What neither kills nor cuts off for long.
    fn strike_slowness(&mut self, host: usize, other: usize, sort: Sort) {
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
    fn strike_agent(&mut self, host: usize, sort: Sort) {
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
    fn strike_memory(&mut self, sort: Sort, host: usize, other: usize) {
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

    fn flap(&mut self, host: usize, other: usize, left: u8) {
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
    fn sluggish(&mut self, host: usize, us: u64) {
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

    fn cut_host(&mut self, host: usize) {
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

    fn strike_database(&mut self, host: usize, sort: Sort) {
        let boot = self.hosts[host].boot;
        let Some(resource) = self.hosts[host].databases.keys().next().copied() else { return };
        let now = self.now;
        let Some(server) = self.server(host, resource) else { return };
        let pid = server.pid;
        if sort == Sort::DatabaseKill {
            self.dies(host, boot, resource, pid);
        } else {
            server.frozen_us = Some(now);
            self.ends(200_000, 5_000_000, Fault::ThawDatabase(host, resource, pid));
        }
    }

    fn strike_service(&mut self, host: usize, sort: Sort) {
        if sort == Sort::ServiceBreak {
            self.hosts[host].broken_service = true;
            self.ends(500_000, 6_000_000, Fault::RepairService(host));
        }
        self.kill_services(host);
    }

    /// kill -9 of the services of a host.
    pub fn kill_services(&mut self, host: usize) {
        let boot = self.hosts[host].boot;
        let config = self.config.clone();
        let all = config.groups().flat_map(|(id, group)| group.resources(id).collect::<Vec<_>>());
        for (resource, _) in all.filter(|(_, known)| known.kind == Kind::Service) {
            if let Some(pid) = self.hosts[host].run.program(resource) {
                self.dies(host, boot, resource, pid);
            }
        }
    }

    fn strike_request(&mut self, host: usize, sort: Sort) {
        let groups: Vec<_> = self.config.groups().map(|(id, group)| (id, group.nodes.clone())).collect();
        let nodes: Vec<_> = self.hosts.iter().map(|host| host.id).collect();
        let (on, node) = (self.rng.chance(500), self.rng.pick(&nodes));
        let chosen = self.rng.within(0, groups.len() as u64 - 1) as usize;
        let (group, members) = &groups[chosen];
        let (Some(node), Some(to)) = (node, self.rng.pick(members)) else { return };
        let request = match sort {
            Sort::Move => Request::Move { group: *group, to },
            Sort::Standby => Request::Standby { node, on },
            _ => Request::Maintenance { on },
        };
        self.request(host, request);
    }

    /// Another configuration on top of the running one, as far as a running cluster takes it.
    fn configure(&mut self, host: usize) {
        let mut config = self.checks.truth.config.as_ref().clone();
        config.generation += 1;
        config.text = format!("simulated {}", self.number()).into();
        let timings = [Timing::FAST, Timing::BALANCED, Timing::RELAXED];
        config.timing = self.rng.pick(&timings).unwrap_or(config.timing);
        for group in &mut config.groups {
            group.failback = if self.rng.chance(300) { Failback::Auto } else { Failback::Never };
            if self.rng.chance(300) {
                group.nodes.reverse();
            }
        }
        self.request(host, Request::Apply { config: Box::new(config) });
    }

    /// Somebody asks a node for something.
    pub fn request(&mut self, host: usize, request: Request) {
        let (id, life) = (self.number(), self.hosts[host].agent_life);
        self.tell(host, life, Event::Requested { id, request });
    }
}
