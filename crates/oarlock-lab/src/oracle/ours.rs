//! What our planner makes of a case, once everything it proposes has been carried out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use oarlock_core::config::{Config, Failback, GroupConfig, Kind, NodeConfig, ResourceConfig, Timing};
use oarlock_core::entry::Entry;
use oarlock_core::ids::{CopyId, GroupId, NodeId};
use oarlock_core::message::{CopyReport, GroupReport, Promise, Report};
use oarlock_core::planner::{self, Knowledge};
use oarlock_core::resource::database::Position;
use oarlock_core::state::{Owner, State};
use oarlock_core::voters::Voters;

use super::Places;
use super::case::{Case, Group, Life};

/// More rounds than any plan needs: then it goes in circles.
const ROUNDS: usize = 10;
/// The number of the database cluster in all cases.
const SYSTEM: u64 = 7;

/// Where our groups end up.
///
/// # Errors
/// When the planner does not come to rest.
pub fn places(case: &Case) -> Result<Places> {
    let mut state = begin(case);
    let promises = promises(case, &state);
    for _ in 0..ROUNDS {
        let reports = reports(case, &state);
        let silent = machines(case).filter(|(_, life)| *life != Life::Up).map(|(node, _)| node).collect();
        let know = Knowledge { state: &state, reports: &reports, silent: &silent, promises: &promises };
        let mut entries = planner::plan(&know);
        entries.extend(hand_overs(case, &know));
        if entries.is_empty() {
            return Ok((0..).map(GroupId).take(case.groups.len()).map(|id| owner(&state, id)).collect());
        }
        for entry in entries {
            state.apply(&entry);
        }
    }
    bail!("the planner does not come to rest on {case:#?}");
}

fn owner(state: &State, id: GroupId) -> Option<usize> {
    state.living_owner(id).map(|node| usize::from(node.0) - 1)
}

fn node(machine: usize) -> NodeId {
    NodeId(u8::try_from(machine + 1).unwrap_or(u8::MAX))
}

fn incarnation(machine: usize) -> u64 {
    100 + machine as u64
}

fn machines(case: &Case) -> impl Iterator<Item = (NodeId, Life)> {
    case.machines.iter().enumerate().map(|(machine, known)| (node(machine), known.life))
}

fn begin(case: &Case) -> State {
    let witness = node(case.machines.len());
    let names = machines(case).map(|(id, _)| id).chain([witness]);
    let config = Config {
        generation: 1,
        text: "drawn".into(),
        cluster: "drawn".into(),
        timing: Timing::BALANCED,
        nodes: names.map(|id| NodeConfig { id, name: format!("n{}", id.0), witness: id == witness }).collect(),
        groups: case.groups.iter().map(group_config).collect(),
    };
    let mut state = State::begin(config);
    // Whoever is there: a majority is not what is compared.
    let up = machines(case).filter(|(_, life)| *life == Life::Up).map(|(id, _)| id);
    state.voters = Voters::begin(up.chain([witness]).collect());
    for (machine, known) in case.machines.iter().enumerate() {
        let Some(about) = state.nodes.get_mut(&node(machine)) else { continue };
        (about.generation, about.incarnation) = (1, incarnation(machine));
        (about.dead, about.standby) = (known.life == Life::Dead, known.standby);
    }
    for (about, known) in state.groups.iter_mut().zip(&case.groups) {
        about.owner = known.owner.map(|machine| Owner { node: node(machine), incarnation: incarnation(machine) });
        (about.last_owner, about.wanted) = (known.last_owner.map(node), known.wanted.map(node));
        (about.epoch, about.version) = (1, 1);
        let members = known.in_sync.iter().flatten();
        about.in_sync = members.map(|machine| (node(*machine), CopyId(incarnation(*machine)))).collect();
        about.system = known.in_sync.as_ref().map(|_| SYSTEM);
    }
    state.maintenance = case.maintenance;
    state
}

fn group_config(group: &Group) -> GroupConfig {
    let main = if group.in_sync.is_some() { Kind::Postgresql } else { Kind::Service };
    let resource = |kind| ResourceConfig { name: format!("{kind:?}"), kind };
    GroupConfig {
        name: "group".into(),
        nodes: group.order.iter().copied().map(node).collect(),
        failback: if group.returns { Failback::Auto } else { Failback::Never },
        resources: [Kind::Address, main].map(resource).to_vec(),
        depends: Vec::new(),
    }
}

fn promises(case: &Case, state: &State) -> BTreeMap<Promise, BTreeSet<NodeId>> {
    let dying = machines(case).filter(|(_, life)| *life == Life::Dying);
    let promise = |node| Promise { node, generation: 1, voters_version: state.voters.version };
    dying.map(|(node, _)| (promise(node), state.voters.nodes.clone())).collect()
}

fn reports(case: &Case, state: &State) -> BTreeMap<NodeId, Report> {
    let up = (0..case.machines.len()).filter(|machine| case.is_up(*machine));
    let report = |machine: usize| {
        let groups = (0..).map(GroupId).zip(&case.groups).map(|(id, group)| group_report(state, id, group, machine));
        Report { incarnation: incarnation(machine), groups: groups.collect(), ..Report::default() }
    };
    up.map(|machine| (node(machine), report(machine))).collect()
}

fn group_report(state: &State, id: GroupId, group: &Group, machine: usize) -> GroupReport {
    let owns = owner(state, id) == Some(machine);
    let streaming = group.streaming.contains(&machine);
    let copy =
        CopyReport { copy: CopyId(incarnation(machine)), system: SYSTEM, position: Position::default(), streaming };
    GroupReport {
        unfit: group.unfit.contains(&machine).then(|| "drawn".into()),
        worn: group.worn.contains(&machine).then(|| "drawn".into()),
        ready: owns || streaming,
        inspected: true,
        serving: owns && group.in_sync.is_some(),
        linked: true,
        copy: group.in_sync.is_some().then_some(copy),
        ..GroupReport::default()
    }
}

/// What owners do about a wish: hand over where that is possible, else drop it or wait.
fn hand_overs(case: &Case, know: &Knowledge<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for ((id, config), known) in know.state.config.groups().zip(&case.groups) {
        let (Some(from), Some(group)) = (owner(know.state, id), know.state.group(id)) else { continue };
        let Some(to) = group.wanted.filter(|to| *to != node(from) && !know.state.maintenance) else { continue };
        let streams = known.in_sync.is_none() || known.streaming.contains(&(usize::from(to.0) - 1));
        let hopeless = !know.state.is_alive(to) || know.state.node(to).standby;
        if hopeless {
            entries.push(Entry::Want { group: id, epoch: group.epoch, node: None });
        } else if streams && planner::obstacle(know, id, config, group, to).is_none() {
            entries.push(Entry::Release {
                group: id,
                epoch: group.epoch,
                incarnation: incarnation(from),
                unwaited: false,
                prefer: Some(to),
                reason: String::new(),
            });
        }
    }
    entries
}
