//! Loss, duplication, reordering, cuts and restarts at random; afterwards everybody must talk.

use std::collections::HashSet;

use super::world::{CALM, Weather, World, ms};

const NODES: usize = 3;
const LINKS: usize = 2;

/// One seed: five seconds of trouble, then calm.
fn run(seed: u64) {
    let mut world = World::new(NODES, LINKS);
    world.seed(seed);
    (0..NODES).for_each(|node| world.start(node));
    let mut seen = HashSet::new();
    let mut number = 0_u64;
    for _ in 0..50 {
        trouble(&mut world);
        for _ in 0..20 {
            let from = world.chance(NODES as u64) as usize;
            let to = (from + 1 + world.chance(NODES as u64 - 1) as usize) % NODES;
            number += 1;
            let length = if world.chance(20) == 0 { 4000 } else { 16 };
            let mut message = number.to_le_bytes().repeat(length / 8);
            message.extend_from_slice(&number.to_le_bytes());
            world.send(from, to, &message);
            world.run(ms(5));
        }
        check(&mut world, &mut seen, number);
    }
    world.weather = CALM;
    world.cut.clear();
    world.run(ms(1500));
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let taken = world.talk((a, b), ms(100));
        assert!(taken <= ms(5), "{taken:?} between {a} and {b}");
        let now = world.now;
        assert!(world.node(a).links(now, b as u8).iter().all(|link| link.up));
        assert!(world.node(b).links(now, a as u8).iter().all(|link| link.up));
    }
    // Whoever settled on different sessions, or still greets, shows it now.
    let handshakes = |world: &mut World| (0..NODES).map(|node| world.node(node).stats().handshakes).sum::<u64>();
    let before = handshakes(&mut world);
    world.run(ms(10_000));
    assert_eq!(handshakes(&mut world), before, "still greeting each other in calm weather");
}

fn trouble(world: &mut World) {
    match world.chance(6) {
        0 => {
            let node = world.chance(NODES as u64) as usize;
            world.start(node);
        }
        1 | 2 => {
            let (from, to) = (world.chance(NODES as u64) as usize, world.chance(NODES as u64) as usize);
            let link = world.chance(LINKS as u64) as usize;
            world.cut.push((from, to, link));
        }
        3 => world.cut.clear(),
        _ => {
            world.weather = Weather {
                loss_percent: world.chance(50),
                duplicate_percent: world.chance(30),
                delay: ms(1 + world.chance(20)),
                jitter: ms(world.chance(60)),
            };
        }
    }
}

/// Every message is whole, and comes once.
fn check(world: &mut World, seen: &mut HashSet<u64>, number: u64) {
    for node in 0..NODES {
        for message in world.received(node) {
            let words: Vec<_> =
                message.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
            assert!(words.iter().all(|word| *word == words[0] && (1..=number).contains(word)));
            assert!(seen.insert(words[0]), "message {} came twice", words[0]);
        }
    }
}

/// More with `OARLOCK_CHAOS_SEEDS=1000`.
#[test]
fn after_any_trouble_everybody_talks() {
    let seeds = std::env::var("OARLOCK_CHAOS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 1..=seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
