//! Seeds that once showed something wrong, with what it was. Any change of the model gives a seed
//! another course; those whose course matters are scenarios as well.

use oarlock_core::config::Failback;
use oarlock_core::ids::{GroupId, NodeId};
use oarlock_core::request::Request;
use oarlock_sim::directed::{Directed, Missed};
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
    (Layout::Two, 73946, "the failure of an earlier start, told late, made a service that was starting count as gone"),
    (Layout::Four, 13330, "as 73946"),
];

#[test]
fn seeds_that_failed_once() {
    for (layout, seed, what) in SEEDS {
        let verdict = Plan::new(*seed, *layout).run();
        assert_eq!(verdict.broken, None, "seed {seed} of layout {layout}: {what}");
    }
}

/// Courses of each scenario.
const COURSES: std::ops::RangeInclusive<u64> = 1..=10;

/// Plays a scenario and answers with the epoch of the first group after it; then all must heal.
fn play(plan: &Plan, scenario: fn(&mut Directed) -> Result<(), Missed>) -> u64 {
    let mut directed = Directed::new(plan);
    assert_eq!(scenario(&mut directed), Ok(()), "seed {}", plan.seed);
    let epoch = directed.world.checks.truth.group(GroupId(0)).map_or(0, |group| group.epoch);
    assert_eq!(directed.finish().broken, None, "seed {}", plan.seed);
    epoch
}

/// Far behind, and most of what is sent to it is lost: the whole state must come through all the same.
fn lost_snapshot(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.isolate(1);
    directed.run_ms(3_000);
    for turn in 0..80 {
        directed.world.request(0, Request::Maintenance { on: turn % 2 == 0 });
        directed.run_ms(20);
    }
    for other in [0, 2] {
        directed.world.network.mend(other, 1);
        directed.world.network.mend(1, other);
    }
    directed.world.network.loss_permille = 500;
    directed.run_ms(1_000);
    directed.world.network.loss_permille = 0;
    directed.run_ms(2_000);
    Ok(())
}

/// Moved to a node that the owner hears and the leader does not.
fn move_to_the_unheard(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.world.network.cut(1, 2);
    directed.run_ms(1_500);
    directed.world.request(0, Request::Move { group: GroupId(0), to: NodeId(2) });
    directed.run_ms(5_000);
    Ok(())
}

/// The preferred node cannot run the service.
fn failback_to_the_broken(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.world.hosts[0].broken_service = true;
    directed.world.kill_services(0);
    directed.run_ms(10_000);
    Ok(())
}

#[test]
fn a_snapshot_that_is_lost_is_sent_again() {
    for seed in COURSES {
        play(&Plan::new(seed, Layout::Two), lost_snapshot);
    }
}

#[test]
fn a_move_that_ends_elsewhere_is_over() {
    for seed in COURSES {
        let epoch = play(&Plan::new(seed, Layout::Two), move_to_the_unheard);
        assert!(epoch < 10, "seed {seed}: {epoch} owners in five seconds");
    }
}

#[test]
fn failback_waits_until_the_node_is_sound() {
    for seed in COURSES {
        let plan = Plan { failback: Some(Failback::Auto), ..Plan::new(seed, Layout::Two) };
        let epoch = play(&plan, failback_to_the_broken);
        assert!(epoch < 10, "seed {seed}: {epoch} owners in ten seconds");
    }
}

#[test]
fn a_standby_that_another_took_back_stays_so() {
    for seed in COURSES {
        let mut directed = Directed::new(&Plan::new(seed, Layout::Two));
        assert_eq!(directed.until_settled(), Ok(()), "seed {seed}");
        // The owner has nowhere to go, so that the first request waits.
        directed.world.network.cut_replication(0, 1);
        directed.run_ms(3_000);
        directed.world.request(2, Request::Standby { node: NodeId(1), on: true });
        directed.run_ms(500);
        directed.world.request(1, Request::Standby { node: NodeId(1), on: false });
        directed.run_ms(2_000);
        assert!(!directed.world.checks.truth.node(NodeId(1)).standby, "seed {seed}");
        assert_eq!(directed.finish().broken, None, "seed {seed}");
    }
}
