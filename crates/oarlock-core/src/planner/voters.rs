//! Who should vote: the voters shrink after proven deaths, so that the survivors can lose another
//! one, and grow again; a voter without its memory begins anew. One change at a time, and the next
//! only once nobody can act on the voters before the last one (see [`crate::voters::Voters`]).

use crate::entry::Entry;
use crate::ids::{NodeId, VoterId};
use crate::message::Report;
use crate::request::GRACE_LONGEST;
use crate::state::State;
use crate::time::Span;
use crate::voters::VoterChange;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer voters than this would not survive the loss of one: shrinking stops here.
const SMALLEST: usize = 3;
/// How many entries behind the leader a node may be that is to vote.
const BEHIND: u64 = 32;

/// What the leader knows of the voters.
#[derive(Clone, Copy)]
pub struct Electorate<'a> {
    /// What is applied.
    pub state: &'a State,
    /// How far.
    pub applied: u64,
    /// The nodes' own reports.
    pub reports: &'a BTreeMap<NodeId, Report>,
    /// Nodes whose renewals have not come lately.
    pub silent: &'a BTreeSet<NodeId>,
    /// Nodes that have been dead for a while.
    pub absent: &'a BTreeSet<NodeId>,
    /// Nodes that have lost their memory, and the identity they begin anew with.
    pub lost: &'a BTreeMap<NodeId, VoterId>,
    /// Nodes whose memory shall be given up, and an identity that nobody has.
    pub disowned: &'a BTreeMap<NodeId, VoterId>,
    /// Whether the voters before the last change must be known to be over.
    pub settle: bool,
}

/// The next change of the voters, if it is time for one.
pub fn change(know: &Electorate<'_>) -> Option<Entry> {
    let voters = &know.state.voters;
    if !voters.former.is_empty() && know.settle {
        return settled(know);
    }
    let change = replacement(know).or_else(|| resize(know));
    let change = change.map(|change| Entry::Voters { version: voters.version, change });
    change.or_else(|| settled(know).filter(|_| !voters.former.is_empty()))
}

/// The voters before the last change cannot act any more.
fn settled(know: &Electorate<'_>) -> Option<Entry> {
    let voters = &know.state.voters;
    let applied: BTreeSet<NodeId> = know.state.nodes.keys().copied().filter(|node| has_applied(know, *node)).collect();
    let known = applied.iter().filter_map(|node| know.reports.get(node)).map(|report| report.lease_max).max();
    let mut lease_max = known.unwrap_or(Span::ZERO).max(voters.lease_max);
    if !voters.is_majority(&applied) {
        return None;
    }
    if !voters.is_over(&applied) {
        // Whoever has lost its memory does not act on it, but cannot tell what it granted either.
        lease_max = lease_max.max(GRACE_LONGEST);
        let gone = applied.into_iter().chain(know.lost.keys().copied()).collect();
        if !voters.is_over(&gone) {
            return None;
        }
    }
    Some(Entry::VotersSettled { version: voters.version, lease_max })
}

/// Whether the node would find the present voters applied even after a crash.
fn has_applied(know: &Electorate<'_>, node: NodeId) -> bool {
    know.reports.get(&node).is_some_and(|report| {
        report.voters_version >= know.state.voters.version && report.voter == know.state.node(node).voter
    })
}

/// Who has lost its memory goes first. One that is only to be given up waits until no other is
/// lost, and the others could go on without it.
fn replacement(know: &Electorate<'_>) -> Option<VoterChange> {
    let news = |(node, to): (&NodeId, &VoterId)| {
        let from = know.state.nodes.get(node)?.voter;
        (from != *to).then_some(VoterChange::Replace { node: *node, from, to: *to })
    };
    if let Some(change) = know.lost.iter().find_map(news) {
        return Some(change);
    }
    let voters = &know.state.voters;
    let spare = |node: &NodeId| {
        let sound = |other: &&NodeId| {
            *other != node
                && know.state.is_alive(**other)
                && !know.silent.contains(*other)
                && has_applied(know, **other)
        };
        voters.nodes.iter().filter(sound).count() >= voters.majority()
    };
    know.disowned.iter().filter(|(node, _)| spare(node)).find_map(news)
}

fn resize(know: &Electorate<'_>) -> Option<VoterChange> {
    let now = &know.state.voters.nodes;
    let wanted = wanted(know);
    let more = wanted.difference(now).next().map(|node| {
        let voter = know.state.node(*node).voter;
        VoterChange::Add { node: *node, voter }
    });
    more.or_else(|| {
        let node = *now.difference(&wanted).next()?;
        Some(VoterChange::Remove { node, generation: know.state.node(node).generation })
    })
}

/// Who should vote: whoever is there, as long as that is an odd number of at least three or all. An
/// even number would survive no more losses than one less, and needs one more to agree.
fn wanted(know: &Electorate<'_>) -> BTreeSet<NodeId> {
    let now = &know.state.voters.nodes;
    let absent: BTreeSet<NodeId> = now.intersection(know.absent).copied().collect();
    let ready: BTreeSet<NodeId> =
        know.state.nodes.keys().copied().filter(|node| !now.contains(node) && is_ready(know, *node)).collect();
    let mut wanted: BTreeSet<NodeId> = now.difference(&absent).chain(&ready).copied().collect();
    if wanted.len().is_multiple_of(2) && wanted.len() < know.state.nodes.len() {
        let witness = |node: &&NodeId| know.state.config.node(**node).is_some_and(|known| known.witness);
        let spare = ready.iter().find(|node| !witness(node)).or(ready.first());
        match (spare, absent.first()) {
            (Some(spare), _) => {
                wanted.remove(spare);
            }
            (None, Some(kept)) => {
                wanted.insert(*kept);
            }
            (None, None) => {}
        }
    }
    if wanted.len() < SMALLEST {
        return now.union(&ready).copied().collect();
    }
    wanted
}

/// A node that does not vote and could: it lives, is heard, and has the log.
fn is_ready(know: &Electorate<'_>, node: NodeId) -> bool {
    let near = |report: &Report| report.applied + BEHIND >= know.applied;
    know.state.is_alive(node)
        && !know.silent.contains(&node)
        && has_applied(know, node)
        && know.reports.get(&node).is_some_and(near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, NodeConfig, Timing};
    use crate::state::Outcome;

    fn state() -> State {
        let node = |id| NodeConfig { id: NodeId(id), name: format!("n{id}"), witness: false };
        State::begin(Config {
            generation: 1,
            text: "".into(),
            cluster: "c".into(),
            timing: Timing::FAST,
            nodes: [1, 2, 3, 4, 5].map(node).to_vec(),
            groups: Vec::new(),
        })
    }

    #[test]
    fn the_next_change_waits_for_those_before_the_last() {
        let mut state = state();
        let lost = BTreeMap::from([(NodeId(3), VoterId(7))]);
        let (reports, silent, absent) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let next = |state: &State, lost: &BTreeMap<NodeId, VoterId>, settle| {
            let (reports, silent, absent) = (&reports, &silent, &absent);
            change(&Electorate { state, applied: 9, reports, silent, absent, lost, disowned: &BTreeMap::new(), settle })
        };
        let first = next(&state, &lost, true).unwrap();
        assert_eq!(state.apply(&first), Outcome::Applied);
        let also = BTreeMap::from([(NodeId(3), VoterId(7)), (NodeId(4), VoterId(8))]);
        assert_eq!(next(&state, &also, true), None, "nobody has said that it has applied the first");
        assert!(matches!(next(&state, &also, false), Some(Entry::Voters { version: 2, .. })), "the rule is off");
    }
}
