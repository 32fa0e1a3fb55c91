//! What the core needs to know of the configuration. The shell parses and checks the file and
//! gives the core this; paths, addresses and programs stay in the shell.

use crate::ids::{GroupId, NodeId, ResourceId};
use crate::time::Span;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One committed generation of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Counts committed configurations, from 1.
    pub generation: u64,
    /// The text of the file as the administrator wrote it.
    pub text: Arc<str>,
    /// Cluster name.
    pub cluster: String,
    /// Times that every node agrees on.
    pub timing: Timing,
    /// All nodes.
    pub nodes: Vec<NodeConfig>,
    /// All groups; `GroupId` is the position here.
    pub groups: Vec<GroupConfig>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Its number, never used twice.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// True for a node that votes and remembers but runs nothing.
    pub witness: bool,
}

/// Resources that live on one node together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Its name.
    pub name: String,
    /// Nodes that may own it, most preferred first.
    pub nodes: Vec<NodeId>,
    /// Whether it returns to a more preferred node by itself.
    pub failback: Failback,
    /// In start order.
    pub resources: Vec<ResourceConfig>,
    /// Groups that must be up before its services are started; what runs does not need them any more.
    pub depends: Vec<GroupId>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceConfig {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A service address, up where the group runs.
    Address,
    /// An address up on an in-sync standby, on the owner when there is none.
    ReaderAddress,
    /// A PostgreSQL server with one copy per node; at most one database in a group.
    Postgresql,
    /// A supervised program without a data guard.
    Service,
    /// A MariaDB server with one copy on each of two nodes; at most one database in a group.
    Mariadb,
}

impl Kind {
    /// Whether it is a database, of whatever engine: a copy per node, acknowledging and promoting
    /// under the in-sync rule.
    pub fn is_database(self) -> bool {
        matches!(self, Kind::Postgresql | Kind::Mariadb)
    }
}

/// When a group returns to a more preferred node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failback {
    /// Only on request.
    Never,
    /// As soon as that node is fully redundant.
    Auto,
}

/// The times of the protocol; PROTOCOL §4 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// h: how often a node renews its lease.
    pub heartbeat: Span,
    /// L: how long a renewal lasts.
    pub lease: Span,
    /// E: silence of the leader before another is elected.
    pub election: Span,
    /// B: the sentinel's budget for silencing a node.
    pub stop_budget: Span,
    /// d: how far two clocks may drift apart, in thousandths.
    pub drift_permille: u64,
}

impl Timing {
    /// For a quiet LAN: takeover of a dead node in about 0.3 s.
    pub const FAST: Timing = Timing {
        heartbeat: Span::from_ms(20),
        lease: Span::from_ms(250),
        election: Span::from_ms(150),
        stop_budget: Span::from_ms(50),
        drift_permille: 100,
    };
    /// The default.
    pub const BALANCED: Timing = Timing {
        heartbeat: Span::from_ms(80),
        lease: Span::from_ms(1000),
        election: Span::from_ms(500),
        stop_budget: Span::from_ms(100),
        drift_permille: 100,
    };
    /// For WAN links and overloaded machines.
    pub const RELAXED: Timing = Timing {
        heartbeat: Span::from_ms(400),
        lease: Span::from_ms(5000),
        election: Span::from_ms(2500),
        stop_budget: Span::from_ms(200),
        drift_permille: 100,
    };

    /// `span * (1 + d)`: how long another clock must count to be sure that `span` has passed here.
    pub fn with_drift(&self, span: Span) -> Span {
        span.scaled(1000 + self.drift_permille, 1000)
    }
}

impl Config {
    /// The node numbered `id`.
    pub fn node(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The name of a node, or its number where it has none (a node of an older generation).
    pub fn node_name(&self, id: NodeId) -> String {
        self.node(id).map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// The group numbered `id`.
    pub fn group(&self, id: GroupId) -> Option<&GroupConfig> {
        self.groups.get(usize::from(id.0))
    }

    /// The resource numbered `id`.
    pub fn resource(&self, id: ResourceId) -> Option<&ResourceConfig> {
        self.group(id.group)?.resources.get(usize::from(id.index))
    }

    /// All groups with their numbers.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupConfig)> {
        (0u8..).map(GroupId).zip(self.groups.iter())
    }
}

impl GroupConfig {
    /// Its resources with their numbers.
    pub fn resources(&self, group: GroupId) -> impl Iterator<Item = (ResourceId, &ResourceConfig)> {
        (0u8..).map(move |index| ResourceId { group, index }).zip(self.resources.iter())
    }

    /// The resource that holds the group's data, if any.
    pub fn data_resource(&self, group: GroupId) -> Option<ResourceId> {
        self.resources(group).find(|(_, resource)| resource.kind.is_database()).map(|(id, _)| id)
    }
}
