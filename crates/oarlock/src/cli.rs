//! The `oarlock` command: arguments in, text and an exit code out.

mod apply;
pub mod args;
mod ask;
mod check;
mod child;
mod deploy;
mod drill;
mod events;
pub mod failure;
mod generate;
mod init;
mod join;
mod output;
mod peers;
mod remote;
mod requests;
mod setup;
mod status;
mod style;
mod time;

use args::{Arguments, Command};
use clap::Parser;
pub use failure::Code;
use failure::Failure;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `oarlock agent` is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// The configuration file; keys and secrets are in its directory.
    pub config: PathBuf,
    /// Sockets and what must not survive a boot.
    pub run_dir: PathBuf,
    /// What must survive one.
    pub state_dir: PathBuf,
    /// The socket to the sentinel, when this process is the agent under it.
    pub under_sentinel: Option<i32>,
}

/// Runs the command. `agent` is called for `oarlock agent` and does not return before it ends.
pub fn main(raw: Vec<OsString>, agent: impl FnOnce(AgentOptions) -> ExitCode) -> ExitCode {
    let arguments = match Arguments::try_parse_from(&raw) {
        Ok(arguments) => arguments,
        // Help and version are no errors; clap knows.
        Err(error) => {
            let code = if error.use_stderr() { Code::Usage } else { Code::Done };
            let _ = error.print();
            return code.into();
        }
    };
    if let Command::Agent { state_dir, under_sentinel } = arguments.command {
        return agent(AgentOptions {
            config: arguments.global.config,
            run_dir: arguments.global.run_dir,
            state_dir,
            under_sentinel,
        });
    }
    match run(&arguments, &raw) {
        Ok(code) => code.into(),
        Err(failure) => {
            failure.print(style::Style::of_stderr());
            failure.code.into()
        }
    }
}

fn run(arguments: &Arguments, raw: &[OsString]) -> Result<Code, Failure> {
    let global = &arguments.global;
    if let Some(host) = &global.host {
        return remote::run(host, &arguments.command, raw);
    }
    match &arguments.command {
        Command::Agent { .. } => Ok(Code::Done),
        Command::Init(arguments) => init::run(global, arguments),
        Command::Join(arguments) => join::run(global, arguments),
        Command::Check { peers, digest } => check::run(global, *peers, *digest),
        Command::Invite => init::invite(global),
        Command::Deploy(arguments) => deploy::run(global, arguments),
        Command::Undeploy(arguments) => deploy::back(global, arguments),
        Command::Apply { file, dry_run } => apply::run(global, file, *dry_run),
        Command::Status { watch } => status::run(global, *watch),
        Command::Events { follow, since_s } => events::run(global, *follow, *since_s),
        Command::Drill { group, connection } => drill::run(global, group, connection.as_deref()),
        Command::Generate { what } => generate::run(what),
        command => requests::run(global, command),
    }
}
