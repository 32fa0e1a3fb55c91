//! The decisions, one property a test. `Rig` plays the shell: it performs every effect at once
//! unless told to hold acts back.

use core::net::{IpAddr, Ipv4Addr};

use super::*;

const LEASE_US: u64 = 250_000;

struct Rig {
    sentinel: Sentinel,
    now_us: u64,
    hold_acts: bool,
    held: Vec<(u64, Act)>,
    seen: Vec<Effect>,
    next_id: u64,
    next_pid: u32,
}

fn guard(generation: u64, epoch: u64) -> Guard {
    Guard { group: "oar".into(), generation, epoch }
}

fn address(last: u8) -> Address {
    Address { interface: "eth0".into(), ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), prefix_bits: 24 }
}

fn spawn(name: &str, guard: Option<Guard>) -> Request {
    Request::Spawn { name: name.into(), command: Box::default(), guard }
}

impl Rig {
    fn new() -> Self {
        Self::with(Sentinel::new(Platform::default()))
    }

    fn with(sentinel: Sentinel) -> Self {
        Self {
            sentinel,
            now_us: 1_000_000,
            hold_acts: false,
            held: Vec::new(),
            seen: Vec::new(),
            next_id: 1,
            next_pid: 100,
        }
    }

    /// With generation 1 and a lease.
    fn leased() -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.ask(Request::NewGeneration { generation: 1 }), Reply::Done);
        rig.renew(1);
        rig
    }

    fn renew(&mut self, generation: u64) {
        let deadline_us = self.now_us + LEASE_US;
        assert_eq!(self.ask(Request::Lease { generation, deadline_us }), Reply::LeaseArmed { generation, deadline_us });
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.sentinel.handle(self.now_us, event);
        self.seen.extend(effects.iter().cloned());
        for effect in &effects {
            match effect {
                Effect::Act { ticket, act } if self.hold_acts => {
                    self.held.push((*ticket, act.clone()));
                }
                Effect::Act { ticket, act } => self.perform(*ticket, act),
                _ => {}
            }
        }
        effects
    }

    fn perform(&mut self, ticket: u64, act: &Act) {
        if matches!(act, Act::Spawn { .. }) {
            self.next_pid += 1;
            let process = Process { pid: self.next_pid, start_ticks: 7 };
            self.event(Event::Acted { ticket, outcome: Outcome::Forked(process) });
        }
        self.event(Event::Acted { ticket, outcome: Outcome::Done });
    }

    fn perform_held(&mut self) {
        for (ticket, act) in std::mem::take(&mut self.held) {
            self.perform(ticket, &act);
        }
    }

    fn send(&mut self, request: Request) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.event(Event::Request { id, request });
        id
    }

    fn reply(&self, id: u64) -> Option<Reply> {
        let mut replies = self.seen.iter().filter_map(|effect| match effect {
            Effect::Reply { id: of, reply } if *of == id => Some(reply.clone()),
            _ => None,
        });
        let reply = replies.next();
        assert_eq!(replies.next(), None, "answered twice");
        reply
    }

    fn ask(&mut self, request: Request) -> Reply {
        let id = self.send(request);
        self.reply(id).expect("an answer")
    }

    fn tick_at_deadline(&mut self) -> Vec<Effect> {
        self.now_us = self.sentinel.record().deadline_us.expect("a deadline");
        self.event(Event::Tick)
    }

    fn refused(&mut self, request: Request) -> Refusal {
        match self.ask(request) {
            Reply::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The group of a service was killed: its main process and the rest are gone.
    fn dies(&mut self, name: &str) {
        let process = self.sentinel.record().service(name).and_then(Service::process);
        if let Some(process) = process {
            let exit = Exit::Signal(9);
            self.event(Event::Exited { name: name.into(), pid: process.pid, exit });
        }
        self.event(Event::Emptied { name: name.into() });
    }

    fn notices(&self) -> Vec<&Notice> {
        let notices = self.seen.iter().filter_map(|effect| match effect {
            Effect::Notify(notice) => Some(notice),
            _ => None,
        });
        notices.collect()
    }
}

fn killed(effects: &[Effect]) -> Vec<&str> {
    let kills = effects.iter().filter_map(|effect| match effect {
        Effect::Kill { name } => Some(name.as_str()),
        _ => None,
    });
    kills.collect()
}

#[test]
fn lapse_silences_what_is_guarded_and_nothing_else() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    rig.ask(spawn("standby", None));
    rig.ask(Request::AddressUp { address: address(100), guard: Some(guard(1, 1)) });
    rig.ask(Request::AddressUp { address: address(101), guard: None });
    let effects = rig.tick_at_deadline();
    let silence = Effect::Silence { services: vec!["db".into()], addresses: vec![address(100)] };
    assert_eq!(effects[0], silence);
    assert_eq!(rig.sentinel.record().lapsed_generation, 1);
    rig.now_us += 3_000;
    rig.dies("db");
    assert!(!rig.notices().iter().any(|notice| matches!(notice, Notice::Silenced { .. })));
    rig.event(Event::AddressGone { address: address(100) });
    let silenced = Notice::Silenced { generation: 1, took_us: 3_000 };
    assert!(rig.notices().contains(&&silenced));
}

