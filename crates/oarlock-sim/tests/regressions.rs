//! Seeds that once showed something wrong, with what it was. Any change of the model gives a seed
//! another course; those whose course matters are scenarios as well.

use oarlock_sim::run::Plan;
use oarlock_sim::scenario::Layout;

/// What was wrong when the seed failed, or took long to settle.
const SEEDS: &[(Layout, u64, &str)] = &[
    (Layout::Four, 1381, "a lost snapshot was never sent again; a move that ended elsewhere was tried for ever"),
    (Layout::Two, 78, "failback to a node where the group keeps failing"),
    (Layout::Two, 88, "failback to a node where the group keeps failing"),
    (Layout::Two, 126, "a standby taken back by another administrator"),
    (Layout::Two, 8033, "the model did not tell that a server died while it was handed over"),
    (Layout::Two, 11427, "the model let clients in again before the standby had what they could see"),
    (Layout::Two, 12892, "as 8033"),
];

#[test]
fn seeds_that_failed_once() {
    for (layout, seed, what) in SEEDS {
        let verdict = Plan::new(*seed, *layout).run();
        assert_eq!(verdict.broken, None, "seed {seed} of layout {layout}: {what}");
    }
}
