//! What the state machine wants, done.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use oarlock_core::sentinel::{Act, Address, Command, Effect, Event, FromSentinel, Notice, Outcome, Process};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::services::{MainProcess, Running};
use super::shell::Shell;
use crate::network::{Netlink, NetworkError};
use crate::process::cgroup::MARK;
use crate::process::spawn::{self, Started};
use crate::process::{clock, identity};

/// A child that has yet to say whether its program runs.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) ticket: u64,
    pub(super) pipe: OwnedFd,
    /// A helper must say that it is done; of a service, silence means that its program runs.
    pub(super) is_helper: bool,
}

impl Shell {
    /// Hands an event to the state machine and performs what comes of it, and of that.
    pub(super) fn handle(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            let effects = self.machine.handle(clock::boot_us(), event);
            // Before a start is performed: it must find the watchdog running.
            self.tend_hardware();
            for effect in effects {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Silence { services, addresses } => self.silence(&services, &addresses),
            Effect::Save => self.save(),
            Effect::Reply { id, reply } => self.agent.send(&FromSentinel::Reply { id, reply }),
            Effect::Notify(notice) => self.notify(notice),
            Effect::Act { ticket, act } => self.act(ticket, act),
            Effect::Kill { name } => self.services.kill(&name),
            Effect::RemoveAddress(address) => self.remove_address(address),
            Effect::Inspect { name } => {
                let group = self.services.running.get(&name).map(|running| &running.group);
                let remaining = group.map(crate::process::cgroup::Group::remaining).unwrap_or_default();
                self.events.push_back(Event::Inspected { name, remaining });
            }
            Effect::Leave => self.leaving = true,
        }
    }

    /// The lease has lapsed. Killing comes first although the address could go first: to kill is to
    /// set flags, while taking an address away waits for the kernel's network lock, which a driver
    /// in trouble can hold for seconds, and trouble with the network is when leases lapse. The
    /// groups are frozen before they die, so nothing is answered in between.
    fn silence(&mut self, services: &[String], addresses: &[Address]) {
        let start = Instant::now();
        for name in services {
            self.services.kill(name);
        }
        let killed = start.elapsed();
        for address in addresses {
            self.remove_address(address.clone());
        }
        let all = start.elapsed();
        self.log(&format!(
            "lease lapsed: killed {services:?} within {} us, took {} addresses away within {} us",
            killed.as_micros(),
            addresses.len(),
            all.as_micros(),
        ));
    }

    pub(super) fn save(&mut self) {
        // Nothing may depend on a write that failed, and nothing does: the next sentinel would
        // only know less, and lapse earlier.
        if let Err(error) = self.store.save(self.machine.record()) {
            self.log(&format!("cannot save the record: {error}"));
        }
    }

    fn notify(&mut self, notice: Notice) {
        match &notice {
            Notice::Log { line } => self.journal.write(line),
            Notice::Missed => {}
            other => self.journal.write(&format!("{other:?}")),
        }
        self.agent.send(&FromSentinel::Notice(notice));
    }

    fn act(&mut self, ticket: u64, act: Act) {
        let outcome = match act {
            Act::Spawn { name, command } => self.spawn(ticket, name, *command),
            Act::Promote { name, process, trigger_file, signal } => {
                self.promote(ticket, &name, process, &trigger_file, signal)
            }
            Act::AddAddress(address) => Some(self.add_address(&address)),
            Act::Signal { process, signal } => Some(self.signal(process, signal)),
        };
        // Looked at again now: time has passed.
        self.events.extend(outcome.map(|outcome| Event::Acted { ticket, outcome }));
    }

    fn spawn(&mut self, ticket: u64, name: String, mut command: Command) -> Option<Outcome> {
        // Let go of the old group's files first.
        self.services.running.remove(&name);
        let mut group = match self.services.groups.create(&name) {
            Ok(group) => group,
            Err(error) => return Some(failed(&format!("creating the cgroup of {name}: {error}"))),
        };
        if group.directory().is_none() {
            command.env.push((MARK.to_owned(), name.clone()));
        }
        match spawn::service(&command, &mut group, self.oom_score_adjust) {
            Ok(Started { process, pidfd, report }) => {
                self.has_child();
                let main = Some(MainProcess { process, pidfd, is_child: true });
                self.services.running.insert(name, Running { group, main, watched: true, killed: false });
                self.reports.push(Report { ticket, pipe: report, is_helper: false });
                Some(Outcome::Forked(process))
            }
            Err(error) => {
                self.services.groups.remove(&name);
                Some(failed(&format!("starting {name}: {error}")))
            }
        }
    }

