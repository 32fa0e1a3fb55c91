//! Each checker catches the rule it stands for, in a scenario made for it; with the rule in force
//! the same scenario passes.

use oarlock_core::Rules;
use oarlock_core::config::Timing;
use oarlock_core::ids::{GroupId, NodeId};
use oarlock_core::request::Request;
use oarlock_sim::database::Role;
use oarlock_sim::directed::{Directed, Missed, has_role, server_on};
use oarlock_sim::faults::{Sort, Swarm};
use oarlock_sim::run::Plan;
use oarlock_sim::sabotage::Sabotage;
use oarlock_sim::scenario::Layout;
use oarlock_sim::world::World;

/// Delays are drawn: so many courses of each scenario.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=60;

type Scenario = fn(&mut Directed) -> Result<(), Missed>;

fn play(layout: Layout, seed: u64, rules: Rules, scenario: Scenario) -> Option<String> {
    let mut directed = Directed::new(&Plan { rules, ..Plan::new(seed, layout) });
    if let Err(missed) = scenario(&mut directed) {
        return Some(format!("there never was {}", missed.what));
    }
    directed.finish().broken
}

/// Caught by `rule` in one course at least with `broken` rules, and clean in all with those in force.
fn shows(layout: Layout, broken: Rules, rule: &str, scenario: Scenario) {
    let caught: Vec<String> = SEEDS.filter_map(|seed| play(layout, seed, broken, scenario)).collect();
    assert!(caught.iter().any(|text| text.starts_with(rule)), "{rule} noticed nothing; others: {caught:?}");
    for seed in SEEDS {
        assert_eq!(play(layout, seed, Rules::default(), scenario), None, "seed {seed}, all rules in force");
    }
}

/// The owner is cut off, and in the same moment the other voters' agents are killed: they know of
/// no lease any more, but for their own start.
fn voters_forget(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.run_ms(500);
    directed.isolate(0);
    directed.world.agent_crashes(1);
    directed.world.agent_crashes(2);
    directed.run_ms(4_000);
    Ok(())
}

/// The owner's clock is as slow and the voters' as fast as is allowed, and it is cut off.
fn slow_owner(directed: &mut Directed) -> Result<(), Missed> {
    for host in 0..5 {
        directed.set_clock_rate(host, if host == 0 { 953_000 } else { 1_047_000 });
    }
    directed.until_settled()?;
    directed.run_ms(500);
    directed.isolate(0);
    directed.run_ms(4_000);
    Ok(())
}

/// The standby's server dies: its copy still counts.
fn standby_dies(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.run_ms(500);
    directed.kill_database(1);
    directed.run_ms(4_000);
    Ok(())
}

/// A primary with a row that its standby has not is restarted in place, and its agent with it; the
/// standby is connected again, but its disk hangs.
fn row_of_one(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.world.request(2, Request::Standby { node: NodeId(2), on: true });
    directed.until("a standby out of service", |world| world.checks.truth.node(NodeId(2)).standby)?;
    directed.freeze_database(1, true);
    directed
        .until("a commit that waits", |world| server_on(world, 0).is_some_and(|server| !server.waiting.is_empty()))?;
    directed.run_ms(20);
    directed.kill_database(0);
    directed.until("a server that starts", |world| has_role(world, 0, Role::StartingPrimary))?;
    directed.run_ms(5);
    directed.world.agent_crashes(0);
    directed.until("another agent", |world| world.core(0).is_some())?;
    directed.world.freeze(0, true);
    directed.freeze_database(1, false);
    directed.until("a connected standby", |world| !world.connections.is_empty())?;
    directed.freeze_database(1, true);
    directed.world.freeze(0, false);
    directed.run_ms(600);
    directed.freeze_database(1, false);
    directed.run_ms(2_000);
    Ok(())
}

/// A service is handed over; the proposal to let it go is on a slow way when the agent dies that made
/// it, and another agent takes its place.
fn late_release(directed: &mut Directed) -> Result<(), Missed> {
    const SERVICE: GroupId = GroupId(1);
    directed.until_settled()?;
    directed.run_ms(500);
    directed.world.request(2, Request::Move { group: SERVICE, to: NodeId(2) });
    let is_bare =
        |world: &World| world.hosts[0].run.addresses().is_empty() && world.hosts[0].run.programs().count() == 0;
    for other in 1..5 {
        directed.world.network.detour(0, other, 150_000);
    }
    directed.until("a service that is stopped", is_bare)?;
    directed.run_ms(2);
    directed.world.agent_crashes(0);
    for other in 1..5 {
        directed.world.network.mend(0, other);
    }
    directed.run_ms(4_000);
    Ok(())
}

/// From the guard's order until the copy's join is proposed, and not longer.
const LATE_JOIN_MS: u64 = 100;

