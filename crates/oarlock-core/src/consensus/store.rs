//! The log as the library reads it: a base state and the entries after it, all in memory; the
//! shell saves the whole of it.

use super::frame::{LogEntry, Snapshot};
use crate::ids::{NodeId, VoterId};
use crate::state::State;
use raft::eraftpb::{ConfState, HardState};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Vote, term and log of one voter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Current term.
    pub term: u64,
    /// Voted for in that term; 0 for nobody.
    pub vote: u64,
    /// Known committed when this was saved; may be behind the truth, never ahead.
    pub commit: u64,
    /// Everything up to here is in `state`.
    pub base_index: u64,
    /// The term of `base_index`.
    pub base_term: u64,
    /// The state at `base_index`.
    pub state: Arc<State>,
    /// What follows it.
    pub entries: Vec<LogEntry>,
}

impl Log {
    /// The log of a cluster that begins: the same on every node.
    pub fn begin(state: State) -> Log {
        Log { term: 1, vote: 0, commit: 1, base_index: 1, base_term: 1, state: Arc::new(state), entries: Vec::new() }
    }

    /// The log of a voter that begins without a memory in a cluster that has one: it holds nothing,
    /// so that the leader sends the whole state first.
    pub fn blank(state: State) -> Log {
        Log { term: 0, vote: 0, commit: 0, base_index: 0, base_term: 0, state: Arc::new(state), entries: Vec::new() }
    }
}

pub(super) struct Store {
    log: Log,
    seat: Seat,
}

/// Which voter this is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) me: NodeId,
    pub(super) voter: VoterId,
}

impl Seat {
    /// The library's configuration under a state. A voter whose identity that state does not know
    /// (yet) sees itself as one that only listens.
    pub(super) fn conf(&self, state: &State) -> ConfState {
        let mut conf = conf(state);
        let me = u64::from(self.me.0);
        if state.node(self.me).voter != self.voter && conf.voters.contains(&me) {
            conf.voters.retain(|id| *id != me);
            conf.learners.push(me);
        }
        conf
    }
}

/// The library's configuration is made from ours and from nothing else.
fn conf(state: &State) -> ConfState {
    let (voters, learners) = state.nodes.keys().partition::<Vec<NodeId>, _>(|id| state.voters.nodes.contains(id));
    let numbers = |ids: Vec<NodeId>| ids.iter().map(|id| u64::from(id.0)).collect();
    ConfState { voters: numbers(voters), learners: numbers(learners), ..ConfState::default() }
}

impl Store {
    pub(super) fn new(log: Log, seat: Seat) -> Store {
        Store { log, seat }
    }

    pub(super) fn seat(&self) -> Seat {
        self.seat
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn last_index(&self) -> u64 {
        self.log.base_index + self.log.entries.len() as u64
    }

    pub(super) fn append(&mut self, entries: Vec<LogEntry>) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.log.base_index + 1) as usize;
        self.log.entries.truncate(keep);
        self.log.entries.extend(entries);
    }

    pub(super) fn set_hard(&mut self, hard: &HardState) {
        self.log.term = hard.term;
        self.log.vote = hard.vote;
        self.log.commit = hard.commit.max(self.log.base_index);
    }

    pub(super) fn install(&mut self, snapshot: &Snapshot, state: State) {
        self.log.base_index = snapshot.index;
        self.log.base_term = snapshot.term;
        self.log.commit = self.log.commit.max(snapshot.index);
        self.log.term = self.log.term.max(snapshot.term);
        self.log.state = Arc::new(state);
        self.log.entries.clear();
    }

    pub(super) fn compact(&mut self, applied: u64, state: &State) {
        let Ok(term) = self.term(applied) else { return };
        let drop = (applied - self.log.base_index) as usize;
        self.log.entries.drain(..drop);
        self.log.base_index = applied;
        self.log.base_term = term;
        self.log.state = Arc::new(state.clone());
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard =
            HardState { term: self.log.term, vote: self.log.vote, commit: self.log.commit, ..HardState::default() };
        Ok(RaftState::new(hard, self.seat.conf(&self.log.state)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<raft::eraftpb::Entry>> {
        if low <= self.log.base_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let offset = self.log.base_index + 1;
        let range = (low - offset) as usize..(high - offset) as usize;
        let Some(entries) = self.log.entries.get(range) else {
            return Err(raft::Error::Store(StorageError::Unavailable));
        };
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let fits = |entry: &&LogEntry| {
            let first = size == 0;
            size += entry.data.len() as u64 + 32;
            first || size <= limit
        };
        Ok(entries.iter().take_while(fits).map(LogEntry::to_raft).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.log.base_index {
            return Ok(self.log.base_term);
        }
        if index < self.log.base_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let offset = (index - self.log.base_index - 1) as usize;
        self.log.entries.get(offset).map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(Store::last_index(self))
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<raft::eraftpb::Snapshot> {
        let data = postcard::to_stdvec(self.log.state.as_ref())
            .map_err(|_| raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))?;
        let mut snapshot = raft::eraftpb::Snapshot { data: data.into(), ..Default::default() };
        let meta = snapshot.mut_metadata();
        meta.index = self.log.base_index;
        meta.term = self.log.base_term;
        meta.set_conf_state(conf(&self.log.state));
        Ok(snapshot)
    }
}
