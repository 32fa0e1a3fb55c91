//! What goes between a command in a machine and the one who gave it: a request, then frames.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Where agents in machines listen, on the control's network.
pub(super) const PORT: u16 = 7;
/// No frame is longer, in bytes.
const LONGEST: usize = 1 << 20;

/// A command to be run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The terminal's kind.
    pub term: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// One piece of a command's life.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// First, to the machine.
    Request(Request),
    /// To its standard input; empty at the end of it.
    Input(Vec<u8>),
    /// A signal for it.
    Signal(i32),
    /// From its standard output.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// It has ended: the last frame.
    Ended(Ending),
    /// It could not be started, for this reason: the last frame.
    NotStarted(String),
}

impl Frame {
    /// Its bytes: what it is, its length, what is in it.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let (kind, content) = match self {
            Self::Request(request) => (b'r', serde_json::to_vec(request)?),
            Self::Input(bytes) => (b'i', bytes.clone()),
            Self::Signal(number) => (b's', number.to_be_bytes().to_vec()),
            Self::Output(bytes) => (b'o', bytes.clone()),
            Self::Error(bytes) => (b'e', bytes.clone()),
            Self::Ended(ending) => (b'x', serde_json::to_vec(ending)?),
            Self::NotStarted(reason) => (b'n', reason.clone().into_bytes()),
        };
        if content.len() > LONGEST {
            bail!("a frame of {} bytes, at most {LONGEST} are taken", content.len());
        }
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::try_from(content.len())?.to_be_bytes());
        bytes.extend(content);
        Ok(bytes)
    }

    /// The length of what follows the first five bytes.
    pub(super) fn rest(head: [u8; 5]) -> Result<usize> {
        let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]))?;
        if length > LONGEST {
            bail!("a frame of {length} bytes, at most {LONGEST} are taken");
        }
        Ok(length)
    }

    /// The frame whose first byte is `kind`, and its content.
    pub(super) fn decode(kind: u8, content: Vec<u8>) -> Result<Self> {
        let text = |content: Vec<u8>| String::from_utf8_lossy(&content).into_owned();
        Ok(match kind {
            b'r' => Self::Request(serde_json::from_slice(&content).context("a request that is none")?),
            b'i' => Self::Input(content),
            b's' => Self::Signal(i32::from_be_bytes(content.try_into().ok().context("a signal that is none")?)),
            b'o' => Self::Output(content),
            b'e' => Self::Error(content),
            b'x' => Self::Ended(serde_json::from_slice(&content).context("an ending that is none")?),
            b'n' => Self::NotStarted(text(content)),
            other => bail!("a frame of unknown kind {other}"),
        })
    }

    /// Writes it.
    pub(super) fn write(&self, to: &mut impl Write) -> Result<()> {
        to.write_all(&self.encode()?).context("cannot write to the other end")
    }

    /// Reads one; an error when the other end is gone.
    pub(super) fn read(from: &mut impl Read) -> Result<Self> {
        let mut head = [0; 5];
        from.read_exact(&mut head).context("the other end is gone")?;
        let mut content = vec![0; Self::rest(head)?];
        from.read_exact(&mut content).context("the other end is gone")?;
        Self::decode(head[0], content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let request = Request { argv: vec!["echo".into(), "a b".into()], term: "dumb".into() };
        let frames = [
            Frame::Request(request),
            Frame::Input(Vec::new()),
            Frame::Signal(15),
            Frame::Output(b"o\0".to_vec()),
            Frame::Error(vec![0xff; 70_000]),
            Frame::Ended(Ending::Signal(9)),
            Frame::Ended(Ending::Code(3)),
            Frame::NotStarted("no such program".into()),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().unwrap()).collect();
        let mut from = bytes.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut from).unwrap(), frame);
        }
        assert!(Frame::read(&mut from).is_err());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(Frame::read(&mut &b"?\0\0\0\0"[..]).is_err());
        assert!(Frame::read(&mut &b"i\xff\xff\xff\xff"[..]).is_err());
        assert!(Frame::read(&mut &b"s\0\0\0\x01x"[..]).is_err());
        assert!(Frame::read(&mut &b"r\0\0\0\x02{}"[..]).is_err());
        assert!(Frame::Output(vec![0; LONGEST + 1]).encode().is_err());
    }
}
