//! Starting a process without waiting for it: it is in its group from its first instruction on,
//! and what goes wrong before its program runs is told through a pipe.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oarlock_core::sentinel::{Command, Process};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    PidfdFlags, Signal, chdir, kill_process, pidfd_open, pidfd_send_signal, setpriority_process, setsid, umask,
};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::cgroup::{self, Group};
use super::identity;
use super::sys::{self, Forked};

/// The steps of a child before its program runs, for the message when one fails.
const STEPS: [&str; 9] = [
    "joining its cgroup",
    "setting its priority",
    "opening its standard output",
    "opening its standard error",
    "setting its user and groups",
    "changing into its working directory",
    "executing its program",
    "creating the trigger file",
    "signalling the main process",
];
const JOIN: usize = 0;
const PRIORITY: usize = 1;
const STDOUT: usize = 2;
const STDERR: usize = 3;
const USER: usize = 4;
const CWD: usize = 5;
const EXECUTE: usize = 6;
const TRIGGER: usize = 7;
const SIGNAL: usize = 8;
/// What the promotion helper writes when all is done: its silent death is no success.
const ALL_DONE: u8 = 0xff;

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// It.
    pub process: Process,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Readable when its program runs, or could not be run: see [`outcome`].
    pub report: OwnedFd,
}

/// What a child reports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Nothing yet.
    Pending,
    /// Its program runs, or the helper has done all.
    Done,
    /// It ended without a word.
    Silent,
    /// A step failed.
    Failed(String),
}

/// Everything the child needs, prepared before it exists.
struct Prepared {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    stdout: CString,
    stderr: CString,
    groups: Vec<Gid>,
    gid: Option<Gid>,
    uid: Option<Uid>,
    nice: i32,
    oom_score_adjust: String,
}

/// Starts a service in its group, in a session of its own, with default signals, without our files.
pub(crate) fn service(command: &Command, group: &mut Group, oom_score_adjust: i32) -> io::Result<Started> {
    let prepared = prepare(command, oom_score_adjust)?;
    let started = start(group.directory(), |report, joined| {
        sys::default_signals();
        let _ = setsid();
        let Err((step, errno)) = become_service(&prepared, joined.then(|| group.directory()).flatten());
        tell(report, step, errno)
    })?;
    group.set_main(started.process);
    Ok(started)
}

/// Creates a trigger file and signals the main process, from within the group, so that it is
/// killed with the group.
pub(crate) fn promotion(group: &Group, main: BorrowedFd<'_>, trigger_file: &str, signal: i32) -> io::Result<Started> {
    let trigger_file = c_string(trigger_file)?;
    let signal = Signal::from_named_raw(signal)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {signal}")))?;
    start(group.directory(), |report, joined| {
        sys::default_signals();
        match promote(&trigger_file, main, signal, joined.then(|| group.directory()).flatten()) {
            Ok(()) => {
                let _ = rustix::io::write(report, &[ALL_DONE]);
                sys::exit(0)
            }
            Err((step, errno)) => tell(report, step, errno),
        }
    })
}

/// Runs our own program again with `socket` as descriptor 3 and our environment.
pub(crate) fn ourselves(argv: &[CString], socket: &OwnedFd, oom_score_adjust: i32) -> io::Result<Started> {
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let pair = [name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat();
            CString::new(pair).ok()
        })
        .collect();
    let adjust = oom_score_adjust.to_string();
    start(None, |report, _| {
        sys::default_signals();
        let _ = std::fs::write("/proc/self/oom_score_adj", &adjust);
        // Not below 4, so that 3 is free for the socket.
        let errno = match (rustix::io::fcntl_dupfd_cloexec(report, 10), sys::duplicate_onto(socket, 3)) {
            (Ok(report), Ok(())) => {
                sys::close_on_exec_from(4);
                let errno = sys::execute(c"/proc/self/exe", argv, &env);
                tell(report.as_fd(), EXECUTE, errno)
            }
            (Err(errno), _) | (_, Err(errno)) => errno,
        };
        tell(report, EXECUTE, errno)
    })
}

/// Reads what a child reports, without waiting.
pub(crate) fn outcome(report: &OwnedFd) -> Report {
    let mut message = [0; 5];
    match rustix::io::read(report, &mut message[..]) {
        Ok(0) => Report::Silent,
        Ok(1) if message[0] == ALL_DONE => Report::Done,
        Ok(5) => {
            let [step, a, b, c, d] = message;
            let error = io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
            let step = STEPS.get(usize::from(step)).copied().unwrap_or("an unknown step");
            Report::Failed(format!("{step}: {error}"))
        }
        Err(Errno::AGAIN | Errno::INTR) => Report::Pending,
        Ok(_) | Err(_) => Report::Failed("unreadable report of the child".to_owned()),
    }
}