#[test]
fn what_waits_for_a_disk_is_silent_once_its_address_is_gone() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    rig.ask(Request::AddressUp { address: address(100), guard: Some(guard(1, 1)) });
    rig.tick_at_deadline();
    let silenced = |rig: &Rig| rig.notices().iter().any(|notice| matches!(notice, Notice::Silenced { .. }));
    for (state, address_gone) in [('R', false), ('D', false), ('D', true)] {
        rig.now_us += SILENCE_LOOK_US;
        if address_gone {
            rig.event(Event::AddressGone { address: address(100) });
        }
        let inspect = Effect::Inspect { name: "db".into() };
        assert_eq!(rig.event(Event::Tick).contains(&inspect), !address_gone);
        assert!(silenced(&rig) == address_gone, "{state}");
        let remaining = vec![Remaining { pid: 101, state }];
        rig.event(Event::Inspected { name: "db".into(), remaining });
    }
    assert_eq!(rig.refused(spawn("db", None)), Refusal::Busy { name: "db".into() });
}

#[test]
fn lapse_comes_before_the_event_that_reveals_it() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    rig.now_us += LEASE_US;
    let deadline_us = rig.now_us + LEASE_US;
    let id = rig.send(Request::Lease { generation: 1, deadline_us });
    assert_eq!(rig.reply(id), Some(Reply::Refused(Refusal::Lapsed { lapsed: 1 })));
    let silence = rig.seen.iter().position(|e| matches!(e, Effect::Silence { .. }));
    let reply = rig.seen.iter().position(|e| matches!(e, Effect::Reply { id: of, .. } if *of == id));
    assert!(silence.expect("silence") < reply.expect("reply"));
}

#[test]
fn lapse_is_terminal_for_its_generation_and_older_ones() {
    let mut rig = Rig::leased();
    rig.tick_at_deadline();
    let lapsed = Refusal::Lapsed { lapsed: 1 };
    assert_eq!(rig.refused(spawn("db", Some(guard(1, 1)))), lapsed);
    assert_eq!(rig.refused(Request::NewGeneration { generation: 1 }), lapsed);
    let deadline_us = rig.now_us + 1;
    assert_eq!(rig.refused(Request::Lease { generation: 1, deadline_us }), lapsed);
    assert_eq!(rig.ask(Request::NewGeneration { generation: 2 }), Reply::Done);
    let no_lease = Refusal::NoLease { generation: 2 };
    assert_eq!(rig.refused(spawn("db", Some(guard(2, 1)))), no_lease);
    rig.renew(2);
    assert!(matches!(rig.ask(spawn("db", Some(guard(2, 1)))), Reply::Spawned { .. }));
}

#[test]
fn a_node_with_nothing_exclusive_latches_too() {
    let mut rig = Rig::leased();
    let effects = rig.tick_at_deadline();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Silence { .. })));
    assert_eq!(rig.sentinel.record().lapsed_generation, 1);
    let silenced = Notice::Silenced { generation: 1, took_us: 0 };
    assert!(rig.notices().contains(&&silenced));
}

