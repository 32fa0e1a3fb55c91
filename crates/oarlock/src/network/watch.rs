//! Changes of interfaces and addresses, as they happen.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::NetworkError;
use super::interfaces::{Interface, InterfaceAddress};
use super::netlink::messages;
use crate::process::watch;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
const BUFFER_BYTES: usize = 64 * 1024;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new or different; carrier and administrative state are in it.
    Interface(Interface),
    /// An interface is gone.
    InterfaceGone(Interface),
    /// An address was added or changed.
    Address(InterfaceAddress),
    /// An address is gone.
    AddressGone(InterfaceAddress),
    /// Changes were lost because they came too fast: take a new snapshot.
    Lost,
}

/// Reports changes from its creation on: create it first, then take a snapshot.
pub struct Watcher {
    socket: AsyncFd<OwnedFd>,
}

impl Watcher {
    /// Starts listening. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> Result<Self, NetworkError> {
        let open = || -> io::Result<AsyncFd<OwnedFd>> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Protocol 0 is NETLINK_ROUTE.
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            watch(socket, Interest::READABLE)
        };
        Ok(Self { socket: open().map_err(NetworkError::kernel("listening for network changes"))? })
    }

    /// The next changes, at least one. Can be dropped and called again.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn changes(&self) -> Result<Vec<Change>, NetworkError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let mut ready =
                self.socket.readable().await.map_err(NetworkError::kernel("waiting for network changes"))?;
            match rustix::net::recv(self.socket.get_ref(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, bytes)) => {
                    let found = changes(&buffer[..bytes.min(BUFFER_BYTES)]);
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
                Err(Errno::NOBUFS) => return Ok(vec![Change::Lost]),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetworkError::kernel("reading network changes")(errno.into())),
            }
        }
    }
}

fn changes(datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    for message in messages::<RouteNetlinkMessage>(datagram) {
        // One we cannot read may be about anything.
        let Ok(message) = message else {
            changes.push(Change::Lost);
            continue;
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            continue;
        };
        changes.extend(match message {
            RouteNetlinkMessage::NewLink(link) => Some(Change::Interface(Interface::from_message(&link))),
            RouteNetlinkMessage::DelLink(link) => Some(Change::InterfaceGone(Interface::from_message(&link))),
            RouteNetlinkMessage::NewAddress(address) => InterfaceAddress::from_message(&address).map(Change::Address),
            RouteNetlinkMessage::DelAddress(address) => {
                InterfaceAddress::from_message(&address).map(Change::AddressGone)
            }
            _ => None,
        });
    }
    changes
}
