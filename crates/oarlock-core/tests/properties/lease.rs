//! Leases in true time: no majority of promises while the holder may still believe in its lease,
//! whatever is lost, late or restarted, on clocks that drift as far as they may.

use oarlock_core::Rules;
use oarlock_core::config::{Config, NodeConfig, Timing};
use oarlock_core::entry::Entry;
use oarlock_core::ids::NodeId;
use oarlock_core::lease::{Holder, Moved, Reply, Voter};
use oarlock_core::message::{Promise, Renew};
use oarlock_core::state::State;
use oarlock_core::time::{Mono, Span};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

const VOTERS: usize = 3;
const HOLDER: NodeId = NodeId(1);
const TIMING: Timing = Timing::FAST;

#[derive(Clone, Debug)]
enum Step {
    Wait {
        ms: u64,
    },
    /// The holder renews, for the usual time or for longer.
    Renew {
        long: bool,
    },
    /// It renews, and is acknowledged by these at once.
    Round {
        long: bool,
        by: [bool; VOTERS],
    },
    /// A renewal or acknowledgement under way arrives, or is lost.
    Arrive {
        which: usize,
        lost: bool,
    },
    /// A voter is asked for its promise, now or as soon as it may give it.
    Ask {
        voter: usize,
        wait: bool,
    },
    /// A voter's agent or machine starts again; what it saved stays.
    Restart {
        voter: usize,
        boot: bool,
    },
    /// The holder's agent starts again; the sentinel keeps its lease, and heard its last words or not.
    Resume {
        heard: bool,
    },
    /// The sentinel does what it was asked, and says so.
    Sentinel,
    /// A voter's heartbeat.
    Beat {
        voter: usize,
    },
    /// The next generation of the holder is committed.
    Commit,
    /// The holder (0) or a voter applies it.
    Apply {
        who: usize,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let voter = || 0..VOTERS;
    prop_oneof![
        4 => (0_u64..120).prop_map(|ms| Step::Wait { ms }),
        2 => prop::bool::weighted(0.3).prop_map(|long| Step::Renew { long }),
        6 => (prop::bool::weighted(0.3), any::<[bool; VOTERS]>()).prop_map(|(long, by)| Step::Round { long, by }),
        6 => (0_usize..12, prop::bool::weighted(0.1)).prop_map(|(which, lost)| Step::Arrive { which, lost }),
        6 => (voter(), any::<bool>()).prop_map(|(voter, wait)| Step::Ask { voter, wait }),
        3 => (voter(), any::<bool>()).prop_map(|(voter, boot)| Step::Restart { voter, boot }),
        2 => any::<bool>().prop_map(|heard| Step::Resume { heard }),
        3 => Just(Step::Sentinel),
        3 => voter().prop_map(|voter| Step::Beat { voter }),
        1 => Just(Step::Commit),
        2 => (0..=VOTERS).prop_map(|who| Step::Apply { who }),
    ]
}

/// A clock that runs fast or slow.
#[derive(Clone, Copy, Debug)]
struct Clock {
    rate_ppm: u64,
    zero_us: u64,
}

impl Clock {
    fn at(self, true_us: u64) -> Mono {
        Mono(1_000 + (true_us - self.zero_us) * self.rate_ppm / 1_000_000)
    }

