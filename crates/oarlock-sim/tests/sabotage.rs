//! Each checker catches the rule it stands for: one switch per test, found within so many seeds.
//! What random faults reach too seldom is in `directed`.

use oarlock_core::Rules;
use oarlock_sim::faults::Sort;
use oarlock_sim::run::Plan;
use oarlock_sim::sabotage::Sabotage;
use oarlock_sim::scenario::Layout;

/// Seeds tried before a checker counts as blind.
const SEEDS: u64 = 1_000;

fn caught(rules: Rules, sabotage: Option<Sabotage>, by: &[&str]) {
    caught_with(&[], rules, sabotage, by);
}

/// The same with these kinds of fault alone: they are strong enough to show it.
fn caught_with(only: &'static [Sort], rules: Rules, sabotage: Option<Sabotage>, by: &[&str]) {
    let noticed = (1..=SEEDS).find_map(|seed| {
        let plan = Plan { rules, sabotage, only, ..Plan::new(seed, Layout::Two) };
        let broken = plan.run().broken?;
        by.iter().any(|rule| broken.starts_with(rule)).then_some((seed, broken))
    });
    assert!(noticed.is_some(), "none of {by:?} noticed within {SEEDS} seeds");
}

#[test]
fn promises_that_are_not_durable() {
    caught(Rules { durable_promises: false, ..Rules::default() }, None, &["witness_memory"]);
}

#[test]
fn promises_before_the_lease_is_over() {
    caught(Rules { promise_wait: false, ..Rules::default() }, None, &["dead_means_proven"]);
}

#[test]
fn a_lease_counted_from_its_acknowledgement() {
    caught(Rules { lease_from_sending: false, ..Rules::default() }, None, &["lease_before_life"]);
}

#[test]
fn commits_stop_waiting_before_the_member_has_left() {
    caught(Rules { leave_first: false, ..Rules::default() }, None, &["no_lost_write"]);
}

#[test]
fn a_copy_joins_without_having_caught_up() {
    caught(Rules { join_catch_up: false, ..Rules::default() }, None, &["no_lost_write"]);
}

#[test]
fn an_address_without_the_sentinels_guard() {
    caught(Rules::default(), Some(Sabotage::UnguardedStart), &["lease_before_life", "one_owner"]);
}

#[test]
fn a_lapse_that_kills_nothing() {
    caught(Rules::default(), Some(Sabotage::LapseSparesPrograms), &["lease_before_life"]);
}

#[test]
fn a_standby_that_confirms_what_it_has_not_flushed() {
    caught(Rules::default(), Some(Sabotage::ConfirmUnflushed), &["no_lost_write"]);
}

#[test]
fn a_sentinel_that_knows_nothing_of_the_one_before() {
    caught(Rules::default(), Some(Sabotage::SuccessorForgets), &["lease_before_life", "one_owner"]);
}

#[test]
fn a_voter_that_forgets_a_grace_in_a_crash() {
    caught(Rules { lease_durable: false, ..Rules::default() }, None, &["dead_means_proven"]);
}

#[test]
fn a_core_that_cannot_serve() {
    caught(Rules::default(), Some(Sabotage::InsufficientCore), &["convergence"]);
}

#[test]
fn links_that_flap_show_promises_before_the_lease_is_over() {
    let rules = Rules { promise_wait: false, ..Rules::default() };
    caught_with(&[Sort::Flap], rules, None, &["dead_means_proven"]);
}

#[test]
fn a_slow_machine_shows_a_lease_counted_from_its_acknowledgement() {
    let rules = Rules { lease_from_sending: false, ..Rules::default() };
    caught_with(&[Sort::Gray], rules, None, &["lease_before_life"]);
}

#[test]
fn a_stopped_agent_shows_a_lapse_that_kills_nothing() {
    caught_with(&[Sort::Freeze], Rules::default(), Some(Sabotage::LapseSparesPrograms), &["lease_before_life"]);
}

#[test]
fn a_stopped_sentinel_shows_a_successor_that_forgets() {
    let by = ["lease_before_life", "one_owner"];
    caught_with(&[Sort::SentinelStop, Sort::CutHost], Rules::default(), Some(Sabotage::SuccessorForgets), &by);
}

/// That clocks beyond what is allowed for are excused is needed: they do break what rests on clocks.
#[test]
fn clocks_that_jump_break_what_rests_on_clocks() {
    let by = ["dead_means_proven", "lease_before_life", "one_owner"];
    caught_with(&[Sort::ClockStep, Sort::CutHost], Rules::default(), Some(Sabotage::ClocksJudged), &by);
}
