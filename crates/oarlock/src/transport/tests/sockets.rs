//! The transport with its sockets, over loopback.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::keys::PrivateKey;
use crate::transport::{
    LinkTiming, LocalNode, MAX_PAYLOAD_BYTES, Peer, SendError, Transport, TransportError, TransportEvent,
};

const TIMING: LinkTiming = LinkTiming { probe_ms: 20, down_after_ms: 500, retry_ms: 10 };
/// No step of these tests takes a tenth of it on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Two nodes with two links each, on loopback addresses that no other test uses.
struct Pair {
    port: u16,
    keys: [PrivateKey; 2],
    links: [Vec<IpAddr>; 2],
}

impl Pair {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let net = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = (std::process::id() % 250) as u8 + 1;
        let address = |last| IpAddr::from(Ipv4Addr::new(127, host, net, last));
        let free = UdpSocket::bind((address(1), 0)).unwrap();
        Self {
            port: free.local_addr().unwrap().port(),
            keys: [PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap()],
            links: [vec![address(1), address(2)], vec![address(3), address(4)]],
        }
    }

    fn local(&self, node: usize) -> LocalNode {
        LocalNode {
            name: format!("server{}", node + 1),
            private_key: self.keys[node].clone(),
            links: self.links[node].clone(),
            port: self.port,
        }
    }

    fn peer(&self, node: usize) -> Peer {
        Peer {
            id: node as u8 + 1,
            name: format!("server{}", node + 1),
            public_key: self.keys[node].public(),
            links: self.links[node].clone(),
        }
    }

    fn try_bind(&self, node: usize) -> Result<Transport, TransportError> {
        Transport::bind(&self.local(node), "test", vec![self.peer(1 - node)], TIMING)
    }

    fn bind(&self, node: usize) -> Transport {
        self.try_bind(node).unwrap()
    }
}

/// Runs both until `done` says so of an event (with the node that had it, 1 or 2).
async fn until(
    first: &mut Transport,
    second: &mut Transport,
    mut done: impl FnMut(usize, &TransportEvent, &mut Transport) -> bool,
) {
    let mut give_up = pin!(tokio::time::sleep(DEADLINE));
    loop {
        let (node, event) = tokio::select! {
            event = first.next() => (1, event),
            event = second.next() => (2, event),
            () = &mut give_up => panic!("nothing of the kind within {DEADLINE:?}"),
        };
        let transport = if node == 1 { &mut *first } else { &mut *second };
        if done(node, &event, transport) {
            return;
        }
    }
}

/// The first sends, and sends again, until the second has it; the time that takes.
async fn talk(first: &mut Transport, second: &mut Transport) -> Duration {
    let begun = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(5));
    let mut give_up = pin!(tokio::time::sleep(DEADLINE));
    loop {
        tokio::select! {
            _ = again.tick() => first.send(2, b"there").unwrap(),
            _ = first.next() => {}
            event = second.next() => if matches!(event, TransportEvent::Received { .. }) {
                return begun.elapsed();
            },
            () = &mut give_up => panic!("no talk within {DEADLINE:?}"),
        }
    }
}

fn is_up(event: &TransportEvent) -> bool {
    matches!(event, TransportEvent::LinkChanged { up: true, .. })
}

#[tokio::test]
async fn two_nodes_meet_and_talk() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    let (mut asked, mut answered) = (false, false);
    until(&mut first, &mut second, |node, event, transport| {
        match (node, event) {
            // On a busy machine this comes too late for what was queued before it.
            (1, TransportEvent::SessionUp { peer: 2 }) => transport.send(2, b"question").unwrap(),
            (2, TransportEvent::Received { from: 1, payload }) => {
                assert_eq!(payload, b"question");
                asked = true;
                transport.send(1, b"answer").unwrap();
            }
            (1, TransportEvent::Received { from: 2, payload }) => {
                assert_eq!(payload, b"answer");
                answered = true;
            }
            _ => {}
        }
        let links = if node == 1 { transport.links(2) } else { Vec::new() };
        asked && answered && links.len() == 2 && links.iter().all(|link| link.up)
    })
    .await;
    assert!(first.has_session(2) && second.has_session(1));
    for link in first.links(2) {
        assert!(link.up && link.last_heard_ms.is_some() && link.sent_bytes > 0 && link.received_bytes > 0, "{link:?}");
        assert_eq!(link.send_errors, 0);
    }
}

/// The measured time is printed: `cargo test --release -- --nocapture a_restarted`.
#[tokio::test]
async fn a_restarted_node_is_back_at_once() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let mut times = Vec::new();
    for _ in 0..10 {
        drop(first);
        first = pair.bind(0);
        times.push(talk(&mut first, &mut second).await);
    }
    times.sort_unstable();
    eprintln!("restart to first message delivered: median {:?}, max {:?} (n=10)", times[5], times[9]);
}

