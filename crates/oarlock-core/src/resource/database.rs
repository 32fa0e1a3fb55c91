//! The words between the core and the agent of a database, whatever its engine.

use super::Guard;
use crate::ids::{CopyId, NodeId};
use serde::{Deserialize, Serialize};

/// A position in a primary's log. Of two positions of one primary the larger is the later; the unit is the
/// engine's own (PostgreSQL: bytes of write-ahead log; MariaDB: transactions, the GTID's sequence number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

/// Imperatives. One at a time: the next is given after the answer to the last, except `Kill`,
/// which may interrupt anything (the interrupted command is then not answered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataCommand {
    /// Look at the data directory and at a server that may still run in its cgroup (adoption).
    /// Answered by `Inspected`.
    Inspect,
    /// Make a new, empty database cluster with a new copy id. Only into an absent or empty
    /// directory. Answered by `Inspected` or `Failed`.
    Initialize,
    /// Replace this node's copy by a fresh clone of the primary on `from`; what is there is moved
    /// aside first, never deleted before the clone is complete. New copy id.
    /// Answered by `Inspected` or `Failed`.
    Clone {
        /// The node whose primary is copied.
        from: NodeId,
    },
    /// Save the divergent tail, then rewind this node's copy onto the history of the primary on
    /// `from`. New copy id. Answered by `Inspected` or `Failed` (then the core orders `Clone`).
    Rewind {
        /// The node whose primary is followed.
        from: NodeId,
    },
    /// Start as a standby of `upstream`, or point a running standby at it. Its own
    /// guard is preset so that, once promoted, no commit is acknowledged.
    /// Answered by `Started` or `Failed`.
    Follow {
        /// The node whose primary is followed.
        upstream: NodeId,
        /// The epoch of that primary's ownership; part of the name we connect under.
        epoch: u64,
    },
    /// Start as the primary (crash recovery included), closed to clients and with no commit
    /// acknowledged. Answered by `Started` or `Failed`.
    StartPrimary {
        /// The right to do so.
        guard: Guard,
    },
    /// Make the running standby the primary; still no commit is acknowledged.
    /// Answered by `Promoted` or `Failed`.
    Promote {
        /// The right to do so.
        guard: Guard,
    },
    /// Commits wait for every one of `members` (guard ON), for none when empty (guard OFF).
    /// Answered by `GuardSet` once *proven* effective (PROTOCOL §5.5, §6.1), or `Failed`.
    SetGuard {
        /// Nodes to wait for.
        members: Vec<NodeId>,
        /// The epoch of our ownership, part of the name they connect under.
        epoch: u64,
    },
    /// Let clients in; on a standby they may only read, and are out again before `Promoted` is told.
    /// Answered by `Opened` or `Failed`.
    Open,
    /// Planned stop: shut clients out, wait until `standby` has flushed everything, stop fast.
    /// Answered by `Stopped`, or by `Failed` when the standby did not catch up within the
    /// deadline (then clients are let in again and the move is off).
    HandOver {
        /// Who must have everything.
        standby: NodeId,
    },
    /// Stop now, by SIGKILL of its cgroup. Answered by `Stopped`.
    Kill,
    /// Stop a standby, or a primary that has no standby to hand over to, in an orderly way; by
    /// SIGKILL after a deadline. Answered by `Stopped`.
    Stop,
}

/// What is in the data directory and what runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// Nothing: absent or empty directory.
    Absent,
    /// A database cluster.
    Present {
        /// The copy's number; an adopted directory without one is given one by `Inspect`.
        copy: CopyId,
        /// The identifier of the database cluster, which all its copies share.
        system: u64,
        /// True while it is configured as a standby (its files say so).
        standby: bool,
        /// What runs on it now.
        running: Option<Running>,
    },
    /// Something is there that must not be touched (wrong version, unreadable, half a clone by
    /// another program, …).
    Foreign {
        /// In words, with what the administrator can do.
        reason: String,
    },
}

/// A server that runs on a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Running {
    /// As a standby.
    Standby,
    /// As a primary.
    Primary,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataObservation {
    /// Answer to `Inspect`, `Initialize`, `Clone`, `Rewind`.
    Inspected(Data),
    /// The server accepts our own connections.
    Started,
    /// Recovery has ended; it is a primary now.
    Promoted,
    /// The guard is proven effective. `position` is the insert position read *after* that proof.
    GuardSet {
        /// A member that has flushed this far holds every write acknowledged before.
        position: Position,
    },
    /// Clients are let in.
    Opened,
    /// It has stopped on request.
    Stopped,
    /// The last command could not be done. After a failed start, promotion, clone or rewind
    /// nothing of the server runs any more; after a failed guard, opening or hand-over it runs on.
    Failed {
        /// In words.
        reason: String,
    },
    /// The server ended without being told to; whatever was left of it has been killed.
    Exited {
        /// In words.
        reason: String,
    },
    /// Regular report of a running server, at least once per second and at once on changes that
    /// matter (a standby connects or leaves, commits begin to wait).
    Status(DataStatus),
    /// Something the administrator should know: where a divergent tail was saved, that an old one
    /// was removed. Changes nothing.
    Note {
        /// In words.
        text: String,
    },
}

/// State of a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataStatus {
    /// What it is.
    pub running: Running,
    /// Primary: insert position. Standby: last position received and flushed.
    pub position: Position,
    /// Standby: whether it streams from its upstream. Primary: true.
    pub streaming: bool,
    /// Primary: the standbys connected under the current epoch's name.
    pub standbys: Vec<DataStandby>,
    /// Primary: how long the oldest commit has waited for a standby, in milliseconds; none waits: 0.
    pub waiting_ms: u64,
    /// The deep probe's last verdict (a bounded local write and fsync on a primary, a read on a
    /// standby): `None` is good.
    pub sick: Option<String>,
}

/// One connected standby as the primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataStandby {
    /// Which node.
    pub node: NodeId,
    /// Flushed to its disk up to here.
    pub flushed: Position,
    /// In state `streaming`.
    pub streaming: bool,
}
