//! Arbitrary clusters: small numbers, so that chance meets what belongs together.

use oarlock_core::config::{Config, Failback, GroupConfig, Kind, NodeConfig, ResourceConfig, Timing};
use oarlock_core::entry::{Entry, FirstCopy, Moved, Proof, SetVersion};
use oarlock_core::ids::{CopyId, GroupId, NodeId, ResourceId, VoterId};
use oarlock_core::message::{CopyReport, GroupReport, Report, ResourceReport};
use oarlock_core::resource::database::Position;
use oarlock_core::state::{GroupState, NodeState, Owner, State};
use oarlock_core::time::Span;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes of every cluster; the last is the witness.
pub const NODES: u8 = 4;
const GROUPS: u8 = 2;

pub fn node() -> impl Strategy<Value = NodeId> {
    (1..=NODES).prop_map(NodeId)
}

fn server() -> impl Strategy<Value = NodeId> {
    (1..NODES).prop_map(NodeId)
}

fn group_id() -> impl Strategy<Value = GroupId> {
    (0..=GROUPS).prop_map(GroupId)
}

fn copy() -> impl Strategy<Value = CopyId> {
    (1_u64..4).prop_map(CopyId)
}

pub fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-zé ]{1,12}"]
}

pub fn config() -> impl Strategy<Value = Config> {
    (vec(group_config(), 1..=usize::from(GROUPS)), 1_u64..3).prop_map(|(groups, generation)| Config {
        generation,
        text: "text".into(),
        cluster: "any".into(),
        timing: Timing::FAST,
        nodes: (1..=NODES)
            .map(|id| NodeConfig { id: NodeId(id), name: format!("node{id}"), witness: id == NODES })
            .collect(),
        groups,
    })
}

fn group_config() -> impl Strategy<Value = GroupConfig> {
    let kinds = prop_oneof![Just(vec![Kind::Address, Kind::Service]), Just(vec![Kind::Address, Kind::Postgresql])];
    let failback = prop_oneof![Just(Failback::Never), Just(Failback::Auto)];
    let nodes = Just((1..NODES).map(NodeId).collect::<Vec<_>>()).prop_shuffle();
    (kinds, failback, nodes, 2_usize..usize::from(NODES)).prop_map(|(kinds, failback, mut nodes, count)| {
        nodes.truncate(count);
        let resources = kinds.iter().map(|kind| ResourceConfig { name: format!("{kind:?}"), kind: *kind }).collect();
        GroupConfig { name: "group".into(), nodes, failback, resources, depends: Vec::new() }
    })
}

fn node_state() -> impl Strategy<Value = NodeState> {
    (0_u64..3, prop::bool::weighted(0.2), 0_u64..2, prop::bool::weighted(0.2)).prop_map(
        |(generation, dead, incarnation, standby)| NodeState {
            generation,
            dead,
            incarnation,
            standby,
            voter: VoterId::FIRST,
        },
    )
}

fn group_state() -> impl Strategy<Value = GroupState> {
    let owner = (server(), 0_u64..2).prop_map(|(node, incarnation)| Owner { node, incarnation });
    let members = btree_map(server(), copy(), 0..3);
    (0_u64..3, option::of(owner), option::of(server()), any::<bool>(), option::of(server()), 0_u64..3, members)
        .prop_map(|(epoch, owner, last_owner, must_wait, wanted, version, in_sync)| GroupState {
            epoch,
            owner,
            last_owner,
            must_wait,
            wanted,
            version,
            system: (!in_sync.is_empty()).then_some(7),
            in_sync,
            ..GroupState::default()
        })
}

/// A state, reachable or not.
pub fn state() -> impl Strategy<Value = State> {
    let groups = vec(group_state(), usize::from(GROUPS));
    let nodes = vec(node_state(), usize::from(NODES));
    (config(), groups, nodes, prop::bool::weighted(0.1)).prop_map(|(config, mut groups, nodes, maintenance)| {
        let mut state = State::begin(config);
        groups.truncate(state.groups.len());
        for (group, config) in groups.iter_mut().zip(&state.config.groups) {
            let data = config.resources.iter().any(|resource| resource.kind == Kind::Postgresql);
            group.in_sync.retain(|node, _| data && config.nodes.contains(node));
            group.owner = group.owner.filter(|owner| config.nodes.contains(&owner.node));
        }
        state.groups = groups;
        state.nodes = (1..=NODES).map(NodeId).zip(nodes).collect();
        state.maintenance = maintenance;
        state
    })
}

