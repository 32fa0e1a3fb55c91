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

/// One entry of the log; `data` is an encoded [`crate::entry::Entry`], or empty. A change of the
/// voters travels through the library as one of its own kind, with nothing in it but ours.
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
    /// The library's voters there: those of the state.
    pub voters: Vec<u8>,
    /// Its learners there: all other nodes.
    pub learners: Vec<u8>,
    /// An encoded [`crate::state::State`].
    pub data: Vec<u8>,
}

/// The library's own form of such a change is left empty, which its parser may have.
fn changes_voters(entry: &eraftpb::Entry) -> bool {
    entry.get_entry_type() != eraftpb::EntryType::EntryNormal
}

fn small(ids: &[u64]) -> Vec<u8> {
    ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect()
}

fn large(ids: &[u8]) -> Vec<u64> {
    ids.iter().map(|id| u64::from(*id)).collect()
}

impl LogEntry {
    pub(super) fn from_raft(entry: &eraftpb::Entry) -> LogEntry {
        LogEntry {
            index: entry.index,
            term: entry.term,
            kind: entry.get_entry_type().value() as u8,
            data: if changes_voters(entry) { entry.context.to_vec() } else { entry.data.to_vec() },
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::Entry {
        let mut entry = eraftpb::Entry { index: self.index, term: self.term, ..Default::default() };
        entry.set_entry_type(eraftpb::EntryType::from_i32(i32::from(self.kind)).unwrap_or_default());
        if changes_voters(&entry) {
            entry.context = self.data.clone().into();
        } else {
            entry.data = self.data.clone().into();
        }
        entry
    }
}

impl Snapshot {
    pub(super) fn from_raft(snapshot: &eraftpb::Snapshot) -> Snapshot {
        let meta = snapshot.get_metadata();
        Snapshot {
            index: meta.index,
            term: meta.term,
            voters: small(&meta.get_conf_state().voters),
            learners: small(&meta.get_conf_state().learners),
            data: snapshot.data.to_vec(),
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::Snapshot {
        let mut snapshot = eraftpb::Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.index;
        meta.term = self.term;
        meta.mut_conf_state().voters = large(&self.voters);
        meta.mut_conf_state().learners = large(&self.learners);
        snapshot.data = self.data.clone().into();
        snapshot
    }
}

impl Frame {
    /// Whether the sender counts with it: such a word is worth something only from the voter that
    /// it is asked of.
    pub fn is_answer(&self) -> bool {
        use eraftpb::MessageType as Kind;
        let kind = Kind::from_i32(i32::from(self.kind));
        kind.is_some_and(|kind| {
            matches!(
                kind,
                Kind::MsgAppendResponse
                    | Kind::MsgRequestVoteResponse
                    | Kind::MsgRequestPreVoteResponse
                    | Kind::MsgHeartbeatResponse
                    | Kind::MsgReadIndexResp
            )
        })
    }

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
