//! An encrypted connection between two machines that share a token and nothing else:
//! Noise NNpsk0 over TCP. Who does not know the secret is not answered at all, and who records the
//! traffic cannot read it later, even with the secret.

use super::token::{SECRET_BYTES, hash};
use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{Builder, HandshakeState, TransportState};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Both ends must mean the same exchange.
const PROLOGUE: &[u8] = b"oarlock join 1";
/// Largest Noise message, in bytes (its specification).
const NOISE_MAX_BYTES: usize = 65_535;
/// Of these, what authentication takes.
const TAG_BYTES: usize = 16;
/// Largest message of ours, in bytes: a bundle.
const MESSAGE_MAX_BYTES: usize = 512 * 1024;

/// Why two machines did not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection failed.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// The other end knows another secret, or somebody in between changed something.
    #[error("the other end does not know the token's secret")]
    Foreign(#[source] snow::Error),
    /// Authentic, but not what was expected.
    #[error("the other end speaks another language")]
    Content(#[from] postcard::Error),
    /// Authentic, but larger than anything this release sends.
    #[error("message of {bytes} bytes, at most {MESSAGE_MAX_BYTES} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl From<snow::Error> for ChannelError {
    fn from(error: snow::Error) -> ChannelError {
        ChannelError::Foreign(error)
    }
}

/// A connection that is known to lead to the other holder of the secret.
pub struct Channel {
    stream: TcpStream,
    noise: TransportState,
}

impl Channel {
    /// From the end that connected.
    pub async fn open(mut stream: TcpStream, secret: &[u8; SECRET_BYTES]) -> Result<Channel, ChannelError> {
        let psk = hash(b"oarlock join psk", secret);
        let mut noise = builder(&psk)?.build_initiator()?;
        let first = handshake_message(&mut noise)?;
        write_frame(&mut stream, &first).await?;
        noise.read_message(&read_frame(&mut stream).await?, &mut [0; NOISE_MAX_BYTES])?;
        Ok(Channel { stream, noise: noise.into_transport_mode()? })
    }

    /// From the end that was connected to.
    pub async fn accept(mut stream: TcpStream, secret: &[u8; SECRET_BYTES]) -> Result<Channel, ChannelError> {
        let psk = hash(b"oarlock join psk", secret);
        let mut noise = builder(&psk)?.build_responder()?;
        noise.read_message(&read_frame(&mut stream).await?, &mut [0; NOISE_MAX_BYTES])?;
        let second = handshake_message(&mut noise)?;
        write_frame(&mut stream, &second).await?;
        Ok(Channel { stream, noise: noise.into_transport_mode()? })
    }

    /// Sends one message.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), ChannelError> {
        let body = postcard::to_stdvec(value)?;
        let bytes = body.len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= MESSAGE_MAX_BYTES);
        let length = length.ok_or(ChannelError::TooLong { bytes })?;
        let plain = [length.to_be_bytes().as_slice(), &body].concat();
        let mut sealed = vec![0; NOISE_MAX_BYTES];
        for part in plain.chunks(NOISE_MAX_BYTES - TAG_BYTES) {
            let bytes = self.noise.write_message(part, &mut sealed)?;
            write_frame(&mut self.stream, &sealed[..bytes]).await?;
        }
        Ok(())
    }

    /// Receives one message.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        let mut plain = Vec::new();
        let mut part = vec![0; NOISE_MAX_BYTES];
        loop {
            let sealed = read_frame(&mut self.stream).await?;
            let bytes = self.noise.read_message(&sealed, &mut part)?;
            plain.extend_from_slice(&part[..bytes]);
            let Some((length, body)) = plain.split_first_chunk::<4>() else { continue };
            let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if bytes > MESSAGE_MAX_BYTES || body.len() > bytes {
                return Err(ChannelError::TooLong { bytes: bytes.max(body.len()) });
            }
            if body.len() == bytes {
                return Ok(postcard::from_bytes(body)?);
            }
        }
    }
}

fn builder(psk: &[u8; 32]) -> Result<Builder<'_>, snow::Error> {
    Builder::new(PATTERN.parse()?).psk(0, psk)?.prologue(PROLOGUE)
}

fn handshake_message(noise: &mut HandshakeState) -> Result<Vec<u8>, snow::Error> {
    let mut message = vec![0; 256];
    let bytes = noise.write_message(&[], &mut message)?;
    message.truncate(bytes);
    Ok(message)
}

async fn write_frame(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&[length.to_be_bytes().as_slice(), body].concat()).await
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
