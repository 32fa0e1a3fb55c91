//! The voter's side: what it acknowledged, and what it may promise.

use crate::config::Timing;
use crate::ids::NodeId;
use crate::message::{Promise, Renew};
use crate::rules::Rules;
use crate::state::State;
use crate::time::{Mono, Span};
use std::collections::BTreeMap;

/// This node as a voter on the leases of all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voter {
    started: Mono,
    /// Durable: the longest lease ever acknowledged.
    lease_max: Span,
    /// Until then somebody may count on a lease longer than the usual one.
    long_until: Mono,
    /// How much of `lease_max` is known to be on the disk.
    lease_saved: Span,
    /// Durable: generation and version of the voters promised dead.
    promised: BTreeMap<NodeId, (u64, u64)>,
    /// In memory: before this, no promise about the node.
    until: BTreeMap<NodeId, Mono>,
    /// When the voters changed last: before this, no promise about anybody.
    changed_until: Mono,
    /// In memory: the newest renewal acknowledged.
    last: BTreeMap<NodeId, Renew>,
    /// When each was last acknowledged.
    heard: BTreeMap<NodeId, Mono>,
    /// When its generation was applied here.
    begun: BTreeMap<NodeId, Mono>,
}

/// A voter's answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Acknowledge it.
    Ack,
    /// Say that this generation is over; the next must be above this.
    Refuse {
        /// See above.
        above: u64,
    },
    /// Longer than any before: save [`Voter::lease_max`] first, then answer the next one.
    SaveFirst,
    /// Old news: no answer.
    Ignore,
}

impl Voter {
    /// A voter that starts (again) now. Its own start counts as its last acknowledgement of
    /// everybody, for the longest lease it ever acknowledged.
    pub fn new(started: Mono, lease_max: Span, promised: BTreeMap<NodeId, (u64, u64)>) -> Voter {
        // Drift at its largest: the configuration may not be known yet.
        let long_until = started + lease_max + lease_max;
        Voter {
            started,
            lease_max,
            long_until,
            lease_saved: lease_max,
            promised,
            until: BTreeMap::new(),
            changed_until: Mono(0),
            last: BTreeMap::new(),
            heard: BTreeMap::new(),
            begun: BTreeMap::new(),
        }
    }

    /// To be saved with the rest of the durable state.
    pub fn promised(&self) -> &BTreeMap<NodeId, (u64, u64)> {
        &self.promised
    }

    /// To be saved with the rest of the durable state.
    pub fn lease_max(&self) -> Span {
        self.lease_max
    }

    /// This much is on the disk now.
    pub fn saved(&mut self, lease_max: Span) {
        self.lease_saved = self.lease_saved.max(lease_max);
    }

    /// Nobody counts on a longer lease any more (a grace is over): the usual one is the longest
    /// again, so that a restart of this voter costs no more than that. True when it has to be saved.
    pub fn shorten(&mut self, now: Mono, usual: Span) -> bool {
        let over = self.lease_max > usual && now > self.long_until;
        if over {
            self.lease_max = usual;
            self.lease_saved = self.lease_saved.min(usual);
        }
        over
    }

    /// Another lease is the usual one from now on: what was acknowledged under the former may last for
    /// as long as that.
    pub fn usual_changed(&mut self, now: Mono, former: Span, timing: &Timing) {
        self.long_until = self.long_until.max(now + timing.with_drift(former));
    }

    /// When the node was last acknowledged, if ever since this voter started.
    pub fn heard(&self, node: NodeId) -> Option<Mono> {
        self.heard.get(&node).copied()
    }

    /// Since when the node is silent: its last acknowledged renewal, or our own start.
    pub fn silent_since(&self, node: NodeId) -> Mono {
        let begun = self.begun.get(&node).copied().unwrap_or(self.started);
        self.heard.get(&node).copied().map_or(begun, |heard| heard.max(begun))
    }

    /// A generation of the node was committed: it has a while to send its first renewal before it
    /// is suspected. This changes no promise.
    pub fn began(&mut self, now: Mono, node: NodeId) {
        self.begun.insert(node, now);
    }

    /// The end of the time for which `node` may count on this voter.
    pub fn until(&self, node: NodeId, state: &State) -> Mono {
        self.until.get(&node).copied().unwrap_or(self.forgotten_until(state))
    }

    /// How long anybody may count on what this voter has forgotten with its start or left to others
    /// with a change of the voters.
    fn forgotten_until(&self, state: &State) -> Mono {
        let start = self.started + state.config.timing.with_drift(self.lease_max);
        start.max(self.changed_until)
    }

