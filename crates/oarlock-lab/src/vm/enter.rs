//! Running a command inside a machine, for a machine what `nsenter` is for namespaces: a program on the
//! outside that reads, writes and ends as the command inside does.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;

use super::frame::{Ending, Frame, PORT, Request};
use crate::deadline::await_readable;
use crate::process::Process;

/// How long a machine may take to accept a command.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one wait for a machine's end lasts, before the next.
const LOOK: Duration = Duration::from_secs(3600);
/// Exit code when the command could not be started.
const NOT_STARTED: u8 = 125;
/// Exit code when the machine went away with the command.
const LOST: u8 = 137;

/// Which machine, and what to run there.
#[derive(Debug, Clone, clap::Args)]
pub struct EnterArgs {
    /// The machine's process: with it the command is gone.
    #[arg(long)]
    pid: i32,
    /// Where its agent listens.
    #[arg(long)]
    address: Ipv4Addr,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command; this program then ends as it did.
pub fn run(args: &EnterArgs) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let ended = runtime.block_on(enter(args));
    // A thread may still wait for our standard input.
    runtime.shutdown_background();
    match ended {
        Ok(Ending::Code(code)) => Ok(ExitCode::from(u8::try_from(code & 0xff)?)),
        Ok(Ending::Signal(number)) => {
            // Who started us shall see the signal. Those that cannot kill are told as a shell tells them.
            if let Some(signal) = Signal::from_named_raw(number) {
                kill_process(getpid(), signal).context("cannot end as the command did")?;
            }
            Ok(ExitCode::from(128 + u8::try_from(number & 0x7f)?))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(if error.is::<Gone>() { LOST } else { NOT_STARTED }))
        }
    }
}

/// The machine went away while the command ran.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the machine has lost its power")
    }
}

impl std::error::Error for Gone {}

async fn enter(args: &EnterArgs) -> Result<Ending> {
    let mut power = power(args.pid)?;
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect((args.address, PORT)));
    let stream = tokio::select! {
        stream = connect => stream.context("the machine does not answer")?.context("the machine's agent cannot be reached")?,
        _ = &mut power => bail!("the machine is off"),
    };
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    to.write_all(&Frame::Request(Request { argv: args.command.clone(), term }).encode()?).await?;
    let input = tokio::spawn(forward(to));
    let ended = tokio::select! {
        ended = follow(from) => ended,
        _ = &mut power => Err(Gone.into()),
    };
    input.abort();
    ended
}

/// Something is received once the machine's process has ended.
fn power(pid: i32) -> Result<oneshot::Receiver<()>> {
    let process = Process::of(pid).context("the machine is off")?;
    let pidfd = Pid::from_raw(process.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let pidfd = pidfd.filter(|_| process.alive()).context("the machine is off")?;
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        while matches!(await_readable(&pidfd, LOOK), Ok(false)) {}
        // Nobody may listen any more.
        let _ = tell.send(());
    });
    Ok(told)
}

/// What the command writes, until its end.
async fn follow(mut from: OwnedReadHalf) -> Result<Ending> {
    loop {
        match read(&mut from).await.context(Gone)? {
            Frame::Output(bytes) => {
                // A reader that has left is the command's affair: it goes on as if it were read.
                let _ = std::io::stdout().write_all(&bytes).and_then(|()| std::io::stdout().flush());
            }
            Frame::Error(bytes) => {
                let _ = std::io::stderr().write_all(&bytes);
            }
            Frame::Ended(ending) => return Ok(ending),
            Frame::NotStarted(reason) => bail!("{reason}"),
            other => bail!("not to be sent by a machine: {other:?}"),
        }
    }
}

async fn read(from: &mut OwnedReadHalf) -> Result<Frame> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let mut content = vec![0; Frame::rest(head)?];
    from.read_exact(&mut content).await?;
    Frame::decode(head[0], content)
}

/// Our input and the signals we get, passed on to the command.
async fn forward(mut to: OwnedWriteHalf) -> Result<()> {
    let mut input = input();
    let mut open = true;
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [mut terminate, mut interrupt, mut hangup] = {
        let [a, b, c] = kinds.map(signal);
        [a?, b?, c?]
    };
    loop {
        let frame = tokio::select! {
            piece = input.recv(), if open => {
                let piece = piece.unwrap_or_default();
                open = !piece.is_empty();
                Frame::Input(piece)
            }
            _ = terminate.recv() => Frame::Signal(kinds[0].as_raw_value()),
            _ = interrupt.recv() => Frame::Signal(kinds[1].as_raw_value()),
            _ = hangup.recv() => Frame::Signal(kinds[2].as_raw_value()),
        };
        to.write_all(&frame.encode()?).await?;
    }
}

/// Our standard input in pieces, until its end.
fn input() -> Receiver<Vec<u8>> {
    let (sender, pieces) = channel(4);
    std::thread::spawn(move || {
        let mut part = vec![0; 64 << 10];
        // Unreadable is as good as ended.
        while let Ok(bytes @ 1..) = std::io::stdin().read(&mut part) {
            if sender.blocking_send(part[..bytes].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}
