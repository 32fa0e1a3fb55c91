//! What the protocol does against strangers, and against those who listen and play back.

use super::world::{Sent, World, ms};
use crate::keys::PrivateKey;
use crate::transport::Stats;
use crate::transport::endpoint::Endpoint;

fn kind(sent: &Sent) -> u8 {
    sent.bytes[2]
}

const INITIATION: u8 = 1;
const DATA: u8 = 4;

fn dropped(stats: Stats) -> u64 {
    stats.unauthenticated + stats.replayed + stats.malformed + stats.other_version
}

#[test]
fn a_foreign_key_gets_no_session() {
    let mut world = World::new(2, 1);
    world.start(0);
    // Node 2 changed its key, and node 1 was not told.
    world.keys[1] = PrivateKey::generate().unwrap();
    world.start(1);
    world.send(1, 0, b"hello");
    world.run(ms(1000));
    assert!(world.received(0).is_empty());
    assert!(!world.node(0).has_session(1) && !world.node(1).has_session(0));
    assert!(world.node(0).stats().unauthenticated > 10);
    assert!(world.node(0).suspicions(1).unauthenticated > 10);
}

#[test]
fn another_cluster_gets_no_session() {
    let mut world = World::new(2, 1);
    world.start(0);
    world.start_at(1, 0, "production");
    world.run(ms(1000));
    assert!(!world.node(0).has_session(1) && !world.node(1).has_session(0));
    assert!(world.node(0).stats().unauthenticated > 10);
}

#[test]
fn another_version_is_dropped_and_counted() {
    let mut world = World::pair(1);
    world.run(ms(100));
    let mut sent = world.record.last().cloned().unwrap();
    sent.bytes[1] += 1;
    world.inject(&sent);
    assert_eq!(world.node(sent.to).stats().other_version, 1);
    assert_eq!(world.node(sent.to).suspicions(sent.from as u8).other_version, 1);
}

#[test]
fn everything_played_back_is_dropped_and_counted() {
    let mut world = World::pair(2);
    world.run(ms(100));
    world.send(0, 1, b"pay once");
    world.send(0, 1, &[1; 10_000]);
    // Not at the moment of a probe: everything recorded has arrived.
    world.run(ms(105));
    assert_eq!(world.received(1).len(), 2);
    let before = dropped(world.node(1).stats());
    let record: Vec<_> = world.record.iter().filter(|sent| sent.to == 1 && kind(sent) == DATA).cloned().collect();
    let links = {
        let now = world.now;
        world.node(1).links(now, 0)
    };
    record.iter().for_each(|sent| world.inject(sent));
    assert!(world.received(1).is_empty());
    assert_eq!(dropped(world.node(1).stats()) - before, record.len() as u64);
    let received = |links: &[crate::transport::LinkStatus]| links.iter().map(|l| l.received_bytes).collect::<Vec<_>>();
    let now = world.now;
    assert_eq!(received(&world.node(1).links(now, 0)), received(&links));
}

#[test]
fn a_probe_copied_to_a_dead_link_does_not_make_it_look_alive() {
    let mut world = World::pair(2);
    world.run(ms(100));
    world.set_link((0, 1), 1, false);
    world.run(ms(300));
    let (a, b) = (world.changes(0), world.changes(1));
    assert!(!a.last().unwrap().1 && !b.last().unwrap().1);
    for _ in 0..100 {
        world.record.clear();
        world.run(ms(5));
        // Faster than the original: the copy comes first and on the wrong link.
        let copies: Vec<_> = world.record.iter().filter(|sent| sent.link == 0).cloned().collect();
        for mut copy in copies {
            copy.link = 1;
            world.inject(&copy);
        }
    }
    assert!(world.changes(0).iter().all(|(link, up)| !(link.to_string().starts_with("10.0.1") && *up)));
    assert!(world.changes(1).iter().all(|(link, up)| !(link.to_string().starts_with("10.0.1") && *up)));
}

/// Every bit of every kind of datagram, flipped: nothing gets through, nothing panics, the session lives on.
#[test]
fn a_changed_bit_is_noticed() {
    let mut world = World::pair(1);
    world.run(ms(30));
    world.send(0, 1, b"message");
    let record: Vec<_> = world.record.clone();
    let mut kinds: Vec<u8> = Vec::new();
    world.received(0);
    world.received(1);
    for sent in record.iter().rev() {
        if kinds.contains(&kind(sent)) && sent.to == 0 {
            continue;
        }
        kinds.push(kind(sent));
        for position in 0..sent.bytes.len() {
            let mut forged = sent.clone();
            forged.bytes[position] ^= 1 << (position % 8);
            world.inject(&forged);
        }
        for length in 0..sent.bytes.len() {
            let mut cut = sent.clone();
            cut.bytes.truncate(length);
            world.inject(&cut);
        }
    }
    assert!(world.received(0).is_empty() && world.received(1).is_empty());
    world.talk((0, 1), ms(5));
    assert!((0..2).all(|node| world.node(node).stats().handshakes == 1));
}

