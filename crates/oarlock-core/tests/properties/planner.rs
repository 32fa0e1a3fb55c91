//! The planner against an oracle that says, for each node, whether it may have a group.

use super::any;
use oarlock_core::config::{Failback, GroupConfig};
use oarlock_core::entry::{Entry, Moved};
use oarlock_core::ids::{GroupId, NodeId};
use oarlock_core::message::{GroupReport, Promise, Report};
use oarlock_core::planner::{self, Knowledge};
use oarlock_core::state::{Outcome, State};
use proptest::collection::btree_map;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
struct World {
    state: State,
    reports: BTreeMap<NodeId, Report>,
    silent: BTreeSet<NodeId>,
    promises: BTreeMap<Promise, BTreeSet<NodeId>>,
}

fn worlds() -> impl Strategy<Value = World> {
    let promise =
        (any::node(), 0_u64..3).prop_map(|(node, generation)| Promise { node, generation, voters_version: 1 });
    let promises = btree_map(promise, any::some_nodes(), 0..4);
    (any::state(), any::reports(), any::some_nodes(), promises).prop_map(|(state, reports, mut silent, promises)| {
        // Who was promised dead by a majority has been silent.
        let proven = promises.iter().filter(|(_, by)| state.voters.is_majority(*by));
        silent.extend(proven.map(|(promise, _)| promise.node));
        World { state, reports, silent, promises }
    })
}

impl World {
    fn plan(&self) -> Vec<Entry> {
        planner::plan(&Knowledge {
            state: &self.state,
            reports: &self.reports,
            silent: &self.silent,
            promises: &self.promises,
        })
    }

    fn report(&self, node: NodeId, id: GroupId) -> Option<&GroupReport> {
        let report = self.reports.get(&node)?;
        (report.incarnation == self.state.node(node).incarnation).then(|| &report.groups[usize::from(id.0)])
    }

    /// Whether a node may have a group at all.
    fn may_own(&self, config: &GroupConfig, id: GroupId, node: NodeId) -> bool {
        let known = self.state.node(node);
        let members = &self.state.groups[usize::from(id.0)].in_sync;
        config.nodes.contains(&node)
            && known.generation > 0
            && !known.dead
            && !known.standby
            && !self.silent.contains(&node)
            && (members.is_empty() || members.contains_key(&node))
            && self.report(node, id).is_some_and(|report| report.unfit.is_none())
    }

    fn is_proven_dead(&self, node: NodeId) -> bool {
        let known = self.state.node(node);
        let promised = |(promise, by): (&Promise, &BTreeSet<NodeId>)| {
            promise.node == node && promise.generation == known.generation && by.len() * 2 > usize::from(any::NODES)
        };
        known.generation > 0 && !known.dead && self.promises.iter().any(promised)
    }

    /// Where a group belongs.
    fn best(&self, config: &GroupConfig, id: GroupId, except: Option<NodeId>) -> Option<NodeId> {
        let group = &self.state.groups[usize::from(id.0)];
        let mut able = config.nodes.clone();
        able.retain(|node| Some(*node) != except && self.may_own(config, id, *node));
        if config.data_resource(id).is_some() && group.in_sync.is_empty() {
            // Who has data. With none in sight nobody makes some before all could.
            let asked = config.nodes.iter().map(|node| self.report(*node, id).filter(|report| report.inspected));
            let have = |(node, report): (&NodeId, Option<&GroupReport>)| report?.copy.map(|_| *node);
            let with_data: Vec<NodeId> = config.nodes.iter().zip(asked.clone()).filter_map(have).collect();
            let others = config.nodes.iter().filter(|node| Some(**node) != except);
            let all = able.len() == others.count() && asked.clone().all(|report| report.is_some());
            return match with_data.as_slice() {
                [] => able.first().copied().filter(|_| all),
                [only] => able.contains(only).then_some(*only),
                _ => None,
            };
        }
        let worn = |node: NodeId| self.report(node, id).is_some_and(|report| report.worn.is_some());
        let awaits = |node: NodeId| self.report(node, id).is_some_and(|report| report.awaits.is_some());
        // Least first: not wished for, worn out, would wait, not the last owner, less preferred.
        let order = |(rank, node): &(usize, NodeId)| {
            (group.wanted != Some(*node), worn(*node), awaits(*node), group.last_owner != Some(*node), *rank)
        };
        able.into_iter().enumerate().min_by_key(order).map(|(_, node)| node)
    }

