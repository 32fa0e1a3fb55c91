//! The project's own commands: `cargo xtask help`.

mod dist;
mod fuzz;
mod test;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Watch a machine die with a job running and rows being written
    Demo {
        /// The database engine
        #[arg(long, value_enum, default_value = "postgresql")]
        db: oarlock_lab::Engine,
        /// Leave the lab up, to play with it
        #[arg(long)]
        keep: bool,
    },
    /// Run every test, the lab's included
    Test {
        /// Leave the lab out
        #[arg(long)]
        quick: bool,
    },
    /// Real processes on namespace hosts to play with
    #[command(subcommand)]
    Lab(oarlock_lab::cli::Command),
    /// Measure the product in the lab
    #[command(subcommand)]
    Bench(oarlock_lab::bench::Command),
    /// Compare the planner with Pacemaker's on random clusters
    Oracle(oarlock_lab::oracle::Arguments),
    /// Look at the code and its dependencies without running them
    Audit,
    /// Feed every decoder with bytes that nobody meant
    Fuzz(fuzz::Arguments),
    /// Make the packages (deb and rpm) in target/dist
    Dist(dist::Arguments),
    /// Run the simulator
    Sim {
        /// Passed on to the simulator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::wrapped() {
        return code;
    }
    let done = match Cli::parse().task {
        Task::Lab(command) => return oarlock_lab::cli::main(&command),
        Task::Demo { db, keep } => oarlock_lab::demo::run(db, keep).map(|()| ExitCode::SUCCESS),
        Task::Bench(command) => oarlock_lab::bench::main(&command).map(code),
        Task::Audit => audit(),
        Task::Dist(arguments) => dist::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(arguments) => fuzz::run(&arguments).map(code),
        Task::Oracle(arguments) => oarlock_lab::oracle::run(&arguments).map(|verdict| match verdict {
            oarlock_lab::oracle::Verdict::Skipped(reason) => {
                println!("skipped: {reason}");
                ExitCode::FAILURE
            }
            verdict => code(verdict == oarlock_lab::oracle::Verdict::Agreed),
        }),
        Task::Test { quick } => test::run(quick),
        Task::Sim { arguments } => {
            cargo(&["run", "--quiet", "--release", "--package", "oarlock-sim", "--"], &arguments)
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", oarlock_lab::cli::report(&error));
            ExitCode::FAILURE
        }
    }
}

/// Format, lints, and the dependencies' duplicates, licences and sources; the first that fails ends it.
///
/// The advisories are not among them: their database cannot be had from a package registry.
fn audit() -> Result<ExitCode> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    let deny = ["deny", "check", "bans", "licenses", "sources"];
    if cargo(&["deny", "--version"], &[])? != ExitCode::SUCCESS {
        bail!("cargo-deny is not installed\nhint: cargo install --locked cargo-deny");
    }
    for task in [&["fmt", "--all", "--check"][..], &clippy, &deny] {
        println!("cargo {}", task.join(" "));
        let code = cargo(task, &[])?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs cargo and passes on how it ended. No deadline: the user who started it may stop it.
fn cargo(task: &[&str], arguments: &[String]) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(task).args(arguments).status().context("cannot start cargo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Exit code of a task that can end well and still have a negative answer.
fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
