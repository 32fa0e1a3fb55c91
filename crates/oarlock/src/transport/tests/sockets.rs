//! The whole transport, over loopback.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::keys::PrivateKey;
use crate::transport::*;

const TIMING: LinkTiming = LinkTiming { probe_ms: 20, down_after_ms: 200, retry_ms: 10 };
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

    fn bind(&self, node: usize) -> Transport {
        let name = |node: usize| format!("server{}", node + 1);
        let other = 1 - node;
        let local = LocalNode {
            name: name(node),
            private_key: self.keys[node].clone(),
            links: self.links[node].clone(),
            port: self.port,
        };
        let peer = Peer {
            id: other as u8 + 1,
            name: name(other),
            public_key: self.keys[other].public(),
            links: self.links[other].clone(),
        };
        Transport::bind(&local, "test", vec![peer], TIMING).unwrap()
    }
}

/// Runs both until `done` says so of an event (with the node that had it).
async fn until(
    first: &mut Transport,
    second: &mut Transport,
    mut done: impl FnMut(usize, &TransportEvent, &mut Transport) -> bool,
) {
    let give_up = tokio::time::sleep(DEADLINE);
    tokio::pin!(give_up);
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

#[tokio::test]
async fn two_nodes_meet_and_talk() {
    let pair = Pair::new();
    let begun = Instant::now();
    let (mut first, mut second) = (pair.bind(0), pair.bind(1));
    first.send(2, b"early").unwrap();
    let (mut got, mut up) = (0, 0);
    until(&mut first, &mut second, |node, event, transport| {
        if let TransportEvent::Received { from, payload } = event {
            if node == 2 {
                assert_eq!((*from, &payload[..]), (1, &b"early"[..]));
                transport.send(1, b"answer").unwrap();
            } else {
                assert_eq!(&payload[..], b"answer");
            }
            got += 1;
        }
        up += usize::from(matches!(event, TransportEvent::LinkChanged { up: true, .. }));
        got == 2 && up == 4
    })
    .await;
    eprintln!("met and answered after {:?}", begun.elapsed());
    eprintln!("{:?}\n{:?}", first.stats(), second.stats());
    eprintln!("{:?}", first.links(2));
}
