//! The local socket between the `oarlock` command and the agent on the same machine.
//!
//! Each frame is a length (four bytes, big endian) and that many bytes of JSON. A connection carries
//! one request and its answer; only `events --follow` is answered by more than one frame. Whoever
//! may connect may look; only root, the agent's own user and the operators' group may change things.

mod client;
pub(crate) mod frame;
mod peer;
pub mod protocol;
pub mod resolve;
mod server;
pub mod status;
#[cfg(test)]
mod tests;

pub use client::{ControlClient, ControlError};
pub use peer::{Operators, Peer};
pub use protocol::{AgentInfo, EventLine, Request, Response};
pub use server::{ANSWERS_WAITING_MAX, Call, ControlServer, Reply};
pub use status::StatusReport;

use std::path::{Path, PathBuf};

/// Where an agent keeps its sockets unless `--run-dir` says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/oarlock";

/// The control socket in a run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}
