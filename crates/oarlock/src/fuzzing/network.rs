//! What comes over the network, before and after authentication.

use super::{Meaning, Outcome, choice, read};
use crate::keys::PrivateKey;
use crate::network::clients::connections;
use crate::network::clients::packet::{parse_attempt, refusal};
use crate::network::frames::claim;
use crate::transport::LinkTiming;
use crate::transport::bundle::{self, Bundle};
use crate::transport::crypto::{Hello, Pair, read as read_noise};
use crate::transport::message::{Inbound, MAX_PAYLOAD_BYTES, Outbound};
use crate::transport::packet::{self, Packet, Refusal};
use crate::transport::path::Path;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// A datagram, cut into its parts.
pub fn datagram(bytes: &[u8]) -> Outcome {
    let again = match packet::parse(bytes) {
        Err(Refusal::Malformed) => return Err("malformed".to_owned()),
        Err(Refusal::OtherVersion) => return Err("of another version".to_owned()),
        Ok(Packet::Initiation(it)) => [packet::initiation(it.tag, it.stamp, it.cookie, it.noise), it.mac.to_vec()],
        Ok(Packet::Response(it)) => [packet::response(it.receiver, it.noise), it.mac.to_vec()],
        Ok(Packet::Challenge(it)) => [packet::challenge(it.tag, it.ephemeral, it.cookie), it.mac.to_vec()],
        Ok(Packet::Data { receiver, counter, sealed }) => [packet::data_header(receiver, counter), sealed.to_vec()],
    };
    let again = again.concat();
    assert_eq!(again, bytes, "every byte has its place");
    Ok(Meaning::Encoded(again))
}

/// What one datagram carries, after authentication.
pub fn bundle(bytes: &[u8]) -> Outcome {
    let Ok(parts) = bundle::parts(bytes) else { return Err("no whole messages".to_owned()) };
    let mut again = Bundle::default();
    // As sent, messages fill a datagram at most; received, the seal bounds them.
    if bytes.len() > packet::MAX_PLAIN_BYTES - 1 {
        return read(parts.len());
    }
    let full = parts.iter().find_map(|part| again.add(part));
    assert_eq!(full, None, "what came in one datagram leaves in one");
    Ok(Meaning::Encoded(again.take().unwrap_or_default()))
}

/// Noise messages whose code was good, and a link's probe.
pub fn handshake(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    if first % 3 == 0 {
        return probe(rest);
    }
    let (left, right) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
    let pair = Pair::new("c", ("a", &left), ("b", &right.public())).map_err(super::words)?;
    let hello = Hello { index: 1, instance: 2 };
    if first % 3 == 1 {
        return pair.respond(rest, hello).map_err(super::words).and_then(|(peer, _, _)| read(peer));
    }
    let (mut state, _) = pair.initiate(hello).map_err(super::words)?;
    read_noise(&mut state, rest).map_err(super::words).and_then(read)
}

fn probe(bytes: &[u8]) -> Outcome {
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    let timing = LinkTiming { probe_ms: 100, down_after_ms: 300, retry_ms: 50 };
    let now = Instant::now();
    let mut path = Path::new(address(1), address(2));
    let change = path.on_probe((now, 5), &timing, (1, 1), bytes).ok_or("not for this path")?;
    read((change, path.status(now).up, path.probe((now, 6))))
}

/// A conversation in chunks: each is a byte for its kind, one for its length in units of eight
/// bytes, two for its index and count, and its content.
pub fn chunks(bytes: &[u8]) -> Outcome {
    let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
    let mut now = Instant::now();
    let (mut rest, mut done, mut refused) = (bytes, 0, 0);
    while let Some(([kind, units, index, count], after)) = rest.split_first_chunk() {
        let (content, after) = after.split_at(after.len().min(usize::from(*units) * 8));
        rest = after;
        now += Duration::from_millis(u64::from(*kind));
        let head = [u64::from(kind >> 5).to_le_bytes().as_slice(), &[*index, 0, *count, 0]].concat();
        match kind % 4 {
            0 | 1 => {
                // A full chunk need not be spelt out.
                let mut body = [head.as_slice(), content].concat();
                if kind % 4 == 1 {
                    body.resize(packet::MAX_PLAIN_BYTES - 1, *index);
                }
                match inbound.on_chunk(now, Duration::from_millis(20), &body) {
                    Ok(Some(payload)) if payload.len() <= MAX_PAYLOAD_BYTES + packet::MAX_PLAIN_BYTES => done += 1,
                    Ok(Some(payload)) => return Err(format!("a message of {} bytes", payload.len())),
                    Ok(None) => {}
                    Err(_) => refused += 1,
                }
            }
            2 => refused += u64::from(outbound.on_repair(now, content).is_err()),
            _ => {
                outbound.push(now, &vec![*index; usize::from(*units) * 1024]);
                outbound.burst(now);
                outbound.expire(now);
                assert!(inbound.tick(now).len() <= 4, "more repairs than messages under way");
            }
        }
    }
    read((done, refused, inbound.due().is_some(), outbound.due().is_some()))
}

/// Frames of the wire and datagrams of the kernel.
pub fn frames(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    match first % 3 {
        0 => read(claim(rest).ok_or("claims nothing")?),
        1 => {
            let attempt = parse_attempt(rest).ok_or("no attempt to connect")?;
            let answer = refusal(&attempt).ok_or("ends of two families")?;
            assert!(parse_attempt(&answer).is_none(), "a refusal must not be refused");
            read((attempt, answer))
        }
        _ => {
            let mut pairs = Vec::new();
            let more = connections::read(rest, IpAddr::V4(Ipv4Addr::LOCALHOST), &mut pairs).map_err(super::words)?;
            read((more, pairs))
        }
    }
}