    /// The true time when it shows this.
    fn when(self, mono: Mono) -> u64 {
        self.zero_us + (mono.0.saturating_sub(1_000) * 1_000_000).div_ceil(self.rate_ppm)
    }
}

/// A voter and what it has on its disk.
struct Place {
    clock: Clock,
    voter: Voter,
    state: State,
    lease_max: Span,
    promised: BTreeMap<NodeId, (u64, u64)>,
}

enum Packet {
    Renew { to: usize, renew: Renew },
    Ack { from: usize, renew: Renew },
}

struct World {
    now_us: u64,
    rules: Rules,
    clock: Clock,
    holder: Holder,
    holder_state: State,
    committed: State,
    places: Vec<Place>,
    under_way: Vec<Packet>,
    /// What the sentinel holds, and what it was asked and has not done.
    armed: Mono,
    asked: Vec<Moved>,
    /// Broken on purpose: the holder does not wait for the sentinel to hold less.
    hasty: bool,
}

fn first_state() -> State {
    let nodes = (1..=VOTERS as u8).map(|id| NodeConfig { id: NodeId(id), name: id.to_string(), witness: false });
    let mut state = State::begin(Config {
        generation: 1,
        text: "".into(),
        cluster: String::new(),
        timing: TIMING,
        nodes: nodes.collect(),
        groups: Vec::new(),
    });
    state.apply(&Entry::Alive { node: HOLDER, from: 0, to: 1, incarnation: 1 });
    state
}

impl World {
    fn new(rates: &[u64], rules: Rules) -> World {
        let state = first_state();
        let clock = |rate_ppm: &u64| Clock { rate_ppm: *rate_ppm, zero_us: 0 };
        let place = |rate: &u64| Place {
            clock: clock(rate),
            voter: Voter::new(Mono(0), TIMING.lease, BTreeMap::new()),
            state: state.clone(),
            lease_max: TIMING.lease,
            promised: BTreeMap::new(),
        };
        let mut holder = Holder::new(1);
        holder.begin(1);
        World {
            now_us: 0,
            rules,
            clock: clock(&rates[0]),
            holder,
            places: rates[1..].iter().map(place).collect(),
            holder_state: state.clone(),
            committed: state,
            under_way: Vec::new(),
            armed: Mono(0),
            asked: Vec::new(),
            hasty: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait { ms } => self.now_us += ms * 1000,
            Step::Renew { long } => self.renew(if long { Span(TIMING.lease.0 * 3) } else { TIMING.lease }),
            Step::Arrive { which, lost } if which < self.under_way.len() => {
                let packet = self.under_way.remove(which);
                if !lost {
                    self.arrive(&packet);
                }
            }
            Step::Arrive { .. } => {}
            Step::Round { long, by } => self.round(long, by),
            Step::Ask { voter, wait } => {
                let place = &mut self.places[voter];
                if wait {
                    let until = place.voter.until(HOLDER, &place.state);
                    self.now_us = self.now_us.max(place.clock.when(until));
                }
                place.ask(self.now_us, self.rules);
            }
            Step::Restart { voter, boot } => self.places[voter].restart(self.now_us, boot, self.rules),
            Step::Beat { voter } => self.places[voter].beat(self.now_us),
            Step::Resume { heard } => self.resume(heard),
            Step::Sentinel => self.sentinel(),
            Step::Commit => {
                let from = self.committed.node(HOLDER).generation;
                self.committed.apply(&Entry::Alive { node: HOLDER, from, to: from + 1, incarnation: 1 });
            }
            Step::Apply { who: 0 } => {
                self.holder_state = self.committed.clone();
                let generation = self.committed.node(HOLDER).generation;
                if generation > self.holder.generation() {
                    self.holder.begin(generation);
                }
            }
            Step::Apply { who } => self.places[who - 1].state = self.committed.clone(),
        }
        self.holder.expire(self.clock.at(self.now_us));
    }

    fn renew(&mut self, lease: Span) {
        let now = self.clock.at(self.now_us);
        if let Some(renew) = self.holder.renew(now, &self.holder_state.voters, lease, TIMING.heartbeat) {
            self.under_way.extend((0..VOTERS).map(|to| Packet::Renew { to, renew }));
        }
    }

    fn round(&mut self, long: bool, by: [bool; VOTERS]) {
        let late = std::mem::take(&mut self.under_way);
        self.step(&Step::Renew { long });
        let renewals = std::mem::take(&mut self.under_way);
        for packet in renewals.iter().filter(|packet| matches!(packet, Packet::Renew { to, .. } if by[*to])) {
            self.arrive(packet);
        }
        let acknowledgements = std::mem::replace(&mut self.under_way, late);
        acknowledgements.iter().for_each(|packet| self.arrive(packet));
    }

    fn arrive(&mut self, packet: &Packet) {
        match *packet {
            Packet::Renew { to, renew } => {
                let place = &mut self.places[to];
                match place.voter.on_renew(place.clock.at(self.now_us), HOLDER, &renew, &place.state) {
                    Reply::Ack => self.under_way.push(Packet::Ack { from: to, renew }),
                    Reply::SaveFirst => place.save(),
                    Reply::Refuse { .. } | Reply::Ignore => {}
                }
            }
            Packet::Ack { from, renew } => {
                let from = NodeId(from as u8 + 1);
                let Some(moved) = self.holder.acknowledged(from, &renew, &self.holder_state.voters) else { return };
                self.asked.push(moved);
                if self.hasty {
                    self.holder.shortened();
                }
                // What it is asked first it does first; that it is quick to hold more is the worst case.
                if !self.asked.iter().any(|moved| moved.shortens) {
                    self.sentinel();
                }
                if !self.rules.lease_from_sending {
                    let late = self.clock.at(self.now_us) + renew.lease;
                    self.holder = Holder::resume(1, self.holder.generation(), late);
                }
            }
        }
    }

