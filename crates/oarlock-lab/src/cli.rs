//! The `lab` command line.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Error, Result, anyhow};
use clap::{Args, Subcommand};

use crate::disk::{Disk, Trouble};
use crate::lab::{Lab, Status};
use crate::layout::Layout;
use crate::matrix::{self, MatrixArgs};
use crate::net::{Cut, Direction, What};
use crate::product;
use crate::selfcheck;
use crate::soak;
use crate::state::{Engine, Shape, Timing};
use crate::suite::Suite;
use crate::vm;
use crate::words;

/// Exit code of `lab exec` when the command could not be started at all.
const NOT_STARTED: u8 = 125;

/// Commands of the lab.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the lab up; on the first run this builds its Debian root
    Up(Up),
    /// Run a command in a host: its exit code, its output, no noise
    Exec {
        /// The host
        host: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Cut the power of hosts: cables and processes gone in one instant
    Poweroff {
        /// The hosts
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Power hosts on again with the disks they had
    Poweron {
        /// The hosts
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Pull or disturb the cables of a host
    Cut(Cable),
    /// Undo cuts of a host
    Heal(Cable),
    /// Fill or freeze a disk of a host's own, or undo that (after `up --disks`)
    Disk {
        /// The host
        host: String,
        /// What the disk holds
        #[arg(value_enum)]
        disk: Disk,
        /// What is wrong with it
        #[arg(value_enum)]
        trouble: Trouble,
        /// End that
        #[arg(long)]
        undo: bool,
    },
    /// Show hosts, their pid 1 and addresses, the service address, what is cut
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the lab itself, without the product, in a lab of its own
    Selfcheck {
        /// The hosts' Debian release
        #[arg(long, value_enum, default_value_t)]
        suite: Suite,
    },
    /// Do every nasty thing of the fault matrix to the cluster and watch it heal
    Matrix(MatrixArgs),
    /// Random faults, two at a time, under writers and readers whose histories are checked
    Soak(soak::Args),
    /// Hosts with kernels of their own, for DRBD and watchdogs: emulated machines
    #[command(subcommand)]
    Vm(vm::Order),
    /// State words: two servers lose and get their power in a given order; what must come of each step does
    Words(words::Args),
    /// Remove the lab; nothing of it is left behind but its Debian root
    Down,
}

/// Arguments of `lab up`.
#[derive(Debug, Args)]
pub struct Up {
    /// How many servers share the work
    #[arg(long, value_enum, default_value_t)]
    layout: Layout,
    /// The database engine
    #[arg(long, value_enum, default_value = "postgresql")]
    db: Engine,
    /// The cluster's timing preset
    #[arg(long, value_enum, default_value_t)]
    timing: Timing,
    /// The hosts' Debian release
    #[arg(long, value_enum, default_value_t)]
    suite: Suite,
    /// Give the database of each server and the memory of each agent a disk of its own, to fill and freeze
    #[arg(long)]
    disks: bool,
    /// Only the hosts, without building the product and making a cluster
    #[arg(long)]
    bare: bool,
}

/// Arguments of `lab cut` and `lab heal`.
#[derive(Debug, Args)]
pub struct Cable {
    /// The host
    pub(crate) host: String,
    /// Only this link (default: all links of the host)
    #[arg(long)]
    link: Option<u8>,
    /// As the host sees it; one direction alone keeps the carrier
    #[arg(long, value_enum, default_value = "both")]
    direction: Direction,
    /// Drop the frames, but leave the host its carrier
    #[arg(long)]
    keep_carrier: bool,
    /// Only what is exchanged with this host; keeps the carrier
    #[arg(long, value_name = "HOST")]
    peer: Option<String>,
    /// Only this share of the frames, at random; keeps the carrier
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    loss: Option<u8>,
}

impl Cable {
    /// What is asked for.
    pub(crate) fn cut(&self) -> Cut {
        Cut {
            link: self.link,
            direction: self.direction,
            keep_carrier: self.keep_carrier,
            peer: self.peer.clone(),
            loss_percent: self.loss,
        }
    }
}

/// Runs one command and says how it ended; errors are printed here.
#[must_use]
pub fn main(command: &Command) -> ExitCode {
    let exec = matches!(command, Command::Exec { .. } | Command::Vm(vm::Order::Exec { .. }));
    let failed = if exec { NOT_STARTED } else { 1 };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", report(&error));
            ExitCode::from(failed)
        }
    }
}