/// Forks, into the group where the kernel can; `child` gets the pipe to report to and whether it
/// has yet to join the group.
fn start(directory: Option<&File>, child: impl FnOnce(BorrowedFd<'_>, bool)) -> io::Result<Started> {
    let (report, tell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (forked, to_join) = match sys::fork_into(directory.map(AsFd::as_fd)) {
        Ok(forked) => (forked, false),
        Err(_) => (sys::fork()?, directory.is_some()),
    };
    match forked {
        Forked::Child => {
            child(tell.as_fd(), to_join);
            sys::exit(127)
        }
        Forked::Parent(pid) => {
            let identify = || -> io::Result<Started> {
                let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
                // It is our child and not yet waited for, so its entry exists even if it is dead.
                let process = identity::process(pid.as_raw_nonzero().get().cast_unsigned())?;
                Ok(Started { process, pidfd, report })
            };
            // What we cannot hold must not run.
            identify().inspect_err(|_| {
                let _ = kill_process(pid, Signal::KILL);
            })
        }
    }
}

fn prepare(command: &Command, oom_score_adjust: i32) -> io::Result<Prepared> {
    let [program, ..] = command.argv.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program"));
    };
    if !Path::new(program).is_absolute() {
        let text = format!("program {program} is no absolute path");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let variable = |(name, value): &(String, String)| c_string(&format!("{name}={value}"));
    let path = |path: &Option<String>, default: &str| c_string(path.as_deref().unwrap_or(default));
    Ok(Prepared {
        program: c_string(program)?,
        argv: command.argv.iter().map(|argument| c_string(argument)).collect::<io::Result<_>>()?,
        env: command.env.iter().map(variable).collect::<io::Result<_>>()?,
        cwd: path(&command.cwd, "/")?,
        stdout: path(&command.stdout, "/dev/null")?,
        stderr: path(&command.stderr, "/dev/null")?,
        groups: command.groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
        gid: command.gid.map(Gid::from_raw),
        uid: command.uid.map(Uid::from_raw),
        nice: command.priority.nice.unwrap_or(0),
        oom_score_adjust: command.priority.oom_score_adjust.unwrap_or(oom_score_adjust).to_string(),
    })
}

type Step<T> = Result<T, (usize, Errno)>;

fn at<T>(step: usize) -> impl FnOnce(Result<T, Errno>) -> Step<T> {
    move |result| result.map_err(|errno| (step, errno))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The life of a child up to its program.
fn become_service(prepared: &Prepared, join: Option<&File>) -> Step<Infallible> {
    join_group(join)?;
    at(PRIORITY)(setpriority_process(None, prepared.nice))?;
    let adjusted = std::fs::write("/proc/self/oom_score_adj", &prepared.oom_score_adjust);
    adjusted.map_err(|error| (PRIORITY, errno(&error)))?;
    // Opened while still privileged, and never through a link that the service's user may plant.
    redirect(c"/dev/null", OFlags::RDONLY, 0, STDOUT)?;
    let append = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
    redirect(&prepared.stdout, append, 1, STDOUT)?;
    redirect(&prepared.stderr, append, 2, STDERR)?;
    umask(Mode::from_raw_mode(0o022));
    if prepared.uid.is_some() || prepared.gid.is_some() {
        at(USER)(set_thread_groups(&prepared.groups))?;
    }
    if let Some(gid) = prepared.gid {
        at(USER)(set_thread_res_gid(gid, gid, gid))?;
    }
    if let Some(uid) = prepared.uid {
        at(USER)(set_thread_res_uid(uid, uid, uid))?;
    }
    at(CWD)(chdir(&prepared.cwd))?;
    sys::close_on_exec_from(3);
    Err((EXECUTE, sys::execute(&prepared.program, &prepared.argv, &prepared.env)))
}

fn promote(trigger_file: &CStr, main: BorrowedFd<'_>, signal: Signal, join: Option<&File>) -> Step<()> {
    join_group(join)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    at(TRIGGER)(open(trigger_file, flags, Mode::from_raw_mode(0o644)))?;
    at(SIGNAL)(pidfd_send_signal(main, signal))
}

fn join_group(join: Option<&File>) -> Step<()> {
    join.map_or(Ok(()), cgroup::join).map_err(|error| (JOIN, errno(&error)))
}

fn redirect(path: &CStr, flags: OFlags, onto: i32, step: usize) -> Step<()> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = at(step)(open(path, flags, Mode::from_raw_mode(0o640)))?;
    at(step)(sys::duplicate_onto(&file, onto))
}

fn tell(report: BorrowedFd<'_>, step: usize, errno: Errno) -> ! {
    let [a, b, c, d] = errno.raw_os_error().to_ne_bytes();
    let step = u8::try_from(step).unwrap_or(u8::MAX - 1);
    let _ = rustix::io::write(report, &[step, a, b, c, d]);
    sys::exit(127)
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} contains a zero byte")))
}