#[test]
fn garbage_is_dropped() {
    let mut world = World::pair(1);
    world.run(ms(100));
    for _ in 0..20_000 {
        let length = world.chance(1400) as usize;
        let mut bytes: Vec<_> = (0..length).map(|_| world.chance(256) as u8).collect();
        // Half of it looks like ours.
        if world.chance(2) == 0 {
            let header = [b'o', 1, world.chance(6) as u8, 0];
            let length = bytes.len().min(4);
            bytes[..length].copy_from_slice(&header[..length]);
        }
        world.inject(&Sent { from: 0, to: 1, link: 0, bytes });
    }
    assert!(world.received(1).is_empty());
    assert!(dropped(world.node(1).stats()) >= 20_000);
    world.talk((0, 1), ms(5));
}

/// Initiations of earlier lives of both nodes, then a long session that nobody must be able to end.
fn world_with_old_initiations() -> (World, Vec<Sent>) {
    let mut world = World::pair(1);
    for _ in 0..6 {
        world.run(ms(300));
        world.start(0);
        world.run(ms(300));
        world.start(1);
    }
    world.run(ms(300));
    let old: Vec<_> = world.record.iter().filter(|sent| kind(sent) == INITIATION).cloned().collect();
    assert!(old.len() >= 12);
    world.record.clear();
    (world, old)
}

#[test]
fn old_initiations_do_not_disturb_a_session() {
    let (mut world, old) = world_with_old_initiations();
    let before: Vec<_> = (0..2).map(|node| world.node(node).stats().handshakes).collect();
    for _ in 0..20 {
        old.iter().for_each(|sent| world.inject(sent));
        assert!(world.talk((0, 1), ms(2)) <= ms(2));
        world.run(ms(50));
    }
    let after: Vec<_> = (0..2).map(|node| world.node(node).stats().handshakes).collect();
    assert_eq!(before, after, "a session was replaced");
    assert!(world.node(0).stats().challenged + world.node(1).stats().challenged > 0);
}

#[test]
fn old_initiations_do_not_keep_a_restarted_node_out() {
    for restarted in 0..2 {
        let (mut world, old) = world_with_old_initiations();
        world.start(restarted);
        let mut answered = false;
        let begun = world.now;
        while !answered {
            assert!(world.now - begun < ms(100), "node {restarted} is kept out");
            old.iter().for_each(|sent| world.inject(sent));
            world.send(restarted, 1 - restarted, b"here again");
            world.run(ms(1));
            answered = !world.received(1 - restarted).is_empty();
        }
        world.run(ms(20));
        world.talk((0, 1), ms(5));
    }
}

/// A machine whose clock fell back (an empty battery): its initiations look old, and are accepted all the same.
#[test]
fn a_clock_that_went_back_costs_one_more_round_trip() {
    let mut world = World::pair(2);
    world.run(ms(500));
    for node in [1, 0] {
        world.start(node);
        world.run(ms(300));
        world.start_at(node, 0, "test");
        let taken = world.talk((0, 1), ms(50));
        assert!(taken <= ms(8), "{taken:?}");
        assert!(world.node(1 - node).stats().challenged > 0);
        world.run(ms(300));
    }
}

/// Codes are checked before anything is computed: a flood costs hashes, not curve arithmetic, and no memory.
#[test]
fn a_flood_of_forged_initiations_makes_no_answers() {
    let mut world = World::pair(1);
    world.run(ms(100));
    let mut sent = world.record.iter().find(|sent| kind(sent) == INITIATION && sent.to == 1).cloned().unwrap();
    world.record.clear();
    let now = world.now;
    for number in 0..20_000_u32 {
        sent.bytes[12..16].copy_from_slice(&number.to_le_bytes());
        world.inject(&sent);
    }
    assert_eq!(world.now, now);
    assert!(world.record.is_empty(), "{} answers", world.record.len());
    assert!(world.nodes[1].as_ref().map(Endpoint::stats).unwrap().unauthenticated >= 20_000);
}
