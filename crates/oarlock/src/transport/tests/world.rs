//! Nodes, links that lose and delay, a listener that records everything, and a time that only moves when told.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::keys::PrivateKey;
use crate::transport::endpoint::Endpoint;
use crate::transport::{LinkTiming, LocalNode, Peer, TransportEvent};

pub const TIMING: LinkTiming = LinkTiming { probe_ms: 20, down_after_ms: 100, retry_ms: 15 };
const WALL_US: u64 = 1_700_000_000_000_000;

/// One datagram, as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub from: usize,
    pub to: usize,
    pub link: usize,
    pub bytes: Vec<u8>,
}

/// How all datagrams travel.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    pub delay: Duration,
    pub jitter: Duration,
}

pub const CALM: Weather =
    Weather { loss_percent: 0, duplicate_percent: 0, delay: Duration::from_millis(1), jitter: Duration::ZERO };

pub struct World {
    pub now: Instant,
    start: Instant,
    pub nodes: Vec<Option<Endpoint>>,
    pub keys: Vec<PrivateKey>,
    pub links: usize,
    /// Directions that carry nothing: from, to, link.
    pub cut: Vec<(usize, usize, usize)>,
    pub weather: Weather,
    pub events: Vec<(usize, TransportEvent)>,
    pub record: Vec<Sent>,
    under_way: Vec<(Instant, Sent)>,
    random: u64,
}

pub fn address(node: usize, link: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, link as u8, node as u8 + 1).into()
}

pub fn name(node: usize) -> String {
    format!("node{}", node + 1)
}

