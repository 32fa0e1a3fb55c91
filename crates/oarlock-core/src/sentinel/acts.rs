//! Starts and stops: check, act, check again, undo.

use super::machine::{Act, Effect, Outcome, Pending, Sentinel, Subject, check_name};
use super::message::{Address, Command, Guard, Notice, Refusal, Reply};
use super::record::{HeldAddress, Main, Process, Service, same};
use super::{MAX_ADDRESSES, MAX_SERVICES};

/// `None` when the reply comes later.
type Answer = Result<Option<Reply>, Refusal>;

impl Sentinel {
    pub(super) fn spawn(&mut self, id: u64, name: String, command: Box<Command>, guard: Option<Guard>) -> Answer {
        check_name(&name)?;
        self.admit_all(guard.as_ref())?;
        if self.record.service(&name).is_some_and(Service::is_alive) {
            return Err(Refusal::Busy { name });
        }
        self.record.services.retain(|service| service.name != name);
        self.begin_anew(&name);
        if self.record.services.len() >= MAX_SERVICES {
            return Err(Refusal::Full { what: "services".into(), limit: MAX_SERVICES });
        }
        // Known and saved before it exists, so that neither a lapse nor the next sentinel can
        // miss it.
        self.record.services.push(Service {
            name: name.clone(),
            guard: guard.clone(),
            main: Main::Starting,
            occupied: true,
            keep_group: command.keep_group,
        });
        self.save();
        let subject = Subject::Spawn(name.clone());
        self.act(Some(id), guard, subject, Act::Spawn { name, command });
        Ok(None)
    }

    pub(super) fn signal(&mut self, id: u64, name: &str, signal: i32) -> Answer {
        let process = self.running(name)?;
        self.act(Some(id), None, Subject::Signal, Act::Signal { process, signal });
        Ok(None)
    }

    pub(super) fn kill_group(&mut self, id: u64, name: String) -> Answer {
        if !self.record.service(&name).is_some_and(Service::is_alive) {
            return Ok(Some(Reply::Killed { remaining: Vec::new() }));
        }
        self.wait_killed(id, name.clone());
        self.kill(&name);
        Ok(None)
    }

    pub(super) fn promote(
        &mut self,
        id: u64,
        name: String,
        pid: u32,
        trigger_file: String,
        signal: i32,
        guard: Guard,
    ) -> Answer {
        self.admit(&guard)?;
        let process = self.running(&name)?;
        if process.pid != pid {
            return Err(Refusal::OtherProcess { name, pid: process.pid });
        }
        // Exclusive before it is promoted: a lapse from here on ends it.
        self.set_guard(&name, Some(guard.clone()));
        let subject = Subject::Promote(name.clone());
        let act = Act::Promote { name, process, trigger_file, signal };
        self.act(Some(id), Some(guard), subject, act);
        Ok(None)
    }

    pub(super) fn guarded(&mut self, name: &str, guard: Guard) -> Result<Reply, Refusal> {
        self.admit(&guard)?;
        match self.record.service(name) {
            // Its birth is checked against the guard it was ordered with.
            Some(service) if service.main == Main::Starting => Err(Refusal::Busy { name: name.into() }),
            Some(service) if service.is_alive() => Ok(()),
            _ => Err(Refusal::NotRunning { name: name.into() }),
        }?;
        self.set_guard(name, Some(guard));
        Ok(Reply::Done)
    }

    pub(super) fn unguarded(&mut self, name: &str) -> Result<Reply, Refusal> {
        // What a lapse is killing stays under its guard until it is gone.
        if self.silencing.is_some() {
            return Err(Refusal::Lapsed { lapsed: self.record.lapsed_generation });
        }
        let promoting = Subject::Promote(name.into());
        if self.pending.values().any(|pending| pending.subject == promoting) {
            return Err(Refusal::Busy { name: name.into() });
        }
        self.set_guard(name, None);
        Ok(Reply::Done)
    }

    pub(super) fn forget(&mut self, name: &str) -> Result<Reply, Refusal> {
        if self.record.service(name).is_some_and(Service::is_alive) {
            return Err(Refusal::Busy { name: name.into() });
        }
        self.record.services.retain(|service| service.name != name);
        self.save();
        Ok(Reply::Done)
    }

    pub(super) fn address_up(&mut self, id: u64, address: Address, guard: Option<Guard>) -> Answer {
        self.admit_all(guard.as_ref())?;
        let subject = Subject::Address(address.clone());
        let pending = self.pending.values().any(|pending| pending.subject == subject);
        let full = self.record.addresses.len() >= MAX_ADDRESSES;
        match self.record.address_mut(&address) {
            Some(held) if held.leaving || pending => {
                return Err(Refusal::Busy { name: address.to_string() });
            }
            Some(held) => {
                held.address = address.clone();
                held.guard.clone_from(&guard);
            }
            None if full => {
                return Err(Refusal::Full { what: "addresses".into(), limit: MAX_ADDRESSES });
            }
            None => self.record.addresses.push(HeldAddress {
                address: address.clone(),
                guard: guard.clone(),
                leaving: false,
            }),
        }
        self.save();
        self.act(Some(id), guard, subject, Act::AddAddress(address));
        Ok(None)
    }

