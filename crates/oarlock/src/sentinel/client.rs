//! The agent's side of the socket to the sentinel.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oarlock_core::sentinel::{FromSentinel, MAX_FRAME_BYTES, Notice, Reply, Request, ToSentinel, Welcome};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::frame::{self, FrameError};
use super::seen::Seen;
use crate::process::watch;

/// Notices kept for an agent that does not read them; the sentinel has its own bound.
const NOTICES: usize = 256;
/// A silence is made of so many pieces, in each of which the agent itself was awake on time.
const BEATS: u32 = 4;
/// Longer than any patience.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

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
    replies: HashMap<u64, Asked>,
}

struct Asked {
    reply: oneshot::Sender<Reply>,
    /// The name of the service to be started, if that was asked.
    starts: Option<String>,
}

/// How long a sentinel may be silent before it is taken for stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    beat: Duration,
}

impl Patience {
    /// A third of a lease.
    #[must_use]
    pub fn of_lease(lease: Duration) -> Self {
        Self { beat: lease / 3 / BEATS }
    }
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
        let shared =
            Arc::new(Shared { socket: watch(socket, Interest::READABLE)?, sentinel, waiting: Mutex::default() });
        let (notices, receiver) = mpsc::channel(NOTICES);
        tokio::spawn(read(Arc::clone(&shared), notices));
        Ok((Self { shared }, receiver))
    }

    /// Asks, and waits for the answer until `deadline` from now.
    ///
    /// # Errors
    /// No answer in time, or no sentinel. A refusal is an answer.
    pub async fn request(&self, request: Request, deadline: Duration) -> Result<Reply, SentinelError> {
        let (reply, receiver) = oneshot::channel();
        let starts = match &request {
            Request::Spawn { name, .. } => Some(name.clone()),
            _ => None,
        };
        let id = self.shared.register(Asked { reply, starts })?;
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

    /// Asks, and ends a sentinel that stays silent for as long as `patience` says: it is stopped or
    /// hangs, and then nobody holds the deadline. Its death shows as the end of the notices; the
    /// agent then becomes the sentinel itself and does hold it.
    ///
    /// Why no lease runs out unwatched meanwhile: the agent asks at least every second heartbeat h
    /// while it has a lease L, and is answered or not; the last deadline the sentinel was told was
    /// set one h before the silence began at the earliest, so it lies L - h after that. With a
    /// patience of a third of L the silent one is killed 2h + L/3 after it fell silent, and 2L/3 - 3h
    /// are left (`fast`: 107 ms, `balanced`: 427 ms) in which the next sentinel starts and adopts
    /// that very deadline from the record. Where the machine is too slow even for that, the next
    /// one finds the lease lapsed, and silences before it does anything else.
    /// There are never two: the lock is the dead one's until the kernel has closed its files, after
    /// which it runs no further instruction. One that waits in the kernel (state D) dies only when
    /// that ends; until then it can be neither woken nor replaced.
    ///
    /// # Errors
    /// As [`SentinelHandle::request`].
    pub async fn insist(&self, request: Request, patience: Patience) -> Result<Reply, SentinelError> {
        let asked = self.request(request, LONGEST_WAIT);
        tokio::pin!(asked);
        let mut silent_beats = 0;
        while silent_beats < BEATS {
            let beat_ends = Instant::now() + patience.beat;
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                () = tokio::time::sleep_until(beat_ends) => {}
            }
            // Who overslept cannot say that the other was silent: on a machine that is merely slow
            // both are, and after a pause of this process the answer lies here unread.
            if beat_ends.elapsed() < patience.beat {
                silent_beats += 1;
            }
        }
        self.kill();
        Err(SentinelError::Timeout { deadline_ms: (patience.beat * BEATS).as_millis() })
    }

    fn kill(&self) {
        if let Some(sentinel) = &self.shared.sentinel {
            tracing::error!("the sentinel is silent: killing it");
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

    fn register(&self, asked: Asked) -> Result<u64, SentinelError> {
        let mut waiting = self.lock();
        if waiting.gone {
            return Err(SentinelError::Gone);
        }
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.replies.insert(id, asked);
        Ok(id)
    }

    async fn send(&self, frame: &[u8]) -> Result<(), SentinelError> {
        let sent = |result: io::Result<()>| match result {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => Err(SentinelError::Gone),
            Err(error) => Err(FrameError::from(error).into()),
        };
        let at_once = frame::send(&self.socket, frame);
        if at_once.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            // A sentinel that does not read; seldom enough for a watch of its own.
            let again = self.socket.get_ref().try_clone().and_then(|socket| watch(socket, Interest::WRITABLE));
            let again = again.map_err(FrameError::from)?;
            loop {
                let mut ready = again.writable().await.map_err(FrameError::from)?;
                if let Ok(result) = ready.try_io(|socket| frame::send(socket, frame)) {
                    return sent(result);
                }
            }
        }
        sent(at_once)
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
    let mut backlog = Backlog::default();
    loop {
        let received = tokio::select! {
            biased;
            room = notices.reserve(), if !backlog.waiting.is_empty() => {
                backlog.hand_over(room);
                continue;
            }
            received = shared.receive(&mut buffer) => received,
        };
        match received {
            Ok(FromSentinel::Reply { id, reply }) => {
                let asked = shared.lock().replies.remove(&id);
                backlog.replied(&reply, asked.as_ref().and_then(|asked| asked.starts.clone()));
                if let Some(asked) = asked {
                    let _ = asked.reply.send(reply);
                }
            }
            Ok(FromSentinel::Notice(notice)) => backlog.add(notice),
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

/// Notices that wait for the agent to take them.
#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Notice>,
    seen: Seen,
}

impl Backlog {
    /// One more. Where there is no room it is lost, which is itself told once.
    fn add(&mut self, notice: Notice) {
        if self.waiting.len() < NOTICES {
            self.seen.told(&notice);
            self.waiting.push_back(notice);
        } else if self.waiting.back() != Some(&Notice::Missed) {
            self.waiting.push_back(Notice::Missed);
        }
    }

    /// What a welcome knows and the agent was not told follows as if it had not been lost.
    fn replied(&mut self, reply: &Reply, starts: Option<String>) {
        match (reply, starts) {
            (Reply::Spawned { pid }, Some(name)) => self.seen.spawned(name, *pid),
            (Reply::Welcome(welcome), _) => self.waiting.extend(self.seen.lost(welcome)),
            _ => {}
        }
    }

    fn hand_over(&mut self, room: Result<mpsc::Permit<'_, Notice>, mpsc::error::SendError<()>>) {
        match (room, self.waiting.pop_front()) {
            (Ok(room), Some(notice)) => room.send(notice),
            // Nobody listens any more.
            _ => self.waiting.clear(),
        }
    }
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

    #[tokio::test]
    async fn patience_follows_the_lease_and_a_late_answer_counts() {
        let (agent, sentinel) = pair();
        let (handle, _notices) = SentinelHandle::new(agent).unwrap();
        let fast = Patience::of_lease(Duration::from_millis(250));
        let start = Instant::now();
        let answer = handle.insist(Request::Hello, fast).await;
        assert!(matches!(answer, Err(SentinelError::Timeout { deadline_ms: 83 })), "{answer:?}");
        assert!(start.elapsed() >= Duration::from_millis(83));
        let late = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            say(&sentinel, &FromSentinel::Reply { id: 2, reply: Reply::Done });
        };
        let patient = Patience::of_lease(SECOND * 60);
        let (answer, ()) = tokio::join!(handle.insist(Request::Hello, patient), late);
        assert_eq!(answer.unwrap(), Reply::Done);
    }

    #[tokio::test]
    async fn what_was_lost_is_told_by_the_next_welcome() {
        let (agent, sentinel) = pair();
        let (handle, mut notices) = SentinelHandle::new(agent).unwrap();
        let welcome = |lapsed_generation| Welcome {
            fresh: false,
            generation: 1,
            deadline_us: None,
            lapsed_generation,
            floor_index: 0,
            released: std::collections::BTreeMap::new(),
            services: Vec::new(),
            addresses: Vec::new(),
            platform: oarlock_core::sentinel::Platform::default(),
        };
        let answers = async |id, lapsed| {
            let reply = Reply::Welcome(Box::new(welcome(lapsed)));
            say(&sentinel, &FromSentinel::Reply { id, reply });
        };
        let (first, ()) = tokio::join!(handle.hello(SECOND), answers(1, 0));
        first.unwrap();
        // More than the channel and the backlog take while nobody reads, the lapse last.
        for index in 0..2 * NOTICES + 10 {
            let line = index.to_string();
            say(&sentinel, &FromSentinel::Notice(Notice::Log { line }));
            tokio::task::yield_now().await;
        }
        say(&sentinel, &FromSentinel::Notice(Notice::Lapsed { generation: 1 }));
        let mut told = Vec::new();
        while told.last() != Some(&Notice::Missed) {
            // Nothing more comes from the sentinel, and the loss is told all the same.
            told.push(tokio::time::timeout(SECOND, notices.recv()).await.unwrap().unwrap());
        }
        assert!(!told.contains(&Notice::Lapsed { generation: 1 }));
        let (second, ()) = tokio::join!(handle.hello(SECOND), answers(2, 1));
        second.unwrap();
        assert_eq!(notices.recv().await, Some(Notice::Lapsed { generation: 1 }));
        assert_eq!(notices.recv().await, Some(Notice::Silenced { generation: 1, took_us: 0 }));
    }
}
