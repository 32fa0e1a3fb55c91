//! What the protocol does for honest nodes.

use super::world::{CALM, TIMING, Weather, World, address, ms};
use crate::keys::PrivateKey;
use crate::transport::peer::Renewal;
use crate::transport::{MAX_PAYLOAD_BYTES, SendError, TransportEvent};

#[test]
fn a_session_takes_one_round_trip_and_queued_messages_follow_at_once() {
    let mut world = World::pair(2);
    world.send(0, 1, b"early");
    // One millisecond each: initiation, response, message.
    world.run(ms(3));
    assert_eq!(world.received(1), [b"early"]);
    assert!(world.events.contains(&(0, TransportEvent::SessionUp { peer: 1 })));
    assert!(world.events.contains(&(1, TransportEvent::SessionUp { peer: 0 })));
}

#[test]
fn both_initiate_at_once_and_one_session_comes_out() {
    let mut world = World::pair(2);
    world.run(ms(200));
    assert_eq!(world.node(0).stats().handshakes, 1);
    assert_eq!(world.node(1).stats().handshakes, 1);
    for node in 0..2 {
        let stats = world.node(node).stats();
        assert_eq!((stats.replayed, stats.malformed, stats.challenged), (0, 0, 0));
    }
}

#[test]
fn each_message_arrives_once_and_its_copy_is_dropped() {
    let mut world = World::pair(2);
    world.run(ms(50));
    let before = world.node(1).stats().twins;
    for number in 0..100_u8 {
        world.send(0, 1, &[number]);
    }
    world.run(ms(5));
    let expected: Vec<_> = (0..100).map(|number| vec![number]).collect();
    assert_eq!(world.received(1), expected);
    assert_eq!(world.node(1).stats().twins - before, 100);
}

#[test]
fn a_restarted_node_talks_again_within_two_round_trips() {
    let mut world = World::pair(2);
    world.run(ms(500));
    for node in [0, 1, 1, 0] {
        world.changes(1 - node);
        world.start(node);
        let taken = world.talk((0, 1), ms(50));
        assert!(taken <= ms(5), "{taken:?} after a restart of node {node}");
        world.run(ms(200));
        assert_eq!(world.changes(1 - node), [], "its links were never down");
        assert!(
            world.events.iter().any(|(at, event)| *at != node && matches!(event, TransportEvent::SessionUp { .. }))
        );
    }
}

#[test]
fn one_of_two_links_fails_without_the_loss_of_a_message() {
    let mut world = World::pair(2);
    world.run(ms(200));
    assert_eq!(world.changes(0), [(address(1, 0), true), (address(1, 1), true)]);
    world.set_link((0, 1), 0, false);
    let mut sent = Vec::new();
    for number in 0..100_u8 {
        world.send(0, 1, &[number]);
        sent.push(vec![number]);
        world.run(ms(3));
    }
    assert_eq!(world.received(1), sent);
    assert_eq!(world.changes(0), [(address(1, 0), false)]);
    assert_eq!(world.changes(1)[2..], [(address(0, 0), false)]);
    let up: Vec<_> = {
        let now = world.now;
        world.node(0).links(now, 1)
    }
    .iter()
    .map(|link| link.up)
    .collect();
    assert_eq!(up, [false, true]);
    world.set_link((0, 1), 0, true);
    world.run(ms(100));
    assert_eq!(world.changes(0), [(address(1, 0), true)]);
}

/// A probe that was held up somewhere while the link was down still says "I hear you": it is no proof.
#[test]
fn an_old_probe_does_not_announce_a_link() {
    let mut world = World::pair(1);
    world.run(ms(205));
    world.cut.push((1, 0, 0));
    world.record.clear();
    world.run(ms(50));
    let held: Vec<_> = world.record.iter().filter(|sent| sent.from == 1).cloned().collect();
    world.cut.push((0, 1, 0));
    world.run(ms(500));
    world.changes(0);
    assert!(held.len() >= 2);
    held.iter().for_each(|sent| world.inject(sent));
    assert_eq!(world.changes(0), []);
    world.cut.clear();
    world.run(ms(50));
    assert_eq!(world.changes(0), [(address(1, 0), true)]);
    let now = world.now;
    assert_eq!(world.node(0).links(now, 1)[0].round_trip_us, Some(2000));
}