fn group_report() -> impl Strategy<Value = GroupReport> {
    let rarely = || option::weighted(0.15, word());
    let copy = (copy(), any::<bool>(), 6_u64..8).prop_map(|(copy, streaming, system)| CopyReport {
        copy,
        system,
        position: Position(1),
        streaming,
    });
    let resource = (word(), 0_u32..4, option::of(word())).prop_map(|(state, failures, reason)| ResourceReport {
        state: state.into(),
        failures,
        reason,
    });
    let bits = (any::<bool>(), prop::bool::weighted(0.8), any::<bool>(), any::<bool>(), any::<bool>());
    let awaits = option::weighted(0.15, (0..GROUPS).prop_map(GroupId));
    (rarely(), rarely(), bits, awaits, option::of(copy), vec(resource, 0..3)).prop_map(
        |(unfit, worn, (ready, usable, inspected, serving, linked), awaits, copy, resources)| GroupReport {
            unfit,
            worn,
            ready,
            usable,
            awaits,
            inspected,
            serving,
            linked,
            copy,
            resources,
        },
    )
}

pub fn report() -> impl Strategy<Value = Report> {
    let voter = (any::<u64>().prop_map(VoterId), any::<u64>(), any::<u64>().prop_map(Span));
    (0_u64..2, any::<u64>(), voter, vec(group_report(), usize::from(GROUPS))).prop_map(
        |(incarnation, applied, (voter, voters_version, lease_max), groups)| Report {
            incarnation,
            applied,
            voter,
            voters_version,
            lease_max,
            groups,
        },
    )
}

pub fn reports() -> impl Strategy<Value = BTreeMap<NodeId, Report>> {
    btree_map(node(), report(), 0..=usize::from(NODES))
}

pub fn some_nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set(node(), 0..=usize::from(NODES))
}

fn moved() -> impl Strategy<Value = Moved> {
    (group_id(), 0_u64..3, server(), 0_u64..2).prop_map(|(group, epoch, to, incarnation)| Moved {
        group,
        epoch,
        to,
        incarnation,
    })
}

fn set_version() -> impl Strategy<Value = SetVersion> {
    (group_id(), 0_u64..3, 0_u64..3).prop_map(|(group, epoch, version)| SetVersion { group, epoch, version })
}

/// Any entry, sensible or not.
pub fn entry() -> impl Strategy<Value = Entry> {
    let proof = (1_u64..3, some_nodes()).prop_map(|(voters_version, by)| Proof::Promised { voters_version, by });
    let first = (copy(), 6_u64..8).prop_map(|(copy, system)| FirstCopy { copy, system });
    let (small, life) = (|| 0_u64..3, || 0_u64..2);
    let release = (group_id(), small(), life(), any::<bool>(), option::of(node()), word());
    prop_oneof![
        (node(), small(), small(), life()).prop_map(|(node, from, to, incarnation)| Entry::Alive {
            node,
            from,
            to,
            incarnation
        }),
        (node(), small(), proof, vec(moved(), 0..3)).prop_map(|(node, generation, proof, moves)| Entry::Take {
            node,
            generation,
            proof,
            moves
        }),
        (moved(), option::weighted(0.3, first)).prop_map(|(moved, first)| Entry::Own { moved, first }),
        release.prop_map(|(group, epoch, incarnation, unwaited, prefer, reason)| Entry::Release {
            group,
            epoch,
            incarnation,
            unwaited,
            prefer,
            reason
        }),
        (set_version(), server(), copy(), 6_u64..8).prop_map(|(at, node, copy, system)| Entry::Join {
            at,
            node,
            copy,
            system
        }),
        (set_version(), server(), any::<u64>()).prop_map(|(at, node, life)| Entry::Leave { at, node, life }),
        (group_id(), small(), node(), life(), any::<u64>()).prop_map(|(group, epoch, node, incarnation, nonce)| {
            Entry::Rejoin { group, epoch, node, incarnation, nonce }
        }),
        (group_id(), small(), option::of(server())).prop_map(|(group, epoch, node)| Entry::Want { group, epoch, node }),
        (node(), any::<bool>()).prop_map(|(node, on)| Entry::Standby { node, on }),
        any::<bool>().prop_map(|on| Entry::Maintenance { on }),
        (group_id(), 0_u8..3).prop_map(|(group, index)| Entry::Clear { resource: ResourceId { group, index } }),
        config().prop_map(|config| Entry::Configure(Box::new(config))),
    ]
}
