//! The sentinel's log. It must never wait: a file in the state directory, which is in memory, and
//! standard error when that takes a line at once.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

/// The file is emptied when it has grown to this, in bytes.
const LONGEST: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Journal {
    file: Option<File>,
    written: u64,
    to_stderr: bool,
}

impl Journal {
    pub(super) fn open(directory: &Path) -> Self {
        let file = File::options().create(true).mode(0o640).append(true).open(directory.join("sentinel.log")).ok();
        let written = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len());
        // A regular file may be on a disk that hangs.
        let to_stderr = fstat(io::stderr()).is_ok_and(|stat| !FileType::from_raw_mode(stat.st_mode).is_file());
        Self { file, written, to_stderr }
    }

    pub(super) fn write(&mut self, line: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = format!("{}.{:06} sentinel[{}]: {line}\n", now.as_secs(), now.subsec_micros(), std::process::id());
        if let Some(file) = &mut self.file {
            if self.written > LONGEST && file.set_len(0).is_ok() {
                self.written = 0;
            }
            if file.write_all(text.as_bytes()).is_ok() {
                self.written += text.len() as u64;
            }
        }
        if self.to_stderr && stderr_takes_a_line() {
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

fn stderr_takes_a_line() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents() == PollFlags::OUT
}
