//! The state of the cluster as `oarlock status --json` prints it. Stable: fields are added, never
//! changed or removed, under one value of `schema`.

use serde::{Deserialize, Serialize};

/// Value of `schema`.
pub const SCHEMA: u32 = 1;

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of this form.
    pub schema: u32,
    /// Cluster name.
    pub cluster: String,
    /// True while a majority of the voters is heard.
    pub quorum: bool,
    /// Name of the node that leads the log, if known; being leader grants nothing.
    pub leader: Option<String>,
    /// Generation of the running configuration.
    pub generation: u64,
    /// All nodes.
    pub nodes: Vec<NodeStatus>,
    /// All groups.
    pub groups: Vec<GroupStatus>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: NodeRole,
    /// How it is.
    pub state: NodeState,
    /// Real-time scheduling was granted there.
    pub realtime: bool,
    /// Its links as the answering node sees them.
    pub links: Vec<LinkStatus>,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// Votes and may run groups.
    Server,
    /// Votes and remembers.
    Witness,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Heard.
    Online,
    /// Not heard.
    Offline,
    /// Taken out of service on request.
    Standby,
    /// The cluster is told to leave everything as it is.
    Maintenance,
}

/// One link of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its address.
    pub address: String,
    /// Datagrams come in over it.
    pub up: bool,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: GroupState,
    /// Name of its owner.
    pub owner: Option<String>,
    /// Counts owners.
    pub epoch: u64,
    /// Why it is so, when there is something to say.
    pub reason: Option<String>,
    /// Its resources, in start order.
    pub resources: Vec<ResourceStatus>,
}

/// How a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// All of it runs.
    Started,
    /// On its way up.
    Starting,
    /// On its way down.
    Stopping,
    /// Not running, on purpose.
    Stopped,
    /// Not running, and something is in the way.
    Blocked,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// `address`, `postgresql` or `service`.
    pub kind: String,
    /// One word.
    pub state: String,
    /// Failures that still count.
    pub failures: u32,
    /// Each node's part in it.
    pub members: Vec<MemberStatus>,
}

/// A node's part in a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The node.
    pub node: String,
    /// Its part.
    pub role: MemberRole,
    /// One word.
    pub state: String,
    /// Its copy holds every acknowledged write.
    pub in_sync: bool,
    /// How far its copy is behind, in bytes, where that is known.
    pub lag_bytes: Option<u64>,
}

/// What a node is to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It serves.
    Primary,
    /// It follows.
    Standby,
    /// Neither.
    None,
}