impl World {
    /// A world of nodes that are all off.
    pub fn new(nodes: usize, links: usize) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            nodes: (0..nodes).map(|_| None).collect(),
            keys: (0..nodes).map(|_| PrivateKey::generate().unwrap()).collect(),
            links,
            cut: Vec::new(),
            weather: CALM,
            events: Vec::new(),
            record: Vec::new(),
            under_way: Vec::new(),
            random: 1,
        }
    }

    /// Two nodes, both on.
    pub fn pair(links: usize) -> Self {
        let mut world = Self::new(2, links);
        world.start(0);
        world.start(1);
        world
    }

    pub fn seed(&mut self, seed: u64) {
        self.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    pub fn chance(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound.max(1)
    }

    pub fn peer(&self, node: usize) -> Peer {
        Peer {
            id: node as u8,
            name: name(node),
            public_key: self.keys[node].public(),
            links: (0..self.links).map(|link| address(node, link)).collect(),
        }
    }

    pub fn peers_of(&self, node: usize) -> Vec<Peer> {
        (0..self.keys.len()).filter(|other| *other != node).map(|other| self.peer(other)).collect()
    }

    pub fn start(&mut self, node: usize) {
        let elapsed = self.now.duration_since(self.start).as_micros() as u64;
        self.start_at(node, WALL_US + elapsed, "test");
    }

    /// Starts, or kills and starts again, with a wall clock of its own.
    pub fn start_at(&mut self, node: usize, wall_us: u64, cluster: &str) {
        let local =
            LocalNode { name: name(node), private_key: self.keys[node].clone(), links: self.peer(node).links, port: 1 };
        let endpoint = Endpoint::new(self.now, wall_us, &local, cluster, self.peers_of(node), TIMING).unwrap();
        self.nodes[node] = Some(endpoint);
        self.collect();
    }

    pub fn node(&mut self, node: usize) -> &mut Endpoint {
        self.nodes[node].as_mut().unwrap()
    }

    pub fn send(&mut self, from: usize, to: usize, payload: &[u8]) {
        let now = self.now;
        self.node(from).send(now, to as u8, payload).unwrap();
        self.collect();
    }

    /// Delivers a datagram at once, as an attacker or a test does.
    pub fn inject(&mut self, sent: &Sent) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[sent.to] {
            node.on_datagram(now, address(sent.to, sent.link), address(sent.from, sent.link), &sent.bytes);
        }
        self.collect();
    }

    fn collect(&mut self) {
        let now = self.now;
        for node in 0..self.nodes.len() {
            self.nodes[node].iter_mut().for_each(|endpoint| endpoint.flush(now));
            while let Some(event) = self.nodes[node].as_mut().and_then(Endpoint::poll_event) {
                self.events.push((node, event));
            }
            while let Some(transmit) = self.nodes[node].as_mut().and_then(Endpoint::poll_transmit) {
                let [_, _, link, _] = octets(transmit.local);
                let [_, _, remote_link, to] = octets(transmit.remote);
                assert_eq!(link, remote_link, "a datagram on two networks");
                let bytes = transmit.datagram.to_vec();
                self.travel(Sent { from: node, to: to as usize - 1, link: link as usize, bytes });
            }
        }
    }

    fn travel(&mut self, sent: Sent) {
        self.record.push(sent.clone());
        if self.cut.contains(&(sent.from, sent.to, sent.link)) {
            return;
        }
        let copies = 1 + u64::from(self.chance(100) < self.weather.duplicate_percent);
        for _ in 0..copies {
            if self.chance(100) >= self.weather.loss_percent {
                let jitter = Duration::from_micros(self.chance(self.weather.jitter.as_micros() as u64));
                self.under_way.push((self.now + self.weather.delay + jitter, sent.clone()));
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until `done`, or until `end`; tells whether it was done.
    pub fn run_until(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let dues = self.nodes.iter().flatten().filter_map(Endpoint::due);
            let arrivals = self.under_way.iter().map(|(at, _)| *at);
            let next = dues.chain(arrivals).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            self.deliver();
            let now = self.now;
            for node in self.nodes.iter_mut().flatten().filter(|node| node.due().is_some_and(|due| due <= now)) {
                node.on_timeout(now);
                assert!(node.due().is_none_or(|due| due > now), "still due after having been called");
            }
            self.collect();
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let all = std::mem::take(&mut self.under_way).into_iter();
        let (mut arrived, later): (Vec<_>, Vec<_>) = all.partition(|(at, _)| *at <= now);
        self.under_way = later;
        arrived.sort_by_key(|(at, _)| *at);
        arrived.iter().for_each(|(_, sent)| self.inject(sent));
    }

    /// Cuts or heals a link in both directions.
    pub fn set_link(&mut self, (a, b): (usize, usize), link: usize, works: bool) {
        self.cut.retain(|cut| *cut != (a, b, link) && *cut != (b, a, link));
        if !works {
            self.cut.extend([(a, b, link), (b, a, link)]);
        }
    }

    /// Messages that `node` got since the last call.
    pub fn received(&mut self, node: usize) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        self.events.retain(|(at, event)| match event {
            TransportEvent::Received { payload, .. } if *at == node => {
                received.push(payload.clone());
                false
            }
            _ => true,
        });
        received
    }

    /// Link changes that `node` saw since the last call.
    pub fn changes(&mut self, node: usize) -> Vec<(IpAddr, bool)> {
        let mut changes = Vec::new();
        self.events.retain(|(at, event)| match event {
            TransportEvent::LinkChanged { link, up, .. } if *at == node => {
                changes.push((*link, *up));
                false
            }
            _ => true,
        });
        changes
    }

    /// Sends a message both ways until one arrives each way; panics if that takes longer than `within`. Gives the time
    /// it took.
    pub fn talk(&mut self, (a, b): (usize, usize), within: Duration) -> Duration {
        let begun = self.now;
        let (mut a_got, mut b_got) = (false, false);
        self.events.clear();
        while !(a_got && b_got) {
            assert!(self.now - begun <= within, "no talk within {within:?}: {a_got} {b_got}");
            self.send(a, b, b"there");
            self.send(b, a, b"back");
            let end = self.now + ms(1);
            self.run_until(end, |world| {
                b_got |= !world.received(b).is_empty();
                a_got |= !world.received(a).is_empty();
                a_got && b_got
            });
        }
        self.now - begun
    }
}

fn octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("this world has only IPv4"),
    }
}

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
