//! The sentinel's child: started again whenever it ends, listened to, never waited for.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use oarlock_core::sentinel::{FromSentinel, MAX_FRAME_BYTES, Notice, Process, Request, ToSentinel};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, pidfd_send_signal};

use super::frame::{self, FrameError};
use crate::process::clock;
use crate::process::spawn::{self, Started};

/// Frames kept for an agent that does not read (it is stopped, for instance).
const OUTBOX_FRAMES: usize = 256;
/// An agent that ended this often within [`RAPID_US`] is started again only after [`PAUSE_US`].
const RAPID_STARTS: usize = 5;
const RAPID_US: u64 = 10_000_000;
const PAUSE_US: u64 = 1_000_000;
/// How often to look whether the agent still speaks. It says something each second at least.
const BEAT_US: u64 = 1_000_000;
/// After so many beats without a word it is stopped or hangs. Beats are counted, not time: who overslept cannot say
/// that the other was silent.
const SILENT_BEATS: u32 = 10;
/// Below an administrator's shell, above every service: the kernel should kill others first.
const OOM_SCORE_ADJUST: i32 = -900;

#[derive(Debug)]
pub(super) struct Agent {
    argv: Vec<CString>,
    starts_us: VecDeque<u64>,
    running: Option<Running>,
    /// Some agent has asked for more than a greeting: it is able to run at all.
    pub(super) spoke: bool,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    pidfd: OwnedFd,
    /// Gone once it is useless; the process then has yet to end.
    socket: Option<OwnedFd>,
    outbox: VecDeque<Vec<u8>>,
    /// When to count the next beat; never before its first word.
    beat_at_us: Option<u64>,
    silent_beats: u32,
}

impl Agent {
    pub(super) fn new(argv: Vec<CString>) -> Self {
        let buffer = vec![0; MAX_FRAME_BYTES + 1];
        Self { argv, starts_us: VecDeque::new(), running: None, spoke: false, buffer }
    }

    /// When the next agent may be started; `None` while one runs.
    pub(super) fn start_at_us(&self) -> Option<u64> {
        let last = self.starts_us.back().copied().unwrap_or(0);
        let rapid = self.starts_us.len() >= RAPID_STARTS
            && self.starts_us.front().is_some_and(|first| last.saturating_sub(*first) < RAPID_US);
        let at_us = if rapid { last + PAUSE_US } else { 0 };
        self.running.is_none().then_some(at_us)
    }

    /// Starts an agent.
    pub(super) fn start(&mut self, now_us: u64) -> io::Result<Process> {
        self.starts_us.push_back(now_us);
        while self.starts_us.len() > RAPID_STARTS {
            self.starts_us.pop_front();
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // A failure to execute shows as the end of the child.
        let Started { process, pidfd, .. } = spawn::ourselves(&self.argv, &theirs, OOM_SCORE_ADJUST)?;
        self.running = Some(Running {
            process,
            pidfd,
            socket: Some(socket),
            outbox: VecDeque::new(),
            beat_at_us: None,
            silent_beats: 0,
        });
        Ok(process)
    }

    pub(super) fn process(&self) -> Option<Process> {
        self.running.as_ref().map(|running| running.process)
    }

    /// The socket, and whether frames wait to be sent.
    pub(super) fn socket(&self) -> Option<(&OwnedFd, bool)> {
        let running = self.running.as_ref()?;
        Some((running.socket.as_ref()?, !running.outbox.is_empty()))
    }

    /// Sends, or keeps it until the agent reads again.
    pub(super) fn send(&mut self, message: &FromSentinel) {
        let Some(running) = &mut self.running else {
            return;
        };
        if let Ok(frame) = frame::encode(message) {
            if running.outbox.len() >= OUTBOX_FRAMES {
                running.outbox.clear();
                running.outbox.extend(frame::encode(&FromSentinel::Notice(Notice::Missed)));
            }
            running.outbox.push_back(frame);
        }
        self.flush();
    }

    /// Sends what waits, as far as the agent takes it.
    pub(super) fn flush(&mut self) {
        let Some(Running { socket: Some(socket), outbox, .. }) = &mut self.running else {
            return;
        };
        while let Some(frame) = outbox.front() {
            // A broken socket shows when it is read.
            if frame::send(&*socket, frame).is_err() {
                return;
            }
            outbox.pop_front();
        }
    }

    /// The next request, if there is one.
    pub(super) fn receive(&mut self) -> Result<Option<ToSentinel>, FrameError> {
        let Some(Running { socket: Some(socket), .. }) = &self.running else {
            return Ok(None);
        };
        let received = frame::receive(socket, &mut self.buffer)?;
        if let (Some(running), Some(_)) = (&mut self.running, &received) {
            running.silent_beats = 0;
            running.beat_at_us.get_or_insert_with(|| clock::boot_us() + BEAT_US);
        }
        let asks = |message: &ToSentinel| message.request != Request::Hello;
        self.spoke |= received.as_ref().is_some_and(asks);
        Ok(received)
    }

    /// When [`Agent::beat`] is due.
    pub(super) fn beat_at_us(&self) -> Option<u64> {
        self.running.as_ref().filter(|running| running.socket.is_some())?.beat_at_us
    }

    /// Counts a beat if it is time. True when the agent has been silent for too long.
    pub(super) fn beat(&mut self, now_us: u64) -> bool {
        if self.beat_at_us().is_none_or(|at| now_us < at) {
            return false;
        }
        let Some(running) = &mut self.running else { return false };
        running.beat_at_us = Some(now_us + BEAT_US);
        running.silent_beats += 1;
        running.silent_beats > SILENT_BEATS
    }

    /// Ends it without another word. The next one must not start before it is dead: the two would
    /// meet over files.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(running) = &mut self.running {
            running.socket = None;
        }
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            let _ = pidfd_send_signal(&running.pidfd, signal);
        }
    }

    /// It has ended.
    pub(super) fn gone(&mut self) {
        self.running = None;
    }
}
