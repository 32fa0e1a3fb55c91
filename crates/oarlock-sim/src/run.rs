//! One seed: a swarm of faults, then everything is healed and must come back by itself.

use crate::database::Instance;
use crate::faults::{Fault, Sort, Swarm};
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::scenario::{Layout, Variant};
use crate::shrink::LeftOut;
use crate::world::{What, World};
use oarlock_core::Rules;
use oarlock_core::config::{Failback, Kind, Timing};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// Which machines.
    pub layout: Layout,
    /// Print each event.
    pub tracing: bool,
    /// Print each message too.
    pub tracing_messages: bool,
    /// Rules of the cores.
    pub rules: Rules,
    /// A broken rule of the world.
    pub sabotage: Option<Sabotage>,
    /// Faults at all.
    pub faults: bool,
    /// Whether groups return to their first node; drawn when absent.
    pub failback: Option<Failback>,
    /// Faults that are left out.
    pub left_out: LeftOut,
    /// Only these kinds of fault, as often each, instead of what is drawn.
    pub only: &'static [Sort],
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rule that was broken, in words.
    pub broken: Option<String>,
    /// Events handled.
    pub events: u64,
    /// Simulated time, in microseconds.
    pub simulated_us: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// From the healing to the end of all trouble, in microseconds.
    pub settled_us: u64,
    /// How many faults there were.
    pub struck: u32,
    /// What struck when and where.
    pub list: Vec<String>,
}

/// How long everything may take to come back: the longest pause between two tries, twice, the
/// time after which a stuck copy is replaced, and the time after which failures are forgotten.
const BOUND_US: u64 = 90_000_000;

impl Plan {
    /// The plan of a seed with every rule in force.
    #[must_use]
    pub fn new(seed: u64, layout: Layout) -> Plan {
        Plan {
            seed,
            layout,
            tracing: false,
            tracing_messages: false,
            rules: Rules::default(),
            sabotage: None,
            faults: true,
            failback: None,
            left_out: LeftOut::default(),
            only: &[],
        }
    }

    /// A world as this plan begins it.
    #[must_use]
    pub fn world(&self) -> World {
        let mut draw = crate::rng::Rng::new(self.seed ^ 0x0a71_0c4b);
        let mut variant = Variant::plain(self.layout);
        if self.faults {
            variant.timing = match draw.within(0, 9) {
                0..=3 => Timing::FAST,
                4..=7 => Timing::BALANCED,
                _ => Timing::RELAXED,
            };
            variant.failback = if draw.chance(300) { Failback::Auto } else { Failback::Never };
            variant.readers = draw.chance(300);
            // Not drawn: even seeds stay what they were before groups could depend on each other.
            variant.depends = self.seed % 2 == 1;
        }
        variant.failback = self.failback.unwrap_or(variant.failback);
        let mut world = World::new(self.seed, variant);
        world.tracing = self.tracing;
        world.tracing_messages = self.tracing_messages;
        // Separate ones can be lost or overtake each other one by one.
        world.bundles = draw.chance(850);
        world.rules = self.rules;
        world.sabotage = self.sabotage;
        world.swarm = Swarm::draw(&mut draw);
        if !self.only.is_empty() {
            let sorts = self.only.iter().map(|sort| (*sort, 1)).collect();
            let drawn = std::mem::replace(&mut world.swarm, Swarm::of(sorts));
            (world.swarm.pause_us, world.swarm.seed) = (drawn.pause_us, drawn.seed);
        }
        world.swarm.left_out = self.left_out;
        world.swarm.listing = true;
        let config = world.config.clone();
        for (id, group) in config.groups() {
            for (resource, _) in group.resources(id).filter(|(_, known)| known.kind == Kind::Postgresql) {
                for node in &group.nodes {
                    world.hosts[usize::from(node.0) - 1].databases.insert(resource, Instance::default());
                }
            }
        }
        for host in 0..world.hosts.len() {
            world.soon(0, 300_000, What::Fault(Fault::PowerOn(host)));
        }
        world
    }

    /// Runs it to the end.
    #[must_use]
    pub fn run(&self) -> Verdict {
        let mut world = self.world();
        if self.tracing {
            println!("seed {} layout {}", self.seed, self.layout);
            print!("{}", world.swarm);
            println!("{:?}", world.variant);
        }
        // A cluster that never was up is a dull one, but that happens too.
        let quiet = world.rng.within(1_000_000, 6_000_000);
        world.run_until(world.now + quiet);
        if self.faults {
            world.checks.faulty = true;
            world.after(0, What::Fault(Fault::Next));
            let faulty = world.rng.within(5_000_000, 25_000_000);
            world.run_until(world.now + faulty);
        }
        let mut draw = Rng::new(self.seed ^ 0xc04e);
        let mut settled_us = 0;
        if self.faults && draw.chance(500) {
            world.heal_core(&mut draw);
            settled_us = converge(&mut world, &mut draw);
        }
        let healed = world.now;
        settled_us = settled_us.max(settle(&mut world, healed));
        Verdict::of(&world, settled_us)
    }
}

impl Verdict {
    /// How it went in this world.
    #[must_use]
    pub fn of(world: &World, settled_us: u64) -> Verdict {
        Verdict {
            broken: world.checks.broken.clone(),
            events: world.handled,
            simulated_us: world.now,
            acknowledged: world.clients.iter().map(|client| client.acknowledged).sum(),
            settled_us,
            struck: world.swarm.struck,
            list: world.swarm.list.clone(),
        }
    }
}

/// Heals everything and waits until all is well; the time that took, in microseconds.
pub(crate) fn settle(world: &mut World, healed: u64) -> u64 {
    world.heal();
    converge(world, &mut Rng::new(0));
    world.now - healed
}

/// Waits until all is well with whatever was healed; the time that took, in microseconds.
fn converge(world: &mut World, draw: &mut Rng) -> u64 {
    let mut healed = world.now;
    let mut good = 0;
    let mut last = None;
    while world.checks.broken.is_none() && world.now < healed + BOUND_US {
        if world.extend_core(draw) {
            healed = world.now;
        }
        world.calm_requests();
        world.run_until(world.now + 250_000);
        match world.unsettled() {
            None => good += 1,
            Some(what) => {
                good = 0;
                last = Some(what);
            }
        }
        // Stays so for a second and a half.
        if good >= 6 {
            return world.now - healed;
        }
    }
    world.say_explanations();
    let seconds = BOUND_US / 1_000_000;
    world.broken("convergence", format!("{seconds} s after the healing: {}", last.unwrap_or_default()));
    world.now - healed
}
