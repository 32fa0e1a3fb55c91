//! Hosts with a kernel of their own: for block devices, watchdogs and clocks, which namespaces share.
//!
//! A machine is an emulated one (QEMU without hardware help, so it runs wherever the lab does) with
//! Debian's stock kernel over the same Debian root as a namespace host's. It is a [`crate::Host`] too:
//! commands get in by a small agent on a network card of the control's own.

mod agent;
mod check;
mod cli;
mod cpio;
mod enter;
mod frame;
mod image;
mod lab;
mod machine;
mod qmp;
mod watchdog;
mod wires;

use std::path::PathBuf;
use std::process::Command;

pub use agent::{AgentArgs, serve};
pub use cli::{Command as Order, main};
pub use enter::{EnterArgs, run as enter};
pub use lab::{Lab, Shape};

use crate::layout::Spec;
use crate::process::Process;

/// The link by which commands get in. No fault touches it.
const CONTROL: u8 = 9;
/// What the agent in a machine writes to the console when commands may come.
const READY: &str = "machine-agent: listening";

/// How commands get into a machine.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    spec: &'static Spec,
    process: Process,
    wires: Process,
    /// The lab's program on this side.
    program: PathBuf,
}

impl Door {
    /// A command line that runs in the machine what is appended to it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.wires.pid)).arg("--").arg(&self.program);
        command.arg("machine-enter").arg(format!("--pid={}", self.process.pid));
        command.arg(format!("--address={}", self.spec.address(CONTROL))).arg("--");
        command
    }
}