/// A copy is about to join: the proposal is on a slow way when the agent dies that made it. The next
/// agent finds the standby gone, and would have commits wait for nobody.
fn late_join(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.run_ms(500);
    directed.freeze_database(1, true);
    directed.until("a set of one", |world| {
        world.checks.truth.group(GroupId(0)).is_some_and(|group| group.in_sync.len() == 1)
    })?;
    directed.run_ms(300);
    // The next one begins with a new version, which its agent may not find on its own disk after a restart.
    directed.kill_database(0);
    directed.until("a server that starts", |world| has_role(world, 0, Role::StartingPrimary))?;
    directed.freeze_database(1, false);
    let proposes = |world: &World| {
        // Its own epoch's standby, for which commits have begun to wait.
        let standby = world.connections.values().any(|connection| connection.standby.0 == 1);
        standby && server_on(world, 0).is_some_and(|server| server.sync.as_ref().is_some_and(|sync| !sync.is_empty()))
    };
    directed.until("a guard that waits for the standby", proposes)?;
    for other in 1..3 {
        directed.world.network.detour(0, other, 250_000);
    }
    directed.run_ms(LATE_JOIN_MS);
    directed.world.agent_crashes(0);
    directed.kill_database(1);
    for other in 1..3 {
        directed.world.network.mend(0, other);
    }
    directed.run_ms(2_000);
    Ok(())
}

/// Leases become shorter, the owner is cut off, and the other voters' agents are killed once they have
/// that on their disks: what they acknowledged before was for longer.
fn shorter_leases(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.run_ms(3_000);
    // Times may change: sentinels keep the shortest of the budgets.
    directed.world.swarm = Swarm::of(vec![(Sort::Configure, 0)]);
    let mut config = directed.world.config.clone();
    config.generation = 2;
    config.text = "shorter".into();
    config.timing = Timing::FAST;
    directed.world.request(2, Request::Apply { config: Box::new(config) });
    let knows = |world: &World, host: usize| world.core(host).is_some_and(|core| core.state().config.generation == 2);
    directed.until("a new configuration", |world| knows(world, 1) && knows(world, 2))?;
    directed.isolate(0);
    directed.run_ms(100);
    directed.world.agent_crashes(1);
    directed.world.agent_crashes(2);
    directed.run_ms(4_000);
    Ok(())
}

/// A service is handed over that is said to have stopped and has not.
fn a_lie(directed: &mut Directed) -> Result<(), Missed> {
    directed.until_settled()?;
    directed.run_ms(500);
    directed.world.request(2, Request::Move { group: GroupId(1), to: NodeId(2) });
    directed.run_ms(5_000);
    Ok(())
}

#[test]
fn an_epoch_that_cannot_be_sealed_is_not_released() {
    let lies = |rules, seed| {
        let plan = Plan { rules, sabotage: Some(Sabotage::StopIsALie), ..Plan::new(seed, Layout::Four) };
        let mut directed = Directed::new(&plan);
        assert_eq!(a_lie(&mut directed), Ok(()));
        directed.world.checks.broken
    };
    let deaf = Rules { seal_heeded: false, ..Rules::default() };
    let caught = SEEDS.filter_map(|seed| lies(deaf, seed)).any(|broken| broken.starts_with("one_owner"));
    assert!(caught, "one_owner noticed nothing");
    for seed in SEEDS {
        assert_eq!(lies(Rules::default(), seed), None, "seed {seed}");
    }
}

#[test]
fn leases_of_the_former_length_stand() {
    let cut_short = Rules { former_lease: false, ..Rules::default() };
    shows(Layout::Two, cut_short, "dead_means_proven", shorter_leases);
}

#[test]
fn commits_wait_for_fewer_only_once_what_a_former_agent_proposed_is_void() {
    shows(Layout::Two, Rules { void_first: false, ..Rules::default() }, "no_lost_write", late_join);
}

#[test]
fn nothing_starts_again_once_its_release_is_proposed() {
    shows(Layout::Four, Rules { seal_first: false, ..Rules::default() }, "one_owner", late_release);
}

#[test]
fn a_start_counts_as_an_acknowledgement() {
    shows(Layout::Two, Rules { start_counts: false, ..Rules::default() }, "dead_means_proven", voters_forget);
}

#[test]
fn unguarded_resources_wait_for_the_stop_budget() {
    shows(Layout::Four, Rules { stop_wait: false, ..Rules::default() }, "one_owner", slow_owner);
}

#[test]
fn a_member_is_not_replaced() {
    shows(Layout::Two, Rules { rejoin_committed: false, ..Rules::default() }, "no_lost_write", standby_dies);
}

#[test]
fn clients_see_what_every_member_has() {
    shows(Layout::Two, Rules { open_flushed: false, ..Rules::default() }, "no_lost_write", row_of_one);
}

#[test]
fn services_wait_for_the_groups_they_depend_on() {
    let broken = Rules { depends_heeded: false, ..Rules::default() };
    shows(Layout::Four, broken, "start_order", Directed::until_settled);
}
