//! The machines, what is under way between them, and the steps that any of it may take next.

use crate::history::{Committed, DRIFT_PERMILLE, GROUP, LEASE, state_after};
use crate::{Broken, Pace, Protocol};
use oarlock_core::Rules;
use oarlock_core::ids::NodeId;
use oarlock_core::lease::{Holder, Reply, Voter};
use oarlock_core::message::{Promise, Renew};
use oarlock_core::state::State;
use oarlock_core::time::{Mono, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a clock gains with one step of true time, slow and fast: as far apart as d allows.
const PACES: [Span; 2] = [Span(4), Span(6)];
/// Clocks begin so far from the start of the voters that nothing of that start counts any more.
const BEGIN: Mono = Mono(100);

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// True time passes; one bit for each clock says whether it is fast.
    Tick(u32),
    /// A server sends a renewal to everybody.
    Renew(NodeId),
    /// A renewal arrives. It may do so again, or never.
    Hear(NodeId, NodeId, Renew),
    /// An acknowledgement arrives, likewise.
    Acked(NodeId, NodeId, Renew),
    /// A voter (the first) promises that a server is dead, if it may.
    Promise(NodeId, NodeId),
    /// The log grows.
    Commit(Committed),
    /// A machine learns of the next entry.
    Apply(NodeId),
    /// The agent is killed and starts again; the sentinel lives on.
    Restart(NodeId),
    /// The machine loses its power and starts again.
    Boot(NodeId),
}

/// What a sentinel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Armed {
    generation: u64,
    deadline: Mono,
}

/// What only servers have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    holder: Holder,
    sentinel: Option<Armed>,
    /// The sentinel has silenced everything since the last lapse.
    silenced: bool,
    /// The group was started here and nobody has stopped it.
    runs: bool,
    /// The highest promise against it that it was told of.
    refused_above: u64,
    /// No agent acts on less than was known here before.
    floor: usize,
    lapses: u8,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    clock: Mono,
    fast: bool,
    /// Entries it has learnt of.
    applied: usize,
    voter: Voter,
    /// On its disk.
    promised: BTreeMap<NodeId, (u64, u64)>,
    server: Option<Server>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    places: Vec<Place>,
    log: Vec<Committed>,
    /// Renewals ever sent, and by whom: any may arrive at any time, and again.
    renewals: BTreeSet<(NodeId, Renew)>,
    /// Acknowledgements: by which voter, to whom.
    acknowledged: BTreeSet<(NodeId, NodeId, Renew)>,
    /// Promises given: by which voter, about which generation of whom.
    promised: BTreeSet<(NodeId, NodeId, u64)>,
    /// A voter acknowledged what it had promised not to.
    pub(crate) promise_broken: bool,
    ticks: u8,
    crashes: u8,
}

impl World {
    /// The worlds to begin with: where clocks keep their pace, one for each choice of paces.
    pub(crate) fn all_first(model: &Protocol) -> Vec<World> {
        let all = 1 << model.voters;
        let paces = match model.pace {
            Pace::Worst => all - 2..all - 1,
            Pace::Kept => 0..all,
            Pace::Changing => 0..1,
        };
        paces.map(|paces| World::first(model, paces)).collect()
    }

    fn first(model: &Protocol, paces: u32) -> World {
        let place = |index: u8| Place {
            clock: BEGIN,
            fast: paces >> index & 1 == 1,
            applied: 0,
            voter: Voter::new(Mono(0), LEASE, BTreeMap::new()),
            promised: BTreeMap::new(),
            server: (index < 2).then(|| Server {
                holder: begun(1, 1),
                sentinel: None,
                silenced: true,
                runs: false,
                refused_above: 0,
                floor: 0,
                lapses: 0,
            }),
        };
        World {
            places: (0..model.voters).map(place).collect(),
            log: Vec::new(),
            renewals: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            promised: BTreeSet::new(),
            promise_broken: false,
            ticks: 0,
            crashes: 0,
        }
    }

