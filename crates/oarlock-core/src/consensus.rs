//! The only module that names the consensus library (`raft`). It replicates [`Entry`]s; being its
//! leader grants nothing but the duty to plan: leases and promises are ours (PROTOCOL §1).

mod frame;
mod store;

pub use frame::{Frame, LogEntry, Snapshot};
pub use store::Log;

use crate::config::Config;
use crate::entry::Entry;
use crate::ids::{NodeId, VoterId};
use crate::state::State;
use crate::time::{Mono, Span};
use raft::eraftpb::{ConfChange, ConfChangeType, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use std::collections::VecDeque;
use store::{Seat, Store};

/// What one turn of the library wants done, in this order.
#[derive(Default)]
pub struct Output {
    /// Frames that may leave now.
    pub send: Vec<(NodeId, Frame)>,
    /// A whole state that replaces what was applied so far.
    pub replace: Option<(u64, State)>,
    /// Entries to apply: index and entry.
    pub committed: Vec<(u64, Entry)>,
    /// The log changed: it must be saved, then [`Consensus::persisted`] called with what
    /// [`Consensus::given`] was then.
    pub persist: bool,
}

/// Why this voter cannot go on.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConsensusError {
    /// The leader has seen us hold more than our disk gave back.
    #[error("the log ends at {last}, but {acknowledged} was acknowledged: the disk has lost writes")]
    LogLost {
        /// Where it ends.
        last: u64,
        /// What we had acknowledged.
        acknowledged: u64,
    },
    /// An entry that this version does not know.
    #[error("entry {index} cannot be decoded: written by a newer version?")]
    UnknownEntry {
        /// Its index.
        index: u64,
    },
    /// The library refused.
    #[error("consensus: {0}")]
    Library(String),
}

/// What the library gave out in one turn and may be said once that is on the disk.
struct Pending {
    number: u64,
    /// Something of it has to be on the disk; else it only waits for those before it.
    saves: bool,
    /// It replaces the whole state: the library counts it as applied only from the disk.
    snapshot: bool,
    after: Vec<(NodeId, Frame)>,
}

/// The library, driven by ticks and frames.
pub struct Consensus {
    node: RawNode<Store>,
    /// In order, none of them on the disk yet.
    pending: VecDeque<Pending>,
    /// The last turn given out.
    given: u64,
    tick: Span,
    next_tick: Mono,
    /// Something happened to the library since it was last asked what it wants.
    stirred: bool,
}

/// Ticks per heartbeat of the library.
const TICKS_PER_HEARTBEAT: u64 = 2;
/// Compact when more than this many entries are kept.
const KEEP_ENTRIES: usize = 64;

impl Consensus {
    /// Starts from what was saved, or from the beginning.
    ///
    /// # Errors
    /// When the library refuses the log.
    pub fn new(
        me: NodeId,
        voter: VoterId,
        log: Option<Log>,
        config: &Config,
        now: Mono,
    ) -> Result<Consensus, ConsensusError> {
        let log = log.unwrap_or_else(|| Log::begin(State::begin(config.clone())));
        let timing = config.timing;
        let tick = Span((timing.heartbeat.0 / TICKS_PER_HEARTBEAT).max(1));
        let election_tick = (timing.election.0 / tick.0).max(3 * TICKS_PER_HEARTBEAT);
        // One fixed timeout per rank: deterministic, and no two campaign at once. Witnesses go
        // first: a leader that owns nothing does not die with the owner.
        let mut ranks: Vec<(bool, NodeId)> = config.nodes.iter().map(|node| (!node.witness, node.id)).collect();
        ranks.sort();
        let rank = ranks.iter().position(|(_, id)| *id == me).unwrap_or(ranks.len()) as u64;
        let min_election_tick = (election_tick + rank * (TICKS_PER_HEARTBEAT + 1)) as usize;
        let settings = raft::Config {
            id: u64::from(me.0),
            election_tick: election_tick as usize,
            heartbeat_tick: TICKS_PER_HEARTBEAT as usize,
            min_election_tick,
            max_election_tick: min_election_tick + 1,
            applied: log.base_index,
            max_size_per_msg: 64 * 1024,
            max_inflight_msgs: 16,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: 1024 * 1024,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings, Store::new(log, Seat { me, voter }), &logger)
            .map_err(|error| ConsensusError::Library(error.to_string()))?;
        Ok(Consensus { node, pending: VecDeque::new(), given: 0, tick, next_tick: now + tick, stirred: true })
    }

    /// When the library next counts.
    pub fn next_tick(&self) -> Mono {
        self.next_tick
    }