#[test]
fn an_act_that_ends_after_the_lapse_is_undone() {
    for request in
        [spawn("db", Some(guard(1, 1))), Request::AddressUp { address: address(100), guard: Some(guard(1, 1)) }]
    {
        let mut rig = Rig::leased();
        rig.hold_acts = true;
        let id = rig.send(request);
        assert_eq!(rig.reply(id), None);
        rig.tick_at_deadline();
        rig.event(Event::AddressGone { address: address(100) });
        rig.perform_held();
        assert_eq!(rig.reply(id), Some(Reply::Refused(Refusal::Lapsed { lapsed: 1 })));
        let undone = rig.seen.iter().any(|effect| matches!(effect, Effect::Kill { .. } | Effect::RemoveAddress(_)));
        assert!(undone);
    }
}

#[test]
fn a_start_is_saved_before_it_is_made() {
    let mut rig = Rig::leased();
    rig.hold_acts = true;
    rig.send(spawn("db", Some(guard(1, 1))));
    let tail = &rig.seen[rig.seen.len() - 2..];
    assert!(matches!(tail, [Effect::Save, Effect::Act { .. }]));
    assert!(rig.sentinel.record().holds_exclusive());
}

#[test]
fn a_lease_is_shortened_only_on_request_and_never_extended_by_that() {
    let mut rig = Rig::leased();
    let first = rig.sentinel.record().deadline_us.expect("a deadline");
    let shorten = |deadline_us| Request::Shorten { generation: 1, deadline_us };
    assert_eq!(rig.ask(shorten(first + 5)), Reply::LeaseArmed { generation: 1, deadline_us: first });
    assert_eq!(rig.ask(shorten(first - 5)), Reply::LeaseArmed { generation: 1, deadline_us: first - 5 });
    let over = Refusal::Deadline { deadline_us: rig.now_us, now_us: rig.now_us };
    assert_eq!(rig.refused(shorten(rig.now_us)), over);
}

#[test]
fn renewals_only_extend() {
    let mut rig = Rig::leased();
    let first = rig.sentinel.record().deadline_us.expect("a deadline");
    let earlier = Request::Lease { generation: 1, deadline_us: first - 5 };
    assert_eq!(rig.ask(earlier), Reply::LeaseArmed { generation: 1, deadline_us: first });
    let too_far = rig.now_us + MAX_LEASE_US + 1;
    let refusal = rig.refused(Request::Lease { generation: 1, deadline_us: too_far });
    assert_eq!(refusal, Refusal::Deadline { deadline_us: too_far, now_us: rig.now_us });
}

#[test]
fn a_new_generation_keeps_what_runs_under_the_old_deadline() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    assert_eq!(rig.ask(Request::NewGeneration { generation: 2 }), Reply::Done);
    let current = Refusal::Generation { asked: 1, current: 2 };
    let deadline_us = rig.now_us + 2 * LEASE_US;
    assert_eq!(rig.refused(Request::Lease { generation: 1, deadline_us }), current);
    let effects = rig.tick_at_deadline();
    assert!(matches!(&effects[0], Effect::Silence { services, .. } if services == &["db"]));
    assert_eq!(rig.sentinel.record().lapsed_generation, 2);
}

#[test]
fn a_released_epoch_starts_nothing_and_releases_only_after_the_stop() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 3))));
    let release = Request::Floor { applied_index: 9, released: Some(("oar".into(), 3)) };
    assert_eq!(rig.refused(release.clone()), Refusal::StillRunning { name: "db".into() });
    rig.dies("db");
    assert_eq!(rig.ask(release), Reply::Done);
    let released = Refusal::Released { group: "oar".into(), epoch: 3, released: 3 };
    assert_eq!(rig.refused(spawn("db", Some(guard(1, 3)))), released);
    assert!(matches!(rig.ask(spawn("db", Some(guard(1, 4)))), Reply::Spawned { .. }));
    rig.ask(Request::Floor { applied_index: 2, released: None });
    assert_eq!(rig.sentinel.record().floor_index, 9);
}

