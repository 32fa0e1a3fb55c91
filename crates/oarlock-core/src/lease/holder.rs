//! The holder's side: renew with every voter, and know until when a majority stands by it.

use crate::ids::NodeId;
use crate::message::Renew;
use crate::time::{Mono, Span};
use crate::voters::Voters;
use std::collections::{BTreeMap, VecDeque};

/// Renewals not yet acknowledged that are remembered; older ones count for nothing any more.
const REMEMBERED: usize = 64;

/// A deadline that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Until then the lease holds.
    pub deadline: Mono,
    /// It is earlier than what the sentinel holds from an agent before this one, and takes its place.
    pub shortens: bool,
}

/// This node's own lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    incarnation: u64,
    generation: u64,
    sequence: u64,
    /// Send time of each renewal, taken *before* it was sent; in the order of their numbers.
    sent: VecDeque<(u64, Mono)>,
    /// Until when each voter stands by what it acknowledged, for one version of the voters.
    covered: BTreeMap<NodeId, Mono>,
    covered_version: u64,
    deadline: Option<Mono>,
    /// The newest beacon heard.
    beacon: u64,
    /// No renewal of this agent's can be acknowledged for longer than this.
    asked: Mono,
    /// What the sentinel holds from an agent before this one.
    inherited: Option<Mono>,
    /// The sentinel was asked to put less in its place.
    shortening: bool,
    /// A deadline the sentinel was told of and has not confirmed, since when.
    unconfirmed_since: Option<Mono>,
    lapsed: bool,
    /// The last generation whose lease the sentinel was told of: only its lapse ends it.
    armed: u64,
}

impl Holder {
    /// No lease yet, for any generation.
    pub fn new(incarnation: u64) -> Holder {
        Holder {
            incarnation,
            generation: 0,
            sequence: 0,
            sent: VecDeque::new(),
            covered: BTreeMap::new(),
            covered_version: 0,
            deadline: None,
            beacon: 0,
            asked: Mono(0),
            inherited: None,
            shortening: false,
            unconfirmed_since: None,
            lapsed: true,
            armed: 0,
        }
    }

    /// A lease that an agent before this one renewed and the sentinel still holds.
    pub fn resume(incarnation: u64, generation: u64, deadline: Mono) -> Holder {
        let held = Some(deadline);
        let new = Holder::new(incarnation);
        Holder { generation, deadline: held, inherited: held, lapsed: false, armed: generation, ..new }
    }

    /// Begins a generation that was just applied. A lease of a former generation of the *same*
    /// incarnation goes on until the new one is acknowledged.
    pub fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.sent.clear();
        self.covered.clear();
        if self.lapsed {
            self.deadline = None;
        }
        self.lapsed = false;
    }

    /// The incarnation.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Until when the lease holds; `None` when it does not.
    pub fn deadline(&self) -> Option<Mono> {
        self.deadline.filter(|_| !self.lapsed)
    }

    /// Whether the lease holds at `now`.
    pub fn is_live(&self, now: Mono) -> bool {
        self.deadline().is_some_and(|deadline| now < deadline)
    }

    /// Whether a generation was begun and has not lapsed (its first renewal may be under way).
    pub fn is_begun(&self) -> bool {
        !self.lapsed
    }

    /// Notices a lapse: terminal for the generation. True when it is news.
    pub fn expire(&mut self, now: Mono) -> bool {
        let over = self.deadline().is_some_and(|deadline| now >= deadline);
        if over {
            self.lapse();
        }
        over
    }

    /// The lease is over.
    pub fn lapse(&mut self) {
        self.lapsed = true;
        self.deadline = None;
        self.unconfirmed_since = None;
    }

    /// Everything exclusive of the lapsed incarnation has been stopped: the next generation
    /// belongs to a new one.
    pub fn new_incarnation(&mut self) {
        self.incarnation = self.incarnation.wrapping_add(1);
    }

    /// A renewal to send now, `None` when this node has no right to one: no generation, or a
    /// sentinel that has not answered within `heartbeat`.
    pub fn renew(&mut self, now: Mono, voters: &Voters, lease: Span, heartbeat: Span) -> Option<Renew> {
        if self.lapsed || self.generation == 0 {
            return None;
        }
        if self.unconfirmed_since.is_some_and(|since| now.since(since) > heartbeat) {
            return None;
        }
        // Also new after a restart of the agent, whose predecessor's numbers the voters remember.
        self.sequence = (self.sequence + 1).max(now.0);
        self.sent.push_back((self.sequence, now));
        self.asked = self.asked.max(now + lease);
        let firm = self.inherited.is_none_or(|held| held <= self.asked) && self.asked == now + lease;
        while self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        Some(Renew {
            incarnation: self.incarnation,
            generation: self.generation,
            voters_version: voters.version,
            sequence: self.sequence,
            lease,
            firm,
            beacon: self.beacon,
        })
    }

    /// A voter acknowledged a renewal. Returns the new deadline when it moved.
    ///
    /// A lease that was renewed by an agent before this one, for longer than usual, is given up for
    /// what a majority has acknowledged since: whoever dies soon after a restart need not be waited
    /// for until the end of the time that the restart might have taken.
    pub fn acknowledged(&mut self, from: NodeId, renew: &Renew, voters: &Voters) -> Option<Moved> {
        let ours = renew.generation == self.generation
            && renew.incarnation == self.incarnation
            && renew.voters_version == voters.version;
        if self.lapsed || !ours || !voters.nodes.contains(&from) {
            return None;
        }
        if self.covered_version != voters.version {
            self.covered.clear();
            self.covered_version = voters.version;
        }
        let place = self.sent.binary_search_by_key(&renew.sequence, |(sequence, _)| *sequence).ok()?;
        let until = self.sent.get(place)?.1 + renew.lease;
        // Each voter answers for the length that it acknowledged, not for a longer one that others did.
        let covered = self.covered.entry(from).or_default();
        *covered = until.max(*covered);
        let by_majority =
            |until: &Mono| self.covered.values().filter(|other| *other >= until).count() >= voters.majority();
        let deadline = self.covered.values().copied().filter(by_majority).max()?;
        let shortens = !self.shortening && self.inherited.is_some_and(|held| held > deadline);
        if self.deadline.is_some_and(|known| known >= deadline) && !shortens {
            return None;
        }
        self.shortening |= shortens;
        self.deadline = Some(deadline);
        Some(Moved { deadline, shortens })
    }

    /// The sentinel holds no longer what it held from an agent before this one.
    pub fn shortened(&mut self) {
        self.inherited = None;
    }

    /// A leader was heard.
    pub fn heard_beacon(&mut self, nonce: u64) {
        self.beacon = nonce;
    }

    /// The sentinel was told of a deadline.
    pub fn told_sentinel(&mut self, now: Mono) {
        self.unconfirmed_since.get_or_insert(now);
        self.armed = self.generation;
    }

    /// The last generation whose lease the sentinel was told of.
    pub fn armed(&self) -> u64 {
        self.armed
    }

    /// The sentinel confirmed.
    pub fn sentinel_answered(&mut self, generation: u64) {
        if generation == self.generation {
            self.unconfirmed_since = None;
        }
    }
}
