//! The arguments. Help, man page and completions all come from here.

use crate::config::{DEFAULT_PATH, DEFAULT_PORT, Preset};
use crate::control::DEFAULT_RUN_DIR;
use crate::enrol::DEFAULT_INVITE_PORT;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// What an agent must remember over a reboot is here unless `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/oarlock";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 negative answer, 2 usage or configuration, 3 no quorum, \
                          4 refused for safety, 5 internal error.";

/// Keeps a service and its database running when a machine, a process, a disk or a link fails.
#[derive(Debug, Parser)]
#[command(name = "oarlock", version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub struct Arguments {
    /// Where things are and how to answer.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Arguments of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration; keys and secrets are in its directory.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH, help_heading = "Global options")]
    pub config: PathBuf,
    /// Directory of the agent's sockets.
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUN_DIR, help_heading = "Global options")]
    pub run_dir: PathBuf,
    /// Answer in JSON, for programs.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Run the command on another machine, over ssh.
    #[arg(long, global = true, value_name = "HOST", help_heading = "Global options")]
    pub host: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (started by the system, not by hand).
    Agent {
        /// Directory of what must survive a reboot.
        #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
        state_dir: PathBuf,
        /// The socket to the sentinel that started this process.
        #[arg(long, value_name = "FD", hide = true)]
        under_sentinel: Option<i32>,
    },
    /// Make a cluster; this machine is its first node.
    ///
    /// Writes the configuration, this machine's key and the cluster's secrets, and prints a token:
    /// the token alone on standard output, words on standard error.
    Init(Box<InitArguments>),
    /// Make this machine a node of a cluster, with the token that init printed.
    Join(JoinArguments),
    /// Make a new token for the machines that have not joined yet.
    Invite,
    /// Make a running database, and OAR with it, highly available, with their data.
    ///
    /// Looks at the machines over ssh (or here), shows what it would do, asks, and does it step by step. Each
    /// step first looks whether it is done: run again after an interruption, it goes on. Every file that
    /// is changed is kept beside, with the date.
    Deploy(Box<DeployArguments>),
    /// Turn a cluster that deploy made into a plain single server again, with the present data.
    Undeploy(UndeployArguments),
    /// Look for what would make a takeover fail, slow or unsafe.
    Check {
        /// Also compare with the other servers, over ssh.
        #[arg(long)]
        peers: bool,
        /// Print this machine's part of that comparison.
        #[arg(long, hide = true)]
        digest: bool,
    },
    /// Validate a configuration on every node, and commit it.
    Apply {
        /// The configuration; "-" is standard input.
        file: PathBuf,
        /// Validate only, change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the state of the cluster.
    Status {
        /// Show it again every second.
        #[arg(long, short)]
        watch: bool,
    },
    /// Show what happened.
    Events {
        /// Go on with what happens from now on.
        #[arg(long, short)]
        follow: bool,
        /// Only of the last so many seconds.
        #[arg(long, value_name = "SECONDS")]
        since_s: Option<u64>,
    },
    /// Explain the last decision about a group or node, and what blocks it.
    Explain {
        /// Name of a group or node.
        #[arg(value_name = "GROUP|NODE")]
        what: String,
    },
    /// Tell what would happen if a node failed now, touching nothing.
    Simulate {
        /// Name of the node.
        #[arg(long, value_name = "NODE")]
        fail: String,
    },
    /// Switch a group over for real, and measure the outage and the loss.
    Drill {
        /// Name of the group.
        group: String,
        /// How to write to its database: "host=SERVICE-ADDRESS user=… password=… dbname=…",
        /// for MariaDB mysql://USER:PASSWORD@SERVICE-ADDRESS/DATABASE [default: as OAR does].
        #[arg(long, value_name = "STRING")]
        connection: Option<String>,
    },
    /// Hand a group over to another node.
    Move {
        /// Name of the group.
        group: String,
        /// Name of the node.
        node: String,
    },
    /// Take a node out of service, handing its groups over first.
    Standby {
        /// Name of the node.
        node: String,
    },
    /// Take a node back into service.
    Online {
        /// Name of the node.
        node: String,
    },
    /// While on, nothing is started, stopped or moved.
    Maintenance {
        /// On or off.
        switch: Switch,
    },
    /// Forget the failures of a resource.
    Clear {
        /// Name of the resource, alone or as group/resource.
        resource: String,
    },
    /// Give up what a node remembers of votes and promises; it votes again under a new identity.
    ///
    /// For a node whose state was put back to an earlier one, or that is gone for good: the others no
    /// longer count on it. A node that finds its own state damaged or gone does this by itself.
    /// Services, data and in-sync sets are untouched. Refused when the other voters could not
    /// decide without it.
    Replace {
        /// Name of the node.
        node: String,
    },
    /// Print documentation made from the program itself.
    Generate {
        /// What to print.
        #[command(subcommand)]
        what: Generated,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// What can be generated.
#[derive(Clone, Debug, Subcommand)]
pub enum Generated {
    /// The manual page, in roff.
    Man {
        /// Write a page for each command into this directory instead of printing one for all.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The reference of the configuration file, in Markdown.
    ConfigReference,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Name of the cluster.
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// Preset of times [default: balanced].
    #[arg(long)]
    pub timing: Option<Timing>,
    /// A server with its address on each link; the first is preferred. Repeat for each.
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]", required = true, value_parser = node_spec)]
    pub node: Vec<NodeSpec>,
    /// A server for the database alone, in a group of its own. Repeat for each.
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]", requires_all = ["engine", "database_address"], value_parser = node_spec)]
    pub database_node: Vec<NodeSpec>,
    /// A witness, which votes and runs nothing, with its address on each link.
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]", value_parser = node_spec)]
    pub witness: Vec<NodeSpec>,
    /// Two servers alone: takeover only after a confirmed fence of the other, or by hand.
    #[arg(long, conflicts_with_all = ["witness", "database_node"])]
    pub without_witness: bool,
    /// Service address, with the length of its network's prefix.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub address: Option<String>,
    /// Service address of the database where it has servers of its own.
    #[arg(long, value_name = "ADDRESS/PREFIX", requires = "database_node")]
    pub database_address: Option<String>,
    /// Read-only address that follows a standby.
    #[arg(long, value_name = "ADDRESS/PREFIX", requires = "engine")]
    pub reader_address: Option<String>,
    /// Interface of the addresses [default: found by their network].
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Run PostgreSQL of this major version.
    #[arg(long, value_name = "VERSION", group = "engine")]
    pub postgresql: Option<String>,
    /// Its TCP port [default: 5432].
    #[arg(long, value_name = "PORT", requires = "postgresql")]
    pub postgresql_port: Option<u16>,
    /// Run MariaDB; its version up to the second number, for instance 10.11.
    #[arg(long, value_name = "VERSION", group = "engine")]
    pub mariadb: Option<String>,
    /// Its TCP port [default: 3306].
    #[arg(long, value_name = "PORT", requires = "mariadb")]
    pub mariadb_port: Option<u16>,
    /// Data directory of the database [default: the distribution's].
    #[arg(long, value_name = "DIR", requires = "engine")]
    pub data_dir: Option<String>,
    /// Run a service that oarlock knows.
    #[arg(long)]
    pub profile: Option<ProfileName>,
    /// Name of the group [default: oar with that profile, else main].
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// UDP port the nodes talk on.
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// TCP port on which the other machines fetch what is theirs.
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_INVITE_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub invite_port: u16,
    /// Which of the nodes this machine is [default: its host name].
    #[arg(long, value_name = "NAME")]
    pub this: Option<String>,
    /// Directory of what must survive a reboot.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Replace a cluster that is configured here; says what is lost.
    #[arg(long)]
    pub force: bool,
    /// Also start the agent, now and at boot (systemd).
    #[arg(long)]
    pub start: bool,
}

