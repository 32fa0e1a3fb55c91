//! The service agent: runs a program (or its start and stop commands), checks it, and tells the
//! core when it fails. A service has no data guard, so it is started only under a guard of the
//! sentinel and killed whole.
//!
//! Facts it stands on: a program that ends by itself has failed, even with exit code 0; what a
//! service leaves behind when it ends is killed before anything else is reported.

mod agent;
mod command;
mod configured;
mod log;
mod monitor;
mod probe;
#[cfg(test)]
mod tests;

pub use command::{Outcome, run};
pub(crate) use probe::describe;
pub use probe::{Custom, Http, Probe, Sql};

use super::launcher::{Exit, Launcher};
use super::user::SystemUser;
use oarlock_core::resource::{ServiceCommand, ServiceObservation};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A future in a box, as traits behind a pointer need it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All that the agent must know of one service.
#[derive(Clone)]
pub struct ServiceSettings {
    /// Its name on this node, also that of its cgroup.
    pub name: String,
    /// How it is started and stopped.
    pub run: Run,
    /// Whom it runs as, its commands and checks included.
    pub user: SystemUser,
    /// Its environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Where its output goes.
    pub log: LogFile,
    /// How its health is seen. It has started when each has passed once. A supervised program
    /// without any is healthy as long as it runs.
    pub checks: Vec<Check>,
    /// How long a start may take until all checks have passed.
    pub start_timeout: Duration,
    /// How long it may take to stop when asked; then it is killed.
    pub stop_timeout: Duration,
    /// What a profile does after a start.
    pub hooks: Option<Arc<dyn Hooks>>,
}

/// How a service is started and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A program that stays in the foreground.
    Supervised {
        /// Program (absolute path) and arguments.
        command: Vec<String>,
        /// The signal that asks it to stop.
        stop_signal: i32,
    },
    /// Commands that start and stop something, and end themselves (as init scripts do). Where
    /// nothing of it stays in the cgroup of the start command, checks must watch it.
    Scripts {
        /// Must end with exit code 0; may be called when it runs already.
        start: Vec<String>,
        /// Its exit code is not relied on.
        stop: Vec<String>,
    },
}

/// Where the output of a service goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The file; its directory is made when absent.
    pub file: PathBuf,
    /// From this size on it is moved into `<file>.1`, replacing the one before; in bytes.
    pub max_bytes: u64,
}

/// One way to see whether a service is well.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is tried.
    pub probe: Probe,
    /// From the end of one try to the next.
    pub interval: Duration,
    /// How long one try may take.
    pub deadline: Duration,
    /// How many tries in a row must fail until the service has failed; at least 1.
    pub failures: u32,
}

/// What a profile adds to a service.
pub trait Hooks: Send + Sync {
    /// Called when the service has just been started by us and is healthy; dropped when it stops.
    /// `takeover` as in [`ServiceCommand::Start`]; `main` is the main process.
    fn started(&self, takeover: bool, main: Option<u32>) -> Boxed<'_, ()>;
}

/// Commands that wait for the agent; the core gives one at a time.
const ORDERS: usize = 8;
/// Notices that wait for the agent.
const NOTICES: usize = 64;

/// Starts service agents.
pub struct ServiceAgent;

/// The way to a running agent; the agent ends when it is dropped, the service does not.
#[derive(Clone, Debug)]
pub struct ServiceHandle {
    orders: mpsc::Sender<ServiceCommand>,
    notices: mpsc::Sender<Notice>,
}

/// What the launcher saw.
#[derive(Debug)]
enum Notice {
    Exited(Exit),
    Emptied,
}

impl ServiceAgent {
    /// Starts the agent of one service as a task of the running tokio runtime. It touches nothing
    /// before its first command; a service that runs already is adopted by `Start`.
    pub fn spawn(
        settings: ServiceSettings,
        launcher: impl Launcher,
        events: mpsc::Sender<ServiceObservation>,
    ) -> ServiceHandle {
        let (orders, order_queue) = mpsc::channel(ORDERS);
        let (notices, notice_queue) = mpsc::channel(NOTICES);
        let agent = agent::Agent::new(settings, launcher, events);
        tokio::spawn(agent.serve(order_queue, notice_queue));
        ServiceHandle { orders, notices }
    }
}

impl ServiceHandle {
    /// Gives a command; false when the agent is gone or has too many commands waiting.
    #[must_use]
    pub fn send(&self, command: ServiceCommand) -> bool {
        self.orders.try_send(command).is_ok()
    }

    /// Tells that a main process of this service has ended.
    pub async fn exited(&self, exit: Exit) {
        let _ = self.notices.send(Notice::Exited(exit)).await;
    }

    /// Tells that the last process of this service is gone.
    pub async fn emptied(&self) {
        let _ = self.notices.send(Notice::Emptied).await;
    }
}
