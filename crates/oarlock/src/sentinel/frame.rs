//! Frames on the socket between agent and sentinel: one packet each, bounded.

use std::io;
use std::os::fd::AsFd;

use oarlock_core::sentinel::MAX_FRAME_BYTES;
use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A frame that could not be made, sent, received or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than a frame may be.
    #[error("frame of {bytes} bytes is longer than {MAX_FRAME_BYTES} bytes")]
    TooLong {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// Not what the other side should send.
    #[error("malformed frame")]
    Malformed(#[from] postcard::Error),
    /// The socket failed.
    #[error("socket between agent and sentinel failed")]
    Socket(#[from] io::Error),
    /// The other side is gone.
    #[error("the other side of the socket is gone")]
    Closed,
}

/// Encodes a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Sends an encoded frame without waiting; `WouldBlock` when the other side does not read.
pub fn send(socket: impl AsFd, frame: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, frame, flags)?;
    Ok(())
}

/// Receives one frame without waiting; `Ok(None)` when there is none.
///
/// `buffer` must be one byte longer than the longest frame, so that a longer one is noticed.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd, buffer: &mut [u8]) -> Result<Option<T>, FrameError> {
    let received = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT);
    match received.map(|(_, bytes)| bytes) {
        Ok(0) => Err(FrameError::Closed),
        Ok(bytes) if bytes > MAX_FRAME_BYTES => Err(FrameError::TooLong { bytes }),
        Ok(bytes) => Ok(Some(postcard::from_bytes(&buffer[..bytes])?)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => Err(FrameError::Closed),
        Err(errno) => Err(FrameError::Socket(errno.into())),
    }
}