    pub(super) fn address_down(&mut self, id: u64, address: &Address) -> Answer {
        // One that is not on record may be there all the same: of a sentinel whose record was lost. Gone means gone.
        if self.record.address_mut(address).is_none() {
            self.record.addresses.push(HeldAddress { address: address.clone(), guard: None, leaving: true });
        }
        self.removals.push((id, address.clone()));
        self.remove_address(address);
        Ok(None)
    }

    pub(super) fn address_gone(&mut self, address: &Address) {
        let leaving = self.record.address_mut(address).is_some_and(|held| held.leaving);
        // While it is still being put up it may yet come: it is gone for good only afterwards.
        let coming = |pending: &Pending| matches!(&pending.subject, Subject::Address(up) if same(up, address));
        if !leaving || self.pending.values().any(coming) {
            return;
        }
        self.record.addresses.retain(|held| !same(&held.address, address));
        self.save();
        let out = &mut self.out;
        self.removals.retain(|(id, removed)| {
            let done = same(removed, address);
            if done {
                out.push(Effect::Reply { id: *id, reply: Reply::Done });
            }
            !done
        });
    }

    /// The second half of every act: look again whether it may stand.
    pub(super) fn acted(&mut self, ticket: u64, outcome: Outcome) {
        if let (Some(pending), Outcome::Forked(process)) = (self.pending.get_mut(&ticket), &outcome) {
            pending.forked = Some(*process);
        }
        let Some(pending) = self.pending.get(&ticket).cloned() else {
            return;
        };
        match outcome {
            Outcome::Forked(process) => self.forked(&pending, process),
            Outcome::Done => {
                self.pending.remove(&ticket);
                self.done(&pending);
            }
            Outcome::Failed { reason } => {
                self.pending.remove(&ticket);
                self.failed(&pending, reason);
            }
        }
    }

    fn forked(&mut self, pending: &Pending, process: Process) {
        let Subject::Spawn(name) = &pending.subject else {
            return;
        };
        if let Some(service) = self.record.service_mut(name) {
            service.main = Main::Running(process);
        }
        self.save();
        // A kill that came between the order and the birth had nothing to hit.
        let doomed = self.kills.iter().any(|wait| wait.name == *name);
        if doomed || self.admit_all(pending.guard.as_ref()).is_err() {
            self.kill(name);
        }
    }

    fn done(&mut self, pending: &Pending) {
        if let Subject::Spawn(name) = &pending.subject
            && self.running(name).ok() != pending.forked
        {
            // Executed and ended before we could say so; the notice told how.
            return self.refuse(pending.id, Refusal::NotRunning { name: name.clone() });
        }
        if let Err(refusal) = self.admit_all(pending.guard.as_ref()) {
            self.undo(&pending.subject);
            return self.refuse(pending.id, refusal);
        }
        let reply = match &pending.subject {
            Subject::Spawn(_) => Reply::Spawned { pid: pending.forked.map_or(0, |process| process.pid) },
            Subject::Promote(_) | Subject::Signal => Reply::Done,
            Subject::Address(address) => {
                if self.record.address_mut(address).is_some_and(|held| !held.leaving) {
                    Reply::Done
                } else {
                    // Taken back while it was being put up.
                    self.undo(&pending.subject);
                    Reply::Refused(Refusal::NotRunning { name: address.to_string() })
                }
            }
        };
        self.reply(pending.id, reply);
    }

    fn failed(&mut self, pending: &Pending, reason: String) {
        match &pending.subject {
            Subject::Spawn(name) => {
                // Never forked: nothing will report its end.
                if let Some(service) = self.record.service_mut(name)
                    && pending.forked.is_none()
                {
                    service.main = Main::Exited(super::Exit::Unknown);
                    service.occupied = false;
                    service.guard = None;
                }
                self.save();
                self.answer_kills(name);
            }
            Subject::Address(address) => self.remove_address(address),
            // The trigger may have been pulled all the same: it stays guarded.
            Subject::Promote(_) | Subject::Signal => {}
        }
        self.reply(pending.id, Reply::Failed { reason });
    }

    fn undo(&mut self, subject: &Subject) {
        match subject {
            Subject::Spawn(name) | Subject::Promote(name) => {
                if self.record.service(name).is_some_and(Service::is_alive) {
                    self.kill(name);
                }
            }
            Subject::Address(address) => self.remove_address(address),
            Subject::Signal => {}
        }
        let line = format!("undid an act that outlived its lease: {subject:?}");
        self.out.push(Effect::Notify(Notice::Log { line }));
    }

    fn admit_all(&self, guard: Option<&Guard>) -> Result<(), Refusal> {
        guard.map_or(Ok(()), |guard| {
            check_name(&guard.group)?;
            self.admit(guard)
        })
    }

    fn running(&self, name: &str) -> Result<Process, Refusal> {
        self.record.service(name).and_then(Service::process).ok_or_else(|| Refusal::NotRunning { name: name.into() })
    }

    fn set_guard(&mut self, name: &str, guard: Option<Guard>) {
        if let Some(service) = self.record.service_mut(name) {
            service.guard = guard;
            self.save();
        }
    }

    fn act(&mut self, id: Option<u64>, guard: Option<Guard>, subject: Subject, act: Act) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(ticket, Pending { id, guard, subject, forked: None });
        self.out.push(Effect::Act { ticket, act });
    }

    fn reply(&mut self, id: Option<u64>, reply: Reply) {
        if let Some(id) = id {
            self.out.push(Effect::Reply { id, reply });
        }
    }
}
