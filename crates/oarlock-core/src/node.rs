//! One node: takes events one at a time, keeps lease, votes, log and groups in step.

mod applying;
mod membership;
mod narrate;
mod requests;
mod view;
mod voting;

use crate::action::Action;
use crate::config::Config;
use crate::consensus::{Consensus, ConsensusError, Log, Output};
use crate::durable::Durable;
use crate::entry::Entry;
use crate::event::{Boot, Event, Held, Loaded};
use crate::group::{Driver, Out, Site};
use crate::happening::Happening;
use crate::ids::{NodeId, VoterId};
use crate::lease::{Holder, Voter};
use crate::message::{Message, Promise, Report};
use crate::planner::{self, Knowledge};
use crate::rules::Rules;
use crate::state::State;
use crate::time::Mono;
use requests::PendingRequest;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use voting::Voting;

/// The core of one node.
pub struct Core {
    me: NodeId,
    now: Mono,
    rules: Rules,
    state: Arc<State>,
    applied: u64,
    /// Nothing older may be acted on: a former agent of this boot has applied it.
    floor_index: u64,
    consensus: Option<Consensus>,
    /// Why this voter takes part in nothing.
    disabled: Option<String>,
    holder: Holder,
    /// By the name of a group: the highest epoch that the sentinel has sealed.
    sealed: BTreeMap<String, u64>,
    /// After a lapse: the sentinel has said that everything is silent.
    silenced: bool,
    voter: Voter,
    voting: Voting,
    next_renew: Mono,
    next_report: Mono,
    reported: Report,
    reports: BTreeMap<NodeId, Report>,
    drivers: Vec<Driver>,
    /// Who is committed as dead, or was never here: as `state` has it.
    dead: BTreeSet<NodeId>,
    proposed: Vec<(Entry, Mono)>,
    persisting: Persisting,
    wishes: BTreeMap<Promise, NodeId>,
    promises: BTreeMap<Promise, BTreeSet<NodeId>>,
    suspected: BTreeSet<NodeId>,
    /// When promises were last asked for.
    asked_at: Mono,
    /// As leader: since when, and who was last known to hear us.
    led_since: Option<Mono>,
    echoed: BTreeMap<NodeId, Mono>,
    refused_above: u64,
    nonces: VecDeque<u64>,
    next_nonce: u64,
    leader_seen: Option<NodeId>,
    grace: Option<crate::time::Span>,
    requests: Vec<PendingRequest>,
    links: BTreeMap<(NodeId, u8), bool>,
    actions: VecDeque<Action>,
    turn: Turn,
}

/// What the last turn left behind.
#[derive(Default)]
struct Turn {
    /// When a driver has something to do that no event announces.
    driver_due: Option<Mono>,
    /// Counts what was ordered of resources.
    ordered: u64,
    /// The leader's beat: what is due soon is done now, so that it travels with what has to.
    beat: bool,
}

/// What is on its way to the disk.
#[derive(Default)]
struct Persisting {
    ticket: u64,
    saved: u64,
    /// The tickets that hold what the consensus library waits for, with its number of it.
    consensus: Vec<(u64, u64)>,
    /// Promises to give once their ticket is saved.
    promises: Vec<(u64, Promise)>,
    /// The longest lease per ticket.
    leases: Vec<(u64, crate::time::Span)>,
    wanted: bool,
    wanted_by_consensus: bool,
}

impl Core {
    /// Starts a node. Drain [`Core::action`] afterwards.
    pub fn new(boot: Boot, now: Mono) -> Core {
        Core::with_rules(boot, now, Rules::default())
    }

