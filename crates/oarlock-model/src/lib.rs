//! Every run, up to a bound, of the protocol of leases, promises and ownership.
//!
//! What decides is the product's own: [`oarlock_core::lease::Holder`], [`oarlock_core::lease::Voter`]
//! and [`oarlock_core::state::State`], called as `oarlock_core::node` calls them. Around them stand a
//! network that loses, doubles and reorders, machines that crash, a sentinel that holds a deadline,
//! and clocks that run as fast or as slow as they may ([`world`]). The consensus library is a log that
//! everybody reads in order and nobody need read in time.
//!
//! docs/internals/protocol.md says what is covered and what is not.

mod history;
mod recovery;
pub mod world;

pub use world::{Act, World};

use oarlock_core::ids::NodeId;
use stateright::{Model, Property};

/// How far to look, and what to break on purpose.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// How many voters; the first two are servers and may own the group.
    pub voters: u8,
    /// How far the clocks go, in steps of true time.
    pub ticks: u8,
    /// Renewals sent by each of the two servers; nobody asks about one that sends none.
    pub renewals: [u8; 2],
    /// Crashes of agents and machines.
    pub crashes: u8,
    /// Entries committed after the first, which make the first server the owner.
    pub entries: u8,
    /// How fast the clocks run.
    pub pace: Pace,
    /// Also show that each state can still become one healthy owner.
    pub recovers: bool,
    /// What is broken on purpose.
    pub broken: Broken,
}

/// How fast the clocks run: each as slow or as fast as is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The first server's is slow and all others are fast: the worst for its lease.
    Worst,
    /// Each keeps its pace; every choice of paces is tried.
    Kept,
    /// Each chooses anew with every step.
    Changing,
}

/// Rules that can be broken, to see that it is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// None.
    #[default]
    Nothing,
    /// A promise is given before it is on the disk.
    PromiseNotDurable,
    /// A voter waits for the length of a lease on its own clock, without the allowance for drift.
    NoDriftAllowance,
    /// A lease is counted from the arrival of the acknowledgement, not from the sending of the renewal.
    CountedFromReceipt,
    /// A voter's start does not count as its last acknowledgement.
    StartDoesNotCount,
    /// A voter promises without waiting for the lease it acknowledged.
    PromiseTooEarly,
    /// Nobody ever proposes a new generation for a node whose lease has lapsed.
    NoNewGeneration,
}

impl Protocol {
    /// One lease, and a machine that crashes once.
    #[must_use]
    pub fn one_lease(voters: u8) -> Protocol {
        Protocol {
            voters,
            ticks: 4,
            renewals: [2, 0],
            crashes: 1,
            entries: 1,
            pace: Pace::Worst,
            recovers: false,
            broken: Broken::Nothing,
        }
    }

    /// A lease that ends and another that begins, with a new owner.
    #[must_use]
    pub fn takeover(voters: u8) -> Protocol {
        Protocol { renewals: [1, 1], crashes: 0, ..Protocol::one_lease(voters) }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        World::all_first(self)
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        world.possible(self, acts);
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut next = world.clone();
        next.step(self, act);
        // What changes nothing is no step.
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("one owner", |_, world: &World| world.owners().count() <= 1),
            Property::always("a promise is kept", |_, world: &World| !world.promise_broken),
            Property::always("dead means silent", |_, world: &World| world.dead_are_silent()),
            Property::sometimes("declared dead", |_, world: &World| world.declares_dead()),
            Property::sometimes("a lease lapses", |_, world: &World| world.has_lapsed()),
        ];
        if self.renewals[1] > 0 {
            let second = |_: &Protocol, world: &World| world.owners().any(|node| node == NodeId(2));
            properties.push(Property::sometimes("taken over", second));
        }
        if self.recovers {
            properties.push(Property::always("one owner again", |model: &Protocol, world: &World| {
                recovery::has_one_owner_again(model, world)
            }));
        }
        properties
    }
}