#[test]
fn kill_answers_when_the_last_process_is_gone() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    let id = rig.send(Request::KillGroup { name: "db".into() });
    assert_eq!(rig.reply(id), None);
    rig.dies("db");
    assert_eq!(rig.reply(id), Some(Reply::Killed { remaining: vec![] }));
    assert!(!rig.sentinel.record().holds_exclusive());
}

#[test]
fn kill_reports_what_cannot_die() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", None));
    let id = rig.send(Request::KillGroup { name: "db".into() });
    rig.now_us += KILL_WAIT_US;
    let effects = rig.event(Event::Tick);
    assert!(effects.contains(&Effect::Inspect { name: "db".into() }));
    let remaining = vec![Remaining { pid: 101, state: 'D' }];
    rig.event(Event::Inspected { name: "db".into(), remaining: remaining.clone() });
    assert_eq!(rig.reply(id), Some(Reply::Killed { remaining }));
}

#[test]
fn a_kill_does_not_wait_for_a_disk() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", None));
    for (state, answered) in [('R', false), ('D', true)] {
        let id = rig.send(Request::KillGroup { name: "db".into() });
        rig.now_us += KILL_LOOK_US - 1;
        assert!(!rig.event(Event::Tick).contains(&Effect::Inspect { name: "db".into() }));
        rig.now_us += 1;
        assert!(rig.event(Event::Tick).contains(&Effect::Inspect { name: "db".into() }));
        rig.event(Event::Inspected { name: "db".into(), remaining: vec![Remaining { pid: 101, state }] });
        assert_eq!(rig.reply(id).is_some(), answered, "{state}");
    }
    // The next one need not wait for what is known.
    rig.send(Request::KillGroup { name: "db".into() });
    assert!(rig.seen.ends_with(&[Effect::Kill { name: "db".into() }, Effect::Inspect { name: "db".into() }]));
}

#[test]
fn a_refused_release_looks_at_what_was_killed() {
    let mut rig = Rig::leased();
    let release = || Request::Floor { applied_index: 1, released: Some(("oar".into(), 3)) };
    rig.ask(spawn("db", Some(guard(1, 3))));
    let inspect = Effect::Inspect { name: "db".into() };
    assert_eq!(rig.refused(release()), Refusal::StillRunning { name: "db".into() });
    assert!(!rig.seen.contains(&inspect), "it runs, and may");
    rig.send(Request::KillGroup { name: "db".into() });
    assert_eq!(rig.refused(release()), Refusal::StillRunning { name: "db".into() });
    assert!(rig.seen.contains(&inspect));
    rig.event(Event::Inspected { name: "db".into(), remaining: vec![Remaining { pid: 101, state: 'D' }] });
    assert_eq!(rig.ask(release()), Reply::Done);
}

#[test]
fn an_epoch_is_released_while_killed_processes_wait_for_a_disk() {
    let mut rig = Rig::leased();
    let release = |epoch| Request::Floor { applied_index: 1, released: Some(("oar".into(), epoch)) };
    rig.ask(Request::Lease { generation: 1, deadline_us: rig.now_us + 10 * KILL_WAIT_US });
    rig.ask(spawn("db", Some(guard(1, 3))));
    for (state, refused) in [('R', true), ('S', true), ('D', false)] {
        rig.send(Request::KillGroup { name: "db".into() });
        rig.now_us += KILL_WAIT_US;
        rig.event(Event::Tick);
        rig.event(Event::Inspected { name: "db".into(), remaining: vec![Remaining { pid: 101, state }] });
        let answer = rig.ask(release(3));
        assert_eq!(answer == Reply::Refused(Refusal::StillRunning { name: "db".into() }), refused, "{state}");
    }
    // Nothing comes up in its place before it is gone; then what does is looked at anew.
    assert_eq!(rig.refused(spawn("db", Some(guard(1, 4)))), Refusal::Busy { name: "db".into() });
    rig.dies("db");
    assert!(matches!(rig.ask(spawn("db", Some(guard(1, 4)))), Reply::Spawned { .. }));
    assert_eq!(rig.refused(release(4)), Refusal::StillRunning { name: "db".into() });
}