    /// As [`Core::new`], for the simulator's sabotage tests.
    pub fn with_rules(boot: Boot, now: Mono, rules: Rules) -> Core {
        let memory = Memory::of(&boot, rules);
        let (log, voter) = (memory.log, memory.voter);
        let (state, applied) = match &log {
            Some(log) => (log.state.clone(), log.base_index),
            None => (Arc::new(State::begin(boot.config.clone())), 1),
        };
        let (consensus, disabled) = match Consensus::new(boot.me, voter, log, &boot.config, now) {
            Ok(consensus) => (Some(consensus), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let started = if rules.start_counts { now } else { Mono(0) };
        let sealed = boot.held.as_ref().map(|held| held.released.clone()).unwrap_or_default();
        let (holder, floor_index, silenced) = resume(boot.held, boot.incarnation);
        // Who knows nothing yet acts on nothing.
        let floor_index = floor_index.max(1);
        let drivers = state.config.groups().map(|(id, group)| Driver::new(id, group, boot.seed)).collect();
        let mut core = Core {
            me: boot.me,
            dead: dead_in(&state),
            now,
            rules,
            state,
            applied,
            floor_index,
            consensus,
            disabled: None,
            holder,
            sealed,
            silenced,
            voter: Voter::new(started, memory.lease_max, memory.promised),
            voting: Voting::new(voter, !memory.begins),
            next_renew: now,
            next_report: now,
            reported: Report::default(),
            reports: BTreeMap::new(),
            drivers,
            proposed: Vec::new(),
            persisting: Persisting::default(),
            wishes: BTreeMap::new(),
            promises: BTreeMap::new(),
            suspected: BTreeSet::new(),
            asked_at: Mono(0),
            led_since: None,
            echoed: BTreeMap::new(),
            refused_above: 0,
            nonces: VecDeque::new(),
            next_nonce: boot.seed,
            leader_seen: None,
            grace: None,
            requests: Vec::new(),
            links: BTreeMap::new(),
            actions: VecDeque::new(),
            turn: Turn::default(),
        };
        if let Some(reason) = disabled {
            core.disable(reason);
        }
        if let Some(reason) = memory.lost {
            core.record(Happening::VoterLost { reason });
        }
        // A new voter's beginning is on the disk before it says a word.
        core.persisting.wanted = memory.begins;
        core.voting.note_deaths(now, &Arc::clone(&core.state));
        core.settle();
        if !memory.begins {
            // Nothing but the disk has spoken so far.
            core.voting.saved_version = core.state.voters.version;
        }
        core
    }

    /// Something happened at `now`. Drain [`Core::action`] afterwards.
    pub fn handle(&mut self, now: Mono, event: Event) {
        let routine = self.is_routine(&event).then(|| self.pulse());
        self.now = self.now.max(now);
        self.notice_lapse();
        self.turn.beat = false;
        // Before what has come is looked at: it did not come in the past.
        self.tick_consensus();
        match event {
            Event::Ticked => {}
            Event::Received { from, message } => self.received(from, message),
            Event::Persisted { ticket } => self.persisted(ticket),
            Event::PersistFailed { reason } => self.disable(format!("state cannot be saved: {reason}")),
            Event::LeaseArmed { generation } => self.holder.sentinel_answered(generation),
            Event::LeaseShortened => self.holder.shortened(),
            Event::Lapsed { generation } => self.lapsed(generation),
            Event::Sealed { group, epoch, refused } => self.sealed(group, epoch, refused),
            Event::Observed { resource, what } => {
                let driver = self.drivers.get_mut(usize::from(resource.group.0));
                if let Some(happening) = driver.and_then(|driver| driver.observe(self.now, resource, &what)) {
                    self.record(happening);
                }
            }
            Event::LinkChanged { peer, link, up } => {
                self.links.insert((peer, link), up);
            }
            Event::Requested { id, request } => self.requested(id, request),
        }
        if let Some(before) = routine {
            self.turn_consensus();
            let due = self.turn.driver_due.is_some_and(|due| due <= self.now);
            if self.pulse() == before && !due && !self.is_time_to_renew() {
                return self.persist();
            }
        }
        self.settle();
    }

    /// What comes many times a second and mostly changes nothing that anybody acts on. What does
    /// act shows in [`Core::pulse`]; all else has until the next tick, half a heartbeat at most.
    fn is_routine(&self, event: &Event) -> bool {
        let routine = match event {
            Event::LeaseArmed { .. } => true,
            Event::Received { message, .. } => {
                matches!(message, Message::Renew(_) | Message::Acked(_) | Message::Beacon { .. } | Message::Raft { .. })
            }
            _ => false,
        };
        routine && self.disabled.is_none()
    }

    fn pulse(&self) -> impl PartialEq + use<> {
        let leads = self.consensus.as_ref().is_some_and(Consensus::may_plan);
        let lease = (self.holder.generation(), self.holder.is_begun(), self.holder.is_live(self.now));
        (self.applied, self.proposed.len(), lease, leads, self.leader_seen, self.disabled.is_some())
    }

    /// The next action to carry out, in order.
    pub fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to hand in [`Event::Ticked`] at the latest.
    pub fn wakeup(&self) -> Mono {
        let mut at = self.next_report;
        if let Some(consensus) = &self.consensus {
            let tick = if self.is_calm() { consensus.wakeup() } else { consensus.next_tick() };
            at = at.min(tick).min(self.next_renew);
        }
        let untils = self.wishes.keys().map(|wish| self.voter.until(wish.node, &self.state));
        let drivers = self.turn.driver_due;
        let mine = self.holder.deadline().into_iter().chain(self.requests.iter().map(|request| request.deadline));
        // What was due and still stands waits for an event, not for time: never spin.
        let later = untils.chain(drivers).chain(mine).chain(self.silences()).filter(|due| *due > self.now);
        later.fold(at, Mono::min)
    }

    /// Nothing is under way that is tried again every so often: only then may a tick wait for the next.
    fn is_calm(&self) -> bool {
        let asked = self.proposed.is_empty() && self.requests.is_empty() && self.wishes.is_empty();
        asked && self.suspected.is_empty() && self.leader_seen.is_some() && self.holder.is_live(self.now)
    }

    /// What this node has applied.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How far it has applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Its own lease.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Why it takes part in nothing, if so.
    pub fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    /// This node's number.
    pub fn me(&self) -> NodeId {
        self.me
    }

    fn record(&mut self, happening: Happening) {
        self.actions.push_back(Action::Record(happening));
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.actions.push_back(Action::Send { to, message });
    }

    fn peers(&self) -> Vec<NodeId> {
        self.state.config.nodes.iter().map(|node| node.id).filter(|id| *id != self.me).collect()
    }

    /// From here on this voter acknowledges, promises and votes for nothing.
    fn disable(&mut self, reason: String) {
        if self.disabled.is_none() {
            self.record(Happening::VoterDisabled { reason: reason.clone() });
            self.disabled = Some(reason);
            self.consensus = None;
        }
    }

    fn received(&mut self, from: NodeId, message: Message) {
        if let Message::Report(report) = message {
            self.reports.insert(from, report);
            return;
        }
        if self.disabled.is_some() {
            return;
        }
        match message {
            Message::Renew(renew) => self.renew_received(from, &renew),
            Message::Acked(renew) => self.acked(from, &renew),
            Message::Refused { generation, above } => self.refused(generation, above),
            Message::PromiseWanted(wish) => self.promise_wanted(from, wish),
            Message::Promised(promise) => self.promised(from, promise),
            Message::Beacon { nonce, applied, voter } => {
                self.identity_heard(from, nonce, applied, voter);
                self.beacon(from, nonce);
            }
            Message::Enrol { nonce, voter } => self.enrol(from, nonce, voter),
            Message::Disown { node, from, to } => self.disown(node, from, to),
            Message::WantAlive { nonce, generation, incarnation, above } => {
                self.want_alive(from, nonce, generation, incarnation, above);
            }
            Message::Propose(entry) => match *entry {
                // Voters change by the leader's own plan only.
                Entry::Voters { .. } | Entry::VotersSettled { .. } => {}
                entry => self.propose(entry),
            },
            Message::Raft { from: voter, to, frame } => self.raft_received(from, voter, to, *frame),
            Message::Report(_) => {}
        }
    }

    /// Brings everything into step until nothing moves any more.
    fn settle(&mut self) {
        self.tick_consensus();
        // Each round can enable the next (an applied entry frees a group, whose report lets the
        // leader plan); a handful is always enough, and the rest waits for the next event.
        for _ in 0..8 {
            let before = (self.applied, self.turn.ordered, self.proposed.len());
            self.turn_consensus();
            self.keep_lease();
            self.keep_promises();
            self.lead();
            self.drive();
            self.turn_consensus();
            if before == (self.applied, self.turn.ordered, self.proposed.len()) {
                break;
            }
        }
        self.report();
        self.check_requests();
        self.persist();
        self.turn.driver_due = self.drivers.iter().filter_map(|driver| driver.wakeup(&self.state, self.now)).min();
        self.turn.beat = false;
    }

    fn tick_consensus(&mut self) {
        if let Some(consensus) = &mut self.consensus {
            self.turn.beat |= consensus.tick(self.now);
        }
    }

    fn turn_consensus(&mut self) {
        let Some(consensus) = &mut self.consensus else { return };
        if !consensus.is_stirred() {
            return;
        }
        let output = consensus.turn();
        self.take_output(output);
        let leader = self.consensus.as_ref().and_then(Consensus::leader);
        if leader != self.leader_seen {
            self.leader_seen = leader;
            self.promises.clear();
            self.nonces.clear();
            self.record(Happening::LeaderChanged { leader });
        }
    }

    fn take_output(&mut self, output: Result<Output, ConsensusError>) {
        let output = match output {
            Ok(output) => output,
            Err(error) => return self.disable(error.to_string()),
        };
        for (to, frame) in output.send {
            self.send_raft(to, frame);
        }
        if output.persist {
            self.persisting.wanted_by_consensus = true;
        }
        self.apply(output.replace, output.committed);
        if let Some(consensus) = &mut self.consensus {
            consensus.compact(self.applied, &self.state);
        }
    }

    fn persist(&mut self) {
        let persisting = &mut self.persisting;
        if !persisting.wanted && !persisting.wanted_by_consensus {
            return;
        }
        let Some(consensus) = &self.consensus else { return };
        persisting.ticket += 1;
        if std::mem::take(&mut persisting.wanted_by_consensus) {
            persisting.consensus.push((persisting.ticket, consensus.given()));
        }
        persisting.wanted = false;
        for (ticket, _) in persisting.promises.iter_mut().filter(|(ticket, _)| *ticket == 0) {
            *ticket = persisting.ticket;
        }
        persisting.leases.push((persisting.ticket, self.voter.lease_max()));
        self.voting.saving.push((persisting.ticket, self.state.voters.version));
        let durable = Box::new(Durable {
            me: self.me,
            voter: self.voting.voter,
            log: consensus.log(),
            promised: self.voter.promised().clone(),
            lease_max: self.voter.lease_max(),
        });
        self.actions.push_back(Action::Persist { ticket: persisting.ticket, durable });
    }

    fn persisted(&mut self, ticket: u64) {
        self.persisting.saved = self.persisting.saved.max(ticket);
        let saved = self.persisting.saved;
        let leases = std::mem::take(&mut self.persisting.leases);
        for (at, lease) in leases {
            if at <= saved {
                self.voter.saved(lease);
            } else {
                self.persisting.leases.push((at, lease));
            }
        }
        let reached = self.persisting.consensus.iter().filter(|(at, _)| *at <= saved).map(|(_, number)| *number).max();
        self.persisting.consensus.retain(|(at, _)| *at > saved);
        if let (Some(number), Some(consensus)) = (reached, &mut self.consensus) {
            for (to, frame) in consensus.persisted(number) {
                self.send_raft(to, frame);
            }
        }
        self.voting.saved(saved);
        self.give_promises();
    }

    /// Proposes an entry, here or at the leader, and again after a while if nothing came of it.
    fn propose(&mut self, entry: Entry) {
        let again = crate::time::Span(self.state.config.timing.heartbeat.0 * 3);
        self.proposed.retain(|(_, at)| self.now.since(*at) < again);
        if self.proposed.iter().any(|(known, _)| *known == entry) {
            return;
        }
        let Some(consensus) = &mut self.consensus else { return };
        if consensus.is_leader() {
            if consensus.propose(&entry) {
                self.proposed.push((entry, self.now));
            }
        } else if let Some(leader) = consensus.leader() {
            self.proposed.push((entry.clone(), self.now));
            self.send(leader, Message::Propose(Box::new(entry)));
        }
    }

    /// The leader's part: signs of life, suspicion, plans.
    fn lead(&mut self) {
        if !self.consensus.as_ref().is_some_and(Consensus::may_plan) {
            self.suspected.clear();
            self.led_since = None;
            return;
        }
        self.led_since.get_or_insert(self.now);
        self.suspect();
        self.yield_to_the_heard();
        let state = self.state.clone();
        let know =
            Knowledge { state: &state, reports: &self.reports, silent: &self.suspected, promises: &self.promises };
        for entry in planner::plan(&know) {
            self.propose(entry);
        }
        self.plan_voters();
    }

    fn drive(&mut self) {
        let site = Site {
            now: self.now,
            me: self.me,
            state: &self.state,
            applied: self.applied,
            incarnation: self.holder.incarnation(),
            generation: self.holder.generation(),
            sealed: &self.sealed,
            lease_live: self.holder.is_live(self.now),
            settled: self.applied >= self.floor_index,
            rules: self.rules,
            reports: &self.reports,
            dead: &self.dead,
        };
        let outs: Vec<Out> = self.drivers.iter_mut().flat_map(|driver| driver.drive(&site)).collect();
        for out in outs {
            match out {
                Out::Drive(order) => {
                    self.turn.ordered += 1;
                    self.actions.push_back(Action::Drive(order));
                }
                Out::Seal { group, epoch } => self.actions.push_back(Action::Seal { group, epoch }),
                Out::Propose(entry) => self.propose(entry),
                Out::Record(happening) => self.record(happening),
            }
        }
    }

    fn report(&mut self) {
        let own = Report {
            incarnation: self.holder.incarnation(),
            applied: self.applied,
            voter: self.voting.voter,
            voters_version: self.voting.saved_version,
            lease_max: self.voter.lease_max(),
            groups: self
                .drivers
                .iter()
                .map(|driver| driver.report(&self.state, self.me, &self.reports, self.now))
                .collect(),
        };
        // A little early, when there is a turn anyway, saves one of its own.
        let early = self.now + crate::time::Span(self.state.config.timing.heartbeat.0 / 2);
        if early < self.next_report && alike(&own, &self.reported) {
            return;
        }
        self.next_report = self.now + crate::time::Span(self.state.config.timing.lease.0 / 2);
        for peer in self.peers() {
            self.send(peer, Message::Report(own.clone()));
        }
        self.reports.insert(self.me, own.clone());
        self.reported = own;
    }

    fn config(&self) -> &Config {
        &self.state.config
    }
}

/// Whether two reports differ only in what changes all the time.
fn alike(a: &Report, b: &Report) -> bool {
    let pairs = || a.groups.iter().zip(&b.groups);
    let voter = |report: &Report| (report.incarnation, report.voter, report.voters_version, report.lease_max);
    voter(a) == voter(b) && a.groups.len() == b.groups.len() && pairs().all(|(a, b)| a.is_like(b))
}

fn dead_in(state: &State) -> BTreeSet<NodeId> {
    state.nodes.keys().copied().filter(|node| !state.is_alive(*node)).collect()
}

/// What a voter starts with.
struct Memory {
    voter: VoterId,
    log: Option<Log>,
    promised: BTreeMap<NodeId, (u64, u64)>,
    lease_max: crate::time::Span,
    /// It has none: whatever it begins with is not on the disk yet.
    begins: bool,
    /// Why it has none, although there was one.
    lost: Option<String>,
}

impl Memory {
    fn of(boot: &Boot, rules: Rules) -> Memory {
        let lease = boot.config.timing.lease;
        let none = Memory {
            voter: VoterId::FIRST,
            log: None,
            promised: BTreeMap::new(),
            lease_max: lease,
            begins: true,
            lost: None,
        };
        let reason = match &boot.durable {
            Loaded::Fresh => return none,
            Loaded::Doubtful { .. } if !rules.lost_identity => return none,
            Loaded::Intact(durable) if durable.me == boot.me => {
                let mut log = durable.log.clone();
                if !rules.voters_durable {
                    log.commit = log.base_index;
                }
                return Memory {
                    voter: durable.voter,
                    log: Some(log),
                    promised: durable.promised.clone(),
                    lease_max: if rules.lease_durable { durable.lease_max.max(lease) } else { lease },
                    begins: false,
                    lost: None,
                };
            }
            Loaded::Intact(durable) => format!("the state is that of {}", durable.me),
            Loaded::Doubtful { reason } => reason.clone(),
        };
        let log = Log::blank(State::blank(boot.config.clone(), boot.me));
        Memory { voter: VoterId(boot.seed.max(1)), log: Some(log), lost: Some(reason), ..none }
    }
}

fn resume(held: Option<Held>, incarnation: u64) -> (Holder, u64, bool) {
    match held {
        None => (Holder::new(incarnation), 0, true),
        Some(held) if held.lapsed => (Holder::new(held.incarnation.wrapping_add(1)), held.floor_index, true),
        Some(held) => (Holder::resume(held.incarnation, held.generation, held.deadline), held.floor_index, true),
    }
}
