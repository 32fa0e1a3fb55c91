//! The calls that the compiler cannot vouch for, each behind a safe function.
#![allow(unsafe_code)] // system calls without a safe wrapper; every use says why it is sound

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Lets the tokio runtime watch a descriptor.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor and closes it only when dropped,
    // which AsyncFd does after it has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// Binds a packet socket to an interface and one kind of Ethernet frame (0: receives none).
pub(crate) fn bind_packet(socket: impl AsFd, index: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the descriptor is open for the duration of the call, and the pointer and length
    // are those of a live sockaddr_ll, which the kernel only reads.
    let bound = unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