#[test]
fn a_kill_hits_what_was_not_yet_born() {
    let mut rig = Rig::leased();
    rig.hold_acts = true;
    rig.send(spawn("db", None));
    let id = rig.send(Request::KillGroup { name: "db".into() });
    rig.seen.clear();
    rig.perform_held();
    assert_eq!(killed(&rig.seen), ["db"]);
    rig.dies("db");
    assert_eq!(rig.reply(id), Some(Reply::Killed { remaining: vec![] }));
}

#[test]
fn an_unfinished_silence_is_finished_by_the_next_sentinel() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    rig.ask(Request::AddressUp { address: address(100), guard: Some(guard(1, 1)) });
    rig.tick_at_deadline();
    let mut next = Rig::with(Sentinel::adopt(rig.sentinel.record().clone(), Platform::default()));
    let effects = next.event(Event::Tick);
    assert_eq!(killed(&effects), ["db"]);
    assert!(effects.contains(&Effect::RemoveAddress(address(100))));
}

#[test]
fn the_rest_of_a_group_dies_with_its_main_process_and_stays_guarded_until_gone() {
    let mut rig = Rig::leased();
    rig.ask(spawn("oar", Some(guard(1, 1))));
    let exit = Exit::Code(1);
    let effects = rig.event(Event::Exited { name: "oar".into(), pid: 101, exit });
    assert_eq!(killed(&effects), ["oar"]);
    assert!(rig.sentinel.record().holds_exclusive());
    assert_eq!(rig.refused(spawn("oar", None)), Refusal::Busy { name: "oar".into() });
    rig.event(Event::Emptied { name: "oar".into() });
    assert!(!rig.sentinel.record().holds_exclusive());
    assert!(matches!(rig.ask(spawn("oar", None)), Reply::Spawned { .. }));
}

#[test]
fn a_promoted_standby_is_exclusive_before_it_is_promoted() {
    let mut rig = Rig::leased();
    let Reply::Spawned { pid } = rig.ask(spawn("db", None)) else { panic!("not spawned") };
    rig.hold_acts = true;
    let promote = |pid| Request::Promote {
        name: "db".into(),
        pid,
        trigger_file: "/db/promote".into(),
        signal: 10,
        guard: guard(1, 1),
    };
    let other = Refusal::OtherProcess { name: "db".into(), pid };
    assert_eq!(rig.refused(promote(pid + 1)), other);
    let id = rig.send(promote(pid));
    assert!(rig.sentinel.record().holds_exclusive());
    assert_eq!(rig.refused(Request::Unguarded { name: "db".into() }), Refusal::Busy { name: "db".into() });
    rig.tick_at_deadline();
    rig.perform_held();
    assert_eq!(rig.reply(id), Some(Reply::Refused(Refusal::Lapsed { lapsed: 1 })));
    assert_eq!(killed(&rig.seen), ["db"]);
}

#[test]
fn a_demoted_service_survives_the_lapse_but_not_one_being_silenced() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    rig.ask(spawn("other", Some(guard(1, 1))));
    assert_eq!(rig.ask(Request::Unguarded { name: "db".into() }), Reply::Done);
    let effects = rig.tick_at_deadline();
    assert!(matches!(&effects[0], Effect::Silence { services, .. } if services == &["other"]));
    let lapsed = Refusal::Lapsed { lapsed: 1 };
    assert_eq!(rig.refused(Request::Unguarded { name: "other".into() }), lapsed);
}

#[test]
fn an_adopted_lease_lapses_at_its_time_or_at_once() {
    let mut rig = Rig::leased();
    rig.ask(spawn("db", Some(guard(1, 1))));
    let record = rig.sentinel.record().clone();
    let deadline_us = record.deadline_us.expect("a deadline");
    let mut next = Sentinel::adopt(record.clone(), Platform::default());
    assert_eq!(next.wake_at_us(), Some(deadline_us));
    assert_eq!(next.handle(deadline_us - 1, Event::Tick), []);
    let mut late = Sentinel::adopt(record, Platform::default());
    let effects = late.handle(deadline_us + 1, Event::Tick);
    assert!(matches!(&effects[0], Effect::Silence { services, .. } if services == &["db"]));
}