    fn check_moved(&self, moved: &Moved, except: Option<NodeId>) -> Result<(), TestCaseError> {
        let config = self.state.config.group(moved.group).expect("a group of the configuration");
        prop_assert!(self.may_own(config, moved.group, moved.to), "{:?} may not own {:?}", moved.to, moved.group);
        prop_assert_eq!(Some(moved.to), self.best(config, moved.group, except));
        Ok(())
    }

    fn check(&self, entry: &Entry) -> Result<(), TestCaseError> {
        match entry {
            Entry::Take { node, moves, .. } => {
                prop_assert!(self.is_proven_dead(*node));
                prop_assert!(!self.state.maintenance || moves.is_empty(), "moved under maintenance");
                for moved in moves {
                    prop_assert!(moved.to != *node);
                    self.check_moved(moved, Some(*node))?;
                }
            }
            Entry::Own { moved, .. } => {
                prop_assert!(!self.state.maintenance && self.state.living_owner(moved.group).is_none());
                self.check_moved(moved, None)?;
            }
            Entry::Want { group: id, node: Some(to), .. } => {
                let config = self.state.config.group(*id).expect("a group of the configuration");
                let owner = self.state.living_owner(*id).expect("only owners hand over");
                let rank = |node: NodeId| config.nodes.iter().position(|known| *known == node);
                prop_assert!(!self.state.maintenance);
                prop_assert_eq!(Some(*to), self.best(config, *id, Some(owner)));
                let leaves = self.state.node(owner).standby;
                let returns = config.failback == Failback::Auto && rank(*to) < rank(owner);
                let waits = |node: NodeId| self.report(node, *id).is_some_and(|report| report.awaits.is_some());
                prop_assert!(leaves || returns || waits(owner), "moved for no reason");
                prop_assert!(leaves || !waits(*to), "moved to where it would wait");
            }
            other => prop_assert!(false, "not the planner's: {other:?}"),
        }
        Ok(())
    }

    /// What should be planned is planned.
    fn check_nothing_forgotten(&self, plan: &[Entry]) -> Result<(), TestCaseError> {
        for (id, config) in self.state.config.groups().filter(|_| !self.state.maintenance) {
            let given = plan.iter().any(|entry| matches!(entry, Entry::Own { moved, .. } if moved.group == id));
            let free = self.state.living_owner(id).is_none();
            prop_assert_eq!(given, free && self.best(config, id, None).is_some());
        }
        for node in self.state.nodes.keys() {
            let taken = plan.iter().any(|entry| matches!(entry, Entry::Take { node: of, .. } if of == node));
            prop_assert_eq!(taken, self.is_proven_dead(*node));
        }
        Ok(())
    }
}

/// An owner that restarted and was then proven dead: its group is given away for either reason.
fn is_moved_twice(plan: &[Entry], entry: &Entry) -> bool {
    let Entry::Own { moved, .. } = entry else { return false };
    plan.iter().any(|entry| matches!(entry, Entry::Take { moves, .. } if moves.contains(moved)))
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    #[test]
    fn groups_go_where_they_may_and_belong(world in worlds()) {
        let plan = world.plan();
        for entry in &plan {
            world.check(entry)?;
        }
        world.check_nothing_forgotten(&plan)?;
    }

    /// What was planned takes effect, and nothing of it is left to plan; a group that has just got an
    /// owner may be wished elsewhere, but then there is peace.
    #[test]
    fn a_plan_that_was_carried_out_is_not_planned_again(mut world in worlds()) {
        let plan = world.plan();
        for entry in &plan {
            let applied = world.state.apply(entry) == Outcome::Applied;
            prop_assert!(applied || is_moved_twice(&plan, entry), "without effect: {:?}", entry);
        }
        for entry in world.plan() {
            prop_assert!(matches!(entry, Entry::Want { .. }), "left over: {:?}", entry);
            world.state.apply(&entry);
        }
        prop_assert_eq!(world.plan(), []);
    }
}
