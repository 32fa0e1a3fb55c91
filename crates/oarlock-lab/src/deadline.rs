//! External commands, each under a deadline and killed as a whole when it passes.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{ioctl_fionbio, ioctl_fionread};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

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

/// Runs `command` to its end with `input` on its standard input and its output captured: all that was
/// written before its end, however late we come to read it. What it left running in the background may
/// hold the pipes open for ever and is not waited for.
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
    let mut out = Captured::new(child.stdout.take());
    let mut err = Captured::new(child.stderr.take());
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        let text = text.to_owned();
        // A child that never reads must not block us; it may also end without reading.
        thread::spawn(move || pipe.write_all(text.as_bytes()));
    }
    let ended = capture(&child, &mut out, &mut err, started + deadline);
    let status = match ended {
        Ok(true) => child.try_wait().context("cannot ask for an exit status")?,
        _ => None,
    };
    let Some(status) = status else {
        kill_group(&mut child);
        ended.with_context(|| format!("cannot read what {name} writes"))?;
        bail!("{name} was killed: it did not end within {} ms", deadline.as_millis());
    };
    Ok(Outcome { status, stdout: out.text(), stderr: err.text(), took: started.elapsed() })
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

/// Takes in what `child` writes until it has ended; false when that is later than `end`.
fn capture(
    child: &Child,
    out: &mut Captured<impl Read + AsFd>,
    err: &mut Captured<impl Read + AsFd>,
    end: Instant,
) -> Result<bool> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("cannot watch a child process")?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("deadline out of range")?;
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        fds.extend(out.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(err.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot poll"),
        }
        let ended = !fds[0].revents().is_empty();
        // Looked for after the end was seen: what the process wrote is in the pipes by then.
        out.take()?;
        err.take()?;
        if ended {
            return Ok(true);
        }
    }
}

/// What came out of a pipe so far; the pipe goes when its end is reached.
struct Captured<P> {
    pipe: Option<P>,
    bytes: Vec<u8>,
}

impl<P: Read + AsFd> Captured<P> {
    fn new(pipe: Option<P>) -> Captured<P> {
        Captured { pipe, bytes: Vec::new() }
    }

    /// Takes what is in the pipe now, and no more: somebody may write for ever.
    fn take(&mut self) -> Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        ioctl_fionbio(&*pipe, true).context("cannot read a pipe without waiting")?;
        let there = ioctl_fionread(&*pipe).context("cannot see what is in a pipe")?;
        let mut left = usize::try_from(there).context("a pipe holds too much")?;
        // One byte too many where nothing is there: only a read tells an empty pipe from its end.
        let mut part = vec![0; left.max(1)];
        loop {
            match pipe.read(&mut part[..left.max(1)]) {
                Ok(0) => {
                    self.pipe = None;
                    return Ok(());
                }
                Ok(n) => {
                    self.bytes.extend_from_slice(&part[..n]);
                    left = left.saturating_sub(n);
                    if left == 0 {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot read a pipe"),
            }
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
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
    fn nothing_of_a_long_output_is_cut_off() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i + 1)); done; echo end >&2";
        let outcome = output(&mut shell(script), None, Duration::from_secs(60)).unwrap();
        assert_eq!(outcome.stdout.lines().count(), 20_000);
        assert_eq!((outcome.stdout.lines().last(), outcome.stderr.as_str()), (Some("19999"), "end\n"));
    }

    #[test]
    fn what_was_written_before_the_end_is_read_however_late() {
        let mut child = shell("echo early").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (Captured::new(child.stdout.take()), Captured::new(child.stderr.take()));
        // It has ended, its deadline is over, and nobody has read yet.
        assert!(wait_unreaped(&child));
        assert!(capture(&child, &mut out, &mut err, Instant::now()).unwrap());
        assert_eq!(out.text(), "early\n");
        child.wait().unwrap();
    }

    fn wait_unreaped(child: &Child) -> bool {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
        await_readable(&process, Duration::from_secs(30)).unwrap()
    }

    #[test]
    fn one_that_writes_for_ever_in_the_background_does_not_hold_us() {
        let script = "sh -c 'echo $$; exec yes' & echo $!; sleep 0.1";
        let outcome = output(&mut shell(script), None, Duration::from_secs(30)).unwrap();
        let pid: i32 = outcome.stdout.lines().next().unwrap().parse().unwrap();
        // Nobody reads its pipe any more, which ends it; should it be there still, this does.
        let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        assert!(outcome.stdout.contains("y\n"));
    }

    #[test]
    fn a_background_process_that_keeps_the_pipe_does_not_hold_us() {
        let started = Instant::now();
        let outcome = output(&mut shell("echo done; sleep 3 &"), None, Duration::from_secs(30)).unwrap();
        assert_eq!(outcome.stdout, "done\n");
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
