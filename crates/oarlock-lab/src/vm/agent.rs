//! The control's agent inside a machine: one connection is one command, killed when the connection ends.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::READY;
use super::frame::{Ending, Frame, PORT, Request};
use crate::deadline::kill_group;
use crate::host::PATH;

/// Arguments of the agent.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Where to listen.
    address: Ipv4Addr,
}

/// Serves commands for ever.
pub fn serve(args: &AgentArgs) -> Result<()> {
    let listener = TcpListener::bind((args.address, PORT)).context("cannot listen")?;
    // To the console: who waits for the machine looks for it there.
    eprintln!("{READY}");
    for stream in listener.incoming() {
        let stream = stream.context("cannot accept")?;
        thread::spawn(move || {
            if let Err(error) = command(&stream) {
                eprintln!("machine-agent: {error:#}");
            }
        });
    }
    Ok(())
}

/// One command from its request to its end.
fn command(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut from = stream;
    let Frame::Request(request) = Frame::read(&mut from)? else { bail!("a connection without a request") };
    let mut child = match start(&request) {
        Ok(child) => child,
        Err(error) => return Frame::NotStarted(format!("{error:#}")).write(&mut &*stream),
    };
    let ended = follow(stream, &mut child);
    if !matches!(child.try_wait(), Ok(Some(_))) {
        kill_group(&mut child);
    }
    Frame::Ended(ending(ended?)).write(&mut &*stream)
}

fn start(request: &Request) -> Result<Child> {
    let (program, arguments) = request.argv.split_first().context("no command")?;
    let environment = [("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("TERM", &request.term)];
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(HashMap::from(environment))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

fn ending(status: ExitStatus) -> Ending {
    status.code().map_or_else(|| Ending::Signal(status.signal().unwrap_or_default()), Ending::Code)
}

/// Passes on what comes and goes until the command has ended; an error when the other end is gone first.
fn follow(stream: &TcpStream, child: &mut Child) -> Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch a command")?;
    let input = feed(child);
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    loop {
        let mut fds = vec![PollFd::new(&process, PollFlags::IN), PollFd::new(stream, PollFlags::IN)];
        fds.extend(out.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(err.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot poll"),
        }
        let (ended, told) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        // Looked for after the end was seen: what it wrote before is in the pipes by then. What it left
        // running may hold them open for ever and is not waited for.
        pass(&mut out, ended, |bytes| Frame::Output(bytes).write(&mut &*stream))?;
        pass(&mut err, ended, |bytes| Frame::Error(bytes).write(&mut &*stream))?;
        if ended {
            return child.wait().context("cannot ask how a command ended");
        }
        if told {
            match Frame::read(&mut &*stream)? {
                Frame::Input(bytes) => drop(input.send(bytes)),
                Frame::Signal(number) => {
                    let signal = Signal::from_named_raw(number).context("an unknown signal")?;
                    // It may have ended meanwhile.
                    let _ = kill_process_group(pid, signal);
                }
                other => bail!("not to be sent to a command: {other:?}"),
            }
        }
    }
}

/// Writes to the command what is sent, the end of its input after an empty piece. It may never read.
fn feed(child: &mut Child) -> Sender<Vec<u8>> {
    let (sender, pieces) = channel::<Vec<u8>>();
    let pipe = child.stdin.take();
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        for piece in pieces {
            if piece.is_empty() || pipe.write_all(&piece).is_err() {
                return;
            }
        }
    });
    sender
}

/// Passes on what a pipe holds now, everything when `all`; the pipe goes when its end is reached.
fn pass<P: Read + AsFd>(pipe: &mut Option<P>, all: bool, to: impl Fn(Vec<u8>) -> Result<()>) -> Result<()> {
    let mut part = vec![0; 64 << 10];
    loop {
        let Some(open) = pipe else { return Ok(()) };
        let mut readable = [PollFd::new(&*open, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut readable, Some(&now)) == Ok(0) {
            return Ok(());
        }
        let there = ioctl_fionread(&*open).context("cannot see what is in a pipe")?;
        match open.read(&mut part) {
            Ok(0) => *pipe = None,
            Ok(bytes) => to(part[..bytes].to_vec())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read a pipe"),
        }
        // One that writes for ever in the background must not hold us.
        if !all || there <= u64::try_from(part.len())? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A connection to an agent of its own, with `script` requested.
    fn ask(script: &str) -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        thread::spawn(move || command(&served));
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        Frame::Request(Request { argv, term: "dumb".into() }).write(&mut stream).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn end(stream: &mut TcpStream) -> (Vec<u8>, Vec<u8>, Frame) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match Frame::read(stream).unwrap() {
                Frame::Output(bytes) => out.extend(bytes),
                Frame::Error(bytes) => err.extend(bytes),
                other => return (out, err, other),
            }
        }
    }

    #[test]
    fn input_output_and_exit_code_pass() {
        let mut stream = ask("cat; echo no >&2; exit 3");
        Frame::Input(b"yes".to_vec()).write(&mut stream).unwrap();
        Frame::Input(Vec::new()).write(&mut stream).unwrap();
        assert_eq!(end(&mut stream), (b"yes".to_vec(), b"no\n".to_vec(), Frame::Ended(Ending::Code(3))));
    }

    #[test]
    fn a_long_output_passes_whole_and_a_background_process_holds_nobody() {
        let mut stream = ask("head -c 300000 /dev/zero; sleep 5 & exit 0");
        let started = Instant::now();
        let (out, _, ended) = end(&mut stream);
        assert_eq!((out.len(), ended), (300_000, Frame::Ended(Ending::Code(0))));
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_signal_reaches_the_command_and_its_end_is_told_as_such() {
        let mut stream = ask("echo ready; exec sleep 60");
        assert_eq!(Frame::read(&mut stream).unwrap(), Frame::Output(b"ready\n".to_vec()));
        Frame::Signal(15).write(&mut stream).unwrap();
        assert_eq!(end(&mut stream).2, Frame::Ended(Ending::Signal(15)));
    }

    #[test]
    fn who_leaves_takes_the_command_along() {
        let mut stream = ask("echo $$; exec sleep 60");
        let Frame::Output(line) = Frame::read(&mut stream).unwrap() else { panic!("no pid") };
        let pid = Pid::from_raw(String::from_utf8(line).unwrap().trim().parse().unwrap()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        drop(stream);
        assert!(crate::deadline::await_readable(&process, Duration::from_secs(20)).unwrap());
    }

    #[test]
    fn what_cannot_be_started_is_said() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        thread::spawn(move || command(&served));
        Frame::Request(Request { argv: vec!["/no/such".into()], term: String::new() }).write(&mut stream).unwrap();
        let Frame::NotStarted(reason) = Frame::read(&mut stream).unwrap() else { panic!("it was started") };
        assert!(reason.starts_with("cannot start /no/such: No such file"), "{reason}");
    }
}
