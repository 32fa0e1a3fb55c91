//! Benchmarks of the product in the lab.

mod failover;
mod footprint;
mod replication;
mod starvation;

use anyhow::Result;

/// The benchmarks.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Outages of a writing client, for each kind of failure
    Failover(failover::Args),
    /// Memory, processor and traffic of an idle cluster
    Footprint(footprint::Args),
    /// What a transaction costs more because a standby must have it too
    Replication(replication::Args),
    /// False takeovers while every core is kept busy by others
    Starvation(starvation::Args),
}

/// Runs a benchmark. True if nothing was lost and nothing failed that must not.
pub fn main(command: &Command) -> Result<bool> {
    match command {
        Command::Failover(args) => failover::main(args),
        Command::Footprint(args) => footprint::main(args),
        Command::Replication(args) => replication::main(args),
        Command::Starvation(args) => starvation::main(args),
    }
}
