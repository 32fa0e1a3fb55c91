//! The calls that the compiler cannot vouch for, each behind a safe function.
#![allow(unsafe_code)] // system calls without a safe wrapper; every use says why it is sound

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Lets the tokio runtime watch a descriptor.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor and closes it only when dropped,
    // which AsyncFd does after it has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
