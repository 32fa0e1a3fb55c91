//! The rules, under any sequence of events: a shell that answers late, in any order or not at all
//! within one life, deadlines that pass between any two events, agents and sentinels that die.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Ask(Request),
    /// Performs a stage of one of the acts under way.
    Perform(usize, bool),
    /// One of the killed groups dies.
    Die(usize),
    Exit(usize),
    AddressGone(usize),
    AgentDies,
    SentinelDies,
}

/// The world around the sentinel, with the rules as assertions.
struct World {
    sentinel: Sentinel,
    now_us: u64,
    acts: BTreeMap<u64, (Act, bool)>,
    killed: BTreeSet<String>,
    /// Killed, and seen to wait for a disk.
    stuck: BTreeSet<String>,
    removing: Vec<Address>,
    /// What really runs and is really up, whatever the sentinel believes.
    running: BTreeSet<String>,
    up: BTreeSet<Address>,
    asked: BTreeSet<u64>,
    next_id: u64,
    next_pid: u32,
    lapsed: u64,
}

fn address(which: usize) -> Address {
    let last = u8::try_from(which % 2).unwrap_or(0);
    Address { interface: "eth0".into(), ip: [10, 0, 0, last].into(), prefix_bits: 24 }
}

fn guards() -> impl Strategy<Value = Guard> {
    let group = prop_oneof![Just("g".to_owned()), Just("h".to_owned())];
    (group, 0_u64..4, 0_u64..4).prop_map(|(group, generation, epoch)| Guard { group, generation, epoch })
}

