//! The sentinel: the small parent of the agent that outlives it, holds the deadline of the lease
//! and performs every start of an exclusive resource.
//!
//! What it decides is in [`oarlock_core::sentinel`]; here is the process around it, and the
//! agent's side of their socket, [`SentinelHandle`].
//!
//! Who dies, and who takes over: when the agent dies, the sentinel starts another at once. When
//! the sentinel dies, the agent sees its socket end and becomes the sentinel itself
//! ([`become_sentinel`]), in the same process, and starts another agent. Either way the record in
//! the state directory carries everything on, and what runs is adopted, not restarted.

mod agent;
mod client;
mod effects;
mod frame;
mod journal;
mod keeper;
mod lock;
mod reaper;
mod rehearsal;
mod seen;
mod services;
mod shell;
mod store;
mod watchdog;

pub use client::{Patience, SentinelError, SentinelHandle};

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::process::set_child_subreaper;

use crate::process::{identity, realtime};
use lock::Lock;
use shell::Shell;

/// The hidden option by which an agent knows that it has a sentinel; its value is the number of
/// the socket's descriptor.
pub const UNDER_SENTINEL: &str = "--under-sentinel";
/// The descriptor of the agent's socket.
pub const AGENT_SOCKET: i32 = 3;

/// How to run a sentinel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for the lock, the record and the log; must be in memory (tmpfs), so that no disk
    /// can hold the sentinel up.
    pub state_dir: PathBuf,
    /// Name of our directory in the cgroup hierarchy.
    pub cgroup: String,
    /// Our own whole command line, program name first; the agent gets the same and
    /// [`UNDER_SENTINEL`].
    pub argv: Vec<OsString>,
}

impl Options {
    /// The usual places: `/run/oarlock` and `oarlock`.
    #[must_use]
    pub fn new(argv: Vec<OsString>) -> Self {
        Self { state_dir: "/run/oarlock".into(), cgroup: "oarlock".into(), argv }
    }

    fn agent_argv(&self) -> io::Result<Vec<CString>> {
        let own = self.argv.iter().map(|argument| argument.as_bytes().to_vec());
        let under = [UNDER_SENTINEL.as_bytes().to_vec(), AGENT_SOCKET.to_string().into_bytes()];
        own.chain(under).map(|argument| CString::new(argument).map_err(io::Error::other)).collect()
    }
}

/// Why a sentinel could not run.
#[derive(Debug, thiserror::Error)]
#[error("sentinel: {what} failed")]
pub struct StartError {
    what: String,
    source: io::Error,
}

impl StartError {
    pub(crate) fn new<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self { what: what.into(), source: source.into() }
    }
}

/// Runs the sentinel until it is told to end. Call it first thing in a process that has one thread
/// and has loaded nothing else.
///
/// # Errors
/// When something it cannot do without is missing: the state directory, its lock, a signal
/// descriptor. Locked memory, real-time scheduling and cgroups are asked for, not demanded.
pub fn run(options: &Options) -> Result<ExitCode, StartError> {
    let memory_locked = realtime::lock_with_room().is_ok();
    let realtime = realtime::request_fifo(realtime::SENTINEL_PRIORITY).is_ok();
    // What services leave behind becomes ours to reap; a zombie would keep its number taken.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(StartError::new("becoming the subreaper"))?;
    std::fs::create_dir_all(&options.state_dir)
        .map_err(StartError::new(format!("creating {}", options.state_dir.display())))?;
    let signals = shell::signals().map_err(StartError::new("opening a signal descriptor"))?;
    let waited = Lock::wait(&options.state_dir, &signals).map_err(StartError::new("taking the sentinel's lock"))?;
    // Told to end while another sentinel was in charge; it was told too.
    let Some(lock) = waited else {
        return Ok(ExitCode::SUCCESS);
    };
    Shell::start(options, lock, signals, realtime, memory_locked)?.run()
}

/// Replaces the calling agent, whose sentinel died, by a new sentinel: in the same process where
/// that can be had at once. Returns only when it failed; the process should then end, so that its
/// supervisor starts it again.
#[must_use]
pub fn become_sentinel() -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "oarlock".into());
    let mut own = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == UNDER_SENTINEL {
            arguments.next();
        } else {
            own.push(argument);
        }
    }
    // The same program even when its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(own);
    if !identity::has_stuck_thread() {
        return command.exec();
    }
    // Before it executes anything, the kernel ends all other threads and waits for that, which with
    // a disk that hangs takes for ever, and nobody would hold the deadline. A new process does not
    // wait; what is left of this one stays behind until the disk answers.
    match command.spawn() {
        Ok(_) => std::process::exit(0),
        Err(error) => error,
    }
}
