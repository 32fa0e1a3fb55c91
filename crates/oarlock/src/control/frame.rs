//! Frames: a length and that much JSON, bounded.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest request, in bytes: a configuration, escaped.
pub const REQUEST_MAX_BYTES: usize = 512 * 1024;
/// Largest answer, in bytes.
pub const RESPONSE_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of the length before each frame.
pub const LENGTH_BYTES: usize = 4;

/// Why a frame is not one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed.
    #[error("frame of {bytes} bytes, at most {max} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not what was expected in it.
    #[error("frame with unexpected content")]
    Content(#[from] serde_json::Error),
}

/// A frame, ready to be sent.
pub fn encode<T: Serialize>(value: &T, max: usize) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(value)?;
    let bytes = body.len();
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= max).ok_or(FrameError::TooLong { bytes, max })?;
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

/// The length of a frame's body from its first bytes.
pub fn body_length(length: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameError> {
    let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if bytes > max { Err(FrameError::TooLong { bytes, max }) } else { Ok(bytes) }
}

/// The body of a frame.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}
