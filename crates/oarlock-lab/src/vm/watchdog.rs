//! The hardware watchdog on a real cluster: a server on which agent and sentinel stand still is reset before
//! another starts what it ran, and no other machine is ever reset.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::check::until;
use super::lab::{Lab, Shape};
use crate::host::Host;
use crate::selfcheck::timed;

/// Servers and witness.
const SHAPE: Shape = Shape { machines: 3, memory_mib: 256, data_mib: 8 };
/// For commands that answer at once on a machine that is emulated.
const QUICK: Duration = Duration::from_secs(30);
const SLOW: Duration = Duration::from_secs(60);
/// Makes the cluster's first node: times that emulated machines keep, and a service that notes when it begins. The stop
/// budget is the least one without a warning.
const INIT: &str = include_str!("../../assets/vm-watchdog-init.sh");
/// The watchdog's timeout that follows from the lease of 8 s: with shorter ones, machines emulated beside compilers
/// were reset because they stood still for that long indeed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Whether the hardware counts.
const ACTIVE: &str = "cat /sys/class/watchdog/watchdog0/state";
const AGENTS: &str = "^/usr/sbin/oarlock agent";

/// Runs it in machines of its own and prints one line per step.
pub(super) fn run(lab: &Lab) -> Result<()> {
    if lab.status()?.is_some() {
        bail!("the case needs machines of its own\nhint: cargo xtask lab vm down");
    }
    let checked = case(lab);
    if checked.is_err() {
        evidence(lab);
    }
    timed("machines down", || lab.down())?;
    checked
}

/// What the servers have to say about a failure.
fn evidence(lab: &Lab) {
    for name in ["server1", "server2"] {
        let script = "oarlock status; tail -n 40 /var/log/oarlock.log; tail -n 40 /run/oarlock/sentinel.log";
        let said = lab.host(name).and_then(|host| host.exec(&["sh", "-c", script], SLOW));
        let said = said.map_or_else(|error| format!("{error:#}"), |said| said.stdout + &said.stderr);
        println!("{name}:\n  {}", said.trim().replace('\n', "\n  "));
    }
}

fn case(lab: &Lab) -> Result<()> {
    let mut owner = String::new();
    timed("three machines up", || lab.up(SHAPE).map(drop))?;
    timed("a cluster with a service and watchdogs", || {
        owner = cluster(lab)?;
        Ok(())
    })?;
    let other = if owner == "server1" { "server2" } else { "server1" };
    timed("the owner's watchdog counts, the other's does not", || {
        ensure!(active(lab, &owner)? && !active(lab, other)?, "{}: {}", owner, active(lab, &owner)?);
        Ok(())
    })?;
    timed("kill -9 of the sentinel resets nothing", || {
        kill_sentinel(&lab.host(&owner)?)?;
        stays(lab, &owner)?;
        // On a machine as slow as this the lease may have lapsed meanwhile, and the service be elsewhere.
        if !active(lab, &owner)? {
            println!("      the service left {owner}");
            owner = other.to_owned();
        }
        ensure!(active(lab, &owner)?, "no watchdog counts");
        Ok(())
    })?;
    let other = if owner == "server1" { "server2" } else { "server1" };
    timed("agent and sentinel stopped: reset before the other starts", || freeze(lab, &owner, other))?;
    timed("powered on again, it owns nothing and is not reset", || {
        lab.poweron(&[&owner])?;
        until("the owner's return", || {
            let status = lab.host(other)?.run(&["oarlock", "status"], QUICK)?;
            Ok(!status.contains("OFFLINE"))
        })?;
        stays(lab, &owner)?;
        ensure!(!active(lab, &owner)? && active(lab, other)?, "the wrong watchdog counts");
        Ok(())
    })
}

