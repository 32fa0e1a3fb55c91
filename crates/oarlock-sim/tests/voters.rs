//! The checkers of the voters catch the rules they stand for, one switch per test; and what the
//! voters do when machines and memories are lost.

use oarlock_core::Rules;
use oarlock_core::ids::{GroupId, NodeId, VoterId};
use oarlock_core::request::Request;
use oarlock_sim::run::Plan;
use oarlock_sim::scenario::Layout;
use oarlock_sim::world::World;

/// Seeds tried before a checker counts as blind.
const SEEDS: u64 = 1_000;

fn caught(layout: Layout, rules: Rules, by: &[&str]) {
    let noticed = (1..=SEEDS).find_map(|seed| {
        let broken = Plan { rules, ..Plan::new(seed, layout) }.run().broken?;
        println!("seed {seed}: {broken}");
        by.iter().any(|rule| broken.starts_with(rule)).then_some(seed)
    });
    assert!(noticed.is_some(), "none of {by:?} noticed within {SEEDS} seeds");
}

#[test]
fn voters_that_forget_in_a_crash_who_else_votes() {
    caught(Layout::Four, Rules { voters_durable: false, ..Rules::default() }, &["voters"]);
}

#[test]
fn a_voter_that_goes_on_without_its_memory() {
    caught(Layout::Two, Rules { lost_identity: false, ..Rules::default() }, &["witness_memory"]);
}

/// A world without random faults that has come up.
fn begun(layout: Layout) -> World {
    let mut world = Plan { faults: false, ..Plan::new(11, layout) }.world();
    settle(&mut world);
    world
}

fn pass(world: &mut World, seconds: u64) {
    world.run_until(world.now + seconds * 1_000_000);
    assert_eq!(world.checks.broken, None);
}

fn settle(world: &mut World) {
    for _ in 0..60 {
        pass(world, 1);
        if world.unsettled().is_none() {
            return;
        }
    }
    assert_eq!(world.unsettled(), None);
}

fn voters(world: &World) -> Vec<u8> {
    world.checks.truth.voters.nodes.iter().map(|node| node.0).collect()
}

#[test]
fn the_survivors_of_five_can_lose_another_one() {
    let mut world = begun(Layout::Four);
    let (oar1, db1, db2) = (0, 2, 3);
    world.power_off(oar1);
    world.power_off(db1);
    pass(&mut world, 12);
    assert_eq!(voters(&world), [2, 4, 5]);
    world.power_off(db2);
    pass(&mut world, 12);
    let oar = GroupId(1);
    assert_eq!(world.checks.truth.living_owner(oar), Some(NodeId(2)));
    assert_eq!(world.checks.truth.living_owner(GroupId(0)), None);
    // Its copy is not in the set: it votes in place of the dead one, and serves nothing.
    world.power_on(db1);
    pass(&mut world, 12);
    assert_eq!(voters(&world), [2, 3, 5]);
    assert_eq!(world.checks.truth.living_owner(GroupId(0)), None);
    world.power_on(db2);
    world.power_on(oar1);
    settle(&mut world);
    assert_eq!(voters(&world), [1, 2, 3, 4, 5]);
}

#[test]
fn three_voters_stay_three() {
    let mut world = begun(Layout::Two);
    world.power_off(0);
    pass(&mut world, 30);
    assert_eq!(world.checks.truth.voters.version, 1);
}

#[test]
fn whoever_lost_its_memory_is_let_in_by_the_others_alone() {
    let mut world = begun(Layout::Two);
    world.agent_crashes(2);
    world.hosts[2].disk.lose();
    settle(&mut world);
    assert_ne!(world.checks.truth.node(NodeId(3)).voter, VoterId::FIRST);
    // With the other server away there is no majority without it.
    world.power_off(1);
    pass(&mut world, 10);
    world.agent_crashes(2);
    world.hosts[2].disk.lose();
    pass(&mut world, 20);
    let truth = &world.checks.truth;
    assert!(world.core(2).is_some_and(|core| core.voter() != truth.node(NodeId(3)).voter));
    world.power_on(1);
    settle(&mut world);
}

#[test]
fn a_memory_is_given_up_on_request_where_the_others_can_do_without() {
    let mut world = begun(Layout::Two);
    world.told = Some(Vec::new());
    world.request(0, Request::Replace { node: NodeId(3) });
    settle(&mut world);
    assert_ne!(world.checks.truth.node(NodeId(3)).voter, VoterId::FIRST);
    world.power_off(1);
    pass(&mut world, 10);
    world.request(0, Request::Replace { node: NodeId(3) });
    pass(&mut world, 1);
    let told = world.told.take().unwrap_or_default();
    assert!(told.iter().any(|line| line.contains("Done")), "{told:?}");
    assert!(told.iter().any(|line| line.contains("Unsafe")), "{told:?}");
}
