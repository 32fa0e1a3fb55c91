//! The lab's check of itself, without the product: power, cables, and a job through a real OAR
//! whose parts were started by hand.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup;
use crate::deadline::check;
use crate::lab::Lab;
use crate::layout::{SERVICE_ADDRESS, Spec};
use crate::net::{Cut, Direction};
use crate::state::{Engine, Shape};

const OAR: &str = include_str!("../assets/selfcheck-oar.sh");
/// For commands that answer at once.
const QUICK: Duration = Duration::from_secs(10);
/// For everything that a job or a database needs.
const SLOW: Duration = Duration::from_secs(90);

/// Runs every check in a lab of its own and prints one line per check.
pub fn run(lab: &Lab, shape: Shape) -> Result<()> {
    ensure!(shape.db == Engine::Postgresql, "the self-check knows PostgreSQL only");
    if lab.status()?.up {
        bail!("the self-check needs a lab of its own\nhint: cargo xtask lab down");
    }
    let before = leftovers(lab)?;
    let checked = (|| {
        timed("hosts up", || lab.up(shape))?;
        timed("every host reaches every other on every link", || all_pairs(lab, shape))?;
        timed("commands: input, exit code, signal, deadline", || commands(lab))?;
        timed("cables: carrier, one direction, one peer", || cables(lab))?;
        timed("power: a written file survives, memory does not", || power(lab))?;
        timed("OAR and PostgreSQL by hand: a job ends Terminated", || oar(lab, shape))
    })();
    timed("lab down, twice", || lab.down().and_then(|()| lab.down()))?;
    checked?;
    timed("nothing left behind", || {
        let after = leftovers(lab)?;
        ensure!(before == after, "before: {before:?}, after: {after:?}");
        Ok(())
    })
}

/// Does one check and prints a line about it.
pub(crate) fn timed(what: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    let done = check();
    let (word, ms) = (if done.is_ok() { "ok  " } else { "FAIL" }, started.elapsed().as_millis());
    println!("{word}  {what} ({ms} ms)");
    done.with_context(|| format!("self-check: {what}"))
}

fn reaches(lab: &Lab, from: &str, to: &Spec, link: u8) -> Result<bool> {
    let address = to.address(link).to_string();
    let ping = ["ping", "-n", "-q", "-c1", "-W0.3", &address];
    Ok(lab.host(from)?.exec(&ping, QUICK)?.status.success())
}

fn spec(shape: Shape, name: &str) -> Result<&'static Spec> {
    shape.layout.host(name).with_context(|| format!("no host {name}"))
}

fn all_pairs(lab: &Lab, shape: Shape) -> Result<()> {
    let hosts = shape.layout.hosts();
    for from in hosts {
        for to in hosts.iter().filter(|to| to.name != from.name) {
            for link in from.links().iter().filter(|link| to.links().contains(link)) {
                ensure!(reaches(lab, from.name, to, *link)?, "{} does not reach {} on link {link}", from.name, to.name);
            }
        }
    }
    Ok(())
}

fn commands(lab: &Lab) -> Result<()> {
    let host = lab.host("node1")?;
    let echoed = host.exec_with_input(&["sh", "-c", "cat; exit 7"], Some("text"), QUICK)?;
    ensure!(echoed.status.code() == Some(7) && echoed.stdout == "text", "{echoed:?}");
    let script = "trap 'exit 3' TERM; echo ready >/run/ready; while :; do sleep 0.01; done";
    let mut running = host.spawn(&["sh", "-c", script], Stdio::null())?;
    let end = Instant::now() + QUICK;
    while !host.exec(&["test", "-s", "/run/ready"], QUICK)?.status.success() {
        ensure!(Instant::now() < end, "a spawned command did not start");
    }
    let status = running.stop(QUICK)?;
    ensure!(status.code() == Some(3), "a spawned command that was told to stop: {status}");
    ensure!(host.exec(&["sleep", "61"], Duration::from_millis(100)).is_err(), "a deadline passed unnoticed");
    ensure!(host.pids("^sleep 61$")?.is_empty(), "a command outlived its deadline");
    Ok(())
}

