//! What the leader proposes: pure, from the applied state and what the nodes report.
//!
//! The planner decides where groups belong; it grants nothing itself. Every proposal is
//! compare-and-swap, so a leader that is not one any more does no harm.

pub mod voters;

use crate::config::{Failback, GroupConfig};
use crate::entry::{Entry, FirstCopy, Moved, Proof};
use crate::ids::{GroupId, NodeId};
use crate::message::{GroupReport, Promise, Report};
use crate::state::{GroupState, State};
use std::collections::{BTreeMap, BTreeSet};

/// What the leader knows.
#[derive(Clone, Copy)]
pub struct Knowledge<'a> {
    /// What is applied.
    pub state: &'a State,
    /// The nodes' own reports.
    pub reports: &'a BTreeMap<NodeId, Report>,
    /// Nodes whose renewals have not come lately.
    pub silent: &'a BTreeSet<NodeId>,
    /// Promises collected.
    pub promises: &'a BTreeMap<Promise, BTreeSet<NodeId>>,
}

/// Why a group cannot be placed, in words; or where it belongs.
pub type Placement = Result<NodeId, String>;

/// Everything to propose now.
pub fn plan(know: &Knowledge<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = know.state.nodes.keys().filter_map(|node| take(know, *node)).collect();
    if know.state.maintenance {
        return entries;
    }
    for (id, config) in know.state.config.groups() {
        let Some(group) = know.state.group(id) else { continue };
        match know.state.living_owner(id) {
            None => entries.extend(own(know, id, config, group)),
            Some(owner) => entries.extend(wish(know, id, config, group, owner)),
        }
    }
    entries
}

/// The death of a node that a majority has promised, with new owners for its groups.
fn take(know: &Knowledge<'_>, node: NodeId) -> Option<Entry> {
    let known = know.state.node(node);
    if !know.state.is_alive(node) {
        return None;
    }
    let promise = Promise { node, generation: known.generation, voters_version: know.state.voters.version };
    let by = know.promises.get(&promise)?;
    if !know.state.voters.is_majority(by) {
        return None;
    }
    let owned = |group: &GroupState| group.owner.is_some_and(|owner| owner.node == node);
    let moves = know.state.config.groups().filter_map(|(id, config)| {
        let group = know.state.group(id).filter(|group| owned(group) && !know.state.maintenance)?;
        let to = place(know, id, config, group, Some(node)).ok()?;
        Some(moved(know.state, id, group, to))
    });
    let proof = Proof::Promised { voters_version: promise.voters_version, by: by.clone() };
    Some(Entry::Take { node, generation: known.generation, proof, moves: moves.collect() })
}

fn moved(state: &State, id: GroupId, group: &GroupState, to: NodeId) -> Moved {
    Moved { group: id, epoch: group.epoch, to, incarnation: state.node(to).incarnation }
}

fn own(know: &Knowledge<'_>, id: GroupId, config: &GroupConfig, group: &GroupState) -> Option<Entry> {
    let to = place(know, id, config, group, None).ok()?;
    let has_data = config.data_resource(id).is_some();
    let copy = if has_data && group.in_sync.is_empty() { report(know, to, id)?.copy } else { None };
    let first = copy.map(|copy| FirstCopy { copy: copy.copy, system: copy.system });
    Some(Entry::Own { moved: moved(know.state, id, group, to), first })
}

/// A living owner that would better be another.
fn wish(know: &Knowledge<'_>, id: GroupId, config: &GroupConfig, group: &GroupState, owner: NodeId) -> Option<Entry> {
    if group.wanted.is_some() {
        return None;
    }
    let leaving = know.state.node(owner).standby;
    let back = config.failback == Failback::Auto;
    let waits = report(know, owner, id).is_some_and(|report| report.awaits.is_some());
    if !leaving && !back && !waits {
        return None;
    }
    let better = place(know, id, config, group, Some(owner)).ok()?;
    let rank = |node: NodeId| config.nodes.iter().position(|known| *known == node);
    let preferred = back && rank(better) < rank(owner);
    let there = report(know, better, id)?;
    // Where it keeps failing or would wait for another group it would not stay, but come straight back here.
    let sound = there.worn.is_none() && there.awaits.is_none();
    let settled = report(know, owner, id)?.ready && there.copy.is_none_or(|copy| copy.streaming);
    (leaving || (sound && (waits || (preferred && settled)))).then_some(Entry::Want {
        group: id,
        epoch: group.epoch,
        node: Some(better),
    })
}

