//! The lab's own program inside its hosts: the writing client, and readers of its log.

use anyhow::Result;
use clap::{Parser, Subcommand};
use oarlock_lab::client::{self, ClientArgs, RowsArgs};
use oarlock_lab::flood::{self, FloodArgs, SinkArgs};
use oarlock_lab::report::{self, CheckArgs, PlotArgs};

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
    /// Send as much as the network takes.
    Flood(FloodArgs),
    /// Swallow what a flood sends.
    Sink(SinkArgs),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Client(args) => client::run(&args),
        Command::Rows(args) => client::print_rows(&args),
        Command::Check(args) => report::check_log(&args),
        Command::Plot(args) => report::plot_log(&args),
        Command::Flood(args) => flood::flood(&args),
        Command::Sink(args) => flood::sink(&args),
    }
}