fn cables(lab: &Lab) -> Result<()> {
    let shape = lab.state()?.shape;
    let (server2, frontend) = (spec(shape, "server2")?, spec(shape, "frontend")?);
    let expect = |cut: &Cut, carrier: &str, passes: bool, to_peer: bool| -> Result<()> {
        lab.cut("server1", cut)?;
        let state = lab.host("server1")?.run(&["cat", "/sys/class/net/eth1/carrier"], QUICK)?;
        ensure!(state == carrier, "{cut:?}: carrier {state} instead of {carrier}");
        ensure!(reaches(lab, "server1", frontend, 1)? == passes, "{cut:?}: frontend");
        ensure!(reaches(lab, "server1", server2, 1)? == to_peer, "{cut:?}: server2");
        lab.heal("server1", &Cut::default())?;
        // The kernel may take a second to notice a carrier that returned.
        let end = Instant::now() + QUICK;
        while !reaches(lab, "server1", frontend, 1)? {
            ensure!(Instant::now() < end, "{cut:?} was not healed");
        }
        Ok(())
    };
    let both = Cut::default();
    expect(&both, "0", false, false)?;
    expect(&Cut { link: Some(2), ..both.clone() }, "1", true, true)?;
    expect(&Cut { keep_carrier: true, ..both.clone() }, "1", false, false)?;
    expect(&Cut { direction: Direction::In, ..both.clone() }, "1", false, false)?;
    expect(&Cut { direction: Direction::Out, ..both.clone() }, "1", false, false)?;
    expect(&Cut { peer: Some("server2".to_owned()), ..both }, "1", true, false)?;
    one_way(lab, Direction::In, 0, 3)?;
    one_way(lab, Direction::Out, 3, 0)
}

/// Counts on both ends what three broadcasts each way (they need no answer, not even ARP's)
/// become when one direction is cut.
fn one_way(lab: &Lab, direction: Direction, received: i64, sent: i64) -> Result<()> {
    let (server1, frontend) = (lab.host("server1")?, lab.host("frontend")?);
    let count = |host: &crate::Host| -> Result<i64> {
        let text = host.run(&["cat", "/proc/net/snmp"], QUICK)?;
        let line = text.lines().filter(|line| line.starts_with("Icmp:")).nth(1).context("no Icmp: counters")?;
        line.split(' ').nth(1).context("no InMsgs")?.parse().context("a counter that is no number")
    };
    lab.cut("server1", &Cut { direction, ..Cut::default() })?;
    let before = (count(&server1)?, count(&frontend)?);
    for host in [&server1, &frontend] {
        host.exec(&["ping", "-b", "-n", "-q", "-c3", "-i0.01", "-W0.3", "10.77.1.255"], QUICK)?;
    }
    // Each also receives its own three, looped back before they reach the cable.
    let got = (count(&server1)? - before.0 - 3, count(&frontend)? - before.1 - 3);
    lab.heal("server1", &Cut::default())?;
    ensure!(got == (received, sent), "{direction:?}: server1 and frontend received {got:?} broadcasts");
    Ok(())
}

fn power(lab: &Lab) -> Result<()> {
    lab.host("server2")?.run(&["sh", "-c", "echo kept >/var/kept; echo lost >/run/lost"], QUICK)?;
    lab.poweroff(&["server2"])?;
    ensure!(lab.host("server2").is_err(), "server2 is still on");
    lab.poweron(&["server2"])?;
    let found = lab.host("server2")?.exec(&["cat", "/var/kept", "/run/lost"], QUICK)?;
    ensure!(found.stdout == "kept\n", "found {:?}", found.stdout);
    let shape = lab.state()?.shape;
    ensure!(reaches(lab, "frontend", spec(shape, "server2")?, 2)?, "server2 came back without link 2");
    Ok(())
}

fn oar(lab: &Lab, shape: Shape) -> Result<()> {
    let address = SERVICE_ADDRESS.to_string();
    let version = shape.suite.postgresql();
    lab.host("server1")?.run(&["sh", "-c", OAR, "selfcheck-oar", version, &address], SLOW)?;
    let frontend = lab.host("frontend")?;
    let said = frontend.run_as("alice", "oarsub 'sleep 1; echo done'", SLOW)?;
    let job = said.lines().find_map(|line| line.strip_prefix("OAR_JOB_ID=")).context("oarsub named no job")?;
    let end = Instant::now() + SLOW;
    loop {
        let state = frontend.run_as("alice", &format!("oarstat --state -j {job}"), SLOW)?;
        if state.ends_with("Terminated") {
            break;
        }
        ensure!(Instant::now() < end && !state.ends_with("Error"), "job {job} is {state}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let output = frontend.run_as("alice", &format!("cat OAR.{job}.stdout"), QUICK)?;
    ensure!(output == "done", "the job wrote {output:?}");
    Ok(())
}

/// What a lab could leave on the machine: control groups, mounts, interfaces, processes.
fn leftovers(lab: &Lab) -> Result<Vec<String>> {
    let id = lab.paths().lab_id();
    let mut found = Vec::new();
    for hierarchy in cgroup::hierarchies()? {
        if hierarchy.mount.join(&id).exists() {
            found.push(format!("control group {} in {}", id, hierarchy.name));
        }
    }
    let run = lab.paths().run.to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/mounts")?;
    found.extend(mounts.lines().filter(|line| line.contains(&run)).map(|line| format!("mount {line}")));
    let links = check(Command::new("ip").args(["-br", "link"]), "cannot list interfaces", QUICK)?;
    found.extend(links.lines().filter_map(|line| line.split(' ').next()).map(|name| format!("interface {name}")));
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(command) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        if command.contains("start-host") && command.contains(&run) {
            found.push(format!("process {}", entry.path().display()));
        }
    }
    found.sort();
    Ok(found)
}
