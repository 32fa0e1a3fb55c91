//! What the agent must know of this resource, taken from the checked configuration.

use crate::secrets::ClusterSecrets;
use oarlock_core::config::Timing;
use oarlock_core::ids::NodeId;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One copy's surroundings on this node.
#[derive(Clone, Debug)]
pub struct PgSettings {
    /// Name of the resource, unique on the node: of its cgroup and its run directory.
    pub name: String,
    /// Major version, for instance 15.
    pub version: u32,
    /// Directory of `postgres`, `initdb`, `pg_rewind`, … (see [`debian_bin_dir`]).
    pub bin_dir: PathBuf,
    /// The data directory. Must not be a mount point itself: it is replaced by renaming.
    pub data_dir: PathBuf,
    /// The administrator's files, read and never written.
    pub files: UserFiles,
    /// Our own directory for it: generated files and a socket. On a tmpfs; made when absent.
    pub run_dir: PathBuf,
    /// The server's log (and its tools'), appended to.
    pub log_file: PathBuf,
    /// TCP port on this node.
    pub port: u16,
    /// `listen_addresses`.
    pub listen_addresses: String,
    /// Whom the server runs as.
    pub user: ServerUser,
    /// This node.
    pub node: NodeId,
    /// All nodes that hold a copy, this one included.
    pub members: Vec<Member>,
    /// What replication is secured with, the same on all nodes.
    pub secrets: ClusterSecrets,
    /// Role that exists in every database cluster of the site and may create ours; `postgres`.
    pub admin_role: String,
    /// Database that our own sessions use; `postgres`.
    pub database: String,
    /// How much all saved divergent tails together may take, in MiB; the newest is always kept.
    pub divergent_limit_mib: u64,
    /// How much WAL is kept for a standby that was away, in MiB (`wal_keep_size`).
    pub wal_keep_mib: u64,
    /// Times.
    pub timing: PgTiming,
}

/// The administrator's own configuration files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFiles {
    /// `postgresql.conf`.
    pub config: PathBuf,
    /// `pg_hba.conf`.
    pub hba: PathBuf,
    /// `pg_ident.conf`.
    pub ident: PathBuf,
}

/// An operating system user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUser {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

/// A node that holds a copy, as the others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its addresses, best first.
    pub links: Vec<IpAddr>,
    /// Its server's TCP port.
    pub port: u16,
}

/// The agent's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgTiming {
    /// How often a running server is looked at.
    pub status: Duration,
    /// A deep probe without success for this long means sick; there are three in that time.
    pub probe_deadline: Duration,
    /// A tool or a file operation that takes moments on a disk that is not starved.
    pub tool: Duration,
    /// One of our own statements, or one connection.
    pub statement: Duration,
    /// A guard is proven within this, or `SetGuard` fails.
    pub guard: Duration,
    /// Silence after which sender and receiver give a replication connection up.
    pub replication_timeout: Duration,
    /// A promotion.
    pub promote: Duration,
    /// A start, crash recovery included.
    pub start: Duration,
    /// An orderly stop, before SIGKILL.
    pub stop: Duration,
    /// A planned hand-over: the standby has everything within this, or the move is off.
    pub hand_over: Duration,
    /// A clone or a rewind.
    pub copy: Duration,
}

impl PgTiming {
    /// Times that fit a timing preset.
    pub fn from_cluster(timing: &Timing) -> PgTiming {
        let lease = Duration::from_micros(timing.lease.0);
        let probe_deadline = (lease * 3).max(Duration::from_secs(1));
        PgTiming {
            status: Duration::from_micros(timing.heartbeat.0),
            probe_deadline,
            tool: Duration::from_secs(30),
            statement: lease.max(Duration::from_millis(500)),
            guard: lease.max(Duration::from_millis(500)),
            // Below 2 s a starved machine would drop a healthy connection, and each new one costs a stall.
            replication_timeout: (lease * 4).max(Duration::from_secs(2)),
            promote: Duration::from_secs(30),
            start: Duration::from_secs(3600),
            stop: (lease * 8).max(Duration::from_secs(5)),
            hand_over: lease.max(Duration::from_millis(500)) * 2,
            copy: Duration::from_secs(24 * 3600),
        }
    }
}

impl PgSettings {
    /// The member numbered `id`.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The name under which the helper programs of this resource run.
    pub fn task_name(&self) -> String {
        format!("{}-task", self.name)
    }
}

/// Where Debian puts the programs of a major version.
pub fn debian_bin_dir(version: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
}

impl UserFiles {
    /// Finds the administrator's files: those of Debian's layout when `data_dir` is
    /// `…/VERSION/NAME` and `/etc/postgresql/VERSION/NAME` exists, else those in `data_dir`.
    pub fn find(version: u32, data_dir: &std::path::Path) -> UserFiles {
        let debian = data_dir.file_name().map(|name| PathBuf::from(format!("/etc/postgresql/{version}")).join(name));
        let parent = data_dir.parent().and_then(|parent| parent.file_name());
        let is_debian = parent.is_some_and(|name| *name == *version.to_string());
        let etc = debian.filter(|dir| is_debian && dir.join("postgresql.conf").exists());
        let dir = etc.as_deref().unwrap_or(data_dir);
        UserFiles {
            config: dir.join("postgresql.conf"),
            hba: dir.join("pg_hba.conf"),
            ident: dir.join("pg_ident.conf"),
        }
    }
}