#[test]
fn a_link_that_carries_one_way_only_is_down_at_both_ends() {
    let mut world = World::pair(2);
    world.run(ms(200));
    world.cut.push((0, 1, 1));
    world.run(ms(200));
    assert_eq!(world.changes(0).last(), Some(&(address(1, 1), false)));
    assert_eq!(world.changes(1).last(), Some(&(address(0, 1), false)));
}

#[test]
fn long_messages_arrive_whole_on_lossy_links() {
    for (loss_percent, within) in [(0, 100), (5, 500), (30, 2000)] {
        let mut world = World::pair(1);
        world.run(ms(200));
        world.weather = Weather { loss_percent, jitter: ms(3), ..CALM };
        for length in [1203, 1204, 5000, 200 * 1024, MAX_PAYLOAD_BYTES] {
            let message: Vec<_> = (0..length).map(|position| (position / 7) as u8).collect();
            world.send(0, 1, &message);
            let end = world.now + ms(within);
            let mut received = Vec::new();
            world.run_until(end, |world| {
                received = world.received(1);
                !received.is_empty()
            });
            // One datagram that is lost is the business of the layers above.
            assert!(received == [message] || length == 1203 && loss_percent > 0, "{length} at {loss_percent} %");
        }
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused() {
    let mut world = World::pair(1);
    let now = world.now;
    let bytes = MAX_PAYLOAD_BYTES + 1;
    assert_eq!(world.node(0).send(now, 1, &vec![0; bytes]), Err(SendError::TooLarge { bytes }));
    assert_eq!(world.node(0).send(now, 9, b""), Err(SendError::UnknownPeer { peer: 9 }));
    assert_eq!(world.node(0).stats().too_large, 1);
}

#[test]
fn what_waits_for_an_absent_peer_is_bounded_and_soon_forgotten() {
    let mut world = World::new(2, 1);
    world.start(0);
    for _ in 0..1000 {
        world.send(0, 1, &[7; 60_000]);
    }
    assert_eq!(world.node(0).stats().unsent, 999);
    world.run(ms(1000));
    assert_eq!(world.node(0).stats().unsent, 1000);
    for number in 0..20_u8 {
        world.send(0, 1, &[number]);
    }
    world.start(1);
    world.run(ms(20));
    let newest: Vec<_> = (4..20).map(|number| vec![number]).collect();
    assert_eq!(world.received(1), newest);
}

#[test]
fn a_silent_peer_is_tried_once_a_second() {
    let mut world = World::new(2, 1);
    world.start(0);
    world.run(ms(500));
    let eager = world.record.len();
    assert!((30..=40).contains(&eager), "{eager} tries in the first half second");
    world.run(ms(3000));
    world.record.clear();
    world.run(ms(10_000));
    assert!((9..=11).contains(&world.record.len()), "{} tries in ten seconds", world.record.len());
}

#[test]
fn isolation_heals_by_itself_even_if_one_restarted_meanwhile() {
    for restart in [None, Some(0), Some(1)] {
        let mut world = World::pair(2);
        world.run(ms(200));
        (0..2).for_each(|link| world.set_link((0, 1), link, false));
        world.run(ms(10_000));
        restart.into_iter().for_each(|node| world.start(node));
        world.run(ms(10_000));
        (0..2).for_each(|link| world.set_link((0, 1), link, true));
        // The one without a session answers the other's probes with an initiation, so a probe's time is enough.
        let taken = world.talk((0, 1), ms(1100));
        assert!(taken <= ms(40), "{taken:?}, restarted: {restart:?}");
    }
}

#[test]
fn renewal_loses_and_doubles_nothing() {
    let mut world = World::pair(2);
    world.weather = Weather { jitter: ms(2), ..CALM };
    for node in 0..2 {
        world.node(node).set_renewal(Renewal { after: ms(100), after_sent: 1000 });
    }
    world.run(ms(50));
    let mut sent = Vec::new();
    for number in 0..2000_u32 {
        world.send(0, 1, &number.to_le_bytes());
        world.send(1, 0, &number.to_le_bytes());
        sent.push(number.to_le_bytes().to_vec());
        world.run(ms(1));
    }
    world.run(ms(10));
    for node in 0..2 {
        let mut received = world.received(node);
        received.sort_by_key(|bytes| u32::from_le_bytes(bytes[..].try_into().unwrap()));
        assert_eq!(received.len(), sent.len());
        assert!(received == sent);
        let handshakes = world.node(node).stats().handshakes;
        assert!((15..=25).contains(&handshakes), "{handshakes} handshakes in 2 s");
    }
    let ups = world.events.iter().filter(|(_, event)| matches!(event, TransportEvent::SessionUp { .. })).count();
    assert_eq!(ups, 2, "a renewal is not a new peer");
}

#[test]
fn a_key_rotates_without_a_pause_whoever_learns_of_it_first() {
    for own_first in [false, true] {
        let mut world = World::pair(1);
        world.run(ms(200));
        world.keys[1] = PrivateKey::generate().unwrap();
        let (key, peers, now) = (world.keys[1].clone(), world.peers_of(0), world.now);
        let links = world.peer(0).links;
        if own_first {
            world.node(1).replace_private_key(now, key.clone()).unwrap();
        } else {
            world.node(0).replace(now, &links, peers.clone()).unwrap();
        }
        for _ in 0..100 {
            world.talk((0, 1), ms(3));
            world.run(ms(50));
        }
        let before = world.node(0).stats().handshakes;
        let now = world.now;
        if own_first {
            world.node(0).replace(now, &links, peers).unwrap();
        } else {
            world.node(1).replace_private_key(now, key).unwrap();
        }
        for _ in 0..100 {
            world.talk((0, 1), ms(3));
            world.run(ms(50));
        }
        assert!(world.node(0).stats().handshakes > before);
        // The old session is not needed any more.
        world.run(if own_first { ms(310_000) } else { ms(0) });
        world.talk((0, 1), ms(3));
    }
}

#[test]
fn a_new_configuration_leaves_other_sessions_alone() {
    let mut world = World::new(3, 1);
    (0..3).for_each(|node| world.start(node));
    world.run(ms(200));
    let before = world.node(0).stats().handshakes;
    let (now, links, mut peers) = (world.now, world.peer(0).links, world.peers_of(0));
    peers.retain(|peer| peer.id == 1);
    world.node(0).replace(now, &links, peers).unwrap();
    world.talk((0, 1), ms(3));
    assert!(world.node(0).send(now, 2, b"").is_err());
    world.run(ms(2000));
    assert_eq!(world.node(0).stats().handshakes, before);
    let peers = world.peers_of(0);
    let now = world.now;
    world.node(0).replace(now, &links, peers).unwrap();
    world.talk((0, 2), ms(1100));
    world.talk((0, 1), ms(3));
    assert_eq!(world.node(0).stats().handshakes, before + 1);
}

#[test]
fn an_idle_pair_sends_one_probe_per_link_and_interval() {
    let mut world = World::pair(2);
    world.run(ms(1000));
    world.record.clear();
    world.run(ms(10_000));
    let expected = (10_000 / TIMING.probe_ms * 4) as usize;
    assert!(world.record.len().abs_diff(expected) <= 8, "{} datagrams", world.record.len());
}
