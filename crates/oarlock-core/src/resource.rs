//! What the core tells the shell to do with a resource, and what the shell reports back.
//!
//! Every command that starts something is answered by exactly one observation that ends it
//! (`Done`, `Failed`, …). `Exited`, `Status` and the link observations come unasked.

pub mod database;

use crate::ids::ResourceId;
use database::{DataCommand, DataObservation};
use serde::{Deserialize, Serialize};

/// Under what right an exclusive thing is started. The sentinel refuses it once the lease of `gen`
/// has lapsed or an epoch not below `epoch` was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The node's generation.
    pub generation: u64,
    /// The group's epoch.
    pub epoch: u64,
}

/// An imperative for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For `Kind::Address` and `Kind::ReaderAddress`.
    Address(AddressCommand),
    /// For a database.
    Database(DataCommand),
    /// For `Kind::Service`.
    Service(ServiceCommand),
}

/// What happened to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// For `Kind::Address` and `Kind::ReaderAddress`.
    Address(AddressObservation),
    /// For a database.
    Database(DataObservation),
    /// For `Kind::Service`.
    Service(ServiceObservation),
}

/// Imperatives for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressCommand {
    /// Add it and announce it until the neighbours have it; reset connections that hung on the
    /// former owner. Answered by `Up` or `Failed`.
    Raise {
        /// The right to do so.
        guard: Guard,
    },
    /// Remove it, destroy the connections to it, refuse late comers. Answered by `Down`.
    Lower,
}

/// What happened to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressObservation {
    /// It is on this node.
    Up,
    /// It is not on this node.
    Down,
    /// It could not be raised, or was taken away behind our back.
    Failed {
        /// In words.
        reason: String,
    },
    /// Its interface has a carrier (true) or has lost it (false). Reported once at start.
    Link {
        /// Carrier present.
        up: bool,
    },
}

/// Imperatives for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceCommand {
    /// Start it. Answered by `Started` or `Failed`.
    Start {
        /// The right to do so.
        guard: Guard,
        /// True when this follows a change of owner or a crash: the profile repairs what the
        /// former run left behind.
        takeover: bool,
    },
    /// Stop it, by force after its grace; answered by `Stopped`, always.
    Stop {
        /// At once, without asking it.
        kill: bool,
    },
}

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceObservation {
    /// It runs and its check is good.
    Started,
    /// It could not be started, its check failed, or it ended by itself (a clean exit included).
    /// Whatever of it was left has been killed.
    Failed {
        /// In words.
        reason: String,
    },
    /// It was stopped on request; nothing of it is left.
    Stopped,
    /// A check passed; sent regularly while it runs.
    Healthy,
}

/// A resource and what it was told; the shell's to-do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which one.
    pub resource: ResourceId,
    /// What to do.
    pub command: Command,
}
