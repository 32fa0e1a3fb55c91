//! The Ethernet frames by which neighbours learn, and ask, where an address is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: [u8; 6] = [0xff; 6];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
/// Ethernet and IPv4 with their address lengths: the only ARP there is.
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_OVERRIDE: u8 = 0x20;
/// Shortest Ethernet frame without checksum, in bytes.
const SHORTEST: usize = 60;

/// "This address is here": as request and as reply, because some neighbours heed only one.
pub(super) fn announcements(mac: MacAddress, ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(mac, ARP_REQUEST, ip, [0; 6], ip), arp(mac, ARP_REPLY, ip, BROADCAST, ip)],
        IpAddr::V6(ip) => vec![neighbour_advertisement(mac, ip)],
    }
}

/// "Does anybody have this address?", without claiming it.
pub(super) fn probe(mac: MacAddress, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(mac, ARP_REQUEST, Ipv4Addr::UNSPECIFIED, [0; 6], ip),
        IpAddr::V6(ip) => neighbour_solicitation(mac, ip),
    }
}

/// The kind of Ethernet frame in which others claim an address of this family.
pub(super) fn ethertype(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 }
}

/// Who claims what in this frame, if it claims anything.
pub(crate) fn claim(frame: &[u8]) -> Option<(IpAddr, MacAddress)> {
    let (header, body) = frame.split_at_checked(14)?;
    match u16::from_be_bytes([header[12], header[13]]) {
        ETHERTYPE_ARP => {
            let body = body.get(..28).filter(|body| body[..6] == ARP_HEAD)?;
            let ip = Ipv4Addr::from(array::<4>(body, 14)?);
            (!ip.is_unspecified()).then_some((IpAddr::V4(ip), MacAddress(array(body, 8)?)))
        }
        ETHERTYPE_IPV6 => {
            let icmp = body.get(40..).filter(|_| body[6] == ICMPV6 && body[7] == 255)?;
            let advertises = *icmp.first()? == NEIGHBOUR_ADVERTISEMENT;
            let ip = Ipv6Addr::from(array::<16>(icmp, 8)?);
            advertises.then_some((IpAddr::V6(ip), MacAddress(array(header, 6)?)))
        }
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn ethernet(to: [u8; 6], from: MacAddress, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(SHORTEST + 32);
    frame.extend(to);
    frame.extend(from.0);
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn arp(mac: MacAddress, operation: u16, sender: Ipv4Addr, target_mac: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    frame.extend(ARP_HEAD);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac.0);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame.resize(SHORTEST, 0);
    frame
}

fn neighbour_advertisement(mac: MacAddress, ip: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut icmp = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([OPTION_TARGET_MAC, 1]);
    icmp.extend(mac.0);
    multicast(mac, ip, all_nodes, icmp)
}

fn neighbour_solicitation(mac: MacAddress, ip: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = ip.octets();
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut icmp = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(ip.octets());
    multicast(mac, Ipv6Addr::UNSPECIFIED, solicited, icmp)
}

fn multicast(mac: MacAddress, from: Ipv6Addr, to: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(icmp.len()).unwrap_or(u16::MAX);
    let checksum = icmpv6_checksum(from, to, &icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let [.., a, b, c, d] = to.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, 255]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(icmp);
    frame
}

fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let pseudo = from.octets().into_iter().chain(to.octets());
    let mut sum = u32::from(ICMPV6) + u32::try_from(icmp.len()).unwrap_or(0);
    for (position, byte) in pseudo.chain(icmp.iter().copied()).enumerate() {
        sum += u32::from(byte) << if position % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    #[test]
    fn announcements_claim_and_probes_do_not() {
        for ip in ["10.0.0.100", "fd00::100"] {
            let ip: IpAddr = ip.parse().unwrap();
            for frame in announcements(MAC, ip) {
                assert_eq!(claim(&frame), Some((ip, MAC)));
            }
            assert_eq!(claim(&probe(MAC, ip)), None);
        }
    }

    #[test]
    fn checksum_of_what_carries_its_checksum_is_zero() {
        let ip: Ipv6Addr = "fd00::100".parse().unwrap();
        let frame = neighbour_advertisement(MAC, ip);
        let to = Ipv6Addr::from(array::<16>(&frame, 38).unwrap());
        assert_eq!(icmpv6_checksum(ip, to, &frame[54..]), 0);
    }

    #[test]
    fn garbage_claims_nothing() {
        let whole = &announcements(MAC, "10.0.0.1".parse().unwrap())[0];
        for length in 0..42 {
            assert_eq!(claim(&whole[..length]), None);
        }
        let whole = &announcements(MAC, "fd00::1".parse().unwrap())[0];
        for length in 0..78 {
            assert_eq!(claim(&whole[..length]), None);
        }
    }

    #[test]
    fn solicitations_go_to_the_solicited_node_group() {
        let frame = probe(MAC, "fd00::12:3456".parse().unwrap());
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    }
}