    fn sentinel(&mut self) {
        for moved in std::mem::take(&mut self.asked) {
            match moved.shortens {
                true => {
                    self.armed = self.armed.min(moved.deadline);
                    self.holder.shortened();
                }
                false => self.armed = self.armed.max(moved.deadline),
            }
        }
    }

    fn resume(&mut self, heard: bool) {
        if heard {
            self.sentinel();
        }
        self.asked.clear();
        if self.clock.at(self.now_us) < self.armed {
            self.holder = Holder::resume(1, self.holder.generation(), self.armed);
        }
    }

    /// Whether the holder could be declared dead now.
    fn is_provable(&self) -> bool {
        let generation = self.committed.node(HOLDER).generation;
        let promised = |place: &Place| place.promised.get(&HOLDER).is_some_and(|(of, _)| *of == generation);
        let all = (1..).map(NodeId).zip(&self.places);
        let by: BTreeSet<NodeId> = all.filter(|(_, place)| promised(place)).map(|(id, _)| id).collect();
        self.committed.voters.is_majority(&by)
    }

    fn is_broken(&self) -> bool {
        let now = self.clock.at(self.now_us);
        self.is_provable() && (self.holder.is_live(now) || now < self.armed)
    }
}

impl Place {
    fn ask(&mut self, now_us: u64, rules: Rules) {
        let generation = self.state.node(HOLDER).generation;
        let wish = Promise { node: HOLDER, generation, voters_version: 1 };
        if self.voter.promise(self.clock.at(now_us), &wish, &self.state, rules) == Some(true) {
            self.save();
        }
    }

    fn beat(&mut self, now_us: u64) {
        if self.voter.shorten(self.clock.at(now_us), TIMING.lease) {
            self.save();
        }
    }

    fn save(&mut self) {
        self.lease_max = self.voter.lease_max();
        self.promised = self.voter.promised().clone();
        self.voter.saved(self.lease_max);
    }