#[test]
fn a_start_cut_short_by_the_death_of_the_sentinel_is_undone_by_the_next() {
    let mut rig = Rig::leased();
    rig.hold_acts = true;
    rig.send(spawn("db", Some(guard(1, 1))));
    let mut next = Rig::with(Sentinel::adopt(rig.sentinel.record().clone(), Platform::default()));
    let effects = next.event(Event::Tick);
    assert_eq!(killed(&effects), ["db"]);
    next.event(Event::Emptied { name: "db".into() });
    assert!(!next.sentinel.record().holds_exclusive());
}

#[test]
fn a_failed_removal_is_tried_again() {
    let mut rig = Rig::leased();
    rig.ask(Request::AddressUp { address: address(100), guard: Some(guard(1, 1)) });
    let id = rig.send(Request::AddressDown { address: address(100) });
    assert_eq!(rig.reply(id), None);
    rig.now_us = rig.sentinel.wake_at_us().expect("a retry");
    let effects = rig.event(Event::Tick);
    assert_eq!(effects, [Effect::RemoveAddress(address(100))]);
    rig.event(Event::AddressGone { address: address(100) });
    assert_eq!(rig.reply(id), Some(Reply::Done));
}

#[test]
fn an_address_that_is_not_on_record_is_removed_all_the_same() {
    let mut rig = Rig::leased();
    let id = rig.send(Request::AddressDown { address: address(100) });
    assert_eq!(rig.reply(id), None, "not before it is known to be gone");
    rig.now_us = rig.sentinel.wake_at_us().expect("a retry");
    assert_eq!(rig.event(Event::Tick), [Effect::RemoveAddress(address(100))]);
    rig.event(Event::AddressGone { address: address(100) });
    assert_eq!(rig.reply(id), Some(Reply::Done));
    assert!(rig.sentinel.record().addresses.is_empty());
}

#[test]
fn replies_do_not_reach_the_next_agent() {
    let mut rig = Rig::leased();
    rig.hold_acts = true;
    let id = rig.send(spawn("db", Some(guard(1, 1))));
    rig.event(Event::AgentGone);
    rig.perform_held();
    assert_eq!(rig.reply(id), None);
    let Reply::Welcome(welcome) = rig.ask(Request::Hello) else { panic!("no welcome") };
    assert!(welcome.services[0].process().is_some());
    assert!(!welcome.fresh);
}

#[test]
fn termination_waits_for_the_agent_and_keeps_the_grace() {
    let mut rig = Rig::leased();
    rig.event(Event::AgentStarted(Process { pid: 5, start_ticks: 5 }));
    rig.ask(spawn("db", Some(guard(1, 1))));
    rig.event(Event::Terminate);
    assert!(rig.notices().contains(&&Notice::Terminate));
    assert!(!rig.seen.contains(&Effect::Leave));
    let until_us = rig.now_us + 10_000_000;
    rig.ask(Request::MayLeave { generation: 1, until_us: Some(until_us) });
    assert_eq!(rig.seen.last(), Some(&Effect::Leave));
    assert_eq!(rig.sentinel.record().deadline_us, Some(until_us));
    assert_eq!(rig.refused(spawn("x", Some(guard(1, 1)))), Refusal::Leaving);
}

#[test]
fn termination_does_not_wait_for_ever() {
    let mut rig = Rig::leased();
    rig.event(Event::AgentStarted(Process { pid: 5, start_ticks: 5 }));
    rig.event(Event::Terminate);
    rig.now_us += TERMINATE_WAIT_US;
    assert!(rig.event(Event::Tick).contains(&Effect::Leave));
}

#[test]
fn names_that_are_no_directories_are_refused() {
    let mut rig = Rig::leased();
    for name in ["", ".", "..", "a/b", ".hidden", "a b", &"x".repeat(MAX_NAME_BYTES + 1)] {
        assert!(matches!(rig.refused(spawn(name, None)), Refusal::Name { .. }), "{name:?}");
    }
}
