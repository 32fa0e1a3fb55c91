//! Every service in a group of its own that can be killed as one.
//!
//! With cgroup version 2 the kernel keeps the group; without, it is the session of the main
//! process and whatever else carries the service's mark in its environment.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oarlock_core::sentinel::{Process, Remaining};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::identity::{self, Stat};

/// Environment variable that marks the processes of a service.
pub const MARK: &str = "OARLOCK_SERVICE";

/// Group of a keeper; hidden, so that no service can have the name.
pub(crate) const KEEPER: &str = ".keeper";

/// Where groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Directories below this one.
    Cgroup(PathBuf),
    /// No cgroups: sessions and marks.
    Sessions,
}

impl Groups {
    /// Finds the version 2 hierarchy and makes our directory `name` in it; without one, or without
    /// the right to, groups are sessions.
    #[must_use]
    pub fn find(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let Some(mount) = unified_mount(&mounts) else {
            return Self::Sessions;
        };
        let own = mount.join(name);
        let made = fs::create_dir(&own).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        });
        made.map_or(Self::Sessions, |()| Self::Cgroup(own))
    }

    /// Whether a whole group can be killed at one blow.
    #[must_use]
    pub fn can_kill(&self) -> bool {
        matches!(self, Self::Cgroup(own) if own.join("cgroup.kill").exists())
    }

    /// Claims our directory for the life of the returned file. Two sentinels with one directory
    /// would take each other's services for strays. `None` without cgroups.
    ///
    /// # Errors
    /// When another process has claimed it and does not go within a second.
    pub(crate) fn claim(&self) -> io::Result<Option<File>> {
        let Self::Cgroup(own) = self else {
            return Ok(None);
        };
        let directory = File::open(own)?;
        // A sentinel that died an instant ago may not yet have let go of everything.
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(directory)),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A new, empty group; one of that name that is left over and empty is replaced.
    ///
    /// # Errors
    /// When the old one still has processes.
    pub fn create(&self, name: &str) -> io::Result<Group> {
        if let Self::Cgroup(own) = self {
            let path = own.join(name);
            remove_tree(&path)?;
            fs::create_dir(&path)?;
        }
        self.open(name)
    }

    /// The group of that name as it is.
    ///
    /// # Errors
    /// When it does not exist (never without cgroups).
    pub fn open(&self, name: &str) -> io::Result<Group> {
        let kind = match self {
            Self::Cgroup(own) => Kind::Cgroup(Cgroup::open(&own.join(name))?),
            Self::Sessions => Kind::Session { main: None },
        };
        Ok(Group { name: name.to_owned(), kind })
    }

    /// Names of all groups; none without cgroups.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Cgroup(own) => {
                children(own).iter().filter_map(|path| Some(path.file_name()?.to_str()?.into())).collect()
            }
            Self::Sessions => Vec::new(),
        }
    }

    /// Forgets an empty group. A group that is not empty stays.
    pub fn remove(&self, name: &str) {
        if let Self::Cgroup(own) = self {
            let _ = remove_tree(&own.join(name));
        }
    }

    /// Moves this process into a group of its own.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn enter(&self, name: &str) -> io::Result<()> {
        let Self::Cgroup(own) = self else {
            return Ok(());
        };
        let path = own.join(name);
        fs::create_dir_all(&path)?;
        join(File::open(path)?)
    }

    /// Forgets what is empty of our directory.
    pub fn remove_all(&self) {
        if let Self::Cgroup(own) = self {
            for child in children(own) {
                let _ = remove_tree(&child);
            }
            let _ = fs::remove_dir(own);
        }
    }
}

/// One group, with its files open so that killing it needs nothing that could fail or wait.
#[derive(Debug)]
pub struct Group {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Cgroup(Cgroup),
    Session { main: Option<Process> },
}

#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    directory: File,
    events: File,
    freeze: Option<File>,
    kill: Option<File>,
}

impl Group {
    /// Kills every process of the group, descendants and those just being forked included.
    ///
    /// Frozen first: all are told to run no further instruction before the first of them dies. A
    /// PostgreSQL backend that sees its postmaster die would otherwise still make the commit it
    /// waits with visible.
    pub fn kill(&self) {
        match &self.kind {
            Kind::Cgroup(cgroup) => cgroup.kill(),
            Kind::Session { main } => {
                // What can be named without a search first. Whoever forks between the search and
                // the blow is found the next time.
                if let Some(leader) = main.filter(|main| is_still_its_session(*main)).and_then(leader) {
                    let _ = kill_process_group(leader, Signal::STOP);
                    let _ = kill_process_group(leader, Signal::KILL);
                }
                let pids = self.pids();
                each(&pids, Signal::STOP);
                each(&pids, Signal::KILL);
            }
        }
    }