/// Where a group belongs, leaving `except` out.
///
/// # Errors
/// Why there is no such place, for `explain`.
pub fn place(
    know: &Knowledge<'_>,
    id: GroupId,
    config: &GroupConfig,
    group: &GroupState,
    except: Option<NodeId>,
) -> Placement {
    let mut reasons = Vec::new();
    let mut fit = Vec::new();
    for node in config.nodes.iter().copied().filter(|node| Some(*node) != except) {
        match obstacle(know, id, config, group, node) {
            None => fit.push(node),
            Some(reason) => reasons.push(format!("{}: {reason}", know.state.config.node_name(node))),
        }
    }
    if config.data_resource(id).is_some() && group.in_sync.is_empty() {
        return first_place(know, id, config, &fit, reasons);
    }
    // Whoever asked for a node knows what failed there; it may be repaired.
    if let Some(wanted) = group.wanted.filter(|wanted| fit.contains(wanted)) {
        return Ok(wanted);
    }
    // Where it keeps failing, or would wait for a group that is not heard there, it is tried only when there is no
    // other place.
    let says = |good: fn(&GroupReport) -> bool| move |node: &NodeId| report(know, *node, id).is_some_and(good);
    let fit = narrowed(fit, says(|report| report.worn.is_none()));
    let fit = narrowed(fit, says(|report| report.awaits.is_none()));
    let chosen = group.last_owner.filter(|last| fit.contains(last));
    chosen.or(fit.first().copied()).ok_or_else(|| reasons.join("; "))
}

/// Those that are better, if there are any.
fn narrowed(nodes: Vec<NodeId>, better: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
    let among: Vec<NodeId> = nodes.iter().copied().filter(better).collect();
    if among.is_empty() { nodes } else { among }
}

/// Why a node cannot have the group.
pub fn obstacle(
    know: &Knowledge<'_>,
    id: GroupId,
    config: &GroupConfig,
    group: &GroupState,
    node: NodeId,
) -> Option<String> {
    if !know.state.is_alive(node) {
        return Some("not there".into());
    }
    if know.state.node(node).standby {
        return Some("taken out of service".into());
    }
    let counts = config.data_resource(id).is_none() || group.in_sync.is_empty() || group.in_sync.contains_key(&node);
    if !counts {
        return Some("its copy does not hold every acknowledged write".into());
    }
    if know.silent.contains(&node) {
        return Some("silent".into());
    }
    match report(know, node, id) {
        None => Some("has not reported yet".into()),
        Some(report) => report.unfit.clone(),
    }
}

/// The first owner of a group with data: who has some; with none anywhere, the preferred node
/// makes some. Two databases are one too many: only a person can choose.
fn first_place(
    know: &Knowledge<'_>,
    id: GroupId,
    config: &GroupConfig,
    fit: &[NodeId],
    mut reasons: Vec<String>,
) -> Placement {
    let mut with_data = Vec::new();
    for node in &config.nodes {
        match report(know, *node, id) {
            Some(report) if report.inspected => {
                if report.copy.is_some() {
                    with_data.push(*node);
                }
            }
            _ => reasons.push(format!("{} has not said yet what data it has", know.state.config.node_name(*node))),
        }
    }
    match with_data.as_slice() {
        [only] if fit.contains(only) => Ok(*only),
        // An absent node might have the data: without any in sight, all must have been asked.
        [] if reasons.is_empty() => fit.first().copied().ok_or_else(|| "no node is fit".into()),
        [_] | [] => Err(reasons.join("; ")),
        _ => Err("more than one node has a database of its own: move all but the right one aside".into()),
    }
}

fn report<'a>(know: &Knowledge<'a>, node: NodeId, id: GroupId) -> Option<&'a GroupReport> {
    let report = know.reports.get(&node)?;
    // A report of a former life says nothing of this one.
    (report.incarnation == know.state.node(node).incarnation).then_some(())?;
    report.groups.get(usize::from(id.0))
}
