//! Which boot, which process: numbers alone are reused.

use std::{fs, io};

use oarlock_core::sentinel::Process;

/// What the kernel tells about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Letter of its state: `R`unning, `S`leeping, `D`isk sleep, `T` stopped, `Z`ombie, …
    pub state: char,
    /// Its session.
    pub session: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// The random name the kernel gave this boot.
///
/// # Errors
/// When /proc is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// Reads /proc/PID/stat.
///
/// # Errors
/// When there is no such process.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("stat of process {pid}")))
}

pub(crate) fn parse_stat(text: &str) -> Option<Stat> {
    // The program's name may hold blanks and parentheses: what counts comes after the last one.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?;
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, session, start_ticks })
}

/// A process as it can be recognised later.
///
/// # Errors
/// When there is no such process.
pub fn process(pid: u32) -> io::Result<Process> {
    Ok(Process { pid, start_ticks: stat(pid)?.start_ticks })
}

/// Whether this very process exists, dead but not yet reaped included.
#[must_use]
pub fn exists(process: Process) -> bool {
    stat(process.pid).is_ok_and(|stat| stat.start_ticks == process.start_ticks)
}

/// Whether a thread of this process waits in the kernel for what may never come (a dead disk).
#[must_use]
pub fn has_stuck_thread() -> bool {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter_map(|text| parse_stat(&text)).any(|stat| stat.state == 'D')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_odd_names() {
        let text = "42 (a) b) S 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 10\n";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', session: 39, start_ticks: 777 }));
        assert_eq!(parse_stat("42 (short) S 1"), None);
    }

    #[test]
    fn we_are_ourselves_and_nobody_else() {
        let own = process(std::process::id()).unwrap();
        assert!(exists(own));
        assert!(!exists(Process { start_ticks: own.start_ticks + 1, ..own }));
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
