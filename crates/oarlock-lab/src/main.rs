//! The lab's own program inside its hosts: the writing client, readers of its log, and what carries
//! commands into virtual machines.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use oarlock_lab::client::{self, ClientArgs, RowsArgs};
use oarlock_lab::flood::{self, FloodArgs, SinkArgs};
use oarlock_lab::report::{self, CheckArgs, PlotArgs};
use oarlock_lab::vm::{self, AgentArgs, EnterArgs};

#[derive(Parser)]
#[command(about = "The lab's writing client, and readers of its log")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write rows and log every attempt, one JSON object per line.
    Client(ClientArgs),
    /// Print the rows of a run as JSON: how often each id stands in the table.
    Rows(RowsArgs),
    /// Compare a client's log with the rows of its run; list outages and refused times.
    Check(CheckArgs),
    /// Draw a client's log as SVG.
    Plot(PlotArgs),
    /// In a virtual machine: run what the lab sends.
    MachineAgent(AgentArgs),
    /// Run a command in a virtual machine.
    MachineEnter(EnterArgs),
    /// Send as much as the network takes.
    Flood(FloodArgs),
    /// Swallow what a flood sends.
    Sink(SinkArgs),
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Client(args) => client::run(&args),
        Command::Rows(args) => client::print_rows(&args),
        Command::Check(args) => report::check_log(&args),
        Command::Plot(args) => report::plot_log(&args),
        Command::MachineAgent(args) => vm::serve(&args),
        Command::MachineEnter(args) => return vm::enter(&args),
        Command::Flood(args) => flood::flood(&args),
        Command::Sink(args) => flood::sink(&args),
    }
    .map(|()| ExitCode::SUCCESS)
}