    /// Tells a group that is a session who leads it.
    pub fn set_main(&mut self, process: Process) {
        if let Kind::Session { main } = &mut self.kind {
            *main = Some(process);
        }
    }

    /// Whether a process that is not a zombie is left.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        match &self.kind {
            Kind::Cgroup(cgroup) => cgroup.is_populated(),
            Kind::Session { .. } => !self.pids().is_empty(),
        }
    }

    /// A file on which `POLLPRI` tells that the group became empty; `None`: look from time to time.
    #[must_use]
    pub fn events(&self) -> Option<&File> {
        match &self.kind {
            Kind::Cgroup(cgroup) => Some(&cgroup.events),
            Kind::Session { .. } => None,
        }
    }

    /// The directory to start processes in.
    #[must_use]
    pub fn directory(&self) -> Option<&File> {
        match &self.kind {
            Kind::Cgroup(cgroup) => Some(&cgroup.directory),
            Kind::Session { .. } => None,
        }
    }

    /// Its processes with their states.
    #[must_use]
    pub fn remaining(&self) -> Vec<Remaining> {
        let remaining = |pid| identity::stat(pid).ok().map(|stat| Remaining { pid, state: stat.state });
        self.pids().into_iter().filter_map(remaining).collect()
    }

    fn pids(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Cgroup(cgroup) => pids_below(&cgroup.path),
            Kind::Session { main } => session_pids(&self.name, *main),
        }
    }
}

impl Cgroup {
    fn open(path: &Path) -> io::Result<Self> {
        let writable = |file| File::options().write(true).open(path.join(file)).ok();
        Ok(Self {
            path: path.to_owned(),
            directory: File::open(path)?,
            events: File::open(path.join("cgroup.events"))?,
            freeze: writable("cgroup.freeze"),
            kill: writable("cgroup.kill"),
        })
    }

    fn kill(&self) {
        if let Some(mut freeze) = self.freeze.as_ref() {
            let _ = freeze.write_all(b"1");
        }
        let killed = self.kill.as_ref().is_some_and(|mut kill| kill.write_all(b"1").is_ok());
        if !killed {
            // Before Linux 5.14. What is frozen forks no more, but freezing takes a moment.
            for _ in 0..3 {
                each(&pids_below(&self.path), Signal::KILL);
            }
        }
    }

    fn is_populated(&self) -> bool {
        let mut text = [0; 128];
        // Unreadable means removed, and only an empty group can be removed.
        let bytes = self.events.read_at(&mut text, 0).unwrap_or(0);
        text[..bytes].split(|byte| *byte == b'\n').any(|line| line == b"populated 1")
    }
}

fn each(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Puts a process into a group; for kernels that cannot start it there.
pub(super) fn join(directory: impl AsFd) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = openat(directory, c"cgroup.procs", flags, Mode::empty())?;
    rustix::io::write(&procs, b"0")?;
    Ok(())
}

pub(crate) fn unified_mount(mountinfo: &str) -> Option<PathBuf> {
    let mut mounts = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mount = place.split(' ').nth(4)?;
        (kind.split(' ').next()? == "cgroup2").then(|| PathBuf::from(unescape(mount)))
    });
    // The last one hides those mounted on the same place before.
    mounts.next_back()
}

/// The kernel writes blanks in paths as `\040`.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a group and the groups below it, all of which must be empty.
fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn pids_below(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(path) {
        pids.extend(pids_below(&child));
    }
    pids
}

/// The processes, zombies excepted, that are in the main process's session or carry the mark.
fn session_pids(name: &str, main: Option<Process>) -> Vec<u32> {
    let session = main.filter(|main| is_still_its_session(*main)).map(|main| main.pid);
    let mark = format!("{MARK}={name}");
    let marked = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let ours = |pid: &u32| {
        let Ok(Stat { state, session: of, .. }) = identity::stat(*pid) else {
            return false;
        };
        state != 'Z' && (session == Some(of) || marked(*pid))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

/// A session keeps its number while it has members; once it has none, another process may get it.
fn is_still_its_session(main: Process) -> bool {
    identity::stat(main.pid).map_or(true, |stat| stat.start_ticks == main.start_ticks)
}

fn leader(main: Process) -> Option<Pid> {
    Pid::from_raw(main.pid.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_alone_or_beside_version_1() {
        let alone = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(unified_mount(alone), Some("/sys/fs/cgroup".into()));
        let beside = "40 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:31 /../.. /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n";
        assert_eq!(unified_mount(beside), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(unified_mount("1 2 0:3 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
