//! Telling neighbours, again and again, where an address is now.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::NetworkError;
use super::frames;
use super::interfaces::{Interface, Snapshot};
use super::packet::PacketSocket;

/// When announcements are repeated, in milliseconds after the first. One lost frame must not leave
/// a neighbour with a stale entry, and a switch that was rebooting must hear it too.
pub const ANNOUNCE_AT_MS: [u64; 10] = [0, 20, 60, 150, 400, 1_000, 2_500, 6_000, 15_000, 30_000];

/// Announces an address once.
///
/// # Errors
/// When the interface is no Ethernet, is gone or is down.
pub fn announce(interface: &Interface, ip: IpAddr) -> Result<(), NetworkError> {
    let mac = interface.ethernet()?;
    let socket = PacketSocket::open(interface.index, 0).map_err(NetworkError::kernel("opening a packet socket"))?;
    for frame in frames::announcements(mac, ip) {
        socket.send(&frame).map_err(NetworkError::kernel("announcing an address"))?;
    }
    Ok(())
}

/// Announces an address at all times of [`ANNOUNCE_AT_MS`], as long as it is here. Drop it when the
/// address goes away.
/// A failure in between (the link was down for a moment) does not end it; the last one is told.
///
/// # Errors
/// As [`announce`].
pub async fn keep_announcing(interface: Interface, ip: IpAddr) -> Result<(), NetworkError> {
    let start = Instant::now();
    let mut last = Ok(());
    for at_ms in ANNOUNCE_AT_MS {
        tokio::time::sleep_until(start + Duration::from_millis(at_ms)).await;
        // After a pause of this machine the address may be gone, and somebody else's.
        if !Snapshot::take().await?.holds(ip) {
            break;
        }
        last = announce(&interface, ip);
    }
    last
}