/// An error with its causes on one line, its hints below.
#[must_use]
pub fn report(error: &Error) -> String {
    let mut hints = Vec::new();
    let mut causes = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (text, hint) = text.split_once("\nhint: ").map_or((text.as_str(), None), |(t, h)| (t, Some(h)));
        causes.push(text.to_owned());
        hints.extend(hint.map(|hint| format!("\nhint: {hint}")));
    }
    format!("error: {}{}", causes.join(": "), hints.concat())
}

fn run(command: &Command) -> Result<ExitCode> {
    if let Command::Vm(order) = command {
        return vm::main(order);
    }
    let lab = Lab::open()?;
    match command {
        Command::Up(up) => return bring_up(&lab, up),
        Command::Exec { host, command } => {
            let error = lab.host(host)?.command(command).exec();
            return Err(anyhow!(error).context("cannot run nsenter"));
        }
        Command::Poweroff { hosts } => lab.poweroff(&names(hosts))?,
        Command::Poweron { hosts } => lab.poweron(&names(hosts))?,
        Command::Cut(cable) => lab.cut(&cable.host, &cable.cut())?,
        Command::Heal(cable) => lab.heal(&cable.host, &cable.cut())?,
        Command::Disk { host, disk, trouble, undo: false } => lab.trouble(host, *disk, *trouble)?,
        Command::Disk { host, disk, trouble, undo: true } => lab.relieve(host, *disk, *trouble)?,
        Command::Status { json: true } => {
            println!("{}", serde_json::to_string_pretty(&lab.status()?)?)
        }
        Command::Status { json: false } => print!("{}", table(&lab.status()?)),
        Command::Selfcheck { suite } => selfcheck::run(&lab, Shape { suite: *suite, ..Shape::default() })?,
        Command::Matrix(arguments) if !matrix::main(arguments)? => return Ok(ExitCode::FAILURE),
        Command::Soak(arguments) if !soak::main(arguments)? => return Ok(ExitCode::FAILURE),
        Command::Words(arguments) if !words::main(arguments)? => return Ok(ExitCode::FAILURE),
        Command::Matrix(_) | Command::Soak(_) | Command::Words(_) | Command::Vm(_) => {}
        Command::Down => lab.down()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn names(hosts: &[String]) -> Vec<&str> {
    hosts.iter().map(String::as_str).collect()
}

fn bring_up(lab: &Lab, up: &Up) -> Result<ExitCode> {
    let shape = Shape { layout: up.layout, db: up.db, timing: up.timing, suite: up.suite, disks: up.disks };
    if !up.bare {
        product::build(lab)?;
    }
    lab.up(shape)?;
    if !up.bare {
        product::create(lab)?;
    }
    print!("{}", table(&lab.status()?));
    Ok(ExitCode::SUCCESS)
}

/// The status for people.
fn table(status: &Status) -> String {
    if !status.up {
        return "no lab is up\n".to_owned();
    }
    let mut text = format!("{:<10}{:<10}{:<6}{:>8}  {:<26}real-time\n", "host", "kind", "power", "pid 1", "addresses");
    for host in &status.hosts {
        let addresses: Vec<String> = host.addresses.values().map(ToString::to_string).collect();
        let kind = format!("{:?}", host.kind).to_lowercase();
        let pid = host.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let realtime = match host.realtime_us {
            0 => "no".to_owned(),
            us => format!("{} ms per 100 ms", us / 1000),
        };
        let power = if host.on { "on" } else { "off" };
        let addresses = addresses.join(", ");
        text += &format!("{:<10}{kind:<10}{power:<6}{pid:>8}  {addresses:<26}{realtime}\n", host.name);
    }
    for block in &status.blocks {
        let what = match block.what {
            What::Carrier => "unplugged",
            What::In => "loses what it should receive",
            What::Out => "loses what it sends",
        };
        let peer = block.peer.as_ref().map(|peer| format!(" (only {peer})")).unwrap_or_default();
        let share = block.loss_percent.map(|percent| format!(", {percent} % of it")).unwrap_or_default();
        text += &format!("cut: {} link {}: {what}{peer}{share}\n", block.host, block.link);
    }
    let service = &status.service;
    text + &format!("service: {} = {} port {}\n", service.name, service.address, service.port)
}
