//! What can be asked over the control socket, and the answers.

use super::status::StatusReport;
use serde::{Deserialize, Serialize};

/// A request. Things are called by their names: only the agent knows the running configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The whole state. Answered by `Status`.
    Status,
    /// Who the agent is. Answered by `Info`.
    Info,
    /// What happened. Answered by `Event`s, then `Done`; with `follow`, until the asker leaves.
    Events {
        /// Go on with what happens from now on.
        follow: bool,
        /// Only what happened at or after this time, in milliseconds since 1970.
        since_ms: Option<u64>,
    },
    /// The last decision about a group or node, its inputs and what blocks it. Answered by `Text`.
    Explain {
        /// Name of a group or node.
        what: String,
    },
    /// What would happen if a node failed now, from the same planner. Answered by `Text`.
    Simulate {
        /// Name of the node.
        fail: String,
    },
    /// Hand a group over.
    Move {
        /// Name of the group.
        group: String,
        /// Name of the node.
        node: String,
    },
    /// Take a node out of service, or back into it.
    Standby {
        /// Name of the node.
        node: String,
        /// True: out of service.
        on: bool,
    },
    /// While on, nothing is started, stopped or moved.
    Maintenance {
        /// On or off.
        on: bool,
    },
    /// Forget the failures of a resource.
    Clear {
        /// `resource` or `group/resource`.
        resource: String,
    },
    /// What a node remembers of votes and promises counts for nothing any more.
    Replace {
        /// Name of the node.
        node: String,
    },
    /// Validate a configuration on every node and, unless `dry_run`, commit it.
    Apply {
        /// The whole file.
        text: String,
        /// Only validate.
        dry_run: bool,
    },
}

impl Request {
    /// True for a request that changes something.
    pub fn changes(&self) -> bool {
        match self {
            Request::Status
            | Request::Info
            | Request::Events { .. }
            | Request::Explain { .. }
            | Request::Simulate { .. } => false,
            Request::Move { .. }
            | Request::Standby { .. }
            | Request::Maintenance { .. }
            | Request::Clear { .. }
            | Request::Replace { .. }
            | Request::Apply { .. } => true,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// The whole state.
    Status {
        /// It.
        status: StatusReport,
    },
    /// Who the agent is.
    Info {
        /// It.
        info: AgentInfo,
    },
    /// One thing that happened.
    Event {
        /// It.
        event: EventLine,
    },
    /// An explanation for people.
    Text {
        /// Line by line.
        lines: Vec<String>,
    },
    /// Done, seen to have taken effect.
    Done {
        /// Worth adding, if anything.
        note: Option<String>,
    },
    /// Not possible, and why.
    Negative {
        /// In words.
        reason: String,
        /// What the administrator can do.
        hint: Option<String>,
    },
    /// The request makes no sense: every problem in it.
    Usage {
        /// In words, each with its hint.
        problems: Vec<String>,
    },
    /// No quorum within the deadline.
    NoQuorum,
    /// Refused for safety, with what would be lost.
    Unsafe {
        /// In words.
        reason: String,
    },
    /// The agent failed at it.
    Internal {
        /// In words.
        reason: String,
    },
}

impl Response {
    /// Done, and nothing to add.
    pub fn done() -> Response {
        Response::Done { note: None }
    }

    /// Not possible.
    pub fn negative(reason: impl Into<String>) -> Response {
        Response::Negative { reason: reason.into(), hint: None }
    }
}

impl From<oarlock_core::request::Answer> for Response {
    fn from(answer: oarlock_core::request::Answer) -> Response {
        use oarlock_core::request::Answer;
        match answer {
            Answer::Done => Response::done(),
            Answer::Negative(reason) => Response::negative(reason),
            Answer::NoQuorum => Response::NoQuorum,
            Answer::Unsafe(reason) => Response::Unsafe { reason },
        }
    }
}

/// Who an agent is and what its machine granted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its node.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// The configuration it runs.
    pub generation: u64,
    /// True when the local file differs from the running configuration.
    pub drift: bool,
    /// Real-time scheduling was granted to the sentinel.
    pub realtime: bool,
    /// The sentinel's memory is locked.
    pub memory_locked: bool,
    /// Processes are kept in cgroups (v2).
    pub cgroups: bool,
    /// The sentinel keeps a hardware watchdog.
    #[serde(default)]
    pub watchdog: bool,
    /// How far the clocks of the other nodes are from ours, in milliseconds.
    pub clock_offsets: Vec<ClockOffset>,
}

/// How far another node's clock is from ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// The other node.
    pub node: String,
    /// Its clock minus ours, in milliseconds.
    pub offset_ms: i64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// When, in milliseconds since 1970 on the clock of `node`.
    pub time_ms: u64,
    /// The node that saw it.
    pub node: String,
    /// In words, names instead of numbers.
    pub text: String,
}