    /// Answers a renewal; changes nothing but memory, except for [`Reply::SaveFirst`].
    pub fn on_renew(&mut self, now: Mono, from: NodeId, renew: &Renew, state: &State) -> Reply {
        let known = state.node(from);
        let promised = self.promised.get(&from).map_or(0, |(generation, _)| *generation);
        if promised >= renew.generation
            || known.generation > renew.generation
            || (known.dead && known.generation == renew.generation)
        {
            return Reply::Refuse { above: promised.max(known.generation) };
        }
        if renew.voters_version != state.voters.version {
            return Reply::Ignore;
        }
        if renew.lease > self.lease_saved {
            self.lease_max = self.lease_max.max(renew.lease);
            // It is wanted from now on, though nobody counts on it before it is acknowledged.
            self.long_until = self.long_until.max(now + state.config.timing.with_drift(renew.lease));
            return Reply::SaveFirst;
        }
        if let Some(last) = self.last.get(&from) {
            let newer = renew.generation > last.generation
                || renew.incarnation != last.incarnation
                || renew.sequence > last.sequence;
            if renew.generation < last.generation || !newer {
                return Reply::Ignore;
            }
        }
        self.last.insert(from, *renew);
        self.heard.insert(from, now);
        let until = now + state.config.timing.with_drift(renew.lease);
        if renew.lease > state.config.timing.lease {
            self.long_until = self.long_until.max(until);
        }
        // One that was sent before what is forgotten cannot speak of it, so that stands in any case.
        let before = if renew.firm { self.forgotten_until(state) } else { self.until(from, state) };
        let until = until.max(before);
        self.until.insert(from, until);
        Reply::Ack
    }

    /// Promises, if it may: from here on the generation is not acknowledged any more. True when
    /// the promise is new and has to be saved before it is said.
    pub fn promise(&mut self, now: Mono, wish: &Promise, state: &State, rules: Rules) -> Option<bool> {
        let current =
            state.voters.version == wish.voters_version && state.node(wish.node).generation == wish.generation;
        if !current || state.node(wish.node).dead {
            return None;
        }
        if self
            .promised
            .get(&wish.node)
            .is_some_and(|(generation, version)| *generation >= wish.generation && *version == wish.voters_version)
        {
            return Some(false);
        }
        if now < self.until(wish.node, state) && rules.promise_wait {
            return None;
        }
        self.promised.insert(wish.node, (wish.generation, wish.voters_version));
        Some(true)
    }

    /// The voters changed: everybody counts as acknowledged now, for as long as any lease may last
    /// that was granted before, and promises of former versions are void.
    pub fn voters_changed(&mut self, now: Mono, state: &State) {
        self.lease_max = self.lease_max.max(state.voters.lease_max);
        let until = now + state.config.timing.with_drift(self.lease_max);
        if self.lease_max > state.config.timing.lease {
            self.long_until = self.long_until.max(until);
        }
        self.changed_until = until;
        for node in state.nodes.keys() {
            self.until.insert(*node, until);
        }
        // Those of this version were given before a crash, and the change is only replayed.
        self.promised.retain(|_, (_, version)| *version >= state.voters.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn state() -> State {
        let node = |id| crate::config::NodeConfig { id: NodeId(id), name: format!("n{id}"), witness: false };
        State::begin(Config {
            generation: 1,
            text: "".into(),
            cluster: "c".into(),
            timing: Timing::FAST,
            nodes: [1, 2, 3].map(node).to_vec(),
            groups: Vec::new(),
        })
    }

    fn renew(state: &State, lease: Span, sequence: u64) -> Renew {
        Renew {
            incarnation: 1,
            generation: 1,
            voters_version: state.voters.version,
            sequence,
            lease,
            firm: false,
            beacon: 0,
        }
    }

    #[test]
    fn a_grace_is_granted_however_long_the_voter_has_run_and_shortened_when_it_is_over() {
        let state = state();
        let usual = state.config.timing.lease;
        let mut voter = Voter::new(Mono(0), usual, BTreeMap::new());
        let hour = Mono(3_600_000_000);
        let grace = Span::from_ms(10_000);
        assert_eq!(voter.on_renew(hour, NodeId(2), &renew(&state, grace, 1), &state), Reply::SaveFirst);
        assert!(!voter.shorten(hour, usual), "it was only just asked for");
        voter.saved(voter.lease_max());
        let asked = hour + Span::from_ms(20);
        assert_eq!(voter.on_renew(asked, NodeId(2), &renew(&state, grace, 2), &state), Reply::Ack);
        assert!(!voter.shorten(asked + grace, usual), "drift");
        assert!(voter.shorten(asked + grace + grace, usual));
        assert_eq!(voter.lease_max(), usual);
    }
}
