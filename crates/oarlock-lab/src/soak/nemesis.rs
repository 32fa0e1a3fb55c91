//! What goes wrong in a soak: drawn by a seed, done to the lab, undone.

use crate::disk::{Disk, Trouble};
use crate::matrix::bed::{Bed, FRONTEND};
use crate::matrix::trial::Trial;
use crate::net::{Cut, Direction};
use anyhow::{Context, Result};
use fastrand::Rng;
use std::fmt;
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(15);

/// One kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Its power is off.
    PowerOff,
    /// Its cables, or one, or one direction of them.
    Cut(Cut),
    /// A disk of its own is full or stands still.
    Disk(Disk, Trouble),
    /// The agent stands still.
    FreezeAgent,
    /// The sentinel stands still.
    FreezeSentinel,
    /// Every process of the database stands still.
    FreezeDatabase,
    /// kill -9 of the agent.
    KillAgent,
    /// kill -9 of the sentinel.
    KillSentinel,
    /// kill -9 of the database's main process.
    KillDatabase,
    /// kill -9 of the database, OAR and the agent in one instant.
    KillAll,
    /// The agent is stopped and started in order.
    Restart,
    /// The group is asked to move here.
    Move,
    /// Taken out of service, and put back.
    Standby,
}

/// A fault at a place, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub what: What,
    /// To which host.
    pub host: &'static str,
    /// When it begins, after the beginning of the round.
    pub from: Duration,
    /// When it is undone.
    pub until: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from.as_secs_f64(), self.until.as_secs_f64());
        write!(f, "{} of {} {from:.1}-{until:.1} s", name(&self.what), self.host)
    }
}

fn name(what: &What) -> String {
    let cut = match what {
        What::Cut(cut) => cut,
        What::Disk(disk, trouble) => return format!("{trouble:?} disk ({disk:?})"),
        other => return format!("{other:?}"),
    };
    let mut name = "Cut".to_owned();
    name += &cut.link.map_or_else(String::new, |link| format!(" link {link}"));
    name += match cut.direction {
        Direction::In => " in",
        Direction::Out => " out",
        Direction::Both if cut.keep_carrier => " frames",
        Direction::Both => "",
    };
    name += &cut.peer.as_ref().map_or_else(String::new, |peer| format!(" with {peer}"));
    name + &cut.loss_percent.map_or_else(String::new, |percent| format!(" {percent} %"))
}

