//! The agent's side of the socket to the sentinel.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oarlock_core::sentinel::{FromSentinel, MAX_FRAME_BYTES, Notice, Reply, Request, ToSentinel, Welcome};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, FrameError};
use crate::process::watch;

/// Notices kept for an agent that does not read them; the sentinel has its own bound.
const NOTICES: usize = 256;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SentinelError {
    /// No answer in time. What was asked may still be done, or may be done already.
    #[error("the sentinel did not answer within {deadline_ms} ms")]
    Timeout {
        /// How long was waited, in milliseconds.
        deadline_ms: u128,
    },
    /// The sentinel is dead: become one.
    #[error("the sentinel is gone")]
    Gone,
    /// A frame could not be sent.
    #[error("cannot ask the sentinel")]
    Frame(#[from] FrameError),
    /// The answer does not fit the question.
    #[error("the sentinel gave an answer of the wrong kind")]
    WrongReply,
}

/// Asks the sentinel. Cloned freely; all clones use one socket.
///
/// The channel of notices that comes with it ends when the sentinel is dead; the agent must then
/// become the sentinel itself.
#[derive(Clone)]
pub struct SentinelHandle {
    shared: Arc<Shared>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    /// The sentinel, if it is our parent.
    sentinel: Option<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last_id: u64,
    gone: bool,
    replies: HashMap<u64, oneshot::Sender<Reply>>,
}

impl SentinelHandle {
    /// Takes over the socket the agent was started with, and starts reading it.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking or registered.
    pub fn new(socket: OwnedFd) -> io::Result<(Self, mpsc::Receiver<Notice>)> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let sentinel = parent_behind(&socket);
        let shared = Arc::new(Shared { socket: watch(socket)?, sentinel, waiting: Mutex::default() });
        let (notices, receiver) = mpsc::channel(NOTICES);
        tokio::spawn(read(Arc::clone(&shared), notices));
        Ok((Self { shared }, receiver))
    }

    /// Asks, and waits for the answer until `deadline` from now.
    ///
    /// # Errors
    /// No answer in time, or no sentinel. A refusal is an answer.
    pub async fn request(&self, request: Request, deadline: Duration) -> Result<Reply, SentinelError> {
        let (sender, receiver) = oneshot::channel();
        let id = self.shared.register(sender)?;
        let asked = async {
            let frame = frame::encode(&ToSentinel { id, request })?;
            self.shared.send(&frame).await?;
            receiver.await.map_err(|_| SentinelError::Gone)
        };
        let answer = tokio::time::timeout(deadline, asked).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.shared.lock().replies.remove(&id);
        }
        answer.unwrap_or(Err(SentinelError::Timeout { deadline_ms: deadline.as_millis() }))
    }

    /// Kills a sentinel that does not answer: it may be stopped, and then nobody holds the deadline.
    /// Its death shows as the end of the notices; the agent then becomes the sentinel itself and
    /// does hold it. To be called when the sentinel has been silent for a good part of the lease,
    /// and never on a machine that is merely slow: then the agent is as slow.
    pub fn kill_silent_sentinel(&self) {
        if let Some(sentinel) = &self.shared.sentinel {
            let _ = pidfd_send_signal(sentinel, Signal::KILL);
        }
    }

    /// Says `Hello` and returns all that the sentinel knows.
    ///
    /// # Errors
    /// As [`SentinelHandle::request`].
    pub async fn hello(&self, deadline: Duration) -> Result<Welcome, SentinelError> {
        match self.request(Request::Hello, deadline).await? {
            Reply::Welcome(welcome) => Ok(*welcome),
            _ => Err(SentinelError::WrongReply),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, sender: oneshot::Sender<Reply>) -> Result<u64, SentinelError> {
        let mut waiting = self.lock();
        if waiting.gone {
            return Err(SentinelError::Gone);
        }
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.replies.insert(id, sender);
        Ok(id)
    }

    async fn send(&self, frame: &[u8]) -> Result<(), SentinelError> {
        loop {
            let mut ready = self.socket.writable().await.map_err(FrameError::from)?;
            match ready.try_io(|socket| frame::send(socket, frame)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if is_gone(&error) => return Err(SentinelError::Gone),
                Ok(Err(error)) => return Err(FrameError::from(error).into()),
                Err(_would_block) => {}
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> Result<FromSentinel, FrameError> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Some(message) = frame::receive(&self.socket, buffer)? {
                return Ok(message);
            }
            ready.clear_ready();
        }
    }
}

/// Our parent, if it is who made the socket.
fn parent_behind(socket: &OwnedFd) -> Option<OwnedFd> {
    let parent = getppid()?;
    let pidfd = pidfd_open(parent, PidfdFlags::empty()).ok()?;
    let made_it = socket_peercred(socket).is_ok_and(|peer| peer.pid == parent);
    // Still our parent after it was opened: from now on the number cannot change hands.
    (made_it && getppid() == Some(parent)).then_some(pidfd)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected)
}

