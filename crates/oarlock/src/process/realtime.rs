//! Being on time: locked memory and real-time scheduling.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::setpriority_process;

use super::sys;

/// Priority of the sentinel among real-time processes: below the kernel's interrupt threads (50).
pub const SENTINEL_PRIORITY: i32 = 30;
/// What the sentinel's heap is made to hold at the start, in bytes: a record of the usual size, written
/// out, several times over.
const HEAP_BYTES: usize = 256 * 1024;
/// Nice value where real-time scheduling is refused.
const NICE: i32 = -19;
/// Priority of the agent: below the sentinel, which must interrupt it.
pub const AGENT_PRIORITY: i32 = 20;

/// Locks every page once it was used, now and in future: of the program, what is never run takes no
/// memory. For the agent.
///
/// # Errors
/// When the limit on locked memory is too low.
pub fn lock_on_fault() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// The same after making the heap and the stack large enough for the rest of a small process's
/// life. For the sentinel, before it does anything else; what it will run when it matters it must
/// run once beforehand.
///
/// # Errors
/// When the limit on locked memory is too low.
pub fn lock_with_room() -> io::Result<()> {
    sys::keep_heap();
    lock_on_fault()?;
    sys::touch_stack();
    // Freed at once, but not given back: later allocations find it there.
    drop(vec![1_u8; HEAP_BYTES]);
    Ok(())
}

/// Asks for first-in-first-out real-time scheduling of this thread, not inherited by children.
///
/// # Errors
/// When it is not granted: no privilege, or a cgroup without real-time budget.
pub fn request_fifo(priority: i32) -> io::Result<()> {
    sys::request_fifo(priority).inspect_err(|_| {
        // The next best; not granted either without privilege.
        let _ = setpriority_process(None, NICE);
    })
}

/// Gives real-time scheduling of this thread up, until it is asked for again.
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub fn request_ordinary() -> io::Result<()> {
    sys::request_ordinary()
}