#[tokio::test]
async fn the_longest_message_arrives_and_a_longer_one_is_refused() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let bytes = MAX_PAYLOAD_BYTES + 1;
    assert_eq!(first.send(2, &vec![0; bytes]), Err(SendError::TooLarge { bytes }));
    let message: Vec<_> = (0..MAX_PAYLOAD_BYTES).map(|position| (position / 251) as u8).collect();
    first.send(2, &message).unwrap();
    until(
        &mut first,
        &mut second,
        |_, event, _| matches!(event, TransportEvent::Received { payload, .. } if *payload == message),
    )
    .await;
}

#[tokio::test]
async fn a_link_without_its_address_does_not_stop_the_others() {
    let mut pair = Pair::new();
    // Of the networks for documentation: no machine has it, and nothing is sent to it.
    pair.links[0][1] = "192.0.2.1".parse().unwrap();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let links = second.links(1);
    assert!(!links[1].up);
}

#[tokio::test]
async fn a_second_agent_is_told_that_the_port_is_taken() {
    let pair = Pair::new();
    let _first = pair.bind(0);
    let error = pair.try_bind(0).err().unwrap();
    assert!(matches!(error, TransportError::PortInUse { .. }), "{error}");
}

#[tokio::test]
async fn a_port_taken_on_one_link_is_taken_up_when_it_is_free() {
    let pair = Pair::new();
    let squatter = UdpSocket::bind((pair.links[0][0], pair.port)).unwrap();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    assert!(!first.links(2)[0].up);
    drop(squatter);
    until(&mut first, &mut second, |node, event, _| node == 1 && is_up(event)).await;
}

#[tokio::test]
async fn strangers_on_the_port_are_counted_and_ignored() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let before = second.stats();
    let stranger = UdpSocket::bind((pair.links[0][0], 0)).unwrap();
    for datagram in
        [&b""[..], b"x", &[0; 60_000], b"o\x02\x04\x00 looks like ours, but is not sealed", b"o\x09\x04\x00"]
    {
        stranger.send_to(datagram, (pair.links[1][0], pair.port)).unwrap();
    }
    let begun = Instant::now();
    while second.stats().other_version == before.other_version {
        assert!(begun.elapsed() < DEADLINE);
        talk(&mut first, &mut second).await;
    }
    let after = second.stats();
    assert_eq!(after.malformed - before.malformed, 3);
    assert_eq!(after.other_version - before.other_version, 1);
    assert!(after.unauthenticated > before.unauthenticated);
}

/// In a `select!` the future is dropped at any point: nothing may be lost by that.
#[tokio::test]
async fn dropping_next_loses_no_message() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let begun = Instant::now();
    let mut received = Vec::new();
    for number in 0..200_u8 {
        first.send(2, &[number]).unwrap();
        first.flush();
    }
    while received.len() < 200 {
        assert!(begun.elapsed() < DEADLINE, "{} of 200", received.len());
        // Polled once, then dropped, then the reactor gets its turn.
        let poll = pin!(second.next()).poll(&mut Context::from_waker(Waker::noop()));
        if let std::task::Poll::Ready(TransportEvent::Received { payload, .. }) = poll
            && payload.len() == 1
        {
            received.push(payload[0]);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(received, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn links_can_be_added_and_removed_while_in_use() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let one = |node: usize| {
        let mut peer = pair.peer(node);
        peer.links.truncate(1);
        peer
    };
    first.replace(&pair.links[0][..1], vec![one(1)]).unwrap();
    second.replace(&pair.links[1][..1], vec![one(0)]).unwrap();
    talk(&mut first, &mut second).await;
    assert_eq!(first.links(2).len(), 1);
    first.replace(&pair.links[0], vec![pair.peer(1)]).unwrap();
    second.replace(&pair.links[1], vec![pair.peer(0)]).unwrap();
    until(
        &mut first,
        &mut second,
        |_, event, _| matches!(event, TransportEvent::LinkChanged { link, up: true, .. } if *link == pair.links[1][1]),
    )
    .await;
    assert_eq!((first.stats().handshakes, second.stats().handshakes), (1, 1));
}

#[tokio::test]
async fn nonsense_in_the_configuration_is_refused_and_changes_nothing() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    talk(&mut first, &mut second).await;
    let weak = Peer { public_key: crate::keys::PublicKey::from_bytes([0; 32]), ..pair.peer(1) };
    let linkless = Peer { links: Vec::new(), ..pair.peer(1) };
    let own = Peer { name: "server1".to_owned(), ..pair.peer(1) };
    let twice = vec![pair.peer(1), Peer { name: "server3".to_owned(), ..pair.peer(1) }];
    let errors = [vec![weak], vec![linkless], vec![own], twice].map(|peers| first.replace_peers(peers).unwrap_err());
    let expected = [
        "key of node \"server2\" cannot be used",
        "node \"server2\" has 0 links, expected 1 to 8",
        "peers \"server1\" and \"server1\" have the same name",
        "peers \"server2\" and \"server3\" have the same id",
    ];
    assert_eq!(errors.map(|error| error.to_string()), expected);
    talk(&mut first, &mut second).await;
    assert_eq!(first.stats().handshakes, 1);
}
