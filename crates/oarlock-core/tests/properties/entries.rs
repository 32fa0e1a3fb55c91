//! Entries: compare-and-swap, and nothing that counts goes back.

use super::any;
use oarlock_core::entry::Entry;
use oarlock_core::state::{Outcome, State};
use proptest::collection::vec;
use proptest::prelude::*;

/// What never goes back.
fn counters(state: &State) -> Vec<u64> {
    let groups = state.groups.iter().flat_map(|group| [group.epoch, group.version]);
    let nodes = state.nodes.values().map(|node| node.generation);
    [state.config.generation, state.voters.version].into_iter().chain(nodes).chain(groups).collect()
}

/// A permission to replace a copy says no more the second time, but counts the set's version again:
/// that voids a join under way, which is proposed again.
fn but_for_rejoins(mut state: State, entry: &Entry) -> State {
    if let Entry::Rejoin { group, .. } = entry
        && let Some(group) = state.groups.get_mut(usize::from(group.0))
    {
        group.version = 0;
    }
    state
}

fn check_step(before: &State, entry: &Entry) -> Result<State, TestCaseError> {
    let mut once = before.clone();
    let outcome = once.apply(entry);
    if let Outcome::Stale(why) = outcome {
        prop_assert_eq!(before, &once, "stale ({}), and yet it changed something", why);
    }
    let mut twice = once.clone();
    twice.apply(entry);
    prop_assert_eq!(but_for_rejoins(once.clone(), entry), but_for_rejoins(twice, entry), "twice is not once");

    // A new configuration may have fewer groups; those that stay keep their counters.
    for (was, is) in counters(before).iter().zip(counters(&once)) {
        prop_assert!(*was <= is, "a counter went back");
    }
    check_groups(before, &once, entry)?;
    Ok(once)
}

fn check_groups(before: &State, after: &State, entry: &Entry) -> Result<(), TestCaseError> {
    for (id, _) in before.config.groups() {
        let (Some(was), Some(is)) = (before.group(id), after.group(id)) else { continue };
        prop_assert!(was.in_sync.is_empty() || !is.in_sync.is_empty(), "the data is forgotten");
        prop_assert!(was.in_sync == is.in_sync || was.version < is.version, "the set changed under its version");
        prop_assert!(was.owner == is.owner || was.epoch < is.epoch, "the owner changed under its epoch");
        if let Some(owner) = before.living_owner(id) {
            let let_go = match entry {
                Entry::Release { .. } => true,
                Entry::Take { node, .. } | Entry::Alive { node, .. } => *node == owner,
                _ => false,
            };
            prop_assert!(let_go || after.living_owner(id) == Some(owner), "taken from a living owner");
        }
        if let Some(owner) = after.living_owner(id).filter(|_| was.owner != is.owner) {
            let member = is.in_sync.is_empty() || is.in_sync.contains_key(&owner);
            prop_assert!(member, "given to a copy that lacks acknowledged writes");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    #[test]
    fn entries_compare_and_swap(state in any::state(), entries in vec(any::entry(), 1..20)) {
        entries.iter().try_fold(state, |state, entry| check_step(&state, entry))?;
    }
}