    fn promote(&mut self, ticket: u64, name: &str, main: Process, trigger: &str, signal: i32) -> Option<Outcome> {
        let running = self.services.running.get(name);
        let known = running.and_then(|running| running.main.as_ref().map(|main| (&running.group, main)));
        let Some((group, main)) = known.filter(|(_, known)| known.process == main) else {
            return Some(failed(&format!("{name} has ended")));
        };
        match spawn::promotion(group, main.pidfd.as_fd(), trigger, signal) {
            Ok(started) => {
                self.has_child();
                self.reports.push(Report { ticket, pipe: started.report, is_helper: true });
                None
            }
            Err(error) => Some(failed(&format!("promoting {name}: {error}"))),
        }
    }

    pub(super) fn serve_reports(&mut self) {
        let mut done = Vec::new();
        self.reports.retain(|report| {
            let outcome = match spawn::outcome(&report.pipe) {
                spawn::Report::Pending => return true,
                spawn::Report::Silent if report.is_helper => failed("the helper was killed"),
                spawn::Report::Silent | spawn::Report::Done => Outcome::Done,
                spawn::Report::Failed(reason) => Outcome::Failed { reason },
            };
            done.push(Event::Acted { ticket: report.ticket, outcome });
            false
        });
        for event in done {
            self.handle(event);
        }
    }

    fn signal(&self, process: Process, signal: i32) -> Outcome {
        let running = self.services.running.values();
        let mut mains = running.filter_map(|running| running.main.as_ref());
        let Some(main) = mains.find(|main| main.process == process) else {
            return failed(&format!("process {} has ended", process.pid));
        };
        let Some(named) = Signal::from_named_raw(signal) else {
            return failed(&format!("no signal {signal}"));
        };
        match pidfd_send_signal(&main.pidfd, named) {
            Ok(()) => Outcome::Done,
            Err(errno) => failed(&format!("signalling process {}: {errno}", process.pid)),
        }
    }

    fn add_address(&mut self, address: &Address) -> Outcome {
        let Some(index) = interface_index(&address.interface) else {
            return failed(&format!("no interface {}", address.interface));
        };
        match self.netlink().and_then(|netlink| netlink.add_address(index, address.ip, address.prefix_bits)) {
            Ok(()) => Outcome::Done,
            Err(error) => failed(&format!("adding {address}: {}", reason(&error))),
        }
    }

    fn remove_address(&mut self, address: Address) {
        match self.take_away(&address) {
            Ok(()) => self.events.push_back(Event::AddressGone { address }),
            Err(error) => {
                let line = format!("cannot remove {address}, trying again: {}", reason(&error));
                self.log(&line);
                self.netlink = None;
            }
        }
    }

    /// Takes an address away; one that is not there is as good.
    pub(super) fn take_away(&mut self, address: &Address) -> Result<(), NetworkError> {
        // With its interface the address is gone too.
        let Some(index) = interface_index(&address.interface) else {
            return Ok(());
        };
        self.netlink()?.remove_address(index, address.ip, address.prefix_bits).map(drop)
    }

    fn netlink(&mut self) -> Result<&mut Netlink, NetworkError> {
        let open = match self.netlink.take() {
            Some(open) => open,
            None => Netlink::open()?,
        };
        Ok(self.netlink.insert(open))
    }

    /// An agent whose sentinel died should have become the sentinel. One that did not (it is
    /// stopped, say) must not run beside the next.
    pub(super) fn kill_old_agent(&mut self, agent: Process) {
        let pid = Pid::from_raw(agent.pid.cast_signed());
        let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return;
        };
        if identity::exists(agent) {
            self.log(&format!("killing the agent of a former sentinel, process {}", agent.pid));
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            self.old_agent = Some(pidfd);
        }
    }
}

fn interface_index(name: &str) -> Option<u32> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    netdevice::name_to_index(any, name).ok()
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_owned() }
}

fn reason(error: &NetworkError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