/// Reads until the sentinel is gone. Replies never wait behind unread notices.
async fn read(shared: Arc<Shared>, notices: mpsc::Sender<Notice>) {
    let mut buffer = vec![0; MAX_FRAME_BYTES + 1];
    let mut missed = false;
    loop {
        match shared.receive(&mut buffer).await {
            Ok(FromSentinel::Reply { id, reply }) => {
                if let Some(sender) = shared.lock().replies.remove(&id) {
                    let _ = sender.send(reply);
                }
            }
            Ok(FromSentinel::Notice(notice)) => {
                if missed {
                    missed = notices.try_send(Notice::Missed).is_err();
                }
                missed |= matches!(notices.try_send(notice), Err(mpsc::error::TrySendError::Full(_)));
            }
            Err(FrameError::Malformed(error)) => {
                tracing::error!(%error, "malformed frame from the sentinel");
            }
            Err(error) => {
                tracing::error!(%error, "lost the sentinel");
                break;
            }
        }
    }
    let mut waiting = shared.lock();
    waiting.gone = true;
    waiting.replies.clear();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn say(sentinel: impl AsFd, message: &FromSentinel) {
        frame::send(sentinel, &frame::encode(message).unwrap()).unwrap();
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn answers_find_their_questions_and_notices_their_channel() {
        let (agent, sentinel) = pair();
        let (handle, mut notices) = SentinelHandle::new(agent).unwrap();
        let other = handle.clone();
        let second = async {
            say(&sentinel, &FromSentinel::Notice(Notice::Terminate));
            // Answered in the reverse order.
            for (id, reply) in [(2, Reply::Spawned { pid: 2 }), (1, Reply::Done)] {
                say(&sentinel, &FromSentinel::Reply { id, reply });
            }
        };
        let (one, two, ()) =
            tokio::join!(handle.request(Request::Hello, SECOND), other.request(Request::Hello, SECOND), second);
        assert_eq!(one.unwrap(), Reply::Done);
        assert_eq!(two.unwrap(), Reply::Spawned { pid: 2 });
        assert_eq!(notices.recv().await, Some(Notice::Terminate));
    }

    #[tokio::test]
    async fn a_dead_sentinel_is_noticed_by_all() {
        let (agent, sentinel) = pair();
        let (handle, mut notices) = SentinelHandle::new(agent).unwrap();
        let asked = handle.request(Request::Hello, SECOND);
        let dies = async { drop(sentinel) };
        let (answer, ()) = tokio::join!(asked, dies);
        assert!(matches!(answer, Err(SentinelError::Gone)));
        assert_eq!(notices.recv().await, None);
        let answer = handle.request(Request::Hello, SECOND).await;
        assert!(matches!(answer, Err(SentinelError::Gone)));
    }

    #[tokio::test]
    async fn a_silent_sentinel_costs_the_deadline_only() {
        let (agent, _sentinel) = pair();
        let (handle, _notices) = SentinelHandle::new(agent).unwrap();
        let answer = handle.request(Request::Hello, Duration::from_millis(5)).await;
        assert!(matches!(answer, Err(SentinelError::Timeout { deadline_ms: 5 })));
        assert!(handle.shared.lock().replies.is_empty());
    }
}
