//! Leaving without letting go: a sentinel that is told to end while something exclusive runs
//! leaves a copy of itself behind, which holds the deadline and nothing else until the next
//! sentinel takes the lock over or the grace ends.

use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, setsid};

use super::reaper::Reaper;
use super::shell::Shell;
use crate::process::{Forked, cgroup::KEEPER, fork, realtime};

/// How long the agent may take to end by itself.
const AGENT_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// How long a keeper may take to be in place.
const KEEPER_STARTS_WITHIN: Duration = Duration::from_secs(1);

/// Leaves. `true`: this process is the keeper now and goes on.
pub(super) fn leave(shell: &mut Shell) -> bool {
    if !shell.machine.record().holds_exclusive() {
        shell.log("leaving, nothing exclusive runs");
        end_agent(shell);
        shell.services.groups.remove_all();
        return false;
    }
    let Ok((ready, tell)) = pipe_with(PipeFlags::CLOEXEC) else {
        return stay(shell);
    };
    match fork() {
        Ok(Forked::Child) => {
            drop(ready);
            // It waits for the other process's children, and tells them there.
            shell.reaper = None;
            become_keeper(shell);
            let _ = rustix::io::write(&tell, b"!");
            true
        }
        Ok(Forked::Parent(_)) => {
            drop(tell);
            await_keeper(&ready);
            end_agent(shell);
            false
        }
        Err(_) => stay(shell),
    }
}

/// Whether a keeper has nothing left to keep.
pub(super) fn is_done(shell: &Shell) -> bool {
    !shell.machine.record().holds_exclusive()
}

/// No second process can be had: this one keeps.
fn stay(shell: &mut Shell) -> bool {
    end_agent(shell);
    become_keeper(shell);
    true
}

fn become_keeper(shell: &mut Shell) {
    shell.is_keeper = true;
    shell.agent.gone();
    // The services are not the children of this process.
    for running in shell.services.running.values_mut() {
        if let Some(main) = &mut running.main {
            main.is_child = false;
        }
    }
    // Neither is inherited across a fork.
    let locked = realtime::lock_with_room().is_ok();
    let realtime = realtime::request_fifo(realtime::SENTINEL_PRIORITY).is_ok();
    let _ = setsid();
    let apart = shell.services.groups.enter(KEEPER);
    let signed = shell.lock.sign(true);
    shell.log(&format!(
        "keeping the deadline: memory locked {locked}, real-time {realtime}, own group {}, lock signed {}",
        apart.is_ok(),
        signed.is_ok(),
    ));
}

fn await_keeper(ready: &std::os::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(ready, PollFlags::IN)];
    let within = Timespec { tv_sec: KEEPER_STARTS_WITHIN.as_secs().cast_signed(), tv_nsec: 0 };
    let _ = poll(&mut fds, Some(&within));
}

/// Lets the agent end by itself; it must not see us go, or it would become the sentinel.
fn end_agent(shell: &mut Shell) {
    let Some(agent) = shell.agent.process() else {
        return;
    };
    shell.agent.signal(Signal::TERM);
    let until = Instant::now() + AGENT_ENDS_WITHIN;
    let mut killed = false;
    loop {
        while let Some((pid, _)) = shell.reaper.as_ref().and_then(Reaper::ended) {
            if pid == agent.pid {
                return;
            }
        }
        if !killed && Instant::now() >= until {
            shell.agent.signal(Signal::KILL);
            killed = true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
