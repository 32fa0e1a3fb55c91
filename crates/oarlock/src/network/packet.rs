//! Raw Ethernet frames on one interface, without waiting or with a deadline.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::process::{bind_packet, watch};

/// Longest frame of interest, in bytes: neighbour discovery is far shorter.
const FRAME_BYTES: usize = 256;

/// A socket that sends any frame on one interface and receives those of one kind.
pub(super) struct PacketSocket {
    socket: AsyncFd<OwnedFd>,
}

impl PacketSocket {
    /// With `ethertype` 0 it only sends.
    pub(super) fn open(index: u32, ethertype: u16) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let nothing: Option<Protocol> = None;
        // Receives nothing before it is bound to the interface and the kind of frame.
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, nothing)?;
        bind_packet(&socket, index, ethertype)?;
        Ok(Self { socket: watch(socket, Interest::READABLE)? })
    }

    /// Sends, or drops the frame as the network would when the queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match rustix::net::send(self.socket.get_ref(), frame, SendFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Receives frames until `pick` takes something from one.
    pub(super) async fn receive<T>(&self, pick: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        let mut buffer = [0; FRAME_BYTES];
        loop {
            let mut ready = self.socket.readable().await?;
            match rustix::net::recv(self.socket.get_ref(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, bytes)) => {
                    if let Some(picked) = pick(&buffer[..bytes.min(FRAME_BYTES)]) {
                        return Ok(picked);
                    }
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                // The interface went down; it may come back.
                Err(Errno::INTR | Errno::NETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
