//! What is left of a failing seed is shorter, and breaks the same rule.

use oarlock_core::Rules;
use oarlock_sim::run::Plan;
use oarlock_sim::scenario::Layout;
use oarlock_sim::shrink::shrink;

#[test]
fn a_failing_seed_is_left_with_fewer_faults() {
    let rules = Rules { lease_durable: false, ..Rules::default() };
    let failing = (1..500).map(|seed| Plan { rules, ..Plan::new(seed, Layout::Two) });
    let shrunk = failing.into_iter().find_map(|plan| shrink(&plan)).expect("a seed that fails");
    let (left, all) = (shrunk.verdict.list.len(), shrunk.verdict.struck);
    assert!(left < all as usize, "{left} of {all} faults");
    let again = shrunk.plan.run();
    assert_eq!(again.broken, shrunk.verdict.broken, "the same once more");
    assert_eq!(again.list, shrunk.verdict.list);
}

#[test]
fn a_seed_that_does_not_fail_has_nothing_to_shrink() {
    assert!(shrink(&Plan::new(1, Layout::Two)).is_none());
}

#[test]
fn four_servers_without_a_witness() {
    for seed in 1..=60 {
        assert_eq!(Plan::new(seed, Layout::FourPlain).run().broken, None, "seed {seed}");
    }
}