fn requests() -> impl Strategy<Value = Request> {
    let name = (0..NAMES.len()).prop_map(|which| NAMES[which].to_owned());
    let maybe = || proptest::option::weighted(0.8, guards());
    let keep = any::<bool>();
    prop_oneof![
        4 => (1_u64..4, 0_u64..300).prop_map(|(generation, deadline_us)| Request::Lease { generation, deadline_us }),
        1 => (1_u64..4, 0_u64..300).prop_map(|(generation, deadline_us)| Request::Shorten { generation, deadline_us }),
        2 => (1_u64..4).prop_map(|generation| Request::NewGeneration { generation }),
        4 => (name.clone(), maybe(), keep).prop_map(|(name, guard, keep_group)| {
            let command = Box::new(Command { keep_group, ..Command::default() });
            Request::Spawn { name, command, guard }
        }),
        1 => (0_usize..2, maybe()).prop_map(|(which, guard)| Request::AddressUp { address: address(which), guard }),
        1 => (0_usize..2).prop_map(|which| Request::AddressDown { address: address(which) }),
        1 => name.clone().prop_map(|name| Request::KillGroup { name }),
        1 => name.clone().prop_map(|name| Request::Unguarded { name }),
        1 => (name.clone(), guards()).prop_map(|(name, guard)| Request::Guarded { name, guard }),
        1 => (name, guards(), 100_u32..104).prop_map(|(name, guard, pid)| Request::Promote {
            name, pid, trigger_file: "/t".into(), signal: 1, guard
        }),
        1 => (0_u64..4).prop_map(|epoch| Request::Floor { applied_index: 1, released: Some(("g".into(), epoch)) }),
        1 => Just(Request::Hello),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let which = 0_usize..8;
    prop_oneof![
        3 => (1_u64..60).prop_map(Step::Wait),
        12 => requests().prop_map(Step::Ask),
        6 => (which.clone(), proptest::bool::weighted(0.9)).prop_map(|(which, good)| Step::Perform(which, good)),
        3 => which.clone().prop_map(Step::Die),
        1 => which.clone().prop_map(Step::Exit),
        2 => which.prop_map(Step::AddressGone),
        1 => Just(Step::AgentDies),
        1 => Just(Step::SentinelDies),
    ]
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            sentinel: Sentinel::new(Platform::default()),
            now_us: 1_000,
            acts: BTreeMap::new(),
            killed: BTreeSet::new(),
            stuck: BTreeSet::new(),
            removing: Vec::new(),
            running: BTreeSet::new(),
            up: BTreeSet::new(),
            asked: BTreeSet::new(),
            next_id: 1,
            next_pid: 100,
            lapsed: 0,
        };
        world.step(Step::Ask(Request::NewGeneration { generation: 1 }));
        world.step(Step::Ask(Request::Lease { generation: 1, deadline_us: 200 }));
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(us) => {
                self.now_us += us;
                self.event(Event::Tick);
            }
            Step::Ask(request) => self.ask(request),
            Step::Perform(which, good) => self.perform(which, good),
            Step::Die(which) => self.die(which),
            Step::Exit(which) => self.exit(NAMES[which % NAMES.len()]),
            Step::AddressGone(which) if !self.removing.is_empty() => {
                let address = self.removing.remove(which % self.removing.len());
                self.up.remove(&address);
                self.event(Event::AddressGone { address });
            }
            Step::AddressGone(_) => {}
            Step::AgentDies => {
                self.asked.clear();
                self.event(Event::AgentGone);
            }
            Step::SentinelDies => self.sentinel_dies(),
        }
    }

    fn ask(&mut self, request: Request) {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id);
        let request = match request {
            Request::Lease { generation, deadline_us } => {
                Request::Lease { generation, deadline_us: self.now_us + deadline_us }
            }
            Request::Shorten { generation, deadline_us } => {
                Request::Shorten { generation, deadline_us: self.now_us + deadline_us }
            }
            other => other,
        };
        self.event(Event::Request { id, request });
    }

    fn perform(&mut self, which: usize, good: bool) {
        let Some(ticket) = self.acts.keys().nth(which % self.acts.len().max(1)).copied() else {
            return;
        };
        let (act, forked) = self.acts[&ticket].clone();
        let outcome = match act {
            _ if !good => Outcome::Failed { reason: "no".into() },
            Act::Spawn { .. } if !forked => {
                self.next_pid += 1;
                Outcome::Forked(Process { pid: self.next_pid, start_ticks: 1 })
            }
            _ => Outcome::Done,
        };
        match (&act, &outcome) {
            (Act::Spawn { name, .. }, Outcome::Forked(_)) => drop(self.running.insert(name.clone())),
            (Act::AddAddress(address), Outcome::Done) => drop(self.up.insert(address.clone())),
            _ => {}
        }
        if matches!(outcome, Outcome::Forked(_)) {
            self.acts.insert(ticket, (act, true));
        } else {
            self.acts.remove(&ticket);
        }
        self.event(Event::Acted { ticket, outcome });
    }

    fn exit(&mut self, name: &str) {
        if let Some(process) = self.sentinel.record().service(name).and_then(Service::process) {
            let name = name.to_owned();
            self.event(Event::Exited { name, pid: process.pid, exit: Exit::Code(0) });
        }
    }

    fn die(&mut self, which: usize) {
        let Some(name) = self.killed.iter().nth(which % self.killed.len().max(1)).cloned() else {
            return;
        };
        self.exit(&name);
        // What was killed before it was forked is forked later all the same, and checked then.
        let starting = self.sentinel.record().service(&name).is_some_and(|service| service.main == Main::Starting);
        if !starting {
            self.running.remove(&name);
            self.event(Event::Emptied { name: name.clone() });
        }
        self.killed.remove(&name);
        self.stuck.remove(&name);
    }

    /// The next one starts from the record, and hears of nothing that was under way.
    fn sentinel_dies(&mut self) {
        self.asked.clear();
        // It may have done what it was about to do, without living to write it down.
        for (act, forked) in std::mem::take(&mut self.acts).into_values() {
            match act {
                Act::Spawn { name, .. } if !forked => drop(self.running.insert(name)),
                Act::AddAddress(address) => drop(self.up.insert(address)),
                Act::Spawn { .. } | Act::Promote { .. } | Act::Signal { .. } => {}
            }
        }
        let record = self.sentinel.record().clone();
        self.sentinel = Sentinel::adopt(record, Platform::default());
        self.event(Event::Tick);
        self.event(Event::AgentGone);
    }

    fn event(&mut self, event: Event) {
        let before = self.sentinel.record().clone();
        let effects = self.sentinel.handle(self.now_us, event);
        if before.deadline_us.is_some_and(|at| at <= self.now_us) {
            self.check_lapse(&before, &effects);
        }
        for effect in &effects {
            self.effect(effect);
        }
        for effect in effects {
            if let Effect::Inspect { name } = effect {
                // What was killed may wait for a disk.
                let left = self.killed.contains(&name) && self.running.contains(&name);
                if left {
                    self.stuck.insert(name.clone());
                }
                let remaining = left.then_some(Remaining { pid: 1, state: 'D' }).into_iter().collect();
                self.event(Event::Inspected { name, remaining });
            }
        }
        self.check_record();
    }

    /// What was guarded at the deadline is silenced, first of all, and nothing else is.
    fn check_lapse(&mut self, before: &Record, effects: &[Effect]) {
        self.lapsed = self.lapsed.max(before.generation);
        let guarded = before.services.iter().filter(|service| service.guard.is_some() && service.is_alive());
        let wanted: Vec<String> = guarded.map(|service| service.name.clone()).collect();
        let held = before.addresses.iter().filter(|held| held.guard.is_some());
        let taken: Vec<Address> = held.map(|held| held.address.clone()).collect();
        // An adopting sentinel may first finish what its predecessor had begun.
        let first = effects.iter().find(|effect| !matches!(effect, Effect::Kill { .. }));
        match first {
            Some(Effect::Silence { services, addresses }) => {
                assert_eq!((services, addresses), (&wanted, &taken));
            }
            _ => assert!(wanted.is_empty() && taken.is_empty(), "not silenced: {wanted:?} {taken:?}"),
        }
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Reply { id, reply } => {
                assert!(self.asked.remove(id), "answered twice or not asked: {id} {reply:?}");
            }
            Effect::Act { ticket, act } => {
                self.acts.insert(*ticket, (act.clone(), false));
            }
            Effect::Kill { name } => drop(self.killed.insert(name.clone())),
            Effect::RemoveAddress(address) => self.removing.push(address.clone()),
            Effect::Silence { services, addresses } => {
                self.killed.extend(services.iter().cloned());
                self.removing.extend(addresses.iter().cloned());
            }
            _ => {}
        }
    }

    /// What must hold after every event.
    fn check_record(&self) {
        let record = self.sentinel.record();
        assert!(record.lapsed_generation >= self.lapsed, "a lapse is final");
        assert!(record.deadline_us.is_none_or(|at| at > self.now_us), "a passed deadline lapsed");
        assert!(record.deadline_us.is_none() || record.generation > record.lapsed_generation);
        for service in record.services.iter().filter(|service| service.guard.is_some()) {
            let released = service.guard.as_ref().and_then(|guard| record.released.get(&guard.group).copied());
            let epoch = service.guard.as_ref().map(|guard| guard.epoch);
            // What was released before it was gone was killed, and seen to wait for a disk.
            let spent = self.stuck.contains(&service.name) && service.main != Main::Starting;
            assert!(!service.is_alive() || epoch > released || spent, "{service:?} under a released epoch");
            // Without a lease nothing guarded stays: it is dying, or will be undone when it is there.
            let doomed = self.killed.contains(&service.name) || service.main == Main::Starting;
            assert!(record.deadline_us.is_some() || !service.is_alive() || doomed, "{service:?} without a lease");
        }
        for name in &self.running {
            assert!(record.service(name).is_some_and(Service::is_alive), "{name} runs unknown");
        }
        for address in &self.up {
            assert!(record.addresses.iter().any(|held| held.address == *address), "{address} is up unknown");
        }
        for held in record.addresses.iter().filter(|held| held.guard.is_some()) {
            assert!(record.deadline_us.is_some() || held.leaving, "{held:?} without a lease");
        }
    }

    /// Lets everything under way end; every question must then have its answer.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            if self.asked.is_empty() && self.acts.is_empty() && self.killed.is_empty() {
                return;
            }
            self.step(Step::Perform(0, true));
            self.step(Step::Die(0));
            self.step(Step::AddressGone(0));
            self.now_us += ADDRESS_RETRY_US;
            self.event(Event::Tick);
        }
        panic!("unanswered {:?}, acts {:?}, killed {:?}", self.asked, self.acts, self.killed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_under_any_sequence(steps in proptest::collection::vec(steps(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
