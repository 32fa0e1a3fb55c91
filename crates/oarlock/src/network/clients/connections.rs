//! Who is connected to an address of ours, as the kernel lists it.

use super::{ClientsError, failed, raw};
use crate::network::refused;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The two ends of one TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// The far end.
    pub client: SocketAddr,
    /// The end at the service address.
    pub service: SocketAddr,
}

/// Most connections that one list holds: a list is sent to the other nodes.
pub const MAX_PAIRS: usize = 4096;

/// The kernel answers from memory; this is only so that nothing is ever waited for without end.
const DEADLINE: Duration = Duration::from_millis(200);

/// The established TCP connections to `service` (any port), in order, at most [`MAX_PAIRS`].
/// Connections of this host to itself are left out: they die with it. Needs no privilege.
/// Costs a walk through the kernel's table: well below a millisecond on most hosts.
pub fn list_connections(service: IpAddr) -> Result<Vec<Pair>, ClientsError> {
    let deadline = Instant::now() + DEADLINE;
    let mut pairs = dump(AF_INET6, service, deadline)?;
    if service.is_ipv4() {
        pairs.extend(dump(AF_INET, service, deadline)?);
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs.truncate(MAX_PAIRS);
    Ok(pairs)
}

/// One address family of the kernel's table. A program that listens for both families has its
/// IPv4 connections in the table of IPv6.
fn dump(family: u8, service: IpAddr, deadline: Instant) -> Result<Vec<Pair>, ClientsError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(failed("open a socket-list socket"))?;
    socket.bind_auto().map_err(failed("bind a socket-list socket"))?;
    socket.connect(&NetlinkAddress::new(0, 0)).map_err(failed("connect a socket-list socket"))?;
    socket.send(&request(family), 0).map_err(failed("ask for the list of connections"))?;
    let mut pairs = Vec::new();
    while let Some(datagram) = receive(&socket, deadline)? {
        if !read(&datagram, service, &mut pairs)? {
            return Ok(pairs);
        }
    }
    Err(ClientsError::Deadline { deadline_ms: DEADLINE.as_millis() as u64 })
}

fn request(family: u8) -> Vec<u8> {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let payload = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    });
    let mut message = NetlinkMessage::new(header, payload.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The next datagram, `None` after the deadline.
fn receive(socket: &Socket, deadline: Instant) -> Result<Option<Vec<u8>>, ClientsError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(None);
    }
    raw::limit_receive(socket, left).map_err(failed("set a deadline on a socket"))?;
    match socket.recv_from_full() {
        Ok((datagram, _)) => Ok(Some(datagram)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(failed("receive the list of connections")(error)),
    }
}

/// Takes what concerns `service` out of one datagram; false when the list has ended.
pub(crate) fn read(datagram: &[u8], service: IpAddr, pairs: &mut Vec<Pair>) -> Result<bool, ClientsError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(ClientsError::Decode)?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                let id = &response.header.socket_id;
                let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
                let client = end(id.destination_address, id.destination_port);
                let local = end(id.source_address, id.source_port);
                if local.ip() == service && client.ip() != service {
                    pairs.push(Pair { client, service: local });
                }
            }
            NetlinkPayload::Done(_) => return Ok(false),
            NetlinkPayload::Error(error) => return Err(failed("list the connections")(refused(error.raw_code()))),
            _ => {}
        }
        let aligned = (message.header.length as usize).next_multiple_of(4).max(16);
        rest = rest.get(aligned..).unwrap_or_default();
    }
    Ok(true)
}
