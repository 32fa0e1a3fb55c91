//! One link to a peer: a pair of addresses, its liveness and its counters.
//!
//! Both ends send small sealed probes on every link. A probe says whether its sender hears the other end on that link;
//! the link is up when both do. A probe names the addresses it was meant for, so that one copied to another link by a
//! stranger does not make that link look alive.

use std::net::IpAddr;
use std::time::Instant;

use super::{LinkStatus, LinkTiming};

/// Length of a probe's content.
pub const PROBE_BYTES: usize = 1 + 16 + 16;

/// State of one link to a peer.
#[derive(Debug)]
pub struct Path {
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Datagrams refused by the operating system.
    pub send_errors: u64,
    heard: Option<Instant>,
    hears: bool,
    heard_by_peer: bool,
    up: bool,
    /// Session and counter of the newest probe: an older one that comes late tells nothing new.
    newest: (u32, u64),
}

/// What a change of a path's state asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathChange {
    /// Tell the peer at once that we hear it, or no longer do.
    pub probe_now: bool,
    /// The link went up or down.
    pub up: Option<bool>,
}

impl Path {
    /// A path on which nothing was heard.
    pub fn new(local: IpAddr, remote: IpAddr) -> Self {
        Self {
            local,
            remote,
            sent_bytes: 0,
            received_bytes: 0,
            send_errors: 0,
            heard: None,
            hears: false,
            heard_by_peer: false,
            up: false,
            newest: (0, 0),
        }
    }

    /// The content of the next probe on this path.
    pub fn probe(&self) -> [u8; PROBE_BYTES] {
        let mut probe = [0; PROBE_BYTES];
        probe[0] = u8::from(self.hears);
        probe[1..17].copy_from_slice(&canonical(self.local));
        probe[17..].copy_from_slice(&canonical(self.remote));
        probe
    }

    /// Takes a probe that authenticated as number `counter` of `session`. `None`: it was meant for another path.
    pub fn on_probe(&mut self, now: Instant, session: u32, counter: u64, probe: &[u8]) -> Option<PathChange> {
        let probe: &[u8; PROBE_BYTES] = probe.try_into().ok()?;
        if probe[1..17] != canonical(self.remote) || probe[17..] != canonical(self.local) {
            return None;
        }
        self.heard = Some(now);
        let (last_session, last_counter) = self.newest;
        if session != last_session || counter > last_counter {
            self.newest = (session, counter);
            self.heard_by_peer = probe[0] == 1;
        }
        Some(self.settle(true))
    }

    /// Notes what became due by `now`.
    pub fn tick(&mut self, now: Instant, timing: &LinkTiming) -> PathChange {
        let hears = self.silent_from(timing).is_some_and(|silent| now < silent);
        self.settle(hears)
    }

    /// When it will count as silent, unless something is heard.
    pub fn silent_from(&self, timing: &LinkTiming) -> Option<Instant> {
        self.heard.filter(|_| self.hears).map(|heard| heard + timing.down_after())
    }

    fn settle(&mut self, hears: bool) -> PathChange {
        let probe_now = hears != self.hears;
        self.hears = hears;
        if !hears {
            // What the peer said last is as old as our hearing it.
            self.heard_by_peer = false;
        }
        let up = self.hears && self.heard_by_peer;
        let changed = up != self.up;
        self.up = up;
        PathChange { probe_now, up: changed.then_some(up) }
    }

    /// For `status`.
    pub fn status(&self, now: Instant) -> LinkStatus {
        let since = |heard: Instant| now.saturating_duration_since(heard).as_millis() as u64;
        LinkStatus {
            local: self.local,
            address: self.remote,
            up: self.up,
            last_heard_ms: self.heard.map(since),
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            send_errors: self.send_errors,
        }
    }
}

/// Which of our links reaches which of the peer's: pairs of positions in the two lists.
///
/// As many on both sides: by position. Else each link has at most one partner, and those whose addresses begin alike
/// come first. Both ends find the same pairs.
pub fn pair_links(own: &[IpAddr], peer: &[IpAddr]) -> Vec<(usize, usize)> {
    let same_family = |(own, peer): (&IpAddr, &IpAddr)| own.is_ipv4() == peer.is_ipv4();
    if own.len() == peer.len() && own.iter().zip(peer).all(same_family) {
        return (0..own.len()).map(|position| (position, position)).collect();
    }
    let mut candidates = Vec::new();
    for (i, own) in own.iter().enumerate() {
        for (j, peer) in peer.iter().enumerate().filter(|(_, peer)| same_family((own, peer))) {
            let order = (128 - common_prefix(*own, *peer), i.abs_diff(j), i + j, own.min(peer), own.max(peer));
            candidates.push((order, (i, j)));
        }
    }
    candidates.sort();
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (_, (i, j)) in candidates {
        if pairs.iter().all(|(taken_i, taken_j)| *taken_i != i && *taken_j != j) {
            pairs.push((i, j));
        }
    }
    pairs.sort_unstable();
    pairs
}

fn common_prefix(left: IpAddr, right: IpAddr) -> u32 {
    (u128::from_be_bytes(canonical(left)) ^ u128::from_be_bytes(canonical(right))).leading_zeros()
}

fn canonical(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(own: &[&str], peer: &[&str], expected: &[(usize, usize)]) {
        let (own, peer) = (addresses(own), addresses(peer));
        assert_eq!(pair_links(&own, &peer), expected);
        let mut mirrored: Vec<_> = pair_links(&peer, &own).into_iter().map(|(i, j)| (j, i)).collect();
        mirrored.sort_unstable();
        assert_eq!(mirrored, expected, "seen from the other end");
    }

    #[test]
    fn equal_lists_pair_by_position() {
        check(&["10.0.0.1", "192.168.0.1"], &["10.0.0.2", "192.168.0.2"], &[(0, 0), (1, 1)]);
        check(&["127.0.0.1", "127.0.0.2"], &["127.0.0.3", "127.0.0.4"], &[(0, 0), (1, 1)]);
    }

    #[test]
    fn a_witness_with_one_link_is_met_on_its_own_network() {
        check(&["10.0.0.1", "192.168.0.1"], &["10.0.0.10"], &[(0, 0)]);
        check(&["10.0.0.1", "192.168.0.1"], &["192.168.0.10"], &[(1, 0)]);
        check(&["10.0.0.1", "fd00::1"], &["fd00::10"], &[(1, 0)]);
        check(&["fd00::1"], &["10.0.0.1"], &[]);
    }

    #[test]
    fn families_in_another_order_still_meet() {
        check(&["10.0.0.1", "fd00::1"], &["fd00::2", "10.0.0.2"], &[(0, 1), (1, 0)]);
    }
}
