//! TCP segments made and read by hand, without any system call.

use super::Pair;
use std::net::{IpAddr, SocketAddr};

/// TCP flag: synchronise.
const SYN: u8 = 0x02;
/// TCP flag: reset.
const RST: u8 = 0x04;
/// TCP flag: the acknowledgement number is valid.
const ACK: u8 = 0x10;

/// The protocol number of TCP.
const PROTOCOL_TCP: u8 = 6;
/// Length of a TCP header without options, in bytes.
const TCP_BYTES: usize = 20;
/// Length of an IPv4 header without options, in bytes.
const IPV4_BYTES: usize = 20;
/// Length of an IPv6 header, in bytes.
const IPV6_BYTES: usize = 40;
/// As long a life as most systems give their packets.
const HOPS: u8 = 64;

/// A client's attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Who asks for what.
    pub pair: Pair,
    /// The acknowledgement number that a refusal needs to be believed.
    expects: u32,
}

/// Reads an IP packet; `Some` only for a whole, unfragmented TCP segment that opens a connection.
pub(crate) fn parse_attempt(packet: &[u8]) -> Option<Attempt> {
    let (from, to, segment) = match packet.first()? >> 4 {
        4 => split_ipv4(packet)?,
        6 => split_ipv6(packet)?,
        _ => return None,
    };
    let header: &[u8; TCP_BYTES] = segment.first_chunk()?;
    let header_bytes = usize::from(header[12] >> 4) * 4;
    let data_bytes = segment.len().checked_sub(header_bytes)?;
    if header[13] & (SYN | RST | ACK) != SYN || header_bytes < TCP_BYTES {
        return None;
    }
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Some(Attempt {
        pair: Pair { client: SocketAddr::new(from, port(0)), service: SocketAddr::new(to, port(2)) },
        // The SYN counts as one, and so does each byte that an eager client sent along with it.
        expects: sequence.wrapping_add(1).wrapping_add(u32::try_from(data_bytes).ok()?),
    })
}

/// The packet that makes the attempt fail at once with "connection refused".
/// `None` when the two ends are not of one address family.
pub(crate) fn refusal(attempt: &Attempt) -> Option<Vec<u8>> {
    packet(&attempt.pair, 0, attempt.expects, RST | ACK, &[])
}

/// A packet that the client's system must answer with what it expects next, because `number`, the
/// sequence and acknowledgement number, fits nothing. (Where it does fit by chance, another will
/// not.) It carries one byte, as old keepalive probes do: without data, Linux answers only one such
/// packet in 500 ms. The byte reaches nobody; it would have to be the very next one of the
/// connection. `None` when the two ends are not of one address family.
pub(super) fn stray(pair: &Pair, number: u32) -> Option<Vec<u8>> {
    packet(pair, number, number, ACK, &[0])
}

/// Source, destination and TCP segment of an IPv4 packet.
fn split_ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header: &[u8; IPV4_BYTES] = packet.first_chunk()?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[9] != PROTOCOL_TCP || fragment != 0 || header_bytes < IPV4_BYTES {
        return None;
    }
    let address = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some((address(12), address(16), packet.get(header_bytes..total_bytes)?))
}

/// Source, destination and TCP segment of an IPv6 packet without extension headers.
fn split_ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
    let data_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[6] != PROTOCOL_TCP {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    Some((address(8)?, address(24)?, packet.get(IPV6_BYTES..IPV6_BYTES + data_bytes)?))
}

