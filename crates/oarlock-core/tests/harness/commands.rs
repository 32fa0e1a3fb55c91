//! The language of the scripts: what an administrator, a fault or a client does.
//!
//! `cluster two|four [timing=fast|balanced] [failback=auto] [readers] [exporter] [depends] [off]` begins; then
//! `run 300ms`, `until CONDITION`, `poweroff`/`poweron NODE…`, `cut NODE PEER|all [in|out]`,
//! `cut-replication NODE PEER`, `heal`, `freeze`/`thaw NODE`, `kill-agent NODE`, `kill RESOURCE NODE`,
//! `hang`/`wake RESOURCE NODE`, `fail NODE RESOURCE VERB [TIMES]`, `mend NODE RESOURCE`,
//! `carrier NODE on|off`, `write ROWS`, `request …`, `status [at NODE]`, `explain GROUP [at NODE]`, `simulate NODE`,
//! `dump state`, `show`/`hide KIND`. `quietly COMMAND` leaves out what it led to.

use super::cluster::Cluster;
use super::words;
use oarlock_core::config::{Config, Failback, GroupConfig, Kind, NodeConfig, ResourceConfig, Timing};
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use oarlock_core::request::Request;
use oarlock_core::resource::{AddressObservation, Observation};
use oarlock_core::{Core, Event};
use std::fmt::Write;

/// `until` gives up after this long, in microseconds.
const UNTIL_US: u64 = 20_000_000;

/// A script under way.
#[derive(Default)]
pub struct Session {
    cluster: Option<Cluster>,
    requests: u64,
}

impl Session {
    /// Carries out one line; what it led to.
    pub fn run(&mut self, line: &str) -> Vec<String> {
        if let Some(line) = line.strip_prefix("quietly ") {
            self.run(line);
            return Vec::new();
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["cluster", layout, options @ ..] = words.as_slice() {
            let mut cluster = Cluster::new(config(layout, options));
            let all: Vec<NodeId> = cluster.nodes().collect();
            for node in all.into_iter().filter(|_| !options.contains(&"off")) {
                cluster.power_on(node);
            }
            return self.cluster.insert(cluster).trace.take();
        }
        let cluster = self.cluster.as_mut().expect("`cluster` comes first");
        let mut shown = None;
        match words.as_slice() {
            ["status"] => shown = Some(status(ask(cluster))),
            ["status", "at", name] => shown = Some(status(at(cluster, name))),
            ["explain", name] => shown = Some(ask(cluster).explain(group(cluster, name))),
            ["explain", what, "at", name] => shown = Some(at(cluster, name).explain(group(cluster, what))),
            ["simulate", name] => shown = Some(ask(cluster).simulate_failure(node(cluster, name))),
            ["dump", "state"] => shown = Some(dump(cluster)),
            ["request", wish @ ..] => {
                self.requests += 1;
                let event = Event::Requested { id: self.requests, request: request(cluster, wish) };
                let at = ask(cluster).me();
                cluster.tell(at, event);
            }
            ["run", time] => {
                let end_us = cluster.now_us + time_us(time);
                cluster.run(end_us, |_| false);
            }
            ["until", condition @ ..] => {
                let end_us = cluster.now_us + UNTIL_US;
                if !cluster.run(end_us, |cluster| holds(cluster, condition)) {
                    let mut lines = cluster.trace.take();
                    lines.push(format!("still not after {} s", UNTIL_US / 1_000_000));
                    return lines;
                }
                // Everybody hears of it.
                let end_us = cluster.now_us + 2_000;
                cluster.run(end_us, |_| false);
            }
            ["show", kind] => cluster.trace.set_shown(kind, true),
            ["hide", kind] => cluster.trace.set_shown(kind, false),
            words => inflict(cluster, words),
        }
        let mut lines = cluster.trace.take();
        lines.extend(shown.into_iter().flatten().map(|line| cluster.trace.named(&line)));
        lines
    }
}

/// Faults and their repair, and clients.
fn inflict(cluster: &mut Cluster, words: &[&str]) {
    match *words {
        ["poweroff", ref names @ ..] => {
            names.iter().for_each(|name| cluster.machine_mut(node(cluster, name)).power_gone());
        }
        ["poweron", ref names @ ..] => names.iter().for_each(|name| cluster.power_on(node(cluster, name))),
        ["cut", name, peer, ref way @ ..] => {
            let me = node(cluster, name);
            let peers: Vec<NodeId> = match peer {
                "all" => cluster.nodes().filter(|other| *other != me).collect(),
                peer => vec![node(cluster, peer)],
            };
            for peer in peers {
                if way != ["out"] {
                    cluster.cut(peer, me);
                }
                if way != ["in"] {
                    cluster.cut(me, peer);
                }
            }
        }
        ["cut-replication", a, b] => cluster.cut_replication(node(cluster, a), node(cluster, b)),
        ["heal"] => cluster.heal(),
        ["freeze", name] => cluster.freeze(node(cluster, name), true),
        ["thaw", name] => cluster.freeze(node(cluster, name), false),
        ["kill-agent", name] => cluster.kill_agent(node(cluster, name)),
        ["kill", what, name] => cluster.kill(node(cluster, name), resource(cluster, what)),
        [how @ ("hang" | "wake"), what, name] => {
            let since = (how == "hang").then_some(cluster.now_us);
            let unit = cluster.unit(node(cluster, name), resource(cluster, what));
            unit.database.server.iter_mut().for_each(|server| server.frozen_us = since);
        }
        ["fail", name, what, verb, ref times @ ..] => {
            let times = times.first().map_or(1, |times| times.parse().expect("a number or nothing"));
            let unit = cluster.unit(node(cluster, name), resource(cluster, what));
            unit.broken.insert(verb.to_owned(), times);
        }
        ["mend", name, what] => cluster.unit(node(cluster, name), resource(cluster, what)).broken.clear(),
        ["carrier", name, on] => carrier(cluster, node(cluster, name), on == "on"),
        ["write", rows] => cluster.write(rows.parse().expect("a number of rows")),
        ref other => panic!("no such command: {}", other.join(" ")),
    }
}

fn carrier(cluster: &mut Cluster, node: NodeId, up: bool) {
    let addresses = cluster.machine(node).units.iter().filter(|(_, unit)| words::is_address(unit.kind));
    let addresses: Vec<ResourceId> = addresses.map(|(id, _)| *id).collect();
    for id in addresses {
        cluster.unit(node, id).linked = up;
        cluster.observed(node, id, Observation::Address(AddressObservation::Link { up }));
    }
}

/// The first node that can be asked.
fn ask(cluster: &Cluster) -> &Core {
    let machines = cluster.nodes().map(|node| cluster.machine(node));
    let mut able = machines.filter(|machine| !machine.frozen).filter_map(|machine| machine.core.as_ref());
    able.next().expect("an agent that can be asked")
}

fn at<'a>(cluster: &'a Cluster, name: &str) -> &'a Core {
    cluster.machine(node(cluster, name)).core.as_ref().expect("an agent that can be asked")
}