    fn place(&mut self, node: NodeId) -> &mut Place {
        &mut self.places[usize::from(node.0) - 1]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.places.len() as u8).map(NodeId)
    }

    fn servers(&self) -> impl Iterator<Item = (NodeId, &Place, &Server)> {
        let all = self.nodes().zip(&self.places);
        all.filter_map(|(node, place)| Some((node, place, place.server.as_ref()?)))
    }

    pub(crate) fn committed(&self, model: &Protocol) -> Rc<State> {
        state_after((model.voters, drift(model)), &self.log)
    }

    fn view(&self, model: &Protocol, place: &Place) -> Rc<State> {
        state_after((model.voters, drift(model)), &self.log[..place.applied])
    }

    /// Where the group runs.
    pub fn owners(&self) -> impl Iterator<Item = NodeId> {
        self.servers().filter(|(_, _, server)| server.runs).map(|(node, ..)| node)
    }

    /// No sentinel holds a lease of a generation that is known to be dead.
    pub(crate) fn dead_are_silent(&self) -> bool {
        let dead = self.log.iter().filter_map(|entry| match entry {
            Committed::Take { node, generation, .. } => Some((*node, *generation)),
            _ => None,
        });
        let live = |dead: (NodeId, u64)| {
            let lives = |(node, _, server): (NodeId, &Place, &Server)| {
                node == dead.0 && server.sentinel.is_some_and(|armed| armed.generation <= dead.1)
            };
            self.servers().any(lives)
        };
        !dead.into_iter().any(live)
    }

    /// Somebody was declared dead.
    pub(crate) fn declares_dead(&self) -> bool {
        self.log.iter().any(|entry| matches!(entry, Committed::Take { .. }))
    }

    /// A lease has lapsed somewhere.
    pub(crate) fn has_lapsed(&self) -> bool {
        self.servers().any(|(_, _, server)| server.lapses > 0)
    }

    /// Steps that may come next.
    pub(crate) fn possible(&self, model: &Protocol, acts: &mut Vec<Act>) {
        if self.ticks < model.ticks {
            let choices = if model.pace == Pace::Changing { 1 << model.voters } else { 1 };
            acts.extend((0..choices).map(Act::Tick));
        }
        for (node, ..) in self.servers() {
            let sent = self.renewals.iter().filter(|(from, _)| *from == node).count();
            let most = usize::from(model.renewals[usize::from(node.0) - 1]);
            acts.extend((sent < most).then_some(Act::Renew(node)));
            if most > 0 {
                acts.extend(self.nodes().filter(|voter| *voter != node).map(|voter| Act::Promise(voter, node)));
            }
        }
        for (from, renew) in &self.renewals {
            acts.extend(self.nodes().filter(|voter| voter != from).map(|voter| Act::Hear(voter, *from, *renew)));
        }
        acts.extend(self.acknowledged.iter().map(|(by, to, renew)| Act::Acked(*by, *to, *renew)));
        if self.log.len() < usize::from(model.entries) {
            acts.extend(self.proposals(model).into_iter().map(Act::Commit));
        }
        let behind = self.nodes().zip(&self.places).filter(|(_, place)| place.applied < self.log.len());
        acts.extend(behind.map(|(node, _)| Act::Apply(node)));
        if self.crashes < model.crashes {
            acts.extend(self.nodes().flat_map(|node| [Act::Restart(node), Act::Boot(node)]));
        }
    }

    /// Whatever a leader could have committed now.
    pub(crate) fn proposals(&self, model: &Protocol) -> Vec<Committed> {
        let state = self.committed(model);
        let mut proposals = Vec::new();
        if model.broken != Broken::NoNewGeneration {
            proposals.extend(self.servers().filter_map(|(node, place, server)| {
                let known = self.view(model, place).node(node);
                let current = state.node(node).generation == known.generation;
                let to = known.generation.max(server.refused_above) + 1;
                (current && server.wants_generation(place, known.generation, known.dead, known.incarnation)).then(
                    || Committed::Alive { node, from: known.generation, to, incarnation: server.holder.incarnation() },
                )
            }));
        }
        let homes: Vec<(NodeId, u64)> = self
            .servers()
            .filter(|(node, ..)| state.is_alive(*node))
            .map(|(node, ..)| (node, state.node(node).incarnation))
            .collect();
        let owner = state.group(GROUP).and_then(|group| group.owner);
        for (node, ..) in self.servers().filter(|(node, ..)| state.is_alive(*node)) {
            let generation = state.node(node).generation;
            let by = self.promised.iter().filter(|(_, about, of)| *about == node && *of == generation);
            let by: BTreeSet<NodeId> = by.map(|(voter, ..)| *voter).collect();
            if !state.voters.is_majority(&by) {
                continue;
            }
            let owns = owner.is_some_and(|owner| owner.node == node);
            let to = homes.iter().filter(|(home, _)| owns && *home != node).map(|to| Some(*to)).next();
            proposals.push(Committed::Take { node, generation, by, to: to.flatten() });
        }
        if state.living_owner(GROUP).is_none() {
            proposals.extend(homes.into_iter().map(|to| Committed::Own { to }));
        }
        proposals
    }

    /// Takes a step; one that is not possible changes nothing.
    pub(crate) fn step(&mut self, model: &Protocol, act: Act) {
        match act {
            Act::Tick(paces) => self.tick(model, paces),
            Act::Renew(node) => self.renew(model, node),
            Act::Hear(voter, from, renew) => {
                self.hear(model, voter, from, &renew);
            }
            Act::Acked(by, to, renew) => self.acked(model, by, to, &renew),
            Act::Promise(voter, about) => self.promise(model, voter, about),
            Act::Commit(entry) => self.log.push(entry),
            Act::Apply(node) => {
                let known = self.log.len();
                let place = self.place(node);
                place.applied = known.min(place.applied + 1);
            }
            Act::Restart(node) => self.restart(model, node, false),
            Act::Boot(node) => self.restart(model, node, true),
        }
        self.settle(model);
    }

    fn tick(&mut self, model: &Protocol, paces: u32) {
        self.ticks += 1;
        for (index, place) in self.places.iter_mut().enumerate() {
            let fast = if model.pace == Pace::Changing { paces >> index & 1 == 1 } else { place.fast };
            place.clock += PACES[usize::from(fast)];
        }
    }

    fn renew(&mut self, model: &Protocol, node: NodeId) {
        let view = self.view(model, &self.places[usize::from(node.0) - 1]);
        let place = self.place(node);
        let (now, Some(server)) = (place.clock, &mut place.server) else { return };
        let current = view.node(node).generation == server.holder.generation() && !view.node(node).dead;
        let timing = view.config.timing;
        let renew = current.then(|| server.holder.renew(now, &view.voters, timing.lease, timing.heartbeat)).flatten();
        if let Some(renew) = renew {
            self.renewals.insert((node, renew));
            // With itself it speaks at once.
            if self.hear(model, node, node, &renew) {
                self.acked(model, node, node, &renew);
            }
        }
    }

    /// Whether it is acknowledged.
    fn hear(&mut self, model: &Protocol, voter: NodeId, from: NodeId, renew: &Renew) -> bool {
        let view = self.view(model, &self.places[usize::from(voter.0) - 1]);
        let place = self.place(voter);
        let reply = place.voter.on_renew(place.clock, from, renew, &view);
        match reply {
            Reply::Ack => {
                if voter != from {
                    self.acknowledged.insert((voter, from, *renew));
                }
                let promised =
                    |(by, about, of): &(NodeId, NodeId, u64)| (*by, *about) == (voter, from) && *of >= renew.generation;
                self.promise_broken |= self.promised.iter().any(promised);
            }
            Reply::Refuse { above } => {
                if let Some(server) = &mut self.place(from).server
                    && renew.generation == server.holder.generation()
                {
                    server.refused_above = server.refused_above.max(above);
                }
            }
            Reply::SaveFirst | Reply::Ignore => {}
        }
        reply == Reply::Ack
    }

    fn acked(&mut self, model: &Protocol, by: NodeId, to: NodeId, renew: &Renew) {
        let view = self.view(model, &self.places[usize::from(to.0) - 1]);
        let place = self.place(to);
        let (now, applied, Some(server)) = (place.clock, place.applied, &mut place.server) else { return };
        let Some(moved) = server.holder.acknowledged(by, renew, &view.voters) else { return };
        let late = model.broken == Broken::CountedFromReceipt;
        let deadline = if late { now + renew.lease } else { moved.deadline };
        let generation = server.holder.generation();
        server.holder.told_sentinel(now);
        server.sentinel = match server.sentinel {
            Some(armed) if armed.generation == generation && !moved.shortens => {
                Some(Armed { generation, deadline: armed.deadline.max(deadline) })
            }
            _ => Some(Armed { generation, deadline }),
        };
        if moved.shortens {
            server.holder.shortened();
        }
        server.holder.sentinel_answered(generation);
        server.floor = server.floor.max(applied);
    }

    fn promise(&mut self, model: &Protocol, voter: NodeId, about: NodeId) {
        let view = self.view(model, &self.places[usize::from(voter.0) - 1]);
        let generation = view.node(about).generation;
        let wish = Promise { node: about, generation, voters_version: view.voters.version };
        let rules = Rules { promise_wait: model.broken != Broken::PromiseTooEarly, ..Rules::default() };
        let place = self.place(voter);
        if place.voter.promise(place.clock, &wish, &view, rules) != Some(true) {
            return;
        }
        // That it is saved before it is said is one step here: a crash between the two leaves the
        // same as one before.
        if model.broken != Broken::PromiseNotDurable {
            place.promised = place.voter.promised().clone();
        }
        self.promised.insert((voter, about, generation));
    }

    fn restart(&mut self, model: &Protocol, node: NodeId, boot: bool) {
        self.crashes += 1;
        let counts = model.broken != Broken::StartDoesNotCount;
        let place = self.place(node);
        let started = if counts { place.clock } else { Mono(0) };
        place.voter = Voter::new(started, LEASE, place.promised.clone());
        // What was known to be committed may have to be learnt again.
        place.applied = 0;
        let Some(server) = &mut place.server else { return };
        let incarnation = server.holder.incarnation();
        (server.silenced, server.refused_above) = (true, 0);
        if boot {
            (server.holder, server.sentinel) = (Holder::new(incarnation + 1), None);
            (server.runs, server.floor) = (false, 0);
        } else {
            server.holder = match server.sentinel {
                Some(armed) => Holder::resume(incarnation, armed.generation, armed.deadline),
                None => Holder::new(incarnation),
            };
        }
    }

    /// What every machine does at once: notice the end of its lease, begin its generation, start.
    fn settle(&mut self, model: &Protocol) {
        for node in self.nodes() {
            let view = self.view(model, &self.places[usize::from(node.0) - 1]);
            let place = self.place(node);
            let (now, applied) = (place.clock, place.applied);
            let Some(server) = &mut place.server else { continue };
            server.notice_lapse(now);
            let me = view.node(node);
            let ours = me.incarnation == server.holder.incarnation() && !me.dead;
            if ours && me.generation > server.holder.generation() && server.silenced {
                server.holder.begin(me.generation);
                server.refused_above = 0;
            }
            let owner = view.group(GROUP).and_then(|group| group.owner);
            let owns =
                owner.is_some_and(|owner| (owner.node, owner.incarnation) == (node, server.holder.incarnation()));
            server.runs |= owns && server.sentinel.is_some() && applied >= server.floor;
        }
    }
}

