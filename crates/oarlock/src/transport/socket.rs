//! One UDP socket per link of this node. Nothing that happens to a link ends it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::process::watch;

/// Between two attempts to open a link's socket.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Room for the bursts of several peers; the usual 208 KiB holds about 90 datagrams. More than the system's limit is
/// granted only to root.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// The socket of one link, open or not.
#[derive(Debug)]
pub struct LinkSocket {
    /// The link's address.
    pub address: IpAddr,
    port: u16,
    socket: Option<AsyncFd<OwnedFd>>,
    reopen_at: Instant,
    last_error: Option<io::ErrorKind>,
}

impl LinkSocket {
    /// A socket not yet open.
    pub fn new(now: Instant, address: IpAddr, port: u16) -> Self {
        Self { address, port, socket: None, reopen_at: now, last_error: None }
    }

    /// Opens the socket if it is closed and it is time to try.
    pub fn open(&mut self, now: Instant) -> io::Result<()> {
        if self.socket.is_some() || now < self.reopen_at {
            return Ok(());
        }
        let address = self.socket_address();
        match open(address).and_then(|socket| watch(socket, Interest::READABLE)) {
            Ok(socket) => {
                if self.last_error.take().is_some() {
                    tracing::info!(%address, "link socket open");
                }
                self.socket = Some(socket);
                Ok(())
            }
            Err(error) => {
                if self.last_error.replace(error.kind()) != Some(error.kind()) {
                    let retry_ms = REOPEN_AFTER.as_millis() as u64;
                    tracing::warn!(%address, %error, retry_ms, "cannot open link socket");
                }
                self.reopen_at = now + REOPEN_AFTER;
                Err(error)
            }
        }
    }

    /// When to call [`LinkSocket::open`] again.
    pub fn due(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.reopen_at)
    }

    /// The address it is bound to, or is to be bound to.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Sends at once or not at all.
    pub fn send(&self, to: IpAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let to = SocketAddr::new(to, self.port);
        rustix::net::sendto(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to)?;
        Ok(())
    }

    /// Ready when something came since it was last ready. Whoever is told so takes everything there is: what is left
    /// behind makes it ready no more.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = &self.socket else { return Poll::Pending };
        // Polled until pending: only so are we woken again.
        let mut came = false;
        while let Poll::Ready(ready) = socket.poll_read_ready(cx) {
            came = true;
            // A reactor that has failed is nothing to wait for: reading will tell.
            let Ok(mut ready) = ready else { break };
            ready.clear_ready();
        }
        if came { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The next datagram and its sender, without waiting. Errors that a link's troubles leave on the socket are skipped.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<(usize, IpAddr)> {
        let socket = self.socket.as_ref()?;
        // The kernel reports each trouble once; more in a row than this would be a fault that must not hold us here.
        for _ in 0..4 {
            match rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    return from.map(|from| (length.min(buffer.len()), from.ip()));
                }
                Err(Errno::AGAIN) => return None,
                Err(_) => {}
            }
        }
        None
    }
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    // Lets us bind before the link has its address (unplugged at boot, address not yet checked for duplicates): the
    // socket works from the moment that the address is there. Without it, binding is tried again.
    let early = match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true),
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true),
    };
    if let Err(error) = early {
        tracing::debug!(%address, %error, "cannot bind before the address is there");
    }
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, BUFFER_BYTES)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}
