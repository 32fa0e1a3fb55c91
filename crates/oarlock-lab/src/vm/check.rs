//! The machines' check of themselves, without the product: power, cables, and a DRBD takeover by hand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::lab::{Lab, Shape};
use crate::host::Host;
use crate::layout::Spec;
use crate::net::{Cut, Direction};
use crate::selfcheck::timed;

const DRBD: &str = include_str!("../../assets/vm-drbd.sh");
/// For commands that answer at once on a machine that is emulated.
const QUICK: Duration = Duration::from_secs(20);
/// For what needs a peer.
const SLOW: Duration = Duration::from_secs(60);
/// How often something is asked for while it is awaited.
const LOOK: Duration = Duration::from_millis(200);
/// Two machines, as small as DRBD needs them.
const SHAPE: Shape = Shape { machines: 2, memory_mib: 384, data_mib: 32 };
/// What is written, and read after the takeover.
const WRITE: &str = "seq 1 20000 | dd of=/dev/drbd0 bs=64k iflag=fullblock conv=fsync 2>/dev/null";
const READ: &str = "dd if=/dev/drbd0 bs=64k iflag=direct 2>/dev/null | head -c 108894 | sha256sum";
const EXPECT: &str = "seq 1 20000 | sha256sum";

/// Runs every check in machines of its own and prints one line per check.
pub(super) fn run(lab: &Lab) -> Result<()> {
    if lab.status()?.is_some() {
        bail!("the check needs machines of its own\nhint: cargo xtask lab vm down");
    }
    let checked = (|| {
        timed("two machines up", || up(lab))?;
        timed("each reaches the other on both links", || pairs(lab))?;
        timed("commands: input, exit code, signal, deadline", || commands(lab))?;
        timed("cables: carrier, frames, one direction", || cables(lab))?;
        timed("DRBD: created, connected, both up to date", || drbd_up(lab))?;
        timed("DRBD: written on the primary", || drbd_write(lab))?;
        timed("power-off of the primary", || lab.poweroff(&["server1"]))?;
        timed("DRBD: the other is promoted and reads what was written", || drbd_take_over(lab))?;
        timed("power-on: a written file survives, memory does not", || back(lab))?;
        timed("DRBD: the former primary is in step again", || drbd_rejoin(lab))
    })();
    timed("machines down, twice", || lab.down().and_then(|()| lab.down()))?;
    checked?;
    timed("nothing left behind", || {
        let left = lab.leftovers();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

fn up(lab: &Lab) -> Result<()> {
    for (name, took) in lab.up(SHAPE)? {
        println!("      {name} was ready after {} ms", took.as_millis());
    }
    Ok(())
}

fn hosts(lab: &Lab) -> Result<[Host; 2]> {
    Ok([lab.host("server1")?, lab.host("server2")?])
}

fn reaches(from: &Host, to: &Spec, link: u8) -> Result<bool> {
    let address = to.address(link).to_string();
    Ok(from.exec(&["ping", "-n", "-q", "-c1", "-W1", &address], QUICK)?.status.success())
}

fn pairs(lab: &Lab) -> Result<()> {
    let [one, two] = hosts(lab)?;
    for (from, to) in [(&one, &two), (&two, &one)] {
        for link in to.spec().links() {
            ensure!(reaches(from, to.spec(), *link)?, "{} does not reach {} on link {link}", from.name(), to.name());
        }
    }
    Ok(())
}

fn commands(lab: &Lab) -> Result<()> {
    let host = lab.host("server2")?;
    let echoed = host.exec_with_input(&["sh", "-c", "cat; echo no >&2; exit 7"], Some("text"), QUICK)?;
    ensure!(echoed.status.code() == Some(7) && echoed.stdout == "text" && echoed.stderr == "no\n", "{echoed:?}");
    let script = "exec 2>/dev/null; trap 'exit 3' TERM; echo ready >/run/ready; while :; do sleep 0.1; done";
    let mut running = host.spawn(&["sh", "-c", script], std::process::Stdio::null())?;
    until("a spawned command's start", || host.exec(&["test", "-s", "/run/ready"], QUICK).map(|o| o.status.success()))?;
    let status = running.stop(QUICK)?;
    ensure!(status.code() == Some(3), "a spawned command that was told to stop: {status}");
    ensure!(host.exec(&["sleep", "61"], Duration::from_millis(500)).is_err(), "a deadline passed unnoticed");
    until("the end of a command whose deadline is over", || Ok(host.pids("^sleep 61$")?.is_empty()))?;
    ensure!(host.exec(&["/no/such"], QUICK)?.status.code() == Some(125), "a command that there is not was started");
    Ok(())
}

fn cables(lab: &Lab) -> Result<()> {
    let [one, two] = hosts(lab)?;
    let both = Cut { link: Some(1), ..Cut::default() };
    let frames = Cut { keep_carrier: true, ..both.clone() };
    let out = Cut { direction: Direction::Out, ..both.clone() };
    for (cut, carrier) in [(both, "0"), (frames, "1"), (out, "1")] {
        lab.cut("server1", &cut)?;
        let is = one.run(&["cat", "/sys/class/net/eth1/carrier"], QUICK)?;
        ensure!(is == carrier, "{cut:?}: carrier {is} instead of {carrier}");
        ensure!(!reaches(&one, two.spec(), 1)?, "{cut:?}: server2 is reached");
        ensure!(reaches(&one, two.spec(), 2)?, "{cut:?}: the other link is cut too");
        lab.heal("server1", &Cut::default())?;
        until("healed cables", || reaches(&one, two.spec(), 1))?;
    }
    Ok(())
}

fn drbd_up(lab: &Lab) -> Result<()> {
    let hosts = hosts(lab)?;
    for host in &hosts {
        host.run(&["sh", "-c", DRBD, "vm-drbd", "create"], SLOW)?;
    }
    let [one, two] = &hosts;
    let connected = || Ok(drbd(one, "cstate")? == "Connected" && drbd(two, "cstate")? == "Connected");
    until("DRBD's connection", connected)?;
    // Both disks are empty, so they are the same without being compared.
    one.run(&["drbdadm", "new-current-uuid", "--clear-bitmap", "r0/0"], QUICK)?;
    until("disks in step", || in_step(&hosts))
}

fn drbd(host: &Host, what: &str) -> Result<String> {
    host.run(&["drbdadm", what, "r0"], QUICK)
}

fn in_step(hosts: &[Host; 2]) -> Result<bool> {
    let states: Vec<String> = hosts.iter().map(|host| drbd(host, "dstate")).collect::<Result<_>>()?;
    Ok(states.iter().all(|state| state == "UpToDate/UpToDate"))
}

fn drbd_write(lab: &Lab) -> Result<()> {
    let host = lab.host("server1")?;
    drbd(&host, "primary")?;
    host.run(&["sh", "-c", WRITE], SLOW)?;
    host.run(&["sh", "-c", "echo kept >/var/kept && sync /var/kept; echo lost >/run/lost"], QUICK).map(drop)
}

fn drbd_take_over(lab: &Lab) -> Result<()> {
    let host = lab.host("server2")?;
    // Refused until the death of the peer is noticed.
    until("a promotion", || Ok(host.exec(&["drbdadm", "primary", "r0"], QUICK)?.status.success()))?;
    let (found, expected) = (host.run(&["sh", "-c", READ], SLOW)?, host.run(&["sh", "-c", EXPECT], SLOW)?);
    ensure!(found == expected, "read {found}, not {expected}");
    Ok(())
}

fn back(lab: &Lab) -> Result<()> {
    for (name, took) in lab.poweron(&["server1"])? {
        println!("      {name} was ready after {} ms", took.as_millis());
    }
    let found = lab.host("server1")?.exec(&["cat", "/var/kept", "/run/lost"], QUICK)?;
    ensure!(found.stdout == "kept\n", "found {:?}", found.stdout);
    Ok(())
}

fn drbd_rejoin(lab: &Lab) -> Result<()> {
    let hosts = hosts(lab)?;
    hosts[0].run(&["sh", "-c", DRBD, "vm-drbd", "up"], SLOW)?;
    until("disks in step", || in_step(&hosts))?;
    let roles = drbd(&hosts[0], "role")?;
    ensure!(roles == "Secondary/Primary", "roles {roles}");
    Ok(())
}

/// Asks again and again until it is so.
pub(super) fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + SLOW;
    while !so().with_context(|| format!("waiting for {what}"))? {
        ensure!(Instant::now() < end, "no {what} within {} s", SLOW.as_secs());
        std::thread::sleep(LOOK);
    }
    Ok(())
}
