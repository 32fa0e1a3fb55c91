//! The library's messages in our own serde form, so that its protobuf parser never sees the wire.

use crate::ids::NodeId;
use protobuf::ProtobufEnum;
use raft::eraftpb;
use serde::{Deserialize, Serialize};

/// One message of the consensus library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    kind: u8,
    to: u8,
    term: u64,
    log_term: u64,
    index: u64,
    entries: Vec<LogEntry>,
    commit: u64,
    commit_term: u64,
    snapshot: Option<Snapshot>,
    request_snapshot: u64,
    reject: bool,
    reject_hint: u64,
    context: Vec<u8>,
    priority: i64,
}

/// One entry of the log; `data` is an encoded [`crate::entry::Entry`], or empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its place.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// The library's kind of entry.
    pub kind: u8,
    /// What it says.
    pub data: Vec<u8>,
}

/// The whole state at one index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The index.
    pub index: u64,
    /// The term there.
    pub term: u64,
    /// The library's voters there.
    pub voters: Vec<u8>,
    /// An encoded [`crate::state::State`].
    pub data: Vec<u8>,
}

impl LogEntry {
    pub(super) fn from_raft(entry: &eraftpb::Entry) -> LogEntry {
        LogEntry {
            index: entry.index,
            term: entry.term,
            kind: entry.get_entry_type().value() as u8,
            data: entry.data.to_vec(),
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::Entry {
        let mut entry = eraftpb::Entry { index: self.index, term: self.term, ..Default::default() };
        entry.set_entry_type(eraftpb::EntryType::from_i32(i32::from(self.kind)).unwrap_or_default());
        entry.data = self.data.clone().into();
        entry
    }
}

impl Snapshot {
    pub(super) fn from_raft(snapshot: &eraftpb::Snapshot) -> Snapshot {
        let meta = snapshot.get_metadata();
        Snapshot {
            index: meta.index,
            term: meta.term,
            voters: meta.get_conf_state().voters.iter().filter_map(|id| u8::try_from(*id).ok()).collect(),
            data: snapshot.data.to_vec(),
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::Snapshot {
        let mut snapshot = eraftpb::Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.index;
        meta.term = self.term;
        meta.mut_conf_state().voters = self.voters.iter().map(|id| u64::from(*id)).collect();
        snapshot.data = self.data.clone().into();
        snapshot
    }
}

impl Frame {
    pub(super) fn from_message(message: eraftpb::Message) -> Option<Frame> {
        let snapshot = message.has_snapshot().then(|| Snapshot::from_raft(message.get_snapshot()));
        Some(Frame {
            kind: u8::try_from(message.get_msg_type().value()).ok()?,
            to: u8::try_from(message.to).ok()?,
            term: message.term,
            log_term: message.log_term,
            index: message.index,
            entries: message.entries.iter().map(LogEntry::from_raft).collect(),
            commit: message.commit,
            commit_term: message.commit_term,
            snapshot,
            request_snapshot: message.request_snapshot,
            reject: message.reject,
            reject_hint: message.reject_hint,
            context: message.context.to_vec(),
            priority: message.priority,
        })
    }

    /// Whether it carries a whole state.
    pub(super) fn is_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// `from` is who sealed it: a frame cannot speak for another node.
    pub(super) fn into_message(self, from: NodeId) -> Option<eraftpb::Message> {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::from_i32(i32::from(self.kind))?);
        message.to = u64::from(self.to);
        message.from = u64::from(from.0);
        message.term = self.term;
        message.log_term = self.log_term;
        message.index = self.index;
        message.entries = self.entries.iter().map(LogEntry::to_raft).collect();
        message.commit = self.commit;
        message.commit_term = self.commit_term;
        if let Some(snapshot) = &self.snapshot {
            message.set_snapshot(snapshot.to_raft());
        }
        message.request_snapshot = self.request_snapshot;
        message.reject = self.reject;
        message.reject_hint = self.reject_hint;
        message.context = self.context.into();
        message.priority = self.priority;
        Some(message)
    }
}
