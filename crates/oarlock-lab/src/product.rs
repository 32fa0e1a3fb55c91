//! The product in the lab: its programs, a cluster made with its own commands, and what the
//! cluster says of itself. The only file that knows the product's command line.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub use crate::cluster::{ClusterStatus, GROUP};
use crate::disk::Disk;
use crate::host::Host;
use crate::lab::Lab;
use crate::layout::{Kind, PREFIX_LENGTH, Part, READER_ADDRESS, Spec};
use crate::paths::Paths;
use crate::state::{Engine, Shape};
use anyhow::{Context, Result, bail, ensure};

const DATABASE: &str = include_str!("../assets/database.sh");
const DATABASE_MARIADB: &str = include_str!("../assets/database-mariadb.sh");
/// For a command that only asks.
const QUICK: Duration = Duration::from_secs(5);
/// For a command that starts, clones or creates something.
const SLOW: Duration = Duration::from_secs(60);
/// How often the cluster is asked while something is awaited.
const POLL: Duration = Duration::from_millis(100);

/// Builds the programs that run in the hosts. Cargo shows its progress itself.
pub fn build(lab: &Lab) -> Result<()> {
    build_programs(lab.paths())
}

/// Builds the programs that run in the hosts of a checkout.
pub fn build_programs(paths: &Paths) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // No deadline: how long a compiler takes is the machine's affair, and its user watches it.
    let status = Command::new(cargo)
        .current_dir(&paths.workspace)
        .args(["build", "--release", "--package", "oarlock", "--package", "oarlock-lab"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the release build failed");
    Ok(())
}

/// Whether a cluster has been made in this lab.
#[must_use]
pub fn exists(lab: &Lab) -> bool {
    let Ok(state) = lab.state() else { return false };
    let first = state.shape.layout.hosts().first();
    first.is_some_and(|host| lab.paths().host(host.name).join("upper/etc/oarlock/oarlock.toml").exists())
}

/// Makes a cluster of the lab's servers and its witness, and the databases in it; waits until it
/// is fully redundant. Made already: waits only.
pub fn create(lab: &Lab) -> Result<ClusterStatus> {
    if !exists(lab) {
        let shape = lab.state()?.shape;
        let hosts: Vec<Host> = shape.layout.hosts().iter().map(|h| lab.host(h.name)).collect::<Result<_>>()?;
        let (first, others) = hosts.split_first().context("a layout without hosts")?;
        let arguments = init_arguments(shape);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let token = first.run(&arguments, SLOW)?;
        start_agent(first)?;
        for host in others.iter().filter(|host| host.spec().kind.in_cluster()) {
            host.run(&["oarlock", "join", &token, "--deadline-s", "30"], SLOW)?;
            start_agent(host)?;
        }
    }
    fill_database(lab)?;
    wait_redundant(lab, SLOW)
}

/// `oarlock init …` for the lab.
fn init_arguments(shape: Shape) -> Vec<String> {
    let wired = |host: &Spec| {
        let links: Vec<String> = host.links().iter().map(|link| host.address(*link).to_string()).collect();
        format!("{}={}", host.name, links.join(","))
    };
    let mut arguments = vec!["oarlock".to_owned(), "init".to_owned()];
    let mut push = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    push("--cluster", "lab".to_owned());
    push("--group", shape.layout.group(Part::Oar).name.to_owned());
    push("--timing", shape.timing.to_string());
    let (database, oar) = (shape.layout.group(Part::Database), shape.layout.group(Part::Oar));
    for host in shape.layout.hosts() {
        match host.kind {
            Kind::Server if !oar.hosts.contains(&host.name) => push("--database-node", wired(host)),
            Kind::Server => push("--node", wired(host)),
            Kind::Frontend => push("--witness", wired(host)),
            Kind::User | Kind::Node => {}
        }
    }
    push("--address", format!("{}/{PREFIX_LENGTH}", oar.address));
    if database != oar {
        push("--database-address", format!("{}/{PREFIX_LENGTH}", database.address));
    }
    match shape.db {
        Engine::Postgresql => push("--postgresql", shape.suite.postgresql().to_owned()),
        Engine::Mariadb => push("--mariadb", shape.suite.mariadb().to_owned()),
    }
    if shape.disks {
        // A standby lets readers in where they have an address; the soak asks each server by name too.
        push("--reader-address", format!("{READER_ADDRESS}/{PREFIX_LENGTH}"));
    }
    if shape.disks && shape.db == Engine::Mariadb {
        // Below the disk's place, since copies change places beside the data.
        push("--data-dir", format!("{}/data", Disk::Database.place(shape.db)));
    }
    push("--profile", "oar".to_owned());
    arguments
}

/// Starts the agent on `host` as its boot does.
pub fn start_agent(host: &Host) -> Result<()> {
    host.run(&["lab-agent", "start"], QUICK).map(drop)
}

/// Creates what the lab's clients expect in the database as soon as the owner's accepts writes.
fn fill_database(lab: &Lab) -> Result<()> {
    let script = match lab.state()?.shape.db {
        Engine::Postgresql => DATABASE,
        Engine::Mariadb => DATABASE_MARIADB,
    };
    let end = Instant::now() + SLOW;
    let mut last = anyhow::anyhow!("no owner yet");
    while Instant::now() < end {
        let filled = (|| {
            let status = status(lab)?;
            let owner = lab.host(status.owner().context("no owner yet")?)?;
            owner.run(&["sh", "-c", script, "database"], SLOW)?;
            let nodes = owner.run(&["oarnodes", "-l"], SLOW)?;
            if !nodes.contains("node1") {
                owner.run(&["oarnodesetting", "-a", "-h", "node1", "-p", "cpuset=0"], SLOW)?;
            }
            Ok(())
        })();
        match filled {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
        thread::sleep(POLL);
    }
    Err(last.context("the lab's databases could not be created"))
}

/// What the cluster says of itself: the first answer from a host with quorum, else any answer.
/// The witness is asked first, since most faults are aimed at servers.
pub fn status(lab: &Lab) -> Result<ClusterStatus> {
    let mut last = anyhow::anyhow!("no host of the cluster is powered on");
    let mut cut_off = None;
    let order = |host: &&Spec| u8::from(host.kind != Kind::Frontend);
    let mut hosts: Vec<&Spec> = lab.state()?.shape.layout.hosts().iter().filter(|h| h.kind.in_cluster()).collect();
    hosts.sort_by_key(order);
    for host in hosts {
        match lab.host(host.name).and_then(|host| status_on(&host)) {
            Ok(status) if status.quorum => return Ok(status),
            Ok(status) => cut_off = Some(status),
            Err(error) => last = error,
        }
    }
    cut_off.ok_or(last)
}

/// What the agent on `host` says of the cluster.
pub fn status_on(host: &Host) -> Result<ClusterStatus> {
    let text = host.exec(&["oarlock", "status", "--json"], QUICK)?;
    serde_json::from_str(&text.stdout)
        .with_context(|| format!("{}: oarlock status --json: {}", host.name(), text.stderr.trim()))
}

/// Waits until nothing lacks to full redundancy; an error that says what lacked at the deadline.
pub fn wait_redundant(lab: &Lab, deadline: Duration) -> Result<ClusterStatus> {
    wait_for(lab, deadline, ClusterStatus::lacking)
}

/// Waits until `lacking` finds nothing; an error with what it found at the deadline.
pub fn wait_for(
    lab: &Lab,
    deadline: Duration,
    lacking: impl Fn(&ClusterStatus) -> Option<String>,
) -> Result<ClusterStatus> {
    let end = Instant::now() + deadline;
    loop {
        let found = match status(lab) {
            Ok(status) => match lacking(&status) {
                None => return Ok(status),
                Some(what) => what,
            },
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("after {} s: {found}", deadline.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// Runs an `oarlock` command on `host` and returns its output; an error unless it succeeds.
pub fn oarlock(host: &Host, arguments: &[&str], deadline: Duration) -> Result<String> {
    host.run(&[&["oarlock"], arguments].concat(), deadline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::state::Shape;

    fn init(layout: Layout) -> String {
        init_arguments(Shape { layout, ..Shape::default() }).join(" ")
    }

    #[test]
    fn four_servers_are_two_pairs_with_an_address_each() {
        let four = init(Layout::Four);
        for part in [
            "--node oar1=10.77.1.11,10.77.2.11",
            "--database-node db2=10.77.1.14,10.77.2.14",
            "--witness frontend=10.77.1.21,10.77.2.21",
            "--address 10.77.1.100/24",
            "--database-address 10.77.1.101/24",
            "--group oar",
        ] {
            assert!(four.contains(part), "{part}: {four}");
        }
        assert!(!init(Layout::Two).contains("database"));
        assert_eq!(init(Layout::FourPlain), four.replace("--witness frontend=10.77.1.21,10.77.2.21 ", ""));
    }
}