    /// When [`Consensus::tick`] must be called at the latest for the library to lose no time. A tick in which it would
    /// only count waits for the one after it.
    pub fn wakeup(&self) -> Mono {
        let raft = &self.node.raft;
        let (counted, due) = if self.is_leader() {
            let quorum = raft.election_timeout().saturating_sub(raft.election_elapsed);
            (0, quorum.min(raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed())))
        } else {
            (raft.election_elapsed, raft.randomized_election_timeout())
        };
        if due > counted + 1 { self.next_tick + self.tick } else { self.next_tick }
    }

    /// Lets time pass. True when that made us, as leader, send heartbeats.
    pub fn tick(&mut self, now: Mono) -> bool {
        let mut beat = false;
        for _ in 0..TICKS_PER_HEARTBEAT {
            if self.next_tick <= now {
                if !self.installs() {
                    self.node.tick();
                    self.stirred = true;
                }
                self.next_tick += self.tick;
                beat |= self.is_leader() && self.node.raft.heartbeat_elapsed() == 0;
            }
        }
        // After a pause of ours the peers may well have spoken: do not race through elections.
        if self.next_tick <= now {
            self.next_tick = now + self.tick;
        }
        beat
    }

    /// A snapshot is on its way to the disk. Until it is there the library counts nothing after the state before it as
    /// applied, looks for those entries before it campaigns, and panics because they are gone (seed four/3534). Who
    /// needed a snapshot is no candidate for that moment.
    fn installs(&self) -> bool {
        self.pending.iter().any(|pending| pending.snapshot)
    }

    /// Takes a frame from a peer.
    ///
    /// # Errors
    /// [`ConsensusError::LogLost`] when it shows that our disk has lost acknowledged entries.
    pub fn step(&mut self, from: NodeId, frame: Frame) -> Result<(), ConsensusError> {
        let Some(message) = frame.into_message(from) else { return Ok(()) };
        let last = self.node.store().last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term >= self.node.raft.term
            && message.commit > last
        {
            return Err(ConsensusError::LogLost { last, acknowledged: message.commit });
        }
        if message.get_msg_type() == MessageType::MsgTimeoutNow && self.installs() {
            return Ok(());
        }
        // What the library does not want (unknown peers, late answers) is not our trouble.
        let _ = self.node.step(message);
        self.stirred = true;
        Ok(())
    }

    /// Proposes an entry; false when this node is not the leader.
    pub fn propose(&mut self, entry: &Entry) -> bool {
        if !self.is_leader() {
            return false;
        }
        let Ok(data) = postcard::to_stdvec(entry) else { return false };
        self.stirred = true;
        match entry {
            // The library counts such changes, and takes one at a time.
            Entry::Voters { .. } => self.node.propose_conf_change(data, ConfChange::default()).is_ok(),
            _ => self.node.propose(Vec::new(), data).is_ok(),
        }
    }

    /// Whether the library believes that we lead. An isolated leader believes it for a while too.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether we lead and have committed an entry of our own term: only then is what we have
    /// applied fresh enough to plan with.
    pub fn may_plan(&self) -> bool {
        self.is_leader() && self.node.raft.commit_to_current_term()
    }

    /// The leader, as far as known.
    pub fn leader(&self) -> Option<NodeId> {
        u8::try_from(self.node.raft.leader_id).ok().filter(|id| *id != 0).map(NodeId)
    }

    /// Asks the library to let another voter lead; it may not come to that.
    pub fn hand_leadership(&mut self, to: NodeId) {
        self.node.transfer_leader(u64::from(to.0));
        self.stirred = true;
    }

    /// The library's term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// What must be saved.
    pub fn log(&self) -> Log {
        self.node.store().log().clone()
    }

    /// Whether the library may want something done.
    pub fn is_stirred(&self) -> bool {
        self.stirred
    }

    /// Collects what the library wants done now.
    ///
    /// # Errors
    /// When a committed entry cannot be decoded: applying stops, nothing is skipped.
    pub fn turn(&mut self) -> Result<Output, ConsensusError> {
        let mut output = Output::default();
        self.stirred = false;
        while self.node.has_ready() {
            self.one_ready(&mut output)?;
        }
        Ok(output)
    }

    /// The last turn given out: what [`Consensus::log`] holds now goes as far as this.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// The log as it was after turn `number` is on the disk: the library may go on, and these
    /// frames may leave.
    pub fn persisted(&mut self, number: u64) -> Vec<(NodeId, Frame)> {
        let mut send = Vec::new();
        let mut reached = number;
        let done = |pending: &Pending| pending.number <= number || !pending.saves;
        while self.pending.front().is_some_and(done) {
            let Some(pending) = self.pending.pop_front() else { break };
            reached = reached.max(pending.number);
            send.extend(pending.after);
        }
        self.node.on_persist_ready(reached);
        self.count_applied();
        self.stirred = true;
        send
    }

    /// Everything committed that was given out is applied by now.
    fn count_applied(&mut self) {
        if !self.installs() {
            self.node.advance_apply();
        }
    }

    fn one_ready(&mut self, output: &mut Output) -> Result<(), ConsensusError> {
        let mut ready = self.node.ready();
        let sent = output.send.len();
        output.send.extend(frames(ready.take_messages()));
        // A frame may be lost and nobody tells: taken for arrived, the probe that follows finds out.
        // The library would wait for ever for the answer to a snapshot that never came.
        let snapshots_to: Vec<NodeId> =
            output.send[sent..].iter().filter(|(_, frame)| frame.is_snapshot()).map(|(to, _)| *to).collect();
        let must_save = ready.must_sync();
        let snapshot = !ready.snapshot().is_empty();
        if snapshot {
            let whole = Snapshot::from_raft(ready.snapshot());
            let index = whole.index;
            let state: State = postcard::from_bytes(&whole.data).map_err(|_| ConsensusError::UnknownEntry { index })?;
            self.node.mut_store().install(&whole, state.clone());
            output.committed.clear();
            output.replace = Some((index, state));
        }
        decode(ready.take_committed_entries(), output)?;
        let entries = ready.take_entries();
        self.node.mut_store().append(entries.iter().map(LogEntry::from_raft).collect());
        if let Some(hard) = ready.hs() {
            self.node.mut_store().set_hard(hard);
        }
        let after = frames(ready.take_persisted_messages()).collect();
        let number = ready.number();
        self.given = number;
        self.node.advance_append_async(ready);
        if must_save || !self.pending.is_empty() {
            output.persist |= must_save;
            self.pending.push_back(Pending { number, saves: must_save, snapshot, after });
        } else {
            output.send.extend(after);
            self.node.on_persist_ready(number);
        }
        self.count_applied();
        for to in snapshots_to {
            self.node.report_snapshot(u64::from(to.0), SnapshotStatus::Finish);
        }
        Ok(())
    }

    /// Forgets entries once there are many: `state` is what they led to, up to `applied`. What the library does not
    /// count as applied yet stays.
    pub fn compact(&mut self, applied: u64, state: &State) {
        let counted = self.node.raft.raft_log.applied >= applied;
        if counted && self.node.store().log().entries.len() > KEEP_ENTRIES {
            self.node.mut_store().compact(applied, state);
        }
    }

    /// The voters are those of `state` now; `forgotten` is a node under a new identity, of whose
    /// log nothing is known.
    ///
    /// # Errors
    /// When the library refuses what it must not refuse.
    pub fn follow_voters(&mut self, state: &State, forgotten: Option<NodeId>) -> Result<(), ConsensusError> {
        if let Some(node) = forgotten {
            self.change_conf(ConfChangeType::RemoveNode, u64::from(node.0))?;
        }
        self.stirred = true;
        let want = self.node.store().seat().conf(state);
        let have = self.node.raft.prs().conf().to_conf_state();
        for id in want.voters.iter().filter(|id| !have.voters.contains(id)) {
            self.change_conf(ConfChangeType::AddNode, *id)?;
        }
        for id in want.learners.iter().filter(|id| !have.learners.contains(id)) {
            self.change_conf(ConfChangeType::AddLearnerNode, *id)?;
        }
        Ok(())
    }

    fn change_conf(&mut self, kind: ConfChangeType, id: u64) -> Result<(), ConsensusError> {
        let mut change = ConfChange { node_id: id, ..ConfChange::default() };
        change.set_change_type(kind);
        match self.node.apply_conf_change(&change) {
            Ok(_) => Ok(()),
            Err(error) => Err(ConsensusError::Library(error.to_string())),
        }
    }
}

fn frames(messages: Vec<raft::eraftpb::Message>) -> impl Iterator<Item = (NodeId, Frame)> {
    messages
        .into_iter()
        .filter_map(|message| Some((NodeId(u8::try_from(message.to).ok()?), Frame::from_message(message)?)))
}

fn decode(entries: Vec<raft::eraftpb::Entry>, output: &mut Output) -> Result<(), ConsensusError> {
    for entry in entries {
        let LogEntry { index, data, .. } = LogEntry::from_raft(&entry);
        // The library's own entry at the start of each term is empty.
        if data.is_empty() {
            continue;
        }
        let decoded = postcard::from_bytes(&data).map_err(|_| ConsensusError::UnknownEntry { index })?;
        output.committed.push((index, decoded));
    }
    Ok(())
}
