//! The lab as a test bed: the product's commands, its processes, and waiting under deadlines.

use super::settings::Failback;
use crate::cluster::ClusterStatus;
use crate::host::Host;
use crate::jobs;
use crate::lab::Lab;
use crate::layout::{Group, Kind, Part};
use crate::net::Cut;
use crate::product;
use crate::state::{Shape, Timing};
use anyhow::{Context, Result, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest time for one command of the product.
const COMMAND: Duration = Duration::from_secs(10);
/// Time between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(100);
/// Where users work, and the witness.
pub const FRONTEND: &str = "frontend";
/// The compute node.
pub const NODE: &str = "node1";

/// A running lab with a cluster in it.
#[derive(Debug)]
pub struct Bed {
    /// The lab itself: power, cables, hosts.
    pub lab: Lab,
    /// How it was asked for.
    pub shape: Shape,
}

impl Bed {
    /// The lab that is up.
    pub fn open() -> Result<Bed> {
        let lab = Lab::open()?;
        let shape = lab.state()?.shape;
        Ok(Bed { lab, shape })
    }

    /// Names of the servers.
    pub fn servers(&self) -> Vec<&'static str> {
        let hosts = self.shape.layout.hosts().iter();
        hosts.filter(|h| h.kind == Kind::Server).map(|h| h.name).collect()
    }

    /// Names of the nodes of the cluster: the servers and the witness, where there is one.
    pub fn voters(&self) -> Vec<&'static str> {
        let hosts = self.shape.layout.hosts().iter();
        hosts.filter(|h| h.kind.in_cluster()).map(|h| h.name).collect()
    }

    /// The group that has a part.
    pub fn group(&self, part: Part) -> Group {
        self.shape.layout.group(part)
    }

    /// Names of the servers that have a copy of the database.
    pub fn database_servers(&self) -> Vec<&'static str> {
        self.group(Part::Database).hosts.to_vec()
    }

    /// The other server of the group that `server` belongs to.
    pub fn peer(&self, server: &str) -> Result<&'static str> {
        let group = self.group_of(server)?;
        let others: Vec<_> = group.hosts.iter().copied().filter(|host| *host != server).collect();
        match others[..] {
            [peer] => Ok(peer),
            _ => bail!("{server} has no single peer among {others:?}"),
        }
    }

    /// The group that a server belongs to.
    pub fn group_of(&self, server: &str) -> Result<Group> {
        let group = self.shape.layout.groups().iter().find(|group| group.hosts.contains(&server));
        group.copied().with_context(|| format!("{server} belongs to no group"))
    }

    /// The lease of the cluster's timing preset, milliseconds.
    pub fn lease_ms(&self) -> f64 {
        match self.shape.timing {
            Timing::Fast => 250.0,
            Timing::Balanced => 1_000.0,
        }
    }

    /// The settings that figures are published under.
    pub fn variant(&self) -> String {
        let disks = if self.shape.disks { ", disks of their own" } else { "" };
        format!("{} servers, {:?}, {}{disks}", self.shape.layout, self.shape.db, self.shape.timing).to_lowercase()
    }

    /// A powered host.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.lab.host(name)
    }

    /// Runs a shell command in a host and returns its output; an error unless it succeeds.
    pub fn shell(&self, host: &str, script: &str, deadline: Duration) -> Result<String> {
        self.host(host)?.run(&["sh", "-c", script], deadline)
    }

    /// Runs a command of the product in a host; an error unless it succeeds. What is asked where there is no
    /// agent, some server with a quorum answers.
    pub fn request(&self, host: &str, args: &[&str]) -> Result<String> {
        let host = if self.voters().contains(&host) { self.host(host)? } else { self.with_quorum()? };
        product::oarlock(&host, args, COMMAND)
    }

    fn with_quorum(&self) -> Result<Host> {
        let hosts = self.voters().into_iter().filter_map(|name| self.host(name).ok());
        let mut able = hosts.filter(|host| product::status_on(host).is_ok_and(|status| status.quorum));
        able.next().context("no node has a quorum")
    }

    /// The cluster as a node with quorum sees it, else as any node that answers.
    pub fn cluster(&self) -> Result<ClusterStatus> {
        product::status(&self.lab)
    }

    /// The present owner of the group that has a part.
    pub fn owner(&self, part: Part) -> Result<String> {
        let (cluster, name) = (self.cluster()?, self.group(part).name);
        cluster.owner_of(name).map(str::to_owned).with_context(|| format!("the group {name} has no owner"))
    }

    /// Looks again and again until `found` gives something; else an error with its last words.
    pub fn until<T>(&self, what: &str, deadline: Duration, mut found: impl FnMut() -> Result<T>) -> Result<T> {
        let end = Instant::now() + deadline;
        loop {
            match found() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() >= end => {
                    return Err(error.context(format!("not within {} s: {what}", deadline.as_secs_f64())));
                }
                Err(_) => sleep(LOOK),
            }
        }
    }

    /// Waits until the cluster has its full redundancy.
    pub fn until_whole(&self, deadline: Duration) -> Result<ClusterStatus> {
        product::wait_redundant(&self.lab, deadline).context("no full redundancy")
    }

    /// Waits until the group with `part` is started at a node that `wanted` accepts, and returns its name.
    pub fn until_owner(
        &self,
        part: Part,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        self.until(what, deadline, || {
            let cluster = self.cluster()?;
            let group = cluster.named(self.group(part).name).context("no group")?;
            match &group.owner {
                Some(owner) if group.state == "started" && wanted(owner) => Ok(owner.clone()),
                owner => bail!("{} is {} at {owner:?}", group.name, group.state),
            }
        })
    }

    /// Undoes what an earlier case may have left: power, cables, disks, stopped agents, standby, failback. This
    /// is the precondition of the next case, never a part of one.
    pub fn restore(&self, deadline: Duration) -> Result<ClusterStatus> {
        let hosts: Vec<&str> = self.shape.layout.hosts().iter().map(|h| h.name).collect();
        for host in &hosts {
            self.lab.heal(host, &Cut::default())?;
        }
        self.lab.poweron(&hosts)?;
        self.lab.relieve_all()?;
        for host in self.voters() {
            product::start_agent(&self.host(host)?)?;
        }
        if let Ok(cluster) = self.cluster() {
            for node in cluster.nodes.iter().filter(|n| n.state == "standby") {
                self.request(FRONTEND, &["online", &node.name])?;
            }
        }
        self.until_whole(deadline)?;
        for group in self.shape.layout.groups() {
            self.set_failback(group.name, Failback::Never)?;
        }
        jobs::clear(&self.host(FRONTEND)?, deadline)?;
        // A node that OAR suspects for what a case did to it runs no job of the next.
        let alive = format!("! oarnodes | grep -q Suspected || oarnodesetting -h {NODE} -s Alive");
        self.shell(&self.owner(Part::Oar)?, &alive, COMMAND)?;
        self.until_whole(deadline)
    }
}