/// How machines are reached, and whether anything is done.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// What reaches the machines, with its own options.
    #[arg(long, value_name = "PROGRAM", default_value = "ssh")]
    pub ssh: String,
    /// User to log in as.
    #[arg(long, value_name = "NAME", default_value = "root")]
    pub user: String,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `deploy`.
#[derive(Debug, Args)]
pub struct DeployArguments {
    /// Name of the cluster.
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// Preset of times.
    #[arg(long, default_value = "balanced")]
    pub timing: Timing,
    /// A server with its address on each link: first the one that has the database now, then the other.
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]", required = true, value_parser = node_spec)]
    pub node: Vec<NodeSpec>,
    /// The witness, for instance OAR's frontend.
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]", value_parser = node_spec)]
    pub witness: Vec<NodeSpec>,
    /// A frontend or compute node that is no node of the cluster but uses OAR. Repeat for each.
    #[arg(long, value_name = "NAME")]
    pub client: Vec<String>,
    /// Service address, with the length of its network's prefix.
    #[arg(long, value_name = "ADDRESS/PREFIX", value_parser = network)]
    pub address: (IpAddr, u8),
    /// Interface of the address [default: found by its network].
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// What the service address is called in /etc/hosts and OAR's configuration.
    #[arg(long, value_name = "NAME", default_value = "oar", value_parser = word)]
    pub service: String,
    /// Which database cluster, where there are several: version and name, for instance 15/main.
    #[arg(long, value_name = "VERSION/NAME", value_parser = version_and_name)]
    pub postgresql: Option<(String, String)>,
    /// Package of oarlock (deb), installed where it is missing.
    #[arg(long, value_name = "FILE")]
    pub package: Option<PathBuf>,
    /// Move a database aside that the other server has in the same place, even if somebody may miss it.
    #[arg(long)]
    pub set_aside: bool,
    /// How to get there.
    #[command(flatten)]
    pub reach: Reach,
}

