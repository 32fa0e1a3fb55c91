//! The `lab vm` command line.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use serde_json::json;

use super::lab::{Lab, Overview, Shape};
use super::{check, watchdog};
use crate::cli::Cable;
use crate::net::What;
use crate::product;

/// What runs on a cluster in virtual machines.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Case {
    /// A server whose agent and sentinel stand still is reset before another starts its services
    Watchdog,
}

/// Commands for virtual machines.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring machines up; on the first run this builds the image they boot from
    Up(Shape),
    /// Run a command in a machine: its exit code, its output, no noise
    Exec {
        /// The machine
        host: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Cut the power of machines
    Poweroff {
        /// The machines
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Power machines on again with the disks they had
    Poweron {
        /// The machines
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Pull or disturb the cables of a machine
    Cut(Cable),
    /// Undo cuts of a machine
    Heal(Cable),
    /// Show machines, their emulators and addresses, what is cut
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the machines themselves, without the product, in a lab of their own: power, cables, DRBD
    Check,
    /// Run a case on a cluster in machines of its own
    Run {
        /// The case
        #[arg(value_enum)]
        case: Case,
    },
    /// Remove the machines; nothing of them is left behind but their image
    Down,
}

/// Runs one command.
///
/// # Errors
/// When it did not do what it is for.
pub fn main(command: &Command) -> Result<ExitCode> {
    let lab = Lab::open()?;
    match command {
        Command::Up(shape) => {
            product::build_programs(lab.paths())?;
            tell(&lab.up(*shape)?);
            print!("{}", table(&lab)?);
        }
        Command::Exec { host, command } => {
            let error = lab.host(host)?.command(command).exec();
            return Err(anyhow!(error).context("cannot run nsenter"));
        }
        Command::Poweroff { hosts } => lab.poweroff(&names(hosts))?,
        Command::Poweron { hosts } => tell(&lab.poweron(&names(hosts))?),
        Command::Cut(cable) => lab.cut(&cable.host, &cable.cut())?,
        Command::Heal(cable) => lab.heal(&cable.host, &cable.cut())?,
        Command::Status { json: true } => println!("{:#}", status(&lab)?),
        Command::Status { json: false } => print!("{}", table(&lab)?),
        Command::Check => {
            product::build_programs(lab.paths())?;
            check::run(&lab)?;
        }
        Command::Run { case } => {
            product::build_programs(lab.paths())?;
            match case {
                Case::Watchdog => watchdog::run(&lab)?,
            }
        }
        Command::Down => lab.down()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn names(hosts: &[String]) -> Vec<&str> {
    hosts.iter().map(String::as_str).collect()
}

fn tell(took: &[(&str, Duration)]) {
    for (name, time) in took {
        println!("{name} was ready after {:.1} s", time.as_secs_f64());
    }
}

/// The status for programs.
fn status(lab: &Lab) -> Result<serde_json::Value> {
    let Some(Overview { state, hosts }) = lab.status()? else { return Ok(json!({ "up": false })) };
    let hosts: Vec<serde_json::Value> = hosts
        .iter()
        .map(|(spec, pid)| {
            let addresses: Vec<String> = spec.links().iter().map(|link| spec.address(*link).to_string()).collect();
            json!({ "name": spec.name, "kind": spec.kind, "on": pid.is_some(), "pid": pid, "addresses": addresses })
        })
        .collect();
    Ok(json!({ "up": true, "shape": state.shape, "hosts": hosts, "blocks": state.blocks }))
}

/// The status for people.
fn table(lab: &Lab) -> Result<String> {
    let Some(Overview { state, hosts }) = lab.status()? else { return Ok("no machines are up\n".to_owned()) };
    let mut text = format!("{:<10}{:<6}{:>8}  addresses\n", "machine", "power", "QEMU");
    for (spec, pid) in hosts {
        let addresses: Vec<String> = spec.links().iter().map(|link| spec.address(*link).to_string()).collect();
        let (power, pid) = pid.map_or(("off", "-".to_owned()), |pid| ("on", pid.to_string()));
        text += &format!("{:<10}{power:<6}{pid:>8}  {}\n", spec.name, addresses.join(", "));
    }
    for block in &state.blocks {
        let what = match block.what {
            What::Carrier => "unplugged",
            What::In => "loses what it should receive",
            What::Out => "loses what it sends",
        };
        text += &format!("cut: {} link {}: {what}\n", block.host, block.link);
    }
    Ok(text)
}
