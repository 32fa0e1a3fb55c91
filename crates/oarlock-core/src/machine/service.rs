//! The table of a service.

use super::Failures;
use crate::resource::{Guard, ServiceCommand, ServiceObservation};
use crate::time::Mono;

/// What a service promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// Not known: after the start of the agent, after a lapse.
    Unknown,
    /// Nothing of it runs.
    Stopped,
    /// On its way up.
    Starting,
    /// Runs and its check is good.
    Running,
    /// On its way down.
    Stopping,
    /// Failed; nothing of it runs.
    Failed,
}

/// One service on this node.
#[derive(Clone, Debug)]
pub struct Service {
    state: ServiceState,
    /// Failures on this node.
    pub failures: Failures,
}

impl Default for Service {
    fn default() -> Service {
        Service { state: ServiceState::Unknown, failures: Failures::default() }
    }
}

/// What is wanted of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceWant {
    /// It runs.
    Up {
        /// The right to run it.
        guard: Guard,
        /// It ran elsewhere, or died, before.
        takeover: bool,
    },
    /// It is stopped in its own way.
    Down,
    /// It is gone at once.
    Killed,
}

impl Service {
    /// What it promises.
    pub fn state(&self) -> ServiceState {
        self.state
    }

    /// Whether nothing of it is here, as its own answer to a stop said. One that failed may run all the
    /// same: the failure may be that of an earlier start, told late.
    pub fn is_down(&self) -> bool {
        self.state == ServiceState::Stopped
    }

    /// Whether it should run and does not.
    pub fn has_failed(&self) -> bool {
        self.state == ServiceState::Failed
    }

    /// The sentinel may have killed it.
    pub fn forget(&mut self) {
        self.state = ServiceState::Unknown;
    }

    /// The next command for what is wanted.
    pub fn next(&mut self, now: Mono, want: ServiceWant) -> Option<ServiceCommand> {
        use ServiceState::{Failed, Running, Starting, Stopped, Stopping, Unknown};
        let (state, command) = match (self.state, want) {
            (Unknown | Stopped, ServiceWant::Up { guard, takeover }) => {
                (Starting, ServiceCommand::Start { guard, takeover })
            }
            (Failed, ServiceWant::Up { guard, .. }) if self.failures.retry_at().is_none_or(|at| now >= at) => {
                (Starting, ServiceCommand::Start { guard, takeover: true })
            }
            (Running, ServiceWant::Down) => (Stopping, ServiceCommand::Stop { kill: false }),
            (Unknown | Failed, ServiceWant::Down | ServiceWant::Killed) | (Running | Starting, ServiceWant::Killed) => {
                (Stopping, ServiceCommand::Stop { kill: true })
            }
            (Starting, ServiceWant::Down) => (Stopping, ServiceCommand::Stop { kill: true }),
            (Running | Failed, ServiceWant::Up { .. }) | (Stopped | Starting | Stopping, _) => return None,
        };
        self.state = state;
        Some(command)
    }

    /// Something happened. Late answers to a command that was overtaken by a stop change nothing.
    pub fn observe(&mut self, now: Mono, what: &ServiceObservation) {
        match (what, self.state) {
            (ServiceObservation::Stopped, _) => self.state = ServiceState::Stopped,
            (ServiceObservation::Started, ServiceState::Starting) => self.state = ServiceState::Running,
            (ServiceObservation::Failed { reason }, ServiceState::Starting | ServiceState::Running) => {
                self.failures.add(now, reason);
                self.state = ServiceState::Failed;
            }
            (ServiceObservation::Healthy, _) => self.failures.forgive(now),
            _ => {}
        }
    }
}
