//! Making clients of a dead host notice that their connections are gone.
//!
//! The new owner sends each client a stray packet under the name of the old connection.
//! The client's system answers with what it expects next; our system knows no such connection and
//! answers that with a reset, which carries the right numbers and is therefore believed. A client
//! that waited for an answer sees "connection reset" at once instead of after minutes.

use super::raw::IpSocket;
use super::{ClientsError, Pair, packet};
use std::time::Duration;
use tokio::time::Instant;

/// When the stray packets are sent, in milliseconds after the call: packets get lost, and
/// a neighbour may not yet know where the address is now.
pub const TICKLE_AT_MS: [u64; 5] = [0, 20, 60, 150, 400];

/// The numbers of two rounds differ by more than any window, so that at most one round can be taken
/// for a part of the connection by chance.
const NUMBERS_APART: usize = 1 << 29;

/// How many packets go out before other tasks get a turn.
const BURST: usize = 64;

/// Breaks the connections `pairs` of the former owner; call it as soon as the address is up and
/// its first announcement is out. Pairs with which nothing can be done are skipped. Returns how
/// many packets were sent. Needs the capability CAP_NET_RAW.
pub async fn tickle(interface: &str, pairs: &[Pair]) -> Result<u64, ClientsError> {
    let Some(first) = pairs.first() else { return Ok(0) };
    let socket = IpSocket::open(interface, first.service.ip())?;
    let pairs: Vec<&Pair> = pairs.iter().filter(|pair| pair.service.is_ipv4() == first.service.is_ipv4()).collect();
    let start = Instant::now();
    let mut sent = 0;
    for (at_ms, number) in TICKLE_AT_MS.into_iter().zip((0..).step_by(NUMBERS_APART)) {
        tokio::time::sleep_until(start + Duration::from_millis(at_ms)).await;
        for burst in pairs.chunks(BURST) {
            sent += burst.iter().filter(|pair| send(&socket, pair, number)).count() as u64;
            tokio::task::yield_now().await;
        }
    }
    Ok(sent)
}

/// False for a packet that cannot be made or sent; the next time it may.
fn send(socket: &IpSocket, pair: &Pair, number: u32) -> bool {
    packet::stray(pair, number).is_some_and(|packet| socket.send(&packet, pair.client.ip()).is_ok())
}
