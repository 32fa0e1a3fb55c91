//! How an agent has long-lived processes started and ended without knowing who does it.
//!
//! In service the sentinel does: it holds the lease's deadline and gates everything that is
//! exclusive ([`sentinel::SentinelLauncher`]). Tests use [`direct::DirectLauncher`], which forks by itself and gates nothing.

pub mod direct;
pub mod sentinel;

use oarlock_core::resource::Guard;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// A process to start: in a cgroup and session of its own, with default signals and closed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnRequest {
    /// Its name on this node, also that of its cgroup; nothing of that name may run yet.
    pub name: String,
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// User it runs as.
    pub uid: u32,
    /// Group it runs as.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// File that its output and errors are appended to.
    pub log: PathBuf,
    /// The right to run, for something exclusive; `None` for what may run anywhere.
    pub guard: Option<Guard>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody saw how (it was not our child).
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "exit code {code}"),
            Ended::Signal(signal) => write!(f, "signal {signal}"),
            Ended::Unknown => f.write_str("ended"),
        }
    }
}

/// A notice: the main process of `name` has ended (others of its cgroup may still run).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// As given to [`Launcher::spawn`].
    pub name: String,
    /// Its process number.
    pub pid: u32,
    /// How.
    pub ended: Ended,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// There is no right to do so (any more): the lease has lapsed or the epoch was released.
    #[error("refused: {reason}")]
    Refused {
        /// In words.
        reason: String,
    },
    /// The operating system said no, or nothing of that name runs.
    #[error("{reason}")]
    Failed {
        /// In words.
        reason: String,
    },
}

/// From one look for what lingers to the next.
const LINGER_PACE: Duration = Duration::from_millis(50);

/// Waits until nothing of `name` is left. What was killed and waits for a disk counts as stopped, for it answers
/// nobody; but a write of it may be under way, and must have ended before anybody else writes to the same files.
///
/// # Errors
/// It is still there after `limit`.
pub async fn wait_gone<L: Launcher>(launcher: &L, name: &str, limit: Duration) -> Result<(), LaunchError> {
    let gone = async {
        while launcher.alive(name).await? {
            tokio::time::sleep(LINGER_PACE).await;
        }
        Ok(())
    };
    let late = || LaunchError::Failed {
        reason: format!("killed processes of {name} still wait for a disk after {} ms", limit.as_millis()),
    };
    tokio::time::timeout(limit, gone).await.unwrap_or_else(|_| Err(late()))
}

/// Starts and ends processes. Every call has the implementation's own deadline. That a process has
/// ended is told to its owner as an [`Exit`], by whoever receives the implementation's notices.
pub trait Launcher: Clone + Send + Sync + 'static {
    /// Starts a process and returns its number.
    fn spawn(&self, request: SpawnRequest) -> impl Future<Output = Result<u32, LaunchError>> + Send;

    /// The same for a start script: what it leaves behind stays when it has ended, until
    /// [`Launcher::kill_group`].
    fn spawn_script(&self, request: SpawnRequest) -> impl Future<Output = Result<u32, LaunchError>> + Send;

    /// Whether any process of `name` is there.
    fn alive(&self, name: &str) -> impl Future<Output = Result<bool, LaunchError>> + Send;

    /// The number of the main process of `name` if it runs (an agent that was restarted adopts it).
    fn running(&self, name: &str) -> impl Future<Output = Result<Option<u32>, LaunchError>> + Send;

    /// SIGKILL for every process of `name`; returns when none is left, or fails and says what is.
    /// Nothing of that name running is success.
    fn kill_group(&self, name: &str) -> impl Future<Output = Result<(), LaunchError>> + Send;

    /// Sends a signal to the main process of `name`.
    fn signal(&self, name: &str, signal: i32) -> impl Future<Output = Result<(), LaunchError>> + Send;

    /// Makes the running `name` exclusive under `guard`, then creates `trigger_file` and signals
    /// the main process; undone (killed) if the right lapsed meanwhile.
    fn promote(
        &self,
        name: &str,
        trigger_file: PathBuf,
        signal: i32,
        guard: Guard,
    ) -> impl Future<Output = Result<(), LaunchError>> + Send;

    /// Makes the running `name` exclusive under `guard`, or no longer exclusive.
    fn mark_guarded(&self, name: &str, guard: Option<Guard>) -> impl Future<Output = Result<(), LaunchError>> + Send;
}
