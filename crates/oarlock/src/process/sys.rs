//! The calls that the compiler cannot vouch for, each behind a safe function.
#![allow(unsafe_code)] // system calls without a safe wrapper; every use says why it is sound

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The two returns of a fork.
pub(crate) enum Forked {
    /// Here is the child.
    Child,
    /// Here is the parent, of this child.
    Parent(Pid),
}

/// Lets the tokio runtime watch a descriptor for something to read, or to write. Not for both without need: a socket
/// tells that it can be written again after each write, and every time that wakes us for nothing.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor and closes it only when dropped,
    // which AsyncFd does after it has deregistered it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// Binds a packet socket to an interface and one kind of Ethernet frame (0: receives none).
pub(crate) fn bind_packet(socket: impl AsFd, index: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the descriptor is open for the duration of the call, and the pointer and length
    // are those of a live sockaddr_ll, which the kernel only reads.
    check(unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), length) })
}

/// Forks. Only for a process whose other threads never allocate nor take a lock: the child goes on with a copy
/// of everything.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: there are no locks that another thread could hold in the child.
    forked(unsafe { libc::fork() }.into())
}

/// Forks into a cgroup (or into our own), so that the child is never anywhere else. Only for a
/// process whose other threads never allocate nor take a lock, and for children that execute a program or exit soon.
pub(crate) fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM this is a fork; no lock is held by another thread in the child, and
    // the child uses nothing of the C library that depends on its cached thread id. The pointer
    // and size are those of a live clone_args.
    forked(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) })
}

fn forked(result: libc::c_long) -> io::Result<Forked> {
    match i32::try_from(result) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Pid::from_raw(pid).filter(|_| pid > 0).map(Forked::Parent).ok_or_else(io::Error::last_os_error),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Ends a forked child without running anything that belongs to the parent.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: ends the process; runs no handlers.
    unsafe { libc::_exit(code) }
}

/// Replaces the program; returns only the error.
pub(crate) fn execute(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all strings are live and end with a zero byte, both arrays end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Makes `onto` a copy of a descriptor, not closed on exec. Only for a child that knows what it
/// replaces.
pub(crate) fn duplicate_onto(fd: impl AsFd, onto: c_int) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: plain descriptor numbers; the child owns all of its descriptors.
    let done = unsafe { if fd == onto { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, onto) } };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Has all descriptors from this one on closed when a program is executed.
pub(crate) fn close_on_exec_from(first: c_int) {
    // SAFETY: only sets a flag on descriptors. Where the call is unknown (before Linux 5.11) our
    // own descriptors have the flag already.
    unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// All signals as a new program expects them: not blocked, not ignored, not handled.
pub(crate) fn default_signals() {
    ignore_no_signals();
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Gives every signal its default action, whatever was inherited.
pub(crate) fn ignore_no_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler; a signal that cannot be changed is an error only.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Blocks these signals and returns a descriptor that delivers them, one u32 number at the start
/// of every 128 bytes read.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()))?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.min(0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its number.
    pub pid: u32,
    /// Whether a signal ended it.
    pub by_signal: bool,
    /// The signal, or its exit code.
    pub status: c_int,
}

/// Looks for a child that has ended and leaves it to be reaped; waits for one, if told to.
///
/// # Errors
/// When there are no children.
pub(crate) fn peek_child(wait: bool) -> Result<Option<Ended>, Errno> {
    let options = libc::WEXITED | libc::WNOWAIT | if wait { 0 } else { libc::WNOHANG };
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live siginfo_t, which the kernel writes.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut found, options) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: after waitid the number and the status are those of a child, or still zero.
    let (pid, status) = unsafe { (found.si_pid(), found.si_status()) };
    let by_signal = found.si_code != libc::CLD_EXITED;
    Ok((pid > 0).then_some(Ended { pid: pid.cast_unsigned(), by_signal, status }))
}

/// Gives real-time scheduling of this thread up.
pub(crate) fn request_ordinary() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live sched_param, which the kernel only reads.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) })
}

/// Asks for first-in-first-out scheduling of this thread, not inherited by children.
pub(crate) fn request_fifo(priority: c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a live sched_param, which the kernel only reads.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

/// Has the heap never give memory back, nor use separate mappings that would come and go.
pub(super) fn keep_heap() {
    // SAFETY: only sets parameters of the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 * 1024 * 1024);
    }
}

/// Has the stack grow now to what it will need.
#[inline(never)]
pub(super) fn touch_stack() {
    let mut pages = [0_u8; 128 * 1024];
    std::hint::black_box(&mut pages);
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Takes over a descriptor that this process was started with. Call it once for each number.
///
/// # Errors
/// When there is no such descriptor.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD only reads, and fails for a number that is not open.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the command line's word it was opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
