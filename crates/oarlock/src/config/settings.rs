//! The checked configuration: plain values that need no further doubt.

use super::problem::Problem;
use super::watchdog::WatchdogSettings;
use crate::keys::PublicKey;
use oarlock_core::config::{Config, Failback, GroupConfig, Kind, NodeConfig, ResourceConfig, Timing};
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A whole configuration file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Cluster name.
    pub cluster: String,
    /// UDP port of every link.
    pub port: u16,
    /// Which preset the times came from, before overrides.
    pub preset: Preset,
    /// The times themselves, overrides included.
    pub timing: Timing,
    /// Who decides when votes alone cannot.
    pub arbitration: Arbitration,
    /// The hardware watchdog that every server has, if they have one.
    pub watchdog: Option<WatchdogSettings>,
    /// All nodes, in the order of the file.
    pub nodes: Vec<NodeSettings>,
    /// All groups; the position is the core's `GroupId`.
    pub groups: Vec<GroupSettings>,
    /// The text it was read from.
    pub text: Arc<str>,
    /// What the administrator should know although the configuration can be used.
    pub warnings: Vec<Problem>,
}

/// A named set of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// For a quiet LAN.
    Fast,
    /// The default.
    Balanced,
    /// For WAN links and overloaded machines.
    Relaxed,
}

impl Preset {
    /// As written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Fast => "fast",
            Preset::Balanced => "balanced",
            Preset::Relaxed => "relaxed",
        }
    }

    /// Its times.
    pub fn timing(self) -> Timing {
        match self {
            Preset::Fast => Timing::FAST,
            Preset::Balanced => Timing::BALANCED,
            Preset::Relaxed => Timing::RELAXED,
        }
    }
}

/// Who decides that a node may be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbitration {
    /// A majority of the voters.
    Quorum,
    /// A confirmed fence of the other of two servers; by hand where there is no device.
    Fencing,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Its number, 1 to 255.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// One address per link, at least one.
    pub links: Vec<IpAddr>,
    /// Its public X25519 key.
    pub key: PublicKey,
    /// True for a witness.
    pub witness: bool,
}

/// Resources that live on one node together.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSettings {
    /// Its name.
    pub name: String,
    /// Nodes that may own it, most preferred first; none is a witness.
    pub nodes: Vec<NodeId>,
    /// Whether it returns to a more preferred node by itself.
    pub failback: Failback,
    /// Groups that must be up before its services are started.
    pub depends: Vec<GroupId>,
    /// In start order, at least one; the position is the `index` of the core's `ResourceId`.
    pub resources: Vec<ResourceSettings>,
}

impl GroupSettings {
    /// Whether one of its resources is a database.
    pub fn has_database(&self) -> bool {
        self.resources.iter().any(|resource| resource.kind.core().is_database())
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSettings {
    /// Its name, unique in its group.
    pub name: String,
    /// What it is and how it is run.
    pub kind: ResourceKind,
}

/// What a resource is and how it is run.
#[derive(Clone, Debug, PartialEq)]
pub enum ResourceKind {
    /// A service address.
    Address(AddressSettings),
    /// A PostgreSQL server.
    Postgresql(PostgresqlSettings),
    /// A MariaDB server.
    Mariadb(MariadbSettings),
    /// A supervised program.
    Service(ServiceSettings),
}

impl ResourceKind {
    /// As the core calls it.
    pub fn core(&self) -> Kind {
        match self {
            ResourceKind::Address(AddressSettings { follows_standby: true, .. }) => Kind::ReaderAddress,
            ResourceKind::Address(_) => Kind::Address,
            ResourceKind::Postgresql(_) => Kind::Postgresql,
            ResourceKind::Mariadb(_) => Kind::Mariadb,
            ResourceKind::Service(_) => Kind::Service,
        }
    }

    /// As written in the file.
    pub fn name(&self) -> &'static str {
        match self {
            ResourceKind::Address(_) => "address",
            ResourceKind::Postgresql(_) => "postgresql",
            ResourceKind::Mariadb(_) => "mariadb",
            ResourceKind::Service(_) => "service",
        }
    }

    /// Its directory of data and the TCP ports it takes on its node, with the keys that say so; `None`
    /// when it is no database.
    pub fn database_places(&self) -> Option<(&Path, Vec<(&'static str, u16)>)> {
        match self {
            ResourceKind::Postgresql(database) => Some((&database.data_dir, vec![("port", database.port)])),
            ResourceKind::Mariadb(database) => {
                let ports = vec![("port", database.port), ("copy_port", database.copy_port)];
                Some((&database.data_dir, ports))
            }
            ResourceKind::Address(_) | ResourceKind::Service(_) => None,
        }
    }
}

/// A service address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSettings {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix: u8,
    /// Its interface; without it, the one that has an address of the same network.
    pub interface: Option<String>,
    /// On an in-sync standby instead of the owner.
    pub follows_standby: bool,
}

/// A PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresqlSettings {
    /// Major version.
    pub version: u16,
    /// Data directory, absolute.
    pub data_dir: PathBuf,
    /// TCP port clients use.
    pub port: u16,
    /// As in postgresql.conf.
    pub listen_addresses: String,
    /// Where its programs are; found by the version otherwise.
    pub bin_dir: Option<PathBuf>,
    /// The administrator's settings; found otherwise.
    pub config_file: Option<PathBuf>,
    /// The administrator's access rules; found otherwise.
    pub hba_file: Option<PathBuf>,
    /// System user the server runs as.
    pub user: String,
    /// How much of the histories set aside is kept, in bytes.
    pub divergent_limit_bytes: u64,
    /// A database that does not answer the deep probe within this is sick.
    pub probe_deadline: Duration,
}