    fn restart(&mut self, now_us: u64, boot: bool, rules: Rules) {
        if boot {
            self.clock.zero_us = now_us;
        }
        let started = if rules.start_counts { self.clock.at(now_us) } else { Mono(0) };
        self.voter = Voter::new(started, self.lease_max, self.promised.clone());
    }
}

fn breaks(rates: &[u64], steps: &[Step], rules: Rules) -> bool {
    is_broken_in(World::new(rates, rules), steps)
}

fn is_broken_in(mut world: World, steps: &[Step]) -> bool {
    steps.iter().any(|step| {
        world.step(step);
        world.is_broken()
    })
}

/// Rates of the holder's and the voters' clocks; the ends of what is allowed are worth more than
/// what lies between. A slow holder against a fast voter: (1 + d)(1 - r) >= 1 + r, so that d has to be
/// 2r / (1 - r) at least, a little more than twice the error of each.
fn rates() -> impl Strategy<Value = Vec<u64>> {
    let r = TIMING.drift_permille * 1000 / 2 - 3_000;
    let rate = prop_oneof![Just(1_000_000 - r), Just(1_000_000 + r), 1_000_000 - r..1_000_000 + r];
    vec(rate, VOTERS + 1)
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    #[test]
    fn nobody_is_proven_dead_while_its_lease_holds(rates in rates(), steps in vec(steps(), 1..60)) {
        prop_assert!(!breaks(&rates, &steps, Rules::default()));
    }
}

fn only(voters: &[usize]) -> [bool; VOTERS] {
    std::array::from_fn(|index| voters.contains(&index))
}

/// One voter's acknowledgement of a longer renewal does not stretch what another acknowledged.
#[test]
fn a_longer_lease_counts_once_a_majority_has_acknowledged_it() {
    let steps = [
        // The first longer one is only saved.
        Step::Round { long: true, by: only(&[1]) },
        Step::Round { long: false, by: only(&[0]) },
        Step::Wait { ms: 1 },
        Step::Round { long: true, by: only(&[1]) },
        Step::Ask { voter: 0, wait: true },
        Step::Ask { voter: 2, wait: true },
    ];
    assert!(!breaks(&[1_000_000; VOTERS + 1], &steps, Rules::default()));
}

/// A voter that acknowledged a longer one remembers that over a restart, for as long as it counts.
#[test]
fn a_longer_lease_outlives_a_restart_of_its_voter() {
    let steps = [
        Step::Wait { ms: 2_000 },
        Step::Round { long: true, by: only(&[0, 1]) },
        Step::Wait { ms: 1 },
        Step::Round { long: true, by: only(&[0, 1]) },
        Step::Beat { voter: 1 },
        Step::Restart { voter: 1, boot: false },
        Step::Ask { voter: 1, wait: true },
        Step::Ask { voter: 2, wait: true },
    ];
    assert!(!breaks(&[1_000_000; VOTERS + 1], &steps, Rules::default()));
}

/// Whether chance finds that a rule is broken.
fn is_found(rules: Rules) -> bool {
    let mut runner = TestRunner::deterministic();
    (0..5_000).any(|_| {
        let case = (rates(), vec(steps(), 20..60)).new_tree(&mut runner).expect("a case");
        let (rates, steps) = case.current();
        breaks(&rates, &steps, rules)
    })
}

/// A restart under a grace, and the first renewal of the new agent.
fn restart_under_grace() -> Vec<Step> {
    let all = only(&[0, 1, 2]);
    vec![
        Step::Wait { ms: 2_000 },
        Step::Round { long: true, by: all },
        Step::Wait { ms: 1 },
        Step::Round { long: true, by: all },
        Step::Resume { heard: true },
        Step::Wait { ms: 1 },
        Step::Round { long: false, by: all },
    ]
}

fn next_round() -> Vec<Step> {
    vec![Step::Wait { ms: 1 }, Step::Round { long: false, by: only(&[0, 1, 2]) }]
}

#[test]
fn a_grace_ends_with_the_restart_that_it_was_for() {
    let until = |steps: &[Vec<Step>]| {
        let mut world = World::new(&[1_000_000; VOTERS + 1], Rules::default());
        steps.concat().iter().for_each(|step| world.step(step));
        world.places[0].voter.until(HOLDER, &world.places[0].state)
    };
    let long = until(&[restart_under_grace(), next_round()]);
    let short = until(&[restart_under_grace(), vec![Step::Sentinel], next_round()]);
    assert!(long > short + TIMING.lease, "{long:?} {short:?}");
}

/// A late renewal knows nothing of a longer one that was acknowledged before the voter's restart.
#[test]
fn a_late_renewal_does_not_shorten_what_is_forgotten() {
    let steps = [
        Step::Wait { ms: 2_000 },
        Step::Round { long: true, by: only(&[0, 1]) },
        Step::Wait { ms: 2_000 },
        Step::Renew { long: false },
        Step::Wait { ms: 1 },
        Step::Round { long: true, by: only(&[0, 1]) },
        Step::Restart { voter: 0, boot: false },
        Step::Arrive { which: 0, lost: false },
        Step::Ask { voter: 0, wait: true },
        Step::Ask { voter: 2, wait: true },
    ];
    assert!(!breaks(&[1_000_000; VOTERS + 1], &steps, Rules::default()));
}

/// As long as the sentinel holds the longer lease, the voters must stand by it.
#[test]
fn a_grace_does_not_end_before_the_sentinel_knows() {
    let ask = vec![Step::Ask { voter: 0, wait: true }, Step::Ask { voter: 1, wait: true }];
    let steps = [restart_under_grace(), next_round(), ask].concat();
    let world = |hasty| World { hasty, ..World::new(&[1_000_000; VOTERS + 1], Rules::default()) };
    assert!(is_broken_in(world(true), &steps));
    assert!(!is_broken_in(world(false), &steps));
}

#[test]
fn a_promise_too_early_is_found() {
    assert!(is_found(Rules { promise_wait: false, ..Rules::default() }));
}

#[test]
fn a_start_that_does_not_count_is_found() {
    assert!(is_found(Rules { start_counts: false, ..Rules::default() }));
}

#[test]
fn a_lease_from_the_receipt_is_found() {
    assert!(is_found(Rules { lease_from_sending: false, ..Rules::default() }));
}
