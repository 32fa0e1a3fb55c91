//! The arguments. Help, man page and completions all come from here.

use crate::config::DEFAULT_PATH;
use crate::control::DEFAULT_RUN_DIR;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
        #[arg(long, value_name = "DIR", default_value = "/var/lib/oarlock")]
        state_dir: PathBuf,
        /// The socket to the sentinel that started this process.
        #[arg(long, value_name = "FD", hide = true)]
        under_sentinel: Option<i32>,
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
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Generated {
    /// The manual page, in roff.
    Man,
    /// Completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The reference of the configuration file, in Markdown.
    ConfigReference,
}
