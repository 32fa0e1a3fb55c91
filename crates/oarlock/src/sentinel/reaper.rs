//! Children's ends, seen in real time, cleared away at leisure.
//!
//! To reap a child is to have the kernel drop what `/proc` remembers of it. When another thread is just doing
//! that to the same entries, the kernel tries again and again without sleeping; and the other is a thread of the dead
//! child itself, of ordinary priority, perhaps interrupted by us on our processor. A real-time thread
//! then spins until the kernel's throttle ends it, 0.95 s later (seen once in five ends of an agent
//! whose threads somebody had listed before). Nobody would hold the deadline in that time. So a second thread waits
//! for children: it tells of an end at once, and lays its real-time priority down to reap.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use oarlock_core::sentinel::Exit;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::process::realtime::{self, SENTINEL_PRIORITY};
use crate::process::{Ended, Forked, exit, fork, peek_child};

/// Its stack: it calls the kernel and nothing else.
const STACK_BYTES: usize = 64 * 1024;
/// One end, as it goes through the pipe: number, kind, code or signal.
const NEWS_BYTES: usize = 12;

/// The sentinel's end.
#[derive(Debug)]
pub(super) struct Reaper {
    news: OwnedFd,
    born: OwnedFd,
}

/// The thread's end. It never allocates and takes no lock: the sentinel forks beside it.
struct Thread {
    news: OwnedFd,
    born: OwnedFd,
    realtime: bool,
}

impl Reaper {
    /// Starts the thread. All signals must be blocked already.
    pub(super) fn start(realtime: bool) -> io::Result<Self> {
        let (news, tell) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&news, true)?;
        let born = eventfd(0, EventfdFlags::CLOEXEC)?;
        let thread = Thread { news: tell, born: born.try_clone()?, realtime };
        thread::Builder::new().name("reaper".to_owned()).stack_size(STACK_BYTES).spawn(move || thread.run())?;
        let reaper = Self { news, born };
        reaper.rehearse()?;
        Ok(reaper)
    }

    /// One child for nothing: what the thread runs must be in memory before a disk can be in trouble.
    fn rehearse(&self) -> io::Result<()> {
        match fork()? {
            Forked::Child => exit(0),
            Forked::Parent(_) => self.born(),
        }
        Ok(())
    }

    /// Readable when a child has ended.
    pub(super) fn news(&self) -> &OwnedFd {
        &self.news
    }

    /// Says that there is a child again: nobody can wait for none.
    pub(super) fn born(&self) {
        let _ = rustix::io::write(&self.born, &1_u64.to_ne_bytes());
    }

    /// The next child that has ended.
    pub(super) fn ended(&self) -> Option<(u32, Exit)> {
        let mut news = [0; NEWS_BYTES];
        match rustix::io::read(&self.news, &mut news[..]) {
            Ok(NEWS_BYTES) => Some(decode(news)),
            _ => None,
        }
    }
}

impl Thread {
    fn run(self) {
        if self.realtime {
            let _ = realtime::request_fifo(SENTINEL_PRIORITY);
        }
        loop {
            match peek_child(true) {
                Ok(Some(ended)) => self.clear(ended),
                Ok(None) | Err(Errno::INTR) => {}
                Err(_none) => {
                    let _ = rustix::io::read(&self.born, &mut [0; 8][..]);
                }
            }
        }
    }

    /// Tells of one end and reaps, and whoever else has ended by then.
    fn clear(&self, first: Ended) {
        self.tell(first);
        let lowered = self.realtime && realtime::request_ordinary().is_ok();
        reap(first);
        while let Ok(Some(next)) = peek_child(false) {
            self.tell(next);
            reap(next);
        }
        if lowered {
            let _ = realtime::request_fifo(SENTINEL_PRIORITY);
        }
    }

    fn tell(&self, ended: Ended) {
        let [a, b, c, d] = ended.pid.to_ne_bytes();
        let [e, f, g, h] = i32::from(ended.by_signal).to_ne_bytes();
        let [i, j, k, l] = ended.status.to_ne_bytes();
        let _ = rustix::io::write(&self.news, &[a, b, c, d, e, f, g, h, i, j, k, l]);
    }
}

fn reap(ended: Ended) {
    if let Some(pid) = Pid::from_raw(ended.pid.cast_signed()) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

fn decode(news: [u8; NEWS_BYTES]) -> (u32, Exit) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = news;
    let status = i32::from_ne_bytes([i, j, k, l]);
    let by_signal = i32::from_ne_bytes([e, f, g, h]) != 0;
    let exit = if by_signal { Exit::Signal(status) } else { Exit::Code(status) };
    (u32::from_ne_bytes([a, b, c, d]), exit)
}