/// The faults of one round: pairs that overlap, one pair after the other; with faults of `disks` where the
/// hosts have their own.
pub fn draw(rng: &mut Rng, servers: &[&'static str], disks: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut base_ms = 1_000;
    for _ in 0..rng.u64(1..=2) {
        let mut end_ms = base_ms;
        for _ in 0..2 {
            let from_ms = base_ms + rng.u64(0..3_000);
            // Short ones end while the cluster is busy with them, long ones after it is done.
            let length_ms = if rng.bool() { rng.u64(100..1_500) } else { rng.u64(1_500..12_000) };
            let what = draw_kind(rng, servers, disks);
            let anywhere = !servers_only(&what);
            let host = if anywhere && rng.u8(0..3) == 0 { FRONTEND } else { servers[rng.usize(0..servers.len())] };
            let (from, until) = (Duration::from_millis(from_ms), Duration::from_millis(from_ms + length_ms));
            faults.push(Fault { what, host, from, until });
            end_ms = end_ms.max(from_ms + length_ms);
        }
        base_ms = end_ms + rng.u64(0..8_000);
    }
    faults
}

fn servers_only(what: &What) -> bool {
    of_database(what) || matches!(what, What::Move | What::Standby)
}

/// Whether it happens to a copy of the database.
pub fn of_database(what: &What) -> bool {
    matches!(what, What::FreezeDatabase | What::KillDatabase | What::Disk(Disk::Database, _))
}

fn draw_kind(rng: &mut Rng, servers: &[&'static str], disks: bool) -> What {
    match rng.u8(0..if disks { 22 } else { 17 }) {
        0..=2 => What::PowerOff,
        3..=7 => What::Cut(draw_cut(rng, servers)),
        8 => What::FreezeAgent,
        9 => What::FreezeSentinel,
        10 => What::FreezeDatabase,
        11 => What::KillAgent,
        12 => What::KillSentinel,
        13 => What::KillDatabase,
        14 => What::KillAll,
        15 => What::Restart,
        17 | 18 => What::Disk(Disk::Database, Trouble::Full),
        19 | 20 => What::Disk(Disk::Database, Trouble::Frozen),
        21 => What::Disk(Disk::State, if rng.bool() { Trouble::Full } else { Trouble::Frozen }),
        _ if rng.bool() => What::Move,
        _ => What::Standby,
    }
}

fn draw_cut(rng: &mut Rng, servers: &[&'static str]) -> Cut {
    let plain = Cut { keep_carrier: rng.bool(), ..Cut::default() };
    match rng.u8(0..5) {
        0 => plain,
        1 => Cut { link: Some(rng.u8(1..=2)), ..plain },
        2 => Cut { direction: if rng.bool() { Direction::In } else { Direction::Out }, keep_carrier: true, ..plain },
        3 => Cut { loss_percent: Some(rng.u8(5..60)), keep_carrier: true, ..plain },
        _ => Cut { peer: Some(servers[rng.usize(0..servers.len())].to_owned()), keep_carrier: true, ..plain },
    }
}

impl Fault {
    /// Does it. What cannot be done (the host is off, the process is gone) is an error and no failure.
    pub fn begin(&self, trial: &mut Trial<'_>) -> Result<()> {
        let (bed, host) = (trial.bed, self.host);
        match &self.what {
            What::PowerOff => return trial.power_off(&[host]),
            What::Cut(cut) if cut.peer.as_deref() == Some(host) => return Ok(()),
            What::Cut(cut) => {
                trial.mark(self.to_string());
                return bed.lab.cut(host, cut);
            }
            _ => trial.mark(self.to_string()),
        }
        match &self.what {
            What::PowerOff | What::Cut(_) => Ok(()),
            What::Disk(disk, trouble) => bed.lab.trouble(host, *disk, *trouble),
            What::FreezeAgent => bed.host(host)?.signal(bed.agent_and_sentinel(host)?.0, "STOP"),
            What::FreezeSentinel => bed.host(host)?.signal(bed.agent_and_sentinel(host)?.1, "STOP"),
            What::FreezeDatabase => database(bed, host, "STOP"),
            What::KillAgent => bed.host(host)?.signal(bed.agent_and_sentinel(host)?.0, "KILL"),
            What::KillSentinel => bed.host(host)?.signal(bed.agent_and_sentinel(host)?.1, "KILL"),
            What::KillDatabase => bed.host(host)?.signal(bed.postmaster(host)?, "KILL"),
            What::KillAll => kill_all(bed, host),
            What::Restart => bed.shell(host, "lab-agent stop && lab-agent start", COMMAND).map(drop),
            What::Move => bed.request(FRONTEND, &["move", bed.group_of(host)?.name, host]).map(drop),
            What::Standby => bed.request(FRONTEND, &["standby", host]).map(drop),
        }
    }

    /// Undoes it; what ended by itself is left alone.
    pub fn end(&self, trial: &mut Trial<'_>) -> Result<()> {
        let (bed, host) = (trial.bed, self.host);
        match &self.what {
            What::PowerOff => trial.power_on(&[host]),
            What::Cut(cut) => bed.lab.heal(host, cut),
            What::Disk(disk, trouble) => bed.lab.relieve(host, *disk, *trouble),
            What::FreezeAgent | What::FreezeSentinel => bed
                .shell(host, "for p in $(ps -eo pid=,comm= | sed -n 's/ oarlock$//p'); do kill -CONT $p; done", COMMAND)
                .map(drop),
            What::FreezeDatabase => database(bed, host, "CONT"),
            What::Standby => bed.request(FRONTEND, &["online", host]).map(drop),
            _ => Ok(()),
        }
    }
}

/// A signal to the main process of the database and its children.
fn database(bed: &Bed, host: &str, signal: &str) -> Result<()> {
    let main = bed.postmaster(host)?;
    let script = format!("kill -{signal} {main} $(cat /proc/{main}/task/{main}/children)");
    bed.shell(host, &script, COMMAND).map(drop)
}

fn kill_all(bed: &Bed, host: &str) -> Result<()> {
    let agent = bed.agent_and_sentinel(host)?.0;
    let mut pids = vec![agent.to_string()];
    pids.extend(bed.postmaster(host).ok().map(|pid| pid.to_string()));
    pids.extend(bed.almighty(host).ok().map(|pid| pid.to_string()));
    bed.shell(host, &format!("kill -KILL {}", pids.join(" ")), COMMAND).map(drop).context("kill everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_again() {
        let servers = ["server1", "server2"];
        let drawn = |seed| draw(&mut Rng::with_seed(seed), &servers, false);
        assert_eq!(drawn(1), drawn(1));
        assert!((0..200).any(|seed| drawn(seed).len() == 4));
        for fault in (0..200).flat_map(drawn) {
            assert!(fault.until > fault.from);
            assert!(fault.host == FRONTEND || servers.contains(&fault.host));
            assert!(!matches!(fault.what, What::Disk(..)));
        }
    }

    #[test]
    fn every_trouble_of_every_disk_is_drawn_where_there_is_such_a_disk() {
        let drawn = |seed| draw(&mut Rng::with_seed(seed), &["server1", "server2"], true);
        let faults: Vec<Fault> = (0..500).flat_map(drawn).collect();
        for (disk, at) in [(Disk::Database, "server1"), (Disk::State, "server2"), (Disk::State, FRONTEND)] {
            for trouble in [Trouble::Full, Trouble::Frozen] {
                assert!(faults.iter().any(|f| f.what == What::Disk(disk, trouble) && f.host == at));
            }
        }
        let misplaced = |f: &&Fault| matches!(f.what, What::Disk(Disk::Database, _)) && f.host == FRONTEND;
        assert_eq!(faults.iter().find(misplaced), None);
    }
}