/// What is waited for: `owner`, `started`, `in-sync` with GROUP=NODE…, `alive NODE`, `dead NODE`; in what
/// is committed, whoever knows it already.
fn holds(cluster: &Cluster, condition: &[&str]) -> bool {
    let state = &cluster.truth;
    match *condition {
        ["alive", name] => state.is_alive(node(cluster, name)),
        ["dead", name] => !state.is_alive(node(cluster, name)),
        [what, equation] => {
            let (name, nodes) = equation.split_once('=').expect("GROUP=NODE");
            let id = group(cluster, name);
            match what {
                "owner" if nodes == "none" => state.living_owner(id).is_none(),
                "owner" => state.living_owner(id) == Some(node(cluster, nodes)),
                "started" => is_started(cluster, id, node(cluster, nodes)),
                "in-sync" => {
                    let members = state.group(id).map(|group| group.in_sync.keys().copied().collect::<Vec<_>>());
                    members == Some(nodes.split(',').map(|name| node(cluster, name)).collect())
                }
                other => panic!("no such condition: {other}"),
            }
        }
        _ => panic!("no such condition: {}", condition.join(" ")),
    }
}

/// Whether the group is up at its owner, as the owner says.
fn is_started(cluster: &Cluster, id: GroupId, owner: NodeId) -> bool {
    let Some(core) = &cluster.machine(owner).core else { return false };
    let knows = core.state().group(id) == cluster.truth.group(id);
    knows && cluster.truth.living_owner(id) == Some(owner) && core.status().groups[usize::from(id.0)].state == "started"
}

fn request(cluster: &Cluster, wish: &[&str]) -> Request {
    match *wish {
        ["move", name, to] => Request::Move { group: group(cluster, name), to: node(cluster, to) },
        ["standby", name, on] => Request::Standby { node: node(cluster, name), on: on == "on" },
        ["maintenance", on] => Request::Maintenance { on: on == "on" },
        ["clear", name] => Request::Clear { resource: resource(cluster, name) },
        ["grace", time] => Request::Grace { grace_ms: time_us(time) / 1000 },
        _ => panic!("no such request: {}", wish.join(" ")),
    }
}

