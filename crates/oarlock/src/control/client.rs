//! The command's end: synchronous, every step under one deadline.

use super::frame::{self, FrameError, LENGTH_BYTES, REQUEST_MAX_BYTES, RESPONSE_MAX_BYTES};
use super::protocol::{Request, Response};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing listens there.
    #[error("no agent answers on {}", path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something listens but does not answer in time.
    #[error("the agent on {} gave no answer within {} s", path.display(), deadline.as_secs_f32())]
    Late {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        deadline: Duration,
    },
    /// The connection broke.
    #[error("lost the agent on {}", path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The answer (or the request) cannot be understood.
    #[error("the agent on {} speaks another language", path.display())]
    Frame {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        #[source]
        source: FrameError,
    },
}

/// A connection that carries one request.
#[derive(Debug)]
pub struct ControlClient {
    path: PathBuf,
    stream: UnixStream,
    began: Instant,
    deadline: Duration,
}

impl ControlClient {
    /// Connects to the agent's socket; everything must be over within `deadline`.
    pub fn connect(path: &Path, deadline: Duration) -> Result<ControlClient, ControlError> {
        let began = Instant::now();
        let no_agent = |source: io::Error| match source.kind() {
            // A frozen agent with a full queue.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ControlError::Late { path: path.to_owned(), deadline }
            }
            _ => ControlError::NoAgent { path: path.to_owned(), source },
        };
        let open = || -> io::Result<UnixStream> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // The send timeout also bounds connect() on a Unix socket.
            set_socket_timeout(&socket, Timeout::Send, Some(deadline))?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(UnixStream::from(socket))
        };
        let stream = open().map_err(no_agent)?;
        Ok(ControlClient { path: path.to_owned(), stream, began, deadline })
    }

    /// Asks and waits for the one answer.
    pub fn ask(mut self, request: &Request) -> Result<Response, ControlError> {
        self.send(request)?;
        match self.receive()? {
            Some(response) => Ok(response),
            None => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Asks and hands each answer to `each` until that returns false or the agent ends it. The
    /// deadline is for each answer, or, when `patient`, only for the connection.
    pub fn ask_many(
        mut self,
        request: &Request,
        patient: bool,
        mut each: impl FnMut(Response) -> bool,
    ) -> Result<(), ControlError> {
        self.send(request)?;
        loop {
            self.began = Instant::now();
            let response = if patient {
                self.stream.set_read_timeout(None).map_err(|source| self.lost(source))?;
                self.receive_unbounded()?
            } else {
                self.receive()?
            };
            match response.map(&mut each) {
                Some(true) => {}
                _ => return Ok(()),
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), ControlError> {
        let bytes = frame::encode(request, REQUEST_MAX_BYTES)
            .map_err(|source| ControlError::Frame { path: self.path.clone(), source })?;
        self.stream.write_all(&bytes).map_err(|source| self.lost(source))
    }

    /// The next frame; `None` at the end of the connection.
    fn receive(&mut self) -> Result<Option<Response>, ControlError> {
        let left = self.deadline.saturating_sub(self.began.elapsed());
        // Zero would mean for ever.
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).map_err(|source| self.lost(source))?;
        self.receive_unbounded()
    }

    fn receive_unbounded(&mut self) -> Result<Option<Response>, ControlError> {
        let mut length = [0; LENGTH_BYTES];
        match self.stream.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|source| self.lost(source))?,
        }
        let garbled = |source| ControlError::Frame { path: self.path.clone(), source };
        let mut body = vec![0; frame::body_length(length, RESPONSE_MAX_BYTES).map_err(garbled)?];
        self.stream.read_exact(&mut body).map_err(|source| self.lost(source))?;
        frame::decode(&body).map(Some).map_err(garbled)
    }

    fn lost(&self, source: io::Error) -> ControlError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ControlError::Late { path: self.path.clone(), deadline: self.deadline }
            }
            _ => ControlError::Lost { path: self.path.clone(), source },
        }
    }
}