impl Server {
    /// As `Core::lapsed` and the sentinel do, with nothing that takes time between.
    fn notice_lapse(&mut self, now: Mono) {
        if self.holder.expire(now) {
            self.silenced = false;
        }
        let Some(armed) = self.sentinel.filter(|armed| now >= armed.deadline) else { return };
        (self.sentinel, self.runs) = (None, false);
        self.lapses += 1;
        if self.holder.is_begun() && armed.generation < self.holder.generation() {
            // The next generation has begun; it goes on, with nothing running.
            return;
        }
        if self.holder.is_begun() {
            self.holder.lapse();
            self.silenced = false;
        }
        if !self.silenced && armed.generation >= self.holder.armed() {
            self.silenced = true;
            self.holder.new_incarnation();
        }
    }

    /// As `Core::beacon`: whether it asks for a generation when it hears a leader.
    fn wants_generation(&self, place: &Place, generation: u64, dead: bool, incarnation: u64) -> bool {
        let begun = self.holder.is_begun() && generation == self.holder.generation() && !dead;
        let refused = self.refused_above >= self.holder.generation() && self.refused_above > 0;
        let ready = self.silenced && place.applied >= self.floor;
        ready && (!begun || refused || incarnation != self.holder.incarnation())
    }
}

fn drift(model: &Protocol) -> u64 {
    if model.broken == Broken::NoDriftAllowance { 0 } else { DRIFT_PERMILLE }
}

fn begun(incarnation: u64, generation: u64) -> Holder {
    let mut holder = Holder::new(incarnation);
    holder.begin(generation);
    holder
}

/// The steps of `recovery`.
impl World {
    /// The machine loses its power for good.
    pub(crate) fn power_off(&mut self, node: NodeId) {
        if let Some(server) = &mut self.place(node).server {
            (server.sentinel, server.runs) = (None, false);
        }
    }

    /// Renewals that may still arrive.
    pub(crate) fn renewals(&self) -> Vec<(NodeId, Renew)> {
        self.renewals.iter().copied().collect()
    }

    /// Acknowledgements that may still arrive.
    pub(crate) fn acknowledgements(&self) -> Vec<(NodeId, NodeId, Renew)> {
        self.acknowledged.iter().copied().collect()
    }

    /// Whether there are entries that it has not learnt of.
    pub(crate) fn is_behind(&self, node: NodeId) -> bool {
        self.places[usize::from(node.0) - 1].applied < self.log.len()
    }

    /// Nothing that was sent before will arrive.
    pub(crate) fn forget_messages(&mut self) {
        self.renewals.clear();
        self.acknowledged.clear();
    }
}