/// Makes the cluster; the name of its owner.
fn cluster(lab: &Lab) -> Result<String> {
    let servers = [lab.host("server1")?, lab.host("server2")?];
    let token = servers[0].run(&["sh", "-c", INIT, "vm-watchdog-init"], SLOW)?;
    let token = token.lines().last().context("init printed no token")?.trim().to_owned();
    start_agent(&servers[0])?;
    for host in [&servers[1], &lab.host("frontend")?] {
        host.run(&["oarlock", "join", &token, "--deadline-s", "40"], SLOW)?;
        start_agent(host)?;
    }
    let marked = |host: &Host| Ok::<_, anyhow::Error>(host.exec(&["test", "-s", "/run/mark"], QUICK)?.status.success());
    let mut owner = None;
    until("start of the service", || {
        for host in &servers {
            if marked(host)? {
                owner = Some(host.name().to_owned());
            }
        }
        Ok(owner.is_some())
    })?;
    until("watchdogs in the status", || {
        let status = servers[0].run(&["oarlock", "status", "--json"], QUICK)?;
        Ok(status.matches("\"watchdog\":true").count() == 2 && status.matches("\"state\":\"online\"").count() == 3)
    })?;
    owner.context("no owner")
}

/// Starts the agent as a boot does; an emulated machine takes its time.
fn start_agent(host: &Host) -> Result<()> {
    host.run(&["lab-agent", "start"], SLOW).map(drop)
}

fn active(lab: &Lab, name: &str) -> Result<bool> {
    Ok(lab.host(name)?.run(&["sh", "-c", ACTIVE], QUICK)? == "active")
}

/// The machine goes on for longer than its watchdog would bear.
fn stays(lab: &Lab, name: &str) -> Result<()> {
    match lab.await_end(name, TIMEOUT + Duration::from_secs(3)) {
        Ok(after) => bail!("{name} was reset after {} ms", after.as_millis()),
        Err(_) => lab.host(name).map(drop),
    }
}

/// The sentinel is the older one of the two: the agent is its child.
fn kill_sentinel(host: &Host) -> Result<()> {
    let pids = host.pids(AGENTS)?;
    let sentinel = pids.first().filter(|_| pids.len() == 2).with_context(|| format!("not two processes: {pids:?}"))?;
    host.signal(*sentinel, "KILL")
}

fn freeze(lab: &Lab, owner: &str, other: &str) -> Result<()> {
    let (host, next) = (lab.host(owner)?, lab.host(other)?);
    ensure!(!next.exec(&["test", "-e", "/run/mark"], QUICK)?.status.success(), "the service ran on {other} already");
    let (ahead, doubt) = clock_of(&next)?;
    let pids: Vec<String> = host.pids(AGENTS)?.iter().map(ToString::to_string).collect();
    // A third waits for the lock since the sentinel was killed.
    ensure!(pids.len() >= 2, "not two processes: {pids:?}");
    host.run(&["sh", "-c", &format!("kill -STOP {}", pids.join(" "))], QUICK)?;
    let stopped = now_s()?;
    lab.await_end(owner, SLOW)?;
    let reset = now_s()? - stopped;
    until("start of the service elsewhere", || Ok(next.exec(&["test", "-s", "/run/mark"], QUICK)?.status.success()))?;
    let began: f64 = next.run(&["cat", "/run/mark"], QUICK)?.trim().parse().context("a mark that is no time")?;
    let began = began - ahead - stopped;
    println!(
        "      reset {reset:.2} s after the stop, the service started elsewhere after {began:.2} s (+-{doubt:.2} s)"
    );
    ensure!(reset + doubt < began, "the service was started before the reset");
    Ok(())
}

/// How far the machine's clock is ahead of ours, and how sure that is, in seconds.
fn clock_of(host: &Host) -> Result<(f64, f64)> {
    let mut best = (0.0, f64::MAX);
    for _ in 0..5 {
        let before = now_s()?;
        let there: f64 = host.run(&["date", "+%s.%N"], QUICK)?.trim().parse().context("a date that is no time")?;
        let after = now_s()?;
        let doubt = (after - before) / 2.0;
        if doubt < best.1 {
            best = (there - (before + after) / 2.0, doubt);
        }
    }
    Ok(best)
}

fn now_s() -> Result<f64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("a clock before 1970")?.as_secs_f64())
}
