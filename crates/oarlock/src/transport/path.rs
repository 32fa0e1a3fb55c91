//! One link to a peer: a pair of addresses, its liveness and its counters.
//!
//! Both ends send small sealed probes on every link. A probe says whether its sender hears the other end on that link;
//! the link is up when both do. A probe also returns the time that the other end's last probe carried. That gives the
//! round trip, and keeps a probe that was held up somewhere from announcing a link that is down: up again takes an
//! answer to something sent since. A probe names the addresses it was meant for, so that one copied to another link by
//! a stranger does not make that link look alive.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{LinkStatus, LinkTiming};

/// Length of a probe's content.
pub const PROBE_BYTES: usize = 1 + 8 + 8 + 4 + 16 + 16;

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    /// Whether its sender hears the other end on this link.
    hears: bool,
    /// Its sender's clock, in microseconds since some moment.
    sent_us: u64,
    /// `sent_us` of the last probe that its sender heard; 0 if none.
    echo_us: u64,
    /// How long ago that was, in microseconds.
    held_us: u32,
    /// Its sender's address.
    from: [u8; 16],
    /// The address it is meant for.
    to: [u8; 16],
}

impl Probe {
    fn to_bytes(self) -> [u8; PROBE_BYTES] {
        let mut bytes = [0; PROBE_BYTES];
        bytes[0] = u8::from(self.hears);
        bytes[1..9].copy_from_slice(&self.sent_us.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.echo_us.to_le_bytes());
        bytes[17..21].copy_from_slice(&self.held_us.to_le_bytes());
        bytes[21..37].copy_from_slice(&self.from);
        bytes[37..].copy_from_slice(&self.to);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([hears], rest) = bytes.split_first_chunk()?;
        let (sent_us, rest) = rest.split_first_chunk()?;
        let (echo_us, rest) = rest.split_first_chunk()?;
        let (held_us, rest) = rest.split_first_chunk()?;
        let (from, to) = rest.split_first_chunk()?;
        Some(Self {
            hears: *hears == 1,
            sent_us: u64::from_le_bytes(*sent_us),
            echo_us: u64::from_le_bytes(*echo_us),
            held_us: u32::from_le_bytes(*held_us),
            from: *from,
            to: to.try_into().ok()?,
        })
    }
}

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
    /// When the peer last proved that it hears us.
    confirmed: Option<Instant>,
    up: bool,
    /// Our clock when the link was last not up, in microseconds.
    down_us: u64,
    /// What the peer's clock said in the newest probe.
    peer_us: u64,
    round_trip: Option<Duration>,
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
            confirmed: None,
            up: false,
            down_us: 0,
            peer_us: 0,
            round_trip: None,
            newest: (0, 0),
        }
    }

    /// The content of a probe to send now. `clock_us` is our clock; it must not be 0 nor go back.
    pub fn probe(&self, (now, clock_us): (Instant, u64)) -> [u8; PROBE_BYTES] {
        let held = self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard));
        let probe = Probe {
            hears: self.hears,
            sent_us: clock_us,
            echo_us: self.peer_us,
            held_us: held.as_micros().try_into().unwrap_or(u32::MAX),
            from: canonical(self.local),
            to: canonical(self.remote),
        };
        probe.to_bytes()
    }

    /// Takes a probe that authenticated as number `counter` of `session`. `None`: it was meant for another path.
    pub fn on_probe(
        &mut self,
        (now, clock_us): (Instant, u64),
        timing: &LinkTiming,
        (session, counter): (u32, u64),
        content: &[u8],
    ) -> Option<PathChange> {
        let probe = Probe::from_bytes(content)?;
        if probe.from != canonical(self.remote) || probe.to != canonical(self.local) {
            return None;
        }
        let (last_session, last_counter) = self.newest;
        if session != last_session || counter > last_counter {
            self.heard = Some(now);
            self.newest = (session, counter);
            self.peer_us = probe.sent_us;
            if probe.hears && probe.echo_us >= self.down_us.max(1) {
                self.confirmed = Some(now);
            } else if probe.echo_us > 0 {
                self.confirmed = None;
            }
            // Else the peer has just started and cannot know yet: what its predecessor knew holds a while longer.
            let passed = clock_us.checked_sub(probe.echo_us).filter(|_| probe.echo_us > 0);
            let round_trip = passed.and_then(|passed| passed.checked_sub(probe.held_us.into()));
            self.round_trip = round_trip.map(Duration::from_micros).or(self.round_trip);
        }
        Some(self.tick((now, clock_us), timing))
    }

    /// The peer's process is a new one, with another clock; what it heard of us was heard by its predecessor.
    pub fn forget_peer_clock(&mut self) {
        (self.peer_us, self.newest) = (0, (0, 0));
    }

    /// Notes what became due by `now`.
    pub fn tick(&mut self, (now, clock_us): (Instant, u64), timing: &LinkTiming) -> PathChange {
        let recent = |at: Option<Instant>| at.is_some_and(|at| now < at + timing.down_after());
        let hears = recent(self.heard);
        let up = hears && recent(self.confirmed);
        let change = PathChange { probe_now: hears != self.hears, up: (up != self.up).then_some(up) };
        (self.hears, self.up) = (hears, up);
        if change.up == Some(false) {
            (self.confirmed, self.down_us) = (None, clock_us);
        }
        change
    }

    /// When it will change its state, unless something is heard.
    pub fn due(&self, timing: &LinkTiming) -> Option<Instant> {
        let heard = self.heard.filter(|_| self.hears);
        let confirmed = self.confirmed.filter(|_| self.up);
        heard.into_iter().chain(confirmed).min().map(|at| at + timing.down_after())
    }

    /// For `status`.
    pub fn status(&self, now: Instant) -> LinkStatus {
        let since = |heard: Instant| now.saturating_duration_since(heard).as_millis() as u64;
        LinkStatus {
            local: self.local,
            address: self.remote,
            up: self.up,
            last_heard_ms: self.heard.map(since),
            round_trip_us: self.round_trip.map(|round_trip| round_trip.as_micros() as u64),
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