/// Arguments of `undeploy`.
#[derive(Debug, Args)]
pub struct UndeployArguments {
    /// The nodes of the cluster, and what deploy knew as clients. Repeat for each.
    #[arg(long, value_name = "NAME", required = true)]
    pub node: Vec<String>,
    /// The server that goes on alone; it must be the one that has the service now.
    #[arg(long, value_name = "NAME")]
    pub keep: String,
    /// What the service is called in /etc/hosts and OAR's configuration.
    #[arg(long, value_name = "NAME", default_value = "oar", value_parser = word)]
    pub service: String,
    /// How to get there.
    #[command(flatten)]
    pub reach: Reach,
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// The token that init printed; "-" reads it from standard input, where no list of processes shows it.
    #[arg(required = true)]
    pub token: Vec<String>,
    /// Which node this machine is [default: its host name].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// How long to try, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline_s: u64,
    /// Directory of what must survive a reboot.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Replace a cluster that is configured here; says what is lost.
    #[arg(long)]
    pub force: bool,
    /// Also start the agent, now and at boot (systemd).
    #[arg(long)]
    pub start: bool,
}

/// Presets of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Timing {
    /// For a quiet LAN.
    Fast,
    /// For most.
    Balanced,
    /// For WAN links and overloaded machines.
    Relaxed,
}

impl Timing {
    /// As the configuration calls it.
    pub fn preset(self) -> Preset {
        match self {
            Timing::Fast => Preset::Fast,
            Timing::Balanced => Preset::Balanced,
            Timing::Relaxed => Preset::Relaxed,
        }
    }
}

/// Services that oarlock knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// The OAR batch server.
    Oar,
}

/// `NAME=ADDRESS[,ADDRESS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The node's name.
    pub name: String,
    /// Its addresses.
    pub links: Vec<IpAddr>,
}

/// `ADDRESS/PREFIX`.
fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, prefix) = text.split_once('/').ok_or("expected ADDRESS/PREFIX")?;
    let address: IpAddr = address.parse().map_err(|_| format!("\"{address}\" is not an IP address"))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse() {
        Ok(prefix) if prefix <= longest => Ok((address, prefix)),
        _ => Err(format!("\"{prefix}\" is no length of a prefix, 0 to {longest}")),
    }
}

/// `VERSION/NAME`.
fn version_and_name(text: &str) -> Result<(String, String), String> {
    let (version, name) = text.split_once('/').ok_or("expected VERSION/NAME")?;
    Ok((word(version)?, word(name)?))
}

/// A name that means the same in every file.
fn word(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.starts_with('-') || !text.bytes().all(plain) {
        return Err("expected letters, digits, - _ and .".to_owned());
    }
    Ok(text.to_owned())
}

fn node_spec(text: &str) -> Result<NodeSpec, String> {
    let (name, links) = text.split_once('=').ok_or("expected NAME=ADDRESS[,ADDRESS]")?;
    let link = |link: &str| link.parse().map_err(|_| format!("\"{link}\" is not an IP address"));
    Ok(NodeSpec { name: name.to_owned(), links: links.split(',').map(link).collect::<Result<_, String>>()? })
}
