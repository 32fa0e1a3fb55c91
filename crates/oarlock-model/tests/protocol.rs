//! The protocol within its bounds, and each broken rule noticed. `--nocapture` shows the counts.

use oarlock_model::{Broken, Pace, Protocol};
use stateright::{Checker, HasDiscoveries, Model};
use std::time::Instant;

/// Goes through every run of so many states; all properties must hold, and what should be reached must be
/// reached.
fn explore(name: &str, depth: usize, model: Protocol) {
    let start = Instant::now();
    let checker = model.checker().threads(1).target_max_depth(depth).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{name}, runs of {depth} states: {states} states, {:.1} s", start.elapsed().as_secs_f64());
    checker.assert_properties();
}

/// The shortest way to what must never be.
fn is_caught(model: Protocol, property: &'static str) {
    let start = Instant::now();
    let broken = model.broken;
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let path = checker.discovery(property);
    let steps = path.map(|path| path.into_actions());
    let spent = start.elapsed().as_secs_f64();
    println!("{broken:?}: {} states, {spent:.1} s, {steps:?}", checker.unique_state_count());
    assert!(steps.is_some(), "{broken:?} is not noticed as \"{property}\": {:?}", checker.discoveries().keys());
}

fn broken(broken: Broken) -> Protocol {
    Protocol { broken, ..Protocol::one_lease(3) }
}

#[test]
fn one_lease_of_three_voters() {
    explore("one lease, 3 voters", 10, Protocol::one_lease(3));
}

#[test]
fn a_takeover_with_three_voters() {
    explore("takeover, 3 voters", 10, Protocol::takeover(3));
}

#[test]
fn one_lease_with_clocks_that_change_their_pace() {
    let model = Protocol { pace: Pace::Changing, crashes: 0, renewals: [1, 0], ..Protocol::one_lease(3) };
    explore("one lease, 3 voters, changing pace", 7, model);
}

#[test]
fn one_lease_of_five_voters() {
    explore("one lease, 5 voters", 10, Protocol { renewals: [1, 0], crashes: 0, ..Protocol::one_lease(5) });
}

#[test]
fn one_owner_again_from_everywhere() {
    let model = Protocol { recovers: true, renewals: [1, 0], pace: Pace::Worst, ..Protocol::one_lease(3) };
    explore("one lease, 3 voters, recovery from each state", 8, model);
}

#[test]
fn a_promise_that_is_not_durable_is_caught() {
    is_caught(broken(Broken::PromiseNotDurable), "a promise is kept");
}

#[test]
fn a_voter_that_does_not_allow_for_drift_is_caught() {
    is_caught(Protocol { crashes: 0, renewals: [1, 0], ..broken(Broken::NoDriftAllowance) }, "dead means silent");
}

#[test]
fn a_lease_that_is_counted_from_receipt_is_caught() {
    is_caught(Protocol { crashes: 0, renewals: [1, 0], ..broken(Broken::CountedFromReceipt) }, "dead means silent");
}

#[test]
fn a_voter_that_forgets_with_its_start_is_caught() {
    is_caught(Protocol { renewals: [1, 0], ..broken(Broken::StartDoesNotCount) }, "dead means silent");
}

#[test]
fn a_promise_given_too_early_is_caught() {
    is_caught(Protocol { crashes: 0, renewals: [1, 0], ..broken(Broken::PromiseTooEarly) }, "dead means silent");
}

#[test]
fn a_group_that_cannot_come_back_is_caught() {
    let model = Protocol { recovers: true, renewals: [1, 0], crashes: 0, ..broken(Broken::NoNewGeneration) };
    is_caught(model, "one owner again");
}
