//! What the agent must know of this resource, taken from the checked configuration.

use crate::agents::postgresql::{PgTiming, ServerUser};
use crate::secrets::ClusterSecrets;
use oarlock_core::ids::NodeId;
use std::net::IpAddr;
use std::path::PathBuf;

/// One copy's surroundings on this node.
#[derive(Clone, Debug)]
pub struct MariaSettings {
    /// Name of the resource, unique on the node: of its cgroup and its run directory.
    pub name: String,
    /// Version up to the second number, for instance `10.11`.
    pub version: String,
    /// The server, `mariadbd`.
    pub server: PathBuf,
    /// Directory of `mariadb-install-db`, `mariadb-backup`, `mbstream`.
    pub tools_dir: PathBuf,
    /// The data directory. Must not be a mount point itself: it is replaced by renaming.
    pub data_dir: PathBuf,
    /// The administrator's own settings, read by the server before ours and never written.
    pub include: Option<PathBuf>,
    /// Our own directory for it: generated files and a socket. On a tmpfs; made when absent.
    pub run_dir: PathBuf,
    /// The server's log (and its tools'), appended to.
    pub log_file: PathBuf,
    /// TCP port on this node.
    pub port: u16,
    /// `bind_address`.
    pub bind_address: String,
    /// Whom the server runs as.
    pub user: ServerUser,
    /// This node.
    pub node: NodeId,
    /// All nodes that hold a copy, this one included; two at most.
    pub members: Vec<MariaMember>,
    /// What replication is secured with, the same on all nodes.
    pub secrets: ClusterSecrets,
    /// Account that the agent's own system user may use over the socket; `root`.
    pub admin: String,
    /// How much all saved divergent tails together may take, in MiB; the newest is always kept.
    pub divergent_limit_mib: u64,
    /// Times.
    pub timing: PgTiming,
}

/// A node that holds a copy, as the others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MariaMember {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its addresses, best first.
    pub links: Vec<IpAddr>,
    /// Those of them that are not heard from now.
    pub lost: Vec<IpAddr>,
    /// Its server's TCP port.
    pub port: u16,
    /// TCP port on which its agent gives copies away.
    pub copy_port: u16,
}

impl MariaSettings {
    /// Name of whatever tool runs for this resource.
    pub fn task_name(&self) -> String {
        format!("{}-task", self.name)
    }

    /// The socket of our own sessions.
    pub(super) fn socket(&self) -> PathBuf {
        self.run_dir.join("mariadb.sock")
    }
}
