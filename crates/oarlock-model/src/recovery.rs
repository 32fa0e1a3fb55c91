//! From where the protocol stands, with all faults over or one machine gone for good: does the group
//! come to run on one server again? One run is tried, in which everybody does its part at once.

use crate::Protocol;
use crate::history::{Committed, GROUP};
use crate::world::{Act, World};
use oarlock_core::ids::NodeId;

/// So many steps of true time are enough: two leases on the slowest of clocks, and some.
const STEPS: usize = 16;

/// Whether it does: with every machine in service, and with any one of them lost.
pub fn has_one_owner_again(model: &Protocol, world: &World) -> bool {
    let lost = world.nodes().map(Some).chain([None]);
    lost.into_iter().all(|lost| recovers(model, world, lost))
}

fn recovers(model: &Protocol, world: &World, lost: Option<NodeId>) -> bool {
    let mut world = world.clone();
    if let Some(lost) = lost {
        world.power_off(lost);
    }
    for _ in 0..STEPS {
        world.forget_messages();
        round(model, &mut world, lost);
        let state = world.committed(model);
        let owners: Vec<NodeId> = world.owners().collect();
        if owners.len() == 1 && owners.first().copied() == state.living_owner(GROUP) {
            return true;
        }
        world.step(model, Act::Tick(0));
    }
    false
}

/// Everybody who is there learns what is committed, renews, is acknowledged, and promises what it
/// may about the machine that is lost; what can be committed is.
fn round(model: &Protocol, world: &mut World, lost: Option<NodeId>) {
    let there: Vec<NodeId> = world.nodes().filter(|node| Some(*node) != lost).collect();
    let is_there = |node: &NodeId| Some(*node) != lost;
    for _ in 0..2 {
        learn(model, world, &there);
        for node in &there {
            world.step(model, Act::Renew(*node));
        }
        for (from, renew) in world.renewals().into_iter().filter(|(from, _)| is_there(from)) {
            there.iter().for_each(|voter| world.step(model, Act::Hear(*voter, from, renew)));
        }
        let arriving = world.acknowledgements().into_iter().filter(|(_, to, _)| is_there(to));
        arriving.for_each(|(by, to, renew)| world.step(model, Act::Acked(by, to, renew)));
        if let Some(lost) = lost {
            there.iter().for_each(|voter| world.step(model, Act::Promise(*voter, lost)));
        }
        let useful = |entry: &Committed| match entry {
            Committed::Alive { node, .. } => is_there(node),
            // Only of who is lost: the others have the group anyway, or ask for it.
            Committed::Take { node, .. } => !is_there(node),
            Committed::Own { to } => is_there(&to.0),
        };
        if let Some(entry) = world.proposals(model).into_iter().find(useful) {
            world.step(model, Act::Commit(entry));
        }
    }
    learn(model, world, &there);
}

fn learn(model: &Protocol, world: &mut World, there: &[NodeId]) {
    for node in there {
        while world.is_behind(*node) {
            world.step(model, Act::Apply(*node));
        }
    }
}
