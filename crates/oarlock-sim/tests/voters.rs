//! The checkers of the voters catch the rules they stand for: one switch per test.

use oarlock_core::Rules;
use oarlock_sim::run::Plan;
use oarlock_sim::scenario::Layout;

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