/// A whole packet from the service to the client of `pair`; `data` is at most one byte.
fn packet(pair: &Pair, sequence: u32, acknowledged: u32, flags: u8, data: &[u8]) -> Option<Vec<u8>> {
    let mut segment = [0; TCP_BYTES];
    segment[0..2].copy_from_slice(&pair.service.port().to_be_bytes());
    segment[2..4].copy_from_slice(&pair.client.port().to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    segment[12] = 5 << 4; // header length in words
    segment[13] = flags;

    let length = (TCP_BYTES + data.len()) as u8;
    let (header, pseudo) = match (pair.service.ip(), pair.client.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ends = [from.octets(), to.octets()].concat();
            (ipv4_header(&ends, length), ends)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ends = [from.octets(), to.octets()].concat();
            (ipv6_header(&ends, length), ends)
        }
        _ => return None,
    };
    // The checksum covers the addresses, the protocol and the length too.
    let rest = [0, PROTOCOL_TCP, 0, length];
    let sum = checksum(&[&pseudo, &rest, &segment, data]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Some([header.as_slice(), &segment, data].concat())
}

/// `ends` is source and destination, one after the other; `length` that of the segment.
fn ipv4_header(ends: &[u8], length: u8) -> Vec<u8> {
    let mut header = [0; IPV4_BYTES];
    header[0] = 0x45; // version 4, five words
    header[3] = IPV4_BYTES as u8 + length;
    header[6] = 0x40; // do not fragment, so no identification is needed
    header[8] = HOPS;
    header[9] = PROTOCOL_TCP;
    header[12..].copy_from_slice(ends);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.to_vec()
}

/// `ends` is source and destination, one after the other; `length` that of the segment.
fn ipv6_header(ends: &[u8], length: u8) -> Vec<u8> {
    let mut header = [0; IPV6_BYTES];
    header[0] = 0x60; // version 6
    header[5] = length;
    header[6] = PROTOCOL_TCP;
    header[7] = HOPS;
    header[8..].copy_from_slice(ends);
    header.to_vec()
}

/// The Internet checksum (RFC 1071) of `parts`; only the last may have an odd number of bytes.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let value = |word: &[u8]| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    let sum: u32 = words.map(value).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(client: &str, service: &str) -> Pair {
        Pair { client: client.parse().unwrap(), service: service.parse().unwrap() }
    }

    /// As seen on a wire: a SYN from 10.0.0.1:40000 to 10.0.0.100:5432, sequence 0x01020304, with
    /// one option word.
    fn syn() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 44, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 100];
        packet.extend([0x9c, 0x40, 0x15, 0x38, 1, 2, 3, 4, 0, 0, 0, 0, 0x60, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
        packet.extend([2, 4, 5, 0xb4]);
        packet
    }

    #[test]
    fn an_attempt_is_read_and_refused() {
        let attempt = parse_attempt(&syn()).unwrap();
        assert_eq!(attempt.pair, pair("10.0.0.1:40000", "10.0.0.100:5432"));
        let refusal = refusal(&attempt).unwrap();
        assert_eq!(
            refusal[..20],
            [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x26, 0x6c, 10, 0, 0, 100, 10, 0, 0, 1],
            "the IPv4 header, with its sum"
        );
        assert_eq!(
            refusal[20..36],
            [0x15, 0x38, 0x9c, 0x40, 0, 0, 0, 0, 1, 2, 3, 5, 0x50, 0x14, 0, 0],
            "RST and ACK of the sequence number + 1"
        );
        let pseudo = [10, 0, 0, 100, 10, 0, 0, 1, 0, 6, 0, 20];
        assert_eq!(checksum(&[&pseudo, &refusal[20..]]), 0, "a right checksum sums up to nothing");
    }

    #[test]
    fn data_sent_with_the_attempt_is_counted() {
        let mut packet = syn();
        packet.extend(*b"hello!");
        packet[3] += 6;
        assert_eq!(parse_attempt(&packet).unwrap().expects, 0x0102_0304 + 1 + 6);
        let padded = [syn(), vec![0; 2]].concat();
        assert_eq!(parse_attempt(&padded).unwrap().expects, 0x0102_0304 + 1, "padding of a short frame is no data");
    }

    #[test]
    fn the_sequence_number_wraps() {
        let mut packet = syn();
        packet[24..28].fill(0xff);
        assert_eq!(parse_attempt(&packet).unwrap().expects, 0);
    }

    #[test]
    fn only_attempts_are_refused() {
        for (what, at, value) in [
            ("an ACK", 33, ACK),
            ("the answer to an attempt", 33, SYN | ACK),
            ("a reset", 33, RST),
            ("UDP", 9, 17),
            ("a fragment", 7, 1),
            ("a first fragment", 6, 0x20),
            ("a header shorter than a header", 32, 0x40),
            ("a header longer than the packet", 32, 0xf0),
            ("another version of IP", 0, 0x55),
            ("a packet cut short", 3, 60),
        ] {
            let mut packet = syn();
            packet[at] = value;
            assert_eq!(parse_attempt(&packet), None, "{what}");
        }
        for length in 0..syn().len() {
            assert_eq!(parse_attempt(&syn()[..length]), None, "{length} bytes of it");
        }
    }

    #[test]
    fn ipv6_attempts_are_refused_too() {
        let pair = pair("[fd00::1]:40000", "[fd00::64]:5432");
        let reversed = Pair { client: pair.service, service: pair.client };
        let syn = packet(&reversed, 9, 0, SYN, &[]).unwrap();
        let attempt = parse_attempt(&syn).unwrap();
        assert_eq!(attempt, Attempt { pair, expects: 10 });
        let refusal = refusal(&attempt).unwrap();
        assert_eq!(refusal[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        let pseudo = [&refusal[8..40], &[0, 6, 0, 20]].concat();
        assert_eq!(checksum(&[&pseudo, &refusal[40..]]), 0);
    }

    #[test]
    fn a_stray_packet_carries_one_byte() {
        let stray = stray(&pair("10.0.0.1:40000", "10.0.0.100:5432"), 1 << 29).unwrap();
        assert_eq!(stray.len(), 41);
        assert_eq!(stray[2..4], [0, 41]);
        assert_eq!(checksum(&[&stray[..20]]), 0);
        let numbers = [0x20, 0, 0, 0, 0x20, 0, 0, 0, 0x50, 0x10];
        assert_eq!(stray[24..34], numbers, "sequence, acknowledgement, header length, ACK");
        let pseudo = [10, 0, 0, 100, 10, 0, 0, 1, 0, 6, 0, 21];
        assert_eq!(checksum(&[&pseudo, &stray[20..]]), 0);
    }

    #[test]
    fn ends_of_two_families_make_no_packet() {
        assert_eq!(stray(&pair("10.0.0.1:1", "[fd00::64]:2"), 0), None);
    }
}
