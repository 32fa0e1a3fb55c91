//! The services' groups and processes, as descriptors.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use oarlock_core::sentinel::{Event, Exit, Main, Process, Record, Service};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::cgroup::{Group, Groups};
use crate::process::identity;

/// One service.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) group: Group,
    /// The main process, until it has ended.
    pub(super) main: Option<MainProcess>,
    /// Nobody was told yet that the group is empty.
    pub(super) watched: bool,
    /// It was killed, and what is found alive in it is to be killed again.
    pub(super) killed: bool,
}

#[derive(Debug)]
pub(super) struct MainProcess {
    pub(super) process: Process,
    pub(super) pidfd: OwnedFd,
    /// We are its parent: its end comes from the reaper, with its status.
    pub(super) is_child: bool,
}

#[derive(Debug)]
pub(super) struct Services {
    pub(super) groups: Groups,
    pub(super) running: BTreeMap<String, Running>,
}

impl Services {
    pub(super) fn new(groups: Groups) -> Self {
        Self { groups, running: BTreeMap::new() }
    }

    /// Opens what the record says is alive; returns what turned out to have ended.
    pub(super) fn adopt(&mut self, record: &Record) -> Vec<Event> {
        let mut ended = Vec::new();
        for service in record.services.iter().filter(|service| service.is_alive()) {
            let main = service.process().and_then(|process| open_process(process).ok());
            if let (Main::Running(process), None) = (service.main, &main) {
                let (name, pid) = (service.name.clone(), process.pid);
                ended.push(Event::Exited { name, pid, exit: Exit::Unknown });
            }
            ended.extend(self.adopt_group(service, main));
        }
        ended
    }

    fn adopt_group(&mut self, service: &Service, main: Option<MainProcess>) -> Option<Event> {
        let name = service.name.clone();
        let Ok(mut group) = self.groups.open(&name) else {
            return Some(Event::Emptied { name });
        };
        if let Some(process) = service.process() {
            group.set_main(process);
        }
        let populated = group.is_populated();
        let watched = service.occupied && populated;
        self.running.insert(name.clone(), Running { group, main, watched, killed: false });
        (!populated).then_some(Event::Emptied { name })
    }

    /// Kills every process of a service.
    pub(super) fn kill(&mut self, name: &str) {
        if let Some(running) = self.running.get_mut(name) {
            running.group.kill();
            running.killed = true;
        }
    }

    /// The service whose main process this is.
    pub(super) fn of_main(&mut self, pid: u32) -> Option<(&String, &mut Running)> {
        self.running.iter_mut().find(|(_, running)| running.main.as_ref().is_some_and(|main| main.process.pid == pid))
    }

    /// The groups that became empty since the last look. A killed one that is not empty is killed
    /// again where that is not the kernel's affair.
    pub(super) fn emptied(&mut self) -> Vec<String> {
        let mut emptied = Vec::new();
        for (name, running) in self.running.iter_mut().filter(|(_, running)| running.watched) {
            if !running.group.is_populated() {
                running.watched = false;
                emptied.push(name.clone());
            } else if running.killed && running.group.events().is_none() {
                running.group.kill();
            }
        }
        emptied
    }

    /// Whether somebody must look from time to time, because no event tells.
    pub(super) fn must_look(&self) -> bool {
        let untold = |running: &Running| running.watched && running.group.events().is_none();
        self.running.values().any(|running| untold(running) && (running.killed || running.main.is_none()))
    }
}

fn open_process(process: Process) -> io::Result<MainProcess> {
    let pid = Pid::from_raw(process.pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // Looked at after it was opened: from now on the number cannot change hands.
    if !identity::exists(process) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(MainProcess { process, pidfd, is_child: false })
}
