//! Processes that outlive the command that started them, named so that a reused pid is not
//! mistaken for them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process: its pid and its start time in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The pid in the machine's own pid namespace.
    pub pid: i32,
    start_ticks: u64,
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Result<Self> {
        let start_ticks = start_ticks(pid).with_context(|| format!("no process {pid}"))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether it still runs (a zombie does not).
    #[must_use]
    pub fn alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Kills it with SIGKILL and waits until it has gone. Gone already is no error.
    pub fn kill(&self, deadline: Duration) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        // Checked after the pidfd is held: from here on the pid cannot become another process.
        if !self.alive() {
            return Ok(());
        }
        pidfd_send_signal(&fd, Signal::KILL).with_context(|| format!("cannot kill {}", self.pid))?;
        if !crate::deadline::await_readable(&fd, deadline)? {
            bail!("process {} is still there {} ms after kill -9", self.pid, deadline.as_millis());
        }
        Ok(())
    }
}

/// Field 22 of /proc/PID/stat, unless the process is dead or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name in parentheses may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_process_is_not_alive_and_killing_it_again_is_no_error() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        assert!(process.alive());
        process.kill(Duration::from_secs(5)).unwrap();
        assert!(!process.alive());
        child.wait().unwrap();
        process.kill(Duration::from_secs(5)).unwrap();
        assert!(Process::of(process.pid).is_err());
    }

    #[test]
    fn another_process_with_the_same_pid_is_left_alone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut process = Process::of(child.id().cast_signed()).unwrap();
        process.start_ticks += 1;
        process.kill(Duration::from_secs(5)).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
