//! External commands, each under a deadline and killed as a whole when it passes.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// How long output may trickle in after the command itself has ended: what it left running in
/// the background may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(200);

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// Wall time from start to end.
    pub took: Duration,
}

impl Outcome {
    /// The standard output without its trailing white space, or an error with the exit status
    /// and the standard error when the command failed.
    pub fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout.trim_end().to_owned());
        }
        bail!("{}: {}{}", self.status, self.stderr.trim(), self.stdout.trim());
    }
}

/// Runs `command` to its end with `input` on its standard input and its output captured.
///
/// When `deadline` passes, its whole process group is killed and an error returned.
pub fn output(command: &mut Command, input: Option<&str>, deadline: Duration) -> Result<Outcome> {
    let started = Instant::now();
    let name = command.get_program().to_string_lossy().into_owned();
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        let text = text.to_owned();
        // A child that never reads must not block us; it may also end without reading.
        thread::spawn(move || pipe.write_all(text.as_bytes()));
    }
    let Some(status) = wait(&mut child, deadline)? else {
        kill_group(&mut child);
        bail!("{name} was killed: it did not end within {} ms", deadline.as_millis());
    };
    let took = started.elapsed();
    Ok(Outcome { status, stdout: out.text(), stderr: err.text(), took })
}

/// Like [`output`] without input, and an error naming `what` when the command fails.
pub fn check(command: &mut Command, what: &str, deadline: Duration) -> Result<String> {
    output(command, None, deadline).and_then(Outcome::ok).with_context(|| what.to_owned())
}

/// Waits for `child` until `deadline` has passed; `None` when it still runs.
pub fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pid = Pid::from_child(child);
    let fd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch a child process")?;
    await_readable(&fd, deadline)?;
    Ok(child.try_wait()?)
}

/// Waits until `fd` is readable (a pidfd: until the process has ended); false after `deadline`.
pub fn await_readable(fd: impl AsFd, deadline: Duration) -> Result<bool> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("deadline out of range")?;
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error).context("cannot poll"),
        }
    }
}

/// Kills the process group that `child` leads and reaps `child`.
pub fn kill_group(child: &mut Child) {
    // Already gone is what we want; nothing else can fail for our own child.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = wait(child, Duration::from_secs(5));
}

/// Bytes that a thread of their own reads from a pipe.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Collected {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&bytes);
    let reader = pipe.map(|mut pipe| {
        thread::spawn(move || {
            let mut chunk = [0_u8; 8192];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..n]);
            }
        })
    });
    Collected { bytes, reader }
}

impl Collected {
    fn text(self) -> String {
        let end = Instant::now() + DRAIN;
        while self.reader.as_ref().is_some_and(|r| !r.is_finished()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn passes_input_and_captures_output() {
        let outcome = output(&mut shell("cat; echo no >&2; exit 3"), Some("yes"), Duration::from_secs(5)).unwrap();
        assert_eq!(outcome.status.code(), Some(3));
        assert_eq!(outcome.stdout, "yes");
        assert_eq!(outcome.stderr, "no\n");
        assert_eq!(outcome.ok().unwrap_err().to_string(), "exit status: 3: noyes");
    }

    #[test]
    fn kills_the_whole_group_at_the_deadline() {
        let started = Instant::now();
        let error = output(&mut shell("sleep 30 & sleep 30"), None, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "sh was killed: it did not end within 50 ms");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_background_process_that_keeps_the_pipe_does_not_hold_us() {
        let started = Instant::now();
        let outcome = output(&mut shell("echo done; sleep 3 &"), None, Duration::from_secs(30)).unwrap();
        assert_eq!(outcome.stdout, "done\n");
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
