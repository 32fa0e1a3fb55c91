//! One sentinel at a time. A second one waits until the first is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use oarlock_core::sentinel::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::shell;
use crate::notify::Watchdog;
use crate::process::{clock, identity};

/// How often a waiting sentinel looks whether the lock is free, should it miss the holder's end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The lock, held until the process (and a keeper it left) ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// Who holds the lock, as the holder wrote it.
struct Holder {
    pidfd: OwnedFd,
    is_keeper: bool,
}

impl Lock {
    /// Waits for the lock. A keeper is asked to hand over. `None`: we were told to end while we
    /// waited; the holder was then told as well, because the supervisor knows only us.
    pub(super) fn wait(directory: &Path, signals: &OwnedFd) -> io::Result<Option<Self>> {
        let path = directory.join("sentinel.lock");
        // Nobody else may open it: whoever can, can lock it.
        let file = File::options().read(true).write(true).create(true).mode(0o600).truncate(false).open(path)?;
        let mut told_to_end = false;
        let mut watchdog = Watchdog::from_env();
        loop {
            // Whoever waits is well, too.
            watchdog.pet(clock::boot_us());
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if told_to_end => return Ok(None),
                Ok(()) => {
                    let lock = Self { file };
                    lock.sign(false)?;
                    return Ok(Some(lock));
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno.into()),
            }
            let holder = read_holder(&file);
            if let Some(holder) = &holder
                && holder.is_keeper
            {
                if told_to_end {
                    return Ok(None);
                }
                let _ = pidfd_send_signal(&holder.pidfd, Signal::USR2);
            }
            wait_for_either(signals, holder.as_ref())?;
            if !told_to_end && shell::read_signals(signals).iter().any(|signal| shell::is_end(*signal)) {
                told_to_end = true;
                if let Some(holder) = &holder {
                    let _ = pidfd_send_signal(&holder.pidfd, Signal::TERM);
                }
            }
        }
    }

    /// Writes who holds the lock.
    pub(super) fn sign(&self, is_keeper: bool) -> io::Result<()> {
        let own = identity::process(std::process::id())?;
        let role = if is_keeper { "keeper" } else { "sentinel" };
        let line = format!("{} {} {role}", own.pid, own.start_ticks);
        // Fixed width: a shorter line must not leave the end of a longer one.
        self.file.write_all_at(format!("{line:<60}\n").as_bytes(), 0)
    }
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut line = [0; 61];
    let bytes = file.read_at(&mut line, 0).ok()?;
    let mut words = std::str::from_utf8(&line[..bytes]).ok()?.split_whitespace();
    let process = Process { pid: words.next()?.parse().ok()?, start_ticks: words.next()?.parse().ok()? };
    let is_keeper = words.next()? == "keeper";
    let pidfd = pidfd_open(Pid::from_raw(process.pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    // Looked at after it was opened: from now on the number cannot change hands.
    identity::exists(process).then_some(Holder { pidfd, is_keeper })
}

fn wait_for_either(signals: &OwnedFd, holder: Option<&Holder>) -> io::Result<()> {
    let holder = holder.map(|holder| holder.pidfd.as_fd());
    let mut fds: Vec<PollFd<'_>> = [Some(signals.as_fd()), holder]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut fds, Some(&LOOK_EVERY)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
