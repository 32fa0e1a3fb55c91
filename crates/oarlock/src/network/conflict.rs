//! Whether somebody else has an address: asked before it is taken, and heard afterwards.

use std::net::IpAddr;
use std::time::Duration;

use super::NetworkError;
use super::frames::{self, MacAddress};
use super::interfaces::Interface;
use super::packet::PacketSocket;

/// How long to wait for an objection: a neighbour answers within a millisecond, and the takeover
/// pays for every one we wait.
pub const PROBE_WAIT: Duration = Duration::from_millis(20);

/// Asks whether a neighbour has the address; `None` when nobody objected within `wait`.
///
/// # Errors
/// When the interface is no Ethernet, is gone or is down.
pub async fn probe(interface: &Interface, ip: IpAddr, wait: Duration) -> Result<Option<MacAddress>, NetworkError> {
    let mac = interface.ethernet()?;
    let socket = PacketSocket::open(interface.index, frames::ethertype(ip))
        .map_err(NetworkError::kernel("opening a packet socket"))?;
    socket.send(&frames::probe(mac, ip)).map_err(NetworkError::kernel("probing an address"))?;
    let objection = socket.receive(|frame| others_claim(frame, mac).filter(|(claimed, _)| *claimed == ip));
    match tokio::time::timeout(wait, objection).await {
        Ok(received) => {
            received.map(|(_, by)| Some(by)).map_err(NetworkError::kernel("listening for objections to an address"))
        }
        Err(_elapsed) => Ok(None),
    }
}

/// Hears others claim IPv4 addresses on one interface.
pub struct ConflictWatch {
    socket: PacketSocket,
    mac: MacAddress,
}

impl ConflictWatch {
    /// Starts listening.
    ///
    /// # Errors
    /// When the interface is no Ethernet or is gone.
    pub fn open(interface: &Interface) -> Result<Self, NetworkError> {
        let mac = interface.ethernet()?;
        let socket = PacketSocket::open(interface.index, frames::ETHERTYPE_ARP)
            .map_err(NetworkError::kernel("opening a packet socket"))?;
        Ok(Self { socket, mac })
    }

    /// The next claim by somebody else of an address that `is_ours`. Can be dropped and called
    /// again.
    ///
    /// # Errors
    /// When the interface is gone.
    pub async fn next(&self, is_ours: impl Fn(IpAddr) -> bool) -> Result<(IpAddr, MacAddress), NetworkError> {
        self.socket
            .receive(|frame| others_claim(frame, self.mac).filter(|(ip, _)| is_ours(*ip)))
            .await
            .map_err(NetworkError::kernel("listening for address conflicts"))
    }
}

fn others_claim(frame: &[u8], own: MacAddress) -> Option<(IpAddr, MacAddress)> {
    frames::claim(frame).filter(|(_, mac)| *mac != own)
}
