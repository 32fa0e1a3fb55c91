//! Resetting TCP connections that would otherwise hang for minutes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::io::Errno;

use super::NetworkError;
use super::netlink::Netlink;

/// Which end of a connection has the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Ours: clients of a service that left.
    Local(IpAddr),
    /// Theirs: our own connections to a host that died.
    Remote(IpAddr),
    /// Theirs: our own connections to one of its services, or the one it came from by that port.
    Service(SocketAddr),
    /// Theirs: what came from there to this port of ours.
    Caller {
        /// Where it came from.
        from: IpAddr,
        /// Our TCP port.
        port: u16,
    },
}

/// A socket in TIME_WAIT or already closed holds nobody up.
const IDLE: StateFlags = StateFlags::LISTEN.union(StateFlags::TIME_WAIT).union(StateFlags::CLOSE);
/// Closed at this end, and the other end does not know it yet.
const UNTOLD: StateFlags = StateFlags::FIN_WAIT1.union(StateFlags::CLOSING).union(StateFlags::LAST_ACK);

/// Resets all TCP connections with an address, listening sockets excepted; returns how many.
///
/// Blocks for as long as the kernel needs to list the connections: call it from
/// `spawn_blocking`. Peers hear of it only while the address is still on an interface.
///
/// # Errors
/// When the kernel cannot list or destroy connections (needs `CONFIG_INET_DIAG_DESTROY`).
pub fn destroy_connections(end: End) -> Result<usize, NetworkError> {
    destroy_all(end, StateFlags::all().difference(IDLE))
}

/// Resets connections of programs that are gone, whose last words were lost because the address was
/// gone too: once it is back, their peers would hear of it only when the kernel next tries, by then
/// seconds apart. Returns how many.
///
/// Blocks like [`destroy_connections`]. Kernels before 6.11 may leave such sockets alone.
///
/// # Errors
/// When the kernel cannot list or destroy connections.
pub fn destroy_untold(end: End) -> Result<usize, NetworkError> {
    destroy_all(end, UNTOLD)
}

fn destroy_all(end: End, states: StateFlags) -> Result<usize, NetworkError> {
    let mut netlink = Netlink::open_protocol(NETLINK_SOCK_DIAG)?;
    let mut destroyed = 0;
    // A socket of the other family can carry the address too (IPv4 mapped into IPv6).
    for family in [AF_INET, AF_INET6] {
        let dump = request(family, any(family), &states);
        let sockets: Vec<SockDiagMessage> = netlink
            .ask(SockDiagMessage::InetRequest(dump), NLM_F_DUMP)
            .map_err(NetworkError::kernel("listing connections"))?;
        for socket in sockets {
            if let SockDiagMessage::InetResponse(socket) = socket
                && has(&socket.header.socket_id, end)
            {
                let one = request(family, socket.header.socket_id.clone(), &states);
                destroyed += usize::from(destroy(&mut netlink, one)?);
            }
        }
    }
    Ok(destroyed)
}

fn destroy(netlink: &mut Netlink, socket: InetRequest) -> Result<bool, NetworkError> {
    let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(socket));
    let asked: io::Result<Vec<SockDiagMessage>> = netlink.ask(message, NLM_F_ACK);
    match asked {
        Ok(_) => Ok(true),
        // It ended by itself meanwhile.
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
        Err(error) => Err(NetworkError::kernel("destroying a connection")(error)),
    }
}

fn request(family: u8, socket_id: SocketId, states: &StateFlags) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: states.clone(),
        socket_id,
    }
}

fn any(family: u8) -> SocketId {
    if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() }
}

fn has(socket: &SocketId, end: End) -> bool {
    match end {
        End::Local(ip) => socket.source_address.to_canonical() == ip.to_canonical(),
        End::Remote(ip) => socket.destination_address.to_canonical() == ip.to_canonical(),
        End::Service(service) => {
            socket.destination_address.to_canonical() == service.ip().to_canonical()
                && socket.destination_port == service.port()
        }
        End::Caller { from, port } => {
            socket.destination_address.to_canonical() == from.to_canonical() && socket.source_port == port
        }
    }
}
