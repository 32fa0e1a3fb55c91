//! Each demand on a step fails when what it demands is not so; no invariant has a part in it.

use super::*;
use crate::run::Plan;
use crate::scenario::Layout;

fn begun() -> Player {
    let word = "MS".parse().unwrap();
    let plan = Plan::new(1, Layout::Two);
    let mut player = Player::new(&Course { word, plan, pace: Pace::Settled, witness: false }).unwrap();
    player.begin().unwrap();
    player.step(1, Letter::Ms).unwrap();
    player
}

fn fails(went: Step, with: &str) {
    assert!(went.as_ref().is_err_and(|text| text.contains(with)), "{went:?}");
}

#[test]
fn a_row_that_the_serving_copy_has_not() {
    let mut player = begun();
    player.world().heard.as_mut().unwrap().writes.push(u64::MAX);
    fails(player.rows(), "machine 1 serves without row");
}

#[test]
fn a_machine_that_serves_and_should_not() {
    let mut player = begun();
    player.expected.complete = [false; 2];
    player.expected.serves = None;
    fails(player.comes(), "machine 1 serves, and its copy misses");
}

#[test]
fn a_machine_that_should_serve_and_does_not() {
    let mut player = begun();
    player.step(2, Letter::Mx).unwrap();
    player.step(3, Letter::Xx).unwrap();
    player.expected.complete = [true; 2];
    fails(player.step(4, Letter::Xm), "machine 2 must serve and does not after 5000 ms");
}

#[test]
fn a_set_that_is_not_what_it_must_be() {
    let mut player = begun();
    player.step(2, Letter::Mx).unwrap();
    player.expected.complete = [true; 2];
    fails(player.served_by(0), "machine 1 must serve and does not");
}

#[test]
fn copies_that_differ_or_miss_a_row() {
    let mut player = begun();
    assert_eq!(player.end(), Ok(()));
    assert_eq!(player.equal(), Ok(()));
    player.world().heard.as_mut().unwrap().writes.push(u64::MAX);
    fails(player.equal(), "was acknowledged and is on neither machine");
    let (host, database) = (player.machines[1], player.database);
    player.world().dir(host, database).unwrap().wal.push(u64::MAX);
    fails(player.equal(), "the copies are not equal");
}
