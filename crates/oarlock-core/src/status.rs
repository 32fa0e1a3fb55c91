//! The cluster as one node sees it: `oarlock status --json` (schema 1, stable).

use serde::{Deserialize, Serialize};

/// The whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this form: 1.
    pub schema: u32,
    /// Cluster name.
    pub cluster: String,
    /// Whether this node's lease holds, that is, a majority answers.
    pub quorum: bool,
    /// Who plans, as far as known.
    pub leader: Option<String>,
    /// Generation of the running configuration.
    pub generation: u64,
    /// All nodes.
    pub nodes: Vec<NodeStatus>,
    /// All groups.
    pub groups: Vec<GroupStatus>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `server` or `witness`.
    pub role: String,
    /// `online`, `offline`, `standby` or `maintenance`.
    pub state: String,
    /// Whether agent and sentinel were granted real-time scheduling.
    pub realtime: bool,
    /// Whether a hardware watchdog resets it should agent and sentinel stand still while something exclusive is there.
    #[serde(default)]
    pub watchdog: bool,
    /// Its links.
    pub links: Vec<LinkStatus>,
}

/// A link of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its address.
    pub address: String,
    /// Whether datagrams come in over it.
    pub up: bool,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `started`, `starting`, `stopping`, `stopped` or `blocked`.
    pub state: String,
    /// Who runs it.
    pub owner: Option<String>,
    /// Counts owners.
    pub epoch: u64,
    /// Why it is where it is, or why it is nowhere.
    pub reason: Option<String>,
    /// Its resources, in start order.
    pub resources: Vec<ResourceStatus>,
}

/// A resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// `address`, `postgresql`, `mariadb` or `service`.
    pub kind: String,
    /// One word: as the owner reports it.
    pub state: String,
    /// Failures on the owner within the counting time.
    pub failures: u32,
    /// One per node of the group.
    pub members: Vec<MemberStatus>,
}

/// A resource on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The node.
    pub node: String,
    /// `primary`, `standby` or `none`.
    pub role: String,
    /// One word.
    pub state: String,
    /// Whether its copy holds every acknowledged write.
    pub in_sync: bool,
    /// Bytes it is behind the owner, where known.
    pub lag_bytes: Option<u64>,
    /// Transactions it is behind, of engines that count those instead of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_transactions: Option<u64>,
}