/// A MariaDB server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MariadbSettings {
    /// Version up to the second number.
    pub version: MariadbVersion,
    /// Data directory, absolute.
    pub data_dir: PathBuf,
    /// TCP port clients use.
    pub port: u16,
    /// TCP port on which copies are given away.
    pub copy_port: u16,
    /// As `bind_address` of the server.
    pub listen_addresses: String,
    /// Where its programs are; the distribution's places otherwise.
    pub bin_dir: Option<PathBuf>,
    /// The administrator's settings; found otherwise.
    pub config_file: Option<PathBuf>,
    /// System user the server runs as.
    pub user: String,
    /// How much of the histories set aside is kept, in bytes.
    pub divergent_limit_bytes: u64,
    /// A database that does not answer the deep probe within this is sick.
    pub probe_deadline: Duration,
}

/// A version of MariaDB, up to the second number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MariadbVersion {
    /// The first number.
    pub major: u16,
    /// The second.
    pub minor: u16,
}

impl std::fmt::Display for MariadbVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for MariadbVersion {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<MariadbVersion, Self::Err> {
        let (major, minor) = text.split_once('.').unwrap_or((text, ""));
        Ok(MariadbVersion { major: major.parse()?, minor: minor.parse()? })
    }
}

/// A supervised program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// What knows it, if anything does.
    pub profile: Option<Profile>,
    /// How it is started and stopped.
    pub program: Program,
    /// Configuration of the program, for its profile.
    pub config_file: Option<PathBuf>,
    /// System user it runs as.
    pub user: String,
    /// Variables added to its environment.
    pub environment: Vec<(String, String)>,
    /// Directory it runs in.
    pub working_dir: PathBuf,
    /// How its health is seen beyond "it runs".
    pub check: CheckSettings,
    /// Until its check is good for the first time.
    pub start_timeout: Duration,
    /// Between the request to stop and its killing.
    pub stop_timeout: Duration,
}

/// A program that oarlock knows about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The OAR batch server.
    Oar,
}

/// How a service is started and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// One program that stays in the foreground, with its arguments.
    Command(Vec<String>),
    /// Commands as of an init script.
    Commands {
        /// Starts it and ends.
        start: Vec<String>,
        /// Stops it and ends.
        stop: Vec<String>,
        /// Exits with 0 while it runs.
        status: Vec<String>,
    },
}

/// How the health of a service is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// What is tried, if anything.
    pub kind: Option<CheckKind>,
    /// Time between two checks.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// So many failed checks in a row are a failure.
    pub failures: u32,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Healthy when it exits with 0.
    Command(Vec<String>),
    /// Healthy when a connection to this `host:port` opens.
    Tcp(String),
    /// Healthy when a GET of this URL is answered with 2xx or 3xx.
    Http(String),
    /// Healthy when the query succeeds.
    Sql {
        /// PostgreSQL connection string.
        connection: String,
        /// The query.
        query: String,
    },
}

impl Settings {
    /// What the core needs of it, as the given committed generation.
    pub fn core(&self, generation: u64) -> Config {
        let node = |node: &NodeSettings| NodeConfig { id: node.id, name: node.name.clone(), witness: node.witness };
        let resource =
            |resource: &ResourceSettings| ResourceConfig { name: resource.name.clone(), kind: resource.kind.core() };
        let group = |group: &GroupSettings| GroupConfig {
            name: group.name.clone(),
            nodes: group.nodes.clone(),
            failback: group.failback,
            resources: group.resources.iter().map(resource).collect(),
            depends: group.depends.clone(),
        };
        Config {
            generation,
            text: Arc::clone(&self.text),
            cluster: self.cluster.clone(),
            timing: self.timing,
            nodes: self.nodes.iter().map(node).collect(),
            groups: self.groups.iter().map(group).collect(),
        }
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of this number.
    pub fn node_by_id(&self, id: NodeId) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node whose public key this is: how a machine knows which node it is.
    pub fn node_by_key(&self, key: &PublicKey) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.key == *key)
    }

    /// The number of the group of this name.
    pub fn group_id(&self, name: &str) -> Option<GroupId> {
        let position = self.groups.iter().position(|group| group.name == name)?;
        u8::try_from(position).ok().map(GroupId)
    }

    /// The resource with this number.
    pub fn resource(&self, id: ResourceId) -> Option<&ResourceSettings> {
        self.groups.get(usize::from(id.group.0))?.resources.get(usize::from(id.index))
    }

    /// The resources that answer to `name`: `group/resource`, or `resource` in any group.
    pub fn resource_ids(&self, name: &str) -> Vec<ResourceId> {
        let (wanted_group, wanted) = match name.split_once('/') {
            Some((group, resource)) => (Some(group), resource),
            None => (None, name),
        };
        let mut found = Vec::new();
        for (group_number, group) in (0u8..).zip(&self.groups) {
            if wanted_group.is_some_and(|wanted| wanted != group.name) {
                continue;
            }
            for (index, resource) in (0u8..).zip(&group.resources) {
                if resource.name == wanted {
                    found.push(ResourceId { group: GroupId(group_number), index });
                }
            }
        }
        found
    }

    /// The resources of a node: those of every group it may own, with their numbers.
    pub fn resources_of(&self, node: NodeId) -> impl Iterator<Item = (ResourceId, &ResourceSettings)> {
        (0u8..).map(GroupId).zip(&self.groups).filter(move |(_, group)| group.nodes.contains(&node)).flat_map(
            |(group_id, group)| {
                (0u8..)
                    .zip(&group.resources)
                    .map(move |(index, resource)| (ResourceId { group: group_id, index }, resource))
            },
        )
    }
}