fn status(core: &Core) -> Vec<String> {
    let status = core.status();
    let quorum = if status.quorum { "quorum" } else { "no quorum" };
    let mut lines = vec![format!("{quorum}, leader {}", status.leader.as_deref().unwrap_or("unknown"))];
    let nodes: Vec<String> = status.nodes.iter().map(|node| format!("{} {}", node.name, node.state)).collect();
    lines.push(nodes.join(", "));
    for group in &status.groups {
        let owner = group.owner.as_ref().map(|owner| format!(" on {owner}")).unwrap_or_default();
        let reason = group.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(format!("{} {}{owner}, epoch {}{reason}", group.name, group.state, group.epoch));
        for resource in &group.resources {
            let mut line = format!("  {:12}", resource.name);
            for member in &resource.members {
                let sync = if member.in_sync { " in-sync" } else { "" };
                let _ = write!(line, " {} {}{sync};", member.node, member.state);
            }
            lines.push(line.trim_end_matches(';').to_owned());
        }
    }
    lines
}

fn dump(cluster: &Cluster) -> Vec<String> {
    let state = &cluster.truth;
    let voters = &state.voters;
    let mut lines =
        vec![format!("voters {:?} of version {}, maintenance {}", voters.nodes, voters.version, state.maintenance)];
    for (id, node) in &state.nodes {
        let dead = if node.dead { ", dead" } else { "" };
        let standby = if node.standby { ", standby" } else { "" };
        lines.push(format!("{id}: generation {}, incarnation {}{dead}{standby}", node.generation, node.incarnation));
    }
    for (id, _) in state.config.groups() {
        let Some(group) = state.group(id) else { continue };
        let owner = group.owner.map(|owner| owner.node);
        lines.push(format!(
            "{id:?}: epoch {}, owner {owner:?}, last owner {:?}, must wait {}, wanted {:?}",
            group.epoch, group.last_owner, group.must_wait, group.wanted
        ));
        lines.push(format!("{id:?}: version {}, in sync {:?}", group.version, group.in_sync));
    }
    lines
}

fn node(cluster: &Cluster, name: &str) -> NodeId {
    let found = cluster.config.nodes.iter().find(|node| node.name == name);
    found.unwrap_or_else(|| panic!("no such node: {name}")).id
}

fn group(cluster: &Cluster, name: &str) -> GroupId {
    let found = cluster.config.groups().find(|(_, group)| group.name == name);
    found.unwrap_or_else(|| panic!("no such group: {name}")).0
}

fn resource(cluster: &Cluster, name: &str) -> ResourceId {
    let all = cluster.config.groups().flat_map(|(id, group)| group.resources(id).collect::<Vec<_>>());
    let found = all.into_iter().find(|(_, resource)| resource.name == name);
    found.unwrap_or_else(|| panic!("no such resource: {name}")).0
}

fn time_us(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).expect("a unit"));
    let number: u64 = number.parse().expect("a number");
    match unit {
        "ms" => number * 1_000,
        "s" => number * 1_000_000,
        other => panic!("unit {other}: neither ms nor s"),
    }
}

fn config(layout: &str, options: &[&str]) -> Config {
    let failback = if options.contains(&"failback=auto") { Failback::Auto } else { Failback::Never };
    let timing = if options.contains(&"timing=balanced") { Timing::BALANCED } else { Timing::FAST };
    let make = |name: &str, nodes: &[u8], resources: &[(&str, Kind)]| GroupConfig {
        name: name.into(),
        nodes: nodes.iter().copied().map(NodeId).collect(),
        failback,
        resources: resources
            .iter()
            .filter(|(_, kind)| *kind != Kind::ReaderAddress || options.contains(&"readers"))
            .filter(|(name, _)| *name != "exporter" || options.contains(&"exporter"))
            .map(|(name, kind)| ResourceConfig { name: (*name).into(), kind: *kind })
            .collect(),
        depends: if name == "oar" && options.contains(&"depends") { vec![GroupId(0)] } else { Vec::new() },
    };
    let db = ("db", Kind::Postgresql);
    let (oar, readers) = (("oar-server", Kind::Service), ("readers", Kind::ReaderAddress));
    let exporter = ("exporter", Kind::Service);
    let (names, groups) = match layout {
        "two" => {
            let vip = ("vip", Kind::Address);
            (vec!["server1", "server2", "frontend"], vec![make("oar", &[1, 2], &[vip, db, oar, readers])])
        }
        "four" => {
            let db_group = make("data", &[3, 4], &[("dbvip", Kind::Address), db, exporter, readers]);
            let oar_group = make("oar", &[1, 2], &[("oarvip", Kind::Address), oar]);
            (vec!["oar1", "oar2", "db1", "db2", "frontend"], vec![db_group, oar_group])
        }
        other => panic!("no such layout: {other}"),
    };
    let nodes = (1..).map(NodeId).zip(names);
    let nodes = nodes.map(|(id, name)| NodeConfig { id, name: name.into(), witness: name == "frontend" }).collect();
    Config { generation: 1, text: "script".into(), cluster: "script".into(), timing, nodes, groups }
}
