//! The table of an address.

use super::Failures;
use crate::resource::{AddressCommand, AddressObservation, Guard};
use crate::time::Mono;

/// What an address promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// Not known: after the start of the agent, after a lapse.
    Unknown,
    /// Not here.
    Down,
    /// Being added.
    Raising,
    /// Here and announced.
    Up,
    /// Being removed.
    Lowering,
    /// Could not be added, or was taken away; not here.
    Failed,
}

/// One address on this node.
#[derive(Clone, Debug)]
pub struct Address {
    state: AddressState,
    /// Its interface has had no carrier since then.
    unlinked_since: Option<Mono>,
    /// Failures on this node.
    pub failures: Failures,
}

impl Default for Address {
    fn default() -> Address {
        Address { state: AddressState::Unknown, unlinked_since: None, failures: Failures::default() }
    }
}

impl Address {
    /// What it promises.
    pub fn state(&self) -> AddressState {
        self.state
    }

    /// Whether its interface has a carrier.
    pub fn is_linked(&self) -> bool {
        self.unlinked_since.is_none()
    }

    /// Since when its interface has had no carrier.
    pub fn unlinked_since(&self) -> Option<Mono> {
        self.unlinked_since
    }

    /// Whether nothing of it is here.
    pub fn is_down(&self) -> bool {
        matches!(self.state, AddressState::Down | AddressState::Failed)
    }

    /// The sentinel may have removed it.
    pub fn forget(&mut self) {
        self.state = AddressState::Unknown;
    }

    /// The next command for what is wanted: `Some(guard)` up, `None` down.
    pub fn next(&mut self, now: Mono, want: Option<Guard>) -> Option<AddressCommand> {
        use AddressState::{Down, Failed, Lowering, Raising, Unknown, Up};
        let (state, command) = match (self.state, want) {
            (Unknown | Down, Some(guard)) => (Raising, AddressCommand::Raise { guard }),
            (Failed, Some(guard)) if self.failures.retry_at().is_none_or(|at| now >= at) => {
                (Raising, AddressCommand::Raise { guard })
            }
            (Unknown, None) if self.failures.retry_at().is_some_and(|at| now < at) => return None,
            (Unknown | Up, None) => (Lowering, AddressCommand::Lower),
            (Up, Some(_)) | (Down | Failed, _) | (Raising | Lowering, _) => return None,
        };
        self.state = state;
        Some(command)
    }

    /// Something happened.
    pub fn observe(&mut self, now: Mono, what: &AddressObservation) {
        match what {
            AddressObservation::Up => self.state = AddressState::Up,
            AddressObservation::Down => self.state = AddressState::Down,
            AddressObservation::Failed { reason } => {
                self.failures.add(now, reason);
                // What could not be removed may still be there.
                let lowering = self.state == AddressState::Lowering;
                self.state = if lowering { AddressState::Unknown } else { AddressState::Failed };
            }
            AddressObservation::Link { up: true } => self.unlinked_since = None,
            AddressObservation::Link { up: false } => {
                self.unlinked_since.get_or_insert(now);
            }
        }
    }
}
